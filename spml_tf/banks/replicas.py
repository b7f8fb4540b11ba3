"""Rows of all replicas of a `tf.distribute` strategy."""

from __future__ import annotations

import tensorflow as tf


def from_all_replicas(*rows: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """The rows of every replica, so that each writes all of them and the copies stay equal.

    Args:
        rows: tensors [b, ...] of this replica.

    Returns:
        The same number of tensors [B, ...], B summed over replicas; with one replica the same.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return rows
    # Not every type can be gathered: marks and labels travel as int32.
    small = {tf.bool, tf.int8}
    wide = [tf.cast(x, tf.int32) if x.dtype in small else x for x in rows]
    gathered = [context.all_gather(x, axis=0) for x in wide]
    return tuple(tf.cast(x, old.dtype) for x, old in zip(gathered, rows, strict=True))
