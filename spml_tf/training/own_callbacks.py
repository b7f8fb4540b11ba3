"""The callbacks that `SPMLModel.fit` adds by itself."""

from __future__ import annotations

from typing import Any

import keras


class EpochStart(keras.callbacks.Callback):
    """Tells the model which epoch begins: thaws the backbone, selects expected positives.

    `SPMLModel.fit` adds it in front of the user's callbacks.
    """

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.model.begin_epoch(epoch + 1)


class LastEpochEnd(keras.callbacks.Callback):
    """Thaws the backbone, so that Keras can write an optimizer's averages to all weights.

    `SPMLModel.fit` adds it behind the user's callbacks, which may have ended training.
    """

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.model.stop_training or epoch + 1 >= self.params["epochs"]:
            self.model.end_training()


def with_own(callbacks: Any) -> list[keras.callbacks.Callback]:
    """What a user passes to `fit` as callbacks, with ours in front and behind.

    Args:
        callbacks: None, a callback, several, or a `keras.callbacks.CallbackList`, of which the
            callbacks are taken.
    """
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = callbacks.callbacks
    several = [callbacks] if isinstance(callbacks, keras.callbacks.Callback) else callbacks or []
    others = (x for x in several if not isinstance(x, EpochStart | LastEpochEnd))
    return [EpochStart(), *others, LastEpochEnd()]
