"""Exports a finished run: `python -m spml_tf.export --run_dir=DIR --export_dir=DIR`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence

from spml_tf.exports.export_settings import ExportSettings
from spml_tf.system import cli
from spml_tf.system.flag_fields import plugins_field

USAGE = """Exports the best network of a finished run.

usage: python -m spml_tf.export --run_dir=DIR --export_dir=DIR [--format=saved_model,litert,onnx]

saved_model: a SavedModel with the endpoints serve_bytes and cams_bytes (JPEG or PNG files ->
probabilities, decisions, class names; class activation maps too), serve and cams (the same of
pixels). litert: .tflite files in float32, float16 and int8. onnx: an ONNX file. web: a page that
predicts in a browser, without a network. The last three lie in folders of their names, and are
compared with the network on the run's photos. Beside them classes.json (names, decision thresholds,
input size), MODEL_CARD.md and, for litert and onnx, run.py, which needs no TensorFlow."""


@dataclasses.dataclass(frozen=True)
class _Options(ExportSettings):
    plugins: str | None = plugins_field()


def _action(options: _Options) -> None:
    from spml_tf.exports.export_run import export

    print(f"exported to {export(options)}")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; see `cli.run` for the exit codes."""
    return cli.run(argv, _Options, USAGE, _action)


if __name__ == "__main__":
    sys.exit(main())
