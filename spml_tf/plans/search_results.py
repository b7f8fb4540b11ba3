"""What searches found: NAME_search.json, each row's trials and the flags chosen from them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from spml_tf.plans.plan import Plan, Row
from spml_tf.system.errors import UserError
from spml_tf.system.json_text import parse_document
from spml_tf.system.text_files import read_text

# {"chosen": texts by flag or None, "trials": [{"flags": texts by flag, "val_map": percent}]}
Entry = dict[str, Any]


def entry(row: Row, trials: Sequence[tuple[dict[str, str], float | None]]) -> Entry:
    """What a search of a row has found so far; it chooses once all trials are there.

    Args:
        row: the row.
        trials: texts by flag and mAP on validation in percent, None where it is undefined.

    Examples:
        >>> row = Row("an", "an", {}, None, None, {"batch_size": ("8", "16")})
        >>> entry(row, [({"batch_size": "8"}, 60.0), ({"batch_size": "16"}, 61.0)])["chosen"]
        {'batch_size': '16'}
    """
    chosen = None
    if len(trials) == len(row.trials()):
        chosen = max(trials, key=lambda trial: float("-inf") if trial[1] is None else trial[1])[0]
    found = [{"flags": texts, "val_map": value} for texts, value in trials]
    return {"chosen": chosen, "trials": found}


def read(plan: Plan, paths: Iterable[str]) -> dict[str, Entry]:
    """What earlier searches found for rows of a plan; other rows of the files are passed over.

    The files hold names of rows and what was tried, not the trials' method, data, seed and epochs.

    Args:
        plan: a plan with a search.
        paths: files that a search wrote; the first that has a row counts.

    Returns:
        By name of the row.

    Raises:
        UserError: a file cannot be read or has no row of the plan; a row's trials are not
            finished, or not of the values that the plan's search tries.
    """
    found: dict[str, Entry] = {}
    for path in paths:
        read_here = _read(path)
        rows = [row for row in plan.rows if row.grid and row.name in read_here]
        if not rows:
            searched = ", ".join(row.name for row in plan.rows if row.grid)
            raise UserError(
                f"{path}: no row of the plan is in it; it searches {searched or 'none'}"
            )
        for row in rows:
            if row.name not in found:
                found[row.name] = _checked(path, row, read_here[row.name])
    return found


def _read(path: str) -> dict[str, Any]:
    found = parse_document(path, read_text(path), "give a plan's _search.json")
    if not isinstance(found, dict):
        raise UserError(f"{path}: holds no rows; give a plan's _search.json")
    return found


def _checked(path: str, row: Row, given: Any) -> Entry:
    try:
        tried = [(dict(x["flags"]), x["val_map"]) for x in given["trials"]]
        read_here = entry(row, [(texts, x if x is None else float(x)) for texts, x in tried])
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path}: row {row.name}: its trials cannot be read") from None
    wanted = row.trials()
    if [texts for texts, _ in tried] != wanted:
        raise UserError(
            f"{path}: row {row.name}: has the trials {_said(x for x, _ in tried)}, the plan's are "
            f"{_said(wanted)}; search again without --searched, or change the plan's flag_grid"
        )
    return read_here


def _said(trials: Iterable[dict[str, str]]) -> str:
    words = [" ".join(f"{name}={text}" for name, text in texts.items()) for texts in trials]
    return "; ".join(words) or "none"
