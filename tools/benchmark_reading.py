"""Times the training pipeline against a loader of the usual PyTorch kind, photos per second.

python tools/benchmark_reading.py --data_dir=VOCdevkit/VOC2012 [--rounds=5] [--image_size=224]

All decode, crop, resize and mirror every training photo of Pascal VOC, into float32 batches of 16.
Ours is `pipeline.training_dataset`, its pixels in 0..255; "pillow" runs Pillow in two processes,
which leave the same kind of batch in shared memory; "pillow, normalised" also does what a PyTorch
loader does then: channels first, divided by 255, mean and deviation. (Ours normalises inside the
network.) They take turns, so that a change of the machine's speed meets all alike; the first
batches, while processes and graphs start, are not timed.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import random
import statistics
import time
from collections.abc import Iterator, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from PIL import Image

BATCH, PROCESSES, UNTIMED = 16, 2, 4
AREA, ASPECT = (0.25, 1.0), (3 / 4, 4 / 3)
MEAN = np.array([0.485, 0.456, 0.406], np.float32)[:, None, None]
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)[:, None, None]
_shared: np.ndarray


def pillow_photo(path: str, size: int) -> np.ndarray:
    """A random crop, resized and perhaps mirrored, uint8 [size, size, 3]."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    width, height = image.size
    pixels = random.uniform(*AREA) * width * height
    aspect = math.exp(random.uniform(*map(math.log, ASPECT)))
    w = min(width, max(1, round(math.sqrt(pixels * aspect))))
    h = min(height, max(1, round(math.sqrt(pixels / aspect))))
    x, y = random.randint(0, width - w), random.randint(0, height - h)
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


def our_counts(data_dir: str, size: int, seed: int) -> Iterator[int]:
    from spml_tf.datasets import pipeline, readers

    examples = readers.load("voc", data_dir, "train")
    batches = pipeline.training_dataset(
        examples, examples.labels, image_size=size, batch_size=BATCH, seed=seed, crop_area=AREA
    )
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
    if kind == "ours":
        counts = our_counts(options.data_dir, options.image_size, options.seed)
    else:
        from spml_tf.datasets import readers

        paths = readers.load("voc", options.data_dir, "train").paths
        counts = pillow_counts(paths, options.image_size, kind != "pillow")
    queue.put(photos_per_second(counts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--image_size", type=int, default=224)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    speeds: dict[str, list[float]] = {"ours": [], "pillow": [], "pillow, normalised": []}
    for seed in range(options.rounds):
        options.seed = seed
        for kind, measured in speeds.items():
            queue = context.Queue()
            process = context.Process(target=in_a_process, args=(queue, kind, options))
            process.start()
            measured.append(queue.get())
            process.join()
    for kind, measured in speeds.items():
        low, high = min(measured), max(measured)
        ratio = statistics.median(a / b for a, b in zip(speeds["ours"], measured, strict=True))
        print(
            f"{kind}: {statistics.median(measured):.0f} photos/s ({low:.0f} to {high:.0f})", end=""
        )
        print(f", ours is {ratio:.2f} times as fast")


if __name__ == "__main__":
    main()
