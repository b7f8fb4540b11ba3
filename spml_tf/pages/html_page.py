"""Pages of one file: HTML with its styles, scripts, photos and data inside, for any browser."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# What a page may do at all; `served` lets one speak with the server that it comes from.
_NOTHING, _OWN_SERVER = "default-src 'none';", "default-src 'none'; connect-src 'self';"
_JPEG_QUALITY = 85
_ASSETS = resources.files("spml_tf.pages") / "assets"


def page(title: str, body: str, scripts: str = "", styles: str = "", sources: str = "") -> str:
    """A whole document that needs no other file and asks no network for anything.

    Its security policy lets no other script run than `scripts`, and nothing be fetched.

    Args:
        title: text of the window's title.
        body: HTML of the page, in which every text has gone through `text`.
        scripts: JavaScript, run once the body is there.
        styles: CSS after the base style.
        sources: of the policy's script-src, where `scripts` load code: "'wasm-unsafe-eval' blob:".

    Returns:
        The document.
    """
    digest = base64.b64encode(hashlib.sha256(scripts.encode("utf-8")).digest()).decode("ascii")
    allowed = f"'sha256-{digest}' {sources}".rstrip()
    policy = (
        f"{_NOTHING} script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{text(title)}</title>
<style>
{asset("page.css")}{styles}</style>
</head>
<body>
{body}
<script>{scripts}</script>
</body>
</html>
"""


def served(document: str, name: str, value: Any) -> str:
    """A document of `page` that may ask the server it comes from, and holds JSON for its script.

    Args:
        document: the whole document.
        name: id of the element that holds the JSON.
        value: what JSON can hold.
    """
    allowed = document.replace(_NOTHING, _OWN_SERVER, 1)
    return allowed.replace("<body>", f"<body>{data_element(name, value)}", 1)


def text(value: object) -> str:
    """A value as text of HTML or of an attribute between quotation marks, never as markup."""
    return html.escape(str(value))


def data_element(name: str, value: Any) -> str:
    """An element that holds JSON for the page's script, which reads its textContent.

    Args:
        name: the element's id.
        value: what JSON can hold; NaN is refused.

    Returns:
        HTML; no text within `value` can end the element.
    """
    content = json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="{text(name)}">{content}</script>'


def asset(name: str) -> str:
    """The text of a file of the folder assets."""
    return (_ASSETS / name).read_text("utf-8")


def scripts(*names: str) -> str:
    """The scripts of the folder assets, one after the other."""
    return "".join(map(asset, names))


def photo_uri(image: NDArray[np.uint8], longest_side: int) -> str:
    """A photo as a data: URI of a JPEG, smoothly reduced, never enlarged.

    Args:
        image: uint8 [H, W, 3], RGB.
        longest_side: at most so many pixels.

    Returns:
        "data:image/jpeg;base64,...".
    """
    from PIL import Image  # takes a while, and a server of pages needs none

    picture = Image.fromarray(image)
    picture.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def quantised(values: NDArray[Any]) -> str:
    """Numbers in [0, 1] as base64 of a byte each, 255 being 1, in C order.

    Args:
        values: float, any shape; what lies outside is clipped.
    """
    import numpy as np  # as Pillow in `photo_uri`

    levels = np.rint(np.clip(values, 0.0, 1.0) * 255.0).astype(np.uint8)
    return base64.b64encode(levels.tobytes()).decode("ascii")


def colour_table() -> str:
    """The colour map viridis as base64 of 256 RGB triples, from 0 to 1."""
    import matplotlib  # as Pillow in `photo_uri`
    import numpy as np

    return quantised(matplotlib.colormaps["viridis"](np.arange(256))[:, :3])
