"""The data command: what check finds and what summary counts."""

from __future__ import annotations

import csv
import io
import json
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import warm_process
from conftest import run
from PIL import Image
from saved_runs import table_rows, wait_until

from spml_tf import data
from spml_tf.datasets import encoded_images, image_checks, summaries
from spml_tf.datasets.readers import Examples
from spml_tf.system import parallel, progress


def picture(seed: int = 0, height: int = 40, width: int = 48) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3)).astype(np.uint8))


def encode(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def oriented(number: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = number
    return encode(picture(10 + number), "JPEG", exif=exif)


def deep_png() -> bytes:
    return encode(Image.fromarray(np.arange(1600, dtype=np.uint16).reshape(40, 40)), "PNG")


def with_palette(kind: str) -> bytes:
    return encode(picture(3).quantize(8), kind)


def animation(kind: str) -> bytes:
    return encode(picture(4), kind, save_all=True, append_images=[picture(5)])


# File name -> (content, level, what the message holds); None: no finding.
CASES = {
    "good.jpg": (encode(picture(1), "JPEG"), None, ""),
    "good.png": (encode(picture(2), "PNG"), None, ""),
    "good.bmp": (encode(picture(30), "BMP"), None, ""),
    "good.gif": (encode(picture(31), "GIF"), None, ""),
    "upright.jpg": (oriented(1), None, ""),
    "empty.jpg": (b"", "error", "empty, 0 bytes"),
    "cut.jpg": (encode(picture(6), "JPEG")[:700], "error", "truncated"),
    "cut.png": (encode(picture(7), "PNG")[:700], "error", "truncated"),
    "cut.gif": (encode(picture(8), "GIF")[:700], "error", "truncated"),
    "cut.bmp": (encode(picture(9), "BMP")[:700], "error", "truncated"),
    "text.jpg": (b"<html>404</html>", "error", "not an image"),
    "word.jpg": (b"GIANT", "error", "not an image"),
    "scan.tif": (encode(picture(), "TIFF"), "note", "TIFF, decoded through Pillow"),
    "web.webp": (encode(picture(), "WEBP"), "note", "WebP, decoded through Pillow"),
    "phone.jpg": (
        b"\0\0\0\x18ftypheic" + bytes(50),
        "error",
        "damaged, or of a kind that cannot be decoded",
    ),
    "name.png": (encode(picture(20), "JPEG"), "note", "its suffix is .png, but it is a JPEG"),
    "deep.png": (deep_png(), "note", "16 bits per channel, reduced to 8"),
    "print.jpg": (encode(picture(21).convert("CMYK"), "JPEG"), "note", "CMYK, converted to RGB"),
    "gray.jpg": (encode(picture(22).convert("L"), "JPEG"), "note", "gray, converted to RGB"),
    "palette.png": (with_palette("PNG"), "note", "has a palette, converted to RGB"),
    "palette.bmp": (with_palette("BMP"), "note", "its palette is ignored"),
    "alpha.png": (encode(picture(23).convert("RGBA"), "PNG"), "note", "its alpha channel is"),
    "moving.gif": (animation("GIF"), "note", "animated, only its first frame is used"),
    "moving.png": (animation("PNG"), "note", "animated, only its first frame is used"),
    "turned.jpg": (oriented(6), "note", "EXIF orientation 6: turned upright"),
    "tiny.jpg": (encode(picture(24, 40, 31), "JPEG"), "note", "small, 31 x 40 pixels"),
}


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> Examples:
    folder = tmp_path_factory.mktemp("photos")
    for name, (content, _, _) in CASES.items():
        (folder / name).write_bytes(content)
    (folder / "folder.jpg").mkdir()
    names = (*CASES, "folder.jpg", "absent.jpg")
    labels = np.ones((len(names), 1), np.int8)
    return Examples(names, labels, ("c",), paths=tuple(str(folder / name) for name in names))


@pytest.fixture(scope="module")
def report(cases) -> image_checks.Report:
    return image_checks.check({"train": cases}, threads=3)


@pytest.mark.parametrize("name", CASES)
def test_each_kind_of_file_is_named(report, name):
    _, level, message = CASES[name]
    found = [x for x in report.findings if Path(x.image).name == name]
    if name == "deep.png":  # is gray as well
        found = [x for x in found if x.message != image_checks.GRAY]
    assert [x.level for x in found] == ([] if level is None else [level]), found
    assert all(message in x.message for x in found)


def test_unreadable_files_are_errors_and_all_is_sorted(report, cases):
    found = {Path(x.image).name: x.message for x in report.errors}
    assert found["absent.jpg"] == "cannot be read: No such file or directory"
    assert found["folder.jpg"] == "cannot be read: Is a directory"
    assert report.images == len(cases) and list(report.findings) == sorted(report.findings)


def test_errors_are_what_training_stops_on(report, cases):
    """All through the pipeline, which yields those that check does not call errors."""
    from spml_tf.datasets import pipeline

    batches = pipeline.evaluation_dataset(cases, cases.labels, image_size=8, batch_size=1)
    passed = {cases.paths[int(x["index"][0])] for x, _ in batches.ignore_errors()}
    assert passed == set(cases.paths) - {x.image for x in report.errors}


def test_identical_files_across_and_within_splits(tmp_path):
    """a = b in train, c (test) = a, d = e in val but in no other split, f stands alone."""
    contents = {"a": 1, "b": 1, "f": 2, "d": 3, "e": 3, "c": 1}
    for name, seed in contents.items():
        (tmp_path / f"{name}.jpg").write_bytes(encode(picture(seed), "JPEG"))

    def part(letters: str) -> Examples:
        names = tuple(f"{x}.jpg" for x in letters)
        paths = tuple(str(tmp_path / x) for x in names)
        return Examples(names, np.ones((len(names), 1), np.int8), ("c",), paths=paths)

    report = image_checks.check({"train": part("abf"), "val": part("de"), "test": part("c")}, 2)
    found = {Path(x.image).stem: (x.split, x.level, x.message) for x in report.findings}
    assert found == {
        "b": ("train", "note", f"identical to {tmp_path}/a.jpg in train"),
        "c": (
            "test",
            "note",
            f"identical to {tmp_path}/a.jpg in train, but in test: not an independent test",
        ),
        "e": ("val", "note", f"identical to {tmp_path}/d.jpg in val"),
    }


def test_huge_headers_neither_warn_nor_stop():
    """A PNG that announces 30,000 x 30,000 pixels: Pillow would raise a bomb error."""
    content = bytearray(encode(picture(), "PNG"))
    content[16:24] = struct.pack(">II", 30000, 30000)
    with encoded_images.quiet_pillow():
        assert encoded_images.header(bytes(content)) == encoded_images.Header("PNG")
        content[16:24] = struct.pack(">II", 10000, 10000)
        assert encoded_images.header(bytes(content)).mode in ("", "RGB")


@pytest.fixture
def broken_voc(voc, tmp_path) -> Path:
    """Two photos of the 32 broken, one gray, one with the wrong suffix."""
    import shutil

    root = shutil.copytree(voc, tmp_path / "voc")
    photos = root / "JPEGImages"
    (photos / "2008_train003.jpg").write_bytes(b"")
    whole = (photos / "2008_val001.jpg").read_bytes()
    (photos / "2008_val001.jpg").write_bytes(whole[: len(whole) // 2])
    Image.open(photos / "2008_train005.jpg").convert("L").save(photos / "2008_train005.jpg")
    Image.open(photos / "2008_train007.jpg").save(photos / "2008_train007.jpg", "PNG")
    return root


# Of VOC's classes the miniature shows three.
ABSENT = (
    "note: no training image shows 'aeroplane', 'bicycle', 'bird' and 14 more: cannot be learned\n"
)


def test_check_command(broken_voc, tmp_path):
    photos = broken_voc / "JPEGImages"
    words = ["--dataset=voc", "check", f"--data_dir={broken_voc}", f"--output_dir={tmp_path}/out"]
    done = run(*words, module="data")
    assert done.returncode == 1
    assert done.stderr == (
        f"{ABSENT}error: {broken_voc}: 2 of 32 images cannot be decoded, the first is "
        f"{photos}/2008_train003.jpg (empty, 0 bytes); repair or remove them and their rows\n"
    )
    assert done.stdout.splitlines() == [
        f"error: {photos}/2008_train003.jpg: empty, 0 bytes",
        f"note: {photos}/2008_train007.jpg: its suffix is .jpg, but it is a PNG image: read as "
        "what it is",
        f"error: {photos}/2008_val001.jpg: truncated",
        "note: 1 of 32 images: gray, converted to RGB",
        "32 images (train 24, test 8): 2 errors, 2 notes",
    ]
    with open(tmp_path / "out" / "check.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["image", "split", "level", "message"]
    assert rows[1] == [f"{photos}/2008_train003.jpg", "train", "error", "empty, 0 bytes"]
    assert [row[1:] for row in rows[2:]][0] == ["train", "note", "gray, converted to RGB"]
    assert len(rows) == 5


def test_check_passes_good_data_and_data_in_memory(voc, capsys):
    assert data.main(["check", "--dataset=voc", f"--data_dir={voc}", "--val_split=trainval"]) == 1
    assert "trainval.txt" in capsys.readouterr().err
    assert data.main(["check", "--dataset=voc", f"--data_dir={voc}", "--threads=1"]) == 0
    out, err = capsys.readouterr()
    assert out == "32 images (train 24, test 8): 0 errors, 0 notes\n" and err == ABSENT
    assert data.main(["--dataset=digits", "check"]) == 0
    assert "in memory; nothing to decode" in capsys.readouterr().out


@pytest.fixture
def check(voc, capsys):
    """Returns exit code, output and notes of check on the miniature VOC."""

    def check(*words: str) -> tuple[int, str, str]:
        flags = ["--dataset=voc", f"--data_dir={voc}", "--classes=cat,cow,dog", "--threads=1"]
        code = data.main(["check", *flags, *words])
        return code, *capsys.readouterr()

    return check


LABELS = "image,class,label\nJPEGImages/2008_train000.jpg,cat,1\n"
HOLDS_OUT = "image,split,class,label\n" + "".join(
    f"JPEGImages/2008_train{number:03d}.jpg,{'val' if number < 5 else 'train'},,\n"
    for number in range(24)
)


@pytest.mark.parametrize(
    ("files", "words", "message"),
    [
        ({}, ["--train_labels=no.csv"], "no.csv: cannot be read"),
        ({}, ["--class_weights=no.csv"], "no.csv: cannot be read"),
        ({"x.csv": LABELS + "b.jpg,cat,1\n"}, ["--train_labels=x.csv"],
         "x.csv:3: unknown image 'b.jpg'"),
        ({"x.csv": LABELS + "JPEGImages/2008_train001.jpg,cta,1\n"}, ["--train_labels=x.csv"],
         "x.csv:3: unknown class 'cta'"),
        ({"x.csv": HOLDS_OUT}, ["--train_labels=x.csv", "--val_split=val"],
         "x.csv: holds images out for validation, but --val_split=val"),
        ({"x.csv": "class,weight\nhorse,2\n"}, ["--class_weights=x.csv"],
         "x.csv:2: expected one of the classes cat, cow, dog"),
        ({}, ["--train_labels=stored"], "--dataset=voc comes without observed labels"),
        ({}, ["--train_images=20"], "--train_images=20: there are 19 training images"),
    ],
)  # fmt: skip
def test_check_refuses_labels_that_training_would_refuse(
    check, files, words, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    code, out, error = check(*words)
    assert code == 1 and not out and error.count("\n") == 1
    assert error.startswith("error: ") and message in error


def test_check_accepts_labels_and_tells_what_it_does_not_look_at(check, tmp_path):
    (tmp_path / "labels.csv").write_text(LABELS)
    (tmp_path / "weights.csv").write_text("class,weight\ncat,2\n")
    files = [f"--train_labels={tmp_path}/labels.csv", f"--class_weights={tmp_path}/weights.csv"]
    counts = "32 images (train 24, test 8): 0 errors, 0 notes\n"
    assert check(*files) == (0, counts, "")
    runs = [
        "--val_fraction=0.3", "--observed_negatives=1", "--known_share=0.1", "--train_images=7",
        "--full_images=2", "--data_seed=9", "--label_seed=3", "--fingerprint=content",
        "--scaled_decoding=false",
    ]  # fmt: skip
    why = "has no effect with check, which looks at all images and labels"
    assert check(*runs) == (0, counts, "".join(f"note: {flag} {why}\n" for flag in runs))
    code, out, notes = check(*files, "--train_split=none")
    assert code == 0 and out.startswith("8 images (test 8)")
    why = "has no effect with --train_split=none"
    assert notes == "".join(f"note: {flag} {why}\n" for flag in files)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give one of the words check, summary, prepare, import, found none"),
        (["chek"], "give one of the words check, summary, prepare, import, found chek"),
        (["check", "summary"], "found check summary"),
        (["check", "--format=jpeg"], "--format: check does not take it"),
        (["check", "--threads=0"], "--threads=0: must lie between 1"),
        (["check", "--dataset=voc"], "--data_dir is missing"),
        (["check", "--dataset=voc", "--data_dir=/none"], "no ImageSets/Main in /none"),
        (["prepare"], "--output_dir is missing"),
        (["prepare", "--jpeg_quality=0", "--output_dir=x"], "--jpeg_quality=0: must lie between"),
        *(
            (["prepare", "--jpeg_quality=92", "--output_dir=x", *words], "--jpeg_quality: is of re")
            for words in ([], ["--format=tfrecord"], ["--format=tfrecord", "--short_side=0"])
        ),
    ],
)
def test_mistakes_are_one_line(words, message, capsys):
    assert data.main(words) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


def test_mistakes_and_help_need_no_tensorflow(voc):
    program = (
        "import sys; from spml_tf import data\n"
        f"assert data.main(['check', '--dataset=voc', '--data_dir={voc}/no']) == 1\n"
        "try: data.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert 'tensorflow' not in sys.modules and 'matplotlib' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "check|summary|prepare" in done.stdout and "--command" not in done.stdout


def test_interrupt_leaves_at_once(tmp_path):
    """An interrupt while thousands of photos are decoded."""
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (tmp_path / "JPEGImages").mkdir()
    content = encode(picture(0, 1500, 1500), "JPEG")
    names = [f"p{number}" for number in range(60)]
    for name in names:
        (tmp_path / "JPEGImages" / f"{name}.jpg").write_bytes(content)
    (lists / "train.txt").write_text("\n".join(names))
    from spml_tf.datasets.readers.voc import CLASS_NAMES

    for class_name in CLASS_NAMES:
        (lists / f"{class_name}_train.txt").write_text("\n".join(f"{x}  1" for x in names))
    words = ["--dataset=voc", f"--data_dir={tmp_path}", "--test_split=none", "--threads=1"]
    program = (
        "import sys, spml_tf.datasets.encoded_images as e; from spml_tf import data\n"
        "first = e.ImageReader.contents\n"
        "def tell(*x): print('began', flush=True); open('began', 'w').close(); return first(*x)\n"
        "e.ImageReader.contents = tell\n"
        "sys.exit(data.main(['check', *sys.argv[1:]]))"
    )
    (tmp_path / "script.py").write_text(program)
    process = warm_process.Process("script", words, tmp_path)
    wait_until(process, (tmp_path / "began").exists)
    process.send_signal(signal.SIGINT)
    sent = time.monotonic()
    out, error = process.communicate(timeout=30)
    assert process.returncode == 130 and error.endswith("interrupted\n")
    assert out.count("began") < 30 and time.monotonic() - sent < 15


@pytest.fixture(scope="module")
def summary(voc, tmp_path_factory) -> tuple[Path, str]:
    """(the folder, what was printed) of a summary of the miniature VOC."""
    folder = tmp_path_factory.mktemp("summary") / "deep" / "out"
    done = run(
        "summary", "--dataset=voc", f"--data_dir={voc}", f"--output_dir={folder}",
        "--val_split=val", module="data", new_python=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def marks(voc: Path, split: str) -> dict[str, set[str]]:
    """Image -> its classes, straight from the lists."""
    found: dict[str, set[str]] = {}
    for path in sorted((voc / "ImageSets" / "Main").glob(f"*_{split}.txt")):
        for line in path.read_text().splitlines():
            image, mark = line.split()
            found.setdefault(image, set())
            if mark == "1":
                found[image].add(path.name.removesuffix(f"_{split}.txt"))
    return found


def test_summary_counts(voc, summary):
    """Counted once more with sets, from VOC's lists."""
    record = json.loads((summary[0] / "summary.json").read_text())
    assert list(record["splits"]) == ["train", "val", "test"]
    for split, listed in (("train", "train"), ("val", "val"), ("test", "val")):
        shown, part = marks(voc, listed), record["splits"][split]
        positives = sum(map(len, shown.values()))
        assert part["images"] == len(shown)
        assert part["labels"] == {
            "known": 20 * len(shown),
            "positive": positives,
            "negative": 20 * len(shown) - positives,
            "unknown": 0,
        }
        sizes = [len(classes) for classes in shown.values()]
        histogram = [sizes.count(size) for size in range(max(sizes) + 1)]
        assert part["positives_per_image"] == {
            "mean": positives / len(shown),
            "histogram": histogram,
        }
        assert part["images_without_positives"] == 0
        for number, name in enumerate(record["class_names"]):
            count = sum(name in classes for classes in shown.values())
            assert part["class_positives"][number] == count
            assert part["class_negatives"][number] == len(shown) - count
    observed = record["observed"]
    assert observed["labels"] == {"known": 24, "positive": 24, "negative": 0, "unknown": 24 * 19}
    assert observed["labels_from"] == "single" and sum(observed["class_positives"]) == 24
    assert record["positives_per_image"] == record["splits"]["val"]["positives_per_image"]["mean"]


def test_summary_cooccurrence(voc, summary):
    shown = marks(voc, "train").values()
    with open(summary[0] / "cooccurrence.csv", newline="") as file:
        header, *rows = list(csv.reader(file))
    assert len(rows) == len(header) == 20
    for name, row in zip(header, rows, strict=True):
        for other, cell in zip(header, row, strict=True):
            assert int(cell) == sum({name, other} <= classes for classes in shown)
    best = json.loads((summary[0] / "summary.json").read_text())["pairs"][0]
    first, second = best["classes"]
    together = sum({first, second} <= classes for classes in shown)
    assert best["images"] == together
    assert best["share_of_first"] == together / sum(first in classes for classes in shown)
    counts = [sum({a, b} <= x for x in shown) for a in header for b in header if a < b]
    assert together == max(counts)


def test_summary_text_and_files(voc, summary):
    folder, text = summary
    assert {x.name for x in folder.glob("[!.]*")} == {
        "summary.json", "classes.csv", "cooccurrence.csv", "contact_sheet.png"
    }  # fmt: skip
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100 and lines[0] == "voc: 20 classes"
    assert any(line.split() == ["images", "24", "24", "8", "8"] for line in lines)
    rows = table_rows(folder / "classes.csv")
    shown = marks(voc, "train").values()
    counts = {row["class"]: int(row["train_positives"]) for row in rows}
    assert list(counts.values()) == sorted(counts.values(), reverse=True)
    assert counts["cat"] == sum("cat" in classes for classes in shown)
    with Image.open(folder / "contact_sheet.png") as sheet:
        assert sheet.width > 1000 and sheet.height > 600


def test_unknown_labels_and_empty_parts_are_counted():
    """By hand: rows (1, 0, -1), (-1, -1, -1), (1, 1, 0)."""
    labels = np.array([[1, 0, -1], [-1, -1, -1], [1, 1, 0]], np.int8)
    assert summaries.describe(labels) == {
        "images": 3,
        "labels": {"known": 5, "positive": 3, "negative": 2, "unknown": 4},
        "positives_per_image": {"mean": 1.0, "histogram": [1, 1, 1]},
        "images_without_positives": 1,
        "class_positives": [2, 1, 0],
        "class_negatives": [0, 1, 1],
    }
    assert summaries.cooccurrence(labels).tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]
    empty = summaries.describe(labels[:0])
    assert empty["positives_per_image"] == {"mean": None, "histogram": [0]}


def test_blocks_add_up(monkeypatch):
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 2, (101, 5)).astype(np.int8)
    whole = summaries.describe(labels), summaries.cooccurrence(labels)
    monkeypatch.setattr(summaries, "_ROWS", 7)
    assert summaries.describe(labels) == whole[0]
    assert (summaries.cooccurrence(labels) == whole[1]).all()
    assert (np.diag(whole[1]) == (labels == 1).sum(axis=0)).all()


def test_summary_shows_broken_photos_and_many_classes(broken_voc, tmp_path, capsys):
    words = ["--dataset=voc", f"--data_dir={broken_voc}", f"--output_dir={tmp_path}/out"]
    assert data.main(["summary", *words]) == 0
    assert (tmp_path / "out" / "contact_sheet.png").exists()
    capsys.readouterr()
    (tmp_path / "file").write_text("")
    assert data.main(["summary", *words[:2], f"--output_dir={tmp_path}/file/x"]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_ordered_map_keeps_order_and_little_waits():
    """Squares of 0..199 in 4 threads; the source is at most 4 * 4 items ahead."""
    taken = []

    def source():
        for number in range(200):
            taken.append(number)
            yield number

    for count, square in enumerate(parallel.ordered_map(lambda x: x * x, source(), 4)):
        assert square == count**2 and len(taken) <= count + 16
    assert len(taken) == 200


def test_ordered_map_stops_at_an_error():
    begun = []

    def fail(number: int) -> int:
        begun.append(number)
        if number == 5:
            raise ValueError("five")
        return number

    with pytest.raises(ValueError, match="five"):
        list(parallel.ordered_map(fail, range(1000), 2))
    assert len(begun) < 20


@pytest.mark.parametrize("terminal", [True, False])
def test_progress(monkeypatch, terminal):
    """A terminal gets a bar, a file nothing of work that takes no time."""
    stream = io.StringIO()
    stream.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress, "_PAUSE", -1.0 if not terminal else 10.0)
    with progress.of_command():
        assert list(progress.progress(range(40), 40, "done")) == list(range(40))
    if terminal:
        assert re.search(r"\rdone: 100%\|.*\| 40/40 \[\d\d:\d\d<\d\d:\d\d", stream.getvalue())
    else:
        lines = stream.getvalue().splitlines()
        assert lines == [f"done: {count} of 40" for count in range(4, 41, 4)]


def test_progress_where_nobody_looks(capsys):
    """Of work that takes no time, of passes without lines, and outside of commands."""
    with progress.of_command():
        assert list(progress.progress(range(7), 7, "done")) == list(range(7))
        batches = [[1, 2], [3]]
        assert list(progress.progress(batches, 3, "done", len, lines=False)) == batches
    assert not capsys.readouterr().err
