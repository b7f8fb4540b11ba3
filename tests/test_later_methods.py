"""Methods after the paper against loops in NumPy, written from their papers' formulas."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_baselines import nl, random_case, sigmoid, slope

from spml_tf import losses
from spml_tf.training import methods, parts, scheduled_terms

GR = {"slope": 1.5, "offset": -2.0, "mean": 0.7, "deviation": 0.6}
POWERS = {"positive_power": 0.01, "negative_power": 1.5}


def numpy_gr(labels, logits, weights, factors_at=None):
    """K and V stay those of `factors_at` while a finite difference moves the logits."""
    fixed = sigmoid(logits if factors_at is None else factors_at)
    total = 0.0
    for place, z in np.ndenumerate(labels):
        f, g = sigmoid(logits[place]), fixed[place]
        k = sigmoid(GR["slope"] * g + GR["offset"])
        v = math.exp(-(((g - GR["mean"]) / GR["deviation"]) ** 2) / 2)
        as_positive = (1 - f**0.01) / 0.01
        as_negative = (1 - (1 - f) ** 1.5) / 1.5
        unknown = v * (k * as_positive + (1 - k) * as_negative)
        term = {1: -math.log(f), 0: -math.log(1 - f), -1: unknown, 2: 0.0}[z]
        total += weights[place] * term
    return total / labels.size


def check_value_and_gradient(function, expected, seed: int) -> None:
    """`expected(labels, logits, weights, factors_at)` is NumPy's; weighted and not."""
    labels, logits = random_case(seed, 3, 5)
    for weights in (np.ones(logits.shape), np.random.default_rng(seed).uniform(0, 3, logits.shape)):
        inputs = tf.constant(logits)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            values = function(tf.constant(labels), inputs, weights=tf.constant(weights))
            value = tf.reduce_mean(values)
        np.testing.assert_allclose(value, expected(labels, logits, weights), atol=1e-9)
        wanted = slope(lambda x: expected(labels, x, weights, logits), logits)  # noqa: B023
        np.testing.assert_allclose(tape.gradient(value, inputs), wanted, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_gr_equals_numpy(seed):
    def function(labels, logits, weights):
        return losses.generalized_robust(labels, logits, **GR, **POWERS, weights=weights)

    check_value_and_gradient(function, numpy_gr, seed)


def test_schedule_of_gr_by_hand():
    """T = 8, n = 2: w and b wait until epoch 4 = n + 2, mu and sigma until 3; nothing passes T."""
    term = scheduled_terms.GeneralizedRobustTerm(epochs=8, head_epochs=2, offset_end=-8.0)
    wanted = {
        1: (0, -2, 0.5, 2), 2: (0, -2, 0.5, 2), 3: (0, -2, 0.55, 1.75), 4: (1 / 3, -3, 0.6, 1.5),
        8: (5 / 3, -7, 0.8, 0.5), 20: (2, -8, 0.8, 0.5),
    }  # fmt: skip
    for epoch, values in wanted.items():
        found = term.constants(tf.constant(epoch, tf.int64))
        np.testing.assert_allclose(
            [found[x] for x in ("slope", "offset", "mean", "deviation")], values, rtol=1e-6
        )


def test_gr_term_uses_its_epoch_in_training_and_evaluation():
    term = scheduled_terms.GeneralizedRobustTerm(epochs=4)
    term.prepare(parts.Facts(2, 3, 1, {"directory": None}))
    term.on_epoch(None, 3)
    labels = tf.constant([[1, -1, 2], [0, -1, -1]], tf.int8)
    logits = tf.constant([[0.3, -1.0, 2.0], [1.0, 0.5, -2.0]])
    constants = {"slope": 1.0, "offset": -2.0, "mean": 0.725, "deviation": 0.875}
    wanted = tf.reduce_mean(losses.generalized_robust(labels, logits, **constants))
    np.testing.assert_allclose(term.evaluate(labels, logits, None), wanted, rtol=1e-6)


class TestPairs:
    """The first gives its rules, the second its loss and rules."""

    @pytest.mark.parametrize(
        "name, rules, term",
        [
            ("en+gr+scl", ["ExpectedPositives"], "GeneralizedRobustTerm"),
            ("ll_r+hill", ["LargeLoss"], "Hill"),
            ("en+splc", ["ExpectedPositives", "Confident"], "Hill"),
            ("splc+ll_ct+cl", ["Confident", "LargeLoss"], "ExpectedPositive"),
        ],
    )
    def test_parts(self, name, rules, term):
        known = {"positives_per_image": 2.0}
        recipe = parts.recipe_of(name, {x: known[x] for x in methods.flags_of(name) if x in known})
        assert [type(x).__name__ for x in recipe.rules] == rules
        first = recipe.terms[0]
        assert type(getattr(first, "loss", first)).__name__ == term
        assert len(recipe.terms) == 1 + name.count("cl")

    @pytest.mark.parametrize(
        "name, message",
        [
            ("an+gr", "an marks no labels; before another method stands one of ll_r"),
            ("en+asl", "the loss of asl does not look at what en marks; after it may stand"),
            ("en+ep", "both have the same rule; ep is enough"),
            ("en+gr+hill", "must be one of"),
            ("en+scl+gr", "must be one of"),
        ],
    )
    def test_what_does_not_go_together(self, name, message):
        with pytest.raises(ValueError, match=message):
            methods.parts_of(name)

    def test_marks_mean_what_the_table_says(self):
        """At logits 1, a marked label adds nothing where left out, the positive term elsewhere."""
        known = {"positives_per_image": 2.0}
        labels, logits = tf.constant([[2, 2]], tf.int8), tf.constant([[1.0, 1.0]])
        positive = {"Hill": (1 - sigmoid(0.0)) ** 2 * nl(0.0)[0], "ExpectedPositive": nl(1.0)[0]}
        for name, made in methods.METHODS.items():
            said = next((x.marks for x in made if x.marks), "")
            values = {x: known[x] for x in methods.flags_of(name) if x in known}
            term = parts.recipe_of(name, values).terms[0]
            if isinstance(term, scheduled_terms.GeneralizedRobustTerm):
                term.prepare(parts.Facts(2, 3, 1, {"directory": None}))
            loss = getattr(term, "loss", term)
            if said:
                assert getattr(loss, "marks", said) == said
                found = float(term.evaluate(labels, logits, None))
                wanted = 0.0 if said == "left out" else positive[type(loss).__name__]
                assert found == pytest.approx(wanted, rel=1e-6), name
            else:
                assert getattr(loss, "marks", "") == ""


def test_gr_serialises():
    loss = losses.GeneralizedRobust(from_logits=True, slope=1.0, negative_power=1.5)
    copy = keras.losses.deserialize(keras.losses.serialize(loss))
    labels, logits = tf.constant([[1, 0, -1, 2]]), tf.constant([[-1e4, 1e4, 1e4, 0.0]])
    assert float(loss(labels, logits)) == float(copy(labels, logits))
    assert np.isfinite(float(loss(labels, logits)))
