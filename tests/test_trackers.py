"""--tracker: what MLflow and W&B are told, across kills and faults, and that numbers stay."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import warm_process
from conftest import CLASSES, RESUMED, command, flags, run
from saved_runs import assert_equal_runs, history, kill_at, wait_until

from spml_tf import train
from spml_tf.runs import trackers
from spml_tf.system.errors import UserError
from spml_tf.system.optional_packages import needed

# SQLAlchemy's, of how MLflow declares its tables.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")

SHORT = {"method": "an", "epochs": 3}


@pytest.fixture(autouse=True)
def local(tmp_path, monkeypatch):
    """Stores in a folder of the test's own, nobody's login, and no reports of use."""
    pytest.importorskip("mlflow", reason="needs the extra [mlflow]")
    pytest.importorskip("wandb", reason="needs the extra [wandb]")
    for name in [x for x in os.environ if x.startswith(("MLFLOW_", "WANDB_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.chdir(tmp_path)


def client():
    import mlflow

    return mlflow.MlflowClient(os.environ["MLFLOW_TRACKING_URI"])


def runs_of_mlflow(experiment: str = "spml_tf"):
    number = client().get_experiment_by_name(experiment).experiment_id
    return client().search_runs([number])


def logged(number: str, name: str) -> dict[int, float]:
    """A metric by step; each step is there once."""
    found = client().get_metric_history(number, name)
    assert len({one.step for one in found}) == len(found)
    return {one.step: one.value for one in found}


def assert_epochs(number: str, folder: Path) -> None:
    """Every number of history.csv is in MLflow at its epoch."""
    for name, texts in history(folder).items():
        if name != "epoch":
            expected = {step: float(x) for step, x in enumerate(texts, start=1) if x}
            assert logged(number, name) == pytest.approx(expected, rel=1e-12), name


@pytest.mark.slow
def test_mlflow_follows_a_run_that_is_killed_and_interrupted(voc, finished, tmp_path):
    """kill -9, Ctrl-C, then to the end: one run of MLflow, whole, the same arrays as without."""
    folder = tmp_path / "killed"
    words = [*flags(voc, **RESUMED), f"--output_dir={folder}", "--tracker=mlflow"]

    def rows() -> int:
        path = folder / "history.csv"
        return len(path.read_text().splitlines()) - 1 if path.exists() else 0

    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    kill_at(subprocess.Popen(command(*words), **silent), lambda: rows() >= 1)
    assert [one.info.status for one in runs_of_mlflow()] == ["RUNNING"]
    process = subprocess.Popen(command(*words), **silent)
    wait_until(process, lambda: rows() >= 2)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert [one.info.status for one in runs_of_mlflow()] == ["KILLED"]
    last = run(*words, new_python=True)
    assert last.returncode == 0, last.stderr
    assert_equal_runs(finished, folder)

    (found,) = runs_of_mlflow()
    number = found.info.run_id
    assert (found.info.status, found.info.run_name) == ("FINISHED", "killed")
    assert json.loads((folder / "tracker.json").read_text()) == {
        "mlflow": {"run": number, "epochs": 5}
    }
    assert_epochs(number, folder)
    parameters, record = found.data.params, json.loads((folder / "run.json").read_text())
    assert parameters["bank_dtype"] == "uint8" and parameters["images_train"] == "19"
    assert float(parameters["positives_per_image"]) == record["positives_per_image"]
    expected = {name: str(x) for name, x in record["flags"].items() if x is not None}
    assert expected.items() <= parameters.items()
    assert found.data.tags["data_fingerprint"] == record["data_fingerprint"]
    assert found.data.tags["version_keras"] == record["versions"]["keras"]
    results = json.loads((folder / "metrics.json").read_text())
    for split in ("val", "test"):
        assert logged(number, f"best/{split}_map") == {
            results["best_epoch"]: pytest.approx(results[split]["map"])
        }
        for name in CLASSES:
            (value,) = logged(number, f"best/{split}_ap/{name}").values()
            assert value == pytest.approx(results[split]["ap"][name])
    assert {x.path for x in client().list_artifacts(number)} == {
        "flags.txt", "metrics.json", "run.json"
    }  # fmt: skip
    kept = client().download_artifacts(number, "metrics.json", str(tmp_path))
    assert Path(kept).read_bytes() == (folder / "metrics.json").read_bytes()

    before = (tmp_path / "mlflow.db").read_bytes()
    again = run(*words, new_python=True)
    assert again.returncode == 0 and "best epoch" in again.stdout
    assert (tmp_path / "mlflow.db").read_bytes() == before


@pytest.mark.slow
def test_faults_while_training_are_one_note_and_nothing_is_lost(voc, tmp_path, monkeypatch, capsys):
    """The store fails after the first epoch, then answers again. A flag of more than 500 characters
    is cut."""
    import mlflow

    deep = tmp_path.joinpath(*["d" * 200] * 3)
    deep.mkdir(parents=True)
    (deep / "voc").symlink_to(voc)
    words = flags(deep / "voc", **SHORT)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    real, calls = mlflow.MlflowClient.log_batch, []

    def failing(self, run_id, metrics=(), params=(), **others):
        if metrics:
            calls.append(metrics[0].step)
            if len(calls) in (2, 3):
                raise ConnectionError("the store\nis away")
        return real(self, run_id, metrics=metrics, params=params, **others)

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", failing)
    assert train.main([*words, "--tracker=mlflow", f"--output_dir={tmp_path / 'faulty'}"]) == 0
    shown = capsys.readouterr()
    notes = re.findall(r"^note: --tracker=mlflow: .*$", shown.err, re.M)
    assert len(notes) == 1 and "the store is away; the run goes on" in notes[0]
    assert calls[:5] == [1, 2, 2, 2, 3]
    (found,) = runs_of_mlflow("mine")
    assert found.info.status == "FINISHED"
    assert_epochs(found.info.run_id, tmp_path / "faulty")
    assert len(found.data.params["data_dir"]) == 500
    assert found.data.params["data_dir"].endswith("... (cut: flags.txt has all)")

    plain = run(*words, f"--output_dir={tmp_path / 'plain'}")
    assert plain.returncode == 0, plain.stderr
    assert not (tmp_path / "plain" / "tracker.json").exists()
    assert_equal_runs(tmp_path / "plain", tmp_path / "faulty")


def records_of_wandb(folder: Path) -> list:
    """What an offline run of W&B wrote: records of protobuf in the log format of LevelDB."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.glob("run-*.wandb")
    data, at, whole, found = file.read_bytes(), 7, b"", []
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            found.append(Record.FromString(whole))
            whole = b""
    return found


def items(record) -> dict[str, object]:
    return {x.key or ".".join(x.nested_key): json.loads(x.value_json) for x in record}


class Flaky(trackers._Client):
    """A tracker that is away when the results come for the first time."""

    told: ClassVar[list[str]] = []

    def begin(self, about, known):
        self.told.append(f"begin {known}")
        return known or "7"

    def log(self, values, step):
        self.told.append(f"epoch {step}")

    def summarise(self, values, step):
        if "results" not in self.told and not self.told.count("away"):
            self.told.append("away")
            raise ConnectionError("the store is away")
        self.told.append("results")

    def add_file(self, path):
        self.told.append(path.name)

    def end(self, status):
        self.told.append(status)

    def place(self):
        return "here"


def test_results_that_could_not_be_sent_are_sent_by_the_same_command(
    voc, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(trackers._CLIENTS, "mlflow", Flaky)
    monkeypatch.setattr(Flaky, "told", [])
    words = [*flags(voc, **SHORT, tracker="mlflow"), f"--output_dir={tmp_path / 'run'}"]
    assert train.main(words) == 0
    begun = ["begin None", "flags.txt", "run.json", "epoch 1", "epoch 2", "epoch 3", "away"]
    assert Flaky.told == begun
    assert "and once it is finished by the same command" in capsys.readouterr().err
    for _ in range(2):  # the second time there is nothing to tell
        assert train.main(words) == 0
        assert Flaky.told == [*begun, "begin 7", "results", "metrics.json", "FINISHED"]


def test_a_finished_run_without_its_checkpoint_is_sent_from_its_history(
    voc, finished, tmp_path, monkeypatch, capsys
):
    """In history.csv cells are blank in epochs before the selection has begun."""
    monkeypatch.setitem(trackers._CLIENTS, "mlflow", Flaky)
    monkeypatch.setattr(Flaky, "told", ["away"])
    folder = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(folder / "checkpoint")
    assert "" in history(folder)["selected"]
    words = [*flags(voc, **RESUMED, tracker="mlflow"), f"--output_dir={folder}"]
    assert train.main(words) == 0
    epochs = [f"epoch {number}" for number in range(1, 6)]
    sent = [word for word in Flaky.told if word.startswith(("epoch", "results", "FINISHED"))]
    assert sent == [*epochs, "results", "FINISHED"] and "note" not in capsys.readouterr().err


@pytest.mark.slow
def test_wandb_offline_after_mlflow(voc, tmp_path, monkeypatch):
    """A run that begins with one tracker goes on with the other, which gets all its epochs."""
    folder = tmp_path / "both"
    words = [*flags(voc, **{**SHORT, "epochs": 200}), f"--output_dir={folder}"]
    process = subprocess.Popen(
        command(*words, "--tracker=mlflow"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_until(process, lambda: (folder / "history.csv").exists())
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    epochs = len(history(folder)["epoch"])
    monkeypatch.setenv("WANDB_MODE", "offline")
    process = subprocess.Popen(
        command(*words, "--tracker=wandb"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True, start_new_session=True,
    )  # fmt: skip
    wait_until(process, lambda: len(history(folder)["epoch"]) > epochs)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, which tells W&B's process too
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    (offline,) = (tmp_path / "wandb").glob("offline-run-*")
    assert f"tracker: wandb, offline, `wandb sync {offline}` sends it\n" in output
    known = json.loads((folder / "tracker.json").read_text())
    assert set(known) == {"mlflow", "wandb"} and offline.name.endswith(known["wandb"]["run"])

    records = records_of_wandb(offline)
    (begun,) = [x.run for x in records if x.HasField("run")][:1]
    assert (begun.display_name, begun.project) == ("both", "spml_tf")
    config = items(begun.config.update)
    assert config["method"] == "an" and config["epochs"] == 200
    rows = [(x.history.step.num, items(x.history.item)) for x in records if x.HasField("history")]
    columns = history(folder)
    assert [step for step, _ in rows] == [int(x) for x in columns["epoch"]]
    for number, (_, values) in enumerate(rows):
        expected = {k: float(x[number]) for k, x in columns.items() if k != "epoch" and x[number]}
        assert {k: x for k, x in values.items() if k[0] != "_"} == pytest.approx(expected)
    exits = [x.exit.exit_code for x in records if x.HasField("exit")]
    assert exits == [1]
    assert {x.name for x in (offline / "files").iterdir()} >= {"flags.txt", "run.json"}


@pytest.mark.slow
def test_results_in_wandb(voc, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_PROJECT", "other")
    folder = tmp_path / "whole"
    done = run(
        *flags(voc, method="an", epochs=1), "--tracker=wandb", f"--output_dir={folder}",
        new_python=True,
    )  # fmt: skip
    assert done.returncode == 0 and "wandb" not in done.stderr, done.stderr
    (offline,) = (tmp_path / "wandb").glob("offline-run-*")
    records = records_of_wandb(offline)
    assert next(x.run.project for x in records if x.HasField("run")) == "other"
    found = {}
    for record in records:
        if record.HasField("summary"):
            found |= items(record.summary.update)
    results = json.loads((folder / "metrics.json").read_text())
    assert found["best/test_map"] == pytest.approx(results["test"]["map"])
    assert found["best/val_ap/dog"] == pytest.approx(results["val"]["ap"]["dog"])
    assert [x.exit.exit_code for x in records if x.HasField("exit")] == [0]
    assert (offline / "files" / "metrics.json").exists()


@pytest.mark.slow
def test_each_round_is_a_run(voc, tmp_path):
    words = flags(voc, method="en", epochs=1, selection_start_epoch=1, tracker="mlflow")
    done = run(*words, "--rounds=2", f"--output_dir={tmp_path / 'all'}", new_python=True)
    assert done.returncode == 0, done.stderr
    names = {one.info.run_name: one.info.run_id for one in runs_of_mlflow()}
    assert set(names) == {"all_round_1", "all_round_2"}
    for name, number in names.items():
        assert_epochs(number, tmp_path / "all" / name.removeprefix("all_"))


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_library_that_is_missing_is_named_before_any_work(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, name, None)
    assert train.main([f"--tracker={name}", f"--output_dir={tmp_path / 'run'}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: --tracker={name}: needs {name}, which is not installed: ")
    assert f"'spml_tf[{name}]'" in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_folder_of_the_librarys_name_is_not_the_library(tmp_path, monkeypatch):
    (tmp_path / "left_by_a_tracker").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="needs left_by_a_tracker"):
        needed("left_by_a_tracker", "x", "--tracker=x")


@pytest.mark.parametrize(
    ("name", "environment", "says"),
    [
        ("mlflow", {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}, "API request to http://127"),
        ("mlflow", {"MLFLOW_TRACKING_URI": "imaginary://x"}, "imaginary://x"),
        ("mlflow", {"MLFLOW_EXPERIMENT_ID": "77"}, "No Experiment with id=77"),
        ("wandb", {}, "no API key: run `wandb login`"),
        pytest.param(
            "wandb",
            {"WANDB_API_KEY": "a" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"},
            "127.0.0.1",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_tracker_that_cannot_be_reached_ends_it_before_training(
    voc, tmp_path, monkeypatch, name, environment, says
):
    """On a terminal, which W&B would ask for a key."""
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    folder = tmp_path / "run"
    ours, theirs = pty.openpty()
    done = subprocess.run(
        command(*flags(voc, **SHORT), f"--tracker={name}", f"--output_dir={folder}"),
        stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, text=True, timeout=120,
    )  # fmt: skip
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"error: --tracker={name}: ") and says in line
    assert "Traceback" not in done.stderr and not (folder / "history.csv").exists()


def test_a_run_that_the_tracker_does_not_know_is_told_of(voc, tmp_path):
    """The run was begun on another server, say."""
    folder = tmp_path / "run"
    words = [*flags(voc, **SHORT), "--tracker=mlflow", f"--output_dir={folder}"]
    process = warm_process.Process("spml_tf.train", words)
    kill_at(process, lambda: (folder / "tracker.json").exists())
    known = json.loads((folder / "tracker.json").read_text())
    for text, says in (
        (json.dumps({"mlflow": {**known["mlflow"], "run": "0" * 32}}), "Run with id=000"),
        ("[]", "cannot be read; delete it"),
    ):
        (folder / "tracker.json").write_text(text)
        done = run(*words)
        assert done.returncode == 1 and says in done.stderr.splitlines()[-1]
        assert str(folder / "tracker.json") in done.stderr


def test_rates_are_not_tracked(tmp_path, capsys):
    words = ["--find_learning_rate", "--tracker=mlflow", f"--output_dir={tmp_path / 'run'}"]
    assert train.main(words) == 1
    assert "--find_learning_rate: trains no run to track" in capsys.readouterr().err
