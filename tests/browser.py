"""A real browser for tests of pages: Debian's Chromium, driven by playwright.

A test takes the fixture `page`, a tab of its own; where no Chromium or no playwright is installed it is skipped,
visibly. It fails by itself if the page logs an error, raises one, asks for what cannot be had, or for anything that is
not on this machine. What a test means to provoke it says by the fixture `complaints`: complaints.meant.append("404").

    def test_greeting(page: Page, tmp_path: Path) -> None:
        page.goto((tmp_path / "page.html").as_uri())
        expect(page.locator("h1")).to_have_text("Hello")

A page answers in its own time, and on a busy machine late: what it shows after something was done is waited for, by
`expect` or, of numbers and pixels, by `expect_value`; what it shows for a moment only it writes down itself, by
`noted`; and that something stays as it was means something only after the page has had a reason and the time to change.

playwright keeps an event loop in this thread as long as the browser runs: a module whose tests take `page` cannot call
`asyncio.run` in the same thread (a server belongs in another one, or in a process).
"""

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, FloatRect, Locator, LocatorAssertions, Page, Request

# A machine may be ten times slower than ours, and busy; nothing but a test that fails waits so long.
PATIENCE_MS = 60_000

ELSEWHERE = re.compile(r"^(https?|wss?)://(?!127\.0\.0\.1|localhost|\[::1\])")
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
# No sound card, no camera: what asks for a microphone gets a made-up one without being asked.
OPTIONS = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", "--disable-dev-shm-usage"]


@dataclass
class Complaints:
    """What a test's page had to complain of; lines that hold one of the parts `meant` were provoked."""

    lines: list[str] = field(default_factory=list)
    meant: list[str] = field(default_factory=list)

    def unmeant(self) -> list[str]:
        return [line for line in self.lines if not any(part in line for part in self.meant)]

    def add_failure(self, request: "Request") -> None:
        if "ERR_ABORTED" not in (request.failure or ""):  # which the page itself has given up
            self.lines.append(f"{request.url}: {request.failure}")


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """Chromium, as long as a module's tests run."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        pytest.skip("no Chromium is installed")
    root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    playwright.expect.set_options(timeout=PATIENCE_MS)
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(
            executable_path=found, headless=True, args=[*OPTIONS, *root], timeout=2 * PATIENCE_MS
        )
        yield chromium
        chromium.close()


@pytest.fixture
def complaints() -> Complaints:
    return Complaints()


@pytest.fixture
def page(browser: "Browser", complaints: Complaints) -> "Iterator[Page]":
    """A tab of an English reader with a light screen of 1280 x 900, with nothing remembered of other tests."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-US", color_scheme="light")
    context.set_default_timeout(PATIENCE_MS)
    context.route(ELSEWHERE, lambda route: route.abort())  # which is a complaint of the page's
    tab = context.new_page()
    tab.on("console", lambda said: complaints.lines.append(said.text) if said.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: complaints.lines.append(str(error)))
    tab.on("requestfailed", complaints.add_failure)
    yield tab
    context.close()
    assert complaints.unmeant() == []


def expect(shown: "Locator") -> "LocatorAssertions":
    """What a locator shows in the end: playwright's own, imported late since it may not be installed."""
    from playwright import sync_api

    return sync_api.expect(shown)


def expect_value(read: Callable[[], Any], wanted: Any) -> None:
    """Wait until `read()` is what is wanted, of which playwright has no expectation: numbers that are near, pixels."""
    end = time.monotonic() + PATIENCE_MS / 1000
    while (found := read()) != wanted and time.monotonic() < end:
        time.sleep(0.05)
    assert found == wanted, f"{found!r} is not {wanted!r}"


def noted(shown: "Locator") -> Callable[[], list[str]]:
    """All that an element says from now on, which the page itself writes down: some of it is said for a moment only."""
    said = shown.evaluate_handle(
        """(element) => {
            const said = [element.textContent];
            const note = () => { if (element.textContent !== said.at(-1)) said.push(element.textContent); };
            new MutationObserver(note).observe(element, { childList: true, characterData: true, subtree: true });
            return said;
        }"""
    )
    return said.json_value


def drawn(page: "Page") -> None:
    """Wait until what has changed is laid out and painted, with what that changes in turn."""
    page.evaluate(
        """() => document.fonts.ready.then(() => new Promise((done) =>
            requestAnimationFrame(() => requestAnimationFrame(() => requestAnimationFrame(done)))))"""
    )


def a_while(page: "Page") -> None:
    """Leave the page a moment of its own time, in which something wrong could show."""
    page.evaluate("new Promise((done) => setTimeout(done, 150))")


def box_of(shown: "Locator") -> "FloatRect":
    """Where an element is on the screen once it no longer moves."""
    shown.scroll_into_view_if_needed()
    box = shown.bounding_box()
    assert box is not None
    return box


def pixels(page: "Page", selector: str) -> str:
    return str(page.locator(selector).evaluate("(canvas) => canvas.toDataURL()"))


def wait_for_other_pixels(page: "Page", selector: str, before: str) -> None:
    page.wait_for_function(
        "([selector, before]) => document.querySelector(selector).toDataURL() !== before", arg=[selector, before]
    )
