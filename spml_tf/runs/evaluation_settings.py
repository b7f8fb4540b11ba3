"""How a run is scored: one field per flag of the command."""

from __future__ import annotations

import dataclasses
from typing import Any

from spml_tf.datasets.settings import UNKNOWN_COUNTS_AS
from spml_tf.evaluation.rules import ABSENT_CLASSES, CALIBRATIONS
from spml_tf.system.flag_fields import flag_field


def calibration_field(what: str) -> Any:
    """The dataclass field --calibration; `what` it changes begins its help."""
    return flag_field(
        "none",
        f"{what} are of calibrated scores, fitted to the validation labels. temperature: a factor "
        "of each class's logits; platt: factor and offset; where validation labels tell of no "
        "negatives, as estimated from which positives were annotated. Classes with fewer than 10 "
        "validation positives are calibrated together.",
        str,
        CALIBRATIONS,
    )


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """What is scored, on which images, and how; see the texts of the flags."""

    run_dir: str | None = flag_field(None, "Folder of the run.")
    split: str = flag_field(
        "test",
        "test: the run's --test_split; val: its validation images, held out of the training split "
        "where the data set has none of its own; any other name: that split of its data set.",
    )
    format: str = flag_field(
        "json",
        "json: one object on one line; table: a row a class, with positives, AP, precision, "
        "recall, F1 and threshold (--thresholds=f1 where it is not given), and their means.",
        str,
        ("json", "table"),
    )
    thresholds: str | None = flag_field(
        None,
        "Score decisions too: f1, precision:P, recall:R, count or a number, chosen on the "
        "validation images as by export.",
    )
    calibration: str = calibration_field("Thresholds")
    absent_classes: str = flag_field(
        "skip",
        "Classes without positives: skip leaves them out of the mean, zero counts them as 0 (the "
        "rule of Cole et al. 2021).",
        str,
        ABSENT_CLASSES,
    )
    unknown_counts_as: str | None = flag_field(
        None,
        "What unknown labels count as: nothing leaves them out where a class has known positives "
        "and known negatives; negative. Default: as in the run.",
        str,
        UNKNOWN_COUNTS_AS,
    )
    batch_size: int = flag_field(32, "Images at a time.", int, low=1)
    dataset: str | None = flag_field(
        None, "The run's data set, checked if given; with --network: imagenet."
    )
    data_dir: str | None = flag_field(
        None, "Folder of the data set, where it is not the run's own."
    )
    network: str | None = flag_field(
        None,
        "Instead of a run: resnet50, efficientnet_lite0 or applications:NAME with its own head.",
    )
    weights: str | None = flag_field(
        None, "With --network: imagenet, or a weights file. Default: imagenet."
    )
    image_size: int | None = flag_field(
        None, "With --network: input side in pixels. Default: 224.", int
    )
    probabilities: str = flag_field(
        "sigmoid",
        "What a class's images are ranked by: sigmoid of its logit, or softmax over the classes of "
        "an image, for a classifier trained with one.",
        str,
        ("sigmoid", "softmax"),
    )
