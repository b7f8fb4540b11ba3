"""Several runs side by side, as HTML tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from spml_tf.pages.report_sections import Difference, known_columns, shown_flag, table
from spml_tf.runs.result_lines import has_best_epoch
from spml_tf.runs.settings import Settings


def tables(
    settings: Mapping[str, Settings],
    metrics: Mapping[str, Mapping[str, Any]],
    class_names: Sequence[str],
    known: Sequence[Mapping[str, int]],
    split: str,
) -> str:
    """Mean average precision of each run, the flags that differ, and each class's precision.

    Args:
        settings: by the runs' names; the first run is the one that others are subtracted from.
        metrics: metrics.json by the same names.
        class_names: L names.
        known: how many labels of each class are known in `split`, from `labels.known_counts`.
        split: "val" or "test", which the classes are compared on.
    """
    return (
        _means(settings, metrics) + _flags(settings) + _classes(metrics, class_names, known, split)
    )


def _means(settings: Mapping[str, Settings], metrics: Mapping[str, Mapping[str, Any]]) -> str:
    parts = [x for x in ("val", "test") if any(x in found for found in metrics.values())]
    columns = [("run", False), ("method", False), ("seed", True), ("best epoch", True)]
    columns += [(f"mAP {part} (%)", True) for part in parts]
    rows = [
        [
            name,
            own.method,
            own.seed,
            metrics[name]["best_epoch"] if has_best_epoch(metrics[name]) else None,
            *(metrics[name][part]["map"] if part in metrics[name] else None for part in parts),
        ]
        for name, own in settings.items()
    ]
    return table("Mean average precision of the runs", columns, rows, sortable=True)


def _flags(settings: Mapping[str, Settings]) -> str:
    values = {name: dataclasses.asdict(own) for name, own in settings.items()}
    flags = next(iter(values.values()))
    rows = [
        [f"--{flag}", *(shown_flag(own[flag]) for own in values.values())]
        for flag in flags
        if len({str(own[flag]) for own in values.values()}) > 1
    ]
    if not rows:
        return "<p>The runs have the same flags.</p>"
    columns = [("flag", False), *((name, False) for name in values)]
    return table("Flags in which the runs differ", columns, rows)


def _classes(
    metrics: Mapping[str, Mapping[str, Any]],
    class_names: Sequence[str],
    known: Sequence[Mapping[str, int]],
    split: str,
) -> str:
    """A row per class: the first run's precision, then each other's and what it gains."""
    found = {name: run[split]["ap"] for name, run in metrics.items() if split in run}
    first, *others = found
    columns = [("class", False), *known_columns(split), (first, True)]
    for name in others:
        columns += [(name, True), (f"{name} \u2212 {first}", True)]
    rows = []
    for label, counts in zip(class_names, known, strict=True):
        row: list[object] = [label, *counts.values(), found[first].get(label)]
        for name in others:
            value = found[name].get(label)
            row += [value, _gain(value, found[first].get(label))]
        rows.append(row)
    caption = f"Average precision by class on {split}, in percent; the headings sort"
    return table(caption, columns, rows, sortable=True)


def _gain(value: float | None, before: float | None) -> Difference | None:
    return None if value is None or before is None else Difference(value - before)
