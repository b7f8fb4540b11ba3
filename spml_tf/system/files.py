"""Files of results, written in one step: text, tables, JSON."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import stat
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from spml_tf.system import machine_faults
from spml_tf.system.errors import UserError, quoted
from spml_tf.system.json_text import read_json_or_none
from spml_tf.system.text_files import end_of_whole_rows, guarded

_LONGEST_NAME = 255  # bytes of a file's name, in nearly all file systems
# By name the files that were written to a folder, with the digests of those that people may edit.
RECORD = ".written.json"

# How a file comes to its place: `replaced`, `replaced_unless_edited` or `rows_kept`.
Way = Callable[[Path], contextlib.AbstractContextManager[Path]]


def beside(path: Path, kind: str) -> Path:
    """A name beside `path` that ends as it does, and is no longer than a name may be."""
    name = f".{kind}-{path.name}"
    own, length = os.fsencode(path.name), len(os.fsencode(name))
    if len(own) <= _LONGEST_NAME < length:
        mark = f".{kind}-{hashlib.sha256(own).hexdigest()[:16]}-"
        name = mark + own[len(mark) - _LONGEST_NAME :].decode("utf-8", "ignore")
    return path.with_name(name)


def check_output_file(
    path: Path, place: str, inputs: Iterable[str | os.PathLike[str]] = ()
) -> None:
    """Refuses a file that is more than an earlier result of its name.

    Args:
        path: the file to write, which need not exist.
        place: how the message calls it, such as "--output=FILE".
        inputs: files that are read.

    Raises:
        UserError: it is a folder, a symbolic link, a device or a pipe, or one of the inputs.
    """
    try:
        found = path.lstat()
    except OSError:
        return  # not there, or told of when it is written
    if stat.S_ISDIR(found.st_mode):
        raise UserError(f"{place}: is a folder; name the file to write")
    if stat.S_ISLNK(found.st_mode):
        raise UserError(f"{place}: is a symbolic link; name the file that it leads to")
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{place}: is a device or a pipe; name a file")
    for one in inputs:
        with contextlib.suppress(OSError):
            if os.path.samestat(found, os.stat(one)):
                raise UserError(f"{place}: is read by this command; choose another name")


@contextlib.contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Makes a folder, with its parents; after an error those that are new and empty are removed."""
    new = [one for one in (folder, *folder.parents) if not os.path.lexists(one)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for one in new:  # the innermost first
                one.rmdir()
        raise


def walk_folders(root: str | os.PathLike[str]) -> Iterator[tuple[str, list[str], list[str]]]:
    """As `os.walk`, which leaves out what may not be listed; links are not followed.

    Raises:
        UserError: naming a folder that cannot be listed.
    """

    def fail(error: OSError) -> NoReturn:
        raise UserError(f"{error.filename}: cannot be listed ({error.strerror})") from error

    return os.walk(root, onerror=fail)


def flush_folder(folder: Path) -> None:
    """Makes a change of names last through a power failure, where folders can be flushed."""
    with contextlib.suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _named(error: Exception, temporary: Path, path: Path) -> Exception:
    """The error with the name of the file that was meant."""
    found = machine_faults.os_error(error)
    if found is None or found.errno is None or found.filename not in (None, str(temporary)):
        return error
    return OSError(found.errno, found.strerror, str(path))


def _removed(temporary: Path) -> str:
    temporary.unlink()
    return ""


def _cut_to_rows(temporary: Path) -> str:
    """Cuts a CSV file after its last whole row; says what it holds, or removes an empty one."""
    content = temporary.read_bytes()
    end = end_of_whole_rows(content)
    text = content[:end].decode("utf-8", "surrogateescape")
    rows = sum(1 for _ in csv.reader(io.StringIO(text, newline=""))) - 1
    if rows < 1:
        return _removed(temporary)
    os.truncate(temporary, end)
    return f"{rows} {'rows are' if rows > 1 else 'row is'} kept in {temporary}"


@contextlib.contextmanager
def _in_one_step(path: Path, give_up: Callable[[Path], str]) -> Iterator[Path]:
    check_output_file(path, str(path))
    temporary = beside(path, "unfinished")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        flush_folder(path.parent)
    except BaseException as error:
        told: BaseException = error
        if isinstance(error, Exception):
            told = _named(error, temporary, path)
        with contextlib.suppress(OSError):
            if note := give_up(temporary):
                told.add_note(note)
        if told is not error:
            raise told from error
        raise


def replaced(path: Path) -> contextlib.AbstractContextManager[Path]:
    """Gives a path to write to, which then replaces `path` in one step.

    After an error `path` is what it was. The temporary name keeps the ending of `path`: Keras
    chooses the format by it.

    Raises:
        UserError: `path` is a link, a device or a folder.
        OSError: it cannot be written; the error names `path`.
    """
    return _in_one_step(path, _removed)


def rows_kept(path: Path) -> contextlib.AbstractContextManager[Path]:
    """As `replaced` for a CSV file, but the rows that were written before an error stay.

    They are then under the temporary name, which a note of the error tells
    (`BaseException.add_note`).
    """
    return _in_one_step(path, _cut_to_rows)


@contextlib.contextmanager
def replaced_unless_edited(path: Path) -> Iterator[Path]:
    """As `replaced`, for a file that people may edit: see `check_unedited`."""
    check_unedited([path])
    with replaced(path) as temporary:
        yield temporary
        # Before the file itself: a kill between the two must not make it look like another's.
        record = path.parent / RECORD
        there = [sha256(path)] if path.exists() else []  # it stays where what follows fails
        write_json(record, {**_written(record), path.name: [*there, sha256(temporary)]})


def check_unedited(paths: Iterable[Path]) -> None:
    """Refuses files that are there and are not as `replaced_unless_edited` wrote them.

    Args:
        paths: files that are to be replaced.

    Raises:
        UserError: naming the first that a person has edited, or that comes from elsewhere.
    """
    for path in paths:
        if path.exists() and sha256(path) not in _written(path.parent / RECORD).get(path.name, ()):
            raise UserError(
                f"{path}: was edited, or comes from elsewhere, and would be replaced; move it, or "
                "choose another folder"
            )


def record_files(folder: Path, left_out: Container[str] = ()) -> None:
    """Adds every file of a folder, at any depth, to its record: see `check_only_recorded`.

    Args:
        folder: whose content is written.
        left_out: names of files that will not stay.
    """
    known = _written(folder / RECORD)
    names = [name for name in _files(folder) if name not in left_out]
    write_json(folder / RECORD, {name: known.get(name, []) for name in names})


def check_only_recorded(folder: Path, place: str) -> None:
    """Refuses a folder with a file that `record_files` did not find when it was written.

    Args:
        folder: which is to be replaced, and need not exist.
        place: how the message calls it, such as "--output_dir=DIR".

    Raises:
        UserError: naming the first such file.
    """
    known = _written(folder / RECORD)
    for name in _files(folder):
        if name not in known:
            raise UserError(
                f"{place}: holds {quoted(name)}, which this command has not written; move it, or "
                "choose another folder"
            )


def _files(folder: Path) -> Iterator[str]:
    """The files and links below a folder, relative to it with slashes, without its record."""

    for place, folders, files in walk_folders(folder) if folder.exists() else ():
        folders.sort()
        links = (name for name in folders if os.path.islink(os.path.join(place, name)))
        for name in sorted([*files, *links]):
            inner = Path(place, name).relative_to(folder).as_posix()
            if inner != RECORD:
                yield inner


def _written(record: Path) -> dict[str, list[str]]:
    """By name the last digests of the files of a folder, as they were written there."""
    found = read_json_or_none(record)
    return found if isinstance(found, dict) else {}


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content, as hexadecimal text."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def naming_unwritable(place: str) -> Iterator[None]:
    """Turns what the system says about files that cannot be written into one line.

    Args:
        place: how the line calls the file or folder, such as "--output_dir=DIR".

    Raises:
        UserError: in place of an OSError, or of what a library makes of one.
    """
    try:
        yield
    except BrokenPipeError:  # of what is printed inside: nobody reads it any more
        raise
    except Exception as error:
        found = machine_faults.os_error(error)
        if found is None or found.errno is None:
            raise
        raise UserError(f"{place}: cannot be written ({machine_faults.line(found)})") from error


def write_text(path: Path, text: str, into: Way = replaced) -> None:
    """Writes a text file in UTF-8, in one step."""
    with into(path) as temporary:
        temporary.write_text(text, "utf-8")


def write_csv(
    path: str | os.PathLike[str],
    header: Sequence[object],
    rows: Iterable[Sequence[object]],
    line_end: str = "\n",
    errors: str = "strict",
    into: Way = replaced,
) -> int:
    """Writes a CSV file in UTF-8, in one step; its cells are `guarded`, as `read_csv` undoes.

    Args:
        path: the file.
        header: its first line.
        rows: the lines after it; None becomes an empty cell.
        line_end: what ends a line.
        errors: what becomes of characters that UTF-8 cannot hold, as for `open`.
        into: how the file comes to its place; for `rows_kept` each row is written at once.

    Returns:
        The number of rows.
    """
    count, buffering = 0, 1 if into is rows_kept else -1
    with (
        into(Path(path)) as temporary,
        open(temporary, "w", buffering, newline="", encoding="utf-8", errors=errors) as file,
    ):
        writer = csv.writer(file, lineterminator=line_end)
        writer.writerow(map(guarded, header))
        for row in rows:
            writer.writerow(map(guarded, row))
            count += 1
    return count


def write_table(
    path: str | os.PathLike[str], rows: Sequence[Mapping[str, object]], into: Way = replaced
) -> None:
    """Writes rows of named cells as a CSV file, lines ended as RFC 4180 has them, in one step.

    Args:
        path: the file.
        rows: their columns stand in the order in which they are first named; a cell that a row
            lacks is empty.
        into: how the file comes to its place.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = ([row.get(name, "") for name in names] for row in rows)
    write_csv(path, names, cells, line_end="\r\n", into=into)


def write_json(path: Path, value: Any, into: Way = replaced) -> None:
    """Writes JSON in one step; NaN is refused."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n", into)
