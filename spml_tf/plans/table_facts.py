"""What must be known beside a plan's table: command, code, machine, time."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from spml_tf.plans import result_tables
from spml_tf.plans.settings import PlanSettings
from spml_tf.runs.run_folder import RunFolder
from spml_tf.system.flag_fields import words_of
from spml_tf.system.flag_words import split_names


def facts(
    settings: PlanSettings, rows: Sequence[Mapping[str, Any]], folders: Sequence[RunFolder]
) -> list[str]:
    """Lines of Markdown about the runs of a table.

    Args:
        settings: how the plan is run.
        rows: of the table's CSV, at least one.
        folders: of the same runs.
    """
    machines = dict.fromkeys(_machine(folder.read_record()) for folder in folders)
    trained = sum(row["seconds"] for row in rows)
    return [
        f"`{_command(settings)}`",
        f"Commit: {', '.join(dict.fromkeys(row['commit'] for row in rows))}",
        f"Machine: {'; '.join(machines)}",
        f"{len(rows)} runs, {_duration(trained)} of training in all",
        *result_tables.known_labels(folders),
    ]


def facts_of_search(
    trials: Sequence[RunFolder],
    chosen: Mapping[str, Mapping[str, str]],
    earlier: Collection[str],
) -> list[str]:
    """Lines of Markdown about a search.

    Args:
        trials: folders of its finished runs.
        chosen: texts of the flags it has chosen, by row.
        earlier: rows whose flags an earlier search has chosen.
    """
    words = [
        " ".join([row, *(f"{name}={value}" for name, value in flags.items())])
        for row, flags in chosen.items()
    ]
    before = f"; of earlier searches: {', '.join(earlier)}" if earlier else ""
    return [
        f"Search: {len(trials)} runs, {_duration(sum(map(result_tables.seconds, trials)))}{before}",
        f"Chosen on validation: {'; '.join(words)}",
    ]


def _command(settings: PlanSettings) -> str:
    """The command that makes the table.

    Not --only: the table is the plan's, in however many parts it was run.
    """
    words = [f"--plan={_shown(settings.plan)}", "--output_dir=DIR"]
    words += ["--data_dir=DATA_DIR"] if settings.data_dir else []
    words += [f"--processes={settings.processes}", f"--threads={settings.threads}"]
    if settings.searched:
        named = split_names("searched", settings.searched)
        words.append(f"--searched={','.join(map(_shown, named))}")
    if settings.plugins:
        named = settings.plugins.split(",")
        shown = ",".join(_shown(x) if "/" in x else x for x in named)
        settings = dataclasses.replace(settings, plugins=shown)
    words += words_of(settings, ("plugins", "strategy", "devices", "workers"))
    return " ".join(["python -m spml_tf.experiments", *words])


def _shown(path: str) -> str:
    """The path seen from here, so that a table names no folder of one machine."""
    given, here = Path(path).absolute(), Path.cwd()
    return str(given.relative_to(here)) if given.is_relative_to(here) else given.name


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"


def _machine(record: Mapping[str, Any]) -> str:
    machine, versions = record["machine"], record["versions"]
    gpus = f", {len(machine['gpus'])} GPUs a run" if machine["gpus"] else ""
    return (
        f"{machine['cores']} cores of {machine['processor']}{gpus}, TensorFlow "
        f"{versions['tensorflow']}, Keras {versions['keras']}"
    )
