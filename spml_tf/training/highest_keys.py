"""The highest keys of each class among labels that are read in parts, and several times.

Keys are found byte by byte, from counts of the next byte among the labels that agree in the bytes
before. Labels that are few are kept in memory from then on; otherwise they are read again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# The sum of an array over all workers.
Total = Callable[[NDArray[np.int64]], NDArray[np.int64]]
# Some labels: their unsigned keys, their groups and their places among equal scores, each [n].
Keyed = tuple[NDArray[np.unsignedinteger[Any]], NDArray[np.int64], NDArray[np.int64]]
_BYTES = 256
# The lowest keys are first guessed from one image in so many, of at least _GUESSED images, so that
# only the labels above need be looked at; up to _KEPT of these, 20 bytes each, are read once.
_SAMPLED, _GUESSED = 16, 4096
# Counts for each of some labels from which on the labels are sorted and not counted into all.
_FEW_A_COUNT = 16
_KEPT = 2**21


def of_one_worker(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sum over a single worker."""
    return values


class Lowest(NamedTuple):
    """The keys at which the wanted numbers of the highest keys are reached.

    Attributes:
        keys: uint64, a group each; the highest of all where nothing is wanted.
        missing: int64, how many labels of that key are wanted.
        ties: int64, how many there are.
        all_there: bool, whether there were as many labels as wanted.
        of_key: gives the labels of that key.
    """

    keys: NDArray[np.uint64]
    missing: NDArray[np.int64]
    ties: NDArray[np.int64]
    all_there: NDArray[np.bool_]
    of_key: Callable[[], Iterable[Keyed]]


def guessed_first(
    labels_from: Callable[[NDArray[np.uint64], int], Iterator[Keyed]],
    shape: tuple[int, ...],
    num_bytes: int,
    wanted: NDArray[np.int64],
    total: Total,
) -> Lowest:
    """`lowest_keys` of all labels, of which as a rule only those above a guess are looked at.

    Args:
        labels_from: gives the labels of one image in so many whose keys are not below these.
        shape: (images, L) of the tables of all workers.
        num_bytes, wanted, total: as for `lowest_keys`.
    """
    floor = np.zeros(len(wanted), np.uint64)
    if shape[0] >= _GUESSED:
        step = max(_SAMPLED, min(shape[0] // _GUESSED, shape[0] * shape[1] // _KEPT + 1))
        # Some more than their part of the wanted, so that hardly ever the guess is too high.
        part = wanted / step
        enough = np.where(wanted > 0, np.ceil(part + 4 * np.sqrt(part) + 4), 0).astype(np.int64)
        sample = _read_once(lambda: labels_from(floor, step))
        guess = lowest_keys(sample, num_bytes, enough, total).keys
        read = _read_once(lambda: labels_from(guess, 1))
        found = lowest_keys(read, num_bytes, wanted, total)
        if found.all_there.all():
            return found
        floor = np.where(found.all_there, guess, floor)
    return lowest_keys(_read_once(lambda: labels_from(floor, 1)), num_bytes, wanted, total)


def lowest_keys(
    keyed: Callable[[], Iterable[Keyed]],
    num_bytes: int,
    wanted: NDArray[np.int64],
    total: Total,
) -> Lowest:
    """The key at which the wanted number of the highest keys is reached.

    Args:
        keyed: gives the labels, in parts.
        num_bytes: of a key that count, the lowest ones.
        wanted: [L], or [1] where the labels of all classes are ranked together.
        total: sums an array over the workers, which all call it equally often and in one order.
    """
    groups = np.arange(len(wanted))
    lowest = np.zeros(len(wanted), np.uint64)
    ties, all_there = np.zeros_like(wanted), np.ones(len(wanted), bool)
    for shift in range(8 * (num_bytes - 1), -1, -8):
        counts = np.zeros(len(wanted) * _BYTES, np.int64)
        for keys, group, _ in keyed():
            cells = (keys >> shift).astype(np.uint8) + group * _BYTES
            _count(cells, counts)
        from_above = total(counts.reshape(-1, _BYTES))[:, ::-1].cumsum(axis=1)
        # More than there are means all.
        all_there &= from_above[:, -1] >= wanted
        wanted = np.minimum(wanted, from_above[:, -1])
        place = (from_above < wanted[:, None]).sum(axis=1)
        higher = np.where(place > 0, from_above[groups, place - 1], 0)
        wanted, ties = wanted - higher, from_above[groups, place] - higher
        lowest = lowest << np.uint64(8) | (_BYTES - 1 - place).astype(np.uint64)
        # Those alike are few soon, and then read no more.
        keyed = _read_once(functools.partial(_alike, keyed, lowest, shift))
    return Lowest(lowest, wanted, ties, all_there, keyed)


def _count(cells: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
    """Adds how often each cell occurs to its count."""
    if _FEW_A_COUNT * len(cells) < len(counts):  # of many classes: spare going through all counts
        found, times = np.unique(cells, return_counts=True)
        counts[found] += times
    else:
        counts += np.bincount(cells, minlength=len(counts))


def _alike(
    keyed: Callable[[], Iterable[Keyed]], lowest: NDArray[np.uint64], shift: int
) -> Iterator[Keyed]:
    """The labels whose keys, but for their last `shift` bits, are their groups' lowest."""
    for keys, group, place in keyed():
        alike = keys >> shift == lowest.astype(keys.dtype)[group]
        yield keys[alike], group[alike], place[alike]


def _read_once(read: Callable[[], Iterator[Keyed]]) -> Callable[[], Iterable[Keyed]]:
    """The same labels, from memory where they are few."""
    kept, count = [], 0
    for labels in read():
        kept.append(labels)
        count += len(labels[0])
        if count > _KEPT:
            return read
    return lambda: kept


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
