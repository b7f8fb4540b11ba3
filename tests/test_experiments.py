"""The command that runs plans: its files, resumption, refusals."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
import types
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import IO

import pytest
import warm_process
from conftest import command, flags
from conftest import run as run_command
from PIL import Image
from saved_runs import change_flags, has_checkpoint, table_rows, wait_until

from spml_tf import experiments
from spml_tf.plans import training_queue
from spml_tf.runs.run_folder import RunFolder
from spml_tf.runs.settings import Settings, resolve
from spml_tf.system import files, locks
from spml_tf.system.errors import UserError

SEARCHED = """
[search]
seed = 5
epochs = 1
flag_grid = { learning_rate = [0.001, 0.01] }
[[rows]]
name = "an"
method = "an"
[[rows]]
name = "en"
method = "en"
flag_grid = { batch_size = [5, 6] }
[[rows]]
name = "again"
method = "en"
after = "en"
"""


def tiny(voc: Path, path: Path, text: str) -> Path:
    """A plan on the tree of coloured squares."""
    words = [word.removeprefix("--").split("=", 1) for word in flags(voc, epochs=2)]
    common = [f'{k} = "{v}"' for k, v in words if k not in ("threads", "data_dir")]
    head = ['title = "Tiny"', "seeds = [0]", "[flags]", *common]
    path.write_text("\n".join(head) + "\n" + text)
    return path


def words(plan: Path, folder: Path, voc: Path, *others: str) -> list[str]:
    return [f"--plan={plan}", f"--output_dir={folder}", f"--data_dir={voc}", *others]


def main(*given: str) -> int:
    """The command in this process; the runs are processes all the same."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        return experiments.main(list(given))
    finally:
        signal.signal(signal.SIGTERM, handler)


class Forked(warm_process.Process):
    """What the queue starts, as a fork; what it has written is added to its log when it ends."""

    stdin = None

    def __init__(self, given: list[str], stdout: IO[bytes], env: dict[str, str], **_: int) -> None:
        module, *others = given[given.index("spml_tf.system.child_process") + 1 :]
        super().__init__(module, others, env=env)
        self.log = stdout

    def wait(self, timeout: float | None = None) -> int:
        before, code = self.returncode, super().wait(timeout)
        if before is None:
            self.log.write("".join(self.communicate()).encode())
        return code

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def forking(patch: pytest.MonkeyPatch) -> None:
    """The queue's runs need not import TensorFlow."""
    others = {name: getattr(subprocess, name) for name in ("PIPE", "STDOUT", "TimeoutExpired")}
    patch.setattr(training_queue, "subprocess", types.SimpleNamespace(Popen=Forked, **others))


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of each file but the lock and the digests of the others."""
    left_out = (".lock", files.RECORD)
    found = {p: p.stat() for p in folder.rglob("*") if p.is_file() and p.name not in left_out}
    return {str(p.relative_to(folder)): (x.st_size, x.st_mtime_ns) for p, x in found.items()}


def children(folder: Path) -> list[int]:
    """Processes that train into a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            given = path.read_bytes().decode().split("\0")
        except OSError:
            continue  # it has ended
        if any(x.startswith(f"--output_dir={folder}/") for x in given):
            found.append(int(path.parent.name))
    return found


@pytest.fixture(scope="module")
def whole(voc, tmp_path_factory) -> Path:
    """A finished experiment: four trials, three runs."""
    folder = tmp_path_factory.mktemp("experiments")
    plan = tiny(voc, folder / "tiny.toml", SEARCHED)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as said:
        forking(patch)
        assert main(*words(plan, folder / "out", voc, "--processes=2")) == 0
    lines = said.getvalue().splitlines()
    assert len([x for x in lines if x.startswith("start ")]) == 7
    assert len([x for x in lines if x.startswith("done ")]) == 7
    assert lines[-1] == f"results in {folder / 'out' / 'tiny.md'}"
    return folder


@pytest.fixture
def copied(whole, tmp_path) -> Path:
    """The finished plan and folder again, at a place where the test may spoil it; banks are known
    by their place, so the row that follows is not in it."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "out" / "runs" / "again_0")
    return tmp_path


def test_what_a_finished_experiment_holds(whole):
    out = whole / "out"
    rows = table_rows(out / "tiny.csv")
    assert [row["row"] for row in rows] == ["an", "en", "again"]
    assert list(rows[0])[:9] == [
        "dataset", "method", "row", "seed", "val_map", "test_map", "best_epoch", "seconds", "commit"
    ]  # fmt: skip
    record = json.loads((out / "tiny_search.json").read_text())
    for name, flag in (("an", "learning_rate"), ("en", "batch_size")):
        trials = record[name]["trials"]
        for trial in trials:
            value = trial["flags"][flag]
            path = out / "search" / f"{name}_{flag}-{value}" / "metrics.json"
            assert trial["val_map"] == json.loads(path.read_text())["val"]["map"]
        best = max(trials, key=lambda trial: trial["val_map"])
        assert len(trials) == 2 and record[name]["chosen"] == best["flags"]
        for row in rows:
            if row["row"] in (name, "again" if name == "en" else name):
                flags_of = json.loads((out / "runs" / f"{row['row']}_0/run.json").read_text())
                assert str(flags_of["flags"][flag]) == row[flag] == best["flags"][flag]
    again = json.loads((out / "runs" / "again_0" / "run.json").read_text())["flags"]
    assert again["initial_banks"] == str(out / "runs" / "en_0")
    trial = json.loads((out / "search" / "en_batch_size-6" / "run.json").read_text())["flags"]
    assert (trial["epochs"], trial["seed"], trial["threads"]) == (1, 5, 1)
    commits = json.loads((out / "commits.json").read_text())
    assert len(commits) == 7 and rows[0]["commit"] == commits["runs/an_0"][0]
    text = (out / "tiny.md").read_text()
    assert text.startswith("# Tiny\n") and "--plan=tiny.toml --output_dir=DIR" in text
    assert (
        str(whole) not in text
        and re.search(r"- 3 runs, [\d.]+ minutes of training in all", text)
        and "Search: 4 runs" in text
    )
    with Image.open(out / "tiny.png") as image:
        assert image.format == "PNG"
    ElementTree.parse(out / "tiny.svg")


@pytest.mark.slow
def test_a_run_is_that_of_the_training_command(whole, voc, tmp_path):
    rate = json.loads((whole / "out" / "tiny_search.json").read_text())["an"]["chosen"]
    done = run_command(
        *flags(voc, epochs=2, method="an", seed=0, **rate), f"--output_dir={tmp_path / 'r'}"
    )
    assert done.returncode == 0, done.stderr
    metrics = (tmp_path / "r" / "metrics.json").read_bytes()
    assert metrics == (whole / "out" / "runs" / "an_0" / "metrics.json").read_bytes()
    row = table_rows(whole / "out" / "tiny.csv")[0]
    assert float(row["test_map"]) == round(json.loads(metrics)["test"]["map"], 3)


def test_the_same_command_trains_nothing_again(whole, voc, capsys):
    before = contents(whole / "out")
    assert main(*words(whole / "tiny.toml", whole / "out", voc, "--processes=2")) == 0
    said = capsys.readouterr().out
    assert "4 of 4 runs are finished\n3 of 3 runs are finished\n" in said and "start" not in said
    after = contents(whole / "out")
    assert after.keys() == before.keys()
    assert {x for x in after if after[x] != before[x]} <= {
        f"tiny{ending}" for ending in (".csv", ".md", ".png", ".svg", "_search.json")
    }


@pytest.mark.parametrize(
    "old, new, difference",
    [
        ('image_size = "32"', 'image_size = "40"', "--image_size was 32 and is 40"),
        # Nothing of the search changes, and the run that does is of a row that is left out.
        ('method = "en"\nafter', 'method = "ep"\nafter', "--method was en and is ep"),
    ],
    ids=["of trials", "of a row left out"],
)
def test_a_changed_plan_is_refused(whole, voc, tmp_path, capsys, old, new, difference):
    text = (whole / "tiny.toml").read_text()
    assert text.count(old) == 1
    (tmp_path / "tiny.toml").write_text(text.replace(old, new))
    before = contents(whole / "out")
    assert main(*words(tmp_path / "tiny.toml", whole / "out", voc, "--only=an")) == 1
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and not said.out
    assert "holds a run with other flags than the plan's" in said.err and difference in said.err
    assert contents(whole / "out") == before


def test_rows_that_were_searched_elsewhere_are_not_searched(copied, voc, capsys):
    """The row `an` takes its rate from the file, the row `en` has its trials in the folder."""
    out, elsewhere = copied / "out", copied / "elsewhere_search.json"
    found = json.loads((out / "tiny_search.json").read_text())
    elsewhere.write_text(json.dumps({"an": found["an"], "not of this plan": {}}))
    (out / "tiny_search.json").unlink()
    for trial in out.glob("search/an_*"):
        shutil.rmtree(trial)
    given = [f"--searched={elsewhere}", "--only=an,en"]
    assert main(*words(copied / "tiny.toml", out, voc, *given)) == 0
    said = capsys.readouterr().out
    assert "2 of 2 runs are finished\n2 of 2 runs are finished\n" in said and "start" not in said
    assert json.loads((out / "tiny_search.json").read_text()) == found
    text = (out / "tiny.md").read_text()
    assert re.search(r"Search: 2 runs, [\d.]+ minutes; of earlier searches: an\n", text)
    assert "--searched=elsewhere_search.json" in text and str(copied) not in text


def test_searches_of_other_trials_are_refused(copied, voc, capsys):
    path = copied / "out" / "tiny_search.json"
    plan = copied / "tiny.toml"
    plan.write_text(plan.read_text().replace("batch_size = [5, 6]", "batch_size = [5, 7]"))
    before = contents(copied / "out")
    assert main(*words(plan, copied / "out", voc, f"--searched={path}")) == 1
    said = capsys.readouterr()
    assert said.err == (
        f"error: {path}: row en: has the trials batch_size=5; batch_size=6, the plan's are "
        "batch_size=5; batch_size=7; search again without --searched, or change the plan's "
        "flag_grid\n"
    )
    assert not said.out and contents(copied / "out") == before


def record_of(known: dict) -> dict:
    """run.json of a run with such flags."""
    return {"flags": known, "data_fingerprint": "", "class_names": [], "images": {}}


def test_a_flag_that_a_run_of_an_older_version_did_not_know(tmp_path):
    """It had the flag's default, for a plan as for the command that trains."""
    settings = resolve(Settings(dataset="digits", method="en"))
    known = dataclasses.asdict(settings)
    for name in ("colour_changes", "pseudo_label_warmup_epochs"):  # 0, and half of the epochs
        del known[name]
    (tmp_path / "run.json").write_text(json.dumps(record_of(known)))
    job = training_queue.Job("en_0", settings, RunFolder(tmp_path), tmp_path / "log")
    training_queue.check_folders([job])
    changed = dataclasses.replace(job, settings=dataclasses.replace(settings, colour_changes=2))
    with pytest.raises(UserError, match=r"\(--colour_changes was 0 and is 2\)"):
        training_queue.check_folders([changed])


def test_results_that_were_moved_go_on(tmp_path):
    """A row that follows another names its folder, which has moved with it."""
    old, new = tmp_path / "old" / "runs", tmp_path / "new" / "runs"
    settings = resolve(Settings(dataset="digits", method="en", initial_banks=str(old / "en_0")))
    (new / "round2_0").mkdir(parents=True)
    known = record_of(dataclasses.asdict(settings))
    (new / "round2_0" / "run.json").write_text(json.dumps(known))
    found = RunFolder(new / "round2_0")

    def changed(name: str) -> list[str]:
        return found.changed_flags(dataclasses.replace(settings, initial_banks=str(new / name)))

    assert changed("en_0") == []
    assert len(changed("en_1")) == 1
    (old / "en_0").mkdir(parents=True)  # it was not moved
    assert len(changed("en_0")) == 1


def test_two_commands_in_one_folder_are_refused(whole, voc, capsys):
    before = contents(whole / "out")
    with locks.locked(whole / "out" / ".lock", "cannot happen"):
        assert main(*words(whole / "tiny.toml", whole / "out", voc)) == 1
    error = f"error: --output_dir={whole / 'out'}: another process works here\n"
    assert capsys.readouterr().err == error
    assert contents(whole / "out") == before


def test_mistakes_on_the_command_line(whole, voc, tmp_path, capsys):
    """Each is one line, and no folder is made."""
    plan, new = whole / "tiny.toml", tmp_path / "new"
    wrong = tiny(voc, tmp_path / "wrong.toml", '[[rows]]\nname = "a"\nmethod = "anx"\n')
    range_ = tiny(
        voc, tmp_path / "r.toml", '[[rows]]\nname = "a"\nmethod = "an"\nflags.ema_momentum = 2\n'
    )
    taken = tmp_path / "file"
    taken.write_text("")
    for words_given, message in (
        ([], "--plan is missing"),
        ([f"--plan={plan}"], "--output_dir is missing"),
        ([f"--plan={plan}", f"--output_dir={new}"], f"{plan}: an_learning_rate-0.001: --data_dir"),
        (words(tmp_path / "none", new, voc), f"{tmp_path / 'none'}: unknown; --list_presets"),
        (words(plan, new, voc, "--processes=0"), "--processes=0: must lie between"),
        (words(plan, new, voc, "--only=an,x"), "there is no row or method 'x'; rows: an, en"),
        (words(wrong, new, voc), f"{wrong}: rows[0].method: "),
        (words(range_, new, voc), f"{range_}: a_0: --ema_momentum=2.0: must lie between"),
        (words(plan, taken, voc), f"--output_dir={taken}: cannot be written"),
    ):
        assert main(*words_given) == 1
        said = capsys.readouterr().err
        assert said.startswith("error: ") and message in said and said.count("\n") == 1
        assert not new.exists()


@pytest.mark.slow
def test_stopped_in_any_way_it_leaves_no_run_behind_and_goes_on(copied, voc, whole, capsys):
    """kill -9 once an epoch is written, then `kill`, then Ctrl-C, then to the end, which is that of
    the run that nobody stopped."""
    out = copied / "out"
    given = words(copied / "tiny.toml", out, voc)
    commits = out / "commits.json"
    note_commit(commits, "of the run that was removed")
    kill_after_an_epoch(command(*given, module="experiments"), out / "runs" / "again_0")
    deadline = time.monotonic() + 20
    while children(out) and time.monotonic() < deadline:  # it sees that nobody waits for it
        time.sleep(0.01)
    assert not children(out) and not (out / "runs" / "again_0" / "metrics.json").exists()
    (own,) = json.loads(commits.read_text())["runs/again_0"]
    assert own != "of the run that was removed"
    note_commit(commits, "of the run that goes on")
    for number in (signal.SIGTERM, signal.SIGINT):
        (out / "tiny.png").unlink(missing_ok=True)
        thread = threading.Thread(target=signal_when_training, args=(out, number))
        thread.start()
        assert main(*given) == 130
        thread.join()
        assert not children(out)
        error = "interrupted: the same command goes on where this one stopped\n"
        assert capsys.readouterr().err == error
        assert (out / "tiny.png").exists()  # of the runs that are finished
    assert main(*given) == 0
    assert "resuming after epoch" in (out / "logs" / "runs" / "again_0.log").read_text()
    for name in ("metrics.json", "flags.txt"):
        first, second = ((x / "runs" / "again_0" / name).read_text() for x in (whole / "out", out))
        assert first.replace(str(whole), str(copied)) == second
    assert json.loads(commits.read_text())["runs/again_0"] == ["of the run that goes on", own]


def note_commit(path: Path, commit: str) -> None:
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | {"runs/again_0": [commit]}))


def kill_after_an_epoch(given: list[str], run_folder: Path) -> None:
    with subprocess.Popen(given, stdout=subprocess.DEVNULL) as process:
        wait_until(process, lambda: has_checkpoint(run_folder))
        assert children(run_folder.parent.parent)
        process.kill()
    assert process.returncode == -signal.SIGKILL


def signal_when_training(out: Path, number: int) -> None:
    """Sends this process a signal once a run of its own is there."""
    deadline = time.monotonic() + 60
    while not children(out) and time.monotonic() < deadline:
        time.sleep(0.01)
    if children(out):  # else the command is not there to be stopped, and pytest would be
        os.kill(os.getpid(), number)


def test_a_signal_during_a_start_waits_until_the_process_is_known(tmp_path, monkeypatch):
    """The start sends it itself: still the queue ends the process, and Ctrl-C comes through."""
    started = []

    def start(job, number, place, environment):
        os.kill(os.getpid(), signal.SIGINT)
        process = subprocess.Popen(["sleep", "60"], stdin=subprocess.PIPE)
        started.append(process)
        return training_queue._Process(job, process, open(tmp_path / "log", "ab"), 0, 0.0, place)

    monkeypatch.setattr(training_queue, "_start", start)
    job = training_queue.Job("x", None, RunFolder(tmp_path / "x"), tmp_path / "log")
    with pytest.raises(KeyboardInterrupt):
        training_queue.work([job], 1, lambda job: None, lambda job: None)
    assert [process.poll() for process in started] == [-signal.SIGTERM]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(
    ("gpus", "visible", "processes", "expected"),
    [
        (0, None, 2, [{}, {}]),
        (4, None, 1, [{}]),
        (4, None, 2, [{"CUDA_VISIBLE_DEVICES": "0,1"}, {"CUDA_VISIBLE_DEVICES": "2,3"}]),
        (3, "7,5,1", 2, [{"CUDA_VISIBLE_DEVICES": "7"}, {"CUDA_VISIBLE_DEVICES": "5"}]),
        (1, "6", 2, [{"CUDA_VISIBLE_DEVICES": "6", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}] * 2),
    ],
)
def test_gpus_are_dealt_out_to_runs_at_a_time(
    gpus, visible, processes, expected, tmp_path, monkeypatch
):
    """Three runs, two places at most: the third run takes the place that is free again."""
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda kind: [kind] * gpus)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    seen = []

    def start(job, number, place, environment):
        seen.append((place, environment))
        seconds = "0" if job.name == "1" else "1"  # the second is the first to end
        process = subprocess.Popen(["sleep", seconds], stdin=subprocess.PIPE)
        return training_queue._Process(job, process, open(job.log, "ab"), 0, 0.0, place)

    monkeypatch.setattr(training_queue, "_start", start)
    jobs = [
        training_queue.Job(name, None, RunFolder(tmp_path / name), tmp_path / f"{name}.log")
        for name in "012"
    ]
    training_queue.work(jobs, processes, lambda job: None, lambda job: None)
    places = [0, 1, 1] if processes == 2 else [0, 0, 0]
    assert seen == [(place, expected[place]) for place in places]


@pytest.mark.parametrize("words", [["--workers=2"], ["--strategy=mirrored", "--devices=3"]])
def test_more_than_a_run_sees_of_the_gpus_is_refused(words, tmp_path, monkeypatch, capsys):
    """Of two GPUs each of two runs sees one; nothing is written."""
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda kind: [kind] * 2)
    out = tmp_path / "out"
    given = ["--plan=table1_digits", f"--output_dir={out}", "--processes=2", *words]
    assert experiments.main(given) == 1
    assert f"{words[-1]}: with --processes=2 a run sees 1 GPUs" in capsys.readouterr().err
    assert not out.exists()


FAILING = """
[[rows]]
name = "bad"
method = "an"
flags = { init_from = "nowhere" }
[[rows]]
name = "follower"
method = "en"
after = "bad"
[[rows]]
name = "an"
method = "an"
[[rows]]
name = "good"
method = "en"
flags = { epochs = 1 }
"""


def test_a_run_that_fails_leaves_the_others(copied, voc, monkeypatch, capsys):
    """Another plan in the same folder: its row `an` is the run that is there."""
    rate = json.loads((copied / "out" / "tiny_search.json").read_text())["an"]["chosen"]
    own = f'name = "an"\nmethod = "an"\nflags = {{ learning_rate = {rate["learning_rate"]} }}'
    text = FAILING.replace('name = "an"\nmethod = "an"', own)
    plan, out = tiny(voc, copied / "failing.toml", text), copied / "out"
    before = contents(out)
    forking(monkeypatch)
    assert main(*words(plan, out, voc, "--processes=2")) == 1
    said = capsys.readouterr()
    assert said.out.startswith("1 of 4 runs are finished\n") and "start  an_0" not in said.out
    lines = said.err.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("failed bad_0: ") and "nowhere: no run here" in lines[0]
    assert lines[0].endswith(f"(log: {out / 'logs' / 'runs' / 'bad_0.log'})")
    assert lines[1] == "failed follower_0: bad_0, which it follows, failed"
    assert lines[2] == "error: 2 runs failed; the same command tries them again"
    assert [row["row"] for row in table_rows(out / "failing.csv")] == ["an", "good"]
    after = contents(out)
    assert {x for x in before if after[x] != before[x]} == {"commits.json"}


def test_only_some_rows(copied, voc, capsys):
    """A run that is missing in another row is not trained, and not in the table."""
    assert main(*words(copied / "tiny.toml", copied / "out", voc, "--only=an")) == 0
    said = capsys.readouterr().out
    assert "2 of 2 runs are finished\n1 of 1 runs are finished\n" in said
    assert [row["row"] for row in table_rows(copied / "out" / "tiny.csv")] == ["an", "en"]


def test_rows_without_a_choice_are_not_in_the_table(copied, voc):
    """A trial more is in the plan than was run: what was chosen without it counts no more."""
    path = copied / "tiny.toml"
    text = path.read_text().replace("batch_size = [5, 6]", "batch_size = [5, 6, 7]")
    path.write_text(text.replace("[0.001, 0.01]", "[0.001, 0.01, 0.1]"))
    shutil.copytree(
        copied / "out" / "search" / "an_learning_rate-0.01",
        copied / "out" / "search" / "an_learning_rate-0.1",
    )
    change_flags(
        copied / "out" / "search" / "an_learning_rate-0.1",
        learning_rate=0.1, head_learning_rate=0.1, estimates_learning_rate=1.0,
    )  # fmt: skip
    assert main(*words(path, copied / "out", voc, "--only=an")) == 0
    found = json.loads((copied / "out" / "tiny_search.json").read_text())
    assert found["an"]["chosen"] is not None and found["en"]["chosen"] is None
    assert [row["row"] for row in table_rows(copied / "out" / "tiny.csv")] == ["an"]
