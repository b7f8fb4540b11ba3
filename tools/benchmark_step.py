"""Times training steps of ResNet-50: AN, EN+SCL, and EN+SCL with Keras' own batch normalisation.

python tools/benchmark_step.py [--rounds=8] [--image_size=224] [--batch_size=8]

The three models take turns, so that a change of the machine's speed meets all of them alike; the
figures are medians over the rounds, after two steps to warm up.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf

from spml_tf import SPMLModel, networks


def unfused(num_classes: int, image_size: int) -> keras.Model:
    """The same network with `keras.layers.BatchNormalization`."""
    shape = (image_size, image_size, 3)
    backbone = keras.applications.ResNet50(include_top=False, weights=None, input_shape=shape)
    return networks.cam_from_backbone(
        backbone, num_classes, preprocessing="caffe", image_size=image_size, fuse=False
    )


def stepper(network: keras.Model, method: str, batch: tuple) -> SPMLModel:
    """A model ready to step, and its endless batches."""
    model = SPMLModel(network, num_images=1000, method=method, positives_per_image=1.5)
    model.compile(keras.optimizers.Adam(1e-5))
    model.begin_epoch(3)
    model.make_train_function()
    model.batches = iter(tf.data.Dataset.from_tensors(batch).repeat())
    return model


def seconds(model: SPMLModel) -> float:
    """One step's time."""
    start = time.perf_counter()
    logs = model.train_function(model.batches)
    float(logs["loss"])
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--batch_size", type=int, default=8)
    options = parser.parse_args()
    size, count = options.image_size, options.batch_size
    batch = (
        {
            "image": tf.random.uniform([count, size, size, 3], 0, 255),
            "index": tf.range(count, dtype=tf.int64),
            "box": tf.tile([[0.1, 0.2, 0.8, 0.9]], [count, 1]),
            "flip": tf.range(count) % 2 == 0,
        },
        tf.one_hot(tf.range(count) % 20, 20, on_value=1, off_value=-1, dtype=tf.int8),
    )
    fused = {"weights": None, "image_size": size}
    models = {
        "AN": stepper(networks.resnet50_cam(20, **fused), "an", batch),
        "EN+SCL": stepper(networks.resnet50_cam(20, **fused), "en+scl", batch),
        "EN+SCL, Keras' batch normalisation": stepper(unfused(20, size), "en+scl", batch),
    }
    times: dict[str, list[float]] = {name: [] for name in models}
    for number in range(options.rounds + 2):
        for name, model in models.items():
            taken = seconds(model)
            if number >= 2:
                times[name].append(taken)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, value in medians.items():
        print(f"{name}: {1000 * value:.0f} ms a step, {count / value:.2f} images/s")
    for other in list(medians)[::2]:
        pairs = zip(times[other], times["EN+SCL"], strict=True)
        ratio = statistics.median(a / b for a, b in pairs)
        print(f"{other} / EN+SCL, median of the paired ratios: {ratio:.3f}")


if __name__ == "__main__":
    main()
