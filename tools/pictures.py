"""Draws the pictures in docs/: digit scenes with boxes, and a crop with its heatmap in the bank.

python tools/pictures.py --run_dir=runs/voc_en_scl [--output_dir=docs] [--image=NUMBER]

The second picture needs a finished EN+SCL run on photos: one more training step is taken on a crop
of one photo, and its row of the heatmap bank is drawn before and after.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from spml_tf import boxes, images, readers, runs, splits, train
from spml_tf.readers import Examples
from spml_tf.reports.overlays import enlarge


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
    figure, axes = canvas(4, 8, 1.0)
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
    figure.savefig(path, dpi=90)


def draw_bank(path: Path, run_dir: str, number: int) -> None:
    """A photo, its bank, a crop, the warped target, the crop's map, the bank after the step."""
    run = runs.RunFolder(run_dir)
    settings = run.settings()
    data = splits.load_splits(settings)
    model = train._build(settings, data)
    model.optimizer.build(model.trainable_variables)
    model.load_weights(run.checkpoint)
    photo = images.decode_image(tf.io.read_file(data.train.paths[number]))
    size = settings.image_size
    whole = images.resize(photo, size)
    box = tf.constant([[0.1, 0.25, 0.8, 0.95]])
    flip, index = tf.constant([True]), tf.constant([number], tf.int64)
    crop = tf.image.crop_and_resize(whole[None], box, [0], [size, size])[:, :, ::-1]
    column = int(np.flatnonzero(data.observed[number] == 1)[0])
    name = data.train.class_names[column]
    values, visited = model.ema_heatmaps.read(index)
    maps = tf.sigmoid(model.network(crop))
    target, _ = boxes.masked_to_crop_frame(values, visited, box, flip, maps.shape[1])
    written, inside = boxes.to_image_frame(maps, box, flip, model.heatmap_size)
    model.ema_heatmaps.write(index, written, inside)
    after = model.ema_heatmaps.read(index)[0]
    figure, axes = canvas(1, 5, 2.2, 1.15)
    tiles = (
        (whole, values, f"bank before: {name}"),
        (crop[0], None, "crop, mirrored"),
        (crop[0], target, "bank warped to the crop"),
        (crop[0], maps, "the crop's own map"),
        (whole, after, "bank after"),
    )
    for axis, (picture, heat, title) in zip(axes[0], tiles, strict=True):
        axis.imshow(np.clip(picture, 0, 255).astype(np.uint8))
        axis.set_title(title, fontsize=9)
        if heat is not None:
            drawn = enlarge(heat.numpy()[0][..., column : column + 1], size, size)[..., 0]
            axis.imshow(drawn, cmap="viridis", vmin=0, vmax=1, alpha=0.6)
    y1, x1, y2, x2 = box.numpy()[0] * size
    for axis in (axes[0, 0], axes[0, 4]):
        axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color="white"))
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run_dir", required=True)
    parser.add_argument("--output_dir", default="docs")
    parser.add_argument("--image", type=int, default=0)
    options = parser.parse_args()
    folder = Path(options.output_dir)
    draw_digits(folder / "digits.png", readers.load("digits", None, "train", 1200))
    draw_bank(folder / "bank.png", options.run_dir, options.image)


if __name__ == "__main__":
    main()
