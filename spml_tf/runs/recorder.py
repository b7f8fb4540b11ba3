"""The callback that writes a run's folder."""

from __future__ import annotations

import dataclasses
import math
import signal
import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from spml_tf.banks.ema_bank import EMABank
from spml_tf.labels import EXPECTED, NEGATIVE, POSITIVE, UNKNOWN
from spml_tf.runs import checkpoints
from spml_tf.runs.checkpoint_folder import Checkpoint, Progress
from spml_tf.runs.run_folder import RunFolder
from spml_tf.runs.trackers import Tracker
from spml_tf.system import replicas
from spml_tf.system.errors import UserError
from spml_tf.system.files import replaced, write_table
from spml_tf.system.notes import tell_note
from spml_tf.system.stop_requests import StopRequests, error_of

# Labels whose scores an epoch's histograms count; of more, those of evenly spaced images.
_COUNTED = 500_000
# Steps after which several workers ask each other whether to save or stop.
_ASKED_EVERY = 10
_KINDS = {
    "annotated_positives": POSITIVE, "annotated_negatives": NEGATIVE,
    "expected_positives": EXPECTED, "other_unknown": UNKNOWN,
}  # fmt: skip


def selection_counts(
    marked: NDArray[np.int8], truth: NDArray[np.int8], observed: NDArray[np.int8]
) -> NDArray[np.int64]:
    """What `selection_quality` needs to know of some images; counts of several may be added.

    Args:
        marked: int8 [N, L] in {1, 0, -1, 2}, the training labels with their marks.
        truth: int8 [N, L] in {1, 0, -1}.
        observed: int8 [N, L] in {1, 0, -1}, the training labels.

    Returns:
        [4]: labels that are marked, that are known to be missing, marked ones whose truth is known,
        and marked ones that are missing.

    Examples:
        >>> observed = np.array([[1, -1, -1, -1]], np.int8)
        >>> selection_counts(np.array([[1, 2, 2, 2]]), np.array([[1, 1, 0, -1]]), observed)
        array([3, 1, 2, 1])
    """
    chosen = marked == EXPECTED
    missing = (truth == POSITIVE) & (observed == UNKNOWN)
    found = (chosen, missing, chosen & (truth != UNKNOWN), chosen & missing)
    return np.array([x.sum() for x in found], np.int64)


def selection_quality(counts: NDArray[np.int64]) -> dict[str, float]:
    """Share of the expected positives that are right, and of the missing ones found.

    Only labels whose truth is known count for either. Where none is known to be missing, neither
    says anything, and both are left out.

    Args:
        counts: of all images, see `selection_counts`.
    """
    selected, absent, known, right = map(int, counts)
    if not known or not absent:
        return {"selected": selected} if selected else {}
    return {
        "selected": selected,
        "selection_precision": right / known,
        "selection_recall": right / absent,
    }


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
        labels: [N, L] int8, every label known of the training images, for the quality of the
            selection; training never sees it.
        observed: [N, L] int8, the labels trained on.
        resumed: the checkpoint that the training goes on from, None at its start.
        class_names: L names.
        steps: of an epoch.
        minutes: between two checkpoints within an epoch; 0: none.
        max_loss: the training stops where the mean loss of an epoch is above; 0: never.
        stops: tells of a signal.
        tracker: is told of each epoch whose checkpoint is written.

    Attributes:
        progress: of the last checkpoint.

    Raises:
        UserError: the loss is not finite, or above `max_loss`.
        KeyboardInterrupt, Terminated: a signal came, and all is saved.
    """

    def __init__(
        self,
        run: RunFolder,
        labels: NDArray[np.int8],
        observed: NDArray[np.int8],
        resumed: Checkpoint | None,
        class_names: Sequence[str],
        steps: int,
        minutes: float,
        max_loss: float,
        stops: StopRequests,
        tracker: Tracker,
    ) -> None:
        super().__init__()
        self.run, self.shard = run, replicas.this_shard()
        self.truth, self.observed = self.shard.own(labels), observed
        self.class_names, self.tracker = class_names, tracker
        self.resumed, self.progress = resumed, resumed.progress if resumed else Progress(0)
        self.steps, self.minutes, self.max_loss, self.stops = steps, minutes, max_loss, stops
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
        if math.isfinite(value) and not 0 < self.max_loss < value:
            return
        epoch = len(self.progress.history) + 1
        raise UserError(
            f"the mean loss is {value:.3g} at step {step} of epoch {epoch} "
            f"(--max_loss={self.max_loss:g}); {self.advice()}"
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
        due = 0 < self.minutes * 60 <= time.monotonic() - self._saved_at
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


def scores_by_kind(bank: EMABank, labels: NDArray[np.int8]) -> dict[str, NDArray[np.float32]]:
    """The average scores s of eq. 4 by what is known of their labels.

    Args:
        bank: the score bank of N images and L classes, of several workers one's own.
        labels: [N, L] int8 in {1, 0, -1, 2}.

    Returns:
        float32 [n] in [0, 1] of each kind of label that occurs, of images that were visited. Where
        there are more than 500,000 labels only those of evenly spaced images are taken.
    """
    count, classes = labels.shape
    index = tf.range(0, count, -(-count * classes // _COUNTED), dtype=tf.int64)
    scores, visited = (x.numpy() for x in bank.read(index))
    codes = labels[index.numpy()]
    chosen = {kind: (codes == code) & visited[:, None] for kind, code in _KINDS.items()}
    return {kind: scores[mask] for kind, mask in chosen.items() if mask.any()}
