"""What to know about the images and labels of a run, as notes for the user."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spml_tf.datasets import readers
from spml_tf.datasets.readers import Examples
from spml_tf.datasets.settings import DataSettings
from spml_tf.labels import POSITIVE, UNKNOWN, unknown_as_negative
from spml_tf.system.errors import few

# Times as many positives as another class has, from which on it is noted.
_UNEVEN = 20


def of_splits(
    settings: DataSettings,
    whole: Examples,
    train: Examples,
    observed: NDArray[np.int8],
    val: Examples,
    test: Examples | None,
) -> tuple[str, ...]:
    """What is noted of the data of a run.

    Args:
        settings: resolved settings.
        whole: all images of the training split.
        train: those that are trained on.
        observed: [N, L] int8 in {1, 0, -1}, the labels of `train` that are trained on.
        val: validation images.
        test: test images, or None.
    """
    return (
        *_of_sizes(settings, whole, test),
        *_of_labels(train, observed, val, test),
        *of_unknown_labels(settings, val, "validation"),
        *(() if test is None else of_unknown_labels(settings, test, "test")),
    )


def _of_sizes(settings: DataSettings, whole: Examples, test: Examples | None) -> tuple[str, ...]:
    """Notes on splits that hold other numbers of images than the published protocol's."""
    expected = {} if settings.class_list else readers.find(settings.dataset).sizes
    return tuple(
        f"{settings.data_dir}: {len(part):,} images in {split}, where the published protocol has "
        f"{expected[split]:,}: results do not compare with published ones"
        for split, part in ((settings.train_split, whole), (settings.test_split, test))
        if part is not None and len(part) != expected.get(split, len(part))
    )


def _of_labels(
    train: Examples, observed: NDArray[np.int8], val: Examples, test: Examples | None
) -> tuple[str, ...]:
    others = [part for part in (val, test) if part is not None]
    notes = dict.fromkeys(note for part in (train, *others) for note in part.notes)
    seen = (observed == POSITIVE).any(axis=0)
    if not seen.all():
        absent = [name for name, known in zip(train.class_names, seen, strict=True) if not known]
        notes[f"no training image is labelled with {few(absent)}: cannot be learned"] = None
    if uneven := _of_uneven_classes(observed, train.class_names):
        notes[uneven] = None
    bare = int((observed == UNKNOWN).all(axis=1).sum())
    if bare:
        notes[f"{bare} of {len(train)} training images have no known label: kept"] = None
    if not (val.labels == POSITIVE).any():
        notes["no validation image shows any class: mAP is undefined, the last epoch is taken"] = (
            None
        )
    shared = sorted(set(train.names) & {name for part in others for name in part.names})
    if shared:
        notes[f"images in training and in validation or test: {few(shared)}: kept"] = None
    return tuple(notes)


def _of_uneven_classes(observed: NDArray[np.int8], class_names: tuple[str, ...]) -> str:
    """A note about positives where some class has many times as many as another."""
    counts = (observed == POSITIVE).sum(axis=0)
    seen = np.flatnonzero(counts)
    if not len(seen) or counts.max() < _UNEVEN * counts[seen].min():
        return ""
    least, most = int(seen[counts[seen].argmin()]), int(counts.argmax())
    return (
        f"annotated positives a class: {counts[least]:,} ({class_names[least]!r}) to "
        f"{counts[most]:,} ({class_names[most]!r}), median {np.median(counts[seen]):g}; "
        "--class_weights=TABLE weighs classes"
    )


def of_unknown_labels(settings: DataSettings, part: Examples, name: str) -> tuple[str, ...]:
    """How far measures on a split with unknown labels can be trusted.

    Args:
        settings: resolved settings.
        part: the images of the split.
        name: what the note calls the split.

    Returns:
        A note, or none where all labels are known.
    """
    rule, known = settings.unknown_counts_as, part.labels != UNKNOWN
    if known.all():
        return ()
    misleading = unknown_as_negative(part.labels, rule)
    start = f"{name} labels are incomplete ({100 * known.mean():.1f}% are known)"
    if not misleading.any():
        return (f"{start}: measures are over the known labels of each class",)
    count = f"{int(misleading.sum())} of {len(part.class_names)} classes"
    why = "" if rule == "negative" else ", of which no negative is known"
    positives = (part.labels == POSITIVE).sum()
    mean = settings.stated_positives_per_image
    ratio = mean * len(part) / positives if mean else 2.0
    best = 100 * perfect_mean_average_precision(part.labels, max(ratio, 1.0), rule)
    if best > 99.95:
        return (f"{start}: unknown labels count as negatives in {count}{why}",)
    case = (
        f"with --positives_per_image={mean:g}" if mean else "if there are twice the known positives"
    )
    return (
        f"{start}: unknown labels count as negatives in {count}{why}; {case} a network without a "
        f"mistake would show an mAP of {best:.1f}%, not 100%",
    )


def rare_classes(train: Examples) -> tuple[str, ...]:
    """Notes on the classes that no training image shows, or only one."""
    shown = train.labels == POSITIVE
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


def perfect_mean_average_precision(
    labels: ArrayLike, true_per_known: float, unknown_counts_as: str = "nothing"
) -> float:
    """What a network that ranks without a mistake is expected to reach on incomplete labels.

    In the classes of `labels.unknown_as_negative` it ranks T true positives first, of which P are
    known, any of them as probably as another. A known one at rank r has the precision
    (1 + (r - 1) q) / r with q = (P - 1) / (T - 1), the mean of which over r = 1..T is
    q + (1 - q) H_T / T, H_T being the T-th harmonic number. Elsewhere it reaches 1.

    Args:
        labels: as for `labels.counted_labels`.
        true_per_known: T / P of these classes, at least 1; T is rounded, to at most N.
        unknown_counts_as: as for `labels.counted_labels`.

    Returns:
        The mean over classes with positives, in [0, 1]; NaN without any.

    Examples:
        One of two true positives is known: it comes first or second, 1 or 1/2.

        >>> perfect_mean_average_precision([[1], [-1], [-1]], 2.0)
        0.75
    """
    labels = np.asarray(labels)
    misleading = unknown_as_negative(labels, unknown_counts_as)
    positives = (labels == POSITIVE).sum(axis=0)
    best = np.ones(len(positives))
    for column in np.flatnonzero(misleading):
        known = int(positives[column])
        true = int(np.clip(np.rint(true_per_known * known), known, len(labels)))
        if true > known:
            share = (known - 1) / (true - 1)
            harmonic = (1 / np.arange(1, true + 1)).sum()
            best[column] = share + (1 - share) * harmonic / true
    present = best[positives > 0]
    return float(present.mean()) if len(present) else float("nan")
