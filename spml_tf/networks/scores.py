"""From a network of class activation maps to one that emits scores."""

from __future__ import annotations

import keras


def scores_network(network: keras.Model) -> keras.Model:
    """A network of the scores f = sigmoid(mean of F), which shares the weights of a CAM network.

    Args:
        network: images -> [B, G, G, L] float32 logits.

    Returns:
        images -> [B, L] float32 in [0, 1].
    """
    pool = keras.layers.GlobalAveragePooling2D(
        data_format="channels_last", dtype="float32", name="pooled_logits"
    )
    sigmoid = keras.layers.Activation("sigmoid", dtype="float32", name="scores")
    return keras.Model(network.input, sigmoid(pool(network.output)), name=f"{network.name}_scores")
