"""Keeps the heatmaps of a few training images after each epoch, and shows them in TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from spml_tf.banks.image_tables import ImageTable
from spml_tf.datasets import pipeline
from spml_tf.datasets.readers import Examples
from spml_tf.datasets.splits import Splits
from spml_tf.runs import heatmap_history
from spml_tf.runs.run_folder import RunFolder
from spml_tf.runs.settings import Settings
from spml_tf.system import replicas
from spml_tf.training.label_store import merged_marks

# TensorBoard gets the maps of so many epochs, evenly spaced, and of so many classes an image.
_SHOWN_EPOCHS, _SHOWN_CLASSES = 20, 3


class HeatmapRecorder(keras.callbacks.Callback):
    """Writes the run's heatmaps.npz after each epoch, see `heatmap_history.Snapshots`.

    The maps are the bank's. A method without a heatmap bank has none that grow; there they are
    those that the network, as it is after the epoch, makes of the whole images. Pictures of them go
    to TensorBoard, for at most 20 epochs.

    It stands before `RunRecorder`, whose checkpoint counts: what a killed process wrote after it is
    cut off when the run resumes.

    Args:
        run: the folder.
        examples: the training images.
        images: rows of those to record, at least one.
        observed: [N, L] int8 in {1, 0, -1}, the labels trained on.
        batch_size: how many of them the network gets at a time.
    """

    def __init__(
        self,
        run: RunFolder,
        examples: Examples,
        images: Sequence[int],
        observed: NDArray[np.int8],
        batch_size: int,
    ) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.run, self.examples, self.images = run, examples.subset(images), list(images)
        self.observed = observed[list(images)]

    def on_train_begin(self, logs: Any = None) -> None:
        """Reads the images, and what an interrupted run has recorded.

        Raises:
            UserError: a heatmaps.npz is there and cannot be read.
        """
        self.inputs = self._read_images()
        if self.model.shard.worker == 0:
            folder = self.run.tensorboard / "heatmaps"
            self.events = tf.summary.create_file_writer(str(folder))
        resumed = int(self.model.epoch.numpy()) and self.run.heatmaps.exists()
        self.found = heatmap_history.read(self.run.heatmaps) if resumed else self._empty()

    def _read_images(self) -> list[NDArray[np.float32]]:
        """Batches of [B, S, S, 3] float32 in 0..255, whole images at the network's size."""
        size = self.model.network.input_shape[1]
        data = pipeline.evaluation_dataset(
            self.examples, self.examples.labels, image_size=size, batch_size=self.batch_size
        )
        return [inputs["image"].numpy() for inputs, _ in data]

    def _empty(self) -> heatmap_history.Snapshots:
        bank = self.model.ema_heatmaps
        source = heatmap_history.NETWORK if bank is None else heatmap_history.BANK
        grid = self.model.network.output_shape[1] if bank is None else bank.grid
        names = self.examples.names, self.examples.class_names
        return heatmap_history.empty(source, self.images, *names, grid)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        scores, codes, maps = self._scores(), self._codes(), self._maps()
        self.found = self.found.until(epoch).extended(epoch + 1, maps, scores, codes)
        if self.model.shard.worker:
            return
        self.found.write(self.run.heatmaps)
        every = -(-self.params["epochs"] // _SHOWN_EPOCHS)
        if epoch == 0 or (epoch + 1) % every == 0:
            self._show(epoch + 1)

    def _scores(self) -> NDArray[np.float32]:
        """[I, L] float32, the running averages, or the network's own where there are none."""
        bank = self.model.ema_scores
        if bank is None:
            found: NDArray[np.float32] = self._network(pooled=True)
            return found
        return self._kept(lambda index: bank.read(index)[0].numpy())

    def _codes(self) -> NDArray[np.int8]:
        """[I, L] int8, the labels with their marks."""

        def codes_of(table: ImageTable) -> NDArray[np.int8]:
            kept = self._kept(lambda index: table.gather(index).numpy().astype(np.int64))
            return kept.astype(np.int8)

        stores = [codes_of(table) for table in self.model.kept_labels]
        return merged_marks(stores) if stores else self.observed

    def _maps(self) -> NDArray[np.float32]:
        """[I, W, W, L] float32, NaN where there is none."""
        bank = self.model.ema_heatmaps
        if bank is None:
            return self._network(pooled=False)
        maps = self._kept(lambda index: bank.all_classes(index)[0].numpy())
        visited = self._kept(lambda index: bank.all_classes(index)[1].numpy().astype(np.int64))
        return np.where(visited > 0, maps, np.nan).astype(np.float32)

    def _network(self, pooled: bool) -> NDArray[np.float32]:
        """What the network makes of the whole images: scores [I, L], or maps."""
        outputs = self.model if pooled else self.model.network
        found = np.concatenate([outputs(batch, training=False) for batch in self.inputs])
        return found if pooled else tf.sigmoid(found).numpy()

    def _kept(self, read: Callable[[tf.Tensor], NDArray[Any]]) -> NDArray[Any]:
        """What tables hold of the images, of whichever worker keeps them."""
        worker, workers = self.model.shard
        images = np.array(self.images)
        own = images % workers == worker
        rows = read(tf.constant(images[own] // workers, tf.int64))
        whole = np.zeros((len(images), *rows.shape[1:]), rows.dtype)
        whole[own] = rows
        with self.model.distribute_strategy.scope():
            return replicas.sum_of_workers(whole)

    def _show(self, epoch: int) -> None:
        """A strip for each image: the photo and the maps of its classes of highest score."""
        # It imports matplotlib, which must not keep the first step waiting.
        from spml_tf.drawing import overlays

        photos = np.concatenate(self.inputs).astype(np.uint8)
        maps, scores = self.found.maps[-1].astype(np.float32), self.found.scores[-1]
        with self.events.as_default(step=epoch):
            for row, name in enumerate(self.examples.names):
                best = np.argsort(-scores[row], kind="stable")[:_SHOWN_CLASSES]
                titles = [f"{self.examples.class_names[c]}: {scores[row, c]:.2f}" for c in best]
                strip = overlays.strip(photos[row], maps[row][..., best], titles)
                tf.summary.image(name, strip[None])
        self.events.flush()


def recorders(
    run: RunFolder, settings: Settings, data: Splits, bank: bool
) -> list[HeatmapRecorder]:
    """The callback that --record_heatmaps asks for; an empty list where it asks for none.

    Args:
        run: the folder.
        settings: of the run.
        data: of the run.
        bank: whether the method has a heatmap bank.

    Raises:
        UserError: it names an image that is not there, or too many.
    """
    images = heatmap_history.images_to_record(
        settings.record_heatmaps, data.train.names, data.observed, bank
    )
    if not images:
        return []
    return [HeatmapRecorder(run, data.train, images, data.observed, settings.batch_size)]
