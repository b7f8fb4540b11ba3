"""Banks of heatmaps: what SCL compares a crop's maps with, and how they follow the network (eq. 7).

`HeatmapBank` keeps every class of every image. `CompactHeatmapBank` keeps the few classes of each
image that matter: with the 1,281,167 images and 1,000 classes of ImageNet and 7 x 7 cells, all of
them are 63 GB even as bytes, eight an image are 0.5 GB and 0.06 GB for the marks.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from spml_tf import losses
from spml_tf.banks import warping
from spml_tf.banks.ema_bank import EMABank
from spml_tf.banks.image_tables import ImageTable
from spml_tf.labels import POSITIVE
from spml_tf.system.replicas import once_a_process


@keras.saving.register_keras_serializable("spml_tf")
class HeatmapBank(EMABank):
    """H of eq. 7 for all classes: values [N, W, W, L], W = `grid`. Arguments as for `EMABank`."""

    def __init__(self, num_images: int, num_classes: int, grid: int, **kwargs: Any) -> None:
        super().__init__(num_images, num_classes, grid, **{"name": "ema_heatmaps", **kwargs})

    def consistency(
        self,
        maps: tf.Tensor,
        index: tf.Tensor,
        box: tf.Tensor,
        flip: tf.Tensor,
        weights: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """SCL of a batch, eq. 7, against the bank before this step's update.

        Args:
            maps: [B, G, G, L] float32 in [0, 1], sigmoid(F) in the frame of the crop, with
                gradient.
            index: [B] int64, rows of the images.
            box: [B, 4] float32, the crops.
            flip: [B] bool.
            weights: [B, L] float32, factors of the distances; None means 1.

        Returns:
            scalar float32, 0 where nothing has been visited.
        """
        known = self.read(index)
        target = warping.masked_to_crop_frame(*known, box, flip, tf.shape(maps)[1])
        return losses.spatial_consistency(maps, *target, weights=weights)

    def update(
        self,
        maps: tf.Tensor,
        index: tf.Tensor,
        box: tf.Tensor,
        flip: tf.Tensor,
        scores: tf.Tensor | None,
        codes: tf.Tensor,
    ) -> None:
        """Moves the bank towards a batch's maps in the cells that the crops cover.

        Args:
            maps: [B, G, G, L] float32, as for `consistency`.
            index: [B] int64, as for `consistency`.
            box: [B, 4] float32, as for `consistency`.
            flip: [B] bool, as for `consistency`.
            scores: [B, L] float32, the images' average scores s^t, or None.
            codes: [B, L] int8, their labels in {1, 0, -1, 2}. Scores and labels matter to a bank
                that keeps some of the classes only.
        """
        values, inside = warping.to_image_frame(maps, box, flip, self.grid)
        self.write(index, values, inside)

    def all_classes(self, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The maps of some images by class, whatever the bank keeps of them.

        Args:
            index: [B] int64, in [0, N).

        Returns:
            maps: [B, W, W, L] float32 in [0, 1].
            visited: [B, W, W, L] bool; what the others hold means nothing.
        """
        values, visited = self.read(index)
        return values, tf.broadcast_to(visited[..., None], tf.shape(values))


@keras.saving.register_keras_serializable("spml_tf")
class CompactHeatmapBank(HeatmapBank):
    """H of eq. 7 for a few classes of each image (ours).

    At each visit of an image the classes of its annotated positives and then those of highest
    average score are kept. A class that comes anew begins with its first visit, as the cells of a
    dense bank do; one that goes is forgotten. SCL counts the classes that are kept, and is divided
    by L as the dense one is: with k = L the two are equal.

    Args:
        num_images: N.
        num_classes: L.
        grid: W.
        kept: k, classes an image; at most L are kept.
        kwargs: as for `EMABank`.

    Attributes:
        values: weight [N, W, W, k] of dtype `storage`.
        visited: [N, W, W, k] bool, an `image_tables.PackedTable`.
        classes: [N, k] int32, an `image_tables.ImageTable`: the classes that are kept, -1 before
            the first visit.
    """

    def __init__(
        self, num_images: int, num_classes: int, grid: int, kept: int, **kwargs: Any
    ) -> None:
        self.kept = min(kept, num_classes)
        super().__init__(num_images, num_classes, grid, **kwargs)

    def add_state(self) -> None:
        cells = (self.grid, self.grid, self.kept)
        self.add_averages(cells, cells)
        # In host memory: scatter has no int32 kernel on GPUs.
        shape = (self.num_images, self.kept)
        self.classes = self.keep(
            ImageTable(self, shape, "int32", "classes", -1, directory=self.directory)
        )

    def consistency(
        self,
        maps: tf.Tensor,
        index: tf.Tensor,
        box: tf.Tensor,
        flip: tf.Tensor,
        weights: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """SCL over the classes that are kept; arguments and result as in `HeatmapBank`."""
        classes = self.classes.gather(index)
        own = _of_classes(maps, classes)
        if weights is not None:
            weights = tf.gather(weights, tf.maximum(classes, 0), axis=1, batch_dims=1)
        target = warping.masked_to_crop_frame(*self.read(index), box, flip, tf.shape(maps)[1])
        return losses.sparse_spatial_consistency(own, *target, self.num_classes, weights=weights)

    def update(
        self,
        maps: tf.Tensor,
        index: tf.Tensor,
        box: tf.Tensor,
        flip: tf.Tensor,
        scores: tf.Tensor | None,
        codes: tf.Tensor,
    ) -> None:
        """Chooses the classes to keep and moves their maps; arguments as in `HeatmapBank`.

        Raises:
            ValueError: without scores.
        """
        if scores is None:
            raise ValueError("a bank of some of the classes chooses them by scores; found None")
        rank = scores + 2.0 * tf.cast(codes == POSITIVE, scores.dtype)
        classes = tf.math.top_k(rank, self.kept).indices
        new, inside = warping.to_image_frame(_of_classes(maps, classes), box, flip, self.grid)
        once_a_process(self._update, index, classes, new, inside)

    def _update(
        self, index: tf.Tensor, classes: tf.Tensor, new: tf.Tensor, inside: tf.Tensor
    ) -> None:
        same = classes[:, :, None] == self.classes.gather(index)[:, None, :]
        slot = tf.argmax(same, axis=2)  # where a class was kept so far
        was_kept = tf.reduce_any(same, axis=2)[:, None, None, :]
        stored = _of_classes(self.table.gather(index), slot)
        visited = _of_classes(self.read_visited(index), slot) & was_kept
        inside = inside[..., None]
        self.scatter(index, self.moved(index, stored, visited, new, inside), visited | inside)
        self.classes.scatter(index, classes)

    def all_classes(self, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """As in `HeatmapBank`; the classes that are not kept count as not visited."""
        values, visited = self.read(index)
        # -1, of images never visited, is no class: its row of one_hot is zero.
        places = tf.one_hot(self.classes.gather(index), self.num_classes)
        maps = tf.einsum("bhwk,bkl->bhwl", values, places)
        return maps, tf.einsum("bhwk,bkl->bhwl", tf.cast(visited, tf.float32), places) > 0.5

    def taken_over(self) -> dict[str, ImageTable]:
        return {**super().taken_over(), "3": self.classes}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "kept": self.kept}


def heatmap_bank(
    num_images: int, num_classes: int, grid: int, kept: int | None = None, **kwargs: Any
) -> HeatmapBank:
    """The bank for all classes, or for the `kept` of each image. Arguments as for the classes."""
    if kept is None:
        return HeatmapBank(num_images, num_classes, grid, **kwargs)
    return CompactHeatmapBank(num_images, num_classes, grid, kept, **kwargs)


def _of_classes(maps: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
    """Maps [B, H, W, k] of classes [B, k] out of maps [B, H, W, L]; class -1 yields any."""
    return tf.gather(maps, tf.maximum(classes, 0), axis=3, batch_dims=1)
