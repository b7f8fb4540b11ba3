"""Banks: first visit sets, later visits average, storage, masks, reloading."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from spml_tf.banks import ema_bank, heatmap_bank
from spml_tf.system import tensor_memory


def test_first_visit_sets_and_later_visits_average():
    """mu = 0.75: 0.4 is set; then 0.75 * 0.4 + 0.25 * 0.8 = 0.5. Image 1 is never touched."""
    bank = ema_bank.score_bank(3, 2, momentum=0.75)
    index = tf.constant([2, 0], tf.int64)
    values, visited = bank.read(index)
    assert not visited.numpy().any()
    bank.write(index, tf.constant([[0.4, 0.0], [1.0, 0.5]]))
    bank.write(index[:1], tf.constant([[0.8, 0.0]]))
    values, visited = bank.read(tf.constant([0, 1, 2], tf.int64))
    np.testing.assert_array_equal(visited, [True, False, True])
    np.testing.assert_allclose(values, [[1.0, 0.5], [0.0, 0.0], [0.5, 0.0]], rtol=1e-6)


def test_only_cells_inside_are_written():
    """2x2 cells, the left column inside: the right column stays unvisited and as it was."""
    bank = heatmap_bank.heatmap_bank(1, 1, grid=2, momentum=0.5)
    left = tf.constant([[[True, False], [True, False]]])
    index = tf.constant([0], tf.int64)
    bank.write(index, tf.fill([1, 2, 2, 1], 0.8), left)
    bank.write(index, tf.fill([1, 2, 2, 1], 0.4))
    values, visited = bank.read(index)
    assert visited.numpy().all()
    np.testing.assert_allclose(values[0, ..., 0], [[0.6, 0.4], [0.6, 0.4]], rtol=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("storage", ema_bank.DTYPES)
def test_storage_follows_a_moving_average(storage, jit_compile):
    """40 writes towards 1 from 0 with mu 0.9 end at 1 - 0.9^40 = 0.985; rounding to nearest in
    uint8 would stall at 0.98: 255 * 0.1 * 0.02 = 0.5. Stored as asked, off by about a step."""
    bank = ema_bank.score_bank(1000, 1, momentum=0.9, storage=storage, seed=3)
    assert bank.values.dtype == storage
    index = tf.range(1000, dtype=tf.int64)
    write = tf.function(bank.write, jit_compile=jit_compile)
    write(index, tf.zeros([1000, 1]))
    for _ in range(40):
        write(index, tf.ones([1000, 1]))
    found = bank.read(index)[0].numpy()
    assert (
        abs(found.mean() - (1 - 0.9**40))
        < {"float32": 1e-5, "float16": 2e-3, "uint8": 1e-3}[storage]
    )
    assert found.std() < 0.01


@pytest.mark.parametrize("storage", ema_bank.DTYPES)
def test_a_slow_average_does_not_stall(storage):
    """mu 0.99, from 0.9 towards 0.6: 0.6 + 0.3 * 0.99^400 = 0.6054. To nearest, float16 would stop
    where 0.01 * (value - 0.6) is half of its step of 2^-11, at 0.624."""
    bank = ema_bank.score_bank(500, 1, momentum=0.99, storage=storage)
    index, write = tf.range(500, dtype=tf.int64), tf.function(bank.write)
    write(index, tf.fill([500, 1], 0.9))
    for _ in range(400):
        write(index, tf.fill([500, 1], 0.6))
    assert bank.read(index)[0].numpy().mean() == pytest.approx(0.6 + 0.3 * 0.99**400, abs=1e-3)


def test_float16_rounding_is_unbiased_and_exact_where_it_can_be():
    """0.3 lies between 1228 and 1229 steps of 2^-12: 0.3 * 4096 = 1228.8."""
    index = tf.range(5000, dtype=tf.int64)
    bank = ema_bank.score_bank(5000, 4, storage="float16", seed=1)
    bank.write(index, tf.tile([[0.3, 0.0, 0.75, 1.0]], [5000, 1]))
    stored = bank.values.numpy().astype(np.float64)
    assert set(np.unique(stored[:, 0] * 4096)) == {1228, 1229}
    assert stored[:, 0].mean() * 4096 == pytest.approx(1228.8, abs=0.03)
    np.testing.assert_array_equal(stored[:, 1:], [[0, 0.75, 1]] * 5000)


def test_uint8_rounding_is_unbiased_seeded_and_exact_at_the_ends():
    index = tf.range(5000, dtype=tf.int64)
    means = []
    for seed in (1, 1, 2):
        bank = ema_bank.score_bank(5000, 2, storage="uint8", seed=seed)
        bank.write(index, tf.tile([[0.3, 1.0]], [5000, 1]))
        stored = bank.values.numpy()
        assert set(np.unique(stored[:, 0])) == {76, 77}  # 0.3 * 255 = 76.5
        assert (stored[:, 1] == 255).all()
        means.append(stored[:, 0])
    assert abs(means[0].mean() - 76.5) < 0.03
    np.testing.assert_array_equal(means[0], means[1])
    assert (means[0] != means[2]).any()


def test_cells_outside_keep_their_bytes():
    bank = heatmap_bank.heatmap_bank(1, 1, grid=1, storage="uint8")
    index, outside = tf.constant([0], tf.int64), tf.constant([[[False]]])
    bank.write(index, tf.fill([1, 1, 1, 1], 0.37))
    before = bank.values.numpy()
    for _ in range(50):
        bank.write(index, tf.fill([1, 1, 1, 1], 1.0), outside)
    np.testing.assert_array_equal(bank.values.numpy(), before)


@pytest.mark.parametrize("storage", ema_bank.DTYPES)
def test_saved_with_the_layer(storage, tmp_path):
    def build():
        bank = heatmap_bank.heatmap_bank(4, 3, grid=2, storage=storage)
        return keras.Sequential([bank]), bank

    model, bank = build()
    bank.write(tf.constant([1, 3], tf.int64), tf.random.stateless_uniform([2, 2, 2, 3], [0, 1]))
    model.built = True
    model.save_weights(tmp_path / "b.weights.h5")
    other, reloaded = build()
    other.built = True
    other.load_weights(tmp_path / "b.weights.h5")
    for name in ("values", "visited", "writes"):
        left, right = getattr(bank, name), getattr(reloaded, name)
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left.numpy(), right.numpy())


def test_written_in_place():
    """The memory behind the weights is the same before and after: nothing of size N is copied."""
    bank = heatmap_bank.heatmap_bank(10, 2, grid=2)
    write = tf.function(bank.write)

    def places() -> list[int]:
        found = []
        for table in bank.tables:
            with table.view() as array:
                found.append(tensor_memory.address(array))
        return found

    before = places()
    for number in range(3):
        write(tf.constant([number], tf.int64), tf.ones([1, 2, 2, 2]))
        assert places() == before
    graph = write.get_concrete_function(
        tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, 2, 2, 2])
    )
    kinds = {op.type for op in graph.graph.get_operations()}
    assert "ResourceScatterUpdate" in kinds and "ReadVariableOp" not in kinds


def test_config_and_errors():
    for kept in (None, 2):
        bank = heatmap_bank.heatmap_bank(4, 3, 2, kept, storage="uint8", momentum=0.7, seed=5)
        config = bank.get_config()
        assert type(bank).from_config(config).get_config() == config
    with pytest.raises(ValueError, match="momentum must lie"):
        ema_bank.score_bank(1, 1, momentum=1.0)
    with pytest.raises(ValueError, match="storage must be one of"):
        ema_bank.score_bank(1, 1, storage="int8")


@pytest.mark.parametrize("kept", [None, 3])
@pytest.mark.parametrize("storage", ema_bank.DTYPES)
def test_inside_a_compiled_function(storage, kept):
    """Six steps with jit_compile=True and without: the loss, what the banks hold, their marks.

    A last digit of the new values may differ, and a step of float16 or bytes where they are
    rounded.
    """
    rng = np.random.default_rng(0)
    images, classes, grid, cells = 6, 5, 7, 5

    def state():
        return (
            ema_bank.score_bank(images, classes, storage=storage),
            heatmap_bank.heatmap_bank(images, classes, grid, kept, storage=storage),
        )

    def step(scores_bank, maps_bank):
        def one(maps, index, box, flip, scores, codes):
            loss = maps_bank.consistency(maps, index, box, flip)
            scores_bank.write(index, scores)
            maps_bank.update(maps, index, box, flip, scores, codes)
            return loss

        return one

    plain, compiled = state(), state()
    run_plain = tf.function(step(*plain))
    run_compiled = tf.function(step(*compiled), jit_compile=True)
    stored_step = {"float32": 1e-6, "float16": 2**-11, "uint8": 1.001 / 255}[storage]
    losses = []
    for _ in range(6):
        corner = rng.uniform(0.0, 0.5, (3, 2))
        box = np.hstack([corner, corner + rng.uniform(0.3, 0.5, (3, 2))]).astype(np.float32)
        batch = (
            rng.random((3, cells, cells, classes)).astype(np.float32), rng.permutation(images)[:3],
            box, rng.random(3) < 0.5, rng.random((3, classes)).astype(np.float32),
            rng.choice([1, 0, -1, 2], (3, classes)).astype(np.int8),
        )  # fmt: skip
        losses.append((float(run_plain(*batch)), float(run_compiled(*batch))))
        assert losses[-1][0] == pytest.approx(losses[-1][1], abs=stored_step)
    assert losses[-1][0] > 0.05
    index = tf.range(images, dtype=tf.int64)
    for one, other in zip(plain, compiled, strict=True):
        (values, visited), (found, found_visited) = one.read(index), other.read(index)
        np.testing.assert_array_equal(found_visited, visited)
        np.testing.assert_allclose(found, values, atol=stored_step, rtol=0)
        assert abs(np.mean(found - values)) < stored_step / 10


def test_mu_is_0_8_where_none_is_given():
    """mu is 0.8 where none is given."""
    bank = ema_bank.EMABank(1, 1)
    for value in (1.0, 0.0):
        bank.write(tf.constant([0], tf.int64), tf.constant([[value]]))
    assert float(bank.read(tf.constant([0], tf.int64))[0][0, 0]) == pytest.approx(0.8)
