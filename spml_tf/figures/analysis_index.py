"""The page that shows and explains the figures of an analysis."""

from __future__ import annotations

from collections.abc import Sequence

from spml_tf.figures.analysis_catalogue import FIGURES, AnalysisFigure
from spml_tf.runs.run_groups import Group

FILE = "index.md"


def known_files() -> set[str]:
    """Names of all files that an analysis may write."""
    stems = [figure.stem for figure in FIGURES]
    return {FILE, *(f"{stem}.{ending}" for stem in stems for ending in ("png", "svg", "csv"))}


def text(
    groups: Sequence[Group],
    command: str,
    drawn: Sequence[AnalysisFigure],
    omitted: Sequence[tuple[AnalysisFigure, str]],
) -> str:
    """The page, in Markdown. What users named stands in code blocks, which show it as it is.

    Args:
        groups: of runs.
        command: that writes the figures.
        drawn: the figures there are.
        omitted: the others, with the reasons.
    """
    lines = ["# Analysis", "", f"    {command}", "", "Runs, by the name in the figures:", ""]
    for group in groups:
        paths = ", ".join(str(run.folder.path) for run in group.runs)
        lines.append(f"    {group.name}: {paths}")
    for figure in drawn:
        files = ", ".join(f"[{x}]({figure.stem}.{x})" for x in ("svg", "csv"))
        lines += ["", f"## {figure.heading}", "", figure.text, ""]
        lines += [f"![{figure.heading}]({figure.stem}.png)", "", files]
    if omitted:
        lines += ["", "## Left out", ""]
        lines += [f"    {figure.stem}: {reason}" for figure, reason in omitted]
    return "\n".join(lines) + "\n"
