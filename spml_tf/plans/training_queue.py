"""Runs training commands as processes, some at a time."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from spml_tf.runs.result_lines import summary_of_maps
from spml_tf.runs.run_flags import flagfile
from spml_tf.runs.run_folder import RunFolder
from spml_tf.runs.settings import Settings
from spml_tf.system import child_process, gpus
from spml_tf.system.errors import Terminated, UserError, printable
from spml_tf.system.files import write_text

# Seconds between two looks at the processes, and until one that was told to stop is killed.
_PAUSE, _PATIENCE = 0.1, 180.0  # more than a run's workers are given to save


@dataclasses.dataclass(frozen=True)
class Job:
    """A run to train.

    Attributes:
        name: of the run.
        settings: resolved.
        folder: where it goes.
        log: file its output is added to.
        after: folder of the run that must be finished before, or None.
    """

    name: str
    settings: Settings
    folder: RunFolder
    log: Path
    after: RunFolder | None = None


@dataclasses.dataclass(frozen=True)
class _Process:
    job: Job
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    offset: int
    began: float
    place: int

    def minutes(self) -> float:
        return (time.monotonic() - self.began) / 60

    def close(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.log.close()


def work(
    jobs: Sequence[Job],
    processes: int,
    starting: Callable[[Job], None],
    finished: Callable[[Job], object],
) -> dict[str, str]:
    """Trains what is not finished, in order; a job that fails leaves the others alone.

    A line on standard output tells of each start and end. Whatever ends this function early ends
    the processes too, kill -9 of this process among it; a run is none the worse for it. The GPUs
    are dealt out to those that run at a time: see `gpus.dealt_out`.

    Args:
        jobs: each after the one it waits for.
        processes: how many are trained at a time.
        starting: called before a job's process is started.
        finished: called after a job's results are there.

    Returns:
        Why jobs failed, by name: the last line of their errors.
    """
    waiting = [job for job in jobs if not job.folder.is_finished()]
    if len(waiting) < len(jobs):
        print(f"{len(jobs) - len(waiting)} of {len(jobs)} runs are finished", flush=True)
    failures: dict[str, str] = {}
    running: list[_Process] = []
    environments = gpus.dealt_out(processes) if waiting else []
    try:
        while waiting or running:
            for job in list(waiting):
                # A finished run is read to see that it is whole: only where a place is free.
                if len(running) < processes and (job.after is None or job.after.is_finished()):
                    waiting.remove(job)
                    starting(job)
                    number = f"{len(jobs) - len(waiting)} of {len(jobs)}"
                    place = min(set(range(processes)) - {one.place for one in running})
                    with _signals_later():  # else a process might be left that nobody knows of
                        running.append(_start(job, number, place, environments[place]))
            if not running:  # what is left waits for runs that failed
                for job in waiting:
                    if job.after is not None:
                        failures[job.name] = f"{job.after.path.name}, which it follows, failed"
                break
            time.sleep(_PAUSE)
            for one in [x for x in running if x.process.poll() is not None]:
                running.remove(one)
                reason = _end(one)
                if reason is None:
                    finished(one.job)
                else:
                    failures[one.job.name] = reason
    finally:
        _stop(running)
    return failures


@contextlib.contextmanager
def _signals_later() -> Iterator[None]:
    """Keeps Ctrl-C and kill waiting until what is inside is done; in the main thread only."""
    came: list[int] = []
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if callable(signal.getsignal(number)):  # not where it is ignored
                handlers[number] = signal.signal(number, lambda received, _: came.append(received))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for received in came:
            signal.raise_signal(received)


def _start(job: Job, number: str, place: int, environment: Mapping[str, str]) -> _Process:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    flags = job.log.with_suffix(".flags")
    write_text(flags, flagfile(job.settings))
    arguments = [f"--flagfile={flags}", f"--output_dir={job.folder.path}"]
    log = open(job.log, "ab")
    print(f"start  {job.name} ({number})", flush=True)
    process = subprocess.Popen(
        child_process.command("spml_tf.train", arguments),
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**os.environ, **environment},
    )
    return _Process(job, process, log, log.tell(), time.monotonic(), place)


def _end(one: _Process) -> str | None:
    """Tells how a process ended; why it failed, or None."""
    one.close()
    name, minutes = one.job.name, f"{one.minutes():.1f} min"
    if one.process.returncode == 0 and one.job.folder.is_finished():
        results = one.job.folder.read_metrics()
        print(f"done   {name}: {summary_of_maps(results)}, {minutes}", flush=True)
        return None
    reason = _last_error(one)
    print(f"failed {name}, {minutes}: {reason}", flush=True)
    return reason


def _last_error(one: _Process) -> str:
    with open(one.job.log, "rb") as file:
        file.seek(one.offset)
        text = file.read().decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    code = one.process.returncode
    if errors:
        reason = errors[-1].removeprefix("error: ")
    else:
        reason = f"ended by signal {-code}" if code < 0 else f"ended with code {code}"
        reason += f"; last line: {lines[-1]}" if lines else ""
    return printable(f"{reason} (log: {one.job.log})")


def _stop(running: Sequence[_Process]) -> None:
    for one in running:
        one.process.terminate()
    try:
        for one in running:
            one.process.wait(_PATIENCE)
    except (subprocess.TimeoutExpired, KeyboardInterrupt, Terminated):
        for one in running:  # the user may be less patient
            one.process.kill()
    for one in running:
        one.process.wait()
        one.close()


def check_folders(jobs: Sequence[Job]) -> None:
    """Refuses folders that hold runs with other flags.

    Args:
        jobs: all jobs.

    Raises:
        UserError: naming the first such folder and what differs.
    """
    for job in jobs:
        changes = job.folder.changed_flags(job.settings) if job.folder.record.exists() else []
        if changes:
            raise UserError(
                f"{job.folder.path}: holds a run with other flags than the plan's "
                f"({'; '.join(changes)}); remove it, or choose another --output_dir"
            )
