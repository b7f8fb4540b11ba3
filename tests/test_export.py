"""evaluate, export and predict, as processes on a finished run."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import CLASSES, run
from PIL import Image
from saved_runs import table_rows

from spml_tf import export as exporting
from spml_tf import networks
from spml_tf.datasets.readers import Examples
from spml_tf.drawing import overlays
from spml_tf.evaluation import predictions, thresholds
from spml_tf.exports.exported import Exported
from spml_tf.system.files import RECORD


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exports") / "model"
    done = run(f"--run_dir={finished}", f"--export_dir={folder}", module="export", new_python=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluate_repeats_the_runs_results(finished, split):
    done = run(
        f"--run_dir={finished}", f"--split={split}", module="evaluate", new_python=split == "test"
    )
    assert done.returncode == 0 and done.stdout.count("\n") == 1
    found = json.loads(done.stdout)
    expected = json.loads((finished / "metrics.json").read_text())[split]
    assert found["split"] == split and found["images"] == {"val": 5, "test": 8}[split]
    assert found["map"] == pytest.approx(expected["map"], abs=5.1e-5)  # four digits
    assert found["ap"] == pytest.approx(expected["ap"], abs=5.1e-5)


def test_a_class_without_positives_is_reported():
    labels, scores = np.array([[1, 0], [0, 0]]), np.array([[0.9, 0.1], [0.2, 0.3]])
    report = predictions.score_report(labels, scores, ("a", "b"))
    assert report == {
        "map": 100.0, "ap": {"a": 100.0, "b": None}, "absent_classes": ["b"],
        "known": {
            "a": {"positives": 1, "negatives": 1, "unknown": 0},
            "b": {"positives": 0, "negatives": 2, "unknown": 0},
        },
        "unknown_as_negative": [],
    }  # fmt: skip
    assert predictions.score_report(labels, scores, ("a", "b"), "zero")["map"] == 50.0


def test_reload_in_a_process_that_knows_nothing_of_spml_tf(voc, finished, exported):
    """The SavedModel alone gives the probabilities of predictions_test.npz to 1e-5."""
    code = (
        "import glob, json, sys, numpy as np, tensorflow as tf\n"
        f"model = tf.saved_model.load({str(exported)!r})\n"
        f"names = np.load({str(finished / 'predictions_test.npz')!r})['names']\n"
        f"files = tf.constant([open({str(voc)!r} + '/' + n, 'rb').read() for n in names])\n"
        "scores = model.serve_bytes(files)['probabilities'].numpy()\n"
        "assert 'spml_tf' not in sys.modules\n"
        "print(json.dumps(scores.tolist()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with np.load(finished / "predictions_test.npz") as saved:
        np.testing.assert_allclose(json.loads(done.stdout), saved["scores"], atol=1e-5)
    variables = exported / "variables" / "variables.data-00000-of-00001"
    assert variables.stat().st_size < 1.1 * 4 * sum(
        np.prod(w.shape) for w in networks.load_network(finished / "network.keras").weights
    ) + 20_000  # the network alone: no banks, no optimizer  # fmt: skip


def pictures(folder: Path) -> tuple[str, ...]:
    """JPEG and PNG of mixed sizes, in colour, grey, with alpha, grey with alpha, palette."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    paths = []
    for number, (mode, kind) in enumerate(
        (m, k) for m in ("RGB", "L", "RGBA", "LA", "P") for k in ("jpg", "png")
    ):
        if kind == "jpg" and mode not in ("RGB", "L"):
            continue
        shape = (30 + 7 * number, 50 - 3 * number)
        depth = {"RGB": 3, "RGBA": 4, "LA": 2}.get(mode)
        values = rng.integers(0, 256, (*shape, depth) if depth else shape).astype(np.uint8)
        picture = Image.fromarray(values[..., :depth] if depth else values)
        paths.append(str(folder / f"{number}_{mode}.{kind}"))
        (picture.convert("P") if mode == "P" else picture).save(paths[-1])
    return tuple(paths)


def test_serve_bytes_equals_evaluation_for_every_kind_of_file(finished, exported, tmp_path):
    paths = pictures(tmp_path)
    labels = np.zeros((len(paths), len(CLASSES)), np.int8)
    examples = Examples(paths, labels, CLASSES, paths=paths)
    network = networks.load_network(finished / "network.keras")
    expected = predictions.predict_scores(network, examples, 32)
    model = tf.saved_model.load(str(exported))
    found = model.serve_bytes(tf.constant([Path(path).read_bytes() for path in paths]))
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-5)
    for path, row in zip(paths, expected, strict=True):
        if "_RGB." in path:  # serve takes the decoded picture; cams pool to the same
            image = np.asarray(Image.open(path), np.float32)[None]
            if path.endswith("png"):
                served = model.serve(image)["probabilities"].numpy()[0]
                cams = model.cams(image)["cams"].numpy()
                np.testing.assert_allclose(served, row, atol=1e-5)
                pooled = 1 / (1 + np.exp(-cams.mean((1, 2))))[0]
                np.testing.assert_allclose(pooled, row, atol=1e-5)


F1 = thresholds.parse_rule("f1")


def test_what_stands_beside_the_model(finished, exported):
    classes = json.loads((exported / "classes.json").read_text())
    assert classes["class_names"] == list(CLASSES) and classes["image_size"] == 32
    with np.load(finished / "predictions_val.npz") as saved:
        expected, shared = thresholds.choose(saved["labels"], saved["scores"], F1)
    assert shared.all() and classes["shared_thresholds"] == list(CLASSES)
    assert classes["threshold_rule"] == "f1"
    np.testing.assert_allclose([classes["thresholds"][name] for name in CLASSES], expected)
    card = (exported / "MODEL_CARD.md").read_text()
    record = json.loads((finished / "run.json").read_text())
    results = json.loads((finished / "metrics.json").read_text())
    few = "3 classes with fewer than 10 positives there share one."
    mean = f"{results['test']['map']:.2f}"
    for text in (record["data_fingerprint"], "en+scl", mean, "--seed=0", few):
        assert text in card


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("count", "One threshold gives as many decisions on the validation images as there are"),
        ("recall:1", "The thresholds give a recall of 1 on the validation images."),
        ("0.25", "The threshold 0.25 was given, not chosen."),
    ],
)
def test_thresholds_by_other_rules(finished, tmp_path, capsys, rule, said):
    words = [f"--run_dir={finished}", f"--export_dir={tmp_path / 'out'}", f"--thresholds={rule}"]
    assert exporting.main(words) == 0
    assert ("share the threshold" in capsys.readouterr().err) == rule.startswith("recall")
    assert said in (tmp_path / "out" / "MODEL_CARD.md").read_text()
    classes = json.loads((tmp_path / "out" / "classes.json").read_text())
    values = np.array(list(classes["thresholds"].values()))
    with np.load(finished / "predictions_val.npz") as saved:
        chosen, positive = saved["scores"] >= values, saved["labels"] == 1
    if rule == "count":
        known = json.loads((finished / "run.json").read_text())["positives_per_image"]
        assert chosen.sum() == round(known * len(chosen))
    elif rule == "recall:1":
        assert chosen[positive].all()
    else:
        assert (values == 0.25).all() and classes["threshold_rule"] == "0.25"


def test_a_rule_that_there_is_not(finished, tmp_path, capsys):
    words = [f"--run_dir={finished}", f"--export_dir={tmp_path / 'out'}", "--thresholds=best"]
    assert exporting.main(words) == 1
    error = capsys.readouterr().err
    assert "--thresholds: must be f1, count, precision:P, recall:R, or a threshold" in error
    assert "'best'" in error and not (tmp_path / "out").exists()


def best_f1(labels, scores):
    """The threshold of one class, [N, 1]."""
    return thresholds.choose(labels, scores, thresholds.parse_rule("f1")).values[0]


def test_rules_by_hand():
    """Twelve images; of class 0, with 10 positives, the best ten but two are right, class 1 has one
    positive, the second of its images."""
    scores = np.linspace(0.95, 0.4, 12)[:, None].repeat(2, axis=1)
    truth = np.zeros((12, 2), int)
    truth[[0, 1, 2, 3, 5, 6, 7, 8, 9, 11], 0] = 1
    truth[1, 1] = 1
    step = 0.05
    cut = [0.95 - step * (x + 0.5) for x in range(12)]  # below the first, the second, ...

    def values(text):
        return thresholds.choose(truth, scores, thresholds.parse_rule(text), 1.5).values

    # Right among the first n of class 0: 4 of 4, 4 of 5, 9 of 10, 9 of 11, 10 of 12.
    assert values("precision:0.9")[0] == pytest.approx(cut[9])
    assert values("precision:1")[0] == pytest.approx(cut[3])
    assert values("recall:0.9")[0] == pytest.approx(cut[9])
    assert values("recall:1")[0] == pytest.approx((0.4 + 0) / 2)
    # Both classes together: of pairs of equal scores 1, 3, 4 and 5 of 2, 4, 6 and 8 are right.
    assert values("precision:0.75")[1] == pytest.approx(cut[1])
    assert values("precision:0.9")[1] == pytest.approx((1 + 0.95) / 2)  # nothing is that sure
    np.testing.assert_allclose(values("count"), cut[8])  # 18 decisions: both of nine images
    assert values("0.3").tolist() == [0.3, 0.3]
    assert thresholds.parse_rule("0.3") == ("fixed", 0.3)
    found = thresholds.choose(truth, scores, thresholds.parse_rule("f1"))
    assert found.shared.tolist() == [False, True]
    assert found.values[0] == best_f1(truth[:, :1], scores[:, :1])
    assert found.values[1] == best_f1(truth.reshape(-1, 1), scores.reshape(-1, 1))
    with pytest.raises(ValueError, match="count needs positives_per_image"):
        thresholds.choose(truth, scores, thresholds.parse_rule("count"))
    for text in ("", "f2", "precision", "precision:0", "recall:1.5", "-1", "2", "nan"):
        with pytest.raises(ValueError, match="must be f1, count"):
            thresholds.parse_rule(text)


def test_a_share_that_is_reached_exactly():
    """0.55 * 100 is 55.00000000000001 in floating point: 55 of 100 are enough."""
    truth = np.array([[1]] * 55 + [[0]] * 45)
    scores = np.linspace(1, 0.5, 100)[:, None]
    (found,) = thresholds.choose(truth, scores, thresholds.parse_rule("precision:0.55")).values
    assert (scores >= found).sum() == 100
    truth = np.ones((100, 1), int)
    (found,) = thresholds.choose(truth, scores, thresholds.parse_rule("recall:0.55")).values
    assert (scores >= found).sum() == 55


def test_where_no_decision_is_sure_enough_none_is_made():
    """The highest score, 1 as float32 has it of any logit above 17, is of a negative."""
    truth = np.array([[1]] * 10 + [[0]] * 2)
    scores = np.array([[0.6]] * 10 + [[1.0]] * 2)
    (found,) = thresholds.choose(truth, scores, thresholds.parse_rule("precision:0.95")).values
    assert not (scores >= found).any() and not (scores.astype(np.float32) >= found).any()
    assert np.float32(found) > 1


def test_thresholds_by_hand_and_brute_force():
    """Scores .9+ .6- .4+ .1-: at .4, 2 of 3 right, F1 = 4/5, the best; midway to .1 is .25."""
    found = best_f1(np.array([[1], [0], [1], [0]]), np.array([[0.9], [0.6], [0.4], [0.1]]))
    assert found == pytest.approx(0.25)
    assert best_f1(np.zeros([2, 1]), np.array([[0.9], [0.1]])) == 0.5  # without a positive
    rng = np.random.default_rng(0)
    for _ in range(50):
        labels = rng.integers(0, 2, (12, 1))
        labels[0] = 1
        scores = rng.integers(0, 6, (12, 1)) / 5

        def f1(threshold, labels=labels, scores=scores):
            chosen = scores >= threshold
            return 2 * (chosen & (labels == 1)).sum() / (chosen.sum() + labels.sum())

        best = max(f1(x) for x in scores.ravel())
        assert f1(best_f1(labels, scores)) == pytest.approx(best)


def test_an_export_is_never_lost(finished, exported, tmp_path, capsys):
    folder = shutil.copytree(exported, tmp_path / "kept")
    before = {p.name: p.read_bytes() for p in folder.glob("*.*")}
    words = (f"--run_dir={finished}", f"--export_dir={folder}")
    assert exporting.main(words) == 1
    assert before == {p.name: p.read_bytes() for p in folder.glob("*.*")}
    capsys.readouterr()
    (folder / "variables" / "stale").write_text("old")
    (folder / RECORD).write_text(
        (folder / RECORD).read_text().replace("{", '{"variables/stale": [],', 1)
    )
    assert exporting.main([*words, "--overwrite"]) == 0
    assert not (folder / "variables" / "stale").exists() and (folder / "saved_model.pb").exists()
    shutil.copytree(exported, folder / "7")  # as --serving_version=7 writes it
    assert exporting.main([*words, "--overwrite"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: --export_dir={folder}: holds '7/.written.json', which this command has not "
        "written; move it, or choose another folder"
    )
    assert (folder / "7" / "saved_model.pb").exists()


@pytest.mark.parametrize(
    ("module", "words", "says"),
    [
        ("evaluate", [], "--run_dir is missing"),
        ("evaluate", ["--run_dir={tmp}"], "no run here"),
        ("export", ["--run_dir={tmp}"], "--export_dir is missing"),
        ("export", ["--run_dir=", "--export_dir={tmp}/x"], "--run_dir is missing"),
        ("export", ["--run_dir={tmp}", "--export_dir={tmp}/x"], "no run here"),
        ("predict", ["--images={tmp}/*.jpg"], "--model_dir is missing"),
        ("predict", ["--model_dir={tmp}", "--images={tmp}/*.jpg"], "matches no file"),
        ("predict", ["--model_dir={tmp}", "--images=" + __file__], "no spml_tf export"),
        ("predict", ["--model_dir={tmp}", "--images=x", "--batch_size=0"], "--batch_size=0"),
    ],
)
def test_a_mistake_is_one_line(module, words, says, tmp_path, capsys):
    import importlib

    main = importlib.import_module(f"spml_tf.{module}").main
    assert main([word.format(tmp=tmp_path) for word in words]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and says in error


def test_evaluate_in_code_checks_as_the_command_does():
    from spml_tf.runs.evaluate_run import evaluate
    from spml_tf.runs.evaluation_settings import EvaluationSettings
    from spml_tf.system.errors import UserError

    with pytest.raises(UserError, match="--run_dir is missing"):
        evaluate(EvaluationSettings())
    with pytest.raises(UserError, match="--batch_size=0"):
        evaluate(EvaluationSettings("run", batch_size=0))


def test_an_unfinished_run_is_not_exported(finished, tmp_path, capsys):
    folder = shutil.copytree(finished, tmp_path / "unfinished")
    (folder / "metrics.json").unlink()
    assert exporting.main([f"--run_dir={folder}", f"--export_dir={tmp_path / 'x'}"]) == 1
    assert "not finished" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_predict_writes_probabilities_decisions_and_pictures(voc, finished, exported, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    with np.load(finished / "predictions_test.npz") as saved:
        names, scores = saved["names"], saved["scores"]
    shutil.copy(voc / str(names[0]), tmp_path / "a" / "same.jpg")
    shutil.copy(voc / str(names[1]), tmp_path / "b" / "same.jpg")
    (tmp_path / "b" / "zero.jpg").write_bytes(b"")
    done = run(
        f"--model_dir={exported}", f"--images={tmp_path}/**/*.jpg", "--batch_size=2",
        f"--output={tmp_path / 'p.csv'}", f"--overlays={tmp_path / 'pictures'}", module="predict",
        new_python=True,
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr
    first, last = done.stderr.splitlines()
    assert "zero.jpg: cannot be read as an image" in first and "1 file is no image" in last
    rows = table_rows(tmp_path / "p.csv")
    assert [row["image"][-10:] for row in rows] == ["a/same.jpg", "b/same.jpg"]
    classes = json.loads((exported / "classes.json").read_text())
    for row, expected in zip(rows, scores, strict=False):
        for name, value in zip(CLASSES, expected, strict=True):
            assert float(row[name]) == pytest.approx(value, abs=1e-5)
            assert int(row[f"{name}_decision"]) == (value >= classes["thresholds"][name])
    drawn = list((tmp_path / "pictures").glob("*.png"))
    assert len(drawn) == 2
    folder = [f"--model_dir={exported}", f"--images={tmp_path / 'a'}"]  # in place of a pattern
    done = run(*folder, f"--output={tmp_path / 'a.csv'}", module="predict")
    assert done.returncode == 0, done.stderr
    assert table_rows(tmp_path / "a.csv") == rows[:1]
    assert all(np.asarray(Image.open(path)).std() > 10 for path in drawn)


def test_heatmaps_are_enlarged_at_cell_centres(tmp_path):
    """Two cells over four pixels: centres at 1/4 and 3/4, pixels at 1/8, 3/8, 5/8, 7/8."""
    cells = np.array([0.0, 1.0])[None, :, None].repeat(2, axis=0)
    np.testing.assert_allclose(overlays.enlarge(cells, 2, 4)[0, :, 0], [0, 0.25, 0.75, 1])
    image = np.zeros((40, 60, 3), np.uint8)
    overlays.draw_overlays(tmp_path / "x.png", image, cells, ["$a$ <b>"], [0.5])
    with open(tmp_path / "x.png", "rb") as file:
        assert np.asarray(Image.open(io.BytesIO(file.read()))).std() > 10


def test_broken_files_that_may_be_skipped(exported, voc, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copy(next(voc.glob("JPEGImages/*.jpg")), photos / "a.jpg")
    (photos / "zero.jpg").write_bytes(b"")
    words = [f"--model_dir={exported}", f"--images={photos}", f"--output={tmp_path / 'p.csv'}"]
    done = run(*words, "--skip_broken", module="predict")
    assert done.returncode == 0 and "1 of 2 images in" in done.stdout
    (note,) = (x for x in done.stderr.splitlines() if "zero.jpg" in x)
    assert note.startswith("note: ") and "left out" in note
    assert run(*words, module="predict").returncode == 1


def test_of_equal_f1_the_highest_threshold_is_chosen():
    """.9+ .8- .7- .6+: F1 is 2 / 3 at .9 and 4 / 6 at .6; of equals the highest, midway to .8."""
    labels, scores = np.array([[1], [0], [0], [1]] * 10), np.repeat([0.9, 0.8, 0.7, 0.6], 1)
    scores = np.tile(scores, 10)[:, None]
    found = thresholds.choose(labels, scores, thresholds.parse_rule("f1"))
    assert found.values[0] == pytest.approx(0.85) and not found.shared[0]


def test_unknown_labels_are_left_out_of_a_shared_threshold():
    """.9+ .5- .4+ and an unknown label between: F1 is 4 / 5 with all three, half of 0.4 and 0."""
    labels, scores = [[1], [-1], [0], [1]], [[0.9], [0.6], [0.5], [0.4]]
    found = thresholds.choose(labels, scores, thresholds.parse_rule("f1"))
    assert found.shared[0] and found.values[0] == pytest.approx(0.2)


def test_the_number_of_decisions_is_rounded():
    """K = 0.9 of 3 images are 2.7, three decisions."""
    labels, scores = [[1, 0], [0, 0], [0, 1]], [[0.9, 0.1], [0.5, 0.3], [0.3, 0.4]]
    found = thresholds.choose(labels, scores, thresholds.parse_rule("count"), 0.9)
    assert found.values.tolist() == pytest.approx([0.35, 0.35])


def test_a_probability_that_equals_its_threshold_decides():
    """A probability that equals the threshold decides, one below does not."""
    model = Exported(None, 4, ("a", "b"), np.array([0.5, 0.5 + 1e-7]), 10.0)
    assert model.outputs(tf.zeros([1, 2, 2, 2]))["decisions"].numpy().tolist() == [[1, 0]]
