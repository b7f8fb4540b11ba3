"""Callbacks of training: what `SPMLModel.fit` adds by itself, and what writes a run's folder."""

from __future__ import annotations

import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from spml_tf.files import replaced
from spml_tf.labels import EXPECTED, POSITIVE, UNKNOWN
from spml_tf.runs import RunFolder


class EpochStart(keras.callbacks.Callback):
    """Tells the model which epoch begins: thaws the backbone, selects expected positives.

    `SPMLModel.fit` adds it in front of the user's callbacks.
    """

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.model.begin_epoch(epoch + 1)


class RunRecorder(keras.callbacks.Callback):
    """Writes the run's folder after each epoch: best network, history, events, checkpoint.

    The checkpoint comes last and counts: whatever a killed process wrote after it is written
    again, with the same content, when the run resumes.

    Args:
        run: the folder.
        labels: [N, L] int8, every label known of the training images, for the quality of the
            selection; training never sees it.
        observed: [N, L] int8, the labels trained on.
        first_epoch: epochs done before.
    """

    def __init__(
        self, run: RunFolder, labels: np.ndarray, observed: np.ndarray, first_epoch: int = 0
    ) -> None:
        super().__init__()
        self.run, self.truth, self.observed = run, labels, observed
        self.rows: list[dict[str, Any]] = list(run.read_history(first_epoch))
        self.best = max((float(row["val_map"] or "-inf") for row in self.rows), default=-np.inf)
        self.events = tf.summary.create_file_writer(str(run.tensorboard))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        values = {k: float(v) for k, v in logs.items() if k != "val_consistency_loss"}
        row = {"epoch": epoch + 1, **values, **self._selection_quality()}
        row["seconds"] = round(time.perf_counter() - self.started, 1)
        if not self.rows or values["val_map"] > self.best:
            self.best = max(self.best, values["val_map"])
            with replaced(self.run.network) as path:
                self.model.network.save(path)
        self.rows.append(row)
        self.run.write_history(self.rows)
        self._write_events(row)
        with replaced(self.run.checkpoint) as path:
            self.model.save_weights(path)

    def _selection_quality(self) -> dict[str, float]:
        """Share of the expected positives that are right, and of the missing ones found."""
        chosen = self.model.labels.numpy() == EXPECTED
        if not chosen.any():
            return {}
        missing = (self.truth == POSITIVE) & (self.observed == UNKNOWN)
        right = float((chosen & missing).sum())
        return {
            "selected": int(chosen.sum()),
            "selection_precision": right / float(chosen.sum()),
            "selection_recall": right / max(float(missing.sum()), 1.0),
        }

    def _write_events(self, row: dict[str, Any]) -> None:
        with self.events.as_default(step=row["epoch"]):
            for name, value in row.items():
                if name != "epoch":
                    tf.summary.scalar(name, value)
        self.events.flush()
