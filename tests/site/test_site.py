"""The documentation site in a real browser: it asks no other host, its search works, and its pages are accessible.

Run by .ci/run after .ci/site has built it: needs Debian's chromium, and playwright with axe.
"""

from __future__ import annotations

import functools
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.site, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
SITE = ROOT / "site"
PAGES = ("", "tutorial/", "how-to/docker/", "concepts/promise/", "reference/api/plugin/", "reference/settings/")
"""One page of each type."""

WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
"""Axe's rules of WCAG 2.2, levels A and AA."""

PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The site, served on loopback."""
    assert (SITE / "index.html").exists(), "build the site first: bash .ci/site"

    class Silent(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=str(SITE)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def opened(browser: Any, scheme: str = "light", size: dict[str, int] = DESKTOP) -> Any:
    return browser.new_context(color_scheme=scheme, viewport=size)


def test_no_page_asks_another_host_and_the_search_finds_pages(address: str, browser: Any) -> None:
    context = opened(browser)
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    # With the network cut: only the site itself is answered.
    context.route(lambda url: not url.startswith(address), lambda route: route.abort())
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    for path in PAGES:
        page.goto(address + path, wait_until="networkidle")
        assert page.locator("h1").first.is_visible()
    page.goto(address, wait_until="networkidle")
    page.keyboard.press("/")
    page.keyboard.type("dead letter", delay=20)
    page.get_by_text("Handle dead letters").last.wait_for()
    context.close()

    elsewhere = [url for url in asked if not url.startswith((address, "data:", "blob:"))]
    assert elsewhere == []
    assert problems == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("path", ["", "how-to/docker/", "reference/settings/", "reference/api/plugin/"])
def test_pages_are_accessible_and_fit_the_screen(
    path: str, size: dict[str, int], scheme: str, address: str, browser: Any, tmp_path: Path
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    context = opened(browser, scheme, size)
    page = context.new_page()
    page.goto(address + path, wait_until="networkidle")
    pictures = Path(os.environ.get("CHATBOT_SITE_PICTURES", tmp_path))
    page.screenshot(path=pictures / f"{path.strip('/').replace('/', '-') or 'front'}-{size['width']}-{scheme}.png")

    violations = axe.run(page, options={"runOnly": WCAG}).response["violations"]
    width = page.evaluate("document.documentElement.scrollWidth")
    context.close()

    assert [f"{one['id']}: {one['nodes'][0]['html'][:120]}" for one in violations] == []
    assert width <= size["width"]
