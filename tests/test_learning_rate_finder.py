"""The learning-rate finder: the command, its files, and where it finds a minimum that is known."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import flags, run
from PIL import Image
from saved_runs import table_rows

from spml_tf import train
from spml_tf.runs import learning_rate_finder


def test_running_averages_by_hand():
    """1, then (0.9 + 3) / 1.9, then (0.81 + 2.7 + 2) / 2.71."""
    found = learning_rate_finder.running_averages([1.0, 3.0, 2.0])
    np.testing.assert_allclose(found, [1.0, 3.9 / 1.9, 5.51 / 2.71])


@pytest.mark.parametrize("below", [0.0, 0.97, 1.03])
def test_rates_rise_evenly_and_a_diverging_loss_ends_the_sweep(below):
    """x^2 less a number, as EM's loss may be negative, from 1 by plain descent.

    x falls while the rate is below 1, then grows; the sweep ends 3 times the first loss above the
    lowest, of their running averages.
    """
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.ones((1, 1), np.float32)])
    model.compile(keras.optimizers.SGD(0.1), lambda _, x: tf.reduce_mean(x**2) - below)
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(float(self.model.optimizer.learning_rate.numpy()))

    rising = learning_rate_finder._Rising(60)
    data = tf.data.Dataset.from_tensors((tf.ones((1, 1)), tf.zeros((1, 1)))).repeat()
    model.fit(data, steps_per_epoch=60, callbacks=[rising, Watch()], verbose=0, shuffle=False)
    np.testing.assert_allclose(seen, 0.1 * np.geomspace(1e-3, 1e3, 60)[: len(seen)], rtol=1e-5)
    assert len(seen) == len(rising.losses) < 60
    # The loss of a step is w^2 before it; w becomes w (1 - 2 rate).
    w = np.cumprod([1.0, *(1 - 2 * np.array(seen[:-1]))])
    np.testing.assert_allclose(rising.losses, w**2 - below, rtol=1e-3, atol=1e-6)
    averages = learning_rate_finder.running_averages(rising.losses)
    assert w.min() < 0.1 and averages.argmin() < len(seen) - 1
    bound = np.minimum.accumulate(averages) + 3 * max(map(abs, rising.losses[:10]))
    assert (averages > bound).nonzero()[0].tolist() == [len(seen) - 1]


@pytest.mark.parametrize("warmup", [0, 1])
def test_the_command(voc, tmp_path, monkeypatch, capsys, warmup):
    """In 30 steps in place of 200."""
    monkeypatch.setattr(learning_rate_finder, "STEPS", 30)
    out = tmp_path / "rates"
    words = flags(voc, method="an", epochs=2, warmup_epochs=warmup)
    assert train.main([*words, "--find_learning_rate", f"--output_dir={out}"]) == 0
    said = capsys.readouterr().out
    rows = table_rows(out / "learning_rates.csv")
    names = ["head_learning_rate"] if warmup else ["learning_rate", "head_learning_rate"]
    assert list(rows[0]) == [*names, "loss", "average"]
    best = min(rows, key=lambda row: float(row["average"]))
    for name in names:
        assert f"--{name}={float(best[name]) / 10:.2g}" in said
    assert ("--learning_rate=" in said) == (not warmup)
    with Image.open(out / "learning_rates.png") as picture:
        assert picture.width > 500
    assert not (out / "run.json").exists()


def test_what_has_no_effect_is_said(voc, tmp_path, monkeypatch, capsys):
    """What training says of its flags, and of those of whole runs."""
    monkeypatch.setattr(learning_rate_finder, "STEPS", 3)
    words = flags(voc, method="an", epochs=2, warmup_epochs=1, mixed_precision="auto")
    words += ["--feature_crops=1", f"--feature_dir={tmp_path / 'kept'}", "--checkpoint_minutes=7"]
    words.append("--record_heatmaps=2")
    out = tmp_path / "rates"
    assert train.main([*words, "--find_learning_rate", f"--output_dir={out}"]) == 0
    told = capsys.readouterr()
    assert "--mixed_precision=auto: none (" in told.out
    expected = {
        f"note: --{given} has no effect with --find_learning_rate"
        for given in (
            "feature_crops=1", f"feature_dir={tmp_path / 'kept'}", "checkpoint_minutes=7.0",
            "record_heatmaps=2",
        )
    }  # fmt: skip
    assert "note: --heatmap_size=6 has no effect with --method=an" in told.err
    assert expected <= set(told.err.splitlines()) and not (tmp_path / "kept").exists()


def test_the_command_where_keras_scales_the_loss(voc, tmp_path):
    words = flags(voc, method="an", epochs=2, mixed_precision="float16")
    done = run(*words, "--find_learning_rate", f"--output_dir={tmp_path / 'rates'}")
    assert done.returncode == 0, done.stderr
    assert "--learning_rate=" in done.stdout


def test_a_run_is_not_touched(voc, finished):
    def contents():
        return {
            path: (path.stat().st_mtime_ns, path.stat().st_size) for path in finished.rglob("*")
        }

    before = contents()
    done = run(*flags(voc), "--find_learning_rate", f"--output_dir={finished}")
    assert done.returncode == 1 and "holds a run; choose another folder" in done.stderr
    assert contents() == before
