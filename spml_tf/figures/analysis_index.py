"""Which figures an analysis has, and the page that shows and explains them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from matplotlib.figure import Figure

from spml_tf.figures import analysis_figures
from spml_tf.figures.analysis_tables import Row
from spml_tf.runs.run_groups import Group

FILE = "index.md"


@dataclasses.dataclass(frozen=True)
class AnalysisFigure:
    """A figure of an analysis.

    Attributes:
        stem: its files' names without ending.
        heading: what it shows.
        text: how to read it, and how its numbers are defined; Markdown.
        draw: (rows, title, names of all groups) -> the figure.
        of_training: whether it tells of training rather than of a split's images.
    """

    stem: str
    heading: str
    text: str
    draw: Callable[[Sequence[Row], str, Sequence[str]], Figure]
    of_training: bool = False


FIGURES = (
    AnalysisFigure(
        "top_scores",
        "Highest scores of an image",
        "The 1st to 4th highest score of every validation image: share of images (%) by score, "
        "seeds pooled (Figures 5a and F.1 of Verelst et al., WACV 2023).",
        analysis_figures.top_scores,
    ),
    AnalysisFigure(
        "difference",
        "Difference to AN",
        "mAP less AN's, in points, mean over the seeds that both have (same seed with same seed), "
        "and the 95% interval of this mean when the images are drawn anew with replacement, the "
        "same for both methods: an interval that leaves out 0 says that other images of this kind "
        "would hardly reverse the order. The CSV also has the sample standard deviation over "
        "seeds.",
        analysis_figures.difference,
    ),
    AnalysisFigure(
        "gain_by_size",
        "Gain over AN by object size",
        "mAP with the positives of one bin of sizes against all negatives of the class, relative "
        "to AN's: 100 (mAP - AN) / AN, of the means over seeds (Figure D.1). A class has the size "
        "of its largest object in the image, as a part of the image's area; bins hold equally "
        "many positives of all classes, but objects of equal size stay together. Positives "
        "without a box count in no bin. Fewer positives among the same negatives have a lower "
        "mAP: compare methods within a bin.",
        analysis_figures.gain_by_size,
    ),
    AnalysisFigure(
        "crop_interval",
        "mAP against the interval of the crops' area",
        "Mean over seeds, whiskers are sample standard deviations (Figure B.1); strong crops to "
        "the right.",
        analysis_figures.crop_interval,
        of_training=True,
    ),
    AnalysisFigure(
        "selection",
        "Expected positives by epoch",
        "Precision: share of the selected unknown labels that are positive; recall: share of the "
        "unannotated positives that are selected; means over seeds.",
        analysis_figures.selection,
        of_training=True,
    ),
    AnalysisFigure(
        "pointing",
        "Pointing game",
        "Share of pairs of an image and a class with boxes there whose heatmap, of the whole "
        "image, is highest in a cell with its centre in one of these boxes (Zhang et al., ECCV "
        "2016; without tolerance, since theirs is 15 pixels of a photo's own size). Whiskers are "
        "sample standard deviations over seeds. Gray: a point in the middle of every image. The "
        "CSV also has "
        "the mean over classes of each class's share.",
        analysis_figures.pointing,
    ),
    AnalysisFigure(
        "per_class",
        "Average precision by class",
        "Means over seeds; classes without positives are left out. Unknown labels count as "
        "negative.",
        analysis_figures.per_class,
    ),
    AnalysisFigure(
        "reliability",
        "Reliability",
        "Labels of all classes by score, in ten bins of equal width, seeds pooled: share of "
        "positives against mean score, below it how many labels lie in each bin. ECE, the "
        "expected calibration error: mean over labels of |mean score - share of positives| of "
        "their bins. Unknown labels are left out. Where positives are rare, most labels "
        "lie in the lowest bin, which then weighs most.",
        analysis_figures.reliability,
    ),
)


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
