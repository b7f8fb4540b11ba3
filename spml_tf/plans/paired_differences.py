"""Differences between the rows of a plan, seed by seed, and how sure they are."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from spml_tf.evaluation import bootstrap
from spml_tf.evaluation.average_precision import mean_average_precision
from spml_tf.labels import POSITIVE
from spml_tf.plans.plan import Plan, Run
from spml_tf.plans.result_tables import table_line
from spml_tf.runs.run_folder import RunFolder
from spml_tf.system.notes import tell_note

_RESAMPLES = 1000
_COLUMNS = {
    "row": "row", "minus": "minus", "seeds": "seeds", "difference": "difference",
    "photos": "95 % over images", "by_seeds": "95 % over seeds", "above": "seeds above",
    "gap": "gap closed", "gap_photos": "95 % over images", "gap_by_seeds": "95 % over seeds",
}  # fmt: skip

# A row and the value of the varied flag.
_Cell = tuple[str, str]


def differences(plan: Plan, finished: Sequence[tuple[Run, RunFolder]]) -> list[dict[str, Any]]:
    """Differences in mAP on test between rows, over the seeds that both have.

    Each row is compared with the baseline, then the pairs of `compare`. Intervals over images are
    bootstraps of the test images (1000, percentiles), the same ones for both rows and all seeds;
    those over seeds are Student's t of the paired differences, which two seeds are needed for.

    Args:
        plan: the plan.
        finished: runs and their folders.

    Returns:
        A row a pair and value: "row", "minus", "value", "seeds"; "difference" and, of each
        interval, "_low" and "_high" in points of mAP; "above", the seeds with a difference above 0;
        with a baseline "gap", its share of oracle - baseline in percent, with both intervals. None
        where there is none.
    """
    folders: dict[tuple[_Cell, int], RunFolder] = {
        ((run.row, run.value), run.seed): folder
        for run, folder in finished
        if folder.predictions("test").exists()
    }
    found = []
    for name, other, value in compared(plan):
        cells = [(name, value), (other, value), (plan.oracle or "", value)]
        closes = other == plan.baseline and name != plan.oracle
        seeds = [x for x in plan.seeds if all((cell, x) in folders for cell in cells[:2])]
        closes = closes and all((cells[2], x) in folders for x in seeds)
        if seeds:
            read = [[folders[cell, x] for x in seeds] for cell in cells[: 2 + closes]]
            values = _compared(read)
            if isinstance(values, str):
                tell_note(f"{name} - {other}: {values}; not compared")
            else:
                found.append({"row": name, "minus": other, "value": value, **values})
    return found


def compared(plan: Plan) -> list[tuple[str, str, str]]:
    """Each row, the one that it is compared with, and a value of the varied flag."""
    base = plan.baseline
    pairs = [(x.name, base) for x in plan.rows if x.name != base] if base else []
    values = plan.values or ("",)
    return [(*pair, value) for pair, value in itertools.product([*pairs, *plan.compare], values)]


def _compared(rows: Sequence[Sequence[RunFolder]]) -> dict[str, Any] | str:
    """A row, the one it is compared with and perhaps the oracle, each with a folder a seed.

    Where they cannot be compared, why.
    """
    saved = [[folder.read_predictions("test") for folder in row] for row in rows]
    every = [x for row in saved for x in row]
    for what in ("names", "class_names", "labels"):
        if not all(np.array_equal(x[what], every[0][what]) for x in every[1:]):
            return "their test images or labels differ"
    if not (every[0]["labels"] == POSITIVE).any():
        return "no test label is positive"
    rule = rows[0][0].settings().unknown_counts_as
    labels, scores = every[0]["labels"], [x["scores"] for x in every]
    maps = [100 * mean_average_precision(labels, x, unknown_counts_as=rule) for x in scores]
    drawn = 100 * bootstrap.resampled_maps(labels, scores, _RESAMPLES, 0, rule)
    count = len(rows[0])
    own, base, *best = (
        drawn[:, n * count : (n + 1) * count].mean(axis=1) for n in range(len(rows))
    )
    paired = [first - second for first, second in zip(maps[:count], maps[count:], strict=False)]
    low, high = bootstrap.interval(own - base)
    found = {
        "seeds": count, "difference": statistics.mean(paired), "photos_low": low,
        "photos_high": high, **over_seeds(paired), "above": sum(x > 0 for x in paired),
    }  # fmt: skip
    if not best:
        return found
    closed = gap(*(maps[n * count : (n + 1) * count] for n in range(3)))
    return {**found, **closed, **(_gap_over_images((own, base, best[0])) if closed else {})}


def over_seeds(values: Sequence[float], name: str = "by_seeds") -> dict[str, float | None]:
    """Student's t interval of values of seeds: NAME_low and NAME_high, None for one seed."""
    if len(values) < 2:
        return {f"{name}_low": None, f"{name}_high": None}
    mean, error = statistics.mean(values), statistics.stdev(values) / len(values) ** 0.5
    width = float(stats.t.ppf(0.975, len(values) - 1)) * error
    return {f"{name}_low": mean - width, f"{name}_high": mean + width}


def gap(
    own: Sequence[float], base: Sequence[float], best: Sequence[float]
) -> dict[str, float | None]:
    """The share of the gap between baseline and oracle that is closed, in percent, over seeds.

    Args:
        own: mAP of the row, of each seed.
        base: mAP of the baseline, of the same seeds.
        best: mAP of the oracle, of the same seeds.

    Returns:
        "gap", of the means, and the interval of the seeds' shares; {} where there is no gap.
    """
    whole = statistics.mean(best) - statistics.mean(base)
    if not whole:
        return {}
    closed = statistics.mean(own) - statistics.mean(base)
    of_seeds = [(x - y, z - y) for x, y, z in zip(own, base, best, strict=True)]
    shares = [100 * part / all_of_it for part, all_of_it in of_seeds if all_of_it]
    return {"gap": 100 * closed / whole, **over_seeds(shares, "gap_by_seeds")}


def _gap_over_images(drawn: Sequence[NDArray[np.float64]]) -> dict[str, float | None]:
    own, base, best = drawn
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = 100 * (own - base) / (best - base)
    if not np.isfinite(shares).any():
        return {}
    low, high = bootstrap.interval(shares)
    return {"gap_photos_low": low, "gap_photos_high": high}


def markdown(plan: Plan, rows: Sequence[Mapping[str, Any]]) -> str:
    """The section of the plan's table; empty without rows."""
    if not rows:
        return ""
    heads = [head for name, head in _COLUMNS.items() if plan.baseline or not name.startswith("gap")]
    if plan.vary:
        heads.insert(2, plan.vary)
    text = ["", "Differences on test, paired by seed, in points of mAP:", ""]
    text += [table_line(heads), "|" + "---|" * len(heads)]
    for row in rows:
        cells = [
            row["row"],
            row["minus"],
            *([row["value"]] if plan.vary else []),
            str(row["seeds"]),
        ]
        cells += [f"{row['difference']:+.2f}", _interval(row, "photos", "+.2f")]
        cells += [_interval(row, "by_seeds", "+.2f"), f"{row['above']} of {row['seeds']}"]
        if plan.baseline:
            cells.append(f"{row['gap']:.0f}%" if "gap" in row else "")
            cells += [_interval(row, x, ".0f", "%") for x in ("gap_photos", "gap_by_seeds")]
        text.append(table_line(cells))
    return "\n".join(text) + "\n"


def _interval(row: Mapping[str, Any], name: str, form: str, unit: str = "") -> str:
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    return "" if low is None or high is None else f"{low:{form}} to {high:{form}}{unit}"
