"""The model of a run: network, method, optimizer and metric, from its settings and data."""

from __future__ import annotations

import os
from typing import Any

import keras
import numpy as np

from spml_tf import labels, networks
from spml_tf.datasets import label_files, pipeline
from spml_tf.datasets.splits import Splits
from spml_tf.evaluation.average_precision import MeanAveragePrecision
from spml_tf.labels import POSITIVE
from spml_tf.networks.batch_norm import synchronize_batch_norm
from spml_tf.networks.boost import cam_boost, with_cam_boost
from spml_tf.runs import run_folder
from spml_tf.runs.settings import Settings
from spml_tf.system.errors import UserError
from spml_tf.system.files import sha256
from spml_tf.system.notes import tell_note
from spml_tf.system.private_api import flatten_layers, outside_strategy
from spml_tf.training import methods, optimizers
from spml_tf.training.budgets import expected_shares
from spml_tf.training.model import SPMLModel
from spml_tf.training.options import AUTO, ESTIMATED_BUDGETS, PROBABLE

# Labels (images times classes) up to which mAP on training batches is kept, 5 bytes each.
_TRAIN_METRICS_UP_TO = 100_000_000
_PRIORS = ("likely_priors", "selection_priors")


def build(settings: Settings, data: Splits, positives_per_image: float | str | None) -> SPMLModel:
    """The compiled model, with labels, weights of labels and the banks of an earlier run.

    Args:
        settings: of the run, resolved.
        data: of the run.
        positives_per_image: K, or "auto", as `run_data.positives_per_image` says; None: unknown.

    Raises:
        UserError: K or labels are missing, or flags do not go together.
    """
    _check_labels(settings, data, positives_per_image)
    of_method = _of_method(settings, data, positives_per_image)
    model = _model(settings, data, positives_per_image, of_method)
    if settings.feature_crops and any(part.needs_images for part in model.parts):
        raise UserError(
            f"--feature_crops={settings.feature_crops}: --method={settings.method} looks at the "
            "images in each step, for which features cannot stand; give 0"
        )
    metric = MeanAveragePrecision(unknown_counts_as=settings.unknown_counts_as)
    model.compile(optimizer=_optimizer(settings, len(data.train), model), metrics=[metric])
    if settings.initial_banks:
        _load_banks(model, settings, data)
    model.set_labels(data.observed)
    if data.train.weights is not None or data.class_weights is not None:
        model.set_weights_of_labels(data.train.weights, data.class_weights)
    return model


def digests_of_priors(settings: Settings) -> dict[str, str]:
    """SHA-256 of the files of class shares that the method reads, by flag.

    Args:
        settings: of the run, resolved.
    """
    paths = {flag: settings.option(flag) for flag in _PRIORS}
    return {flag: sha256(path) for flag, path in paths.items() if path and os.path.isfile(path)}


def _check_labels(
    settings: Settings, data: Splits, positives_per_image: float | str | None
) -> None:
    """Raises UserError where K is missing that the method needs, or nothing is annotated."""
    selects = methods.selects(settings.method)
    or_auto = (
        ", or let it be estimated: --positives_per_image=auto, or --method=recommended, which "
        "needs none"
        if selects
        else ""
    )
    count = "count the classes that truly appear in 50 training photos and give their mean"
    if methods.needs_k(settings.method):
        if positives_per_image is None:
            raise UserError(
                "--positives_per_image is missing and no validation image is fully labelled: "
                f"{count}{or_auto}"
            )
        if positives_per_image == 0:
            raise UserError(
                "--positives_per_image is missing and no fully labelled validation image shows "
                f"any class: {count}{or_auto}"
            )
        if positives_per_image == AUTO and not selects:
            raise UserError(
                f"--positives_per_image=auto: --method={settings.method} keeps no score bank to "
                "estimate it from before it is needed; give a number, or take en or ep"
            )
    if not (data.observed == POSITIVE).any():
        raise UserError(
            f"--dataset={settings.dataset}: no training image is labelled with any class; nothing "
            "can be learned from them"
        )


def _of_method(
    settings: Settings, data: Splits, positives_per_image: float | str | None
) -> dict[str, Any]:
    """The options of the method's parts, with what they name read."""
    found = settings.of_method()
    found.pop("positives_per_image", None)
    if "selection_budget" in found:
        found["selection_budget"] = selection_budget(found["selection_budget"], data)
    for flag in _PRIORS:
        if found.get(flag):
            priors = label_files.read_class_priors(found[flag], data.train.class_names, flag)
            found[flag] = priors.tolist()
    counted = settings.option("positives_per_image") is None and positives_per_image != AUTO
    if settings.budget in ESTIMATED_BUDGETS and counted and not found.get("selection_priors"):
        found["selection_priors"] = expected_shares(data.observed, data.val.labels)
    return found


def selection_budget(rule: str, data: Splits) -> str | list[float]:
    """What --selection_budget names: a rule, or each class's share of the images.

    The shares are those of the validation images, or by "training" the true ones of the training
    images. By "mime" they are the observed ones times 1 + h, where h is
    1 / mean(1 / number of positives) of the validation images: a selection takes the shares less
    the observed ones.

    Args:
        rule: the flag's word.
        data: of the run.

    Raises:
        UserError: no image that the rule looks at is fully labelled.
    """
    try:
        if rule in ("validation", "training"):
            part = data.val if rule == "validation" else data.train
            return list(labels.class_shares(part.labels).tolist())
        if rule == "mime":
            factor = labels.harmonic_positives_per_image(data.val.labels)
            shares = (1 + factor) * (data.observed == POSITIVE).mean(axis=0)
            return list(np.minimum(shares, 1.0).tolist())
    except ValueError as error:
        raise UserError(f"--selection_budget={rule}: {error}") from None
    return rule


def _model(
    settings: Settings,
    data: Splits,
    positives_per_image: float | str | None,
    of_method: dict[str, Any],
) -> SPMLModel:
    network = _network(settings, data.train.class_names)
    if settings.init_from and cam_boost(network) != settings.cam_boost:
        tell_note(
            f"--init_from={settings.init_from}: was trained with --cam_boost="
            f"{cam_boost(network):g}, this run has {settings.cam_boost:g}",
        )
    network = with_cam_boost(network, settings.cam_boost)
    if settings.sync_batch_norm:
        synchronize_batch_norm(network)
    try:
        return SPMLModel(
            network,
            len(data.train),
            settings.method,
            positives_per_image,
            **settings.of_model(),
            **of_method,
            seed=settings.seed,
            train_metrics=data.observed.size <= _TRAIN_METRICS_UP_TO,
        )
    except ValueError as error:
        raise UserError(f"--method={settings.method}: {error}") from None


def _network(settings: Settings, class_names: tuple[str, ...]) -> keras.Model:
    if not settings.init_from:
        return networks.build(
            settings.network,
            len(class_names),
            settings.weights,
            settings.image_size,
            settings.keep_head,
        )
    earlier = run_folder.RunFolder(settings.init_from)
    record = earlier.read_record()
    if settings.weights not in ("none", "imagenet"):
        raise UserError(
            f"--weights={settings.weights}: the weights are those of --init_from; drop one"
        )
    for flag in ("network", "image_size", "mixed_precision"):
        now = getattr(settings, flag)
        before = record["flags"].get(flag, now)
        if before != now:
            raise UserError(
                f"--init_from={earlier.path}: was trained with --{flag}={before}, this run has "
                f"{now}; make them equal"
            )
    network = networks.load_network(earlier.best_network())
    for layer in flatten_layers(network):
        layer.trainable = True  # the earlier run may have frozen some
    return networks.replace_head(
        network, len(class_names), record["class_names"], list(class_names)
    )


def _optimizer(settings: Settings, num_images: int, model: SPMLModel) -> keras.optimizers.Optimizer:
    """Adam for backbone, head and parts; a schedule's end is the last step of the run."""
    steps = pipeline.steps_per_epoch(num_images, settings.batch_size)

    def adam(rate: float, epochs: int) -> keras.optimizers.Adam:
        if settings.learning_rate_schedule == "constant" or not epochs:
            return keras.optimizers.Adam(rate)
        return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, epochs * steps))

    own = [weight for part in model.parts for weight in part.trainable_variables]
    others = {}
    if own:
        with outside_strategy():
            others = {adam(settings.estimates_learning_rate, settings.epochs): own}
    return optimizers.head_and_backbone(
        adam(settings.learning_rate, settings.epochs - settings.option("warmup_epochs")),
        adam(settings.head_learning_rate, settings.epochs),
        others,
    )


def _load_banks(model: SPMLModel, settings: Settings, data: Splits) -> None:
    """Starts from the banks, and the estimate if there is one, of --initial_banks."""
    assert settings.initial_banks is not None
    earlier = run_folder.RunFolder(settings.initial_banks)
    record = earlier.read_record()
    if record["data_fingerprint"] != data.fingerprint():
        raise UserError(
            f"--initial_banks={earlier.path}: that run has other images or labels; banks can only "
            "go on with the same data flags"
        )
    checkpoint = earlier.checkpoints.newest()
    if checkpoint is None:
        raise UserError(
            f"--initial_banks={settings.initial_banks}: holds no checkpoint; finish that run first"
        )
    try:
        model.load_banks(str(checkpoint.weights))
    except ValueError as error:
        raise UserError(f"--initial_banks: {error}") from None
    if model.estimated_priors is None or settings.budget != PROBABLE:
        return
    for flag in ("selection_probability", "positives_per_image", "selection_priors"):
        before, now = record["flags"].get(flag), settings.option(flag)
        if before != now:
            raise UserError(
                f"--initial_banks={earlier.path}: the labels that are probable were counted by "
                f"that run, with {_given(flag, before)}, and this one has {_given(flag, now)}; "
                "give the same, or the banks of a run that has estimated nothing (an)"
            )


def _given(flag: str, value: Any) -> str:
    return f"no --{flag}" if value is None else f"--{flag}={value}"
