"""The rows behind the figures of an analysis, a function a figure.

Each takes what the analysis knows and returns at least one row, a dict of equal keys; where the
figure cannot be had it raises UnavailableError, which says why.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spml_tf.datasets.stored_pixels import mask_of_photo
from spml_tf.drawing.figure_files import Row, spread
from spml_tf.evaluation import bootstrap, measures
from spml_tf.evaluation.average_precision import average_precision, mean_average_precision
from spml_tf.evaluation.calibration import as_counted, tells_negatives
from spml_tf.figures.compared_runs import Analysis, UnavailableError
from spml_tf.labels import POSITIVE, known_counts

RANKS = 4
SCORE_BINS = 20
SIZE_BINS = 5
RELIABILITY_BINS = 10
RESAMPLES = 1000
CENTRE = "image centre"
EVEN = "even map"


def top_scores(found: Analysis) -> list[Row]:
    """How the 1st to 4th highest score of the validation images are distributed, seeds pooled."""
    rows = []
    for group in found.groups:
        tops = np.concatenate([measures.top_scores(run.val_scores, RANKS) for run in group.runs])
        for rank, values in enumerate(tops.T, start=1):
            edges, shares = measures.histogram(values, SCORE_BINS)
            for low, high, share in zip(edges[:-1], edges[1:], shares, strict=True):
                row = {"method": group.name, "seeds": len(group.runs), "rank": rank}
                rows.append({**row, "low": low, "high": high, "share": share})
    return rows


def gain_by_size(found: Analysis) -> list[Row]:
    """mAP by object size, and the gain over the baseline relative to its mAP.

    Returns:
        A row for each bin and group; size in percent of the image's area, mAP in percent, gain in
        percent of the baseline's mAP.
    """
    base, (boxes, areas), labels = found.baseline(), found.boxes(), found.labels
    sizes = measures.largest_objects(boxes, areas, len(found.class_names))
    sizes = np.where(labels == POSITIVE, sizes, np.nan)
    if np.isnan(sizes).all():
        raise UnavailableError("no positive has a box")
    edges = measures.size_edges(sizes, SIZE_BINS)
    counts = [int((measures.bin_of_size(sizes, edges) == x).sum()) for x in range(len(edges) - 1)]
    means = {}
    for group in found.groups:
        precisions = [
            measures.average_precision_by_size(
                run.labels, run.scores, sizes, edges, found.unknown_counts_as
            )
            for run in group.runs
        ]
        means[group.name] = np.mean([np.nanmean(x, axis=1) for x in precisions], axis=0)
    rows = []
    for number, (low, high) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        for group in found.groups:
            value, before = means[group.name][number], means[base.name][number]
            rows.append({
                "method": group.name, "seeds": len(group.runs), "bin": number + 1,
                "size_low": 100 * low, "size_high": 100 * high, "positives": counts[number],
                "baseline": base.name, "map": 100 * value,
                "gain": float(measures.relative_gain(value, before)),
            })  # fmt: skip
    return rows


def difference(found: Analysis) -> list[Row]:
    """Difference in mAP to the baseline, over the seeds that both have.

    Returns:
        A row for each other group that shares a seed with it: points of mAP, mean and deviation
        over seeds, and the 95% interval of the mean over images.
    """
    base, labels, rule = found.baseline(), found.labels, found.unknown_counts_as
    found.check_positives()
    by_seed = {run.settings.seed: run for run in base.runs}
    rows = []
    for group in found.groups:
        shared = [run for run in group.runs if run.settings.seed in by_seed]
        if group is base or not shared:
            continue
        pairs = [(run.scores, by_seed[run.settings.seed].scores) for run in shared]
        maps = [
            [mean_average_precision(labels, x, unknown_counts_as=rule) for x in pair]
            for pair in pairs
        ]
        points = [100 * (own - other) for own, other in maps]
        low, high = bootstrap.difference_interval(labels, pairs, RESAMPLES, unknown_counts_as=rule)
        rows.append({
            "method": group.name, "seeds": len(shared), "baseline": base.name,
            **spread("difference", points), "low": 100 * low, "high": 100 * high,
        })  # fmt: skip
    if not rows:
        raise UnavailableError("no other method has a run with a seed of an's")
    return rows


def crop_interval(found: Analysis) -> list[Row]:
    """mAP against the interval of the crops' area, see `crop_experiment.read`."""
    if found.crops is None:
        raise UnavailableError("--experiment_csv is not given")
    return found.crops


def selection(found: Analysis) -> list[Row]:
    """Precision and recall of the expected positives by epoch, means over the seeds that have them.

    Returns:
        A row for each group and epoch in which some were selected, percent.
    """
    rows = []
    for group in found.groups:
        by_epoch: dict[int, list[tuple[float, float]]] = {}
        for run in group.runs:
            for entry in run.history:
                precision, recall = entry.get("selection_precision"), entry.get("selection_recall")
                if precision and recall:
                    pair = float(precision), float(recall)
                    by_epoch.setdefault(int(entry["epoch"]), []).append(pair)
        for epoch, pairs in sorted(by_epoch.items()):
            row = {"method": group.name, "seeds": len(pairs), "epoch": epoch}
            precisions, recalls = zip(*pairs, strict=True)
            rows.append({
                **row, **spread("precision", [100 * x for x in precisions]),
                **spread("recall", [100 * x for x in recalls]),
            })  # fmt: skip
    if not rows:
        raise UnavailableError("no run selected expected positives whose true labels are known")
    return rows


def pointing(found: Analysis) -> list[Row]:
    """The pointing game for each group, and for a point in the middle of every image.

    Returns:
        A row each: share of hits over pairs and its mean over classes, in percent.
    """
    (boxes, _), classes = found.boxes(), len(found.class_names)
    rows = [
        {"method": group.name, **_pointing(list(map(found.peaks, group.runs)), boxes, classes)}
        for group in found.groups
    ]
    middle = np.full((len(boxes), classes, 2), 0.5)
    return [*rows, {"method": CENTRE, **_pointing([middle], boxes, classes)}]


def _pointing(peaks: Sequence[NDArray[Any]], boxes: Sequence[NDArray[Any]], classes: int) -> Row:
    shares, by_class = [], []
    for points in peaks:
        hits, pairs = measures.pointing_hits(points, boxes, classes)
        shares.append(100 * hits.sum() / pairs.sum())
        by_class.append(100 * float(np.mean(hits[pairs > 0] / pairs[pairs > 0])))
    return {
        "seeds": len(shares), "pairs": int(pairs.sum()), **spread("hits", shares),
        "hits_class_mean": statistics.mean(by_class),
    }  # fmt: skip


def mask_share(found: Analysis) -> list[Row]:
    """Share of the heatmaps' sum inside the masks, for each group and for a map that is even.

    Returns:
        A row each: mean over pairs of an image and a class in its mask, and mean over classes of
        each class's mean, in percent.
    """
    images, classes = found.masked_images(), len(found.class_names)
    numbers = images.mask_numbers or ()
    paths = images.masks or ()

    def masks() -> Iterator[NDArray[Any]]:
        """Read anew for each run, so that one is held and not all."""
        for path, photo in zip(paths, images.paths or (), strict=True):
            yield mask_of_photo(str(path), photo, images.mask_classes, images.max_megapixels)

    if not any(np.isin(mask, numbers).any() for mask in masks()):
        raise UnavailableError("the masks show no class")

    def row(name: str, runs: Iterable[Iterable[NDArray[Any]]]) -> Row:
        inside = measures.energy_inside
        shares = [
            np.array([100 * inside(*x, numbers) for x in zip(maps, masks(), strict=True)])
            for maps in runs
        ]
        pairs = int((~np.isnan(shares[0])).sum())
        by_class = [np.nanmean(x[:, ~np.isnan(x).all(axis=0)], axis=0).mean() for x in shares]
        return {
            "method": name, "seeds": len(shares), "pairs": pairs,
            **spread("share", [float(np.nanmean(x)) for x in shares]),
            "share_class_mean": float(np.mean(by_class)),
        }  # fmt: skip

    rows = [
        row(group.name, (found.heatmaps(run, images) for run in group.runs))
        for group in found.groups
    ]
    return [*rows, row(EVEN, [[np.ones((1, 1, classes))] * len(paths)])]


def per_class(found: Analysis) -> list[Row]:
    """Average precision of every class, in percent, and how many of its labels are known.

    A class without positives is left out.
    """
    found.check_positives()
    rows, counts = [], known_counts(found.labels)
    for group in found.groups:
        own = np.array([
            100 * average_precision(run.labels, run.scores, found.unknown_counts_as)
            for run in group.runs
        ])  # fmt: skip
        for name, values, known in zip(found.class_names, own.T, counts, strict=True):
            if not np.isnan(values).any():
                row = {"method": group.name, "seeds": len(values), "class": name}
                rows.append({**row, **spread("ap", values.tolist()), **known})
    return rows


def reliability(found: Analysis) -> list[Row]:
    """Bins of a reliability diagram, seeds pooled; the error is that of the pooled labels."""
    if not tells_negatives(found.labels, found.unknown_counts_as):
        raise UnavailableError(f"the labels in {found.split} tell of no negatives in some class")
    rows = []
    for group in found.groups:
        labels, scores = (
            np.concatenate([getattr(run, part) for run in group.runs])
            for part in ("labels", "scores")
        )
        labels = as_counted(labels, found.unknown_counts_as)
        curve = measures.reliability(labels, scores, RELIABILITY_BINS)
        bins = zip(curve.edges[:-1], curve.edges[1:], *curve[1:4], strict=True)
        for low, high, score, share, count in bins:
            row = {"method": group.name, "seeds": len(group.runs), "low": low, "high": high}
            row |= {"labels": int(count), "mean_score": score, "positives": share}
            rows.append({**row, "calibration_error": curve.error})
    return rows


def by_method(rows: Sequence[Row], key: Callable[[Row], Any] | None = None) -> dict[Any, list[Row]]:
    """Rows by method, or by another key, in their order."""
    found: dict[Any, list[Row]] = {}
    for row in rows:
        found.setdefault(key(row) if key else row["method"], []).append(row)
    return found
