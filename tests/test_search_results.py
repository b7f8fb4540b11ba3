"""What searches found, as files hold it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spml_tf.plans import search_results
from spml_tf.plans.plan import Plan, Row, Search
from spml_tf.system.errors import UserError

RATES = {"learning_rate": ("0.1", "0.2")}


def plan(*grids: dict[str, tuple[str, ...]]) -> Plan:
    """A plan whose rows a, b, c have such grids."""
    rows = [Row(name, "an", {}, None, None, x) for name, x in zip("abc", grids, strict=False)]
    return Plan("Title", "", (0,), tuple(rows), None, None, "", (), Search(0, 1))


def trials(*values: float | None) -> list[dict]:
    rates = RATES["learning_rate"]
    return [
        {"flags": {"learning_rate": rate}, "val_map": value}
        for rate, value in zip(rates, values, strict=False)
    ]


def saved(path: Path, **rows: object) -> str:
    path.write_text(json.dumps(rows))
    return str(path)


@pytest.mark.parametrize(
    "values, chosen",
    [
        ((60.0, 61.0), "0.2"),
        ((61.0, 60.0), "0.1"),
        ((60.0, 60.0), "0.1"),  # the first of equals
        ((None, 1.0), "0.2"),  # undefined: no class had a positive image
        ((None, None), "0.1"),
    ],
)
def test_the_best_trial_is_chosen(tmp_path, values, chosen):
    path = saved(tmp_path / "x.json", a={"chosen": None, "trials": trials(*values)})
    found = search_results.read(plan(RATES), [path])
    assert found == {"a": {"chosen": {"learning_rate": chosen}, "trials": trials(*values)}}


def test_nothing_is_chosen_before_all_trials_are_there():
    row = plan(RATES).rows[0]
    found = search_results.entry(row, [({"learning_rate": "0.2"}, 50.0)])
    assert found == {"chosen": None, "trials": [{"flags": {"learning_rate": "0.2"}, "val_map": 50}]}


def test_the_first_file_that_has_a_row_counts(tmp_path):
    first = saved(tmp_path / "1.json", a={"trials": trials(2, 1)})
    second = saved(tmp_path / "2.json", a={"trials": trials(1)}, b={"trials": trials(1, 2)})
    found = search_results.read(plan(RATES, RATES, RATES), [first, second])
    chosen = {name: entry["chosen"]["learning_rate"] for name, entry in found.items()}
    assert chosen == {"a": "0.1", "b": "0.2"}  # and c is in neither


@pytest.mark.parametrize(
    "content, said",
    [
        ("{", "not whole JSON: .* in line 1, column 2; give a plan's _search.json"),
        ("[]", "holds no rows; give a plan's _search.json"),
        ("{}", "no row of the plan is in it; it searches a"),
        ('{"b": {}}', "no row of the plan is in it; it searches a"),
        ('{"a": {"chosen": null}}', "row a: its trials cannot be read"),
        ('{"a": {"trials": [{"flags": 3, "val_map": 1}]}}', "row a: its trials cannot be read"),
        (
            json.dumps({"a": {"trials": trials(1)}}),
            "row a: has the trials learning_rate=0.1, the plan's are learning_rate=0.1; "
            "learning_rate=0.2; search again without --searched, or change the plan's flag_grid",
        ),
        ('{"a": {"trials": []}}', "row a: has the trials none, the plan's are .*"),
    ],
)
def test_what_cannot_be_taken(tmp_path, content, said):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(UserError, match=f"^{path}: {said}$"):
        search_results.read(plan(RATES), [str(path)])


def test_a_file_that_is_not_there(tmp_path):
    path = tmp_path / "nowhere.json"
    with pytest.raises(UserError, match=rf"^{path}: cannot be read \(No such file"):
        search_results.read(plan(RATES), [str(path)])


def test_a_plan_without_a_search_takes_none(tmp_path):
    path = saved(tmp_path / "x.json", a={"trials": trials(1, 2)})
    with pytest.raises(UserError, match="it searches none$"):
        search_results.read(plan({}), [path])
