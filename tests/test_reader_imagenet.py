"""ImageNet's folders and the lists that go with its validation images, in miniature."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from miniature import imagenet_val as val
from scipy.io import savemat

from spml_tf.datasets import readers
from spml_tf.datasets.readers import imagenet
from spml_tf.datasets.readers.imagenet_lists import GROUND_TRUTH, META, SOLUTION, SYNSETS
from spml_tf.system.errors import UserError

# The development kit's readme: training images "are named as x_y.JPEG, where x is WNID of the
# synset and y is an integer (not fixed width and not necessarily consecutive)"; validation images
# "are named as ILSVRC2012_val_00000001.JPEG ...".
CLASSES = ("n01440764", "n01443537", "n02084071", "n07747607")
TRAIN = (
    "train/n01440764/n01440764_10.JPEG", "train/n01440764/n01440764_9.JPEG",
    "train/n01443537/n01443537_7.JPEG", "train/n02084071/n02084071_1.JPEG",
    "train/n07747607/n07747607_3.JPEG",
)  # fmt: skip
# The class of every validation image, in the order of their numbers.
TRUTH = (2, 0, 3, 2, 1)


@dataclasses.dataclass
class Tree:
    root: Path

    def load(self, split: str = "train", **options):
        return readers.load("imagenet", str(self.root), split, **options)

    def touch(self, *names: str) -> None:
        for name in names:
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")

    def write(self, name: str, content: str | bytes) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        content = content if isinstance(content, bytes) else content.encode()
        (self.root / name).write_bytes(content)


def make(root: Path) -> Tree:
    """Flat validation images, no list."""
    tree = Tree(root)
    tree.touch(*TRAIN, *(f"val/{val(number)}.JPEG" for number in range(1, 6)))
    return tree


@pytest.fixture
def tree(tmp_path) -> Tree:
    return make(tmp_path / "imagenet")


def write_solution(tree: Tree, truth=TRUTH) -> None:
    """Kaggle's table: a row is "ILSVRC2012_val_00000001,n01751748 156 48 272 332 n01751748 42 9 322
    285", the class and the corners of every box, with a blank at the end, in no order.
    """
    lines = [
        f"{val(number)},{' '.join([f'{CLASSES[c]} 85 1 499 {number}'] * (1 + number % 2))} \n"
        for number, c in enumerate(truth, start=1)
    ]
    tree.write(SOLUTION, "ImageId,PredictionString\n" + "".join(reversed(lines)))


def write_synsets(tree: Tree, truth=TRUTH) -> None:
    """TensorFlow's model garden: a WordNet id a line, in the order of the images' numbers."""
    tree.write(SYNSETS, "".join(f"{CLASSES[c]}\n" for c in truth))


def write_devkit(tree: Tree, truth=TRUTH) -> None:
    """The readme: "each line contains one ILSVRC2012_ID for one image, in the ascending
    alphabetical order of the image file names"; meta.mat has the struct array synsets, low level
    synsets first, in an order that is not that of their WordNet ids.
    """
    order = (3, 1, 0, 2)
    fields = [
        ("ILSVRC2012_ID", float), ("WNID", object), ("words", object), ("num_children", float),
    ]  # fmt: skip
    synsets = np.zeros((5, 1), fields)
    for row, column in enumerate(order):
        synsets[row, 0] = (row + 1, CLASSES[column], f"words {column}", 0)
    synsets[4, 0] = (5, "n00001740", "entity", 4)
    path = tree.root / META
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"synsets": synsets})
    tree.write(GROUND_TRUTH, "".join(f"{order.index(c) + 1}\n" for c in truth))


def in_folders(tree: Tree, truth=TRUTH) -> None:
    for number, c in enumerate(truth, start=1):
        tree.touch(f"val/{CLASSES[c]}/{val(number)}.JPEG")
        (tree.root / "val" / f"{val(number)}.JPEG").unlink()


LAYOUTS = {
    "folders": in_folders,
    "solution": write_solution,
    "synsets": write_synsets,
    "devkit": write_devkit,
}
SMALL = "holds 5 photos, and there are 4 classes; ImageNet-1K has"


class TestTrain:
    def test_labels_are_one_class_and_unknown(self, tree):
        examples = tree.load()
        assert examples.names == TRAIN and examples.class_names == CLASSES
        assert examples.paths == tuple(str(tree.root / name) for name in TRAIN)
        assert examples.labels.dtype == np.int8
        np.testing.assert_array_equal(
            examples.labels,
            [[1, -1, -1, -1], [1, -1, -1, -1], [-1, 1, -1, -1], [-1, -1, 1, -1], [-1, -1, -1, 1]],
        )
        assert examples.notes == (f"train {SMALL} 1,281,167 photos of 1,000 classes",)

    def test_table(self):
        reader = readers.READERS["imagenet"]
        assert reader.split_names("x", {}) == ("train", "none", "real")
        assert reader.train_labels == "full" and reader.needs_data_dir

    def test_other_entries_are_told(self, tree):
        tree.touch("train/n01440764.tar", "train/notes/x.JPEG", "train/n01440764/Thumbs.db")
        tree.touch("train/n01443537/deeper/n01443537_1.JPEG", "train/n01443537/a\nb.JPEG")
        examples = tree.load()
        assert examples.names == TRAIN
        what = "train: neither a class nor an image of one, left out:"
        assert examples.notes[:2] == (
            f"{what} 2, the first is 'notes'",
            f"{what} 3, the first is 'n01440764/Thumbs.db'",
        )

    def test_an_empty_class_stays_a_class(self, tree):
        (tree.root / "train" / "n02000000").mkdir()
        examples = tree.load()
        assert examples.labels.shape == (5, 5) and not (examples.labels[:, 2] == 1).any()

    def test_kaggles_archive(self, tree, tmp_path):
        """LOC_val_solution.csv beside ILSVRC/Data/CLS-LOC/{train,val}."""
        kaggle = Tree(tmp_path / "kaggle")
        base = kaggle.root / "ILSVRC" / "Data" / "CLS-LOC"
        shutil.copytree(tree.root, base)
        write_solution(kaggle)
        assert kaggle.load().names == TRAIN
        assert kaggle.load("val").paths[0] == str(base / "val" / f"{val(1)}.JPEG")

    def test_links(self, tree):
        (tree.root / "train" / "n03000000").symlink_to(tree.root / "train" / CLASSES[0])
        with pytest.raises(UserError, match="n01440764_10.JPEG' lies behind a symbolic link"):
            tree.load()
        assert len(tree.load(allow_outside=True)) == 7

    def test_broken_link(self, tree):
        (tree.root / "train" / CLASSES[0] / "x.JPEG").symlink_to(tree.root / "nowhere")
        with pytest.raises(UserError, match=r"x\.JPEG' is a symbolic link"):
            tree.load()
        with pytest.raises(UserError, match=r"x\.JPEG: the photo is missing \(1 of 6"):
            tree.load(allow_outside=True)

    def test_missing(self, tree, tmp_path):
        hint = r"get ILSVRC2012_img_train\.tar .* train/n01440764"
        with pytest.raises(UserError, match=f"data_dir: ImageNet needs its folder; {hint}"):
            imagenet.load(None)
        with pytest.raises(UserError, match=f"neither train nor val in .*none .*; {hint}"):
            imagenet.load(tmp_path / "none")
        with pytest.raises(UserError, match="split: ImageNet has train, val, real, found 'test'"):
            tree.load("test")
        for name in CLASSES:
            shutil.rmtree(tree.root / "train" / name)
        with pytest.raises(UserError, match=f"train: no sub-folder named like n01440764; {hint}"):
            tree.load()
        (tree.root / "train" / CLASSES[0]).mkdir()
        with pytest.raises(UserError, match=f"train: no image in the folders of classes; {hint}"):
            tree.load()
        shutil.rmtree(tree.root / "train")
        with pytest.raises(UserError, match=f"train: cannot be listed .*; {hint}"):
            tree.load()


class TestValidation:
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_every_layout_gives_the_same(self, tree, layout):
        LAYOUTS[layout](tree)
        examples = tree.load("val")
        folders = [f"{CLASSES[c]}/" if layout == "folders" else "" for c in TRUTH]
        assert examples.names == tuple(
            f"val/{folder}{val(number)}.JPEG" for number, folder in enumerate(folders, start=1)
        )
        assert examples.paths == tuple(str(tree.root / name) for name in examples.names)
        assert examples.class_names == CLASSES
        expected = np.full((5, 4), -1)
        expected[np.arange(5), TRUTH] = 1
        np.testing.assert_array_equal(examples.labels, expected)
        assert examples.notes == (f"val {SMALL} 50,000 photos of 1,000 classes",)

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_without_training_images(self, tree, layout):
        """All four classes are in val as well."""
        LAYOUTS[layout](tree)
        expected = tree.load("val").fingerprint()
        shutil.rmtree(tree.root / "train")
        assert tree.load("val").fingerprint() == expected

    def test_the_whole_set_needs_no_note(self, tree, monkeypatch):
        monkeypatch.setattr(imagenet, "NUM_CLASSES", 4)
        monkeypatch.setattr(imagenet, "NUM_IMAGES", {"train": 5, "val": 5})
        write_synsets(tree)
        assert tree.load().notes == tree.load("val").notes == ()

    @pytest.mark.parametrize("layout", ["solution", "synsets", "devkit"])
    def test_a_photo_is_missing(self, tree, layout):
        LAYOUTS[layout](tree)
        (tree.root / "val" / f"{val(3)}.JPEG").unlink()
        with pytest.raises(UserError, match=rf"{val(3)}\.JPEG: the photo is missing \(1 of 5 are"):
            tree.load("val")

    def test_photos_without_a_class(self, tree):
        write_synsets(tree, TRUTH[:4])
        tree.touch(f"val/{val(1)}.jpg", "val/readme.txt")
        examples = tree.load("val")
        assert len(examples) == 4
        assert examples.notes[0].endswith("left out: 1, the first is 'readme.txt'")
        assert examples.notes[1] == (
            f"photos of val that {SYNSETS} does not name, left out: 2, the first is {val(1)}.JPEG"
        )

    def test_a_folder_that_is_not_in_train(self, tree):
        in_folders(tree)
        tree.touch(f"val/n09999999/{val(6)}.JPEG")
        with pytest.raises(UserError, match="val/n09999999: this class is not a folder of train"):
            tree.load("val")

    def test_no_list(self, tree):
        names = f"no {SOLUTION}, {SYNSETS} or ILSVRC2012_devkit_t12/data/.* in .*; get ILSVRC2012"
        with pytest.raises(UserError, match=names):
            tree.load("val")
        shutil.rmtree(tree.root / "val")
        with pytest.raises(UserError, match=r"val: cannot be listed \(No such file.*; get"):
            tree.load("val")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", r":? ?expected the header ImageId,PredictionString, found ''"),
            ("Id,Class\n", r":1: expected the header ImageId,PredictionString, found 'Id,Class'"),
            ("HEAD", r": names no photo; get"),
            ("HEAD{a},n01440764 1 2 3 4,x\n", r":2: expected a photo and boxes, .*4,x'"),
            ("HEAD{a}\n", r":2: expected a photo and boxes"),
            ("HEAD{a},\n", r":2: expected a photo and boxes"),
            ("HEAD{a},n01440764 1 2 3\n", r":2: expected a photo and boxes"),
            ("HEAD{a},n01440764 1 2 3 4 n02084071 1 2 3 4\n", r":2: expected .* of one class"),
            ("HEAD../{a},n01440764 1 2 3 4\n", r":2: expected a photo and boxes"),
            ("HEAD,n01440764 1 2 3 4\n", r":2: expected a photo and boxes"),
            ("HEAD{a},n09999999 1 2 3 4\n", r":2: the class 'n09999999' is not a folder of train"),
            ("HEAD{a},../../x 1 2 3 4\n", r":2: the class '\.\./\.\./x' is not a folder"),
            ("HEAD{a},n01440764 1 2 3 4\n{a},n01440764 1 2 3 4\n", r":3: .* is there twice"),
            ('HEAD{a},"n01440764 1 2 3 4\n', r":2: not valid CSV"),
            (b"\xff\xfe", r":1: not UTF-8"),
        ],
    )
    def test_malformed_solution(self, tree, content, message):
        if isinstance(content, str):
            content = content.replace("HEAD", "ImageId,PredictionString\n").replace("{a}", val(1))
        tree.write(SOLUTION, content)
        with pytest.raises(UserError, match=rf"LOC_val_solution\.csv{message}") as caught:
            tree.load("val")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("file", "content", "message"),
        [
            (SYNSETS, "", r"labels\.txt: names no photo"),
            (
                SYNSETS,
                "n01440764 tench\n",
                r"labels\.txt:1: expected one class, found 'n01440764 t",
            ),
            (SYNSETS, "n01440764\n1\n", r"labels\.txt:2: the class '1' is not a folder of train"),
            (SYNSETS, b"\x80", r"labels\.txt:1: not UTF-8"),
            (GROUND_TRUTH, "1\n6\n", r"ground_truth\.txt:2: '6' is no ILSVRC2012_ID of meta\.mat"),
            (GROUND_TRUTH, "1\n5\n", r"ground_truth\.txt:2: the class 'n00001740' is not a folder"),
            (GROUND_TRUTH, "1\n0\n", r"ground_truth\.txt:2: '0' is no ILSVRC2012_ID"),
            (GROUND_TRUTH, "1.0\n", r"ground_truth\.txt:1: '1\.0' is no ILSVRC2012_ID"),
            (GROUND_TRUTH, "1 2\n", r"ground_truth\.txt:1: expected one class, found '1 2'"),
            (META, "", r"meta\.mat: not the development kit's meta\.mat"),
            (META, b"\x00" * 200, r"meta\.mat: not the development kit's meta\.mat"),
        ],
    )
    def test_malformed_lists(self, tree, file, content, message):
        if file != SYNSETS:
            write_devkit(tree)
        tree.write(file, content)
        with pytest.raises(UserError, match=message) as caught:
            tree.load("val")
        assert "\n" not in str(caught.value)

    def test_a_list_that_is_too_long(self, tree):
        write_synsets(tree, (*TRUTH, 1))
        with pytest.raises(UserError, match=rf"{val(6)}\.JPEG: the photo is missing \(1 of 6"):
            tree.load("val")

    def test_damaged_meta(self, tree):
        """Cut anywhere it is refused, whatever SciPy says of it, or reads as before."""
        write_devkit(tree)
        expected = tree.load("val").fingerprint()
        content = (tree.root / META).read_bytes()
        for size in range(0, len(content), 7):
            tree.write(META, content[:size])
            try:
                assert tree.load("val").fingerprint() == expected
            except UserError as error:
                assert "meta.mat" in str(error) and "\n" not in str(error)
        savemat(tree.root / META, {"synsets": np.zeros(3)})
        with pytest.raises(UserError, match="not the development kit's"):
            tree.load("val")
        (tree.root / META).unlink()
        with pytest.raises(UserError, match=r"meta\.mat: cannot be read \(No such file"):
            tree.load("val")


# The README of google-research/reassessed-imagenet: the images go "from
# ILSVRC2012_val_00000001.JPEG to ILSVRC2012_val_00050000.JPEG", and images whose list is empty do
# not count ("if real_labels[i]").
REAL = [[2], [], [3, 0], [1, 2, 3], [0]]


class TestReal:
    @pytest.mark.parametrize("layout", [None, *LAYOUTS])
    def test_full_labels(self, tree, layout):
        if layout:
            LAYOUTS[layout](tree)
        tree.write("real.json", json.dumps(REAL))
        examples = tree.load("real")
        assert [os.path.basename(name) for name in examples.names] == [
            f"{val(number)}.JPEG" for number in (1, 3, 4, 5)
        ]
        assert examples.paths == tuple(str(tree.root / name) for name in examples.names)
        np.testing.assert_array_equal(
            examples.labels, [[0, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 1], [1, 0, 0, 0]]
        )
        assert examples.notes == (
            f"val {SMALL} 50,000 photos of 1,000 classes",
            "1 of 5 photos have no label in real.json: left out",
        )

    def test_all_images_have_labels(self, tree):
        tree.write("real.json", json.dumps([[0]] * 5))
        assert len(tree.load("real")) == 5 and len(tree.load("real").notes) == 1

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", r"real\.json:1: not JSON .*; get real\.json from github"),
            ('[[0],\n[1],\n[2"', r"real\.json:3: not JSON"),
            (json.dumps(REAL)[:-4], r"real\.json:1: not JSON"),
            (b"\xff\xfe", r"real\.json:1: not UTF-8"),
            ("[" * 100000, r"real\.json: not the ReaL labels"),
            ("9" * 5000, r"real\.json: not the ReaL labels"),
            (
                "null",
                r"real\.json: expected a list for each of the 5 photos of val, found NoneType",
            ),
            ("{}", r"real\.json: expected a list for each of the 5 photos of val, found dict"),
            (
                "[[0], [1]]",
                r"real\.json: expected a list for each of the 5 photos .* found 2 lists",
            ),
            ("[[], [], [], [], []]", r"real\.json: no photo has a label"),
            ("[[0], [4], [], [], []]", r"real\.json\[1\]: expected .* from 0 to 3, found \[4\]"),
            ("[[0], [-1], [], [], []]", r"real\.json\[1\]: expected a list of class indices"),
            ("[[0], [], 1, [], []]", r"real\.json\[2\]: expected .* found 1;"),
            ("[[0], [], null, [], []]", r"real\.json\[2\]: expected .* found None;"),
            ("[[0], [], [true], [], []]", r"real\.json\[2\]: expected .* found \[True\];"),
            ("[[0], [], [1.0], [], []]", r"real\.json\[2\]: expected .* found \[1\.0\];"),
            ("[[0], [], [NaN], [], []]", r"real\.json\[2\]: expected .* found \[nan\];"),
            ('[[0], [], ["1"], [], []]', r"real\.json\[2\]: expected .* found \['1'\];"),
            ("[[0], [], [[1]], [], []]", r"real\.json\[2\]: expected .* found \[\[1\]\];"),
        ],
    )
    def test_malformed(self, tree, content, message):
        tree.write("real.json", content)
        with pytest.raises(UserError, match=message) as caught:
            tree.load("real")
        assert "\n" not in str(caught.value)

    def test_missing(self, tree):
        with pytest.raises(UserError, match=r"real\.json: cannot be read .*reassessed-imagenet"):
            tree.load("real")

    def test_photos_must_be_those_of_the_lists(self, tree):
        tree.write("real.json", json.dumps(REAL))
        (tree.root / "val" / f"{val(3)}.JPEG").rename(tree.root / "val" / f"{val(9)}.JPEG")
        with pytest.raises(UserError, match=rf"{val(4)}\.JPEG: photo 3 of val must be called"):
            tree.load("real")
        (tree.root / "val" / f"{val(9)}.JPEG").unlink()
        with pytest.raises(UserError, match="each of the 4 photos of val, found 5 lists"):
            tree.load("real")


@settings(max_examples=40)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.sampled_from(list(LAYOUTS)))
def test_labels_are_what_was_written(truth, layout):
    with tempfile.TemporaryDirectory() as folder:
        tree = Tree(Path(folder))
        tree.touch(*TRAIN, *(f"val/{val(number)}.JPEG" for number in range(1, len(truth) + 1)))
        LAYOUTS[layout](tree, truth)
        examples = tree.load("val")
    for number, (name, c, row) in enumerate(
        zip(examples.names, truth, examples.labels.tolist(), strict=True), start=1
    ):
        assert os.path.basename(name) == f"{val(number)}.JPEG"
        assert row == [1 if column == c else -1 for column in range(4)]


@pytest.mark.skipif(
    "SPML_TF_TEST_DATA" not in os.environ,
    reason="needs real labels: set SPML_TF_TEST_DATA to a folder with labels/imagenet_real.json",
)
def test_published_real_labels(tmp_path):
    """Beyer et al.: 46,837 images have labels; 39,394 have one, 5,408 two, 1,319 three."""
    source = Path(os.environ["SPML_TF_TEST_DATA"], "labels", "imagenet_real.json")
    shutil.copy(source, tmp_path / "real.json")
    for number in range(1000):
        (tmp_path / "train" / f"n{1440764 + 7 * number:08d}").mkdir(parents=True)
    (tmp_path / "val").mkdir()
    folder = os.open(tmp_path / "val", os.O_RDONLY)
    for number in range(1, 50001):
        os.close(os.open(f"{val(number)}.JPEG", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    os.close(folder)
    examples = readers.load("imagenet", str(tmp_path), "real")
    assert examples.labels.shape == (46837, 1000)
    counts = Counter(examples.labels.sum(axis=1, dtype=int).tolist())
    assert [counts[1], counts[2], counts[3]] == [39394, 5408, 1319]
    assert sum(count for k, count in counts.items() if k >= 4) == 716
    assert examples.notes == ("3,163 of 50,000 photos have no label in real.json: left out",)
    rows = {name: row for name, row in zip(examples.names, examples.labels, strict=True)}
    for number, columns in enumerate(json.loads(source.read_text()), start=1):
        name = f"val/{val(number)}.JPEG"
        assert (name in rows) == bool(columns)
        if columns:
            assert np.flatnonzero(rows[name]).tolist() == sorted(columns)
