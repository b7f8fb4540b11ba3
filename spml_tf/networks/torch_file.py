"""Reads the tensors of a PyTorch checkpoint without PyTorch and without executing its code.

A checkpoint is a pickle, and a pickle may name any function to be called. The unpickler here
knows three things only: PyTorch's tensor constructor (replaced by a description of the tensor),
its storage types (replaced by their names) and `collections.OrderedDict`.
"""

from __future__ import annotations

import math
import os
import pickle
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from spml_tf.system.errors import UserError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_STORAGE_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


@dataclass(frozen=True)
class _Storage:
    """A run of numbers in the file: its key, type and length."""

    key: str
    dtype: str
    length: int


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage, in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def read(self, values: NDArray[Any]) -> NDArray[Any]:
        """Returns the view of the storage's values [n] as an array of its own."""
        if min((0, self.offset, *self.shape, *self.strides)) < 0:
            raise pickle.UnpicklingError("a tensor has a negative size")
        size = math.prod(self.shape)
        if size == 0:
            return np.zeros(self.shape, values.dtype)
        # A view that leaves its storage would read other memory of the process, and one larger
        # than its storage (all strides 0) could fill the memory.
        last = sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
        if self.offset + last >= len(values) or size > len(values):
            raise pickle.UnpicklingError("a tensor lies outside its storage")
        strides = [step * values.itemsize for step in self.strides]
        return np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, strides).copy()


class _TensorUnpickler(pickle.Unpickler):
    """An unpickler that can make descriptions of tensors and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Returns the stand-in of an allowed name; refuses every other one."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            # A new function each time: a pickle can set attributes on what it is given.
            return lambda storage, offset, shape, strides, *_: _Tensor(
                _checked_storage(storage), offset, tuple(shape), tuple(strides)
            )
        if module == "torch" and name in _STORAGE_DTYPES:
            return name
        raise pickle.UnpicklingError(f"it refers to {module}.{name}, which is not a tensor")

    def persistent_load(self, pid: Any) -> _Storage:
        """Returns the storage a persistent id ("storage", type, key, device, length, ...) names."""
        kind, storage_type, key, _, length, *_ = pid
        if kind != "storage" or storage_type not in _STORAGE_DTYPES:
            raise pickle.UnpicklingError("it refers to something that is not a storage")
        return _Storage(str(key), _STORAGE_DTYPES[storage_type], int(length))


def read_torch_tensors(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Reads a state dict saved by ``torch.save``, in its old or its zip format.

    Args:
        path: a ``.pth`` file that holds one dict from names to tensors.

    Returns:
        Name -> array of the tensor's own shape and type.

    Raises:
        UserError: naming the file, if it is missing, damaged, or its pickle asks for anything but
            tensors (which is then not executed).
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise UserError(f"{path}: no such file; pass a PyTorch state dict")
    try:
        tensors, storages = _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)
        return {
            name: tensor.read(storages[tensor.storage.key])
            for name, tensor in tensors.items()
            if isinstance(tensor, _Tensor)
        }
    except Exception as error:  # a damaged pickle makes the unpickler raise nearly anything
        raise UserError(
            f"{path}: not a plain PyTorch state dict ({type(error).__name__}: {error}); "
            "save it again with torch.save(model.state_dict(), path)"
        ) from error


def _read_legacy(path: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Reads the old format: magic, version, system, object, storage keys, then the storages."""
    with open(path, "rb") as file:
        if _TensorUnpickler(file).load() != _LEGACY_MAGIC:
            raise pickle.UnpicklingError("it does not start with PyTorch's magic number")
        _TensorUnpickler(file).load()  # the protocol's version
        if not _TensorUnpickler(file).load().get("little_endian", True):
            raise pickle.UnpicklingError("it was written on a big-endian machine")
        tensors = dict(_TensorUnpickler(file).load())
        keys = _TensorUnpickler(file).load()
        return tensors, {key: _read_storage(file, dtypes) for key, dtypes in _typed(keys, tensors)}


def _typed(keys: list[str], tensors: dict[str, Any]) -> list[tuple[str, str]]:
    """Pairs the storage keys, in the file's order, with their types."""
    dtypes = {t.storage.key: t.storage.dtype for t in tensors.values() if isinstance(t, _Tensor)}
    return [(key, dtypes[key]) for key in keys]


def _read_storage(file: BinaryIO, dtype: str) -> NDArray[Any]:
    """Reads one storage of the old format: its length as int64, then its numbers."""
    length = int.from_bytes(file.read(8), "little", signed=True)
    values = np.fromfile(file, dtype, length)
    if length < 0 or len(values) != length:
        raise pickle.UnpicklingError("it ends too early")
    return values


def _read_zip(path: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Reads the zip format: NAME/data.pkl beside NAME/data/KEY with the raw numbers."""
    with zipfile.ZipFile(path) as archive:
        entry = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        folder = entry.removesuffix(".pkl")
        with archive.open(entry) as file:
            tensors = dict(_TensorUnpickler(file).load())
        storages = {
            key: np.frombuffer(archive.read(f"{folder}/{key}"), dtype)
            for key, dtype in _typed(_storage_keys(tensors), tensors)
        }
    return tensors, storages


def _storage_keys(tensors: dict[str, Any]) -> list[str]:
    """Returns the keys of the storages the tensors use, each once."""
    return list(dict.fromkeys(t.storage.key for t in tensors.values() if isinstance(t, _Tensor)))


def _checked_storage(storage: Any) -> _Storage:
    """Returns the storage if it is one."""
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor is not made of a storage")
    return storage
