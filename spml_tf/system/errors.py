"""The exceptions that commands end with: a user's mistake, and being told to stop."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake in flags, files or data that the user can mend.

    The message is one line: it names the file (with line or row) or the flag, says what was found
    and what to do. The command-line modules print it as ``error: ...`` and exit with code 1.
    """


class DivergedError(ValueError):
    """Scores that are not finite: the training has diverged."""


class Terminated(BaseException):
    """SIGTERM told the process to end; as with KeyboardInterrupt no part of the work catches it."""
