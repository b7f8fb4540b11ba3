"""Kills trainings at random moments, resumes them and compares with one that was not disturbed.

python tools/soak_runs.py [--kills=30] [--seed=0] [--workers=1] [--work_dir=DIR]

Kill -9 comes at a random moment of the run. Of every three trials one is killed while a checkpoint
is being written, a random one of the run's, and of every six one is killed twice. The methods take
turns, so that each kind of table is among them: heatmaps of all classes as bytes and as float32, of
a few classes, marks that last, trained estimates. With --workers=2 one of two workers is killed,
once there are two, and the line tells how long the others went on. A run that was faster than the
moment drawn is not counted. Prints a line for each trial; the exit code is 1 if one differs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np

EPOCHS = 3
COMMON = [
    "--dataset=digits", "--image_size=16", f"--epochs={EPOCHS}", "--batch_size=256", "--threads=1",
    "--selection_start_epoch=2", "--consistency_start_epoch=2", "--heatmap_size=8",
]  # fmt: skip
KINDS = {
    "en_scl_uint8": ["--method=en+scl", "--bank_dtype=uint8"],
    "en_scl_few_classes": ["--method=en+scl", "--bank_dtype=float32", "--heatmap_classes=3"],
    "ll_cp": ["--method=ll_cp"],
    "role": ["--method=role"],
    "en_cl_float16": ["--method=en+cl", "--bank_dtype=float16"],
}
# Seconds between two looks at a run's folder.
_PAUSE = 0.001


def start(kind: str, folder: Path, workers: int) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "spml_tf.train", *COMMON, *KINDS[kind]]
    words += [f"--workers={workers}", f"--shuffle_groups={workers}"] if workers > 1 else []
    with open(folder.with_suffix(".log"), "ab") as log:
        return subprocess.Popen([*words, f"--output_dir={folder}"], stdout=log, stderr=log)


def arrays(folder: Path) -> dict[str, Any]:
    """Everything a run has saved, by name."""

    def of_h5(file: BytesIO | Path) -> dict[str, Any]:
        found = {}
        with h5py.File(file) as opened:
            opened.visititems(
                lambda name, x: found.update({name: x[()]}) if isinstance(x, h5py.Dataset) else None
            )
        return found

    every = of_h5(max((folder / "checkpoint").glob("*.weights.h5")))
    with zipfile.ZipFile(folder / "network.keras") as archive:
        best = of_h5(BytesIO(archive.read("model.weights.h5")))
    every |= {f"best/{name}": x for name, x in best.items()}
    for path in folder.glob("*.npz"):
        with np.load(path) as saved:
            every |= {f"{path.name}/{name}": saved[name] for name in saved.files}
    return every | {"metrics": np.array((folder / "metrics.json").read_text())}


def equal(one: Path, other: Path) -> bool:
    left, right = arrays(one), arrays(other)
    return left.keys() == right.keys() and all(
        left[name].tobytes() == right[name].tobytes() for name in left
    )


def children(process: subprocess.Popen[bytes]) -> list[int]:
    """Numbers of a process' own processes, the oldest first."""
    words = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return sorted(map(int, words))


def kill(process: subprocess.Popen[bytes], workers: int, draws: random.Random) -> str:
    """kill -9 of a process, or of one of its workers; what became of it."""
    if workers == 1:
        process.kill()
        return "killed" if process.wait() == -signal.SIGKILL else "had ended"
    while process.poll() is None and len(children(process)) < workers:
        time.sleep(_PAUSE)
    worker = draws.randrange(workers)
    with contextlib.suppress(ProcessLookupError, IndexError, FileNotFoundError):
        os.kill(children(process)[worker], signal.SIGKILL)
    begin = time.monotonic()
    code = process.wait()
    if code == 0:
        return "had ended"
    return f"worker {worker} killed, code {code} after {time.monotonic() - begin:.1f} s"


def kill_while_writing(
    process: subprocess.Popen[bytes], workers: int, folder: Path, draws: random.Random
) -> str:
    """kill -9 while a checkpoint is being written, any of those that are left to write."""
    places = folder / "checkpoint"
    saved = max((int(path.name[5:10]) for path in places.glob("epoch*.json")), default=0)
    number = draws.randint(min(saved + 1, EPOCHS), EPOCHS)
    while process.poll() is None:
        writing = any(places.glob(f".unfinished-*epoch{number:05}*"))
        if writing:
            return f"of epoch {number}: {kill(process, workers, draws)}"
        time.sleep(_PAUSE)
    return "had ended"


def kill_after(
    process: subprocess.Popen[bytes], workers: int, seconds: float, draws: random.Random
) -> str:
    """kill -9 after some seconds."""
    try:
        process.wait(seconds)
        return "had ended"
    except subprocess.TimeoutExpired:
        return kill(process, workers, draws)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--work_dir")
    given = parser.parse_args()
    draws, bad = random.Random(given.seed), 0
    with tempfile.TemporaryDirectory(dir=given.work_dir) as root:
        whole: dict[str, Path] = {}
        lasts: dict[str, float] = {}
        trial = 0
        while trial < given.kills:
            kind = list(KINDS)[trial % len(KINDS)]
            if kind not in whole:
                begin = time.monotonic()
                folder = Path(root) / kind
                if start(kind, folder, given.workers).wait():
                    print(folder.with_suffix(".log").read_text(), file=sys.stderr)
                    return 1
                whole[kind], lasts[kind] = folder, time.monotonic() - begin
            folder, told = Path(root) / f"trial{trial}", []
            for _ in range(2 if trial % 6 == 5 else 1):
                process, after = start(kind, folder, given.workers), draws.uniform(0, lasts[kind])
                if trial % 3 == 2:
                    how = kill_while_writing(process, given.workers, folder, draws)
                    told.append(f"while writing: {how}")
                else:
                    told.append(
                        f"after {after:.1f} s: {kill_after(process, given.workers, after, draws)}"
                    )
            if "had ended" in told[0]:
                shutil.rmtree(folder)
                lasts[kind] *= 0.8
                continue
            trial += 1
            code = start(kind, folder, given.workers).wait()
            same = code == 0 and equal(folder, whole[kind])
            bad += not same
            print(f"{trial} {kind}: {'; '.join(told)}; code {code}, equal {same}", flush=True)
    print(f"{given.kills - bad} of {given.kills} equal bit for bit")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
