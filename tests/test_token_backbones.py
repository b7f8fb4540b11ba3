"""CAM networks on backbones that end in tokens, as vision transformers do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import spml_tf
from spml_tf import networks
from spml_tf.networks import CAM_LAYER
from spml_tf.system.errors import UserError

SIDE, PATCH, WIDTH = 32, 8, 6
GRID = SIDE // PATCH


def patch_tokens(prefix: int = 0, side: int = SIDE) -> keras.Model:
    """One token a patch, its convolution, row by row; tokens of zeros stand before them."""
    image = keras.Input((side, side, 3))
    x = keras.layers.Conv2D(WIDTH, PATCH, strides=PATCH, name="patches")(image)
    x = keras.layers.Reshape((-1, WIDTH))(x)
    x = keras.layers.ZeroPadding1D((prefix, 0))(x) if prefix else x
    return keras.Model(image, x, name="patch_tokens")


def tiny_vit() -> keras.Model:
    """A class token and patches, a block of attention and one of two dense layers."""
    patches = patch_tokens(prefix=1)
    x = patches.output
    attended = keras.layers.LayerNormalization()(x)
    attended = keras.layers.MultiHeadAttention(2, 4)(attended, attended)
    x = keras.layers.Add()([x, attended])
    mixed = keras.layers.Dense(12, activation="gelu")(keras.layers.LayerNormalization()(x))
    x = keras.layers.Add()([x, keras.layers.Dense(WIDTH)(mixed)])
    return keras.Model(patches.input, keras.layers.LayerNormalization()(x), name="vit")


def photos(count: int = 4, side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (count, side, side, 3)).astype(np.float32)


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_cells_are_the_patches_tokens_row_by_row(prefix):
    """Every logit from the pixels in NumPy: patch (i, j), its convolution, the head."""
    backbone = patch_tokens(prefix)
    network = networks.cam_from_backbone(backbone, 3, preprocessing="lite")
    assert network.output_shape == (None, GRID, GRID, 3)
    image = photos()
    kernel, bias = backbone.get_layer("patches").get_weights()
    head, head_bias = network.get_layer(CAM_LAYER).get_weights()
    for i in range(GRID):
        for j in range(GRID):
            patch = image[:, PATCH * i : PATCH * (i + 1), PATCH * j : PATCH * (j + 1)]
            token = np.einsum("bxyc,xycd->bd", (patch - 127) / 128, kernel) + bias
            want = token @ head[0, 0] + head_bias
            np.testing.assert_allclose(network(image)[:, i, j], want, rtol=1e-4, atol=1e-4)


def test_a_transformers_features_are_its_own():
    backbone = tiny_vit()
    network = networks.cam_from_backbone(backbone, 3)
    features = keras.Model(network.input, network.get_layer(CAM_LAYER).input)
    tokens = np.asarray(backbone(photos()))[:, 1:]  # without the class token
    np.testing.assert_allclose(
        features(photos()), tokens.reshape(4, GRID, GRID, WIDTH), rtol=1e-4, atol=1e-5
    )


def test_a_transformer_trains_under_the_model_and_reloads_in_a_fresh_process(tmp_path):
    network = networks.cam_from_backbone(tiny_vit(), 3, preprocessing="tf")
    before = [x.numpy() for x in network.trainable_variables]
    model = spml_tf.SPMLModel(network, 4, "en+scl", 1.0)
    model.compile("sgd")
    labels = np.where(np.eye(4, 3, dtype=bool), 1, -1)
    model.fit({"image": photos(), "index": np.arange(4)}, labels, epochs=1, verbose=0)
    after = [x.numpy() for x in network.trainable_variables]
    moved = [np.any(x != y) for x, y in zip(before, after, strict=True)]
    assert np.mean(moved) > 0.9  # but for biases that attention's softmax cancels
    want = network(photos())
    network.save(tmp_path / "vit.keras")
    np.save(tmp_path / "photos.npy", photos())
    code = (
        "import sys; import numpy as np; from spml_tf.networks import load_network\n"
        "x = np.load('photos.npy', allow_pickle=False)\n"
        "np.save('got.npy', load_network('vit.keras')(x))"
    )
    environment = {"PYTHONPATH": str(Path(spml_tf.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)
    np.testing.assert_allclose(np.load(tmp_path / "got.npy"), want, rtol=1e-5, atol=1e-5)


@keras.saving.register_keras_serializable("test_token_backbones")
class Subclassed(keras.Model):
    """Tokens from a graph that Keras cannot see."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.tokens = patch_tokens(prefix=2)

    def call(self, images):
        return self.tokens(images)


def test_a_subclassed_backbone_may_end_in_tokens():
    network = networks.cam_from_backbone(Subclassed(), 3, image_size=SIDE)
    assert network.output_shape == (None, GRID, GRID, 3)


@keras.saving.register_keras_serializable("test_token_backbones")
class Uncloneable(keras.layers.Dense):
    """A layer whose configuration does not make it again, as keras_hub's patches of ViT."""

    def get_config(self):
        return {**super().get_config(), "more": 1}


@keras.saving.register_keras_serializable("test_token_backbones")
class OwnConfig(keras.Model):
    """A functional backbone that is made again from its own arguments, as keras_hub's are."""

    def __init__(self, width: int, **kwargs):
        tokens = patch_tokens(prefix=1)
        x = Uncloneable(width)(tokens.output)
        super().__init__(tokens.input, x, **kwargs)
        self.width = width

    def get_config(self):
        return {"width": self.width, "name": self.name}


def test_a_registered_backbone_whose_layers_cannot_be_cloned_is_one_layer(tmp_path):
    backbone = OwnConfig(5, name="own")
    network = networks.cam_from_backbone(backbone, 3)
    assert network.get_layer("own") is backbone
    network.save(tmp_path / "own.keras")
    again = networks.load_network(tmp_path / "own.keras")
    np.testing.assert_allclose(again(photos()), network(photos()), rtol=1e-5, atol=1e-5)
    plain = keras.Model(backbone.input, backbone.output, name="plain")
    with pytest.raises(UserError, match="'plain' cannot be cloned.*needs get_config"):
        networks.cam_from_backbone(plain, 3)
    with pytest.raises(UserError, match="cannot be cloned for images 64x64.*takes no other"):
        networks.cam_from_backbone(backbone, 3, image_size=64)


def test_how_many_tokens_stand_before_the_patches():
    # 4 patches and 5 others are 9: 3 x 3 does not divide 32, so that it has to be said.
    few = patch_tokens(5, side=16)
    assert few.output_shape == (None, 9, WIDTH)
    with pytest.raises(UserError, match="returns 9 tokens for images 16x16.*prefix_tokens=NUMBER"):
        networks.cam_from_backbone(few, 3)
    said = networks.cam_from_backbone(few, 3, prefix_tokens=5)
    assert said.output_shape == (None, 2, 2, 3)
    with pytest.raises(UserError, match="prefix_tokens=4.*9 tokens.*no square grid"):
        networks.cam_from_backbone(few, 3, prefix_tokens=4)
    for wrong in (-7, 9, 10):
        with pytest.raises(UserError, match=f"prefix_tokens={wrong}: "):
            networks.cam_from_backbone(few, 3, prefix_tokens=wrong)
    convolution = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Conv2D(4, 3)])
    with pytest.raises(UserError, match="prefix_tokens=1.*a feature map, not tokens"):
        networks.cam_from_backbone(convolution, 3, prefix_tokens=1)


def test_tokens_without_a_square_grid_are_refused():
    image = keras.Input((64, 16, 3))  # 16 patches of 8 x 8, but 8 by 2
    wide = keras.layers.Reshape((-1, 4))(keras.layers.Conv2D(4, 8, strides=8)(image))
    with pytest.raises(UserError, match="returns 16 tokens for images 64x16.*square images"):
        networks.cam_from_backbone(keras.Model(image, wide), 3)
    image = keras.Input((None, None, 3))
    varying = keras.layers.Reshape((-1, 4))(keras.layers.Conv2D(4, 8, strides=8)(image))
    backbone = keras.Model(image, varying)
    with pytest.raises(UserError, match="returns None tokens.*give image_size"):
        networks.cam_from_backbone(backbone, 3)
    assert networks.cam_from_backbone(backbone, 3, image_size=40).output_shape == (None, 5, 5, 3)
