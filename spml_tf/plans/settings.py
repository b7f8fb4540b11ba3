"""How a plan is run: one field per flag of the command."""

from __future__ import annotations

import dataclasses

from spml_tf.system import cli


@dataclasses.dataclass(frozen=True)
class PlanSettings:
    """Which plan is run, where, and on what; see the texts of the flags."""

    plan: str = cli.flag_field(
        None,
        "TOML file, or the name of one that comes with spml_tf, such as table1_digits; "
        "experiments/README.md says what is in it.",
        required=True,
    )
    output_dir: str = cli.flag_field(None, "Folder for runs and results.", required=True)
    data_dir: str | None = cli.flag_field(None, "--data_dir of every run.")
    processes: int = cli.flag_field(1, "Runs trained at a time.", int)
    threads: int = cli.flag_field(1, "CPU threads of each run; 0: all.", int)
    only: str | None = cli.flag_field(
        None, "Comma-separated rows or methods: run these, and the rows they follow, only."
    )
    plugins: str | None = cli.plugins_field()
    strategy: str = cli.strategy_field()
    devices: int = cli.devices_field()
    workers: int = cli.workers_field()

    def __post_init__(self) -> None:
        cli.check_range("processes", self.processes, 1, 1024)
        cli.check_range("threads", self.threads, 0, 1024)
