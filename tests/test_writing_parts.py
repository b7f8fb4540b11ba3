"""The worked example of docs/writing_parts.md, executed, and trained with."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from spml_tf import SPMLModel, networks
from spml_tf.training import methods

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "writing_parts.md"


def blocks() -> list[str]:
    """The page's Python, with the files that it includes."""
    found = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    return [re.sub(r'--8<-- "(.*)"', lambda x: (ROOT / x[1]).read_text(), x) for x in found]


@pytest.fixture
def example(monkeypatch):
    monkeypatch.setattr(methods, "METHODS", dict(methods.METHODS))
    assert len(blocks()) == 2
    names: dict[str, object] = {}
    exec("\n".join(blocks()), names)
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
