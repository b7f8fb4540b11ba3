"""Labels of a run's training images to look at: their scores, photos, and where their maps peak."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np
from scipy.special import expit

from spml_tf.datasets.splits import Splits
from spml_tf.evaluation import missing_labels, predictions
from spml_tf.evaluation.missing_labels import Candidate
from spml_tf.pages import network_photos
from spml_tf.pages.report_photos import LabelPhoto
from spml_tf.runs import checkpoint_contents
from spml_tf.runs.checkpoint_contents import Checkpoint
from spml_tf.runs.run_folder import RunFolder
from spml_tf.system.errors import UserError


def read_checkpoint(run: RunFolder, data: Splits) -> Checkpoint:
    """What the run's checkpoint knows of its training images.

    Args:
        run: a finished run.
        data: its data.

    Raises:
        UserError: the checkpoint is missing, broken or of other images.
    """
    saved = checkpoint_contents.read_checkpoint(run.checkpoint)
    if saved.scores.shape != data.observed.shape:
        raise UserError(f"{run.checkpoint}: is of other images or classes; train this run again")
    return saved


def photos(
    network: keras.Model,
    data: Splits,
    found: Sequence[Candidate],
    image_size: int,
    batch_size: int,
) -> list[LabelPhoto]:
    """The candidates' training images, with heatmaps and the observed labels.

    Args:
        network: images -> CAM logits [B, G, G, L].
        data: the run's data.
        found: the candidates.
        image_size: side of the network's input in pixels.
        batch_size: images at a time.

    Raises:
        UserError: an image cannot be decoded.
    """
    classes = _classes(found)
    rows = list(classes)
    examples = dataclasses.replace(data.train.subset(rows), labels=data.observed[rows])
    shown = network_photos.photos(network, examples, image_size, batch_size, list(classes.values()))
    by_row = dict(zip(rows, shown, strict=True))
    return [
        LabelPhoto(
            photo=by_row[x.image],
            label=x.label,
            score=x.score,
            epochs_selected=x.epochs_selected,
            truth=int(data.train.labels[x.image, x.label]),
        )
        for x in found
    ]


def regions(
    network: keras.Model,
    data: Splits,
    found: Sequence[Candidate],
    image_size: int,
    batch_size: int,
) -> list[tuple[tuple[float, float], tuple[float, ...]]]:
    """Peak and box of each candidate's heatmap, see `missing_labels.peak_region`.

    Args and raises: as for `photos`.
    """
    classes = _classes(found)
    examples = data.train.subset(list(classes))
    maps = predictions.predict_maps(network, examples, image_size, batch_size)
    by_cell = {}
    for (row, labels), logits in zip(classes.items(), maps, strict=True):
        for label in labels:
            heatmap = expit(logits[..., label].astype(np.float64))
            by_cell[row, label] = missing_labels.peak_region(heatmap)
    return [by_cell[x.image, x.label] for x in found]


def _classes(found: Sequence[Candidate]) -> dict[int, list[int]]:
    """The candidates' classes by image, in the order of first appearance."""
    classes: dict[int, list[int]] = {}
    for x in found:
        classes.setdefault(x.image, []).append(x.label)
    return classes
