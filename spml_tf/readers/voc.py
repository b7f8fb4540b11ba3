"""Pascal VOC 2012 and 2007, image-level labels from ImageSets/Main and boxes from Annotations.

The layout is the official archive's. A mark in `ImageSets/Main/{class}_{split}.txt` is " 1" (the
class is there), "-1" (it is not) or " 0" (all its objects there are marked as difficult). What " 0"
means for the labels is a choice, see `load`.
"""

from __future__ import annotations

import math
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spml_tf.errors import UserError
from spml_tf.files import read_words
from spml_tf.labels import NEGATIVE, POSITIVE, UNKNOWN
from spml_tf.readers.examples import Examples
from spml_tf.readers.photos import require_photos

# VOC's own order, which is alphabetical.
CLASS_NAMES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
SPLITS = {2012: ("train", "val", "trainval"), 2007: ("train", "val", "trainval", "test")}
DIFFICULT_RULES = {"positive": POSITIVE, "negative": NEGATIVE, "unknown": UNKNOWN}

_SOURCE = (
    "get the Pascal VOC archives (2012: VOCtrainval_11-May-2012.tar; 2007: "
    "VOCtrainval_06-Nov-2007.tar, VOCtest_06-Nov-2007.tar), unpack them into one place, and name "
    "their folder VOCdevkit or VOCdevkit/VOC2012, which holds ImageSets/Main and JPEGImages"
)


def load(
    data_dir: str | os.PathLike[str] | None = None,
    split: str = "train",
    difficult: str = "negative",
    allow_outside: bool = False,
    year: int = 2012,
) -> Examples:
    """Reads one split of Pascal VOC.

    Args:
        data_dir: the folder VOC2012 (it holds ImageSets) or the folder VOCdevkit above it.
        split: "train", "val" or "trainval"; of 2007 also "test".
        difficult: how the mark " 0" counts: "negative" (as in Cole et al., CVPR 2021, whose label
            is 1 for " 1" only), "positive" or "unknown".
        allow_outside: accept photos that lie outside the folder, see `photos.find_photos`.
        year: 2012 or 2007.

    Returns:
        Examples with files, sorted by name; names are "JPEGImages/....jpg". Images without a
        positive label are left out. Boxes where there is a folder Annotations, else None; boxes of
        difficult objects are kept with difficult="positive" only, and an image without an
        annotation file has none.

    Raises:
        UserError: folder, list or photo missing, or a malformed line or annotation.
        ValueError: an unknown rule for difficult objects.
    """
    if difficult not in DIFFICULT_RULES:
        known = ", ".join(DIFFICULT_RULES)
        raise ValueError(f"difficult: expected one of {known}, found {difficult!r}")
    if split not in SPLITS[year]:
        known = ", ".join(SPLITS[year])
        raise UserError(f"split: Pascal VOC {year} has {known}, found {split!r}")
    root = _root(data_dir, year)
    stems = _read_list(root, split)
    labels = _read_labels(root, split, stems, DIFFICULT_RULES[difficult])
    kept = np.flatnonzero((labels == POSITIVE).any(axis=1))
    if not len(kept):
        raise UserError(f"{_list_path(root, split)}: no photo of this list has a positive label")
    stems = [stems[row] for row in kept]
    names = tuple(f"JPEGImages/{stem}.jpg" for stem in stems)
    paths = require_photos(root, names, _SOURCE, allow_outside)
    boxes, notes = _read_all_boxes(root, stems, keep_difficult=difficult == "positive")
    if len(kept) < len(labels):
        notes += (
            f"{_list_path(root, split)}: {len(labels) - len(kept)} of {len(labels)} photos have no "
            "positive label and are left out",
        )
    return Examples(names, labels[kept], CLASS_NAMES, paths=paths, boxes=boxes, notes=notes)


def _root(data_dir: str | os.PathLike[str] | None, year: int) -> Path:
    if data_dir is None:
        raise UserError(f"data_dir: Pascal VOC needs its folder; {_SOURCE}")
    given = Path(data_dir).absolute()
    for root in (given, given / f"VOC{year}"):
        if (root / "ImageSets" / "Main").is_dir():
            return root
    raise UserError(f"data_dir: no ImageSets/Main in {given} or in its VOC{year}; {_SOURCE}")


def _list_path(root: Path, name: str) -> Path:
    return root / "ImageSets" / "Main" / f"{name}.txt"


def _read_list(root: Path, split: str) -> list[str]:
    """The file stems of a split, sorted."""
    stems: set[str] = set()
    for place, words in read_words(_list_path(root, split), _SOURCE):
        if len(words) != 1:
            raise UserError(f"{place}: expected one image name, found {' '.join(words)!r}")
        if words[0] in stems:
            raise UserError(f"{place}: {words[0]} is in the list twice; remove this line")
        stems.add(words[0])
    return sorted(stems)


def _read_labels(root: Path, split: str, stems: Sequence[str], difficult: int) -> NDArray[np.int8]:
    """int8 [N, 20] of the images named in stems."""
    rows = {stem: row for row, stem in enumerate(stems)}
    values = {"1": POSITIVE, "-1": NEGATIVE, "0": difficult}
    labels = np.empty((len(stems), len(CLASS_NAMES)), np.int8)
    for column, class_name in enumerate(CLASS_NAMES):
        path = _list_path(root, f"{class_name}_{split}")
        missing = set(stems)
        for place, words in read_words(path, _SOURCE):
            stem, mark = _stem_and_mark(place, words, values)
            if stem not in rows:
                raise UserError(f"{place}: {stem} is not in {split}.txt; remove it or add it there")
            if stem not in missing:
                raise UserError(f"{place}: {stem} has a second mark; remove one of the two lines")
            missing.remove(stem)
            labels[rows[stem], column] = values[mark]
        if missing:
            raise UserError(f"{path}: no mark for {min(missing)}, which is in {split}.txt")
    return labels


def _stem_and_mark(place: str, words: Sequence[str], values: dict[str, int]) -> tuple[str, str]:
    if len(words) != 2 or words[1] not in values:
        raise UserError(
            f"{place}: expected an image name and 1, 0 or -1, found {' '.join(words)!r}"
        )
    return words[0], words[1]


def _read_all_boxes(
    root: Path, stems: Sequence[str], keep_difficult: bool
) -> tuple[tuple[NDArray[np.float32], ...] | None, tuple[str, ...]]:
    """Each photo's boxes, or None where the archive has no annotations at all, and notes."""
    folder = root / "Annotations"
    if not folder.is_dir():
        return None, ()
    present = set(os.listdir(folder))
    annotated = [f"{stem}.xml" in present for stem in stems]
    rows = [
        _read_boxes(folder / f"{stem}.xml", keep_difficult) if there else []
        for stem, there in zip(stems, annotated, strict=True)
    ]
    notes = ()
    if not all(annotated):
        missing = len(stems) - sum(annotated)
        notes = (f"{folder}: {missing} of {len(stems)} photos have no annotation, hence no boxes",)
    return tuple(np.asarray(x, np.float32).reshape(-1, 5) for x in rows), notes


def _read_boxes(path: Path, keep_difficult: bool) -> list[list[float]]:
    """Rows (class index, y1, x1, y2, x2); photos may be smaller than when they were annotated."""
    try:
        content = path.read_bytes()
        if b"<!" in content.replace(b"<!--", b""):
            raise ValueError("it declares a document type, which VOC's files do not")
        tree = ElementTree.fromstring(content)
        height, width = (_number(tree, f"size/{side}") for side in ("height", "width"))
        return [
            _box_row(node, height, width)
            for node in tree.findall("object")
            if keep_difficult or node.findtext("difficult", "0").strip() != "1"
        ]
    except (ElementTree.ParseError, OSError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"{path}: not a VOC annotation ({error}); {_SOURCE}") from error


def _box_row(node: ElementTree.Element, height: float, width: float) -> list[float]:
    # VOC counts pixels from 1, and the last one belongs to the box.
    y1, x1 = _number(node, "bndbox/ymin") - 1, _number(node, "bndbox/xmin") - 1
    y2, x2 = _number(node, "bndbox/ymax"), _number(node, "bndbox/xmax")
    class_index = CLASS_NAMES.index(node.findtext("name", "").strip())
    corners = [y1 / height, x1 / width, y2 / height, x2 / width]
    return [class_index, *(min(max(corner, 0.0), 1.0) for corner in corners)]


def _number(node: ElementTree.Element, path: str) -> float:
    text = node.findtext(path)
    if text is None or not math.isfinite(float(text)):
        raise ValueError(f"no number in {path}")
    return float(text)
