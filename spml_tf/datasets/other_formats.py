"""Pictures that TensorFlow does not decode: Pillow reads them, and a bitmap takes their place."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from spml_tf.datasets.picture_limits import MAX_MEGAPIXELS, more_pixels, without_pillows_limit
from spml_tf.system.errors import reason_of

# What Pillow is asked to read: its many other plug-ins are not, as any of them may have faults.
FORMATS = ("WEBP", "TIFF", "AVIF")
# TIFF's tags.
_WIDTH, _HEIGHT = 256, 257
HEIC_REMEDY = "HEIC needs one more package: python -m pip install 'spml_tf[heic]'"


def _is_heic(contents: bytes) -> bool:
    return contents[4:8] == b"ftyp" and contents[8:12] not in (b"avif", b"avis")


def stored(contents: bytes) -> tuple[int, tuple[int, int]]:
    """EXIF orientation, 1 to 8, and (height, width) of the stored pixels of a WebP, TIFF or AVIF.

    HEIC files, which are turned by other data, count as upright.

    Raises:
        ValueError: the bytes are no such picture.
    """
    if _is_heic(contents):
        return 1, (1, 1)
    try:
        with (
            without_pillows_limit(),
            Image.open(io.BytesIO(contents), formats=FORMATS) as image,
        ):
            turn = image.getexif().get(0x0112, 1)
            width, height = image.size
            if isinstance(image, TiffImagePlugin.TiffImageFile):  # its size is that of the upright
                width, height = image.tag_v2[_WIDTH], image.tag_v2[_HEIGHT]
            return turn if turn in range(1, 9) else 1, (height, width)
    except Exception as error:  # Pillow's plug-ins raise anything about damaged files
        raise ValueError(str(error)) from None


def as_bitmap(contents: bytes, max_megapixels: float = MAX_MEGAPIXELS) -> bytes:
    """Decodes a WebP, TIFF, AVIF or HEIC file, and stores its first picture as a bitmap.

    Args:
        contents: the file's bytes.
        max_megapixels: the most pixels, in millions, that its header may tell of.

    Returns:
        A BMP file: the picture in RGB of 8 bits, upright, without its alpha channel.

    Raises:
        ValueError: the bytes are no such picture, or one that is larger; the text says which.

    Examples:
        >>> from PIL import Image
        >>> stream = io.BytesIO()
        >>> Image.new("RGB", (3, 2)).save(stream, "WEBP")
        >>> as_bitmap(stream.getvalue())[:2]
        b'BM'
    """
    formats: tuple[str, ...] = FORMATS
    if _is_heic(contents):
        try:
            import pillow_heif
        except ImportError:
            raise ValueError(HEIC_REMEDY) from None
        pillow_heif.register_heif_opener()
        formats = ("HEIF",)
    try:
        with (
            without_pillows_limit(),
            Image.open(io.BytesIO(contents), formats=formats) as image,
        ):
            if refused := more_pixels(*image.size, max_megapixels):
                raise ValueError(refused)
            seen: Image.Image = image
            if image.mode.startswith("I;16"):
                seen = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            elif image.mode in ("I", "F"):
                raise ValueError("its channel has 32 bits or is signed; convert it to 8 bits")
            picture, stream = ImageOps.exif_transpose(seen).convert("RGB"), io.BytesIO()
            picture.save(stream, "BMP")
            return stream.getvalue()
    except ValueError:
        raise
    except UnidentifiedImageError:
        raise ValueError("damaged, or of a kind that cannot be decoded") from None
    except Exception as error:  # Pillow's plug-ins raise anything about damaged files
        reason = reason_of(error, 100)
        raise ValueError(f"damaged, or of a kind that cannot be decoded ({reason})") from None
