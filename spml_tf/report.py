"""A page about a run: `python -m spml_tf.report --run_dir=DIR` writes DIR/report.html."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from spml_tf.system import cli
from spml_tf.system.errors import UserError
from spml_tf.system.files import replaced

if TYPE_CHECKING:
    import keras

    from spml_tf.datasets.splits import Splits
    from spml_tf.pages.report_page import Pictures
    from spml_tf.pages.report_photos import LabelPhoto, Photo
    from spml_tf.runs.run_groups import RunScores
    from spml_tf.runs.settings import Settings

_USAGE = """Writes DIR/report.html, one file that any browser shows without a network.

usage: python -m spml_tf.report --run_dir=DIR [--compare=DIR2,DIR3] [--data_dir=DIR] [--images=24]

The page holds the run's settings, its curves, the average precision of each class, photos with
heatmaps, the labels that the training data are probably missing, and a comparison with other runs
on the same data."""

_LARGEST_PAGE = 20_000_000  # bytes


@dataclasses.dataclass(frozen=True)
class _Options:
    run_dir: str | None = cli.flag_field(None, "Folder of the finished run.")
    compare: str | None = cli.flag_field(
        None, "Comma-separated folders of other finished runs on the same data."
    )
    data_dir: str | None = cli.flag_field(
        None, "Folder of the data set, where it is not the run's own."
    )
    images: int = cli.flag_field(24, "How many photos to show with heatmaps.", int)
    candidates: int = cli.flag_field(24, "How many labels to show as probably missing.", int)
    batch_size: int = cli.flag_field(32, "Images at a time.", int)


def report(options: _Options) -> str:
    """Writes the page.

    Args:
        options: the command's flags.

    Returns:
        The page's path.

    Raises:
        UserError: for runs that cannot be read or compared, data that cannot be read from
            --data_dir, a page that would be too large, or a folder that cannot be written.
    """
    from spml_tf.pages import report_page

    runs = _read_runs(options)
    first = next(iter(runs.values()))
    metrics = {name: _metrics(run) for name, run in runs.items()}
    content = report_page.build(runs, metrics, _pictures(first, options))
    size = len(content.encode("utf-8"))
    if size > _LARGEST_PAGE:
        raise UserError(
            f"--images={options.images} and --candidates={options.candidates}: the page would have "
            f"{size / 1e6:.0f} MB; give fewer"
        )
    path = first.folder.path / "report.html"
    try:
        with replaced(path) as temporary:
            temporary.write_text(content, "utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
    return str(path)


def _read_runs(options: _Options) -> dict[str, RunScores]:
    """The run and those it is compared with, by the names of their folders."""
    from spml_tf.runs import run_groups

    others = options.compare.split(",") if options.compare else []
    paths = [options.run_dir or "", *(path.strip() for path in others)]
    names = [os.path.basename(os.path.abspath(path)) for path in paths]
    names = names if len(set(names)) == len(names) else paths
    try:
        groups = run_groups.read_groups(paths, [name or "?" for name in names])
    except UserError as error:
        raise UserError(str(error).replace("--run_dirs:", "--compare:")) from None
    return {group.name: group.runs[0] for group in groups}


def _pictures(run: RunScores, options: _Options) -> Pictures:
    from spml_tf import networks
    from spml_tf.pages.report_page import Pictures

    data = _data(run, options.data_dir)
    if isinstance(data, str):
        print(f"note: photos and missing labels are left out: {data}", file=sys.stderr)
        return Pictures((), (), data, data)
    network = networks.load_network(run.folder.network)
    photos = _gallery(run, data, network, options)
    none = "" if photos else f"--images={options.images}"
    try:
        return Pictures(photos, _missing(run, data, network, options), none)
    except _Omitted as reason:
        print(f"note: missing labels are left out: {reason}", file=sys.stderr)
        return Pictures(photos, (), none, str(reason))


class _Omitted(Exception):
    """A part cannot be had; the text says why."""


def _data(run: RunScores, data_dir: str | None) -> Splits | str:
    """The run's data, or why they cannot be had."""
    from spml_tf.runs import run_data

    try:
        return run_data.load_of_run(run.folder, data_dir)
    except UserError as error:
        if data_dir is not None:
            raise
        return str(error)


def _gallery(run: RunScores, data: Splits, network: keras.Model, options: _Options) -> list[Photo]:
    from spml_tf.datasets import summaries
    from spml_tf.pages import network_photos
    from spml_tf.runs import run_groups

    split = run_groups.reported_split(run.settings)
    examples = data.parts[split]
    chosen = examples.subset(summaries.choose(examples.labels, options.images))
    print(f"heatmaps of {len(chosen)} photos", file=sys.stderr)
    return network_photos.photos(network, chosen, _side(run.settings), options.batch_size)


def _side(settings: Settings) -> int:
    if settings.image_size is None:
        raise ValueError("the settings of a run are resolved")
    return settings.image_size


def _missing(
    run: RunScores, data: Splits, network: keras.Model, options: _Options
) -> list[LabelPhoto]:
    """The labels that are probably missing.

    Raises:
        _Omitted: where none is wanted or unknown, or the checkpoint cannot be read.
    """
    from spml_tf.evaluation import missing_labels
    from spml_tf.labels import UNKNOWN
    from spml_tf.pages import suspect_labels

    if not options.candidates:
        raise _Omitted("--candidates=0")
    if not (data.observed == UNKNOWN).any():
        raise _Omitted("every label of the training images is known")
    try:
        saved = suspect_labels.read_checkpoint(run.folder, data)
    except UserError as error:
        raise _Omitted(str(error)) from None
    found = missing_labels.rank_missing(
        saved.scores, data.observed, saved.epochs_selected, options.candidates
    )
    print(f"heatmaps of {len(found)} missing labels", file=sys.stderr)
    return suspect_labels.photos(network, data, found, _side(run.settings), options.batch_size)


def _metrics(run: RunScores) -> dict[str, Any]:
    """metrics.json, with the parts that the page shows."""
    path = run.folder.metrics
    try:
        found = run.folder.read_metrics()
        for part in ("val", "test"):
            if part in found:
                _ = found[part]["map"], found[part]["ap"].items()
        _ = found["best_epoch"], found["val"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); train this run again") from None
    return found


def _action(options: _Options) -> None:
    if not options.run_dir:
        raise UserError("--run_dir is missing; see --help")
    for name, low in (("images", 0), ("candidates", 0), ("batch_size", 1)):
        if getattr(options, name) < low:
            raise UserError(f"--{name}={getattr(options, name)}: must be at least {low}")
    cli.import_tensorflow()
    print(report(options))


def main(argv: Sequence[str] | None = None) -> int:
    """The command; see `cli.run` for the exit codes."""
    return cli.run(argv, _Options, _USAGE, _action, tensorflow=False)


if __name__ == "__main__":
    sys.exit(main())
