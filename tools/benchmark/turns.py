"""Contestants that take turns, each in a process of its own.

A change of the machine's speed meets all of them alike, and none works while it is not its turn.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_WARM = 2  # turns before those that are timed


@dataclasses.dataclass(frozen=True)
class Setup:
    """What contestants are told.

    Attributes:
        photos: folder of JPEG files, small ones.
        folder: of this contestant, for its files.
        quick: whether less work is asked for.
    """

    photos: Path
    folder: Path
    quick: bool


# Does the work of one turn; how many units of it were done, and the seconds that it took where
# these are not those of the call.
Turn = Callable[[], "float | tuple[float, float]"]


@dataclasses.dataclass(frozen=True)
class Contestant:
    """One way to do the work of a row.

    Attributes:
        start: makes ready, imports included.
        processes: that it keeps beside its own.
        warm: whether it has turns that are not timed.
    """

    start: Callable[[Setup], Turn]
    processes: int = 0
    warm: bool = True


@dataclasses.dataclass(frozen=True)
class Row:
    """Contestants that do the same work.

    Attributes:
        title: what is measured, with its sizes.
        unit: of which so many are done a second; empty: seconds a turn are given.
        contestants: by name; the first one is ours, with which the others are compared.
        rounds: turns of each.
        quick: turns of each in a quick run; 0: it leaves the row out.
        wanted: how many times as fast as which contestant ours should be.
        note: what to know of the figures.
    """

    title: str
    unit: str
    contestants: Mapping[str, Contestant]
    rounds: int
    quick: int
    wanted: tuple[float, str] | None = None
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Figure:
    """What was measured of one contestant.

    Attributes:
        row: key of the row.
        contestant: its name.
        unit: of the row.
        median: units a second, or seconds; None where it could not start.
        low: of the lower quartile.
        high: of the upper quartile.
        ours: median of how many times as fast ours was in the same round.
        peak_mb: largest resident memory, 10^6 bytes.
        rounds: turns.
        reason: why it could not start.
    """

    row: str
    contestant: str
    unit: str
    median: float | None = None
    low: float | None = None
    high: float | None = None
    ours: float | None = None
    peak_mb: float | None = None
    rounds: int = 0
    reason: str = ""


class _Process:
    """A contestant's process: one line in, one line out."""

    def __init__(self, key: str, name: str, setup: Setup) -> None:
        words = [f"--contestant={key}/{name}", f"--photos={setup.photos}"]
        words += [f"--folder={setup.folder}", *(["--quick"] if setup.quick else [])]
        self._errors = setup.folder / "errors.txt"
        with open(self._errors, "w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tools.benchmark", *words],
                cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
            )  # fmt: skip

    def reason(self) -> str:
        """Why it could not start, once it is ready; "" where it could."""
        reason: str = self._answer().get("reason", "")
        return reason

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            said = [x for x in self._errors.read_text().splitlines() if x.strip()]
            return {"reason": f"its process ended: {said[-1] if said else 'it said nothing'}"}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def turn(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        answer = self._answer()
        if "units" not in answer:
            raise SystemExit(f"error: {self._process.args}: {answer['reason']}")
        return answer

    def stop(self) -> None:
        with self._process:  # closes its pipes and waits
            pass


def measure(key: str, row: Row, photos: Path, quick: bool) -> list[Figure]:
    """Lets the contestants of a row take turns.

    Args:
        key: of the row.
        row: what is measured.
        photos: folder of JPEG files.
        quick: whether for a short time.
    """
    rounds = row.quick if quick else row.rounds
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        processes: dict[str, _Process] = {}
        for number, name in enumerate(row.contestants):
            own = Path(folder, str(number))
            own.mkdir()
            processes[name] = _Process(key, name, Setup(photos, own, quick))
            stack.callback(processes[name].stop)
        reasons = {name: process.reason() for name, process in processes.items()}
        able = {name: process for name, process in processes.items() if not reasons[name]}
        turns: dict[str, list[dict[str, Any]]] = {name: [] for name in able}
        for number in range(rounds):
            for name, process in able.items():
                turns[name].append(process.turn())
            print(f"\r{row.title}: round {number + 1} of {rounds}", end="", file=sys.stderr)
        print(file=sys.stderr)
    ours = next(iter(row.contestants))
    return [
        _figure(key, row, name, turns[name], turns.get(ours, []))
        if name in able
        else Figure(key, name, row.unit, reason=reasons[name])
        for name in row.contestants
    ]


def _figure(
    key: str,
    row: Row,
    name: str,
    turns: Sequence[Mapping[str, Any]],
    ours: Sequence[Mapping[str, Any]],
) -> Figure:
    pace = [turn["seconds"] / turn["units"] for turn in turns]  # seconds a unit
    own = [turn["seconds"] / turn["units"] for turn in ours]
    values = [1 / x for x in pace] if row.unit else pace
    low, high = (values[0],) * 2
    if len(values) > 1:
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    ratio = statistics.median(a / b for a, b in zip(pace, own, strict=True)) if own else None
    peak = max(turn["peak_mb"] for turn in turns)
    return Figure(
        key, name, row.unit, statistics.median(values), low, high, ratio, peak, len(turns)
    )


def serve(contestant: Contestant, setup: Setup) -> None:
    """Answers each line of standard input with one turn, as JSON."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer

    def answer(**values: object) -> None:
        print(json.dumps(values), file=answers, flush=True)

    try:
        turn = contestant.start(setup)
        for _ in range(_WARM if contestant.warm else 0):
            turn()
    except ImportError as error:
        answer(reason=f"{error}; pip install -e '.[bench]'")
        return
    answer()
    for _ in sys.stdin:
        begin = time.perf_counter()
        done = turn()
        seconds = time.perf_counter() - begin
        units, seconds = done if isinstance(done, tuple) else (done, seconds)
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        others = contestant.processes * _peak_of_children()
        answer(units=units, seconds=seconds, peak_mb=(own + others) * 1024 / 1e6)


def _peak_of_children() -> int:
    """Kilobytes of the largest child, one that has ended or one that runs."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    running = [0]
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    with contextlib.suppress(OSError):
        for child in children.read_text().split():
            status = Path(f"/proc/{child}/status").read_text()
            running += [int(x.split()[1]) for x in status.splitlines() if x.startswith("VmHWM")]
    return max(ended, *running)


def setup_of(options: argparse.Namespace) -> Setup:
    """What a contestant's process is told on its command line."""
    return Setup(Path(options.photos), Path(options.folder), options.quick)
