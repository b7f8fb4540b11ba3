"""What the machine's processor is and can do, as Linux tells it."""

from __future__ import annotations

import contextlib
import platform
from pathlib import Path


def name() -> str:
    """The processor's name."""
    return _field("model name") or platform.processor()


def flags() -> set[str]:
    """What the processor can do, such as "avx512_bf16"; empty where nothing tells."""
    return set(_field("flags").split())


def _field(wanted: str) -> str:
    """What /proc/cpuinfo says first under a name; "" where it says nothing."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(wanted):
                return line.partition(":")[2].strip()
    return ""
