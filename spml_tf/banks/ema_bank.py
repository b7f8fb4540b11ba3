"""Moving averages of every image's scores and heatmaps, kept in saved weights (eq. 4)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import keras
import tensorflow as tf

from spml_tf.banks.image_tables import ImageTable, KeepsTables, PackedTable, load_rows, place
from spml_tf.banks.rounding import float16_rounded, noise
from spml_tf.system.hdf5_checks import ROWS, check_hdf5
from spml_tf.system.private_api import outside_strategy
from spml_tf.system.replicas import WHOLE, Shard, once_a_process

DTYPES = ("float32", "float16", "uint8")


@keras.saving.register_keras_serializable("spml_tf")
class EMABank(KeepsTables):
    """An exponential moving average of values in [0, 1] for each cell of each image.

    The first visit of a cell sets it, later ones follow value <- momentum * value +
    (1 - momentum) * new (eq. 4). Rows are written in place by scatter. Every cell has a saved mark
    that tells whether it was visited; what is stored in a cell never visited means nothing.

    uint8 storage holds round(255 * value), float16 what it can of the value, both with stochastic
    rounding: rounding to nearest would stall the average. Whether a cell is rounded up follows from
    the seed, the number of writes so far, the image and the cell alone: not from the batch's order,
    the devices that share it, or whether XLA compiles (jit_compile=True).

    Under a `tf.distribute` strategy there is one bank a process, outside of the strategy, and its
    images are those of the process.

    Args:
        num_images: N.
        num_classes: L.
        grid: int, cells per side of the whole image's grid; 0 for one value per image and class.
        momentum: mu of eq. 4, in [0, 1).
        storage: "float32", "float16" or "uint8".
        seed: int, of the stochastic rounding.
        device: where the values live: "auto", "gpu" or "host", see `image_tables.place`.
        directory: a folder where tables of at least 1 MB in host memory live in unnamed files,
            see `image_tables.ImageTable`; None for ordinary memory.
        shard: which images of the data set these are: row r is image r * workers + worker. It
            matters to the rounding only. Like `device` and `directory` it is of this process, and
            no part of the configuration.

    Attributes:
        values: weight [N, (grid, grid,) L] of dtype `storage`.
        visited: [N, (grid, grid)] bool, an `image_tables.ImageTable`, packed where there is a grid.
        writes: weight () int64, how often `write` was called.

    Raises:
        ValueError: for a momentum outside [0, 1) or an unknown storage.
        UserError: for a folder that cannot hold the tables.
    """

    def __init__(
        self,
        num_images: int,
        num_classes: int,
        grid: int = 0,
        momentum: float = 0.8,
        storage: str = "float32",
        seed: int = 0,
        device: str = "auto",
        directory: str | None = None,
        shard: Shard = WHOLE,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"trainable": False, **kwargs})
        if not 0.0 <= momentum < 1.0:
            raise ValueError(f"momentum must lie in [0, 1). Received: {momentum}")
        if storage not in DTYPES:
            raise ValueError(f"storage must be one of {DTYPES}. Received: {storage!r}")
        self.num_images, self.num_classes, self.grid = num_images, num_classes, grid
        self.momentum, self.storage, self.seed = momentum, storage, seed
        self.device, self.directory, self.shard = device, directory, tuple(shard)
        self.add_state()
        self.built = True

    def add_state(self) -> None:
        """Creates the weights."""
        cells = (self.grid, self.grid) if self.grid else ()
        self.add_averages((*cells, self.num_classes), cells)

    def add_averages(self, cells: tuple[int, ...], marks: tuple[int, ...]) -> None:
        """Creates averages [N, *cells] and marks [N, *marks]."""
        shape = (self.num_images, *cells)
        size = math.prod(shape) * tf.as_dtype(self.storage).size
        device = place(self.device, size, self.directory)
        self.table = self.keep(
            ImageTable(self, shape, self.storage, "values", 0, device, self.directory)
        )
        self.values = self.table.weight
        self.visited = self.add_marks((self.num_images, *marks))
        with outside_strategy(), tf.device("CPU:0"):
            self.writes = self.add_weight(
                shape=(), dtype="int64", name="writes", initializer="zeros", trainable=False,
                autocast=False,
            )  # fmt: skip

    def add_marks(self, shape: tuple[int, ...]) -> ImageTable:
        """Creates the marks; those of single scores are not worth packing."""
        if len(shape) == 1:
            return self.keep(ImageTable(self, shape, "bool", "visited"))
        return self.keep(PackedTable(self, shape, "bool", "visited", directory=self.directory))

    def read(self, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The averages of some images, before this step's write.

        Args:
            index: [B] int64, in [0, N).

        Returns:
            values: [B, (grid, grid,) L] float32 in [0, 1].
            visited: [B, (grid, grid)] bool.
        """
        return self._decode(self.table.gather(index)), self.read_visited(index)

    def read_visited(self, index: tf.Tensor) -> tf.Tensor:
        """The marks of some images: [B, (grid, grid)] bool for index [B] int64."""
        return self.visited.gather(index)

    def write(self, index: tf.Tensor, new: tf.Tensor, inside: tf.Tensor | None = None) -> None:
        """Moves the averages of some images towards new values and marks the cells as visited.

        Args:
            index: [B] int64, in [0, N), each at most once.
            new: [B, (grid, grid,) L] float in [0, 1].
            inside: [B, (grid, grid)] bool, the cells to update; None means all.
        """
        if inside is None:
            inside = tf.fill(tf.shape(new)[:-1], True)
        once_a_process(self._write, index, tf.cast(new, tf.float32), inside)

    def _write(self, index: tf.Tensor, new: tf.Tensor, inside: tf.Tensor) -> None:
        stored, visited = self.table.gather(index), self.read_visited(index)
        rows = self.moved(index, stored, visited[..., None], new, inside[..., None])
        self.scatter(index, rows, visited | inside)

    def moved(
        self,
        index: tf.Tensor,
        stored: tf.Tensor,
        visited: tf.Tensor,
        new: tf.Tensor,
        inside: tf.Tensor,
    ) -> tf.Tensor:
        """Stored values after a visit (eq. 4); all but the first of shapes that broadcast.

        Args:
            index: [B] int64, the images.
            stored: of the storage's dtype.
            visited: bool, cells that hold an average; the others take the new value.
            new: float32 in [0, 1].
            inside: bool, the cells to update; the others keep what is stored, bit for bit.

        Returns:
            The new values, of the storage's dtype.
        """
        average = self.momentum * self._decode(stored) + (1.0 - self.momentum) * new
        moved = self._encode(index, tf.where(visited, average, new))
        return tf.where(inside, moved, stored)

    def scatter(self, index: tf.Tensor, rows: tf.Tensor, visited: tf.Tensor) -> None:
        """Stores rows of values and marks; to be called once a process and step."""
        self.table.scatter(index, rows)
        self.visited.scatter(index, visited)
        self.writes.value.assign_add(1)

    def load_saved(self, saved: Mapping[str, Any], path: str) -> None:
        """Takes over the values and marks of another bank, but not its count of writes.

        Args:
            saved: "0" values and "1" marks, as Keras stored that bank's weights.
            path: the file they come from, for the message.

        Raises:
            ValueError: where shape or storage differ.
        """
        for number, table in self.taken_over().items():
            try:
                load_rows(table, saved[number], self.name)
            except ValueError as error:
                raise ValueError(
                    f"{path}: {error}: use the same images, classes, heatmap_size, "
                    "heatmap_classes and bank_dtype"
                ) from None

    def taken_over(self) -> dict[str, ImageTable]:
        """The tables that another run's bank can fill, by the names Keras saves them under."""
        return {"0": self.table, "1": self.visited}

    def _decode(self, stored: tf.Tensor) -> tf.Tensor:
        values = tf.cast(stored, tf.float32)
        return values / 255.0 if self.storage == "uint8" else values

    def _encode(self, index: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
        if self.storage == "float32":
            return values
        worker, workers = self.shard
        images = tf.cast(index, tf.int64) * workers + worker
        steps = noise(self.seed, self.writes.value, images, tf.shape(values)[1:])
        if self.storage == "float16":
            return float16_rounded(values, steps)
        return tf.cast(tf.clip_by_value(tf.floor(values * 255.0 + steps), 0.0, 255.0), "uint8")

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_images": self.num_images,
            "num_classes": self.num_classes,
            "grid": self.grid,
            "momentum": self.momentum,
            "storage": self.storage,
            "seed": self.seed,
        }


def score_bank(num_images: int, num_classes: int, **kwargs: Any) -> EMABank:
    """The score bank s of eq. 4: values [N, L]. Arguments as for `EMABank`."""
    return EMABank(num_images, num_classes, name="ema_scores", **kwargs)


def load_all(path: str, banks: Sequence[EMABank]) -> set[str]:
    """Starts banks from those of the same names in a checkpoint; the others stay as they are.

    Of several workers each takes the rows of its own images.

    Args:
        path: a .weights.h5 file.
        banks: the banks to fill.

    Returns:
        The names of the banks that the checkpoint holds.

    Raises:
        ValueError: where a bank of the checkpoint has another shape or dtype, or the file is
            refused by `hdf5_checks.check_hdf5`.
    """
    check_hdf5(path, ROWS)
    with h5py.File(path) as file:
        found = [bank for bank in banks if bank.name in file]
        for bank in found:
            saved = file[bank.name]["vars"]
            shard = Shard(*bank.shard)
            bank.load_saved({name: _OwnRows(saved[name], shard) for name in saved}, path)
    return {bank.name for bank in found}


class _OwnRows:
    """The rows of one shard in a dataset of all images."""

    def __init__(self, dataset: h5py.Dataset, shard: Shard) -> None:
        self._dataset, self._shard, self.dtype = dataset, shard, dataset.dtype
        self.shape = (shard.rows(dataset.shape[0]), *dataset.shape[1:]) if dataset.shape else ()

    def __getitem__(self, rows: slice) -> Any:
        worker, workers = self._shard
        first, last = rows.start * workers + worker, (rows.stop - 1) * workers + worker + 1
        return self._dataset[first:last:workers]
