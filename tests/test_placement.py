"""Every operation on a weight has a kernel where that weight lives, asked without a GPU.

TensorFlow's kernel registry is the same on machines without one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import kernels
from tiny_network import tiny_cam

import spml_tf
from spml_tf.banks.ema_bank import EMABank
from spml_tf.training import methods

IMAGES, CLASSES = 6, 3
X = {
    "image": np.zeros((4, 16, 16, 3), np.float32), "index": np.arange(4),
    "box": np.tile(np.float32([0, 0, 1, 1]), (4, 1)), "flip": np.zeros(4, bool),
}  # fmt: skip
Y = np.int8([[1, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, -1, -1]])
NAMED = {"If": ("then_branch", "else_branch"), "StatelessIf": ("then_branch", "else_branch"),
         "PartitionedCall": ("f",), "StatefulPartitionedCall": ("f",)}  # fmt: skip


def on_weights(concrete: Any) -> Iterator[tuple[Any, Any]]:
    """Operations of a traced function that take a weight, and the handle of the weight."""
    handles = {id(inner): outer for outer, inner in concrete.graph.captures if _is_handle(outer)}
    yield from _uses(concrete.graph, handles)


def _is_handle(tensor: Any) -> bool:
    return tensor.dtype == tf.resource


def _uses(graph: Any, handles: dict[int, Any]) -> Iterator[tuple[Any, Any]]:
    for operation in graph.get_operations():
        found = {n: handles[id(x)] for n, x in enumerate(operation.inputs) if id(x) in handles}
        if not found:
            continue
        if operation.type not in NAMED:
            yield from ((operation, handle) for handle in found.values())
            continue
        skipped = operation.type.endswith("If")  # its first input is the condition
        for attribute in NAMED[operation.type]:
            inner = graph._get_function(operation.get_attr(attribute).name).graph
            given = {id(inner.inputs[n - skipped]): handle for n, handle in found.items()}
            yield from _uses(inner, given)


def has_gpu_kernel(operation: Any) -> bool:
    """Whether a kernel is registered for GPUs that takes the operation's types."""
    for kernel in kernels.get_registered_kernels_for_op(operation.type).kernel:
        if kernel.device_type in ("GPU", "DEFAULT") and all(
            operation.get_attr(x.name).as_datatype_enum in x.allowed_values.list.type
            for x in kernel.constraint
        ):
            return True
    return False


def traced(method: str, **options: Any) -> tuple[spml_tf.SPMLModel, Any]:
    known = 1.5 if methods.needs_k(method) else None
    model = spml_tf.SPMLModel(tiny_cam(CLASSES, image_size=16), IMAGES, method, known, **options)
    model.compile(keras.optimizers.Adam(1e-3), metrics=[spml_tf.MeanAveragePrecision()])
    model.begin_epoch(1)
    step = tf.function(lambda x, y: model.train_step((x, y)), autograph=False)
    return model, step.get_concrete_function(
        {name: tf.constant(value) for name, value in X.items()}, tf.constant(Y)
    )


@pytest.mark.parametrize("method", ["an", "an+cl", "en+scl", "role", "lagc", "csl", "recommended"])
def test_what_may_be_on_a_gpu_can_be(method):
    """All weights of network, optimizer and metrics but the tables, which are on the host."""
    model, concrete = traced(method)
    tables = [layer for layer in model.parts if layer.weights]
    hosted = [x.path for layer in tables for x in layer.trainable_variables]
    own = [*model.network.weights, *model.optimizer.variables]
    handles = {id(x.value.handle): x.path for x in own}
    seen = 0
    for operation, handle in on_weights(concrete):
        path = handles.get(id(handle))
        if path is not None and not any(x.replace("/", "_") in path for x in hosted):
            seen += 1
            assert has_gpu_kernel(operation), f"{operation.type} of {path}"
    assert seen > 20


@pytest.mark.parametrize("storage", ["float32", "float16", "uint8"])
def test_a_bank_on_a_gpu_can_be_read_and_written_there(storage):
    """--bank_device=gpu: the values; marks and the count of writes are on the host."""
    bank = EMABank(IMAGES, CLASSES, 4, storage=storage)

    def step(index, new):
        found, _ = bank.read(index)
        bank.write(index, new)
        return found

    concrete = tf.function(step).get_concrete_function(
        tf.constant([0, 2], tf.int64), tf.zeros((2, 4, 4, CLASSES))
    )
    used = [x for x, handle in on_weights(concrete) if handle is bank.values.value.handle]
    assert {"ResourceGather", "ResourceScatterUpdate"} <= {x.type for x in used}
    for operation in used:
        assert has_gpu_kernel(operation), operation.type


def test_a_missing_kernel_is_noticed():
    """int32 has no scatter on GPUs: a table of it must stay on the host."""
    table = tf.Variable(tf.zeros((4, 2), tf.int32))

    def step(index):
        return table.scatter_update(tf.IndexedSlices(tf.ones((1, 2), tf.int32), index))

    concrete = tf.function(step).get_concrete_function(tf.constant([0], tf.int64))
    (scatter,) = [x for x, _ in on_weights(concrete) if x.type == "ResourceScatterUpdate"]
    assert not has_gpu_kernel(scatter)
