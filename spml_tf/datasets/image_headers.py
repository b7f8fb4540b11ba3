"""What the header of a picture tells of its size and orientation, before anything is decoded.

A small file can hold a picture that fills the memory, and an animation any number of them. All of
this consists of TensorFlow's operations: it works in tf.data and in exported models, too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import tensorflow as tf

from spml_tf.datasets.picture_limits import more_pixels, too_large

_OfPart = Callable[[tf.Tensor], tf.Tensor]

# How extensions and frames of a GIF begin, and the flag of a table of colours.
_EXTENSION, _FRAME, _TABLE = 0x21, 0x2C, 0x80
# Its blocks up to the end of the first frame; most hold 255 bytes.
_MOST_BLOCKS = 100_000
_OF_EXTENSION = 100  # as many blocks an extension counts for; a few are usual
_PADDING = 1100  # more than what is read at a place, and than a table of colours
# Parts of a JPEG or PNG that are looked at for EXIF data, and entries of these; a few are usual.
_MOST_PARTS, _MOST_ENTRIES = 64, 256
# Most files have no EXIF data, which a search of their beginning tells sooner.
_SEARCHED, _EXIF_NAMES = 8192, r"\C*(Exif\x00\x00|eXIf)\C*"
_LARGEST_EXIF = 65536  # bytes, as many as a part of a JPEG can have
_ORIENTATION, _SHORT = 0x0112, 3  # the EXIF tag, and the type of its value


def is_png(contents: tf.Tensor) -> tf.Tensor:
    """Whether a file begins as a PNG does, bool ()."""
    return tf.strings.substr(contents, 0, 4) == b"\x89PNG"


def is_gif(contents: tf.Tensor) -> tf.Tensor:
    """Whether a file begins as a GIF does, bool ()."""
    return tf.strings.substr(contents, 0, 4) == b"GIF8"


def is_bmp(contents: tf.Tensor) -> tf.Tensor:
    """Whether a file begins as a bitmap does, bool ()."""
    return tf.strings.substr(contents, 0, 2) == b"BM"


def limited(contents: tf.Tensor, max_megapixels: float) -> tf.Tensor:
    """Returns a file's bytes where its header tells of no more pixels than allowed.

    Args:
        contents: scalar string with a JPEG, PNG, BMP or GIF file.
        max_megapixels: the most pixels, in millions.

    Returns:
        The same bytes; of a GIF those up to the end of its first frame.

    Raises:
        tf.errors.InvalidArgumentError: the picture is larger, its header is cut short, or it is of
            no known kind.
    """
    contents, sides = _measured(contents)
    height, width = tf.unstack(sides)
    shown = [tf.strings.as_string(width), " x ", tf.strings.as_string(height)]
    text = tf.strings.join([*shown, too_large(max_megapixels)])
    fits = tf.reduce_prod(tf.cast(sides, tf.float64)) <= max_megapixels * 1e6
    with tf.control_dependencies([tf.debugging.Assert(fits, [text])]):
        return tf.identity(contents)


def refusal(contents: bytes, max_megapixels: float) -> str | None:
    """Why `limited` refuses a file, in a few words.

    Args:
        contents: a file's bytes.
        max_megapixels: as for `limited`.

    Returns:
        None where its size is allowed, or cannot be told.

    Examples:
        >>> refusal(tf.io.encode_png(tf.zeros([2, 3, 3], tf.uint8)).numpy(), 5e-6)
        '3 x 2 pixels, more than --max_megapixels=5e-06'
    """
    try:
        height, width = size(tf.constant(contents)).numpy().tolist()
    except (tf.errors.OpError, ValueError):
        return None
    return more_pixels(width, height, max_megapixels)


def size(contents: tf.Tensor) -> tf.Tensor:
    """The height and width that a file's header tells, int64 [2].

    Of a GIF the larger sides of its canvas and its first frame.

    Args:
        contents: as for `limited`.

    Raises:
        tf.errors.InvalidArgumentError: the header is cut short, or of no known kind.
    """
    return _measured(contents)[1]


def _measured(contents: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The bytes to decode, and the height and width that they tell, int64 [2]."""

    def jpeg() -> tuple[tf.Tensor, tf.Tensor]:
        return contents, tf.cast(tf.io.extract_jpeg_shape(contents)[:2], tf.int64)

    def png() -> tuple[tf.Tensor, tf.Tensor]:
        sides = [_number(contents, 20, 4, "big"), _number(contents, 16, 4, "big")]
        return contents, tf.stack(sides)

    def bmp() -> tuple[tf.Tensor, tf.Tensor]:
        sides = tf.stack([_number(contents, 22, 4), _number(contents, 18, 4)])
        # Signed, of 32 bits: a picture stored from its top has a negative height.
        signed = tf.bitcast(tf.cast(sides, tf.uint32), tf.int32)
        return contents, tf.abs(tf.cast(signed, tf.int64))

    def gif() -> tuple[tf.Tensor, tf.Tensor]:
        canvas = tf.stack([_number(contents, 8, 2), _number(contents, 6, 2)])
        first, frame = _first_frame(contents)
        return first, tf.maximum(canvas, frame)

    def unknown() -> tuple[tf.Tensor, tf.Tensor]:
        known = tf.debugging.Assert(tf.constant(False), ["no JPEG, PNG, GIF or BMP image"])
        with tf.control_dependencies([known]):
            return contents, tf.zeros([2], tf.int64)

    found = unknown
    for test, read in ((is_bmp, bmp), (is_gif, gif), (is_png, png), (tf.io.is_jpeg, jpeg)):
        found = functools.partial(tf.cond, test(contents), read, found)
    whole, sides = found()
    return whole, tf.ensure_shape(sides, [2])


def orientation(contents: tf.Tensor) -> tf.Tensor:
    """The EXIF orientation of a JPEG or PNG, int32 () in 1 to 8.

    EXIF data count where the standards put them: before the tables of a JPEG, in the chunk eXIf
    before the pixels of a PNG; they begin in the first 8,192 bytes. What is malformed, or
    of another kind, counts as 1, upright.

    Args:
        contents: scalar string, a file's bytes; any bytes pass.

    Examples:
        >>> int(orientation(tf.io.encode_png(tf.zeros([2, 3, 3], tf.uint8))))
        1
    """
    return _orientation(contents)


def has_exif(contents: tf.Tensor) -> tf.Tensor:
    """Whether a file may have EXIF data, bool (); `orientation` is 1 where it has none."""
    head = tf.strings.substr(contents, 0, _SEARCHED)
    return tf.strings.regex_full_match(head, _EXIF_NAMES)


def _bytes(contents: tf.Tensor, at: tf.Tensor, count: int) -> tf.Tensor:
    """So many bytes at a place, int64 (), zeros behind the end: int64 [count]."""
    at = tf.minimum(at, tf.cast(tf.strings.length(contents), tf.int64))
    found = tf.strings.join([tf.strings.substr(contents, at, count), b"\0" * count])
    data = tf.io.decode_raw(tf.strings.substr(found, 0, count), tf.uint8)
    return tf.cast(tf.ensure_shape(data, [count]), tf.int64)


def _big(data: tf.Tensor) -> tf.Tensor:
    """The number of some bytes, the highest first."""
    return tf.reduce_sum(data * [1 << 8 * i for i in reversed(range(data.shape[0]))])


def _is_text(data: tf.Tensor, text: bytes) -> tf.Tensor:
    return tf.reduce_all(data == list(text))


def _walk(
    contents: tf.Tensor, start: int, count: int, goes_on: _OfPart, size: _OfPart
) -> tuple[tf.Tensor, tf.Tensor]:
    """From part to part of a file; the first `count` bytes of the last one, and its place."""

    def next_part(part: tf.Tensor, place: tf.Tensor) -> list[tf.Tensor]:
        place += size(part)
        return [_bytes(contents, place, count), place]

    first = tf.constant(start, tf.int64)
    part, place = tf.while_loop(
        lambda part, _: goes_on(part), next_part, [_bytes(contents, first, count), first],
        maximum_iterations=_MOST_PARTS,
    )  # fmt: skip
    return part, place


def _exif_in_jpeg(contents: tf.Tensor) -> tf.Tensor:
    """The place of the EXIF data, 0 where there are none."""

    def is_exif(part: tf.Tensor) -> tf.Tensor:
        return _is_text(part[:2], b"\xff\xe1") & _is_text(part[4:], b"Exif\0\0")

    def goes_on(part: tf.Tensor) -> tf.Tensor:
        # Application data and comments come first.
        other = ((part[1] >= 0xE0) & (part[1] <= 0xEF)) | (part[1] == 0xFE)
        return (part[0] == 0xFF) & other & ~is_exif(part)

    part, place = _walk(contents, 2, 10, goes_on, lambda part: 2 + _big(part[2:4]))
    return tf.where(is_exif(part), place + 10, 0)


def _exif_in_png(contents: tf.Tensor) -> tf.Tensor:
    """The place of the EXIF data, 0 where there are none."""

    def goes_on(part: tf.Tensor) -> tf.Tensor:
        return ~_is_text(part[4:], b"eXIf") & ~_is_text(part[4:], b"IDAT")

    part, place = _walk(contents, 8, 8, goes_on, lambda part: 12 + _big(part[:4]))
    return tf.where(_is_text(part[4:], b"eXIf"), place + 8, 0)


def _orientation_in_exif(exif: tf.Tensor) -> tf.Tensor:
    """The orientation that EXIF data name, int64; 1 where they name none."""
    start = _bytes(exif, tf.constant(0, tf.int64), 8)
    little = _is_text(start[:2], b"II")

    def number(data: tf.Tensor) -> tf.Tensor:
        return tf.where(little, _big(data[::-1]), _big(data))

    at = number(start[4:])
    count = tf.minimum(number(_bytes(exif, at, 2)), _MOST_ENTRIES)
    entries = tf.reshape(_bytes(exif, at + 2, 12 * _MOST_ENTRIES), [_MOST_ENTRIES, 12])
    low = tf.where(little, [0, 2, 8], [1, 3, 9])
    high = tf.where(little, [1, 3, 9], [0, 2, 8])
    columns = tf.gather(entries, low, axis=1) + 256 * tf.gather(entries, high, axis=1)
    tags, kinds, values = tf.unstack(columns, axis=1)
    meant = (tf.range(_MOST_ENTRIES, dtype=tf.int64) < count) & (tags == _ORIENTATION)
    meant &= (kinds == _SHORT) & (values >= 1) & (values <= 8)
    found = tf.reduce_max(tf.where(meant, values, 0))
    known = little | _is_text(start[:2], b"MM")
    return tf.where(known, tf.maximum(found, 1), 1)


def _read_orientation(contents: tf.Tensor) -> tf.Tensor:
    nowhere = functools.partial(tf.constant, 0, tf.int64)
    one = functools.partial(tf.constant, 1, tf.int64)
    is_jpeg = tf.strings.substr(contents, 0, 2) == b"\xff\xd8"

    def look() -> tf.Tensor:
        png = functools.partial(_exif_in_png, contents)
        otherwise = functools.partial(tf.cond, is_png(contents), png, nowhere)
        place = tf.cond(is_jpeg, functools.partial(_exif_in_jpeg, contents), otherwise)
        return tf.where(place < tf.cast(tf.strings.length(contents), tf.int64), place, 0)

    def read() -> tf.Tensor:
        return _orientation_in_exif(tf.strings.substr(contents, place, _LARGEST_EXIF))

    place = tf.cond(has_exif(contents), look, nowhere)
    return tf.cast(tf.cond(place > 0, read, one), tf.int32)


_orientation = tf.function(
    _read_orientation, input_signature=[tf.TensorSpec([], tf.string)], autograph=False
)


def _number(
    contents: tf.Tensor, at: tf.Tensor | int, count: int, order: str = "little"
) -> tf.Tensor:
    """An unsigned number of some bytes, int64 ()."""
    at = tf.minimum(at, tf.strings.length(contents))  # what lies behind the end is none
    data = tf.cast(tf.io.decode_raw(tf.strings.substr(contents, at, count), tf.uint8), tf.int64)
    data = tf.ensure_shape(data, [count])
    return _big(data if order == "big" else data[::-1])


def _read_first_frame(contents: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """A GIF up to the end of its first frame, and the frame's height and width, int64 [2].

    Decoders read all frames, whatever they return.
    """
    length = tf.strings.length(contents)
    # Zeros behind it end whatever runs over its end.
    data = tf.io.decode_raw(tf.strings.join([contents, b"\0" * _PADDING]), tf.uint8)
    data = tf.cast(data, tf.int32)

    def colours(flags: tf.Tensor) -> tf.Tensor:
        """Bytes of a table of colours that a byte of flags tells of."""
        there = tf.bitwise.bitwise_and(flags, _TABLE) > 0
        exponent = tf.bitwise.bitwise_and(flags, 7) + 1
        return tf.where(there, 3 * tf.bitwise.left_shift(1, exponent), 0)

    def behind_blocks(place: tf.Tensor, count: tf.Tensor) -> list[tf.Tensor]:
        """Skips blocks, each its length and as many bytes, and the one of length 0."""
        place, count = tf.while_loop(
            lambda place, count: (data[place] > 0) & (count < _MOST_BLOCKS),
            lambda place, count: [place + 1 + data[place], count + 1],
            [tf.minimum(place, length), count],
        )
        return [place + 1, count + _OF_EXTENSION]

    place, count = tf.while_loop(
        lambda place, count: (data[place] == _EXTENSION) & (count < _MOST_BLOCKS),
        lambda place, count: behind_blocks(place + 2, count),
        [tf.minimum(13 + colours(data[10]), length), tf.constant(0)],
    )
    framed = (data[place] == _FRAME) & (place + 10 <= length)
    # Its description, its colours and the size of its codes come before its blocks.
    end, count = behind_blocks(place + 11 + colours(data[place + 9]), count)
    few = tf.debugging.Assert(count < _MOST_BLOCKS, ["a GIF of too many blocks"])

    def sides() -> tf.Tensor:
        return tf.stack([_number(contents, place + 7, 2), _number(contents, place + 5, 2)])

    def cut() -> tf.Tensor:
        return tf.strings.join([tf.strings.substr(contents, 0, end), b";"])

    with tf.control_dependencies([few]):
        frame = tf.cond(framed, sides, lambda: tf.zeros([2], tf.int64))
        return tf.cond(framed & (end <= length), cut, lambda: contents), frame


# A graph, as eager loops take a hundred times as long.
_first_frame = tf.function(
    _read_first_frame, input_signature=[tf.TensorSpec([], tf.string)], autograph=False
)
