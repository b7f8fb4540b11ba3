"""Many files at once, results in order."""

from __future__ import annotations

import collections
import concurrent.futures
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

# Results that wait for their turn, per thread: enough that no thread does.
_WAITING = 4


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
