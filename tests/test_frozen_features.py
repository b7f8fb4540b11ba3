"""Epochs with a frozen backbone that train on features which are computed once."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
import warm_process
from conftest import flags, run
from saved_runs import assert_equal_runs, history, kill_at

import spml_tf
from spml_tf.datasets import pipeline, splits
from spml_tf.networks import small_residual_cam
from spml_tf.runs import frozen_features
from spml_tf.runs.frozen_features import FrozenFeatures
from spml_tf.runs.run_folder import RunFolder
from spml_tf.runs.settings import Settings, resolve
from spml_tf.system import replicas
from spml_tf.system.errors import UserError
from spml_tf.system.files import replaced
from spml_tf.system.stop_requests import StopRequests

FROZEN = {
    "epochs": 5, "warmup_epochs": 4, "head_learning_rate": 0.01, "feature_crops": 2,
    "bank_dtype": "uint8",
}  # fmt: skip
# To the end, so that nothing is traced again.
ALL_FROZEN = FROZEN | {"epochs": 3, "warmup_epochs": 3}
TWO_EPOCHS = FROZEN | {"epochs": 2, "warmup_epochs": 2}


def trained(*words: str) -> subprocess.CompletedProcess[str]:
    done = run(*words)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def whole(voc, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("frozen") / "whole"
    done = trained(*flags(voc, **FROZEN), f"--output_dir={folder}")
    assert "features of crop 1, 19 images" in done.stdout
    assert "features of crop 2, 19 images" in done.stdout
    assert "features of the validation images, 5 images" in done.stdout
    return folder


def model_and_batches(frozen: bool):
    """Two epochs of six images and their features, two to a batch; the model has seen nothing."""
    keras.utils.set_random_seed(3)
    network = small_residual_cam(3, image_size=32, width=16)
    model = spml_tf.SPMLModel(network, 6, "en+scl", 1.0, warmup_epochs=2 if frozen else 0)
    model.compile(keras.optimizers.SGD(0.5))
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (6, 32, 32, 3)).astype(np.float32)
    backbone = keras.Model(network.inputs, network.get_layer("cam_logits").input)
    features = backbone.predict(images, verbose=0)
    labels = np.eye(6, 3, dtype=np.float32)
    labels[labels == 0] = -1

    def batches(name, values):
        x = {name: values, "index": np.arange(6), "flip": np.arange(6) % 2 == 0}
        return tf.data.Dataset.from_tensor_slices((x, labels)).batch(2)

    return model, batches("image", images), batches("features", features)


def test_features_train_the_head_as_images_do():
    """Without rounding to float16 both are the same arithmetic: losses, head, banks and scores."""
    found = []
    for place in (1, 2):
        model, *data = model_and_batches(frozen=True)
        losses = model.fit(data[place - 1], epochs=2, verbose=0).history["loss"]
        value = model.evaluate(data[place - 1], verbose=0, return_dict=True)["loss"]
        scores = model.ema_scores.read(tf.range(6, dtype=tf.int64))[0].numpy()
        head = model.network.get_layer("cam_logits").get_weights()
        found.append([np.array([*losses, value]), scores, *head])
    for image, feature in zip(*found, strict=True):
        np.testing.assert_allclose(feature, image, rtol=1e-5, atol=1e-6)


def test_features_are_refused_once_the_backbone_is_trained():
    model, _, features = model_and_batches(frozen=False)
    with pytest.raises(ValueError, match="features, which stand for images only while"):
        model.fit(features, epochs=1, verbose=0)
    model, images, features = model_and_batches(frozen=True)
    model.fit(features, epochs=2, verbose=0)
    with pytest.raises(ValueError, match="train no epoch after warmup_epochs=2"):
        model.fit(features, initial_epoch=2, epochs=3, verbose=0)
    model.fit(images, initial_epoch=2, epochs=3, verbose=0)


def test_batches_hold_the_features_of_the_crop_of_their_epoch(voc, tmp_path):
    """With two crops epoch 3 has its own order, and the crops, boxes and flips of epoch 1."""
    settings = resolve(
        Settings(
            dataset="voc", data_dir=str(voc), classes="cat,cow,dog", network="small_residual",
            weights="none", image_size=32, batch_size=5, method="an", epochs=4, warmup_epochs=4,
            feature_crops=2, shuffle_groups=2,
        )
    )  # fmt: skip
    data = splits.load_splits(settings)
    network = small_residual_cam(3, image_size=32, width=16)
    model = spml_tf.SPMLModel(network, len(data.train), "an")
    kept = FrozenFeatures(model, settings, data, RunFolder(tmp_path / "run"), StopRequests())
    backbone = keras.Model(network.inputs, network.get_layer("cam_logits").input)

    def by_image(epoch):
        found = {}
        images = pipeline.training_dataset(
            data.train, data.observed, image_size=32, batch_size=5, seed=0, first_epoch=epoch,
            shuffle_groups=2,
        )  # fmt: skip
        for x, y in images:
            maps = backbone(x["image"], training=False).numpy()
            for row, index in enumerate(x["index"].numpy()):
                found[index] = maps[row], x["box"][row], x["flip"][row], y[row]
        return found

    def order(batches):
        return [x["index"].numpy().tolist() for x, _ in batches]

    in_order = pipeline.training_dataset(
        data.train, data.observed, image_size=32, batch_size=5, seed=0, first_epoch=2, epochs=2,
        first_step=1, shuffle_groups=2,
    )  # fmt: skip
    batches = list(kept.training(2, 2, 1))
    assert order(batches) == order(in_order)
    crops = {1: by_image(1), 2: by_image(2)}
    for step, (x, y) in enumerate(batches):
        crop = 2 if step < 3 else 1  # four batches an epoch, the first of epoch 2 left out
        for row, index in enumerate(x["index"].numpy()):
            maps, box, flip, label = crops[crop][index]
            np.testing.assert_allclose(x["features"][row], maps, rtol=2e-3, atol=2e-3)
            np.testing.assert_array_equal(x["box"][row], box)
            assert bool(x["flip"][row]) == bool(flip)
            np.testing.assert_array_equal(y[row], label)
    assert len(batches) == 7 and {len(y) for _, y in batches} == {5, 4}
    whole = [x["features"].numpy() for x, _ in kept.validation()]
    images = pipeline.evaluation_dataset(data.val, data.val.labels, image_size=32, batch_size=5)
    maps = [backbone(x["image"], training=False).numpy() for x, _ in images]
    np.testing.assert_allclose(np.concatenate(whole), np.concatenate(maps), rtol=2e-3, atol=2e-3)


@pytest.mark.slow
def test_as_many_crops_as_epochs_are_those_of_a_run_without(voc, tmp_path):
    """Only float16 lies between them, in warm-up; after it the folder of features is gone."""
    of_each = {}
    for crops in (0, 3):
        folder = tmp_path / str(crops)
        words = flags(voc, **{**ALL_FROZEN, "feature_crops": crops}, method="an")
        trained(*words, f"--output_dir={folder}")
        of_each[crops] = history(folder)
        assert not (folder / "features").exists()
    for name in ("loss", "val_loss", "val_map"):
        images, features = ([float(x) for x in of_each[crops][name]] for crops in (0, 3))
        assert features == pytest.approx(images, rel=5e-3), name


@pytest.mark.slow
def test_killed_among_frozen_epochs_it_ends_with_the_same_numbers(voc, whole, tmp_path):
    """kill -9 while features are computed, and after the second epoch; one kept bit is flipped."""
    folder = tmp_path / "killed"
    words = [*flags(voc, **FROZEN), f"--output_dir={folder}"]

    def started() -> warm_process.Process:
        return warm_process.Process("spml_tf.train", words)

    kill_at(started(), lambda: any(folder.glob("features/*/crop1.json")))
    kill_at(
        started(), lambda: (folder / "history.csv").exists() and len(history(folder)["epoch"]) >= 2
    )
    (kept,) = folder.glob("features/*/crop1.features.npy")
    content = bytearray(kept.read_bytes())
    content[-1000] ^= 16
    kept.write_bytes(content)
    last = trained(*words)
    assert "features of crop 1," in last.stdout and "features of crop 2," not in last.stdout
    assert_equal_runs(whole, folder)
    assert not (folder / "features").exists()


@pytest.mark.slow
def test_runs_share_a_folder_of_features(voc, tmp_path):
    """Another method on other labels reads what the first run left; another seed does not."""
    kept = tmp_path / "kept"

    def once(name: str, **others: object) -> str:
        words = flags(voc, **{**ALL_FROZEN, "feature_dir": kept, **others})
        return trained(*words, f"--output_dir={tmp_path / name}").stdout

    assert "features of crop 1," in once("first", method="an")
    files = [path for path in kept.rglob("*") if path.is_file() and path.suffix != ".lock"]
    written = {path: path.stat().st_mtime_ns for path in files}
    assert len(written) == 9  # a record, features and windows of two crops and of validation
    assert "features of" not in once("second", method="bce", train_labels="full")
    more = once("third", feature_crops=3)
    assert "features of crop 3," in more and "features of crop 2," not in more
    assert "features of crop 1," in once("fourth", method="an", seed=1)
    assert all(path.stat().st_mtime_ns == before for path, before in written.items())


@pytest.mark.slow
def test_runs_that_begin_together_compute_features_once(voc, tmp_path):
    """Whoever comes second waits, and both train on what the first wrote."""
    kept = tmp_path / "kept"
    running = [
        warm_process.Process(
            "spml_tf.train",
            [*flags(voc, **{**TWO_EPOCHS, "feature_dir": kept, "method": method}),
             f"--output_dir={tmp_path / method}"],
        )
        for method in ("an", "wan")
    ]  # fmt: skip
    said = [process.communicate(timeout=300) for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    assert sum(out.count("features of crop 1,") for out, _ in said) == 1
    for features in kept.rglob("*.features.npy"):
        assert np.load(features).any(axis=(1, 2, 3)).all()  # no row is empty


def test_a_linear_probe_leaves_the_backbone_as_it_was(voc, finished, tmp_path):
    folder = tmp_path / "probe"
    words = flags(voc, epochs=3, linear_probe="true", init_from=finished)
    words = [word for word in words if not word.startswith("--selection_start_epoch")]
    trained(*words, f"--output_dir={folder}", "--head_learning_rate=0.1")
    before, after = (spml_tf.load_network(x / "network.keras") for x in (finished, folder))
    for old, new in zip(before.layers, after.layers, strict=True):
        for a, b in zip(old.get_weights(), new.get_weights(), strict=True):
            assert np.array_equal(a, b) != (new.name == "cam_logits"), new.name
    settings = json.loads((folder / "run.json").read_text())["flags"]
    assert settings["warmup_epochs"] == 3 and settings["selection_start_epoch"] == 2
    assert settings["feature_crops"] == 4  # of which three epochs need three
    assert [text != "" for text in history(folder)["selected"]] == [False, True, True]


@pytest.mark.slow
@pytest.mark.parametrize(
    "way",
    [
        ["--strategy=mirrored", "--devices=2"],
        ["--workers=2"],
    ],
)
def test_two_replicas_train_on_features_as_one_does(voc, tmp_path, way):
    of_each = []
    for name, more in (("one", []), ("two", way)):
        folder = tmp_path / name
        words = [*flags(voc, **TWO_EPOCHS), *more]
        done = run(*words, f"--output_dir={folder}")
        assert done.returncode == 0, done.stderr
        of_each.append(history(folder))
    for name in ("loss", "val_loss", "val_map"):
        one, two = ([float(x) for x in rows[name]] for rows in of_each)
        assert two == pytest.approx(one, rel=1e-3), name


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"linear_probe": "true"}, "on a backbone that --weights=none leaves untrained"),
        (
            {"linear_probe": "true", "warmup_epochs": 1, "weights": "imagenet"},
            "--warmup_epochs=1: with --linear_probe it is --epochs=3; drop one of the two",
        ),
        ({"feature_crops": 2}, "the backbone is never frozen; give --linear_probe, or"),
        ({"feature_dir": "kept"}, "holds the files of --feature_crops; give that from 1"),
        ({"feature_crops": -1, "warmup_epochs": 1}, "--feature_crops=-1"),
        (
            {"feature_crops": 1, "warmup_epochs": 1, "method": "ignore"},
            "--method=ignore looks at the images in each step, for which features cannot stand",
        ),
    ],
)
def test_flags_that_do_not_fit_are_refused(voc, tmp_path, given, message):
    done = run(*flags(voc, **given), f"--output_dir={tmp_path / 'run'}")
    assert done.returncode == 1 and done.stderr.count("error: ") == 1
    assert message in done.stderr and not (tmp_path / "run").exists()


def test_too_little_room_is_told_before_anything_is_computed(voc, tmp_path, monkeypatch):
    from spml_tf.runs.training_run import train

    class Full:
        free = 1000

    monkeypatch.setattr(frozen_features.shutil, "disk_usage", lambda path: Full)
    settings = Settings(
        dataset="voc", data_dir=str(voc), classes="cat,cow,dog", network="small_residual",
        weights="none", image_size=32, method="an", epochs=2, warmup_epochs=1, feature_crops=1,
        feature_dir=str(tmp_path / "kept"), threads=1,
    )  # fmt: skip
    with pytest.raises(UserError, match=r"need 0\.0 GB in .*lower it, or name another folder"):
        train(settings, str(tmp_path / "run"))
    assert not (tmp_path / "kept").exists()


def test_the_room_of_all_workers_of_this_machine_is_counted(tmp_path, monkeypatch):
    """7 + 3 images of 2 x 2 x 250 float16: 14,000 bytes for workers 0 and 2, of 20,000 in all."""
    addresses = tf.train.ClusterSpec({"worker": ["one:1", "other:1", "one:2"]})
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(addresses, "", "worker", 2)
    strategy = SimpleNamespace(cluster_resolver=resolver)
    monkeypatch.setattr(tf.distribute, "get_strategy", lambda: strategy)
    monkeypatch.setattr(replicas, "wait_for_workers", lambda: None)
    assert replicas.this_shard() == (2, 3) and replicas.workers_here() == [0, 2]
    given = SimpleNamespace(
        _shard=replicas.this_shard(), _shape=(2, 2, 250), _folder=tmp_path / "kept",
        _settings=SimpleNamespace(feature_crops=1), _parts={"crop1": range(7), "whole": range(3)},
    )  # fmt: skip
    for free, fits in ((13_999, False), (14_000, True)):  # 3 + 2 rows of crop1, 1 + 1 of whole
        room = SimpleNamespace(free=free)
        monkeypatch.setattr(frozen_features.shutil, "disk_usage", lambda path, room=room: room)
        with contextlib.nullcontext() if fits else pytest.raises(UserError, match="the features"):
            FrozenFeatures._check_room(given, ["crop1", "whole"])


def test_the_room_for_features_is_taken_at_once(tmp_path, monkeypatch):
    """Where a page cannot be written later the system kills the process."""
    path = tmp_path / "a.npy"
    table = frozen_features.allocated(path, (3, 4, 4, 1000))
    assert os.stat(path).st_blocks * 512 >= 96_000 and not table.any()
    table[1] = 2
    table.flush()
    assert (np.load(path).max(axis=(1, 2, 3)) == [0, 2, 0]).all()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with (
        pytest.raises(OSError, match="No space left on device.*b.npy"),
        replaced(tmp_path / "b.npy") as unfinished,
    ):
        frozen_features.allocated(unfinished, (2,))
    assert [x.name for x in tmp_path.iterdir()] == ["a.npy"]


def test_features_beyond_float16_are_refused(tmp_path):
    from spml_tf.runs.frozen_features import checked

    assert checked(np.array([-65504.0, 3.0], np.float32)) is not None
    for value in (65600.0, np.nan, np.inf):
        with pytest.raises(UserError, match="train with --feature_crops=0"):
            checked(np.array([value], np.float32))
