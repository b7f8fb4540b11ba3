"""Figures of a run's heatmaps: `python -m spml_tf.heatmaps --run_dir=DIR --output_dir=DIR`."""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spml_tf.system import cli
from spml_tf.system.errors import UserError

if TYPE_CHECKING:
    from spml_tf.datasets.splits import Splits
    from spml_tf.figures.heatmap_figures import Heatmaps, Line, Picture
    from spml_tf.runs.heatmap_history import Snapshots
    from spml_tf.runs.run_folder import RunFolder

_USAGE = """Draws the heatmaps of training images, as a PNG, an SVG and a CSV each.

usage: python -m spml_tf.heatmaps --run_dir=DIR --output_dir=DIR [--other_run_dir=DIR2]
           [--images=NAME,NAME] [--top=4] [--data_dir=DIR]

top_heatmaps: the classes of highest score over each photo, by the run's network.
heatmap_growth: how the maps of an annotated positive, of a positive without annotation and of a
negative grow over epochs, from the run's heatmaps.npz; of the classes of a kind the one whose
score is highest in the end. Needs data whose full labels are known.
heatmap_comparison, with --other_run_dir: the same images and classes by the networks of both runs,
such as one without and one with SCL."""

# Images drawn unless others are asked for, and the longest side of a photo in pixels.
_IMAGES, _SIDE = 6, 320


@dataclasses.dataclass(frozen=True)
class _Options:
    run_dir: str | None = cli.flag_field(None, "Folder of the run.")
    output_dir: str | None = cli.flag_field(
        None, "Folder for the figures; those of the same names there are replaced."
    )
    other_run_dir: str | None = cli.flag_field(
        None, "Folder of a run on the same data, to draw beside the first."
    )
    images: str | None = cli.flag_field(
        None,
        "Comma-separated names of training images. Default: the first 6 in heatmaps.npz, else the "
        "first of each class.",
    )
    top: int = cli.flag_field(4, "Classes drawn of each image.", int)
    data_dir: str | None = cli.flag_field(
        None, "Folder of the data set, where it is not the run's own."
    )


@dataclasses.dataclass(frozen=True)
class _Run:
    """A run to draw.

    Attributes:
        folder: its folder.
        name: what the figures call it.
        snapshots: its heatmaps.npz, None where it has none.
    """

    folder: RunFolder
    name: str
    snapshots: Snapshots | None


def draw(options: _Options) -> list[str]:
    """Draws the figures.

    Args:
        options: the command's flags.

    Returns:
        The figures' names; which are left out, and why, is said on standard error.

    Raises:
        UserError: for runs or data that cannot be read, images that are not there, or a folder that
            cannot be written.
    """
    from spml_tf.runs import run_data

    runs = _read_runs(options)
    data = run_data.load_of_run(runs[0].folder, options.data_dir)
    rows = _rows(options, runs, data)
    pictures = _pictures(data, rows)
    class_names = data.train.class_names
    print(f"heatmaps of {len(rows)} images", file=sys.stderr)
    by_run = {run.name: _heatmaps(run, data, rows) for run in runs}
    figures = {**_top(pictures, by_run, class_names, options.top), **_growth(runs, data, options)}
    _write(options, figures)
    return list(figures)


def _read_runs(options: _Options) -> list[_Run]:
    from spml_tf.runs import heatmap_history
    from spml_tf.runs.run_folder import RunFolder

    paths = [path for path in (options.run_dir, options.other_run_dir) if path]
    folders = [RunFolder(path) for path in paths]
    records = [folder.read_record() for folder in folders]
    if records[0]["data_fingerprint"] != records[-1]["data_fingerprint"]:
        raise UserError(
            f"--other_run_dir={paths[1]}: was trained on other images or labels than {paths[0]}"
        )
    names = [record["flags"]["method"] for record in records]
    if len(set(names)) < len(names):
        names = [os.path.basename(os.path.abspath(path)) for path in paths]
    if len(set(names)) < len(names):
        names = paths
    if len(set(names)) < len(names):
        raise UserError(f"--other_run_dir={paths[1]}: is --run_dir; name another run")
    kept = [heatmap_history.read(x.heatmaps) if x.heatmaps.exists() else None for x in folders]
    return [_Run(*parts) for parts in zip(folders, names, kept, strict=True)]


def _rows(options: _Options, runs: Sequence[_Run], data: Splits) -> list[int]:
    """The training images to draw."""
    from spml_tf.runs import heatmap_history

    if options.images is not None:
        return heatmap_history.rows_of("images", options.images, data.train.names)
    for run in runs:
        if run.snapshots is not None:
            return run.snapshots.images[:_IMAGES].tolist()
    return heatmap_history.first_of_each_class(data.observed, _IMAGES)


def _pictures(data: Splits, rows: Sequence[int]) -> list[Picture]:
    import numpy as np

    from spml_tf.datasets import encoded_images
    from spml_tf.drawing.contact_sheet import reduced
    from spml_tf.figures.heatmap_figures import Picture

    reader = encoded_images.Reader(data.train)
    found = []
    for row in rows:
        try:
            photo = reduced(reader.pixels(row), _SIDE)
        except encoded_images.BrokenImageError as error:
            raise UserError(f"{reader.place(row)}: {error}; replace or remove it") from None
        boxes = np.zeros((0, 5), np.float32) if data.train.boxes is None else data.train.boxes[row]
        labels = data.observed[row], data.train.labels[row]
        found.append(Picture(data.train.names[row], photo, *labels, boxes))
    return found


def _heatmaps(run: _Run, data: Splits, rows: Sequence[int]) -> list[Heatmaps]:
    """By the run's network, of whole images."""
    from scipy.special import expit

    from spml_tf import networks
    from spml_tf.evaluation import predictions
    from spml_tf.figures.heatmap_figures import Heatmaps

    examples, size = data.train.subset(rows), run.folder.settings().image_size
    network = networks.load_network(run.folder.network)
    maps = predictions.predict_maps(network, examples, size)
    return [Heatmaps(expit(x), expit(x.mean(axis=(0, 1)))) for x in maps]


def _top(
    pictures: Sequence[Picture],
    by_run: dict[str, list[Heatmaps]],
    class_names: Sequence[str],
    top: int,
) -> dict[str, tuple[list[Line], str]]:
    """The figures of whole images: their names, with tiles and title."""
    from spml_tf.figures import heatmap_figures

    name = next(iter(by_run))
    lines = heatmap_figures.top_heatmaps(pictures, by_run[name], class_names, top)
    found = {
        "top_heatmaps": (
            lines,
            f"{name}: heatmaps of the classes of highest score in training images",
        )
    }
    if len(by_run) > 1:
        lines = heatmap_figures.comparison(pictures, by_run, class_names, top)
        found["heatmap_comparison"] = (
            lines,
            f"Heatmaps of the same training images by {' and '.join(by_run)}",
        )
    return found


def _growth(
    runs: Sequence[_Run], data: Splits, options: _Options
) -> dict[str, tuple[list[Line], str]]:
    """The figure of growth, from the first run and image that have what it shows.

    Running averages are what it is about: a run that kept the network's own maps comes last.
    """
    from spml_tf.figures import heatmap_figures
    from spml_tf.runs import heatmap_history

    wanted = None
    if options.images is not None:
        wanted = heatmap_history.rows_of("images", options.images, data.train.names)
    recorded = [run for run in runs if run.snapshots is not None and len(run.snapshots.epochs)]
    for run in sorted(recorded, key=lambda run: run.snapshots.source != heatmap_history.BANK):
        rows = run.snapshots.images.tolist()
        for row in rows if wanted is None else [x for x in wanted if x in rows]:
            (picture,), place = _pictures(data, [row]), rows.index(row)
            classes = heatmap_figures.growth_classes(picture, run.snapshots.scores[-1, place])
            if classes is None:
                continue
            own = run.snapshots.source == heatmap_history.BANK
            kind = "running averages of maps" if own else "the network's own maps"
            lines = heatmap_figures.growth(picture, run.snapshots, place, classes)
            title = f"{run.name}: {kind}, with average scores, of training image {picture.name}"
            return {"heatmap_growth": (lines, title)}
    reason = "no recorded image shows an annotated positive, one without annotation and a negative"
    if not recorded:
        reason = f"{runs[0].folder.heatmaps} is missing; train with --record_heatmaps=8"
    print(f"note: heatmap_growth is left out: {reason}", file=sys.stderr)
    return {}


def _write(options: _Options, figures: dict[str, tuple[list[Line], str]]) -> None:
    from spml_tf.drawing import figure_files
    from spml_tf.figures import heatmap_figures

    target = Path(options.output_dir or "")
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target, prefix=".unfinished-") as folder:
            for stem, (lines, title) in figures.items():
                figure = heatmap_figures.draw(lines, title)
                figure_files.write(Path(folder), stem, heatmap_figures.numbers(lines), figure)
            for path in Path(folder).iterdir():
                os.replace(path, target / path.name)
    except OSError as error:
        raise UserError(f"--output_dir={target}: cannot be written ({error})") from None


def _action(options: _Options) -> None:
    for name in ("run_dir", "output_dir"):
        if not getattr(options, name):
            raise UserError(f"--{name} is missing; see --help")
    if options.top < 1:
        raise UserError(f"--top={options.top}: must be at least 1")
    cli.import_tensorflow()
    print(f"{', '.join(draw(options))} in {options.output_dir}")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; see `cli.run` for the exit codes."""
    return cli.run(argv, _Options, _USAGE, _action, tensorflow=False)


if __name__ == "__main__":
    sys.exit(main())
