"""CUB-200-2011: photos of birds with 312 binary attributes, from the official archive.

Wah et al., "The Caltech-UCSD Birds-200-2011 Dataset" (Caltech, CNS-TR-2011-001). Each line of
`attributes/image_attribute_labels.txt` is one worker's answer about one attribute of one image:
`<image_id> <attribute_id> <is_present> <certainty_id> <time>`. Some lines of images 2275 and 9364
hold a further 0 and a blank before the time; the first four columns are right there too.
"""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spml_tf.datasets.readers.examples import Examples
from spml_tf.datasets.readers.photos import require_photos
from spml_tf.datasets.readers.split_names import check_split
from spml_tf.labels import UNKNOWN
from spml_tf.system.errors import UserError
from spml_tf.system.text_files import read_text, read_words

SPLITS = ("train", "test")
# certainties.txt, from 1.
CERTAINTIES = ("not visible", "guessing", "probably", "definitely")

_COLUMNS = 5
# Numbers of more digits are refused: they would not fit into int32.
_MAX_DIGITS = 9
_ROW = "an image id, an attribute id, 0 or 1, a certainty of 1 to 4 and a time"
_SOURCE = (
    "get CUB_200_2011.tgz from the Caltech-UCSD Birds-200-2011 page, unpack it, and name its "
    "folder CUB_200_2011, which holds images, images.txt, train_test_split.txt and "
    "attributes/image_attribute_labels.txt; attributes.txt lies in attributes or beside the folder"
)


def load(
    data_dir: str | os.PathLike[str] | None = None,
    split: str = "train",
    min_certainty: int = 1,
    allow_outside: bool = False,
) -> Examples:
    """Reads the attributes of one split of CUB-200-2011.

    Args:
        data_dir: the folder CUB_200_2011 or the folder above it.
        split: "train" or "test", as in train_test_split.txt.
        min_certainty: answers less certain than this are unknown labels: 1 not visible, 2 guessing,
            3 probably, 4 definitely. 1 takes every answer as it is, as Cole et al. (CVPR 2021) do.
        allow_outside: accept photos that lie outside the folder, see `photos.find_photos`.

    Returns:
        Examples with files, in the order of images.txt; names are "images/...", classes the
        attributes' names, in the order of attributes.txt. int8 labels are is_present, or -1.

    Raises:
        UserError: file or photo missing, a malformed line, or an answer that is missing or given
            twice.
    """
    check_split(split, SPLITS, "CUB-200-2011 has")
    if min_certainty not in range(1, len(CERTAINTIES) + 1):
        raise UserError(f"--min_certainty={min_certainty}: must be 1, 2, 3 or 4")
    root = _root(data_dir)
    ids, names = _read_ids(root / "images.txt", "image")
    chosen = _read_split(root / "train_test_split.txt", ids, split)
    attribute_ids, attributes = _read_ids(_attributes_path(root), "attribute")
    path = root / "attributes" / "image_attribute_labels.txt"
    rows, notes = _read_rows(path)
    present, certainty = _arrange(path, rows, ids, attribute_ids)
    labels = np.where(certainty >= min_certainty, present, np.int8(UNKNOWN))[chosen]
    if unknown := int((labels == UNKNOWN).sum()):
        notes.append(
            f"{unknown:,} of {labels.size:,} answers of the {split} images are less certain than "
            f"{CERTAINTIES[min_certainty - 1]!r}: unknown labels"
        )
    names = [f"images/{names[row]}" for row in chosen]
    paths = require_photos(root, names, _SOURCE, allow_outside)
    return Examples(tuple(names), labels, tuple(attributes), paths=paths, notes=tuple(notes))


def _root(data_dir: str | os.PathLike[str] | None) -> Path:
    if data_dir is None:
        raise UserError(f"data_dir: CUB-200-2011 needs its folder; {_SOURCE}")
    given = Path(data_dir).absolute()
    for root in (given, given / "CUB_200_2011"):
        if os.path.exists(root / "images.txt"):
            return root
    raise UserError(f"data_dir: no images.txt in {given} or in its CUB_200_2011; {_SOURCE}")


def _attributes_path(root: Path) -> Path:
    """attributes.txt: in attributes after the README, beside CUB_200_2011 in the archive."""
    places = (root / "attributes", root, root.parent)
    for folder in places:
        if os.path.exists(folder / "attributes.txt"):
            return folder / "attributes.txt"
    looked = ", ".join(map(str, places))
    raise UserError(f"data_dir: no attributes.txt in {looked}; {_SOURCE}")


def _read_ids(path: Path, kind: str) -> tuple[NDArray[np.int64], list[str]]:
    """Reads lines `<id> <name>`; no id and no name may come twice."""
    names: dict[int, str] = {}
    known: set[str] = set()
    for place, words in read_words(path, _SOURCE):
        number, name = _number(words[0]), " ".join(words[1:])
        if number is None or not name or not name.isprintable():
            raise UserError(f"{place}: expected an {kind} id and a name, found {_quoted(words)}")
        if number in names or name in known:
            raise UserError(f"{place}: {_quoted(words)}: this id or name is there twice")
        names[number] = name
        known.add(name)
    if not names:
        raise UserError(f"{path}: names no {kind}; {_SOURCE}")
    return np.array(list(names), np.int64), list(names.values())


def _read_split(path: Path, ids: NDArray[np.int64], split: str) -> NDArray[np.int64]:
    """Positions of the split's images."""
    marks: dict[int, str] = {}
    known = set(ids.tolist())
    for place, words in read_words(path, _SOURCE):
        number = _number(words[0])
        if len(words) != 2 or number is None or words[1] not in ("0", "1"):
            raise UserError(f"{place}: expected an image id and 1 or 0, found {_quoted(words)}")
        if number not in known:
            raise UserError(f"{place}: image {number} is not in images.txt")
        if number in marks:
            raise UserError(f"{place}: image {number} is there twice; remove one of the two lines")
        marks[number] = words[1]
    for number in ids.tolist():
        if number not in marks:
            raise UserError(f"{path}: no line for image {number}, which is in images.txt")
    wanted = "1" if split == "train" else "0"
    chosen = [row for row, number in enumerate(ids.tolist()) if marks[number] == wanted]
    if not chosen:
        raise UserError(f"{path}: no image of the {split} split; {_SOURCE}")
    return np.array(chosen, np.int64)


def _number(word: str) -> int | None:
    """The number that a word of digits is, or None."""
    if not (word.isascii() and word.isdigit() and len(word) <= _MAX_DIGITS):
        return None
    return int(word)


def _quoted(words: Sequence[str]) -> str:
    return repr(" ".join(words)[:60])


def _read_rows(path: Path) -> tuple[NDArray[np.int32], list[str]]:
    """int32 [M, 4], the first four columns, and a note on rows that have not just five."""
    content = read_text(path, _SOURCE)
    if not content.strip():
        raise UserError(f"{path}: holds no answer; {_SOURCE}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            rows = np.loadtxt(path, np.int32, comments=None, usecols=range(4), ndmin=2)
    except (ValueError, Warning):
        rows = _read_rows_slowly(path)
    irregular = np.flatnonzero(_words_per_line(content) != _COLUMNS)
    if not len(irregular):
        return rows, []
    return rows, [
        f"{path.name}: rows with more or fewer than {_COLUMNS} columns: {len(irregular):,}, the "
        f"first is for image {rows[irregular[0], 0]} and attribute {rows[irregular[0], 1]}: their "
        "first four columns are used"
    ]


def _read_rows_slowly(path: Path) -> NDArray[np.int32]:
    """As numpy.loadtxt, with the place of what cannot be read."""
    rows = []
    for place, words in read_words(path, _SOURCE):
        numbers = [_number(word) for word in words[:4]]
        if len(numbers) < 4 or None in numbers:
            raise UserError(f"{place}: expected {_ROW}, found {_quoted(words)}; {_SOURCE}")
        rows.append(numbers)
    return np.array(rows, np.int32)


def _words_per_line(content: str) -> NDArray[np.int64]:
    """How many words every line that is not blank has."""
    characters = np.frombuffer((content.rstrip() + "\n").encode("utf-8"), np.uint8)
    blank = characters <= ord(" ")
    starts = ~blank
    starts[1:] &= blank[:-1]
    ends = np.searchsorted(np.flatnonzero(starts), np.flatnonzero(characters == ord("\n")))
    counts = np.diff(ends, prepend=0)
    return counts[counts > 0]


def _arrange(
    path: Path, rows: NDArray[np.int32], ids: NDArray[np.int64], attribute_ids: NDArray[np.int64]
) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """is_present and certainty_id, int8 [images, attributes] in the order of the ids."""
    image, attribute = _positions(rows[:, 0], ids), _positions(rows[:, 1], attribute_ids)
    for wrong, what in (
        (image < 0, "an image id that is in images.txt"),
        (attribute < 0, "an attribute id that is in attributes.txt"),
        ((rows[:, 2] < 0) | (rows[:, 2] > 1), "0 or 1 in column 3"),
        ((rows[:, 3] < 1) | (rows[:, 3] > len(CERTAINTIES)), "1, 2, 3 or 4 in column 4"),
    ):
        if wrong.any():
            place, words = _line(path, int(wrong.argmax()))
            raise UserError(f"{place}: expected {what}, found {_quoted(words)}")
    pairs = image * len(attribute_ids) + attribute
    _check_pairs(path, pairs, ids, attribute_ids)
    answers = np.empty((2, len(ids) * len(attribute_ids)), np.int8)
    answers[:, pairs] = rows[:, 2:].T
    present, certainty = answers.reshape(2, len(ids), len(attribute_ids))
    return present, certainty


def _positions(numbers: NDArray[np.int32], ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each number is among the ids, -1 where it is not."""
    order = np.argsort(ids)
    slots = np.minimum(np.searchsorted(ids[order], numbers), len(ids) - 1)
    return np.where(ids[order[slots]] == numbers, order[slots], -1)


def _check_pairs(
    path: Path, pairs: NDArray[np.int64], ids: NDArray[np.int64], attribute_ids: NDArray[np.int64]
) -> None:
    """Refuses (image, attribute) pairs with two answers or none."""
    counts = np.bincount(pairs, minlength=len(ids) * len(attribute_ids))
    if (counts > 1).any():
        repeated = pairs == counts.argmax()
        place, words = _line(path, int(np.flatnonzero(repeated)[1]))
        raise UserError(f"{place}: a second answer for this image and attribute: {_quoted(words)}")
    if (missing := np.flatnonzero(counts == 0)).size:
        row, column = divmod(int(missing[0]), len(attribute_ids))
        raise UserError(
            f"{path}: no answer for image {ids[row]} and attribute {attribute_ids[column]} "
            f"({len(missing)} of {len(counts)} are missing); {_SOURCE}"
        )


def _line(path: Path, row: int) -> tuple[str, list[str]]:
    """Place and words of a row: lines are counted with blank ones, rows without."""
    return next(itertools.islice(read_words(path, _SOURCE), row, None))
