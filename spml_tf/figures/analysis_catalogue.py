"""The figures of an analysis: a row each, with its table, its drawing and its explanation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from matplotlib.figure import Figure

from spml_tf.drawing.figure_files import Row
from spml_tf.figures import analysis_figures, analysis_tables
from spml_tf.figures.compared_runs import Analysis


@dataclasses.dataclass(frozen=True)
class AnalysisFigure:
    """A figure of an analysis.

    Attributes:
        stem: its files' names without ending.
        table: what the analysis knows -> its rows; UnavailableError says why there are none.
        draw: (rows, title, names of all groups) -> the figure.
        heading: what it shows.
        text: how to read it, and how its numbers are defined; Markdown.
        images: which images it tells of: "reported", those of the split reported on, "val", or
            "none" where it tells of training.
    """

    stem: str
    table: Callable[[Analysis], list[Row]]
    draw: Callable[[Sequence[Row], str, Sequence[str]], Figure]
    heading: str
    text: str
    images: str = "reported"


FIGURES = (
    AnalysisFigure(
        "top_scores",
        analysis_tables.top_scores,
        analysis_figures.top_scores,
        "Highest scores of an image",
        "The 1st to 4th highest score of every validation image: share of images (%) by score, "
        "seeds pooled (Figures 5a and F.1 of Verelst et al., WACV 2023).",
        images="val",
    ),
    AnalysisFigure(
        "difference",
        analysis_tables.difference,
        analysis_figures.difference,
        "Difference to AN",
        "mAP less AN's, in points, mean over the seeds that both have (same seed with same seed), "
        "and the 95% interval of this mean when the images are drawn anew with replacement, the "
        "same for both methods: an interval that leaves out 0 says that other images of this kind "
        "would hardly reverse the order. The CSV also has the sample standard deviation over "
        "seeds.",
    ),
    AnalysisFigure(
        "gain_by_size",
        analysis_tables.gain_by_size,
        analysis_figures.gain_by_size,
        "Gain over AN by object size, relative to AN's mAP",
        "mAP with the positives of one bin of sizes against all negatives of the class, relative "
        "to AN's: 100 (mAP - AN) / AN, of the means over seeds (Figure D.1). A class has the size "
        "of its largest object in the image, as a part of the image's area; bins hold equally "
        "many positives of all classes, but objects of equal size stay together. Positives "
        "without a box count in no bin. Fewer positives among the same negatives have a lower "
        "mAP: compare methods within a bin.",
    ),
    AnalysisFigure(
        "crop_interval",
        analysis_tables.crop_interval,
        analysis_figures.crop_interval,
        "mAP against the interval of the crops' area",
        "Mean over seeds, whiskers are sample standard deviations (Figure B.1); strong crops to "
        "the right.",
        images="none",
    ),
    AnalysisFigure(
        "selection",
        analysis_tables.selection,
        analysis_figures.selection,
        "Expected positives by epoch",
        "Precision: share of the selected unknown labels that are positive; recall: share of the "
        "unannotated positives that are selected; means over seeds.",
        images="none",
    ),
    AnalysisFigure(
        "pointing",
        analysis_tables.pointing,
        analysis_figures.pointing,
        "Pointing game",
        "Share of pairs of an image and a class with boxes there whose heatmap, of the whole "
        "image, is highest in a cell with its centre in one of these boxes (Zhang et al., ECCV "
        "2016; without tolerance, since theirs is 15 pixels of a photo's own size). Whiskers are "
        "sample standard deviations over seeds. Gray: a point in the middle of every image. The "
        "CSV also has "
        "the mean over classes of each class's share.",
    ),
    AnalysisFigure(
        "mask_share",
        analysis_tables.mask_share,
        analysis_figures.mask_share,
        "Heatmap inside the object",
        "Share of the heatmap of the whole image, sigmoid(F), that lies inside the class's mask, "
        "mean over pairs of an image and a class in its mask (the energy-based pointing game of "
        "Wang et al., CVPR Workshops 2020). Whiskers are sample standard deviations over seeds. "
        "Gray: a map that is the same everywhere, which is the part of the image that the object "
        "covers. The CSV also has the mean over classes of each class's mean.",
    ),
    AnalysisFigure(
        "per_class",
        analysis_tables.per_class,
        analysis_figures.per_class,
        "Average precision by class",
        "Means over seeds; classes without positives are left out. Unknown labels are left "
        "out where a class has known positives and known negatives, elsewhere, and everywhere "
        "with --unknown_counts_as=negative, they count as negatives; the CSV counts the labels "
        "that are known.",
    ),
    AnalysisFigure(
        "reliability",
        analysis_tables.reliability,
        analysis_figures.reliability,
        "Reliability",
        "Labels of all classes by score, in ten bins of equal width, seeds pooled: share of "
        "positives against mean score, below it how many labels lie in each bin. ECE, the "
        "expected calibration error: mean over labels of |mean score - share of positives| of "
        "their bins. Unknown labels are left out. Where positives are rare, most labels "
        "lie in the lowest bin, which then weighs most.",
    ),
)
