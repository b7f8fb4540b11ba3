"""The sheet of example photos: whatever the names and the photos are."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from spml_tf.datasets import summaries
from spml_tf.drawing.contact_sheet import Tile, draw, reduced

NO_BOXES = np.zeros((0, 5), np.float32)
RED, BLUE = (255, 0, 0), (0, 0, 255)


def plain(colour, height=60, width=80) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def drawn(path, tiles, names=("cat",)) -> np.ndarray:
    draw(path, tiles, names)
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def share(sheet: np.ndarray, colour: tuple[int, int, int]) -> float:
    return float((np.abs(sheet - np.array(colour)).max(axis=2) < 8).mean())


@pytest.mark.parametrize("count", [1, 6, 7, 36])
def test_every_photo_is_there(tmp_path, count):
    """Each tile but the last is red, the last is blue: as much of the sheet each."""
    tiles = [Tile(f"a/{i}.jpg", ("cat",), plain(RED), "", NO_BOXES) for i in range(count - 1)]
    tiles.append(Tile("a/last.jpg", ("cat",), plain(BLUE), "", NO_BOXES))
    sheet = drawn(tmp_path / "sheet.png", tiles)
    one = share(sheet, BLUE)
    assert one > 0.3 / (6 * -(-count // 6))
    assert share(sheet, RED) == pytest.approx((count - 1) * one, rel=0.05)


def test_odd_names_neither_break_nor_warn(tmp_path):
    """Dollar signs are mathematics to matplotlib, and its font lacks most scripts."""
    names = ("$x_$", "猫 и кошка", "a\nb\tc", "x" * 300, "\\frac{", "")
    boxes = np.array([[i, 0.1, 0.1, 0.9, 0.9] for i in range(len(names))], np.float32)
    tiles = [Tile(name or "e", names, plain(RED), "", boxes) for name in names]
    assert drawn(tmp_path / "sheet.png", tiles, names).std() > 0


def test_a_box_lies_around_its_object(tmp_path):
    """A blue square in the middle of a red photo: its box hides the seam, and nothing else."""
    photo = plain(RED, 300, 300)
    photo[75:225, 75:225] = BLUE
    box = np.array([[0, 0.25, 0.25, 0.75, 0.75]], np.float32)
    without = drawn(tmp_path / "a.png", [Tile("a", (), photo, "", NO_BOXES)])
    with_box = drawn(tmp_path / "b.png", [Tile("a", (), photo, "", box)])
    rows, columns = np.nonzero(np.abs(without - with_box).max(axis=2) > 40)
    blue = np.abs(without - np.array(BLUE)).max(axis=2) < 8
    ys, xs = np.nonzero(blue)
    for found, seam in ((rows, ys), (columns, xs)):
        assert abs(found.min() - seam.min()) <= 4 and abs(found.max() - seam.max()) <= 4


def test_unreadable_photos_leave_a_tile_with_the_reason(tmp_path):
    gray = drawn(tmp_path / "a.png", [Tile("a.jpg", ("cat",), None, "truncated", NO_BOXES)])
    assert share(gray, (237, 237, 237)) > 0.05
    longer = drawn(tmp_path / "b.png", [Tile("a.jpg", ("cat",), None, "empty " * 40, NO_BOXES)])
    assert (gray != longer).any()


def test_reduced_keeps_aspect_and_mean():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (200, 400, 3)).astype(np.uint8)
    small = reduced(image, 100)
    assert small.shape == (50, 100, 3) and abs(small.mean() - image.mean()) < 2
    assert (reduced(small, 100) == small).all()


def test_the_rarest_classes_are_chosen_first():
    """10 images: class 0 in all, class 1 in image 7 only, class 2 in images 3 and 7."""
    labels = np.zeros((10, 4), np.int8)
    labels[:, 0] = 1
    labels[7, 1] = labels[3, 2] = labels[7, 2] = 1
    chosen = summaries.choose(labels, 3)
    # The first round takes 7 for class 1, which shows the others as well; the second takes 3 for
    # class 2, which shows class 0; the third any other image for class 0.
    assert chosen[:2] == [7, 3] and len(set(chosen)) == 3
    assert chosen == summaries.choose(labels, 3)
    assert sorted(summaries.choose(labels, 36)) == list(range(10))


def test_images_without_positives_fill_the_sheet():
    labels = np.full((5, 2), -1, np.int8)
    labels[4, 1] = 1
    chosen = summaries.choose(labels, 4)
    assert chosen[0] == 4 and len(set(chosen)) == 4
    assert summaries.choose(labels[:0], 4) == []
