"""The page of suggested photos: the labels of each that nobody has given, to be decided."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from spml_tf.pages import html_page
from spml_tf.pages.html_page import text
from spml_tf.pages.page_controls import OPACITY, SAVED, SAVING, WHICH, label_buttons
from spml_tf.pages.report_photos import ShownPhoto, map_controls, script_data, stage
from spml_tf.pages.report_sections import omitted, section

_SCRIPTS = (
    "maps.js", "heatmaps.js", "decisions.js", "reviewed_csv.js", "deciding.js", "suggest.js"
)  # fmt: skip
_STYLES = "report.css", "audit.css", "suggest.css"


@dataclasses.dataclass(frozen=True)
class SuggestedPhoto:
    """A photo to label in full.

    Attributes:
        photo: the training image, with the heatmaps of its classes.
        labels: indices of the classes to decide, in the order shown.
        scores: of these classes for the image, in [0, 1].
    """

    photo: ShownPhoto
    labels: Sequence[int]
    scores: Sequence[float]


def build(
    name: str,
    facts: Mapping[str, Any],
    class_names: Sequence[str],
    suggested: Sequence[SuggestedPhoto],
    listed: int,
) -> str:
    """The whole document.

    Args:
        name: the run's.
        facts: as suggest.json holds them, see `spml_tf.pages.suggest`.
        class_names: L names.
        suggested: photos, best first.
        listed: how many labels suggest.csv lists.
    """
    photos = [found.photo for found in suggested]
    shown = sum(len(found.labels) for found in suggested)
    rest = (
        f" suggest.csv lists {listed:,} labels, this page the {shown:,} most probable ones of "
        f"{len(photos):,} photos."
        if shown < listed
        else ""
    )
    cards = "".join(_card(found, i, class_names) for i, found in enumerate(suggested))
    content = f'<div class="cards">{cards}</div>' if cards else omitted("--shown=0")
    body = (
        '<a class="skip" href="#suggested">Skip to the photos</a>'
        f"<header><h1>Photos to label next: {text(name)}</h1>"
        f"<p>{len(photos)} photos, chosen by {text(facts['rule'])}. Decide every class of a photo: "
        f"those that are present first, then the rest at once as absent.{rest}</p></header>"
        + _controls(photos)
        + f"<main>{section('suggested', 'Photos, best first', content)}</main>"
        + script_data(class_names, photos)
        + html_page.data_element("audit-data", {"key": facts["data_fingerprint"]})
    )
    styles = "".join(map(html_page.asset, _STYLES))
    return html_page.page(
        f"{name}: photos to label next", body, html_page.scripts(*_SCRIPTS), styles
    )


def _controls(photos: Sequence[ShownPhoto]) -> str:
    return f"""<div class="controls" role="group" aria-label="Review">
{WHICH}
{map_controls(photos, OPACITY)}
{SAVING}
<p class="quiet">Keys on a class: P present, A absent, U undecided, R the rest of the photo absent,
arrows down and up for the next class and the one before, right and left for photos, Z larger,
Ctrl+Z undo; while H is held there are no heatmaps. {SAVED}</p></div>"""


def _card(found: SuggestedPhoto, index: int, class_names: Sequence[str]) -> str:
    photo = found.photo
    labelled = ", ".join(class_names[x] for x in photo.labelled) or "nothing"
    rows = "".join(
        label_buttons(
            photo.name,
            class_names[label],
            f'data-label="{label}"',
            f"<span>{text(class_names[label])}</span><output>{score:.2f}</output>",
        )
        for label, score in zip(found.labels, found.scores, strict=True)
    )
    return (
        f'<figure class="card" data-photo="{index}" data-shown="{found.labels[0]}">'
        f"{stage(photo, f'Training photo {photo.name}, annotated {labelled}')}<figcaption>"
        f'<p class="facts-of quiet">annotated: {text(labelled)}</p><div class="labels">{rows}</div>'
        f'<button type="button" class="rest">the rest absent</button></figcaption></figure>'
    )
