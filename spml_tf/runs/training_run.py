"""Training a run from its settings: from its folder, or the data, to its results."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from spml_tf import networks
from spml_tf.datasets import label_files, pipeline
from spml_tf.datasets.splits import Splits, load_splits
from spml_tf.evaluation import predictions
from spml_tf.runs import (
    checkpoints,
    fitting,
    heatmap_recorder,
    model_building,
    run_data,
    start_line,
    trackers,
)
from spml_tf.runs.checkpoint_folder import Checkpoint, Progress
from spml_tf.runs.machine import machine, note_other_machine
from spml_tf.runs.run_folder import RunFolder
from spml_tf.runs.settings import Settings, flags_without_effect, resolve
from spml_tf.system import files, plugins, replicas, strategies
from spml_tf.system.errors import UserError
from spml_tf.system.notes import tell_note

_TOGETHER = "start all workers again: they go on from the last checkpoint"


def train(settings: Settings, output_dir: str | os.PathLike[str]) -> dict[str, Any]:
    """Trains a run, or resumes it, or reads the results of a finished one.

    Args:
        settings: the settings, resolved or not.
        output_dir: the run's folder.

    Returns:
        What metrics.json holds: {"best_epoch": int, "val": {"map": ..., "ap": {...}}, "test": ...},
        in percent; without test images there is no "test". Where val's "map" is None no epoch could
        be chosen, and "best_epoch" is the last one.

    Raises:
        UserError: for settings, data or a folder that do not fit.
    """
    given, settings = settings, resolve(settings)
    if settings.workers > 1:
        raise UserError("--workers: starts processes; only the command does, see spml_tf.train")
    networks.check_name(settings.network)  # before a run with another one is compared
    trackers.check(settings.tracker)
    prepare_tensorflow(settings)
    strategy = strategies.strategy(settings.strategy, settings.devices)
    with strategy.scope(), strategies.telling_lost_workers(_TOGETHER):
        return _train(settings, given, RunFolder(output_dir))


def _train(settings: Settings, given: Settings, run: RunFolder) -> dict[str, Any]:
    """Trains under the current strategy; of several workers only the first writes the folder.

    Args:
        settings: resolved.
        given: what they were resolved from.
        run: the folder.
    """
    first = replicas.this_shard().worker == 0
    finished = run.is_finished()
    with run.locked() if first and not finished else contextlib.nullcontext():
        data = load_splits(settings)
        k = run_data.positives_per_image(settings, data)
        facts = _facts(settings, data, k)
        _check_workers(data)
        if finished:
            run.check_same(settings, facts)
            if first:
                trackers.tell_finished(settings.tracker, run, settings, facts)
            return run.read_metrics()
        model = model_building.build(settings, data, k)
        bank = model.ema_heatmaps is not None
        recorders = heatmap_recorder.recorders(run, settings, data, bank)
        if first:
            run.start(settings, facts, given)
        replicas.wait_for_workers()
        if not run.record.exists():
            raise UserError(f"--output_dir={run.path}: not a folder that all workers share")
        checkpoint = _checkpoint(run, first)
        if first:
            tell_notes(settings, data, replicas.this_shard().workers)
            if checkpoint is not None and checkpoint.machine:
                note_other_machine(checkpoint.machine)
        model.optimizer.build(model.trainable_variables)
        if checkpoint is not None:
            checkpoints.load(model, checkpoint.weights)
            if first:
                run.publish(checkpoint.progress)
        replicas.wait_for_workers()
        if first:
            _write_labels(settings, data, run)
            print(start_line.start_line(data, k, run.path), flush=True)
        history = checkpoint.progress.history if checkpoint else ()
        name = settings.tracker if first else "none"
        with trackers.tracking(name, run, settings, facts, history) as tracker:
            progress = fitting.fit(model, settings, data, run, recorders, checkpoint, tracker)
            _report(settings, data, run, progress)
            replicas.wait_for_workers()
            results = run.read_metrics()
            tracker.log_results(results)
        return results


def _facts(settings: Settings, data: Splits, k: float | str | None) -> dict[str, Any]:
    """What the run's record holds beside its settings."""
    return {
        "data_fingerprint": data.fingerprint(),
        "positives_per_image": k,
        "class_names": list(data.train.class_names),
        "images": {name: len(part) for name, part in data.parts.items()},
        "notes": list(data.notes),
        "plugins": plugins.digests(settings.plugins or ""),
        "priors": model_building.digests_of_priors(settings),
        **machine(),
    }


def _checkpoint(run: RunFolder, first: bool) -> Checkpoint | None:
    """The checkpoint to go on from, the same on all workers; None at the start."""

    def agreed(reason: str) -> str:
        found = replicas.sum_of_workers(np.array([bool(reason)], np.int64))[0]
        return reason or ("damaged, as another worker says" if found else "")

    checkpoint = run.checkpoints.newest(agreed, to_train=True, mend=first)
    if run.metrics.exists():
        damaged = run.damaged_results()
        if checkpoint is None:
            why = damaged[0] if damaged else f"{run.checksums}: is missing"
            raise UserError(f"{why}; but the checkpoint is gone: train into another folder")
        for reason in damaged if first else ():
            tell_note(f"{reason.partition(';')[0]}: it is written anew")
    return checkpoint


def _check_workers(data: Splits) -> None:
    """Raises UserError where the workers read other data."""
    number = np.array([int(data.fingerprint()[:12], 16)], np.int64)
    if replicas.sum_of_workers(number)[0] != number[0] * replicas.this_shard().workers:
        raise UserError("the workers read different data; give all of them the same files")


def tell_notes(settings: Settings, data: Splits, workers: int = 1) -> None:
    """Tells of flags that do nothing or should be others, and of a K that few images give.

    Args:
        settings: of the run, resolved.
        data: of the run.
        workers: how many train.
    """
    notes = [
        f"{given} has no effect with {other}"
        for given, other in flags_without_effect(settings).items()
    ]
    if workers > 1 and settings.shuffle_groups % workers:
        notes.append(
            f"a batch is split unevenly among the {workers} workers; --shuffle_groups={workers} "
            "makes it even, in a run that begins with it"
        )
    notes += filter(None, [run_data.note_on_k(settings, data)])
    for text in notes:
        tell_note(text)


def prepare_tensorflow(settings: Settings) -> None:
    """Sets threads, determinism, precision and seeds of the process."""
    if settings.threads:
        tf.config.threading.set_intra_op_parallelism_threads(settings.threads)
        tf.config.threading.set_inter_op_parallelism_threads(settings.threads)
    tf.config.experimental.enable_op_determinism()
    policies = {"none": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
    keras.config.set_dtype_policy(policies[settings.mixed_precision])
    keras.utils.set_random_seed(settings.seed)


def _write_labels(settings: Settings, data: Splits, run: RunFolder) -> None:
    """Writes the labels trained on, where they are not the full ones."""
    if settings.train_labels != "full" and not run.train_labels.exists():
        label_files.write_observed(
            run.train_labels,
            data.observed,
            data.train.names,
            data.train.class_names,
            data.held_out,
        )


def _report(settings: Settings, data: Splits, run: RunFolder, progress: Progress) -> None:
    """Scores the network that is kept on val and test; metrics.json and SHA256SUMS end the run."""
    shard = replicas.this_shard()
    scorer = predictions.Scorer(networks.load_network(run.network), settings.image_size)
    results: dict[str, Any] = {"best_epoch": progress.best_epoch}
    for split, part in data.parts.items():
        if split == "train":
            continue
        if not shard.worker:
            print(
                f"scoring the network of epoch {progress.best_epoch} on {split}, "
                f"{len(part):,} images",
                flush=True,
            )
        with pipeline.naming_broken_images(part):
            scores = scorer.by_workers(part)
        if shard.worker:
            continue
        with files.replaced(run.predictions(split)) as path:
            np.savez(
                path,
                scores=scores,
                labels=part.labels,
                names=np.array(part.names),
                class_names=np.array(part.class_names),
            )
        results[split] = predictions.score_report(
            part.labels,
            scores,
            part.class_names,
            unknown_counts_as=settings.unknown_counts_as,
        )
    if not shard.worker:
        files.write_json(run.metrics, results)
        run.finish()
