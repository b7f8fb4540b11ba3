"""Observed labels and the validation split as a small CSV, to share and to reload.

The header is `image,split,class,label`. A training image has a row for each label that is known
(1 or 0) and one with empty class and label where none is; a validation image has one such row,
since its labels are the data set's own. Files without the column `split` name labels only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spml_tf.datasets import reviewed_files
from spml_tf.datasets.readers.table_cells import number
from spml_tf.labels import UNKNOWN, validate_labels
from spml_tf.system.errors import UserError
from spml_tf.system.files import Way, naming_unwritable, replaced, write_csv
from spml_tf.system.nearest import guess
from spml_tf.system.text_files import read_csv

_HEADER = ["image", "split", "class", "label"]
_WITHOUT_SPLIT = ["image", "class", "label"]


def write_observed(
    path: str | os.PathLike[str],
    labels: ArrayLike,
    names: Sequence[str],
    class_names: Sequence[str],
    held_out: Sequence[str] = (),
    into: Way = replaced,
) -> None:
    """Writes observed labels in UTF-8; an earlier file is replaced in one step.

    Args:
        path: the file to write.
        labels: [N, L] of {1, 0, -1}, the training images' observed labels.
        names: N unique image names.
        class_names: L unique class names.
        held_out: names of the validation images.
        into: how the file comes to its place.

    Raises:
        ValueError: labels that are invalid or do not fit the names.
        UserError: the file cannot be written.
    """
    matrix = validate_labels(labels)
    if matrix.shape != (len(names), len(class_names)):
        raise ValueError(
            f"labels of shape {matrix.shape} do not fit {len(names)} images and "
            f"{len(class_names)} classes"
        )

    def rows() -> Iterator[tuple[object, ...]]:
        for name, row in zip(names, matrix, strict=True):
            known = np.flatnonzero(row != UNKNOWN).tolist()
            cells = [(class_names[i], row[i]) for i in known] or [("", "")]
            yield from ((name, "train", *pair) for pair in cells)
        yield from ((name, "val", "", "") for name in held_out)

    with naming_unwritable(f"{path}: the labels"):
        write_csv(path, _HEADER, rows(), into=into)


def read_observed(
    path: str | os.PathLike[str],
    names: Sequence[str],
    class_names: Sequence[str],
    of_some: bool = False,
) -> tuple[NDArray[np.int8], NDArray[np.bool_] | None]:
    """Reads what `write_observed` wrote, or a file of the user's own in that format.

    Args:
        path: CSV file with the header `image,split,class,label`, or without the column split.
        names: N unique image names of the training split, the validation part among them.
        class_names: L unique class names.
        of_some: the file may leave out training images, as with --train_images, see `check_chosen`.

    Returns:
        int8 [N, L] of {1, 0, -1}, all unknown for images without a row or held out; and bool [N],
        whether the file holds an image out for validation (None: it has no column split).

    Raises:
        UserError: the file is missing or not UTF-8, has another header, or a row names an unknown
            image, class or split, has another value than 1 or 0, or contradicts an earlier row; or
            a file with splits leaves an image out. The message gives file and line.
    """
    table = read_csv(path)
    _, header = next(table, ("", []))
    if header not in (_HEADER, _WITHOUT_SPLIT):
        raise UserError(
            f"{path}:1: the first line must be {','.join(_WITHOUT_SPLIT)} or {','.join(_HEADER)}"
        )
    reading = _Reading(names, class_names)
    for place, fields in table:
        if len(fields) != len(header):
            raise UserError(f"{place}: expected {','.join(header)}, found {len(fields)} fields")
        image, *split, name, value = fields
        reading.add(place, image, name, value, *split)
    if header == _WITHOUT_SPLIT:
        return reading.labels, None
    return reading.labels, reading.held_out(path, of_some)


def has_splits(path: str | os.PathLike[str]) -> bool:
    """Whether a file of observed labels says which images are held out for validation.

    Args:
        path: as for `read_observed`.

    Raises:
        UserError: the file is missing or not UTF-8.
    """
    _, header = next(read_csv(path), ("", []))
    return header == _HEADER


def check_chosen(path: str | os.PathLike[str], names: Sequence[str], flags: str) -> None:
    """Raises UserError where a file of labels with splits is not of these training images.

    Args:
        path: the file, which `read_observed` has read.
        names: of the training images.
        flags: that have chosen these, for the message.
    """
    (_, header), *rows = read_csv(path)
    if header == _HEADER and {row[0] for _, row in rows if row[1] == "train"} != set(names):
        raise UserError(
            f"{path}: lists other training images than {flags} choose; use the file with the data "
            "set and flags it was written for"
        )


def read_reviewed(
    paths: Sequence[str | os.PathLike[str]], names: Sequence[str], class_names: Sequence[str]
) -> NDArray[np.int8]:
    """Reads labels that somebody looked through.

    Args:
        paths: CSV files as `reviewed_files.read_rows` reads them. Rows without a label were not
            decided and do not count.
        names: N unique image names.
        class_names: L unique class names.

    Returns:
        int8 [N, L] of {1, 0, -1}, unknown where no row decides.

    Raises:
        UserError: a file is missing or not UTF-8, lacks a column, or a row names an unknown image
            or class, has another label than 1, 0 or none, or contradicts an earlier row.
    """
    reading = _Reading(names, class_names)
    for path in paths:
        for row in reviewed_files.read_rows(path):
            if row.label:
                reading.add(row.place, row.image, row.class_name, row.label)
    return reading.labels


def read_class_weights(
    path: str | os.PathLike[str], class_names: Sequence[str]
) -> NDArray[np.float32]:
    """Reads how much each class counts in the loss.

    Args:
        path: CSV file with the columns class and weight; others are not looked at.
        class_names: L unique class names.

    Returns:
        float32 [L] from 0; 1 for classes without a row.

    Raises:
        UserError: the file is missing, has another header, or a row names an unknown class or one
            that has a row already, or a weight that is no number from 0.
    """
    return _read_of_classes(path, class_names, "class_weights", "weight", 1.0)


def read_class_priors(
    path: str | os.PathLike[str], class_names: Sequence[str], flag: str
) -> NDArray[np.float32]:
    """Reads the share of images that hold each class.

    Args:
        path: CSV file with the columns class and prior, and a row for each class; class_priors.csv
            of a run is one. Other columns are not looked at.
        class_names: L unique class names.
        flag: what names the file, for messages.

    Returns:
        float32 [L] in [0, 1].

    Raises:
        UserError: as for `read_class_weights`; a class has no row, or a prior is above 1.
    """
    priors = _read_of_classes(path, class_names, flag, "prior", np.nan)
    for name, prior in zip(class_names, priors, strict=True):
        if not prior <= 1:
            found = "no row" if np.isnan(prior) else f"the prior {prior:g}"
            raise UserError(f"{path}: the class {name!r} has {found}; give it one from 0 to 1")
    return priors


def _read_of_classes(
    path: str | os.PathLike[str],
    class_names: Sequence[str],
    flag: str,
    quantity: str,
    missing: float,
) -> NDArray[np.float32]:
    """Reads a number from 0 of each class, [L] float32; `missing` for classes without a row."""
    table = read_csv(path, f"--{flag} names a CSV file with the columns class,{quantity}")
    place, first = next(table, (f"{path}:1", []))
    header = [name.strip() for name in first]
    if any(header.count(name) != 1 for name in ("class", quantity)):
        raise UserError(f"{place}: the first line must have the columns class,{quantity}")
    of_class, of_quantity = header.index("class"), header.index(quantity)
    columns = {name: column for column, name in enumerate(class_names)}
    values, seen = np.full(len(class_names), missing, np.float32), set()
    for place, fields in table:
        whole = len(fields) == len(header)
        name, text = (fields[x].strip() if whole else "" for x in (of_class, of_quantity))
        if name not in columns or name in seen:
            known = ", ".join(class_names)
            raise UserError(
                f"{place}: expected one of the classes {known}, each once, and its {quantity}, "
                f"found {','.join(fields)!r}"
            )
        value = number(text)
        if value is None:
            raise UserError(f"{place}: the {quantity} must be a number from 0, found {text!r}")
        values[columns[name]] = value
        seen.add(name)
    return values


class _Reading:
    """Labels and splits row by row."""

    def __init__(self, names: Sequence[str], class_names: Sequence[str]) -> None:
        self._names = names
        self._rows = {name: row for row, name in enumerate(names)}
        self._columns = {name: column for column, name in enumerate(class_names)}
        self._splits: dict[str, str] = {}
        self.labels = np.full((len(names), len(class_names)), UNKNOWN, np.int8)

    def add(self, place: str, image: str, name: str, value: str, split: str | None = None) -> None:
        if image not in self._rows:
            known = ", ".join(self._names[:2])
            raise UserError(f"{place}: unknown image {image!r}; names look like {known}")
        if split is not None:
            self._add_split(place, image, split, bool(name or value))
            if not name and not value:
                return
        self._add_label(place, image, name, value)

    def _add_split(self, place: str, image: str, split: str, labelled: bool) -> None:
        if split not in ("train", "val"):
            raise UserError(f"{place}: the split must be train or val, found {split!r}")
        if self._splits.setdefault(image, split) != split:
            raise UserError(f"{place}: {image!r} is in both splits; keep it in one of them")
        if split == "val" and labelled:
            raise UserError(f"{place}: labels of val are the data set's; leave class and label out")

    def _add_label(self, place: str, image: str, name: str, value: str) -> None:
        if name not in self._columns:
            known = ", ".join(self._columns)
            near = guess(name, self._columns)
            raise UserError(f"{place}: unknown class {name!r}; the classes are {known}{near}")
        reviewed_files.check_label(place, value)
        cell = self._rows[image], self._columns[name]
        if self.labels[cell] not in (UNKNOWN, int(value)):
            raise UserError(
                f"{place}: {name!r} of {image!r} is {value} here and {self.labels[cell]} in an "
                "earlier row; keep one of them"
            )
        self.labels[cell] = int(value)

    def held_out(self, path: str | os.PathLike[str], of_some: bool) -> NDArray[np.bool_]:
        for name in () if of_some else self._names:
            if name not in self._splits:
                raise UserError(
                    f"{path}: {name!r} of the training split has no row; use the file with the "
                    "data set and flags it was written for, --train_images among them"
                )
        return np.array([self._splits.get(name) == "val" for name in self._names], bool)
