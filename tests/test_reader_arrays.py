"""Published arrays: the layout of Cole et al. (CVPR 2021), in their encoding and in ours."""

from __future__ import annotations

import itertools
import os
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spml_tf.datasets import readers
from spml_tf.datasets.readers import arrays
from spml_tf.system.errors import UserError

# After preproc/format_pascal.py and preproc/generate_observed_labels.py of
# github.com/elijahcole/single-positive-multi-label: for train and val there are
# formatted_{phase}_images.npy, an array of file names; formatted_{phase}_labels.npy, float64 zeros
# with 1.0 for the classes an image shows; and formatted_{phase}_labels_obs.npy "in -1 / 0 / +1
# format": 1.0 for observed positives, -1.0 for observed negatives, 0 for the rest.
IMAGES = np.array(["b.jpg", "sub/a.jpg", "c.jpg"])
TRUTH = np.array([[1, 0, 1, 0], [0, 1, 0, 0], [1, 1, 1, 0]], np.float64)
COLE = np.array([[1, 0, 0, -1], [0, 1, 0, 0], [0, 0, 1, 0]], np.float64)
# The same by hand: 1 stays, 0 becomes -1 (unknown), -1 becomes 0 (negative).
OWN = np.array([[1, -1, -1, 0], [-1, 1, -1, -1], [-1, -1, 1, -1]])
NOTE = "classes.txt: the classes are called class_000 and so on, in the columns' order"


def save(root: Path, split: str = "train", **parts: np.ndarray | None) -> Path:
    root.mkdir(exist_ok=True)
    for name, value in {"images": IMAGES, "labels": TRUTH, "labels_obs": COLE, **parts}.items():
        if value is not None:
            np.save(root / f"formatted_{split}_{name}.npy", value, allow_pickle=True)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """data/ with three photos and their arrays in Cole's encoding."""
    data = save(tmp_path / "data")
    (data / "sub").mkdir()
    for name in IMAGES:
        (data / name).write_bytes(b"x")
    return data


def failure(root: Path, encoding: str = "cole", split: str = "train", **options) -> str:
    with pytest.raises(UserError) as caught:
        arrays.load(root, split, encoding, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message.removeprefix(f"{root}/formatted_")


def test_cole(root):
    examples = arrays.load(root, "train", "cole")
    assert examples.names == tuple(IMAGES)
    assert examples.paths == tuple(str(root / name) for name in IMAGES)
    np.testing.assert_array_equal(examples.labels, TRUTH)
    np.testing.assert_array_equal(examples.observed, OWN)
    assert examples.labels.dtype == examples.observed.dtype == np.int8
    assert examples.class_names == ("class_000", "class_001", "class_002", "class_003")
    assert examples.notes == (f"no {root}/{NOTE}",)


def test_our_own(root):
    """-1 is unknown in both files."""
    partial = TRUTH.copy()
    partial[1, 3] = -1
    save(root, labels=partial, labels_obs=OWN)
    examples = arrays.load(root, "train", "spml_tf")
    np.testing.assert_array_equal(examples.labels, partial)
    np.testing.assert_array_equal(examples.observed, OWN)


def test_table(root):
    reader = readers.READERS["arrays"]
    assert reader.split_names(str(root), {}) == ("train", "none", "val")
    assert reader.train_labels == "stored"
    examples = readers.load("arrays", str(root), "train", 0, label_encoding="cole", images_dir=None)
    np.testing.assert_array_equal(examples.observed, OWN)


@pytest.mark.parametrize("kind", [bool, np.int8, np.uint8, np.int64, np.float16, ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_types_of_numbers(root, kind, order):
    save(root, labels=np.asarray(TRUTH.astype(kind), order=order))
    np.testing.assert_array_equal(arrays.load(root, "train", "cole").labels, TRUTH)


def test_blocks_of_rows(root, monkeypatch):
    """Large matrices are converted some rows at a time; places count from the first row."""
    monkeypatch.setattr(arrays, "_BLOCK", 5)
    np.testing.assert_array_equal(arrays.load(root, "train", "cole").observed, OWN)
    wrong = TRUTH.copy()
    wrong[2, 1] = 7
    save(root, labels=wrong)
    assert failure(root).startswith("train_labels.npy: row 2, column 1: expected 1, 0 or -1, found")
    wrong[2, 1:3] = 1, 0
    save(root, labels=wrong)
    assert failure(root).startswith("train_labels_obs.npy: row 2, column 2: an observed positive")


def test_without_observed_labels(root):
    (root / "formatted_train_labels_obs.npy").unlink()
    assert arrays.load(root, "train", "cole").observed is None
    assert arrays.load(root, "train", "spml_tf").observed is None


def test_observed_labels_under_another_name(root):
    """Later versions of the script put the kind of bias into the name."""
    (root / "formatted_train_labels_obs.npy").rename(root / "formatted_train_size_labels_obs.npy")
    examples = arrays.load(root, "train", "cole")
    assert examples.observed is None and examples.notes[1] == (
        "formatted_train_size_labels_obs.npy is not read: rename it to "
        "formatted_train_labels_obs.npy to use it"
    )


def test_class_names(root):
    (root / "classes.txt").write_bytes(
        "\ufeffcat\r\n big dog \r\nemu, grey\r\ncow\r\n\r\n".encode()
    )
    examples = arrays.load(root, "train", "cole")
    assert examples.class_names == ("cat", "big dog", "emu, grey", "cow") and examples.notes == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"cat\ndog\n", "classes.txt: 2 names do not fit 4 columns of labels"),
        (b"", "classes.txt: 0 names do not fit 4 columns"),
        (b"a\nb\nc\nd\ne\n", "classes.txt: 5 names do not fit 4 columns"),
        (b"a\nb\n\nd\n", "classes.txt:3: the name of a class is empty; one name per line"),
        (b"a\nb\nc\nb \n", "classes.txt:4: 'b' is in line 2 already"),
        (b"a\nb\nc\n\xff\n", "classes.txt:4: not UTF-8"),
    ],
)
def test_malformed_class_names(root, text, message):
    (root / "classes.txt").write_bytes(text)
    assert message in failure(root)


@pytest.mark.parametrize("encoding", [None, "", "Cole", "ours"])
def test_the_encoding_must_be_named(root, encoding):
    """Both are explained; nothing is guessed."""
    message = failure(root, encoding)
    assert message.startswith("--label_encoding=")
    assert (
        "cole: labels 1 positive, 0 negative; labels_obs 1 positive, 0 unknown, -1 neg" in message
    )
    assert "spml_tf: 1 positive, 0 negative, -1 unknown in both" in message


class TestConflicts:
    """Labels that the encoding named makes contradictory, and what the other would make of them."""

    def test_coles_arrays_taken_for_ours(self, root):
        # Row 0: 0 of column 2 would be an observed negative, but the label there is 1.
        message = failure(root, "spml_tf")
        start = "train_labels_obs.npy: row 0, column 2: an observed negative is positive in labels"
        assert message.startswith(start) and "--label_encoding=cole would fit" in message

    def test_ours_taken_for_coles(self, root):
        # Row 0: -1 of column 2 would be an observed negative, but the label there is 1.
        save(root, labels_obs=OWN)
        message = failure(root, "cole")
        assert message.startswith("train_labels_obs.npy: row 0, column 2: an observed negative is")
        assert "--label_encoding=spml_tf would fit" in message

    def test_unknown_labels_taken_for_coles(self, root):
        partial = TRUTH.copy()
        partial[1, 3] = -1
        save(root, labels=partial, labels_obs=OWN)
        message = failure(root, "cole")
        assert message.startswith("train_labels.npy: row 1, column 3: -1 is no label")
        assert "--label_encoding=spml_tf would fit" in message
        (root / "formatted_train_labels_obs.npy").unlink()
        assert "--label_encoding=spml_tf would fit" in failure(root, "cole")

    def test_neither_fits(self, root):
        wrong = TRUTH.copy()
        wrong[1, 1] = 0
        save(root, labels=wrong)
        for encoding in arrays.ENCODINGS:
            message = failure(root, encoding)
            assert "the other does not fit either" in message and "would fit" not in message
        start = "train_labels_obs.npy: row 1, column 1: an observed positive is negative in labels"
        assert failure(root, "cole").startswith(start)

    @settings(max_examples=60)
    @given(
        hnp.arrays(np.int8, (3, 2), elements=st.integers(0, 1)),
        hnp.arrays(np.int8, (3, 2), elements=st.integers(-1, 1)),
        st.sampled_from(["cole", "spml_tf"]),
    )
    def test_law(self, tmp_path_factory, truth, raw, encoding):
        """Read where every observed label agrees with the label, cell by cell; else refused."""
        meaning = {"cole": {1: 1, 0: -1, -1: 0}, "spml_tf": {1: 1, 0: 0, -1: -1}}
        meant = {
            name: [[values[x] for x in row] for row in raw.tolist()]
            for name, values in meaning.items()
        }
        cells = list(itertools.product(range(3), range(2)))
        agrees = {
            name: all(rows[i][j] in (-1, truth[i, j]) for i, j in cells)
            for name, rows in meant.items()
        }
        root = tmp_path_factory.getbasetemp() / "law_arrays"
        save(root, labels=truth, labels_obs=raw)
        (root / "sub").mkdir(exist_ok=True)
        for name in IMAGES:
            (root / name).write_bytes(b"x")
        if agrees[encoding]:
            assert arrays.load(root, "train", encoding).observed.tolist() == meant[encoding]
            return
        message = failure(root, encoding)
        other = "spml_tf" if encoding == "cole" else "cole"
        assert (f"--label_encoding={other} would fit" in message) == agrees[other]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "images",
            np.arange(3),
            "expected N names, an array of strings with one axis, found int64",
        ),
        ("images", IMAGES[:, None], "expected N names, an array of strings with one axis, found"),
        ("images", np.array("a.jpg"), "expected N names"),
        ("images", np.array(list(IMAGES), object), "not a whole array of numbers or strings (Arr"),
        ("images", IMAGES[:0], "holds no name"),
        ("images", np.array(["b.jpg", "", "c.jpg"]), "row 1: the name '' is empty"),
        ("images", np.array(["b.jpg", "c.jpg", "./b.jpg"]), "row 2: './b.jpg' is in row 0 already"),
        ("images", np.array(["b.jpg", "sub\\a.jpg"]), r"row 1: the name 'sub\\a.jpg' holds a back"),
        ("images", np.array(["b.jpg", "a\n"]), r"row 1: the name 'a\n' holds a line break"),
        ("images", np.array([b"b.jpg", b"\xff"]), r"row 1: the name b'\xff' is not UTF-8"),
        ("images", np.array(["b.jpg", "\udcff"]), r"row 1: the name '\udcff' is not UTF-8"),
        ("images", np.array([[0x110000]], np.uint32).view("U1")[0], "damaged ("),
        ("images", np.array(["b.jpg", "no.jpg", "x.jpg"]), "row 1: {root}/no.jpg: the photo is mi"),
        ("images", np.array(["b.jpg", "sub", "c.jpg"]), "row 1: {root}/sub: the photo is missing"),
        ("images", np.array(["b.jpg", "../x", "c.jpg"]), "row 1: '../x' leaves the data folder"),
        ("images", np.array(["b.jpg", "/x", "c.jpg"]), "row 1: '/x' is an absolute path"),
        ("images", np.array(["b.jpg", "link", "c.jpg"]), "row 1: 'link' is a symbolic link"),
        ("labels", TRUTH[:2], "2 rows do not fit the 3 names"),
        ("labels", TRUTH[0], "expected numbers of shape [images, classes], found float64 of shape"),
        ("labels", TRUTH[None], "expected numbers of shape [images, classes]"),
        ("labels", TRUTH[:, :0], "the shape is (3, 0): no label"),
        ("labels", TRUTH[:0], "the shape is (0, 4): no label"),
        ("labels", TRUTH.astype(str), "expected numbers of shape [images, classes], found <U32"),
        (
            "labels",
            TRUTH.astype(complex),
            "expected numbers of shape [images, classes], found comp",
        ),
        ("labels", TRUTH.astype(object), "not a whole array of numbers or strings"),
        (
            "labels",
            np.where(TRUTH == 1, np.nan, 0),
            "row 0, column 0: expected 1, 0 or -1, found n",
        ),
        ("labels", TRUTH * 0.5, "row 0, column 0: expected 1, 0 or -1, found 0.5"),
        (
            "labels",
            np.where(TRUTH == 1, np.inf, 0),
            "row 0, column 0: expected 1, 0 or -1, found i",
        ),
        (
            "labels",
            (-TRUTH).astype(np.int8).view(np.uint8),
            "row 0, column 0: expected 1, 0 or -1,",
        ),
        ("labels_obs", COLE[:2], "the shape (2, 4) does not fit that of labels, (3, 4)"),
        ("labels_obs", COLE[:, :3], "the shape (3, 3) does not fit that of labels, (3, 4)"),
        ("labels_obs", COLE * 2, "row 0, column 0: expected 1, 0 or -1, found 2.0"),
    ],
)
def test_malformed_arrays(root, name, value, message):
    (root / "link").symlink_to(root / "c.jpg")
    save(root, **{name: value})
    if name == "images":
        shape = (len(value), 4) if value.ndim else (1, 4)
        save(root, **{name: value}, labels=np.ones(shape), labels_obs=None)
        (root / "formatted_train_labels_obs.npy").unlink()
    found = failure(root)
    assert found.startswith(f"train_{name}.npy: {message.format(root=root)}")


def test_names_as_bytes(root):
    save(root, images=IMAGES.astype(bytes))
    assert arrays.load(root, "train", "cole").names == tuple(IMAGES)


@pytest.mark.parametrize("name", ["images", "labels", "labels_obs"])
@pytest.mark.parametrize("kind", ["cut", "header", "empty", "pickle", "zip", "text", "folder"])
def test_damaged_files(root, name, kind):
    path = root / f"formatted_train_{name}.npy"
    content = path.read_bytes()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "zip":
        with open(path, "wb") as file:
            np.savez(file, labels=TRUTH)
    else:
        pickled = pickle.dumps(_Trap())
        path.write_bytes(
            {"cut": content[:-1], "header": content[:60], "empty": b"", "pickle": pickled}.get(
                kind, b"cat,dog\n1,0\n"
            )
        )
    reason = "cannot be read" if kind == "folder" else "not a whole array of numbers or strings"
    assert failure(root).startswith(f"train_{name}.npy: {reason}")


class _Trap:
    """Fails the test where a reader runs what a pickle asks for."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was loaded",)


def test_any_damage_to_a_file_is_one_line(root):
    path = root / "formatted_train_labels.npy"
    content, whole = path.read_bytes(), arrays.load(root, "train", "cole").labels
    header = len(content) - np.load(path).nbytes
    generator, read = random.Random(0), 0
    for _ in range(400):
        damaged = bytearray(content)
        for place in (generator.randrange(len(damaged)) for _ in range(generator.randint(1, 3))):
            damaged[place] = generator.choice(b"()'\"{},: \n0123456789-L\xff<>f\\#")
        path.write_bytes(damaged)
        try:
            found = arrays.load(root, "train", "cole").labels
        except UserError as error:
            assert len(str(error).splitlines()) == 1 and "formatted_train_labels" in str(error)
        else:  # what was not damaged must not be read as anything else
            assert damaged[header:] != content[header:] or np.array_equal(found, whole)
            read += 1
    assert read


def test_missing_things(root, tmp_path):
    for name in ("images", "labels"):
        (root / f"formatted_train_{name}.npy").unlink()
        message = failure(root)
        assert message.startswith(f"train_{name}.npy: the file is missing; the folder should hold")
        save(root)
    assert failure(root, split="val").startswith("val_images.npy: the file is missing")
    assert failure(root, split="../train").startswith("split: published arrays have train and val")
    for folder in (None, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="data_dir: .* is not a folder; the folder should hold"):
            arrays.load(folder, "train", "cole")
    (root / "c.jpg").unlink()
    assert "(1 of 3 are); give --images_dir" in failure(root)


def test_splits_share_the_classes(root):
    save(root, "val", images=IMAGES[:1], labels=TRUTH[:1], labels_obs=None)
    examples = arrays.load(root, "val", "cole")
    assert examples.names == ("b.jpg",) and examples.labels.tolist() == [[1, 0, 1, 0]]
    save(root, "val", images=IMAGES[:1], labels=TRUTH[:1, :3], labels_obs=None)
    message = failure(root, split="val")
    assert message.startswith("val_labels.npy: 3 columns, but 4 in formatted_train_labels.npy")


def test_images_dir(root, tmp_path):
    photos = root / "photos"
    photos.mkdir()
    (root / "sub").rename(photos / "sub")
    for name in ("b.jpg", "c.jpg"):
        (root / name).rename(photos / name)
    examples = arrays.load(root, "train", "cole", images_dir="photos")
    assert examples.names == tuple(IMAGES)
    assert examples.paths == tuple(str(photos / name) for name in IMAGES)
    assert arrays.load(root, "train", "cole", images_dir=str(photos)).paths == examples.paths
    message = failure(root, images_dir="nowhere")
    assert message == f"--images_dir=nowhere: no such folder in {root}"
    photos.rename(tmp_path / "photos")
    (root / "linked").symlink_to(tmp_path / "photos")
    reasons = {
        "../photos": "leaves the data folder",
        str(tmp_path / "photos"): "is an absolute path",
        "linked": "lies behind a symbolic link",
    }
    for name, reason in reasons.items():
        message = failure(root, images_dir=name)
        assert f"row 0 in --images_dir={name}: " in message and reason in message
        allowed = arrays.load(root, "train", "cole", images_dir=name, allow_outside=True)
        assert allowed.names == tuple(IMAGES)
        assert all(os.path.isfile(path) for path in allowed.paths)
