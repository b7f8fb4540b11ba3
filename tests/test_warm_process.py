"""Forked commands are to tests what commands in a new Python are."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest
import warm_process
from conftest import command

# A module that is none of the package's, found in the folder it is started in.
PROBE = """
import atexit, os, sys, threading, time
print(os.environ.get("PROBE"), __name__, sys.argv[1:], os.getcwd(), sys.stdin.read() == "")
print("read by nobody", file=sys.stderr)
if "wait" in sys.argv:
    open("waits", "w").close()
    time.sleep(60)
if "raise" in sys.argv:
    raise ValueError("said at the end")
if "full" in sys.argv:  # of what is printed at the end, where output is kept until then
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
    sys.exit()
atexit.register(print, "at the end")
threading.Thread(target=lambda: time.sleep(0.1) or print("of a thread")).start()
if "returns" not in sys.argv:
    sys.exit({"text": "a last word", "number": 7, "nothing": None}.get(sys.argv[-1]))
"""


@pytest.fixture
def probe(tmp_path):
    (tmp_path / "probe.py").write_text(PROBE)
    return tmp_path


@pytest.mark.parametrize("word", ["text", "number", "nothing", "returns", "full", "raise"])
def test_it_ends_as_in_a_new_python(probe, word, monkeypatch):
    monkeypatch.setenv("PROBE", "told")
    forked = warm_process.run("probe", ["--a b", word], cwd=probe)
    words = [*command()[:2], "probe", "--a b", word]
    new = subprocess.run(words, cwd=probe, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert forked.returncode == new.returncode and forked.stdout == new.stdout
    if word != "full":
        assert forked.stdout.startswith("told __main__ ['--a b', ")
        ends = ["of a thread", "at the end"] if word != "raise" else []
        assert forked.stdout.splitlines()[1:] == ends
    if word == "raise":  # through more frames
        assert forked.stderr.splitlines()[-1] == new.stderr.splitlines()[-1]
    else:
        assert forked.stderr == new.stderr


def test_an_environment_of_its_own(probe):
    forked = warm_process.run("probe", ["number"], probe, env={"PROBE": "another"})
    assert forked.returncode == 7 and forked.stdout.startswith("another __main__")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_many_at_once_are_stopped_one_by_one(probe, number):
    folders = [probe / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
        (folder / "probe.py").write_text(PROBE)
    processes = [warm_process.Process("probe", ["wait"], folder) for folder in folders]
    while not all((folder / "waits").exists() for folder in folders):
        time.sleep(0.01)
    assert len({process.pid for process in processes}) == 3
    for process in processes:
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        process.send_signal(number)
        assert process.wait(60) == -number
        process.kill()  # of what has ended does nothing
    _, errors = processes[0].communicate()
    assert errors.startswith("read by nobody\n")


def test_what_takes_too_long_is_killed(probe):
    with pytest.raises(subprocess.TimeoutExpired):
        warm_process.run("probe", ["wait"], probe, timeout=1)
