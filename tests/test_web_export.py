"""The page that predicts, in headless Chromium: opened from disk, without a network."""

from __future__ import annotations

import base64
import io
import os
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from browsing import press, requested, show
from matplotlib import colormaps
from miniature import write_photos
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from spml_tf import export as exporting
from spml_tf import networks
from spml_tf.datasets.images import decode_image, resize
from spml_tf.evaluation.predictions import predict_maps, predict_scores
from spml_tf.exports import web_page
from spml_tf.exports.export_run import export
from spml_tf.exports.export_settings import ExportSettings
from spml_tf.exports.exported import exported
from spml_tf.system.errors import UserError

SIDE = 32
# Hostile, long, and equal to what JavaScript has itself.
CLASSES = ("<img src=x onerror=window.ran=1>", "</script><b>x", "constructor " * 9)
THRESHOLDS = (0.5, 0.0, 1.0)


def runtime() -> str:
    pytest.importorskip("tf2onnx", reason="needs the extra [onnx]")
    place = os.environ.get("SPML_TF_WEB_RUNTIME")
    if not place:
        pytest.skip("needs what npm pack onnxruntime-web@1.30.0 writes: SPML_TF_WEB_RUNTIME")
    return place


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(3)
    network = networks.small_residual_cam(len(CLASSES), image_size=SIDE, width=16)
    kernel, bias = network.get_layer(networks.CAM_LAYER).get_weights()
    network.get_layer(networks.CAM_LAYER).set_weights([4 * kernel, bias])
    return network


@pytest.fixture(scope="module")
def address(network, tmp_path_factory) -> str:
    from spml_tf.exports import onnx_model

    found = web_page.read_runtime(runtime())
    classes = {
        "class_names": CLASSES, "thresholds": dict(zip(CLASSES, THRESHOLDS, strict=True)),
        "image_size": SIDE, "max_megapixels": 0.05,
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("web <b>")
    one = exported(network, classes)
    web_page.write(onnx_model.convert(one), one, found, folder)
    return (folder / web_page.FILE).as_uri()


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> list[Path]:
    """Noise of several sizes, antialiased or not, as PNG; and one on its side."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(5)
    paths = []
    for number, shape in enumerate([(SIDE, SIDE), (40, 47), (200, 130)]):
        pixels = rng.integers(0, 256, (*shape, 3), np.uint8)
        pixels[: shape[0] // 2] //= 4  # so that the maps differ from place to place
        paths.append(folder / f"{number}.png")
        Image.fromarray(pixels).save(paths[-1])
    exif = Image.Exif()
    exif[0x0112] = 6
    smooth = np.linspace(0, 255, 96 * 60 * 3).reshape(96, 60, 3).astype(np.uint8)
    paths.append(folder / "side.jpg")
    Image.fromarray(smooth).save(paths[-1], exif=exif, quality=95)
    return paths


def until(reached: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def browser(chromium, address) -> webdriver.Chrome:
    """The page, freshly loaded, once its model has started."""
    show(chromium, "light", 1280)
    for log in ("browser", "performance"):
        chromium.get_log(log)  # of earlier tests
    chromium.get(address)
    until(lambda: said(chromium).startswith("Ready"))
    return chromium


def said(browser: webdriver.Chrome) -> str:
    return browser.find_element(By.ID, "status").text


def results(browser: webdriver.Chrome) -> list:
    return browser.find_elements(By.CSS_SELECTOR, ".result")


def choose(browser: webdriver.Chrome, paths: list[Path]) -> None:
    before = len(results(browser))
    failures = len(browser.find_elements(By.CSS_SELECTOR, ".failed"))
    browser.find_element(By.ID, "files").send_keys("\n".join(map(str, paths)))
    until(
        lambda: (
            said(browser).startswith("Ready")
            and len(results(browser))
            - before
            + len(browser.find_elements(By.CSS_SELECTOR, ".failed"))
            >= len(paths) - failures
        )
    )


# Drops the bytes of a file, as a mouse would.
DROP = """
const [name, text] = arguments;
const data = new DataTransfer();
const content = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
data.items.add(new File([content], name));
const options = { dataTransfer: data, bubbles: true, cancelable: true };
document.getElementById("drop").dispatchEvent(new DragEvent("drop", options));
"""


def pixels_of(paths: list[Path]) -> np.ndarray:
    return np.stack([resize(decode_image(tf.io.read_file(str(x))), SIDE) for x in paths])


def test_loads_quietly_and_alone(browser, address):
    assert [entry["message"] for entry in browser.get_log("browser")] == []
    asked = requested(browser)
    assert address in asked
    inside = ("data:", "blob:")
    assert [url for url in asked if url != address and not url.startswith(inside)] == []


def test_scores_and_decisions_are_the_networks(browser, network, photos):
    choose(browser, photos)
    expected = predict_scores(network, pixels_of(photos))
    assert expected.std(axis=0).max() > 0.02  # photos do differ
    shown = results(browser)[::-1]  # the newest stands first
    assert [x.find_element(By.TAG_NAME, "h2").text for x in shown] == [x.name for x in photos]
    for section, scores in zip(shown, expected, strict=True):
        rows = section.find_elements(By.CSS_SELECTOR, "tbody tr")
        names = [x.find_element(By.TAG_NAME, "button").get_attribute("textContent") for x in rows]
        assert names == [CLASSES[label] for label in np.argsort(-scores)]
        for name, row in zip(names, rows, strict=True):
            label = CLASSES.index(name)
            cells = [cell.text for cell in row.find_elements(By.TAG_NAME, "td")]
            assert float(cells[0]) == pytest.approx(scores[label], abs=1.6e-4)  # four digits
            assert cells[2] == ("yes" if scores[label] >= THRESHOLDS[label] else "no")
    assert browser.execute_script("return window.ran") is None
    assert browser.find_elements(By.CSS_SELECTOR, "main img, main th b") == []


def test_a_dropped_photo_shows_the_heatmap_of_each_class(browser, network, photos):
    path = photos[1]
    browser.execute_script(DROP, path.name, base64.b64encode(path.read_bytes()).decode())
    until(lambda: len(results(browser)) == 1)
    (maps,) = predict_maps(network, pixels_of([path]))
    canvas = browser.find_element(By.CSS_SELECTOR, ".result .map")
    buttons = browser.find_elements(By.CSS_SELECTOR, ".result tbody button")
    assert [x.get_attribute("aria-pressed") for x in buttons] == ["true", "false", "false"]
    press(browser, browser.find_element(By.ID, "opacity"), Keys.END)
    for button in [*buttons[1:], buttons[0]]:
        press(browser, button, Keys.ENTER)
        label = CLASSES.index(button.get_attribute("textContent"))
        level = 1 / (1 + np.exp(-maps[0, 0, label].astype(float)))
        corner = browser.execute_script(
            "return [...arguments[0].getContext('2d').getImageData(0, 0, 1, 1).data]", canvas
        )
        near = [x for x in range(256) if abs(x - 255 * level) < 1.6]
        assert corner in [np.rint(255 * np.array(colormaps["viridis"](x))).tolist() for x in near]
        assert f"highest value {1 / (1 + np.exp(-maps[..., label].max())):.1f}"[:-1] in (
            canvas.get_attribute("aria-label")
        )
    press(browser, buttons[0], Keys.ENTER)  # a second time: the bare photo
    assert canvas.get_attribute("aria-label") == "No heatmap is shown."


def test_what_is_no_photo_is_said(browser, photos, tmp_path):
    (tmp_path / "notes.jpg").write_text("no photo")
    Image.new("RGB", (300, 300)).save(tmp_path / "large.png")
    choose(browser, [tmp_path / "notes.jpg", photos[0], tmp_path / "large.png"])
    failures = [x.text for x in browser.find_elements(By.CSS_SELECTOR, ".failed")]
    assert failures[0].startswith("notes.jpg: cannot be read as a photo (")
    assert failures[1] == (
        "large.png: cannot be read as a photo (300 x 300 pixels, more than 0.05 million)"
    )
    assert len(failures) == 2 and len(results(browser)) == 1


@pytest.mark.parametrize("width", [1280, 390])
def test_fits_the_window(browser, photos, width):
    show(browser, "dark", width)
    choose(browser, photos)
    wide = "return document.documentElement.scrollWidth <= window.innerWidth"
    assert browser.execute_script(wide)
    nameless = (
        "const named = (x) => x.getAttribute('aria-label') || x.labels?.length"
        " || x.textContent.trim();"
        "return [...document.querySelectorAll('canvas, button, input')]"
        ".filter((x) => !named(x)).map((x) => x.outerHTML)"
    )
    assert browser.execute_script(nameless) == []


def test_the_command_writes_a_page(finished, tmp_path):
    settings = ExportSettings(
        str(finished), str(tmp_path / "out"), format="web", web_runtime=runtime()
    )
    folder = export(settings)
    names = sorted(x.relative_to(folder).as_posix() for x in folder.rglob("[!.]*") if x.is_file())
    assert names == ["MODEL_CARD.md", "classes.json", "web/index.html"]


def archive(folder: Path, **parts: bytes) -> Path:
    path = folder / "onnxruntime-web-0.tgz"
    with tarfile.open(path, "w:gz") as file:
        for name, content in parts.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def test_a_missing_runtime_names_the_command_that_gets_it(finished, tmp_path, capsys):
    pytest.importorskip("tf2onnx", reason="needs the extra [onnx]")
    words = [f"--run_dir={finished}", f"--export_dir={tmp_path / 'out'}", "--format=web"]
    assert exporting.main([*words, f"--web_runtime={tmp_path / 'none.tgz'}"]) == 1
    error = capsys.readouterr().err
    assert "none.tgz: no such file; this command gets it: npm pack onnxruntime-web@" in error
    assert error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_other_files_are_no_runtime(tmp_path):
    write_photos([tmp_path / "photo.jpg"])
    (tmp_path / "empty").mkdir()
    cases = {
        tmp_path / "photo.jpg": "is no package onnxruntime-web",
        archive(tmp_path, **{"package.json": b"{}"}): "is no package onnxruntime-web",
        tmp_path / "empty": "is missing in it",
    }
    for path, says in cases.items():
        with pytest.raises(UserError, match="npm pack onnxruntime-web@") as caught:
            web_page.read_runtime(str(path))
        assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_runtime_is_read_from_file_and_folder(tmp_path):
    parts = dict(zip(web_page._PARTS, (b'{"version": "1.2"}', b"code", b"wasm"), strict=True))
    for name, content in parts.items():
        path = tmp_path / "package" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    found = [web_page.read_runtime(str(x)) for x in (archive(tmp_path, **parts), path.parents[1])]
    assert found == [("1.2", b"code", b"wasm")] * 2
