"""Measures what calibration changes on the test images of runs, and prints a Markdown table.

python tools/measure_calibration.py --run_dirs=RUN,... [--seeds=5] [--picture=FILE]

The runs must have validation and test labels in full; their saved scores are all that is read. A
row is a run and a rule; "annotated" is Platt scaling fitted to one positive of each validation
image, drawn with --seeds seeds, as mean and range. --picture draws reliability diagrams of the test
images.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from numpy.typing import NDArray

from spml_tf.datasets.observed_labels import draw_observed
from spml_tf.evaluation import calibration, decision_report, measures, thresholds
from spml_tf.evaluation.calibration import Calibration
from spml_tf.evaluation.rules import CALIBRATIONS
from spml_tf.runs.decisions import from_annotated
from spml_tf.runs.run_folder import RunFolder

COLUMNS = (
    "ECE val", "ECE test", "scores per positive", "macro F1 at 0.5", "micro F1 at 0.5",
    "macro F1, `count`", "micro F1, `count`", "macro F1, `f1`", "micro F1, `f1`",
)  # fmt: skip
# Labels in a bin that is drawn.
FEWEST = 20
Split = dict[str, NDArray[Any]]


def rules(val: Split, seeds: int) -> Iterator[tuple[str, list[Calibration]]]:
    """Each rule, with what it fits to validation images, once or for every seed."""
    labels, scores = val["labels"], val["scores"]
    for rule in CALIBRATIONS:
        yield rule, [calibration.fit(labels, scores, rule)]
    drawn = (draw_observed(labels, seed) for seed in range(seeds))
    yield "annotated", [from_annotated(observed, scores) for observed in drawn]


def measured(rule: str, found: Calibration, val: Split, test: Split) -> list[float]:
    """The numbers of `COLUMNS`, NaN where there is none."""
    held = found(val["scores"])
    if rule in ("temperature", "platt"):
        held = calibration.cross_validated(val["labels"], val["scores"], rule)
    scores, truth = found(test["scores"]), test["labels"]
    numbers = [
        100 * calibration.calibration_error(val["labels"], held),
        100 * calibration.calibration_error(truth, scores),
        scores.sum() / truth.sum(),
    ]
    for text in ("0.5", "count", "f1"):
        if rule == "annotated" and text != "0.5":
            numbers += [np.nan, np.nan]  # its thresholds could not be chosen either
            continue
        chosen = thresholds.choose(
            val["labels"], found(val["scores"]), thresholds.parse_rule(text),
            val["labels"].sum(axis=1).mean(),
        )  # fmt: skip
        report = decision_report.decision_report(truth, scores, chosen.values, test["class_names"])
        numbers += [report["macro"]["f1"], report["micro"]["f1"]]
    return numbers


def cell(values: NDArray[np.float64]) -> str:
    """The mean, and the range of several."""
    if np.isnan(values).any():
        return ""
    span = f" ({values.min():.2f} to {values.max():.2f})" if len(values) > 1 else ""
    return f"{values.mean():.2f}{span}"


def draw(path: Path, curves: Sequence[tuple[str, dict[str, measures.Reliability]]]) -> None:
    """A diagram a run, two in a column, a line a rule; bins of few labels are left out."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = -(-len(curves) // 2)
    figure = Figure(figsize=(3 * columns, 6.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, columns, squeeze=False, sharex=True, sharey=True).T.ravel()
    for axis, (name, lines) in zip(axes, curves, strict=False):
        axis.plot([0, 1], [0, 1], color="0.7", linestyle="--")
        for rule, bins in lines.items():
            shown = bins.counts >= FEWEST
            axis.plot(bins.scores[shown], bins.positives[shown], marker=".", label=rule)
        axis.set(title=name, xlabel="mean score", ylabel="share of positives")
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--run_dirs", required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    print("| run | calibration |", " | ".join(COLUMNS), "|")
    print("|---" * (2 + len(COLUMNS)) + "|")
    curves = []
    for folder in options.run_dirs.split(","):
        val, test = map(RunFolder(folder).read_predictions, ("val", "test"))
        lines = {}
        for rule, fitted in rules(val, options.seeds):
            numbers = np.array([measured(rule, found, val, test) for found in fitted])
            print(f"| {Path(folder).name} | {rule} |", " | ".join(map(cell, numbers.T)), "|")
            lines[rule] = measures.reliability(test["labels"], fitted[0](test["scores"]))
        curves.append((Path(folder).name, lines))
    if options.picture:
        draw(options.picture, curves)


if __name__ == "__main__":
    main()
