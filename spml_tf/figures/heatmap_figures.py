"""Figures of heatmaps over photos, after Figs. 2 to 4 of Verelst et al. (WACV 2023).

Each function arranges the tiles of a figure; `draw` draws them and `numbers` are its CSV.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from spml_tf.drawing.contact_sheet import end_of
from spml_tf.drawing.figure_files import Row, set_title
from spml_tf.drawing.overlays import draw_scale, draw_tile
from spml_tf.labels import EXPECTED, NEGATIVE, POSITIVE, UNKNOWN
from spml_tf.runs.heatmap_history import Snapshots

KINDS = ("annotated positive", "positive without annotation", "negative")
# In inches: the width of a tile, and the height of its two lines of text.
_TILE, _TEXT = 1.7, 0.36
_LONGEST = 21  # characters above a tile
_EPOCHS_SHOWN = 6  # of growth


@dataclasses.dataclass(frozen=True)
class Picture:
    """A photo with what is known of it.

    Attributes:
        name: the image's name.
        photo: uint8 [H, W, 3], RGB.
        observed: int8 [L] of {1, 0, -1}, the labels trained on.
        truth: int8 [L] of {1, 0, -1}, the labels that the data set has.
        boxes: float32 [M, 5] of (class, y1, x1, y2, x2), as in Examples.
        labelled: whether labels are known at all; without, figures do not speak of them.
    """

    name: str
    photo: NDArray[np.uint8]
    observed: NDArray[np.int8]
    truth: NDArray[np.int8]
    boxes: NDArray[np.float32]
    labelled: bool = True

    def label(self, column: int) -> str:
        """What is known of a label, in words; "" where no labels are known."""
        if not self.labelled:
            return ""
        if self.observed[column] == POSITIVE:
            return "annotated"
        if self.observed[column] == NEGATIVE:
            return "annotated as absent"
        words = {POSITIVE: "present, not annotated", NEGATIVE: "absent", UNKNOWN: "unknown"}
        return words[int(self.truth[column])]

    def boxes_of(self, column: int) -> NDArray[np.float32]:
        """The boxes of a class, [m, 4] of (y1, x1, y2, x2)."""
        return self.boxes[self.boxes[:, 0] == column, 1:]


@dataclasses.dataclass(frozen=True)
class Heatmaps:
    """What a run makes of a picture.

    Attributes:
        maps: float [G, G, L] in [0, 1].
        scores: float [L] in [0, 1].
    """

    maps: NDArray[Any]
    scores: NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Tile:
    """A class's heatmap in a figure.

    Attributes:
        heatmap: float [G, G] in [0, 1], NaN where there is none.
        caption: above it, at most two lines.
        boxes: float [m, 4] of (y1, x1, y2, x2).
        row: its row of the CSV, to which `numbers` adds the heatmap's peak.
    """

    heatmap: NDArray[Any]
    caption: str
    boxes: NDArray[Any]
    row: Row


@dataclasses.dataclass(frozen=True)
class Line:
    """A photo and the tiles beside it."""

    photo: NDArray[np.uint8]
    caption: str
    boxes: NDArray[Any]
    tiles: tuple[Tile, ...]


def top_heatmaps(
    pictures: Sequence[Picture],
    heatmaps: Sequence[Heatmaps],
    class_names: Sequence[str],
    top: int,
) -> list[Line]:
    """The maps of the classes of highest score, a line an image (Fig. 2).

    Args:
        pictures: at least one.
        heatmaps: of each picture.
        class_names: L names.
        top: classes an image.
    """
    lines = []
    for picture, found in zip(pictures, heatmaps, strict=True):
        best = np.argsort(-found.scores, kind="stable")[:top]
        tiles = _tiles(picture, found, class_names, best, {})
        lines.append(Line(picture.photo, end_of(picture.name, _LONGEST), _NO_BOXES, tiles))
    return lines


def comparison(
    pictures: Sequence[Picture],
    by_run: Mapping[str, Sequence[Heatmaps]],
    class_names: Sequence[str],
    top: int,
) -> list[Line]:
    """The maps of the same classes by several runs, a line an image and run (Fig. 4).

    The classes of an image are its positives and then others, in either part those of highest mean
    score over the runs first.

    Args:
        pictures: at least one.
        by_run: the runs' names, and of each the heatmaps of every picture.
        class_names: L names.
        top: classes an image.
    """
    lines = []
    for number, picture in enumerate(pictures):
        found = {run: heatmaps[number] for run, heatmaps in by_run.items()}
        mean = np.mean([x.scores for x in found.values()], axis=0)
        present = (picture.observed == POSITIVE) | (picture.truth == POSITIVE)
        best = np.lexsort((-mean, ~present))[:top]
        for run, own in found.items():
            tiles = _tiles(picture, own, class_names, best, {"run": run})
            lines.append(
                Line(picture.photo, f"{run}\n{end_of(picture.name, _LONGEST)}", _NO_BOXES, tiles)
            )
    return lines


_NO_BOXES = np.zeros((0, 4), np.float32)


def _tiles(
    picture: Picture,
    found: Heatmaps,
    class_names: Sequence[str],
    columns: NDArray[np.int64],
    first: Row,
) -> tuple[Tile, ...]:
    tiles = []
    for column in columns:
        score, label = float(found.scores[column]), picture.label(column)
        row = {"image": picture.name, "class": class_names[column], "label": label, "score": score}
        caption = f"{_start_of(class_names[column])}: {score:.2f}\n{label}".rstrip("\n")
        boxes = picture.boxes_of(column)
        tiles.append(Tile(found.maps[..., column], caption, boxes, {**first, **row}))
    return tuple(tiles)


def growth_classes(picture: Picture, scores: NDArray[Any]) -> tuple[int, ...] | None:
    """A class of each of `KINDS`, the one of highest score, or None where a kind has none.

    Args:
        picture: an image.
        scores: [L], its scores in the end.
    """
    annotated = picture.observed == POSITIVE
    missing = (picture.observed == UNKNOWN) & (picture.truth == POSITIVE)
    kinds = (annotated, missing, (picture.truth == NEGATIVE) & ~annotated)
    if not all(kind.any() for kind in kinds):
        return None
    return tuple(int(np.argmax(np.where(kind, scores, -np.inf))) for kind in kinds)


def growth(picture: Picture, found: Snapshots, place: int, classes: Sequence[int]) -> list[Line]:
    """How the maps of an image grow over epochs, a line for a class of each kind (Fig. 3).

    Of more epochs six are shown, evenly spaced from the first to the last.

    Args:
        picture: the image.
        found: snapshots of at least one epoch.
        place: the image's place among theirs.
        classes: one of each of `KINDS`, see `growth_classes`.
    """
    places = np.linspace(0, len(found.epochs) - 1, _EPOCHS_SHOWN).round().astype(int)
    lines = []
    for kind, column in zip(KINDS, classes, strict=True):
        name, boxes = str(found.class_names[column]), picture.boxes_of(column)
        tiles = []
        for step in dict.fromkeys(places.tolist()):
            epoch, score = int(found.epochs[step]), float(found.scores[step, place, column])
            chosen = int(found.codes[step, place, column] == EXPECTED)
            row = {"image": picture.name, "class": name, "label": kind, "epoch": epoch}
            row |= {"score": score, "expected_positive": chosen}
            caption = f"epoch {epoch}: {score:.2f}" + chosen * "\nexpected positive"
            heatmap = found.maps[step, place, ..., column].astype(np.float64)
            tiles.append(Tile(heatmap, caption, boxes, row))
        lines.append(Line(picture.photo, f"{_start_of(name)}\n{kind}", boxes, tuple(tiles)))
    return lines


def numbers(lines: Sequence[Line]) -> list[Row]:
    """The rows behind a figure, one a tile.

    Returns:
        The tiles' rows with "peak", the map's highest value, "peak_y" and "peak_x", the centre of
        its cell in [0, 1] of the image (of several the first in reading order), and "in_box", 1
        where that lies in a box of the class, 0 where it lies in none, NaN where there is no box.
    """
    return [{**tile.row, **_peak(tile)} for line in lines for tile in line.tiles]


def _peak(tile: Tile) -> Row:
    if np.isnan(tile.heatmap).all():
        return dict.fromkeys(("peak", "peak_y", "peak_x", "in_box"), float("nan"))
    place = np.unravel_index(np.nanargmax(tile.heatmap), tile.heatmap.shape)
    y, x = (np.array(place) + 0.5) / tile.heatmap.shape
    y1, x1, y2, x2 = tile.boxes.T
    inside = ((y1 <= y) & (y <= y2) & (x1 <= x) & (x <= x2)).any()
    return {
        "peak": float(tile.heatmap[place]),
        "peak_y": float(y),
        "peak_x": float(x),
        "in_box": int(inside) if len(tile.boxes) else float("nan"),
    }


def draw(lines: Sequence[Line], title: str) -> Figure:
    """Draws photos and tiles on one scale from 0 to 1.

    Args:
        lines: at least one, each of at least one tile.
        title: drawn above.
    """
    columns = 1 + max(len(line.tiles) for line in lines)
    heights = [_TEXT + _TILE * min(x.photo.shape[0] / x.photo.shape[1], 2.0) for x in lines]
    size = (_TILE * columns + 0.8, sum(heights) + 0.4)
    layout = ConstrainedLayoutEngine(h_pad=0.03, w_pad=0.03, hspace=0.0, wspace=0.0)
    figure = Figure(figsize=size, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    set_title(figure, title)
    grid = figure.subplots(len(lines), columns, squeeze=False, height_ratios=heights)
    for line, axes in zip(lines, grid, strict=True):
        draw_tile(axes[0], line.photo, line.caption, boxes=line.boxes, fontsize=8)
        for axis, tile in zip(axes[1:], line.tiles, strict=False):
            draw_tile(axis, line.photo, tile.caption, tile.heatmap, tile.boxes, fontsize=8)
        for axis in axes[1 + len(line.tiles) :]:
            axis.set_axis_off()
    # About 4 inches high and 0.6 wide, however large the figure is.
    shrink = min(0.8, 4 / size[1])
    draw_scale(figure, grid.ravel().tolist(), shrink, fraction=0.6 / size[0])
    return figure


def _start_of(name: str) -> str:
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "\u2026"
