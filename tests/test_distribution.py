"""MirroredStrategy on two logical CPUs, in a process of its own: devices are set up only once."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import spml_tf
rng = np.random.default_rng(0)
x = {"image": rng.uniform(0, 255, (12, 32, 32, 3)).astype("float32"), "index": np.arange(12)}
y = np.where(np.arange(3) == rng.integers(0, 3, (12, 1)), 1, -1).astype(np.int8)
data = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
finals = []
for replicas in (1, 2):
    strategy = tf.distribute.MirroredStrategy([f"CPU:{n}" for n in range(replicas)])
    with strategy.scope():
        network = spml_tf.networks.small_residual_cam(3, image_size=32, width=16, seed=0)
        # Frozen statistics: otherwise each half is normalised by itself.
        # No selection: a near tie may go another way there.
        model = spml_tf.SPMLModel(
            network, 12, "en+scl", 1.5, bank_dtype="BANK", freeze_batch_norm=True,
            heatmap_classes=KEPT, selection_start_epoch=9)
        model.compile(keras.optimizers.SGD(0.1), metrics=[spml_tf.MeanAveragePrecision()])
    history = model.fit(data, epochs=3, verbose=0, validation_data=data).history
    state = [history["map"], history["val_map"]]
    for bank in (model.ema_scores, model.ema_heatmaps):
        for table in bank.taken_over().values():
            assert type(table.value).__name__ == "ResourceVariable"  # one for all replicas
            state.append(table.numpy().astype(float))
        assert bank.visited.numpy().all()
    assert ((model.labels.numpy() == 1) == (y == 1)).all()
    finals.append(state)
for one, two in zip(*finals):
    np.testing.assert_allclose(one, two, atol=TOLERANCE)
"""


def check_banks(storage: str, tolerance: float, kept: int | None = None) -> None:
    code = SCRIPT.replace("BANK", storage).replace("TOLERANCE", str(tolerance))
    code = code.replace("KEPT", str(kept))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def test_banks_are_as_with_one_device():
    """The gradients of two equal halves sum to one device's: banks and mAP agree."""
    check_banks("float32", 1e-4)


def test_uint8_banks_too():
    check_banks("uint8", 1.0)


def test_compact_banks_too():
    check_banks("float32", 1e-4, kept=2)
