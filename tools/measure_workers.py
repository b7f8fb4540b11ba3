"""Speed of two workers with a core each against one, and what they send to each other.

`python tools/measure_workers.py` prints a Markdown table. Each process may use one core of this
machine (Linux). Images are random and in memory; a batch of the whole holds as many images a worker
as the single process' batch. Bytes are those of the loopback device, counted by the system while
the steps run; beside them is what a ring of all-reduce sends of the network's gradients,
2 (W - 1) P * 4 bytes in all for P weights and W workers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from spml_tf.system import launcher

STEPS, WARM = 20, 4
# Network, side of the images, images a worker and step.
CASES = (("small_residual", 64, 16), ("resnet50", 96, 8))


def loopback() -> int:
    """Bytes sent over the loopback device since it was started."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        if line.strip().startswith("lo:"):
            return int(line.split(":")[1].split()[8])
    raise SystemExit("error: /proc/net/dev has no loopback device; this tool needs Linux")


def worker(network: str, side: str, images: str, number: str, workers: str) -> None:
    """Trains a few steps and prints seconds a step and bytes sent meanwhile."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[int(number)]})
    import keras
    import numpy as np
    import tensorflow as tf

    import spml_tf
    from spml_tf.system import strategies

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1 if int(workers) == 1 else 2)
    strategy = strategies.strategy("multi_worker" if int(workers) > 1 else "none")
    batch, classes = int(images) * int(workers), 20
    with strategy.scope():
        model = spml_tf.SPMLModel(
            spml_tf.networks.build(network, classes, "none", int(side)), batch * 4, "en+scl", 1.5,
            freeze_batch_norm=True, bank_dtype="uint8", consistency_start_epoch=1,
        )  # fmt: skip
        model.compile(keras.optimizers.Adam(1e-3))
    rng = np.random.default_rng(0)
    x = {
        "image": rng.uniform(0, 255, (batch * 4, int(side), int(side), 3)).astype(np.float32),
        "index": np.arange(batch * 4),
    }
    y = np.where(np.arange(classes) == rng.integers(0, classes, (batch * 4, 1)), 1, -1)
    data = tf.data.Dataset.from_tensor_slices((x, y.astype(np.int8))).batch(batch)

    class Clock(keras.callbacks.Callback):
        times: list[float] = []
        sent: list[int] = []

        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            self.times.append(time.perf_counter())
            self.sent.append(loopback())

    clock = Clock()
    model.fit(data.repeat(), steps_per_epoch=WARM + STEPS, verbose=0, callbacks=[clock])
    if number == "0":
        seconds = float(np.median(np.diff(clock.times[WARM - 1 :])))
        sent = (clock.sent[-1] - clock.sent[WARM - 1]) / STEPS
        weights = sum(int(np.prod(w.shape)) for w in model.network.trainable_weights)
        print(json.dumps({"seconds": seconds, "sent": sent, "weights": weights}))


def measured(network: str, side: int, images: int, workers: int) -> dict[str, float]:
    running = []
    for number, config in enumerate(launcher.local_clusters(workers)):
        environment = {**os.environ, "TF_CONFIG": config, "TF_CPP_MIN_LOG_LEVEL": "3"}
        words = [network, str(side), str(images), str(number), str(workers)]
        running.append(
            subprocess.Popen(
                [sys.executable, __file__, *words], env=environment, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )
        )  # fmt: skip
    outputs = [process.communicate()[0] for process in running]
    found: dict[str, float] = json.loads(outputs[0].strip().splitlines()[-1])
    return found


def main() -> None:
    print("| network | images/s, 1 worker | images/s, 2 workers | efficiency | share of a step in "
          "collectives | MB sent a step | MB of gradients in a ring |")  # fmt: skip
    print("|---|---|---|---|---|---|---|")
    for network, side, images in CASES:
        one, two = (measured(network, side, images, workers) for workers in (1, 2))
        speeds = images / one["seconds"], 2 * images / two["seconds"]
        waited = 1 - one["seconds"] / two["seconds"]
        ring = 2 * 4 * one["weights"] / 1e6
        print(
            f"| {network}, {side} pixels, {images} a worker | {speeds[0]:.1f} | {speeds[1]:.1f} | "
            f"{speeds[1] / speeds[0] / 2:.0%} | {waited:.0%} | {two['sent'] / 1e6:.1f} | "
            f"{ring:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        worker(*sys.argv[1:])
    else:
        main()
