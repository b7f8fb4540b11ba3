"""The page about a run, put together from its sections."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from spml_tf.labels import known_counts
from spml_tf.pages import html_page, line_charts, report_comparison, report_photos
from spml_tf.pages import report_sections as sections
from spml_tf.pages.report_photos import LabelPhoto, ShownPhoto
from spml_tf.runs.run_groups import RunScores, reported_split


@dataclasses.dataclass(frozen=True)
class Pictures:
    """The parts of the page that need the data set.

    Attributes:
        photos: with heatmaps.
        missing: labels that are probably missing.
        no_photos: why there are no photos, or "".
        no_missing: why there are no missing labels, or "".
    """

    photos: Sequence[ShownPhoto]
    missing: Sequence[LabelPhoto]
    no_photos: str = ""
    no_missing: str = ""


def build(
    runs: Mapping[str, RunScores], metrics: Mapping[str, Mapping[str, Any]], pictures: Pictures
) -> str:
    """The whole document.

    Args:
        runs: by name; the first is the one reported on, others are compared with it.
        metrics: metrics.json by the same names.
        pictures: what is shown of the data set.
    """
    name, first = next(iter(runs.items()))
    record = first.folder.read_record()
    own = line_charts.run_charts(first.history)
    histories = {key: run.history for key, run in runs.items()}
    shared = line_charts.comparison_charts(histories) if len(runs) > 1 else []
    parts = _own_sections(first, metrics[name], record, own)
    parts |= _picture_sections(first, record["class_names"], pictures)
    if len(runs) > 1:
        parts["comparison"] = ("Comparison of runs", _comparison(runs, metrics, shared, len(own)))
    body = (
        sections.head(name, first.settings, metrics[name], record)
        + sections.navigation({key: heading for key, (heading, _) in parts.items()})
        + "<main>"
        + "".join(sections.section(key, *part) for key, part in parts.items())
        + "</main>"
        + html_page.data_element("chart-data", line_charts.readings([*own, *shared]))
        + report_photos.script_data(
            record["class_names"], [*pictures.photos, *(x.photo for x in pictures.missing)]
        )
    )
    script = html_page.scripts("maps.js", "heatmaps.js", "report.js")
    return html_page.page(f"{name}: report", body, script, html_page.asset("report.css"))


def _own_sections(
    run: RunScores,
    metrics: Mapping[str, Any],
    record: Mapping[str, Any],
    charts: Sequence[line_charts.Chart],
) -> dict[str, tuple[str, str]]:
    flags = dataclasses.asdict(run.settings)
    split = reported_split(run.settings)
    differing = sections.differing(run.settings)
    curves = sections.curves(charts, 0) + sections.history_table(run.history)
    table = sections.class_table(metrics, record["class_names"], known_counts(run.labels), split)
    return {
        "settings": ("Settings", sections.settings(differing, flags, record)),
        "curves": ("Curves", curves),
        "classes": ("Classes", table),
    }


def _picture_sections(
    run: RunScores, class_names: Sequence[str], pictures: Pictures
) -> dict[str, tuple[str, str]]:
    split = reported_split(run.settings)
    photos = sections.omitted(pictures.no_photos) or report_photos.gallery(
        pictures.photos, class_names, split
    )
    missing = sections.omitted(pictures.no_missing) or report_photos.missing(
        pictures.missing, class_names, len(pictures.photos)
    )
    return {
        "gallery": ("Photos and heatmaps", photos),
        "missing": ("Labels that are probably missing", missing),
    }


def _comparison(
    runs: Mapping[str, RunScores],
    metrics: Mapping[str, Mapping[str, Any]],
    charts: Sequence[line_charts.Chart],
    place: int,
) -> str:
    first = next(iter(runs.values()))
    class_names = first.folder.read_record()["class_names"]
    settings = {key: run.settings for key, run in runs.items()}
    split = reported_split(first.settings)
    known = known_counts(first.labels)
    tables = report_comparison.tables(settings, metrics, class_names, known, split)
    return tables + sections.curves(charts, place)
