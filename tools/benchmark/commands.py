"""Rows of whole commands: start-up, the report after training, overlays, frozen backbones."""

from __future__ import annotations

import csv
import functools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tools.benchmark import torch_networks
from tools.benchmark.turns import ROOT, Contestant, Row, Setup, Turn

_PREDICTED = 98
_CLASSES = 13
# A plug-in that ends the command after its first step and tells the time.
_FIRST_STEP = """
import os, time
import keras

def first_step_ends(self, batch, logs=None):
    print("first step", time.time(), flush=True)
    os._exit(0)

keras.callbacks.CallbackList.on_train_batch_end = first_step_ends
"""


def _command(*words: str) -> str:
    """Runs a command of the package to its end; what it printed."""
    done = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"error: {' '.join(words)}: {done.stderr[-500:]}")
    return done.stdout


def _start_up(setup: Setup) -> Turn:
    plugin = setup.folder / "first_step.py"
    plugin.write_text(_FIRST_STEP)

    def turn() -> tuple[float, float]:
        folder = setup.folder / f"run{time.time_ns()}"
        words = ["--dataset=digits", "--epochs=1", f"--plugins={plugin}", f"--output_dir={folder}"]
        begin = time.time()
        printed = _command("spml_tf.train", *words)
        (at,) = (x.split()[-1] for x in printed.splitlines() if x.startswith("first step"))
        return 1, float(at) - begin

    return turn


def _scoring(setup: Setup, first: bool) -> Turn:
    """ResNet-50 on 30 photos of random pixels, by a scorer made for them or made before."""
    from spml_tf import networks
    from spml_tf.evaluation.predictions import Scorer

    network = networks.build("resnet50", _CLASSES, "none", 224)
    photos = np.random.default_rng(0).integers(0, 255, (30, 224, 224, 3), np.uint8)
    scorer = Scorer(network)

    def turn() -> float:
        (Scorer(network) if first else scorer)(photos)
        return 1

    return turn


def _labelled(setup: Setup, count: int) -> Path:
    """A folder of photos with a table of labels drawn at random."""
    folder = setup.folder / "data"
    folder.mkdir()
    names = []
    for number, path in enumerate(sorted(setup.photos.rglob("*.jpg"))[:count]):
        names.append(f"{number}.jpg")
        os.symlink(path.resolve(), folder / names[-1])
    shown = np.random.default_rng(0).random((len(names), _CLASSES)) < 0.25
    shown[np.arange(len(names)), np.arange(len(names)) % _CLASSES] = True
    with open(folder / "labels.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", *(f"class{x}" for x in range(_CLASSES))])
        table.writerows([name, *row.astype(int)] for name, row in zip(names, shown, strict=True))
    return folder


def _training_flags(data: Path, **others: object) -> list[str]:
    values = {
        "dataset": "folder", "data_dir": data, "train_csv": "labels.csv", "allow_outside": "true",
        "network": "efficientnet_lite0", "weights": "none", "image_size": 160, "method": "an",
        "train_labels": "single", **others,
    }  # fmt: skip
    return [f"--{name}={value}" for name, value in values.items()]


def _predict(setup: Setup, overlays: bool) -> Turn:
    data = _labelled(setup, _PREDICTED)
    run, export = setup.folder / "run", setup.folder / "export"
    _command("spml_tf.train", *_training_flags(data, epochs=1, output_dir=run))
    _command("spml_tf.export", f"--run_dir={run}", f"--export_dir={export}")
    table, pictures = setup.folder / "predictions.csv", setup.folder / "overlays"

    def turn() -> float:
        table.unlink(missing_ok=True)
        for path in pictures.glob("*") if pictures.exists() else ():
            path.unlink()
        words = [f"--model_dir={export}", f"--images={data}/*.jpg", f"--output={table}"]
        _command("spml_tf.predict", *words, *([f"--overlays={pictures}"] if overlays else []))
        return 1

    return turn


def _frozen(setup: Setup, crops: int) -> Turn:
    """Epochs of the head alone, by the seconds in history.csv; their first one is left out."""
    count = 200 if setup.quick else 800
    data = _labelled(setup, count)

    def turn() -> tuple[float, float]:
        run = setup.folder / f"run{time.time_ns()}"
        words = _training_flags(
            data, epochs=3, warmup_epochs=3, feature_crops=crops, output_dir=run,
            val_fraction=0.2, batch_size=16,
        )  # fmt: skip
        _command("spml_tf.train", *words)
        with open(run / "history.csv", newline="") as file:
            seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
        # history.csv has tenths of a second.
        return 0.8 * count, max(0.05, statistics.median(seconds[1:]))

    return turn


def _frozen_pytorch(setup: Setup) -> Turn:
    step = torch_networks.stepper("efficientnet_lite0", _CLASSES, 160, 16, frozen=True)
    return lambda: sum(step() for _ in range(10))


def rows() -> Mapping[str, Row]:
    """By key."""
    return {
        "start_up": Row(
            "From the command train on digits to the end of its first step", "",
            {"spml_tf": Contestant(_start_up, processes=1)}, 5, 2,
        ),
        "scoring": Row(
            "Scoring 30 photos with ResNet-50 after the last epoch", "",
            {
                "one pass, traced before": Contestant(functools.partial(_scoring, first=False)),
                "the network traced and one pass": Contestant(
                    functools.partial(_scoring, first=True)
                ),
            }, 5, 2,
        ),
        "overlays": Row(
            f"predict, {_PREDICTED} photos, EfficientNet-Lite0, 160 pixels", "",
            {
                "with --overlays": Contestant(functools.partial(_predict, overlays=True), 1),
                "without": Contestant(functools.partial(_predict, overlays=False), 1),
            }, 2, 0, (0.5, "without"),
        ),
        "frozen": Row(
            "Epochs with a frozen backbone, EfficientNet-Lite0, 160 pixels, batch 16", "images",
            {
                "features computed once": Contestant(functools.partial(_frozen, crops=1), 1, False),
                "features computed in each step": Contestant(
                    functools.partial(_frozen, crops=0), 1, False
                ),
                "PyTorch, in each step, images in memory": Contestant(_frozen_pytorch),
            }, 2, 0, None,
            "Ours read the photos and score the validation images at the end of an epoch.",
        ),
    }  # fmt: skip
