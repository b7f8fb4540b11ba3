"""Labels that a user has in a table: a list of names per photo, a name a row, a column per class.

The header tells them apart. This package's own formats are

    image,labels,negatives        image,cat,dog,cow
    a.jpg,cat;dog,cow             a.jpg,1,1,0
    b.jpg,cow,*                   b.jpg,0,0,1
    c.jpg,,                       c.jpg,,,

Both tables say the same. What neither lists nor fills in is unknown. Tables of other shapes are
read with `TableOptions`, and harmless ones without: see docs/label_files.md.
"""

from __future__ import annotations

import array
import collections
import dataclasses
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from spml_tf.datasets.readers import copies, misread
from spml_tf.datasets.readers.table_cells import (
    Names,
    Null,
    Row,
    Values,
    column_separator,
    number,
)
from spml_tf.datasets.readers.table_columns import (
    FORMS,
    Columns,
    assign,
    check_header,
    has_column,
    no_classes,
    split_columns,
)
from spml_tf.datasets.table_options import TableOptions
from spml_tf.labels import NEGATIVE, POSITIVE, UNKNOWN
from spml_tf.system.errors import UserError, quoted, spoiled
from spml_tf.system.nearest import guess
from spml_tf.system.text_files import read_text, split_csv

# In the cell of negatives: all classes that are not listed as positive.
_ALL_OTHERS = "*"


@dataclasses.dataclass(frozen=True)
class Table:
    """Photos and their labels.

    Attributes:
        images: N file names as the table writes them, but for a prefix or an ending that flags
            change.
        names: the same without needless dots and slashes; unique.
        places: "file:line" of each photo's first row.
        class_names: L names.
        labels: int8 [N, L] of {1, 0, -1}.
        complete: bool [N], the photos of which all classes that are not listed are negative.
        missing: the classes for which the table has no column; always empty for lists.
        weights: float32 [N], the photos' weights, None without a column of them.
        notes: what was left out or treated, each with the file's name.
    """

    images: tuple[str, ...]
    names: tuple[str, ...]
    places: tuple[str, ...]
    class_names: tuple[str, ...]
    labels: NDArray[np.int8]
    complete: NDArray[np.bool_]
    missing: tuple[str, ...] = ()
    weights: NDArray[np.float32] | None = None
    notes: tuple[str, ...] = ()


def read_table(
    path: str | os.PathLike[str],
    class_names: Sequence[str] | None = None,
    hint: str = "",
    options: TableOptions | None = None,
) -> Table:
    """Reads a table in any form. Blanks around names and cells do not count.

    Args:
        path: CSV file in UTF-8, with or without byte order mark, with any line ends.
        class_names: the classes; by default those of the table, which are the header's in its order
            or, for lists, the sorted names that are listed.
        hint: what to do about a file that is missing, for the message.
        options: how to read it; by default as it looks.

    Returns:
        The table, its photos in the order of the file.

    Raises:
        UserError: the file cannot be read, has no header or no rows, looks misread, or a row is
            malformed, has an unknown class or value, or contradicts itself or another one. The
            message gives file and line, and the flag to give.
    """
    options = options or TableOptions()
    place, header, body = split_rows(path, read_text(path, hint), options)
    return table_of_rows(path, place, header, body, class_names, options)


def table_of_rows(
    path: str | os.PathLike[str],
    place: str,
    header: list[str],
    body: list[Row],
    class_names: Sequence[str] | None,
    options: TableOptions,
) -> Table:
    """As `read_table`, of what `split_rows` returns."""
    values = Values(options)
    # Only what is trained on is weighted; the tables of other splits need no weights.
    if class_names is not None and not has_column(header, options.weight_column):
        options = dataclasses.replace(options, weight_column=None)
    columns = assign(place, header, body, options)
    images, keys = _image_names(header, columns.image, body, options)
    firsts = copies.first_rows(keys)
    own = np.flatnonzero(firsts == np.arange(len(firsts))).tolist()
    notes = list(columns.notes)
    missing: tuple[str, ...] = ()
    if columns.labels is None:
        found = [header[x] for x in columns.classes]
        _check_names(place, dict.fromkeys(found, 1), options, False)
        chosen, every = _read_columns(place, header, columns.classes, body, class_names, values)
        labels = _merged(every, firsts, body, keys, chosen)
        there = set(found)
        missing = tuple(name for name in chosen if name not in there)
        complete = np.zeros(len(own), bool)
    else:
        chosen, labels, complete, told = _Lists(place, header, columns, options, values).read(
            body, firsts, class_names
        )
        notes += [f"{path}: {note}" for note in told]
    if len(own) < len(body):
        notes.append(
            f"{path}: {len(body):,} rows of {len(own):,} photos: a photo has the labels of all its "
            "rows"
        )
    return Table(
        tuple(images[row] for row in own),
        tuple(keys[row] for row in own),
        tuple(body[row][0] for row in own),
        chosen,
        labels,
        complete,
        missing,
        _weights(header, columns.weight, body, firsts, own),
        tuple(notes),
    )


def split_rows(
    path: str | os.PathLike[str], text: str, options: TableOptions
) -> tuple[str, list[str], list[Row]]:
    """Splits a table.

    Args:
        path: the file, for messages.
        text: its content.
        options: how to read it.

    Returns:
        The place of the header, the header, and the rows with their places, as long as the header.

    Raises:
        UserError: as `read_table`.
    """
    first, _, rest = text.lstrip("\ufeff").partition("\n")
    said = re.fullmatch(r'"?sep=(.)"?', first.strip("\r"))
    if said:  # for Excel
        text = f"\n{rest}"  # a blank line, so that lines keep their numbers
    given_separator = options.column_separator or (said[1] if said else None)
    separator = column_separator(str(path), text, given_separator)
    rows = split_csv(path, text, separator, skip_blanks=True)
    given = split_columns("table_header", options.table_header)
    place, header = (f"{path}:1", given) if given else next(rows, (f"{path}:1", []))
    if not header:
        raise UserError(f"{place}: the file is empty; {FORMS}")
    header = [cell.strip() for cell in header]
    while len(header) > 1 and not header[-1]:  # a trailing separator
        header.pop()
    check_header(place, header)
    body = list(rows)
    if not body:
        raise UserError(f"{place}: a header without rows; add a row for each photo")
    count = len(header)
    for row_place, fields in body:
        if len(fields) > count and not any(map(str.strip, fields[count:])):
            del fields[count:]
        if len(fields) != count:
            raise UserError(
                f"{row_place}: expected {count} cells as in the header, found {len(fields)}; mend "
                "the row or the header (cells that hold the separator are quoted), or give "
                "--column_separator=CHARACTER if columns are separated by another one than "
                f"{separator!r}"
            )
    return place, header, body


def _image_names(
    header: Sequence[str], column: int, body: Sequence[Row], options: TableOptions
) -> tuple[list[str], list[str]]:
    """The photos' names of all rows, and the same in one spelling."""
    images, keys, stripped = [], [], False
    for place, fields in body:
        image, without = named_by(fields[column].strip(), options)
        stripped |= without
        if reason := spoiled(image):
            raise UserError(f"{place}: the cell of {header[column]} {reason}; name a photo")
        if "\\" in image:
            raise UserError(f"{place}: {quoted(image)} holds a backslash; write folder/photo.jpg")
        if image.endswith("/"):
            raise UserError(f"{place}: {quoted(image)} is the name of a folder; name a photo")
        images.append(image)
        keys.append(str(PurePosixPath(image)))
    if options.strip_prefix and not stripped:
        raise no_prefix(options, images[0])
    return images, keys


def named_by(image: str, options: TableOptions) -> tuple[str, bool]:
    """A photo's name after --strip_prefix and --add_extension, and whether the prefix was there."""
    prefix, ending = options.strip_prefix or "", options.add_extension or ""
    stripped = bool(prefix) and image.startswith(prefix)
    image = image[len(prefix) :].lstrip("/") if stripped else image
    if image and ending and not image.endswith("/") and not image.lower().endswith(ending.lower()):
        image += ending
    return image, stripped


def no_prefix(options: TableOptions, image: str) -> UserError:
    """What is said where no photo's name begins with the prefix."""
    return UserError(
        f"--strip_prefix={options.strip_prefix}: no photo's name begins with it, found "
        f"{quoted(image)}"
    )


def _check_names(place: str, counts: dict[str, int], options: TableOptions, in_cells: bool) -> None:
    if not options.trust_table and (found := misread.suspicion(counts, in_cells)):
        raise UserError(f"{place}: looks misread: {found}")


def _read_columns(
    place: str,
    header: Sequence[str],
    classes: Sequence[int],
    body: Sequence[Row],
    class_names: Sequence[str] | None,
    values: Values,
) -> tuple[tuple[str, ...], NDArray[np.int8]]:
    """Classes and labels of the form with a column per class."""
    found = tuple(header[x] for x in classes)
    if class_names is None:
        class_names = found
    columns = _columns(dict.fromkeys(found, place), class_names)
    codes = array.array("b")
    # Where a blank is a label null of JSON is none, and each cell must be looked at.
    known = values.cells if values.cells[""] == UNKNOWN else {}
    for row_place, fields in body:
        try:
            codes.extend([known[fields[x].strip()] for x in classes])
        except KeyError:
            cells = [values.get(fields[x]) for x in classes]
            if None in cells:
                column = classes[cells.index(None)]
                raise _bad_cell(row_place, header, column, fields, body, classes) from None
            codes.extend(cell for cell in cells if cell is not None)
    matrix = np.frombuffer(codes, np.int8).reshape(-1, len(found))
    labels = np.full((len(matrix), len(class_names)), UNKNOWN, np.int8)
    labels[:, columns] = matrix
    return tuple(class_names), labels


def _bad_cell(
    place: str,
    header: Sequence[str],
    column: int,
    fields: Sequence[str],
    body: Sequence[Row],
    classes: Sequence[int],
) -> UserError:
    name, cell = header[column], fields[column].strip()
    if cell in ("-1", "-1.0"):
        return UserError(
            f"{place}: {quoted(name)} is -1, which is unknown in some formats and negative in "
            "others; give --minus_one=unknown or --minus_one=negative (and --zero=unknown where 0 "
            "means that)"
        )
    cells = {row[column].strip() for _, row in body}
    if len(cells) == len(body) and all(x.isdecimal() for x in cells):
        return UserError(
            f"{place}: {quoted(name)} must be 1, 0 or empty (unknown), found {quoted(cell)}, and "
            f"numbers the rows: if the header is shifted, mend it; give --omit_columns={name} only "
            "if that is the column's name"
        )
    others = no_classes(header, body, classes)
    lists = f"; --label_column={name} if it holds names of classes" if len(classes) < 3 else ""
    omit = f"; --omit_columns={others} if those are no classes" if others else ""
    if not others:
        omit = "; --skip_fractions makes values between 0 and 1 unknown"
    return UserError(
        f"{place}: {quoted(name)} must be 1, 0 or empty (unknown), found {quoted(cell)}; mend it"
        + lists
        + omit
    )


def _merged(
    labels: NDArray[np.int8],
    firsts: NDArray[np.int64],
    body: Sequence[Row],
    keys: Sequence[str],
    class_names: Sequence[str],
) -> NDArray[np.int8]:
    try:
        return copies.merged(labels, firsts)
    except copies.ContradictionError as error:
        raise UserError(
            f"{body[error.second][0]}: {quoted(keys[error.second])} has a row already, "
            f"{body[error.first][0]}, and they contradict each other about "
            f"{quoted(class_names[error.column])}; keep one of them"
        ) from None


class _Lists:
    """Reads the forms whose cells hold names of classes."""

    def __init__(
        self,
        place: str,
        header: Sequence[str],
        columns: Columns,
        options: TableOptions,
        values: Values,
    ) -> None:
        self._place, self._header, self._columns = place, header, columns
        self._options, self._values = options, values
        self._names = Names(options.label_separator)
        # Of every photo, by its first row: the classes that are known, with the place that says so.
        self._known: dict[int, dict[str, tuple[int, str]]] = {}
        self._complete: dict[int, str] = {}
        # What a row names and says nothing of, and the photos that somebody has looked at.
        self._unsure: collections.defaultdict[int, set[str]] = collections.defaultdict(set)
        self._labelled: set[int] = set()
        self._counts: collections.Counter[str] = collections.Counter()
        self._in_lists: set[str] = set()
        self._places: dict[str, str] = {}

    def read(
        self, body: Sequence[Row], firsts: NDArray[np.int64], class_names: Sequence[str] | None
    ) -> tuple[tuple[str, ...], NDArray[np.int8], NDArray[np.bool_], list[str]]:
        """Class names, labels int8 [N, L] of the photos, complete bool [N], and notes."""
        for first, (place, fields) in zip(firsts.tolist(), body, strict=True):
            self._known.setdefault(first, {})
            self._read_row(first, place, fields)
        if class_names is None:
            class_names = _own_classes(self._place, self._header, self._columns, self._places)
            # Lists in brackets say themselves where a name ends.
            plain = {x: n for x, n in self._counts.items() if x not in self._in_lists}
            _check_names(self._place, plain, self._options, True)
            _check_names(self._place, dict.fromkeys(self._in_lists, 1), self._options, False)
        columns = dict(zip(self._places, _columns(self._places, class_names), strict=True))
        every = self._options.unlisted == "negative"
        complete = np.array(
            [
                (every and first in self._labelled) or first in self._complete
                for first in self._known
            ],
            bool,
        )
        labels = np.full((len(self._known), len(class_names)), UNKNOWN, np.int8)
        labels[complete] = NEGATIVE
        for row, (first, known) in enumerate(self._known.items()):
            labels[row, [columns[name] for name in sorted(self._unsure[first])]] = UNKNOWN
            for name, (value, place) in known.items():
                if value == POSITIVE and self._complete.get(first, place) != place:
                    raise UserError(
                        f"{place}: {quoted(name)} of a photo that shows none of the other classes, "
                        f"{self._complete[first]}; keep one of the two rows"
                    )
                labels[row, columns[name]] = value
        notes = []
        if self._names.lists and not self._options.label_separator:
            column = self._header[self._columns.labels or 0]
            notes.append(f"{quoted(column)} holds lists in brackets: read as lists")
        return tuple(class_names), labels, complete, notes

    def _read_row(self, photo: int, place: str, fields: Sequence[str]) -> None:
        columns, none = self._columns, self._options.no_label
        value: int | None = POSITIVE
        if columns.value is not None:
            value = self._values.get(fields[columns.value])
            if value is None:
                raise UserError(
                    f"{place}: {quoted(self._header[columns.value])} must be 1 or 0, found "
                    f"{quoted(fields[columns.value].strip())}; --skip_fractions makes values "
                    "between 0 and 1 unknown, --minus_one=unknown those of -1"
                )
        positives = self._split(place, columns.labels, fields)
        negatives = self._split(place, columns.negatives, fields)
        if _ALL_OTHERS in positives:
            raise UserError(f"{place}: {_ALL_OTHERS} stands in negatives only; list the labels")
        if _ALL_OTHERS in negatives and len(negatives) > 1:
            raise UserError(
                f"{place}: {_ALL_OTHERS} means all classes but the labels; remove it or the names "
                "beside it"
            )
        if none is not None and none in positives:
            if len(positives) > 1:
                raise UserError(
                    f"{place}: {quoted(none)} stands beside other labels, found "
                    f"{', '.join(map(quoted, positives))}; keep one of them"
                )
            positives = []
            if value == POSITIVE:
                negatives = [_ALL_OTHERS]
        negatives = [name for name in negatives if name != none]
        if not (isinstance(fields[columns.labels or 0], Null) and not negatives):
            self._labelled.add(photo)
        for name in positives:
            self._add(photo, place, name, value)
        if negatives == [_ALL_OTHERS]:
            self._complete.setdefault(photo, place)
        else:
            for name in negatives:
                self._add(photo, place, name, NEGATIVE)

    def _split(self, place: str, column: int | None, fields: Sequence[str]) -> list[str]:
        if column is None:
            return []
        before = self._names.lists
        names = list(dict.fromkeys(self._names.split(fields[column])))
        if self._names.lists > before:
            self._in_lists.update(names)
        for name in names:
            if reason := spoiled(name):
                raise UserError(
                    f"{place}: a name in {self._header[column]} {reason}, found "
                    f"{quoted(fields[column])}; mend it"
                )
        return names

    def _add(self, photo: int, place: str, name: str, value: int | None) -> None:
        self._counts[name] += 1
        self._places.setdefault(name, place)
        if value in (None, UNKNOWN):
            self._unsure[photo].add(name)
            return
        known, (before, where) = self._known[photo], (value, place)
        if name in known:
            before, where = known[name]
        if before != value:
            reason = (
                "is in labels and in negatives; remove it from one of them"
                if where == place
                else f"is negative in one row and positive in another, {where}; keep one of them"
            )
            raise UserError(f"{place}: {quoted(name)} {reason}")
        known[name] = before, where


def _own_classes(
    place: str, header: Sequence[str], columns: Columns, names: Iterable[str]
) -> tuple[str, ...]:
    class_names, column = tuple(sorted(names)), header[columns.labels or 0]
    if not class_names:
        raise UserError(f"{place}: no row has a label; fill in the column {column}")
    if all(map(Values.looks_like_one, class_names)):
        raise UserError(
            f"{place}: the header image,{column} announces lists of class names, found only "
            f"{', '.join(class_names)}; for a column of 1 and 0 give it the class's name instead "
            f"of {column}, and give classes other names than 1 and 0"
        )
    return class_names


def _columns(places: dict[str, str], class_names: Sequence[str]) -> list[int]:
    """Where the classes that a table names, each at its place, stand among all."""
    known = {name: column for column, name in enumerate(class_names)}
    for name, place in places.items():
        if name not in known:
            raise UserError(
                f"{place}: unknown class {quoted(name)}; the classes of the training table are "
                f"{', '.join(map(quoted, class_names))}{guess(name, class_names)}; mend the name, "
                "or have the class in the training table too"
            )
    return [known[name] for name in places]


def _weights(
    header: Sequence[str],
    column: int | None,
    body: Sequence[Row],
    firsts: NDArray[np.int64],
    own: Sequence[int],
) -> NDArray[np.float32] | None:
    """float32 of the photos, in the order of their first rows."""
    if column is None:
        return None
    found = np.empty(len(body), np.float32)
    for row, (place, fields) in enumerate(body):
        weight = number(fields[column])
        if weight is None:
            raise UserError(
                f"{place}: {quoted(header[column])} must be a number from 0, found "
                f"{quoted(fields[column].strip())}"
            )
        found[row] = weight
        if found[row] != found[firsts[row]]:
            raise UserError(
                f"{place}: another {quoted(header[column])} than in {body[firsts[row]][0]}, a row "
                "of the same photo; make them equal"
            )
    return found[own]
