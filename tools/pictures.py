"""Draws the pictures in docs/: digit scenes with boxes, and a crop with its heatmap in the bank.

python tools/pictures.py --run_dir=runs/voc_en_scl [--class_name=person] [--output_dir=docs]

The second picture shows matplotlib's sample photo of Grace Hopper (public domain): the network of a
finished run visits three random crops of it, which fills a bank of one image; then a fourth crop is
drawn with the bank's map warped to it, its own map, and the bank after it was written.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from matplotlib import cbook
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.patches import Rectangle

from spml_tf import networks
from spml_tf.banks import heatmap_bank, warping
from spml_tf.datasets import images, readers
from spml_tf.datasets.readers import Examples
from spml_tf.drawing.overlays import enlarge
from spml_tf.runs import run_folder

VISITS = (
    ((0.0, 0.0, 0.7, 0.9), False),
    ((0.3, 0.2, 1.0, 1.0), True),
    ((0.05, 0.15, 0.6, 0.8), False),
)
LAST = ((0.1, 0.25, 0.8, 0.95), True)


def canvas(rows: int, columns: int, size: float, ratio: float = 1.0) -> tuple[Figure, np.ndarray]:
    """A figure of tiles without axes."""
    figure = Figure(figsize=(columns * size, rows * size * ratio), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.ravel():
        axis.set_axis_off()
    return figure, axes


def draw_digits(path: Path, examples: Examples) -> None:
    """The first scenes with their boxes and classes."""
    figure, axes = canvas(3, 8, 0.9)
    for axis, image, objects in zip(axes.ravel(), examples.images, examples.boxes, strict=False):
        axis.imshow(image)
        side = image.shape[0]
        for row in objects:
            y1, x1, y2, x2 = row[1:] * side
            corner = (x1 - 0.5, y1 - 0.5)
            box = Rectangle(corner, x2 - x1, y2 - y1, fill=False, color="yellow", linewidth=0.8)
            axis.add_patch(box)
            name = examples.class_names[int(row[0])]
            axis.text(x1, y1 - 1, name, color="yellow", fontsize=7)
    figure.savefig(path, dpi=80)


def visit(
    network: keras.Model, photo: tf.Tensor, box: tf.Tensor, flip: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """A crop of the photo, [1, S, S, 3], and the network's map of it, [1, G, G, L]."""
    size = network.input_shape[1]
    crop = warping.flip_maps(tf.image.crop_and_resize(photo[None], box, [0], [size, size]), flip)
    return crop, tf.sigmoid(network(crop))


def draw_bank(path: Path, network: keras.Model, column: int, name: str) -> None:
    """The photo with its bank, a crop, the warped target, the crop's map, the bank after it."""
    photo = tf.constant(imread(cbook.get_sample_data("grace_hopper.jpg")), tf.float32)
    grid, classes = 2 * network.output_shape[1], network.output_shape[-1]
    bank = heatmap_bank.heatmap_bank(1, classes, grid=grid)
    index = tf.constant([0], tf.int64)
    for corners, mirrored in VISITS:
        box, flip = tf.constant([corners]), tf.constant([mirrored])
        _, maps = visit(network, photo, box, flip)
        bank.write(index, *warping.to_image_frame(maps, box, flip, grid))
    before = bank.read(index)
    box, flip = tf.constant([LAST[0]]), tf.constant([LAST[1]])
    crop, maps = visit(network, photo, box, flip)
    target, _ = warping.masked_to_crop_frame(*before, box, flip, maps.shape[1])
    bank.write(index, *warping.to_image_frame(maps, box, flip, grid))
    whole = images.resize(photo, network.input_shape[1])
    figure, axes = canvas(1, 5, 2.2, 1.15)
    tiles = (
        (whole, before[0], f"bank before: {name}"),
        (crop[0], None, "crop, mirrored"),
        (crop[0], target, "bank warped to the crop"),
        (crop[0], maps, "the crop's own map"),
        (whole, bank.read(index)[0], "bank after"),
    )
    for axis, (picture, heat, title) in zip(axes[0], tiles, strict=True):
        axis.imshow(np.clip(picture, 0, 255).astype(np.uint8))
        axis.set_title(title, fontsize=9)
        if heat is not None:
            drawn = enlarge(heat.numpy()[0][..., column : column + 1], *whole.shape[:2])
            axis.imshow(drawn[..., 0], cmap="viridis", vmin=0, vmax=1, alpha=0.6)
    y1, x1, y2, x2 = np.array(LAST[0]) * whole.shape[0]
    for axis in (axes[0, 0], axes[0, 4]):
        axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color="white"))
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run_dir", required=True)
    parser.add_argument("--class_name", default="person")
    parser.add_argument("--output_dir", default="docs")
    options = parser.parse_args()
    folder, run = Path(options.output_dir), run_folder.RunFolder(options.run_dir)
    draw_digits(folder / "digits.png", readers.load("digits", None, "train", 1200))
    column = run.read_record()["class_names"].index(options.class_name)
    network = networks.load_network(run.network)
    draw_bank(folder / "bank.png", network, column, options.class_name)


if __name__ == "__main__":
    main()
