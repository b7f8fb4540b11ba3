"""Networks that emit class activation maps: the classifier applied before pooling.

A classifier that ends in global average pooling and a dense layer computes
``mean_yx(features) @ W + b``. The mean is linear, so the same W and b applied at every position
(a 1x1 convolution) and averaged afterwards give the same logits: the network then emits a map
per class, and its spatial mean is the classifier (section 3.1 of Verelst et al., WACV 2023).

Every network here takes "image", [batch, size, size, 3] float32 RGB in 0..255, and returns
[batch, grid, grid, classes] float32 logits from the layer `CAM_LAYER`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from spml_tf.networks.batch_norm import clone_with
from spml_tf.networks.preprocessing import ImagePreprocessing
from spml_tf.system.errors import UserError, reason_of
from spml_tf.system.private_api import flatten_layers, is_functional, origin

CAM_LAYER = "cam_logits"
# What layers raise whose configuration does not make them again, or not for these images.
_CLONING_ERRORS = (ValueError, TypeError, NotImplementedError)


def cam_head(
    features: keras.KerasTensor, num_classes: int, seed: int | None = None, activation: Any = None
) -> keras.KerasTensor:
    """Applies the CAM head, a 1x1 convolution in float32.

    Args:
        features: [batch, grid, grid, channels] float.
        num_classes: number of classes, at least 1.
        seed: of the initial weights, None for Keras' global seed.
        activation: of the maps, such as `boost.BoostLU`; None for none.

    Returns:
        [batch, grid, grid, num_classes] float32 logits.

    Raises:
        ValueError: if ``num_classes`` is below 1.
    """
    if num_classes < 1:
        raise ValueError(f"`num_classes` must be at least 1. Received: num_classes={num_classes}")
    initializer = keras.initializers.GlorotUniform(seed=seed)
    # float32 under mixed precision too: the losses and the banks need the logits' full precision.
    head = keras.layers.Conv2D(
        num_classes, 1, activation=activation, kernel_initializer=initializer, dtype="float32",
        name=CAM_LAYER,
    )  # fmt: skip
    return head(features)


def image_input(image_size: int | None) -> keras.KerasTensor:
    """Returns the input every network has, [batch, size, size, 3]; size None takes any."""
    return keras.Input((image_size, image_size, 3), dtype="float32", name="image")


def cam_from_backbone(
    backbone: keras.Model,
    num_classes: int,
    *,
    preprocessing: str | keras.layers.Layer = "none",
    image_size: int | None = None,
    fuse: bool = True,
    name: str | None = None,
    prefix_tokens: int | None = None,
) -> keras.Model:
    """Builds a CAM network on any feature extractor.

    Args:
        backbone: a Keras model from one image tensor [batch, height, width, 3] to one feature map
            [batch, grid, grid, channels], or to the tokens of a vision transformer,
            [batch, tokens, channels]: those of a square grid of patches, row by row, after any
            class and register tokens, which are dropped. A functional or sequential one is cloned
            (with its weights) and its layers become layers of the result. A subclassed one, and
            one of a registered class whose layers cannot be cloned (some of keras_hub), is used
            itself, as one layer; its class must be registered with Keras to be saved.
        num_classes: number of classes, at least 1.
        preprocessing: what the backbone's weights expect (`ImagePreprocessing`), or a layer that
            does it.
        image_size: side of the input images in pixels, None for the backbone's own.
        fuse: whether batch normalisation is replaced by the fused layer (not in subclassed ones).
        name: of the network, by default the backbone's with ``_cam``.
        prefix_tokens: how many tokens stand before those of the patches. None takes the largest
            square grid of patches that the tokens can hold, whose side must then divide that of
            the images.

    Returns:
        A functional model, "image" [batch, size, size, 3] float32 in 0..255 -> CAM logits
        [batch, grid, grid, num_classes] float32.

    Raises:
        UserError: if the backbone is not such a model.

    Examples:
        >>> image = keras.Input((32, 32, 3))
        >>> patches = keras.layers.Conv2D(8, kernel_size=4, strides=4)(image)
        >>> tokens = keras.layers.Reshape((64, 8))(patches)
        >>> cam_from_backbone(keras.Model(image, tokens), num_classes=5).output_shape
        (None, 8, 8, 5)
    """
    name = name or f"{backbone.name}_cam"
    if not isinstance(backbone, keras.Sequential) and not is_functional(backbone):
        image = image_input(image_size)
        features = backbone(_preprocessing(preprocessing)(image))
        _check_features(backbone, features)
    else:
        plain = _unwrapped(backbone)
        shape = plain.inputs[0].shape[1:3] if image_size is None else (image_size, image_size)
        image = keras.Input((*shape, 3), dtype="float32", name="image")
        features = _functional_features(backbone, plain, image, preprocessing, fuse)
    if len(features.shape) == 3:
        features = _grid_of_tokens(backbone, image, features, prefix_tokens)
    elif prefix_tokens is not None:
        raise UserError(
            f"prefix_tokens={prefix_tokens}: backbone {backbone.name!r} returns a feature map, "
            "not tokens; leave it out"
        )
    return keras.Model(image, cam_head(features, num_classes), name=name)


def cam_from_classifier(
    classifier: keras.Model,
    *,
    preprocessing: str = "none",
    head: str | None = None,
    image_size: int | None = None,
) -> keras.Model:
    """Moves a classifier's dense layer before its global average pooling.

    The spatial mean of the result equals the classifier's logits (before its softmax or sigmoid).

    Args:
        classifier: a functional or sequential model that ends in GlobalAveragePooling2D -> Dense,
            with an optional softmax or sigmoid; dropout and flattening may stand between.
        preprocessing: what has to be done before the classifier's input (`ImagePreprocessing`).
        head: name of the dense layer, None for the last one.
        image_size: side of the input images in pixels, None for the classifier's own.

    Returns:
        A CAM network with copies of the classifier's weights, head included.

    Raises:
        UserError: if the classifier has another ending, naming the layer in the way.
    """
    output = classifier.get_layer(head).output if head else _single(classifier, "outputs")
    features, dense = _trace_head(output, classifier.name)
    network = cam_from_backbone(
        keras.Model(_single(classifier, "inputs"), features, name=classifier.name),
        dense.units,
        preprocessing=preprocessing,
        image_size=image_size,
    )
    kernel, *bias = dense.get_weights()
    bias = bias or [np.zeros(dense.units, np.float32)]
    network.get_layer(CAM_LAYER).set_weights([kernel[np.newaxis, np.newaxis], *bias])
    return network


def replace_head(
    network: keras.Model,
    num_classes: int,
    class_names_from: Sequence[str] | None = None,
    class_names_to: Sequence[str] | None = None,
) -> keras.Model:
    """Puts a new head on a CAM network's backbone.

    Args:
        network: a CAM network; its backbone's layers are shared with the result, not copied.
        num_classes: number of classes of the new head.
        class_names_from: names of the network's classes, in order.
        class_names_to: names of the new classes, in order. The head's weights of every class
            whose name is in both lists are carried over.

    Returns:
        A CAM network with ``num_classes`` maps, boosted as the given one's.

    Raises:
        ValueError: if the names are not unique or not as many as the classes.
    """
    old = network.get_layer(CAM_LAYER)
    outputs = cam_head(old.input, num_classes, activation=old.activation)
    result = keras.Model(network.inputs[0], outputs, name=network.name)
    if class_names_from is None and class_names_to is None:
        return result
    names_from = _checked_names("class_names_from", class_names_from, old.filters)
    names_to = _checked_names("class_names_to", class_names_to, num_classes)
    pairs = [(names_from.index(n), i) for i, n in enumerate(names_to) if n in names_from]
    new = result.get_layer(CAM_LAYER)
    weights = new.get_weights()
    for target, source in zip(weights, old.get_weights(), strict=True):
        for row_from, row_to in pairs:
            target[..., row_to] = source[..., row_from]
    new.set_weights(weights)
    return result


def backbone_layers(network: keras.Model) -> list[keras.layers.Layer]:
    """Returns the layers of a CAM network that hold weights, those of nested models included.

    Args:
        network: a CAM network.

    Returns:
        The layers with weights, in order, without the head; of a layer that is made of layers,
        itself before these.

    Raises:
        ValueError: if the network has no head.
    """
    try:
        head = network.get_layer(CAM_LAYER)
    except ValueError:
        raise ValueError(
            f"the network {network.name!r} has no layer {CAM_LAYER!r}: build it with "
            "spml_tf.networks, for a backbone of your own with cam_from_backbone"
        ) from None
    layers = flatten_layers(network, include_self=False)
    return [x for x in layers if x is not head and x.weights and not isinstance(x, keras.Model)]


def _single(model: keras.Model, side: str) -> keras.KerasTensor:
    """Returns a model's only input or output tensor."""
    tensors = getattr(model, side, None) if model.built else None
    if not tensors:
        raise UserError(f"model {model.name!r} is not built: give it a keras.Input first")
    if len(tensors) != 1:
        raise UserError(f"model {model.name!r} has {len(tensors)} {side}, not one")
    return tensors[0]


def _unwrapped(backbone: keras.Model) -> keras.Model:
    """Returns the backbone as a plain functional model, out of wrappers that only call it."""
    model = keras.Model(
        _single(backbone, "inputs"), _single(backbone, "outputs"), name=backbone.name
    )
    inner = [op for op in model.operations if not isinstance(op, keras.layers.InputLayer)]
    only = inner[0] if len(inner) == 1 else None
    if isinstance(only, keras.Sequential) or (only is not None and is_functional(only)):
        return _unwrapped(only)
    if len(model.inputs[0].shape) != 4 or model.inputs[0].shape[-1] != 3:
        raise UserError(
            f"backbone {backbone.name!r} takes {model.inputs[0].shape}, not "
            "[batch, height, width, 3] images"
        )
    _check_features(backbone, model.outputs[0])
    return model


def _check_features(backbone: keras.Model, features: keras.KerasTensor) -> None:
    """Raises UserError unless the backbone's output is a feature map or tokens."""
    shape = getattr(features, "shape", None)
    if shape is None or len(shape) not in (3, 4):
        raise UserError(
            f"backbone {backbone.name!r} returns {shape or type(features).__name__}, not a "
            "[batch, grid, grid, channels] feature map nor [batch, tokens, channels] tokens; cut "
            "it before its pooling, or use cam_from_classifier"
        )


def _grid_of_tokens(
    backbone: keras.Model,
    image: keras.KerasTensor,
    tokens: keras.KerasTensor,
    prefix_tokens: int | None,
) -> keras.KerasTensor:
    """Returns the patches' tokens as the feature map that they are, without those before them."""
    (height, width), (count, channels) = image.shape[1:3], tokens.shape[1:]
    found = f"backbone {backbone.name!r} returns {count} tokens for images {height}x{width}"
    if count is None or channels is None or height != width:
        raise UserError(
            f"{found}; a grid of them needs square images of one size: give image_size, or a "
            "backbone of square images"
        )
    grid = math.isqrt(max(0, count - (prefix_tokens or 0)))
    before = count - grid**2
    if prefix_tokens is None and (height is None or height % grid):
        raise UserError(
            f"{found}, whose grid cannot be inferred: say with prefix_tokens=NUMBER how many "
            "class and register tokens stand before those of the patches"
        )
    if prefix_tokens is not None and (prefix_tokens < 0 or before != prefix_tokens or not grid):
        raise UserError(
            f"prefix_tokens={prefix_tokens}: {found}; without these they are no square grid"
        )
    if before:
        tokens = keras.layers.Cropping1D((before, 0), name="patch_tokens")(tokens)
    return keras.layers.Reshape((grid, grid, channels), name="patch_grid")(tokens)


def _preprocessing(given: str | keras.layers.Layer) -> keras.layers.Layer:
    if isinstance(given, keras.layers.Layer):
        return given
    return ImagePreprocessing(given, name="preprocessing")


def _functional_features(
    backbone: keras.Model,
    plain: keras.Model,
    image: keras.KerasTensor,
    preprocessing: str | keras.layers.Layer,
    fuse: bool,
) -> keras.KerasTensor:
    """Runs the backbone, or clones of the layers of its plain form, on the preprocessed image."""
    scaled = _preprocessing(preprocessing)(image)

    def call(layer: keras.Operation, *args: Any, **kwargs: Any) -> Any:
        # Whatever read the backbone's input now reads the preprocessed image.
        args, kwargs = keras.tree.map_structure(
            lambda value: scaled if value is image else value, (args, kwargs)
        )
        return layer(*args, **kwargs)

    try:
        try:
            return clone_with(plain, fuse, input_tensors=image, call_function=call).outputs[0]
        except _CLONING_ERRORS:
            if ">" not in keras.saving.get_registered_name(type(backbone)):
                raise
            # A class that Keras knows saves itself whole, and need not give its layers a config.
            return backbone(keras.tree.map_structure(lambda _: scaled, backbone.input))
    except _CLONING_ERRORS as error:
        raise UserError(
            f"backbone {backbone.name!r} cannot be cloned for images {image.shape[1]}x"
            f"{image.shape[2]} ({reason_of(error, 200)}); a Lambda layer has to "
            "become a registered layer, every layer needs get_config, and a backbone made for "
            "one size of images takes no other"
        ) from error


def _trace_head(
    output: keras.KerasTensor, name: str
) -> tuple[keras.KerasTensor, keras.layers.Dense]:
    """Follows a classifier from its output back to the features before its pooling."""
    dense: keras.layers.Dense | None = None
    while True:
        layer, inputs = origin(output)
        pooling = dense is not None and isinstance(layer, keras.layers.GlobalAveragePooling2D)
        if not pooling and not _belongs_to_head(layer, dense is not None):
            raise UserError(
                f"classifier {name!r} must end in GlobalAveragePooling2D -> Dense with softmax, "
                f"sigmoid or no activation; layer {layer.name!r} ({type(layer).__name__}) is in "
                "the way"
            )
        output = inputs[0]
        if pooling:
            return output, dense
        dense = layer if isinstance(layer, keras.layers.Dense) else dense


def _belongs_to_head(layer: keras.Operation, after_dense: bool) -> bool:
    """Returns whether a layer met on the way back keeps the head linear up to its activation."""
    if after_dense:
        return isinstance(layer, keras.layers.Dropout | keras.layers.Flatten)
    if isinstance(layer, keras.layers.Dense | keras.layers.Activation):
        return layer.activation.__name__ in ("linear", "softmax", "sigmoid")
    return isinstance(layer, keras.layers.Softmax | keras.layers.Dropout)


def _checked_names(argument: str, names: Sequence[str] | None, count: int) -> list[str]:
    """Returns the class names as a list if they are unique and as many as the classes."""
    if names is None or len(names) != count or len(set(names)) != count:
        raise ValueError(f"`{argument}` must be {count} different names. Received: {names}")
    return list(names)
