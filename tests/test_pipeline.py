"""The input pipeline: decoding, crops, batches, reproducibility."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from spml_tf.datasets import dataset_elements, images, pipeline, readers
from spml_tf.datasets.readers import Examples
from spml_tf.system.errors import UserError


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A coloured picture with smooth parts and edges, uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 7, 3), np.uint8))
    image = np.array(small.resize((width, height), Image.Resampling.BICUBIC))
    image[height // 3 : height // 2, width // 4 : width // 2] = rng.integers(0, 256, 3)
    return image


def encoded(image: np.ndarray, kind: str, mode: str = "RGB", **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def in_memory(count: int = 10, side: int = 24) -> Examples:
    images = np.stack([picture(side, side, seed) for seed in range(count)])
    labels = np.eye(count, 4, dtype=np.int8)
    labels[:, 3] = 1
    names = tuple(f"image{number}" for number in range(count))
    return Examples(names, labels, tuple("abcd"), images=images)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Examples:
    """JPEG and PNG files of several sizes, gray and transparent ones among them."""
    folder = tmp_path_factory.mktemp("photos")
    contents = {
        "colour.jpg": encoded(picture(61, 83, 1), "JPEG", quality=92),
        "wide.jpg": encoded(picture(30, 131, 2), "JPEG"),
        "gray.jpg": encoded(picture(50, 40, 3), "JPEG", mode="L"),
        "sharp.jpg": encoded(picture(77, 45, 4), "JPEG", subsampling=0),
        "colour.png": encoded(picture(64, 48, 5), "PNG"),
        "gray.png": encoded(picture(20, 90, 6), "PNG", mode="L"),
        "alpha.png": encoded(picture(55, 33, 7), "PNG", mode="RGBA"),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    names = tuple(contents)
    labels = np.zeros((len(names), 2), np.int8)
    labels[:, 0] = 1
    paths = tuple(str(folder / name) for name in names)
    return Examples(names, labels, ("a", "b"), paths=paths)


def collect(dataset: tf.data.Dataset) -> list[dict[str, np.ndarray]]:
    return [
        {**{key: value.numpy() for key, value in inputs.items()}, "labels": labels.numpy()}
        for inputs, labels in dataset
    ]


def assert_same(first: list[dict], second: list[dict]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


def bilinear(picture: np.ndarray, size: int) -> np.ndarray:
    """Interpolates between the two nearest pixels along each axis, float32 [size, size]."""
    for axis in (0, 1):
        old = picture.shape[axis]
        # Pixel centres stand at halves; beyond the outermost the edge goes on.
        place = np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1)
        low = np.floor(place).astype(int)
        part = np.expand_dims(place - low, 1 - axis)
        nearest = [picture.take(np.minimum(low + step, old - 1), axis) for step in (0, 1)]
        picture = (1 - part) * nearest[0] + part * nearest[1]
    return picture


def reference(image: np.ndarray, box: np.ndarray, flip: bool, size: int) -> np.ndarray:
    """Crop, resize and flip channel by channel in floating point, with Pillow where a side shrinks
    to less than two thirds, which wants antialiasing."""
    height, width = image.shape[:2]
    y1, x1, y2, x2 = np.rint(box * [height, width, height, width]).astype(int)
    channels = []
    for channel in range(3):
        part = image[y1:y2, x1:x2, channel].astype(np.float32)
        if max(part.shape) > 1.5 * size:
            resized = Image.fromarray(part).resize((size, size), Image.Resampling.BILINEAR)
            channels.append(np.array(resized))
        else:
            channels.append(bilinear(part, size))
    result = np.stack(channels, axis=-1)
    return result[:, ::-1] if flip else result


class TestDecode:
    @pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF"])
    @pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
    def test_lossless_formats(self, kind, mode):
        if (kind, mode) == ("GIF", "RGBA"):
            pytest.skip("GIF has no alpha channel")
        image = picture(20, 31)
        if kind == "BMP" and mode == "RGBA":
            content = bitmap_with_alpha(image)
        else:
            content = encoded(image, kind, mode)
        expected = np.array(Image.open(io.BytesIO(content)).convert("RGB"))
        np.testing.assert_array_equal(images.decode_image(content).numpy(), expected)

    @pytest.mark.parametrize("mode", ["RGB", "L"])
    def test_jpeg(self, mode):
        content = encoded(picture(40, 50), "JPEG", mode)
        expected = np.array(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
        decoded = images.decode_image(content).numpy()
        assert decoded.dtype == np.uint8
        assert np.abs(decoded - expected).max() <= 1

    def test_first_frame_of_an_animation(self):
        frames = [Image.fromarray(picture(16, 16, seed)).convert("P") for seed in (1, 2)]
        stream = io.BytesIO()
        frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
        expected = np.array(frames[0].convert("RGB"))
        np.testing.assert_array_equal(images.decode_image(stream.getvalue()).numpy(), expected)

    @pytest.mark.parametrize("content", [b"", b"B", b"hello", b"\xff\xd8\xff\xe0"])
    def test_no_image(self, content):
        with pytest.raises(tf.errors.InvalidArgumentError):
            images.decode_image(content)


def bitmap_with_alpha(image: np.ndarray) -> bytes:
    """A 32-bit bitmap, which Pillow does not write with plain headers."""
    height, width = image.shape[:2]
    rows = np.concatenate([image[::-1, :, ::-1], np.full((height, width, 1), 77, np.uint8)], axis=2)
    pixels = rows.tobytes()
    header = struct.pack("<2sIHHI", b"BM", 54 + len(pixels), 0, 0, 54)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 32, 0, len(pixels), 0, 0, 0, 0)
    return header + info + pixels


class TestResize:
    def test_keeps_images_of_the_right_size(self):
        image = picture(32, 32)
        result = images.resize(tf.constant(image), 32)
        assert result.dtype == tf.float32
        np.testing.assert_array_equal(result, image)

    @pytest.mark.parametrize("shape", [(90, 70), (20, 33), (7, 100), (48, 48), (49, 20)])
    def test_equals_the_reference(self, shape):
        image = picture(*shape)
        expected = reference(image, np.array([0, 0, 1, 1]), False, 32)
        result = images.resize(tf.constant(image), 32).numpy()
        np.testing.assert_allclose(result, expected, atol=0.01)
        assert result.min() >= -1e-3 and result.max() <= 255 + 1e-3

    @pytest.mark.parametrize("shape", [(90, 70), (40, 100), (31, 32)])
    def test_batches_are_resized_alike(self, shape):
        image = tf.constant(picture(*shape))
        batch = images.resize(tf.stack([image, image[::-1]]), 32)
        np.testing.assert_allclose(batch[0], images.resize(image, 32), atol=1e-3)
        np.testing.assert_allclose(batch[1], images.resize(image[::-1], 32), atol=1e-3)


@tf.function
def many_windows(height, width, numbers, area):
    def one(drawn):
        return tf.stack(images.sample_crop(height, width, drawn, (area[0], area[1])))

    return tf.map_fn(one, numbers, fn_output_signature=tf.int32)


def draw_windows(height, width, low=0.25, high=1.0, count=2000, seed=3) -> np.ndarray:
    numbers = dataset_elements.draw(tf.constant([seed, 0]), count)[:, :4]
    area = tf.constant([low, high], tf.float64)
    return many_windows(tf.constant(height), tf.constant(width), numbers, area).numpy()


class TestSampleCrop:
    @settings(max_examples=40)
    @given(
        st.integers(1, 700),
        st.integers(1, 700),
        st.floats(0.01, 1),
        st.floats(0.01, 1),
        st.integers(0, 2**31 - 1),
    )
    def test_window_is_inside_and_has_the_area(self, height, width, first, second, seed):
        low, high = sorted([first, second])
        windows = draw_windows(height, width, low, high, count=20, seed=seed)
        y, x, h, w = windows.T
        assert (y >= 0).all() and (x >= 0).all() and (h >= 1).all() and (w >= 1).all()
        assert (y + h <= height).all() and (x + w <= width).all()
        # Sides are whole pixels: the area misses the interval by half a row or column at most.
        slack = 0.5 * np.maximum(h, w) + 1
        assert (h * w >= low * height * width - slack).all()
        assert (h * w <= high * height * width + slack).all()

    @pytest.mark.parametrize("shape", [(256, 256), (256, 340), (500, 200), (64, 64)])
    def test_area_law(self, shape):
        windows = draw_windows(*shape)
        fraction = windows[:, 2] * windows[:, 3] / np.prod(shape)
        assert abs(fraction.mean() - 0.625) < 0.015
        share, _ = np.histogram(fraction, bins=4, range=(0.25, 1.001))
        assert (abs(share / len(fraction) - 0.25) < 0.04).all()

    def test_aspect_and_position(self):
        windows = draw_windows(4000, 4000, 0.1, 0.3, count=4000)
        y, x, h, w = windows.T.astype(float)
        log_aspect = np.log(w / h)
        limit = np.log(4 / 3)
        assert abs(log_aspect).max() < limit + 0.01
        # Uniform in [-limit, limit].
        assert abs(log_aspect.mean()) < 0.02
        assert abs(log_aspect.std() - limit / np.sqrt(3)) < 0.01
        for place in (y / (4000 - h), x / (4000 - w)):
            assert abs(place.mean() - 0.5) < 0.02 and abs(place.std() - 12**-0.5) < 0.01

    def test_full_area_is_the_whole_image(self):
        windows = draw_windows(37, 91, 1.0, 1.0, count=50)
        np.testing.assert_array_equal(windows, [[0, 0, 37, 91]] * 50)

    def test_same_seed_same_window(self):
        first, second = draw_windows(100, 80, count=20), draw_windows(100, 80, count=20)
        np.testing.assert_array_equal(first, second)
        assert not np.array_equal(first, draw_windows(100, 80, count=20, seed=4))


def test_windows_by_hand():
    """Half of the area of 100 x 60 pixels, square; the position is a part of what is left over."""
    window = images.sample_crop(100, 60, tf.constant([0.0, 0.5, 0.5, 0.25]), (0.5, 1.0))
    # sqrt(3000) = 54.77, so 55 rows of 3000 / 55 = 54.5 pixels; 0.5 * 46 = 23, 0.25 * 6 = 1.5.
    assert [int(number) for number in window] == [23, 1, 55, 55]


def numpy_window(height: int, width: int, drawn: np.ndarray, low: float, high: float) -> list[int]:
    """The law of `sample_crop`, written with Python's floats."""
    area, aspect, row, column = (float(number) for number in drawn)
    pixels = (low + (high - low) * area) * height * width
    aspect = (3 / 4) ** (1 - aspect) * (4 / 3) ** aspect
    h = min(max(round(min(max((pixels / aspect) ** 0.5, pixels / width), height)), 1), height)
    w = min(max(round(pixels / h), 1), width)
    return [int(row * (height - h + 1)), int(column * (width - w + 1)), h, w]


class TestBatchesAreThoseOfOneImageAtATime:
    """The bits of crops, boxes, flips and pixels, by NumPy and TensorFlow's plain operations."""

    @pytest.mark.parametrize("batch_size", [3, 7])
    def test_of_files(self, files, batch_size):
        dataset = pipeline.training_dataset(
            files, files.labels, image_size=24, batch_size=batch_size, seed=9, crop_area=(0.1, 0.9)
        )
        drawn = epoch_draws(seed=9, epoch=1, count=7)
        for batch in collect(dataset):
            for row, index in enumerate(batch["index"]):
                whole = tf.io.read_file(files.paths[index])
                if files.paths[index].endswith("jpg"):
                    whole = tf.io.decode_jpeg(whole, 3, dct_method="INTEGER_ACCURATE").numpy()
                else:
                    whole = tf.io.decode_png(whole, 3).numpy()
                height, width = whole.shape[:2]
                y, x, h, w = numpy_window(height, width, drawn[index, :4], 0.1, 0.9)
                sides = np.array([height, width, height, width], np.float32)
                box = np.array([y, x, y + h, x + w], np.float32) / sides
                np.testing.assert_array_equal(batch["box"][row], box)
                assert batch["flip"][row] == (drawn[index, 4] < 0.5)
                crop = whole[y : y + h, x : x + w]
                crop = crop[:, ::-1] if batch["flip"][row] else crop
                expected = tf.image.resize(crop, [24, 24], antialias=max(h, w) > 36)
                np.testing.assert_array_equal(batch["image"][row], expected)

    def test_do_not_depend_on_the_number_of_images(self):
        """Nor on where an epoch begins: an index has its numbers by seed and epoch alone."""
        many = epoch_draws(seed=2, epoch=3, count=20_000)
        np.testing.assert_array_equal(many[:7], epoch_draws(seed=2, epoch=3, count=7))
        assert len(np.unique(many[:, 0])) > 19_900
        for count, step in ((4, 1), (9, 2)):
            examples = in_memory(count, side=40)
            (first, *_) = collect(
                pipeline.training_dataset(
                    examples, examples.labels, image_size=8, batch_size=2, seed=2, first_epoch=3,
                    first_step=step,
                )
            )  # fmt: skip
            windows = [numpy_window(40, 40, many[i, :4], 0.25, 1) for i in first["index"]]
            expected = [[y, x, y + h, x + w] for y, x, h, w in windows]
            np.testing.assert_allclose(first["box"] * 40, expected, atol=1e-4)


def epoch_draws(seed: int, epoch: int, count: int) -> np.ndarray:
    """Five numbers for each image of an epoch, by the generator that is said to make them."""
    folded = tf.constant([seed, 0])
    for number in (epoch, 0):
        folded = tf.random.fold_in(folded, number, alg="philox")
    return tf.random.stateless_uniform([count, 5], folded, alg="philox").numpy()


class TestTraining:
    def test_structure(self):
        examples = in_memory(10)
        dataset = pipeline.training_dataset(
            examples, examples.labels, image_size=16, batch_size=4, seed=0, epochs=2
        )
        assert int(dataset.cardinality()) == 6 == 2 * pipeline.steps_per_epoch(10, 4)
        batches = collect(dataset)
        assert [len(batch["index"]) for batch in batches] == [4, 4, 2, 4, 4, 2]
        for batch in batches:
            size = len(batch["index"])
            assert batch["image"].shape == (size, 16, 16, 3) and batch["image"].dtype == np.float32
            assert batch["box"].shape == (size, 4) and batch["box"].dtype == np.float32
            assert batch["flip"].dtype == bool and batch["index"].dtype == np.int64
            assert batch["labels"].dtype == np.int8
            np.testing.assert_array_equal(batch["labels"], examples.labels[batch["index"]])
        for epoch in (batches[:3], batches[3:]):
            indices = np.concatenate([batch["index"] for batch in epoch])
            np.testing.assert_array_equal(np.sort(indices), np.arange(10))

    def test_observed_labels_are_the_ones_given(self):
        examples = in_memory(6)
        observed = np.full((6, 4), -1, np.int8)
        dataset = pipeline.training_dataset(examples, observed, image_size=8, batch_size=6, seed=0)
        np.testing.assert_array_equal(collect(dataset)[0]["labels"], observed)

    @pytest.mark.parametrize("source", ["memory", "files"])
    def test_equals_the_reference(self, source, files):
        examples = in_memory(12, side=40) if source == "memory" else files
        dataset = pipeline.training_dataset(
            examples, examples.labels, image_size=24, batch_size=5, seed=4, epochs=4
        )
        flips = []
        for batch in collect(dataset):
            for image, box, flip, index in zip(
                batch["image"], batch["box"], batch["flip"], batch["index"], strict=True
            ):
                if source == "memory":
                    whole = examples.images[index]
                else:
                    whole = np.array(Image.open(examples.paths[index]).convert("RGB"))
                # Decoders may differ by one gray level in a JPEG.
                np.testing.assert_allclose(image, reference(whole, box, flip, 24), atol=1.01)
                flips.append(flip)
        assert 0.2 < np.mean(flips) < 0.8

    def test_crop_of_a_jpeg_has_the_pixels_of_the_whole(self, files):
        """A crop is decoded alone, yet equals the same part of the whole image."""
        cropped = tf.function(lambda content, drawn: images.decode_crop(content, drawn, (0.1, 1.0)))
        for number, path in enumerate(files.paths):
            content = tf.io.read_file(path)
            whole = images.decode_image(content).numpy()
            for seed in range(8):
                drawn = dataset_elements.draw(tf.constant([number, seed]))[:4]
                crop, box = cropped(content, drawn)
                scale = [*whole.shape[:2], *whole.shape[:2]]
                y1, x1, y2, x2 = np.rint(box.numpy() * scale).astype(int)
                np.testing.assert_array_equal(crop, whole[y1:y2, x1:x2])

    def test_boxes_are_windows_of_whole_pixels(self):
        examples = in_memory(10, side=24)
        dataset = pipeline.training_dataset(
            examples, examples.labels, image_size=16, batch_size=10, seed=1, epochs=5
        )
        boxes = np.concatenate([batch["box"] for batch in collect(dataset)])
        np.testing.assert_allclose(boxes * 24, np.rint(boxes * 24), atol=1e-5)
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert boxes.min() >= 0 and boxes.max() <= 1
        assert len(np.unique(boxes, axis=0)) > 25

    def test_repeats_and_resumes(self):
        examples = in_memory(7)

        def batches(first_epoch, epochs, seed=5):
            return collect(
                pipeline.training_dataset(
                    examples,
                    examples.labels,
                    image_size=16,
                    batch_size=3,
                    seed=seed,
                    first_epoch=first_epoch,
                    epochs=epochs,
                )
            )

        four = batches(1, 4)
        assert_same(four, batches(1, 4))
        assert_same(four[6:], batches(3, 2))
        orders = [
            np.concatenate([batch["index"] for batch in four[start : start + 3]]).tolist()
            for start in range(0, 12, 3)
        ]
        assert len({tuple(order) for order in orders}) > 1
        by_index = []
        for epoch in (four[:3], four[3:6]):
            pairs = [zip(batch["index"], batch["box"], strict=True) for batch in epoch]
            by_index.append({int(index): box for pair in pairs for index, box in pair})
        assert any(not np.array_equal(by_index[0][i], by_index[1][i]) for i in range(7))
        assert not np.array_equal(four[0]["box"], batches(1, 1, seed=6)[0]["box"])

    def test_crops_do_not_depend_on_batch_size(self):
        examples = in_memory(9)
        boxes = []
        for batch_size in (2, 9):
            dataset = pipeline.training_dataset(
                examples, examples.labels, image_size=8, batch_size=batch_size, seed=2
            )
            batches = collect(dataset)
            boxes.append(np.concatenate([batch["box"] for batch in batches]))
        np.testing.assert_array_equal(*boxes)

    def test_no_crop_no_flip(self):
        examples = in_memory(7, side=16)
        dataset = pipeline.training_dataset(
            examples,
            examples.labels,
            image_size=16,
            batch_size=7,
            seed=0,
            crop_area=(1.0, 1.0),
            horizontal_flip=False,
        )
        (batch,) = collect(dataset)
        np.testing.assert_array_equal(batch["image"], examples.images[batch["index"]])
        np.testing.assert_array_equal(batch["box"], [[0, 0, 1, 1]] * 7)
        assert not batch["flip"].any()

    def test_large_and_negative_seeds(self):
        examples = in_memory(4)
        for seed in (-1, 2**40, 2**32 - 1):
            dataset = pipeline.training_dataset(
                examples, examples.labels, image_size=8, batch_size=4, seed=seed
            )
            assert len(collect(dataset)) == 1

    @pytest.mark.parametrize(
        "changes",
        [
            {"crop_area": (0.0, 1.0)},
            {"crop_area": (0.9, 0.5)},
            {"crop_area": (0.5, 1.5)},
            {"first_epoch": 0},
            {"batch_size": 0},
            {"image_size": 0},
            {"labels": np.zeros((3, 4), np.int8)},
        ],
    )
    def test_refuses(self, changes):
        examples = in_memory(4)
        arguments = {"labels": examples.labels, "image_size": 8, "batch_size": 4, "seed": 0}
        with pytest.raises(ValueError):
            pipeline.training_dataset(examples, **{**arguments, **changes})

    def test_refuses_no_images(self):
        nothing = in_memory(4).subset([])
        with pytest.raises(ValueError, match="no images"):
            pipeline.evaluation_dataset(nothing, nothing.labels, image_size=8, batch_size=4)


class TestEvaluation:
    def test_every_image_once_and_whole(self, files):
        dataset = pipeline.evaluation_dataset(files, files.labels, image_size=32, batch_size=3)
        assert int(dataset.cardinality()) == 3
        batches = collect(dataset)
        assert [len(batch["index"]) for batch in batches] == [3, 3, 1]
        np.testing.assert_array_equal(np.concatenate([b["index"] for b in batches]), np.arange(7))
        for batch in batches:
            np.testing.assert_array_equal(batch["box"], [[0, 0, 1, 1]] * len(batch["index"]))
            assert not batch["flip"].any()
            for image, index in zip(batch["image"], batch["index"], strict=True):
                content = tf.io.read_file(files.paths[index])
                expected = images.resize(images.decode_image(content), 32)
                np.testing.assert_array_equal(image, expected)

    def test_same_structure_as_training(self, files):
        arguments = {"image_size": 16, "batch_size": 2}
        training = pipeline.training_dataset(files, files.labels, seed=0, **arguments)
        evaluation = pipeline.evaluation_dataset(files, files.labels, **arguments)
        assert training.element_spec == evaluation.element_spec

    def test_in_memory(self):
        examples = in_memory(5, side=16)
        dataset = pipeline.evaluation_dataset(
            examples, examples.labels, image_size=16, batch_size=4
        )
        images = np.concatenate([batch["image"] for batch in collect(dataset)])
        np.testing.assert_array_equal(images, examples.images)


class TestBrokenFiles:
    @pytest.mark.parametrize("content", [b"", b"<html>not found</html>", None])
    def test_error_names_the_file(self, tmp_path: Path, content):
        path = tmp_path / "broken.jpg"
        if content is not None:
            path.write_bytes(content)
        examples = Examples(("b",), np.ones((1, 1), np.int8), ("a",), paths=(str(path),))
        dataset = pipeline.evaluation_dataset(examples, examples.labels, image_size=8, batch_size=1)
        with pytest.raises(tf.errors.OpError, match=r"broken\.jpg"):
            collect(dataset)
        assert pipeline.first_broken_image(examples)[0] == str(path)

    def test_truncated_file_is_found(self, tmp_path: Path, files):
        path = tmp_path / "half.jpg"
        path.write_bytes(Path(files.paths[0]).read_bytes()[:700])
        paths = (files.paths[1], str(path))
        examples = Examples(("a", "b"), np.ones((2, 1), np.int8), ("x",), paths=paths)
        dataset = pipeline.training_dataset(
            examples, examples.labels, image_size=8, batch_size=1, seed=0
        )
        with pytest.raises(tf.errors.OpError):
            collect(dataset)
        assert pipeline.first_broken_image(examples)[0] == str(path)
        assert pipeline.first_broken_image(files) is None


@pytest.mark.skipif(
    "SPML_TF_TEST_DATA" not in os.environ,
    reason="needs real photos: set SPML_TF_TEST_DATA to a folder with VOCdevkit",
)
def test_real_photos():
    folder = os.path.join(os.environ["SPML_TF_TEST_DATA"], "VOCdevkit")
    examples = readers.load("voc", folder, "val", 0).subset(range(0, 240, 4))
    dataset = pipeline.training_dataset(
        examples, examples.labels, image_size=96, batch_size=32, seed=1
    )
    for batch in collect(dataset):
        for image, box, flip, index in zip(
            batch["image"], batch["box"], batch["flip"], batch["index"], strict=True
        ):
            whole = np.array(Image.open(examples.paths[index]).convert("RGB"))
            np.testing.assert_allclose(image, reference(whole, box, flip, 96), atol=1.01)


class TestRecords:
    """Images in TFRecord files, each found by the byte at which its record begins."""

    @pytest.fixture
    def packed(self, tmp_path, files) -> Examples:
        """The same photos as `files`, in reverse order in two TFRecord files."""
        paths, offsets = [""] * len(files), np.zeros(len(files), np.int64)
        for shard in range(2):
            name, offset = str(tmp_path / f"{shard}.tfrecord"), 0
            with tf.io.TFRecordWriter(name) as writer:
                for row in reversed(range(shard, len(files), 2)):
                    content = Path(files.paths[row]).read_bytes()
                    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[content]))
                    features = tf.train.Features(feature={"image": feature})
                    record = tf.train.Example(features=features).SerializeToString()
                    writer.write(record)
                    paths[row], offsets[row] = name, offset
                    # A record is its length, that number's checksum, the bytes, their checksum.
                    offset += 8 + 4 + len(record) + 4
        return Examples(
            files.names, files.labels, files.class_names, paths=tuple(paths), offsets=offsets
        )

    def test_same_batches_as_from_files(self, files, packed):
        arguments = {"image_size": 24, "batch_size": 4, "seed": 3, "epochs": 2}
        pairs = zip(
            pipeline.training_dataset(files, files.labels, **arguments),
            pipeline.training_dataset(packed, packed.labels, **arguments),
            strict=True,
        )
        for (x, y), (x_packed, y_packed) in pairs:
            np.testing.assert_array_equal(y, y_packed)
            for key in x:
                np.testing.assert_array_equal(x[key], x_packed[key])

    def test_damage_is_named(self, packed):
        path = Path(packed.paths[2])
        content = bytearray(path.read_bytes())
        content[packed.offsets[2] + 40] ^= 0xFF
        path.write_bytes(content)
        data = pipeline.evaluation_dataset(packed, packed.labels, image_size=24, batch_size=4)
        with pytest.raises(UserError, match=rf"{path} \({packed.names[2]}\): cannot be decoded"):
            with pipeline.naming_broken_images(packed):
                list(data)


def test_the_fifth_number_alone_decides_a_flip():
    """The fifth number alone decides, not one that the crop is made of."""
    for flipped in (False, True):
        drawn = tf.constant([[0.9, 0.1][flipped]] * 4 + [[0.1, 0.9][flipped]])
        assert bool(dataset_elements.draw_flip(drawn, True)) == (not flipped)
    drawn = dataset_elements.draw(tf.constant([1, 2]), 4000).numpy()
    flips = np.array([bool(dataset_elements.draw_flip(tf.constant(x), True)) for x in drawn[:400]])
    assert abs(flips.mean() - 0.5) < 0.1
