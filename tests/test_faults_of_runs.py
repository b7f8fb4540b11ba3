"""Runs that are stopped, killed or damaged: nothing is lost, or one line says what is."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import test_bad_inputs
from conftest import RESUMED, flags, run
from faults import fault
from saved_runs import assert_equal_runs, copy_after_epoch
from tiny_network import tiny_cam

from spml_tf import evaluate, export, networks, report, train
from spml_tf.runs import checkpoint_folder, recorder
from spml_tf.runs.run_folder import RunFolder
from spml_tf.system.errors import UserError

STOPS, FILES, TRAINING = "Runs that are stopped", "Files of a run", "Training"


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
        pytest.param(signal.SIGTERM, 143, "terminated", "on_train_batch_end", 2, 1,
                     "step 2 of epoch 3", marks=pytest.mark.slow),
        (signal.SIGTERM, 143, "terminated", "on_test_batch_end", 3, 0, "step 4 of epoch 4"),
        # Quick tests of training have Ctrl-C.
        *(
            pytest.param(signal.SIGINT, 130, "interrupted", "on_train_batch_end", *x,
                         marks=pytest.mark.slow)
            for x in ((0, 2, "step 3 of epoch 1"), (1, 3, "step 4 of epoch 2"))
        ),
    ],
)  # fmt: skip
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


@pytest.fixture(scope="module")
def third_epoch(voc, tmp_path_factory) -> Path:
    """The run of `finished` as kill -9 after its third epoch leaves it."""
    folder = tmp_path_factory.mktemp("third")
    with pytest.MonkeyPatch.context() as patch:
        copy_after_epoch(patch, folder / "killed", 3)
        assert train.main([*flags(voc, **RESUMED), f"--output_dir={folder / 'whole'}"]) == 0
    return folder / "killed"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    """Changes one bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garble(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 20)


DAMAGES = (empty, cut, flip, garble, Path.unlink)
NEWEST = "checkpoint/epoch00003"


@fault(
    FILES, "history.csv, network.keras or flags.txt is empty, cut, changed or gone",
    "before the run is resumed", "written again from the checkpoint; the same numbers, bit for bit",
)  # fmt: skip
@fault(
    FILES, "the newest checkpoint is empty, cut, has one bit changed, or is gone",
    "before the run is resumed", "a note names the file; the one before it goes on to the same "
    "numbers, bit for bit", "the epoch, which is trained again",
)  # fmt: skip
@pytest.mark.parametrize(
    ("damages", "epoch", "note"),
    [
        pytest.param(
            {"history.csv": empty, "network.keras": Path.unlink, "flags.txt": garble}, 3, "",
            marks=pytest.mark.slow,
        ),
        ({"history.csv": garble, "network.keras": flip, f"{NEWEST}.weights.h5": flip}, 2,
         "epoch00003.weights.h5: was changed or cut after it was written; going on from the one"),
    ],
)  # fmt: skip
def test_a_damaged_run_goes_on(voc, finished, third_epoch, tmp_path, damages, epoch, note):
    folder = shutil.copytree(third_epoch, tmp_path / "run")
    for name, damage in damages.items():
        damage(folder / name)
    done = run(*flags(voc, **RESUMED), f"--output_dir={folder}")
    assert done.returncode == 0, done.stderr
    assert f"resuming after epoch {epoch} of 5" in done.stderr and note in done.stderr
    assert_equal_runs(folder, finished)
    assert (folder / "flags.txt").read_text() == (finished / "flags.txt").read_text()


def test_one_process_mends_a_damaged_best_network(third_epoch, tmp_path):
    """Of several workers the first; the others go on as it says."""
    run_ = RunFolder(shutil.copytree(third_epoch, tmp_path / "run"))
    path, expected = run_.checkpoints.best_network()
    flip(path)
    assert run_.checkpoints.newest(to_train=True).progress.epochs == 3
    assert checkpoint_folder.damage(path, expected)
    assert run_.checkpoints.newest(to_train=True, mend=True).progress.epochs == 3
    assert not checkpoint_folder.damage(path, expected)


def test_what_kills_leave_half_written_goes_with_the_next_checkpoint(third_epoch, tmp_path):
    run_ = RunFolder(shutil.copytree(third_epoch, tmp_path / "run"))
    left = run_.checkpoints.path / ".unfinished-epoch00003_step00002.weights.h5"
    left.write_bytes(b"half")
    saved = run_.checkpoints.newest()
    names = [path.name for path in (saved.weights, *saved.metrics)]
    files = {name: checkpoint_folder.checksum(run_.checkpoints.path / name) for name in names}
    run_.checkpoints.add(saved.progress, files, saved.machine)
    assert not left.exists() and run_.checkpoints.newest().progress.epochs == 3


@pytest.mark.parametrize("name", [f"{NEWEST}.weights.h5", f"{NEWEST}.json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_of_a_checkpoint_is_noticed(third_epoch, tmp_path, capsys, name, damage):
    run_ = RunFolder(shutil.copytree(third_epoch, tmp_path / "run"))
    assert run_.checkpoints.newest(to_train=True).progress.epochs == 3
    damage(run_.path / name)
    assert run_.checkpoints.newest(to_train=True).progress.epochs == 2
    gone = name.endswith(".json") and damage is Path.unlink  # as kill -9 before it leaves it
    assert ("going on from the one before" in capsys.readouterr().err) != gone
    damage(run_.path / name.replace("3", "2"))
    if not gone:
        with pytest.raises(UserError, match="and no other checkpoint is whole; to train from the"):
            run_.checkpoints.newest(to_train=True)


@fault(
    FILES, "no checkpoint is whole", "both are cut", "one line that names the first, code 1; "
    "nothing is trained anew over what is there",
)  # fmt: skip
@fault(
    FILES, "a checkpoint of another run", "the folder checkpoint is a copy of another run's",
    "one line, code 1",
)  # fmt: skip
@pytest.mark.parametrize("kind", ["cut", "of another run"])
def test_no_whole_checkpoint(voc, finished, third_epoch, tmp_path, capsys, kind):
    folder = shutil.copytree(third_epoch, tmp_path / "run")
    places = folder / "checkpoint"
    if kind == "cut":
        for path in places.glob("*.weights.h5"):
            cut(path)
    else:
        record = folder / "run.json"
        record.write_text(record.read_text().replace('"system": "', '"system": "other '))
    before = {path: path.read_bytes() for path in folder.rglob("*.keras")}
    assert train.main([*flags(voc, **RESUMED), f"--output_dir={folder}"]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: ") and "no other checkpoint is whole" in said
    assert ("belongs to another run than" in said) == (kind != "cut")
    assert all(path.read_bytes() == content for path, content in before.items())


@fault(
    FILES, "a file of a finished run is empty, cut, has one bit changed, or is another run's",
    "metrics.json, predictions, history.csv, network.keras, run.json",
    "commands that read it say so in one line, code 1, or use the checkpoint's copy and say so; "
    "training started again writes it anew",
)  # fmt: skip
@pytest.mark.parametrize(
    "damage", [flip, *(pytest.param(x, marks=pytest.mark.slow) for x in (empty, cut, garble))]
)
def test_files_of_a_finished_run(voc, finished, tmp_path, capsys, damage):
    folder = shutil.copytree(finished, tmp_path / "run")
    tell = [f"--run_dir={folder}"]
    damage(folder / "network.keras")
    assert evaluate.main(tell) == 0
    note = "network.keras: was changed or cut after it was written: using its copy"
    assert note in capsys.readouterr().err
    shutil.copy(finished / "network.keras", folder / "network.keras")
    for name in ("metrics.json", "predictions_val.npz"):
        damage(folder / name)
        assert export.main([*tell, f"--export_dir={tmp_path / 'out'}"]) == 1
        assert report.main(tell) == 1
        for said in capsys.readouterr().err.splitlines():
            assert name in said and "start its training again, which writes it anew" in said
        shutil.copy(finished / name, folder / name)
    for name in ("metrics.json", "predictions_test.npz", "history.csv", "network.keras"):
        damage(folder / name)
    done = run(*flags(voc, **RESUMED), f"--output_dir={folder}")
    assert done.returncode == 0 and "written anew" in done.stderr, done.stderr
    assert_equal_runs(folder, finished)
    damage(folder / "run.json")
    for command in (evaluate, report):
        assert command.main(tell) == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and f"{folder / 'run.json'}: " in said
    assert train.main([*flags(voc, **RESUMED), f"--output_dir={folder}"]) == 1
    assert "error: " in capsys.readouterr().err.splitlines()[-1]


@fault(
    FILES, "a finished run on a medium that cannot be written", "`chattr +i`, or its permissions",
    "its results are printed again",
)  # fmt: skip
def test_a_finished_run_that_is_read_only(voc, read_only):
    done = run(*flags(voc, **RESUMED), f"--output_dir={read_only}")
    assert done.returncode == 0 and "best epoch" in done.stdout, done.stderr


@pytest.fixture
def read_only(finished, tmp_path) -> Iterator[Path]:
    folder = shutil.copytree(finished, tmp_path / "run")
    root = os.geteuid() == 0
    way = ["chattr", "-R", "+i"] if root else ["chmod", "-R", "a-w"]
    if root and (not shutil.which("chattr") or subprocess.run([*way, folder]).returncode):
        pytest.skip("the administrator may write everywhere, and chattr does not work here")
    subprocess.run([*way, folder], check=True)
    yield folder
    back = ["chattr", "-R", "-i"] if root else ["chmod", "-R", "u+w"]
    subprocess.run([*back, folder], check=True)


@fault(
    TRAINING, "the loss is not finite, or explodes", "--learning_rate=1e30, --max_loss=0.001",
    "it stops; one line names step, epoch and flag, code 1; the last good epoch is kept",
)  # fmt: skip
@pytest.mark.parametrize(
    ("flag", "seen"),
    [("--max_loss=0.001", "the mean loss is 0."), ("--head_learning_rate=1e3", "the mean loss is")],
)
def test_a_training_that_diverges(voc, tmp_path, capsys, flag, seen):
    words = [*flags(voc, method="an", learning_rate="1e3"), f"--output_dir={tmp_path / 'run'}"]
    assert train.main([*words, flag, "--max_loss=5" if "max" not in flag else flag]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert seen in said and " of epoch " in said and "(--max_loss=" in said
    assert "lower --learning_rate and train into another folder" in said


def without_positives(root: Path, name: str, text: str) -> list[str]:
    words = [*test_bad_inputs.folder(root), f"--data_dir={root}", "--network=small_residual"]
    (root / name).write_text(text)
    return [*words, "--weights=none", "--image_size=32", "--epochs=1", "--threads=1"]


@fault(
    TRAINING, "labels without a positive", "a train.csv of zeros", "one line, code 1",
)  # fmt: skip
@fault(
    TRAINING, "validation labels without a positive, for a method that needs their number",
    "a val.csv of zeros", "one line that names --positives_per_image, code 1",
)  # fmt: skip
@pytest.mark.parametrize(
    ("name", "text", "seen"),
    [
        ("train.csv", "image,cat,dog\n0.jpg,0,0\n1.jpg,0,0\n",
         "no training image is labelled with any class"),
        ("val.csv", "image,cat,dog\n4.jpg,0,0\n5.jpg,0,0\n", "--positives_per_image is missing"),
    ],
)  # fmt: skip
def test_labels_that_teach_nothing(tmp_path, capsys, name, text, seen):
    words = without_positives(tmp_path, name, text)
    assert train.main([*words, f"--output_dir={tmp_path / 'run'}"]) == 1
    assert seen in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def after_first_epoch(patch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    write = recorder.RunRecorder.on_epoch_end

    def write_and_act(self, epoch, logs=None):
        write(self, epoch, logs)
        if epoch == 0:
            action()

    patch.setattr(recorder.RunRecorder, "on_epoch_end", write_and_act)


@pytest.mark.slow
@fault(
    TRAINING, "a photo vanishes in mid-training", "it is removed after the first epoch",
    "one line that names it, code 1; put back, the same command goes on", "the epoch",
)  # fmt: skip
@fault(
    TRAINING, "a photo changes at equal size", "one byte of it, before the run is resumed",
    "with --fingerprint=content one line, code 1; without it nothing: sizes are compared only",
)  # fmt: skip
def test_photos_that_go_or_change(voc, tmp_path, monkeypatch, capsys):
    root = shutil.copytree(voc, tmp_path / "voc")
    photo = root / "JPEGImages" / "2008_train003.jpg"
    content = photo.read_bytes()
    monkeypatch.setitem(networks.NETWORKS, "tiny", tiny_cam)
    words = [*flags(root, method="an", network="tiny", epochs=8, fingerprint="content")]
    words += [f"--output_dir={tmp_path / 'run'}", "--val_split=val", "--test_split=none"]
    with monkeypatch.context() as patch:
        after_first_epoch(patch, photo.unlink)
        assert train.main(words) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: ") and str(photo) in said
    photo.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert train.main(words) == 1
    assert "the data have changed since this run began" in capsys.readouterr().err
    photo.write_bytes(content)
    assert train.main(words) == 0
    assert " of 8\n" in capsys.readouterr().err


@fault(
    TRAINING, "a run goes on with other threads, processor or versions",
    "one thread before, two now", "a note says so; each checkpoint records its machine",
    "equality in the last digits",
)  # fmt: skip
def test_another_machine_is_noted(voc, third_epoch, tmp_path):
    folder = shutil.copytree(third_epoch, tmp_path / "run")
    done = run(*flags(voc, **{**RESUMED, "threads": 2}), f"--output_dir={folder}")
    assert done.returncode == 0, done.stderr
    assert "note: the run went on so far with threads 1, now 2: numbers may differ" in done.stderr


@pytest.mark.slow
@fault(
    STOPS, "kill -9 within an epoch, with --checkpoint_minutes",
    "the folder as it is after a step of the third epoch is resumed",
    "it goes on from that step to the same numbers, bit for bit", "the steps since the checkpoint",
)  # fmt: skip
def test_checkpoints_within_an_epoch(voc, finished, tmp_path, monkeypatch):
    words = [*flags(voc, **RESUMED, checkpoint_minutes=1e-6)]
    write = recorder.RunRecorder.on_train_batch_end

    def write_and_copy(self, batch, logs=None):
        write(self, batch, logs)
        if len(self.progress.history) == 2 and batch == 1:
            shutil.copytree(self.run.path, tmp_path / "killed")

    with monkeypatch.context() as patch:
        patch.setattr(recorder.RunRecorder, "on_train_batch_end", write_and_copy)
        assert train.main([*words, f"--output_dir={tmp_path / 'whole'}"]) == 0
    assert_equal_runs(tmp_path / "whole", finished)
    done = run(*words, f"--output_dir={tmp_path / 'killed'}")
    assert done.returncode == 0, done.stderr
    assert "resuming after step 2 of epoch 3 of 5" in done.stderr
    assert_equal_runs(tmp_path / "killed", finished)
