"""Calibrated probabilities: what is fitted, what an export and the tables of evaluate say of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import CLASSES, run
from saved_runs import seal
from scipy.optimize import brentq
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score, precision_recall_fscore_support
from sklearn.model_selection import KFold

from spml_tf import evaluate, export
from spml_tf.datasets.observed_labels import draw_observed
from spml_tf.evaluation import calibration, decision_report
from spml_tf.evaluation.average_precision import average_precision
from spml_tf.evaluation.report_table import report_table
from spml_tf.runs import decisions
from spml_tf.runs.run_folder import RunFolder


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def logit(x):
    return np.log(x) - np.log1p(-x)


def platt(labels, scores, fit_intercept=True):
    """Slope and offset by scikit-learn, of all labels together; each target t is an example of
    label 1 with the weight t and one of label 0 with 1 - t."""
    y, x = np.ravel(labels), logit(np.ravel(scores).astype(np.float64))[:, None]
    hits = y.sum()
    target = np.where(y == 1, (hits + 1) / (hits + 2), 1 / (len(y) - hits + 2))
    model = LogisticRegression(C=1e8, tol=1e-10, fit_intercept=fit_intercept)
    twice = np.concatenate([x, x]), np.repeat([1, 0], len(y))
    model.fit(*twice, sample_weight=np.concatenate([target, 1 - target]))
    slope, offset = model.coef_[0, 0], np.ravel(model.intercept_)[0] if fit_intercept else 0.0
    if slope < 0.01:  # the least slope; the best offset makes probabilities sum to the targets
        slope = 0.01
        offset = brentq(lambda b: (sigmoid(slope * x[:, 0] + b) - target).sum(), -30, 30)
    return slope, offset


def platt_of_other_folds(labels, scores):
    """Each image's scores by what is fitted to the labels of the other four folds' images."""
    found = np.empty(scores.shape)
    for kept, held in KFold(5, shuffle=True, random_state=0).split(scores):
        slope, offset = platt(labels[kept], scores[kept])
        found[held] = sigmoid(slope * logit(scores[held].astype(np.float64)) + offset)
    return found


def expected_error(labels, scores):
    """The error over ten bins of the labels that are known, in their order."""
    total, known = 0.0, labels != -1
    y, p = labels[known], scores[known].astype(np.float64)
    for low in np.arange(10) / 10:
        inside = (p >= low) & ((p < low + 0.1) if low < 0.9 else (p <= 1))
        total += abs((p[inside] - y[inside]).sum())
    return total / known.sum()


@pytest.fixture(scope="module")
def drawn():
    """3,000 images of 4 classes whose labels have the probability sigmoid(a logit(score) + b)."""
    rng = np.random.default_rng(0)
    scores = sigmoid(rng.normal(-1, 2, (3000, 4)))
    slopes, offsets = np.array([0.5, 1.0, 2.0, 0.7]), np.array([1.0, 0.0, -1.0, 2.0])
    chances = sigmoid(slopes * logit(scores) + offsets)
    return (rng.random(scores.shape) < chances).astype(np.int8), scores, slopes, offsets


def test_a_temperature_by_hand():
    """At the score 0.9 three of four are positive, at 0.1 one of four. With Platt's targets 5/6 and
    1/6 the mean at 0.9 is (3 * 5/6 + 1/6) / 4 = 2/3: sigmoid(a ln 9) = 2/3, so a ln 9 = ln 2."""
    labels = np.array([1, 1, 1, 0, 1, 0, 0, 0])[:, None]
    scores = np.array([0.9] * 4 + [0.1] * 4)[:, None]
    for rule in ("temperature", "platt"):  # by symmetry the offset is 0
        found = calibration.fit(labels, scores, rule)
        assert found.slopes[0] == pytest.approx(np.log(2) / np.log(9), abs=1e-5)
        assert found.offsets[0] == pytest.approx(0, abs=1e-5)
        np.testing.assert_allclose(found([[0.9], [0.1]])[:, 0], [2 / 3, 1 / 3], atol=1e-5)


@pytest.mark.parametrize("rule", ["temperature", "platt"])
def test_fits_equal_scikit_learns_logistic_regression(drawn, rule):
    labels, scores, *_ = drawn
    found = calibration.fit(labels, scores, rule)
    for column in range(4):
        slope, offset = platt(labels[:, column], scores[:, column], rule == "platt")
        assert found.slopes[column] == pytest.approx(slope, abs=1e-3)
        assert found.offsets[column] == pytest.approx(offset, abs=1e-3)


def test_an_image_is_calibrated_by_those_of_other_folds(drawn):
    labels, scores, *_ = (x[:300] for x in drawn)
    found = calibration.cross_validated(labels, scores, "platt")
    for column in range(4):
        one = [labels[:, column, None], scores[:, column, None]]
        np.testing.assert_allclose(found[:, [column]], platt_of_other_folds(*one), atol=1e-3)
    for image in (0, 150, 299):
        turned = labels.copy()
        turned[image] = 1 - turned[image]
        again = calibration.cross_validated(turned, scores, "platt")
        assert (again[image] == found[image]).all() and (again != found).sum() > 800


def test_platt_finds_what_labels_were_drawn_by(drawn):
    labels, scores, slopes, offsets = drawn
    found = calibration.fit(labels, scores, "platt")
    np.testing.assert_allclose(found.slopes, slopes, atol=0.15)
    np.testing.assert_allclose(found.offsets, offsets, atol=0.25)
    before = calibration.calibration_error(labels, scores)
    held = calibration.cross_validated(labels, scores, "platt")
    assert before > 0.1 > 0.02 > calibration.calibration_error(labels, held)
    np.testing.assert_allclose(
        average_precision(labels, found(scores)), average_precision(labels, scores), rtol=1e-12
    )


def test_classes_with_few_positives_are_fitted_together(drawn):
    labels, scores, *_ = (x.copy() for x in drawn)
    labels[np.flatnonzero(labels[:, 1])[9:], 1] = 0  # nine positives
    found = calibration.fit(labels, scores, "platt")
    assert found.shared.tolist() == [False, True, False, False]
    whole = calibration.fit(labels.reshape(-1, 1), scores.reshape(-1, 1), "platt")
    assert found.slopes[1] == whole.slopes[0] and found.offsets[1] == whole.offsets[0]
    alone = calibration.fit(labels[:, :1], scores[:, :1], "platt")
    assert found.slopes[0] == alone.slopes[0]
    everything = calibration.fit(labels[:9], scores[:9], "temperature")
    assert everything.shared.all() and len(set(everything.slopes)) == 1


def test_the_order_of_scores_stays_where_they_say_nothing():
    """Positives score lower than negatives: the slope is the least one, not a negative one."""
    scores = np.linspace(0.1, 0.9, 40)[:, None]
    labels = (scores < 0.5).astype(int)
    found = calibration.fit(labels, scores, "platt")
    assert found.slopes[0] == calibration.LEAST_SLOPE
    assert (np.diff(found(scores.astype(np.float32))[:, 0].astype(np.float32)) > 0).all()


def test_unknown_labels_count_as_in_every_measure(drawn):
    labels, scores, *_ = (x.copy() for x in drawn)
    hidden = np.random.default_rng(1).random(labels.shape) < 0.5
    known = np.where(hidden, -1, labels)
    found = calibration.fit(known, scores, "platt")
    kept = ~hidden[:, 0]
    alone = calibration.fit(labels[kept, :1], scores[kept, :1], "platt")
    assert found.slopes[0] == pytest.approx(alone.slopes[0], abs=1e-6)
    as_negative = calibration.fit(known, scores, "platt", "negative")
    whole = calibration.fit(np.maximum(known, 0), scores, "platt")
    np.testing.assert_allclose(as_negative.slopes, whole.slopes)
    assert calibration.calibration_error(known, scores) is not None
    half = known.copy()
    half[known[:, 1] == 1, 1] = -1  # a class without a positive is no reason not to fit the others
    alone = calibration.fit(half[:, [0, 2, 3]], scores[:, [0, 2, 3]], "platt")
    assert calibration.tells_negatives(half)
    assert (
        calibration.fit(half, scores, "platt").slopes[[0, 2, 3]].tolist() == alone.slopes.tolist()
    )
    looked = half != -1
    error = calibration.calibration_error(half[looked][:, None], scores[looked][:, None])
    assert calibration.calibration_error(half, scores) == pytest.approx(error)
    assert not calibration.tells_negatives(np.full((3, 2), -1))
    single = draw_observed(labels)
    assert calibration.calibration_error(single, scores) is None
    assert calibration.calibration_error(single, scores, "negative") > 0


def test_other_rules_are_refused():
    with pytest.raises(ValueError, match="none, temperature, platt"):
        calibration.fit([[1]], [[0.5]], "isotonic")


def test_annotated_positives_alone_calibrate_independent_classes():
    """Scores that are too low, as those of networks that take unknown labels for negatives; one
    positive of each image is annotated, and few images have none."""
    rng = np.random.default_rng(0)
    scores = sigmoid(rng.normal(-1, 2, (4000, 5)))
    chances = sigmoid(logit(scores) + 2)
    observed = draw_observed((rng.random(scores.shape) < chances).astype(np.int8))
    found = decisions.from_annotated(observed, scores)
    assert 4 * abs(found(scores) - chances).mean() < abs(scores - chances).mean()
    few = observed.copy()
    few[np.flatnonzero(few[:, 0] == 1)[9:], 0] = -1
    pairs = decisions.from_annotated(few, scores)
    assert pairs.shared.tolist() == [True, False, False, False, False]
    assert pairs.slopes[1:].min() < pairs.slopes[0] < pairs.slopes[1:].max()


def test_annotated_positives_of_low_scores_leave_the_order():
    """As where validation labels are known: the slope is the least one."""
    scores = np.linspace(0.1, 0.9, 40)[:, None] * [1, 1]
    observed = np.full((40, 2), -1, np.int8)
    observed[np.arange(24), np.arange(24) % 2] = 1
    found = decisions.from_annotated(observed, scores)
    assert found.slopes[0] == calibration.LEAST_SLOPE <= found.slopes[1]


@pytest.fixture(scope="module")
def calibrated(finished, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exports") / "model"
    words = (f"--run_dir={finished}", f"--export_dir={folder}", "--calibration=platt")
    done = run(*words, module="export")
    assert done.returncode == 0, done.stderr
    assert "3 of 3 classes have fewer than 10 validation positives: they are calib" in done.stderr
    return folder


def test_an_export_serves_calibrated_probabilities(voc, finished, calibrated):
    """In a process that knows nothing of spml_tf, through all endpoints."""
    classes = json.loads((calibrated / "classes.json").read_text())
    found = classes["calibration"]
    assert found["rule"] == "platt" and found["fitted_to"] == "validation labels"
    assert found["shared"] == list(CLASSES)
    code = (
        "import json, sys, numpy as np, tensorflow as tf\n"
        f"model = tf.saved_model.load({str(calibrated)!r})\n"
        f"names = np.load({str(finished / 'predictions_test.npz')!r})['names']\n"
        f"files = tf.constant([open({str(voc)!r} + '/' + n, 'rb').read() for n in names])\n"
        "served = model.serve_bytes(files)['probabilities']\n"
        "image = tf.cast(tf.io.decode_jpeg(files[0], dct_method='INTEGER_ACCURATE'), tf.float32)\n"
        "one = model.serve(image[None])['probabilities']\n"
        "maps = tf.reduce_mean(model.cams(image[None])['cams'], (1, 2))\n"
        "assert 'spml_tf' not in sys.modules\n"
        "print(json.dumps([x.numpy().tolist() for x in (served, one, tf.sigmoid(maps))]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    served, one, pooled = map(np.array, json.loads(done.stdout))
    with np.load(finished / "predictions_test.npz") as saved:
        plain = saved["scores"].astype(np.float64)
    slopes, offsets = (
        np.array([found[part][name] for name in CLASSES]) for part in ("slopes", "offsets")
    )
    assert abs(served - plain).max() > 0.01
    np.testing.assert_allclose(served, sigmoid(slopes * logit(plain) + offsets), atol=1e-5)
    np.testing.assert_allclose(one, served[:1], atol=1e-5)
    np.testing.assert_allclose(pooled, served[:1], atol=1e-5)


def test_thresholds_of_an_export_are_of_calibrated_scores(finished, calibrated):
    classes = json.loads((calibrated / "classes.json").read_text())
    with np.load(finished / "predictions_val.npz") as saved:
        labels, scores = saved["labels"], saved["scores"]
    slope, offset = platt(labels, scores)  # all classes have few positives
    after = sigmoid(slope * logit(scores.astype(np.float64)) + offset)
    tried = np.unique(after)
    f1 = [f1_score(labels.ravel() == 1, after.ravel() >= x) for x in tried]
    values = [classes["thresholds"][name] for name in CLASSES]
    decided = after >= tried[np.argmax(f1)]  # the threshold itself lies between two scores
    assert len(set(values)) == 1 and ((after >= values[0]) == decided).all()
    errors = classes["calibration"]["expected_calibration_error"]
    assert errors["val"]["before"] == pytest.approx(expected_error(labels, scores))
    held = platt_of_other_folds(labels, scores)
    assert errors["val"]["after"] == pytest.approx(expected_error(labels, held), abs=1e-3)
    with np.load(finished / "predictions_test.npz") as saved:
        after = sigmoid(slope * logit(saved["scores"].astype(np.float64)) + offset)
        expected = expected_error(saved["labels"], after)
    assert errors["test"]["after"] == pytest.approx(expected, abs=1e-3)
    card = (calibrated / "MODEL_CARD.md").read_text()
    assert "calibrated by Platt scaling, fitted to validation labels. 3 classes with few" in card
    assert f"{100 * errors['val']['after']:.2f} % after, cross-validated" in card


def test_an_export_without_calibration_says_so(finished, tmp_path):
    assert export.main([f"--run_dir={finished}", f"--export_dir={tmp_path / 'x'}"]) == 0
    classes = json.loads((tmp_path / "x" / "classes.json").read_text())
    assert classes["calibration"]["rule"] == "none"
    assert classes["calibration"]["expected_calibration_error"]["val"]["after"] is None
    assert "Probabilities are not calibrated." in (tmp_path / "x" / "MODEL_CARD.md").read_text()


def test_validation_labels_that_tell_of_no_negatives(finished, tmp_path, capsys):
    folder = shutil.copytree(finished, tmp_path / "run")
    with np.load(folder / "predictions_val.npz") as saved:
        arrays = dict(saved)
    arrays["labels"] = draw_observed(arrays["labels"])
    np.savez(folder / "predictions_val.npz", **arrays)
    seal(folder)
    words = [f"--run_dir={folder}", f"--export_dir={tmp_path / 'x'}"]
    assert export.main([*words, "--calibration=temperature"]) == 1
    error = capsys.readouterr().err
    assert "--calibration=temperature: needs validation labels that tell of negatives" in error
    assert not (tmp_path / "x").exists()
    assert export.main([*words, "--calibration=platt"]) == 0
    assert "estimated from which positives were annotated" in capsys.readouterr().err
    found = json.loads((tmp_path / "x" / "classes.json").read_text())["calibration"]
    assert found["rule"] == "platt" and found["fitted_to"] == "annotated positives"
    assert found["expected_calibration_error"]["val"] == {"before": None, "after": None}
    assert found["expected_calibration_error"]["test"]["after"] >= 0  # labelled in full
    expected = decisions.from_annotated(arrays["labels"], arrays["scores"])
    np.testing.assert_allclose(list(found["slopes"].values()), expected.slopes)
    assert "fitted to annotated positives" in (tmp_path / "x" / "MODEL_CARD.md").read_text()


def test_the_error_is_of_the_calibration_in_use(finished, tmp_path):
    """Where a table counts unknown labels otherwise than the run, whose calibration it is."""
    folder = shutil.copytree(finished, tmp_path / "run")
    with np.load(folder / "predictions_val.npz") as saved:
        arrays = dict(saved)
    full, scores = arrays["labels"], arrays["scores"]

    def after(labels: np.ndarray) -> float | None:
        np.savez(folder / "predictions_val.npz", **{**arrays, "labels": labels})
        seal(folder)
        found = decisions.decisions(RunFolder(folder), "f1", "platt")
        report = decisions.report(found, "val", labels, scores, "skip", "negative")
        return report["calibration"]["expected_calibration_error"]["after"]

    partly = full.copy()
    partly[0][full.sum(axis=0) < len(full) - 1] = -1
    held = calibration.cross_validated(partly, scores, "platt")
    expected = calibration.calibration_error(partly, held, "negative")
    assert after(partly) == pytest.approx(expected)
    assert after(draw_observed(full)) is None  # estimated from what was annotated


def test_low_scores_are_told_apart():
    """As in an export, whose network has the calibration inside: sigmoid(0.3 * -25)."""
    none = np.zeros(1, bool)
    found = calibration.Calibration("platt", np.array([0.3]), np.zeros(1), none)
    scores = 1 / (1 + np.exp([[25.0], [30.0]]))
    np.testing.assert_allclose(found(scores)[:, 0], 1 / (1 + np.exp([7.5, 9.0])), rtol=1e-6)


@pytest.mark.parametrize("rule", ["skip", "zero"])
def test_decisions_equal_scikit_learns(rule):
    rng = np.random.default_rng(0)
    scores, names = rng.random((40, 4)), ("a", "b", "c", "d")
    labels = (rng.random((40, 4)) < 0.3).astype(int)
    labels[:, 3] = 0
    cuts = np.array([0.5, 0.2, 1.1, 0.5])  # class c is never decided for
    found = decision_report.decision_report(labels, scores, cuts, names, rule)
    decided = (scores >= cuts).astype(int)
    expected = precision_recall_fscore_support(labels, decided, zero_division=0)[:3]
    columns = slice(3) if rule == "skip" else slice(4)
    for name, values in zip(("precision", "recall", "f1"), expected, strict=True):
        np.testing.assert_allclose(list(found[name].values())[:3], 100 * values[:3])
        assert found[name]["d"] is None
        assert found["macro"][name] == pytest.approx(100 * values[columns].mean())
    micro = precision_recall_fscore_support(labels, decided, average="micro")[:3]
    expected_ap = average_precision_score(labels, scores, average="micro")
    np.testing.assert_allclose(list(found["micro"].values()), 100 * np.array([expected_ap, *micro]))


def test_unknown_labels_are_no_decisions():
    """Three images; the unknown one is decided for, and counts neither way."""
    found = decision_report.decision_report([[1], [0], [-1]], [[0.9], [0.1], [0.8]], [0.5], ["cat"])
    assert found["precision"] == found["recall"] == {"cat": 100.0}
    nothing = decision_report.decision_report([[0], [0]], [[0.9], [0.1]], [0.5], ["cat"])
    assert nothing["f1"] == {"cat": None} and nothing["macro"]["f1"] is None
    assert nothing["micro"] == dict.fromkeys(("ap", "precision", "recall", "f1"))


def test_evaluate_prints_a_table(finished, capsys):
    words = [f"--run_dir={finished}", "--thresholds=0.5"]
    done = run(*words, "--format=table", module="evaluate")
    assert done.returncode == 0, done.stderr
    assert evaluate.main(words) == 0
    report = json.loads(capsys.readouterr().out)
    with np.load(finished / "predictions_test.npz") as saved:
        labels, scores = saved["labels"], saved["scores"]
    parts = precision_recall_fscore_support(labels, scores >= 0.5, zero_division=0)
    head, rule, *rows, last_rule, macro, micro = done.stdout.splitlines()
    assert head.split() == "class positives AP precision recall F1 threshold".split()
    assert set(rule) == {"-"} and last_rule == rule and len(rows) == len(CLASSES)
    assert len({len(line) for line in (head, rule, *rows)}) == 1
    for column, (name, row) in enumerate(zip(CLASSES, rows, strict=True)):
        assert report["f1"][name] == pytest.approx(100 * parts[2][column], abs=1e-4)
        values = [100 * parts[x][column] for x in range(3)]
        expected = [name, str(labels[:, column].sum()), f"{report['ap'][name]:.2f}"]
        assert row.split() == [*expected, *(f"{x:.2f}" for x in values), "0.5000"]
    assert macro.split()[:3] == ["macro", str(labels.sum()), f"{report['map']:.2f}"]
    assert micro.split()[0] == "micro" and len(micro.split()) == 6
    assert report["calibration"]["rule"] == "none"


def test_numbers_in_json_are_rounded(finished, capsys):
    assert evaluate.main([f"--run_dir={finished}", "--thresholds=f1", "--calibration=platt"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"\.\d{3}", text) and not re.search(r"\.\d{5}", text)
    found = json.loads(text)
    with np.load(finished / "predictions_val.npz") as saved:
        slope, offset = platt(saved["labels"], saved["scores"])
    with np.load(finished / "predictions_test.npz") as saved:
        scaled = sigmoid(slope * logit(saved["scores"].astype(np.float64)) + offset)
        error = expected_error(saved["labels"], scaled)
    after = found["calibration"]["expected_calibration_error"]["after"]
    assert after == pytest.approx(error, abs=1e-3)


def test_the_error_of_validation_is_cross_validated(finished, capsys):
    words = [f"--run_dir={finished}", "--split=val", "--thresholds=f1", "--calibration=platt"]
    assert evaluate.main(words) == 0
    found = json.loads(capsys.readouterr().out)["calibration"]["expected_calibration_error"]
    with np.load(finished / "predictions_val.npz") as saved:
        held = platt_of_other_folds(saved["labels"], saved["scores"])
        expected = expected_error(saved["labels"], held)
    assert found["after"] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--calibration=platt"], "--calibration=platt: calibrates decisions; give --thresholds"),
        (["--thresholds=best"], "--thresholds: must be f1, count, precision:P"),
        (
            ["--thresholds=f1", "--probabilities=softmax"],
            "--thresholds=f1: thresholds are of sigmoid scores",
        ),
    ],
)
def test_decisions_that_cannot_be_scored(finished, capsys, words, says):
    assert evaluate.main([f"--run_dir={finished}", *words]) == 1
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_a_table_of_an_unfinished_run_has_no_decisions(finished, tmp_path, capsys):
    folder = shutil.copytree(finished, tmp_path / "run")
    (folder / "metrics.json").unlink()
    (folder / "SHA256SUMS").unlink()
    assert evaluate.main([f"--run_dir={folder}", "--format=table"]) == 0
    out, err = capsys.readouterr()
    assert "note: the table shows no decisions: the run is not finished" in err
    assert out.splitlines()[0].split() == ["class", "positives", "AP"]


def test_columns_are_aligned_whatever_the_names():
    names = ("cat", "\x1b[2Jcow", "猫")
    known = {name: {"positives": 10, "negatives": 2, "unknown": 0} for name in names}
    table = report_table({"known": known, "ap": dict.fromkeys(names), "map": None})
    lines = table.splitlines()
    assert "\x1b" not in table and all(line.endswith("   -") for line in lines[2:5])
    assert len(lines[2]) == len(lines[3]) == len(lines[4]) + 1  # two columns of a terminal


def test_a_score_that_equals_its_threshold_decides():
    """A score that equals the threshold decides."""
    found = decision_report.decision_report([[1], [0]], [[0.5], [0.4]], [0.5], ["cat"])
    assert found["recall"] == found["precision"] == {"cat": 100.0}


def test_the_micro_mean_leaves_unknown_labels_out():
    """The unknown label, scored highest, is left out of the micro mean's ranking too."""
    found = decision_report.decision_report([[1], [0], [-1]], [[0.9], [0.1], [0.95]], [0.5], ["x"])
    assert found["micro"]["ap"] == 100.0


def test_the_least_slope():
    """Positives score lowest: the slope is the least one, 0.01."""
    labels, scores = np.repeat([[1], [0]], 10, axis=0), np.repeat([[0.1], [0.9]], 10, axis=0)
    assert calibration.fit(labels, scores, "platt").slopes[0] == pytest.approx(0.01)


def test_a_class_of_ten_positives_is_calibrated_by_itself_in_folds_too():
    """Also in folds that hold eight or nine of them."""
    rng = np.random.default_rng(0)
    scores = rng.random((60, 2))
    labels = (rng.random((60, 2)) < scores**2).astype(int)
    labels[:, 0] = 0
    labels[np.argsort(scores[:, 0])[::-6], 0] = 1
    assert labels[:, 0].sum() == 10
    both = calibration.cross_validated(labels, scores, "platt")
    alone = platt_of_other_folds(labels[:, :1], scores[:, :1])
    np.testing.assert_allclose(both[:, 0], alone[:, 0], atol=1e-3)
