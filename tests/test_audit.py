"""The audit of a run that was trained through the command line, and the loop back into training."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import shutil
from pathlib import Path

import hostile_run
import numpy as np
import pytest
from browsing import pixel, press, requested, show
from conftest import CLASSES, flags, run
from hypothesis import given, settings
from hypothesis import strategies as st
from parsed_html import Parsed
from PIL import Image
from saved_runs import change_flags, newest_weights, table_rows
from selenium.common.exceptions import JavascriptException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait
from tiny_network import tiny_cam

from spml_tf import audit, networks, train
from spml_tf.datasets import label_files, splits
from spml_tf.pages import audit_page
from spml_tf.pages.report_photos import LabelPhoto
from spml_tf.runs import checkpoint_contents, reviewed_labels, run_data
from spml_tf.runs.run_folder import RunFolder
from spml_tf.runs.settings import Settings, resolve
from spml_tf.system.errors import UserError
from spml_tf.system.files import write_csv


@pytest.fixture(scope="module")
def written(finished, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("audit") / "out"
    words = [f"--run_dir={finished}", f"--output_dir={folder}", "--limit=20", "--shown=5"]
    assert audit.main(words) == 0
    return folder


def test_lists_unknown_labels_by_their_running_average(written, finished):
    """Against the checkpoint: every unknown label in order of its score, most probable first."""
    data = run_data.load_of_run(RunFolder(finished))
    saved = checkpoint_contents.read_checkpoint(newest_weights(finished), data.observed)
    unknown = np.sort(saved.scores[data.observed == -1])[::-1]
    found = table_rows(written / "missing.csv")
    np.testing.assert_allclose([float(x["score"]) for x in found], unknown[:20], atol=1e-6)
    for row in found:
        cell = data.train.names.index(row["image"]), CLASSES.index(row["class"])
        assert data.observed[cell] == -1
        assert row["label"] == "" and row["full_label"] == str(data.train.labels[cell])
        assert row["epochs_selected"] == str(saved.epochs_selected[cell])
        y, x, y1, x1, y2, x2 = (float(row[k]) for k in ("peak_y", "peak_x", "y1", "x1", "y2", "x2"))
        assert 0 <= y1 < y < y2 <= 1 and 0 <= x1 < x < x2 <= 1
    wrong = [float(x["score"]) for x in table_rows(written / "wrong.csv")]
    np.testing.assert_allclose(wrong, np.sort(saved.scores[data.observed == 1])[:20], atol=1e-6)
    facts = json.loads((written / "audit.json").read_text())
    assert facts["unknown"] == len(unknown) and facts["missing"] == 20
    assert facts["precision"] == {}  # fewer than 50 are listed


def test_the_page_holds_what_is_listed(written):
    page = Parsed((written / "audit.html").read_text("utf-8"))
    found = json.loads(page.scripts["gallery-data"])
    assert found["classes"] == list(CLASSES) and len(found["photos"]) == 10
    attributes = [value for key, value in page.attributes if key == "data-image"]
    listed = [table_rows(written / f"{kind}.csv")[:5] for kind in ("missing", "wrong")]
    assert attributes == [row["image"] for part in listed for row in part]


def test_a_method_that_selects_nothing_is_audited_too(voc, tmp_path):
    """Its averages are there; nothing counts epochs."""
    words = flags(voc, method="an", epochs=1)
    assert train.main([*words, f"--output_dir={tmp_path / 'an'}"]) == 0
    words = [f"--run_dir={tmp_path / 'an'}", f"--output_dir={tmp_path / 'out'}", "--shown=0"]
    assert audit.main(words) == 0
    found = table_rows(tmp_path / "out" / "missing.csv")
    assert {row["epochs_selected"] for row in found} == {""}
    assert all(0 < float(row["score"]) < 1 for row in found)


def test_reviewed_labels_train_the_next_run(written, finished, voc, tmp_path, capsys):
    """Of a spreadsheet with two decisions and a third that confirms what was known."""
    found = table_rows(written / "missing.csv")
    found[0]["label"], found[1]["label"] = "1", "0"
    with open(tmp_path / "missing.csv", "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(found[0]))
        writer.writeheader()
        writer.writerows(found)
    right = table_rows(written / "wrong.csv")[0]
    (tmp_path / "page.csv").write_text(f"image,class,label\n{right['image']},{right['class']},1\n")
    reviewed = f"--reviewed={tmp_path / 'missing.csv'},{tmp_path / 'page.csv'}"
    words = [f"--run_dir={finished}", f"--output_dir={tmp_path / 'out'}", reviewed]
    capsys.readouterr()
    assert audit.main(words) == 0
    said = "1 labels became positive, 1 negative, 1 were so before"
    assert said in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "out").glob("[!.]*")] == ["train_labels.csv"]

    before = {tuple(row.values()) for row in table_rows(finished / "train_labels.csv")}
    after = {tuple(row.values()) for row in table_rows(tmp_path / "out" / "train_labels.csv")}
    added = {(row["image"], "train", row["class"], row["label"]) for row in found[:2]}
    assert after - before == added and not before - after
    again = flags(voc, epochs=1, train_labels=tmp_path / "out" / "train_labels.csv")
    assert train.main([*again, f"--output_dir={tmp_path / 'next'}"]) == 0
    assert table_rows(tmp_path / "next" / "train_labels.csv") == table_rows(
        tmp_path / "out" / "train_labels.csv"
    )


def test_a_folder_of_photos_gets_its_table_back(tmp_path, capsys, monkeypatch):
    """The reviewed table as --train_csv: the labels of all photos, those held out among them."""
    monkeypatch.setitem(networks.NETWORKS, "tiny", tiny_cam)
    root = tmp_path / "mine"
    rng = np.random.default_rng(0)
    root.mkdir()
    for number in range(10):
        picture = rng.integers(0, 255, (40, 40, 3)).astype(np.uint8)
        Image.fromarray(picture).save(root / f"{number}.png")
    lines = [f"{i}.png,{'cat' if i % 2 else 'dog'}\n" for i in range(10)]
    (root / "train.csv").write_text("image,labels\n" + "".join(lines))
    words = [
        "--dataset=folder", f"--data_dir={root}", "--train_csv=train.csv",
        "--network=tiny", "--weights=none", "--image_size=32", "--epochs=1",
        "--batch_size=4", "--threads=1", "--method=an",
    ]  # fmt: skip
    assert train.main([*words, f"--output_dir={tmp_path / 'run'}"]) == 0
    audited = [f"--run_dir={tmp_path / 'run'}", f"--output_dir={tmp_path / 'audit'}"]
    assert audit.main(audited) == 0
    found = table_rows(tmp_path / "audit" / "missing.csv")
    (tmp_path / "done.csv").write_text(
        f'image,class,label\n{found[0]["image"]},"{found[0]["class"]}",1\n'
    )
    audited = [f"--reviewed={tmp_path / 'done.csv'}", f"--output_dir={root / 'reviewed'}"]
    assert audit.main([f"--run_dir={tmp_path / 'run'}", *audited]) == 0
    table = {row.pop("image"): row for row in table_rows(root / "reviewed" / "train.csv")}
    assert len(table) == 10
    for name, marks in table.items():
        own, other = ("cat", "dog") if int(name[:-4]) % 2 else ("dog", "cat")
        assert marks[own] == "1"
        assert marks[other] == ("1" if name == found[0]["image"] else "")
    moved = root.rename(tmp_path / "moved")
    words_of_moved = [f"--run_dir={tmp_path / 'run'}", f"--data_dir={moved}", audited[0]]
    assert audit.main([*words_of_moved, f"--output_dir={tmp_path / 'again'}"]) == 0
    assert (tmp_path / "again" / "train.csv").read_text() == (
        moved / "reviewed" / "train.csv"
    ).read_text()
    moved.rename(root)
    again = [*words, "--train_csv=reviewed/train.csv", f"--output_dir={tmp_path / 'next'}"]
    assert train.main(again) == 0
    record = RunFolder(tmp_path / "next").read_record()
    assert record["images"] == {"train": 8, "val": 2}

    # Read with a flag about columns, the table stays: train_labels.csv goes beside it.
    change_flags(shutil.copytree(tmp_path / "run", tmp_path / "flagged"), label_column="labels")
    capsys.readouterr()
    one = [audited[0], f"--output_dir={root / 'other'}", f"--run_dir={tmp_path / 'flagged'}"]
    assert audit.main(one) == 0
    assert "no train.csv, for the next run reads its tables with --label_column too" in (
        capsys.readouterr().out
    )
    assert [x.name for x in (root / "other").glob("*.csv")] == ["train_labels.csv"]
    flagged = [*words, "--label_column=labels", f"--output_dir={tmp_path / 'after'}"]
    assert train.main([*flagged, f"--train_labels={root / 'other/train_labels.csv'}"]) == 0

    before = (root / "reviewed" / "train.csv").read_bytes()
    assert audit.main([f"--run_dir={tmp_path / 'next'}", *audited]) == 1
    assert "train.csv: is read by this command" in capsys.readouterr().err
    assert (root / "reviewed" / "train.csv").read_bytes() == before


def test_a_reviewed_table_of_names_that_no_column_may_have(tmp_path):
    """A column called fold would say of which split a row is: the classes are listed by name."""
    for number in range(4):
        Image.new("RGB", (40, 40), (60 * number, 9, 9)).save(tmp_path / f"{number}.png")
    (tmp_path / "train.csv").write_text("image,labels\n0.png,fold\n1.png,cat\n2.png,fold\n3.png,\n")
    given = Settings(dataset="folder", data_dir=str(tmp_path), train_csv="train.csv", method="an")
    run_settings = resolve(given)
    data = splits.load_splits(run_settings)
    labels = data.observed.copy()
    labels[0] = [0, 1]
    reviewed_labels._write_table(tmp_path / "reviewed.csv", run_settings, data, labels)
    again = splits.load_splits(dataclasses.replace(run_settings, train_csv="reviewed.csv"))
    assert again.train.class_names == data.train.class_names == ("cat", "fold")
    assert again.train.names == data.train.names
    np.testing.assert_array_equal(again.observed, labels)


@pytest.mark.parametrize("train_labels", ["single", "partial", "labels.csv"])
def test_no_table_where_the_run_does_not_take_its_labels_as_they_are(train_labels, tmp_path):
    (tmp_path / "train.csv").write_text("image,labels\n0.png,cat\n")
    given = Settings(dataset="folder", data_dir=str(tmp_path), train_csv="train.csv")
    assert reviewed_labels.own_table(resolve(given))
    own = dataclasses.replace(given, train_labels=train_labels)
    assert not reviewed_labels.own_table(resolve(own))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image;class;label\n", r":1: the first line must name the columns image, class, label"),
        ("", r":1: the first line must name"),
        ("image,class,label\nx,cat,1\n", r":2: unknown image 'x'"),
        ("image,class,label\nIMAGE,cow s,1\n", r":2: unknown class 'cow s'"),
        ("image,class,label\nIMAGE,cow,2\n", r":2: the label must be 1 or 0, found '2'"),
        ("image,class,label\nIMAGE,cow\n", r":2: expected 3 fields as in the first line, found 2"),
        ("image,class,label\nIMAGE,cow,1\nIMAGE,cow,0\n", r":3: 'cow' of '.*' is 0 here and 1 in"),
        ("image,class,label\nIMAGE,cow,\n", r"--reviewed=.*: no row has a label"),
    ],
)
def test_mistakes_in_reviewed_files(finished, tmp_path, capsys, content, message):
    name = table_rows(finished / "train_labels.csv")[0]["image"]
    path = tmp_path / "reviewed.csv"
    path.write_text(content.replace("IMAGE", name))
    words = [f"--run_dir={finished}", f"--reviewed={path}", f"--output_dir={tmp_path / 'out'}"]
    assert audit.main(words) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    with pytest.raises(UserError, match=message):
        raise UserError(told)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "error: --run_dir is missing; see --help"),
        (["--run_dir=RUN"], "error: --output_dir is missing; see --help"),
        (["--run_dir=nowhere", "--output_dir=OUT"], "error: nowhere: no run here"),
        (["--run_dir=RUN", "--output_dir=OUT", "--limit=0"], "error: --limit=0: must be at least"),
        (["--run_dir=RUN", "--output_dir=FILE"], "FILE: cannot be written"),
    ],
)
def test_mistakes_are_told_in_a_line(finished, tmp_path, capsys, words, message):
    (tmp_path / "file").write_text("before")
    places = {"RUN": finished, "OUT": tmp_path / "out", "FILE": tmp_path / "file"}
    for name, place in places.items():
        words = [word.replace(name, str(place)) for word in words]
        message = message.replace(name, str(place))
    assert audit.main(words) == 1
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists() and (tmp_path / "file").read_text() == "before"


def test_other_data_are_refused(finished, tmp_path):
    """As a process of its own: one line, no traceback, nothing written."""
    shutil.copytree(finished, tmp_path / "full")
    change_flags(tmp_path / "full", train_labels="full")
    done = run(
        f"--run_dir={tmp_path / 'full'}", f"--output_dir={tmp_path / 'out'}", module="audit",
        new_python=True,
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "holds other images or labels than" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 1), st.sampled_from(["1", "0", ""])),
        unique_by=lambda row: row[:2],
    )
)
def test_any_decisions_are_read_back(tmp_path_factory, decisions):
    names, class_names = ("a.jpg", 'b "1",.jpg', " ü/c.jpg "), ("cat", "<b>dog</b> ")
    path = tmp_path_factory.mktemp("reviewed") / "r.csv"
    expected = np.full((3, 2), -1)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["score", "class", "image", "label"])
        for image, label, value in decisions:
            writer.writerow(["0.5", class_names[label], names[image], value])
            expected[image, label] = int(value or -1)
    np.testing.assert_array_equal(label_files.read_reviewed([path], names, class_names), expected)


class TestBrowser:
    """The page in headless Chromium, about a run whose names hold HTML."""

    @pytest.fixture
    def browser(self, chromium, tmp_path):
        missing = [
            LabelPhoto(hostile_run.photo(i), label, 0.9 - 0.1 * i, i, 1)
            for i, label in ((0, 1), (1, 2), (2, 2))
        ]
        wrong = [LabelPhoto(hostile_run.photo(0), 0, 0.01, None, -1)]
        facts = {"method": "en", "data_fingerprint": str(tmp_path), "precision": {"50": 98.0}}
        content = audit_page.build("<i>run", facts, hostile_run.CLASSES, missing, wrong)
        (tmp_path / "audit.html").write_text(content, "utf-8")
        show(chromium, "light", 1280)
        for log in ("browser", "performance"):
            chromium.get_log(log)
        chromium.get((tmp_path / "audit.html").as_uri())
        return chromium

    def test_names_are_text_and_nothing_is_fetched(self, browser):
        assert browser.execute_script("return window.ran") is None
        assert browser.find_element(By.TAG_NAME, "h1").text == "Labels to review: <i>run"
        assert browser.find_elements(By.CSS_SELECTOR, "img[src=x], [onload], [onerror]") == []
        assert browser.get_log("browser") == []
        assert all(url.startswith(("data:", "file:")) for url in requested(browser))

    def test_keys_decide_and_the_file_is_read_back(self, browser, downloads):
        """Present, absent and, with the mouse, present; the decisions outlive a reload."""
        cards = browser.find_elements(By.CSS_SELECTOR, ".card")
        press(browser, cards[0].find_element(By.CSS_SELECTOR, ".review button"), "p", "a")
        cards[3].find_element(By.CSS_SELECTOR, "[data-decision='1']").click()
        count = browser.find_element(By.ID, "count")
        assert count.text == "3 of 4 decided, 4 shown"
        browser.refresh()
        assert browser.find_element(By.ID, "count").text == "3 of 4 decided, 4 shown"
        Select(browser.find_element(By.ID, "which")).select_by_value("open")
        shown = [x.is_displayed() for x in browser.find_elements(By.CSS_SELECTOR, ".card")]
        assert shown == [False, False, True, False]
        Select(browser.find_element(By.ID, "which")).select_by_value("all")
        Select(browser.find_element(By.ID, "class")).select_by_value("2")
        shown = [x.is_displayed() for x in browser.find_elements(By.CSS_SELECTOR, ".card")]
        assert shown == [False, True, True, False]
        path = downloads / "reviewed.csv"
        path.unlink(missing_ok=True)
        browser.find_element(By.ID, "save").click()
        waited = 0
        while not path.exists() and waited < 100:
            browser.execute_async_script("setTimeout(arguments[0], 50)")
            waited += 1
        found = label_files.read_reviewed([path], hostile_run.PHOTOS, hostile_run.CLASSES)
        assert found.tolist() == [[1, 1, -1, -1], [-1, -1, 0, -1], [-1, -1, -1, -1]]

    def test_a_decision_can_be_taken_back(self, browser):
        card = browser.find_element(By.CSS_SELECTOR, ".card")
        present, absent = card.find_elements(By.CSS_SELECTOR, ".review button")
        present.click()
        absent.click()
        pressed = [x.get_attribute("aria-pressed") for x in (present, absent)]
        assert pressed == ["false", "true"]
        press(browser, absent, "u")
        assert card.get_attribute("data-decided") is None
        present.click()
        present.click()
        assert browser.find_element(By.ID, "count").text == "0 of 4 decided, 4 shown"

    def test_a_key_that_is_held_decides_one_photo(self, browser):
        """The arrows go on; P does not, when the keyboard repeats it."""
        browser.execute_script(
            "document.querySelector('.card .review button').focus();"
            "const press = (key, repeat) => document.activeElement.dispatchEvent("
            "  new KeyboardEvent('keydown', { key, repeat, bubbles: true, cancelable: true }));"
            "press('p', false); press('p', true); press('p', true);"
            "press('ArrowRight', true);"
        )
        cards = browser.find_elements(By.CSS_SELECTOR, ".card")
        assert [card.get_attribute("data-decided") for card in cards] == ["1", None, None, None]
        focused = browser.execute_script(
            "return [...document.querySelectorAll('.card')]"
            ".indexOf(document.activeElement.closest('.card'))"
        )
        assert focused == 2

    def test_a_photo_that_is_clicked_has_the_keys(self, browser):
        card = browser.find_elements(By.CSS_SELECTOR, ".card")[1]
        card.find_element(By.CSS_SELECTOR, ".stage").click()
        assert "zoomed" in card.get_attribute("class")
        browser.switch_to.active_element.send_keys("z")
        assert "zoomed" not in card.get_attribute("class")
        browser.switch_to.active_element.send_keys("a")
        assert card.get_attribute("data-decided") == "0"

    def test_two_pages_of_one_file_keep_the_decisions_of_both(self, browser):
        first, address = browser.current_window_handle, browser.current_url
        browser.switch_to.new_window("tab")
        browser.get(address)
        for window, place, key in ((first, 0, "p"), (browser.current_window_handle, 1, "a")):
            browser.switch_to.window(window)
            card = browser.find_elements(By.CSS_SELECTOR, ".card")[place]
            press(browser, card.find_element(By.CSS_SELECTOR, ".review button"), key)
        browser.close()
        browser.switch_to.window(first)
        browser.refresh()
        assert browser.find_element(By.ID, "count").text == "2 of 4 decided, 4 shown"

    def test_changes_are_undone_one_by_one(self, browser):
        card = browser.find_element(By.CSS_SELECTOR, ".card")
        button, undo = card.find_element(By.TAG_NAME, "button"), browser.find_element(By.ID, "undo")
        assert not undo.is_enabled()
        press(browser, button, "p")
        press(browser, button, "a")
        ActionChains(browser).key_down(Keys.CONTROL).send_keys("z").key_up(Keys.CONTROL).perform()
        assert card.get_attribute("data-decided") == "1"
        undo.click()
        assert card.get_attribute("data-decided") is None and not undo.is_enabled()

    def test_photos_alone_and_larger(self, browser):
        """The heatmap, 35% opaque, goes while H is held; Z and a click enlarge the photo."""
        assert pixel(browser, 0, 0.5, 0.5)[3] == round(255 * 0.35)
        card = browser.find_element(By.CSS_SELECTOR, ".card")
        canvas, image = (card.find_element(By.TAG_NAME, name) for name in ("canvas", "img"))
        width = image.size["width"]
        press(browser, card.find_element(By.TAG_NAME, "button"))
        ActionChains(browser).key_down("h").perform()
        assert canvas.value_of_css_property("visibility") == "hidden"
        ActionChains(browser).key_up("h").perform()
        assert canvas.value_of_css_property("visibility") == "visible"
        press(browser, card.find_element(By.TAG_NAME, "button"), "z")
        assert image.size["width"] > 2 * width and canvas.size == image.size
        assert abs(image.size["width"] - 1.5 * image.size["height"]) < 2
        ActionChains(browser).send_keys(Keys.ARROW_RIGHT).perform()
        other = browser.find_elements(By.CSS_SELECTOR, ".card")[1].find_element(By.TAG_NAME, "img")
        assert image.size["width"] == width and other.size["width"] > 2 * width
        other.find_element(By.XPATH, "..").click()
        assert other.size["width"] == width

    def test_classes_take_turns(self, browser):
        """Missing labels of classes 1, 1 and 2 by score; the other section stays behind."""
        shown = "return [...document.querySelectorAll('.card')].map((c) => c.dataset.shown)"
        browser.execute_script("document.querySelectorAll('.card')[1].dataset.shown = '1'")
        order = Select(browser.find_element(By.ID, "order"))
        order.select_by_value("classes")
        assert browser.execute_script(shown) == ["1", "2", "1", "0"]
        press(browser, browser.find_element(By.CSS_SELECTOR, ".review button"), "p", "p")
        cards = browser.find_elements(By.CSS_SELECTOR, ".card")
        assert [card.get_attribute("data-decided") for card in cards] == ["1", "1", None, None]
        order.select_by_value("score")
        assert browser.execute_script(shown) == ["1", "1", "2", "0"]

    def test_by_expected_gain(self, browser):
        """Chances 0.9, 0.8 of class 1 with 9 positives, 0.7 of class 2 with 2: log(1 + 0.7 / 2) is
        above log(1 + 0.9 / 9), and that above log(1 + 0.8 / 9.9)."""
        browser.execute_script(
            "document.querySelectorAll('.card')[1].dataset.shown = '1';"
            "POSITIVES.splice(0, 3, 1, 9, 2)"
        )
        order = Select(browser.find_element(By.ID, "order"))
        order.select_by_value("gain")
        scores = "return [...document.querySelectorAll('.review')].map((x) => x.dataset.score)"
        assert browser.execute_script(scores) == ["0.7000", "0.9000", "0.8000", "0.0100"]

    def test_what_is_to_be_expected(self, browser):
        """Scores 0.9, 0.8, 0.7 of missing labels and 0.01 of a given one, which 0.99 is wrong."""
        told = browser.find_element(By.ID, "estimate")
        assert told.text == "Of the next 4, 85% are expected to change a label, by their scores."
        buttons = browser.find_elements(By.CSS_SELECTOR, "[data-decision='1']")
        buttons[0].click()
        assert told.text == (
            "Of 1 decided, 1 changed a label. "
            "Of the next 3, 83% are expected to change a label, by their scores."
        )
        browser.execute_script("pace.last -= 1e4")
        buttons[3].click()
        found = re.fullmatch(
            r"Of 2 decided, 1 changed a label\. Of the next 2, 75% are expected to change a label, "
            r"by their scores; at (1\d\.\d) s each that is (\d+) labels fixed an hour\.",
            told.text,
        )
        assert float(found[2]) == pytest.approx(3600 * 0.75 / float(found[1]), rel=0.01)

    def test_a_file_is_read_back(self, browser, tmp_path):
        """A label of the page, one decided otherwise there, one as there, one of another page."""
        photos, classes = hostile_run.PHOTOS, hostile_run.CLASSES
        browser.find_element(By.CSS_SELECTOR, "[data-decision='1']").click()
        browser.find_elements(By.CSS_SELECTOR, "[data-decision='1']")[1].click()
        table = [
            ("score", "class", "image", "label"),
            ("", classes[1], photos[0], "0"),
            ("", classes[2], photos[1], "1"),
            ("", classes[2], photos[2], "0"),
            ("", classes[0], photos[0], ""),
            ("", classes[3], "=other.jpg", "1"),
        ]
        write_csv(tmp_path / "r.csv", table[0], table[1:])
        browser.find_element(By.ID, "load").send_keys(str(tmp_path / "r.csv"))
        told = browser.find_element(By.ID, "loaded")
        WebDriverWait(browser, 30).until(lambda _: told.text)
        assert told.text == (
            "r.csv: 1 taken, 1 as here, 1 decided otherwise here, kept, 1 not on this page"
        )
        cards = browser.find_elements(By.CSS_SELECTOR, ".card")
        marks = [card.get_attribute("data-decided") for card in cards]
        assert marks == ["1", "1", "0", None]
        (tmp_path / "bad.csv").write_text("image;class;label\n")
        browser.find_element(By.ID, "load").send_keys(str(tmp_path / "bad.csv"))
        WebDriverWait(browser, 30).until(lambda _: "bad.csv" in told.text)
        assert told.text == "bad.csv: the first line must name image, class, label"

    def test_the_last_row_of_a_journal_counts(self, browser):
        text = "image,class,label,decided_at\na,x,1,t\nb,x,1,t\na,x,0,t\nb,x,,t\n"
        found = browser.execute_script("return decided(arguments[0])", text)
        assert found == [['["a","x"]', "0"]]
        table = "image,class,label\na,x,1\na,x,\n"
        found = browser.execute_script("return decided(arguments[0])", table)
        assert found == [['["a","x"]', "1"]]
        with pytest.raises(JavascriptException, match="row 4 contradicts an earlier one"):
            browser.execute_script("return decided(arguments[0])", f"{table}a,x,0\n")

    @pytest.mark.parametrize("cells", [["a", 'b "1",\n', ""], ["=1+1", "'=a", "'90s"], ["-1", "ü"]])
    def test_cells_are_written_as_everywhere(self, browser, tmp_path, cells):
        """As `files.write_csv` writes them, and read as they were."""
        text = browser.execute_script("return written([arguments[0]])", cells)
        write_csv(tmp_path / "w.csv", cells, [])
        assert text == (tmp_path / "w.csv").read_text()
        assert browser.execute_script("return split(arguments[0])", text) == [cells]

    @pytest.mark.parametrize("width", [390, 320])
    def test_phones_need_not_scroll_sideways(self, browser, width):
        show(browser, "dark", width)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
