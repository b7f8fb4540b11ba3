"""Estimators of class priors against hand cases, brute force and laws."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spml_tf.training import class_priors as priors
from spml_tf.training.draw_model import DrawModel, Fitted

POINTWISE = [
    priors.elkan_noto,
    lambda *x: priors.elkan_noto(*x, quantile=0.9),
    priors.best_bin,
    priors.effective_classes,
]


def one_of_each(truth: np.ndarray, seed: int = 0) -> np.ndarray:
    """One positive of each image, drawn uniformly; the rest is unknown."""
    drawn = (np.random.default_rng(seed).random(truth.shape) * truth).argmax(axis=1)
    labels = np.full(truth.shape, -1, np.int8)
    labels[np.arange(len(truth)), drawn] = 1
    return labels


def any_labels(seed: int, images: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Coarse scores and labels of all kinds; each class has an annotated positive."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(1, 8, (images, classes)) / 8
    labels = rng.choice([1, 0, -1, 2], (images, classes), p=rng.dirichlet(np.ones(4)))
    labels[rng.integers(0, images, classes), np.arange(classes)] = 1
    return scores, labels.astype(np.int8)


def test_scores_that_know_every_class_give_the_exact_priors():
    """What is annotated at random among 200 images with the class and 200 without."""
    truth = np.repeat([[1], [0]], 200, axis=0)
    labels = np.where((np.arange(400) % 4 == 0)[:, None] & (truth == 1), 1, -1)
    scores = np.where(truth == 1, 0.25, 0.0)  # P(annotated | image)
    for estimate in POINTWISE[:3]:
        assert estimate(scores, labels).tolist() == pytest.approx([0.5], abs=0.01)


def test_the_ends_of_an_interval():
    """1.96 deviations of two replicates, 0.2 / sqrt(2) each; then those of all three readings."""
    low, high = priors._interval(np.array([0.5]), np.array([[0.4], [0.6]]))
    assert (low[0], high[0]) == pytest.approx((0.22281, 0.77719), abs=1e-5)


def test_an_interval_holds_all_readings(monkeypatch):
    """Of ten images, one annotated: the model says 0.4 or 0.3, best bin 0.6, all surely."""

    def surely(value):
        return Fitted(np.array([value]), np.full((2, 1), value))

    monkeypatch.setattr(priors, "DrawModel", lambda scores, labels, some: 0.3 if some else 0.4)
    monkeypatch.setattr(priors, "fitted_with_replicates", lambda model, *given: surely(model))
    monkeypatch.setattr(priors, "_best_bin_replicates", lambda *given: surely(0.6))
    labels = np.full((10, 1), -1, np.int8)
    labels[0] = 1
    found = priors.class_priors(np.full((10, 1), 0.5), labels)
    assert (found.priors[0], found.low[0], found.high[0]) == pytest.approx((0.4, 0.3, 0.6))
    assert found.interval == pytest.approx((0.3, 0.6))


def test_one_drawn_class_of_images_that_scores_know_entirely():
    """Images with one of four classes and with two: K = 1.6, of each class 40 %."""
    pairs = [np.isin(np.arange(4), pair) for pair in itertools.combinations(range(4), 2)]
    truth = np.tile(np.concatenate([np.eye(4), pairs]), (80, 1))
    labels = one_of_each(truth)
    scores = truth / truth.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(priors.effective_classes(scores, labels), 0.4)
    found = priors.class_priors(scores, labels)
    np.testing.assert_allclose(found.priors, 0.4, atol=0.03)
    assert found.interval[0] < 1.6 < found.interval[1] + 0.02
    # An image with two is annotated less often with each: the others are misled.
    assert priors.elkan_noto(scores, labels).sum() < 1.5


def test_best_bin_by_hand():
    """Above 0.8 there are 2 of 2 annotated and 4 of 10 others: 0.4 of these, (4 + 2) / 12."""
    scores = np.array([0.9, 0.9, *[0.9] * 4, *[0.1] * 6])[:, None]
    labels = np.array([1, 1, *[-1] * 10])[:, None]
    assert priors.best_bin(scores, labels).tolist() == pytest.approx([0.5])


def test_known_negatives_and_full_labels_count_as_they_are():
    """All labels known: the shares themselves, whatever the scores say."""
    truth = np.tile([[1, 0], [1, 1], [1, 0], [0, 1]], (50, 1))
    scores = np.tile([[0.2, 0.7], [0.2, 0.7], [0.9, 0.1], [0.5, 0.5]], (50, 1))
    found = priors.class_priors(scores, truth)
    np.testing.assert_allclose(found.priors, [0.75, 0.5], atol=1e-6)
    np.testing.assert_allclose(found.low, found.priors)
    assert found.positives_per_image == pytest.approx(1.25)


def held_sets(p: np.ndarray, positive: np.ndarray, negative: np.ndarray):
    """All sets of classes that an image may hold, each with the chance that it is and is drawn."""
    drawn = int(positive.sum())
    for held in itertools.product([False, True], repeat=len(p)):
        held = np.array(held)
        if not (held & negative).any() and not (positive & ~held).any():
            weight = np.where(held, p, 1 - p).prod()
            yield held, weight / math.comb(int(held.sum()), drawn) if drawn else weight


def brute_force(model: DrawModel, parameters: np.ndarray) -> float:
    """The likelihood by the sum over all sets of classes that an image may hold."""
    chance = 1 / (1 + np.exp(-(parameters[0] * model.inputs + parameters[1])))
    total = 0.0
    for p, positive, negative in zip(chance, model.positive, model.negative, strict=True):
        some = 1 - (1 - p).prod() if model.some and positive.any() else 1.0
        total += math.log(sum(x for _, x in held_sets(p, positive, negative)) / some)
    return total


@settings(max_examples=40)
@given(st.integers(0, 9999), st.integers(1, 6), st.integers(1, 6))
def test_posteriors_are_shares_of_the_sets_of_classes(seed, images, classes):
    scores, labels = any_labels(seed, images, classes)
    model = DrawModel(scores, labels)
    parameters = np.random.default_rng(seed).normal(size=(2, classes))
    chance = 1 / (1 + np.exp(-(parameters[0] * model.inputs + parameters[1])))
    for p, found, positive, negative in zip(
        chance, model.posteriors(parameters), model.positive, model.negative, strict=True
    ):
        sets = list(held_sets(p, positive, negative))
        expected = sum(held * x for held, x in sets) / sum(x for _, x in sets)
        np.testing.assert_allclose(found, expected, atol=1e-9)


@settings(max_examples=40)
@given(st.integers(0, 9999), st.integers(2, 20), st.integers(1, 5), st.floats(0.01, 0.99))
def test_a_model_is_moved_to_a_given_k(seed, images, classes, share):
    scores, labels = any_labels(seed, images, classes)
    model = DrawModel(scores, labels)
    parameters = np.random.default_rng(seed).normal(size=(2, classes))
    moved = model.moved(parameters, share * classes)
    assert model.priors(moved).sum() == pytest.approx(share * classes, abs=1e-4)
    np.testing.assert_array_equal(moved[0], parameters[0])
    np.testing.assert_allclose(np.ptp(moved[1] - parameters[1]), 0, atol=1e-9)
    shares = np.random.default_rng(seed).uniform(0.05, 0.95, classes)
    placed = model.priors(model.moved(parameters, shares))
    np.testing.assert_allclose(placed, shares, atol=1e-5)
    for end in (0, classes):
        assert model.priors(model.moved(parameters, end)).sum() == pytest.approx(end, abs=1e-6)


def test_a_drawn_class_halves_the_odds_of_a_second_one():
    """Two classes of P = 1/2: both are there in 1/4, and the first is drawn in half of these."""
    scores = np.full((4, 2), 0.5)
    labels = np.array([[1, -1], [1, -1], [-1, 1], [-1, 1]])
    for bound, expected in ((0.33, 1.0), (0.34, 0.5)):
        for known in (1.0, [0.5, 0.5]):
            shares = priors.probable_shares(scores, labels, bound, known)
            assert shares.tolist() == [expected, expected]


@settings(max_examples=40)
@given(st.integers(0, 9999), st.integers(1, 6), st.integers(1, 6), st.booleans())
def test_the_likelihood_is_the_sum_over_all_sets_of_classes(seed, images, classes, some):
    scores, labels = any_labels(seed, images, classes)
    model = DrawModel(scores, labels, some)
    parameters = np.random.default_rng(seed).normal(size=(2, classes))
    value, slope = model.log_likelihood(parameters, np.ones(images))
    assert value == pytest.approx(brute_force(model, parameters), rel=1e-9, abs=1e-9)
    for place in np.ndindex(2, classes):
        step = np.zeros((2, classes))
        step[place] = 1e-5
        ends = [brute_force(model, parameters + x) for x in (step, -step)]
        assert slope[place] == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-4, abs=1e-5)


@settings(max_examples=15)
@given(st.integers(0, 9999), st.integers(2, 40), st.integers(1, 5))
def test_the_order_of_images_and_classes_does_not_matter(seed, images, classes):
    scores, labels = any_labels(seed, images, classes)
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(images), rng.permutation(classes)
    for estimate in POINTWISE:
        found = estimate(scores[rows][:, columns], labels[rows][:, columns])
        np.testing.assert_allclose(found, estimate(scores, labels)[columns], rtol=1e-12)
    model, moved = DrawModel(scores, labels), DrawModel(scores[rows], labels[rows])
    np.testing.assert_allclose(model.priors(model.fit()), moved.priors(moved.fit()), atol=1e-3)


@settings(max_examples=15)
@given(st.integers(0, 9999), st.integers(2, 40), st.integers(1, 5))
def test_priors_and_intervals_stay_in_their_bounds(seed, images, classes):
    """From the share annotated to that not known to be negative; each interval holds its value."""
    scores, labels = any_labels(seed, images, classes)
    for estimate in POINTWISE:
        assert ((found := estimate(scores, labels)) >= 0).all() and (found <= 1).all()
    whole = priors.class_priors(scores, labels, replicates=3)
    assert (whole.low <= whole.priors).all() and (whole.priors <= whole.high).all()
    assert (whole.low >= (labels == 1).mean(axis=0) - 1e-12).all()
    assert (whole.high <= 1 - (labels == 0).mean(axis=0) + 1e-12).all()
    assert whole.positives_per_image == pytest.approx(whole.priors.sum())
    assert whole.interval[0] <= whole.positives_per_image <= whole.interval[1]


@settings(max_examples=60)
@given(st.integers(0, 9999), st.integers(2, 40), st.floats(0.3, 4.0))
def test_best_bin_sees_the_order_of_scores_only(seed, images, power):
    scores, labels = any_labels(seed, images, 2)
    found = priors.best_bin(scores, labels)
    np.testing.assert_allclose(priors.best_bin(scores**power, labels), found, rtol=1e-12)


@settings(max_examples=60)
@given(st.integers(0, 9999), st.integers(2, 40))
def test_higher_scores_of_unannotated_images_raise_elkan_and_noto(seed, images):
    scores, labels = any_labels(seed, images, 2)
    higher = np.where(labels == 1, scores, np.minimum(1.2 * scores, 1))
    for quantile in (None, 0.9):
        before, after = (priors.elkan_noto(x, labels, quantile) for x in (scores, higher))
        assert (after >= before - 1e-12).all()


def test_more_classes_an_image_are_found_as_more():
    """Noisy scores of a known quality; K of 1.2 to 4 in order, each within a fifth."""
    rng, found = np.random.default_rng(0), []
    for share in (0.03, 0.2, 0.4):
        truth = rng.random((2000, 8)) < share
        truth[np.arange(2000), rng.integers(0, 8, 2000)] = True
        labels = one_of_each(truth)
        evidence = 4 * truth + rng.normal(size=truth.shape)
        scores = 1 / (1 + np.exp(2.5 - evidence)) / truth.sum(axis=1).mean()
        estimate = priors.class_priors(scores, labels, replicates=2).positives_per_image
        assert estimate == pytest.approx(truth.sum(axis=1).mean(), rel=0.2)
        found.append(estimate)
    assert found == sorted(found)


def test_classes_without_an_annotated_positive_and_banks_of_bytes():
    scores = np.array([[230, 26, 9], [230, 230, 9], [26, 230, 9], [230, 26, 9]], np.uint8)
    labels = np.array([[1, -1, -1], [-1, 1, -1], [-1, 1, -1], [1, -1, -1]], np.int8)
    found = priors.class_priors(scores, labels)
    assert (found.priors[2], found.low[2], found.high[2]) == (0, 0, 1)
    np.testing.assert_allclose(found.priors[:2], [0.75, 0.5], atol=0.02)
    whole = priors.class_priors(scores / 255, labels)
    np.testing.assert_array_equal(whole.priors, found.priors)
    for estimate in POINTWISE[:3]:
        assert estimate(scores, labels)[2] == 0


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"scores \(2, 1\) and labels \(2, 2\)"):
        priors.class_priors(np.zeros((2, 1)), np.ones((2, 2)))
    with pytest.raises(ValueError, match="no label is annotated positive"):
        priors.class_priors(np.zeros((2, 2)), np.full((2, 2), -1))
    with pytest.raises(ValueError, match="scores are NaN"):
        priors.class_priors(np.full((2, 2), np.nan), np.ones((2, 2)))


def test_the_sample_of_a_large_set_is_large_enough():
    assert priors.sample_step(100, 80) == priors.sample_step(8192, 80) == 1
    assert 65_665 // priors.sample_step(65_665, 80) >= 8192
    assert 1_281_167 // priors.sample_step(1_281_167, 1000) >= 8000


def test_the_bound_of_the_best_bin_by_hand():
    """Of 1000 each, all and half of the annotated and 286 and 100 of the others reach 0.5 and 0.9.
    Both deviations are sqrt(log 40 / 2000) = 0.04295, so that the bounds are
    0.286 + 1.01 * 0.0859 = 0.37275 and 2 (0.1 + 1.01 * 0.0859) = 0.3735: the ratio is 0.286."""
    scores = np.repeat([0.9, 0.5, 0.9, 0.5, 0.1], [500, 500, 100, 186, 714])[:, None]
    labels = np.repeat([1, -1], 1000)[:, None]
    assert priors.best_bin(scores, labels)[0] == pytest.approx((0.286 + 1) / 2)


def test_the_sample_holds_eight_images_a_class():
    """Of 1000 classes at least 8 images a class: 100,000 // 8000 = 12."""
    assert priors.sample_step(100_000, 2000) == 6
    assert priors.sample_step(100_000, 1000) == 12
