"""A run's flags: as a flagfile that repeats it, and how they differ from those it began with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spml_tf.runs.settings import Settings, options_of_others, resolve
from spml_tf.system.errors import UserError
from spml_tf.system.flag_fields import text_of

# These may change between start and resumption: they do not change the results. What lies in the
# data's folder does, but that is compared by itself.
FREE = (
    "data_dir", "threads", "strategy", "devices", "workers", "bank_device", "bank_dir",
    "checkpoint_minutes", "max_loss", "max_megapixels", "feature_dir", "tracker",
)  # fmt: skip


def flagfile(settings: Settings, given: Settings | None = None) -> str:
    """The text of a flagfile that gives these settings.

    Args:
        settings: resolved or not.
        given: what they were resolved from. Values that follow from it are then comments, so that
            those of them that follow from a flag change with it. None: all are flags.

    Raises:
        UserError: a value that a line of a flagfile cannot hold, such as a path with a line break.
    """
    lines = ["# python -m spml_tf.train --flagfile=THIS_FILE --output_dir=DIR"]
    for name, value in dataclasses.asdict(settings).items():
        if value is not None:
            text = text_of(value)
            line = f"--{name}={text}"
            if given is not None and getattr(given, name) is None:
                line = f"# {line} (derived)"
            if line.strip() != line or len(line.splitlines()) > 1:
                raise UserError(
                    f"--{name}={text!r}: holds a line break, or ends with a blank, which a "
                    "flagfile cannot hold; rename it"
                )
            lines.append(line)
    return "\n".join(lines) + "\n"


def changes(settings: Settings, record: Mapping[str, Any], folder: Path) -> list[str]:
    """How flags differ from those of a folder's run, a sentence each.

    Options of parts that the method does not have change nothing, and do not count.

    Args:
        settings: resolved.
        record: the run's run.json.
        folder: the run's, beside which moved runs are looked for.
    """
    free = {*FREE, *options_of_others(settings.method)}
    now, recorded = dataclasses.asdict(settings), record["flags"]
    # An older version did not know all flags: these have the values that follow from the rest.
    known = {name: value for name, value in recorded.items() if name in now}
    before = dataclasses.asdict(resolve(type(settings)(**known))) | known
    # A file of priors may lie anywhere: its content is compared.
    free |= {x for x in record.get("priors", {}) if before.get(x) and now.get(x)}
    return [
        f"--{name} was {before[name]} and is {value}"
        for name, value in now.items()
        if before[name] != value
        and name not in free
        and not _was_moved(name, before[name], value, folder)
    ]


def _was_moved(name: str, before: Any, now: Any, folder: Path) -> bool:
    """Whether the run that this one follows has only gone to another place."""
    if name not in ("initial_banks", "init_from") or not (before and now):
        return False
    old, new = Path(before), Path(now)
    beside = new.parent == folder.absolute().parent
    return beside and new.name == old.name and not old.exists()
