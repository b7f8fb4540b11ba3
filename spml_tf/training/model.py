"""Training of a network of class activation maps with eq. 8, as a Keras model."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from spml_tf import losses
from spml_tf.banks import ema_bank, heatmap_bank
from spml_tf.networks.freezing import BackboneSwitch
from spml_tf.training import methods, selection
from spml_tf.training.batches import unpack
from spml_tf.training.epoch_start import with_epoch_start
from spml_tf.training.label_store import LabelEstimates, LabelStore


@keras.saving.register_keras_serializable("spml_tf")
class SPMLModel(keras.Model):
    """Trains a network of CAM logits from single positive or any partial labels.

    Batches are `(x, y)`. `x` is a dict of "image" [B, S, S, 3] (0..255, RGB), "index" [B] int (the
    image's row in the banks), and, where the image is a crop, "box" [B, 4] float (y1, x1, y2, x2
    in [0, 1] of the whole image) and "flip" [B] bool (mirrored after cropping); without these it
    is the whole image. `y` is [B, L] in {1, 0, -1 (unknown)}. Evaluation and prediction need only
    the image, as a dict or as a tensor, and yield scores f = sigmoid(mean of F), [B, L] float32.

    Epochs count from 1. With a method that selects (en, ep), the expected positives are chosen
    anew at the start of each epoch from `selection_start_epoch` on, once one epoch has filled
    the score bank; before that no label is expected positive.

    Args:
        network: functional keras.Model, images -> CAM logits [B, G, G, L] float32, whose head is
            the layer "cam_logits" (see `spml_tf.networks`).
        num_images: N, number of training images.
        method: a row of `spml_tf.training.methods.METHODS`, alone or with "+cl" or "+scl".
        positives_per_image: K of eq. 3; needed by methods that select, by EPR and by ROLE.
        warmup_epochs: epochs in which only the head is trained; the backbone then runs as in
            inference, its batch normalisation included.
        freeze_batch_norm: keep the batch normalisation of the backbone as it is throughout.
        selection_start_epoch: first epoch with expected positives.
        selection_budget: "all", "unannotated", "global" or each class's share of the images, see
            `selection.expected_positives`.
        consistency_start_epoch: first epoch with the consistency loss.
        consistency_weight: gamma of eq. 8.
        ema_momentum: mu of eq. 4.
        entropy_weight: alpha of the method em.
        large_loss_rate: percent of the labels that ll_r, ll_ct and ll_cp mark, see
            `marking.mark_large_losses`.
        heatmap_size: W, cells per side of the heatmap bank; None means the network's G.
        heatmap_classes: classes of each image whose heatmaps are kept; None means all, see
            `heatmap_bank.CompactHeatmapBank`.
        bank_dtype: "float32", "float16" or "uint8".
        seed: int, of the stochastic rounding of uint8 banks and of ROLE's first estimates.
        train_metrics: whether compiled metrics see training batches too; `MeanAveragePrecision`
            keeps all their scores.

    Raises:
        ValueError: for an unknown method, a missing K or a network without the CAM head.
    """

    supports_jit = False  # tf.image.crop_and_resize has no XLA kernel

    def __init__(
        self,
        network: keras.Model,
        num_images: int,
        method: str = "en+scl",
        positives_per_image: float | None = None,
        *,
        warmup_epochs: int = 0,
        freeze_batch_norm: bool = False,
        selection_start_epoch: int = 2,
        selection_budget: selection.Budget = "all",
        consistency_start_epoch: int = 2,
        consistency_weight: float = 0.25,
        ema_momentum: float = 0.8,
        entropy_weight: float = 0.1,
        large_loss_rate: float = 0.2,
        heatmap_size: int | None = None,
        heatmap_classes: int | None = None,
        bank_dtype: str = "float32",
        seed: int = 0,
        train_metrics: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.row, self.consistency = methods.parse_method(method)
        methods.check_positives_per_image(method, positives_per_image)
        selection.check_budget(selection_budget, network.output_shape[-1])
        self.network, self.method = network, method
        self.positives_per_image = positives_per_image
        self.warmup_epochs = warmup_epochs
        self.freeze_batch_norm = freeze_batch_norm
        self.selection_start_epoch = selection_start_epoch
        self.selection_budget = selection_budget
        self.consistency_start_epoch = consistency_start_epoch
        self.consistency_weight = consistency_weight
        self.entropy_weight = entropy_weight
        self.large_loss_rate = large_loss_rate
        self.train_metrics = train_metrics
        options = {x: getattr(self, x) for x in self.row.options}
        self.classification = self.row.loss(from_logits=True, **options)
        self.num_images, self.num_classes = num_images, network.output_shape[-1]
        self._backbone = BackboneSwitch(network, freeze_batch_norm)
        bank = {"momentum": ema_momentum, "storage": bank_dtype, "seed": seed}
        self.heatmap_size = heatmap_size or network.output_shape[1]
        self.heatmap_classes = heatmap_classes
        self.ema_scores = ema_bank.score_bank(num_images, self.num_classes, **bank)
        self.ema_heatmaps = None
        if self.consistency == "scl":
            self.ema_heatmaps = heatmap_bank.heatmap_bank(
                num_images, self.num_classes, self.heatmap_size, heatmap_classes, **bank
            )
        self._add_state()
        self.built = True

    def _add_state(self) -> None:
        self.epoch = self.add_weight(
            shape=(), dtype="int64", initializer="zeros", name="epoch", trainable=False,
            autocast=False,
        )  # fmt: skip
        self.label_store = LabelStore(
            self.num_images, self.num_classes, self.row.selects, name="label_store"
        )
        self.label_estimates = None
        if self.row.estimates:
            self.label_estimates = LabelEstimates(
                self.num_images, self.num_classes, self.ema_scores.seed, name="label_estimates"
            )
        self.classification_tracker = keras.metrics.Mean("classification_loss")
        self.consistency_tracker = None
        if self.consistency:
            self.consistency_tracker = keras.metrics.Mean("consistency_loss")

    @property
    def labels(self) -> keras.Variable:
        """The training labels, [N, L] int8 in {1, 0, -1, 2}; 2 marks expected positives."""
        return self.label_store.codes

    def call(self, inputs: Any, training: bool = False) -> tf.Tensor:
        """Scores f of images, [B, L] float32 in [0, 1]."""
        image = inputs["image"] if isinstance(inputs, Mapping) else inputs
        return tf.sigmoid(_pooled(self.network(image, training=training)))

    def test_step(self, data: Any) -> dict[str, Any]:
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        image = x["image"] if isinstance(x, Mapping) else x
        logits = _pooled(self.network(image, training=False))
        loss = self._classification_loss(y, logits)
        self._track(tf.shape(y)[0], loss, loss, tf.zeros_like(loss))
        return self.compute_metrics(x, y, tf.sigmoid(logits))

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """`keras.Model.fit`, with the callback that starts each epoch added in front."""
        bound = inspect.signature(super().fit).bind(*args, **kwargs)
        bound.arguments["callbacks"] = with_epoch_start(bound.arguments.get("callbacks"))
        if isinstance(bound.arguments.get("x"), tf.data.Dataset):
            bound.arguments.setdefault("shuffle", False)  # Keras would warn that it does not
        return super().fit(*bound.args, **bound.kwargs)

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        image, box, flip, index = unpack(x)
        codes = self.label_store.remember(index, y)
        scores_before = self.ema_scores.read(index)  # t-1: read before this step writes
        with tf.GradientTape() as tape:
            logits = self.network(image, training=True)
            maps = tf.sigmoid(logits)
            pooled = _pooled(logits)
            scores = tf.sigmoid(pooled)
            codes = self._mark(index, codes, pooled)
            classification = self._training_loss(index, codes, pooled)
            consistency = self._consistency_loss(maps, scores, scores_before, (index, box, flip))
            active = tf.cast(self.epoch.value >= self.consistency_start_epoch, tf.float32)
            loss = classification + active * self.consistency_weight * consistency  # eq. 8
            # Gradients are summed over replicas.
            scaled = self.optimizer.scale_loss(loss / self.distribute_strategy.num_replicas_in_sync)
        self._track(tf.shape(y)[0], loss, classification, consistency)
        variables = self.trainable_variables
        gradients = tape.gradient(scaled, variables)  # that of ROLE's estimates is sparse
        self.optimizer.apply(
            [x if x is None else tf.convert_to_tensor(x) for x in gradients], variables
        )
        self.ema_scores.write(index, scores)  # eq. 4
        if self.ema_heatmaps is not None:
            average, _ = self.ema_scores.read(index)
            self.ema_heatmaps.update(maps, index, box, flip, average, codes)
        if not self.train_metrics:
            y, scores = y[:0], scores[:0]  # Keras wants every metric to be called
        return self.compute_metrics(x, y, scores)

    def _classification_loss(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        # A Keras loss has divided its mean by the number of replicas.
        return self.classification(labels, logits) * self.distribute_strategy.num_replicas_in_sync

    def _training_loss(self, index: tf.Tensor, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        if self.label_estimates is None:
            return self._classification_loss(labels, logits)
        return self.label_estimates.loss(index, labels, logits, self.positives_per_image)

    def _mark(self, index: tf.Tensor, codes: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """The labels with the marks that a rule of the method sets in this batch."""
        if self.row.marks is None:
            return codes
        codes = self.row.marks(
            codes, tf.stop_gradient(logits), self.epoch.value, self.large_loss_rate
        )
        if self.row.keeps_marks:
            self.label_store.write(index, codes)
        return codes

    def _consistency_loss(
        self, maps: tf.Tensor, scores: tf.Tensor, scores_before: Any, where: Any
    ) -> tf.Tensor:
        if self.consistency == "cl":
            return losses.score_consistency(scores, *scores_before)
        if self.consistency == "scl":
            return self.ema_heatmaps.consistency(maps, *where)
        return tf.constant(0.0)

    def _track(self, size: Any, loss: Any, classification: Any, consistency: Any) -> None:
        self._loss_tracker.update_state(loss, sample_weight=size)
        self.classification_tracker.update_state(classification, sample_weight=size)
        if self.consistency_tracker is not None:
            self.consistency_tracker.update_state(consistency, sample_weight=size)

    def begin_epoch(self, epoch: int) -> None:
        """Prepares an epoch, counted from 1: freezes or thaws the backbone, selects.

        `fit` calls it; a training loop of your own calls it at the start of each epoch.
        """
        self.epoch.assign(epoch)
        if not self.optimizer.built:
            self._set_backbone_trainable(True)  # so that the optimizer knows every variable
            self.optimizer.build(self.trainable_variables)
        self._set_backbone_trainable(epoch > self.warmup_epochs)
        # Banks that are filled before the first epoch are an earlier run's: their choice stands
        # until this run's own scores can be trusted.
        filled = epoch == 1 and self.ema_scores.visited.numpy().any()
        if self.row.selects and (filled or epoch >= self.selection_start_epoch):
            self.select_expected_positives()

    def _set_backbone_trainable(self, trainable: bool) -> None:
        if self._backbone.turn(trainable) and self.train_function is not None:
            self.make_train_function(force=True)

    def select_expected_positives(self) -> None:
        """Chooses the expected positives from the score bank, see `LabelStore.select`."""
        self.label_store.select(self.ema_scores, self.positives_per_image, self.selection_budget)

    def set_labels(self, labels: np.ndarray) -> None:
        """Stores all training labels at once, [N, L] in {1, 0, -1}.

        Without it labels enter as batches come: then banks of an earlier run cannot select in the
        first epoch, and ROLE's estimates start as if no label were known.
        """
        self.labels.assign(labels.astype(np.int8))
        if self.label_estimates is not None:
            self.label_estimates.start(labels)

    def load_banks(self, path: str) -> None:
        """Starts the banks from those of an earlier run on the same images.

        The expected positives are then chosen once before the first epoch, and again in each epoch
        from `selection_start_epoch` on.

        Args:
            path: the earlier run's checkpoint, a .weights.h5 written by `save_weights`.

        Raises:
            ValueError: where a bank of the checkpoint has another shape or dtype than this model's.
        """
        ema_bank.load_all(path, [x for x in (self.ema_scores, self.ema_heatmaps) if x is not None])

    def get_config(self) -> dict[str, Any]:
        names = (
            "num_images", "method", "positives_per_image", "warmup_epochs", "freeze_batch_norm",
            "selection_start_epoch", "selection_budget", "consistency_start_epoch",
            "consistency_weight", "entropy_weight", "large_loss_rate", "heatmap_size",
            "heatmap_classes", "train_metrics",
        )  # fmt: skip
        bank = self.ema_scores
        return {
            **{name: getattr(self, name) for name in names},
            "network": keras.saving.serialize_keras_object(self.network),
            "ema_momentum": bank.momentum,
            "bank_dtype": bank.storage,
            "seed": bank.seed,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> SPMLModel:
        network = keras.saving.deserialize_keras_object(config.pop("network"), custom_objects)
        return cls(network, **config)


def _pooled(logits: tf.Tensor) -> tf.Tensor:
    """Logits of f: the mean of F over the grid, [B, L]."""
    return tf.reduce_mean(logits, axis=(1, 2))
