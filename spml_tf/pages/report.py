"""A run's report: read from its folder and its data, put together as a page."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import keras

from spml_tf import networks
from spml_tf.datasets import summaries
from spml_tf.datasets.splits import Splits
from spml_tf.evaluation import missing_labels
from spml_tf.labels import UNKNOWN
from spml_tf.pages import network_photos, report_page, suspect_labels
from spml_tf.pages.report_page import Pictures
from spml_tf.pages.report_photos import LabelPhoto, ShownPhoto
from spml_tf.runs import run_data, run_groups
from spml_tf.runs.run_groups import RunScores
from spml_tf.system.errors import UserError
from spml_tf.system.notes import tell_note


class _OmittedError(Exception):
    """A part cannot be had; the text says why."""


def build(
    run_dir: str,
    others: Sequence[str] = (),
    data_dir: str | None = None,
    images: int = 24,
    candidates: int = 24,
    batch_size: int = 32,
) -> str:
    """The page about a run, as HTML.

    Args:
        run_dir: folder of the finished run.
        others: folders of finished runs on the same data, to compare it with.
        data_dir: folder of the data set, None for the run's own.
        images: how many photos to show with heatmaps.
        candidates: how many labels to show as probably missing.
        batch_size: images at a time.

    Raises:
        UserError: for runs that cannot be read or compared, or data that cannot be read from
            `data_dir`.
    """
    runs = _read_runs(run_dir, others)
    first = next(iter(runs.values()))
    metrics = {name: run.folder.read_metrics() for name, run in runs.items()}
    pictures = _pictures(first, data_dir, images, candidates, batch_size)
    return report_page.build(runs, metrics, pictures)


def _read_runs(run_dir: str, others: Sequence[str]) -> dict[str, RunScores]:
    """The run and those it is compared with, by the names of their folders."""
    paths = [run_dir, *others]
    names = [os.path.basename(os.path.abspath(path)) for path in paths]
    names = names if len(set(names)) == len(names) else paths
    try:
        groups = run_groups.read_groups(paths, [name or "?" for name in names])
    except UserError as error:
        raise UserError(str(error).replace("--run_dirs:", "--compare:")) from None
    return {group.name: group.runs[0] for group in groups}


def _pictures(
    run: RunScores, data_dir: str | None, images: int, candidates: int, batch_size: int
) -> Pictures:
    data = _data(run, data_dir)
    if isinstance(data, str):
        tell_note(f"photos and missing labels are left out: {data}")
        return Pictures((), (), data, data)
    network = networks.load_network(run.folder.best_network())
    photos = _gallery(run, data, network, images, batch_size)
    none = "" if photos else f"--images={images}"
    try:
        return Pictures(photos, _missing(run, data, network, candidates, batch_size), none)
    except _OmittedError as reason:
        tell_note(f"missing labels are left out: {reason}")
        return Pictures(photos, (), none, str(reason))


def _data(run: RunScores, data_dir: str | None) -> Splits | str:
    """The run's data, or why they cannot be had."""
    try:
        return run_data.load_of_run(run.folder, data_dir)
    except UserError as error:
        if data_dir is not None:
            raise
        return str(error)


def _gallery(
    run: RunScores, data: Splits, network: keras.Model, images: int, batch_size: int
) -> list[ShownPhoto]:
    examples = data.parts[run_groups.reported_split(run.settings)]
    chosen = examples.subset(summaries.choose(examples.labels, images))
    print(f"heatmaps of {len(chosen)} photos", file=sys.stderr)
    return network_photos.photos(network, chosen, run.settings.image_size, batch_size)


def _missing(
    run: RunScores, data: Splits, network: keras.Model, candidates: int, batch_size: int
) -> list[LabelPhoto]:
    """The labels that are probably missing.

    Raises:
        _OmittedError: where none is wanted or unknown, or the checkpoint cannot be read.
    """
    if not candidates:
        raise _OmittedError("--candidates=0")
    if not (data.observed == UNKNOWN).any():
        raise _OmittedError("every label of the training images is known")
    try:
        saved = suspect_labels.read_checkpoint(run.folder, data)
    except UserError as error:
        raise _OmittedError(str(error)) from None
    found = missing_labels.rank_missing(
        saved.scores, data.observed, saved.epochs_selected, candidates
    )
    print(f"heatmaps of {len(found)} missing labels", file=sys.stderr)
    return suspect_labels.photos(
        network, data.train, data.observed, found, run.settings.image_size, batch_size
    )
