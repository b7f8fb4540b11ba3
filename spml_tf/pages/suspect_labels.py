"""Labels of training images to look at: their scores in a run, and their photos."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np
from numpy.typing import NDArray

from spml_tf.datasets.readers import Examples
from spml_tf.datasets.splits import Splits
from spml_tf.evaluation.missing_labels import Candidate, labels_by_image
from spml_tf.pages import network_photos
from spml_tf.pages.report_photos import LabelPhoto
from spml_tf.runs import checkpoint_contents
from spml_tf.runs.checkpoint_contents import CheckpointContents
from spml_tf.runs.run_folder import RunFolder
from spml_tf.system.errors import UserError


def read_checkpoint(run: RunFolder, data: Splits) -> CheckpointContents:
    """What the run's checkpoint knows of its training images.

    Args:
        run: a finished run.
        data: its data.

    Raises:
        UserError: the checkpoint is missing, broken or of other images.
    """
    checkpoint = run.checkpoints.newest()
    if checkpoint is None:
        raise UserError(f"{run.checkpoints.path}: holds no checkpoint; train this run again")
    return checkpoint_contents.read_checkpoint(checkpoint.weights, data.observed)


def photos(
    model: keras.Model,
    examples: Examples,
    observed: NDArray[np.int8],
    found: Sequence[Candidate],
    image_size: int | None = None,
    batch_size: int = 32,
) -> list[LabelPhoto]:
    """The candidates' training images, with heatmaps and the observed labels.

    Args:
        model: a network of CAM logits or an `SPMLModel`.
        examples: N images with all the labels that are known of them.
        observed: int8 [N, L] in {1, 0, -1}, the labels trained on.
        found: the candidates.
        image_size: side of the network's input in pixels; None: what the network is built for.
        batch_size: images at a time.

    Raises:
        UserError: an image cannot be decoded.
    """
    classes = labels_by_image(found)
    rows = list(classes)
    shown = network_photos.photos(
        model,
        dataclasses.replace(examples.subset(rows), labels=observed[rows]),
        image_size,
        batch_size,
        list(classes.values()),
    )
    by_row = dict(zip(rows, shown, strict=True))
    return [
        LabelPhoto(
            photo=by_row[x.image],
            label=x.label,
            score=x.score,
            epochs_selected=x.epochs_selected,
            truth=int(examples.labels[x.image, x.label]),
        )
        for x in found
    ]
