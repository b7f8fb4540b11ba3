"""Measures spml_tf's speed and memory against public counterparts.

python -m tools.benchmark [--quick] [--photos=FOLDER] [--rows=NAME,NAME] [--output_dir=docs]

Every contestant has a process of its own, and those of a row take turns, so that a change of the
machine's speed meets all alike. Writes benchmark.md and benchmark.csv: medians with quartiles, the
median of the ratios within a round, peak memory. Needs `pip install -e '.[bench]'`; what is not
installed is left out and said. --photos names a folder of JPEG files of a few hundred pixels, such
as VOC's JPEGImages; without it photos are made of noise. --quick takes some minutes, with
fewer turns and without the rows of precisions, overlays and frozen backbones.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import dataclasses
import datetime
import importlib.metadata
import os
import platform
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from PIL import Image, ImageFilter

from spml_tf.system import processor
from tools.benchmark import commands, inference, measures, reading, training
from tools.benchmark.turns import Figure, Row, measure, serve, setup_of

ROWS: Mapping[str, Row] = {
    **training.rows(), **inference.rows(), **measures.rows(), **reading.rows(), **commands.rows()
}  # fmt: skip
_PACKAGES = ("spml_tf", "tensorflow", "keras", "numpy", "scikit-learn", "pillow", "torch",
    "onnxruntime", "ai-edge-litert",
)  # fmt: skip


def main() -> None:
    options = _options()
    if options.contestant:
        key, _, name = options.contestant.partition("/")
        serve(ROWS[key].contestants[name], setup_of(options))
        return
    every = [key for key, row in ROWS.items() if row.quick or not options.quick]
    chosen = options.rows.split(",") if options.rows else every
    unknown = [key for key in chosen if key not in every]
    if unknown:
        raise SystemExit(f"error: --rows={unknown[0]}: must be of {', '.join(every)}")
    output = Path(options.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    figures: list[Figure] = []
    with _photos(options.photos) as photos:
        for key in chosen:
            figures += measure(key, ROWS[key], photos, options.quick)
            _write(output, figures, _header(options))
    for figure in figures:
        if figure.reason:
            print(f"{figure.row}: {figure.contestant} left out: {figure.reason}", file=sys.stderr)
    print(f"written: {output / 'benchmark.md'}, {output / 'benchmark.csv'}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tools.benchmark", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="fewer turns, fewer photos")
    parser.add_argument("--photos", help="folder of JPEG files")
    parser.add_argument("--rows", help=f"some of {', '.join(ROWS)}")
    parser.add_argument("--output_dir", default="docs", help="where the two files are written")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    return parser.parse_args()


@contextlib.contextmanager
def _photos(given: str | None) -> Iterator[Path]:
    """The folder of photos; where none is given, 400 pictures of smooth noise."""
    if given is not None:
        if not Path(given).is_dir():
            raise SystemExit(f"error: --photos={given}: no such folder")
        yield Path(given).resolve()
        return
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(400):
            pixels = rng.integers(0, 256, (12, 16, 3), np.uint8)
            smooth = Image.fromarray(pixels).resize((340, 256), Image.Resampling.BICUBIC)
            grain = rng.normal(0, 6, (256, 340, 3))
            noisy = np.clip(np.asarray(smooth.filter(ImageFilter.SHARPEN)) + grain, 0, 255)
            Image.fromarray(noisy.astype(np.uint8)).save(Path(folder, f"{number}.jpg"), quality=90)
        yield Path(folder)


def _header(options: argparse.Namespace) -> Mapping[str, str]:
    """What the figures depend on."""
    words = ["python", "-m", "tools.benchmark", *sys.argv[1:]]
    versions = []
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{name} {importlib.metadata.version(name)}")
    return {
        "command": shlex.join(_without_folders(words)),
        "date": datetime.date.today().isoformat(),
        "machine": f"{processor.name()}, {os.cpu_count()} cores, no GPU used",
        "python": platform.python_version(),
        "versions": ", ".join(versions),
    }


def _without_folders(words: Sequence[str]) -> list[str]:
    """Absolute paths of this machine say nothing elsewhere: their last two names stand for them."""
    return [
        f"{word.partition('=')[0]}={'/'.join(Path(word.partition('=')[2]).parts[-2:])}"
        if word.startswith("--") and "=/" in word
        else word
        for word in words
    ]


def _write(folder: Path, figures: Sequence[Figure], header: Mapping[str, str]) -> None:
    """Both files, so far."""
    names = [field.name for field in dataclasses.fields(Figure)]
    with open(folder / "benchmark.csv", "w", newline="") as file:
        table = csv.DictWriter(file, [*names, "title", *header])
        table.writeheader()
        for figure in figures:
            title = ROWS[figure.row].title
            table.writerow({**dataclasses.asdict(figure), "title": title, **header})
    lines = [
        "# Benchmark", "", "Written by the command; the contestants of a table take turns, each in "
        "a process of its own.", "", "```bash", header["command"], "```", "",
        f"{header['machine']}, {header['date']}, Python {header['python']}, "
        f"{header['versions']}.",
        "Medians, quartiles in brackets. Ours is the first line of each table; the third column is "
        "the median, over rounds, of how many times as fast it was.",
    ]  # fmt: skip
    for key in dict.fromkeys(figure.row for figure in figures):
        lines += _table(ROWS[key], [x for x in figures if x.row == key])
    (folder / "benchmark.md").write_text("\n".join(lines) + "\n")


def _table(row: Row, figures: Sequence[Figure]) -> list[str]:
    lines = ["", f"## {row.title}", ""]
    lines += [
        f"| | {f'{row.unit}/s' if row.unit else 's'} | ours, in comparison | peak MB | turns |"
    ]
    lines += ["|---|---|---|---|---|"]
    for number, figure in enumerate(figures):
        if figure.median is None:
            lines.append(f"| {figure.contestant} | left out: {figure.reason} | | | |")
            continue
        spread = f"{_text(figure.median)} ({_text(figure.low)} to {_text(figure.high)})"
        ratio = "" if number == 0 or figure.ours is None else f"{figure.ours:.2f} times as fast"
        lines.append(
            f"| {figure.contestant} | {spread} | {ratio} | {figure.peak_mb:.0f} | {figure.rounds} |"
        )
    if row.wanted:
        lines += ["", f"Wanted: {row.wanted[0]:g} times {row.wanted[1]}."]
    return [*lines, "", row.note] if row.note else lines


def _text(value: float | None) -> str:
    """Three digits."""
    assert value is not None
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


if __name__ == "__main__":
    main()
