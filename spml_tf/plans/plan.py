"""Plans: the rows of a table and the runs behind them."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping
from typing import Any

from spml_tf.runs.settings import Settings, settings_class
from spml_tf.system import cli
from spml_tf.system.errors import UserError
from spml_tf.training import methods


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        name: as it is shown, and the beginning of its runs' names.
        method: as --method takes it.
        flags: texts by flag, those common to all rows and of flagfiles among them.
        paper: the paper's number, None where there is none.
        after: the row whose runs' banks these runs start from, None to start from none.
        grid: texts that a search tries, by flag; {} where the plan has no search, and for a row
            that follows another, which takes what was chosen for that one.
    """

    name: str
    method: str
    flags: Mapping[str, str]
    paper: float | None
    after: str | None
    grid: Mapping[str, tuple[str, ...]]

    def trials(self) -> list[dict[str, str]]:
        """What a search of this row tries: texts by flag, the last flag changing fastest.

        Examples:
            >>> Row("an", "an", {}, None, None, {"batch_size": ("8", "16")}).trials()
            [{'batch_size': '8'}, {'batch_size': '16'}]
        """
        return [
            dict(zip(self.grid, x, strict=True)) for x in itertools.product(*self.grid.values())
        ]


@dataclasses.dataclass(frozen=True)
class Search:
    """Short runs over each row's grid, before its runs proper.

    Attributes:
        seed: of the trial runs.
        epochs: of the trial runs.
    """

    seed: int
    epochs: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a plan file says.

    Attributes:
        title: of the table.
        paper: what the paper's numbers are of, "" where no row has one.
        seeds: every row is run with each.
        rows: in the order of the table.
        baseline, oracle: rows between which the share of the gap is measured, or None.
        vary: flag that every row is run over, "" for none.
        values: texts of that flag.
        search: None for none.
        compare: pairs of rows whose difference is reported, beside that of each row to the
            baseline.
        along: texts of flags that change with the varied one, as many as it has.
    """

    title: str
    paper: str
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    baseline: str | None
    oracle: str | None
    vary: str
    values: tuple[str, ...]
    search: Search | None
    compare: tuple[tuple[str, str], ...] = ()
    along: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def varied(self, value: str) -> dict[str, str]:
        """Texts of the varied flag and of those along with it, by flag; {} where none varies."""
        if not self.vary:
            return {}
        place = self.values.index(value)
        return {self.vary: value, **{name: texts[place] for name, texts in self.along.items()}}

    def leader(self, row: Row) -> Row:
        """The row at the beginning of the chain that a row follows, or the row itself."""
        while row.after is not None:
            row = next(other for other in self.rows if other.name == row.after)
        return row


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a plan.

    Attributes:
        name: of its folder.
        row: name of its row.
        value: text of the varied flag, "" where none is.
        seed: of the run.
        flags: texts by flag, method and seed among them.
        after: name of the run whose banks it starts from, or None.
        trial: texts of the flags that a search tries, empty outside of one.
    """

    name: str
    row: str
    value: str
    seed: int
    flags: Mapping[str, str]
    after: str | None = None
    trial: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def settings(self, **others: Any) -> Settings:
        """The run's settings, unresolved.

        Args:
            others: what the plan leaves to the command; None is not given.
        """
        settings = cli.parse([f"--{k}={v}" for k, v in self.flags.items()], settings_class(), "")
        given = {name: value for name, value in others.items() if value is not None}
        return dataclasses.replace(settings, **given)


def selected_rows(plan: Plan, only: str | None) -> set[str]:
    """Names of the rows to run.

    Args:
        plan: the plan.
        only: comma-separated names of rows, or of methods where no row is named so; None for all.

    Returns:
        The names, those of the rows that these follow among them.

    Raises:
        UserError: for a name that is neither.
    """
    if only is None:
        return {row.name for row in plan.rows}
    found: set[str] = set()
    for word in (word.strip() for word in only.split(",")):
        named = {row.name for row in plan.rows if row.name == word}
        named = named or {row.name for row in plan.rows if row.method == word}
        if not named:
            known = ", ".join(row.name for row in plan.rows)
            raise UserError(f"--only={only}: there is no row or method {word!r}; rows: {known}")
        found |= named
    for row in reversed(plan.rows):  # a row follows an earlier one
        if row.name in found and row.after is not None:
            found.add(row.after)
    return found


def runs(plan: Plan, chosen: Mapping[str, Mapping[str, str]] | None = None) -> list[Run]:
    """The runs of a plan, in the order to run them: all rows with the first seed come first.

    Args:
        plan: the plan.
        chosen: texts of the flags that a search has chosen, by row; a row that follows another
            takes that one's.

    Returns:
        The runs; a run's predecessor stands before it.
    """
    found = []
    for seed, row, value in itertools.product(plan.seeds, plan.rows, plan.values or ("",)):
        part = f"_{_slug(value)}_{seed}" if plan.vary else f"_{seed}"
        flags = {**row.flags, **(chosen or {}).get(plan.leader(row).name, {})}
        flags |= {**plan.varied(value), "method": row.method, "seed": str(seed)}
        after = None if row.after is None else row.after + part
        found.append(Run(row.name + part, row.name, value, seed, flags, after))
    return found


def search_runs(plan: Plan) -> list[Run]:
    """The trial runs of a plan's search, none without one; every searched row gets as many.

    Flags that count epochs (warm-up, start of selection and of consistency) shrink as the epochs
    do, and a rate an epoch (large_loss_rate, its default too) grows, so that a trial is a short
    version of the run. What starts after the first epoch, which fills the banks, still does.

    Args:
        plan: the plan.

    Returns:
        The runs, row by row, the last flag of the grid changing fastest.
    """
    if plan.search is None:
        return []
    search, found = plan.search, []
    for row in [row for row in plan.rows if row.grid]:
        for trial in row.trials():
            flags = {**row.flags, **trial, "method": row.method, "seed": str(search.seed)}
            flags = _shortened(flags, search.epochs)
            name = "_".join([row.name, *(f"{flag}-{_slug(x)}" for flag, x in trial.items())])
            found.append(Run(name, row.name, "", search.seed, flags, trial=trial))
    return found


def _shortened(flags: Mapping[str, str], epochs: int) -> dict[str, str]:
    ratio = epochs / int(flags["epochs"])
    found = {**flags, "epochs": str(epochs)}
    own = methods.flags_of(flags["method"])
    for name, option in methods.declared_options().items():
        by_default = name in own and option.in_runs is None and option.default is not None
        if option.scales in ("epoch", "epochs") and (name in flags or by_default):
            value = int(flags.get(name, option.default))
            none = 1 if option.scales == "epoch" else 0
            least = min(value, 2) if none else 0
            found[name] = str(max(least, none + round((value - none) * ratio)))
        if option.scales == "rate" and (name in flags or name in own):
            found[name] = str(float(flags.get(name, option.default)) / ratio)
    return found


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9+.-]+", "-", text)
