"""The data that a run is trained on, and was."""

from __future__ import annotations

import dataclasses
import os

from scipy.special import stdtrit

from spml_tf.datasets.splits import Splits, load_splits
from spml_tf.labels import POSITIVE, UNKNOWN
from spml_tf.runs.run_folder import RunFolder
from spml_tf.runs.settings import Settings
from spml_tf.system.errors import UserError
from spml_tf.training import methods
from spml_tf.training.options import AUTO, ESTIMATED_BUDGETS

# Validation images whose mean number of positives is taken as it is.
_ENOUGH = 50


def positives_per_image(settings: Settings, data: Splits) -> float | str | None:
    """The K that training is told.

    Args:
        settings: of the run, resolved.
        data: of the run.

    Returns:
        What is given, else the mean of the validation images, else "auto" where it is estimated.
    """
    given: float | str | None = settings.option("positives_per_image")
    if given is not None:
        return given
    counted = data.positives_per_image
    return AUTO if settings.budget in ESTIMATED_BUDGETS and not counted else counted


def note_on_k(settings: Settings, data: Splits) -> str:
    """How sure a K is that the validation images give; "" where they are enough, or do not.

    Args:
        settings: of the run, resolved.
        data: of the run.
    """
    estimates = settings.budget in ESTIMATED_BUDGETS
    if (
        not methods.needs_k(settings.method)
        or settings.option("positives_per_image") is not None
        or settings.budget in ("validation", "mime", "training")
        or (estimates and settings.option("selection_priors"))
    ):
        return ""
    complete = (data.val.labels != UNKNOWN).all(axis=1)
    counts = (data.val.labels[complete] == POSITIVE).sum(axis=1)
    if not 0 < len(counts) < _ENOUGH or not counts.any():
        return ""
    if len(counts) == 1:
        found = f"K = {counts[0]:g} is that of the one validation image that is fully labelled"
    else:
        around = stdtrit(len(counts) - 1, 0.975) * counts.std(ddof=1) / len(counts) ** 0.5
        low, high = max(counts.mean() - around, 0.0), counts.mean() + around
        found = (
            f"K = {counts.mean():.2f} is counted on {len(counts)} fully labelled validation "
            f"images: the mean of all lies between {low:.2f} and {high:.2f} (95%)"
        )
    can_estimate = methods.selects(settings.method) and not estimates
    or_auto = ", or --positives_per_image=auto" if can_estimate else ""
    return f"{found}; count {_ENOUGH} images{or_auto}"


def settings_of_run(run: RunFolder, data_dir: str | None = None) -> Settings:
    """A run's settings, with another folder of its data set where one is given.

    Raises:
        UserError: as `RunFolder.settings`.
    """
    settings = run.settings()
    run.check_plugins(settings)
    if data_dir is None:
        return settings
    return dataclasses.replace(settings, data_dir=os.path.abspath(data_dir))


def load_of_run(run: RunFolder, data_dir: str | None = None) -> Splits:
    """Reads the data that a run was trained on.

    Args:
        run: the run.
        data_dir: folder of the data set, None for the run's own.

    Raises:
        UserError: there is no run, its data cannot be read, or they have changed since.
    """
    settings = settings_of_run(run, data_dir)
    try:
        data = load_splits(settings)
    except UserError as error:
        if data_dir is not None:
            raise
        reason = f"{run.path}: its data cannot be read ({error}); --data_dir names their folder"
        raise UserError(reason) from None
    if data.fingerprint() != run.read_record().get("data_fingerprint"):
        raise UserError(
            f"{settings.data_dir or settings.dataset}: holds other images or labels than "
            f"{run.path} was trained on; name the folder it was trained on with --data_dir"
        )
    return data
