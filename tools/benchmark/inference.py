"""Rows of inference: exports in their runtimes, the network as trained, PyTorch's."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tools.benchmark import torch_networks
from tools.benchmark.training import contestant, network_of
from tools.benchmark.turns import Contestant, Row, Turn

if TYPE_CHECKING:
    import keras

    from spml_tf.exports.exported import Exported

_CLASSES, _SIZE, _BATCH = 20, 224, 8
PYTORCH = "PyTorch, eager, channels last"


def _turn(run: Callable[[NDArray[np.float32]], Any]) -> Turn:
    """A batch of random images; returns its images."""
    shape = (_BATCH, _SIZE, _SIZE, 3)
    images = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)

    def predict() -> float:
        run(images)
        return _BATCH

    return predict


def _in_tensorflow(name: str, folded: bool) -> Turn:
    import tensorflow as tf

    network = network_of(name, _SIZE, fused=True)
    network = _exported(network).network if folded else network
    run = tf.function(lambda x: network(x, training=False), autograph=False)
    return _turn(lambda images: run(tf.constant(images)).numpy())


def _in_onnxruntime(name: str) -> Turn:
    import onnxruntime  # noqa: F401  # the row says what is missing
    import tf2onnx  # noqa: F401

    from spml_tf.exports import onnx_model

    return _turn(onnx_model.Session(onnx_model.convert(_exported(network_of(name, _SIZE, True)))))


def _in_litert(name: str, kind: str) -> Turn:
    import ai_edge_litert  # noqa: F401  # the row says what is missing

    from spml_tf.exports import litert

    def calibration() -> Iterator[NDArray[np.float32]]:
        rng = np.random.default_rng(0)
        return (rng.uniform(0, 255, (1, _SIZE, _SIZE, 3)).astype(np.float32) for _ in range(4))

    exported = _exported(network_of(name, _SIZE, fused=True))
    models = litert.convert(exported, calibration, [kind])
    return _turn(litert.Runner(models[kind], os.cpu_count() or 1))


def _exported(network: keras.Model) -> Exported:
    from spml_tf.exports.exported import exported

    names = [f"class{label}" for label in range(_CLASSES)]
    classes = {
        "class_names": names, "thresholds": dict.fromkeys(names, 0.5), "image_size": _SIZE,
        "max_megapixels": 100,
    }  # fmt: skip
    return exported(network, classes)


def _ways(name: str) -> dict[str, Contestant]:
    return {
        "exported, batch normalisation folded": contestant(_in_tensorflow, name, True),
        "as trained": contestant(_in_tensorflow, name, False),
        "exported as ONNX, onnxruntime": contestant(_in_onnxruntime, name),
        "exported as LiteRT, float32": contestant(_in_litert, name, "float32"),
        "exported as LiteRT, int8": contestant(_in_litert, name, "int8"),
        PYTORCH: contestant(torch_networks.predictor, name, _CLASSES, _SIZE, _BATCH),
    }


def rows() -> Mapping[str, Row]:
    """By key."""
    note = "LiteRT takes one image at a time, with as many threads as there are cores."
    return {
        "inference": Row(
            "Inference, ResNet-50, 224 pixels, batch 8, float32", "images", _ways("resnet50"), 15,
            8, (1.3, PYTORCH), note,
        ),
        "inference_lite0": Row(
            "Inference, EfficientNet-Lite0, 224 pixels, batch 8, float32", "images",
            _ways("efficientnet_lite0"), 15, 8, (1.0, PYTORCH), note,
        ),
    }  # fmt: skip
