"""Readers: the examples they return, the digit scenes, Pascal VOC."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spml_tf import readers
from spml_tf.errors import UserError
from spml_tf.readers import Examples, digits, voc


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
            "from spml_tf.readers import digits\n"
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


ANNOTATION = """<annotation><filename>p.jpg</filename>
<size><width>50</width><height>40</height><depth>3</depth></size>
<object><name>person</name><difficult>0</difficult>
 <part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>
 </part>
 <bndbox><xmin>11</xmin><ymin>1</ymin><xmax>50</xmax><ymax>20.0</ymax></bndbox></object>
<object><name>dog</name><difficult>1</difficult>
 <bndbox><xmax>50</xmax><xmin>26</xmin><ymax>40</ymax><ymin>21</ymin></bndbox></object>
</annotation>
"""
# dog: three kinds of mark; the fourth photo shows difficult objects only.
MARKS = {
    "2008_000002": {"person": "1", "dog": "0"},
    "2007_000001": {"dog": "1"},
    "2009_000003": {"cat": "1"},
    "2010_000004": {"cat": "0"},
}


@pytest.fixture
def voc_root(tmp_path: Path) -> Path:
    """A miniature VOCdevkit in the official format."""
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in ("ImageSets/Main", "JPEGImages", "Annotations"):
        (root / folder).mkdir(parents=True)
    main = root / "ImageSets" / "Main"
    (main / "train.txt").write_text("".join(f"{stem}\n" for stem in MARKS))
    for name in voc.CLASS_NAMES:
        lines = [f"{stem} {marks.get(name, '-1'):>2}\n" for stem, marks in MARKS.items()]
        (main / f"{name}_train.txt").write_text("".join(lines))
    for stem in MARKS:
        Image.new("RGB", (50, 40), (90, 120, 30)).save(root / "JPEGImages" / f"{stem}.jpg")
    (root / "Annotations" / "2008_000002.xml").write_text(ANNOTATION)
    return root


def column(examples: Examples, name: str) -> list[int]:
    return examples.labels[:, examples.class_names.index(name)].tolist()


class TestVoc:
    def test_reads_labels_in_order(self, voc_root):
        examples = voc.load(voc_root, "train")
        stems = ["2007_000001", "2008_000002", "2009_000003"]
        assert examples.names == tuple(f"JPEGImages/{stem}.jpg" for stem in stems)
        assert all(os.path.isabs(path) and os.path.isfile(path) for path in examples.paths)
        assert column(examples, "dog") == [1, 0, 0]
        assert column(examples, "person") == [0, 1, 0]
        assert examples.class_names == tuple(sorted(voc.CLASS_NAMES)) and len(voc.CLASS_NAMES) == 20

    def test_accepts_the_devkit_and_relative_folders(self, voc_root, monkeypatch):
        expected = voc.load(voc_root).fingerprint()
        monkeypatch.chdir(voc_root.parent.parent)
        examples = readers.load("voc", "VOCdevkit", "train", 0)
        assert examples.fingerprint() == expected
        assert all(os.path.isabs(path) for path in examples.paths)

    @pytest.mark.parametrize(
        ("rule", "dog", "cat"),
        [
            ("negative", [1, 0, 0], [0, 0, 1]),
            ("unknown", [1, -1, 0], [0, 0, 1]),
            ("positive", [1, 1, 0, 0], [0, 0, 1, 1]),
        ],
    )
    def test_difficult_rule(self, voc_root, rule, dog, cat):
        examples = voc.load(voc_root, "train", difficult=rule)
        assert column(examples, "dog") == dog and column(examples, "cat") == cat

    def test_boxes(self, voc_root):
        boxes = voc.load(voc_root, "train").boxes
        assert [len(rows) for rows in boxes] == [0, 1, 0]
        person, dog = (voc.CLASS_NAMES.index(name) for name in ("person", "dog"))
        np.testing.assert_allclose(boxes[1], [[person, 0, 0.2, 0.5, 1]])
        boxes = voc.load(voc_root, "train", difficult="positive").boxes
        np.testing.assert_allclose(boxes[1], [[person, 0, 0.2, 0.5, 1], [dog, 0.5, 0.5, 1, 1]])

    def test_without_annotations(self, voc_root):
        (voc_root / "Annotations" / "2008_000002.xml").unlink()
        (voc_root / "Annotations").rmdir()
        assert voc.load(voc_root, "train").boxes is None

    @pytest.mark.parametrize(
        ("file", "change", "message"),
        [
            ("dog_train.txt", "2007_000001 7\n", r"dog_train\.txt:5: expected an image name and"),
            ("dog_train.txt", "2007_000001\n", r"dog_train\.txt:5: expected an image name and"),
            ("dog_train.txt", "2007_999999 -1\n", r"dog_train\.txt:5: 2007_999999 is not in train"),
            ("dog_train.txt", "2007_000001 -1\n", r":5: 2007_000001 has a second mark"),
            ("train.txt", "2011_000005\n", r"aeroplane_train\.txt: no mark for 2011_000005"),
            ("train.txt", "2007_000001\n", r"train\.txt:5: 2007_000001 is in the list twice"),
            ("train.txt", "2011_000005 1\n", r"train\.txt:5: expected one image name"),
        ],
    )
    def test_malformed_lists(self, voc_root, file, change, message):
        with (voc_root / "ImageSets" / "Main" / file).open("a") as stream:
            stream.write(change)
        with pytest.raises(UserError, match=message):
            voc.load(voc_root, "train")

    @pytest.mark.parametrize("content", ["<annotation>", "<annotation></annotation>"])
    def test_malformed_annotation(self, voc_root, content):
        (voc_root / "Annotations" / "2008_000002.xml").write_text(content)
        with pytest.raises(UserError, match=r"2008_000002\.xml: not a VOC annotation"):
            voc.load(voc_root, "train")

    def test_annotation_of_an_unknown_class(self, voc_root):
        text = ANNOTATION.replace("<name>person</name>", "<name>unicorn</name>")
        (voc_root / "Annotations" / "2008_000002.xml").write_text(text)
        with pytest.raises(UserError, match="not a VOC annotation"):
            voc.load(voc_root, "train")

    def test_missing_things(self, voc_root, tmp_path):
        hint = "VOCtrainval_11-May-2012.*ImageSets/Main"
        with pytest.raises(UserError, match=f"data_dir: Pascal VOC needs its folder.*{hint}"):
            voc.load(None)
        with pytest.raises(UserError, match=f"no ImageSets/Main in .*elsewhere.*{hint}"):
            voc.load(tmp_path / "elsewhere")
        with pytest.raises(UserError, match=rf"val\.txt: cannot be read.*{hint}"):
            voc.load(voc_root, "val")
        with pytest.raises(UserError, match="split: Pascal VOC 2012 has train, val, trainval"):
            voc.load(voc_root, "test")
        (voc_root / "JPEGImages" / "2009_000003.jpg").unlink()
        with pytest.raises(UserError, match=r"2009_000003\.jpg: the photo is missing"):
            voc.load(voc_root, "train")

    def test_list_without_positives(self, voc_root):
        for name in ("dog", "cat", "person"):
            path = voc_root / "ImageSets" / "Main" / f"{name}_train.txt"
            path.write_text("".join(f"{stem} -1\n" for stem in MARKS))
        with pytest.raises(UserError, match=r"train\.txt: no photo of this list"):
            voc.load(voc_root, "train")

    def test_list_that_is_no_text(self, voc_root):
        (voc_root / "ImageSets" / "Main" / "train.txt").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(UserError, match=r"train\.txt:1: not UTF-8"):
            voc.load(voc_root, "train")

    def test_unknown_rule(self, voc_root):
        with pytest.raises(ValueError, match="difficult"):
            voc.load(voc_root, difficult="maybe")

    def test_2007(self, voc_root):
        """The layout of 2012, with a test split; the devkit may hold both years."""
        old = voc_root.with_name("VOC2007")
        shutil.copytree(voc_root, old)
        for path in (old / "ImageSets" / "Main").glob("*train.txt"):
            path.rename(path.with_name(path.name.replace("train.txt", "test.txt")))
        examples = readers.load("voc2007", str(voc_root.parent), "test")
        assert examples.paths[0].startswith(str(old)) and len(examples) == 3
        assert readers.find("voc2007").split_names("x", {}) == ("trainval", "none", "test")
        with pytest.raises(UserError, match="VOC 2007 has train, val, trainval, test, found 'dev'"):
            voc.load(voc_root.parent, "dev", year=2007)

    def test_notes(self, voc_root):
        left_out, bare = sorted(voc.load(voc_root, "train").notes)[::-1]
        assert left_out.endswith("train.txt: 1 of 4 photos have no positive label and are left out")
        assert bare.endswith("Annotations: 2 of 3 photos have no annotation, hence no boxes")

    @pytest.mark.parametrize(
        "text",
        [
            '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]>' + ANNOTATION,
            ANNOTATION.replace("<xmin>11", "<xmin>nan"),
            ANNOTATION.replace("<width>50", "<width>0"),
        ],
    )
    def test_annotations_that_are_refused(self, voc_root, text):
        (voc_root / "Annotations" / "2008_000002.xml").write_text(text)
        with pytest.raises(UserError, match=r"2008_000002\.xml: not a VOC annotation"):
            voc.load(voc_root, "train")

    def test_annotations_of_other_encodings(self, voc_root):
        text = '<?xml version="1.0" encoding="ISO-8859-1"?>' + ANNOTATION.replace("p.jpg", "é.jpg")
        path = voc_root / "Annotations" / "2008_000002.xml"
        path.write_bytes(text.replace("\n", "\r\n").encode("latin-1"))
        assert [len(rows) for rows in voc.load(voc_root, "train").boxes] == [0, 1, 0]


@pytest.mark.skipif(
    "SPML_TF_TEST_DATA" not in os.environ,
    reason="needs real photos: set SPML_TF_TEST_DATA to a folder with VOCdevkit",
)
@pytest.mark.parametrize(
    ("split", "count", "per_class"),
    [
        ("train", 1864, [664, 582, 408, 280, 202, 183, 88, 85]),
        ("val", 1729, [655, 541, 359, 245, 155, 152, 75, 75]),
    ],
)
def test_real_photos(split, count, per_class):
    folder = os.path.join(os.environ["SPML_TF_TEST_DATA"], "VOCdevkit")
    examples = readers.load("voc", folder, split, 0)
    assert len(examples) == count and list(examples.names) == sorted(examples.names)
    eight = examples.restrict("dog cat person horse sheep cow sofa chair".split())
    assert len(eight) == count
    assert eight.labels.sum(axis=0).tolist() == per_class
