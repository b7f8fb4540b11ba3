"""The report of an import: what import.json and import.txt say."""

from __future__ import annotations

import collections
import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spml_tf.datasets.imported_splits import ImportedSplit, Part
from spml_tf.datasets.label_formats import FORMATS
from spml_tf.datasets.label_formats.sources import REPORT, PhotoFolder
from spml_tf.datasets.readers import misread
from spml_tf.datasets.table_options import TableOptions
from spml_tf.labels import NEGATIVE, POSITIVE, UNKNOWN
from spml_tf.system.errors import printable, quoted

WRITTEN_BY = "python -m spml_tf.data import"
# The column of photos' weights.
WEIGHT = "weight"
# Classes, from which on it is odd that most are of one photo.
_MANY = 20
# Of classes in the text.
_SHOWN = 40


def record(
    name: str,
    recognised: bool,
    parts: Sequence[Part],
    class_names: Sequence[str],
    written: Sequence[str],
    splits: dict[str, ImportedSplit],
    photos: PhotoFolder,
    command: str,
) -> dict[str, Any]:
    """What import.json holds.

    Args:
        name: the format, a key of `FORMATS`.
        recognised: whether the format was recognised, not given.
        parts: what the label files hold.
        class_names: the classes that are kept.
        written: their names in the tables.
        splits: what is written, by split.
        photos: where photos were looked for.
        command: the flags that read the tables.
    """
    counts = collections.Counter(x for part in splits.values() for x in part.names)
    given = {name for *_, labels in parts for name in labels.images}
    renamed = [pair for *_, labels in parts for pair in labels.renamed]
    renamed += zip(class_names, written, strict=True)
    return {
        "written_by": WRITTEN_BY,
        "format": name,
        "recognised": recognised,
        "files": [str(file.path) for file, *_ in parts],
        "photos_dir": str(photos.root),
        "class_names": list(class_names),
        "splits": {split: _counts(part, class_names) for split, part in splits.items()},
        "images": sum(len(part.names) for part in splits.values()),
        "images_without_a_file": [
            x for part in splits.values() for x, there in zip(part.names, part.there, strict=True)
            if not there
        ],
        "rows_left_out": sum(part.left_out for part in splits.values()),
        "files_without_a_row": [x for x in photos.names if x not in counts],
        "images_in_several_splits": sorted(x for x, count in counts.items() if count > 1),
        "renamed_images": len(set(counts) - given),
        "renamed_classes": {old: new for old, new in renamed if old != new},
        "notes": [
            *photos.notes,
            *misread.look_alikes(class_names),
            *_rare(splits, class_names),
            *dict.fromkeys(note for *_, labels in parts for note in labels.notes),
        ],
        "command": command,
    }  # fmt: skip


def command(
    data_dir: Path, target: Path, splits: dict[str, ImportedSplit], options: TableOptions
) -> str:
    """The flags that read the tables.

    Args:
        data_dir: the folder of the photos.
        target: the folder of the tables.
        splits: what they hold, by split.
        options: how the label files were read.
    """
    inside = target.resolve().is_relative_to(data_dir.resolve())
    words = ["--dataset=folder", f"--data_dir={data_dir}"]
    for split in splits:
        table = target / f"{split}.csv"
        name = os.path.relpath(table, data_dir) if inside else str(table)
        words.append(f"--{split}_csv={name}")
    if not inside:
        words.append("--allow_outside")
    if any(part.weights is not None for part in splits.values()):
        words.append(f"--weight_column={WEIGHT}")
    words += [f"--{x}" for x in ("trust_table", "keep_copies") if getattr(options, x)]
    return shlex.join(words)


def text(record: dict[str, Any]) -> str:
    """The report that import.txt holds.

    Args:
        record: as `record` makes it.
    """
    return "\n".join(map(printable, _lines(record))) + "\n"


def _rare(splits: dict[str, ImportedSplit], class_names: Sequence[str]) -> tuple[str, ...]:
    """A note where so many classes are of one photo that names may be lists of names."""
    positives = sum((part.labels == POSITIVE).sum(axis=0) for part in splits.values())
    once = np.flatnonzero(positives == 1)
    if len(class_names) < _MANY or 2 * len(once) < len(class_names):
        return ()
    names = ", ".join(quoted(class_names[column]) for column in once[:2].tolist())
    return (
        f"{len(once)} of {len(class_names)} classes are of a single photo, such as {names}: if "
        "these are several classes each, give what separates them with --label_separator",
    )


def _counts(part: ImportedSplit, class_names: Sequence[str]) -> dict[str, Any]:
    found = {
        word: (part.labels == value).sum(axis=0).tolist()
        for word, value in (("positive", POSITIVE), ("negative", NEGATIVE), ("unknown", UNKNOWN))
    }
    return {
        "images": len(part.names),
        **{word: sum(counts) for word, counts in found.items()},
        "images_without_positives": int((part.labels != POSITIVE).all(axis=1).sum()),
        "classes": {
            name: {word: counts[column] for word, counts in found.items()}
            for column, name in enumerate(class_names)
        },
    }


def _lines(record: dict[str, Any]) -> Iterator[str]:
    how = "recognised" if record["recognised"] else "as told"
    yield f"format: {FORMATS[record['format']].title} (--from={record['format']}, {how})"
    files = record["files"]
    yield f"files: {', '.join(files[:3])}{f' and {len(files) - 3} more' if files[3:] else ''}"
    yield f"photos: in {record['photos_dir']}"
    yield ""
    yield f"{'':26}" + "".join(f"{split:>12}" for split in record["splits"])
    for key in ("images", "positive", "negative", "unknown", "images_without_positives"):
        counts = "".join(f"{part[key]:>12,}" for part in record["splits"].values())
        label = {"negative": "known negatives", "positive": "positives"}.get(key, key)
        yield f"{label.replace('_', ' '):26}{counts}"
    yield ""
    yield f"{len(record['class_names'])} classes, positives + known negatives of all splits"
    for name in record["class_names"][:_SHOWN]:
        own = [part["classes"][name] for part in record["splits"].values()]
        positive, negative = (sum(x[word] for x in own) for word in ("positive", "negative"))
        yield f"  {name}: {positive:,} + {negative:,}"
    if len(record["class_names"]) > _SHOWN:
        yield f"  and {len(record['class_names']) - _SHOWN} more in {REPORT}"
    yield ""
    for key in ("images_without_a_file", "files_without_a_row", "images_in_several_splits"):
        such = "".join(f", such as {quoted(one)}" for one in record[key][:1])
        yield f"{key.replace('_', ' ')}: {len(record[key]):,}{such}"
    if record["rows_left_out"]:
        yield f"rows left out, without a file: {record['rows_left_out']:,}"
    yield f"names of images changed: {record['renamed_images']:,}"
    changed = record["renamed_classes"]
    such = next((f", such as {quoted(x)} to {quoted(y)}" for x, y in changed.items()), "")
    yield f"names of classes changed: {len(changed):,}{such}"
    for note in record["notes"]:
        yield f"note: {note}"
    if not any(part["positive"] for part in record["splits"].values()):
        yield "note: no label is positive; are these the classes? See the flags about columns"
    unknown = sum(part["unknown"] for part in record["splits"].values())
    if unknown:
        yield (
            f"note: {unknown:,} labels are unknown; if all classes of every photo were looked for, "
            "give --unlisted=negative (lists) or --blank=negative (columns)"
        )
    yield ""
    yield f"read it with: {record['command']}"
