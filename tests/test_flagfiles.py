"""The flagfiles of the paper's settings take their steps on miniature data.

The quick part runs two at a small size; a tiny network stands in for ResNet-50, which takes 15 s
to build, trace and save. The slow part does so for two other data sets, and runs every one with its
own network and size in pixels, four photos a batch:
`python -m pytest -m slow tests/test_flagfiles.py -k voc2012`.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import re
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import command
from miniature import BUILDERS
from saved_runs import history
from tiny_network import tiny_cam

from spml_tf import networks, train
from spml_tf.runs.settings import Settings, resolve
from spml_tf.system import cli

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
# Both of these train on other data than miniature ones, see test_every_method.
OTHERS = ("digits", "voc_animals")
FILES = {
    str(path.relative_to(EXPERIMENTS).with_suffix("")): path
    for path in sorted(EXPERIMENTS.rglob("*.flags"))
    if path.parent.name not in OTHERS
}
SAMPLE = (
    "coco2014/role_scratch",
    "imagenet/en_scl",
    *(pytest.param(x, marks=pytest.mark.slow) for x in ("nuswide/ll_cp", "cub/en_cl")),
)
SMALL = {"image_size": 64, "batch_size": 2, "val_fraction": 0.2}


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    """Random weights of Keras' ResNet-50 with its classifier, in place of ImageNet's."""
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet50.weights.h5"
    keras.applications.ResNet50(weights=None).save_weights(path)
    return path


@dataclasses.dataclass(frozen=True)
class Trial:
    """A flagfile with what a few steps on miniature data change in it."""

    given: Settings
    overrides: dict[str, object]
    words: list[str]

    def settings(self) -> Settings:
        return resolve(dataclasses.replace(self.given, **self.overrides))


def trial(name: str, folder: Path, weights: Path, **small: float) -> Trial:
    """Two epochs of a few steps, the first of them warm-up where the flagfile has one.

    The photos are as few as make up a batch after some are held out for validation.
    """
    flagfile = f"--flagfile={FILES[name]}"
    given = cli.parse([flagfile, f"--data_dir={folder}"], Settings, "")
    whole = resolve(given)
    overrides: dict[str, object] = {**small, "epochs": 2, "selection_start_epoch": 2}
    overrides |= {"consistency_start_epoch": 2, "warmup_epochs": min(whole.warmup_epochs, 1)}
    overrides |= {"pseudo_label_epochs": 2, "pseudo_label_warmup_epochs": 1}
    overrides |= {"gr_epochs": 2, "gr_head_epochs": overrides["warmup_epochs"]}
    if whole.weights == "imagenet":
        overrides["weights"] = str(weights)
    values = {**dataclasses.asdict(whole), **small}
    BUILDERS[given.dataset](folder, images(values["batch_size"], values["val_fraction"]), 2)
    words = [f"--{key}={value}" for key, value in overrides.items()]
    return Trial(given, overrides, [flagfile, f"--data_dir={folder}", *words])


def images(batch_size: int, val_fraction: float) -> int:
    """The least number of images of which one is held out, or more, and a whole batch is left."""
    return next(
        n for n in itertools.count(batch_size + 1) if 1 <= round(val_fraction * n) <= n - batch_size
    )


def check_run(folder: Path, trial: Trial) -> None:
    """What a finished run holds, and that it did what its flagfile says."""
    record = json.loads((folder / "run.json").read_text())
    whole = dataclasses.asdict(resolve(trial.given))
    assert {**record["flags"], **{key: whole[key] for key in trial.overrides}} == whole
    assert record["flags"] == dataclasses.asdict(trial.settings())
    assert (folder / "metrics.json").exists() and (folder / "network.keras").exists()
    rows = history(folder)
    assert rows["epoch"] == ["1", "2"]
    assert np.isfinite(np.array([rows["loss"], rows["classification_loss"]], float)).all()
    first, _, consistency = whole["method"].partition("+")
    assert ("consistency_loss" in rows) == bool(consistency)
    if consistency:
        before, after = map(float, rows["consistency_loss"])
        assert before == 0 and 0 < after < 1
    if first != "ll_cp":  # what it marks is told too, where there is anything
        assert ("selected" in rows) == (first in ("en", "ep"))


def check_small(name: str, tmp_path: Path, weights: Path) -> None:
    small = trial(name, tmp_path / "data", weights, **SMALL)
    assert train.main([*small.words, f"--output_dir={tmp_path / 'run'}"]) == 0
    check_run(tmp_path / "run", small)


@pytest.mark.slow
def test_resnet50_at_a_small_size(tmp_path, weights):
    check_small("voc2012/en_scl", tmp_path, weights)


@pytest.mark.parametrize("name", SAMPLE)
def test_a_sample_with_a_tiny_network(name, tmp_path, monkeypatch):
    monkeypatch.setitem(networks.NETWORKS, "resnet50", tiny_cam)
    monkeypatch.setitem(networks.CLASSIFIERS, "resnet50", functools.partial(tiny_cam, 1000))
    check_small(name, tmp_path, tmp_path / "imagenet.weights.h5")


PUBLISHED_SETS = ("voc2012", "coco2014", "nuswide", "cub")


@pytest.mark.parametrize("folder", PUBLISHED_SETS)
def test_later_methods_train_on_whole_photos_as_published(folder, tmp_path):
    names = [f"{folder}/{method}" for method in ("em_apl", "ll_r_boost", "gr")]
    given = [cli.parse([f"--flagfile={FILES[x]}"], Settings, "") for x in names if x in FILES]
    assert len(given) == 2 + (folder == "voc2012")
    for settings in (resolve(dataclasses.replace(x, data_dir=str(tmp_path))) for x in given):
        assert settings.crop_interval == (1.0, 1.0) and settings.horizontal_flip


@pytest.mark.parametrize("folder", PUBLISHED_SETS)
@pytest.mark.parametrize("method", ["ll_r", "ll_ct"])
def test_the_header_tells_the_last_share_of_large_losses(folder, method):
    """delta percent more each epoch after the first, of 15 here and of 10 published."""
    path = FILES[f"{folder}/{method}"]
    given = cli.parse([f"--flagfile={path}"], Settings, "")
    rate = given.option("large_loss_rate")
    wanted = [f"{(epochs - 1) * rate:.1f} %" for epochs in (given.epochs, 10)]
    told = re.search(r"In the last epoch (\S+ %).*, there (\S+ %)", path.read_text())
    assert told is not None and list(told.groups()) == wanted


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_takes_its_steps(name, tmp_path, weights):
    """A process each, so that its memory is given back."""
    own = trial(name, tmp_path / "data", weights, batch_size=4)
    done = subprocess.run(
        command(*own.words, f"--output_dir={tmp_path / 'run'}"),
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert done.returncode == 0, done.stderr
    check_run(tmp_path / "run", own)
