"""Calibration as the last layer of a network."""

from __future__ import annotations

from collections.abc import Sequence

import keras


def with_calibration(
    network: keras.Model, slopes: Sequence[float], offsets: Sequence[float]
) -> keras.Model:
    """A network whose maps are slope * F + offset of each class.

    The mean of such maps is slope * mean(F) + offset, so that their pooled sigmoid is the
    calibrated probability, in every export and whatever reads the maps.

    Args:
        network: images -> CAM logits; its layers are shared with the result, not copied.
        slopes: L numbers, above 0.
        offsets: L numbers.

    Returns:
        images -> [B, G, G, L] float32.

    Examples:
        >>> image = keras.Input((1, 1, 3))
        >>> network = with_calibration(keras.Model(image, image[..., :2] - 1), [2, 3], [4, 0])
        >>> network(np.full((1, 1, 1, 3), 5, "f")).numpy().ravel().tolist()  # 2 * 4 + 4, 3 * 4
        [12.0, 12.0]
    """
    layer = keras.layers.Rescaling(
        list(map(float, slopes)), list(map(float, offsets)), dtype="float32", name="calibration"
    )
    return keras.Model(network.inputs[0], layer(network.outputs[0]), name=network.name)
