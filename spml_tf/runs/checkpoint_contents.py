"""What a run's checkpoint knows of its training images, read without building the model."""

from __future__ import annotations

import dataclasses
import os

import h5py
import numpy as np
from numpy.typing import NDArray

from spml_tf.system.errors import UserError
from spml_tf.system.hdf5_checks import ROWS, check_hdf5


@dataclasses.dataclass(frozen=True)
class CheckpointContents:
    """What is kept of N training images and L classes, in the images' order.

    Attributes:
        scores: float32 [N, L] in [0, 1], the running averages s of eq. 4, NaN for an image that was
            never visited.
        codes: int8 [N, L] in {1, 0, -1, 2}, the observed labels; 2: unknown, expected positive.
        epochs_selected: uint8 [N, L], for how many epochs a label was an expected positive, up to
            255; None where the method selects nothing.
    """

    scores: NDArray[np.float32]
    codes: NDArray[np.int8]
    epochs_selected: NDArray[np.uint8] | None


def read_checkpoint(path: str | os.PathLike[str], observed: NDArray[np.int8]) -> CheckpointContents:
    """Reads the score bank and the labels.

    Args:
        path: the file of weights of a run's checkpoint.
        observed: int8 [N, L] in {1, 0, -1}, the labels trained on; they stand for the labels where
            the method keeps no marks.

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
            stored, visited, codes = bank["0"][...], bank["1"][...], observed
            if "label_store" in file:
                store = file["label_store"]["vars"]
                codes = store["0"][...]
                selected = store["1"][...] if "1" in store else None
    except FileNotFoundError:
        raise UserError(f"{path}: missing; train this run again") from None
    except (OSError, KeyError) as error:
        raise UserError(f"{path}: cannot be read ({error}); train this run again") from None
    if stored.shape != observed.shape or codes.shape != observed.shape:
        raise UserError(
            f"{path}: holds scores {stored.shape} for labels {observed.shape}; train this run again"
        )
    scores = stored.astype(np.float32) / (255 if stored.dtype == np.uint8 else 1)
    scores[~visited] = np.nan
    return CheckpointContents(scores, codes, selected)
