"""A network so small that a short run's time is that of everything else."""

from __future__ import annotations

from typing import Any

import keras

from spml_tf import networks


def tiny_cam(num_classes: int, weights: Any = None, image_size: int | None = None) -> keras.Model:
    """One convolution of stride 4 with batch normalisation, and the CAM head.

    Args:
        num_classes: number of classes.
        weights: not used, the network is random.
        image_size: side of the input images in pixels.
    """
    image = keras.Input((image_size, image_size, 3), name="image")
    x = keras.layers.Rescaling(1 / 128, -1)(image)
    x = keras.layers.Conv2D(16, 5, strides=4, use_bias=False)(x)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    return networks.cam_from_backbone(keras.Model(image, x), num_classes)
