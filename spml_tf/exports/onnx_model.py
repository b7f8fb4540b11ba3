"""The ONNX file: a network of fixed-size images, for onnxruntime and its kin."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from spml_tf.system.optional_packages import needed

if TYPE_CHECKING:
    from spml_tf.exports.exported import Exported

FILE = "model.onnx"
# Operators as of ONNX 1.12: runtimes of 2022 and later know them.
_OPSET = 17
_IMAGES = "images"


def check_needs(wanted: str) -> None:
    """Raises UserError where a package is missing; `wanted` is the flag that asks for it."""
    for module in ("tf2onnx", "onnxruntime"):
        needed(module, "onnx", wanted)


def convert(exported: Exported) -> bytes:
    """The network as an ONNX model.

    Args:
        exported: the network and its classes.

    Returns:
        The file's content. Its input is images [batch, S, S, 3] float32 in 0..255, its outputs are
        probabilities [batch, L] float32, decisions [batch, L] int32 and cams [batch, G, G, L]
        float32; its metadata hold class_names and thresholds as JSON.
    """
    import tf2onnx.tf_loader

    function = _traced(exported)
    outputs = zip(function.outputs, sorted(function.structured_outputs), strict=True)
    names = {f"{_IMAGES}:0": _IMAGES, **{tensor.name: name for tensor, name in outputs}}
    with _quietly():
        # Not convert.from_function, which takes constants that layers hold for inputs.
        ends = [*names][:1], [*names][1:]
        graph = tf2onnx.tf_loader.from_function(function, *ends)
        model, _ = tf2onnx.convert.from_graph_def(
            graph,
            None,
            *ends,
            opset=_OPSET,
            tensors_to_rename=names,
            custom_op_handlers={"Erfc": (_erfc, [])},
        )
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    for key, text in exported.metadata().items():
        model.metadata_props.add(key=key, value=text)
    content: bytes = model.SerializeToString()
    return content


def _erfc(graph: Any, node: Any, name: str, arguments: Any) -> None:
    """Writes erfc(x), which GELU consists of and ONNX lacks, as 1 - erf(x)."""
    node.type = "Erf"
    one = graph.make_const(f"{name}/one", np.ones([], np.float32)).output[0]
    erf = node.output[0]
    graph.insert_new_node_on_output("Sub", erf, f"{name}/complement", [one, erf])


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without what tf2onnx tells of its steps, and of functions that it should no longer use."""
    loggers = [logging.getLogger(name) for name in ("tf2onnx", "tensorflow")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _traced(exported: Exported) -> Any:
    """The network as one graph: Keras compiles grouped convolutions, which tf2onnx cannot see."""

    def outputs(images: tf.Tensor) -> dict[str, tf.Tensor]:
        before = tf.config.functions_run_eagerly()
        tf.config.run_functions_eagerly(True)  # functions within this one become part of it
        try:
            return exported.outputs_of_pixels(images)
        finally:
            tf.config.run_functions_eagerly(before)

    spec = tf.TensorSpec(exported.input_shape, tf.float32, name=_IMAGES)
    return tf.function(outputs, input_signature=[spec], autograph=False).get_concrete_function()


class Session:
    """An ONNX model in onnxruntime.

    Args:
        content: the file's.
    """

    def __init__(self, content: bytes) -> None:
        import onnxruntime

        self._session = onnxruntime.InferenceSession(content)

    def __call__(self, images: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """The outputs by name, of images [B, S, S, 3] in 0..255."""
        names = [output.name for output in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, {_IMAGES: images}), strict=True))


def write(content: bytes, folder: Path) -> None:
    """Writes the file."""
    (folder / FILE).write_bytes(content)
