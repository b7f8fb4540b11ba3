"""Data sets that TensorFlow Datasets has prepared on disk: `--dataset=tfds:voc/2012`.

Nothing is downloaded: the folder DATA_DIR/voc/2012/5.0.0, with dataset_info.json, features.json and
TFRecord files, is what `tfds.load("voc/2012", data_dir=DATA_DIR)` once left there. Labels are read
in one pass over the records; training then reads each image where its record begins.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spml_tf.datasets.readers.examples import Examples
from spml_tf.datasets.readers.prepared import RECORD_FRAME
from spml_tf.datasets.readers.split_names import SplitNames, check_split
from spml_tf.datasets.readers.voc import DIFFICULT_RULES
from spml_tf.labels import NEGATIVE, POSITIVE, UNKNOWN
from spml_tf.system.errors import UserError, reason_of
from spml_tf.system.json_text import parse_json
from spml_tf.system.text_files import read_text

# Where the positive labels stand, the first that is there counts, and whether labels that are not
# listed are negative.
_LABEL_FEATURES = (
    ("labels_no_difficult", True),
    ("objects/label", True),
    ("labels", True),
    ("label", False),
)
_VERSION = re.compile(r"\d+\.\d+\.\d+")


def load(
    data_dir: str | os.PathLike[str], split: str, dataset: str, difficult: str = "negative"
) -> Examples:
    """Reads one split that TensorFlow Datasets has prepared.

    Understood are the features "image" with, first found, "labels_no_difficult" (Pascal VOC),
    "objects/label" (MS-COCO and other detection sets), "labels" (several classes an image) or
    "label" (one class an image; all others are unknown).

    Args:
        data_dir: the folder given to tfds, above the data set's.
        split: "train", "validation" or another split it has.
        dataset: its name there, such as "voc/2012" or "coco/2014", perhaps with ":VERSION".
        difficult: with "labels_no_difficult", how a class counts that only "labels" lists:
            "negative", "positive" or "unknown".

    Returns:
        Examples whose images are records of TFRecord files, sorted by "image/id" as text or
        "image/filename" where there are these, which is the order of the readers of the original
        files. Images without a positive label are left out, with a note. Boxes where there is
        "objects/bbox", without crowds; areas from "objects/area", else the boxes' own.

    Raises:
        UserError: not prepared on disk, other features or another file format, an unknown split, or
            a file that is missing or damaged.
    """
    builder = _builder(dataset, data_dir)
    check_split(split, builder.info.splits, f"tfds:{dataset} has")
    features = builder.info.features
    key, exhaustive = _label_feature(dataset, features)
    class_names = tuple(_feature(features, key).names)
    shards = [str(path) for path in builder.info.splits[split].filepaths]
    records = list(_records(shards, features, key, difficult == "positive"))
    if not records:
        raise UserError(f"--dataset=tfds:{dataset}: its split {split} holds no image")
    records.sort(key=lambda record: record["order"])
    _check_names(dataset, [record["name"] for record in records])
    labels = _label_matrix(records, len(class_names), exhaustive, DIFFICULT_RULES[difficult])
    kept = np.flatnonzero((labels == POSITIVE).any(axis=1))
    notes: tuple[str, ...] = ()
    if len(kept) < len(records):
        notes = (
            f"{len(records) - len(kept)} of {len(records)} images of tfds:{dataset} {split} have "
            "no positive label and are left out",
        )
    chosen = [records[row] for row in kept]
    return Examples(
        tuple(record["name"] for record in chosen),
        labels[kept],
        class_names,
        paths=tuple(record["path"] for record in chosen),
        offsets=np.array([record["offset"] for record in chosen], np.int64),
        boxes=tuple(x["boxes"] for x in chosen) if "boxes" in records[0] else None,
        areas=tuple(x["areas"] for x in chosen) if "areas" in records[0] else None,
        notes=notes,
    )


def splits(data_dir: str | os.PathLike[str], dataset: str) -> SplitNames:
    """Trains on "train" and reports on "validation", else on "test", where they are there."""
    path = _folder(dataset, data_dir) / "dataset_info.json"
    text = read_text(path)
    try:
        names = {split["name"] for split in parse_json(text)["splits"]}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not tfds' own ({error}); prepare the data set again") from error
    test = next((name for name in ("validation", "test") if name in names), "none")
    return SplitNames("train", "none", test)


def _folder(dataset: str, data_dir: str | os.PathLike[str]) -> Path:
    name, _, version = dataset.partition(":")
    if not re.fullmatch(r"\w+(/[\w.-]*\w[\w.-]*)?", name):
        raise UserError(f"--dataset=tfds:{dataset}: give a name such as tfds:voc/2012")
    folder = Path(data_dir).absolute() / name
    found = [
        path.name
        for path in (folder.iterdir() if folder.is_dir() else ())
        if _VERSION.fullmatch(path.name) and (path / "dataset_info.json").is_file()
    ]
    if not found or (version and version not in found):
        raise UserError(
            f"--dataset=tfds:{dataset}: {folder / (version or 'VERSION')} holds no "
            f'dataset_info.json; prepare it once with python -c "import tensorflow_datasets as t; '
            f"t.load('{name}', data_dir='{data_dir}')\""
        )
    return folder / (version or max(found, key=lambda x: [int(n) for n in x.split(".")]))


def _builder(dataset: str, data_dir: str | os.PathLike[str]) -> Any:
    import tensorflow_datasets as tfds

    folder = _folder(dataset, data_dir)
    try:
        builder = tfds.builder_from_directory(folder)
        file_format = builder.info.file_format
    except Exception as error:  # what tfds raises on damaged files is not documented
        reason = reason_of(error, 200)
        raise UserError(
            f"{folder}: cannot be read as a prepared data set ({reason}); prepare it again"
        ) from error
    if file_format != tfds.core.FileFormat.TFRECORD:
        raise UserError(
            f"{folder}: prepared as {file_format.value}; prepare it again with "
            "file_format='tfrecord'"
        )
    return builder


def _label_feature(dataset: str, features: Any) -> tuple[str, bool]:
    if "image" in features:
        for key, exhaustive in _LABEL_FEATURES:
            if hasattr(_feature(features, key), "names"):
                return key, exhaustive
    wanted = " or ".join(key for key, _ in _LABEL_FEATURES)
    raise UserError(
        f"--dataset=tfds:{dataset}: needs the features image and {wanted}, found "
        f"{', '.join(features)}"
    )


def _feature(features: Any, key: str) -> Any:
    """The feature called "image/id", or "label" in the sequence "objects", or None."""
    if key not in features and key.startswith("objects/") and "objects" in features:
        features = getattr(features["objects"], "feature", {})
        key = key.removeprefix("objects/")
    if not hasattr(features, "keys") or key not in features:
        return None
    return getattr(features[key], "feature", features[key])


def _records(
    shards: Sequence[str], features: Any, key: str, keep_difficult: bool
) -> Iterator[dict[str, Any]]:
    """What there is to know of every image but its pixels, shard after shard."""
    import tensorflow as tf

    spec = {"image": tf.io.FixedLenFeature([], tf.string), key: tf.io.RaggedFeature(tf.int64)}
    for name, kind in (
        ("labels", tf.int64), ("image/filename", tf.string), ("image/id", tf.int64),
        ("objects/bbox", tf.float32), ("objects/label", tf.int64), ("objects/area", tf.int64),
        ("objects/is_crowd", tf.int64), ("objects/is_difficult", tf.int64),
    ):  # fmt: skip
        if _feature(features, name) is not None:
            spec[name] = tf.io.RaggedFeature(kind)

    def parse(record: tf.Tensor) -> dict[str, tf.Tensor]:
        parsed: dict[str, tf.Tensor] = tf.io.parse_single_example(record, spec)
        image = parsed.pop("image")
        parsed["bytes"] = tf.strings.length(record)
        if "objects/area" in spec:
            parsed["shape"] = _image_shape(image)
        return parsed

    for path in shards:
        offset = 0
        records = tf.data.TFRecordDataset(path).map(parse, num_parallel_calls=tf.data.AUTOTUNE)
        try:
            for number, parsed in enumerate(records.as_numpy_iterator()):
                name = f"{os.path.basename(path)}/{number:06d}"
                place = {"path": path, "offset": offset}
                yield {**place, **_record(name, parsed, key, keep_difficult)}
                offset += RECORD_FRAME + int(parsed["bytes"])
        except (tf.errors.OpError, ValueError) as error:
            reason = " ".join(str(getattr(error, "message", error)).split())[:200]
            raise UserError(f"{path}: cannot be read ({reason}); prepare it again") from error


def _image_shape(contents: Any) -> Any:
    from spml_tf.datasets import image_headers

    return image_headers.size(contents)


def _record(name: str, parsed: dict[str, Any], key: str, keep_difficult: bool) -> dict[str, Any]:
    if len(parsed.get("image/filename", ())):
        name = parsed["image/filename"][0].decode("utf-8")
    order = str(parsed["image/id"][0]) if len(parsed.get("image/id", ())) else name
    # The other classes that "labels" lists are those with difficult objects only.
    listed = parsed["labels"] if key == "labels_no_difficult" else parsed[key]
    record = {"name": name, "order": order, "labels": parsed[key], "listed": listed}
    if "objects/bbox" in parsed and "objects/label" in parsed:
        record |= _boxes(parsed, keep_difficult)
    return record


def _boxes(parsed: dict[str, Any], keep_difficult: bool) -> dict[str, NDArray[np.float32]]:
    """Boxes and areas of the objects that count: no crowds, difficult ones where asked for."""
    corners = np.clip(parsed["objects/bbox"].reshape(-1, 4), 0.0, 1.0)
    rows = np.column_stack([parsed["objects/label"], corners]).astype(np.float32)
    counted = np.ones(len(rows), bool)
    if "objects/is_crowd" in parsed:
        counted &= parsed["objects/is_crowd"] == 0
    if "objects/is_difficult" in parsed and not keep_difficult:
        counted &= parsed["objects/is_difficult"] == 0
    result = {"boxes": rows[counted]}
    if "objects/area" in parsed:
        areas = parsed["objects/area"] / np.prod(parsed["shape"], dtype=np.float64)
        result["areas"] = np.clip(areas, 0.0, 1.0).astype(np.float32)[counted]
    return result


def _check_names(dataset: str, names: Sequence[str]) -> None:
    known: set[str] = set()
    for name in names:
        if name in known:
            raise UserError(f"--dataset=tfds:{dataset}: two images are called {name!r}")
        known.add(name)


def _label_matrix(
    records: Sequence[dict[str, Any]], num_classes: int, exhaustive: bool, difficult: int
) -> NDArray[np.int8]:
    labels = np.full((len(records), num_classes), NEGATIVE if exhaustive else UNKNOWN, np.int8)
    for record, row in zip(records, labels, strict=True):
        if exhaustive:
            row[record["listed"]] = difficult
        row[record["labels"]] = POSITIVE
    return labels
