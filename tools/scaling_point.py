"""One point of `tools/measure_scaling.py`: what N images and L classes cost, in this process alone.

The parts of a point are measured in a process each. Every quantity is repeated; its peak is the
most that the process had in memory from its first repetition to its last.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from measure_banks import fill, peak, table_bytes
from numpy.typing import NDArray

BATCH, STEPS, WARM_UP = 32, 20, 5
SIDE = 32  # pixels, of which the network makes 4 x 4 cells
POSITIVES = 1.5  # an image
_NAME = "train/image_{:010d}.jpg"


class Size(NamedTuple):
    """A point: N, L and cells per side of the heatmap bank."""

    images: int
    classes: int
    grid: int


class Found(NamedTuple):
    """What was measured of a quantity.

    Attributes:
        quantity: its name.
        seconds: of each repetition.
        cpu_seconds: of each repetition, those of all of the process' threads together; other work
            on the machine changes them less.
        peak: bytes of the process.
        size: bytes of what the quantity works on: tables, a file, arrays.
    """

    quantity: str
    seconds: list[float]
    cpu_seconds: list[float]
    peak: int
    size: int


def computed_bytes(size: Size) -> dict[str, int]:
    """Bytes of each part's data on paper, by the part's name.

    training: scores, heatmaps, their marks, labels in two bits and nine bytes for each label that
    was chosen. resuming: the same. metrics: float32 scores and int8 labels. reading: three copies
    of the labels, and names and paths with what is made of them on the way, as 10^7 took them.
    """
    images, classes, cells = size.images, size.classes, size.grid**2
    chosen = round(POSITIVES * images)
    tables = images * (classes + 1 + cells * classes + -(-cells // 8) + -(-classes // 4))
    return {
        "training": tables + 9 * chosen,
        "resuming": tables + 9 * chosen,
        "metrics": 5 * images * classes,
        "reading": images * (3 * classes + 490),
    }


def file_bytes(size: Size) -> int:
    """Bytes of the tables in a checkpoint, which holds marks, labels and counts in a byte each."""
    cells = size.grid**2
    return size.images * (3 * size.classes + 1 + cells * (size.classes + 1))


def measured(
    quantity: str, repeats: int, function: Callable[[], Any], size: int, each: int = 1
) -> Found:
    """Repeats a function and times it.

    Args:
        quantity: its name.
        repeats: how often; three times are enough where these take a minute.
        function: what is timed.
        size: as for `Found`.
        each: by how many the seconds are divided.
    """
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    seconds, cpu_seconds = [], []
    for _ in range(repeats):
        if len(seconds) >= 3 and sum(seconds) * each > 60:
            break
        start, cpu_start = time.perf_counter(), time.process_time()
        function()
        cpu_seconds.append((time.process_time() - cpu_start) / each)
        seconds.append((time.perf_counter() - start) / each)
    return Found(quantity, seconds, cpu_seconds, peak(), size)


def _model(size: Size) -> Any:
    """EN+SCL with byte banks and a small network, ready for its first epoch."""
    import keras

    import spml_tf

    network = spml_tf.networks.small_residual_cam(size.classes, image_size=SIDE, seed=0)
    model = spml_tf.SPMLModel(
        network, size.images, "en+scl", POSITIVES, bank_dtype="uint8", heatmap_size=size.grid,
        selection_start_epoch=2, consistency_start_epoch=1,
    )  # fmt: skip
    model.compile(keras.optimizers.Adam(1e-3))
    model.begin_epoch(1)
    return model


def _steps(model: Any, size: Size, count: int) -> Callable[[], None]:
    """A function that takes STEPS training steps, with images drawn from all."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    index = [rng.choice(size.images, BATCH, replace=False) for _ in range(count)]
    image = tf.constant(rng.uniform(0, 255, (BATCH, SIDE, SIDE, 3)), tf.float32)

    def batch(index: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        labels = tf.one_hot(index % size.classes, size.classes, 1, -1, dtype=tf.int8)
        return {"image": image, "index": index}, labels

    batches = iter(tf.data.Dataset.from_tensor_slices(np.array(index)).map(batch).prefetch(2))
    model.make_train_function()

    def steps(number: int = STEPS) -> None:
        for _ in range(number):
            logs = model.train_function(batches)
        float(logs["loss"])

    steps(WARM_UP)
    return steps


def _folder(path: Path) -> Any:
    from spml_tf.runs.checkpoint_folder import CheckpointFolder

    record = path / "run.json"
    record.write_text("{}")
    return CheckpointFolder(path / "checkpoint", record, path / "network.keras")


def training(size: Size, repeats: int, path: Path) -> Iterator[Found]:
    """A training step, the selection at an epoch's start, and a checkpoint's save."""
    from spml_tf.runs import checkpoints
    from spml_tf.runs.checkpoint_folder import Progress

    model = _model(size)
    banks = (model.ema_scores, model.ema_heatmaps, model.label_store)
    tables = sum(table_bytes(*banks).values())
    fill(model.ema_scores, model.label_store, np.random.default_rng(0))
    steps = _steps(model, size, WARM_UP + repeats * STEPS)
    yield measured("step", repeats, steps, tables, STEPS)
    epochs = iter(range(2, 2 + repeats))
    yield measured("selection", repeats, lambda: model.begin_epoch(next(epochs)), tables)
    folder = _folder(path)
    folder.path.mkdir()
    done = iter(range(1, 1 + repeats))

    def save() -> None:
        checkpoints.save(model, folder, Progress(next(done)))

    found = measured("save", repeats, save, 0)
    yield found._replace(size=os.path.getsize(folder.newest().weights))


def resuming(size: Size, repeats: int, path: Path) -> Iterator[Found]:
    """A checkpoint's check and load."""
    from spml_tf.runs import checkpoints

    model, folder = _model(size), _folder(path)

    def load() -> None:
        checkpoints.load(model, folder.newest(to_train=True).weights)

    found = measured("load", repeats, load, 0)
    yield found._replace(size=os.path.getsize(folder.newest().weights))


def metrics(size: Size, repeats: int, path: Path) -> Iterator[Found]:
    """Exact average precision of all classes, and the expected positives of arrays."""
    from spml_tf.evaluation.average_precision import average_precision
    from spml_tf.labels import UNKNOWN
    from spml_tf.training.selection import expected_positives

    rng = np.random.default_rng(0)
    scores = rng.random((size.images, size.classes), np.float32)
    labels = np.zeros(scores.shape, np.int8)
    labels.reshape(-1)[rng.integers(0, labels.size, round(POSITIVES * size.images))] = 1
    taken = scores.nbytes + labels.nbytes
    yield measured("average precision", repeats, lambda: average_precision(labels, scores), taken)
    one = np.arange(size.images)
    labels[:] = UNKNOWN
    labels[one, one % size.classes] = 1

    def expected() -> NDArray[np.bool_]:
        return expected_positives(scores, labels, POSITIVES)

    yield measured("expected positives", repeats, expected, taken)


def reading(size: Size, repeats: int, path: Path) -> Iterator[Found]:
    """The list of images as a dataset, and the first batch of an epoch, before which is its order.

    The batch is of pictures of one pixel that are in memory.
    """
    import tensorflow as tf

    from spml_tf.datasets.pipeline import training_dataset
    from spml_tf.datasets.readers.examples import Examples

    float(tf.reduce_sum(tf.ones([4])))
    names = tuple(_NAME.format(x) for x in range(size.images))
    labels = np.zeros((size.images, size.classes), np.int8)
    classes = tuple(f"class {x}" for x in range(size.classes))
    given = {"image_size": 8, "batch_size": BATCH, "seed": 0, "epochs": repeats}

    def listed() -> None:
        paths = tuple("/data/" + name for name in names)
        training_dataset(Examples(names, labels, classes, paths=paths), labels, **given)

    yield measured("names", repeats, listed, computed_bytes(size)["reading"])
    pixels = np.zeros((size.images, 1, 1, 3), np.uint8)
    data = training_dataset(Examples(names, labels, classes, images=pixels), labels, **given)
    yield measured("order", repeats, lambda: next(iter(data)), 8 * size.images)


PARTS = {"training": training, "resuming": resuming, "metrics": metrics, "reading": reading}
QUANTITIES = {
    "training": ("step", "selection", "save"),
    "resuming": ("load",),
    "metrics": ("average precision", "expected positives"),
    "reading": ("names", "order"),
}


def run(part: str, size: Size, repeats: int, path: str) -> None:
    """Prints a line of JSON for each quantity."""
    for found in PARTS[part](size, repeats, Path(path)):
        print(json.dumps(found._asdict()), flush=True)
