"""MS-COCO: photos of everyday scenes with 80 kinds of objects, from the files of its authors.

Lin et al., "Microsoft COCO: Common Objects in Context" (ECCV 2014); cocodataset.org/#format-data
describes the format. `annotations/instances_{split}{year}.json` lists images, categories and
annotations. An annotation is an object with its category, its box [x, y, width, height] in pixels
from 0 and the area of its outline, or, where iscrowd is 1, a group of objects.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spml_tf.datasets.readers.examples import Examples
from spml_tf.datasets.readers.json_lists import JsonList, read_lists
from spml_tf.datasets.readers.photos import require_photos
from spml_tf.datasets.readers.split_names import check_split
from spml_tf.labels import NEGATIVE, POSITIVE
from spml_tf.system.errors import UserError

SPLITS = ("train", "val")
YEARS = (2014, 2017)


def load(
    data_dir: str | os.PathLike[str] | None = None,
    split: str = "train",
    year: int = 2014,
    allow_outside: bool = False,
) -> Examples:
    """Reads one split of MS-COCO.

    Args:
        data_dir: the folder that holds annotations and the photos' folders, such as train2014.
        split: "train" or "val".
        year: 2014 or 2017, as in the files' names.
        allow_outside: accept photos that lie outside the folder, see `photos.find_photos`.

    Returns:
        Examples with files, in the order of the image ids as texts (as in Cole et al., CVPR 2021);
        names are like "train2014/COCO_train2014_000000000009.jpg". Classes are in the order of the
        file's categories. int8 labels: 1 where the image has an annotation of the class, be it a
        crowd, else 0. Images without any annotation are left out. Boxes and areas are those of
        single objects, in the file's order and clipped to the image; areas are the outlines'.
        Crowds have neither: one box around many objects says little about any of them, and COCO's
        own evaluation ignores them too. Notes count what is left out or clipped.

    Raises:
        UserError: unknown split, files missing, or the json is malformed.
        ValueError: an unknown year.
    """
    if year not in YEARS:
        raise ValueError(f"year: expected one of {YEARS}, found {year!r}")
    check_split(split, SPLITS, "MS-COCO has")
    source = _source(year)
    if data_dir is None:
        raise UserError(f"data_dir: MS-COCO needs its folder; {source}")
    root, folder = Path(data_dir).absolute(), f"{split}{year}"
    path = root / "annotations" / f"instances_{folder}.json"
    images, categories, annotations = read_lists(
        path, ("images", "categories", "annotations"), source, _without_outline
    )
    class_names = categories.unique("name", "text")
    columns = annotations.find("category_id", categories, "category")
    owners = annotations.find("image_id", images, "image")
    order = _order(images, owners)
    rows = np.full(len(images), -1)
    rows[order] = np.arange(len(order))
    labels = np.full((len(order), len(class_names)), NEGATIVE, np.int8)
    labels[rows[owners], columns] = POSITIVE
    sides = np.stack([images.numbers(x, 1, "at least 1") for x in ("height", "width")], axis=1)
    boxes, areas, notes = _read_boxes(sides[owners], annotations, columns)
    files = images.unique("file_name", "text")
    names = tuple(posixpath.join(folder, files[number]) for number in order)
    objects = _objects(rows[owners], annotations.flags("iscrowd"), len(order))
    return Examples(
        names,
        labels,
        tuple(class_names),
        paths=require_photos(root, names, source, allow_outside, lambda i: images.at(order[i])),
        boxes=tuple(boxes[own] for own in objects),
        areas=tuple(areas[own] for own in objects),
        sides=sides[order],
        notes=(*_unannotated(images, files, order), *notes),
    )


def _source(year: int) -> str:
    return (
        f"get train{year}.zip, val{year}.zip and annotations_trainval{year}.zip from "
        "cocodataset.org and unpack them into one folder, which then holds "
        f"annotations/instances_train{year}.json, train{year} and val{year}"
    )


def _without_outline(entry: dict[str, Any]) -> dict[str, Any]:
    # Outlines are not used, and most of what the file holds: without them it takes little memory.
    entry.pop("segmentation", None)
    return entry


def _order(images: JsonList, owners: NDArray[np.int64]) -> list[int]:
    """The images that have annotations, sorted by their ids as texts."""
    ids = images.column("id", "a whole number")
    return sorted(np.unique(owners).tolist(), key=lambda number: str(ids[number]))


def _unannotated(images: JsonList, files: Sequence[str], order: Sequence[int]) -> list[str]:
    missing = sorted(set(range(len(files))).difference(order))
    if not missing:
        return []
    return [
        f"{images.path}: {len(missing):,} of {len(files):,} images have no annotation and are left "
        f"out, the first is {files[missing[0]]}"
    ]


def _read_boxes(
    sides: NDArray[np.float64], annotations: JsonList, columns: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32], list[str]]:
    """Every annotation's box, float32 [N, 5], and area, float32 [N], crowds included, and notes."""
    height, width = sides.T
    x, y, across, down = annotations.rectangles("bbox").T
    area = annotations.numbers("area", 0, "a number that is not negative")
    with np.errstate(over="ignore"):  # Sums beyond 1e308 become infinite and are clipped.
        right, bottom = x + across, y + down
    corners = np.stack([y / height, x / width, bottom / height, right / width], axis=1)
    boxes = np.column_stack([columns, np.clip(corners, 0, 1)]).astype(np.float32)
    parts = area / height / width
    areas = np.clip(parts, 0, 1).astype(np.float32)
    # By less than a pixel some boxes end beyond the image for the decimals they are rounded to.
    reach = np.maximum(-np.minimum(x, y), np.maximum(right - width, bottom - height))
    clipped = (reach > 1) | (parts > 1)
    notes = _counted(annotations, clipped, "objects that reach beyond their image, clipped to it")
    crowds = annotations.flags("iscrowd")
    notes += _counted(annotations, crowds, "crowds, which count as labels and have no box")
    return boxes, areas, notes


def _counted(annotations: JsonList, chosen: NDArray[np.bool_], what: str) -> list[str]:
    count, first = int(chosen.sum()), int(chosen.argmax())
    if not count:
        return []
    return [
        f"{annotations.path}: {what}: {count:,} of {len(annotations):,}, the first is "
        f"{annotations.name}[{first}]"
    ]


def _objects(
    rows: NDArray[np.int64], crowds: NDArray[np.bool_], count: int
) -> list[NDArray[np.int64]]:
    """For each of count images, which annotations are its single objects."""
    single = np.flatnonzero(~crowds)
    single = single[np.argsort(rows[single], kind="stable")]
    ends = np.cumsum(np.bincount(rows[single], minlength=count))
    return np.split(single, ends[:-1])
