"""Finished runs to compare: what they predicted, and which of them differ in their seed only."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spml_tf.runs.run_flags import FREE
from spml_tf.runs.run_folder import RunFolder
from spml_tf.runs.settings import Settings
from spml_tf.system.errors import UserError

# Flags in which runs of one group may differ.
_FREE = (*FREE, "seed", "record_heatmaps")
# Folders of earlier runs, which differ between seeds: only whether they are given counts.
_FOLDERS = ("initial_banks", "init_from")


@dataclasses.dataclass(frozen=True)
class RunScores:
    """What is read of a run.

    Attributes:
        folder: its folder.
        settings: its settings.
        val_scores: float [N, L], scores of the validation images.
        labels: int8 [M, L] of the images reported on, those of `reported_split`.
        scores: float [M, L] of these.
        names: str [M] of these.
        history: rows of history.csv.
    """

    folder: RunFolder
    settings: Settings
    val_scores: NDArray[Any]
    labels: NDArray[Any]
    scores: NDArray[Any]
    names: NDArray[Any]
    history: Sequence[Mapping[str, str]]


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that are shown as one.

    Attributes:
        name: what it is called.
        method: the method of its runs.
        runs: at least one.
    """

    name: str
    method: str
    runs: tuple[RunScores, ...]


def reported_split(settings: Settings) -> str:
    """The split to report on: "test", or "val" where the run has no test images."""
    return "val" if settings.test_split == "none" else "test"


def read_groups(paths: Sequence[str], names: Sequence[str] | None = None) -> tuple[Group, ...]:
    """Reads finished runs on the same data.

    Args:
        paths: their folders.
        names: a name for each run, runs of one name being a group. None: the method, and the flags
            in which the given runs of that method differ, other than the seed.

    Returns:
        The groups, in the order of their first runs.

    Raises:
        UserError: a run is missing, unfinished or unreadable, given twice, or two of them differ in
            data set, classes or images; or two runs of a group have the same seed.
    """
    _check_paths(paths)
    runs = [_read_run(RunFolder(path)) for path in paths]
    for run in runs[1:]:
        _compare(runs[0], run)
    if names is None:
        names = _default_names([run.settings for run in runs])
    elif len(names) != len(runs) or not all(names):
        raise UserError(f"--names={','.join(names)}: give a name for each of the {len(runs)} runs")
    members: dict[str, list[RunScores]] = {}
    for name, run in zip(names, runs, strict=True):
        _check_member(name, members.setdefault(name, []), run)
        members[name].append(run)
    return tuple(
        Group(name, group[0].settings.method, tuple(group)) for name, group in members.items()
    )


def _check_paths(paths: Sequence[str]) -> None:
    seen = set()
    for path in paths:
        if not path:
            raise UserError("--run_dirs: an empty name; give folders with one comma between two")
        if os.path.realpath(path) in seen:
            raise UserError(f"--run_dirs: {path} stands there twice; leave one out")
        seen.add(os.path.realpath(path))


def _read_run(run: RunFolder) -> RunScores:
    settings = run.settings()
    run.check_finished()
    val = _predictions(run, "val")
    reported = _predictions(run, reported_split(settings))
    history = run.read_history(settings.epochs)
    labels, scores, names = (reported[part] for part in ("labels", "scores", "names"))
    return RunScores(run, settings, val["scores"], labels, scores, names, history)


def _predictions(run: RunFolder, split: str) -> dict[str, NDArray[Any]]:
    found = run.read_predictions(split)
    if not np.isfinite(found["scores"]).all():
        raise UserError(
            f"{run.predictions(split)}: holds scores that are not finite; leave this run out"
        )
    return found


def _compare(first: RunScores, other: RunScores) -> None:
    """Refuses runs that do not share data set, classes and images."""
    both = f"--run_dirs: {first.folder.path} and {other.folder.path}"
    advice = "compare runs on the same data"
    sets = first.settings.dataset, other.settings.dataset
    if sets[0] != sets[1]:
        raise UserError(f"{both} have different data sets ({sets[0]} and {sets[1]}); {advice}")
    classes = [run.folder.read_record()["class_names"] for run in (first, other)]
    if classes[0] != classes[1]:
        raise UserError(f"{both} have different classes ({_difference(*classes)}); {advice}")
    reported = [reported_split(run.settings) for run in (first, other)]
    if reported[0] != reported[1]:
        raise UserError(
            f"{both} are reported on different splits ({reported[0]} and {reported[1]}, see "
            f"--test_split); {advice}"
        )
    for split in sorted({"val", *reported}):
        one, two = (_predictions(run.folder, split) for run in (first, other))
        for part in ("names", "labels"):
            if not np.array_equal(one[part], two[part]):
                what = "images" if part == "names" else "labels"
                raise UserError(f"{both} have different {what} in their {split} split; {advice}")


def _difference(one: Sequence[str], two: Sequence[str]) -> str:
    single = [name for name in (*one, *two) if (name in one) != (name in two)]
    return f"{single[0]!r} is in one only" if single else "their order differs"


def _default_names(settings: Sequence[Settings]) -> list[str]:
    names = []
    for given in settings:
        own = _compared(given)
        alike = [_compared(other) for other in settings if other.method == given.method]
        differing = [flag for flag in own if any(other[flag] != own[flag] for other in alike)]
        names.append(" ".join([given.method, *(f"{flag}={own[flag]}" for flag in differing)]))
    return names


def _compared(settings: Settings) -> dict[str, Any]:
    flags: dict[str, Any] = dataclasses.asdict(settings)
    flags |= {flag: "yes" if flags[flag] else "no" for flag in _FOLDERS}
    return {flag: value for flag, value in flags.items() if flag not in _FREE}


def _check_member(name: str, group: Sequence[RunScores], run: RunScores) -> None:
    for other in group:
        both = f"--run_dirs: {other.folder.path} and {run.folder.path} are both {name!r}"
        if other.settings.method != run.settings.method:
            raise UserError(f"{both} but of different methods; give them different --names")
        if other.settings.seed == run.settings.seed:
            raise UserError(
                f"{both} and have the same --seed={run.settings.seed}; leave one out, or tell them "
                "apart with --names"
            )
