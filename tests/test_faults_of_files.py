"""What a full disk, a folder that cannot be written, kill -9 and little memory do to commands."""

from __future__ import annotations

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import faulty_machine
import pytest
import warm_process
from conftest import command, flags, run
from faults import fault

from spml_tf import export, predict
from spml_tf.system import cli, files, machine_faults
from spml_tf.system.errors import UserError

PLACES, PREDICTING, MACHINE = "Files and folders", "Predicting and exporting", "Machine"
LONG = "n" * 256
# The commands that write a folder, each with the file that is there before.
WRITING = ("audit", "heatmaps", "analyze", "check", "summary", "prepare", "experiments", "train")


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exports") / "model"
    assert run(f"--run_dir={finished}", f"--export_dir={folder}", module="export").returncode == 0
    return folder


@pytest.fixture
def photos(voc, tmp_path) -> Path:
    """Five photos."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(5):
        shutil.copy(voc / "JPEGImages" / f"2008_val{number:03d}.jpg", folder / f"{number}.jpg")
    return folder


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A disk of 256 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True
        )
    except OSError as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def unwritable(tmp_path) -> Iterator[Path]:
    """A folder with a file in it, which the user may not write to."""
    folder = tmp_path / "unwritable"
    folder.mkdir()
    (folder / "before.txt").write_text("before")
    root = os.geteuid() == 0  # who may write where no permission is given
    if root and (not shutil.which("chattr") or subprocess.run(["chattr", "+i", folder]).returncode):
        pytest.skip("the administrator may write everywhere, and chattr does not work here")
    folder.chmod(0o555) if not root else None
    yield folder
    subprocess.run(["chattr", "-i", folder], check=True) if root else folder.chmod(0o755)


def words(name: str, finished: Path, voc: Path, output: Path) -> list[str]:
    """Module and arguments of a command that writes to a folder."""
    data = [x for x in flags(voc) if x.startswith(("--dataset", "--data_dir", "--classes"))]
    given = [f"--run_dir={finished}", f"--output_dir={output}"]
    if name == "analyze":
        given[0] = f"--run_dirs={finished}"
    elif name in ("check", "summary", "prepare"):
        return ["data", *data, given[1], name, *["--overwrite"] * (name == "prepare")]
    elif name == "experiments":
        plan = voc.parent / "plan.toml"
        plan.write_text(
            'title = "plan"\nseeds = [0]\n[flags]\n'
            + "".join(
                f'{key} = "{value}"\n' for key, value in (x[2:].split("=") for x in flags(voc))
                if key not in ("data_dir", "threads")
            )
            + '[[row]]\nname = "an"\nmethod = "an"\n'
        )  # fmt: skip
        given[0] = f"--plan={plan}"
    elif name == "train":
        return ["train", *flags(voc, method="an", epochs=1), given[1]]
    return [name, *given]


def line(done: subprocess.CompletedProcess[str], code: int = 1) -> str:
    """The error of a command that failed: its last line, and the only one that is no note."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    errors = [x for x in done.stderr.splitlines() if x.startswith(("error: ", "interrupted"))]
    assert errors == done.stderr.splitlines()[-1:], done.stderr
    return errors[0]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", WRITING)
@fault(
    PLACES, "`--output_dir` is a file", "a file of that name", "one line that names it, code 1"
)
@fault(
    PLACES, "a name that is too long", "an `--output_dir` of 256 letters",
    "one line that names it, code 1",
)  # fmt: skip
def test_no_folder_can_be_there(name, finished, voc, tmp_path):
    (tmp_path / "file").write_text("before")
    for place in ("file", LONG):
        module, *given = words(name, finished, voc, tmp_path / place)
        said = line(run(*given, module=module))
        assert place in said and re.search("folder|is a file|exists|too long", said, re.I), said
    assert contents(tmp_path) == {"file": b"before"}
