"""Turns label files of other tools into this package's tables: train.csv, val.csv and test.csv."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from spml_tf.datasets import import_report, imported_splits
from spml_tf.datasets.imported_splits import ImportedSplit, Part
from spml_tf.datasets.label_formats import COMMON_OPTIONS, FORMATS, recognise
from spml_tf.datasets.label_formats.collected_labels import LabelFile
from spml_tf.datasets.label_formats.sources import (
    REPORT,
    PhotoFolder,
    label_files,
    split_of_path,
)
from spml_tf.datasets.readers import misread
from spml_tf.datasets.readers.split_names import SPLITS
from spml_tf.datasets.readers.table_columns import not_classes
from spml_tf.datasets.table_options import TableOptions
from spml_tf.labels import NEGATIVE, POSITIVE, UNKNOWN
from spml_tf.system.errors import UserError, quoted
from spml_tf.system.files import (
    check_only_recorded,
    naming_unwritable,
    replaced_unless_edited,
    write_csv,
    write_json,
    write_text,
)
from spml_tf.system.folders import check_output_folder, put_back, replaced_folder
from spml_tf.system.json_text import read_json_or_none
from spml_tf.system.nearest import guess

_TEXT = "import.txt"
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
    splits = imported_splits.of_files(name, parts, class_names, photos, wanted.drop_missing)
    weighted = any(part.weights is not None for part in splits.values())
    written = _written_names(class_names, weighted)
    command = import_report.command(target if wanted.copy_photos else root, target, splits, options)
    record = import_report.record(
        name, wanted.format == "auto", parts, class_names, written, splits, photos, command
    )
    text = import_report.text(record)
    with naming_unwritable(place), replaced_folder(target) as folder:
        for split, part in splits.items():
            _write(folder / f"{split}.csv", part, written)
        if wanted.copy_photos:
            _copy(photos.root, folder, splits)
        write_json(folder / REPORT, record)
        write_text(folder / _TEXT, text)
    return text


def _check_target(target: Path, source: Path, place: str, overwrite: bool) -> None:
    put_back(target)
    kept = "" if overwrite else "holds an earlier import; choose another folder or give --overwrite"
    if target.resolve() in (source.resolve(), *source.resolve().parents):
        kept = "holds the labels that are read; choose another"
    record = read_json_or_none(target / REPORT)
    ours = isinstance(record, dict) and record.get("written_by") == import_report.WRITTEN_BY
    refusal = "not empty, and no earlier import; choose another folder"
    check_output_folder(target, place, ours, refusal, kept, [f"{x}.csv" for x in SPLITS])
    check_only_recorded(target, place)


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


def _class_names(wanted: Import, parts: Sequence[Part], options: TableOptions) -> tuple[str, ...]:
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


def _written_names(class_names: Sequence[str], weighted: bool) -> tuple[str, ...]:
    """The classes' names in the tables, where some would be read as those of other columns."""
    names = list(class_names)
    while taken := not_classes(names, ["image", import_report.WEIGHT] if weighted else ["image"]):
        for column, name in enumerate(names):
            while name in taken or name in names[:column]:
                name = f"class {name}"
            names[column] = name
    return tuple(names)


def _write(path: Path, part: ImportedSplit, class_names: Sequence[str]) -> None:
    header = ["image", *class_names, *([import_report.WEIGHT] if part.weights is not None else [])]

    def rows() -> Iterator[list[str]]:
        for row, name in enumerate(part.names):
            weight = [] if part.weights is None else [f"{part.weights[row]:.9g}"]
            yield [name, *(_CELLS[x] for x in part.labels[row].tolist()), *weight]

    write_csv(path, header, rows(), into=replaced_unless_edited)


def _copy(root: Path, folder: Path, splits: dict[str, ImportedSplit]) -> None:
    """Copies the photos that are there, under the names that the tables have."""
    for part in splits.values():
        for name, there in zip(part.names, part.there, strict=True):
            if there:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(_content(root / name))


def _content(photo: Path) -> bytes:
    try:
        return photo.read_bytes()
    except OSError as error:
        raise UserError(
            f"{photo}: cannot be read ({error.strerror}); mend or remove it, or leave "
            "--copy_photos out"
        ) from error
