"""Looks through the images of a data set for those that training would stumble over."""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spml_tf.datasets import encoded_images
from spml_tf.datasets.encoded_images import BrokenImageError, Header
from spml_tf.datasets.readers.examples import Examples
from spml_tf.datasets.readers.photos import KINDS
from spml_tf.system.files import replaced_unless_edited, write_csv
from spml_tf.system.parallel import ordered_map
from spml_tf.system.progress import progress

# Networks shrink an image 32 times.
_SMALLEST_SIDE = 32
# Perceptual hashes have 64 bits. Copies that were resized or compressed anew differ in few of them;
# a photo with few bits set is nearly of one colour, and like all such photos.
_NEAR, _FEW_BITS = 4, 16
_HASHED_SIDE = 256  # pixels; larger photos are reduced before
DUPLICATES_REMEDY = (
    "photos that are nearly the same are not looked for, only identical files; for these too: "
    "python -m pip install 'spml_tf[duplicates]'"
)
# Frequent and harmless: told as a count.
GRAY = "gray, converted to RGB"
PALETTE = "has a palette, converted to RGB"
ALPHA = "its alpha channel is dropped"
COUNTED = (GRAY, PALETTE, ALPHA)


@dataclasses.dataclass(frozen=True, order=True)
class Finding:
    """Something about one image.

    Attributes:
        image: its file, and its name where a file holds several.
        split: "train", "val" or "test"; an image of several has a finding of each.
        level: "error" where training would stop, "note" where the image is treated.
        message: what it is.
    """

    image: str
    split: str
    level: str
    message: str


@dataclasses.dataclass(frozen=True)
class Report:
    """What a check found.

    Attributes:
        images: how many images were decoded.
        findings: sorted by image.
    """

    images: int
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> list[Finding]:
        """The images that training would stop on."""
        return [finding for finding in self.findings if finding.level == "error"]


@dataclasses.dataclass(frozen=True)
class _Image:
    """One image's findings, the SHA-256 of its bytes, and the perceptual hash of its pixels.

    The hashes are None where it cannot be read or says nothing.
    """

    place: str
    split: str
    digest: bytes | None
    hash: int | None
    errors: tuple[str, ...]
    notes: tuple[str, ...]


def check(parts: Mapping[str, Examples], threads: int) -> Report:
    """Decodes every image as training does.

    Args:
        parts: the splits by the names train, val and test; images in memory pass.
        threads: how many images are read at a time.

    Returns:
        The Report. A file that several splits or names share is decoded once for each split. Photos
        that are nearly the same in training and elsewhere are noted where `finds_similar()`.
    """
    readers = {split: encoded_images.ImageReader(part) for split, part in parts.items()}
    rows = [
        (split, row)
        for split, part in parts.items()
        if part.paths is not None
        for row in range(len(part))
    ]

    def look(item: tuple[str, int]) -> _Image:
        split, row = item
        return _look(readers[split], parts[split], split, row)

    with encoded_images.quiet_pillow():
        results = list(progress(ordered_map(look, rows, threads), len(rows), "checked"))
    noted = [*_duplicates(results), *_similar(results)]
    findings = [
        Finding(image.place, image.split, level, message)
        for image in results
        for level, messages in (("error", image.errors), ("note", image.notes))
        for message in messages
    ]
    return Report(len(rows), tuple(sorted([*findings, *noted])))


def _look(reader: encoded_images.ImageReader, examples: Examples, split: str, row: int) -> _Image:
    place, digest = reader.place(row), None
    try:
        contents = reader.contents(row)
        digest = hashlib.sha256(contents).digest()
        pixels = reader.decode(contents)
    except BrokenImageError as error:
        return _Image(place, split, digest, None, (str(error),), ())
    height, width = pixels.shape[:2]
    separate = examples.paths if examples.offsets is None else None
    name = (separate or examples.names)[row]
    notes = [*_notes(name, encoded_images.header(contents))]
    if min(height, width) < _SMALLEST_SIDE:
        notes.append(f"small, {width} x {height} pixels")
    return _Image(place, split, digest, _perceptual_hash(pixels), (), tuple(notes))


@functools.cache
def finds_similar() -> bool:
    """Whether the library is there that `check` needs to find photos that are nearly the same."""
    return importlib.util.find_spec("imagehash") is not None


def _perceptual_hash(pixels: NDArray[np.uint8]) -> int | None:
    if not finds_similar():
        return None
    import imagehash

    picture = Image.fromarray(pixels)
    picture = picture.reduce(max(1, min(picture.size) // _HASHED_SIDE))
    number = int(str(imagehash.phash(picture)), 16)
    return number if _FEW_BITS <= number.bit_count() <= 64 - _FEW_BITS else None


def _notes(name: str, header: Header) -> Iterator[str]:
    """How an image that can be decoded is treated."""
    suffix = os.path.splitext(name)[1].lower()
    if KINDS.get(suffix, header.kind) != header.kind:
        yield f"its suffix is {suffix}, but it is a {header.kind} image: read as what it is"
    if header.kind in encoded_images.OTHERS:
        yield (
            f"{header.kind}, decoded through Pillow, which takes longer; "
            "`data prepare --format=jpeg` converts it"
        )
    if header.deep:
        yield "16 bits per channel, reduced to 8"
    if header.mode == "CMYK":
        yield "CMYK, converted to RGB"
    if header.animated:
        yield "animated, only its first frame is used"
    if header.orientation != 1:
        yield f"EXIF orientation {header.orientation}: turned upright"
    if header.kind == "BMP" and header.mode == "P":
        yield "its palette is ignored, palette numbers are read as gray: convert it to PNG"
    elif header.kind == "PNG" and header.mode in ("P", "PA"):
        yield PALETTE
    elif header.mode in ("1", "L", "LA", "I", "I;16", "I;16B"):
        yield GRAY
    if header.alpha and header.kind != "GIF":
        yield ALPHA


def _duplicates(images: Sequence[_Image]) -> Iterator[Finding]:
    """Notes on images whose bytes another one has: of training elsewhere, or of the same split."""
    groups = collections.defaultdict(list)
    for image in images:
        if image.digest is not None:
            groups[image.digest].append(image)
    for group in groups.values():
        first: dict[str, _Image] = {}
        for image in group:
            twin = first.get(image.split) or first.get("train")
            if twin:
                message = f"identical to {twin.place} in {twin.split}"
                if twin.split != image.split:
                    message += f", but in {image.split}: not an independent test"
                yield Finding(image.place, image.split, "note", message)
            first.setdefault(image.split, image)


def _similar(images: Sequence[_Image]) -> Iterator[Finding]:
    """Notes on images of validation or test that look like one of training; its bytes differ."""
    hashed = [image for image in images if image.hash is not None]
    train = [image for image in hashed if image.split == "train"]
    others = [image for image in hashed if image.split != "train"]
    if not train:
        return
    known = np.array([image.hash for image in train], np.uint64)
    for image in others:
        differing = np.bitwise_count(known ^ np.uint64(image.hash or 0))
        twin = train[int(differing.argmin())]
        if differing.min() <= _NEAR and twin.digest != image.digest:
            message = (
                f"looks like {twin.place} in train ({differing.min()} of 64 bits of their "
                f"perceptual hashes differ), but in {image.split}: not an independent test"
            )
            yield Finding(image.place, image.split, "note", message)


def write_findings(path: Path, findings: Sequence[Finding]) -> None:
    """Writes image,split,level,message in one step."""
    header = [field.name for field in dataclasses.fields(Finding)]
    write_csv(
        path, header, map(dataclasses.astuple, findings), errors="backslashreplace",
        into=replaced_unless_edited,
    )  # fmt: skip
