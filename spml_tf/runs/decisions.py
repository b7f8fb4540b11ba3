"""How a run decides: calibration and thresholds from its validation images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from spml_tf.evaluation import calibration as calibrations
from spml_tf.evaluation.calibration import Calibration
from spml_tf.evaluation.decision_report import decision_report
from spml_tf.evaluation.rules import CALIBRATIONS
from spml_tf.evaluation.thresholds import FEW, Thresholds, choose, parse_rule
from spml_tf.labels import POSITIVE
from spml_tf.networks.calibrated import with_calibration
from spml_tf.runs.run_folder import RunFolder
from spml_tf.system.errors import UserError
from spml_tf.system.notes import tell_note
from spml_tf.training.class_priors import sample_step
from spml_tf.training.draw_model import DrawModel

Errors = dict[str, dict[str, float | None]]


class Decisions(NamedTuple):
    """What makes decisions of a network's scores: score -> calibration -> threshold.

    Attributes:
        class_names: L names.
        calibration: of the scores.
        from_annotated: whether the calibration is `from_annotated`, for want of known negatives.
        thresholds: of calibrated scores.
        rule: how the thresholds were chosen, as `thresholds.parse_rule` reads it.
        unknown_counts_as: the run's, by which calibration and thresholds were fitted.
    """

    class_names: Sequence[str]
    calibration: Calibration
    from_annotated: bool
    thresholds: Thresholds
    rule: str
    unknown_counts_as: str

    def as_json(self, errors: Errors) -> dict[str, Any]:
        """What classes.json says of decisions; `errors` are those of `calibration_errors`."""
        return {
            "thresholds": self._named(self.thresholds.values),
            "threshold_rule": self.rule,
            "shared_thresholds": self._chosen(self.thresholds.shared),
            "calibration": {**self._calibration(), "expected_calibration_error": errors},
        }

    def _calibration(self) -> dict[str, Any]:
        """The rule, what it was fitted to, and its numbers."""
        found = self.calibration
        if found.rule == "none":
            return {"rule": "none"}
        return {
            "rule": found.rule,
            "fitted_to": "annotated positives" if self.from_annotated else "validation labels",
            "slopes": self._named(found.slopes),
            "offsets": self._named(found.offsets),
            "shared": self._chosen(found.shared),
        }

    def calibrated(self, network: keras.Model) -> keras.Model:
        """The run's network with the calibration in it, see `calibrated.with_calibration`."""
        found = self.calibration
        if found.rule == "none":
            return network
        return with_calibration(network, found.slopes.tolist(), found.offsets.tolist())

    def _named(self, values: NDArray[np.float64]) -> dict[str, float]:
        return dict(zip(self.class_names, values.tolist(), strict=True))

    def _chosen(self, flags: NDArray[np.bool_]) -> list[str]:
        return [name for name, flag in zip(self.class_names, flags, strict=True) if flag]


def decisions(run: RunFolder, thresholds: str = "f1", calibration: str = "none") -> Decisions:
    """Calibration and thresholds of a finished run; notes on standard error what they rest on.

    Args:
        run: the run.
        thresholds: how they are chosen, see `thresholds.parse_rule`.
        calibration: one of `rules.CALIBRATIONS`. Where validation labels tell of no negatives,
            "platt" is `from_annotated`.

    Raises:
        UserError: another rule, the run is not finished or damaged, "count" without K, or
            "temperature" without known negatives.
    """
    try:
        rule = parse_rule(thresholds)
    except ValueError as error:
        raise UserError(f"--thresholds: {error}") from None
    if calibration not in CALIBRATIONS:
        known = ", ".join(CALIBRATIONS)
        raise UserError(f"--calibration={calibration}: must be one of {known}")
    record, saved = run.read_record(), run.read_predictions("val")
    counts_as = run.settings().unknown_counts_as
    mean = mean_positives(run, record)
    if rule.kind == "count" and mean is None:
        raise UserError(
            "--thresholds=count: the run does not know the positives per image; train it with "
            "--positives_per_image, or choose f1"
        )
    labels, scores = saved["labels"], saved["scores"]
    told = calibrations.tells_negatives(labels, counts_as)
    found = _fitted(labels, scores, calibration, counts_as, told)
    chosen = choose(labels, found(scores), rule, mean, counts_as)
    value = f"{rule.value:g}"
    name = value if rule.kind == "fixed" else f"{rule.kind}:{value}" if rule.value else rule.kind
    estimated = calibration != "none" and not told
    return Decisions(record["class_names"], found, estimated, chosen, name, counts_as)


def _fitted(
    labels: NDArray[Any], scores: NDArray[Any], rule: str, counts_as: str, told: bool
) -> Calibration:
    if told or rule == "none":
        found = calibrations.fit(labels, scores, rule, counts_as)
        if found.shared.any():
            tell_note(
                f"{found.shared.sum()} of {len(found.shared)} classes have fewer than {FEW} "
                "validation positives: they are calibrated together",
            )
        return found
    if rule == "temperature":
        raise UserError(
            "--calibration=temperature: needs validation labels that tell of negatives; give "
            "platt, which does with annotated positives, or label validation photos in full"
        )
    tell_note(
        "validation labels tell of no negatives in some class: the calibration is estimated "
        "from which positives were annotated, and cannot be checked on them; on photos it was far "
        "off (docs/calibration.md)",
    )
    return from_annotated(labels, scores)


def from_annotated(labels: NDArray[Any], scores: NDArray[Any]) -> Calibration:
    """Platt scaling where one of each image's positives is annotated, and nothing else is known.

    The slopes and offsets are those of `draw_model.DrawModel`, which estimates the class priors. A
    class with fewer than 10 annotated positives takes the mean of all, weighted by these.

    Args:
        labels: [N, L] int8 in {1, 0, -1}, with a positive.
        scores: [N, L] float in [0, 1].

    Raises:
        UserError: no label is positive.

    Examples:
        Half of the images with both classes are annotated with either: all four hold both.

        >>> labels, scores = np.array([[1, -1], [-1, 1]] * 20), np.full((40, 2), 0.5)
        >>> from_annotated(labels, scores)(scores[:1]).round(1).tolist()
        [[1.0, 1.0]]
    """
    labels, scores = (x[:: sample_step(*labels.shape)] for x in (labels, scores))
    positives = (labels == POSITIVE).sum(axis=0)
    present, shared = positives > 0, positives < FEW
    if not present.any():
        raise UserError("--calibration=platt: no validation label is positive; give none")
    model = DrawModel(scores[:, present], labels[:, present])
    pairs = np.empty((2, len(positives)))
    pairs[:, present] = model.of_logits(model.fit())
    pairs[0, present] = np.maximum(pairs[0, present], calibrations.LEAST_SLOPE)
    pairs[:, shared] = np.average(pairs[:, present], axis=1, weights=positives[present])[:, None]
    return Calibration("platt", pairs[0], pairs[1], shared)


def calibration_errors(run: RunFolder, found: Calibration) -> Errors:
    """The expected calibration errors of a finished run's validation and test images.

    Args:
        run: the run.
        found: its calibration.

    Returns:
        {"before", "after"} in [0, 1] by split; after is None where the calibration is "none", both
        where labels cannot tell. After calibration that of "val" is cross-validated.

    Raises:
        UserError: the run's predictions are damaged.
    """
    counts_as, val = run.settings().unknown_counts_as, run.read_predictions("val")
    labels, scores = val["labels"], val["scores"]
    held = _cross_validated(labels, scores, found.rule, counts_as)
    errors = {"val": _before_and_after(labels, scores, held, counts_as)}
    if "test" in run.read_metrics():
        test = run.read_predictions("test")
        after = None if found.rule == "none" else found(test["scores"])
        errors["test"] = _before_and_after(test["labels"], test["scores"], after, counts_as)
    return errors


def _cross_validated(
    labels: NDArray[Any], scores: NDArray[Any], rule: str, counts_as: str
) -> NDArray[np.float64] | None:
    """Scores calibrated in folds as `decisions` does; None where it cannot, or does not."""
    if rule == "none" or len(labels) < 2 or not calibrations.tells_negatives(labels, counts_as):
        return None
    return calibrations.cross_validated(labels, scores, rule, counts_as)


def _before_and_after(
    labels: NDArray[Any], before: NDArray[Any], after: NDArray[Any] | None, counts_as: str
) -> dict[str, float | None]:
    """The expected calibration errors; None where there are no scores, or labels cannot tell."""
    return {
        name: None if scores is None else calibrations.calibration_error(labels, scores, counts_as)
        for name, scores in (("before", before), ("after", after))
    }


def report(
    found: Decisions,
    split: str,
    labels: NDArray[Any],
    scores: NDArray[Any],
    absent_classes: str = "skip",
    unknown_counts_as: str = "nothing",
) -> dict[str, Any]:
    """How good decisions and probabilities are on a split.

    Args:
        found: of `decisions`.
        split: its name; of "val" the error after calibration is cross-validated, None where the
            calibration is `from_annotated`.
        labels: [N, L] int8 in {1, 0, -1}.
        scores: [N, L] float in [0, 1], not calibrated.
        absent_classes: see `decision_report.decision_report`.
        unknown_counts_as: see `decision_report.decision_report`; calibration and thresholds stay
            those of the run's.

    Returns:
        What `decision_report` returns, and "calibration": {"rule", "expected_calibration_error":
        {"before", "after"}}, as of `calibration_errors`.
    """
    calibrated = found.calibration(scores)
    after = None if found.calibration.rule == "none" else calibrated
    if split == "val":
        after = _cross_validated(labels, scores, found.calibration.rule, found.unknown_counts_as)
    errors = _before_and_after(labels, scores, after, unknown_counts_as)
    return {
        **decision_report(
            labels, calibrated, found.thresholds.values, found.class_names, absent_classes,
            unknown_counts_as,
        ),
        "calibration": {"rule": found.calibration.rule, "expected_calibration_error": errors},
    }  # fmt: skip


def mean_positives(run: RunFolder, record: dict[str, Any]) -> float | None:
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
