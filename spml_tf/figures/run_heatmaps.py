"""The figures of heatmaps of one run or two, from their networks and what they recorded."""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from spml_tf import networks
from spml_tf.datasets.splits import Splits
from spml_tf.drawing import figure_files
from spml_tf.figures import heatmap_figures, network_heatmaps
from spml_tf.figures.heatmap_figures import Heatmaps, Line, Picture
from spml_tf.runs import heatmap_history, run_data
from spml_tf.runs.heatmap_history import Snapshots
from spml_tf.runs.run_folder import RunFolder
from spml_tf.system.errors import UserError
from spml_tf.system.files import check_unedited, made_folder, replaced, replaced_unless_edited
from spml_tf.system.notes import tell_note

_IMAGES = 6  # drawn unless others are asked for
_STEMS = _TOP, _COMPARISON, _GROWTH = "top_heatmaps", "heatmap_comparison", "heatmap_growth"

# A figure's lines of tiles and its title.
Figures = dict[str, tuple[list[Line], str]]


@dataclasses.dataclass(frozen=True)
class HeatmapRun:
    """A run to draw.

    Attributes:
        folder: its folder.
        name: what the figures call it.
        snapshots: its heatmaps.npz, None where it has none.
    """

    folder: RunFolder
    name: str
    snapshots: Snapshots | None


def read_runs(run_dir: str, other_run_dir: str | None = None) -> list[HeatmapRun]:
    """Reads a run, and one that it is compared with.

    Raises:
        UserError: a run cannot be read, both are the same, or their data differ.
    """
    paths = [run_dir, *([other_run_dir] if other_run_dir else [])]
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
    return [HeatmapRun(*parts) for parts in zip(folders, names, kept, strict=True)]


def figures(
    runs: Sequence[HeatmapRun], images: str | None, top: int, data_dir: str | None = None
) -> Figures:
    """The figures that can be had, by name; which are left out, and why, is said on standard error.

    Args:
        runs: one or two.
        images: names of training images with commas between; None: the first that a run recorded,
            else the first of each class.
        top: classes an image.
        data_dir: folder of the data set, None for the runs' own.

    Raises:
        UserError: data or networks that cannot be read, or images that are not there.
    """
    data = run_data.load_of_run(runs[0].folder, data_dir)
    wanted = None
    if images is not None:
        wanted = heatmap_history.rows_of("images", images, data.train.names)
    rows = _default_rows(runs, data) if wanted is None else wanted
    pictures = _pictures(data, rows)
    print(f"heatmaps of {len(rows)} images", file=sys.stderr)
    by_run = {run.name: _heatmaps(run, data, rows) for run in runs}
    drawn = _top(pictures, by_run, data.train.class_names, top)
    return {**drawn, **_growth(runs, data, wanted)}


def check_target(target: Path) -> None:
    """Raises UserError where a person has edited a CSV that would be replaced."""
    check_unedited(target / f"{stem}.csv" for stem in _STEMS)


def write(found: Figures, target: Path) -> None:
    """Writes a PNG, an SVG and a CSV for each figure, all at once.

    Raises:
        OSError: the folder cannot be written.
        UserError: a person has edited a CSV that is there.
    """
    with (
        made_folder(target),
        tempfile.TemporaryDirectory(dir=target, prefix=".unfinished-") as folder,
    ):
        for stem, (lines, title) in found.items():
            figure = heatmap_figures.draw(lines, title)
            figure_files.write(Path(folder), stem, heatmap_figures.numbers(lines), figure)
        for path in Path(folder).iterdir():
            into = replaced_unless_edited if path.suffix == ".csv" else replaced
            with into(target / path.name) as temporary:
                os.replace(path, temporary)


def _default_rows(runs: Sequence[HeatmapRun], data: Splits) -> list[int]:
    for run in runs:
        if run.snapshots is not None:
            return [int(row) for row in run.snapshots.images[:_IMAGES]]
    return heatmap_history.first_of_each_class(data.observed, _IMAGES)


def _pictures(data: Splits, rows: Sequence[int]) -> list[Picture]:
    classes = len(data.train.class_names)
    return network_heatmaps.pictures(data.train.subset(rows), classes, labels=data.observed[rows])


def _heatmaps(run: HeatmapRun, data: Splits, rows: Sequence[int]) -> list[Heatmaps]:
    network = networks.load_network(run.folder.best_network())
    size = run.folder.settings().image_size
    return network_heatmaps.heatmaps(network, data.train.subset(rows), size)


def _top(
    pictures: Sequence[Picture],
    by_run: dict[str, list[Heatmaps]],
    class_names: Sequence[str],
    top: int,
) -> Figures:
    """The figures of whole images."""
    name = next(iter(by_run))
    lines = heatmap_figures.top_heatmaps(pictures, by_run[name], class_names, top)
    title = f"{name}: heatmaps of the classes of highest score in training images"
    found = {_TOP: (lines, title)}
    if len(by_run) > 1:
        lines = heatmap_figures.comparison(pictures, by_run, class_names, top)
        title = f"Heatmaps of the same training images by {' and '.join(by_run)}"
        found[_COMPARISON] = (lines, title)
    return found


def _growth(runs: Sequence[HeatmapRun], data: Splits, wanted: Sequence[int] | None) -> Figures:
    """The figure of growth, from the first run and image that have what it shows.

    Running averages are what it is about: a run that kept the network's own maps comes last.
    """
    recorded = [(run, run.snapshots) for run in runs if run.snapshots is not None]
    recorded = [(run, found) for run, found in recorded if len(found.epochs)]
    for run, found in sorted(recorded, key=lambda pair: pair[1].source != heatmap_history.BANK):
        rows = found.images.tolist()
        for row in rows if wanted is None else [x for x in wanted if x in rows]:
            (picture,), place = _pictures(data, [row]), rows.index(row)
            classes = heatmap_figures.growth_classes(picture, found.scores[-1, place])
            if classes is None:
                continue
            own = found.source == heatmap_history.BANK
            kind = "running averages of maps" if own else "the network's own maps"
            lines = heatmap_figures.growth(picture, found, place, classes)
            title = f"{run.name}: {kind}, with average scores, of training image {picture.name}"
            return {_GROWTH: (lines, title)}
    kept = {row for _, found in recorded for row in found.images.tolist()}
    if not recorded:
        reason = f"{runs[0].folder.heatmaps} is missing; train with --record_heatmaps=8"
    elif wanted is not None and kept.isdisjoint(wanted):
        reason = "none of these images was recorded (--record_heatmaps)"
    else:
        reason = (
            "no recorded image shows an annotated positive, one without annotation and a negative"
        )
    tell_note(f"heatmap_growth is left out: {reason}")
    return {}
