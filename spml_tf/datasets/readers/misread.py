"""Signs that a table was misread: names of classes that no class has."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

from spml_tf.datasets.readers.photos import PHOTO
from spml_tf.datasets.readers.table_cells import separator_word

# In the order in which they are looked for; a class may be called "salt & pepper".
_MARKS = "{[|\t；、，"
# What programs write where nothing is known.
_MISSING = ("nan", "none", "null", "na", "n/a", "<na>")
_BETWEEN = re.compile(r"\s*[,|/+&:;\t]\s*|\s+")
# Words of a class name that another is looked for to hold.
_LONGEST = 6
_OMIT = "--omit_columns=COLUMN"
_TRUST = "if the name is right, give --trust_table"


def suspicion(counts: Mapping[str, int], in_cells: bool = True) -> str | None:
    """Why the names of classes look as if a table was misread, with the flag that mends it.

    Args:
        counts: how often each class is named.
        in_cells: whether the names stood in cells; else in the header.

    Returns:
        A sentence, None where nothing is odd.

    Examples:
        >>> print(suspicion({"cat": 3, "cat|dog": 1}))  # doctest: +ELLIPSIS
        the class 'cat|dog' holds '|'; give --label_separator=bar, or ... give --trust_table
        >>> suspicion({"cat": 3, "dog": 2})
    """
    for name in counts:
        mark = next((x for x in _MARKS if x in name), None)
        if mark:
            flag = f"--label_separator={separator_word(mark)}" if in_cells else _OMIT
            if in_cells and mark in "{[":
                flag = '--label_separator=json for lists such as ["cat", "dog"], and mend others'
            return _sentence(name, f"holds {mark!r}", flag)
        if in_cells and name.lower() in _MISSING:
            shown = f"the class {name!r} is what programs write for no label"
            return f"{shown}; leave such cells empty, or {_TRUST}"
        if PHOTO.search(name):
            flag = "--image_column=COLUMN" if in_cells else "--table_header=COLUMN,COLUMN"
            return _sentence(name, "is the name of a photo", flag)
    if not in_cells:
        return None
    split = {name: tuple(_BETWEEN.split(name)) for name in counts}
    whole = {parts: name for name, parts in split.items()}
    longest = min(max(map(len, whole), default=0), _LONGEST)
    for name, count in counts.items():
        parts = split[name]
        known = [part for part in parts if part in counts and part != name]
        if count == 1 and not known:
            known = [whole[run] for run in _runs(parts, longest) if run in whole]
        if known and (len(known) == len(parts) or count == 1):
            flag = _separated_by(_between(name))
            return _sentence(name, f"holds the class {known[0]!r}", flag)
    return _crossed(split)


def _runs(parts: tuple[str, ...], longest: int) -> Iterator[tuple[str, ...]]:
    """Two parts or more that follow each other, but not all of them."""
    for size in range(2, min(longest, len(parts) - 1) + 1):
        for first in range(len(parts) - size + 1):
            yield parts[first : first + size]


def look_alikes(class_names: Sequence[str]) -> tuple[str, ...]:
    """A note about names that a reader takes for the same, which are different classes."""
    spellings: dict[str, list[str]] = {}
    for name in class_names:
        spellings.setdefault(_as_read(name), []).append(name)
    alike = [" and ".join(map(repr, names)) for names in spellings.values() if names[1:]]
    return (f"{'; '.join(alike)}: nearly the same names of different classes",) if alike else ()


def _as_read(name: str) -> str:
    """A name without what a reader overlooks: case, invisible characters, kinds of blanks."""
    text = unicodedata.normalize("NFKC", name).casefold()
    seen = "".join(x for x in text if unicodedata.category(x) != "Cf")
    return re.sub(r"[\s_-]+", " ", seen).strip()


def _crossed(split: Mapping[str, Sequence[str]]) -> str | None:
    """Whether all names are lists: of several parts, of which one opens a name and ends another."""
    if len(split) < 2 or min(map(len, split.values())) < 2:
        return None
    both = {x[0] for x in split.values()} & {x[-1] for x in split.values()}
    name = next((name for name, x in split.items() if x[0] in both), None)
    if name is None:
        return None
    flag = _separated_by(_between(name))
    return _sentence(name, f"shares {split[name][0]!r} with others", flag)


def _between(name: str) -> str:
    """What separates the parts of a name: a single character, or a word."""
    if " and " in name:
        return " and "
    found = _BETWEEN.search(name)
    return (found[0].strip(" ") or " ") if found else " "


def _separated_by(between: str) -> str:
    flag = f"--label_separator={separator_word(between)}"
    return f'"{flag}"' if " " in flag else flag


def _sentence(name: str, why: str, flag: str) -> str:
    shown = repr(name if len(name) <= 80 else f"{name[:77]}...")
    return f"the class {shown} {why}; give {flag}, or {_TRUST}"
