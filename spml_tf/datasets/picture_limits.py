"""How large a picture may be, which commands tell before they import what reads pictures."""

from __future__ import annotations

# The most pixels, in millions, that a picture may have by default.
MAX_MEGAPIXELS = 100.0
