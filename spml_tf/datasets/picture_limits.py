"""How large a picture may be, which commands tell before they import what reads pictures."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

# The most pixels, in millions, that a picture may have by default.
MAX_MEGAPIXELS = 100.0
_lock = threading.Lock()
_limits: list[int | None] = []  # Pillow's, once for each thread that does without


def too_large(max_megapixels: float) -> str:
    """What is said behind a picture's width and height where there are too many pixels."""
    return f" pixels, more than --max_megapixels={max_megapixels:g}"


def more_pixels(width: int, height: int, max_megapixels: float) -> str | None:
    """What is said of a picture with more pixels, in millions, than allowed, None of others.

    Examples:
        >>> more_pixels(3, 2, 5e-6)
        '3 x 2 pixels, more than --max_megapixels=5e-06'
    """
    if width * height <= max_megapixels * 1e6:
        return None
    return f"{width} x {height}{too_large(max_megapixels)}"


@contextlib.contextmanager
def without_pillows_limit() -> Iterator[None]:
    """Inside, Pillow opens pictures of any size, and says nothing of it: see `more_pixels`.

    Its own limit, of 179 million pixels, holds for the whole process: it comes back once no thread
    is inside any more.
    """
    from PIL import Image

    with _lock:
        _limits.append(_limits[0] if _limits else Image.MAX_IMAGE_PIXELS)
        Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        with _lock:
            limit = _limits.pop()
            if not _limits:
                Image.MAX_IMAGE_PIXELS = limit
