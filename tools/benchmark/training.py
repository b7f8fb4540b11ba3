"""Rows of training steps: ours, Keras' own, PyTorch's."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from tools.benchmark import torch_networks
from tools.benchmark.turns import Contestant, Row, Setup, Turn

if TYPE_CHECKING:
    import keras

_CLASSES = 20
PYTORCH = "PyTorch, AN, channels last"


def network_of(name: str, size: int, fused: bool) -> keras.Model:
    import keras

    from spml_tf import networks

    if fused:
        return networks.build(name, _CLASSES, "none", size)
    backbone = keras.applications.ResNet50(
        include_top=False, weights=None, input_shape=(size, size, 3)
    )
    return networks.cam_from_backbone(
        backbone, _CLASSES, preprocessing="caffe", image_size=size, fuse=False
    )


def our_step(
    name: str,
    method: str,
    size: int,
    count: int,
    fused: bool = True,
    policy: str = "float32",
    **options: object,
) -> Turn:
    """A training step of `SPMLModel` on random images, crop boxes and flips; returns its images."""
    import keras
    import tensorflow as tf

    from spml_tf import SPMLModel

    keras.config.set_dtype_policy(policy)
    known = 1.5 if "en" in method else None
    model = SPMLModel(network_of(name, size, fused), 1000, method, known, **options)
    model.compile(keras.optimizers.Adam(1e-5))
    model.begin_epoch(3)
    model.make_train_function()
    batch = (
        {
            "image": tf.random.uniform([count, size, size, 3], 0, 255),
            "index": tf.range(count, dtype=tf.int64),
            "box": tf.tile([[0.1, 0.2, 0.8, 0.9]], [count, 1]),
            "flip": tf.range(count) % 2 == 0,
        },
        tf.one_hot(tf.range(count) % _CLASSES, _CLASSES, on_value=1, off_value=-1, dtype=tf.int8),
    )
    batches = iter(tf.data.Dataset.from_tensors(batch).repeat())

    def step() -> float:
        float(model.train_function(batches)["loss"])
        return count

    return step


def _ways(name: str, size: int, count: int) -> dict[str, Contestant]:
    """The training steps of one network in float32."""

    def ours(method: str, fused: bool = True) -> Contestant:
        return contestant(our_step, name, method, size, count, fused)

    def pytorch(**options: bool) -> Contestant:
        return contestant(
            functools.partial(torch_networks.stepper, **options), name, _CLASSES, size, count
        )

    found = {"EN+SCL": ours("en+scl"), "AN": ours("an")}
    if name == "resnet50":
        found["EN+SCL, Keras' batch normalisation"] = ours("en+scl", fused=False)
    found[PYTORCH] = pytorch()
    found["PyTorch, AN, default layout"] = pytorch(channels_last=False)
    return found


def contestant(make: Callable[..., Turn], *args: object, **options: object) -> Contestant:
    def start(setup: Setup) -> Turn:
        return make(*args, **options)

    return Contestant(start)


def _policies(name: str, title: str, size: int, count: int) -> Row:
    """A step in float32 and in bfloat16, from which --mixed_precision=auto chooses."""
    ways = {
        policy: contestant(our_step, name, "en+scl", size, count, policy=policy)
        for policy in ("mixed_bfloat16", "float32")
    }
    title = f"Training step, EN+SCL, {title}, {size} pixels, batch {count}, by policy"
    return Row(title, "images", ways, 8, 0)


def rows() -> Mapping[str, Row]:
    """By key."""
    half = {
        "EN+SCL, mixed_bfloat16": contestant(
            our_step, "resnet50", "en+scl", 224, 8, policy="mixed_bfloat16"
        ),
        "PyTorch, AN, channels last, autocast": contestant(
            torch_networks.stepper, "resnet50", _CLASSES, 224, 8, bfloat16=True
        ),
    }
    return {
        "step_resnet50": Row(
            "Training step, ResNet-50, 224 pixels, batch 8, float32", "images",
            _ways("resnet50", 224, 8), 8, 3, (1.0, PYTORCH),
        ),
        "step_resnet50_bfloat16": Row(
            "Training step, ResNet-50, 224 pixels, batch 8, bfloat16", "images", half, 8, 3,
            (1.0, "PyTorch, AN, channels last, autocast"),
        ),
        "step_lite0": Row(
            "Training step, EfficientNet-Lite0, 160 pixels, batch 16, float32", "images",
            _ways("efficientnet_lite0", 160, 16), 10, 4, (1.0, PYTORCH),
        ),
        "policy_resnet50": _policies("resnet50", "ResNet-50", 224, 8),
        "policy_lite0": _policies("efficientnet_lite0", "EfficientNet-Lite0", 160, 16),
        "policy_small_residual": _policies("small_residual", "small residual network", 64, 32),
    }  # fmt: skip
