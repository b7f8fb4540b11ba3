"""Writes the images of splits as JPEG files or as TFRecord files, each with its index."""

from __future__ import annotations

import io
import os
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image

from spml_tf.datasets import encoded_images, stored_pixels
from spml_tf.datasets.readers import prepared
from spml_tf.datasets.readers.examples import Examples
from spml_tf.datasets.readers.prepared import RECORD_FRAME, ImageForm
from spml_tf.datasets.splits import Splits
from spml_tf.labels import POSITIVE
from spml_tf.system.errors import UserError
from spml_tf.system.files import replaced
from spml_tf.system.parallel import ordered_map
from spml_tf.system.progress import progress

# A TFRecord file is ended when it has this many bytes.
_SHARD_BYTES = 256 * 2**20
_NUMBERED = "_numbered"  # folder of images whose names cannot be files
_LONGEST_PART = 200  # bytes of a file's or a folder's name; file systems end at 255


def write_images(folder: Path, data: Splits, form: ImageForm, threads: int) -> None:
    """Writes all splits and their indices; files that are there already are kept.

    Args:
        folder: where to write; what is there was begun with the same data and form.
        data: the splits.
        form: how to write them, as "jpeg" or "tfrecord".
        threads: how many images are encoded at a time.

    Raises:
        UserError: an image cannot be decoded, or a TFRecord file not be written.
    """
    write = _write_jpegs if form.format == "jpeg" else _write_records
    with encoded_images.quiet_pillow():
        for split, part in data.parts.items():
            observed = data.observed if split == "train" else None
            part = stored_pixels.with_upright_boxes(part)
            encode = _encoder(part, form)
            files, numbers, offsets = write(folder, split, part, encode, threads)
            index = folder / f"{split}.npz"
            prepared.write_index(index, part, files, numbers, offsets, observed)


_Encode = Callable[[int], bytes]
_Places = tuple[list[str], list[int], list[int] | None]


def _encoder(examples: Examples, form: ImageForm) -> _Encode:
    """A function from an image's row to the bytes to write."""
    reader = encoded_images.ImageReader(examples)

    def encode(row: int) -> bytes:
        if examples.images is not None:
            return _encode_pixels(examples.images[row], form)
        try:
            contents = reader.contents(row)
            pixels = reader.decode(contents)
        except encoded_images.BrokenImageError as error:
            raise UserError(f"{reader.place(row)}: {error}; repair or remove it") from None
        if not form.short_side:
            return contents
        small = min(pixels.shape[:2]) <= form.short_side
        header = encoded_images.header(contents)
        if small and header.orientation == 1 and header.kind == "JPEG":
            return contents
        return _encode_pixels(pixels, form)

    return encode


def _encode_pixels(pixels: NDArray[np.uint8], form: ImageForm) -> bytes:
    """PNG in full size, or JPEG with the short side asked for."""
    picture, buffer = Image.fromarray(pixels), io.BytesIO()
    if not form.short_side:
        picture.save(buffer, "PNG")
        return buffer.getvalue()
    scale = form.short_side / min(picture.size)
    if scale < 1:
        size = [max(round(scale * side), 1) for side in picture.size]
        picture = picture.resize((size[0], size[1]), Image.Resampling.LANCZOS)
    picture.save(buffer, "JPEG", quality=form.jpeg_quality)
    return buffer.getvalue()


def _write_jpegs(
    folder: Path, split: str, examples: Examples, encode: _Encode, threads: int
) -> _Places:
    files = [f"images/{split}/{name}" for name in file_names(examples.names)]

    def write(row: int) -> None:
        path = folder / files[row]
        if path.exists():
            return
        contents = encode(row)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{row:08d}.part")
        temporary.write_bytes(contents)
        os.replace(temporary, path)

    rows = range(len(files))
    for _ in progress(ordered_map(write, rows, threads), len(files), f"{split} images"):
        pass
    return files, list(rows), None


def file_names(names: Sequence[str]) -> list[str]:
    """Names of JPEG files for images, with their folders.

    Args:
        names: N unique image names, which may be anything.

    Returns:
        N unique relative file names that end in .jpg: the image's own, with .jpg added where it
        ends otherwise; or a number, where that name leads elsewhere, is too long or taken.
    """
    taken: set[str] = set()
    folders: set[str] = set()
    files = []
    for row, name in enumerate(names):
        file = name if name.lower().endswith((".jpg", ".jpeg")) else f"{name}.jpg"
        # Some file systems do not tell upper from lower case; and no file is a folder as well.
        key = file.casefold()
        above = {str(parent) for parent in PurePosixPath(key).parents}
        if not _is_plain(file) or key in taken or key in folders or above & taken:
            file = key = f"{_NUMBERED}/{row:08d}.jpg"
            above = {_NUMBERED}
        taken.add(key)
        folders |= above
        files.append(file)
    return files


def _is_plain(file: str) -> bool:
    parts = file.split("/")
    return (
        file.isprintable()
        and "\\" not in file
        and parts[0].lower() != _NUMBERED
        and all(
            part not in ("", ".", "..") and len(part.encode("utf-8", "replace")) <= _LONGEST_PART
            for part in parts
        )
    )


def _write_records(
    folder: Path, split: str, examples: Examples, encode: _Encode, threads: int
) -> _Places:
    shards = [_record_offsets(path) for path in _finished_shards(folder, split)]
    done = sum(map(len, shards))

    def serialize(row: int) -> bytes:
        return _serialize(encode(row), examples.names[row], examples.labels[row])

    rows = range(done, len(examples))
    records = progress(ordered_map(serialize, rows, threads), len(rows), f"{split} images")
    while done < len(examples):
        path = folder / f"{split}-{len(shards):05d}.tfrecord"
        shards.append(_write_shard(path, records))
        done += len(shards[-1])
    files = [f"{split}-{number:05d}-of-{len(shards):05d}.tfrecord" for number in range(len(shards))]
    for path, name in zip(_finished_shards(folder, split), files, strict=True):
        path.rename(folder / name)
    numbers = [number for number, shard in enumerate(shards) for _ in shard]
    return files, numbers, [offset for shard in shards for offset in shard]


def _finished_shards(folder: Path, split: str) -> list[Path]:
    """The split's files, in order, those among them that have their final names."""
    pattern = re.compile(rf"{split}-\d{{5}}(-of-\d{{5}})?\.tfrecord")
    return sorted(path for path in folder.iterdir() if pattern.fullmatch(path.name))


def _record_offsets(path: Path) -> list[int]:
    """Where the records of a whole file begin."""
    offsets, size, offset = [], path.stat().st_size, 0
    with open(path, "rb") as file:
        while offset < size:
            file.seek(offset)
            offsets.append(offset)
            offset += RECORD_FRAME + struct.unpack("<Q", file.read(8))[0]
    return offsets


def _write_shard(path: Path, records: Iterator[bytes]) -> list[int]:
    """Writes records until the file is full; returns where each begins."""
    offsets, offset = [], 0
    try:
        with replaced(path) as temporary, tf.io.TFRecordWriter(str(temporary)) as writer:
            for record in records:
                writer.write(record)
                offsets.append(offset)
                offset += RECORD_FRAME + len(record)
                if offset >= _SHARD_BYTES:
                    break
    except tf.errors.OpError as error:
        raise UserError(f"{path}: cannot be written ({error.message})") from None
    return offsets


def _serialize(contents: bytes, name: str, labels: NDArray[np.int8]) -> bytes:
    positives = np.flatnonzero(labels == POSITIVE).tolist()
    features = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[contents])),
        "name": tf.train.Feature(bytes_list=tf.train.BytesList(value=[name.encode("utf-8")])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=positives)),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    serialized: bytes = example.SerializeToString(deterministic=True)
    return serialized
