"""What the readers of formats work on and return: a label file, and the labels in it."""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spml_tf.datasets.readers.table_cells import Null, Row
from spml_tf.datasets.readers.table_columns import check_header
from spml_tf.datasets.readers.tables import (
    Table,
    named_by,
    no_prefix,
    split_rows,
    table_of_rows,
)
from spml_tf.datasets.table_options import TableOptions
from spml_tf.labels import NEGATIVE, POSITIVE, UNKNOWN
from spml_tf.system.errors import UserError, quoted, spoiled
from spml_tf.system.json_text import parse_document, parse_json
from spml_tf.system.text_files import read_text

# The keys by which formats know their JSON files.
_KEYS = (
    "images", "annotations", "categories", "classes", "labels", "annotation_id", "annotator",
    "result", "data",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Labels:
    """What a label file says.

    Attributes:
        images: N names of photos as the file has them; unique.
        class_names: L names.
        labels: int8 [N, L] of {1, 0, -1}.
        splits: the photos' splits, "" where the file does not say.
        complete: bool [N], the photos of which all classes are negative that are not named, those
            of other files among them.
        weights: float32 [N], the photos' weights, or None.
        notes: what was left out or treated.
        renamed: names of classes that were changed, with the new ones.
        folder: what names of photos are relative to; None for the file's folder.
    """

    images: tuple[str, ...]
    class_names: tuple[str, ...]
    labels: NDArray[np.int8]
    splits: tuple[str, ...]
    complete: NDArray[np.bool_]
    weights: NDArray[np.float32] | None = None
    notes: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    folder: Path | None = None


@dataclasses.dataclass(frozen=True)
class LabelFile:
    """A file that may hold labels.

    Attributes:
        path: the file; for photos in folders of their classes the folder above.
    """

    path: Path

    @property
    def folder(self) -> Path:
        """The folder it lies in, or is."""
        return self.path if self.path.is_dir() else self.path.parent

    @functools.cached_property
    def head(self) -> str:
        """The first characters, "" where it cannot be read."""
        try:
            with open(self.path, encoding="utf-8-sig", errors="replace") as file:
                return file.read(4096)
        except OSError:
            return ""

    @property
    def suffix(self) -> str:
        """Of the name, in lower case."""
        return self.path.suffix.lower()

    @functools.cached_property
    def text(self) -> str:
        """The content.

        Raises:
            UserError: it cannot be read or is not UTF-8.
        """
        return read_text(self.path)

    @functools.cached_property
    def header(self) -> tuple[str, ...]:
        """The cells of a table's first line, or the keys of the first object of JSON Lines."""
        if self.suffix in (".jsonl", ".ndjson"):
            try:
                first = parse_json(self._line())
            except ValueError:
                return ()
            return tuple(first) if isinstance(first, dict) else ()
        if self.suffix not in (".csv", ".tsv", ".txt"):
            return ()
        line = self._line()
        counts = {mark: line.count(mark) for mark in ",;\t"}
        try:
            (cells,) = csv.reader([line], delimiter=max(counts, key=lambda mark: counts[mark]))
        except (csv.Error, ValueError):
            return ()
        return tuple(cell.strip() for cell in cells)

    def _line(self) -> str:
        """The first line that is not blank; "" where it cannot be read."""
        try:
            with open(self.path, encoding="utf-8-sig", errors="replace") as file:
                return next(filter(str.strip, iter(lambda: file.readline(1 << 20), "")), "")
        except OSError:
            return ""

    def holds(self, *words: str) -> bool:
        """Whether a JSON file holds all these keys, of `_KEYS`, at whatever depth."""
        assert set(words) <= set(_KEYS), words
        return self._keys.issuperset(words)

    @functools.cached_property
    def _keys(self) -> frozenset[str]:
        """Those of `_KEYS` that a JSON file holds; it may be large, and is read once."""
        if self.suffix != ".json":
            return frozenset()
        try:
            content = self.path.read_bytes()
        except OSError:
            return frozenset()
        return frozenset(word for word in _KEYS if f'"{word}"'.encode() in content)

    def json(self) -> Any:
        """The content as JSON.

        Raises:
            UserError: it is none; the message gives line and column.
        """
        return parse_document(self.path, self.text, "export it again")

    def rows(self, options: TableOptions) -> tuple[str, list[str], list[Row]]:
        """A table, or JSON Lines as a table; see `tables.split_rows`.

        Raises:
            UserError: a line is malformed.
        """
        if self.suffix not in (".jsonl", ".ndjson"):
            return split_rows(self.path, self.text, options)
        objects = []
        # Not splitlines: strings in JSON may hold the separators of lines that Unicode has.
        for number, line in enumerate(self.text.split("\n"), start=1):
            if line.strip():
                place = f"{self.path}:{number}"
                try:
                    objects.append((place, parse_json(line)))
                except ValueError as error:
                    raise UserError(f"{place}: no JSON ({error}); export the file again") from error
        return self.rows_of_objects(objects)

    def rows_of_objects(
        self, objects: Sequence[tuple[str, Any]]
    ) -> tuple[str, list[str], list[Row]]:
        """Objects, each with its place, as rows of a table; lists become JSON in a cell."""
        header: dict[str, None] = {}
        for place, entry in objects:
            if not isinstance(entry, dict):
                raise UserError(f"{place}: expected an object, found {quoted(repr(entry))}")
            header.update(dict.fromkeys(entry))
        if not objects:
            raise UserError(f"{self.path}: holds no photo; export it again")
        names = list(header)
        check_header(f"{self.path}:1", names)
        body = [(place, [_cell(entry.get(name, "")) for name in names]) for place, entry in objects]
        return f"{self.path}:1", names, body

    def read_table(self, options: TableOptions, preset: TableOptions) -> Labels:
        """The labels of a table, or of JSON Lines.

        Args:
            options: the user's, which come first.
            preset: the format's.
        """
        chosen = dataclasses.replace(preset, **{x: getattr(options, x) for x in options.given()})
        place, header, body = self.rows(chosen)
        return labels_of_table(table_of_rows(self.path, place, header, body, None, chosen))


def labels_of_table(table: Table) -> Labels:
    """What a table says."""
    return Labels(
        table.images, table.class_names, table.labels, ("",) * len(table.images), table.complete,
        table.weights, table.notes,
    )  # fmt: skip


def _cell(value: Any) -> str:
    if value is None:
        return Null()
    return value if isinstance(value, str) else json.dumps(value)


def _name(place: str, kind: str, name: Any) -> str:
    """A name without blanks around it; refuses anything else."""
    name = name.strip() if isinstance(name, str) else name
    if not isinstance(name, str) or spoiled(name):
        raise UserError(f"{place}: expected the name of a {kind}, found {quoted(repr(name))}")
    return name


class Collector:
    """Gathers labels photo by photo.

    Args:
        path: the file, for messages.
        options: of which `no_label` and `unlisted` count.
    """

    def __init__(self, path: str | os.PathLike[str], options: TableOptions) -> None:
        self._path, self._options = path, options
        self._rows: dict[str, int] = {}
        self._splits: list[str] = []
        self._labelled: list[bool] = []
        self._marks: dict[tuple[int, str], int] = {}
        self._classes: dict[str, None] = {}
        self._stripped = False
        self.notes: list[str] = []

    def add_classes(self, names: Sequence[str]) -> None:
        """Declares classes, in their order; those of labels come after them.

        Raises:
            UserError: one is no name.
        """
        self._classes.update(dict.fromkeys(_name(str(self._path), "class", x) for x in names))

    def add_photo(self, place: str, name: Any, split: str = "", labelled: bool = True) -> int:
        """Declares a photo and returns its number.

        Args:
            place: for messages.
            name: of its file.
            split: "train", "val", "test" or "".
            labelled: whether somebody has looked at it.
        """
        name, stripped = named_by(_name(place, "photo", name), self._options)
        self._stripped |= stripped
        row = self._rows.setdefault(name, len(self._rows))
        if row == len(self._splits):
            self._splits.append(split)
            self._labelled.append(labelled)
        elif self._splits[row] != split:
            raise UserError(
                f"{place}: {quoted(name)} is of split {quoted(split)}, and of "
                f"{quoted(self._splits[row])} before; rename or remove one of them"
            )
        self._labelled[row] |= labelled
        return row

    def add(self, place: str, photo: int, name: Any, value: int = POSITIVE) -> None:
        """Says that a class is there, or not.

        Raises:
            UserError: no name of a class, or an earlier label says otherwise.
        """
        name = _name(place, "class", name)
        self._classes.setdefault(name)
        if self._marks.setdefault((photo, name), value) != value:
            raise UserError(f"{place}: {quoted(name)} is positive and negative; keep one of them")

    def labels(self) -> Labels:
        """What was gathered.

        Raises:
            UserError: no photo, or a photo of `no_label` that shows a class.
        """
        none = self._options.no_label
        empty = {row for (row, name), value in self._marks.items() if name == none and value == 1}
        names = tuple(name for name in self._classes if name != none)
        if not self._rows:
            raise UserError(f"{self._path}: holds no photo; export it again")
        if self._options.strip_prefix and not self._stripped:
            raise no_prefix(self._options, next(iter(self._rows)))
        columns = {name: column for column, name in enumerate(names)}
        found = np.full((len(self._rows), len(names)), UNKNOWN, np.int8)
        complete = np.array(self._labelled) & (self._options.unlisted == "negative")
        complete[sorted(empty)] = True
        found[complete] = NEGATIVE
        for (row, name), value in self._marks.items():
            if name == none:
                continue
            if row in empty and value == POSITIVE:
                photo = next(name for name, number in self._rows.items() if number == row)
                raise UserError(
                    f"{self._path}: {quoted(photo)} is {quoted(none or '')} and {quoted(name)}; "
                    "keep one of them"
                )
            found[row, columns[name]] = value
        return Labels(
            tuple(self._rows), names, found, tuple(self._splits), complete, notes=tuple(self.notes)
        )
