"""Scores photos with a model of this folder, without TensorFlow: python run.py MODEL PHOTO...

Prints one JSON object a photo. Needs NumPy, Pillow and onnxruntime (.onnx) or ai-edge-litert
(.tflite).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps


def weights(old: int, new: int, antialias: bool) -> Any:
    """[new, old]: how much of each old pixel is in each new one, bilinear."""
    stretch = max(old / new, 1.0) if antialias else 1.0
    centres = (np.arange(new) + 0.5) * old / new
    near = np.maximum(1 - np.abs(np.arange(old) + 0.5 - centres[:, None]) / stretch, 0)
    return (near / near.sum(axis=1, keepdims=True)).astype(np.float32)


def read(path: str, side: int) -> Any:
    """A photo as the network takes it: [1, side, side, 3] float32 in 0..255, upright."""
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
            upright = Image.fromarray((np.asarray(upright) // 256).astype(np.uint8))
        pixels = np.asarray(upright.convert("RGB"), np.float32)
    shrinks = max(pixels.shape[:2]) > 1.5 * side  # short of that, training does not antialias
    down, across = (weights(length, side, shrinks) for length in pixels.shape[:2])
    return np.einsum("yi,xj,ijc->yxc", down, across, pixels, optimize=True)[None]


def load(path: str) -> Any:
    """A function from images to outputs by name."""
    if path.endswith(".onnx"):
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        names = [output.name for output in session.get_outputs()]
        return lambda images: dict(zip(names, session.run(names, {"images": images}), strict=True))
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(path).get_signature_runner()
    return lambda images: runner(images=images)


def main(model: str, *photos: str) -> int:
    """Scores photos and prints what is found; 1 where a photo cannot be read, else 0."""
    classes = json.loads(Path(__file__).with_name("classes.json").read_text("utf-8"))
    names, run = classes["class_names"], load(model)
    code = 0
    for photo in photos:
        try:
            pixels = read(photo, classes["image_size"])
        # What Pillow cannot read is the first, or of damaged and of very large files another.
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            line = f"{photo}: {error}"  # a terminal obeys control characters, in names too
            print("".join(x if x.isprintable() else "?" for x in line), file=sys.stderr)
            code = 1
            continue
        found = run(pixels)
        scores = dict(zip(names, found["probabilities"][0].tolist(), strict=True))
        decided = [names[i] for i in np.flatnonzero(found["decisions"][0])]
        print(json.dumps({"image": photo, "decisions": decided, "probabilities": scores}))
    return code


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
