"""Files: text and tables read with messages that name the line, results written in one step."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

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
    reader = csv.reader(io.StringIO(read_text(path, hint), newline=""), strict=True)
    try:
        for fields in filter(None, reader):
            yield f"{path}:{reader.line_num}", [bare(field) for field in fields]
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: not valid CSV ({error})") from error


# What a spreadsheet takes for a formula, or skips and then takes for one; and what is a number.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
_NUMBER = re.compile(r"[-+]?((\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|inf|nan)")


def guarded(cell: object) -> object:
    """A cell of a CSV file that no spreadsheet runs as a formula; `bare` takes it back.

    Names of photos and classes may be anybody's. A text that begins with = + - @, a tab or a line
    end gets an apostrophe before it, unless it is a number; and so does one that begins with
    apostrophes before such a character.

    >>> [guarded(cell) for cell in ("=1+1", "'=a", "-1", -1, "it's", "'90s")]
    ["'=1+1", "''=a", '-1', -1, "it's", "'90s"]
    """
    return f"'{cell}" if isinstance(cell, str) and _runs(cell) else cell


def bare(cell: str) -> str:
    """The text that `guarded` was given.

    >>> [bare(cell) for cell in ("'=1+1", "''=a", "=1+1", "-1", "'90s")]
    ['=1+1', "'=a", '=1+1', '-1', "'90s"]
    """
    return cell[1:] if cell.startswith("'") and _runs(cell[1:]) else cell


def _runs(cell: str) -> bool:
    return _FORMULA.match(cell) is not None and not _NUMBER.fullmatch(cell)


def _advice(hint: str) -> str:
    return f"; {hint}" if hint else ""


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yields a path to write to, which then replaces `path` in one step.

    After an error `path` is what it was. The temporary name keeps the ending of `path`: Keras
    chooses the format by it.
    """
    temporary = path.with_name(f".unfinished-{path.name}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def replaced_folder(target: Path) -> Iterator[Path]:
    """Yields an empty folder beside `target`, which takes its place once it is written."""
    unfinished = target.with_name(f".unfinished-{target.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    yield unfinished
    publish_folder(unfinished, target)


def publish_folder(finished: Path, target: Path) -> None:
    """Moves a folder to the place of `target`, which may be there, beside it."""
    old = target.with_name(f".old-{target.name}")
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)  # quick, unlike removing it: hardly a moment without either
    finished.rename(target)
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def locked(path: Path, refusal: str) -> Iterator[None]:
    """Holds a lock file, which is free again when the process ends in whatever way.

    Args:
        path: the file, which is made if it is missing and stays.
        refusal: what is said where another process holds it.

    Raises:
        UserError: `refusal`.
    """
    import filelock  # takes a while, and --help needs none

    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0.2)  # twice: without flock the first finds that a holder is gone
    except filelock.Timeout:
        raise UserError(refusal) from None
    try:
        yield
    finally:
        lock.release()


def check_output_folder(
    folder: Path, place: str, is_ours: bool, refusal: str, kept: str = ""
) -> None:
    """Refuses a folder whose content a command must not replace; an empty one passes.

    Args:
        folder: where the command writes, which need not exist.
        place: how messages call it, such as "--output_dir=DIR".
        is_ours: whether it holds an earlier result of the command.
        refusal: what is said of a folder, or a file, that holds something else.
        kept: what is said of an earlier result; "" where it may be replaced.

    Raises:
        UserError: f"{place}: {refusal}" or f"{place}: {kept}".
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not is_ours:
        raise UserError(f"{place}: {refusal}")
    if kept:
        raise UserError(f"{place}: {kept}")


@contextlib.contextmanager
def naming_unwritable(place: str) -> Iterator[None]:
    """Turns what the system says about files that cannot be written into one line.

    Args:
        place: how the line calls the file or folder, such as "--output_dir=DIR".

    Raises:
        UserError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{place}: cannot be written ({error})") from None


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8, in one step."""
    with replaced(path) as temporary:
        temporary.write_text(text, "utf-8")


def write_csv(
    path: str | os.PathLike[str],
    header: Sequence[object],
    rows: Iterable[Sequence[object]],
    line_end: str = "\n",
    errors: str = "strict",
) -> int:
    """Writes a CSV file in UTF-8, in one step; its cells are `guarded`, as `read_csv` undoes.

    Args:
        path: the file.
        header: its first line.
        rows: the lines after it; None becomes an empty cell.
        line_end: what ends a line.
        errors: what becomes of characters that UTF-8 cannot hold, as for `open`.

    Returns:
        The number of rows.
    """
    count = 0
    with (
        replaced(Path(path)) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors=errors) as file,
    ):
        writer = csv.writer(file, lineterminator=line_end)
        writer.writerow(map(guarded, header))
        for row in rows:
            writer.writerow(map(guarded, row))
            count += 1
    return count


def write_table(path: str | os.PathLike[str], rows: Sequence[Mapping[str, object]]) -> None:
    """Writes rows of named cells as a CSV file, lines ended as RFC 4180 has them, in one step.

    Args:
        path: the file.
        rows: their columns stand in the order in which they are first named; a cell that a row
            lacks is empty.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = ([row.get(name, "") for name in names] for row in rows)
    write_csv(path, names, cells, line_end="\r\n")


def write_json(path: Path, value: Any) -> None:
    """Writes JSON in one step; NaN is refused."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")
