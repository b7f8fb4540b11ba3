"""A miniature data set in Pascal VOC's layout, and a run trained on it through the command line."""

from __future__ import annotations

import gc
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import browsing
import numpy as np
import pytest
import tensorflow as tf
import warm_process
from hypothesis import HealthCheck, settings
from miniature import write_voc
from PIL import Image
from selenium import webdriver

# The same draws each time, so that a verdict can be repeated; see CONTRIBUTING.md for new ones. No
# time limit for an example: collecting garbage alone may take a second in a process of many tests.
settings.register_profile(
    "new_draws", derandomize=False, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("repeatable", settings.get_profile("new_draws"), derandomize=True)
settings.load_profile("repeatable")

# What `flags` gives to training in this process as well, which could not set it later.
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)

# A shell's background jobs ignore Ctrl-C, and so would all that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

CLASSES = ("cat", "cow", "dog")
COLOURS = {"cat": (220, 40, 40), "cow": (40, 220, 40), "dog": (40, 40, 220)}
RESUMED = {"epochs": 5, "bank_dtype": "uint8", "warmup_epochs": 1, "head_learning_rate": 0.01}


@pytest.fixture(scope="module", autouse=True)
def garbage_of_earlier_files_stays() -> Iterator[None]:
    """Collecting garbage goes through no graph that an earlier file of tests has left behind.

    It took a fifth of the time of a process of many tests, and up to half a minute of one test.
    """
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def voc(tmp_path_factory) -> Path:
    """A tree in VOC's layout: 24 + 8 pictures of coloured squares, one to three classes each."""
    root = tmp_path_factory.mktemp("voc")
    (root / "JPEGImages").mkdir()
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 8)):
        names = [f"2008_{split}{number:03d}" for number in range(count)]
        present = rng.random((count, len(CLASSES))) < 0.5
        present[np.arange(count), np.arange(count) % 3] = True
        for name, row in zip(names, present, strict=True):
            picture = rng.integers(90, 160, (40, 48, 3)).astype(np.uint8)
            for column in np.flatnonzero(row):
                y, x = rng.integers(0, 24, 2)
                picture[y : y + 12, x : x + 12] = COLOURS[CLASSES[column]]
            Image.fromarray(picture).save(root / "JPEGImages" / f"{name}.jpg", quality=95)
        marks = np.where(present, "1", "-1").T.tolist()
        write_voc(root, split, names, dict(zip(CLASSES, marks, strict=True)))
    return root


def flags(voc: Path, **others: object) -> list[str]:
    values = {
        "dataset": "voc", "data_dir": voc, "classes": ",".join(CLASSES),
        "network": "small_residual", "weights": "none", "image_size": 32, "epochs": 3,
        "batch_size": 5, "threads": 1, "selection_start_epoch": 2, "heatmap_size": 6, **others,
    }  # fmt: skip
    return [f"--{name}={value}" for name, value in values.items()]


def command(*words: str, module: str = "train") -> list[str]:
    return [sys.executable, "-m", f"spml_tf.{module}", *words]


def run(
    *words: str, module: str = "train", new_python: bool = False
) -> subprocess.CompletedProcess[str]:
    """A command from start to end; every command has a test that gives it a new Python."""
    if not new_python:
        return warm_process.run(f"spml_tf.{module}", words)
    return subprocess.run(
        command(*words, module=module), capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="session")
def finished(voc, tmp_path_factory) -> Path:
    """An uninterrupted run with uint8 banks, warm-up and a learning rate of the head's own."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    done = run(*flags(voc, **RESUMED), f"--output_dir={folder}")
    assert done.returncode == 0, done.stderr
    assert re.search(r"best epoch \d: mAP val \d+\.\d\d, test \d+\.\d\d", done.stdout)
    return folder


@pytest.fixture(scope="session")
def downloads(tmp_path_factory) -> Path:
    """Where `chromium` saves files."""
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="session")
def chromium(downloads) -> Iterator[webdriver.Chrome]:
    browser = browsing.start(downloads)
    yield browser
    browser.quit()


@pytest.fixture
def unlistable(monkeypatch) -> Callable[[str], None]:
    """Lets no folder be listed, in this process, whose path ends so; root may list any."""

    def of(ending: str) -> None:
        real = os.scandir

        def refusing(path: str | os.PathLike[str]) -> Any:
            if os.fspath(path).endswith(ending):
                raise PermissionError(13, "Permission denied", os.fspath(path))
            return real(path)

        monkeypatch.setattr(os, "scandir", refusing)

    return of


@pytest.fixture
def without_determinism() -> None:
    """Training in this process asks for deterministic operations, under which Keras has no jit."""
    from tensorflow.python.framework import config

    config.disable_op_determinism()
