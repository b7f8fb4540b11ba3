"""The callback that `SPMLModel.fit` adds by itself."""

from __future__ import annotations

from typing import Any

import keras


class EpochStart(keras.callbacks.Callback):
    """Tells the model which epoch begins: thaws the backbone, selects expected positives.

    `SPMLModel.fit` adds it in front of the user's callbacks.
    """

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.model.begin_epoch(epoch + 1)


def with_epoch_start(callbacks: Any) -> list[keras.callbacks.Callback]:
    """What a user passes to `fit` as callbacks, with `EpochStart` in front.

    Args:
        callbacks: None, a callback, several, or a `keras.callbacks.CallbackList`, of which the
            callbacks are taken.
    """
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = callbacks.callbacks
    several = [callbacks] if isinstance(callbacks, keras.callbacks.Callback) else callbacks or []
    return [EpochStart(), *(x for x in several if not isinstance(x, EpochStart))]
