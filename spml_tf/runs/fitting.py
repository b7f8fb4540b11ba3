"""Trains a run's epochs, from its start or a checkpoint, and stops where nothing is lost."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from spml_tf.datasets import pipeline
from spml_tf.datasets.splits import Splits
from spml_tf.runs.checkpoint_folder import Checkpoint, Progress
from spml_tf.runs.frozen_features import FrozenFeatures
from spml_tf.runs.heatmap_recorder import HeatmapRecorder
from spml_tf.runs.recorder import RunRecorder
from spml_tf.runs.run_folder import RunFolder
from spml_tf.runs.settings import Settings
from spml_tf.runs.trackers import Tracker
from spml_tf.system import replicas
from spml_tf.system.errors import DivergedError, UserError
from spml_tf.system.stop_requests import StopRequests
from spml_tf.training import keras_checks
from spml_tf.training.model import SPMLModel

# Makes batches: of a first epoch, some epochs from it on, and at which step the first one begins.
Training = Callable[[int, int, int], tf.data.Dataset]


def fit(
    model: SPMLModel,
    settings: Settings,
    data: Splits,
    run: RunFolder,
    extra: list[HeatmapRecorder],
    checkpoint: Checkpoint | None,
    tracker: Tracker,
) -> Progress:
    """Trains to the end.

    Args:
        model: compiled, with the weights of the checkpoint.
        settings: of the run, resolved.
        data: of the run.
        run: where checkpoints and results go.
        extra: callbacks that stand before the one that writes the checkpoint.
        checkpoint: to go on from, None at the start.
        tracker: is told of each epoch.

    Returns:
        Of the last checkpoint.

    Raises:
        UserError: a photo cannot be read, or the training diverges.
        KeyboardInterrupt, Terminated: a signal came, and all is saved.
    """
    progress, stops = checkpoint.progress if checkpoint else Progress(0), StopRequests()
    if checkpoint is None:
        keras_checks.note_known(model, data.observed)
    elif model.shard.worker == 0:
        print(f"resuming after {progress.where()} of {settings.epochs}", file=sys.stderr)
    recorder = RunRecorder(run, settings, data, resumed=checkpoint, stops=stops, tracker=tracker)
    batching: dict[str, Any] = {
        "image_size": settings.image_size, "batch_size": settings.batch_size,
        "shard": replicas.this_shard(), "pieces": replicas.devices(),
    }  # fmt: skip

    def training(first_epoch: int, epochs: int, first_step: int) -> tf.data.Dataset:
        return pipeline.training_dataset(
            data.train, data.observed, first_epoch=first_epoch, epochs=epochs,
            first_step=first_step, shuffle_groups=settings.shuffle_groups,
            **settings.augmentation, **batching,
        )  # fmt: skip

    def fit_until(last: int, training: Training, validation: tf.data.Dataset) -> None:
        steps = pipeline.steps_per_epoch(len(data.val), settings.batch_size)
        given = {"validation_data": _endless(validation), "validation_steps": steps}
        _fit_until(last, model, training, given, [*extra, recorder])

    with (
        pipeline.naming_broken_images(data.train, data.val),
        _telling_divergence(recorder),
        stops.listening(),
    ):
        frozen = settings.option("warmup_epochs") if settings.feature_crops else 0
        if recorder.progress.epochs < frozen:
            features = FrozenFeatures(model, settings, data, run, stops)
            fit_until(frozen, features.training, features.validation())
        if model.shard.worker == 0:
            shutil.rmtree(run.features, ignore_errors=True)
        if recorder.progress.epochs < settings.epochs:
            validation = pipeline.evaluation_dataset(data.val, data.val.labels, **batching)
            fit_until(settings.epochs, training, validation)
    return recorder.progress


def _fit_until(
    last: int,
    model: SPMLModel,
    training: Training,
    validation: Mapping[str, Any],
    callbacks: Sequence[Any],
) -> None:
    """Trains up to an epoch, beginning with what is left of one that was interrupted.

    Args:
        last: the epoch.
        model: compiled, with the weights of the last checkpoint.
        training: makes the batches of some epochs: the first one, how many, and at which step of
            the first one to begin.
        validation: what `fit` is told of the validation images.
        callbacks: a `RunRecorder` comes last.
    """
    recorder = callbacks[-1]
    progress, done = recorder.progress, recorder.progress.epochs

    def fit_epochs(epochs: int, first_step: int = 0) -> None:
        model.fit_trusted(
            x=_endless(training(done + 1, epochs, first_step)),
            initial_epoch=done,
            epochs=done + epochs,
            steps_per_epoch=recorder.steps - first_step,
            callbacks=callbacks,
            verbose=0 if model.shard.worker else 1 if sys.stdout.isatty() else 2,
            **validation,
        )

    if progress.trained:
        _validate(model, done, callbacks, progress.trained, **validation)
    elif progress.step:
        model.resume_epoch(done + 1)
        fit_epochs(1, progress.step)
    done += bool(progress.step)
    if done < last:
        fit_epochs(last - done)


def _endless(batches: tf.data.Dataset) -> Any:
    """A run's batches as Keras takes them: each worker has made its own part of them.

    They have no end. Where Keras knows of one it makes an iterator anew there, which takes a
    second; and of several workers none may come to it before the others.
    """
    endless = batches.repeat()
    if replicas.this_shard().workers == 1:
        return endless
    return tf.distribute.get_strategy().distribute_datasets_from_function(lambda _: endless)


def _validate(
    model: SPMLModel,
    epoch: int,
    callbacks: Sequence[keras.callbacks.Callback],
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
