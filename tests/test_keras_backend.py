"""Keras set to another backend than TensorFlow: one sentence, whoever imports what."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
ADVICE = "set the environment variable KERAS_BACKEND=tensorflow"
# Each with what it needs to come to its first use of TensorFlow.
COMMANDS = {
    "train": ["--dataset=digits"],
    "evaluate": ["--run_dir=x"],
    "export": ["--run_dir=x", "--export_dir=y"],
    "predict": ["--model_dir=x", "--images=*.jpg"],
    "data": ["check", "--dataset=voc", "--data_dir={voc}", "--classes=cat,cow,dog"],
    "experiments": [f"--plan={ROOT / 'experiments' / 'table1_digits.toml'}", "--output_dir=x"],
    "analyze": ["--run_dirs=x", "--output_dir=y"],
    "heatmaps": ["--run_dir=x", "--output_dir=y"],
    "audit": ["--run_dir=x", "--output_dir=y"],
    "report": ["--run_dir=x"],
}


def run(folder: Path, words: list[str], environment: Mapping[str, str]):
    kept = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


MAINS = """
import importlib, json, sys
for name, words in json.loads(sys.argv[1]).items():
    code = importlib.import_module(f"spml_tf.{name}").main(words)
    print(name, code, file=sys.stderr)
"""


def assert_refused(line):
    assert line.startswith("error: spml_tf needs Keras' TensorFlow backend, but found 'jax'")
    assert ADVICE in line


def test_training_says_so_in_one_line(tmp_path):
    done = run(tmp_path, ["-m", "spml_tf.train", *COMMANDS["train"]], {"KERAS_BACKEND": "jax"})
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and not done.stdout
    assert_refused(done.stderr)
    assert not list(tmp_path.iterdir())


def test_every_command_says_so_in_one_line(voc, tmp_path):
    """In one process, in which each comes to TensorFlow anew."""
    words = {name: [x.format(voc=voc) for x in given] for name, given in COMMANDS.items()}
    done = run(tmp_path, ["-c", MAINS, json.dumps(words)], {"KERAS_BACKEND": "jax"})
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert lines[1::2] == [f"{name} 1" for name in COMMANDS] and not done.stdout
    assert len(lines) == 2 * len(COMMANDS)
    for line in lines[::2]:
        assert_refused(line)
    assert not list(tmp_path.iterdir())


def test_help_needs_no_keras(tmp_path):
    done = run(tmp_path, ["-m", "spml_tf.train", "--help"], {"KERAS_BACKEND": "jax"})
    assert done.returncode == 0 and "--dataset" in done.stdout


def test_the_backend_of_keras_own_file(tmp_path):
    """~/.keras/keras.json names another; the advice given, the environment variable, helps."""
    home = tmp_path / "home"
    (home / ".keras").mkdir(parents=True)
    (home / ".keras" / "keras.json").write_text(json.dumps({"backend": "torch"}))
    words = ["-m", "spml_tf.evaluate", "--run_dir=x"]
    done = run(tmp_path, words, {"HOME": str(home)})
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "found 'torch'" in done.stderr and "~/.keras/keras.json" in done.stderr
    done = run(tmp_path, words, {"HOME": str(home), "KERAS_BACKEND": "tensorflow"})
    assert done.returncode == 1 and "backend" not in done.stderr and "x" in done.stderr


def test_a_name_that_is_no_backend(tmp_path):
    words = ["-m", "spml_tf.evaluate", "--run_dir=x"]
    done = run(tmp_path, words, {"KERAS_BACKEND": "tensorflaw"})
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "found 'tensorflaw'" in done.stderr and ADVICE in done.stderr


IMPORT_ALL = """
import importlib, pathlib, sys
package = pathlib.Path(sys.argv[1])
for path in sorted(package.rglob("*.py")):
    parts = path.relative_to(package.parent).with_suffix("").parts
    name = ".".join(x for x in parts if x != "__init__")
    if parts[-1] == "__main__":
        continue
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(name, type(error).__name__, error)
"""


def test_every_module_imports_or_says_so(tmp_path):
    done = run(tmp_path, ["-c", IMPORT_ALL, str(ROOT / "spml_tf")], {"KERAS_BACKEND": "torch"})
    assert done.returncode == 0, done.stderr
    refused = {}
    for line in done.stdout.splitlines():
        name, kind, message = line.split(" ", 2)
        assert kind == "BackendError", line
        assert "found 'torch'" in message and ADVICE in message
        refused[name.removeprefix("spml_tf.")] = message
    some = {"networks", "losses.focal", "banks", "training.model", "evaluation.average_precision"}
    assert some <= set(refused)
    assert not {"spml_tf", "labels", "train", "system.cli", "runs.settings"} & set(refused)


def test_a_backend_that_is_installed_is_refused_too(tmp_path):
    """Keras is imported and runs, on another backend."""
    code = """
import keras
keras.config.backend = lambda: "jax"
import spml_tf
for get in (lambda: spml_tf.SPMLModel, lambda: spml_tf.losses.Hill, lambda: spml_tf.load_network):
    try:
        get()
    except ImportError as error:
        print(error)
"""
    done = run(tmp_path, ["-c", code], {})
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3 and all("found 'jax': " in x and ADVICE in x for x in lines)
