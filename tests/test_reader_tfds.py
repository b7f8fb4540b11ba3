"""Data sets prepared by TensorFlow Datasets, written to disk from tfds' own mock data."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import run

from spml_tf import data
from spml_tf.datasets import dataset_elements, observed_labels, readers
from spml_tf.system.errors import UserError

EXAMPLES = 7


def mock_examples(name: str) -> tuple[object, list[dict]]:
    """The features and some random examples of a tfds data set, no two with the same file name.

    tfds draws every part's length by itself; an image's objects get a length in common here.
    """
    import tensorflow_datasets as tfds

    with warnings.catch_warnings(), tfds.testing.mock_data(num_examples=EXAMPLES):
        warnings.simplefilter("ignore")
        builder = tfds.builder(name, data_dir="nowhere")
        examples = list(tfds.as_numpy(builder.as_dataset(split="train")))
    for number, example in enumerate(examples):
        example["image/filename"] = f"{(number * 5) % EXAMPLES:06d}.jpg".encode()
        objects = example["objects"]
        count = min(len(part) for part in objects.values())
        corners = np.sort(objects["bbox"][:count].reshape(-1, 2, 2), axis=1).reshape(-1, 4)
        example["objects"] = {key: part[:count] for key, part in objects.items()}
        example["objects"]["bbox"] = corners
    return builder.info.features, examples


def write(root: Path, name: str, features, examples: list[dict]) -> Path:
    """Writes the folder that `tfds.load` leaves: records, dataset_info.json, features.json.

    https://www.tensorflow.org/datasets/external_tfrecord describes it for data from elsewhere.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import naming

    folder = root / name / "5.0.0"
    folder.mkdir(parents=True)
    half = len(examples) // 2
    infos = []
    for split, parts in (
        ("train", (examples[:half], examples[half:])),
        ("validation", (examples,)),
    ):
        template = naming.ShardedFileTemplate(
            dataset_name=name.split("/")[0], split=split, filetype_suffix="tfrecord",
            data_dir=folder,
        )  # fmt: skip
        for shard, part in enumerate(parts):
            path = template.sharded_filepath(shard_index=shard, num_shards=len(parts))
            with tf.io.TFRecordWriter(str(path)) as writer:
                for example in part:
                    writer.write(features.serialize_example(example))
        infos.append(
            tfds.core.SplitInfo(
                name=split, shard_lengths=[len(part) for part in parts], num_bytes=0,
                filename_template=template,
            )
        )  # fmt: skip
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=features, split_infos=infos, filename_template=None
    )
    return root


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Both data sets on disk, and the examples that were written."""
    root = tmp_path_factory.mktemp("tfds")
    written = {}
    for name in ("voc/2012", "coco/2014"):
        features, examples = mock_examples(name)
        write(root, name, features, examples)
        written[name] = examples
    return root, written


def test_voc(prepared):
    root, written = prepared
    read = readers.load("tfds:voc/2012", str(root), "train")
    examples = sorted(written["voc/2012"], key=lambda x: x["image/filename"])
    assert read.names == tuple(x["image/filename"].decode() for x in examples)
    assert read.class_names[:2] == ("aeroplane", "bicycle") and len(read.class_names) == 20
    for row, boxes, example in zip(read.labels, read.boxes, examples, strict=True):
        assert set(np.flatnonzero(row == 1)) == set(example["labels_no_difficult"])
        assert (row >= 0).all()
        objects = example["objects"]
        easy = ~objects["is_difficult"]
        np.testing.assert_array_equal(boxes[:, 0], objects["label"][easy])
        np.testing.assert_allclose(boxes[:, 1:], objects["bbox"][easy], atol=1e-6)


@pytest.mark.parametrize(("rule", "value"), [("positive", 1), ("unknown", -1), ("negative", 0)])
def test_difficult(prepared, rule, value):
    root, written = prepared
    read = readers.load("tfds:voc/2012", str(root), "train", difficult=rule)
    seen = 0
    by_name = {x["image/filename"].decode(): x for x in written["voc/2012"]}
    for name, row, boxes in zip(read.names, read.labels, read.boxes, strict=True):
        example = by_name[name]
        only_difficult = set(example["labels"]) - set(example["labels_no_difficult"])
        assert {row[i] for i in only_difficult} <= {value}
        seen += len(only_difficult)
        if rule == "positive":
            assert len(boxes) == len(example["objects"]["label"])
    assert seen


def test_coco(prepared):
    root, written = prepared
    read = readers.load("tfds:coco/2014", str(root), "train")
    examples = [x for x in written["coco/2014"] if len(x["objects"]["label"])]
    examples.sort(key=lambda x: str(x["image/id"]))
    # The names come with the download; mock data have numbers only.
    assert read.class_names == tuple(str(number) for number in range(80))
    assert read.names == tuple(x["image/filename"].decode() for x in examples)
    for row, boxes, areas, example in zip(
        read.labels, read.boxes, read.areas, examples, strict=True
    ):
        objects = example["objects"]
        assert set(np.flatnonzero(row == 1)) == set(objects["label"]) and (row >= 0).all()
        single = ~objects["is_crowd"]
        np.testing.assert_array_equal(boxes[:, 0], objects["label"][single])
        pixels = example["image"].shape[0] * example["image"].shape[1]
        expected = np.minimum(objects["area"][single] / pixels, 1)
        np.testing.assert_allclose(areas, expected, rtol=1e-6)


def test_pixels_are_those_written(prepared):
    """tfds keeps arrays as PNG, without loss."""
    root, written = prepared
    read = readers.load("tfds:voc/2012", str(root), "train")
    by_name = {x["image/filename"].decode(): x["image"] for x in written["voc/2012"]}
    source = dataset_elements.Source(read, read.labels, 8)
    for row, name in enumerate(read.names):
        image = tf.io.decode_image(source.contents(tf.constant(row, tf.int64)))
        np.testing.assert_array_equal(image, by_name[name])


def test_images_without_labels_are_counted(prepared, tmp_path):
    features, _ = mock_examples("coco/2014")
    examples = prepared[1]["coco/2014"]
    bare = {**examples[0], "image/filename": b"bare.jpg"}
    bare["objects"] = {key: part[:0] for key, part in bare["objects"].items()}
    write(tmp_path, "coco/2014", features, [*examples, bare])
    read = readers.load("tfds:coco/2014", str(tmp_path), "validation")
    assert "bare.jpg" not in read.names
    assert read.notes == (
        "1 of 8 images of tfds:coco/2014 validation have no positive label and are left out",
    )


def test_trains_from_the_command_line(prepared, tmp_path):
    """Never downloads: the flags name what is on disk, and the run reports on validation."""
    done = run(
        "--dataset=tfds:voc/2012", f"--data_dir={prepared[0]}", "--network=small_residual",
        "--image_size=32", "--epochs=1", "--batch_size=4", "--threads=1",
        f"--output_dir={tmp_path / 'run'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["images"] == {"train": 6, "val": 1, "test": 7}
    drawn = readers.load("tfds:voc/2012", str(prepared[0]), "train").labels
    drawn = observed_labels.draw_observed(drawn)[observed_labels.split_indices(7)[0]]
    ones = (tmp_path / "run" / "train_labels.csv").read_text().count(",1\n")
    assert ones == (drawn == 1).sum() == 6


@pytest.mark.parametrize(
    ("dataset", "split", "message"),
    [
        ("tfds:voc/2007", "train", r"tfds:voc/2007: .*VERSION holds no dataset_info.json; prepare"),
        ("tfds:voc/2012:9.9.9", "train", r"9\.9\.9 holds no dataset_info"),
        ("tfds:../voc", "train", r"give a name such as tfds:voc/2012"),
        ("tfds:voc/2012", "test", r"split: tfds:voc/2012 has train, validation, found 'test'"),
    ],
)
def test_mistakes(prepared, dataset, split, message):
    with pytest.raises(UserError, match=message):
        readers.load(dataset, str(prepared[0]), split)


def test_a_split_that_is_not_there_is_told_with_its_flag(prepared, capsys):
    words = ["check", "--dataset=tfds:voc/2012", f"--data_dir={prepared[0]}", "--test_split=tst"]
    assert data.main(words) == 1
    told = "error: --test_split: tfds:voc/2012 has train, validation, found 'tst'\n"
    assert capsys.readouterr().err.endswith(told)


@pytest.mark.parametrize("damage", ["cut", "flip", "missing", "info", "features"])
def test_damage_is_named(prepared, tmp_path, damage):
    features, _ = mock_examples("voc/2012")
    write(tmp_path, "voc/2012", features, prepared[1]["voc/2012"])
    folder = tmp_path / "voc/2012/5.0.0"
    name = {"info": "dataset_info.json", "features": "features.json"}.get(
        damage, "voc-train.tfrecord-00001-of-00002"
    )
    content = bytearray((folder / name).read_bytes())
    if damage == "flip":
        content[200] ^= 0xFF
    elif damage == "missing":
        (folder / name).unlink()
    else:
        del content[len(content) * 2 // 3 :]
    if damage != "missing":
        (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=str(folder)) as caught:
        readers.find("tfds:voc/2012").split_names(str(tmp_path), {})
        readers.load("tfds:voc/2012", str(tmp_path), "train")
    assert "\n" not in str(caught.value)
