"""Photos in a folder per class: CLASS/*.jpg, or SPLIT/CLASS/*.jpg."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from spml_tf.datasets.label_formats.collected_labels import Collector, LabelFile, Labels
from spml_tf.datasets.label_formats.sources import REPORT
from spml_tf.datasets.readers.class_folders import (
    GENERAL,
    check_no_general,
    class_folders,
    collect,
    split_of_name,
    strangers,
)
from spml_tf.datasets.table_options import TableOptions
from spml_tf.system.errors import UserError


def recognises(file: LabelFile) -> bool:
    """Whether it is a folder with several folders of photos in it that may be classes."""
    if not file.path.is_dir():
        return False
    root = str(file.path)
    names = {name for top in _tops(root) for name in _classes(root, top)}
    if len(names) < 2 or any(name.lower() in GENERAL for name in names):
        return False
    try:
        found = [
            collect(root, top, _classes(root, top), False, _imports(root, top))[0]
            for top in _tops(root)
        ]
    except UserError:  # such as a link, which --from=folders tells of
        return False
    return len({name for photos in found for name in photos.values()}) > 1


def read(file: LabelFile, options: TableOptions) -> Labels:
    """A photo is positive for the class whose folder it lies in; all else is unknown."""
    root = str(file.path)
    collector = Collector(file.path, options)
    tops = _tops(root)
    if tops != [""]:
        collector.notes += strangers(root, tops)
    for top in tops:
        names = _classes(root, top)
        check_no_general(root, top, names, "--source")
        collector.add_classes(names)
        photos, notes = collect(root, top, names, False, _imports(root, top))
        collector.notes += notes
        for name, label in photos.items():
            collector.add(root, collector.add_photo(root, name, split_of_name(top)), label)
    return collector.labels()


def _tops(root: str) -> list[str]:
    """The folders of splits, or "" where the folders of the classes lie in the root itself."""
    tops = _classes(root)
    return [top for top in tops if split_of_name(top) and _classes(root, top)] or [""]


def _classes(root: str, top: str = "") -> tuple[str, ...]:
    return class_folders(root, top, _imports(root, top))


def _imports(root: str, top: str) -> list[str]:
    """The folders that earlier imports have written."""
    return [
        str(PurePosixPath(top, path.parent.name)) for path in Path(root, top).glob(f"*/{REPORT}")
    ]
