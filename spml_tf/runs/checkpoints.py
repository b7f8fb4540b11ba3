"""A run's checkpoint: written by one process, or by several workers together.

`state.weights.h5` is what `keras.Model.save_weights` writes, always of all training images. Several
workers write the rows of their own images into files of their own beside it, to which it refers
(virtual datasets of HDF5): whoever reads it, with any number of workers, sees whole tables.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from spml_tf.banks.image_tables import KeepsTables, rows_left_out, write_rows
from spml_tf.system import replicas
from spml_tf.system.files import replaced
from spml_tf.system.private_api import flatten_layers
from spml_tf.system.replicas import Shard

if TYPE_CHECKING:
    from spml_tf.training.model import SPMLModel


def save(model: SPMLModel, path: Path) -> None:
    """Writes a checkpoint in one step; of several workers all must call it.

    Args:
        model: to save, weights, optimizer and tables.
        path: the file state.weights.h5, in a folder that all workers share.
    """
    shard = model.shard
    if shard.workers == 1:
        with replaced(path) as new:
            model.save_weights(new)
        return
    epoch = int(model.epoch.numpy())
    with replaced(_rows_file(path, epoch, shard)) as new, h5py.File(new, "w") as file:
        for layer in _with_tables(model):
            for name, table in layer.saved_tables().items():
                dtype = np.dtype(table.dtype)
                dataset = file.create_dataset(f"{layer.name}/{name}", table.shape, dtype)
                write_rows(dataset, table)
        for name, weight in _of_optimizer(model).items():
            file[name] = weight.numpy()
    with model.distribute_strategy.scope():
        replicas.wait_for_workers()
    if shard.worker == 0:
        with replaced(path) as new:
            with rows_left_out():
                model.save_weights(new)
            with h5py.File(new, "r+") as file:
                _refer(file, model, path, epoch)
        for old in path.parent.glob("state.*.rows.h5"):
            if int(old.name.split(".")[1]) < epoch:
                old.unlink()


def load(model: SPMLModel, path: Path) -> None:
    """Reads a checkpoint that any number of workers has written.

    Args:
        model: made and compiled as the saved one, its optimizer built.
        path: the file state.weights.h5.
    """
    if model.shard.workers == 1:
        model.load_weights(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder) / "own.weights.h5"
        with h5py.File(path) as saved, h5py.File(own, "w") as file:
            tables = _tables(saved, model)

            def refer(name: str, found: Any) -> None:
                if not isinstance(found, h5py.Dataset):
                    file.require_group(name)
                elif name in tables:
                    _virtual(file, name, found.dtype, [(path.absolute(), name, found.shape)],
                             own=model.shard)  # fmt: skip
                else:
                    file[name] = h5py.ExternalLink(str(path.absolute()), name)

            saved.visititems(refer)
        model.load_weights(own)


def _rows_file(path: Path, epoch: int, shard: Shard) -> Path:
    return path.with_name(f"state.{epoch}.{shard.worker + 1}-of-{shard.workers}.rows.h5")


def _with_tables(model: SPMLModel) -> list[KeepsTables]:
    layers = flatten_layers(model, include_self=False)
    return [layer for layer in layers if isinstance(layer, KeepsTables) and layer.tables]


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
    for optimizer in getattr(model.optimizer, "optimizers", ()) if tables else ():
        kind = re.sub(r"(?<!^)(?=[A-Z])", "_", type(optimizer).__name__).lower()
        number = named[kind] = named.get(kind, -1) + 1
        place = f"optimizer/optimizers/{kind}{f'_{number}' if number else ''}/vars"
        for index, weight in enumerate(optimizer.variables):
            if any(x in weight.path and weight.shape == shape for x, shape in tables.items()):
                found[f"{place}/{index}"] = weight
    return found


def _refer(file: h5py.File, model: SPMLModel, path: Path, epoch: int) -> None:
    """Puts virtual datasets in the places of tables, of the rows that each worker has written."""
    workers = model.shard.workers
    for name, in_rows in _tables(file, model).items():
        shape, dtype = file[name].shape, file[name].dtype
        sources = [
            (
                Path(_rows_file(path, epoch, Shard(worker, workers)).name),
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
