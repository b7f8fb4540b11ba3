"""The callback that writes a run's folder."""

from __future__ import annotations

import dataclasses
import math
import signal
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from spml_tf.datasets import pipeline
from spml_tf.datasets.splits import Splits
from spml_tf.evaluation.epoch_measures import scores_by_kind, selection_counts, selection_quality
from spml_tf.labels import POSITIVE
from spml_tf.runs import checkpoints
from spml_tf.runs.checkpoint_folder import Checkpoint, Progress
from spml_tf.runs.run_folder import RunFolder
from spml_tf.runs.settings import Settings
from spml_tf.runs.trackers import Tracker
from spml_tf.system import replicas
from spml_tf.system.errors import UserError
from spml_tf.system.files import replaced, write_table
from spml_tf.system.notes import tell_note
from spml_tf.system.stop_requests import StopRequests, error_of

# Steps after which several workers ask each other whether to save or stop.
_ASKED_EVERY = 10


class RunRecorder(keras.callbacks.Callback):
    """Writes the run's folder after each epoch: best network, checkpoint, history, events.

    The best network is that of the epoch whose validation mAP is the highest, of several the first.
    Where that is undefined, as no validation image shows a class, it is the latest one.

    The events, for TensorBoard, are what history.csv holds as scalars, every term of the loss among
    it, and histograms of the average scores by kind of label.

    What a killed process wrote beside its last checkpoint is written again, with the same content,
    when the run resumes. A checkpoint is also written in the middle of an epoch, every so many
    minutes, and when the process is asked to stop, which it does then.

    Of several workers only the first writes, but for its own part of the checkpoint; all of them
    must have this callback.

    Args:
        run: the folder.
        settings: of the run, resolved: of its batches, its checkpoints within an epoch, the loss
            above which it stops.
        data: of the run. Training labels that are not among those trained on serve to measure the
            selection; training never sees them.
        resumed: the checkpoint that the training goes on from, None at its start.
        stops: tells of a signal.
        tracker: is told of each epoch whose checkpoint is written.

    Attributes:
        progress: of the last checkpoint.
        steps: of an epoch.

    Raises:
        UserError: the loss is not finite, or above `max_loss`.
        KeyboardInterrupt, Terminated: a signal came, and all is saved.
    """

    def __init__(
        self,
        run: RunFolder,
        settings: Settings,
        data: Splits,
        resumed: Checkpoint | None,
        stops: StopRequests,
        tracker: Tracker,
    ) -> None:
        super().__init__()
        self.run, self.settings, self.shard = run, settings, replicas.this_shard()
        self.truth, self.observed = self.shard.own(data.train.labels), data.observed
        self.class_names, self.tracker, self.stops = data.train.class_names, tracker, stops
        self.resumed, self.progress = resumed, resumed.progress if resumed else Progress(0)
        self.steps = pipeline.steps_per_epoch(len(data.train), settings.batch_size)
        best = self.progress.history[self.progress.best_epoch - 1] if self.progress.history else {}
        self.best = _number(best.get("val_map"))
        self._step, self._calls, self._loss = self.progress.step, 0, None
        self._trained: dict[str, str] = dict(self.progress.trained)
        self._saved_at, self._told = time.monotonic(), False
        self.events = None
        if self.shard.worker == 0:
            self.events = tf.summary.create_file_writer(str(run.tensorboard))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.started = time.perf_counter() - self.progress.seconds
        if self.resumed is not None:
            checkpoints.restore_metrics(self.model, self.resumed.metrics)
            self.resumed = None
        if not self._told and not self.shard.worker:
            self._told = self._tell_estimate()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._step += 1
        # The loss of the step before: to wait for this one's would keep a GPU idle.
        before, self._loss = self._loss, logs["loss"]
        if before is not None:
            self._check_loss(before, self._step - 1)
        if self._step < self.steps:
            self._save_or_stop()

    def on_test_begin(self, logs: Any = None) -> None:
        self._trained = {name: str(float(x)) for name, x in self.model.latest_results.items()}

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self._save_or_stop()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        values = {k: float(v) for k, v in logs.items()}
        self._check_loss(values["loss"], self.steps)
        row = {"epoch": epoch + 1, **values, **self._estimate(), **self._selection_quality()}
        row["seconds"] = round(time.perf_counter() - self.started, 1)
        best_epoch = self.progress.best_epoch
        # Without a validation mAP so far no epoch is better than another: the latest is taken.
        if self.best == -math.inf or values["val_map"] > self.best:
            self.best, best_epoch = _number(values["val_map"]), epoch + 1
            if self.shard.worker == 0:
                with replaced(self.run.checkpoints.network(best_epoch)) as path:
                    self.model.save_network(path)
        text = {name: str(value) for name, value in row.items()}
        history = (*self.progress.history, text)
        self._save(Progress(epoch + 1, history=history, best_epoch=best_epoch))
        self._step, self._loss, self._trained = 0, None, {}
        if self.shard.worker == 0:
            self.run.publish(self.progress)
            self._write_events(row)
            self.tracker.log_epochs(history)
        self._stop_if(self._asked()[0])

    def _estimate(self) -> dict[str, float]:
        """K and its interval, where they were estimated from the score bank."""
        found = self.model.estimated_priors
        if found is None:
            return {}
        low, high = found.interval
        return {"estimated_k": found.positives_per_image, "k_low": low, "k_high": high}

    def _tell_estimate(self) -> bool:
        """Prints what was estimated and writes class_priors.csv; whether there is an estimate."""
        found = self.model.estimated_priors
        if found is None:
            return False
        low, high = found.interval
        print(
            f"positives per image (K), estimated from the score bank: "
            f"{found.positives_per_image:.2f}, from {low:.2f} to {high:.2f}",
            flush=True,
        )
        annotated = (self.observed == POSITIVE).mean(axis=0)
        columns = (self.class_names, annotated, found.priors, found.low, found.high)
        names = ("class", "annotated_share", "prior", "low", "high")
        rows = [dict(zip(names, map(str, row), strict=True)) for row in zip(*columns, strict=True)]
        write_table(self.run.class_priors, rows)
        absent = [row["class"] for row in rows if float(row["prior"]) == 0]
        if absent:
            tell_note(
                f"no image that was looked at is annotated with {', '.join(absent)}: their "
                "estimated shares are 0",
            )
        return True

    def _check_loss(self, loss: Any, step: int) -> None:
        """Raises UserError where the mean loss of an epoch up to a step is none to go on with."""
        value = float(np.ravel(loss)[0])
        most = self.settings.max_loss
        if math.isfinite(value) and not 0 < most < value:
            return
        epoch = len(self.progress.history) + 1
        raise UserError(
            f"the mean loss is {value:.3g} at step {step} of epoch {epoch} "
            f"(--max_loss={most:g}); {self.advice()}"
        )

    def advice(self) -> str:
        """What to do about a training that has diverged."""
        best = self.progress.best_epoch
        kept = f"the network of epoch {best} is kept here" if best else "no epoch was done"
        return f"lower --learning_rate and train into another folder; {kept}"

    def _save_or_stop(self) -> None:
        """Within an epoch: saves when it is time to, stops when asked to."""
        self._calls += 1
        if self.shard.workers > 1 and self._calls % _ASKED_EVERY:
            return
        number, due = self._asked()
        if not number and not due:
            return
        if self._loss is not None and not self._trained:
            self._check_loss(self._loss, self._step)
        seconds = round(time.perf_counter() - self.started, 1)
        self._save(
            dataclasses.replace(
                self.progress, epochs=len(self.progress.history), step=self._step,
                seconds=seconds, trained=self._trained,
            )
        )  # fmt: skip
        self._stop_if(number)

    def _asked(self) -> tuple[int, bool]:
        """The signal that asks to stop, or 0, and whether to save; the same on all workers."""
        pause = 60 * self.settings.checkpoint_minutes
        due = 0 < pause <= time.monotonic() - self._saved_at
        if self.shard.workers == 1:
            return self.stops.number, due
        number = self.stops.number
        asked = [number == signal.SIGINT, number == signal.SIGTERM, due and not self.shard.worker]
        with self.model.distribute_strategy.scope():
            interrupted, terminated, due = replicas.sum_of_workers(np.array(asked, np.int64)) > 0
        return signal.SIGTERM if terminated else signal.SIGINT if interrupted else 0, due

    def _save(self, progress: Progress) -> None:
        self.progress = progress
        checkpoints.save(self.model, self.run.checkpoints, progress)
        self._saved_at = time.monotonic()

    def _stop_if(self, number: int) -> None:
        if number:
            where = self.progress.where()
            raise error_of(number, f"saved after {where}; the same command goes on from there")

    def _selection_quality(self) -> dict[str, float]:
        """`selection_quality` over all workers."""
        marked = self.model.marked_labels(self.observed)
        counts = selection_counts(marked, self.truth, self.shard.own(self.observed))
        with self.model.distribute_strategy.scope():
            return selection_quality(replicas.sum_of_workers(counts))

    def _write_events(self, row: dict[str, Any]) -> None:
        assert self.events is not None  # of the first worker
        with self.events.as_default(step=row["epoch"]):
            for name, value in row.items():
                if name != "epoch":
                    tf.summary.scalar(name, value)
            if self.model.ema_scores is not None:
                labels = self.model.marked_labels(self.observed)
                for kind, scores in scores_by_kind(self.model.ema_scores, labels).items():
                    tf.summary.histogram(f"ema_scores/{kind}", scores)
        self.events.flush()


def _number(text: Any) -> float:
    """A mean average precision, -inf where there is none."""
    value = float(text or "nan")
    return -math.inf if math.isnan(value) else value
