"""What every reader returns: the images of one split, their names, labels and boxes."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spml_tf.datasets.picture_limits import MAX_MEGAPIXELS
from spml_tf.labels import POSITIVE, validate_labels
from spml_tf.system.errors import UserError
from spml_tf.system.files import sha256
from spml_tf.system.nearest import guess

# What an image may have, beside its name and labels.
_PARTS = (
    "paths", "images", "offsets", "boxes", "areas", "sides", "masks", "observed", "weights",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Examples:
    """The images of a split: in memory or in files, never both.

    Attributes:
        names: N unique names that stay the same from run to run, such as "train/00012".
        labels: int8 [N, L] of {1, 0, -1}.
        class_names: L names, in the order of the labels' columns.
        paths: N absolute file names, or None where the images are in memory.
        images: uint8 [N, H, W, 3], RGB, or None where they are files.
        offsets: int64 [N], where each image's record begins in its file, which is then a TFRecord
            file of `tf.train.Example`s whose feature "image" holds the encoded image; None where
            every image is a file of its own.
        boxes: per image float32 [M, 5] with rows (class index, y1, x1, y2, x2), coordinates in
            [0, 1] of the whole image; None where the data set has no boxes.
        areas: per image float32 [M], the area of each box's object as a part of the image's, in
            [0, 1] (of its outline where that is known, else of the box); None without boxes.
        sides: float64 [N, 2], height and width of the picture in which each image's boxes were
            drawn, which may be on its side, see `stored_pixels.with_upright_boxes`; None where
            boxes are those of upright images.
        masks: per image the file of its mask, see `objects.read_mask`, or None; None where the data
            set has no masks.
        mask_numbers: L numbers, each class's in the masks.
        mask_classes: how many classes the masks may show.
        observed: int8 [N, L] of {1, 0, -1}, the labels an annotator gave, where the data set comes
            with these beside the full ones; else None.
        weights: float32 [N], how much each image counts in the loss; None where all count alike.
        notes: one line each about what the reader left out or treated, for the user to read.
        hash_contents: whether `fingerprint` reads files, or takes their sizes only.
        max_megapixels: files whose header tells of more pixels, in millions, are not decoded.
        scaled_decoding: whether crops of large JPEGs may be decoded at a part of their size, see
            `images.decode_crop`.

    Raises:
        ValueError: the parts do not fit together.
    """

    names: tuple[str, ...]
    labels: NDArray[np.int8]
    class_names: tuple[str, ...]
    paths: tuple[str, ...] | None = None
    images: NDArray[np.uint8] | None = None
    offsets: NDArray[np.int64] | None = None
    boxes: tuple[NDArray[np.float32], ...] | None = None
    areas: tuple[NDArray[np.float32], ...] | None = None
    sides: NDArray[np.float64] | None = None
    masks: tuple[str | None, ...] | None = None
    mask_numbers: tuple[int, ...] | None = None
    mask_classes: int = 0
    observed: NDArray[np.int8] | None = None
    weights: NDArray[np.float32] | None = None
    notes: tuple[str, ...] = ()
    max_megapixels: float = MAX_MEGAPIXELS
    hash_contents: bool = False
    scaled_decoding: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", validate_labels(self.labels))
        if self.labels.shape != (len(self.names), len(self.class_names)):
            raise ValueError(
                f"labels of shape {self.labels.shape} do not fit {len(self.names)} names and "
                f"{len(self.class_names)} classes"
            )
        if (self.paths is None) == (self.images is None):
            raise ValueError("give either paths or images")
        for part in _PARTS:
            value = getattr(self, part)
            if value is not None and len(value) != len(self.names):
                raise ValueError(f"{len(self.names)} names, but {len(value)} {part}")
        if self.observed is not None:
            object.__setattr__(self, "observed", validate_labels(self.observed, "observed"))
            if self.observed.shape != self.labels.shape:
                raise ValueError(f"observed {self.observed.shape}, labels {self.labels.shape}")
        if self.boxes is not None and self.areas is None:
            object.__setattr__(self, "areas", tuple(_box_areas(rows) for rows in self.boxes))
        if len(set(self.names)) != len(self.names):
            raise ValueError("image names must be unique")

    def __len__(self) -> int:
        return len(self.names)

    def subset(self, indices: ArrayLike) -> Examples:
        """The images at these positions, in the order given.

        Args:
            indices: integers [M] in 0..N-1.

        Returns:
            Examples of M images with the same classes.
        """
        rows = np.asarray(indices, np.int64)
        parts = {part: _take(getattr(self, part), rows) for part in ("names", "labels", *_PARTS)}
        return dataclasses.replace(self, **parts)

    def restrict(self, class_names: Sequence[str]) -> Examples:
        """Keeps some classes, and the images that show at least one of them.

        Args:
            class_names: the classes to keep; they become the columns in this order.

        Returns:
            Examples without the images that keep no positive label, boxes renumbered.

        Raises:
            UserError: a class is unknown, given twice, or none is given.
        """
        columns = self._columns(class_names)
        kept = np.flatnonzero((self.labels[:, columns] == POSITIVE).any(axis=1))
        chosen = self.subset(kept)
        parts: dict[str, Any] = {"labels": chosen.labels[:, columns]}
        if chosen.observed is not None:
            parts["observed"] = chosen.observed[:, columns]
        if chosen.mask_numbers is not None:
            parts["mask_numbers"] = tuple(chosen.mask_numbers[x] for x in columns)
        if chosen.boxes is not None and chosen.areas is not None:
            shown = [np.isin(rows[:, 0], columns) for rows in chosen.boxes]
            parts["boxes"] = tuple(
                _renumber(rows[kept], columns)
                for rows, kept in zip(chosen.boxes, shown, strict=True)
            )
            parts["areas"] = tuple(
                areas[kept] for areas, kept in zip(chosen.areas, shown, strict=True)
            )
        return dataclasses.replace(chosen, class_names=tuple(class_names), **parts)

    def fingerprint(self) -> str:
        """SHA-256, as hexadecimal text, of the names, classes, labels, weights and image content.

        Images in memory count with their bytes, files with their sizes only, unless `hash_contents`
        is set: reading every photo of a large set can take as long as a training epoch.

        Raises:
            UserError: a file is missing or cannot be read.
        """
        digest = hashlib.sha256()
        for words in (self.names, self.class_names):
            digest.update("\n".join(words).encode("utf-8") + b"\0")
        digest.update(np.ascontiguousarray(self.labels).tobytes())
        if self.weights is not None:
            digest.update(np.ascontiguousarray(self.weights).tobytes())
        if self.images is not None:
            digest.update(repr(self.images.shape).encode("ascii"))
            digest.update(np.ascontiguousarray(self.images).tobytes())
        found = {path: self._of_file(path) for path in dict.fromkeys(self.paths or ())}
        for path in self.paths or ():
            digest.update(f"{found[path]}\n".encode("ascii"))
        if self.offsets is not None:
            digest.update(np.ascontiguousarray(self.offsets).tobytes())
        return digest.hexdigest()

    def _of_file(self, path: str) -> str:
        """What stands for a file in the fingerprint."""
        try:
            return sha256(path) if self.hash_contents else str(os.path.getsize(path))
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); put it back") from None

    def _columns(self, class_names: Sequence[str]) -> list[int]:
        if not class_names or len(set(class_names)) != len(class_names):
            raise UserError(f"classes: name each class once, found {','.join(class_names)!r}")
        columns = {name: column for column, name in enumerate(self.class_names)}
        for name in class_names:
            if name not in columns:
                known = ", ".join(self.class_names)
                near = guess(name, self.class_names)
                raise UserError(f"classes: unknown class {name!r}; the classes are {known}{near}")
        return [columns[name] for name in class_names]


def _take(part: Any, rows: NDArray[np.int64]) -> Any:
    """The elements at these positions of an array or a tuple, or None."""
    if part is None or isinstance(part, np.ndarray):
        return None if part is None else part[rows]
    return tuple(part[row] for row in rows)


def _renumber(boxes: NDArray[np.float32], columns: Sequence[int]) -> NDArray[np.float32]:
    """Boxes whose class becomes its position among columns."""
    places = {old: new for new, old in enumerate(columns)}
    renumbered = boxes.copy()
    renumbered[:, 0] = [places[int(old)] for old in boxes[:, 0]]
    return renumbered


def _box_areas(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    return (boxes[:, 3] - boxes[:, 1]) * (boxes[:, 4] - boxes[:, 2])
