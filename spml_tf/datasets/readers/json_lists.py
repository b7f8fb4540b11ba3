"""Lists of objects in a JSON file, read and checked column by column.

An annotation file may list a million objects: a column is taken and checked at once, and only
where a check fails is the first entry looked for that breaks it.
"""

from __future__ import annotations

import dataclasses
import json
import reprlib
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spml_tf.system.errors import UserError
from spml_tf.system.json_text import parse_document
from spml_tf.system.text_files import read_text

# By what messages call them. The type bool is in none, although Python counts it as an int.
_TYPES: dict[str, set[type]] = {
    "a whole number": {int},
    "a number": {int, float},
    "text": {str},
    "a list": {list},
}


@dataclasses.dataclass(frozen=True)
class JsonList:
    """A list of N objects.

    Attributes:
        path: the file.
        name: the list's key in the file.
        entries: what is in the list: anything, until a column is read.
    """

    path: Path
    name: str
    entries: list[Any]

    def __len__(self) -> int:
        return len(self.entries)

    def at(self, number: int) -> str:
        """What a message calls an entry's place, such as "a.json: images[5]"."""
        return f"{self.path}: {self.name}[{number}]"

    def require(self, good: ArrayLike, key: str, expected: str) -> None:
        """Refuses the first entry that is not good.

        Args:
            good: bool [N].
            key: what the message shows of the entry.
            expected: what it must be.

        Raises:
            UserError: an entry is not good.
        """
        bad = np.flatnonzero(~np.asarray(good, bool))
        if len(bad):
            found = _shown(self.entries[bad[0]][key])
            raise UserError(f"{self.at(bad[0])}: {key} must be {expected}, found {found}")

    def column(self, key: str, kind: str) -> list[Any]:
        """The values of a key.

        Args:
            key: the key.
            kind: "a whole number", "a number" (perhaps NaN), "text" (printable, on one line, not
                empty) or "a list".

        Returns:
            N values.

        Raises:
            UserError: an entry has no such key, or a value of another kind.
        """
        try:
            values = [entry[key] for entry in self.entries]
        except (KeyError, TypeError):
            raise self._incomplete(key) from None
        types = _TYPES[kind]
        if not set(map(type, values)) <= types:
            self.require([type(value) in types for value in values], key, kind)
        if kind == "text":
            good = [bool(value.strip()) and value.isprintable() for value in values]
            self.require(good, key, "text that can be printed on one line")
        return values

    def unique(self, key: str, kind: str) -> list[Any]:
        """As `column`, and no value may come twice."""
        values = self.column(key, kind)
        firsts: dict[Hashable, int] = {}
        for number, value in enumerate(values):
            first = firsts.setdefault(value, number)
            if first != number:
                raise UserError(
                    f"{self.at(number)}: {key} {_shown(value)} is also that of "
                    f"{self.name}[{first}]; remove or rename one of them"
                )
        return values

    def numbers(self, key: str, low: float, expected: str) -> NDArray[np.float64]:
        """float64 [N], the values of a key, which must be finite and at least low."""
        values = _floats(self.column(key, "a number"))
        self.require(np.isfinite(values) & (values >= low), key, expected)
        return values

    def flags(self, key: str) -> NDArray[np.bool_]:
        """bool [N], the values of a key, which must be 0 or 1."""
        values = self.column(key, "a whole number")
        self.require([value in (0, 1) for value in values], key, "0 or 1")
        return np.array(values, bool)

    def rectangles(self, key: str) -> NDArray[np.float64]:
        """float64 [N, 4], the values of a key: (x, y, width, height), finite."""
        values, expected = self.column(key, "a list"), "[x, y, width, height]"
        self.require([len(value) == 4 for value in values], key, expected)
        numbers, types = [x for value in values for x in value], _TYPES["a number"]
        if not set(map(type, numbers)) <= types:
            good = [all(type(x) in types for x in value) for value in values]
            self.require(good, key, f"{expected}, all of them numbers")
        found = _floats(numbers).reshape(-1, 4)
        self.require(np.isfinite(found).all(axis=1), key, f"{expected}, all of them finite")
        self.require((found[:, 2:] >= 0).all(axis=1), key, f"{expected} of no negative size")
        return found

    def find(self, key: str, others: JsonList, what: str) -> NDArray[np.int64]:
        """int64 [N], where in another list the entries are whose ids a key gives.

        Args:
            key: the key of the ids.
            others: the list in which every id must be.
            what: what the message calls an entry of the other list.

        Raises:
            UserError: an id is not there, or one of the two columns is malformed.
        """
        known = {x: number for number, x in enumerate(others.unique("id", "a whole number"))}
        values = self.column(key, "a whole number")
        found = np.array([known.get(value, -1) for value in values], np.int64)
        if (found < 0).any():
            number = int((found < 0).argmax())
            value = _shown(values[number])
            raise UserError(
                f"{self.at(number)}: {key} {value} is no {what} of this file; mend or remove it"
            )
        return found

    def _incomplete(self, key: str) -> UserError:
        number, entry = next(
            (number, entry)
            for number, entry in enumerate(self.entries)
            if not (isinstance(entry, dict) and key in entry)
        )
        if isinstance(entry, dict):
            return UserError(f"{self.at(number)}: it has no {key}; add it, or remove the entry")
        return UserError(f"{self.at(number)}: expected an object, found {_shown(entry)}; remove it")


def read_lists(
    path: Path,
    names: Sequence[str],
    source: str,
    object_hook: Callable[[dict[str, Any]], Any] | None = None,
) -> list[JsonList]:
    """Reads lists out of the object that a JSON file holds.

    Args:
        path: the file.
        names: the keys of the lists; none of the lists may be empty.
        source: where to get the file, for the message.
        object_hook: as for `json.loads`.

    Returns:
        The lists, in the order of their names.

    Raises:
        UserError: the file cannot be read, is no JSON (the message gives line and column), or a
            list is missing or empty.
    """
    content = parse_document(path, read_text(path, source), source, object_hook)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected an object, found {_shown(content)}; {source}")
    for name in names:
        if name not in content:
            raise UserError(f"{path}: {name} is missing; {source}")
        if not isinstance(content[name], list) or not content[name]:
            found = _shown(content[name])
            raise UserError(f"{path}: {name} must be a list of objects, found {found}; {source}")
    return [JsonList(path, name, content[name]) for name in names]


def _floats(values: Sequence[int | float]) -> NDArray[np.float64]:
    """float64 [N]; integers that are too large become infinite."""
    try:
        return np.array(values, np.float64)
    except OverflowError:
        return np.array([float(x) if abs(x) < 1e300 else np.inf for x in values])


def _shown(value: Any) -> str:
    """What a message shows of a value: on one line, and not all of it where it is long."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return reprlib.repr(value)
