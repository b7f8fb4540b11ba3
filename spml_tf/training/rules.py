"""Rules that mark labels: expected positives (eq. 3), large losses, confident, likely scores."""

from __future__ import annotations

import math
import warnings
from typing import Any

import h5py
import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from spml_tf.banks.ema_bank import EMABank
from spml_tf.labels import EXPECTED, UNKNOWN
from spml_tf.system import replicas
from spml_tf.system.options import plain
from spml_tf.system.private_api import saved_name
from spml_tf.training.class_priors import ClassPriors, class_priors, probable_shares
from spml_tf.training.label_store import LabelStore
from spml_tf.training.options import (
    AUTO,
    ESTIMATED,
    ESTIMATED_BUDGETS,
    PROBABLE,
    Budget,
    ConfidentOptions,
    LargeLossOptions,
    LikelyPositivesOptions,
    SelectionOptions,
    check_budget,
    check_priors,
)
from spml_tf.training.parts import Facts, Rule, Step


def label_store(facts: Facts, selects: bool = False) -> LabelStore:
    """The labels with their marks, for a rule whose marks stay.

    Args:
        facts: what `prepare` is told.
        selects: whether expected positives will be selected.
    """
    return LabelStore(
        facts.num_images, facts.num_classes, selects, facts.directory, name="label_store"
    )


class StoringRule(Rule):
    """A rule whose marks stay from batch to batch.

    Attributes:
        store: the labels with their marks; None where `prepare` makes none, and none stay.
    """

    store: LabelStore | None = None

    def prepare(self, facts: Facts) -> None:
        self.store = label_store(facts)

    @property
    def labels(self) -> Any:
        return None if self.store is None else self.store.codes

    def start(self, labels: NDArray[np.int8]) -> None:
        if self.store is not None:
            self.store.codes.assign(labels.astype(np.int8))

    def mark(self, step: Step) -> tf.Tensor:
        own = self.own_labels(step)
        if self.store is not None:
            self.store.write(step.index, own)
        return _with_marks_of(step.labels, own)

    def own_labels(self, step: Step) -> tf.Tensor:
        """The batch's labels with this rule's stored marks alone, [B, L] int8.

        Labels that rules before this one have marked are unknown ones here: their marks are made
        anew for each batch, and must not stay.
        """
        unmarked = tf.where(step.labels == EXPECTED, tf.constant(UNKNOWN, tf.int8), step.labels)
        return unmarked if self.store is None else self.store.with_marks(step.index, unmarked)


def _with_marks_of(labels: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Labels [B, L] int8 with the marks that the same labels have elsewhere too."""
    return tf.where(others == EXPECTED, tf.constant(EXPECTED, labels.dtype), labels)


@keras.saving.register_keras_serializable("spml_tf")
class ExpectedPositives(StoringRule, SelectionOptions):
    """Marks, once an epoch, the unknown labels that are expected to be positive (eqs. 3 and 5).

    For each class the p_i images of highest average score are expected positive, see
    `selection.expected_positives`. The first choice is made at `start_epoch`, and at the earliest
    once one epoch has filled the score bank; banks that are filled before the first epoch are an
    earlier run's, and their choice stands until this run's own scores can be trusted.

    What is to be estimated is so once, from the score bank before the first choice, while `en` and
    `ep` have trained unknown labels as negatives, see `class_priors.class_priors`; it is saved with
    the weights.

    Args:
        positives_per_image: K of eq. 3; "auto": the estimated one.
        start_epoch: first epoch with expected positives.
        budget: "all", "unannotated", "global", each class's share of the images, "estimated":
            `priors`, else the estimated shares, scaled such that their sum is a K that is not
            "auto", or "probable": so many unknown labels as had at least `probability` of being
            positive in the estimate, moved to `priors`, or to a K that is not "auto".
        probability: in [0, 1].
        priors: [L] shares of the images that hold each class, for the last two budgets, or None.
        multiple: factor of the number of labels that are missing by the budget; "auto": how many
            are missing for each annotated positive, from 1 to 3, and 1 where neither shares nor K
            are known.
        kwargs: name, as Keras has it.

    Examples:
        >>> rule = ExpectedPositives(positives_per_image=1.5, budget="unannotated")
        >>> rule.positives_per_image, rule.start_epoch, rule.budget
        (1.5, 2, 'unannotated')
    """

    store: LabelStore  # always
    needs_scores = True

    def prepare(self, facts: Facts) -> None:
        budget = self._given_budget()
        by_class = isinstance(budget, str) and budget in ESTIMATED_BUDGETS
        if not by_class:
            check_budget("selection_budget", budget, facts.num_classes)
        if self.priors is not None:
            check_priors("selection_priors", plain(self.priors), facts.num_classes)
            if not by_class:
                words = " or ".join(ESTIMATED_BUDGETS)
                raise ValueError(f"selection_priors: needs selection_budget={words}")
        self.counted = (
            AUTO != self.positives_per_image
            or self.priors is not None
            or not isinstance(budget, str)
        )
        self.estimates_priors = not self.counted or (
            by_class and (self.priors is None or budget == PROBABLE)
        )
        self.store = label_store(facts, selects=True)
        if self.estimates_priors:
            # Of each class and of K: value, lower and upper end, share to expect.
            self._estimated = self.add_weight(
                shape=(facts.num_classes + 1, 4), dtype="float32", name="estimated",
                initializer="zeros", trainable=False, autocast=False,
            )  # fmt: skip

    def on_epoch(self, epoch: int, scores: EMABank | None) -> None:
        assert scores is not None  # since `needs_scores`
        visited = replicas.sum_of_workers(np.array([scores.visited.numpy().sum()], np.int64))[0]
        if visited and (epoch == 1 or epoch >= self.start_epoch):
            self.select(scores)

    def select(self, scores: EMABank) -> None:
        """Chooses the expected positives from the score bank, see `LabelStore.select`."""
        if self.estimates_priors and self.class_priors() is None:
            self._estimate(scores)
        multiple = self.multiple if self.counted or AUTO != self.multiple else 1.0
        self.store.select(scores, *self._mean_and_budget(), multiple)

    def _mean_and_budget(self) -> tuple[float, Budget]:
        """K and budget of the selection, the estimated ones where they are asked for."""
        given, budget, found = self.positives_per_image, self._given_budget(), self.class_priors()
        if isinstance(given, str):  # shares that are given need no mean
            mean = found.positives_per_image if found else 0.0
        else:
            mean = float(given)
        if self.priors is not None and budget == ESTIMATED:
            budget = list(plain(self.priors))
        elif found is not None and budget == ESTIMATED:
            scale = mean / found.positives_per_image
            budget = np.minimum(scale * found.priors, 1).tolist()
        if found is not None and budget == PROBABLE:
            budget = self._estimated.numpy()[:-1, 3].tolist()
        return mean, budget

    def class_priors(self) -> ClassPriors | None:
        """The estimate in use, None before it is made and where none is wanted."""
        if not self.estimates_priors:
            return None
        values = self._estimated.numpy().astype(np.float64)
        if not values[-1, 0]:
            return None
        priors, low, high, _ = values[:-1].T
        mean, *ends, _ = values[-1].tolist()
        return ClassPriors(priors, low, high, mean, (ends[0], ends[1]))

    def load_priors(self, path: str) -> None:
        with h5py.File(path) as file:
            saved = file.get(f"layers/{saved_name(self)}/vars/0")
            if self.estimates_priors and saved is not None and saved.shape == self._estimated.shape:
                self._estimated.assign(saved[...])

    def _estimate(self, scores: EMABank) -> None:
        sample = self.store.sample(scores)
        known: Any = None if self.priors is None else plain(self.priors)
        if known is None and AUTO != self.positives_per_image:
            known = float(self.positives_per_image)
        found, expected = class_priors(*sample), probable_shares(*sample, self.probability, known)
        of_classes = np.stack([found.priors, found.low, found.high, expected], axis=1)
        whole = np.array([found.positives_per_image, *found.interval, expected.sum()])
        values = np.concatenate([of_classes, whole[None]]).astype(np.float32)
        # Of several machines' processors the last digits may differ: all take the first one's.
        first = scores.shard[0] == 0
        self._estimated.assign(replicas.sum_of_workers(values * first))

    def _given_budget(self) -> Budget:
        """The budget as Python has it: Keras wraps lists that layers hold."""
        return self.budget if isinstance(self.budget, str) else list(self.budget)


@keras.saving.register_keras_serializable("spml_tf")
class LargeLoss(StoringRule, LargeLossOptions):
    """Marks the unknown labels whose loss as negatives is largest in the batch (LL-R, -Ct, -Cp).

    Kim et al., "Large Loss Matters in Weakly Supervised Multi-Label Classification" (CVPR 2022).
    At epoch t, k = ceil(B L (t-1) rate / 100) of them where the share grows, else
    ceil(B L rate / 100) from the second epoch on. Ties with the k-th are marked too. Under a
    `tf.distribute` strategy the batch is that of all replicas.

    Args:
        rate: percent of the batch's labels, an epoch where the share grows.
        growing: whether the share grows with the epochs (LL-R, LL-Ct) or not (LL-Cp).
        lasting: whether a mark stays for the rest of the training (LL-Cp).
        kwargs: name, as Keras has it.

    Examples:
        >>> rule = LargeLoss(rate=25.0)
        >>> labels = tf.constant([[1, -1], [-1, -1]], tf.int8)
        >>> logits = tf.constant([[0.0, 2.0], [1.0, 3.0]])
        >>> rule.marked(labels, logits, tf.constant(2, tf.int64)).numpy().tolist()
        [[1, -1], [-1, 2]]
    """

    def prepare(self, facts: Facts) -> None:
        if self.lasting:
            super().prepare(facts)

    def mark(self, step: Step) -> tf.Tensor:
        own = self.own_labels(step)
        before = _with_marks_of(step.labels, own)
        labels = self.marked(before, tf.stop_gradient(step.logits), step.epoch)
        if self.store is not None:
            new = tf.where(before == EXPECTED, tf.constant(UNKNOWN, labels.dtype), labels)
            self.store.write(step.index, _with_marks_of(own, new))
        return labels

    def marked(self, labels: tf.Tensor, logits: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        """The labels of a batch with marks.

        Args:
            labels: [B, L] int8 in {1, 0, -1, 2}; only -1 can be marked.
            logits: [B, L] float.
            epoch: int scalar, counted from 1.

        Returns:
            [B, L] int8, the labels with 2 where marked.
        """
        epochs = tf.cast(epoch - 1, tf.float64)
        share = epochs if self.growing else tf.minimum(epochs, 1.0)
        each = share * self.rate / 100 * int(labels.shape[-1])
        # The loss of a negative, log(1 + e^x), is largest where the logit is.
        marked = _highest_of_batch(logits, labels == UNKNOWN, each)
        return tf.where(marked, tf.constant(EXPECTED, labels.dtype), labels)


def _highest_of_batch(logits: tf.Tensor, candidates: tf.Tensor, each: Any) -> tf.Tensor:
    """The candidates of highest logit in the batch of all replicas.

    Args:
        logits: [B, L] float.
        candidates: [B, L] bool.
        each: float64 scalar, how many an image of the batch, rounded up for all of them together.

    Returns:
        [B, L] bool; ties with the last one count too.
    """
    values = tf.where(candidates, logits, tf.constant(-math.inf, logits.dtype))
    every = replicas.from_all_replicas(values)[0]
    wanted = tf.cast(tf.shape(every)[0], tf.float64) * each
    # A product that is whole must not become the next number through rounding.
    count = tf.cast(tf.math.ceil(wanted - 1e-9), tf.int32)
    count = tf.minimum(count, tf.reduce_sum(tf.cast(every > -math.inf, tf.int32)))
    ranked = tf.sort(tf.reshape(every, [-1]), direction="DESCENDING")
    lowest = tf.gather(ranked, tf.maximum(count - 1, 0))
    found: tf.Tensor = candidates & (values >= lowest) & (count > 0)
    return found


@keras.saving.register_keras_serializable("spml_tf")
class Confident(Rule, ConfidentOptions):
    """Marks unknown labels whose score is above a threshold (SPLC).

    Zhang et al., "Simple and Robust Loss Design for Multi-Label Learning with Missing Labels"
    (2021). `splc` takes Hill's loss with it, whose negatives are (1.5 - f) f^2 and whose margin
    marked labels have too; the authors' public code has -f^2 log(1 - f) and no margin there.

    Args:
        threshold: score in (0, 1) above which a label is marked.
        start_epoch: first epoch in which labels are marked.
        kwargs: name, as Keras has it.

    Examples:
        >>> rule = Confident(threshold=0.5)
        >>> labels = tf.constant([[1, -1, -1, 0]], tf.int8)
        >>> logits = tf.constant([[3.0, 0.1, -0.1, 3.0]])
        >>> rule.marked(labels, logits, tf.constant(2, tf.int64)).numpy().tolist()
        [[1, 2, -1, 0]]
    """

    def mark(self, step: Step) -> tf.Tensor:
        return self.marked(step.labels, tf.stop_gradient(step.logits), step.epoch)

    def marked(self, labels: tf.Tensor, logits: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        """The labels of a batch with marks; arguments and result as for `LargeLoss.marked`."""
        bound = math.log(self.threshold / (1 - self.threshold))
        marked = (labels == UNKNOWN) & (logits > bound) & (epoch >= self.start_epoch)
        return tf.where(marked, tf.constant(EXPECTED, labels.dtype), labels)


@keras.saving.register_keras_serializable("spml_tf")
class LikelyPositives(Rule, LikelyPositivesOptions):
    """Marks the likeliest unknown labels of a batch and those of frequent classes (CSL).

    Ben-Baruch et al., "Multi-Label Classification with Partial Annotations using Class-Aware
    Selective Loss" (CVPR 2022): `per_image` B unknown labels of a batch of B images, and all of
    classes whose prior is above `max_prior`. Where no priors are given they are the mean scores of
    a bank: of an earlier run, where the banks are filled before the first epoch, throughout; else
    of the run itself, anew at each epoch's start and 0 in the first (ours). Under a `tf.distribute`
    strategy the batch is that of all replicas.

    Args:
        per_image: how many of the likeliest labels an image of the batch.
        max_prior: classes above are marked as a whole.
        priors: [L] numbers in [0, 1], or None.
        kwargs: name, as Keras has it.

    Attributes:
        prior: float32 [L] weight.
        kept: int32 scalar weight, 1 where the prior is an earlier run's.

    Examples:
        >>> rule = LikelyPositives(per_image=0.5)
        >>> labels = tf.constant([[1, -1, -1], [0, -1, -1]], tf.int8)
        >>> logits = tf.constant([[9.0, 2.0, 1.0], [9.0, 1.5, 0.0]])
        >>> rule.marked(labels, logits, tf.constant([0.9, 0.1, 0.6])).numpy().tolist()
        [[1, 2, 2], [0, -1, 2]]
    """

    @property
    def needs_scores(self) -> bool:  # type: ignore[override]
        return self.priors is None

    def prepare(self, facts: Facts) -> None:
        if self.priors is not None:
            check_priors("likely_priors", plain(self.priors), facts.num_classes)
        self.prior = self.state("prior", (facts.num_classes,), "float32")
        self.kept = self.state("kept", (), "int32")

    def on_epoch(self, epoch: int, scores: EMABank | None) -> None:
        if self.priors is not None:
            self.prior.assign(np.asarray(plain(self.priors), np.float32))
        elif not self.kept.numpy():
            assert scores is not None  # since `needs_scores`
            seen = self._mean_scores(scores)
            self.kept.assign(int(epoch == 1 and seen))
        if (self.prior.numpy() > self.max_prior).all():
            warnings.warn(
                f"csl: the priors of all classes are above likely_max_prior={self.max_prior:g}, so "
                "that every unknown label is left out and known ones alone are learned from; an "
                "earlier run that saw no known negatives gives such priors: take those of another, "
                "or give likely_priors",
                UserWarning,
                stacklevel=2,
            )

    def _mean_scores(self, scores: EMABank) -> bool:
        """Takes the priors from a bank; returns whether it has seen any image."""
        sums = np.zeros(1 + scores.num_classes)
        visited = np.flatnonzero(scores.visited.numpy())
        for rows in np.array_split(visited, 1 + len(visited) // 2**14):
            values, _ = scores.read(tf.constant(rows))
            sums += [len(rows), *values.numpy().sum(axis=0, dtype=np.float64)]
        images, *summed = replicas.sum_of_workers(sums)
        self.prior.assign(np.array(summed) / max(images, 1))
        return bool(images)

    def mark(self, step: Step) -> tf.Tensor:
        return self.marked(step.labels, tf.stop_gradient(step.logits), self.prior.value)

    def marked(self, labels: tf.Tensor, logits: tf.Tensor, prior: tf.Tensor) -> tf.Tensor:
        """The labels of a batch with marks.

        Args:
            labels: [B, L] int8 in {1, 0, -1, 2}; only -1 can be marked.
            logits: [B, L] float.
            prior: [L] float.

        Returns:
            [B, L] int8, the labels with 2 where marked.
        """
        unknown = labels == UNKNOWN
        each = tf.constant(self.per_image, tf.float64)
        marked = _highest_of_batch(logits, unknown, each) | (unknown & (prior > self.max_prior))
        return tf.where(marked, tf.constant(EXPECTED, labels.dtype), labels)
