"""Photos in a folder per class: CLASS/*.jpg, or SPLIT/CLASS/*.jpg."""

from __future__ import annotations

from spml_tf.datasets.label_formats.found import Collector, LabelFile, Labels
from spml_tf.datasets.label_formats.sources import split_of_name
from spml_tf.datasets.readers.class_folders import class_folders, collect
from spml_tf.datasets.table_options import TableOptions


def recognises(file: LabelFile) -> bool:
    """Whether it is a folder with folders of photos in it."""
    if not file.path.is_dir():
        return False
    names = class_folders(str(file.path))
    return bool(names) and bool(collect(str(file.path), "", names, False)[0])


def read(file: LabelFile, options: TableOptions) -> Labels:
    """A photo is positive for the class whose folder it lies in; all else is unknown."""
    root = str(file.path)
    tops = class_folders(root)
    splits = {top: split_of_name(top) for top in tops}
    nested = {top for top in tops if splits[top] and class_folders(root, top)}
    collector = Collector(file.path, options)
    parts = [(top, class_folders(root, top)) for top in sorted(nested)] or [("", tops)]
    for top, names in parts:
        collector.add_classes(names)
        photos, notes = collect(root, top, names, False)
        collector.notes += notes
        for name, label in photos.items():
            row = collector.add_photo(root, name, splits.get(top, ""))
            collector.add(root, row, label)
    return collector.labels()
