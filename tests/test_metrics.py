"""Average precision by hand and against scikit-learn; the streaming metric against both."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from spml_tf.evaluation import metrics


def test_by_hand():
    """Ranking + - + -: precisions at the positives 1/1 and 2/3, mean 5/6. With all four tied:
    one threshold, precision 2/4."""
    labels = np.array([[1, 1], [0, 1], [1, 0], [0, -1]])
    scores = np.array([[0.9, 0.5], [0.8, 0.5], [0.7, 0.5], [0.1, 0.5]])
    np.testing.assert_allclose(metrics.average_precision(labels, scores), [5 / 6, 0.5])
    assert metrics.mean_average_precision(labels, scores) == pytest.approx((5 / 6 + 0.5) / 2)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 12), st.integers(0, 9999))
def test_equals_scikit_learn_ties_included(images, classes, levels, seed):
    rng = np.random.default_rng(seed)
    labels = (rng.random((images, classes)) < 0.3).astype(int)
    scores = rng.integers(0, levels, (images, classes)) / levels
    found = metrics.average_precision(labels, scores)
    for column in range(classes):
        if labels[:, column].any():
            expected = average_precision_score(labels[:, column], scores[:, column])
            assert abs(found[column] - expected) < 1e-9
        else:
            assert np.isnan(found[column])


def test_classes_without_positives():
    labels, scores = np.array([[1, 0], [0, 0]]), np.array([[0.9, 0.5], [0.1, 0.5]])
    assert metrics.mean_average_precision(labels, scores) == 1.0
    assert metrics.mean_average_precision(labels, scores, "zero") == 0.5
    assert np.isnan(metrics.mean_average_precision(labels * 0, scores))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 999))
def test_streaming_equals_exact_for_any_batches(sizes, seed):
    rng = np.random.default_rng(seed)
    labels = rng.choice([1, 0, -1], (sum(sizes), 3)).astype(np.int8)
    scores = rng.random(labels.shape).astype(np.float32)
    metric = metrics.MeanAveragePrecision()
    for _ in range(2):
        metric.reset_state()
        start = 0
        for size in sizes:
            metric.update_state(labels[start : start + size], scores[start : start + size])
            start += size
        expected = metrics.mean_average_precision(labels, scores)
        np.testing.assert_equal(float(metric.result()), expected)


def test_in_a_users_keras_model():
    """compile, fit and evaluate report the exact value at the end of a pass."""
    rng = np.random.default_rng(0)
    x, y = rng.random((50, 4)).astype("float32"), (rng.random((50, 3)) < 0.4).astype("float32")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(3, activation="sigmoid")(inputs))
    model.compile("sgd", "binary_crossentropy", metrics=[metrics.MeanAveragePrecision()])
    history = model.fit(x, y, batch_size=7, epochs=2, validation_data=(x, y), verbose=0).history
    expected = metrics.mean_average_precision(y, model.predict(x, verbose=0))
    assert history["val_map"][-1] == pytest.approx(expected, abs=1e-12)
    assert all(0.0 < value < 1.0 for value in history["map"])
    found = model.evaluate(x, y, batch_size=11, return_dict=True, verbose=0)["map"]
    assert float(found) == pytest.approx(expected, abs=1e-12)


def test_config_survives():
    metric = metrics.MeanAveragePrecision("zero", name="m")
    again = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert (again.absent_classes, again.name) == ("zero", "m")


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="one \\[N, L\\]"):
        metrics.average_precision(np.zeros((2, 3)), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="diverged"):
        metrics.average_precision(np.zeros((1, 1)), np.array([[np.nan]]))
    with pytest.raises(ValueError, match="skip"):
        metrics.MeanAveragePrecision("none")
    with pytest.raises(ValueError, match="sample weights"):
        metrics.MeanAveragePrecision().update_state([[1]], [[0.5]], sample_weight=[1])
