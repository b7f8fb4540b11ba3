"""ReaL numbers by hand, on the genuine labels against NumPy loops, and through the command line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import run as run_command
from PIL import Image
from sklearn.metrics import average_precision_score

from spml_tf import evaluate, networks
from spml_tf.evaluation import real_labels
from spml_tf.runs.run_folder import RunFolder
from spml_tf.runs.settings import Settings, resolve

CLASSES = ("n01440764", "n01443537", "n02084071", "n07747607")
# Of every validation image: its class, and its ReaL labels (k = 2, 1, 0, 4, 3, 1).
TRUTH = (2, 0, 3, 2, 1, 1)
REAL = ((2, 3), (0,), (), (0, 1, 2, 3), (0, 1, 3), (3,))


def test_by_hand():
    """Top classes 0, 1, 2, 0 of images with the labels {0}, {0, 1}, {} and {1}: of the three with
    a label two are right. Class 0: ranked + - + (the image without a label is out): with one label
    + -, so 1; with two labels 1. Over all: image 0 (0.9), image 3 (0.8), image 1 (0.1), so
    (1 + 2/3)/2. Class 1: image 1 (0.6), 0 (0.3), 3 (0.2): (1 + 2/3)/2; with one label - +: 1/2.
    Class 2 has no positive."""
    labels = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 0]])
    scores = np.array([[0.9, 0.3, 0.0], [0.1, 0.6, 0.5], [0.0, 0.1, 0.7], [0.8, 0.2, 0.1]])
    assert real_labels.top1(labels, scores) == pytest.approx(2 / 3)
    both = (1 + 2 / 3) / 2
    report = real_labels.real_report(labels, scores)
    assert report["images"] == {"all": 3, "1": 2, "2": 1, "3": 0, ">=4": 0}
    assert report["classes"] == {"all": 2, "1": 2, "2": 2, "3": 0, ">=4": 0}
    assert report["top1"] == pytest.approx(200 / 3)
    expected = {"all": 100 * both, "1": 75.0, "2": 100.0, "3": None, ">=4": None}
    assert report["map"] == pytest.approx(expected)
    zero = real_labels.real_report(labels, scores, "zero")["map"]
    assert zero == pytest.approx({**expected, "all": 200 * both / 3, "1": 50.0, "2": 200 / 3})
    np.testing.assert_allclose(
        real_labels.softmax([[0.0, np.log(3.0)], [1000.0, 1000.0]]), [[0.25, 0.75], [0.5, 0.5]]
    )
    assert np.isnan(real_labels.top1(np.zeros((2, 3)), np.ones((2, 3))))


def plain_average_precision(positive: np.ndarray, scores: np.ndarray) -> float:
    """For scores without ties: mean over positives of the precision at their rank."""
    hits = positive[np.argsort(-scores)]
    return float((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())


def test_genuine_labels():
    """All images of real.json with a label, and seeded logits that know a part of the truth."""
    folder = os.environ.get("SPML_TF_TEST_DATA")
    if not folder:
        pytest.skip("SPML_TF_TEST_DATA is not set")
    lists = json.loads((Path(folder) / "labels" / "imagenet_real.json").read_text())
    lists = [sorted(set(columns)) for columns in lists if columns]
    labels = np.zeros((len(lists), 1000), np.int8)
    for row, columns in enumerate(lists):
        labels[row, columns] = 1
    rng = np.random.default_rng(0)
    scores = rng.standard_normal(labels.shape, np.float32)
    scores += 3 * labels * rng.random((len(labels), 1), np.float32)
    report = real_labels.real_report(labels, scores)

    counts = np.array([len(columns) for columns in lists])
    groups = {"all": counts > 0, **{f"{k}": counts == k for k in (1, 2, 3)}, ">=4": counts >= 4}
    sizes = {"all": 46837, "1": 39394, "2": 5408, "3": 1319, ">=4": 716}
    assert report["images"] == sizes
    assert report["classes"] == {"all": 1000, "1": 1000, "2": 953, "3": 653, ">=4": 434}
    right = [top in columns for top, columns in zip(scores.argmax(1), lists, strict=True)]
    assert report["top1"] == pytest.approx(100 * np.mean(right), abs=1e-9)
    for name, rows in groups.items():
        part, own = labels[rows] == 1, scores[rows]
        present = np.flatnonzero(part.any(axis=0))
        found = [plain_average_precision(part[:, x], own[:, x]) for x in present]
        # Not exact: of 46,837 float32 scores some tie.
        assert report["map"][name] == pytest.approx(100 * np.mean(found), abs=2e-3)
        if name == "all":
            for column in (0, 500, 999):
                expected = average_precision_score(part[:, column], own[:, column])
                assert found[column] == pytest.approx(expected, abs=1e-4)


def make_tree(root: Path, classes=CLASSES, side: int = 32) -> np.ndarray:
    """ImageNet's folders with small photos; returns those of val, uint8 [6, side, side, 3].

    The files are PNG inside, which can be told apart from JPEG by content only: one of the genuine
    training images is, too.
    """
    rng = np.random.default_rng(1)
    photos = rng.integers(0, 256, (len(TRUTH), side, side, 3)).astype(np.uint8)
    for name in classes:
        (root / "train" / name).mkdir(parents=True)
    (root / "val").mkdir()
    table = ["ImageId,PredictionString"]
    for number, (photo, column) in enumerate(zip(photos, TRUTH, strict=True), start=1):
        name = f"ILSVRC2012_val_{number:08d}"
        Image.fromarray(photo).save(root / "val" / f"{name}.JPEG", format="PNG")
        table.append(f"{name},{classes[column]} 1 1 9 9 ")
    (root / "LOC_val_solution.csv").write_text("\n".join(table) + "\n")
    (root / "real.json").write_text(json.dumps(REAL))
    return photos


@pytest.fixture
def tree(tmp_path) -> tuple[Path, np.ndarray]:
    return tmp_path / "imagenet", make_tree(tmp_path / "imagenet")


def make_run(folder: Path, data_dir: Path) -> keras.Model:
    """Writes what evaluation reads of a run; returns its network."""
    keras.utils.set_random_seed(3)
    network = networks.small_residual_cam(len(CLASSES), image_size=32)
    run = RunFolder(folder)
    given = Settings(
        dataset="imagenet", data_dir=str(data_dir), network="small_residual", image_size=32
    )
    run.start(resolve(given), {"data_fingerprint": "", "class_names": list(CLASSES), "images": {}})
    network.save(run.network)
    return network


def matrix(lists) -> np.ndarray:
    return np.array([[column in row for column in range(len(CLASSES))] for row in lists])


def test_evaluate_run(tree, tmp_path, capsys):
    """Against a few lines of NumPy on the network's own logits."""
    root, photos = tree
    network = make_run(tmp_path / "run", root)
    assert evaluate.main(["--dataset=imagenet", f"--run_dir={tmp_path / 'run'}"]) == 0
    report = json.loads(capsys.readouterr().out)

    logits = np.asarray(network(photos.astype(np.float32))).mean(axis=(1, 2))
    top, kept = logits.argmax(axis=1), np.array([bool(row) for row in REAL])
    assert report["val"] == {"images": 6, "top1": pytest.approx(100 * np.mean(top == TRUTH))}
    real = report["real"]
    right = [x in row for x, row in zip(top, REAL, strict=True) if row]
    assert real["top1"] == pytest.approx(100 * np.mean(right))
    assert real["images"] == {"all": 5, "1": 2, "2": 1, "3": 1, ">=4": 1}
    labels = matrix(REAL)
    for name, rows in (("all", kept), ("1", [1, 5]), ("2", [0]), ("3", [4]), (">=4", [3])):
        part, own = labels[rows], logits[rows]
        found = [
            plain_average_precision(part[:, x], own[:, x]) for x in range(4) if part[:, x].any()
        ]
        assert real["map"][name] == pytest.approx(100 * np.mean(found))
        assert real["classes"][name] == len(found)
    assert report["images"] == 5 and report["map"] == pytest.approx(real["map"]["all"])


def test_evaluate_run_without_the_list_of_val(tree, tmp_path, capsys):
    """In another folder; softmax ranks by the images' probabilities."""
    root, photos = tree
    network = make_run(tmp_path / "run", tmp_path / "gone")
    (root / "LOC_val_solution.csv").unlink()
    words = [f"--run_dir={tmp_path / 'run'}", f"--data_dir={root}", "--probabilities=softmax"]
    assert evaluate.main([*words, "--absent_classes=zero"]) == 0
    out, err = capsys.readouterr()
    assert "note: top-1 on the validation labels is left out: " in err
    report = json.loads(out)
    assert report["val"] is None
    logits = np.asarray(network(photos.astype(np.float32))).mean(axis=(1, 2))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    kept, labels = [0, 1, 3, 4, 5], matrix(REAL)
    found = [plain_average_precision(labels[kept, x], shares[kept, x]) for x in range(4)]
    assert report["real"]["map"]["all"] == pytest.approx(100 * np.mean(found), abs=1e-4)
    # One image with k = 2 has two of four classes, each with the precision 1.
    assert report["real"]["map"]["2"] == pytest.approx(50.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--run_dir={run}", "--dataset=coco"], "--dataset=coco: the run in"),
        (["--run_dir={run}", "--network=resnet50"], "not together with --run_dir"),
        (["--network=resnet50"], "give --dataset=imagenet"),
        (["--network=resnet50", "--dataset=imagenet"], "--data_dir is missing"),
        (
            ["--network=resnet50", "--dataset=imagenet", "--data_dir={tree}", "--split=val"],
            "--split=val: a network without a run",
        ),
        (
            ["--network=resnet50", "--dataset=imagenet", "--data_dir={tree}", "--weights=w.h5"],
            "w.h5",
        ),
        (["--run_dir={run}", "--data_dir={other}"], "--data_dir="),
    ],
)
def test_mistakes(tree, tmp_path, capsys, words, message):
    make_run(tmp_path / "run", tree[0])
    make_tree(tmp_path / "other", ("n00000001", *CLASSES[1:]))
    names = {"run": tmp_path / "run", "tree": tree[0], "other": tmp_path / "other"}
    assert evaluate.main([word.format(**names) for word in words]) == 1
    out, err = capsys.readouterr()
    assert not out and message in err.splitlines()[-1] and err.splitlines()[-1].startswith("error")


def test_a_classifier_without_a_run(tmp_path):
    """MobileNetV2 from a file of random weights, in a process; a thousand classes. Expected is what
    the classifier itself says of pixels in -1..1."""
    classes = tuple(f"n{number:08d}" for number in range(1000))
    photos = make_tree(tmp_path / "imagenet", classes, side=224)
    keras.utils.set_random_seed(4)
    classifier = keras.applications.MobileNetV2(weights=None, classifier_activation=None)
    file = tmp_path / "mobilenet.weights.h5"
    classifier.save_weights(file)
    done = run_command(
        "--dataset=imagenet", f"--data_dir={tmp_path / 'imagenet'}", f"--weights={file}",
        "--network=applications:MobileNetV2", module="evaluate",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    logits = classifier.predict(photos / np.float32(127.5) - 1, verbose=0)
    top = logits.argmax(axis=1)
    assert report["val"] == {"images": 6, "top1": pytest.approx(100 * np.mean(top == TRUTH))}
    right = [x in row for x, row in zip(top, REAL, strict=True) if row]
    assert report["real"]["top1"] == pytest.approx(100 * np.mean(right))
    assert report["real"]["classes"] == {"all": 4, "1": 2, "2": 2, "3": 3, ">=4": 4}
    # Class 0 in the ranking of six images, among them one without a ReaL label, which is left out.
    kept, labels = [0, 1, 3, 4, 5], matrix(REAL)
    expected = plain_average_precision(labels[kept, 0], logits[kept, 0])
    assert report["ap"]["n00000000"] == pytest.approx(100 * expected)
    assert report["run_dir"] is None and report["images"] == 5
