"""What a run trains, validates and reports on, from the data flags."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from conftest import CLASSES

from spml_tf import labels
from spml_tf.datasets import label_files, splits
from spml_tf.datasets.settings import DataSettings, resolved
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


def test_full_labels(load):
    data = load(train_labels="full")
    np.testing.assert_array_equal(data.observed, data.train.labels)


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
