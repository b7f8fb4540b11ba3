"""Pascal VOC 2012 and 2007, image-level labels from ImageSets/Main and boxes from Annotations.

The layout is the official archive's. A mark in `ImageSets/Main/{class}_{split}.txt` is " 1" (the
class is there), "-1" (it is not) or " 0" (all its objects there are marked as difficult). What " 0"
means for the labels is a choice, see `load`.
"""

from __future__ import annotations

import collections
import math
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spml_tf.datasets.readers.examples import Examples
from spml_tf.datasets.readers.photos import require_photos
from spml_tf.datasets.readers.safe_xml import parse_xml
from spml_tf.datasets.readers.split_names import check_split
from spml_tf.labels import NEGATIVE, POSITIVE, UNKNOWN
from spml_tf.system.errors import UserError
from spml_tf.system.text_files import read_words

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

_ARCHIVES = {
    2012: "VOCtrainval_11-May-2012.tar",
    2007: "VOCtrainval_06-Nov-2007.tar and VOCtest_06-Nov-2007.tar",
}


def load(
    data_dir: str | os.PathLike[str] | None = None,
    split: str = "train",
    difficult: str = "negative",
    allow_outside: bool = False,
    year: int = 2012,
) -> Examples:
    """Reads one split of Pascal VOC.

    Args:
        data_dir: the folder VOC2012 or VOC2007, which holds ImageSets, or VOCdevkit above it.
        split: "train", "val" or "trainval"; of 2007 also "test".
        difficult: how the mark " 0" counts: "negative" (as in Cole et al., CVPR 2021, whose label
            is 1 for " 1" only), "positive" or "unknown".
        allow_outside: accept photos that lie outside the folder, see `photos.find_photos`.
        year: 2012 or 2007.

    Returns:
        Examples with files, sorted by name; names are "JPEGImages/....jpg". Images without a
        positive label are left out. Boxes where there is a folder Annotations, else None; boxes of
        difficult objects are kept with difficult="positive" only, and an image without an
        annotation file has none. Notes count what is left out or clipped.

    Raises:
        UserError: folder, list or photo missing, or a malformed line or annotation.
        ValueError: an unknown year, or an unknown rule for difficult objects.
    """
    if year not in SPLITS:
        raise ValueError(f"year: expected one of {tuple(SPLITS)}, found {year!r}")
    if difficult not in DIFFICULT_RULES:
        known = ", ".join(DIFFICULT_RULES)
        raise ValueError(f"difficult: expected one of {known}, found {difficult!r}")
    check_split(split, SPLITS[year], f"Pascal VOC {year} has")
    source = _source(year)
    root = _root(data_dir, year, source)
    stems = _read_list(root, split, source)
    labels = _read_labels(root, split, stems, DIFFICULT_RULES[difficult], source)
    stems, labels, notes = _with_positives(_list_path(root, split), stems, labels)
    names = tuple(f"JPEGImages/{stem}.jpg" for stem in stems)
    paths = require_photos(root, names, source, allow_outside)
    boxes, sides, box_notes = _read_all_boxes(root, stems, difficult == "positive", source)
    return Examples(
        names, labels, CLASS_NAMES, paths=paths, boxes=boxes, sides=sides,
        notes=(*notes, *box_notes),
    )  # fmt: skip


def _source(year: int) -> str:
    return (
        f"get {_ARCHIVES[year]} from host.robots.ox.ac.uk/pascal/VOC, unpack into one place, and "
        f"name the folder VOCdevkit or VOCdevkit/VOC{year}, which holds ImageSets/Main and "
        "JPEGImages"
    )


def _root(data_dir: str | os.PathLike[str] | None, year: int, source: str) -> Path:
    if data_dir is None:
        raise UserError(f"data_dir: Pascal VOC needs its folder; {source}")
    given = Path(data_dir).absolute()
    if any(given.name == f"VOC{other}" for other in SPLITS if other != year):
        raise UserError(f"data_dir: {given} is not of Pascal VOC {year}; {source}")
    for root in (given, given / f"VOC{year}"):
        if os.path.isdir(root / "ImageSets" / "Main"):
            return root
    raise UserError(f"data_dir: no ImageSets/Main in {given} or in its VOC{year}; {source}")


def _with_positives(
    path: Path, stems: Sequence[str], labels: NDArray[np.int8]
) -> tuple[list[str], NDArray[np.int8], list[str]]:
    """The images that have a positive label, their labels, and a note on the others."""
    shown = (labels == POSITIVE).any(axis=1)
    kept, others = np.flatnonzero(shown), np.flatnonzero(~shown)
    if not len(kept):
        raise UserError(f"{path}: no photo of this list has a positive label")
    notes = []
    if len(others):
        notes.append(
            f"{path}: {len(others):,} of {len(stems):,} photos have no positive label and are left "
            f"out, the first is {stems[int(others[0])]}"
        )
    return [stems[row] for row in kept.tolist()], labels[kept], notes


def _list_path(root: Path, name: str) -> Path:
    return root / "ImageSets" / "Main" / f"{name}.txt"


def _read_list(root: Path, split: str, source: str) -> list[str]:
    """The file stems of a split, sorted."""
    stems: set[str] = set()
    for place, words in read_words(_list_path(root, split), source):
        if len(words) != 1:
            raise UserError(f"{place}: expected one image name, found {' '.join(words)!r}")
        if words[0] in stems:
            raise UserError(f"{place}: {words[0]} is in the list twice; remove this line")
        stems.add(words[0])
    return sorted(stems)


def _read_labels(
    root: Path, split: str, stems: Sequence[str], difficult: int, source: str
) -> NDArray[np.int8]:
    """int8 [N, 20] of the images named in stems."""
    rows = {stem: row for row, stem in enumerate(stems)}
    values = {"1": POSITIVE, "-1": NEGATIVE, "0": difficult}
    labels = np.empty((len(stems), len(CLASS_NAMES)), np.int8)
    for column, class_name in enumerate(CLASS_NAMES):
        path = _list_path(root, f"{class_name}_{split}")
        missing = set(stems)
        for place, words in read_words(path, source):
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
    root: Path, stems: Sequence[str], keep_difficult: bool, source: str
) -> tuple[tuple[NDArray[np.float32], ...] | None, NDArray[np.float64] | None, list[str]]:
    """Each photo's boxes and size, or None where there is no folder of annotations, and notes."""
    folder = root / "Annotations"
    if not os.path.isdir(folder):
        return None, None, []
    try:
        present = set(os.listdir(folder))
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror})") from error
    counts: collections.Counter[str] = collections.Counter()
    boxes, sides = [], np.zeros((len(stems), 2))
    for number, stem in enumerate(stems):
        rows: list[list[float]] = []
        if f"{stem}.xml" in present:
            rows, sides[number] = _read_boxes(
                folder / f"{stem}.xml", keep_difficult, counts, source
            )
        else:
            counts["photos without an annotation file, hence without boxes"] += 1
        boxes.append(np.asarray(rows, np.float32).reshape(-1, 5))
    notes = [f"{folder}: {what}: {count:,}" for what, count in counts.items()]
    return tuple(boxes), sides, notes


def _read_boxes(
    path: Path, keep_difficult: bool, counts: collections.Counter[str], source: str
) -> tuple[list[list[float]], tuple[float, float]]:
    """Rows (class index, y1, x1, y2, x2) of [0, 1], counting what is left out or clipped; the size.

    That is the annotation's own: photos may be smaller than when they were annotated.
    """
    rows = []
    try:
        tree = parse_xml(path)
        height, width = (_number(tree, f"size/{side}", 1) for side in ("height", "width"))
        for node in tree.findall("object"):
            if _is_difficult(node) and not keep_difficult:
                counts["boxes of difficult objects, left out"] += 1
                continue
            y1, x1, y2, x2 = _corners(node)
            if min(y1, x1) < -1 or y2 > height + 1 or x2 > width + 1:
                counts["boxes that reach beyond their photo, clipped to it"] += 1
            corners = np.clip([y1 / height, x1 / width, y2 / height, x2 / width], 0, 1)
            rows.append([_class_index(node), *corners.tolist()])
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a VOC annotation ({error}); {source}") from error
    return rows, (height, width)


def _is_difficult(node: ElementTree.Element) -> bool:
    text = node.findtext("difficult", "0").strip()
    if text not in ("0", "1"):
        raise ValueError(f"difficult must be 0 or 1, found {text[:40]!r}")
    return text == "1"


def _class_index(node: ElementTree.Element) -> int:
    name = node.findtext("name", "").strip()
    if name not in CLASS_NAMES:
        raise ValueError(f"unknown class {name[:40]!r}")
    return CLASS_NAMES.index(name)


def _corners(node: ElementTree.Element) -> tuple[float, float, float, float]:
    """An object's (y1, x1, y2, x2) in pixels from 0; parts of it have boxes of their own."""
    boxes = node.findall("bndbox")
    if len(boxes) != 1:
        raise ValueError(f"an object has {len(boxes)} bndbox, which must be 1")
    y1, x1, y2, x2 = (_number(boxes[0], side) for side in ("ymin", "xmin", "ymax", "xmax"))
    if y2 < y1 or x2 < x1:
        raise ValueError(f"a bndbox ends before it begins: {x1:g},{y1:g} to {x2:g},{y2:g}")
    # VOC counts pixels from 1, and the last one belongs to the box.
    return y1 - 1, x1 - 1, y2, x2


def _number(node: ElementTree.Element, path: str, low: float = -math.inf) -> float:
    text = node.findtext(path)
    if text is None:
        raise ValueError(f"no {path}")
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= low):
        least = f" of at least {low}" if low > -math.inf else ""
        raise ValueError(f"{path} must be a number{least}, found {text.strip()[:40]!r}")
    return number
