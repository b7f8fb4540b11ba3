"""How a plan is run: one field per flag of the command."""

from __future__ import annotations

import dataclasses

from spml_tf.system.flag_fields import (
    devices_field,
    flag_field,
    plugins_field,
    strategy_field,
    workers_field,
)


@dataclasses.dataclass(frozen=True)
class PlanSettings:
    """Which plan is run, where, and on what; see the texts of the flags."""

    plan: str = flag_field(
        None,
        "TOML file, or the name of one that comes with spml_tf, such as table1_digits; "
        "experiments/README.md says what is in it.",
        required=True,
    )
    output_dir: str = flag_field(None, "Folder for runs and results.", required=True)
    data_dir: str | None = flag_field(None, "--data_dir of every run.")
    processes: int = flag_field(1, "Runs trained at a time.", int, low=1, high=1024)
    threads: int = flag_field(1, "CPU threads of each run; 0: all.", int, low=0, high=1024)
    only: str | None = flag_field(
        None, "Comma-separated rows or methods: run these, and the rows they follow, only."
    )
    searched: str | None = flag_field(
        None,
        "Comma-separated PLAN_search.json files of earlier searches: rows that one has take what "
        "was chosen there, and are not searched again. Name and values of a row's trials must be "
        "the plan's; its method, data, seed and epochs are not compared.",
    )
    plugins: str | None = plugins_field()
    strategy: str = strategy_field()
    devices: int = devices_field()
    workers: int = workers_field()
