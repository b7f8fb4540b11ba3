"""The drawings of an analysis, a function a figure.

Each takes the rows that the function of the same name in `analysis_tables` made, the title to draw
above, and the names of all groups of runs, whose places give each its colour in every figure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from spml_tf.drawing.contact_sheet import drawable
from spml_tf.drawing.figure_files import MARKERS, Row, set_title
from spml_tf.figures.analysis_tables import by_method

# Okabe and Ito's palette, told apart with any colour vision, then some of Tol's.
_COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000",
    "#882255", "#999933", "#888888", "#332288", "#44AA99",
)  # fmt: skip
# Classes drawn in a figure of bars: those of a larger data set are in the CSV.
_MOST_CLASSES = 40


def _figure(width: float, height: float, title: str) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    set_title(figure, title)
    return figure


def _plain(axis: Axes) -> Axes:
    axis.spines[["top", "right"]].set_visible(False)
    return axis


def _style(names: Sequence[str], name: str) -> dict[str, Any]:
    marker = MARKERS[names.index(name) % len(MARKERS)]
    return {"color": _colour(names, name), "marker": marker}


def _colour(names: Sequence[str], name: str) -> str:
    """The group's own colour: of a palette, or where it is too small of a scale."""
    place = names.index(name)
    if len(names) <= len(_COLOURS):
        return _COLOURS[place]
    return to_hex(matplotlib.colormaps["turbo"](place / (len(names) - 1)))


def _deviations(rows: Sequence[Row], name: str) -> list[float]:
    return [row[f"{name}_std"] or 0.0 for row in rows]


def _legend(figure: Figure, axis: Axes) -> None:
    """Names the methods under the figure, where no data can lie."""
    handles, names = axis.get_legend_handles_labels()
    shown = figure.legend(
        handles, names, loc="outside lower center", ncols=min(5, len(names)), frameon=False,
        fontsize=9,
    )  # fmt: skip
    for text in shown.get_texts():
        text.set_parse_math(False)


def top_scores(rows: Sequence[Row], title: str, names: Sequence[str]) -> Figure:
    """Histograms of the highest scores: a row of panels a rank, a column a method."""
    methods = by_method(rows)
    ranks = sorted({row["rank"] for row in rows})
    size = 1.2 + 1.8 * len(methods), 1.0 + 1.25 * len(ranks)
    figure = _figure(max(5.0, size[0]), size[1], title)
    axes = figure.subplots(len(ranks), len(methods), sharex=True, sharey="row", squeeze=False)
    for column, (name, own) in enumerate(methods.items()):
        for line, (rank, bars) in enumerate(by_method(own, lambda row: row["rank"]).items()):
            axis = _plain(axes[line, column])
            edges = [*(row["low"] for row in bars), bars[-1]["high"]]
            shares = [100 * row["share"] for row in bars]
            axis.stairs(shares, edges, fill=True, color=_colour(names, name))
            axis.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
            axis.tick_params(labelsize=8)
            if column == 0:
                axis.set_ylabel(f"{_ordinal(rank)}, %", fontsize=9)
        axes[0, column].set_title(name, fontsize=9, parse_math=False)
    figure.supxlabel("score; each row of panels has its own scale", fontsize=9)
    return figure


def _ordinal(number: int) -> str:
    return f"{number}{({1: 'st', 2: 'nd', 3: 'rd'}).get(number, 'th')}"


def difference(rows: Sequence[Row], title: str, names: Sequence[str]) -> Figure:
    """Differences in mAP to the baseline with their intervals, a line a method."""
    figure = _figure(6.5, 1.4 + 0.36 * len(rows), title)
    axis = _plain(figure.subplots())
    axis.axvline(0, color="0.6", linewidth=1)
    for place, row in enumerate(rows):
        axis.plot([row["low"], row["high"]], [place, place], color=_colour(names, row["method"]))
        axis.plot(row["difference"], place, **_style(names, row["method"]))
        shown = f" {row['difference']:+.2f}".replace("-", "\u2212")
        axis.annotate(shown, (row["high"], place), va="center", fontsize=8)
    axis.set_yticks(range(len(rows)), [row["method"] for row in rows], parse_math=False)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.margins(x=0.15)
    axis.set_xlabel(f"mAP less that of {rows[0]['baseline']} (points)", parse_math=False)
    return figure


def gain_by_size(rows: Sequence[Row], title: str, names: Sequence[str]) -> Figure:
    """Lines of the gain over the baseline, relative to its mAP, by bin of object size."""
    figure = _figure(7, 4.4, title)
    axis = _plain(figure.subplots())
    for name, own in by_method(rows).items():
        places, gains = [row["bin"] for row in own], [row["gain"] for row in own]
        axis.plot(places, gains, label=name, **_style(names, name))
    bins = [own[0] for own in by_method(rows, lambda row: row["bin"]).values()]
    ticks = [
        f"{row['size_low']:.2g} to {row['size_high']:.2g}%\n({row['positives']})" for row in bins
    ]
    axis.set_xticks([row["bin"] for row in bins], ticks, fontsize=8)
    axis.set_xlabel("area of the class's largest object in the image (positives in the bin)")
    base = rows[0]["baseline"]
    axis.set_ylabel(f"gain in mAP over {base} (% of {base}'s mAP)", parse_math=False)
    _legend(figure, axis)
    return figure


def crop_interval(rows: Sequence[Row], title: str, names: Sequence[str]) -> Figure:
    """Lines of mAP against the interval of the crops' area."""
    figure = _figure(6.5, 4.4, title)
    axis = _plain(figure.subplots())
    areas = list(by_method(rows, lambda row: row["crop_area"]))
    areas.sort(key=lambda area: -float(area.partition(",")[0]))
    own_names = list(by_method(rows))  # an experiment's rows, which need not be the groups
    names = names if set(own_names) <= set(names) else own_names
    for name, own in by_method(rows).items():
        places, means = [areas.index(row["crop_area"]) for row in own], [row["map"] for row in own]
        style = _style(names, name)
        axis.errorbar(places, means, _deviations(own, "map"), label=name, capsize=3, **style)
    axis.set_xticks(range(len(areas)), [area.replace(",", " to ") for area in areas])
    axis.set_xlabel("area of the crops, as a part of the image's")
    axis.set_ylabel(f"mAP on {rows[0]['split']} (%)")
    _legend(figure, axis)
    return figure


def selection(rows: Sequence[Row], title: str, names: Sequence[str]) -> Figure:
    """Precision and recall of the expected positives by epoch."""
    figure = _figure(8, 4.0, title)
    axes = figure.subplots(1, 2, sharey=True)
    for axis, quantity in zip(axes, ("precision", "recall"), strict=True):
        _plain(axis)
        for name, own in by_method(rows).items():
            epochs, means = [row["epoch"] for row in own], [row[quantity] for row in own]
            every = max(1, len(epochs) // 8)
            style = _style(names, name)
            axis.plot(epochs, means, label=name, markevery=every, markersize=5, **style)
        axis.set_xlabel("epoch")
        axis.set_title(quantity, fontsize=10)
    axes[0].set_ylabel("%")
    _legend(figure, axes[0])
    return figure


def pointing(rows: Sequence[Row], title: str, names: Sequence[str]) -> Figure:
    """Bars of the share of hits in the pointing game."""
    return _bars(rows, title, names, "hits", "hits (% of pairs of image and class)")


def mask_share(rows: Sequence[Row], title: str, names: Sequence[str]) -> Figure:
    """Bars of the share of heatmaps inside of masks."""
    return _bars(rows, title, names, "share", "inside the object (% of the heatmap's sum)")


def _bars(rows: Sequence[Row], title: str, names: Sequence[str], value: str, label: str) -> Figure:
    """A bar for each row, gray where it is no group's."""
    figure = _figure(6.5, 1.3 + 0.36 * len(rows), title)
    axis = _plain(figure.subplots())
    places, shares = range(len(rows)), [row[value] for row in rows]
    deviations = _deviations(rows, value)
    colours = [_colour(names, row["method"]) if row["method"] in names else "0.7" for row in rows]
    axis.barh(places, shares, xerr=deviations, color=colours, capsize=3)
    for place, share, deviation in zip(places, shares, deviations, strict=True):
        axis.text(share + deviation, place, f" {share:.1f}", va="center", fontsize=8)
    axis.set_yticks(places, [row["method"] for row in rows], parse_math=False)
    axis.invert_yaxis()
    axis.set_xlim(0, max(105.0, 1.08 * max(shares)))
    axis.set_xticks(range(0, 101, 20))
    axis.set_xlabel(label)
    return figure


def per_class(rows: Sequence[Row], title: str, names: Sequence[str]) -> Figure:
    """Average precision of every class: a line of markers a class, one marker a method."""
    classes = by_method(rows, lambda row: row["class"])
    # Of many classes the ones in which the methods differ most.
    shown = sorted(classes, key=lambda name: -_range(classes[name]))[:_MOST_CLASSES]
    shown = [name for name in classes if name in set(shown)]
    if len(shown) < len(classes):
        title += f"; the {len(shown)} of {len(classes)} classes in which methods differ most"
    methods = by_method(rows)
    height = max(0.26, 0.1 * len(methods))
    figure = _figure(7, 1.5 + height * len(shown), title)
    axis = _plain(figure.subplots())
    thick = 0.8 / len(methods)
    for number, (name, own) in enumerate(methods.items()):
        kept = [row for row in own if row["class"] in shown]
        places = [shown.index(row["class"]) + thick * (number + 0.5) - 0.4 for row in kept]
        values = [row["ap"] for row in kept]
        axis.barh(places, values, thick, label=name, color=_colour(names, name))
    drawn = [drawable(name) for name in shown]
    axis.set_yticks(range(len(shown)), drawn, fontsize=8, parse_math=False)
    axis.margins(y=0.01)
    axis.invert_yaxis()
    low = _low(min(row["ap"] for name in shown for row in classes[name]))
    axis.set_xlim(low, 100)
    axis.set_xlabel("average precision (%)" + (f"; the axis begins at {low:.0f}" if low else ""))
    axis.set_axisbelow(True)
    axis.grid(axis="x", color="0.9")
    _legend(figure, axis)
    return figure


def _range(rows: Sequence[Row]) -> float:
    values = [float(row["ap"]) for row in rows]
    return max(values) - min(values)


def _low(smallest: float) -> float:
    """Where an axis up to 100 begins: at 0, but higher where nothing lies in its lower half."""
    return 0.0 if smallest < 50 else 10.0 * math.floor((smallest - 5) / 10)


def reliability(rows: Sequence[Row], title: str, names: Sequence[str]) -> Figure:
    """Reliability diagram: share of positives against mean score, and how many labels lie where."""
    figure = _figure(5.6, 7.0, title)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    _plain(upper).plot([0, 1], [0, 1], color="0.7", linestyle="--", label="calibrated")
    for name, own in by_method(rows).items():
        scores, positives = (np.array([row[x] for row in own]) for x in ("mean_score", "positives"))
        label, known = f"{name}: ECE {100 * own[0]['calibration_error']:.1f}%", ~np.isnan(scores)
        upper.plot(scores[known], positives[known], label=label, **_style(names, name))
        edges = [*(row["low"] for row in own), own[-1]["high"]]
        counts = [row["labels"] for row in own]
        lower.stairs(counts, edges, color=_colour(names, name), linewidth=1.5)
    upper.set_ylabel("share of positives")
    upper.legend(frameon=False, fontsize=8)
    _plain(lower).set_yscale("log")
    lower.set_ylabel("labels")
    lower.set_xlabel("score")
    return figure
