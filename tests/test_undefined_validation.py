"""A run whose validation images show no class: no epoch is the best, so the last one is taken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import run
from miniature import write_photo_tables
from saved_runs import assert_equal_runs

from spml_tf.labels import known_counts
from spml_tf.pages import report_comparison, report_sections
from spml_tf.runs.run_folder import RunFolder

CLASSES = ("red", "green")


def words(root: Path, folder: Path) -> list[str]:
    return [
        "--dataset=folder", f"--data_dir={root}", "--train_csv=train.csv", "--val_csv=val.csv",
        "--test_csv=test.csv", "--network=small_residual", "--weights=none", "--image_size=32",
        "--epochs=2", "--batch_size=4", "--threads=1", "--method=an", f"--output_dir={folder}",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def undefined(tmp_path_factory) -> Path:
    """A finished run of two epochs; its validation table holds negatives alone."""
    root, both = tmp_path_factory.mktemp("undefined"), [["1", "0"], ["0", "1"]]
    tables = {"train": both * 4, "val": [["0", "0"]] * 3, "test": both}
    write_photo_tables(root, CLASSES, tables, seed=0)
    done = run(*words(root, root / "run"))
    assert done.returncode == 0, done.stderr
    assert "note: no validation image shows any class: mAP is undefined, the last" in done.stderr
    assert "last epoch 2, none could be chosen: mAP val undefined (no positives)" in done.stdout
    return root / "run"


def test_the_network_is_that_of_the_last_epoch(undefined):
    """The first epoch's is still among the checkpoints, and is another one."""
    results = json.loads((undefined / "metrics.json").read_text())
    assert results["best_epoch"] == 2 and results["val"]["map"] is None
    first, last, kept = (
        keras.models.load_model(undefined / name).get_weights()
        for name in ("checkpoint/best00001.keras", "checkpoint/best00002.keras", "network.keras")
    )
    assert all(np.array_equal(x, y) for x, y in zip(last, kept, strict=True))
    assert not all(np.array_equal(x, y) for x, y in zip(first, kept, strict=True))


def test_a_run_that_goes_on_takes_the_last_epoch_too(undefined, tmp_path):
    """What kill -9 in the second epoch leaves: the checkpoint after the first."""
    folder = shutil.copytree(undefined, tmp_path / "run")
    for path in (*folder.glob("checkpoint/*00002*"), *folder.glob("*.npz")):
        path.unlink()
    for name in ("metrics.json", "SHA256SUMS"):
        (folder / name).unlink()
    done = run(*words(undefined.parent, folder))
    assert done.returncode == 0 and "resuming after epoch 1 of 2" in done.stderr, done.stderr
    assert_equal_runs(undefined, folder)


def test_card_and_report_say_so(undefined, tmp_path):
    done = run(f"--run_dir={undefined}", f"--export_dir={tmp_path / 'out'}", module="export")
    assert done.returncode == 0, done.stderr
    card = (tmp_path / "out" / "MODEL_CARD.md").read_text()
    assert "(epoch 2, the last: no validation image shows a class to choose by)" in card
    assert "- Validation could not choose the epoch: the last was taken." in card
    assert "the best on validation" not in card

    finished = RunFolder(undefined)
    settings, metrics = finished.settings(), finished.read_metrics()
    head = report_sections.head("run", settings, metrics, finished.read_record())
    assert "last epoch" in head and "2 of 2, none could be chosen" in head
    tables = report_comparison.tables(
        {"run": settings}, {"run": metrics}, CLASSES, known_counts([[1, 0], [0, 1]]), "test"
    )
    row = tables.partition('<th scope="row">run</th>')[2].partition("</tr>")[0]
    assert "\u2013" in row and ">2<" not in row
