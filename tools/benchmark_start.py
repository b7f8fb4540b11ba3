"""Times a command from its start to the end of its first training step, in seconds.

python tools/benchmark_start.py [--rounds=5] -- --dataset=digits --epochs=1 [--flag=value ...]

Each turn is `python -m spml_tf.train` with these flags, in a folder that is removed afterwards. A
plug-in ends it after its first step and tells the time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PLUGIN = """
import os, time
import keras

def first_step_ends(self, batch, logs=None):
    print("first step", time.time(), flush=True)
    os._exit(0)

keras.callbacks.CallbackList.on_train_batch_end = first_step_ends
"""


def seconds_to_first_step(flags: list[str], folder: Path) -> float:
    """Of one turn, by the wall clock."""
    plugin = folder / "first_step.py"
    plugin.write_text(PLUGIN)
    command = [sys.executable, "-m", "spml_tf.train", *flags, f"--plugins={plugin}"]
    start = time.time()
    done = subprocess.run(
        [*command, f"--output_dir={folder / 'run'}"], capture_output=True, text=True, env=os.environ
    )
    told = [line for line in done.stdout.splitlines() if line.startswith("first step")]
    if not told:
        raise SystemExit(done.stderr)
    return float(told[0].split()[-1]) - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("flags", nargs="+", help="of spml_tf.train, after --")
    options = parser.parse_args()
    measured = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            measured.append(seconds_to_first_step(options.flags, Path(folder)))
    low, high = min(measured), max(measured)
    print(f"{statistics.median(measured):.2f} s ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
