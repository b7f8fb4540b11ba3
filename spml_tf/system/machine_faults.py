"""What a machine refuses - files, space, rights, memory - as one line, whoever noticed it.

The system's own words come as an OSError from Python, inside a longer text from h5py, and as an
error of TensorFlow's where that wrote or read the file.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator

from spml_tf.system.errors import UserError, reason_of

# What to do, by the system's number of the error.
_ADVICE = {
    errno.ENOSPC: "free some space there or choose another disk",
    errno.EDQUOT: "free some of your quota or choose another disk",
    errno.EFBIG: "larger than a file may be here: see ulimit -f, or choose another disk",
    errno.EROFS: "choose a folder that can be written",
    errno.EACCES: "choose another, or get the right to it",
    errno.EPERM: "choose another, or get the right to it",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOTDIR: "a part of this path is a file and no folder; choose another",
    errno.EEXIST: "a file of this name is there; choose another",
    errno.EISDIR: "name a file",
    errno.ENOENT: "name one that is there, and leave it there until the command ends",
    errno.ENOTEMPTY: "another process writes there; start the command again when it has ended",
    errno.EMFILE: "allow more open files with ulimit -n",
    errno.ENFILE: "end other programs: this machine has too many open files",
    errno.EIO: "the disk or the network fails; look at its state",
    errno.ESTALE: "the network's disk was changed meanwhile; start the command again",
}
# Those that are the reason of whatever other exception came of them. A file that is not there is
# not among them: to look for one is part of much that fails for other reasons.
_REASONS = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.EIO,
}  # fmt: skip
_NO_MEMORY = ("OOM when allocating", "failed to allocate memory", "bad_alloc", "OUT_OF_MEMORY")


def chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and those it came of."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)


def _of_tensorflow(error: BaseException) -> bool:
    return type(error).__module__.startswith("tensorflow.")


def _system_error(error: BaseException) -> OSError | None:
    text = str(error)
    inside = re.search(r"\berrno = (\d+)", text)  # as h5py has it
    if inside is not None:
        number, named = int(inside[1]), re.search(r"name = '([^']*)'", text)
        return OSError(number, os.strerror(number), named and named[1])
    if _of_tensorflow(error):
        for number in _ADVICE:
            named = re.search(rf"(\S+); {re.escape(os.strerror(number))}", text)
            if named is not None:
                return OSError(number, os.strerror(number), named[1])
    return error if isinstance(error, OSError) else None


def os_error(error: BaseException) -> OSError | None:
    """What the system refused.

    Args:
        error: any exception.

    Returns:
        It, or the OSError in it or behind it; None where the system refused nothing, or memory
        only. A `UserError` says all there is to say, so there is none behind it.

    Examples:
        >>> print(os_error(RuntimeError("cannot flush (errno = 28, error message = 'No ...')")))
        [Errno 28] No space left on device
        >>> os_error(KeyError("x"))
    """
    if isinstance(error, UserError) or out_of_memory(error):
        return None
    for one in chain(error):
        found = _system_error(one)
        if found is not None and (one is error or found.errno in _REASONS):
            return found
    return None


def line(error: OSError) -> str:
    """One line: the file, what the system says, what to do.

    Examples:
        >>> line(OSError(28, "No space left on device", "a.csv"))
        'a.csv: No space left on device; free some space there or choose another disk'
    """
    if error.errno is None or error.strerror is None:
        return reason_of(error)
    named = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    advice = _ADVICE.get(error.errno)
    return f"{named}{error.strerror}{f'; {advice}' if advice else ''}"


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says, or comes of, that memory is used up.

    Examples:
        >>> out_of_memory(MemoryError()), out_of_memory(ValueError("x"))
        (True, False)
    """
    return any(
        isinstance(one, MemoryError)
        or (isinstance(one, OSError) and one.errno == errno.ENOMEM)
        or (_of_tensorflow(one) and any(words in str(one) for words in _NO_MEMORY))
        for one in chain(error)
    )
