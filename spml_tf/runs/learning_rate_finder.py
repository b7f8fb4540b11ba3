"""A learning rate from a sweep: it rises from step to step, and the loss tells where it is good.

Smith, "Cyclical Learning Rates for Training Neural Networks" (WACV 2017), section 3.3.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from spml_tf.datasets import pipeline
from spml_tf.datasets.splits import Splits, load_splits
from spml_tf.drawing.figure_files import set_title
from spml_tf.runs import model_building, run_data, training_run
from spml_tf.runs.run_folder import RunFolder
from spml_tf.runs.settings import Settings, resolve
from spml_tf.system.errors import UserError
from spml_tf.system.files import made_folder, naming_unwritable, replaced, write_table
from spml_tf.system.notes import tell_note
from spml_tf.system.private_api import inner_optimizer
from spml_tf.training import optimizers
from spml_tf.training.model import SPMLModel

STEPS = 200
# Factors of the given rates at the first and the last step.
_LOWEST, _HIGHEST = 1e-3, 1e3
# Flags about what a sweep has not: epochs whose features are kept, checkpoints, heatmaps.
_OF_WHOLE_RUNS = ("feature_crops", "feature_dir", "checkpoint_minutes", "record_heatmaps")
# Of the running average of losses, which ends the sweep once it has risen by so many times the size
# of the first losses, as many as are said.
_MOMENTUM, _DIVERGED, _FIRST = 0.9, 3.0, 10


class Sweep(NamedTuple):
    """What a sweep has seen.

    Attributes:
        factors: [S] float64, of the given rates, rising.
        losses: [S] float64, of the batches.
        averages: [S] float64, running averages of the losses.
        factor: the one to take: a tenth of that of the lowest average.
    """

    factors: NDArray[np.float64]
    losses: NDArray[np.float64]
    averages: NDArray[np.float64]
    factor: float


class _Rising(keras.callbacks.Callback):
    """Raises the rates of all optimizers by the same factor from step to step."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.factors = np.geomspace(_LOWEST, _HIGHEST, steps)
        self.losses: list[float] = []
        self._lowest = math.inf

    def on_train_begin(self, logs: Any = None) -> None:
        optimizer = optimizers.unwrapped(self.model.optimizer)
        found = [optimizer]
        if isinstance(optimizer, keras.optimizers.MultiOptimizer):
            found = [inner_optimizer(optimizer, x) for x in self.model.trainable_weights]
        self._given = [(x, float(x.learning_rate.numpy())) for x in dict.fromkeys(found)]

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.model.reset_metrics()  # so that the loss is that of this batch
        for optimizer, rate in self._given:
            optimizer.learning_rate.assign(self.factors[batch] * rate)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        loss = float((logs or {})["loss"])
        self.losses.append(loss)
        average = running_averages(self.losses)[-1]
        self._lowest = min(self._lowest, average)
        # Measured against the first losses, for that of EM is negative.
        bound = self._lowest + _DIVERGED * _size(self.losses)
        if not math.isfinite(loss) or (len(self.losses) > _FIRST and average > bound):
            self.model.stop_training = True


def _size(losses: Sequence[float] | NDArray[np.float64]) -> float:
    """The largest absolute value of the first losses, whose rates change next to nothing."""
    return float(np.abs(losses[:_FIRST]).max())


def running_averages(losses: list[float]) -> NDArray[np.float64]:
    """Averages over the losses so far, each weighing 0.9 of the next.

    Examples:
        >>> running_averages([1.0, 2.0]).round(3).tolist()  # 2: (0.9 * 1 + 2) / 1.9
        [1.0, 1.526]
    """
    found, total, weight = [], 0.0, 0.0
    for loss in losses:
        total, weight = _MOMENTUM * total + loss, _MOMENTUM * weight + 1
        found.append(total / weight)
    return np.array(found)


def sweep(model: SPMLModel, settings: Settings, data: Splits) -> Sweep:
    """Trains at most `STEPS` steps with rising rates.

    Args:
        model: compiled with constant rates; its weights are of no use afterwards.
        settings: of the run, resolved.
        data: of the run.

    Raises:
        UserError: the loss was never finite.
    """
    an_epoch = pipeline.steps_per_epoch(len(data.train), settings.batch_size)
    batches = pipeline.training_dataset(
        data.train, data.observed, first_epoch=1, epochs=math.ceil(STEPS / an_epoch),
        image_size=settings.image_size, batch_size=settings.batch_size, **settings.augmentation,
    )  # fmt: skip
    rising = _Rising(STEPS)
    model.optimizer.build(model.trainable_variables)
    with pipeline.naming_broken_images(data.train):
        model.fit_trusted(x=batches, epochs=1, steps_per_epoch=STEPS, callbacks=[rising], verbose=0)
    finite = [loss for loss in rising.losses if math.isfinite(loss)]
    if not finite:
        raise UserError("--find_learning_rate: the loss is not finite from the first step on")
    averages, factors = running_averages(finite), rising.factors[: len(finite)]
    return Sweep(factors, np.array(finite), averages, float(factors[averages.argmin()]) / 10)


def find(given: Settings, output_dir: Path) -> dict[str, float]:
    """Sweeps over the rates of a run that is not trained, and writes what it saw.

    While the backbone is frozen at first, that is the rate of the head alone.

    Args:
        given: settings of the run, resolved or not.
        output_dir: where learning_rates.csv and learning_rates.png are written.

    Returns:
        The rates to take, by their flags.

    Raises:
        UserError: for settings, data or a folder that do not fit.
    """
    if given.workers > 1 or given.strategy != "none":
        raise UserError("--find_learning_rate: does with one device; drop --strategy and --workers")
    if given.tracker != "none":
        raise UserError("--find_learning_rate: trains no run to track; drop --tracker")
    if RunFolder(output_dir).record.exists():
        raise UserError(f"--output_dir={output_dir}: holds a run; choose another folder")
    constant = dataclasses.replace(given, learning_rate_schedule="constant")
    settings = resolve(dataclasses.replace(constant, feature_crops=0, feature_dir=None))
    training_run.prepare_tensorflow(settings)
    data = load_splits(settings)
    k = run_data.positives_per_image(settings, data)
    training_run.tell_notes(settings, data)
    for field in dataclasses.fields(Settings):
        value = getattr(given, field.name)
        if field.name in _OF_WHOLE_RUNS and value and value != field.default:
            tell_note(f"--{field.name}={value} has no effect with --find_learning_rate")
    rates = {"head_learning_rate": settings.head_learning_rate}
    if not settings.option("warmup_epochs"):
        rates = {"learning_rate": settings.learning_rate, **rates}
    found = sweep(model_building.build(settings, data, k), settings, data)
    write(found, rates, output_dir)
    return {name: found.factor * rate for name, rate in rates.items()}


def write(found: Sweep, rates: dict[str, float], folder: Path) -> None:
    """Writes learning_rates.csv and learning_rates.png.

    Args:
        found: the sweep.
        rates: the given rates by their flags.
        folder: where to write; made if it is not there.
    """
    rows = [
        {**{name: factor * rate for name, rate in rates.items()}, "loss": loss, "average": average}
        for factor, loss, average in zip(*found[:3], strict=True)
    ]
    with naming_unwritable(f"--output_dir={folder}"), made_folder(folder):
        write_table(folder / "learning_rates.csv", rows)
        with replaced(folder / "learning_rates.png") as path:
            _draw(found, rates, path)


def _draw(found: Sweep, rates: dict[str, float], path: Path) -> None:
    name, rate = next(iter(rates.items()))
    figure = Figure(figsize=(7, 4), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.plot(found.factors * rate, found.losses, color="0.8", label="loss of a batch")
    axis.plot(found.factors * rate, found.averages, label="running average")
    axis.axvline(found.factor * rate, color="tab:red", linestyle=":", label="a tenth of the lowest")
    axis.set_xscale("log")
    margin = 0.5 * _size(found.averages)
    lowest = float(found.averages.min())
    axis.set_ylim(lowest - margin if lowest < 0 else 0, found.averages[0] + margin)
    axis.set_xlabel(f"--{name}")
    axis.set_ylabel("loss")
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    set_title(figure, "Loss against learning rate")
    figure.savefig(path, dpi=150, format="png")
