"""Differences between rows of a plan: by hand, and against scikit-learn's average precision."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from made_plans import plan_of, row
from scipy import stats
from sklearn.metrics import average_precision_score
from test_plan_tables import run_folder

from spml_tf.plans import paired_differences
from spml_tf.plans.plan import runs

LABELS = np.array([[1], [1], [0], [0]], np.int8)
# Average precision of the two positives: at ranks 1, 2 it is 1; at 1, 3 (1 + 2/3) / 2 = 5/6; at
# 2, 3 (1/2 + 2/3) / 2 = 7/12; at 3, 4 (1/3 + 1/2) / 2 = 5/12.
RANKS = {"best": (1, 2, 3, 4), "good": (1, 3, 2, 4), "poor": (2, 3, 1, 4), "bad": (3, 4, 1, 2)}
SCORES = {name: 1 / np.array(ranks, np.float32)[:, None] for name, ranks in RANKS.items()}


def finished(tmp_path, plan, of):
    """Runs with predictions; `of` names the scores by row and seed."""
    found = []
    for run in runs(plan):
        if (run.row, run.seed) in of:
            folder = run_folder(
                tmp_path / run.name, 1.0, 1.0, unknown_counts_as="nothing", seed=run.seed
            )
            np.savez(
                folder.predictions("test"), labels=LABELS, scores=SCORES[of[run.row, run.seed]],
                names=np.array(list("abcd")), class_names=np.array(["x"]),
            )  # fmt: skip
            found.append((run, folder))
    return found


@pytest.fixture
def compared(tmp_path):
    plan = plan_of(row("an"), row("bce"), row("en"), row("scl"), seeds=(0, 1), ends=("an", "bce"))
    plan = dataclasses.replace(plan, compare=(("scl", "en"),))
    of = {
        ("an", 0): "bad", ("an", 1): "poor", ("bce", 0): "best", ("bce", 1): "best",
        ("en", 0): "good", ("en", 1): "poor", ("scl", 0): "best",
    }  # fmt: skip
    rows = paired_differences.differences(plan, finished(tmp_path, plan, of))
    return plan, {(x["row"], x["minus"]): x for x in rows}


def test_without_a_positive_label_nothing_is_compared(tmp_path, capsys):
    plan = plan_of(row("an"), row("en"), seeds=(0,), ends=("an", "an"))
    runs_ = finished(tmp_path, plan, {("an", 0): "bad", ("en", 0): "good"})
    for _, folder in runs_:
        with np.load(folder.predictions("test")) as saved:
            arrays = dict(saved)
        np.savez(folder.predictions("test"), **{**arrays, "labels": np.zeros((4, 1), np.int8)})
    assert paired_differences.differences(plan, runs_) == []
    assert "en - an: no test label is positive; not compared" in capsys.readouterr().err


def test_differences_by_hand(compared):
    """en - an: 5/6 - 5/12 and 0, mean 5/24; bce - an: 7/12 and 5/12, mean 1/2; a share of 5/12."""
    _, found = compared
    assert list(found) == [("bce", "an"), ("en", "an"), ("scl", "an"), ("scl", "en")]
    en = found["en", "an"]
    assert (en["seeds"], en["above"]) == (2, 1)
    assert en["difference"] == pytest.approx(100 * 5 / 24)
    assert en["gap"] == pytest.approx(100 * 5 / 12)
    # Of the seeds' gaps, 7/12 and 5/12, (5/12) / (7/12) and none are closed.
    width = stats.t.ppf(0.975, 1) * np.std([500 / 7, 0], ddof=1) / np.sqrt(2)
    assert en["gap_by_seeds_low"] == pytest.approx(500 / 14 - width)
    assert en["gap_by_seeds_high"] == pytest.approx(500 / 14 + width)
    error = np.std([100 * 5 / 12, 0], ddof=1) / np.sqrt(2)
    width = stats.t.ppf(0.975, 1) * error
    assert en["by_seeds_low"] == pytest.approx(100 * 5 / 24 - width)
    assert en["by_seeds_high"] == pytest.approx(100 * 5 / 24 + width)
    assert "gap" not in found["bce", "an"] and "gap" not in found["scl", "en"]
    # Of the seed that both have: 1 - 5/6.
    scl = found["scl", "en"]
    assert scl["difference"] == pytest.approx(100 / 6) and scl["seeds"] == 1
    assert scl["by_seeds_low"] is None


@pytest.mark.parametrize("what", ["names", "labels", "class_names"])
def test_runs_on_other_images_are_not_compared(tmp_path, what, capsys):
    plan = plan_of(row("an"), row("en"), ends=("an", None))
    found = finished(tmp_path, plan, {("an", 0): "bad", ("en", 0): "good"})
    path = found[1][1].predictions("test")
    saved = dict(np.load(path))
    changed = {"names": saved["names"][::-1], "labels": saved["labels"][:, [0, 0]],
               "class_names": np.array(["y"])}  # fmt: skip
    np.savez(path, **{**saved, what: changed[what]})
    assert paired_differences.differences(plan, found) == []
    assert "en - an: their test images or labels differ; not compared" in capsys.readouterr().err


def test_intervals_are_those_of_images_drawn_anew(compared):
    _, found = compared
    draws, differences, shares = np.random.default_rng(0), [], []
    for counts in draws.multinomial(4, np.full(4, 1 / 4), 1000):
        rows = np.repeat(np.arange(4), counts)
        if LABELS[rows].any():
            maps = {
                name: 100 * average_precision_score(LABELS[rows, 0], own[rows, 0])
                for name, own in SCORES.items()
            }
            an, en = (maps["bad"] + maps["poor"]) / 2, (maps["good"] + maps["poor"]) / 2
            differences.append(en - an)
            if maps["best"] > an:
                shares.append(100 * (en - an) / (maps["best"] - an))
    en = found["en", "an"]
    expected = np.quantile(differences, (0.025, 0.975))
    np.testing.assert_allclose([en["photos_low"], en["photos_high"]], expected, atol=1e-9)
    expected = np.quantile(shares, (0.025, 0.975))
    np.testing.assert_allclose([en["gap_photos_low"], en["gap_photos_high"]], expected, atol=1e-9)


def test_the_section_of_the_table(compared):
    plan, found = compared
    lines = paired_differences.markdown(plan, list(found.values())).splitlines()
    assert lines[3] == (
        "| row | minus | seeds | difference | 95 % over images | 95 % over seeds | seeds above | "
        "gap closed | 95 % over images | 95 % over seeds |"
    )
    cells = [x.strip() for x in lines[6].split("|")[1:-1]]
    assert cells[:4] == ["en", "an", "2", "+20.83"] and cells[6:8] == ["1 of 2", "42%"]
    cells = [x.strip() for x in lines[8].split("|")[1:-1]]
    assert cells[:4] == ["scl", "en", "1", "+16.67"] and cells[5:] == ["", "1 of 1", "", "", ""]
    assert paired_differences.markdown(plan, []) == ""


def test_values_of_a_varied_flag_are_compared_with_their_own(tmp_path):
    plan = plan_of(row("an"), row("en"), vary="epochs", values=("1", "2"))
    plan = dataclasses.replace(plan, compare=(("en", "an"),))
    of = {("an", 0): "bad", ("en", 0): "good"}
    rows = paired_differences.differences(plan, finished(tmp_path, plan, of))
    assert [(x["value"], round(x["difference"], 2)) for x in rows] == [("1", 41.67), ("2", 41.67)]
    assert "epochs" in paired_differences.markdown(plan, rows).splitlines()[3]


@pytest.mark.parametrize("oracle", ["poor", "bad"])
def test_without_a_gap_between_baseline_and_oracle_none_is_told(tmp_path, oracle):
    """Here they have one mAP, or one score for all that is drawn."""
    plan = plan_of(row("an"), row("bce"), row("en"), seeds=(0,), ends=("an", "bce"))
    baseline = "bad" if oracle == "bad" else "poor"
    of = {("an", 0): baseline, ("bce", 0): oracle, ("en", 0): "good"}
    found = paired_differences.differences(plan, finished(tmp_path, plan, of))
    assert [x["row"] for x in found] == ["bce", "en"]
    assert not any("gap" in x for x in found)
    assert "gap closed" in paired_differences.markdown(plan, found)


def test_an_oracle_below_the_baseline_counts():
    """Of seed 0 (5/6 - 5/12) / (1 - 5/12) is closed, of seed 1, whose oracle is below the baseline,
    (1 - 5/6) / (7/12 - 5/6): 500/7 and -200/3 percent."""
    found = paired_differences.gap([5 / 6, 1], [5 / 12, 5 / 6], [1, 7 / 12])
    ends = found["gap_by_seeds_low"], found["gap_by_seeds_high"]
    assert sum(ends) / 2 == pytest.approx((500 / 7 - 200 / 3) / 2)


def test_seeds_without_the_oracle_count_in_differences(tmp_path):
    """The oracle has one of two seeds: differences are of both, 5/12 and 0; no gap is told."""
    plan = plan_of(row("an"), row("bce"), row("en"), seeds=(0, 1), ends=("an", "bce"))
    of = {
        ("an", 0): "bad",
        ("an", 1): "poor",
        ("bce", 0): "best",
        ("en", 0): "good",
        ("en", 1): "poor",
    }
    en = paired_differences.differences(plan, finished(tmp_path, plan, of))[-1]
    assert (en["row"], en["seeds"]) == ("en", 2) and "gap" not in en
    assert en["difference"] == pytest.approx(100 * 5 / 24)
