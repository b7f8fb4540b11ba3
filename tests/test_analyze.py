"""The command that draws figures: on made runs, on a trained one, and misused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from conftest import run as run_command
from matplotlib.figure import Figure
from PIL import Image
from saved_runs import change_flags, table_rows
from sklearn.metrics import average_precision_score

from spml_tf import analyze, networks
from spml_tf.datasets import readers
from spml_tf.datasets.readers import Examples
from spml_tf.drawing import figure_files
from spml_tf.figures import (
    analysis_catalogue,
    analysis_figures,
    analysis_tables,
    crop_experiment,
)
from spml_tf.figures.compared_runs import UnavailableError
from spml_tf.runs.run_folder import RunFolder
from spml_tf.runs.settings import Settings, resolve
from spml_tf.system.errors import UserError
from spml_tf.system.files import write_table

ALL = {"top_scores", "gain_by_size", "crop_interval", "selection", "pointing", "per_class"}
ALL |= {"reliability", "difference"}


@pytest.fixture(scope="module")
def digits() -> dict[str, Examples]:
    return {split: readers.load("digits", None, split) for split in ("val", "test")}


@pytest.fixture(scope="module")
def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    return networks.small_residual_cam(10, image_size=64)


def make_run(folder: Path, digits, network, method: str, seed: int, noise: float, **flags) -> Path:
    """A run of random weights whose saved scores are noisy labels."""
    run = RunFolder(folder)
    settings = resolve(Settings(method=method, seed=seed, epochs=3, **flags))
    names = list(digits["val"].class_names)
    run.start(settings, {"data_fingerprint": "", "class_names": names, "images": {}})
    network.save(run.network)
    rng = np.random.default_rng(seed)
    for split, examples in digits.items():
        raw = examples.labels + noise * rng.standard_normal(examples.labels.shape)
        np.savez(
            run.predictions(split), scores=(1 / (1 + np.exp(2 - 4 * raw))).astype(np.float32),
            labels=examples.labels, names=np.array(examples.names), class_names=np.array(names),
        )  # fmt: skip
    selected = method != "an"
    write_table(run.history, [
        {"epoch": 1, "val_map": "", "selection_precision": "", "selection_recall": ""},
        *({"epoch": epoch, "val_map": "",
           "selection_precision": 0.1 * (epoch + seed) if selected else "",
           "selection_recall": 0.2 * epoch if selected else ""} for epoch in (2, 3)),
    ])  # fmt: skip
    run.metrics.write_text("{}")
    return folder


@pytest.fixture(scope="module")
def runs(digits, network, tmp_path_factory) -> list[Path]:
    """One run of an, two of en; their maps are those of one random network."""
    root = tmp_path_factory.mktemp("made")
    given = (("an", 0, 0.9), ("en", 0, 0.4), ("en", 1, 0.6))
    return [make_run(root / f"{m}_{s}", digits, network, m, s, noise) for m, s, noise in given]


EXPERIMENT = """dataset,method,row,seed,val_map,test_map,crop_area
digits,en,en,0,50,60,"0.5,1"
digits,en,en,1,52,64,"0.5,1"
digits,en,en,0,48,58,"1,1"
digits,en+scl,en+scl,0,55,70,"0.05,1"
"""


@pytest.fixture(scope="module")
def analysis(runs, tmp_path_factory) -> tuple[Path, str]:
    """The figures of these runs, all eight, and what the command told."""
    folder = tmp_path_factory.mktemp("analysis")
    (folder / "b1.csv").write_text(EXPERIMENT)
    done = run_command(
        f"--run_dirs={','.join(map(str, runs))}", f"--output_dir={folder / 'figures'}",
        f"--experiment_csv={folder / 'b1.csv'}", module="analyze", new_python=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "figures", done.stderr


def saved(run: Path, split: str = "test") -> tuple[np.ndarray, np.ndarray]:
    with np.load(run / f"predictions_{split}.npz") as file:
        return file["labels"], file["scores"]


def test_all_files_are_there(analysis, runs):
    folder, err = analysis
    expected = {f"{stem}.{ending}" for stem in ALL for ending in ("png", "svg", "csv")}
    assert {path.name for path in folder.glob("[!.]*")} == expected | {"index.md"}
    for path in folder.glob("*.png"):
        with Image.open(path) as picture:
            assert picture.width > 600 and np.asarray(picture.convert("L")).std() > 5
    for path in folder.glob("*.svg"):
        assert path.read_text("utf-8").rstrip().endswith("</svg>")
    index = (folder / "index.md").read_text("utf-8")
    assert all(f"({stem}.{x})" in index for stem in ALL for x in ("png", "svg", "csv"))
    assert "python -m spml_tf.analyze --run_dirs=" in index
    assert (
        index.partition("## Left out")[2].split()
        == "mask_share: no image of test has a mask".split()
    )
    assert f"    en: {runs[1]}, {runs[2]}\n" in index
    notes = [line for line in err.splitlines() if "note:" in line]
    assert err.count("heatmaps of") == 3
    assert notes == ["note: mask_share is left out: no image of test has a mask"]


def test_top_scores(analysis, runs):
    """The share of images whose third score lies in [0.05, 0.1), both seeds pooled."""
    third = np.concatenate([np.sort(saved(run, "val")[1])[:, -3] for run in runs[1:]])
    rows = table_rows(analysis[0] / "top_scores.csv")
    row = next(x for x in rows if (x["method"], x["rank"], x["low"]) == ("en", "3", "0.05"))
    expected = np.mean((third >= 0.05) & (third < 0.1))
    assert float(row["share"]) == pytest.approx(expected, rel=1e-5) and row["seeds"] == "2"


def test_difference(analysis, runs):
    """Run en_0 is paired with an_0; en_1 has no an of its seed."""
    (row,) = table_rows(analysis[0] / "difference.csv")
    labels, scores = saved(runs[1])
    own, base = (average_precision_score(labels, x) for x in (scores, saved(runs[0])[1]))
    assert (row["method"], row["seeds"], row["baseline"]) == ("en", "1", "an")
    assert float(row["difference"]) == pytest.approx(100 * (own - base), rel=1e-5)
    assert row["difference_std"] == ""
    assert 0 < float(row["low"]) < 100 * (own - base) < float(row["high"])


def test_gain_by_size(analysis, runs, digits):
    """Against scikit-learn and loops over the boxes; the gain is of means over seeds."""
    rows = table_rows(analysis[0] / "gain_by_size.csv")
    sizes = np.zeros((1000, 10))
    for row, boxes in zip(sizes, digits["test"].boxes, strict=True):
        for label, y1, x1, y2, x2 in boxes:
            row[int(label)] = max(row[int(label)], 100 * (y2 - y1) * (x2 - x1))
    own = [row for row in rows if row["bin"] == "2"]
    low, high = float(own[0]["size_low"]), float(own[0]["size_high"])
    inside = (sizes > low - 1e-3) & (sizes < high - 1e-3)  # sizes are multiples of 1 / 4,096
    assert {int(row["positives"]) for row in own} == {(inside & (saved(runs[0])[0] == 1)).sum()}
    means = []
    for run in runs:
        labels, scores = saved(run)
        parts = [(inside[:, c] | (labels[:, c] == 0), c) for c in range(10)]
        found = [average_precision_score(labels[kept, c], scores[kept, c]) for kept, c in parts]
        means.append(np.mean(found))
    an, en = means[0], (means[1] + means[2]) / 2
    assert float(own[0]["map"]) == pytest.approx(100 * an, rel=1e-5)
    assert float(own[1]["map"]) == pytest.approx(100 * en, rel=1e-5)
    assert float(own[1]["gain"]) == pytest.approx(100 * (en - an) / an, rel=1e-4)
    counts = np.array([int(row["positives"]) for row in rows if row["method"] == "an"])
    assert counts.sum() == (saved(runs[0])[0] == 1).sum()
    assert counts.max() < 1.2 * counts.min()


def test_crop_interval(analysis):
    """Means over seeds, the whole image first: 58; (60 + 64) / 2 with deviation sqrt(8); 70."""
    rows = table_rows(analysis[0] / "crop_interval.csv")
    expected = [("en", "1,1", 58.0, ""), ("en", "0.5,1", 62.0, "2.82843")]
    expected.append(("en+scl", "0.05,1", 70.0, ""))
    found = [(x["method"], x["crop_area"], float(x["map"]), x["map_std"]) for x in rows]
    assert found == expected and {row["split"] for row in rows} == {"test"}


def test_selection(analysis):
    """Epoch 2 of seeds 0 and 1: precision 20 and 30, recall 40 and 40; an selects nothing."""
    rows = table_rows(analysis[0] / "selection.csv")
    assert [(row["method"], row["epoch"]) for row in rows] == [("en", "2"), ("en", "3")]
    assert float(rows[0]["precision"]) == pytest.approx(25, rel=1e-5)
    assert float(rows[0]["precision_std"]) == pytest.approx(50**0.5, rel=1e-5)
    assert float(rows[1]["recall"]) == pytest.approx(60, rel=1e-5)


def test_pointing(analysis, network, digits):
    """Against a loop over boxes with the peaks of the network's own logits."""
    examples = digits["test"]
    maps = np.concatenate([
        np.asarray(network(part.astype(np.float32))) for part in np.split(examples.images, 20)
    ])  # fmt: skip
    side, hits, middle, pairs = maps.shape[1], 0, 0, 0
    for found, boxes in zip(maps, examples.boxes, strict=True):
        for label in {int(row[0]) for row in boxes}:
            y, x = np.argwhere(found[..., label] == found[..., label].max())[0]
            own = [row[1:] for row in boxes if row[0] == label]
            y, x = (y + 0.5) / side, (x + 0.5) / side
            hits += any(y1 <= y <= y2 and x1 <= x <= x2 for y1, x1, y2, x2 in own)
            middle += any(y1 <= 0.5 <= y2 and x1 <= 0.5 <= x2 for y1, x1, y2, x2 in own)
            pairs += 1
    rows = {row["method"]: row for row in table_rows(analysis[0] / "pointing.csv")}
    assert list(rows) == ["an", "en", "image centre"]
    assert {int(row["pairs"]) for row in rows.values()} == {pairs}
    # Batches of another size round differently: a pair or two of near ties may differ.
    assert float(rows["an"]["hits"]) == pytest.approx(100 * hits / pairs, abs=0.1)
    assert float(rows["en"]["hits_std"]) == 0
    assert float(rows["image centre"]["hits"]) == pytest.approx(100 * middle / pairs, rel=1e-5)


def test_per_class_and_reliability(analysis, runs):
    rows = table_rows(analysis[0] / "per_class.csv")
    row = next(x for x in rows if (x["method"], x["class"]) == ("en", "7"))
    found = [100 * average_precision_score(y[:, 7], s[:, 7]) for y, s in map(saved, runs[1:])]
    assert float(row["ap"]) == pytest.approx(np.mean(found), rel=1e-5)
    assert float(row["ap_std"]) == pytest.approx(np.std(found, ddof=1), rel=1e-4)
    labels, scores = saved(runs[0])
    inside = (scores >= 0.2) & (scores < 0.3)
    row = table_rows(analysis[0] / "reliability.csv")[2]
    assert (row["method"], row["low"], int(row["labels"])) == ("an", "0.2", inside.sum())
    assert float(row["positives"]) == pytest.approx(labels[inside].mean(), rel=1e-5)
    assert float(row["mean_score"]) == pytest.approx(scores[inside].mean(), rel=1e-4)


def test_reliability_counts_unknown_labels_as_the_run_does():
    """Of positives alone nothing can be told: each bin's share would be 1."""
    single = SimpleNamespace(
        labels=np.array([[1, -1], [-1, 1]], np.int8), scores=np.array([[0.95, 0.05], [0.45, 0.05]])
    )
    group = SimpleNamespace(name="an", runs=[single])
    found = SimpleNamespace(
        labels=single.labels, split="val", unknown_counts_as="nothing", groups=[group]
    )
    with pytest.raises(UnavailableError, match="the labels in val tell of no negatives in some"):
        analysis_tables.reliability(found)
    found.unknown_counts_as = "negative"
    bins = {
        row["low"]: (row["labels"], row["positives"]) for row in analysis_tables.reliability(found)
    }
    assert (bins[0.0], bins[0.4], bins[0.9]) == ((2, 0.5), (1, 0.0), (1, 1.0))


def test_what_cannot_be_had_is_noted(finished, tmp_path, capsys):
    """A trained run without boxes, without an; then again over the first result."""
    folder = tmp_path / "figures"
    words = [f"--run_dirs={finished}", f"--output_dir={folder}"]
    for _ in range(2):
        assert analyze.main(words) == 0
        err = capsys.readouterr().err
        for note in (
            "note: gain_by_size is left out: no run of the method an",
            "note: crop_interval is left out: --experiment_csv is not given",
            "note: pointing is left out: the data set has no boxes",
        ):
            assert note in err
        drawn = {path.stem for path in folder.glob("*.png")}
        assert drawn == ALL - {"difference", "gain_by_size", "crop_interval", "pointing"}
        assert "    pointing: the data set has no boxes" in (folder / "index.md").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figures"]


def test_photos_that_are_gone(finished, tmp_path, capsys):
    """Figures that need no photo are drawn all the same, unless --data_dir names their folder."""
    run = shutil.copytree(finished, tmp_path / "run")
    change_flags(run, data_dir=str(tmp_path / "gone"))
    words = [f"--run_dirs={run}", f"--output_dir={tmp_path / 'figures'}"]
    assert analyze.main(words) == 0
    assert "note: pointing is left out: the data cannot be read" in capsys.readouterr().err
    before = (tmp_path / "figures" / "index.md").read_text()
    assert analyze.main([*words, f"--data_dir={tmp_path / 'nowhere'}"]) == 1
    assert "nowhere" in capsys.readouterr().err
    assert (tmp_path / "figures" / "index.md").read_text() == before


def test_groups(runs, digits, network, tmp_path):
    """Runs of a method that differ in a flag are told apart by it; names override that."""
    from spml_tf.runs.run_groups import read_groups

    other = make_run(tmp_path / "x", digits, network, "en", 0, 0.4, crop_area="0.5,1")
    paths = [str(path) for path in (*runs, other)]
    groups = read_groups(paths)
    assert [(group.name, len(group.runs)) for group in groups] == [
        ("an", 1), ("en crop_area=0.25,1", 2), ("en crop_area=0.5,1", 1)
    ]  # fmt: skip
    groups = read_groups(paths, ["a", "b", "c", "d"])
    assert [group.name for group in groups] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--run_dirs={an}"], "--output_dir is missing"),
        (["--output_dir={out}"], "--run_dirs is missing"),
        (["--run_dirs={an},,{en}", "--output_dir={out}"], "an empty name"),
        (["--run_dirs={an},{an}", "--output_dir={out}"], "stands there twice"),
        (["--run_dirs={an},{gone}", "--output_dir={out}"], "no run here"),
        (["--run_dirs={an},{voc}", "--output_dir={out}"], "{voc} have different data sets"),
        (["--run_dirs={an},{shifted}", "--output_dir={out}"], "different labels in their test"),
        (["--run_dirs={an},{untested}", "--output_dir={out}"],
         "{untested} are reported on different splits (test and val, see --test_split); compare"),
        (["--run_dirs={en},{twin}", "--output_dir={out}"], "same --seed=0"),
        (["--run_dirs={an},{en}", "--names=x,x", "--output_dir={out}"], "different methods"),
        (["--run_dirs={an}", "--names=x,y", "--output_dir={out}"], "each of the 1 runs"),
        (["--run_dirs={unfinished}", "--output_dir={out}"], "not finished"),
        (["--run_dirs={damaged}", "--output_dir={out}"], "predictions_val.npz: cannot be read"),
        (["--run_dirs={an}", "--output_dir={diary}"], "holds entry.txt"),
        (["--run_dirs={an}", "--output_dir={diary}/entry.txt"], "is no folder"),
        (["--run_dirs={an}", "--output_dir={diary}/entry.txt/x"], "cannot be"),
        (["--run_dirs={an}", "--batch_size=0", "--output_dir={out}"], "--batch_size=0"),
        (["--run_dirs={an}", "--experiment_csv={diary}/entry.txt", "--output_dir={out}"],
         "entry.txt:1: no column row"),
    ],
)  # fmt: skip
def test_mistakes(runs, finished, tmp_path, capsys, flags, message):
    """One line each, nothing written."""
    names = {"an": runs[0], "en": runs[1], "voc": finished, "gone": tmp_path / "gone"}
    for name in ("shifted", "twin", "unfinished", "damaged", "untested"):
        names[name] = shutil.copytree(runs[1], tmp_path / name)
        RunFolder(names[name]).checksums.unlink(missing_ok=True)
    labels, scores = saved(names["shifted"])
    with np.load(names["shifted"] / "predictions_test.npz") as file:
        parts = {**file, "labels": np.roll(labels, 1, axis=0)}
    np.savez(names["shifted"] / "predictions_test.npz", **parts)
    (names["unfinished"] / "metrics.json").unlink()
    record = json.loads((names["untested"] / "run.json").read_text())
    record["flags"]["test_split"] = "none"
    (names["untested"] / "run.json").write_text(json.dumps(record))
    (names["damaged"] / "predictions_val.npz").write_bytes(b"PK\x03\x04 no archive")
    names |= {"out": tmp_path / "out", "diary": tmp_path / "diary"}
    names["diary"].mkdir()
    (names["diary"] / "entry.txt").write_text("dear diary\n")
    assert analyze.main([word.format(**names) for word in flags]) == 1
    out, err = capsys.readouterr()
    last = err.splitlines()[-1]
    assert last.startswith("error: ") and message.format(**names) in last and not out
    assert not list(tmp_path.glob("*out")) and "Traceback" not in err
    assert (names["diary"] / "entry.txt").read_text() == "dear diary\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (EXPERIMENT.split("\n")[0] + "\n", "no finished run"),
        (EXPERIMENT.replace('"1,1"', "wide"), ":4: crop_area is 'wide'"),
        (EXPERIMENT.replace("70", "high"), ":5: test_map is 'high'"),
        (EXPERIMENT.replace(',"0.05,1"', ""), ":5: 6 cells, the header has 7"),
        ("", ":1: no column row"),
    ],
)
def test_experiments_that_are_none(tmp_path, text, message):
    path = tmp_path / "b1.csv"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        crop_experiment.read(str(path))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_experiment_without_test_images(tmp_path):
    path = tmp_path / "b1.csv"
    path.write_text('row,crop_area,val_map,test_map\nen,"1,1",50,\nen,"1,1",52,\n')
    (row,) = crop_experiment.read(str(path))
    assert (row["map"], row["split"], row["seeds"]) == (51.0, "val", 2)


def test_odd_names_are_drawn_as_text(tmp_path):
    """Dollar signs, markup and many classes: no typesetting, the classes that differ most."""
    classes = ["$x^", "<b>", *(f"class {number}" for number in range(60))]
    rows = [
        {"method": method, "seeds": 1, "class": name, "ap": 60.0 + (number == 50) * gain,
         "ap_std": ""}
        for method, gain in (("$a", 0), ("b_", 20)) for number, name in enumerate(classes)
    ]  # fmt: skip
    figure = analysis_figures.per_class(rows, "$title_$ $^$", ["$a", "b_"])
    assert isinstance(figure, Figure)
    (axis,) = figure.axes
    ticks = [text.get_text() for text in axis.get_yticklabels()]
    assert len(ticks) == 40 and "class 48" in ticks and ticks[:2] == ["$x^", "<b>"]
    assert "40 of 62 classes" in figure.get_suptitle()
    figure_files.write(tmp_path, "odd", rows, figure)
    assert len(table_rows(tmp_path / "odd.csv")) == 124


@pytest.mark.parametrize("count", [5, 12, 30])
def test_every_method_has_a_colour_of_its_own(count):
    names = [f"method {number}" for number in range(count)]
    rows = [
        {"method": name, "baseline": "an", "difference": 1.0, "low": 0.5, "high": 1.5}
        for name in names
    ]
    (axis,) = analysis_figures.difference(rows, "title", names).axes
    lines = [line for line in axis.get_lines() if line.get_color() != "0.6"]
    assert len(lines) == 2 * count  # an interval and a marker each
    assert len({line.get_color() for line in lines}) == count


def test_the_axis_says_what_a_gain_is_relative_to():
    row = {"seeds": 1, "bin": 1, "size_low": 0.0, "size_high": 1.0, "positives": 3, "map": 60.0}
    rows = [{**row, "method": "en", "baseline": "my an", "gain": 20.0}]
    axis = analysis_figures.gain_by_size(rows, "title", ["en"]).axes[0]
    assert axis.get_ylabel() == "gain in mAP over my an (% of my an's mAP)"


def test_every_figure_is_explained():
    stems = [figure.stem for figure in analysis_catalogue.FIGURES]
    assert sorted(stems) == sorted([*ALL, "mask_share"])
