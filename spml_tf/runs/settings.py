"""What a training run is told: one field per flag, with defaults derived from one another."""

from __future__ import annotations

import dataclasses
import os
from typing import Any, ClassVar

from spml_tf.datasets.settings import DataSettings, check_range, resolved
from spml_tf.system.cli import flag_field
from spml_tf.system.errors import UserError

_IMAGE_SIZES = {"resnet50": 448, "small_residual": 64}


@dataclasses.dataclass(frozen=True)
class Settings(DataSettings):
    """The flags of a training run, those about data among them. None means: derived, see `resolve`.

    Attributes are described by their flags: `python -m spml_tf.train --help`.
    """

    group: ClassVar[str] = "Network and training"

    network: str | None = flag_field(
        None,
        "resnet50, efficientnet_lite0, small_residual, or applications:NAME for any network of "
        "keras.applications. Default: small_residual for digits, resnet50 otherwise.",
    )
    weights: str | None = flag_field(
        None,
        "imagenet, none (train from scratch), or a weights file. Default: none for small_residual, "
        "imagenet otherwise.",
    )
    keep_head: bool = flag_field(
        False,
        "Start from the classifier that the weights come with; the data must have its classes in "
        "its order, as --dataset=imagenet has.",
        bool,
    )
    image_size: int | None = flag_field(
        None, "Input side in pixels. Default: 64 small_residual, 448 resnet50, 224 others.", int
    )
    method: str = flag_field(
        "en+scl",
        "bce, an, an_ls, wan, epr, role, ll_r, ll_ct, ll_cp, en, ep, em, hill, splc or asl, alone "
        "or followed by +cl or +scl.",
    )
    positives_per_image: float | None = flag_field(
        None,
        "K: mean number of true positives per training image. Default: the mean over the fully "
        "labelled validation images.",
        float,
    )
    epochs: int | None = flag_field(
        None, "All epochs, warm-up included. Default: 50 from scratch, 15 otherwise.", int
    )
    warmup_epochs: int | None = flag_field(
        None,
        "First epochs, with the backbone frozen. Default: 0 from scratch, a third of --epochs "
        "otherwise.",
        int,
    )
    freeze_batch_norm: bool = flag_field(
        False, "Keep the backbone's batch normalisation as it is (for small batches).", bool
    )
    selection_start_epoch: int | None = flag_field(
        None,
        "First epoch with expected positives, from 1. Default: after a quarter of --epochs from "
        "scratch, after warm-up (at least 2) otherwise.",
        int,
    )
    selection_budget: str = flag_field(
        "all",
        "all: rank annotated positives too (the paper's); unannotated: rank unknown labels only; "
        "global: rank the unknown labels of all classes together; validation: as unannotated, but "
        "expect each class in the share of images that it has in the validation split.",
        str,
        ("all", "unannotated", "global", "validation"),
    )
    consistency_start_epoch: int | None = flag_field(
        None, "First epoch with CL or SCL, from 1. Default: --selection_start_epoch.", int
    )
    consistency_weight: float = flag_field(0.25, "gamma of eq. 8.", float)
    entropy_weight: float = flag_field(0.1, "alpha of the method em.", float)
    large_loss_rate: float = flag_field(
        0.2,
        "delta of ll_r, ll_ct and ll_cp: percent of the labels that are marked, an epoch for the "
        "first two.",
        float,
    )
    ema_momentum: float = flag_field(0.8, "mu of eq. 4, in [0, 1).", float)
    heatmap_size: int | None = flag_field(
        None, "W, cells per side of the heatmap bank. Default: the network's grid.", int
    )
    heatmap_classes: int | None = flag_field(
        None,
        "Classes of each image whose heatmaps are kept: its annotated ones and those of highest "
        "score. Default: all; 8 makes ImageNet fit into memory.",
        int,
    )
    bank_dtype: str = flag_field(
        "float32", "Storage of the banks.", str, ("float32", "float16", "uint8")
    )
    record_heatmaps: str | None = flag_field(
        None,
        "Training images whose heatmaps are kept after each epoch, in heatmaps.npz: a number (the "
        "first of each class; 0: none) or NAME,NAME. Default: 8 with +scl, else 0. Without +scl "
        "they are the network's own, not running averages.",
    )
    crop_area: str = flag_field("0.25,1", "LOW,HIGH: interval of the crops' area, in (0, 1].")
    horizontal_flip: bool | None = flag_field(
        None, "Mirror half of the crops. Default: off for digits, on otherwise.", bool
    )
    batch_size: int | None = flag_field(None, "Default: 32 from scratch, 16 otherwise.", int)
    learning_rate: float | None = flag_field(
        None, "Adam's, of the backbone. Default: 2e-3 from scratch, 5e-5 otherwise.", float
    )
    head_learning_rate: float | None = flag_field(
        None, "Adam's, of the head. Default: --learning_rate from scratch, 1e-3 otherwise.", float
    )
    estimates_learning_rate: float | None = flag_field(
        None, "Adam's, of ROLE's label estimates. Default: 10 times --learning_rate.", float
    )
    learning_rate_schedule: str = flag_field(
        "cosine", "cosine: down to 0 over the run; constant.", str, ("cosine", "constant")
    )
    mixed_precision: str = flag_field(
        "none", "Compute in half precision.", str, ("none", "bfloat16", "float16")
    )
    initial_banks: str | None = flag_field(
        None,
        "Run folder on the same images whose banks this run starts from; the expected positives "
        "chosen from them stand until --selection_start_epoch.",
    )
    init_from: str | None = flag_field(
        None, "Run folder whose network this run starts from; other classes are allowed."
    )
    seed: int = flag_field(0, "Seed of weights, order and crops.", int)
    threads: int = flag_field(0, "CPU threads of TensorFlow; 0: all.", int)

    @property
    def crop_interval(self) -> tuple[float, float]:
        """(low, high) of --crop_area."""
        low, high = self.crop_area.split(",")
        return float(low), float(high)


def resolve(given: Settings) -> Settings:
    """Fills the settings left open and checks all of them.

    Args:
        given: settings as the user gave them.

    Returns:
        Settings without open fields, but for positives_per_image and heatmap_size, which follow
        from data and network.

    Raises:
        UserError: for a value that cannot be, naming the flag.
    """
    network = given.network or ("small_residual" if given.dataset == "digits" else "resnet50")
    weights = given.weights or ("none" if network == "small_residual" else "imagenet")
    scratch = weights == "none" and not given.init_from
    epochs = given.epochs or (50 if scratch else 15)
    warmup = _default(given.warmup_epochs, 0 if scratch else epochs // 3)
    selection = _default(given.selection_start_epoch, _selection_start(given, scratch, epochs))
    rate = _default(given.learning_rate, 2e-3 if scratch else 5e-5)
    values = {
        **resolved(given),
        "network": network,
        "weights": weights if weights in ("none", "imagenet") else _absolute(weights),
        "image_size": given.image_size or _IMAGE_SIZES.get(network, 224),
        "epochs": epochs,
        "warmup_epochs": warmup,
        "selection_start_epoch": selection,
        "consistency_start_epoch": _default(given.consistency_start_epoch, selection),
        "horizontal_flip": _default(given.horizontal_flip, given.dataset != "digits"),
        "batch_size": given.batch_size or (32 if scratch else 16),
        "learning_rate": rate,
        "head_learning_rate": _default(given.head_learning_rate, rate if scratch else 1e-3),
        "estimates_learning_rate": _default(given.estimates_learning_rate, 10 * rate),
        "initial_banks": _absolute(given.initial_banks),
        "init_from": _absolute(given.init_from),
    }
    settings = dataclasses.replace(given, **values)
    _check(settings)
    return settings


def _selection_start(given: Settings, scratch: bool, epochs: int) -> int:
    if scratch:
        return max(2, epochs // 4 + 1)
    return max(2, _default(given.warmup_epochs, epochs // 3) + 1)


def _default(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value


def _absolute(path: str | None) -> str | None:
    return None if path is None else os.path.abspath(path)


def _check(settings: Settings) -> None:
    _check_crop_area(settings.crop_area)
    if settings.keep_head and (settings.init_from or settings.weights == "none"):
        other = "--init_from" if settings.init_from else "--weights=none"
        raise UserError(f"--keep_head: means the head of --weights, not with {other}; drop one")
    for name, low, high in (
        ("image_size", 8, 1e5), ("epochs", 1, 1e6), ("warmup_epochs", 0, settings.epochs),
        ("selection_start_epoch", 1, 1e6), ("consistency_start_epoch", 1, 1e6),
        ("consistency_weight", 0, 1e6), ("ema_momentum", 0, 0.999999), ("batch_size", 1, 1e6),
        ("learning_rate", 0, 1e3), ("head_learning_rate", 0, 1e3),
        ("estimates_learning_rate", 0, 1e4), ("entropy_weight", 0, 1e3),
        ("large_loss_rate", 0, 100), ("threads", 0, 1e4),
        ("positives_per_image", 1e-6, 1e6), ("heatmap_size", 1, 1e4),
        ("heatmap_classes", 1, 1e6), ("seed", 0, 2**31 - 1),
    ):  # fmt: skip
        check_range(name, getattr(settings, name), low, high)


def _check_crop_area(text: str) -> None:
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--crop_area={text}: give LOW,HIGH, such as 0.25,1") from None
    if not 0.0 < low <= high <= 1.0:
        raise UserError(f"--crop_area={text}: needs 0 < LOW <= HIGH <= 1")
