"""Runs and exports that predict in Python: the numbers of `python -m spml_tf.predict`."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
from conftest import CLASSES, run
from PIL import Image
from saved_runs import table_rows

import spml_tf
from spml_tf.serving import photos
from spml_tf.system.errors import UserError


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exports") / "model"
    words = (f"--run_dir={finished}", f"--export_dir={folder}", "--thresholds=recall:0.9")
    assert run(*words, "--calibration=platt", module="export").returncode == 0
    return folder


@pytest.fixture(scope="module")
def folder(voc, tmp_path_factory) -> Path:
    """Photos of several sizes and formats, one below another folder, and a text."""
    root = tmp_path_factory.mktemp("photos")
    (root / "more").mkdir()
    names = sorted((voc / "JPEGImages").iterdir())[:5]
    for name in names:
        shutil.copy(name, root)
    rng = np.random.default_rng(0)
    for name, shape in (("a.png", (21, 30, 3)), ("more/b.PNG", (70, 33, 3))):
        Image.fromarray(rng.integers(0, 256, shape).astype(np.uint8)).save(root / name)
    (root / "labels.txt").write_text("cat")
    return root


@pytest.fixture(scope="module")
def rows(exported, folder) -> list[dict[str, str]]:
    """What the command writes of the folder."""
    output = folder.parent / "rows.csv"
    words = (f"--model_dir={exported}", f"--images={folder}/**/*.[jpP]*", f"--output={output}")
    done = run(*words, module="predict")
    assert done.returncode == 0, done.stderr
    return table_rows(output)


@pytest.fixture(scope="module", params=["run", "export"])
def classifier(request, finished, exported):
    if request.param == "export":
        return spml_tf.load(exported)
    return spml_tf.load_run(finished, thresholds="recall:0.9", calibration="platt")


def test_a_folder_gives_what_the_command_writes(classifier, folder, rows, tmp_path):
    found = classifier.predict(folder)
    assert len(found) == len(rows) == 7 and found.class_names == CLASSES
    assert list(found.names) == [row["image"] for row in rows]
    assert found.scores.dtype == np.float32 and found.decisions.dtype == bool
    for row, scores, decisions in zip(rows, found.scores, found.decisions, strict=True):
        assert [row[name] for name in CLASSES] == [f"{x:.6f}" for x in scores]
        assert [row[f"{name}_decision"] for name in CLASSES] == [str(int(x)) for x in decisions]
    found.to_csv(tmp_path / "own.csv")
    assert (tmp_path / "own.csv").read_bytes() == (folder.parent / "rows.csv").read_bytes()


def test_paths_patterns_and_pixels_are_alike(classifier, folder, rows):
    names = [row["image"] for row in rows]
    whole = classifier.predict(names)
    assert whole.names == tuple(names)
    one = classifier.predict(Path(names[-1]))
    np.testing.assert_allclose(one.scores, whole.scores[-1:], atol=1e-6)
    pattern = classifier.predict(f"{folder}/*.jpg", batch_size=2)
    np.testing.assert_allclose(
        pattern.scores,
        [x for x, name in zip(whole.scores, names, strict=True) if name.endswith("jpg")],
        atol=1e-6,
    )
    pixels = [np.asarray(Image.open(x)) for x in names if x.lower().endswith("png")]
    mixed = classifier.predict([pixels[0], *names[:2], pixels[1]])
    assert mixed.names == ("0", names[0], names[1], "3")
    places = [n for n, x in enumerate(names) if x.lower().endswith("png")]
    np.testing.assert_allclose(mixed.scores[[0, 3]], whole.scores[places], atol=1e-6)
    stacked = classifier.predict(np.stack([pixels[0]] * 2))
    assert stacked.names == ("0", "1")
    np.testing.assert_array_equal(stacked.scores[0], stacked.scores[1])
    single = classifier.predict(pixels[0])
    np.testing.assert_allclose(single.scores[0], whole.scores[places[0]], atol=1e-6)


def test_heatmaps_pool_to_the_scores(classifier, folder):
    """The mean of their logits through a sigmoid."""
    found = classifier.predict(folder, batch_size=3)
    heatmaps = found.heatmaps
    assert heatmaps.dtype == np.float32 and heatmaps.shape[0] == 7 and heatmaps.shape[3] == 3
    assert heatmaps.shape[1] == heatmaps.shape[2] > 1 and found.heatmaps is heatmaps
    logits = np.log(heatmaps) - np.log1p(-heatmaps)
    np.testing.assert_allclose(1 / (1 + np.exp(-logits.mean((1, 2)))), found.scores, atol=1e-4)


def test_a_data_frame(classifier, folder, rows):
    found = classifier.predict(folder)
    frame = found.to_dataframe()
    assert isinstance(frame, pandas.DataFrame) and list(frame.columns) == list(rows[0])
    assert frame["image"].tolist() == [row["image"] for row in rows]
    np.testing.assert_array_equal(frame[list(CLASSES)].to_numpy(), found.scores)
    assert frame["cat_decision"].dtype == bool
    for row, name in enumerate(found.names):
        decided = {x for x in CLASSES if frame[f"{x}_decision"][row]}
        ranked = found.classes_of(row)
        assert set(ranked) == decided, name
        assert ranked == sorted(ranked, key=lambda x: -frame[x][row])


def test_without_pandas_one_line_says_what_to_install(classifier, folder, monkeypatch):
    found = classifier.predict(folder)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"pip install 'spml_tf\[dataframe\]'"):
        found.to_dataframe()


def test_a_fresh_process_needs_no_more_than_the_folder(exported, folder, rows):
    code = (
        "import json, spml_tf\n"
        f"found = spml_tf.load({str(exported)!r}).predict({str(folder)!r})\n"
        "print(json.dumps([[f'{x:.6f}' for x in row] for row in found.scores]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = [[row[name] for name in CLASSES] for row in rows]
    assert json.loads(done.stdout.splitlines()[-1]) == expected


def test_files_that_are_no_images(classifier, folder, tmp_path):
    photo = shutil.copy(folder / "a.png", tmp_path / "a.png")
    (tmp_path / "zero.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"zero.jpg: cannot be read as an image \(empty, 0 bytes\)"):
        classifier.predict(tmp_path)
    found = classifier.predict(tmp_path, skip_broken=True)
    assert found.names == (str(photo),) and list(found.left_out) == [str(tmp_path / "zero.jpg")]
    assert found.heatmaps.shape[0] == 1
    Path(photo).unlink()
    with pytest.raises(UserError, match=r"no file can be read as an image"):
        classifier.predict(tmp_path, skip_broken=True)


def test_what_is_no_photo_is_refused(classifier, tmp_path):
    for images, says in (
        ([], "there are no images"),
        (np.zeros((4, 4, 3)), "expected a path or an array of uint8, found float64"),
        (np.zeros((4, 4, 4), np.uint8), r"expected the shape \[H, W, 3\], found \(4, 4, 4\)"),
        ([np.zeros((0, 4, 3), np.uint8)], r"found \(0, 4, 3\)"),
        ([3], "found int"),
        (str(tmp_path), "holds no image file"),
        (str(tmp_path / "x.jpg"), "matches no file and is no folder"),
    ):
        with pytest.raises(ValueError, match=says):
            classifier.predict(images)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        classifier.predict(np.zeros((1, 4, 4, 3), np.uint8), batch_size=0)


def test_a_folder_whose_name_is_a_pattern(tmp_path):
    odd = tmp_path / "[a]*"
    odd.mkdir()
    Image.new("RGB", (4, 4)).save(odd / "x.webp")
    assert [x.name for x in photos.photos_of(odd)] == [str(odd / "x.webp")]


def test_a_folder_is_listed_once(tmp_path, unlistable, capsys):
    """Not behind links to folders, one of which leads back; hidden names are left out as before."""
    for name in ("b/x.jfif", "b/.hidden/y.jpg", "a.JPE", "c.dib", ".z.png", "t.txt"):
        (tmp_path / "all" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "all" / name).touch()
    (tmp_path / "all" / "back").symlink_to(tmp_path / "all")
    found = photos.photo_files(str(tmp_path / "all"))
    assert found == [str(tmp_path / "all" / x) for x in ("a.JPE", "b/x.jfif", "c.dib")]
    assert capsys.readouterr().err == (
        f"note: {tmp_path}/all/back: a link to a folder is not followed; name the folder too\n"
    )
    unlistable("b")
    with pytest.raises(UserError, match=r"all/b: cannot be listed \(Permission denied\)"):
        photos.photo_files(str(tmp_path / "all"))


@pytest.mark.parametrize("ending", ["index", "data-00000-of-00001"])
@pytest.mark.parametrize("left", [0, 1000, None])
def test_an_export_that_was_copied_in_part(exported, tmp_path, ending, left):
    folder = shutil.copytree(exported, tmp_path / "x")
    path = folder / "variables" / f"variables.{ending}"
    content = path.read_bytes()
    path.unlink()
    if left is not None:
        assert len(content) > left
        path.write_bytes(content[:left])
    with pytest.raises(UserError, match=r"x: no spml_tf export \("):
        spml_tf.load(folder)


@pytest.mark.parametrize(
    "value", ['"0.5"', "null", "NaN", "50", "-0.1", "true", "1.0000003", "[1]"]
)
def test_a_threshold_that_is_none(exported, tmp_path, value):
    folder = shutil.copytree(exported, tmp_path / "x")
    path = folder / "classes.json"
    classes = json.loads(path.read_text())
    for never in (1.0, 1.0000001192092896):
        classes["thresholds"]["cow"] = never
        path.write_text(json.dumps(classes))
        assert spml_tf.load(folder).thresholds[1] == never
    classes["thresholds"]["cow"] = "VALUE"
    path.write_text(json.dumps(classes).replace('"VALUE"', value))
    with pytest.raises(UserError) as caught:
        spml_tf.load(folder)
    said = str(caught.value)
    assert said.startswith(f"{path}: the threshold of 'cow' is ") and "from 0 to 1" in said


def test_what_is_no_run_and_no_export(finished, tmp_path):
    with pytest.raises(UserError, match="is a run and no export; write one with python -m spml_"):
        spml_tf.load(finished)
    with pytest.raises(UserError, match="no spml_tf export"):
        spml_tf.load(tmp_path)
    with pytest.raises(UserError, match="no run here"):
        spml_tf.load_run(tmp_path)
    with pytest.raises(UserError, match="--calibration=isotonic: must be one of none, temp"):
        spml_tf.load_run(finished, calibration="isotonic")
    unfinished = shutil.copytree(finished, tmp_path / "run")
    (unfinished / "metrics.json").unlink()
    with pytest.raises(UserError, match="not finished"):
        spml_tf.load_run(unfinished)


def test_an_export_says_how_it_is_calibrated(finished, exported, tmp_path):
    assert spml_tf.load(exported).calibration == "platt"
    assert spml_tf.load_run(finished).calibration == "none"
    older = shutil.copytree(exported, tmp_path / "older")
    classes = json.loads((older / "classes.json").read_text())
    del classes["calibration"]
    (older / "classes.json").write_text(json.dumps(classes))
    assert spml_tf.load(older).calibration == "none"


def test_the_guide_runs(finished, folder, monkeypatch, capsys):
    """The blocks of Getting started and Your own photos, on this run and these photos."""
    monkeypatch.chdir(folder.parent)
    for page, run_dir, photos_dir in (
        ("getting_started", "runs/voc", "photos"),
        ("own_photos", "runs/mine", "mine/photos"),
    ):
        text = (Path(__file__).parent.parent / "docs" / f"{page}.md").read_text()
        (code,) = re.findall(r"^```python\n(.*?)^```", text, re.S | re.M)
        for name, place in ((run_dir, finished), (photos_dir, folder)):
            assert code.count(f'"{name}"') == 1
            code = code.replace(f'"{name}"', repr(str(place)))
        names: dict[str, object] = {}
        exec(code, names)
        assert len(names["found"]) == 7
    assert "(7, 3)" in capsys.readouterr().out
    assert len((folder.parent / "predictions.csv").read_text().splitlines()) == 8
