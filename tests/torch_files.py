"""PyTorch's two file formats, written without PyTorch.

A pickle that names `torch.FloatStorage` and `torch._utils._rebuild_tensor_v2` is spelled in its
opcodes.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001


def pickled_tensor(key: str, length: int, offset: int, shape, strides) -> bytes:
    """Opcodes of one tensor on a persistent float storage."""
    storage = f"(Vstorage\nctorch\nFloatStorage\nV{key}\nVcpu\nI{length}\nNtQ"
    numbers = ["".join(f"I{n}\n" for n in values) for values in (shape, strides)]
    view = f"I{offset}\n({numbers[0]}t({numbers[1]}tI00\n)tR"
    return f"ctorch._utils\n_rebuild_tensor_v2\n({storage}{view}".encode()


def pickled_dict(tensors: dict[str, bytes]) -> bytes:
    items = b"".join(b"V" + name.encode() + b"\n" + value for name, value in tensors.items())
    return b"\x80\x02ccollections\nOrderedDict\n)R(" + items + b"u."


def write_legacy(path: Path, state: bytes, storages: dict[str, np.ndarray]) -> Path:
    header = [pickle.dumps(value, 2) for value in (MAGIC, VERSION, {"little_endian": True})]
    raw = [struct.pack("<q", v.size) + v.astype("<f4").tobytes() for v in storages.values()]
    path.write_bytes(b"".join([*header, state, pickle.dumps(list(storages), 2), *raw]))
    return path


def write_zip(path: Path, state: bytes, storages: dict[str, np.ndarray]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("saved/data.pkl", state)
        for key, values in storages.items():
            archive.writestr(f"saved/data/{key}", values.astype("<f4").tobytes())
    return path
