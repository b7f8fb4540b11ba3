"""Evaluate, export and predict where users go astray: other splits, broken files, odd names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import CLASSES
from PIL import Image
from saved_runs import change_flags, table_rows
from sklearn.metrics import average_precision_score

from spml_tf import evaluate, export, predict
from spml_tf.drawing import overlays
from spml_tf.evaluation import thresholds
from spml_tf.exports import export_run


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory) -> Path:
    """An export into a folder that exists and is empty."""
    folder = tmp_path_factory.mktemp("exports") / "model"
    folder.mkdir()
    assert export.main([f"--run_dir={finished}", f"--export_dir={folder}"]) == 0
    return folder


@pytest.fixture
def moved(voc, finished, tmp_path) -> tuple[Path, Path]:
    """Copies of run and photos, to break: (run, photos)."""
    run = shutil.copytree(finished, tmp_path / "run")
    photos = shutil.copytree(voc, tmp_path / "voc")
    change_flags(run, data_dir=str(photos))
    return run, photos


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_evaluate_agrees_with_scikit_learn_and_knows_other_splits(finished, capsys):
    assert evaluate.main([f"--run_dir={finished}", "--batch_size=3"]) == 0
    report = json.loads(capsys.readouterr().out)
    keys = ["run_dir", "split", "images", "map", "ap", "absent_classes", "known"]
    assert list(report) == [*keys, "unknown_as_negative"]
    with np.load(finished / "predictions_test.npz") as saved:
        labels, scores = saved["labels"], saved["scores"]
    for column, name in enumerate(CLASSES):
        expected = 100 * average_precision_score(labels[:, column], scores[:, column])
        assert report["ap"][name] == pytest.approx(expected, abs=5.1e-5)
    assert report["map"] == pytest.approx(np.mean(list(report["ap"].values())), abs=1.1e-4)

    for word, says in (
        ("--image_size=64", "--image_size: goes with --network; a run has its own; leave it out"),
        ("--weights=imagenet", "--weights: goes with --network; a run has its own; leave it out"),
        ("--devices=-1", "--devices=-1: must lie between 0 and 1024"),
    ):
        assert evaluate.main([f"--run_dir={finished}", word]) == 1
        assert says in capsys.readouterr().err
    assert evaluate.main([f"--run_dir={finished}", "--split=trainval"]) == 1
    assert "trainval.txt" in capsys.readouterr().err
    assert evaluate.main([f"--run_dir={finished}", "--split=train"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["split"] == "train" and report["images"] == 24


def test_evaluate_names_a_broken_photo(moved, capsys):
    run, photos = moved
    photo = photos / "JPEGImages" / "2008_val003.jpg"
    photo.write_bytes(photo.read_bytes()[:100])
    assert evaluate.main([f"--run_dir={run}"]) == 1
    error = capsys.readouterr().err
    assert "2008_val003.jpg: cannot be decoded" in error and error.count("\n") == 1


def test_export_replaces_nothing_but_an_export(finished, tmp_path, capsys):
    folder = tmp_path / "diary"
    folder.mkdir()
    (folder / "entry.txt").write_text("dear diary")
    for words in ([], ["--overwrite"]):
        assert export.main([f"--run_dir={finished}", f"--export_dir={folder}", *words]) == 1
        assert "is no export" in capsys.readouterr().err
    assert contents(tmp_path) == {"diary/entry.txt": b"dear diary"}


def test_an_export_that_fails_leaves_the_earlier_one(finished, exported, tmp_path, monkeypatch):
    folder = shutil.copytree(exported, tmp_path / "model")
    before = contents(folder)
    words = [f"--run_dir={finished}", f"--export_dir={folder}", "--overwrite"]
    with monkeypatch.context() as patch:
        patch.setattr(export_run, "model_card", lambda *_: 1 / 0)
        assert export.main(words) == 2
    assert contents(folder) == before
    assert export.main(words) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (folder / "classes.json").read_bytes() == before["classes.json"]


def test_a_run_that_lacks_its_flagfile_is_named(finished, tmp_path, capsys):
    folder = shutil.copytree(finished, tmp_path / "run")
    (folder / "flags.txt").unlink()
    assert export.main([f"--run_dir={folder}", f"--export_dir={tmp_path / 'model'}"]) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(f"error: {folder / 'flags.txt'}: cannot be read (No such file")
    assert told.endswith("put a copy of it back") and not (tmp_path / "model").exists()


def test_serve_takes_batches_of_any_shape(exported):
    """Height or number of images equal to the input's side must not pass for that size."""
    import tensorflow as tf

    model = tf.saved_model.load(str(exported))
    images = np.random.default_rng(0).uniform(0, 255, (32, 32, 45, 3)).astype(np.float32)
    together = model.signatures["serve"](images=tf.constant(images))["probabilities"]
    assert together.shape == (32, 3)
    alone = np.concatenate([model.serve(images[i : i + 1])["probabilities"] for i in range(32)])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    logits = model.cams(images)["cams"].numpy().mean((1, 2))
    np.testing.assert_allclose(together, 1 / (1 + np.exp(-logits)), atol=1e-5)


def test_a_threshold_below_the_lowest_score_keeps_a_margin():
    """Scores .8+ .4+: both are wanted; the middle between .4 and 0 is .2."""
    rule = thresholds.parse_rule("f1")
    found = thresholds.choose(np.array([[1], [1]]), np.array([[0.8], [0.4]]), rule)
    np.testing.assert_allclose(found.values, [0.2])


def test_predict_quotes_names_and_draws_at_most_the_classes_asked_for(
    voc, exported, tmp_path, capsys
):
    model = shutil.copytree(exported, tmp_path / "model")
    names = ["cat, tame", 'the "cow"', "$dog$"]
    classes = json.loads((model / "classes.json").read_text())
    classes |= {"class_names": names, "thresholds": dict.fromkeys(names, 0.0)}
    (model / "classes.json").write_text(json.dumps(classes))
    photo = tmp_path / "a, b.jpg"
    shutil.copy(voc / "JPEGImages" / "2008_val000.jpg", photo)
    words = [f"--model_dir={model}", f"--images={tmp_path}/*.jpg", "--overlay_classes=2"]
    output, pictures = tmp_path / "new" / "p.csv", tmp_path / "pictures"
    assert predict.main([*words, f"--output={output}", f"--overlays={pictures}"]) == 0
    (row,) = table_rows(output)
    header = ["image", *(x for name in names for x in (name, f"{name}_decision"))]
    assert list(row) == header and row["image"] == str(photo)
    assert [row[f"{name}_decision"] for name in names] == ["1", "1", "1"]
    assert all(len(row[name].partition(".")[2]) == 6 for name in names)
    picture = np.asarray(Image.open(pictures / "a, b.jpg.png"))
    assert picture.shape == (18 + 200, 3 * 240 + 2 * 10 + 80, 3)  # photo, two classes, scale

    capsys.readouterr()
    assert predict.main([*words, f"--output={tmp_path}"]) == 1
    assert "is a folder" in capsys.readouterr().err
    assert predict.main([*words, f"--output={output}", f"--overlays={photo}"]) == 1
    assert f"{photo}: File exists" in capsys.readouterr().err


def test_pictures_of_photos_with_one_name_stay_apart():
    names = predict._picture_names(["p/a/x.jpg", "p/b/x.jpg", "p/a__x.jpg", "p/b/X.JPG", "q.png"])
    assert len({name.lower() for name in names.values()}) == 5
    assert names["p/a/x.jpg"] == "p__a__x.jpg.png" and names["q.png"] == "q.png.png"


@pytest.mark.parametrize(
    "shape", [(1, 1), (30, 2000), (2000, 30), (1500, 2000), (1, 1500), (1500, 1)]
)
def test_overlays_of_odd_sizes(shape, tmp_path):
    image = np.zeros((*shape, 3), np.uint8)
    maps = np.random.default_rng(0).random((3, 4, 2))
    overlays.draw_overlays(tmp_path / "x.png", image, maps, ["a", "b"], [0.5, 0.25])
    picture = np.asarray(Image.open(tmp_path / "x.png"))
    assert max(picture.shape) < 1000 and picture.std() > 5
