"""BoostLU against NumPy, in every place where a network is made, saved and read again."""

from __future__ import annotations

import sys
from subprocess import run

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_network import tiny_cam

import spml_tf
from spml_tf import networks
from spml_tf.system.errors import UserError

IMAGES = np.random.default_rng(0).uniform(0, 255, (3, 32, 32, 3)).astype(np.float32)

LOAD = """
import sys
import numpy, spml_tf, keras
network = keras.saving.load_model(sys.argv[1] + "/network.keras")
images = numpy.load(sys.argv[1] + "/images.npy")
numpy.save(sys.argv[1] + "/maps.npy", network.predict(images, verbose=0))
"""


def numpy_boosted(maps: np.ndarray) -> np.ndarray:
    return np.array([5 * x if x > 0 else x for x in maps.ravel()]).reshape(maps.shape)


def pair() -> tuple[keras.Model, keras.Model]:
    keras.utils.set_random_seed(0)
    plain = tiny_cam(4, image_size=32)
    return plain, networks.with_cam_boost(plain, 5.0)


def test_positive_values_are_multiplied_before_pooling():
    plain, boosted = pair()
    maps = plain.predict(IMAGES, verbose=0)
    assert (maps > 0).any() and (maps < 0).any()
    wanted = numpy_boosted(maps)
    np.testing.assert_allclose(boosted.predict(IMAGES, verbose=0), wanted, rtol=1e-5)
    scores = spml_tf.SPMLModel(boosted, 3, "an").predict(IMAGES, verbose=0)
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-wanted.mean(axis=(1, 2)))), rtol=1e-5)


def test_gradient_equals_finite_differences():
    maps = np.array([[-2.0, -0.5], [0.25, 3.0]])
    inputs = tf.constant(maps)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = tf.sigmoid(tf.reduce_mean(networks.BoostLU(5.0)(inputs)))

    def score(values: np.ndarray) -> float:
        return 1 / (1 + np.exp(-numpy_boosted(values).mean()))

    wanted = np.zeros_like(maps)
    for place in np.ndindex(*maps.shape):
        up, down = maps.copy(), maps.copy()
        up[place] += 1e-6
        down[place] -= 1e-6
        wanted[place] = (score(up) - score(down)) / 2e-6
    np.testing.assert_allclose(tape.gradient(value, inputs), wanted, atol=1e-9)


def test_a_new_head_keeps_the_boost_and_one_can_be_taken_away():
    plain, boosted = pair()
    assert (networks.cam_boost(plain), networks.cam_boost(boosted)) == (1.0, 5.0)
    assert networks.cam_boost(networks.replace_head(boosted, 2)) == 5.0
    assert networks.with_cam_boost(plain, 1.0) is plain
    again = networks.with_cam_boost(boosted, 1.0)
    maps = plain.predict(IMAGES, verbose=0)
    np.testing.assert_array_equal(again.predict(IMAGES, verbose=0), maps)
    twice = networks.with_cam_boost(boosted, 2.0).predict(IMAGES, verbose=0)
    np.testing.assert_allclose(twice, np.where(maps > 0, 2 * maps, maps), rtol=1e-6)


def test_a_saved_network_loads_in_a_fresh_process(tmp_path):
    _, boosted = pair()
    boosted.save(tmp_path / "network.keras")
    np.save(tmp_path / "images.npy", IMAGES)
    words = [sys.executable, "-c", LOAD, str(tmp_path)]
    done = run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "maps.npy")
    np.testing.assert_allclose(found, boosted.predict(IMAGES, verbose=0), rtol=1e-5, atol=1e-6)


def test_what_cannot_be_boosted():
    image = keras.Input((8, 8, 3))
    head = keras.layers.AveragePooling2D(2, name=networks.CAM_LAYER)
    with pytest.raises(UserError, match="is a AveragePooling2D, not a Conv2D"):
        networks.with_cam_boost(keras.Model(image, head(image)), 5.0)
    with pytest.raises(ValueError, match="factor must be above 0"):
        networks.BoostLU(0.0)
