"""Measures what banks and labels take: bytes, seconds to build, save and load, peak of the process.

python tools/measure_banks.py [--sets=coco-uint8,coco-float32,imagenet-8] [--batches=20]
    [--bank_dir=DIR] [--work_dir=DIR]

Each set is built, written to and saved in one fresh process, and built and loaded in another, which
compares the rows of the last batch. The peak is the larger of the two, of everything in the process
(VmHWM of /proc, in which TensorFlow by itself has the figure of the first line). With --bank_dir
the tables live in files there, whose pages count only as long as the system has room for them. The
checkpoint goes to a temporary folder in --work_dir. Prints a Markdown table.

coco-*: MS-COCO 2014's 65,665 training images and 80 classes, heatmaps of 14 x 14 cells for all
classes. imagenet-8: ImageNet's 1,281,167 images and 1,000 classes, heatmaps of 7 x 7 cells for 8
classes an image. Both with the labels, and with the counts of selections that mark one label of
each image.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Images, classes, cells per side, classes an image, storage.
SETS = {
    "coco-uint8": (65_665, 80, 14, None, "uint8"),
    "coco-float32": (65_665, 80, 14, None, "float32"),
    "imagenet-8": (1_281_167, 1_000, 7, 8, "uint8"),
}
BATCH = 32


def peak() -> int:
    """Most bytes that this process has had in memory so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(x.split()[1]) * 1024 for x in lines if x.startswith("VmHWM"))


def table_bytes(*banks: Any) -> dict[str, int]:
    """Bytes of the tables of banks, by the names of bank and table."""
    return {
        f"{bank.name} {table.weight.name}": table.value.dtype.size * math.prod(table.value.shape)
        for bank in banks
        for table in bank.tables
    }


def fill(scores: Any, store: Any, rng: np.random.Generator) -> None:
    """What an epoch over all images leaves: each is visited, one label of each is known."""
    from spml_tf.banks.image_tables import row_slices
    from spml_tf.labels import POSITIVE, UNKNOWN

    images, classes = store.codes.shape
    scores.visited.assign(np.ones(images, bool))
    for block in row_slices(images, 16 * classes):
        numbers = np.arange(block.start, block.stop)
        codes = np.full((len(numbers), classes), UNKNOWN, np.int8)
        codes[np.arange(len(numbers)), numbers % classes] = POSITIVE
        store.codes.write(block, codes)
        drawn = rng.random((len(numbers), classes), np.float32)
        stored = (drawn * 255).astype(np.uint8) if scores.storage == "uint8" else drawn
        scores.table.write(block, stored)


def child(name: str, action: str, file: str, batches: int, directory: str | None) -> None:
    """Builds a set and saves or loads it; prints figures as JSON."""
    import keras
    import tensorflow as tf

    from spml_tf.banks.ema_bank import score_bank
    from spml_tf.banks.heatmap_bank import heatmap_bank
    from spml_tf.training.label_store import LabelStore

    images, classes, grid, kept, storage = SETS[name]
    float(tf.reduce_sum(tf.ones([4])))
    figures: dict[str, object] = {"base": peak()}

    def timed(what: str, function: Callable[[], object]) -> None:
        start = time.perf_counter()
        function()
        figures[what] = time.perf_counter() - start
        figures[f"peak after {what}"] = peak()

    class Banks(keras.Model):
        """The names that checkpoints of training have."""

        def __init__(self) -> None:
            super().__init__()
            given = {"storage": storage, "directory": directory}
            self.ema_scores = score_bank(images, classes, **given)
            self.ema_heatmaps = heatmap_bank(images, classes, grid, kept, **given)
            self.label_store = LabelStore(images, classes, selects=True, directory=directory)
            self.built = True

    made: list[Banks] = []
    timed("build", lambda: made.append(Banks()))
    model = made[0]

    @tf.function
    def step(index: tf.Tensor, seed: tf.Tensor) -> None:
        def random(*shape: int) -> tf.Tensor:
            return tf.random.stateless_uniform((BATCH, *shape), seed)

        labels = tf.one_hot(index % classes, classes, 1, -1, dtype=tf.int8)
        codes = model.label_store.with_marks(index, labels)
        model.label_store.write(index, codes)
        scores, box = random(classes), tf.tile([[0.1, 0.0, 0.9, 1.0]], [BATCH, 1])
        model.ema_scores.write(index, scores)
        maps, flip = random(grid, grid, classes), tf.fill([BATCH], False)
        model.ema_heatmaps.update(maps, index, box, flip, scores, codes)

    rng = np.random.default_rng(0)
    index = np.zeros(BATCH, np.int64)

    def write() -> None:
        nonlocal index
        for number in range(batches):
            index = rng.choice(images, BATCH, replace=False)
            step(tf.constant(index), tf.constant([0, number]))

    def choose() -> None:
        model.label_store.select(model.ema_scores, 2.0, "unannotated")

    def rows() -> dict[str, list]:
        banks = (model.ema_scores, model.ema_heatmaps, model.label_store)
        return {
            f"{bank.name} {table.weight.name}": table.gather(index).numpy().astype(float).tolist()
            for bank in banks
            for table in bank.tables
        }

    saved_rows = Path(file).with_suffix(".json")
    if action == "save":
        timed("write", write)
        fill(model.ema_scores, model.label_store, rng)
        timed("select", choose)
        saved_rows.write_text(json.dumps([index.tolist(), rows()]))
        timed("save", lambda: model.save_weights(file))
        figures["tables"] = table_bytes(model.ema_scores, model.ema_heatmaps, model.label_store)
        figures["file"] = os.path.getsize(file)
    else:
        timed("load", lambda: model.load_weights(file))
        numbers, expected = json.loads(saved_rows.read_text())
        index = np.array(numbers)
        assert rows() == expected
    figures["peak"] = peak()
    print(json.dumps(figures))


def measured(name: str, given: argparse.Namespace, folder: str) -> dict[str, dict]:
    """Figures of the two processes."""
    found = {}
    for action in ("save", "load"):
        words = [
            sys.executable, __file__, f"--child={action}", f"--sets={name}", f"--file={folder}/"
            f"{name}.weights.h5", f"--batches={given.batches}",
        ]  # fmt: skip
        words += [f"--bank_dir={given.bank_dir}"] if given.bank_dir else []
        done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
        found[action] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--bank_dir")
    parser.add_argument("--work_dir")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--file", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.sets, given.child, given.file, given.batches, given.bank_dir)
        return
    lines, first = [], 0
    for name in given.sets.split(","):
        with tempfile.TemporaryDirectory(dir=given.work_dir) as folder:
            found = measured(name, given, folder)
        saved, loaded = found["save"], found["load"]
        first = first or saved["base"]
        tables = saved["tables"]
        print(name, {x: f"{y / 1e9:.3f} GB" for x, y in tables.items()}, found, file=sys.stderr)
        top = max(saved["peak"], loaded["peak"])
        labels = tables.pop("label_store codes")
        marks = sum(y for x, y in tables.items() if x.endswith("visited"))
        scores = tables["ema_scores values"]
        maps = tables["ema_heatmaps values"] + tables.get("ema_heatmaps classes", 0)
        gigabytes = (maps, marks, scores, labels, sum(tables.values()) + labels, top)
        seconds = (saved["build"], saved["save"], loaded["load"])
        cells = [f"{x / 1e9:.2f}" for x in gigabytes] + [f"{x:.1f}" for x in seconds]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    print(f"A process with TensorFlow and no banks: {first / 1e9:.2f} GB.\n")
    print(
        "| set | heatmaps, GB | marks, GB | scores, GB | labels, GB | all tables, GB | "
        "peak of the process, GB | build, s | save, s | load, s |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
