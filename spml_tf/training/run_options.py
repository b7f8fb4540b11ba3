"""The options that the commands give a model for a run of so many epochs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from spml_tf.labels import positives_per_image, validate_labels
from spml_tf.training import methods
from spml_tf.training.budgets import expected_shares
from spml_tf.training.options import ESTIMATED_BUDGETS, ModelOptions, SelectionOptions


def options_of_run(
    method: str,
    epochs: int,
    *,
    from_scratch: bool = False,
    head_only: bool = False,
    train_labels: ArrayLike | None = None,
    val_labels: ArrayLike | None = None,
    **given: Any,
) -> dict[str, Any]:
    """Options of `SPMLModel` as `python -m spml_tf.train` has them for a run of so many epochs.

    Without them a model takes its own defaults, which know of no length: selection and consistency
    begin in epoch 2, gr ends its changes in epoch 10, em_apl in epochs 5 to 10.

    Args:
        method: as for `SPMLModel`.
        epochs: of the whole training, from 1.
        from_scratch: the backbone has no pretrained weights.
        head_only: the backbone stays frozen.
        train_labels: [N, L] in {1, 0, -1}, with `val_labels` for `recommended` and other methods
            that estimate class shares: what is counted is not estimated.
        val_labels: [M, L] in {1, 0, -1}, of which at least one row is fully labelled.
        **given: options that are to be otherwise; they are returned too, and what follows from
            them, such as selection_start_epoch from warmup_epochs.

    Returns:
        Keyword arguments for `SPMLModel`, those of its method that change with the run.

    Raises:
        ValueError: no such method; labels that are invalid or not given together; no validation
            row that is fully labelled.

    Examples:
        >>> options_of_run("en+scl", 12, warmup_epochs=4)["selection_start_epoch"]
        5
        >>> options_of_run("en+scl", 12, from_scratch=True)["consistency_start_epoch"]  # 12 / 4 + 1
        4
        >>> options_of_run("recommended", 8, train_labels=[[1, -1]], val_labels=[[1, 0]])[
        ...     "selection_priors"
        ... ]
        [1.0, 0.0]
    """
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1. Received: {epochs}")
    if (train_labels is None) != (val_labels is None):
        raise ValueError("give train_labels and val_labels together")
    fixed = {"epochs": epochs, "from_scratch": from_scratch, "linear_probe": head_only}
    own = {**ModelOptions.declared(), **methods.flags_of(method)}
    # Consistency starts with the selection, of methods that have none too.
    selection = {
        flag: SelectionOptions.declared()[x] for flag, x in SelectionOptions.flags().items()
    }
    values = methods.derived({**ModelOptions.declared(), **selection, **own}, {**fixed, **given})
    found = {name: value for name, value in values.items() if name in own} | given
    told = {"positives_per_image", "selection_priors"} & given.keys()
    if _estimates(method, given) and not told and val_labels is not None:
        observed = validate_labels(np.asarray(train_labels), "train_labels")
        labels = validate_labels(val_labels, "val_labels")
        if positives_per_image(labels):
            found["selection_priors"] = expected_shares(observed, labels)
    return found


def _estimates(method: str, given: Mapping[str, Any]) -> bool:
    """Whether shares of the classes would be estimated."""
    if not methods.selects(method):
        return False
    budget = methods.fixed_budget(method) or given.get("selection_budget")
    return budget in ESTIMATED_BUDGETS
