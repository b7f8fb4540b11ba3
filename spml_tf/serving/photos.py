"""The photos that a caller names: files, folders, patterns, or pixels in memory."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spml_tf.datasets import encoded_images
from spml_tf.datasets.readers.photos import SUFFIXES
from spml_tf.system.errors import UserError, reason_of
from spml_tf.system.files import walk_folders
from spml_tf.system.notes import tell_note

Source: TypeAlias = str | NDArray[np.uint8]
PhotosLike: TypeAlias = (
    str
    | os.PathLike[str]
    | NDArray[np.uint8]
    | Sequence[str | os.PathLike[str] | NDArray[np.uint8]]
)


class Photo(NamedTuple):
    """A photo that is still to be read.

    Attributes:
        name: its path, or, of pixels, its position among the photos.
        source: the path, or uint8 [H, W, 3].
    """

    name: str
    source: Source

    def read(self, max_megapixels: float) -> NDArray[np.uint8]:
        """The pixels, uint8 [H, W, 3].

        Args:
            max_megapixels: the most pixels, in millions, that a file's header may tell of.

        Raises:
            BrokenImageError: the file cannot be read or is no image; the text says why.
        """
        if not isinstance(self.source, str):
            return self.source
        try:
            return encoded_images.decode(Path(self.source).read_bytes(), max_megapixels)
        except (OSError, encoded_images.BrokenImageError) as error:
            reason = reason_of(error, 200)
            raise encoded_images.BrokenImageError(reason) from None


def photo_files(path: str) -> list[str]:
    """The files that a path leads to.

    Args:
        path: of a file, of a folder, which means the image files in it and in the folders below, or
            a pattern such as "photos/*.jpg"; ** crosses folders. Names that begin with a dot are
            left out, and links to folders below a folder.

    Returns:
        The paths, sorted.

    Raises:
        UserError: there is none, or a folder cannot be listed.
    """
    if os.path.isfile(path):
        return [path]
    if os.path.isdir(path):
        if found := sorted(x for x in _inside(path) if x.lower().endswith(SUFFIXES)):
            return found
        raise UserError(f"{path}: holds no image file ({' '.join(SUFFIXES)})")
    if found := _matching(path):
        return found
    raise UserError(f"{path}: matches no file and is no folder; check it, and quote a pattern")


def _inside(root: str) -> Iterator[str]:
    """The files of a folder; a link to another may lead back into it."""
    for folder, names, files in walk_folders(root):
        names[:] = [name for name in names if name[0] != "."]
        for link in (x for name in names if os.path.islink(x := os.path.join(folder, name))):
            tell_note(f"{link}: a link to a folder is not followed; name the folder too")
        yield from (os.path.join(folder, name) for name in files if name[0] != ".")


def _matching(pattern: str) -> list[str]:
    return sorted(path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path))


def photos_of(images: PhotosLike) -> list[Photo]:
    """What is meant by the argument of `Classifier.predict`.

    Args:
        images: a path or an array uint8 [H, W, 3] or [N, H, W, 3], or a sequence of paths and
            arrays [H, W, 3]. A path is one that `photo_files` takes.

    Raises:
        UserError: a path leads to no file.
        ValueError: there are no images, or an array has another shape or type.

    Examples:
        >>> [x.name for x in photos_of(np.zeros((2, 4, 6, 3), np.uint8))]
        ['0', '1']
    """
    if isinstance(images, str | os.PathLike):
        images = [images]
    elif isinstance(images, np.ndarray) and images.ndim == 3:
        images = [images]
    found: list[Photo] = []
    for image in images:
        found.extend(_each(image, len(found)))
    if not found:
        raise ValueError("there are no images")
    return found


def _each(image: Any, position: int) -> Iterator[Photo]:
    if isinstance(image, str | os.PathLike):
        for path in photo_files(os.fspath(image)):
            yield Photo(path, path)
        return
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = getattr(image, "dtype", type(image).__name__)
        raise ValueError(f"image {position}: expected a path or an array of uint8, found {kind}")
    if image.ndim != 3 or image.shape[-1] != 3 or not image.size:
        raise ValueError(f"image {position}: expected the shape [H, W, 3], found {image.shape}")
    yield Photo(str(position), image)
