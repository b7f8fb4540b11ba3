"""What a checkpoint holds: written by one process, or by several workers together.

Its weights.h5 is what `keras.Model.save_weights` writes, always of all training images. Several
workers write the rows of their own images into files of their own beside it, to which it refers
(virtual datasets of HDF5): whoever reads it, with any number of workers, sees whole tables.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from spml_tf.banks.image_tables import rows_left_out, with_tables, write_rows
from spml_tf.evaluation.average_precision import MeanAveragePrecision
from spml_tf.runs.checkpoint_folder import CheckpointFolder, Progress, checksum
from spml_tf.runs.machine import machine
from spml_tf.system import replicas
from spml_tf.system.files import replaced
from spml_tf.system.hdf5_checks import ROWS, check_hdf5
from spml_tf.system.private_api import flatten_layers, saved_name
from spml_tf.system.replicas import Shard
from spml_tf.training import optimizers

if TYPE_CHECKING:
    from spml_tf.training.model import SPMLModel


def save(model: SPMLModel, folder: CheckpointFolder, progress: Progress) -> None:
    """Writes a checkpoint, which counts once it is complete; of several workers all must call it.

    Args:
        model: to save: weights, optimizer and tables, and, in the middle of an epoch, what its
            metrics have seen.
        folder: where; of all workers one that they share.
        progress: how far it goes.
    """
    shard, path = model.shard, folder.weights(progress)
    own = []
    if shard.workers > 1:
        own.append(_rows_file(path, shard))
        _write_rows(model, own[0])
    if progress.step and not progress.trained:
        own.append(path.with_name(f"{folder.name(progress)}.{_of(shard)}.metrics.npz"))
        _write_metrics(model, own[-1])
    checksums = _checksums_of_workers(model, own)
    if shard.worker == 0:
        _write_weights(model, path)
        folder.add(progress, {path.name: checksum(path), **checksums}, machine())
    _wait(model)


def _write_weights(model: SPMLModel, path: Path) -> None:
    if model.shard.workers == 1:
        with replaced(path) as new:
            model.save_weights(new)
        return
    with replaced(path) as new:
        with rows_left_out():
            model.save_weights(new)
        with h5py.File(new, "r+") as file:
            _refer(file, model, path)


def _write_rows(model: SPMLModel, path: Path) -> None:
    """Writes the rows of this worker."""
    with replaced(path) as new, h5py.File(new, "w") as file:
        for layer in with_tables(flatten_layers(model, include_self=False)):
            for name, table in layer.saved_tables().items():
                dtype = np.dtype(table.dtype)
                dataset = file.create_dataset(f"{layer.name}/{name}", table.shape, dtype)
                write_rows(dataset, table)
        for name, weight in _of_optimizer(model).items():
            file[name] = weight.numpy()


def _write_metrics(model: SPMLModel, path: Path) -> None:
    """Writes what the metrics have seen: sums over all workers, rows of this one."""
    with model.distribute_strategy.scope():
        variables = _metric_variables(model)
        arrays: dict[str, Any] = {name: _value(x) for name, x in variables.items()}
    for number, metric in enumerate(_row_metrics(model)):
        labels, scores = metric.rows()
        arrays |= {f"labels {number}": labels, f"scores {number}": scores}
    with replaced(path) as new:
        np.savez(new, **arrays)


def restore_metrics(model: SPMLModel, files: Sequence[Path]) -> None:
    """Gives the metrics back what they have seen, after they were reset; see `save`.

    Args:
        model: compiled as the saved one.
        files: of a checkpoint, one for each of the workers that wrote it.
    """
    worker, workers = model.shard
    for number, file in enumerate(files):
        with np.load(file, allow_pickle=False) as saved:
            if number == 0:
                with model.distribute_strategy.scope():
                    for name, variable in _metric_variables(model).items():
                        variable.assign(saved[name])
            if number % workers == worker:
                for place, metric in enumerate(_row_metrics(model)):
                    metric.add_rows(saved[f"labels {place}"], saved[f"scores {place}"])


def _metrics(model: SPMLModel) -> list[keras.metrics.Metric]:
    model.build_metrics()
    # The compiled ones are in one that holds them.
    return [inner for outer in model.metrics for inner in getattr(outer, "metrics", [outer])]


def _metric_variables(model: SPMLModel) -> dict[str, tf.Variable]:
    return {
        f"{metric.name}/{place}": variable.value
        for metric in _metrics(model)
        for place, variable in enumerate(metric.variables)
    }


def _value(variable: tf.Variable) -> NDArray[Any]:
    """Of all replicas of all workers, in the scope of their strategy."""
    strategy = tf.distribute.get_strategy()
    own = [x.numpy() for x in strategy.experimental_local_results(variable)]
    if variable.synchronization != tf.VariableSynchronization.ON_READ:
        return np.asarray(own[0])
    return replicas.sum_of_workers(np.sum(own, axis=0))


def _row_metrics(model: SPMLModel) -> list[MeanAveragePrecision]:
    return [metric for metric in _metrics(model) if isinstance(metric, MeanAveragePrecision)]


def _checksums_of_workers(model: SPMLModel, own: Sequence[Path]) -> dict[str, dict[str, int]]:
    """The checksums of the files that the workers have each written, by name."""
    shard = model.shard
    found = np.zeros((shard.workers, len(own), 2), np.int64)
    for place, path in enumerate(own):
        found[shard.worker, place] = tuple(checksum(path).values())
    with model.distribute_strategy.scope():
        found = replicas.sum_of_workers(found)
    return {
        path.name.replace(_of(shard), _of(Shard(worker, shard.workers))): {
            "size": int(size), "crc32": int(crc)
        }
        for worker, files in enumerate(found)
        for path, (size, crc) in zip(own, files, strict=True)
    }  # fmt: skip


def _wait(model: SPMLModel) -> None:
    with model.distribute_strategy.scope():
        replicas.wait_for_workers()


def load(model: SPMLModel, path: Path) -> None:
    """Reads a checkpoint that any number of workers has written.

    Args:
        model: made and compiled as the saved one, its optimizer built.
        path: its file of weights.
    """
    check_hdf5(path, ROWS)
    worker, workers = model.shard
    of_optimizer = _of_optimizer(model)
    with h5py.File(path) as saved:
        spread = any(name in saved and saved[name].is_virtual for name in of_optimizer)
    if workers == 1 and not spread:
        model.load_weights(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder) / "own.weights.h5"
        with h5py.File(path) as saved, h5py.File(own, "w") as file:
            tables = _tables(saved, model)

            def refer(name: str, found: Any) -> None:
                if not isinstance(found, h5py.Dataset):
                    file.require_group(name)
                elif name in of_optimizer:  # which Keras reads, and no virtual dataset
                    file[name] = found[worker::workers]
                elif name in tables:
                    _virtual(file, name, found.dtype, [(path.absolute(), name, found.shape)],
                             own=model.shard)  # fmt: skip
                else:
                    saved.copy(found, file, name)

            saved.visititems(refer)
        model.load_weights(own)


def _of(shard: Shard) -> str:
    return f"{shard.worker + 1}-of-{shard.workers}"


def _rows_file(path: Path, shard: Shard) -> Path:
    name = path.name.removesuffix(".weights.h5")
    return path.with_name(f"{name}.{_of(shard)}.rows.h5")


def _tables(file: h5py.File, model: SPMLModel) -> dict[str, str]:
    """The datasets with a row an image, and their names in files of rows."""
    found = {}

    def note(name: str, item: Any) -> None:
        if "table" in item.attrs:
            found[name] = str(item.attrs["table"])

    file.visititems(note)
    return {**found, **{name: name for name in _of_optimizer(model)}}


def _of_optimizer(model: SPMLModel) -> dict[str, Any]:
    """What the optimizer remembers of trained tables, by the names that Keras saves it under."""
    trained = [x for part in model.parts for x in part.trainable_variables]
    tables = {x.path.replace("/", "_"): tuple(x.shape) for x in trained}
    found, named = {}, dict[str, int]()
    whole = optimizers.unwrapped(model.optimizer)
    inside = "optimizer" if whole is model.optimizer else "optimizer/inner_optimizer"
    for optimizer in getattr(whole, "optimizers", ()) if tables else ():
        kind = saved_name(optimizer)
        number = named[kind] = named.get(kind, -1) + 1
        place = f"{inside}/optimizers/{kind}{f'_{number}' if number else ''}/vars"
        for index, weight in enumerate(optimizer.variables):
            if any(x in weight.path and weight.shape == shape for x, shape in tables.items()):
                found[f"{place}/{index}"] = weight
    return found


def _refer(file: h5py.File, model: SPMLModel, path: Path) -> None:
    """Puts virtual datasets in the places of tables, of the rows that each worker has written."""
    workers = model.shard.workers
    for name, in_rows in _tables(file, model).items():
        shape, dtype = file[name].shape, file[name].dtype
        sources = [
            (
                Path(_rows_file(path, Shard(worker, workers)).name),
                in_rows,
                (Shard(worker, workers).rows(model.num_images), *shape[1:]),
            )
            for worker in range(workers)
        ]
        del file[name]
        _virtual(file, name, dtype, sources)
        file[name].attrs["table"] = in_rows


def _virtual(
    file: h5py.File,
    name: str,
    dtype: Any,
    sources: list[tuple[Path, str, tuple[int, ...]]],
    own: Shard | None = None,
) -> None:
    """Makes a dataset of the rows of others in turns, or of one shard's rows of one other."""
    if own is not None:
        ((source, place, shape),) = sources
        layout = h5py.VirtualLayout((own.rows(shape[0]), *shape[1:]), dtype)
        layout[:] = h5py.VirtualSource(source, place, shape)[own.worker :: own.workers]
    else:
        rows = sum(shape[0] for _, _, shape in sources)
        layout = h5py.VirtualLayout((rows, *sources[0][2][1:]), dtype)
        for number, (source, place, shape) in enumerate(sources):
            layout[number :: len(sources)] = h5py.VirtualSource(source, place, shape)
    file.create_virtual_dataset(name, layout)
