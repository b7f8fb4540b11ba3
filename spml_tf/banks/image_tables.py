"""Tables with a row for each training image, in weights that a process keeps once.

They can be larger than all else in memory, so none is ever there twice: they are made in place,
changed in place by scatter, and saved and loaded in blocks of rows.

TensorFlow changes a weight in place as long as nobody else holds its memory, and copies it before
the next change otherwise. So what is seen of a table without a copy must be let go of again; if it
is not, memory is lost and nothing else, and a table that should be in a file goes back into one
when it is next looked at.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import h5py
import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray

from spml_tf.system.private_api import h5_group, outside_strategy
from spml_tf.system.tensor_memory import SMALLEST_MAPPED, address, array_of, mapped_zeros

_BLOCK = 2**21  # bytes of a table that are handled at a time

# The four codes of a byte of labels, the first in its lowest bits, as the bytes of one number.
_CODES = np.array(
    [[(0, 1, 2, -1)[byte >> shift & 3] for shift in (0, 2, 4, 6)] for byte in range(256)], np.int8
).view("<u4")[:, 0]


# Bytes up to which a table may live in a GPU's memory.
_ON_GPU_UP_TO = 2**31


def place(choice: str, size: int, directory: str | None = None) -> str:
    """The device of a table.

    Args:
        choice: "host"; "gpu", the GPU of this process; "auto", that GPU where it is the only one
            and the table is small, else the host.
        size: of the table in bytes.
        directory: the folder of its file, which is in host memory; None where there is none.

    Raises:
        ValueError: "gpu" without a GPU, with several of them in the process, or with a directory.
    """
    gpus = tf.config.list_logical_devices("GPU")
    if choice == "gpu":
        if len(gpus) != 1 or directory is not None:
            raise ValueError(
                f"bank_device='gpu' needs one GPU in the process and no bank_dir; found "
                f"{len(gpus)} GPUs and bank_dir={directory}: leave bank_device out"
            )
        return "GPU:0"
    single = choice == "auto" and len(gpus) == 1 and directory is None
    return "GPU:0" if single and size <= _ON_GPU_UP_TO else "CPU:0"


def row_slices(rows: int, size: int) -> Iterator[slice]:
    """Rows of some bytes each, in blocks of some megabytes."""
    step = max(_BLOCK // max(size, 1), 1)
    for first in range(0, rows, step):
        yield slice(first, min(first + step, rows))


class ImageTable:
    """A weight [N, ...], a row an image, kept once a process and outside of any strategy.

    Args:
        layer: whose weight it becomes.
        shape: [N, ...], all known.
        dtype: of the weight, kept under mixed precision too.
        name: of the weight.
        value: what it starts with.
        device: where it lives.
        directory: a folder where a table of at least 1 MB in host memory lives in a file that
            nobody sees; None for ordinary memory.
        trainable: whether gradients change it.

    Attributes:
        weight: the keras.Variable; only such ones are saved.
        shape: as given.
        dtype: as given.

    Raises:
        UserError: the folder is missing, cannot be written to or is full.
    """

    def __init__(
        self,
        layer: keras.layers.Layer,
        shape: tuple[int, ...],
        dtype: str,
        name: str,
        value: float = 0,
        device: str = "CPU:0",
        directory: str | None = None,
        trainable: bool = False,
    ) -> None:
        self.shape, self.dtype = tuple(int(x) for x in shape), dtype
        size = math.prod(self.shape) * tf.as_dtype(dtype).size
        on_host = "CPU" in device
        self._directory = directory if on_host and size >= SMALLEST_MAPPED else None
        self._address: int | None = None
        with outside_strategy(), tf.device(device):
            self.weight = layer.add_weight(
                shape=self.shape, dtype=dtype, name=name, trainable=trainable, autocast=False,
                initializer=lambda shape, dtype: self._first(value),
            )  # fmt: skip

    def _first(self, value: float) -> tf.Tensor:
        if self._directory is None:
            return tf.fill(self.shape, tf.cast(value, self.dtype))
        tensor = mapped_zeros(self.shape, self.dtype, self._directory)
        array = array_of(tensor, writable=True)
        self._address = address(array)
        if value:
            array[...] = value
        return tensor

    @property
    def value(self) -> tf.Variable:
        """The variable behind the weight."""
        return self.weight.value

    def gather(self, index: tf.Tensor) -> tf.Tensor:
        """Rows [B, ...] of images index [B]."""
        return tf.gather(self.value, index)

    def scatter(self, index: tf.Tensor, rows: tf.Tensor) -> None:
        """Stores rows [B, ...] of images index [B], in place.

        To be called once a process, see `system.replicas.once_a_process`.
        """
        self.value.scatter_update(tf.IndexedSlices(rows, index))

    @contextlib.contextmanager
    def view(self) -> Iterator[NDArray[Any]]:
        """The weight as an array to read from, without a copy where it is in host memory.

        Let go of it, and of what was sliced from it, before the next training step: else
        TensorFlow copies the table then.
        """
        array = array_of(self._memory()) if self._on_host() else self.value.numpy()
        try:
            yield array
        finally:
            del array

    def _on_host(self) -> bool:
        return "CPU" in self.value.device

    @contextlib.contextmanager
    def _writable(self) -> Iterator[NDArray[Any]]:
        """As `view` of a table in host memory, to write to; nobody else's copy changes with it."""
        none = tf.zeros((0, *self.value.shape[1:]), self.value.dtype)
        self.value.scatter_update(tf.IndexedSlices(none, tf.zeros(0, tf.int64)))
        array = array_of(self._memory(), writable=True)
        try:
            yield array
        finally:
            del array

    def _memory(self) -> tf.Tensor:
        """The weight's own memory; back in its file where TensorFlow has taken it out."""
        tensor = self.value.read_value_no_copy()
        if self._address in (None, address(array_of(tensor))):
            return tensor
        with outside_strategy(), tf.device("CPU:0"):
            new = mapped_zeros(tuple(tensor.shape), tensor.dtype.name, str(self._directory))
            array = array_of(new, writable=True)
            array[...] = array_of(tensor)
            self._address = address(array)
            self.value.assign(new)
        return new

    def __len__(self) -> int:
        return self.shape[0]

    def blocks(self) -> Iterator[slice]:
        """The rows in blocks of some megabytes."""
        return row_slices(len(self), math.prod(self.shape[1:]) * np.dtype(self.dtype).itemsize)

    def read(self, rows: slice) -> NDArray[Any]:
        """A copy of some rows."""
        if not self._on_host():
            found: NDArray[Any] = self.gather(tf.range(rows.start, rows.stop)).numpy()
            return found
        with self.view() as array:
            return array[rows].copy()

    def write(self, rows: slice, values: ArrayLike) -> None:
        """Stores some rows, eagerly and once a process."""
        if self._on_host():
            with self._writable() as array:
                array[rows] = values
        else:
            self.scatter(tf.range(rows.start, rows.stop), tf.constant(values, self.dtype))

    def numpy(self) -> NDArray[Any]:
        """A copy of the whole table."""
        found = np.empty(self.shape, self.dtype)
        for rows in self.blocks():
            found[rows] = self.read(rows)
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self.numpy().astype(dtype or self.dtype, copy=False)

    def assign(self, values: ArrayLike) -> None:
        """Stores the whole table.

        Args:
            values: of the table's shape.

        Raises:
            ValueError: for another shape.
        """
        values = np.asarray(values)
        if values.shape != self.shape:
            raise ValueError(f"expected an array {self.shape}. Received: {values.shape}")
        for rows in self.blocks():
            self.write(rows, values[rows])


class PackedTable(ImageTable):
    """A table of small numbers, several to a byte: bool, or int8 in {-1, 0, 1, 2}.

    Its weight is [N, M] uint8, but what it holds, and what is saved, is [N, ...] of its dtype.

    Args:
        layer: as for `ImageTable`.
        shape: as for `ImageTable`.
        dtype: "bool", with a bit for each, or "int8", with two.
        name: as for `ImageTable`.
        value: 0, or -1 for int8.
        directory: as for `ImageTable`.
    """

    def __init__(
        self,
        layer: keras.layers.Layer,
        shape: tuple[int, ...],
        dtype: str,
        name: str,
        value: int = 0,
        directory: str | None = None,
    ) -> None:
        self._bits = {"bool": 1, "int8": 2}[dtype]
        self._row = math.prod(shape[1:])
        self._bytes = -(-self._row * self._bits // 8)
        first = 255 if value else 0
        super().__init__(layer, (shape[0], self._bytes), "uint8", name, first, directory=directory)
        self.shape, self.dtype = tuple(int(x) for x in shape), dtype

    def gather(self, index: tf.Tensor) -> tf.Tensor:
        with tf.device("CPU:0"):
            packed = tf.cast(super().gather(index), tf.int32)[:, :, None]
            shifts = tf.range(0, 8, self._bits)
            values = tf.bitwise.right_shift(packed, shifts) & (2**self._bits - 1)
            values = tf.reshape(values, (-1, values.shape[1] * values.shape[2]))[:, : self._row]
            values = tf.reshape(values, (-1, *self.shape[1:]))
            return tf.cast(tf.where(values == 3, -1, values), self.dtype)

    def scatter(self, index: tf.Tensor, rows: tf.Tensor) -> None:
        with tf.device("CPU:0"):
            each = 8 // self._bits
            values = tf.reshape(tf.cast(rows, tf.int32), (-1, self._row)) & (2**self._bits - 1)
            values = tf.pad(values, [[0, 0], [0, self._bytes * each - self._row]])
            values = tf.reshape(values, (-1, self._bytes, each))
            packed = tf.reduce_sum(values * [2**x for x in range(0, 8, self._bits)], axis=2)
            super().scatter(index, tf.cast(packed, tf.uint8))

    def read(self, rows: slice) -> NDArray[Any]:
        """Some rows, unpacked."""
        with self.view() as array:
            packed = array[rows].copy()
        if self._bits == 1:
            values = np.unpackbits(packed, axis=1, bitorder="little").view(bool)
        else:
            values = _CODES[packed].view(np.int8)
        return values[:, : self._row].reshape(-1, *self.shape[1:])

    def write(self, rows: slice, values: ArrayLike) -> None:
        """Packs and stores some rows, eagerly and once a process."""
        array = np.asarray(values, self.dtype).reshape(-1, self._row)
        if self._bits == 1:
            packed = np.packbits(array, axis=1, bitorder="little")
        else:
            missing = -self._row % 4
            array = np.pad(array, [(0, 0), (0, missing)]) if missing else array
            fours = np.ascontiguousarray(array).view("<u4") & 0x03030303
            packed = (fours | fours >> 6 | fours >> 12 | fours >> 18).astype(np.uint8)
        with self._writable() as weight:
            weight[rows] = packed


Table = TypeVar("Table", bound=ImageTable)


class KeepsTables(keras.layers.Layer):
    """A layer whose tables of images are saved and loaded in blocks of rows.

    In files they are what `ImageTable.read` yields, under the names that Keras gives to weights.
    """

    tables: tuple[ImageTable, ...] = ()

    def keep(self, table: Table) -> Table:
        """Takes note of a table and returns it."""
        self.tables = (*self.tables, table)
        return table

    def saved(self) -> dict[str, Any]:
        """Tables and other weights by the names under which they are saved."""
        found: dict[str, Any] = {}
        super().save_own_variables(found)
        tables = {id(table.weight): table for table in self.tables}
        return {name: tables.get(id(weight), weight) for name, weight in found.items()}

    def saved_tables(self) -> dict[str, Any]:
        """The tables by the names under which they are saved."""
        return {name: x for name, x in self.saved().items() if hasattr(x, "blocks")}

    def save_own_variables(self, store: Any) -> None:
        for name, weight in self.saved().items():
            if hasattr(weight, "blocks"):
                _save(store, name, weight, f"{self.name}/{name}")
            else:
                store[name] = weight

    def load_own_variables(self, store: Any) -> None:
        saved = self.saved()
        if set(store.keys()) != set(saved):
            raise ValueError(
                f"{self.name}: expected the weights {sorted(saved)}, found {sorted(store.keys())}"
            )
        for name, weight in saved.items():
            if hasattr(weight, "blocks"):
                group = h5_group(store)
                dataset = store[name] if group is None or name not in group else group[name]
                load_rows(weight, dataset, f"{self.name}/{name}")
            else:
                weight.assign(store[name])


def with_tables(layers: Iterable[keras.layers.Layer]) -> list[KeepsTables]:
    """Those of some layers that have tables."""
    return [layer for layer in layers if isinstance(layer, KeepsTables) and layer.tables]


def name_apart(layers: Iterable[keras.layers.Layer]) -> None:
    """Numbers the layers with tables that have one name: in workers' files a name is a place."""
    seen: dict[str, int] = {}
    for layer in with_tables(layers):
        number = seen[layer.name] = seen.get(layer.name, 0) + 1
        if number > 1:
            layer.name = f"{layer.name}_{number}"


def load_rows(table: Any, dataset: Any, name: str) -> None:
    """Fills a table from a file.

    Args:
        table: an `ImageTable`, or what has its shape, dtype, blocks and write.
        dataset: h5py.Dataset or array of the same shape and dtype.
        name: how messages call it.

    Raises:
        ValueError: where shape or dtype differ.
    """
    if tuple(dataset.shape) != tuple(table.shape) or dataset.dtype != np.dtype(table.dtype):
        raise ValueError(
            f"{name} holds {dataset.dtype} {tuple(dataset.shape)}, this model's is "
            f"{np.dtype(table.dtype)} {tuple(table.shape)}"
        )
    for rows in table.blocks():
        table.write(rows, dataset[rows])


def _save(store: Any, name: str, table: Any, place: str) -> None:
    group = h5_group(store)
    if group is None:
        store[name] = table.numpy()
        return
    dataset = group.create_dataset(name, table.shape, np.dtype(table.dtype))
    dataset.attrs["table"] = place
    if not _LEFT_OUT.get():
        write_rows(dataset, table)


def write_rows(dataset: h5py.Dataset, table: Any) -> None:
    """Writes a table into a dataset of its shape."""
    for rows in table.blocks():
        dataset[rows] = table.read(rows)


# Whether the rows of tables are left out where weights are saved.
_LEFT_OUT = contextvars.ContextVar("_LEFT_OUT", default=False)


@contextlib.contextmanager
def rows_left_out() -> Iterator[None]:
    """Weights saved inside have the places of tables, but not their rows."""
    token = _LEFT_OUT.set(True)
    try:
        yield
    finally:
        _LEFT_OUT.reset(token)
