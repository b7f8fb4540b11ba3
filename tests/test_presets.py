"""Flagfiles and plans by name, from the checkout and from a wheel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from spml_tf import experiments, train
from spml_tf.plans.plan_files import read_plan
from spml_tf.runs.settings import resolve
from spml_tf.system import cli, presets
from spml_tf.system.errors import UserError

ROOT = Path(__file__).parent.parent
# What a wheel is made of.
SOURCES = ("spml_tf", "experiments", "setup.py", "setup.cfg", "pyproject.toml", "README.md")


def settings(*words: str):
    return resolve(train._settings(cli.parse(words, train._Options, "")))


def test_every_flagfile_and_plan_has_a_name():
    found = {str(x.relative_to(ROOT / "experiments"))[:-6] for x in ROOT.rglob("*.flags")}
    assert set(presets.flagfiles()) == found and "digits/en_scl" in found and "coco" in found
    assert set(presets.plans()) == {x.stem for x in (ROOT / "experiments").glob("*.toml")}


def test_a_preset_is_its_flagfile():
    file = f"--flagfile={ROOT / 'experiments' / 'digits' / 'en_scl.flags'}"
    assert settings("--preset=digits/en_scl") == settings(file)
    assert settings("--preset=digits/en_scl").learning_rate == 8e-3


def test_flags_beside_a_preset_win_wherever_they_stand(tmp_path):
    """Before it, after it, and in a flagfile that names the preset."""
    (tmp_path / "own.flags").write_text("--epochs=7\n--preset=digits/en_scl\n")
    for words in (
        ["--epochs=7", "--preset=digits/en_scl"],
        ["--preset=digits/en_scl", "--epochs=7"],
        ["--preset", "digits/en_scl", "--epochs=7"],
        [f"--flagfile={tmp_path / 'own.flags'}"],
    ):
        found = settings(*words)
        assert (found.epochs, found.heatmap_size) == (7, 16), words


@pytest.mark.parametrize(
    ("main", "words", "says"),
    [
        (train.main, ["--preset=digits/en_slc"], "--preset=digits/en_slc: unknown; --list_presets "
         "lists those there are; did you mean digits/en_scl?"),
        (experiments.main, ["--plan=table1_digit", "--output_dir=x"], "--plan=table1_digit: unknow"
         "n; --list_presets lists those there are; did you mean table1_digits?"),
    ],
)  # fmt: skip
def test_mistyped_names(main, words, says, capsys):
    assert main(words) == 1
    assert capsys.readouterr().err == f"error: {says}\n"


def test_listings(capsys):
    for main, name, says in (
        (train.main, "digits/en_scl", "EN+SCL, on the embedded digit scenes: 4,000 training"),
        (experiments.main, "table1_digits", "Table 1 of Verelst et al."),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["--list_presets"])
        assert ended.value.code == 0
        assert re.search(rf"^{name} +{re.escape(says)}", capsys.readouterr().out, re.M)


def test_a_plan_by_its_name(tmp_path, monkeypatch):
    """From its name and from its file, which a file in this folder goes before."""
    file = str(ROOT / "experiments" / "table2_digits.toml")
    assert read_plan(presets.plan("table2_digits")) == read_plan(file)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table2_digits").mkdir()  # results of it
    assert read_plan(presets.plan("table2_digits")) == read_plan(file)
    assert presets.plan(file) == file and presets.plan("no.toml") == "no.toml"
    with pytest.raises(UserError, match="table2_digits"):
        presets.plan("table2_digit")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel's content, without an installation: what a user of pip has."""
    folder = tmp_path_factory.mktemp("wheel")
    (folder / "source").mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, folder / "source" / name)
    shutil.copyfile(ROOT / "LICENSE", folder / "source" / "LICENSE")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--no-index", f"--wheel-dir={folder}", str(folder / "source")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (found,) = folder.glob("*.whl")
    with zipfile.ZipFile(found) as file:
        file.extractall(folder / "content")
    return folder / "content"


def in_wheel(wheel: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env={**os.environ, "PYTHONPATH": str(wheel)},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_the_wheel_has_all_presets(wheel, tmp_path):
    for name, found in (("train", presets.flagfiles()), ("experiments", presets.plans())):
        words = ["-m", f"spml_tf.{name}", "--preset=digits/en_scl", "--list_presets"]
        done = in_wheel(wheel, tmp_path, *words[: 2 + (name == "train")], words[-1])
        assert done.returncode == 0, done.stderr
        assert [line.split()[0] for line in done.stdout.splitlines()] == sorted(found)
    code = (
        "import spml_tf; print(spml_tf.__file__)\n"
        "from spml_tf import train; from spml_tf.system import cli\n"
        "print(cli.parse(['--preset=digits/en_scl', '--epochs=7'], train._Options, ''))"
    )
    done = in_wheel(wheel, tmp_path, "-c", code)
    place, read = done.stdout.splitlines()
    assert place == f"{wheel}/spml_tf/__init__.py"
    assert "method='en+scl'" in read and "epochs=7" in read and "learning_rate=0.008" in read


def test_the_wheel_says_what_it_is(wheel):
    (metadata,) = wheel.glob("*.dist-info/METADATA")
    text = metadata.read_text()
    assert "\nAuthor: The spml_tf authors\n" in text and "\nKeywords: multi-label" in text
    for version in ("3.11", "3.12", "3.13"):
        assert f"\nClassifier: Programming Language :: Python :: {version}\n" in text
    assert not (wheel / "spml_tf" / "presets" / "results").exists()
    assert not (wheel / "experiments").exists() and not (wheel / "tests").exists()
