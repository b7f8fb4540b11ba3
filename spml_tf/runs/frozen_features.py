"""What a frozen backbone makes of a run's images, computed once and kept in files.

While the backbone is frozen an epoch spends nearly all its time on features that were the same the
last time it saw the crop. So a few crops of each image, and the whole validation images, go through
the backbone once; the epochs then train the head on what came out. Epoch e sees crop (e - 1) mod k
of k, the very crop that it would have drawn for e <= k. Features are rounded to float16, and
computed as in prediction: dropout within the backbone does nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from spml_tf.datasets import pipeline
from spml_tf.datasets.readers import Examples
from spml_tf.datasets.splits import Splits
from spml_tf.evaluation.predictions import on_all_devices
from spml_tf.labels import STAND_IN
from spml_tf.networks.cam import CAM_LAYER, backbone_layers
from spml_tf.runs.checkpoint_folder import checksum, damage
from spml_tf.runs.run_folder import RunFolder
from spml_tf.runs.settings import Settings
from spml_tf.system import replicas
from spml_tf.system.errors import UserError
from spml_tf.system.files import made_folder, replaced, write_json
from spml_tf.system.json_text import parse_json
from spml_tf.system.locks import waited_for
from spml_tf.system.notes import tell_note
from spml_tf.system.progress import progress
from spml_tf.system.replicas import Shard
from spml_tf.system.stop_requests import StopRequests, error_of
from spml_tf.training.batches import FEATURES
from spml_tf.training.model import SPMLModel

_WHOLE = "whole"  # names the files of the validation images
_LARGEST = float(np.finfo(np.float16).max)


class FrozenFeatures:
    """Training and validation batches that hold features in place of images.

    Args:
        model: whose backbone is frozen.
        settings: of the run, resolved.
        data: of the run.
        run: its folder, which keeps the files where --feature_dir is not given.
        stops: tells of a signal.
    """

    def __init__(
        self,
        model: SPMLModel,
        settings: Settings,
        data: Splits,
        run: RunFolder,
        stops: StopRequests,
    ) -> None:
        self._settings, self._data, self._stops, self._shard = settings, data, stops, model.shard
        self.crops = min(settings.feature_crops, settings.option("warmup_epochs"))
        head = model.network.get_layer(CAM_LAYER)
        self._shape: tuple[int, ...] = head.input.shape[1:]
        folder = Path(settings.feature_dir) if settings.feature_dir else run.features
        self._folder = folder / _digest(model.network, settings, data)
        self._parts = {
            **{f"crop{number}": data.train for number in range(1, self.crops + 1)},
            _WHOLE: data.val,
        }
        missing = [name for name in self._parts if not _whole(*self._files(name))]
        self._check_room(missing)
        self._compute_all(missing, keras.Model(model.network.inputs[0], head.input))
        self._kept = {name: self._opened(name) for name in self._parts}

    def training(self, first_epoch: int, epochs: int, first_step: int) -> tf.data.Dataset:
        """As `pipeline.training_dataset`, with "features" [B, G, G, C] in place of "image"."""
        settings = self._settings
        kept = [self._kept[f"crop{number}"] for number in range(1, self.crops + 1)]
        batched = self._batches_of(kept, self._data.observed)
        return pipeline.batches_of_epochs(
            batched, len(self._data.train), batch_size=settings.batch_size, seed=settings.seed,
            first_epoch=first_epoch, epochs=epochs, first_step=first_step,
            shuffle_groups=settings.shuffle_groups, **self._pieces(),
        )  # fmt: skip

    def validation(self) -> tf.data.Dataset:
        """As `pipeline.evaluation_dataset`, with "features" in place of "image"."""
        batched = self._batches_of([self._kept[_WHOLE]], self._data.val.labels)
        return pipeline.batches_in_order(
            batched(tf.constant(1, tf.int64)), len(self._data.val),
            batch_size=self._settings.batch_size, **self._pieces(),
        )  # fmt: skip

    def _pieces(self) -> dict[str, Any]:
        return {"shard": self._shard, "pieces": replicas.devices()}

    def _batches_of(
        self, kept: list[Any], labels: NDArray[np.int8]
    ) -> Callable[[tf.Tensor], pipeline.Batched]:
        """From an epoch's number to the function that reads the batches of some images."""
        workers, shape = self._shard.workers, self._shape
        with tf.device("CPU:0"):
            every_label = tf.constant(labels)

        def read(index: Any, crop: Any) -> tuple[Any, Any]:
            features, windows = kept[int(crop)]
            rows = index // workers
            return features[rows], windows[rows]

        def of_epoch(epoch: tf.Tensor) -> pipeline.Batched:
            crop = (epoch - 1) % len(kept)

            def batch(index: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
                features, windows = tf.numpy_function(
                    read, [index, crop], [tf.float16, tf.float32], stateful=False
                )
                features = tf.ensure_shape(features, [None, *shape])
                windows = tf.ensure_shape(windows, [None, 5])
                inputs = {
                    FEATURES: features, "index": index,
                    "box": windows[:, :4], "flip": windows[:, 4] > 0,
                }  # fmt: skip
                return inputs, tf.gather(every_label, index)

            def batched(index: tf.Tensor) -> tf.data.Dataset:
                indices = tf.data.Dataset.from_tensor_slices(index)
                return indices.batch(self._settings.batch_size).map(
                    pipeline.as_written(batch), num_parallel_calls=tf.data.AUTOTUNE
                )

            return batched

        return of_epoch

    def _opened(self, name: str) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
        """Features [n, G, G, C] and windows [n, 5] of this worker's images, memory-mapped."""
        _, *paths = self._files(name)
        features, windows = (np.load(path, mmap_mode="r", allow_pickle=False) for path in paths)
        return features, windows

    def _files(self, name: str) -> tuple[Path, Path, Path]:
        """The files of one pass: their record, the features and the windows."""
        worker, workers = self._shard
        name = name if workers == 1 else f"{name}_worker{worker}of{workers}"
        endings = (".json", ".features.npy", ".windows.npy")
        record, features, windows = (self._folder / f"{name}{ending}" for ending in endings)
        return record, features, windows

    def _compute_all(self, names: list[str], backbone: keras.Model) -> None:
        """Makes the passes whose files are not there; the backbone is traced once for all."""
        if not names:
            return
        forward = on_all_devices(backbone)
        with made_folder(self._folder):
            for name in names:
                record, *paths = self._files(name)
                # Other runs that share --feature_dir may want the same files at the same time.
                with waited_for(record.with_suffix(".lock"), self._wait):
                    if not _whole(record, *paths):
                        self._compute(forward, name, *paths)
                        write_json(record, {path.name: checksum(path) for path in paths})

    def _wait(self) -> None:
        self._check_stop()
        tell_note(f"{self._folder}: another process computes these features; waiting for it")

    def _check_stop(self) -> None:
        if self._stops.number:
            raise error_of(self._stops.number, "the features are computed anew")

    def _compute(
        self,
        forward: Callable[[Any], NDArray[np.float32]],
        name: str,
        features: Path,
        windows: Path,
    ) -> None:
        """Runs the backbone on a split and writes what it makes of each image."""
        part, batches = self._parts[name], self._images(name)
        rows = len(self._shard.own(range(len(part))))
        if self._shard.worker == 0:
            what = "the validation images" if name == _WHOLE else name.replace("crop", "crop ")
            print(f"features of {what}, {len(part):,} images", flush=True)
        boxes = np.zeros((rows, 5), np.float32)
        with replaced(features) as path:
            table = allocated(path, (rows, *self._shape))
            told = progress(batches, rows, "features", lambda batch: len(batch[1]), lines=False)
            for inputs, labels in told:
                self._check_stop()
                own = labels.numpy()[:, 0] != STAND_IN
                index = inputs["index"].numpy()[own] // self._shard.workers
                table[index] = checked(forward(inputs["image"]))[own]
                boxes[index, :4] = inputs["box"].numpy()[own]
                boxes[index, 4] = inputs["flip"].numpy()[own]
            table.flush()
        with replaced(windows) as path:
            np.save(path, boxes)

    def _images(self, name: str) -> tf.data.Dataset:
        """The images of one pass, each once."""
        settings, data = self._settings, self._data
        sizes: dict[str, Any] = {
            "image_size": settings.image_size,
            "batch_size": settings.batch_size,
        }
        if name == _WHOLE:
            return pipeline.evaluation_dataset(
                data.val, data.val.labels, shard=self._shard, **sizes
            )
        return pipeline.training_dataset(
            data.train, data.observed, first_epoch=int(name.removeprefix("crop")),
            shuffle_groups=settings.shuffle_groups, shard=self._shard, **settings.augmentation,
            **sizes,
        )  # fmt: skip

    def _check_room(self, missing: list[str]) -> None:
        """Raises UserError where the files that are missing would not fit on the disk.

        The other workers of this machine are taken to miss the same and to write to this disk.
        """
        shards = [Shard(worker, self._shard.workers) for worker in replicas.workers_here()]
        images = sum(shard.rows(len(self._parts[name])) for name in missing for shard in shards)
        needed = images * 2 * int(np.prod(self._shape))
        there = next(x for x in (self._folder, *self._folder.parents) if x.exists())
        free = shutil.disk_usage(there).free
        if needed > free:
            raise UserError(
                f"--feature_crops={self._settings.feature_crops}: the features need "
                f"{needed / 1e9:.1f} GB in {there}, where {free / 1e9:.1f} GB are free; lower it, "
                "or name another folder with --feature_dir"
            )
        replicas.wait_for_workers()  # none may take of the room before all have looked


def _whole(record: Path, *paths: Path) -> bool:
    """Whether files are there and as they were written."""
    try:
        expected = parse_json(record.read_text("utf-8"))
        return not any(damage(path, expected[path.name]) for path in paths)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def allocated(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.float16]]:
    """A new .npy file of zeros, memory-mapped, whose space is taken from the disk at once.

    Args:
        path: the file.
        shape: of the array.

    Returns:
        [*shape] float16, to write to.

    Raises:
        OSError: the disk has not enough space.
    """
    table = np.lib.format.open_memmap(path, "w+", np.float16, shape)
    if sys.platform == "linux":
        with open(path, "r+b") as file:
            # Space that is missing only when a page is written would end the process.
            os.posix_fallocate(file.fileno(), 0, os.path.getsize(path))
    return table


def checked(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Raises UserError for features that float16 cannot hold."""
    largest = float(np.abs(features).max(initial=0))
    if not largest <= _LARGEST:
        raise UserError(
            f"--feature_crops: the backbone's features go up to {largest:g}, beyond the "
            f"{_LARGEST:g} of the float16 that keeps them; train with --feature_crops=0"
        )
    return features


def _digest(network: keras.Model, settings: Settings, data: Splits) -> str:
    """Names what the features depend on: backbone, images, crops and precision, not labels."""
    digest = hashlib.sha256()
    for layer in backbone_layers(network):
        for weight in layer.get_weights():
            digest.update(np.ascontiguousarray(weight).tobytes())
    facts = {
        "images": [_of_images(part) for part in (data.train, data.val)],
        "precision": keras.config.dtype_policy().name,
        **{
            flag: getattr(settings, flag)
            for flag in (
                "network", "image_size", "crop_area", "horizontal_flip", "colour_changes",
                "colour_strength", "seed", "scaled_decoding",
            )
        },
    }  # fmt: skip
    digest.update(json.dumps(facts, sort_keys=True).encode("utf-8"))
    return digest.hexdigest()[:16]


def _of_images(examples: Examples) -> str:
    """The fingerprint of images without their labels: methods that see others share features."""
    no_labels = np.zeros((len(examples), 0), np.int8)
    plain = dataclasses.replace(examples, labels=no_labels, class_names=(), weights=None)
    return plain.fingerprint()
