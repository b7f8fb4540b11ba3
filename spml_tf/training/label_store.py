"""What is kept of every training label: the label with its mark, and ROLE's estimate of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray

from spml_tf.banks import ema_bank
from spml_tf.banks.image_tables import ImageTable, KeepsTables, PackedTable, row_slices
from spml_tf.labels import EXPECTED, UNKNOWN
from spml_tf.losses import role_estimates
from spml_tf.system import replicas
from spml_tf.system.replicas import WHOLE, Shard, once_a_process
from spml_tf.training import selection
from spml_tf.training.class_priors import sample_step
from spml_tf.training.options import Budget


def merged_marks(stores: Sequence[NDArray[np.int8]]) -> NDArray[np.int8]:
    """The labels of the first of some stores, [N, L] int8, with the marks of all of them."""
    found = stores[0].copy()
    for others in stores[1:]:
        found[others == EXPECTED] = EXPECTED
    return found


class Counts:
    """How often each label was chosen: those that ever were, in ordinary memory.

    Args:
        shape: (N, L).

    Attributes:
        shape: as given.
        dtype: "uint8".
    """

    dtype = "uint8"

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        # Of each block of rows: row * L + column, ascending, and the counts. In one array for all
        # rows every block that is loaded would move all that were before.
        empty = np.zeros(0, np.int64), np.zeros(0, np.uint8)
        self._kept = [empty for _ in self.blocks()]

    def add(self, places: NDArray[np.int64]) -> None:
        """Counts labels once more, up to 255.

        Args:
            places: [M], row * L + column, ascending.
        """
        ends = np.searchsorted(places, [block.stop * self.shape[1] for block in self.blocks()])
        for number, own in enumerate(np.split(places, ends[:-1])):
            if len(own):
                self._kept[number] = _counted_again(*self._kept[number], own)

    def blocks(self) -> Iterator[slice]:
        """The rows in blocks of some megabytes."""
        return row_slices(self.shape[0], self.shape[1])

    def read(self, rows: slice) -> NDArray[np.uint8]:
        """Some rows as an array."""
        width = self.shape[1]
        found = np.zeros((rows.stop - rows.start, width), np.uint8)
        for number, _ in self._blocks_of(rows):
            places, times = self._kept[number]
            own = slice(*np.searchsorted(places, (rows.start * width, rows.stop * width)))
            found.reshape(-1)[places[own] - rows.start * width] = times[own]
        return found

    def write(self, rows: slice, values: ArrayLike) -> None:
        """Replaces some rows."""
        width = self.shape[1]
        array = np.asarray(values, np.uint8).reshape(-1)
        new = np.flatnonzero(array)
        for number, block in self._blocks_of(rows):
            places, times = self._kept[number]
            first, last = np.searchsorted(places, (rows.start * width, rows.stop * width))
            within = (np.array([block.start, block.stop]) - rows.start) * width
            own = new[slice(*np.searchsorted(new, within))]
            self._kept[number] = (
                np.concatenate([places[:first], own + rows.start * width, places[last:]]),
                np.concatenate([times[:first], array[own], times[last:]]),
            )

    def _blocks_of(self, rows: slice) -> Iterator[tuple[int, slice]]:
        """Numbers and rows of the blocks that hold some rows."""
        size = next(self.blocks(), slice(0, 1)).stop
        for number in range(rows.start // size, -(-rows.stop // size)):
            yield number, slice(number * size, (number + 1) * size)

    def numpy(self) -> NDArray[np.uint8]:
        """All of it, [N, L] uint8."""
        return self.read(slice(0, self.shape[0]))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self.numpy().astype(dtype or self.dtype, copy=False)

    def assign(self, values: ArrayLike) -> None:
        """Replaces all of it by [N, L] uint8."""
        self.write(slice(0, self.shape[0]), values)


def _counted_again(
    known: NDArray[np.int64], times: NDArray[np.uint8], places: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Known places and their counts after one more of some places, all ascending."""
    found = np.searchsorted(known, places)
    found[found == len(known)] = 0
    old = known[found] == places if len(known) else np.zeros(len(places), bool)
    again = found[old]
    times[again] += times[again] < 255
    where = np.searchsorted(known, places[~old])
    return np.insert(known, where, places[~old]), np.insert(times, where, np.uint8(1))


@keras.saving.register_keras_serializable("spml_tf")
class LabelStore(KeepsTables):
    """The labels of all training images, filled as batches come or at once.

    Under a `tf.distribute` strategy there is one a process, whose images are those of the process.

    Args:
        num_images: N.
        num_classes: L.
        selects: whether `select` will be called.
        directory: a folder for the labels' memory, see `banks.image_tables.ImageTable`; no part of
            the configuration.

    Attributes:
        codes: [N, L] int8 in {1, 0, -1 (unknown), 2 (unknown, marked)}, -1 at the start; a
            `banks.image_tables.PackedTable` of two bits each, with `numpy()`, `assign(array)`,
            `gather(index)`, and `read` and `write` for blocks of rows.
        epochs_selected: [N, L] uint8, how often a label was chosen, up to 255, with `numpy()`,
            `assign(array)`, and `read` and `write` for blocks of rows; None where nothing is
            selected.
    """

    def __init__(
        self,
        num_images: int,
        num_classes: int,
        selects: bool = False,
        directory: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"trainable": False, **kwargs})
        self.num_images, self.num_classes, self.selects = num_images, num_classes, selects
        shape = (num_images, num_classes)
        self.codes = self.keep(PackedTable(self, shape, "int8", "codes", UNKNOWN, directory))
        self.epochs_selected = Counts(shape) if selects else None
        self.built = True

    def with_marks(self, index: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """A batch's labels with the stored marks of those that are unknown; stores nothing.

        Args:
            index: int64 [B], the images' rows.
            labels: [B, L] in {1, 0, -1}.

        Returns:
            int8 [B, L], in {1, 0, -1, 2}.
        """
        labels = tf.cast(labels, tf.int8)
        marked = (self.codes.gather(index) == EXPECTED) & (labels == UNKNOWN)
        return tf.where(marked, tf.constant(EXPECTED, tf.int8), labels)

    def write(self, index: tf.Tensor, codes: tf.Tensor) -> None:
        """Stores int8 codes [B, L] in the rows index [B]."""
        once_a_process(self.codes.scatter, index, codes)

    def select(
        self,
        scores: ema_bank.EMABank,
        positives_per_image: float,
        budget: Budget,
        multiple: float | str = 1.0,
    ) -> None:
        """Marks the expected positives anew (zhat of eq. 5).

        Only images that were visited take part: N of eq. 3 is their number.

        Args:
            scores: the score bank.
            positives_per_image: K.
            budget, multiple: as for `selection.expected_positives`.

        Raises:
            ValueError: the store was made without `selects`.
        """
        if self.epochs_selected is None:
            raise ValueError("the store was not made to select: LabelStore(..., selects=True)")
        worker, workers = scores.shard
        own = np.array([self.num_images], np.int64)
        shape = (int(replicas.sum_of_workers(own)[0]), self.num_classes)

        def images() -> Iterator[selection.Block]:
            for rows, averages, codes in self.blocks(scores):
                yield rows * workers + worker, averages, codes

        found = selection.thresholds(
            images, shape, positives_per_image, budget, replicas.sum_of_workers, multiple
        )
        self.replace_marks(
            scores, lambda rows, *known: found.chosen(rows * workers + worker, *known)
        )

    def sample(self, scores: ema_bank.EMABank) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
        """Averages and codes of evenly spaced images that were visited, of all workers.

        Args:
            scores: the score bank.

        Returns:
            float64 [M, L] in [0, 1] and int8 [M, L] in {1, 0, -1, 2}, the same on all workers.
        """
        worker, workers = scores.shard
        count = int(replicas.sum_of_workers(np.array([self.num_images], np.int64))[0])
        step = sample_step(count, self.num_classes)
        # Of each image scores, codes and whether it was visited; those of other workers are 0.
        whole = np.zeros((-(-count // step), 2 * self.num_classes + 1))
        for rows, averages, codes in self.blocks(scores):
            images = rows * workers + worker
            taken = images % step == 0
            values = averages[taken] / (255 if averages.dtype == np.uint8 else 1)
            whole[images[taken] // step] = np.concatenate(
                [values, codes[taken], np.ones((len(values), 1))], axis=1
            )
        whole = replicas.sum_of_workers(whole)
        whole = whole[whole[:, -1] > 0]
        of_codes = whole[:, self.num_classes : -1].astype(np.int8)
        return whole[:, : self.num_classes], of_codes

    def blocks(
        self, scores: ema_bank.EMABank
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[Any], NDArray[np.int8]]]:
        """The visited images in blocks of rows.

        Args:
            scores: the score bank.

        Yields:
            rows: [M] int64, ascending.
            averages: [M, L], as the bank stores them.
            codes: [M, L] int8 in {1, 0, -1, 2}.
        """
        visited = scores.visited.numpy()
        for block in self._slices():
            seen = visited[block]
            averages, codes = scores.table.read(block), self.codes.read(block)
            if not seen.all():  # as a rule they are: spare the copies
                averages, codes = averages[seen], codes[seen]
            yield np.flatnonzero(seen) + block.start, averages, codes

    def _slices(self) -> Iterator[slice]:
        """Rows of some hundred thousand labels, which unpacked take 16 bytes and more, each."""
        return row_slices(len(self.codes), 16 * self.num_classes)

    def replace_marks(
        self,
        scores: ema_bank.EMABank,
        chosen: Callable[[NDArray[np.int64], NDArray[Any], NDArray[np.int8]], NDArray[np.bool_]],
    ) -> None:
        """Takes all marks away, and marks and counts what is chosen.

        Args:
            scores: the score bank.
            chosen: is called with each of `blocks` in their order, returns [M, L] bool, True only
                where the label is unknown.
        """
        assert self.epochs_selected is not None
        places = []
        for block, (rows, averages, known) in zip(self._slices(), self.blocks(scores), strict=True):
            image, column = np.nonzero(chosen(rows, averages, known))
            codes = known if len(rows) == block.stop - block.start else self.codes.read(block)
            np.putmask(codes, codes == EXPECTED, UNKNOWN)
            codes[rows[image] - block.start, column] = EXPECTED
            self.codes.write(block, codes)
            places.append(rows[image] * self.num_classes + column)
        self.epochs_selected.add(np.concatenate(places))

    def saved(self) -> dict[str, Any]:
        counts = {} if self.epochs_selected is None else {"1": self.epochs_selected}
        return {**super().saved(), **counts}

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_images": self.num_images,
            "num_classes": self.num_classes,
            "selects": self.selects,
        }


@keras.saving.register_keras_serializable("spml_tf")
class LabelEstimates(KeepsTables):
    """ROLE's estimated labels, trained along with the network (Cole et al. 2021).

    Args:
        num_images: N.
        num_classes: L.
        seed: int, of the first estimates.
        shard: which images of the data set these are, as for `banks.ema_bank.EMABank`.

    Attributes:
        values: trainable weight [N, L] float32, logits; as if no label were known at the start.
    """

    def __init__(
        self,
        num_images: int,
        num_classes: int,
        seed: int = 0,
        shard: Shard = WHOLE,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_images, self.num_classes, self.seed = num_images, num_classes, seed
        self.shard = tuple(shard)
        table = ImageTable(self, (num_images, num_classes), "float32", "values", trainable=True)
        self.values = self.keep(table).weight
        self.built = True
        self.start(np.full((num_images, num_classes), UNKNOWN, np.int8))

    def start(self, labels: NDArray[np.int8]) -> None:
        """Sets the first estimates from the labels, [N, L] int8 in {1, 0, -1}."""
        worker, workers = self.shard
        draws = np.random.RandomState(self.seed)
        # Those of all images in their order, of which these rows are some.
        noise = np.stack([
            draws.uniform(-1, 1, (workers, self.num_classes))[worker] for _ in range(len(labels))
        ])  # fmt: skip
        self.values.assign(role_estimates(labels, tf.constant(noise, tf.float32)))

    def read(self, index: tf.Tensor) -> tf.Tensor:
        """The estimates of some images, [B, L] float32 logits, with gradient."""
        return tf.gather(self.values.value, index)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_images": self.num_images,
            "num_classes": self.num_classes,
            "seed": self.seed,
        }
