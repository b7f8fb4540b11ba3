"""The results of a plan: a CSV row a run, a Markdown table, a figure."""

from __future__ import annotations

import dataclasses
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from spml_tf.drawing.figure_files import MARKERS, set_title
from spml_tf.plans.plan import Plan, Run
from spml_tf.runs.run_folder import RunFolder
from spml_tf.system.files import replaced

_UNITS = (
    "- mAP in percent, mean ± sample standard deviation over seeds; the best epoch is chosen on "
    "validation."
)


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of the table: a row of the plan at one value of the varied flag.

    Attributes:
        row: name of the row.
        value: text of the varied flag, "" where none is.
        seeds: how many runs are finished.
        val, test: (mean, sample standard deviation) over them in percent; None where undefined,
            and the deviation of one run is None.
        paper: the paper's number.
        gap: (x - baseline) / (oracle - baseline) of the means on test over the seeds that all
            three have, or None.
    """

    row: str
    value: str
    seeds: int
    val: tuple[float, float | None] | None
    test: tuple[float, float | None] | None
    paper: float | None
    gap: float | None


def csv_row(run: Run, folder: RunFolder, columns: Sequence[str], commit: str) -> dict[str, Any]:
    """The CSV row of a finished run.

    Args:
        run: the run.
        folder: its folder.
        columns: flags that differ between the plan's runs, which get a column each.
        commit: of the code that ran it.

    Returns:
        Values by column; mAP in percent, "" where undefined.
    """
    flags, results = folder.read_record()["flags"], folder.read_metrics()
    history = folder.read_history(flags["epochs"])
    last = history[-1] if history else {}
    return {
        "dataset": flags["dataset"],
        "method": flags["method"],
        "row": run.row,
        "seed": flags["seed"],
        "val_map": _rounded(results, "val"),
        "test_map": _rounded(results, "test"),
        "best_epoch": results["best_epoch"],
        "seconds": round(seconds(folder)),
        "commit": commit,
        "epochs": flags["epochs"],
        **{name: run.flags.get(name, flags.get(name, "")) for name in columns},
        "selection_precision": last.get("selection_precision") or "",
        "selection_recall": last.get("selection_recall") or "",
    }


def seconds(folder: RunFolder) -> float:
    """How long a run's epochs took."""
    return sum(float(entry["seconds"]) for entry in folder.read_history(sys.maxsize))


def known_labels(folders: Sequence[RunFolder]) -> list[str]:
    """Sentences about labels that runs were scored on and that are not all known."""
    found: dict[str, None] = {}
    for folder in folders:
        rule, metrics = folder.settings().unknown_counts_as, folder.read_metrics()
        for split in ("val", "test"):
            report = metrics.get(split, {})
            counts = report.get("known", {}).values()
            whole = sum(sum(x.values()) for x in counts)
            unknown = sum(x["unknown"] for x in counts)
            if unknown:
                guessed = len(report["unknown_as_negative"])
                found[
                    f"{split}: {100 * (1 - unknown / whole):.1f}% of the labels are known; unknown "
                    f"ones count as negatives in {guessed} of {len(counts)} classes "
                    f"(--unknown_counts_as={rule}) and are left out elsewhere"
                ] = None
    return list(found)


def _rounded(results: Mapping[str, Any], split: str) -> float | str:
    value = results.get(split, {}).get("map")
    return "" if value is None else round(value, 3)


def lines(plan: Plan, rows: Sequence[Mapping[str, Any]]) -> list[Line]:
    """Means, deviations and shares of the gap, in the plan's order.

    Args:
        plan: the plan.
        rows: from `csv_row`, of the finished runs.

    Returns:
        A line for each row and value that has a finished run.
    """
    found = []
    for row in plan.rows:
        for value in plan.values or ("",):
            own = [x for x in rows if x["row"] == row.name and x.get(plan.vary, "") == value]
            if own:
                val, test = _spread(own, "val_map"), _spread(own, "test_map")
                gap = None if test is None else _gap(plan, rows, row.name, value)
                found.append(Line(row.name, value, len(own), val, test, row.paper, gap))
    return found


def _spread(rows: Sequence[Mapping[str, Any]], column: str) -> tuple[float, float | None] | None:
    values = [row[column] for row in rows]
    if "" in values:
        return None
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None


def _gap(plan: Plan, rows: Sequence[Mapping[str, Any]], name: str, value: str) -> float | None:
    def by_seed(row: str | None) -> dict[Any, float]:
        own = [x for x in rows if x["row"] == row and x.get(plan.vary, "") == value]
        return {x["seed"]: x["test_map"] for x in own if x["test_map"] != ""}

    scores = [by_seed(row) for row in (plan.baseline, plan.oracle, name)]
    seeds = set.intersection(*map(set, scores))
    if not seeds:
        return None
    low, high, own = (statistics.mean(found[seed] for seed in seeds) for found in scores)
    return None if low == high else (own - low) / (high - low)


def markdown(plan: Plan, table: Sequence[Line], facts: Sequence[str]) -> str:
    """The table with what must be known beside it.

    Args:
        plan: the plan.
        table: from `lines`.
        facts: lines about command, commit, machine and time, shown above the table.

    Returns:
        Markdown.
    """
    paper = any(line.paper is not None for line in table)
    gap = plan.baseline is not None
    heads = ["row", *([plan.vary] if plan.vary else []), "seeds", "mAP val", "mAP test"]
    heads += [*(["paper"] if paper else []), *(["gap closed"] if gap else [])]
    text = [f"# {plan.title}", "", *(f"- {fact}" for fact in facts)]
    text.append(_UNITS)
    if any(line.val is None for line in table):
        text.append(
            "- Where mAP val is empty it is undefined for a seed, whose last epoch is taken."
        )
    if gap:
        text.append(
            f"- Gap closed: (row - {plan.baseline}) / ({plan.oracle} - {plan.baseline}), "
            "over the seeds that all three have."
        )
    if paper:
        text.append(f"- Paper: {plan.paper}.")
    text += ["", table_line(heads), "|" + "---|" * len(heads)]
    for line in table:
        seeds = f"{line.seeds}" if line.seeds == len(plan.seeds) else _part(line, plan)
        cells = [line.row, *([line.value] if plan.vary else []), seeds]
        cells += [_text(line.val), _text(line.test)]
        cells += [_number(line.paper)] if paper else []
        cells += ["" if line.gap is None else f"{100 * line.gap:.0f}%"] if gap else []
        text.append(table_line(cells))
    return "\n".join(text) + "\n"


def _part(line: Line, plan: Plan) -> str:
    return f"{line.seeds} of {len(plan.seeds)}"


def table_line(words: Sequence[str]) -> str:
    """Cells as a line of a Markdown table."""
    escaped = [word.replace("|", r"\|") for word in words]
    return f"| {' | '.join(escaped)} |"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _text(spread: tuple[float, float | None] | None) -> str:
    if spread is None:
        return ""
    mean, deviation = spread
    return f"{mean:.2f}" if deviation is None else f"{mean:.2f} ± {deviation:.2f}"


def draw(path: Path, plan: Plan, table: Sequence[Line]) -> None:
    """Draws the means: lines over the varied flag, or bars; whiskers are deviations.

    Args:
        path: without ending; a PNG and an SVG are written.
        plan: the plan.
        table: from `lines`; validation is drawn where there is no test.
    """
    split = "test" if any(line.test for line in table) else "val"
    known = [line for line in table if getattr(line, split) is not None]
    if not known:
        return
    height = 4.5 if plan.vary else 1.2 + 0.32 * len(known)
    figure = Figure(figsize=(7, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    (_draw_lines if plan.vary else _draw_bars)(axis, plan, known, split)
    set_title(figure, plan.title)
    axis.spines[["top", "right"]].set_visible(False)
    for ending, data in (("png", {}), ("svg", {"Date": None})):
        with (
            replaced(path.with_name(f"{path.name}.{ending}")) as temporary,
            matplotlib.rc_context({"svg.hashsalt": "spml_tf"}),
        ):
            figure.savefig(temporary, dpi=150, format=ending, metadata=data)


def _draw_lines(axis: Axes, plan: Plan, table: Sequence[Line], split: str) -> None:
    for number, name in enumerate(dict.fromkeys(line.row for line in table)):
        own = [line for line in table if line.row == name]
        axis.errorbar(
            [plan.values.index(line.value) for line in own],
            [getattr(line, split)[0] for line in own],
            [getattr(line, split)[1] or 0.0 for line in own],
            label=name,
            marker=MARKERS[number % len(MARKERS)],
            capsize=3,
        )
    axis.set_xticks(range(len(plan.values)), plan.values)
    axis.set_xlabel(plan.vary)
    axis.set_ylabel(f"mAP on {split} (%)")
    axis.legend(frameon=False)


def _draw_bars(axis: Axes, plan: Plan, table: Sequence[Line], split: str) -> None:
    means = [getattr(line, split)[0] for line in table]
    deviations = [getattr(line, split)[1] or 0.0 for line in table]
    places = range(len(table))
    colours = ["0.7" if x.row in (plan.baseline, plan.oracle) else "tab:blue" for x in table]
    axis.barh(places, means, xerr=deviations, color=colours, capsize=3)
    for place, mean, deviation in zip(places, means, deviations, strict=True):
        axis.text(mean + deviation, place, f"  {mean:.1f}", va="center", fontsize=8)
    # Differences are a few points: the axis begins near the lowest row, and says so.
    low = max(0.0, min(means) - max(5.0, 0.3 * (max(means) - min(means))))
    high = max(m + d for m, d in zip(means, deviations, strict=True))
    axis.set_xlim(low, high + 0.12 * (high - low) + 0.1)
    axis.set_yticks(places, [line.row for line in table])
    axis.invert_yaxis()
    axis.set_xlabel(f"mAP on {split} (%); the axis begins at {low:.0f}")
