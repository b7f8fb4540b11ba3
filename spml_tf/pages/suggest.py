"""Suggestions: the photos of a run to label in full next, as a list and a page to decide on."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from spml_tf import networks
from spml_tf.datasets.splits import Splits
from spml_tf.evaluation import missing_labels, suggestions
from spml_tf.labels import UNKNOWN
from spml_tf.pages import BATCH_SIZE, SHOWN, network_photos, suggest_page, suspect_labels
from spml_tf.pages.audit import check_alone
from spml_tf.pages.suggest_page import SuggestedPhoto
from spml_tf.runs import run_data
from spml_tf.runs.run_folder import RunFolder
from spml_tf.system.errors import UserError
from spml_tf.system.files import (
    check_unedited,
    made_folder,
    naming_unwritable,
    replaced_unless_edited,
    write_csv,
    write_json,
    write_text,
)

_HEADER = "rank", "image", "class", "label", "score"
# Classes of a photo on the page, those of the highest scores where there are more.
_CLASSES = 100


@dataclasses.dataclass(frozen=True)
class _Trained:
    """What a run has made of its training images.

    Attributes:
        network: of CAM logits.
        data: of the run.
        scores: float32 [N, L] in [0, 1], the running averages, NaN where there is none.
        image_size: side of the network's input in pixels.
        batch_size: images at a time.
    """

    network: keras.Model
    data: Splits
    scores: NDArray[np.float32]
    image_size: int
    batch_size: int


def suggest_run(
    run: RunFolder,
    output_dir: str | os.PathLike[str],
    count: int,
    rule: str = "gain",
    data_dir: str | None = None,
    shown: int = SHOWN,
    batch_size: int = BATCH_SIZE,
) -> dict[str, Any]:
    """Lists the training images of a run whose full labelling is likely to help most.

    Writes suggest.csv, suggest.html to decide the labels on, and suggest.json. The list has a row
    for each unknown label of these images, best image first, with an empty column label to be
    filled with 1 or 0; `reviewed_labels.apply` reads it.

    Args:
        run: a finished run.
        output_dir: folder for the files.
        count: how many images.
        rule: as for `suggestions.suggest_images`.
        data_dir: folder of the data set, None for the run's own.
        shown: how many images to show on the page.
        batch_size: images at a time.

    Returns:
        What suggest.json holds: {"run_dir", "method", "data_fingerprint", "rule", "images",
        "labels"}, the last two as numbers.

    Raises:
        UserError: for a run or data that cannot be read, a data set without unknown labels, a
            folder that cannot be written or holds an audit, or a list in it that was filled in.
    """
    folder = Path(output_dir)
    check_unedited([folder / "suggest.csv"])
    check_alone(folder, "suggest.html", "audit.html")
    run.check_finished()
    data, settings = run_data.load_of_run(run, data_dir), run.settings()
    scores = suspect_labels.read_checkpoint(run, data).scores
    network = networks.load_network(run.best_network())
    trained = _Trained(network, data, scores, settings.image_size, batch_size)
    images = _images(trained, count, rule, settings.seed)
    if not images:
        raise UserError(f"{run.path}: every label of its training images is known")
    rows = _rows(trained, images)
    facts = {
        "run_dir": str(run.path.absolute()),
        "method": settings.method,
        "data_fingerprint": run.read_record()["data_fingerprint"],
        "rule": rule,
        "images": len(images),
        "labels": len(rows),
    }
    photos = _photos(trained, images[:shown])
    page = suggest_page.build(run.path.name, facts, data.train.class_names, photos, len(rows))
    with naming_unwritable(f"--output_dir={folder}"), made_folder(folder):
        write_csv(folder / "suggest.csv", _HEADER, rows, into=replaced_unless_edited)
        write_text(folder / "suggest.html", page)
        write_json(folder / "suggest.json", facts)
    return facts


def _images(trained: _Trained, count: int, rule: str, seed: int) -> list[int]:
    """The images to label, best first."""
    observed, others = trained.data.observed, None
    if rule == "disagreement":
        others = missing_labels.label_scores(
            trained.network, trained.data.train, observed.shape, None, trained.image_size,
            trained.batch_size,
        )  # fmt: skip
    best = suggestions.suggest_images(trained.scores, observed, count, rule, others, seed)
    images: list[int] = best.tolist()
    return images


def _rows(trained: _Trained, images: Sequence[int]) -> list[tuple[object, ...]]:
    """Rows of suggest.csv: one for each unknown label of the images."""
    train = trained.data.train
    return [
        (rank, train.names[image], train.class_names[label], "",
         f"{trained.scores[image, label]:.6f}")
        for rank, image in enumerate(images, 1)
        for label in np.flatnonzero(trained.data.observed[image] == UNKNOWN)
    ]  # fmt: skip


def _photos(trained: _Trained, images: list[int]) -> list[SuggestedPhoto]:
    """The photos with the heatmaps of their unknown classes, the most probable first."""
    print(f"heatmaps of {len(images)} photos", file=sys.stderr)
    observed, scores = trained.data.observed[images], trained.scores
    classes = []
    for image, labels in zip(images, observed, strict=True):
        unknown = np.flatnonzero(labels == UNKNOWN)
        order = np.argsort(-scores[image, unknown], kind="stable")
        classes.append(unknown[order][:_CLASSES].tolist())
    examples = dataclasses.replace(trained.data.train.subset(images), labels=observed)
    found = network_photos.photos(
        trained.network, examples, trained.image_size, trained.batch_size, classes
    )
    return [
        SuggestedPhoto(photo, labels, scores[image, labels].tolist())
        for photo, image, labels in zip(found, images, classes, strict=True)
    ]
