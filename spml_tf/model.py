"""Training of a network of class activation maps with eq. 8, as a Keras model."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import h5py
import keras
import numpy as np
import tensorflow as tf

from spml_tf import banks, boxes, losses, targets
from spml_tf.callbacks import EpochStart
from spml_tf.labels import EXPECTED, UNKNOWN
from spml_tf.networks import backbone_layers
from spml_tf.pipeline import unpack


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
        method: a row of `spml_tf.losses.METHODS`, alone or with "+cl" or "+scl".
        positives_per_image: K of eq. 3; needed by methods that select.
        warmup_epochs: epochs in which only the head is trained; the backbone then runs as in
            inference, its batch normalisation included.
        freeze_batch_norm: keep the batch normalisation of the backbone as it is throughout.
        selection_start_epoch: first epoch with expected positives.
        selection_budget: "all" or "unannotated", see `targets.expected_positives`.
        consistency_start_epoch: first epoch with the consistency loss.
        consistency_weight: gamma of eq. 8.
        ema_momentum: mu of eq. 4.
        heatmap_size: W, cells per side of the heatmap bank; None means the network's G.
        bank_dtype: "float32", "float16" or "uint8".
        seed: int, of the stochastic rounding of uint8 banks.

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
        selection_budget: str = "all",
        consistency_start_epoch: int = 2,
        consistency_weight: float = 0.25,
        ema_momentum: float = 0.8,
        heatmap_size: int | None = None,
        bank_dtype: str = "float32",
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        row, self.consistency = losses.parse_method(method)
        if row.selects and not positives_per_image:
            raise ValueError(
                f"method {method!r} selects expected positives and needs positives_per_image, the "
                "mean number of true positives per training image (count 50 images to estimate it)"
            )
        if selection_budget not in targets.BUDGETS:
            raise ValueError(
                f"selection_budget must be one of {targets.BUDGETS}. Got {selection_budget!r}"
            )
        self.network = network
        self.method = method
        self.positives_per_image = positives_per_image
        self.warmup_epochs = warmup_epochs
        self.freeze_batch_norm = freeze_batch_norm
        self.selection_start_epoch = selection_start_epoch
        self.selection_budget = selection_budget
        self.consistency_start_epoch = consistency_start_epoch
        self.consistency_weight = consistency_weight
        self.selects = row.selects
        self.classification = row.loss()
        self.num_images, self.num_classes = num_images, network.output_shape[-1]
        self._find_backbone()
        bank = {"momentum": ema_momentum, "storage": bank_dtype, "seed": seed}
        self.heatmap_size = heatmap_size or network.output_shape[1]
        self.ema_scores = banks.score_bank(num_images, self.num_classes, **bank)
        self.ema_heatmaps = None
        if self.consistency == "scl":
            self.ema_heatmaps = banks.heatmap_bank(
                num_images, self.num_classes, grid=self.heatmap_size, **bank
            )
        self._add_state()
        self.built = True

    def _find_backbone(self) -> None:
        """Notes the layers that warm-up freezes, and freezes batch normalisation if asked to."""
        layers = backbone_layers(self.network)
        for layer in layers:
            if self.freeze_batch_norm and isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False
        # Their ids: Keras would track layers that stand in an attribute as this model's own.
        self._thawable = frozenset(id(layer) for layer in layers if layer.trainable)

    def _add_state(self) -> None:
        state = {"trainable": False, "autocast": False}
        self.epoch = self.add_weight(
            shape=(), dtype="int64", initializer="zeros", name="epoch", **state
        )
        self.labels = self.add_weight(
            shape=(self.num_images, self.num_classes),
            dtype="int8",
            initializer=keras.initializers.Constant(UNKNOWN),
            name="labels",
            **state,
        )
        self.classification_tracker = keras.metrics.Mean(name="classification_loss")
        self.consistency_tracker = None
        if self.consistency:
            self.consistency_tracker = keras.metrics.Mean(name="consistency_loss")

    # -- evaluation and prediction ---------------------------------------------------------------

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

    # -- training --------------------------------------------------------------------------------

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """`keras.Model.fit`, with the callback that starts each epoch added in front."""
        bound = inspect.signature(super().fit).bind(*args, **kwargs)
        given = bound.arguments.get("callbacks")
        if isinstance(given, keras.callbacks.CallbackList):
            given.append(EpochStart())
        else:
            given = [given] if isinstance(given, keras.callbacks.Callback) else list(given or [])
            bound.arguments["callbacks"] = [EpochStart(), *given]
        if isinstance(bound.arguments.get("x"), tf.data.Dataset):
            bound.arguments.setdefault("shuffle", False)  # Keras would warn that it does not
        return super().fit(*bound.args, **bound.kwargs)

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        image, box, flip, index = unpack(x)
        codes = self._remember_labels(index, y)
        scores_before = self.ema_scores.read(index)  # t-1: read before this step writes
        with tf.GradientTape() as tape:
            logits = self.network(image, training=True)
            maps = tf.sigmoid(logits)
            pooled = _pooled(logits)
            scores = tf.sigmoid(pooled)
            classification = self._classification_loss(codes, pooled)
            consistency = self._consistency_loss(maps, scores, scores_before, (index, box, flip))
            loss = classification + self._gamma() * consistency  # eq. 8
            # Gradients are summed over replicas.
            scaled = self.optimizer.scale_loss(loss / self.distribute_strategy.num_replicas_in_sync)
        self._track(tf.shape(y)[0], loss, classification, consistency)
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(scaled, variables), variables)
        self.ema_scores.write(index, scores)  # eq. 4
        if self.ema_heatmaps is not None:
            values, inside = boxes.to_image_frame(maps, box, flip, self.heatmap_size)
            self.ema_heatmaps.write(index, values, inside)
        return self.compute_metrics(x, y, scores)

    def _classification_loss(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        # A Keras loss has divided its mean by the number of replicas.
        return self.classification(labels, logits) * self.distribute_strategy.num_replicas_in_sync

    def _gamma(self) -> tf.Tensor:
        active = self.epoch.value >= self.consistency_start_epoch
        return tf.cast(active, tf.float32) * self.consistency_weight

    def _consistency_loss(
        self, maps: tf.Tensor, scores: tf.Tensor, scores_before: Any, where: Any
    ) -> tf.Tensor:
        if self.consistency == "cl":
            return losses.score_consistency(scores, *scores_before)
        if self.consistency == "scl":
            index, box, flip = where
            known = self.ema_heatmaps.read(index)
            target = boxes.masked_to_crop_frame(*known, box, flip, tf.shape(maps)[1])
            return losses.spatial_consistency(maps, *target)
        return tf.constant(0.0)

    def _remember_labels(self, index: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Stores the batch's labels, keeping the marks of expected positives; returns both."""
        y = tf.cast(y, tf.int8)
        expected = (tf.gather(self.labels.value, index) == EXPECTED) & (y == UNKNOWN)
        codes = tf.where(expected, tf.constant(EXPECTED, tf.int8), y)
        every_index, every_code = banks.from_all_replicas(index, codes)
        self.labels.value.scatter_update(tf.IndexedSlices(every_code, every_index))
        return codes

    def _track(self, size: Any, loss: Any, classification: Any, consistency: Any) -> None:
        self._loss_tracker.update_state(loss, sample_weight=size)
        self.classification_tracker.update_state(classification, sample_weight=size)
        if self.consistency_tracker is not None:
            self.consistency_tracker.update_state(consistency, sample_weight=size)

    # -- epochs and selection --------------------------------------------------------------------

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
        if self.selects and (filled or epoch >= self.selection_start_epoch):
            self.select_expected_positives()

    def _set_backbone_trainable(self, trainable: bool) -> None:
        layers = [x for x in backbone_layers(self.network) if id(x) in self._thawable]
        changed = [layer for layer in layers if layer.trainable != trainable]
        for layer in changed:
            layer.trainable = trainable
        if changed and self.train_function is not None:
            self.make_train_function(force=True)

    def select_expected_positives(self) -> None:
        """Chooses the expected positives (zhat of eq. 5) from the score bank and saves the choice.

        Only images that were visited take part: N of eq. 3 is their number.
        """
        seen = self.ema_scores.visited.numpy()
        labels = np.array(self.labels.numpy())
        labels[labels == EXPECTED] = UNKNOWN
        scores = self.ema_scores.values.numpy()[seen]
        chosen = targets.expected_positives(
            scores, labels[seen], self.positives_per_image, self.selection_budget
        )
        labels[seen] = np.where(chosen, np.int8(EXPECTED), labels[seen])
        self.labels.assign(labels)

    def set_labels(self, labels: np.ndarray) -> None:
        """Stores all training labels at once, [N, L] in {1, 0, -1}; needed with `load_banks`.

        Without it labels enter as batches come, so that the first epoch cannot select.
        """
        self.labels.assign(labels.astype(np.int8))

    def load_banks(self, path: str) -> None:
        """Starts the banks from those of an earlier run on the same images.

        The expected positives are then chosen once before the first epoch, and again in each epoch
        from `selection_start_epoch` on.

        Args:
            path: the earlier run's checkpoint, a .weights.h5 written by `save_weights`.

        Raises:
            ValueError: where a bank of the checkpoint has another shape or dtype than this model's.
        """
        with h5py.File(path) as file:
            for bank in (self.ema_scores, self.ema_heatmaps):
                if bank is not None and bank.name in file:
                    bank.load_saved(file[bank.name]["vars"], path)

    def get_config(self) -> dict[str, Any]:
        names = (
            "num_images", "method", "positives_per_image", "warmup_epochs", "freeze_batch_norm",
            "selection_start_epoch", "selection_budget", "consistency_start_epoch",
            "consistency_weight", "heatmap_size",
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
        network = keras.saving.deserialize_keras_object(
            config.pop("network"), custom_objects=custom_objects
        )
        return cls(network, **config)


def _pooled(logits: tf.Tensor) -> tf.Tensor:
    """Logits of f: the mean of F over the grid, [B, L]."""
    return tf.reduce_mean(logits, axis=(1, 2))
