"""The rows of docs/reliability.md: a test that causes a fault says what it is and what is lost.

`python tests/test_reliability_page.py` writes the page from the tests of test_faults_*.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeVar

_Test = TypeVar("_Test", bound=Callable[..., object])


@dataclasses.dataclass(frozen=True)
class Row:
    """A fault: what it is, how its test causes it, what the user sees, what is lost."""

    section: str
    fault: str
    cause: str
    happens: str
    lost: str
    test: str


ROWS: list[Row] = []


def fault(
    section: str, what: str, cause: str, happens: str, lost: str = "nothing"
) -> Callable[[_Test], _Test]:
    """A decorator for the test of a fault; several may be given.

    Args:
        section: heading on the page.
        what: the fault.
        cause: how the test causes it.
        happens: what the user sees.
        lost: what is lost.
    """

    def note(test: _Test) -> _Test:
        ROWS.append(Row(section, what, cause, happens, lost, f"{test.__module__}.{test.__name__}"))
        return test

    return note
