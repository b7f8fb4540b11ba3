"""What methods are made of: rules that mark labels, and terms of the loss (eq. 8).

A part is a Keras layer: what it remembers are its weights, what it can be told are its options. It
sees a training step as one value, `Step`, and knows neither the model nor the other parts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from spml_tf.banks.image_tables import ImageTable, KeepsTables
from spml_tf.system.options import Options
from spml_tf.system.replicas import WHOLE, Shard, once_a_process
from spml_tf.training.options import TermOptions

if TYPE_CHECKING:
    from spml_tf.banks.ema_bank import EMABank
    from spml_tf.training.class_priors import ClassPriors


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """One training batch of B images and L classes, all that a part may see.

    Under a `tf.distribute` strategy it is the part of the batch that a replica has, B may be 0, and
    N the number of images whose rows this process keeps.

    Attributes:
        index: [B] int64, the images' rows in [0, N).
        box: [B, 4] float32, (y1, x1, y2, x2) of the crops in [0, 1] of the whole images.
        flip: [B] bool, crops that are mirrored.
        epoch: () int64, counted from 1.
        weight: [B, L] float32, sample weights times class weights; None where there are none.
        labels: [B, L] int8 in {1, 0, -1, 2}: positive, negative, unknown, unknown and marked.
        logits: [B, L] float32 of f, with gradient.
        maps: [B, G, G, L] float32 in [0, 1], sigmoid(F), with gradient.
        average: [B, L] float32 in [0, 1], the running averages s^(t-1) of eq. 4, without this
            step's scores; None where the model keeps none.
        visited: [B] bool, images that have an average; None where the model keeps none.
        image: [B, S, S, 3] float32 in 0..255, the crops as the network sees them.
        network: `network(images, training=False)` gives F of other images of this size,
            [B, G, G, L] float32, with gradient.
        label_loss: `label_loss(labels, logits, weight)` gives the method's own loss of other
            logits [B, L], scalar float32; None where the method has no loss of that kind.
    """

    index: tf.Tensor
    box: tf.Tensor
    flip: tf.Tensor
    epoch: tf.Tensor
    weight: tf.Tensor | None
    labels: tf.Tensor
    logits: tf.Tensor
    maps: tf.Tensor
    average: tf.Tensor | None
    visited: tf.Tensor | None
    image: Any = None
    network: Callable[..., tf.Tensor] | None = None
    label_loss: Callable[..., tf.Tensor] | None = None

    @property
    def scores(self) -> tf.Tensor:
        """[B, L] float32 in [0, 1], f = sigmoid(logits), with gradient."""
        return tf.sigmoid(self.logits)


def _black() -> NDArray[np.float32]:
    return np.zeros(3, np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What a part may build its weights from.

    Attributes:
        num_images: N, of several workers the images whose rows this one keeps.
        num_classes: L.
        grid: G, cells per side of the network's maps.
        seed: int, of what is drawn at random.
        shard: which images of the data set these are: row r is image r * workers + worker.
        directory: a folder where large tables of images live in unnamed files, see
            `banks.image_tables.ImageTable`; None for ordinary memory.
        bank: momentum, storage and device, as `banks.ema_bank.EMABank` takes them.
        zero_colour: `zero_colour()` gives the colour that the network's scaling maps to 0, [3]
            RGB in 0..255; to be called in a step, when the network has its weights.
    """

    num_images: int
    num_classes: int
    grid: int
    seed: int = 0
    shard: Shard = WHOLE
    directory: str | None = None
    bank: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    zero_colour: Callable[[], NDArray[np.float32]] = _black

    @property
    def of_banks(self) -> dict[str, Any]:
        """What `banks.ema_bank.EMABank` is told beside the shape."""
        shared = {"seed": self.seed, "shard": self.shard, "directory": self.directory}
        return {**self.bank, **shared}


class Part(KeepsTables, Options):
    """A rule or a term. Options are declared as in `spml_tf.system.options`.

    Args:
        kwargs: options by name; and name, trainable and dtype as Keras has them.

    Attributes:
        needs_scores: whether it reads `Step.average` or the score bank.
        needs_images: whether it reads `Step.image`, for which features cannot stand.
        in_use: whether a model has taken it; what it remembers is of that model's images.
        facts: what `prepare` is told; None before.
    """

    needs_scores: bool = False
    needs_images: bool = False

    def __init__(self, **kwargs: Any) -> None:
        options = {name: kwargs.pop(name) for name in self.declared() if name in kwargs}
        super().__init__(**kwargs)
        self.take_options(options)
        self.built = True
        self.in_use = False
        self.facts: Facts | None = None

    def prepare(self, facts: Facts) -> None:
        """Creates the weights, once N and L are known. There are none by default."""

    def start(self, labels: NDArray[np.int8]) -> None:
        """Takes note of all training labels, [N, L] int8 in {1, 0, -1}, before the first epoch."""

    def on_epoch(self, epoch: int, scores: EMABank | None) -> None:
        """Prepares an epoch; runs eagerly, before its first step.

        Args:
            epoch: counted from 1.
            scores: the score bank; None where the model keeps none.
        """

    def state(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str,
        value: float = 0,
        *,
        row_per_image: bool = False,
    ) -> Any:
        """Creates a weight that training does not change by gradients.

        Args:
            name: of the weight.
            shape: of the weight.
            dtype: of the weight, kept under mixed precision too.
            value: it starts with.
            row_per_image: whether `shape` begins with `Facts.num_images`. Such a weight is kept
                once a process, in host memory, and `write` changes it.

        Returns:
            A keras.Variable; only such ones are saved.

        Raises:
            ValueError: a row per image is asked for before `prepare`, or in another number.
        """
        if row_per_image:
            if self.facts is None or shape[0] != self.facts.num_images:
                raise ValueError(
                    f"{self.name}: {name} has a row per image: make it in prepare, with the shape "
                    f"(facts.num_images, ...). Received: {tuple(shape)}"
                )
            table = ImageTable(
                self, tuple(shape), dtype, name, value, directory=self.facts.directory
            )
            return self.keep(table).weight
        return self.add_weight(
            shape=tuple(shape), dtype=dtype, name=name, trainable=False, autocast=False,
            initializer=keras.initializers.Constant(value),
        )  # fmt: skip

    def write(self, state: Any, index: tf.Tensor, rows: tf.Tensor) -> None:
        """Stores rows [B, ...] of a batch in a weight [N, ...] made by `state`, in place.

        Under a `tf.distribute` strategy a process writes the rows of all its replicas.
        """

        def scatter(index: tf.Tensor, rows: tf.Tensor) -> None:
            state.value.scatter_update(tf.IndexedSlices(rows, index))

        once_a_process(scatter, index, tf.cast(rows, state.dtype))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.options()}


class Rule(Part):
    """Marks labels before the losses see them.

    Attributes:
        labels: weight [N, L] int8 in {1, 0, -1, 2}, the training labels with the marks that stay
            from batch to batch; None where marks do not stay.
        estimates_priors: whether it estimates the classes' priors, for which a label must be
            positive.
    """

    labels: Any = None
    estimates_priors: bool = False

    def mark(self, step: Step) -> tf.Tensor:
        """The labels of a batch with 2 where an unknown one (-1) is marked, [B, L] int8.

        A loss gives the marks their meaning: `ExpectedNegative` leaves marked labels out,
        `ExpectedPositive` trains them as positives. Gradients do not flow through marks.
        """
        return step.labels

    def class_priors(self) -> ClassPriors | None:
        """The priors that it has estimated; None before that, and where it estimates none."""
        return None

    def load_priors(self, path: str) -> None:
        """Takes over the priors that the run of a checkpoint has estimated, where it has.

        Args:
            path: a .weights.h5 file.
        """


class Term(Part, TermOptions):
    """One addend of eq. 8: weight * compute(step) from `start_epoch` on.

    Before that epoch, and with a weight of 0, `compute` is not asked and the term's value is 0; of
    several replicas, and of a term that is `of_whole_batch`, it is asked before, and its value is
    multiplied by 0.

    Attributes:
        reported_as: its value stands in logs and in history.csv as this and "_loss".
        trains_labels: whether it trains the scores from the labels, so that a method can be made
            of it alone.
        marks: of one that trains labels, what it makes of labels that a rule marks, as "left out";
            empty: it does not look at marks, and goes with no rule.
        needs_label_loss: whether it reads `Step.label_loss`; methods that lack it are refused.
        of_whole_batch: under a `tf.distribute` strategy, False: `compute` returns a mean over the
            images of its replica, which the model weighs by their number; True: what it returns has
            the value of the whole batch as its mean over replicas
            (`spml_tf.system.replicas.mean_over_replicas`).
    """

    reported_as: ClassVar[str] = ""
    trains_labels: ClassVar[bool] = False
    marks: ClassVar[str] = ""
    needs_label_loss: ClassVar[bool] = False
    of_whole_batch: ClassVar[bool] = False

    def compute(self, step: Step) -> tf.Tensor:
        """The value of the term for a batch, scalar float32, before `weight`."""
        raise NotImplementedError

    def evaluate(
        self, labels: tf.Tensor, logits: tf.Tensor, weight: tf.Tensor | None
    ) -> tf.Tensor | None:
        """Its value for images that are not trained on, scalar float32; None where it has none.

        Args:
            labels: [B, L] int8 in {1, 0, -1}.
            logits: [B, L] float32.
            weight: [B, L] float32, or None.
        """
        return None

    def after_step(self, step: Step, average: tf.Tensor | None) -> None:
        """Follows the network, after the weights have moved.

        Args:
            step: the batch, as `compute` saw it.
            average: [B, L] float32, s^t with this step's scores; None where the model keeps none.
        """
