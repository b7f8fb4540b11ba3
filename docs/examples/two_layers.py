"""A network of two convolutions and the head."""

import keras

import spml_tf


@spml_tf.register("two_layers")
def two_layers(num_classes, weights=None, image_size=None):
    """Images in 0..255 to class activation maps of an eighth of their side."""
    image = keras.Input((image_size, image_size, 3), name="image")
    x = keras.layers.Rescaling(1 / 255)(image)
    for number in range(2):
        x = keras.layers.Conv2D(16, 5, 3 - number, "same", activation="relu")(x)
    return spml_tf.networks.cam_from_backbone(keras.Model(image, x), num_classes)
