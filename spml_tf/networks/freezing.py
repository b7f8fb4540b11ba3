"""Freezing of a network's backbone while its head warms up."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras

from spml_tf.networks.cam import backbone_layers


class BackboneSwitch:
    """Freezes and thaws the backbone of a CAM network, but for what was frozen before.

    Args:
        network: a CAM network.
        freeze_batch_norm: freeze the backbone's batch normalisation for good.

    Raises:
        ValueError: if the network has no head.
    """

    def __init__(self, network: keras.Model, freeze_batch_norm: bool = False) -> None:
        layers = backbone_layers(network)
        for layer in layers:
            if freeze_batch_norm and isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False
        self._network = network
        # Of a layer made of layers before these: to set it sets them too.
        self._trainable = [(layer, layer.trainable) for layer in layers]

    @property
    def frozen(self) -> bool:
        """Whether no layer of the backbone is trained."""
        return not any(layer.trainable for layer in self._thawable)

    @property
    def _thawable(self) -> list[keras.layers.Layer]:
        """The layers that were not frozen before."""
        return [layer for layer, trainable in self._trainable if trainable]

    def _set(self, trainable: bool) -> None:
        for layer, before in self._trainable:
            layer.trainable = trainable and before

    def turn(self, trainable: bool) -> bool:
        """Makes the backbone trainable or not; returns whether a layer changed.

        A change needs a new train function.
        """
        changed = any(layer.trainable != trainable for layer in self._thawable)
        if changed:
            self._set(trainable)
        return changed

    @contextlib.contextmanager
    def thawed(self) -> Iterator[None]:
        """Within it the backbone is trainable, so that what is saved can be trained on."""
        now = [(layer, layer.trainable) for layer, _ in self._trainable]
        self._set(True)
        try:
            yield
        finally:
            for layer, trainable in now:
                layer.trainable = trainable
