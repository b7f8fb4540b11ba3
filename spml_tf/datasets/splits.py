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
from spml_tf.datasets import label_files, readers
from spml_tf.datasets.readers import Examples, objects
from spml_tf.datasets.readers.split_names import UnknownSplitError
from spml_tf.datasets.readers.tables import few
from spml_tf.datasets.settings import DataSettings
from spml_tf.system import cli
from spml_tf.system.errors import UserError, printable
from spml_tf.system.notes import tell_note
from spml_tf.system.parallel import ordered_map
from spml_tf.system.progress import progress

# Times as many positives as another class has, from which on it is noted.
_UNEVEN = 20


@dataclasses.dataclass(frozen=True)
class Splits:
    """The data of a run.

    Attributes:
        train: training images with all labels the data set has.
        observed: [N, L] int8 in {1, 0, -1}, the labels trained on.
        val: validation images.
        test: test images, or None where the data set has none.
        held_out: names of the validation images that were held out of the training split.
        positives_per_image: K, the mean over the fully labelled validation images, or None; "auto"
            where training estimates it.
        notes: what the readers left out or treated, and what to know about the labels.
        class_weights: float32 [L], how much each class counts in the loss, or None.
    """

    train: Examples
    observed: NDArray[np.int8]
    val: Examples
    test: Examples | None
    held_out: tuple[str, ...]
    positives_per_image: float | str | None
    notes: tuple[str, ...]
    class_weights: NDArray[np.float32] | None = None

    @property
    def parts(self) -> dict[str, Examples]:
        """The splits there are, by the names train, val and test."""
        parts = {"train": self.train, "val": self.val, "test": self.test}
        return {name: part for name, part in parts.items() if part is not None}

    def selection_budget(self, rule: str) -> str | list[float]:
        """What --selection_budget names: a rule, or each class's share of the images.

        The shares are those of the validation images, by "training" the true ones of the training
        images, or by "mime" the observed ones times 1 / mean(1 / number of positives) of the
        validation images.

        Raises:
            UserError: no image that the rule looks at is fully labelled.
        """
        try:
            if rule in ("validation", "training"):
                part = self.val if rule == "validation" else self.train
                return list(labels.class_shares(part.labels).tolist())
            if rule == "mime":
                factor = labels.harmonic_positives_per_image(self.val.labels)
                shares = factor * (self.observed == labels.POSITIVE).mean(axis=0)
                return list(np.minimum(shares, 1.0).tolist())
        except ValueError as error:
            raise UserError(f"--selection_budget={rule}: {error}") from None
        return rule

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
    observed, held_out = _observed(settings, whole)
    if settings.val_split == "none":
        if held_out is None:
            parts = labels.split_indices(len(whole), settings.val_fraction, settings.data_seed)
        else:
            parts = np.flatnonzero(~held_out), np.flatnonzero(held_out)
        train, val = (whole.subset(part) for part in parts)
        observed = observed[parts[0]]
    elif held_out is not None and held_out.any():
        raise UserError(
            f"--train_labels={settings.train_labels}: holds images out for validation, but "
            f"--val_split={settings.val_split}; give --val_split=none"
        )
    else:
        train, val = whole, _read(settings, settings.val_split)
    train, observed = _some_images(settings, train, observed)
    if settings.train_images and held_out is not None:
        flags = f"--train_images={settings.train_images} and --label_seed={settings.label_seed}"
        label_files.check_chosen(settings.train_labels, train.names, flags)
    test = None if settings.test_split == "none" else _read(settings, settings.test_split)
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
    notes = (
        *_size_notes(settings, whole, test),
        *_notes(train, observed, val, test),
        *_unknown_notes(settings, val, "validation"),
        *(() if test is None else _unknown_notes(settings, test, "test")),
    )
    _tell(notes)
    weights = None
    if settings.class_weights:
        weights = label_files.read_class_weights(settings.class_weights, train.class_names)
    return Splits(
        train,
        observed,
        val,
        test,
        val.names if settings.val_split == "none" else (),
        _positives_per_image(val),
        notes,
        weights,
    )


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
    _tell((*examples.notes, *(_unknown_notes(settings, examples, split) if measured else ())))
    return examples


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
    cli.import_tensorflow()
    from spml_tf.datasets import encoded_images

    reader = encoded_images.Reader(examples)

    def reason(row: int) -> str | None:
        try:
            reader.pixels(row)
        except encoded_images.BrokenImageError as error:
            return str(error)
        return None

    rows = range(len(examples))
    with cli.quiet_libraries(), encoded_images.quiet_pillow():
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
        tell_note(printable(note))


def _size_notes(settings: DataSettings, whole: Examples, test: Examples | None) -> tuple[str, ...]:
    """Notes on splits that hold other numbers of images than the published protocol's."""
    expected = {} if settings.class_list else readers.find(settings.dataset).sizes
    return tuple(
        f"{settings.data_dir}: {len(part):,} images in {split}, where the published protocol has "
        f"{expected[split]:,}: results do not compare with published ones"
        for split, part in ((settings.train_split, whole), (settings.test_split, test))
        if part is not None and len(part) != expected.get(split, len(part))
    )


def _notes(
    train: Examples, observed: NDArray[np.int8], val: Examples, test: Examples | None
) -> tuple[str, ...]:
    others = [part for part in (val, test) if part is not None]
    notes = dict.fromkeys(note for part in (train, *others) for note in part.notes)
    seen = (observed == labels.POSITIVE).any(axis=0)
    if not seen.all():
        absent = [name for name, known in zip(train.class_names, seen, strict=True) if not known]
        notes[f"no training image is labelled with {few(absent)}: cannot be learned"] = None
    if uneven := _distribution(observed, train.class_names):
        notes[uneven] = None
    bare = int((observed == labels.UNKNOWN).all(axis=1).sum())
    if bare:
        notes[f"{bare} of {len(train)} training images have no known label: kept"] = None
    if not (val.labels == labels.POSITIVE).any():
        notes["no validation image shows any class: mAP is undefined, no epoch is the best"] = None
    shared = sorted(set(train.names) & {name for part in others for name in part.names})
    if shared:
        notes[f"images in training and in validation or test: {few(shared)}: kept"] = None
    return tuple(notes)


def rare_classes(train: Examples) -> tuple[str, ...]:
    """Notes on the classes that no training image shows, or only one."""
    shown = train.labels == labels.POSITIVE
    counts = shown.sum(axis=0)
    notes = []
    if not counts.all():
        absent = [x for x, count in zip(train.class_names, counts, strict=True) if not count]
        notes.append(f"no training image shows {few(absent)}: cannot be learned")
    single = np.flatnonzero(counts == 1).tolist()
    if single:
        places = [train.names[int(shown[:, column].argmax())] for column in single[:3]]
        pairs = [
            f"{train.class_names[x]!r} ({name!r})"
            for x, name in zip(single[:3], places, strict=True)
        ]
        more = f" and {len(single) - 3} more" if len(single) > 3 else ""
        notes.append(
            f"only one training image shows {', '.join(pairs)}{more}: too few to learn from, and "
            "none where it is held out for validation"
        )
    return tuple(notes)


def _distribution(observed: NDArray[np.int8], class_names: tuple[str, ...]) -> str:
    """A note about positives where some class has many times as many as another."""
    counts = (observed == labels.POSITIVE).sum(axis=0)
    seen = np.flatnonzero(counts)
    if not len(seen) or counts.max() < _UNEVEN * counts[seen].min():
        return ""
    least, most = int(seen[counts[seen].argmin()]), int(counts.argmax())
    return (
        f"annotated positives a class: {counts[least]:,} ({class_names[least]!r}) to "
        f"{counts[most]:,} ({class_names[most]!r}), median {np.median(counts[seen]):g}; "
        "--class_weights=TABLE weighs classes"
    )


def _unknown_notes(settings: DataSettings, part: Examples, name: str) -> tuple[str, ...]:
    """How far measures on a split with unknown labels can be trusted."""
    rule, known = settings.unknown_counts_as, part.labels != labels.UNKNOWN
    if known.all():
        return ()
    misleading = labels.unknown_as_negative(part.labels, rule)
    start = f"{name} labels are incomplete ({100 * known.mean():.1f}% are known)"
    if not misleading.any():
        return (f"{start}: measures are over the known labels of each class",)
    count = f"{int(misleading.sum())} of {len(part.class_names)} classes"
    why = "" if rule == "negative" else ", of which no negative is known"
    positives = (part.labels == labels.POSITIVE).sum()
    # Of a run; the commands about data do not ask for it.
    mean = getattr(settings, "positives_per_image", None)
    mean = None if isinstance(mean, str) else mean  # it is estimated later
    ratio = mean * len(part) / positives if mean else 2.0
    best = 100 * labels.perfect_mean_average_precision(part.labels, max(ratio, 1.0), rule)
    if best > 99.95:
        return (f"{start}: unknown labels count as negatives in {count}{why}",)
    case = (
        f"with --positives_per_image={mean:g}" if mean else "if there are twice the known positives"
    )
    return (
        f"{start}: unknown labels count as negatives in {count}{why}; {case} a network without a "
        f"mistake would show an mAP of {best:.1f}%, not 100%",
    )


def _observed(
    settings: DataSettings, whole: Examples
) -> tuple[NDArray[np.int8], NDArray[np.bool_] | None]:
    """The observed labels, and which images a file of labels holds out."""
    if settings.train_labels == "full":
        return whole.labels, None
    if settings.train_labels == "stored":
        if whole.observed is None:
            raise UserError(
                f"--train_labels=stored: --dataset={settings.dataset} comes without observed "
                "labels; give single, full or a file"
            )
        return whole.observed, None
    if settings.train_labels == "single":
        seed = settings.label_seed
        counts = settings.observed_positives, settings.observed_negatives
        if settings.positive_choice == "uniform":
            return labels.draw_observed(whole.labels, seed, *counts), None
        ranks = _ranks(settings, whole)
        return labels.draw_ranked(whole.labels, ranks, seed, *counts), None
    if settings.train_labels == "partial":
        return labels.draw_partial(whole.labels, settings.known_share, settings.label_seed), None
    path, some = settings.train_labels, settings.train_images > 0
    return label_files.read_observed(path, whole.names, whole.class_names, some)


def _ranks(settings: DataSettings, whole: Examples) -> NDArray[np.float64]:
    """What --positive_choice ranks positives by: [L], or [N, L] by the areas of objects."""
    if settings.positive_choice == "frequent":
        images: NDArray[np.float64] = (whole.labels == labels.POSITIVE).sum(axis=0).astype(float)
        return images
    if whole.boxes is None or whole.areas is None:
        raise UserError(
            f"--positive_choice=largest: --dataset={settings.dataset} comes without boxes here; "
            "name them (--boxes_csv for folder), or choose uniform or frequent"
        )
    largest = np.zeros(whole.labels.shape)
    for row, boxes, areas in zip(largest, whole.boxes, whole.areas, strict=True):
        np.maximum.at(row, boxes[:, 0].astype(int), areas)
    return largest


def _some_images(
    settings: DataSettings, train: Examples, observed: NDArray[np.int8]
) -> tuple[Examples, NDArray[np.int8]]:
    """What --train_images and --full_images leave of the training images and their labels."""
    order = np.random.RandomState(settings.label_seed).permutation(len(train))
    for flag in ("train_images", "full_images"):
        if getattr(settings, flag) > len(train):
            raise UserError(
                f"--{flag}={getattr(settings, flag)}: there are {len(train)} training images"
            )
    if settings.full_images:
        observed = observed.copy()
        full = order[: settings.full_images]
        observed[full] = train.labels[full]
    if settings.train_images:
        rows = np.sort(order[: settings.train_images])
        train, observed = train.subset(rows), observed[rows]
    return train, observed


def _positives_per_image(val: Examples) -> float | None:
    complete = (val.labels != labels.UNKNOWN).all(axis=1)
    return labels.positives_per_image(val.labels) if complete.any() else None
