"""ResNet-50 with EN+SCL on real photos, from random weights: 100 steps at 224 pixels."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from reference import moved_heatmap

import spml_tf
from spml_tf import labels, networks
from spml_tf.datasets import observed_labels, pipeline, readers
from spml_tf.exports import saved_model
from spml_tf.exports.exported import exported

ANIMALS = ("dog", "cat", "person", "horse", "sheep", "cow", "sofa", "chair")


@pytest.mark.slow
@pytest.mark.skipif("SPML_TF_TEST_DATA" not in os.environ, reason="SPML_TF_TEST_DATA is not set")
def test_a_hundred_steps(tmp_path):
    data = readers.load("voc", f"{os.environ['SPML_TF_TEST_DATA']}/VOCdevkit", "train", 0)
    data = data.restrict(ANIMALS).subset(np.arange(400))
    observed = observed_labels.draw_observed(data.labels)
    keras.utils.set_random_seed(0)
    network = networks.resnet50_cam(len(ANIMALS), weights=None, image_size=224)
    mean = labels.positives_per_image(data.labels)
    model = spml_tf.SPMLModel(network, len(data), "en+scl", mean, heatmap_size=14)
    model.compile(keras.optimizers.Adam(1e-4))
    stream = pipeline.training_dataset(
        data, observed, image_size=224, batch_size=8, seed=0, epochs=2
    )
    batches, stream = list(stream), iter(stream)
    assert len(batches) == 100
    losses, seconds = [], []
    model.make_train_function()
    for number in range(100):
        if number % 50 == 0:
            model.begin_epoch(number // 50 + 1)
        if number == 99:
            x = batches[99][0]
            index, box, flip = (x[name].numpy() for name in ("index", "box", "flip"))
            maps = 1 / (1 + np.exp(-network(x["image"], training=True).numpy().astype(float)))
            scores = 1 / (1 + np.exp(-network(x["image"], training=True).numpy().mean((1, 2))))
            bank, visited = (
                getattr(model.ema_heatmaps, name).numpy() for name in ("values", "visited")
            )
            before = model.ema_scores.values.numpy()
        model.reset_metrics()
        start = time.perf_counter()
        losses.append(float(model.train_function(stream)["classification_loss"]))
        seconds.append(time.perf_counter() - start)
    print(f"\nloss: {np.mean(losses[:10]):.3f} over 10 steps, {np.mean(losses[-10:]):.3f} at last")
    print(f"speed: {8 / np.median(seconds[3:]):.2f} images/s")
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    for b in range(3):
        n = index[b]
        expected, marks = moved_heatmap(bank[n], visited[n], maps[b], box[b], flip[b], 0.8)
        np.testing.assert_allclose(model.ema_heatmaps.values.numpy()[n], expected, atol=1e-5)
        np.testing.assert_array_equal(model.ema_heatmaps.visited.numpy()[n], marks)
        moved = 0.8 * before[n] + 0.2 * scores[b]
        np.testing.assert_allclose(model.ema_scores.values.numpy()[n], moved, atol=1e-5)

    names = [str(label) for label in range(network.output_shape[-1])]
    classes = {
        "class_names": names, "thresholds": dict.fromkeys(names, 0.5), "image_size": 224,
        "max_megapixels": 100,
    }  # fmt: skip
    saved_model.write(exported(network, classes), tmp_path / "model")
    expected = model.predict(batches[0][0], verbose=0)
    np.save(tmp_path / "images.npy", batches[0][0]["image"].numpy())
    code = (
        "import numpy as np, tensorflow as tf\n"
        f"images = np.load({str(tmp_path / 'images.npy')!r})\n"
        f"model = tf.saved_model.load({str(tmp_path / 'model')!r})\n"
        f"np.save({str(tmp_path / 'out.npy')!r}, model.serve(images)['probabilities'])"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-5)
