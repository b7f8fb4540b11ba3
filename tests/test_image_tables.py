"""Tables with a row an image: packing, files, memory, and the noise that rounds their bytes."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from spml_tf.banks import ema_bank, heatmap_bank, image_tables, rounding
from spml_tf.banks.image_tables import ImageTable, KeepsTables, PackedTable
from spml_tf.system.errors import UserError
from spml_tf.system.replicas import Shard
from spml_tf.system.tensor_memory import address
from spml_tf.training.label_store import Counts, LabelStore

LARGE = (5000, 100, 3)  # more than 1 MB as bytes


def layer() -> KeepsTables:
    made = KeepsTables()
    made.built = True
    return made


def place(table: ImageTable) -> int:
    with table.view() as array:
        return address(array)


def in_file(table: ImageTable, folder: Path) -> bool:
    """Whether its memory is a file of a folder that has no name any more."""
    start = f"{place(table):x}-"
    lines = Path("/proc/self/maps").read_text().splitlines()
    line = next((x for x in lines if x.startswith(start)), "")
    return f"{folder}/spml_tf-" in line and line.endswith("(deleted)")


class Everything(keras.Model):
    """Both banks and the labels under the names of training's checkpoints."""

    def __init__(self, storage="uint8", kept=2, directory=None, images=6, grid=2):
        super().__init__()
        bank = {"storage": storage, "directory": directory}
        self.ema_scores = ema_bank.score_bank(images, 5, **bank)
        self.ema_heatmaps = heatmap_bank.heatmap_bank(images, 5, grid, kept, **bank)
        self.label_store = LabelStore(images, 5, selects=True, directory=directory)
        self.built = True

    @property
    def layers_with_tables(self):
        return self.ema_scores, self.ema_heatmaps, self.label_store

    def train(self, steps=4, images=6, grid=2):
        rng = np.random.default_rng(1)
        for _ in range(steps):
            index = tf.constant(rng.permutation(images)[:3])
            maps = tf.constant(rng.random((3, grid, grid, 5)), tf.float32)
            scores = tf.constant(rng.random((3, 5)), tf.float32)
            codes = tf.constant(rng.choice([1, 0, -1], (3, 5)), tf.int8)
            box, flip = tf.tile([[0.1, 0.0, 0.8, 0.6]], [3, 1]), tf.fill([3], False)
            self.label_store.write(index, self.label_store.with_marks(index, codes))
            self.ema_scores.write(index, scores)
            self.ema_heatmaps.update(maps, index, box, flip, scores, codes)
        self.label_store.select(self.ema_scores, 3.0, "all")

    def arrays(self):
        return [w.numpy() for x in self.layers_with_tables for w in x.saved().values()]


def assert_same(one, other):
    for left, right in zip(one, other, strict=True):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)


@settings(max_examples=30)
@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 5), st.integers(0, 99), st.booleans())
def test_packing(images, high, wide, seed, bits):
    """In blocks with numpy and in steps with TensorFlow alike; rows not written stay."""
    rng = np.random.default_rng(seed)
    shape, dtype = (images, high, wide), "bool" if bits else "int8"
    table = PackedTable(layer(), shape, dtype, "packed", 0 if bits else -1)
    assert table.value.shape[1] == -(-high * wide // (8 if bits else 4))
    expected = np.full(shape, 0 if bits else -1, dtype)
    np.testing.assert_array_equal(table.numpy(), expected)

    def values(count):
        found = rng.choice([0, 1] if bits else [1, 0, -1, 2], (count, high, wide))
        return found.astype(dtype)

    index = rng.permutation(images)[: rng.integers(0, images + 1)]
    expected[index] = values(len(index))
    for run in (
        table.scatter,
        tf.function(table.scatter),
        tf.function(table.scatter, jit_compile=True),
    ):
        run(tf.constant(index, tf.int64), tf.constant(expected[index]))
        np.testing.assert_array_equal(table.numpy(), expected)
    first = int(rng.integers(0, images))
    rows = slice(first, images)
    expected[rows] = values(images - first)
    table.write(rows, expected[rows])
    np.testing.assert_array_equal(table.read(rows), expected[rows])
    np.testing.assert_array_equal(np.asarray(table), expected)
    order = rng.permutation(images)
    found = table.gather(tf.constant(order, tf.int64))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected[order])


def test_other_shapes_are_refused():
    table = ImageTable(layer(), (3, 2), "float32", "values")
    with pytest.raises(ValueError, match=r"expected an array \(3, 2\)"):
        table.assign(np.zeros((2, 3)))


@settings(max_examples=50)
@given(
    st.integers(1, 6), st.integers(1, 5), st.integers(0, 99), st.sampled_from([1, 8, 2**21])
)  # fmt: skip
def test_counts(images, classes, seed, block):
    """Against a dense array, in one block of rows and in several; 255 is the last count."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_tables, "_BLOCK", block)
        compare_counts(images, classes, np.random.default_rng(seed))


def compare_counts(images, classes, rng):
    counts, dense = Counts((images, classes)), np.zeros((images, classes), np.uint8)
    for _ in range(6):
        chosen = rng.random((images, classes)) < 0.3
        counts.add(np.flatnonzero(chosen))
        dense += chosen
        np.testing.assert_array_equal(counts.numpy(), dense)
        first, last = np.sort(rng.integers(0, images + 1, 2))
        part = rng.choice([0, 0, 3], (last - first, classes)).astype(np.uint8)
        counts.write(slice(first, last), part)
        dense[first:last] = part
        np.testing.assert_array_equal(counts.read(slice(first, last)), part)
    dense[:] = 254
    counts.assign(dense)
    for expected in (255, 255):
        counts.add(np.arange(dense.size))
        assert (counts.numpy() == expected).all()


def test_a_block_of_counts_is_written_without_moving_the_others(monkeypatch):
    """80,000 counts take 720 kB; a block of 4,096 takes some 35 kB, and as much while it is found.

    To move all of them for each block would take a time that grows with the square of the images.
    """
    monkeypatch.setattr(image_tables, "_BLOCK", 4096)
    counts = Counts((20_000, 4))
    for block in counts.blocks():
        counts.write(block, np.ones((block.stop - block.start, 4)))
    tracemalloc.start()
    try:
        counts.write(block, np.full((block.stop - block.start, 4), 2))
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()
    expected = np.where(np.arange(20_000)[:, None] < block.start, 1, [2] * 4)
    np.testing.assert_array_equal(counts.numpy(), expected)


def test_selection_leaves_unvisited_images_out():
    """Their marks are taken away, as everyone's; N of eq. 3 is that of the others."""
    store, scores = LabelStore(4, 2, selects=True), ema_bank.score_bank(4, 2)
    store.codes.assign([[1, -1], [-1, 2], [2, -1], [-1, 1]])
    scores.write(
        tf.constant([0, 2, 3], tf.int64), tf.constant([[0.9, 0.1], [0.8, 0.7], [0.2, 0.9]])
    )
    store.select(scores, 1.34, "all")  # 4 of 3 images, 2 of each class
    assert store.codes.numpy().tolist() == [[1, -1], [-1, -1], [2, 2], [-1, 1]]
    assert store.epochs_selected.numpy().tolist() == [[0, 0], [0, 0], [1, 1], [0, 0]]


@pytest.mark.parametrize("kind", ["weights.h5", "keras", "dictionary"])
@pytest.mark.parametrize("storage, kept", [("float32", None), ("float16", 2), ("uint8", 2)])
def test_saved_and_loaded(storage, kept, kind, tmp_path):
    model, other = Everything(storage, kept), Everything(storage, kept)
    model.train()
    if kind == "dictionary":  # what other code than Keras' files may hand over
        for one, two in zip(model.layers_with_tables, other.layers_with_tables, strict=True):
            stored: dict = {}
            one.save_own_variables(stored)
            two.load_own_variables({k: np.asarray(v) for k, v in stored.items()})
    elif kind == "keras":
        inner = [keras.Sequential([x]) for x in model.layers_with_tables]
        for number, (one, target) in enumerate(zip(inner, other.layers_with_tables, strict=True)):
            one.built = True
            one.save(tmp_path / f"{number}.keras")
            found = keras.saving.load_model(tmp_path / f"{number}.keras").layers[0]
            for name, weight in target.saved().items():
                weight.assign(found.saved()[name].numpy())
    else:
        model.save_weights(tmp_path / "b.weights.h5")
        other.load_weights(tmp_path / "b.weights.h5")
    assert_same(model.arrays(), other.arrays())


LOAD = """
import sys, h5py, numpy as np
sys.path.insert(0, sys.argv[2])
from test_image_tables import Everything
model = Everything("uint8", 2, sys.argv[3] or None, 3000, 12)
model.load_weights(sys.argv[1])
np.savez(sys.argv[1] + ".npz", *model.arrays())
"""


@pytest.mark.parametrize("directory", [False, True])
def test_another_process_loads_bit_for_bit(directory, tmp_path):
    file = str(tmp_path / "b.weights.h5")
    model = Everything("uint8", 2, images=3000, grid=12)
    model.train(6, 3000, 12)
    model.save_weights(file)
    words = [sys.executable, "-c", LOAD, file, str(Path(__file__).parent)]
    words.append(str(tmp_path) if directory else "")
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    with np.load(file + ".npz") as found:
        assert_same(model.arrays(), [found[name] for name in found.files])
    assert sorted(os.listdir(tmp_path)) == ["b.weights.h5", "b.weights.h5.npz"]


def test_checkpoints_are_as_they_were(tmp_path):
    """Paths, shapes and types of the files, written by hand and loaded; and by the model."""
    rng = np.random.default_rng(0)
    expected = {
        "ema_scores/vars/0": rng.integers(0, 255, (6, 5)).astype(np.uint8),
        "ema_scores/vars/1": rng.random(6) < 0.5,
        "ema_scores/vars/2": np.int64(7),
        "ema_heatmaps/vars/0": rng.integers(0, 255, (6, 2, 2, 2)).astype(np.uint8),
        "ema_heatmaps/vars/1": rng.random((6, 2, 2, 2)) < 0.5,
        "ema_heatmaps/vars/2": np.int64(9),
        "ema_heatmaps/vars/3": rng.integers(-1, 5, (6, 2)).astype(np.int32),
        "label_store/vars/0": rng.choice([1, 0, -1, 2], (6, 5)).astype(np.int8),
        "label_store/vars/1": rng.integers(0, 4, (6, 5)).astype(np.uint8),
    }
    with h5py.File(tmp_path / "old.weights.h5", "w") as file:
        for name, array in expected.items():
            file[name] = array
    model = Everything()
    model.load_weights(tmp_path / "old.weights.h5")
    model.save_weights(tmp_path / "new.weights.h5")
    with h5py.File(tmp_path / "new.weights.h5") as file:
        for name, array in expected.items():
            assert file[name].dtype == array.dtype and file[name].shape == np.shape(array)
            np.testing.assert_array_equal(file[name][...], array)


def test_other_shapes_and_types_are_not_loaded():
    model, stored = Everything(), {}
    model.ema_scores.save_own_variables(stored)
    for number, bad in ((0, np.zeros((6, 5), np.float32)), (1, np.ones(5, bool))):
        with pytest.raises(ValueError, match=f"ema_scores/{number} holds {bad.dtype} .*this model"):
            model.ema_scores.load_own_variables({**stored, str(number): bad})
    del stored["2"]
    with pytest.raises(ValueError, match="ema_scores: expected the weights .*'2'.*, found"):
        model.ema_scores.load_own_variables(stored)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("dtype", ["bool", "uint8", "float16", "float32", "int32"])
def test_memory_stays_where_it_is(dtype, jit_compile, tmp_path):
    """In memory and in a file, through steps, reads, blocks and assignments."""
    for directory in (None, str(tmp_path)):
        table = ImageTable(layer(), LARGE, dtype, "values", 1, directory=directory)
        scatter = tf.function(table.scatter, jit_compile=jit_compile)
        before, expected = place(table), np.ones(LARGE, dtype)
        for number in range(4):
            index = tf.constant([number, 4990 + number], tf.int64)
            scatter(index, tf.zeros((2, *LARGE[1:]), dtype))
            expected[index.numpy()] = 0
            np.testing.assert_array_equal(table.gather(index), expected[index.numpy()])
            assert place(table) == before
        np.testing.assert_array_equal(table.numpy(), expected)
        table.assign(expected[::-1])
        table.write(slice(7, 9), expected[7:9])
        np.testing.assert_array_equal(table.numpy()[10:], expected[::-1][10:])
        assert place(table) == before
        assert in_file(table, tmp_path) == (directory is not None)
        assert os.listdir(tmp_path) == []


def test_a_held_view_costs_memory_and_nothing_else(tmp_path):
    """It keeps what it showed, the table goes on, and returns to its file when looked at."""
    for directory in (None, str(tmp_path)):
        table = ImageTable(layer(), LARGE, "uint8", "values", directory=directory)
        with table.view() as held:
            table.scatter(tf.constant([2], tf.int64), tf.ones((1, *LARGE[1:]), tf.uint8))
            assert held[2].sum() == 0 and table.read(slice(2, 3)).sum() == 300
            assert in_file(table, tmp_path) == (directory is not None)
            table.write(slice(3, 4), np.full((1, *LARGE[1:]), 2))
            assert held[3].sum() == 0
        del held
        table.weight.assign(np.full(LARGE, 3))  # as a user may, which leaves the file
        assert in_file(table, tmp_path) == (directory is not None)
        before = place(table)
        table.scatter(tf.constant([2], tf.int64), tf.ones((1, *LARGE[1:]), tf.uint8))
        assert table.numpy().sum() == 3 * 1_500_000 - 600
        assert place(table) == before and os.listdir(tmp_path) == []


def test_banks_in_files_hold_the_same(tmp_path):
    plain, mapped = (
        Everything("uint8", None, directory, 3000, 12) for directory in (None, str(tmp_path))
    )
    for model in (plain, mapped):
        model.train(5, 3000, 12)
    assert in_file(mapped.ema_heatmaps.table, tmp_path)
    assert not in_file(plain.ema_heatmaps.table, tmp_path)
    assert_same(plain.arrays(), mapped.arrays())
    assert os.listdir(tmp_path) == []
    mapped.save_weights(tmp_path / "b.weights.h5")
    mapped.train(2, 3000, 12)  # what came after the checkpoint is rolled back to it
    mapped.load_weights(tmp_path / "b.weights.h5")
    assert in_file(mapped.ema_heatmaps.table, tmp_path)
    assert_same(plain.arrays(), mapped.arrays())


def test_a_folder_that_cannot_hold_a_table(tmp_path, monkeypatch):
    def make(folder):
        return ImageTable(layer(), LARGE, "uint8", "values", directory=str(folder))

    (tmp_path / "file").write_text("")
    for folder, reason in (("missing", "No such file"), ("file", "Not a directory")):
        with pytest.raises(UserError, match=f"bank_dir {tmp_path / folder}: .*{reason}") as error:
            make(tmp_path / folder)
        assert "\n" not in str(error.value)

    def full(file, offset, size):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match="no file of 0.00 GB can be made there .No space left"):
        make(tmp_path)
    assert os.listdir(tmp_path) == ["file"]


PEAK = """
import sys
from pathlib import Path
import h5py, keras, numpy as np, tensorflow as tf
from spml_tf.banks.ema_bank import EMABank
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(x.split()[1]) for x in lines if x.startswith("VmHWM")) * 1024
before = peak()
bank = EMABank(3000, 100, 32, storage=sys.argv[2])
model = keras.Sequential([bank])
model.built = True
write = tf.function(bank.write)
for number in range(3):
    write(tf.constant([number, 2000 + number]), tf.random.uniform((2, 32, 32, 100)))
    model.save_weights(sys.argv[1])
model.load_weights(sys.argv[1])
write(tf.constant([number, 2000 + number]), tf.random.uniform((2, 32, 32, 100)))
print(peak() - before)
"""


@pytest.mark.parametrize(
    "storage, size", [("uint8", 1), pytest.param("float32", 4, marks=pytest.mark.slow)]
)
def test_a_bank_is_never_there_twice(storage, size, tmp_path):
    """307 MB as bytes, made, written, saved and loaded in a process of its own."""
    words = [sys.executable, "-c", PEAK, str(tmp_path / "b.weights.h5"), storage]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    bank = 3000 * 100 * 32 * 32 * size
    assert int(done.stdout.splitlines()[-1]) < bank + 0.13 * 2**30


def test_noise_is_like_independent_draws():
    """Mean and variance over all, over cells of an image, images of a cell, and writes; neighbours
    of each kind without correlation: within four of their standard errors."""
    images, cells, writes = 300, 240, 8
    index = tf.range(images, dtype=tf.int64)
    draws = np.stack([
        rounding.noise(5, tf.constant(number, tf.int64), index, tf.constant([cells])).numpy()
        for number in range(writes)
    ])  # fmt: skip
    assert draws.dtype == np.float32 and draws.min() >= 0.0 and draws.max() < 1.0
    deviation = 12**-0.5
    for axes in ((0, 1, 2), (0, 1), (0, 2), (1, 2)):
        count = np.prod([draws.shape[axis] for axis in axes])
        means = (draws.mean(axis=axes) - 0.5) / (deviation / count**0.5)
        assert np.abs(means).max() < 5
        assert np.ndim(means) == 0 or np.abs(np.std(means) - 1) < 0.5
        assert np.abs(draws.var(axis=axes) - 1 / 12).max() < 5 * (1 / 180) ** 0.5 / count**0.5
    centred = (draws - 0.5) / deviation
    shifted = [
        (centred[1:], centred[:-1]), (centred[:, 1:], centred[:, :-1]),
        (centred[..., 1:], centred[..., :-1]), (centred[:, 1:, 1:], centred[:, :-1, :-1]),
        (centred[1:, 1:], centred[:-1, :-1]),
    ]  # fmt: skip
    for one, other in shifted:
        assert abs(np.mean(one * other)) < 4 / one.size**0.5
    assert len(np.unique(draws)) > 0.98 * draws.size  # 2^24 values
    other = rounding.noise(6, tf.constant(0, tf.int64), index, tf.constant([cells])).numpy()
    assert abs(np.mean((other - 0.5) * (draws[0] - 0.5)) * 12) < 4 / other.size**0.5


def test_rounding_is_right_on_average():
    """Rounding x to steps of 1 with such noise has mean 0 and variance f (1 - f)."""
    values = tf.reshape(tf.linspace(0.1, 254.9, 500 * 400), (500, 400))
    steps = rounding.noise(
        1, tf.constant(3, tf.int64), tf.range(500, dtype=tf.int64), tf.constant([400])
    )
    errors = (tf.floor(values + steps) - values).numpy()
    assert abs(errors.mean()) < 4 * (1 / 6 / errors.size) ** 0.5
    assert errors.var() == pytest.approx(1 / 6, rel=0.02)


def test_rounding_does_not_depend_on_batches_order_devices_or_compilation():
    """Whole, in other order, in the shares of three workers, compiled by XLA: the same bytes."""
    rng = np.random.default_rng(0)
    images = 9
    steps = [rng.random((images, 2, 2, 4)).astype(np.float32) for _ in range(4)]

    def filled(order, jit_compile=False):
        bank = heatmap_bank.heatmap_bank(images, 4, 2, storage="uint8", seed=3)
        write = tf.function(bank.write, jit_compile=jit_compile)
        for new in steps:
            write(tf.constant(order, tf.int64), tf.constant(new[order]))
        return bank.values.numpy()

    whole = filled(np.arange(images))
    np.testing.assert_array_equal(filled(rng.permutation(images)), whole)
    np.testing.assert_array_equal(filled(np.arange(images), jit_compile=True), whole)
    for worker in range(3):
        shard = Shard(worker, 3)
        part = heatmap_bank.heatmap_bank(3, 4, 2, storage="uint8", seed=3, shard=shard)
        for new in steps:
            part.write(tf.range(3, dtype=tf.int64), tf.constant(shard.own(new)))
        np.testing.assert_array_equal(part.values.numpy(), shard.own(whole))


REPLICAS = """
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from spml_tf.banks.heatmap_bank import heatmap_bank
from spml_tf.system.tensor_memory import address
rng = np.random.default_rng(0)
steps = [(rng.permutation(8)[:5], rng.random((5, 3, 3, 4)).astype("float32")) for _ in range(5)]
found = []
for kept in (None, 2):
    for count in (1, 2):
        strategy = tf.distribute.MirroredStrategy([f"CPU:{n}" for n in range(count)])
        with strategy.scope():
            bank = heatmap_bank(8, 4, 3, kept, storage="uint8")
        def place():
            with bank.table.view() as array:
                return address(array)
        before = place()
        @tf.function
        def step(index, maps):
            def one(index, maps):
                scores = tf.reduce_mean(maps, axis=(1, 2))
                box = tf.tile([[0.0, 0.2, 0.9, 1.0]], [tf.shape(index)[0], 1])
                flip, codes = index % 2 == 0, tf.fill(tf.shape(scores), tf.constant(-1, tf.int8))
                bank.update(maps, index, box, flip, scores, codes)
            strategy.run(one, args=(index, maps))
        data = tf.data.Dataset.from_generator(
            lambda: iter(steps),
            output_signature=(tf.TensorSpec([5], tf.int64), tf.TensorSpec([5, 3, 3, 4])))
        for index, maps in strategy.experimental_distribute_dataset(data.unbatch().batch(5)):
            step(index, maps)
        assert place() == before and int(bank.writes.numpy()) == 5
        found.append([x.numpy() for x in bank.saved().values()])
for one, two in (found[:2], found[2:]):
    for left, right in zip(one, two):
        np.testing.assert_array_equal(left, right)
assert found[0][0].any()
"""


def test_two_replicas_fill_the_same_bank():
    done = subprocess.run(
        [sys.executable, "-c", REPLICAS], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
