"""Every private name of Keras and TensorFlow that the package uses, in a function with its reason.

A release may change them without notice. `tests/test_private_api.py` says which one has changed,
and checks that no other module uses any.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf


def flatten_layers(layer: keras.layers.Layer, include_self: bool = True) -> list[Any]:
    """The layers inside a layer or model at every depth, each once.

    `keras.Model.layers` has one level of them, and a layer made of layers (an encoder of keras_hub)
    has no public list.

    Args:
        layer: any layer or model.
        include_self: whether it comes first in the list itself.
    """
    return list(layer._flatten_layers(include_self=include_self))


def is_functional(model: Any) -> bool:
    """Whether a model was made of inputs and outputs, or is of a subclass of such.

    `keras.Model(inputs, outputs)` makes an instance of a class that Keras does not export.
    """
    return hasattr(model, "operations") and hasattr(model, "_nodes_by_depth")


def origin(tensor: keras.KerasTensor) -> tuple[keras.Operation, Sequence[keras.KerasTensor]]:
    """The operation that returned a symbolic tensor, and the tensors it was given.

    `keras.utils.get_source_inputs` goes all the way to the model's inputs.
    """
    operation, node, _ = tensor._keras_history
    return operation, operation._inbound_nodes[node].input_tensors


def loss_tracker(model: keras.Model) -> keras.metrics.Mean:
    """The metric "loss" of a compiled model, which a train_step of one's own must update.

    It is among `model.metrics` under a name that another metric may have too.
    """
    return model._loss_tracker


def built_variables(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """The variables that an optimizer was built on; its `variables` are its own state."""
    return list(optimizer._trainable_variables)


def inner_optimizer(
    optimizer: keras.optimizers.MultiOptimizer, variable: keras.Variable
) -> keras.optimizers.Optimizer:
    """The one of a built MultiOptimizer's optimizers that updates a variable.

    Asking its map again would make new optimizers where the map is a function.

    Raises:
        KeyError: for a variable that the optimizer was not built on.
    """
    which = optimizer._var_to_optimizer_idx[optimizer._var_key(variable)]
    return optimizer.optimizers[which]


def optimizer_for(
    optimizer: keras.optimizers.MultiOptimizer, variable: keras.Variable
) -> keras.optimizers.Optimizer:
    """The one of a MultiOptimizer's optimizers that will update a variable, before it is built."""
    found: keras.optimizers.Optimizer = optimizer_map(optimizer)(variable)
    return found


def optimizer_map(optimizer: keras.optimizers.MultiOptimizer) -> Any:
    """Which of a MultiOptimizer's optimizers updates which variables, as it was given."""
    return optimizer._optimizer_map


def inside_compiled_function() -> bool:
    """Whether a function with jit_compile=True is being traced, where some operations cannot be."""
    from tensorflow.python.ops import control_flow_util

    graph: Any = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    return graph is not None and bool(control_flow_util.GraphOrParentsInXlaContext(graph))


def before_each_call(graph: Any, owner: Hashable, function: Callable[[], tf.Tensor]) -> None:
    """Runs Python before every call of a function that is being traced, and outside of it.

    What is in a function with jit_compile=True is compiled, and there is no public way around it.

    Args:
        graph: the graph of the function.
        owner: what the function does this once for.
        function: what to run where the traced one is called, eagerly or in an outer graph, and
            once in its own graph while it is being traced; returns a tensor.
    """
    graph._experimental_capture_side_input_by_ref(owner, function)


class BuildsMetrics:
    """For a `keras.Model` with a train_step of its own whose layers are built when it is made.

    Under a strategy `fit` builds by a look at the first batch, which is then lost to training, and
    for which batches of several devices must be of one size.
    """

    num_classes: int

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        model: Any = self
        if tf.distribute.has_strategy() or model._distribute_strategy is not None:
            self.build_metrics()

    def build_metrics(self) -> None:
        """Makes the variables of the metrics given to `compile`, which else the first step does."""
        model: Any = self
        metrics = model._compile_metrics
        if metrics is not None and not metrics.built:
            with model.distribute_strategy.scope():
                rows = tf.zeros([1, self.num_classes])
                metrics.build(rows, rows)


@contextlib.contextmanager
def outside_strategy() -> Iterator[None]:
    """As if no `tf.distribute` strategy were active; does nothing where none is.

    Under a strategy every variable is made for all replicas. There is no public way to leave its
    scope, nor a replica's context, for what a process keeps once.
    """
    from tensorflow.python.distribute import distribute_lib

    if not tf.distribute.has_strategy():
        yield
        return
    graph: Any = tf.compat.v1.get_default_graph()
    distribute_lib._push_per_thread_mode(distribute_lib._get_default_replica_mode())
    creators, graph._variable_creator_stack = graph._variable_creator_stack, []
    try:
        yield
    finally:
        graph._variable_creator_stack = creators
        distribute_lib._pop_per_thread_mode()


@contextlib.contextmanager
def saving() -> Iterator[None]:
    """For `save` and `save_weights` of Keras: outside any strategy, and without needless layers.

    Keras leaves out of what it saves what any layer has, and makes a layer to know that. It means
    to do so once, but looks the answer up under another name than it keeps it by (Keras 3.15), and
    so makes a layer for each layer, which takes a third of the time.
    """
    from keras.src.backend.common import global_state
    from keras.src.saving import saving_lib

    with outside_strategy():
        for kind in "Functional Layer Loss Metric Operation Optimizer Sequential".split():
            kept = f"saving_attr_skiplist_{kind}"
            if global_state.get_global_attribute(kept) is None:
                global_state.set_global_attribute(kept, saving_lib.get_attr_skipset(kind))
        yield


@contextlib.contextmanager
def several_cpus_a_worker(devices: int) -> Iterator[None]:
    """Lets a MultiWorkerMirroredStrategy made inside use several logical CPUs of each process.

    Of CPUs it takes the first one only; several stand for GPUs where there are none.
    """
    from tensorflow.python.distribute import collective_all_reduce_strategy

    extended: Any = collective_all_reduce_strategy.CollectiveAllReduceExtended
    usual = extended._initialize_local_devices

    def several(_: Any, resolver: Any, worker: str) -> tuple[tuple[str, ...], str]:
        return tuple(f"{worker}/device:CPU:{number}" for number in range(devices)), "CPU"

    extended._initialize_local_devices = several
    try:
        yield
    finally:
        extended._initialize_local_devices = usual


def mapped_file(path: str, shape: tuple[int, ...], dtype: str) -> tf.Tensor:
    """A tensor whose memory is a file, mapped for reading.

    `tf.raw_ops.ImmutableConst` by itself is computed once in advance, as all that has no inputs,
    and its result copied; what has an allocator of its own is not.

    Args:
        path: a file of at least the tensor's size.
        shape: of the tensor.
        dtype: of the tensor.
    """
    from tensorflow.core.framework import attr_value_pb2

    def mapped() -> tf.Tensor:
        tensor = tf.raw_ops.ImmutableConst(dtype=dtype, shape=shape, memory_region_name=path)
        none = attr_value_pb2.AttrValue(list=attr_value_pb2.AttrValue.ListValue())
        tensor.op._set_attr("_scoped_allocator", none)
        return tensor

    with tf.device("CPU:0"):
        return tf.function(mapped, autograph=False)()


def h5_group(store: Any) -> Any:
    """The h5py group that a layer's weights are written to or read from, to do so in parts.

    What Keras hands to `save_own_variables` and `load_own_variables` takes and gives whole arrays,
    each as a copy.

    Args:
        store: what Keras hands over, or a dict.

    Returns:
        h5py.Group; None where there is none, and where Keras spreads it over several files.
    """
    if not hasattr(store, "h5_file") or hasattr(store, "sharding_config"):
        return None
    if store.mode == "w" and not store._h5_entry_initialized:
        store._create_h5_group(store._h5_entry_path)  # which Keras does at the first weight
    return store._h5_entry_group


def saved_name(thing: Any) -> str:
    """Under what a layer or an optimizer stands in a weights file, the first of its class there."""
    words = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", type(thing).__name__)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()
