"""ImageNet-1K (ILSVRC 2012) from its folders, with the ReaL labels of its validation images.

Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge" (IJCV 2015); Beyer et al.,
"Are we done with ImageNet?" (2020). A class is a WordNet id such as n01440764, and its index the
id's position in sorted order, as in Keras. The challenge gives every image one label, which says
nothing about the other classes: these are unknown. The ReaL labels are full.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spml_tf.datasets.readers.examples import Examples
from spml_tf.datasets.readers.imagenet_lists import numbered, read_classes
from spml_tf.datasets.readers.photos import SUFFIXES, require_photos
from spml_tf.datasets.readers.split_names import check_split
from spml_tf.labels import POSITIVE, UNKNOWN
from spml_tf.system.errors import UserError
from spml_tf.system.json_text import parse_json
from spml_tf.system.text_files import read_text

SPLITS = ("train", "val", "real")
NUM_CLASSES = 1000
NUM_IMAGES = {"train": 1281167, "val": 50000}

_CLASS = re.compile(r"n[0-9]{8}")
_KAGGLE = "ILSVRC/Data/CLS-LOC"
_SOURCE = (
    "get ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from image-net.org, unpack every "
    "class into train/n01440764 and so on and the validation images into val, and put beside them "
    "LOC_val_solution.csv, imagenet_2012_validation_synset_labels.txt or the folder "
    "ILSVRC2012_devkit_t12"
)
_REAL_SOURCE = "get real.json from github.com/google-research/reassessed-imagenet into data_dir"


class _Photos(NamedTuple):
    """N photos; columns are their classes' indices, none where no list was asked."""

    names: list[str]
    paths: tuple[str, ...]
    columns: list[int]
    classes: list[str]


def load(
    data_dir: str | os.PathLike[str] | None = None,
    split: str = "train",
    allow_outside: bool = False,
) -> Examples:
    """Reads one split of ImageNet-1K.

    The classes are the sub-folders of train. Without that folder they are those of val, or all that
    the list of validation labels names.

    Args:
        data_dir: the folder that holds train and val, or the one that holds Kaggle's ILSVRC.
        split: "train"; "val", from sub-folders named by class, or flat with one of
            LOC_val_solution.csv, imagenet_2012_validation_synset_labels.txt and
            ILSVRC2012_devkit_t12/data in data_dir; or "real", the validation images with the labels
            of real.json in data_dir, without the images that have none.
        allow_outside: accept photos that lie outside the folder, see `photos.find_photos`.

    Returns:
        Examples with files; names are "train/n01440764/....JPEG", sorted, or "val/....JPEG", sorted
        by the bare file name, the order of all published lists. Labels, int8: 1 for the image's
        class and -1 elsewhere; for "real" 1 and 0.

    Raises:
        UserError: folder, list or photo missing, or a malformed line or list.
    """
    check_split(split, SPLITS, "ImageNet has")
    root, base = _roots(data_dir)
    notes: list[str] = []
    known = []
    if split == "train" or os.path.isdir(base / "train"):
        # What else lies in train is told with that split.
        known = _class_folders(base / "train", notes if split == "train" else [])
    if split == "train":
        photos = _in_folders(base, "train", known, known, notes, allow_outside)
    else:
        photos = _validation(root, base, known, split == "real", notes, allow_outside)
    _compare_counts("train" if split == "train" else "val", photos, notes)
    if split == "real":
        labels = _real_labels(root / "real.json", photos)
    else:
        labels = np.full((len(photos.names), len(photos.classes)), UNKNOWN, np.int8)
        labels[np.arange(len(labels)), photos.columns] = POSITIVE
    examples = Examples(
        tuple(photos.names), labels, tuple(photos.classes), paths=photos.paths, notes=tuple(notes)
    )
    return _without_unlabelled(examples) if split == "real" else examples


def _roots(data_dir: str | os.PathLike[str] | None) -> tuple[Path, Path]:
    """The folder of the lists and that of train and val."""
    if data_dir is None:
        raise UserError(f"data_dir: ImageNet needs its folder; {_SOURCE}")
    root = Path(data_dir).absolute()
    for base in (root, root / _KAGGLE):
        if any(os.path.isdir(base / part) for part in ("train", "val")):
            return root, base
    raise UserError(f"data_dir: neither train nor val in {root} or in its {_KAGGLE}; {_SOURCE}")


def _entries(folder: Path) -> tuple[list[str], list[str]]:
    """Names of a folder's sub-folders and of everything else in it, sorted."""
    folders: list[str] = []
    others: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                (folders if entry.is_dir() else others).append(entry.name)
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror}); {_SOURCE}") from error
    return sorted(folders), sorted(others)


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and name.isprintable()


def _class_folders(folder: Path, notes: list[str]) -> list[str]:
    """Sorted names of the sub-folders that are classes."""
    folders, others = _entries(folder)
    classes = [name for name in folders if _CLASS.fullmatch(name)]
    if not classes:
        raise UserError(f"{folder}: no sub-folder named like n01440764; {_SOURCE}")
    _note_others(folder, [x for x in folders if not _CLASS.fullmatch(x)] + others, notes)
    return classes


def _note_others(folder: Path, names: Sequence[str], notes: list[str]) -> None:
    if names:
        notes.append(
            f"{folder.name}: neither a class nor an image of one, left out: {len(names):,}, the "
            f"first is {names[0]!r}"
        )


def _in_folders(
    base: Path,
    part: str,
    folders: Sequence[str],
    classes: list[str],
    notes: list[str],
    allow_outside: bool,
) -> _Photos:
    """The photos in the folders of classes, sorted by class and name."""
    positions = {name: column for column, name in enumerate(classes)}
    names, columns, others = [], [], []
    for folder in folders:
        inner, files = _entries(base / part / folder)
        images = [file for file in files if _is_image(file)]
        names += [f"{part}/{folder}/{file}" for file in images]
        columns += [positions[folder]] * len(images)
        others += [f"{folder}/{x}" for x in [*inner, *(x for x in files if not _is_image(x))]]
    _note_others(base / part, others, notes)
    if not names:
        raise UserError(f"{base / part}: no image in the folders of classes; {_SOURCE}")
    paths = require_photos(base, names, _SOURCE, allow_outside)
    return _Photos(names, paths, columns, classes)


def _validation(
    root: Path, base: Path, known: list[str], real: bool, notes: list[str], allow_outside: bool
) -> _Photos:
    """The validation photos, sorted by bare file name."""
    folder = base / "val"
    folders, files = _entries(folder)
    present = [name for name in folders if _CLASS.fullmatch(name)]
    if not present:
        _note_others(folder, folders + [x for x in files if not _is_image(x)], notes)
        images = [x for x in files if _is_image(x)]
        return _flat(root, base, images, known, real, notes, allow_outside)
    if known and (extra := sorted(set(present) - set(known))):
        raise UserError(f"{folder / extra[0]}: this class is not a folder of train; {_SOURCE}")
    _note_others(folder, [x for x in folders if x not in present] + files, notes)
    photos = _in_folders(base, "val", present, known or present, notes, allow_outside)
    order = sorted(range(len(photos.names)), key=lambda row: os.path.basename(photos.names[row]))
    return _Photos(
        [photos.names[row] for row in order],
        tuple(photos.paths[row] for row in order),
        [photos.columns[row] for row in order],
        photos.classes,
    )


def _flat(
    root: Path,
    base: Path,
    images: Sequence[str],
    known: list[str],
    real: bool,
    notes: list[str],
    allow_outside: bool,
) -> _Photos:
    """The photos that lie in val itself, with a list of their classes if that is needed."""
    if real and known:
        names = [f"val/{file}" for file in images]
        return _Photos(names, require_photos(base, names, _SOURCE, allow_outside), [], known)
    listed, path = read_classes(root, known, _SOURCE)
    files = {os.path.splitext(file)[0]: file for file in images}
    wanted = [files.get(stem, f"{stem}.JPEG") for stem in listed]
    names = [f"val/{file}" for file in wanted]
    if extra := sorted(set(images) - set(wanted)):
        notes.append(
            f"photos of val that {path.name} does not name, left out: {len(extra):,}, the first is "
            f"{extra[0]}"
        )
    paths = require_photos(base, names, _SOURCE, allow_outside)
    classes = known or sorted(set(listed.values()))
    positions = {name: column for column, name in enumerate(classes)}
    return _Photos(names, paths, [positions[name] for name in listed.values()], classes)


def _compare_counts(part: str, photos: _Photos, notes: list[str]) -> None:
    """Tells where this is not the whole of ImageNet-1K."""
    found = len(photos.names), len(photos.classes)
    if found != (NUM_IMAGES[part], NUM_CLASSES):
        notes.append(
            f"{part} holds {found[0]:,} photos, and there are {found[1]:,} classes; ImageNet-1K "
            f"has {NUM_IMAGES[part]:,} photos of {NUM_CLASSES:,} classes"
        )


def _real_labels(path: Path, photos: _Photos) -> NDArray[np.int8]:
    """int8 [N, L] of {1, 0}; list i of real.json is that of ILSVRC2012_val_{i + 1:08d}."""
    lists = _parsed(path)
    if not isinstance(lists, list) or len(lists) != len(photos.names):
        found = f"{len(lists)} lists" if isinstance(lists, list) else type(lists).__name__
        raise UserError(
            f"{path}: expected a list for each of the {len(photos.names)} photos of val, found "
            f"{found}; {_REAL_SOURCE}, and keep all photos in val"
        )
    for number, name in enumerate(photos.names, start=1):
        if os.path.splitext(os.path.basename(name))[0] != numbered(number):
            raise UserError(
                f"{name}: photo {number} of val must be called {numbered(number)}.JPEG: the lists "
                "of real.json go by these numbers"
            )
    labels = np.zeros((len(lists), len(photos.classes)), np.int8)
    for row, columns in enumerate(lists):
        _check_columns(f"{path.name}[{row}]", columns, len(photos.classes))
        labels[row, columns] = POSITIVE
    return labels


def _parsed(path: Path) -> Any:
    text = read_text(path, _REAL_SOURCE)
    try:
        return parse_json(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not JSON ({error.msg}); {_REAL_SOURCE}") from error
    except ValueError as error:  # nested too deeply, or a number of 5,000 digits
        raise UserError(f"{path}: not the ReaL labels; {_REAL_SOURCE}") from error


def _check_columns(place: str, columns: Any, count: int) -> None:
    valid = isinstance(columns, list) and all(
        type(column) is int and 0 <= column < count for column in columns
    )
    if not valid:
        raise UserError(
            f"{place}: expected a list of class indices from 0 to {count - 1}, found "
            f"{repr(columns)[:60]}; {_REAL_SOURCE}"
        )


def _without_unlabelled(examples: Examples) -> Examples:
    """Leaves out the images to which ReaL gives no label."""
    kept = np.flatnonzero(examples.labels.any(axis=1))
    if not len(kept):
        raise UserError(f"real.json: no photo has a label; {_REAL_SOURCE}")
    if len(kept) == len(examples):
        return examples
    note = (
        f"{len(examples) - len(kept):,} of {len(examples):,} photos have no label in real.json: "
        "left out"
    )
    return dataclasses.replace(examples.subset(kept), notes=(*examples.notes, note))
