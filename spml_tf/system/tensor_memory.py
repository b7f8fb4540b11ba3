"""The memory behind tensors: seen as arrays without a copy, and laid into files."""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import sys
import tempfile
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from spml_tf.system.errors import UserError
from spml_tf.system.private_api import mapped_file

# Bytes from which a table is worth a file.
SMALLEST_MAPPED = 2**20


def array_of(tensor: tf.Tensor, writable: bool = False) -> NDArray[Any]:
    """The memory of a tensor on the CPU as an array, which keeps the tensor alive.

    Args:
        tensor: an eager one.
        writable: whether the array may be written to. Whoever else holds the tensor sees it.
    """
    array: NDArray[Any] = np.asarray(memoryview(tensor))
    if not writable or not array.size:
        return array

    return np.asarray(_Writable(tensor, array))


class _Writable:
    """What numpy makes an array of, which holds the tensor."""

    def __init__(self, tensor: tf.Tensor, array: NDArray[Any]) -> None:
        self.tensor = tensor
        self.__array_interface__ = {**array.__array_interface__, "data": (address(array), False)}


def address(array: NDArray[Any]) -> int:
    """Where an array's memory begins."""
    return int(array.__array_interface__["data"][0])


def mapped_zeros(shape: tuple[int, ...], dtype: str, directory: str) -> tf.Tensor:
    """A tensor of zeros whose memory is a file of a folder, which nobody else can open.

    The file has no name any more once this returns: its space is free as soon as the tensor is, or
    the process has ended in whatever way. The system writes pages out and reads them back as it
    needs memory for others.

    Args:
        shape: of at least one number.
        dtype: of numbers or bool.
        directory: the folder.

    Returns:
        A tensor that a `tf.Variable` takes over without a copy, and changes in place.

    Raises:
        UserError: the folder is missing, may not be written to, or has not enough space; or the
            system is not Linux.
    """
    if not sys.platform.startswith("linux"):
        raise UserError(f"bank_dir {directory}: memory in files needs Linux; leave bank_dir out")
    size = math.prod(shape) * tf.as_dtype(dtype).size
    try:
        file, path = tempfile.mkstemp(prefix="spml_tf-", dir=directory)
        try:
            # Space that is missing only when a page is written would end the process.
            os.posix_fallocate(file, 0, size)
            tensor = mapped_file(path, shape, dtype)
            _share(array_of(tensor), file, size)
        finally:
            os.unlink(path)
            os.close(file)
    except OSError as error:
        raise UserError(
            f"bank_dir {directory}: no file of {size / 1e9:.2f} GB can be made there "
            f"({error.strerror}); choose another folder"
        ) from None
    return tensor


def _share(array: NDArray[Any], file: int, size: int) -> None:
    """Makes a private read-only mapping of a file a shared one that can be written to.

    TensorFlow changes only memory of its own in place, and maps files for reading only.
    """
    start = address(array)
    # Never over memory of other use: that it is the file's shows in what is written to the file.
    os.pwrite(file, b"\1", size - 1)
    is_mapped = start % mmap.PAGESIZE == 0 and array.view(np.uint8).reshape(-1)[-1] == 1
    os.pwrite(file, b"\0", size - 1)
    if not is_mapped:
        raise RuntimeError("TensorFlow has changed tf.raw_ops.ImmutableConst: no file is mapped")
    system = ctypes.CDLL(None, use_errno=True)
    system.mmap.restype = ctypes.c_void_p
    system.mmap.argtypes = [
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
    ]  # fmt: skip
    fixed = 0x10
    found = system.mmap(
        start, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | fixed, file, 0
    )
    if found != start:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
