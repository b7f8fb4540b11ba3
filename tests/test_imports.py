"""What importing the package loads, and that it imports where POSIX' own modules are missing."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from spml_tf.__main__ import COMMANDS

# Modules that Windows lacks.
ONLY_POSIX = ("fcntl", "grp", "pwd", "resource", "termios")
WITHOUT_POSIX = f"import sys; sys.modules.update(dict.fromkeys({ONLY_POSIX}))\n"


def printed(code: str) -> str:
    """What a Python program prints, in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def loaded(code: str) -> set[str]:
    """The modules that a Python program has loaded at its end."""
    return set(printed(f"import sys\n{code}\nprint(*sys.modules)").split())


def test_the_package_alone_is_light():
    heavy = {"tensorflow", "keras", "numpy", "scipy", "h5py", "absl"}
    assert not heavy & loaded("import spml_tf")


@pytest.mark.parametrize("module", ["spml_tf.training", "spml_tf.training.model"])
def test_training_needs_no_reader_no_run_and_no_command(module):
    modules = loaded(f"import {module}")
    ours = {name for name in modules if name.split(".")[0] == "spml_tf"}
    print(f"import {module} loads {len(ours)} modules of spml_tf")
    assert module in ours
    folders = {"datasets", "evaluation", "runs", "plans", "figures", "pages", "drawing"}
    assert not {name for name in ours if name.split(".")[1:2] and name.split(".")[1] in folders}
    assert not {f"spml_tf.{name}" for name in (*COMMANDS, "__main__", "system.cli")} & ours
    assert not {"tensorflow_datasets", "filelock"} & modules  # Keras itself loads matplotlib


@pytest.mark.parametrize("module", ["spml_tf.runs.settings", "spml_tf.datasets.splits"])
def test_settings_and_data_need_no_command(module):
    modules = loaded(f"import {module}")
    assert module in modules and not {"spml_tf.system.cli", "tensorflow", "keras"} & modules


def test_commands_load_no_extras_of_keras():
    """Which can be imported afterwards."""
    start = "from spml_tf.system.tensorflow_import import import_tensorflow\nimport_tensorflow()\n"
    modules = loaded(start)
    assert "keras" in modules and not {"sklearn", "matplotlib"} & modules
    after = "import sklearn.base, matplotlib.pyplot, keras\nkeras.layers.Dense(1)(keras.Input([2]))"
    assert {"sklearn", "matplotlib.pyplot"} <= loaded(start + after)


def test_every_module_imports_without_what_only_posix_has():
    code = WITHOUT_POSIX + textwrap.dedent("""
        import importlib, pkgutil, spml_tf
        for module in pkgutil.walk_packages(spml_tf.__path__, "spml_tf."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
        print(len([name for name in sys.modules if name.startswith("spml_tf.")]))
        """)
    assert int(printed(code)) > 60


@pytest.mark.parametrize("before", ["", WITHOUT_POSIX], ids=["as it is", "without fcntl"])
def test_a_lock_ends_with_its_process(before, tmp_path):
    """A second process is refused while the first holds the lock, and no longer once it is killed
    with no chance to clean up."""
    hold = before + textwrap.dedent(f"""
        import pathlib, time
        from spml_tf.system.locks import locked
        with locked(pathlib.Path({str(tmp_path / "a.lock")!r}), "in use"):
            print("held", flush=True)
            time.sleep(%d)
        """)
    command = [sys.executable, "-W", "ignore", "-c"]
    with subprocess.Popen([*command, hold % 300], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "held\n"
        second = subprocess.run([*command, hold % 0], capture_output=True, text=True, timeout=60)
        assert second.returncode == 1 and not second.stdout
        assert second.stderr.endswith("UserError: in use\n")
        first.kill()
    assert printed(hold % 0) == "held\n"
    assert printed(hold % 0) == "held\n"  # nor after one that ended
