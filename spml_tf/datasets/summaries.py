"""Counts what is in a data set and in the labels a run would be trained on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spml_tf.datasets import splits, summary_text
from spml_tf.datasets.readers.examples import Examples
from spml_tf.datasets.settings import DataSettings
from spml_tf.labels import NEGATIVE, POSITIVE, digest
from spml_tf.system.files import (
    check_unedited,
    made_folder,
    naming_unwritable,
    replaced,
    replaced_unless_edited,
    write_csv,
    write_json,
)
from spml_tf.system.tensorflow_import import import_tensorflow

if TYPE_CHECKING:
    from spml_tf.drawing.contact_sheet import Tile

# Rows of a label matrix counted at once: float32 copies of a large one would not fit.
_ROWS = 65536
# Photos on the contact sheet, and the longer side they are kept with, in pixels.
_TILES, _TILE_SIDE = 36, 320


def write_summary(settings: DataSettings, folder: Path) -> str:
    """Reads the data and writes summary.json, classes.csv, cooccurrence.csv, contact_sheet.png.

    Args:
        settings: resolved settings.
        folder: where to write; files of these names are replaced, unless somebody edited them.

    Returns:
        The summary as text, at most 100 columns wide.

    Raises:
        UserError: for data that are missing or malformed, or a folder that cannot be written.
    """
    from spml_tf.drawing import contact_sheet

    data = splits.load_splits(settings)
    summary = summarize(settings, data)
    together = cooccurrence(data.train.labels)
    names = data.train.class_names
    with naming_unwritable(f"--output_dir={folder}"), made_folder(folder):
        check_unedited(folder / name for name in ("cooccurrence.csv", "classes.csv"))
        write_json(folder / "summary.json", summary)
        write_csv(
            folder / "cooccurrence.csv", names, together.tolist(), into=replaced_unless_edited
        )
        header, *rows = _class_table(summary)
        write_csv(folder / "classes.csv", header, rows, into=replaced_unless_edited)
        with replaced(folder / "contact_sheet.png") as path:
            contact_sheet.draw(path, _tiles(data.train), names)
    return summary_text.render(summary)


def summarize(settings: DataSettings, data: splits.Splits) -> dict[str, Any]:
    """Counts as JSON's types.

    Args:
        settings: resolved settings.
        data: the splits read with them.

    Returns:
        {"dataset", "class_names", "splits": {"train": ..., "val": ..., "test": ...}, "observed":
        what training sees, "positives_per_image": K, "pairs", "notes", "fingerprint"}. A split, and
        "observed", is described by `describe`; a split has "fingerprint" too, and "boxes" where
        there are any. "pairs" are the classes most often together in training images.
    """
    described = {}
    for name, part in data.parts.items():
        described[name] = {**describe(part.labels), "fingerprint": part.fingerprint()}
        if part.boxes is not None:
            described[name]["boxes"] = _describe_boxes(part.boxes)
    return {
        "dataset": settings.dataset,
        "class_names": list(data.train.class_names),
        "splits": described,
        "observed": {
            "labels_from": os.path.basename(settings.train_labels),
            **describe(data.observed),
            "digest": digest(data.observed),
        },
        "positives_per_image": data.positives_per_image,
        "pairs": _pairs(cooccurrence(data.train.labels), data.train.class_names),
        "notes": list(data.notes),
        "fingerprint": data.fingerprint(),
    }


def describe(labels: NDArray[np.int8]) -> dict[str, Any]:
    """Counts of a label matrix.

    Args:
        labels: int8 [N, L] of {1, 0, -1}.

    Returns:
        {"images": N, "labels": {"known", "positive", "negative", "unknown"}, "positives_per_image":
        {"mean", "histogram": images with 0, 1, 2, ... positives}, "images_without_positives",
        "class_positives" and "class_negatives": L counts each}.
    """
    count, classes = labels.shape
    per_class = {value: _count(labels, value, axis=0) for value in (POSITIVE, NEGATIVE)}
    per_image = _count(labels, POSITIVE, axis=1)
    positive, negative = (int(per_class[value].sum()) for value in (POSITIVE, NEGATIVE))
    return {
        "images": count,
        "labels": {
            "known": positive + negative,
            "positive": positive,
            "negative": negative,
            "unknown": count * classes - positive - negative,
        },
        "positives_per_image": {
            "mean": positive / count if count else None,
            "histogram": np.bincount(per_image, minlength=1).tolist(),
        },
        "images_without_positives": int((per_image == 0).sum()),
        "class_positives": per_class[POSITIVE].tolist(),
        "class_negatives": per_class[NEGATIVE].tolist(),
    }


def cooccurrence(labels: NDArray[np.int8]) -> NDArray[np.int64]:
    """How many images show two classes.

    Args:
        labels: int8 [N, L] of {1, 0, -1}.

    Returns:
        int64 [L, L], symmetric; the diagonal counts each class's images.
    """
    total = np.zeros((labels.shape[1],) * 2, np.int64)
    for rows in _blocks(labels):
        shown = (rows == POSITIVE).astype(np.float32)
        total += np.rint(shown.T @ shown).astype(np.int64)  # exact: fewer than 2**24 rows
    return total


def _blocks(labels: NDArray[np.int8]) -> Iterator[NDArray[np.int8]]:
    for start in range(0, len(labels), _ROWS):
        yield labels[start : start + _ROWS]


def _count(labels: NDArray[np.int8], value: int, axis: int) -> NDArray[np.int64]:
    counts = [np.count_nonzero(rows == value, axis=axis) for rows in _blocks(labels)]
    if axis == 1:
        return np.concatenate([np.zeros(0, np.int64), *counts])
    total: NDArray[np.int64] = np.sum([np.zeros(labels.shape[1], np.int64), *counts], axis=0)
    return total


def _describe_boxes(boxes: Sequence[NDArray[np.float32]]) -> dict[str, Any]:
    counts = np.array([len(rows) for rows in boxes], np.int64)
    return {
        "total": int(counts.sum()),
        "mean_per_image": float(counts.mean()) if len(counts) else None,
        "images_without": int((counts == 0).sum()),
    }


def _pairs(together: NDArray[np.int64], names: Sequence[str]) -> list[dict[str, Any]]:
    """The pairs of classes most often together; ties in the classes' order."""
    rows, columns = np.triu_indices(len(together), 1)
    counts = together[rows, columns]
    best = np.argsort(-counts, kind="stable")[:100]
    alone = np.diag(together)
    return [
        {
            "classes": [names[a], names[b]],
            "images": int(together[a, b]),
            "share_of_first": float(together[a, b] / alone[a]),
            "share_of_second": float(together[a, b] / alone[b]),
        }
        for a, b in zip(rows[best], columns[best], strict=True)
        if together[a, b]
    ]


def _class_table(summary: dict[str, Any]) -> list[list[Any]]:
    """Header and a row per class, most frequent in training first."""
    columns = summary_text.columns(summary)
    kinds = ("positives", "negatives", "share")
    rows: list[list[Any]] = [["class", *(f"{name}_{kind}" for name in columns for kind in kinds)]]
    for number in summary_text.by_frequency(summary):
        row = [summary["class_names"][number]]
        for part in columns.values():
            positives = part["class_positives"][number]
            share = positives / part["images"] if part["images"] else 0.0
            row += [positives, part["class_negatives"][number], f"{share:.6f}"]
        rows.append(row)
    return rows


def choose(labels: NDArray[np.int8], count: int) -> list[int]:
    """Chooses images that show as many classes as possible, the same ones every time.

    Args:
        labels: int8 [N, L] of {1, 0, -1}.
        count: how many images.

    Returns:
        min(count, N) positions. Round after round each class, the rarest first, adds an image that
        shows it; a class that the images of the round show already is passed over.
    """
    order = np.random.RandomState(0).permutation(len(labels))
    free = np.ones(len(labels), bool)
    rare = np.argsort(_count(labels, POSITIVE, axis=0), kind="stable")
    chosen: list[int] = []
    while len(chosen) < count:
        before, shown = len(chosen), np.zeros(labels.shape[1], bool)
        for column in rare:
            if shown[column] or len(chosen) == count:
                continue
            candidates = order[(labels[order, column] == POSITIVE) & free[order]]
            if len(candidates):
                row = int(candidates[0])
                chosen.append(row)
                free[row] = False
                shown |= labels[row] == POSITIVE
        if len(chosen) == before:
            return [*chosen, *order[free[order]][: count - len(chosen)].tolist()]
    return chosen


def _tiles(examples: Examples) -> list[Tile]:
    """What the contact sheet shows."""
    from spml_tf.drawing.contact_sheet import Tile, reduced

    import_tensorflow()
    from spml_tf.datasets import encoded_images, stored_pixels

    examples = stored_pixels.with_upright_boxes(examples.subset(choose(examples.labels, _TILES)))
    reader, tiles = encoded_images.ImageReader(examples), []
    for row in range(len(examples)):
        image, reason = None, ""
        try:
            image = reduced(reader.pixels(row), _TILE_SIDE)
        except encoded_images.BrokenImageError as error:
            reason = str(error)
        shown = np.flatnonzero(examples.labels[row] == POSITIVE)
        boxes = np.zeros((0, 5), np.float32) if examples.boxes is None else examples.boxes[row]
        labels = tuple(examples.class_names[column] for column in shown)
        tiles.append(Tile(examples.names[row], labels, image, reason, boxes))
    return tiles
