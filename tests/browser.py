"""A real Chromium for pages: as a window of a given width, light or dark, and as pictures of a page's first screen.

``python tests/browser.py PAGE FOLDER`` writes the pictures; ``scripts/screenshots`` calls it.
"""

from __future__ import annotations

import base64
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

Scheme = Literal["light", "dark"]
WIDTHS = {1280: 900, 390: 844}
"""Window heights by width, in CSS pixels: a laptop and a phone."""


def missing() -> str:
    """Why no browser can be driven, or nothing."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "selenium is not installed"
    for program in (("chromium", "google-chrome"), ("chromedriver",)):
        if not any(shutil.which(name) for name in program):
            return f"no {' or '.join(program)} on this machine (scripts/check installs them where it can)"
    return ""


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless browser that logs the console and every request."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome")
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--disable-extensions",
        "--no-first-run",
        "--disable-background-networking",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def open_page(driver: Any, page: Path, width: int, scheme: Scheme) -> None:
    """Opens a file in a window of ``width`` CSS pixels; headless windows themselves cannot be that narrow."""
    metrics = {"width": width, "height": WIDTHS[width], "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    preference = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", preference)
    for log in ("browser", "performance"):
        driver.get_log(log)  # what came before is another page's
    driver.get(page.resolve().as_uri())


def console_errors(driver: Any) -> list[str]:
    """Messages on the console since the page was opened."""
    return [entry["message"] for entry in driver.get_log("browser")]


def requests(driver: Any) -> list[str]:
    """Addresses that the page asked for, apart from what lies inside it."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return [url for url in sent if not url.startswith("data:")]


def picture(driver: Any, to: Path, *, whole: bool = False) -> None:
    """The first screen as PNG, or the page in its whole length."""
    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": whole})
    to.write_bytes(base64.b64decode(shot["data"]))


def main() -> None:
    """Pictures of a page at both widths, light and dark."""
    page, folder = map(Path, sys.argv[1:3])
    if reason := missing():
        raise SystemExit(reason)
    folder.mkdir(parents=True, exist_ok=True)
    with chromium() as driver:
        schemes: tuple[Scheme, ...] = ("light", "dark")
        for width in WIDTHS:
            for scheme in schemes:
                open_page(driver, page, width, scheme)
                to = folder / f"{page.stem}-{width}-{scheme}.png"
                picture(driver, to)
                print(to)


if __name__ == "__main__":
    main()
