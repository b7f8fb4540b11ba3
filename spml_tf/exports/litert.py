"""LiteRT (TensorFlow Lite) files for phones and small computers: float32, float16 and int8."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from spml_tf.exports.exported import Exported
from spml_tf.system.optional_packages import needed

# Gives [1, S, S, 3] float32 in 0..255, one photo after the other.
Calibration = Callable[[], Iterator[NDArray[np.float32]]]
# The files, and what their weights are.
FILES = {
    "float32": "model_float32.tflite",
    "float16": "model_float16.tflite",
    "int8": "model_int8.tflite",
}
# These stay in float32, at hardly any cost: in int8 a probability is one of 256 numbers, on which
# photos tie.
_IN_FLOAT = ["MEAN", "LOGISTIC", "GREATER_EQUAL"]


def check_needs(wanted: str) -> None:
    """Raises UserError where a package is missing; `wanted` is the flag that asks for it."""
    needed("ai_edge_litert", "litert", wanted)


def convert(
    exported: Exported, calibration: Calibration, kinds: Sequence[str] = tuple(FILES)
) -> dict[str, bytes]:
    """The network in several precisions.

    Args:
        exported: the network and its classes.
        calibration: photos of the training data, from which the ranges of int8 features are taken.
        kinds: the precisions, of `FILES`.

    Returns:
        By kind the files' content. Their input is images [1, S, S, 3] float32 in
        0..255, their outputs are probabilities [1, L] float32, decisions [1, L] int32 and cams
        [1, G, G, L] float32. float16 has weights of 16 bits; int8 has weights and features of 8.
    """
    spec = tf.TensorSpec([1, *exported.input_shape[1:]], tf.float32, name="images")
    with tempfile.TemporaryDirectory() as folder:
        archive = keras.export.ExportArchive()
        archive.add_endpoint("serve", exported.outputs_of_pixels, [spec])
        archive.write_out(folder, verbose=False)
        ways: dict[str, Callable[[str], bytes]]
        ways = {"float32": _float32, "float16": _float16, "int8": partial(_int8, calibration)}
        # TensorFlow warns of its own interpreter, which its quantizer uses.
        with warnings.catch_warnings(action="ignore"):
            return {kind: ways[kind](folder) for kind in kinds}


def _converter(folder: str, *optimizations: Any) -> Any:
    converter = tf.lite.TFLiteConverter.from_saved_model(folder)
    converter.optimizations = list(optimizations)
    return converter


def _float32(folder: str) -> bytes:
    content: bytes = _converter(folder).convert()
    return content


def _float16(folder: str) -> bytes:
    converter = _converter(folder, tf.lite.Optimize.DEFAULT)
    converter.target_spec.supported_types = [tf.float16]
    content: bytes = converter.convert()
    return content


def _int8(calibration: Calibration, folder: str) -> bytes:
    """The int8 model; the debugger is TensorFlow's only way to leave operations in float32."""

    def photos() -> Iterator[dict[str, NDArray[np.float32]]]:
        return ({"images": photo} for photo in calibration())

    converter = _converter(folder, tf.lite.Optimize.DEFAULT)
    converter.representative_dataset = photos
    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=_IN_FLOAT)
    quantizer = tf.lite.experimental.QuantizationDebugger(
        converter=converter, debug_dataset=photos, debug_options=options
    )
    content: bytes = quantizer.get_nondebug_quantized_model()
    return content


class Runner:
    """A LiteRT model in its runtime.

    Args:
        content: the file's.
        threads: used by it.
    """

    def __init__(self, content: bytes, threads: int = 1) -> None:
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_content=content, num_threads=threads)
        self._run = interpreter.get_signature_runner()

    def __call__(self, images: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """The outputs by name, of images [B, S, S, 3] in 0..255."""
        rows = [self._run(images=images[row : row + 1]) for row in range(len(images))]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def write(models: dict[str, bytes], folder: Path) -> None:
    """Writes the files."""
    for kind, content in models.items():
        (folder / FILES[kind]).write_bytes(content)
