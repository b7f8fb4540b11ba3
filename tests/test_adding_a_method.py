"""The worked example of docs/adding_a_method.md, executed, and trained with."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from spml_tf import SPMLModel, networks
from spml_tf.training import methods

PAGE = Path(__file__).parent.parent / "docs" / "adding_a_method.md"


@pytest.fixture
def example(monkeypatch):
    monkeypatch.setattr(methods, "METHODS", dict(methods.METHODS))
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    assert len(blocks) == 2
    names: dict[str, object] = {}
    exec("\n".join(blocks), names)
    return names


def test_it_trains(example):
    images = np.random.default_rng(0).uniform(0, 255, (6, 32, 32, 3)).astype(np.float32)
    labels = np.where(np.arange(3) == np.arange(6)[:, None] % 3, 1, -1).astype(np.int8)
    network = networks.small_residual_cam(3, image_size=32, width=16)
    model = SPMLModel(network, 6, method="half_negative+scl")
    model.compile("adam")
    data = tf.data.Dataset.from_tensor_slices(({"image": images, "index": np.arange(6)}, labels))
    losses = model.fit(data.batch(3), epochs=4, verbose=0).history["classification_loss"]
    assert losses[-1] < losses[0]
    assert isinstance(model.classification, example["HalfNegative"])
