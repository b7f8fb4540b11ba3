"""What an analysis knows: the runs it compares, their images, an experiment on crops."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterator, Sequence

import keras
import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from spml_tf import networks
from spml_tf.datasets import splits
from spml_tf.datasets.readers import Examples
from spml_tf.datasets.stored_pixels import with_upright_boxes
from spml_tf.drawing.figure_files import Row
from spml_tf.evaluation import predictions
from spml_tf.figures import crop_experiment
from spml_tf.labels import POSITIVE
from spml_tf.runs import run_groups
from spml_tf.runs.run_groups import Group, RunScores
from spml_tf.system.errors import UserError


class UnavailableError(Exception):
    """A figure cannot be had; the text says why."""


@dataclasses.dataclass(frozen=True)
class Analysis:
    """What the tables of figures are made of.

    Attributes:
        groups: of runs on the same data.
        split: "val" or "test", the split reported on.
        dataset: its name.
        class_names: L names.
        examples: the M images of the split, or why they cannot be had.
        crops: rows of the figure of crop intervals, None without an experiment.
        batch_size: images at a time, where a network is asked.
    """

    groups: tuple[Group, ...]
    split: str
    dataset: str
    class_names: tuple[str, ...]
    examples: Examples | str
    crops: list[Row] | None = None
    batch_size: int = 32

    @property
    def labels(self) -> NDArray[np.int8]:
        """[M, L] in {1, 0, -1}, of the images reported on."""
        return self.groups[0].runs[0].labels

    @property
    def unknown_counts_as(self) -> str:
        """What unknown labels count as, see `labels.counted_labels`: as in the first run."""
        return self.groups[0].runs[0].settings.unknown_counts_as

    def baseline(self) -> Group:
        """The first group whose method is an.

        Raises:
            UnavailableError: there is none.
        """
        for group in self.groups:
            if group.method == "an":
                return group
        raise UnavailableError("no run of the method an, which the others are compared with")

    def images(self) -> Examples:
        """The images reported on.

        Raises:
            UnavailableError: they cannot be had.
        """
        if isinstance(self.examples, str):
            raise UnavailableError(self.examples)
        return self.examples

    def boxes(self) -> tuple[Sequence[NDArray[np.float32]], Sequence[NDArray[np.float32]]]:
        """Boxes and areas of the objects in these images, as Examples has them.

        Raises:
            UnavailableError: the images cannot be had, or have no boxes.
        """
        boxes, areas = self.images().boxes, self.images().areas
        if boxes is None or areas is None or not any(map(len, boxes)):
            raise UnavailableError("the data set has no boxes")
        return boxes, areas

    def masked_images(self) -> Examples:
        """The images that have a mask.

        Raises:
            UnavailableError: the images cannot be had, or have no masks.
        """
        images = self.images()
        rows = [row for row, path in enumerate(images.masks or ()) if path is not None]
        if not rows:
            raise UnavailableError(f"no image of {self.split} has a mask")
        return images.subset(rows)

    def check_positives(self) -> None:
        """Raises UnavailableError where no class has a positive."""
        if not (self.labels == POSITIVE).any():
            raise UnavailableError(f"no class has a positive in {self.split}")

    def peaks(self, run: RunScores) -> NDArray[np.float64]:
        """Where the maps of a run's network are highest, [M, L, 2] of (y, x) in [0, 1].

        Raises:
            UnavailableError: the images cannot be had.
            UserError: an image or the network cannot be read.
        """
        network, size = self._network(run), run.settings.image_size
        return predictions.predict_peaks(network, self.images(), size, self.batch_size)

    def heatmaps(self, run: RunScores, images: Examples) -> Iterator[NDArray[np.float32]]:
        """Heatmaps sigmoid(F) of a run's network, each [G, G, L].

        Raises:
            UserError: an image or the network cannot be read.
        """
        network, size = self._network(run), run.settings.image_size
        return map(expit, predictions.predict_maps(network, images, size, self.batch_size))

    def _network(self, run: RunScores) -> keras.Model:
        runs = [run for group in self.groups for run in group.runs]
        place = next(number for number, other in enumerate(runs, start=1) if other is run)
        print(f"heatmaps of {run.folder.path} ({place} of {len(runs)})", file=sys.stderr)
        return networks.load_network(run.folder.best_network())


def read(
    run_dirs: Sequence[str],
    names: Sequence[str] | None = None,
    data_dir: str | None = None,
    experiment_csv: str | None = None,
    batch_size: int = 32,
) -> Analysis:
    """Reads runs and their images.

    Args:
        run_dirs: folders of finished runs on the same data.
        names: as for `run_groups.read_groups`.
        data_dir: folder of the data set, None for the runs' own.
        experiment_csv: of an experiment that varies crop_area, or None.
        batch_size: images at a time, where a network is asked.

    Raises:
        UserError: runs that cannot be compared or read, images that cannot be read from `data_dir`,
            or an experiment that is none.
    """
    crops = None if experiment_csv is None else crop_experiment.read(experiment_csv)
    groups = run_groups.read_groups(run_dirs, names)
    first = groups[0].runs[0]
    split = run_groups.reported_split(first.settings)
    examples = _examples(first, split, data_dir)
    class_names = tuple(first.folder.read_record()["class_names"])
    dataset = first.settings.dataset
    return Analysis(groups, split, dataset, class_names, examples, crops, batch_size)


def _examples(first: RunScores, split: str, data_dir: str | None) -> Examples | str:
    """The images reported on, or why they cannot be had."""
    settings = first.settings
    if data_dir is not None:
        settings = dataclasses.replace(settings, data_dir=os.path.abspath(data_dir))
    try:
        if split == "val":
            examples = splits.load_splits(settings).val
        else:
            examples = splits.load_examples(settings, settings.test_split)
    except UserError as error:
        if data_dir is not None:
            raise
        return f"the data cannot be read ({error}); --data_dir names their folder"
    same_images = list(examples.names) == first.names.tolist()
    same_classes = list(examples.class_names) == first.folder.read_record()["class_names"]
    if same_images and same_classes and np.array_equal(examples.labels, first.labels):
        return with_upright_boxes(examples)
    return "the data set holds other images or labels than the runs were scored on"
