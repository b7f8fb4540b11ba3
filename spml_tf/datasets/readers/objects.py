"""Where objects lie in the user's own photos: a table of boxes, and masks."""

from __future__ import annotations

import dataclasses
import os
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from spml_tf.datasets.picture_limits import MAX_MEGAPIXELS, more_pixels, without_pillows_limit
from spml_tf.datasets.readers.examples import Examples
from spml_tf.datasets.readers.photos import find_photos
from spml_tf.datasets.readers.table_cells import number
from spml_tf.datasets.readers.tables import named_by
from spml_tf.datasets.table_options import TableOptions
from spml_tf.labels import NEGATIVE
from spml_tf.system.errors import UserError, quoted, reason_of
from spml_tf.system.nearest import guess
from spml_tf.system.text_files import read_csv

_HEADER = ["image", "class", "y1", "x1", "y2", "x2"]
_HEADERS = (_HEADER, [*_HEADER, "area"])


def with_boxes(
    examples: Examples, root: str, path: str, allow_outside: bool, options: TableOptions
) -> Examples:
    """Adds the boxes of a table to the images of a split.

    The table is that of all splits: rows of photos that lie in the folder and are not in the split
    are skipped. Its header is image,class,y1,x1,y2,x2 and, where the area of the object is known
    better than by its box, area; all numbers are parts of the image, from its upper left corner.

    Args:
        examples: images in files, without boxes.
        root: the data folder, which the table's names are relative to.
        path: the table.
        allow_outside: accept names and links that lead out of the folder.
        options: how names of photos become paths, as in the tables of labels.

    Returns:
        The same with boxes and areas, in the table's order.

    Raises:
        UserError: the table cannot be read, or a row has an unknown photo or class, or numbers that
            are no box. The message gives file and line.
    """
    rows = read_csv(path, "give --boxes_csv=TABLE, a CSV file in data_dir")
    place, header = next(rows, (f"{path}:1", []))
    if [cell.strip() for cell in header] not in _HEADERS:
        raise UserError(
            f"{place}: the header must be {','.join(_HEADER)} (and perhaps area), found "
            f"{quoted(','.join(header))}"
        )
    images = {name: number for number, name in enumerate(examples.names)}
    classes = {name: number for number, name in enumerate(examples.class_names)}
    found: list[list[tuple[float, ...]]] = [[] for _ in images]
    others: dict[str, str] = {}
    contradicted = 0
    for place, fields in rows:
        name, column, box = _box(place, header, fields, classes)
        name = str(PurePosixPath(named_by(name, options)[0]))
        if name not in images:
            others.setdefault(name, place)
            continue
        found[images[name]].append((column, *box))
        contradicted += int(examples.labels[images[name], column] == NEGATIVE)
    _check_there(root, others, allow_outside)
    tables = [np.array(x, np.float32).reshape(-1, 6) for x in found]
    notes = examples.notes
    if contradicted:
        notes += (f"{path}: {contradicted} boxes of classes that are labelled as absent: kept",)
    return dataclasses.replace(
        examples,
        boxes=tuple(x[:, :5] for x in tables),
        areas=tuple(x[:, 5] for x in tables),
        notes=notes,
    )


def _box(
    place: str, header: list[str], fields: list[str], classes: dict[str, int]
) -> tuple[str, int, tuple[float, ...]]:
    """Photo, class and (y1, x1, y2, x2, area) of a row."""
    if len(fields) != len(header):
        raise UserError(f"{place}: expected {len(header)} cells, found {len(fields)}")
    image, name, *cells = (field.strip() for field in fields)
    if name not in classes:
        raise UserError(
            f"{place}: unknown class {quoted(name)}; the classes are "
            f"{', '.join(map(quoted, classes))}{guess(name, classes)}"
        )
    numbers = []
    for column, cell in zip(header[2:], cells, strict=True):
        value = number(cell, most=1)
        if value is None:
            whole, by = ("area", "times") if column.strip() == "area" else ("side", "or")
            raise UserError(
                f"{place}: {column.strip()} must be a part of the image's {whole}, from 0 to 1, "
                f"found {quoted(cell)}; divide pixels by the image's height {by} width"
            )
        numbers.append(value)
    y1, x1, y2, x2 = numbers[:4]
    if y1 >= y2 or x1 >= x2:
        raise UserError(
            f"{place}: the box ({y1:g}, {x1:g}, {y2:g}, {x2:g}) is empty: y1 < y2 and x1 < x2 are "
            "needed, y1 being its upper edge and x1 its left one"
        )
    area = numbers[4] if len(numbers) > 4 else (y2 - y1) * (x2 - x1)
    return image, classes[name], (y1, x1, y2, x2, area)


def _check_there(root: str, others: dict[str, str], allow_outside: bool) -> None:
    """Refuses rows of photos that are nowhere, which are mistakes and not of another split."""
    places = list(others.values())
    paths = find_photos(root, list(others), allow_outside, places.__getitem__)
    for name, path, place in zip(others, paths, places, strict=True):
        if path is None:
            raise UserError(
                f"{place}: {quoted(name)} is no photo; names are those of the table of labels, "
                f"relative to {root}"
            )


def with_masks(examples: Examples, root: str, folder: str, allow_outside: bool) -> Examples:
    """Adds the masks in a folder to the images of a split.

    The mask of a/b.jpg is a/b.png in the folder or, where that is missing, b.png. Photos without a
    mask have none.

    Args:
        examples: images in files.
        root: the data folder.
        folder: of the masks, in the data folder.
        allow_outside: accept names and links that lead out of the data folder.

    Returns:
        The same with masks, and mask_numbers 1..L.

    Raises:
        UserError: the folder is missing, holds no mask of the photos, or two photos would share
            one.
    """
    if not os.path.isdir(os.path.join(root, folder)):
        raise UserError(f"--masks_dir={folder}: no such folder in {root}")
    names = [str(PurePosixPath(name).with_suffix(".png")) for name in examples.names]
    own = [f"{folder}/{name}" for name in names]
    flat = [f"{folder}/{PurePosixPath(name).name}" for name in names]
    nested, beside = (find_photos(root, x, allow_outside) for x in (own, flat))
    masks = tuple(one or other for one, other in zip(nested, beside, strict=True))
    notes, count = examples.notes, sum(mask is not None for mask in masks)
    if count < len(examples):
        notes += (f"{count} of {len(examples)} photos have a mask in {folder}",)
    numbers = tuple(range(1, len(examples.class_names) + 1))
    found = dataclasses.replace(
        examples, masks=masks, mask_numbers=numbers, mask_classes=len(numbers), notes=notes
    )
    check_own_masks(found)
    return found


def check_own_masks(*parts: Examples | None) -> None:
    """Refuses a mask of two photos, of one split or of two.

    Raises:
        UserError: there is one.
    """
    users: dict[str, str] = {}
    for part in parts:
        for name, mask in zip(part.names, part.masks, strict=True) if part and part.masks else ():
            if mask is not None and users.setdefault(mask, name) != name:
                raise UserError(
                    f"{mask}: is the mask of {quoted(users[mask])} and of {quoted(name)}; put "
                    "masks into folders as the photos are, MASKS/FOLDER/NAME.png"
                )


def read_mask(
    path: str, num_classes: int, max_megapixels: float = MAX_MEGAPIXELS
) -> NDArray[np.uint16]:
    """A mask: 0 is no class, k the k-th one, 255 not labelled where there are fewer classes.

    Args:
        path: a PNG of one channel, or with a palette whose places count.
        num_classes: of the data set, before some are chosen.
        max_megapixels: the most pixels, in millions, that its header may tell of.

    Returns:
        [H, W].

    Raises:
        UserError: no such image, a larger one, colours instead of numbers, or a number above.
    """
    from PIL import Image

    try:
        with without_pillows_limit(), Image.open(path) as image:
            if refused := more_pixels(*image.size, max_megapixels):
                raise UserError(f"{path}: {refused}; raise it, or write a smaller mask")
            mode, mask = image.mode, np.asarray(image)
    except UserError:
        raise
    except (OSError, ValueError, SyntaxError) as error:
        reason = reason_of(error)
        raise UserError(f"{path}: cannot be read ({reason}); write a PNG file") from None
    if mask.ndim != 2 or mode not in ("1", "L", "P", "I", "I;16"):
        raise UserError(
            f"{path}: a picture of the kind {mode}; a mask has one channel of whole numbers, 0 for "
            "no class and k for the k-th class"
        )
    mask = mask.astype(np.int64)  # bool in a picture of one bit
    wrong = mask > num_classes
    if num_classes < 255:
        wrong &= mask != 255
    if wrong.any() or mask.min(initial=0) < 0:
        row, column = np.argwhere(wrong | (mask < 0))[0]
        raise UserError(
            f"{path}: {mask[row, column]} in row {row + 1}, column {column + 1}, but there are "
            f"{num_classes} classes; 0 is no class, k the k-th one and 255 not labelled"
        )
    return mask.astype(np.uint16)
