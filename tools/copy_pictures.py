"""Copies pictures into docs/, smaller: `python tools/copy_pictures.py PICTURE... --width=900`.

A PNG becomes a PNG of 256 colours at most, or a JPEG with --jpeg, which photos need. Thin lines are
few pixels, and a palette chosen by how many pixels a colour has would give two methods one colour:
a palette is taken only where no pixel moves by more than 24 of 255 in any channel.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

_MOST_MOVED = 24
_QUALITY = 85


def copy(source: Path, folder: Path, width: int, jpeg: bool) -> Path:
    """Writes the smaller copy; returns its path."""
    with Image.open(source) as opened:
        picture = opened.convert("RGB")
    height = round(picture.height * min(width, picture.width) / picture.width)
    picture = picture.resize((min(width, picture.width), height), Image.Resampling.LANCZOS)
    if jpeg:
        target = folder / f"{source.stem}.jpg"
        picture.save(target, quality=_QUALITY, optimize=True)
        return target
    target = folder / f"{source.stem}.png"
    reduced = picture.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    moved = np.abs(np.asarray(reduced.convert("RGB"), int) - np.asarray(picture, int))
    (reduced if moved.max() <= _MOST_MOVED else picture).save(target, optimize=True)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--output_dir", type=Path, default=Path("docs"))
    parser.add_argument("--width", type=int, default=900, help="in pixels")
    parser.add_argument("--jpeg", action="store_true")
    given = parser.parse_args()
    for source in given.pictures:
        target = copy(source, given.output_dir, given.width, given.jpeg)
        print(f"{target}: {target.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
