"""MS-COCO: its format in miniature, 128 genuine photos, and the labels of all of train2014."""

from __future__ import annotations

import functools
import hashlib
import json
import operator
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from miniature import write_coco
from PIL import Image

from spml_tf import labels as lab
from spml_tf.datasets import observed_labels, readers
from spml_tf.datasets.readers import coco
from spml_tf.system.errors import UserError

DELETED = "deleted"
JUNK = (DELETED, None, True, -1, 1.5, 1e308, 10**400, float("nan"), "", "x", [], {})
REAL = pytest.mark.skipif(
    "SPML_TF_TEST_DATA" not in os.environ,
    reason="needs real labels: set SPML_TF_TEST_DATA to a folder with coco128 and labels",
)


def miniature() -> dict:
    """After cocodataset.org/#format-data: "image{id, width, height, file_name, license, ...}",
    "annotation{id, image_id, category_id, segmentation, area, bbox: [x,y,width,height], iscrowd}",
    "categories[{id, name, supercategory}]"; "box coordinates are measured from the top left image
    corner and are 0-indexed"; iscrowd=1 labels "large groups of objects", outlined by RLE."""
    return {
        "info": {"year": 2014},
        "licenses": [],
        "images": [
            {"id": 9, "file_name": "b.jpg", "width": 50, "height": 40, "license": 3},
            {"id": 100, "file_name": "a.jpg", "width": 20, "height": 10, "license": 3},
            {"id": 25, "file_name": "c.jpg", "width": 50, "height": 40, "license": 3},
        ],
        "annotations": [
            {"id": 1, "image_id": 9, "category_id": 18, "segmentation": [[0, 0, 1, 1]],
             "area": 100.0, "bbox": [5.0, 4.0, 20.0, 10.0], "iscrowd": 0},
            {"id": 2, "image_id": 9, "category_id": 1, "segmentation": {"counts": [], "size": []},
             "area": 1000, "bbox": [0, 0, 50, 40], "iscrowd": 1},
            {"id": 3, "image_id": 100, "category_id": 18, "segmentation": [],
             "area": 50, "bbox": [10, 0, 12, 5], "iscrowd": 0},
            {"id": 4, "image_id": 100, "category_id": 18, "segmentation": [],
             "area": 20, "bbox": [0, 0, 5, 10], "iscrowd": 0},
        ],
        "categories": [
            {"id": 18, "name": "dog", "supercategory": "animal"},
            {"id": 1, "name": "person", "supercategory": "person"},
        ],
    }  # fmt: skip


def write(root: Path, content: object, split: str = "train2014") -> Path:
    (root / split).mkdir(exist_ok=True)
    for name in "abc":
        Image.new("RGB", (50, 40)).save(root / split / f"{name}.jpg")
    return write_json(root, content, split)


def write_json(root: Path, content: object, split: str = "train2014") -> Path:
    write_coco(root, split, content)
    return root


def places(content: object) -> Iterator[tuple]:
    """The keys that lead to every value."""
    pairs = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in pairs:
        yield (key,)
        if isinstance(value, dict | list):
            yield from ((key, *rest) for rest in places(value))


class TestMiniature:
    def test_labels(self, tmp_path):
        """Sorted by the ids as text, "100" before "9"; 25 has no annotation; crowds count."""
        examples = coco.load(write(tmp_path, miniature()))
        assert examples.names == ("train2014/a.jpg", "train2014/b.jpg")
        assert examples.class_names == ("dog", "person")
        assert examples.labels.tolist() == [[1, 0], [1, 1]]
        path = tmp_path / "annotations" / "instances_train2014.json"
        assert examples.notes == (
            f"{path}: 1 of 3 images have no annotation and are left out, the first is c.jpg",
            f"{path}: objects that reach beyond their image, clipped to it: 1 of 4, the first "
            "is annotations[2]",
            f"{path}: crowds, which count as labels and have no box: 1 of 4, the first is "
            "annotations[1]",
        )

    def test_boxes_and_areas(self, tmp_path):
        """a.jpg, 20 x 10: x from 10 to 22 is cut to the edge; areas 50 and 20 of 200 pixels.
        b.jpg, 50 x 40: y 4 to 14, x 5 to 25, area 100 of 2000; the crowd has no box."""
        examples = coco.load(write(tmp_path, miniature()))
        np.testing.assert_allclose(
            examples.boxes[0], [[0, 0, 0.5, 0.5, 1], [0, 0, 0, 1, 0.25]], rtol=1e-6
        )
        np.testing.assert_allclose(examples.boxes[1], [[0, 0.1, 0.1, 0.35, 0.5]], rtol=1e-6)
        np.testing.assert_allclose(np.concatenate(examples.areas), [0.25, 0.1, 0.05], rtol=1e-6)

    def test_2017_and_val(self, tmp_path):
        write(tmp_path, miniature(), "val2017")
        examples = readers.load("coco2017", str(tmp_path), "val")
        assert examples.names == ("val2017/a.jpg", "val2017/b.jpg")
        with pytest.raises(UserError, match=r"instances_val2014.*annotations_trainval2014\.zip"):
            readers.load("coco", str(tmp_path), "val")

    @pytest.mark.parametrize(
        ("part", "row", "key", "value", "message"),
        [
            ("images", 1, "id", "100", r"id must be a whole number, found '100'"),
            ("images", 1, "id", 100.0, r"id must be a whole number, found 100\.0"),
            ("images", 1, "id", True, r"id must be a whole number, found true"),
            ("images", 1, "id", 9, r"id 9 is also that of images\[0\]; remove or rename"),
            ("images", 1, "file_name", "b.jpg", r"file_name 'b\.jpg' is also that of images\[0\]"),
            ("images", 1, "file_name", None, r"file_name must be text, found null"),
            ("images", 1, "file_name", "", r"file_name must be text that can be printed"),
            ("images", 1, "file_name", "a\n.jpg", r".* on one line, found 'a\\n\.jpg'"),
            ("images", 1, "file_name", "\0", r"file_name must be text that can be printed"),
            ("images", 1, "file_name", "\ud800", r"file_name must be text that can be printed"),
            ("images", 1, "file_name", "../a.jpg", r".*leaves the data folder.*--allow_outside"),
            ("images", 1, "file_name", "/a.jpg", r"'/a\.jpg' is an absolute path"),
            ("images", 1, "file_name", "x.jpg", r".*x\.jpg: the photo is missing \(1 of 2 are\)"),
            ("images", 1, "file_name", DELETED, r"it has no file_name; add it"),
            ("images", 2, "width", 0, r"width must be at least 1, found 0"),
            ("images", 1, "height", None, r"height must be a number, found null"),
            ("images", 1, "height", float("inf"), r"height must be at least 1, found inf"),
            ("categories", 1, "id", 18, r"id 18 is also that of categories\[0\]"),
            ("categories", 1, "name", "dog", r"name 'dog' is also that of categories\[0\]"),
            ("categories", 0, "name", "", r"name must be text that can be printed on one line"),
            ("annotations", 2, "image_id", 7, r"image_id 7 is no image of this file"),
            ("annotations", 2, "image_id", 2**70, r"image_id \d+ is no image of this file"),
            ("annotations", 2, "image_id", [7], r"image_id must be a whole number, found \[7\]"),
            ("annotations", 2, "image_id", DELETED, r"it has no image_id; add it"),
            ("annotations", 2, "category_id", 2, r"category_id 2 is no category of this file"),
            ("annotations", 2, "category_id", True, r"category_id must be a whole number"),
            ("annotations", 2, "iscrowd", 2, r"iscrowd must be 0 or 1, found 2"),
            ("annotations", 2, "iscrowd", False, r"iscrowd must be a whole number, found false"),
            ("annotations", 2, "bbox", "1234", r"bbox must be a list, found '1234'"),
            ("annotations", 2, "bbox", [1, 2, 3], r"bbox must be \[x, y, width, height\], found"),
            ("annotations", 2, "bbox", [1, 2, 3, "4"], r"bbox must be .*, all of them numbers"),
            ("annotations", 2, "bbox", [1, 2, 3, None], r"bbox must be .*, all of them numbers"),
            ("annotations", 2, "bbox", [1, 2, True, 4], r"bbox must be .*, all of them numbers"),
            ("annotations", 2, "bbox", [1, 2, 3, float("nan")], r"bbox .* all of them finite"),
            ("annotations", 2, "bbox", [1, 2, 3, 10**400], r"bbox must be .* all of them finite"),
            ("annotations", 2, "bbox", [1, 2, -3, 4], r"bbox must be .* of no negative size"),
            ("annotations", 1, "bbox", DELETED, r"it has no bbox"),
            ("annotations", 2, "area", -1, r"area must be a number that is not negative, found -1"),
            ("annotations", 2, "area", float("nan"), r"area must be .* not negative, found nan"),
            ("annotations", 2, "area", "5", r"area must be a number, found '5'"),
        ],
    )
    def test_malformed_entries(self, tmp_path, part, row, key, value, message):
        content = miniature()
        content[part][row][key] = value
        if value == DELETED:
            del content[part][row][key]
        place = rf"instances_train2014\.json: {part}\[{row}\]: "
        with pytest.raises(UserError, match=place + message) as caught:
            coco.load(write(tmp_path, content))
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 500

    def test_anything_anywhere(self, tmp_path):
        """Every value of the file in turn replaced by values of all kinds, or taken away."""
        write(tmp_path, {})
        path = tmp_path / "annotations" / "instances_train2014.json"
        text = json.dumps(miniature())
        refused = 0
        for keys in places(miniature()):
            for value in JUNK:
                content = json.loads(text)
                holder = functools.reduce(operator.getitem, keys[:-1], content)
                if value == DELETED:
                    del holder[keys[-1]]
                else:
                    holder[keys[-1]] = value
                path.write_text(json.dumps(content))
                try:
                    coco.load(tmp_path)
                except UserError as error:
                    assert str(error).startswith(str(path)) and "\n" not in str(error)
                    refused += 1
        assert refused > 400

    @pytest.mark.parametrize("part", ["images", "categories", "annotations"])
    @pytest.mark.parametrize("value", [None, [], {}, "x", [3], [None], [[]]])
    def test_malformed_lists(self, tmp_path, part, value):
        with pytest.raises(UserError, match=rf"instances_train2014\.json: {part}"):
            coco.load(write(tmp_path, {**miniature(), part: value}))

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b'{"images": [', r"not whole JSON: .* in line 1, column 13"),
            (b"", "not whole JSON"),
            (b"\xff\xfe\x00", ":1: not UTF-8"),
            (b"[1, 2]", r"expected an object, found \[1, 2\]; get train2014\.zip"),
            (b"null", "expected an object, found null"),
            (b"{}", "images is missing; get train2014"),
            (b"[" * 200_000, "no usable JSON"),
            (b'{"images": ' + b"9" * 5000 + b"}", "no usable JSON"),
        ],
    )
    def test_malformed_files(self, tmp_path, content, message):
        write(tmp_path, {})
        (tmp_path / "annotations" / "instances_train2014.json").write_bytes(content)
        with pytest.raises(UserError, match=message):
            coco.load(tmp_path)

    def test_every_cut_is_refused(self, tmp_path):
        text = json.dumps(miniature())
        write(tmp_path, {})
        for end in range(0, len(text), 7):
            (tmp_path / "annotations" / "instances_train2014.json").write_text(text[:end])
            with pytest.raises(UserError, match=r"not whole JSON"):
                coco.load(tmp_path)

    def test_mistakes(self, tmp_path):
        with pytest.raises(
            UserError, match="data_dir: MS-COCO needs its folder; get train2014.zip"
        ):
            coco.load(None)
        with pytest.raises(UserError, match="split: MS-COCO has train, val, found 'test'"):
            coco.load(tmp_path, "test")
        with pytest.raises(ValueError, match=r"year: expected one of \(2014, 2017\), found 2015"):
            coco.load(tmp_path, "train", 2015)
        write(tmp_path, miniature())
        with pytest.raises(UserError, match="--year: this data set does not take it"):
            readers.load("coco", str(tmp_path), "train", year=2017)

    def test_files_that_cannot_be_read(self, tmp_path):
        (tmp_path / "annotations" / "instances_train2014.json").mkdir(parents=True)
        with pytest.raises(UserError, match=r"2014\.json: cannot be read \(Is a directory\); get "):
            coco.load(tmp_path)

    def test_an_image_of_crowds_only(self, tmp_path):
        content = miniature()
        content["annotations"] = content["annotations"][1:2]
        examples = coco.load(write(tmp_path, content))
        assert examples.labels.tolist() == [[0, 1]]
        assert examples.boxes[0].shape == (0, 5) and examples.areas[0].shape == (0,)

    def test_a_byte_order_mark_and_line_ends(self, tmp_path):
        expected = coco.load(write(tmp_path, miniature()))
        text = json.dumps(miniature(), indent=1).replace("\n", "\r\n")
        path = tmp_path / "annotations" / "instances_train2014.json"
        path.write_bytes(b"\xef\xbb\xbf" + text.encode())
        assert coco.load(tmp_path).fingerprint() == expected.fingerprint()

    def test_photos_outside(self, tmp_path):
        content = miniature()
        content["images"][1]["file_name"] = str(tmp_path / "other.jpg")
        Image.new("RGB", (20, 10)).save(tmp_path / "other.jpg")
        examples = coco.load(write(tmp_path, content), allow_outside=True)
        assert examples.paths[0] == str(tmp_path / "other.jpg")
        (tmp_path / "train2014" / "b.jpg").unlink()
        (tmp_path / "train2014" / "b.jpg").symlink_to(tmp_path / "other.jpg")
        with pytest.raises(UserError, match=r"images\[0\]: .*b\.jpg' is a symbolic link"):
            coco.load(write_json(tmp_path, miniature()))


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """The photos of any annotations that a test writes for them."""
    return write(tmp_path_factory.mktemp("coco"), {})


sizes = st.integers(1, 700)
numbers = st.one_of(st.integers(-9, 800), st.floats(-9, 800))
spans = st.one_of(st.integers(0, 800), st.floats(0, 800))
# (image, category, whether it is a crowd, x, y, width, height, area)
instances = st.tuples(
    st.integers(0, 2), st.integers(0, 1), st.booleans(), numbers, numbers, spans, spans, spans
)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(sizes, sizes), min_size=3, max_size=3),
    st.lists(st.integers(0, 10**12), min_size=3, max_size=3, unique=True),
    st.lists(instances, min_size=1, max_size=12),
)
def test_against_plain_loops(photos, sides, ids, objects):
    images = [
        {"id": number, "file_name": f"{name}.jpg", "height": height, "width": width}
        for number, name, (height, width) in zip(ids, "abc", sides, strict=True)
    ]
    annotations = [
        {"image_id": ids[image], "category_id": 5 - column, "iscrowd": int(crowd),
         "bbox": [x, y, across, down], "area": area}
        for image, column, crowd, x, y, across, down, area in objects
    ]  # fmt: skip
    categories = [{"id": 5, "name": "cat"}, {"id": 4, "name": "dog"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    examples = coco.load(write_json(photos, content))
    shown = sorted({image for image, *_ in objects}, key=lambda image: str(ids[image]))
    assert examples.names == tuple(f"train2014/{'abc'[image]}.jpg" for image in shown)
    for row, image in enumerate(shown):
        own = [x[1:] for x in objects if x[0] == image]
        assert set(np.flatnonzero(examples.labels[row])) == {x[0] for x in own}
        height, width = sides[image]
        own = [x for x in own if not x[1]]
        corners = [
            [column, y / height, x / width, (y + down) / height, (x + across) / width]
            for column, _, x, y, across, down, _ in own
        ]
        expected = np.array(corners, np.float64).reshape(-1, 5)
        expected[:, 1:] = np.minimum(np.maximum(expected[:, 1:], 0), 1)
        np.testing.assert_allclose(examples.boxes[row], expected, atol=1e-6)
        expected = [min(area / (height * width), 1) for *_, area in own]
        np.testing.assert_allclose(examples.areas[row], expected, atol=1e-6)


@REAL
def test_genuine_annotations():
    """128 photos of train2017 against a computation of its own from the json."""
    root = Path(os.environ["SPML_TF_TEST_DATA"]) / "coco128"
    examples = readers.load("coco2017", str(root), "train")
    content = json.loads((root / "annotations" / "instances_train2017.json").read_text())
    order = [category["id"] for category in content["categories"]]
    expected = []
    for image in sorted(content["images"], key=lambda image: str(image["id"])):
        own = [x for x in content["annotations"] if x["image_id"] == image["id"]]
        if own:
            expected.append((image, own))
    assert len(content["images"]) == 128 and len(expected) == len(examples) == 126
    assert "2 of 128 images have no annotation" in examples.notes[0]
    assert examples.class_names == tuple(x["name"] for x in content["categories"])
    singles = 0
    for row, (image, own) in enumerate(expected):
        assert examples.names[row] == f"train2017/{image['file_name']}"
        present = {order.index(x["category_id"]) for x in own}
        assert set(np.flatnonzero(examples.labels[row] == 1)) == present
        assert set(np.flatnonzero(examples.labels[row] == 0)) == set(range(80)) - present
        own = [x for x in own if not x["iscrowd"]]
        singles += len(own)
        assert len(own) == len(examples.boxes[row]) == len(examples.areas[row])
        for box, area, one in zip(examples.boxes[row], examples.areas[row], own, strict=True):
            x, y, width, height = one["bbox"]
            assert box[0] == order.index(one["category_id"])
            corners = [y / image["height"], x / image["width"]]
            corners += [(y + height) / image["height"], (x + width) / image["width"]]
            np.testing.assert_allclose(box[1:], np.clip(corners, 0, 1), atol=1e-6)
            pixels = image["height"] * image["width"]
            assert area == pytest.approx(one["area"] / pixels, rel=1e-5)
    assert singles == 929
    # No genuine box reaches beyond its image.
    assert len(examples.notes) == 2 and "no box: 10 of 939" in examples.notes[1]


@pytest.mark.slow
@REAL
def test_all_of_train2014(tmp_path):
    """The labels of all 82,081 annotated images, as an annotation file in the official format."""
    data = Path(os.environ["SPML_TF_TEST_DATA"])
    listed = data / "labels" / "coco_train2014_labels.txt"
    genuine = data / "coco128" / "annotations" / "instances_train2017.json"
    categories = json.loads(genuine.read_text())["categories"]  # With the ids' genuine gaps.
    truth = {}
    for line in listed.read_text().splitlines():
        name, _, classes = line.partition(",")
        truth[name] = [int(x) for x in classes.split()]
    (tmp_path / "annotations").mkdir()
    (tmp_path / "train2014").mkdir()
    images, annotations = [], []
    for name, classes in truth.items():
        number = int(name[-16:-4])
        images.append({"id": number, "file_name": name, "height": 2, "width": 2})
        open(tmp_path / "train2014" / name, "w").close()
        for index in classes:
            annotations.append(
                {
                    "id": len(annotations), "image_id": number,
                    "category_id": categories[index]["id"],
                    "bbox": [0, 0, 1, 1], "area": 1, "iscrowd": 0,
                }
            )  # fmt: skip
    (tmp_path / "annotations" / "instances_train2014.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    examples = readers.load("coco", str(tmp_path), "train")
    shutil.rmtree(tmp_path / "train2014")  # So many files are not kept to be looked at.
    assert examples.labels.shape == (82_081, 80) and examples.notes == ()
    ordered = sorted(truth, key=lambda name: str(int(name[-16:-4])))
    assert examples.names == tuple(f"train2014/{name}" for name in ordered)
    expected = np.zeros((82_081, 80), np.int8)
    for row, name in enumerate(ordered):
        expected[row, truth[name]] = 1
    np.testing.assert_array_equal(examples.labels, expected)
    # Table A.1 of the paper: 80 classes, 2.94 labels an image, 65,665 and 16,416 images.
    assert round(lab.positives_per_image(examples.labels), 2) == 2.94
    train, val = observed_labels.split_indices(len(examples))
    assert (len(train), len(val)) == (65_665, 16_416)
    observed = observed_labels.draw_observed(examples.labels)
    assert (observed == 1).sum() == 82_081 and (observed == 0).sum() == 0
    assert lab.digest(observed) == drawn_digest(expected)


def drawn_digest(full: np.ndarray) -> str:
    """The published way to draw one positive an image: for each image in order the positives are
    shuffled and the first is kept; then the negatives are shuffled too, and none is kept."""
    generator = np.random.RandomState(1200)
    drawn = np.full(full.shape, -1, np.int8)
    for image in range(len(full)):
        positives = np.where(full[image] == 1)[0]
        generator.shuffle(positives)
        drawn[image, positives[0]] = 1
        generator.shuffle(np.where(full[image] == 0)[0])
    return hashlib.sha256(drawn.tobytes()).hexdigest()
