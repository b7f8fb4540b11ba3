"""ResNet-50, and every other architecture of `keras.applications`, as a CAM network."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from typing import Any

import keras

from spml_tf.networks.cam import cam_from_backbone, cam_from_classifier, replace_head
from spml_tf.networks.weights import chosen_weights, load_backbone_weights
from spml_tf.system.errors import UserError, reason_of

# The preprocessing each family's ImageNet weights were trained with ("none": inside the model).
_FAMILIES = {
    "resnet": "caffe",
    "vgg16": "caffe",
    "vgg19": "caffe",
    "densenet": "torch",
    "resnet_v2": "tf",
    "inception_v3": "tf",
    "inception_resnet_v2": "tf",
    "xception": "tf",
    "mobilenet": "tf",
    "mobilenet_v2": "tf",
    "nasnet": "tf",
    "mobilenet_v3": "none",
    "efficientnet": "none",
    "efficientnet_v2": "none",
    "convnext": "none",
}


def _family(constructor: Callable[..., keras.Model]) -> str:
    """Returns the module of `keras.applications` a constructor is defined in."""
    return getattr(constructor, "__module__", "").rsplit(".", 1)[-1]


APPLICATIONS: dict[str, Callable[..., keras.Model]] = {
    name: constructor
    for name, constructor in vars(keras.applications).items()
    if name[0].isupper() and _family(constructor) in _FAMILIES
}


def resnet50_cam(
    num_classes: int,
    *,
    weights: str | os.PathLike[str] | None = "imagenet",
    image_size: int | None = 448,
    classifier: keras.Model | None = None,
) -> keras.Model:
    """Builds the paper's network: ResNet-50 (stride 32) with a CAM head.

    Args:
        num_classes: number of classes.
        weights: ``"imagenet"`` (Keras downloads them), None or ``"none"`` (random), or a file of
            `keras.applications.ResNet50` weights or model, with its head or without.
        image_size: side of the input images in pixels, at least 32; None takes any.
        classifier: a ResNet-50 with its dense head to start from instead of ``weights``. Its head
            is kept if it has ``num_classes`` outputs, else it is replaced by a random one.

    Returns:
        "image" [batch, size, size, 3] float32 in 0..255 -> [batch, size/32, size/32, num_classes].

    Raises:
        UserError: if the weights cannot be had, naming the file.
    """
    if classifier is None:
        return application_cam("ResNet50", num_classes, weights=weights, image_size=image_size)
    network = cam_from_classifier(classifier, preprocessing="caffe", image_size=image_size)
    if network.output_shape[-1] != num_classes:
        network = replace_head(network, num_classes)
    return network


def application_cam(
    name: str,
    num_classes: int,
    *,
    weights: str | os.PathLike[str] | None = "imagenet",
    image_size: int | None = 224,
) -> keras.Model:
    """Builds a CAM network on an architecture of `keras.applications`.

    Args:
        name: of the constructor, such as ``"MobileNetV2"``.
        num_classes: number of classes.
        weights: as in `resnet50_cam`, of this architecture.
        image_size: side of the input images in pixels; None takes any.

    Returns:
        "image" [batch, size, size, 3] float32 in 0..255 -> [batch, grid, grid, num_classes]
        float32 logits; the preprocessing the architecture's weights expect is inside.

    Raises:
        UserError: for an unknown name, an image too small, or weights that cannot be had.
    """
    weights = chosen_weights(weights)
    shape = (image_size, image_size, 3)
    backbone = _constructed(name, weights == "imagenet", include_top=False, input_shape=shape)
    if weights not in (None, "imagenet"):
        load_backbone_weights(backbone, weights)
    return cam_from_backbone(
        backbone,
        num_classes,
        preprocessing=_FAMILIES[_family(APPLICATIONS[name])],
        name=f"{name.lower()}_cam",
    )


def application_classifier_cam(
    name: str,
    *,
    weights: str | os.PathLike[str] | None = "imagenet",
    image_size: int | None = 224,
) -> keras.Model:
    """Builds a CAM network on an architecture of `keras.applications` and its trained head.

    Args:
        name: of the constructor, such as ``"ResNet50"``; its classifier must end in global average
            pooling and a dense layer.
        weights: as in `resnet50_cam`; a file must hold the head.
        image_size: side of the input images in pixels; None takes any.

    Returns:
        "image" [batch, size, size, 3] float32 in 0..255 -> [batch, grid, grid, 1000] float32
        logits, whose mean over the grid is the classifier's logits.

    Raises:
        UserError: for an unknown name, another ending, or weights that cannot be had.
    """
    weights = chosen_weights(weights)
    classifier = _constructed(name, weights == "imagenet", include_top=True)
    if weights not in (None, "imagenet"):
        load_backbone_weights(classifier, weights)
    family = _FAMILIES[_family(APPLICATIONS[name])]
    return cam_from_classifier(classifier, preprocessing=family, image_size=image_size)


def check_application(name: str) -> None:
    """Raises UserError for a name that is no constructor of `keras.applications`."""
    if name not in APPLICATIONS:
        near = difflib.get_close_matches(name, APPLICATIONS, n=3, cutoff=0.5)
        hint = ", ".join(near or sorted(APPLICATIONS))
        raise UserError(f"keras.applications has no network {name!r}; did you mean: {hint}")


def _constructed(name: str, pretrained: bool, **options: Any) -> keras.Model:
    """Constructs the architecture, with ImageNet weights or random ones."""
    check_application(name)
    try:
        return APPLICATIONS[name](weights="imagenet" if pretrained else None, **options)
    except Exception as error:  # a failed download raises a bare Exception in Keras
        reason = reason_of(error, 200)
        fix = "pass a file of its weights, or 'none'" if pretrained else "choose another image size"
        size = options.get("input_shape", "its own size")
        raise UserError(f"{name} at {size}: {reason}; {fix}") from error
