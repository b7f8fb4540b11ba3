"""What commands show on a terminal, here a pseudo terminal, and what stays out of files."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import termios
from pathlib import Path

import numpy as np
from conftest import command, flags, run

from spml_tf.datasets.readers import Examples
from spml_tf.datasets.splits import Splits
from spml_tf.runs.start_line import start_line


def on_terminal(words: list[str]) -> str:
    """What a command writes to a terminal of 100 columns, without colours."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    process = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    written = b""
    with contextlib.suppress(OSError):  # what reading gives once the process has ended
        while part := os.read(ours, 1 << 16):
            written += part
    os.close(ours)
    shown = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", written.decode()).replace("\r\n", "\n")
    assert process.wait(60) == 0, shown
    return shown


def test_bars_on_a_terminal(voc, finished, tmp_path):
    """Training has Keras' bar, the last evaluation and the other passes have one with time left."""
    words = command(*flags(voc, epochs=1), f"--output_dir={tmp_path / 'run'}")
    shown = on_terminal(words)
    assert re.search(r"^\d+ training, \d+ validation, 8 test, 3 classes, K = ", shown, re.M)
    assert re.search(r"\d+/\d+ .*\dm?s/step", shown)
    assert re.search(r"images: +\d+%\|.*\| \d+/8 \[\d\d:\d\d<", shown)
    shown = on_terminal(command("check", *flags(voc)[:3], module="data"))
    assert re.search(r"checked: 100%\|.*\| 32/32 \[\d\d:\d\d<\d\d:\d\d", shown)
    shown = on_terminal(
        command(f"--run_dir={finished}", f"--output_dir={tmp_path / 'audit'}", module="audit")
    )
    assert re.search(r"images: +\d+%\|", shown) and "results in" in shown


def test_files_get_plain_lines(voc, tmp_path):
    """No bar, no carriage return: a line at the start, one an epoch, one before each evaluation."""
    folder = tmp_path / "run"
    done = run(*flags(voc, epochs=1), f"--output_dir={folder}")
    assert done.returncode == 0, done.stderr
    assert "\r" not in done.stdout + done.stderr and "%|" not in done.stdout + done.stderr
    first, *lines = done.stdout.splitlines()
    assert re.fullmatch(
        rf"\d+ training, \d+ validation, 8 test, 3 classes, K = \d\.\d\d, CPU x1, -> {folder}",
        first,
    )
    assert "scoring the network of epoch 1 on test, 8 images" in lines
    assert lines[-1] == f"results in {folder}/metrics.json"
    again = run(*flags(voc, epochs=1), f"--output_dir={folder}")
    assert again.stdout.splitlines() == lines[-2:]


def test_the_start_line(tmp_path):
    """Two of three photos to train, the classes counted, K as it is known."""
    labels = np.array([[1, 0], [0, 1], [1, 1]], np.int8)
    images = np.zeros((3, 4, 4, 3), np.uint8)
    whole = Examples(("a", "b", "c"), labels, ("cat", "dog"), images=images)
    train, val = whole.subset([0, 1]), whole.subset([2])
    data = Splits(train, train.labels, val, None, ("c",), 1.0, ())
    for k, says in ((2.0, "K = 2.00"), ("auto", "K estimated"), (None, "K unknown")):
        line = start_line(data, k, Path("runs") / "mine")
        assert line == f"2 training, 1 validation, 2 classes, {says}, CPU x1, -> runs/mine"
