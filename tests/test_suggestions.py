"""Photos to label next: the choice by hand, the command, and the way back into training."""

from __future__ import annotations

import csv
import dataclasses
import json
import threading
from collections import Counter
from pathlib import Path

import browsing
import hostile_run
import numpy as np
import pytest
from conftest import CLASSES, run
from hypothesis import given, settings
from hypothesis import strategies as st
from saved_runs import newest_weights, table_rows
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from spml_tf import review
from spml_tf.datasets.reviewed_files import Journal
from spml_tf.evaluation.rules import SUGGESTIONS
from spml_tf.evaluation.suggestions import suggest_images
from spml_tf.pages import suggest_page
from spml_tf.pages.review_server import ReviewServer
from spml_tf.pages.suggest_page import SuggestedPhoto
from spml_tf.runs import checkpoint_contents, run_data
from spml_tf.runs.run_folder import RunFolder

SCORES = np.array([[0.5, 0.5], [0.9, 0.25], [0.75, 0.2], [0.1, 0.6], [0.9, 0.9], [0.4, np.nan]])
LABELS = np.array([[-1, -1], [1, -1], [-1, 0], [-1, -1], [1, 0], [-1, -1]])


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        # Sums of unknown scores: 1.0, 0.25, 0.75, 0.7, none, 0.4.
        ("missing", [0, 2, 3, 5, 1]),
        # Entropies: 1.386, 0.562, 0.562, 0.998, none, 0.673.
        ("uncertainty", [0, 3, 5, 1, 2]),
        # Against 0.5 everywhere: 0, 0.25, 0.25, 0.5, none, 0.1.
        ("disagreement", [3, 1, 2, 5, 0]),
    ],
)
def test_sums_over_unknown_labels(rule, expected):
    found = suggest_images(SCORES, LABELS, 9, rule, np.full(SCORES.shape, 0.5))
    assert found.tolist() == expected
    assert (
        suggest_images(SCORES, LABELS, 2, rule, np.full(SCORES.shape, 0.5)).tolist()
        == (expected[:2])
    )


@settings(max_examples=60)
@given(st.integers(0, 2**31 - 1), st.integers(2, 9), st.integers(1, 4))
def test_gain_is_the_greedy_choice(seed, images, classes):
    """Against a loop that compares all images anew each time."""
    rng = np.random.default_rng(seed)
    scores = rng.random((images, classes)).round(2)
    labels = rng.choice([1, 0, -1], (images, classes))
    total = np.maximum((labels == 1).sum(axis=0), 1).astype(float)
    left = [n for n in range(images) if (labels[n] == -1).any()]
    expected = []
    while left:
        chance = np.where(labels == -1, scores, 0)
        gains = [np.log1p(chance[n] / total).sum() for n in left]
        best = left[int(np.argmax(gains))]
        expected.append(best)
        left.remove(best)
        total = total + chance[best]
    assert suggest_images(scores, labels, images).tolist() == expected


def test_random_is_a_choice_of_the_seed():
    draws = [tuple(suggest_images(SCORES, LABELS, 3, "random", seed=s).tolist()) for s in range(40)]
    assert len(set(draws)) > 10 and draws[0] == tuple(
        suggest_images(SCORES, LABELS, 3, "random", seed=0).tolist()
    )
    assert {x for draw in draws for x in draw} == {0, 1, 2, 3, 5}


def test_refusals():
    with pytest.raises(ValueError, match="rule must be one of gain"):
        suggest_images(SCORES, LABELS, 1, "best")
    with pytest.raises(ValueError, match="disagreement: give other_scores"):
        suggest_images(SCORES, LABELS, 1, "disagreement")
    with pytest.raises(ValueError, match="must have one shape"):
        suggest_images(SCORES[:2], LABELS, 1)


@pytest.mark.parametrize("rule", SUGGESTIONS)
def test_the_command_lists_every_unknown_label_of_the_photos(finished, tmp_path, rule):
    done = run(
        f"--run_dir={finished}", "--suggest=4", f"--suggest_by={rule}",
        f"--output_dir={tmp_path / 'out'}", module="audit",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "4 photos to label in full, best first" in done.stdout
    rows = table_rows(tmp_path / "out" / "suggest.csv")
    data = run_data.load_of_run(RunFolder(finished))
    saved = checkpoint_contents.read_checkpoint(newest_weights(finished), data.observed)
    ranks = {int(row["rank"]): row["image"] for row in rows}
    assert sorted(ranks) == [1, 2, 3, 4]
    for row in rows:
        cell = data.train.names.index(row["image"]), CLASSES.index(row["class"])
        assert data.observed[cell] == -1 and row["label"] == ""
        assert float(row["score"]) == pytest.approx(saved.scores[cell], abs=1e-6)
    for image, count in Counter(row["image"] for row in rows).items():
        assert count == (data.observed[data.train.names.index(image)] == -1).sum()
    facts = json.loads((tmp_path / "out" / "suggest.json").read_text())
    assert facts["rule"] == rule and facts["images"] == 4 and facts["labels"] == len(rows)
    assert facts["run_dir"] == str(finished)
    page = (tmp_path / "out" / "suggest.html").read_text("utf-8")
    assert page.count('class="review"') == len(rows) and page.count("<figure") == 4
    assert "suggest.csv lists" not in page  # it shows all of them
    if rule == "missing":
        worth = np.where(data.observed == -1, saved.scores, 0).sum(axis=1)
        best = np.argsort(-worth, kind="stable")[:4]
        assert [ranks[k] for k in (1, 2, 3, 4)] == [data.train.names[n] for n in best]


def test_filled_in_it_goes_back_into_training(finished, tmp_path):
    words = f"--run_dir={finished}", "--suggest=3", f"--output_dir={tmp_path}"
    assert run(*words, module="audit").returncode == 0
    data = run_data.load_of_run(RunFolder(finished))
    rows = table_rows(tmp_path / "suggest.csv")
    for row in rows:
        cell = data.train.names.index(row["image"]), CLASSES.index(row["class"])
        row["label"] = str(data.train.labels[cell])
    with open(tmp_path / "suggest.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    again = run(*words, module="audit")  # what a person has written is kept
    assert again.returncode == 1 and "suggest.csv" in again.stderr
    done = run(
        f"--run_dir={finished}", f"--reviewed={tmp_path / 'suggest.csv'}",
        f"--output_dir={tmp_path / 'next'}", module="audit",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    labels = table_rows(tmp_path / "next" / "train_labels.csv")
    suggested = {row["image"] for row in rows}
    known = Counter(row["image"] for row in labels if row["label"])
    for image in suggested:
        assert known[image] == len(CLASSES)


def test_shown_limits_the_page_alone(finished, tmp_path):
    done = run(
        f"--run_dir={finished}", "--suggest=3", "--shown=1", f"--output_dir={tmp_path}",
        module="audit",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = table_rows(tmp_path / "suggest.csv")
    first = sum(row["rank"] == "1" for row in rows)
    page = (tmp_path / "suggest.html").read_text("utf-8")
    assert page.count('class="review"') == first and page.count("<figure") == 1
    assert (
        f"lists {len(rows)} labels, this page the {first} most probable ones of 1 photos." in page
    )


def test_a_folder_has_one_page(finished, tmp_path):
    """Both are reviewed by a folder's name; whichever is there first stays as it is."""
    for there, words in (
        ("suggest.html", []),
        ("audit.html", ["--suggest=3"]),
    ):
        folder = tmp_path / there
        folder.mkdir()
        (folder / there).write_text("x")
        done = run(f"--run_dir={finished}", *words, f"--output_dir={folder}", module="audit")
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert f"--output_dir={folder}: holds {there}" in done.stderr
        assert [path.name for path in folder.iterdir()] == [there]


@pytest.fixture
def suggested(tmp_path) -> Path:
    """Two photos to label in full, three unknown labels of the first, one of the second."""
    folder = tmp_path / "next"
    folder.mkdir()
    names = ("0.jpg", hostile_run.PHOTOS[1])
    first, second = (dataclasses.replace(hostile_run.photo(0), name=name) for name in names)
    photos = [
        SuggestedPhoto(first, (2, 0, 3), (0.75, 0.5, 0.25)),
        SuggestedPhoto(second, (1,), (0.5,)),
    ]
    facts = {"rule": "gain", "data_fingerprint": "x"}
    page = suggest_page.build("<i>run", facts, hostile_run.CLASSES, photos, listed=4)
    (folder / "suggest.html").write_text(page, "utf-8")
    with open(folder / "suggest.csv", "w", newline="", encoding="utf-8") as file:
        rows = [(x.photo.name, hostile_run.CLASSES[label]) for x in photos for label in x.labels]
        csv.writer(file).writerows([("image", "class", "label"), *((*row, "") for row in rows)])
    return folder


def test_photos_are_labelled_in_full_by_keys(chromium, downloads, suggested):
    """One present, the rest of the photo absent, then the next photo; undone in steps."""
    classes, hostile = hostile_run.CLASSES, hostile_run.PHOTOS[1]
    with Journal.opened(suggested / "reviewed_ann.csv") as journal:
        with ReviewServer(suggested, journal) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            chromium.get_log("browser")  # what pages of other tests had to say
            chromium.get(server.url)
            labels = chromium.find_elements(By.CSS_SELECTOR, ".review")
            cards = chromium.find_elements(By.CSS_SELECTOR, ".card")
            count, saved = (chromium.find_element(By.ID, name) for name in ("count", "saved"))
            assert [x.get_attribute("data-class") for x in labels] == [
                classes[2], classes[0], classes[3], classes[1],
            ]  # fmt: skip
            assert count.text == "0 of 2 photos done, 0 of 4 labels decided"
            browsing.press(chromium, labels[0].find_element(By.CSS_SELECTOR, "button"), "p")
            # The focus has gone to class 0, whose heatmap is 1 in the first cell and 0 elsewhere.
            assert cards[0].get_attribute("data-shown") == "0"
            assert browsing.pixel(chromium, 0, 0.1, 0.1) != browsing.pixel(chromium, 0, 0.9, 0.9)
            chromium.switch_to.active_element.send_keys("r")
            assert count.text == "1 of 2 photos done, 3 of 4 labels decided"
            assert cards[0].get_attribute("data-decided") == "all"
            chromium.switch_to.active_element.send_keys("a")  # of the second photo
            WebDriverWait(chromium, 30).until(lambda _: "All is saved" in saved.text)
            assert dict(journal.decisions()) == {
                ("0.jpg", classes[2]): "1", ("0.jpg", classes[0]): "0",
                ("0.jpg", classes[3]): "0", (hostile, classes[1]): "0",
            }  # fmt: skip
            for _ in range(2):  # the second photo's label, then the two that were the rest
                chromium.find_element(By.ID, "undo").click()
            assert count.text == "0 of 2 photos done, 1 of 4 labels decided"
            WebDriverWait(chromium, 30).until(lambda _: "All is saved" in saved.text)
            assert dict(journal.decisions()) == {("0.jpg", classes[2]): "1"}
            path = downloads / "reviewed.csv"
            path.unlink(missing_ok=True)  # of another test's page
            chromium.find_element(By.ID, "save").click()
            WebDriverWait(chromium, 30).until(lambda _: path.exists())
            assert [list(row.values()) for row in table_rows(path)] == [["0.jpg", classes[2], "1"]]
            path.unlink()
            with pytest.raises(ValueError, match="does not list"):
                server.decide(json.dumps({"image": "1", "class": "cat", "label": "1"}).encode())
            server.shutdown()
    assert chromium.execute_script("return window.ran") is None
    assert [x for x in chromium.get_log("browser") if x["level"] == "SEVERE"] == []


def test_suggestions_of_another_run_are_refused(suggested, tmp_path, capsys):
    (suggested / "suggest.json").write_text(json.dumps({"run_dir": "/elsewhere"}))
    assert review.main([f"--run_dir={tmp_path}", f"--audit_dir={suggested}"]) == 1
    assert f"{suggested}: is not known to be of {tmp_path}" in capsys.readouterr().err


def test_listing_and_applying_at_once_is_refused(finished, tmp_path):
    done = run(
        f"--run_dir={finished}", "--suggest=3", "--reviewed=x.csv", f"--output_dir={tmp_path}",
        module="audit",
    )  # fmt: skip
    assert done.returncode == 1 and "--suggest, --reviewed" in done.stderr
