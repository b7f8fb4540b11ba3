"""Networks trained in another precision, computed in float32."""

from __future__ import annotations

from typing import Any

import keras

from spml_tf.networks.batch_norm import LayerCloner
from spml_tf.system.private_api import flatten_layers, is_functional


class _Cloner(LayerCloner):
    """Clones layers that compute in float32."""

    def config_of(self, layer: keras.Operation) -> dict[str, Any]:
        """The arguments of the clone."""
        config = super().config_of(layer)
        return {**config, "dtype": "float32"} if "dtype" in config else config


def in_float32(network: keras.Model) -> keras.Model:
    """A copy of a network of mixed precision that computes in float32, with the same weights.

    Args:
        network: functional.

    Returns:
        A new network, or the same one where it computes in float32 or cannot be cloned.

    Examples:
        >>> import keras
        >>> from spml_tf.networks.float32 import in_float32
        >>> image = keras.Input((2, 2, 3))
        >>> maps = keras.layers.Conv2D(1, 1, dtype="mixed_bfloat16")(image)
        >>> in_float32(keras.Model(image, maps)).output.dtype
        'float32'
    """
    plain = all(layer.compute_dtype == "float32" for layer in flatten_layers(network))
    if plain or not is_functional(network):
        return network
    cloner = _Cloner(fuse=False)
    copy = keras.models.clone_model(network, clone_function=cloner, recursive=True)
    cloner.copy_weights()
    return copy
