"""Reads plans from TOML files, with messages that name file and key."""

from __future__ import annotations

import collections
import dataclasses
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from spml_tf.plans.plan import Plan, Row, Search, runs, search_runs
from spml_tf.runs.settings import settings_class
from spml_tf.system import cli
from spml_tf.system.errors import UserError
from spml_tf.system.flag_fields import text_of
from spml_tf.system.nearest import guess
from spml_tf.system.text_files import read_text
from spml_tf.training import methods

# Flags that a plan says in another way.
_ELSEWHERE = {
    "method": "it is a key of each row",
    "seed": "it follows from seeds = [0, 1, 2]",
    "threads": "give it to the command, it does not change results",
    "plugins": "give it to the command, which loads them before it reads the plan",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9+_.-]{0,79}")
_NAME_BYTES = 200  # of a run's folder: systems allow 255, and its log has an ending
_REQUIRED = object()
# Texts of values, by flag.
_Grid = Mapping[str, tuple[str, ...]]


def read_plan(path: str | os.PathLike[str]) -> Plan:
    """Reads and checks a plan.

    Args:
        path: the TOML file; `experiments/README.md` says what may stand in it.

    Returns:
        The plan.

    Raises:
        UserError: for anything that is missing, unknown or does not fit, naming file and key.
    """
    text = read_text(path, "--plan takes a TOML file")
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # thousands of digits, or of brackets
        raise UserError(f"{path}: not valid TOML ({error})") from None
    try:
        plan = _plan(table, Path(path).parent)
        for place, found in (("runs", runs(plan)), ("search", search_runs(plan))):
            _check_names([run.name for run in found], place)
            for run in found:
                if len(run.name) > _NAME_BYTES:
                    raise UserError(f"{place}: {run.name[:40]}... is too long a name for a folder")
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return plan


def _plan(table: dict[str, Any], folder: Path) -> Plan:
    _check_keys(
        "",
        table,
        "title paper seeds baseline oracle flags rows vary along search compare".split(),
    )
    common = _flags("flags", _get("", table, "flags", dict, {}))
    entries = _get("", table, "rows", list)
    search, grid = _search(_get("", table, "search", dict, None))
    reader = _RowReader(folder, common, grid)
    rows = [reader.read(f"rows[{n}]", entry) for n, entry in enumerate(entries)]
    _check_names([row.name for row in rows], "rows")
    _check_order(rows)
    if not rows:
        raise UserError("rows: there is none; add [[rows]] with name and method")
    ends = [_get("", table, key, str, None) for key in ("baseline", "oracle")]
    for key, name in zip(("baseline", "oracle"), ends, strict=True):
        if name is not None and name not in [row.name for row in rows]:
            raise UserError(f"{key}: there is no row {name!r}")
    if ends.count(None) == 1 or (ends[0] is not None and ends[0] == ends[1]):
        raise UserError("baseline, oracle: give both, of different rows, or neither")
    vary = _grid("vary", _get("", table, "vary", dict, {}))
    if len(vary) > 1:
        raise UserError(
            f"vary: one flag at a time, found {', '.join(vary)}; what changes with it goes in along"
        )
    along = _along(_get("", table, "along", dict, {}), vary)
    if search is not None:
        _check_search(search, rows, {**vary, **along})
    paper = _line("paper", _get("", table, "paper", str, ""))
    if not paper and any(row.paper is not None for row in rows):
        raise UserError("paper: missing; say what the paper's numbers in the rows are of")
    return Plan(
        title=_line("title", _get("", table, "title", str)),
        paper=paper,
        seeds=_seeds(_get("", table, "seeds", list)),
        rows=tuple(rows),
        baseline=ends[0],
        oracle=ends[1],
        vary=next(iter(vary), ""),
        values=next(iter(vary.values()), ()),
        search=search,
        compare=_pairs(_get("", table, "compare", list, []), [row.name for row in rows]),
        along=along,
    )


def _along(table: dict[str, Any], vary: _Grid) -> _Grid:
    """Flags that change with the varied one; two of its values may share one of theirs."""
    if table and not vary:
        raise UserError("along: needs vary, the flag that these change with")
    found = {}
    for name, values in table.items():
        if name in vary:
            raise UserError(f"along.{name}: is the flag that vary is of")
        found[name] = _texts("along", name, values)
        for varied, texts in vary.items():
            if len(found[name]) != len(texts):
                raise UserError(
                    f"along.{name}: {len(found[name])} values; give as many as "
                    f"vary.{varied} has, {len(texts)}"
                )
    return found


def _pairs(values: list[Any], names: list[str]) -> tuple[tuple[str, str], ...]:
    for value in values:
        if not isinstance(value, list) or len(value) != 2 or not all(x in names for x in value):
            raise UserError(f'compare: {value!r}: give pairs of rows, such as ["en+scl", "en"]')
    return tuple((first, second) for first, second in values)


@dataclasses.dataclass(frozen=True)
class _RowReader:
    """What all rows share: folder of the plan, flags, grid of the search (None: no search)."""

    folder: Path
    common: Mapping[str, str]
    grid: _Grid | None

    def read(self, place: str, table: Any) -> Row:
        if not isinstance(table, dict):
            raise UserError(f"{place}: must be a table, written [[rows]]")
        _check_keys(place, table, "name method flagfile flags paper after flag_grid".split())
        name = _get(place, table, "name", str)
        if not _NAME.fullmatch(name):
            raise UserError(
                f"{place}.name: {name!r} is no name of a folder; use up to 80 letters, digits, +_.-"
            )
        filed = _flagfile(f"{place}.flagfile", self.folder, _get(place, table, "flagfile", str, ""))
        method = _get(place, table, "method", str, filed.pop("method", _REQUIRED))
        try:
            methods.parts_of(method)
        except ValueError as error:
            raise UserError(f"{place}.method: {error}") from None
        own = _flags(f"{place}.flags", _get(place, table, "flags", dict, {}))
        flags = {**self.common, **filed, **own}
        paper = _get(place, table, "paper", float, None)
        if paper is not None and not 0 <= paper <= 100:
            raise UserError(f"{place}.paper: {paper} is no mAP in percent")
        after = _get(place, table, "after", str, None)
        if after is not None and "initial_banks" in flags:
            raise UserError(f"{place}.after: sets initial_banks, which is a flag of it; drop one")
        return Row(name, method, flags, paper, after, self._grid(place, table, after))

    def _grid(self, place: str, table: dict[str, Any], after: str | None) -> _Grid:
        own = _get(place, table, "flag_grid", dict, None)
        if own is not None and (self.grid is None or after is not None):
            raise UserError(f"{place}.flag_grid: needs [search], and a row without after; drop it")
        if self.grid is None or after is not None:
            return {}
        return self.grid if own is None else _grid(f"{place}.flag_grid", own)


def _flagfile(place: str, folder: Path, name: str) -> dict[str, str]:
    """Texts of a flagfile's flags by name, method among them; {} for no file.

    The file means what it means to the training command: the same parser reads its values.
    """
    if not name:
        return {}
    try:
        read_text(folder / name, "give a flagfile, seen from the plan's folder")
        word = f"--flagfile={folder / name}"
        given = cli.parse([word], settings_class(), "")
        words = absl_flags.FlagValues().read_flags_from_files([word])
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
    known = [field.name for field in dataclasses.fields(given)]
    flags = [x.lstrip("-").partition("=")[0] for x in words if x.startswith("-")]
    flags = [flag if flag in known else flag.removeprefix("no") for flag in flags]
    # A word may be another one's value, or the -- that ends the flags.
    found = {flag: getattr(given, flag) for flag in dict.fromkeys(flags) if flag in known}
    method = {"method": found.pop("method")} if "method" in found else {}
    return {**method, **_flags(place, found)}


def _check_order(rows: list[Row]) -> None:
    for number, row in enumerate(rows):
        if row.after is not None and row.after not in [x.name for x in rows[:number]]:
            raise UserError(f"rows[{number}].after: no row {row.after!r} stands before this one")


def _search(table: dict[str, Any] | None) -> tuple[Search | None, _Grid | None]:
    """The search and the grid of the rows that have no own."""
    if table is None:
        return None, None
    _check_keys("search", table, "flag_grid seed epochs".split())
    grid = _grid("search.flag_grid", _get("search", table, "flag_grid", dict, {}))
    seed, epochs = (_get("search", table, key, int) for key in ("seed", "epochs"))
    if seed < 0:
        raise UserError(f"search.seed: {seed} is no seed; give a whole number from 0")
    return Search(seed, epochs), grid


def _check_search(search: Search, rows: list[Row], vary: _Grid) -> None:
    for number, row in enumerate(rows):
        place = f"rows[{number}]"
        if row.after is not None:
            continue
        if not row.grid:
            raise UserError(
                f"search.flag_grid: missing or empty, and {place} has none either; name a flag"
            )
        for name in row.grid:
            if name == "epochs" or name in vary:
                raise UserError(f"{place}: {name} is not a flag to search; it is set elsewhere")
        if len(row.trials()) != len(rows[0].trials()):
            raise UserError(
                f"{place}.flag_grid: {len(row.trials())} trials, the first row has "
                f"{len(rows[0].trials())}; "
                "give every row as many, or the comparison is not fair"
            )
        if not 1 <= search.epochs <= int(row.flags.get("epochs", 0)):
            raise UserError(
                f"search.epochs: {search.epochs} must lie between 1 and the flag epochs of "
                f"{place}, {row.flags.get('epochs', 'which is not given')}"
            )


def _seeds(values: list[Any]) -> tuple[int, ...]:
    for value in values:
        if type(value) is not int or value < 0:
            raise UserError(f"seeds: {value!r} is no seed; give whole numbers from 0")
    if not values or len(set(values)) < len(values):
        raise UserError(f"seeds: {values}: give at least one, each once")
    return tuple(values)


def _grid(place: str, table: dict[str, Any]) -> _Grid:
    found = {}
    for name, values in table.items():
        found[name] = _texts(place, name, values)
        _check_names(found[name], f"{place}.{name}")
    return found


def _texts(place: str, name: str, values: Any) -> tuple[str, ...]:
    """A flag's values, as the command line's own parser reads them."""
    if not isinstance(values, list) or not values:
        raise UserError(f"{place}.{name}: give a list of values, found {values!r}")
    return tuple(_flags(place, {name: value})[name] for value in values)


def _flags(place: str, table: dict[str, Any]) -> dict[str, str]:
    """Texts of flags, as the command line's own parser reads them."""
    options = settings_class()
    known = [field.name for field in dataclasses.fields(options)]
    for name, value in table.items():
        if name not in known:
            near = guess(name, known) or "; python -m spml_tf.train --help lists them"
            raise UserError(f"{place}.{name}: there is no such flag{near}")
        if name in _ELSEWHERE:
            raise UserError(f"{place}.{name}: not here; {_ELSEWHERE[name]}")
        if not isinstance(value, str | int | float):
            raise UserError(f"{place}.{name}: {value!r} must be text, a number or a bool")
        _line(f"{place}.{name}", str(value))
    words = {name: f"--{name}={value}" for name, value in table.items()}
    try:
        given = cli.parse(list(words.values()), options, "")
    except UserError:
        for name, word in words.items():  # which of them it is
            try:
                cli.parse([word], options, "")
            except UserError as error:
                raise UserError(f"{place}.{name}: {error}") from None
        raise
    return {name: text_of(getattr(given, name)) for name in table}


def _check_keys(place: str, table: dict[str, Any], known: list[str]) -> None:
    for key in table:
        if key not in known:
            near = guess(key, known) or f"; known: {', '.join(known)}"
            raise UserError(f"{_at(place, key)}: there is no such key{near}")


def _check_names(names: Any, place: str) -> None:
    for name, count in collections.Counter(names).items():
        if count > 1:
            raise UserError(f"{place}: {name!r} is there {count} times, must be there once")


def _get(place: str, table: dict[str, Any], key: str, kind: type, default: Any = _REQUIRED) -> Any:
    if key not in table:
        if default is _REQUIRED:
            raise UserError(f"{_at(place, key)}: missing")
        return default
    value = table[key]
    allowed = (int, float) if kind is float else (kind,)
    if not isinstance(value, allowed) or isinstance(value, bool):
        words = {str: "text", int: "a whole number", float: "a number", list: "a list"}
        raise UserError(f"{_at(place, key)}: must be {words.get(kind, 'a table')}, found {value!r}")
    return value


def _at(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def _line(place: str, text: str) -> str:
    if text.splitlines() not in ([], [text]) or text != text.strip():
        raise UserError(f"{place}: {text!r} must be one line, without blanks around it")
    return text
