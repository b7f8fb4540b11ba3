"""mAP against labels spent, from the tables of two plans.

`python tools/draw_labels_spent.py --results=DIR --data=ccp --images=834 --classes=13
[--whole TABLE.csv ...]` reads train_images_ccp.csv and full_images_ccp.csv in DIR, and of tables of
runs with all images, where those have none, the rows of the same seeds; a later table goes before
an earlier one. One label an image costs one, all labels of an image cost a label a class. Writes
labels_spent_ccp.csv and .png.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from spml_tf.system.files import write_table

# Row of a table -> what its line is called.
FEWER = {
    "bce": "all labels of few images, BCE",
    "an": "one label an image, fewer images, AN",
    "en+scl": "one label an image, fewer images, EN+SCL",
    "recommended": "one label an image, fewer images, recommended",
}
MIXED = {
    "an": "one label an image and some in full, AN",
    "en+scl": "one label an image and some in full, EN+SCL",
    "recommended": "one label an image and some in full, recommended",
}
# (row, images or images in full, seed) -> mAP on test.
Scores = dict[tuple[str, int, str], float]


def _scores(path: Path, count: Callable[[dict[str, str]], int]) -> Scores:
    """Scores of a table; `count` says the images, or images in full, of a row of it."""
    with open(path, newline="", encoding="utf-8") as file:
        return {(x["row"], count(x), x["seed"]): float(x["test_map"]) for x in csv.DictReader(file)}


def _with_whole(
    scores: Scores, whole: Sequence[Path], names: Collection[str], count: int
) -> Scores:
    """Adds runs with all images, of the same seeds, as those with a count."""
    seeds = {seed for _, _, seed in scores}
    found: Scores = {}
    for table in whole:
        found |= _scores(table, lambda _: count)
    return {x: y for x, y in found.items() if x[0] in names and x[2] in seeds} | scores


def points(
    folder: Path, data: str, images: int, classes: int, whole: Sequence[Path]
) -> list[dict[str, object]]:
    """A row a point: what, labels spent, mAP on test in percent (the mean), seeds."""
    fewer = _scores(folder / f"train_images_{data}.csv", lambda x: int(x["train_images"]))
    mixed = _scores(folder / f"full_images_{data}.csv", lambda x: int(x["full_images"]))
    fewer = _with_whole(fewer, whole, FEWER, images)
    mixed = _with_whole(mixed, whole, MIXED, 0)
    found: dict[tuple[str, int], list[float]] = {}
    for (name, count, _), score in fewer.items():
        spent = count * (classes if name == "bce" else 1)
        found.setdefault((FEWER[name], spent), []).append(score)
    for (name, count, _), score in mixed.items():
        spent = images + count * (classes - 1)
        found.setdefault((MIXED[name], spent), []).append(score)
    return [
        {
            "what": what,
            "labels": spent,
            "test_map": round(statistics.mean(scores), 3),
            "seeds": len(scores),
        }
        for (what, spent), scores in found.items()
    ]


def main() -> None:
    """Writes the table and the figure."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--results", type=Path, required=True, help="folder of the tables")
    parser.add_argument("--data", required=True, help="ccp reads train_images_ccp.csv")
    parser.add_argument("--images", type=int, required=True, help="of the training split")
    parser.add_argument("--classes", type=int, required=True)
    parser.add_argument(
        "--whole", type=Path, nargs="+", default=[], help="tables of runs with all images"
    )
    given = parser.parse_args()
    folder, data = given.results, given.data
    rows = points(folder, data, given.images, given.classes, given.whole)
    write_table(folder / f"labels_spent_{data}.csv", rows)
    figure = Figure(figsize=(7, 5), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for name, marker in zip([*FEWER.values(), *MIXED.values()], "osD^vPX", strict=True):
        own = sorted((x["labels"], x["test_map"]) for x in rows if x["what"] == name)
        if own:
            axis.plot(*zip(*own, strict=True), marker=marker, label=name)
    axis.set_xscale("log")
    axis.set_xlabel("labels spent")
    axis.set_ylabel("mAP on test (%)")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(folder / f"labels_spent_{data}.png", dpi=150)


if __name__ == "__main__":
    main()
