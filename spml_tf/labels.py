"""Label matrices: their encoding, the simulated annotation, splits and files.

A label matrix is int8 of shape [N, L] (images by classes): 1 is a positive, 0 a negative and -1 an
unknown label. Other projects write these three states differently (0 for unknown, -1 for negative);
nothing here guesses, other values are refused. This module needs NumPy only.
"""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spml_tf.errors import UserError

POSITIVE = 1
NEGATIVE = 0
UNKNOWN = -1
# Only inside the model, after selection: unknown, and expected to be positive.
EXPECTED = 2

DEFAULT_SEED = 1200
_HEADER = ["image", "class", "label"]


def validate_labels(labels: ArrayLike, name: str = "labels") -> NDArray[np.int8]:
    """Checks that a matrix is in this package's encoding.

    Args:
        labels: array of shape [N, L] holding 1, 0 and -1 only (any numeric or boolean type).
        name: what the message calls the matrix.

    Returns:
        The same labels as int8 [N, L].

    Raises:
        ValueError: another number of dimensions, or another value.
    """
    array = np.asarray(labels)
    if array.ndim != 2:
        raise ValueError(f"{name}: expected shape [images, classes], found {array.shape}")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name}: expected numbers, found the type {array.dtype}")
    known = np.isin(array, (POSITIVE, NEGATIVE, UNKNOWN))
    if not known.all():
        row, column = np.argwhere(~known)[0]
        raise ValueError(
            f"{name}: expected 1 (positive), 0 (negative) or -1 (unknown), "
            f"found {array[row, column]} in row {row}, column {column}"
        )
    return array.astype(np.int8)


def draw_observed(
    labels: ArrayLike,
    seed: int = DEFAULT_SEED,
    num_positives: int = 1,
    num_negatives: int = 0,
) -> NDArray[np.int8]:
    """Simulates an annotator who marks a few classes of every image.

    The random sequence is that of Cole et al., "Multi-Label Learning from Single Positive Labels"
    (CVPR 2021): one generator for the matrix; row by row the positive indices are shuffled and the
    first are kept, then the negative indices are shuffled and the first of these are kept. The
    second shuffle happens even where no negative is kept, since it moves the generator on. With the
    default arguments and the same matrix the result is the published one.

    Args:
        labels: [N, L] of {1, 0, -1}; only its 1s and 0s are drawn from.
        seed: seed of a fresh `numpy.random.RandomState`.
        num_positives: how many positives an image keeps; rows with fewer keep all of them.
        num_negatives: how many negatives an image keeps.

    Returns:
        int8 [N, L]: 1 and 0 where observed, -1 elsewhere.

    Raises:
        ValueError: invalid labels or a negative count.
    """
    matrix = validate_labels(labels)
    if num_positives < 0 or num_negatives < 0:
        raise ValueError("num_positives and num_negatives must be at least 0")
    generator = np.random.RandomState(seed)
    observed = np.full(matrix.shape, UNKNOWN, np.int8)
    for truth, row in zip(matrix, observed, strict=True):
        for value, count in ((POSITIVE, num_positives), (NEGATIVE, num_negatives)):
            candidates = np.flatnonzero(truth == value)
            generator.shuffle(candidates)
            row[candidates[:count]] = value
    return observed


def split_indices(
    n: int, val_fraction: float = 0.2, seed: int = DEFAULT_SEED
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Holds out a part of n images for validation, as Cole et al. (CVPR 2021) do.

    Args:
        n: number of images.
        val_fraction: share held out, in [0, 1); round(val_fraction * n) images.
        seed: seed of a fresh `numpy.random.RandomState`.

    Returns:
        (train, val): two sorted, disjoint int64 arrays that together are 0..n-1.

    Raises:
        ValueError: a negative n or a share outside [0, 1).
    """
    if n < 0:
        raise ValueError(f"n must be at least 0, found {n}")
    if not 0 <= val_fraction < 1:
        raise ValueError(f"val_fraction must be in [0, 1), found {val_fraction}")
    order = np.random.RandomState(seed).permutation(n).astype(np.int64)
    num_train = n - round(val_fraction * n)
    return np.sort(order[:num_train]), np.sort(order[num_train:])


def positives_per_image(labels: ArrayLike) -> float:
    """Mean number of positives over the fully labelled rows: the K of equation 3.

    Args:
        labels: [N, L] of {1, 0, -1}; rows with an unknown label are left out.

    Returns:
        The mean, in [0, L].

    Raises:
        ValueError: invalid labels, or no row that is fully labelled.
    """
    matrix = validate_labels(labels)
    complete = matrix[(matrix != UNKNOWN).all(axis=1)]
    if not len(complete):
        raise ValueError("no image is fully labelled: the mean number of positives is unknown")
    return float((complete == POSITIVE).sum(axis=1).mean())


def write_observed(
    path: str | os.PathLike[str],
    labels: ArrayLike,
    names: Sequence[str],
    class_names: Sequence[str],
) -> None:
    """Writes the observed labels as CSV: a header, then one row per known label, in UTF-8.

    The header is `image,class,label`; label is 1 or 0; unknown labels have no row. The file is
    replaced at once: a reader sees the old file or the complete new one.

    Args:
        path: the file to write.
        labels: [N, L] of {1, 0, -1}.
        names: N unique image names.
        class_names: L unique class names.

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
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_HEADER)
    for row, column in np.argwhere(matrix != UNKNOWN):
        writer.writerow([names[row], class_names[column], matrix[row, column]])
    try:
        _replace_file(Path(path), text.getvalue().encode("utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot write the labels ({error.strerror})") from error


def read_observed(
    path: str | os.PathLike[str], names: Sequence[str], class_names: Sequence[str]
) -> NDArray[np.int8]:
    """Reads what `write_observed` wrote, or a file of the user's own in that format.

    Args:
        path: CSV file with the header `image,class,label` and one row per known label.
        names: N unique image names; images without a row stay unknown.
        class_names: L unique class names.

    Returns:
        int8 [N, L] of {1, 0, -1}.

    Raises:
        UserError: the file is missing or not UTF-8, has another header, or a row names an unknown
            image or class, has another value than 1 or 0, or contradicts an earlier row. The
            message gives file and line.
    """
    rows = {name: row for row, name in enumerate(names)}
    columns = {name: column for column, name in enumerate(class_names)}
    labels = np.full((len(names), len(class_names)), UNKNOWN, np.int8)
    for place, (image, class_name, value) in _csv_rows(Path(path)):
        if image not in rows:
            known = ", ".join(names[:2])
            raise UserError(f"{place}: unknown image {image!r}; names look like {known}")
        if class_name not in columns:
            known = ", ".join(class_names)
            raise UserError(f"{place}: unknown class {class_name!r}; the classes are {known}")
        if value not in ("0", "1"):
            raise UserError(f"{place}: the label must be 1 or 0, found {value!r}")
        cell = rows[image], columns[class_name]
        if labels[cell] not in (UNKNOWN, int(value)):
            raise UserError(
                f"{place}: {class_name!r} of {image!r} is {value} here and {labels[cell]} in an "
                "earlier row; keep one of them"
            )
        labels[cell] = int(value)
    return labels


def _csv_rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yields ("file:line", three fields) for every row below the header, blank lines apart."""
    reader = csv.reader(io.StringIO(_read_text(path), newline=""), strict=True)
    expected = ",".join(_HEADER)
    try:
        if next(reader, None) != _HEADER:
            raise UserError(f"{path}:1: the first line must be {expected}")
        for fields in filter(None, reader):
            place = f"{path}:{reader.line_num}"
            if len(fields) != len(_HEADER):
                raise UserError(f"{place}: expected {expected}, found {len(fields)} fields")
            yield place, fields
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: not valid CSV ({error})") from error


def _read_text(path: Path) -> str:
    """The file's text; a byte order mark, which spreadsheets write, is dropped."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot read the labels ({error.strerror})") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: not UTF-8; save the file in that encoding") from error


def _replace_file(path: Path, content: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files only their owner can read; labels are meant to be shared.
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
