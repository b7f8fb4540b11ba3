"""A finished run whose class, file and column names hold HTML, and the report about it."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from spml_tf.pages import html_page, report_page, report_photos
from spml_tf.runs.run_groups import read_groups
from spml_tf.runs.settings import Settings, resolve

CLASSES = (
    '<img src=x onerror="window.ran=1">',
    "dog \"'&amp;",
    "</script><script>window.ran=2</script>",
    "cat",
)
PHOTOS = ("<b>bold</b>.jpg", "'\"><svg onload=window.ran=3>.jpg", "plain.jpg")
COLUMN, CELL = "<i onclick=window.ran=4>", "<script>window.ran=5</script>"
# Average precision on test; None: the class has no positive.
PRECISIONS = (90.0, 7.5, 100.0, None)
LABELS = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]], np.int8)
SCORES = np.array([[0.9, 0.2, 0.1, 0.3], [0.6, 0.7, 0.1, 0.2], [0.3, 0.2, 0.8, 0.4]])


def write(folder: Path, **changed: Any) -> Path:
    """Writes what a report reads of a finished run of three images; flags can be changed."""
    folder.mkdir()
    flags = dataclasses.asdict(resolve(Settings(dataset="digits", epochs=3, **changed)))
    record: dict[str, Any] = {
        "flags": flags,
        "class_names": CLASSES,
        "images": {"train": 5, "val": 3, "test": 3},
    }
    record["data_fingerprint"] = ""
    (folder / "run.json").write_text(json.dumps({**record, "notes": [CELL]}))
    ap = dict(zip(CLASSES, PRECISIONS, strict=True))
    part = {"map": 65.83, "ap": ap, "absent_classes": [CLASSES[3]]}
    (folder / "metrics.json").write_text(json.dumps({"best_epoch": 2, "val": part, "test": part}))
    with open(folder / "history.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "loss", "val_loss", "map", "val_map", COLUMN])
        writer.writerow([1, 0.5, 0.6, 0.1, 0.2, CELL])
        writer.writerow([2, 0.25, 0.5, 0.3, 0.4, CELL])
        writer.writerow([3, 0.125, 0.4, 0.5, 0.3, CELL])
    saved = {"scores": SCORES, "labels": LABELS, "names": PHOTOS, "class_names": CLASSES}
    for split in ("val", "test"):
        np.savez(folder / f"predictions_{split}.npz", **saved)
    return folder


def photo(row: int) -> report_photos.ShownPhoto:
    """A grey photo of 40 x 60 pixels; the heatmap of class c is 1 in cell c of 2 x 2, 0 elsewhere.

    Its box of class 0 is the left half.
    """
    pixels = np.full((40, 60, 3), 128, np.uint8)
    return report_photos.ShownPhoto(
        name=PHOTOS[row],
        uri=html_page.photo_uri(pixels, 384),
        size=(40, 60),
        grid=(2, 2),
        classes=(0, 1, 2, 3),
        maps=html_page.quantised(np.eye(4)),
        scores=tuple(SCORES[row].tolist()),
        labelled=tuple(np.flatnonzero(LABELS[row]).tolist()),
        boxes=((0.0, 0.0, 0.0, 1.0, 0.5),),
    )


def page(*folders: Path) -> str:
    """The report about the first of these runs, the others beside it."""
    groups = read_groups([str(folder) for folder in folders], [f.name for f in folders])
    runs = {group.name: group.runs[0] for group in groups}
    metrics = {name: run.folder.read_metrics() for name, run in runs.items()}
    missing = [report_photos.LabelPhoto(photo(2), 0, 0.875, 4, 1)]
    pictures = report_page.Pictures([photo(row) for row in range(3)], missing)
    return report_page.build(runs, metrics, pictures)
