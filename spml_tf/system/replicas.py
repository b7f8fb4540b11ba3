"""Replicas and workers of a `tf.distribute` strategy.

A worker is a process, a replica is a device. A step's batch is split over all replicas. Tables with
a row an image are kept once a process, outside of the strategy; each of several workers keeps the
rows of its own images, those whose index is its number modulo the workers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from spml_tf.system.private_api import outside_strategy


class Shard(NamedTuple):
    """The images of one of several workers: index modulo `workers` is `worker`.

    Attributes:
        worker: in [0, workers).
        workers: how many there are; 1 without a strategy and with one process.

    Examples:
        >>> shard = Shard(worker=1, workers=2)
        >>> shard.rows(5), shard.own(np.arange(5)).tolist()
        (2, [1, 3])
    """

    worker: int = 0
    workers: int = 1

    def rows(self, num_images: int) -> int:
        """How many of N images it has."""
        return len(range(self.worker, num_images, self.workers))

    def own(self, rows: Any) -> Any:
        """Its rows of an array [N, ...], as a view."""
        return rows[self.worker :: self.workers]


# That of a process alone.
WHOLE = Shard()


def this_shard() -> Shard:
    """That of this process under the current strategy."""
    resolver = tf.distribute.get_strategy().cluster_resolver
    if resolver is None or not resolver.task_type:
        return WHOLE
    jobs = resolver.cluster_spec().as_dict()
    chiefs, workers = (len(jobs.get(job, ())) for job in ("chief", "worker"))
    if chiefs + workers <= 1:
        return WHOLE
    first = chiefs if resolver.task_type == "worker" else 0
    return Shard(first + int(resolver.task_id), chiefs + workers)


def workers_here() -> list[int]:
    """The numbers of the workers whose address names the same machine as this one's."""
    shard = this_shard()
    if shard.workers == 1:
        return [shard.worker]
    resolver = tf.distribute.get_strategy().cluster_resolver
    jobs = resolver.cluster_spec().as_dict()
    hosts = [x.rpartition(":")[0] for job in ("chief", "worker") for x in jobs.get(job, ())]
    return [number for number, host in enumerate(hosts) if host == hosts[shard.worker]]


def devices() -> int:
    """Number of replicas of this process."""
    return count() // this_shard().workers


def count() -> int:
    """Number of replicas whose gradients are summed; 1 without a strategy."""
    return int(tf.distribute.get_strategy().num_replicas_in_sync)


def _context() -> Any:
    """The context of one of several replicas, None elsewhere."""
    context = tf.distribute.get_replica_context()
    return None if context is None or context.num_replicas_in_sync == 1 else context


def once_a_process(function: Callable[..., Any], *rows: tf.Tensor) -> None:
    """Calls a function once with the rows of all replicas of this process.

    Args:
        function: changes what is kept once a process; called outside of the strategy.
        rows: tensors [b, ...] of this replica, which `function` gets as [B, ...], B summed over the
            replicas of this process; without a strategy as they are.
    """
    context = tf.distribute.get_replica_context()
    if context is None or not tf.distribute.has_strategy():
        function(*rows)
        return

    def merged(strategy: tf.distribute.Strategy, *rows: Any) -> None:
        own = [strategy.experimental_local_results(x) for x in rows]
        with outside_strategy():
            function(*(tf.concat(x, axis=0) if len(x) > 1 else x[0] for x in own))

    context.merge_call(merged, args=rows)


def from_all_replicas(*rows: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """The rows of every replica of every worker, for what ranks a whole batch.

    Args:
        rows: tensors [b, ...] of this replica.

    Returns:
        The same number of tensors [B, ...], B summed over replicas; with one replica the same.
    """
    context = _context()
    if context is None:
        return rows
    # Not every type can be gathered: marks and labels travel as int32. A function's argument has no
    # device to gather from, its identity has.
    small = {tf.bool, tf.int8}
    wide = [tf.cast(x, tf.int32) if x.dtype in small else tf.identity(x) for x in rows]
    gathered = [context.all_gather(x, axis=0) for x in wide]
    return tuple(tf.cast(x, old.dtype) for x, old in zip(gathered, rows, strict=True))


def sum_of_replicas(value: tf.Tensor) -> tf.Tensor:
    """The sum of a tensor over all replicas, without gradient."""
    context, value = _context(), tf.stop_gradient(value)
    if context is None:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(value))


def mean_over_replicas(total: tf.Tensor, counted: tf.Tensor) -> tf.Tensor:
    """A sum divided by a count, such that the mean over replicas is that of the whole batch.

    Args:
        total: () float, of this replica, with gradient.
        counted: () float, what it is a sum over.

    Returns:
        () float, total / counted without a strategy; 0 where nothing is counted.
    """
    if _context() is None:
        return tf.math.divide_no_nan(total, counted)
    return tf.math.divide_no_nan(total * count(), sum_of_replicas(counted))


def mean_of_batch(mean: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    """The mean over the whole batch, with the gradient of this replica's.

    Args:
        mean: of this replica's images, which may be none.
        images: () float, their number.

    Returns:
        As `mean`, the same on every replica.
    """
    if _context() is None:
        return mean
    own = tf.where(images > 0, mean, tf.zeros_like(mean))
    whole = sum_of_replicas(own * images) / sum_of_replicas(images)
    return whole + own - tf.stop_gradient(own)


def sum_of_workers(values: NDArray[Any]) -> NDArray[Any]:
    """The sum of an array over all workers; to be called by each of them, eagerly, in its scope.

    Args:
        values: of one shape and dtype on all workers: int64, float32 or float64.

    Returns:
        The sum; with one worker the array itself.
    """
    if this_shard().workers == 1:
        return values
    strategy = tf.distribute.get_strategy()
    flat = tf.constant(np.reshape(values, -1))
    summed = strategy.experimental_local_results(_adder(strategy)(flat))[0].numpy()
    return np.reshape(summed, values.shape)


def wait_for_workers() -> None:
    """Returns once every worker has called it."""
    sum_of_workers(np.zeros(1, np.int64))


def rows_of_workers(own: NDArray[Any], count: int) -> NDArray[Any]:
    """The rows of all workers in their order, of an array of which each has its own.

    Args:
        own: [n, ...] float32 or int64, row r of worker w being row r * workers + w.
        count: N, rows in all.

    Returns:
        [N, ...] on every worker.
    """
    shard = this_shard()
    if shard.workers == 1:
        return own
    whole = np.zeros((count, *own.shape[1:]), own.dtype)
    shard.own(whole)[...] = own
    return sum_of_workers(whole)


@functools.cache
def _adder(strategy: tf.distribute.Strategy) -> Callable[[tf.Tensor], Any]:
    with strategy.scope():
        local = devices()

    def one(value: tf.Tensor) -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        first = context.replica_id_in_sync_group % local == 0  # each process counts once
        value = tf.where(first, value, tf.zeros_like(value))
        return context.all_reduce(tf.distribute.ReduceOp.SUM, value)

    found: Callable[[tf.Tensor], Any] = tf.function(
        lambda value: strategy.run(one, args=(value,)), autograph=False, reduce_retracing=True
    )
    return found
