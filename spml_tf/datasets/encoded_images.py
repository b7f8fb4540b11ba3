"""The encoded images behind Examples, one at a time: their bytes, pixels, and what headers tell.

Bytes and pixels are read as training reads them, so that what passes here passes there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import warnings
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image

from spml_tf.datasets import dataset_elements, image_headers, other_formats
from spml_tf.datasets.images import decode_image
from spml_tf.datasets.picture_limits import MAX_MEGAPIXELS, without_pillows_limit
from spml_tf.datasets.readers.examples import Examples

# How a file begins, at which byte, and what it is.
_KINDS = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG", "PNG"),
    (0, b"GIF8", "GIF"),
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (8, b"WEBP", "WebP"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftyphev", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (4, b"ftypmsf1", "HEIC"),
    (0, b"\0\0\0\x0cjP", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL", "JPEG XL"),
    (0, b"8BPS", "Photoshop"),
)
_DECODED = ("JPEG", "PNG", "GIF", "BMP")
# These are decoded through Pillow.
OTHERS = ("TIFF", "WebP", "AVIF", "HEIC")
# What the last bytes of a whole file hold.
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND", "GIF": b";"}
_TAIL = 64
_PNG_ALPHA = (4, 6)  # colour types of PNG, with an alpha channel


class BrokenImageError(Exception):
    """An image that training could not decode; the text says why, in a few words."""


@dataclasses.dataclass(frozen=True)
class Header:
    """What is told by an image's header, as far as Pillow can read it.

    Attributes:
        kind: "JPEG", "PNG", "GIF", "BMP", or one of OTHERS.
        mode: Pillow's name of the pixels' form, such as "RGB", "L", "P" or "CMYK"; "" if unknown.
        orientation: EXIF's, 1 to 8; 1 where the pixels are upright or nothing is said.
        alpha: whether there is an alpha channel or a transparent colour.
        deep: whether it is a PNG of 16 bits.
        animated: whether there is more than one frame.
    """

    kind: str
    mode: str = ""
    orientation: int = 1
    alpha: bool = False
    deep: bool = False
    animated: bool = False


class ImageReader:
    """Reads the images of Examples one by one; safe to use from several threads.

    Args:
        examples: the images.
    """

    def __init__(self, examples: Examples) -> None:
        self._examples = examples

    def contents(self, row: int) -> bytes:
        """The encoded image.

        Args:
            row: position in the examples, which are files.

        Raises:
            BrokenImageError: where it cannot be read.
            ValueError: the examples are in memory.
        """
        paths, offsets = self._examples.paths, self._examples.offsets
        if paths is None:
            raise ValueError("the images are pixels in memory, which are not encoded")
        if offsets is None:
            try:
                with open(paths[row], "rb") as file:
                    return file.read()
            except OSError as error:
                raise BrokenImageError(f"cannot be read: {error.strerror}") from None
        try:
            record = dataset_elements.read_record(
                tf.constant(paths[row]), tf.constant(offsets[row])
            )
            return bytes(record.numpy())
        except (tf.errors.OpError, ValueError):
            raise BrokenImageError("its record is damaged") from None

    def place(self, row: int) -> str:
        """How messages call an image: by its file, and its name where files hold several."""
        examples = self._examples
        if examples.paths is None:
            return examples.names[row]
        if examples.offsets is None:
            return examples.paths[row]
        return f"{examples.paths[row]} ({examples.names[row]})"

    def pixels(self, row: int) -> NDArray[np.uint8]:
        """uint8 [H, W, 3], RGB, as training sees it.

        Raises:
            BrokenImageError: where it cannot be read or decoded.
        """
        if self._examples.images is not None:
            pixels: NDArray[np.uint8] = self._examples.images[row]
            return pixels
        return self.decode(self.contents(row))

    def decode(self, contents: bytes) -> NDArray[np.uint8]:
        """`decode` with the limit of these examples."""
        return decode(contents, self._examples.max_megapixels)


def decode(contents: bytes, max_megapixels: float = MAX_MEGAPIXELS) -> NDArray[np.uint8]:
    """Decodes as training does.

    Args:
        contents: an encoded image.
        max_megapixels: the most pixels, in millions, that its header may tell of.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        BrokenImageError: where training would stop.
    """
    if not contents:
        raise BrokenImageError("empty, 0 bytes")
    found = kind(contents)
    if found is None:
        raise BrokenImageError("not an image")
    if found in OTHERS:
        try:
            contents, found = other_formats.as_bitmap(contents, max_megapixels), "BMP"
        except ValueError as error:
            raise BrokenImageError(str(error)) from None
    if found not in _DECODED:
        raise BrokenImageError(f"{found} cannot be decoded, convert it to JPEG or PNG")
    if refused := image_headers.refusal(contents, max_megapixels):
        raise BrokenImageError(refused)
    try:
        pixels: NDArray[np.uint8] = decode_image(tf.constant(contents), max_megapixels).numpy()
    except (tf.errors.OpError, ValueError):
        raise BrokenImageError(_reason(contents, found)) from None
    return pixels


def kind(contents: bytes) -> str | None:
    """The format by the first bytes, whatever the file is called; None if it is no known one."""
    for place, start, name in _KINDS:
        if contents[place : place + len(start)] == start:
            return name
    return None


def _reason(contents: bytes, found: str) -> str:
    if found == "BMP":
        cut = len(contents) < max(int.from_bytes(contents[2:6], "little"), 54)
    else:
        cut = _ENDS[found] not in contents[-_TAIL:]
    if cut:
        return "truncated"
    return f"damaged, or a kind of {found} that cannot be decoded"


@contextlib.contextmanager
def quiet_pillow() -> Iterator[None]:
    """Keeps Pillow from warning about large or odd images inside the block, in all threads."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def header(contents: bytes) -> Header:
    """What the header tells; call it inside `quiet_pillow`.

    Args:
        contents: an image that can be decoded.

    Returns:
        The Header; only its kind where Pillow cannot read it.
    """
    found = kind(contents) or ""
    try:
        with without_pillows_limit(), Image.open(io.BytesIO(contents)) as image:
            png = found == "PNG" and contents[12:16] == b"IHDR"
            return Header(
                found,
                image.mode,
                int(image_headers.orientation(tf.constant(contents))),
                (png and contents[25] in _PNG_ALPHA) or "transparency" in image.info,
                png and contents[24] == 16,
                bool(getattr(image, "is_animated", False)) and found in ("GIF", "PNG"),
            )
    except Exception:  # Pillow's many plug-ins raise anything, and this is for notes only
        return Header(found)
