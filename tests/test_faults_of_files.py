"""What a full disk, a folder that cannot be written, kill -9 and little memory do to commands."""

from __future__ import annotations

import csv
import dataclasses
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
from conftest import flags, run
from faults import fault

from spml_tf import predict, train
from spml_tf.system import cli, files, folders, locks, machine_faults
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
                if key not in ("data_dir", "threads", "epochs")
            )
            + 'epochs = 1\n[[rows]]\nname = "an"\nmethod = "an"\n'
        )  # fmt: skip
        given = [f"--plan={plan}", given[1], f"--data_dir={voc}"]
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
@fault(PLACES, "`--output_dir` is a file", "a file of that name", "one line that names it, code 1")
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


@pytest.mark.parametrize("name", [*WRITING, "export", "report", "predict"])
@fault(
    PLACES, "a full disk", "no file may grow past 10 bytes to 50 KB (`RLIMIT_FSIZE`)",
    "one line that names the file and what to do, code 1; no new folder is left where nothing was "
    "written to it", "what was being written",
)  # fmt: skip
def test_a_full_disk(name, finished, exported, photos, voc, tmp_path):
    before = contents(finished)
    output = tmp_path / "results" / "new"
    if name == "export":
        given = ["export", f"--run_dir={finished}", f"--export_dir={output}"]
    elif name == "report":
        given = ["report", f"--run_dir={finished}"]
    elif name == "predict":
        given = ["predict", f"--model_dir={exported}", f"--images={photos}/*", f"--output={output}"]
    else:
        given = words(name, finished, voc, output)
    least = {"predict": 50, "check": 10, "prepare": 300, "export": 50000}.get(name, 1000)
    done = faulty_machine.run(f"largest_file:{least}", *given)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    said = done.stderr.splitlines()[-1]
    if name != "experiments":  # which tells of the run that failed
        assert said.startswith("error: ") and "File too large; larger than a file may be" in said
        assert str(output) in said or name == "report" and "report.html" in said
    assert contents(finished) == before
    kept = {"train": True, "experiments": True, "summary": True, "audit": True}
    if name not in kept:
        assert not (tmp_path / "results").exists()


@pytest.mark.slow
@fault(
    PLACES, "a disk that becomes full in mid-training", "no file may grow past 200 KB",
    "one line, code 1; the same command goes on once there is space", "the epoch",
)  # fmt: skip
@fault(
    PLACES, "the run's folder is deleted in mid-training",
    "it is removed at the end of the first epoch",
    "one line that names the file, code 1", "the run",
)  # fmt: skip
def test_training_that_can_write_no_more(voc, tmp_path):
    folder = tmp_path / "run"
    words = [*flags(voc, method="an", epochs=1), f"--output_dir={folder}"]
    said = line(faulty_machine.run("largest_file:200000", "train", *words))
    assert "File too large" in said and str(folder) in said
    assert "Traceback" not in said and not list(folder.rglob(".unfinished*"))
    assert (folder / "run.json").exists()
    done = run(*words)
    assert done.returncode == 0, done.stderr

    gone = tmp_path / "gone"
    words = [*flags(voc, method="an", epochs=1), f"--output_dir={gone}"]
    said = line(faulty_machine.run(f"folder_goes:{gone}", "train", *words))
    assert str(gone) in said and "No such file or directory; " in said


@pytest.mark.parametrize("name", ["summary", "prepare", "heatmaps"])
@fault(
    PLACES, "a folder that may not be written", "its permissions, or `chattr +i` for root",
    "one line that names it, code 1",
)  # fmt: skip
def test_a_folder_without_permission(name, finished, voc, unwritable):
    module, *given = words(name, finished, voc, unwritable / "new")
    said = line(run(*given, module=module))
    assert re.search("(Permission denied|not permitted); choose another, or get the right", said)
    assert contents(unwritable) == {"before.txt": b"before"}


@fault(
    PLACES, "a real disk of 256 KB becomes full", "a small file system that root mounts",
    "one line, code 1; the earlier file stays",
)  # fmt: skip
def test_a_real_disk_that_is_full(voc, small_disk):
    module, *given = words("summary", Path(), voc, small_disk)
    assert run(*given, module=module).returncode == 0
    before = contents(small_disk)
    (small_disk / "filler").write_bytes(
        bytes(os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize)
    )
    said = line(run(*given, module=module))
    assert "No space left on device; free some space there" in said and str(small_disk) in said
    (small_disk / "filler").unlink()
    assert contents(small_disk) == before


@fault(PLACES, "a full disk under standard output", "`evaluate > /dev/full`", "one line, code 1")
@fault(
    PLACES, "nobody reads standard output any more", "a pipe that is closed", "no word, code 141"
)
def test_standard_output_that_takes_nothing(finished):
    said = line(faulty_machine.run("full_output", "evaluate", f"--run_dir={finished}"))
    assert said.startswith("error: No space left on device; ")
    done = faulty_machine.run("unread_output", "evaluate", f"--run_dir={finished}")
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize(
    "words", ["evaluate --version", "evaluate --help", "train --list_presets",
              "__main__ --completion=bash", "__main__ --version", "__main__"],
)  # fmt: skip
def test_what_is_only_printed_and_cannot_be(words):
    said = line(faulty_machine.run("full_output", *words.split()))
    assert said.startswith("error: No space left on device; ")
    done = faulty_machine.run("unread_output", *words.split())
    assert (done.returncode, done.stderr) == (141, "")


@fault(
    PLACES, "a file system without locks", "`flock` fails with ENOLCK",
    "the command works, and notes that another process goes unnoticed",
)  # fmt: skip
def test_a_file_system_without_locks(voc, tmp_path):
    module, *given = words("prepare", Path(), voc, tmp_path / "out")
    done = faulty_machine.run("no_locks", module, *given)
    assert done.returncode == 0, done.stderr
    assert re.search(
        "^note: .*has no locks .No locks available.*goes unnoticed$", done.stderr, re.M
    )
    assert (tmp_path / "out" / "labels.csv").exists()


def test_a_folder_that_is_refused_keeps_no_lock(tmp_path):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(UserError, match="not ours"), locks.locked(tmp_path / ".lock", "busy"):
        raise UserError("not ours")
    assert contents(tmp_path) == {"photo.jpg": b""}


def test_a_link_to_a_folder_of_results_stays_one(tmp_path):
    """What is replaced is the folder that it leads to, as often as one likes."""
    (tmp_path / "disk" / "results").mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "disk" / "results")
    for text in ("one", "two"):
        with folders.replaced_folder(link) as folder:
            (folder / "x").write_text(text)
    assert link.is_symlink() and (tmp_path / "disk" / "results" / "x").read_text() == "two"
    assert sorted(x.name for x in tmp_path.iterdir()) == ["disk", "link"]


def test_a_lock_that_cannot_be_made_is_no_other_process(unwritable):
    with (
        pytest.raises(UserError, match=r"\.lock: .*(denied|not permitted); "),
        locks.locked(unwritable / ".lock", "another process"),
    ):
        pass


@fault(
    PLACES, "a name of 255 bytes", "a file of results of that name",
    "written; the temporary file has a shorter name",
)  # fmt: skip
def test_names_as_long_as_they_may_be(tmp_path):
    path = tmp_path / ("é" * 125 + ".keras"[:5])
    assert len(os.fsencode(path.name)) == 255
    with files.replaced(path) as temporary:
        assert temporary.suffix == path.suffix and len(os.fsencode(temporary.name)) <= 255
        temporary.write_text("new")
    assert [x.name for x in tmp_path.iterdir()] == [path.name] and path.read_text() == "new"
    other = tmp_path / ("é" * 124 + "èe.kera"[:6])
    with files.replaced(path) as first, files.replaced(other) as second:
        assert first != second
        first.touch()
        second.touch()


@pytest.mark.parametrize("kind", ["link", "device", "photo", "model"])
@fault(
    PREDICTING, "`--output` is a link, a device or a file that is read",
    "a symbolic link, /dev/null, one of the photos, the export's classes.json",
    "one line before anything is computed, code 1",
)  # fmt: skip
def test_outputs_that_are_refused(kind, exported, photos, tmp_path):
    (tmp_path / "mine.csv").write_text("mine")
    (tmp_path / "link.csv").symlink_to(tmp_path / "mine.csv")
    model = shutil.copytree(exported, tmp_path / "model")
    output, reason = {
        "link": (tmp_path / "link.csv", "is a symbolic link"),
        "device": (Path(os.devnull), "is a device or a pipe"),
        "photo": (photos / "1.jpg", "is read by this command"),
        "model": (model / "classes.json", "is read by this command"),
    }[kind]
    before, device = contents(tmp_path), os.stat(os.devnull)
    words = [f"--model_dir={model}", f"--images={photos}/*", f"--output={output}"]
    assert f"error: --output={output}: {reason}" in line(run(*words, module="predict"))
    assert contents(tmp_path) == before and (tmp_path / "link.csv").is_symlink()
    assert os.stat(os.devnull).st_rdev == device.st_rdev


def test_an_overlay_does_not_replace_a_photo(exported, photos, tmp_path):
    """1.jpg's overlay would be 1.jpg.png, which is a photo here."""
    shutil.copy(photos / "2.jpg", photos / "1.jpg.png")
    before = contents(photos)
    words = [f"--model_dir={exported}", f"--images={photos}/*", f"--output={tmp_path}/p.csv"]
    said = line(run(*words, f"--overlays={photos}", module="predict"))
    assert "1.jpg.png: is read by this command" in said
    assert contents(photos) == before and not (tmp_path / "p.csv").exists()


@fault(
    PREDICTING, "an overlay that cannot be written",
    "a photo in folders whose names, joined, have more than 255 bytes",
    "it is named and counted, code 1; all rows and the other overlays are there", "that overlay",
)  # fmt: skip
def test_an_overlay_that_fails_alone(exported, photos, tmp_path):
    deep = photos / ("d" * 150) / ("e" * 150)
    deep.mkdir(parents=True)
    (photos / "3.jpg").rename(deep / "3.jpg")
    words = [f"--model_dir={exported}", f"--images={photos}/**/*", f"--output={tmp_path}/p.csv"]
    done = run(*words, f"--overlays={tmp_path}/o", module="predict")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    first, last = done.stderr.splitlines()
    assert first.startswith(f"error: the overlay of {deep}/3.jpg: cannot be written (")
    assert "File name too long" in first and last.endswith(": 1 overlays cannot be written")
    with open(tmp_path / "p.csv", newline="") as file:
        assert len(list(csv.reader(file))) == 6
    assert sorted(x.name for x in (tmp_path / "o").iterdir()) == [
        f"{n}.jpg.png" for n in (0, 1, 2, 4)
    ]


@fault(
    PREDICTING, "a disk that becomes full, or Ctrl-C, in mid-prediction",
    "the file may not grow past its second row; SIGINT after the first rows",
    "one line names the file that holds the whole rows so far; code 1, or 130; the earlier output "
    "stays", "the rows after those",
)  # fmt: skip
def test_rows_so_far_are_kept(exported, photos, tmp_path):
    output, kept = tmp_path / "p.csv", tmp_path / ".unfinished-p.csv"
    words = [f"--model_dir={exported}", f"--images={photos}/*", f"--output={output}"]
    words += ["--batch_size=1"]  # throughout: the last digit depends on it
    assert run(*words, module="predict").returncode == 0
    whole = output.read_bytes()
    lines = whole.splitlines(keepends=True)
    fit = len(lines[0]) + 2 * len(lines[1]) + 5
    output.write_text("before")
    said = line(faulty_machine.run(f"largest_file:{fit}", "predict", *words))
    assert f"error: {output}: File too large; " in said and f"2 rows are kept in {kept}" in said
    assert kept.read_bytes() == b"".join(lines[:3]) and output.read_text() == "before"

    kept.unlink()
    words += [f"--overlays={tmp_path}/o"]
    process = warm_process.Process("spml_tf.predict", words)
    while not (kept.exists() and kept.read_bytes().count(b"\n") > 1):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    errors = process.communicate()[1]
    assert process.returncode == 130, errors
    rows = kept.read_bytes()
    told = re.fullmatch(rf"interrupted: (\d) rows? (is|are) kept in {kept}\n", errors)
    assert told and rows == b"".join(lines[: int(told[1]) + 1]) and output.read_text() == "before"


def test_a_row_that_holds_line_ends_is_kept_whole_or_not_at_all(tmp_path):
    def rows():
        yield ["a\nb", 1]
        yield ["c\nd", 2]
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space") as caught:
        files.write_csv(tmp_path / "t.csv", ["x", "n"], rows(), into=files.rows_kept)
    kept = tmp_path / ".unfinished-t.csv"
    assert caught.value.__notes__ == [f"2 rows are kept in {kept}"]
    assert kept.read_bytes() == b'x,n\n"a\nb",1\n"c\nd",2\n'
    kept.write_bytes(kept.read_bytes()[:-4])  # within the quotation marks of the last row
    assert files._cut_to_rows(kept) == f"1 row is kept in {kept}"
    assert kept.read_bytes() == b'x,n\n"a\nb",1\n'


@pytest.mark.parametrize("way", ["", ":no_swap"])
@fault(
    PREDICTING, "kill -9 when a new folder takes the place of an old one",
    "before each of the system calls that do it, with and without a call that swaps two names",
    "the old or the new folder is under the name, at once or once the next command has begun",
)  # fmt: skip
def test_a_folder_is_always_under_its_name(way, tmp_path):
    """Without TensorFlow: the function of folders.py that export, analyze and prepare call."""
    code = (
        "import sys, pathlib; sys.path[0] = {tests!r}; import faulty_machine\n"
        "from spml_tf.system import folders\n"
        "target = pathlib.Path({target!r}); faulty_machine.killed({fault!r})\n"
        "with folders.replaced_folder(target) as folder: (folder / 'x').write_text('new')\n"
    )
    codes, states = [], []
    for number in range(1, 9):
        target = tmp_path / f"{number}" / "model"
        target.mkdir(parents=True)
        (target / "x").write_text("old")
        fault = f"{number}:{target}{way}"
        words = code.format(tests=str(Path(__file__).parent), target=str(target), fault=fault)
        done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        if not way:
            assert target.exists()
        folders.put_back(target)
        codes.append(done.returncode)
        states.append((target / "x").read_text())
        with folders.replaced_folder(target) as folder:
            (folder / "x").write_text("newer")
        assert contents(target.parent).keys() == {"model/x", f"model/{files.RECORD}"}
        assert (target / "x").read_text() == "newer"
        if not done.returncode:
            break
    assert codes.count(-signal.SIGKILL) >= 3 and codes[-1] == 0
    assert states[0] == "old" and states[-1] == "new" and sorted(states, reverse=True) == states


@fault(
    PREDICTING, "kill -9 inside `export --overwrite`",
    "between the two renamings of a system that cannot swap names",
    "predict finds the earlier export and puts it back",
)  # fmt: skip
def test_export_is_killed(finished, exported, photos, tmp_path):
    target = shutil.copytree(exported, tmp_path / "model")
    before = contents(target)
    words = [f"--run_dir={finished}", f"--export_dir={target}", "--overwrite"]
    done = faulty_machine.run(f"killed:4:{target}:no_swap", "export", *words)
    assert done.returncode == -signal.SIGKILL and not target.exists(), done.stderr
    predicting = [f"--model_dir={target}", f"--images={photos}/*", f"--output={tmp_path}/p.csv"]
    assert run(*predicting, module="predict").returncode == 0
    assert contents(target) == before


@fault(
    PLACES, "results that a person has filled in",
    "audit's missing.csv gets a label and audit runs again; alike check.csv, classes.csv, "
    "top_heatmaps.csv, labels.csv, an analysis' index.md, an export's classes.json",
    "refused in one line, even with `--overwrite`, code 1",
)  # fmt: skip
@pytest.mark.parametrize(
    ("name", "edited"),
    [
        ("audit", "missing.csv"), ("analyze", "index.md"),
        pytest.param("heatmaps", "top_heatmaps.csv", marks=pytest.mark.slow),
        ("check", "check.csv"), ("summary", "classes.csv"), ("prepare", "labels.csv"),
        pytest.param("export", "classes.json", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_what_a_person_has_edited_stays(name, edited, finished, exported, voc, tmp_path):
    folder = tmp_path / "out"
    module, *given = words(name, finished, voc, folder)
    if name == "export":
        given = [given[0], f"--export_dir={folder}", "--overwrite"]
    for _ in range(1 if name in ("audit", "heatmaps", "analyze") else 2):  # replaces its own
        done = run(*given, module=module)
        assert done.returncode == 0, done.stderr
    with open(folder / edited, "a") as file:
        file.write("a note of mine\n")
    before = contents(folder)
    said = line(run(*given, module=module))
    assert f"{folder / edited}: was edited" in said
    assert contents(folder) == before


@fault(
    PLACES, "a file that the command did not write, in a folder of results",
    "prepare finds mine.txt in a folder of its own; alike import and export, at any depth",
    "refused in one line that names it, even with `--overwrite`, code 1",
)  # fmt: skip
def test_what_others_wrote_stays(voc, tmp_path):
    folder = tmp_path / "out"
    module, *given = words("prepare", Path(), voc, folder)
    assert run(*given, module=module).returncode == 0
    (folder / "inner").mkdir()
    (folder / "inner" / "mine.txt").write_text("mine")
    before = contents(folder)
    said = line(run(*given, "--overwrite", module=module))
    assert "holds 'inner/mine.txt', which this command has not written; move it" in said
    assert contents(folder) == before


@fault(
    PREDICTING, "`evaluate` of a run that is not finished", "metrics.json, and then network.keras, "
    "are not there", "a note; where there is no network yet one line, code 1",
)  # fmt: skip
def test_evaluate_says_that_a_run_is_not_finished(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "run")
    (folder / "metrics.json").unlink()
    done = run(f"--run_dir={folder}", module="evaluate")
    assert done.returncode == 0 and done.stderr.startswith(f"note: {folder}: not finished: this is")
    (folder / "network.keras").unlink()
    said = line(run(f"--run_dir={folder}", module="evaluate"))
    assert said.startswith(f"error: {folder}: no epoch of it is finished; ")


@pytest.mark.slow
@fault(
    MACHINE, "memory is used up",
    "`train --heatmap_size=10000`: banks of 29 GB where 4 GB are left",
    "one line that names the flags to lower, code 1",
)  # fmt: skip
def test_the_flag_to_lower_is_named(voc, tmp_path):
    words = flags(voc, method="en+scl", heatmap_size=10000, epochs=2)
    said = line(faulty_machine.run("little_memory", "train", *words, f"--output_dir={tmp_path}/r"))
    assert "error: memory is used up; lower --batch_size=5 or --image_size=32" in said
    assert "--heatmap_size=10000" in said and "--bank_dtype=uint8" in said


def test_errors_of_memory_are_told_apart_from_those_of_disks():
    import numpy as np
    import tensorflow as tf

    oom = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[9]")
    disk = tf.errors.ResourceExhaustedError(None, None, "/x/y.index; No space left on device")
    with pytest.raises(MemoryError) as caught:
        np.empty(1 << 60, np.uint8)
    assert machine_faults.out_of_memory(oom) and machine_faults.out_of_memory(caught.value)
    assert not machine_faults.out_of_memory(disk)
    assert machine_faults.line(machine_faults.os_error(disk)).startswith(
        "/x/y.index: No space left"
    )
    assert machine_faults.os_error(oom) is None


@fault(
    MACHINE, "an error that nobody expected", "a KeyError in the reader",
    "one line that says how to report it, code 2; the traceback is in a file that it names, or "
    "before it with `--debug`",
)  # fmt: skip
def test_the_last_resort(voc, tmp_path):
    module, *given = words("summary", Path(), voc, tmp_path / "out")
    said = line(faulty_machine.run("unexpected", module, *given), code=2)
    path = Path(re.search(r"report it .*, with (\S+)$", said)[1])
    text = path.read_text()
    path.unlink()
    assert (
        "unexpected KeyError: 'an\\\\nentry'" in said.replace("\\n", "\\\\n")
        and "Traceback" in text
    )
    assert f"--output_dir={tmp_path / 'out'}" in text and "spml_tf 0." in text
    done = faulty_machine.run("unexpected", module, *given, "--debug")
    assert done.returncode == 2 and "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].endswith("with the command and the traceback above")
    (tmp_path / "own.flags").write_text("--debug\n")
    done = faulty_machine.run("unexpected", module, *given, f"--flagfile={tmp_path / 'own.flags'}")
    assert done.returncode == 2 and "Traceback" in done.stderr
    assert not (tmp_path / "out").exists()


def test_debug_reaches_the_workers():
    assert "--debug" not in cli.flags_of_workers(predict._Options())
    token = cli._debugging.set(True)
    assert cli.flags_of_workers(predict._Options())[:2] == ["--strategy=multi_worker", "--debug"]
    cli._debugging.reset(token)


def test_workers_get_what_a_preset_and_flags_came_to():
    """Not the preset again, which would take the place of flags that have their defaults."""
    words = ["--preset=digits/en", "--method=en+scl", "--epochs=3", "--workers=2"]
    given = cli.parse(words, train._Options, "")
    passed = cli.flags_of_workers(given)
    again = cli.parse(passed, train._Options, "")
    assert (again.method, again.learning_rate) == (given.method, given.learning_rate)
    assert (given.method, given.epochs, given.learning_rate) == ("en+scl", 3, 8e-3)
    same = {"preset": None, "workers": 0, "strategy": "multi_worker"}
    assert dataclasses.replace(given, **same) == again
