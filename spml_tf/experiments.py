"""Runs a plan of runs: `python -m spml_tf.experiments --plan=FILE --output_dir=DIR`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence

from spml_tf.plans.settings import PlanSettings
from spml_tf.system import cli, presets
from spml_tf.system.errors import UserError
from spml_tf.system.flag_fields import list_presets_field
from spml_tf.system.tensorflow_import import import_tensorflow

USAGE = """Trains the runs of a plan, one process each, and writes their table.

usage: python -m spml_tf.experiments --plan=FILE --output_dir=DIR [--flag=value ...]

DIR gets the plan's results: a CSV (a row a run) and a Markdown table, both anew after every run, a
figure at the end (PNG, SVG), all named as the plan is; the runs in runs/, those of its search in
search/, their output in logs/. The same command goes on where it stopped. Plans may share DIR: a
run that two of them name alike, with the same flags, is trained once."""


@dataclasses.dataclass(frozen=True)
class _Options(PlanSettings):
    list_presets: bool = list_presets_field(presets.plans)


def _action(options: _Options) -> None:
    import_tensorflow()  # refuses another backend, of which every run would tell
    from spml_tf.plans.experiment import Experiment

    experiment = Experiment(options)
    failures = experiment.run()
    if experiment.finished():
        print(f"results in {experiment.table}")
    if failures:
        for name, reason in failures.items():
            print(f"failed {name}: {reason}", file=sys.stderr)
        raise UserError(f"{len(failures)} runs failed; the same command tries them again")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; see `cli.run` for the exit codes."""
    return cli.run(argv, _Options, USAGE, _action, tensorflow=False)


if __name__ == "__main__":
    sys.exit(main())
