"""Rounds: `--rounds=2` is two commands, each with the banks of the one before."""

from __future__ import annotations

import contextlib
import io
import json
import shutil

import pytest
import warm_process
from conftest import flags, run
from saved_runs import assert_equal_runs, table_rows

from spml_tf import train
from spml_tf.system import launcher

OPTIONS = {
    "method": "en+cl", "epochs": 2, "selection_start_epoch": 2, "consistency_start_epoch": 2,
    "selection_budget": "estimated", "positives_per_image": "auto",
}  # fmt: skip


@pytest.fixture(scope="module")
def rounds(voc, tmp_path_factory):
    """Folder and output of a command of two rounds."""
    folder = tmp_path_factory.mktemp("rounds") / "all"
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as said:
        patch.setattr(launcher, "launch_one", _fork_one)
        assert train.main([*flags(voc, **OPTIONS), "--rounds=2", f"--output_dir={folder}"]) == 0
    return folder, said.getvalue()


def _fork_one(module, arguments, name):
    """A round as a fork, which need not import TensorFlow."""
    done = warm_process.run(module, arguments)
    assert done.returncode == 0, (name, done.stderr)
    print(done.stdout, end="")


@pytest.mark.slow
def test_rounds_equal_the_commands_one_by_one(voc, rounds, tmp_path):
    folder, _ = rounds
    first = run(*flags(voc, **OPTIONS), f"--output_dir={tmp_path / '1'}")
    assert first.returncode == 0, first.stderr
    later = {**OPTIONS, "selection_start_epoch": 3}  # after the last: the banks' choice stands
    second = run(
        *flags(voc, **later), f"--initial_banks={folder / 'round_1'}",
        f"--output_dir={tmp_path / '2'}",
    )  # fmt: skip
    assert second.returncode == 0, second.stderr
    assert_equal_runs(folder / "round_1", tmp_path / "1")
    assert_equal_runs(folder / "round_2", tmp_path / "2")
    selected = [row["selected"] for row in table_rows(folder / "round_2" / "history.csv")]
    assert selected[0] == selected[1] and int(selected[0]) > 0


def test_a_later_round_keeps_what_the_first_has_estimated(rounds):
    folder, _ = rounds
    first, second = (table_rows(folder / x / "history.csv")[-1] for x in ("round_1", "round_2"))
    assert float(first["estimated_k"]) > 0
    assert second["estimated_k"] == first["estimated_k"]
    assert second["k_high"] == first["k_high"]


def test_metrics_of_each_round_are_told(rounds):
    folder, output = rounds
    rows = table_rows(folder / "rounds.csv")
    assert [row["round"] for row in rows] == ["1", "2"]
    for row in rows:
        metrics = json.loads((folder / f"round_{row['round']}" / "metrics.json").read_text())
        assert float(row["test_map"]) == metrics["test"]["map"]
        assert f"round {row['round']}: best epoch {metrics['best_epoch']}" in output


def test_the_same_command_trains_only_what_is_missing(voc, rounds, tmp_path, monkeypatch):
    folder = tmp_path / "copy"
    shutil.copytree(rounds[0], folder)
    shutil.rmtree(folder / "round_2")
    before = (folder / "round_1" / "run.json").stat().st_mtime_ns
    monkeypatch.setattr(launcher, "launch_one", _fork_one)
    assert train.main([*flags(voc, **OPTIONS), "--rounds=2", f"--output_dir={folder}"]) == 0
    assert (folder / "round_1" / "run.json").stat().st_mtime_ns == before
    for name in ("1", "2"):
        metrics = [x / f"round_{name}" / "metrics.json" for x in (folder, rounds[0])]
        assert metrics[0].read_text() == metrics[1].read_text()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"method": "an"}, "--method=an selects no expected positives"),
        ({**OPTIONS, "rounds": 0}, "--rounds=0"),
        ({**OPTIONS, "learning_rate": -1}, "--learning_rate=-1"),
    ],
)
def test_what_cannot_be_is_one_line(voc, given, said, tmp_path):
    words = flags(voc, **{"rounds": 2, **given})
    found = run(*words, f"--output_dir={tmp_path / 'run'}")
    assert found.returncode == 1 and found.stderr.count("\n") == 1 and said in found.stderr
    assert not (tmp_path / "run").exists()


def test_a_failing_round_ends_the_command(voc, tmp_path):
    found = run(
        *flags(voc, **OPTIONS), "--rounds=2", "--initial_banks=/no/run",
        f"--output_dir={tmp_path / 'run'}",
    )  # fmt: skip
    assert found.returncode == 1
    assert "/no/run: no run here" in found.stderr
    assert "round 1 of 2 failed, as said above" in found.stderr
    assert "Traceback" not in found.stderr
    assert not (tmp_path / "run" / "rounds.csv").exists()


def test_other_flags_are_refused_before_anything_is_written(voc, rounds):
    folder, _ = rounds
    before = (folder / "round_1.flags").read_text()
    other = {**OPTIONS, "learning_rate": 0.5}
    found = run(*flags(voc, **other), "--rounds=2", f"--output_dir={folder}")
    assert found.returncode == 1 and "holds a run with other flags (--learning_rate" in found.stderr
    assert "goes on" not in found.stderr and (folder / "round_1.flags").read_text() == before


def test_folders_of_runs_and_of_rounds_are_told_apart(voc, rounds):
    from spml_tf.runs.run_folder import RunFolder
    from spml_tf.system.errors import UserError

    folder, _ = rounds
    with pytest.raises(UserError, match=r"holds rounds; name one of them, such as .*round_2"):
        RunFolder(folder).check_finished()
    found = run(*flags(voc, **OPTIONS), f"--output_dir={folder}")
    assert found.returncode == 1 and "holds rounds; give --rounds to go on" in found.stderr
    found = run(*flags(voc, **OPTIONS), "--rounds=2", f"--output_dir={folder / 'round_1'}")
    assert found.returncode == 1 and "holds a run, not rounds" in found.stderr
