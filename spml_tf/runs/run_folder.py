"""A run's folder: what is in it, and how it is written so that a crash never spoils it.

The checkpoints hold everything. history.csv and network.keras are copies for people and programs:
they are made again where they are missing or damaged. SHA256SUMS, in the form of `sha256sum`, tells
of the files of a finished run which of them were changed.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spml_tf.datasets.readers import READERS
from spml_tf.runs import run_flags
from spml_tf.runs.checkpoint_folder import CheckpointFolder, Progress, damage
from spml_tf.runs.settings import Settings, settings_class
from spml_tf.system.errors import UserError, reason_of
from spml_tf.system.files import replaced, sha256, write_json, write_table, write_text
from spml_tf.system.json_text import parse_json, read_json_or_none
from spml_tf.system.locks import locked
from spml_tf.system.notes import tell_note
from spml_tf.training import methods

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NOTHING_FITS = {"": ""}
_AGAIN = "start its training again, which writes it anew"
_LOST = "put a copy of the file there, or train into another folder"


class RunFolder:
    """The files of a run.

    Args:
        path: the folder, which need not exist.

    Attributes:
        flags: flags.txt, a flagfile that repeats the run.
        history: history.csv, a row an epoch.
        metrics: metrics.json, there once the run is finished.
        network: network.keras, the best on validation so far, the latest where validation mAP is
            undefined; read it through `best_network`.
        checkpoints: the folder checkpoint, everything to go on from.
        checksums: SHA256SUMS, there once the run is finished.
        plugins: plugins.json, there once code of plugins has changed.
        tensorboard: folder of TensorBoard events.
        train_labels: train_labels.csv, the observed labels where they are not the full ones.
        class_priors: class_priors.csv, where the method has estimated them.
        heatmaps: heatmaps.npz, those of a few training images after each epoch.
        tracker: tracker.json, the runs of experiment trackers that were told of this one.
        features: folder of what the frozen backbone makes of images, gone once it is thawed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.record = self.path / "run.json"
        self.flags = self.path / "flags.txt"
        self.history = self.path / "history.csv"
        self.metrics = self.path / "metrics.json"
        self.network = self.path / "network.keras"
        self.checkpoints = CheckpointFolder(self.path / "checkpoint", self.record, self.network)
        self.checksums = self.path / "SHA256SUMS"
        self.plugins = self.path / "plugins.json"
        self.tensorboard = self.path / "tensorboard"
        self.train_labels = self.path / "train_labels.csv"
        self.class_priors = self.path / "class_priors.csv"
        self.heatmaps = self.path / "heatmaps.npz"
        self.tracker = self.path / "tracker.json"
        self.features = self.path / "features"
        self._known_sums: dict[str, str] | None = None

    def predictions(self, split: str) -> Path:
        """predictions_{val,test}.npz: scores [N, L], labels [N, L], names [N], class_names [L]."""
        return self.path / f"predictions_{split}.npz"

    def read_record(self) -> dict[str, Any]:
        """run.json.

        Raises:
            UserError: where there is no run, or its record is damaged.
        """
        record = self._record()
        self._check(self.record, f"{_LOST}; if it is as it was, {_AGAIN.split(',')[0]}")
        return record

    def _rounds(self) -> list[Path]:
        """The rounds' folders in this one, in their order."""
        found = (self.path / f"round_{number}" for number in itertools.count(1))
        return list(itertools.takewhile(Path.exists, found))

    def _record(self) -> dict[str, Any]:
        try:
            record: dict[str, Any] = parse_json(self.record.read_text("utf-8"))
        except FileNotFoundError:
            rounds = self._rounds()
            if rounds:
                raise UserError(
                    f"{self.path}: holds rounds; name one of them, such as {rounds[-1]}"
                ) from None
            if (self.path / "saved_model.pb").exists():
                raise UserError(
                    f"{self.path}: is an export and no run; predict with it, or name the run that "
                    "it was made of"
                ) from None
            raise UserError(
                f"{self.path}: no run here (run.json is missing); train one with "
                "python -m spml_tf.train --output_dir=..."
            ) from None
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self.record}: cannot be read ({reason_of(error)}); {_LOST}"
            ) from None
        kinds = {"flags": dict, "data_fingerprint": str, "class_names": list, "images": dict}
        for name, kind in kinds.items():
            if not isinstance(record, dict) or not isinstance(record.get(name), kind):
                raise UserError(f"{self.record}: {name} is missing or no {kind.__name__}; {_LOST}")
        return record

    def read_metrics(self) -> dict[str, Any]:
        """metrics.json of a finished run.

        Raises:
            UserError: it is missing or damaged.
        """
        try:
            metrics: dict[str, Any] = parse_json(self.metrics.read_text("utf-8"))
            _ = metrics["best_epoch"] + 0, [metrics[x]["map"] for x in metrics if x != "best_epoch"]
            _ = metrics["val"]["ap"].items()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{self.metrics}: cannot be read ({reason_of(error)}); {_AGAIN}"
            ) from None
        self._check(self.metrics)
        return metrics

    def check_finished(self) -> None:
        """Raises UserError where there is no run, or its training has not come to its end."""
        self.read_record()
        if not self.metrics.exists():
            raise UserError(f"{self.path}: not finished; start its training again to resume it")

    def read_predictions(self, split: str) -> dict[str, NDArray[Any]]:
        """The arrays of predictions_SPLIT.npz by name: scores, labels, names, class_names.

        Args:
            split: "val" or "test".

        Raises:
            UserError: it is missing or damaged.
        """
        import numpy as np  # takes a while, and --help needs none

        path = self.predictions(split)
        try:
            # Opened here: NumPy would leave a damaged archive open.
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as saved:
                found = {part: saved[part] for part in ("scores", "labels", "names", "class_names")}
        except Exception as error:  # whatever NumPy and zipfile make of a damaged file
            raise UserError(f"{path}: cannot be read ({reason_of(error)}); {_AGAIN}") from error
        self._check(path)
        return found

    def is_finished(self) -> bool:
        """Whether training has come to its end, and what it wrote is as it was."""
        self._known_sums = None  # another process may have written all anew
        return self.metrics.exists() and self.checksums.exists() and not self.damaged_results()

    def damaged_results(self) -> list[str]:
        """What is wrong with the files of a finished run.

        Its training can write them anew, but for run.json, on which it is refused.
        """
        found = []
        results = (self.metrics, self.network, self.history, *self._every_prediction())
        for path in (self.record, *results):
            try:
                self._check(path)
            except UserError as error:
                found.append(str(error))
        if not found and self.metrics.exists():
            try:
                self.read_metrics()
            except UserError as error:
                found.append(str(error))
        return found

    def _every_prediction(self) -> list[Path]:
        return [
            path for path in map(self.predictions, ("val", "test")) if path.name in self._sums()
        ]

    def finish(self) -> None:
        """Notes what belongs to the finished run."""
        paths = [self.record, self.history, self.network, self.metrics, self.heatmaps]
        paths += [self.predictions(split) for split in ("val", "test")]
        sums = [f"{sha256(path)}  {path.name}\n" for path in paths if path.exists()]
        write_text(self.checksums, "".join(sums))
        self._known_sums = None

    def _sums(self) -> dict[str, str]:
        """SHA-256 by name, of a finished run; SHA256SUMS is read once."""
        if self._known_sums is None:
            self._known_sums = self._read_sums()
        return self._known_sums

    def _read_sums(self) -> dict[str, str]:
        try:
            lines = self.checksums.read_text("utf-8").splitlines()
            found = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
            return found or _NOTHING_FITS
        except FileNotFoundError:
            return {}
        except (OSError, ValueError):
            return _NOTHING_FITS

    def _check(self, path: Path, advice: str = _AGAIN) -> None:
        """Raises UserError where a finished run's file is not what the run wrote."""
        if not self._sums():
            return
        if not path.exists():
            raise UserError(f"{path}: is missing; {advice}")
        if self._sums().get(path.name) != sha256(path):
            raise UserError(f"{path}: differs from what the run wrote (see SHA256SUMS); {advice}")

    def best_network(self) -> Path:
        """The best network: network.keras, or its copy among the checkpoints where it is damaged.

        Raises:
            UserError: both are damaged, or network.keras of a finished run that keeps no copy.
        """
        kept = self.checkpoints.best_network()
        if kept is None:
            self._check(self.network)
            return self.network
        copy, expected = kept
        reason = damage(self.network, expected)
        if not reason:
            return self.network
        if damage(copy, expected):
            raise UserError(f"{reason}, and so was its copy {copy}; train into another folder")
        tell_note(f"{reason}: using its copy {copy}")
        return copy

    def publish(self, progress: Progress) -> None:
        """Makes history.csv and network.keras those of a checkpoint."""
        if progress.history or self.history.exists():
            write_table(self.history, progress.history)
        if progress.best_epoch:
            with replaced(self.network) as path:
                shutil.copyfile(self.checkpoints.network(progress.best_epoch), path)

    def settings(self) -> Settings:
        """The run's settings, resolved.

        Raises:
            UserError: where there is no run, or one of another version with other flags.
        """
        record = self.read_record()
        flags = record["flags"]
        try:
            return settings_class()(**flags)
        except TypeError as error:
            if flags.get("plugins"):
                raise self._without_plugins(flags["plugins"]) from None
            version = record.get("versions", {}).get("spml_tf")
            raise UserError(
                f"{self.record}: flags of another version of spml_tf, {version} ({error})"
            ) from None

    def check_plugins(self, settings: Settings) -> None:
        """Refuses a run whose method or data set comes from plugins that are not loaded.

        Args:
            settings: the run's.
        """
        known = {*methods.METHODS, *methods.ADDITIONS, *READERS, "tfds"}
        named = {*settings.method.split("+"), settings.dataset.partition(":")[0]}
        if settings.plugins and not named <= known:
            raise self._without_plugins(settings.plugins)

    def _without_plugins(self, plugins: str) -> UserError:
        return UserError(
            f"{self.path}: was trained with --plugins={plugins}; give this flag again, or import "
            "the code first, if you trust it"
        )

    def start(
        self, settings: Settings, facts: dict[str, Any], given: Settings | None = None
    ) -> None:
        """Opens the folder for training.

        Args:
            settings: resolved settings.
            given: what they were resolved from, see `run_flags.flagfile`.
            facts: what else run.json records; "data_fingerprint" is compared on resumption.

        Raises:
            UserError: where the folder holds a run with other flags or data, or other files.
        """
        flags = run_flags.flagfile(settings, given)  # it may refuse: before anything is written
        if self.record.exists():
            self.check_same(settings, facts)
            self._note_plugins(facts)
        elif self._rounds():
            raise UserError(
                f"--output_dir={self.path}: holds rounds; give --rounds to go on, or choose "
                "another folder"
            )
        elif self.path.exists() and any(self.path.glob("[!.]*")):
            raise UserError(
                f"--output_dir={self.path}: not empty and holds no run; choose another folder"
            )
        else:  # the record comes first: what a killed process leaves is known as a run
            self.path.mkdir(parents=True, exist_ok=True)
            write_json(self.record, {"flags": dataclasses.asdict(settings), **facts})
        self.checkpoints.path.mkdir(exist_ok=True)
        write_text(self.flags, flags)

    def _note_plugins(self, facts: dict[str, Any]) -> None:
        """Notes the plugins' code where it is not what the run has gone on with before.

        run.json stays as it was, for the checkpoints know it; plugins.json holds the digests of all
        that came after it.
        """
        later = read_json_or_none(self.plugins) or []
        before = later[-1] if later else self._record().get("plugins") or {}
        now = facts.get("plugins") or {}
        if before != now:
            names = ", ".join(sorted(name for name in now if before.get(name) != now[name]))
            tell_note(f"{names}: has changed since this run began, which goes on with it as it is")
            write_json(self.plugins, [*later, now])

    def check_same(self, settings: Settings, facts: dict[str, Any]) -> None:
        """Raises UserError where the folder's run has other flags or data, or files of priors."""
        self.check_same_flags(settings)
        for flag, digest in self._record().get("priors", {}).items():
            if digest != facts["priors"].get(flag):
                raise UserError(
                    f"--{flag}={settings.option(flag)}: has changed since this run began; put it "
                    "back as it was, or choose another folder"
                )
        if self._record()["data_fingerprint"] != facts["data_fingerprint"]:
            raise UserError(
                f"--output_dir={self.path}: the data have changed since this run began; "
                "choose another folder"
            )

    def changed_flags(self, settings: Settings) -> list[str]:
        """How flags differ from those of the folder's run, a sentence each."""
        return run_flags.changes(settings, self._record(), self.path)

    def check_same_flags(self, settings: Settings) -> None:
        """Raises UserError where the folder's run has other flags."""
        changed = self.changed_flags(settings)
        if changed:
            raise UserError(
                f"--output_dir={self.path}: holds a run with other flags ({'; '.join(changed)}); "
                "repeat those or choose another folder (--init_from starts from a run's network)"
            )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps a second process from training into the same folder.

        Raises:
            UserError: where another process does already.
        """
        refusal = f"--output_dir={self.path}: another process trains here"
        with locked(self.path / ".lock", refusal):
            yield

    def read_history(self, epochs: int) -> list[dict[str, str]]:
        """Rows of the history up to an epoch: the checkpoint's, else those of history.csv.

        Raises:
            UserError: history.csv is damaged, and there is no checkpoint.
        """
        rows = self.checkpoints.history()
        if rows is None:
            rows = self._history_file() if self.history.exists() else []
        return [row for row in rows if int(row["epoch"]) <= epochs]

    def _history_file(self) -> list[dict[str, str]]:
        self._check(self.history)
        try:
            with open(self.history, newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            numbers = [int(row["epoch"]) for row in rows]
            _ = [float(row["val_map"] or "nan") for row in rows]
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            raise UserError(
                f"{self.history}: cannot be read ({reason_of(error)}); {_LOST}"
            ) from None
        if numbers != list(range(1, len(rows) + 1)):
            raise UserError(f"{self.history}: its epochs are not 1, 2, 3, ...; {_LOST}")
        return rows
