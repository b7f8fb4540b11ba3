"""EM with asymmetric pseudo-labels: unlikely labels get soft targets for good, epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from spml_tf import losses
from spml_tf.banks.ema_bank import EMABank
from spml_tf.banks.image_tables import ImageTable, row_slices
from spml_tf.labels import NEGATIVE, POSITIVE, UNKNOWN
from spml_tf.system import replicas
from spml_tf.training import selection
from spml_tf.training.options import PseudoLabelsOptions
from spml_tf.training.parts import Facts, Step, Term

# In place of a target: of a known label, or one that was not seen; of an unknown label.
_KNOWN, _NONE = -2.0, -1.0


@keras.saving.register_keras_serializable("spml_tf")
class PseudoLabels(PseudoLabelsOptions, Term):
    """EM, and pseudo-labels for the least likely unknown labels (APL; Zhou et al., ECCV 2022).

    At the start of each epoch after the first `warmup_epochs`, of each class the
    floor(share U / (epochs - warmup_epochs)) unknown labels of lowest score that have no
    pseudo-label yet get one, U being all unknown labels of the class. Its target is the score then,
    and stays. Scores are the running averages (ours; the paper makes a pass over all images).

    Args:
        entropy_weight: alpha.
        factor: beta.
        warmup_epochs: epochs before the first pseudo-labels.
        epochs: T, epoch of the last pseudo-labels.
        share: of the unknown labels that have one at last.
        kwargs: name, as Keras has it.

    Attributes:
        targets: weight [N, L] float32, in [0, 1], -1 for unknown labels without, -2 for others.
        table: the same, read and written in blocks of rows.
    """

    reported_as: ClassVar[str] = "classification"
    trains_labels: ClassVar[bool] = True
    marks: ClassVar[str] = "left out"
    needs_scores = True

    def prepare(self, facts: Facts) -> None:
        shape = (facts.num_images, facts.num_classes)
        table = ImageTable(self, shape, "float32", "targets", _KNOWN, directory=facts.directory)
        self.table = self.keep(table)
        self.targets = self.table.weight

    def start(self, labels: NDArray[np.int8]) -> None:
        for rows in self._slices():
            self.table.write(rows, np.where(labels[rows] == UNKNOWN, _NONE, _KNOWN))

    def on_epoch(self, epoch: int, scores: EMABank | None) -> None:
        if self.warmup_epochs < epoch <= self.epochs:
            assert scores is not None  # since `needs_scores`
            self.add_labels(scores)

    def add_labels(self, scores: EMABank) -> None:
        """Gives the pseudo-labels of an epoch.

        Args:
            scores: the score bank; images that it has not seen get none.
        """
        worker, workers = scores.shard
        images, num_classes = self.table.shape
        unknown = np.zeros(num_classes, np.int64)
        for rows in self._slices():
            unknown += (self.table.read(rows) != _KNOWN).sum(axis=0)
        total = replicas.sum_of_workers(np.concatenate([[images], unknown]).astype(np.int64))
        each = self.share / max(self.epochs - self.warmup_epochs, 1)
        # A product that is whole must not become the number before through rounding.
        wanted = np.floor(each * total[1:] + 1e-9).astype(np.int64)
        visited = scores.visited.numpy()

        def block(rows: slice) -> selection.Block:
            own = np.flatnonzero(visited[rows])
            free = np.where(self.table.read(rows)[own] == _NONE, UNKNOWN, NEGATIVE)
            turned = selection.descending(scores.table.read(rows)[own])
            return (own + rows.start) * workers + worker, turned, free.astype(np.int8)

        shape = (int(total[0]), num_classes)
        found = selection.lowest_unknown(
            lambda: map(block, self._slices()), shape, wanted, replicas.sum_of_workers
        )
        for rows in self._slices():
            numbers, *rest = block(rows)
            values, _ = scores.read(tf.constant(numbers // workers))
            own, targets = numbers // workers - rows.start, self.table.read(rows)
            targets[own] = np.where(found.chosen(numbers, *rest), values, targets[own])
            self.table.write(rows, targets)

    def _slices(self) -> Iterator[slice]:
        """Rows of some hundred thousand labels."""
        images, num_classes = self.table.shape
        return row_slices(images, 16 * num_classes)

    def compute(self, step: Step) -> tf.Tensor:
        targets = self.table.gather(step.index)
        return self._value(step.labels, step.logits, targets, step.weight)

    def evaluate(self, labels: tf.Tensor, logits: tf.Tensor, weight: tf.Tensor | None) -> tf.Tensor:
        """EM: images that are not trained on have no pseudo-labels."""
        return self._value(labels, logits, tf.fill(tf.shape(logits), _NONE), weight)

    def _value(self, labels: Any, logits: Any, targets: Any, weight: Any) -> tf.Tensor:
        values = losses.pseudo_labelled_entropy(
            labels, logits, targets, self.entropy_weight, self.factor, weights=weight
        )
        return tf.reduce_mean(values)

    def after_step(self, step: Step, average: tf.Tensor | None) -> None:
        """Notes which labels are unknown, where `start` was not told."""
        targets = self.table.gather(step.index)
        unknown = tf.where(targets < 0, tf.constant(_NONE), targets)
        is_known = (step.labels == NEGATIVE) | (step.labels == POSITIVE)
        self.write(self.targets, step.index, tf.where(is_known, tf.constant(_KNOWN), unknown))
