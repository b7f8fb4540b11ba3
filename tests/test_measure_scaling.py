"""tools/measure_scaling.py through its command line, at sizes that take seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from saved_runs import table_rows

TOOL = Path(__file__).parent.parent / "tools" / "measure_scaling.py"
QUANTITIES = [
    "step", "selection", "save", "load", "average precision", "expected positives", "names",
    "order",
]  # fmt: skip


def measure(folder: Path, *words: str) -> tuple[list[dict[str, str]], str, str]:
    """Rows of the CSV, and what was printed."""
    done = subprocess.run(
        [sys.executable, str(TOOL), f"--output_dir={folder}", f"--work_dir={folder}", *words],
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return table_rows(folder / "scaling.csv"), done.stdout, done.stderr


@pytest.mark.slow
def test_a_small_point_is_measured(tmp_path):
    """100 images, 20 classes, 3 x 3 cells.

    Tables, of one image: 20 scores and their mark, 9 * 20 = 180 heatmap cells and 9 bits of marks
    in 2 bytes, 20 labels of 2 bits in 5: 208 bytes. In a checkpoint marks, labels and counts take a
    byte each: 20 + 1 + 180 + 9 + 20 + 20 = 250. Arrays of the metrics: 20 * (4 + 1) = 100.
    """
    small = ("--min_images=100", "--max_images=100", "--max_classes=20", "--grid=3")
    rows, printed, told = measure(tmp_path, *small, "--repeats=2")
    assert [row["quantity"] for row in rows] == QUANTITIES
    found = {row["quantity"]: row for row in rows}
    for row in rows:
        assert (row["images"], row["classes"], row["repeats"]) == ("100", "20", "2")
        seconds = [float(row[x]) for x in ("fastest", "seconds", "slowest")]
        assert 0 < seconds[0] <= seconds[1] <= seconds[2] and float(row["cpu_seconds"]) > 0
        assert 2e8 < float(row["peak_bytes"]) < 3e9 and not row["skipped"]
        assert f"{row['quantity']}, 100 images, 20 classes: " in told
    assert int(found["step"]["bytes"]) == int(found["selection"]["bytes"]) == 20_800
    # And nine for each of the 1.5 labels an image that may be chosen.
    assert int(found["step"]["computed_bytes"]) == 20_800 + 9 * 150
    assert int(found["average precision"]["bytes"]) == 10_000
    assert int(found["order"]["bytes"]) == 800
    # Beside the tables the network's weights, three times with Adam's.
    assert 25_000 < int(found["save"]["bytes"]) == int(found["load"]["bytes"]) < 5e6
    assert printed.count("| step | ") == 2  # against images and against classes
    with Image.open(tmp_path / "scaling.png") as drawn:
        assert drawn.size[0] > 500
    assert not list(tmp_path.glob("tmp*"))  # the checkpoints are gone


def test_what_does_not_fit_is_named_with_its_size(tmp_path):
    """2 * 10^8 images of 20 classes and 4 x 4 cells.

    Tables of 20 + 1 + 320 + 2 + 5 = 348 bytes an image and 1.5 * 9 = 13.5 for counts are 72.3 GB,
    and the process has 1 GB: 73.3 GB.
    """
    words = ("--min_images=200000000", "--max_images=200000000", "--max_classes=100")
    rows, _, told = measure(tmp_path, *words, "--memory_gib=4")
    assert [(row["quantity"], row["classes"]) for row in rows] == [
        (name, classes) for classes in ("20", "100") for name in QUANTITIES
    ]
    assert all(row["skipped"] and not row["seconds"] for row in rows)
    assert rows[0]["skipped"] == "takes 73.3 GB, more than 4.3 GB of memory"
    assert "step, 200,000,000 images, 20 classes: skipped, takes 73.3 GB" in told
    assert len(told.splitlines()) == 16


@pytest.mark.parametrize(
    "words, message",
    [
        (["--min_images=20"], "--min_images from 32"),
        (["--max_images=50"], "--max_images=50: below --min_images=10000"),
    ],
)
def test_sizes_that_cannot_be_are_refused(words, message):
    done = subprocess.run([sys.executable, str(TOOL), *words], capture_output=True, text=True)
    assert done.returncode == 2 and message in done.stderr.splitlines()[-1]
