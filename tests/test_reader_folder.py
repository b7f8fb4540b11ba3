"""The user's own folder: tables in both forms, class folders, and what people get wrong.

The formats are this package's own; `spml_tf.datasets.readers.tables` describes them.
"""

from __future__ import annotations

import csv
import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spml_tf.datasets import readers
from spml_tf.datasets.readers import folder, tables
from spml_tf.datasets.readers.misread import look_alikes
from spml_tf.datasets.readers.table_cells import Values
from spml_tf.datasets.table_options import TableOptions
from spml_tf.system.errors import UserError

LISTS = "image,labels,negatives\na.jpg,cat;dog,cow\nsub/b.jpg, cow ,*\nc.jpg,,\n"
COLUMNS = "image,cat,cow,dog\na.jpg,1,0,1\nsub/b.jpg,0,1,0\nc.jpg,,,\n"
# Derived by hand from either table, the classes being cat, cow, dog.
MATRIX = [[1, 0, 1], [0, 1, 0], [-1, -1, -1]]


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """data/ with three photos; the tables are written by the tests."""
    return touch(tmp_path / "data", "a.jpg", "sub/b.jpg", "c.jpg")


def write(root: Path, text: str | bytes, name: str = "train.csv") -> str:
    (root / name).write_bytes(text.encode("utf-8") if isinstance(text, str) else text)
    return name


def read(root: Path, text: str | bytes, **options) -> readers.Examples:
    return folder.load(root, "train", train_csv=write(root, text), **options)


def failure(root: Path, text: str | bytes) -> str:
    with pytest.raises(UserError) as caught:
        read(root, text)
    message = str(caught.value)
    assert "\n" not in message and message.startswith(str(root))
    return message.removeprefix(f"{root}/")


class TestTables:
    @pytest.mark.parametrize("text", [LISTS, COLUMNS])
    def test_both_forms_say_the_same(self, photos, text):
        examples = read(photos, text)
        assert examples.names == ("a.jpg", "sub/b.jpg", "c.jpg")
        assert examples.class_names == ("cat", "cow", "dog")
        assert examples.labels.tolist() == MATRIX and examples.labels.dtype == np.int8
        assert examples.paths == tuple(str(photos / name) for name in examples.names)
        assert examples.notes == () and examples.observed is None and examples.boxes is None

    @pytest.mark.parametrize(
        "change",
        [
            lambda text: b"\xef\xbb\xbf" + text.encode(),
            lambda text: text.replace("\n", "\r\n").encode(),
            lambda text: text.replace("\n", "\r").encode(),
            lambda text: text.replace("\n", "\n\n").encode(),
            lambda text: text.rstrip("\n").encode(),
            lambda text: text.replace("a.jpg", '"a.jpg"').encode(),
            lambda text: text.replace(",", " , ").encode(),
            lambda text: text.replace("a.jpg", ".//a.jpg").encode(),
        ],
        ids="bom crlf cr blank_lines no_last_line_end quotes blanks needless_slashes".split(),
    )
    @pytest.mark.parametrize("text", [LISTS, COLUMNS])
    def test_what_programs_write(self, photos, text, change):
        examples = read(photos, change(text))
        assert examples.names == ("a.jpg", "sub/b.jpg", "c.jpg")
        assert examples.labels.tolist() == MATRIX

    def test_decimals_of_pandas(self, photos):
        """`DataFrame.to_csv` writes a column with gaps as floats: 1.0, 0.0 and nothing."""
        assert read(photos, "image,cat,cow\na.jpg,1.0,\nc.jpg,0.0,1\n").labels.tolist() == [
            [1, -1],
            [0, 1],
        ]

    def test_classes_in_the_headers_order(self, photos):
        examples = read(photos, "image,zebra,ant\na.jpg,1,0\n")
        assert examples.class_names == ("zebra", "ant") and examples.labels.tolist() == [[1, 0]]

    def test_lists_without_negatives(self, photos):
        examples = read(photos, "image,labels\na.jpg,dog; cat \nc.jpg,\n")
        assert examples.class_names == ("cat", "dog")
        assert examples.labels.tolist() == [[1, 1], [-1, -1]]

    def test_all_others_reach_classes_of_later_rows(self, photos):
        """`*` speaks of every class, also of those that only rows below or negatives name."""
        text = "image,labels,negatives\na.jpg,cat,*\nc.jpg,dog,emu\nsub/b.jpg,,*\n"
        examples = read(photos, text)
        assert examples.class_names == ("cat", "dog", "emu")
        assert examples.labels.tolist() == [[1, 0, 0], [-1, 1, 0], [0, 0, 0]]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "train.csv:1: the file is empty; the header is image,labels or"),
            ("\n\r\n", "train.csv:1: the file is empty"),
            ("image,labels\n", "train.csv:1: a header without rows"),
            (
                "a.jpg,cat\n",
                "train.csv:1: the first line names a photo, 'a.jpg'; add a header, or giv",
            ),
            (
                "x,cat\na.jpg,1\n",
                "train.csv:1: no column is called image, found 'x', 'cat'; give --image",
            ),
            (
                "image:cat\na.jpg:1\n",
                "train.csv:1: no column is called image, found 'image:cat'; gi",
            ),
            ("image\na.jpg\n", "train.csv:1: there is no column of labels"),
            ("image,,cat\na.jpg,x,1\n", "train.csv:1: the name of column 2 is empty"),
            ('image,"c\nat"\na.jpg,1\n', "train.csv:2: the name of column 2 holds a line break"),
            ("image,cat,dog,cat\n", "train.csv:1: two columns are called 'cat'"),
            ("image,cat,image\n", "train.csv:1: two columns are called 'image'"),
            (b"image,c\xe4t\n", "train.csv:1: not UTF-8"),
            ("image,cat\n".encode("utf-16"), "train.csv:1: not UTF-8"),
            (b"\x89PNG\r\n\x1a\n", "train.csv:1: not UTF-8"),
            ('image,cat\n"a.jpg,1\n', "train.csv:2: not valid CSV"),
            ("image,cat\na.jpg," + "1" * 140_000, "train.csv:2: not valid CSV"),
        ],
    )
    def test_malformed_files(self, photos, text, message):
        assert failure(photos, text).startswith(message)

    def test_a_name_of_other_code_points_is_told_of(self, photos):
        """é as one character in the table, as two in the name of the file, and the other way."""
        for written, there in (
            ("caf\u00e9.jpg", "cafe\u0301.jpg"),
            ("the\u0301.jpg", "th\u00e9.jpg"),
        ):
            touch(photos, there)
            found = failure(photos, f"image,cat,dog\na.jpg,1,0\n{written},1,0\n")
            assert "the photo is missing" in found
            assert "; a file is there whose name looks the same and has other characters" in found

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ("c.jpg,1", "expected 3 cells as in the header, found 2"),
            ("c.jpg,1,0,1", "expected 3 cells as in the header, found 4"),
            (",,", "the cell of image is empty"),
            ("   ,1,0", "the cell of image is empty"),
            ("sub\\b.jpg,1,0", r"'sub\\b.jpg' holds a backslash; write folder/photo.jpg"),
            ('"c\n.jpg",1,0', "the cell of image holds a line break"),
            ("c\0.jpg,1,0", "the cell of image holds a line break or a null character"),
            ("a.jpg,0,0", "'a.jpg' has a row already, {csv}:2, and they contradict each other ab"),
            (".//a.jpg,1,1", "'a.jpg' has a row already, {csv}:2, and they contradict each other "),
            ("c.jpg,1,-1", "'dog' is -1, which is unknown in some formats and negative in others;"),
            ("c.jpg,-1.0,0", "'cat' is -1"),
            ("c.jpg,1,2", "'dog' must be 1, 0 or empty (unknown), found '2'"),
            ("c.jpg,1,yes", "'dog' must be 1, 0 or empty (unknown), found 'yes'"),
            ("c.jpg,nan,1", "'cat' must be 1, 0 or empty (unknown), found 'nan'"),
            ("c.jpg,0.5,1", "'cat' must be 1, 0 or empty (unknown), found '0.5'"),
            ("c.jpg," + "x" * 500 + ",1", "'cat' must be 1, 0 or empty (unknown), found 'xxx"),
            ("no.jpg,1,0", "{root}/no.jpg: the photo is missing (1 of 2 are not there)"),
            (
                "A.JPG,1,0",
                "{root}/A.JPG: the photo is missing (1 of 2 are not there); names are "
                "relative to {root}; a.jpg is there: names are told apart by case",
            ),
            ("sub,1,0", "{root}/sub: a folder, not a photo (1 of 2 are not there)"),
            (".,1,0", "{root}/.: a folder, not a photo"),
            ("a.jpg/x.jpg,1,0", "{root}/a.jpg/x.jpg: the photo is missing"),
            ("../data/a.jpg,1,0", "'../data/a.jpg' leaves the data folder"),
            ("/etc/hostname,1,0", "'/etc/hostname' is an absolute path"),
            ("link.jpg,1,0", "'link.jpg' is a symbolic link"),
            ("linked/b.jpg,1,0", "'linked/b.jpg' lies behind a symbolic link"),
        ],
    )
    def test_malformed_rows_of_columns(self, photos, row, message):
        (photos / "link.jpg").symlink_to(photos / "a.jpg")
        (photos / "linked").symlink_to(photos / "sub")
        found = failure(photos, f"image,cat,dog\na.jpg,1,0\n{row}\n")
        line = 4 if "\n" in row else 3
        expected = message.format(root=photos, csv=photos / "train.csv")
        assert found.startswith(f"train.csv:{line}: {expected}")
        assert len(found) < 1000

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ("c.jpg,cat,dog,cow", "expected 3 cells as in the header, found 4; mend the row or t"),
            ('c.jpg,"c\nat",', "a name in labels holds a line break"),
            ("c.jpg,cat;dog,dog", "'dog' is in labels and in negatives"),
            ("c.jpg,*,", "* stands in negatives only"),
            ("c.jpg,cat,*;dog", "* means all classes but the labels"),
            (
                "a.jpg,dog,",
                "'dog' is negative in one row and positive in another, {csv}:2; keep one",
            ),
            ("a.jpg,,*", "'cat' of a photo that shows none"),
        ],
    )
    def test_malformed_rows_of_lists(self, photos, row, message):
        found = failure(photos, f"image,labels,negatives\na.jpg,cat,dog\n{row}\n")
        line = 4 if "\n" in row else 2 if row == "a.jpg,,*" else 3
        assert found.startswith(f"train.csv:{line}: {message.format(csv=photos / 'train.csv')}")

    def test_a_list_without_labels(self, photos):
        assert "train.csv:1: no row has a label" in failure(photos, "image,labels\na.jpg,\n")

    @pytest.mark.parametrize("cells", ["1 0", "1 ", "-1 1", "0 0"])
    def test_a_column_called_labels(self, photos, cells):
        """It cannot be told from lists of classes called 1 and 0, so it is refused."""
        first, second = cells.split(" ")
        found = failure(photos, f"image,labels\na.jpg,{first}\nc.jpg,{second}\n")
        assert found.startswith("train.csv:1: the header image,labels announces lists")
        assert "give it the class's name instead of labels" in found
        assert read(photos, "image,labels,cat\na.jpg,1,0\n").class_names == ("labels", "cat")

    def test_missing_photos_are_counted(self, photos):
        found = failure(photos, "image,cat\na.jpg,1\nx.jpg,1\nc.jpg,1\ny/z.jpg,0\n")
        assert "train.csv:3: " in found and "x.jpg" in found and "2 of 4 are not there" in found

    def test_outside_with_permission(self, photos, tmp_path):
        touch(tmp_path, "other/d.jpg")
        (photos / "link.jpg").symlink_to(photos / "a.jpg")
        absolute = str(tmp_path / "other" / "d.jpg")
        rows = ["../other/./d.jpg", "link.jpg", absolute, "a.jpg"]
        text = "image,cat\n" + "".join(f"{name},1\n" for name in rows)
        assert read(photos, text, allow_outside=True).names == ("../other/d.jpg", "link.jpg")
        kept = TableOptions(keep_copies=True)
        examples = read(photos, text, allow_outside=True, table_options=kept)
        assert examples.names == ("../other/d.jpg", "link.jpg", absolute, "a.jpg")
        assert all(os.path.isfile(path) for path in examples.paths)

    def test_names_that_look_alike(self, photos):
        """Spelled with a letter and its accent, or with one character that is both."""
        text = "image,Cat,cat,e\u0301mu,\u00e9mu,dog\na.jpg,1,1,1,1,1\n"
        (note,) = read(photos, text).notes
        assert note.startswith("'Cat' and 'cat'; ") and "different classes" in note
        assert "dog" not in note

    def test_an_unreadable_table(self, photos):
        for name in ("no.csv", "sub"):
            with pytest.raises(UserError, match=rf"{name}: cannot be read \(.*CLASS/\*\.jpg"):
                folder.load(photos, "train", train_csv=name)


class TestSplits:
    def test_of_tables(self, photos):
        assert folder.splits(photos, "t.csv") == ("train", "none", "none")
        assert folder.splits(photos, "t.csv", "v.csv") == ("train", "val", "none")
        assert folder.splits(photos, "t.csv", test_csv="v.csv") == ("train", "none", "test")
        reader = readers.READERS["folder"]
        options = {"train_csv": "t.csv", "val_csv": None, "test_csv": "e.csv", "difficult": None}
        assert reader.split_names(str(photos), options) == ("train", "none", "test")
        assert reader.train_labels == "full"

    def test_the_other_tables_share_the_classes(self, photos):
        """Each table may be of either form; `*` speaks of the training table's classes."""
        train = write(photos, "image,dog,cat,cow\na.jpg,1,0,\n")
        val = write(photos, "image,labels,negatives\nsub/b.jpg,cow,*\nc.jpg,,dog\n", "val.csv")
        test = write(photos, "image,cat,dog\nc.jpg,0,1\n", "test.csv")
        options = {"train_csv": train, "val_csv": val, "test_csv": test}
        examples = folder.load(photos, "val", **options)
        assert examples.class_names == ("dog", "cat", "cow") and examples.notes == ()
        assert examples.names == ("sub/b.jpg", "c.jpg")
        assert examples.labels.tolist() == [[0, 0, 1], [0, -1, -1]]
        examples = folder.load(photos, "test", **options)
        assert examples.labels.tolist() == [[1, 0, -1]]
        assert examples.notes == (f"{photos}/test.csv: no column for 'cow': unknown labels",)

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("image,cat,emu\nc.jpg,1,0\n", 1),
            ("image,labels\na.jpg,cat\nc.jpg,cat;emu\n", 3),
            ("image,labels,negatives\na.jpg,cat,\nc.jpg,,emu\n", 3),
        ],
    )
    def test_unknown_classes(self, photos, text, line):
        train, val = write(photos, COLUMNS), write(photos, text, "val.csv")
        message = (
            rf"val\.csv:{line}: unknown class 'emu'; the classes .* are 'cat', 'cow', 'dog'; mend"
        )
        with pytest.raises(UserError, match=message):
            folder.load(photos, "val", train_csv=train, val_csv=val)

    def test_classes_called_one_and_nought_elsewhere(self, photos):
        """Where the training table has settled the classes, lists of them are no riddle."""
        train = write(photos, "image,0,1,2\na.jpg,1,0,\n")
        val = write(photos, "image,labels\nc.jpg,1;0\n", "val.csv")
        labels = folder.load(photos, "val", train_csv=train, val_csv=val).labels
        assert labels.tolist() == [[1, 1, -1]]

    def test_a_broken_training_table_counts_for_every_split(self, photos):
        train, val = write(photos, "image,cat\na.jpg,7\n"), write(photos, COLUMNS, "val.csv")
        with pytest.raises(UserError, match=r"train\.csv:2"):
            folder.load(photos, "val", train_csv=train, val_csv=val)

    def test_missing_splits(self, photos):
        train = write(photos, COLUMNS)
        for split in ("val", "none", "dev", "../train"):
            with pytest.raises(UserError, match=f"has train, found '{split}'; .*--val_csv"):
                folder.load(photos, split, train_csv=train)

    def test_tables_need_the_training_table(self, photos):
        with pytest.raises(UserError, match="--val_csv=v.csv: needs --train_csv"):
            folder.splits(photos, val_csv="v.csv")
        with pytest.raises(UserError, match="--test_csv=t.csv: needs --train_csv"):
            folder.load(photos, "train", test_csv="t.csv")

    def test_tables_outside(self, photos, tmp_path):
        write(tmp_path, COLUMNS, "out.csv")
        (photos / "link.csv").symlink_to(tmp_path / "out.csv")
        for name in ("../out.csv", str(tmp_path / "out.csv"), "link.csv"):
            with pytest.raises(UserError, match=r"--train_csv=.*: lies outside .*--allow_outside"):
                folder.load(photos, "train", train_csv=name)
            examples = folder.load(photos, "train", train_csv=name, allow_outside=True)
            assert examples.labels.tolist() == MATRIX
        inside = str(photos / write(photos, COLUMNS))
        assert folder.load(photos, "train", train_csv=inside).labels.tolist() == MATRIX

    @pytest.mark.parametrize("name", ["nowhere", "a.jpg", "x" * 300])
    def test_no_folder(self, photos, name):
        with pytest.raises(UserError, match=r"data_dir: .* is not a folder; give --train_csv"):
            folder.load(photos / name, "train")

    def test_no_data_dir(self):
        with pytest.raises(UserError, match="data_dir: name the folder"):
            folder.load(None, "train")


class TestClassFolders:
    def test_one_folder_per_class(self, tmp_path, monkeypatch):
        root = touch(
            tmp_path, "dog/b.JPG", "cat/z.jpeg", "cat/deep/er/a.png", "dog/a.gif", "e/c.bmp"
        )
        examples = folder.load(root)
        names = ("cat/deep/er/a.png", "cat/z.jpeg", "dog/a.gif", "dog/b.JPG", "e/c.bmp")
        assert examples.names == names and examples.class_names == ("cat", "dog", "e")
        assert examples.paths == tuple(str(root / name) for name in names)
        expected = [[1, -1, -1], [1, -1, -1], [-1, 1, -1], [-1, 1, -1], [-1, -1, 1]]
        assert examples.labels.tolist() == expected and examples.notes == ()
        assert folder.splits(root) == ("train", "none", "none")
        monkeypatch.chdir(root.parent)
        assert readers.load("folder", root.name, "train").fingerprint() == examples.fingerprint()

    def test_folders_of_splits(self, tmp_path):
        root = touch(
            tmp_path, "train/cat/a.jpg", "train/dog/a.jpg", "val/dog/b.jpg", "test/cat/c.jpg"
        )
        assert folder.splits(root) == ("train", "val", "test")
        assert folder.load(root, "train").names == ("train/cat/a.jpg", "train/dog/a.jpg")
        val = folder.load(root, "val")
        assert val.names == ("val/dog/b.jpg",) and val.class_names == ("cat", "dog")
        assert val.labels.tolist() == [[-1, 1]] and val.notes == ()
        (root / "test" / "cat" / "c.jpg").unlink()
        with pytest.raises(UserError, match=r"test: no photo \(\.jpg .*\.heif\) in the folders"):
            folder.load(root, "test")

    def test_some_splits(self, tmp_path):
        root = touch(tmp_path, "train/cat/a.jpg", "test/cat/a.jpg", "val")
        assert folder.splits(root) == ("train", "none", "test")
        with pytest.raises(UserError, match="has train, test, found 'val'"):
            folder.load(root, "val")

    def test_a_class_called_train(self, tmp_path):
        """VOC has one: a folder train that holds photos only is the folder of a class."""
        root = touch(tmp_path, "train/a.jpg", "bus/b.jpg", "train/.cache/x.jpg")
        assert folder.splits(root) == ("train", "none", "none")
        assert folder.load(root).class_names == ("bus", "train")

    def test_nothing_is_left_out_silently(self, tmp_path):
        root = touch(
            tmp_path, "cat/a.jpg", "cat/n.txt", "cat/x/m.svg", "cat/.DS_Store", "cat/Thumbs.db",
            "readme.md", "loose.jpg", "loose.png", ".cache/b.jpg", "cat/._a.jpg", "desktop.ini",
            "emu/.keep",
        )  # fmt: skip
        examples = folder.load(root)
        assert examples.names == ("cat/a.jpg",) and examples.class_names == ("cat", "emu")
        assert examples.notes == (
            "'emu': no photo in the folder: the class is kept",
            "'loose.jpg' and 1 more: in no folder of a class: left out",
            "'cat/n.txt' and 2 more: not .jpg .jpeg .jpe .jfif .png .gif .bmp .dib .webp .tif "
            ".tiff .avif .heic .heif: left out",
            "'.cache': hidden folder: left out",
        )

    def test_beside_the_splits(self, tmp_path):
        root = touch(tmp_path, "train/cat/a.jpg", "more/cat/b.jpg", "x.csv", ".git/x")
        notes = ("'more' and 1 more: beside train, val, test: left out",)
        assert folder.load(root).notes == notes

    def test_look_alikes(self, tmp_path):
        (note,) = folder.load(touch(tmp_path, "Cat/a.jpg", "cat/b.jpg")).notes
        assert note == "'Cat' and 'cat': nearly the same names of different classes"

    def test_what_a_reader_overlooks(self):
        """A zero-width space, full-width letters, kinds of blanks; cats are not a cat."""
        names = [
            "cat",
            "ca\u200bt",
            "cats",
            "\uff24og",
            "dog",
            "red light",
            "red_light",
            "redlight",
        ]
        assert look_alikes(names) == (
            "'cat' and 'ca\\u200bt'; '\uff24og' and 'dog'; 'red light' and 'red_light': nearly the "
            "same names of different classes",
        )
        assert look_alikes(["cat", "cats", "a-b", "ab"]) == ()

    @pytest.mark.parametrize("files", [[], ["a.jpg"], [".x/a.jpg"]])
    def test_no_class(self, tmp_path, files):
        (tmp_path / "d").mkdir()
        root = touch(tmp_path / "d", *files)
        message = r"holds no folder of a class; .*--train_csv=TABLE.* CLASS/\*\.jpg or as train/"
        with pytest.raises(UserError, match=message):
            folder.load(root)

    def test_no_photo(self, tmp_path):
        with pytest.raises(UserError, match="no photo"):
            folder.load(touch(tmp_path, "cat/a.txt"))

    def test_a_class_that_train_lacks(self, tmp_path):
        root = touch(tmp_path, "train/cat/a.jpg", "train/dog/a.jpg", "val/emu/b.jpg")
        with pytest.raises(
            UserError, match="val/emu': unknown class 'emu'; .* are 'cat', 'dog'; mend"
        ):
            folder.load(root, "val")

    def test_links(self, tmp_path):
        outside = touch(tmp_path, "outside/s.jpg") / "outside"
        for number, (link, target, name) in enumerate(
            [
                ("cat/l.jpg", outside / "s.jpg", "cat/l.jpg"),
                ("cat/more", outside, "cat/more/s.jpg"),
                ("emu", outside, "emu/s.jpg"),
            ]
        ):
            root = touch(tmp_path / str(number), "cat/a.jpg")
            (root / link).symlink_to(target)
            with pytest.raises(UserError, match=f"'{link}' is a symbolic link; .*--allow_outside"):
                folder.load(root)
            assert folder.load(root, allow_outside=True).names == ("cat/a.jpg", name)

    def test_linked_splits(self, tmp_path):
        outside = touch(tmp_path, "outside/cat/s.jpg") / "outside"
        root = touch(tmp_path / "data", "train/cat/a.jpg")
        (root / "val").symlink_to(outside)
        with pytest.raises(UserError, match="symbolic link"):
            folder.load(root, "val")
        assert folder.load(root, "val", allow_outside=True).names == ("val/cat/s.jpg",)

    def test_links_that_lead_nowhere(self, tmp_path):
        root = touch(tmp_path / "d", "cat/a.jpg")
        (root / "cat" / "up").symlink_to(root / "cat")
        with pytest.raises(UserError, match="up': a link to a folder above it; remove it"):
            folder.load(root, allow_outside=True)
        (root / "cat" / "up").unlink()
        for target in ("gone.jpg", "loop.jpg"):
            (root / "cat" / "loop.jpg").symlink_to(target)
            for allowed in (False, True):
                with pytest.raises(UserError, match="symbolic link|is missing|cannot be listed"):
                    folder.load(root, allow_outside=allowed)
            (root / "cat" / "loop.jpg").unlink()

    def test_links_in_a_circle(self, tmp_path):
        root = touch(tmp_path / "d", "cat/a.jpg", "dog/b.jpg")
        (root / "cat" / "x").symlink_to(root / "dog")
        (root / "dog" / "y").symlink_to(root / "cat")
        with pytest.raises(UserError, match="a link to a folder above it"):
            folder.load(root, allow_outside=True)

    @pytest.mark.parametrize("name", [b"cat/\xff.jpg", b"c\xe4t/a.jpg", b"cat/a\n.jpg"])
    def test_malformed_names(self, tmp_path, name):
        root = tmp_path / "data"
        path = os.path.join(os.fsencode(root), name)
        os.makedirs(os.path.dirname(path))
        with open(path, "wb"):
            pass
        with pytest.raises(
            UserError, match="is not UTF-8; rename it|holds a line break.*rename"
        ) as e:
            folder.load(root)
        assert str(e.value).isascii() and "\n" not in str(e.value)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
    def test_a_locked_folder(self, tmp_path):
        root = touch(tmp_path, "cat/a.jpg", "cat/deep/b.jpg")
        (root / "cat" / "deep").chmod(0)
        try:
            with pytest.raises(UserError, match=r"deep': cannot be listed \(Permission denied\)"):
                folder.load(root)
        finally:
            (root / "cat" / "deep").chmod(0o755)


names = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp"), exclude_characters=";"), min_size=1
).map(str.strip)
# Lists of classes called 1, 0, -1 or as other values are refused, and * has a meaning of its own.
classes = st.lists(
    names.filter(lambda x: x and x not in {"*", "image", "labels"}).filter(
        lambda x: not Values.looks_like_one(x)
    ),
    min_size=1, max_size=5, unique=True,
).map(sorted)  # fmt: skip


# As the tables are, whatever the names look like.
EXACTLY = [
    TableOptions(image_column="image", column_separator="comma", trust_table=True),
    TableOptions(
        label_column="labels", label_separator=";", column_separator=",", trust_table=True
    ),
]


@st.composite
def matrices(draw) -> tuple[list[str], np.ndarray]:
    """Class names, and labels in which each class is known somewhere."""
    class_names = draw(classes)
    shape = (draw(st.integers(1, 6)), len(class_names))
    cells = draw(st.lists(st.sampled_from([1, 0, -1]), min_size=shape[0] * shape[1],
                          max_size=shape[0] * shape[1]))  # fmt: skip
    labels = np.array(cells, np.int8).reshape(shape)
    labels[0, (labels == -1).all(axis=0)] = 1
    return class_names, labels


@settings(max_examples=150)
@given(matrices(), st.booleans(), st.sampled_from(["\n", "\r\n"]))
def test_any_matrix_survives_both_forms(tmp_path_factory, drawn, star, line_end):
    """Law: what a matrix says, written down in either form and read, is the matrix."""
    class_names, labels = drawn
    root = tmp_path_factory.getbasetemp() / "round_trip"
    images = [f"p{row}.jpg" for row in range(len(labels))]
    if not root.exists():
        touch(root, *(f"p{row}.jpg" for row in range(6)))
    columns, lists = [["image", *class_names]], [["image", "labels", "negatives"]]
    for image, row in zip(images, labels.tolist(), strict=True):
        columns.append([image, *("" if value == -1 else str(value) for value in row)])
        picked = {
            v: [n for n, x in zip(class_names, row, strict=True) if x == v] for v in (1, 0, -1)
        }
        negatives = "*" if star and not picked[-1] else ";".join(picked[0])
        lists.append([image, ";".join(picked[1]), negatives])
    for number, rows in enumerate((columns, lists)):
        listed = {x for row in rows[1:] for cell in row[1:] for x in cell.split(";")} - {"", "*"}
        if number == 1 and listed != set(class_names):
            continue  # a class that only `*` speaks of has no name in the table
        with open(root / "t.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator=line_end).writerows(rows)
        examples = folder.load(root, "train", train_csv="t.csv", table_options=EXACTLY[number])
        assert examples.class_names == tuple(class_names) and examples.names == tuple(images)
        np.testing.assert_array_equal(examples.labels, labels)


@settings(max_examples=300)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.text(st.sampled_from("image,labels;*\n\r\"'10-. catjpg\ufeff\0"), max_size=60).map(
            str.encode
        ),
        st.text(st.sampled_from(',;*\n"10-./\\ abc'), max_size=40).map(
            lambda text: b"image,labels,negatives\n" + text.encode()
        ),
    )
)
def test_any_file_is_read_or_refused_in_one_line(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzz.csv"
    path.write_bytes(content)
    try:
        table = tables.read_table(path)
    except UserError as error:
        assert len(str(error).splitlines()) == 1 and str(error).startswith(str(path))
    else:
        assert table.labels.shape == (len(set(table.names)), len(set(table.class_names)))


@pytest.mark.parametrize("form", ["columns", "lists"])
def test_large_tables_are_read_quickly(tmp_path, form):
    """About 1 s for 40,000 photos of 40 classes on one core of an ordinary machine."""
    count, class_names = 40_000, [f"class{number}" for number in range(40)]
    if form == "columns":
        cells = ",".join(["1", "0", "", "0"] * 10)
        lines = [",".join(["image", *class_names]), *(f"p/{i}.jpg,{cells}" for i in range(count))]
    else:
        lines = ["image,labels"]
        lines += [
            f"p/{i}.jpg,{class_names[i % 40]};{class_names[(i + 1) % 40]}" for i in range(count)
        ]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(lines))
    started = time.process_time()
    table = tables.read_table(path)
    assert time.process_time() - started < 15
    assert table.labels.shape == (count, 40)
