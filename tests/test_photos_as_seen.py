"""Photos as people see them: EXIF orientations, formats that Pillow decodes, large JPEGs."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import run
from PIL import Image, ImageOps
from saved_runs import table_rows

from spml_tf.datasets import (
    dataset_elements,
    encoded_images,
    image_checks,
    image_headers,
    images,
    other_formats,
    pipeline,
)
from spml_tf.datasets.readers import Examples, objects
from spml_tf.exports import saved_model
from spml_tf.exports.exported import exported
from spml_tf.system.errors import UserError

COUNT = 20


def encoded(pixels: np.ndarray, kind: str, orientation: int = 1, **more) -> bytes:
    exif, stream = Image.Exif(), io.BytesIO()
    exif[0x010F] = "Maker"
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(stream, kind, exif=exif, **more)
    return stream.getvalue()


def picture(seed: int, height: int = 40, width: int = 56) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def as_pillow_turns(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Through a lossless file and Pillow's own exif_transpose."""
    with Image.open(io.BytesIO(encoded(pixels, "PNG", orientation))) as image:
        return np.asarray(ImageOps.exif_transpose(image))


@pytest.fixture(scope="module")
def twins(tmp_path_factory) -> tuple[Path, Path]:
    """Two folders of 20 photos: JPEGs of all orientations, and the same pixels upright, as PNG."""
    root = tmp_path_factory.mktemp("twins")
    turned, upright = root / "turned", root / "upright"
    voc = Path(os.environ.get("SPML_TF_TEST_DATA", "absent"), "VOCdevkit/VOC2012/JPEGImages")
    real = sorted(voc.glob("*.jpg"))[:COUNT] if voc.is_dir() else []
    for folder in (turned, upright):
        for name in ("cat", "dog"):
            (folder / name).mkdir(parents=True)
    for number in range(COUNT):
        pixels = np.asarray(Image.open(real[number]).reduce(2)) if real else picture(number)
        orientation, name = number % 8 + 1, f"{('cat', 'dog')[number % 2]}/{number:02d}.JPG"
        content = encoded(pixels, "JPEG", orientation, quality=92)
        (turned / name).write_bytes(content)
        stored = images.decode_image(encoded_without_exif(content)).numpy()
        seen = as_pillow_turns(stored, orientation)
        (upright / name).write_bytes(encoded(seen, "PNG"))
    return turned, upright


def encoded_without_exif(content: bytes) -> bytes:
    """A JPEG without its EXIF part, which comes before all tables; the pixels' bytes are kept."""
    start = content.index(b"\xff\xe1")
    return content[:start] + content[start + 2 + int.from_bytes(content[start + 2 : start + 4]) :]


def examples_of(folder: Path) -> Examples:
    names = tuple(sorted(str(p.relative_to(folder)) for p in folder.glob("*/*")))
    paths = tuple(str(folder / name) for name in names)
    return Examples(names, np.ones((len(names), 1), np.int8), ("c",), paths=paths)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_orientation(kind, orientation):
    content = encoded(picture(1), kind, orientation)
    assert int(image_headers.orientation(tf.constant(content))) == orientation
    stored = images.decode_image(encoded(picture(1), "PNG")).numpy()
    if kind == "JPEG":
        stored = images.decode_image(encoded_without_exif(content)).numpy()
    seen = as_pillow_turns(stored, orientation)
    np.testing.assert_array_equal(images.decode_image(content).numpy(), seen)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[:30],
        lambda x: x.replace(b"MM\0*", b"XX\0*"),
        lambda x: x.replace(b"MM\0*\0\0\0\x08", b"MM\0*\xff\xff\xff\xff"),
        lambda x: x.replace(b"\x01\x12\0\x03\0\0\0\x01\0\x06", b"\x01\x12\0\x03\0\0\0\x01\0\x63"),
        lambda x: x.replace(b"\x01\x12\0\x03", b"\x01\x12\0\x07"),
        lambda x: x[:4] + b"\0\0" + x[6:],
        lambda x: x[:4] + b"\xff\xff" + x[6:],
        lambda x: b"Exif\0\0",
        lambda x: b"\x89PNG\r\n\x1a\neXIf",
        lambda x: b"\xff\xd8" + b"\xff\xe1\0\x02" * 1000 + b"Exif\0\0",
    ],
)
def test_malformed_exif_data_count_as_upright(change):
    content = encoded(picture(1), "JPEG", 6)
    assert b"\x01\x12\0\x03\0\0\0\x01\0\x06" in content and b"MM\0*\0\0\0\x08" in content
    assert int(image_headers.orientation(tf.constant(change(content)))) == 1


def test_little_endian():
    content = encoded(picture(1), "JPEG", 1)
    exif = Image.Exif()
    exif.endian = "<"
    exif[0x0112] = 8
    stream = io.BytesIO()
    Image.open(io.BytesIO(content)).save(stream, "JPEG", exif=exif)
    assert b"II*\0" in stream.getvalue()
    assert int(image_headers.orientation(tf.constant(stream.getvalue()))) == 8


def test_twins_enter_training_and_evaluation_alike(twins):
    """Pixels, crop boxes and flips, equal to the bit."""
    found = []
    for folder in twins:
        examples = examples_of(folder)
        common = {"image_size": 24, "batch_size": COUNT}
        trained = pipeline.training_dataset(examples, examples.labels, seed=3, epochs=2, **common)
        evaluated = pipeline.evaluation_dataset(examples, examples.labels, **common)
        found.append([x for data in (trained, evaluated) for x, _ in data.as_numpy_iterator()])
    for turned, upright in zip(*found, strict=True):
        for part in ("index", "box", "flip", "image"):
            np.testing.assert_array_equal(turned[part], upright[part])


def test_twins_are_predicted_alike(twins, tmp_path):
    """By serve_bytes, and by predict through processes."""
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [keras.layers.Input((24, 24, 3)), keras.layers.Rescaling(1 / 255),
         keras.layers.Conv2D(2, 8, 8)]
    )  # fmt: skip
    export = tmp_path / "export"
    classes = {
        "class_names": ["a", "b"], "thresholds": {"a": 0.5, "b": 0.5}, "image_size": 24,
        "max_megapixels": 100,
    }  # fmt: skip
    saved_model.write(exported(network, classes), export)
    (export / "classes.json").write_text(json.dumps(classes))
    model = tf.saved_model.load(str(export))
    scores, tables = [], []
    for number, folder in enumerate(twins):
        files = [Path(path).read_bytes() for path in examples_of(folder).paths]
        scores.append(model.serve_bytes(tf.constant(files))["probabilities"].numpy())
        output = tmp_path / f"{number}.csv"
        done = run(
            f"--model_dir={export}", f"--images={folder}/*/*.JPG", f"--output={output}",
            module="predict",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        tables.append([row[1:] for row in csv.reader(output.read_text().splitlines())])
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-5)
    assert np.ptp(scores[0], axis=0).min() > 0.01
    assert tables[0] == tables[1] and len(tables[0]) == COUNT + 1
    told = [[float(row[0]), float(row[2])] for row in tables[0][1:]]
    np.testing.assert_allclose(told, scores[0], atol=1e-5)


def other_kinds() -> dict[str, bytes]:
    import pillow_heif

    pillow_heif.register_heif_opener()
    made = {}
    for kind, more in (
        ("WEBP", {"lossless": True}), ("TIFF", {}), ("AVIF", {"quality": 95}),
        ("HEIF", {"quality": 95}),
    ):  # fmt: skip
        stream = io.BytesIO()
        Image.fromarray(picture(5)).save(stream, kind, **more)
        made[kind] = stream.getvalue()
    return made


def test_formats_that_pillow_decodes(tmp_path):
    """In training, evaluation and check; those without loss to the bit."""
    made = other_kinds()
    (tmp_path / "c").mkdir()
    for kind, content in made.items():
        (tmp_path / "c" / f"{kind}.{kind}").write_bytes(content)
    examples = examples_of(tmp_path)
    common = {"image_size": 40, "batch_size": 4}
    inputs = next(iter(pipeline.evaluation_dataset(examples, examples.labels, **common)))[0]
    next(iter(pipeline.training_dataset(examples, examples.labels, seed=1, **common)))
    expected = images.resize(tf.constant(picture(5)), 40).numpy()
    for name, image in zip(examples.names, inputs["image"].numpy(), strict=True):
        exact = "WEBP" in name or "TIFF" in name
        # That of another picture is over 50.
        assert np.abs(image - expected).mean() <= (0 if exact else 8), name
    report = image_checks.check({"train": examples}, 1)
    assert not report.errors and len(report.findings) == 4


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_tiffs_of_16_bits(order):
    """The upper eight bits count."""
    deep = np.array([[0, 255, 256], [25600, 40000, 65535]]).astype(order)
    stream = io.BytesIO()
    mode = "I;16" if order == "<u2" else "I;16B"
    Image.frombytes(mode, (3, 2), deep.tobytes()).save(stream, "TIFF")
    pixels = encoded_images.decode(stream.getvalue())
    assert pixels[..., 0].tolist() == [[0, 0, 1], [100, 156, 255]]
    assert (pixels == pixels[..., :1]).all()


def test_tiffs_of_32_bits_are_refused():
    stream = io.BytesIO()
    Image.new("F", (3, 2), 0.5).save(stream, "TIFF")
    with pytest.raises(encoded_images.BrokenImageError, match="convert it to 8 bits"):
        encoded_images.decode(stream.getvalue())


def test_a_broken_one_is_named(tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "a.webp").write_bytes(other_kinds()["WEBP"][:60])
    examples = examples_of(tmp_path)
    data = pipeline.evaluation_dataset(examples, examples.labels, image_size=8, batch_size=1)
    with pytest.raises(ValueError, match=r"c/a\.webp: cannot be decoded \(.*damaged"):
        with pipeline.naming_broken_images(examples):
            list(data)


def test_large_ones_are_refused():
    with pytest.raises(ValueError, match="56 x 40 pixels, more than --max_megapixels=0.001"):
        other_formats.as_bitmap(other_kinds()["TIFF"], 0.001)
    with pytest.raises(encoded_images.BrokenImageError, match="56 x 40 pixels"):
        encoded_images.decode(other_kinds()["WEBP"], 0.001)


@pytest.mark.parametrize("kind", ["TIFF", "WEBP", "PNG"])
def test_pillows_own_limit_is_none_of_ours(kind, tmp_path, monkeypatch, recwarn):
    """It warns from so many pixels on, and from twice as many on it refuses: here 56 x 40."""
    content = other_kinds().get(kind)
    for limit in (2000, 1000):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        if content is None:
            Image.new("L", (56, 40)).save(tmp_path / "mask.png")
            assert objects.read_mask(str(tmp_path / "mask.png"), 1).shape == (40, 56)
            with pytest.raises(UserError, match=r"mask.png: 56 x 40 pixels, more than --max_meg"):
                objects.read_mask(str(tmp_path / "mask.png"), 1, 0.001)
            assert encoded_images.header((tmp_path / "mask.png").read_bytes()).mode == "L"
        else:
            assert encoded_images.decode(content).shape == (40, 56, 3)
            assert other_formats.stored(content)[1] == (40, 56)
        assert Image.MAX_IMAGE_PIXELS == limit
    assert not recwarn.list


@pytest.mark.parametrize("orientation", [1, 6])
def test_large_jpegs_are_decoded_at_a_part_of_their_size(orientation):
    """The pixels are those of the crop's box; no side falls below what is needed."""
    content = tf.constant(encoded(picture(2, 1500, 2000), "JPEG", orientation, quality=95))
    whole = images.decode_image(content).numpy()
    crop = tf.function(lambda drawn: images.decode_crop(content, drawn, (0.1, 1.0), needed=120))
    ratios = set()
    for seed in range(6):
        drawn = dataset_elements.draw(tf.constant([seed, 1]))[:4]
        part, box = crop(drawn)
        part = part.numpy()
        y1, x1, y2, x2 = np.rint(box.numpy() * np.tile(whole.shape[:2], 2)).astype(int)
        ratio = (y2 - y1) // part.shape[0]
        assert (y2 - y1, x2 - x1) == (ratio * part.shape[0], ratio * part.shape[1])
        assert min(part.shape[:2]) >= 120 and (ratio == 8 or min(part.shape[:2]) < 240)
        blocks = whole[y1:y2, x1:x2].reshape(*part.shape[:1], ratio, part.shape[1], ratio, 3)
        assert np.abs(blocks.mean(axis=(1, 3)) - part).mean() < 1.5
        ratios.add(ratio)
    assert len(ratios) > 1


def test_small_jpegs_are_decoded_as_ever():
    content = tf.constant(encoded(picture(2, 1000, 2000), "JPEG"))
    drawn = dataset_elements.draw(tf.constant([1, 1]))[:4]
    for needed in (None, 32):
        part, box = images.decode_crop(content, drawn, (0.25, 1.0), needed=needed)
        y1, x1, y2, x2 = np.rint(box.numpy() * [1000, 2000, 1000, 2000]).astype(int)
        whole = images.decode_image(content).numpy()
        np.testing.assert_array_equal(part, whole[y1:y2, x1:x2])


def test_photos_that_look_alike_are_listed(tmp_path):
    """Compressed anew and at another size; another photo, and one of one colour, are not."""
    photos = {"a": picture(1), "flat": np.full((40, 56, 3), 90, np.uint8)}
    other = {"b": picture(1, 60, 84), "c": picture(3), "flat2": np.full((50, 56, 3), 91, np.uint8)}
    parts = {}
    for split, made in (("train", photos), ("val", other)):
        (tmp_path / split / "c").mkdir(parents=True)
        for name, pixels in made.items():
            (tmp_path / split / "c" / f"{name}.jpg").write_bytes(encoded(pixels, "JPEG"))
        parts[split] = examples_of(tmp_path / split)
    found = [x for x in image_checks.check(parts, 1).findings if "looks like" in x.message]
    assert [Path(x.image).name for x in found] == ["b.jpg"]
    assert "train/c/a.jpg in train" in found[0].message and found[0].split == "val"


def test_skip_broken(tmp_path):
    """The note counts it."""
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(3):
                path = tmp_path / split / name / f"{number}.jpg"
                path.write_bytes(encoded(picture(number + len(name)), "JPEG"))
    (tmp_path / "train/dog/1.jpg").write_bytes(b"\xff\xd8\xff")
    words = [
        "--dataset=folder", f"--data_dir={tmp_path}", "--method=an", "--network=small_residual",
        "--weights=none", "--image_size=32", "--epochs=1", "--batch_size=2", "--keep_copies",
    ]  # fmt: skip
    done = run(*words, f"--output_dir={tmp_path / 'b'}", "--skip_broken")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "b" / "run.json").read_text())
    note = "1 of 6 photos cannot be decoded and are left out, the first is"
    assert note in done.stderr and any(note in x for x in record["notes"])
    assert record["images"]["train"] == 5


@pytest.mark.slow
def test_twins_are_trained_on_and_evaluated_alike(twins, tmp_path):
    """By the commands: losses, scores of both splits, and evaluation of the other twins."""
    runs, losses = [], []
    for folder in twins:
        runs.append(tmp_path / folder.name)
        done = run(
            "--dataset=folder", f"--data_dir={folder}", f"--output_dir={runs[-1]}", "--epochs=2",
            "--network=small_residual", "--weights=none", "--image_size=32", "--batch_size=8",
            "--method=en+scl", "--heatmap_size=8", "--selection_start_epoch=1",
            "--consistency_start_epoch=1", "--val_fraction=0.5", "--threads=1",
            "--positives_per_image=1",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        rows = table_rows(runs[-1] / "history.csv")
        losses.append([[float(row[x]) for x in ("loss", "val_loss", "val_map")] for row in rows])
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-5)
    scores = [np.load(path / "predictions_val.npz")["scores"] for path in runs]
    assert len(scores[0]) == COUNT // 2 and np.ptp(scores[0], axis=0).min() > 0
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-5)
    told = []
    for folder in twins:
        words = [f"--run_dir={runs[0]}", "--split=val", f"--data_dir={folder}"]
        done = run(*words, module="evaluate")
        assert done.returncode == 0, done.stderr
        told.append(json.loads(done.stdout))
    assert told[0] == told[1] and told[0]["images"] == COUNT // 2
