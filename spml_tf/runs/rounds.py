"""Rounds: runs in turn, each with the expected positives that the banks of the last one choose.

`python -m spml_tf.train --rounds=3`. Not in the paper.
"""

from __future__ import annotations

import dataclasses
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from spml_tf.runs.result_lines import summary
from spml_tf.runs.run_flags import flagfile
from spml_tf.runs.run_folder import RunFolder
from spml_tf.runs.settings import Settings, resolve
from spml_tf.system import launcher, strategies
from spml_tf.system.errors import UserError
from spml_tf.system.files import made_folder, write_table, write_text
from spml_tf.system.flag_checks import check_range
from spml_tf.training import methods

_SELECTION_START = "selection_start_epoch"


def train(settings: Settings, rounds: int, output_dir: str | os.PathLike[str]) -> None:
    """Trains the rounds that are not finished, a process each, and writes rounds.csv.

    Args:
        settings: of the first round, resolved or not.
        rounds: how many.
        output_dir: folder of the rounds, which go to round_1, round_2, ... in it.

    Raises:
        UserError: settings that cannot be, a method that selects nothing, a folder that holds a
            run, or a round that fails; the same call goes on.
    """
    check_range("rounds", rounds, 1, 1000)
    first, folder = resolve(settings), Path(output_dir)
    if not methods.selects(first.method):
        raise UserError(
            f"--rounds={rounds}: --method={first.method} selects no expected positives, which "
            "rounds hand on; take en or ep, as in en+scl"
        )
    if RunFolder(folder).record.exists():
        raise UserError(f"--output_dir={folder}: holds a run, not rounds; choose another folder")
    leads = first.strategy != "multi_worker" or strategies.is_first_worker()
    for number, of_round, run in _rounds(first, rounds, folder):
        if run.record.exists():
            run.check_same_flags(of_round)
        print(f"round {number} of {rounds}: {run.path}", flush=True)
        # Several workers share the folder: each reads a file of its own, and the first one's stays.
        flags = folder / (f"round_{number}.flags" if leads else f".{uuid.uuid4().hex}.flags")
        with made_folder(folder):
            write_text(flags, flagfile(of_round))
            try:
                arguments = [f"--flagfile={flags}", f"--output_dir={run.path}"]
                launcher.launch_one("spml_tf.train", arguments, f"round {number} of {rounds}")
            except BaseException:
                if leads and not run.path.exists():  # it has not begun
                    flags.unlink()
                raise
            finally:
                if not leads:
                    flags.unlink()
    if leads:
        _report(folder, rounds)


def _rounds(
    first: Settings, rounds: int, folder: Path
) -> Iterator[tuple[int, Settings, RunFolder]]:
    """Numbers, settings and folders of the rounds."""
    # Flags of parts are fields that only run time knows.
    later = dataclasses.replace(first, **{_SELECTION_START: first.epochs + 1})  # type: ignore[arg-type]
    for number in range(1, rounds + 1):
        run = RunFolder(folder / f"round_{number}")
        if number == 1:
            yield number, first, run
        else:
            before = str((folder / f"round_{number - 1}").absolute())
            yield number, dataclasses.replace(later, initial_banks=before), run


def _report(folder: Path, rounds: int) -> None:
    rows = []
    for number in range(1, rounds + 1):
        run = RunFolder(folder / f"round_{number}")
        metrics = run.read_metrics()
        last = run.read_history(run.settings().epochs)[-1]
        rows.append(
            {
                "round": number,
                "best_epoch": metrics["best_epoch"],
                **{f"{x}_map": metrics[x]["map"] for x in ("val", "test") if x in metrics},
                "selection_precision": last.get("selection_precision", ""),
                "selection_recall": last.get("selection_recall", ""),
            }
        )
        print(f"round {number}: {summary(metrics)}")
    write_table(folder / "rounds.csv", rows)
    print(f"results in {folder / 'rounds.csv'}; the networks are in its rounds' folders")
