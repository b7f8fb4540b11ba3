"""What two replicas, logical CPUs of one process, make of a batch that they share unevenly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import warm_process

IMAGES, CLASSES = 5, 3

SETTING = """
import contextlib, json, sys
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import spml_tf
from spml_tf import losses
from spml_tf.training import Recipe, Term, optimizers, replica_batches, terms
sys.path.insert(0, sys.argv[1])
from tiny_network import tiny_cam
rng = np.random.default_rng(0)
x = {"image": rng.uniform(0, 255, (5, 8, 8, 3)).astype("float32"), "index": np.arange(5)}
y = np.where(np.arange(3) == np.arange(5)[:, None] % 3, 1, -1).astype("int8")
weight = rng.uniform(0.5, 2, (5, 3)).astype("float32")
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
def made(method, k=None, **options):
    keras.utils.set_random_seed(0)
    return spml_tf.SPMLModel(
        tiny_cam(3, image_size=8), 5, method, k, freeze_batch_norm=True, **options
    )
def data(*weights):  # a batch of five images, of which one replica has three
    return tf.data.Dataset.from_tensor_slices((x, y, *weights)).batch(5)
"""


@pytest.fixture
def printed(tmp_path):
    """A function from a script to what it prints, as JSON."""

    def of(script: str) -> Any:
        (tmp_path / "script.py").write_text(SETTING + script)
        done = warm_process.run("script", [str(Path(__file__).parent)], tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout)

    return of


REDUCTIONS = """
class PerLabel(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return tf.where(y_true == 1, tf.nn.softplus(-y_pred), 0.0)
class PerImage(PerLabel):
    def call(self, y_true, y_pred):
        return tf.reduce_mean(super().call(y_true, y_pred), axis=-1)
class Single(PerLabel):
    def call(self, y_true, y_pred):
        return tf.reduce_mean(super().call(y_true, y_pred))
parts = (np.arange(3), np.arange(3, 5))
logits = rng.normal(size=(5, 3)).astype("float32")
def of_batch(loss, weights):  # the mean over replicas
    term = terms.LabelTerm(loss=loss)
    def of_replica(labels, logits, weights):
        values = {term: term.evaluate(labels, logits, weights)}
        value, = replica_batches.weighed_by_images(values, tf.shape(labels)[0])[0].values()
        return value
    given = [
        strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(array[parts[context.replica_id_in_sync_group]])
        )
        for array in (y, logits, weights)
    ]
    step = tf.function(lambda: strategy.reduce("MEAN", strategy.run(of_replica, given), None))
    return float(step())
with strategy.scope():
    alike = np.repeat(weight[:, :1], 3, axis=1)
    given = (losses.AssumeNegative, weight), (PerLabel, weight), (PerImage, alike)
    found = {
        f"{loss.__name__} {reduction}": of_batch(loss(reduction=reduction), weights)
        for loss, weights in given
        for reduction in ("sum", "mean_with_sample_weight", "sum_over_batch_size")
    }
    model = made(Single())
    model.compile("sgd")
    try:
        model.fit(data(), verbose=0)
    except ValueError as error:
        found["refused"] = str(error)
    model.compile("sgd", losses.AssumeNegative(reduction="mean_with_sample_weight"))
f = model.predict(x["image"], verbose=0)
found["of_step"] = model.fit(data(weight), verbose=0).history["loss"][0]
print(json.dumps([found, *(array.tolist() for array in (f, logits, weight))]))
"""


def test_losses_of_any_reduction_are_those_of_the_whole_batch(printed):
    """A loss that makes one number of a batch is refused: what it would be of all is not known."""
    found, *arrays = printed(REDUCTIONS)
    assert "Single: its call returns one number for a batch, which several" in found.pop("refused")
    f, logits, weight = (np.array(array) for array in arrays)
    positive = np.arange(CLASSES) == np.arange(IMAGES)[:, None] % CLASSES
    of_step = np.where(positive, -np.log(f), -np.log(1 - f)) * weight
    assert found.pop("of_step") == pytest.approx(of_step.mean() / weight.mean(), rel=1e-4)
    assert len(found) == 9
    f = 1 / (1 + np.exp(-logits))
    for name, value in found.items():
        loss, reduction = name.split()
        weights = weight[:, :1] if loss == "PerImage" else weight
        terms = np.where(positive, -np.log(f), -np.log(1 - f) if loss == "AssumeNegative" else 0)
        terms = terms * weights
        values = terms if loss == "PerLabel" else terms.mean(axis=1)
        expected = {
            "sum": values.sum(),
            "mean_with_sample_weight": terms.mean() / weights.mean(),
            "sum_over_batch_size": terms.mean(),
        }[reduction]
        assert value == pytest.approx(expected, rel=1e-5), name


ONE_OPTIMIZER = """
found = []
for scope in (contextlib.nullcontext(), strategy.scope()):
    with scope:
        model, adam = made("role", 1.5), keras.optimizers.Adam(0.01)
        model.compile(optimizers.head_and_backbone(adam, adam))
    model.fit(data(), epochs=2, verbose=0)
    found.append([weight.numpy().tolist() for weight in model.trainable_variables])
print(json.dumps(found))
"""


def test_one_optimizer_for_head_backbone_and_estimates(printed):
    """Without one of their own the default's copy trains ROLE's estimates, once a process."""
    for one, other in zip(*printed(ONE_OPTIMIZER), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


LATER = """
with strategy.scope():
    model = made("an+mixup", mixup_start_epoch=2)
    model.compile("sgd")
print(json.dumps(model.fit(data(), epochs=2, verbose=0).history))
"""


def test_a_term_before_its_epoch_is_logged_as_on_one_device(printed):
    history = printed(LATER)
    assert history["mixup_loss"][0] == 0 < history["mixup_loss"][1]
    assert history["loss"][0] == pytest.approx(history["classification_loss"][0])
