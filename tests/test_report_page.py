"""What the report's page is made of: escaping, curves, tables, photos, colours."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from parsed_html import Parsed
from PIL import Image

from spml_tf import labels
from spml_tf.datasets.readers import Examples
from spml_tf.pages import html_page, line_charts, network_photos, report_comparison, report_sections
from spml_tf.runs.settings import Settings, resolve

HISTORY = [
    {"epoch": "1", "loss": "0.5", "val_loss": "0.75", "map": "0.1", "val_map": "0.2"},
    {"epoch": "2", "loss": "0.25", "val_loss": "nan", "map": "0.3", "val_map": ""},
    {"epoch": "4", "loss": "0.125", "val_loss": "0.5", "map": "0.5", "val_map": "0.4",
     "selection_precision": "0.9", "selection_recall": "0.6", "selected": "7", "seconds": "3.1"},
]  # fmt: skip


@given(st.text(st.characters(exclude_characters="\r\0", exclude_categories=("Cs",))))
def test_text_is_never_markup(value):
    """A parser finds the text again, between elements, in an attribute and in embedded JSON."""
    found = Parsed(f'<p title="{html_page.text(value)}">{html_page.text(value)}</p>')
    assert (found.tags, found.attributes, found.words) == (["p"], [("title", value)], value)
    found = Parsed(html_page.data_element("data", {value: [value]}))
    assert found.tags == ["script"] and json.loads(found.scripts["data"]) == {value: [value]}


def test_page_allows_its_own_script_only():
    page = html_page.page("a < b", "<p>x</p>", "let a = 1;", "p { margin: 0 }")
    digest = base64.b64encode(hashlib.sha256(b"let a = 1;").digest()).decode()
    policy = dict(re.findall(r'http-equiv="(.*?)" content="(.*?)"', page))
    assert f"script-src 'sha256-{digest}';" in policy["Content-Security-Policy"]
    assert "default-src 'none'" in policy["Content-Security-Policy"]
    assert "<title>a &lt; b</title>" in page and page.startswith("<!DOCTYPE html>")
    assert "p { margin: 0 }" in page and "<script>let a = 1;</script>" in page


@pytest.mark.parametrize(
    ("shape", "side", "expected"), [((40, 80), 20, (20, 10)), ((8, 6), 99, (6, 8))]
)
def test_photos_are_reduced_never_enlarged(shape, side, expected):
    image = np.full((*shape, 3), (200, 100, 50), np.uint8)
    kind, content = html_page.photo_uri(image, side).split(",")
    assert kind == "data:image/jpeg;base64"
    picture = Image.open(io.BytesIO(base64.b64decode(content)))
    assert picture.size == expected
    np.testing.assert_allclose(np.asarray(picture)[2, 2], (200, 100, 50), atol=3)


def test_numbers_become_bytes():
    content = html_page.quantised(np.array([[0.0, 0.2], [1.0, 1.5], [-1.0, 0.6]]))
    assert list(base64.b64decode(content)) == [0, 51, 255, 255, 0, 153]
    table = base64.b64decode(html_page.colour_table())
    assert len(table) == 768
    assert tuple(table[:3]) == (68, 1, 84) and tuple(table[-3:]) == (253, 231, 37)


def test_charts_of_a_run():
    """mAP in percent, training and validation together; gaps where there is no number."""
    charts = line_charts.run_charts(HISTORY)
    found = {c.title: {s.name: s.values for s in c.series} for c in charts}
    assert found == {
        "mAP (%)": {
            "training, on the observed labels": (10.0, 30.0, 50.0),
            "validation": (20.0, None, 40.0),
        },
        "Loss, all terms": {"training": (0.5, 0.25, 0.125), "validation": (0.75, None, 0.5)},
        "Expected positives: precision and recall": {
            "precision": (None, None, 0.9),
            "recall": (None, None, 0.6),
        },
        "Number of expected positives": {"expected positives": (None, None, 7.0)},
    }
    assert list(found)[0] == "mAP (%)"
    assert all(chart.epochs == (1, 2, 4) for chart in charts)


def test_every_loss_term_has_a_chart():
    row = {"epoch": "1", "loss": "3", "classification_loss": "1", "new_loss": "2", "seconds": "9"}
    titles = [chart.title for chart in line_charts.run_charts([row])]
    assert titles == ["Loss, all terms", "Classification loss", "New loss"]


def test_charts_of_several_runs():
    """Runs of other lengths and with other columns share the axes."""
    other = [{"epoch": "3", "loss": "9", "val_map": "0.8"}]
    charts = line_charts.comparison_charts({"a": HISTORY, "b": other})
    found = {c.title: {s.name: s.values for s in c.series} for c in charts}
    assert all(chart.epochs == (1, 2, 3, 4) for chart in charts)
    assert charts[0].title == "mAP (%), validation"
    assert found["mAP (%), validation"] == {
        "a": (20.0, None, None, 40.0), "b": (None, None, 80.0, None)
    }  # fmt: skip
    assert found["Loss, all terms, training"]["b"] == (None, None, 9.0, None)
    assert found["mAP (%), training"] == {"a": (10.0, 30.0, None, 50.0)}


def test_curves_of_many_runs_are_told_apart():
    series = tuple(line_charts.Series(f"run {i}", (float(i), 1.0)) for i in range(18))
    drawn = line_charts.figure(line_charts.Chart("t", (1, 2), series), 0)
    styles = re.findall(r'class="curve ([^"]+)" d="M44', drawn)
    assert len(styles) == len(set(styles)) == 18
    assert [styles[i] for i in (0, 6, 12)] == ["s1", "s1 again1", "s1 again2"]


def test_a_curve_is_drawn_in_place():
    """The frame reaches from x 44 to 350 and, of 0 to 10 here, from y 166 up to 10."""
    series = (line_charts.Series("a", (0.0, 10.0, None, 5.0)),)
    drawn = line_charts.figure(line_charts.Chart("t", (1, 2, 3, 4), series), 0)
    assert 'class="curve s1" d="M44.0 166.0L146.0 10.0M350.0 88.0"' in drawn
    assert drawn.count("<circle") == 1 and 'cx="350.0" cy="88.0"' in drawn
    (reading,) = line_charts.readings([line_charts.Chart("t", (1, 2, 3, 4), series)])
    assert reading["x"] == [44, 146, 248, 350]
    assert reading["series"] == [{"name": "a", "values": [0, 10, None, 5]}]


def test_a_chart_in_words():
    series = (line_charts.Series("a", (3.0, None, 1.0, 2.0)),)
    assert line_charts.describe(line_charts.Chart("Loss", (1, 2, 3, 4), series)) == (
        "Loss by epoch, 1 to 4. a: 3 at epoch 1, 2 at epoch 4, lowest 1 at 3, highest 3 at 1."
    )


def test_flags_that_differ_from_their_defaults():
    """The head's rate follows the backbone's, the selection the number of epochs."""
    assert report_sections.differing(resolve(Settings())) == {}
    given = resolve(Settings(dataset="digits", learning_rate=0.5, epochs=8, method="an", seed=0))
    found = report_sections.differing(given)
    assert found == {"learning_rate": 2e-3, "epochs": 50, "method": "en+scl"}


def test_tables_hold_what_sorting_needs():
    rows = [["<a>", 1.5, None], ["b", report_sections.Difference(-0.25), 3]]
    columns = [("name", False), ("one", True), ("two", True)]
    found = Parsed(report_sections.table("all", columns, rows, sortable=True))
    assert "<a>" in found.words and "a" not in found.tags
    assert found.tags.count("button") == 3
    values = [value for name, value in found.attributes if name == "data-value"]
    assert values == ["1.5", "-0.25", "3"]
    assert "1.50\u2013" in found.words and "\u22120.253" in found.words


def test_comparison_subtracts_the_first_run():
    settings = {
        "a": resolve(Settings(dataset="digits")),
        "b": resolve(Settings(dataset="digits", method="an")),
    }
    part = {"a": {"x": 50.0, "y": None}, "b": {"x": 47.5, "y": 3.0}}
    metrics = {
        name: {"best_epoch": 1, "val": {"map": 9.0, "ap": ap}, "test": {"map": 8.0, "ap": ap}}
        for name, ap in part.items()
    }
    truth = [[1, 0]] * 5 + [[-1, 0]]
    tables = report_comparison.tables(
        settings, metrics, ["x", "y"], labels.known_counts(truth), "test"
    )
    assert re.findall(r'<th scope="row">(--\w+)', tables) == ["--method"]
    rows = re.findall(r'<th scope="row">[xy]</th>.*?</tr>', tables)
    values = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in rows]
    assert values == [
        ["5", "0", "1", "50.00", "47.50", "\u22122.50"],
        ["0", "6", "0", "\u2013", "3.00", "\u2013"],
    ]


def wide_network(classes: int) -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    outputs = keras.layers.Conv2D(classes, 4, strides=4)(inputs)
    return keras.Model(inputs, keras.layers.Rescaling(0.01)(outputs))


@pytest.mark.parametrize("classes", [5, 130])
def test_photos_hold_their_heatmaps(classes):
    """Against the network's own output; of many classes the 20 highest and the labelled."""
    keras.utils.set_random_seed(0)
    network = wide_network(classes)
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    labels = np.zeros((3, classes), np.int8)
    logits = network(images.astype("float32")).numpy()
    scores = 1 / (1 + np.exp(-logits.mean(axis=(1, 2))))
    lowest = scores.argmin(axis=1)
    labels[np.arange(3), lowest] = 1
    names = tuple(f"c{i}" for i in range(classes))
    examples = Examples(("a", "b", "c"), labels, names, images=images)
    for row, found in enumerate(network_photos.photos(network, examples, 8, 2)):
        np.testing.assert_allclose(found.scores, scores[row], rtol=1e-5)
        assert found.name == "abc"[row] and found.labelled == (lowest[row],)
        highest = set(np.argsort(-scores[row])[:20].tolist()) | {int(lowest[row])}
        assert set(found.classes) == (set(range(classes)) if classes == 5 else highest)
        maps = np.frombuffer(base64.b64decode(found.maps), np.uint8).reshape(-1, 2, 2)
        expected = 1 / (1 + np.exp(-logits[row][..., list(found.classes)]))
        np.testing.assert_allclose(maps / 255, np.moveaxis(expected, -1, 0), atol=0.51 / 255)
    chosen = network_photos.photos(network, examples, 8, 2, classes=[[3], [4, 1], [0]])
    assert [photo.classes for photo in chosen] == [(3,), (4, 1), (0,)]
    assert network_photos.photos(network, examples.subset([]), 8, 2) == []


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2.1)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_contrast_suffices(scheme):
    """WCAG AA: 4.5 to 1 for text, 3 to 1 for curves."""
    block = re.findall(r":root \{(.*?)\}", html_page.asset("page.css"), re.S)[scheme]
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", block))
    pairs = [
        (front, back, 4.5) for front in ("text", "quiet", "accent") for back in ("ground", "raised")
    ]
    pairs += [(f"c{i}", "ground", 3.0) for i in range(1, 7)] + [("on-accent", "accent", 4.5)]
    for front, back, least in pairs:
        light, dark = sorted((luminance(colours[front]), luminance(colours[back])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= least, (front, back)
