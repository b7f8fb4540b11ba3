"""Experiment trackers: MLflow or Weights & Biases is told what a run's own record holds.

The record in the run's folder stays what counts. tracker.json there says which run of a tracker
belongs to it and up to which epoch that one was told, so that a resumed run goes on in it.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from spml_tf.runs.run_folder import RunFolder
from spml_tf.runs.settings import Settings
from spml_tf.system.errors import Terminated, UserError, reason_of
from spml_tf.system.files import write_json
from spml_tf.system.json_text import parse_json
from spml_tf.system.notes import tell_note
from spml_tf.system.optional_packages import needed

_PROJECT = "spml_tf"
# The shortest limit of a parameter's text in any version of MLflow that is in use, and how many
# parameters and metrics it takes at once.
_LONGEST, _CUT, _PARAMETERS, _METRICS = 500, "... (cut: flags.txt has all)", 100, 1000
# MLflow waits for minutes otherwise, before it says that a server cannot be reached.
_MLFLOW_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
# Seconds that W&B may take to begin, and to send what is left at the end.
_BEGIN, _END = 30, 60


@dataclasses.dataclass(frozen=True)
class _About:
    """What a tracker is told of a run when it begins."""

    name: str
    flags: Mapping[str, Any]
    facts: Mapping[str, str]


class Tracker:
    """What training tells; this one, of --tracker=none, tells nobody."""

    def log_epochs(self, history: Sequence[Mapping[str, str]]) -> None:
        """Tells of those epochs that the tracker does not know yet.

        Args:
            history: rows of history.csv as text, from the first epoch.
        """

    def log_results(self, results: Mapping[str, Any]) -> None:
        """Tells of the results and ends the tracker's run.

        Args:
            results: what metrics.json holds.
        """

    def stop(self, interrupted: bool) -> None:
        """Ends the tracker's run where training ended early.

        Args:
            interrupted: by a signal; else by an error.
        """


class _Client(abc.ABC):
    """A tracker's library."""

    @abc.abstractmethod
    def begin(self, about: _About, known: str | None) -> str:
        """Begins a run, or goes on with a known one; returns its id."""

    @abc.abstractmethod
    def log(self, values: Mapping[str, float], step: int) -> None:
        """Adds numbers of a step."""

    @abc.abstractmethod
    def summarise(self, values: Mapping[str, float], step: int) -> None:
        """Adds numbers of the whole run; step is that of the best epoch."""

    @abc.abstractmethod
    def add_file(self, path: Path) -> None:
        """Adds a small file."""

    @abc.abstractmethod
    def end(self, status: str) -> None:
        """Ends the run: FINISHED, KILLED or FAILED."""

    @abc.abstractmethod
    def place(self) -> str:
        """Where a user finds the run."""


class _MLflow(_Client):
    """By its client, which leaves the active run of a program that trains alone."""

    def __init__(self) -> None:
        for name, value in _MLFLOW_DEFAULTS.items():
            os.environ.setdefault(name, value)
        import mlflow

        self.client: Any = mlflow.MlflowClient()
        self.run = ""

    def begin(self, about: _About, known: str | None) -> str:
        if known:
            self.client.update_run(known, status="RUNNING")
            self.run = known
            return known
        from mlflow.entities import Param
        from mlflow.tracking.context import registry

        tags = {**registry.resolve_tags(), **about.facts}
        made = self.client.create_run(self._experiment(), tags=tags, run_name=about.name)
        self.run = made.info.run_id
        texts = {name: str(value) for name, value in about.flags.items()}
        found = [Param(name, _shortened(text)) for name, text in texts.items()]
        for first in range(0, len(found), _PARAMETERS):
            self.client.log_batch(self.run, params=found[first : first + _PARAMETERS])
        return self.run

    def _experiment(self) -> str:
        """The id of the experiment that its environment names, else of "spml_tf"."""
        number = os.environ.get("MLFLOW_EXPERIMENT_ID")
        if number:
            return number
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or _PROJECT
        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self.client.create_experiment(name))
            except Exception:
                found = self.client.get_experiment_by_name(name)
                if found is None:  # else another run has just made it
                    raise
        return str(found.experiment_id)

    def log(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        found = [Metric(name, value, now, step) for name, value in values.items()]
        for first in range(0, len(found), _METRICS):
            self.client.log_batch(self.run, metrics=found[first : first + _METRICS])

    def summarise(self, values: Mapping[str, float], step: int) -> None:
        self.log(values, step)

    def add_file(self, path: Path) -> None:
        self.client.log_artifact(self.run, str(path))

    def end(self, status: str) -> None:
        self.client.set_terminated(self.run, status)

    def place(self) -> str:
        return f"run {self.run}"


class _WeightsAndBiases(_Client):
    """By a run of its own, which leaves that of a program that trains alone."""

    def __init__(self) -> None:
        import wandb

        self.wandb: Any = wandb
        self.run: Any = None

    def begin(self, about: _About, known: str | None) -> str:
        options: dict[str, Any] = {
            "console": "off", "silent": True, "init_timeout": _BEGIN, "finish_timeout": _END,
            "finish_timeout_raises": True,
        }  # fmt: skip
        found = self.wandb.setup(self.wandb.Settings(**options)).settings
        # Asked for here: `init` would ask the terminal.
        if found.mode not in ("offline", "dryrun", "disabled") and not self.wandb.login(
            prompt=False
        ):
            raise UserError(
                "no API key: run `wandb login`, or set WANDB_API_KEY, or WANDB_MODE=offline"
            )
        self.run = self.wandb.init(
            project=found.project or _PROJECT, name=about.name, id=known, resume="allow",
            config={**about.flags, **about.facts}, allow_val_change=True, reinit="create_new",
            settings=self.wandb.Settings(**options),
        )  # fmt: skip
        return str(self.run.id)

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.run.log(dict(values), step=step)

    def summarise(self, values: Mapping[str, float], step: int) -> None:
        self.run.summary.update(dict(values))

    def add_file(self, path: Path) -> None:
        # A copy: W&B would link to the file, which may be gone before an offline run is sent.
        copy = shutil.copy(path, self.run.dir)
        self.run.save(copy, base_path=self.run.dir, policy="now")

    def end(self, status: str) -> None:
        self.run.finish(exit_code=0 if status == "FINISHED" else 1)

    def place(self) -> str:
        if self.run.offline:
            return f"offline, `wandb sync {Path(self.run.dir).parent}` sends it"
        return str(self.run.url)


_CLIENTS: dict[str, type[_Client]] = {"mlflow": _MLflow, "wandb": _WeightsAndBiases}


class _Telling(Tracker):
    """Tells a client; what fails once training has begun is a note, and is tried again.

    Args:
        name: of the tracker.
        run: the folder.
    """

    def __init__(self, name: str, run: RunFolder) -> None:
        self.name, self.run = name, run
        self.known = self._read_known()
        self.history: Sequence[Mapping[str, str]] = ()
        self.told = False

    def _read_known(self) -> dict[str, dict[str, Any]]:
        """What tracker.json holds.

        By tracker the id of its run, the last epoch it was told and whether it knows the results.
        """
        try:
            known: dict[str, dict[str, Any]] = parse_json(self.run.tracker.read_text("utf-8"))
            _ = [(entry["run"] + "", entry["epochs"] + 0) for entry in known.values()]
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise UserError(
                f"{self.run.tracker}: cannot be read; delete it, and the tracker gets a new run"
            ) from None
        return known

    def knows_results(self) -> bool:
        """Whether the tracker was told how the run ended."""
        return bool(self.known.get(self.name, {}).get("ended"))

    def begin(self, about: _About) -> None:
        """Begins or goes on; raises UserError where the tracker cannot be reached."""
        before = self.known.get(self.name)
        try:
            self.client = _CLIENTS[self.name]()
            number = self.client.begin(about, before["run"] if before else None)
            if before is None:
                self._keep(number, 0)
                for path in (self.run.flags, self.run.record):
                    self.client.add_file(path)
        except Exception as error:  # whatever libraries and networks raise
            other = f", or delete {self.run.tracker} for a new run" if before else ""
            raise UserError(
                f"--tracker={self.name}: {_reason(error)}; mend that{other}, or drop the flag"
            ) from error
        print(f"tracker: {self.name}, {self.client.place()}", flush=True)

    def _keep(self, number: str, epochs: int, ended: bool = False) -> None:
        self.known[self.name] = {"run": number, "epochs": epochs, "ended": ended}
        write_json(self.run.tracker, self.known)

    def log_epochs(self, history: Sequence[Mapping[str, str]]) -> None:
        self.history = history
        with self._noting_faults():
            self._log_missing()

    def _log_missing(self) -> None:
        state = self.known[self.name]
        for row in self.history[state["epochs"] :]:
            # In history.csv a cell is blank where the epoch has no such value.
            values = {name: float(text) for name, text in row.items() if name != "epoch" and text}
            self.client.log(values, int(row["epoch"]))
            self._keep(state["run"], int(row["epoch"]))

    def log_results(self, results: Mapping[str, Any]) -> None:
        with self._noting_faults():
            self._log_missing()
            self.client.summarise(_results(results), results["best_epoch"])
            self.client.add_file(self.run.metrics)
            self.client.end("FINISHED")
            state = self.known[self.name]
            self._keep(state["run"], state["epochs"], ended=True)

    def stop(self, interrupted: bool) -> None:
        with self._noting_faults():
            self.client.end("KILLED" if interrupted else "FAILED")

    @contextlib.contextmanager
    def _noting_faults(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # no fault of a tracker may end a training
            if not self.told:
                tell_note(
                    f"--tracker={self.name}: {_reason(error)}; the run goes on; what the tracker "
                    "lacks is sent again after each epoch, and once it is finished by the same "
                    "command"
                )
            self.told = True


def check(tracker: str) -> None:
    """Raises UserError where the library of --tracker is not installed."""
    if tracker in _CLIENTS:
        needed(tracker, tracker, f"--tracker={tracker}")


@contextlib.contextmanager
def tracking(
    tracker: str,
    run: RunFolder,
    settings: Settings,
    facts: Mapping[str, Any],
    history: Sequence[Mapping[str, str]],
) -> Iterator[Tracker]:
    """A tracker that is ended with what ends the block.

    Args:
        tracker: "none", "mlflow" or "wandb".
        run: a folder that holds run.json and flags.txt.
        settings: resolved.
        facts: what else run.json records.
        history: of the checkpoint that training goes on from.

    Raises:
        UserError: the tracker cannot be reached, or does not know the run that it had.
    """
    if tracker == "none":
        yield Tracker()
        return
    telling = _Telling(tracker, run)
    telling.begin(_about(run, settings, facts))
    try:
        telling.log_epochs(history)
        yield telling
    except BaseException as error:
        telling.stop(isinstance(error, KeyboardInterrupt | Terminated))
        raise


def tell_finished(
    tracker: str, run: RunFolder, settings: Settings, facts: Mapping[str, Any]
) -> None:
    """Tells a tracker of a finished run what it lacks: all, or what could not be sent at the end.

    Args:
        tracker: as for `tracking`.
        run: as for `tracking`.
        settings: as for `tracking`.
        facts: as for `tracking`.

    Raises:
        UserError: as for `tracking`.
    """
    if tracker == "none" or _Telling(tracker, run).knows_results():
        return
    with tracking(tracker, run, settings, facts, run.read_history(settings.epochs)) as telling:
        telling.log_results(run.read_metrics())


def _about(run: RunFolder, settings: Settings, facts: Mapping[str, Any]) -> _About:
    path = run.path.resolve()
    rounds = re.fullmatch(r"round_\d+", path.name)
    flags = {
        **dataclasses.asdict(settings),
        "positives_per_image": facts["positives_per_image"],
        **{f"images_{split}": count for split, count in facts["images"].items()},
        "classes_count": len(facts["class_names"]),
    }
    return _About(
        f"{path.parent.name}_{path.name}" if rounds else path.name,
        {name: value for name, value in flags.items() if value is not None},
        {
            "data_fingerprint": facts["data_fingerprint"],
            **{f"version_{name}": text for name, text in facts["versions"].items()},
            **{f"machine_{name}": str(value) for name, value in facts["machine"].items()},
        },
    )


def _results(results: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of metrics.json, in percent, by names that every tracker takes."""
    found = {"best_epoch": float(results["best_epoch"])}
    for split in (name for name in ("val", "test") if name in results):
        values = {f"best/{split}_map": results[split]["map"]}
        for column, (name, value) in enumerate(results[split]["ap"].items()):
            clean = f"best/{split}_ap/{re.sub(r'[^0-9A-Za-z_ -]', '_', name)[:200]}"
            values[f"{clean}_{column}" if clean in values else clean] = value
        found |= {name: value for name, value in values.items() if value is not None}
    return found


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - len(_CUT)] + _CUT


def _reason(error: BaseException) -> str:
    return reason_of(error, 600).rstrip(".")
