"""Scores a finished run on a split: `python -m spml_tf.evaluate --run_dir=DIR --split=test`."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Any

from spml_tf.runs.evaluation_settings import EvaluationSettings
from spml_tf.system import cli, launcher, strategies
from spml_tf.system.errors import UserError
from spml_tf.system.flag_fields import (
    devices_field,
    plugins_field,
    strategy_field,
    workers_field,
)
from spml_tf.system.notes import tell_note

USAGE = """Prints mean and per-class average precision of a run, in percent, as JSON or a table.

usage: python -m spml_tf.evaluate --run_dir=DIR [--split=test] [--format=table]
       python -m spml_tf.evaluate --dataset=imagenet --run_dir=DIR
       python -m spml_tf.evaluate --dataset=imagenet --data_dir=DIR --network=resnet50 \\
           --weights=imagenet

{"run_dir", "split", "images", "map", "ap": {class: ...}, "absent_classes": [...], "known": {class:
{"positives", "negatives", "unknown"}}, "unknown_as_negative": [...]}; the precision of a class
without positives is null, "known" counts labels, and "unknown_as_negative" names the classes whose
unknown labels count as negatives. Numbers have at most four digits behind the point.

With --thresholds also {"precision", "recall", "f1", "threshold": {class: ...}, "macro", "micro",
"calibration"}: decisions by thresholds that were chosen on the validation images as export does,
macro means of classes and micro ones of labels, and the expected calibration error of this split
before and after --calibration; after is cross-validated on the split val.

For ImageNet's split real also {"val": {"images", "top1"}, "real": {"images", "top1", "map",
"classes"}}: top-1 accuracy on the validation labels and on the ReaL labels, and mean average
precision over all images with a ReaL label and over those with 1, 2, 3 and >=4 labels, each with
the number of images and of classes that have positives there. --network scores a classifier as it
comes with its weights, before any training; run_dir is then null."""

# What stands behind the point in JSON: percents, thresholds, calibration errors.
_DIGITS = 4


@dataclasses.dataclass(frozen=True)
class _Options(EvaluationSettings):
    plugins: str | None = plugins_field()
    strategy: str = strategy_field()
    devices: int = devices_field()
    workers: int = workers_field()


def _action(options: _Options) -> None:
    if options.workers > 1:
        if options.strategy == "mirrored":
            raise UserError("--workers: means --strategy=multi_worker, not mirrored; drop one")
        words = cli.flags_of_workers(options)
        launcher.launch("spml_tf.evaluate", words, options.workers, "give the same command again")
        return
    from spml_tf.runs import evaluate_run

    again = "start all workers again"
    with (
        strategies.strategy(options.strategy, options.devices).scope(),
        strategies.telling_lost_workers(again),
    ):
        report = evaluate_run.evaluate(options)
    if options.strategy != "multi_worker" or strategies.is_first_worker():
        if options.format == "table":
            from spml_tf.evaluation.report_table import report_table

            print(report_table(report))
            if "real" in report:
                tell_note("top-1 and ReaL figures are told by --format=json")
        else:
            print(json.dumps(_rounded(report)))


def _rounded(report: Any) -> Any:
    """The report with four digits behind the point."""
    if isinstance(report, dict):
        return {name: _rounded(value) for name, value in report.items()}
    return round(report, _DIGITS) if isinstance(report, float) else report


def main(argv: Sequence[str] | None = None) -> int:
    """The command; see `cli.run` for the exit codes."""
    return cli.run(argv, _Options, USAGE, _action)


if __name__ == "__main__":
    sys.exit(main())
