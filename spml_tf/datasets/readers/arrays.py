"""Labels published as NumPy arrays, in either of two encodings.

The layout is that of the code of Cole et al., "Multi-Label Learning from Single Positive Labels"
(CVPR 2021, github.com/elijahcole/single-positive-multi-label), which many later works share: files
formatted_{train,val}_{images,labels,labels_obs}.npy with the photos' names, all labels, and the
observed ones. The same numbers mean different things in different projects, so the encoding must
be named.
"""

from __future__ import annotations

import os
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spml_tf.datasets.readers.examples import Examples
from spml_tf.datasets.readers.photos import relative_folder, require_photos
from spml_tf.datasets.readers.split_names import UnknownSplitError
from spml_tf.labels import NEGATIVE, POSITIVE, UNKNOWN, from_cole
from spml_tf.system.errors import UserError, quoted, reason_of, spoiled
from spml_tf.system.text_files import read_text

ENCODINGS = ("cole", "spml_tf")

_SOURCE = (
    "the folder should hold formatted_{train,val}_images.npy (names), _labels.npy (all labels) "
    "and perhaps _labels_obs.npy (observed labels), as the code of Cole et al. (CVPR 2021) writes "
    "them, and the photos"
)
_MEANINGS = (
    "cole: labels 1 positive, 0 negative; labels_obs 1 positive, 0 unknown, -1 negative; "
    "spml_tf: 1 positive, 0 negative, -1 unknown in both"
)
# Values converted at a time: published matrices are often float64, eight times their int8 size.
_BLOCK = 2**22


def load(
    data_dir: str | os.PathLike[str] | None,
    split: str = "train",
    label_encoding: str | None = None,
    images_dir: str | None = None,
    allow_outside: bool = False,
) -> Examples:
    """Reads one split of published arrays.

    Args:
        data_dir: folder of the files formatted_{split}_images.npy (N strings),
            formatted_{split}_labels.npy [N, L], formatted_{split}_labels_obs.npy [N, L] (may be
            missing), and perhaps classes.txt with L lines. Numbers of any type.
        split: "train" or "val" in the published layout.
        label_encoding: "cole" (labels 1 positive, 0 negative; observed labels 1 positive, 0
            unknown, -1 negative) or "spml_tf" (1 positive, 0 negative, -1 unknown in both).
        images_dir: folder of the photos, relative to data_dir, which it is by default.
        allow_outside: accept photos that lie outside data_dir, see `photos.find_photos`.

    Returns:
        Examples with files, in the order of the arrays; names are the arrays' own. `observed` is
        None without labels_obs.

    Raises:
        UserError: no encoding given, a file or photo missing, arrays that are malformed or do not
            fit together, or observed labels that contradict the labels.
    """
    root = _root(data_dir, split)
    if label_encoding not in ENCODINGS:
        raise UserError(
            f"--label_encoding={label_encoding or ''}: say what the numbers mean, {_MEANINGS}"
        )
    prefix = root / f"formatted_{split}"
    images = Path(f"{prefix}_images.npy")
    given, names = _read_names(images)
    labels, observed = _read_labels(prefix, len(names), label_encoding)
    class_names, notes = _read_classes(root, labels.shape[1])
    if observed is None:
        notes += _unread(prefix)
    folder = _images_folder(root, images_dir)
    base = f" in --images_dir={images_dir}" if images_dir else ""
    paths = require_photos(
        root,
        [os.path.join(folder, name) for name in given],
        "give --images_dir, the folder in data_dir that the names are relative to",
        allow_outside,
        lambda row: f"{images}: row {row}{base}",
    )
    return Examples(names, labels, class_names, paths=paths, observed=observed, notes=notes)


def _root(data_dir: str | os.PathLike[str] | None, split: str) -> Path:
    if data_dir is None or not os.path.isdir(data_dir):
        raise UserError(f"data_dir: {data_dir} is not a folder; {_SOURCE}")
    if not re.fullmatch(r"\w+", split):
        raise UnknownSplitError(f"published arrays have train and val, found {split!r}")
    return Path(data_dir).absolute()


def _images_folder(root: Path, images_dir: str | None) -> str:
    if images_dir and not os.path.isdir(root / images_dir):
        raise UserError(f"--images_dir={images_dir}: no such folder in {root}")
    return relative_folder(root, images_dir) if images_dir else ""


def _read_names(path: Path) -> tuple[list[str], tuple[str, ...]]:
    """The photos' names as they are, and without needless dots and slashes."""
    array = _open(path)
    if array.dtype.kind not in "US" or array.ndim != 1:
        raise UserError(
            f"{path}: expected N names, an array of strings with one axis, found {array.dtype} of "
            f"shape {array.shape}; save np.array(names, dtype=str)"
        )
    if not len(array):
        raise UserError(f"{path}: holds no name")
    rows: dict[str, int] = {}
    try:
        values = array.tolist()
    except (ValueError, SystemError) as error:  # NumPy meets a code that is no character
        raise UserError(f"{path}: damaged ({error}); save it anew") from error
    given = [_text(path, row, value) for row, value in enumerate(values)]
    for row, name in enumerate(given):
        reason = spoiled(name) or ("holds a backslash; use slashes" if "\\" in name else None)
        if reason:
            raise UserError(f"{path}: row {row}: the name {quoted(name)} {reason}")
        first = rows.setdefault(str(PurePosixPath(name)), row)
        if first != row:
            raise UserError(f"{path}: row {row}: {quoted(name)} is in row {first} already")
    return given, tuple(rows)


def _text(path: Path, row: int, value: str | bytes) -> str:
    try:
        text = value.decode("utf-8") if isinstance(value, bytes) else value
        text.encode("utf-8")
    except UnicodeError:
        raise UserError(f"{path}: row {row}: the name {value!r} is not UTF-8; rename it") from None
    return text


def _read_labels(
    prefix: Path, count: int, encoding: str
) -> tuple[NDArray[np.int8], NDArray[np.int8] | None]:
    """All labels and the observed ones of a split, in this package's encoding."""
    labels_path, observed_path = (Path(f"{prefix}_{x}.npy") for x in ("labels", "labels_obs"))
    labels = _read_matrix(labels_path)
    if len(labels) != count:
        raise UserError(f"{labels_path}: {len(labels)} rows do not fit the {count} names")
    _check_classes_of_train(labels_path, labels.shape[1])
    observed = None
    if os.path.lexists(observed_path):
        observed = _read_matrix(observed_path)
        if observed.shape != labels.shape:
            raise UserError(
                f"{observed_path}: the shape {observed.shape} does not fit that of labels, "
                f"{labels.shape}"
            )
    conflict = _conflict(labels, observed, encoding)
    if conflict:
        name, row, column, what = conflict
        other = next(x for x in ENCODINGS if x != encoding)
        fits = _conflict(labels, observed, other) is None
        advice = f"--label_encoding={other} would fit" if fits else "the other does not fit either"
        raise UserError(
            f"{prefix}_{name}.npy: row {row}, column {column}: {what} with "
            f"--label_encoding={encoding}; {advice} ({_MEANINGS})"
        )
    if observed is not None and encoding == "cole":
        observed = from_cole(observed)
    return labels, observed


def _check_classes_of_train(path: Path, columns: int) -> None:
    """Classes are columns, and mean the same in every split."""
    train = path.with_name("formatted_train_labels.npy")
    if path != train and train.exists():
        shape = _open(train).shape
        if len(shape) == 2 and shape[1] != columns:
            raise UserError(f"{path}: {columns} columns, but {shape[1]} in {train.name}")


def _conflict(
    labels: NDArray[np.int8], observed: NDArray[np.int8] | None, encoding: str
) -> tuple[str, int, int, str] | None:
    """The first value that the encoding does not allow: file, row, column, what it would mean."""
    for rows in _blocks(labels.shape):
        truth = labels[rows]
        if encoding == "cole" and (place := _first(truth == -1, rows)):
            return "labels", *place, "-1 is no label"
        if observed is None:
            continue
        seen = from_cole(observed[rows]) if encoding == "cole" else observed[rows]
        if place := _first((seen == POSITIVE) & (truth == NEGATIVE), rows):
            return "labels_obs", *place, "an observed positive is negative in labels"
        if place := _first((seen == NEGATIVE) & (truth == POSITIVE), rows):
            return "labels_obs", *place, "an observed negative is positive in labels"
    return None


def _first(marks: NDArray[np.bool_], rows: slice) -> tuple[int, int] | None:
    """Row and column of the first mark in a block of rows."""
    if not marks.any():
        return None
    row, column = np.unravel_index(int(marks.argmax()), marks.shape)
    return rows.start + int(row), int(column)


def _blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    step = max(1, _BLOCK // max(1, shape[1]))
    return (slice(start, start + step) for start in range(0, shape[0], step))


def _read_matrix(path: Path) -> NDArray[np.int8]:
    """Raw values as int8 [N, L] of {1, 0, -1}, whatever they mean."""
    array = _open(path)
    if array.ndim != 2 or array.dtype.kind not in "biuf":
        raise UserError(
            f"{path}: expected numbers of shape [images, classes], found {array.dtype} of shape "
            f"{array.shape}"
        )
    if 0 in array.shape:
        raise UserError(f"{path}: the shape is {array.shape}: no label")
    matrix = np.empty(array.shape, np.int8)
    for rows in _blocks(array.shape):
        block = np.asarray(array[rows])
        place = _first(~np.isin(block, (POSITIVE, NEGATIVE, UNKNOWN)), rows)
        if place:
            value = array[place]
            raise UserError(
                f"{path}: row {place[0]}, column {place[1]}: expected 1, 0 or -1, found {value}"
            )
        matrix[rows] = block
    return matrix


def _open(path: Path) -> NDArray[Any]:
    """An array that stays in its file; pickled objects, which could run code, are refused."""
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise UserError(f"{path}: the file is missing; {_SOURCE}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, TypeError, OverflowError, SyntaxError, tokenize.TokenError) as error:
        reason = reason_of(error)
        raise UserError(
            f"{path}: not a whole array of numbers or strings ({reason}); save it anew with "
            "np.save, objects as numbers or with dtype=str"
        ) from error


def _unread(prefix: Path) -> tuple[str, ...]:
    """Notes about observed labels under the names that later versions of that code give them."""
    found = sorted(path.name for path in prefix.parent.glob(f"{prefix.name}_*_labels_obs.npy"))
    return tuple(
        f"{name} is not read: rename it to {prefix.name}_labels_obs.npy to use it" for name in found
    )


def _read_classes(root: Path, count: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the classes, and a note where these are made up."""
    path = root / "classes.txt"
    if not os.path.lexists(path):
        note = f"no {path}: the classes are called class_000 and so on, in the columns' order"
        return tuple(f"class_{column:03d}" for column in range(count)), (note,)
    lines: dict[str, int] = {}
    for number, line in enumerate(read_text(path).rstrip().splitlines(), start=1):
        name = line.strip()
        if reason := spoiled(name):
            raise UserError(f"{path}:{number}: the name of a class {reason}; one name per line")
        if lines.setdefault(name, number) != number:
            raise UserError(f"{path}:{number}: {quoted(name)} is in line {lines[name]} already")
    if len(lines) != count:
        raise UserError(f"{path}: {len(lines)} names do not fit {count} columns of labels")
    return tuple(lines), ()
