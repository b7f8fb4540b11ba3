"""Moving averages of every image's scores and heatmaps, kept in saved weights (eq. 4)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import keras
import tensorflow as tf

from spml_tf.system.private_api import outside_strategy
from spml_tf.system.replicas import once_a_process

DTYPES = ("float32", "float16", "uint8")


@keras.saving.register_keras_serializable("spml_tf")
class EMABank(keras.layers.Layer):
    """An exponential moving average of values in [0, 1] for each cell of each image.

    The first visit of a cell sets it, later ones follow value <- momentum * value +
    (1 - momentum) * new (eq. 4). Rows are written in place by scatter. Every cell has a saved mark
    that tells whether it was visited; what is stored in a cell never visited means nothing.

    uint8 storage holds round(255 * value) with stochastic rounding, seeded by (seed, number of
    writes so far): rounding to nearest would stall the average. A function compiled by XLA
    (jit_compile=True) rounds with other random numbers than one that is not. It lives in host
    memory, where it takes none of a GPU's.

    Args:
        num_images: N.
        num_classes: L.
        grid: int, cells per side of the whole image's grid; 0 for one value per image and class.
        momentum: mu of eq. 4, in [0, 1).
        storage: "float32", "float16" or "uint8".
        seed: int, of the stochastic rounding.

    Attributes:
        values: weight [N, (grid, grid,) L] of dtype `storage`.
        visited: weight [N, (grid, grid)] bool.

    Raises:
        ValueError: for a momentum outside [0, 1) or an unknown storage.
    """

    def __init__(
        self,
        num_images: int,
        num_classes: int,
        grid: int = 0,
        momentum: float = 0.8,
        storage: str = "float32",
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"trainable": False, **kwargs})
        if not 0.0 <= momentum < 1.0:
            raise ValueError(f"momentum must lie in [0, 1). Received: {momentum}")
        if storage not in DTYPES:
            raise ValueError(f"storage must be one of {DTYPES}. Received: {storage!r}")
        self.num_images, self.num_classes, self.grid = num_images, num_classes, grid
        self.momentum, self.storage, self.seed = momentum, storage, seed
        self.add_state()
        self.built = True

    def add_state(self) -> None:
        """Creates the weights."""
        cells = (self.grid, self.grid) if self.grid else ()
        self.add_averages((*cells, self.num_classes), cells)

    def add_averages(self, cells: tuple[int, ...], marks: tuple[int, ...]) -> None:
        """Creates averages [N, *cells] and marks [N, *marks]."""
        with tf.device("CPU:0") if self.storage == "uint8" else contextlib.nullcontext():
            self.values = self._weight((self.num_images, *cells), self.storage, "values")
        with tf.device("CPU:0"):
            self.visited = self._weight((self.num_images, *marks), "bool", "visited")
        self.writes = self._weight((), "int64", "writes")

    def _weight(self, shape: tuple[int, ...], dtype: str, name: str) -> keras.Variable:
        with outside_strategy():
          return self.add_weight(
            shape=shape, dtype=dtype, name=name, initializer="zeros", trainable=False,
            autocast=False,
        )  # fmt: skip

    def read(self, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The averages of some images, before this step's write.

        Args:
            index: [B] int64, in [0, N).

        Returns:
            values: [B, (grid, grid,) L] float32 in [0, 1].
            visited: [B, (grid, grid)] bool.
        """
        return self._decode(tf.gather(self.values.value, index)), self.read_visited(index)

    def read_visited(self, index: tf.Tensor) -> tf.Tensor:
        """The marks of some images: [B, (grid, grid)] bool for index [B] int64."""
        return tf.gather(self.visited.value, index)

    def write(self, index: tf.Tensor, new: tf.Tensor, inside: tf.Tensor | None = None) -> None:
        """Moves the averages of some images towards new values and marks the cells as visited.

        Args:
            index: [B] int64, in [0, N), each at most once.
            new: [B, (grid, grid,) L] float in [0, 1].
            inside: [B, (grid, grid)] bool, the cells to update; None means all.
        """
        if inside is None:
            inside = tf.fill(tf.shape(new)[:-1], True)
        once_a_process(self._write,index, tf.cast(new, tf.float32), inside)

    def _write(self, index, new, inside):
        stored, visited = tf.gather(self.values.value, index), self.read_visited(index)
        rows = self.moved(stored, visited[..., None], new, inside[..., None])
        self.scatter(index, rows, visited | inside)

    def moved(
        self, stored: tf.Tensor, visited: tf.Tensor, new: tf.Tensor, inside: tf.Tensor
    ) -> tf.Tensor:
        """Stored values after a visit (eq. 4); all arguments of shapes that broadcast.

        Args:
            stored: of the storage's dtype.
            visited: bool, cells that hold an average; the others take the new value.
            new: float32 in [0, 1].
            inside: bool, the cells to update; the others keep what is stored, bit for bit.

        Returns:
            The new values, of the storage's dtype.
        """
        average = self.momentum * self._decode(stored) + (1.0 - self.momentum) * new
        return tf.where(inside, self._encode(tf.where(visited, average, new)), stored)

    def scatter(self, index: tf.Tensor, rows: tf.Tensor, visited: tf.Tensor) -> None:
        """Stores rows of values and marks, which are the same on every replica."""
        self.values.value.scatter_update(tf.IndexedSlices(rows, index))
        self.visited.value.scatter_update(tf.IndexedSlices(visited, index))
        self.writes.assign_add(1)

    def load_saved(self, saved: Mapping[str, Any], path: str) -> None:
        """Takes over the values and marks of another bank, but not its count of writes.

        Args:
            saved: "0" values and "1" marks, as Keras stored that bank's weights.
            path: the file they come from, for the message.

        Raises:
            ValueError: where shape or storage differ.
        """
        for number, weight in self.taken_over().items():
            array = saved[number]
            if array.shape != tuple(weight.shape) or array.dtype.name != weight.dtype:
                raise ValueError(
                    f"{path}: {self.name} holds {array.dtype} {array.shape}, this model's is "
                    f"{weight.dtype} {tuple(weight.shape)}: use the same images, classes, "
                    "heatmap_size, heatmap_classes and bank_dtype"
                )
            weight.assign(array[...])

    def taken_over(self) -> dict[str, keras.Variable]:
        """The weights that another run's bank can fill, by the names Keras saves them under."""
        return {"0": self.values, "1": self.visited}

    def _decode(self, stored: tf.Tensor) -> tf.Tensor:
        values = tf.cast(stored, tf.float32)
        return values / 255.0 if self.storage == "uint8" else values

    def _encode(self, values: tf.Tensor) -> tf.Tensor:
        if self.storage == "uint8":
            seed = tf.stack([tf.constant(self.seed, tf.int64), self.writes.value])
            noise = tf.random.stateless_uniform(tf.shape(values), seed)
            values = tf.clip_by_value(tf.floor(values * 255.0 + noise), 0.0, 255.0)
        return tf.cast(values, self.storage)

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


def load_all(path: str, banks: Sequence[EMABank]) -> None:
    """Starts banks from those of the same names in a checkpoint; the others stay as they are.

    Args:
        path: a .weights.h5 file.
        banks: the banks to fill.

    Raises:
        ValueError: where a bank of the checkpoint has another shape or dtype.
    """
    with h5py.File(path) as file:
        for bank in banks:
            if bank.name in file:
                bank.load_saved(file[bank.name]["vars"], path)
