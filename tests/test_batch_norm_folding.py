"""Networks with folded normalisation against the same networks without."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from spml_tf import networks
from spml_tf.networks.batch_norm import fuse_batch_normalization
from spml_tf.networks.batch_norm_folding import _Folded, folded

RNG = np.random.default_rng(0)


def scattered(network: keras.Model) -> keras.Model:
    """The network with weights as training leaves them: no mean is 0, no variance 1."""
    for weight in network.weights:
        values = np.asarray(weight)
        noise = RNG.uniform(0.5, 1.5, values.shape)
        if "moving_mean" in weight.path or "beta" in weight.path or "bias" in weight.path:
            weight.assign(noise - 1)
        elif values.ndim < 2:
            weight.assign(noise)
    return network


def norms(network: keras.Model) -> int:
    return sum(isinstance(x, keras.layers.BatchNormalization) for x in network.layers)


@pytest.mark.parametrize(
    ("name", "size", "kept"),
    [
        pytest.param("resnet50", 64, 0, marks=pytest.mark.slow),
        ("small_residual", 32, 0),
        ("efficientnet_lite0", 64, 0),
    ],
)
def test_logits_of_our_networks(name, size, kept):
    network = scattered(networks.build(name, 5, "none", size))
    images = RNG.uniform(0, 255, (2, size, size, 3)).astype(np.float32)
    before = network.predict_on_batch(images)
    copy = folded(network)
    assert norms(network) > 5 and norms(copy) == kept
    after = copy.predict_on_batch(images)
    np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-4 * np.abs(before).max())
    assert np.array_equal(network.predict_on_batch(images), before)
    assert copy.count_params() < network.count_params()


def test_only_where_nothing_else_reads_the_convolution():
    """Shared, activated, shown or half precision convolutions keep their normalisation."""
    image = keras.Input((6, 6, 3))
    conv = keras.layers.Conv2D(4, 3, padding="same", name="read_twice")(image)
    twice = keras.layers.BatchNormalization()(conv) + conv
    active = keras.layers.Conv2D(4, 3, activation="relu", padding="same")(twice)
    active = keras.layers.BatchNormalization()(active)
    shared, norm = keras.layers.Conv2D(4, 1), keras.layers.BatchNormalization()
    both = norm(shared(active)) + norm(shared(twice))
    half = keras.layers.Conv2D(4, 1, dtype="bfloat16")(both)
    half = keras.layers.BatchNormalization(dtype="bfloat16")(half)
    rows = keras.layers.BatchNormalization(axis=1)(keras.layers.Conv2D(4, 1)(half))
    shown = keras.layers.Conv2D(2, 1, name="shown")(rows)
    network = keras.Model(image, [shown, keras.layers.BatchNormalization()(shown)])
    assert folded(network) is network


def test_depthwise_with_a_multiplier_and_without_gamma():
    """Six outputs of three channels; the second layer has neither gamma nor beta."""
    image = keras.Input((6, 6, 3))
    maps = keras.layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)(image)
    maps = keras.layers.BatchNormalization()(maps)
    maps = keras.layers.Conv2D(4, 3, strides=2, groups=2)(maps)
    maps = keras.layers.BatchNormalization(scale=False, center=False, epsilon=0.1)(maps)
    network = scattered(keras.Model(image, maps))
    images = RNG.normal(size=(2, 6, 6, 3)).astype(np.float32)
    copy = folded(network)
    assert sum(isinstance(x, _Folded) for x in copy.layers) == 2
    np.testing.assert_allclose(
        copy.predict_on_batch(images), network.predict_on_batch(images), atol=1e-5
    )


@keras.saving.register_keras_serializable("tests")
class Doubled(keras.layers.Conv2D):
    """A convolution that is not that of its kernel and bias."""

    def call(self, images):
        return 2 * super().call(images)


def test_subclasses_and_more_weights_stay():
    image = keras.Input((6, 6, 3))
    maps = keras.layers.BatchNormalization()(Doubled(4, 3)(image))
    lora = keras.layers.Conv2D(4, 3)
    maps = keras.layers.BatchNormalization()(lora(maps))
    lora.enable_lora(2)
    network = keras.Model(image, maps)
    assert folded(network) is network


def test_an_adapted_layer_keeps_its_mean():
    """Normalization holds numbers that it computes from its weights."""
    image = keras.Input((6, 6, 3))
    normalization = keras.layers.Normalization()
    maps = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(normalization(image)))
    network = scattered(keras.Model(image, maps))
    normalization.adapt(RNG.normal(5, 3, (4, 6, 6, 3)))
    images = RNG.normal(5, 3, (2, 6, 6, 3)).astype(np.float32)
    before = network.predict_on_batch(images)
    np.testing.assert_allclose(folded(network).predict_on_batch(images), before, atol=1e-5)
    cloned = fuse_batch_normalization(network)
    np.testing.assert_allclose(cloned.predict_on_batch(images), before, atol=1e-5)


def test_other_models_stay():
    class Own(keras.Model):
        def call(self, images):
            return images

    model = Own()
    assert folded(model) is model


def test_a_backbone_with_its_own_mean(tmp_path):
    """Such as EfficientNetB0: the CAM network, its file and its folded copy compute the same."""
    image = keras.Input((16, 16, 3))
    normalization = keras.layers.Normalization()
    maps = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(normalization(image)))
    backbone = scattered(keras.Model(image, maps))
    normalization.adapt(RNG.normal(100, 50, (4, 16, 16, 3)))
    network = networks.cam_from_backbone(backbone, 2)
    network.save(tmp_path / "network.keras")
    images = RNG.uniform(0, 255, (2, 16, 16, 3)).astype(np.float32)
    kernel, bias = network.layers[-1].get_weights()
    expected = backbone.predict_on_batch(images) @ kernel[0, 0] + bias
    for one in (network, networks.load_network(tmp_path / "network.keras"), folded(network)):
        np.testing.assert_allclose(one.predict_on_batch(images), expected, atol=1e-4)
