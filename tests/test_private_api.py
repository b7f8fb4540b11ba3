"""Private names of Keras and TensorFlow: what the package needs, and that it needs no others."""

from __future__ import annotations

import ast
import mmap
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

import spml_tf
from spml_tf.system import private_api
from spml_tf.system.tensor_memory import address, array_of

PACKAGE = Path(spml_tf.__file__).parent


def nested_model() -> keras.Model:
    """A dense layer in a model in a model, beside a layer that holds one."""
    inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="deep")], name="inner")
    image = keras.Input((3,), name="input")
    held = keras.layers.TimeDistributed(keras.layers.Dense(2, name="held"), name="holder")
    rows = keras.layers.Reshape((1, 3), name="rows")(image)
    joined = keras.layers.Add(name="sum")([inner(image), keras.layers.Flatten()(held(rows))])
    return keras.Model(image, joined, name="outer")


def check_flatten_layers() -> None:
    model = nested_model()
    found = private_api.flatten_layers(model)
    assert found[0] is model and {"inner", "deep", "holder", "held"} <= {x.name for x in found}
    assert len({id(x) for x in found}) == len(found)
    assert model not in private_api.flatten_layers(model, include_self=False)


def check_is_functional() -> None:
    class Subclassed(keras.Model):
        operations = ()

    class Derived(keras.Model):
        def __init__(self):
            image = keras.Input((3,))
            super().__init__(image, keras.layers.Dense(2)(image))

    assert private_api.is_functional(nested_model()) and private_api.is_functional(Derived())
    assert not private_api.is_functional(Subclassed())
    assert not private_api.is_functional(keras.Sequential([keras.layers.Dense(1)]))


def check_saving() -> None:
    """No layer is made to save one, and what is saved is the same to the byte."""
    model, made = nested_model(), []

    class Counted(keras.layers.Layer):
        def __init__(self) -> None:
            made.append(self)
            super().__init__()

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        files = [Path(folder, f"{n}.weights.h5") for n in range(2)]
        keras.backend.clear_session()
        with private_api.saving():
            patch.setattr("keras.src.layers.layer.Layer", Counted)
            model.save_weights(files[0])
        assert not made
        keras.backend.clear_session()
        model.save_weights(files[1])  # as Keras does alone
        assert files[0].read_bytes() == files[1].read_bytes()


def check_origin() -> None:
    shared = keras.layers.Dense(2)
    first, second = keras.Input((3,)), keras.Input((3,))
    outputs = [shared(first), shared(second)]
    for given, output in zip((first, second), outputs, strict=True):
        operation, inputs = private_api.origin(output)
        assert operation is shared and len(inputs) == 1 and inputs[0] is given
    operation, inputs = private_api.origin(outputs[0] + outputs[1])
    assert [id(x) for x in inputs] == [id(x) for x in outputs]


def check_loss_tracker() -> None:
    """A train_step of one's own that updates it makes the history's "loss"."""

    class Trained(keras.Model):
        def train_step(self, data):
            private_api.loss_tracker(self).update_state(7.0)
            return self.compute_metrics(*data, None)

    image = keras.Input((3,))
    model = Trained(image, keras.layers.Dense(2)(image))
    model.compile("sgd", "mse")
    history = model.fit(np.zeros((4, 3)), np.zeros((4, 2)), epochs=2, verbose=0).history
    assert history == {"loss": [7.0, 7.0]}


def multi_optimizer() -> tuple[keras.optimizers.MultiOptimizer, list[keras.Variable]]:
    groups = keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.5, name="rest"))
    groups[".*head.*"] = keras.optimizers.SGD(0.1, name="head")
    optimizer = keras.optimizers.MultiOptimizer(groups)
    variables = [keras.Variable([1.0], name=x) for x in ("body", "head")]
    optimizer.build(variables)
    return optimizer, variables


def check_built_variables() -> None:
    optimizer, variables = multi_optimizer()
    found = private_api.built_variables(optimizer)
    assert [id(x) for x in found] == [id(x) for x in variables]


def check_inner_optimizer() -> None:
    optimizer, variables = multi_optimizer()
    inner = [private_api.inner_optimizer(optimizer, x) for x in variables]
    assert [x.name for x in inner] == ["rest", "head"]
    inner[1].apply([np.array([2.0], np.float32)], [variables[1]])
    np.testing.assert_allclose(variables[1].numpy(), [0.8])
    with pytest.raises(KeyError):
        private_api.inner_optimizer(optimizer, keras.Variable([1.0]))


def check_inside_compiled_function() -> None:
    inside = [private_api.inside_compiled_function()]
    for compiled in (False, True):
        tf.function(
            lambda: inside.append(private_api.inside_compiled_function()), jit_compile=compiled
        )()
    assert inside == [False, False, True]


def check_before_each_call() -> None:
    calls = []

    def count() -> tf.Tensor:
        calls.append(tf.executing_eagerly())
        return tf.constant(0)

    @tf.function(jit_compile=True)
    def compiled() -> tf.Tensor:
        graph = tf.compat.v1.get_default_graph()
        private_api.before_each_call(graph, "owner", count)
        return tf.constant(0)

    for expected in (1, 2, 3):
        compiled()
        assert calls.count(True) == expected


def check_outside_strategy() -> None:
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        with private_api.outside_strategy():
            assert not tf.distribute.has_strategy()
            assert type(tf.Variable(1.0)).__name__ == "ResourceVariable"
        assert tf.distribute.get_strategy() is strategy
        assert type(tf.Variable(1.0)).__name__ != "ResourceVariable"
    with private_api.outside_strategy():
        assert not tf.distribute.has_strategy()


def check_mapped_file() -> None:
    """What is written to the file shows in the tensor, however small: nothing was copied."""
    for size in (64, 2**22):
        with tempfile.NamedTemporaryFile() as file:
            file.write(bytes(size))
            file.flush()
            tensor = private_api.mapped_file(file.name, (size,), "uint8")
            os.pwrite(file.fileno(), b"\7", size - 1)
            assert int(tensor[-1]) == 7 and int(tensor[0]) == 0
            assert address(array_of(tensor)) % mmap.PAGESIZE == 0


def check_h5_group() -> None:
    class Sliced(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.weight = self.add_weight(shape=(3,), initializer="ones")
            self.built = True

        def save_own_variables(self, store):
            private_api.h5_group(store).create_dataset("0", data=[1.0, 2.0, 3.0])

        def load_own_variables(self, store):
            self.weight.assign(private_api.h5_group(store)["0"][...] * 2)

    with tempfile.TemporaryDirectory() as folder:
        model = keras.Sequential([Sliced()])
        model.built = True
        model.save_weights(f"{folder}/x.weights.h5")
        model.load_weights(f"{folder}/x.weights.h5")
        np.testing.assert_array_equal(model.layers[0].weight, [2.0, 4.0, 6.0])
    assert private_api.h5_group({}) is None


def check_optimizer_for() -> None:
    head, rest = keras.Variable([1.0], name="head"), keras.Variable([1.0], name="rest")
    first, second = keras.optimizers.SGD(name="first"), keras.optimizers.SGD(name="second")
    groups = keras.optimizers.OptimizerMap(second)
    groups["head"] = first
    optimizer = keras.optimizers.MultiOptimizer(groups)
    assert private_api.optimizer_for(optimizer, head) is first
    assert private_api.optimizer_for(optimizer, rest) is second


def check_optimizer_map() -> None:
    first, second = keras.optimizers.SGD(name="first"), keras.optimizers.SGD(name="second")
    groups = keras.optimizers.OptimizerMap(second)
    groups["head"] = first
    found = private_api.optimizer_map(keras.optimizers.MultiOptimizer(groups))
    assert found.default_optimizer is second and dict(found.items()) == {"head": first}


def check_saved_name() -> None:
    """Of layers and optimizers in a file of a model."""
    layer, image = keras.layers.Conv2DTranspose(2, 1), keras.Input((4, 4, 3))
    model = keras.Model(image, layer(image))
    model.compile("adam")
    model.optimizer.build(model.trainable_variables)
    with tempfile.TemporaryDirectory() as folder:
        model.save_weights(Path(folder, "x.weights.h5"))
        with h5py.File(Path(folder, "x.weights.h5")) as file:
            assert f"layers/{private_api.saved_name(layer)}/vars/0" in file
    assert private_api.saved_name(model.optimizer) == "adam"


def check_builds_metrics() -> None:
    """Under a strategy a dataset is not looked at before its first step."""

    class Counting(private_api.BuildsMetrics, keras.Model):
        num_classes = 2

        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(2)
            self.dense.build((None, 3))
            self.built = True

        def call(self, x):
            return self.dense(x)

    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = Counting()
        model.compile("sgd", "mse", metrics=["mae"])
    data = tf.data.Dataset.from_tensor_slices((tf.ones((2, 3)), tf.ones((2, 2)))).batch(1)
    # Two batches are there, once: none may be lost.
    model.fit(data.apply(tf.data.experimental.assert_cardinality(2)), verbose=0, shuffle=False)
    assert model.optimizer.iterations.numpy() == 2


def check_several_cpus_a_worker() -> None:
    from tensorflow.python.distribute import collective_all_reduce_strategy

    extended = collective_all_reduce_strategy.CollectiveAllReduceExtended
    usual = extended._initialize_local_devices
    with private_api.several_cpus_a_worker(3):
        devices, kind = extended._initialize_local_devices(None, None, "/job:worker/task:1")
    assert devices[2] == "/job:worker/task:1/device:CPU:2" and len(devices) == 3 and kind == "CPU"
    assert extended._initialize_local_devices is usual


# Function of private_api -> the private names it uses, and what they have to do.
CHECKS: dict[str, tuple[str, Callable[[], None]]] = {
    "flatten_layers": ("Layer._flatten_layers", check_flatten_layers),
    "is_functional": ("Functional._nodes_by_depth", check_is_functional),
    "origin": ("KerasTensor._keras_history or Operation._inbound_nodes", check_origin),
    "loss_tracker": ("Model._loss_tracker", check_loss_tracker),
    "built_variables": ("Optimizer._trainable_variables", check_built_variables),
    "optimizer_map": ("MultiOptimizer._optimizer_map", check_optimizer_map),
    "saved_name": ("the names of groups in weights files", check_saved_name),
    "inner_optimizer": (
        "MultiOptimizer._var_to_optimizer_idx or Optimizer._var_key",
        check_inner_optimizer,
    ),
    "inside_compiled_function": (
        "tensorflow.python.ops.control_flow_util",
        check_inside_compiled_function,
    ),
    "before_each_call": (
        "FuncGraph._experimental_capture_side_input_by_ref",
        check_before_each_call,
    ),
    "outside_strategy": (
        "distribute_lib._push_per_thread_mode, _pop_per_thread_mode, _get_default_replica_mode "
        "or Graph._variable_creator_stack",
        check_outside_strategy,
    ),
    "saving": ("saving_lib.get_attr_skipset or its attribute saving_attr_skiplist_", check_saving),
    "mapped_file": (
        "the attribute _scoped_allocator or Operation._set_attr",
        check_mapped_file,
    ),
    "optimizer_for": ("MultiOptimizer._optimizer_map", check_optimizer_for),
    "BuildsMetrics": (
        "Trainer._maybe_symbolic_build, _compile_metrics or _distribute_strategy",
        check_builds_metrics,
    ),
    "several_cpus_a_worker": (
        "CollectiveAllReduceExtended._initialize_local_devices",
        check_several_cpus_a_worker,
    ),
    "h5_group": (
        "H5IOStore._h5_entry_group, _h5_entry_path, _h5_entry_initialized or _create_h5_group",
        check_h5_group,
    ),
}


def check(function: str) -> None:
    private, works = CHECKS[function]
    try:
        works()
    except Exception as error:
        raise AssertionError(
            f"Keras {keras.__version__} with TensorFlow {tf.__version__} has changed {private}: "
            f"adapt the function {function} in spml_tf/system/private_api.py "
            f"({type(error).__name__}: {error})"
        ) from error


@pytest.mark.parametrize("function", CHECKS)
def test_the_releases_still_have_what_the_package_uses(function):
    check(function)


def test_a_change_is_told_in_one_sentence(monkeypatch):
    monkeypatch.delattr(keras.layers.Layer, "_flatten_layers")
    with pytest.raises(AssertionError) as failure:
        check("flatten_layers")
    assert "has changed Layer._flatten_layers: adapt the function flatten_layers in" in str(
        failure.value
    )


def private_attributes(path: Path) -> set[str]:
    """The names _x of what a module takes from objects, its own `self` and `cls` left out."""
    return {
        node.attr
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
    }


def test_no_other_module_uses_private_attributes():
    """Of Keras, TensorFlow or anything else; of `self`, none of those that are known here."""
    # Of named tuples and os, documented; of the package's own commands.
    of_others = {"_replace", "_asdict", "_fields", "_exit", "_USAGE"}
    private_module = Path(private_api.__file__)
    known = private_attributes(private_module)
    assert known == {
        "_compile_metrics", "_create_h5_group", "_distribute_strategy",
        "_experimental_capture_side_input_by_ref", "_flatten_layers", "_get_default_replica_mode",
        "_h5_entry_group", "_h5_entry_initialized", "_h5_entry_path",
        "_inbound_nodes", "_initialize_local_devices", "_keras_history", "_loss_tracker",
        "_optimizer_map", "_pop_per_thread_mode",
        "_push_per_thread_mode", "_set_attr", "_trainable_variables", "_var_key",
        "_var_to_optimizer_idx", "_variable_creator_stack",
    }  # fmt: skip
    for path in PACKAGE.rglob("*.py"):
        if path != private_module:
            found = private_attributes(path) - of_others
            text = path.read_text("utf-8")
            found |= {name for name in known if f"self.{name}" in text}
            found |= {name for name in ("keras.src", "tensorflow.python") if name in text}
            assert not found, f"{path}: move {found} to spml_tf/system/private_api.py"


def test_every_function_is_checked():
    tree = ast.parse(Path(private_api.__file__).read_text("utf-8"))
    assert {x.name for x in tree.body if isinstance(x, ast.FunctionDef | ast.ClassDef)} == set(
        CHECKS
    )
