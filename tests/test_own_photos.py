"""The commands of docs/own_photos.md, run on 128 photos of MS-COCO."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import warm_process
from running_alone import printed_alone
from saved_runs import table_rows

pytestmark = pytest.mark.skipif(
    "SPML_TF_TEST_DATA" not in os.environ,
    reason="needs real photos: set SPML_TF_TEST_DATA to a folder with coco128",
)
ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "own_photos.md"
FIRST = "Train, evaluate, export, predict"
TRAIN = 100


def commands(section: str) -> list[list[str]]:
    """The words of each command in the bash blocks of a section."""
    text = PAGE.read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```bash\n(.*?)```", text, re.S)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder "mine": 128 photos, a table with one label each, and one with all labels."""
    coco = Path(os.environ["SPML_TF_TEST_DATA"]) / "coco128"
    root = tmp_path_factory.mktemp("own_photos")
    shutil.copytree(coco / "train2017", root / "mine" / "photos")
    content = json.loads((coco / "annotations" / "instances_train2017.json").read_text())
    names = {category["id"]: category["name"] for category in content["categories"]}
    shown = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        shown[annotation["image_id"]].append(names[annotation["category_id"]])
    files = [(image["file_name"], shown[image["id"]]) for image in content["images"]]
    for table, rows in (("train", files[:TRAIN]), ("val", files[TRAIN:])):
        with open(root / "mine" / f"{table}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", *names.values()])
            for name, labels in rows:
                if table == "train":
                    cells = ["1" if labels and x == labels[0] else "" for x in names.values()]
                else:
                    cells = [int(x in labels) for x in names.values()]
                writer.writerow([f"photos/{name}", *cells])
    return root


def run(place: Path, words: list[str], *more: str) -> subprocess.CompletedProcess[str]:
    done = run_anyhow(place, words, *more)
    assert done.returncode == 0, done.stderr
    return done


def run_anyhow(place: Path, words: list[str], *more: str) -> subprocess.CompletedProcess[str]:
    assert words[:2] == ["python", "-m"]
    return warm_process.run(words[2], [*words[3:], *more], cwd=place, timeout=500)


@pytest.fixture(scope="module")
def predicted(place) -> tuple[str, list[dict[str, str]]]:
    """What training prints, and the table of predictions.

    The commands are as the page has them, but for one epoch instead of fifteen, on one thread.
    """
    train, _, export, predict = commands(FIRST)
    done = run(place, train, "--epochs=1", "--threads=1")
    run(place, export)
    run(place, predict)
    return done.stdout, table_rows(place / "predictions.csv")


def test_train_evaluate_export_predict(place, predicted):
    train, evaluate, _, _ = commands(FIRST)
    assert shlex.join(train) in (ROOT / "README.md").read_text()
    printed, rows = predicted
    assert re.search(r"best epoch \d: mAP val \d+\.\d\d$", printed, re.M)
    record = json.loads((place / "runs/mine/run.json").read_text())
    assert record["images"] == {"train": TRAIN, "val": 28} and len(record["class_names"]) == 80
    assert any("have no known label: kept" in note for note in record["notes"])
    assert "--format=table" in evaluate
    shown = run(place, evaluate).stdout
    assert "precision" in shown and "person" in shown
    known = json.loads((place / "runs/mine/metrics.json").read_text())["val"]["map"]
    assert re.search(rf"^macro +\d+ +{known:.2f} ", shown, re.M)
    classes = json.loads((place / "models/mine/classes.json").read_text())
    card = (place / "models/mine/MODEL_CARD.md").read_text()
    assert "100 training, 28 validation images" in card and "| class | AP val | threshold |" in card
    assert classes["class_names"][:3] == ["person", "bicycle", "car"]
    assert len(rows) == 128 and {"person", "person_decision", "toothbrush"} <= rows[0].keys()
    refused = run_anyhow(place, evaluate[:-1], "--split=test")
    assert refused.returncode == 1 and "no test images; give --split=val" in refused.stderr


@pytest.mark.slow
def test_other_formats(place, predicted):
    """The same run as LiteRT and ONNX gives the scores and decisions of predictions.csv."""
    pytest.importorskip("ai_edge_litert", reason="needs the extra [litert]")
    pytest.importorskip("tf2onnx", reason="needs the extra [onnx]")
    export, rows = commands(FIRST)[2], predicted[1][:100]
    done = run(place, [*export[:-1], "--export_dir=models/all", "--format=litert,onnx"])
    lost = re.findall(r"^model_int8.tflite: .* mAP [\d.]+, (-?[\d.]+) lost$", done.stdout, re.M)
    assert len(lost) == 1 and abs(float(lost[0])) < 5
    for model in ("litert/model_float32.tflite", "onnx/model.onnx"):
        path = place / "models" / "all" / model
        words = [str(path), *(row["image"] for row in rows)]
        found = printed_alone(path.with_name("run.py"), words, place)
        for row, one in zip(rows, found, strict=True):
            for name, score in one["probabilities"].items():
                assert score == pytest.approx(float(row[name]), abs=1e-4)
                assert (name in one["decisions"]) == (row[f"{name}_decision"] == "1")


def test_check_summary_prepare(place):
    check, summary, prepare = commands("Look before you train")
    assert "128 images (train 100, val 28): 0 errors" in run(place, check).stdout
    assert "person" in run(place, summary).stdout
    assert (place / "summary" / "contact_sheet.png").stat().st_size > 100_000
    run(place, prepare)
    shared = ["python", "-m", "spml_tf.data", "summary", "--dataset=prepared", "--data_dir=shared"]
    text = run(place, shared, "--output_dir=again").stdout
    assert "person" in text
    before, after = (
        json.loads((place / name / "summary.json").read_text()) for name in ("summary", "again")
    )
    assert before["observed"]["digest"] == after["observed"]["digest"]
    assert before["class_names"] == after["class_names"]
    assert before["positives_per_image"] == after["positives_per_image"] > 2
