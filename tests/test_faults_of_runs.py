"""Runs that are stopped, killed or damaged: nothing is lost, or one line says what is."""

from __future__ import annotations

import os
import signal

import pytest
from conftest import RESUMED, flags, run
from faults import fault
from saved_runs import assert_equal_runs

from spml_tf import train
from spml_tf.runs import recorder

STOPS = "Runs that are stopped"


def stopped_at(
    monkeypatch: pytest.MonkeyPatch, number: int, hook: str, epoch: int, batch: int
) -> None:
    """The next run in this process gets a signal after a batch of an epoch, both from 0."""
    write = getattr(recorder.RunRecorder, hook)

    def write_after_signal(self, place, logs=None):
        if len(self.progress.history) == epoch and place == batch:
            os.kill(os.getpid(), number)
        write(self, place, logs)

    monkeypatch.setattr(recorder.RunRecorder, hook, write_after_signal)


@fault(
    STOPS, "Ctrl-C or SIGTERM within an epoch", "a signal at a step of training",
    "the step is finished, all is saved, the line names the step; exit code 130 or 143; the same "
    "command goes on to the same numbers, bit for bit",
)  # fmt: skip
@fault(
    STOPS, "Ctrl-C or SIGTERM while an epoch is validated", "a signal at a batch of validation",
    "as within an epoch; the steps are not done again",
)  # fmt: skip
@pytest.mark.parametrize(
    ("number", "code", "word", "hook", "epoch", "batch", "where"),
    [
        (signal.SIGTERM, 143, "terminated", "on_train_batch_end", 2, 1, "step 2 of epoch 3"),
        (signal.SIGINT, 130, "interrupted", "on_train_batch_end", 0, 2, "step 3 of epoch 1"),
        (signal.SIGTERM, 143, "terminated", "on_test_batch_end", 3, 0, "step 4 of epoch 4"),
        (signal.SIGINT, 130, "interrupted", "on_train_batch_end", 1, 3, "step 4 of epoch 2"),
    ],
)
def test_a_stopped_run_goes_on_where_it_was(
    voc, finished, tmp_path, monkeypatch, capsys, number, code, word, hook, epoch, batch, where
):
    folder = tmp_path / "run"
    words = [*flags(voc, **RESUMED), f"--output_dir={folder}"]
    with monkeypatch.context() as patch:
        stopped_at(patch, number, hook, epoch, batch)
        assert train.main(words) == code
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == f"{word}: saved after {where}; the same command goes on from there"
    done = run(*words)
    assert done.returncode == 0, done.stderr
    assert f"resuming after {where} of 5" in done.stderr
    assert_equal_runs(folder, finished)
