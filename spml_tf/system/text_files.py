"""Text files and tables, read with messages that name the line."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path

from spml_tf.system.errors import UserError


def read_text(path: str | os.PathLike[str], hint: str = "") -> str:
    """The text of a UTF-8 file; a byte order mark, which spreadsheets write, is dropped.

    Args:
        path: the file.
        hint: what to do about a file that is missing, for the message.

    Returns:
        The text, line ends as they are.

    Raises:
        UserError: the file cannot be read, or is not UTF-8 (the message gives the line).
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}){_advice(hint)}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: not UTF-8; save the file in that encoding") from error


def read_words(path: str | os.PathLike[str], hint: str = "") -> Iterator[tuple[str, list[str]]]:
    """Reads a list file.

    Args:
        path: the file.
        hint: what to do about a file that is missing, for the message.

    Yields:
        ("file:line", the words between blanks) of every line that is not blank.

    Raises:
        UserError: as `read_text`.
    """
    for number, line in enumerate(read_text(path, hint).splitlines(), start=1):
        if line.strip():
            yield f"{path}:{number}", line.split()


def read_csv(path: str | os.PathLike[str], hint: str = "") -> Iterator[tuple[str, list[str]]]:
    """Reads a CSV file, quoted or not, with any line ends.

    Args:
        path: the file.
        hint: what to do about a file that is missing, for the message.

    Yields:
        ("file:line", the fields, each `bare`) of every row that is not blank, the header among
        them.

    Raises:
        UserError: as `read_text`, or a quotation mark is never closed.
    """
    yield from split_csv(path, read_text(path, hint))


def split_csv(
    path: str | os.PathLike[str], text: str, separator: str = ",", skip_blanks: bool = False
) -> Iterator[tuple[str, list[str]]]:
    """As `read_csv`, of a text that has been read.

    Args:
        path: the file it comes from, for messages.
        text: the table.
        separator: one character, between fields.
        skip_blanks: drop blanks before a field, in front of a quotation mark too.

    Yields:
        As `read_csv`.

    Raises:
        UserError: a quotation mark is never closed.
    """
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, strict=True,
        skipinitialspace=skip_blanks,
    )  # fmt: skip
    try:
        for fields in filter(None, reader):
            yield f"{path}:{reader.line_num}", [bare(field) for field in fields]
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: not valid CSV ({error})") from error


def end_of_whole_rows(content: bytes) -> int:
    """Where the last whole row of a CSV file ends that was cut off in writing.

    Args:
        content: of the file, whose fields stand in double quotation marks where they hold line
            ends, and whose rows end with a line feed.

    Returns:
        The number of bytes up to there, 0 where no row is whole.

    Examples:
        >>> end_of_whole_rows(b'a,b\\n1,"x\\ny')
        4
    """
    end = content.rfind(b"\n") + 1
    while content.count(b'"', 0, end) % 2:  # this line end is inside of quotation marks
        end = content.rfind(b"\n", 0, end - 1) + 1
    return end


# What a spreadsheet takes for a formula, or skips and then takes for one; and what is a number.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
_NUMBER = re.compile(r"[-+]?((\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|inf|nan)")


def guarded(cell: object) -> object:
    """A cell of a CSV file that no spreadsheet runs as a formula; `bare` takes it back.

    Names of photos and classes may be anybody's. A text that begins with = + - @, a tab or a line
    end gets an apostrophe before it, unless it is a number; and so does one that begins with
    apostrophes before such a character.

    Examples:
        >>> [guarded(cell) for cell in ("=1+1", "'=a", "-1", -1, "it's", "'90s")]
        ["'=1+1", "''=a", '-1', -1, "it's", "'90s"]
    """
    return f"'{cell}" if isinstance(cell, str) and _runs(cell) else cell


def bare(cell: str) -> str:
    """The text that `guarded` was given.

    Examples:
        >>> [bare(cell) for cell in ("'=1+1", "''=a", "=1+1", "-1", "'90s")]
        ['=1+1', "'=a", '=1+1', '-1', "'90s"]
    """
    return cell[1:] if cell.startswith("'") and _runs(cell[1:]) else cell


def _runs(cell: str) -> bool:
    return _FORMULA.match(cell) is not None and not _NUMBER.fullmatch(cell)


def _advice(hint: str) -> str:
    return f"; {hint}" if hint else ""
