"""Measures how time and memory grow with the number of images N and the number of classes L.

python tools/measure_scaling.py [--max_images=10000000] [--max_classes=10000] [--output_dir=docs]
    [--min_images=10000] [--grid=4] [--repeats=5] [--memory_gib=18] [--work_dir=DIR]

N goes in decades from --min_images to --max_images with 20 classes, L over 20, 100, 1,000 and
10,000 with --min_images images. Images are simulated. Each part of a point has a fresh process:

training: steps of EN+SCL with byte banks, a small network and a batch of 32, its heatmap bank of
    --grid x --grid cells for all classes; the selection at an epoch's start; a checkpoint's save.
resuming: a checkpoint's check and load.
metrics: exact average precision, and the expected positives of float32 scores.
reading: the list of images as a dataset, and the draw of an epoch's order.

Every quantity is repeated and its median taken. What would take more than --memory_gib, or more of
the disk than is free, is left out with a line that says its size. Writes scaling.csv and
scaling.png to --output_dir and prints Markdown tables. The checkpoints go to a temporary folder in
--work_dir. Linux only.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import scaling_point
from scaling_point import QUANTITIES, Size

FIXED_CLASSES, CLASSES = 20, (20, 100, 1_000, 10_000)
PROCESS = 1_000_000_000  # bytes of a process with TensorFlow, and of what is made on the way
COLUMNS = (
    "quantity", "images", "classes", "repeats", "seconds", "fastest", "slowest",
    "cpu_seconds", "bytes", "peak_bytes", "computed_bytes", "skipped",
)  # fmt: skip


def sizes(given: argparse.Namespace) -> list[Size]:
    """The points, the smaller first: N with few classes, then L with few images."""
    images, found = given.min_images, []
    while images <= given.max_images:
        found.append(Size(images, FIXED_CLASSES, given.grid))
        images *= 10
    wide = [x for x in CLASSES if FIXED_CLASSES < x <= given.max_classes]
    return found + [Size(given.min_images, x, given.grid) for x in wide]


def too_large(part: str, size: Size, given: argparse.Namespace) -> str:
    """Why a part of a point is not measured, "" for none."""
    needed, limit = scaling_point.computed_bytes(size)[part] + PROCESS, given.memory_gib * 2**30
    if needed > limit:
        return f"takes {needed / 1e9:.1f} GB, more than {limit / 1e9:.1f} GB of memory"
    needed, free = 3 * scaling_point.file_bytes(size), shutil.disk_usage(given.work_dir).free
    if part in ("training", "resuming") and needed > free:
        return f"takes {needed / 1e9:.1f} GB, more than {free / 1e9:.1f} GB of disk"
    return ""


def in_a_process(part: str, size: Size, repeats: int, folder: str) -> list[dict[str, Any]]:
    """What a fresh process measures."""
    words = [sys.executable, __file__, f"--part={part}", f"--folder={folder}"]
    words += [f"--size={','.join(map(str, size))}", f"--repeats={repeats}"]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip()[-2000:] or f"ended by signal {-done.returncode}"
        raise SystemExit(f"error: {part} of {size.images} images, {size.classes} classes: {reason}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def rows_of(size: Size, given: argparse.Namespace) -> Iterable[dict[str, Any]]:
    """The rows of a point, measured or left out."""
    with tempfile.TemporaryDirectory(dir=given.work_dir) as folder:
        for part, quantities in QUANTITIES.items():
            row = {
                "images": size.images, "classes": size.classes,
                "computed_bytes": scaling_point.computed_bytes(size)[part],
            }  # fmt: skip
            if reason := too_large(part, size, given):
                yield from ({"quantity": name, **row, "skipped": reason} for name in quantities)
                continue
            for found in in_a_process(part, size, given.repeats, folder):
                seconds = found["seconds"]
                yield {
                    "quantity": found["quantity"], **row, "repeats": len(seconds),
                    "seconds": statistics.median(seconds), "fastest": min(seconds),
                    "slowest": max(seconds),
                    "cpu_seconds": statistics.median(found["cpu_seconds"]),
                    "bytes": found["size"], "peak_bytes": found["peak"],
                }  # fmt: skip


def told(row: dict[str, Any]) -> str:
    """A row as a line for who waits."""
    place = f"{row['quantity']}, {row['images']:,} images, {row['classes']:,} classes"
    if "skipped" in row:
        return f"{place}: skipped, {row['skipped']}"
    return f"{place}: {row['seconds']:.4g} s, peak {row['peak_bytes'] / 1e9:.2f} GB"


def along(rows: Sequence[dict[str, Any]], quantity: str, axis: str) -> list[dict[str, Any]]:
    """The measured rows of a quantity in which only `axis`, "images" or "classes", grows."""
    other = "classes" if axis == "images" else "images"
    least = min(row[other] for row in rows)
    own = [x for x in rows if x["quantity"] == quantity and x[other] == least]
    return sorted((x for x in own if "skipped" not in x), key=lambda x: x[axis])


def table(rows: Sequence[dict[str, Any]], axis: str) -> str:
    """Seconds, the growth of CPU seconds against that of N or L, and bytes, in Markdown."""
    head = (
        "quantity", axis, "s", "fastest to slowest", "CPU s", "growth",
        "CPU ns an image and class", "its data, GB", "peak, GB",
    )  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for quantity in (name for names in QUANTITIES.values() for name in names):
        before = None
        for row in along(rows, quantity, axis):
            growth = ""
            if before:
                times = row["cpu_seconds"] / before["cpu_seconds"]
                growth = f"{times / (row[axis] / before[axis]):.2f}"
            cells = (
                quantity, f"{row[axis]:,}", f"{row['seconds']:.3g}",
                f"{row['fastest']:.3g} to {row['slowest']:.3g}", f"{row['cpu_seconds']:.3g}",
                growth, f"{1e9 * row['cpu_seconds'] / (row['images'] * row['classes']):.3g}",
                f"{row['bytes'] / 1e9:.3f}", f"{row['peak_bytes'] / 1e9:.2f}",
            )  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
            before = row
    return "\n".join(lines)


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draws CPU seconds and peaks against N and L; dotted: proportional in the last decade."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(11, 8), layout="constrained")
    names = [name for names in QUANTITIES.values() for name in names]
    for column, axis in enumerate(("images", "classes")):
        for number, name in enumerate(names):
            found = along(rows, name, axis)
            x = [row[axis] for row in found]
            style = {"marker": "o", "color": f"C{number}", "label": name}
            axes[0, column].loglog(x, [row["cpu_seconds"] for row in found], **style)
            axes[1, column].loglog(x, [row["peak_bytes"] / 1e9 for row in found], **style)
            if found:
                end = [x[max(len(x) - 2, 0)], x[-1]]
                proportional = [found[-1]["cpu_seconds"] * each / x[-1] for each in end]
                axes[0, column].loglog(end, proportional, ":", color=f"C{number}", linewidth=0.8)
        tables = along(rows, "step", axis)
        axes[1, column].loglog(
            [row[axis] for row in tables], [row["bytes"] / 1e9 for row in tables], "k--",
            label="tables of banks and labels",
        )  # fmt: skip
        axes[0, column].set_title("CPU seconds; dotted: proportional, in the last decade")
        axes[1, column].set_title("peak of the process, GB")
        for row in (0, 1):
            axes[row, column].set_xlabel(axis)
            axes[row, column].grid(alpha=0.3)
    figure.legend(*axes[1, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    figure.savefig(path, dpi=110)


def write(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Writes the rows as CSV."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--min_images", type=int, default=10_000)
    parser.add_argument("--max_images", type=int, default=10_000_000)
    parser.add_argument("--max_classes", type=int, default=10_000)
    parser.add_argument("--grid", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory_gib", type=float, default=18)
    parser.add_argument("--output_dir", type=Path, default=Path("docs"))
    parser.add_argument("--work_dir", default=tempfile.gettempdir())
    for name in ("part", "size", "folder"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.min_images < scaling_point.BATCH or given.repeats < 1 or given.grid < 1:
        parser.error(f"--min_images from {scaling_point.BATCH}, --repeats and --grid from 1")
    if given.max_images < given.min_images:
        parser.error(f"--max_images={given.max_images}: below --min_images={given.min_images}")
    return given


def main() -> None:
    given = parsed()
    if given.part:
        size = Size(*map(int, given.size.split(",")))
        scaling_point.run(given.part, size, given.repeats, given.folder)
        return
    given.output_dir.mkdir(parents=True, exist_ok=True)
    rows = []
    for size in sizes(given):
        for row in rows_of(size, given):
            rows.append(row)
            print(told(row), file=sys.stderr, flush=True)
            write(rows, given.output_dir / "scaling.csv")
    draw(rows, given.output_dir / "scaling.png")
    for axis in ("images", "classes"):
        print(table(rows, axis) + "\n")


if __name__ == "__main__":
    main()
