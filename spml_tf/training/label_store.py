"""What is kept of every training label: the label with its mark, and ROLE's estimate of it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from spml_tf.banks import ema_bank
from spml_tf.system import replicas
from spml_tf.system.replicas import once_a_process
from spml_tf.labels import EXPECTED, UNKNOWN
from spml_tf.system.private_api import outside_strategy
from spml_tf.losses import role_estimates
from spml_tf.training import selection
from spml_tf.training.options import Budget


@keras.saving.register_keras_serializable("spml_tf")
class LabelStore(keras.layers.Layer):
    """The labels of all training images, filled as batches come or at once.

    Args:
        num_images: N.
        num_classes: L.
        selects: whether `select` will be called.

    Attributes:
        codes: weight [N, L] int8 in {1, 0, -1 (unknown), 2 (unknown, marked)}, -1 at the start.
        epochs_selected: weight [N, L] uint8, how often a label was chosen, up to 255; None where
            nothing is selected.
    """

    def __init__(
        self, num_images: int, num_classes: int, selects: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**{"trainable": False, **kwargs})
        self.num_images, self.num_classes, self.selects = num_images, num_classes, selects
        self.codes = self._weight("int8", UNKNOWN, "codes")
        self.epochs_selected = self._weight("uint8", 0, "epochs_selected") if selects else None
        self.built = True

    def _weight(self, dtype: str, value: int, name: str) -> keras.Variable:
        with outside_strategy(): return self.add_weight(
            shape=(self.num_images, self.num_classes), dtype=dtype, name=name, trainable=False,
            initializer=keras.initializers.Constant(value), autocast=False,
        )  # fmt: skip

    def remember(self, index: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Stores a batch's labels, keeping the marks of unknown ones.

        Args:
            index: int64 [B], the images' rows.
            labels: [B, L] in {1, 0, -1}.

        Returns:
            int8 [B, L], the labels with their marks.
        """
        labels = tf.cast(labels, tf.int8)
        marked = (tf.gather(self.codes.value, index) == EXPECTED) & (labels == UNKNOWN)
        codes = tf.where(marked, tf.constant(EXPECTED, tf.int8), labels)
        self.write(index, codes)
        return codes

    def write(self, index: tf.Tensor, codes: tf.Tensor) -> None:
        """Stores int8 codes [B, L] in the rows index [B]."""
        once_a_process(lambda i, c: self.codes.value.scatter_update(tf.IndexedSlices(c, i)), index, codes)

    def select(self, scores: ema_bank.EMABank, positives_per_image: float, budget: Budget) -> None:
        """Marks the expected positives anew (zhat of eq. 5).

        Only images that were visited take part: N of eq. 3 is their number.

        Args:
            scores: the score bank.
            positives_per_image: K.
            budget: as for `selection.expected_positives`.

        Raises:
            ValueError: the store was made without `selects`.
        """
        if self.epochs_selected is None:
            raise ValueError("the store was not made to select: LabelStore(..., selects=True)")
        shard = replicas.this_shard()
        codes = np.array(self.codes.numpy())
        codes[codes == EXPECTED] = UNKNOWN
        averages, visited = scores.values.numpy(), scores.visited.numpy()
        total = int(replicas.sum_of_workers(np.array([len(codes)], np.int64))[0])
        def blocks(): return selection.row_blocks(averages, codes, visited, *shard)
        found = selection.thresholds(blocks, (total, codes.shape[1]), positives_per_image, budget, replicas.sum_of_workers)
        for block in blocks():
            rows = block[0] // shard.workers
            mask = found.chosen(*block)
            new = codes[rows]; new[mask] = EXPECTED
            codes[rows] = new
        self.codes.assign(codes)
        times = np.array(self.epochs_selected.numpy())
        times += (codes == EXPECTED) & (times < 255)
        self.epochs_selected.assign(times)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_images": self.num_images,
            "num_classes": self.num_classes,
            "selects": self.selects,
        }


@keras.saving.register_keras_serializable("spml_tf")
class LabelEstimates(keras.layers.Layer):
    """ROLE's estimated labels, trained along with the network (Cole et al. 2021).

    Args:
        num_images: N.
        num_classes: L.
        seed: int, of the first estimates.

    Attributes:
        values: trainable weight [N, L] float32, logits; as if no label were known at the start.
    """

    def __init__(self, num_images: int, num_classes: int, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_images, self.num_classes, self.seed = num_images, num_classes, seed
        with outside_strategy(): self.values = self.add_weight(
            shape=(num_images, num_classes), name="values", autocast=False
        )
        self.built = True
        self.start(np.full((num_images, num_classes), UNKNOWN, np.int8))

    def start(self, labels: NDArray[np.int8]) -> None:
        """Sets the first estimates from the labels, [N, L] int8 in {1, 0, -1}."""
        shard = replicas.this_shard()
        total = int(replicas.sum_of_workers(np.array([len(labels)], np.int64))[0])
        noise = shard.own(np.random.RandomState(self.seed).uniform(-1, 1, (total, labels.shape[1])))
        self.values.assign(role_estimates(labels, tf.constant(noise, tf.float32)))

    def read(self, index: tf.Tensor) -> tf.Tensor:
        """The estimates of some images, [B, L] float32 logits, with gradient."""
        return tf.gather(self.values.value, index)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_images": self.num_images,
            "num_classes": self.num_classes,
            "seed": self.seed,
        }
