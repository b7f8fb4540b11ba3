"""Selection of expected positives, on cases small enough to follow by hand."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from spml_tf.banks import ema_bank
from spml_tf.training import budgets, label_store, selection
from spml_tf.training.options import BUDGETS
from spml_tf.training.rules import ExpectedPositives

# 6 images, 2 classes; annotated positives: 2 of class 0, 1 of class 1 (shares 2/3, 1/3).
LABELS = np.array([[1, -1], [1, -1], [-1, 1], [-1, -1], [-1, 0], [-1, -1]], np.int8)
SCORES = np.array([[0.9, 0.5], [0.1, 0.2], [0.5, 0.1], [0.5, 0.9], [0.7, 0.99], [0.2, 0.5]])


def test_budgets_by_hand():
    """K = 1: p = 1 * 6 * (2/3, 1/3) = (4, 2)."""
    np.testing.assert_allclose(budgets.class_budgets(LABELS, 1.0), [4.0, 2.0])


def test_selection_over_all_images_by_hand():
    """Class 0, p = 4: images 0 (.9, annotated), 4 (.7), 2 and 3 (.5) -> 4, 2, 3 are new.
    Class 1, p = 2: image 4 is a known negative; 3 (.9), then 0 before 5 at .5 by index."""
    found = selection.expected_positives(SCORES, LABELS, 1.0)
    expected = np.zeros((6, 2), bool)
    expected[[4, 2, 3], 0] = True
    expected[[3, 0], 1] = True
    np.testing.assert_array_equal(found, expected)


def test_selection_over_unannotated_images_by_hand():
    """p - n = (4 - 2, 2 - 1) = (2, 1) among unknown labels: images 4, 2 (before 3); image 3."""
    found = selection.expected_positives(SCORES, LABELS, 1.0, "unannotated")
    expected = np.zeros((6, 2), bool)
    expected[[4, 2], 0] = True
    expected[3, 1] = True
    np.testing.assert_array_equal(found, expected)


def test_multiples_by_hand():
    """Missing are p - n = (2, 1). Half of that: image 4; round(0.5) = 0. Twice: images 4, 2, 3, 5;
    3, and of 0 and 5 with .5 each the first. With "all" n + m (p - n) = (3, 1.5 -> 2) labels are
    counted, annotated ones among them: of 0 (.9), 4, 2 two are new; of 3 and 0 both. K N = 6, of
    all classes n = 3: 5/3 of 3 labels, by score 3 (class 1), 4 (class 0), 0 (class 1), 2 and 3."""

    def chosen(budget, multiple, mean=1.0):
        found = selection.expected_positives(SCORES, LABELS, mean, budget, multiple)
        return [np.flatnonzero(column).tolist() for column in found.T]

    assert chosen("unannotated", 0.5) == [[4], []]
    assert chosen("unannotated", 2.0) == [[2, 3, 4, 5], [0, 3]]
    assert chosen("all", 0.5) == [[2, 4], [0, 3]]
    assert chosen([4 / 6, 2 / 6], 2.0) == [[2, 3, 4, 5], [0, 3]]
    assert chosen("global", 5 / 3) == [[2, 3, 4], [0, 3]]
    assert chosen("all", 0.0) == chosen("all", 1.0, 0.5)  # n, whatever is missing


@settings(max_examples=50)
@given(
    st.integers(1, 12), st.integers(1, 4), st.floats(0.1, 6.0), st.integers(0, 999),
    st.sampled_from([*BUDGETS, "shares"]),
)  # fmt: skip
def test_laws(images, classes, mean, seed, budget):
    """Only unknown labels are chosen, as many as the budget allows, and the best ones."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([1, 0, -1, 2], (images, classes)).astype(np.int8)
    scores = rng.random((images, classes))
    shares = rng.random(classes)
    given = shares if budget == "shares" else budget
    found = selection.expected_positives(scores, labels, mean, given)
    unknown = (labels == -1) | (labels == 2)
    assert not (found & ~unknown).any()
    annotated = (labels == 1).sum(axis=0)
    p = mean * images * annotated / max(annotated.sum(), 1)
    p = shares * images if budget == "shares" else p
    p = np.rint(p - (budget != "all") * annotated)
    if budget == "global":
        total = np.clip(np.rint(mean * images - annotated.sum()), 0, unknown.sum())
        assert found.sum() == total
        if 0 < total < unknown.sum():
            assert scores[found].min() > scores[unknown & ~found].max()
        return
    if budget in ("unannotated", "shares"):
        np.testing.assert_array_equal(found.sum(0), np.clip(p, 0, unknown.sum(0)))
    for column in range(classes):
        chosen, left = scores[found[:, column], column], scores[:, column]
        left = left[unknown[:, column] & ~found[:, column]]
        assert not len(chosen) or not len(left) or chosen.min() > left.max()
        assert len(chosen) <= max(p[column], 0)


def test_global_budget_by_hand():
    """K = 1.5 over 4 images are 6 positives, 3 of them annotated: of the unknown labels the three
    best are 0.9 (image 3, class 0), 0.8 (image 1, class 1) and, of two with 0.7, the first image's
    (image 0, class 1); 0.95 is a known negative."""
    labels = np.array([[1, -1], [1, -1], [0, 1], [-1, -1]], np.int8)
    scores = np.array([[0.1, 0.7], [0.2, 0.8], [0.95, 0.3], [0.9, 0.7]])
    found = selection.expected_positives(scores, labels, 1.5, "global")
    np.testing.assert_array_equal(found, [[0, 1], [0, 1], [0, 0], [1, 0]])


def test_shares_of_the_classes_by_hand():
    """Of four images three hold class 0, two of them annotated: its best unknown score is image
    3's, that of image 2 being a known negative. Half hold class 1, one is annotated: of two with
    0.7 the first image's."""
    labels = np.array([[1, -1], [1, -1], [0, 1], [-1, -1]], np.int8)
    scores = np.array([[0.1, 0.7], [0.2, 0.6], [0.95, 0.3], [0.9, 0.7]])
    for shares in ([0.75, 0.5], np.array([0.75, 0.5], np.float32)):
        found = selection.expected_positives(scores, labels, 1.0, shares)
        np.testing.assert_array_equal(found, [[0, 1], [0, 0], [0, 0], [1, 0]])


def test_a_class_without_annotation_selects_nothing():
    assert not selection.expected_positives(SCORES, np.full((6, 2), -1, np.int8), 2.0).any()


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="budget must be one of"):
        selection.expected_positives(SCORES, LABELS, 1.0, "some")
    for shares in ([0.5], [0.5, 1.5], [0.5, float("nan")]):
        with pytest.raises(ValueError, match=r"a rule or 2 shares in \[0, 1\]"):
            selection.expected_positives(SCORES, LABELS, 1.0, shares)
    with pytest.raises(ValueError, match="must have one shape"):
        selection.expected_positives(SCORES[:3], LABELS, 1.0)
    with pytest.raises(ValueError, match="1 scores are NaN"):
        selection.expected_positives(np.where(SCORES == 0.7, np.nan, SCORES), LABELS, 1.0)


def test_only_a_store_made_to_select_selects():
    scores = ema_bank.score_bank(6, 2)
    scores.write(tf.range(6, dtype=tf.int64), tf.constant(SCORES, tf.float32))
    with pytest.raises(ValueError, match="selects=True"):
        label_store.LabelStore(6, 2).select(scores, 1.0, "all")
    store = label_store.LabelStore(6, 2, selects=True)
    store.codes.assign(LABELS)
    # K N = 6: four of class 0, images 0 (annotated), 4, 2, 3; two of class 1, image 3 and, first of
    # its tie, 0, since 4 is a known negative.
    store.select(scores, 1.0, "all")
    assert store.codes.numpy().tolist() == [[1, 2], [1, -1], [2, 1], [2, 2], [2, 0], [-1, -1]]
    assert store.epochs_selected.numpy().sum() == 5


def test_at_most_three_times_as_many_are_chosen_by_themselves():
    """10 are missing for 2 annotated, 5 for each: three times as many are taken, not more."""
    assert budgets.wanted_labels(np.array([2]), 12, 1.0, "unannotated", "auto").tolist() == [30.0]


def test_too_many_of_one_class_are_not_fewer_missing_of_another():
    """1 and 12 of 12 images, 4 and 1 annotated: 11 are missing of the second class, none is too
    many of the first: 11 / 5 times as many."""
    found = budgets.wanted_labels(np.array([4, 1]), 12, 1.0, [1 / 12, 1.0], "auto")
    assert found.tolist() == pytest.approx([-3 * 2.2, 11 * 2.2])


def test_a_budget_that_the_rule_does_not_know_is_told_all_it_knows():
    with pytest.raises(ValueError, match="'global', 'estimated', 'probable'., or a list of each"):
        ExpectedPositives(positives_per_image=1.0, budget="estimate")
