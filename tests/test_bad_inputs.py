"""Every kind of bad input we know of, through the command line.

Each case changes one thing in a small, good data set, runs the command `data` and looks at
the exit code, at standard error and output, and at an earlier result, which a failure must leave
alone. docs/bad_inputs.md is made of the same cases: `python tests/test_bad_inputs.py` writes it.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import warm_process
from PIL import Image

from spml_tf import data

PAGE = Path(__file__).parent.parent / "docs" / "bad_inputs.md"
PHOTOS = 6
TRAIN = "image,cat,dog\n" + "".join(f"{n}.jpg,{n % 2},{1 - n % 2}\n" for n in range(4))
VAL = "image,cat,dog\n4.jpg,1,0\n5.jpg,0,1\n"


@dataclasses.dataclass(frozen=True)
class Case:
    """What is wrong, how it comes about, and what the user sees."""

    what: str
    change: Callable[[Path], object]
    message: str
    seen: str
    code: int = 1
    word: str = "summary"
    base: str = "folder"
    flags: tuple[str, ...] = ()


def jpeg(seed: int = 0, mode: str = "RGB", size: tuple[int, int] = (48, 40), **more) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 7, 3)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).resize(size).convert(mode).save(stream, "JPEG", **more)
    return stream.getvalue()


def other(kind: str, mode: str = "RGB", **more) -> bytes:
    stream = io.BytesIO()
    Image.open(io.BytesIO(jpeg())).convert(mode).save(stream, kind, **more)
    return stream.getvalue()


def frames(kind: str) -> bytes:
    second = Image.open(io.BytesIO(jpeg(9)))
    return other(kind, save_all=True, append_images=[second])


def sixteen_bit() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.arange(1600, dtype=np.uint16).reshape(40, 40) * 40).save(stream, "PNG")
    return stream.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return jpeg(exif=exif)


def huge_png() -> bytes:
    """A PNG whose header says 100,000 x 100,000 pixels."""
    content = bytearray(other("PNG"))
    content[16:24] = struct.pack(">II", 100_000, 100_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def damaged_png() -> bytes:
    content = bytearray(other("PNG"))
    content[len(content) // 2] ^= 0xFF
    return bytes(content)


def folder(root: Path) -> list[str]:
    """Six photos of cats and dogs, four to train and two to validate."""
    for number in range(PHOTOS):
        (root / f"{number}.jpg").write_bytes(jpeg(number))
    (root / "train.csv").write_text(TRAIN)
    (root / "val.csv").write_text(VAL)
    return ["--dataset=folder", "--train_csv=train.csv", "--val_csv=val.csv"]


def class_folders(root: Path) -> list[str]:
    """Photos in folders of their classes, without a validation split."""
    for number in range(PHOTOS):
        path = root / ("cat" if number % 2 else "dog") / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(jpeg(number))
    return ["--dataset=folder"]


def coco(root: Path) -> list[str]:
    """MS-COCO's layout with six photos."""
    for part in ("annotations", "train2014"):
        (root / part).mkdir()
    ids = range(1, PHOTOS + 1)
    for number in ids:
        (root / "train2014" / f"{number}.jpg").write_bytes(jpeg(number))
    save_coco(
        root,
        {
            "images": [
                {"id": n, "file_name": f"{n}.jpg", "height": 40, "width": 48} for n in ids
            ],
            "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
            "annotations": [
                {
                    "id": n, "image_id": n, "category_id": 3 if n % 2 else 7, "iscrowd": 0,
                    "bbox": [1, 2, 20, 30], "area": 500.0,
                }
                for n in ids
            ],
        },
    )  # fmt: skip
    return ["--dataset=coco", "--test_split=none"]


def coco_json(root: Path) -> Path:
    return root / "annotations" / "instances_train2014.json"


def save_coco(root: Path, content: dict) -> None:
    coco_json(root).write_text(json.dumps(content))


def in_coco(key: str, row: int, **changes) -> Callable[[Path], None]:
    """Changes one entry of the json; None removes a key."""

    def change(root: Path) -> None:
        content = json.loads(coco_json(root).read_text())
        for name, value in changes.items():
            content[key][row][name] = value
            if value is None:
                del content[key][row][name]
        save_coco(root, content)

    return change


def voc(root: Path) -> list[str]:
    """Pascal VOC's layout with six photos."""
    for part in ("ImageSets/Main", "JPEGImages", "Annotations"):
        (root / part).mkdir(parents=True)
    stems = [f"2008_{number:06d}" for number in range(PHOTOS)]
    for number, stem in enumerate(stems):
        (root / "JPEGImages" / f"{stem}.jpg").write_bytes(jpeg(number))
    (root / "ImageSets" / "Main" / "train.txt").write_text("".join(f"{x}\n" for x in stems))
    from spml_tf.datasets.readers.voc import CLASS_NAMES

    for name in CLASS_NAMES:
        marks = [" 1" if name == ("cat" if n % 2 else "dog") else "-1" for n in range(PHOTOS)]
        rows = [f"{stem} {mark}\n" for stem, mark in zip(stems, marks, strict=True)]
        (root / "ImageSets" / "Main" / f"{name}_train.txt").write_text("".join(rows))
    return ["--dataset=voc", "--test_split=none"]


def arrays(root: Path) -> list[str]:
    """The arrays that Cole et al. publish, with six photos."""
    full = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 1]])
    observed = np.zeros_like(full)
    observed[np.arange(PHOTOS), full.argmax(axis=1)] = 1
    names = np.array([f"{number}.jpg" for number in range(PHOTOS)])
    for number, name in enumerate(names):
        (root / name).write_bytes(jpeg(number))
    for key, value in (("images", names), ("labels", full), ("labels_obs", observed)):
        np.save(root / f"formatted_train_{key}.npy", value)
    return ["--dataset=arrays", "--label_encoding=cole", "--test_split=none"]


def nuswide(root: Path) -> list[str]:
    """NUS-WIDE's layout with six photos and two concepts; the last photo shows neither."""
    for part in ("ImageList", "Groundtruth/TrainTestLabels", "Flickr/a"):
        (root / part).mkdir(parents=True)
    for number in range(PHOTOS):
        (root / "Flickr" / "a" / f"{number}.jpg").write_bytes(jpeg(number))
    names = "".join(f"a\\{number}.jpg\n" for number in range(PHOTOS))
    (root / "ImageList" / "TrainImagelist.txt").write_text(names)
    for concept, marks in (("cat", "110110"), ("sky", "011010")):
        path = root / "Groundtruth" / "TrainTestLabels" / f"Labels_{concept}_Train.txt"
        path.write_text("".join(f"{mark}\n" for mark in marks))
    return ["--dataset=nuswide", "--test_split=none"]


def cub(root: Path) -> list[str]:
    """CUB's layout with six photos and two attributes."""
    (root / "attributes").mkdir()
    (root / "images").mkdir()
    ids = range(1, PHOTOS + 1)
    for number in ids:
        (root / "images" / f"{number}.jpg").write_bytes(jpeg(number))
    (root / "images.txt").write_text("".join(f"{n} {n}.jpg\n" for n in ids))
    (root / "train_test_split.txt").write_text("".join(f"{n} 1\n" for n in ids))
    (root / "attributes" / "attributes.txt").write_text("1 has_a::x\n2 has_a::y\n")
    answers = "".join(f"{n} {a} {(n + a) % 2} {1 + n % 4} 2.5\n" for n in ids for a in (1, 2))
    (root / "attributes" / "image_attribute_labels.txt").write_text(answers)
    return ["--dataset=cub", "--test_split=none"]


def imagenet(root: Path) -> list[str]:
    """ImageNet's layout with three photos of each of two classes, and ReaL labels."""
    for part in ("train/n00000001", "train/n00000002", "val"):
        (root / part).mkdir(parents=True)
    for number in range(PHOTOS):
        wnid = f"n0000000{1 + number % 2}"
        (root / "train" / wnid / f"{wnid}_{number}.JPEG").write_bytes(jpeg(number))
        name = f"ILSVRC2012_val_{number + 1:08d}.JPEG"
        (root / "val" / name).write_bytes(jpeg(number + 9))
    (root / "real.json").write_text(json.dumps([[0], [1], [0, 1], [], [1], [0]]))
    return ["--dataset=imagenet"]


BASES = {x.__name__: x for x in (folder, class_folders, coco, voc, arrays, nuswide, cub, imagenet)}


def photo(content: Callable[[], bytes], name: str = "2.jpg") -> Callable[[Path], None]:
    """Replaces the photo that the second last row of train.csv names."""

    def change(root: Path) -> None:
        (root / name).write_bytes(content())
        if name != "2.jpg":
            (root / "2.jpg").unlink()
            table = root / "train.csv"
            table.write_text(table.read_text().replace("2.jpg", name))

    return change


def table(content: str | bytes, name: str = "train.csv") -> Callable[[Path], object]:
    encoded = content.encode() if isinstance(content, str) else content
    return lambda root: (root / name).write_bytes(encoded)


def row(text: str) -> Callable[[Path], object]:
    """Adds a row, the sixth line, to train.csv."""
    return table(f"{TRAIN}{text}\n")


def link(source: str, name: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        (root.parent / "outside").mkdir()
        (root.parent / "outside" / "x.jpg").write_bytes(jpeg(7))
        (root / name).symlink_to(root.parent / source)
        row("link/x.jpg,1,0" if name == "link" else f"{name},1,0")(root)

    return change


def cut_lines(path: Path, row: int) -> None:
    """Takes one line out."""
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:row] + lines[row + 1 :]))


def add_column(path: Path) -> None:
    """Makes a row one of the irregular ones, with a 0 and a blank before its time."""
    path.write_text(path.read_text().replace(" 2.5\n", " 0  2.5\n", 1))


def nothing(root: Path) -> None:
    """The mistake is in the flags."""


CHECKED = {"word": "check"}
TREATED = {"word": "check", "code": 0}
CASES = [
    # Images.
    Case("a photo of zero bytes", photo(bytes), r"2\.jpg", "named by `check`, stops training", **CHECKED),
    Case("a JPEG cut in the middle", photo(lambda: jpeg()[:500]), r"2\.jpg", "named by `check`, stops training", **CHECKED),
    Case("a PNG cut in the middle", photo(lambda: other("PNG")[:200], "2.png"), r"2\.png", "named by `check`, stops training", **CHECKED),
    Case("a PNG with a wrong checksum", photo(damaged_png, "2.png"), r"2\.png", "named by `check`, stops training", **CHECKED),
    Case("a PNG that says 100,000 x 100,000 pixels", photo(huge_png, "2.png"), r"2\.png", "named by `check`, stops training", **CHECKED),
    Case("text in a file called .jpg", photo(lambda: b"no photo"), r"2\.jpg \(not an image\)", "named by `check`, stops training", **CHECKED),
    Case("a TIFF", photo(lambda: other("TIFF"), "2.tif"), r"note: .*2\.tif: TIFF, decoded through Pillow", "decoded through Pillow, noted by `check`", **TREATED),
    Case("a WebP", photo(lambda: other("WEBP"), "2.webp"), r"note: .*2\.webp: WebP, decoded through Pillow", "decoded through Pillow, noted by `check`", **TREATED),
    Case("a PNG called .jpg", photo(lambda: other("PNG")), r"note: .*2\.jpg", "decoded by its content, noted by `check`", **TREATED),
    Case("a JPEG called .png", photo(jpeg, "2.png"), r"note: .*2\.png", "decoded by its content, noted by `check`", **TREATED),
    Case("a PNG of 16 bits a channel", photo(sixteen_bit, "2.png"), r"note: .*2\.png.*16", "reduced to 8 bits, noted by `check`", **TREATED),
    Case("a JPEG in CMYK", photo(lambda: jpeg(mode="CMYK")), r"note: .*2\.jpg.*CMYK", "converted to RGB, noted by `check`", **TREATED),
    Case("an animated GIF", photo(lambda: frames("GIF"), "2.gif"), r"note: .*2\.gif.*first frame", "its first frame counts, noted by `check`", **TREATED),
    Case("an animated PNG", photo(lambda: frames("PNG"), "2.png"), r"note: .*2\.png.*first frame", "its first frame counts, noted by `check`", **TREATED),
    Case("an EXIF orientation", photo(turned), r"note: .*2\.jpg.*orientation", "turned upright, noted by `check`", **TREATED),
    Case("a gray photo", photo(lambda: jpeg(mode="L")), r"gray", "becomes RGB, counted by `check`", **TREATED),
    Case("a PNG with a palette", photo(lambda: other("PNG", "P"), "2.png"), r"palette", "becomes RGB, counted by `check`", **TREATED),
    Case("a PNG with an alpha channel", photo(lambda: other("PNG", "RGBA"), "2.png"), r"alpha", "the channel is dropped, counted by `check`", **TREATED),
    Case("a photo of few pixels", photo(lambda: jpeg(size=(9, 5))), r"note: .*2\.jpg.*9", "enlarged, noted by `check`", **TREATED),
    Case("the same file in training and in validation", photo(lambda: jpeg(4)), r"note: .*2\.jpg", "noted by `check`", **TREATED),
    # Tables.
    Case("no table", lambda root: (root / "train.csv").unlink(), r"train\.csv: cannot be read", "named"),
    Case("an empty table", table(""), r"train\.csv:1: the file is empty", "file and line"),
    Case("a header without rows", table("image,cat,dog\n"), r"train\.csv:1: a header without rows", "file and line"),
    Case("a byte order mark and CRLF", table(b"\xef\xbb\xbf" + TRAIN.replace("\n", "\r\n").encode()), r"images +4 ", "read as if they were not there", code=0),
    Case("a table in Latin-1", table(TRAIN.encode() + b"caf\xe9.jpg,1,0\n"), r"train\.csv:6: not UTF-8", "file and line"),
    Case("a table in UTF-16", table(TRAIN.encode("utf-16")), r"train\.csv:1: not UTF-8", "file and line"),
    Case("no column of labels", table("image\n0.jpg\n"), r"train\.csv:1: there is no column of labels", "file and line"),
    Case("no column of photos", table(TRAIN.replace("image", "frame")), r"train\.csv:1: no column is called image, .*--image_column=frame", "file and line, and the flag to give"),
    Case("columns separated by semicolons", table(TRAIN.replace(",", ";")), r"images +4 ", "read as the header shows", code=0),
    Case("an index column without a name", table(re.sub(r"^(\d?)", r"\1,\1", TRAIN.rstrip(), flags=re.M)), r"images +4 ", "left out", code=0),
    Case("a table without a header", table(TRAIN.partition("\n")[2]), r"train\.csv:1: the first line names a photo, .*--table_header=image,CLASS1,CLASS2", "file and line, and the flag to give"),
    Case("a column that is no class", table(TRAIN.replace("image,", "image,sex,").replace("jpg,", "jpg,M,")), r"train\.csv:2: .*--omit_columns=sex", "file and line, and the flag to give"),
    Case("names separated by bars", table("image,labels\n0.jpg,cat|dog\n1.jpg,cat\n"), r"train\.csv:1: looks misread: .*--label_separator=bar", "stops, with the flag to give"),
    Case("names separated by blanks", table("image,labels\n0.jpg,cat dog\n1.jpg,cat\n"), r"train\.csv:1: looks misread: .*--label_separator=blank", "stops, with the flag to give"),
    Case("a list in brackets", table('image,labels\n0.jpg,"[""cat"", ""dog""]"\n1.jpg,cat\n2.jpg,dog\n'), r"note: .*read as lists", "read as a list, and noted", code=0),
    Case("an object in a cell", table('image,labels\n0.jpg,"{""a"": 1, ""b"": 2}"\n1.jpg,cat\n'), r"train\.csv:1: looks misread: ", "stops"),
    Case("two columns of the same name", table(TRAIN.replace("dog", "cat", 1)), r"train\.csv:1: two columns are called 'cat'", "file and line"),
    Case("a photo in two rows", row("1.jpg,1,0"), r"note: .*train\.csv: 5 rows of 4 photos", "read as one with the labels of both, and noted", code=0),
    Case("a photo in two rows that contradict each other", row("1.jpg,0,0"), r"train\.csv:6: .*1\.jpg.*3", "file and both lines"),
    Case("a photo in two rows, spelled otherwise", row("./1.jpg,0,0"), r"train\.csv:6: .*1\.jpg.*3", "file and both lines"),
    Case("a class of val.csv that train.csv does not have", table("image,labels\n4.jpg,cow\n", "val.csv"), r"val\.csv:2: .*'cow'.*mend the name", "file and line, the classes there are, and what to do"),
    Case("a class that one photo shows", table("image,cat,dog\n0.jpg,1,0\n1.jpg,0,1\n2.jpg,1,0\n3.jpg,1,0\n"), r"note: only one training image shows 'dog' \('1\.jpg'\)", "noted by `check`", **TREATED),
    Case("-1 for an unknown label", row("4.jpg,-1,1"), r"train\.csv:6: .*-1.*--minus_one=unknown", "file and line, and the flags that say what it means"),
    Case("a cell with yes", row("4.jpg,yes,0"), r"train\.csv:6: .*'yes'", "file and line"),
    Case("a cell with 2", row("4.jpg,2,0"), r"train\.csv:6: .*'2'", "file and line"),
    Case("a row that is too short", row("4.jpg,1"), r"train\.csv:6: ", "file and line"),
    Case("a row that is too long", row("4.jpg,1,0,1"), r"train\.csv:6: ", "file and line"),
    Case("a label that is positive and negative", table("image,labels,negatives\n0.jpg,cat;dog,dog\n"), r"train\.csv:2: .*'dog'", "file and line"),
    Case("* beside other negatives", table("image,labels,negatives\n0.jpg,cat,*;dog\n"), r"train\.csv:2: .*\*", "file and line"),
    Case("a quotation mark that is never closed", row('"4.jpg,1,0'), r"train\.csv:6: not valid CSV", "file and line"),
    Case("a null character", row("4\0.jpg,1,0"), r"train\.csv:6: ", "file and line"),
    Case("a photo that is missing", row("none.jpg,1,0"), r"train\.csv:6: .*none\.jpg", "file and line, and how many are missing"),
    Case("an absolute path", row("/etc/hostname,1,0"), r"train\.csv:6: .*absolute.*--allow_outside", "refused unless `--allow_outside`"),
    Case("a path with ..", row("../x.jpg,1,0"), r"train\.csv:6: .*leaves.*--allow_outside", "refused unless `--allow_outside`"),
    Case("a path with backslashes", row("a\\4.jpg,1,0"), r"train\.csv:6: .*slash", "file and line"),
    Case("a symbolic link to a photo", link("outside/x.jpg", "link.jpg"), r"train\.csv:6: .*symbolic link.*--allow_outside", "refused unless `--allow_outside`"),
    Case("a symbolic link to a folder", link("outside", "link"), r"train\.csv:6: .*symbolic link.*--allow_outside", "refused unless `--allow_outside`"),
    Case("a table outside the data folder", nothing, r"--test_csv=\.\./t\.csv: lies outside", "refused unless `--allow_outside`", flags=("--test_csv=../t.csv",)),
    Case("a folder in place of a table", lambda root: (root / "t.csv").mkdir(), r"t\.csv: cannot be read", "named", flags=("--train_csv=t.csv",)),
    Case("a folder in place of a photo", lambda root: ((root / "dir.jpg").mkdir(), row("dir.jpg,1,0")(root)), r"train\.csv:6: .*dir\.jpg: a folder", "file and line"),
    Case("a row without a photo", row(",1,0"), r"train\.csv:6: ", "file and line"),
    Case("a photo without labels", row("4.jpg,,"), r"note: 1 of 5 training images have no known label: kept", "kept, and noted", code=0),
    Case("a class without positives", table(TRAIN.replace("image", "image,cow").replace(".jpg", ".jpg,0")), r"note: no training image is labelled with 'cow'", "noted", code=0),
    Case("validation labels that are not complete", table("image,cat,dog\n4.jpg,1,\n", "val.csv"), r"note: validation labels are incomplete", "noted, with what unknown labels count as in mAP", code=0),
    Case("two photos of the same content", lambda root: (shutil.copy(root / "0.jpg", root / "2.jpg")), r"note: 1 of 4 photos are copies of others, such as '2\.jpg' of '0\.jpg'", "read as one with the labels of both, and noted", code=0),
    Case("two photos of the same content with other labels", lambda root: (shutil.copy(root / "0.jpg", root / "1.jpg")), r"0\.jpg: is the same photo as '1\.jpg'.*--keep_copies", "both are named"),
    Case("a photo in train.csv and in val.csv", row("4.jpg,1,0"), r"note: images in training and in validation or test: '4\.jpg'", "kept, and noted", code=0),
    # Folders of classes.
    Case("no data folder", nothing, r"nowhere is not a folder", "named", flags=("--data_dir=nowhere",)),
    Case("a file in place of the data folder", nothing, r"t\.csv is not a folder", "named", flags=("--data_dir=t.csv",)),
    Case("a data folder that may not be read", lambda root: (row("locked/x.jpg,1,0")(root), (root / "locked").mkdir(mode=0)), r"locked: cannot be listed", "named"),
    Case("photos, but no folder of a class", lambda root: [shutil.rmtree(root / x) for x in ("cat", "dog")], r"holds no folder of a class", "both layouts are shown", base="class_folders"),
    Case("a folder of a class that is empty", lambda root: (root / "cow").mkdir(), r"note: .*cow", "the class stays, and is noted", code=0, base="class_folders"),
    Case("other files among the photos", lambda root: (root / "cat" / "list.txt").write_text("x"), r"note: .*list\.txt", "left out, counted and noted", code=0, base="class_folders"),
    Case("a file name that is not UTF-8", lambda root: Path(os.fsdecode(os.fsencode(root / "cat") + b"/caf\xe9.jpg")).write_bytes(jpeg()), r"rename", "named: rename it", base="class_folders"),
    Case("validation photos, but no train.csv", nothing, r"--val_csv=val\.csv: needs --train_csv", "the flag is named", base="class_folders", flags=("--val_csv=val.csv",)),
    # Flags.
    Case("an unknown class in --classes", nothing, r"unknown class 'cow'; the classes are cat, dog", "the classes are listed", flags=("--classes=cat,cow",)),
    Case("an unknown data set", nothing, r"--dataset=mnist: unknown", "the data sets are listed", flags=("--dataset=mnist",)),
    Case("a flag of another data set", nothing, r"--difficult: this data set does not take it", "the flag is named", flags=("--difficult=unknown",)),
    Case("an unknown split", nothing, r"found 'dev'", "the splits are listed", flags=("--train_split=dev",)),
    # Files of observed labels.
    Case("observed labels of an unknown photo", table("image,class,label\n9.jpg,cat,1\n", "o.csv"), r"o\.csv:2: unknown image '9\.jpg'", "file and line", flags=("--train_labels={root}/o.csv",)),
    Case("observed labels of an unknown class", table("image,class,label\n0.jpg,cow,1\n", "o.csv"), r"o\.csv:2: unknown class 'cow'", "file and line", flags=("--train_labels={root}/o.csv",)),
    Case("observed labels that contradict each other", table("image,class,label\n0.jpg,cat,1\n0.jpg,cat,0\n", "o.csv"), r"o\.csv:3: ", "file and line", flags=("--train_labels={root}/o.csv",)),
    Case("observed labels of -1", table("image,class,label\n0.jpg,cat,-1\n", "o.csv"), r"o\.csv:2: the label must be 1 or 0", "file and line", flags=("--train_labels={root}/o.csv",)),
    # MS-COCO.
    Case("no annotations", lambda root: coco_json(root).unlink(), r"instances_train2014\.json", "named, with where to get them", base="coco"),
    Case("a json cut in the middle", lambda root: coco_json(root).write_text(coco_json(root).read_text()[:300]), r"instances_train2014\.json.*line 1", "file, line and column", base="coco"),
    Case("a json of bytes", lambda root: coco_json(root).write_bytes(bytes(range(256))), r"instances_train2014\.json", "named", base="coco"),
    Case("an annotation of no image", in_coco("annotations", 2, image_id=99), r"annotations\[2\].*99", "file and entry", base="coco"),
    Case("an annotation of no category", in_coco("annotations", 2, category_id=4), r"annotations\[2\].*4", "file and entry", base="coco"),
    Case("an annotation without its category", in_coco("annotations", 2, category_id=None), r"annotations\[2\].*category_id", "file and entry", base="coco"),
    Case("a box with NaN", in_coco("annotations", 2, bbox=[1, float("nan"), 3, 4]), r"annotations\[2\].*bbox", "file and entry", base="coco"),
    Case("two images of one id", in_coco("images", 2, id=1), r"images\[2\]", "file and entry", base="coco"),
    Case("two categories of one name", in_coco("categories", 1, name="cat"), r"categories\[1\]", "file and entry", base="coco"),
    Case("a COCO file name that leaves the folder", in_coco("images", 2, file_name="../../x.jpg"), r"images\[2\].*leaves.*--allow_outside", "refused unless `--allow_outside`", base="coco"),
    Case("a COCO photo that is missing", lambda root: (root / "train2014" / "2.jpg").unlink(), r"2\.jpg.*missing", "named, with how many are missing", base="coco"),
    # Pascal VOC.
    Case("a mark other than 1, 0 and -1", lambda root: (root / "ImageSets/Main/dog_train.txt").write_text("2008_000000 7\n"), r"dog_train\.txt:1: expected", "file and line", base="voc"),
    Case("a photo without a mark", lambda root: (root / "ImageSets/Main/dog_train.txt").write_text("2008_000000 1\n"), r"dog_train\.txt: no mark for 2008_000001", "file and photo", base="voc"),
    Case("a list that names a photo twice", lambda root: (root / "ImageSets/Main/train.txt").write_text("a\na\n"), r"train\.txt:2: a is in the list twice", "file and line", base="voc"),
    Case("an annotation that is no XML", lambda root: (root / "Annotations/2008_000001.xml").write_text("<a"), r"2008_000001\.xml: ", "named", base="voc"),
    # Arrays.
    Case("arrays without --label_encoding", nothing, r"label_encoding", "both encodings are explained", base="arrays", flags=("--label_encoding=",)),
    Case("arrays in the other encoding", nothing, r"formatted_train_labels_obs\.npy.*cole", "file, row and column; the other encoding is suggested", base="arrays", flags=("--label_encoding=spml_tf",)),
    Case("an array cut in the middle", lambda root: (root / "formatted_train_labels.npy").write_bytes((root / "formatted_train_labels.npy").read_bytes()[:150]), r"formatted_train_labels\.npy", "named", base="arrays"),
    Case("an array of Python objects", lambda root: np.save(root / "formatted_train_images.npy", np.array([{}] * 6), allow_pickle=True), r"formatted_train_images\.npy", "named; nothing in it is run", base="arrays"),
    # NUS-WIDE.
    Case("NUS-WIDE photos that are gone", lambda root: (root / "Flickr/a/2.jpg").unlink(), r"note: .*1 of 6 .*2\.jpg", "left out, counted and noted", code=0, base="nuswide"),
    Case("NUS-WIDE photos that show no concept", nothing, r"note: .*1 of 6 ", "kept, or dropped with `--unlabelled=drop`; both means are noted", code=0, base="nuswide"),
    Case("a NUS-WIDE label file that is too short", lambda root: (root / "Groundtruth/TrainTestLabels/Labels_sky_Train.txt").write_text("1\n"), r"Labels_sky_Train\.txt.*6", "file and both counts", base="nuswide"),
    Case("a NUS-WIDE label other than 0 and 1", lambda root: (root / "Groundtruth/TrainTestLabels/Labels_sky_Train.txt").write_text("0\n1\n7\n0\n1\n0\n"), r"Labels_sky_Train\.txt:3", "file and line", base="nuswide"),
    # CUB.
    Case("a CUB answer that is missing", lambda root: cut_lines(root / "attributes/image_attribute_labels.txt", 5), r"image_attribute_labels\.txt.*3", "image and attribute", base="cub"),
    Case("a CUB answer with a column too many", lambda root: add_column(root / "attributes/image_attribute_labels.txt"), r"note: .*image_attribute_labels\.txt", "read, counted and noted", code=0, base="cub"),
    Case("answers of a low certainty", nothing, r"note: .*less certain than 'probably'", "unknown labels, counted and noted", code=0, base="cub", flags=("--min_certainty=3",)),
    Case("a certainty that there is not", nothing, r"--min_certainty=7: must be 1, 2, 3 or 4", "the flag is named", base="cub", flags=("--min_certainty=7",)),
    # ImageNet.
    Case("ReaL labels that no class has", lambda root: (root / "real.json").write_text("[[0], [1], [2], [], [1], [0]]"), r"real\.json\[2\]", "file and entry", base="imagenet"),
    Case("ReaL labels of another number of photos", lambda root: (root / "real.json").write_text("[[0]]"), r"real\.json.*6", "file and both counts", base="imagenet"),
    # Results.
    Case("an output folder that holds other files", nothing, r"--output_dir=.*earlier", "refused", word="prepare"),
]  # fmt: skip
# ruff: noqa: E501 - a case stays on a line, as in the table.
# The first of each data set, as a process of its own.
PROCESSES = list({case.base: case for case in reversed(CASES)}.values())


def test_enough_kinds():
    assert len(CASES) >= 60 and len({case.what for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_case(case, tmp_path, monkeypatch, capfd):
    if "may not be read" in case.what and os.geteuid() == 0:
        pytest.skip("the administrator may read every folder")
    root = tmp_path / "data"
    root.mkdir()
    (root.parent / "t.csv").write_text(TRAIN)
    words = [*BASES[case.base](root), f"--data_dir={root}"]
    case.change(root)
    flags = [flag.format(root=root) for flag in case.flags]
    kept = [
        word for word in words if word.partition("=")[0] not in {f.partition("=")[0] for f in flags}
    ]
    kept += [flag for flag in flags if not flag.endswith("=")]
    earlier = tmp_path / "earlier"
    earlier.mkdir()
    (earlier / "summary.json").write_text("an earlier result")
    if case.word != "check":  # which would refuse to replace what it has not written
        (earlier / "check.csv").write_text("an earlier result")
    words = [*kept, f"--output_dir={earlier}", case.word]
    if case in PROCESSES:
        done = warm_process.run("spml_tf.data", words, cwd=tmp_path, timeout=120)
        code, output, errors = done.returncode, done.stdout, done.stderr
    else:
        monkeypatch.chdir(tmp_path)
        code = data.main(words)
        output, errors = capfd.readouterr()
    assert code == case.code, errors + output
    assert "Traceback" not in errors and "Warning" not in errors
    seen = errors if case.code else output + errors
    assert re.search(case.message, seen), seen
    if case.code:
        # Notes may come first; the error is the last line, and one line.
        lines = [line for line in errors.splitlines() if not line.startswith("note: ")]
        assert len(lines) == 1 and lines[0].startswith("error: "), errors
        if case.word == "summary":
            assert (earlier / "summary.json").read_text() == "an earlier result"
            assert sorted(x.name for x in earlier.iterdir()) == ["check.csv", "summary.json"]


def page() -> str:
    rows = [f"| {case.what} | {case.seen} | {case.code} |" for case in CASES]
    return (
        "# Bad inputs\n\nWhat happens to them: an error is one line on standard error that names file "
        "and place, with exit code 1, and leaves earlier results alone; everything else is done and "
        "reported. The rows are the cases of `tests/test_bad_inputs.py`, which runs each of them; "
        "`python tests/test_bad_inputs.py` writes this page.\n\n"
        "| what is wrong | what you get | exit code |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    )


def test_the_page_is_up_to_date():
    assert PAGE.read_text() == page()


if __name__ == "__main__":
    PAGE.write_text(page())
