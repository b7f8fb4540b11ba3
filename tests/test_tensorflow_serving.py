"""A SavedModel as TensorFlow Serving's REST interface sees it: signatures, rows, JSON."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import CLASSES
from tensorflow.core.protobuf import saved_model_pb2

from spml_tf.exports.export_run import export
from spml_tf.exports.export_settings import ExportSettings


@pytest.fixture(scope="module")
def served(finished, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("serving")
    return export(ExportSettings(str(finished), str(folder), serving_version="1", thresholds="0.4"))


@pytest.fixture(scope="module")
def signatures(served) -> dict:
    """By name what saved_model.pb says of inputs and outputs."""
    content = saved_model_pb2.SavedModel()
    content.ParseFromString((served / "saved_model.pb").read_bytes())
    (graph,) = content.meta_graphs
    assert "serve" in graph.meta_info_def.tags
    return dict(graph.signature_def)


def answered(served: Path, signatures: dict, body: str) -> list[dict]:
    """What POST /v1/models/NAME:predict answers, by the rules of TensorFlow Serving's REST page.

    {"instances": [...]} has a value a row where the signature has one input, {"b64": ...} being
    bytes; "predictions" has a row of all outputs for each.
    """
    request = json.loads(body)
    name = request.get("signature_name", "serving_default")
    ((key, info),) = signatures[name].inputs.items()
    rows = [base64.b64decode(x["b64"]) if isinstance(x, dict) else x for x in request["instances"]]
    model = tf.saved_model.load(str(served))
    values = tf.constant(rows, tf.dtypes.as_dtype(info.dtype))
    outputs = {k: v.numpy() for k, v in model.signatures[name](**{key: values}).items()}
    assert all(len(value) == len(rows) for value in outputs.values())  # else the server refuses
    assert not any(name.endswith("_bytes") for name in outputs)  # these it would encode
    outputs["class_names"] = np.char.decode(outputs["class_names"].astype(bytes))
    return [{k: v[row].tolist() for k, v in outputs.items()} for row in range(len(rows))]


def test_every_endpoint_is_a_signature(signatures):
    inputs = {
        name: (list(value.inputs), sorted(value.outputs))
        for name, value in signatures.items()
        if not name.startswith("__")
    }
    scored = ["class_names", "decisions", "probabilities"]
    mapped = ["cams", *scored]
    assert inputs == {
        "serving_default": (["files"], scored), "serve_bytes": (["files"], scored),
        "cams_bytes": (["files"], mapped), "serve": (["images"], scored),
        "cams": (["images"], mapped),
    }  # fmt: skip


@pytest.mark.parametrize("name", [None, "serve_bytes", "cams_bytes"])
def test_photo_files_in_json(finished, voc, served, signatures, name):
    with np.load(finished / "predictions_test.npz") as saved:
        names, scores = saved["names"][:3], saved["scores"][:3]
    files = [{"b64": base64.b64encode((voc / str(x)).read_bytes()).decode()} for x in names]
    request = {"instances": files, **({"signature_name": name} if name else {})}
    rows = answered(served, signatures, json.dumps(request))
    for row, expected in zip(json.loads(json.dumps(rows)), scores, strict=True):
        assert row["class_names"] == list(CLASSES)
        np.testing.assert_allclose(row["probabilities"], expected, atol=1e-5)
        assert row["decisions"] == (expected >= 0.4).astype(int).tolist()
        assert ("cams" in row) == (name == "cams_bytes")
        if name == "cams_bytes":
            pooled = 1 / (1 + np.exp(-np.mean(row["cams"], axis=(0, 1))))
            np.testing.assert_allclose(pooled, expected, atol=1e-5)


def test_pixels_in_json(served, signatures):
    request = {"signature_name": "cams", "instances": np.full((2, 4, 5, 3), 128).tolist()}
    rows = answered(served, signatures, json.dumps(request))
    assert len(rows) == 2 and rows[0].keys() == rows[1].keys()
    for name in ("probabilities", "cams"):  # a batch's rows may be summed in other orders
        np.testing.assert_allclose(rows[0][name], rows[1][name], rtol=1e-5)
    assert np.shape(rows[0]["cams"])[-1] == len(CLASSES)
