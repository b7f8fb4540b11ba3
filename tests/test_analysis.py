"""Numbers of an analysis by hand, against scikit-learn, and against loops."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score

from spml_tf.datasets.readers import Examples
from spml_tf.evaluation import measures, predictions

NAN = float("nan")
SEEDS = st.integers(0, 9999)


def test_top_scores_by_hand():
    """Rows sorted downward, cut to the number asked for or the number of classes."""
    scores = np.array([[0.2, 0.9, 0.5], [0.7, 0.1, 0.7]])
    np.testing.assert_array_equal(measures.top_scores(scores, 2), [[0.9, 0.5], [0.7, 0.7]])
    assert measures.top_scores(scores, 4).shape == (2, 3)


def test_histogram_by_hand():
    """Bins [0, 0.25), [0.25, 0.5), [0.5, 0.75), [0.75, 1]: of 0, 0.25, 0.3, 1 they hold 1, 2, 0
    and 1."""
    edges, shares = measures.histogram([0.0, 0.25, 0.3, 1.0], bins=4)
    np.testing.assert_array_equal(edges, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_array_equal(shares, [0.25, 0.5, 0, 0.25])


def test_largest_objects_by_hand():
    """Image 0: two objects of class 1 (0.1 and 0.3) and one of class 0; image 1: none."""
    rows = np.array([[1, 0, 0, 1, 1], [0, 0, 0, 1, 1], [1, 0, 0, 1, 1]], np.float32)
    boxes = (rows, np.zeros((0, 5), np.float32))
    areas = (np.array([0.3, 0.2, 0.1], np.float32), np.zeros(0, np.float32))
    found = measures.largest_objects(boxes, areas, 3)
    np.testing.assert_allclose(found, [[0.2, 0.3, NAN], [NAN] * 3], rtol=1e-6)


def test_size_bins_by_hand():
    """Six sizes in three bins: the quantiles at 1/3 and 2/3 lie at positions 5/3 and 10/3 of
    1, 2, 3, 4, 5, 6; the next sizes upward are 3 and 5, so that each bin holds two."""
    sizes = np.array([[4, 1, NAN], [6, 2, 3], [NAN, NAN, 5.0]])
    edges = measures.size_edges(sizes, 3)
    np.testing.assert_array_equal(edges, [1, 3, 5, 6])
    expected = [[1, 0, -1], [2, 0, 1], [-1, -1, 2]]
    np.testing.assert_array_equal(measures.bin_of_size(sizes, edges), expected)
    np.testing.assert_array_equal(measures.bin_of_size([0.5, 7.0], edges), [-1, -1])


def test_equal_sizes_stay_together():
    """Four of the five are 2: the quantiles of four bins are 2, 2, 2, 2, 7, hence one bin."""
    sizes = np.array([2, 2, 7, 2, 2.0])
    np.testing.assert_array_equal(measures.size_edges(sizes, 4), [2, 7])
    same = measures.size_edges([3.0, 3.0])
    np.testing.assert_array_equal(measures.bin_of_size([3.0, 3.0], same), [0, 0])
    with pytest.raises(ValueError, match="no object has a size"):
        measures.size_edges([NAN])


@settings(max_examples=60)
@given(SEEDS, st.integers(2, 60), st.integers(1, 6))
def test_bins_of_different_sizes_hold_equally_many(seed, count, bins):
    sizes = np.random.default_rng(seed).permutation(count) / count
    edges = measures.size_edges(sizes, bins)
    counts = np.bincount(measures.bin_of_size(sizes, edges))
    assert counts.sum() == count and (counts > 0).all()
    # A bin begins at a size that occurs, and the last one holds both its ends: one more or less.
    if count > 2 * bins:
        assert abs(counts - count / bins).max() <= 1.5 + 1e-9


def test_average_precision_by_size_by_hand():
    """Class 0, ranked: small +, -, large +, -. Small: + - -, 1. Large: - + -, 1/2. Class 1 has one
    positive, without a size: no bin. The same with all positives: (1 + 2/3) / 2."""
    labels = np.array([[1, 0], [0, 1], [1, 0], [0, -1]])
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.1, 0.4]])
    sizes = np.array([[0.1, NAN], [NAN, NAN], [0.5, NAN], [NAN, NAN]])
    found = measures.average_precision_by_size(labels, scores, sizes, np.array([0.1, 0.5, 0.9]))
    np.testing.assert_allclose(found, [[1, NAN], [0.5, NAN]])
    whole = measures.average_precision_by_size(labels, scores, sizes, np.array([0, 1.0]))
    np.testing.assert_allclose(whole, [[(1 + 2 / 3) / 2, NAN]])


@settings(max_examples=30)
@given(SEEDS, st.sampled_from(["nothing", "negative"]))
def test_average_precision_by_size_equals_scikit_learn(seed, rule):
    rng = np.random.default_rng(seed)
    labels, scores = rng.integers(-1, 2, (30, 3)), rng.integers(0, 9, (30, 3)) / 9
    sizes, edges = np.where(labels == 1, rng.random((30, 3)), NAN), np.array([0, 0.4, 1.0])
    found = measures.average_precision_by_size(labels, scores, sizes, edges, rule)
    for number, (low, high) in enumerate(((0, 0.4), (0.4, 1.0))):
        for column in range(3):
            own = (sizes[:, column] >= low) & (sizes[:, column] < high)
            kept = own | (labels[:, column] == 0)
            if rule == "negative" or not (labels[:, column] == 0).any():
                kept |= labels[:, column] == -1
            if own.any():
                parts = labels[kept, column] == 1, scores[kept, column]
                assert found[number, column] == pytest.approx(average_precision_score(*parts))
            else:
                assert np.isnan(found[number, column])


def test_relative_gain_by_hand():
    """0.6 over 0.5 is 20%, 0.4 is -20%; over 0 or with NaN there is none."""
    found = measures.relative_gain([0.6, 0.4, 0.3, NAN], [0.5, 0.5, 0.0, 0.5])
    np.testing.assert_allclose(found, [20, -20, NAN, NAN])


def test_pointing_by_hand():
    """Image 0: class 0 has two boxes, its peak (0.5, 0.5) lies on an edge of the second: a hit.
    Class 1's peak (0.1, 0.9) lies beside its box. Image 1: class 1's peak lies in the box; that
    of class 0, without a box there, does not count."""
    boxes = (
        np.array([[0, 0, 0, 0.2, 0.2], [0, 0.5, 0.3, 1, 0.7], [1, 0, 0, 0.3, 0.3]], np.float32),
        np.array([[1, 0.6, 0.6, 1, 1]], np.float32),
    )
    peaks = np.array([[[0.5, 0.5], [0.1, 0.9]], [[0.1, 0.1], [0.8, 0.7]]])
    hits, pairs = measures.pointing_hits(peaks, boxes, 3)
    np.testing.assert_array_equal(hits, [1, 1, 0])
    np.testing.assert_array_equal(pairs, [1, 2, 0])


def test_reliability_by_hand():
    """Two bins. Scores 0.1 (negative), 0.3 (positive), 0.2 (unknown: left out) and 0.5, 0.9 (both
    positive; 0.5 belongs to the upper bin): means 0.2 and 0.7, shares 1/2 and 1, error
    (2 * 0.3 + 2 * 0.3) / 4."""
    labels, scores = np.array([[0, 1, -1], [1, 1, -1]]), np.array([[0.1, 0.3, 0.2], [0.5, 0.9, 0]])
    found = measures.reliability(labels, scores, bins=2)
    np.testing.assert_allclose(found.scores, [0.2, 0.7])
    np.testing.assert_allclose(found.positives, [0.5, 1.0])
    np.testing.assert_array_equal(found.counts, [2, 2])
    assert found.error == pytest.approx(0.3)
    with pytest.raises(ValueError, match="no label is known"):
        measures.reliability([[-1]], [[0.5]])


@settings(max_examples=30)
@given(SEEDS)
def test_reliability_equals_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    scores = rng.beta(0.4, 0.9, (40, 4))
    labels = (rng.random(scores.shape) < scores).astype(int)
    found = measures.reliability(labels, scores)
    shares, means = calibration_curve(labels.ravel(), scores.ravel(), n_bins=10)
    known = found.counts > 0
    np.testing.assert_allclose(found.positives[known], shares)
    np.testing.assert_allclose(found.scores[known], means)
    weights = found.counts[known] / labels.size
    assert found.error == pytest.approx(np.sum(weights * np.abs(shares - means)))


def bright(images: np.ndarray) -> tuple[keras.Model, Examples]:
    """A network whose logits are the gray means of 4 x 4 pixels, and of these the negative."""
    inputs = keras.Input((8, 8, 3))
    gray = keras.ops.mean(keras.layers.AveragePooling2D(4)(inputs), axis=-1, keepdims=True)
    network = keras.Model(inputs, keras.ops.concatenate([gray, -gray], axis=-1))
    names = tuple(f"x{number}" for number in range(len(images)))
    labels = np.zeros((len(images), 2), np.int8)
    return network, Examples(names, labels, ("light", "dark"), images=images)


def test_peaks_and_logits_by_hand():
    """Cells of 100, 110, 120 and 90: the sigmoid of all is 1, so that it has no highest. Light
    peaks at row 1, column 0, dark at row 1, column 1; the mean is 105. The second image is even:
    the first cell."""
    cells = np.array([[[100, 110], [120, 90]], [[7, 7], [7, 7]]], np.uint8)
    images = cells.repeat(4, axis=1).repeat(4, axis=2)[..., None].repeat(3, axis=-1)
    network, examples = bright(images)
    peaks = predictions.predict_peaks(network, examples, 8, batch_size=1)
    expected = [[[0.75, 0.25], [0.75, 0.75]], [[0.25, 0.25], [0.25, 0.25]]]
    np.testing.assert_array_equal(peaks, expected)
    found = predictions.Scorer(network, 8, logits=True)(examples, batch_size=2)
    np.testing.assert_allclose(found, [[105, -105], [7, -7]], rtol=1e-6)


def test_a_peak_in_two_boxes_is_one_hit():
    """The peak lies in both boxes of the class: one hit of one pair."""
    boxes = np.array([[0, 0.0, 0.0, 0.5, 0.5], [0, 0.1, 0.1, 0.9, 0.9]])
    hits, pairs = measures.pointing_hits([[(0.2, 0.2)]], [boxes], num_classes=1)
    assert hits.tolist() == [1] and pairs.tolist() == [1]


def test_a_class_may_have_the_number_255_in_masks():
    """A class may have the number 255, which else is not labelled."""
    assert measures.energy_inside(np.ones((1, 2, 1)), [[255, 0]], [255]).tolist() == [0.5]
