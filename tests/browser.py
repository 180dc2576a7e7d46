"""A real browser for tests of pages: Debian's Chromium, driven by playwright.

A test takes the fixture `page`, a tab of its own; where no Chromium or no playwright is installed it is skipped,
visibly. It fails by itself if the page logs an error, raises one, asks for what cannot be had, or for anything that is
not on this machine. What a test means to provoke it removes from the fixture `complaints` (a list of lines).

    def test_greeting(page: Page, tmp_path: Path) -> None:
        page.goto((tmp_path / "page.html").as_uri())
        assert page.locator("h1").inner_text() == "Hello"

playwright keeps an event loop in this thread as long as the browser runs: a module whose tests take `page` cannot call
`asyncio.run` in the same thread (a server belongs in another one, or in a process).
"""

import os
import re
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ELSEWHERE = re.compile(r"^(https?|wss?)://(?!127\.0\.0\.1|localhost|\[::1\])")
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
# No sound card, no camera: what asks for a microphone gets a made-up one without being asked.
OPTIONS = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", "--disable-dev-shm-usage"]


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """Chromium, as long as a module's tests run."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        pytest.skip("no Chromium is installed")
    root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=found, headless=True, args=[*OPTIONS, *root])
        yield chromium
        chromium.close()


@pytest.fixture
def complaints() -> list[str]:
    """What the test's page had to complain of."""
    return []


@pytest.fixture
def page(browser: "Browser", complaints: list[str]) -> "Iterator[Page]":
    """A tab of an English reader with a light screen of 1280 x 900, with nothing remembered of other tests."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-US", color_scheme="light")
    context.set_default_timeout(20_000)
    context.route(ELSEWHERE, lambda route: route.abort())  # which is a complaint of the page's
    tab = context.new_page()
    tab.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("requestfailed", lambda request: complaints.append(f"{request.url}: {request.failure}"))
    yield tab
    context.close()
    assert complaints == []
