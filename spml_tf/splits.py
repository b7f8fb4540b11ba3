"""Assembles what a run trains, validates and reports on, from its settings."""

from __future__ import annotations

import dataclasses
import hashlib
import sys

import numpy as np

from spml_tf import labels, readers
from spml_tf.errors import UserError
from spml_tf.readers import Examples
from spml_tf.settings import Settings


@dataclasses.dataclass(frozen=True)
class Splits:
    """The data of a run.

    Attributes:
        train: training images with all labels the data set has.
        observed: [N, L] int8 in {1, 0, -1}, the labels trained on.
        val, test: validation and test images.
        positives_per_image: K, or None where it is neither given nor known.
    """

    train: Examples
    observed: np.ndarray
    val: Examples
    test: Examples
    positives_per_image: float | None

    def fingerprint(self) -> str:
        """SHA-256 in hexadecimal of images, labels and classes of all splits, and of `observed`."""
        digest = hashlib.sha256(np.ascontiguousarray(self.observed).tobytes())
        for part in (self.train, self.val, self.test):
            digest.update(part.fingerprint().encode("ascii"))
        return digest.hexdigest()


def load_splits(settings: Settings) -> Splits:
    """Reads the data of a run. Depends on --data_seed and --label_seed, not on --seed.

    Labels are drawn on the whole training split, before a part of it is held out, as Cole et al.
    (2021) do, so that they equal the published ones.

    Args:
        settings: resolved settings.

    Returns:
        The splits, restricted to --classes.

    Raises:
        UserError: for data that are missing or malformed, or labels that do not fit them.
    """
    whole = load_examples(settings, settings.train_split)
    observed = _observed(settings, whole)
    val_split = readers.READERS[settings.dataset].val_split
    if val_split is None:
        kept, held_out = labels.split_indices(len(whole), settings.val_fraction, settings.data_seed)
        train, val, observed = whole.subset(kept), whole.subset(held_out), observed[kept]
    else:
        train, val = whole, load_examples(settings, val_split)
    for part, name in ((train, "training"), (val, "validation")):
        if len(part) == 0:
            raise UserError(f"--dataset={settings.dataset}: the {name} split holds no image")
    if (val.labels == labels.UNKNOWN).any():
        print(
            "warning: validation labels are incomplete: unknown labels count as negatives in mAP",
            file=sys.stderr,
        )
    test = load_examples(settings, settings.test_split)
    return Splits(train, observed, val, test, _positives_per_image(settings, val))


def load_examples(settings: Settings, split: str) -> Examples:
    """Reads one split, restricted to --classes.

    Args:
        settings: resolved settings.
        split: name of the split.

    Raises:
        UserError: for data that are missing or malformed.
    """
    examples = readers.load(settings.dataset, settings.data_dir, split, settings.data_seed)
    return examples.restrict(settings.class_list) if settings.class_list else examples


def _observed(settings: Settings, whole: Examples) -> np.ndarray:
    if settings.train_labels == "full":
        return whole.labels
    if settings.train_labels == "single":
        return labels.draw_observed(
            whole.labels,
            settings.label_seed,
            settings.observed_positives,
            settings.observed_negatives,
        )
    return labels.read_observed(settings.train_labels, whole.names, whole.class_names)


def _positives_per_image(settings: Settings, val: Examples) -> float | None:
    if settings.positives_per_image is not None:
        return settings.positives_per_image
    complete = (val.labels != labels.UNKNOWN).all(axis=1)
    return labels.positives_per_image(val.labels) if complete.any() else None
