"""Reads the tensors of a PyTorch checkpoint without PyTorch and without executing its code.

A checkpoint is a pickle, a list of instructions that may name any function to be called. Those run
here make a few kinds of values only, and know three names: PyTorch's tensor constructor (replaced
by a description of the tensor), its storage types and `collections.OrderedDict`. What a file
announces is compared with what it holds before memory is set aside for it.
"""

from __future__ import annotations

import io
import math
import mmap
import os
import pickletools
import zipfile
from dataclasses import dataclass
from typing import Any

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
# Limits of the pickle: 30 instructions and 300 bytes a tensor are usual.
_MOST_INSTRUCTIONS = 1_000_000
_LONGEST_PICKLE = 2**26
# Tensors may share a storage, as tied weights do: so many times its size all of them, at most.
_MOST_SHARED = 4
_MOST_NUMBERS = 1 + 2 * 32  # of a tensor: its offset, and shape and strides of an array


class _UnreadableError(Exception):
    """What is wrong with a file, in a few words."""


@dataclass(frozen=True)
class _Storage:
    """A run of numbers in the file: its key, type and length."""

    key: str
    dtype: str
    length: int

    @property
    def nbytes(self) -> int:
        return self.length * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage, in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def read(self, values: NDArray[Any]) -> NDArray[Any]:
        """Returns the view of the storage's values [n] as an array of its own."""
        size = math.prod(self.shape)
        if size == 0:
            return np.zeros(self.shape, values.dtype)
        # A view that leaves its storage would read other memory of the process, and one larger
        # than its storage (all strides 0) could fill the memory.
        last = sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
        if self.offset + last >= len(values) or size > len(values):
            raise _UnreadableError("a tensor lies outside its storage")
        strides = [step * values.itemsize for step in self.strides]
        return np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, strides).copy()


@dataclass(frozen=True)
class _Allowed:
    """A stand-in for something that a pickle may name."""

    name: str


_ORDERED_DICT, _TENSOR = _Allowed("OrderedDict"), _Allowed("tensor")
_NAMES = {
    "collections OrderedDict": _ORDERED_DICT,
    "torch._utils _rebuild_tensor_v2": _TENSOR,
    **{f"torch {name}": _Allowed(name) for name in _STORAGE_DTYPES},
}
_VALUES = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NUMBERS_AND_TEXTS = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING "
    "UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8".split()
)
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _TensorMachine:
    """Runs the instructions of a pickle that make tensors, dicts, lists, numbers and texts.

    Python's own unpickler sets memory aside for what a pickle announces, be it not there; here what
    is made takes no more than the instructions themselves, times a constant.
    """

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # the stacks that marks have put aside
        self._memo: dict[int, Any] = {}

    def run(self, file: Any) -> Any:
        """Returns what the pickle at a file's position makes, and leaves the file at its end.

        Args:
            file: in memory, where a text announced too long is cut: an `io.BytesIO` or `mmap.mmap`.
        """
        end = file.tell() + _LONGEST_PICKLE
        for number, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if number >= _MOST_INSTRUCTIONS or file.tell() > end:
                raise _UnreadableError("its list of tensors is too long")
            if opcode.name == "STOP":
                return self._stack.pop()
            self._step(opcode.name, argument)
        raise _UnreadableError("it ends too early")

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _NUMBERS_AND_TEXTS:
            stack.append(argument)
        elif name in _VALUES:
            stack.append(_VALUES[name])
        elif name in _TUPLES:
            first = len(stack) - _TUPLES[name]
            stack[first:] = [tuple(stack[first:])]
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif name == "MARK":
            self._below.append(stack)
            self._stack = []
        elif name == "TUPLE":
            marked = tuple(self._marked())
            self._stack.append(marked)
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "APPEND":
            self._append([stack.pop()])
        elif name == "APPENDS":
            self._append(self._marked())
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            self._set_items([key, value])
        elif name == "SETITEMS":
            self._set_items(self._marked())
        elif name == "GLOBAL":
            stack.append(_allowed(argument))
        elif name == "STACK_GLOBAL":
            word, module = stack.pop(), stack.pop()
            stack.append(_allowed(f"{module} {word}"))
        elif name == "BINPERSID":
            stack.append(_storage(stack.pop()))
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(_called(function, arguments))
        elif name == "BUILD":
            stack.pop()  # attributes of a dict, such as _metadata, tell nothing of tensors
        elif name not in ("PROTO", "FRAME"):
            raise _UnreadableError(f"it holds {name}, which no tensor needs")

    def _marked(self) -> list[Any]:
        marked, self._stack = self._stack, self._below.pop()
        return marked

    def _append(self, values: list[Any]) -> None:
        if not isinstance(self._stack[-1], list):
            raise _UnreadableError("it appends to what is no list")
        self._stack[-1].extend(values)

    def _set_items(self, pairs: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict) or len(pairs) % 2:
            raise _UnreadableError("it names something in what is no dict")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, str | int):
                raise _UnreadableError("a dict has a key that is no text")
            target[key] = value


def _allowed(name: str) -> _Allowed:
    """Returns the stand-in of an allowed name, "module name"; refuses every other one."""
    if name not in _NAMES:
        raise _UnreadableError(f"it refers to {name.replace(' ', '.')[:80]}, which is no tensor")
    return _NAMES[name]


def _storage(pid: Any) -> _Storage:
    """Returns the storage a persistent id ("storage", type, key, device, length, ...) names."""
    kind, storage_type, key, _, length, *_ = pid
    if kind != "storage" or not isinstance(storage_type, _Allowed):
        raise _UnreadableError("it refers to something that is not a storage")
    if not isinstance(key, str) or not isinstance(length, int) or length < 0:
        raise _UnreadableError("a storage has no key or no length")
    return _Storage(key, _STORAGE_DTYPES[storage_type.name], length)


def _called(function: Any, arguments: Any) -> Any:
    """Returns what a call of one of the two functions there are makes."""
    if function is _ORDERED_DICT and arguments == ():
        return {}
    if function is not _TENSOR:
        raise _UnreadableError("it calls what makes no tensor")
    storage, offset, shape, strides, *_ = arguments
    if not isinstance(storage, _Storage):
        raise _UnreadableError("a tensor is not made of a storage")
    if not (isinstance(shape, tuple) and isinstance(strides, tuple)):
        raise _UnreadableError("a tensor's shape is no tuple")
    numbers = (offset, *shape, *strides)
    if len(numbers) > _MOST_NUMBERS or not all(isinstance(x, int) for x in numbers):
        raise _UnreadableError("a tensor's shape is not one of numbers")
    if not all(0 <= x < 2**63 for x in numbers):
        raise _UnreadableError("a tensor has a negative size")
    return _Tensor(storage, offset, shape, strides)


def read_torch_tensors(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Reads a state dict saved by ``torch.save``, in its old or its zip format.

    Args:
        path: a ``.pth`` file that holds one dict from names to tensors.

    Returns:
        Name -> array of the tensor's own shape and type. What a file makes a process set aside is
        at most five times the file's size, and 1 GB for the list of tensors.

    Raises:
        UserError: naming the file, if it is missing, damaged, its pickle asks for anything but
            tensors (which is then not executed), its list of tensors is longer than 64 MiB or a
            million instructions, or the sizes that it announces are not those that it holds.
            Compressed archives, which ``torch.save`` does not write, are refused.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise UserError(f"{path}: no such file; pass a PyTorch state dict")
    try:
        state, storages = _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)
        tensors = {name: x for name, x in state.items() if isinstance(x, _Tensor)}
        wanted = sum(math.prod(x.shape) * np.dtype(x.storage.dtype).itemsize
                     for x in tensors.values())  # fmt: skip
        if wanted > _MOST_SHARED * sum(values.nbytes for values in storages.values()):
            raise _UnreadableError("its tensors are larger than what it holds")
        return {name: x.read(storages[x.storage.key]) for name, x in tensors.items()}
    except Exception as error:  # a damaged file makes its readers raise nearly anything
        known = isinstance(error, _UnreadableError)
        reason = str(error) if known else f"{type(error).__name__}: {error}"
        raise UserError(
            f"{path}: not a plain PyTorch state dict ({reason}); "
            "save it again with torch.save(model.state_dict(), path)"
        ) from error


def _read_legacy(path: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Reads the old format: magic, version, system, object, storage keys, then the storages."""
    with (
        open(path, "rb") as opened,
        mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as file,
    ):
        if _TensorMachine().run(file) != _LEGACY_MAGIC:
            raise _UnreadableError("it does not start with PyTorch's magic number")
        _TensorMachine().run(file)  # the protocol's version
        if not _TensorMachine().run(file).get("little_endian", True):
            raise _UnreadableError("it was written on a big-endian machine")
        state, keys = _state(_TensorMachine().run(file)), _TensorMachine().run(file)
        used = _storages(state)
        return state, {key: _read_storage(file, used[key]) for key in keys}


def _state(loaded: Any) -> dict[str, Any]:
    """Returns the state dict if it is one."""
    if not isinstance(loaded, dict):
        raise _UnreadableError("it holds no dict")
    return loaded


def _storages(state: dict[str, Any]) -> dict[str, _Storage]:
    """Returns the storages the tensors use, each once, by their keys."""
    found: dict[str, _Storage] = {}
    for tensor in state.values():
        if isinstance(tensor, _Tensor):
            storage = tensor.storage
            if found.setdefault(storage.key, storage) != storage:
                raise _UnreadableError("two storages have one key")
    return found


def _read_storage(file: mmap.mmap, storage: _Storage) -> NDArray[Any]:
    """Reads one storage of the old format: its length as int64, then its numbers."""
    length = int.from_bytes(file.read(8), "little", signed=True)
    size = storage.nbytes
    if length != storage.length:
        raise _UnreadableError("a storage is not as long as it says")
    if size > file.size() - file.tell():
        raise _UnreadableError("it ends too early")
    return np.frombuffer(file.read(size), storage.dtype)


def _read_zip(path: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Reads the zip format: NAME/data.pkl beside NAME/data/KEY with the raw numbers."""
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: member for member in archive.infolist()}
        if any(x.compress_type != zipfile.ZIP_STORED for x in members.values()):
            raise _UnreadableError("it is compressed")
        if sum(x.file_size for x in members.values()) > os.path.getsize(path):
            raise _UnreadableError("its parts are larger than the file")
        entry = next(name for name in members if name.endswith("/data.pkl"))
        folder = entry.removesuffix(".pkl")
        if members[entry].file_size > _LONGEST_PICKLE:
            raise _UnreadableError("its list of tensors is too long")
        state = _state(_TensorMachine().run(io.BytesIO(archive.read(entry))))
        storages = {}
        for key, storage in _storages(state).items():
            member = members[f"{folder}/{key}"]
            if member.file_size != storage.nbytes:
                raise _UnreadableError("a storage is not as long as it says")
            storages[key] = np.frombuffer(archive.read(member), storage.dtype)
    return state, storages
