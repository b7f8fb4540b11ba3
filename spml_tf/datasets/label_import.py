"""Turns label files of other tools into this package's tables: train.csv, val.csv and test.csv."""

from __future__ import annotations

import collections
import dataclasses
import os
import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spml_tf.datasets.label_formats import COMMON_OPTIONS, FORMATS, recognise
from spml_tf.datasets.label_formats.found import LabelFile, Labels
from spml_tf.datasets.label_formats.sources import (
    REPORT,
    SPLITS,
    PhotoFolder,
    label_files,
    split_of_path,
)
from spml_tf.datasets.readers import copies, misread
from spml_tf.datasets.readers.table_columns import not_classes
from spml_tf.datasets.table_options import TableOptions
from spml_tf.labels import NEGATIVE, POSITIVE, UNKNOWN
from spml_tf.system.errors import UserError, printable, quoted
from spml_tf.system.files import (
    naming_unwritable,
    replaced_unless_edited,
    write_csv,
    write_json,
    write_text,
)
from spml_tf.system.folders import check_output_folder, put_back, replaced_folder
from spml_tf.system.json_text import parse_json
from spml_tf.system.nearest import guess

_WRITTEN_BY = "python -m spml_tf.data import"
_TEXT, _WEIGHT = "import.txt", "weight"
# Cells of a table beyond which it takes gigabytes.
_MOST_CELLS = 2_000_000_000
# Classes, from which on it is odd that most are of one photo.
_MANY = 20
# Of classes in the text.
_SHOWN = 40
_CELLS = {POSITIVE: "1", NEGATIVE: "0", UNKNOWN: ""}


@dataclasses.dataclass(frozen=True)
class Import:
    """What is imported.

    Attributes:
        source: the label file, or the folder that holds it.
        format: a key of `FORMATS`, or "auto".
        output_dir: the folder to write.
        photos_dir: folder of the photos; "" for the source, or the folder of a source that is a
            file.
        classes: names of the classes to keep, all where empty.
        copy_photos: whether photos are copied to the output.
        drop_missing: whether rows of photos that are not there are left out.
        overwrite: whether an earlier import is replaced.
    """

    source: str
    format: str
    output_dir: str
    photos_dir: str = ""
    classes: tuple[str, ...] = ()
    copy_photos: bool = False
    drop_missing: bool = False
    overwrite: bool = False


@dataclasses.dataclass(frozen=True)
class _Split:
    """The photos of a split.

    Attributes:
        names: relative to the photos' folder, unique.
        there: whether each is a file.
        labels: int8 [N, L].
        weights: float32 [N], or None.
        given: the names in the label files.
        left_out: how many more had no file, where those are left out.
    """

    names: tuple[str, ...]
    there: tuple[bool, ...]
    labels: NDArray[np.int8]
    weights: NDArray[np.float32] | None
    given: tuple[str, ...]
    left_out: int = 0


def import_labels(wanted: Import, options: TableOptions) -> str:
    """Reads label files and writes tables, all of them or nothing.

    Args:
        wanted: what and where.
        options: how tables are read.

    Returns:
        The report as text; the folder holds it as import.txt, and with numbers as import.json.

    Raises:
        UserError: nothing is recognised, a file is malformed, labels contradict each other, or the
            output holds something else.
    """
    source, target = Path(wanted.source).absolute(), Path(wanted.output_dir).absolute()
    place = f"--output_dir={wanted.output_dir}"
    _check_target(target, source, place, wanted.overwrite)
    root = Path(wanted.photos_dir).absolute() if wanted.photos_dir else source
    root = root.parent if root.is_file() else root
    if wanted.photos_dir and not root.is_dir():
        raise UserError(f"--photos_dir={wanted.photos_dir}: is not a folder")
    if root.resolve().is_relative_to(target.resolve()):
        raise UserError(f"{place}: holds the photos, which it would replace; choose another")
    name, files = recognise(label_files(source, target), wanted.format, f"--source={wanted.source}")
    _check_options(name, options)
    by_split = _by_split(name, files, source)
    photos = PhotoFolder(root, target, name in ("labelstudio", "yolo"))
    if not photos.names and wanted.drop_missing:
        raise UserError(
            f"--drop_missing: {root} holds no photo at all; give --photos_dir, or leave it out"
        )
    parts = [
        (file, split, FORMATS[name].read(file, options))
        for split, group in by_split.items()
        for file in group
    ]
    class_names = _class_names(wanted, parts, options)
    splits = _splits(name, parts, class_names, photos, wanted.drop_missing)
    record = _record(wanted, name, parts, class_names, splits, photos)
    with naming_unwritable(place), replaced_folder(target) as folder:
        weighted = any(part.weights is not None for part in splits.values())
        written = _written_names(class_names, weighted)
        for split, part in splits.items():
            _write(folder / f"{split}.csv", part, written)
        if wanted.copy_photos:
            _copy(photos.root, folder, splits)
        record["command"] = _command(wanted, root, target, splits, options)
        record["renamed_classes"] |= {
            old: new for old, new in zip(class_names, written, strict=True) if old != new
        }
        text = _text(record)
        write_json(folder / REPORT, record)
        write_text(folder / _TEXT, text)
    return text


def _check_target(target: Path, source: Path, place: str, overwrite: bool) -> None:
    put_back(target)
    kept = "" if overwrite else "holds an earlier import; choose another folder or give --overwrite"
    if target.resolve() in (source.resolve(), *source.resolve().parents):
        kept = "holds the labels that are read; choose another"
    try:
        record = parse_json((target / REPORT).read_text("utf-8"))
    except (OSError, ValueError):
        record = None
    ours = isinstance(record, dict) and record.get("written_by") == _WRITTEN_BY
    refusal = "not empty, and no earlier import; choose another folder"
    check_output_folder(target, place, ours, refusal, kept, [f"{x}.csv" for x in SPLITS])


def _check_options(name: str, options: TableOptions) -> None:
    """Refuses flags about columns where there are none."""
    for flag in options.given():
        if not FORMATS[name].columns and flag not in COMMON_OPTIONS:
            raise UserError(
                f"--{flag}: is about columns, which {FORMATS[name].title} has not; leave it out"
            )


def _by_split(name: str, files: Sequence[LabelFile], source: Path) -> dict[str, list[LabelFile]]:
    """The files by the splits that their names tell of, those without any as train."""
    found: dict[str, list[LabelFile]] = {}
    for file in files:
        named = not FORMATS[name].many
        whole = file.path == source and source.is_dir()
        split = "" if whole else split_of_path(file.path, source, named)
        found.setdefault(split or "train", []).append(file)
    for split, group in found.items():
        if len(group) > 1 and not FORMATS[name].many:
            names = ", ".join(quoted(str(x.path)) for x in group[:3])
            raise UserError(
                f"--source={source}: {len(group)} files for {split}, {names}; name the one to read "
                "with --source=FILE"
            )
    return {split: found[split] for split in SPLITS if split in found}


def _class_names(
    wanted: Import, parts: Sequence[tuple[LabelFile, str, Labels]], options: TableOptions
) -> tuple[str, ...]:
    """The classes of all files, those of training first."""
    found = tuple(dict.fromkeys(name for *_, labels in parts for name in labels.class_names))
    if not found:
        raise UserError(
            f"--source={wanted.source}: holds no label; label the photos, and export again"
        )
    for name in wanted.classes:
        if name not in found:
            raise UserError(
                f"--classes: unknown class {name!r}; the classes are {', '.join(found)}"
                f"{guess(name, found)}"
            )
        if wanted.classes.count(name) > 1:
            raise UserError(f"--classes: {name!r} comes twice; name it once")
    chosen = wanted.classes or found
    odd = misread.suspicion(dict.fromkeys(chosen, 1), False)
    if odd and not options.trust_table:
        raise UserError(f"--source={wanted.source}: looks misread: {odd}")
    return chosen


def _splits(
    name: str,
    parts: Sequence[tuple[LabelFile, str, Labels]],
    class_names: tuple[str, ...],
    photos: PhotoFolder,
    drop_missing: bool,
) -> dict[str, _Split]:
    total = sum(len(labels.images) for *_, labels in parts)
    if total * len(class_names) > _MOST_CELLS:
        raise UserError(
            f"{total:,} photos by {len(class_names):,} classes are too many for a table; keep some "
            "with --classes=NAME,NAME"
        )
    found: dict[str, list[_Split]] = {}
    groups: dict[tuple[Path, str], list[tuple[LabelFile, str, Labels]]] = {}
    for part in parts:
        folder = part[2].folder or part[0].folder
        groups.setdefault((folder, part[1]), []).append(part)
    for (folder, file_split), group in groups.items():
        names = [image for *_, labels in group for image in labels.images]
        only = file_split if len(groups) > 1 else ""
        located = iter(photos.find(names, folder, FORMATS[name].ending, only))
        for *_, labels in group:
            own = [next(located) for _ in labels.images]
            for split, one in _split_up(own, file_split, labels, class_names):
                found.setdefault(split, []).append(one)
    joined = {
        split: _joined(found[split], class_names, drop_missing)
        for split in SPLITS
        if split in found
    }
    for split, photos_of_split in joined.items():
        if not photos_of_split.names:
            raise UserError(
                f"--drop_missing: none of the {photos_of_split.left_out:,} photos of {split} is in "
                f"{photos.root}; give --photos_dir, or leave it out"
            )
    if len(joined) == 1:  # what is imported alone is trained on
        return {"train": next(iter(joined.values()))}
    return joined


def _split_up(
    found: Sequence[tuple[str, bool]], file_split: str, labels: Labels, class_names: Sequence[str]
) -> Iterator[tuple[str, _Split]]:
    """A file's photos by their splits, with all classes."""
    matrix = np.full((len(found), len(class_names)), UNKNOWN, np.int8)
    matrix[labels.complete] = NEGATIVE
    there = {name: column for column, name in enumerate(labels.class_names)}
    own = [column for column, name in enumerate(class_names) if name in there]
    matrix[:, own] = labels.labels[:, [there[class_names[column]] for column in own]]
    splits = np.array([split or file_split for split in labels.splits])
    for split in SPLITS:
        rows = np.flatnonzero(splits == split)
        if len(rows):
            names, files = zip(*(found[row] for row in rows.tolist()), strict=True)
            weights = None if labels.weights is None else labels.weights[rows]
            given = tuple(labels.images[row] for row in rows.tolist())
            yield split, _Split(names, files, matrix[rows], weights, given)


def _joined(parts: Sequence[_Split], class_names: Sequence[str], drop_missing: bool) -> _Split:
    """The parts of a split as one, a photo once."""
    names = [name for part in parts for name in part.names]
    there = np.array([x for part in parts for x in part.there], bool)
    labels = np.concatenate([part.labels for part in parts])
    weights = None
    if any(part.weights is not None for part in parts):
        weights = np.concatenate(
            [np.ones(len(x.names), np.float32) if x.weights is None else x.weights for x in parts]
        )
    kept = np.flatnonzero(there) if drop_missing else np.arange(len(names))
    names = [names[row] for row in kept.tolist()]
    given = [name for part in parts for name in part.given]
    given = [given[row] for row in kept.tolist()]
    firsts = copies.first_rows(names)
    for row, first in enumerate(firsts.tolist()):
        if PurePosixPath(given[row]) != PurePosixPath(given[first]):
            raise UserError(
                f"{names[row]}: two names lead to this photo, {quoted(given[first])} and "
                f"{quoted(given[row])}; mend or remove one of them"
            )
    own = np.flatnonzero(firsts == np.arange(len(firsts)))
    try:
        labels = copies.merged(labels[kept], firsts)
    except copies.ContradictionError as error:
        raise UserError(
            f"{names[error.first]}: is labelled twice, and {quoted(class_names[error.column])} is "
            "positive in one place and negative in the other; mend one of them"
        ) from None
    return _Split(
        tuple(names[row] for row in own.tolist()),
        tuple(there[kept][own].tolist()),
        labels,
        None if weights is None else weights[kept][own],
        tuple(given[row] for row in own.tolist()),
        len(there) - len(kept),
    )


def _written_names(class_names: Sequence[str], weighted: bool) -> tuple[str, ...]:
    """The classes' names in the tables, where some would be read as those of other columns."""
    names = list(class_names)
    while taken := not_classes(names, ["image", _WEIGHT] if weighted else ["image"]):
        for column, name in enumerate(names):
            while name in taken or name in names[:column]:
                name = f"class {name}"
            names[column] = name
    return tuple(names)


def _write(path: Path, part: _Split, class_names: Sequence[str]) -> None:
    header = ["image", *class_names, *([_WEIGHT] if part.weights is not None else [])]

    def rows() -> Iterator[list[str]]:
        for row, name in enumerate(part.names):
            weight = [] if part.weights is None else [f"{part.weights[row]:.9g}"]
            yield [name, *(_CELLS[x] for x in part.labels[row].tolist()), *weight]

    write_csv(path, header, rows(), into=replaced_unless_edited)


def _copy(root: Path, folder: Path, splits: dict[str, _Split]) -> None:
    """Copies the photos that are there, under the names that the tables have."""
    for part in splits.values():
        for name, there in zip(part.names, part.there, strict=True):
            if there:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(root / name, folder / name)


def _record(
    wanted: Import,
    name: str,
    parts: Sequence[tuple[LabelFile, str, Labels]],
    class_names: Sequence[str],
    splits: dict[str, _Split],
    photos: PhotoFolder,
) -> dict[str, Any]:
    """What import.json holds, but for the command and changes of names in the tables."""
    counts = collections.Counter(x for part in splits.values() for x in part.names)
    given = {name for *_, labels in parts for name in labels.images}
    renamed = {old: new for *_, x in parts for old, new in x.renamed if old != new}
    return {
        "written_by": _WRITTEN_BY,
        "format": name,
        "recognised": wanted.format == "auto",
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
        "renamed_classes": renamed,
        "notes": [
            *photos.notes,
            *misread.look_alikes(class_names),
            *_rare(splits, class_names),
            *dict.fromkeys(note for *_, labels in parts for note in labels.notes),
        ],
    }  # fmt: skip


def _rare(splits: dict[str, _Split], class_names: Sequence[str]) -> tuple[str, ...]:
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


def _counts(part: _Split, class_names: Sequence[str]) -> dict[str, Any]:
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


def _command(
    wanted: Import, root: Path, target: Path, splits: dict[str, _Split], options: TableOptions
) -> str:
    """The flags that read the tables."""
    data_dir = target if wanted.copy_photos else root
    inside = target.resolve().is_relative_to(data_dir.resolve())
    words = ["--dataset=folder", f"--data_dir={data_dir}"]
    for split in splits:
        table = target / f"{split}.csv"
        name = os.path.relpath(table, data_dir) if inside else str(table)
        words.append(f"--{split}_csv={name}")
    if not inside:
        words.append("--allow_outside")
    if any(part.weights is not None for part in splits.values()):
        words.append(f"--weight_column={_WEIGHT}")
    words += [f"--{x}" for x in ("trust_table", "keep_copies") if getattr(options, x)]
    return shlex.join(words)


def _text(record: dict[str, Any]) -> str:
    return "\n".join(map(printable, _lines(record))) + "\n"


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
