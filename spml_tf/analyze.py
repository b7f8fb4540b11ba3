"""Figures that compare runs: `python -m spml_tf.analyze --run_dirs=A,B --output_dir=DIR`."""

from __future__ import annotations

import dataclasses
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spml_tf.system import cli
from spml_tf.system.errors import UserError
from spml_tf.system.files import replaced_folder

if TYPE_CHECKING:
    from spml_tf.datasets.readers import Examples
    from spml_tf.figures.analysis_index import AnalysisFigure
    from spml_tf.runs.run_groups import Group
    from spml_tf.runs.settings import Settings

_USAGE = """Draws figures that compare runs, with the numbers behind them.

usage: python -m spml_tf.analyze --run_dirs=A,B,... --output_dir=DIR [--data_dir=DIR]
           [--experiment_csv=FILE] [--names=NAME,...]

Each figure is a PNG, an SVG and a CSV in DIR; DIR/index.md shows and explains them, and says which
are left out and why. Runs of one method that differ in their seed are drawn as one; all must share
data set, classes and images."""


@dataclasses.dataclass(frozen=True)
class _Options:
    run_dirs: str | None = cli.flag_field(None, "Comma-separated folders of finished runs.")
    output_dir: str | None = cli.flag_field(
        None, "Folder for the figures; an earlier analysis there is replaced."
    )
    names: str | None = cli.flag_field(
        None,
        "Comma-separated names, one a run: runs of one name are drawn as one. Default: the method, "
        "and the flags in which runs of it differ.",
    )
    data_dir: str | None = cli.flag_field(
        None, "Folder of the data set, where it is not the runs' own."
    )
    experiment_csv: str | None = cli.flag_field(
        None, "CSV of an experiment that varies crop_area, for the figure of crop intervals."
    )
    batch_size: int = cli.flag_field(32, "Images at a time.", int)


class _Omitted(Exception):
    """A figure cannot be had; the text says why."""


@dataclasses.dataclass(frozen=True)
class _Analysis:
    """What the figures are made of.

    Attributes:
        groups: of runs.
        split: "val" or "test", the split reported on.
        dataset: its name.
        class_names: L names.
        examples: the images of the split, or why they cannot be had.
        crops: rows of the figure of crop intervals, None without an experiment.
    """

    groups: tuple[Group, ...]
    split: str
    dataset: str
    class_names: tuple[str, ...]
    examples: Examples | str
    crops: list[dict[str, Any]] | None


def analyze(options: _Options) -> None:
    """Writes the figures.

    Args:
        options: the command's flags.

    Raises:
        UserError: for runs that cannot be compared or read, or an output folder of other files.
    """
    from spml_tf.figures import analysis_index, analysis_tables
    from spml_tf.runs import run_groups

    target = Path(options.output_dir).absolute()
    _check_target(target)
    table = options.experiment_csv
    crops = None if table is None else analysis_tables.crop_rows(table)
    names = None if options.names is None else _words(options.names)
    groups = run_groups.read_groups(_words(options.run_dirs), names)
    first = groups[0].runs[0]
    split = run_groups.reported_split(first.settings)
    examples = _examples(first, split, options.data_dir)
    if not isinstance(examples, str) and examples.boxes is not None:
        _find_peaks(groups, examples, options.batch_size)
    class_names = tuple(first.folder.read_record()["class_names"])
    found = _Analysis(groups, split, first.settings.dataset, class_names, examples, crops)
    tables, omitted = _tables(found)
    try:
        with replaced_folder(target) as folder:
            _draw_all(folder, found, tables)
            drawn = [figure for figure, _ in tables]
            text = analysis_index.text(groups, _command(options), drawn, omitted)
            (folder / analysis_index.FILE).write_text(text, "utf-8")
    except OSError as error:
        raise UserError(f"--output_dir={options.output_dir}: cannot be written ({error})") from None
    print(f"{len(tables)} figures in {options.output_dir}")


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def _check_target(target: Path) -> None:
    """Refuses a folder that holds anything but an earlier analysis, which is replaced."""
    from spml_tf.figures import analysis_index

    if not target.exists():
        return
    if not target.is_dir():
        raise UserError(f"--output_dir={target}: is no folder; choose another")
    known = analysis_index.known_files()
    others = sorted(path.name for path in target.iterdir() if path.name not in known)
    if others:
        raise UserError(
            f"--output_dir={target}: holds {others[0]}, which is no part of an analysis; choose "
            "another folder"
        )


def _examples(first: Any, split: str, data_dir: str | None) -> Examples | str:
    """The images reported on, or why they cannot be had."""
    from spml_tf.datasets import splits

    settings: Settings = first.settings
    if data_dir is not None:
        settings = dataclasses.replace(settings, data_dir=os.path.abspath(data_dir))
    try:
        if split == "val":
            examples = splits.load_splits(settings).val
        else:
            examples = splits.load_examples(settings, settings.test_split)
    except UserError as error:
        if data_dir is not None:
            raise
        return f"the data cannot be read ({error}); --data_dir names their folder"
    if list(examples.names) == first.names.tolist() and (examples.labels == first.labels).all():
        return examples
    return "the data set holds other images or labels than the runs were scored on"


def _find_peaks(groups: Sequence[Group], examples: Examples, batch_size: int) -> None:
    from spml_tf import networks
    from spml_tf.datasets import pipeline
    from spml_tf.evaluation import predictions

    runs = [run for group in groups for run in group.runs]
    for number, run in enumerate(runs, start=1):
        print(f"heatmaps of {run.folder.path} ({number} of {len(runs)})", file=sys.stderr)
        network = networks.load_network(run.folder.network)
        size = run.settings.image_size
        with pipeline.naming_broken_images(examples):
            run.peaks = predictions.predict_peaks(network, examples, size, batch_size)


def _boxed(found: _Analysis) -> Examples:
    if isinstance(found.examples, str):
        raise _Omitted(found.examples)
    if found.examples.boxes is None or not any(map(len, found.examples.boxes)):
        raise _Omitted("the data set has no boxes")
    return found.examples


def _rows(stem: str, found: _Analysis) -> list[dict[str, Any]]:
    """The rows of a figure.

    Raises:
        _Omitted: where it cannot be had.
    """
    import numpy as np

    from spml_tf.evaluation import measures
    from spml_tf.figures import analysis_tables as tables
    from spml_tf.labels import POSITIVE, UNKNOWN

    groups = found.groups
    if stem == "top_scores":
        return tables.top_score_rows(groups)
    if stem in ("difference", "gain_by_size") and all(x.method != "an" for x in groups):
        raise _Omitted("no run of the method an, which the others are compared with")
    if stem == "difference":
        if not (groups[0].runs[0].labels == POSITIVE).any():
            raise _Omitted(f"no class has a positive in {found.split}")
        rows = tables.difference_rows(groups)
        if not rows:
            raise _Omitted("no other method has a run with a seed of an's")
        return rows
    if stem == "gain_by_size":
        examples = _boxed(found)
        sizes = measures.largest_objects(examples.boxes, examples.areas, len(found.class_names))
        if np.isnan(sizes[examples.labels == POSITIVE]).all():
            raise _Omitted("no positive has a box")
        return tables.size_rows(groups, sizes)
    if stem == "crop_interval":
        if found.crops is None:
            raise _Omitted("--experiment_csv is not given")
        return found.crops
    if stem == "selection":
        rows = tables.selection_rows(groups)
        if not rows:
            raise _Omitted("no run selected expected positives whose true labels are known")
        return rows
    if stem == "pointing":
        return tables.pointing_rows(groups, _boxed(found).boxes)
    if stem == "per_class":
        rows = tables.class_rows(groups, found.class_names)
        if not rows:
            raise _Omitted(f"no class has a positive in {found.split}")
        return rows
    if (groups[0].runs[0].labels == UNKNOWN).all():
        raise _Omitted(f"no label is known in {found.split}")
    return tables.reliability_rows(groups)


def _tables(
    found: _Analysis,
) -> tuple[list[tuple[AnalysisFigure, list[Any]]], list[tuple[AnalysisFigure, str]]]:
    """The figures that can be had with their rows, and the others with the reasons."""
    from spml_tf.figures import analysis_index

    drawn, omitted = [], []
    for figure in analysis_index.FIGURES:
        try:
            drawn.append((figure, _rows(figure.stem, found)))
        except _Omitted as reason:
            print(f"note: {figure.stem} is left out: {reason}", file=sys.stderr)
            omitted.append((figure, str(reason)))
    return drawn, omitted


def _draw_all(
    folder: Path, found: _Analysis, tables: Sequence[tuple[AnalysisFigure, list[Any]]]
) -> None:
    from spml_tf.drawing import figure_files
    from spml_tf.figures import analysis_figures

    names = [group.name for group in found.groups]
    for figure, rows in tables:
        print(f"drawing {figure.stem}", file=sys.stderr)
        split = "val" if figure.stem == "top_scores" else found.split
        where = "" if figure.of_training else f": {found.dataset}, {split}"
        title = f"{figure.heading}{where}{analysis_figures.seeds(rows)}"
        figure_files.write(folder, figure.stem, rows, figure.draw(rows, title, names))


def _command(options: _Options) -> str:
    default = _Options()
    flags = [
        f"--{name}={value}"
        for name, value in dataclasses.asdict(options).items()
        if value != getattr(default, name)
    ]
    return shlex.join(["python", "-m", "spml_tf.analyze", *flags])


def _action(options: _Options) -> None:
    for name in ("run_dirs", "output_dir"):
        if not getattr(options, name):
            raise UserError(f"--{name} is missing; see --help")
    if options.batch_size < 1:
        raise UserError(f"--batch_size={options.batch_size}: must be at least 1")
    cli.import_tensorflow()
    analyze(options)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; see `cli.run` for the exit codes."""
    return cli.run(argv, _Options, _USAGE, _action, tensorflow=False)


if __name__ == "__main__":
    sys.exit(main())
