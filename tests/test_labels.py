"""Label matrices: encodings, simulated annotation, splits."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spml_tf import labels as lab
from spml_tf.datasets import observed_labels

MATRICES = hnp.arrays(
    np.int8,
    st.tuples(st.integers(0, 12), st.integers(1, 9)),
    elements=st.sampled_from([1, 0, -1]),
)


def fixed_matrix() -> np.ndarray:
    """200 x 20, about three positives a row, made without a random generator."""
    rows, columns = np.mgrid[:200, :20]
    return ((rows * 7 + columns * columns * 3 + rows * columns) % 20 < 3).astype(np.int8)


def test_needs_no_tensorflow():
    modules = "spml_tf.labels, spml_tf.datasets.readers"
    code = f"import sys, {modules}; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


class TestValidate:
    @pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32])
    def test_accepts_other_types(self, dtype):
        result = lab.validate_labels(np.eye(3, dtype=dtype))
        assert result.dtype == np.int8
        np.testing.assert_array_equal(result, np.eye(3))

    @pytest.mark.parametrize("bad", [2, -2, 0.5, np.nan])
    def test_refuses_other_values(self, bad):
        matrix = np.zeros((3, 4))
        matrix[1, 2] = bad
        with pytest.raises(ValueError, match="truth.*row 1, column 2"):
            lab.validate_labels(matrix, "truth")

    def test_refuses_other_shapes_and_types(self):
        with pytest.raises(ValueError, match="shape"):
            lab.validate_labels(np.zeros(3))
        with pytest.raises(ValueError, match="numbers"):
            lab.validate_labels(np.full((2, 2), "1"))


class TestDrawObserved:
    def test_follows_the_protocol(self):
        """Both index lists are shuffled, row by row, with one generator."""
        truth = fixed_matrix()
        generator = np.random.RandomState(1200)
        expected = -np.ones(truth.shape, int)
        for row in range(len(truth)):
            positives = np.array([i for i in range(20) if truth[row, i] == 1], dtype=int)
            negatives = np.array([i for i in range(20) if truth[row, i] == 0], dtype=int)
            generator.shuffle(positives)
            generator.shuffle(negatives)
            if len(positives):
                expected[row, positives[0]] = 1
        observed = observed_labels.draw_observed(truth)
        assert observed.dtype == np.int8
        np.testing.assert_array_equal(observed, expected)

    def test_stays_as_it_is(self):
        digest = hashlib.sha256(observed_labels.draw_observed(fixed_matrix()).tobytes()).hexdigest()
        assert digest == "633a189490589ee6f09e6a6438cef0b6790fda5e0c3f369bfb720de2a96f8064"

    @settings(max_examples=60)
    @given(MATRICES, st.integers(0, 3), st.integers(0, 3), st.integers(0, 99))
    def test_observed_is_a_part_of_the_truth(self, truth, positives, negatives, seed):
        observed = observed_labels.draw_observed(truth, seed, positives, negatives)
        known = observed != lab.UNKNOWN
        np.testing.assert_array_equal(observed[known], truth[known])
        for value, count in ((lab.POSITIVE, positives), (lab.NEGATIVE, negatives)):
            available = (truth == value).sum(axis=1)
            np.testing.assert_array_equal(
                (observed == value).sum(axis=1), np.minimum(available, count)
            )

    def test_kept_negatives_do_not_change_the_positives(self):
        truth = fixed_matrix()
        one, both = (
            observed_labels.draw_observed(truth),
            observed_labels.draw_observed(truth, num_negatives=2),
        )
        np.testing.assert_array_equal(one == 1, both == 1)

    def test_refuses_negative_counts(self):
        with pytest.raises(ValueError, match="at least 0"):
            observed_labels.draw_observed(fixed_matrix(), num_positives=-1)


class TestSplit:
    def test_sizes_of_the_published_splits(self):
        for total, train, val in ((5717, 4574, 1143), (82081, 65665, 16416), (5994, 4795, 1199)):
            first, second = observed_labels.split_indices(total)
            assert (len(first), len(second)) == (train, val)

    def test_follows_the_protocol(self):
        order = np.random.RandomState(1200).permutation(50)
        train, val = observed_labels.split_indices(50)
        assert train.dtype == val.dtype == np.int64
        np.testing.assert_array_equal(train, sorted(order[:40]))
        np.testing.assert_array_equal(val, sorted(order[40:]))

    @given(st.integers(0, 200), st.floats(0, 0.99), st.integers(0, 99))
    def test_divides(self, n, fraction, seed):
        train, val = observed_labels.split_indices(n, fraction, seed)
        np.testing.assert_array_equal(np.sort(np.concatenate([train, val])), np.arange(n))
        assert len(val) == round(fraction * n)

    def test_refuses(self):
        with pytest.raises(ValueError, match="val_fraction"):
            observed_labels.split_indices(10, 1.0)
        with pytest.raises(ValueError, match="n must"):
            observed_labels.split_indices(-1)


def test_positives_per_image():
    assert lab.positives_per_image([[1, 1, 0], [0, 1, 0], [1, 1, -1]]) == 1.5
    with pytest.raises(ValueError, match="no image is fully labelled"):
        lab.positives_per_image([[1, -1]])


def test_from_cole():
    """Theirs: 1 positive, 0 unknown, -1 negative; ours: 1 positive, 0 negative, -1 unknown."""
    converted = lab.from_cole([[1, 0, -1], [-1, -1, 0]])
    assert converted.tolist() == [[1, -1, 0], [0, 0, -1]] and converted.dtype == np.int8
    with pytest.raises(ValueError, match="found 2 in row 0, column 1"):
        lab.from_cole([[1, 2]])


def test_digest_is_of_the_bytes():
    matrix = np.array([[1, 0, -1], [0, 0, 1]])
    expected = hashlib.sha256(bytes([1, 0, 255, 0, 0, 1])).hexdigest()
    assert lab.digest(matrix) == lab.digest(matrix.astype(np.float32)) == expected


def test_the_positives_of_highest_rank_are_drawn():
    """By classes' ranks 1, 3, 2: of (1, 1, 1) the second, then the third; unknown ones never."""
    truth = np.array([[1, 1, 1], [1, 0, 1], [0, 0, 0], [-1, -1, 1]])
    one = observed_labels.draw_ranked(truth, [1.0, 3.0, 2.0])
    assert one.tolist() == [[-1, 1, -1], [-1, -1, 1], [-1, -1, -1], [-1, -1, 1]]
    two = observed_labels.draw_ranked(truth, [1.0, 3.0, 2.0], num_positives=2, num_negatives=3)
    assert two.tolist() == [[-1, 1, 1], [1, 0, 1], [0, 0, 0], [-1, -1, 1]]
    with pytest.raises(ValueError, match="at least 0"):
        observed_labels.draw_ranked(truth, [1.0, 3.0, 2.0], num_positives=-1)


def test_equal_ranks_are_drawn_at_random():
    """Of three equal positives each is drawn in a third of 3,000 images: 1,000 +- 26."""
    drawn = observed_labels.draw_ranked(np.ones((3000, 3), np.int8), np.zeros(3), seed=5)
    counts = (drawn == 1).sum(axis=0)
    assert counts.sum() == 3000 and (abs(counts - 1000) < 4 * 26).all()


@given(MATRICES, st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_a_larger_share_keeps_what_a_smaller_one_keeps(truth, one, other, seed):
    small, large = (observed_labels.draw_partial(truth, x, seed) for x in sorted((one, other)))
    assert ((small == -1) | (small == truth)).all()
    assert ((small == -1) | (small == large)).all()
    assert (observed_labels.draw_partial(truth, 1.0, seed) == truth).all()
    assert (observed_labels.draw_partial(truth, 0.0, seed) == -1).all()


def test_the_share_of_labels_that_is_kept():
    """10,000 labels, each with probability 0.3: 3,000 +- 46, positives and negatives alike."""
    truth = (np.arange(10_000) % 2).reshape(100, 100)
    kept = observed_labels.draw_partial(truth, 0.3, seed=1) != -1
    assert abs(kept.sum() - 3000) < 4 * 46
    assert abs((kept & (truth == 1)).sum() - 1500) < 4 * 33
    with pytest.raises(ValueError, match="known_share must be in"):
        observed_labels.draw_partial(truth, 1.5)
