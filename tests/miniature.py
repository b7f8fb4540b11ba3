"""Miniature data sets, file for file in the layouts of their authors, with photos of noise.

The writers put down the files of given labels; `BUILDERS` make a whole small data set to train on.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

VOC_CLASSES = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike "
    "person pottedplant sheep sofa train tvmonitor"
).split()
# Width and height of the photos.
SIZE = (48, 40)


def write_voc(
    root: Path, split: str, stems: Sequence[str], marks: Mapping[str, Sequence[str]]
) -> None:
    """ImageSets/Main: the list of a split, and each class' list of marks, "-1" where none is given.

    Args:
        root: the folder VOC2012.
        split: name of the split.
        stems: the photos' names without .jpg.
        marks: by class, a mark for each photo.
    """
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True, exist_ok=True)
    (lists / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in stems))
    for name in VOC_CLASSES:
        rows = zip(stems, marks.get(name, ["-1"] * len(stems)), strict=True)
        (lists / f"{name}_{split}.txt").write_text("".join(f"{s} {m:>2}\n" for s, m in rows))


def write_coco(root: Path, split: str, content: object) -> None:
    """annotations/instances_{split}.json, such as that of train2014."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


def write_nuswide(
    root: Path, part: str, names: Sequence[str], marks: Mapping[str, Iterable[object]]
) -> None:
    """The list of photos of one part, "Train" or "Test", and its label files.

    Args:
        root: the folder of the data set.
        part: name of the part.
        names: photos as "folder/file.jpg".
        marks: by concept, a 0 or 1 for each photo.
    """
    labels = root / "Groundtruth" / "TrainTestLabels"
    for folder in (labels, root / "ImageList", root / "ConceptsList"):
        folder.mkdir(parents=True, exist_ok=True)
    (root / "ConceptsList" / "Concepts81.txt").write_text("".join(f"{x}\n" for x in marks))
    lines = [name.replace("/", "\\") + "\n" for name in names]
    (root / "ImageList" / f"{part}Imagelist.txt").write_text("".join(lines))
    for concept, column in marks.items():
        text = "".join(f"{mark}\n" for mark in column)
        (labels / f"Labels_{concept}_{part}.txt").write_text(text)


def write_cub(
    root: Path,
    images: Sequence[str],
    training: Sequence[int],
    attributes: Sequence[str],
    answers: Sequence[Sequence[str]],
) -> None:
    """All text files of CUB-200-2011 that are read.

    Args:
        root: the folder CUB_200_2011.
        images: photos as "001.Name/file.jpg".
        training: 1 or 0 for each photo.
        attributes: names of the attributes.
        answers: images by attributes, as "<is_present> <certainty_id>".
    """
    (root / "attributes").mkdir(parents=True)
    write_ids(root / "images.txt", images)
    write_ids(root / "train_test_split.txt", training)
    write_ids(root / "attributes" / "attributes.txt", attributes)
    (root / "attributes" / "image_attribute_labels.txt").write_text(
        "".join(
            f"{image} {attribute} {answer} {image * 1.5:.3f}\n"
            for image, row in enumerate(answers, start=1)
            for attribute, answer in enumerate(row, start=1)
        )
    )


def write_ids(path: Path, values: Iterable[object]) -> None:
    """Lines "<id> <value>", ids from 1."""
    path.write_text("".join(f"{number} {x}\n" for number, x in enumerate(values, start=1)))


def imagenet_val(number: int) -> str:
    """The stem of an ImageNet validation photo, numbered from 1."""
    return f"ILSVRC2012_val_{number:08d}"


def write_photo_tables(
    root: Path,
    class_names: Sequence[str],
    tables: Mapping[str, Sequence[Sequence[str]]],
    seed: int,
) -> None:
    """A folder of photos of noise, 32 pixels a side, and tables with a column per class.

    Args:
        root: the folder.
        class_names: names of the L classes.
        tables: by name, such as train, a row of L cells for each of its photos.
        seed: of the noise.
    """
    rng = np.random.default_rng(seed)
    for table, rows in tables.items():
        with open(root / f"{table}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", *class_names])
            for number, cells in enumerate(rows):
                name = f"{table}{number}.png"
                Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(root / name)
                writer.writerow([name, *cells])


def write_photos(paths: Iterable[Path]) -> None:
    """JPEG files of noise, each another."""
    for number, path in enumerate(paths):
        pixels = np.random.default_rng(number).integers(0, 256, (*SIZE[::-1], 3), np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


def _labels(count: int, num_classes: int, positives: float) -> np.ndarray:
    """[count, num_classes] of {0, 1}, about so many positives in each row and at least one."""
    rng = np.random.default_rng(count)
    labels = rng.random((count, num_classes)) < positives / num_classes
    labels[np.arange(count), np.arange(count) % num_classes] = True
    return labels.astype(int)


def _voc(root: Path, train: int, other: int) -> None:
    annotation = (
        f"<annotation><size><width>{SIZE[0]}</width><height>{SIZE[1]}</height><depth>3</depth>"
        "</size>{}</annotation>"
    )
    item = (
        "<object><name>{}</name><difficult>0</difficult><bndbox><xmin>2</xmin><ymin>2</ymin>"
        "<xmax>30</xmax><ymax>20</ymax></bndbox></object>"
    )
    (root / "Annotations").mkdir(parents=True)
    for split, count in (("train", train), ("val", other)):
        stems = [f"2008_{split}{number:03d}" for number in range(count)]
        labels = _labels(count, len(VOC_CLASSES), 1.5)
        marks = np.where(labels, "1", "-1")
        write_voc(root, split, stems, dict(zip(VOC_CLASSES, marks.T.tolist(), strict=True)))
        write_photos(root / "JPEGImages" / f"{stem}.jpg" for stem in stems)
        for stem, row in zip(stems, labels, strict=True):
            items = "".join(item.format(VOC_CLASSES[column]) for column in np.flatnonzero(row))
            (root / "Annotations" / f"{stem}.xml").write_text(annotation.format(items))


def _coco(root: Path, train: int, other: int) -> None:
    ids = sorted(set(range(1, 91)) - {12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
    for split, count in (("train2014", train), ("val2014", other)):
        names = [f"COCO_{split}_{number:012d}.jpg" for number in range(1, count + 1)]
        width, height = SIZE
        content = {
            "images": [
                {"id": number, "file_name": name, "width": width, "height": height, "license": 1}
                for number, name in enumerate(names, start=1)
            ],
            "annotations": [
                {"id": number, "image_id": int(row) + 1, "category_id": ids[column], "iscrowd": 0,
                 "area": 60, "bbox": [4, 4, 10, 12], "segmentation": [[4, 4, 14, 4, 14, 16]]}
                for number, (row, column) in enumerate(np.argwhere(_labels(count, 80, 2.9)))
            ],
            "categories": [{"id": x, "name": f"c{x}", "supercategory": "object"} for x in ids],
        }  # fmt: skip
        write_coco(root, split, content)
        write_photos(root / split / name for name in names)


def _nuswide(root: Path, train: int, other: int) -> None:
    concepts = [f"concept{number}" for number in range(81)]
    for part, count in (("Train", train), ("Test", other)):
        names = [f"{part.lower()}/{number:04d}_{number}.jpg" for number in range(count)]
        columns = _labels(count, 81, 1.9).T.tolist()
        write_nuswide(root, part, names, dict(zip(concepts, columns, strict=True)))
        write_photos(root / "Flickr" / name for name in names)


def _cub(root: Path, train: int, other: int) -> None:
    count = train + other
    images = [f"{number:03d}.Bird/Bird_{number}.jpg" for number in range(1, count + 1)]
    answers = [[f"{mark} 3" for mark in row] for row in _labels(count, 312, 31.4)]
    attributes = [f"has_part::value_{number}" for number in range(1, 313)]
    training = [1] * train + [0] * other
    write_cub(root / "CUB_200_2011", images, training, attributes, answers)
    write_photos(root / "CUB_200_2011" / "images" / name for name in images)


def _imagenet(root: Path, train: int, other: int) -> None:
    """All 1,000 folders of classes, most of them empty."""
    classes = [f"n{10_000_000 + number}" for number in range(1000)]
    for name in classes:
        (root / "train" / name).mkdir(parents=True)
    write_photos(root / "train" / x / f"{x}_1.JPEG" for x in classes[:train])
    numbers = range(1, other + 1)
    write_photos(root / "val" / f"{imagenet_val(number)}.JPEG" for number in numbers)
    synsets = "".join(f"{classes[number]}\n" for number in numbers)
    (root / "imagenet_2012_validation_synset_labels.txt").write_text(synsets)
    (root / "real.json").write_text(json.dumps([[number, number + 1] for number in numbers]))


# Each is called with an empty folder and the numbers of training and of other photos; the classes
# are as many as the data set has, and so are the positives of a photo, on average.
BUILDERS: dict[str, Callable[[Path, int, int], None]] = {
    "voc": _voc,
    "coco": _coco,
    "nuswide": _nuswide,
    "cub": _cub,
    "imagenet": _imagenet,
}
