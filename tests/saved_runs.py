"""What a run saved, as arrays, and how to stop one the hard way."""

from __future__ import annotations

import csv
import io
import json
import shutil
import signal
import subprocess
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np
import pytest
from warm_process import Process

from spml_tf.runs import checkpoint_folder, recorder
from spml_tf.runs.run_folder import RunFolder


def newest_weights(folder: Path) -> Path:
    """The weights of a run's newest checkpoint."""
    found = RunFolder(folder).checkpoints.newest()
    assert found is not None
    return found.weights


def has_checkpoint(folder: Path) -> bool:
    return any((folder / "checkpoint").glob("epoch*.json"))


def change_flags(folder: Path, **flags: object) -> None:
    """Changes what run.json says, as if the run had been trained with it."""
    run = RunFolder(folder)
    record = json.loads(run.record.read_text())
    record["flags"] |= flags
    run.record.write_text(json.dumps(record))
    seal(folder)


def seal(folder: Path) -> None:
    """Makes all checksums of a run those of its files as they are: whoever changes one can."""
    run = RunFolder(folder)
    run.checksums.unlink(missing_ok=True)
    for path in run.checkpoints.path.glob("epoch*.json"):
        body = json.loads(path.read_text())
        del body["crc32"]
        for files in (body["files"], body["network"]):
            for name in files:
                files[name] = checkpoint_folder.checksum(path.with_name(name))
        body["run"] = checkpoint_folder.checksum(run.record)
        text = json.dumps(body, sort_keys=True).encode()
        path.write_text(json.dumps({**body, "crc32": zlib.crc32(text)}))
    if run.metrics.exists():
        run.finish()


def arrays(folder: Path) -> dict[str, np.ndarray]:
    """Every array a run saved, by file and path; history.csv by columns, without the seconds."""
    with open(newest_weights(folder), "rb") as file:
        found = _h5_arrays(file, "checkpoint")
    with zipfile.ZipFile(folder / "network.keras") as archive:
        found |= _h5_arrays(io.BytesIO(archive.read("model.weights.h5")), "network")
    for path in sorted(folder.glob("*.npz")):
        with np.load(path, allow_pickle=False) as saved:
            found |= {f"{path.stem}/{name}": saved[name] for name in saved.files}
    for name, values in history(folder).items():
        if name != "seconds":
            found[f"history/{name}"] = np.array(values)
    return found


def _h5_arrays(file: BinaryIO, prefix: str) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found[f"{prefix}/{name}"] = item[...]

    with h5py.File(file) as opened:
        opened.visititems(visit)
    return found


def table_rows(path: Path) -> list[dict[str, str]]:
    """A CSV file's rows by the names of its columns."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def history(folder: Path) -> dict[str, list[str]]:
    """history.csv by columns."""
    rows = table_rows(folder / "history.csv")
    return {name: [row[name] for row in rows] for name in rows[0]}


def assert_equal_runs(one: Path, other: Path) -> None:
    """Every array of two runs is equal bit for bit, and so are their results."""
    left, right = arrays(one), arrays(other)
    assert left.keys() == right.keys()
    different = [name for name in left if left[name].tobytes() != right[name].tobytes()]
    assert not different
    assert (one / "metrics.json").read_text() == (other / "metrics.json").read_text()


def copy_after_epoch(monkeypatch: pytest.MonkeyPatch, folder: Path, epoch: int) -> None:
    """Copies the next run's folder as it is after an epoch: what kill -9 would leave then."""
    write = recorder.RunRecorder.on_epoch_end

    def write_and_copy(self, number, logs=None):
        write(self, number, logs)
        if number + 1 == epoch:
            shutil.copytree(self.run.path, folder)

    monkeypatch.setattr(recorder.RunRecorder, "on_epoch_end", write_and_copy)


def wait_until(
    process: subprocess.Popen | Process, reached: Callable[[], bool], seconds: float = 240
) -> None:
    """Returns as soon as `reached()`; fails if the process ends first."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert process.poll() is None, "ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.002)


def kill_at(
    process: subprocess.Popen | Process, reached: Callable[[], bool], seconds: float = 240
) -> None:
    """kill -9 as soon as `reached()`; fails if the process ends first."""
    wait_until(process, reached, seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()
