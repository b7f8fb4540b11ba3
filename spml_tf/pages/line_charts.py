"""Curves by epoch: what to draw from the histories of runs, and drawing it as SVG inside a page."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.ticker import MaxNLocator

from spml_tf.pages.html_page import text

# Of the drawing, in units of its own: the page scales it.
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 360, 200, 44, 10, 10, 34
# Line styles the page has: colours with dashes, and widths.
_STYLES, _WIDTHS = 6, 3
_TITLES = {
    "map": "mAP (%)",
    "loss": "Loss, all terms",
    "classification_loss": "Classification loss",
    "consistency_loss": "Consistency loss",
    "selection_precision": "Expected positives that are right (precision)",
    "selection_recall": "Missing labels found (recall)",
    "selected": "Number of expected positives",
}
_SELECTION = ("selection_precision", "selection_recall")
_NO_CURVES = ("epoch", "seconds")

History = Sequence[Mapping[str, str]]


@dataclasses.dataclass(frozen=True)
class Series:
    """A curve.

    Attributes:
        name: what the legend calls it.
        values: one an epoch, None where there is none.
    """

    name: str
    values: tuple[float | None, ...]


@dataclasses.dataclass(frozen=True)
class Chart:
    """Curves that share their axes.

    Attributes:
        title: what is drawn, with its unit.
        epochs: the epochs, ascending.
        series: at least one curve, with a value for each epoch.
    """

    title: str
    epochs: tuple[int, ...]
    series: tuple[Series, ...]


def run_charts(history: History) -> list[Chart]:
    """The curves of a run: mAP, each term of the loss, the selection; training and validation.

    Args:
        history: rows of history.csv.

    Returns:
        The charts; columns without any number are left out.
    """
    epochs = tuple(int(row["epoch"]) for row in history)
    charts = []
    for stem in _stems(history):
        columns = {"training": stem, "validation": f"val_{stem}"}
        title = _title(stem)
        if stem == "map":
            columns = {"training, on the observed labels": stem, "validation": f"val_{stem}"}
        if stem in _SELECTION:
            if stem != _SELECTION[0]:
                continue
            columns = {"precision": _SELECTION[0], "recall": _SELECTION[1]}
            title = "Expected positives: precision and recall"
        elif stem == "selected":
            columns = {"expected positives": stem}
        found = [(name, _values(history, epochs, column)) for name, column in columns.items()]
        charts += _chart(title, epochs, found)
    return charts


def comparison_charts(histories: Mapping[str, History]) -> list[Chart]:
    """The curves of several runs over one another, a chart for each column of their histories.

    Args:
        histories: rows of history.csv by the runs' names.

    Returns:
        The charts, validation mAP first.
    """
    rows = [row for history in histories.values() for row in history]
    epochs = tuple(sorted({int(row["epoch"]) for row in rows}))
    charts = []
    for stem in _stems(rows):
        for column, where in ((f"val_{stem}", ", validation"), (stem, "")):
            paired = any(f"val_{stem}" in row for row in rows)
            title = _title(stem) + (where or (", training" if paired else ""))
            found = [(name, _values(rows, epochs, column)) for name, rows in histories.items()]
            charts += _chart(title, epochs, found)
    return charts


def _chart(
    title: str, epochs: tuple[int, ...], found: Iterable[tuple[str, tuple[float | None, ...]]]
) -> list[Chart]:
    series = [Series(name, values) for name, values in found if any(x is not None for x in values)]
    return [Chart(title, epochs, tuple(series))] if series else []


def _title(stem: str) -> str:
    return _TITLES.get(stem, stem.replace("_", " ").capitalize())


def _stems(rows: History) -> list[str]:
    """Columns without the prefix val_, the best known first, the selection last."""
    columns = dict.fromkeys(name for row in rows for name in row if name not in _NO_CURVES)
    stems = list(dict.fromkeys(name.removeprefix("val_") for name in columns))
    order = list(_TITLES)
    last = order.index(_SELECTION[0])
    return sorted(stems, key=lambda x: order.index(x) if x in order else last - 0.5)


def _values(rows: History, epochs: Sequence[int], column: str) -> tuple[float | None, ...]:
    """A column's numbers at these epochs; mAP in percent."""
    factor = 100.0 if column.removeprefix("val_") == "map" else 1.0
    found = {int(row["epoch"]): number(row.get(column, "")) for row in rows}
    values = [found.get(epoch) for epoch in epochs]
    return tuple(None if value is None else factor * value for value in values)


def number(cell: str | None) -> float | None:
    """A cell of a table as a finite number, None for what is none."""
    try:
        value = float(cell or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def figure(chart: Chart, index: int) -> str:
    """A chart as HTML: its title, the drawing, a legend and a line for the values pointed at.

    Args:
        chart: the curves.
        index: its place among the page's `readings`.
    """
    legend = "".join(
        f'<span><svg viewBox="0 0 28 8" width="28" height="8" aria-hidden="true">'
        f'<path class="curve {_style(i)}" d="M1 4H27"/></svg> {text(series.name)}</span>'
        for i, series in enumerate(chart.series)
    )
    return (
        f'<figure class="chart" data-chart="{index}"><figcaption>{text(chart.title)}</figcaption>'
        f'{_svg(chart)}<p class="legend">{legend}</p>'
        '<p class="reading quiet" aria-live="polite">\u00a0</p></figure>'
    )


def readings(charts: Sequence[Chart]) -> list[dict[str, Any]]:
    """What the page's script reads values from, and where on the drawing each epoch is."""
    return [
        {
            "epochs": chart.epochs,
            "x": [round(_x(chart.epochs, epoch), 2) for epoch in chart.epochs],
            "series": [
                {
                    "name": series.name,
                    "values": [None if x is None else round(x, 5) for x in series.values],
                }
                for series in chart.series
            ],
        }
        for chart in charts
    ]


def describe(chart: Chart) -> str:
    """A chart in words, for those who cannot see it."""
    parts = [f"{chart.title} by epoch, {chart.epochs[0]} to {chart.epochs[-1]}"]
    for series in chart.series:
        pairs = zip(series.values, chart.epochs, strict=True)
        known = [(value, epoch) for value, epoch in pairs if value is not None]
        low, high = min(known), max(known)
        parts.append(
            f"{series.name}: {known[0][0]:.4g} at epoch {known[0][1]}, {known[-1][0]:.4g} at epoch "
            f"{known[-1][1]}, lowest {low[0]:.4g} at {low[1]}, highest {high[0]:.4g} at {high[1]}"
        )
    return ". ".join(parts) + "."


def _style(index: int) -> str:
    """Classes of colour and dashes; where they come again, in another width."""
    again = index // _STYLES % _WIDTHS
    return f"s{index % _STYLES + 1}" + (f" again{again}" if again else "")


def _x(epochs: Sequence[int], epoch: float) -> float:
    span = max(epochs[-1] - epochs[0], 1)
    return _LEFT + (epoch - epochs[0]) / span * (_WIDTH - _LEFT - _RIGHT)


def _svg(chart: Chart) -> str:
    known = [x for series in chart.series for x in series.values if x is not None]
    low, high = min(known), max(known)
    if low == high:
        margin = abs(low) / 10 or 0.5
        low, high = low - margin, high + margin
    ticks = [float(x) for x in MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]
    low, high = ticks[0], ticks[-1]

    def place(value: float) -> float:
        return _TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [_y_tick(place(tick), f"{tick:.6g}") for tick in ticks]
    last = chart.epochs[-1]
    locator = MaxNLocator(6, integer=True)
    for tick in locator.tick_values(chart.epochs[0], last):
        if chart.epochs[0] <= tick <= last:
            parts.append(_text(_x(chart.epochs, tick), _HEIGHT - 19, "middle", f"{tick:.0f}"))
    parts.append(_text((_WIDTH + _LEFT) / 2, _HEIGHT - 4, "middle", "epoch"))
    for index, series in enumerate(chart.series):
        parts.append(_curve(chart.epochs, series, place, _style(index)))
    bottom = _HEIGHT - _BOTTOM
    parts.append(f'<path class="pointer" d="" data-from="{_TOP}" data-to="{bottom}"/>')
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" tabindex="0" '
        f'aria-label="{text(describe(chart))}">{"".join(parts)}</svg>'
    )


def _curve(epochs: Sequence[int], series: Series, place: Any, style: str) -> str:
    """A path that is interrupted where there is no value; a lone value is a dot."""
    words, lone, pen = [], [], "M"
    values = [None, *series.values, None]
    for position, epoch in enumerate(epochs, start=1):
        value = values[position]
        if value is None:
            pen = "M"
            continue
        x, y = f"{_x(epochs, epoch):.1f}", f"{place(value):.1f}"
        words.append(f"{pen}{x} {y}")
        if values[position - 1] is None and values[position + 1] is None:
            lone.append(f'<circle class="dot {style}" cx="{x}" cy="{y}" r="2.5"/>')
        pen = "L"
    return f'<path class="curve {style}" d="{"".join(words)}"/>{"".join(lone)}'


def _y_tick(y: float, label: str) -> str:
    line = f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>'
    return line + _text(_LEFT - 5, y + 3.5, "end", label)


def _text(x: float, y: float, anchor: str, words: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text(words)}</text>'
