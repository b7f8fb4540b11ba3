"""Photo files that a list or a table names, kept inside the data set's folder."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from spml_tf.system.errors import UserError

# By the endings of photos' names, of any case, what they are: kinds that training can decode.
KINDS = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".png": "PNG", ".gif": "GIF",
    ".bmp": "BMP", ".dib": "BMP", ".webp": "WebP", ".tif": "TIFF", ".tiff": "TIFF",
    ".avif": "AVIF", ".heic": "HEIC", ".heif": "HEIC",
}  # fmt: skip
SUFFIXES = tuple(KINDS)  # no class has a name that ends so
PHOTO = re.compile(f"({'|'.join(map(re.escape, SUFFIXES))})$", re.I)

_LONGEST_NAME = 4096  # which is where file systems end
_REMEDY = "copy the photo into the data folder, or give --allow_outside if you trust this list"


def find_photos(
    root: str | os.PathLike[str],
    names: Sequence[str],
    allow_outside: bool = False,
    place: Callable[[int], str] | None = None,
) -> list[str | None]:
    """Looks up photos by the names a list gives them.

    A list from elsewhere must not make a program read, show or copy other files: absolute names,
    names with `..` and symbolic links below the folder are refused unless the user allows them. The
    folder itself may be a link.

    Args:
        root: the data set's folder.
        names: N file names relative to it, with slashes.
        allow_outside: accept names and links that lead elsewhere.
        place: what a message calls the place of name i, such as "train.csv:7"; the file by default.

    Returns:
        N absolute paths, None where there is no such file.

    Raises:
        UserError: a name or a link that may lead out of the folder, or a folder that cannot be
            listed.
    """
    base = os.path.abspath(root)
    listing = _Listing()
    found = []
    for number, name in enumerate(names):
        path = os.path.join(base, name)
        if not allow_outside:
            reason = _outside(name) or listing.link(base, name)
            if reason:
                where = place(number) if place else path
                raise UserError(f"{where}: {name!r} {reason}; {_REMEDY}")
        found.append(path if listing.has(path) else None)
    return found


def require_photos(
    root: str | os.PathLike[str],
    names: Sequence[str],
    source: str,
    allow_outside: bool = False,
    place: Callable[[int], str] | None = None,
) -> tuple[str, ...]:
    """As `find_photos`, for data sets none of whose photos may be missing.

    Args:
        source: where to get the photos and where they belong, for the message.

    Raises:
        UserError: as `find_photos`, or photos are missing: how many, the first, and the source.
    """
    found = find_photos(root, names, allow_outside, place)
    missing = [number for number, path in enumerate(found) if path is None]
    if missing:
        first = missing[0]
        where = f"{place(first)}: " if place else ""
        raise UserError(
            f"{where}{Path(root) / names[first]}: the photo is missing "
            f"({len(missing)} of {len(names)} are); {source}"
        )
    return tuple(path for path in found if path is not None)


def relative_folder(root: str | os.PathLike[str], folder: str) -> str:
    """A folder that a flag names by its whole path, as `find_photos` takes it where it is inside.

    Examples:
        >>> relative_folder("/data", "/data/masks"), relative_folder("/data", "/other/masks")
        ('masks', '/other/masks')
    """
    base = os.path.abspath(root)
    inside = os.path.relpath(os.path.join(base, folder), base)
    return inside if os.path.isabs(folder) and not inside.startswith("..") else folder


def _outside(name: str) -> str | None:
    if os.path.isabs(name) or PurePosixPath(name).is_absolute():
        return "is an absolute path"
    if len(name) > _LONGEST_NAME:
        return f"is longer than {_LONGEST_NAME} characters"
    if "\0" in name:
        return "holds a null character"
    if ".." in name.replace("\\", "/").split("/"):
        return "leaves the data folder"
    return None


class _Listing:
    """Folders' entries, each folder listed once: on network drives much faster than asking."""

    def __init__(self) -> None:
        self._folders: dict[str, tuple[set[str], set[str]]] = {}
        self._links: dict[str, bool] = {}

    def has(self, path: str) -> bool:
        folder, name = os.path.split(os.path.normpath(path))
        return name in self._entries(folder)[0]

    def link(self, base: str, name: str) -> str | None:
        """Why the name is refused where one of its parts below base is a symbolic link."""
        folder, last = os.path.split(os.path.normpath(os.path.join(base, name)))
        if self._through_link(base, folder):
            return "lies behind a symbolic link"
        return "is a symbolic link" if last in self._entries(folder)[1] else None

    def _through_link(self, base: str, folder: str) -> bool:
        unknown = []
        while len(folder) > len(base) and folder not in self._links:
            unknown.append(folder)
            folder = os.path.dirname(folder)
        through = self._links.get(folder, False)
        for folder in reversed(unknown):  # from the top, and without recursion: names can be deep
            parent, name = os.path.split(folder)
            through = self._links[folder] = through or name in self._entries(parent)[1]
        return through

    def _entries(self, folder: str) -> tuple[set[str], set[str]]:
        """Names of the folder's files and links, and of its links."""
        if folder not in self._folders:
            files, links = set(), set()
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if entry.is_symlink():
                            links.add(entry.name)
                        with contextlib.suppress(OSError):  # a link that leads in a circle
                            if entry.is_file():
                                files.add(entry.name)
            except (FileNotFoundError, NotADirectoryError, ValueError):
                pass  # ValueError: a null character
            except OSError as error:
                raise UserError(f"{folder}: cannot be listed ({error.strerror})") from error
            self._folders[folder] = files, links
        return self._folders[folder]
