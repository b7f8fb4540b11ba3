"""The review server and its journal, with a scripted browser, kills and requests of others."""

from __future__ import annotations

import csv
import dataclasses
import errno
import http.client
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import hostile_run
import pytest
from conftest import run
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from spml_tf import review
from spml_tf.datasets import label_files
from spml_tf.datasets.reviewed_files import JOURNAL_COLUMNS, Journal, read_rows
from spml_tf.pages import audit_page
from spml_tf.pages.report_photos import LabelPhoto
from spml_tf.pages.review_server import ReviewServer

HEADER = ",".join(JOURNAL_COLUMNS) + "\n"


def write_audit(folder: Path, images: int) -> Path:
    """An audit of four labels for each of some images, the last of them with a name of HTML."""
    names = [f"{i}.jpg" for i in range(images - 1)] + [hostile_run.PHOTOS[1]]
    photos = [dataclasses.replace(hostile_run.photo(0), name=name) for name in names]
    missing = [LabelPhoto(photo, label, 0.9, 1, -1) for photo in photos for label in range(4)]
    facts = {"method": "en", "data_fingerprint": "x", "precision": {}}
    folder.mkdir()
    page = audit_page.build("run", facts, hostile_run.CLASSES, missing, [])
    (folder / "audit.html").write_text(page, "utf-8")
    rows = [(x.photo.name, hostile_run.CLASSES[x.label], "", x.score) for x in missing]
    for name, listed in (("missing.csv", rows), ("wrong.csv", [])):
        with open(folder / name, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("image", "class", "label", "score"), *listed])
    return folder


@pytest.fixture(scope="module")
def two_images(tmp_path_factory) -> Path:
    return write_audit(tmp_path_factory.mktemp("audit") / "out", 2)


@pytest.fixture
def audit_dir(two_images, tmp_path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    for name in ("audit.html", "missing.csv", "wrong.csv"):
        os.link(two_images / name, folder / name)
    return folder


class Process:
    """The command as a process of its own, once it serves."""

    def __init__(self, *words: str) -> None:
        command = [sys.executable, "-m", "spml_tf.review", *words]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.decided = self.process.stdout.readline().rstrip()
        self.url = re.search(r"http://127\.0\.0\.1:\d+/\S+/", self.process.stdout.readline())[0]

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()

    def end(self, number: int = signal.SIGKILL) -> tuple[int, str, str]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


@pytest.fixture
def process(audit_dir) -> Iterator[Process]:
    with Process(f"--audit_dir={audit_dir}", "--reviewer=ann") as serving:
        yield serving


def decided(path: Path) -> dict[tuple[str, str], str]:
    return {row.key: row.label for row in read_rows(path) if row.label}


def next_open(browser: webdriver.Chrome) -> int:
    """Moves the focus to the first card that is not decided; its place, -1 for none."""
    return browser.execute_script(
        "const all = [...document.querySelectorAll('.card')];"
        "const at = all.findIndex((card) => !card.dataset.decided);"
        "if (at >= 0) all[at].querySelector('.review button').focus();"
        "return at;"
    )


def shown_as_saved(browser: webdriver.Chrome) -> dict[tuple[str, str], str]:
    found = browser.execute_script(
        "return [...document.querySelectorAll('.card[data-decided]:not([data-unsaved])')]"
        ".map((card) => [card.querySelector('.review').dataset, card.dataset.decided])"
        ".map(([about, label]) => [about.image, about.class, label]);"
    )
    return {(image, name): label for image, name, label in found}


def decide_until_killed(browser, folder: Path, rng: random.Random, longest: float) -> int:
    """Decides by keys until the server is killed, or all is decided; how many are on the disk."""
    path = folder / "reviewed_ann.csv"
    with Process(f"--audit_dir={folder}", "--reviewer=ann") as server:
        assert server.decided == f"{len(decided(path))} labels decided in {path}"
        browser.get(server.url)
        assert shown_as_saved(browser) == decided(path)
        timer = threading.Timer(rng.uniform(0.05, longest), server.process.kill)
        timer.start()
        while server.process.poll() is None and (place := next_open(browser)) >= 0:
            browser.switch_to.active_element.send_keys("a" if place % 3 else "p")
        timer.join()
        server.end()
    assert shown_as_saved(browser).items() <= decided(path).items()
    return len(decided(path))


@pytest.mark.parametrize(
    ("images", "longest"), [(4, 2.5), pytest.param(50, 4.0, marks=pytest.mark.slow)]
)
def test_nothing_is_lost_by_kills(chromium, tmp_path, images, longest):
    """Four decisions an image by keys; the server is killed at random and started again."""
    folder, rng = write_audit(tmp_path / "out", images), random.Random(images)
    starts = 1
    while decide_until_killed(chromium, folder, rng, longest) < 4 * images:
        starts += 1
    print(f"{4 * images} decisions, {starts} starts")
    listed = [row.key for row in read_rows(folder / "missing.csv")]
    expected = {key: "0" if place % 3 else "1" for place, key in enumerate(listed)}
    assert decided(folder / "reviewed_ann.csv") == expected
    names = list(dict.fromkeys(image for image, _ in listed))
    paths = [folder / "reviewed_ann.csv"]
    found = label_files.read_reviewed(paths, names, hostile_run.CLASSES)
    assert found.ravel().tolist() == [int(label) for label in expected.values()]


def test_the_page_undoes_and_tells_what_is_not_saved(chromium, audit_dir, process):
    """Present, absent and back to undecided; after the server has gone the page says so."""
    chromium.get(process.url)
    next_open(chromium)
    chromium.switch_to.active_element.send_keys("p")
    next_open(chromium)
    chromium.switch_to.active_element.send_keys("a")
    card = chromium.find_elements(By.CSS_SELECTOR, ".card")[1]
    card.find_element(By.CSS_SELECTOR, "[data-decision='0']").send_keys("u")
    saved = chromium.find_element(By.ID, "saved")
    WebDriverWait(chromium, 30).until(lambda _: saved.text == "All is saved in reviewed_ann.csv.")
    path = audit_dir / "reviewed_ann.csv"
    assert decided(path) == {("0.jpg", hostile_run.CLASSES[0]): "1"}
    assert path.read_text().count("\n") == 4  # the header and each decision
    code, out, err = process.end(signal.SIGINT)
    assert (code, out, err) == (0, f"\n1 labels decided in {path}\n", "")
    next_open(chromium)
    chromium.switch_to.active_element.send_keys("p")
    WebDriverWait(chromium, 30).until(lambda _: "1 NOT SAVED" in saved.text)
    assert "the server does not answer" in saved.text
    assert len(chromium.find_elements(By.CSS_SELECTOR, ".card[data-unsaved]")) == 1


def test_a_decision_that_is_refused_keeps_no_other_back(chromium, audit_dir, process):
    """Of a label that a newer audit in the folder, which another page has asked for, lacks."""
    chromium.get(process.url)
    first, *others = read_rows(audit_dir / "missing.csv")
    (audit_dir / "missing.csv").unlink()  # a link to the file of all tests
    with open(audit_dir / "missing.csv", "w", newline="", encoding="utf-8") as file:
        rows = [(row.image, row.class_name, "") for row in others]
        csv.writer(file).writerows([("image", "class", "label"), *rows])
    with urllib.request.urlopen(process.url) as other:
        assert other.status == 200
    for key in ("p", "a"):
        next_open(chromium)
        chromium.switch_to.active_element.send_keys(key)
    saved = chromium.find_element(By.ID, "saved")
    path = audit_dir / "reviewed_ann.csv"
    WebDriverWait(chromium, 30).until(lambda _: decided(path) == {others[0].key: "0"})
    WebDriverWait(chromium, 30).until(lambda _: saved.text.startswith("1 NOT SAVED: a label that "))
    unsaved = chromium.find_elements(By.CSS_SELECTOR, ".card[data-unsaved] .review")
    assert [x.get_attribute("data-class") for x in unsaved] == [first.class_name]
    assert process.end(signal.SIGINT)[0] == 0


def test_a_run_is_audited_first(finished, tmp_path, capsys):
    """Once: the second start serves what is there, and an audit of another run is refused."""
    words = (f"--run_dir={finished}", f"--audit_dir={tmp_path / 'out'}")
    stamps = set()
    for number in (0, 1):
        path = tmp_path / "out" / "reviewed_me.csv"
        with Process(*words, "--shown=3") as server:
            assert server.decided == f"{number} labels decided in {path}"
            code, _, notes = server.end(signal.SIGINT)
        page = tmp_path / "out" / "audit.html"
        why = f"has no effect: {page} is there; for a new audit name another folder"
        assert code == 0 and (f"note: --shown=3 {why}\n" in notes) == bool(number), notes
        stamps.add((tmp_path / "out" / "audit.json").stat().st_mtime_ns)
        row = read_rows(tmp_path / "out" / "missing.csv")[0]
        path.write_text(f"{HEADER}{row.image},{row.class_name},1,t\n")
    assert len(stamps) == 1
    assert review.main([f"--run_dir={tmp_path}", words[1]]) == 1
    assert "is not known to be of" in capsys.readouterr().err


@pytest.fixture
def server(audit_dir) -> Iterator[ReviewServer]:
    with (
        Journal.opened(audit_dir / "reviewed_me.csv") as journal,
        ReviewServer(audit_dir, journal) as serving,
    ):
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


def ask(server: ReviewServer, method: str, path: str, body: str = "", **headers: str | None):
    """Status and text of an answer; headers are changed by name with _ for -, or dropped."""
    sent = {"Host": server.host, "Origin": server.origin, "Content-Type": "application/json"}
    changed = {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in ({"Content-Length": str(len(body.encode()))} | sent | changed).items():
        if value is not None:
            connection.putheader(name, value)
    connection.endheaders(body.encode())
    answer = connection.getresponse()
    return answer.status, answer.read().decode("utf-8"), dict(answer.getheaders())


def decision(image: str = "0.jpg", label: str = "1", **more: object) -> str:
    return json.dumps({"image": image, "class": hostile_run.CLASSES[0], "label": label, **more})


def test_the_page_is_served_to_who_knows_the_address(server):
    status, text, headers = ask(server, "GET", server.root, Origin=None)
    assert status == 200 and headers["Referrer-Policy"] == "same-origin"
    assert "default-src 'none'; connect-src 'self'; script-src 'sha256-" in text
    assert server.server_address[0] == "127.0.0.1"
    assert len(server.root) > 32
    assert ask(server, "POST", f"{server.root}decision", decision())[0] == 204
    assert '[["0.jpg",' in ask(server, "GET", server.root)[1]


@pytest.mark.parametrize(
    ("status", "method", "path", "headers"),
    [
        (404, "GET", "/", {}),
        (404, "GET", "ROOTmissing.csv", {}),
        (404, "GET", "ROOT../missing.csv", {}),
        (404, "GET", "ROOTdecision", {}),
        (404, "POST", "ROOT", {}),
        (404, "POST", "/decision", {}),
        (403, "GET", "ROOT", {"Host": "evil.example:80"}),
        (403, "GET", "ROOT", {"Host": "localhost"}),
        (403, "GET", "ROOT", {"Host": None}),
        (403, "GET", "ROOT", {"Origin": "http://evil.example"}),
        (403, "POST", "ROOTdecision", {"Origin": "http://evil.example"}),
        (403, "POST", "ROOTdecision", {"Origin": "null"}),
        (403, "POST", "ROOTdecision", {"Origin": None}),
        (415, "POST", "ROOTdecision", {"Content_Type": "text/plain"}),
        (411, "POST", "ROOTdecision", {"Content_Length": None}),
        (411, "POST", "ROOTdecision", {"Content_Length": "-1"}),
        (413, "POST", "ROOTdecision", {"Content_Length": "65537"}),
        (413, "POST", "ROOTdecision", {"Content_Length": "9" * 5000}),
        (501, "PUT", "ROOTdecision", {}),
        (501, "OPTIONS", "ROOTdecision", {}),
    ],
)
def test_others_get_nothing(server, status, method, path, headers):
    path = path.replace("ROOT", server.root)
    found, text, _ = ask(server, method, path, decision(), **headers)
    assert found == status and server.root not in text
    assert server.journal.path.read_text() == HEADER


@pytest.mark.parametrize(
    "body",
    [
        "", "[" * 60_000, "[]", "{}", "nonsense", decision(more=1), decision(image="../0.jpg"),
        decision(label="2"), decision(label=1), decision(label=["1"]), decision(image={}),
        decision().replace("image", "img"),
    ],
    ids=range(12),
)  # fmt: skip
def test_what_is_no_decision_is_not_written(server, body):
    assert ask(server, "POST", f"{server.root}decision", body)[0] == 400
    assert server.journal.path.read_text() == HEADER


def test_a_decision_that_cannot_be_written_is_told_of(server, monkeypatch, capsys):
    """A full disk: the file is as before, and what comes later is written whole."""
    path = server.journal.path
    assert ask(server, "POST", f"{server.root}decision", decision())[0] == 204
    before = path.read_bytes()

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        status, text, _ = ask(server, "POST", f"{server.root}decision", decision(label="0"))
    assert status == 500 and "No space left" in text
    assert "a decision was not written" in capsys.readouterr().err
    assert path.read_bytes() == before and set(server.journal.decisions().values()) == {"1"}
    assert ask(server, "POST", f"{server.root}decision", decision(label="0"))[0] == 204
    assert path.read_bytes().startswith(before) and set(decided(path).values()) == {"0"}


@pytest.mark.parametrize("change", ["edited", "replaced", "removed"])
def test_a_file_that_others_change_is_left_alone(server, change):
    path = server.journal.path
    if change == "edited":
        path.write_text(HEADER + "0.jpg,cat,1,\n")
    elif change == "replaced":
        path.with_name("new").write_text(HEADER)
        path.with_name("new").replace(path)
    else:
        path.unlink()
    before = path.read_bytes() if path.exists() else None
    status, text, _ = ask(server, "POST", f"{server.root}decision", decision())
    assert status == 500 and "was changed by another program" in text
    assert (path.read_bytes() if path.exists() else None) == before


def test_two_processes_do_not_share_a_file(audit_dir, process):
    words = (f"--audit_dir={audit_dir}", "--reviewer=ann")
    again = run(*words, module="review", new_python=True)
    assert again.returncode == 1 and again.stderr.count("\n") == 1
    assert "reviewed_ann.csv: another process writes there" in again.stderr
    assert process.end(signal.SIGTERM)[0] == 143


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--audit_dir is missing"),
        (["--audit_dir=EMPTY"], "missing.csv: cannot be read"),
        (["--audit_dir=AUDIT", "--reviewer=../x"], "--reviewer=../x: must be letters"),
        (["--audit_dir=AUDIT", "--port=70000"], "--port=70000: must lie between 0 and 65535"),
        (["--audit_dir=AUDIT", "--output_dir=EMPTY"], "--output_dir: is for --merge"),
        (["--audit_dir=AUDIT", "--run_dir=EMPTY"], "audit.json: cannot be read"),
        (["--audit_dir=AUDIT", "--reviewer=table"], "reviewed_table.csv:1: the first line must be"),
        (["--audit_dir=OLD"], "audit.html: is of an earlier version"),
        (["--merge=a.csv,b.csv"], "--output_dir is missing"),
        (["--merge=a.csv,b.csv", "--output_dir=EMPTY", "--audit_dir=AUDIT"], "drop one"),
        (["--merge=a.csv,b.csv", "--output_dir=EMPTY"], "a.csv: cannot be read"),
        *(
            (["--merge=a.csv,b.csv", "--output_dir=EMPTY", flag], f"{name}: is for {modes}, not")
            for flag, name, modes in (
                ("--reviewer=z", "--reviewer", "--audit_dir and --run_dir"),
                ("--port=0", "--port", "--audit_dir and --run_dir"),
                ("--data_dir=x", "--data_dir", "--run_dir"),
                ("--shown=100", "--shown", "--run_dir"),
                ("--batch_size=32", "--batch_size", "--run_dir"),
            )
        ),
        (
            ["--audit_dir=AUDIT", "--shown=100"],
            "--shown: is for --run_dir, not for --audit_dir; leave it out",
        ),
        (["--audit_dir=AUDIT", "--data_dir=X"], "--data_dir: is for --run_dir, not for --audit"),
    ],
)
def test_mistakes_are_told_in_a_line(audit_dir, tmp_path, capsys, words, message):
    (tmp_path / "empty").mkdir()
    (audit_dir / "reviewed_table.csv").write_text("image,class,label\n")
    old = tmp_path / "old"
    old.mkdir()
    for name in ("missing.csv", "wrong.csv"):
        os.link(audit_dir / name, old / name)
    (old / "audit.html").write_text("<html></html>")
    places = {"EMPTY": tmp_path / "empty", "AUDIT": audit_dir, "OLD": old}
    for name, place in places.items():
        words = [word.replace(name, str(place)) for word in words]
    assert review.main(words) == 1
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1
    assert list((tmp_path / "empty").iterdir()) == []
