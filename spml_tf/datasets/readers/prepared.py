"""What `python -m spml_tf.data prepare` wrote: an index per split beside the images.

`{split}.npz` holds names, labels, class_names and, where there are any, observed labels, boxes and
weights; and where the images are: `files` (relative to the folder), `file_numbers` (the file of
each image) and, for TFRecord files, `offsets` (where its record begins). No array holds Python
objects.
"""

from __future__ import annotations

import dataclasses
import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spml_tf.datasets.readers.examples import Examples
from spml_tf.datasets.readers.photos import require_photos
from spml_tf.datasets.readers.split_names import SPLITS, SplitNames, check_split
from spml_tf.system.errors import UserError
from spml_tf.system.files import replaced

_SOURCE = (
    "name a folder that python -m spml_tf.data prepare --format=jpeg or tfrecord wrote; prepare it "
    "again if files got lost"
)
# Name -> kinds of number or text, dimensions. The first are in every index.
_REQUIRED = {
    "names": ("U", 1),
    "class_names": ("U", 1),
    "labels": ("i", 2),
    "files": ("U", 1),
    "file_numbers": ("i", 1),
}
_OPTIONAL = {
    "observed": ("i", 2),
    "offsets": ("i", 1),
    "box_counts": ("i", 1),
    "boxes": ("f", 2),
    "areas": ("f", 1),
    "weights": ("f", 1),
}
# What numpy raises for files that are cut, damaged, or of another kind.
_DAMAGE = (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError,
           MemoryError)  # fmt: skip
# Bytes of a TFRecord around its data: the length (8), its checksum (4), and the data's (4).
RECORD_FRAME = 16


@dataclasses.dataclass(frozen=True)
class ImageForm:
    """How the images of a data set are written.

    Attributes:
        format: "labels" (no images), "jpeg" (a file per image) or "tfrecord".
        short_side: the shorter side after resizing in pixels; 0: the files' own bytes.
        jpeg_quality: 1 to 100, of images that are encoded anew.
    """

    format: str = "labels"
    short_side: int = 0
    jpeg_quality: int = 92


def write_index(
    path: Path,
    examples: Examples,
    files: Sequence[str],
    file_numbers: ArrayLike,
    offsets: ArrayLike | None = None,
    observed: NDArray[np.int8] | None = None,
) -> None:
    """Writes the index of a split in one step.

    Args:
        path: the file to write, {split}.npz.
        examples: N images; their own paths, offsets and observed labels are not used.
        files: F file names relative to the folder of `path`, with slashes.
        file_numbers: [N], each image's position in files.
        offsets: [N], where each image's record begins, or None where files are images.
        observed: int8 [N, L] of {1, 0, -1}, or None.
    """
    arrays: dict[str, Any] = {
        "names": np.array(examples.names, np.str_),
        "class_names": np.array(examples.class_names, np.str_),
        "labels": examples.labels,
        "files": np.array(files, np.str_),
        "file_numbers": np.asarray(file_numbers, np.int64),
    }
    if offsets is not None:
        arrays["offsets"] = np.asarray(offsets, np.int64)
    if observed is not None:
        arrays["observed"] = observed
    if examples.boxes is not None and examples.areas is not None:
        arrays["box_counts"] = np.array([len(rows) for rows in examples.boxes], np.int64)
        arrays["boxes"] = np.concatenate([np.zeros((0, 5), np.float32), *examples.boxes])
        arrays["areas"] = np.concatenate([np.zeros(0, np.float32), *examples.areas])
    if examples.weights is not None:
        arrays["weights"] = examples.weights
    with replaced(path) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)


def load(
    data_dir: str | os.PathLike[str], split: str = "train", allow_outside: bool = False
) -> Examples:
    """Reads one prepared split.

    Args:
        data_dir: the --output_dir of the command.
        split: "train", "val" or "test".
        allow_outside: accept images that lie outside the folder, see `photos.find_photos`.

    Returns:
        Examples with the names, labels, boxes, weights and, in "train", observed labels of the data
        set that was prepared; the images are files, or records of TFRecord files.

    Raises:
        UserError: the split is not there, its index is damaged or foreign, or images are missing.
    """
    check_split(split, SPLITS, "prepared data have")
    root = Path(data_dir).absolute()
    path = root / f"{split}.npz"
    arrays = _read(path)
    _check(path, arrays)
    found = require_photos(root, arrays["files"].tolist(), _SOURCE, allow_outside)
    numbers = arrays["file_numbers"].tolist()
    if "offsets" in arrays:
        _check_offsets(path, found, numbers, arrays["offsets"])
    try:
        return Examples(
            tuple(arrays["names"].tolist()),
            arrays["labels"],
            tuple(arrays["class_names"].tolist()),
            paths=tuple(found[number] for number in numbers),
            offsets=arrays.get("offsets"),
            boxes=_rows(arrays, "boxes"),
            areas=_rows(arrays, "areas"),
            observed=arrays.get("observed"),
            weights=arrays.get("weights"),
        )
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error}); {_SOURCE}") from error


def splits(data_dir: str | os.PathLike[str]) -> SplitNames:
    """The splits that were prepared: "val" and "test" are "none" where there is no index.

    Raises:
        UserError: there is no training split.
    """
    root = Path(data_dir).absolute()
    train, val, test = (split if (root / f"{split}.npz").is_file() else "none" for split in SPLITS)
    if train == "none":
        raise UserError(f"data_dir: {root / 'train.npz'} is missing; {_SOURCE}")
    return SplitNames(train, val, test)


def _read(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an index that it is known to hold."""
    try:
        with open(path, "rb") as file:
            saved = np.load(file, allow_pickle=False)
            if not isinstance(saved, np.lib.npyio.NpzFile):
                raise ValueError("an array, not an archive of arrays")
            known = [name for name in {**_REQUIRED, **_OPTIONAL} if name in saved.files]
            return {name: saved[name] for name in known}
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); {_SOURCE}") from error
    except _DAMAGE as error:
        raise UserError(f"{path}: no index of prepared data, or damaged; {_SOURCE}") from error


def _check(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Refuses arrays that are missing, of another kind, or do not fit one another."""
    for name in _REQUIRED:
        if name not in arrays:
            raise UserError(f"{path}: no index of prepared data ({name} is missing); {_SOURCE}")
    for name, array in arrays.items():
        kind, dimensions = {**_REQUIRED, **_OPTIONAL}[name]
        if array.dtype.kind != kind or array.ndim != dimensions:
            raise UserError(
                f"{path}: damaged ({name} is of type {array.dtype} and shape {array.shape}); "
                f"{_SOURCE}"
            )
    numbers, count = arrays["file_numbers"], len(arrays["files"])
    weights = arrays.get("weights", np.ones(1))
    for part, fits in (
        ("file_numbers", not numbers.size or 0 <= numbers.min() <= numbers.max() < count),
        ("boxes", _boxes_fit(arrays)),
        ("weights", np.isfinite(weights).all() and (weights >= 0).all()),
    ):
        if not fits:
            raise UserError(f"{path}: damaged ({part} do not fit the other arrays); {_SOURCE}")


def _boxes_fit(arrays: dict[str, NDArray[Any]]) -> bool:
    parts = [name for name in ("box_counts", "boxes", "areas") if name in arrays]
    if not parts:
        return True
    if len(parts) < 3:
        return False
    counts, boxes, areas = (arrays[name] for name in parts)
    classes, corners = boxes[:, :1], boxes[:, 1:]
    return bool(
        boxes.shape == (len(areas), 5)
        and (counts >= 0).all()
        and counts.sum() == len(boxes)
        and ((classes >= 0) & (classes < len(arrays["class_names"]))).all()
        and ((corners >= 0) & (corners <= 1)).all()
    )


def _check_offsets(
    path: Path, files: Sequence[str], numbers: Sequence[int], offsets: NDArray[np.int64]
) -> None:
    sizes = np.array([os.path.getsize(file) for file in files], np.int64)
    if len(offsets) != len(numbers):
        raise UserError(f"{path}: damaged ({len(offsets)} offsets, {len(numbers)} images)")
    room = sizes[np.asarray(numbers, np.int64)] - RECORD_FRAME
    wrong = np.flatnonzero((offsets < 0) | (offsets > room))
    if len(wrong):
        raise UserError(f"{files[numbers[wrong[0]]]}: shorter than its index says; {_SOURCE}")


def _rows(arrays: dict[str, NDArray[Any]], name: str) -> tuple[NDArray[np.float32], ...] | None:
    """Per image its part of a flat array, or None."""
    if name not in arrays:
        return None
    ends = np.cumsum(arrays["box_counts"])
    flat = arrays[name].astype(np.float32, copy=False)
    return tuple(np.split(flat, ends[:-1])) if len(ends) else ()
