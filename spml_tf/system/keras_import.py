"""What the package adds to Keras' import: its saved classes, and a word on another backend.

Keras may be imported before spml_tf or after it, by the user, by TensorFlow or by a module of
spml_tf. `import spml_tf` itself must stay quick and imports none of these.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from spml_tf.system import saved_classes

# What Keras' other backends import; one that is not installed fails with its package's name.
_OTHER_BACKENDS = ("jax", "torch", "openvino")
# What Keras imports where it is installed, for wrappers and galleries that no command uses.
_EXTRAS = ("sklearn", "matplotlib")


class BackendError(ImportError):
    """Keras runs on, or is set to, another backend than TensorFlow."""

    def __init__(self, found: str) -> None:
        super().__init__(
            f"spml_tf needs Keras' TensorFlow backend, but found {found}: set the environment "
            'variable KERAS_BACKEND=tensorflow, or "backend": "tensorflow" in ~/.keras/keras.json, '
            "and start again"
        )


class _KerasFinder:
    """Finds Keras as the other finders do, and has a hand in its import."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "keras":
            return None
        others = (x.find_spec(name, path, target) for x in sys.meta_path if x is not self)
        spec = next(filter(None, others), None)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader  # an object of this spec's own
            loader.exec_module = functools.partial(_import, loader.exec_module)
        return spec


@contextlib.contextmanager
def without_extras() -> Iterator[None]:
    """Keeps Keras, imported inside the block, from importing what it can do without.

    Together they take as long as a third of TensorFlow. Afterwards they can be imported as ever.
    """
    kept_out = [name for name in _EXTRAS if name not in sys.modules]
    sys.modules.update(dict.fromkeys(kept_out))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in kept_out:
            del sys.modules[name]


def _import(exec_module: Callable[[Any], None], keras: Any) -> None:
    try:
        exec_module(keras)
    except (ModuleNotFoundError, ValueError) as error:
        package = (getattr(error, "name", None) or "").partition(".")[0]
        if package in _OTHER_BACKENDS or "Unable to import backend" in str(error):
            chosen = os.environ.get("KERAS_BACKEND") or package
            raise BackendError(f"{chosen!r} ({error})") from error
        raise
    saved_classes.add_stand_ins(keras)


def watch() -> None:
    """Adds to Keras what the package has for it, now or when Keras is imported."""
    if "keras" in sys.modules:
        saved_classes.add_stand_ins(sys.modules["keras"])
    else:
        sys.meta_path.insert(0, _KerasFinder())


def require_tensorflow_backend() -> None:
    """Imports Keras and raises BackendError unless it runs on TensorFlow."""
    import keras

    if keras.config.backend() != "tensorflow":
        raise BackendError(repr(keras.config.backend()))
