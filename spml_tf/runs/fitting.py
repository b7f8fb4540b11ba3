"""Trains a run's epochs, from its start or a checkpoint, and stops where nothing is lost."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from spml_tf.datasets import pipeline
from spml_tf.datasets.splits import Splits
from spml_tf.runs.checkpoint_folder import Checkpoint, Progress
from spml_tf.runs.heatmap_recorder import HeatmapRecorder
from spml_tf.runs.recorder import RunRecorder
from spml_tf.runs.run_folder import RunFolder
from spml_tf.runs.settings import Settings
from spml_tf.system import replicas
from spml_tf.system.errors import DivergedError, UserError
from spml_tf.system.stop_requests import StopRequests
from spml_tf.training.model import SPMLModel


def fit(
    model: SPMLModel,
    settings: Settings,
    data: Splits,
    run: RunFolder,
    extra: list[HeatmapRecorder],
    checkpoint: Checkpoint | None,
) -> Progress:
    """Trains to the end.

    Args:
        model: compiled, with the weights of the checkpoint.
        settings: of the run, resolved.
        data: of the run.
        run: where checkpoints and results go.
        extra: callbacks that stand before the one that writes the checkpoint.
        checkpoint: to go on from, None at the start.

    Returns:
        Of the last checkpoint.

    Raises:
        UserError: a photo cannot be read, or the training diverges.
        KeyboardInterrupt, Terminated: a signal came, and all is saved.
    """
    progress, stops = checkpoint.progress if checkpoint else Progress(0), StopRequests()
    if checkpoint is not None and model.shard.worker == 0:
        print(f"resuming after {progress.where()} of {settings.epochs}", file=sys.stderr)
    recorder = RunRecorder(
        run, data.train.labels, data.observed, checkpoint, data.train.class_names,
        pipeline.steps_per_epoch(len(data.train), settings.batch_size),
        settings.checkpoint_minutes, settings.max_loss, stops,
    )  # fmt: skip
    callbacks, validation = [*extra, recorder], _validation(settings, data)
    done = progress.epochs
    with (
        pipeline.naming_broken_images(data.train, data.val),
        _telling_divergence(recorder),
        stops.listening(),
    ):
        if progress.trained:
            _validate(model, done, callbacks, progress.trained, **validation)
        elif progress.step:
            model.resume_epoch(done + 1)
            _fit_epochs(model, settings, data, callbacks, validation, done, 1, progress.step)
        done += bool(progress.step)
        if done < settings.epochs:
            rest = settings.epochs - done
            _fit_epochs(model, settings, data, callbacks, validation, done, rest)
    return recorder.progress


def _fit_epochs(
    model: SPMLModel,
    settings: Settings,
    data: Splits,
    callbacks: list[keras.callbacks.Callback],
    validation: Mapping[str, Any],
    done: int,
    epochs: int,
    first_step: int = 0,
) -> None:
    """Trains some epochs after those that are done, the first one from a step on."""
    batches = pipeline.training_dataset(
        data.train,
        data.observed,
        seed=settings.seed,
        first_epoch=done + 1,
        epochs=epochs,
        first_step=first_step,
        crop_area=settings.crop_interval,
        horizontal_flip=settings.horizontal_flip,
        shuffle_groups=settings.shuffle_groups,
        **_batching(settings),
    )
    steps = pipeline.steps_per_epoch(len(data.train), settings.batch_size)
    model.fit(
        _dealt(batches),
        initial_epoch=done,
        epochs=done + epochs,
        steps_per_epoch=steps - first_step,
        callbacks=callbacks,
        verbose=0 if model.shard.worker else 1 if sys.stdout.isatty() else 2,
        **validation,
    )


def _batching(settings: Settings) -> dict[str, Any]:
    return {
        "image_size": settings.image_size, "batch_size": settings.batch_size,
        "shard": replicas.this_shard(), "pieces": replicas.devices(),
    }  # fmt: skip


def _validation(settings: Settings, data: Splits) -> dict[str, Any]:
    """What `fit` is told of the validation images."""
    batches = pipeline.evaluation_dataset(data.val, data.val.labels, **_batching(settings))
    # Of several workers so that no epoch comes to its end.
    batches = batches.repeat() if replicas.this_shard().workers > 1 else batches
    steps = pipeline.steps_per_epoch(len(data.val), settings.batch_size)
    return {"validation_data": _dealt(batches), "validation_steps": steps}


def _dealt(batches: tf.data.Dataset) -> Any:
    if replicas.this_shard().workers == 1:
        return batches
    # Each worker has made its own part of them.
    return tf.distribute.get_strategy().distribute_datasets_from_function(lambda _: batches)


def _validate(
    model: SPMLModel,
    epoch: int,
    callbacks: list[keras.callbacks.Callback],
    trained: Mapping[str, str],
    validation_data: Any,
    validation_steps: int,
) -> None:
    """Ends an epoch whose steps were all done before."""
    every = keras.callbacks.CallbackList(callbacks, model=model)
    every.on_train_begin()
    every.on_epoch_begin(epoch)
    model.latest_results = dict(trained)
    scores = model.evaluate(
        validation_data, steps=validation_steps, callbacks=callbacks, return_dict=True, verbose=0
    )
    every.on_epoch_end(epoch, {**trained, **{f"val_{name}": x for name, x in scores.items()}})
    every.on_train_end()


@contextlib.contextmanager
def _telling_divergence(recorder: RunRecorder) -> Iterator[None]:
    """Turns scores that are not finite into one line."""
    try:
        yield
    except DivergedError as error:
        raise UserError(f"{error}; {recorder.advice()}") from None
