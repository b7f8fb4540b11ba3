"""The checkpoints of a run: which there are, which of them are whole, and what belongs to each.

A checkpoint is some files and a record of them, NAME.json, which is written last: what has no
record does not count. The record holds size and CRC-32 of each file, of run.json and of itself, so
that a file that was cut, changed or taken from another run is noticed; and the history and the best
network up to then, from which history.csv and network.keras can be made again. The last two
checkpoints are kept: where the newest is damaged the one before it goes on.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spml_tf.system.errors import UserError, reason_of
from spml_tf.system.files import replaced, write_json
from spml_tf.system.json_text import parse_json
from spml_tf.system.notes import tell_note

_KEPT = 2
_BLOCK = 2**24


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a training has come.

    Attributes:
        epochs: whole epochs done.
        step: steps done of the epoch after these.
        seconds: that the unfinished epoch has taken so far.
        history: rows of history.csv as text, one a whole epoch.
        best_epoch: the one whose network is kept: the best on validation, the latest where mAP is
            undefined there; 0 before the first is done.
        trained: what an unfinished epoch whose steps are all done has to say of them: the metrics
            of history.csv by name, as text; empty before.
    """

    epochs: int
    step: int = 0
    seconds: float = 0.0
    history: Sequence[Mapping[str, str]] = ()
    best_epoch: int = 0
    trained: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def where(self) -> str:
        """For messages: "epoch 3" or "step 12 of epoch 4"."""
        return (
            f"step {self.step} of epoch {self.epochs + 1}" if self.step else f"epoch {self.epochs}"
        )


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """One whole checkpoint.

    Attributes:
        weights: the file of weights, optimizer and tables, as `keras.Model.save_weights` writes it.
        metrics: what metrics have seen of an unfinished epoch, a file for each worker.
        progress: how far it goes.
        machine: what it was written on, see `machine.machine`.
    """

    weights: Path
    metrics: tuple[Path, ...]
    progress: Progress
    machine: Mapping[str, Any]


def checksum(path: Path) -> dict[str, int]:
    """Size and CRC-32 of a file: the CRC sees every change of up to 32 bits that lie together."""
    found, size = 0, 0
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            found, size = zlib.crc32(block, found), size + len(block)
    return {"size": size, "crc32": found}


class CheckpointFolder:
    """A run's folder "checkpoint".

    Args:
        path: the folder, which need not exist.
        record: run.json of the run.
        published: its network.keras, from which a damaged copy here is made again.
    """

    def __init__(self, path: Path, record: Path, published: Path) -> None:
        self.path, self.record, self.published = path, record, published

    def name(self, progress: Progress) -> str:
        """What the names of a checkpoint's files begin with; they sort by progress."""
        step = f"_step{progress.step:07d}" if progress.step else ""
        return f"epoch{progress.epochs:05d}{step}"

    def weights(self, progress: Progress) -> Path:
        """The file of weights of a checkpoint."""
        return self.path / f"{self.name(progress)}.weights.h5"

    def network(self, epoch: int) -> Path:
        """The file of the network after an epoch that was the best."""
        return self.path / f"best{epoch:05d}.keras"

    def add(
        self,
        progress: Progress,
        files: Mapping[str, Mapping[str, int]],
        machine: Mapping[str, Any],
    ) -> None:
        """Makes written files a checkpoint, and removes what the last two do not need.

        Args:
            progress: how far it goes.
            files: the checksums of its files by name.
            machine: what it was written on.
        """
        best = self.network(progress.best_epoch) if progress.best_epoch else None
        body = {
            "progress": dataclasses.asdict(progress),
            "files": dict(files),
            "network": {best.name: checksum(best)} if best else {},
            "run": checksum(self.record),
            "machine": dict(machine),
        }
        seal = zlib.crc32(_text(body))
        record = self.path / f"{self.name(progress)}.json"
        write_json(record, {**body, "crc32": seal})
        self._keep_two(record)

    def newest(
        self, agreed: Callable[[str], str] = str, to_train: bool = False, mend: bool = False
    ) -> Checkpoint | None:
        """The newest checkpoint that is whole; a note tells of newer ones that are not.

        Args:
            agreed: of what this process has found damaged, "" for nothing, the answer of all
                workers.
            to_train: whether the best network must be whole too, or its copy.
            mend: whether this process makes the best network again of its copy.

        Returns:
            None where there is no checkpoint.

        Raises:
            UserError: there are some, and none is whole.
        """
        damaged: list[str] = []
        for record in self._records():
            body, reason = self._read(record)
            if not reason:
                reason = agreed(self._damage(body, to_train, mend))
            if not reason:
                for text in damaged:
                    tell_note(f"{text}; going on from the one before")
                return self._checkpoint(record, body)
            damaged.append(reason)
        if damaged:
            raise UserError(
                f"{damaged[0]}, and no other checkpoint is whole; to train from the start remove "
                f"{self.path}, or choose another folder"
            )
        if (self.path / "state.weights.h5").exists():
            raise UserError(
                f"{self.path}: holds the checkpoint of an earlier version of spml_tf; go on with "
                "that version, or choose another folder"
            )
        return None

    def history(self) -> list[dict[str, str]] | None:
        """The rows of the newest record that can be read; None where there is none."""
        body = self._newest_record()
        return None if body is None else list(body["progress"]["history"])

    def best_network(self) -> tuple[Path, dict[str, int]] | None:
        """The best network's copy here and its checksum, by the newest record that can be read."""
        body = self._newest_record()
        if body is None or not body["network"]:
            return None
        ((name, expected),) = body["network"].items()
        return self.path / name, expected

    def _newest_record(self) -> dict[str, Any] | None:
        for record in self._records():
            body, reason = self._read(record)
            if not reason:
                return body
        return None

    def _records(self) -> list[Path]:
        return sorted(self.path.glob("epoch*.json"), reverse=True)

    def _read(self, record: Path) -> tuple[dict[str, Any], str]:
        """A record, or why it does not count."""
        try:
            body = parse_json(record.read_text("utf-8"))
            seal = body.pop("crc32")
            if zlib.crc32(_text(body)) != seal:
                return {}, f"{record}: was changed after it was written"
            if not self.record.exists() or body["run"] != checksum(self.record):
                return (
                    {},
                    f"{record}: belongs to another run than {self.record}, or that was changed",
                )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return {}, f"{record}: cannot be read ({reason_of(error)})"
        return body, ""

    def _damage(self, body: Mapping[str, Any], to_train: bool, mend: bool) -> str:
        for name, expected in body["files"].items():
            if reason := damage(self.path / name, expected):
                return reason
        for name, expected in body["network"].items() if to_train else ():
            if (reason := damage(self.path / name, expected)) and damage(self.published, expected):
                return reason
            if reason and mend:
                with replaced(self.path / name) as new:
                    shutil.copyfile(self.published, new)
        return ""

    def _checkpoint(self, record: Path, body: dict[str, Any]) -> Checkpoint:
        progress = Progress(**body["progress"])
        metrics = sorted(name for name in body["files"] if name.endswith(".metrics.npz"))
        paths = tuple(self.path / name for name in metrics)
        return Checkpoint(self.weights(progress), paths, progress, body["machine"])

    def _keep_two(self, newest: Path) -> None:
        """Removes what neither the newest checkpoint nor the one before it needs.

        A later one is damaged: else training would have gone on from it.
        """
        needed = set[str]()
        for record in [x for x in self._records() if x.name <= newest.name][:_KEPT]:
            body, reason = self._read(record)
            needed |= set() if reason else {record.name, *body["files"], *body["network"]}
        for path in sorted(self.path.glob("[!.]*"), key=lambda x: x.suffix != ".json"):
            if path.name not in needed:
                path.unlink()
        for path in self.path.glob(".unfinished-*"):  # of processes that were killed
            path.unlink()


def damage(path: Path, expected: Mapping[str, int]) -> str:
    """What is wrong with a file that should have a checksum; "" for nothing."""
    try:
        if path.stat().st_size == expected["size"] and checksum(path) == expected:
            return ""
    except FileNotFoundError:
        return f"{path}: is missing"
    except OSError as error:
        return f"{path}: cannot be read ({error.strerror})"
    return f"{path}: was changed or cut after it was written"


def _text(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True).encode("utf-8")
