"""Gathers finished runs into a CSV and a Markdown table.

python tools/collect_results.py --output=experiments/results/digits runs/digits_*

Writes OUTPUT.csv, a row a run, and OUTPUT.md, a row a method: mean and standard deviation over
seeds, and the share of the gap between AN and BCE that the method closes.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from pathlib import Path

from spml_tf.runs import RunFolder

ORDER = ("bce", "an", "en", "en+cl", "en+scl")


def row(folder: str) -> dict[str, object]:
    """The row of one finished run."""
    run = RunFolder(folder)
    record, results = run.read_record(), run.read_metrics()
    flags = record["flags"]
    history = run.read_history(flags["epochs"])
    return {
        "dataset": flags["dataset"],
        "method": flags["method"] + ("" if rounds(flags) == 1 else f" round {rounds(flags)}"),
        "seed": flags["seed"],
        "val_map": round(results["val"]["map"], 3),
        "test_map": round(results["test"]["map"], 3),
        "best_epoch": results["best_epoch"],
        "epochs": flags["epochs"],
        "seconds": round(sum(float(x["seconds"]) for x in history)),
        "selection_precision": history[-1].get("selection_precision") or "",
        "selection_recall": history[-1].get("selection_recall") or "",
    }


def rounds(flags: dict[str, object]) -> int:
    """How many runs stand behind one, itself included: each began with the banks of another."""
    if not flags["initial_banks"]:
        return 1
    return 1 + rounds(RunFolder(str(flags["initial_banks"])).read_record()["flags"])


def table(rows: list[dict[str, object]]) -> str:
    """Markdown of the rows, a line a method."""
    methods: dict[str, list[dict[str, object]]] = {}
    for entry in rows:
        methods.setdefault(str(entry["method"]), []).append(entry)
    means = {m: statistics.mean(float(x["test_map"]) for x in r) for m, r in methods.items()}
    lines = ["| method | seeds | mAP val | mAP test | gap closed |", "|---|---|---|---|---|"]
    known = [m for m in ORDER if m in methods]
    for method in [*known, *sorted(set(methods) - set(known))]:
        gap = (means[method] - means["an"]) / (means["bce"] - means["an"])
        entries = methods[method]
        lines.append(
            f"| {method} | {len(entries)} | {spread(entries, 'val_map')} "
            f"| {spread(entries, 'test_map')} | {100 * gap:.0f}% |"
        )
    return "\n".join(lines) + "\n"


def spread(entries: list[dict[str, object]], column: str) -> str:
    """Mean and, of several, standard deviation."""
    values = [float(entry[column]) for entry in entries]
    mean = f"{statistics.mean(values):.2f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", help="folders of finished runs")
    parser.add_argument("--output", required=True, help="path without ending")
    options = parser.parse_args()
    finished = [x for x in options.runs if RunFolder(x).metrics.exists()]
    rows = sorted((row(x) for x in finished), key=lambda x: (str(x["method"]), x["seed"]))
    path = Path(options.output)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_suffix(".csv"), "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    path.with_suffix(".md").write_text(table(rows), "utf-8")
    print(table(rows), end="")


if __name__ == "__main__":
    main()
