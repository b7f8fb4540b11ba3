"""Where EfficientNet-Lite0's training step spends its time, and what other ways would cost.

python tools/profile_step.py [--image_size=160] [--batch_size=16] [--rounds=7]

The first table is the profiler's: milliseconds a step by kind of operation. The second compares
ways to the gradient of depthwise filters, the most expensive kind, over the network's 16 layers:
TensorFlow's operation; a sum of products for each of the k x k shifts, as it is and compiled by
XLA; and filters of 5 x 5 put together from four of 3 x 3, which oneDNN has a faster path for. The
third has whole steps: with batch normalisation frozen, and in bfloat16. They take turns.
"""

from __future__ import annotations

import argparse
import collections
import functools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1]))

import keras
import tensorflow as tf

from spml_tf.networks.efficientnet_lite import STAGES
from tools.benchmark import training

_STEPS, _KINDS = 5, 10


def kinds(step: Callable[[], object]) -> list[tuple[str, float, float]]:
    """The kinds of operations that take longest: name, milliseconds and number in a step."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        for _ in range(_STEPS):
            step()
        tf.profiler.experimental.stop()
        space = xplane_pb2.XSpace()
        (file,) = Path(folder).rglob("*.xplane.pb")
        space.ParseFromString(file.read_bytes())
    taken: dict[str, list[float]] = collections.defaultdict(list)
    for plane in space.planes:
        names = {key: value.name for key, value in plane.event_metadata.items()}
        for line in plane.lines:
            for event in line.events:
                name = names[event.metadata_id]
                if ":" in name and "::" not in name and "__inference" not in name:
                    # Of an operation: its name and kind.
                    taken[name.rpartition(":")[2]].append(event.duration_ps / 1e9)
    found = [(name, sum(x) / _STEPS, len(x) / _STEPS) for name, x in taken.items()]
    return sorted(found, key=lambda kind: -kind[1])[:_KINDS]


def depthwise_layers(size: int) -> Iterator[tuple[int, int, int, int]]:
    """Side of the input, channels, kernel and stride of each depthwise convolution."""
    side, inner = -(-size // 2), 32
    for repeats, kernel, first_stride, expansion, outer in STAGES:
        for block in range(repeats):
            stride = first_stride if block == 0 else 1
            yield side, expansion * inner, kernel, stride
            side, inner = -(-side // stride), outer


def _padded(x: tf.Tensor, kernel: int, stride: int) -> tuple[tf.Tensor, int]:
    side = x.shape[1]
    outer = -(-side // stride)
    total = max((outer - 1) * stride + kernel - side, 0)
    pads = [total // 2, total - total // 2]
    return tf.pad(x, [[0, 0], pads, pads, [0, 0]]), outer


def of_tensorflow(x: tf.Tensor, gradient: tf.Tensor, kernel: int, stride: int) -> tf.Tensor:
    shape = [kernel, kernel, x.shape[-1], 1]
    return tf.nn.depthwise_conv2d_backprop_filter(
        x, shape, gradient, [1, stride, stride, 1], "SAME"
    )


def by_shifts(x: tf.Tensor, gradient: tf.Tensor, kernel: int, stride: int) -> tf.Tensor:
    padded, outer = _padded(x, kernel, stride)
    reach = (outer - 1) * stride + 1
    sums = []
    for i in range(kernel):
        for j in range(kernel):
            moved = padded[:, i : i + reach : stride, j : j + reach : stride]
            sums.append(tf.reduce_sum(moved * gradient, [0, 1, 2]))
    return tf.reshape(tf.stack(sums), [kernel, kernel, x.shape[-1], 1])


def by_threes(x: tf.Tensor, gradient: tf.Tensor, kernel: int, stride: int) -> tf.Tensor:
    if kernel == 3:
        return of_tensorflow(x, gradient, kernel, stride)
    padded, outer = _padded(x, kernel, stride)
    reach = (outer - 1) * stride + 3

    def part(i: int, j: int) -> tf.Tensor:
        return tf.nn.depthwise_conv2d_backprop_filter(
            padded[:, i : i + reach, j : j + reach], [3, 3, x.shape[-1], 1], gradient,
            [1, stride, stride, 1], "VALID",
        )  # fmt: skip

    top = tf.concat([part(0, 0), part(0, 2)[:, 1:]], axis=1)
    bottom = tf.concat([part(2, 0), part(2, 2)[:, 1:]], axis=1)
    return tf.concat([top, bottom[1:]], axis=0)


def filter_gradients(size: int, count: int) -> dict[str, Callable[[], object]]:
    """The gradients of all layers, each way once in a call; the ways are checked to agree."""
    layers = []
    for side, channels, kernel, stride in depthwise_layers(size):
        outer = -(-side // stride)
        x = tf.random.normal([count, side, side, channels])
        layers.append((x, tf.random.normal([count, outer, outer, channels]), kernel, stride))
    ways = {
        "TensorFlow's operation": (of_tensorflow, False),
        "products of shifts": (by_shifts, False),
        "products of shifts, XLA": (by_shifts, True),
        "5 x 5 from four of 3 x 3": (by_threes, False),
    }

    def all_layers(way: Callable[..., tf.Tensor], compiled: bool) -> Callable[[], object]:
        functions = [
            tf.function(
                functools.partial(way, kernel=kernel, stride=stride),
                jit_compile=compiled, autograph=False,
            )
            for _, _, kernel, stride in layers
        ]  # fmt: skip
        return lambda: [
            function(x, gradient).numpy()
            for function, (x, gradient, _, _) in zip(functions, layers, strict=True)
        ]

    found = {name: all_layers(*way) for name, way in ways.items()}
    expected, *others = (call() for call in found.values())
    for other in others:
        for a, b in zip(expected, other, strict=True):
            assert abs(a - b).max() < 1e-3 * abs(a).max()
    return found


def steps(size: int, count: int) -> dict[str, Callable[[], object]]:
    """Whole training steps."""
    make = functools.partial(training.our_step, "efficientnet_lite0", "an", size, count)
    found = {
        "float32": make(),
        "batch normalisation frozen": make(freeze_batch_norm=True),
        "mixed_bfloat16": make(policy="mixed_bfloat16"),
    }
    keras.config.set_dtype_policy("float32")
    return found


def compared(title: str, ways: dict[str, Callable[[], object]], rounds: int) -> None:
    """Prints medians over rounds in which the ways take turns."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            begin = time.perf_counter()
            way()
            if number:
                taken[name].append(time.perf_counter() - begin)
    print(f"\n| {title} | ms |\n|---|---|")
    for name, seconds in taken.items():
        print(f"| {name} | {1000 * statistics.median(seconds):.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image_size", type=int, default=160)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    size, count = options.image_size, options.batch_size
    whole = steps(size, count)
    for _ in range(2):
        whole["float32"]()
    print("| kind of operation | ms a step | number |\n|---|---|---|")
    for name, milliseconds, number in kinds(whole["float32"]):
        print(f"| {name} | {milliseconds:.1f} | {number:.0f} |")
    compared("gradients of the depthwise filters", filter_gradients(size, count), options.rounds)
    compared("training step", whole, options.rounds)


if __name__ == "__main__":
    main()
