"""Every method trains, resumes bit for bit and exports.

The quick part does so with a tiny network, the slow part as processes from the flagfiles of digits
and voc_animals: `python -m pytest -m slow tests/test_every_method.py -k digits/role`.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import command, flags, run
from miniature import VOC_CLASSES, write_voc
from saved_runs import (
    arrays,
    assert_equal_runs,
    copy_after_epoch,
    has_checkpoint,
    kill_at,
)
from tiny_network import tiny_cam

from spml_tf import networks, train
from spml_tf.datasets import splits
from spml_tf.exports.export_run import export
from spml_tf.exports.export_settings import ExportSettings
from spml_tf.labels import EXPECTED
from spml_tf.runs import model_building, run_data
from spml_tf.runs.run_folder import RunFolder
from spml_tf.runs.settings import Settings, resolve
from spml_tf.system import cli
from spml_tf.training import methods

NAMES = (*methods.METHODS, "en+cl", "en+scl")
PAIRS = ("en+gr+scl", "en+scl+strong", "recommended+em_apl")
# What a method remembers beside scores and heatmaps, which the test of boosted maps and test_train
# have: priors, marks, trained estimates.
QUICK = ("csl", "ll_cp", "role")
EVERY = [x if x in QUICK else pytest.param(x, marks=pytest.mark.slow) for x in (*NAMES, *PAIRS)]
# The networks of all are alike; the slow part exports every one.
EXPORTED = ("role", "en+scl")
EXPERIMENTS = Path(__file__).parent.parent / "experiments"
FILES = {
    f"{folder}/{path.stem}": path
    for folder in ("digits", "voc_animals")
    for path in sorted((EXPERIMENTS / folder).glob("*.flags"))
}


@pytest.fixture
def stopped(monkeypatch, tmp_path) -> Path:
    """A copy of the next run's folder as it is after two epochs."""
    folder = tmp_path / "stopped"
    copy_after_epoch(monkeypatch, folder, 2)
    return folder


@pytest.mark.filterwarnings("ignore:csl. the priors of all classes")  # of a network that is new
@pytest.mark.parametrize("name", EVERY)
def test_resumes_bit_for_bit(voc, tmp_path, monkeypatch, stopped, capsys, name):
    """Three epochs without a break, and the last of them again from what the first two left."""
    monkeypatch.setitem(networks.NETWORKS, "tiny", tiny_cam)
    whole = tmp_path / "whole"
    words = flags(voc, method=name, network="tiny", large_loss_rate=20, test_split="none")
    assert train.main([*words, f"--output_dir={whole}"]) == 0
    assert "resuming" not in capsys.readouterr().err
    assert train.main([*words, f"--output_dir={stopped}"]) == 0
    assert "resuming after epoch 2 of 3" in capsys.readouterr().err
    assert_equal_runs(whole, stopped)
    if name.split("+")[0] in ("en", "ep", "ll_cp"):  # else there was nothing to forget
        assert (arrays(whole)["checkpoint/label_store/vars/0"] == EXPECTED).any()
    if name == "em_apl":  # the second and the third epoch gave some
        targets = next(x for key, x in arrays(whole).items() if "pseudo_labels" in key)
        assert (targets >= 0).any()
    if name in EXPORTED:
        check_export(whole, tmp_path / "export")


@pytest.mark.slow
def test_boosted_maps_resume_and_export(voc, tmp_path, monkeypatch, stopped):
    """--cam_boost, expected positives, the GR loss and SCL; exported scores are of boosted maps."""
    monkeypatch.setitem(networks.NETWORKS, "tiny", tiny_cam)
    whole = tmp_path / "whole"
    words = flags(voc, method="en+gr+scl", network="tiny", cam_boost=5, test_split="none")
    assert train.main([*words, f"--output_dir={whole}"]) == 0
    assert train.main([*words, f"--output_dir={stopped}"]) == 0
    assert_equal_runs(whole, stopped)
    assert (arrays(whole)["checkpoint/label_store/vars/0"] == EXPECTED).any()
    assert networks.cam_boost(networks.load_network(whole / "network.keras")) == 5
    check_export(whole, tmp_path / "export")


def test_priors_of_csl_come_from_a_file(voc, tmp_path, monkeypatch, capsys):
    """In the order of the data's classes, which are cat, cow and dog; a mistake is one line."""
    monkeypatch.setitem(networks.NETWORKS, "tiny", tiny_cam)
    table = tmp_path / "priors.csv"
    words = flags(voc, method="csl", network="tiny", epochs=1, likely_priors=table)
    table.write_text("class,prior\ndog,0.25\ncat,0.75\n")
    assert train.main([*words, f"--output_dir={tmp_path / 'wrong'}"]) == 1
    assert "priors.csv: the class 'cow' has no row" in capsys.readouterr().err
    table.write_text("class,prior\ndog,0.25\ncat,0.75\ncow,0.5\n")
    assert train.main([*words, f"--output_dir={tmp_path / 'run'}"]) == 0
    saved = arrays(tmp_path / "run")
    (prior,) = (x for key, x in saved.items() if "likely_positives" in key and x.shape == (3,))
    np.testing.assert_array_equal(prior, np.array([0.75, 0.5, 0.25], np.float32))


def check_export(folder: Path, target: Path) -> None:
    """The SavedModel's scores are those of the run's network."""
    export(ExportSettings(str(folder), str(target)))
    size = RunFolder(folder).settings().image_size
    images = np.random.default_rng(0).uniform(0, 255, (3, size, size, 3)).astype(np.float32)
    network = networks.load_network(folder / "network.keras")
    maps = keras.ops.convert_to_numpy(network(images, training=False)).astype(np.float64)
    model = tf.saved_model.load(str(target))
    served = model.serve(tf.constant(images))["probabilities"]
    np.testing.assert_allclose(served, 1 / (1 + np.exp(-maps.mean(axis=(1, 2)))), rtol=0, atol=1e-5)


def expected(voc: Path, **given: object) -> tuple[splits.Splits, np.ndarray]:
    """The data of a run, and how many images of each class EN expects by any averages."""
    settings = resolve(cli.parse(flags(voc, method="en", network="tiny", **given), Settings, ""))
    data = splits.load_splits(settings)
    model = model_building.build(settings, data, run_data.positives_per_image(settings, data))
    scores = np.random.default_rng(0).random(data.observed.shape, np.float32)
    model.ema_scores.values.assign(scores)
    model.ema_scores.visited.assign(np.ones(len(scores), bool))
    model.begin_epoch(2)
    return data, np.sum(model.labels.numpy() == EXPECTED, axis=0)


def test_expects_classes_as_often_as_validation_photos_hold_them(voc, monkeypatch):
    """--selection_budget=validation: share times photos, less the annotated."""
    monkeypatch.setitem(networks.NETWORKS, "tiny", tiny_cam)
    data, found = expected(voc, selection_budget="validation")
    shares = np.mean(data.val.labels == 1, axis=0)
    missing = np.rint(shares * len(data.train) - np.sum(data.observed == 1, axis=0))
    np.testing.assert_array_equal(found, missing.clip(0, np.sum(data.observed == -1, axis=0)))
    assert found.any()


def test_expects_classes_by_the_harmonic_number_of_positives(voc, monkeypatch):
    """mime: observed / mean(1 / positives of a validation photo) of the unknown, times 2."""
    monkeypatch.setitem(networks.NETWORKS, "tiny", tiny_cam)
    data, found = expected(voc, selection_budget="mime", selection_multiple=2)
    positives = [sum(z == 1 for z in row) for row in data.val.labels.tolist()]
    mean = sum(1 / x for x in positives if x) / sum(x > 0 for x in positives)
    observed = np.sum(data.observed == 1, axis=0)
    missing = 2 * observed / mean
    unknown = np.sum(data.observed == -1, axis=0)
    np.testing.assert_allclose(found, missing.clip(0, unknown), atol=0.5 + 1e-9)
    assert found.any()


def test_expects_classes_as_often_as_training_images_hold_them(voc, monkeypatch):
    monkeypatch.setitem(networks.NETWORKS, "tiny", tiny_cam)
    data, found = expected(voc, selection_budget="training")
    missing = np.sum((data.train.labels == 1) & (data.observed == -1), axis=0)
    np.testing.assert_array_equal(found, missing)
    assert missing.any()


@pytest.mark.parametrize("folder", ["digits", "voc_animals"])
def test_every_method_has_a_flagfile(folder):
    paths = [path for name, path in FILES.items() if name.startswith(folder)]
    found = {cli.parse([f"--flagfile={path}"], Settings, "").method for path in paths}
    assert set(NAMES) <= found


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """VOC 2012's lists with 80 of the training and 16 of the validation photos, behind a link."""
    if "SPML_TF_TEST_DATA" not in os.environ:
        pytest.skip("needs photos: set SPML_TF_TEST_DATA to a folder with VOCdevkit/VOC2012")
    source = Path(os.environ["SPML_TF_TEST_DATA"], "VOCdevkit", "VOC2012")
    folder = source / "ImageSets" / "Main"
    root = tmp_path_factory.mktemp("animals") / "VOC2012"
    for split, count in (("train", 80), ("val", 16)):
        lists = {
            name: dict(re.findall(r"(\S+) +(\S+)", (folder / f"{name}_{split}.txt").read_text()))
            for name in VOC_CLASSES
        }
        stems = sorted(lists["cat"])
        stems = stems[:: len(stems) // count][:count]
        marks = {name: [rows[stem] for stem in stems] for name, rows in lists.items()}
        write_voc(root, split, stems, marks)
    (root / "JPEGImages").symlink_to(source / "JPEGImages")
    return root


@pytest.fixture(scope="session")
def first_round(tmp_path_factory) -> Path:
    """A run whose banks a later round begins with."""
    folder = tmp_path_factory.mktemp("rounds") / "first"
    done = run(f"--flagfile={FILES['digits/en_scl']}", "--epochs=1", f"--output_dir={folder}")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def words(request, name) -> list[str]:
    """The flagfile and what makes two epochs of it, of which both phases and all losses see one."""
    given = [f"--flagfile={FILES[name]}", "--epochs=2", "--consistency_start_epoch=2"]
    if name.endswith("_round"):
        return [*given, f"--initial_banks={request.getfixturevalue('first_round')}"]
    given.append("--selection_start_epoch=2")
    if name.startswith("voc_animals"):
        folder = request.getfixturevalue("photos")
        given += ["--warmup_epochs=1", f"--data_dir={folder}", "--allow_outside=true"]
    return given


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_from_its_flagfile(tmp_path, name, words):
    """Two epochs without a break; two with kill -9 after the first one's checkpoint; the export."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = run(*words, f"--output_dir={whole}")
    assert done.returncode == 0, done.stderr
    process = subprocess.Popen(
        command(*words, f"--output_dir={killed}"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    kill_at(process, lambda: has_checkpoint(killed))
    assert not RunFolder(killed).metrics.exists()
    done = run(*words, f"--output_dir={killed}")
    assert done.returncode == 0, done.stderr
    assert "resuming after epoch 1 of 2" in done.stderr
    assert_equal_runs(whole, killed)
    check_export(whole, tmp_path / "export")
