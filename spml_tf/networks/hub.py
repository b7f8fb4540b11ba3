"""Networks on backbones of keras_hub, by preset."""

from __future__ import annotations

import os

import keras

from spml_tf.networks.cam import cam_from_backbone
from spml_tf.networks.weights import chosen_weights, load_backbone_weights
from spml_tf.system.errors import UserError, reason_of


def hub_cam(
    preset: str,
    num_classes: int,
    *,
    weights: str | os.PathLike[str] | None = "imagenet",
    image_size: int | None = 224,
) -> keras.Model:
    """Builds a CAM network on the backbone of a keras_hub preset; needs the extra `hub`.

    Args:
        preset: a name such as ``"vit_base_patch16_224_imagenet"``, a handle such as
            ``"hf://USER/MODEL"``, which are downloaded, or a folder that `save_to_preset` wrote.
        num_classes: number of classes.
        weights: ``"imagenet"``: those of the preset, whatever they were trained on; None or
            ``"none"``: random; or a file of the backbone's weights.
        image_size: side of the input images in pixels; None takes the backbone's own.

    Returns:
        "image" [batch, size, size, 3] float32 in 0..255 -> [batch, grid, grid, num_classes]
        float32 logits; the scaling that the preset's weights expect is inside.

    Raises:
        UserError: keras_hub is missing, the preset is unknown, cannot be had or is of no images,
            or the image size does not fit.
    """
    try:
        import keras_hub
    except ImportError:
        raise UserError(
            f"keras_hub:{preset}: needs keras-hub; pip install 'spml_tf[hub]'"
        ) from None
    weights = chosen_weights(weights)
    try:
        backbone = keras_hub.models.Backbone.from_preset(preset, load_weights=weights == "imagenet")
        scaling = _scaling(keras_hub.layers.ImageConverter.from_preset(preset))
    except Exception as error:  # whatever its downloads and its classes raise
        reason = reason_of(error, 200)
        raise UserError(
            f"keras_hub:{preset}: {reason}; give a preset of an image backbone, or the folder of "
            "one that was downloaded elsewhere (save_to_preset)"
        ) from error
    if weights not in (None, "imagenet"):
        load_backbone_weights(backbone, weights)
    side = backbone.inputs[0].shape[1] if len(backbone.inputs) == 1 else None
    if side is not None and image_size not in (None, side):
        raise UserError(
            f"keras_hub:{preset}: was made for images of {side} pixels, not {image_size}; give "
            f"--image_size={side}"
        )
    name = f"{os.path.basename(preset.rstrip('/')) or backbone.name}_cam"
    return cam_from_backbone(
        backbone, num_classes, preprocessing=scaling, image_size=image_size, name=name
    )


def _scaling(converter: keras.layers.Layer) -> keras.layers.Layer:
    """What a preset does to pixels before its backbone, without the resizing."""
    scale = 1.0 if converter.scale is None else converter.scale
    offset = 0.0 if converter.offset is None else converter.offset
    # Not in half precision, whose 8 bits round the values of a resized photo by up to 1.
    return keras.layers.Rescaling(scale, offset, dtype="float32", name="preprocessing")
