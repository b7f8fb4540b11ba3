"""The options of losses, declared where the command line can read them without TensorFlow."""

from __future__ import annotations

from spml_tf.system.options import Options, option


class EntropyMaximizationOptions(Options):
    """The option of `EntropyMaximization`."""

    entropy_weight: float = option(
        0.1, "alpha of the method em.", low=0, high=1e3, flag="entropy_weight"
    )


class PositivesPerImageOptions(Options):
    """K, which every loss, rule and term that counts positives must know."""

    positives_per_image: float = option(
        help="K: mean number of true positives per training image. Default: the mean over the "
        "fully labelled validation images.",
        low=1e-6,
        high=1e6,
        flag="positives_per_image",
    )
