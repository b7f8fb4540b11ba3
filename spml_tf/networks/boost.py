"""BoostLU: class activation maps whose positive values are multiplied before pooling.

Kim, Kim, Jeong, Schmid, Akata and Lee, "Bridging the Gap Between Model Explanations in Partially
Annotated Multi-Label Classification" (CVPR 2023). Networks trained with false negatives give maps
whose high values are too low; the factor, 5 in theirs, raises them again, in training and
evaluation alike.
"""

from __future__ import annotations

from typing import Any

import keras

from spml_tf.networks.cam import CAM_LAYER
from spml_tf.system.errors import UserError


@keras.saving.register_keras_serializable("spml_tf")
class BoostLU:
    """The activation of a boosted CAM head: factor * F where F > 0, F elsewhere.

    Args:
        factor: alpha, above 0; 1 changes nothing.

    Examples:
        >>> BoostLU(factor=5.0)(keras.ops.array([-2.0, 0.0, 3.0])).numpy().tolist()
        [-2.0, 0.0, 15.0]
    """

    def __init__(self, factor: float) -> None:
        if not factor > 0:
            raise ValueError(f"factor must be above 0. Received: {factor!r}")
        self.factor = float(factor)

    def __call__(self, maps: Any) -> Any:
        """Boosted maps, of the shape and dtype of `maps`."""
        return keras.ops.where(maps > 0, self.factor * maps, maps)

    def get_config(self) -> dict[str, Any]:
        return {"factor": self.factor}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> BoostLU:
        """The activation that `get_config` describes."""
        return cls(**config)


def cam_boost(network: keras.Model) -> float:
    """The factor by which a CAM network multiplies positive values of its maps; 1 for none.

    Args:
        network: a CAM network.
    """
    activation = getattr(network.get_layer(CAM_LAYER), "activation", None)
    return activation.factor if isinstance(activation, BoostLU) else 1.0


def with_cam_boost(network: keras.Model, factor: float) -> keras.Model:
    """Returns a CAM network whose positive CAM values are multiplied (BoostLU).

    Everything that reads the maps sees the boosted ones: pooling and so scores, SCL, heatmaps,
    overlays and exports.

    Args:
        network: a CAM network; its backbone's layers are shared with the result, not copied.
        factor: alpha, above 0; 1 takes a boost away. It replaces any boost of the network.

    Returns:
        The network with the same weights; itself where nothing changes.

    Raises:
        UserError: its head is no convolution of Keras.

    Examples:
        >>> plain = spml_tf.networks.small_residual_cam(3, image_size=32, width=16)
        >>> boosted = with_cam_boost(plain, 5.0)
        >>> images = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3))
        >>> before, after = plain.predict(images, verbose=0), boosted.predict(images, verbose=0)
        >>> bool(np.allclose(after, np.where(before > 0, 5 * before, before), atol=1e-5))
        True
    """
    if factor == cam_boost(network):
        return network
    old = network.get_layer(CAM_LAYER)
    if not isinstance(old, keras.layers.Conv2D):
        raise UserError(
            f"the head of the network {network.name!r} is a {type(old).__name__}, not a Conv2D, "
            "and cannot be boosted; build it with cam_from_backbone"
        )
    head = type(old).from_config({**old.get_config(), "activation": "linear"})
    if factor != 1:
        head.activation = BoostLU(factor)
    outputs = head(old.input)
    head.set_weights(old.get_weights())
    return keras.Model(network.inputs[0], outputs, name=network.name)
