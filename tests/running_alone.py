"""Scripts that exports bring along, in a Python that has neither TensorFlow nor spml_tf."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_ALONE = """
import runpy, sys
sys.modules.update(dict.fromkeys(("tensorflow", "keras", "spml_tf")))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def printed_alone(
    script: Path, words: Sequence[str], place: Path | None = None
) -> list[dict[str, Any]]:
    """The JSON lines that a script prints, started in the folder `place`."""
    done = subprocess.run(
        [sys.executable, "-c", _ALONE, str(script), *words], cwd=place, capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
