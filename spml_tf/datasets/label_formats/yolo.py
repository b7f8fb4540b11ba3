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
from typing import Any

import yaml

from spml_tf.datasets.label_formats.found import Collector, LabelFile, Labels
from spml_tf.datasets.readers.table_columns import quoted
from spml_tf.datasets.table_options import TableOptions
from spml_tf.system.errors import UserError
from spml_tf.system.text_files import read_text, read_words

# The number of a class, and at least a box.
_OBJECT = re.compile(r"\d+(\.0*)?([ \t]+[-+]?[\d.]+([eE][-+]?\d+)?){4,}[ \t]*$")
_LIST, _YAML = "classes.txt", (".yaml", ".yml")
# From a file's folder up to the list of names: set/labels/train/part.
_FOLDERS = 4


def recognises(file: LabelFile) -> bool:
    """Whether it holds objects by number, or nothing beside a list of names."""
    if file.suffix != ".txt" or file.path.name == _LIST:
        return False
    if not file.head.strip():
        return _list_of_names(file.folder) is not None
    return _OBJECT.match(file.head.lstrip().partition("\n")[0].rstrip()) is not None


def read(file: LabelFile, options: TableOptions) -> Labels:
    """Objects are positives; what has none is unknown, unless --unlisted=negative.

    Raises:
        UserError: a line is no object, no class has its number, or there is no list of names.
    """
    found = _list_of_names(file.folder)
    if found is None:
        raise UserError(
            f"{file.path}: no list of the classes' names is above this file; put YOLO's data.yaml, "
            "or classes.txt with a name a line, beside the folder of the labels"
        )
    names = _names(found, found.stat().st_mtime_ns)
    collector = Collector(file.path, options)
    collector.add_classes(names)
    # Photos lie in a folder called images where the labels' is called labels, or beside them.
    folders = file.folder.relative_to(found.parent).parts
    parts = ["images" if folder == "labels" else folder for folder in folders]
    photo = collector.add_photo(str(file.path), "/".join([*parts, file.path.stem]))
    for place, words in read_words(file.path):
        if not _OBJECT.match(" ".join(words)):
            raise UserError(
                f"{place}: expected a class's number and a box, found {quoted(' '.join(words))}; "
                "mend or remove the line"
            )
        number = int(words[0].partition(".")[0])
        if number >= len(names):
            raise UserError(
                f"{place}: class {number} is not among the {len(names)} of {found}, which counts "
                "from 0; mend one of them"
            )
        collector.add(place, photo, names[number])
    return dataclasses.replace(collector.labels(), folder=found.parent)


def _list_of_names(folder: Path) -> Path | None:
    """The nearest file that names the classes."""
    places = [place for place in (folder, *folder.parents)[:_FOLDERS] if place.is_dir()]
    return next(filter(None, (_list_in(x, x.stat().st_mtime_ns) for x in places)), None)


@functools.lru_cache(maxsize=64)
def _list_in(folder: Path, changed: int) -> Path | None:
    """The file in a folder that names the classes, YAML first; looked for anew where it changed."""
    for pattern in ("*.yaml", "*.yml", _LIST, "*.names"):
        for path in sorted(folder.glob(pattern)):
            if path.suffix not in _YAML or re.search(r"^names\s*:", LabelFile(path).head, re.M):
                return path
    return None


@functools.lru_cache(maxsize=8)
def _names(path: Path, changed: int) -> tuple[str, ...]:
    """The classes' names by their numbers.

    Raises:
        UserError: there is none, they are no names, or their numbers do not run from 0.
    """
    found: Any
    if path.suffix not in _YAML:
        found = [line.strip() for line in read_text(path).rstrip().splitlines()]
    else:
        try:
            found = yaml.safe_load(read_text(path))["names"]
        except (yaml.YAMLError, ValueError, TypeError, KeyError, RecursionError) as error:
            told = " ".join(str(error).split())
            raise UserError(f"{path}: no YAML with names ({told}); export it again") from error
    if isinstance(found, dict):
        if set(found) != set(range(len(found))):
            raise UserError(
                f"{path}: the numbers of the {len(found)} names must run from 0 to "
                f"{len(found) - 1}; mend them"
            )
        found = [found[number] for number in range(len(found))]
    if not isinstance(found, list) or not found:
        raise UserError(f"{path}: expected a list of the classes' names; export it again")
    found = [_name(path, number, name) for number, name in enumerate(found)]
    if len(set(found)) < len(found):
        twice = next(name for name in found if found.count(name) > 1)
        raise UserError(f"{path}: {quoted(twice)} names two classes; rename one of them")
    return tuple(found)


def _name(path: Path, number: int, name: Any) -> str:
    """A class's name; without quotes YAML reads some as numbers or as true and false."""
    try:
        # Escapes as JSON has them, two for a character beyond 16 bits, are left apart by YAML.
        text: str = name.encode("utf-16", "surrogatepass").decode("utf-16")
    except (AttributeError, UnicodeDecodeError):
        text = ""
    if not text.strip():
        raise UserError(
            f"{path}: class {number} has no name that is text; write it in quotation marks"
        )
    return text
