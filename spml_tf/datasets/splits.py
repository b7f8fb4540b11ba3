"""Assembles what a run trains, validates and reports on, from its settings."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import sys

import numpy as np
from numpy.typing import NDArray

from spml_tf import labels
from spml_tf.datasets import label_files, observed_labels, readers, split_notes
from spml_tf.datasets.readers import Examples, objects
from spml_tf.datasets.readers.split_names import UnknownSplitError
from spml_tf.datasets.settings import DataSettings
from spml_tf.system.errors import UserError
from spml_tf.system.notes import tell_note
from spml_tf.system.parallel import ordered_map
from spml_tf.system.progress import progress
from spml_tf.system.tensorflow_import import import_tensorflow, quiet_libraries


@dataclasses.dataclass(frozen=True)
class Splits:
    """The data of a run.

    Attributes:
        train: training images with all labels the data set has.
        observed: [N, L] int8 in {1, 0, -1}, the labels trained on.
        val: validation images.
        test: test images, or None where the data set has none.
        held_out: names of the validation images that were held out of the training split.
        positives_per_image: K, the mean over the fully labelled validation images, or None.
        notes: what the readers left out or treated, and what to know about the labels.
        class_weights: float32 [L], how much each class counts in the loss, or None.
    """

    train: Examples
    observed: NDArray[np.int8]
    val: Examples
    test: Examples | None
    held_out: tuple[str, ...]
    positives_per_image: float | None
    notes: tuple[str, ...]
    class_weights: NDArray[np.float32] | None = None

    @property
    def parts(self) -> dict[str, Examples]:
        """The splits there are, by the names train, val and test."""
        parts = {"train": self.train, "val": self.val, "test": self.test}
        return {name: part for name, part in parts.items() if part is not None}

    def fingerprint(self) -> str:
        """SHA-256 in hexadecimal of images, labels, classes, weights and `observed`.

        Files are read, or their sizes asked for, once.
        """
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(np.ascontiguousarray(self.observed).tobytes())
        if self.class_weights is not None:
            digest.update(self.class_weights.tobytes())
        for part in self.parts.values():
            digest.update(part.fingerprint().encode("ascii"))
        return digest.hexdigest()


def load_splits(settings: DataSettings) -> Splits:
    """Reads the data of a run, and prints the notes about them on standard error.

    Depends on --data_seed and --label_seed, not on --seed. Labels are drawn on the whole training
    split, before a part of it is held out, as Cole et al. (2021) do, so that they equal the
    published ones.

    Args:
        settings: resolved settings.

    Returns:
        The splits, restricted to --classes.

    Raises:
        UserError: for data that are missing or malformed, or labels that do not fit them.
    """
    whole = _read(settings, settings.train_split)
    train, observed, val = _train_and_val(settings, whole)
    test = None if settings.test_split == "none" else _read(settings, settings.test_split)
    _check(settings, train, val, test)
    notes = split_notes.of_splits(settings, whole, train, observed, val, test)
    _tell(notes)
    return Splits(
        train,
        observed,
        val,
        test,
        val.names if settings.val_split == "none" else (),
        _positives_per_image(val),
        notes,
        _class_weights(settings, train),
    )


def check_training(settings: DataSettings, whole: Examples) -> None:
    """Refuses what `load_splits` would refuse of the images and labels to train on.

    Args:
        settings: resolved settings.
        whole: all images of the training split.

    Raises:
        UserError: the data set has no such labels, or files or numbers that flags name do not fit.
    """
    train, _, _ = _train_and_held_out(settings, whole)
    _class_weights(settings, train)


def load_examples(
    settings: DataSettings, split: str, measured: bool = True, flag: str | None = None
) -> Examples:
    """Reads one split, restricted to --classes, and prints its notes on standard error.

    Args:
        settings: resolved settings.
        split: name of the split.
        measured: whether measures are taken on it, which unknown labels mislead: a note says so.
        flag: the flag that named the split, for messages; None for that of the settings.

    Raises:
        UserError: for data that are missing or malformed.
    """
    examples = _read(settings, split, flag)
    unknown = split_notes.of_unknown_labels(settings, examples, split) if measured else ()
    _tell((*examples.notes, *unknown))
    return examples


def _train_and_val(
    settings: DataSettings, whole: Examples
) -> tuple[Examples, NDArray[np.int8], Examples]:
    """The training images, their observed labels [N, L], and the validation images.

    Args:
        settings: resolved settings.
        whole: all images of the training split.
    """
    train, observed, held_out = _train_and_held_out(settings, whole)
    val = _read(settings, settings.val_split) if held_out is None else held_out
    return train, observed, val


def _train_and_held_out(
    settings: DataSettings, whole: Examples
) -> tuple[Examples, NDArray[np.int8], Examples | None]:
    """As `_train_and_val`, but None where validation has a split of its own."""
    observed, held_out = observed_labels.of_settings(settings, whole)
    train = whole
    val: Examples | None = None
    if settings.val_split == "none":
        rows, others = _rows(settings, len(whole), held_out)
        train, observed, val = whole.subset(rows), observed[rows], whole.subset(others)
    else:
        _check_none_held_out(settings, held_out)
    train, observed = observed_labels.of_some_images(settings, train, observed)
    if settings.train_images and held_out is not None:
        flags = f"--train_images={settings.train_images} and --label_seed={settings.label_seed}"
        label_files.check_chosen(settings.train_labels, train.names, flags)
    return train, observed, val


def _class_weights(settings: DataSettings, train: Examples) -> NDArray[np.float32] | None:
    """What --class_weights names, [L]."""
    if not settings.class_weights:
        return None
    return label_files.read_class_weights(settings.class_weights, train.class_names)


def _rows(
    settings: DataSettings, n: int, held_out: NDArray[np.bool_] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of n images to train on, and those that are held out: of a file, else drawn."""
    if held_out is None:
        return observed_labels.split_indices(n, settings.val_fraction, settings.data_seed)
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _check_none_held_out(settings: DataSettings, held_out: NDArray[np.bool_] | None) -> None:
    if held_out is not None and held_out.any():
        raise UserError(
            f"--train_labels={settings.train_labels}: holds images out for validation, but "
            f"--val_split={settings.val_split}; give --val_split=none"
        )


def _check(settings: DataSettings, train: Examples, val: Examples, test: Examples | None) -> None:
    """Raises UserError for a split without an image, or of other classes or masks."""
    for part, name in ((train, "training"), (val, "validation"), (test, "test")):
        if part is not None and len(part) == 0:
            raise UserError(f"--dataset={settings.dataset}: the {name} split holds no image")
    for other in (val, test):
        if other is not None and other.class_names != train.class_names:
            raise UserError(
                f"--dataset={settings.dataset}: its splits have different classes; name those to "
                "use with --classes"
            )
    objects.check_own_masks(train, val, test)


def _read(settings: DataSettings, split: str, flag: str | None = None) -> Examples:
    reader = readers.find(settings.dataset)
    options = settings.reader_options
    try:
        examples = reader.read(settings.data_dir, split, settings.data_seed, options)
    except UnknownSplitError as error:
        flags = ("train_split", "val_split", "test_split")
        given = (x for x in flags if getattr(settings, x) == split)
        raise UserError(f"--{flag or next(given, 'split')}: {error.reason}") from None
    examples = dataclasses.replace(
        examples,
        max_megapixels=settings.max_megapixels,
        hash_contents=settings.fingerprint == "content",
        scaled_decoding=settings.scaled_decoding,
    )
    if settings.skip_broken and examples.paths is not None:
        examples = _without_broken(examples)
    return examples.restrict(settings.class_list) if settings.class_list else examples


def _without_broken(examples: Examples) -> Examples:
    """The images that can be decoded, with a note that counts the others."""
    import_tensorflow()
    from spml_tf.datasets import encoded_images

    reader = encoded_images.ImageReader(examples)

    def reason(row: int) -> str | None:
        try:
            reader.pixels(row)
        except encoded_images.BrokenImageError as error:
            return str(error)
        return None

    rows = range(len(examples))
    with quiet_libraries(), encoded_images.quiet_pillow():
        decoded = ordered_map(reason, rows, os.cpu_count() or 1)
        reasons = list(progress(decoded, len(examples), "decoded", lines=False))
    broken = [row for row in rows if reasons[row] is not None]
    if not broken:
        return examples
    note = (
        f"{len(broken):,} of {len(examples):,} photos cannot be decoded and are left out, the "
        f"first is {reader.place(broken[0])} ({reasons[broken[0]]})"
    )
    kept = examples.subset([row for row in rows if reasons[row] is None])
    return dataclasses.replace(kept, notes=(*kept.notes, note))


def _tell(notes: tuple[str, ...]) -> None:
    if "tensorflow" in sys.modules:  # else there is one process
        from spml_tf.system import replicas

        if replicas.this_shard().worker:
            return  # the first worker tells
    for note in notes:
        tell_note(note)


def _positives_per_image(val: Examples) -> float | None:
    complete = (val.labels != labels.UNKNOWN).all(axis=1)
    return labels.positives_per_image(val.labels) if complete.any() else None
