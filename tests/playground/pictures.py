"""Take the pictures of the playground in the documentation: `python -m tests.playground.pictures [DIRECTORY]`.

It needs what the tests of the playground need: Debian's chromium, and playwright.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.support.playground import Daemon, begin, bots_in, page_of, said, say, story_of

ASSETS = Path(__file__).parents[2] / "docs" / "assets"
DESKTOP = {"width": 1240, "height": 780}
PHONE = {"width": 390, "height": 780}


def take(page: Any, directory: Path, name: str) -> None:
    """Take a picture, without the pointer over anything and without a caret."""
    page.mouse.move(2, 2)
    page.wait_for_timeout(200)
    page.screenshot(path=directory / f"playground-{name}.png", caret="hide")


def talk(page: Any) -> None:
    """Talk to the bots, one of which fails once."""
    begin(page)
    say(page, "/hello")
    said(page, "What is your name?").wait_for()
    say(page, "Ann")
    said(page, "Hi Ann!").wait_for()
    say(page, "/roll 2 20")
    said(page, "2d20, roll 1").wait_for()
    say(page, "/remind")
    said(page, "I will.").wait_for()
    page.wait_for_timeout(10_500)  # a thread takes ten messages in ten seconds, replies included
    say(page, "/boom")
    page.locator(".message .bad").wait_for()
    say(page, "/roll 3")
    said(page, "3d6, roll 2").wait_for()


def fork(page: Any, daemon: Daemon) -> None:
    """Fork the talk after the code of one answer has changed."""
    file = daemon.directory / "playbots" / "dice.py"
    file.write_text(file.read_text().replace('f"{dice}d{sides}, roll', 'f"You rolled {dice}d{sides}, roll'))
    row = page.locator(".message", has_text="/roll 2 20").first
    row.hover()
    row.get_by_role("button", name="Fork from here").click()
    page.get_by_role("main", name="Fork").get_by_text("with today's code.").wait_for()


def main() -> None:
    """Take all pictures."""
    from playwright.sync_api import sync_playwright

    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else ASSETS
    program = shutil.which("chromium")
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        daemon = Daemon(bots_in(Path(place)))
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            link = daemon.start()
            with page_of(browser, link, size=DESKTOP) as page:
                talk(page)
                story_of(page, "/roll 3").get_by_text("Read receipt sent").first.wait_for()
                take(page, directory, "story")
                page.get_by_role("tab", name="Bots").click()
                page.get_by_role("heading", name="Dead letters").wait_for()
                take(page, directory, "bots")
                page.get_by_role("tab", name="Tools").click()
                page.get_by_role("button", name="Throttle sending").click()
                page.get_by_role("button", name="End all faults").wait_for()
                take(page, directory, "tools")
                page.get_by_role("button", name="End all faults").click()
                page.get_by_role("button", name="End all faults").wait_for(state="detached")
            with page_of(browser, link, size=DESKTOP) as page:
                said(page, "3d6, roll 2").wait_for()
                fork(page, daemon)
                take(page, directory, "fork")
            with page_of(browser, link, "dark", PHONE) as page:
                page.get_by_role("button", name=re.compile("^Ann and the bots")).click()
                said(page, "3d6, roll 2").wait_for()
                take(page, directory, "phone")
        finally:
            browser.close()
            daemon.stop()


if __name__ == "__main__":
    main()
