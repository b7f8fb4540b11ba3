"""The rows behind the figures of an analysis: one list of dicts of equal keys for each figure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spml_tf.evaluation import bootstrap, measures
from spml_tf.evaluation.metrics import average_precision, mean_average_precision
from spml_tf.runs.run_groups import Group
from spml_tf.system.errors import UserError
from spml_tf.system.files import read_csv

Row = dict[str, Any]

RANKS = 4
SCORE_BINS = 20
SIZE_BINS = 5
RELIABILITY_BINS = 10
RESAMPLES = 1000
CENTRE = "image centre"


def top_score_rows(groups: Sequence[Group]) -> list[Row]:
    """How the 1st to 4th highest score of the validation images are distributed, seeds pooled."""
    rows = []
    for group in groups:
        tops = np.concatenate([measures.top_scores(run.val_scores, RANKS) for run in group.runs])
        for rank, values in enumerate(tops.T, start=1):
            edges, shares = measures.histogram(values, SCORE_BINS)
            for low, high, share in zip(edges[:-1], edges[1:], shares, strict=True):
                row = {"method": group.name, "seeds": len(group.runs), "rank": rank}
                rows.append({**row, "low": low, "high": high, "share": share})
    return rows


def size_rows(groups: Sequence[Group], sizes: NDArray) -> list[Row]:
    """mAP by object size, and the gain over the first group whose method is an.

    Args:
        groups: among them one of the method an.
        sizes: [M, L], from `measures.largest_objects`.

    Returns:
        A row for each bin and group; size in percent of the image's area, mAP and gain in percent.
    """
    labels = groups[0].runs[0].labels
    sizes = np.where(labels == 1, sizes, np.nan)
    edges = measures.size_edges(sizes, SIZE_BINS)
    counts = [int((measures.bin_of_size(sizes, edges) == x).sum()) for x in range(len(edges) - 1)]
    means = {}
    for group in groups:
        found = [
            measures.average_precision_by_size(run.labels, run.scores, sizes, edges)
            for run in group.runs
        ]
        means[group.name] = np.mean([np.nanmean(x, axis=1) for x in found], axis=0)
    name = next(group.name for group in groups if group.method == "an")
    rows = []
    for number, (low, high) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        for group in groups:
            value, base = means[group.name][number], means[name][number]
            rows.append({
                "method": group.name, "seeds": len(group.runs), "bin": number + 1,
                "size_low": 100 * low, "size_high": 100 * high, "positives": counts[number],
                "baseline": name, "map": 100 * value,
                "gain": float(measures.relative_gain(value, base)),
            })  # fmt: skip
    return rows


def difference_rows(groups: Sequence[Group]) -> list[Row]:
    """Difference in mAP to the first group whose method is an, over the seeds that both have.

    Args:
        groups: among them one of the method an; some label is positive.

    Returns:
        A row for each other group that shares a seed with it: points of mAP, mean and deviation
        over seeds, and the 95% interval of the mean over images.
    """
    base = next(group for group in groups if group.method == "an")
    labels = groups[0].runs[0].labels
    by_seed = {run.settings.seed: run for run in base.runs}
    rows = []
    for group in groups:
        shared = [run for run in group.runs if run.settings.seed in by_seed]
        if group is base or not shared:
            continue
        pairs = [(run.scores, by_seed[run.settings.seed].scores) for run in shared]
        points = [
            100 * (mean_average_precision(labels, own) - mean_average_precision(labels, other))
            for own, other in pairs
        ]
        low, high = bootstrap.difference_interval(labels, pairs, RESAMPLES)
        rows.append({
            "method": group.name, "seeds": len(shared), "baseline": base.name,
            **_spread("difference", points), "low": 100 * low, "high": 100 * high,
        })  # fmt: skip
    return rows


def crop_rows(path: str) -> list[Row]:
    """Mean mAP against the interval of the crops' area.

    Args:
        path: an experiment's CSV, with the columns row, crop_area, val_map and test_map.

    Returns:
        A row for each of the plan's rows and intervals, in the order of the intervals.

    Raises:
        UserError: a column is missing, a cell is no number, or there is no row.
    """
    table = _experiment(path)
    split = "test" if all(row["test_map"] for _, row in table) else "val"
    found: dict[tuple[str, str], list[float]] = {}
    for place, row in table:
        _interval(place, row["crop_area"])
        value = _float(place, f"{split}_map", row[f"{split}_map"])
        found.setdefault((row["row"], row["crop_area"]), []).append(value)
    order = sorted({area for _, area in found}, key=lambda area: _interval(path, area))
    names = dict.fromkeys(name for name, _ in found)
    return [
        {
            "method": name, "crop_area": area, "seeds": len(found[name, area]), "split": split,
            **_spread("map", found[name, area]),
        }
        for name in names for area in order if (name, area) in found
    ]  # fmt: skip


def _experiment(path: str) -> list[tuple[str, dict[str, str]]]:
    """("file:line", cells by column) of an experiment's CSV."""
    lines = list(read_csv(path, "give the CSV that python -m spml_tf.experiments wrote"))
    header = lines[0][1] if lines else []
    for column in ("row", "crop_area", "val_map", "test_map"):
        if column not in header:
            raise UserError(
                f"{path}:1: no column {column}; give the CSV of an experiment that varies "
                "crop_area, such as experiments/figure_b1_digits.toml"
            )
    if len(lines) == 1:
        raise UserError(f"{path}: no finished run; start the experiment again to go on with it")
    for place, cells in lines[1:]:
        if len(cells) != len(header):
            raise UserError(f"{place}: {len(cells)} cells, the header has {len(header)}; mend it")
    return [(place, dict(zip(header, cells, strict=True))) for place, cells in lines[1:]]


def _interval(place: str, text: str) -> tuple[float, float]:
    low, _, high = text.partition(",")
    # The strongest crops last.
    return -_float(place, "crop_area", low), _float(place, "crop_area", high)


def _float(place: str, column: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{place}: {column} is {text!r}, expected a number; mend it") from None


def selection_rows(groups: Sequence[Group]) -> list[Row]:
    """Precision and recall of the expected positives by epoch, means over the seeds that have them.

    Returns:
        A row for each group and epoch in which some were selected, percent; none without any.
    """
    rows = []
    for group in groups:
        found: dict[int, list[tuple[float, float]]] = {}
        for run in group.runs:
            for entry in run.history:
                pair = entry.get("selection_precision"), entry.get("selection_recall")
                if all(pair):
                    found.setdefault(int(entry["epoch"]), []).append(tuple(map(float, pair)))
        for epoch, pairs in sorted(found.items()):
            row = {"method": group.name, "seeds": len(pairs), "epoch": epoch}
            precisions, recalls = zip(*pairs, strict=True)
            rows.append({
                **row, **_spread("precision", [100 * x for x in precisions]),
                **_spread("recall", [100 * x for x in recalls]),
            })  # fmt: skip
    return rows


def pointing_rows(groups: Sequence[Group], boxes: Sequence[NDArray]) -> list[Row]:
    """The pointing game for each group, and for a point in the middle of every image.

    Args:
        groups: their runs have peaks.
        boxes: of the M images reported on, as in Examples.

    Returns:
        A row each: share of hits over pairs and its mean over classes, in percent.
    """
    classes = groups[0].runs[0].labels.shape[1]
    rows = [
        {"method": group.name, **_pointing([run.peaks for run in group.runs], boxes, classes)}
        for group in groups
    ]
    middle = np.full((len(boxes), classes, 2), 0.5)
    return [*rows, {"method": CENTRE, **_pointing([middle], boxes, classes)}]


def _pointing(peaks: Sequence[NDArray | None], boxes: Sequence[NDArray], classes: int) -> Row:
    shares, by_class = [], []
    for points in peaks:
        hits, pairs = measures.pointing_hits(points, boxes, classes)
        shares.append(100 * hits.sum() / pairs.sum())
        by_class.append(100 * float(np.mean(hits[pairs > 0] / pairs[pairs > 0])))
    return {
        "seeds": len(shares), "pairs": int(pairs.sum()), **_spread("hits", shares),
        "hits_class_mean": statistics.mean(by_class),
    }  # fmt: skip


def class_rows(groups: Sequence[Group], class_names: Sequence[str]) -> list[Row]:
    """Average precision of every class, in percent; a class without positives is left out."""
    rows = []
    for group in groups:
        found = np.array([100 * average_precision(run.labels, run.scores) for run in group.runs])
        for name, values in zip(class_names, found.T, strict=True):
            if not np.isnan(values).any():
                row = {"method": group.name, "seeds": len(values), "class": name}
                rows.append({**row, **_spread("ap", values.tolist())})
    return rows


def reliability_rows(groups: Sequence[Group]) -> list[Row]:
    """Bins of a reliability diagram, seeds pooled; the error is that of the pooled labels."""
    rows = []
    for group in groups:
        labels, scores = (
            np.concatenate([getattr(run, part) for run in group.runs])
            for part in ("labels", "scores")
        )
        found = measures.reliability(labels, scores, RELIABILITY_BINS)
        bins = zip(found.edges[:-1], found.edges[1:], *found[1:4], strict=True)
        for low, high, score, share, count in bins:
            row = {"method": group.name, "seeds": len(group.runs), "low": low, "high": high}
            row |= {"labels": int(count), "mean_score": score, "positives": share}
            rows.append({**row, "calibration_error": found.error})
    return rows


def _spread(name: str, values: Sequence[float]) -> Row:
    """Mean and sample standard deviation, empty for a single value."""
    deviation: float | str = statistics.stdev(values) if len(values) > 1 else ""
    return {name: statistics.mean(values), f"{name}_std": deviation}


def by_method(rows: Sequence[Row], key: Callable[[Row], Any] | None = None) -> dict[Any, list[Row]]:
    """Rows by method, or by another key, in their order."""
    found: dict[Any, list[Row]] = {}
    for row in rows:
        found.setdefault(key(row) if key else row["method"], []).append(row)
    return found
