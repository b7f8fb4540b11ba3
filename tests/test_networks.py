"""Networks: fused normalisation, the CAM head, weight files, saving and loading."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from spml_tf import networks
from spml_tf.networks import CAM_LAYER, FusedBatchNormalization, ImagePreprocessing
from spml_tf.networks.preprocessing import zero_colour
from spml_tf.networks.resnet50 import APPLICATIONS
from spml_tf.system.errors import UserError
from spml_tf.system.private_api import flatten_layers

# Keras 3.15 saves variables through NumPy's old __array__ protocol; nothing here can change that.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
ROOT = Path(__file__).resolve().parents[1]


def photos(size: int, count: int = 2, seed: int = 0) -> np.ndarray:
    """Random images [count, size, size, 3] float32 in 0..255."""
    return np.random.default_rng(seed).uniform(0, 255, (count, size, size, 3)).astype("float32")


def randomize(model: keras.Model, seed: int = 0) -> None:
    """Gives every weight, statistics included, a value that would show a wrong copy."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        low, high = (0.5, 1.5) if weight.name in ("gamma", "moving_variance") else (-0.1, 0.1)
        weight.assign(rng.uniform(low, high, weight.shape))


def tiny_backbone(name: str = "tiny") -> keras.Model:
    """A user's feature extractor: scaling by an operation, convolution, normalisation."""
    image = keras.Input((32, 32, 3), name="pixels")
    x = image / 255.0
    x = keras.layers.Conv2D(6, 3, strides=2, padding="same", name="conv")(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.ReLU(name="relu")(x)
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same", name="conv_two")(x)
    return keras.Model(image, x, name=name)


def tiny_classifier(activation: str | None, bias: bool = True, drop: bool = False) -> keras.Model:
    """The tiny backbone with pooling and a dense layer of 5 classes."""
    backbone = tiny_backbone()
    x = keras.layers.GlobalAveragePooling2D(name="pool")(backbone.output)
    x = keras.layers.Dropout(0.5)(x) if drop else x
    x = keras.layers.Dense(5, activation=activation, use_bias=bias, name="fc")(x)
    model = keras.Model(backbone.input, x, name="tiny_classifier")
    randomize(model)
    return model


def normalization_layers(network: keras.Model) -> list[keras.layers.Layer]:
    layers = flatten_layers(network, include_self=False)
    return [la for la in layers if isinstance(la, keras.layers.BatchNormalization)]


# ---------------------------------------------------------------------- fused normalisation


def run_norm(layer: keras.layers.Layer, x: np.ndarray, training: bool) -> dict[str, np.ndarray]:
    """Outputs, gradients and statistics of one call, everything as float32 arrays."""
    x = tf.constant(x)
    layer.build(x.shape)
    channels = x.shape[-1]
    values = [np.linspace(0.5, 2.0, channels)] if layer.scale else []
    values += [np.linspace(-1.0, 1.0, channels)] if layer.center else []
    values += [np.linspace(-0.3, 0.3, channels), np.linspace(0.5, 3.0, channels)]
    layer.set_weights(values)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=training)
        loss = tf.reduce_sum(tf.sin(tf.cast(y, tf.float32)) * tf.range(float(channels)))
    affine = [v.value for v in (layer.gamma, layer.beta) if v is not None]
    gradients = tape.gradient(loss, [x, *affine])
    parts = {"y": y, "mean": layer.moving_mean.value, "variance": layer.moving_variance.value}
    parts |= {f"gradient{i}": gradient for i, gradient in enumerate(gradients)}
    return {key: np.asarray(value, "float32") for key, value in parts.items()}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("options", [{}, {"center": False}, {"scale": False}, {"axis": 3}])
def test_fused_normalization_equals_keras(training, trainable, options):
    x = np.random.default_rng(1).normal(1.0, 2.0, (3, 5, 4, 6)).astype("float32")
    options = {"momentum": 0.8, "epsilon": 1.001e-5, "trainable": trainable, **options}
    want = run_norm(keras.layers.BatchNormalization(**options), x, training)
    got = run_norm(FusedBatchNormalization(**options), x, training)
    assert want.keys() == got.keys()
    for key, value in want.items():
        np.testing.assert_allclose(got[key], value, rtol=2e-4, atol=2e-5, err_msg=key)
    frozen = not (training and trainable)
    assert np.array_equal(got["mean"], np.linspace(-0.3, 0.3, 6, dtype="float32")) == frozen


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_fused_normalization_in_mixed_precision(training, policy):
    x = np.random.default_rng(2).normal(1.0, 2.0, (4, 6, 6, 5)).astype("float32")
    want = run_norm(keras.layers.BatchNormalization(), x, training)
    layer = FusedBatchNormalization(dtype=policy)
    got = run_norm(layer, x, training)
    assert layer(x).dtype == layer.compute_dtype and layer.moving_mean.dtype == "float32"
    for key, value in want.items():
        error = np.abs(got[key] - value).mean() / (np.abs(value).mean() + 1e-6)
        assert error < 0.05, key


def test_fused_moving_variance_is_the_biased_one():
    # One channel with the values 0 and 2: mean 1, biased variance 1 (unbiased would be 2).
    # Momentum 0.5 from (0, 1): mean 0.5, variance 0.5 * 1 + 0.5 * 1 = 1.
    layer = FusedBatchNormalization(momentum=0.5)
    layer(tf.reshape([0.0, 2.0], [1, 2, 1, 1]), training=True)
    np.testing.assert_allclose(layer.moving_mean.numpy(), [0.5], rtol=1e-6)
    np.testing.assert_allclose(layer.moving_variance.numpy(), [1.0], rtol=1e-6)


def test_fused_normalization_of_a_single_value():
    # n = 1: the variance is 0, so the moving one becomes 0.5 * 1 + 0.5 * 0.
    layer = FusedBatchNormalization(momentum=0.5)
    y = layer(tf.fill([1, 1, 1, 2], 3.0), training=True)
    np.testing.assert_allclose(y.numpy().ravel(), [0.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(layer.moving_variance.numpy(), [0.5, 0.5], rtol=1e-6)


@pytest.mark.parametrize(
    "shape, options",
    [((4, 6), {}), ((2, 3, 4, 6), {"axis": 1}), ((2, 3, 4, 6), {"epsilon": 1e-7})],
)
def test_fused_normalization_falls_back_to_keras(shape, options):
    x = np.random.default_rng(3).normal(size=shape).astype("float32")
    plain, fused = keras.layers.BatchNormalization(**options), FusedBatchNormalization(**options)
    np.testing.assert_array_equal(fused(x, training=True), plain(x, training=True))
    np.testing.assert_array_equal(fused.moving_variance, plain.moving_variance)


def test_fused_normalization_inside_a_graph_of_unknown_batch_size():
    x = np.random.default_rng(4).normal(size=(3, 4, 4, 2)).astype("float32")
    plain, fused = keras.layers.BatchNormalization(), FusedBatchNormalization()
    fused.build(x.shape)
    signature = [tf.TensorSpec([None, None, None, 2], tf.float32)]
    y = tf.function(lambda v: fused(v, training=True), input_signature=signature)(x)
    np.testing.assert_allclose(y, plain(x, training=True), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(fused.moving_variance, plain.moving_variance, rtol=1e-5)


def test_fuse_batch_normalization_goes_through_nested_models():
    nested = keras.Sequential(
        [keras.Input((32, 32, 3)), tiny_backbone(), keras.layers.BatchNormalization(name="last")]
    )
    randomize(nested)
    fused = networks.fuse_batch_normalization(nested)
    assert [type(la) for la in normalization_layers(fused)] == [FusedBatchNormalization] * 2
    assert {type(la) for la in normalization_layers(nested)} == {keras.layers.BatchNormalization}
    x = photos(32)
    np.testing.assert_allclose(fused(x), nested(x), rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------------- preprocessing


@pytest.mark.parametrize("family", ["resnet", "mobilenet_v2", "densenet"])
def test_preprocessing_is_that_of_the_family(family):
    x = photos(4)
    mode = {"resnet": "caffe", "mobilenet_v2": "tf", "densenet": "torch"}[family]
    want = getattr(keras.applications, family).preprocess_input(x.copy())
    np.testing.assert_allclose(ImagePreprocessing(mode)(x), want, rtol=1e-4, atol=1e-4)


def test_preprocessing_by_hand():
    # lite: (255 - 127) / 128 = 1 and (-1 ... ) 127 -> 0; none leaves the values alone.
    x = np.array([255.0, 127.0, 63.0], "float32").reshape(1, 1, 1, 3)
    np.testing.assert_array_equal(ImagePreprocessing("lite")(x).numpy().ravel(), [1.0, 0.0, -0.5])
    np.testing.assert_array_equal(ImagePreprocessing("none")(x), x)
    again = ImagePreprocessing.from_config(ImagePreprocessing("lite").get_config())
    assert again.mode == "lite"
    with pytest.raises(ValueError, match="lite"):
        ImagePreprocessing("pytorch")


def test_preprocessing_computes_in_float32_under_a_mixed_policy():
    # 200.7 is 201 in bfloat16 (8 bits): the difference to the mean must not lose it first.
    layer = ImagePreprocessing("caffe", dtype="mixed_bfloat16")
    y = layer(np.full((1, 1, 1, 3), 123.9, "float32"))
    assert y.dtype == "bfloat16"
    np.testing.assert_allclose(np.asarray(y, "float32")[..., 2], 123.9 - 123.68, rtol=0.01)


COLOURS = {
    "caffe": [123.68, 116.779, 103.939],  # its mean is of blue, green and red
    "tf": [127.5] * 3, "torch": [123.675, 116.28, 103.53], "lite": [127.0] * 3, "none": [0.0] * 3,
}  # fmt: skip


@pytest.mark.parametrize("mode", COLOURS)
def test_the_colour_that_is_scaled_to_zero(mode):
    backbone = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Conv2D(4, 3, strides=4)])
    colour = zero_colour(networks.cam_from_backbone(backbone, 2, preprocessing=mode))
    np.testing.assert_allclose(colour, COLOURS[mode], rtol=1e-6)
    scaled = ImagePreprocessing(mode)(colour.reshape(1, 1, 1, 3))
    np.testing.assert_allclose(scaled, np.zeros((1, 1, 1, 3)), atol=1e-5)


def test_the_colour_that_scaling_layers_of_keras_map_to_zero():
    """Rescaling by 1/255, then (x - mean) / deviation, then once more: as in EfficientNet."""
    image = keras.Input((32, 32, 3))
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.Normalization(mean=[0.4, 0.5, 0.6], variance=[0.04, 0.01, 0.25])(x)
    x = keras.layers.Rescaling(2.0, offset=1.0)(x)  # 0 where x is -1/2
    x = keras.layers.Conv2D(4, 3, strides=4)(x)
    network = networks.cam_from_backbone(keras.Model(image, x), 2)
    wanted = 255 * np.array([0.4 - 0.2 / 2, 0.5 - 0.1 / 2, 0.6 - 0.5 / 2])
    np.testing.assert_allclose(zero_colour(network), wanted, rtol=1e-5)


def test_a_network_of_unknown_scaling_has_black():
    """The tiny backbone divides by an operation, the other subtracts by place."""
    network = networks.cam_from_backbone(tiny_backbone(), 2)
    assert zero_colour(network).tolist() == [0, 0, 0]
    by_place = keras.layers.Normalization(
        axis=(1, 2), mean=np.ones((8, 8)), variance=np.ones((8, 8))
    )
    image = keras.Input((8, 8, 3))
    assert zero_colour(keras.Model(image, by_place(image))).tolist() == [0, 0, 0]


# ---------------------------------------------------------------------- CAM networks


@pytest.mark.parametrize("activation", [None, "softmax", "sigmoid"])
def test_spatial_mean_of_the_maps_equals_the_classifier(activation):
    classifier = tiny_classifier(activation, drop=activation is None)
    network = networks.cam_from_classifier(classifier)
    x = photos(32, 3)
    classifier.get_layer("fc").activation = keras.activations.linear
    assert network.output_shape == (None, 8, 8, 5)
    np.testing.assert_allclose(
        np.mean(network(x), axis=(1, 2)), classifier(x), rtol=1e-5, atol=1e-5
    )


def test_classifier_with_separate_softmax_no_bias_and_nested_backbone():
    classifier = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            tiny_backbone(),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(4, use_bias=False, name="fc"),
            keras.layers.Activation("softmax"),
        ]
    )
    randomize(classifier)
    network = networks.cam_from_classifier(classifier)
    x = photos(32)
    logits = np.log(np.asarray(classifier(x)))
    means = np.mean(network(x), axis=(1, 2))
    np.testing.assert_allclose(
        means - means.mean(1, keepdims=True), logits - logits.mean(1, keepdims=True), atol=1e-5
    )
    # The wrapper is unwrapped: the backbone's layers are the network's own.
    assert network.get_layer("conv") is not None


def test_resnet50_classifier_becomes_a_cam_network():
    keras.utils.set_random_seed(3)
    classifier = keras.applications.ResNet50(
        weights=None, classes=10, input_shape=(64, 64, 3), classifier_activation=None
    )
    network = networks.resnet50_cam(10, classifier=classifier, image_size=None)
    x = photos(64)
    scaled = keras.applications.resnet.preprocess_input(x.copy())
    want = np.asarray(classifier(scaled))
    np.testing.assert_allclose(
        np.mean(network(x), axis=(1, 2)), want, rtol=1e-5, atol=1e-5 * np.abs(want).max()
    )
    assert all(isinstance(la, FusedBatchNormalization) for la in normalization_layers(network))
    assert networks.resnet50_cam(3, classifier=classifier).output_shape[-1] == 3


def test_a_trained_head_is_kept(tmp_path):
    """The file's ResNet-50 with its 1,000 classes, built by name."""
    keras.utils.set_random_seed(4)
    classifier = keras.applications.ResNet50(weights=None, classifier_activation=None)
    file = tmp_path / "resnet50.weights.h5"
    classifier.save_weights(file)
    network = networks.build("resnet50", 1000, file, 224, keep_head=True)
    x = photos(224)
    want = np.asarray(classifier(keras.applications.resnet.preprocess_input(x.copy())))
    np.testing.assert_allclose(
        np.mean(network(x), axis=(1, 2)), want, rtol=1e-4, atol=1e-5 * np.abs(want).max()
    )
    with pytest.raises(UserError, match="has 1000 classes, the data 20"):
        networks.build("resnet50", 20, file, 64, keep_head=True)


def test_a_head_that_is_not_there_is_not_kept():
    for name, weights, message in (
        ("resnet50", None, "needs weights"),
        ("small_residual", "x.h5", "small_residual has no trained head; choose resnet50"),
        ("applications:ResNet5O", "x.h5", "no network 'ResNet5O'; did you mean: ResNet50"),
    ):
        with pytest.raises(UserError, match=message):
            networks.build(name, 1000, weights, 64, keep_head=True)


@pytest.mark.parametrize("wrong", ["relu_head", "flatten", "no_dense"])
def test_classifiers_with_another_ending_are_refused(wrong):
    backbone = tiny_backbone()
    pooled = keras.layers.GlobalAveragePooling2D()(backbone.output)
    if wrong == "relu_head":
        output, layer = keras.layers.Dense(3, activation="relu", name="bad")(pooled), "bad"
    elif wrong == "flatten":
        flat = keras.layers.Flatten(name="bad")(backbone.output)
        output, layer = keras.layers.Dense(3)(flat), "conv_two"
    else:
        output, layer = pooled, "global_average_pooling2d"
    with pytest.raises(UserError, match=f"must end in.*{layer}"):
        networks.cam_from_classifier(keras.Model(backbone.input, output))


def test_cam_from_a_users_backbone_is_flat_and_keeps_the_weights():
    backbone = tiny_backbone()
    randomize(backbone)
    network = networks.cam_from_backbone(backbone, 4, image_size=48)
    assert network.input_shape == (None, 48, 48, 3) and network.inputs[0].name == "image"
    assert network.output_shape == (None, 12, 12, 4)
    assert isinstance(network.get_layer("norm"), FusedBatchNormalization)
    features = keras.Model(network.input, network.get_layer(CAM_LAYER).input)
    x = photos(32)
    # Fully convolutional: the size differs from the backbone's, so compare on its own size.
    same = networks.cam_from_backbone(backbone, 4)
    features = keras.Model(same.input, same.get_layer(CAM_LAYER).input)
    np.testing.assert_allclose(features(x), backbone(x), rtol=1e-4, atol=1e-5)
    network.get_layer("conv").kernel.assign(network.get_layer("conv").kernel * 2)
    assert np.array_equal(same.get_layer("conv").kernel, backbone.get_layer("conv").kernel)


def test_a_backbone_keeps_its_layers_frozen_and_its_normalisation_if_told_so():
    backbone = tiny_backbone()
    backbone.get_layer("norm").trainable = False
    network = networks.cam_from_backbone(backbone, 2, fuse=False)
    assert type(network.get_layer("norm")) is keras.layers.BatchNormalization
    assert not network.get_layer("norm").trainable


@keras.saving.register_keras_serializable("test_networks")
class Subclassed(keras.Model):
    """A backbone whose graph Keras cannot see."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = keras.layers.Conv2D(4, 3, strides=4, padding="same")
        self.norm = keras.layers.BatchNormalization()

    def call(self, images, training=None):
        return self.norm(self.conv(images), training=training)


def test_a_subclassed_backbone_is_one_layer():
    network = networks.cam_from_backbone(Subclassed(), 3, preprocessing="tf", image_size=32)
    assert network(photos(32)).shape == (2, 8, 8, 3)
    assert len(normalization_layers(network)) == 1


def test_unsuitable_backbones_are_refused():
    pooled = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.GlobalMaxPooling2D()])
    with pytest.raises(UserError, match="not a .*feature map"):
        networks.cam_from_backbone(pooled, 3)
    grey = keras.Sequential([keras.Input((32, 32, 1)), keras.layers.Conv2D(4, 3)])
    with pytest.raises(UserError, match="takes"):
        networks.cam_from_backbone(grey, 3)
    with pytest.raises(UserError, match="not built"):
        networks.cam_from_backbone(keras.Sequential([keras.layers.Conv2D(4, 3)]), 3)
    code = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Lambda(lambda x: x + 1)])
    with pytest.raises(UserError, match="Lambda"):
        networks.cam_from_backbone(
            keras.Sequential([keras.Input((8, 8, 3)), code, keras.layers.Conv2D(4, 3)]), 3
        )
    with pytest.raises(ValueError, match="num_classes"):
        networks.cam_from_backbone(tiny_backbone(), 0)


def test_replace_head_carries_over_the_classes_in_both_lists():
    network = networks.cam_from_classifier(tiny_classifier(None))
    new = networks.replace_head(
        network, 3, ["cat", "dog", "cow", "bird", "bus"], ["bus", "tree", "dog"]
    )
    (old_kernel, old_bias), (kernel, bias) = (
        n.get_layer(CAM_LAYER).get_weights() for n in (network, new)
    )
    np.testing.assert_array_equal(kernel[..., [0, 2]], old_kernel[..., [4, 1]])
    np.testing.assert_array_equal(bias, [old_bias[4], 0.0, old_bias[1]])
    assert not np.isin(kernel[..., 1], old_kernel).any()
    assert networks.backbone_layers(new) == networks.backbone_layers(network)
    assert networks.replace_head(network, 2).output_shape == (None, 8, 8, 2)
    with pytest.raises(ValueError, match="class_names_to"):
        networks.replace_head(network, 3, list("abcde"), list("aba"))


def test_small_residual():
    network = networks.small_residual_cam(5, seed=7)
    assert network.output_shape == (None, 8, 8, 5)
    assert networks.small_residual_cam(2, image_size=96, width=16).output_shape == (None, 12, 12, 2)
    # A convolution costs 2 * (output positions) * (weights of its kernel).
    flops = sum(
        2 * np.prod(la.output.shape[1:3]) * np.prod(la.kernel.shape)
        for la in network.layers
        if isinstance(la, keras.layers.Conv2D)
    )
    assert 24e6 < flops < 26e6
    with pytest.raises(ValueError, match="multiple of 16"):
        networks.small_residual_cam(5, width=8)
    again, other = networks.small_residual_cam(5, seed=7), networks.small_residual_cam(5, seed=8)
    x = photos(64, 1)
    np.testing.assert_array_equal(network(x), again(x))
    assert not np.array_equal(network(x), other(x))
    keras.utils.set_random_seed(5)
    first = networks.small_residual_cam(2, width=16).get_weights()
    keras.utils.set_random_seed(5)
    second = networks.small_residual_cam(2, width=16).get_weights()
    assert all(map(np.array_equal, first, second))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_logits_are_float32_under_mixed_precision(policy):
    keras.utils.set_random_seed(1)
    plain = networks.small_residual_cam(3, width=16, seed=1)
    keras.config.set_dtype_policy(policy)
    try:
        network = networks.small_residual_cam(3, width=16, seed=1)
    finally:
        keras.config.set_dtype_policy("float32")
    x = photos(64)
    y = network(x)
    assert y.dtype == "float32" and network.inputs[0].dtype == "float32"
    assert network.get_layer("stage1_first_conv").compute_dtype in policy
    np.testing.assert_allclose(y, plain(x), atol=0.1 * np.abs(plain(x)).max())


def test_a_network_trains_and_frozen_statistics_stay():
    network = networks.small_residual_cam(2, width=16, image_size=32)
    frozen = network.get_layer("stem_bn")
    frozen.trainable = False
    pooled = keras.layers.GlobalAveragePooling2D()(network.output)
    trainer = keras.Model(network.input, pooled)
    trainer.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True), jit_compile=False)
    before = frozen.get_weights()
    moving = network.get_layer("stage1_first_bn").moving_mean.numpy()
    trainer.fit(photos(32, 8), np.tile([[0.0, 1.0]], (8, 1)), batch_size=4, verbose=0)
    assert all(map(np.array_equal, before, frozen.get_weights()))
    assert not np.array_equal(moving, network.get_layer("stage1_first_bn").moving_mean)


# ---------------------------------------------------------------------- names and weight files


def test_build_by_name(tmp_path):
    lite = {f"efficientnet_lite{version}" for version in (0, 1, 2)}
    assert set(networks.NETWORKS) == {"resnet50", *lite, "small_residual"}
    assert networks.build("small_residual", 3, "none", 64).output_shape == (None, 8, 8, 3)
    network = networks.build("applications:MobileNetV2", 3, None, 64)
    assert network.output_shape == (None, 2, 2, 3)
    assert network.get_layer("preprocessing").mode == "tf"
    with pytest.raises(UserError, match="did you mean resnet50"):
        networks.build("resnet5", 3, None, 64)
    with pytest.raises(UserError, match="MobileNetV2"):
        networks.build("applications:MobilNetV2", 3, None, 64)
    with pytest.raises(UserError, match="no ImageNet weights"):
        networks.build("small_residual", 3, "imagenet", 64)
    with pytest.raises(UserError, match="image size"):
        networks.build("applications:MobileNetV2", 3, None, 8)
    with pytest.raises(UserError, match="absent.h5: no such file"):
        networks.build("applications:MobileNetV2", 3, tmp_path / "absent.h5", 64)


def test_a_failed_download_says_to_pass_a_file(monkeypatch):
    def unreachable(**_):
        raise Exception("URL fetch failure")

    monkeypatch.setitem(APPLICATIONS, "ResNet50", unreachable)
    monkeypatch.setattr(unreachable, "__module__", "keras.src.applications.resnet")
    with pytest.raises(UserError, match="URL fetch failure; pass a file of its weights"):
        networks.resnet50_cam(3)


@pytest.mark.parametrize("top", [True, False])
@pytest.mark.parametrize("suffix", [".keras", ".weights.h5", ".h5"])
def test_weights_from_a_file(tmp_path, top, suffix):
    options = {"classes": 4} if top else {}
    source = keras.applications.MobileNetV2(
        weights=None, include_top=top, input_shape=(64, 64, 3), alpha=1.0, **options
    )
    randomize(source)
    path = tmp_path / f"source{suffix}"
    source.save_weights(path) if suffix == ".weights.h5" else source.save(path)
    network = networks.application_cam("MobileNetV2", 3, weights=path, image_size=64)
    for layer in networks.backbone_layers(network):
        if layer.weights:
            wanted = source.get_layer(layer.name).get_weights()
            assert all(map(np.array_equal, wanted, layer.get_weights())), layer.name


def test_resnet50_weights_file(tmp_path):
    source = keras.applications.ResNet50(weights=None, include_top=False, input_shape=(32, 32, 3))
    source.get_layer("conv1_conv").kernel.assign(source.get_layer("conv1_conv").kernel * 3)
    source.save_weights(tmp_path / "resnet.weights.h5")
    network = networks.build("resnet50", 2, str(tmp_path / "resnet.weights.h5"), 32)
    assert network.get_layer("preprocessing").mode == "caffe"
    np.testing.assert_array_equal(
        network.get_layer("conv1_conv").kernel, source.get_layer("conv1_conv").kernel
    )


def test_unsuitable_weight_files_are_refused(tmp_path):
    tiny = tiny_backbone()
    for suffix in (".keras", ".weights.h5", ".h5"):
        path = tmp_path / f"other{suffix}"
        tiny.save_weights(path) if suffix == ".weights.h5" else tiny.save(path)
        with pytest.raises(UserError, match=f"other{suffix}: these are no weights of"):
            networks.application_cam("MobileNetV2", 3, weights=path, image_size=64)
        path.write_bytes(b"not a file of Keras")
        with pytest.raises(UserError, match=f"other{suffix}: "):
            networks.application_cam("MobileNetV2", 3, weights=path, image_size=64)
    (tmp_path / "weights.npz").write_bytes(b"")
    with pytest.raises(UserError, match="unknown kind of weights"):
        networks.small_residual_cam(3, weights=tmp_path / "weights.npz")


def test_small_residual_takes_the_backbone_of_a_saved_network(tmp_path):
    source = networks.small_residual_cam(5, width=16)
    randomize(source)
    source.save(tmp_path / "saved.keras")
    network = networks.small_residual_cam(3, width=16, weights=tmp_path / "saved.keras")
    np.testing.assert_array_equal(
        network.get_layer("stage3_second_bn").gamma, source.get_layer("stage3_second_bn").gamma
    )
    with pytest.raises(UserError, match=r"saved\.keras: these are no weights of"):
        networks.small_residual_cam(3, width=32, weights=tmp_path / "saved.keras")


# ---------------------------------------------------------------------- saving and loading


LOAD_AND_RUN = """
import sys
import numpy as np
from spml_tf.networks import load_network
folder = sys.argv[1]
x = np.load(folder + "/x.npy", allow_pickle=False)
for name in ("small", "application", "user"):
    np.save(f"{folder}/{name}.npy", load_network(f"{folder}/{name}.keras")(x[int(name == "user")]))
"""


def test_networks_reload_in_a_fresh_process(tmp_path):
    built = {
        "small": networks.small_residual_cam(3, width=16, image_size=32),
        "application": networks.application_cam("MobileNetV2", 3, weights=None, image_size=32),
        "user": networks.cam_from_backbone(tiny_backbone(), 2, preprocessing="torch"),
    }
    x = np.stack([photos(32), photos(32, seed=1)])
    np.save(tmp_path / "x.npy", x)
    for name, network in built.items():
        randomize(network)
        network.save(tmp_path / f"{name}.keras")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([sys.executable, "-c", LOAD_AND_RUN, str(tmp_path)], check=True, env=environment)
    for name, network in built.items():
        got = np.load(tmp_path / f"{name}.npy", allow_pickle=False)
        np.testing.assert_allclose(got, network(x[int(name == "user")]), rtol=1e-5, atol=1e-5)


def test_load_network_refuses_what_is_no_cam_network(tmp_path):
    with pytest.raises(UserError, match=r"absent\.keras: no such file"):
        networks.load_network(tmp_path / "absent.keras")
    (tmp_path / "damaged.keras").write_bytes(b"PK\x03\x04 and nothing")
    with pytest.raises(UserError, match=r"damaged\.keras: Keras cannot load it"):
        networks.load_network(tmp_path / "damaged.keras")
    (tmp_path / "network.h5").write_bytes(b"")
    with pytest.raises(UserError, match=r"network\.h5: not a \.keras file"):
        networks.load_network(tmp_path / "network.h5")
    tiny_backbone().save(tmp_path / "backbone.keras")
    with pytest.raises(UserError, match="not a CAM network.*no layer 'cam_logits'"):
        networks.load_network(tmp_path / "backbone.keras")
    network = networks.cam_from_backbone(tiny_backbone(), 2)
    pooled = keras.layers.GlobalAveragePooling2D()(network.output)
    keras.Model(network.input, pooled).save(tmp_path / "pooled.keras")
    with pytest.raises(UserError, match="its output is not the map"):
        networks.load_network(tmp_path / "pooled.keras")


def test_load_network_never_runs_code_from_the_file(tmp_path):
    code = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Lambda(lambda x: x + 1)])
    code.save(tmp_path / "code.keras")
    with pytest.raises(UserError, match=r"code\.keras: Keras cannot load it"):
        networks.load_network(tmp_path / "code.keras")
