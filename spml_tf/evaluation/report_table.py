"""The report of `python -m spml_tf.evaluate` as a table of text."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from spml_tf.evaluation.decision_report import MEASURES
from spml_tf.system.errors import printable

_TITLES = {"precision": "precision", "recall": "recall", "f1": "F1"}


def report_table(report: Mapping[str, Any]) -> str:
    """A row a class, then the macro and micro means; percent but for counts and thresholds.

    Args:
        report: of `runs.evaluate_run.evaluate`; without decisions their columns are left out.

    Returns:
        Lines: titles, classes, means, divided by rules.

    Examples:
        >>> known = {"cat": {"positives": 3, "negatives": 5, "unknown": 0}}
        >>> print(report_table({"known": known, "ap": {"cat": 87.654}, "map": 87.654}))
        class  positives     AP
        -----------------------
        cat            3  87.65
        -----------------------
        macro          3  87.65
    """
    decided = MEASURES if "threshold" in report else ()
    titles = ["class", "positives", "AP", *(_TITLES[x] for x in decided)]
    rows, total = [], 0
    for name, known in report["known"].items():
        values = [report["ap"][name], *(report[x][name] for x in decided)]
        ends = [f"{report['threshold'][name]:.4f}"] if decided else []
        rows.append([printable(name), str(known["positives"]), *map(_percent, values), *ends])
        total += known["positives"]
    means = {"macro": [report["map"], *(report["macro"][x] for x in decided)]}
    if decided:
        titles.append("threshold")
        means["micro"] = [report["micro"][x] for x in ("ap", *decided)]
    ends = [""] if decided else []
    below = [[name, str(total), *map(_percent, x), *ends] for name, x in means.items()]
    return _aligned([titles], rows, below)


def _aligned(*parts: Sequence[Sequence[str]]) -> str:
    """Rows of equal length, divided by rules; the first column to the left, others to the right."""
    columns = zip(*(row for part in parts for row in part), strict=True)
    widths = [max(map(_width, column)) for column in columns]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))

    def line(row: Sequence[str]) -> str:
        gaps = [" " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)]
        first = row[0] + gaps[0]
        others = (gap + cell for gap, cell in zip(gaps[1:], row[1:], strict=True))
        return "  ".join([first, *others]).rstrip()

    return f"\n{rule}\n".join("\n".join(map(line, part)) for part in parts)


def _width(text: str) -> int:
    """How many columns of a terminal a text takes: letters of East Asia take two, accents none."""
    wide = sum(unicodedata.east_asian_width(x) in "WF" for x in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
