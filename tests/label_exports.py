"""Writes labels in the formats that other tools export, as their documentation shows them."""

from __future__ import annotations

import csv
import io
import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
from PIL import Image

# A photo's name, and by class 1 (there), 0 (not there) or -1 (unknown).
Row = tuple[str, dict[str, int]]


def write_photos(root: Path, names: Sequence[str]) -> None:
    """Small photos, all different."""
    for name in names:
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        pixels = rng.integers(0, 256, (5, 6, 3)).astype(np.uint8)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize((48, 40)).save(root / name, "JPEG")


def _csv(root: Path, name: str, rows: Sequence[Sequence[object]], separator: str = ",") -> None:
    stream = io.StringIO()
    csv.writer(stream, delimiter=separator, lineterminator="\n").writerows(rows)
    (root / name).write_text(stream.getvalue(), "utf-8")


def _names(row: dict[str, int], value: int = 1) -> list[str]:
    return [name for name, x in row.items() if x == value]


def roboflow(root: Path, rows: Sequence[Row], classes: Sequence[str]) -> None:
    cells = [["filename", *classes], *([n, *(row[c] for c in classes)] for n, row in rows)]
    (root / "train").mkdir(exist_ok=True)
    text = "\n".join(", ".join(_quoted(str(x)) for x in line) for line in cells)
    (root / "train" / "_classes.csv").write_text(text, "utf-8")


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if set(cell) & set(',"') else cell


def openimages(root: Path, rows: Sequence[Row], classes: Sequence[str]) -> None:
    ids = {name: f"/m/{number:03}" for number, name in enumerate(classes)}
    lines = [["ImageID", "Source", "LabelName", "Confidence"]]
    for photo, row in rows:
        for name, value in row.items():
            confidence = {1: "1", 0: "0", -1: "0.7"}[value]
            lines.append([photo.removesuffix(".jpg"), "verification", ids[name], confidence])
    _csv(root, "image-labels.csv", lines)
    _csv(root, "class-descriptions.csv", [[ids[name], name] for name in classes])


def cvat(root: Path, rows: Sequence[Row], classes: Sequence[str]) -> None:
    labels = "".join(f"<label><name>{_text(name)}</name></label>" for name in classes)
    images = ""
    for number, (photo, row) in enumerate(rows):
        absent = '<attribute name="present">false</attribute>'
        tags = "".join(
            f"<tag label={quoteattr(name)} source='manual'>{absent * (value == 0)}</tag>"
            for name, value in row.items()
            if value != -1
        )
        images += (
            f"<image id='{number}' name={quoteattr(photo)} width='48' height='40'>{tags}</image>"
        )
    (root / "annotations.xml").write_text(
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>'
        f"<meta><task><labels>{labels}</labels></task></meta>{images}</annotations>",
        "utf-8",
    )


def _text(name: str) -> str:
    return name.replace("&", "&amp;").replace("<", "&lt;")


def coco(root: Path, rows: Sequence[Row], classes: Sequence[str]) -> None:
    ids = {name: 3 * number + 1 for number, name in enumerate(classes)}
    content = {
        "images": [
            {"id": float(n), "file_name": photo,
             "neg_category_ids": [ids[x] for x in _names(row, 0)]}
            for n, (photo, row) in enumerate(rows)
        ],
        "categories": [{"id": str(ids[name]), "name": name} for name in classes],
        "annotations": [
            {"image_id": str(n), "category_id": ids[name], "bbox": []}
            for n, (_, row) in enumerate(rows)
            for name in _names(row)
        ],
    }  # fmt: skip
    (root / "_annotations.coco.json").write_text(json.dumps(content))


def voc(root: Path, rows: Sequence[Row], classes: Sequence[str]) -> None:
    """Only what is there has a place in these files."""
    for photo, row in rows:
        objects = "".join(f"<object><name>{_text(x)}</name></object>" for x in _names(row))
        path = root / f"{photo.removesuffix('.jpg')}.xml"
        path.write_text(f"<annotation><filename>{photo}</filename>{objects}</annotation>", "utf-8")


def yolo(root: Path, rows: Sequence[Row], classes: Sequence[str]) -> None:
    """As Ultralytics lays it out: a number and a box a line; a file a photo, empty ones too."""
    (root / "labels").mkdir()
    for photo, row in rows:
        lines = [f"{classes.index(name)} 0.5 0.5 0.25 1\n" for name in _names(row)]
        (root / "labels" / f"{photo.removesuffix('.jpg')}.txt").write_text("".join(lines))
    names = "".join(f"  {number}: {json.dumps(name)}\n" for number, name in enumerate(classes))
    (root / "data.yaml").write_text(f"path: ../set\ntrain: images\nnames:\n{names}", "utf-8")


def labelstudio(root: Path, rows: Sequence[Row], classes: Sequence[str]) -> None:
    lines: list[list[object]] = [["annotation_id", "annotator", "choice", "id", "image"]]
    for number, (photo, row) in enumerate(rows):
        names = _names(row)
        cell = names[0] if len(names) == 1 else json.dumps({"choices": names}) if names else ""
        lines.append([number, 1, cell, number, f"/data/upload/1/{photo}"])
    _csv(root, "project.csv", lines)


def labelstudio_min(root: Path, rows: Sequence[Row], classes: Sequence[str]) -> None:
    content = [
        {"id": n, "annotation_id": n, "annotator": 1, "photo": f"/data/upload/2/0a1b2c3d-{photo}",
         "choice": {"choices": _names(row)}}
        for n, (photo, row) in enumerate(rows)
    ]  # fmt: skip
    (root / "project.json").write_text(json.dumps(content))


def labelstudio_json(root: Path, rows: Sequence[Row], classes: Sequence[str]) -> None:
    content = [
        {"id": n, "data": {"image": f"/data/local-files/?d={photo}"},
         "annotations": [{"was_cancelled": False, "result": [
             {"type": "choices", "from_name": "c", "value": {"choices": _names(row)}}]}]}
        for n, (photo, row) in enumerate(rows)
    ]  # fmt: skip
    (root / "export.json").write_text(json.dumps(content))


def fiftyone(root: Path, rows: Sequence[Row], classes: Sequence[str]) -> None:
    labels: dict[str, list[int] | None] = {
        photo.removesuffix(".jpg"): [classes.index(x) for x in _names(row)] or None
        for photo, row in rows
    }
    (root / "labels.json").write_text(json.dumps({"classes": list(classes), "labels": labels}))


def azureml(root: Path, rows: Sequence[Row], classes: Sequence[str]) -> None:
    _lines(
        root / "labels.jsonl",
        [
            {"image_url": f"azureml://s/datastores/d/paths/photos/{photo}", "image_details": {},
             "label": _names(row)}
            for photo, row in rows
        ],
    )  # fmt: skip


def hf(root: Path, rows: Sequence[Row], classes: Sequence[str]) -> None:
    _lines(root / "metadata.jsonl", [{"file_name": p, "labels": _names(row)} for p, row in rows])


def _lines(path: Path, objects: Sequence[object]) -> None:
    path.write_text("".join(json.dumps(x, ensure_ascii=False) + "\n" for x in objects), "utf-8")


def chexpert(root: Path, rows: Sequence[Row], classes: Sequence[str]) -> None:
    cells = {1: "1.0", 0: "0.0", -1: "-1.0"}
    lines = [["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *classes]]
    for photo, row in rows:
        metadata = ["Male", "60", "Frontal", "AP"]
        lines.append([f"CheXpert-v1.0-small/{photo}", *metadata, *(cells[row[c]] for c in classes)])
    _csv(root, "train.csv", lines)


def nih(root: Path, rows: Sequence[Row], classes: Sequence[str]) -> None:
    """Every label is known."""
    header = "Image Index,Finding Labels,Follow-up #,OriginalImage[Width,Height],\n"
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    for photo, row in rows:
        writer.writerow([photo, "|".join(_names(row)) or "No Finding", 0, 2682, 2749, ""])
    (root / "Data_Entry_2017.csv").write_text(header + stream.getvalue(), "utf-8")


def columns(root: Path, rows: Sequence[Row], classes: Sequence[str]) -> None:
    """As pandas writes a frame of floats with gaps, with its index."""
    cells = {1: "1.0", 0: "0.0", -1: ""}
    lines = [["", "image", *classes]]
    lines += [[n, p, *(cells[row[c]] for c in classes)] for n, (p, row) in enumerate(rows)]
    _csv(root, "labels.csv", lines)


def booleans(root: Path, rows: Sequence[Row], classes: Sequence[str]) -> None:
    cells = {1: "True", 0: "False", -1: ""}
    lines = [["file_name", *classes], *([p, *(cells[row[c]] for c in classes)] for p, row in rows)]
    _csv(root, "labels.csv", lines, ";")


def lists(root: Path, rows: Sequence[Row], classes: Sequence[str]) -> None:
    lines = [["image", "labels", "negatives"]]
    lines += [[p, ";".join(_names(row)) + ";", "; ".join(_names(row, 0))] for p, row in rows]
    _csv(root, "labels.tsv", lines, "\t")


def json_lists(root: Path, rows: Sequence[Row], classes: Sequence[str]) -> None:
    _csv(root, "labels.csv", [["image", "labels"], *([p, json.dumps(_names(r))] for p, r in rows)])


def long(root: Path, rows: Sequence[Row], classes: Sequence[str]) -> None:
    lines = [["image", "label"]]
    for photo, row in rows:
        lines += [[photo, name] for name in _names(row)] or [[photo, ""]]
    _csv(root, "labels.csv", lines)


Writer = Callable[[Path, Sequence[Row], Sequence[str]], None]
# By what they can say: of all three states, of what is there only, of complete labels only.
THREE_STATES: dict[str, Writer] = {
    "openimages": openimages, "cvat": cvat, "coco": coco, "chexpert": chexpert,
    "columns": columns, "booleans": booleans, "lists": lists,
}  # fmt: skip
POSITIVES: dict[str, Writer] = {
    "voc": voc, "yolo": yolo, "labelstudio": labelstudio, "labelstudio_min": labelstudio_min,
    "labelstudio_json": labelstudio_json, "fiftyone": fiftyone, "azureml": azureml, "hf": hf,
    "json_lists": json_lists, "long": long,
}  # fmt: skip
COMPLETE: dict[str, Writer] = {"roboflow": roboflow, "nih": nih}
