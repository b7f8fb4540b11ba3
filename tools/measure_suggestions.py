"""What labelling photos in full is worth, by how they are chosen: one command a choice.

`python tools/measure_suggestions.py --flagfile=FILE --work_dir=DIR [--flag=value ...]` trains a run
for each seed, lets `spml_tf.audit --suggest` choose photos by each rule, fills in the labels that
the data set has for them, and trains again with these. Other flags are those of the runs.
DIR/suggestions.csv: rule, seed, mAP on val and test in percent, labels that were given and the
positives among them. Finished runs are not trained again.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

from spml_tf.evaluation.rules import SUGGESTIONS
from spml_tf.runs import run_data
from spml_tf.runs.run_folder import RunFolder
from spml_tf.system.files import write_table


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What is measured.

    Attributes:
        flags: of every run.
        folder: for runs and results.
        count: photos to label.
    """

    flags: tuple[str, ...]
    folder: Path
    count: int

    def train(self, name: str, seed: int, *others: str) -> RunFolder:
        """Trains a run, or goes on, or finds it finished."""
        path = self.folder / f"{name}_{seed}"
        _command("train", *self.flags, *others, f"--seed={seed}", f"--output_dir={path}")
        return RunFolder(path)

    def measure(self, seed: int) -> list[dict[str, object]]:
        """The rows of a seed: the run without further labels, and one for each rule."""
        before = self.train("before", seed)
        rows = [_row("none", seed, before, 0, 0)]
        for rule in SUGGESTIONS:
            chosen = self.folder / f"chosen_{rule}_{seed}"
            labels = chosen / "next" / "train_labels.csv"
            if not labels.exists():
                run = f"--run_dir={before.path}"
                by = f"--suggest_by={rule}", f"--suggest={self.count}"
                _command("audit", run, *by, f"--output_dir={chosen}")
                filled = _fill_in(before, chosen)
                _command("audit", run, f"--reviewed={filled}", f"--output_dir={labels.parent}")
            with open(chosen / "filled.csv", newline="", encoding="utf-8") as file:
                given = [int(row["label"]) for row in csv.DictReader(file)]
            after = self.train(rule, seed, f"--train_labels={labels}")
            rows.append(_row(rule, seed, after, len(given), sum(given)))
        return rows


def _fill_in(run: RunFolder, folder: Path) -> Path:
    """Gives suggested labels the values that the data set has."""
    data = run_data.load_of_run(run)
    images = {name: row for row, name in enumerate(data.train.names)}
    classes = {name: column for column, name in enumerate(data.train.class_names)}
    with open(folder / "suggest.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["label"] = str(data.train.labels[images[row["image"]], classes[row["class"]]])
    write_table(folder / "filled.csv", rows)
    return folder / "filled.csv"


def _row(rule: str, seed: int, run: RunFolder, given: int, positive: int) -> dict[str, object]:
    metrics = run.read_metrics()
    scores = {f"{x}_map": round(metrics[x]["map"], 3) for x in ("val", "test") if x in metrics}
    return {"rule": rule, "seed": seed, **scores, "labels": given, "positives": positive}


def _command(module: str, *words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"spml_tf.{module}", *words], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"spml_tf.{module} {' '.join(words)}: {done.stderr.strip()}")


def main() -> None:
    """Measures seed after seed; the table is written after each."""
    parser = argparse.ArgumentParser(usage=__doc__, allow_abbrev=False)
    parser.add_argument("--work_dir", type=Path, required=True, help="for runs and results")
    parser.add_argument("--count", type=int, default=100, help="photos to label")
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    given, flags = parser.parse_known_args()
    folder = given.work_dir
    measurement = Measurement(tuple(flags), folder, given.count)
    rows: list[dict[str, object]] = []
    for seed in range(given.seeds):
        rows += measurement.measure(seed)
        write_table(folder / "suggestions.csv", rows)
        print(json.dumps(rows[-1 - len(SUGGESTIONS) :]), flush=True)


if __name__ == "__main__":
    main()
