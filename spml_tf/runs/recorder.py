"""The callback that writes a run's folder."""

from __future__ import annotations

import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from spml_tf.banks.ema_bank import EMABank
from spml_tf.labels import EXPECTED, NEGATIVE, POSITIVE, UNKNOWN
from spml_tf.runs import checkpoints
from spml_tf.runs.run_folder import RunFolder
from spml_tf.system import replicas
from spml_tf.system.files import replaced
from spml_tf.system.private_api import outside_strategy

# Labels whose scores an epoch's histograms count; of more, those of evenly spaced images.
_COUNTED = 500_000
_KINDS = {
    "annotated_positives": POSITIVE, "annotated_negatives": NEGATIVE,
    "expected_positives": EXPECTED, "other_unknown": UNKNOWN,
}  # fmt: skip


class RunRecorder(keras.callbacks.Callback):
    """Writes the run's folder after each epoch: best network, history, events, checkpoint.

    The events, for TensorBoard, are what history.csv holds as scalars, every term of the loss among
    it, and histograms of the average scores by kind of label.

    The checkpoint comes last and counts: whatever a killed process wrote after it is written
    again, with the same content, when the run resumes.

    Of several workers only the first writes, but for its own part of the checkpoint; all of them
    must have this callback.

    Args:
        run: the folder.
        labels: [N, L] int8, every label known of the training images, for the quality of the
            selection; training never sees it.
        observed: [N, L] int8, the labels trained on.
        first_epoch: epochs done before.
    """

    def __init__(
        self,
        run: RunFolder,
        labels: NDArray[np.int8],
        observed: NDArray[np.int8],
        first_epoch: int = 0,
    ) -> None:
        super().__init__()
        self.run, self.shard = run, replicas.this_shard()
        self.truth, self.observed = self.shard.own(labels), observed
        self.rows: list[dict[str, Any]] = list(run.read_history(first_epoch))
        self.best = max((float(row["val_map"] or "-inf") for row in self.rows), default=-np.inf)
        self.events = None
        if self.shard.worker == 0:
            self.events = tf.summary.create_file_writer(str(run.tensorboard))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        values = {k: float(v) for k, v in logs.items()}
        row = {"epoch": epoch + 1, **values, **self._selection_quality()}
        row["seconds"] = round(time.perf_counter() - self.started, 1)
        better = not self.rows or values["val_map"] > self.best
        self.best = max(self.best, values["val_map"])
        self.rows.append(row)
        if self.shard.worker == 0:
            if better:
                with replaced(self.run.network) as path, outside_strategy():
                    self.model.network.save(path)
            self.run.write_history(self.rows)
            self._write_events(row)
        checkpoints.save(self.model, self.run.checkpoint)

    def _selection_quality(self) -> dict[str, float]:
        """Share of the expected positives that are right, and of the missing ones found."""
        chosen = self.model.marked_labels(self.observed) == EXPECTED
        missing = (self.truth == POSITIVE) & (self.shard.own(self.observed) == UNKNOWN)
        counts = np.array([chosen.sum(), missing.sum(), (chosen & missing).sum()], np.int64)
        with self.model.distribute_strategy.scope():
            selected, absent, right = map(int, replicas.sum_of_workers(counts))
        if not selected:
            return {}
        return {
            "selected": selected,
            "selection_precision": right / selected,
            "selection_recall": right / max(absent, 1),
        }

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
