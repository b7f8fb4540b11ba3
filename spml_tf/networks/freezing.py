"""Freezing of a network's backbone while its head warms up."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import keras

from spml_tf.networks.cam import backbone_layers


class BackboneSwitch:
    """Freezes the backbone of a CAM network and puts it back; what else is frozen stays so.

    Args:
        network: a CAM network.
        freeze_batch_norm: freeze the backbone's batch normalisation for good.

    Raises:
        ValueError: if the network has no head.
    """

    def __init__(self, network: keras.Model, freeze_batch_norm: bool = False) -> None:
        # A layer made of layers stands before these: to set it sets them too.
        self._layers = backbone_layers(network)
        for layer in self._layers:
            if freeze_batch_norm and isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False
        # How the layers were when `turn` froze them; None where it has not.
        self._before: list[bool] | None = None

    @property
    def frozen(self) -> bool:
        """Whether no layer of the backbone is trained."""
        return not any(layer.trainable for layer in self._layers)

    def _set(self, trainable: Sequence[bool]) -> None:
        for layer, value in zip(self._layers, trainable, strict=True):
            layer.trainable = value

    def turn(self, trainable: bool) -> bool:
        """Freezes the backbone, or puts it back as it was; returns whether a layer changed.

        A change needs a new train function.
        """
        if trainable:
            before, self._before = self._before, None
            if before is not None:
                self._set(before)
            return before is not None
        if self.frozen:
            return False
        self._before = [layer.trainable for layer in self._layers]
        self._set([False] * len(self._layers))
        return True

    @contextlib.contextmanager
    def thawed(self) -> Iterator[None]:
        """Within it the backbone is as before `turn`, so that what is saved can be trained on."""
        if self._before is None:
            yield
            return
        self._set(self._before)
        try:
            yield
        finally:
            self._set([False] * len(self._layers))
