"""Scores a finished run on a split: `python -m spml_tf.evaluate --run_dir=DIR --split=test`."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Any

from spml_tf import cli
from spml_tf.errors import UserError

_USAGE = """Prints one JSON object: mean and per-class average precision of a run, in percent.

usage: python -m spml_tf.evaluate --run_dir=DIR [--split=test]"""


@dataclasses.dataclass(frozen=True)
class _Options:
    run_dir: str | None = cli.flag_field(None, "Folder of the run.")
    split: str = cli.flag_field(
        "test", "val, test (those of the run), or any other split of its data set."
    )
    absent_classes: str = cli.flag_field(
        "skip",
        "Classes without positives: skip leaves them out of the mean, zero counts them as 0 (the "
        "rule of Cole et al. 2021).",
        str,
        ("skip", "zero"),
    )


def evaluate(run_dir: str, split: str = "test", absent_classes: str = "skip") -> dict[str, Any]:
    """Scores the best network of a run.

    Args:
        run_dir: the run's folder.
        split: "val" or "test", as the run used them, or another split of its data set.
        absent_classes: "skip" or "zero", see `metrics.mean_average_precision`.

    Returns:
        {"run_dir", "split", "images", "map", "ap", "absent_classes"}, precisions in percent.

    Raises:
        UserError: where there is no run, its network is missing, or the data cannot be read.
    """
    from spml_tf import networks, runs, scoring, splits

    run = runs.RunFolder(run_dir)
    settings = run.settings()
    network = networks.load_network(run.network)
    if split in ("val", "test"):
        examples = getattr(splits.load_splits(settings), split)
    else:
        examples = splits.load_examples(settings, split)
    scores = scoring.predict_scores(network, examples, settings.image_size)
    report = scoring.score_report(examples.labels, scores, examples.class_names, absent_classes)
    return {"run_dir": run_dir, "split": split, "images": len(examples), **report}


def _action(options: _Options) -> None:
    if options.run_dir is None:
        raise UserError("--run_dir is missing: name the folder of a run")
    print(json.dumps(evaluate(options.run_dir, options.split, options.absent_classes)))


def main(argv: Sequence[str] | None = None) -> int:
    """The command; see `cli.run` for the exit codes."""
    return cli.run(argv, _Options, _USAGE, _action)


if __name__ == "__main__":
    sys.exit(main())
