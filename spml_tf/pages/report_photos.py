"""Photos with heatmaps in a run's report, as HTML and as data for the page's script."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np

from spml_tf.pages import html_page
from spml_tf.pages.html_page import text
from spml_tf.pages.report_sections import table

# Scores listed below a photo, and chips for the highest ones beside those of its labels.
_LISTED, _CHIPS = 100, 4


@dataclasses.dataclass(frozen=True)
class ShownPhoto:
    """A photo with heatmaps.

    Attributes:
        name: the image's name.
        uri: the photo as a data: URI.
        size: its height and width in pixels.
        grid: cells of a heatmap, down and across.
        classes: indices of the k classes whose heatmaps are kept.
        maps: `html_page.quantised` values [k, grid].
        scores: L scores in [0, 1].
        labelled: indices of its positive labels.
        boxes: (class index, y1, x1, y2, x2) each, coordinates in [0, 1].
    """

    name: str
    uri: str
    size: tuple[int, int]
    grid: tuple[int, int]
    classes: tuple[int, ...]
    maps: str
    scores: tuple[float, ...]
    labelled: tuple[int, ...]
    boxes: tuple[tuple[float, ...], ...] = ()

    def data(self) -> dict[str, Any]:
        """What the page's script draws from."""
        return {
            "size": self.size,
            "grid": self.grid,
            "classes": self.classes,
            "maps": self.maps,
            "scores": [round(x, 4) for x in self.scores],
            "labelled": self.labelled,
            "boxes": [(int(c), *(round(x, 4) for x in rest)) for c, *rest in self.boxes],
        }


@dataclasses.dataclass(frozen=True)
class LabelPhoto:
    """A label to look at, such as one that is probably missing.

    Attributes:
        photo: the training image, with the heatmap of the class at least.
        label: index of the class.
        score: of the class for the image, in [0, 1].
        epochs_selected: for how many epochs it was an expected positive, None where not counted.
        truth: 1 or 0 where the full labels tell, else -1.
    """

    photo: ShownPhoto
    label: int
    score: float
    epochs_selected: int | None
    truth: int


def script_data(class_names: Sequence[str], photos: Sequence[ShownPhoto]) -> str:
    """The element that the script of heatmaps reads."""
    data = {
        "classes": class_names,
        "colours": html_page.colour_table(),
        "photos": [photo.data() for photo in photos],
    }
    return html_page.data_element("gallery-data", data)


def gallery(photos: Sequence[ShownPhoto], class_names: Sequence[str], split: str) -> str:
    """Photos with the controls of their heatmaps."""
    options = "".join(f'<option value="{i}">{text(x)}</option>' for i, x in enumerate(class_names))
    cards = "".join(_photo_card(photo, i, class_names) for i, photo in enumerate(photos))
    return f"""<p>Photos of the {text(split)} split. The heatmap is sigmoid(F) of the class named
below the photo; a check mark is a class that the photo is labelled with.</p>
<div class="controls" role="group" aria-label="Heatmaps">
<label>Class <select id="class"><option value="-1">highest score of each photo</option>
<option value="-2">none</option>{options}</select></label>
<label>Photos <select id="photos"><option value="all">all</option>
<option value="labelled">labelled with the class</option>
<option value="others">not labelled with it</option></select></label>
{map_controls(photos)}
<span id="count" role="status"></span></div>
<div class="cards">{cards}</div>"""


def map_controls(photos: Sequence[ShownPhoto], opacity: int = 60) -> str:
    """Opacity of all heatmaps, boxes where a photo has one, and the colours' scale.

    Args:
        photos: the page's.
        opacity: at first, in percent.
    """
    boxes = (
        '<label><input type="checkbox" id="boxes"> boxes</label>'
        if any(photo.boxes for photo in photos)
        else ""
    )
    return f"""<label>Opacity <input type="range" id="opacity" min="0" max="100" value="{opacity}">
<output id="opacity-value" for="opacity">{opacity}%</output></label>
{boxes}<span class="scale">0 <i style="background:{_gradient()}"></i> 1</span>"""


def _gradient() -> str:
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 1, 9), bytes=True)[:, :3]
    return f"linear-gradient(90deg,{','.join(f'rgb({r},{g},{b})' for r, g, b in colours)})"


def stage(photo: ShownPhoto, alt: str) -> str:
    """A photo with room for a heatmap over it, and its name."""
    height, width = photo.size
    return (
        f'<div class="stage"><img alt="{text(alt)}" src="{photo.uri}" width="{width}" '
        f'height="{height}"><canvas role="img" aria-label=""></canvas></div>'
        f'<p class="name">{text(photo.name)}</p>'
    )


def _photo_card(photo: ShownPhoto, index: int, class_names: Sequence[str]) -> str:
    order = sorted(range(len(photo.scores)), key=lambda x: -photo.scores[x])
    best = order[0]
    labels = ", ".join(class_names[x] for x in photo.labelled) or "no positive label"
    chosen = [x for x in order if x in photo.labelled or x in order[:_CHIPS]]
    chips = "".join(_chip(x, photo, class_names) for x in chosen)
    rows = [
        (class_names[x], photo.scores[x], "yes" if x in photo.labelled else "")
        for x in order[:_LISTED]
    ]
    columns = (("class", False), ("score", True), ("labelled", False))
    which = "All scores" if len(rows) == len(order) else f"The {len(rows)} highest scores"
    return (
        f'<figure class="card" data-photo="{index}" data-best="{best}" data-shown="{best}">'
        f"{stage(photo, f'Photo {photo.name}, labelled {labels}')}<figcaption>"
        f'<p class="shown" aria-live="polite"></p><div class="chips" role="group" '
        f'aria-label="Heatmap of {text(photo.name)}">{chips}</div>'
        f"<details><summary>{which}</summary>"
        f"{table(f'Scores of {photo.name}', columns, rows)}</details></figcaption></figure>"
    )


def _chip(label: int, photo: ShownPhoto, class_names: Sequence[str]) -> str:
    mark = (
        '<span aria-hidden="true">\u2713 </span><span class="unseen">labelled </span>'
        if label in photo.labelled
        else ""
    )
    return (
        f'<button type="button" data-label="{label}" aria-pressed="false">{mark}'
        f"<b>{text(class_names[label])}</b> {photo.scores[label]:.2f}</button>"
    )


def missing(found: Sequence[LabelPhoto], class_names: Sequence[str], first: int) -> str:
    """Labels that are probably missing, best first.

    Args:
        found: the labels.
        class_names: L names.
        first: place of the first photo among those of the page's script.
    """
    known = [x for x in found if x.truth >= 0]
    confirmed = sum(x.truth for x in known)
    said = (
        f" The full labels are known for {len(known)} of them and confirm {confirmed}."
        if known
        else ""
    )
    cards = "".join(label_card(x, first + i, class_names) for i, x in enumerate(found))
    return (
        f"<p>The {len(found)} labels of training images that are most probably missing, best "
        f"first, each with its heatmap; the number is the running average of the class's score in "
        f"training.{said}</p>"
        f'<div class="cards">{cards}</div>'
    )


def label_card(
    found: LabelPhoto, index: int, class_names: Sequence[str], controls: str = ""
) -> str:
    """A training photo with the heatmap of the label in question.

    Args:
        found: the label.
        index: place of the photo among those of the page's script.
        class_names: L names.
        controls: HTML below the card's text.
    """
    name = class_names[found.label]
    labels = ", ".join(class_names[x] for x in found.photo.labelled) or "nothing"
    parts = [f"annotated: {labels}"]
    if found.epochs_selected is not None:
        parts.append(f"expected positive in {found.epochs_selected} epochs")
    if found.truth >= 0:
        parts.append(f"full labels: {'present' if found.truth else 'absent'}")
    return (
        f'<figure class="card" data-photo="{index}" data-shown="{found.label}">'
        f"{stage(found.photo, f'Training photo {found.photo.name}, annotated {labels}')}"
        f'<figcaption><p class="facts-of"><strong>{text(name)}</strong> {found.score:.3f}</p>'
        f'<p class="facts-of quiet">{text("; ".join(parts))}</p>{controls}</figcaption></figure>'
    )
