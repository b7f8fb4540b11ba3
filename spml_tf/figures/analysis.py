"""Writes the figures of an analysis, with their numbers and the page that explains them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from spml_tf.drawing import figure_files
from spml_tf.drawing.figure_files import Row
from spml_tf.figures import analysis_index
from spml_tf.figures.analysis_catalogue import FIGURES, AnalysisFigure
from spml_tf.figures.analysis_tables import CENTRE, EVEN
from spml_tf.figures.compared_runs import Analysis, UnavailableError
from spml_tf.system.errors import UserError
from spml_tf.system.files import RECORD, replaced_unless_edited, write_text
from spml_tf.system.folders import check_output_folder, put_back, replaced_folder
from spml_tf.system.notes import tell_note


def check_target(target: Path) -> None:
    """Refuses a folder that holds anything but an earlier analysis, which is replaced.

    Raises:
        UserError: naming the first file that is no part of one, or that a person has edited.
    """
    put_back(target)
    place, known = f"--output_dir={target}", {RECORD, *analysis_index.known_files()}
    edited = sorted(name for name in known if name.endswith((".csv", ".md")))
    if target.exists() and not target.is_dir():
        raise UserError(f"{place}: is no folder; choose another")
    files = target.iterdir() if target.exists() else ()
    others = sorted(path.name for path in files if path.name not in known)
    refusal = "".join(f"holds {x}, which is no part of an analysis" for x in others[:1])
    check_output_folder(
        target, place, not others, f"{refusal}; choose another folder", edited=edited
    )


def write(found: Analysis, target: Path, command: str) -> int:
    """Writes a PNG, an SVG and a CSV for each figure that can be had, and index.md.

    The folder appears in one step; which figures are left out, and why, is said on standard error.

    Args:
        found: what the analysis knows.
        target: the folder, which is replaced.
        command: that writes the figures, for the page.

    Returns:
        How many figures there are.

    Raises:
        OSError: the folder cannot be written.
        UserError: an image or a network cannot be read.
    """
    tables, omitted = _tables(found)
    names = [group.name for group in found.groups]
    with replaced_folder(target) as folder:
        for figure, rows in tables:
            print(f"drawing {figure.stem}", file=sys.stderr)
            drawing = figure.draw(rows, _title(figure, found, rows), names)
            figure_files.write(folder, figure.stem, rows, drawing, replaced_unless_edited)
        drawn = [figure for figure, _ in tables]
        text = analysis_index.text(found.groups, command, drawn, omitted)
        write_text(folder / analysis_index.FILE, text, replaced_unless_edited)
    return len(tables)


def _tables(
    found: Analysis,
) -> tuple[list[tuple[AnalysisFigure, list[Row]]], list[tuple[AnalysisFigure, str]]]:
    """The figures that can be had with their rows, and the others with the reasons."""
    drawn, omitted = [], []
    for figure in FIGURES:
        try:
            drawn.append((figure, figure.table(found)))
        except UnavailableError as reason:
            tell_note(f"{figure.stem} is left out: {reason}")
            omitted.append((figure, str(reason)))
    return drawn, omitted


def _title(figure: AnalysisFigure, found: Analysis, rows: Sequence[Row]) -> str:
    split = {"reported": found.split, "val": "val"}.get(figure.images)
    where = "" if split is None else f": {found.dataset}, {split}"
    return f"{figure.heading}{where}{_seeds(rows)}"


def _seeds(rows: Sequence[Row]) -> str:
    """ ", 3 seeds", or ", 1 to 3 seeds" where methods have different numbers of them."""
    counts = {row["seeds"] for row in rows if row["method"] not in (CENTRE, EVEN)}
    low, high = min(counts), max(counts)
    return f", {high} seed{'s' * (high > 1)}" if low == high else f", {low} to {high} seeds"
