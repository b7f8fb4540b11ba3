"""Label matrices: encoding, simulated annotation, splits and files."""

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
from spml_tf.errors import UserError

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
    code = "import sys, spml_tf.labels, spml_tf.readers; assert 'tensorflow' not in sys.modules"
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
        observed = lab.draw_observed(truth)
        assert observed.dtype == np.int8
        np.testing.assert_array_equal(observed, expected)

    def test_stays_as_it_is(self):
        digest = hashlib.sha256(lab.draw_observed(fixed_matrix()).tobytes()).hexdigest()
        assert digest == "633a189490589ee6f09e6a6438cef0b6790fda5e0c3f369bfb720de2a96f8064"

    @settings(deadline=None, max_examples=60)
    @given(MATRICES, st.integers(0, 3), st.integers(0, 3), st.integers(0, 99))
    def test_observed_is_a_part_of_the_truth(self, truth, positives, negatives, seed):
        observed = lab.draw_observed(truth, seed, positives, negatives)
        known = observed != lab.UNKNOWN
        np.testing.assert_array_equal(observed[known], truth[known])
        for value, count in ((lab.POSITIVE, positives), (lab.NEGATIVE, negatives)):
            available = (truth == value).sum(axis=1)
            np.testing.assert_array_equal(
                (observed == value).sum(axis=1), np.minimum(available, count)
            )

    def test_kept_negatives_do_not_change_the_positives(self):
        truth = fixed_matrix()
        one, both = lab.draw_observed(truth), lab.draw_observed(truth, num_negatives=2)
        np.testing.assert_array_equal(one == 1, both == 1)

    def test_refuses_negative_counts(self):
        with pytest.raises(ValueError, match="at least 0"):
            lab.draw_observed(fixed_matrix(), num_positives=-1)


class TestSplit:
    def test_sizes_of_the_published_splits(self):
        for total, train, val in ((5717, 4574, 1143), (82081, 65665, 16416), (5994, 4795, 1199)):
            first, second = lab.split_indices(total)
            assert (len(first), len(second)) == (train, val)

    def test_follows_the_protocol(self):
        order = np.random.RandomState(1200).permutation(50)
        train, val = lab.split_indices(50)
        assert train.dtype == val.dtype == np.int64
        np.testing.assert_array_equal(train, sorted(order[:40]))
        np.testing.assert_array_equal(val, sorted(order[40:]))

    @settings(deadline=None)
    @given(st.integers(0, 200), st.floats(0, 0.99), st.integers(0, 99))
    def test_divides(self, n, fraction, seed):
        train, val = lab.split_indices(n, fraction, seed)
        np.testing.assert_array_equal(np.sort(np.concatenate([train, val])), np.arange(n))
        assert len(val) == round(fraction * n)

    def test_refuses(self):
        with pytest.raises(ValueError, match="val_fraction"):
            lab.split_indices(10, 1.0)
        with pytest.raises(ValueError, match="n must"):
            lab.split_indices(-1)


def test_positives_per_image():
    assert lab.positives_per_image([[1, 1, 0], [0, 1, 0], [1, 1, -1]]) == 1.5
    with pytest.raises(ValueError, match="no image is fully labelled"):
        lab.positives_per_image([[1, -1]])


NAMES = ("a.jpg", 'comma, "quoted".jpg', "süß/c.jpg")
CLASSES = ("cat", "dog, small")


class TestFile:
    def test_format(self, tmp_path):
        lab.write_observed(tmp_path / "l.csv", [[1, -1], [-1, 0], [-1, -1]], NAMES, CLASSES)
        expected = 'image,class,label\na.jpg,cat,1\n"comma, ""quoted"".jpg","dog, small",0\n'
        assert (tmp_path / "l.csv").read_text(encoding="utf-8") == expected
        assert [path.name for path in tmp_path.iterdir()] == ["l.csv"]

    @settings(deadline=None, max_examples=40)
    @given(hnp.arrays(np.int8, (3, 2), elements=st.sampled_from([1, 0, -1])))
    def test_round_trip(self, tmp_path_factory, matrix):
        path = tmp_path_factory.mktemp("labels") / "observed.csv"
        lab.write_observed(path, matrix, NAMES, CLASSES)
        np.testing.assert_array_equal(lab.read_observed(path, NAMES, CLASSES), matrix)

    def test_reads_what_spreadsheets_write(self, tmp_path):
        path = tmp_path / "l.csv"
        path.write_bytes(b"\xef\xbb\xbfimage,class,label\r\na.jpg,cat,1\r\n\r\na.jpg,cat,1\r\n")
        observed = lab.read_observed(path, NAMES, CLASSES)
        np.testing.assert_array_equal(observed, [[1, -1], [-1, -1], [-1, -1]])

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", r"l\.csv:1: the first line must be image,class,label"),
            (b"a.jpg,cat,1\n", r"l\.csv:1: the first line must be"),
            (b"image,class,label\na.jpg,cat,1\nb.jpg,cat,1\n", r":3: unknown image 'b\.jpg'"),
            (b"image,class,label\na.jpg,cow,1\n", r":2: unknown class 'cow'.*cat, dog"),
            (b"image,class,label\na.jpg,cat,-1\n", r":2: the label must be 1 or 0, found '-1'"),
            (b"image,class,label\na.jpg,cat\n", r":2: expected .*found 2 fields"),
            (b"image,class,label\na.jpg,cat,1\na.jpg,cat,0\n", r":3: 'cat' of 'a\.jpg' is 0 here"),
            (b"image,class,label\na.jpg,cat,1\n\xfc.jpg,cat,1\n", r":3: not UTF-8"),
            (b'image,class,label\n"a.jpg,cat,1\n', r":2: not valid CSV"),
        ],
    )
    def test_mistakes(self, tmp_path, content, message):
        path = tmp_path / "l.csv"
        path.write_bytes(content)
        with pytest.raises(UserError, match=message) as caught:
            lab.read_observed(path, NAMES, CLASSES)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)

    def test_missing_file_and_folder(self, tmp_path):
        with pytest.raises(UserError, match="none.csv: cannot read the labels"):
            lab.read_observed(tmp_path / "none.csv", NAMES, CLASSES)
        with pytest.raises(UserError, match="cannot write the labels"):
            lab.write_observed(tmp_path / "no" / "l.csv", [[1]], ["a"], ["cat"])

    def test_failed_write_keeps_the_old_file(self, tmp_path, monkeypatch):
        path = tmp_path / "l.csv"
        lab.write_observed(path, [[1]], ["a"], ["cat"])

        def fail(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(lab.os, "fsync", fail)
        with pytest.raises(UserError, match="No space left"):
            lab.write_observed(path, [[0]], ["a"], ["cat"])
        assert lab.read_observed(path, ["a"], ["cat"]) == [[1]]
        assert [entry.name for entry in tmp_path.iterdir()] == ["l.csv"]

    def test_refuses_names_that_do_not_fit(self, tmp_path):
        with pytest.raises(ValueError, match="do not fit"):
            lab.write_observed(tmp_path / "l.csv", [[1, 0]], ["a"], ["cat"])
