"""Writes a data set anew: labels and splits as run, images smaller or in few large files.

Images that are encoded anew are turned upright, as their EXIF orientation says. JPEG files that
need neither resizing nor rotation are copied as they are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL

import spml_tf
from spml_tf.datasets import label_files, splits
from spml_tf.datasets.readers.prepared import ImageForm
from spml_tf.datasets.settings import DataSettings
from spml_tf.labels import digest
from spml_tf.system.errors import UserError
from spml_tf.system.files import (
    check_only_recorded,
    naming_unwritable,
    replaced_unless_edited,
    write_json,
)
from spml_tf.system.folders import check_output_folder, publish_folder, put_back
from spml_tf.system.json_text import read_json_or_none
from spml_tf.system.locks import locked
from spml_tf.system.tensorflow_import import import_tensorflow

_WRITTEN_BY = "python -m spml_tf.data prepare"
# Flags that may name a file or folder of this machine.
_PATHS = (
    "train_labels", "class_weights", "train_csv", "val_csv", "test_csv", "boxes_csv", "masks_dir",
    "images_dir",
)  # fmt: skip
_PARAMETERS, _LABELS = "parameters.json", "labels.csv"


def prepare(
    settings: DataSettings, form: ImageForm, output_dir: str, threads: int, overwrite: bool = False
) -> None:
    """Writes labels.csv and data.json, and unless form.format is "labels" images and indices.

    The folder appears in one step. Until then the work lies beside it, in .unfinished-NAME; started
    again after a kill the command goes on with it.

    Args:
        settings: resolved settings.
        form: how images are written.
        output_dir: the folder to write.
        threads: how many images are read and encoded at a time.
        overwrite: replace an earlier result of this command.

    Raises:
        UserError: for data that are missing or malformed, an image that cannot be decoded, or a
            folder that holds something else or cannot be written.
    """
    if form.format == "jpeg" and not form.short_side:
        raise UserError("--format=jpeg: give --short_side=PIXELS, the images' shorter side")
    if form.format == "labels" and form.short_side:
        raise UserError("--short_side: without images to write; give --format=jpeg or tfrecord")
    target = Path(output_dir).resolve()
    _check_target(target, settings.data_dir, overwrite)
    data = splits.load_splits(settings)
    if form.format == "jpeg" and any(part.paths is None for part in data.parts.values()):
        raise UserError(f"--format=jpeg: {settings.dataset} is in memory; give --format=tfrecord")
    if form.format != "labels":
        for part in data.parts.values():
            if part.masks is not None:
                raise UserError(
                    f"--format={form.format}: prepared images have no masks of their own; leave "
                    "--masks_dir out, or give --format=labels"
                )
    facts = describe(settings, data, form)
    place, parameters = f"--output_dir={output_dir}", {**facts, "data_dir": settings.data_dir}
    try:
        with naming_unwritable(place), _work_folder(target, parameters) as work:
            if form.format != "labels":
                import_tensorflow()
                from spml_tf.datasets import image_writers

                image_writers.write_images(work, data, form, threads)
            label_files.write_observed(
                work / _LABELS,
                data.observed,
                data.train.names,
                data.train.class_names,
                data.held_out,
                replaced_unless_edited,
            )
            write_json(work / "data.json", facts)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command goes on where it stopped") from None


def describe(settings: DataSettings, data: splits.Splits, form: ImageForm) -> dict[str, Any]:
    """What data.json records; nothing of it depends on the machine's folders.

    Args:
        settings: resolved settings.
        data: the splits read with them.
        form: how images are written.

    Returns:
        {"written_by", "format", "short_side", "jpeg_quality", "flags", "class_names", "images" per
        split, "positives_per_image" K, "observed_digest", "fingerprint", "versions", "notes"}.
    """
    folder = settings.data_dir
    return {
        "written_by": _WRITTEN_BY,
        **dataclasses.asdict(form),
        "flags": _portable_flags(settings),
        "class_names": list(data.train.class_names),
        "images": {name: len(part) for name, part in data.parts.items()},
        "positives_per_image": data.positives_per_image,
        "observed_digest": digest(data.observed),
        "fingerprint": data.fingerprint(),
        "versions": {
            "spml_tf": spml_tf.__version__,
            "numpy": np.__version__,
            "pillow": PIL.__version__,
            "python": platform.python_version(),
        },
        "notes": [note.replace(folder, "DATA_DIR") if folder else note for note in data.notes],
    }


def _portable_flags(settings: DataSettings) -> dict[str, Any]:
    """The data flags, without folders of this machine."""
    flags = {
        field.name: getattr(settings, field.name) for field in dataclasses.fields(DataSettings)
    }
    del flags["data_dir"]
    return {
        name: os.path.basename(value) if name in _PATHS and os.path.isabs(value) else value
        for name, value in flags.items()
        if value is not None
    }


def _check_target(target: Path, data_dir: str | None, overwrite: bool) -> None:
    """Refuses folders that hold anything but an earlier result, and that unless told to."""
    kept = "" if overwrite else "holds an earlier result; choose another folder or give --overwrite"
    if data_dir is not None and Path(data_dir).resolve().is_relative_to(target):
        kept = "holds the data that are read; choose another"
    put_back(target)
    refusal = "not empty, and no earlier result of this command; choose another folder"
    place = f"--output_dir={target}"
    check_output_folder(target, place, _is_result(target), refusal, kept, [_LABELS])
    check_only_recorded(target, place)


def _is_result(folder: Path) -> bool:
    record = read_json_or_none(folder / "data.json")
    return isinstance(record, dict) and record.get("written_by") == _WRITTEN_BY


@contextlib.contextmanager
def _work_folder(target: Path, parameters: dict[str, Any]) -> Iterator[Path]:
    """Yields the folder to work in, which then becomes the target.

    After an error or a kill it stays, and serves the next command with the same parameters.
    """
    work = target.with_name(f".unfinished-{target.name}")
    lock = target.with_name(f".unfinished-{target.name}.lock")
    with locked(lock, f"--output_dir={target}: another process writes it"):
        record = work / _PARAMETERS
        try:
            if read_json_or_none(record) != parameters:
                if work.exists():
                    shutil.rmtree(work)
                work.mkdir()
                write_json(record, parameters)
            yield work
        except BaseException:
            if work.exists() and set(os.listdir(work)) <= {_PARAMETERS}:  # nothing to go on from
                shutil.rmtree(work)
                lock.unlink(missing_ok=True)
            raise
        publish_folder(work, target, _PARAMETERS)
        with contextlib.suppress(PermissionError):  # Windows removes no file that is open
            lock.unlink()
