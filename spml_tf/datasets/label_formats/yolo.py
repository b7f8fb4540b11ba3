"""YOLO's text files: one a photo, a line an object, and a list of the classes' names above them.

    0 0.48 0.63 0.69 0.71

The class's number comes first; a box, an outline or points follow, which are not read. Names are in
data.yaml (Ultralytics, Roboflow), classes.txt (LabelImg, Label Studio) or obj.names (Darknet).
"""

from __future__ import annotations

import dataclasses
import functools
import re
from pathlib import Path

from spml_tf.datasets.label_formats import yolo_lists
from spml_tf.datasets.label_formats.collected_labels import Collector, LabelFile, Labels
from spml_tf.datasets.readers.photos import PHOTO
from spml_tf.datasets.table_options import TableOptions
from spml_tf.system.errors import UserError, quoted
from spml_tf.system.text_files import read_words

# The number of a class, and at least a box.
_OBJECT = re.compile(r"\d+(\.0*)?( [-+]?[\d.]+([eE][-+]?\d+)?){4,}$")
_FOLDER = re.compile(r"labels|obj_\w+_data")


def recognises(file: LabelFile) -> bool:
    """Whether it lies in a folder of labels, or beside its photo, and below a list of names."""
    if file.suffix != ".txt" or file.path.name == yolo_lists.CLASSES:
        return False
    lists = yolo_lists.lists_above(file.folder)
    if not lists:
        return False
    folders = file.folder.relative_to(_base(lists[0])).parts
    return any(map(_FOLDER.fullmatch, folders)) or file.path.stem in _photos(
        file.folder, file.folder.stat().st_mtime_ns
    )


@functools.lru_cache(maxsize=16)
def _photos(folder: Path, changed: int) -> frozenset[str]:
    """The names of the photos in a folder, endings apart."""
    return frozenset(PHOTO.sub("", x.name) for x in folder.iterdir() if PHOTO.search(x.name))


def _base(names: Path) -> Path:
    """The folder that photos are named from: that of the list, but not a folder of labels."""
    inner = (place for place in (names.parent, names.parent.parent) if place.name == "labels")
    return next((place.parent for place in inner), names.parent)


def read(file: LabelFile, options: TableOptions) -> Labels:
    """Objects are positives; what has none is unknown, unless --unlisted=negative.

    Raises:
        UserError: a line is no object, no class has its number, or there is no list of names.
    """
    lists = yolo_lists.lists_above(file.folder)
    if not lists:
        raise UserError(
            f"{file.path}: no list of the classes' names is above this file; put YOLO's data.yaml, "
            "or classes.txt with a name a line, beside the folder of the labels"
        )
    names, base = yolo_lists.class_names(lists), _base(lists[0])
    collector = Collector(file.path, options)
    collector.notes.append(f"names of classes: {lists[0]}")
    collector.add_classes(names)
    # Photos lie in a folder called images where the labels' is called labels, or beside them.
    folders = file.folder.relative_to(base).parts
    parts = ["images" if folder == "labels" else folder for folder in folders]
    photo_parts = [*parts, file.path.stem]
    split = yolo_lists.split_of(lists[0], photo_parts)
    if split == "":
        collector.notes.append(
            f"{lists[0]}: its lists or folders of splits lack some photos, which are training "
            "photos unless their folder tells"
        )
    photo = collector.add_photo(str(file.path), "/".join(photo_parts), split or "")
    for place, words in read_words(file.path):
        line = " ".join(words)
        if not _OBJECT.match(line):
            raise UserError(
                f"{place}: expected a class's number and a box, found {quoted(line)}; mend or "
                "remove the line"
            )
        number = int(words[0].partition(".")[0])
        if number >= len(names):
            raise UserError(
                f"{place}: class {number} is not among the {len(names)} of {lists[0]}, which "
                "counts from 0; mend one of them"
            )
        collector.add(place, photo, names[number])
    return dataclasses.replace(collector.labels(), folder=base)
