"""Draw the pictures of the page that the documents show: `make screenshots`, `make screenshots ARGS="RUN RUN"`.

Each room that the runs open is drawn, in both languages; the shipped translators where no run is named. The rooms that
are given files get theirs by `picture=FILE`, `transcribe=FILE` and `forecast=FILE`, and are left out otherwise.
"""

import io
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from tests.browser import CHROMIUM, OPTIONS
from tests.serving.tiny_runs import serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

IMAGES = Path(__file__).parents[2] / "docs" / "images"
# Of each room: what is typed into it, and what is then waited for.
TYPED = {
    "translate": ("今天天气很好，我们去公园吧。", ".strip .token"),
    "couplets": ("春风得意马蹄疾", ".alternative"),
    "chat": ("如何删除子对象", ".talk li.model:not([aria-busy=true]) p:not(:empty)"),
    "generate": ("ROMEO:", ""),
    "fill": ("酒店的[MASK]很好", ".bars"),
    "label": ("房间很干净，服务也好\n太差了，再也不来", ".verdict"),
    "alike": ("房间很干净\n服务也好\n太差了", ".alike"),
}
# Of those that are given a file: what is waited for.
GIVEN = {
    "picture": ".overlay-view > .hint",
    "transcribe": ".text",
    "forecast": ".curves canvas",
}
VIEWS = (("", "en-US", "light", 1280), ("-zh", "zh-CN", "dark", 1280), ("-phone", "zh-CN", "light", 390))


def main() -> None:
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, CHROMIUM)))
    files = dict(each.split("=", 1) for each in sys.argv[1:] if "=" in each)
    folders = [Path(run) for run in sys.argv[1:] if "=" not in run] or [Path("zh-en"), Path("en-zh")]
    with serving(folders) as (address, _), sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=[*OPTIONS, "--no-sandbox"])
        for ending, locale, theme, width in VIEWS:
            draw_rooms(browser, address, files, ending, locale, theme, width)
        browser.close()


def draw_rooms(
    browser: "Browser", address: str, files: dict[str, str], ending: str, locale: str, theme: str, width: int
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, locale=locale)
    page = context.new_page()
    page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
    page.goto(address)
    page.locator(".room").first.wait_for()
    for link in page.locator("#tasks a").all():
        room = (link.get_attribute("href") or "").removeprefix("#")
        if room not in TYPED and room not in files:
            continue
        link.click()
        if room in TYPED:
            use(page, room)
        else:
            page.locator(f"#room-{room} input[type=file]").set_input_files(files[room])
            page.locator(f"#room-{room} {GIVEN[room]}").first.wait_for()
            page.wait_for_timeout(500)  # for the last picture to be drawn
        write(page, IMAGES / f"page-{room}{ending}.png")
    context.close()


def use(page: "Page", room: str) -> None:
    text, awaited = TYPED[room]
    page.locator(f"#room-{room} :is(textarea, input[type=text])").first.fill(text)
    if room == "chat":
        page.keyboard.press("Enter")
    if room == "generate":
        page.locator("#room-generate button.main").click()
        page.wait_for_function("document.querySelector('.output').getAttribute('aria-busy') === 'false'")
    if awaited:
        page.locator(f"#room-{room} {awaited}").first.wait_for()
    if room == "translate":
        page.locator(".strip[data-side=target] .token").nth(7).click()
    page.wait_for_timeout(500)  # for the last picture to be drawn


def write(page: "Page", path: Path) -> None:
    """As a picture of 256 colours, which is a third of the size."""
    drawn = Image.open(io.BytesIO(page.screenshot()))
    drawn.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
