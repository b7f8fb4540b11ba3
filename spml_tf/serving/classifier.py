"""A network that predicts on photos, with the names and thresholds of its classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from spml_tf.datasets.encoded_images import BrokenImageError
from spml_tf.datasets.images import resize
from spml_tf.datasets.picture_limits import MAX_MEGAPIXELS
from spml_tf.serving.photos import Photo, PhotosLike, photos_of
from spml_tf.serving.predictions import Predictions
from spml_tf.system.errors import UserError


class Passed(NamedTuple):
    """A photo that has passed the network.

    Attributes:
        name: its name.
        kept: what `Classifier.passes` was told to keep of its pixels.
        scores: [L] float32 in [0, 1].
        heatmaps: [G, G, L] float32 in [0, 1].
    """

    name: str
    kept: Any
    scores: NDArray[np.float32]
    heatmaps: NDArray[np.float32]


class Classifier:
    """Predicts on photos; `load_run` and `load` make one.

    Args:
        maps: images float32 [B, S, S, 3] in 0..255 -> class activation maps [B, G, G, L] float32,
            logits.
        class_names: L names.
        thresholds: [L] float64; score >= threshold decides for a class.
        image_size: S.
        max_megapixels: the most pixels, in millions, of a file that is read.
        calibration: "none", "temperature" or "platt": how the scores are calibrated.

    Attributes:
        class_names: as above.
        thresholds: as above.
        image_size: as above.
        max_megapixels: as above.
        calibration: as above.

    Examples:
        >>> def grey(images):  # one class: how far the photo is brighter than grey
        ...     return images.mean(axis=-1, keepdims=True) / 51 - 2.5
        >>> classifier = Classifier(grey, ["bright"], np.array([0.5]), image_size=2)
        >>> photos = [np.full((3, 5, 3), 255, np.uint8), np.zeros((2, 2, 3), np.uint8)]
        >>> found = classifier.predict(photos)
        >>> found.scores.astype(float).round(3).tolist(), found.decisions.tolist()
        ([[0.924], [0.076]], [[True], [False]])
        >>> found.heatmaps.shape
        (2, 2, 2, 1)
    """

    def __init__(
        self,
        maps: Callable[[NDArray[np.float32]], Any],
        class_names: Sequence[str],
        thresholds: NDArray[np.float64],
        image_size: int,
        max_megapixels: float = MAX_MEGAPIXELS,
        calibration: str = "none",
    ) -> None:
        self._maps = maps
        self.class_names = tuple(class_names)
        self.thresholds = thresholds
        self.image_size = image_size
        self.max_megapixels = max_megapixels
        self.calibration = calibration

    def from_pixels(
        self, images: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What one pass of the network says of images that have its size.

        Args:
            images: [B, S, S, 3] in 0..255, as `images.resize` makes them.

        Returns:
            Probabilities [B, L], and heatmaps [B, G, G, L] in [0, 1], sigmoid(F), both float32.
        """
        maps = self._maps(images)
        return tf.sigmoid(tf.reduce_mean(maps, axis=(1, 2))).numpy(), tf.sigmoid(maps).numpy()

    def passes(
        self,
        photos: Sequence[Photo],
        broken: Callable[[str, str], None],
        keep: Callable[[NDArray[np.uint8]], Any] | None = None,
        max_megapixels: float | None = None,
    ) -> Iterator[Passed]:
        """One pass of the network over a batch of photos.

        Args:
            photos: the batch.
            broken: called with name and reason of each photo that cannot be read, and is left out.
            keep: what is wanted of the pixels, uint8 [H, W, 3].
            max_megapixels: in place of the classifier's own.

        Yields:
            The photos that can be read, in order.
        """
        names, kept, inputs = [], [], []
        for photo in photos:
            try:
                pixels = photo.read(max_megapixels or self.max_megapixels)
            except BrokenImageError as error:
                broken(photo.name, str(error))
                continue
            names.append(photo.name)
            inputs.append(resize(tf.constant(pixels), self.image_size).numpy())
            kept.append(keep(pixels) if keep else None)
        if names:
            yield from map(Passed, names, kept, *self.from_pixels(np.stack(inputs)))

    def predict(
        self, images: PhotosLike, batch_size: int = 16, skip_broken: bool = False
    ) -> Predictions:
        """Scores and decisions of photos, the numbers of `python -m spml_tf.predict`.

        Args:
            images: a path of a file or a folder (whose image files are taken, those of the folders
                in it too), a pattern such as "photos/*.jpg", pixels in RGB, uint8 [H, W, 3] or
                [N, H, W, 3], or a sequence of paths and of pixels [H, W, 3] of any sizes.
            batch_size: photos at a time.
            skip_broken: leave files that are no images out, named in `left_out` of the result.

        Raises:
            UserError: a path leads to no file; a file cannot be read as an image, or with
                `skip_broken` none can.
            ValueError: there are no images, an array has another shape or type, or `batch_size` is
                below 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1. Received: {batch_size}")
        photos = photos_of(images)
        left_out: dict[str, str] = {}

        def every(chosen: Sequence[Photo], broken: Callable[[str, str], None]) -> Iterator[Passed]:
            for start in range(0, len(chosen), batch_size):
                yield from self.passes(chosen[start : start + batch_size], broken)

        broken = left_out.__setitem__ if skip_broken else _refuse
        found = [(passed.name, passed.scores) for passed in every(photos, broken)]
        if not found:
            raise UserError(f"{photos[0].name}: no file can be read as an image")
        names, scores = zip(*found, strict=True)
        read = [photo for photo in photos if photo.name not in left_out]

        def heatmaps() -> NDArray[np.float32]:
            return np.stack([passed.heatmaps for passed in every(read, _refuse)])

        return Predictions(
            names, self.class_names, np.stack(scores), self.thresholds, left_out, heatmaps
        )


def _refuse(name: str, reason: str) -> None:
    raise UserError(
        f"{name}: cannot be read as an image ({reason}); skip_broken=True leaves such files out"
    )
