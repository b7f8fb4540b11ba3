"""Scores a finished run on a split: `python -m spml_tf.evaluate --run_dir=DIR --split=test`."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from spml_tf import cli
from spml_tf.errors import UserError

if TYPE_CHECKING:
    from spml_tf.readers import Examples
    from spml_tf.settings import Settings

_USAGE = """Prints one JSON object: mean and per-class average precision of a run, in percent.

usage: python -m spml_tf.evaluate --run_dir=DIR [--split=test]

{"run_dir", "split", "images", "map", "ap": {class: ...}, "absent_classes": [...]}; the precision of
a class without positives is null."""


@dataclasses.dataclass(frozen=True)
class _Options:
    run_dir: str | None = cli.flag_field(None, "Folder of the run.")
    split: str = cli.flag_field(
        "test",
        "test: the run's --test_split; val: its validation images, held out of the training split "
        "where the data set has none of its own; any other name: that split of its data set.",
    )
    absent_classes: str = cli.flag_field(
        "skip",
        "Classes without positives: skip leaves them out of the mean, zero counts them as 0 (the "
        "rule of Cole et al. 2021).",
        str,
        ("skip", "zero"),
    )
    batch_size: int = cli.flag_field(32, "Images at a time.", int)


def evaluate(
    run_dir: str, split: str = "test", absent_classes: str = "skip", batch_size: int = 32
) -> dict[str, Any]:
    """Scores the best network of a run.

    Args:
        run_dir: the run's folder.
        split: "val" or "test", as the run used them, or another split of its data set.
        absent_classes: "skip" or "zero", see `metrics.mean_average_precision`.
        batch_size: images at a time.

    Returns:
        {"run_dir", "split", "images", "map", "ap", "absent_classes"}, precisions in percent, None
        for a class without positives.

    Raises:
        UserError: where there is no run, its network is missing, or the data cannot be read.
    """
    from spml_tf import networks, pipeline, runs, scoring

    run = runs.RunFolder(run_dir)
    settings = run.settings()
    network = networks.load_network(run.network)
    examples = _examples(settings, split)
    with pipeline.naming_broken_images(examples):
        scores = scoring.predict_scores(network, examples, settings.image_size, batch_size)
    report = scoring.score_report(examples.labels, scores, examples.class_names, absent_classes)
    return {"run_dir": run_dir, "split": split, "images": len(examples), **report}


def _examples(settings: Settings, split: str) -> Examples:
    from spml_tf import splits

    if split == "val":
        return splits.load_splits(settings).val
    name = settings.test_split if split == "test" else split
    if name == "none":
        raise UserError("--split=test: this run has no test images; give --split=val")
    return splits.load_examples(settings, name)


def _action(options: _Options) -> None:
    if options.run_dir is None:
        raise UserError("--run_dir is missing: name the folder of a run")
    if options.batch_size < 1:
        raise UserError(f"--batch_size={options.batch_size}: must be at least 1")
    print(json.dumps(evaluate(**dataclasses.asdict(options))))


def main(argv: Sequence[str] | None = None) -> int:
    """The command; see `cli.run` for the exit codes."""
    return cli.run(argv, _Options, _USAGE, _action)


if __name__ == "__main__":
    sys.exit(main())
