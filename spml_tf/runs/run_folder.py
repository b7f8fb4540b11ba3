"""A run's folder: what is in it, and how it is written so that a crash never spoils it."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spml_tf.runs.settings import Settings, settings_class
from spml_tf.system.errors import UserError
from spml_tf.system.files import locked, write_json, write_table, write_text

# These may change between start and resumption: they do not change the results.
FREE = ("threads", "strategy", "devices", "workers", "bank_device", "bank_dir", "max_megapixels")


class RunFolder:
    """The files of a run.

    Args:
        path: the folder, which need not exist.

    Attributes:
        flags: flags.txt, a flagfile that repeats the run.
        history: history.csv, a row an epoch.
        metrics: metrics.json, there once the run is finished.
        network: network.keras, the best on validation so far.
        checkpoint: checkpoint/state.weights.h5, everything to go on from the last whole epoch.
        tensorboard: folder of TensorBoard events.
        train_labels: train_labels.csv, the observed labels where they are not the full ones.
        heatmaps: heatmaps.npz, those of a few training images after each epoch.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.record = self.path / "run.json"
        self.flags = self.path / "flags.txt"
        self.history = self.path / "history.csv"
        self.metrics = self.path / "metrics.json"
        self.network = self.path / "network.keras"
        self.checkpoint = self.path / "checkpoint" / "state.weights.h5"
        self.tensorboard = self.path / "tensorboard"
        self.train_labels = self.path / "train_labels.csv"
        self.heatmaps = self.path / "heatmaps.npz"

    def predictions(self, split: str) -> Path:
        """predictions_{val,test}.npz: scores [N, L], labels [N, L], names [N], class_names [L]."""
        return self.path / f"predictions_{split}.npz"

    def read_record(self) -> dict[str, Any]:
        """run.json.

        Raises:
            UserError: where there is no run, or its record cannot be read.
        """
        try:
            record: dict[str, Any] = json.loads(self.record.read_text("utf-8"))
        except FileNotFoundError:
            raise UserError(
                f"{self.path}: no run here (run.json is missing); train one with "
                "python -m spml_tf.train --output_dir=..."
            ) from None
        except (OSError, ValueError) as error:
            raise UserError(f"{self.record}: cannot be read ({error})") from None
        return record

    def read_metrics(self) -> dict[str, Any]:
        """metrics.json of a finished run."""
        metrics: dict[str, Any] = json.loads(self.metrics.read_text("utf-8"))
        return metrics

    def check_finished(self) -> None:
        """Raises UserError where there is no run, or its training has not come to its end."""
        self.read_record()
        if not self.metrics.exists():
            raise UserError(f"{self.path}: not finished; start its training again to resume it")

    def settings(self) -> Settings:
        """The run's settings, resolved.

        Raises:
            UserError: where there is no run, or one of another version with other flags.
        """
        record = self.read_record()
        try:
            return settings_class()(**record["flags"])
        except TypeError as error:
            if record["flags"].get("plugins"):
                raise UserError(
                    f"{self.path}: was trained with --plugins={record['flags']['plugins']}; give "
                    "this flag again if you trust that code"
                ) from None
            version = record.get("versions", {}).get("spml_tf")
            raise UserError(
                f"{self.record}: flags of another version of spml_tf, {version} ({error})"
            ) from None

    def start(self, settings: Settings, facts: dict[str, Any]) -> bool:
        """Opens the folder for training.

        Args:
            settings: resolved settings.
            facts: what else run.json records; "data_fingerprint" is compared on resumption.

        Returns:
            Whether an earlier start left something to resume.

        Raises:
            UserError: where the folder holds a run with other flags or data, or other files.
        """
        if self.record.exists():
            self._compare(settings, facts)
        elif self.path.exists() and any(self.path.glob("[!.]*")):
            raise UserError(
                f"--output_dir={self.path}: not empty and holds no run; choose another folder"
            )
        else:  # the record comes first: what a killed process leaves is known as a run
            self.path.mkdir(parents=True, exist_ok=True)
            write_json(self.record, {"flags": dataclasses.asdict(settings), **facts})
        self.checkpoint.parent.mkdir(exist_ok=True)
        if not self.flags.exists():
            write_text(self.flags, flagfile(settings))
        return self.checkpoint.exists()

    def _compare(self, settings: Settings, facts: dict[str, Any]) -> None:
        record = self.read_record()
        before, now = record["flags"], dataclasses.asdict(settings)
        new = {field.name: field.default for field in dataclasses.fields(settings)}
        before = {**new, **before}  # an older version did not know all flags
        changed = [
            f"--{name} was {before[name]} and is {value}"
            for name, value in now.items()
            if before[name] != value and name not in FREE
        ]
        if changed:
            raise UserError(
                f"--output_dir={self.path}: holds a run with other flags ({'; '.join(changed)}); "
                "repeat those or choose another folder"
            )
        if record["data_fingerprint"] != facts["data_fingerprint"]:
            raise UserError(
                f"--output_dir={self.path}: the data have changed since this run began; "
                "choose another folder"
            )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps a second process from training into the same folder.

        Raises:
            UserError: where another process does already.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        refusal = f"--output_dir={self.path}: another process trains here"
        with locked(self.path / ".lock", refusal):
            yield

    def read_history(self, epochs: int) -> list[dict[str, str]]:
        """Rows of history.csv up to an epoch; a later row was written before a crash."""
        if not self.history.exists():
            return []
        with open(self.history, newline="", encoding="utf-8") as file:
            return [row for row in csv.DictReader(file) if int(row["epoch"]) <= epochs]

    def write_history(self, rows: list[dict[str, Any]]) -> None:
        """Writes history.csv in one step."""
        write_table(self.history, rows)


def flagfile(settings: Settings) -> str:
    """The text of a flagfile that gives these settings.

    Raises:
        UserError: a value that a line of a flagfile cannot hold, such as a path with a line break.
    """
    lines = ["# python -m spml_tf.train --flagfile=THIS_FILE --output_dir=DIR"]
    for name, value in dataclasses.asdict(settings).items():
        if value is not None:
            text = str(value).lower() if isinstance(value, bool) else str(value)
            line = f"--{name}={text}"
            if line.strip() != line or len(line.splitlines()) > 1:
                raise UserError(
                    f"--{name}={text!r}: holds a line break, or ends with a blank, which a "
                    "flagfile cannot hold; rename it"
                )
            lines.append(line)
    return "\n".join(lines) + "\n"


def machine() -> dict[str, Any]:
    """What the results may depend on: processor, cores, system and versions."""
    import keras
    import numpy
    import tensorflow as tf

    import spml_tf

    return {
        "versions": {
            "spml_tf": spml_tf.__version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": numpy.__version__,
            "python": platform.python_version(),
        },
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "gpus": [device.name for device in tf.config.list_physical_devices("GPU")],
        },
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
