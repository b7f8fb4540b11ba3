"""Files: text and tables read with messages that name the line, results written in one step."""

from __future__ import annotations

import contextlib
import csv
import ctypes
import errno
import hashlib
import io
import json
import os
import re
import shutil
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from spml_tf.system import machine_faults
from spml_tf.system.errors import UserError
from spml_tf.system.json_text import parse_json
from spml_tf.system.notes import tell_note

_LONGEST_NAME = 255  # bytes of a file's name, in nearly all file systems
# Digests of the files of a folder that people may edit, as they were written there.
RECORD = ".written.json"
# renameat2: paths are as for other calls; swap what stands under two names.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)

# How a file comes to its place: `replaced`, `replaced_unless_edited` or `rows_kept`.
Way = Callable[[Path], contextlib.AbstractContextManager[Path]]


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


def _beside(path: Path, kind: str) -> Path:
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


def _flush_folder(folder: Path) -> None:
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
    end = content.rfind(b"\n") + 1
    while content.count(b'"', 0, end) % 2:  # this line end is inside of quotation marks
        end = content.rfind(b"\n", 0, end - 1) + 1
    text = content[:end].decode("utf-8", "surrogateescape")
    rows = sum(1 for _ in csv.reader(io.StringIO(text, newline=""))) - 1
    if rows < 1:
        return _removed(temporary)
    os.truncate(temporary, end)
    return f"{rows} {'rows are' if rows > 1 else 'row is'} kept in {temporary}"


@contextlib.contextmanager
def _in_one_step(path: Path, give_up: Callable[[Path], str]) -> Iterator[Path]:
    check_output_file(path, str(path))
    temporary = _beside(path, "unfinished")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _flush_folder(path.parent)
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
        before = _written(record)
        digests = [*before.get(path.name, ())[-1:], sha256(temporary)]
        write_json(record, {**before, path.name: digests})


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


def _written(record: Path) -> dict[str, list[str]]:
    """The last digests of the files of a folder, as they were written there."""
    try:
        found = parse_json(record.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content, as hexadecimal text."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


@contextlib.contextmanager
def replaced_folder(target: Path) -> Iterator[Path]:
    """Yields an empty folder beside `target`, which takes its place once it is written.

    After an error `target` is what it was, and nothing is left beside it.
    """
    put_back(target)
    unfinished = _beside(target, "unfinished")
    with made_folder(target.parent):
        try:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            yield unfinished
            publish_folder(unfinished, target)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise


def publish_folder(finished: Path, target: Path) -> None:
    """Moves a folder to the place of `target`, which may be there, beside it.

    A kill at any moment leaves the old folder or the new one under the name. Where the system
    cannot swap two names there is a moment without either; `put_back` then mends it.
    """
    old = _beside(target, "old")
    _flush_tree(finished)
    if not target.exists():
        finished.rename(target)
    elif not _swapped(finished, target):
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
        finished.rename(target)
    _flush_folder(target.parent)
    for one in (old, finished):  # where that name stands for the old folder now
        shutil.rmtree(one, ignore_errors=True)


def put_back(target: Path) -> None:
    """Gives a folder its name back that `publish_folder` had moved away when it was killed."""
    old = _beside(target, "old")
    if old.exists() and not os.path.lexists(target):
        old.rename(target)


def _flush_tree(folder: Path) -> None:
    for place, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(place, name), "rb") as file:
                os.fsync(file.fileno())
        _flush_folder(Path(place))


def _swapped(first: Path, second: Path) -> bool:
    """Swaps what stands under two names in one step, where the system can."""
    if sys.platform != "linux":
        return False
    try:
        rename = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):  # an old C library
        return False
    rename.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    paths = (_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second))
    return bool(rename(*paths, _RENAME_EXCHANGE) == 0)


@contextlib.contextmanager
def locked(path: Path, refusal: str) -> Iterator[None]:
    """Holds a lock file, which is free again when the process ends in whatever way.

    Where the file system has no locks the command goes on, and says so on standard error. After an
    error in a folder that nothing else was written to, the file and a new folder are removed.

    Args:
        path: the file, which is made if it is missing, with its folder, and stays.
        refusal: what is said where another process holds it.

    Raises:
        UserError: `refusal`, or the file cannot be written.
    """
    import filelock  # takes a while, and --help needs none

    lock, new = filelock.FileLock(path), not os.path.lexists(path)
    with made_folder(path.parent):
        try:
            # Twice: without flock the first finds that a holder is gone.
            lock.acquire(timeout=0.2)
        except OSError as error:  # filelock.Timeout is one
            reason = _lacks_locks(path)
            if not reason:
                if isinstance(error, filelock.Timeout):
                    raise UserError(refusal) from None
                raise UserError(machine_faults.line(error)) from error
            tell_note(
                f"{path.parent}: its file system has no locks ({reason}): another process "
                "that works there goes unnoticed",
            )
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):
                if new and os.listdir(path.parent) == [path.name]:
                    path.unlink()
            raise
        finally:
            lock.release()


def _lacks_locks(path: Path) -> str:
    """What the system says where it cannot lock a file at all."""
    try:
        import fcntl
    except ImportError:  # Windows
        return ""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return os.strerror(error.errno or 0) if error.errno in _NO_LOCKS else ""
    return ""


def check_output_folder(
    folder: Path,
    place: str,
    is_ours: bool,
    refusal: str,
    kept: str = "",
    edited: Sequence[str] = (),
) -> None:
    """Refuses a folder whose content a command must not replace; an empty one passes.

    Args:
        folder: where the command writes, which need not exist.
        place: how messages call it, such as "--output_dir=DIR".
        is_ours: whether it holds an earlier result of the command.
        refusal: what is said of a folder, or a file, that holds something else.
        kept: what is said of an earlier result; "" where it may be replaced.
        edited: names of files in it that people edit, see `check_unedited`.

    Raises:
        UserError: f"{place}: {refusal}" or f"{place}: {kept}", or one of the files was edited.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not is_ours:
        raise UserError(f"{place}: {refusal}")
    if kept:
        raise UserError(f"{place}: {kept}")
    check_unedited(folder / name for name in edited)


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
