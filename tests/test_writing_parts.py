"""The worked example of docs/writing_parts.md, executed, and trained with."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from spml_tf import SPMLModel, losses, networks, training
from spml_tf.datasets import readers
from spml_tf.training import methods, terms

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "writing_parts.md"


def blocks() -> list[str]:
    """The page's Python, with the files that it includes."""
    found = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    return [re.sub(r'--8<-- "(.*)"', lambda x: (ROOT / x[1]).read_text(), x) for x in found]


@pytest.fixture
def example(monkeypatch):
    for place, name in (
        (methods, "METHODS"),
        (methods, "ADDITIONS"),
        (networks, "NETWORKS"),
        (readers, "READERS"),
    ):
        monkeypatch.setattr(place, name, dict(getattr(place, name)))
    names: dict[str, object] = {"__name__": "writing_parts"}
    for code in blocks():
        exec(code, names)
    return names


def test_the_page_shows_every_example():
    shown = "".join(blocks())
    files = sorted((ROOT / "docs" / "examples").glob("*.py"))
    assert len(files) == 5 and all(file.read_text() in shown for file in files)


def test_it_trains(example):
    images = np.random.default_rng(0).uniform(0, 255, (6, 32, 32, 3)).astype(np.float32)
    labels = np.where(np.arange(3) == np.arange(6)[:, None] % 3, 1, -1).astype(np.int8)
    by_name = SPMLModel(
        networks.small_residual_cam(3, image_size=32, width=16),
        6,
        method="half_negative+scl",
    )
    label_term = by_name.terms[0]
    assert isinstance(label_term, terms.LabelTerm)
    assert isinstance(label_term.loss, example["HalfNegative"])
    for model in (by_name, example["model"]):
        assert isinstance(model, SPMLModel)
        model.compile("adam")
        batches = ({"image": images, "index": np.arange(6)}, labels)
        data = tf.data.Dataset.from_tensor_slices(batches).batch(3)
        values = model.fit(data, epochs=4, verbose=0).history["classification_loss"]
        assert values[-1] < values[0]


def test_state_with_a_row_an_image_is_a_table():
    """In host memory, written in place and saved in blocks; other weights stay Keras' own."""

    class Counting(training.Rule):
        def prepare(self, facts):
            self.other = self.state("other", (2,), "float32", 3)
            self.rows = self.state("rows", (facts.num_images, 2), "int64", -1, row_per_image=True)

    def made() -> Counting:
        rule = Counting()
        rule.facts = training.Facts(num_images=5, num_classes=4, grid=2)
        rule.prepare(rule.facts)
        return rule

    rule, other = made(), made()
    assert [x.name for x in rule.weights] == ["other", "rows"]
    (table,) = rule.tables
    assert table.weight is rule.rows and "CPU:0" in rule.rows.value.device
    rule.write(rule.rows, tf.constant([4, 1], tf.int64), tf.constant([[1.0, 2.0], [3.0, 4.0]]))
    rule.other.assign([5, 6])
    stored = {}
    rule.save_own_variables(stored)
    assert stored["1"].tolist() == [[-1, -1], [3, 4], [-1, -1], [-1, -1], [1, 2]]
    other.load_own_variables(stored)
    for one, two in zip(rule.weights, other.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), two.numpy())


@pytest.mark.parametrize("reads", [True, False])
def test_a_part_is_told_epoch_and_score_bank(reads):
    """Where none of the parts reads the bank there is none."""
    told = []

    class Listening(training.Rule):
        needs_scores = reads

        def on_epoch(self, epoch, scores):
            told.append((epoch, scores))

    network = networks.small_residual_cam(3, image_size=32, width=16)
    recipe = training.Recipe(terms=(losses.ExpectedNegative(),), rules=(Listening(),))
    model = SPMLModel(network, 2, method=recipe)
    model.compile("sgd")
    for epoch in (1, 2):
        model.begin_epoch(epoch)
    assert (model.ema_scores is None) is not reads
    assert told == [(1, model.ema_scores), (2, model.ema_scores)]
