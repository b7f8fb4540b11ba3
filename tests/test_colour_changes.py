"""Changes of colour against Pillow's, and in the pipeline."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps
from test_pipeline import in_memory, picture

from spml_tf.datasets import colour_changes, pipeline
from spml_tf.runs.settings import Settings, resolve
from spml_tf.system.errors import UserError

# Which change is drawn, and what Pillow calls it, at the strength 0.5: factors 0.55 and 1.45,
# 8 - 4 / 2 = 6 bits, and 127.5 and above inverted.
ENHANCED = {1: ImageEnhance.Brightness, 2: ImageEnhance.Contrast, 3: ImageEnhance.Color,
            4: ImageEnhance.Sharpness}  # fmt: skip
OPERATIONS = {
    0: lambda image: image,
    5: lambda image: ImageOps.posterize(image, 6),
    6: lambda image: ImageOps.solarize(image, 128),
    7: ImageOps.autocontrast,
    8: ImageOps.equalize,
}


def change(image: np.ndarray, *which: int, sign: float = 0.9, strength: float = 0.5) -> np.ndarray:
    draws = tf.constant([[(number + 0.5) / 9, sign] for number in which], tf.float32)
    return colour_changes.changed(tf.constant(image, tf.float32), draws, strength).numpy()


@pytest.mark.parametrize("which", ENHANCED)
@pytest.mark.parametrize(("sign", "factor"), ((0.0, 0.55), (0.49, 0.55), (0.51, 1.45)))
def test_enhancements_equal_pillows(which, sign, factor):
    """To a level and a half: Pillow rounds greys and smooth pixels before it blends."""
    image = picture(40, 30)
    wanted = np.asarray(ENHANCED[which](Image.fromarray(image)).enhance(factor), float)
    np.testing.assert_allclose(change(image, which, sign=sign), wanted, atol=1.5)
    assert np.abs(wanted - image).max() > 10


@pytest.mark.parametrize("which", OPERATIONS)
def test_operations_equal_pillows(which):
    image = picture(40, 30, seed=2) // 2 + 20  # leaves autocontrast something to do
    wanted = np.asarray(OPERATIONS[which](Image.fromarray(image)), float)
    np.testing.assert_allclose(change(image, which), wanted, atol=1 if which == 7 else 0)
    assert which == 0 or np.abs(wanted - image).max() > 2


@pytest.mark.parametrize("value", (0, 77, 255))
def test_an_even_picture_stays_where_there_is_nothing_to_spread(value):
    image = np.full((6, 6, 3), value, np.float32)
    for which in (0, 2, 3, 4, 7, 8):
        np.testing.assert_allclose(change(image, which), image, atol=0.02)


def test_changes_follow_each_other():
    image = picture(12, 12)
    np.testing.assert_allclose(change(image, 1, 7, 6), change(change(change(image, 1), 7), 6))


@pytest.mark.parametrize("strength", (0.0, 0.3, 1.0))
def test_results_are_pictures(strength):
    image = picture(12, 12)
    for which in range(9):
        for sign in (0.2, 0.8):
            found = change(image, which, sign=sign, strength=strength)
            assert found.shape == image.shape and found.min() >= 0 and found.max() <= 255


def crops(**options) -> dict[int, dict[str, np.ndarray]]:
    """An epoch's crops by the image's index."""
    examples = in_memory(24)
    dataset = pipeline.training_dataset(
        examples, examples.labels, image_size=16, batch_size=7, seed=5, **options
    )
    return {
        int(index): {name: values[row] for name, values in inputs.items()}
        for inputs, _ in dataset.as_numpy_iterator()
        for row, index in enumerate(inputs["index"])
    }


def test_crops_keep_their_place_and_order():
    """Boxes, flips and order are those without changes; each crop's own operation is drawn."""
    plain, changed, again = crops(), crops(colours=(1, 0.6)), crops(colours=(1, 0.6))
    other = crops(colours=(1, 0.6), first_epoch=2)
    assert list(plain) == list(changed) == list(again)
    same = 0
    for index, crop in plain.items():
        for name in ("box", "flip"):
            np.testing.assert_array_equal(crop[name], changed[index][name])
        np.testing.assert_array_equal(changed[index]["image"], again[index]["image"])
        same += np.array_equal(crop["image"], changed[index]["image"])
    assert same < 10  # one of nine operations changes nothing
    assert any((changed[i]["image"] != other[i]["image"]).any() for i in plain)


def test_strength_without_changes_is_refused():
    with pytest.raises(UserError, match="--colour_strength: is that of --colour_changes"):
        resolve(Settings(colour_strength=0.2))
    assert resolve(Settings(colour_changes=2)).augmentation["colours"] == (2, 0.3)
    assert resolve(resolve(Settings())).augmentation["colours"] == (0, 0.0)
    with pytest.raises(UserError, match="--colour_strength=1.5: must lie between 0 and 1"):
        resolve(Settings(colour_changes=1, colour_strength=1.5))
