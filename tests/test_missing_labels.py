"""Ranking of missing and wrong labels, checkpoints and heatmap regions, by hand."""

from __future__ import annotations

import re

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spml_tf.evaluation import missing_labels
from spml_tf.evaluation.missing_labels import Candidate
from spml_tf.runs.checkpoint_contents import read_checkpoint
from spml_tf.system.errors import UserError

SCORES = np.array([[0.9, 0.2, 0.6], [0.6, 0.8, np.nan], [0.1, 0.6, 0.7]], np.float32)
OBSERVED = np.array([[1, -1, -1], [-1, 1, -1], [0, -1, 1]], np.int8)
GIVEN = np.array([[1, -1], [-1, 0]], np.int8)


def cells(found: list[Candidate]) -> list[tuple[int, int]]:
    return [(x.image, x.label) for x in found]


def test_unknown_labels_by_score():
    """Three tie at 0.6 and stay in the images' order; the NaN and what is known are left out."""
    found = missing_labels.rank_missing(SCORES, OBSERVED)
    assert cells(found) == [(0, 2), (1, 0), (2, 1), (0, 1)]
    assert found[3].score == pytest.approx(0.2) and found[3].epochs_selected is None
    assert cells(missing_labels.rank_missing(SCORES, OBSERVED, limit=2)) == [(0, 2), (1, 0)]


def test_the_more_often_selected_of_a_tie_comes_first():
    """The count is uint8: 0 - 255 must not wrap."""
    times = np.array([[0, 255, 0], [3, 0, 0], [0, 4, 0]], np.uint8)
    found = missing_labels.rank_missing(SCORES, OBSERVED, times)
    assert cells(found) == [(2, 1), (1, 0), (0, 2), (0, 1)]
    assert [x.epochs_selected for x in found] == [4, 3, 0, 255]


def test_annotated_positives_by_low_score():
    assert cells(missing_labels.rank_wrong(SCORES, OBSERVED)) == [(2, 2), (1, 1), (0, 0)]


def test_precision_by_hand():
    truth = np.array([[1, 0, 1], [0, 1, 1], [0, 1, 1]], np.int8)
    found = missing_labels.rank_missing(SCORES, OBSERVED)  # 1, 0, 1, 0
    shares = missing_labels.precision_at(found, truth, (1, 2, 3, 4, 5))
    assert shares == pytest.approx({1: 100.0, 2: 50.0, 3: 200 / 3, 4: 50.0})


def test_region_by_hand():
    """Half of 0.8 is 0.4: the corner neighbour belongs to the peak, what stands apart does not."""
    heatmap = np.array(
        [[0.1, 0.1, 0.1, 0.5], [0.1, 0.8, 0.1, 0.1], [0.4, 0.1, 0.1, 0.1], [0.1, 0.3, 0.1, 0.79]]
    )
    peak, box = missing_labels.peak_region(heatmap)
    assert peak == (0.375, 0.375)
    assert box == (0.25, 0.0, 0.75, 0.5)


@given(hnp.arrays(np.float64, (3, 5), elements=st.floats(0, 1)))
def test_the_box_holds_the_peak(heatmap):
    (y, x), (y1, x1, y2, x2) = missing_labels.peak_region(heatmap)
    assert 0 <= y1 < y < y2 <= 1 and 0 <= x1 < x < x2 <= 1
    assert heatmap[int(y * 3), int(x * 5)] == heatmap.max()


class TestCheckpoint:
    def write(self, path, values, selected=None):
        with h5py.File(path, "w") as file:
            file["ema_scores/vars/0"] = values
            file["ema_scores/vars/1"] = np.array([True, False])
            file["label_store/vars/0"] = np.array([[1, 2], [-1, 0]], np.int8)
            if selected is not None:
                file["label_store/vars/1"] = selected

    @pytest.mark.parametrize(
        "values", [np.array([[51, 255], [7, 7]], np.uint8), np.array([[0.2, 1], [0.5, 0.5]], "f4")]
    )
    def test_reads_any_storage(self, tmp_path, values):
        """51 of 255 is 0.2; the second image was never visited."""
        self.write(tmp_path / "c.h5", values, np.array([[0, 3], [0, 0]], np.uint8))
        saved = read_checkpoint(tmp_path / "c.h5", GIVEN)
        assert saved.scores.dtype == np.float32
        np.testing.assert_allclose(saved.scores, [[0.2, 1.0], [np.nan, np.nan]], rtol=1e-6)
        assert saved.epochs_selected.tolist() == [[0, 3], [0, 0]]

    def test_selection_may_not_be_counted(self, tmp_path):
        self.write(tmp_path / "c.h5", np.zeros((2, 2), "f4"))
        assert read_checkpoint(tmp_path / "c.h5", GIVEN).epochs_selected is None

    def test_a_method_may_mark_nothing(self, tmp_path):
        self.write(tmp_path / "c.h5", np.zeros((2, 2), "f4"))
        with h5py.File(tmp_path / "c.h5", "a") as file:
            del file["label_store"]
        assert read_checkpoint(tmp_path / "c.h5", GIVEN).epochs_selected is None

    @pytest.mark.parametrize(
        ("scores", "selected", "what"),
        [((3, 2), None, "scores"), ((2, 2), (2, 3), "selections")],
    )
    def test_other_images_or_classes(self, tmp_path, scores, selected, what):
        counts = None if selected is None else np.zeros(selected, np.uint8)
        self.write(tmp_path / "c.h5", np.zeros(scores, "f4"), counts)
        shape = re.escape(f"holds {what} {selected or scores} for labels (2, 2)")
        with pytest.raises(UserError, match=rf"c\.h5: {shape}; train this run again"):
            read_checkpoint(tmp_path / "c.h5", GIVEN)

    def test_mistakes(self, tmp_path):
        with pytest.raises(UserError, match=r"c\.h5: missing"):
            read_checkpoint(tmp_path / "c.h5", GIVEN)
        with h5py.File(tmp_path / "c.h5", "w") as file:
            file["label_store/vars/0"] = np.zeros((2, 2), np.int8)
        with pytest.raises(UserError, match=r"c\.h5: holds no running averages.*--keep_scores"):
            read_checkpoint(tmp_path / "c.h5", GIVEN)
        with h5py.File(tmp_path / "c.h5", "a") as file:
            file.create_group("ema_scores")
        with pytest.raises(UserError, match=r"c\.h5: cannot be read .*vars"):
            read_checkpoint(tmp_path / "c.h5", GIVEN)
        (tmp_path / "c.h5").write_bytes(b"no HDF5")
        with pytest.raises(UserError, match=r"c\.h5: cannot be read .*; train this run again"):
            read_checkpoint(tmp_path / "c.h5", GIVEN)
