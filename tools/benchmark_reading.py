"""Times the training pipeline against a loader of the usual PyTorch kind, photos per second.

python tools/benchmark_reading.py --data_dir=VOCdevkit/VOC2012 [--rounds=5] [--image_size=224]
    [--large=200]

All decode, crop, resize and mirror every training photo of Pascal VOC, into float32 batches of 16.
Ours is `pipeline.training_dataset`, its pixels in 0..255; "pillow" runs Pillow in two processes,
which leave the same kind of batch in shared memory; "pillow, normalised" also does what a PyTorch
loader does then: channels first, divided by 255, mean and deviation. (Ours normalises inside the
network.) They take turns, so that a change of the machine's speed meets all alike; the first
batches, while processes and graphs start, are not timed.

With --large=N it reads N photos of 12 megapixels in place of VOC's, made of these and kept in a
temporary folder. Pillow then uses its draft mode, by the rule that ours has: the smallest of 1/2,
1/4 and 1/8 at which the crop is as large as needed. "ours, prepared" reads for ten epochs what the
command prepare made of them once, 512 pixels on the shorter side. Peaks of memory are printed too.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from PIL import Image

from spml_tf.datasets.readers.examples import Examples

BATCH, PROCESSES, UNTIMED = 16, 2, 4
LARGE = 2e6  # pixels, above which JPEGs are decoded at a part of their size
AREA, ASPECT = (0.25, 1.0), (3 / 4, 4 / 3)
MEAN = np.array([0.485, 0.456, 0.406], np.float32)[:, None, None]
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)[:, None, None]
_shared: np.ndarray


def pillow_photo(path: str, size: int) -> np.ndarray:
    """A random crop, resized and perhaps mirrored, uint8 [size, size, 3]."""
    opened = Image.open(path)
    width, height = opened.size
    pixels = random.uniform(*AREA) * width * height
    aspect = math.exp(random.uniform(*map(math.log, ASPECT)))
    w = min(width, max(1, round(math.sqrt(pixels * aspect))))
    h = min(height, max(1, round(math.sqrt(pixels / aspect))))
    x, y = random.randint(0, width - w), random.randint(0, height - h)
    ratio = max(k for k in (1, 2, 4, 8) if k == 1 or min(w, h) >= k * size)
    if width * height > LARGE and ratio > 1:
        opened.draft("RGB", (width // ratio, height // ratio))
        ratio = round(width / opened.size[0])
        x, y, w, h = (side // ratio for side in (x, y, w, h))
    with opened:
        image = opened.convert("RGB")
    image = image.crop((x, y, x + w, y + h)).resize((size, size), Image.Resampling.BILINEAR)
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(image)


def start_worker(buffer: object, shape: tuple[int, ...]) -> None:
    global _shared
    _shared = np.frombuffer(buffer, np.float32).reshape(shape)


def pillow_batch(work: tuple[int, Sequence[str]]) -> int:
    """Fills a slot of the shared memory; slots are used again, since nobody reads them here."""
    number, paths = work
    batch = _shared[number % len(_shared)]
    for row, path in enumerate(paths):
        photo = pillow_photo(path, batch.shape[2])
        if batch.shape[-1] == 3:
            batch[row] = photo
        else:
            pixels = np.ascontiguousarray(photo.transpose(2, 0, 1)).astype(np.float32)
            pixels /= 255
            pixels -= MEAN
            pixels /= DEVIATION
            batch[row] = pixels
    return len(paths)


def pillow_counts(paths: Sequence[str], size: int, normalised: bool) -> Iterator[int]:
    """The number of photos of each batch, as the batches are ready."""
    shape = (8, BATCH, 3, size, size) if normalised else (8, BATCH, size, size, 3)
    buffer = multiprocessing.RawArray("f", math.prod(shape))
    work = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
    context = multiprocessing.get_context("fork")
    with context.Pool(PROCESSES, start_worker, (buffer, shape)) as pool:
        yield from pool.imap(pillow_batch, enumerate(work))


def write_large(data_dir: str, folder: Path, count: int) -> None:
    """Photos of 4000 x 3000 pixels: enlarged, with the noise of a camera."""
    from spml_tf.datasets import readers

    rng = np.random.default_rng(0)
    (folder / "photo").mkdir()
    for number, path in enumerate(readers.load("voc", data_dir, "train").paths[:count]):
        with Image.open(path) as opened:
            pixels = np.asarray(opened.convert("RGB").resize((4000, 3000)), np.float32)
        pixels = pixels + rng.normal(0, 4, (3000, 4000, 1)).astype(np.float32)
        image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        image.save(folder / "photo" / f"{number}.jpg", quality=85)


def prepare(folder: Path) -> None:
    """Makes the photos smaller once, as the command does, and tells how long it took."""
    from spml_tf import data

    begin = time.perf_counter()
    words = ["--dataset=folder", f"--data_dir={folder}", "--format=jpeg", "--short_side=512"]
    if code := data.main(
        ["prepare", *words, "--val_fraction=0.01", f"--output_dir={folder}/.small"]
    ):
        raise SystemExit(code)
    print(f"prepared in {time.perf_counter() - begin:.0f} s")


def load(options: argparse.Namespace, prepared: bool = False) -> Examples:
    from spml_tf.datasets import readers

    if prepared:
        return readers.load("prepared", f"{options.data_dir}/.small", "train")
    return readers.load("folder" if options.large else "voc", options.data_dir, "train")


def our_counts(examples: Examples, size: int, seed: int, epochs: int) -> Iterator[int]:
    from spml_tf.datasets import pipeline

    batches = pipeline.training_dataset(
        examples, examples.labels, image_size=size, batch_size=BATCH, seed=seed, crop_area=AREA,
        epochs=epochs,
    )  # fmt: skip
    for x, _ in batches:
        yield len(x["image"])


def photos_per_second(counts: Iterator[int]) -> float:
    for _ in range(UNTIMED):
        next(counts)
    start = time.perf_counter()
    photos = sum(counts)
    return photos / (time.perf_counter() - start)


def in_a_process(queue: multiprocessing.Queue, kind: str, options: argparse.Namespace) -> None:
    """Each turn has a process of its own: TensorFlow's threads do not survive a fork."""
    if kind.startswith("ours"):
        prepared = "prepared" in kind
        examples, epochs = load(options, prepared), 10 if prepared else 1
        counts = our_counts(examples, options.image_size, options.seed, epochs)
    else:
        counts = pillow_counts(load(options).paths, options.image_size, kind != "pillow")
    speed = photos_per_second(counts)
    # Of Pillow's processes the larger one, as often as there are processes.
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    children = PROCESSES * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    queue.put((speed, (own if kind.startswith("ours") else children) / 1024))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--large", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.large:
            write_large(options.data_dir, Path(folder), options.large)
            options.data_dir = folder
            prepare(Path(folder))
        compare(options)


def compare(options: argparse.Namespace) -> None:
    context = multiprocessing.get_context("spawn")
    peaks: dict[str, float] = {}
    kinds = ["ours", "pillow", "pillow, normalised", *["ours, prepared"] * bool(options.large)]
    speeds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for seed in range(options.rounds):
        options.seed = seed
        for kind, measured in speeds.items():
            queue = context.Queue()
            process = context.Process(target=in_a_process, args=(queue, kind, options))
            process.start()
            speed, peak = queue.get()
            measured.append(speed)
            peaks[kind] = max(peak, peaks.get(kind, 0))
            process.join()
    for kind, measured in speeds.items():
        low, high = min(measured), max(measured)
        ratio = statistics.median(a / b for a, b in zip(speeds["ours"], measured, strict=True))
        print(
            f"{kind}: {statistics.median(measured):.0f} photos/s ({low:.0f} to {high:.0f})", end=""
        )
        print(f", ours is {ratio:.2f} times as fast; peak {peaks[kind]:.0f} MB")


if __name__ == "__main__":
    main()
