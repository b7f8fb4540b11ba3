"""Many files at once, results in order, with a progress line."""

from __future__ import annotations

import collections
import concurrent.futures
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

# Results that wait for their turn, per thread: enough that no thread does.
_WAITING = 4
# Seconds between two lines where the error output is a file.
_PAUSE = 10.0


def ordered_map(
    function: Callable[[_Item], _Result], items: Iterable[_Item], threads: int
) -> Iterator[_Result]:
    """Applies a function in threads; at most a few results wait, so that memory stays small.

    After an error or an interruption nothing new is begun.

    Args:
        function: called with one item, in any thread.
        items: what to work on, taken as the threads get to it.
        threads: how many work at a time, at least 1.

    Yields:
        The results in the order of the items.
    """
    pool = concurrent.futures.ThreadPoolExecutor(threads)
    pending: collections.deque[concurrent.futures.Future[_Result]] = collections.deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= _WAITING * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def progress(items: Iterable[_Item], total: int, label: str) -> Iterator[_Item]:
    """Passes items on and tells on standard error how many there were.

    A terminal gets one line that is rewritten; a file gets a line for every tenth, and none at all
    where the work takes seconds.

    Args:
        items: what to pass on.
        total: how many there will be.
        label: the words before the numbers.

    Yields:
        The items.
    """
    live, told, tenth, open_line = sys.stderr.isatty(), time.monotonic(), 0, False
    try:
        for count, item in enumerate(items, start=1):
            yield item
            now = time.monotonic()
            if live and (now - told > 0.1 or count == total):
                print(f"\r{label}: {count} of {total}", end="", file=sys.stderr, flush=True)
                told, open_line = now, True
            elif not live and 10 * count // total > tenth and now - told > _PAUSE:
                print(f"{label}: {count} of {total}", file=sys.stderr, flush=True)
                told, tenth = now, 10 * count // total
    finally:
        if open_line:
            print(file=sys.stderr)
