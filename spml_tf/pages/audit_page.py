"""The page of an audit: labels to look at, with buttons to decide and a file to save."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spml_tf.pages import html_page
from spml_tf.pages.html_page import text
from spml_tf.pages.page_controls import OPACITY, SAVED, SAVING, WHICH, label_buttons
from spml_tf.pages.report_photos import LabelPhoto, label_card, map_controls, script_data
from spml_tf.pages.report_sections import navigation, omitted, section, table

_SCRIPTS = (
    "maps.js", "heatmaps.js", "decisions.js", "reviewed_csv.js", "review_pace.js", "deciding.js",
    "audit.js",
)  # fmt: skip
_MISSING = """Labels nobody gave, the most probable first. The heatmap shows where the network sees
the class. Decide which are present; what you leave undecided stays unknown."""
_WRONG = """Labels that were given although the network sees little of the class, the least
probable first. Many of them are right and merely hard: decide only what you are sure of."""


def build(
    name: str,
    facts: Mapping[str, Any],
    class_names: Sequence[str],
    missing: Sequence[LabelPhoto],
    wrong: Sequence[LabelPhoto],
    positives: Sequence[int] = (),
) -> str:
    """The whole document.

    Args:
        name: the run's.
        facts: as audit.json holds them, see `spml_tf.pages.audit`.
        class_names: L names.
        missing: labels that are probably missing, best first.
        wrong: annotated labels that look wrong, worst first.
        positives: L numbers, how many annotated positives the classes have; where it is empty all
            count as equally rare.
    """
    parts = {
        "missing": ("Probably missing", _cards(missing, class_names, 0, _MISSING)),
        "wrong": ("Perhaps wrong", _cards(wrong, class_names, len(missing), _WRONG)),
    }
    photos = [found.photo for found in (*missing, *wrong)]
    body = (
        '<a class="skip" href="#missing">Skip to the labels</a>'
        f"<header><h1>Labels to review: {text(name)}</h1>"
        f"<p>The score is {_scores(facts)}.</p>"
        f"{_precision(facts)}</header>"
        + navigation({key: heading for key, (heading, _) in parts.items()})
        + _controls(class_names, photos)
        + "<main>"
        + "".join(section(key, *part) for key, part in parts.items())
        + "</main>"
        + script_data(class_names, photos)
        + html_page.data_element(
            "audit-data", {"key": facts["data_fingerprint"], "positives": list(positives)}
        )
    )
    script = html_page.scripts(*_SCRIPTS)
    style = html_page.asset("report.css") + html_page.asset("audit.css")
    return html_page.page(f"{name}: labels to review", body, script, style)


def _scores(facts: Mapping[str, Any]) -> str:
    if facts.get("scores") == "network":
        return "the network's for the class in the whole photo"
    method = f", method {text(facts['method'])}" if "method" in facts else ""
    return f"the running average of the class's score in training{method}"


def _precision(facts: Mapping[str, Any]) -> str:
    if not facts["precision"]:
        return ""
    rows = list(facts["precision"].items())
    columns = (("first", False), ("missing indeed (%)", True))
    return table("How many are missing indeed, by the full labels", columns, rows)


def _controls(class_names: Sequence[str], photos: Sequence[Any]) -> str:
    options = "".join(f'<option value="{i}">{text(x)}</option>' for i, x in enumerate(class_names))
    return f"""<div class="controls" role="group" aria-label="Review">
<label>Class <select id="class"><option value="-1">all</option>{options}</select></label>
{WHICH}
<label>Order <select id="order"><option value="score">by score</option>
<option value="classes">classes in turn</option>
<option value="gain">by expected gain</option></select></label>
{map_controls(photos, OPACITY)}
{SAVING}
<p class="quiet">Keys on a photo: P present, A absent, U undecided, arrows for the next and the one
before, Z larger, Ctrl+Z undo; while H is held there are no heatmaps. {SAVED}</p>
<p id="estimate"></p></div>"""


def _cards(found: Sequence[LabelPhoto], class_names: Sequence[str], first: int, note: str) -> str:
    if not found:
        return omitted("there is none, or --shown=0")
    cards = "".join(
        label_card(x, first + i, class_names, _buttons(x, class_names)) for i, x in enumerate(found)
    )
    return f'<p>{note}</p><div class="cards">{cards}</div>'


def _buttons(found: LabelPhoto, class_names: Sequence[str]) -> str:
    return label_buttons(
        found.photo.name, class_names[found.label], f'data-score="{found.score:.4f}"'
    )
