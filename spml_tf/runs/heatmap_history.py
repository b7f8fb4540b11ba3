"""The heatmaps of a few training images after each epoch, as kept in a run's heatmaps.npz."""

from __future__ import annotations

import dataclasses
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spml_tf.labels import POSITIVE
from spml_tf.system.errors import UserError, reason_of
from spml_tf.system.files import replaced
from spml_tf.system.flag_words import split_names

# What heatmaps are of: the running averages in the bank, or the network's own of the whole image.
BANK, NETWORK = "bank", "network"
# Images that can be asked for: each epoch writes the maps of all epochs.
MOST_IMAGES = 100
_DEFAULT_IMAGES = 8


@dataclasses.dataclass(frozen=True)
class Snapshots:
    """What heatmaps.npz holds: one array for each attribute, under its name.

    Attributes:
        source: () str, "bank": the running averages that SCL compares with (Fig. 3 of Verelst et
            al., WACV 2023), or "network": sigmoid(F) of the whole image by the network as it is
            after the epoch.
        images: [I] int64, rows of the training images.
        names: [I] str, their names.
        class_names: [L] str.
        epochs: [E] int64, ascending, counted from 1.
        maps: [E, I, W, W, L] float16 in [0, 1], after each epoch, in the frame of the whole image.
            NaN in cells that no crop has covered yet, and in all cells of the classes that a
            compact bank does not keep.
        scores: [E, I, L] float32 in [0, 1], the running averages of f (eq. 4).
        codes: [E, I, L] int8, the labels in that epoch: 1, 0, -1 (unknown), 2 (expected positive).
    """

    source: NDArray[np.str_]
    images: NDArray[np.int64]
    names: NDArray[np.str_]
    class_names: NDArray[np.str_]
    epochs: NDArray[np.int64]
    maps: NDArray[np.float16]
    scores: NDArray[np.float32]
    codes: NDArray[np.int8]

    def until(self, epoch: int) -> Snapshots:
        """Those of the epochs up to one; later ones were written before a crash."""
        kept = self.epochs <= epoch
        return self._with(*(x[kept] for x in self._by_epoch()))

    def extended(
        self,
        epoch: int,
        maps: NDArray[np.floating],
        scores: NDArray[np.float32],
        codes: NDArray[np.int8],
    ) -> Snapshots:
        """These and those of one epoch more: maps [I, W, W, L], scores and codes [I, L]."""
        new: tuple[NDArray[Any], ...] = (
            np.array(epoch, np.int64),
            maps.astype(np.float16),
            scores,
            codes,
        )
        pairs = zip(self._by_epoch(), new, strict=True)
        return self._with(*(np.concatenate([old, one[None]]) for old, one in pairs))

    def write(self, path: Path) -> None:
        """Writes heatmaps.npz in one step."""
        with replaced(path) as temporary:
            np.savez(temporary, **{x.name: getattr(self, x.name) for x in dataclasses.fields(self)})

    def _by_epoch(self) -> tuple[NDArray[Any], ...]:
        return self.epochs, self.maps, self.scores, self.codes

    def _with(self, *arrays: NDArray[Any]) -> Snapshots:
        names = ("epochs", "maps", "scores", "codes")
        return dataclasses.replace(self, **dict(zip(names, arrays, strict=True)))


def empty(
    source: str,
    images: Sequence[int],
    names: Sequence[str],
    class_names: Sequence[str],
    grid: int,
) -> Snapshots:
    """Snapshots of no epoch.

    Args:
        source: `BANK` or `NETWORK`.
        images: I rows.
        names: of these images.
        class_names: L names.
        grid: W.
    """
    count, classes = len(images), len(class_names)
    return Snapshots(
        np.array(source),
        np.array(images, np.int64),
        np.array(names, np.str_),
        np.array(class_names, np.str_),
        np.zeros(0, np.int64),
        np.zeros((0, count, grid, grid, classes), np.float16),
        np.zeros((0, count, classes), np.float32),
        np.zeros((0, count, classes), np.int8),
    )


def read(path: str | os.PathLike[str]) -> Snapshots:
    """Reads heatmaps.npz.

    Args:
        path: the file.

    Raises:
        UserError: it cannot be read, or its arrays do not fit together.
    """
    try:
        # Opened here: np.load leaves a file open that it cannot read.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as saved:
            found = Snapshots(**{x.name: saved[x.name] for x in dataclasses.fields(Snapshots)})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        reason = reason_of(error)
        raise UserError(f"{path}: cannot be read ({reason}); remove it") from None
    rows = (len(found.epochs), len(found.images), len(found.class_names))
    shapes = (found.maps.shape[:2] + found.maps.shape[4:], found.scores.shape, found.codes.shape)
    if any(shape != rows for shape in shapes) or found.maps.ndim != 5:
        raise UserError(f"{path}: its arrays are not of the same images and epochs; remove it")
    return found


def images_to_record(
    wanted: str | None, names: Sequence[str], observed: NDArray[np.int8], bank: bool
) -> list[int]:
    """The images that --record_heatmaps asks for.

    Args:
        wanted: a number, names with commas between, or None: 8 where there is a heatmap bank, else
            none.
        names: N names of the training images.
        observed: int8 [N, L] of {1, 0, -1}.
        bank: whether the method has a heatmap bank.

    Returns:
        Their rows.

    Raises:
        UserError: a name is unknown, or there are too many.
    """
    if wanted is None:
        return first_of_each_class(observed, _DEFAULT_IMAGES if bank else 0)
    if wanted.strip().isdecimal():
        if int(wanted) > MOST_IMAGES:
            raise UserError(f"--record_heatmaps={wanted}: at most {MOST_IMAGES} images")
        return first_of_each_class(observed, int(wanted))
    return rows_of("record_heatmaps", wanted, names)


def rows_of(flag: str, text: str, names: Sequence[str]) -> list[int]:
    """The rows of the images that a flag names.

    Args:
        flag: the flag's name, for messages.
        text: names with commas between, in quotation marks where they hold commas.
        names: N names of the training images.

    Raises:
        UserError: a name is unknown, or there are too many.
    """
    given = dict.fromkeys(split_names(flag, text))
    if len(given) > MOST_IMAGES:
        raise UserError(f"--{flag}: names {len(given)} images; at most {MOST_IMAGES}")
    places = {name: row for row, name in enumerate(names) if name in given}
    for name in given:
        if name not in places:
            raise UserError(
                f"--{flag}: no training image is called {name!r}; they are called like {names[0]!r}"
            )
    return [places[name] for name in given]


def first_of_each_class(observed: NDArray[np.int8], count: int) -> list[int]:
    """The first image of each class, then the second of each, until there are enough.

    Args:
        observed: int8 [N, L] of {1, 0, -1}; an image is of the classes it is annotated with.
        count: how many images, at most `MOST_IMAGES`.

    Returns:
        At most `count` rows, each once.
    """
    chosen: dict[int, None] = {}
    for rank in range(count):
        for column in observed.T:
            if len(chosen) == count:
                return list(chosen)
            rows = np.flatnonzero(column == POSITIVE)
            if rank < len(rows):
                chosen[int(rows[rank])] = None
    return list(chosen)
