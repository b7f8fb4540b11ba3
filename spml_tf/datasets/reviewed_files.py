"""Files of labels that people reviewed: read, appended to decision by decision.

The header has at least the columns image, class and label; 1 is present, 0 absent, and a row
without a label decides nothing. A journal, which `Journal` writes, has the column decided_at too:
there a later row of a label replaces the earlier ones, and one without a label takes them back.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import datetime
import errno
import io
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from spml_tf.system.errors import UserError
from spml_tf.system.files import write_csv
from spml_tf.system.locks import locked
from spml_tf.system.text_files import end_of_whole_rows, guarded, read_csv, split_csv

COLUMNS = ("image", "class", "label")
JOURNAL_COLUMNS = (*COLUMNS, "decided_at")
LABELS = ("0", "1")

# An image's name and a class's.
Key = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class ReviewedRow:
    """A row of a reviewed file.

    Attributes:
        place: "file:line", for messages.
        image: the image's name.
        class_name: the class's name.
        label: "1", "0", or "" for a label that is not decided.
    """

    place: str
    image: str
    class_name: str
    label: str

    @property
    def key(self) -> Key:
        """The image's name and the class's."""
        return self.image, self.class_name


def check_label(place: str, label: str) -> None:
    """Refuses other labels than 1 and 0.

    Args:
        place: "file:line", for the message.
        label: the cell's text.

    Raises:
        UserError: naming the place.
    """
    if label not in LABELS:
        raise UserError(f"{place}: the label must be 1 or 0, found {label!r}")


def read_rows(path: str | os.PathLike[str]) -> list[ReviewedRow]:
    """All rows of a reviewed file, those that decide nothing among them.

    Args:
        path: CSV file whose header has at least the columns image, class and label.

    Returns:
        The rows as they stand there; of a journal the last row of each label alone.

    Raises:
        UserError: the file is missing or not UTF-8, lacks a column, or a row has other fields than
            the header or another label than 1, 0 or none.
    """
    table = read_csv(path)
    place, header = next(table, (f"{path}:1", []))
    if not set(COLUMNS) <= set(header):
        raise UserError(
            f"{place}: the first line must name the columns {', '.join(COLUMNS)}, found "
            f"{','.join(header)!r}; save the file with commas"
        )
    rows = list(_rows(table, header))
    if JOURNAL_COLUMNS[-1] not in header:
        return rows
    return list({row.key: row for row in rows}.values())


def _rows(table: Iterator[tuple[str, list[str]]], header: Sequence[str]) -> Iterator[ReviewedRow]:
    for place, fields in table:
        if len(fields) != len(header):
            raise UserError(
                f"{place}: expected {len(header)} fields as in the first line, found {len(fields)}"
            )
        cells = dict(zip(header, fields, strict=True))
        # Names may begin and end with blanks.
        row = ReviewedRow(place, cells["image"], cells["class"], cells["label"].strip())
        if row.label:
            check_label(place, row.label)
        yield row


class Journal:
    """A file of decisions that is on the disk up to the last one, whatever ends the process.

    Use `Journal.opened`, which keeps other processes away from the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._adding = threading.Lock()
        if not path.exists():
            write_csv(path, JOURNAL_COLUMNS, ())
        _check_is_journal(path)
        _mend_end(path)
        self._decisions = {row.key: row.label for row in read_rows(path) if row.label}
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND)
        self._size = os.fstat(self._file).st_size

    @classmethod
    @contextlib.contextmanager
    def opened(cls, path: Path) -> Iterator[Journal]:
        """Opens a journal, which is made if it is missing; a last row cut off in writing goes.

        Args:
            path: the file.

        Raises:
            UserError: another process holds it, or the file is none that a journal wrote.
            OSError: it cannot be written.
        """
        refusal = f"{path}: another process writes there; end it, or give another --reviewer"
        with locked(path.with_name(f".{path.name}.lock"), refusal):
            journal = cls(path)
            try:
                yield journal
            finally:
                journal.close()

    def decisions(self) -> dict[Key, str]:
        """What is decided: "1" or "0" by image and class."""
        with self._adding:
            return dict(self._decisions)

    def add(self, image: str, class_name: str, label: str) -> None:
        """Writes a decision to the disk.

        Args:
            image: the image's name.
            class_name: the class's name.
            label: "1", "0", or "" to take an earlier decision back.

        Raises:
            OSError: it cannot be written; the file is as before.
            UserError: another program has changed or replaced the file.
        """
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        text = io.StringIO(newline="")
        cells = map(guarded, (image, class_name, label, now))
        csv.writer(text, lineterminator="\n").writerow(cells)
        with self._adding:
            self._check_untouched()
            self._append(text.getvalue().encode("utf-8"))
            if label:
                self._decisions[image, class_name] = label
            else:
                self._decisions.pop((image, class_name), None)

    def close(self) -> None:
        """Closes the file once a decision that is being written is on the disk."""
        with self._adding:
            os.close(self._file)
            self._file = -1  # a request that comes late writes into no file of this number

    def _check_untouched(self) -> None:
        own = os.fstat(self._file)
        try:
            there = os.path.samestat(own, os.stat(self.path))
        except OSError:
            there = False
        if not there or own.st_size != self._size:
            raise UserError(f"{self.path}: was changed by another program; start the review again")

    def _append(self, line: bytes) -> None:
        try:
            if os.write(self._file, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(line)


def _check_is_journal(path: Path) -> None:
    first, _, _ = path.read_bytes().partition(b"\n")  # what follows may have been cut off
    if first.decode("utf-8-sig", "replace").strip() != ",".join(JOURNAL_COLUMNS):
        raise UserError(
            f"{path}:1: the first line must be {','.join(JOURNAL_COLUMNS)}; give another "
            "--reviewer, and read this file in on the page"
        )


def _mend_end(path: Path) -> None:
    """Ends the last line of a journal that was cut off in writing, or drops it if it is no row."""
    content = path.read_bytes()
    end = end_of_whole_rows(content)
    if end == len(content):
        return
    with contextlib.suppress(UserError, UnicodeDecodeError):
        text = content[end:].decode("utf-8")
        if [len(fields) for _, fields in split_csv(path, text)] == [len(JOURNAL_COLUMNS)]:
            with open(path, "ab") as file:
                file.write(b"\n")
            return
    os.truncate(path, end)
