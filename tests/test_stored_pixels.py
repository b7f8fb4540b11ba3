"""Boxes and masks drawn on photos that are stored on their side, against Pillow's own turning."""

from __future__ import annotations

import miniature
import numpy as np
import pytest
from PIL import Image, ImageOps

from spml_tf import data
from spml_tf.datasets import readers, stored_pixels
from spml_tf.datasets.readers import Examples

# An object of 4 rows and 10 columns in a photo of 60 rows and 40 columns, as people see it.
UPRIGHT = (8, 20, 12, 30)
HEIGHT, WIDTH = 60, 40


def mask() -> Image.Image:
    drawn = np.zeros((HEIGHT, WIDTH), np.uint8)
    y1, x1, y2, x2 = UPRIGHT
    drawn[y1:y2, x1:x2] = 1
    return Image.fromarray(drawn)


def stored(upright: Image.Image, orientation: int) -> Image.Image:
    """The pixels that Pillow turns into these: found by trying all eight ways."""
    for way in (None, *Image.Transpose):
        found = upright if way is None else upright.transpose(way)
        tagged = found.copy()
        tagged.getexif()[0x0112] = orientation
        if np.array_equal(np.asarray(ImageOps.exif_transpose(tagged)), np.asarray(upright)):
            return found
    raise AssertionError(orientation)


def photo(path, orientation: int) -> Image.Image:
    """Writes the photo, and returns the object's mask on its stored pixels."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = stored(mask(), orientation)
    pixels.point(lambda x: 255 * x).convert("RGB").save(path, exif=exif, quality=95)
    return pixels


def box_of(drawn: Image.Image) -> list[float]:
    rows, columns = (np.flatnonzero(np.asarray(drawn).any(axis=x)) for x in (1, 0))
    edges = [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1]
    return [int(x) for x in edges]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tiff"])
def test_drawn_on_the_stored_pixels(orientation, kind, tmp_path):
    """A photo on its side is known by its size; the others are taken as they are shown."""
    path = tmp_path / f"a.{kind}"
    drawn = photo(path, orientation)
    across, high = drawn.size
    box = np.array(box_of(drawn)) / [high, across, high, across]
    shown = np.array(UPRIGHT) / [HEIGHT, WIDTH, HEIGHT, WIDTH]
    examples = Examples(
        ("a",), np.ones((1, 1), np.int8), ("x",), paths=(str(path),),
        boxes=(np.array([[0, *box]], np.float32),), sides=np.array([[high, across]], float),
    )  # fmt: skip
    found = stored_pixels.with_upright_boxes(examples)
    expected = shown if orientation in (1, 5, 6, 7, 8) else box
    np.testing.assert_allclose(found.boxes[0], [[0, *expected]], atol=1e-6)
    np.testing.assert_allclose(found.areas[0], [40 / 2400], rtol=1e-5)
    assert found.sides is None and stored_pixels.with_upright_boxes(found) is found
    turned = stored_pixels.upright_mask(np.asarray(drawn, np.uint16), str(path))
    assert box_of(Image.fromarray(turned)) == (
        list(UPRIGHT) if orientation in (1, 5, 6, 7, 8) else box_of(drawn)
    )


@pytest.mark.parametrize("orientation", [6, 8])
def test_drawn_on_the_photo_as_it_is_shown(orientation, tmp_path):
    path = tmp_path / "a.jpg"
    photo(path, orientation)
    shown = np.array(UPRIGHT) / [HEIGHT, WIDTH, HEIGHT, WIDTH]
    examples = Examples(
        ("a",), np.ones((1, 1), np.int8), ("x",), paths=(str(path),),
        boxes=(np.array([[0, *shown]], np.float32),),
        # Annotated at another scale.
        sides=np.array([[HEIGHT * 10, WIDTH * 10]], float),
    )  # fmt: skip
    found = stored_pixels.with_upright_boxes(examples)
    np.testing.assert_allclose(found.boxes[0], [[0, *shown]], atol=1e-6)
    drawn = np.asarray(mask(), np.uint16)
    assert stored_pixels.upright_mask(drawn, str(path)) is drawn


@pytest.mark.parametrize("dataset", ["voc", "coco"])
def test_prepared_photos_have_their_boxes(dataset, tmp_path):
    """A photo of a data set, stored on its side as annotated: prepare writes both upright."""
    root = tmp_path / dataset
    miniature.BUILDERS[dataset](root, 6, 4)
    before = readers.load(dataset, str(root), "val")
    path = before.paths[0]
    # The annotations' numbers are those of 40 rows and 48 columns, stored so.
    with Image.open(path) as opened:
        exif = opened.getexif()
        exif[0x0112] = 6  # shown after a quarter turn to the right
        opened.convert("RGB").save(path, exif=exif)
    words = [f"--dataset={dataset}", f"--data_dir={root}", "--format=jpeg", "--short_side=40"]
    assert data.main(["prepare", *words, f"--output_dir={tmp_path / 'out'}"]) == 0
    found = readers.load("prepared", str(tmp_path / "out"), "test")
    number, y1, x1, y2, x2 = before.boxes[0].T
    np.testing.assert_allclose(
        found.boxes[0], np.stack([number, x1, 1 - y2, x2, 1 - y1], axis=1), atol=1e-6
    )
    with Image.open(found.paths[0]) as opened:
        assert opened.size == (40, 48)
    for one, other in zip(found.boxes[1:], before.boxes[1:], strict=True):
        assert one.tolist() == other.tolist()


@pytest.mark.parametrize(
    "orientation, size, right",
    [
        (1, (40, 60), True),
        (1, (20, 30), True),
        (1, (13, 20), True),  # a third, rounded
        (1, (12, 20), False),
        (1, (40, 40), False),
        (1, (60, 40), False),  # on its side, and nothing says that the photo is
        (3, (40, 60), True),
        (6, (40, 60), True),
        (6, (60, 40), True),  # drawn on the stored pixels
        (6, (60, 60), False),
    ],
)
def test_a_mask_has_the_ratio_of_its_photo(orientation, size, right, tmp_path, capsys):
    (tmp_path / "m").mkdir()
    photo(tmp_path / "a.jpg", orientation)
    Image.new("L", size, 1).save(tmp_path / "m" / "a.png")
    (tmp_path / "train.csv").write_text("image,x\na.jpg,1\n")
    words = ["--dataset=folder", f"--data_dir={tmp_path}", "--train_csv=train.csv"]
    others = ["--val_split=none", "--test_split=none", "--masks_dir=m"]
    code = data.main(["check", *words, *others])
    said = capsys.readouterr().err
    assert (code == 0) == right
    if not right:
        assert f"{tmp_path}/m/a.png: {size[0]} x {size[1]} pixels, but {tmp_path}/a.jpg has" in said
        assert f"{tmp_path}/a.jpg has 40 x 60; a mask is of its photo" in said
