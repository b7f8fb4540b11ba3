"""Photos that come more than once: rows of the same name, files of the same content."""

from __future__ import annotations

import collections
import os
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from spml_tf.labels import UNKNOWN
from spml_tf.system.files import sha256


class ContradictionError(ValueError):
    """Two copies of a photo say different things of a class.

    Attributes:
        first, second: their rows.
        column: the class.
    """

    def __init__(self, first: int, second: int, column: int) -> None:
        super().__init__(f"rows {first} and {second}, column {column}")
        self.first, self.second, self.column = first, second, column


def first_rows(keys: Sequence[Hashable]) -> NDArray[np.int64]:
    """int64 [N], for each key the first row that has it."""
    firsts: dict[Hashable, int] = {}
    return np.array([firsts.setdefault(key, row) for row, key in enumerate(keys)], np.int64)


def groups(firsts: NDArray[np.int64]) -> list[list[int]]:
    """The rows of each photo, of the photos in their order.

    Examples:
        >>> groups(np.array([0, 1, 0]))
        [[0, 2], [1]]
    """
    rows: dict[int, list[int]] = {}
    for row, first in enumerate(firsts.tolist()):
        rows.setdefault(first, []).append(row)
    return list(rows.values())


def merged(labels: NDArray[np.int8], firsts: NDArray[np.int64]) -> NDArray[np.int8]:
    """Gives each photo what all its copies say.

    Args:
        labels: int8 [N, L] of {1, 0, -1}.
        firsts: int64 [N], the row of each row's photo, at most its own.

    Returns:
        int8 [M, L], the rows of the M photos in their order.

    Raises:
        ContradictionError: a class is positive in one copy and negative in another.

    Examples:
        >>> merged(np.array([[1, -1], [0, 0], [-1, 1]], np.int8), np.array([0, 1, 0])).tolist()
        [[1, 1], [0, 0]]
    """
    own = firsts == np.arange(len(firsts))
    found = labels.copy()
    givers: dict[tuple[int, int], int] = {}
    for row in np.flatnonzero(~own).tolist():
        first = int(firsts[row])
        known = labels[row] != UNKNOWN
        wrong = known & (found[first] != UNKNOWN) & (found[first] != labels[row])
        if wrong.any():
            column = int(wrong.argmax())
            raise ContradictionError(givers.get((first, column), first), row, column)
        new = known & (found[first] == UNKNOWN)
        givers.update({(first, column): row for column in np.flatnonzero(new).tolist()})
        found[first][new] = labels[row][new]
    kept: NDArray[np.int8] = found[own]
    return kept


def same_content(paths: Sequence[str | None]) -> NDArray[np.int64]:
    """int64 [N], for each file the first one with the same bytes.

    Only files of equal size are read. Files that are missing, empty or cannot be read have no
    copies.
    """
    by_size = collections.defaultdict(list)
    for row, path in enumerate(paths):
        try:
            size = os.path.getsize(path) if path else 0
        except OSError:
            size = 0
        if size:
            by_size[size].append(row)
    firsts = np.arange(len(paths), dtype=np.int64)
    for rows in by_size.values():
        seen: dict[str, int] = {}
        for row in rows if rows[1:] else ():
            try:
                digest = sha256(paths[row] or "")
            except OSError:  # told of where the photo is decoded
                continue
            firsts[row] = seen.setdefault(digest, row)
    return firsts
