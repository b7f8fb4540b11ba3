"""What a run's checkpoint knows of its training images, read without building the model."""

from __future__ import annotations

import dataclasses
import os

import h5py
import numpy as np
from numpy.typing import NDArray

from spml_tf.system.errors import UserError
from spml_tf.system.hdf5_checks import ROWS, check_hdf5

# Where a model's label store keeps its counts, if it selects.
_SELECTED = "label_store/vars/1"


@dataclasses.dataclass(frozen=True)
class CheckpointContents:
    """What is kept of N training images and L classes, in the images' order.

    Attributes:
        scores: float32 [N, L] in [0, 1], the running averages s of eq. 4, NaN for an image that was
            never visited.
        epochs_selected: uint8 [N, L], for how many epochs a label was an expected positive, up to
            255; None where the method selects nothing.
    """

    scores: NDArray[np.float32]
    epochs_selected: NDArray[np.uint8] | None


def read_checkpoint(path: str | os.PathLike[str], observed: NDArray[np.int8]) -> CheckpointContents:
    """Reads the score bank, and how often labels were selected.

    Args:
        path: the file of weights of a run's checkpoint.
        observed: int8 [N, L] in {1, 0, -1}, the labels trained on.

    Returns:
        What it holds.

    Raises:
        UserError: the file is missing, cannot be read, holds other shapes than `observed`, is of a
            run without averages, or is refused by `hdf5_checks.check_hdf5`.
    """
    selected = None
    check_hdf5(path, ROWS)
    try:
        with h5py.File(path) as file:
            if "ema_scores" not in file:
                raise UserError(
                    f"{path}: holds no running averages of scores; train with --keep_scores"
                )
            bank = file["ema_scores"]["vars"]
            stored, visited = bank["0"][...], bank["1"][...]
            if _SELECTED in file:
                selected = file[_SELECTED][...]
    except FileNotFoundError:
        raise UserError(f"{path}: missing; train this run again") from None
    except (OSError, KeyError) as error:
        raise UserError(f"{path}: cannot be read ({error}); train this run again") from None
    for what, found in (("scores", stored), ("selections", selected)):
        if found is not None and found.shape != observed.shape:
            raise UserError(
                f"{path}: holds {what} {found.shape} for labels {observed.shape}; train this run "
                "again"
            )
    scores = stored.astype(np.float32) / (255 if stored.dtype == np.uint8 else 1)
    scores[~visited] = np.nan
    return CheckpointContents(scores, selected)
