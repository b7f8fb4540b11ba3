"""Pascal VOC's own files, in miniature, and real photos."""

from __future__ import annotations

import itertools
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from miniature import write_voc
from PIL import Image

from spml_tf.datasets import readers
from spml_tf.datasets.readers import Examples, voc
from spml_tf.system.errors import UserError

# After the development kit's documentation (host.robots.ox.ac.uk/pascal/VOC/voc2007/htmldoc): a
# line of CLASS_train.txt holds an image's identifier and -1 (no object of the class), 1 (at least
# one) or 0 (only objects marked as "difficult"). Annotations/*.xml give each object's name and
# bounding box in pixels, where the top-left pixel has the coordinates (1, 1); a person's parts,
# such as the head, have boxes of their own.
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
    for folder in ("JPEGImages", "Annotations"):
        (root / folder).mkdir(parents=True)
    columns = {
        name: [marks.get(name, "-1") for marks in MARKS.values()] for name in voc.CLASS_NAMES
    }
    write_voc(root, "train", list(MARKS), columns)
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

    def test_unknown_year(self, voc_root):
        with pytest.raises(ValueError, match=r"year: expected one of \(2012, 2007\), found 2010"):
            voc.load(voc_root, year=2010)

    def test_areas_are_the_boxes_own(self, voc_root):
        """The person's box is half of 40 pixels high and four fifths of 50 wide."""
        areas = voc.load(voc_root, "train").areas
        assert [x.tolist() for x in areas] == [[], [pytest.approx(0.4)], []]

    def test_notes(self, voc_root):
        """2010_000004 has a difficult cat only, and 2008_000002 a difficult dog beside a person."""
        notes = voc.load(voc_root, "train").notes
        assert notes == (
            f"{voc_root}/ImageSets/Main/train.txt: 1 of 4 photos have no positive label and are "
            "left out, the first is 2010_000004",
            f"{voc_root}/Annotations: photos without an annotation file, hence without boxes: 2",
            f"{voc_root}/Annotations: boxes of difficult objects, left out: 1",
        )
        notes = voc.load(voc_root, "train", difficult="positive").notes
        assert notes == (
            f"{voc_root}/Annotations: photos without an annotation file, hence without boxes: 3",
        )

    def test_lists_with_other_line_ends(self, voc_root):
        expected = voc.load(voc_root, "train").fingerprint()
        for path in (voc_root / "ImageSets" / "Main").iterdir():
            path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n").rstrip())
        assert voc.load(voc_root, "train").fingerprint() == expected


@pytest.fixture
def devkit(voc_root) -> Path:
    """Both years in one VOCdevkit; the lists of 2007 are its test split's."""
    old = voc_root.with_name("VOC2007")
    shutil.copytree(voc_root, old)
    for path in (old / "ImageSets" / "Main").glob("*train.txt"):
        path.rename(path.with_name(path.name.replace("train.txt", "test.txt")))
    return voc_root.parent


class TestYears:
    def test_2007(self, devkit):
        examples = readers.load("voc2007", str(devkit), "test")
        assert examples.fingerprint() == voc.load(devkit, "train").fingerprint()
        assert examples.paths[0].startswith(str(devkit / "VOC2007"))
        assert voc.load(devkit / "VOC2007", "test", year=2007).names == examples.names
        assert readers.find("voc2007").split_names("x", {}) == ("trainval", "none", "test")

    def test_mistakes(self, devkit):
        with pytest.raises(UserError, match="VOC 2007 has train, val, trainval, test, found 'dev'"):
            voc.load(devkit, "dev", year=2007)
        with pytest.raises(UserError, match=r"VOC2012 is not of .* 2007; get .*VOCtest_06-Nov"):
            readers.load("voc2007", str(devkit / "VOC2012"), "train")
        with pytest.raises(UserError, match=r"VOC2007 is not of .* 2012; get .*11-May-2012\.tar"):
            readers.load("voc", str(devkit / "VOC2007"), "train")

    @pytest.mark.parametrize("dataset", ["voc", "voc2007"])
    def test_the_year_is_no_option(self, devkit, dataset):
        with pytest.raises(UserError, match="--year: this data set does not take it"):
            readers.load(dataset, str(devkit), "train", year=2007)
        unknown = readers.load(dataset, str(devkit), "test" if "7" in dataset else "train",
                               difficult="unknown")  # fmt: skip
        assert column(unknown, "dog") == [1, -1, 0]


def with_annotation(root: Path, content: str | bytes) -> Examples:
    """The images, one of them with this annotation file."""
    path = root / "Annotations" / "2008_000002.xml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return voc.load(root, "train")


# Each entity is ten times the one before: a kilobyte that stands for ten gigabytes.
BOMB = "<!DOCTYPE annotation [<!ENTITY a 'aaaaaaaaaa'>"
for before, entity in itertools.pairwise("abcdefghij"):
    BOMB += f"<!ENTITY {entity} '" + f"&{before};" * 10 + "'>"
BOMB += "]>"


class TestAnnotations:
    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("</annotation>", "", "no element found: line 10"),
            (ANNOTATION, "", "no element found: line 1"),
            (ANNOTATION, "<annotation></annotation>", "no size/height"),
            (ANNOTATION, "\0", "line 1, column 0"),
            (ANNOTATION, "<a>" * 100_000, "no element found"),
            ("<width>50", "<width>0", "size/width must be a number of at least 1, found '0'"),
            ("<height>40", "<height>-40", "size/height must be a number of at least 1"),
            ("<height>40", "<height>", "size/height must be a number of at least 1, found ''"),
            ("<xmin>11", "<xmin>nan", "xmin must be a number, found 'nan'"),
            ("<xmin>11", "<xmin>1e999", "xmin must be a number, found '1e999'"),
            ("<xmin>11", "<xmin>left", "xmin must be a number, found 'left'"),
            ("<xmin>11</xmin>", "", "no xmin"),
            ("<xmin>11", "<xmin>51", "a bndbox ends before it begins: 51,1 to 50,20"),
            ("<ymin>1</ymin><xmax>50", "<ymin>21</ymin><xmax>50", "ends before it begins"),
            ("</bndbox></object>\n<object>", "</bndbox><bndbox/></object><object>", "2 bndbox"),
            ("<name>person</name>", "<name>unicorn</name>", "unknown class 'unicorn'"),
            ("<name>person</name>", "", "unknown class ''"),
            ("<difficult>0", "<difficult>no", "difficult must be 0 or 1, found 'no'"),
            ("<annotation>", BOMB + "<annotation>&j;", "declares a document type"),
            ("<annotation>", '<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation>', "declares a"),
            ("<annotation>", '<?xml version="1.0" encoding="none"?><annotation>', "unknown encod"),
            ("p.jpg", "\udce9.jpg", r"not well-formed \(invalid token\): line 1, column 2"),
        ],
    )
    def test_malformed(self, voc_root, old, new, message):
        assert old in ANNOTATION
        content = ANNOTATION.replace(old, new, 1).encode("utf-8", "surrogateescape")
        with pytest.raises(UserError, match=rf"2008_000002\.xml: not a VOC .*{message}") as caught:
            with_annotation(voc_root, content)
        assert "\n" not in str(caught.value) and "VOCtrainval_11-May-2012" in str(caught.value)

    def test_a_document_type_in_any_encoding_is_refused(self, voc_root):
        with pytest.raises(UserError, match="declares a document type"):
            with_annotation(voc_root, f"<!DOCTYPE annotation>{ANNOTATION}".encode("utf-16"))
        with_annotation(voc_root, ANNOTATION.replace("p.jpg", "<![CDATA[p]]><!-- p -->"))

    def test_every_cut_is_refused(self, voc_root):
        for end in range(0, len(ANNOTATION.rstrip()), 7):
            with pytest.raises(UserError, match="not a VOC annotation"):
                with_annotation(voc_root, ANNOTATION[:end])

    def test_every_element_without_its_text_or_name(self, voc_root):
        """Whatever is wrong, the reader reads on or says so in one line."""
        for tag in sorted(set(re.findall(r"<(\w+)>", ANNOTATION))):
            for old, new in ((f"<{tag}>[^<]*</{tag}>", ""), (f"<{tag}>[^<]*<", f"<{tag}>?<"),
                             (f"<(/?){tag}>", r"<\1other>")):  # fmt: skip
                try:
                    with_annotation(voc_root, re.sub(old, new, ANNOTATION))
                except UserError as error:
                    assert "2008_000002.xml: not a VOC" in str(error) and "\n" not in str(error)

    def test_other_encodings_and_line_ends(self, voc_root):
        expected = with_annotation(voc_root, ANNOTATION).boxes[1]
        text = '<?xml version="1.0" encoding="ISO-8859-1"?>' + ANNOTATION.replace("p.jpg", "é.jpg")
        content = text.replace("\n", "\r\n").encode("latin-1")
        np.testing.assert_array_equal(with_annotation(voc_root, content).boxes[1], expected)

    def test_boxes_beyond_the_photo(self, voc_root):
        """50 pixels wide: to 51 may come of counting from 0 or 1, to 60 is told."""
        almost = with_annotation(voc_root, ANNOTATION.replace("<xmax>50", "<xmax>51"))
        beyond = with_annotation(voc_root, ANNOTATION.replace("<xmax>50", "<xmax>60"))
        np.testing.assert_array_equal(almost.boxes[1], beyond.boxes[1])
        assert beyond.boxes[1][0, 4] == 1
        told = f"{voc_root}/Annotations: boxes that reach beyond their photo, clipped to it: 1"
        assert told in beyond.notes and told not in almost.notes

    def test_files_that_cannot_be_read(self, voc_root):
        path = voc_root / "Annotations" / "2008_000002.xml"
        path.unlink()
        path.mkdir()
        with pytest.raises(UserError, match=r"2008_000002\.xml: not a VOC .*Is a directory"):
            voc.load(voc_root, "train")


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
