"""Labels and scores of every image of a pass, kept on the host in buffers that grow."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from spml_tf.system.private_api import (
    before_each_call,
    inside_compiled_function,
    outside_strategy,
)
from spml_tf.system.replicas import once_a_process

# Entries and rows of what one call of a compiled function may add; 8 bytes an entry.
_PENDING_ENTRIES, _PENDING_ROWS = 2**20, 1024


class ScoreStore:
    """Labels and scores, 5 to 10 bytes an entry, in buffers that double when they are full.

    Under a `tf.distribute` strategy each process keeps the rows of its own replicas.

    Inside of a function compiled by XLA no variable can change its shape. There a batch goes into a
    variable of fixed shape, and what it holds moves into the buffers outside of the compiled
    function: before its next call, and when the contents are asked for.
    """

    def __init__(self) -> None:
        self._count = _state("count", tf.zeros([], tf.int64))
        self._capacity = _state("capacity", tf.zeros([], tf.int64))
        self._labels = _state("labels", tf.zeros([0, 0], tf.int8))
        self._scores = _state("scores", tf.zeros([0, 0], tf.float32))
        # These two are where the compiled function is, on a GPU if there is one.
        self._pending = _variable("pending", tf.zeros([0, 0], tf.float32))
        self._pending_count = _variable("pending_count", tf.zeros([], tf.int64))

    def append(self, labels: tf.Tensor, scores: tf.Tensor) -> None:
        """Adds a batch.

        Args:
            labels: [B, L] int8.
            scores: [B, L] float32.

        Raises:
            ValueError: for an unknown L inside of a function compiled by XLA.
        """
        if inside_compiled_function():
            self._append_compiled(labels, scores)
        else:
            once_a_process(self._append, labels, scores)

    def contents(self) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        """Labels [N, L] int8 and scores [N, L] float32 of all rows; to be called eagerly.

        L is 0 until something is appended, which may be no row.
        """
        self._move_pending()
        count = int(self._count.numpy())
        return self._labels.numpy()[:count], self._scores.numpy()[:count]

    def clear(self) -> None:
        """Forgets all rows.

        Raises:
            ValueError: inside of a function compiled by XLA.
        """
        if inside_compiled_function():
            raise ValueError(
                "reset_state cannot run inside of a function with jit_compile=True: call it "
                "before that function"
            )
        for number in (self._count, self._capacity, self._pending_count):
            number.assign(0)
        for rows in (self._labels, self._scores):
            rows.assign(tf.zeros([0, 0], rows.dtype))

    def _append(self, labels: tf.Tensor, scores: tf.Tensor) -> None:
        size, width = tf.unstack(tf.shape(scores, tf.int64))
        begin = self._count.read_value()
        one = tf.minimum(width, 1)  # room for a row at least: the buffers know L then
        self._make_room(tf.maximum(begin + size, one), width)
        for rows, batch in ((self._labels, labels), (self._scores, scores)):
            rows.scatter_update(tf.IndexedSlices(batch, begin + tf.range(size)))
        self._count.assign_add(size)

    def _make_room(self, needed: tf.Tensor, width: tf.Tensor) -> None:
        """Doubles full buffers, so that to add a row costs the same at any size."""
        # Their own shape is not asked for: to read what is scattered into copies all of it.
        capacity = self._capacity.read_value()

        def grow() -> tf.Tensor:
            size = tf.maximum(needed, 2 * capacity)
            for rows in (self._labels, self._scores):
                wide = tf.reshape(rows.read_value(), tf.stack([capacity, width]))
                rows.assign(tf.pad(wide, [[0, size - capacity], [0, 0]]))
            self._capacity.assign(size)
            return size

        tf.cond(needed > capacity, grow, lambda: capacity)

    def _append_compiled(self, labels: tf.Tensor, scores: tf.Tensor) -> None:
        self._fit_pending(scores.shape)
        graph = tf.compat.v1.get_default_graph()
        while getattr(graph, "is_control_flow_graph", False):
            graph = graph.outer_graph

        def before_call() -> tf.Tensor:
            """Runs wherever the compiled function is called: eagerly, or in an outer graph."""
            if tf.executing_eagerly() or tf.compat.v1.get_default_graph() is not graph:
                self._move_pending()
            return tf.constant(0)

        with graph.as_default():
            before_each_call(graph, self, before_call)
        begin, size = self._pending_count.read_value(), tf.shape(scores, tf.int64)[0]
        # What lies beyond the last row is dropped; `_move_pending` sees that by the count.
        batch = tf.concat([tf.cast(labels, tf.float32), scores], axis=1)
        self._pending.scatter_update(tf.IndexedSlices(batch, begin + tf.range(size)))
        self._pending_count.assign_add(size)

    def _fit_pending(self, batch: tf.TensorShape) -> None:
        """Gives the pending rows their shape, while the function is traced."""
        size, width = batch
        if not width:
            raise ValueError(
                f"scores of shape {batch}: with jit_compile=True the number of classes must be "
                "known; give it with tf.ensure_shape, or compile with jit_compile=False"
            )
        rows = max(size or 0, _PENDING_ENTRIES // width, _PENDING_ROWS)
        with tf.init_scope():
            now = self._pending.value().shape
            if now[1] != 2 * width or now[0] < rows:
                self._move_pending()
                self._pending.assign(tf.zeros([rows, 2 * width]))

    def _move_pending(self) -> None:
        with tf.control_dependencies(None):  # out of the call's XLA context: this is not compiled
            count, rows = self._pending_count.read_value(), self._pending.read_value()
            tf.debugging.assert_less_equal(
                count, tf.shape(rows, tf.int64)[0],
                "a call of the compiled function had more images than MeanAveragePrecision takes "
                "at once: use smaller batches or compile with jit_compile=False",
            )  # fmt: skip
            labels, scores = tf.split(rows[:count], 2, axis=1)
            self._append(tf.cast(labels, tf.int8), scores)
            self._pending_count.assign(0)


def _state(name: str, value: tf.Tensor) -> tf.Variable:
    """A variable in host memory of any size: Keras' own variables cannot grow."""
    with tf.device("CPU:0"):
        return _variable(name, value)


def _variable(name: str, value: tf.Tensor) -> tf.Variable:
    with tf.init_scope(), outside_strategy():
        return tf.Variable(value, shape=[None] * value.shape.rank, name=name, trainable=False)
