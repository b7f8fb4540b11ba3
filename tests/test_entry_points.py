"""The commands as processes: their list, their version, their help and what it loads."""

from __future__ import annotations

import configparser
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import run

import spml_tf
from spml_tf.__main__ import COMMANDS

ROOT = Path(__file__).parent.parent
# What a help that answers at once does not wait for.
HEAVY = {"tensorflow", "keras", "numpy", "scipy", "h5py", "matplotlib", "sklearn", "PIL"}
# Runs a command's module as `python -m` does, then says what is loaded.
AS_MAIN = """
import runpy, sys
name, sys.argv[1:] = sys.argv[1], sys.argv[2:]
try:
    runpy.run_module(name, run_name="__main__", alter_sys=True)
finally:
    print(*sys.modules, file=sys.stderr)
"""


def python(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=120)


def test_the_package_lists_its_commands():
    """Eleven lines, each the command's name and what its own help begins with."""
    done = python("-m", "spml_tf")
    assert done.returncode == 0 and not done.stderr
    rows = dict(re.findall(r"^  (\w+) +(\S.+\.)$", done.stdout, re.M))
    assert tuple(rows) == COMMANDS and len(COMMANDS) == 11
    for name, text in rows.items():
        assert importlib.import_module(f"spml_tf.{name}").USAGE.startswith(f"{text}\n")
    assert "python -m spml_tf.COMMAND --help" in done.stdout
    assert python("-m", "spml_tf", "--help").stdout == done.stdout


def test_a_folder_of_the_same_name_shadows_nothing(tmp_path):
    """Such as the checkout, where a command is given in the folder above it."""
    (tmp_path / "spml_tf").mkdir()
    words = sys.executable, "-c", "import spml_tf; print(spml_tf.__version__, spml_tf.__file__)"
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.stdout.split() == [spml_tf.__version__, spml_tf.__file__], done.stderr


def test_every_command_is_installed():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", "utf-8")
    lines = config["options.entry_points"]["console_scripts"].split("\n")
    assert lines[1:] == [f"spml-tf-{name} = spml_tf.{name}:main" for name in COMMANDS]


@pytest.mark.parametrize(
    ("word", "says"),
    [("traim", "'traim' is no command; the commands are train, evaluate, "),
     ("--hlep", "'--hlep' is no command"),
     ("train", "train: write python -m spml_tf.train")],
)  # fmt: skip
def test_a_word_that_is_no_command(word, says):
    done = python("-m", "spml_tf", word)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith(f"error: {says}") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("spml-tf-train --epo", {"--epochs="}),
        ("spml-tf-train --epochs=3 --bank_dtype=", {"float32", "float16", "uint8"}),
        ("spml-tf-train --preset=digits/en_", {"digits/en_scl", "digits/en_cl"}),
        ("spml-tf-train --keep_h", {"--keep_head"}),
        ("spml-tf-train --horizontal_f", {"--horizontal_flip"}),
        ("spml-tf-train --train_csv=setup.c", {"setup.cfg"}),
        ("spml-tf-data che", {"check"}),
        ("spml-tf-experiments --plan=table1_d", {"table1_digits"}),
    ],
)
def test_completion_in_bash(line, found):
    """The script as bash itself calls it at the end of a line."""
    done = python("-m", "spml_tf", "--completion=bash")
    assert done.returncode == 0 and not done.stderr
    script = (
        f'{done.stdout}\nCOMP_LINE="{line}"; COMP_POINT={len(line)}; COMP_WORDS=({line})\n'
        '_spml_tf; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    flag = line.split()[-1].partition("=")[0] + "="
    for breaks, before in (("=", ""), (":", flag if "=" in line.split()[-1] else "")):
        completed = subprocess.run(
            ["bash", "-c", f"COMP_WORDBREAKS='{breaks}'\n{script}"],
            capture_output=True, text=True, cwd=ROOT,
        )  # fmt: skip
        assert completed.returncode == 0 and not completed.stderr
        words = completed.stdout.splitlines()
        assert {before + word for word in found} <= set(words) and len(words) < 50


@pytest.mark.parametrize("module", ["spml_tf", *(f"spml_tf.{name}" for name in COMMANDS)])
def test_the_version(module):
    done = python("-m", module, "--version")
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        f"spml_tf {spml_tf.__version__}\n",
        "",
    )


@pytest.mark.parametrize("module", ["spml_tf.__main__", *(f"spml_tf.{name}" for name in COMMANDS)])
def test_help_loads_nothing_heavy(module):
    done = python("-c", AS_MAIN, module, "--help")
    assert done.returncode == 0 and "python -m spml_tf" in done.stdout
    modules = set(done.stderr.split())
    assert "spml_tf.system.cli" in modules and not HEAVY & modules


def test_warnings_for_users_are_a_line(tmp_path):
    """A table without an unknown label, and a method that marks those: no place in the code."""
    from PIL import Image

    for number in range(4):
        Image.new("RGB", (32, 32), (60 * number,) * 3).save(tmp_path / f"{number}.png")
    rows = "".join(f"{n}.png,{n % 2},{1 - n % 2}\n" for n in range(4))
    (tmp_path / "t.csv").write_text(f"image,cat,dog\n{rows}")
    done = run(
        "--dataset=folder", f"--data_dir={tmp_path}", "--train_csv=t.csv", "--val_csv=t.csv",
        "--network=small_residual", "--weights=none", "--image_size=32", "--epochs=1",
        "--batch_size=2", "--method=en", f"--output_dir={tmp_path / 'run'}", "--threads=1",
        "--train_labels=full",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (line,) = [x for x in done.stderr.splitlines() if "no label is unknown" in x]
    assert line.startswith("note: no label is unknown (-1): the method 'en'")
    assert "UserWarning" not in done.stderr


def test_what_a_library_logs_later_is_a_line():
    """TensorFlow's logger is made while a command holds standard error back."""
    code = (
        "from spml_tf.system.tensorflow_import import import_tensorflow; import_tensorflow(); "
        "import tensorflow; "
        "tensorflow.get_logger().warning('told')"
    )
    done = python("-c", code)
    assert done.returncode == 0 and done.stderr == "WARNING:tensorflow:told\n"
