"""What stands beside YOLO's label files: names of classes, and which photos are of which split."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from spml_tf.datasets.readers.photos import PHOTO
from spml_tf.system.errors import UserError, quoted, reason_of
from spml_tf.system.text_files import read_text

CLASSES = "classes.txt"
_YAML = (".yaml", ".yml")
_FIRST = ("data.yaml", "dataset.yaml")
# From a label file's folder up to the list of names: set/labels/train/camera/day, and one more.
_FOLDERS = 6
_SPLITS = {"train": "train", "val": "val", "valid": "val", "test": "test"}


def lists_above(folder: Path) -> tuple[Path, ...]:
    """The files that name classes in the nearest folder that has any, the one to read first."""
    places = [place for place in (folder, *folder.parents)[:_FOLDERS] if place.is_dir()]
    found = (_lists_in(place, place.stat().st_mtime_ns) for place in places)
    return next(filter(None, found), ())


@functools.lru_cache(maxsize=64)
def _lists_in(folder: Path, changed: int) -> tuple[Path, ...]:
    """See `lists_above`; looked for anew where the folder has changed."""
    yamls = sorted(path for ending in _YAML for path in folder.glob(f"*{ending}"))
    yamls.sort(key=lambda path: path.name not in _FIRST)
    others = [*folder.glob(CLASSES), *sorted(folder.glob("*.names"))]
    return (*filter(_is_list, yamls), *others)


def _is_list(path: Path) -> bool:
    """Whether a YAML file names classes and says more of a data set."""
    try:
        text = path.read_text("utf-8-sig", errors="replace")
    except OSError:
        return False
    return all(re.search(rf"^{x}\s*:", text, re.M) for x in ("names", "(train|val|test|path|nc)"))


def class_names(lists: Sequence[Path]) -> tuple[str, ...]:
    """The classes' names by their numbers.

    Args:
        lists: files that name them, of which the first is read.

    Raises:
        UserError: there is none, they are no names, their numbers do not run from 0, or the files
            name different ones.
    """
    first, *others = (_names(path, path.stat().st_mtime_ns) for path in lists)
    for path, names in zip(lists[1:], others, strict=True):
        if names != first:
            raise UserError(f"{path}: names other classes than {lists[0]}; remove one of the two")
    return first


@functools.lru_cache(maxsize=8)
def _names(path: Path, changed: int) -> tuple[str, ...]:
    found: Any
    if path.suffix in _YAML:
        found = _yaml(path, changed)["names"]
    else:
        found = [line.strip() for line in read_text(path).rstrip().splitlines()]
    if isinstance(found, dict):
        if set(found) != set(range(len(found))):
            raise UserError(
                f"{path}: the numbers of the {len(found)} names must run from 0 to "
                f"{len(found) - 1}; mend them"
            )
        found = [found[number] for number in range(len(found))]
    if not isinstance(found, list) or not found:
        raise UserError(f"{path}: expected a list of the classes' names; export it again")
    names = [_name(path, number, name) for number, name in enumerate(found)]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{path}: {quoted(twice)} names two classes; rename one of them")
    return tuple(names)


@functools.lru_cache(maxsize=8)
def _yaml(path: Path, changed: int) -> dict[str, Any]:
    try:
        found = yaml.safe_load(read_text(path))
    except UserError:
        raise
    except Exception as error:  # of which tags of YAML can raise any
        raise UserError(f"{path}: no YAML ({reason_of(error)}); export it again") from error
    if not isinstance(found, dict) or "names" not in found:
        raise UserError(f"{path}: no YAML with names; export it again")
    return found


def _name(path: Path, number: int, name: Any) -> str:
    """A class's name; without quotes YAML reads some as numbers or as true and false."""
    try:
        # Escapes as JSON has them, two for a character beyond 16 bits, are left apart by YAML.
        text: str = name.encode("utf-16", "surrogatepass").decode("utf-16").strip()
    except (AttributeError, UnicodeDecodeError):
        text = ""
    if not text:
        raise UserError(
            f"{path}: class {number} has no name that is text; write it in quotation marks"
        )
    return text


def split_of(path: Path, photo: Sequence[str]) -> str | None:
    """The split of a photo by the folders and lists that stand in or beside a list of names.

    Args:
        path: the list of names.
        photo: the parts of the photo's path, without an ending.

    Returns:
        "train", "val" or "test"; "" where none has the photo, None where there are none.
    """
    told, best, longest = False, "", 0
    for split, value in _references(path):
        told = True
        length = _shared(value, photo) if isinstance(value, Path) else _inside(value, photo)
        if length > longest:  # of equals the first: a set may validate on what it trains on
            best, longest = split, length
    return best if told else None


def _references(path: Path) -> Iterator[tuple[str, Path | tuple[str, ...]]]:
    """The splits, with the file that lists their photos or the parts of their folder's path."""
    if path.suffix in _YAML:
        content = _yaml(path, path.stat().st_mtime_ns)
        root = str(content.get("path") or "")
        for key in ("train", "val", "test"):
            values = content.get(key)
            for value in values if isinstance(values, list) else [values]:
                if isinstance(value, str):
                    yield from _reference(key, value, (path.parent / root, path.parent))
        return
    for data in _data_files(path.parent, path.parent.stat().st_mtime_ns):
        for split, value in _of_data_file(data, data.stat().st_mtime_ns):
            yield from _reference(split, value, (path.parent,))
    for name, split in _SPLITS.items():
        yield from _reference(split, f"{name}.txt", (path.parent,))


@functools.lru_cache(maxsize=64)
def _data_files(folder: Path, changed: int) -> tuple[Path, ...]:
    return tuple(sorted(folder.glob("*.data")))


@functools.lru_cache(maxsize=8)
def _of_data_file(path: Path, changed: int) -> tuple[tuple[str, str], ...]:
    """The splits that Darknet's obj.data names, each with its list of photos."""
    lines = [line.partition("=") for line in read_text(path).splitlines()]
    pairs = ((key.strip(), value.strip()) for key, _, value in lines)
    return tuple((_SPLITS[key], value) for key, value in pairs if key in _SPLITS and value)


def _reference(
    split: str, value: str, roots: Sequence[Path]
) -> Iterator[tuple[str, Path | tuple[str, ...]]]:
    parts = _parts(value)
    if not value.endswith(".txt"):
        if parts:
            yield split, parts
        return
    for root in roots:
        for place in (root / value, root / parts[-1]):
            if place.is_file() and _listed(place, place.stat().st_mtime_ns):
                yield split, place
                return


def _parts(value: str) -> tuple[str, ...]:
    return tuple(x for x in value.replace("\\", "/").split("/") if x not in ("", ".", ".."))


@functools.lru_cache(maxsize=16)
def _listed(path: Path, changed: int) -> dict[str, list[tuple[str, ...]]]:
    """The photos of a list by their last parts, endings apart; empty where it lists none."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for line in read_text(path).splitlines():
        parts = _parts(PHOTO.sub("", line.strip()))
        if PHOTO.search(line.strip()) and parts:
            found.setdefault(parts[-1], []).append(parts)
    return found


def _shared(path: Path, photo: Sequence[str]) -> int:
    """How many last parts of a photo's path a list has; 0 where it does not list the photo."""
    listed = _listed(path, path.stat().st_mtime_ns).get(photo[-1], [])
    backwards = tuple(reversed(photo))
    return max((len(os.path.commonprefix([one[::-1], backwards])) for one in listed), default=0)


def _inside(folder: tuple[str, ...], photo: Sequence[str]) -> int:
    """How many parts a folder has that the photo lies in, else 0."""
    inside = f"/{'/'.join(folder)}/" in f"/{'/'.join(photo[:-1])}/"
    return len(folder) if inside else 0
