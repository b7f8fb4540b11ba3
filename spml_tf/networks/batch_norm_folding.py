"""Batch normalisation folded into the convolutions before it, for networks that only predict."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from spml_tf.networks.batch_norm import FusedBatchNormalization, LayerCloner
from spml_tf.system import private_api

# These types and no subclasses, which may compute something else.
_CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
_NORMS = (keras.layers.BatchNormalization, FusedBatchNormalization)


class _Folded(keras.layers.Layer):
    """Stands where a batch normalisation was, and returns what it gets."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        return inputs


def folded(network: keras.Model) -> keras.Model:
    """A copy of a network in which convolutions do what the normalisations after them did.

    y = gamma (w * x + b - mean) / sqrt(variance + epsilon) + beta is a convolution again. It needs
    no pass of its own over the features, and rounds differently: logits change in the sixth digit.

    A convolution of the network itself, and not of a model inside it, is folded where all that
    reads it is one `BatchNormalization` over channels that come last, both in float32; other layers
    stay as they are.

    Args:
        network: images -> CAM logits, functional.

    Returns:
        A new network for inference, or the same one where nothing can be folded.

    Examples:
        >>> import keras, numpy as np
        >>> from spml_tf.networks.batch_norm_folding import folded
        >>> image = keras.Input((2, 2, 1))
        >>> maps = keras.layers.BatchNormalization(epsilon=1.0)(keras.layers.Conv2D(1, 1)(image))
        >>> network = keras.Model(image, maps)
        >>> # kernel, bias, gamma, beta, mean, variance: 3 (2 x + 1 - 4) / sqrt(3 + 1) + 5
        >>> network.set_weights([np.array(x, "f") for x in ([[[[2]]]], [1], [3], [5], [4], [3])])
        >>> [x.tolist() for x in folded(network).get_weights()]  # is 3 x + 0.5
        [[[[[3.0]]]], [0.5]]
    """
    pairs = _pairs(network) if private_api.is_functional(network) else {}
    if not pairs:
        return network
    folder = _Folder(pairs)
    copy = keras.models.clone_model(network, clone_function=folder)
    folder.copy_weights()
    return copy


class _Folder(LayerCloner):
    """Clones convolutions that do what the normalisations after them did.

    Args:
        pairs: as `_pairs` returns.
    """

    def __init__(self, pairs: dict[str, keras.layers.BatchNormalization]) -> None:
        super().__init__(fuse=False)
        self._norms, self._gone = pairs, {norm.name for norm in pairs.values()}

    def __call__(self, layer: keras.Operation) -> keras.Operation:
        """Returns an unbuilt copy of a layer, or what stands for a normalisation."""
        if layer.name in self._gone:
            return _Folded(name=layer.name, dtype="float32")
        clone = super().__call__(layer)
        if layer.name in self._norms:
            clone.use_bias = True
        return clone

    def weights_for(self, layer: keras.layers.Layer) -> list[np.ndarray]:
        """The weights of a layer's clone."""
        norm = self._norms.get(layer.name)
        return super().weights_for(layer) if norm is None else _folded_weights(layer, norm)


def _pairs(network: keras.Model) -> dict[str, keras.layers.BatchNormalization]:
    """By the names of convolutions that can be folded the normalisations after them."""
    calls = _calls(network)
    times = collections.Counter(id(layer) for layer, *_ in calls)
    readers: dict[int, list[Any]] = collections.defaultdict(list)
    for layer, inputs, _ in calls:
        for tensor in inputs:
            readers[id(tensor)].append(layer)
    shown = {id(x) for x in keras.tree.flatten(network.outputs)}
    pairs = {}
    for layer, _, output in calls:
        after = readers[id(output)]
        if _can_take(layer) and times[id(layer)] == 1 and id(output) not in shown:
            if len(after) == 1 and _can_be_taken(after[0]) and times[id(after[0])] == 1:
                pairs[layer.name] = after[0]
    return pairs


def _calls(network: keras.Model) -> list[tuple[Any, Sequence[Any], Any]]:
    """Every layer with inputs and output, as often as the network calls it."""
    ends = {id(x) for x in keras.tree.flatten(network.inputs)}
    pending, seen, found = list(keras.tree.flatten(network.outputs)), set(), []
    while pending:
        output = pending.pop()
        if id(output) in ends or id(output) in seen:
            continue
        seen.add(id(output))
        layer, inputs = private_api.origin(output)
        found.append((layer, inputs, output))
        pending.extend(inputs)
    return found


def _can_take(layer: Any) -> bool:
    """Whether a layer is a convolution whose output is that of its kernel and bias."""
    if type(layer) not in _CONVOLUTIONS or not _is_float32(layer):
        return False
    linear = layer.activation is keras.activations.linear
    usual = len(layer.weights) == 1 + layer.use_bias  # LoRA adds others
    return bool(layer.data_format == "channels_last" and linear and usual)


def _can_be_taken(layer: Any) -> bool:
    """Whether a layer normalises channels that come last."""
    if type(layer) not in _NORMS or not _is_float32(layer):
        return False
    return layer.axis in (-1, 3) and not getattr(layer, "renorm", False)


def _is_float32(layer: keras.layers.Layer) -> bool:
    return bool(layer.compute_dtype == layer.variable_dtype == "float32")


def _folded_weights(
    layer: keras.layers.Layer, norm: keras.layers.BatchNormalization
) -> list[np.ndarray]:
    """Kernel and bias, computed in float64."""
    kernel, *bias = (np.asarray(x, np.float64) for x in layer.get_weights())
    mean = np.asarray(norm.moving_mean, np.float64)
    scale = 1 / np.sqrt(np.asarray(norm.moving_variance, np.float64) + norm.epsilon)
    scale = scale * np.asarray(norm.gamma, np.float64) if norm.scale else scale
    shift = np.asarray(norm.beta, np.float64) if norm.center else 0.0
    # A depthwise kernel is [h, w, channels, multiplier]; its outputs are channels by multiplier.
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    by_output = scale.reshape(kernel.shape[2:]) if depthwise else scale
    offset = (bias[0] if bias else 0.0) - mean
    return [kernel * by_output, offset * scale + shift]
