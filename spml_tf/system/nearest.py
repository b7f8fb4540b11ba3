"""What somebody who mistyped a word probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like another one, or None where none is like it.

    One of the same letters in another order comes first: fingers change places more often than they
    leave a key out.

    Examples:
        >>> nearest("slc", ["splc", "scl"])
        'scl'
        >>> nearest("resnet5", ["resnet50", "small_residual"])
        'resnet50'
    """
    words = list(known)
    found = [x for x in words if sorted(x) == sorted(word)]
    found += difflib.get_close_matches(word, words, 1)
    return found[0] if found else None


def guess(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word; empty where no known one is like it.

    Examples:
        >>> guess("chekc", ["check", "summary"])
        '; did you mean check?'
    """
    found = nearest(word, known)
    return f"; did you mean {found}?" if found else ""
