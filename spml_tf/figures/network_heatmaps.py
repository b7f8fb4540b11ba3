"""Heatmaps that networks make of photos, drawn over them.

Models and images are what `spml_tf.evaluation.predictions` and `image_batches` take.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from spml_tf.datasets import encoded_images
from spml_tf.datasets.readers import Examples
from spml_tf.datasets.stored_pixels import with_upright_boxes
from spml_tf.drawing.contact_sheet import reduced
from spml_tf.evaluation import predictions
from spml_tf.evaluation.image_batches import Images, batches
from spml_tf.figures import heatmap_figures
from spml_tf.figures.heatmap_figures import Heatmaps, Picture
from spml_tf.labels import UNKNOWN, validate_labels
from spml_tf.system.errors import UserError

_SIDE = 320  # the longest side of a photo in a figure, in pixels


def draw_heatmaps(
    models: keras.Model | Mapping[str, keras.Model],
    images: Images,
    class_names: Sequence[str],
    names: Sequence[str] | None = None,
    *,
    labels: ArrayLike | None = None,
    top: int = 4,
    title: str = "Heatmaps of the classes of highest score",
    image_size: int | None = None,
    batch_size: int = 32,
) -> Figure:
    """Draws photos and beside each its heatmaps, of one network or of several.

    Of one network those of the classes of highest score (Fig. 2 of Verelst et al., WACV 2023); of
    several a line each with the same classes, the labelled ones first (Fig. 4).

    Args:
        models: a network of CAM logits or an `SPMLModel`; or several by name.
        images: a few photos.
        class_names: L names.
        names: of the photos; None: those of Examples, else "image 0" and so on.
        labels: [N, L] in {1, 0, -1}, told above each heatmap; None: those of Examples, else
            nothing is told.
        top: classes a photo.
        title: drawn above.
        image_size: side of the network's input in pixels; None: what the network is built for.
        batch_size: images at a time.

    Returns:
        The figure; `figure.savefig("heatmaps.png")` writes it, and it is shown as it is in a
        notebook.

    Raises:
        ValueError: parts that do not fit together, or as `predictions.predict_scores`.
        UserError: an image file cannot be decoded.

    Examples:
        A network whose logits are a pixel's red and green:

        >>> import keras, numpy as np
        >>> from spml_tf.figures.network_heatmaps import draw_heatmaps
        >>> image = keras.Input((2, 2, 3))
        >>> network = keras.Model(image, image[..., :2] / 51 - 2)
        >>> photo = np.zeros((2, 2, 3), np.uint8)
        >>> photo[..., 0] = 255
        >>> figure = draw_heatmaps(network, [photo], ["red", "green"])
        >>> [axis.get_title() for axis in figure.axes[:3]]
        ['image 0', 'red: 0.95', 'green: 0.12']
    """
    if top < 1:
        raise ValueError(f"top={top}: must be at least 1")
    by_model = models if isinstance(models, Mapping) else {"": models}
    for model in by_model.values():
        classes = predictions.network_of(model).output_shape[-1]
        if classes != len(class_names):
            raise ValueError(f"{len(class_names)} class names, the network has {classes} classes")
    images = _read_once(images)
    shown = pictures(images, len(class_names), names, labels)
    found = {
        name: heatmaps(model, images, image_size, batch_size) for name, model in by_model.items()
    }
    if isinstance(models, Mapping):
        lines = heatmap_figures.comparison(shown, found, class_names, top)
    else:
        lines = heatmap_figures.top_heatmaps(shown, found[""], class_names, top)
    return heatmap_figures.draw(lines, title)


def _read_once(images: Images) -> Images:
    """Images that are the same each time; a dataset may shuffle and augment them anew."""
    if not isinstance(images, tf.data.Dataset | keras.utils.PyDataset):
        return images
    return [image for batch in batches(images, None, 1) for image in batch.image.numpy()]


def heatmaps(
    model: keras.Model, images: Images, image_size: int | None = None, batch_size: int = 32
) -> list[Heatmaps]:
    """Heatmaps sigmoid(F) and scores of whole images; arguments as for `draw_heatmaps`."""
    maps = predictions.predict_maps(model, images, image_size, batch_size)
    return [Heatmaps(expit(x), expit(x.mean(axis=(0, 1)))) for x in maps]


def pictures(
    images: Images,
    classes: int,
    names: Sequence[str] | None = None,
    labels: ArrayLike | None = None,
) -> list[Picture]:
    """Photos of at most 320 pixels a side, with what is known of them.

    Args:
        images: a few photos.
        classes: L.
        names: as for `draw_heatmaps`; labels are those trained on.
        labels: as for `draw_heatmaps`; labels are those trained on.

    Raises:
        ValueError: names or labels that do not fit the photos.
        UserError: an image file cannot be decoded.
    """
    photos = [reduced(photo, _SIDE) for photo in _photos(images)]
    known = isinstance(images, Examples) or labels is not None
    truth = observed = np.full((len(photos), classes), UNKNOWN, np.int8)
    boxes = [np.zeros((0, 5), np.float32)] * len(photos)
    if isinstance(images, Examples):
        names, truth, observed = names or images.names, images.labels, images.labels
        upright = with_upright_boxes(images).boxes
        boxes = boxes if upright is None else list(upright)
    if labels is not None:
        observed = validate_labels(labels)
        truth = truth if isinstance(images, Examples) else observed
    names = names or [f"image {number}" for number in range(len(photos))]
    for what, given in (("names", len(names)), ("rows of labels", len(observed))):
        if given != len(photos):
            raise ValueError(f"{given} {what} for {len(photos)} photos")
    if observed.shape[1] != classes:
        raise ValueError(f"labels of {observed.shape[1]} classes, there are {classes}")
    parts = zip(names, photos, observed, truth, boxes, strict=True)
    return [Picture(*part, labelled=known) for part in parts]


def _photos(images: Images) -> list[NDArray[np.uint8]]:
    if not isinstance(images, Examples):
        parts = [batch.image.numpy() for batch in batches(images, None, 1)]
        return [np.rint(np.clip(x, 0, 255)).astype(np.uint8) for part in parts for x in part]
    reader, found = encoded_images.ImageReader(images), []
    for row in range(len(images)):
        try:
            found.append(reader.pixels(row))
        except encoded_images.BrokenImageError as error:
            raise UserError(f"{reader.place(row)}: {error}; replace or remove it") from None
    return found
