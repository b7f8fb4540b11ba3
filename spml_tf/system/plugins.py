"""Loads code of the user's own that registers parts, networks and data sets: `--plugins`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType

from spml_tf.system.errors import UserError, reason_of


def absolute(plugins: str) -> str:
    """The text of --plugins with absolute paths of files, to be repeated from any folder."""
    return ",".join(os.path.abspath(x) if _is_file(x) else x for x in _words(plugins))


def load(plugins: str) -> None:
    """Runs the files and imports the modules that --plugins names, each once.

    Args:
        plugins: comma-separated paths of Python files (ending in .py) or names of modules.

    Raises:
        UserError: one is missing, or ends with an error; the message names file and line.
    """
    for word in _words(plugins):
        try:
            _load_file(word) if _is_file(word) else importlib.import_module(word)
        except Exception as error:
            raise UserError(f"--plugins={word}: {told(error)}") from None


def told(error: Exception) -> str:
    """What went wrong in code of the user's, with its file and line where they are known."""
    return f"{_place(error)}{_reason(error)}"


def digests(plugins: str) -> dict[str, str]:
    """SHA-256 in hexadecimal of the files among the plugins, by path."""
    files = [Path(word) for word in _words(plugins) if _is_file(word)]
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _words(plugins: str) -> list[str]:
    return [word.strip() for word in plugins.split(",") if word.strip()]


def _is_file(word: str) -> bool:
    return word.endswith(".py")


def _load_file(path: str) -> ModuleType:
    """The module of a file, under the file's name, as saved networks name the classes in it."""
    file = Path(path).absolute()
    name = file.stem
    loaded = sys.modules.get(name)
    if loaded is not None:
        if getattr(loaded, "__file__", None) == str(file):
            return loaded
        raise UserError(f"another module is called {name}; give the file another name")
    if not file.is_file():
        raise UserError("there is no such file")
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _place(error: Exception) -> str:
    """The line of the user's code that failed, where it is known."""
    if isinstance(error, UserError):
        return ""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: "
    own = [x for x in traceback.extract_tb(error.__traceback__) if x.filename.endswith(".py")]
    outside = [x for x in own if f"{os.sep}importlib{os.sep}" not in x.filename]
    package = Path(__file__).absolute().parent.parent
    mine = [x for x in outside if not Path(x.filename).absolute().is_relative_to(package)]
    return f"{mine[0].filename}, line {mine[0].lineno}: " if mine else ""


def _reason(error: Exception) -> str:
    text = reason_of(error)
    if isinstance(error, UserError):
        return text
    if isinstance(error, SyntaxError):
        return error.msg
    return f"{type(error).__name__}: {text}"
