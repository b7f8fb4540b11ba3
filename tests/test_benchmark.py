"""The benchmark: its figures from turns that are known, and the command's two files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from saved_runs import table_rows

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # tools is no part of the package

from tools.benchmark import measures, turns  # noqa: E402


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.benchmark", *words], cwd=ROOT, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip


def test_figures_of_known_turns(monkeypatch, tmp_path):
    """Ours does 10 images in 1, 2 and 4 s, the other 5 in 1, 1 and 8 s: a tenth, a fifth and two
    fifths of a second an image against a fifth, a fifth and eight fifths."""
    seconds = {"ours": [1.0, 2.0, 4.0], "other": [1.0, 1.0, 8.0]}
    units, peaks = {"ours": 10, "other": 5}, {"ours": [1, 3, 2], "other": [7, 7, 7]}
    order = []

    class Process:
        def __init__(self, key, name, setup):
            self.name, self.turns = name, 0

        def reason(self):
            return "no PyTorch" if self.name == "third" else ""

        def turn(self):
            number, self.turns = self.turns, self.turns + 1
            order.append(self.name)
            return {
                "units": units[self.name], "seconds": seconds[self.name][number],
                "peak_mb": peaks[self.name][number],
            }  # fmt: skip

        def stop(self):
            pass

    monkeypatch.setattr(turns, "_Process", Process)
    contestants = dict.fromkeys(("ours", "other", "third"), turns.Contestant(lambda setup: None))
    row = turns.Row("Title", "images", contestants, rounds=3, quick=1)
    ours, other, third = turns.measure("key", row, tmp_path, quick=False)
    assert order == ["ours", "other"] * 3
    assert (ours.median, ours.peak_mb, ours.rounds) == (5.0, 3, 3)
    assert (other.median, other.peak_mb) == (5.0, 7)
    # How many times as fast ours was: 2, 1 and 4.
    assert other.ours == pytest.approx(2.0) and ours.ours == 1.0
    assert (third.median, third.reason) == (None, "no PyTorch")


def test_contestants_of_a_measure_do_the_same_work():
    """Otherwise their times could not be compared."""
    labels, scores = measures._random(500, 7, unknown=False)
    ours, theirs = measures._ours(labels, scores), measures._loop_of_scikit_learn(labels, scores)
    assert ours == pytest.approx(theirs, abs=1e-12)
    labels, scores = measures._random(500, 7, unknown=True)
    chosen = measures._select(labels, scores), measures._loop_of_argsort(labels, scores)
    assert chosen[0] == chosen[1] > 100
    assert np.unique(labels).tolist() == [-1, 1]


@pytest.mark.slow
def test_the_command_writes_both_files(tmp_path):
    done = command("--quick", "--rows=selection", f"--output_dir={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    ours, other = table_rows(tmp_path / "out" / "benchmark.csv")
    assert (ours["row"], ours["contestant"], ours["ours"]) == ("selection", "spml_tf", "1.0")
    assert other["contestant"] == "a loop over numpy.argsort" and ours["rounds"] == "3"
    assert 0 < float(ours["low"]) <= float(ours["median"]) <= float(ours["high"])
    assert float(ours["peak_mb"]) > 50
    text = (tmp_path / "out" / "benchmark.md").read_text()
    assert "python -m tools.benchmark --quick --rows=selection" in text
    assert str(tmp_path) not in text
    ratio = f"{float(other['ours']):.2f} times as fast"
    assert ratio in text and re.search(r"\| spml_tf \| [\d.]+ \([\d.]+ to [\d.]+\) \|", text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rows=nothing"], "error: --rows=nothing: must be of step_resnet50,"),
        (["--photos=nowhere", "--rows=selection"], "error: --photos=nowhere: no such folder"),
    ],
)
def test_what_cannot_be_measured_is_said_in_a_line(tmp_path, words, message):
    done = command(*words, f"--output_dir={tmp_path}")
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr


def test_a_contestant_that_cannot_start_says_why(tmp_path):
    """A folder without photos: the loader's process ends, and its last words are kept."""
    row = turns.Row("Title", "photos", {"spml_tf": turns.Contestant(lambda x: None)}, 1, 1)
    (tmp_path / "photos").mkdir()
    (figure,) = turns.measure("reading", row, tmp_path / "photos", quick=True)
    assert figure.median is None and "holds no .jpg file" in figure.reason
    assert os.listdir(tmp_path) == ["photos"]
