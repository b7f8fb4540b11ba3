"""Networks that emit class activation maps, by name or from a model of the user's own.

Every one takes "image", [batch, size, size, 3] float32 RGB in 0..255, and returns
[batch, grid, grid, classes] float32 logits from its layer `CAM_LAYER`. Importing this package
registers the layers a saved network needs.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

import keras

from spml_tf.networks.batch_norm import FusedBatchNormalization, fuse_batch_normalization
from spml_tf.networks.boost import BoostLU, cam_boost, with_cam_boost
from spml_tf.networks.cam import (
    CAM_LAYER,
    backbone_layers,
    cam_from_backbone,
    cam_from_classifier,
    cam_head,
    replace_head,
)
from spml_tf.networks.efficientnet_lite import (
    efficientnet_lite0_cam,
    efficientnet_lite0_classifier,
    efficientnet_lite0_classifier_cam,
    efficientnet_lite1_cam,
    efficientnet_lite2_cam,
)
from spml_tf.networks.hub import hub_cam
from spml_tf.networks.preprocessing import ImagePreprocessing
from spml_tf.networks.resnet50 import (
    application_cam,
    application_classifier_cam,
    check_application,
    resnet50_cam,
)
from spml_tf.networks.small_residual import small_residual_cam
from spml_tf.networks.weights import load_network
from spml_tf.system.errors import UserError
from spml_tf.system.keras_import import require_tensorflow_backend
from spml_tf.system.nearest import guess

require_tensorflow_backend()

__all__ = [
    "CAM_LAYER",
    "NETWORKS",
    "BoostLU",
    "FusedBatchNormalization",
    "ImagePreprocessing",
    "application_cam",
    "application_classifier_cam",
    "backbone_layers",
    "build",
    "cam_boost",
    "cam_from_backbone",
    "cam_from_classifier",
    "cam_head",
    "check_name",
    "efficientnet_lite0_cam",
    "efficientnet_lite0_classifier",
    "efficientnet_lite0_classifier_cam",
    "efficientnet_lite1_cam",
    "efficientnet_lite2_cam",
    "fuse_batch_normalization",
    "hub_cam",
    "load_network",
    "replace_head",
    "resnet50_cam",
    "small_residual_cam",
    "with_cam_boost",
]

# Each is called as builder(num_classes, weights=..., image_size=...).
NETWORKS: dict[str, Callable[..., keras.Model]] = {
    "resnet50": resnet50_cam,
    "efficientnet_lite0": efficientnet_lite0_cam,
    "efficientnet_lite1": efficientnet_lite1_cam,
    "efficientnet_lite2": efficientnet_lite2_cam,
    "small_residual": small_residual_cam,
}
# Those with a trained head, called as builder(weights=..., image_size=...).
CLASSIFIERS: dict[str, Callable[..., keras.Model]] = {
    "resnet50": functools.partial(application_classifier_cam, "ResNet50"),
    "efficientnet_lite0": efficientnet_lite0_classifier_cam,
}
_APPLICATIONS_PREFIX, _HUB_PREFIX = "applications:", "keras_hub:"


def check_name(name: str) -> None:
    """Refuses a name that is no network's.

    Args:
        name: as for `build`.

    Raises:
        UserError: naming those that there are, and the one that is nearly the same.
    """
    if name.startswith(_APPLICATIONS_PREFIX):
        check_application(name.removeprefix(_APPLICATIONS_PREFIX))
    elif name not in NETWORKS and not name.startswith(_HUB_PREFIX):
        raise UserError(
            f"--network={name}: unknown; the networks are {', '.join(NETWORKS)}, "
            f"{_APPLICATIONS_PREFIX}NAME (a constructor of keras.applications) and "
            f"{_HUB_PREFIX}PRESET{guess(name, NETWORKS)}"
        )


def build(
    name: str,
    num_classes: int,
    weights: str | os.PathLike[str] | None = None,
    image_size: int | None = None,
    keep_head: bool = False,
) -> keras.Model:
    """Builds a network by its name.

    Args:
        name: a key of `NETWORKS`, ``"applications:"`` and the name of a `keras.applications`
            constructor, such as ``"applications:MobileNetV2"``, or ``"keras_hub:"`` and a preset,
            see `hub.hub_cam`.
        num_classes: number of classes.
        weights: ``"imagenet"``, None or ``"none"`` (random), or a file of that network's weights.
        image_size: side of the input images in pixels; None takes any.
        keep_head: start from the weights' own classifier rather than a random head; it must have
            ``num_classes`` classes.

    Returns:
        A CAM network.

    Raises:
        UserError: for an unknown name, naming the known ones, or unsuitable weights.
    """
    check_name(name)
    if keep_head:
        return _with_trained_head(name, num_classes, weights, image_size)
    if name.startswith(_APPLICATIONS_PREFIX):
        constructor = name.removeprefix(_APPLICATIONS_PREFIX)
        return application_cam(constructor, num_classes, weights=weights, image_size=image_size)
    if name.startswith(_HUB_PREFIX):
        preset = name.removeprefix(_HUB_PREFIX)
        return hub_cam(preset, num_classes, weights=weights, image_size=image_size)
    return NETWORKS[name](num_classes, weights=weights, image_size=image_size)


def _with_trained_head(
    name: str, num_classes: int, weights: str | os.PathLike[str] | None, image_size: int | None
) -> keras.Model:
    if weights in (None, "none"):
        raise UserError("keep_head needs weights; there is no trained head without them")
    if name.startswith(_APPLICATIONS_PREFIX):
        constructor = name.removeprefix(_APPLICATIONS_PREFIX)
        network = application_classifier_cam(constructor, weights=weights, image_size=image_size)
    elif name in CLASSIFIERS:
        network = CLASSIFIERS[name](weights=weights, image_size=image_size)
    else:
        raise UserError(f"keep_head: {name} has no trained head; choose {', '.join(CLASSIFIERS)}")
    found = network.output_shape[-1]
    if found != num_classes:
        raise UserError(
            f"keep_head: the head of {name} has {found} classes, the data {num_classes}; without "
            "keep_head training starts from a random one"
        )
    return network
