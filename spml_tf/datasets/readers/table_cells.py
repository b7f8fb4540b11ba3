"""What stands in the cells of a table: values of labels, and lists of names of classes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from spml_tf.datasets.table_options import TableOptions
from spml_tf.labels import NEGATIVE, POSITIVE, UNKNOWN
from spml_tf.system.errors import UserError
from spml_tf.system.json_text import parse_json
from spml_tf.system.text_files import split_csv

_WORDS = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|", "pipe": "|"}
# Of columns, in the order in which they are tried.
_SEPARATORS = ",;\t|"
# By the words of --label_separator that mean more than one character.
BLANK, JSON, NONE = "blank", "json", "none"
_MEANINGS = {"positive": POSITIVE, "negative": NEGATIVE, "unknown": UNKNOWN}
_WRITTEN = {
    POSITIVE: ("1", "1.0", "True", "true", "TRUE"),
    NEGATIVE: ("0", "0.0", "False", "false", "FALSE"),
}
_MINUS_ONE = ("-1", "-1.0")
_VALUES = {"", *_WRITTEN[POSITIVE], *_WRITTEN[NEGATIVE], *_MINUS_ONE}
_FRACTION = re.compile(r"0?\.\d+(e-\d+)?|\d(\.\d+)?e-\d+", re.I)

_SIDE_BY_SIDE = re.compile(r"(['\"])\s+(['\"])")
# What float32 holds.
_LARGEST = 3.4028234e38

Row = tuple[str, list[str]]


class Null(str):
    """A cell that is empty because JSON says null: nobody knows, whatever empty cells mean."""

    __slots__ = ()


def separator_word(text: str) -> str:
    """How a flag writes a separator, such as "bar"."""
    names = {mark: word for word, mark in reversed(_WORDS.items())} | {" ": BLANK}
    return names.get(text, text)


def column_separator(path: str, text: str, given: str | None) -> str:
    r"""The character between the columns of a table.

    Args:
        path: the file, for messages.
        text: the table.
        given: --column_separator.

    Returns:
        The one given; else the one that splits the header, and all first rows into as many cells.

    Raises:
        UserError: several would do, or the one given is no single character.

    Examples:
        >>> column_separator("t.csv", "image\tlabels\na.jpg\tcat;dog\n", None)
        '\t'
    """
    if given:
        separator = _WORDS.get(given, given)
        if len(separator) != 1:
            raise UserError(
                f"--column_separator={given}: must be one character, or {', '.join(sorted(_WORDS))}"
            )
        return separator
    first = next(filter(str.strip, text.splitlines()), "")
    fits = [mark for mark in _SEPARATORS if mark in first]
    if len(fits) > 1:
        head = "\n".join(text.splitlines()[:50])
        even = [mark for mark in fits if _is_even(path, head, mark)]
        fits = even or fits[:1]
    if len(fits) > 1:
        words = " or ".join(f"--column_separator={separator_word(mark)}" for mark in fits)
        raise UserError(f"{path}:1: the columns can be separated in several ways; give {words}")
    return fits[0] if fits else ","


def _is_even(path: str, head: str, separator: str) -> bool:
    """Whether a separator splits the first lines into rows of equal length, two cells or more."""
    lengths = set()
    try:
        for _, fields in split_csv(path, head, separator, skip_blanks=True):
            lengths.add(len(fields))
    except UserError:  # a quotation mark that is closed below these lines
        pass
    return len(lengths) == 1 and lengths.pop() > 1


def number(cell: str, most: float = _LARGEST) -> float | None:
    """The number from 0 to `most` that a cell holds, None where it holds anything else.

    Examples:
        >>> number(" 0.5 "), number("2", most=1), number("-1"), number("nan"), number("one")
        (0.5, None, None, None, None)
    """
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if 0 <= value <= most else None


class Values:
    """What the cells of a column of a class mean.

    Args:
        options: what -1, 0, an empty cell and fractions mean.
    """

    def __init__(self, options: TableOptions) -> None:
        meanings = {POSITIVE: POSITIVE, NEGATIVE: _MEANINGS[options.zero or "negative"]}
        self.cells = {cell: meanings[value] for value, cells in _WRITTEN.items() for cell in cells}
        self.cells[""] = _MEANINGS[options.blank or "unknown"]
        if options.minus_one:
            self.cells.update(dict.fromkeys(_MINUS_ONE, _MEANINGS[options.minus_one]))
        self._fractions = bool(options.skip_fractions)

    def get(self, cell: str) -> int | None:
        """POSITIVE, NEGATIVE or UNKNOWN, None where the cell is no value of a label."""
        if isinstance(cell, Null):
            return UNKNOWN
        cell = cell.strip()
        if self._fractions and _FRACTION.fullmatch(cell):
            return self.cells.setdefault(cell, UNKNOWN)
        return self.cells.get(cell)

    @staticmethod
    def looks_like_one(cell: str) -> bool:
        """Whether a cell is a value with some options, -1 and fractions among them."""
        cell = cell.strip()
        return cell in _VALUES or _FRACTION.fullmatch(cell) is not None


class Names:
    """Takes the names of classes out of cells.

    Args:
        given: --label_separator.
    """

    def __init__(self, given: str | None) -> None:
        if given in (None, "", BLANK, "space", JSON, NONE):
            self._kind: str | None = {"space": BLANK, "": None}.get(given or "", given)
            self.separator = " " if self._kind == BLANK else ";"
        else:
            self._kind, self.separator = "given", _WORDS.get(given or "", given or "")
        self.lists = 0

    def split(self, cell: str) -> Iterator[str]:
        """The names in a cell, without blanks around them; empty ones are none."""
        cell = cell.strip()
        if self._kind in (None, JSON) and cell[:1] in ("[", "{", "("):
            found = _listed(cell)
            if found is not None:
                self.lists += 1
                yield from found
                return
        if self._kind in (JSON, NONE):
            parts = [cell]
        elif self._kind == BLANK:
            parts = cell.split()
        else:
            parts = cell.split(self.separator)
        for part in parts:
            if name := part.strip():
                yield name


def _listed(cell: str) -> list[str] | None:
    """The names of a list in JSON or of Python, or of an object around one; None: no list."""
    try:
        value = parse_json(cell)
    except ValueError:
        try:
            # Python takes texts side by side for one; NumPy prints lists so.
            value = ast.literal_eval(_SIDE_BY_SIDE.sub(r"\1, \2", cell))
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            return None
    if isinstance(value, dict) and len(value) == 1:
        (value,) = value.values()
    if not isinstance(value, list | tuple) or not all(type(x) in (str, int) for x in value):
        return None
    try:
        return [str(x).strip() for x in value if str(x).strip()]
    except ValueError:  # a number of thousands of digits
        return None
