"""The bootstrap over images against scikit-learn on images that stand there repeatedly."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from spml_tf.evaluation import bootstrap


@pytest.mark.parametrize("at_a_time", [3, 1000])
def test_equals_scikit_learn_on_repeated_images(monkeypatch, at_a_time):
    """Twelve images, three classes, one rarely positive, coarse scores that tie, two pairs."""
    rng = np.random.default_rng(1)
    labels = rng.integers(-1, 2, (12, 3)).astype(np.int8)
    labels[:, 2] = np.where(np.arange(12) == 5, 1, 0)
    scores = rng.integers(0, 5, (2, 2, 12, 3)) / 4
    monkeypatch.setattr(bootstrap, "_WEIGHTS_AT_A_TIME", 12 * at_a_time)
    found = bootstrap.difference_interval(
        labels, scores, resamples=40, confidence=0.8, seed=7, unknown_counts_as="negative"
    )

    draws = np.random.default_rng(7)
    differences = []
    for _ in range(40):
        rows = np.repeat(np.arange(12), draws.multinomial(12, np.full(12, 1 / 12)))
        truth = labels[rows] == 1
        there = truth.any(axis=0)
        maps = [
            average_precision_score(truth[:, there], own[rows][:, there])
            for pair in scores
            for own in pair
        ]
        differences.append((maps[0] - maps[1] + maps[2] - maps[3]) / 2)
    np.testing.assert_allclose(found, np.quantile(differences, (0.1, 0.9)), rtol=1e-12)


def test_a_method_does_not_differ_from_itself():
    scores = np.random.default_rng(0).random((9, 2))
    labels = (scores > 0.5).astype(np.int8)
    assert bootstrap.difference_interval(labels, [(scores, scores)], 20) == (0.0, 0.0)


def test_nothing_is_positive():
    with pytest.raises(ValueError, match="no label is positive"):
        bootstrap.difference_interval([[0]], [([[0.5]], [[0.1]])])
