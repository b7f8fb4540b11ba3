"""The highest of many scores by counts of their bytes, which several workers can add up."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The sum of an array over all workers.
Total = Callable[[NDArray[np.int64]], NDArray[np.int64]]
# Some labels: their unsigned keys, their groups and their places among equal scores, each [n].
Keyed = tuple[NDArray[np.unsignedinteger[Any]], NDArray[np.int64], NDArray[np.int64]]

_BYTES = 256


def of_one_worker(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sum over a single worker."""
    return values


def lowest_keys(
    keyed: Callable[[], Iterable[Keyed]],
    num_bytes: int,
    wanted: NDArray[np.int64],
    total: Total,
) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]:
    """The key at which the wanted number of the highest keys is reached.

    Args:
        keyed: gives the labels, in parts.
        num_bytes: of a key that count, the lowest ones.
        wanted: [L], or [1] where the labels of all classes are ranked together.
        total: the sum of an array over all workers.

    Returns:
        lowest: as `wanted`; the highest key of all where nothing is wanted.
        missing: as `wanted`, how many labels of that key are wanted.
        ties: as `wanted`, how many there are.
    """
    groups = np.arange(len(wanted))
    lowest = np.zeros(len(wanted), np.uint64)
    ties = np.zeros_like(wanted)
    for shift in range(8 * (num_bytes - 1), -1, -8):
        counts = np.zeros(len(wanted) * _BYTES, np.int64)
        for keys, group, _ in keyed():
            if shift < 8 * (num_bytes - 1):
                alike = keys >> (shift + 8) == lowest.astype(keys.dtype)[group]
                keys, group = keys[alike], group[alike]
            cells = (keys >> shift).astype(np.uint8) + group * _BYTES
            counts += np.bincount(cells, minlength=len(counts))
        from_above = total(counts.reshape(-1, _BYTES))[:, ::-1].cumsum(axis=1)
        # More than there are means all.
        wanted = np.minimum(wanted, from_above[:, -1])
        place = (from_above < wanted[:, None]).sum(axis=1)
        higher = np.where(place > 0, from_above[groups, place - 1], 0)
        wanted, ties = wanted - higher, from_above[groups, place] - higher
        lowest = lowest << np.uint64(8) | (_BYTES - 1 - place).astype(np.uint64)
    return lowest, wanted, ties


def sortable_keys(scores: NDArray[Any]) -> NDArray[np.unsignedinteger[Any]]:
    """Unsigned integers of the same size and order as the scores, which are not NaN."""
    if scores.dtype.kind == "u":
        return scores
    bits = np.ascontiguousarray(scores).view(f"u{scores.itemsize}")
    sign = bits.dtype.type(1 << (8 * scores.itemsize - 1))
    if not bits.size or bits.max() < sign:  # as a rule none is below zero: spare the rest
        above: NDArray[np.unsignedinteger[Any]] = bits | sign
        return above
    # Below zero the bits grow with the magnitude; both zeros get the same key.
    keys: NDArray[np.unsignedinteger[Any]] = np.where(bits >= sign, -bits, bits | sign)
    return keys
