"""Mistyped words: what was probably meant is named, and a bad value before all that follows."""

from __future__ import annotations

import importlib
import os
import re
import sys
import warnings

import numpy as np
import pytest
from conftest import RESUMED, flags, run
from PIL import Image

import spml_tf.__main__ as listing
from spml_tf import data, evaluate, predict, train
from spml_tf.datasets.readers import Examples
from spml_tf.datasets.split_notes import rare_classes
from spml_tf.runs.settings import Settings, resolve
from spml_tf.system import cli
from spml_tf.system.notes import once, tell_note


def error_of(main, words, capsys) -> str:
    """The one line of a command that is refused."""
    assert main(words) == 1
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines(keepends=True) if not line.startswith("note: ")]
    assert len(lines) == 1 and lines[0].startswith("error: "), error
    return lines[0]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--method=en+slc", r"--method=en\+slc: method must be one of .*; did you mean en\+scl\?"),
        ("--method=ll-r", r"did you mean ll_r\?"),
        ("--method=en+rg+scl", r"did you mean en\+gr\+scl\?"),
        ("--method=zebra", r"Received: 'zebra'\n"),
        ("--dataset=digitz", r"--dataset=digitz: unknown; .*; did you mean digits\?"),
        ("--network=resnet5", r"--network=resnet5: unknown; .*; did you mean resnet50\?"),
        ("--network=applications:ResNet5O", r"no network 'ResNet5O'; did you mean: ResNet50"),
        ("--bank_dtype=unit8", r"bank_dtype=unit8: .*<.*uint8.*>; did you mean uint8\?"),
        ("--positives_per_image=atuo", r"a number or auto; did you mean auto\?"),
        ("--epoch=3", "flag 'epoch'. Did you mean: epochs"),
        ("-ep 3", "flag 'ep'; flags that begin so are --epochs"),
        ("--qq=1", "flag 'qq'; --help lists those there are"),
        ("epochs=3", "'epochs=3' is not a flag; write --epochs=3"),
        ("\u2013epochs=3", "is not a flag; write --epochs=3"),
        ("digits", "'digits' is not a flag; flags are written --name=value"),
        ("--output_dir --linear_probe", "--output_dir: its value is missing, --linear_probe foll"),
        ("--flagfile=", "error: --flagfile: is empty; name one, or leave it out"),
        ("--epochs=2 --preset=", "error: --preset: is empty; name one, or leave it out"),
        ("--epochs=0 --foo=1", "--epochs=0: must lie between .*; .*'foo'"),
        ("--method=en+slc --foo=1", r"did you mean en\+scl\?; .*'foo'"),
        ("--epochs=many --foo=1", "flag --epochs=many"),
        ("--dataset=voc --datadir=x", "error: Unknown command line flag 'datadir'.*data_dir"),
    ],
)
def test_training_names_what_was_meant(words, says, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert re.search(says, error_of(train.main, words.split(" "), capsys))
    assert not os.listdir()


def test_words(capsys):
    error = error_of(data.main, ["chekc"], capsys)
    assert error == (
        "error: give one of the words check, summary, prepare, import, found chekc; did you mean "
        "check?\n"
    )
    assert listing.main(["evalaute"]) == 2
    assert capsys.readouterr().err.endswith("; did you mean evaluate?\n")


@pytest.mark.parametrize("line", ["--epochs=2", "# a comment"])
def test_a_flagfile_with_a_byte_order_mark(line, tmp_path, capsys):
    (tmp_path / "a.flags").write_text(f"{line}\n--seed=1\n", encoding="utf-8-sig")
    said = error_of(train.main, [f"--flagfile={tmp_path}/a.flags"], capsys)
    assert said == "error: --flagfile: begins with a byte order mark; save it as UTF-8 without\n"


@pytest.mark.parametrize("words", [["-epochs=2"], ["-epochs", "2"], ["--epochs", "2"]])
def test_a_flag_with_one_dash_is_a_flag(words):
    """Two epochs, as with two dashes; the data that follow are asked for."""
    from spml_tf.runs.settings import Settings
    from spml_tf.system import cli

    assert cli.parse(words, Settings, "").epochs == 2


def test_a_bad_value_is_told_before_other_flags_of_the_run(voc, finished):
    for words, says in (
        ("--network=resnet5", "--network=resnet5: unknown"),
        ("--method=en+slc", "did you mean en+scl?"),
        ("--epochs=0", "--epochs=0: must lie between"),
    ):
        done = run(*flags(voc, **RESUMED), words, f"--output_dir={finished}")
        assert done.returncode == 1 and says in done.stderr.splitlines()[-1], done.stderr
    done = run(*flags(voc, **RESUMED), "--seed=9", f"--output_dir={finished}")
    assert "holds a run with other flags (--seed was 0 and is 9)" in done.stderr


def photos(root, rows: str, val: str = "") -> list[str]:
    for number in range(6):
        Image.new("RGB", (32, 32), (40 * number,) * 3).save(root / f"{number}.png")
    (root / "t.csv").write_text(f"image,labels\n{rows}")
    (root / "v.csv").write_text(val or "image,labels\n5.png,cat\n")
    return ["--dataset=folder", f"--data_dir={root}", "--train_csv=t.csv", "--val_csv=v.csv"]


@pytest.mark.parametrize(
    ("module", "words", "message"),
    [
        ("audit", "--suggest_by=random", "--suggest_by: says how --suggest chooses"),
        ("audit", "--suggest=5 --limit=9", "--limit: is of the lists of labels, not of --suggest"),
        ("audit", "--reviewed=a.csv --shown=9", "--shown: is of the pages, not of --reviewed"),
        ("audit", "--reviewed=a.csv --batch_size=32", "--batch_size: is of the pages, not of"),
        ("export", "--web_runtime=x", "--web_runtime: is of --format=web; leave it out"),
        ("export", "--check_images=9", "--check_images: is of the check of litert, onnx and web"),
        ("export", "--data_dir=x", "--data_dir: is of the check of litert, onnx and web"),
        ("evaluate", "--workers=2 --strategy=mirrored", "--workers: means --strategy=multi_worker"),
        ("train", "--find_learning_rate --rounds=2", "--find_learning_rate: trains no rounds"),
        ("data", "summary --dataset=digits --threads=2", "--threads: summary does not take it"),
    ],
)
def test_flags_that_would_do_nothing_are_refused(module, words, message, tmp_path, capsys):
    given = {
        "audit": [f"--run_dir={tmp_path}", f"--output_dir={tmp_path / 'out'}"],
        "export": [f"--run_dir={tmp_path}", f"--export_dir={tmp_path / 'out'}"],
        "evaluate": [f"--run_dir={tmp_path}"],
        "train": ["--dataset=digits", f"--output_dir={tmp_path / 'out'}"],
    }.get(module, [])
    assert importlib.import_module(f"spml_tf.{module}").main([*words.split(), *given]) == 1
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_an_empty_path_is_none():
    """It undoes the line of a flagfile."""
    given = Settings(dataset="digits", init_from="", initial_banks="", data_dir="")
    found = resolve(given)
    assert found.init_from is found.initial_banks is found.data_dir is None


def test_an_unknown_class_in_the_validation_table(tmp_path, capsys):
    words = photos(tmp_path, "0.png,cat\n1.png,dog\n", "image,labels\n5.png,dgo\n")
    error = error_of(data.main, ["check", *words], capsys)
    assert error == (
        f"error: {tmp_path}/v.csv:2: unknown class 'dgo'; the classes of the training table are "
        "'cat', 'dog'; did you mean dog?; mend the name, or have the class in the training table "
        "too\n"
    )


def test_check_names_a_class_with_one_photo(tmp_path, capsys):
    words = photos(tmp_path, "0.png,cat\n1.png,cat;dog\n2.png,cat\n")
    assert data.main(["check", *words]) == 0
    told = capsys.readouterr().err.splitlines()
    assert [line for line in told if "shows" in line] == [
        "note: only one training image shows 'dog' ('1.png'): too few to learn from, and none "
        "where it is held out for validation"
    ]


def test_of_many_such_classes_three_are_named():
    names = tuple("abcdefg")
    labels = np.eye(7, dtype=np.int8)
    labels[0] = 0
    photos = Examples(names, labels, names, images=np.zeros((7, 2, 2, 3), np.uint8))
    assert rare_classes(photos) == (
        "no training image shows 'a': cannot be learned",
        "only one training image shows 'b' ('b'), 'c' ('c'), 'd' ('d') and 3 more: too few to "
        "learn from, and none where it is held out for validation",
    )


def test_no_line_steers_the_terminal(capsys):
    """Notes, warnings, the reason why a photo is left out, and the last line of a command."""
    steering, shown = "a\x1b[2J\u202eb", r"a\x1b[2J\u202eb"
    tell_note(steering)
    predict._tell("error", steering, f"no {steering}")

    def action(options: object) -> None:
        sys.stderr.write(warnings.formatwarning(steering, UserWarning, "a.py", 1))
        raise OSError(28, "No space left on device", steering)

    assert cli.run([], evaluate._Options, "", action, tensorflow=False) == 1
    told = capsys.readouterr().err.splitlines()
    assert told[:3] == [
        f"note: {shown}",
        f"error: {shown}: cannot be read as an image, left out (no {shown})",
        f"note: {shown}",
    ]
    assert told[3].startswith(f"error: {shown}: No space left on device") and len(told) == 4


def test_notes_are_told_once_a_command(tmp_path, capsys):
    """The tables of two splits have the same photos twice: one note, not two."""
    with once():
        for text in ("a", "b", "a"):
            tell_note(text)
    tell_note("a")
    assert capsys.readouterr().err == "note: a\nnote: b\nnote: a\n"
    rows = "0.png,cat\n1.png,cat;dog\n2.png,cat;dog\n0.png,cat\n"
    words = photos(tmp_path, rows)
    words[-1] = "--val_csv=t.csv"
    assert data.main(["check", *words]) == 0
    told = capsys.readouterr().err.splitlines()
    assert [line for line in told if "rows of" in line] == [
        f"note: {tmp_path}/t.csv: 4 rows of 3 photos: a photo has the labels of all its rows"
    ]


def test_a_failed_command_leaves_no_folder(voc, tmp_path):
    """Rounds of which the first is refused."""
    done = run(
        *flags(voc, method="en", network="resnet5"), "--rounds=2", f"--output_dir={tmp_path}/a/b",
    )  # fmt: skip
    assert done.returncode == 1 and "did you mean resnet50?" in done.stderr
    assert not os.listdir(tmp_path)
