"""What data prepare writes, and the reader of it."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import struct
from pathlib import Path

import label_exports
import numpy as np
import pytest
import tensorflow as tf
import warm_process
from conftest import run
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from spml_tf import data, labels
from spml_tf.datasets import image_writers, pipeline, readers, splits
from spml_tf.datasets.readers import Examples, prepared
from spml_tf.datasets.settings import DataSettings, resolved
from spml_tf.system import cli, files, folders, locks
from spml_tf.system.errors import UserError
from spml_tf.system.flag_fields import flag_field

SIDE = 20  # the photos of the miniature VOC have 40 x 48 pixels


def written(folder: Path) -> dict[str, bytes]:
    return {str(x.relative_to(folder)): x.read_bytes() for x in folder.rglob("*") if x.is_file()}


def voc_words(root: Path, folder: Path, *words: str) -> list[str]:
    return ["prepare", "--dataset=voc", f"--data_dir={root}", f"--output_dir={folder}", *words]


def load(*words: str) -> splits.Splits:
    """The data of a run with these flags."""
    import dataclasses

    options = dataclasses.make_dataclass(
        "Options", [("positives_per_image", float, flag_field(None, "", float))],
        bases=(DataSettings,), frozen=True,
    )  # fmt: skip
    given = cli.parse(words, options, "")
    return splits.load_splits(dataclasses.replace(given, **resolved(given)))


@pytest.fixture(scope="module")
def source(voc) -> splits.Splits:
    return load("--dataset=voc", f"--data_dir={voc}")


@pytest.fixture(scope="module")
def jpegs(voc, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("jpegs") / "out"
    words = voc_words(voc, folder, "--format=jpeg", f"--short_side={SIDE}", "--jpeg_quality=90")
    done = run(*words, module="data")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"prepared in {folder}\n"
    return folder


@pytest.fixture(scope="module")
def records(voc, tmp_path_factory) -> Path:
    """In TFRecord files of at least 4,000 bytes, so that there are several."""
    folder = tmp_path_factory.mktemp("records") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_writers, "_SHARD_BYTES", 4000)
        assert data.main(voc_words(voc, folder, "--format=tfrecord")) == 0
    return folder


class TestLabels:
    def test_another_process_gets_the_same_data(self, voc, tmp_path):
        """labels.csv with other seeds on the command line, which it overrides."""
        folder = tmp_path / "out"
        assert data.main(voc_words(voc, folder, "--label_seed=5", "--data_seed=6")) == 0
        assert set(written(folder)) == {".written.json", "labels.csv", "data.json"}
        record = json.loads((folder / "data.json").read_text())
        done = run(
            "summary", "--dataset=voc", f"--data_dir={voc}", f"--train_labels={folder}/labels.csv",
            f"--output_dir={tmp_path}/s", module="data",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        summary = json.loads((tmp_path / "s" / "summary.json").read_text())
        assert summary["fingerprint"] == record["fingerprint"]
        assert summary["observed"]["digest"] == record["observed_digest"]
        other = load("--dataset=voc", f"--data_dir={voc}")
        assert other.fingerprint() != record["fingerprint"]

    def test_what_is_recorded(self, voc, source, tmp_path):
        folder = tmp_path / "out"
        assert data.main(voc_words(voc, folder)) == 0
        record = json.loads((folder / "data.json").read_text())
        assert record["images"] == {"train": 19, "val": 5, "test": 8}  # round(0.2 * 24) = 5
        assert record["observed_digest"] == labels.digest(source.observed)
        assert record["fingerprint"] == source.fingerprint()
        assert record["positives_per_image"] == (source.val.labels == 1).sum() / 5
        assert record["class_names"] == list(source.train.class_names)
        assert record["flags"]["dataset"] == "voc" and record["flags"]["label_seed"] == 1200
        assert str(voc) not in (folder / "data.json").read_text()
        assert record["format"] == "labels" and len(record["notes"]) == len(source.notes)

    def test_a_file_of_labels_is_recorded_without_its_folder(self, voc, tmp_path):
        assert data.main(voc_words(voc, tmp_path / "a")) == 0
        words = [f"--train_labels={tmp_path}/a/labels.csv"]
        assert data.main(voc_words(voc, tmp_path / "b", *words)) == 0
        record = json.loads((tmp_path / "b" / "data.json").read_text())
        assert record["flags"]["train_labels"] == "labels.csv"
        assert (tmp_path / "a" / "labels.csv").read_bytes() == (
            tmp_path / "b" / "labels.csv"
        ).read_bytes()


def assert_same_labels(found: splits.Splits, source: splits.Splits) -> None:
    assert (found.observed == source.observed).all()
    assert found.positives_per_image == source.positives_per_image
    for name, part in source.parts.items():
        other = found.parts[name]
        assert other.names == part.names and other.class_names == part.class_names
        assert (other.labels == part.labels).all()


class TestJpegs:
    def test_labels_and_names_stay(self, jpegs, source):
        found = load("--dataset=prepared", f"--data_dir={jpegs}")
        assert_same_labels(found, source)
        assert found.held_out == () and found.train.boxes is None

    def test_photos_are_resized(self, jpegs, source):
        """40 x 48 to a short side of 20: 20 x 24, as Pillow shrinks what is decoded."""
        found = prepared.load(jpegs, "val")
        assert found.names == source.val.names
        for path, name, original in zip(found.paths, found.names, source.val.paths, strict=True):
            assert path == f"{jpegs}/images/val/{name}"
            with Image.open(path) as image, Image.open(original) as whole:
                assert image.size == (24, 20)
                expected = io.BytesIO()
                whole.resize((24, 20), Image.Resampling.LANCZOS).save(expected, "JPEG", quality=90)
            assert np.abs(pixels(Path(path).read_bytes()) - pixels(expected.getvalue())).mean() < 1

    def test_small_photos_stay_as_they_are(self, voc, source, tmp_path):
        folder = tmp_path / "out"
        assert data.main(voc_words(voc, folder, "--format=jpeg", "--short_side=40")) == 0
        found = load("--dataset=prepared", f"--data_dir={folder}")
        for part, other in zip(source.parts.values(), found.parts.values(), strict=True):
            for path, copy in zip(part.paths, other.paths, strict=True):
                assert Path(path).read_bytes() == Path(copy).read_bytes()

    def test_mistakes(self, voc, tmp_path, capsys):
        for words, message in (
            (voc_words(voc, tmp_path / "o", "--format=jpeg"), "give --short_side=PIXELS"),
            (voc_words(voc, tmp_path / "o", "--short_side=9"), "give --format=jpeg or tfrecord"),
            (
                ["prepare", "--format=jpeg", "--short_side=9", f"--output_dir={tmp_path}/o"],
                "digits is in memory; give --format=tfrecord",
            ),
            (voc_words(voc, voc), "no earlier result of this command"),
            (voc_words(voc, tmp_path / "o", "--format=png"), "--format=png"),
        ):
            assert data.main(words) == 1
            error = capsys.readouterr().err.splitlines()[-1]
            assert message in error or message.replace("=", "") in error, error
        assert list(tmp_path.iterdir()) == []


def pixels(contents: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(contents)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def examples_of(folder: Path, contents: list[bytes], boxes: bool = False) -> splits.Splits:
    """Files in a folder as the three splits of a data set of one class."""
    for number, content in enumerate(contents):
        (folder / f"{number}.jpg").write_bytes(content)
    names = tuple(f"{number}.jpg" for number in range(len(contents)))
    rows = tuple(np.array([[0, 0, 0, 0.5, 1]], np.float32) for _ in names) if boxes else None
    part = Examples(
        names, np.ones((len(names), 1), np.int8), ("c",),
        paths=tuple(str(folder / name) for name in names), boxes=rows,
    )  # fmt: skip
    return splits.Splits(part, part.labels, part, None, (), 1.0, ())


class TestOrientation:
    @pytest.fixture
    def photos(self) -> list[bytes]:
        """A gradient photo of 60 x 40 pixels, once for each EXIF orientation 1..8."""
        ramp = np.zeros((40, 60, 3), np.uint8)
        ramp[..., 0], ramp[..., 1] = np.arange(60) * 4, np.arange(40)[:, None] * 6
        encoded = []
        for number in range(1, 9):
            exif, buffer = Image.Exif(), io.BytesIO()
            exif[0x0112] = number
            Image.fromarray(ramp).save(buffer, "JPEG", exif=exif, quality=98)
            encoded.append(buffer.getvalue())
        return encoded

    @pytest.mark.parametrize("side", [20, 40, 100])
    def test_photos_are_turned_upright(self, photos, tmp_path, side):
        """As Pillow's own exif_transpose shows them, at each size, small ones included."""
        from PIL import ImageOps

        form = prepared.ImageForm("jpeg", side, 98)
        found = examples_of(tmp_path, photos)
        image_writers.write_images(tmp_path, found, form, 2)
        for number, content in enumerate(photos):
            with Image.open(io.BytesIO(content)) as image:
                upright = ImageOps.exif_transpose(image)
            scale = min(side / 40, 1)
            size = (round(upright.width * scale), round(upright.height * scale))
            with Image.open(tmp_path / f"images/train/{number}.jpg") as turned:
                assert turned.size == size and turned.getexif().get(0x0112, 1) == 1
                difference = np.asarray(turned).astype(int) - np.asarray(upright.resize(size))
            assert np.abs(difference).mean() < 4

    def test_boxes_are_those_of_the_upright_photos(self, photos, tmp_path):
        form = prepared.ImageForm("tfrecord", 20, 98)
        found = examples_of(tmp_path, photos, boxes=True)
        image_writers.write_images(tmp_path, found, form, 2)
        back = prepared.load(tmp_path, "train")
        assert [rows.tolist() for rows in back.boxes] == [[[0, 0, 0, 0.5, 1]]] * 8
        assert [areas.tolist() for areas in back.areas] == [[0.5]] * 8
        for number, example in enumerate(records_of(tmp_path, "train")):
            image = pixels(example.features.feature["image"].bytes_list.value[0])
            assert image.shape == ((20, 30, 3) if number < 4 else (30, 20, 3))


def test_weights_of_photos_go_with_them(tmp_path):
    """A column of weights, prepared; the prepared photos are weighted without a flag."""
    for number in range(6):
        Image.new("RGB", (30, 30), (number * 40,) * 3).save(tmp_path / f"{number}.png")
    rows = "".join(f"{n}.png,{n % 2},{1 - n % 2},{n / 4}\n" for n in range(6))
    (tmp_path / "t.csv").write_text(f"image,cat,dog,w\n{rows}")
    words = ["--dataset=folder", f"--data_dir={tmp_path}", "--train_csv=t.csv"]
    words += ["--val_csv=t.csv", "--weight_column=w", "--format=jpeg", "--short_side=20"]
    assert data.main(["prepare", *words, f"--output_dir={tmp_path / 'out'}"]) == 0
    found = prepared.load(tmp_path / "out", "train")
    assert found.names == tuple(f"{n}.png" for n in range(6))
    assert found.weights.tolist() == [0, 0.25, 0.5, 0.75, 1, 1.25]
    assert found.weights.dtype == np.float32


def records_of(folder: Path, split: str) -> list[tf.train.Example]:
    """Every Example of a split, through TensorFlow's own reader."""
    paths = sorted(str(path) for path in folder.glob(f"{split}-*.tfrecord"))
    return [
        tf.train.Example.FromString(record)
        for record in tf.data.TFRecordDataset(paths).as_numpy_iterator()
    ]


class TestRecords:
    def test_anyone_can_read_them(self, records, source):
        for split, part in source.parts.items():
            found = records_of(records, split)
            assert len(found) == len(part)
            for row, example in enumerate(found):
                feature = example.features.feature
                assert feature["image"].bytes_list.value[0] == Path(part.paths[row]).read_bytes()
                assert feature["name"].bytes_list.value[0].decode() == part.names[row]
                positives = np.flatnonzero(part.labels[row] == 1)
                assert list(feature["label"].int64_list.value) == positives.tolist()

    def test_shards_are_full_and_named(self, records):
        names = sorted(path.name for path in records.glob("train-*.tfrecord"))
        count = len(names)
        assert count > 2
        assert names == [f"train-{i:05d}-of-{count:05d}.tfrecord" for i in range(count)]
        sizes = [(records / name).stat().st_size for name in names]
        assert min(sizes[:-1]) >= 4000

    def test_the_reader_gives_paths_and_offsets(self, records, source):
        found = load("--dataset=prepared", f"--data_dir={records}")
        assert_same_labels(found, source)
        for row in range(len(found.train)):
            with open(found.train.paths[row], "rb") as file:
                file.seek(found.train.offsets[row])
                length = struct.unpack("<QI", file.read(12))[0]
                example = tf.train.Example.FromString(file.read(length))
            name = example.features.feature["name"].bytes_list.value[0].decode()
            assert name == source.train.names[row]

    def test_training_sees_the_same_batches(self, records, source):
        found = load("--dataset=prepared", f"--data_dir={records}")
        words = {"image_size": 16, "batch_size": 8, "seed": 3}
        for (x, y), (other, labels_) in zip(
            pipeline.training_dataset(source.train, source.observed, **words),
            pipeline.training_dataset(found.train, found.observed, **words),
            strict=True,
        ):
            assert (y.numpy() == labels_.numpy()).all()
            for name in x:
                assert (x[name].numpy() == other[name].numpy()).all()

    def test_resized_records_and_records_as_a_source(self, records, source, tmp_path):
        """Prepared once more from the records: images of 20 x 24."""
        words = ["prepare", "--dataset=prepared", f"--data_dir={records}", "--format=tfrecord",
                 f"--short_side={SIDE}", f"--output_dir={tmp_path}/out"]  # fmt: skip
        assert data.main(words) == 0
        assert_same_labels(load("--dataset=prepared", f"--data_dir={tmp_path}/out"), source)
        for example in records_of(tmp_path / "out", "test"):
            image = example.features.feature["image"].bytes_list.value[0]
            assert pixels(image).shape == (20, 24, 3)

    def test_images_in_memory_become_png(self, tmp_path):
        """Sixteen of the digits, pixel by pixel, with their boxes."""
        digits = readers.load("digits", None, "val").subset(range(16))
        found = splits.Splits(digits, digits.labels, digits, None, (), 1.0, ())
        image_writers.write_images(tmp_path, found, prepared.ImageForm("tfrecord"), 2)
        back = prepared.load(tmp_path, "train")
        for row, example in enumerate(records_of(tmp_path, "train")):
            content = example.features.feature["image"].bytes_list.value[0]
            assert content.startswith(b"\x89PNG")
            assert (pixels(content) == digits.images[row]).all()
            assert (back.boxes[row] == digits.boxes[row]).all()
            assert (back.areas[row] == digits.areas[row]).all()


class TestWriting:
    def test_a_killed_command_goes_on(self, voc, records, tmp_path, tmp_path_factory, monkeypatch):
        """Killed while the second shard is written: the first is kept, and the result is equal."""
        monkeypatch.setattr(image_writers, "_SHARD_BYTES", 4000)
        words = voc_words(voc, tmp_path / "out", "--format=tfrecord", "--threads=1")
        program = (
            "import os, signal\n"
            "from spml_tf import data; from spml_tf.datasets import image_writers as w\n"
            "w._SHARD_BYTES = 4000; first = w._write_shard\n"
            "def shard(path, records):\n"
            "    if path.name.endswith('1.tfrecord'):\n"
            "        open(path.with_name('.unfinished-' + path.name), 'wb').write(b'cut')\n"
            "        os.kill(os.getpid(), signal.SIGKILL)\n"
            "    return first(path, records)\n"
            f"w._write_shard = shard; data.main({words!r})"
        )
        place = tmp_path_factory.mktemp("script")
        (place / "script.py").write_text(program)
        done = warm_process.run("script", [], place)
        assert done.returncode == -signal.SIGKILL
        work = tmp_path / ".unfinished-out"
        assert sorted(x.name for x in tmp_path.iterdir()) == [work.name, f"{work.name}.lock"]
        kept = (work / "train-00000.tfrecord").stat()
        assert data.main(words) == 0
        assert [x.name for x in tmp_path.iterdir()] == ["out"]
        ours, theirs = written(tmp_path / "out"), written(records)
        assert ours == theirs
        shard = sorted((tmp_path / "out").glob("train-00000-of-*"))[0].stat()
        assert (shard.st_ino, shard.st_mtime_ns) == (kept.st_ino, kept.st_mtime_ns)

    def test_finished_jpegs_are_kept_and_other_parameters_start_anew(
        self, voc, jpegs, tmp_path, monkeypatch
    ):
        folder, work = tmp_path / "out", tmp_path / ".unfinished-out"
        words = voc_words(voc, folder, "--format=jpeg", f"--short_side={SIDE}", "--threads=1")
        first, count = image_writers._encode_pixels, []

        def full(*arguments):
            count.append(1)
            if len(count) == 11:
                raise OSError(28, "No space left on device")
            return first(*arguments)

        monkeypatch.setattr(image_writers, "_encode_pixels", full)
        assert data.main([*words, "--jpeg_quality=90"]) == 1
        kept = len(list(work.rglob("*.jpg")))
        assert not folder.exists() and 10 <= kept < 32
        count[:] = [1] * 11
        assert data.main([*words, "--jpeg_quality=90"]) == 0
        assert len(count) == 11 + 32 - kept and not work.exists()
        assert written(folder) == written(jpegs)

        shutil.rmtree(folder)
        count[:] = []
        assert data.main([*words, "--jpeg_quality=90"]) == 1
        count[:] = [1] * 11
        assert data.main([*words, "--jpeg_quality=50"]) == 0
        assert len(count) == 11 + 32

    def test_stopped_while_all_is_flushed_it_goes_on(self, voc, tmp_path, monkeypatch):
        """Which takes minutes for many photos: they are not encoded anew."""
        folder, work = tmp_path / "out", tmp_path / ".unfinished-out"
        words = voc_words(voc, folder, "--format=jpeg", f"--short_side={SIDE}", "--threads=1")

        def stop(_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(folders, "_flush_tree", stop)
            assert data.main(words) == 130
        kept = {path: path.stat().st_ino for path in work.rglob("*.jpg")}
        assert len(kept) == 32 and not folder.exists()
        assert data.main(words) == 0 and not work.exists()
        assert {
            work / x.relative_to(folder): x.stat().st_ino for x in folder.rglob("*.jpg")
        } == kept
        assert not (folder / "parameters.json").exists()

    def test_a_broken_image_stops_it(self, voc, jpegs, tmp_path, capsys):
        root, folder = shutil.copytree(voc, tmp_path / "voc"), tmp_path / "out"
        shutil.copytree(jpegs, folder)
        before = written(folder)
        photo = root / "JPEGImages" / "2008_train004.jpg"
        photo.write_bytes(photo.read_bytes()[:300])
        for words in (["--format=tfrecord"], ["--format=jpeg", "--short_side=8"]):
            assert data.main(voc_words(root, folder, "--overwrite", *words)) == 1
            error = capsys.readouterr().err.splitlines()[-1]
            assert error == f"error: {photo}: truncated; repair or remove it"
            assert written(folder) == before

    def test_what_is_replaced(self, voc, tmp_path, capsys):
        folder = tmp_path / "out"
        assert data.main(voc_words(voc, folder)) == 0
        before = written(folder)
        assert data.main(voc_words(voc, folder, "--label_seed=1")) == 1
        assert "holds an earlier result" in capsys.readouterr().err
        assert written(folder) == before
        assert data.main(voc_words(voc, folder, "--label_seed=1", "--overwrite")) == 0
        assert written(folder) != before
        for content in ("[]", '{"written_by": 1}', "no json"):
            (folder / "data.json").write_text(content)
            assert data.main(voc_words(voc, folder, "--overwrite")) == 1
            assert "no earlier result" in capsys.readouterr().err
        assert sorted(x.name for x in tmp_path.iterdir()) == ["out"]

    def test_data_that_are_read_are_not_replaced(self, jpegs, tmp_path, capsys):
        """The data's own folder and the one above, even where it looks like a result."""
        shutil.copytree(jpegs, tmp_path / "out" / "inner")
        shutil.copy(jpegs / "data.json", tmp_path / "out" / "data.json")
        before = written(tmp_path / "out")
        for output in (tmp_path / "out", tmp_path / "out" / "inner"):
            words = ["prepare", "--dataset=prepared", f"--data_dir={tmp_path}/out/inner",
                     f"--output_dir={output}", "--overwrite", "--format=labels"]  # fmt: skip
            assert data.main(words) == 1
            assert "holds the data that are read; choose another" in capsys.readouterr().err
        assert written(tmp_path / "out") == before

    def test_flags_are_recorded_as_they_were_given_but_for_paths(self, tmp_path):
        root = tmp_path / "photos"
        label_exports.write_photos(root, ["a.jpg", "b.jpg", "c.jpg"])
        rows = "image,labels\n/content/photos/a.jpg,cat/dog\n/content/photos/b.jpg,cat\n"
        (root / "t.csv").write_text(rows)
        (root / "v.csv").write_text("image,labels\n/content/photos/c.jpg,dog\n")
        words = ["prepare", "--dataset=folder", f"--data_dir={root}", f"--train_csv={root}/t.csv",
                 f"--val_csv={root}/v.csv", "--label_separator=/",
                 "--strip_prefix=/content/photos/", f"--output_dir={tmp_path}/out"]  # fmt: skip
        assert data.main(words) == 0
        found = json.loads((tmp_path / "out" / "data.json").read_text())["flags"]
        assert (found["label_separator"], found["strip_prefix"]) == ("/", "/content/photos/")
        assert (found["train_csv"], found["val_csv"]) == ("t.csv", "v.csv")

    def test_two_at_once(self, voc, tmp_path, capsys):
        with locks.locked(tmp_path / ".unfinished-out.lock", "cannot happen"):
            assert data.main(voc_words(voc, tmp_path / "out")) == 1
        assert "another process writes it" in capsys.readouterr().err

    def test_damaged_parameters_start_anew(self, voc, tmp_path):
        work = tmp_path / ".unfinished-out"
        work.mkdir()
        (work / "parameters.json").write_text("{")
        (work / "train-00000.tfrecord").write_bytes(b"old")
        assert data.main(voc_words(voc, tmp_path / "out")) == 0
        assert set(written(tmp_path / "out")) == {".written.json", "labels.csv", "data.json"}


class TestFileNames:
    def test_by_hand(self):
        names = ["a.jpg", "A.JPG", "b.png", "b.png.jpg", "../c.jpg", "/d.jpg", "e/f.JPEG", "e//g",
                 "h.jpg/i.jpg", "h.jpg", "k" * 300, "l\n.jpg", "m\\n.jpg", "", "ä.jpg"]  # fmt: skip
        assert image_writers.file_names(names) == [
            "a.jpg", "_numbered/00000001.jpg", "b.png.jpg", "_numbered/00000003.jpg",
            "_numbered/00000004.jpg", "_numbered/00000005.jpg", "e/f.JPEG",
            "_numbered/00000007.jpg", "h.jpg/i.jpg", "_numbered/00000009.jpg",
            "_numbered/00000010.jpg", "_numbered/00000011.jpg", "_numbered/00000012.jpg", ".jpg",
            "ä.jpg",
        ]  # fmt: skip

    @given(st.lists(st.text(alphabet="aB./_\\\0é", max_size=6), unique=True, max_size=12))
    def test_files_are_unique_and_stay_inside(self, names):
        found = image_writers.file_names(names)
        assert len({name.casefold() for name in found}) == len(names)
        for name in found:
            assert name.lower().endswith((".jpg", ".jpeg")) and "\0" not in name
            assert os.path.normpath(name) == name
            assert not name.startswith("/") and ".." not in name.split("/")
            assert not any(other.startswith(name + "/") for other in found)


def broken_index(path: Path, **changes) -> None:
    with np.load(path) as saved:
        arrays = dict(saved)
    arrays |= changes
    np.savez(path, **{name: x for name, x in arrays.items() if x is not None})


class TestReader:
    @pytest.fixture
    def copy(self, jpegs, tmp_path) -> Path:
        return shutil.copytree(jpegs, tmp_path / "copy")

    def test_splits(self, copy):
        assert prepared.splits(copy) == ("train", "val", "test")
        (copy / "test.npz").unlink()
        assert prepared.splits(copy) == ("train", "val", "none")
        (copy / "train.npz").unlink()
        with pytest.raises(UserError, match=r"train\.npz is missing; name a folder"):
            prepared.splits(copy)
        with pytest.raises(UserError, match="train, val, test, found 'trainval'"):
            prepared.load(copy, "trainval")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"names": None}, "names is missing"),
            ({"files": None}, "files is missing"),
            ({"names": np.arange(8)}, "names is of type int64"),
            ({"labels": np.zeros((8, 20))}, "labels is of type float64"),
            ({"labels": np.full((8, 20), 3)}, "found 3 in row 0"),
            ({"labels": np.zeros((7, 20), int)}, "do not fit"),
            ({"names": np.array(["a"] * 8)}, "must be unique"),
            ({"file_numbers": np.arange(8) + 1}, "file_numbers do not fit"),
            ({"file_numbers": np.arange(8) - 1}, "file_numbers do not fit"),
            ({"file_numbers": np.arange(7)}, "8 names, but 7 paths"),
            ({"offsets": np.zeros(3, int)}, "3 offsets, 8 images"),
            ({"offsets": np.full(8, 10**9)}, "shorter than its index says"),
            ({"offsets": np.full(8, -1)}, "shorter than its index says"),
            ({"boxes": np.zeros((1, 5), np.float32)}, "boxes do not fit"),
            ({"observed": np.zeros((8, 3), int)}, "observed"),
            ({"weights": np.full(8, -1.0)}, "weights do not fit"),
            ({"weights": np.full(8, np.nan)}, "weights do not fit"),
            ({"weights": np.ones(7)}, "8 names, but 7 weights"),
            ({"names": np.array([None] * 8)}, "no index of prepared data, or damaged"),
        ],
    )
    def test_damaged_indices(self, copy, changes, message):
        broken_index(copy / "test.npz", **changes)
        with pytest.raises(UserError, match=message) as caught:
            prepared.load(copy, "test")
        assert "\n" not in str(caught.value) and str(copy) in str(caught.value)

    @pytest.mark.parametrize(
        ("boxes", "fits"),
        [
            ([[0, 0.1, 0.1, 0.5, 0.5]], True),
            ([[20, 0.1, 0.1, 0.5, 0.5]], False),
            ([[-1, 0.1, 0.1, 0.5, 0.5]], False),
            ([[0, 0.1, 0.1, 0.5, 1.5]], False),
            ([[0, 0.1, 0.1, 0.5, np.nan]], False),
            ([[np.nan, 0.1, 0.1, 0.5, 0.5]], False),
            ([[0, 0.1, 0.1, 0.5, 0.5]] * 2, False),
            ([[0.1, 0.1, 0.5, 0.5]], False),
        ],
    )
    def test_boxes(self, copy, boxes, fits):
        counts = np.array([0, 1, 0, 0, 0, 0, 0, 0])
        boxes = np.array(boxes, np.float32)
        broken_index(
            copy / "test.npz",
            boxes=boxes,
            box_counts=counts,
            areas=np.full(len(boxes), 0.25, np.float32),
        )
        if fits:
            found = prepared.load(copy, "test")
            assert [len(rows) for rows in found.boxes] == counts.tolist()
            assert found.areas[1] == 0.25
        else:
            with pytest.raises(UserError, match="boxes do not fit"):
                prepared.load(copy, "test")

    def test_cut_and_foreign_files(self, copy):
        path = copy / "test.npz"
        whole = path.read_bytes()
        contents = [b"", b"PK", b"text", *(whole[:cut] for cut in range(0, len(whole), 997))]
        buffer = io.BytesIO()
        np.save(buffer, np.zeros(3))
        contents += [buffer.getvalue(), whole[:700] + bytes(200) + whole[900:]]
        for content in contents:
            path.write_bytes(content)
            with pytest.raises(UserError, match=r"test\.npz: "):
                prepared.load(copy, "test")
        path.unlink()
        with pytest.raises(UserError, match="cannot be read .No such file"):
            prepared.load(copy, "test")
        path.mkdir()
        with pytest.raises(UserError, match="cannot be read .Is a directory"):
            prepared.load(copy, "test")

    def test_missing_images_and_images_elsewhere(self, copy, tmp_path):
        photo = Path(prepared.load(copy, "test").paths[2])
        photo.rename(tmp_path / "elsewhere.jpg")
        with pytest.raises(UserError, match="the photo is missing .1 of 8"):
            prepared.load(copy, "test")
        photo.symlink_to(tmp_path / "elsewhere.jpg")
        with pytest.raises(UserError, match="allow_outside"):
            prepared.load(copy, "test")
        assert len(prepared.load(copy, "test", allow_outside=True)) == 8

    def test_cut_records(self, records, tmp_path):
        copy = shutil.copytree(records, tmp_path / "copy")
        path = sorted(copy.glob("test-*.tfrecord"))[0]
        path.write_bytes(path.read_bytes()[:20])
        with pytest.raises(UserError, match="shorter than its index says"):
            prepared.load(copy, "test")

    def test_failed_write_leaves_nothing(self, tmp_path, monkeypatch):
        def fail(*_):
            raise OSError(28, "No space left on device")

        part = examples_of(tmp_path, [b"x"]).train
        monkeypatch.setattr(files.os, "fsync", fail)
        with pytest.raises(OSError, match="No space"):
            prepared.write_index(tmp_path / "train.npz", part, ["0.jpg"], [0])
        assert [x.name for x in tmp_path.iterdir()] == ["0.jpg"]


def test_check_names_damaged_records(records, tmp_path, capsys):
    """One byte changed inside a record: its checksum does not fit, as training would find."""
    copy = shutil.copytree(records, tmp_path / "copy")
    found = prepared.load(copy, "test")
    path = Path(found.paths[1])
    content = bytearray(path.read_bytes())
    content[int(found.offsets[1]) + 300] ^= 1
    path.write_bytes(content)
    assert data.main(["check", "--dataset=prepared", f"--data_dir={copy}"]) == 1
    out, error = capsys.readouterr()
    place = f"{path} ({found.names[1]})"
    assert f"error: {place}: its record is damaged\n" in out
    assert (
        f"1 of 32 images cannot be decoded, the first is {place} (its record is damaged)" in error
    )
