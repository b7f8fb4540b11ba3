"""Exports of a finished run: a file for each format, its checks, decisions and model card."""

# The package of npm that runs ONNX models in browsers, of the version this was tested with, as npm
# calls it and its file.
_VERSION = "1.30.0"
RUNTIME_PACKAGE = f"onnxruntime-web@{_VERSION}"
RUNTIME = f"onnxruntime-web-{_VERSION}.tgz"
MODEL_CARD = "MODEL_CARD.md"
