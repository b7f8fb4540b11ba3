"""The user's own folder of photos, labelled by CSV tables or by one sub-folder per class.

With tables, see `tables.read_table`. Sub-folders are laid out as CLASS/*.jpg, or as train/CLASS,
val/CLASS and test/CLASS.
"""

from __future__ import annotations

import dataclasses
import os
import unicodedata
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spml_tf.datasets.readers import copies, objects
from spml_tf.datasets.readers.class_folders import (
    check_no_general,
    class_folders,
    collect,
    split_of_name,
    strangers,
)
from spml_tf.datasets.readers.examples import Examples
from spml_tf.datasets.readers.misread import look_alikes
from spml_tf.datasets.readers.photos import SUFFIXES, find_photos, relative_folder
from spml_tf.datasets.readers.split_names import SPLITS, SplitNames, UnknownSplitError
from spml_tf.datasets.readers.tables import read_table
from spml_tf.datasets.table_options import TableOptions
from spml_tf.labels import POSITIVE, UNKNOWN
from spml_tf.system.errors import UserError, few, quoted

_SOURCE = (
    "give --train_csv=TABLE, a CSV file in data_dir (image,labels or image,CLASS,CLASS,...), or "
    "lay the photos out as CLASS/*.jpg or as train/CLASS/*.jpg, val/CLASS/*.jpg, test/CLASS/*.jpg"
)


def load(
    data_dir: str | os.PathLike[str] | None,
    split: str = "train",
    train_csv: str | None = None,
    val_csv: str | None = None,
    test_csv: str | None = None,
    allow_outside: bool = False,
    table_options: TableOptions | None = None,
    boxes_csv: str | None = None,
    masks_dir: str | None = None,
) -> Examples:
    """Reads one split of a folder of photos.

    With --train_csv, its classes are those of all tables, and it is read for every split. Without,
    a photo is positive for the class whose folder it lies in, at any depth, and all its other
    labels are unknown. Photos with the same content become one, called as the first of them, with
    the labels of all.

    Args:
        data_dir: the folder.
        split: "train", "val" or "test", where it is there.
        train_csv: name of the table of the training photos, in the folder.
        val_csv: the same for the validation photos.
        test_csv: the same for the test photos.
        allow_outside: accept tables, photos and links that lead out of the folder.
        table_options: how tables are read, and whether photos of the same content stay apart.
        boxes_csv: name of a table of boxes in the folder, see `objects.with_boxes`.
        masks_dir: name of a folder of masks in the folder, see `objects.with_masks`.

    Returns:
        Examples with files, in the order of the table, or sorted by name. Names are the paths
        relative to the folder. Classes are in the order of the header, or sorted.

    Raises:
        UserError: folder, table or photo missing, neither table nor class folders, a malformed
            table (see `tables.read_table`), a class that is not in the training split, photos of
            the same content that contradict each other, or names that are not UTF-8.
    """
    root = _root(data_dir)
    masks_dir = masks_dir and relative_folder(root, masks_dir)
    tables = {"train": train_csv, "val": val_csv, "test": test_csv}
    there = splits(root, train_csv, val_csv, test_csv, allow_outside)
    if split not in SPLITS or split not in there:
        known = ", ".join(name for name in there if name != "none")
        raise UnknownSplitError(
            f"{root} has {known}, found {split!r}; others have a table, such as --val_csv, "
            "or a folder beside train, such as val"
        )
    options = table_options or TableOptions()
    if train_csv:
        examples = _read_tables(root, split, tables, allow_outside, options)
    else:
        if flags := [flag for flag in options.given() if flag != "keep_copies"]:
            raise UserError(f"--{flags[0]}: is about tables, and there is none; {_SOURCE}")
        examples = _read_folders(root, split, allow_outside, masks_dir)
    if boxes_csv:
        path = _inside(root, "boxes_csv", boxes_csv, allow_outside)
        examples = objects.with_boxes(examples, root, path, allow_outside, options)
    if masks_dir:
        _inside(root, "masks_dir", masks_dir, allow_outside)
        examples = objects.with_masks(examples, root, masks_dir, allow_outside)
    return examples if options.keep_copies else _without_copies(examples)


def splits(
    data_dir: str | os.PathLike[str] | None,
    train_csv: str | None = None,
    val_csv: str | None = None,
    test_csv: str | None = None,
    allow_outside: bool = False,
) -> SplitNames:
    """The splits there are: those with a table, or with a folder beside a folder train.

    Args:
        data_dir: the folder.
        train_csv: as for `load`.
        val_csv: as for `load`.
        test_csv: as for `load`.
        allow_outside: as for `load`.

    Returns:
        "train", "val" and "test", "none" in place of those that are missing.

    Raises:
        UserError: no folder, or a table other than that of the training photos alone.
    """
    root = _root(data_dir)
    if train_csv:
        val, test = (
            name if table else "none" for name, table in (("val", val_csv), ("test", test_csv))
        )
        return SplitNames("train", val, test)
    for flag, table in (("val_csv", val_csv), ("test_csv", test_csv)):
        if table:
            raise UserError(f"--{flag}={table}: needs --train_csv, whose classes it shares")
    if not _has_split_folders(root):
        return SplitNames("train", "none", "none")
    val, test = (x if os.path.isdir(os.path.join(root, x)) else "none" for x in ("val", "test"))
    return SplitNames("train", val, test)


def _root(data_dir: str | os.PathLike[str] | None) -> str:
    if data_dir is None:
        raise UserError(f"data_dir: name the folder of the photos; {_SOURCE}")
    root = os.path.abspath(data_dir)
    if not os.path.isdir(root):
        raise UserError(f"data_dir: {root} is not a folder; {_SOURCE}")
    return root


def _has_split_folders(root: str) -> bool:
    return os.path.isdir(os.path.join(root, "train")) and bool(class_folders(root, "train"))


def _read_tables(
    root: str,
    split: str,
    tables: dict[str, str | None],
    allow_outside: bool,
    options: TableOptions,
) -> Examples:
    table = read_table(
        _table_path(root, "train", tables, allow_outside), hint=_SOURCE, options=options
    )
    notes = look_alikes(table.class_names)
    if split != "train":
        path = _table_path(root, split, tables, allow_outside)
        table = read_table(path, table.class_names, _SOURCE, options)
        if table.missing:
            notes += (f"{path}: no column for {few(table.missing)}: unknown labels",)
    paths = _require(root, table.images, allow_outside, table.places.__getitem__)
    examples = Examples(
        table.names, table.labels, table.class_names, paths=paths, weights=table.weights,
        notes=(*notes, *table.notes),
    )  # fmt: skip
    return examples


def _without_copies(examples: Examples) -> Examples:
    """Photos of the same content as one, with the labels and boxes of all, and the first mask."""
    firsts = copies.same_content(examples.paths or ())
    own = np.flatnonzero(firsts == np.arange(len(firsts)))
    if len(own) == len(firsts):
        return examples
    try:
        labels = copies.merged(examples.labels, firsts)
    except copies.ContradictionError as error:
        raise UserError(
            f"{(examples.paths or ())[error.first]}: is the same photo as "
            f"{quoted(examples.names[error.second])}, and their labels of "
            f"{quoted(examples.class_names[error.column])} contradict each other; mend one, or "
            "give --keep_copies"
        ) from None
    copy = int(np.flatnonzero(firsts != np.arange(len(firsts)))[0])
    note = (
        f"{len(firsts) - len(own)} of {len(firsts)} photos are copies of others, such as "
        f"{quoted(examples.names[copy])} of {quoted(examples.names[firsts[copy]])}: read as one "
        "with the labels of all; --keep_copies keeps them apart"
    )
    _check_weights(examples, firsts)
    groups = copies.groups(firsts)
    joined: dict[str, Any] = {
        name: tuple(np.concatenate([parts[row] for row in group]) for group in groups)
        for name in ("boxes", "areas") if (parts := getattr(examples, name)) is not None
    }  # fmt: skip
    if examples.masks is not None:
        masks = ([examples.masks[row] for row in group] for group in groups)
        joined["masks"] = tuple(next(filter(None, those), None) for those in masks)
    kept = examples.subset(own)
    return dataclasses.replace(kept, labels=labels, notes=(*examples.notes, note), **joined)


def _check_weights(examples: Examples, firsts: NDArray[np.int64]) -> None:
    """Refuses copies of a photo whose weights differ."""
    if examples.weights is None:
        return
    others = np.flatnonzero(examples.weights != examples.weights[firsts]).tolist()
    if others:
        row = min(others, key=lambda other: int(firsts[other]))
        raise UserError(
            f"{(examples.paths or ())[firsts[row]]}: is the same photo as "
            f"{quoted(examples.names[row])}, with another weight; mend one, or give --keep_copies"
        )


def _table_path(root: str, split: str, tables: dict[str, str | None], allow_outside: bool) -> str:
    return _inside(root, f"{split}_csv", tables[split] or "", allow_outside)


def _inside(root: str, flag: str, name: str, allow_outside: bool) -> str:
    """The path of what a flag names in the folder."""
    path = os.path.join(root, name)
    real, base = os.path.realpath(path), os.path.realpath(root)
    if not allow_outside and os.path.commonpath((real, base)) != base:
        raise UserError(
            f"--{flag}={name}: lies outside the data folder {root}; move it there, or "
            "give --allow_outside if you trust it"
        )
    return path


def _require(
    root: str, names: Sequence[str], allow_outside: bool, place: Callable[[int], str] | None = None
) -> tuple[str, ...]:
    """The photos' paths, all of which must be there."""
    found = find_photos(root, names, allow_outside, place)
    missing = [number for number, path in enumerate(found) if path is None]
    if missing:
        path = os.path.join(root, names[missing[0]])
        what = "a folder, not a photo" if os.path.isdir(path) else "the photo is missing"
        where = f"{place(missing[0])}: " if place else ""
        raise UserError(
            f"{where}{path}: {what} ({len(missing)} of {len(names)} are not there); names are "
            f"relative to {root}{_mended(root, names[missing[0]])}"
        )
    return tuple(path for path in found if path is not None)


def _mended(root: str, name: str) -> str:
    """The flag that would find a photo that is missing, or nothing."""
    if "." not in os.path.basename(name):
        for ending in SUFFIXES:
            if os.path.isfile(os.path.join(root, name + ending)):
                return f"; give --add_extension={ending}"
    folder, base = os.path.split(os.path.join(root, name))
    for other in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        if other.casefold() == base.casefold():
            return f"; {other} is there: names are told apart by case"
        if unicodedata.normalize("NFC", other) == unicodedata.normalize("NFC", base):
            return (
                "; a file is there whose name looks the same and has other characters, as accents "
                "may be letters of their own (NFD): write both in the same way (NFC)"
            )
    parts = name.split("/")
    for number in range(1, len(parts)):
        if os.path.isfile(os.path.join(root, *parts[number:])):
            return f"; give --strip_prefix={'/'.join(parts[:number])}/"
    return ""


def _read_folders(root: str, split: str, allow_outside: bool, masks_dir: str | None) -> Examples:
    nested = _has_split_folders(root)
    train, top = ("train", split) if nested else ("", "")
    besides = _folders_of_masks(root, masks_dir) if masks_dir else []
    class_names = class_folders(root, train, besides)
    if not class_names:
        raise UserError(f"data_dir: {root} holds no folder of a class; {_SOURCE}")
    _check_folders(root, nested, class_names, besides)
    beside = strangers(root, SPLITS) if nested else ()
    photos, more = collect(root, top, class_names, allow_outside, besides)
    if not photos:
        folder = os.path.join(root, top)
        raise UserError(f"{folder}: no photo ({' '.join(SUFFIXES)}) in the folders of the classes")
    columns = {name: column for column, name in enumerate(class_names)}
    labels = np.full((len(photos), len(class_names)), UNKNOWN, np.int8)
    labels[np.arange(len(photos)), [columns[name] for name in photos.values()]] = POSITIVE
    examples = Examples(
        tuple(photos),
        labels,
        class_names,
        paths=_require(root, tuple(photos), allow_outside),
        notes=(*beside, *more, *look_alikes(class_names)),
    )
    return examples


def _folders_of_masks(root: str, masks_dir: str) -> list[str]:
    """The folder of the masks relative to root, and those that hold nothing but it."""
    inside = os.path.relpath(os.path.join(root, masks_dir), root)
    found = [inside]
    while (outer := os.path.dirname(found[-1])) and os.path.isdir(os.path.join(root, outer)):
        if os.listdir(os.path.join(root, outer)) != [os.path.basename(found[-1])]:
            break
        found.append(outer)
    return found


def _check_folders(
    root: str, nested: bool, class_names: Sequence[str], besides: Collection[str]
) -> None:
    """Refuses folders that hold other folders and are no class by their names."""
    tops = class_folders(root, "", besides) if nested else class_names
    found = [x for x in tops if split_of_name(x) and x not in SPLITS and class_folders(root, x)]
    if found:
        raise UserError(
            f"data_dir: {root}: {few(found)} seem to be splits and not classes; call them "
            f"{', '.join(SPLITS)}, or make tables of them with python -m spml_tf.data import"
        )
    for top in SPLITS if nested else ("",):
        if os.path.isdir(os.path.join(root, top)):
            check_no_general(root, top, class_folders(root, top, besides), "--data_dir")
