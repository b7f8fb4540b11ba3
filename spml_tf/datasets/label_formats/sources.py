"""What lies in a source of labels: files that may hold labels, photos, and names of splits."""

from __future__ import annotations

import collections
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from spml_tf.datasets.label_formats.collected_labels import LabelFile
from spml_tf.datasets.readers.class_folders import split_of_name
from spml_tf.datasets.readers.photos import PHOTO
from spml_tf.system.errors import UserError, quoted
from spml_tf.system.files import walk_folders

_LABELS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".xml", ".txt")
_SHEETS = (".xlsx", ".xls", ".ods", ".parquet", ".feather")
# What stands beside tables that an import has written.
REPORT = "import.json"
_URL = re.compile(r"^[a-z][a-z0-9+.-]*://", re.I)
# What Label Studio puts before the name of a photo that was uploaded.
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")


def split_of_path(path: Path, root: Path, named: bool = True) -> str:
    """The split that a label file's name tells of, or else the innermost folder's below a root.

    Args:
        path: the file.
        root: a folder above it, or itself.
        named: whether its name tells; that of a photo's own file, train_12.xml, may mean the train.
    """
    if path == root:
        return split_of_name(path.stem)
    parts = [path.stem] * named + [*reversed(path.relative_to(root).parts[:-1])]
    return next(filter(None, map(split_of_name, parts)), "")


def walk(root: Path, left_out: Path) -> Iterator[str]:
    """The files below a folder, relative to it with slashes.

    Hidden ones, one folder, and what earlier imports wrote into folders of their own are left out.

    Raises:
        UserError: a folder cannot be listed.
    """
    for folder, names, files in walk_folders(root):
        names[:] = sorted(
            name
            for name in names
            if name[0] != "."
            and Path(folder, name) != left_out
            and not Path(folder, name, REPORT).is_file()
        )
        inner = os.path.relpath(folder, root).replace(os.sep, "/")
        for name in sorted(files):
            if name[0] != ".":
                yield name if inner == "." else f"{inner}/{name}"


def label_files(source: Path, left_out: Path) -> list[LabelFile]:
    """The files of a source that may hold labels, earlier imports apart, and the folder itself.

    Args:
        source: a file or a folder.
        left_out: a folder that is not looked into.

    Raises:
        UserError: there is no such file or folder.
    """
    if source.is_file():
        return [LabelFile(source)]
    if not source.is_dir():
        raise UserError(f"--source={source}: there is no such file or folder")
    files = [source / x for x in walk(source, left_out) if x.lower().endswith(_LABELS)]
    ours = {path.parent for path in files if path.name == REPORT}
    return [*(LabelFile(path) for path in files if path.parent not in ours), LabelFile(source)]


def other_files(source: Path) -> str:
    """What to do about files that hold labels and are not read, or nothing."""
    names = [source.name] if source.is_file() else list(walk(source, source))
    sheet = next((x for x in names if x.lower().endswith(_SHEETS)), None)
    if sheet is not None:
        return f"; of {quoted(sheet)} save a CSV file"
    texts = [x for x in names if x.endswith(".txt") and "labels" in x.split("/")[:-1]]
    if texts:
        return f"; {quoted(texts[0])} seems to be YOLO's: put its data.yaml or classes.txt beside"
    return ""


class PhotoFolder:
    """The photos of a folder, found by the names that labels give them.

    Args:
        root: the folder.
        left_out: a folder in it that is not looked into.
        uploaded: whether Label Studio named them.

    Attributes:
        names: their paths relative to the root, symbolic links apart.
        notes: about links that are left out.
    """

    def __init__(self, root: Path, left_out: Path, uploaded: bool = False) -> None:
        self.root, self._uploaded = root, uploaded
        found = [x for x in walk(root, left_out) if PHOTO.search(x)] if root.is_dir() else []
        self.names = [name for name in found if not os.path.islink(root / name)]
        links = len(found) - len(self.names)
        self.notes = (f"{root}: {links} photos are symbolic links: left out",) if links else ()
        self._stems: dict[str, list[str]] = collections.defaultdict(list)
        for name in self.names:
            self._stems[PHOTO.sub("", name)].append(name)
        self._there = {PHOTO.sub("", name): name for name in self.names}
        self._there.update({name: name for name in self.names})
        # By how many parts: photos by the last parts of their paths, with and without the ending.
        self._by_tail: dict[int, dict[str, list[str]]] = {}

    def find(
        self, names: Sequence[str], folder: Path, ending: str = "", split: str = ""
    ) -> list[tuple[str, bool]]:
        """Where the photos of label files of one folder are.

        All are looked for in the same way, the first in which any is found: a name whose photo is
        missing must not find that of another. The ways are: as named, and with one leading part
        less after the other; below the files' folder, elsewhere in it, elsewhere. A name in a
        folder of a split does not find a photo in a folder of another.

        Args:
            names: as the files have them: paths or URLs, with or without an ending.
            folder: of the label files.
            ending: of photos that are not found and have none.
            split: of which they are; folders of other splits are not looked into. "" for any.

        Returns:
            For each name the photo's path relative to the root, and whether it is there.

        Raises:
            UserError: several photos may be meant.
        """
        parts = [self._below_root(self._parts(name), folder) for name in names]
        base = self._inside(folder)
        own = [_split_of_photo("/".join(one)) for one in parts]
        found: list[str | None] = [None] * len(names)
        for dropped in range(max(map(len, parts), default=0) if self.names else 0):
            tails = [one[dropped:] for one in parts]
            for way, of_files in ((self._near, ""), (self._below, ""), (self._anywhere, split)):
                found = [
                    way(tail, base, mine or of_files) if tail else None
                    for tail, mine in zip(tails, own, strict=True)
                ]
                if any(found):
                    break
            if any(found):
                break
        return [
            (self._missing(name, one, base, ending), False) if path is None else (path, True)
            for name, one, path in zip(names, parts, found, strict=True)
        ]

    def _inside(self, folder: Path) -> str:
        """A folder's path relative to the root, "" where it lies outside."""
        try:
            inner = folder.resolve().relative_to(self.root.resolve()).as_posix()
        except ValueError:
            return ""
        return "" if inner == "." else inner

    def _below_root(self, parts: tuple[str, ...], folder: Path) -> tuple[str, ...]:
        """A path relative to a folder above the root as one relative to the root."""
        if folder == self.root or not self.root.is_relative_to(folder):
            return parts
        above = self.root.relative_to(folder).parts
        return parts[len(above) :] if parts[: len(above)] == above else parts

    @staticmethod
    def _parts(name: str) -> tuple[str, ...]:
        if _URL.match(name):
            name = unquote(_URL.sub("", name).partition("?")[0])
        return tuple(x for x in name.replace("\\", "/").split("/") if x not in ("", "."))

    def _near(self, tail: Sequence[str], base: str, split: str) -> str | None:
        for one in _as_uploaded(tail, self._uploaded):
            path = f"{base}/{one}".lstrip("/")
            found = self._there.get(path)
            if found and found != path and len(self._stems[path]) > 1:
                names = " and ".join(map(quoted, self._stems[path][:2]))
                raise UserError(
                    f"{self.root}: {quoted(path)} may be {names}; name the photo with its ending, "
                    "or rename one of them"
                )
            if found and _may_be_of(found, split):
                return found
        return None

    def _below(self, tail: Sequence[str], base: str, split: str) -> str | None:
        inside = f"{base}/"
        return self._only(
            tail, lambda name: bool(base) and name.startswith(inside) and _may_be_of(name, split)
        )

    def _anywhere(self, tail: Sequence[str], _: str, split: str) -> str | None:
        return self._only(tail, lambda name: _may_be_of(name, split))

    def _only(self, tail: Sequence[str], fits: Callable[[str], bool]) -> str | None:
        """The photo whose path ends with some parts, and fits."""
        for one in _as_uploaded(tail, self._uploaded):
            found = list(filter(fits, self._ending_with(one)))
            if len(found) > 1:
                raise UserError(
                    f"{self.root}: {len(found)} photos are called {quoted(one)}, such as "
                    f"{quoted(found[0])} and {quoted(found[1])}; name the folder of those that are "
                    "labelled with --photos_dir"
                )
            if found:
                return found[0]
        return None

    def _ending_with(self, tail: str) -> list[str]:
        """The photos whose paths end with some parts, the ending aside."""
        count = tail.count("/") + 1
        if count not in self._by_tail:
            found = self._by_tail.setdefault(count, {})
            for name in self.names:
                end = "/".join(name.split("/")[-count:])
                for one in dict.fromkeys((end, PHOTO.sub("", end))):
                    found.setdefault(one, []).append(name)
        return self._by_tail[count].get(tail, [])

    @staticmethod
    def _missing(name: str, parts: Sequence[str], base: str, ending: str) -> str:
        """What a photo that is not there is called."""
        if _URL.match(name):
            parts = parts[-1:]
        if not parts:
            return name
        if ".." in parts:
            raise UserError(
                f"{quoted(name)}: leads out of the photos' folder, and no photo in it has that "
                "name; give --photos_dir, or mend the name"
            )
        last = parts[-1] if PHOTO.search(parts[-1]) else parts[-1] + ending
        return "/".join((*([base] if base else []), *parts[:-1], last))


def _as_uploaded(tail: Sequence[str], uploaded: bool) -> tuple[str, ...]:
    """A path, and without what Label Studio puts before the name of an uploaded photo."""
    path = "/".join(tail)
    plain = "/".join((*tail[:-1], _UPLOADED.sub("", tail[-1])))
    return (path,) if plain == path or not uploaded else (path, plain)


def _may_be_of(name: str, split: str) -> bool:
    """Whether no folder of a photo tells of another split; "" is any."""
    return not split or _split_of_photo(name) in ("", split)


def _split_of_photo(name: str) -> str:
    """The split that the folders of a photo tell of."""
    folders = reversed(PurePosixPath(name).parts[:-1])
    return next(filter(None, map(split_of_name, folders)), "")
