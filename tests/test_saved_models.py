"""`keras.saving.load_model` in fresh processes that import spml_tf and nothing below it."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from tiny_network import tiny_cam

import spml_tf
from spml_tf.evaluation.average_precision import MeanAveragePrecision
from spml_tf.runs import checkpoints
from spml_tf.system import saved_classes
from spml_tf.training import optimizers

PACKAGE = Path(spml_tf.__file__).parent

LOAD = """
import sys
{imports}
import keras, numpy
assert not [x for x in sys.modules if x.startswith(("spml_tf.networks", "spml_tf.training"))]
folder = sys.argv[1]
images = numpy.load(folder + "/images.npy", allow_pickle=False)
for name in sys.argv[2:]:
    model = keras.saving.load_model(f"{{folder}}/{{name}}.keras")
    numpy.save(f"{{folder}}/{{name}}.npy", model.predict(images, verbose=0))
    optimizer = getattr(model, "optimizer", None)
    print(type(model).__module__, type(model).__name__, type(optimizer).__name__)
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A network, a model that was trained with it, and what both make of some images."""
    folder = tmp_path_factory.mktemp("saved")
    images = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype(np.float32)
    network = tiny_cam(3, image_size=32)
    model = spml_tf.SPMLModel(network, 4, "en+scl", 1.0)
    adam = keras.optimizers.Adam
    optimizer = optimizers.head_and_backbone(adam(1e-3), adam(1e-2))
    model.compile(optimizer, metrics=[MeanAveragePrecision()])
    labels = np.where(np.eye(4, 3, dtype=bool), 1, -1).astype(np.int8)
    model.fit({"image": images, "index": np.arange(4)}, labels, epochs=2, verbose=0)
    np.save(folder / "images.npy", images)
    for name, saving in (("network", network), ("model", model)):
        saving.save(folder / f"{name}.keras")
        np.save(folder / f"{name}_before.npy", saving.predict(images, verbose=0))
    return folder


@pytest.mark.parametrize(
    "imports, first",
    [
        ("import spml_tf, keras", "model"),
        ("import keras, spml_tf", "network"),
        ("import spml_tf, tensorflow", "network"),  # which imports Keras by itself
        ("import tensorflow, spml_tf.system.errors", "model"),
    ],
)
def test_load_model_finds_the_classes(saved, imports, first):
    """Whichever file comes first: the second finds classes that are registered by then."""
    names = [first, {"network": "model", "model": "network"}[first]]
    code = LOAD.format(imports=imports)
    words = [sys.executable, "-c", code, str(saved), *names]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    kinds = dict(zip(names, done.stdout.splitlines(), strict=True))
    assert kinds["network"].split()[1] == "Functional"
    assert kinds["model"] == "spml_tf.training.model SPMLModel GroupedOptimizer"
    for name in names:
        before, after = (np.load(saved / f"{name}{x}.npy") for x in ("_before", ""))
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)


def test_importing_the_package_is_quick():
    """Neither Keras nor TensorFlow; the best of three, since the machine does other things too."""
    code = """
import sys, time
start = time.perf_counter()
import spml_tf
print(time.perf_counter() - start)
print([x for x in ("keras", "tensorflow", "numpy", "spml_tf.training") if x in sys.modules])
"""
    seconds = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        first, loaded = done.stdout.splitlines()
        assert loaded == "[]"
        seconds.append(float(first))
    assert min(seconds) < 0.1


def registering_modules() -> list[str]:
    """Modules of spml_tf whose text registers a class with Keras."""
    files = [x for x in PACKAGE.rglob("*.py") if "register_keras_serializable" in x.read_text()]
    return [".".join(("spml_tf", *x.relative_to(PACKAGE).with_suffix("").parts)) for x in files]


def test_every_registered_class_has_a_stand_in():
    for module in registering_modules():
        importlib.import_module(module)
    registered = {
        (name, found)
        for name, found in keras.saving.get_custom_objects().items()
        if name.startswith("spml_tf>")
        and isinstance(found, type)
        # A docstring's example registers a class under its module's name too.
        and vars(sys.modules[found.__module__]).get(found.__name__) is found
    }
    listed = {
        (f"spml_tf>{name}", getattr(importlib.import_module(f"spml_tf.{module}"), name))
        for module, names in saved_classes.CLASSES.items()
        for name in names.split()
    }
    missing, gone = registered - listed, listed - registered
    assert not missing, f"add to saved_classes.CLASSES what saved files may name: {missing}"
    assert not gone, f"saved_classes.CLASSES names classes that are not registered: {gone}"


def test_a_failed_import_of_keras_does_not_disarm_it():
    """As where its backend is missing and chosen anew: the second import registers."""
    code = """
import os
os.environ["KERAS_BACKEND"] = "jax"
import sys; sys.modules["jax"] = None
import spml_tf
try:
    import keras
except ImportError:
    os.environ["KERAS_BACKEND"] = "tensorflow"
for name in [x for x in sys.modules if x.partition(".")[0] == "keras"]:
    del sys.modules[name]
import keras
print("spml_tf>SPMLModel" in keras.saving.get_custom_objects())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr


ROLE_UNDER_A_STRATEGY = """
import sys
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras, spml_tf
from spml_tf.training import optimizers
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
rng = np.random.default_rng(0)
x = {"image": rng.uniform(0, 255, (8, 16, 16, 3)).astype("float32"), "index": np.arange(8)}
y = np.where(np.eye(8, 3, dtype=bool), 1, -1).astype("int8")
data = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
with strategy.scope():
    network = spml_tf.networks.small_residual_cam(3, image_size=16, width=16)
    model = spml_tf.SPMLModel(network, 8, "role", 1.5)
    model.compile(keras.optimizers.Adam(0.01))
model.fit(data, epochs=1, verbose=0)
model.save(sys.argv[1])
with strategy.scope():
    read = keras.saving.load_model(sys.argv[1])
for one in (model, read):
    one.fit(data, initial_epoch=1, epochs=2, verbose=0)
tables = [one.label_estimates.weights[0].numpy() for one in (model, read)]
np.testing.assert_allclose(*tables, atol=1e-5)
print("alike")
"""


@pytest.mark.slow
def test_a_model_with_a_trained_table_goes_on_under_a_strategy(tmp_path):
    """Its optimizer, of a file read in the strategy's scope, updates the table once a process."""
    words = [sys.executable, "-c", ROLE_UNDER_A_STRATEGY, str(tmp_path / "role.keras")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.stdout == "alike\n", done.stderr[-2000:]


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_what_the_optimizer_remembers_of_a_table_is_found_in_the_file(tmp_path, policy):
    """Workers save their own rows of it; Keras puts another optimizer around it for float16."""
    keras.config.set_dtype_policy(policy)
    try:
        model = spml_tf.SPMLModel(tiny_cam(3, image_size=32), 4, "role", 1.0)
        adam = keras.optimizers.Adam
        table = [weight for part in model.parts for weight in part.trainable_variables]
        model.compile(optimizers.head_and_backbone(adam(0.1), adam(0.1), {adam(0.1): table}))
        model.begin_epoch(1)
        model.save_weights(tmp_path / "model.weights.h5")
    finally:
        keras.config.set_dtype_policy("float32")
    found = checkpoints._of_optimizer(model)
    assert len(found) == 2  # Adam's averages of gradients and squares
    with h5py.File(tmp_path / "model.weights.h5") as file:
        for name, weight in found.items():
            assert file[name].shape == tuple(weight.shape) == (4, 3)
