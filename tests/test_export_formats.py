"""Exports as LiteRT and ONNX: their numbers, the script that runs them, what is refused."""

from __future__ import annotations

import json
import re
import runpy
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import CLASSES, run
from PIL import Image
from running_alone import printed_alone

from spml_tf import export as exporting
from spml_tf import networks
from spml_tf.datasets.images import decode_image, resize
from spml_tf.datasets.readers import Examples
from spml_tf.evaluation import predictions
from spml_tf.exports import checks, litert, onnx_model
from spml_tf.exports.export_run import export
from spml_tf.exports.export_settings import ExportSettings
from spml_tf.exports.exported import exported
from spml_tf.networks.float32 import in_float32
from spml_tf.system.errors import UserError

RUNNER = Path(exporting.__file__).parent / "exports" / "assets" / "run.py"


@pytest.fixture(scope="module")
def models(finished, tmp_path_factory) -> Path:
    """An export as litert and onnx alone."""
    pytest.importorskip("ai_edge_litert", reason="needs the extra [litert]")
    pytest.importorskip("tf2onnx", reason="needs the extra [onnx]")
    folder = tmp_path_factory.mktemp("formats") / "models"
    words = [f"--run_dir={finished}", f"--export_dir={folder}", "--format=litert,onnx"]
    done = run(*words, module="export")
    assert done.returncode == 0, done.stderr
    (folder.parent / "said.txt").write_text(done.stdout)
    return folder


def photos(folder: Path) -> list[str]:
    """PNG files of noise around 32 pixels and far above, one of 16 bits, a JPEG on its side."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    paths = []
    for number, (height, width) in enumerate([(32, 32), (20, 45), (300, 201), (49, 31), (7, 900)]):
        path = folder / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(path)
        paths.append(str(path))
    exif = Image.Exif()
    exif[0x0112] = 6
    smooth = np.linspace(0, 255, 120 * 80 * 3).reshape(120, 80, 3).astype(np.uint8)
    Image.fromarray(smooth).save(folder / "side.jpg", exif=exif, quality=95)
    deep = rng.integers(0, 65536, (40, 50)).astype(np.uint16)
    Image.fromarray(deep).save(folder / "deep.png")
    return [*paths, str(folder / "side.jpg"), str(folder / "deep.png")]


@pytest.mark.parametrize("model", ["litert/model_float32.tflite", "onnx/model.onnx"])
def test_a_script_without_tensorflow_gives_the_networks_scores(finished, models, tmp_path, model):
    """From the file on: decoding, orientation and resizing are the script's own."""
    paths = photos(tmp_path / "photos")
    labels = np.zeros((len(paths), len(CLASSES)), np.int8)
    examples = Examples(tuple(paths), labels, CLASSES, paths=tuple(paths))
    expected = predictions.predict_scores(
        networks.load_network(finished / "network.keras"), examples, 32
    )
    thresholds = json.loads((models / "classes.json").read_text())["thresholds"]
    path = models / model
    found = printed_alone(path.with_name("run.py"), [str(path), *paths])
    assert [row["image"] for row in found] == paths
    for row, scores in zip(found, expected, strict=True):
        np.testing.assert_allclose([row["probabilities"][x] for x in CLASSES], scores, atol=1e-4)
        decided = [x for x, score in zip(CLASSES, scores, strict=True) if score >= thresholds[x]]
        assert row["decisions"] == decided
    assert expected.std(axis=0).max() > 0.01  # photos do differ


@pytest.mark.parametrize("side", [24, 64])
def test_the_script_resizes_as_evaluation_does(tmp_path, side):
    read = runpy.run_path(str(RUNNER))["read"]
    for path in photos(tmp_path / "photos"):
        expected = resize(decode_image(tf.io.read_file(path)), side)
        np.testing.assert_allclose(read(path, side)[0], expected, atol=2e-3)


def test_the_script_names_what_it_cannot_read(tmp_path, capsys):
    shutil.copy(RUNNER, tmp_path)
    (tmp_path / "classes.json").write_text(json.dumps({"class_names": ["cat"], "image_size": 8}))
    main = runpy.run_path(str(tmp_path / RUNNER.name))["main"]
    main.__globals__["load"] = lambda model: None
    assert main("model.onnx", "a\x1b[2J.png") == 1
    assert re.fullmatch(r"a\?\[2J\.png: .*No such file.*\n", capsys.readouterr().err)


def test_the_script_scores_what_comes_after_a_damaged_photo(tmp_path, capsys, monkeypatch):
    """Pixels in two parts, the header of the second damaged; and more pixels than Pillow takes."""
    for name in ("damaged", "large", "whole"):
        shape = {"damaged": (200, 200, 3), "large": (300, 300, 3), "whole": (8, 8, 3)}[name]
        pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    content = (tmp_path / "damaged.png").read_bytes()
    second = content.index(b"IDAT", content.index(b"IDAT") + 4)
    (tmp_path / "damaged.png").write_bytes(content[:second] + b"\1\2\3\4" + content[second + 4 :])
    shutil.copy(RUNNER, tmp_path)
    (tmp_path / "classes.json").write_text(json.dumps({"class_names": ["cat"], "image_size": 8}))
    main = runpy.run_path(str(tmp_path / RUNNER.name))["main"]
    outputs = {"probabilities": np.array([[0.5]]), "decisions": np.array([[1]])}
    main.__globals__["load"] = lambda model: lambda images: outputs
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40_000)  # twice as many are refused
    names = [str(tmp_path / f"{name}.png") for name in ("damaged", "large", "whole")]
    assert main("model.onnx", *names) == 1
    told = capsys.readouterr()
    assert [json.loads(x)["image"] for x in told.out.splitlines()] == names[2:]
    broken, large = told.err.splitlines()
    assert broken.startswith(f"{names[0]}: broken PNG") and "decompression bomb" in large


def test_small_models_cost_little_and_say_so(finished, models):
    said = (models.parent / "said.txt").read_text()
    card = (models / "MODEL_CARD.md").read_text()
    with np.load(finished / "predictions_test.npz") as saved:
        names, scores, labels = saved["names"], saved["scores"], saved["labels"]
    assert f"On {len(names)} test photos, beside the Keras network in float32:" in card
    data = Path(json.loads((finished / "run.json").read_text())["flags"]["data_dir"])
    pixels = np.stack([resize(decode_image(tf.io.read_file(str(data / x))), 32) for x in names])
    sizes = {}
    for kind, file in litert.FILES.items():
        content = (models / "litert" / file).read_bytes()
        sizes[kind] = len(content)
        outputs = litert.Runner(content)(pixels)
        away = np.abs(outputs["probabilities"] - scores)
        row = re.search(rf"^\| {file} \| (.+) \|$", card, re.M).group(1).split(" | ")
        report = predictions.score_report(labels, outputs["probabilities"], CLASSES)
        assert float(row[1]) == pytest.approx(away.max(), rel=0.06, abs=2e-7)
        assert float(row[4]) == pytest.approx(report["map"], abs=0.006)
        assert f"{file}: {len(content) / 1e6:.1f} MB, probabilities differ by up to" in said
        # In int8 too a probability is more than one of 256 numbers.
        assert away.max() < {"float32": 1e-4, "float16": 0.01, "int8": 0.2}[kind]
        pooled = 1 / (1 + np.exp(-outputs["cams"].mean((1, 2), dtype=np.float64)))
        np.testing.assert_allclose(outputs["probabilities"], pooled, atol=1e-5)
    assert sizes["int8"] < 0.5 * sizes["float32"] and sizes["float16"] < 0.6 * sizes["float32"]


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_networks_that_no_converter_knows_as_they_are(dtype):
    """Keras compiles grouped convolutions, Normalization holds constants, bfloat16 is unknown."""
    pytest.importorskip("ai_edge_litert", reason="needs the extra [litert]")
    pytest.importorskip("tf2onnx", reason="needs the extra [onnx]")
    keras.utils.set_random_seed(0)
    image = keras.Input((32, 32, 3))
    x = keras.layers.Normalization(mean=[100.0, 110.0, 120.0], variance=[900.0] * 3)(image)
    x = keras.layers.Conv2D(8, 3, strides=4, dtype=dtype)(x)
    x = keras.layers.Conv2D(8, 3, groups=4, activation="gelu", dtype=dtype)(x)
    network = networks.cam_from_backbone(keras.Model(image, x), 2)
    names = ("a", "b")
    classes = {
        "class_names": names, "thresholds": dict.fromkeys(names, 0.5), "image_size": 32,
        "max_megapixels": 1,
    }  # fmt: skip
    plain = exported(in_float32(network), classes)
    pixels = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype(np.float32)
    maps = network.predict(pixels, verbose=0)
    trained = 1 / (1 + np.exp(-maps.mean((1, 2))))
    models = litert.convert(plain, lambda: iter(pixels[:, None]))
    for found in (
        onnx_model.Session(onnx_model.convert(plain))(pixels),
        litert.Runner(models["float32"])(pixels),
    ):
        exact = plain.outputs_of_pixels(pixels)
        np.testing.assert_allclose(found["probabilities"], exact["probabilities"], atol=1e-5)
        away = {"float32": 1e-5, "mixed_bfloat16": 0.01}[dtype]
        np.testing.assert_allclose(found["probabilities"], trained, atol=away)


def test_an_onnx_file_tells_of_its_classes(models):
    import onnxruntime

    session = onnxruntime.InferenceSession(models / "onnx" / onnx_model.FILE)
    facts = session.get_modelmeta().custom_metadata_map
    classes = json.loads((models / "classes.json").read_text())
    assert json.loads(facts["class_names"]) == classes["class_names"] == list(CLASSES)
    assert json.loads(facts["thresholds"]) == [classes["thresholds"][x] for x in CLASSES]
    (images,) = session.get_inputs()
    assert (images.name, images.shape) == ("images", ["batch", 32, 32, 3])
    shapes = {output.name: output.shape for output in session.get_outputs()}
    assert shapes["probabilities"] == shapes["decisions"] == ["batch", 3]
    assert shapes["cams"][0] == "batch" and shapes["cams"][3] == 3


def test_an_export_of_models_is_replaced_only_on_demand(finished, models, tmp_path, capsys):
    folder = shutil.copytree(models, tmp_path / "kept")
    words = [f"--run_dir={finished}", f"--export_dir={folder}"]
    assert exporting.main(words) == 1
    assert "holds an export" in capsys.readouterr().err
    for name in ("litert", "onnx"):
        path = folder / name / "classes.json"
        whole = path.read_text()
        path.write_text(whole + " ")
        assert exporting.main([*words, "--overwrite"]) == 1
        assert f"{path}: was edited" in capsys.readouterr().err
        path.write_text(whole)
    assert exporting.main([*words, "--overwrite"]) == 0
    assert (folder / "saved_model.pb").exists() and not (folder / "onnx").exists()


def test_a_model_with_other_numbers_is_not_written(finished, tmp_path, monkeypatch, capsys):
    pytest.importorskip("tf2onnx", reason="needs the extra [onnx]")
    right = onnx_model.Session.__call__

    def wrong(self, images):
        found = right(self, images)
        return {**found, "probabilities": found["probabilities"] + 2 * checks.TOLERANCE}

    monkeypatch.setattr(onnx_model.Session, "__call__", wrong)
    words = [f"--run_dir={finished}", f"--export_dir={tmp_path / 'out'}", "--format=onnx"]
    assert exporting.main(words) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: model.onnx: its probabilities differ from the network's by up")
    assert "to 0.0002 on 8 photos of the run, more than 0.0001" in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--format=tflite"], "must be of saved_model, litert, onnx, web, each once"),
        (["--format=onnx,onnx"], "--format=onnx,onnx: must be of"),
        (["--format="], "not ''"),
        (["--check_images=0"], "--check_images=0"),
        (["--serving_version=0"], "--serving_version=0: must be a number from 1 on, or next"),
        (["--serving_version=v1"], "--serving_version=v1"),
        (["--format=onnx", "--data_dir={tmp}"], "{tmp}"),
    ],
)
def test_a_mistake_is_one_line(finished, tmp_path, capsys, words, says):
    if "--format=onnx" in words:
        pytest.importorskip("tf2onnx", reason="needs the extra [onnx]")
    flags = [f"--run_dir={finished}", f"--export_dir={tmp_path / 'out'}"]
    assert exporting.main([*flags, *(word.format(tmp=tmp_path) for word in words)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert says.format(tmp=tmp_path) in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("kind", "module", "extra"),
    [
        ("litert", "ai_edge_litert", "litert"),
        ("onnx", "tf2onnx", "onnx"),
        ("web", "onnxruntime", "onnx"),
    ],
)
def test_a_missing_package_is_named(finished, tmp_path, monkeypatch, kind, module, extra):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec",
        lambda name, *more: None if name == module else find(name, *more) or find("json"),
    )  # fmt: skip
    with pytest.raises(UserError) as caught:
        export(ExportSettings(str(finished), str(tmp_path / "out"), format=kind))
    assert f"--format={kind}: needs {module}, which is not installed" in str(caught.value)
    assert f"pip install 'spml_tf[{extra}]'" in str(caught.value)


def test_versions_have_folders_of_their_own(finished, tmp_path):
    base = tmp_path / "served"
    folders = [
        export(ExportSettings(str(finished), str(base), serving_version=version, thresholds="0.5"))
        for version in ("next", "7", "next")
    ]
    assert [folder.name for folder in folders] == ["1", "7", "8"]
    assert all((base / name / "saved_model.pb").exists() for name in ("1", "7", "8"))
    with pytest.raises(UserError, match="holds an export; choose another"):
        export(ExportSettings(str(finished), str(base), serving_version="7"))
