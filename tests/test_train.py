"""The training command: what it writes, resumption after kill -9, refusals, one-line errors."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import types
from importlib import metadata

import h5py
import numpy as np
import pytest
import tensorflow as tf
import warm_process
from conftest import CLASSES, RESUMED, flags, run
from PIL import Image
from saved_runs import (
    assert_equal_runs,
    change_flags,
    has_checkpoint,
    kill_at,
    newest_weights,
    table_rows,
    wait_until,
)
from sklearn.metrics import average_precision_score

import spml_tf
from spml_tf import evaluate, train
from spml_tf.datasets import splits
from spml_tf.evaluation import epoch_measures
from spml_tf.networks import precision
from spml_tf.runs import model_building, run_data, run_flags, run_folder
from spml_tf.runs.settings import Settings, resolve
from spml_tf.system import cli, locks, private_api
from spml_tf.system.errors import UserError


def test_everything_promised_is_written(finished):
    record = json.loads((finished / "run.json").read_text())
    assert record["flags"]["method"] == "en+scl" and record["flags"]["seed"] == 0
    assert {"tensorflow", "keras", "numpy", "spml_tf", "python"} <= record["versions"].keys()
    assert record["machine"]["cores"] == os.cpu_count()
    assert re.fullmatch("[0-9a-f]{64}", record["data_fingerprint"])
    assert record["images"] == {"train": 19, "val": 5, "test": 8}

    rows = table_rows(finished / "history.csv")
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5"]
    names = {"loss", "classification_loss", "consistency_loss", "val_map", "val_loss", "seconds"}
    assert names | {"selected", "selection_precision", "selection_recall"} <= rows[0].keys()
    assert rows[0]["selected"] == "" and int(rows[4]["selected"]) > 0

    results = json.loads((finished / "metrics.json").read_text())
    best = max(rows, key=lambda row: float(row["val_map"]))
    assert results["best_epoch"] == int(best["epoch"])
    assert results["val"]["map"] == pytest.approx(100 * float(best["val_map"]), abs=1e-4)
    for split in ("val", "test"):
        with np.load(finished / f"predictions_{split}.npz", allow_pickle=False) as saved:
            assert saved["scores"].shape == saved["labels"].shape
            assert list(saved["class_names"]) == list(CLASSES)
            assert len(saved["names"]) == len(saved["scores"])
            for column, name in enumerate(CLASSES):
                expected = average_precision_score(
                    saved["labels"][:, column], saved["scores"][:, column]
                )
                assert results[split]["ap"][name] == pytest.approx(100 * expected)
        values = list(results[split]["ap"].values())
        assert results[split]["map"] == pytest.approx(np.mean(values))
    assert list((finished / "tensorboard").glob("events.*"))
    labels = table_rows(finished / "train_labels.csv")
    assert [(row["split"], row["label"]) for row in labels] == [("train", "1")] * 19 + [
        ("val", "")
    ] * 5


def test_started_again_when_finished_it_prints_the_results(voc, finished):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.suffix in (".json", ".h5")}
    again = run(f"--flagfile={finished / 'flags.txt'}", f"--output_dir={finished}")
    assert again.returncode == 0 and "best epoch" in again.stdout
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_killed_twice_it_ends_with_the_same_numbers(voc, finished, tmp_path):
    """kill -9 in the second epoch, then just after an epoch's history was written but before its
    checkpoint, then on to the end: every array equals the uninterrupted run's, bit for bit."""
    folder = tmp_path / "killed"
    words = [*flags(voc, **RESUMED), f"--output_dir={folder}"]

    def rows() -> int:
        path = folder / "history.csv"
        return len(path.read_text().splitlines()) - 1 if path.exists() else 0

    for epoch in (1, 3):
        process = warm_process.Process("spml_tf.train", words)
        kill_at(process, lambda goal=epoch: rows() >= goal)
        assert not (folder / "metrics.json").exists()
    last = run(*words, new_python=True)
    assert last.returncode == 0, last.stderr
    assert "resuming after epoch" in last.stderr
    assert_equal_runs(finished, folder)


def test_other_flags_are_refused_and_named(voc, finished):
    before = (finished / "run.json").read_bytes()
    again = run(*flags(voc, **RESUMED, seed=7, learning_rate=0.5), f"--output_dir={finished}")
    assert again.returncode == 1 and again.stderr.count("\n") == 1
    assert "--seed was 0 and is 7" in again.stderr
    assert "--learning_rate was 0.002 and is 0.5" in again.stderr
    assert (finished / "run.json").read_bytes() == before


def test_banks_and_network_of_an_earlier_run(voc, finished, tmp_path):
    """A second round from the banks; a run on other classes from the network."""
    second = run(
        *flags(voc, bank_dtype="uint8", epochs=1), f"--initial_banks={finished}",
        f"--output_dir={tmp_path / 'second'}", "--selection_start_epoch=1",
    )  # fmt: skip
    assert second.returncode == 0, second.stderr
    assert int(table_rows(tmp_path / "second" / "history.csv")[0]["selected"]) > 0
    other = run(
        *flags(voc, epochs=1), "--classes=dog,sheep,cat", f"--init_from={finished}",
        "--learning_rate=0", "--head_learning_rate=0", "--warmup_epochs=1",
        f"--output_dir={tmp_path / 'other'}",
    )  # fmt: skip
    assert other.returncode == 0, other.stderr
    old, new = (
        spml_tf.load_network(folder / "network.keras").get_layer("cam_logits").kernel.numpy()
        for folder in (finished, tmp_path / "other")
    )
    np.testing.assert_array_equal(new[..., [2, 0]], old[..., [0, 2]])
    refused = run(
        *flags(voc, label_seed=1, bank_dtype="uint8"), f"--initial_banks={finished}",
        f"--output_dir={tmp_path / 'third'}",
    )  # fmt: skip
    assert refused.returncode == 1 and "other images or labels" in refused.stderr


def test_the_network_is_that_of_the_run_it_starts_from(voc, finished, tmp_path, capsys):
    """Network and size need not be repeated; what contradicts is refused."""
    settings = resolve(Settings(dataset="voc", data_dir=str(voc), init_from=str(finished)))
    assert (settings.network, settings.image_size) == ("small_residual", 32)
    words = [*flags(voc, epochs=1), f"--init_from={finished}", f"--output_dir={tmp_path / 'x'}"]
    for flag, before in (
        ("network=efficientnet_lite0", "small_residual"), ("image_size=64", "32"),
        ("mixed_precision=bfloat16", "none"),
    ):  # fmt: skip
        name, _, now = flag.partition("=")
        assert train.main([*words, f"--{flag}"]) == 1
        said = f"was trained with --{name}={before}, this run has {now}; make them equal"
        assert said in capsys.readouterr().err
    assert train.main([*words, f"--weights={finished / 'network.keras'}"]) == 1
    assert "the weights are those of --init_from; drop one" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_data_that_have_moved_and_not_changed_are_gone_on_with(voc, finished, tmp_path, capsys):
    folder, moved = shutil.copytree(finished, tmp_path / "run"), tmp_path / "moved"
    shutil.copytree(voc, moved)
    for name in ("metrics.json", "SHA256SUMS"):
        (folder / name).unlink()
    words = [*flags(moved, **RESUMED), f"--output_dir={folder}"]
    assert train.main(words) == 0
    assert run_folder.RunFolder(folder).read_metrics() == (
        run_folder.RunFolder(finished).read_metrics()
    )
    photo = next((moved / "JPEGImages").glob("*_train*.jpg"))
    photo.write_bytes(photo.read_bytes() + b" ")
    (folder / "metrics.json").unlink()
    (folder / "SHA256SUMS").unlink()
    capsys.readouterr()
    assert train.main(words) == 1
    assert "the data have changed since this run began" in capsys.readouterr().err


def test_class_shares_that_move_or_change_when_resuming(voc, tmp_path, capsys):
    table = tmp_path / "elsewhere.csv"
    table.write_text("class,prior\n" + "".join(f"{name},0.5\n" for name in CLASSES))
    words = flags(voc, epochs=1, method="en", selection_budget="probable")
    out = f"--output_dir={tmp_path / 'run'}"
    assert train.main([*words, f"--selection_priors={table}", out]) == 0
    (tmp_path / "run" / "metrics.json").unlink()
    (tmp_path / "run" / "SHA256SUMS").unlink()
    moved = table.rename(tmp_path / "shares.csv")
    assert train.main([*words, f"--selection_priors={moved}", out]) == 0
    assert train.main([*words, f"--selection_priors={moved}", out]) == 0  # finished
    capsys.readouterr()
    assert train.main([*words, out]) == 1
    assert "--selection_priors was" in capsys.readouterr().err
    moved.write_text(moved.read_text().replace("0.5", "0.4"))
    assert train.main([*words, f"--selection_priors={moved}", out]) == 1
    said = capsys.readouterr().err
    assert f"--selection_priors={moved}: has changed since this run began; put it back" in said


def test_results_without_checkpoints_and_checksums(finished, tmp_path, voc, capsys):
    folder = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(folder / "checkpoint")
    shutil.copy(folder / "network.keras", tmp_path)
    (folder / "network.keras").write_bytes(b"of another run")
    words = [*flags(voc, **RESUMED), f"--output_dir={folder}"]
    assert evaluate.main([f"--run_dir={folder}"]) == 1
    assert "network.keras: differs from what the run wrote" in capsys.readouterr().err
    shutil.copy(tmp_path / "network.keras", folder)
    assert evaluate.main([f"--run_dir={folder}"]) == 0
    (folder / "SHA256SUMS").write_text("")
    assert not run_folder.RunFolder(folder).is_finished()
    (folder / "SHA256SUMS").unlink()
    capsys.readouterr()
    assert train.main(words) == 1
    assert "SHA256SUMS: is missing; but the checkpoint is gone: train" in capsys.readouterr().err


def test_train_labels_from_a_file_repeat_the_drawn_ones(voc, finished, tmp_path):
    """The CSV a run wrote gives the same observed labels and split, whatever the seeds are."""
    settings = resolve(Settings(**{**run_folder.RunFolder(finished).settings().__dict__}))
    drawn = splits.load_splits(settings)
    words = {**settings.__dict__, "train_labels": str(finished / "train_labels.csv")}
    seeds = {"data_seed": 7, "label_seed": 8, "val_fraction": 0.5}
    read = splits.load_splits(Settings(**{**words, **seeds}))
    np.testing.assert_array_equal(drawn.observed, read.observed)
    assert drawn.val.names == read.val.names and drawn.fingerprint() == read.fingerprint()
    full = splits.load_splits(Settings(**{**words, "train_labels": "full"}))
    np.testing.assert_array_equal(full.observed, drawn.train.labels)
    assert drawn.positives_per_image == pytest.approx((drawn.val.labels == 1).sum() / 5)
    assert model_building.selection_budget("all", drawn) == "all"
    assert (
        model_building.selection_budget("validation", drawn)
        == (drawn.val.labels == 1).mean(axis=0).tolist()
    )


def test_data_and_labels_do_not_depend_on_the_seed(voc):
    base = {f[2:].split("=")[0]: f.split("=")[1] for f in flags(voc)}
    common = {"dataset": "voc", "data_dir": base["data_dir"], "classes": base["classes"]}
    prints = {
        key: splits.load_splits(resolve(Settings(**common, **change))).fingerprint()
        for key, change in (
            ("base", {}), ("seed", {"seed": 5}), ("labels", {"label_seed": 5}),
            ("data", {"data_seed": 5}),
        )
    }  # fmt: skip
    assert prints["base"] == prints["seed"]
    assert len({prints["base"], prints["labels"], prints["data"]}) == 3


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--nonsense=1"], "nonsense"),
        (["--epochs=many"], "epochs"),
        (["digits"], "'digits' is not a flag"),
        (["--dataset=imaginary"], "--dataset=imaginary"),
        (["--dataset=voc"], "--data_dir is missing"),
        (["--val_split=no"], "--val_split: digits have train, val, test, found 'no'"),
        (["--dataset=voc", "--data_dir=/nonexistent"], "/nonexistent"),
        (["--method=en+xx"], "--method=en+xx"),
        (["--crop_area=0.5"], "--crop_area=0.5: give LOW,HIGH"),
        (["--crop_area=0.9,0.5"], "--crop_area=0.9,0.5: needs 0 < LOW"),
        (["--ema_momentum=1"], "--ema_momentum=1.0: must lie between"),
        (["--warmup_epochs=50", "--epochs=3"], "--warmup_epochs=50"),
        (["--network=resnet51", "--weights=none"], "resnet51"),
        (["--flagfile=/nonexistent.flags"], "/nonexistent.flags"),
        (["--bank_dtype=int4"], "bank_dtype"),
        (["--train_labels=/nonexistent.csv"], "/nonexistent.csv"),
        (["--initial_banks=/nonexistent"], "/nonexistent: no run here"),
        (["--init_from=/nonexistent"], "/nonexistent: no run here"),
        (["--init_from=/x", "--keep_head"], "--keep_head: means the head of --weights, not with"),
        (["--keep_head"], "--keep_head: means the head of --weights, not with --weights=none"),
        (["--observed_positives=0"], "--observed_positives=0"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_1(words, says, tmp_path, capsys):
    code = train.main([*words, f"--output_dir={tmp_path / 'x'}"])
    error = capsys.readouterr().err
    assert code == 1
    assert error.startswith("error: ") and error.count("\n") == 1, error
    assert says in error


def test_interrupted_by_the_user_it_says_how_to_go_on(voc, tmp_path):
    folder = tmp_path / "stopped"
    words = [*flags(voc, epochs=200), f"--output_dir={folder}"]
    process = warm_process.Process("spml_tf.train", words)
    wait_until(process, lambda: has_checkpoint(folder))
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.search(
        r"^interrupted: saved after (step \d of )?epoch \d+; the same command goes on from there$",
        error,
        re.M,
    )
    assert "Traceback" not in error


def test_a_run_of_another_version_is_named(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "other")
    change_flags(tmp_path / "other", unheard_of=1)
    with pytest.raises(UserError, match="another version of spml_tf"):
        run_folder.RunFolder(tmp_path / "other").settings()


@pytest.mark.slow
def test_other_networks_precision_labels_and_schedules(voc, tmp_path):
    """One short run with the flags that no other test gives."""
    folder = tmp_path / "run"
    done = run(
        *flags(
            voc, network="applications:MobileNet", method="an+cl", epochs=1, crop_area="0.5,1",
            mixed_precision="bfloat16", horizontal_flip="false", bank_dtype="float16",
            learning_rate_schedule="constant", observed_positives=2, observed_negatives=1,
            val_fraction=0.5, test_split="train",
        ),
        f"--output_dir={folder}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads((folder / "run.json").read_text())
    assert record["images"] == {"train": 12, "val": 12, "test": 24}
    labels = [row["label"] for row in table_rows(folder / "train_labels.csv")]
    assert labels.count("1") > 12 and 0 < labels.count("0") <= 12
    assert "bfloat16" in str(spml_tf.load_network(folder / "network.keras").get_config())
    with h5py.File(newest_weights(folder)) as file:
        assert file["ema_scores/vars/0"].dtype == np.float16


def test_console_scripts_are_the_modules():
    scripts = {x.name: x for x in metadata.entry_points(group="console_scripts")}
    for name in ("train", "evaluate", "export", "predict"):
        assert scripts[f"spml-tf-{name}"].value == f"spml_tf.{name}:main"
        assert callable(scripts[f"spml-tf-{name}"].load())


def test_a_folder_with_other_files_is_left_alone(voc, tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    done = run(*flags(voc), f"--output_dir={tmp_path}")
    assert done.returncode == 1 and "not empty and holds no run" in done.stderr
    assert "Traceback" not in done.stderr
    assert [p.name for p in tmp_path.glob("[!.]*")] == ["thesis.txt"]


def test_a_second_process_is_refused(voc, tmp_path):
    """While one holds the folder's lock no other touches it, and no line of it is drowned."""
    with locks.locked(tmp_path / ".lock", "cannot happen"):
        done = run(*flags(voc), f"--output_dir={tmp_path}")
    assert done.returncode == 1
    assert done.stderr == f"error: --output_dir={tmp_path}: another process trains here\n"
    # Some versions of filelock remove it again.
    assert {p.name for p in tmp_path.iterdir()} <= {".lock"}


def test_a_broken_photo_is_named(voc, tmp_path):
    broken = shutil.copytree(voc, tmp_path / "voc")
    photo = broken / "JPEGImages" / "2008_train003.jpg"
    photo.write_bytes(photo.read_bytes()[:200])
    done = run(*flags(broken), f"--output_dir={tmp_path / 'run'}")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert str(photo) in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("method", "rows", "expected"),
    [
        # Mean 4/3, deviation 0.577; 4.303 of Student's t with two degrees: 4/3 +- 1.434.
        ("en", [[1, 0], [1, 1], [0, 1], [1, -1]],
         "K = 1.33 is counted on 3 fully labelled validation images: the mean of all lies between "
         "0.00 and 2.77 (95%); count 50 images, or --positives_per_image=auto"),
        ("role", [[1, 1], [-1, 1]],
         "K = 2 is that of the one validation image that is fully labelled; count 50 images"),
        ("recommended", [[1, 1], [-1, 1]],
         "K = 2 is that of the one validation image that is fully labelled; count 50 images"),
        ("an", [[1, 1]], ""),
        ("en", [[-1, 1]], ""),
        ("en", [[0, 0], [0, 0]], ""),
        ("en", [[1, 1]] * 50, ""),
    ],
)  # fmt: skip
def test_a_k_that_few_images_give_is_noted(method, rows, expected):
    val = types.SimpleNamespace(labels=np.array(rows, np.int8))
    data = types.SimpleNamespace(val=val)
    assert run_data.note_on_k(resolve(Settings(method=method)), data) == expected
    given = resolve(Settings(method=method, positives_per_image=2))
    assert run_data.note_on_k(given, data) == ""
    for other in ({"selection_budget": "validation"}, {"selection_budget": "mime"}):
        assert run_data.note_on_k(resolve(Settings(method="en", **other)), data) == ""
    named = resolve(Settings(method="recommended", selection_priors="x.csv"))
    assert run_data.note_on_k(named, data) == ""


def test_unknown_validation_labels_are_announced_and_k_is_asked_for(monkeypatch, capsys):
    from spml_tf.datasets import readers

    real = readers.Reader.read

    def partly_labelled(*words):
        examples = real(*words)
        examples.labels[:, 0] = -1
        return examples

    monkeypatch.setattr(readers.Reader, "read", partly_labelled)
    settings = resolve(Settings())
    data = splits.load_splits(settings)
    assert "measures are over the known labels of each class" in capsys.readouterr().err
    assert data.positives_per_image is None
    with pytest.raises(UserError, match="--selection_budget=validation: no image is fully"):
        model_building.selection_budget("validation", data)
    with pytest.raises(UserError, match="--selection_budget=mime: no image is fully"):
        model_building.selection_budget("mime", data)
    with pytest.raises(
        UserError, match="count the classes that truly appear in 50 training photos"
    ):
        model_building.build(settings, data, run_data.positives_per_image(settings, data))


def test_defaults_follow_from_one_another():
    scratch = resolve(Settings())
    assert (scratch.network, scratch.image_size, scratch.warmup_epochs) == ("small_residual", 64, 0)
    assert scratch.selection_start_epoch == scratch.consistency_start_epoch == 13
    assert not scratch.horizontal_flip
    tuned = resolve(Settings(dataset="voc", data_dir="x", epochs=12, warmup_epochs=6))
    assert (tuned.network, tuned.image_size, tuned.weights) == ("resnet50", 448, "imagenet")
    assert (tuned.selection_start_epoch, tuned.horizontal_flip) == (7, True)
    assert tuned.head_learning_rate > tuned.learning_rate


def test_a_flagfile_repeats_the_settings(tmp_path):
    settings = resolve(Settings(method="an+cl", seed=3, crop_area="0.5,1"))
    (tmp_path / "f.txt").write_text(run_flags.flagfile(settings))
    assert resolve(cli.parse([f"--flagfile={tmp_path / 'f.txt'}"], Settings, "")) == settings


def test_derived_values_are_comments_of_the_flagfile_of_a_run(finished, tmp_path):
    """It repeats the run, and values that follow from a flag change with it."""
    text = (finished / "flags.txt").read_text()
    assert "\n--epochs=5\n" in text and "\n--bank_dtype=uint8\n" in text
    assert re.search(r"^# --consistency_start_epoch=\d \(derived\)$", text, re.M)
    record = json.loads((finished / "run.json").read_text())["flags"]
    words = [f"--flagfile={finished / 'flags.txt'}"]
    assert dataclasses.asdict(resolve(cli.parse(words, Settings, ""))) == record
    given = Settings(linear_probe=True, epochs=6, init_from="x")
    (tmp_path / "f.txt").write_text(run_flags.flagfile(resolve(given), given))
    changed = cli.parse([f"--flagfile={tmp_path / 'f.txt'}", "--epochs=9"], Settings, "")
    assert resolve(changed).warmup_epochs == 9  # as many as epochs, of which it was a comment
    (tmp_path / "f.txt").write_text(run_flags.flagfile(resolve(given)))
    changed = cli.parse([f"--flagfile={tmp_path / 'f.txt'}", "--epochs=9"], Settings, "")
    with pytest.raises(UserError, match="--warmup_epochs=6: with --linear_probe"):
        resolve(changed)


def test_help_answers_without_tensorflow():
    code = (
        "import sys; from spml_tf import train\n"
        "try: train.main(['--help'])\n"
        "except SystemExit as e: assert e.code == 0\n"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("--method", "--positives_per_image", "--selection_start_epoch", "--output_dir"):
        assert name in done.stdout


@pytest.mark.parametrize(
    ("network", "flags_there", "gpus", "expected", "reason"),
    [
        ("resnet50", {"avx512_bf16"}, [], "bfloat16", "a processor with avx512_bf16"),
        ("resnet50", {"avx512_bf16", "amx_bf16"}, [], "bfloat16", "with amx_bf16"),
        ("resnet50", {"avx512f"}, [], "none", "the processor has none of amx_bf16, avx512_bf16"),
        ("efficientnet_lite0", {"amx_bf16"}, [], "none", "no gain was measured for efficientnet"),
        ("resnet50", {"avx512_bf16"}, ["a GPU"], "none", "nothing was measured on a GPU"),
    ],
)
def test_automatic_precision(monkeypatch, network, flags_there, gpus, expected, reason):
    monkeypatch.setattr(precision.processor, "flags", lambda: flags_there)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
    chosen, why = precision.automatic(network)
    assert chosen == expected and reason in why
    given = Settings(dataset="voc", data_dir="x", network=network, mixed_precision="auto")
    assert resolve(given).mixed_precision == expected


def test_automatic_precision_is_recorded(voc):
    settings = resolve(cli.parse(flags(voc, mixed_precision="auto"), Settings, ""))
    assert "--mixed_precision=none\n" in run_flags.flagfile(settings)


def test_precision_and_recall_of_the_selection():
    """Four are marked; of the three whose truth is known two are missing ones, of four that are."""
    truth = np.array([[1, 1, 1, 0], [-1, 1, 1, 1]], np.int8)
    observed = np.array([[1, -1, -1, -1], [-1, 1, -1, -1]], np.int8)
    marked = np.array([[1, 2, -1, 2], [2, 1, 2, -1]], np.int8)
    counts = epoch_measures.selection_counts(marked, truth, observed)
    assert counts.tolist() == [4, 4, 3, 2]
    found = epoch_measures.selection_quality(counts)
    assert found == {"selected": 4, "selection_precision": 2 / 3, "selection_recall": 2 / 4}
    assert epoch_measures.selection_quality(np.array([4, 0, 3, 0])) == {"selected": 4}
    assert epoch_measures.selection_quality(np.array([0, 4, 0, 0])) == {}


@pytest.mark.parametrize("schedule", [None, "constant"])
def test_the_rates_of_head_and_backbone(voc, schedule):
    """19 images are 4 steps: the backbone's cosine falls over the 16 after the warm-up epoch."""
    words = {"epochs": 5, "warmup_epochs": 1, "learning_rate": 0.002, "head_learning_rate": 0.01}
    words |= {} if schedule is None else {"learning_rate_schedule": schedule}
    settings = resolve(cli.parse(flags(voc, **words), Settings, ""))
    data = splits.load_splits(settings)
    model = model_building.build(settings, data, data.positives_per_image)
    model.optimizer.build(model.trainable_variables)
    backbone, head = (
        private_api.optimizer_for(model.optimizer, layer.kernel)._learning_rate
        for layer in (model.network.layers[2], model.network.get_layer("cam_logits"))
    )
    if schedule == "constant":
        assert (float(backbone), float(head)) == pytest.approx((0.002, 0.01))
        return
    for rate, steps, values in (
        (backbone, (0, 8, 16), (0.002, 0.001, 0.0)), (head, (0, 10, 20), (0.01, 0.005, 0.0))
    ):  # fmt: skip
        assert [float(rate(step)) for step in steps] == pytest.approx(values, abs=1e-9)


def test_the_selection_is_not_judged_where_nothing_is_known_to_be_missing(tmp_path):
    """A positive a photo, and a negative that training does not see: of what it selects only these
    are known, so that a precision could but be 0."""
    rng = np.random.default_rng(0)
    lines = ["image,a,b,c"]
    for number in range(12):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(
            tmp_path / f"{number}.png"
        )
        cells = ["", "", ""]
        cells[number % 3], cells[(number + 1) % 3] = "1", "0"
        lines.append(f"{number}.png,{','.join(cells)}")
    (tmp_path / "train.csv").write_text("\n".join(lines) + "\n")
    done = run(
        "--dataset=folder", f"--data_dir={tmp_path}", "--train_csv=train.csv",
        "--val_csv=train.csv", "--train_labels=single", "--network=small_residual",
        "--image_size=16", "--method=en",
        "--positives_per_image=2", "--epochs=2", "--selection_start_epoch=2",
        f"--output_dir={tmp_path / 'run'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = table_rows(tmp_path / "run" / "history.csv")
    assert int(rows[-1]["selected"]) > 0
    assert "selection_precision" not in rows[-1]
