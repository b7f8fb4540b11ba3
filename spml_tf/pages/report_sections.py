"""The sections of a run's report, as HTML made of plain values."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from spml_tf.pages import line_charts
from spml_tf.pages.html_page import text
from spml_tf.runs.result_lines import has_best_epoch
from spml_tf.runs.settings import Settings, resolve
from spml_tf.system.errors import UserError
from spml_tf.system.flag_fields import text_of

_NONE = "\u2013"


class Difference(float):
    """A number that tables show with its sign."""


def section(name: str, heading: str, content: str) -> str:
    """A part of the page that the navigation leads to."""
    return (
        f'<section id="{name}" aria-labelledby="{name}-heading">'
        f'<h2 id="{name}-heading" tabindex="-1">{text(heading)}</h2>{content}</section>'
    )


def table(
    caption: str,
    columns: Sequence[tuple[str, bool]],
    rows: Sequence[Sequence[object]],
    sortable: bool = False,
) -> str:
    """A table that scrolls by itself where the page is too narrow.

    Args:
        caption: what it holds.
        columns: heading, and whether the column holds numbers.
        rows: a cell per column; the first names the row. None is no value, a float is shown with
            two decimals.
        sortable: put a button into each heading that sorts by its column.

    Returns:
        HTML.
    """
    heads = "".join(_head(name, numeric, sortable) for name, numeric in columns)
    lines = "".join(f"<tr>{_cells(row, columns)}</tr>" for row in rows)
    kind = ' class="sortable"' if sortable else ""
    tall = " tall" if len(rows) > 25 else ""
    return (
        f'<div class="scroll{tall}" role="region" tabindex="0" aria-label="{text(caption)}">'
        f"<table{kind}><caption><span>{text(caption)}</span></caption><thead><tr>{heads}</tr></thead>"
        f"<tbody>{lines}</tbody></table></div>"
    )


def _head(name: str, numeric: bool, sortable: bool) -> str:
    inside = f'<button type="button">{text(name)}</button>' if sortable else text(name)
    return f'<th scope="col"{_number_class(numeric)}>{inside}</th>'


def _cells(row: Sequence[object], columns: Sequence[tuple[str, bool]]) -> str:
    first, *rest = row
    cells = [f'<th scope="row">{text(first)}</th>']
    for value, (_, numeric) in zip(rest, columns[1:], strict=True):
        data = "" if value is None or not numeric else f' data-value="{text(value)}"'
        cells.append(f"<td{_number_class(numeric)}{data}>{text(_written(value))}</td>")
    return "".join(cells)


def _written(value: object) -> str:
    if value is None:
        return _NONE
    if isinstance(value, float):
        shown = f"{value:+.2f}" if isinstance(value, Difference) else f"{value:.2f}"
        return shown.replace("-", "\u2212")
    return str(value)


def _number_class(numeric: bool) -> str:
    return ' class="number"' if numeric else ""


def facts(pairs: Mapping[str, object]) -> str:
    """A few figures, large."""
    items = "".join(f"<div><dt>{text(k)}</dt><dd>{text(v)}</dd></div>" for k, v in pairs.items())
    return f'<dl class="facts">{items}</dl>'


def settings(
    differing: Mapping[str, object], flags: Mapping[str, object], record: Mapping[str, Any]
) -> str:
    """The flags that differ from their defaults, all of them folded, and where the run was made.

    Args:
        differing: the default by the flag's name.
        flags: every flag.
        record: run.json.
    """
    rows = [
        (f"--{name}", shown_flag(flags[name]), shown_flag(was)) for name, was in differing.items()
    ]
    own = table(
        "Flags that differ from their defaults",
        (("flag", False), ("value", False), ("default", False)),
        rows,
    )
    every = table(
        "All flags",
        (("flag", False), ("value", False)),
        [(f"--{name}", shown_flag(value)) for name, value in flags.items()],
    )
    made = {name: value for name, value in record.items() if name not in ("flags", "class_names")}
    return (
        (own if rows else "<p>All flags have their default values.</p>")
        + f"<details><summary>All {len(flags)} flags</summary>{every}</details>"
        + f"<details><summary>Machine, versions and data</summary>{_pairs(made)}</details>"
    )


def shown_flag(value: object) -> str:
    """A flag's value as the page writes it."""
    return "not given" if value is None else text_of(value)


def _pairs(record: Mapping[str, Any]) -> str:
    """run.json's facts, the nested ones by "group name"."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, dict):
            flat |= {f"{name} {key}": inner for key, inner in value.items()}
        else:
            flat[name] = value
    items = "".join(
        f"<dt>{text(name.replace('_', ' '))}</dt><dd>{text(_plain(value))}</dd>"
        for name, value in flat.items()
    )
    return f'<dl class="pairs">{items}</dl>'


def _plain(value: object) -> str:
    if isinstance(value, list):
        return "; ".join(map(_plain, value)) or "none"
    return json.dumps(value) if isinstance(value, dict) else shown_flag(value)


def curves(charts: Sequence[line_charts.Chart], first: int) -> str:
    """Charts side by side.

    Args:
        charts: what to draw.
        first: place of the first among the page's readings.
    """
    drawn = "".join(line_charts.figure(chart, first + i) for i, chart in enumerate(charts))
    return f'<div class="grid-of-charts">{drawn}</div>'


def history_table(history: line_charts.History) -> str:
    """history.csv as it is, folded; what is no number is shown as text."""
    names = list(dict.fromkeys(name for row in history for name in row))
    rows = [[_history_cell(row.get(name, "")) for name in names] for row in history]
    whole = table("history.csv, a row an epoch", [(name, True) for name in names], rows)
    return f"<details><summary>The numbers behind the curves</summary>{whole}</details>"


def _history_cell(cell: str) -> str | None:
    value = line_charts.number(cell)
    return (f"{value:.6g}" if value is not None else cell) or None


def head(
    name: str, settings: Settings, metrics: Mapping[str, Any], record: Mapping[str, Any]
) -> str:
    """Heading of the page and the figures to see first.

    Args:
        name: the run's.
        settings: the run's.
        metrics: metrics.json.
        record: run.json.
    """
    shown: dict[str, object] = {"method": settings.method, "data set": settings.dataset}
    shown |= {f"mAP {x}": _percent(metrics[x]["map"]) for x in ("val", "test") if x in metrics}
    epoch = f"{metrics['best_epoch']} of {settings.epochs}"
    if has_best_epoch(metrics):
        shown["best epoch"] = epoch
    else:
        shown["last epoch"] = f"{epoch}, none could be chosen"
    images = record.get("images", {})
    shown["images"] = " + ".join(f"{number:,}" for number in images.values()) or "unknown"
    shown["classes"] = len(record["class_names"])
    return (
        '<a class="skip" href="#settings">Skip to the content</a>'
        f"<header><h1>{text(name)}</h1>{facts(shown)}</header>"
    )


def _percent(value: float | None) -> str:
    return _NONE if value is None else f"{value:.2f}%"


def navigation(headings: Mapping[str, str]) -> str:
    """Links to the sections.

    Args:
        headings: by the sections' ids.
    """
    links = "".join(f'<li><a href="#{key}">{text(x)}</a></li>' for key, x in headings.items())
    return f'<nav aria-label="Sections"><ul>{links}</ul></nav>'


def omitted(reason: str) -> str:
    """A paragraph that says why a section is empty."""
    return f"<p>Left out: {text(reason)}.</p>" if reason else ""


def class_table(
    metrics: Mapping[str, Any],
    class_names: Sequence[str],
    known: Sequence[Mapping[str, int]],
    split: str,
) -> str:
    """Average precision of each class, in percent, which sorts by any column.

    Args:
        metrics: metrics.json.
        class_names: L names.
        known: how many labels of each class are known in `split`, from `labels.known_counts`.
        split: "val" or "test".
    """
    parts = [part for part in ("val", "test") if part in metrics]
    columns = [("class", False), *known_columns(split)]
    columns += [(f"AP {part} (%)", True) for part in parts]
    rows = [
        [name, *counts.values(), *(metrics[part]["ap"].get(name) for part in parts)]
        for name, counts in zip(class_names, known, strict=True)
    ]
    return table("Average precision by class; the headings sort", columns, rows, sortable=True)


def known_columns(split: str) -> list[tuple[str, bool]]:
    """Columns for what `labels.known_counts` counts in a split."""
    return [(f"{kind} in {split}", True) for kind in ("positives", "negatives", "unknown")]


def differing(settings: Settings) -> dict[str, Any]:
    """The flags of a run whose values are not what they would be without them.

    Args:
        settings: resolved settings.

    Returns:
        By a flag's name what it would be by itself, the other flags being as they are; None where
        there is no such value.
    """
    found: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if value == field.default:
            continue
        try:
            without: dict[str, Any] = {field.name: field.default}
            own = resolve(dataclasses.replace(settings, **without))
        except UserError:  # cannot be left out, or its files are not here
            found[field.name] = field.default
            continue
        if getattr(own, field.name) != value:
            found[field.name] = getattr(own, field.name)
    return found
