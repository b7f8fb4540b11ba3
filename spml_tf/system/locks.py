"""Lock files: one process at a time works in a folder."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from spml_tf.system import machine_faults
from spml_tf.system.errors import UserError
from spml_tf.system.files import made_folder
from spml_tf.system.notes import tell_note

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


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
        there = {path.name, *os.listdir(path.parent)}
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
                if new and set(os.listdir(path.parent)) == there:
                    path.unlink()
            raise
        finally:
            lock.release()


@contextlib.contextmanager
def waited_for(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Holds a lock file, which stays, once no other process does.

    Where the file system has no locks nobody waits.

    Args:
        path: the file, in a folder that is there.
        waiting: called twice a second while another process holds it; what it raises ends it.
    """
    import filelock

    lock, held = filelock.FileLock(path), False
    while not held:
        try:
            lock.acquire(timeout=0.5)
            held = True
        except OSError as error:  # filelock.Timeout is one
            if _lacks_locks(path):
                break
            if not isinstance(error, filelock.Timeout):
                raise
            waiting()
    try:
        yield
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
