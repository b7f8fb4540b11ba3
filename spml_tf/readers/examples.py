"""What every reader returns: the images of one split, their names, labels and boxes."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spml_tf.errors import UserError
from spml_tf.labels import POSITIVE, validate_labels


@dataclasses.dataclass(frozen=True)
class Examples:
    """The images of a split: in memory or as files, never both.

    Attributes:
        names: N unique names that stay the same from run to run, such as "train/00012".
        labels: int8 [N, L] of {1, 0, -1}.
        class_names: L names, in the order of the labels' columns.
        paths: N absolute file names, or None where the images are in memory.
        images: uint8 [N, H, W, 3], RGB, or None where they are files.
        boxes: per image float32 [M, 5] with rows (class index, y1, x1, y2, x2), coordinates in
            [0, 1] of the whole image; None where the data set has no boxes.

    Raises:
        ValueError: the parts do not fit together.
    """

    names: tuple[str, ...]
    labels: NDArray[np.int8]
    class_names: tuple[str, ...]
    paths: tuple[str, ...] | None = None
    images: NDArray[np.uint8] | None = None
    boxes: tuple[NDArray[np.float32], ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", validate_labels(self.labels))
        if self.labels.shape != (len(self.names), len(self.class_names)):
            raise ValueError(
                f"labels of shape {self.labels.shape} do not fit {len(self.names)} names and "
                f"{len(self.class_names)} classes"
            )
        if (self.paths is None) == (self.images is None):
            raise ValueError("give either paths or images")
        for part in (self.paths, self.images, self.boxes):
            if part is not None and len(part) != len(self.names):
                raise ValueError(f"{len(self.names)} names, but {len(part)} paths, images or boxes")
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
        return dataclasses.replace(
            self,
            names=tuple(self.names[row] for row in rows),
            labels=self.labels[rows],
            paths=None if self.paths is None else tuple(self.paths[row] for row in rows),
            images=None if self.images is None else self.images[rows],
            boxes=None if self.boxes is None else tuple(self.boxes[row] for row in rows),
        )

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
        boxes = chosen.boxes
        if boxes is not None:
            boxes = tuple(_renumber(rows, columns) for rows in boxes)
        return dataclasses.replace(
            chosen, labels=chosen.labels[:, columns], class_names=tuple(class_names), boxes=boxes
        )

    def fingerprint(self) -> str:
        """SHA-256, as hexadecimal text, of the names, classes, labels and image content.

        Images in memory count with their bytes, files with their sizes only: reading every photo
        of a large set would take longer than a training epoch.
        """
        digest = hashlib.sha256()
        for words in (self.names, self.class_names):
            digest.update("\n".join(words).encode("utf-8") + b"\0")
        digest.update(np.ascontiguousarray(self.labels).tobytes())
        if self.images is not None:
            digest.update(repr(self.images.shape).encode("ascii"))
            digest.update(np.ascontiguousarray(self.images).tobytes())
        for path in self.paths or ():
            digest.update(f"{os.path.getsize(path)}\n".encode("ascii"))
        return digest.hexdigest()

    def _columns(self, class_names: Sequence[str]) -> list[int]:
        if not class_names or len(set(class_names)) != len(class_names):
            raise UserError(f"classes: name each class once, found {','.join(class_names)!r}")
        for name in class_names:
            if name not in self.class_names:
                known = ", ".join(self.class_names)
                raise UserError(f"classes: unknown class {name!r}; the classes are {known}")
        return [self.class_names.index(name) for name in class_names]


def _renumber(boxes: NDArray[np.float32], columns: Sequence[int]) -> NDArray[np.float32]:
    """Keeps the boxes whose class is among columns; their class becomes its position there."""
    kept = boxes[np.isin(boxes[:, 0], columns)].copy()
    kept[:, 0] = [columns.index(int(old)) for old in kept[:, 0]]
    return kept
