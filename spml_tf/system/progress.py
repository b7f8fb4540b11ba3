"""How far a long pass is: a bar with the time left on a terminal, lines in a file."""

from __future__ import annotations

import contextlib
import contextvars
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

_Item = TypeVar("_Item")

# Seconds between two lines where the error output is a file.
_PAUSE = 10.0
_of_command = contextvars.ContextVar("of_command", default=False)


@contextlib.contextmanager
def of_command() -> Iterator[None]:
    """Within it passes show bars; what is called as a library shows none."""
    token = _of_command.set(True)
    try:
        yield
    finally:
        _of_command.reset(token)


def progress(
    items: Iterable[_Item],
    total: int,
    label: str,
    amount: Callable[[_Item], int] | None = None,
    lines: bool = True,
) -> Iterator[_Item]:
    """Passes items on and tells on standard error how many there were.

    A terminal gets a bar with the time that is left. A file gets a line for every tenth, and none
    at all where the work takes seconds.

    Args:
        items: what to pass on.
        total: how many there will be.
        label: the words before the numbers.
        amount: how many an item counts as, such as the images of a batch; None: one.
        lines: whether a file gets lines, and the bar stays when all is done.

    Yields:
        The items.
    """
    if _of_command.get() and sys.stderr.isatty():
        return _bar(items, total, label, amount or _one, lines)
    return _lines(items, total, label, amount or _one) if lines else iter(items)


def _one(item: object) -> int:
    return 1


def _bar(
    items: Iterable[_Item],
    total: int,
    label: str,
    amount: Callable[[_Item], int],
    stays: bool,
) -> Iterator[_Item]:
    from tqdm import tqdm  # takes a while, and --help needs none

    form = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]"
    options = {"file": sys.stderr, "dynamic_ncols": True, "bar_format": form, "leave": stays}
    with tqdm(total=total, desc=label, **options) as bar:
        for item in items:
            yield item
            bar.update(amount(item))


def _lines(
    items: Iterable[_Item], total: int, label: str, amount: Callable[[_Item], int]
) -> Iterator[_Item]:
    told, tenth, count = time.monotonic(), 0, 0
    for item in items:
        yield item
        count, now = count + amount(item), time.monotonic()
        if 10 * count // total > tenth and now - told > _PAUSE:
            print(f"{label}: {count} of {total}", file=sys.stderr, flush=True)
            told, tenth = now, 10 * count // total


@contextlib.contextmanager
def beside_bar() -> Iterator[None]:
    """What is printed within it on standard error stands above a bar that is shown."""
    if "tqdm" not in sys.modules:
        yield
        return
    from tqdm import tqdm

    with tqdm.external_write_mode(file=sys.stderr):
        yield
