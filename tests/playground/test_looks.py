"""How the playground looks and feels: long names and threads, the keyboard, light, dark, and a phone."""

from __future__ import annotations

import json
import re
import urllib.request
from typing import Any

import pytest

from tests.support.playground import (
    DESKTOP,
    PHONE,
    Daemon,
    begin,
    page_of,
    picture,
    results,
    said,
    say,
    story_of,
    until,
)

pytestmark = [pytest.mark.playground, pytest.mark.timeout(300)]


def test_long_names_and_right_to_left_text_keep_their_place(daemon: Daemon, browser: Any) -> None:
    link = daemon.start()
    name = "Maximiliane-Friederike von und zu Hohenlohe-Waldenburg-Schillingsfürst " * 2
    with page_of(browser, link) as page:
        begin(page, name.strip())
        say(page, "שלום לכולם, מה שלומכם היום?")
        say(page, "مرحبا بالعالم " * 12)
        say(page, "x" * 400)
        said(page, "echo: xxx").wait_for()
        story_of(page, "שלום").get_by_text("Ran").first.wait_for()
        picture(page, "long")
        assert page.evaluate("document.documentElement.scrollWidth") <= DESKTOP["width"]


def test_everything_works_by_the_keyboard_alone(daemon: Daemon, browser: Any) -> None:
    link = daemon.start()
    with page_of(browser, link) as page:
        until(page, "document.activeElement.name === 'name'")
        page.keyboard.type("Ann")
        page.keyboard.press("Enter")
        field = page.get_by_role("textbox", name="Message")
        field.wait_for()
        tab_to(page, "document.activeElement.getAttribute('aria-label') === 'Message'")
        page.keyboard.type("/roll 1")
        page.keyboard.press("Enter")
        said(page, "1d6, roll 1").wait_for()
        tab_to(page, "document.activeElement.classList.contains('virtual')", "Shift+Tab")
        page.keyboard.press("End")
        page.keyboard.press("ArrowUp")
        until(
            page, "document.activeElement.matches('[data-row]') && document.activeElement.innerText.includes('/roll 1')"
        )
        page.keyboard.press("Enter")
        page.locator(".story", has_text="Dice").get_by_text("Ran").wait_for()
        tab_to(page, "document.activeElement.role === 'tab'")
        page.keyboard.press("ArrowRight")
        until(page, "document.activeElement.id === 'tab-details'")
        page.get_by_role("tabpanel").get_by_text("Version").wait_for()


def test_the_focus_stays_near_what_the_keyboard_has_pressed(daemon: Daemon, browser: Any) -> None:
    link = daemon.start()

    def press(name: str, key: str = "Enter") -> None:
        page.get_by_role("button", name=name).first.focus()
        page.keyboard.press(key)

    with page_of(browser, link) as page:
        begin(page)
        press("Rename")
        until(page, "document.activeElement.ariaLabel === 'Topic'")
        page.keyboard.press("ControlOrMeta+a")
        page.keyboard.type("Dice only")
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Dice only").wait_for()
        until(page, "document.activeElement.closest('.conversation-head') !== null")
        say(page, "hello")
        said(page, "echo: hello").wait_for()
        page.locator(".message", has_text="hello").first.click()
        page.get_by_role("tab", name="Details").click()
        press("Edit")
        until(page, "document.activeElement.matches('.inspector textarea')")
        page.keyboard.press("Escape")
        until(page, "document.activeElement.textContent === 'Edit'")
        press("New thread")
        until(page, "document.activeElement.matches('dialog input')")
        page.keyboard.type("Second")
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Second").wait_for()
        until(page, "document.activeElement.textContent === 'New thread'")


def tab_to(page: Any, condition: str, key: str = "Tab") -> None:
    for _ in range(60):
        if page.evaluate(condition):
            return
        page.keyboard.press(key)
    pytest.fail(f"{key} does not lead to {condition}")


VIEWS = [
    (f"{kind}-{scheme}", scheme, size)
    for kind, size in (("desktop", DESKTOP), ("phone", PHONE))
    for scheme in ("light", "dark")
]


def test_the_page_is_accessible_in_light_and_dark_and_on_a_phone(daemon: Daemon, browser: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    options = {
        "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"],
        "resultTypes": ["violations"],
    }
    link = daemon.start()
    found: list[str] = []

    def check(page: Any, place: str) -> None:
        picture(page, place)
        assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
        violations = axe.run(page, options=options).response["violations"]
        found.extend(f"{place}: {one['id']} {one['nodes'][0]['html'][:150]}" for one in violations)

    for kind, scheme, size in VIEWS:
        with page_of(browser, link, scheme, size) as page:
            page.get_by_label("Your name").wait_for()
            check(page, f"welcome-{kind}")
    with page_of(browser, link) as page:
        begin(page)
        say(page, "/boom")
        page.locator(".message .bad").wait_for()
        say(page, "/remind")
        said(page, "I will.").wait_for()
    for kind, scheme, size in VIEWS:
        with page_of(browser, link, scheme, size) as page:
            is_phone = size is PHONE
            if is_phone:
                page.get_by_role("button", name=re.compile("^Ann and the bots")).wait_for()
                check(page, f"threads-{kind}")
                page.get_by_role("button", name=re.compile("^Ann and the bots")).click()
            said(page, "I will.").wait_for()
            page.get_by_role("button", name="Attach").click()
            page.get_by_role("button", name="Metadata").click()
            check(page, f"conversation-{kind}")
            page.get_by_role("button", name="Attach").click()
            page.get_by_role("button", name="Metadata").click()
            said(page, "/boom").click()
            if is_phone:
                page.get_by_role("button", name="Inspector").click()
            page.get_by_role("complementary").locator("summary", has_text="Traceback").click()
            check(page, f"story-{kind}")
            for tab in ("Details", "Bots", "Tools"):
                page.get_by_role("tab", name=tab).click()
                if tab == "Bots":
                    page.get_by_role("heading", name="Timers").wait_for()
                if tab == "Tools":
                    page.get_by_text("Quirks", exact=True).click()
                    page.get_by_role("button", name="Slow service").click()
                    page.get_by_role("button", name="End all faults").wait_for()
                check(page, f"{tab.lower()}-{kind}")
                if tab == "Tools":
                    page.get_by_role("button", name="End all faults").click()
                    page.get_by_role("button", name="End all faults").wait_for(state="detached")
            if is_phone:
                page.get_by_role("button", name="Threads").click()
            page.get_by_role("button", name="New thread").first.click()
            check(page, f"dialog-{kind}")
    assert found == []


def test_long_threads_scroll_without_rendering_everything(daemon: Daemon, browser: Any) -> None:
    link = daemon.start()
    with page_of(browser, link) as page:
        begin(page)
        plant(daemon, threads=50, messages=5_000)
        page.get_by_role("button", name=re.compile("^Planted 0 ")).click()
        said(page, "line 4949").wait_for()
        assert page.locator("[data-row]").count() < 100
        frames = {f"scroll_{step}_px": frame_times(page, step) for step in (120, 900)}
        page.get_by_role("button", name="Latest").click()
        said(page, "line 4949").wait_for()
        frame_times(page, 120)
        page.get_by_role("button", name=re.compile("^Join")).click()
        page.get_by_role("textbox", name="Message").wait_for()
        say(page, "the newest line")
        said(page, "the newest line").wait_for()
        (results() / "frames.json").write_text(json.dumps({"milliseconds": frames}, indent=1))
        print(frames)
        page.locator(".virtual").focus()
        page.keyboard.press("End")
        until(page, "document.activeElement.innerText?.includes('the newest line')")
        page.evaluate(TWO_KEYS_BEFORE_THE_NEXT_FRAME)
        until(page, "document.activeElement.innerText?.includes('line 4950')")
        page.keyboard.press("Home")
        said(page, "line 0").wait_for()
        picture(page, "many")
        assert page.locator("[data-row]").count() < 100
        page.evaluate("document.querySelector('.virtual').scrollTop = 100_000")
        until(page, f"{TOP_ROW.strip()} !== null")
        page.wait_for_timeout(200)  # rows are placed by their heights once they are drawn
        place = page.evaluate(TOP_ROW)
        daemon.kill()
        page.get_by_text("Connecting again").wait_for()
        daemon.start()
        page.get_by_text("Connecting again").wait_for(state="detached")
        page.get_by_role("button", name=re.compile("^Ann and the bots")).wait_for()
        page.wait_for_timeout(500)  # all messages come again, and must not move what is read
        assert page.evaluate(TOP_ROW) == place


TWO_KEYS_BEFORE_THE_NEXT_FRAME = """
async () => {
    const box = document.querySelector(".virtual");
    const up = { key: "ArrowUp", bubbles: true };
    const press = () => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", up));
    press();
    box.scrollTop -= 700;  // the list draws other rows by itself meanwhile
    box.dispatchEvent(new Event("scroll"));
    for (let n = 0; n < 10; n++) await null;
    press();
}
"""

TOP_ROW = """
(() => {
    const top = document.querySelector(".virtual").getBoundingClientRect().top;
    const rows = [...document.querySelectorAll("[data-row]")];
    return rows.find((row) => row.getBoundingClientRect().bottom > top)?.dataset.row ?? null;
})()
"""


def frame_times(page: Any, step: int) -> dict[str, float]:
    """Scroll up by so many pixels a frame, and return how long the frames took."""
    times: list[float] = page.evaluate(
        """async (step) => {
            const box = document.querySelector(".virtual");
            const times = [];
            let last = performance.now();
            for (let n = 0; n < 90; n++) {
                box.scrollTop -= step;
                await new Promise((done) => requestAnimationFrame(done));
                const now = performance.now();
                times.push(now - last);
                last = now;
            }
            return times.sort((a, b) => a - b);
        }""",
        step,
    )
    return {"median": round(times[45], 1), "p95": round(times[85], 1), "worst": round(times[-1], 1)}


def plant(daemon: Daemon, *, threads: int, messages: int) -> None:
    """Plant threads of others, as the seed of an emulator: one is long, the others are short."""
    facts = json.loads((daemon.directory / ".chatbot" / "run.json").read_text())
    key = facts["connection_string"].partition("accesskey=")[2]
    long = messages - (threads - 1)
    document = {
        "users": ["Bob"],
        "threads": [
            {
                "topic": f"Planted {number}",
                "creator": "Bob",
                "messages": [
                    {"from": "Bob", "text": f"line {line} " + "and more words " * (line % 9)}
                    for line in range(long if number == 0 else 1)
                ],
            }
            for number in range(threads)
        ],
    }
    request = urllib.request.Request(
        f"{facts['endpoint']}/emulator/seed",
        data=json.dumps(document).encode(),
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        method="POST",
    )
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200
