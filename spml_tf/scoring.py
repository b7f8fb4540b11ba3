"""Scores of a network on a split, and what they are worth."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from spml_tf import metrics, pipeline
from spml_tf.readers import Examples


def predict_scores(
    network: keras.Model, examples: Examples, image_size: int, batch_size: int = 32
) -> np.ndarray:
    """Scores of whole images.

    Args:
        network: images -> CAM logits [B, G, G, L].
        examples: N images.
        image_size: side of the network's input in pixels.
        batch_size: images at a time.

    Returns:
        [N, L] float32, f = sigmoid(mean of F), in the images' order.
    """
    data = pipeline.evaluation_dataset(
        examples, examples.labels, image_size=image_size, batch_size=batch_size
    )
    inputs = keras.Input(network.input_shape[1:])
    pooled = keras.ops.mean(network(inputs), axis=(1, 2))
    scorer = keras.Model(inputs, keras.ops.sigmoid(pooled))
    return scorer.predict(data.map(lambda x, y: x["image"]), verbose=0)


def predict_maps(
    network: keras.Model, examples: Examples, image_size: int, batch_size: int = 32
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Scores and heatmaps of whole images, a batch at a time.

    Args:
        network, examples, image_size, batch_size: as for `predict_scores`.

    Yields:
        scores: [B, L] float32, f = sigmoid(mean of F), in the images' order.
        maps: [B, G, G, L] float32 in [0, 1], sigmoid(F).
    """
    data = pipeline.evaluation_dataset(
        examples, examples.labels, image_size=image_size, batch_size=batch_size
    )
    inputs = keras.Input(network.input_shape[1:])
    logits = network(inputs)
    pooled = keras.ops.mean(logits, axis=(1, 2))
    both = keras.Model(inputs, [keras.ops.sigmoid(pooled), keras.ops.sigmoid(logits)])
    for x, _ in data:
        scores, maps = both.predict_on_batch(x["image"])
        yield scores, maps


def score_report(
    labels: np.ndarray,
    scores: np.ndarray,
    class_names: tuple[str, ...],
    absent_classes: str = "skip",
) -> dict[str, Any]:
    """Mean and per-class average precision, in percent.

    Args:
        labels: [N, L]; 1 is a positive, every other value a negative.
        scores: [N, L] float.
        class_names: L names.
        absent_classes: "skip" or "zero", see `metrics.mean_average_precision`.

    Returns:
        {"map": float or None, "ap": {class: float or None}, "absent_classes": [names]}; None
        stands for a class without positives.
    """
    precisions = 100.0 * metrics.average_precision(labels, scores)
    mean = 100.0 * metrics.mean_average_precision(labels, scores, absent_classes)
    named = dict(zip(class_names, (_number(x) for x in precisions), strict=True))
    absent = [name for name, value in named.items() if value is None]
    return {"map": _number(mean), "ap": named, "absent_classes": absent}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
