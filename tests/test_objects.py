"""Boxes and masks of the user's own photos, from their files to the figures of an analysis."""

from __future__ import annotations

import os
import re

import numpy as np
import pytest
from conftest import run
from PIL import Image
from saved_runs import table_rows

from spml_tf.datasets import readers
from spml_tf.datasets.readers import objects
from spml_tf.datasets.table_options import TableOptions
from spml_tf.evaluation import measures
from spml_tf.system.errors import UserError

HEADER = "image,class,y1,x1,y2,x2"
BOXES = """\
a/0.jpg,dog,0,0,0.5,0.25
a/1.jpg,cat,0.25,0.5,1,1
a/0.jpg,cat,0.5,0,1,1
b/0.jpg,cat,0,0,1,1
"""


def write(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


@pytest.fixture
def root(tmp_path):
    """Photos a/0 and a/1 to train on and b/0 to validate on; cat is class 1 and dog class 2."""
    for grey, name in enumerate(("a/0", "a/1", "b/0"), start=100):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 40), (grey,) * 3).save(tmp_path / f"{name}.jpg")
    write(tmp_path / "train.csv", "image,cat,dog\na/0.jpg,1,1\na/1.jpg,1,0\n")
    write(tmp_path / "val.csv", "image,cat,dog\nb/0.jpg,1,0\n")
    write(tmp_path / "boxes.csv", f"{HEADER}\n{BOXES}")
    return tmp_path


def load(root, split="train", **others):
    tables = {"train_csv": "train.csv", "val_csv": "val.csv", "boxes_csv": "boxes.csv", **others}
    return readers.load("folder", str(root), split, **tables)


def test_boxes_in_the_order_of_the_table(root):
    found = load(root)
    assert [x.tolist() for x in found.boxes] == [
        [[1, 0, 0, 0.5, 0.25], [0, 0.5, 0, 1, 1]], [[0, 0.25, 0.5, 1, 1]],
    ]  # fmt: skip
    assert [x.tolist() for x in found.areas] == [[0.125, 0.5], [0.375]]
    assert [x.tolist() for x in load(root, "val").boxes] == [[[0, 0, 0, 1, 1]]]
    only = found.restrict(["dog"])
    assert [x.tolist() for x in only.boxes] == [[[0, 0, 0, 0.5, 0.25]]] and not only.mask_numbers
    write(root / "boxes.csv", f"{HEADER},area\na/1.jpg,dog,0,0,1,1,0.25\n")
    found = load(root)
    assert [x.tolist() for x in found.areas] == [[], [0.25]]
    assert "1 boxes of classes that are labelled as absent" in found.notes[-1]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a/0.jpg,dog,0,0,0.5", "expected 6 cells, found 5"),
        ("a/0.jpg,cow,0,0,1,1", "unknown class 'cow'; the classes are 'cat', 'dog'"),
        ("a/9.jpg,dog,0,0,1,1", "'a/9.jpg' is no photo"),
        ("a/0.jpg,dog,0,0,20,30", "y2 must be a part of the image's side, from 0 to 1, found '20'"),
        ("a/0.jpg,dog,0,x,1,1", "x1 must be a part of the image's side, from 0 to 1, found 'x'"),
        ("a/0.jpg,dog,nan,0,1,1", "y1 must be a part .* found 'nan'"),
        ("a/0.jpg,dog,0.5,0,0.5,1", "the box .0.5, 0, 0.5, 1. is empty"),
        ("../x.jpg,dog,0,0,1,1", "copy the photo into the data folder"),
    ],
)
def test_bad_rows_are_named(root, row, message):
    write(root / "boxes.csv", f"{HEADER}\na/0.jpg,dog,0,0,1,1\n{row}\n")
    with pytest.raises(UserError, match=rf"boxes\.csv:3: .*{message}"):
        load(root)


def test_boxes_and_masks_of_copies_are_those_of_the_photo(root):
    (root / "a/1.jpg").write_bytes((root / "a/0.jpg").read_bytes())
    write(root / "train.csv", "image,cat,dog\na/0.jpg,,1\na/1.jpg,1,\n")
    (root / "m" / "a").mkdir(parents=True)
    Image.new("L", (40, 40)).save(root / "m/a/1.png")
    found = load(root, masks_dir="m")
    assert found.names == ("a/0.jpg",) and found.labels.tolist() == [[1, 1]]
    assert [x.tolist() for x in found.boxes] == [
        [[1, 0, 0, 0.5, 0.25], [0, 0.5, 0, 1, 1], [0, 0.25, 0.5, 1, 1]]
    ]
    assert found.areas[0].tolist() == [0.125, 0.5, 0.375]
    assert [os.path.relpath(x, root) for x in found.masks] == ["m/a/1.png"]


def test_a_whole_path_of_masks_may_lead_into_the_data_folder(root):
    (root / "m" / "a").mkdir(parents=True)
    Image.new("L", (40, 40)).save(root / "m/a/1.png")
    found, same = (load(root, masks_dir=x) for x in ("m", str(root / "m")))
    assert found.masks == same.masks == (None, str(root / "m/a/1.png"))
    assert found.notes == same.notes


def test_copies_have_one_weight(root):
    (root / "a/1.jpg").write_bytes((root / "a/0.jpg").read_bytes())
    options = TableOptions(weight_column="w")
    for weight in ("2", "1"):
        write(root / "train.csv", f"image,cat,dog,w\na/0.jpg,1,,1\na/1.jpg,,1,{weight}\n")
        if weight == "1":
            assert load(root, table_options=options).weights.tolist() == [1]
            continue
        with pytest.raises(UserError, match=r"a/0\.jpg: is the same .* 'a/1\.jpg', with another w"):
            load(root, table_options=options)


def test_boxes_have_the_names_of_the_tables(root):
    write(root / "train.csv", "image,cat,dog\nold/a/0,1,1\nold/a/1,1,0\n")
    write(root / "boxes.csv", f"{HEADER}\nold/a/1,cat,0,0,1,1\n")
    options = TableOptions(strip_prefix="old/", add_extension=".jpg")
    found = load(root, table_options=options)
    assert found.names == ("a/0.jpg", "a/1.jpg") and list(map(len, found.boxes)) == [0, 1]


@pytest.mark.parametrize("masks", ["m", "./m/", "extra/m", "b/m"])
def test_a_folder_of_masks_is_no_class(root, masks):
    (root / masks / "a").mkdir(parents=True)
    Image.new("L", (40, 40)).save(root / masks / "a/1.png")
    found = readers.load("folder", str(root), "train", masks_dir=masks)
    assert found.class_names == ("a", "b") and found.mask_numbers == (1, 2)
    assert not any("/m/" in name for name in found.names)
    assert sum(x is not None for x in found.masks) == 1


def test_bad_files_are_named(root):
    write(root / "boxes.csv", "image,label,xmin\n")
    with pytest.raises(UserError, match=r"boxes\.csv:1: the header must be image,class,y1,x1,y2"):
        load(root)
    with pytest.raises(UserError, match=r"--boxes_csv=\.\./b\.csv: lies outside the data folder"):
        load(root, boxes_csv="../b.csv")
    with pytest.raises(UserError, match="--masks_dir=m: no such folder"):
        load(root, boxes_csv=None, masks_dir="m")
    (root / "m").mkdir()
    Image.new("L", (4, 4)).save(root / "m" / "0.png")
    write(root / "train.csv", "image,cat,dog\na/0.jpg,1,1\nb/0.jpg,1,0\n")
    with pytest.raises(UserError, match=r"m/0\.png: is the mask of 'a/0\.jpg' and of 'b/0\.jpg'"):
        load(root, boxes_csv=None, masks_dir="m")
    write(root / "train.csv", "image,cat,dog\na/0.jpg,1,1\n")
    write(root / "val.csv", "image,cat,dog\nb/0.jpg,1,0\n")
    parts = [load(root, x, boxes_csv=None, masks_dir="m") for x in ("train", "val")]
    with pytest.raises(UserError, match=r"m/0\.png: is the mask of 'a/0\.jpg' and of 'b/0\.jpg'"):
        objects.check_own_masks(*parts)
    Image.new("RGB", (4, 4)).save(root / "m" / "0.png")
    with pytest.raises(UserError, match=r"0\.png: a picture of the kind RGB; a mask has one"):
        objects.read_mask(str(root / "m" / "0.png"), 2)
    Image.fromarray(np.array([[0, 1], [255, 3]], np.uint8)).save(root / "m" / "0.png")
    with pytest.raises(UserError, match=r"0\.png: 3 in row 2, column 2, but there are 2 classes"):
        objects.read_mask(str(root / "m" / "0.png"), 2)
    assert objects.read_mask(str(root / "m" / "0.png"), 3).tolist() == [[0, 1], [255, 3]]
    Image.fromarray(np.array([[False, True]])).save(root / "m" / "0.png")  # one bit a pixel
    assert objects.read_mask(str(root / "m" / "0.png"), 1).tolist() == [[0, 1]]


def test_energy_by_hand():
    """A mask of 3 x 2 pixels under 2 x 2 cells: the middle row belongs to both rows of cells.

    Class 1 fills the first column. Of each left cell all is inside: 0.1 + 0.3 of 1. Class 2 is the
    lowest pixel on the right, 2/3 of a cell of 0.4; what is not labelled, the one above, takes
    1/3 of that cell and 1/3 of the cell above.
    """
    heatmap = np.array([[0.1, 0.2], [0.3, 0.4]])
    mask = np.array([[1, 0], [1, 255], [1, 2]])
    found = measures.energy_inside(np.stack([heatmap] * 3, -1), mask, [1, 2, 3])
    whole = 0.1 + 0.3 + 0.2 * 2 / 3 + 0.4 * 2 / 3
    np.testing.assert_allclose(found, [0.4 / whole, 0.4 * 2 / 3 / whole, np.nan])


def test_an_analysis_of_the_users_boxes_and_masks(tmp_path):
    """Class x fills the upper half of every second mask: half of an even map lies inside."""
    rng, root = np.random.default_rng(0), tmp_path / "mine"
    (root / "masks").mkdir(parents=True)
    rows, boxes = [], [HEADER]
    for number in range(8):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(root / f"{number}.jpg")
        rows.append(f"{number}.jpg,{number % 2},{1 - number % 2}\n")
        boxes.append(f"{number}.jpg,{'yx'[number % 2]},0,0,0.5,{0.5 + number / 16}")
        if number < 6:
            mask = np.zeros((16, 16), np.uint8)
            mask[:8] = number % 2
            Image.fromarray(mask).save(root / "masks" / f"{number}.png")
    write(root / "train.csv", "image,x,y\n" + "".join(rows))
    write(root / "boxes.csv", "\n".join(boxes))
    done = run(
        "--dataset=folder", f"--data_dir={root}", "--train_csv=train.csv", "--val_csv=train.csv",
        "--boxes_csv=boxes.csv", "--masks_dir=masks", "--network=small_residual", "--weights=none",
        "--image_size=32", "--epochs=1", "--batch_size=4", "--threads=1", "--method=an",
        f"--output_dir={tmp_path / 'run'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "note: 6 of 8 photos have a mask in masks" in done.stderr
    flags = f"--run_dirs={tmp_path / 'run'}", f"--output_dir={tmp_path / 'out'}"
    done = run(*flags, module="analyze")
    assert done.returncode == 0, done.stderr

    def table(stem):
        return {row["method"]: row for row in table_rows(tmp_path / "out" / f"{stem}.csv")}

    shares = table("mask_share")
    assert float(shares["even map"]["share"]) == pytest.approx(50.0)
    assert shares["an"]["pairs"] == "3" and 0 < float(shares["an"]["share"]) < 100
    assert table("pointing")["an"]["pairs"] == "8"
    # The middle of the image lies on the lower edge of all boxes that are at least half as wide.
    assert float(table("pointing")["image centre"]["hits"]) == 100
    assert len(table("gain_by_size")) == 1
    page = (tmp_path / "out" / "index.md").read_text()
    assert re.search(r"^## Heatmap inside the object$", page, re.M)
