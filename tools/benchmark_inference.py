"""Times ResNet-50's inference, as it is exported and as it is trained, against PyTorch's.

python tools/benchmark_inference.py [--rounds=30] [--image_size=224] [--batch_size=8]
    [--torch_python=PYTHON]

"exported" has its batch normalisation folded into the convolutions, "as trained" has it fused;
both run in a tf.function. "PyTorch" is the same network in eager mode, in the memory format that
suits it, without gradients; it needs torch in this Python, or in the one that --torch_python names.
Each has a process of its own, and they take turns batch by batch, so that a change of the machine's
speed meets all alike. Prints medians, and the median of the ratios within a turn.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

CLASSES = 80
# Widths and numbers of the blocks of the four stages.
STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))


def ours(exported: bool, size: int, count: int) -> Callable[[], object]:
    import tensorflow as tf

    from spml_tf import networks
    from spml_tf.networks.batch_norm_folding import folded

    network = networks.build("resnet50", CLASSES, "none", size)
    network = folded(network) if exported else network
    run = tf.function(lambda x: network(x, training=False), autograph=False)
    images = tf.random.uniform([count, size, size, 3], 0, 255)
    return lambda: run(images).numpy()


def pytorch(size: int, count: int) -> Callable[[], object]:
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, inner: int, width: int, stride: int) -> None:
            super().__init__()
            sizes = ((inner, width, 1, stride), (width, width, 3, 1), (width, 4 * width, 1, 1))
            self.body = nn.Sequential(*[x for one in sizes for x in convolution(*one)][:-1])
            self.short = nn.Identity()
            if stride > 1 or inner != 4 * width:
                self.short = nn.Sequential(*convolution(inner, 4 * width, 1, stride)[:-1])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.body(x) + self.short(x))

    def convolution(inner: int, outer: int, kernel: int, stride: int) -> list[nn.Module]:
        one = nn.Conv2d(inner, outer, kernel, stride, kernel // 2, bias=False)
        return [one, nn.BatchNorm2d(outer), nn.ReLU(inplace=True)]

    layers: list[nn.Module] = [*convolution(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    inner = 64
    for number, (width, blocks) in enumerate(STAGES):
        for block in range(blocks):
            layers.append(Block(inner, width, 2 if number and not block else 1))
            inner = 4 * width
    network = nn.Sequential(*layers, nn.Conv2d(inner, CLASSES, 1)).eval()
    network = network.to(memory_format=torch.channels_last)
    images = torch.rand(count, 3, size, size).to(memory_format=torch.channels_last)

    def run() -> object:
        with torch.inference_mode():
            return network(images).numpy()

    return run


KINDS = ("exported", "as trained", "PyTorch")


def answer(kind: str, size: int, count: int) -> None:
    """Runs one batch for each line that comes, and says how many seconds it took."""
    run = pytorch(size, count) if kind == "PyTorch" else ours(kind == "exported", size, count)
    for _ in range(3):
        run()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        run()
        print(time.perf_counter() - start, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--torch_python", default=sys.executable)
    parser.add_argument("--kind", choices=KINDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.kind:
        answer(options.kind, options.image_size, options.batch_size)
        return
    processes = {}
    for kind in KINDS:
        python = options.torch_python if kind == "PyTorch" else sys.executable
        words = [f"--kind={kind}", f"--image_size={options.image_size}"]
        processes[kind] = subprocess.Popen(
            [python, __file__, *words, f"--batch_size={options.batch_size}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        if processes[kind].stdout.readline() != "ready\n":
            print(f"{kind}: does not start; is torch there, or in --torch_python?")
            del processes[kind]
    taken: dict[str, list[float]] = {kind: [] for kind in processes}
    for _ in range(options.rounds):
        for kind, process in processes.items():
            process.stdin.write("\n")
            process.stdin.flush()
            taken[kind].append(float(process.stdout.readline()))
    for kind, seconds in taken.items():
        speed = options.batch_size / statistics.median(seconds)
        ratios = (a / b for a, b in zip(seconds, taken["exported"], strict=True))
        print(f"{kind}: {speed:.1f} images/s, exported is {statistics.median(ratios):.2f} times")
    for process in processes.values():
        process.stdin.close()
        process.wait()


if __name__ == "__main__":
    main()
