"""Trains methods under a strategy, in a process of its own: devices are set up only once.

`python distributed_training.py KIND WORKER FOLDER METHOD,...` writes FOLDER/METHOD_WORKER.npz: the
loss of every step, the history, the tables of images and the network's weights. KIND is "one", "2r"
(two replicas), "2w" (two workers), "2w2r" (two workers of two replicas each); a METHOD that ends in
"*" has sample weights.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tiny_network import tiny_cam

import spml_tf
from spml_tf.banks.image_tables import KeepsTables
from spml_tf.system import strategies
from spml_tf.system.private_api import flatten_layers
from spml_tf.training import methods

IMAGES, CLASSES, BATCH, EPOCHS = 23, 4, 5, 4
STRATEGIES = {"one": "none", "2r": "mirrored", "2w": "multi_worker", "2w2r": "multi_worker"}


class Steps(keras.callbacks.Callback):
    """Keeps the loss of every step."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.losses.append(float(logs["loss"]))


def training_data(weighted: bool) -> tuple[tf.data.Dataset, np.ndarray]:
    """Batches of 5, the last of an epoch holds 3; one order for all epochs."""
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (IMAGES, 16, 16, 3)).astype(np.float32)
    y1, x1 = rng.uniform(0, 0.4, (2, IMAGES))
    box = np.stack([y1, x1, y1 + 0.5, x1 + 0.5], axis=1).astype(np.float32)
    x = {"image": images, "index": np.arange(IMAGES), "box": box, "flip": rng.random(IMAGES) < 0.5}
    y = np.where(np.arange(CLASSES) == rng.integers(0, CLASSES, (IMAGES, 1)), 1, -1)
    parts = (x, y.astype(np.int8))
    if weighted:
        parts = (*parts, rng.uniform(0.5, 2, (IMAGES, CLASSES)).astype(np.float32))
    data = tf.data.Dataset.from_tensor_slices(parts)
    data = data.shuffle(IMAGES, seed=3, reshuffle_each_iteration=False)
    return data.batch(BATCH), parts[1]


def train(name: str, strategy: tf.distribute.Strategy) -> dict[str, Any]:
    method = name.rstrip("*")
    batches, labels = training_data(name.endswith("*"))
    known = 1.5 if methods.needs_k(method) else None
    options = {
        flag: value
        for flag, value in {
            "selection_start_epoch": 2, "selection_budget": "all", "consistency_start_epoch": 1,
            "large_loss_rate": 10.0, "heatmap_size": 6, "gr_epochs": 4, "likely_per_image": 0.5,
            "likely_max_prior": 0.45, "ignore_warmup_epochs": 1, "pseudo_label_epochs": 4,
            "pseudo_label_warmup_epochs": 1,
        }.items()
        if flag in methods.flags_of(method)
    }  # fmt: skip
    keras.utils.set_random_seed(0)
    with strategy.scope():
        network = tiny_cam(CLASSES, image_size=16)
        network.get_layer("cam_logits").kernel.regularizer = keras.regularizers.L2(1e-2)
        model = spml_tf.SPMLModel(
            network, IMAGES, method, known, freeze_batch_norm=True, keep_scores=True,
            bank_dtype="uint8" if name.endswith("cl*") else "float32", **options,
        )  # fmt: skip
        model.compile(keras.optimizers.Adam(1e-3), metrics=[spml_tf.MeanAveragePrecision()])
        model.set_labels(labels)
    steps = Steps()
    history = model.fit(
        batches, epochs=EPOCHS, verbose=0, validation_data=batches, callbacks=[steps]
    ).history
    tables = {
        f"table/{layer.name}/{place}": table.numpy()
        for layer in flatten_layers(model, include_self=False)
        if isinstance(layer, KeepsTables)
        for place, table in layer.saved_tables().items()
    }
    weights = np.concatenate([x.numpy().ravel() for x in network.weights])
    found = {f"history/{key}": np.array(values) for key, values in history.items()}
    return {"steps": np.array(steps.losses), "weights": weights, **found, **tables}


def main(kind: str, worker: str, folder: str, names: str) -> None:
    tf.config.threading.set_intra_op_parallelism_threads(1)
    strategy = strategies.strategy(STRATEGIES[kind], 2 if kind.endswith("2r") else 0)
    for name in names.split(","):
        found = train(name, strategy)
        np.savez(Path(folder) / f"{name.replace('*', '_weighted')}_{worker}.npz", **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
