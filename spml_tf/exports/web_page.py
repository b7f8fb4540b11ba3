"""A page that predicts: one HTML file with the network and the runtime in it, for any browser."""

from __future__ import annotations

import base64
import gzip
import json
import tarfile
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from spml_tf.exports import RUNTIME_PACKAGE
from spml_tf.exports.exported import Exported
from spml_tf.pages import html_page
from spml_tf.system.errors import UserError, reason_of

FILE = "index.html"
_ASSETS = resources.files("spml_tf.exports") / "assets"
# In its package: who it is, its code, and the same compiled to WebAssembly.
_PARTS = ("package.json", "dist/ort.wasm.bundle.min.mjs", "dist/ort-wasm-simd-threaded.wasm")
_LARGEST = 100_000_000  # bytes of a part
# The page loads code that it holds, and compiles WebAssembly.
_SOURCES = "'wasm-unsafe-eval' blob:"


class Runtime(NamedTuple):
    """What runs the network in the browser.

    Attributes:
        version: of onnxruntime-web.
        script: an ES module.
        wasm: the compiled part.
    """

    version: str
    script: bytes
    wasm: bytes


def read_runtime(place: str) -> Runtime:
    """Reads onnxruntime-web.

    Args:
        place: the file that `npm pack onnxruntime-web` writes, or the folder of the package, such
            as node_modules/onnxruntime-web.

    Raises:
        UserError: it is not there, or is something else.
    """
    path = Path(place)
    try:
        read = _read_folder if path.is_dir() else _read_archive
        package, script, wasm = read(path)
        return Runtime(str(json.loads(package)["version"]), script, wasm)
    except FileNotFoundError as error:
        missing = "no such file" if not path.exists() else f"{error.filename} is missing in it"
        raise UserError(
            f"--web_runtime={place}: {missing}; this command gets it: npm pack {RUNTIME_PACKAGE}"
        ) from None
    except (OSError, EOFError, tarfile.TarError, KeyError, TypeError, ValueError) as error:
        reason = reason_of(error)
        raise UserError(
            f"--web_runtime={place}: is no package onnxruntime-web ({reason}); this command gets "
            f"it: npm pack {RUNTIME_PACKAGE}"
        ) from None


def _read_folder(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in _PARTS]


def _read_archive(path: Path) -> list[bytes]:
    found = []
    with tarfile.open(path, "r:gz") as archive:
        for name in _PARTS:
            member = archive.getmember(f"package/{name}")
            file = archive.extractfile(member)
            if file is None or member.size > _LARGEST:
                raise ValueError(f"{name} is no file of at most {_LARGEST} bytes")
            found.append(file.read())
    return found


def write(network: bytes, exported: Exported, runtime: Runtime, folder: Path) -> None:
    """Writes the page.

    Args:
        network: an ONNX model, as `onnx_model.convert` makes it.
        exported: what it was made of.
        runtime: what runs it.
        folder: where to write.
    """
    facts = {
        "classes": exported.class_names,
        "thresholds": exported.thresholds.tolist(),
        "imageSize": exported.image_size,
        "maxMegapixels": exported.max_megapixels,
        "colours": html_page.colour_table(),
    }
    packed = {"network": network, "runtime-script": runtime.script, "runtime-wasm": runtime.wasm}
    body = "\n".join(
        [
            _asset("predict.html").format(
                classes=len(exported.class_names), version=html_page.text(runtime.version)
            ),
            html_page.data_element("model-data", facts),
            *(_packed(name, content) for name, content in packed.items()),
        ]
    )
    script = html_page.asset("maps.js") + _asset("predict.js")
    page = html_page.page("Classify photos", body, script, _asset("predict.css"), _SOURCES)
    (folder / FILE).write_text(page, "utf-8")


def _packed(name: str, content: bytes) -> str:
    """An element that holds bytes for the page's script, gzipped, as base64."""
    text = base64.b64encode(gzip.compress(content, mtime=0)).decode("ascii")
    return f'<script type="application/gzip" id="{name}">{text}</script>'


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text("utf-8")
