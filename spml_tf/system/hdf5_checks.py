"""Looks through HDF5 files that may come from others, before anything of them is read.

An HDF5 file may hold the bytes of other files, by external storage, external links and virtual
datasets, and may declare numbers that it does not hold: one fill value stands for all of them.
"""

from __future__ import annotations

import fnmatch
import io
import math
import os
import zipfile
from typing import TYPE_CHECKING, Any, BinaryIO

from spml_tf.system.errors import UserError

if TYPE_CHECKING:
    import h5py

# The files of rows that several workers write beside a checkpoint.
ROWS = "*.rows.h5"
# So many times its own size a file may declare: weights hardly shrink when they are compressed.
_MOST_TIMES, _FREE_BYTES = 16, 2**20
_HEAP = b"GCOL\1\0\0\0"  # how a heap begins; its size follows
_MOST_OBJECTS = 100_000
_BLOCK = 2**24  # bytes that are looked through at a time
# What a .keras file holds, beside assets.
_WEIGHTS = "model.weights.h5"
_MEMBERS = ("config.json", "metadata.json", _WEIGHTS)
_ADVICE = "take it from where it was made, or do not use it"


def check_hdf5(path: str | os.PathLike[str], beside: str | None = None) -> None:
    """Refuses a file that reaches into other files, or declares more than it could hold.

    Only what describes the data is read. Allowed are groups and datasets of plain numbers and
    texts, each under one name or several; no soft links, external links, external storage or
    references. Together the datasets, and the attribute of the most texts, may declare 16 times the
    file's size, and 1 MiB.

    Args:
        path: an HDF5 file, or a ``.keras`` file, in which the weights are looked through. One that
            is missing or no such file passes: whoever reads it tells.
        beside: pattern of names of files in the same folder of which virtual datasets may be made,
            such as ``ROWS``; they are looked through too, and count with their sizes. None: no
            virtual datasets.

    Raises:
        UserError: naming the file, the place in it and what is refused.

    Examples:
        >>> import h5py, tempfile
        >>> path = f"{tempfile.mkdtemp()}/weights.h5"
        >>> with h5py.File(path, "w") as file:
        ...     _ = file.create_dataset("scores", (10**9,), "f4", fillvalue=0.5)
        >>> check_hdf5(path)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        spml_tf.system.errors.UserError: ...weights.h5: declares 4,000,000,000 bytes, ...
    """
    import h5py  # takes a while, and --help needs none

    name = os.fspath(path)
    opened = _weights_of_keras(name) if name.endswith(".keras") else name
    if opened is None:
        return
    try:
        file = h5py.File(opened, "r")
    except OSError:
        return
    with file:
        try:
            found = _Walk(name, beside, file)
        except UserError:
            raise
        except Exception as error:  # damaged files make h5py raise nearly anything
            raise UserError(f"{name}: cannot be read ({error}); {_ADVICE}") from None
    allowed = _FREE_BYTES
    for source in found.sources:
        check_hdf5(source)
        allowed += _MOST_TIMES * os.path.getsize(source)
    allowed += _MOST_TIMES * os.path.getsize(name)
    # Texts may all be the same one, which is then read as often.
    declared = found.declared + (found.texts and found.texts * _largest_heap(opened))
    if declared > allowed:
        raise UserError(f"{name}: declares {declared:,} bytes, far more than it holds; {_ADVICE}")


def _weights_of_keras(path: str) -> io.BytesIO | None:
    """The weights in a .keras file, None where there are none."""
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if member not in _MEMBERS and not member.startswith("assets"):
                    raise UserError(
                        f"{path}: holds {member[:80]!r}, which Keras does not write; {_ADVICE}"
                    )
            size = sum(member.file_size for member in archive.infolist())
            if size > _MOST_TIMES * os.path.getsize(path) + _FREE_BYTES:
                raise UserError(
                    f"{path}: unpacks to {size:,} bytes, far more than it holds; {_ADVICE}"
                )
            return io.BytesIO(archive.read(_WEIGHTS))
    except UserError:
        raise
    except Exception:  # a damaged archive makes zipfile raise nearly anything
        return None


def _largest_heap(opened: str | io.BytesIO) -> int:
    """Bytes of the largest of the heaps in which a file keeps texts of any length."""
    if isinstance(opened, io.BytesIO):
        opened.seek(0)
        return _largest_heap_in(opened)
    with open(opened, "rb") as file:
        return _largest_heap_in(file)


def _largest_heap_in(file: BinaryIO) -> int:
    head = len(_HEAP) + 8
    largest, content = 0, b""
    while block := file.read(_BLOCK):
        content = content[1 - head :] + block  # a heap may begin in one block and go on in the next
        place = content.find(_HEAP)
        while place >= 0:
            size = content[place + len(_HEAP) : place + head]
            largest = max(largest, int.from_bytes(size, "little"))
            place = content.find(_HEAP, place + 1)
    return largest


class _Walk:
    """What an open file declares, each object once.

    Attributes:
        declared: bytes of all datasets.
        texts: the most texts of any length in one attribute.
        sources: the files that virtual datasets are made of.
    """

    def __init__(self, path: str, beside: str | None, file: h5py.File) -> None:
        self._path = path
        self._beside = beside
        self.declared = 0
        self.texts = 0
        self.sources: set[str] = set()
        seen, pending = set(), [("/", file.id)]
        while pending:
            name, item = pending.pop()
            address = self._address(item)
            if address in seen:
                continue
            seen.add(address)
            if len(seen) > _MOST_OBJECTS:
                raise self._refused(name, f"more than {_MOST_OBJECTS:,} objects")
            self._check_attributes(name, item)
            pending += self._children(name, item)

    def _refused(self, name: str, what: str) -> UserError:
        return UserError(f"{self._path}: {name[:80]}: {what}, which is not read; {_ADVICE}")

    def _address(self, item: Any) -> Any:
        import h5py

        return h5py.h5o.get_info(item).addr

    def _children(self, name: str, item: Any) -> list[tuple[str, Any]]:
        import h5py

        if isinstance(item, h5py.h5d.DatasetID):
            self._check_dataset(name, item)
            return []
        if not isinstance(item, h5py.h5g.GroupID | h5py.h5f.FileID):
            return []
        group = h5py.h5g.open(item, b"/") if isinstance(item, h5py.h5f.FileID) else item
        if len(group) > _MOST_OBJECTS:
            raise self._refused(name, f"more than {_MOST_OBJECTS:,} objects")
        found = []
        for key in group:
            place = f"{name.rstrip('/')}/{key.decode('utf-8', 'replace')}"
            if group.links.get_info(key).type != h5py.h5l.TYPE_HARD:
                raise self._refused(place, "a link")
            found.append((place, h5py.h5o.open(group, key)))
        return found

    def _check_attributes(self, name: str, item: Any) -> None:
        import h5py

        for number in range(h5py.h5a.get_num_attrs(item)):
            attribute = h5py.h5a.open(item, index=number)
            kind = attribute.get_type()
            if not _refers(kind):
                continue
            if not isinstance(kind, h5py.h5t.TypeStringID):
                raise self._refused(name, "an attribute of references")
            self.texts = max(self.texts, math.prod(attribute.shape))

    def _check_dataset(self, name: str, dataset: Any) -> None:
        import h5py

        created = dataset.get_create_plist()
        if _refers(dataset.get_type()):
            raise self._refused(name, "a dataset of texts or references of any length")
        if created.get_layout() == h5py.h5d.VIRTUAL:
            for number in range(created.get_virtual_count()):
                self._check_source(name, created.get_virtual_filename(number))
        elif created.get_external_count():
            raise self._refused(name, "a dataset that lies in another file")
        self.declared += math.prod(dataset.shape) * dataset.get_type().get_size()

    def _check_source(self, name: str, source: str) -> None:
        if (
            self._beside is None
            or os.path.basename(source) != source
            or not fnmatch.fnmatchcase(source, self._beside)
        ):
            raise self._refused(name, "a virtual dataset of another file")
        path = os.path.join(os.path.dirname(self._path), source)
        if os.path.islink(path) or not os.path.isfile(path):
            raise UserError(f"{path}: missing; {self._path} holds a part of its data there")
        self.sources.add(path)


def _refers(kind: Any) -> bool:
    """Whether values of a type lie elsewhere in the file, or point to it."""
    import h5py

    if isinstance(kind, h5py.h5t.TypeCompoundID):
        return any(_refers(kind.get_member_type(i)) for i in range(kind.get_nmembers()))
    if isinstance(kind, h5py.h5t.TypeArrayID):
        return _refers(kind.get_super())
    if isinstance(kind, h5py.h5t.TypeStringID):
        return bool(kind.is_variable_str())
    return isinstance(kind, h5py.h5t.TypeVlenID | h5py.h5t.TypeReferenceID)
