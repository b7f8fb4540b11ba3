"""What the model and the parts of methods can be told. Needs no TensorFlow: flags come from here.

Each class declares the options of one thing, which inherits from it: `ModelOptions` those of
`SPMLModel`, the others those of the rules and terms of the same names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from spml_tf.losses.options import (
    EntropyMaximizationOptions,
    GeneralizedRobustPowers,
    PositivesPerImageOptions,
)
from spml_tf.system.options import Options, option

BUDGETS = ("all", "unannotated", "global")
Budget = str | Sequence[float]
# Words for what is estimated from the score bank: as K, and as the budget of each class.
AUTO, ESTIMATED, PROBABLE = "auto", "estimated", "probable"
ESTIMATED_BUDGETS = (ESTIMATED, PROBABLE)


def check_budget(name: str, budget: Budget, num_classes: int | None = None) -> None:
    """Raises ValueError for a budget that `selection.expected_positives` does not know."""
    if isinstance(budget, str):
        if budget not in BUDGETS:
            raise ValueError(f"{name} must be one of {BUDGETS}. Received: {budget!r}")
        return
    several = hasattr(budget, "__len__") and num_classes in (None, len(budget))
    if not several or not all(0 <= share <= 1 for share in budget):
        count = "" if num_classes is None else f"{num_classes} "
        raise ValueError(f"{name} must be a rule or {count}shares in [0, 1]. Received: {budget}")


def check_priors(name: str, priors: Budget, num_classes: int | None = None) -> None:
    """Raises ValueError for priors that are not one number in [0, 1] a class."""
    if isinstance(priors, str):
        if num_classes is None:
            return  # a file that a command reads
    else:
        several = hasattr(priors, "__len__") and num_classes in (None, len(priors))
        if several and all(0 <= prior <= 1 for prior in priors):
            return
    count = "" if num_classes is None else f"{num_classes} "
    raise ValueError(f"{name} must be {count}numbers in [0, 1], one a class. Received: {priors}")


def _check_rule(name: str, budget: Budget) -> None:
    """Raises ValueError for a budget that the rule `ExpectedPositives` does not know."""
    if isinstance(budget, str) and budget not in (*BUDGETS, *ESTIMATED_BUDGETS):
        raise ValueError(
            f"{name} must be one of {(*BUDGETS, *ESTIMATED_BUDGETS)}, or a list of each class' "
            f"share of the images, in [0, 1]. Received: {budget!r}"
        )
    if not isinstance(budget, str):
        check_budget(name, budget)


def _after_a_quarter(flags: Mapping[str, Any]) -> int:
    return max(2, int(flags["epochs"]) // 4 + 1)


def _selection_start(flags: Mapping[str, Any]) -> int:
    if flags["from_scratch"] or flags["linear_probe"]:
        return _after_a_quarter(flags)
    return max(2, int(flags["warmup_epochs"]) + 1)


def _consistency_start(flags: Mapping[str, Any]) -> int:
    return int(flags["selection_start_epoch"])


def _warmup(flags: Mapping[str, Any]) -> int:
    if flags["linear_probe"]:
        return int(flags["epochs"])
    return 0 if flags["from_scratch"] else int(flags["epochs"]) // 3


class ModelOptions(Options):
    """Options of `SPMLModel`."""

    group: ClassVar[str] = "Model and banks"

    warmup_epochs: int = option(
        0,
        "First epochs, with the backbone frozen. Default: 0 from scratch, all with --linear_probe, "
        "a third of --epochs otherwise.",
        low=0,
        high=1e6,
        in_runs=_warmup,
        scales="epochs",
    )
    freeze_batch_norm: bool = option(
        False, "Keep the backbone's batch normalisation as it is (for small batches)."
    )
    ema_momentum: float = option(0.8, "mu of eq. 4, in [0, 1).", low=0, high=0.999999)
    bank_dtype: str = option(
        "float32", "Storage of the banks.", choices=("float32", "float16", "uint8")
    )
    bank_device: str = option(
        "auto",
        "Where the values of banks live: host, in host memory, once a process; gpu, with one GPU a "
        "process; auto: on a single GPU up to 2 GB, else host. Marks and labels are on the host.",
        choices=("auto", "gpu", "host"),
    )
    bank_dir: str | None = option(
        None,
        "Keep tables of images in memory-mapped files of this folder, for data sets beyond memory; "
        "the checkpoint holds all of them. ROLE's estimates, and what their optimizer remembers, "
        "stay in memory.",
    )
    keep_scores: bool = option(
        False,
        "Keep the running averages of all scores, whether the method needs them or not; audit and "
        "histograms read them. Default: true.",
        in_runs=lambda flags: True,
    )
    seed: int = option(0, "Seed of the stochastic rounding and of first estimates.", flag="")
    train_metrics: bool = option(
        True, "Whether compiled metrics see training batches too.", flag=""
    )


class SelectionOptions(PositivesPerImageOptions):
    """Options of the rule `ExpectedPositives`."""

    prefix: ClassVar[str] = "selection"
    group: ClassVar[str] = "Selection of expected positives (en, ep)"

    # Wider than the losses': those cannot wait for an estimate.
    positives_per_image: float | str = option(  # type: ignore[assignment]
        help="K: mean number of true positives per training image; auto: estimated from the score "
        "bank where the selection begins (en, ep). Default: the mean over the fully labelled "
        "validation images.",
        low=1e-6,
        high=1e6,
        flag="positives_per_image",
        words=(AUTO,),
    )
    start_epoch: int = option(
        2,
        "First epoch with expected positives, from 1. Default: after a quarter of --epochs from "
        "scratch, with --linear_probe and with recommended, after warm-up (at least 2) otherwise.",
        low=1,
        high=1e6,
        in_runs=_selection_start,
        scales="epoch",
    )
    budget: Budget = option(
        "all",
        "all: rank annotated positives too (the paper's); unannotated: rank unknown labels only; "
        "global: rank the unknown labels of all classes together; validation: as unannotated, but "
        "expect each class in the share of images that it has in the validation split; mime: of a "
        "class' unknown labels its annotated positives times 1 / mean(1 / number of positives) of "
        "the validation images; "
        "estimated: in the share of --selection_priors, else that estimated from the score bank, "
        "scaled to a K that is not auto; "
        "probable: so many labels as are estimated to be positive with --selection_probability, "
        "by an estimate that is moved to --selection_priors, or to a K that is not auto; "
        "training: as often as the training images truly hold each class, where that is known.",
        choices=(*BUDGETS, "validation", "mime", *ESTIMATED_BUDGETS, "training"),
        check=_check_rule,
    )
    probability: float = option(
        0.5,
        "With --selection_budget=probable: from which estimated probability on labels count.",
        low=0,
        high=1,
    )
    priors: Budget | None = option(
        None,
        "CSV file with the columns class,prior, the share of images that hold a class: what "
        "--selection_budget=estimated takes, and probable moves its estimate to. Default: where "
        "--positives_per_image is not given, the shares of the fully labelled validation images, "
        "as if 20 more held each class as often as K and its annotated share say.",
        check=check_priors,
    )
    multiple: float | str = option(
        1.0,
        "Select so many times the number of labels that are missing by the budget; auto: as many "
        "times as labels are missing for each annotated positive, from 1 to 3; once where their "
        "number was estimated from the score bank.",
        low=0,
        high=1000,
        words=(AUTO,),
    )


class RecommendedSelectionOptions(SelectionOptions):
    """Those of the rule `ExpectedPositives` in `recommended`."""

    start_epoch: int = option(
        2,
        "First epoch with expected positives, from 1. Default: after a quarter of --epochs.",
        low=1,
        high=1e6,
        in_runs=_after_a_quarter,
        scales="epoch",
    )


class LargeLossOptions(Options):
    """Options of the rule `LargeLoss`."""

    prefix: ClassVar[str] = "large_loss"
    group: ClassVar[str] = "Large losses (ll_r, ll_ct, ll_cp)"

    rate: float = option(
        0.2,
        "delta of ll_r, ll_ct and ll_cp: percent of the labels that are marked, an epoch for the "
        "first two.",
        low=0,
        high=100,
        scales="rate",
    )
    growing: bool = option(True, "Whether the share grows with the epochs.", flag="")
    lasting: bool = option(False, "Whether marks stay for the rest of the training.", flag="")


class ConfidentOptions(Options):
    """Options of the rule `Confident`."""

    prefix: ClassVar[str] = "confident"
    group: ClassVar[str] = "Confident labels (splc)"

    threshold: float = option(
        0.6, "Score above which splc marks an unknown label.", low=1e-6, high=0.999999
    )
    start_epoch: int = option(
        2, "First epoch in which splc marks labels.", low=1, high=1e6, scales="epoch"
    )


class LikelyPositivesOptions(Options):
    """Options of the rule `LikelyPositives`."""

    prefix: ClassVar[str] = "likely"
    group: ClassVar[str] = "Likely positives (csl)"

    per_image: float = option(
        5.0, "csl marks so many times the batch's images of its likeliest labels.", low=0, high=1e6
    )
    max_prior: float = option(
        0.5, "csl marks all unknown labels of classes whose prior is above.", low=0, high=1
    )
    priors: Budget | None = option(
        None,
        "CSV file with the columns class,prior: the share of images that hold a class. Default: "
        "the mean of the running averages, those of --initial_banks where given.",
        check=check_priors,
    )


class InformationGapOptions(Options):
    """Options of the rule `InformationGap`."""

    prefix: ClassVar[str] = "ignore"
    group: ClassVar[str] = "Information gap (ignore)"

    threshold: float = option(
        0.8,
        "The part of a crop that ignore keeps: where the given label's map, scaled to [0, 1], is "
        "above.",
        low=0,
        high=0.999999,
    )
    momentum: float = option(
        0.999, "Momentum of the averages that ignore compares with.", low=0, high=0.999999
    )
    warmup_epochs: int = option(
        3, "Epochs before ignore leaves labels out.", low=0, high=1e6, scales="epochs"
    )


class TermOptions(Options):
    """Options of every term of eq. 8."""

    weight: float = option(1.0, "Factor of this term.", low=0, high=1e6)
    start_epoch: int = option(
        1, "First epoch in which this term counts, from 1.", low=1, high=1e6, scales="epoch"
    )


class ConsistencyOptions(TermOptions):
    """Options of the terms `ScoreConsistency` and `SpatialConsistency`."""

    prefix: ClassVar[str] = "consistency"
    group: ClassVar[str] = "Consistency (+cl, +scl)"

    weight: float = option(0.25, "gamma of eq. 8.", low=0, high=1e6)
    start_epoch: int = option(
        2,
        "First epoch with CL or SCL, from 1. Default: --selection_start_epoch.",
        low=1,
        high=1e6,
        in_runs=_consistency_start,
        scales="epoch",
    )


class SpatialConsistencyOptions(ConsistencyOptions):
    """Options of the term `SpatialConsistency`."""

    heatmap_size: int | None = option(
        None,
        "W, cells per side of the heatmap bank. Default: the network's grid.",
        low=1,
        high=1e4,
        flag="heatmap_size",
    )
    heatmap_classes: int | None = option(
        None,
        "Classes of each image whose heatmaps are kept: its annotated ones and those of highest "
        "score. Default: all; 8 makes ImageNet fit into memory.",
        low=1,
        high=1e6,
        flag="heatmap_classes",
    )


class RoleOptions(TermOptions, PositivesPerImageOptions):
    """Options of the term `Role`."""

    group: ClassVar[str] = "ROLE (role)"

    weight: float = 1.0
    start_epoch: int = 1


class GeneralizedRobustOptions(TermOptions, GeneralizedRobustPowers):
    """Options of the term `GeneralizedRobustTerm`."""

    weight: float = 1.0
    start_epoch: int = 1
    epochs: int = option(
        10,
        "Epoch in which mu and sigma of gr have their last values; w and b would one epoch later. "
        "Default: --epochs.",
        low=1,
        high=1e6,
        in_runs=lambda flags: int(flags["epochs"]),
        scales="epochs",
    )
    head_epochs: int = option(
        0,
        "First epochs in which gr keeps its first constants. Default: --warmup_epochs, 0 with "
        "--linear_probe.",
        low=0,
        high=1e6,
        in_runs=lambda flags: 0 if flags["linear_probe"] else int(flags["warmup_epochs"]),
        scales="epochs",
    )
    slope_start: float = option(0.0, "w of gr at first.", low=-1e3, high=1e3)
    slope_end: float = option(2.0, "w of gr at last.", low=-1e3, high=1e3)
    offset_start: float = option(-2.0, "b of gr at first.", low=-1e3, high=1e3)
    offset_end: float = option(-2.0, "b of gr at last.", low=-1e3, high=1e3)
    mean_start: float = option(0.5, "mu of gr at first.", low=-10, high=10)
    mean_end: float = option(0.8, "mu of gr at last.", low=-10, high=10)
    deviation_start: float = option(2.0, "sigma of gr at first.", low=1e-3, high=1e3)
    deviation_end: float = option(0.5, "sigma of gr at last.", low=1e-3, high=1e3)


class PseudoLabelsOptions(TermOptions, EntropyMaximizationOptions):
    """Options of the term `PseudoLabels`."""

    prefix: ClassVar[str] = "pseudo_label"
    group: ClassVar[str] = "Entropy and pseudo-labels (em, em_apl)"

    weight: float = 1.0
    start_epoch: int = 1
    factor: float = option(
        0.2, "beta of em_apl: factor of the terms of pseudo-labels.", low=0, high=1e3
    )
    warmup_epochs: int = option(
        5,
        "Epochs of em_apl before the first pseudo-labels. Default: half of --epochs.",
        low=1,
        high=1e6,
        in_runs=lambda flags: max(1, int(flags["epochs"]) // 2),
        scales="epochs",
    )
    epochs: int = option(
        10,
        "Epoch of em_apl in which the last pseudo-labels are given. Default: --epochs.",
        low=1,
        high=1e6,
        in_runs=lambda flags: int(flags["epochs"]),
        scales="epochs",
    )
    share: float = option(
        0.9, "Share of a class' unknown labels that em_apl gives pseudo-labels.", low=0, high=1
    )


class StrongViewOptions(TermOptions):
    """Options of the term `StrongView`."""

    prefix: ClassVar[str] = "lagc"
    group: ClassVar[str] = "Strongly changed views (lagc)"

    threshold: float = option(
        0.6,
        "lagc takes scores from here as positive and below 1 minus this as negative.",
        low=0.5,
        high=1,
    )
    colour: float = option(
        0.4,
        "Brightness, contrast and saturation of lagc's second view change by up to this share.",
        low=0,
        high=1,
    )
    cutout: float = option(
        0.5, "Side of the square that lagc covers in its second view, in sides.", low=0, high=1
    )


class MixupOptions(TermOptions):
    """Options of the term `Mixup`."""

    prefix: ClassVar[str] = "mixup"
    group: ClassVar[str] = "Mixtures of images (+mixup, +cutmix)"

    alpha: float = option(
        0.2,
        "Mixup's shares are drawn of Beta(alpha, alpha); small: nearly one of the two images.",
        low=1e-3,
        high=1e3,
    )


class CutMixOptions(TermOptions):
    """Options of the term `CutMix`."""

    prefix: ClassVar[str] = "cutmix"
    group: ClassVar[str] = MixupOptions.group

    alpha: float = option(
        1.0,
        "CutMix' shares are drawn of Beta(alpha, alpha); 1: every area is as likely.",
        low=1e-3,
        high=1e3,
    )
