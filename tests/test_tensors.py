"""Files, arrays and Keras datasets of the user's own become training batches."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import spml_tf

N, SIZE = 6, 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six pictures in three class folders, each of one gray of its own."""
    root = tmp_path_factory.mktemp("photos")
    for number in range(N):
        target = root / "abc"[number % 3] / f"{number}.png"
        target.parent.mkdir(exist_ok=True)
        Image.new("RGB", (20 + number, 18), (40 * number,) * 3).save(target)
    return root


def rows(data: tf.data.Dataset) -> dict[int, tuple]:
    """Gray, box, flip and labels by index."""
    found = {}
    for inputs, labels in data:
        assert inputs["image"].shape[1:] == (SIZE, SIZE, 3)
        for row, index in enumerate(inputs["index"].numpy()):
            values = [inputs[name].numpy()[row] for name in ("image", "box", "flip")]
            found[int(index)] = (values[0].mean(), *values[1:], labels.numpy()[row].tolist())
    return found


def check(data: tf.data.Dataset, labels: dict[int, list[int]]) -> dict[int, tuple]:
    """Each image has its number and labels in every pass, and other crops in the next.

    Returns:
        The rows of the first pass.
    """
    first, second = rows(data), rows(data)
    for found in (first, second):
        assert sorted(found) == list(range(N))
        for index, (gray, box, _, row) in found.items():
            assert gray == pytest.approx(40 * index, abs=0.01) and row == labels[index]
            assert 0.2 < (box[2] - box[0]) * (box[3] - box[1]) <= 1
    assert any((first[x][1] != second[x][1]).any() for x in first)
    assert {bool(x[2]) for x in (*first.values(), *second.values())} == {True, False}
    return first


def test_from_paths(folder):
    paths = [folder / "abc"[x % 3] / f"{x}.png" for x in range(N)]
    labels = np.where(np.eye(3)[np.arange(N) % 3] > 0, 1, -1)
    options = {"image_size": SIZE, "batch_size": 4}
    data = [spml_tf.from_paths(paths, labels, **options, seed=3) for _ in range(2)]
    first, again = check(data[0], dict(enumerate(labels.tolist()))), rows(data[1])
    for index in range(N):
        np.testing.assert_array_equal(first[index][1], again[index][1])
    whole = spml_tf.from_paths(paths, labels, **options, training=False)
    assert len(whole) == 2 and list(rows(whole)) == list(range(N))
    assert all(x[1].tolist() == [0, 0, 1, 1] and not x[2] for x in rows(whole).values())


def test_arrays_with_classes_or_rows():
    images = np.broadcast_to(40.0 * np.arange(N)[:, None, None, None], (N, 18, 20, 3))
    classes = np.arange(N) % 3
    expected = {x: np.where(np.arange(3) == x % 3, 1, -1).tolist() for x in range(N)}
    common = {"image_size": SIZE, "batch_size": 4}
    check(spml_tf.with_index(images, classes, num_classes=3, **common), expected)
    ones = np.eye(3)[classes]
    check(spml_tf.with_index(images, ones, zeros="unknown", **common), expected)
    negatives = {x: np.eye(3, dtype=int)[x % 3].tolist() for x in range(N)}
    check(spml_tf.with_index(images, ones, **common), negatives)


@pytest.mark.parametrize("label_mode", ["int", "categorical"])
def test_image_dataset_from_directory(folder, label_mode):
    options = {"label_mode": label_mode, "image_size": (24, 24), "batch_size": 5, "verbose": False}
    data = keras.utils.image_dataset_from_directory(folder, shuffle=False, **options)
    order = [int(path.split("/")[-1][0]) for path in data.file_paths]
    arguments = {"num_classes": 3} if label_mode == "int" else {"zeros": "unknown"}
    batches = spml_tf.with_index(data, image_size=SIZE, batch_size=4, **arguments)
    found = rows(batches)
    for index, number in enumerate(order):
        gray, _, _, row = found[index]
        assert gray == pytest.approx(40 * number, abs=0.01)
        assert row == np.where(np.arange(3) == number % 3, 1, -1).tolist()
    shuffled = keras.utils.image_dataset_from_directory(folder, seed=1, **options)
    with pytest.raises(ValueError, match="another order each time.*shuffle=False"):
        spml_tf.with_index(shuffled, image_size=SIZE, **arguments)


def test_the_model_trains_on_them(folder):
    data = keras.utils.image_dataset_from_directory(
        folder, shuffle=False, image_size=(24, 24), verbose=False
    )
    batches = spml_tf.with_index(data, image_size=SIZE, num_classes=3, batch_size=4)
    network = spml_tf.networks.small_residual_cam(3, image_size=SIZE, width=16)
    model = spml_tf.SPMLModel(network, N, "en+scl", 1.5)
    model.compile("adam")
    history = model.fit(batches, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert model.ema_heatmaps.visited.numpy().any(axis=(1, 2)).all()


def test_mistakes_are_named():
    images = np.zeros((2, 8, 8, 3))
    for arguments, message in (
        ((images, [0, 1]), "num_classes is missing"),
        ((images, [0, 5], 3), "labels must be classes 0 to 2"),
        ((images, None, 3), "labels are missing"),
        ((images[0], [0], 3), r"must be of shape \[N, H, W, 3\]"),
        ((images, [[1, 0]]), "1 rows of labels for 2 images"),
        ((images, [[0.5, 0], [1, 0]]), "found 0.5 in row 0"),
    ):
        given = dict(zip(("data", "labels", "num_classes"), arguments, strict=False))
        with pytest.raises(ValueError, match=message):
            spml_tf.with_index(**given, image_size=8)
    with pytest.raises(ValueError, match="there is no file nowhere.png"):
        spml_tf.from_paths(["nowhere.png"], [[1]], image_size=8)


def of_zeros(labels: object) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((np.zeros([4, 8, 8, 3]), labels)).batch(2)


@pytest.mark.parametrize(
    ("data", "options", "reason"),
    [
        (of_zeros(np.full([4, 3], 0.7)), {}, "found 0.7 in row 0, column 0"),
        (of_zeros(np.full([4, 3], 3)), {}, "found 3 in row 0, column 0"),
        (of_zeros([3, 0, 1, 2]), {"num_classes": 3}, "must be classes 0 to 2"),
        (of_zeros(np.ones([4, 3])), {"num_classes": 5}, "num_classes=5: the rows of labels have 3"),
        (of_zeros(np.ones([4, 3])).repeat(), {}, "never ends"),
        (of_zeros(np.ones([4, 3])).take(0), {}, "holds no images"),
        (of_zeros(np.ones([4, 3])), {"crop_area": (0, 2)}, "crop_area"),
        (of_zeros(np.ones([4, 3])), {"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_datasets_that_cannot_be_meant_are_refused(data, options, reason):
    with pytest.raises(ValueError, match=reason):
        spml_tf.with_index(data, image_size=8, **options)


def test_a_class_beyond_the_last_is_refused_wherever_it_stands():
    """A folder of classes comes class by class: the first batch holds the first ones."""
    batches = spml_tf.with_index(of_zeros([0, 0, 1, 2]), image_size=8, num_classes=2)
    with pytest.raises(tf.errors.InvalidArgumentError, match="must be classes 0 to 1"):
        list(batches)


@pytest.mark.parametrize("value", [-1, 0.5, 257, np.nan])
def test_what_is_no_class_is_refused_wherever_it_stands(value):
    """As a number of a class; 257 as a byte would be class 1, -1 a row of unknown labels."""
    batches = spml_tf.with_index(of_zeros([0, 0, 1, value]), image_size=8, num_classes=2)
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"found.*{value}"):
        list(batches)


@pytest.mark.parametrize(
    ("value", "dtype", "zeros"),
    [
        (0.7, np.float32, "negative"),
        (2, np.int64, "unknown"),
        (255, np.uint8, "unknown"),
        (256, np.uint16, "negative"),
        (np.nan, np.float64, "negative"),
    ],
)
def test_other_labels_are_refused_wherever_they_stand(value, dtype, zeros):
    """As int8 0.7 and 256 would be negatives, 2 an expected positive, 255 unknown."""
    labels = np.zeros([4, 3], dtype)
    labels[3, 1] = value
    batches = spml_tf.with_index(of_zeros(labels), image_size=8, zeros=zeros)
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"labels: expected 1 .*{value}"):
        list(batches)


def test_boolean_rows_of_a_dataset():
    rows = np.eye(4, 3) == 1
    batches = spml_tf.with_index(of_zeros(rows), image_size=8, zeros="unknown", training=False)
    found = np.concatenate([labels for _, labels in batches])
    assert found.tolist() == np.where(rows, 1, -1).tolist()
