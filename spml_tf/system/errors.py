"""The exceptions that commands end with, a mistake or being told to stop, and words for them."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Characters that steer a terminal, end a line or turn the direction of text, and halves of pairs.
_STEERING = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""A text that a terminal shows and does not obey, on one line.

    Examples:
        >>> print(printable("a\x1b[2Jb\nc"))
        a\x1b[2Jb\nc
    """
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def quoted(text: str) -> str:
    """What a message shows of a name or cell: on one line, and not all of it where it is long."""
    return repr(text if len(text) <= 80 else f"{text[:77]}...")


def few(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are.

    Examples:
        >>> few(["a", "b", "c", "d"])
        "'a', 'b', 'c' and 1 more"
    """
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(quoted, names[:3])) + more


def spoiled(name: str) -> str | None:
    """Why something cannot be the name of a photo or a class, or None."""
    if not name:
        return "is empty"
    if "\0" in name or name.splitlines() != [name]:
        return "holds a line break or a null character"
    return None


def reason_of(error: BaseException, longest: int | None = None) -> str:
    """What an error says, on one line; where it says nothing, its kind.

    Examples:
        >>> reason_of(OSError("the disk\\n  is full")), reason_of(KeyError())
        ('the disk is full', 'KeyError')
    """
    return " ".join(str(error).split())[:longest] or type(error).__name__


class UserError(ValueError):
    """A mistake in flags, files or data that the user can mend.

    The message is one line: it names the file (with line or row) or the flag, says what was found
    and what to do. The command-line modules print it as ``error: ...`` and exit with code 1.

    Args:
        message: the line. It is made `printable`: names of files and classes may be anybody's.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class DivergedError(ValueError):
    """Scores that are not finite: the training has diverged."""


class Terminated(BaseException):
    """SIGTERM told the process to end; as with KeyboardInterrupt no part of the work catches it."""
