"""Figures of heatmaps: what they show and the numbers behind, and the command that draws them."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import keras
import matplotlib
import numpy as np
import pytest
from PIL import Image
from saved_runs import table_rows

from spml_tf import heatmaps, networks
from spml_tf.datasets import splits
from spml_tf.drawing import overlays
from spml_tf.figures import heatmap_figures
from spml_tf.figures.heatmap_figures import Heatmaps, Picture
from spml_tf.runs import heatmap_history
from spml_tf.runs.run_folder import RunFolder

CLASSES = ("cat", "cow", "dog", "$owl$")
STEMS = ("top_heatmaps", "heatmap_growth", "heatmap_comparison")


def picture(name: str = "a.jpg", photo: np.ndarray | None = None) -> Picture:
    """A cat that is annotated, a cow that is not, no dog, and an owl nobody knows of."""
    return Picture(
        name,
        np.zeros((20, 40, 3), np.uint8) if photo is None else photo,
        np.array([1, -1, -1, -1], np.int8),
        np.array([1, 1, 0, -1], np.int8),
        np.array([[0, 0.0, 0.5, 0.5, 1.0], [1, 0.5, 0.5, 1.0, 1.0]], np.float32),
    )


def maps_of(scores: list[float]) -> Heatmaps:
    """The cat's map peaks at the upper right, the cow's at the upper left of 2 x 2 cells."""
    maps = np.full((2, 2, 4), 0.1)
    maps[0, 1, 0], maps[0, 0, 1] = 0.9, 0.7
    return Heatmaps(maps, np.array(scores))


def test_the_classes_of_highest_score():
    """Dog 0.8, cat 0.6, cow 0.5; the cat's peak lies in its box, the cow's does not."""
    found = heatmap_figures.top_heatmaps([picture()], [maps_of([0.6, 0.5, 0.8, 0.1])], CLASSES, 3)
    dog, cat, cow = heatmap_figures.numbers(found)
    assert (dog["class"], dog["label"], dog["score"]) == ("dog", "absent", 0.8)
    assert dog["peak"] == 0.1 and np.isnan(dog["in_box"])
    assert cat == {
        "image": "a.jpg", "class": "cat", "label": "annotated", "score": 0.6,
        "peak": 0.9, "peak_y": 0.25, "peak_x": 0.75, "in_box": 1,
    }  # fmt: skip
    assert cow["label"] == "present, not annotated"
    assert (cow["peak"], cow["peak_y"], cow["peak_x"], cow["in_box"]) == (0.7, 0.25, 0.25, 0)
    (line,) = found
    assert [tile.caption for tile in line.tiles] == [
        "dog: 0.80\nabsent", "cat: 0.60\nannotated", "cow: 0.50\npresent, not annotated",
    ]  # fmt: skip


def test_two_runs_show_the_same_classes():
    """The positives first, cow (mean 0.55) before cat (0.4), then owl (0.5) before dog (0.35)."""
    by_run = {
        "en": [maps_of([0.3, 0.6, 0.7, 0.1])],
        "en+scl": [maps_of([0.5, 0.5, 0.0, 0.9])],
    }
    rows = heatmap_figures.numbers(heatmap_figures.comparison([picture()], by_run, CLASSES, 3))
    assert [(row["run"], row["class"], row["score"]) for row in rows] == [
        ("en", "cow", 0.6), ("en", "cat", 0.3), ("en", "$owl$", 0.1),
        ("en+scl", "cow", 0.5), ("en+scl", "cat", 0.5), ("en+scl", "$owl$", 0.9),
    ]  # fmt: skip
    assert rows[2]["label"] == "unknown"


def test_growth_over_epochs():
    """Ten epochs of a map that grows by 0.1 each in one cell: six of them are shown."""
    found = heatmap_history.empty("bank", [7, 4], ["z.jpg", "a.jpg"], CLASSES, 2)
    for epoch in range(1, 11):
        maps = np.full((2, 2, 2, 4), np.nan if epoch == 1 else 0.05)
        maps[1, 1, 0, 1] = epoch / 10
        codes = np.array([[1, 2 if epoch == 10 else -1, -1, -1]] * 2, np.int8)
        found = found.extended(epoch, maps, np.full((2, 4), epoch / 20, np.float32), codes)
    classes = heatmap_figures.growth_classes(picture(), np.array([0.2, 0.3, 0.4, 0.9]))
    assert classes == (0, 1, 2)  # of each kind there is one
    lines = heatmap_figures.growth(picture(), found, 1, classes)
    assert [line.caption for line in lines] == [
        "cat\nannotated positive", "cow\npositive without annotation", "dog\nnegative",
    ]  # fmt: skip
    rows = [row for row in heatmap_figures.numbers(lines) if row["class"] == "cow"]
    # Places 0, 1.8, 3.6, 5.4, 7.2, 9 of the ten.
    assert [row["epoch"] for row in rows] == [1, 3, 5, 6, 8, 10]
    for row in rows:
        assert row["peak"] == pytest.approx(row["epoch"] / 10, abs=1e-3)
        assert row["score"] == pytest.approx(row["epoch"] / 20)
        assert (row["peak_y"], row["peak_x"], row["in_box"]) == (0.75, 0.25, 0)
        assert row["expected_positive"] == (row["epoch"] == 10)
    assert lines[1].tiles[-1].caption == "epoch 10: 0.50\nexpected positive"
    first = heatmap_figures.numbers(lines)[0]
    assert first["epoch"] == 1 and np.isnan(first["peak"])  # nothing of the cat's was covered


def test_growth_takes_the_highest_of_each_kind():
    observed = np.array([1, -1, -1, -1, -1, 0], np.int8)
    truth = np.array([1, 1, 1, 0, 0, 0], np.int8)
    image = Picture("a", np.zeros((2, 2, 3), np.uint8), observed, truth, np.zeros((0, 5)))
    scores = np.array([0.1, 0.2, 0.3, 0.5, 0.4, 0.9])
    assert heatmap_figures.growth_classes(image, scores) == (0, 2, 5)
    alone = dataclasses.replace(image, truth=np.array([1, 0, 0, 0, 0, 0], np.int8))
    assert heatmap_figures.growth_classes(alone, scores) is None
    assert [image.label(x) for x in (0, 2, 4, 5)] == [
        "annotated", "present, not annotated", "absent", "annotated as absent",
    ]  # fmt: skip


def test_maps_are_enlarged_where_they_are_known():
    """Two cells over four pixels, the first unknown: weights of the second 0, 1/4, 3/4, 1."""
    cells = np.array([np.nan, 0.6])[None, :, None].repeat(2, axis=0)
    np.testing.assert_allclose(overlays.enlarge(cells, 2, 4)[0, :, 0], [np.nan, np.nan, 0.6, 0.6])


def test_a_strip_is_the_photo_and_its_tiles():
    """A gray photo of 100: a map of 1 mixes six tenths of viridis' last colour in, NaN nothing."""
    photo = np.full((50, 100, 3), 100, np.uint8)
    maps = np.stack([np.ones((2, 2)), np.full((2, 2), np.nan)], axis=-1)
    strip = overlays.strip(photo, maps, ["cat: 1.00", "猫 $x$ " * 40])
    assert strip.shape == (144, 3 * 256 + 8, 3) and strip.dtype == np.uint8
    mixed = 0.4 * 100 + 0.6 * 255 * np.array(matplotlib.colormaps["viridis"](1.0)[:3])
    assert (strip[16:, :256] == 100).all() and (strip[16:, 520:] == 100).all()
    assert (strip[16:, 260:516] == np.rint(mixed)).all()
    assert strip[:16, 260:516].min() < 100 and (strip[:, 516:520] == 255).all()


def drawn(path: Path, image: Picture, scores: list[float]) -> np.ndarray:
    lines = heatmap_figures.top_heatmaps([image], [maps_of(scores)], CLASSES, 4)
    heatmap_figures.draw(lines, "title with $x_$").savefig(path, dpi=80)
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_tiles_show_photo_map_and_box(tmp_path):
    """A red photo is red without a map, and one of blue elsewhere; odd names do not warn."""
    red = np.full((30, 30, 3), (255, 0, 0), np.uint8)
    sheet = drawn(tmp_path / "a.png", picture("猫/$a$" * 20, red), [0.6, 0.5, 0.8, 0.1])
    bare = (np.abs(sheet - (255, 0, 0)).max(axis=2) < 8).mean()
    # One photo of five tiles, each 1.7 of 9.3 inches wide in a figure 2.46 high.
    assert bare == pytest.approx(1.7**2 / (9.3 * 2.46), rel=0.2)
    colours = matplotlib.colormaps["viridis"]
    for value in (0.1, 0.7, 0.9):  # beyond the centres of the outermost cells a map is constant
        mixed = 0.4 * np.array([255, 0, 0]) + 0.6 * 255 * np.array(colours(value)[:3])
        assert (np.abs(sheet - mixed).max(axis=2) < 8).mean() > 0.002
    assert (sheet.max(axis=2) < 40).any() and (sheet.min(axis=2) > 250).any()


@pytest.fixture(scope="module")
def other(finished, tmp_path_factory) -> Path:
    """The run again under another name, in which all heatmaps and scores are as in the first."""
    return shutil.copytree(finished, tmp_path_factory.mktemp("other") / "second")


def test_the_command(finished, other, tmp_path, capsys):
    """Three figures; their numbers are those of the run's network and of its heatmaps.npz."""
    folder = tmp_path / "figures"
    folder.mkdir()
    (folder / "thesis.txt").write_text("precious")
    words = [f"--run_dir={finished}", f"--other_run_dir={other}", f"--output_dir={folder}"]
    assert heatmaps.main([*words, "--top=2"]) == 0
    assert "top_heatmaps, heatmap_comparison, heatmap_growth in" in capsys.readouterr().out
    files = {f"{stem}.{x}" for stem in STEMS for x in ("png", "svg", "csv")}
    assert {path.name for path in folder.glob("[!.]*")} == {*files, "thesis.txt"}
    assert all(np.asarray(Image.open(folder / f"{stem}.png")).std() > 10 for stem in STEMS)

    run, found = RunFolder(finished), heatmap_history.read(finished / "heatmaps.npz")
    data = splits.load_splits(run.settings()).train
    assert [data.names[row] for row in found.images] == found.names.tolist()
    rows = table_rows(folder / "top_heatmaps.csv")
    assert [row["image"] for row in rows[::2]] == found.names[:6].tolist()
    network = networks.load_network(run.network)
    photo = keras.utils.img_to_array(Image.open(data.paths[found.images[0]]).resize((32, 32)))
    logits = network(photo[None], training=False).numpy()[0].astype(np.float64)
    scores = 1 / (1 + np.exp(-logits.mean(axis=(0, 1))))
    best = np.argsort(-scores)[:2]  # another resampling of the photo: about the same scores
    assert [row["class"] for row in rows[:2]] == [found.class_names[x] for x in best]
    assert [float(row["score"]) for row in rows[:2]] == pytest.approx(scores[best], abs=0.05)

    both = table_rows(folder / "heatmap_comparison.csv")
    assert [row["run"] for row in both[:4]] == ["whole", "whole", "second", "second"]
    assert [row["peak"] for row in both if row["run"] == "whole"] == [
        row["peak"] for row in both if row["run"] == "second"
    ]
    grown = table_rows(folder / "heatmap_growth.csv")
    assert [row["epoch"] for row in grown] == ["1", "2", "3", "4", "5"] * 3
    assert [row["label"] for row in grown[::5]] == list(heatmap_figures.KINDS)
    place = found.names.tolist().index(grown[0]["image"])
    for row in grown:
        at = int(row["epoch"]) - 1, place
        column = found.class_names.tolist().index(row["class"])
        assert float(row["score"]) == pytest.approx(found.scores[at][column], abs=1e-5)
        assert float(row["peak"]) == pytest.approx(np.nanmax(found.maps[at][..., column]), abs=1e-5)
        assert row["in_box"] == ""  # the data set has no boxes


def test_chosen_images_without_a_record(finished, other, tmp_path, capsys):
    """A run without heatmaps.npz still shows its network's maps; growth is left out, with why."""
    bare = shutil.copytree(other, tmp_path / "bare", ignore=shutil.ignore_patterns("heatmaps.npz"))
    name = str(heatmap_history.read(finished / "heatmaps.npz").names[3])
    words = [f"--run_dir={bare}", f"--output_dir={tmp_path / 'new' / 'figures'}"]
    assert heatmaps.main([*words, f"--images={name}"]) == 0
    said = capsys.readouterr()
    assert "note: heatmap_growth is left out: " in said.err
    assert f"{bare / 'heatmaps.npz'} is missing; train with --record_heatmaps=8" in said.err
    rows = table_rows(tmp_path / "new" / "figures" / "top_heatmaps.csv")
    assert {row["image"] for row in rows} == {name} and len(rows) == 3  # of three classes


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "--run_dir is missing"),
        (["--run_dir=RUN"], "--output_dir is missing"),
        (["--run_dir=RUN", "--output_dir=OUT", "--top=0"], "--top=0: must be at least 1"),
        (["--run_dir=OUT", "--output_dir=OUT"], "no run here"),
        (["--run_dir=RUN", "--output_dir=OUT", "--other_run_dir=RUN"], "name another run"),
        (["--run_dir=RUN", "--output_dir=OUT", "--images=x"], "--images: no training image"),
        (["--run_dir=RUN", "--output_dir=RUN/run.json"], "cannot be written"),
        (["--run_dir=RUN", "--output_dir=OUT", "--data_dir=OUT"], "OUT"),
    ],
)
def test_a_mistake_is_one_line(finished, tmp_path, capsys, words, says):
    places = {"RUN": str(finished), "OUT": str(tmp_path / "out")}
    for key, place in places.items():
        words, says = [word.replace(key, place) for word in words], says.replace(key, place)
    assert heatmaps.main(words) == 1
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1 and says in error[0]
    assert not (tmp_path / "out").exists()
