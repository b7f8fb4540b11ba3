"""Validation labels that are partly known: measures look at the known ones, everywhere alike."""

from __future__ import annotations

import itertools
import json
import re
import statistics
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from conftest import run
from hypothesis import given, settings
from hypothesis import strategies as st
from miniature import write_photo_tables
from saved_runs import table_rows
from sklearn.metrics import average_precision_score, f1_score

from spml_tf import labels as lab
from spml_tf.banks import ema_bank
from spml_tf.datasets.settings import UNKNOWN_COUNTS_AS
from spml_tf.datasets.split_notes import perfect_mean_average_precision
from spml_tf.evaluation import average_precision, bootstrap, measures, thresholds
from spml_tf.training.options import ModelOptions

BEST_F1 = thresholds.parse_rule("f1")
CLASSES = ("red", "green", "blue")
# Of red some labels are known of both kinds, of green only positives, of blue all.
VAL = [
    ["1", "", "0"],
    ["0", "1", "1"],
    ["", "", "0"],
    ["1", "1", "1"],
    ["", "", "0"],
    ["0", "", "1"],
]


def random_labels(rng, images, classes):
    truth = rng.choice([1, 0, -1], (images, classes), p=rng.dirichlet([1.0, 1.0, 1.0]))
    return truth.astype(np.int8)


def kept_labels(truth, rule):
    """Which labels of a class the rule leaves: all, where one kind is not known at all."""
    both = (truth == 1).any() and (truth == 0).any()
    return truth != -1 if rule == "nothing" and both else np.ones(len(truth), bool)


def expected_precision(truth, scores, rule):
    """Of one class, by scikit-learn on the labels that the rule leaves."""
    kept = kept_labels(truth, rule)
    found = truth[kept] == 1
    return average_precision_score(found, scores[kept]) if found.any() else np.nan


@settings(max_examples=60)
@given(
    st.integers(1, 40), st.integers(1, 5), st.sampled_from(lab.UNKNOWN_COUNTS_AS),
    st.integers(0, 9999),
)  # fmt: skip
def test_precision_is_over_the_known_labels(images, classes, rule, seed):
    rng = np.random.default_rng(seed)
    truth, scores = random_labels(rng, images, classes), rng.integers(0, 9, (images, classes)) / 9
    found = average_precision.average_precision(truth, scores, rule)
    expected = [expected_precision(*pair, rule) for pair in zip(truth.T, scores.T, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    metric = average_precision.MeanAveragePrecision(unknown_counts_as=rule)
    metric.update_state(truth, scores)
    mean = np.nanmean(expected) if (truth == 1).any() else np.nan
    assert metric.result() == pytest.approx(mean, nan_ok=True, abs=1e-6)
    with mock.patch.object(thresholds, "FEW", 1):  # each class with a positive by itself
        found = thresholds.choose(truth, scores, BEST_F1, unknown_counts_as=rule)
    for column in np.flatnonzero(~found.shared):
        kept = kept_labels(truth[:, column], rule)
        own, positive = scores[kept, column], truth[kept, column] == 1
        f1 = [f1_score(positive, own >= x) for x in np.unique(own)]
        assert f1_score(positive, own >= found.values[column]) == pytest.approx(max(f1))


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(1, 4), st.integers(0, 9999))
def test_complete_labels_do_not_depend_on_the_rule(images, classes, seed):
    rng = np.random.default_rng(seed)
    truth, scores = rng.integers(0, 2, (images, classes)), rng.random((images, classes))
    for measure in (
        average_precision.average_precision,
        lambda *given, **rule: thresholds.choose(*given, BEST_F1, **rule).values,
    ):
        one, other = (measure(truth, scores, unknown_counts_as=x) for x in lab.UNKNOWN_COUNTS_AS)
        np.testing.assert_array_equal(one, other)


def test_bootstrap_and_sizes_leave_unknown_labels_out():
    """The unknown image between positive and negative is as if it were not there."""
    truth = np.array([[1], [-1], [0], [1]])
    own, base = np.array([[0.9], [0.8], [0.2], [0.1]]), np.array([[0.1], [0.9], [0.5], [0.3]])
    edges, sizes = np.array([0.0, 1.0]), np.array([[0.5], [np.nan], [np.nan], [0.2]])
    by_size = measures.average_precision_by_size(truth, own, sizes, edges)
    assert by_size.tolist() == [[pytest.approx((1 + 2 / 3) / 2)]]
    negative = measures.average_precision_by_size(truth, own, sizes, edges, "negative")
    assert negative.tolist() == [[pytest.approx((1 + 2 / 4) / 2)]]
    # Whichever images are drawn, two rankings that differ in the unknown image only are alike.
    moved = base.copy()
    moved[1] = 0.0
    assert bootstrap.difference_interval(truth, [(base, moved)], 50) == (0.0, 0.0)
    low, _ = bootstrap.difference_interval(truth, [(base, moved)], 50, unknown_counts_as="negative")
    assert low < 0


def test_what_a_perfect_network_would_show():
    """A network without a mistake ranks T = 6 first, of which each P = 2 may be the known ones."""
    scores, found = -np.arange(20.0)[:, None], []
    for known in itertools.combinations(range(6), 2):
        truth = np.full((20, 1), -1)
        truth[list(known)] = 1
        found.append(average_precision.average_precision(truth, scores)[0])
    expected = perfect_mean_average_precision(truth, 3.0)
    assert statistics.mean(found) == pytest.approx(expected, abs=1e-12)
    assert perfect_mean_average_precision([[1], [0], [-1]], 3.0) == 1.0
    assert 0.5 < perfect_mean_average_precision([[1], [0], [-1]], 2.0, "negative") < 1.0
    assert np.isnan(perfect_mean_average_precision([[0]], 2.0))
    with pytest.raises(ValueError, match="unknown_counts_as must be 'nothing' or 'negative'"):
        lab.counted_labels([[1]], "positive")


def test_flags_take_what_the_functions_take():
    """Their modules load without NumPy and Keras, those of labels and banks do not."""
    assert UNKNOWN_COUNTS_AS == lab.UNKNOWN_COUNTS_AS
    assert ModelOptions.declared()["bank_dtype"].choices == ema_bank.DTYPES


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run on a folder whose validation labels are `VAL`; the notes are in notes.txt."""
    root = tmp_path_factory.mktemp("partly")
    train = [["1", "0", ""], ["", "1", "0"], ["0", "", "1"]] * 4
    write_photo_tables(root, CLASSES, {"train": train, "val": VAL}, seed=1)
    done = run(
        "--dataset=folder", f"--data_dir={root}", "--train_csv=train.csv", "--val_csv=val.csv",
        "--network=small_residual", "--weights=none", "--image_size=32", "--epochs=1",
        "--batch_size=4", "--threads=1", "--method=an", "--positives_per_image=1.5",
        f"--output_dir={root / 'run'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (root / "notes.txt").write_text(done.stderr)
    return root / "run"


def saved_precisions(folder, rule):
    saved = np.load(folder / "predictions_val.npz")
    columns = zip(saved["labels"].T, saved["scores"].T, strict=True)
    return [100 * expected_precision(truth, scores, rule) for truth, scores in columns]


def test_training_and_evaluate_agree(trained):
    """The epochs' figures, metrics.json, evaluate: the same rule, the one of the run."""
    metrics = json.loads((trained / "metrics.json").read_text())
    expected = saved_precisions(trained, "nothing")
    assert list(metrics["val"]["ap"].values()) == pytest.approx(expected)
    history = table_rows(trained / "history.csv")
    best = history[metrics["best_epoch"] - 1]
    assert 100 * float(best["val_map"]) == pytest.approx(metrics["val"]["map"], abs=1e-4)
    assert metrics["val"]["known"]["red"] == {"positives": 2, "negatives": 2, "unknown": 2}
    assert metrics["val"]["unknown_as_negative"] == ["green"]
    done = run(f"--run_dir={trained}", "--split=val", module="evaluate")
    report = json.loads(done.stdout)
    for name, value in metrics["val"].items():  # evaluate prints four digits
        near = {"map": 1e-4, "ap": 1e-4}.get(name)
        assert report[name] == (pytest.approx(value, abs=near) if near else value)
    flag = "--unknown_counts_as=negative"
    done = run(f"--run_dir={trained}", "--split=val", flag, module="evaluate")
    report, expected = json.loads(done.stdout), saved_precisions(trained, "negative")
    assert list(report["ap"].values()) == pytest.approx(expected, abs=1e-4)
    assert report["unknown_as_negative"] == ["red", "green"]


def test_the_note_says_by_how_much(trained):
    """Of red two of four known and of green two of six; K = 1.5 of 6 photos are 9, 7 are known.

    Red and blue are over known labels. Of green round(2 * 9 / 7) = 3 are true: (P - 1) / (T - 1) =
    1/2 and H_3 = 11/6, so 1/2 + 1/2 * 11/18 = 0.8056; the mean with two 1s is 93.5%.
    """
    notes = (trained.parent / "notes.txt").read_text()
    assert (
        "note: validation labels are incomplete (66.7% are known): unknown labels count as "
        "negatives in 1 of 3 classes, of which no negative is known; with "
        "--positives_per_image=1.5 a network without a mistake would show an mAP of 93.5%, not 100%"
    ) in notes


def test_nothing_is_measured_on_training_photos(trained):
    """Their labels are incomplete by design; check says so of the validation photos alone."""
    tables = "--train_csv=train.csv", "--val_csv=val.csv"
    done = run("check", "--dataset=folder", f"--data_dir={trained.parent}", *tables, module="data")
    assert "note: val labels are incomplete (66.7% are known)" in done.stderr
    assert "train labels" not in done.stderr


def test_export_and_report_count_known_labels(trained, tmp_path):
    done = run(f"--run_dir={trained}", f"--export_dir={tmp_path / 'out'}", module="export")
    assert done.returncode == 0, done.stderr
    saved = np.load(trained / "predictions_val.npz")
    rule = thresholds.parse_rule("f1")
    expected, _ = thresholds.choose(saved["labels"], saved["scores"], rule)
    classes = json.loads((tmp_path / "out" / "classes.json").read_text())
    assert list(classes["thresholds"].values()) == expected.tolist()
    card = (tmp_path / "out" / "MODEL_CARD.md").read_text()
    assert re.search(r"^\| red \| \d+\.\d\d \| [\d.]+ \| 2 \| 2 \| 2 \|$", card, re.M)
    done = run(f"--run_dir={trained}", "--images=0", "--candidates=0", module="report")
    assert done.returncode == 0, done.stderr
    row = re.search(r'<th scope="row">green</th>(.*?)</tr>', (trained / "report.html").read_text())[
        1
    ]
    assert re.findall(r"<td[^>]*>(.*?)</td>", row)[:3] == ["2", "0", "4"]
