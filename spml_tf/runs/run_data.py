"""The data that a run was trained on, read again."""

from __future__ import annotations

import dataclasses
import os

from spml_tf.datasets.splits import Splits, load_splits
from spml_tf.runs.run_folder import RunFolder
from spml_tf.runs.settings import Settings
from spml_tf.system.errors import UserError


def settings_of_run(run: RunFolder, data_dir: str | None = None) -> Settings:
    """A run's settings, with another folder of its data set where one is given.

    Raises:
        UserError: as `RunFolder.settings`.
    """
    settings = run.settings()
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
