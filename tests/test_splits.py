"""What a run trains, validates and reports on, from the data flags."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from conftest import CLASSES
from PIL import Image

from spml_tf import labels
from spml_tf.datasets import label_files, observed_labels, splits
from spml_tf.datasets.settings import DataSettings, resolved
from spml_tf.runs import model_building
from spml_tf.system.errors import UserError


@pytest.fixture
def load(voc):
    def load(**changes) -> splits.Splits:
        words = {"dataset": "voc", "data_dir": str(voc), "classes": ",".join(CLASSES), **changes}
        given = DataSettings(**words)
        return splits.load_splits(dataclasses.replace(given, **resolved(given)))

    return load


def test_parts(load):
    """24 training photos, of which round(0.2 * 24) = 5 are held out; 8 of the official val."""
    data = load()
    assert {name: len(part) for name, part in data.parts.items()} == {
        "train": 19, "val": 5, "test": 8,
    }  # fmt: skip
    assert data.held_out == data.val.names
    assert not set(data.train.names) & set(data.val.names)


def test_a_split_of_its_own_for_validation_and_none_for_test(load):
    data = load(val_split="val", test_split="none")
    assert {name: len(part) for name, part in data.parts.items()} == {"train": 24, "val": 8}
    assert data.held_out == () and data.test is None
    assert data.fingerprint() != load().fingerprint()


def test_the_budget_of_mime_by_hand(load):
    """1, 2, 2, 2 and no positives: 1 / mean(1, 1/2, 1/2, 1/2) = 1.6. Of 19 images 5, 9, 0 and 0 are
    annotated: a selection takes share * 19 less these, 1.6 * 5, and of the second class all 10 that
    are left, for 1.6 * 9 is more."""
    data = load()
    val, observed = np.zeros((5, len(CLASSES)), np.int8), np.full((19, len(CLASSES)), -1, np.int8)
    val[:4, 0] = val[1:4, 1] = observed[:5, 0] = observed[5:14, 1] = 1
    val = dataclasses.replace(data.val, labels=val)
    shares = model_building.selection_budget(
        "mime", dataclasses.replace(data, val=val, observed=observed)
    )
    taken = 19 * np.array(shares) - (observed == 1).sum(axis=0)
    np.testing.assert_allclose(taken, [8, 10] + [0] * (len(CLASSES) - 2), atol=1e-9)


def test_shared_labels_and_split(load, tmp_path):
    """A file written from one run's data gives another person the same labels and split."""
    data = load(label_seed=3, data_seed=4, observed_negatives=1)
    path = tmp_path / "labels.csv"
    label_files.write_observed(
        path, data.observed, data.train.names, data.train.class_names, data.held_out
    )
    again = load(train_labels=str(path))
    assert again.fingerprint() == data.fingerprint()
    assert labels.digest(again.observed) == labels.digest(data.observed)
    with pytest.raises(UserError, match="holds images out .* give --val_split=none"):
        load(train_labels=str(path), val_split="val")


def test_shared_labels_of_some_images(load, tmp_path):
    """With the same flags they are the same data; other flags choose other images."""
    given = {"train_images": 7, "full_images": 3}
    data = load(**given)
    path = tmp_path / "labels.csv"
    label_files.write_observed(
        path, data.observed, data.train.names, data.train.class_names, data.held_out
    )
    assert load(**given, train_labels=str(path)).fingerprint() == data.fingerprint()
    with pytest.raises(UserError, match="has no row; use .* --train_images among them"):
        load(train_labels=str(path))
    for other in ({"train_images": 6}, {"train_images": 7, "label_seed": 5}):
        with pytest.raises(UserError, match=r"labels.csv: lists other training images than --tr"):
            load(**other, train_labels=str(path))


def test_full_labels(load):
    data = load(train_labels="full")
    np.testing.assert_array_equal(data.observed, data.train.labels)


def test_classes_whose_names_hold_commas(load, tmp_path):
    """As in the header of the table itself."""
    (tmp_path / "all.csv").write_text('image,"cat, big",dog,"a ""b"""\na.png,1,0,1\nb.png,0,1,1\n')
    for name, colour in (("a", "red"), ("b", "blue")):
        Image.new("RGB", (4, 4), colour).save(tmp_path / f"{name}.png")
    data = load(
        dataset="folder", train_csv="all.csv", data_dir=str(tmp_path), val_fraction=0.5,
        classes='"cat, big", "a ""b"""', test_split="none",
    )  # fmt: skip
    assert data.train.class_names == ("cat, big", 'a "b"')


def test_notes_reach_the_user(load, capsys):
    data = load(classes="cat,train,cow")
    note = "no training image is labelled with 'train': cannot be learned"
    assert note in data.notes and f"note: {note}\n" in capsys.readouterr().err
    data = load(observed_positives=0, observed_negatives=1)
    bare = int((data.observed == -1).all(axis=1).sum())
    assert bare == int(data.train.labels.all(axis=1).sum())
    assert (f"{bare} of 19 training images have no known label: kept" in data.notes) == (bare > 0)


def test_sizes_are_compared_with_the_protocol(load):
    """5,717 and 5,823 photos in Cole et al.; the miniature has 24 and 8."""
    notes = [note for note in load(classes=None).notes if "published protocol" in note]
    assert len(notes) == 2
    assert "24 images in train, where the published protocol has 5,717" in notes[0]
    assert "8 images in val, where the published protocol has 5,823" in notes[1]
    assert not [note for note in load().notes if "published protocol" in note]


def test_the_same_photos_in_two_splits_are_announced(load):
    data = load(test_split="train")
    (note,) = [note for note in data.notes if "in training and in validation or test" in note]
    assert note.endswith("16 more: kept")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_labels": "stored"}, "stored: --dataset=voc comes without observed labels"),
        ({"unlabelled": "drop"}, "--unlabelled: this data set does not take it"),
        ({"val_fraction": 1.0}, "--val_fraction=1.0: must lie between"),
        ({"val_fraction": 0.001}, "the validation split holds no image"),
        ({"dataset": "mnist"}, "--dataset=mnist: unknown"),
        ({"data_dir": None}, "--data_dir is missing"),
        ({"observed_positives": 0}, "no label is observed"),
    ],
)
def test_mistakes(load, changes, message):
    with pytest.raises(UserError, match=message):
        load(**changes)


def test_partial_labels_are_drawn_for_the_whole_split(load):
    data = load(train_labels="partial", known_share=0.4, label_seed=2)
    known = data.observed != -1
    np.testing.assert_array_equal(data.observed[known], data.train.labels[known])
    assert 0.15 < known.mean() < 0.65
    more = load(train_labels="partial", known_share=0.8, label_seed=2)
    assert (more.observed[known] == data.observed[known]).all()
    for words in (
        {}, {"train_labels": "partial", "known_share": 0.4, "label_seed": 2},
        {"observed_positives": 2, "observed_negatives": 1},
    ):  # fmt: skip
        whole, held = load(val_split="val", test_split="none", **words), load(**words)
        rows = [whole.train.names.index(name) for name in held.train.names]
        np.testing.assert_array_equal(held.observed, whole.observed[rows])
    with pytest.raises(UserError, match="--known_share=0: must lie between"):
        load(train_labels="partial", known_share=0)


def test_the_most_frequent_class_of_an_image_is_drawn(load):
    """By hand from the miniature's counts over all 24 images of the training split."""
    data = load(positive_choice="frequent")
    everything = load(val_split="val", test_split="none").train.labels
    counts = (everything == 1).sum(axis=0)
    for truth, seen in zip(data.train.labels, data.observed, strict=True):
        (drawn,) = np.flatnonzero(seen == 1)
        assert counts[drawn] == counts[truth == 1].max() and (seen != 0).all()
    with pytest.raises(UserError, match="comes without boxes here; name them"):
        load(positive_choice="largest")


def test_unknown_labels_make_no_class_frequent(load, tmp_path):
    """Three photos show a and two show b, of which nothing is known in the others."""
    for number in range(1, 6):
        Image.new("RGB", (10, 10), (50 * number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "all.csv").write_text(
        "image,a,b\n1.png,1,1\n2.png,1,\n3.png,0,\n4.png,0,\n5.png,1,1\n"
    )
    data = load(
        dataset="folder", data_dir=str(tmp_path), train_csv="all.csv", classes=None,
        blank="unknown", positive_choice="frequent", train_labels="single", test_split="none",
    )  # fmt: skip
    both = (data.train.labels == 1).all(axis=1)
    assert both.any() and (data.observed[both] == [1, -1]).all()


def test_the_largest_object_is_drawn(load, tmp_path):
    """Neither of the first photo's two b is larger than its a, though both together are."""
    tables = {
        "all.csv": "image,a,b,c\n1.png,1,1,0\n2.png,1,0,1\n3.png,0,1,1\n4.png,1,0,0\n",
        "boxes.csv": "image,class,y1,x1,y2,x2\n1.png,a,0,0,0.8,0.8\n1.png,b,0,0,0.2,0.8\n"
        "1.png,b,0,0,0.7,0.8\n2.png,a,0.1,0.1,0.9,0.9\n2.png,c,0,0,0.8,0.9\n2.png,c,0,0,0.1,0.1\n3.png,b,0,0,0.5,0.4\n3.png,c,0,0,0.4,0.4\n"
        "4.png,a,0,0,0.1,0.1\n",
    }
    for name, text in tables.items():
        (tmp_path / name).write_text(text)
    for number in range(1, 5):
        Image.new("RGB", (10, 10), (50 * number, 0, 0)).save(tmp_path / f"{number}.png")
    data = load(
        dataset="folder", data_dir=str(tmp_path), train_csv="all.csv", boxes_csv="boxes.csv",
        classes=None, positive_choice="largest", train_labels="single", test_split="none",
    )  # fmt: skip
    drawn = dict(zip(data.train.names, data.observed.tolist(), strict=True))
    largest = {
        "1.png": [1, -1, -1], "2.png": [-1, -1, 1], "3.png": [-1, 1, -1], "4.png": [1, -1, -1],
    }  # fmt: skip
    assert len(drawn) == 3 and drawn.items() <= largest.items()


def test_some_images_and_some_with_all_labels(load):
    whole = load()
    some = load(train_images=7, full_images=3)
    assert len(some.train) == len(some.observed) == 7
    assert set(some.train.names) < set(whole.train.names)
    assert some.train.names == tuple(x for x in whole.train.names if x in some.train.names)
    full = (some.observed == some.train.labels).all(axis=1)
    assert full.sum() == 3  # no image of three classes in single labels is fully known
    kept = [whole.train.names.index(name) for name in some.train.names]
    np.testing.assert_array_equal(some.observed[~full], whole.observed[kept][~full])
    assert load(full_images=19).observed.min() == 0
    for flag in ("train_images", "full_images"):
        with pytest.raises(UserError, match=f"--{flag}=20: there are 19 training images"):
            load(**{flag: 20})


def test_known_labels_follow_the_label_seed(load):
    words = {"train_labels": "partial", "known_share": 0.4, "label_seed": 2, "val_split": "val"}
    for seed in (0, 5):
        data = load(**words, data_seed=seed, test_split="none")
        expected = observed_labels.draw_partial(data.train.labels, 0.4, 2)
        np.testing.assert_array_equal(data.observed, expected)


def test_a_ranked_choice_takes_the_given_counts(load):
    data = load(positive_choice="frequent", observed_positives=2, observed_negatives=1)
    for value, most in ((1, 2), (0, 1)):
        there = (data.train.labels == value).sum(axis=1)
        np.testing.assert_array_equal((data.observed == value).sum(axis=1), np.minimum(there, most))


def test_held_out_images_follow_the_data_seed_alone(load):
    """Which images are held out follows from the data's seed alone."""
    parts = [load(data_seed=x, label_seed=y).held_out for x, y in ((0, 0), (0, 1), (1, 0))]
    assert parts[0] == parts[1] != parts[2]
