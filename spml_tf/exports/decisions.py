"""Decision thresholds of an export, chosen on the run's validation images."""

from __future__ import annotations

import sys
from typing import Any

from spml_tf.evaluation.thresholds import FEW, Rule, choose
from spml_tf.runs.run_folder import RunFolder
from spml_tf.system.errors import UserError


def thresholds(run: RunFolder, record: dict[str, Any], rule: Rule) -> dict[str, Any]:
    """What classes.json says of decisions.

    Args:
        run: the finished run.
        record: its run.json.
        rule: how they are made.

    Returns:
        {"thresholds": {class: float}, "threshold_rule": text, "shared_thresholds": [names]}.

    Raises:
        UserError: the rule is count, and the run does not know the positives per image.
    """
    saved, known = run.read_predictions("val"), _mean_positives(run, record)
    if rule.kind == "count" and known is None:
        raise UserError(
            "--thresholds=count: the run does not know the positives per image; train it with "
            "--positives_per_image, or choose f1"
        )
    counts_as = run.settings().unknown_counts_as
    found = choose(saved["labels"], saved["scores"], rule, known, counts_as)
    names = record["class_names"]
    shared = [name for name, alike in zip(names, found.shared, strict=True) if alike]
    return {
        "thresholds": dict(zip(names, found.values.tolist(), strict=True)),
        "threshold_rule": f"{rule.kind}:{rule.value:g}" if rule.value else rule.kind,
        "shared_thresholds": shared,
    }


def tell_of_shared(classes: dict[str, Any]) -> None:
    """Notes classes whose thresholds are not their own, where a rule chose them for each."""
    shared = classes["shared_thresholds"]
    if shared and not classes["threshold_rule"].startswith(("count", "fixed")):
        value = classes["thresholds"][shared[0]]
        print(
            f"note: {len(shared)} of {len(classes['class_names'])} classes have fewer than {FEW} "
            f"validation positives: they share the threshold {value:.3g}",
            file=sys.stderr,
        )


def _mean_positives(run: RunFolder, record: dict[str, Any]) -> float | None:
    """K, known or estimated; None where it is neither."""
    known: float | str | None = record["positives_per_image"]
    if not isinstance(known, str):
        return known
    found = estimated_positives(run, record)
    return found[0] if found else None


def estimated_positives(run: RunFolder, record: dict[str, Any]) -> tuple[float, ...] | None:
    """K as training has estimated it, and the ends of its interval; None where it has not."""
    rows = run.read_history(record["flags"]["epochs"])
    if not rows or not rows[-1].get("estimated_k"):
        return None
    return tuple(float(rows[-1][name]) for name in ("estimated_k", "k_low", "k_high"))
