"""The flagfiles and plans that come with spml_tf, by their names.

They are the files of the folder experiments, which an installed package holds as presets.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from spml_tf.system.errors import UserError
from spml_tf.system.nearest import guess

_PACKAGE = Path(__file__).parent.parent


def flagfiles() -> dict[str, Path]:
    """The flagfiles by name, such as digits/en_scl."""
    return _files(".flags")


def plans() -> dict[str, Path]:
    """The plans by name, such as table1_digits."""
    return _files(".toml")


def flagfile(name: str) -> Path:
    """The flagfile of a name.

    Raises:
        UserError: there is none.
    """
    return _find("preset", name, flagfiles())


def plan(path: str) -> str:
    """The path of a plan, which is a file or the name of one that comes with spml_tf.

    Raises:
        UserError: there is none.
    """
    if os.path.isfile(path) or path.endswith(".toml"):
        return path
    return str(_find("plan", path, plans()))


def listing(found: Mapping[str, Path]) -> str:
    """A line for each name, with the file's own first line."""
    width = max(map(len, found), default=0)
    lines = []
    for name, path in found.items():
        first = path.read_text("utf-8").partition("\n")[0].removeprefix("#").strip()
        lines.append(f"{name:{width}}  {first}")
    return "\n".join(lines)


def _files(ending: str) -> dict[str, Path]:
    root = _PACKAGE / "presets"
    if not root.is_dir():  # a checkout, or an editable installation of one
        root = _PACKAGE.parent / "experiments"
    paths = sorted(root.rglob(f"*{ending}"))
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in paths}


def _find(flag: str, name: str, known: Mapping[str, Path]) -> Path:
    if name not in known:
        where = "" if known else "; this installation has none"
        raise UserError(
            f"--{flag}={name}: unknown; --list_presets lists those there are"
            f"{where}{guess(name, known)}"
        )
    return known[name]
