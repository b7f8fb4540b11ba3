"""Headless Chromium, and what tests do in it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from selenium import webdriver

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")


def start(folder: Path) -> webdriver.Chrome:
    """A browser that saves files in a folder; skips the test where Chromium is missing."""
    if not (CHROMIUM and DRIVER):
        pytest.skip("Debian's packages chromium and chromium-driver are missing")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={folder / 'profile'}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    options.add_experimental_option("prefs", {"download.default_directory": str(folder)})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))


def requested(browser: webdriver.Chrome) -> list[str]:
    """The addresses that pages asked for since the performance log was last read.

    The browser's own first page, which no page of a file may ask for, is late on a slow machine.
    """
    events = [json.loads(x["message"])["message"] for x in browser.get_log("performance")]
    asked = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    return [url for url in asked if not url.startswith("chrome://")]


def show(browser: webdriver.Chrome, scheme: str, width: int) -> None:
    """Sets the colour scheme the user prefers and the window's width in pixels."""
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    screen = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)


def pixel(browser: webdriver.Chrome, card: int, x: float, y: float) -> list[int]:
    """Red, green, blue and opacity of a card's canvas, at parts of its width and height."""
    return browser.execute_script(
        "const c = document.querySelectorAll('.card canvas')[arguments[0]];"
        "const [x, y] = [arguments[1] * c.width, arguments[2] * c.height].map(Math.floor);"
        "return [...c.getContext('2d').getImageData(x, y, 1, 1).data];",
        card, x, y,
    )  # fmt: skip


def press(browser: webdriver.Chrome, element: object, *keys: str) -> None:
    """Moves the focus to an element and presses keys, without a mouse."""
    browser.execute_script("arguments[0].focus()", element)
    for key in keys:
        browser.switch_to.active_element.send_keys(key)
