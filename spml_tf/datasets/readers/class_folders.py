"""Photos sorted into one folder per class: CLASS/*.jpg, or SPLIT/CLASS/*.jpg."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence

from spml_tf.datasets.readers.photos import SUFFIXES, find_photos
from spml_tf.system.errors import UserError, quoted, spoiled
from spml_tf.system.nearest import guess

_SPLIT_WORDS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "dev": "val", "test": "test", "testing": "test",
}  # fmt: skip
# Folders that hold the photos of all classes, or what belongs to these.
GENERAL = ("images", "image", "img", "imgs", "data", "photos", "pictures", "jpegimages", "labels")

# Files that desktops leave in folders, besides those whose names begin with a dot.
_LITTER = ("thumbs.db", "desktop.ini")

Child = tuple[os.DirEntry[str], str]


def split_of_name(name: str) -> str:
    """The split that a name tells of, "" for none.

    Examples:
        >>> [split_of_name(x) for x in ("train", "Valid", "instances_val2017", "trainer", "dog")]
        ['train', 'val', 'val', '', '']
    """
    words = re.split(r"[^a-z]+", name.lower())
    found = {_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS}
    return found.pop() if len(found) == 1 else ""


def class_folders(root: str, top: str = "", besides: Collection[str] = ()) -> tuple[str, ...]:
    """Names of the classes: those of the folders in a folder, hidden ones apart.

    Args:
        root: the data set's folder.
        top: the folder in it, "" for root itself.
        besides: folders that hold no class, relative to root.

    Returns:
        The names, sorted.

    Raises:
        UserError: the folder cannot be listed, or a name is not UTF-8 or holds a line break.
    """
    children = (entry for entry, name in _children(root, top) if name not in besides)
    return tuple(sorted(x.name for x in children if _is_folder(x) and not _hidden(x.name)))


def check_no_general(root: str, top: str, class_names: Sequence[str], flag: str) -> None:
    """Refuses a folder that holds other folders and whose name is that of no class.

    Args:
        root: the data set's folder.
        top: the folder in it which holds the classes' folders, "" for root itself.
        class_names: names of these.
        flag: what names root, such as "--data_dir".

    Raises:
        UserError: there is one.
    """
    for name in class_names:
        inside = os.path.join(top, name)
        if name.lower() in GENERAL and class_folders(root, inside):
            path, place = os.path.join(root, inside), os.path.join(root, top)
            remedy = f"move its folders to {place}" if top else f"give {flag}={path}"
            raise UserError(
                f"{root}: {quoted(inside)} seems to hold the photos of all classes and to be none; "
                f"{remedy}, or rename it"
            )


def collect(
    root: str,
    top: str,
    class_names: Sequence[str],
    allow_outside: bool,
    besides: Collection[str] = (),
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Looks through the folders of the classes, at any depth.

    Args:
        root: the data set's folder.
        top: the folder in it which holds the classes' folders, "" for root itself.
        class_names: the classes there may be.
        allow_outside: follow symbolic links to folders.
        besides: folders that hold no photos, relative to root.

    Returns:
        The class of every photo by its name, the path relative to root with slashes, sorted; and
        notes about what else is there.

    Raises:
        UserError: a folder of another class, a symbolic link to a folder that is not allowed or
            leads to a folder above it, a folder that cannot be listed, or a malformed name.
    """
    walk = _Walk(root, allow_outside, besides)
    walk.enter(top, class_names)
    return dict(sorted(walk.photos.items())), walk.notes()


def strangers(root: str, expected: Sequence[str]) -> tuple[str, ...]:
    """A note about what lies in a folder beside what is expected, or none."""
    names = [name for entry, name in _children(root, "") if not _hidden(entry.name)]
    text = f"beside {', '.join(expected)}: left out"
    return _note([name for name in names if name not in expected], text)


class _Walk:
    """Photos with their classes, and what else lies in the folders of a split."""

    def __init__(self, root: str, allow_outside: bool, besides: Collection[str]) -> None:
        self._root, self._besides = root, besides
        self._allow_outside = allow_outside
        self.photos: dict[str, str] = {}
        self._classless: list[str] = []
        self._others: list[str] = []
        self._hidden: list[str] = []
        self._empty: list[str] = []

    def enter(self, top: str, class_names: Sequence[str]) -> None:
        known = set(class_names)
        for entry, name in self._visible(top):
            if not _is_folder(entry):
                (self._classless if _is_photo(entry.name) else self._others).append(name)
                continue
            if entry.name not in known:
                raise UserError(
                    f"{quoted(entry.path)}: unknown class {quoted(entry.name)}; the folders of the "
                    f"training classes are {', '.join(map(quoted, class_names))}"
                    f"{guess(entry.name, class_names)}; mend the name, or have such a folder of "
                    "training photos too"
                )
            before = len(self.photos)
            self._collect(entry, name)
            if len(self.photos) == before:
                self._empty.append(name)

    def _collect(self, start: os.DirEntry[str], top: str) -> None:
        """The photos of a class; links are followed where allowed, but not in circles."""
        outermost: tuple[str, ...] = (os.path.realpath(self._root),)
        pending = [(start, top, outermost)]
        while pending:
            folder, name, above = pending.pop()
            if folder.is_symlink() and not self._allow_outside:
                find_photos(self._root, [name])  # raises: it is a link
            real = os.path.realpath(folder.path)
            if real in above:
                raise UserError(f"{quoted(folder.path)}: a link to a folder above it; remove it")
            for entry, child in self._visible(name):
                if _is_folder(entry):
                    pending.append((entry, child, (*above, real)))
                elif _is_photo(entry.name):
                    self.photos[child] = start.name
                else:
                    self._others.append(child)

    def _visible(self, folder: str) -> Iterator[Child]:
        for entry, name in _children(self._root, folder):
            if name in self._besides:
                continue
            if not _hidden(entry.name):
                yield entry, name
            elif _is_folder(entry):
                self._hidden.append(name)

    def notes(self) -> tuple[str, ...]:
        return (
            *_note(self._empty, "no photo in the folder: the class is kept"),
            *_note(self._classless, "in no folder of a class: left out"),
            *_note(self._others, f"not {' '.join(SUFFIXES)}: left out"),
            *_note(self._hidden, "hidden folder: left out"),
        )


def _children(root: str, folder: str) -> Iterator[Child]:
    """What a folder below root holds, with the names relative to root."""
    path = os.path.join(root, folder)
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                yield entry, _checked(path, f"{folder}/{entry.name}" if folder else entry.name)
    except OSError as error:
        raise UserError(f"{quoted(path)}: cannot be listed ({error.strerror})") from error


def _checked(path: str, name: str) -> str:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        reason = "is not UTF-8"
    else:
        own = os.path.basename(name)
        reason = spoiled(name) or ("begins or ends with a blank" if own != own.strip() else "")
    if reason:
        raise UserError(f"{quoted(path)}: the name {os.fsencode(name)!r} {reason}; rename it")
    return name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LITTER


def _is_photo(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _note(names: Sequence[str], text: str) -> tuple[str, ...]:
    if not names:
        return ()
    more = f" and {len(names) - 1} more" if names[1:] else ""
    return (f"{quoted(min(names))}{more}: {text}",)
