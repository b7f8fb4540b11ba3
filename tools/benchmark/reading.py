"""Rows of reading: our pipeline against a loader of the usual PyTorch kind.

All decode, crop, resize and mirror photos into float32 batches of 16. "pillow" runs Pillow in two
processes, which leave the same kind of batch in shared memory; "normalised" also does what a
PyTorch loader does then: channels first, divided by 255, mean and deviation. (Ours normalises
inside the network.) Of photos above 2 megapixels Pillow uses its draft mode by the rule that ours
has: the smallest of 1/2, 1/4 and 1/8 at which the crop is as large as needed.
"""

from __future__ import annotations

import functools
import math
import multiprocessing
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tools.benchmark.turns import Contestant, Row, Setup, Turn

_BATCH, _PROCESSES, _SIZE = 16, 2, 224
_UNTIMED = 4  # batches of an epoch, in which loaders start
_PHOTOS, _LARGE_PHOTOS = 1_600, 96
_DRAFT_FROM = 2e6  # pixels
_AREA, _ASPECT = (0.25, 1.0), (3 / 4, 4 / 3)
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)[:, None, None]
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)[:, None, None]
_shared: NDArray[np.float32]


def _crop(path: str, size: int) -> NDArray[np.uint8]:
    """A random crop, resized and perhaps mirrored, uint8 [size, size, 3]."""
    opened = Image.open(path)
    width, height = opened.size
    pixels = random.uniform(*_AREA) * width * height
    aspect = math.exp(random.uniform(*map(math.log, _ASPECT)))
    w = min(width, max(1, round(math.sqrt(pixels * aspect))))
    h = min(height, max(1, round(math.sqrt(pixels / aspect))))
    x, y = random.randint(0, width - w), random.randint(0, height - h)
    ratio = max(k for k in (1, 2, 4, 8) if k == 1 or min(w, h) >= k * size)
    if width * height > _DRAFT_FROM and ratio > 1:
        opened.draft("RGB", (width // ratio, height // ratio))
        ratio = round(width / opened.size[0])
        x, y, w, h = (side // ratio for side in (x, y, w, h))
    with opened:
        image = opened.convert("RGB")
    image = image.crop((x, y, x + w, y + h)).resize((size, size), Image.Resampling.BILINEAR)
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(image)


def _start_worker(buffer: object, shape: tuple[int, ...]) -> None:
    global _shared
    _shared = np.frombuffer(buffer, np.float32).reshape(shape)  # type: ignore[call-overload]


def _fill(work: tuple[int, Sequence[str]]) -> int:
    """Fills a slot of the shared memory; slots are used again, since nobody reads them here."""
    number, paths = work
    batch = _shared[number % len(_shared)]
    for row, path in enumerate(paths):
        photo = _crop(path, batch.shape[2])
        if batch.shape[-1] == 3:
            batch[row] = photo
        else:
            pixels = np.ascontiguousarray(photo.transpose(2, 0, 1)).astype(np.float32)
            pixels /= 255
            pixels -= _MEAN
            pixels /= _DEVIATION
            batch[row] = pixels
    return len(paths)


def _pillow(setup: Setup, large: bool, normalised: bool) -> Turn:
    paths = _paths(setup, large)
    shape = (8, _BATCH, 3, _SIZE, _SIZE) if normalised else (8, _BATCH, _SIZE, _SIZE, 3)
    buffer = multiprocessing.RawArray("f", math.prod(shape))
    work = [paths[start : start + _BATCH] for start in range(0, len(paths), _BATCH)]
    context = multiprocessing.get_context("fork")
    pool = context.Pool(_PROCESSES, _start_worker, (buffer, shape))
    return lambda: _timed(pool.imap(_fill, enumerate(work)))


def _ours(setup: Setup, large: bool, prepared: bool = False) -> Turn:
    from spml_tf.datasets import pipeline
    from spml_tf.datasets.readers.examples import Examples

    if prepared:
        examples = _prepared(setup)
    else:
        paths = tuple(_paths(setup, large))
        labels = np.zeros((len(paths), 1), np.int8)
        examples = Examples(paths, labels, ("any",), paths=paths)
    batches = pipeline.redrawn_dataset(
        examples, examples.labels, image_size=_SIZE, batch_size=_BATCH, seed=0, crop_area=_AREA
    )
    return lambda: _timed(len(labels) for _, labels in batches)


def _timed(counts: Iterator[int]) -> tuple[float, float]:
    """The photos of the batches of an epoch and their seconds, without the first few batches."""
    for _ in range(_UNTIMED):
        next(counts)
    begin = time.perf_counter()
    photos = sum(counts)
    return photos, time.perf_counter() - begin


def _prepared(setup: Setup) -> object:
    """The large photos, made smaller once as the command does."""
    from spml_tf import data
    from spml_tf.datasets import readers

    paths = _paths(setup, large=True)
    target = setup.folder / "prepared"
    words = [
        "prepare", "--dataset=folder", f"--data_dir={Path(paths[0]).parents[1]}", "--format=jpeg",
        "--short_side=512", "--val_fraction=0.01", f"--output_dir={target}",
    ]  # fmt: skip
    if data.main(words):
        raise SystemExit("error: the large photos could not be prepared")
    return readers.load("prepared", str(target), "train")


def _paths(setup: Setup, large: bool) -> list[str]:
    """JPEG files: of the folder, or enlarged ones of 12 megapixels."""
    found = sorted(str(path) for path in setup.photos.rglob("*.jpg"))
    if not found:
        raise SystemExit(f"error: --photos={setup.photos}: holds no .jpg file")
    if not large:
        return found[: _PHOTOS // 2 if setup.quick else _PHOTOS]
    folder = setup.folder / "large" / "photo"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    count = _LARGE_PHOTOS // 3 if setup.quick else _LARGE_PHOTOS
    for number in range(count):
        with Image.open(found[number % len(found)]) as opened:
            pixels = np.asarray(opened.convert("RGB").resize((4000, 3000)), np.float32)
        # The noise of a camera.
        pixels = pixels + rng.normal(0, 4, (3000, 4000, 1)).astype(np.float32)
        image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        image.save(folder / f"{number}.jpg", quality=85)
    return sorted(str(path) for path in folder.glob("*.jpg"))


def rows() -> Mapping[str, Row]:
    """By key."""
    pillow, normalised = "Pillow, two processes", "Pillow, two processes, normalised"

    def ways(large: bool) -> dict[str, Contestant]:
        return {
            "spml_tf": Contestant(functools.partial(_ours, large=large)),
            pillow: Contestant(
                functools.partial(_pillow, large=large, normalised=False), _PROCESSES
            ),
            normalised: Contestant(
                functools.partial(_pillow, large=large, normalised=True), _PROCESSES
            ),
        }

    large = ways(large=True)
    large["spml_tf, prepared once"] = Contestant(
        functools.partial(_ours, large=True, prepared=True)
    )
    return {
        "reading": Row(
            "Reading photos, random crops to 224 pixels", "photos", ways(large=False), 5, 3,
            (2.0, normalised),
        ),
        "reading_large": Row(
            "Reading photos of 12 megapixels, random crops to 224 pixels", "photos", large, 3, 2,
            (1.5, pillow),
        ),
    }  # fmt: skip
