"""NUS-WIDE: Flickr photos with 81 concepts, from the files that its authors publish.

Chua et al., "NUS-WIDE: A Real-World Web Image Database from National University of Singapore"
(CIVR 2009). `ImageList/TrainImagelist.txt` names a photo a line, with backslashes, and line i of
`Groundtruth/TrainTestLabels/Labels_{concept}_Train.txt` is 1 where photo i shows the concept, else
0. The photos are collected from Flickr by the user, and many are gone by now.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spml_tf.datasets.readers.examples import Examples
from spml_tf.datasets.readers.photos import find_photos
from spml_tf.datasets.readers.split_names import check_split
from spml_tf.labels import NEGATIVE, POSITIVE, UNKNOWN
from spml_tf.system.errors import UserError
from spml_tf.system.text_files import read_text, read_words

SPLITS = ("train", "test")
UNLABELLED_RULES = ("keep", "drop")
NUM_CONCEPTS = 81

_PHOTO_FOLDERS = ("Flickr", "images")
_LABEL_FOLDERS = ("Groundtruth/TrainTestLabels", "TrainTestLabels")
_CONCEPT_LISTS = ("ConceptsList/Concepts81.txt", "Concepts81.txt")
# The one mark of the published files that is neither 0 nor 1, in line 78372.
_KNOWN_DEFECT = ("Labels_lake_Train.txt", "-1130179")

_SOURCE = (
    "get ImageList, Groundtruth and ConceptsList from the NUS-WIDE page of the National University "
    "of Singapore, unpack them into one folder, which then holds ImageList/TrainImagelist.txt and "
    "Groundtruth/TrainTestLabels, and put the photos into its sub-folder Flickr"
)


def load(
    data_dir: str | os.PathLike[str] | None = None,
    split: str = "train",
    unlabelled: str = "keep",
    allow_outside: bool = False,
) -> Examples:
    """Reads one split of NUS-WIDE.

    Photos are looked for in the folders Flickr and images, below the sub-folder the list names or
    without it; the place that holds most of them is used. Those that are gone are left out and
    counted in a note.

    Args:
        data_dir: the folder that holds ImageList and Groundtruth.
        split: "train" or "test", the official lists.
        unlabelled: what happens to photos that show none of the concepts, a fifth of the set:
            "keep" (as in Cole et al., CVPR 2021) or "drop". A note gives the mean number of
            positives with and without them: K of equation 3 belongs to the photos trained on.
        allow_outside: accept photos that lie outside the folder, see `photos.find_photos`.

    Returns:
        Examples with files, in the list's order; names are the list's, with slashes, wherever the
        photos lie. Classes are in the order of Concepts81.txt where there is such a file, else
        sorted. int8 labels of {1, 0}; a mark that the published files spoil is -1.

    Raises:
        UserError: files missing or malformed, counts that differ, no photo found.
    """
    check_split(split, SPLITS, "NUS-WIDE has")
    if unlabelled not in UNLABELLED_RULES:
        raise UserError(f"--unlabelled={unlabelled}: expected {' or '.join(UNLABELLED_RULES)}")
    root = _root(data_dir)
    part = split.capitalize()
    list_path = root / "ImageList" / f"{part}Imagelist.txt"
    names, places = _read_list(list_path)
    folder = _label_folder(root)
    concepts, notes = _read_concepts(root, folder, part)
    labels = _read_labels(folder, concepts, part, list_path, len(names))
    notes += _spoiled_marks(labels)
    kept, repeats = _merge_repeats(names, labels)
    notes += repeats
    names, labels = [names[row] for row in kept], labels[kept]
    found, gone = _find(root, names, list_path, [places[row] for row in kept], allow_outside)
    notes += gone
    shown, unlabelled_notes = _treat_unlabelled(labels, found, list_path, unlabelled)
    return Examples(
        tuple(names[row] for row in shown),
        labels[shown],
        concepts,
        paths=tuple(path for row in shown if (path := found[row]) is not None),
        notes=(*notes, *unlabelled_notes),
    )


def _root(data_dir: str | os.PathLike[str] | None) -> Path:
    if data_dir is None:
        raise UserError(f"data_dir: NUS-WIDE needs its folder; {_SOURCE}")
    root = Path(data_dir).absolute()
    if not os.path.isdir(root / "ImageList"):
        raise UserError(f"data_dir: no ImageList in {root}; {_SOURCE}")
    return root


def _label_folder(root: Path) -> Path:
    for name in _LABEL_FOLDERS:
        if os.path.isdir(root / name):
            return root / name
    raise UserError(f"data_dir: no {_LABEL_FOLDERS[0]} in {root}; {_SOURCE}")


def _read_list(path: Path) -> tuple[list[str], list[str]]:
    """The photos' names, with slashes, and the places they are at, such as "list.txt:7"."""
    names, places = [], []
    for number, line in enumerate(read_text(path, _SOURCE).splitlines(), start=1):
        name = line.strip().replace("\\", "/")
        if not name.isprintable():
            raise UserError(f"{path}:{number}: not a photo's name, found {name[:40]!r}; {_SOURCE}")
        if name:
            names.append(name)
            places.append(f"{path}:{number}")
    if not names:
        raise UserError(f"{path}: names no photo; {_SOURCE}")
    return names, places


def _read_concepts(root: Path, folder: Path, part: str) -> tuple[tuple[str, ...], list[str]]:
    """The classes in the order of the list of concepts, or sorted, and notes."""
    try:
        files = os.listdir(folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror})") from error
    matches = [re.fullmatch(rf"Labels_(.+)_{part}\.txt", file) for file in files]
    present = sorted(match[1] for match in matches if match)
    if not present:
        raise UserError(f"{folder}: no file Labels_..._{part}.txt in it; {_SOURCE}")
    concepts = _listed_concepts(root, folder, part, set(present)) or present
    notes = []
    if extra := sorted(set(present) - set(concepts)):
        notes.append(
            f"{len(extra)} label files of concepts that are not in the list of concepts are left "
            f"out, the first is Labels_{extra[0]}_{part}.txt"
        )
    if len(concepts) != NUM_CONCEPTS:
        notes.append(f"{len(concepts)} concepts; NUS-WIDE has {NUM_CONCEPTS}")
    return tuple(concepts), notes


def _listed_concepts(root: Path, folder: Path, part: str, present: set[str]) -> list[str]:
    paths = [root / name for name in _CONCEPT_LISTS if os.path.exists(root / name)]
    if not paths:
        return []
    concepts: list[str] = []
    for place, words in read_words(paths[0], _SOURCE):
        name = " ".join(words)
        if name in concepts:
            raise UserError(f"{place}: {name} is in the list twice; remove this line")
        if name not in present:
            raise UserError(
                f"{place}: no Labels_{name}_{part}.txt in {folder}; add it, or remove this line"
            )
        concepts.append(name)
    if not concepts:
        raise UserError(f"{paths[0]}: names no concept; {_SOURCE}")
    return concepts


def _read_labels(
    folder: Path, concepts: Sequence[str], part: str, list_path: Path, count: int
) -> NDArray[np.int8]:
    """int8 [count, L]."""
    labels = np.empty((count, len(concepts)), np.int8)
    for column, concept in enumerate(concepts):
        path = folder / f"Labels_{concept}_{part}.txt"
        marks = _read_marks(path)
        if len(marks) != count:
            raise UserError(
                f"{path}: {len(marks)} labels, but {list_path} names {count} photos; take both "
                "from the same release"
            )
        labels[:, column] = marks
    return labels


def _read_marks(path: Path) -> NDArray[np.int8]:
    """int8 [N], a file's labels."""
    words = read_text(path, _SOURCE).split()
    joined = "".join(words)
    if len(joined) == len(words) and not joined.strip("01"):
        return np.frombuffer(joined.encode("ascii"), np.int8) - np.int8(ord("0"))
    return np.array([_mark(path, place, " ".join(x)) for place, x in read_words(path)], np.int8)


def _mark(path: Path, place: str, text: str) -> int:
    if (path.name, text) == _KNOWN_DEFECT:
        return UNKNOWN
    if text not in ("0", "1"):
        raise UserError(f"{place}: expected 0 or 1, found {text[:40]!r}; {_SOURCE}")
    return POSITIVE if text == "1" else NEGATIVE


def _spoiled_marks(labels: NDArray[np.int8]) -> list[str]:
    if not (spoiled := int((labels == UNKNOWN).sum())):
        return []
    name, text = _KNOWN_DEFECT
    return [f"{name}: {text}, as published, is neither 0 nor 1: unknown labels: {spoiled}"]


def _merge_repeats(
    names: Sequence[str], labels: NDArray[np.int8]
) -> tuple[NDArray[np.int64], list[str]]:
    """Rows of the photos' first mentions, whose labels become unknown where others differ."""
    firsts: dict[str, int] = {}
    first = np.array([firsts.setdefault(name, row) for row, name in enumerate(names)], np.int64)
    repeats = np.flatnonzero(first != np.arange(len(names)))
    if not len(repeats):
        return first, []
    for row in repeats:
        labels[first[row], labels[first[row]] != labels[row]] = UNKNOWN
    return np.unique(first), [
        f"photos listed again: {len(repeats)}, the first is {names[repeats[0]]}: kept once, labels "
        "on which the lines differ are unknown"
    ]


def _find(
    root: Path, names: Sequence[str], list_path: Path, places: Sequence[str], allow_outside: bool
) -> tuple[list[str | None], list[str]]:
    """The photos' paths, from the place that holds most of them, and notes on those left out."""
    best: list[str | None] = [None] * len(names)
    tried = []
    bare = [name.rsplit("/", 1)[-1] for name in names]
    for folder, relative in itertools.product(_PHOTO_FOLDERS, (names, bare)):
        looked = [f"{folder}/{name}" for name in relative]
        tried.append(looked[0])
        if os.path.isdir(root / folder) and None in best:
            paths = find_photos(root, looked, allow_outside, places.__getitem__)
            best = min(best, paths, key=lambda found: found.count(None))
    missing = best.count(None)
    if missing == len(names):
        raise UserError(
            f"{list_path}: none of its {len(names)} photos is in {root}; looked for "
            f"{', '.join(dict.fromkeys(tried))} and so on; {_SOURCE}"
        )
    notes = []
    if missing:
        notes.append(
            f"{missing:,} of {len(names):,} photos of {list_path.name} are missing and left out, "
            f"the first is {names[best.index(None)]}; train and compare on the same set"
        )
    return best, notes + _drop_shared(names, best)


def _drop_shared(names: Sequence[str], paths: list[str | None]) -> list[str]:
    """Removes the paths that stand for several names: whose labels are theirs is not known."""
    rows: dict[str, list[int]] = {}
    for row, path in enumerate(paths):
        if path is not None:
            rows.setdefault(path, []).append(row)
    shared = [row for group in rows.values() if len(group) > 1 for row in group]
    for row in shared:
        paths[row] = None
    if not shared:
        return []
    return [
        f"{len(shared)} listed photos have the file name of another and no sub-folder to tell them "
        f"apart: left out, the first is {names[shared[0]]}"
    ]


def _treat_unlabelled(
    labels: NDArray[np.int8], paths: Sequence[str | None], list_path: Path, rule: str
) -> tuple[NDArray[np.int64], list[str]]:
    """Rows of the photos that are kept, and a note on those without a positive label."""
    there = np.flatnonzero([path is not None for path in paths])
    positives = (labels[there] == POSITIVE).sum(axis=1)
    total, labelled = int(positives.sum()), int((positives > 0).sum())
    if not total:
        raise UserError(f"{list_path}: no photo of this list has a positive label; {_SOURCE}")
    if labelled == len(there):
        return there, []
    means = total / len(there), total / labelled
    if rule == "drop":
        there = there[positives > 0]
        treated = f"left out ({means[0]:.2f} positives per photo with them, {means[1]:.2f} without)"
    else:
        treated = (
            f"kept ({means[0]:.2f} positives per photo with them, {means[1]:.2f} without: K of "
            "equation 3 must be the mean over the photos trained on); --unlabelled=drop leaves "
            "them out"
        )
    bare = len(positives) - labelled
    return there, [
        f"{bare:,} of {len(positives):,} photos of {list_path.name} show none of the concepts: "
        f"{treated}"
    ]
