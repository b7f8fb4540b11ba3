"""mAP against labels spent: `python tools/draw_labels_spent.py --results=DIR --classes=13`.

From the tables of the plans `train_images_ccp` and `full_images_ccp` in DIR: one label a photo
costs one, all labels of a photo cost a label a class. Writes labels_spent_ccp.csv and .png.
"""

from __future__ import annotations

import csv
import statistics
import sys
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from spml_tf.system.files import write_table

PHOTOS = 834
# Row of a table -> what its line is called.
FEWER = {
    "bce": "all labels of few photos, BCE",
    "an": "one label a photo, fewer photos, AN",
    "recommended": "one label a photo, fewer photos, recommended",
}
MIXED = {
    "an": "one label a photo and some in full, AN",
    "en+scl": "one label a photo and some in full, EN+SCL",
    "recommended": "one label a photo and some in full, recommended",
}


def _means(path: Path, column: str) -> dict[tuple[str, int], tuple[float, int]]:
    """Mean mAP on test and number of seeds, by row and value."""
    found: dict[tuple[str, int], list[float]] = {}
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found.setdefault((row["row"], int(row[column])), []).append(float(row["test_map"]))
    return {key: (statistics.mean(values), len(values)) for key, values in found.items()}


def points(folder: Path, classes: int) -> list[dict[str, object]]:
    """A row a point: what, labels spent, mAP, seeds."""
    rows: list[dict[str, object]] = []
    for (name, count), (value, seeds) in _means(
        folder / "train_images_ccp.csv", "train_images"
    ).items():
        spent = count * (classes if name == "bce" else 1)
        rows.append({"what": FEWER[name], "labels": spent, "test_map": value, "seeds": seeds})
    for (name, count), (value, seeds) in _means(
        folder / "full_images_ccp.csv", "full_images"
    ).items():
        spent = PHOTOS + count * (classes - 1)
        rows.append({"what": MIXED[name], "labels": spent, "test_map": value, "seeds": seeds})
    return rows


def main(words: list[str]) -> None:
    """Writes the table and the figure."""
    flags = dict(word.removeprefix("--").split("=", 1) for word in words)
    folder = Path(flags["results"])
    rows = points(folder, int(flags["classes"]))
    write_table(folder / "labels_spent_ccp.csv", rows)
    figure = Figure(figsize=(7, 4.5), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for name, marker in zip([*FEWER.values(), *MIXED.values()], "osD^vP", strict=True):
        own = sorted((x["labels"], x["test_map"]) for x in rows if x["what"] == name)
        axis.plot(*zip(*own, strict=True), marker=marker, label=name)
    axis.set_xscale("log")
    axis.set_ylim(top=44)  # the legend stands above the lines
    axis.set_xlabel("labels spent")
    axis.set_ylabel("mAP on test (%)")
    axis.legend(frameon=False, fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(folder / "labels_spent_ccp.png", dpi=150)


if __name__ == "__main__":
    main(sys.argv[1:])
