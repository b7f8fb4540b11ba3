"""Joins the runs of two tables of a plan, by row, seed and varied value.

`python tools/join_tables.py --plan=experiments/later_digits.toml
--table=experiments/results/later_digits.csv --new=results/digits_later/later_digits.csv
--machine="2 cores of an Intel Xeon"` puts the new runs in the places of those that the table has
with the same row, seed and value, adds the others, and writes CSV, Markdown and PNG anew beside it.
`--machine` says what the new runs were trained on. Differences are paired by seed, with intervals
over seeds. Those over images need the scores of all runs, which a table has not: the Markdown's own
stay where no run of the pair is new.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from spml_tf.plans import paired_differences, result_tables
from spml_tf.plans.plan import Plan
from spml_tf.plans.plan_files import read_plan
from spml_tf.system.files import write_table, write_text

# How the lines begin that `result_tables.markdown` writes itself.
_OF_TABLES = ("mAP in percent", "Where mAP val is empty", "Gap closed:", "Paper:")


def read(path: Path, plan: Plan) -> list[dict[str, Any]]:
    """The rows of a plan's CSV, with numbers as `result_tables.lines` wants them."""
    with open(path, newline="", encoding="utf-8") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    names = {row.name for row in plan.rows}
    for row in rows:
        if row["row"] not in names or (plan.vary and row.get(plan.vary) not in plan.values):
            value = f" with {plan.vary}={row.get(plan.vary)}" if plan.vary else ""
            raise SystemExit(
                f"{path}: the plan has no row {row['row']!r}{value}; take it out of the table, or "
                "give the table's own plan"
            )
        row["seed"] = int(row["seed"])
        for name in ("val_map", "test_map"):
            row[name] = float(row[name]) if row[name] else ""
    return rows


def joined(plan: Plan, old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]]) -> list[Any]:
    """The rows of both in the plan's order; of two of one run the new one."""
    found = {(x["row"], x.get(plan.vary, ""), x["seed"]): x for x in [*old, *new]}
    names = {row.name: place for place, row in enumerate(plan.rows)}
    values = {value: place for place, value in enumerate(plan.values)}
    ordered = sorted(found, key=lambda key: (names[key[0]], values.get(key[1], 0), key[2]))
    heads = dict.fromkeys(name for row in [*old, *new] for name in row)
    return [{name: found[key].get(name, "") for name in heads} for key in ordered]


def differences(plan: Plan, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """As `paired_differences.differences`, without intervals over images."""
    scores = {
        (x["row"], x.get(plan.vary, ""), x["seed"]): x["test_map"]
        for x in rows
        if x["test_map"] != ""
    }
    found = []
    for name, other, value in paired_differences.compared(plan):
        both = [s for s in plan.seeds if (name, value, s) in scores and (other, value, s) in scores]
        paired = [scores[name, value, s] - scores[other, value, s] for s in both]
        if not paired:
            continue
        row: dict[str, Any] = {
            "row": name, "minus": other, "value": value, "seeds": len(paired),
            "difference": statistics.mean(paired), "above": sum(x > 0 for x in paired),
            **paired_differences.over_seeds(paired),
        }  # fmt: skip
        ends = [s for s in both if (plan.oracle, value, s) in scores]
        if other == plan.baseline and name != plan.oracle and ends:
            three = [[scores[x, value, s] for s in ends] for x in (name, other, plan.oracle)]
            row |= paired_differences.gap(*three)
        found.append(row)
    return found


def keep_intervals(
    plan: Plan, rows: Sequence[dict[str, Any]], text: str, changed: Collection[str]
) -> None:
    """Takes intervals over images from the old table where all runs that they are of stay.

    Args:
        plan: the plan.
        rows: of `differences`, which get them.
        text: the old table.
        changed: names of rows with new runs.
    """
    cells = [[x.strip() for x in line.split("|")[1:-1]] for line in text.splitlines()]
    lines = [x for x in cells if len(x) >= 7 + bool(plan.vary) and x[0] not in ("row", "---")]
    width = 2 + bool(plan.vary)
    old = {(x[0], x[1], x[2] if plan.vary else ""): x[width:] for x in lines}
    for row in rows:
        _, _, photos, _, _, *gap = old.get((row["row"], row["minus"], row["value"]), [""] * 5)
        ends = {plan.baseline, plan.oracle}
        for name, interval, of in (
            ("photos", photos, {row["row"], row["minus"]}),
            ("gap_photos", gap[1] if len(gap) > 1 else "", {row["row"], *ends}),
        ):
            if interval and not of & set(changed):
                low, high = (float(x.rstrip("%")) for x in interval.split(" to "))
                row |= {f"{name}_low": low, f"{name}_high": high}


def main() -> None:
    """Reads both tables and writes their union."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--plan", required=True)
    parser.add_argument("--table", type=Path, required=True, help="CSV to write anew")
    parser.add_argument("--new", type=Path, required=True, help="CSV of the new runs")
    parser.add_argument("--machine", default="", help="what the new runs were trained on")
    given = parser.parse_args()
    plan, table = read_plan(given.plan), given.table
    new = read(given.new, plan)
    rows = joined(plan, read(table, plan), new)
    written = table.with_suffix(".md")
    before = written.read_text(encoding="utf-8")
    command, _, machine, _, *others = [x[2:] for x in before.splitlines() if x[:2] == "- "]
    seconds = sum(float(row["seconds"]) for row in rows)
    commits = ", ".join(dict.fromkeys(row["commit"] for row in new))
    if given.machine:
        told = f"; of the runs of commits {commits}: {given.machine}"
        if f"{told};" not in f"{machine};":  # the same table, joined again
            machine += told
    facts = [
        command,
        f"Commit: {', '.join(dict.fromkeys(row['commit'] for row in rows))}",
        machine,
        f"{len(rows)} runs, {seconds / 3600:.1f} hours of training in all",
        *(x for x in others if not x.startswith(_OF_TABLES)),
    ]
    lines = result_tables.lines(plan, rows)
    text = result_tables.markdown(plan, lines, facts)
    compared = differences(plan, rows)
    keep_intervals(plan, compared, before, {row["row"] for row in new})
    text += paired_differences.markdown(plan, compared)
    write_table(table, rows)
    write_text(written, text)
    result_tables.draw(table.with_suffix(""), plan, lines)
    table.with_suffix(".svg").unlink()


if __name__ == "__main__":
    main()
