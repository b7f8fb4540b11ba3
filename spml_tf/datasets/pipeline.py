"""From Examples to batches: random crops, flips, resizing, in an order that can be resumed.

Order, crops and flips depend only on (seed, epoch, image index), never on what was drawn before, so
that a run that resumes sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray

from spml_tf.datasets import colour_changes, image_headers
from spml_tf.datasets.dataset_elements import Source, draw
from spml_tf.datasets.images import decode_image
from spml_tf.datasets.readers.examples import Examples
from spml_tf.labels import STAND_IN, validate_labels
from spml_tf.system.errors import UserError
from spml_tf.system.replicas import WHOLE, Shard

_Function = TypeVar("_Function", bound=Callable[..., Any])
# From the numbers of images, int64 [n], to batches of them: (dict, labels int8 [B, L]).
Batched = Callable[[tf.Tensor], tf.data.Dataset]

# Distinguish an epoch's crops and flips, and its changes of colour, from its order.
_DRAWS, _COLOUR_DRAWS = 0, 1
# Images that are read ahead of a batch that is being put together, at most.
_AHEAD = 32
# Pieces of batches of several workers that are read at a time.
_PIECES_AT_ONCE = 4


def as_written(function: _Function) -> _Function:
    """A function without `if` and loops over tensors: looking for such takes half a second."""
    converted: _Function = tf.autograph.experimental.do_not_convert(function)
    return converted


def steps_per_epoch(num_images: int, batch_size: int) -> int:
    """Number of batches of an epoch, the last, smaller one included."""
    return math.ceil(num_images / batch_size)


def training_dataset(
    examples: Examples,
    labels: ArrayLike,
    *,
    image_size: int,
    batch_size: int,
    seed: int,
    first_epoch: int = 1,
    epochs: int = 1,
    first_step: int = 0,
    crop_area: tuple[float, float] = (0.25, 1.0),
    horizontal_flip: bool = True,
    colours: tuple[int, float] = (0, 0.0),
    shuffle_groups: int = 1,
    shard: Shard = WHOLE,
    pieces: int = 1,
) -> tf.data.Dataset:
    """Shuffled batches of random crops for some epochs, one epoch after the other.

    Args:
        examples: the N images.
        labels: [N, L] of {1, 0, -1}, what the training may see.
        image_size: side S of the network's input in pixels.
        batch_size: images per batch B; the last batch of an epoch holds the remainder.
        seed: together with the epoch and the image's index it decides order, crops, flips and
            changes of colour.
        first_epoch: the number of the first epoch, counted from 1.
        epochs: how many epochs follow, this one included.
        first_step: batches of the first epoch that are left out.
        crop_area: lowest and highest area of a crop, a part of the image's, in (0, 1].
        horizontal_flip: whether every second crop, on average, is mirrored.
        colours: how many changes of colour each crop undergoes, and their strength in [0, 1]; see
            `colour_changes.changed`.
        shuffle_groups: S; of the groups of images with one index modulo S every batch holds equally
            many, where B is a multiple of S. With a multiple of the workers all have as much to do.
        shard: of one of several workers; order and crops do not depend on it.
        pieces: in which that worker's images of a batch come, one a device.

    Returns:
        Dataset of `epochs * steps_per_epoch(N, B) - first_step` batches
        ({"image": float32 [B, S, S, 3] in 0..255, "box": float32 [B, 4] (y1, x1, y2, x2) of the
        crop in [0, 1] of the whole image, "flip": bool [B], "index": int64 [B] position in
        examples}, labels: int8 [B, L]). No batch crosses epochs. Of several workers each has
        its own images of every batch, in `pieces` batches; where there is none an image stands in,
        with STAND_IN as all its labels.

    Raises:
        ValueError: no images, labels that do not fit, or numbers out of range.
    """
    labels = _checked_labels(examples, labels, image_size, batch_size)
    check_crop_area(crop_area)
    source = Source(examples, labels, image_size)

    def crops(epoch: tf.Tensor) -> Batched:
        epoch_seed = _fold_in(_base_seed(seed), epoch)
        return _crops(
            source, len(examples), epoch_seed, batch_size, crop_area, horizontal_flip, colours
        )

    return batches_of_epochs(
        crops, len(examples), batch_size=batch_size, seed=seed, first_epoch=first_epoch,
        epochs=epochs, first_step=first_step, shuffle_groups=shuffle_groups, shard=shard,
        pieces=pieces,
    )  # fmt: skip


def batches_of_epochs(
    batched: Callable[[tf.Tensor], Batched],
    count: int,
    *,
    batch_size: int,
    seed: int,
    first_epoch: int = 1,
    epochs: int = 1,
    first_step: int = 0,
    shuffle_groups: int = 1,
    shard: Shard = WHOLE,
    pieces: int = 1,
) -> tf.data.Dataset:
    """Batches of anything that is kept of images, in the order of `training_dataset`.

    Args:
        batched: from an epoch's number, int64 (), makes the function that makes batches of images;
            called inside tf.data's functions.
        count: N, the number of images.
        batch_size: images per batch B.
        seed: decides the order, together with the epoch.
        first_epoch: the number of the first epoch, counted from 1.
        epochs: how many epochs follow, this one included.
        first_step: batches of the first epoch that are left out.
        shuffle_groups: as for `training_dataset`.
        shard: of one of several workers.
        pieces: in which that worker's images of a batch come, one a device.

    Returns:
        Dataset of `epochs * steps_per_epoch(N, B) - first_step` batches, times `pieces`.

    Raises:
        ValueError: numbers out of range.
    """
    steps = steps_per_epoch(count, batch_size)
    if first_epoch < 1 or epochs < 0 or not 0 <= first_step <= steps * epochs:
        raise ValueError("first_epoch must be at least 1, epochs and first_step at least 0")

    @as_written
    def batches_of(epoch: tf.Tensor) -> tf.data.Dataset:
        order = _shuffled(count, _fold_in(_base_seed(seed), epoch), shuffle_groups)
        first = tf.where(epoch == first_epoch, tf.constant(first_step, tf.int64), 0)
        order = order[first * batch_size :]
        return _batches(order, batched(epoch), batch_size, shard, pieces)

    dataset = tf.data.Dataset.range(first_epoch, first_epoch + epochs).flat_map(batches_of)
    steps = (epochs * steps - first_step) * pieces
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(steps))
    return dataset.prefetch(tf.data.AUTOTUNE)


def redrawn_dataset(
    examples: Examples,
    labels: ArrayLike,
    *,
    image_size: int,
    batch_size: int,
    seed: int,
    crop_area: tuple[float, float] = (0.25, 1.0),
    horizontal_flip: bool = True,
) -> tf.data.Dataset:
    """One epoch of `training_dataset`, with other crops, flips and order each time it is iterated.

    Args and raises: as for `training_dataset`.

    Returns:
        Dataset of `steps_per_epoch(N, B)` batches, as `training_dataset` returns.
    """
    labels = _checked_labels(examples, labels, image_size, batch_size)
    check_crop_area(crop_area)
    source = Source(examples, labels, image_size)

    @as_written
    def batches_of(number: tf.Tensor) -> tf.data.Dataset:
        epoch_seed = tf.bitcast(number, tf.int32)
        batched = _crops(source, len(examples), epoch_seed, batch_size, crop_area, horizontal_flip)
        return batched(_shuffled(len(examples), epoch_seed))

    numbers = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).take(1)
    dataset = numbers.flat_map(batches_of)
    steps = steps_per_epoch(len(examples), batch_size)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(steps))
    return dataset.prefetch(tf.data.AUTOTUNE)


def _crops(
    source: Source,
    count: int,
    epoch_seed: tf.Tensor,
    batch_size: int,
    crop_area: tuple[float, float],
    horizontal_flip: bool,
    colours: tuple[int, float] = (0, 0.0),
) -> Batched:
    """A function that makes batches of an epoch's random crops; epoch_seed is int32 [2]."""
    # Of all images at once, which is much faster; a row is the same for any number of images.
    drawn = draw(_fold_in(epoch_seed, _DRAWS), count)
    changes, strength = colours

    def example(index: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        return source.random_crop(index, tf.gather(drawn, index), crop_area, horizontal_flip)

    if not changes:
        return functools.partial(_each, example, batch_size)
    of_colours = tf.random.stateless_uniform(
        [count, changes, colour_changes.DRAWS], _fold_in(epoch_seed, _COLOUR_DRAWS), alg="philox"
    )

    def coloured(index: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        inputs, labels = example(index)
        draws = tf.gather(of_colours, index)
        image = colour_changes.changed(inputs["image"], draws, strength)
        return {**inputs, "image": image}, labels

    return functools.partial(_each, coloured, batch_size)


def _each(
    example: Callable[[tf.Tensor], tuple[dict[str, tf.Tensor], tf.Tensor]],
    batch_size: int,
    index: tf.Tensor,
) -> tf.data.Dataset:
    """Batches of what is made of each image of int64 [n]."""
    # AUTOTUNE stops at the number of cores, which then wait while a batch is put together.
    at_once = (os.cpu_count() or 1) + min(batch_size, _AHEAD)
    images = tf.data.Dataset.from_tensor_slices(index)
    return images.map(as_written(example), num_parallel_calls=at_once).batch(batch_size)


def _shuffled(count: int, epoch_seed: tf.Tensor, groups: int = 1) -> tf.Tensor:
    """The order of an epoch, int64 [count]; epoch_seed is int32 [2]."""
    order = tf.random.experimental.stateless_shuffle(
        tf.range(count, dtype=tf.int64), epoch_seed, alg="philox"
    )
    return _in_turns(order, groups) if groups > 1 else order


def _in_turns(order: tf.Tensor, groups: int) -> tf.Tensor:
    """Images, int64 [N], so that those of each index modulo `groups` come in turns."""
    group = order % groups
    by_group = tf.argsort(group, stable=True)
    first = tf.math.cumsum(tf.math.bincount(tf.cast(group, tf.int32), minlength=groups),
                           exclusive=True)  # fmt: skip
    turn = tf.range(tf.size(order)) - tf.gather(first, tf.gather(group, by_group))
    place = tf.cast(turn, tf.int64) * groups + tf.gather(group, by_group)
    return tf.gather(order, tf.gather(by_group, tf.argsort(place)))


def _batches(
    order: tf.Tensor,
    batched: Batched,
    batch_size: int,
    shard: Shard,
    pieces: int,
) -> tf.data.Dataset:
    """The images of an order, int64 [N], in batches, or a worker's pieces of these."""
    if shard.workers == 1:
        return batched(order)

    @as_written
    def piece(number: tf.Tensor) -> tf.data.Dataset:
        begin = number // pieces * batch_size
        index = order[begin : begin + batch_size]
        index = tf.boolean_mask(index, index % shard.workers == shard.worker)
        index = index[number % pieces :: pieces]
        stand_in = batched(order[begin : begin + 1]).map(as_written(_standing_in))
        return batched(index).concatenate(stand_in).take(1)

    steps = -(-tf.size(order, tf.int64) // batch_size)
    return tf.data.Dataset.range(steps * pieces).interleave(
        piece, cycle_length=_PIECES_AT_ONCE, num_parallel_calls=_PIECES_AT_ONCE, deterministic=True
    )


def _standing_in(
    inputs: dict[str, tf.Tensor], labels: tf.Tensor
) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """A batch for a device that has none: all take as many steps, and networks want an image."""
    return inputs, tf.fill(tf.shape(labels), tf.constant(STAND_IN, labels.dtype))


def check_crop_area(crop_area: tuple[float, float]) -> None:
    """Raises ValueError for what is no interval in (0, 1]."""
    if not 0 < crop_area[0] <= crop_area[1] <= 1:
        raise ValueError(f"crop_area: expected 0 < low <= high <= 1, found {crop_area}")


def evaluation_dataset(
    examples: Examples,
    labels: ArrayLike,
    *,
    image_size: int,
    batch_size: int,
    shard: Shard = WHOLE,
    pieces: int = 1,
) -> tf.data.Dataset:
    """Every image once, whole and in order.

    Args:
        examples: the N images.
        labels: [N, L] of {1, 0, -1}.
        image_size: side of the network's input in pixels.
        batch_size: images per batch; the last batch holds the remainder.
        shard: of one of several workers.
        pieces: as for `training_dataset`.

    Returns:
        Dataset of batches as in `training_dataset`, with the box (0, 0, 1, 1) and no flip.

    Raises:
        ValueError: no images, labels that do not fit, or numbers out of range.
    """
    labels = _checked_labels(examples, labels, image_size, batch_size)
    source = Source(examples, labels, image_size)
    whole = functools.partial(_each, source.whole_image, batch_size)
    return batches_in_order(whole, len(examples), batch_size=batch_size, shard=shard, pieces=pieces)


def batches_in_order(
    batched: Batched,
    count: int,
    *,
    batch_size: int,
    shard: Shard = WHOLE,
    pieces: int = 1,
) -> tf.data.Dataset:
    """Batches of anything that is kept of images, in the order of `evaluation_dataset`.

    Args:
        batched: makes the batches of some images.
        count: N, the number of images.
        batch_size: images per batch; the last batch holds the remainder.
        shard: of one of several workers.
        pieces: as for `training_dataset`.
    """
    order = tf.range(count, dtype=tf.int64)
    return _batches(order, batched, batch_size, shard, pieces).prefetch(tf.data.AUTOTUNE)


def first_broken_image(examples: Examples) -> tuple[str, str] | None:
    """Looks for a file that cannot be decoded, after an epoch failed: decoders name no file.

    Args:
        examples: images to decode one by one; those in memory are never broken.

    Returns:
        (path, the decoder's message) of the first broken file, or None.
    """
    source = Source(examples, examples.labels, image_size=1)
    for row, path in enumerate(examples.paths or ()):
        try:
            contents = source.contents(tf.constant(row, tf.int64))
            reason = image_headers.refusal(contents.numpy(), examples.max_megapixels)
            if reason is None:
                decode_image(contents, examples.max_megapixels)
        except tf.errors.OpError as error:
            reason = error.message
        except ValueError as error:  # of Pillow, which is called at once here
            reason = str(error)
        if reason is not None:
            name = path if examples.offsets is None else f"{path} ({examples.names[row]})"
            return name, reason
    return None


@contextlib.contextmanager
def naming_broken_images(*parts: Examples) -> Iterator[None]:
    """Turns the decoder's error, which names no file, into one that does.

    Args:
        parts: the images that are read inside the block; looked through only after an error.

    Raises:
        UserError: where one of them cannot be decoded.
    """
    try:
        yield
    except (
        tf.errors.InvalidArgumentError, tf.errors.DataLossError, tf.errors.NotFoundError,
        tf.errors.PermissionDeniedError, tf.errors.UnknownError,
    ):  # fmt: skip
        for examples in parts:
            broken = first_broken_image(examples)
            if broken:
                raise UserError(
                    f"{broken[0]}: cannot be decoded ({broken[1]}); replace or remove it"
                ) from None
        raise


def _base_seed(seed: int) -> tf.Tensor:
    """Both halves of a Python integer, as the int32 pair the stateless generators take."""
    low, high = seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF
    return tf.constant(np.array([low, high], np.uint32).view(np.int32))


def _fold_in(seed: tf.Tensor, number: tf.Tensor | int) -> tf.Tensor:
    return tf.random.fold_in(seed, tf.cast(number, tf.int32), alg="philox")


def _checked_labels(
    examples: Examples, labels: ArrayLike, image_size: int, batch_size: int
) -> NDArray[np.int8]:
    matrix = validate_labels(labels)
    if not len(examples):
        raise ValueError("there are no images")
    if len(matrix) != len(examples):
        raise ValueError(f"{len(matrix)} rows of labels for {len(examples)} images")
    check_sizes(image_size, batch_size)
    return matrix


def check_sizes(image_size: int, batch_size: int) -> None:
    """Raises ValueError for sizes below 1."""
    if image_size < 1 or batch_size < 1:
        raise ValueError("image_size and batch_size must be at least 1")
