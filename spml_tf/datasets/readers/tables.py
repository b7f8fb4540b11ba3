"""Labels that a user writes in a CSV table: a list of names per photo, or a column per class.

This package's own formats. The header tells them apart:

    image,labels,negatives        image,cat,dog,cow
    a.jpg,cat;dog,cow             a.jpg,1,1,0
    b.jpg,cow,*                   b.jpg,0,0,1
    c.jpg,,                       c.jpg,,,

Both tables say the same. What neither lists nor fills in is unknown.
"""

from __future__ import annotations

import array
import dataclasses
import os
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from spml_tf.labels import NEGATIVE, POSITIVE, UNKNOWN
from spml_tf.system.errors import UserError
from spml_tf.system.files import read_csv

FORMS = (
    "the header is image,labels or image,labels,negatives (names separated by ;) or "
    "image,CLASS,CLASS,... (cells 1, 0 or empty)"
)
_LIST_HEADERS = (["image", "labels"], ["image", "labels", "negatives"])
# More columns than any set of labels has, ImageNet-21K's among them.
_MOST_COLUMNS = 100_000
# In the cell of negatives: all classes that are not listed as positive.
_ALL_OTHERS = "*"
# With the decimals that pandas writes in columns that have gaps.
_CELLS = {"1": POSITIVE, "0": NEGATIVE, "": UNKNOWN, "1.0": POSITIVE, "0.0": NEGATIVE}

Row = tuple[str, list[str]]


@dataclasses.dataclass(frozen=True)
class Table:
    """Photos and their labels.

    Attributes:
        images: N file names as the table writes them.
        names: the same without needless dots and slashes; unique.
        places: "file:line" of each row.
        class_names: L names.
        labels: int8 [N, L] of {1, 0, -1}.
        missing: the classes for which the table has no column; always empty for lists.
    """

    images: tuple[str, ...]
    names: tuple[str, ...]
    places: tuple[str, ...]
    class_names: tuple[str, ...]
    labels: NDArray[np.int8]
    missing: tuple[str, ...] = ()


def read_table(
    path: str | os.PathLike[str], class_names: Sequence[str] | None = None, hint: str = ""
) -> Table:
    """Reads a table in either form. Blanks around names and cells do not count.

    Args:
        path: CSV file in UTF-8, with or without byte order mark, with any line ends.
        class_names: the classes; by default those of the table, which are the header's in its order
            or, for lists, the sorted names that are listed.
        hint: what to do about a file that is missing, for the message.

    Returns:
        The table, its rows in the order of the file.

    Raises:
        UserError: the file cannot be read, has no header or no rows, or a row is malformed, has an
            unknown class or value, or contradicts itself or another one. The message gives file and
            line.
    """
    rows = read_csv(path, hint)
    place, header = next(rows, (f"{path}:1", []))
    if not header:
        raise UserError(f"{place}: the file is empty; {FORMS}")
    header = [cell.strip() for cell in header]
    _check_header(place, header)
    body = list(rows)
    if not body:
        raise UserError(f"{place}: a header without rows; add a row for each photo")
    names = _image_names(header, body)
    if header in _LIST_HEADERS:
        chosen, labels = _read_lists(place, body, class_names)
        missing: tuple[str, ...] = ()
    else:
        chosen, labels = _read_columns(place, header, body, class_names)
        there = set(header[1:])
        missing = tuple(name for name in chosen if name not in there)
    images = tuple(fields[0].strip() for _, fields in body)
    return Table(images, names, tuple(row[0] for row in body), chosen, labels, missing)


def quoted(text: str) -> str:
    """What a message shows of a name or cell: on one line, and not all of it where it is long."""
    return repr(text if len(text) <= 80 else f"{text[:77]}...")


def spoiled(name: str) -> str | None:
    """Why something cannot be the name of a photo or a class, or None."""
    if not name:
        return "is empty"
    if "\0" in name or name.splitlines() != [name]:
        return "holds a line break or a null character"
    return None


def _check_header(place: str, header: Sequence[str]) -> None:
    if header[0] != "image":
        found = quoted(header[0])
        if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
            raise UserError(f"{place}: separate the columns by commas, found {found}; {FORMS}")
        raise UserError(f"{place}: the first column must be image, found {found}; {FORMS}")
    if len(header) == 1:
        raise UserError(f"{place}: there is no column of labels; {FORMS}")
    if len(header) > _MOST_COLUMNS:
        raise UserError(
            f"{place}: {len(header):,} columns, at most {_MOST_COLUMNS:,} are read; write a row "
            "for each photo and a column for each class"
        )
    before: set[str] = set()
    for number, name in enumerate(header):
        if reason := spoiled(name):
            raise UserError(f"{place}: the name of column {number + 1} {reason}; name or remove it")
        if name in before:
            raise UserError(f"{place}: two columns are called {quoted(name)}; rename or remove one")
        before.add(name)


def _image_names(header: Sequence[str], body: Iterable[Row]) -> tuple[str, ...]:
    """The photos' names in one spelling, after checking what all rows have in common."""
    places: dict[str, str] = {}
    for place, fields in body:
        if len(fields) != len(header):
            advice = "; separate labels by ;" if header in _LIST_HEADERS else ""
            raise UserError(
                f"{place}: expected {len(header)} cells as in the header, found {len(fields)}"
                + advice
            )
        image = fields[0].strip()
        if reason := spoiled(image):
            raise UserError(f"{place}: the cell of image {reason}; name a photo")
        if "\\" in image:
            raise UserError(f"{place}: {quoted(image)} holds a backslash; write folder/photo.jpg")
        if image.endswith("/"):
            raise UserError(f"{place}: {quoted(image)} is the name of a folder; name a photo")
        name = str(PurePosixPath(image))
        if name in places:
            raise UserError(
                f"{place}: {quoted(name)} has a row already, {places[name]}; keep one of them"
            )
        places[name] = place
    return tuple(places)


def _read_columns(
    place: str, header: Sequence[str], body: Iterable[Row], class_names: Sequence[str] | None
) -> tuple[tuple[str, ...], NDArray[np.int8]]:
    """Classes and labels of the form with a column per class."""
    found = tuple(header[1:])
    if class_names is None:
        class_names = found
    columns = _columns(dict.fromkeys(found, place), class_names)
    codes = array.array("b")
    for row_place, fields in body:
        try:
            codes.extend([_CELLS[cell.strip()] for cell in fields[1:]])
        except KeyError:
            raise _bad_cell(row_place, header, fields) from None
    values = np.frombuffer(codes, np.int8).reshape(-1, len(found))
    labels = np.full((len(values), len(class_names)), UNKNOWN, np.int8)
    labels[:, columns] = values
    return tuple(class_names), labels


def _bad_cell(place: str, header: Sequence[str], fields: Sequence[str]) -> UserError:
    pairs = zip(header[1:], fields[1:], strict=True)
    name, cell = next((n, x.strip()) for n, x in pairs if x.strip() not in _CELLS)
    if cell in ("-1", "-1.0"):
        return UserError(
            f"{place}: {quoted(name)} is -1, which other formats use for unknown or for negative; "
            "leave unknown cells empty and write 0 for negative"
        )
    return UserError(
        f"{place}: {quoted(name)} must be 1, 0 or empty (unknown), found {quoted(cell)}; lists of "
        "names need the header image,labels"
    )


def _read_lists(
    header_place: str, body: Sequence[Row], class_names: Sequence[str] | None
) -> tuple[tuple[str, ...], NDArray[np.int8]]:
    """Classes and labels of the form with lists of names."""
    marks: list[tuple[int, str, int]] = []
    complete = np.zeros(len(body), bool)
    places: dict[str, str] = {}
    for row, (place, fields) in enumerate(body):
        positives, negatives = _listed(place, fields)
        if negatives == [_ALL_OTHERS]:
            complete[row], negatives = True, []
        marks += [(row, name, POSITIVE) for name in positives]
        marks += [(row, name, NEGATIVE) for name in negatives]
        for name in (*positives, *negatives):
            places.setdefault(name, place)
    if class_names is None:
        class_names = _own_classes(header_place, places)
    columns = dict(zip(places, _columns(places, class_names), strict=True))
    labels = np.full((len(body), len(class_names)), UNKNOWN, np.int8)
    labels[complete] = NEGATIVE
    for row, name, value in marks:
        labels[row, columns[name]] = value
    return tuple(class_names), labels


def _listed(place: str, fields: Sequence[str]) -> tuple[list[str], list[str]]:
    """The names of a row's two lists."""
    positives = _split(place, "labels", fields[1])
    negatives = _split(place, "negatives", fields[2]) if len(fields) > 2 else []
    if _ALL_OTHERS in positives:
        raise UserError(f"{place}: {_ALL_OTHERS} stands in negatives only; list the labels")
    if _ALL_OTHERS in negatives and len(negatives) > 1:
        raise UserError(
            f"{place}: {_ALL_OTHERS} means all classes but the labels; remove it or the names "
            "beside it"
        )
    both = sorted(set(positives) & set(negatives), key=positives.index)
    if both:
        raise UserError(
            f"{place}: {quoted(both[0])} is in labels and in negatives; remove it from one of them"
        )
    return positives, negatives


def _split(place: str, column: str, cell: str) -> list[str]:
    names = [name.strip() for name in cell.split(";")] if cell.strip() else []
    before: set[str] = set()
    for name in names:
        if reason := spoiled(name):
            raise UserError(f"{place}: a name in {column} {reason}, found {quoted(cell)}; mend it")
        if name in before:
            raise UserError(f"{place}: {quoted(name)} is twice in {column}; remove one of them")
        before.add(name)
    return names


def _own_classes(place: str, names: Iterable[str]) -> tuple[str, ...]:
    class_names = tuple(sorted(names))
    if not class_names:
        raise UserError(f"{place}: no row has a label; fill in the column labels")
    if set(class_names) <= {"1", "0", "-1"}:
        raise UserError(
            f"{place}: the header image,labels announces lists of class names, found only "
            f"{', '.join(class_names)}; for a column of 1 and 0 give it the class's name instead "
            "of labels, and give classes other names than 1 and 0"
        )
    return class_names


def _columns(places: dict[str, str], class_names: Sequence[str]) -> list[int]:
    """Where the classes that a table names, each at its place, stand among all."""
    known = {name: column for column, name in enumerate(class_names)}
    for name, place in places.items():
        if name not in known:
            raise UserError(
                f"{place}: unknown class {quoted(name)}; the classes of the training table are "
                f"{', '.join(map(quoted, class_names))}"
            )
    return [known[name] for name in places]
