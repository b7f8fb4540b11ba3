"""Exports of a finished run: a file for each format, its checks, decisions and model card."""

# The package of npm that runs ONNX models in browsers, of the version this was tested with.
RUNTIME = "onnxruntime-web-1.30.0.tgz"
