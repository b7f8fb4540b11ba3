"""The report in a browser: headless Chromium opens it from disk, without a network."""

from __future__ import annotations

import hostile_run
import pytest
from browsing import pixel, press, requested, show
from hostile_run import CLASSES
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

# The ends of viridis.
LOWEST, HIGHEST = [68, 1, 84], [253, 231, 37]


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    """A report on a run whose names hold HTML, compared with a second run."""
    root = tmp_path_factory.mktemp("report")
    one = hostile_run.write(root / "<em>one<")
    two = hostile_run.write(root / "two", method="an", learning_rate=0.5)
    path = root / "report.html"
    path.write_text(hostile_run.page(one, two), "utf-8")
    return path.as_uri()


@pytest.fixture
def browser(chromium, address) -> webdriver.Chrome:
    """The page, freshly loaded, in a light window of 1280 pixels."""
    show(chromium, "light", 1280)
    for log in ("browser", "performance"):
        chromium.get_log(log)  # of earlier tests
    chromium.get(address)
    return chromium


def choose_opacity(browser: webdriver.Chrome, key: str) -> None:
    press(browser, browser.find_element(By.ID, "opacity"), key)


def test_loads_quietly_and_alone(browser, address):
    assert [entry["message"] for entry in browser.get_log("browser")] == []
    asked = requested(browser)
    assert address in asked
    assert [url for url in asked if url != address and not url.startswith("data:")] == []
    assert browser.find_element(By.TAG_NAME, "h1").text == "<em>one<"
    loaded = "return [...document.images].every((x) => x.complete && x.naturalWidth === 60)"
    assert browser.execute_script(loaded)


def test_hostile_names_stay_text(browser):
    assert browser.execute_script("return window.ran") is None
    marked = "img[src=x], main em, main b > b, [onclick], [onload], [onerror]"
    assert browser.find_elements(By.CSS_SELECTOR, marked) == []
    cells = browser.find_elements(By.CSS_SELECTOR, "#classes tbody th")
    assert [cell.text for cell in cells] == [" ".join(name.split()) for name in CLASSES]
    names = browser.find_elements(By.CSS_SELECTOR, "#gallery .card .name")
    assert [name.text for name in names] == list(hostile_run.PHOTOS)
    picker = Select(browser.find_element(By.ID, "class"))
    assert [option.text for option in picker.options[2:]] == list(CLASSES)
    history = browser.find_element(By.CSS_SELECTOR, "#curves table").get_attribute("textContent")
    assert hostile_run.COLUMN in history and hostile_run.CELL in history


def test_no_other_script_can_run(browser):
    """The security policy stops what might get past the escaping."""
    browser.execute_script(
        "const script = document.createElement('script');"
        "script.textContent = 'window.ran = 6'; document.body.append(script);"
        "document.body.insertAdjacentHTML('beforeend', arguments[0]);",
        '<button id="bad" onclick="window.ran=7">x</button>',
    )
    browser.execute_script("document.getElementById('bad').click()")
    assert browser.execute_script("return window.ran") is None


def test_table_sorts_by_any_column(browser):
    table = browser.find_element(By.CSS_SELECTOR, "#classes table")
    heads = table.find_elements(By.TAG_NAME, "th")[:6]

    def order() -> list[int]:
        cells = table.find_elements(By.CSS_SELECTOR, "tbody th")
        return [CLASSES.index(cell.text) for cell in cells]

    assert [head.text.split("\n")[0] for head in heads][4:] == ["AP val (%)", "AP test (%)"]
    heads[5].find_element(By.TAG_NAME, "button").click()
    assert order() == [2, 0, 1, 3]  # 100, 90, 7.5, none
    assert heads[5].get_attribute("aria-sort") == "descending"
    press(browser, heads[5].find_element(By.TAG_NAME, "button"), Keys.ENTER)
    assert order() == [1, 0, 2, 3]  # what has no number stays last
    assert heads[5].get_attribute("aria-sort") == "ascending"
    press(browser, heads[1].find_element(By.TAG_NAME, "button"), Keys.SPACE)
    assert order()[0] == 0  # two positives; one, one, none
    assert order()[3] == 3
    assert heads[5].get_attribute("aria-sort") is None


def test_class_picker_draws_another_map(browser):
    """Cell c of 2 x 2 is 1 in the map of class c; each photo begins with its highest score."""
    choose_opacity(browser, Keys.END)
    assert pixel(browser, 0, 0.05, 0.05) == [*HIGHEST, 255]  # class 0, top left
    assert pixel(browser, 1, 0.95, 0.05) == [*HIGHEST, 255]  # class 1, top right
    picker = Select(browser.find_element(By.ID, "class"))
    picker.select_by_value("2")
    for card in range(3):
        assert pixel(browser, card, 0.05, 0.95) == [*HIGHEST, 255]
        assert pixel(browser, card, 0.95, 0.05) == [*LOWEST, 255]
    shown = [x.text for x in browser.find_elements(By.CSS_SELECTOR, "#gallery .shown")]
    assert shown == [f"{CLASSES[2]}: {score}" for score in ("0.10", "0.10", "0.80")]
    label = browser.find_element(By.CSS_SELECTOR, "canvas").get_attribute("aria-label")
    assert label.endswith("highest value 1.00, 25% from the left and 75% from the top.")
    assert pixel(browser, 3, 0.05, 0.05) == [*HIGHEST, 255]  # a missing label keeps its own class
    picker.select_by_value("-2")
    assert pixel(browser, 0, 0.05, 0.95) == [0, 0, 0, 0]


def test_keys_choose_the_class(browser):
    press(browser, browser.find_element(By.ID, "class"), Keys.END)
    shown = browser.find_elements(By.CSS_SELECTOR, "#gallery .shown")
    assert shown[0].text == "cat: 0.30"
    chips = browser.find_elements(By.CSS_SELECTOR, "#gallery .card:first-child .chips button")
    press(browser, chips[0], Keys.ENTER)
    assert shown[0].text == f"{CLASSES[0]}: 0.90"
    assert [chip.get_attribute("aria-pressed") for chip in chips] == ["true"] + ["false"] * 3


def test_opacity_slider_changes_the_canvas(browser):
    assert pixel(browser, 0, 0.05, 0.05)[3] == 153  # 60% of 255
    choose_opacity(browser, Keys.ARROW_LEFT)
    assert pixel(browser, 0, 0.05, 0.05)[3] == 150  # 59% of 255 is 150.45
    assert browser.find_element(By.ID, "opacity-value").text == "59%"
    choose_opacity(browser, Keys.HOME)
    assert pixel(browser, 0, 0.05, 0.05) == [0, 0, 0, 0]
    assert pixel(browser, 3, 0.05, 0.05) == [0, 0, 0, 0]


def test_photos_are_filtered_by_label(browser):
    photos = browser.find_element(By.ID, "photos")
    assert not photos.is_enabled()  # no class is chosen
    Select(browser.find_element(By.ID, "class")).select_by_value("0")
    Select(photos).select_by_value("labelled")
    cards = browser.find_elements(By.CSS_SELECTOR, "#gallery .card")
    assert [card.is_displayed() for card in cards] == [True, True, False]
    assert browser.find_element(By.ID, "count").text == "2 of 3 photos"
    Select(photos).select_by_value("others")
    assert [card.is_displayed() for card in cards] == [False, False, True]


def test_boxes_are_drawn_when_asked(browser):
    choose_opacity(browser, Keys.HOME)
    Select(browser.find_element(By.ID, "class")).select_by_value("0")
    assert pixel(browser, 0, 0.5, 0.5) == [0, 0, 0, 0]
    press(browser, browser.find_element(By.ID, "boxes"), Keys.SPACE)
    assert pixel(browser, 0, 0.5, 0.5) == [255, 255, 255, 255]  # its right edge
    Select(browser.find_element(By.ID, "class")).select_by_value("1")
    assert pixel(browser, 0, 0.5, 0.5) == [0, 0, 0, 0]


def test_curves_are_read_with_the_arrow_keys(browser):
    figure = browser.find_element(By.CSS_SELECTOR, "[data-chart='0']")
    reading = figure.find_element(By.CSS_SELECTOR, ".reading")
    drawing = figure.find_element(By.CSS_SELECTOR, "svg[role=img]")
    press(browser, drawing, Keys.HOME)
    assert reading.text.startswith("Epoch 1: ") and reading.text.endswith("validation 20.00")
    press(browser, drawing, Keys.ARROW_RIGHT)
    assert reading.text.startswith("Epoch 2: ") and reading.text.endswith("validation 40.00")


def test_the_first_key_leads_past_the_links(browser):
    browser.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    link = browser.switch_to.active_element
    assert link.text == "Skip to the content" and link.rect["x"] >= 0
    link.send_keys(Keys.ENTER)
    assert browser.current_url.endswith("#settings")


@pytest.mark.parametrize("width", [390, 320])
def test_phones_need_not_scroll_sideways(browser, width):
    show(browser, "light", width)
    browser.execute_script("document.querySelectorAll('details').forEach((x) => (x.open = true))")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    beyond = (
        "return [...document.querySelectorAll('body *')].filter((x) => !x.closest('.scroll, .skip')"
        " && x.getBoundingClientRect().right > innerWidth + 0.5).map((x) => x.outerHTML)"
    )
    assert browser.execute_script(beyond) == []


def test_dark_differs_from_light(browser):
    colours = (
        "const style = getComputedStyle(document.body);return [style.backgroundColor, style.color]"
    )
    light = browser.execute_script(colours)
    show(browser, "dark", 1280)
    dark = browser.execute_script(colours)
    brightness = [sum(map(int, x[4:-1].split(","))) for x in (*light, *dark)]
    assert brightness[0] > 600 > 300 > brightness[1]  # dark letters on light ground
    assert brightness[2] < 300 < 600 < brightness[3]


def test_everything_has_a_name(browser):
    """Pictures, drawings and controls can be told apart without seeing them."""
    nameless = (
        "const named = (x) => x.getAttribute('aria-label') || x.alt || x.labels?.length"
        " || x.textContent.trim();"
        "return [...document.querySelectorAll('img, canvas, svg[role=img], button, select, input')]"
        ".filter((x) => !named(x)).map((x) => x.outerHTML)"
    )
    assert browser.execute_script(nameless) == []
