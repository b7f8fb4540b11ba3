"""Classes of ImageNet's flat validation images, from any of the three lists in circulation."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from spml_tf.system.errors import UserError, quoted
from spml_tf.system.text_files import read_csv, read_words

# Kaggle's, that of TensorFlow's model garden, and that of the challenge's development kit.
SOLUTION = "LOC_val_solution.csv"
SYNSETS = "imagenet_2012_validation_synset_labels.txt"
GROUND_TRUTH = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"
META = "ILSVRC2012_devkit_t12/data/meta.mat"

# A class and a box.
_WORDS_PER_BOX = 5

_Row = tuple[str, str, str]


def read_classes(root: Path, known: Collection[str], source: str) -> tuple[dict[str, str], Path]:
    """Reads the first of the lists that is there.

    Args:
        root: the folder that holds the list.
        known: the classes there may be; empty if any may.
        source: where to get the list, for the message.

    Returns:
        The class of every photo by its file name without suffix, sorted by this name; and the list.

    Raises:
        UserError: no list, or a malformed line, an unknown class or a photo that comes twice.
    """
    readers = {SOLUTION: _read_solution, SYNSETS: _read_synsets, GROUND_TRUTH: _read_ground_truth}
    present = [name for name in readers if os.path.exists(root / name)]
    if not present:
        raise UserError(f"data_dir: no {SOLUTION}, {SYNSETS} or {GROUND_TRUTH} in {root}; {source}")
    allowed = set(known)
    classes: dict[str, str] = {}
    for place, stem, name in readers[present[0]](root / present[0]):
        if allowed and name not in allowed:
            raise UserError(f"{place}: the class {quoted(name)} is not a folder of train; {source}")
        if stem in classes:
            raise UserError(f"{place}: {stem} is there twice; remove one of the two lines")
        classes[stem] = name
    if not classes:
        raise UserError(f"{root / present[0]}: names no photo; {source}")
    return dict(sorted(classes.items())), root / present[0]


def numbered(number: int) -> str:
    """File name without suffix of a validation image, counted from 1."""
    return f"ILSVRC2012_val_{number:08d}"


def _read_solution(path: Path) -> Iterator[_Row]:
    """Rows `ImageId,PredictionString`: a class and four coordinates for every box, one class."""
    rows = read_csv(path)
    place, header = next(rows, (str(path), []))
    if header != ["ImageId", "PredictionString"]:
        found = quoted(",".join(header))
        raise UserError(f"{place}: expected the header ImageId,PredictionString, found {found}")
    for place, fields in rows:
        words = fields[1].split() if len(fields) == 2 else []
        stem, names = fields[0], set(words[::_WORDS_PER_BOX])
        if len(words) % _WORDS_PER_BOX or len(names) != 1 or not _is_stem(stem):
            raise UserError(
                f"{place}: expected a photo and boxes, each a class and four numbers, of one "
                f"class, found {quoted(','.join(fields))}"
            )
        yield place, stem, names.pop()


def _is_stem(name: str) -> bool:
    """Whether this is a file name and no path."""
    return bool(name) and name.isprintable() and not set(name) & set("/\\")


def _read_synsets(path: Path) -> Iterator[_Row]:
    """A class per line, for the photos in the order of their numbers."""
    for number, (place, words) in enumerate(read_words(path), start=1):
        if len(words) != 1:
            raise UserError(f"{place}: expected one class, found {quoted(' '.join(words))}")
        yield place, numbered(number), words[0]


def _read_ground_truth(path: Path) -> Iterator[_Row]:
    """As `_read_synsets`, but with the ids that meta.mat gives the classes."""
    names = _read_meta(path.with_name(Path(META).name))
    for place, stem, word in _read_synsets(path):
        if word not in names:
            raise UserError(f"{place}: {quoted(word)} is no ILSVRC2012_ID of {Path(META).name}")
        yield place, stem, names[word]


def _read_meta(path: Path) -> dict[str, str]:
    """WNID by ILSVRC2012_ID, written as in the list, from Matlab's array `synsets`."""
    from scipy.io import loadmat

    try:
        with open(path, "rb") as file:
            synsets = np.atleast_1d(loadmat(file, squeeze_me=True)["synsets"])
        pairs = zip(synsets["ILSVRC2012_ID"], synsets["WNID"], strict=True)
        return {str(int(number)): str(name) for number, name in pairs}
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # SciPy raises nearly anything for a damaged file.
        raise UserError(
            f"{path}: not the development kit's meta.mat ({type(error).__name__}); unpack "
            "ILSVRC2012_devkit_t12.tar.gz again"
        ) from error
