"""NUS-WIDE's own files, in miniature."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from miniature import write_nuswide

from spml_tf.datasets import readers
from spml_tf.datasets.readers import nuswide
from spml_tf.system.errors import UserError

# The official repository's README (NExTplusplus/NUS-WIDE): "Labels_<concept>_Train.txt and
# Labels_<concept>_Test.txt represent the labels for 81 concepts on the training and test sets ...
# Each file contains one row per image, with a binary value (0 or 1)". Rows are in the order of
# ImageList/TrainImagelist.txt, whose lines are like "actor\0001_2124494179.jpg".
PHOTOS = ("actor/0001_21.jpg", "actor/0002_22.jpg", "zoo/0001_23.jpg", "zoo/0007_24.jpg")
CONCEPTS = ("sky", "bear", "lake")
# A row per concept, a column per photo; the third photo shows none.
MARKS = {"sky": "1101", "bear": "0100", "lake": "1000"}


@dataclasses.dataclass
class Tree:
    root: Path

    @property
    def labels(self) -> Path:
        return self.root / "Groundtruth" / "TrainTestLabels"

    @property
    def train_list(self) -> Path:
        return self.root / "ImageList" / "TrainImagelist.txt"

    def load(self, split: str = "train", **options):
        return readers.load("nuswide", str(self.root), split, **options)

    def move(self, pattern: str) -> None:
        """Moves every photo to a name with its {folder} and {file}."""
        for name in PHOTOS:
            folder, file = name.split("/")
            target = self.root / pattern.format(folder=folder, file=file)
            target.parent.mkdir(parents=True, exist_ok=True)
            (self.root / "Flickr" / name).rename(target)


def make(root: Path) -> Tree:
    for name in PHOTOS:
        (root / "Flickr" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "Flickr" / name).write_bytes(b"x")
    for part, order in (("Train", slice(None)), ("Test", slice(2, None, -1))):
        marks = {concept: row[order] for concept, row in MARKS.items()}
        write_nuswide(root, part, PHOTOS[order], marks)
    return Tree(root)


@pytest.fixture
def tree(tmp_path) -> Tree:
    return make(tmp_path / "NUS-WIDE")


def joined(notes) -> str:
    return "\n".join(notes)


class TestReads:
    def test_photos_and_labels_in_the_files_order(self, tree):
        examples = tree.load()
        assert examples.names == PHOTOS and examples.class_names == CONCEPTS
        assert examples.paths == tuple(str(tree.root / "Flickr" / name) for name in PHOTOS)
        assert examples.labels.dtype == np.int8
        np.testing.assert_array_equal(examples.labels, [[1, 0, 1], [1, 1, 0], [0, 0, 0], [1, 0, 0]])

    def test_the_test_split(self, tree):
        examples = tree.load("test")
        assert examples.names == PHOTOS[2::-1]
        np.testing.assert_array_equal(examples.labels, [[0, 0, 0], [1, 1, 0], [1, 0, 1]])

    def test_table(self):
        reader = readers.READERS["nuswide"]
        assert reader.split_names("x", {}) == ("train", "none", "test")
        assert reader.train_labels == "single" and reader.needs_data_dir

    def test_photos_without_a_concept_are_kept_and_both_means_told(self, tree):
        """Five positives: 5 / 4 = 1.25 per photo, 5 / 3 = 1.67 per photo that has one."""
        assert tree.load().notes == (
            "3 concepts; NUS-WIDE has 81",
            "1 of 4 photos of TrainImagelist.txt show none of the concepts: kept (1.25 positives "
            "per photo with them, 1.67 without: K of equation 3 must be the mean over the photos "
            "trained on); --unlabelled=drop leaves them out",
        )

    def test_photos_without_a_concept_are_dropped_on_demand(self, tree):
        examples = tree.load(unlabelled="drop")
        assert examples.names == (*PHOTOS[:2], PHOTOS[3])
        assert examples.paths[2].endswith("0007_24.jpg")
        assert "left out (1.25 positives per photo with them, 1.67 without)" in examples.notes[-1]

    def test_no_note_where_every_photo_shows_something(self, tree):
        (tree.labels / "Labels_bear_Train.txt").write_text("0\n1\n1\n0\n")
        for rule in ("keep", "drop"):
            assert tree.load(unlabelled=rule).notes == ("3 concepts; NUS-WIDE has 81",)

    def test_without_a_list_of_concepts_they_are_sorted(self, tree):
        (tree.root / "ConceptsList" / "Concepts81.txt").unlink()
        examples = tree.load()
        assert examples.class_names == ("bear", "lake", "sky")
        np.testing.assert_array_equal(examples.labels[0], [0, 1, 1])
        (tree.root / "Concepts81.txt").write_text("lake\r\nsky\r\nbear\r\n")
        assert tree.load().class_names == ("lake", "sky", "bear")

    def test_concepts_that_the_list_leaves_out_are_told(self, tree):
        (tree.root / "ConceptsList" / "Concepts81.txt").write_text("sky\n\nbear\n")
        examples = tree.load()
        assert examples.class_names == ("sky", "bear")
        assert "1 label files of concepts that are not in the list" in examples.notes[0]
        assert "the first is Labels_lake_Train.txt" in examples.notes[0]

    def test_labels_without_the_folder_groundtruth(self, tree):
        tree.labels.rename(tree.root / "TrainTestLabels")
        assert tree.load().names == PHOTOS

    @pytest.mark.parametrize("ending", ["\n\n\n", " \n", "\r\n\r\n", ""])
    def test_blank_ends_and_line_ends(self, tree, ending):
        text = "\r\n".join(MARKS["sky"]) + ending
        (tree.labels / "Labels_sky_Train.txt").write_bytes(text.encode())
        tree.train_list.write_bytes((tree.train_list.read_text().strip() + ending).encode())
        assert tree.load().labels[:, 0].tolist() == [1, 1, 0, 1]

    def test_eighty_one_concepts_need_no_note(self, tree):
        names = [f"concept{number:02d}" for number in range(81)]
        (tree.root / "ConceptsList" / "Concepts81.txt").write_text("\n".join(names))
        for path in tree.labels.iterdir():
            path.unlink()
        for name in names:
            (tree.labels / f"Labels_{name}_Train.txt").write_text("1\n" * 4)
        examples = tree.load()
        assert examples.labels.shape == (4, 81) and examples.notes == ()


class TestPublishedDefects:
    def test_the_spoiled_mark_is_unknown(self, tree):
        """Line 78,372 of the published Labels_lake_Train.txt is -1130179: no answer."""
        (tree.labels / "Labels_lake_Train.txt").write_text("1\n0\n0\n-1130179\n")
        examples = tree.load()
        assert examples.labels[:, 2].tolist() == [1, 0, 0, -1]
        assert (
            "Labels_lake_Train.txt: -1130179, as published, is neither 0 nor 1: unknown labels: 1"
            in examples.notes
        )

    def test_elsewhere_it_is_an_error(self, tree):
        (tree.labels / "Labels_sky_Train.txt").write_text("1\n0\n0\n-1130179\n")
        with pytest.raises(UserError, match=r"sky_Train\.txt:4: expected 0 or 1, found '-1130179'"):
            tree.load()

    def test_a_photo_listed_twice(self, tree):
        """The lines agree on sky, and not on bear."""
        with tree.train_list.open("a") as file:
            file.write("actor\\0001_21.jpg\n")
        for concept, mark in (("sky", 1), ("bear", 1), ("lake", 1)):
            with (tree.labels / f"Labels_{concept}_Train.txt").open("a") as file:
                file.write(f"{mark}\n")
        examples = tree.load()
        assert examples.names == PHOTOS
        assert examples.labels[0].tolist() == [1, -1, 1]
        assert "photos listed again: 1, the first is actor/0001_21.jpg: kept once" in joined(
            examples.notes
        )


class TestPhotos:
    @pytest.mark.parametrize(
        "pattern", ["images/{folder}/{file}", "Flickr/{folder}/{file}"], ids=["images", "Flickr"]
    )
    def test_in_sub_folders(self, tree, pattern):
        tree.move(pattern)
        examples = tree.load()
        assert examples.names == PHOTOS
        assert examples.paths[0] == str(
            tree.root / pattern.format(folder="actor", file="0001_21.jpg")
        )

    @pytest.mark.parametrize("folder", ["Flickr", "images"])
    def test_flat(self, tree, folder):
        """Names stay the list's, so that labels drawn for one layout fit the other."""
        (tree.root / "Flickr" / PHOTOS[2]).rename(tree.root / "Flickr" / "zoo" / "0003_23.jpg")
        text = tree.train_list.read_text().replace("zoo\\0001", "zoo\\0003")
        tree.train_list.write_text(text)
        for path in list((tree.root / "Flickr").glob("*/*.jpg")):
            (tree.root / folder).mkdir(exist_ok=True)
            path.rename(tree.root / folder / path.name)
        examples = tree.load()
        assert examples.names == (*PHOTOS[:2], "zoo/0003_23.jpg", PHOTOS[3])
        assert examples.paths[3] == str(tree.root / folder / "0007_24.jpg")

    def test_flat_names_of_two_photos_are_left_out(self, tree):
        tree.train_list.write_text(tree.train_list.read_text().replace("0002_22", "0001_23"))
        for path in list((tree.root / "Flickr").glob("*/*.jpg")):
            path.rename(tree.root / "Flickr" / path.name)
        examples = tree.load()
        assert examples.names == (PHOTOS[0], PHOTOS[3])
        assert examples.labels.tolist() == [[1, 0, 1], [1, 0, 0]]
        assert "2 listed photos have the file name of another" in joined(examples.notes)
        assert "the first is actor/0001_23.jpg" in joined(examples.notes)

    def test_the_place_with_most_photos_is_used(self, tree):
        tree.move("images/{folder}/{file}")
        (tree.root / "Flickr" / "0001_21.jpg").write_bytes(b"x")
        assert all("/images/" in path for path in tree.load().paths)

    def test_photos_that_are_gone_are_counted(self, tree):
        (tree.root / "Flickr" / PHOTOS[1]).unlink()
        (tree.root / "Flickr" / PHOTOS[2]).unlink()
        examples = tree.load()
        assert examples.names == (PHOTOS[0], PHOTOS[3])
        assert examples.labels.tolist() == [[1, 0, 1], [1, 0, 0]]
        assert examples.notes[1:] == (
            "2 of 4 photos of TrainImagelist.txt are missing and left out, the first is "
            "actor/0002_22.jpg; train and compare on the same set",
        )

    def test_all_are_gone(self, tree):
        for path in (tree.root / "Flickr").glob("*/*.jpg"):
            path.unlink()
        looked = "looked for Flickr/actor/0001_21.jpg, Flickr/0001_21.jpg, images/actor/0001_21.jpg"
        with pytest.raises(UserError, match=f"none of its 4 photos .*{looked}.*get ImageList"):
            tree.load()

    def test_the_positives_are_gone(self, tree):
        for name in (PHOTOS[0], PHOTOS[1], PHOTOS[3]):
            (tree.root / "Flickr" / name).unlink()
        with pytest.raises(UserError, match=r"TrainImagelist\.txt: no photo of this list has a"):
            tree.load()

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("..\\secret.jpg", "leaves the data folder"),
            ("actor\\..\\..\\secret.jpg", "leaves the data folder"),
            ("actor\\link.jpg", "is a symbolic link"),
            ("linked\\0001_21.jpg", "lies behind a symbolic link"),
        ],
    )
    def test_names_that_lead_elsewhere(self, tree, name, message):
        (tree.root / "Flickr" / "actor" / "link.jpg").symlink_to(tree.root / "Flickr" / PHOTOS[0])
        (tree.root / "Flickr" / "linked").symlink_to(tree.root / "Flickr" / "actor")
        text = tree.train_list.read_text().replace("actor\\0002_22.jpg", name)
        tree.train_list.write_text(text)
        with pytest.raises(UserError, match=rf"TrainImagelist\.txt:2: .* {message}"):
            tree.load()
        if "link" in message:
            assert len(tree.load(allow_outside=True)) == 4


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("list", "", r"TrainImagelist\.txt: names no photo"),
        ("list", "\r\n\r\n", r"TrainImagelist\.txt: names no photo"),
        ("list", "a\\b.jpg\n", r"Labels_sky_Train\.txt: 4 labels, but .*list\.txt names 1 photos"),
        ("list", "a\0b\n", r"TrainImagelist\.txt:1: not a photo's name, found 'a\\x00b'"),
        ("list", b"\xff\xd8\xff\xe0", r"TrainImagelist\.txt:1: not UTF-8"),
        ("labels", "1\n1\n0\n", r"Labels_sky_Train\.txt: 3 labels, but .*names 4 photos"),
        ("labels", "", r"Labels_sky_Train\.txt: 0 labels, but"),
        ("labels", "1\n1\n0\n1\n0\n", r"Labels_sky_Train\.txt: 5 labels, but"),
        ("labels", "1101", r"Labels_sky_Train\.txt:1: expected 0 or 1, found '1101'"),
        ("labels", "1\n-1\n0\n1\n", r"Labels_sky_Train\.txt:2: expected 0 or 1, found '-1'"),
        ("labels", "1\n\n2\n0\n1\n", r"Labels_sky_Train\.txt:3: expected 0 or 1, found '2'"),
        ("labels", "1\n1.0\n0\n1\n", r"Labels_sky_Train\.txt:2: expected 0 or 1, found '1\.0'"),
        ("labels", "10\n1\n0\n", r"Labels_sky_Train\.txt:1: expected 0 or 1, found '10'"),
        ("labels", "1 1\n0\n2\n", r"Labels_sky_Train\.txt:1: expected 0 or 1, found '1 1'"),
        ("labels", "1\n\u0661\n0\n1\n", r"Labels_sky_Train\.txt:2: expected 0 or 1, found"),
        ("labels", "1\nnan\n0\n1\n", r"Labels_sky_Train\.txt:2: expected 0 or 1, found 'nan'"),
        ("labels", b"\x00\x01\xfe\xff", r"Labels_sky_Train\.txt:1: not UTF-8"),
        ("concepts", "sky\nbear\nsky\n", r"Concepts81\.txt:3: sky is in the list twice"),
        ("concepts", "sky\nunicorn\n", r"Concepts81\.txt:2: no Labels_unicorn_Train\.txt in"),
        ("concepts", "../../x\n", r"Concepts81\.txt:1: no Labels_\.\./\.\./x_Train\.txt in"),
        ("concepts", "\n", r"Concepts81\.txt: names no concept"),
        ("concepts", b"\xff", r"Concepts81\.txt:1: not UTF-8"),
    ],
)
def test_malformed(tree, file, content, message):
    path = {
        "list": tree.train_list,
        "labels": tree.labels / "Labels_sky_Train.txt",
        "concepts": tree.root / "ConceptsList" / "Concepts81.txt",
    }[file]
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as caught:
        tree.load()
    assert "\n" not in str(caught.value)


class TestMissing:
    def test_folders(self, tree, tmp_path):
        hint = "get ImageList, Groundtruth and ConceptsList .* Flickr"
        with pytest.raises(UserError, match=f"data_dir: NUS-WIDE needs its folder; {hint}"):
            nuswide.load(None)
        with pytest.raises(UserError, match=f"no ImageList in .*elsewhere; {hint}"):
            nuswide.load(tmp_path / "elsewhere")
        tree.train_list.unlink()
        with pytest.raises(UserError, match=rf"TrainImagelist\.txt: cannot be read .*{hint}"):
            tree.load()
        tree.train_list.mkdir()
        with pytest.raises(UserError, match=r"TrainImagelist\.txt: cannot be read \(Is a direc"):
            tree.load()

    def test_labels(self, tree):
        (tree.labels / "Labels_bear_Train.txt").unlink()
        with pytest.raises(UserError, match=r"Concepts81\.txt:2: no Labels_bear_Train\.txt in .*"):
            tree.load()
        for path in tree.labels.iterdir():
            path.unlink()
        with pytest.raises(UserError, match=r"TrainTestLabels: no file Labels_\.\.\._Train\.txt"):
            tree.load()
        tree.labels.rmdir()
        with pytest.raises(UserError, match="data_dir: no Groundtruth/TrainTestLabels in"):
            tree.load()

    def test_options(self, tree):
        with pytest.raises(UserError, match="split: NUS-WIDE has train, test, found 'val'"):
            tree.load("val")
        with pytest.raises(UserError, match="--unlabelled=maybe: expected keep or drop"):
            tree.load(unlabelled="maybe")
        with pytest.raises(UserError, match="--difficult: this data set does not take it"):
            tree.load(difficult="negative")


@settings(max_examples=60)
@given(
    st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=12),
    st.sampled_from(["\n", "\r\n"]),
    st.data(),
)
def test_labels_are_what_was_written(matrix, newline, data):
    """Whatever is there and whatever is gone: every photo keeps its own labels, in order."""
    there = data.draw(st.lists(st.booleans(), min_size=len(matrix), max_size=len(matrix)))
    with tempfile.TemporaryDirectory() as folder:
        tree = make(Path(folder) / "x")
        names = [f"a\\{number}.jpg" for number in range(len(matrix))]
        tree.train_list.write_bytes(newline.join(names).encode())
        for column, concept in enumerate(CONCEPTS):
            marks = [str(int(row[column])) for row in matrix]
            path = tree.labels / f"Labels_{concept}_Train.txt"
            path.write_bytes(newline.join(marks).encode())
        (tree.root / "Flickr" / "a").mkdir()
        for number in np.flatnonzero(there):
            (tree.root / "Flickr" / "a" / f"{number}.jpg").write_bytes(b"x")
        expected = {f"a/{n}.jpg": [int(x) for x in row] for n, row in enumerate(matrix) if there[n]}
        if not any(any(row) for row in expected.values()):
            with pytest.raises(UserError, match="none of its|no photo of this list"):
                tree.load()
            return
        kept, dropped = tree.load(), tree.load(unlabelled="drop")
    assert dict(zip(kept.names, kept.labels.tolist(), strict=True)) == expected
    assert list(kept.names) == list(expected)
    assert list(dropped.names) == [name for name, row in expected.items() if any(row)]


@settings(max_examples=80)
@given(
    st.sampled_from(["ImageList/TrainImagelist.txt", "ConceptsList/Concepts81.txt"])
    | st.sampled_from([f"Groundtruth/TrainTestLabels/Labels_{x}_Train.txt" for x in CONCEPTS]),
    st.binary(max_size=30) | st.text("01\n\r -\\/.a", max_size=30).map(str.encode),
)
def test_any_content_is_read_or_refused_in_one_line(file, content):
    with tempfile.TemporaryDirectory() as folder:
        tree = make(Path(folder) / "x")
        (tree.root / file).write_bytes(content)
        try:
            tree.load().fingerprint()
        except UserError as error:
            assert "\n" not in str(error)
