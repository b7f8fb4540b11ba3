"""Vision transformers of keras_hub as backbones of CAM networks."""

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
from spml_tf.runs.settings import Settings, resolve
from spml_tf.system.errors import UserError

keras_hub = pytest.importorskip("keras_hub", reason="needs keras-hub: pip install spml_tf[hub]")

SIDE, PATCH, WIDTH = 64, 8, 16
COMMON = {"num_layers": 2, "num_heads": 2, "hidden_dim": WIDTH, "image_shape": (SIDE, SIDE, 3)}
# Name -> constructor, its arguments, how many tokens stand before those of the patches.
BACKBONES = {
    "vit": ("ViTBackbone", {"mlp_dim": 32}, 1),
    "vit_without_class": ("ViTBackbone", {"mlp_dim": 32, "use_class_token": False}, 0),
    "deit": ("DeiTBackbone", {"intermediate_dim": 32}, 2),
    "dinov2": (
        "DINOV2Backbone",
        {"intermediate_dim": 32, "num_register_tokens": 4, "position_embedding_shape": (64, 64)},
        5,
    ),
    "dinov3": ("DINOV3Backbone", {"intermediate_dim": 32, "num_register_tokens": 4}, 5),
}


def test_a_folder_is_seen_from_where_the_command_is_given(tmp_path, monkeypatch):
    """A run names it so that other commands, given elsewhere, find it."""
    (tmp_path / "vit").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve(Settings(network="keras_hub:vit")).network == f"keras_hub:{tmp_path / 'vit'}"
    named = "keras_hub:vit_base_patch16_224_imagenet"
    assert resolve(Settings(network=named)).network == named


def photos() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (4, SIDE, SIDE, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def built() -> dict[str, tuple[keras.Model, keras.Model]]:
    """Backbone and CAM network by name."""
    found = {}
    for name, (constructor, options, _) in BACKBONES.items():
        options = {**COMMON, **options, "patch_size": PATCH}
        backbone = getattr(keras_hub.models, constructor)(**options)
        found[name] = backbone, networks.cam_from_backbone(backbone, 3, preprocessing="tf")
    return found


@pytest.mark.parametrize("name", BACKBONES)
def test_the_cells_are_the_patches_tokens(built, name):
    backbone, network = built[name]
    grid, before = SIDE // PATCH, BACKBONES[name][2]
    assert network.output_shape == (None, grid, grid, 3)
    features = keras.Model(network.input, network.get_layer(CAM_LAYER).input)(photos())
    scaled = keras.tree.map_structure(lambda _: photos() / 127.5 - 1, backbone.input)
    tokens = np.asarray(backbone(scaled))
    assert tokens.shape == (4, before + grid**2, WIDTH)
    for i, j in ((0, 0), (0, 1), (1, 0), (3, 6), (7, 7)):
        token = tokens[:, before + grid * i + j]
        np.testing.assert_allclose(features[:, i, j], token, rtol=1e-4, atol=1e-4)


# DINOv2's mask token is a weight that only its own training uses.
@pytest.mark.filterwarnings("ignore:Gradients do not exist for variables:UserWarning")
@pytest.mark.parametrize("name", ["vit", "dinov2"])
def test_it_trains(built, name):
    network = keras.models.clone_model(built[name][1])
    before = network.get_weights()
    model = spml_tf.SPMLModel(network, 4, "en+scl", 1.0, warmup_epochs=1)
    model.compile("sgd")
    labels = np.where(np.eye(4, 3, dtype=bool), 1, -1)
    model.fit({"image": photos(), "index": np.arange(4)}, labels, epochs=2, verbose=0)
    moved = [np.any(x != y) for x, y in zip(before, network.get_weights(), strict=True)]
    assert np.mean(moved) > 0.9


def test_saved_networks_reload_in_a_fresh_process(built, tmp_path):
    """Which imports keras_hub only because the files name its layers."""
    np.save(tmp_path / "photos.npy", photos())
    for name, (_, network) in built.items():
        network.save(tmp_path / f"{name}.keras")
    code = (
        "import sys; import numpy as np; from spml_tf.networks import load_network\n"
        "x = np.load('photos.npy', allow_pickle=False)\n"
        "for name in sys.argv[1:]: np.save(name, load_network(name + '.keras')(x))"
    )
    environment = {"PYTHONPATH": str(Path(spml_tf.__file__).parents[1])}
    words = [sys.executable, "-c", code, *built]
    subprocess.run(words, check=True, cwd=tmp_path, env=environment)
    for name, (_, network) in built.items():
        got = np.load(tmp_path / f"{name}.npy")
        np.testing.assert_allclose(got, network(photos()), rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def presets(tmp_path_factory) -> dict[str, tuple[Path, keras.Model]]:
    """Folders of presets, one convolutional for any size and one of tokens, and their backbones."""
    folder, found = tmp_path_factory.mktemp("presets"), {}
    residual = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64], input_conv_kernel_sizes=[3], stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[1, 1], stackwise_num_strides=[1, 2], block_type="basic_block",
        image_shape=(None, None, 3),
    )  # fmt: skip
    vit = keras_hub.models.ViTBackbone(**COMMON, mlp_dim=32, patch_size=PATCH)
    for backbone, converter in (
        (residual, keras_hub.layers.ResNetImageConverter),
        (vit, keras_hub.layers.ViTImageConverter),
    ):
        place = folder / backbone.name
        backbone.save_to_preset(str(place))
        converter(
            image_size=(SIDE, SIDE), scale=[0.02, 0.03, 0.04], offset=[-2.0, -1.0, 0.5]
        ).save_to_preset(str(place))
        found["vit" if backbone is vit else "residual"] = place, backbone
    return found


@pytest.mark.parametrize("name", ["residual", "vit"])
def test_a_preset_by_name_scales_pixels_as_it_was_trained(presets, name):
    folder, backbone = presets[name]
    network = networks.build(f"keras_hub:{folder}", 3, "imagenet", SIDE)
    scaled = photos() * np.array([0.02, 0.03, 0.04], "f") + np.array([-2, -1, 0.5], "f")
    wanted = np.asarray(backbone(scaled))
    found = np.asarray(keras.Model(network.input, network.get_layer(CAM_LAYER).input)(photos()))
    if name == "vit":
        wanted = wanted[:, 1:].reshape(found.shape)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_a_preset_is_trained_saved_and_loaded(presets, tmp_path):
    network = networks.build(f"keras_hub:{presets['vit'][0]}", 2, "none", SIDE)
    network.save(tmp_path / "x.keras")
    again = networks.load_network(tmp_path / "x.keras")
    np.testing.assert_array_equal(again(photos()), network(photos()))


def test_presets_that_cannot_be_are_one_line(presets):
    with pytest.raises(UserError, match=r"keras_hub:nonesuch: .*; give a preset of an image"):
        networks.build("keras_hub:nonesuch", 3)
    with pytest.raises(
        UserError, match=f"made for images of {SIDE} pixels, not 32; give --image_s"
    ):
        networks.build(f"keras_hub:{presets['vit'][0]}", 3, "none", 32)
