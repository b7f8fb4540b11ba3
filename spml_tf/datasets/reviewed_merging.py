"""The files of several reviewers brought together."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from spml_tf.datasets import reviewed_files
from spml_tf.datasets.reviewed_files import Key
from spml_tf.system.errors import UserError
from spml_tf.system.files import (
    check_output_file,
    check_unedited,
    made_folder,
    naming_unwritable,
    replaced_unless_edited,
    write_csv,
)


@dataclasses.dataclass(frozen=True)
class Merged:
    """What several reviewers decided.

    Attributes:
        agreed: "1" or "0" by image and class, where nobody contradicts.
        shared: how many of `agreed` two or more decided.
        disagreements: by image and class what each file says, in the order of the files, "" where
            it decides nothing.
    """

    agreed: dict[Key, str]
    shared: int
    disagreements: dict[Key, list[str]]


def merge(paths: Sequence[str | os.PathLike[str]]) -> Merged:
    """Brings the files of several reviewers together.

    Args:
        paths: a file each, as `reviewed_files.read_rows` reads them.

    Raises:
        UserError: as `reviewed_files.read_rows`, or a file contradicts itself.

    Examples:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ann, bob = (pathlib.Path(folder) / name for name in ("ann.csv", "bob.csv"))
        ...     _ = ann.write_text("image,class,label\\na.jpg,cat,1\\na.jpg,dog,1\\n")
        ...     _ = bob.write_text("image,class,label\\na.jpg,cat,0\\na.jpg,dog,1\\n")
        ...     merged = merge([ann, bob])
        >>> merged.agreed, merged.shared, merged.disagreements
        ({('a.jpg', 'dog'): '1'}, 1, {('a.jpg', 'cat'): ['1', '0']})
    """
    files = [_decided(path) for path in paths]
    agreed: dict[Key, str] = {}
    disagreements: dict[Key, list[str]] = {}
    shared = 0
    for key in dict.fromkeys(key for decided in files for key in decided):
        said = [decided.get(key, "") for decided in files]
        voices = [label for label in said if label]
        if len(set(voices)) > 1:
            disagreements[key] = said
        else:
            agreed[key] = voices[0]
            shared += len(voices) > 1
    return Merged(agreed, shared, disagreements)


def write_merged(paths: Sequence[str], folder: Path) -> Merged:
    """Writes reviewed.csv, the labels agreed on, and disagreements.csv with an empty column label.

    Args:
        paths: as for `merge`; a column of disagreements.csv each, named as the file is.
        folder: where to write.

    Raises:
        UserError: as `merge`; a file is named twice or there is but one; the folder cannot be
            written, or holds such a file that is one of `paths` or that a person has edited.
    """
    _check_several(paths)
    outputs = agreed, disagreements = folder / "reviewed.csv", folder / "disagreements.csv"
    for path in outputs:
        check_output_file(path, str(path), paths)
    check_unedited(outputs)
    merged = merge(paths)
    with naming_unwritable(f"--output_dir={folder}"), made_folder(folder):
        rows = ((*key, label) for key, label in merged.agreed.items())
        write_csv(agreed, reviewed_files.COLUMNS, rows, into=replaced_unless_edited)
        header = (*reviewed_files.COLUMNS, *_titles(paths))
        write_csv(disagreements, header, _open_rows(merged), into=replaced_unless_edited)
    return merged


def _check_several(paths: Sequence[str]) -> None:
    if len({os.path.realpath(path) for path in paths}) < max(2, len(paths)):
        raise UserError(f"--merge={','.join(paths)}: name two files or more, each once")


def _titles(paths: Sequence[str]) -> list[str]:
    """The files' names, or their paths where two files have the same name or that of a column."""
    stems = [Path(path).stem for path in paths]
    clear = len({*stems, *reviewed_files.JOURNAL_COLUMNS}) == (
        len(stems) + len(reviewed_files.JOURNAL_COLUMNS)
    )
    return stems if clear else list(paths)


def _open_rows(merged: Merged) -> Iterator[tuple[str, ...]]:
    for key, said in merged.disagreements.items():
        yield (*key, "", *said)


def _decided(path: str | os.PathLike[str]) -> dict[Key, str]:
    found: dict[Key, str] = {}
    for row in reviewed_files.read_rows(path):
        if row.label and found.setdefault(row.key, row.label) != row.label:
            raise UserError(
                f"{row.place}: {row.class_name!r} of {row.image!r} is {row.label} here and "
                f"{found[row.key]} in an earlier row; keep one of them"
            )
    return found
