"""The embedded data set: scenes of handwritten digits, generated in a few seconds.

Each scene is a 64x64 photo-like picture with one to four different digits from scikit-learn's
`load_digits` (1,797 images of 8x8 pixels). Everything follows from the seed. Random numbers come
from `RandomState`, whose sequences NumPy has frozen, and pictures are composed of integers, so that
the same seed gives the same bytes with other releases and on other machines.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from spml_tf.datasets.readers import DEFAULT_SEED
from spml_tf.datasets.readers.examples import Examples
from spml_tf.datasets.readers.split_names import check_split
from spml_tf.system.errors import UserError

CLASS_NAMES = tuple("0123456789")
SPLITS = {"train": 4000, "val": 1000, "test": 1000}
IMAGE_SIZE = 64
# The longer side of a pasted digit, in pixels, both ends included.
DIGIT_SIZES = (12, 30)
MAX_DIGITS = 4

# Within scikit-learn's folder of data sets: a digit's 64 pixels in 0..16 and its class in each row.
_FILE = Path("data", "digits.csv.gz")
# Shares of the source digits; the rest are the test scenes'.
_SOURCE_SHARES = {"train": 4 / 6, "val": 1 / 6}
# Each class is drawn with this many times the weight of the class before it.
_SKEW = 0.83
# A digit's box may share at most this part of the smaller box with another one.
_MAX_COVERAGE = 0.1
_PLACEMENTS = 20
# Opacity, of 256, from which a pixel belongs to a digit's box.
_VISIBLE = 64
# Scenes whose random numbers are drawn together, and of these those computed at once.
_CHUNK, _AT_ONCE = 500, 20

Boxes = NDArray[np.float32]
_Number = TypeVar("_Number", np.int16, np.float64)


def load(data_dir: str | None = None, split: str = "train", seed: int = DEFAULT_SEED) -> Examples:
    """Makes the scenes of one split.

    Args:
        data_dir: must be None; nothing is read.
        split: "train" (4,000 scenes), "val" (1,000) or "test" (1,000).
        seed: in 0..2**32-1; another seed gives other scenes and divides the digits anew.

    Returns:
        Examples in memory: uint8 [N, 64, 64, 3], classes "0" to "9", all labels known, boxes.

    Raises:
        UserError: a folder is given, or the split is unknown.
    """
    if data_dir is not None:
        raise UserError(
            f"data_dir: digits are made, not read, found {data_dir!r}; leave it out, or name the "
            "data set to read"
        )
    check_split(split, SPLITS, "digits have")
    count = SPLITS[split]
    rng = np.random.RandomState((seed, list(SPLITS).index(split)))
    classes = _draw_classes(rng, count)
    images, boxes = _make_scenes(rng, classes, source_indices(split, seed))
    labels = np.zeros((count, len(CLASS_NAMES)), np.int8)
    for row, present in enumerate(classes):
        labels[row, present] = 1
    names = tuple(f"{split}/{number:05d}" for number in range(count))
    return Examples(names, labels, CLASS_NAMES, images=images, boxes=boxes)


def source_indices(split: str, seed: int = DEFAULT_SEED) -> NDArray[np.int64]:
    """Which of scikit-learn's digit images a split's scenes are made of.

    Every class is divided in the same proportions, 4 : 1 : 1; no image serves two splits.

    Args:
        split: "train", "val" or "test".
        seed: as for `load`.

    Returns:
        Sorted int64 positions in `load_digits().images`.

    Raises:
        UserError: the split is unknown.
    """
    check_split(split, SPLITS, "digits have")
    targets = _source()[1]
    rng = np.random.RandomState(seed)
    chosen = []
    for digit in range(len(CLASS_NAMES)):
        order = rng.permutation(np.flatnonzero(targets == digit))
        first = round(_SOURCE_SHARES["train"] * len(order))
        second = first + round(_SOURCE_SHARES["val"] * len(order))
        parts = dict(zip(SPLITS, np.split(order, (first, second)), strict=True))
        chosen.append(parts[split])
    return np.sort(np.concatenate(chosen)).astype(np.int64)


@functools.cache
def _source() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    # The file that scikit-learn's load_digits reads: importing scikit-learn takes much longer.
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise UserError("digits: scikit-learn, which has them, is missing; install scikit-learn")
    table = np.loadtxt(Path(package.origin).with_name("datasets") / _FILE, delimiter=",")
    return table[:, :-1].reshape(-1, 8, 8) / 16.0, table[:, -1].astype(np.int64)


def _draw_classes(rng: np.random.RandomState, count: int) -> list[NDArray[np.int64]]:
    """For each scene one to four different classes, equally many scenes of each number."""
    weights = _SKEW ** np.arange(len(CLASS_NAMES))
    # The largest of u**(1/w) are a weighted sample without replacement (Efraimidis, Spirakis 2006).
    keys = np.log1p(-rng.random_sample((count, len(weights)))) / weights
    ranked = np.argsort(-keys, axis=1, kind="stable")
    numbers = rng.randint(1, MAX_DIGITS + 1, count)
    return [row[:number] for row, number in zip(ranked, numbers, strict=True)]


def _make_scenes(
    rng: np.random.RandomState, classes: list[NDArray[np.int64]], sources: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], tuple[Boxes, ...]]:
    targets = _source()[1]
    pools = [sources[targets[sources] == digit] for digit in range(len(CLASS_NAMES))]
    images = np.empty((len(classes), IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    boxes = []
    for start in range(0, len(classes), _CHUNK):
        present = classes[start : start + _CHUNK]
        canvas = _backgrounds(rng, len(present))
        for scene, scene_classes in zip(canvas, present, strict=True):
            boxes.append(_paste_digits(rng, scene, scene_classes, pools))
        canvas += _pixel_noise(rng, canvas.shape)
        images[start : start + len(present)] = np.clip(canvas, 0, 255, out=canvas)
    return images, tuple(boxes)


def _backgrounds(rng: np.random.RandomState, count: int) -> NDArray[np.int16]:
    """Coloured, softly textured surfaces: int16 [count, 64, 64, 3], around the middle grays."""
    base = rng.uniform(100, 155, (count, 1, 1, 1)) + rng.uniform(-20, 20, (count, 1, 1, 3))
    textures = []
    for cells in (4, 10):
        # Mostly gray patches, a little colour.
        texture = rng.uniform(-1, 1, (count, cells, cells, 1))
        texture = texture + rng.uniform(-0.4, 0.4, (count, cells, cells, 3))
        texture *= rng.uniform(6, 18, (count, 1, 1, 1))
        textures.append(texture)
    surfaces = np.empty((count, IMAGE_SIZE, IMAGE_SIZE, 3), np.int16)
    # In parts that stay in a processor's cache.
    for start in range(0, count, _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        surface = base[part]
        for texture in textures:
            surface = surface + _enlarged(texture[part])
        surfaces[part] = np.rint(surface, out=surface)
    return surfaces


def _enlarged(texture: NDArray[np.float64]) -> NDArray[np.float64]:
    """Textures [N, cells, cells, 3] over whole scenes: [N, 64, 64, 3]."""
    count, cells = texture.shape[:2]
    grow = _enlarging(cells, IMAGE_SIZE)
    rows = grow @ texture.reshape(count, cells, cells * 3)
    # The zeros keep a column's channels apart. Products of half a scene are so small that BLAS
    # starts no threads, which would wait for each other longer than they work.
    grow_columns = np.kron(grow, np.eye(3)).T
    surface = rows.reshape(2 * count, IMAGE_SIZE // 2, cells * 3) @ grow_columns
    return surface.reshape(count, IMAGE_SIZE, IMAGE_SIZE, 3)


def _pixel_noise(rng: np.random.RandomState, shape: tuple[int, ...]) -> NDArray[np.int16]:
    """Triangularly distributed noise, its strength differing from scene to scene."""
    size = int(np.prod(shape))
    # The difference of two uniform bytes has a standard deviation of 104.
    drawn = np.frombuffer(rng.bytes(2 * size), np.uint8).reshape((2, *shape)).astype(np.int16)
    strength = rng.randint(4, 12, (shape[0], 1, 1, 1)).astype(np.int16)
    noise: NDArray[np.int16] = (drawn[0] - drawn[1]) * strength // np.int16(104)
    return noise


def _paste_digits(
    rng: np.random.RandomState,
    scene: NDArray[np.int16],
    classes: NDArray[np.int64],
    pools: list[NDArray[np.int64]],
) -> Boxes:
    """Draws the digits into the scene; returns their rows (class, y1, x1, y2, x2) in [0, 1]."""
    placed: list[tuple[int, int, int, int]] = []
    for digit in classes:
        source = pools[digit][rng.randint(len(pools[digit]))]
        opacity, (y, x) = _place(rng, source, placed)
        height, width = opacity.shape
        placed.append((y, x, y + height, x + width))
        _blend(rng, scene[y : y + height, x : x + width], opacity)
    corners = np.asarray(placed, np.float32) / IMAGE_SIZE
    return np.column_stack([classes.astype(np.float32), corners])


def _place(
    rng: np.random.RandomState, source: int, placed: list[tuple[int, int, int, int]]
) -> tuple[NDArray[np.int16], tuple[int, int]]:
    """Finds a size and a corner that leave the digits already there visible."""
    smallest, largest = DIGIT_SIZES
    while True:
        opacity = _opacity(int(source), int(rng.randint(smallest, largest + 1)))
        height, width = opacity.shape
        ys = rng.randint(0, IMAGE_SIZE - height + 1, _PLACEMENTS)
        xs = rng.randint(0, IMAGE_SIZE - width + 1, _PLACEMENTS)
        for y, x in zip(ys.tolist(), xs.tolist(), strict=True):
            box = (y, x, y + height, x + width)
            if all(_coverage(box, other) <= _MAX_COVERAGE for other in placed):
                return opacity, (y, x)


def _coverage(first: tuple[int, int, int, int], second: tuple[int, int, int, int]) -> float:
    """The shared area as a part of the smaller box."""
    height = min(first[2], second[2]) - max(first[0], second[0])
    width = min(first[3], second[3]) - max(first[1], second[1])
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return max(height, 0) * max(width, 0) / min(areas)


def _blend(
    rng: np.random.RandomState, window: NDArray[np.int16], opacity: NDArray[np.int16]
) -> None:
    """Paints the digit onto a window of the scene: lighter or darker than what lies below."""
    contrast = rng.randint(80, 131) * (1 if rng.randint(2) else -1)
    tint = rng.randint(-25, 26, 3)
    below = int(window.sum(dtype=np.int64)) // window.size
    colour = np.clip(below + contrast + tint - int(tint.sum()) // 3, 0, 255)
    change = (colour - window.astype(np.int32)) * opacity[:, :, np.newaxis]
    window += (change >> 8).astype(np.int16)


@functools.cache
def _opacity(source: int, size: int) -> NDArray[np.int16]:
    """A source digit enlarged so that its longer side has about `size` pixels.

    Returns:
        int16 [h, w] in 0..256, trimmed to the rows and columns with visible ink.
    """
    ink = _trim(_source()[0][source], 0.1)
    longer = max(ink.shape)
    grow = [_enlarging(side, max(round(size * side / longer), 1)) for side in ink.shape]
    smooth = grow[0] @ ink @ grow[1].T
    # A steeper edge than the interpolation's keeps small digits legible.
    opacity = np.clip(np.rint((smooth * 1.5 - 0.25) * 256), 0, 256).astype(np.int16)
    return _trim(opacity, _VISIBLE)


def _trim(picture: NDArray[_Number], threshold: float) -> NDArray[_Number]:
    """The smallest window with all values of at least the threshold."""
    rows, columns = np.nonzero(picture >= threshold)
    return picture[rows[0] : rows[-1] + 1, columns.min() : columns.max() + 1]


@functools.cache
def _enlarging(old: int, new: int) -> NDArray[np.float64]:
    """Matrix [new, old] of cubic interpolation between pixel centres."""
    from scipy import ndimage

    if old == 1:
        return np.ones((new, 1))
    zoom = (new / old, 1)
    enlarging: NDArray[np.float64] = ndimage.zoom(
        np.eye(old), zoom, order=3, mode="grid-mirror", grid_mode=True
    )
    return enlarging
