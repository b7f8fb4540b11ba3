"""Scores, missing labels, heatmaps and audits of a model and images in memory, by hand."""

from __future__ import annotations

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from parsed_html import Parsed
from PIL import Image
from saved_runs import table_rows

from spml_tf.datasets.readers import Examples
from spml_tf.evaluation import missing_labels, predictions
from spml_tf.evaluation.missing_labels import find_missing_labels, find_wrong_labels
from spml_tf.figures import heatmap_figures, network_heatmaps
from spml_tf.pages.audit import audit_labels
from spml_tf.training.model import SPMLModel

CLASSES = ("red", "green")
# The sigmoid of 3, 0.5, -2: a logit is 3 where a channel is 255 and -2 where it is 0.
HIGH, MIDDLE, LOW = 1 / (1 + np.exp(-3)), 1 / (1 + np.exp(-0.5)), 1 / (1 + np.exp(2))
# Red all over; green in the right half: (3 - 2) / 2 = 0.5; black; red and green.
SCORES = np.array([[HIGH, LOW], [LOW, MIDDLE], [LOW, LOW], [HIGH, HIGH]])
LABELS = np.array([[-1, -1], [-1, 1], [1, -1], [1, -1]], np.int8)


@keras.saving.register_keras_serializable("test_model_and_images")
class Channels(keras.layers.Layer):
    """Red and green as logits, in cells of 2 x 2 pixels, times a weight of 1."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def call(self, images):
        cells = keras.ops.average_pool(images[..., :2], 2)
        return self.scale * (cells / 51.0 - 2.0)


def network(size: int | None = 4) -> keras.Model:
    image = keras.Input((size, size, 3), name="image")
    return keras.Model(image, Channels(name="cam_logits")(image))


def photos() -> np.ndarray:
    found = np.zeros((4, 4, 4, 3), np.uint8)
    found[0, ..., 0] = 255
    found[1, :, 2:, 1] = 255
    found[3, ..., :2] = 255
    return found


def examples(**others) -> Examples:
    return Examples(("a", "b", "c", "d"), LABELS, CLASSES, images=photos(), **others)


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, number):
        rows = slice(2 * number, 2 * number + 2)
        return {"image": photos()[rows]}, LABELS[rows]


def of_files(folder) -> Examples:
    for number, photo in enumerate(photos()):
        Image.fromarray(photo).save(folder / f"{number}.png")
    paths = tuple(str(folder / f"{number}.png") for number in range(4))
    return Examples(("a", "b", "c", "d"), LABELS, CLASSES, paths=paths)


FORMS = {
    "examples": lambda folder: examples(),
    "files": of_files,
    "array": lambda folder: photos(),
    "floats": lambda folder: photos().astype(np.float32),
    "photos": lambda folder: list(photos()),
    "images alone": lambda folder: tf.data.Dataset.from_tensor_slices(photos()).batch(3),
    "images and labels": lambda folder: tf.data.Dataset.from_tensors((photos(), LABELS)),
    "dicts": lambda folder: tf.data.Dataset.from_tensors(({"image": photos()}, LABELS)),
    "PyDataset": lambda folder: Batches(),
}


@pytest.mark.parametrize("form", FORMS)
def test_images_in_any_form(form, tmp_path):
    """Green peaks in the first cell on the right; where all cells are equal the first counts."""
    images = FORMS[form](tmp_path)
    scores = predictions.predict_scores(network(), images, batch_size=3)
    np.testing.assert_allclose(scores, SCORES, rtol=1e-5)
    logits = predictions.Scorer(network(), logits=True)(images, batch_size=3)
    np.testing.assert_allclose(logits, [[3, -2], [-2, 0.5], [-2, -2], [3, 3]], rtol=1e-5)
    peaks = predictions.predict_peaks(network(), images, batch_size=3)
    np.testing.assert_array_equal(peaks[1], [[0.25, 0.25], [0.25, 0.75]])
    maps = list(predictions.predict_maps(network(), images, batch_size=3))
    np.testing.assert_allclose(maps[1][..., 1], [[-2, 3], [-2, 3]], rtol=1e-6)
    found = find_missing_labels(network(), images, LABELS, batch_size=3)
    # High scores first, then those that tie at LOW in the images' order.
    assert [(x.image, x.label) for x in found] == [(0, 0), (3, 1), (0, 1), (1, 0), (2, 1)]


def test_photos_of_any_size_are_resized():
    """Twice as large is the same picture; a network of any size takes it as it is."""
    large = [photo.repeat(2, axis=0).repeat(2, axis=1) for photo in photos()]
    scores = predictions.predict_scores(network(), [large[0], *photos()[1:]])
    np.testing.assert_allclose(scores, SCORES, rtol=1e-5)
    maps = next(predictions.predict_maps(network(None), large))
    assert maps.shape == (4, 4, 2)
    scores = predictions.predict_scores(network(None), large, image_size=4)
    np.testing.assert_allclose(scores, SCORES, rtol=1e-5)


def test_missing_and_wrong_labels_by_hand():
    found = find_missing_labels(network(), photos(), LABELS, CLASSES, "abcd", most=2)
    assert [(x.name, x.class_name, x.epochs_selected) for x in found] == [
        ("a", "red", None), ("d", "green", None),
    ]  # fmt: skip
    assert [x.score for x in found] == pytest.approx([HIGH, HIGH])
    # The annotated positives are b's green, c's red and d's red.
    found = find_wrong_labels(network(), photos(), LABELS, CLASSES, "abcd")
    assert [(x.name, x.class_name) for x in found] == [("c", "red"), ("b", "green"), ("d", "red")]
    assert [x.score for x in found] == pytest.approx([LOW, MIDDLE, HIGH])


def test_a_shuffled_dataset_that_carries_indices():
    order = np.array([2, 0, 3, 1])
    x = {"image": photos()[order], "index": order}
    data = tf.data.Dataset.from_tensor_slices((x, LABELS[order])).batch(3)
    found = find_missing_labels(network(), data, LABELS, names="abcd", most=2)
    assert [(x.image, x.name, x.label) for x in found] == [(0, "a", 0), (3, "d", 1)]
    regions = missing_labels.peak_regions(network(), data, [missing_labels.Candidate(1, 1, 0.5)])
    assert regions == [((0.25, 0.75), (0.0, 0.5, 1.0, 1.0))]  # both cells of the right half


def test_the_running_averages_of_a_model_that_was_trained():
    """One step at learning rate 0 fills rows 5, 0, 2 with the first three photos' scores; a second
    with black ones moves them to 0.8 s + 0.2 LOW. The fourth photo, row 1, was never seen."""
    model = SPMLModel(network(), num_images=6, method="an", keep_scores=True, ema_momentum=0.8)
    model.compile(optimizer=keras.optimizers.SGD(0.0))
    rows = np.array([5, 0, 2, 1])
    for images in (photos()[:3], np.zeros((3, 4, 4, 3))):
        x = {"image": images.astype(np.float32), "index": rows[:3]}
        model.fit(x, LABELS[:3], batch_size=3, shuffle=False, verbose=0)
    found = find_missing_labels(model, None, LABELS, CLASSES, index=rows)
    averages = 0.8 * SCORES[:3] + 0.2 * LOW
    expected = [(0, 0, averages[0, 0]), (0, 1, LOW), (1, 0, LOW), (2, 1, LOW)]
    assert [(x.image, x.label) for x in found] == [cell[:2] for cell in expected]
    assert [x.score for x in found] == pytest.approx([cell[2] for cell in expected], rel=1e-5)
    # Without the rows the network is asked, and the fourth photo is among the images again.
    found = find_missing_labels(model, photos(), LABELS)
    assert [(x.image, x.label) for x in found[:2]] == [(0, 0), (3, 1)]
    np.testing.assert_allclose(predictions.predict_scores(model, photos()), SCORES, rtol=1e-5)


def test_how_often_a_label_was_an_expected_positive():
    """K = 1 of 4 images; two of the three annotated positives are red: p is 8/3 and 4/3, rounded 3
    and 1. Of red a, d (annotated) and, of those that tie, b; of green d: in epochs 2 and 3."""
    model = SPMLModel(network(), num_images=4, method="en", positives_per_image=1.0)
    model.compile(optimizer=keras.optimizers.SGD(0.0))
    x = {"image": photos().astype(np.float32), "index": np.arange(4)}
    model.fit(x, LABELS, batch_size=4, shuffle=False, epochs=3, verbose=0)
    found = find_missing_labels(model, None, LABELS, index=np.arange(4))
    assert [(x.image, x.label, x.epochs_selected) for x in found] == [
        (0, 0, 2), (3, 1, 2), (1, 0, 2), (0, 1, 0), (2, 1, 0),
    ]  # fmt: skip


def shuffled(index) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensors({"image": photos(), "index": index})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((photos()[:3], LABELS), "labels of 4 images, but there are 3"),
        ((photos(), LABELS[:3]), "labels of 3 images, but there are 4"),
        ((shuffled([0, 1, 2, 4]), LABELS), "labels of 4 images, but there are 5"),
        ((shuffled([0, 1, 2, 2]), LABELS), "an index occurs twice"),
        ((photos(), LABELS[:, :1]), "labels of 1 classes, the network has 2"),
        ((photos(), 2 * LABELS), "expected 1 .positive., 0"),
        ((photos(), LABELS, ("red",)), "1 class names, the labels have the shape"),
        ((photos(), LABELS, CLASSES, "abc"), "3 names of images, the labels"),
        ((None, LABELS), "images are missing"),
        ((photos()[0], LABELS), r"expected images \[B, H, W, 3\], found shape \(4, 4, 3\)"),
        ((photos()[..., :1], LABELS), r"expected images \[B, H, W, 3\], found"),
        (([], LABELS), "images: there are none"),
        ((tf.data.Dataset.from_tensors(photos()).take(0), LABELS), "images: there are none"),
        ((tf.data.Dataset.from_tensors(photos()[:0]), LABELS), "images: there are none"),
        ((tf.data.Dataset.from_tensors(photos()).repeat(), LABELS), "repeats without end"),
    ],
)
def test_parts_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        find_missing_labels(network(), *arguments)


def test_scores_of_no_image():
    empty = tf.data.Dataset.from_tensors(photos()).take(0)
    for predict in (predictions.predict_scores, predictions.predict_peaks):
        with pytest.raises(ValueError, match="images: there are none; give at least one"):
            predict(network(), empty)
    model = SPMLModel(network(), num_images=4, method="an", keep_scores=True)
    with pytest.raises(ValueError, match="labels: of no image; give those of at least one"):
        find_missing_labels(model, None, LABELS[:0], index=np.arange(0))


def test_models_that_do_not_fit():
    flat = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten()])
    with pytest.raises(ValueError, match=r"expected a network of CAM logits .* \(None, 48\)"):
        predictions.predict_scores(flat, photos())
    with pytest.raises(
        ValueError, match="the model has no score bank; train with keep_scores=True"
    ):
        find_missing_labels(SPMLModel(network(), 4, "an"), photos(), LABELS, index=np.arange(4))
    with pytest.raises(ValueError, match="image_size is missing: the network takes"):
        predictions.predict_scores(network(None), examples())
    model = SPMLModel(network(), num_images=4, method="an", keep_scores=True)
    for index, message in (
        ([0, 1, 2, 4], r"must lie in 0\.\.3"),
        ([0, 1, 2], "expected 4 integers"),
        ([0.0, 1, 2, 3], "expected 4 integers, one an image; found float64"),
    ):
        with pytest.raises(ValueError, match=message):
            find_missing_labels(model, photos(), LABELS, index=index)


def captions(figure) -> list[str]:
    return [axis.get_title() for axis in figure.axes if axis.get_title()]


def test_heatmaps_over_given_photos():
    """b: green 0.62 before red 0.12; the CSV's numbers are those of the maps."""
    figure = network_heatmaps.draw_heatmaps(network(), [photos()[1]], CLASSES, ["b"])
    assert captions(figure) == ["b", "green: 0.62", "red: 0.12"]
    figure = network_heatmaps.draw_heatmaps(network(), photos()[:2], CLASSES, labels=LABELS[:2])
    assert captions(figure) == [
        "image 0", "red: 0.95\nunknown", "green: 0.12\nunknown",
        "image 1", "green: 0.62\nannotated", "red: 0.12\nunknown",
    ]  # fmt: skip
    (shown,) = network_heatmaps.pictures(photos()[1:2], 2)
    lines = heatmap_figures.top_heatmaps(
        [shown], network_heatmaps.heatmaps(network(), photos()[1:2]), CLASSES, 1
    )
    (row,) = heatmap_figures.numbers(lines)
    assert (row["class"], row["peak_y"], row["peak_x"]) == ("green", 0.25, 0.75)
    assert row["peak"] == pytest.approx(HIGH, rel=1e-5)


def test_a_dataset_that_shuffles_is_read_once():
    """Each photo stands beside its own score: the sigmoid of its red / 51 - 2."""
    reds = np.zeros((6, 4, 4, 3), np.float32)
    reds[..., 0] = np.reshape((0, 50, 100, 150, 200, 250), (6, 1, 1))
    data = tf.data.Dataset.from_tensor_slices(reds).shuffle(6, seed=1).batch(4)
    models = {"one": network(), "two": network()}
    figure = network_heatmaps.draw_heatmaps(models, data, ("red", "green"), top=2)
    axes = [axis for axis in figure.axes if axis.get_title()]
    told = [axis.get_title() for axis in axes if axis.get_title().startswith("red")]
    shown = [axis.images[0].get_array()[0, 0, 0] for axis in axes if "image " in axis.get_title()]
    assert len(told) == len(shown) == 12 and set(shown) == {0, 50, 100, 150, 200, 250}
    assert told == [f"red: {1 / (1 + np.exp(2 - red / 51)):.2f}" for red in shown]


def test_heatmaps_of_two_networks_show_the_same_classes():
    other = network()
    other.get_layer("cam_logits").scale.assign(-2.0)
    truth = dataclasses.replace(examples(), labels=np.array([[1, 0]] * 4, np.int8))
    figure = network_heatmaps.draw_heatmaps(
        {"one": network(), "two": other}, truth.subset([1]), CLASSES, labels=LABELS[1:2], top=2
    )
    # Both are positives, red by the full labels; the sigmoid of 4 is 0.98, of -1 0.27: red has
    # the higher mean, 0.55 and 0.45.
    assert captions(figure) == [
        "one\nb", "red: 0.12\npresent, not annotated", "green: 0.62\nannotated",
        "two\nb", "red: 0.98\npresent, not annotated", "green: 0.27\nannotated",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"top": 0}, "top=0: must be at least 1"),
        ({"class_names": ("red",)}, "1 class names, the network has 2 classes"),
        ({"names": ["a"]}, "1 names for 4 photos"),
        ({"labels": LABELS[:2]}, "2 rows of labels for 4 photos"),
    ],
)
def test_heatmaps_of_parts_that_do_not_fit(change, message):
    given = {"models": network(), "images": photos(), "class_names": CLASSES, **change}
    with pytest.raises(ValueError, match=message):
        network_heatmaps.draw_heatmaps(**given)


def test_an_audit_of_a_network_and_photos(tmp_path):
    """The full labels say that a is red and d is not green: the first candidate is right."""
    full = np.array([[1, 0], [0, 1], [1, 0], [1, 0]], np.int8)
    truth = dataclasses.replace(examples(), labels=full)
    facts = audit_labels(network(), truth, tmp_path / "o", observed=LABELS, name="mine", shown=2)
    assert {path.name for path in (tmp_path / "o").iterdir()} == {
        "missing.csv", "wrong.csv", "audit.html", "audit.json", ".written.json",
    }  # fmt: skip
    assert json.loads((tmp_path / "o" / "audit.json").read_text()) == facts
    assert (facts["scores"], facts["unknown"], facts["missing"], facts["wrong"]) == (
        "network", 5, 5, 3,
    )  # fmt: skip
    found = table_rows(tmp_path / "o" / "missing.csv")
    assert [(x["image"], x["class"], x["full_label"]) for x in found[:2]] == [
        ("a", "red", "1"), ("d", "green", "0"),
    ]  # fmt: skip
    green = table_rows(tmp_path / "o" / "wrong.csv")[1]
    assert [green[x] for x in ("image", "peak_y", "peak_x", "y1", "x1", "y2", "x2")] == [
        "b", "0.2500", "0.7500", "0.0000", "0.5000", "1.0000", "1.0000",
    ]  # fmt: skip
    page = Parsed((tmp_path / "o" / "audit.html").read_text("utf-8"))
    assert "Labels to review: mine" in page.words
    assert "The score is the network's for the class in the whole photo." in page.words
    assert len(json.loads(page.scripts["gallery-data"])["photos"]) == 4


def test_an_audit_of_running_averages(tmp_path):
    model = SPMLModel(network(), num_images=4, method="an", keep_scores=True)
    model.compile(optimizer=keras.optimizers.SGD(0.0))
    x = {"image": photos().astype(np.float32), "index": np.arange(4)}
    model.fit(x, LABELS, batch_size=4, shuffle=False, verbose=0)
    facts = audit_labels(model, examples(), tmp_path, index=np.arange(4))
    assert facts["scores"] == "running averages" and facts["precision"] == {}
    page = Parsed((tmp_path / "audit.html").read_text("utf-8"))
    assert "The score is the running average of the class's score in training." in page.words
    known = dataclasses.replace(examples(), labels=np.ones((4, 2), np.int8))
    with pytest.raises(ValueError, match="every label is known"):
        audit_labels(model, known, tmp_path)
