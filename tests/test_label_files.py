"""The file of observed labels and the split."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spml_tf.datasets import label_files
from spml_tf.system import files
from spml_tf.system.errors import UserError

NAMES = ("a.jpg", 'comma, "quoted".jpg', "süß/c.jpg")
CLASSES = ("cat", "dog, small")


class TestFile:
    def test_format(self, tmp_path):
        label_files.write_observed(
            tmp_path / "l.csv", [[1, -1], [-1, 0], [-1, -1]], NAMES, CLASSES, ("v.jpg",)
        )
        expected = (
            "image,split,class,label\na.jpg,train,cat,1\n"
            '"comma, ""quoted"".jpg",train,"dog, small",0\n'
            "süß/c.jpg,train,,\nv.jpg,val,,\n"
        )
        assert (tmp_path / "l.csv").read_text(encoding="utf-8") == expected
        assert [path.name for path in tmp_path.iterdir()] == ["l.csv"]

    @settings(max_examples=40)
    @given(hnp.arrays(np.int8, (3, 2), elements=st.sampled_from([1, 0, -1])))
    def test_round_trip(self, tmp_path_factory, matrix):
        path = tmp_path_factory.mktemp("labels") / "observed.csv"
        label_files.write_observed(path, matrix, NAMES, CLASSES)
        observed, held_out = label_files.read_observed(path, NAMES, CLASSES)
        np.testing.assert_array_equal(observed, matrix)
        assert held_out.tolist() == [False] * 3

    def test_reads_what_spreadsheets_write(self, tmp_path):
        path = tmp_path / "l.csv"
        path.write_bytes(b"\xef\xbb\xbfimage,class,label\r\na.jpg,cat,1\r\n\r\na.jpg,cat,1\r\n")
        observed, held_out = label_files.read_observed(path, NAMES, CLASSES)
        np.testing.assert_array_equal(observed, [[1, -1], [-1, -1], [-1, -1]])
        assert held_out is None

    def test_reads_the_split(self, tmp_path):
        path = tmp_path / "l.csv"
        label_files.write_observed(path, [[1, -1], [-1, 0]], NAMES[:2], CLASSES, NAMES[2:])
        observed, held_out = label_files.read_observed(path, NAMES, CLASSES)
        np.testing.assert_array_equal(observed, [[1, -1], [-1, 0], [-1, -1]])
        assert held_out.tolist() == [False, False, True]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", r"l\.csv:1: the first line must be image,class,label"),
            (b"image,split,class,label\na.jpg,dev,cat,1\n", r":2: the split must be train or val"),
            (
                b"image,split,class,label\na.jpg,val,cat,1\n",
                r":2: labels of val are the data set's",
            ),
            (
                b"image,split,class,label\na.jpg,train,cat,1\na.jpg,val,,\n",
                r":3: 'a\.jpg' is in both splits",
            ),
            (b"image,split,class,label\na.jpg,train,cat,1\n", r"l\.csv: 'comma.*has no row"),
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
            label_files.read_observed(path, NAMES, CLASSES)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)

    def test_missing_file_and_folder(self, tmp_path):
        with pytest.raises(UserError, match="none.csv: cannot be read"):
            label_files.read_observed(tmp_path / "none.csv", NAMES, CLASSES)
        with pytest.raises(UserError, match="the labels: cannot be written"):
            label_files.write_observed(tmp_path / "no" / "l.csv", [[1]], ["a"], ["cat"])

    def test_failed_write_keeps_the_old_file(self, tmp_path, monkeypatch):
        path = tmp_path / "l.csv"
        label_files.write_observed(path, [[1]], ["a"], ["cat"])

        def fail(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(files.os, "fsync", fail)
        with pytest.raises(UserError, match="No space left"):
            label_files.write_observed(path, [[0]], ["a"], ["cat"])
        assert label_files.read_observed(path, ["a"], ["cat"])[0] == [[1]]
        assert [entry.name for entry in tmp_path.iterdir()] == ["l.csv"]

    def test_refuses_names_that_do_not_fit(self, tmp_path):
        with pytest.raises(ValueError, match="do not fit"):
            label_files.write_observed(tmp_path / "l.csv", [[1, 0]], ["a"], ["cat"])
