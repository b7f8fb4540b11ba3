"""The same training on one device, two replicas, two workers, and two workers of two replicas.

Everything runs on logical CPUs and on processes of this machine.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import tensorflow as tf
import warm_process
from conftest import command, flags, run
from faults import fault
from saved_runs import copy_after_epoch, has_checkpoint, newest_weights, table_rows, wait_until

from spml_tf import train
from spml_tf.system import launcher, replicas, strategies
from spml_tf.system.errors import UserError
from spml_tf.system.replicas import Shard

# Workers of each kind.
KINDS = {"one": 1, "2r": 1, "2w": 2, "2w2r": 2}
METHODS = ("en+scl", "ll_cp", "role", "en+cl*")
LATER = ("gr", "em_apl", "csl", "ignore", "lagc")


def trained(kind: str, workers: int, folder: Path, methods: tuple[str, ...]) -> None:
    """Runs distributed_training.py in each worker's process."""
    folder.mkdir()
    running = []
    for worker, config in enumerate(launcher.local_clusters(workers)):
        environment = {**os.environ, "TF_CONFIG": config} if workers > 1 else None
        words = [kind, str(worker), str(folder), ",".join(methods)]
        here = Path(__file__).parent
        running.append(warm_process.Process("distributed_training", words, here, environment))
    for process in running:
        _, errors = process.communicate(timeout=400)
        assert process.returncode == 0, errors[-3000:]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory) -> Callable[[str, str], list[dict[str, np.ndarray]]]:
    """A function from kind and method to what each worker wrote; each kind is trained once
    for each of the two groups of methods."""
    folder = tmp_path_factory.mktemp("distributed")

    def of(kind: str, method: str) -> list[dict[str, np.ndarray]]:
        workers, group = KINDS[kind], LATER if method in LATER else METHODS
        own = folder / f"{kind}_{group[0]}"
        if not own.exists():
            trained(kind, workers, own, group)
        name = method.replace("*", "_weighted")
        files = [own / f"{name}_{worker}.npz" for worker in range(workers)]
        return [dict(np.load(file)) for file in files]

    return of


SPLITS = ["2w", *(pytest.param(x, marks=pytest.mark.slow) for x in ("2r", "2w2r"))]


@pytest.mark.parametrize(
    "method", [*METHODS, *(pytest.param(x, marks=pytest.mark.slow) for x in LATER)]
)
@pytest.mark.parametrize("kind", SPLITS)
def test_split_in_any_way_it_is_the_same_training(outcome, kind, method):
    """Losses step by step, metrics, banks, selections and weights; the last batch holds 3 of 5."""
    (one,), others = outcome("one", method), outcome(kind, method)
    assert len(one["steps"]) == 20 and all(other.keys() == one.keys() for other in others)
    for other in others:
        for name, expected in one.items():
            if not name.startswith("table/"):
                np.testing.assert_allclose(other[name], expected, atol=1e-5, err_msg=name)
    tables = [name for name in one if name.startswith("table/")]
    assert "table/ema_scores/0" in tables
    for name in tables:
        whole = np.empty_like(one[name])
        for worker, other in enumerate(others):
            Shard(worker, len(others)).own(whole)[...] = other[name]
        if one[name].dtype == bool or "label_store" in name:
            np.testing.assert_array_equal(whole, one[name], err_msg=name)
            continue
        # A byte may be rounded the other way where the average differs in its last bit.
        difference = np.abs(whole.astype(float) - one[name])
        limit = 1 if one[name].dtype == np.uint8 else 1e-5
        assert difference.max() <= limit and np.mean(difference > 1e-5) < 0.01, name


@pytest.mark.slow
def test_later_methods_did_something(outcome):
    targets = next(x for name, x in outcome("one", "em_apl")[0].items() if "pseudo_labels" in name)
    assert (targets >= 0).sum() > 3
    losses = {method: outcome("one", method)[0]["steps"] for method in LATER}
    assert all(np.isfinite(steps).all() for steps in losses.values())


def test_selections_were_made(outcome):
    """Else their equality would mean nothing."""
    for method in ("en+scl", "en+cl*", "ll_cp"):
        (one,) = outcome("one", method)
        assert (one["table/label_store/0"] == 2).sum() > 3


def arrays(folder: Path) -> dict[str, np.ndarray]:
    found = {}
    with h5py.File(newest_weights(folder)) as file:
        file.visititems(
            lambda name, x: found.update({name: x[()]}) if isinstance(x, h5py.Dataset) else None
        )
    return found


SAME = {"freeze_batch_norm": "true", "method": "en+scl", "consistency_start_epoch": 2}


@pytest.fixture(scope="module")
def single(voc, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("single") / "run"
    done = run(*flags(voc, **SAME), f"--output_dir={folder}")
    assert done.returncode == 0, done.stderr
    return folder


def history(folder: Path) -> list[dict[str, float]]:
    rows = table_rows(folder / "history.csv")
    return [{k: float(v or "nan") for k, v in row.items() if k != "seconds"} for row in rows]


def assert_same(folder: Path, single: Path) -> None:
    expected = arrays(single)
    for name, found in arrays(folder).items():
        if "ema" in name or "label_store" in name or "cam_logits" in name:
            np.testing.assert_allclose(found, expected[name], atol=1e-4, err_msg=name)
    for found, row in zip(history(folder), history(single), strict=True):
        assert found == pytest.approx(row, abs=1e-4, nan_ok=True)
    results = [json.loads((x / "metrics.json").read_text()) for x in (folder, single)]
    assert results[0]["test"]["map"] == pytest.approx(results[1]["test"]["map"], abs=1e-3)


def test_two_workers_from_the_command_line(voc, single, tmp_path):
    """The launcher; what it writes is what one process writes, and every command reads it."""
    folder = tmp_path / "run"
    words = [*flags(voc, **SAME), f"--output_dir={folder}"]
    done = run(*words, "--workers=2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("best epoch") == 1 and "shuffle_groups=2" in done.stderr
    assert_same(folder, single)
    scored = run(f"--run_dir={folder}", module="evaluate")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert json.loads(scored.stdout)["map"] == pytest.approx(metrics["test"]["map"], abs=1e-4)
    both = run(f"--run_dir={folder}", "--strategy=mirrored", "--devices=2", module="evaluate")
    assert both.returncode == 0, both.stderr
    assert json.loads(both.stdout)["map"] == pytest.approx(metrics["test"]["map"], abs=1e-3)


def test_two_replicas_from_the_command_line(voc, single, tmp_path):
    folder = tmp_path / "run"
    done = run(*flags(voc, **SAME), f"--output_dir={folder}", "--strategy=mirrored", "--devices=2")
    assert done.returncode == 0, done.stderr
    assert_same(folder, single)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ll_cp", "role", "en+cl"])
def test_other_methods_from_the_command_line(voc, tmp_path, method):
    """Flipped labels, trained estimates and a bank of bytes, over two workers and two replicas."""
    words = flags(voc, freeze_batch_norm="true", method=method)
    words += ["--bank_dtype=uint8"] * (method == "en+cl") + ["--large_loss_rate=10"]
    ways = {"one": [], "2w": ["--workers=2"], "2r": ["--strategy=mirrored", "--devices=2"]}
    for name, way in ways.items():
        done = run(*words, *way, f"--output_dir={tmp_path / name}")
        assert done.returncode == 0, done.stderr
    for name in ("2w", "2r"):
        assert_same(tmp_path / name, tmp_path / "one")


@pytest.mark.slow
def test_a_lost_worker_stops_the_others_and_any_number_goes_on(voc, tmp_path):
    """kill -9 of a worker after its first epoch; one process finishes, with the tables of both."""
    folder, single = tmp_path / "run", tmp_path / "single"
    given = flags(voc, **SAME, epochs=6)
    words = [*given, f"--output_dir={folder}"]
    process = warm_process.Process("spml_tf.train", [*words, "--workers=2"])
    wait_until(process, lambda: has_checkpoint(folder), 200)
    os.kill(_children(process.pid)[1], signal.SIGKILL)
    killed = time.monotonic()
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 1 and time.monotonic() - killed < 60
    told = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert "ended by SIGKILL" in told[-1] and "Traceback" not in errors
    assert not (folder / "metrics.json").exists()
    done = run(*words)
    assert done.returncode == 0 and "resuming after epoch" in done.stderr, done.stderr
    done = run(*given, f"--output_dir={single}")
    assert done.returncode == 0, done.stderr
    assert_same(folder, single)


def _children(process: int) -> list[int]:
    text = Path(f"/proc/{process}/task/{process}/children").read_text()
    return sorted(map(int, text.split()))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["en+scl", "role", "en+ll_cp"])
def test_any_number_of_workers_goes_on(voc, tmp_path, monkeypatch, method):
    """The rows are dealt out anew: an epoch by one process, one by two workers, one by one again.

    ROLE's estimates, and what their optimizer remembers, are among the rows, and marks of two
    rules.
    """
    words = [*flags(voc, **SAME | {"method": method})]
    whole, folder, later = (tmp_path / name for name in ("whole", "after1", "after2"))
    copy_after_epoch(monkeypatch, folder, 1)
    assert train.main([*words, f"--output_dir={whole}"]) == 0
    process = subprocess.Popen(
        command(*words, "--workers=2", f"--output_dir={folder}"), stderr=subprocess.PIPE, text=True
    )
    wait_until(process, (folder / "checkpoint" / "epoch00002.json").exists, 200)
    shutil.copytree(folder, later, ignore=shutil.ignore_patterns(".*", "epoch00003*"))
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0 and "resuming after epoch 1 of 3" in errors, errors
    assert_same(folder, whole)
    done = run(*words, f"--output_dir={later}")
    assert done.returncode == 0 and "resuming after epoch 2 of 3" in done.stderr, done.stderr
    assert_same(later, whole)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "neither TF_CONFIG nor Slurm"),
        ({"TF_CONFIG": "{"}, "TF_CONFIG: must be such as"),
        ({"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}'},
         "no task worker 1"),
        ({"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}'},
         "no task ps 0"),
        ({"TF_CONFIG": '{"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}'},
         "TF_CONFIG: must be such as .*the addresses of a cluster are lists"),
    ],
)  # fmt: skip
def test_a_cluster_that_is_told_of_badly(environment, message):
    with pytest.raises(UserError, match=message):
        strategies.cluster(environment)


def test_mistakes_are_told_of_in_one_line(voc, tmp_path):
    for words, message in (
        (["--strategy=multi_worker"], "neither TF_CONFIG"),
        (["--devices=2"], "--devices=2: needs --strategy"),
        (["--strategy=mirrored", "--workers=2"], "--workers: means --strategy=multi_worker"),
        (["--shuffle_groups=6"], "--shuffle_groups"),
    ):
        done = run(*flags(voc, **SAME), *words, f"--output_dir={tmp_path / 'run'}")
        assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
        assert message in done.stderr


def test_the_launcher_tells_a_mistake_of_all_workers_once(voc, tmp_path):
    words = [*flags(voc, **SAME), "--initial_banks=/no/run", f"--output_dir={tmp_path / 'run'}"]
    done = run(*words, "--workers=2")
    assert done.returncode == 1 and done.stderr.count("/no/run: no run here") == 1, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@fault(
    "Runs that are stopped", "SIGTERM while several workers train",
    "sent to the launcher of two and to these",
    "all save at one step and say so, code 143; the same command goes on",
)  # fmt: skip
def test_workers_stop_together(voc, tmp_path):
    folder = tmp_path / "run"
    words = [*flags(voc, **SAME), f"--output_dir={folder}", "--workers=2", "--epochs=40"]
    process = subprocess.Popen(
        command(*words), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_until(process, lambda: has_checkpoint(folder), 200)
    os.killpg(process.pid, signal.SIGTERM)  # the launcher tells the workers once more
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 143, errors
    told = [line for line in errors.splitlines() if "terminated: saved after " in line]
    assert len(told) == 2 and told[0].split("saved")[1] == told[1].split("saved")[1]
    assert errors.splitlines()[-1] == "terminated: the same command goes on"


def test_a_lost_worker_is_told_whatever_was_made_of_it(monkeypatch):
    monkeypatch.setattr(replicas, "this_shard", lambda: Shard(0, 2))
    with (
        pytest.raises(UserError, match=r"^another worker is gone \(Collective ops is aborted by"),
        strategies.telling_lost_workers("start all again"),
    ):
        try:
            raise tf.errors.UnavailableError(None, None, "Collective ops is aborted by: peer 1")
        except tf.errors.OpError as error:
            raise UserError("network.keras: Keras cannot load it") from error
    with (
        pytest.raises(UserError, match="^network.keras: Keras cannot load it"),
        strategies.telling_lost_workers("start all again"),
    ):
        raise UserError("network.keras: Keras cannot load it") from ValueError("not a zip")
