"""The photos and labels of label files as splits, each photo once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from spml_tf.datasets.label_formats import FORMATS
from spml_tf.datasets.label_formats.collected_labels import LabelFile, Labels
from spml_tf.datasets.label_formats.sources import PhotoFolder
from spml_tf.datasets.readers import copies
from spml_tf.datasets.readers.split_names import SPLITS
from spml_tf.labels import NEGATIVE, UNKNOWN
from spml_tf.system.errors import UserError, quoted

# A label file, the split that its name tells of, and what it holds.
Part = tuple[LabelFile, str, Labels]
# Cells of a table beyond which it takes gigabytes.
_MOST_CELLS = 2_000_000_000


@dataclasses.dataclass(frozen=True)
class ImportedSplit:
    """The photos of a split.

    Attributes:
        names: relative to the photos' folder, unique.
        there: whether each is a file.
        labels: int8 [N, L].
        weights: float32 [N], or None.
        given: the names in the label files.
        left_out: how many more had no file, where those are left out.
    """

    names: tuple[str, ...]
    there: tuple[bool, ...]
    labels: NDArray[np.int8]
    weights: NDArray[np.float32] | None
    given: tuple[str, ...]
    left_out: int = 0


def of_files(
    name: str,
    parts: Sequence[Part],
    class_names: tuple[str, ...],
    photos: PhotoFolder,
    drop_missing: bool,
) -> dict[str, ImportedSplit]:
    """The photos and labels of all files, each photo once in a split.

    Args:
        name: a key of `FORMATS`.
        parts: what the files hold.
        class_names: the L classes to keep.
        photos: where photos are looked for.
        drop_missing: whether rows of photos that are not there are left out.

    Returns:
        The splits by name; what is imported alone is "train".

    Raises:
        UserError: too many labels for a table, a split without a photo, a photo of two names, or
            labels that contradict each other.
    """
    total = sum(len(labels.images) for *_, labels in parts)
    if total * len(class_names) > _MOST_CELLS:
        raise UserError(
            f"{total:,} photos by {len(class_names):,} classes are too many for a table; keep some "
            "with --classes=NAME,NAME"
        )
    found: dict[str, list[ImportedSplit]] = {}
    groups: dict[tuple[Path, str], list[Part]] = {}
    for part in parts:
        folder = part[2].folder or part[0].folder
        groups.setdefault((folder, part[1]), []).append(part)
    for (folder, file_split), group in groups.items():
        names = [image for *_, labels in group for image in labels.images]
        only = file_split if len(groups) > 1 else ""
        located = iter(photos.find(names, folder, FORMATS[name].ending, only))
        for *_, labels in group:
            own = [next(located) for _ in labels.images]
            for split, one in _split_up(own, file_split, labels, class_names):
                found.setdefault(split, []).append(one)
    joined = {
        split: _joined(found[split], class_names, drop_missing)
        for split in SPLITS
        if split in found
    }
    for split, photos_of_split in joined.items():
        if not photos_of_split.names:
            raise UserError(
                f"--drop_missing: none of the {photos_of_split.left_out:,} photos of {split} is in "
                f"{photos.root}; give --photos_dir, or leave it out"
            )
    if len(joined) == 1:
        return {"train": next(iter(joined.values()))}
    return joined


def _split_up(
    found: Sequence[tuple[str, bool]], file_split: str, labels: Labels, class_names: Sequence[str]
) -> Iterator[tuple[str, ImportedSplit]]:
    """A file's photos by their splits, with all classes."""
    matrix = np.full((len(found), len(class_names)), UNKNOWN, np.int8)
    matrix[labels.complete] = NEGATIVE
    there = {name: column for column, name in enumerate(labels.class_names)}
    own = [column for column, name in enumerate(class_names) if name in there]
    matrix[:, own] = labels.labels[:, [there[class_names[column]] for column in own]]
    splits = np.array([split or file_split for split in labels.splits])
    for split in SPLITS:
        rows = np.flatnonzero(splits == split)
        if len(rows):
            names, files = zip(*(found[row] for row in rows.tolist()), strict=True)
            weights = None if labels.weights is None else labels.weights[rows]
            given = tuple(labels.images[row] for row in rows.tolist())
            yield split, ImportedSplit(names, files, matrix[rows], weights, given)


def _joined(
    parts: Sequence[ImportedSplit], class_names: Sequence[str], drop_missing: bool
) -> ImportedSplit:
    """The parts of a split as one, a photo once."""
    names = [name for part in parts for name in part.names]
    there = np.array([x for part in parts for x in part.there], bool)
    labels = np.concatenate([part.labels for part in parts])
    weights = None
    if any(part.weights is not None for part in parts):
        weights = np.concatenate(
            [np.ones(len(x.names), np.float32) if x.weights is None else x.weights for x in parts]
        )
    kept = np.flatnonzero(there) if drop_missing else np.arange(len(names))
    names = [names[row] for row in kept.tolist()]
    given = [name for part in parts for name in part.given]
    given = [given[row] for row in kept.tolist()]
    firsts = copies.first_rows(names)
    _check_one_name_each(names, given, firsts)
    own = np.flatnonzero(firsts == np.arange(len(firsts)))
    labels = _merged(labels[kept], firsts, names, class_names)
    return ImportedSplit(
        tuple(names[row] for row in own.tolist()),
        tuple(there[kept][own].tolist()),
        labels,
        None if weights is None else weights[kept][own],
        tuple(given[row] for row in own.tolist()),
        len(there) - len(kept),
    )


def _check_one_name_each(
    names: Sequence[str], given: Sequence[str], firsts: NDArray[np.int64]
) -> None:
    """Refuses a photo that label files call by two names."""
    for row, first in enumerate(firsts.tolist()):
        if PurePosixPath(given[row]) != PurePosixPath(given[first]):
            raise UserError(
                f"{names[row]}: two names lead to this photo, {quoted(given[first])} and "
                f"{quoted(given[row])}; mend or remove one of them"
            )


def _merged(
    labels: NDArray[np.int8],
    firsts: NDArray[np.int64],
    names: Sequence[str],
    class_names: Sequence[str],
) -> NDArray[np.int8]:
    """The labels of each photo from all its rows; refuses rows that contradict each other."""
    try:
        return copies.merged(labels, firsts)
    except copies.ContradictionError as error:
        raise UserError(
            f"{names[error.first]}: is labelled twice, and {quoted(class_names[error.column])} is "
            "positive in one place and negative in the other; mend one of them"
        ) from None
