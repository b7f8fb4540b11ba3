"""Scores a finished run on a split: `python -m spml_tf.evaluate --run_dir=DIR --split=test`."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from spml_tf.datasets.settings import UNKNOWN_COUNTS_AS
from spml_tf.system import cli, launcher, strategies
from spml_tf.system.errors import UserError
from spml_tf.system.flag_checks import check_bounds
from spml_tf.system.flag_fields import (
    calibration_field,
    devices_field,
    flag_field,
    plugins_field,
    strategy_field,
    workers_field,
)
from spml_tf.system.notes import tell_note

if TYPE_CHECKING:
    import keras
    import numpy as np
    from numpy.typing import NDArray

    from spml_tf.datasets.readers import Examples
    from spml_tf.runs.run_folder import RunFolder
    from spml_tf.runs.settings import Settings

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
class _Options:
    run_dir: str | None = flag_field(None, "Folder of the run.")
    split: str = flag_field(
        "test",
        "test: the run's --test_split; val: its validation images, held out of the training split "
        "where the data set has none of its own; any other name: that split of its data set.",
    )
    format: str = flag_field(
        "json",
        "json: one object on one line; table: a row a class, with positives, AP, precision, "
        "recall, F1 and threshold (--thresholds=f1 where it is not given), and their means.",
        str,
        ("json", "table"),
    )
    thresholds: str | None = flag_field(
        None,
        "Score decisions too: f1, precision:P, recall:R, count or a number, chosen on the "
        "validation images as by export.",
    )
    calibration: str = calibration_field("Thresholds")
    absent_classes: str = flag_field(
        "skip",
        "Classes without positives: skip leaves them out of the mean, zero counts them as 0 (the "
        "rule of Cole et al. 2021).",
        str,
        ("skip", "zero"),
    )
    unknown_counts_as: str | None = flag_field(
        None,
        "What unknown labels count as: nothing leaves them out where a class has known positives "
        "and known negatives; negative. Default: as in the run.",
        str,
        UNKNOWN_COUNTS_AS,
    )
    batch_size: int = flag_field(32, "Images at a time.", int, low=1)
    dataset: str | None = flag_field(
        None, "The run's data set, checked if given; with --network: imagenet."
    )
    data_dir: str | None = flag_field(
        None, "Folder of the data set, where it is not the run's own."
    )
    network: str | None = flag_field(
        None,
        "Instead of a run: resnet50, efficientnet_lite0 or applications:NAME with its own head.",
    )
    weights: str | None = flag_field(
        None, "With --network: imagenet, or a weights file. Default: imagenet."
    )
    image_size: int | None = flag_field(
        None, "With --network: input side in pixels. Default: 224.", int
    )
    probabilities: str = flag_field(
        "sigmoid",
        "What a class's images are ranked by: sigmoid of its logit, or softmax over the classes of "
        "an image, for a classifier trained with one.",
        str,
        ("sigmoid", "softmax"),
    )
    plugins: str | None = plugins_field()
    strategy: str = strategy_field()
    devices: int = devices_field()
    workers: int = workers_field()


def evaluate(
    run_dir: str | None = None,
    split: str = "test",
    absent_classes: str = "skip",
    batch_size: int = 32,
    **others: Any,
) -> dict[str, Any]:
    """Scores the best network of a run, or a classifier as it comes with its weights.

    Args:
        run_dir: the run's folder; None with a network.
        split: "val" or "test", as the run used them, or another split of its data set.
        absent_classes: "skip" or "zero", see `average_precision.mean_average_precision`.
        batch_size: images at a time.
        **others: the command's other flags: dataset, data_dir, network, weights, image_size,
            probabilities, unknown_counts_as, thresholds, calibration, format.

    Returns:
        {"run_dir", "split", "images"} and what `predictions.score_report` returns, precisions in
        percent; with thresholds also what `runs.decisions.report` returns; for ImageNet's split
        real also "val" and "real", see `real_labels.real_report`.

    Raises:
        UserError: where there is no run, its network is missing, or the data cannot be read.
    """
    options = _Options(
        run_dir=run_dir,
        split=split,
        absent_classes=absent_classes,
        batch_size=batch_size,
        **others,
    )
    return _evaluate(options)


def _evaluate(options: _Options) -> dict[str, Any]:
    from spml_tf.evaluation import predictions, real_labels

    _check(options)
    network, settings, class_names = _network(options)
    if options.unknown_counts_as is not None:
        settings = dataclasses.replace(settings, unknown_counts_as=options.unknown_counts_as)
    examples = _examples(settings, options.split)
    if examples.class_names != class_names:
        raise UserError(
            f"--data_dir={settings.data_dir}: holds {len(examples.class_names)} classes, the run "
            f"was trained on {len(class_names)}, or on others; name the folder it was trained on"
        )
    scores = _scores(network, examples, settings, options)
    named = {"run_dir": options.run_dir, "split": options.split, "images": len(examples)}
    ranked = real_labels.softmax(scores) if options.probabilities == "softmax" else scores
    report = predictions.score_report(
        examples.labels,
        ranked,
        examples.class_names,
        options.absent_classes,
        settings.unknown_counts_as,
    )
    if options.thresholds is not None or options.format == "table":
        report |= _decided(options, settings, examples, ranked)
    if (settings.dataset, _split_name(settings, options.split)) != ("imagenet", "real"):
        return {**named, **report}
    real = real_labels.real_report(examples.labels, ranked, options.absent_classes)
    val = _top1_on_val(network, settings, examples, scores, options)
    return {**named, **report, "val": val, "real": real}


def _decided(
    options: _Options, settings: Settings, examples: Examples, scores: NDArray[np.float32]
) -> dict[str, Any]:
    """What is said of decisions; nothing, with a note, where a table has none to show."""
    from spml_tf.runs import decisions
    from spml_tf.runs.run_folder import RunFolder

    why = _undecided(options, settings)
    if why and (options.thresholds is not None or options.calibration != "none"):
        name = "thresholds" if options.thresholds is not None else "calibration"
        raise UserError(f"--{name}={getattr(options, name)}: {why}")
    if why or options.run_dir is None:
        tell_note(f"the table shows no decisions: {why}")
        return {}
    rules = options.thresholds or "f1", options.calibration
    return decisions.report(
        decisions.decisions(RunFolder(options.run_dir), *rules),
        options.split,
        examples.labels,
        scores,
        options.absent_classes,
        settings.unknown_counts_as,
    )


def _undecided(options: _Options, settings: Settings) -> str:
    """Why thresholds of a run do not fit what is ranked; "" where they do."""
    if options.run_dir is None:
        return "a network without a run has no validation images to choose thresholds on"
    if _as_logits(options, settings):
        return "thresholds are of sigmoid scores, and ImageNet and softmax rank others"
    from spml_tf.runs.run_folder import RunFolder

    if not RunFolder(options.run_dir).metrics.exists():
        return "the run is not finished, and has no validation scores yet"
    return ""


def _as_logits(options: _Options, settings: Settings) -> bool:
    """Whether classes are ranked by logits: a sigmoid's values tie at 1 where a network is sure."""
    return settings.dataset == "imagenet" or options.probabilities == "softmax"


def _network(options: _Options) -> tuple[keras.Model, Settings, tuple[str, ...]]:
    """Network and settings, and the classes trained on."""
    from spml_tf import networks
    from spml_tf.runs import run_data, run_folder

    if options.network is not None:
        return _classifier(options.network, options)
    if options.run_dir is None:
        raise UserError("--run_dir is missing: name the folder of a run")
    run = run_folder.RunFolder(options.run_dir)
    settings = run_data.settings_of_run(run, options.data_dir)
    _tell_of_unfinished(run)
    if options.dataset not in (None, settings.dataset):
        raise UserError(
            f"--dataset={options.dataset}: the run in {run.path} was trained on "
            f"{settings.dataset}; leave --dataset out"
        )
    return (
        networks.load_network(run.best_network()),
        settings,
        tuple(run.read_record()["class_names"]),
    )


def _tell_of_unfinished(run: RunFolder) -> None:
    """Says that a run is not finished; raises UserError where it has no network yet."""
    if run.metrics.exists():
        return
    if not run.network.exists():
        raise UserError(
            f"{run.path}: no epoch of it is finished; start its training again to resume it"
        )
    tell_note(
        f"{run.path}: not finished: this is its best network so far; start its training "
        "again to resume it",
    )


def _classifier(name: str, options: _Options) -> tuple[keras.Model, Settings, tuple[str, ...]]:
    from spml_tf import networks
    from spml_tf.datasets import splits
    from spml_tf.runs import settings

    resolved = settings.resolve(
        settings.Settings(
            dataset=options.dataset or "",
            data_dir=options.data_dir,
            network=name,
            weights=options.weights or "imagenet",
            image_size=224 if options.image_size is None else options.image_size,
            keep_head=True,
        )
    )
    class_names = splits.load_examples(resolved, resolved.test_split).class_names
    network = networks.build(
        name, len(class_names), resolved.weights, resolved.image_size, keep_head=True
    )
    return network, resolved, class_names


def _split_name(settings: Settings, split: str) -> str:
    return settings.test_split if split == "test" else split


def _examples(settings: Settings, split: str) -> Examples:
    from spml_tf.datasets import splits

    if split == "val":
        return splits.load_splits(settings).val
    name = _split_name(settings, split)
    if name == "none":
        raise UserError("--split=test: this run has no test images; give --split=val")
    return splits.load_examples(settings, name, flag="split")


def _scores(
    network: keras.Model, examples: Examples, settings: Settings, options: _Options
) -> NDArray[np.float32]:
    """[N, L]: logits for ImageNet and for softmax, else scores in [0, 1] as in training."""
    from spml_tf.datasets import pipeline
    from spml_tf.evaluation import predictions

    scorer = predictions.Scorer(network, settings.image_size, _as_logits(options, settings))
    with pipeline.naming_broken_images(examples):
        return scorer.by_workers(examples, options.batch_size)


def _top1_on_val(
    network: keras.Model,
    settings: Settings,
    real: Examples,
    scores: NDArray[np.float32],
    options: _Options,
) -> dict[str, Any] | None:
    """Top-1 accuracy on ImageNet's own validation labels, None where these are not at hand."""
    import numpy as np

    from spml_tf.datasets import splits
    from spml_tf.evaluation import real_labels

    try:
        val = splits.load_examples(settings, "val")
    except UserError as error:
        tell_note(f"top-1 on the validation labels is left out: {error}")
        return None
    # Only the images that have no ReaL label are still to be scored.
    others = np.flatnonzero(~np.isin(val.names, real.names))
    names = real.names
    if len(others):
        rest = val.subset(others)
        more = _scores(network, rest, settings, options)
        scores, names = np.concatenate([scores, more]), (*names, *rest.names)
    rows = real_labels.rows_of(names, val.names)
    accuracy = real_labels.top1(val.labels, scores[rows])
    return {"images": len(val), "top1": real_labels.percent(accuracy)}


def _check(options: _Options) -> None:
    check_bounds(options)  # of those who call `evaluate`
    if options.calibration != "none" and options.thresholds is None and options.format == "json":
        raise UserError(
            f"--calibration={options.calibration}: calibrates decisions; give --thresholds or "
            "--format=table too"
        )
    if options.network is None:
        for name in ("weights", "image_size"):
            if getattr(options, name) is not None:
                raise UserError(f"--{name}: goes with --network; a run has its own; leave it out")
        return
    if options.run_dir is not None:
        raise UserError(
            f"--network={options.network}: not together with --run_dir, which has its own network"
        )
    if options.dataset != "imagenet":
        raise UserError(
            f"--network={options.network}: is scored with the head of its weights, whose classes "
            "are ImageNet's; give --dataset=imagenet"
        )
    if options.split == "val":
        raise UserError("--split=val: a network without a run has no held-out images; leave it out")


def _action(options: _Options) -> None:
    if options.workers > 1:
        if options.strategy == "mirrored":
            raise UserError("--workers: means --strategy=multi_worker, not mirrored; drop one")
        words = cli.flags_of_workers(options)
        launcher.launch("spml_tf.evaluate", words, options.workers, "give the same command again")
        return
    again = "start all workers again"
    with (
        strategies.strategy(options.strategy, options.devices).scope(),
        strategies.telling_lost_workers(again),
    ):
        report = _evaluate(options)
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
