"""A real browser without a window, and what a page shows in it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
PHONE, DESK = (390, 844), (1500, 1000)
# Disables Chromium's own network requests, which would wait for timeouts offline.
OFFLINE = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip

needs_browser = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="no browser: install Debian's chromium and chromium-driver",
)


@contextmanager
def open_browser(profile: Path) -> Iterator[webdriver.Chrome]:
    """Open a browser with an empty profile; it records what pages write to the console."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for argument in (*OFFLINE, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield browser
    finally:
        browser.quit()


def page_text(browser: webdriver.Chrome) -> str:
    """Return the text that a page shows."""
    return str(browser.execute_script("return document.body ? document.body.innerText : ''"))


def console(browser: webdriver.Chrome) -> list[Any]:
    """Return what pages have written to the console since the last call, errors included."""
    return list(browser.get_log("browser"))


def set_phone(browser: webdriver.Chrome, size: tuple[int, int]) -> None:
    """Show pages as a phone with a screen of `size` in CSS pixels does.

    A window cannot be narrower than 500 px.
    """
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
