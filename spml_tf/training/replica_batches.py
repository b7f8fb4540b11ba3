"""A step's batch on one of several replicas: dealt out, and its values those of the whole batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from spml_tf.labels import STAND_IN
from spml_tf.system import replicas
from spml_tf.training.batches import checked_labels

if TYPE_CHECKING:
    from spml_tf.training.parts import Term


def dealt(data: tf.data.Dataset, strategy: tf.distribute.Strategy) -> Any:
    """Batches of a dataset, dealt out to the replicas of a strategy.

    Of several workers each takes, of every batch, the images whose index modulo the workers is its
    number; without an index, every n-th image. Within a worker each replica takes as many, give or
    take one.

    Args:
        data: of `(x, y)` or `(x, y, sample_weight)`, of the same order on all workers.
        strategy: with several replicas.

    Returns:
        `tf.distribute.DistributedDataset`, one element a batch, again and again. Where a replica
        has no image the first one stands in, with STAND_IN as its labels.
    """
    with strategy.scope():
        (worker, workers), devices = replicas.this_shard(), replicas.devices()

    def pieces(*batch: Any) -> tf.data.Dataset:
        x, y, *weight = batch if len(batch) > 1 else batch[0]
        y = checked_labels(y)
        size = tf.shape(y, tf.int64)[0]
        index = x.get("index") if isinstance(x, Mapping) else None
        number = tf.range(size) if index is None else tf.cast(index, tf.int64)
        own = tf.where(number % workers == worker)[:, 0]

        def piece(device: tf.Tensor) -> Any:
            rows = own[device::devices]
            none = tf.size(rows) == 0
            rows = tf.cond(none, lambda: tf.zeros([1], tf.int64), lambda: rows)
            found = tf.nest.map_structure(lambda value: tf.gather(value, rows), (x, y, *weight))
            labels = tf.where(none, tf.constant(STAND_IN, y.dtype), found[1])
            return (found[0], labels, *found[2:])

        return tf.data.Dataset.range(devices).map(piece)

    def of_worker(context: Any) -> tf.data.Dataset:
        return data.repeat().flat_map(pieces).prefetch(2 * devices)

    return strategy.distribute_datasets_from_function(of_worker)


def deal_argument(
    given: dict[str, Any], name: str, steps: str, strategy: tf.distribute.Strategy
) -> None:
    """Deals a dataset among the arguments of `fit` or `evaluate` out to the replicas, in place.

    Args:
        given: the arguments by name; arrays among them stay as they are.
        name: of the dataset's.
        steps: of the argument that says how many batches to take, which is set too.
        strategy: of the model.

    Raises:
        ValueError: for a dataset whose length nobody knows, without steps.
    """
    data = given.get(name)
    if strategy.num_replicas_in_sync == 1 or not isinstance(data, tf.data.Dataset):
        return
    if given.get(steps) is None:
        # At the end of data that replicas share Keras would run a part of one step more.
        given[steps] = int(data.cardinality())
        if given[steps] < 1:
            raise ValueError(
                f"{name}: a dataset of unknown length; with a tf.distribute strategy give "
                f"{steps}, or apply tf.data.experimental.assert_cardinality"
            )
    given[name] = dealt(data, strategy)


def without_stand_ins(labels: tf.Tensor, *tensors: Any) -> tuple[Any, ...]:
    """The rows of a batch that are images of it; tensors [B, ...] or None.

    Args:
        labels: [B, L], STAND_IN in the row of an image that only stands in.
        tensors: rows to keep along with them.
    """
    if replicas.count() == 1:
        return labels, *tensors
    real = labels[:, 0] != tf.constant(STAND_IN, labels.dtype)
    return tuple(None if x is None else tf.boolean_mask(x, real) for x in (labels, *tensors))


def own_rows(index: tf.Tensor, shard: replicas.Shard) -> tf.Tensor:
    """The rows [B] of images in the tables of this process, by their numbers [B] in all images."""
    worker, workers = shard
    if workers == 1:
        return index
    own = tf.debugging.assert_equal(
        index % workers, tf.constant(worker, index.dtype),
        f"worker {worker} of {workers} trains the images whose index modulo {workers} is "
        f"{worker}; fit deals datasets out like this; of arrays take model.shard.own(array)",
    )  # fmt: skip
    with tf.control_dependencies([own] if own is not None else []):
        return index // workers


def weighed_by_images(
    values: Mapping[Term, tf.Tensor], size: tf.Tensor
) -> tuple[dict[Term, tf.Tensor], tf.Tensor]:
    """Values of this replica such that their mean over replicas is that of the whole batch.

    Args:
        values: of each term, scalar float32, as its `of_whole_batch` says.
        size: () int32, images of this replica; it may have more than another, or none.

    Returns:
        The values, and the images of the whole batch a replica.
    """
    if replicas.count() == 1:
        return dict(values), size
    images = tf.cast(size, tf.float32)
    whole = replicas.sum_of_replicas(images) / replicas.count()
    share = tf.math.divide_no_nan(images, whole)
    found = {}
    for term, value in values.items():
        value = tf.where(images > 0, value, tf.zeros_like(value))
        found[term] = value if term.of_whole_batch else value * share
    return found, whole
