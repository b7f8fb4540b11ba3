"""Exports checked against the Keras network, on photos of the run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from numpy.typing import NDArray

from spml_tf.datasets.readers import Examples
from spml_tf.evaluation.image_batches import batches
from spml_tf.evaluation.predictions import Scorer, score_report
from spml_tf.exports.exported import exported
from spml_tf.networks.float32 import in_float32
from spml_tf.runs.run_data import load_of_run
from spml_tf.system.errors import UserError

if TYPE_CHECKING:
    from spml_tf.runs.run_folder import RunFolder

# What a float32 export may differ from the network by, in a probability.
TOLERANCE = 1e-4
# Photos that converted models are compared with the network on, unless it is said.
MOST_PHOTOS = 500
# Training photos from which ranges of int8 features are taken.
_CALIBRATION = 100

# Images [B, S, S, 3] to outputs by name.
Model = Callable[[NDArray[np.float32]], Mapping[str, NDArray[Any]]]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A model file beside the network it was made of, on the same photos.

    Attributes:
        file: its name.
        megabytes: its size, in 10^6 bytes.
        largest: of the differences between two probabilities.
        mean: of these differences.
        changed: share of decisions that differ.
        map: its mean average precision in percent, None without positives.
        map_of_network: the network's.
    """

    file: str
    megabytes: float
    largest: float
    mean: float
    changed: float
    map: float | None
    map_of_network: float | None

    @property
    def loss(self) -> float | None:
        """Of mAP, in points; None without positives."""
        if self.map is None or self.map_of_network is None:
            return None
        return self.map_of_network - self.map


class ComparedPhotos:
    """Photos of a run, and what its network says of them.

    Args:
        run: the run.
        network: its network as trained.
        classes: as for `exported`.
        data_dir: folder of its data, None for the run's own.
        count: photos compared on, at most.

    Attributes:
        split: "test" or, where the run has no test images, "val".
        exported: what models are made of. It computes in float32, and so does the network that they
            are compared with: no converter knows bfloat16.

    Raises:
        UserError: the run's data cannot be read, or have changed since.
    """

    def __init__(
        self,
        run: RunFolder,
        network: keras.Model,
        classes: Mapping[str, Any],
        data_dir: str | None = None,
        count: int = MOST_PHOTOS,
    ) -> None:
        data = load_of_run(run, data_dir)
        self.split = "val" if data.test is None else "test"
        plain = in_float32(network)
        self.exported = exported(plain, classes)
        self._photos = _spread(data.parts[self.split], count)
        self._calibration = _spread(data.train, _CALIBRATION)
        self._unknown_counts_as = run.settings().unknown_counts_as
        self._scores = Scorer(plain, self.exported.image_size)(self._photos)
        self._map = self._map_of(self._scores)

    def __len__(self) -> int:
        return len(self._photos)

    def calibration(self) -> Iterator[NDArray[np.float32]]:
        """Training photos [1, S, S, 3] float32 in 0..255, resized as in evaluation."""
        return (x.image.numpy() for x in batches(self._calibration, self.exported.image_size, 1))

    def compare(self, file: str, content: bytes, model: Model, exact: bool) -> Comparison:
        """Compares a model file with the network.

        Args:
            file: its name.
            content: its bytes.
            model: runs it.
            exact: whether it has to give the network's probabilities.

        Raises:
            UserError: it has to, and does not.
        """
        read = batches(self._photos, self.exported.image_size, 8)
        outputs = [model(batch.image.numpy()) for batch in read]
        scores = np.concatenate([x["probabilities"] for x in outputs])
        decisions = np.concatenate([x["decisions"] for x in outputs])
        away = np.abs(scores.astype(np.float64) - self._scores)
        wanted = self._scores >= self.exported.thresholds
        found = Comparison(
            file,
            len(content) / 1e6,
            float(away.max()),
            float(away.mean()),
            float((decisions != wanted).mean()),
            self._map_of(scores),
            self._map,
        )
        if exact and not found.largest <= TOLERANCE:
            raise UserError(
                f"{file}: its probabilities differ from the network's by up to "
                f"{found.largest:.2g} on {len(self)} photos of the run, more than {TOLERANCE:g}: "
                "the converter does not know this network; leave this --format out"
            )
        return found

    def _map_of(self, scores: NDArray[np.float32]) -> float | None:
        names, labels = self.exported.class_names, self._photos.labels
        report = score_report(labels, scores, names, unknown_counts_as=self._unknown_counts_as)
        value: float | None = report["map"]
        return value


def _spread(examples: Examples, count: int) -> Examples:
    """So many examples at most, at equal distances."""
    if len(examples) <= count:
        return examples
    return examples.subset(np.linspace(0, len(examples) - 1, count).round().astype(int))
