"""The command that reports on a run, on a run trained through the command line."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import hostile_run
import numpy as np
import pytest
from parsed_html import Parsed
from saved_runs import change_flags, table_rows

from spml_tf import report


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory) -> Path:
    """The finished run under a name that holds HTML."""
    folder = tmp_path_factory.mktemp("reported") / "<b>run"
    shutil.copytree(finished, folder)
    return folder


@pytest.fixture(scope="module")
def written(run, finished) -> Parsed:
    assert report.main([f"--run_dir={run}", f"--compare={finished}", "--images=6"]) == 0
    return Parsed((run / "report.html").read_text("utf-8"))


def test_the_page_shows_the_run(written, run):
    """Scores are those of predictions_test.npz, the missing labels unknown in the training."""
    data = json.loads(written.scripts["gallery-data"])
    assert data["classes"] == ["cat", "cow", "dog"]
    with np.load(run / "predictions_test.npz") as saved:
        scores = dict(zip(saved["names"].tolist(), saved["scores"], strict=True))
    page = (run / "report.html").read_text("utf-8")
    names = re.findall(r'<p class="name">(.*?)</p>', page)
    assert len(set(names[:6])) == 6
    for name, photo in zip(names[:6], data["photos"], strict=False):
        np.testing.assert_allclose(photo["scores"], scores[name], atol=1e-4)
    known = {(row["image"], row["class"]) for row in table_rows(run / "train_labels.csv")}
    assert len(data["photos"]) == len(names) == 6 + 24
    labels = [int(x) for x in re.findall(r'data-photo="\d+" data-shown="(\d+)"', page)]
    shown = {(name, label) for name, label in zip(names[6:], labels, strict=True)}
    assert len(shown) == 24
    assert not {(name, data["classes"][label]) for name, label in shown} & known
    for label, photo in zip(labels, data["photos"][6:], strict=True):
        assert label in photo["classes"]
    assert "Comparison of runs" in written.words


def test_a_hostile_name_is_text(written):
    assert "<b>run" in written.words
    assert written.tags.count("script") == 3  # the data of curves and photos, and the page's own


def test_a_page_without_the_data_set_says_so(run, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("report.html"))
    change_flags(folder, data_dir=str(tmp_path / "gone"))
    assert report.main([f"--run_dir={folder}"]) == 0
    told = capsys.readouterr().err
    assert f"note: photos and missing labels are left out: {folder}: its data cannot be" in told
    page = Parsed((folder / "report.html").read_text("utf-8"))
    assert page.words.count("its data cannot be read") == 2
    assert "canvas" not in page.tags and "table" in page.tags


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--run_dir is missing"),
        (["--run_dir=nowhere"], "nowhere: no run here"),
        (["--run_dir=RUN", "--images=-1"], "--images=-1: must be at least 0"),
        (["--run_dir=RUN", "--compare=RUN"], "stands there twice"),
        (["--run_dir=RUN", "--compare=OTHER"], "have different data sets"),
        (["--run_dir=RUN", "--data_dir=nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_told_in_a_line(run, tmp_path, capsys, flags, message):
    other = hostile_run.write(tmp_path / "other")
    page = run / "report.html"
    before = page.read_bytes() if page.exists() else None
    given = [x.replace("RUN", str(run)).replace("OTHER", str(other)) for x in flags]
    assert report.main(given) == 1
    told = capsys.readouterr().err
    assert message in told and told.count("error:") == 1 and told.count("\n") == 1
    assert "--run_dirs" not in told
    assert (page.read_bytes() if page.exists() else None) == before


def test_a_page_that_would_be_too_large_is_refused(run, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    (folder / "report.html").write_text("before")
    monkeypatch.setattr(report, "_LARGEST_PAGE", 5000)
    assert report.main([f"--run_dir={folder}", "--images=0", "--candidates=0"]) == 1
    assert "--images=0 and --candidates=0: the page would have" in capsys.readouterr().err
    assert (folder / "report.html").read_text() == "before"
