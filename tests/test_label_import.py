"""Label files of other tools: imported, read back, refused where they look misread."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import re
import shlex
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import keras
import label_exports
import numpy as np
import pytest
from conftest import run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import spml_tf
from spml_tf import data
from spml_tf.datasets import label_files, label_import, readers, splits
from spml_tf.datasets import label_formats as formats
from spml_tf.datasets.label_formats import labelstudio, sources
from spml_tf.datasets.label_formats.collected_labels import LabelFile
from spml_tf.datasets.readers import tables
from spml_tf.datasets.readers.table_cells import Values
from spml_tf.datasets.readers.table_columns import not_classes
from spml_tf.datasets.settings import resolved
from spml_tf.datasets.table_options import TableOptions
from spml_tf.labels import UNKNOWN
from spml_tf.system import cli
from spml_tf.system.errors import UserError

DATA = Path(os.environ.get("SPML_TF_TEST_DATA", "/nowhere")) / "label_files"
# What only a flag can tell: how names in a cell are separated.
FLAGS = {
    "N_bar": ["--label_separator=bar"],
    "N_blank": ["--label_separator=blank"],
    "N_comma": ["--label_separator=comma"],
}
FORMAT_OF = {
    "A": "roboflow", "B": "openimages", "C": "cvat", "D": "coco", "E": "labelstudio",
    "F": "fiftyone", "G": "azureml", "H": "chexpert", "I": "nih", "J": "hf", "K": "csv",
    "L": "csv", "N": "csv", "O": "csv",
}  # fmt: skip
CASES = sorted(path.name for path in DATA.glob("[A-O]_*"))
ROWS = [
    ("im0.jpg", {"cat": 1, "dog": 0, "sofa": 0}),
    ("im1.jpg", {"cat": 0, "dog": 1, "sofa": -1}),
    ("im2.jpg", {"cat": 1, "dog": 1, "sofa": -1}),
    ("im3.jpg", {"cat": -1, "dog": -1, "sofa": 1}),
]
CLASSES = ["cat", "dog", "sofa"]


class Told(NamedTuple):
    stdout: str
    stderr: str


def done(words: list[str], code: int = 0) -> Told:
    """The command, in this process: it is short, and there are many calls."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        found = data.main(["import", *words])
    assert found == code, errors.getvalue() + out.getvalue()
    return Told(out.getvalue(), errors.getvalue())


def imported(source: Path, output: Path, *words: str) -> dict:
    done([f"--source={source}", f"--output_dir={output}", *words])
    return json.loads((output / "import.json").read_text())


def read_back(record: dict) -> dict[str, dict[str, set[str]]]:
    """By the last part of a photo's name the classes that are there and that are not."""
    found = {}
    options = cli.parse([*shlex.split(record["command"]), "check"], data._Options, "")
    for split in record["splits"]:
        examples = readers.load("folder", options.data_dir, split, **options.reader_options)
        for name, row in zip(examples.names, examples.labels.tolist(), strict=True):
            pairs = list(zip(examples.class_names, row, strict=True))
            found[name] = {
                word: {label for label, x in pairs if x == value}
                for word, value in (("positive", 1), ("negative", 0))
            }
    return found


def expected_of(rows: list, inner: str = "") -> dict:
    return {
        f"{inner}{photo}": {
            word: {name for name, x in row.items() if x == value}
            for word, value in (("positive", 1), ("negative", 0))
        }
        for photo, row in rows
    }


def place_photos(root: Path, images: list[str]) -> None:
    """Photos where each format has them: beside the label file that names them."""
    tables_of = [x for x in root.rglob("*") if x.is_file()]
    inner = {"labels.json": "data/"} if (root / "labels.json").exists() else {}
    for image in images:
        holder = next(
            x.parent for x in tables_of
            if Path(image).name in x.read_text() or Path(image).stem in x.read_text()
        )  # fmt: skip
        fiftyone = inner and '"labels"' in (root / "labels.json").read_text()
        label_exports.write_photos(holder, [f"{'data/' if fiftyone else ''}{image}"])


@pytest.mark.skipif(not CASES, reason="needs label_files: set SPML_TF_TEST_DATA")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("photos", [True, False])
def test_collected_files(case, photos, tmp_path):
    """The labels that were written down by hand, whether the photos are there or not."""
    source = tmp_path / "source"
    shutil.copytree(DATA / case, source, ignore=shutil.ignore_patterns("expected.json"))
    expected = json.loads((DATA / case / "expected.json").read_text())["images"]
    if photos:
        place_photos(source, list(expected))
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    record = imported(source, tmp_path / "out", *FLAGS.get(case, []))
    assert record["format"] == FORMAT_OF[case[0]] and record["recognised"]
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before
    without = [] if photos else list(expected)
    assert len(record["images_without_a_file"]) == len(without)
    assert record["images"] == len(expected) and not record["files_without_a_row"]
    if not photos:
        label_exports.write_photos(source, record["images_without_a_file"])
    found = read_back(record)
    for name, labels in expected.items():
        own = found.pop(next(x for x in found if f"/{x}".endswith(f"/{name}")))
        assert own == {word: set(labels[word]) for word in ("positive", "negative")}, name
    assert not found


@pytest.mark.skipif(not CASES, reason="needs label_files: set SPML_TF_TEST_DATA")
def test_a_file_that_must_stop(tmp_path):
    source = DATA / "X_shifted"
    told = done([f"--source={source / 'labels.csv'}", f"--output_dir={tmp_path / 'out'}"], 1)
    assert "labels.csv:4: 'cat' must be 1, 0 or empty (unknown), found '2', and" in told.stderr
    assert "if the header is shifted, mend it" in told.stderr and not (tmp_path / "out").exists()


WRITERS = {**label_exports.THREE_STATES, **label_exports.POSITIVES, **label_exports.COMPLETE}
OF_WRITER = {
    "labelstudio_min": "labelstudio", "labelstudio_json": "labelstudio", "columns": "csv",
    "booleans": "csv", "lists": "csv", "json_lists": "csv", "long": "csv",
}  # fmt: skip


def known(writer: str, rows: list) -> list:
    """What a format can say of labels."""
    if writer in label_exports.THREE_STATES:
        return rows
    if writer in label_exports.POSITIVES:
        return [(p, {n: x if x == 1 else -1 for n, x in row.items()}) for p, row in rows]
    return [(p, {n: max(x, 0) for n, x in row.items()}) for p, row in rows]


@pytest.mark.parametrize("writer", WRITERS)
def test_each_format_is_recognised_and_read(writer, tmp_path):
    """The shapes of the formats, written here; known negatives arrive as such."""
    source, rows = tmp_path / "source", known(writer, ROWS)
    source.mkdir()
    WRITERS[writer](source, rows, CLASSES)
    inner = {"roboflow": "train/", "fiftyone": "data/", "yolo": "images/"}.get(writer, "")
    label_exports.write_photos(source / inner, [photo for photo, _ in rows])
    output = tmp_path / "out"
    found = label_import.import_labels(
        label_import.Import(str(source), "auto", str(output)), TableOptions()
    )
    record = json.loads((output / "import.json").read_text())
    assert (
        record["format"] == OF_WRITER.get(writer, writer) and f"--from={record['format']}" in found
    )
    assert read_back(record) == expected_of(rows, inner)
    counts = record["splits"]["train"]
    cells = [x for _, row in rows for x in row.values()]
    assert [counts[w] for w in ("positive", "negative", "unknown")] == [
        cells.count(x) for x in (1, 0, -1)
    ]
    assert record["images_without_a_file"] == [] and record["files_without_a_row"] == []


words = st.text(
    st.characters(
        exclude_categories=("Cs", "Cc", "Cf", "Zl", "Zp", "Zs"), exclude_characters=";|,{[*"
    ),
    min_size=1, max_size=8,
).filter(lambda x: x.strip() == x and not Values.looks_like_one(x))  # fmt: skip


@st.composite
def labelled(draw) -> tuple[list, list[str]]:
    """Random labels in which each class is somewhere."""
    drawn = st.lists(words, min_size=1, max_size=4, unique=True)
    classes = sorted(draw(drawn.filter(lambda names: not not_classes(names, ["image", "weight"]))))
    values = st.sampled_from([1, 0, -1])
    count = draw(st.integers(1, 5))
    rows = [(f"im{n}.jpg", {name: draw(values) for name in classes}) for n in range(count)]
    rows[0] = (rows[0][0], dict.fromkeys(classes, 1))
    return rows, classes


@pytest.mark.parametrize("writer", WRITERS)
@settings(max_examples=8, suppress_health_check=list(HealthCheck))
@given(drawn=labelled())
def test_any_labels_survive_every_format(writer, tmp_path_factory, drawn):
    """Law: labels written in a format, imported and read by the folder reader are the labels."""
    rows, classes = known(writer, drawn[0]), drawn[1]
    source = tmp_path_factory.mktemp("source")
    WRITERS[writer](source, rows, classes)
    output = tmp_path_factory.mktemp("out") / "tables"
    options = TableOptions(trust_table=True)
    label_import.import_labels(
        label_import.Import(str(source), OF_WRITER.get(writer, writer), str(output)), options
    )
    table = tables.read_table(
        output / "train.csv",
        options=TableOptions(image_column="image", column_separator="comma", trust_table=True),
    )
    found = {
        Path(image).name.removeprefix("0a1b2c3d-"): dict(zip(table.class_names, row, strict=True))
        for image, row in zip(table.names, table.labels.tolist(), strict=True)
    }
    # A format of positives alone drops no photo, and a class that no photo shows has no name in it.
    assert found == {photo: {name: row[name] for name in table.class_names} for photo, row in rows}
    assert set(table.class_names) == set(classes)


GOOD = [
    ["image", "cat", "dog"],
    ["im0.jpg", "1", "0"], ["im1.jpg", "0", "1"], ["im2.jpg", "1", "1"], ["im3.jpg", "", "1"],
]  # fmt: skip
LISTED = [
    ["image", "labels"],
    ["im0.jpg", "cat"], ["im1.jpg", "dog"], ["im2.jpg", "cat;dog"], ["im3.jpg", "dog"],
]  # fmt: skip
# What the tables above say of each photo, unknown classes apart.
GOOD_SAYS = [{"cat": 1, "dog": 0}, {"cat": 0, "dog": 1}, {"cat": 1, "dog": 1}, {"dog": 1}]
LISTED_SAYS = [{"cat": 1}, {"dog": 1}, {"cat": 1, "dog": 1}, {"dog": 1}]


def text(rows: list[list[str]], separator: str = ",") -> str:
    return "\n".join(separator.join(row) for row in rows) + "\n"


def replaced(old: str, new: str, rows: list[list[str]] = LISTED) -> str:
    return text(rows).replace(old, new)


MUTATIONS = {
    "semicolons between columns": text(GOOD, ";"),
    "tabs between columns": text(GOOD, "\t"),
    "bars between columns": text(GOOD, "|"),
    "blanks between columns": text(GOOD, " "),
    "colons between columns": text(GOOD, ":"),
    "semicolons below a header with commas": text(GOOD[:1]) + text(GOOD[1:], ";"),
    "commas below a header with semicolons": text(GOOD[:1], ";") + text(GOOD[1:]),
    "blanks after commas": text(GOOD, ", "),
    "a trailing comma everywhere": text([[*row, ""] for row in GOOD]),
    "a trailing comma below the header": text([GOOD[0], *([*row, ""] for row in GOOD[1:])]),
    "a trailing comma in the header": text([[*GOOD[0], ""], *GOOD[1:]]),
    "no header": text(GOOD[1:]),
    "no header of lists": text(LISTED[1:]),
    "an index without a name": text(
        [["", *GOOD[0]], *([str(n), *x] for n, x in enumerate(GOOD[1:]))]
    ),
    "an index that the header lacks": text(
        [GOOD[0], *([str(n), *x] for n, x in enumerate(GOOD[1:]))]
    ),
    "an index in place of the first class": text(
        [GOOD[0], *([row[0], str(n), row[1]] for n, row in enumerate(GOOD[1:]))]
    ),
    "columns of lists the wrong way round": text([LISTED[0], *(row[::-1] for row in LISTED[1:])]),
    "cells shifted to the right": text([GOOD[0], *([row[0], "x", row[1]] for row in GOOD[1:])]),
    "a column of ages": text([[*GOOD[0], "age"], *([*row, "43"] for row in GOOD[1:])]),
    "a column of words": text([[*GOOD[0], "sex"], *([*row, "M"] for row in GOOD[1:])]),
    "JSON lists": '\n'.join(["image,labels", *(
        f'{row[0]},"[""' + '"", ""'.join(row[1].split(";")) + '""]"' for row in LISTED[1:])]),
    "JSON objects": '\n'.join(["image,labels", *(
        f'{row[0]},"{{""choices"": [""' + '"", ""'.join(row[1].split(";")) + '""]}"'
        for row in LISTED[1:])]),
    "JSON objects of something else": '\n'.join(["image,labels", *(
        f'{row[0]},"{{""a"": 1, ""b"": ""{row[1]}""}}"' for row in LISTED[1:])]),
    "Python lists": replaced("cat;dog", "\"['cat', 'dog']\""),
    "bars in lists": replaced("cat;dog", "cat|dog"),
    "blanks in lists": replaced("cat;dog", "cat dog"),
    "commas in lists": replaced("cat;dog", '"cat,dog"'),
    "commas in lists that are not quoted": replaced("cat;dog", "cat,dog"),
    "slashes in lists": replaced("cat;dog", "cat/dog"),
    "a trailing semicolon in lists": replaced("cat;dog", "cat; dog;"),
    "lists in a column of another name": text([["image", "what"], *LISTED[1:]]),
    "lists beside a column of words": text(
        [[*LISTED[0], "who"], *([*x, "me"] for x in LISTED[1:])]
    ),
    "a row a label": text([*LISTED[:3], ["im2.jpg", "cat"], ["im2.jpg", "dog"], LISTED[4]]),
    "-1": replaced("0", "-1", GOOD).replace("im-1", "im0"),
    "fractions": replaced(",1,1", ",0.9,0.8", GOOD),
    "True and False": "\n".join(
        ",".join({"1": "True", "0": "False"}.get(x, x) for x in row) for row in GOOD),
    "the photos' column last": text([row[1:] + row[:1] for row in GOOD]),
    "the photos' column called otherwise": text([["frame", *GOOD[0][1:]], *GOOD[1:]]),
    "a photo twice": text([*GOOD, GOOD[1]]),
    "a photo twice with other labels": text([*GOOD, ["im0.jpg", "0", "1"]]),
}  # fmt: skip
# Those that are read without a flag, and as they should be.
READ = {
    "semicolons between columns", "tabs between columns", "bars between columns",
    "blanks after commas", "a trailing comma everywhere", "a trailing comma below the header",
    "a trailing comma in the header", "an index without a name", "JSON lists", "JSON objects",
    "Python lists", "a trailing semicolon in lists", "a row a label", "True and False",
    "the photos' column last", "a photo twice",
}  # fmt: skip


def test_enough_mutations():
    assert len(MUTATIONS) >= 30 and READ < set(MUTATIONS)


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutated_table_is_read_right_or_refused(name, tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(MUTATIONS[name])
    try:
        table = tables.read_table(path)
    except UserError as error:
        assert name not in READ and str(error).startswith(str(path)) and "\n" not in str(error)
        assert re.search(r"--\w+=|mend|keep one of them|separate labels", str(error)), error
        return
    assert name in READ
    listed = any(word in name for word in ("list", "JSON", "a row a label"))
    says = [
        {n: x for n, x in zip(table.class_names, row, strict=True) if x != UNKNOWN}
        for row in table.labels.tolist()
    ]
    assert says == (LISTED_SAYS if listed else GOOD_SAYS)
    assert table.names == ("im0.jpg", "im1.jpg", "im2.jpg", "im3.jpg")


@pytest.mark.parametrize(
    ("content", "flags", "told"),
    [
        ("image,labels\na,cat\nb,nan\n", {}, "'nan' is what programs write for no label; leave"),
        ("image,labels\na,cat；dog\nb,dog\n", {}, "holds '；'; give --label_separator=；"),
        ("image,labels\na,cat and dog\nb,dog\n", {}, 'give "--label_separator= and "'),
        ("image,labels\na,[1.5]\n", {"label_separator": "json"}, "for lists such as"),
        ("image,label,present\na,cat,1\nb,dog,0\n", {"label_column": "label"},
         "'present' seems to say which labels are absent; give --value_column=present"),
        ("image,labels,negative\na,cat,dog\nb,dog,cat\n", {"label_column": "labels"},
         "give --negative_column=negative"),
        ("image,labels,split\na,cat,train\nb,dog,val\n", {"label_column": "labels"},
         "'split' seems to say of which split a row is; cut the table"),
    ],
)  # fmt: skip
def test_what_would_be_read_wrong(content, flags, told, tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        tables.read_table(path, options=TableOptions(**flags))
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("content", "flags", "says"),
    [
        ("image,labels\na,\"['cat' 'dog']\"\nb,['cat']\n", {}, [{"cat": 1, "dog": 1}, {"cat": 1}]),
        ("image,labels\na,\"('cat', 'dog')\"\nb,\"('dog',)\"\n", {},
         [{"cat": 1, "dog": 1}, {"dog": 1}]),
        ("image,Labels,Negatives\na,cat,dog\nb,dog,cat\n", {},
         [{"cat": 1, "dog": 0}, {"cat": 0, "dog": 1}]),
        ("image,label,present\na,cat,1\na,dog,0\n",
         {"label_column": "label", "value_column": "present"}, [{"cat": 1, "dog": 0}]),
        ("image,label,present\na,cat,1\na,dog,0\n",
         {"label_column": "label", "omit_columns": "present"}, [{"cat": 1, "dog": 1}]),
        ("image,labels\na,cat and dog\nb,dog\n", {"label_separator": " and "},
         [{"cat": 1, "dog": 1}, {"dog": 1}]),
        ("sep=;\nimage;cat;dog\na;1;0\n", {}, [{"cat": 1, "dog": 0}]),
    ],
)  # fmt: skip
def test_shapes_that_other_programs_write(content, flags, says, tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(content)
    table = tables.read_table(path, options=TableOptions(**flags))
    assert says == [
        {n: x for n, x in zip(table.class_names, row, strict=True) if x != UNKNOWN}
        for row in table.labels.tolist()
    ]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["Train/cat/a.jpg", "Valid/dog/b.jpg"], "'Train', 'Valid' seem to be splits"),
        (["train/cat/a.jpg", "validation/cat/b.jpg"], "'validation' seem to be splits"),
        (["images/cat/a.jpg", "images/dog/b.jpg"], "'images' seems to hold the photos of all"),
        (
            ["train/images/cat/a.jpg", "val/cat/b.jpg"],
            "'train/images' seems to hold the photos",
        ),
        (["train/cat/a.jpg", "val/cat/b.jpg", "test/cat/c.jpg"], None),
        (["data/a.jpg", "train/b.jpg"], None),
    ],
)
def test_folders_that_are_no_classes(names, told, tmp_path):
    label_exports.write_photos(tmp_path, names)
    if told is None:
        readers.load("folder", str(tmp_path), "train")
        return
    with pytest.raises(UserError) as caught:
        readers.load("folder", str(tmp_path), "train")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("name", "flags", "says"),
    [
        ("bars in lists", {"label_separator": "bar"}, LISTED_SAYS),
        ("blanks in lists", {"label_separator": "blank"}, LISTED_SAYS),
        ("commas in lists", {"label_separator": "comma"}, LISTED_SAYS),
        ("slashes in lists", {"label_separator": "/"}, LISTED_SAYS),
        ("colons between columns", {"column_separator": ":"}, GOOD_SAYS),
        ("no header", {"table_header": "image,cat,dog"}, GOOD_SAYS),
        ("no header of lists", {"table_header": "image,labels"}, LISTED_SAYS),
        ("a column of ages", {"omit_columns": "age"}, GOOD_SAYS),
        ("a column of words", {"label_columns": "cat,dog"}, GOOD_SAYS),
        ("lists in a column of another name", {"label_column": "what"}, LISTED_SAYS),
        ("lists beside a column of words", {"label_column": "labels"}, LISTED_SAYS),
        ("lists beside a column of words", {"omit_columns": "who"}, LISTED_SAYS),
        ("the photos' column called otherwise", {"image_column": "frame"}, GOOD_SAYS),
        ("an index that the header lacks", {"table_header": "n,image,cat,dog", "omit_columns": "n"},
         None),
        ("-1", {"minus_one": "negative", "zero": "unknown"}, GOOD_SAYS),
        ("-1", {"minus_one": "unknown"},
         [{"cat": 1}, {"dog": 1}, {"cat": 1, "dog": 1}, {"dog": 1}]),
        ("fractions", {"skip_fractions": True}, [*GOOD_SAYS[:2], {}, {"dog": 1}]),
        ("a row a label", {"unlisted": "negative"},
         [{"cat": 1, "dog": 0}, {"cat": 0, "dog": 1}, {"cat": 1, "dog": 1}, {"cat": 0, "dog": 1}]),
        ("semicolons between columns", {"blank": "negative"},
         [*GOOD_SAYS[:3], {"cat": 0, "dog": 1}]),
        ("bars in lists", {"trust_table": True},
         [{"cat": 1}, {"dog": 1}, {"cat|dog": 1}, {"dog": 1}]),
    ],
)  # fmt: skip
def test_the_flag_that_reads_it(name, flags, says, tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(MUTATIONS[name])
    options = TableOptions(**flags)
    if says is None:  # the header is a row of the table then
        with pytest.raises(UserError, match=r"labels.csv:1: expected 4 cells"):
            tables.read_table(path, options=options)
        return
    table = tables.read_table(path, options=options)
    assert says == [
        {n: x for n, x in zip(table.class_names, row, strict=True) if x != UNKNOWN}
        for row in table.labels.tolist()
    ]


@pytest.mark.parametrize(
    ("content", "flags", "told"),
    [
        ("image,cat\na.jpg,1\n", {"negative_column": "cat"}, None),
        ("image,cat,dog\na.jpg,1,0\n", {"negative_column": "dog"},
         "--negative_column: needs a column of lists of names"),
        ("image,cat,no\na.jpg,1,dog\n", {"label_columns": "cat", "negative_column": "no"},
         "--negative_column changes nothing"),
        ("image,cat\na.jpg,1\n", {"no_label": "none", "label_separator": "bar", "unlisted":
         "negative"}, "--label_separator, --no_label, --unlisted changes nothing"),
        ("image,labels\na.jpg,cat\n", {"blank": "negative", "zero": "unknown"},
         "--zero, --blank changes nothing"),
        ("image,label,value\na.jpg,cat,0\n", {"label_column": "label", "value_column": "value",
         "zero": "unknown"}, ""),
    ],
)  # fmt: skip
def test_flags_that_a_form_has_no_use_for(content, flags, told, tmp_path):
    """They are noted, for another split's table may have another form."""
    path = tmp_path / "labels.csv"
    path.write_text(content)
    if told and "needs" in told:
        with pytest.raises(UserError, match=told):
            tables.read_table(path, options=TableOptions(**flags))
        return
    if told is None:  # the only column of a class is that of negatives
        with pytest.raises(UserError, match="there is no column of labels"):
            tables.read_table(path, options=TableOptions(**flags))
        return
    notes = tables.read_table(path, options=TableOptions(**flags)).notes
    assert [x.rpartition(": ")[2] for x in notes if "changes nothing" in x] == [told] * bool(told)


def test_names_in_brackets_are_whole(tmp_path):
    """A list says itself where a name ends, so that one class may hold the name of another."""
    path = tmp_path / "labels.csv"
    path.write_text('image,labels\na.jpg,"[""dog"", ""hot dog""]"\nb.jpg,dog\n')
    assert tables.read_table(path).class_names == ("dog", "hot dog")
    path.write_text('image,labels\na.jpg,"dog;hot dog"\nb.jpg,dog\n')
    with pytest.raises(UserError, match="the class 'hot dog' holds the class 'dog'"):
        tables.read_table(path)
    path.write_text('image,labels\na.jpg,"[""dog|cat""]"\n')
    with pytest.raises(UserError, match=r"the class 'dog\|cat' holds '\|'"):
        tables.read_table(path)


class TestTheCommand:
    @pytest.fixture
    def source(self, tmp_path) -> Path:
        """Three photos, and a table of them."""
        root = tmp_path / "source"
        label_exports.write_photos(root, ["im0.jpg", "im1.jpg", "im2.jpg"])
        (root / "labels.csv").write_text("filename,cat,dog\nim0.jpg,1,0\nim1.jpg,,1\nim9.jpg,1,1\n")
        return root

    def test_the_report(self, source, tmp_path):
        words = [f"--source={source}", f"--output_dir={tmp_path / 'out'}"]
        found = run("import", *words, module="data")
        assert found.returncode == 0, found.stderr
        told = found.stdout
        for line in (
            r"format: a table \(--from=csv, recognised\)",
            r"images +3$", r"positives +4$", r"known negatives +1$", r"unknown +1$",
            r"  cat: 2 \+ 0$", r"  dog: 2 \+ 1$",
            "images without a file: 1, such as 'im9.jpg'",
            "files without a row: 1, such as 'im2.jpg'",
            "note: 1 labels are unknown; .*--blank=negative",
            "read it with: --dataset=folder --data_dir=.* --train_csv=.*/out/train.csv --allow_out",
        ):  # fmt: skip
            assert re.search(line, told, re.M), line
        assert (tmp_path / "out/import.txt").read_text() in told
        assert sorted(x.name for x in (tmp_path / "out").iterdir() if x.name[0] != ".") == [
            "import.json", "import.txt", "train.csv",
        ]  # fmt: skip

    def test_photos_that_are_missing_and_copies(self, source, tmp_path):
        record = imported(source, tmp_path / "a", "--drop_missing", "--copy_photos")
        assert "--allow_outside" not in record["command"] and record["rows_left_out"] == 1
        assert "rows left out, without a file: 1\n" in (tmp_path / "a/import.txt").read_text()
        assert read_back(record) == expected_of(
            [("im0.jpg", {"cat": 1, "dog": 0}), ("im1.jpg", {"cat": -1, "dog": 1})]
        )
        assert (tmp_path / "a/im1.jpg").read_bytes() == (source / "im1.jpg").read_bytes()
        assert not (tmp_path / "a/im2.jpg").exists()  # it has no row
        inside = imported(source, source / "tables", "--drop_missing")
        assert "--allow_outside" not in inside["command"]
        assert "--train_csv=tables/train.csv" in inside["command"] and len(read_back(inside)) == 2
        elsewhere = tmp_path / "elsewhere"
        label_exports.write_photos(elsewhere, ["deep/im0.jpg", "deep/im1.jpg", "deep/im9.jpg"])
        moved = imported(source, tmp_path / "b", f"--photos_dir={elsewhere}")
        assert set(read_back(moved)) == {"deep/im0.jpg", "deep/im1.jpg", "deep/im9.jpg"}

    def test_nothing_is_overwritten(self, source, tmp_path):
        out, words = tmp_path / "out", [f"--source={source}", f"--output_dir={tmp_path / 'out'}"]
        done(words)
        before = (out / "train.csv").read_text()
        assert "give --overwrite" in done(words, 1).stderr
        (source / "labels.csv").write_text("filename,cat\nim0.jpg,7\n")
        assert "labels.csv:2: 'cat'" in done([*words, "--overwrite"], 1).stderr
        assert (out / "train.csv").read_text() == before
        (source / "labels.csv").write_text("filename,cat\nim0.jpg,1\n")
        done([*words, "--overwrite"])
        assert (out / "train.csv").read_text() == "image,cat\nim0.jpg,1\n"
        (out / "train.csv").write_text("image,cat\nim0.jpg,0\n")
        assert "was edited" in done([*words, "--overwrite"], 1).stderr
        other = tmp_path / "other"
        other.mkdir()
        (other / "x").write_text("mine")
        refused = done([words[0], f"--output_dir={other}", "--overwrite"], 1)
        assert "no earlier import" in refused.stderr and [x.name for x in other.iterdir()] == ["x"]
        refused = done([words[0], f"--output_dir={source}", "--overwrite"], 1)
        assert "no earlier import" in refused.stderr

    def test_a_file_of_json_is_searched_once_for_all_formats(self, tmp_path, monkeypatch):
        (tmp_path / "a.json").write_text('{"classes": {"1": "cat"}, "labels": {"im0": "1"}}')
        read, real = [], Path.read_bytes
        monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path) or real(path))
        file = LabelFile(tmp_path / "a.json")
        assert formats.recognise([file, LabelFile(tmp_path)], "auto", "here") == (
            "fiftyone",
            [file],
        )
        assert read == [tmp_path / "a.json"]

    def test_a_folder_that_may_not_be_listed_is_named(self, source, tmp_path, unlistable):
        (source / "more").mkdir()
        (source / "more" / "labels.csv").write_text("filename,cat\nim7.jpg,1\n")
        unlistable("more")
        told = done([f"--source={source}", f"--output_dir={tmp_path / 'out'}"], 1).stderr
        assert told == f"error: {source}/more: cannot be listed (Permission denied)\n"
        assert not (tmp_path / "out").exists()

    def test_a_photo_that_cannot_be_copied_is_named(self, source, tmp_path, monkeypatch):
        """Not the output, which can be written."""
        real = Path.read_bytes

        def failing(path):
            if path.name == "im1.jpg":
                raise OSError(5, "Input/output error", str(path))
            return real(path)

        monkeypatch.setattr(Path, "read_bytes", failing)
        monkeypatch.setattr("shutil.copyfile", lambda source, _: failing(source))
        out = tmp_path / "out"
        told = done([f"--source={source}", f"--output_dir={out}", "--copy_photos"], 1).stderr
        assert f"error: {source}/im1.jpg: cannot be read (Input/output error); mend" in told
        assert not out.exists()

    def test_what_others_wrote_into_an_import_is_kept(self, source, tmp_path):
        """With its photos an import is a data folder, and reviewed labels may lie in it."""
        out = tmp_path / "out"
        words = [f"--source={source}", f"--output_dir={out}", "--drop_missing", "--copy_photos"]
        done(words)
        done([*words, "--overwrite"])
        (out / "reviewed").mkdir()
        (out / "reviewed" / "reviewed.csv").write_text("hours of work")
        told = done([*words, "--overwrite"], 1).stderr
        assert told.splitlines()[-1] == (
            f"error: --output_dir={out}: holds 'reviewed/reviewed.csv', which this command has not "
            "written; move it, or choose another folder"
        )
        assert (out / "reviewed" / "reviewed.csv").read_text() == "hours of work"
        shutil.move(out / "reviewed", tmp_path / "reviewed")
        (out / "link").symlink_to(tmp_path / "reviewed")
        assert "holds 'link', which" in done([*words, "--overwrite"], 1).stderr
        (out / "link").unlink()
        done([*words, "--overwrite"])

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (
                ["--from=coco"],
                "no file of COCO json; --from=auto looks for .* --source=.*labels.csv says what",
            ),
            (["--output_dir="], "--output_dir is missing"),
            (["--source="], "--source is missing"),
            (["--source={tmp}/none"], "there is no such file or folder"),
            (["--photos_dir={tmp}/none"], "--photos_dir=.*is not a folder"),
            (["--dataset=voc"], "--dataset: import does not take it"),
            (["--train_csv=x.csv"], "--train_csv: import does not take it"),
            (["--short_side=9"], "--short_side: import does not take it"),
            (["--classes=cow"], "--classes: unknown class 'cow'; the classes are cat, dog"),
            (["--classes=cat,cat"], "--classes: 'cat' comes twice; name it once"),
            (
                ["--drop_missing=true", "--photos_dir={tmp}/empty"],
                "--drop_missing: .* holds no photo at all; give --photos_dir",
            ),
            (
                ["--image_column=x"],
                "labels.csv:1: --image_column: no column 'x'; there are 'fi",
            ),
            (["--strip_prefix=x/"], "--strip_prefix=x/: no photo's name begins with it"),
        ],
    )
    def test_mistakes(self, words, message, source, tmp_path):
        given = {"--source": str(source), "--output_dir": str(tmp_path / "out")}
        (tmp_path / "empty").mkdir()
        given.update(word.format(tmp=tmp_path).split("=") for word in words)
        told = done([f"{flag}={value}" for flag, value in given.items()], 1).stderr
        assert re.search(message, told) and told.count("\n") == 1
        assert not (tmp_path / "out").exists()
        assert not [x for x in tmp_path.iterdir() if x.name.startswith(".")]

    def test_flags_of_import_elsewhere(self, source):
        words = ["--dataset=folder", f"--data_dir={source}", "--from=coco"]
        refused = run("check", *words, module="data")
        assert refused.returncode == 1 and "--from: check does not take it" in refused.stderr
        refused = run("check", "--dataset=digits", "--label_column=x", module="data")
        assert "--label_column: this data set does not take it" in refused.stderr
        refused = run("check", *words[:2], "--label_column=x", module="data")
        assert "--label_column: is about tables, and there is none" in refused.stderr

    def test_several_formats_or_files(self, source, tmp_path):
        label_exports.coco(source, ROWS, CLASSES)
        label_exports.cvat(source, ROWS, CLASSES)
        words = [f"--source={source}", f"--output_dir={tmp_path / 'out'}"]
        told = done(words, 1).stderr
        assert "--from=cvat (annotations.xml)" in told and "--from=coco (_annotations.coco" in told
        assert json.loads(done_record(words, "--from=cvat"))["format"] == "cvat"
        (source / "other.csv").write_text("image,cat\nim0.jpg,1\n")
        told = done([*words, "--from=csv", "--overwrite"], 1).stderr
        assert "2 files for train, " in told and "--source=FILE" in told
        refused = done([*words, "--from=coco", "--zero=unknown", "--overwrite"], 1)
        assert "--zero: is about columns, which COCO json has not" in refused.stderr

    def test_classes_of_all_splits(self, tmp_path):
        """Each split has the classes of all; with complete lists all others are negative."""
        for split, rows in (("train", ROWS[:2]), ("valid", ROWS[3:])):
            root = tmp_path / "source" / split
            root.mkdir(parents=True)
            label_exports.coco(root, known("voc", rows), ["cat", "dog"] if rows[1:] else ["sofa"])
            label_exports.write_photos(root, [photo for photo, _ in rows])
        record = imported(tmp_path / "source", tmp_path / "out", "--unlisted=negative")
        assert record["class_names"] == CLASSES and list(record["splits"]) == ["train", "val"]
        assert read_back(record) == {
            "train/im0.jpg": {"positive": {"cat"}, "negative": {"dog", "sofa"}},
            "train/im1.jpg": {"positive": {"dog"}, "negative": {"cat", "sofa"}},
            "valid/im3.jpg": {"positive": {"sofa"}, "negative": {"cat", "dog"}},
        }
        chosen = imported(tmp_path / "source", tmp_path / "b", "--classes=sofa,cat")
        assert chosen["class_names"] == ["sofa", "cat"]

    @pytest.mark.parametrize(
        ("names", "written"),
        [
            (["image", "weight"], ["class image", "weight"]),
            (["class image", "image"], ["class image", "class class image"]),
            (["LABEL"], ["class LABEL"]),
            (["labels", "negatives"], ["class labels", "class negatives"]),
            (["cat", "labels"], ["cat", "labels"]),
            (["Unnamed: 0", "cat"], ["class Unnamed: 0", "cat"]),
            (["partition", "cat"], ["class partition", "cat"]),
            (["cat", "is_valid"], ["cat", "class is_valid"]),
        ],
    )
    def test_classes_called_as_other_columns(self, tmp_path, names, written):
        source = tmp_path / "source"
        source.mkdir()
        label_exports.hf(source, [("a.jpg", dict.fromkeys(names, 1))], [])
        label_exports.write_photos(source, ["a.jpg"])
        record = imported(source, tmp_path / "out")
        renamed = {old: new for old, new in zip(names, written, strict=True) if old != new}
        assert record["renamed_classes"] == renamed
        assert read_back(record)["a.jpg"]["positive"] == set(written)


def done_record(words: list[str], *more: str) -> str:
    done([*words, *more])
    return (Path(words[1].partition("=")[2]) / "import.json").read_text()


class TestLayouts:
    def test_vocs_own_folders(self, tmp_path):
        """Splits by the lists; a photo's file is that of the annotation's name."""
        root = tmp_path / "VOC"
        (root / "Annotations").mkdir(parents=True)
        label_exports.voc(root / "Annotations", ROWS, CLASSES)
        label_exports.write_photos(root, [f"JPEGImages/{photo}" for photo, _ in ROWS])
        (root / "ImageSets/Main").mkdir(parents=True)
        (root / "ImageSets/Main/train.txt").write_text("im0\nim1\n")
        (root / "ImageSets/Main/val.txt").write_text("im2\nim3\n")
        record = imported(root, tmp_path / "out")
        assert {name: part["images"] for name, part in record["splits"].items()} == {
            "train": 2, "val": 2,
        }  # fmt: skip
        assert read_back(record) == expected_of(known("voc", ROWS), "JPEGImages/")

    def test_flat_voc_in_folders_of_splits(self, tmp_path):
        for split, rows in (("train", ROWS[:3]), ("test", ROWS[3:])):
            root = tmp_path / "source" / split
            root.mkdir(parents=True)
            label_exports.voc(root, rows, CLASSES)
            label_exports.write_photos(root, [photo for photo, _ in rows])
        record = imported(tmp_path / "source", tmp_path / "out")
        assert list(record["splits"]) == ["train", "test"] and record["format"] == "voc"
        expected = expected_of(known("voc", ROWS[:3]), "train/")
        assert read_back(record) == {**expected, **expected_of(known("voc", ROWS[3:]), "test/")}

    def test_vocs_photos_called_as_splits(self, tmp_path):
        """train_1.xml is a photo's own file and says nothing of its split; its folder does."""
        source, rows = tmp_path / "source", [(f"{x}_1.jpg", {"cat": 1}) for x in ("test", "train")]
        source.mkdir()
        label_exports.voc(source, rows, ["cat"])
        label_exports.write_photos(source, [photo for photo, _ in rows])
        assert list(imported(source, tmp_path / "out")["splits"]) == ["train"]

    @pytest.mark.parametrize(
        ("lists", "labels", "changes"),
        [
            ({"classes.txt": "cat\n"}, {"a.txt": "0 0.5 0.5 1 1"}, {"classes.txt": "dog\n"}),
            (
                {"a.yaml": "nc: 1\nnames: [cat]"},
                {"a.txt": "0 0.5 0.5 1 1"},
                {"a.yaml": "nc: 1\nnames: [dog]"},
            ),
        ],
    )
    def test_yolos_names_are_read_anew(self, tmp_path, lists, labels, changes):
        source = tmp_path / "source"
        label_exports.write_photos(source, ["a.jpg"])
        found = []
        for files in ({**lists, **labels}, changes):
            for name, text in files.items():
                (source / name).write_text(text)
            found.append(imported(source, tmp_path / f"out{len(found)}")["class_names"])
        assert found == [["cat"], ["dog"]]

    def test_vocs_lists_are_read_anew(self, tmp_path):
        root = tmp_path / "VOC"
        (root / "Annotations").mkdir(parents=True)
        (root / "ImageSets/Main").mkdir(parents=True)
        label_exports.voc(root / "Annotations", ROWS, CLASSES)
        found = []
        for names in (["im0", "im1"], ["im0"]):
            others = sorted({f"im{number}" for number in range(len(ROWS))} - set(names))
            (root / "ImageSets/Main/train.txt").write_text("\n".join(names))
            (root / "ImageSets/Main/val.txt").write_text("\n".join(others))
            record = imported(root, tmp_path / f"out{len(found)}")
            found.append(record["splits"]["train"]["images"])
        assert found == [2, 1]

    def test_a_single_split_is_trained_on(self, tmp_path):
        """CVAT says the split of each image; a job of test photos alone has a table to train on."""
        (tmp_path / "s").mkdir()
        (tmp_path / "s/annotations.xml").write_text(
            "<annotations><image name='a.jpg' subset='Test'><tag label='cat'/></image>"
            "</annotations>"
        )
        record = imported(tmp_path / "s", tmp_path / "out")
        assert list(record["splits"]) == ["train"] and "--train_csv=" in record["command"]

    def test_a_name_of_two_ids_in_two_splits(self, tmp_path):
        """Open Images has two classes called Bat; each split's file shows one of them."""
        source = tmp_path / "s"
        source.mkdir()
        (source / "class-descriptions.csv").write_text("/m/1,Bat\n/m/2,Bat\n/m/3,Cat\n")
        for split, word, more in (("train", "/m/1", "/m/3"), ("test", "/m/2", "/m/3")):
            (source / f"{split}.csv").write_text(
                "ImageID,Source,LabelName,Confidence\n"
                f"{split}0,verification,{word},1\n{split}0,verification,{more},1\n"
            )
        record = imported(source, tmp_path / "out")
        assert record["class_names"] == ["Bat (/m/1)", "Cat", "Bat (/m/2)"]

    @pytest.mark.parametrize(
        ("top", "remedy"), [("", "give --source={path}"), ("train", "move its folders to {above}")]
    )
    def test_a_folder_of_classes_is_no_class(self, top, remedy, tmp_path, capsys):
        above = tmp_path / "s" / top
        label_exports.write_photos(above, ["images/cat/a.jpg", "images/dog/b.jpg"])
        words = [f"--source={tmp_path / 's'}", "--from=folders", f"--output_dir={tmp_path / 'o'}"]
        assert data.main(["import", *words]) == 1
        said = remedy.format(path=above / "images", above=above)
        folder = f"{top}/images" if top else "images"
        assert capsys.readouterr().err == (
            f"error: {tmp_path / 's'}: '{folder}' seems to hold the photos of all classes and to "
            f"be none; {said}, or rename it\n"
        )
        assert not (tmp_path / "o").exists()

    def test_folders_beside_an_earlier_import(self, tmp_path):
        """An import with copies, written into the source, is no class at the next one."""
        source = tmp_path / "s"
        label_exports.write_photos(source, ["cat/a.jpg", "dog/b.jpg"])
        first = imported(source, source / "out", "--copy_photos")
        again = imported(source, source / "out2", "--from=folders")
        assert first["class_names"] == again["class_names"] == ["cat", "dog"]
        assert again["images"] == 2
        (source / "labels.csv").write_text("image,cat,dog\na.jpg,1,0\nb.jpg,0,1\n")
        third = imported(source, source / "out3", "--from=csv")
        assert set(read_back(third)) == {"cat/a.jpg", "dog/b.jpg"}

    def test_classes_of_one_photo_are_noted(self, tmp_path):
        """Names joined by a mark that many a name has: nothing tells, but for how rare they are."""
        (tmp_path / "s").mkdir()
        names = [f"{a}-{b}" for a in "abcde" for b in "vwxyz"]
        rows = "".join(f"im{n}.jpg,{name}\n" for n, name in enumerate(names))
        (tmp_path / "s/labels.csv").write_text(f"image,labels\n{rows}im99.jpg,A-v\n")
        record = imported(tmp_path / "s", tmp_path / "out")
        (alike, rare) = [x for x in record["notes"] if "classes" in x]
        assert alike == "'A-v' and 'a-v': nearly the same names of different classes"
        assert "26 of 26 classes are of a single photo, such as 'A-v', 'a-v': if these" in rare

    def test_lvis_has_addresses_alone(self, tmp_path):
        """Its images have no file_name; the photo is that at the end of the address."""
        content = {
            "images": [{"id": 1, "coco_url": "http://x.org/train2017/im1.jpg",
                        "neg_category_ids": [2]}],
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
            "annotations": [{"image_id": 1, "category_id": 1}],
        }  # fmt: skip
        (tmp_path / "s").mkdir()
        (tmp_path / "s/lvis.json").write_text(json.dumps(content))
        label_exports.write_photos(tmp_path / "s", ["im1.jpg"])
        record = imported(tmp_path / "s", tmp_path / "out")
        assert read_back(record) == expected_of([("im1.jpg", {"cat": 1, "dog": 0})])

    def test_lvis_takes_photos_of_the_other_split(self, tmp_path):
        """Its validation images are partly COCO's training images, as their addresses say."""
        for split, folders in (("train", ["train2017"]), ("val", ["train2017", "val2017"])):
            urls = [f"http://x.org/{folder}/{split}.jpg" for folder in folders]
            content = {
                "images": [{"id": i, "coco_url": url} for i, url in enumerate(urls)],
                "categories": [{"id": 1, "name": "cat"}],
                "annotations": [{"image_id": i, "category_id": 1} for i in range(len(urls))],
            }
            (tmp_path / "s/annotations").mkdir(parents=True, exist_ok=True)
            path = tmp_path / f"s/annotations/lvis_v1_{split}.json"
            path.write_text(json.dumps(content))
        names = {"train": ["train2017/train.jpg"], "val": ["train2017/val.jpg", "val2017/val.jpg"]}
        label_exports.write_photos(tmp_path / "s", [x for split in names.values() for x in split])
        imported(tmp_path / "s", tmp_path / "out")
        assert said(tmp_path / "out") == {
            f"{split}: {name}": {"cat": 1} for split, found in names.items() for name in found
        }

    @pytest.mark.parametrize(
        ("attribute", "says"),
        [("present='true", 1), ("present='no", 0), ("present='0", 0), ("absent='yes", 0),
         ("Absent='False", 1), ("colour='no", 1), ("present='maybe", None)],
    )  # fmt: skip
    def test_cvats_attributes(self, attribute, says, tmp_path):
        name, _, word = attribute.partition("='")
        (tmp_path / "s").mkdir()
        (tmp_path / "s/a.xml").write_text(
            f"<annotations><image name='a.jpg'><box label='cat'><attribute name='{name}'>{word}"
            "</attribute></box><tag label='dog'/></image></annotations>"
        )
        label_exports.write_photos(tmp_path / "s", ["a.jpg"])
        if says is None:
            words = [f"--source={tmp_path / 's'}", f"--output_dir={tmp_path / 'out'}"]
            assert "present must be true or false, found 'maybe'" in done(words, 1).stderr
            return
        record = imported(tmp_path / "s", tmp_path / "out")
        assert read_back(record) == expected_of([("a.jpg", {"cat": says, "dog": 1})])

    def test_many_photos_of_one_name(self, tmp_path):
        """A name for each folder: as many steps as photos, and not their square."""
        source, count = tmp_path / "s", 4000
        for number in range(count):
            (source / f"photos/{number}").mkdir(parents=True)
            (source / f"photos/{number}/view.jpg").touch()
        (source / "labels.csv").write_text(
            "image,cat\n" + "".join(f"data/{x}/view.jpg,1\n" for x in range(count))
        )
        found = sources.PhotoFolder(source, tmp_path / "out")
        begin = time.process_time()
        names = [f"data/{x}/view.jpg" for x in range(count)]
        paths = found.find(names, source)
        assert paths == [(f"photos/{x}/view.jpg", True) for x in range(count)]
        assert time.process_time() - begin < 2  # 4,000 squared steps take 6 s

    def test_a_photo_of_a_split_is_not_found_in_the_folder_of_another(self, tmp_path):
        label_exports.write_photos(tmp_path, ["train/a.jpg", "train/b.jpg"])
        found = sources.PhotoFolder(tmp_path, tmp_path / "out")
        wanted = [("val/a.jpg", False), ("val/c.jpg", False)]
        assert found.find(["val/a.jpg", "val/c.jpg"], tmp_path) == wanted
        assert found.find(["old/a.jpg"], tmp_path) == [("train/a.jpg", True)]

    def test_addresses_are_decoded(self, tmp_path):
        label_exports.write_photos(tmp_path, ["my photos/a b.jpg"])
        found = sources.PhotoFolder(tmp_path, tmp_path / "out")
        names = ["https://host/my%20photos/a%20b.jpg?v=1"]
        assert found.find(names, tmp_path) == [("my photos/a b.jpg", True)]

    @pytest.mark.parametrize(
        "url, name",
        [
            ("/data/local-files/?d=photos/im1.jpg", "photos/im1.jpg"),
            ("http://localhost:8080/data/local-files/?d=photos%2Fim1.jpg", "photos/im1.jpg"),
            ("/data/upload/1/0a1b2c3d-im%200.jpg", "0a1b2c3d-im 0.jpg"),
            ("s3://bucket/a%20b.jpg", "s3://bucket/a%20b.jpg"),
        ],
    )
    def test_label_studios_addresses(self, url, name):
        assert labelstudio._photo_name(url) == name

    def test_photos_of_every_ending_that_training_reads(self, tmp_path):
        for name in ("cat/a.heif", "dog/b.JPEG", "dog/c.tif"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        found = sources.PhotoFolder(tmp_path, tmp_path / "out").names
        assert sorted(found) == ["cat/a.heif", "dog/b.JPEG", "dog/c.tif"]

    def test_roboflows_group_of_categories(self, tmp_path):
        content = {
            "images": [{"id": 0, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}],
            "categories": [
                {"id": 0, "name": "animals", "supercategory": "none"},
                {"id": 1, "name": "cat", "supercategory": "animals"},
            ],
            "annotations": [{"id": 0, "image_id": 0, "category_id": 1, "bbox": [1, 2, 3, 4]}],
        }
        (tmp_path / "s").mkdir()
        (tmp_path / "s/_annotations.coco.json").write_text(json.dumps(content))
        label_exports.write_photos(tmp_path / "s", ["a.jpg", "b.jpg"])
        record = imported(tmp_path / "s", tmp_path / "out")
        assert record["class_names"] == ["cat"] and "'animals' groups others" in record["notes"][0]
        assert read_back(record)["b.jpg"] == {"positive": set(), "negative": set()}

    def test_a_missing_photo_takes_no_other(self, tmp_path):
        """patient2's photo is gone; patient1's has the same name."""
        source = tmp_path / "source"
        rows = [(f"train/p{n}/view.jpg", {"Edema": n}) for n in (0, 1)]
        label_exports.write_photos(source, ["train/p0/view.jpg"])
        label_exports.chexpert(source, rows, ["Edema"])
        record = imported(source, tmp_path / "out")
        assert record["images_without_a_file"] == ["train/p1/view.jpg"]
        for split, names in (("train", ["a.jpg"]), ("valid", ["b.jpg"])):
            label_exports.write_photos(tmp_path / "r" / split, names)
            (tmp_path / "r" / split / "_classes.csv").write_text(
                "filename, cat\na.jpg, 1\nb.jpg, 0\n"
                if split == "train"
                else "filename, cat\nb.jpg, 1\n"
            )
        record = imported(tmp_path / "r", tmp_path / "out2")
        assert record["images_without_a_file"] == ["train/b.jpg"]

    def test_names_that_several_photos_have(self, tmp_path):
        source = tmp_path / "source"
        label_exports.write_photos(source, ["x/im0.jpg", "y/im0.jpg", "x/im1.jpg"])
        (source / "labels.csv").write_text("image,cat\nim0.jpg,1\nim1.jpg,0\n")
        words = [f"--source={source}", f"--output_dir={tmp_path / 'out'}"]
        told = done(words, 1).stderr
        assert "2 photos are called 'im0.jpg', such as 'x/im0.jpg' and 'y/im0.jpg'" in told
        assert "--photos_dir" in told
        record = imported(source, tmp_path / "out", f"--photos_dir={source / 'x'}")
        assert set(read_back(record)) == {"im0.jpg", "im1.jpg"}

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("a.json", '{"images": [], "categories": [], "annotations": [', "not whole JSON.*li"),
            ("annotations.xml", "<annotations><image name='a.jpg'>", "no CVAT annotations"),
            ("annotations.xml", "<annotations><image id='1'/></annotations>",
             "image 0: expected the name of a photo"),
            ("annotations.xml", "<!DOCTYPE a [<!ENTITY b 'c'>]><annotations/>", "document type"),
            ("labels.json", '{"classes": ["cat"], "labels": {"a": [3]}}',
             r"labels\['a'\]: class 3 is not among the 1 classes"),
            ("labels.json", '{"classes": ["cat\\ndog"], "labels": {"a": [0]}}',
             r"labels.json: expected the name of a class, found \"'cat..ndog'\""),
            ("a.jsonl", '{"image_url": "a.jpg", "label": "cat"}\n{', "a.jsonl:2: no JSON"),
            ("a.jsonl", '{"image_url": "a.jpg", "label": "cat"}\n[1]\n', "a.jsonl:2: expected an"),
            ("_annotations.coco.json", '{"images": [{"id": 1, "file_name": "a.jpg"}], "categories"'
             ': [{"id": 1, "name": "cat"}], "annotations": [{"image_id": 2, "category_id": 1}]}',
             r"annotations\[0\]: image_id '2' is not in this file"),
            ("_annotations.coco.json", '{"images": [{"id": 1}, {"id": "1"}], "categories": '
             '[], "annotations": []}', r"images\[1\]: id 1 comes twice"),
            ("_annotations.coco.json", '{"images": [{"id": 1, "file_name": "a.jpg"}], "categories"'
             ': [], "annotations": []}', "holds no label"),
            ("x.csv", "", "x.csv:1: the file is empty"),
            ("x.dat", "", "holds no label file that is recognised; name its format with --from="),
            ("labels.json", '{"classes": ["cat|dog"], "labels": {"a": 0}}',
             "looks misread: the class 'cat|dog' holds '|'"),
        ],
    )  # fmt: skip
    def test_malformed_files(self, name, content, message, tmp_path):
        (tmp_path / "s").mkdir()
        (tmp_path / "s" / name).write_text(content)
        told = done([f"--source={tmp_path / 's'}", f"--output_dir={tmp_path / 'out'}"], 1).stderr
        assert re.search(message.replace("|", "[|]"), told) and told.count("\n") == 1
        assert [x.name for x in tmp_path.iterdir()] == ["s"]


class TestCopies:
    @pytest.fixture
    def root(self, tmp_path) -> Path:
        """A photo in cat and in dog, another in each of them."""
        label_exports.write_photos(tmp_path / "d", ["cat/a.jpg", "cat/b.jpg", "dog/c.jpg"])
        shutil.copy(tmp_path / "d/cat/a.jpg", tmp_path / "d/dog/copy.jpg")
        return tmp_path / "d"

    def test_in_folders_of_classes(self, root):
        examples = readers.load("folder", str(root), "train")
        assert examples.names == ("cat/a.jpg", "cat/b.jpg", "dog/c.jpg")
        assert examples.labels.tolist() == [[1, 1], [1, -1], [-1, 1]]
        (note,) = examples.notes
        assert note.startswith("1 of 4 photos are copies of others, such as 'dog/copy.jpg' of 'cat")
        kept = TableOptions(keep_copies=True)
        examples = readers.load("folder", str(root), "train", table_options=kept)
        assert examples.labels.tolist() == [[1, -1], [1, -1], [-1, 1], [-1, 1]]
        assert examples.notes == ()

    def test_imported_from_folders_of_classes(self, root, tmp_path):
        record = imported(root, tmp_path / "out")
        assert record["format"] == "folders"
        assert read_back(record) == {
            "cat/a.jpg": {"positive": {"cat", "dog"}, "negative": set()},
            "cat/b.jpg": {"positive": {"cat"}, "negative": set()},
            "dog/c.jpg": {"positive": {"dog"}, "negative": set()},
        }

    def test_in_tables(self, root):
        (root / "t.csv").write_text("image,cat,dog\ncat/a.jpg,1,\ndog/copy.jpg,,0\ndog/c.jpg,0,1\n")
        examples = readers.load("folder", str(root), "train", train_csv="t.csv")
        assert examples.labels.tolist() == [[1, 0], [0, 1]]
        (root / "t.csv").write_text("image,cat,dog\ncat/a.jpg,1,\ndog/copy.jpg,0,0\n")
        message = (
            r"cat/a\.jpg: is the same photo as 'dog/copy\.jpg', .* 'cat' contradict each other"
        )
        with pytest.raises(UserError, match=message):
            readers.load("folder", str(root), "train", train_csv="t.csv")


def flags_of(record: dict) -> list[str]:
    return shlex.split(record["command"])


def end_to_end(source: Path, tmp_path: Path, words: list[str]) -> None:
    """Imported, checked, trained for two epochs, evaluated, exported and used."""
    record = imported(source, tmp_path / "out", *words)
    if record["images_without_a_file"]:
        label_exports.write_photos(source, record["images_without_a_file"])
    flags = flags_of(record)
    checked = run("check", *flags, module="data")
    assert checked.returncode == 0 and "0 errors" in checked.stdout, checked.stderr
    train = [
        "--network=small_residual", "--weights=none", "--image_size=32", "--epochs=2",
        "--batch_size=4", "--threads=1", "--method=an", "--val_fraction=0.4",
    ]  # fmt: skip
    trained = run(*flags, *train, f"--output_dir={tmp_path / 'run'}")
    assert trained.returncode == 0, trained.stderr
    record_of_run = json.loads((tmp_path / "run/run.json").read_text())
    assert record_of_run["class_names"] == record["class_names"]
    assert sum(record_of_run["images"].values()) == record["images"]
    exported = run(
        f"--run_dir={tmp_path / 'run'}", f"--export_dir={tmp_path / 'm'}", module="export"
    )
    assert exported.returncode == 0, exported.stderr
    photos = tmp_path / "photos"
    label_exports.write_photos(photos, ["a.jpg", "b.jpg"])
    words = [f"--model_dir={tmp_path / 'm'}", f"--images={photos}/*.jpg"]
    predicted = run(*words, f"--output={tmp_path / 'p.csv'}", module="predict")
    assert predicted.returncode == 0, predicted.stderr
    header, *lines = (tmp_path / "p.csv").read_text().splitlines()
    assert len(lines) == 2 and all(name in header for name in record["class_names"])


# In each, im0 to im7 of all splits.
MORE = [(f"im{n}.jpg", {"cat": n % 2, "dog": 1 - n % 2, "sofa": int(n > 4)}) for n in range(8)]


@pytest.mark.parametrize(
    "writer", ["coco", *(pytest.param(x, marks=pytest.mark.slow) for x in WRITERS if x != "coco")]
)
def test_from_an_export_to_predictions(writer, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    WRITERS[writer](source, MORE, CLASSES)
    inner = {"roboflow": "train/", "fiftyone": "data/", "yolo": "images/"}.get(writer, "")
    label_exports.write_photos(source / inner, [photo for photo, _ in MORE])
    end_to_end(source, tmp_path, [])


@pytest.mark.slow
@pytest.mark.skipif(not CASES, reason="needs label_files: set SPML_TF_TEST_DATA")
@pytest.mark.parametrize("case", CASES)
def test_from_every_collected_file_to_predictions(case, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(DATA / case, source, ignore=shutil.ignore_patterns("expected.json"))
    end_to_end(source, tmp_path, FLAGS.get(case, []))


def test_the_flags_work_in_training(tmp_path):
    """A table of another shape, with weights, without an import; a resumed run knows them."""
    root = tmp_path / "photos"
    label_exports.write_photos(root, [f"im{n}.jpg" for n in range(8)])
    lines = ["Image Index|who|tags|how much"]
    lines += [f"old/im{n}|me|{'cat,dog' if n % 2 else 'dog'}|{n % 3}.5" for n in range(8)]
    (root / "t.csv").write_text("\n".join(lines))
    (tmp_path / "classes.csv").write_text("class,weight\ndog,0.25\n")
    flags = [
        "--dataset=folder", f"--data_dir={root}", "--train_csv=t.csv", "--image_column=Image Index",
        "--label_column=tags", "--label_separator=comma", "--add_extension=.jpg",
        "--strip_prefix=old/", "--weight_column=how much", "--unlisted=negative",
        f"--class_weights={tmp_path / 'classes.csv'}", "--network=small_residual",
        "--image_size=32", "--epochs=1", "--batch_size=4", "--threads=1", "--method=an",
        f"--output_dir={tmp_path / 'run'}",
    ]  # fmt: skip
    done = run(*flags)
    assert done.returncode == 0, done.stderr
    assert "columns that are no labels, left out: 'who'" in done.stderr
    scored = run(f"--run_dir={tmp_path / 'run'}", "--split=val", module="evaluate")
    assert scored.returncode == 0 and json.loads(scored.stdout)["images"] == 2, scored.stderr
    (tmp_path / "classes.csv").write_text("class,weight\ndog,0.5\n")
    changed = run(*flags)
    assert changed.returncode == 1 and "the data have changed" in changed.stderr


class TestWeights:
    def test_of_photos(self, tmp_path):
        path = tmp_path / "t.csv"
        path.write_text("image,cat,w\na.jpg,1,0.5\nb.jpg,0,2\na.jpg,1,0.5\n")
        options = TableOptions(weight_column="w")
        table = tables.read_table(path, options=options)
        assert table.class_names == ("cat",) and table.weights.tolist() == [0.5, 2.0]
        # A table of another split needs no weights.
        path.write_text("image,cat\na.jpg,1\n")
        assert tables.read_table(path, ["cat"], options=options).weights is None
        with pytest.raises(UserError, match="no column 'w'; there are .* those of all tables"):
            tables.read_table(path, options=options)
        for cell in ("", "x", "-1", "nan", "inf"):
            path.write_text(f"image,cat,w\na.jpg,1,{cell}\n")
            with pytest.raises(UserError, match=r"t\.csv:2: 'w' must be a number from 0"):
                tables.read_table(path, options=options)
        path.write_text("image,cat,w\na.jpg,1,0.5\na.jpg,1,2\n")
        with pytest.raises(UserError, match=r"t\.csv:3: another 'w' than in .*t\.csv:2"):
            tables.read_table(path, options=options)

    def test_are_imported(self, tmp_path):
        source = tmp_path / "source"
        label_exports.write_photos(source, ["a.jpg", "b.jpg"])
        (source / "labels.csv").write_text("image,cat,w\na.jpg,1,0.5\nb.jpg,0,2\n")
        record = imported(source, tmp_path / "out", "--weight_column=w")
        options = cli.parse([*flags_of(record), "check"], data._Options, "")
        examples = readers.load("folder", options.data_dir, "train", **options.reader_options)
        assert examples.weights.tolist() == [0.5, 2.0] and examples.class_names == ("cat",)
        assert examples.subset([1]).weights.tolist() == [2.0]
        other = readers.load("folder", options.data_dir, "train", **options.reader_options)
        object.__setattr__(other, "weights", np.array([0.5, 3], np.float32))
        assert other.fingerprint() != examples.fingerprint()

    def test_of_classes(self, tmp_path):
        path = tmp_path / "w.csv"
        path.write_text("class,weight\ndog,0.25\n")
        assert label_files.read_class_weights(path, ["cat", "dog"]).tolist() == [1.0, 0.25]
        for text, message in (
            ("class,w\n", r"w\.csv:1: the first line must have the columns class,weight"),
            ("class,weight\ncow,1\n", r"w\.csv:2: expected one of the classes cat, dog"),
            ("class,weight\ncat,1\ncat,1\n", r"w\.csv:3: expected one"),
            ("class,weight\ncat,-1\n", r"w\.csv:2: the weight must be a number from 0"),
            ("class,weight\ncat,x\n", r"w\.csv:2: the weight must be a number from 0"),
        ):
            path.write_text(text)
            with pytest.raises(UserError, match=message):
                label_files.read_class_weights(path, ["cat", "dog"])

    def test_are_those_of_fit(self):
        """The same loss as with the weights that `fit` takes."""
        losses = []
        x = {
            "image": np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)),
            "index": np.arange(4)[::-1].copy(),
        }
        y = np.array([[1, 0], [0, 1], [1, 1], [-1, 1]], np.int8)
        weights = np.array([0.5, 1, 2, 4], np.float32)
        for kept in (True, False):
            keras.utils.set_random_seed(0)
            network = spml_tf.networks.small_residual_cam(2, image_size=32, width=16)
            model = spml_tf.SPMLModel(network, num_images=4, method="an")
            model.compile(keras.optimizers.SGD(0.1))
            given = {"sample_weight": weights[x["index"]], "class_weight": {1: 3.0}}
            if kept:
                model.set_weights_of_labels(weights, np.array([1, 3], np.float32))
                given = {}
            history = model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0, **given)
            losses.append(history.history["loss"])
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
        with pytest.raises(ValueError, match="do not fit 4 images and 2 classes"):
            model.set_weights_of_labels(weights[:2])

    def test_a_note_about_uneven_classes(self, tmp_path):
        names = [f"im{n}.jpg" for n in range(21)]
        label_exports.write_photos(tmp_path, names)
        lines = ["image,cat,dog", *(f"{x},1,{int(x == 'im3.jpg')}" for x in names)]
        (tmp_path / "t.csv").write_text("\n".join(lines))
        options = cli.parse(
            ["--dataset=folder", f"--data_dir={tmp_path}", "--train_csv=t.csv", "--val_csv=t.csv",
             "check"], data._Options, "",
        )  # fmt: skip
        found = splits.load_splits(dataclasses.replace(options, **resolved(options)))
        (note,) = [x for x in found.notes if x.startswith("annotated positives")]
        assert note.startswith("annotated positives a class: 1 ('dog') to 21 ('cat'), median 11;")


def said(output: Path) -> dict[str, dict[str, int]]:
    """By split and photo what the tables of an import know."""
    found = {}
    for split in ("train", "val", "test"):
        if (output / f"{split}.csv").exists():
            table = tables.read_table(output / f"{split}.csv")
            for name, row in zip(table.names, table.labels.tolist(), strict=True):
                pairs = zip(table.class_names, row, strict=True)
                found[f"{split}: {name}"] = {n: x for n, x in pairs if x != UNKNOWN}
    return found


def voc_of(name: str, label: str = "cat", root: str = "<annotation>") -> str:
    return f"{root}<filename>{name}</filename><object><name>{label}</name></object></annotation>"


# Files ("" for a photo) and flags, and what is said of the photos, or a message.
READINGS = {
    "VOC with an attribute": (
        {"a.xml": voc_of("a.jpg", root='<annotation verified="yes">'), "b.xml": voc_of("b.jpg")},
        [],
        {"train: a.jpg": {"cat": 1}, "train: b.jpg": {"cat": 1}},
    ),
    "True in a column called label": (
        {"t.csv": "image,label\na.jpg,True\nb.jpg,False\n"}, [],
        "give it the class's name instead of label",
    ),
    "1.0 in a column called label": (
        {"t.csv": "image,label\na.jpg,1.0\nb.jpg,0.0\n"}, [],
        "give it the class's name instead of label",
    ),
    "no_label that is negative": (
        {"t.csv": "image,labels,v\na.jpg,none,0\na.jpg,cat,1\nb.jpg,none,1\n"},
        ["--label_column=labels", "--value_column=v", "--no_label=none"],
        {"train: a.jpg": {"cat": 1}, "train: b.jpg": {"cat": 0}},
    ),
    "no_label among negatives": (
        {"t.csv": "image,labels,negatives\na.jpg,cat,none;dog\n"}, ["--no_label=none"],
        {"train: a.jpg": {"cat": 1, "dog": 0}},
    ),
    "fractions stay unknown": (
        {"t.csv": "image,labels,v\na.jpg,cat,0.4\na.jpg,dog,1\nb.jpg,cat,1\n"},
        ["--label_column=labels", "--value_column=v", "--skip_fractions", "--unlisted=negative"],
        {"train: a.jpg": {"dog": 1}, "train: b.jpg": {"cat": 1, "dog": 0}},
    ),
    "-1 stays unknown": (
        {"t.csv": "image,labels,v\na.jpg,cat,-1\nb.jpg,cat,1\n"},
        ["--label_column=labels", "--value_column=v", "--minus_one=unknown",
         "--unlisted=negative"],
        {"train: a.jpg": {}, "train: b.jpg": {"cat": 1}},
    ),
    "null stays unknown": (
        {"metadata.jsonl": '{"file_name": "a.jpg", "labels": null}\n'
         '{"file_name": "b.jpg", "labels": []}\n{"file_name": "c.jpg", "labels": ["cat"]}\n'},
        ["--unlisted=negative"],
        {"train: a.jpg": {}, "train: b.jpg": {"cat": 0}, "train: c.jpg": {"cat": 1}},
    ),
    "null stays unknown where blanks are negatives": (
        {"metadata.jsonl": '{"file_name": "a.jpg", "cat": 1, "dog": null}\n'
         '{"file_name": "b.jpg", "cat": "", "dog": 1}\n'},
        ["--blank=negative"],
        {"train: a.jpg": {"cat": 1}, "train: b.jpg": {"cat": 0, "dog": 1}},
    ),
    "CVAT, a name in two splits": (
        {"annotations.xml": "<annotations><image name='a.jpg' subset='train'><tag label='cat'/>"
         "</image><image name='a.jpg' subset='val'><tag label='cat'/></image></annotations>"},
        [], "image 1: 'a.jpg' is of split 'val', and of 'train' before",
    ),
    "two names of one photo": (
        {"t.csv": "image,cat\na.jpg,1\na,1\n", "a.jpg": ""}, [],
        "a.jpg: two names lead to this photo, 'a.jpg' and 'a'",
    ),
    "classes beside photos that have none": (
        {"train/cat/a.jpg": "", "train/dog/b.jpg": "", "test/c.jpg": ""}, [],
        {"train: train/cat/a.jpg": {"cat": 1}, "train: train/dog/b.jpg": {"dog": 1}},
    ),
    "a name that only looks uploaded": (
        {"t.csv": "image,cat\n0a1b2c3d-a.jpg,1\n", "a.jpg": ""}, [],
        {"train: 0a1b2c3d-a.jpg": {"cat": 1}},
    ),
    "two photos of one stem": (
        {"t.csv": "image,cat\na,1\n", "a.jpg": "", "a.png": "x"}, [],
        "'a' may be 'a.jpg' and 'a.png'",
    ),
    "absent categories that are no list": (
        {"c.json": '{"images": [{"id": 1, "file_name": "a.jpg", "neg_category_ids": "12"}], '
         '"categories": [{"id": 1, "name": "cat"}], "annotations": []}'}, [],
        "neg_category_ids must be a list",
    ),
    "a category whose name is a list": (
        {"c.json": '{"images": [], "categories": [{"id": 1, "name": [], "supercategory": {}}], '
         '"annotations": []}'}, [], "a category without a name",
    ),
    **{
        f"Label Studio, {key}": (
            {"c.json": '[{"data": {"image": "a.jpg"}, "annotations": ' + content + "}]"},
            ["--from=labelstudio"], f"{key} must be",
        )
        for key, content in (
            ("annotations", '[3, "result"]'), ("result", '[{"result": 3}]'),
            ("value", '[{"result": [{"type": "choices", "value": 3}]}]'),
            ("choices", '[{"result": [{"type": "choices", "value": {"choices": "cat"}}]}]'),
        )
    },
    "a list of no values": (
        {"t.csv": "image,labels\na.jpg,{{1}}\n"}, [], "looks misread",
    ),
    "blanks between names of which none is alone": (
        {"t.csv": "image,labels\na.jpg,cloudy\nb.jpg,haze primary\nc.jpg,haze primary water\n"}, [],
        "'haze primary water' holds the class 'haze primary'; give --label_separator=blank",
    ),
    "a column of splits beside classes": (
        {"t.csv": "image,cat,dog,is_valid\na.jpg,1,0,False\nb.jpg,0,1,True\n"}, [],
        "'is_valid' seems to say of which split .* --omit_columns=is_valid .* or --trust_table",
    ),
    "a column of splits beside names": (
        {"t.csv": "image,labels,fold\na.jpg,cat,0\nb.jpg,dog,1\n"}, [],
        "give --label_column=labels if it lists the classes$",
    ),
    "no header": (
        {"t.csv": "training,gs://b/a.jpg,cat,dog\nvalidation,gs://b/b.jpg,dog,\n"}, [],
        "--table_header=COLUMN0,image,COLUMN2,COLUMN3$",
    ),
    "a spreadsheet": ({"t.xlsx": "x"}, [], "recognised; .*; of 't.xlsx' save a CSV file$"),
    "a spreadsheet, as a table": (
        {"t.xlsx": "x"}, ["--from=csv"], "holds no file of a table; of 't.xlsx' save a CSV file$",
    ),
    "YOLO of LabelImg: all in one folder": (
        {"classes.txt": "cat\ndog\n\n", "a.txt": "1 0.5 0.5 1 1\n0 0.5 0.5 .2 1e-1\n",
         "a.jpg": "", "b.txt": "\n", "b.jpg": ""}, ["--unlisted=negative"],
        {"train: a.jpg": {"cat": 1, "dog": 1}, "train: b.jpg": {"cat": 0, "dog": 0}},
    ),
    "YOLO of Roboflow: folders of splits; outlines too": (
        {"data.yaml": "names: ['cat', 'dog']\nnc: 2\n", "README.roboflow.txt": "5 0 0 0 0 images",
         "train/labels/a.txt": "1 0.1 0.1 0.2 0.2 0.3 0.1\r\n", "train/images/a.png": "",
         "valid/labels/a.txt": "0 0.5 0.5 1 1", "valid/images/a.png": ""}, [],
        {"train: train/images/a.png": {"dog": 1}, "val: valid/images/a.png": {"cat": 1}},
    ),
    "YOLO of Ultralytics: labels/SPLIT; a photo that is not there": (
        {"set.yaml": "nc: 2\nnames:\n  1: dog\n  0: cat\n", "other.yaml": "rate: 1\n",
         "labels/train/x/a.txt": "1 0.5 0.5 1 1", "images/train/x/a.jpg": "",
         "labels/train/y/a.txt": "0 0.5 0.5 1 1", "labels/val/b.txt": "0 0.5 0.5 1 1"}, [],
        {"train: images/train/x/a.jpg": {"dog": 1}, "train: images/train/y/a.jpg": {"cat": 1},
         "val: images/val/b.jpg": {"cat": 1}},
    ),
    "YOLO of Darknet": (
        {"obj.names": "cat\ndog\n", "train.txt": "data/obj_train_data/a.jpg\n",
         "obj.data": "classes = 2\n", "obj_train_data/a.jpg": "",
         "obj_train_data/a.txt": "1 0.5 0.5 1 1\n"}, [],
        {"train: obj_train_data/a.jpg": {"dog": 1}},
    ),
    "YOLO of Darknet with lists of splits": (
        {"obj.names": "cat\ndog\n", "obj.data": "train = data/train.txt\nvalid = data/test.txt\n",
         "train.txt": "data/obj/a.jpg\n", "test.txt": "data/obj/b.jpg\n", "obj/a.jpg": "",
         "obj/b.jpg": "", "obj/a.txt": "0 0.5 0.5 1 1\n", "obj/b.txt": "1 0.5 0.5 1 1\n"}, [],
        {"train: obj/a.jpg": {"cat": 1}, "val: obj/b.jpg": {"dog": 1}},
    ),
    "YOLO with lists that YAML names": (
        {"data.yaml": "names: [cat]\ntrain: [train.txt]\nval: ./splits/held.txt\n",
         "train.txt": "./images/a.jpg\n", "splits/held.txt": "/home/me/set/images/x.y.jpg\n",
         "images/a.jpg": "", "images/x.y.jpg": "", "labels/a.txt": "0 0.5 0.5 1 1\n",
         "labels/x.y.txt": "\n"}, [],
        {"train: images/a.jpg": {"cat": 1}, "val: images/x.y.jpg": {}},
    ),
    "YOLO with folders that YAML names": (
        {"data.yaml": "path: ../set\nnames: [cat]\ntrain: images/one\nval: images/two\n",
         "images/one/a.jpg": "", "images/two/a.jpg": "", "images/two/b.jpg": "",
         "labels/one/a.txt": "0 0.5 0.5 1 1\n", "labels/two/a.txt": "\n",
         "labels/two/b.txt": "0 0.5 0.5 1 1\n"}, [],
        {"train: images/one/a.jpg": {"cat": 1}, "val: images/two/a.jpg": {},
         "val: images/two/b.jpg": {"cat": 1}},
    ),
    "YOLO that validates on what it trains on": (
        {"data.yaml": "names: [cat]\ntrain: images/one\nval: images/one\n", "images/one/a.jpg": "",
         "labels/one/a.txt": "0 0.5 0.5 1 1\n"}, [], {"train: images/one/a.jpg": {"cat": 1}},
    ),
    "YOLO with the classes among the labels": (
        {f"{x}/{y}": z for x, number in (("one", 0), ("two", 1)) for y, z in {
            "labels/classes.txt": "cat\ndog\n", "labels/a.txt": f"{number} 0.5 0.5 1 1\n",
            "images/a.jpg": ""}.items()}, [],
        {"train: one/images/a.jpg": {"cat": 1}, "train: two/images/a.jpg": {"dog": 1}},
    ),
    "YOLO of Label Studio without photos": (
        {"classes.txt": "cat\n", "notes.json": "{}", "labels/3f2a1b4c-a.txt": "0 0.5 0.5 1 1\n",
         "photos/a.jpg": ""}, [], {"train: photos/a.jpg": {"cat": 1}},
    ),
    "YOLO's texts beside folders of classes": (
        {"classes.txt": "cat\ndog\n", "todo.txt": "\n", "boxes.txt": "1 60.0 27.0 325.0 304.0\n",
         "cat/a.jpg": "", "dog/b.jpg": ""}, [],
        {"train: cat/a.jpg": {"cat": 1}, "train: dog/b.jpg": {"dog": 1}},
    ),
    "texts of numbers beside a table": (
        {"t.csv": "image,cat\na.jpg,1\n", "a.jpg": "", "classes.txt": "cat\n", "test.txt": "\n",
         "images_box.txt": "1025794 3 144 998 431\n"}, [], {"train: a.jpg": {"cat": 1}},
    ),
    "YOLO beside COCO json of the same": (
        {"classes.txt": "dog\n", "labels/a.txt": "0 0.5 0.5 1 1\n", "images/a.jpg": "",
         "c.json": '{"images": [{"id": 1, "file_name": "a.jpg"}], "categories": [{"id": 1, "name": '
         '"cat"}], "annotations": [{"image_id": 1, "category_id": 1}]}'}, [],
        {"train: images/a.jpg": {"cat": 1}},
    ),
    "YOLO beside a table of its training": (
        {"classes.txt": "dog\n", "labels/a.txt": "0 0.5 0.5 1 1\n", "images/a.jpg": "",
         "results.csv": "epoch,loss\n1,0.5\n"}, [], {"train: images/a.jpg": {"dog": 1}},
    ),
    "YOLO far below its names": (
        {"data.yaml": "names: [cat]\nnc: 1\n", "s/labels/train/cam/day/a.txt": "0 0.5 0.5 1 1\n",
         "s/images/train/cam/day/a.jpg": ""}, [],
        {"train: s/images/train/cam/day/a.jpg": {"cat": 1}},
    ),
    "YOLO with another YAML and a first line of anything": (
        {"custom.yaml": "names: [dog]\nnc: 1\n", "data.yaml": "names: [dog]\nnc: 1\n",
         "environment.yml": "names: [x]\n", "labels/a.txt": "0 0,5 0.5 1 1\n"}, [],
        r"labels/a.txt:1: expected a class's number and a box, found '0 0,5 0.5 1 1'",
    ),
    "YOLO with two lists that differ": (
        {"custom.yaml": "names: [dog, cat]\nnc: 2\n", "data.yaml": "names: [cat, dog]\nnc: 2\n",
         "labels/a.txt": "0 0.5 0.5 1 1\n"}, [],
        r"custom.yaml: names other classes than .*data.yaml; remove one of the two",
    ),
    "YOLO without names": (
        {"x/labels/a.txt": "0 0.5 0.5 1 1"}, [],
        r"; 'x/labels/a.txt' seems to be YOLO's: put its data.yaml or classes.txt beside$",
    ),
    "YOLO without names, as YOLO": (
        {"a.txt": "0 0.5 0.5 1 1"}, ["--from=yolo", "--source={source}/a.txt"],
        r"a.txt: no list of the classes' names is above .* data.yaml, or classes.txt",
    ),
    "YOLO with a class too many": (
        {"classes.txt": "cat\n", "labels/a.txt": "0 0.5 0.5 1 1\n\n1 0.5 0.5 1 1\n"}, [],
        r"labels/a.txt:3: class 1 is not among the 1 of .*classes.txt, which counts from 0",
    ),
    "YOLO with a line of anything": (
        {"classes.txt": "cat\n", "labels/a.txt": "0 0.5 0.5 1 1\ncat 0.5 0.5 1 1\n"}, [],
        r"labels/a.txt:2: expected a class's number and a box, found 'cat 0.5 0.5 1 1'",
    ),
    "YOLO with names that YAML reads otherwise": (
        {"data.yaml": "nc: 2\nnames: [cat, no]\n", "labels/a.txt": "0 0.5 0.5 1 1\n"}, [],
        r"data.yaml: class 1 has no name that is text; write it in quotation marks",
    ),
    "YOLO with half a character": (
        {"data.yaml": 'nc: 2\nnames: [cat, "\\ud800"]\n', "labels/a.txt": "0 0.5 0.5 1 1\n"}, [],
        r"data.yaml: class 1 has no name that is text; write it in quotation marks",
    ),
    "YOLO with numbers of names left out": (
        {"data.yaml": "nc: 2\nnames: {1: cat, 2: dog}\n", "labels/a.txt": "0 0.5 0.5 1 1\n"}, [],
        r"data.yaml: the numbers of the 2 names must run from 0 to 1",
    ),
    "YOLO with a name twice": (
        {"data.yaml": "nc: 2\nnames: ['cat ', cat]\n", "labels/a.txt": "0 0.5 0.5 1 1\n"}, [],
        r"data.yaml: 'cat' names two classes",
    ),
    "YOLO with names that are no list": (
        {"data.yaml": "nc: 2\nnames: cat\n", "labels/a.txt": "0 0.5 0.5 1 1\n"}, [],
        r"data.yaml: expected a list of the classes' names",
    ),
    "YOLO with broken YAML": (
        {"data.yaml": "nc: 2\nnames: [cat\n", "labels/a.txt": "0 0.5 0.5 1 1\n"}, [],
        r"data.yaml: no YAML \(while parsing a flow sequence.*\); export it again$",
    ),
    "YOLO with code": (
        {"data.yaml": "nc: 1\nnames: !!python/object/apply:os.mkdir [x]",
         "labels/a.txt": "0 0 0 1 1"}, [],
        r"data.yaml: no YAML \(could not determine a constructor.*; export it again$",
    ),
    "YOLO with tags of nothing": (
        {"data.yaml": 'nc: 1\nnames: [!!int ""]\n', "labels/a.txt": "0 0 0 1 1"}, [],
        r"data.yaml: no YAML \(string index out of range\); export it again$",
    ),
    "YOLO with references to references": (
        {"data.yaml": "nc: 1\na: &a [x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a]\n"
                      "names: [*b, *b, *b, *b, *b, *b]\n", "labels/a.txt": "0 0 0 1 1"}, [],
        r"data.yaml: class 0 has no name that is text",
    ),
    "YOLO of too many brackets": (
        {"data.yaml": "nc: 1\nnames: " + "[" * 5000, "labels/a.txt": "0 0.5 0.5 1 1\n"}, [],
        r"data.yaml: no YAML \(.*\); export it again$",
    ),
    "YOLO with flags about columns": (
        {"classes.txt": "cat\n", "labels/a.txt": "0 0.5 0.5 1 1\n"}, ["--zero=unknown"],
        "--zero: is about columns, which YOLO's text files has not",
    ),
    "COCO json without categories": (
        {"c.json": '{"images": [], "annotations": []}'}, ["--from=coco"],
        "holds no file of COCO json; .* --source=.*c.json says what is wrong with this file$",
    ),
    "a path out of the folder": (
        {"t.csv": "image,cat,dog\n../../home/a.jpg,1,0\nb.jpg,0,1\n", "b.jpg": ""}, [],
        r"'\.\./\.\./home/a\.jpg': leads out of the photos' folder",
    ),
}  # fmt: skip


def test_annotators_who_differ_are_counted(tmp_path):
    def task(photo: str, *choices: str) -> dict:
        results = [{"type": "choices", "value": {"choices": [name]}} for name in choices]
        return {"data": {"image": photo}, "annotations": [{"result": [x]} for x in results]}

    tasks = [task("a.jpg", "cat", "dog"), task("b.jpg", "cat", "cat"), task("c.jpg", "dog")]
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "export.json").write_text(json.dumps(tasks))
    told = done([f"--source={tmp_path / 's'}", f"--output_dir={tmp_path / 'out'}"]).stdout
    assert re.search("note: .*annotators differ about 1 photos, such as 'a.jpg'", told), told


def test_a_table_without_a_positive_is_told_of(tmp_path):
    (tmp_path / "t.csv").write_text("image,count,id\na.jpg,0,0\nb.jpg,0,0\n")
    told = done([f"--source={tmp_path / 't.csv'}", f"--output_dir={tmp_path / 'out'}"]).stdout
    assert "note: no label is positive; are these the classes?" in told


@pytest.mark.parametrize("case", READINGS)
def test_readings(case, tmp_path):
    files, flags, expected = READINGS[case]
    source, output = tmp_path / "source", tmp_path / "out"
    for name, content in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        if content:
            (source / name).write_text(content)
        else:
            label_exports.write_photos(source, [name])
    words = [f"--source={source}", f"--output_dir={output}", *flags]
    words = [word.format(source=source) if "{source}" in word else word for word in words]
    if isinstance(expected, str):
        told = done(words, 1).stderr
        assert re.search(expected, told, re.M) and told.count("\n") == 1, told
        assert not output.exists()
    else:
        done(words)
        assert said(output) == expected
