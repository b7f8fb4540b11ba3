"""Damages the files of runs in every way and looks at what the commands make of them.

python tools/fuzz_runs.py [--minutes=10] [--seed=0] [--part=1/1] [--first=1] [--work_dir=DIR]

Two runs of three epochs are trained, and one of them is kept as kill -9 would leave it after its
second epoch. Each file of the finished and of the unfinished run is cut at 20 random places, gets a
random bit changed five times, is emptied, deleted, and replaced by the other run's, all in random
order until the time is over (with --part=2/3 the second of three processes does its third of
them; --first=101 goes on after the first hundred of an earlier process); and train or another
command is run each time. It must give the results of the undamaged run, or one error line and a
code that is not 0, and never a traceback. Prints a line for each fault
found and a table of what was done; the exit code is 1 if there was one.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import json
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

FLAGS = [
    "--dataset=digits", "--image_size=16", "--epochs=3", "--batch_size=256", "--threads=1",
    "--method=en+scl", "--selection_start_epoch=2", "--consistency_start_epoch=2",
    "--heatmap_size=8", "--bank_dtype=uint8",
]  # fmt: skip
DAMAGES = {"cut": 20, "bit": 5, "emptied": 1, "deleted": 1, "swapped": 1}
READERS = ("evaluate", "export", "report", "audit", "analyze")


def call(module: str, words: list[str]) -> tuple[int, str]:
    """Runs a command in this process; its code and what it wrote on standard error."""
    import importlib

    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        code = importlib.import_module(f"spml_tf.{module}").main(words)
    return code, errors.getvalue()


def damage(path: Path, kind: str, other: Path, draws: random.Random) -> None:
    content = path.read_bytes()
    if kind == "deleted":
        path.unlink()
    elif kind == "swapped":
        path.write_bytes(other.read_bytes() if other.exists() else b"of another run")
    elif kind == "emptied" or not content:
        path.write_bytes(b"")
    elif kind == "cut":
        path.write_bytes(content[: draws.randrange(len(content))])
    else:
        changed = bytearray(content)
        changed[draws.randrange(len(content))] ^= 1 << draws.randrange(8)
        path.write_bytes(changed)


def results(folder: Path) -> str:
    metrics = folder / "metrics.json"
    return metrics.read_text() if metrics.exists() else ""


def judged(code: int, errors: str) -> str:
    """What is wrong with how a command ended; "" for nothing."""
    lines = [x for x in errors.splitlines() if x.startswith("error: ")]
    if "Traceback" in errors or code not in (0, 1):
        return f"code {code}: {errors[-500:]}"
    if code and len(lines) != 1:
        return f"{len(lines)} error lines: {errors[-500:]}"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", default="1/1")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--work_dir")
    given = parser.parse_args()
    part, parts = map(int, given.part.split("/"))
    draws, faults = random.Random(given.seed), 0
    counts = collections.Counter[tuple[str, str]]()
    with tempfile.TemporaryDirectory(dir=given.work_dir) as root:
        whole, other, killed = (Path(root) / x for x in ("whole", "other", "killed"))
        from spml_tf.runs import recorder

        write = recorder.RunRecorder.on_epoch_end

        def write_and_copy(self: recorder.RunRecorder, epoch: int, logs: object = None) -> None:
            write(self, epoch, logs)
            if epoch == 1 and self.run.path == whole:
                shutil.copytree(whole, killed)

        recorder.RunRecorder.on_epoch_end = write_and_copy
        for folder, seed in ((whole, 0), (other, 1)):
            code, errors = call("train", [*FLAGS, f"--seed={seed}", f"--output_dir={folder}"])
            assert code == 0, errors
        expected = results(whole)
        read = {
            name: call(name, reading(name, whole, Path(root) / f"{name}0"))[0] for name in READERS
        }
        assert not any(read.values()), read
        cases = [
            (source, path.relative_to(source), kind)
            for source in (whole, killed) for path in sorted(source.rglob("*"))
            if path.is_file() and "tensorboard" not in path.parts and path.name != ".lock"
            for kind, times in DAMAGES.items() for _ in range(times)
        ]  # fmt: skip
        draws.shuffle(cases)
        cases = cases[part - 1 :: parts][given.first - 1 :]
        draws.seed(f"{given.seed} {given.part} {given.first}")
        until, number = time.monotonic() + given.minutes * 60, 0
        for source, file, kind in cases:
            if time.monotonic() > until:
                break
            number += 1
            folder = Path(shutil.copytree(source, Path(root) / "run"))
            path = folder / file
            command = draws.choice(("train", *READERS)) if source == whole else "train"
            damage(path, kind, other / file, draws)
            if command == "train":
                words = [*FLAGS, "--seed=0", f"--output_dir={folder}"]
            else:
                words = reading(command, folder, Path(root) / "out")
            code, errors = call(command, words)
            reason = judged(code, errors)
            if not reason and command == "train" and code == 0 and results(folder) != expected:
                reason = f"other results: {json.loads(results(folder))['val']['map']}"
            if reason:
                faults += 1
                print(f"{number}: {command}, {source.name}/{file} {kind}: {reason}", flush=True)
            name = "".join("N" if x.isdigit() else x for x in path.name)
            counts[name, "one line" if code else "right result"] += 1
            for made in (folder, Path(root) / "out"):
                shutil.rmtree(made, ignore_errors=True)
    for (name, outcome), times in sorted(counts.items()):
        print(f"| {name} | {outcome} | {times} |")
    print(f"{number} of {len(cases)} damaged runs, {faults} faults")
    return 1 if faults else 0


def reading(name: str, folder: Path, output: Path) -> list[str]:
    """The words of a command that reads a run."""
    given = [f"--run_dir={folder}"]
    if name == "analyze":
        return [f"--run_dirs={folder}", f"--output_dir={output}"]
    if name == "export":
        return [*given, f"--export_dir={output}"]
    return [*given, f"--output_dir={output}"] if name == "audit" else given


if __name__ == "__main__":
    sys.exit(main())
