"""Readers: the examples they return, the table of data sets, the digit scenes."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time

import numpy as np
import pytest

from spml_tf.datasets import readers, splits
from spml_tf.datasets.readers import Examples, digits
from spml_tf.datasets.settings import DataSettings, resolved
from spml_tf.system.errors import UserError


def small_examples(**changes) -> Examples:
    parts = {
        "names": ("a", "b", "c"),
        "labels": np.array([[1, 0, -1], [0, 1, 1], [0, 0, 1]], np.int8),
        "class_names": ("x", "y", "z"),
        "images": np.arange(3 * 2 * 2 * 3, dtype=np.uint8).reshape(3, 2, 2, 3),
        "boxes": tuple(
            np.array([[c, 0, 0, 1, 1] for c in row], np.float32) for row in ([0], [1, 2], [2])
        ),
    }
    return Examples(**{**parts, **changes})


class TestExamples:
    def test_subset(self):
        part = small_examples().subset([2, 0])
        assert len(part) == 2 and part.names == ("c", "a")
        np.testing.assert_array_equal(part.labels, [[0, 0, 1], [1, 0, -1]])
        np.testing.assert_array_equal(part.images, small_examples().images[[2, 0]])
        assert [box[0, 0] for box in part.boxes] == [2, 0]

    def test_parts_of_an_image_stay_together(self):
        whole = small_examples(
            areas=tuple(np.array(x, np.float32) for x in ([0.1], [0.2, 0.3], [0.4])),
            observed=np.array([[1, -1, -1], [-1, -1, 1], [-1, -1, 1]], np.int8),
            notes=("one",),
        )
        part = whole.subset([1, 0])
        np.testing.assert_array_equal(part.observed, [[-1, -1, 1], [1, -1, -1]])
        assert [x.tolist() for x in part.areas] == [pytest.approx([0.2, 0.3]), pytest.approx([0.1])]
        kept = whole.restrict(["z"])
        assert kept.names == ("b", "c") and kept.notes == ("one",)
        np.testing.assert_array_equal(kept.observed, [[1], [1]])
        assert [x.tolist() for x in kept.areas] == [pytest.approx([0.3]), pytest.approx([0.4])]
        assert [x[:, 0].tolist() for x in kept.boxes] == [[0], [0]]

    def test_areas_are_the_boxes_own_where_unknown(self):
        boxes = (np.array([[0, 0.25, 0.5, 0.75, 1]], np.float32),) * 3
        assert small_examples(boxes=boxes).areas[0].tolist() == [0.25]

    def test_restrict_orders_classes_and_drops_images(self):
        part = small_examples().restrict(["z", "y"])
        assert part.class_names == ("z", "y") and part.names == ("b", "c")
        np.testing.assert_array_equal(part.labels, [[1, 1], [1, 0]])
        np.testing.assert_array_equal(part.boxes[0][:, 0], [1, 0])
        np.testing.assert_array_equal(part.boxes[1][:, 0], [0])

    @pytest.mark.parametrize("classes", [["x", "w"], [], ["x", "x"]])
    def test_restrict_refuses(self, classes):
        with pytest.raises(UserError, match="unknown class 'w'; the classes are x, y, z|once"):
            small_examples().restrict(classes)

    def test_fingerprint_sees_every_part(self, tmp_path):
        base = small_examples()
        changed = base.images.copy()
        changed[2, 1, 1, 2] += 1
        path = tmp_path / "p.jpg"
        path.write_bytes(b"abc")
        files = small_examples(images=None, paths=(str(path),) * 3)
        prints = [
            base.fingerprint(),
            small_examples(names=("a", "b", "d")).fingerprint(),
            small_examples(class_names=("x", "y", "w")).fingerprint(),
            small_examples(labels=np.ones((3, 3), np.int8)).fingerprint(),
            small_examples(images=changed).fingerprint(),
            files.fingerprint(),
        ]
        path.write_bytes(b"abcd")
        prints.append(files.fingerprint())
        assert len(set(prints)) == len(prints)
        assert small_examples().fingerprint() == base.fingerprint()
        assert len(base.fingerprint()) == 64

    @pytest.mark.parametrize(
        "changes",
        [
            {"names": ("a", "b")},
            {"names": ("a", "b", "a")},
            {"images": None},
            {"paths": ("a", "b", "c")},
            {"boxes": ()},
            {"offsets": np.zeros(2, np.int64)},
            {"observed": np.zeros((3, 2), np.int8)},
            {"observed": np.full((3, 3), 2)},
            {"labels": np.full((3, 3), 2)},
        ],
    )
    def test_refuses_parts_that_do_not_fit(self, changes):
        with pytest.raises(ValueError):
            small_examples(**changes)


def test_table():
    assert set(readers.READERS) >= {"digits", "voc"}
    with pytest.raises(UserError, match="--dataset=mnist: unknown; the data sets are "):
        readers.load("mnist", None, "train", 0)
    assert not readers.READERS["digits"].needs_data_dir
    reader = readers.READERS["voc"]
    assert reader.split_names("x", {}) == ("train", "none", "val")


@pytest.fixture(scope="module")
def scenes() -> dict[str, Examples]:
    started = time.process_time()
    loaded = {split: readers.load("digits", None, split, 7) for split in digits.SPLITS}
    # About 3 s on one core of an ordinary machine.
    assert time.process_time() - started < 20
    return loaded


class TestDigits:
    def test_counts_and_shapes(self, scenes):
        for split, count in (("train", 4000), ("val", 1000), ("test", 1000)):
            examples = scenes[split]
            assert examples.images.shape == (count, 64, 64, 3)
            assert examples.images.dtype == np.uint8
            assert examples.names[3] == f"{split}/00003"
            assert examples.class_names == tuple("0123456789")

    def test_labels(self, scenes):
        for examples in scenes.values():
            per_scene = examples.labels.sum(axis=1)
            assert set(per_scene) == {1, 2, 3, 4}
            assert 2.4 < per_scene.mean() < 2.6
            per_class = examples.labels.sum(axis=0)
            assert 3.5 < per_class.max() / per_class.min() < 6

    def test_boxes_are_the_labels(self, scenes):
        for examples in scenes.values():
            for present, boxes in zip(examples.labels, examples.boxes, strict=True):
                assert boxes.dtype == np.float32
                np.testing.assert_array_equal(np.sort(boxes[:, 0]), np.flatnonzero(present))

    def test_box_sizes(self, scenes):
        boxes = np.concatenate(scenes["train"].boxes)[:, 1:]
        assert boxes.min() >= 0 and boxes.max() <= 1
        longer = (boxes[:, 2:] - boxes[:, :2]).max(axis=1) * 64
        # The trimmed box can be a little smaller than the size drawn.
        assert longer.min() >= 10 and longer.max() <= 30
        assert len(np.unique(longer)) >= 19

    def test_digits_hardly_overlap(self, scenes):
        for boxes in scenes["val"].boxes:
            corners = np.rint(boxes[:, 1:] * 64).astype(int)
            for number, (y1, x1, y2, x2) in enumerate(corners):
                own = np.zeros((64, 64), bool)
                own[y1:y2, x1:x2] = True
                for top, left, bottom, right in corners[:number]:
                    shared = own[top:bottom, left:right].sum()
                    assert shared <= 0.1 * min(own.sum(), (bottom - top) * (right - left))

    def test_boxes_are_tight(self, scenes):
        """Lines just inside a box show ink, lines just outside do not."""
        inside, outside = [], []
        examples = scenes["val"]
        for image, boxes in zip(examples.images, examples.boxes, strict=True):
            y1, x1, y2, x2 = np.rint(boxes[0, 1:] * 64).astype(int)
            if len(boxes) > 1 or min(y1, x1) < 1 or max(y2, x2) > 63:
                continue
            gray = image.mean(axis=2)
            for line in (gray[y1, x1:x2], gray[y2 - 1, x1:x2], gray[y1:y2, x1]):
                inside.append(np.abs(line - np.median(gray)).max())
            for line in (gray[y1 - 1, x1:x2], gray[y2, x1:x2], gray[y1:y2, x1 - 1]):
                outside.append(np.abs(line - np.median(gray)).max())
        assert len(inside) > 300
        assert np.mean(inside) > 1.8 * np.mean(outside)

    def test_light_and_dark_strokes(self, scenes):
        examples = scenes["val"]
        lighter = []
        for image, boxes in zip(examples.images, examples.boxes, strict=True):
            y1, x1, y2, x2 = np.rint(boxes[0, 1:] * 64).astype(int)
            lighter.append(image[y1:y2, x1:x2].mean() > np.median(image))
        assert 0.4 < np.mean(lighter) < 0.6

    def test_splits_share_no_digit(self):
        parts = [digits.source_indices(split, 7) for split in digits.SPLITS]
        np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(1797))
        from sklearn.datasets import load_digits

        for part in parts:
            assert np.bincount(load_digits().target[part], minlength=10).min() >= 25
        assert not np.array_equal(parts[1], digits.source_indices("val", 8))

    def test_same_in_another_process_and_order(self, scenes):
        code = (
            "from spml_tf.datasets.readers import digits\n"
            "print(digits.load(None, 'test', 7).fingerprint())\n"
            "print(digits.load(None, 'val', 7).fingerprint())"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        )
        expected = [scenes[split].fingerprint() for split in ("test", "val")]
        assert done.stdout.split() == expected

    def test_seeds_and_splits_differ(self, scenes):
        other = digits.load(None, "val", 8)
        assert not np.array_equal(other.images, scenes["val"].images)
        assert not np.array_equal(scenes["test"].images, scenes["val"].images)

    def test_mistakes(self):
        with pytest.raises(UserError, match="split: digits have train, val, test, found 'dev'"):
            digits.load(None, "dev")
        with pytest.raises(UserError, match="data_dir: digits are made, not read"):
            digits.load("/data", "train")


def test_a_split_that_is_not_there_is_told_with_its_flag():
    given = DataSettings(dataset="digits", test_split="real")
    given = dataclasses.replace(given, **resolved(given))
    for flag, split, named in ((None, "real", "--test_split"), ("split", "x", "--split")):
        with pytest.raises(UserError, match=f"^{named}: digits have train, val, test, found"):
            splits.load_examples(given, split, flag=flag)
