"""The options of losses, declared where the command line can read them without TensorFlow."""

from __future__ import annotations

from typing import ClassVar

from spml_tf.system.options import Options, option


class EntropyMaximizationOptions(Options):
    """The option of `EntropyMaximization`."""

    entropy_weight: float = option(
        0.1, "alpha of the methods em and em_apl.", low=0, high=1e3, flag="entropy_weight"
    )


class ExpectedNegativeOptions(Options):
    """The option of `ExpectedNegative`."""

    group: ClassVar[str] = "Selection of expected positives (en, ep)"

    expected_weight: float = option(
        0.0,
        "Weight of marked labels as negatives for en, ll_r, ignore and recommended; 0 leaves out.",
        low=0,
        high=1,
        flag="expected_weight",
    )


class ExpectedPositiveOptions(Options):
    """The option of `ExpectedPositive`."""

    group: ClassVar[str] = "Selection of expected positives (en, ep)"

    expected_target: float = option(
        1.0,
        "Target of marked labels for ep, ll_ct and ll_cp; below 1 they are soft positives.",
        low=0,
        high=1,
        flag="expected_target",
    )


class GeneralizedRobustPowers(Options):
    """The exponents of the GR loss."""

    prefix: ClassVar[str] = "gr"
    group: ClassVar[str] = "GR loss (gr)"

    positive_power: float = option(
        0.01, "q2 of gr; towards 0 its positive part is cross-entropy.", low=1e-4, high=10
    )
    negative_power: float = option(
        1.0, "q3 of gr; at 1 its negative part is the absolute error.", low=1e-4, high=10
    )


class GeneralizedRobustLossOptions(GeneralizedRobustPowers):
    """The options of `GeneralizedRobust`."""

    slope: float = option(2.0, "w of gr.", low=-1e3, high=1e3)
    offset: float = option(-2.0, "b of gr.", low=-1e3, high=1e3)
    mean: float = option(0.8, "mu of gr.", low=-10, high=10)
    deviation: float = option(0.5, "sigma of gr.", low=1e-3, high=1e3)


class PartialAsymmetricOptions(Options):
    """The options of `PartialAsymmetric`."""

    prefix: ClassVar[str] = "p_asl"
    group: ClassVar[str] = "Partial asymmetric loss (p_asl, csl)"

    negative_focus: float = option(
        3.0, "gamma of known negatives in p_asl and csl.", low=0, high=100
    )
    unknown_focus: float = option(4.0, "gamma of unknown labels in p_asl and csl.", low=0, high=100)


class PositivesPerImageOptions(Options):
    """K, which every loss, rule and term that counts positives must know."""

    positives_per_image: float = option(
        help="K: mean number of true positives per training image. Default: the mean over the "
        "fully labelled validation images.",
        low=1e-6,
        high=1e6,
        flag="positives_per_image",
    )
