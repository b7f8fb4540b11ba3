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


def with_epoch_start(callbacks: Any) -> Any:
    """What a user passes to `fit` as callbacks (None, one, several or a CallbackList), with it."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks.append(EpochStart())
        return callbacks
    several = [callbacks] if isinstance(callbacks, keras.callbacks.Callback) else callbacks or []
    return [EpochStart(), *several]
