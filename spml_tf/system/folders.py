"""Folders of results: refused, and replaced in one step."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from spml_tf.system.errors import UserError
from spml_tf.system.files import beside, check_unedited, flush_folder, record_files
from spml_tf.system.locks import locked

# renameat2: paths are as for other calls; swap what stands under two names.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextlib.contextmanager
def replaced_folder(target: Path) -> Iterator[Path]:
    """Yields an empty folder beside `target`, which takes its place once it is written.

    After an error `target` is what it was, and nothing is left beside it.

    Raises:
        UserError: another process is inside, for the same target.
    """
    target = Path(os.path.realpath(target))  # a link stays one
    unfinished, lock = beside(target, "unfinished"), beside(target, "lock")
    with locked(lock, f"{target}: another process writes it; wait until it has ended"):
        put_back(target)
        try:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            yield unfinished
            publish_folder(unfinished, target)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        with contextlib.suppress(PermissionError):  # Windows removes no file that is open
            lock.unlink()


def publish_folder(finished: Path, target: Path, marker: str = "") -> None:
    """Moves a folder to the place of `target`, which may be there, beside it.

    Its files are recorded: `check_only_recorded` knows them again. They are on the disk before the
    marker, a file of that name in the folder by which stopped work goes on, is removed.

    A kill at any moment leaves the old folder or the new one under the name. Where the system
    cannot swap two names there is a moment without either; `put_back` then mends it.
    """
    target = Path(os.path.realpath(target))
    old = beside(target, "old")
    record_files(finished, [marker])
    _flush_tree(finished)
    if marker:
        (finished / marker).unlink()
    if not target.exists():
        finished.rename(target)
    elif not _swapped(finished, target):
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
        finished.rename(target)
    flush_folder(target.parent)
    for one in (old, finished):  # where that name stands for the old folder now
        shutil.rmtree(one, ignore_errors=True)


def put_back(target: Path) -> None:
    """Gives a folder its name back that `publish_folder` had moved away when it was killed."""
    target = Path(os.path.realpath(target))
    old = beside(target, "old")
    if old.exists() and not os.path.lexists(target):
        old.rename(target)


def _flush_tree(folder: Path) -> None:
    for place, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(place, name), "rb") as file:
                os.fsync(file.fileno())
        flush_folder(Path(place))


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
