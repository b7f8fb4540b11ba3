"""Losses against numbers derived by hand and an independent NumPy computation."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from spml_tf import losses
from spml_tf.training import methods, recipes, terms

LN2 = np.log(2.0)
LN4 = np.log(4.0)
LN43 = np.log(4.0 / 3.0)
# logits 0 and log 3: scores 1/2 and 3/4, -log f = ln 2, ln 4/3, -log(1-f) = ln 2, ln 4.
LOGITS = [[0.0, np.log(3.0), np.log(3.0), 0.0, np.log(3.0)]]
LABELS = [[1, 1, 0, -1, 2]]
BY_HAND = {
    "bce": (LN2 + LN43 + LN4) / 5,  # the unknown and the expected positive say nothing
    "an": (LN2 + LN43 + LN4 + LN2 + LN4) / 5,  # both are negatives
    "en": (LN2 + LN43 + LN4 + LN2) / 5,  # the expected positive is ignored
    "ep": (LN2 + LN43 + LN4 + LN2 + LN43) / 5,  # the expected positive is a positive
}
FUNCTIONS = {
    "bce": losses.known_binary_crossentropy,
    "an": losses.assume_negative,
    "en": losses.expected_negative,
    "ep": losses.expected_positive,
}


def loss_of(name: str) -> keras.losses.Loss:
    """The loss of a method, as it is trained with: on logits."""
    known = {"positives_per_image": 2.0}
    values = {flag: known[flag] for flag in methods.flags_of(name) if flag in known}
    return recipes.recipe_of(name, values).terms[0].loss


@pytest.mark.parametrize("name", FUNCTIONS)
def test_by_hand(name):
    labels, logits = tf.constant(LABELS, tf.int8), tf.constant(LOGITS, tf.float64)
    np.testing.assert_allclose(FUNCTIONS[name](labels, logits), [BY_HAND[name]], rtol=1e-12)
    loss = loss_of(name)
    np.testing.assert_allclose(float(loss(labels, logits)), BY_HAND[name], rtol=1e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_class_is_the_batch_mean_and_survives_serialisation(name):
    labels = tf.constant([LABELS[0], [0] * 5], tf.int8)
    logits = tf.constant([LOGITS[0], [0.0] * 5])
    loss = keras.losses.deserialize(keras.losses.serialize(loss_of(name)))
    np.testing.assert_allclose(float(loss(labels, logits)), (BY_HAND[name] + LN2) / 2, rtol=1e-6)


def numpy_loss(name: str, labels: np.ndarray, logits: np.ndarray, weights: np.ndarray) -> float:
    """The equations term by term, on probabilities."""
    total = 0.0
    for row, outputs, factors in zip(labels, logits, weights, strict=True):
        for z, logit, weight in zip(row, outputs, factors, strict=True):
            f, rest = 1.0 / (1.0 + np.exp(-logit)), 1.0 / (1.0 + np.exp(logit))
            positive = z == 1 or (name == "ep" and z == 2)
            negative = {"bce": z == 0, "an": z != 1, "en": z in (0, -1), "ep": z in (0, -1)}[name]
            # 1 - f would lose digits that finite differences need.
            total += weight * (-np.log(f) if positive else -np.log(rest) if negative else 0.0)
    return total / labels.size


@settings(max_examples=25)
@given(
    st.sampled_from(sorted(FUNCTIONS)),
    st.integers(1, 5),
    st.integers(1, 6),
    st.integers(0, 999),
    st.booleans(),
)
def test_value_and_gradient_equal_numpy(name, batch, classes, seed, weighted):
    rng = np.random.default_rng(seed)
    labels = rng.choice([1, 0, -1, 2], (batch, classes))
    logits = rng.normal(0, 3, (batch, classes))
    weights = rng.uniform(0, 3, logits.shape) if weighted else np.ones(logits.shape)
    factors = tf.constant(weights) if weighted else None
    inputs = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = tf.reduce_mean(FUNCTIONS[name](tf.constant(labels), inputs, weights=factors))
    np.testing.assert_allclose(value, numpy_loss(name, labels, logits, weights), atol=1e-9)
    step, gradient = 1e-6, np.zeros_like(logits)
    for place in np.ndindex(*logits.shape):
        up, down = logits.copy(), logits.copy()
        up[place] += step
        down[place] -= step
        rise = numpy_loss(name, labels, up, weights) - numpy_loss(name, labels, down, weights)
        gradient[place] = rise / (2 * step)
    np.testing.assert_allclose(tape.gradient(value, inputs), gradient, atol=1e-7)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_extreme_logits_and_no_label_at_all_stay_finite(name):
    logits = tf.constant([[-1e4, 1e4, 0.0]])
    for labels in ([[1, 0, -1]], [[-1, -1, -1]]):
        assert np.isfinite(FUNCTIONS[name](tf.constant(labels), logits)).all()


def test_score_consistency_by_hand():
    """Images 0 and 2 count: mean of |0.5-0.25|, |0.5-1|, |1-0|, |0-0| = (0.25+0.5+1+0)/4."""
    scores = tf.constant([[0.5, 0.5], [0.9, 0.9], [1.0, 0.0]])
    targets = tf.constant([[0.25, 1.0], [0.1, 0.1], [0.0, 0.0]])
    counts = tf.constant([True, False, True])
    assert float(losses.score_consistency(scores, targets, counts)) == pytest.approx(0.4375)
    assert float(losses.score_consistency(scores, targets, counts & False)) == 0.0


def test_spatial_consistency_by_hand():
    """One class, 2x2 samples of which three count: (0.1 + 0.2 + 0.3) / 3."""
    maps = tf.constant([[[[0.1], [0.2]], [[0.3], [0.9]]]])
    counts = tf.constant([[[True, True], [True, False]]])
    found = losses.spatial_consistency(maps, tf.zeros_like(maps), counts)
    assert float(found) == pytest.approx(0.2)


def test_weights_multiply_distances_and_leave_the_divisor():
    """CL: images 0 and 2 of three count, 2 classes: (2*0.25 + 0*0.5 + 1*1 + 3*0) / 2 / 2 = 0.375.

    SCL: one image, two samples count, weights 2 and 0 of its classes: distances 0.1 and 0.2 of the
    first class, (2*0.1 + 2*0.2) / 2 classes / 2 samples = 0.15; of the sparse one the same, over
    L = 10: (2*0.1 + 2*0.2) / 10 / 2 = 0.03."""
    scores = tf.constant([[0.5, 0.5], [0.9, 0.9], [1.0, 0.0]])
    targets = tf.constant([[0.25, 1.0], [0.1, 0.1], [0.0, 0.0]])
    weights = tf.constant([[2.0, 0.0], [9.0, 9.0], [1.0, 3.0]])
    counts = tf.constant([True, False, True])
    assert float(losses.score_consistency(scores, targets, counts, weights)) == pytest.approx(0.375)
    maps = tf.constant([0.1, 0.7, 0.2, 0.8, 0.9, 0.9], shape=(1, 3, 1, 2))
    counts = tf.constant([True, True, False], shape=(1, 3, 1))
    weights = tf.constant([[2.0, 0.0]])
    nothing = tf.zeros_like(maps)
    found = losses.spatial_consistency(maps, nothing, counts, weights)
    assert float(found) == pytest.approx(0.15)
    counts = tf.repeat(counts[..., None], 2, axis=3)
    found = losses.sparse_spatial_consistency(maps, nothing, counts, 10, weights)
    assert float(found) == pytest.approx(0.03)


def test_targets_carry_no_gradient():
    scores, targets = tf.constant([[0.5, 0.2]]), tf.constant([[0.25, 0.4]])
    with tf.GradientTape() as tape:
        tape.watch([scores, targets])
        value = losses.score_consistency(scores, targets, tf.constant([True]))
    through_scores, through_targets = tape.gradient(value, [scores, targets])
    np.testing.assert_allclose(through_scores, [[0.5, -0.5]])
    assert through_targets is None


def test_method_names():
    names = {name: [part.part for part in methods.parts_of(name)] for name in ("bce", "en+scl")}
    assert names == {
        "bce": ["spml_tf.losses:KnownBinaryCrossentropy"],
        "en+scl": [
            "spml_tf.losses:ExpectedNegative",
            "spml_tf.training.rules:ExpectedPositives",
            "spml_tf.training.terms:SpatialConsistency",
        ],
    }
    for wrong in ("", "xx", "en+", "en+xx", "en+scl+scl", "+scl", "scl"):
        with pytest.raises(ValueError, match="must be one of bce, an, an_ls, .*, asl, .*alone or"):
            methods.parts_of(wrong)
    both = (losses.AssumeNegative(), terms.ScoreConsistency(), terms.SpatialConsistency())
    with pytest.raises(ValueError, match="report their value under one name.*in a subclass"):
        recipes.Recipe(both)
