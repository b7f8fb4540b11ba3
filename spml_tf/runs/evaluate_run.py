"""Scoring a finished run, or a classifier as it comes with its weights, on a split."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from spml_tf import networks
from spml_tf.datasets import pipeline, splits
from spml_tf.datasets.readers import Examples
from spml_tf.evaluation import predictions, real_labels
from spml_tf.runs import decisions, run_data
from spml_tf.runs.evaluation_settings import EvaluationSettings
from spml_tf.runs.run_folder import RunFolder
from spml_tf.runs.settings import Settings, resolve
from spml_tf.system.errors import UserError
from spml_tf.system.flag_checks import check_bounds
from spml_tf.system.notes import tell_note


def evaluate(given: EvaluationSettings) -> dict[str, Any]:
    """Scores the best network of a run, or a classifier as it comes with its weights.

    Args:
        given: what is scored, and how.

    Returns:
        {"run_dir", "split", "images"} and what `predictions.score_report` returns, precisions in
        percent; with thresholds, and for a table, also what `runs.decisions.report` returns; for
        ImageNet's split real also "val" and "real", see `real_labels.real_report`.

    Raises:
        UserError: where there is no run, its network is missing, or the data cannot be read.
    """
    _check(given)
    network, settings, class_names = _network(given)
    if given.unknown_counts_as is not None:
        settings = dataclasses.replace(settings, unknown_counts_as=given.unknown_counts_as)
    examples = _examples(settings, given.split)
    if examples.class_names != class_names:
        raise UserError(
            f"--data_dir={settings.data_dir}: holds {len(examples.class_names)} classes, the run "
            f"was trained on {len(class_names)}, or on others; name the folder it was trained on"
        )
    scores = _scores(network, examples, settings, given)
    named = {"run_dir": given.run_dir, "split": given.split, "images": len(examples)}
    ranked = real_labels.softmax(scores) if given.probabilities == "softmax" else scores
    report = predictions.score_report(
        examples.labels,
        ranked,
        examples.class_names,
        given.absent_classes,
        settings.unknown_counts_as,
    )
    if given.thresholds is not None or given.format == "table":
        report |= _decided(given, settings, examples, ranked)
    if (settings.dataset, _split_name(settings, given.split)) != ("imagenet", "real"):
        return {**named, **report}
    real = real_labels.real_report(examples.labels, ranked, given.absent_classes)
    val = _top1_on_val(network, settings, examples, scores, given)
    return {**named, **report, "val": val, "real": real}


def _decided(
    given: EvaluationSettings, settings: Settings, examples: Examples, scores: NDArray[np.float32]
) -> dict[str, Any]:
    """What is said of decisions; nothing, with a note, where a table has none to show."""
    why = _undecided(given, settings)
    if why and (given.thresholds is not None or given.calibration != "none"):
        name = "thresholds" if given.thresholds is not None else "calibration"
        raise UserError(f"--{name}={getattr(given, name)}: {why}")
    if why or given.run_dir is None:
        tell_note(f"the table shows no decisions: {why}")
        return {}
    rules = given.thresholds or "f1", given.calibration
    return decisions.report(
        decisions.decisions(RunFolder(given.run_dir), *rules),
        given.split,
        examples.labels,
        scores,
        given.absent_classes,
        settings.unknown_counts_as,
    )


def _undecided(given: EvaluationSettings, settings: Settings) -> str:
    """Why thresholds of a run do not fit what is ranked; "" where they do."""
    if given.run_dir is None:
        return "a network without a run has no validation images to choose thresholds on"
    if _as_logits(given, settings):
        return "thresholds are of sigmoid scores, and ImageNet and softmax rank others"
    if not RunFolder(given.run_dir).metrics.exists():
        return "the run is not finished, and has no validation scores yet"
    return ""


def _as_logits(given: EvaluationSettings, settings: Settings) -> bool:
    """Whether classes are ranked by logits: a sigmoid's values tie at 1 where a network is sure."""
    return settings.dataset == "imagenet" or given.probabilities == "softmax"


def _network(given: EvaluationSettings) -> tuple[keras.Model, Settings, tuple[str, ...]]:
    """Network and settings, and the classes trained on."""
    if given.network is not None:
        return _classifier(given.network, given)
    if given.run_dir is None:
        raise UserError("--run_dir is missing: name the folder of a run")
    run = RunFolder(given.run_dir)
    settings = run_data.settings_of_run(run, given.data_dir)
    _tell_of_unfinished(run)
    if given.dataset not in (None, settings.dataset):
        raise UserError(
            f"--dataset={given.dataset}: the run in {run.path} was trained on "
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
        f"{run.path}: not finished: this is the network it keeps so far; start its "
        "training again to resume it",
    )


def _classifier(
    name: str, given: EvaluationSettings
) -> tuple[keras.Model, Settings, tuple[str, ...]]:
    resolved = resolve(
        Settings(
            dataset=given.dataset or "",
            data_dir=given.data_dir,
            network=name,
            weights=given.weights or "imagenet",
            image_size=224 if given.image_size is None else given.image_size,
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
    if split == "val":
        return splits.load_splits(settings).val
    name = _split_name(settings, split)
    if name == "none":
        raise UserError("--split=test: this run has no test images; give --split=val")
    return splits.load_examples(settings, name, flag="split")


def _scores(
    network: keras.Model, examples: Examples, settings: Settings, given: EvaluationSettings
) -> NDArray[np.float32]:
    """[N, L]: logits for ImageNet and for softmax, else scores in [0, 1] as in training."""
    scorer = predictions.Scorer(network, settings.image_size, _as_logits(given, settings))
    with pipeline.naming_broken_images(examples):
        return scorer.by_workers(examples, given.batch_size)


def _top1_on_val(
    network: keras.Model,
    settings: Settings,
    real: Examples,
    scores: NDArray[np.float32],
    given: EvaluationSettings,
) -> dict[str, Any] | None:
    """Top-1 accuracy on ImageNet's own validation labels, None where these are not at hand."""
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
        more = _scores(network, rest, settings, given)
        scores, names = np.concatenate([scores, more]), (*names, *rest.names)
    rows = real_labels.rows_of(names, val.names)
    accuracy = real_labels.top1(val.labels, scores[rows])
    return {"images": len(val), "top1": real_labels.percent(accuracy)}


def _check(given: EvaluationSettings) -> None:
    check_bounds(given)  # of those who call `evaluate`
    if given.calibration != "none" and given.thresholds is None and given.format == "json":
        raise UserError(
            f"--calibration={given.calibration}: calibrates decisions; give --thresholds or "
            "--format=table too"
        )
    if given.network is None:
        for name in ("weights", "image_size"):
            if getattr(given, name) is not None:
                raise UserError(f"--{name}: goes with --network; a run has its own; leave it out")
        return
    if given.run_dir is not None:
        raise UserError(
            f"--network={given.network}: not together with --run_dir, which has its own network"
        )
    if given.dataset != "imagenet":
        raise UserError(
            f"--network={given.network}: is scored with the head of its weights, whose classes "
            "are ImageNet's; give --dataset=imagenet"
        )
    if given.split == "val":
        raise UserError("--split=val: a network without a run has no held-out images; leave it out")
