"""CUB-200-2011's own files, in miniature."""

from __future__ import annotations

import dataclasses
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from miniature import write_cub, write_ids

from spml_tf.datasets import readers
from spml_tf.datasets.readers import cub
from spml_tf.system.errors import UserError

# The archive's README: images.txt holds "<image_id> <image_name>", train_test_split.txt
# "<image_id> <is_training_image>" ("a value of 1 or 0 ... denotes that the file is in the training
# or test set"), attributes/attributes.txt "<attribute_id> <attribute_name>", and
# attributes/image_attribute_labels.txt "<image_id> <attribute_id> <is_present> <certainty_id>
# <time>". certainties.txt: 1 not visible, 2 guessing, 3 probably, 4 definitely.
IMAGES = (
    "001.Albatross/A_1.jpg",
    "001.Albatross/A_2.jpg",
    "002.Auklet/B_1.jpg",
    "002.Auklet/B.jpg",
)
ATTRIBUTES = ("has_bill_shape::dagger", "has_bill_shape::curved_(up_or_down)", "has_size::small")
# Images by attributes, as "<is_present> <certainty_id>".
ANSWERS = (
    ("1 4", "0 3", "0 1"),
    ("0 2", "1 3", "1 4"),
    ("0 4", "1 1", "0 4"),
    ("1 2", "1 2", "1 2"),
)
TRAINING = (1, 0, 1, 1)


@dataclasses.dataclass
class Tree:
    top: Path

    @property
    def root(self) -> Path:
        return self.top / "CUB_200_2011"

    @property
    def answers(self) -> Path:
        return self.root / "attributes" / "image_attribute_labels.txt"

    def load(self, split: str = "train", **options):
        return readers.load("cub", str(self.top), split, **options)

    def edit(self, old: str, new: str) -> None:
        text = self.answers.read_text()
        assert text.count(old) == 1
        self.answers.write_text(text.replace(old, new))


def make(top: Path) -> Tree:
    tree = Tree(top)
    for name in IMAGES:
        path = tree.root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    write_cub(tree.root, IMAGES, TRAINING, ATTRIBUTES, ANSWERS)
    return tree


@pytest.fixture
def tree(tmp_path) -> Tree:
    return make(tmp_path / "birds")


class TestReads:
    def test_the_training_images_in_order(self, tree):
        examples = tree.load()
        assert examples.names == tuple(f"images/{IMAGES[row]}" for row in (0, 2, 3))
        assert examples.paths[1] == str(tree.root / "images" / IMAGES[2])
        assert examples.class_names == ATTRIBUTES and examples.notes == ()
        assert examples.labels.dtype == np.int8
        np.testing.assert_array_equal(examples.labels, [[1, 0, 0], [0, 1, 0], [1, 1, 1]])

    def test_the_test_image(self, tree):
        examples = tree.load("test")
        assert examples.names == (f"images/{IMAGES[1]}",)
        np.testing.assert_array_equal(examples.labels, [[0, 1, 1]])

    def test_table(self):
        reader = readers.READERS["cub"]
        assert reader.split_names("x", {}) == ("train", "none", "test")
        assert reader.train_labels == "single" and reader.needs_data_dir

    def test_the_folder_itself_and_the_one_above_it(self, tree, monkeypatch):
        expected = tree.load().fingerprint()
        monkeypatch.chdir(tree.root)
        assert cub.load(".").fingerprint() == expected

    @pytest.mark.parametrize("place", ["CUB_200_2011", "."])
    def test_attributes_beside_the_folder(self, tree, place):
        """The README says attributes/attributes.txt, the archive holds ../attributes.txt."""
        path = tree.root / "attributes" / "attributes.txt"
        path.rename(tree.top / place / "attributes.txt")
        assert tree.load().class_names == ATTRIBUTES

    @pytest.mark.parametrize(
        ("least", "expected", "note"),
        [
            (1, [[1, 0, 0], [0, 1, 0], [1, 1, 1]], None),
            (2, [[1, 0, -1], [0, -1, 0], [1, 1, 1]], "2 of 9 answers of the train images are less"),
            (3, [[1, 0, -1], [0, -1, 0], [-1, -1, -1]], "5 of 9 .* certain than 'probably': unkn"),
            (4, [[1, -1, -1], [0, -1, 0], [-1, -1, -1]], "6 of 9 .* certain than 'definitely'"),
        ],
    )
    def test_certainty(self, tree, least, expected, note):
        examples = tree.load(min_certainty=least)
        np.testing.assert_array_equal(examples.labels, expected)
        assert len(examples.notes) == (note is not None)
        if note:
            assert re.match(note, examples.notes[0])

    @pytest.mark.parametrize("least", [0, 5, -1, 2.5])
    def test_certainty_that_cannot_be(self, tree, least):
        with pytest.raises(UserError, match=f"--min_certainty={least}: must be 1, 2, 3 or 4"):
            cub.load(tree.top, min_certainty=least)

    def test_ids_need_no_order(self, tree):
        """Ids name rows; only images.txt and attributes.txt say in which order they come."""
        expected = tree.load()
        lines = tree.answers.read_text().splitlines()
        tree.answers.write_text("\n".join([*lines[5:], "", *lines[:5]]))
        (tree.root / "attributes" / "attributes.txt").write_text(
            "".join(f"{number} {ATTRIBUTES[number - 1]}\n" for number in (3, 1, 2))
        )
        examples = tree.load()
        assert examples.class_names == (ATTRIBUTES[2], *ATTRIBUTES[:2])
        np.testing.assert_array_equal(examples.labels, expected.labels[:, [2, 0, 1]])

    @pytest.mark.parametrize("newline", ["\r\n", "\n\n"])
    def test_line_ends(self, tree, newline):
        expected = tree.load().fingerprint()
        for path in (tree.answers, tree.root / "images.txt", tree.root / "train_test_split.txt"):
            path.write_bytes(path.read_text().replace("\n", newline).encode())
        assert tree.load().fingerprint() == expected and tree.load().notes == ()

    def test_byte_order_mark(self, tree):
        expected = tree.load().fingerprint()
        tree.answers.write_bytes(b"\xef\xbb\xbf" + tree.answers.read_bytes())
        assert tree.load().fingerprint() == expected


class TestIrregularRows:
    """Published rows of images 2275 and 9364 are like "2275 10 0 1 0  1.509": a 0 too many."""

    def test_more_columns(self, tree):
        expected = tree.load().labels
        tree.edit("3 2 1 1 4.500", "3 2 1 1 0  4.500")
        tree.edit("4 1 1 2 6.000", "4 1 1 2 0  6.000")
        examples = tree.load()
        np.testing.assert_array_equal(examples.labels, expected)
        assert examples.notes == (
            "image_attribute_labels.txt: rows with more or fewer than 5 columns: 2, the first is "
            "for image 3 and attribute 2: their first four columns are used",
        )

    def test_the_first_row(self, tree):
        tree.edit("1 1 1 4 1.500", "1 1 1 4 0  1.500")
        assert "the first is for image 1 and attribute 1" in tree.load().notes[0]

    def test_without_times(self, tree):
        expected = tree.load().labels
        rows = [line.split()[:4] for line in tree.answers.read_text().splitlines()]
        tree.answers.write_text("\n".join(" ".join(row) for row in rows))
        examples = tree.load()
        np.testing.assert_array_equal(examples.labels, expected)
        assert "more or fewer than 5 columns: 12," in examples.notes[0]


ROW = "expected an image id, an attribute id, 0 or 1, a certainty of 1 to 4 and a time, found"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "2 2 1 3 3.000\n",
            "",
            r"no answer for image 2 and attribute 2 \(1 of 12 are missing\); get",
        ),
        ("2 2 1 3 3.000", "2 1 1 3 3.000", r":5: a second answer for this image and .* '2 1 1 3 3"),
        (
            "2 2 1 3 3.000",
            "5 2 1 3 3.000",
            r":5: expected an image id that is in images\.txt, .*'5",
        ),
        ("2 2 1 3 3.000", "0 2 1 3 3.000", r":5: expected an image id that is in images\.txt"),
        ("2 2 1 3 3.000", "-2 2 1 3 3.000", r":5: expected an image id that is in images\.txt"),
        ("2 2 1 3 3.000", "2 4 1 3 3.000", r":5: expected an attribute id that is in attributes"),
        ("2 2 1 3 3.000", "2 2 2 3 3.000", r":5: expected 0 or 1 in column 3, found '2 2 2 3 3"),
        ("2 2 1 3 3.000", "2 2 -1 3 3.000", r":5: expected 0 or 1 in column 3"),
        ("2 2 1 3 3.000", "2 2 1 0 3.000", r":5: expected 1, 2, 3 or 4 in column 4"),
        ("2 2 1 3 3.000", "2 2 1 5 3.000", r":5: expected 1, 2, 3 or 4 in column 4"),
        ("2 2 1 3 3.000", "\n\n2 2 1 5 3.000", r":7: expected 1, 2, 3 or 4 in column 4"),
        ("2 2 1 3 3.000", "2 2 1", rf":5: {ROW} '2 2 1'; get CUB_200_2011\.tgz"),
        ("2 2 1 3 3.000", "2 2 one 3 3.000", rf":5: {ROW} '2 2 one 3 3\.000'"),
        ("2 2 1 3 3.000", "2 2 1.5 3 3.000", rf":5: {ROW}"),
        ("2 2 1 3 3.000", "2 2 nan 3 3.000", rf":5: {ROW}"),
        ("2 2 1 3 3.000", "2 2 null 3 3.000", rf":5: {ROW}"),
        ("2 2 1 3 3.000", "99999999999999999999 2 1 3 3.000", rf":5: {ROW}"),
        ("2 2 1 3 3.000", "2\u00b2 2 1 3 3.000", rf":5: {ROW}"),
    ],
)
def test_malformed_answers(tree, old, new, message):
    tree.edit(old, new)
    with pytest.raises(UserError, match=rf"image_attribute_labels\.txt.*{message}") as caught:
        tree.load()
    assert "\n" not in str(caught.value)


def test_cut_answers(tree):
    """Wherever the file ends before its last certainty, it is refused."""
    content = tree.answers.read_bytes()
    last = content.rindex(b" ")
    for size in range(last):
        tree.answers.write_bytes(content[:size])
        with pytest.raises(UserError, match=r"image_attribute_labels\.txt"):
            tree.load()
    tree.answers.write_bytes(content[:last])
    assert len(tree.load().notes) == 1


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("images.txt", "", r"images\.txt: names no image"),
        ("images.txt", "1\n", r"images\.txt:1: expected an image id and a name, found '1'"),
        ("images.txt", "one a.jpg\n", r"images\.txt:1: expected an image id and a name"),
        ("images.txt", "1 a\x07.jpg\n", r"images\.txt:1: expected an image id and a name"),
        (
            "images.txt",
            "1 a.jpg\n1 b.jpg\n",
            r"images\.txt:2: '1 b\.jpg': this id or name is there",
        ),
        (
            "images.txt",
            "1 a.jpg\n2 a.jpg\n",
            r"images\.txt:2: '2 a\.jpg': this id or name is there",
        ),
        ("images.txt", b"\xff\xd8\xff", r"images\.txt:1: not UTF-8"),
        ("train_test_split.txt", "1 1\n", r"split\.txt: no line for image 2, which is in images"),
        ("train_test_split.txt", "1 1 1\n", r"split\.txt:1: expected an image id and 1 or 0"),
        ("train_test_split.txt", "1 yes\n", r"split\.txt:1: expected an image id and 1 or 0"),
        ("train_test_split.txt", "1 1\n9 1\n", r"split\.txt:2: image 9 is not in images\.txt"),
        ("train_test_split.txt", "1 1\n1 0\n", r"split\.txt:2: image 1 is there twice"),
        ("train_test_split.txt", "1 0\n2 0\n3 0\n4 0\n", r"split\.txt: no image of the train spl"),
        ("train_test_split.txt", b"\x80", r"split\.txt:1: not UTF-8"),
        ("attributes/attributes.txt", "\n", r"attributes\.txt: names no attribute"),
        ("attributes/attributes.txt", "1 a\n2 a\n", r"attributes\.txt:2: '2 a': this id or name"),
        ("attributes/image_attribute_labels.txt", "", r"labels\.txt: holds no answer"),
        ("attributes/image_attribute_labels.txt", " \n", r"labels\.txt: holds no answer"),
        ("attributes/image_attribute_labels.txt", b"\xff\x00", r"labels\.txt:1: not UTF-8"),
        ("attributes/image_attribute_labels.txt", b"\x00\x01", r"labels\.txt:1: expected an im"),
    ],
)
def test_malformed_files(tree, file, content, message):
    path = tree.root / file
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as caught:
        tree.load()
    assert "\n" not in str(caught.value)


class TestMissing:
    @pytest.mark.parametrize(
        "file", ["train_test_split.txt", "attributes/image_attribute_labels.txt"]
    )
    def test_file(self, tree, file):
        (tree.root / file).unlink()
        with pytest.raises(UserError, match=rf"{file}: cannot be read .* get CUB_200_2011\.tgz"):
            tree.load()
        (tree.root / file).mkdir()
        with pytest.raises(UserError, match=rf"{file}: cannot be read \(Is a directory\)"):
            tree.load()

    def test_folder(self, tree, tmp_path):
        hint = r"get CUB_200_2011\.tgz"
        with pytest.raises(UserError, match=f"data_dir: CUB-200-2011 needs its folder; {hint}"):
            cub.load(None)
        with pytest.raises(UserError, match=rf"no images\.txt in .*none or in its .*; {hint}"):
            cub.load(tmp_path / "none")
        (tree.root / "attributes" / "attributes.txt").unlink()
        with pytest.raises(UserError, match=rf"no attributes\.txt in .*attributes, .*; {hint}"):
            tree.load()

    def test_photo(self, tree):
        (tree.root / "images" / IMAGES[2]).unlink()
        with pytest.raises(UserError, match=r"B_1\.jpg: the photo is missing \(1 of 3 are\); get"):
            tree.load()
        assert len(tree.load("test")) == 1

    @pytest.mark.parametrize("name", ["../images.txt", "001.Albatross/../../images.txt"])
    def test_photo_outside(self, tree, name):
        write_ids(tree.root / "images.txt", (name, *IMAGES[1:]))
        with pytest.raises(UserError, match="leaves the data folder"):
            tree.load()

    def test_linked_photo(self, tree):
        path = tree.root / "images" / IMAGES[0]
        path.unlink()
        path.symlink_to(tree.root / "images" / IMAGES[1])
        with pytest.raises(UserError, match="is a symbolic link"):
            tree.load()
        assert len(tree.load(allow_outside=True)) == 3

    def test_split(self, tree):
        with pytest.raises(UserError, match="split: CUB-200-2011 has train, test, found 'val'"):
            tree.load("val")


@settings(max_examples=60)
@given(st.data())
def test_answers_are_what_was_written(data):
    """Any order, any ids, any certainty: checked by plain loops."""
    numbers = st.integers(0, 10**9 - 1)
    images = data.draw(st.lists(numbers, min_size=1, max_size=4, unique=True))
    attributes = data.draw(st.lists(numbers, min_size=1, max_size=4, unique=True))
    least = data.draw(st.integers(1, 4))
    pairs = [(image, attribute) for image in images for attribute in attributes]
    answer = st.tuples(st.integers(0, 1), st.integers(1, 4))
    answers = {pair: data.draw(answer) for pair in pairs}
    tails = {pair: data.draw(st.sampled_from(["", " 1.5", " 0  1.5"])) for pair in pairs}
    with tempfile.TemporaryDirectory() as folder:
        tree = make(Path(folder) / "x")
        lines = [f"{number} images{number}.jpg\n" for number in images]
        (tree.root / "images.txt").write_text("".join(lines))
        for number in images:
            (tree.root / "images" / f"images{number}.jpg").write_bytes(b"x")
        lines = [f"{number} 1\n" for number in reversed(images)]
        (tree.root / "train_test_split.txt").write_text("".join(lines))
        lines = [f"{number} a{number}\n" for number in attributes]
        (tree.root / "attributes" / "attributes.txt").write_text("".join(lines))
        lines = [
            f"{pair[0]} {pair[1]} {answers[pair][0]} {answers[pair][1]}{tails[pair]}\n"
            for pair in data.draw(st.permutations(pairs))
        ]
        tree.answers.write_text("".join(lines))
        examples = tree.load(min_certainty=least)
    for row, image in enumerate(images):
        for column, attribute in enumerate(attributes):
            present, certainty = answers[image, attribute]
            assert examples.labels[row, column] == (present if certainty >= least else -1)
    irregular = sum(tail != " 1.5" for tail in tails.values())
    assert any(f"5 columns: {irregular}," in note for note in examples.notes) == (irregular > 0)


@settings(max_examples=80)
@given(
    st.sampled_from(
        [
            "images.txt", "train_test_split.txt", "attributes/attributes.txt",
            "attributes/image_attribute_labels.txt",
        ]
    ),
    st.binary(max_size=30) | st.text("0123456 \n\r\t-.e#\"a", max_size=30).map(str.encode),
)  # fmt: skip
def test_any_content_is_read_or_refused_in_one_line(file, content):
    with tempfile.TemporaryDirectory() as folder:
        tree = make(Path(folder) / "x")
        (tree.root / file).write_bytes(content)
        try:
            tree.load().fingerprint()
        except UserError as error:
            assert "\n" not in str(error)
