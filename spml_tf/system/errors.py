"""The one exception a user's mistake raises."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake in flags, files or data that the user can mend.

    The message is one line: it names the file (with line or row) or the flag, says what was found
    and what to do. The command-line modules print it as ``error: ...`` and exit with code 1.
    """
