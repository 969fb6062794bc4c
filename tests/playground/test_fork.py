"""The fork of the playground in a real browser: old and new answers side by side, against a real `chatbot run`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.playground import (
    DESKTOP,
    PHONE,
    Daemon,
    begin,
    bots_in,
    page_of,
    picture,
    said,
    say,
    until,
    wait_for,
)

pytestmark = [pytest.mark.playground, pytest.mark.timeout(300)]

PLAYED = """
import os
import random
import socket
import time

from chatbot import Context, Plugin

plugin = Plugin("dice")


@plugin.command("chance")
async def chance(ctx: Context) -> str:
    return f"You rolled {random.randint(1, 1_000_000)}"


@plugin.command("pay")
async def pay(ctx: Context) -> str:
    return f"paid {await ctx.once('pay', charge)}"


def charge() -> int:
    with open("charged", "a") as file:
        file.write("x")
    return random.randint(1, 1_000_000)


@plugin.command("fetch")
async def fetch(ctx: Context) -> str:
    try:
        socket.create_connection(("127.0.0.1", 9), timeout=1)
    except OSError:
        return "nobody listens"
    return "connected"


@plugin.message()
async def echo(ctx: Context) -> str:
    return f"echo: {ctx.text}"
"""


@pytest.fixture(scope="module")
def talked(tmp_path_factory: pytest.TempPathFactory, browser: Any) -> Iterator[tuple[Daemon, str]]:
    """Bots to whom Ann has said something of everything, and the link of their playground."""
    directory = bots_in(tmp_path_factory.mktemp("talked"))
    (directory / "playbots" / "dice.py").write_text(PLAYED)
    daemon = Daemon(directory)
    link = daemon.start()
    with page_of(browser, link) as page:
        begin(page)
        lines = {"hello": "echo: hello", "/chance": "You rolled", "/pay": "paid", "/fetch": "nobody listens"}
        for line, answer in {**lines, "שלום <b onclick=hit()>": "echo: שלום"}.items():
            say(page, line)
            said(page, answer).wait_for()
    yield daemon, link
    daemon.stop()


def change(daemon: Daemon, old: str, new: str) -> None:
    file = daemon.directory / "playbots" / "dice.py"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def fork(page: Any, text: str) -> Any:
    """Fork from a message, by its button, and return the part of the page that shows it."""
    row = page.locator(".message", has_text=text).first
    row.hover()
    row.get_by_role("button", name="Fork from here").click()
    return page.get_by_role("main", name="Fork")


def finished(view: Any) -> Any:
    view.get_by_text(re.compile(r"with today's code( and \d edited lines?)?\.$")).wait_for()
    return view


def marked(view: Any, text: str) -> str:
    """Return how the answer with a text is marked."""
    mark: str = view.locator(".fork-reply", has_text=text).first.get_attribute("data-mark")
    return mark


def processes_of(daemon: Daemon) -> list[str]:
    """Return the processes of forks that this daemon has begun."""
    assert daemon.process is not None
    found = subprocess.run(["ps", "-ww", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=2) for line in found.splitlines()]
    return [pid for pid, _, args in rows if "chatbot.testing.replays.child" in args and is_below(pid, rows, daemon)]


def is_below(pid: str, rows: list[list[str]], daemon: Daemon) -> bool:
    parents = {row[0]: row[1] for row in rows}
    assert daemon.process is not None
    while pid in parents:
        if pid == str(daemon.process.pid):
            return True
        pid = parents[pid]
    return False


def test_old_and_new_answers_stand_side_by_side(talked: tuple[Daemon, str], browser: Any) -> None:
    daemon, link = talked
    charged = (daemon.directory / "charged").read_text()
    with page_of(browser, link) as page:
        begin_again(page)
        same = finished(fork(page, "hello"))
        same.get_by_text("No answer differs with today's code.").wait_for()
        page.keyboard.press("Escape")
        change(daemon, 'f"echo: ', 'f"Echo, ')
        try:
            view = finished(fork(page, "/chance"))
            assert marked(view, "echo: hello") == "different"
            assert view.locator("[data-mark=different] ins").first.inner_text() == "Echo,"
            assert marked(view, "You rolled") == "not repeatable"
            view.get_by_text(re.compile(r"Not repeatable: random numbers, read at playbots/dice\.py:\d+")).wait_for()
            assert marked(view, "paid") == "same", "the result of once comes from the journal"
            assert marked(view, "nobody listens") == "same"
            assert (daemon.directory / "charged").read_text() == charged
            refused = view.get_by_text(re.compile("may not"))
            assert "look up 127.0.0.1" in refused.inner_text()
            view.locator(".fork-reply", has_text="nobody listens").get_by_role("button", name="Story").click()
            view.get_by_text("Network refused").wait_for()
            view.locator(".fork-reply", has_text="paid").get_by_role("button", name="Story").click()
            view.get_by_text("from the journal").wait_for()
            picture(page, "fork")

            view.locator(".fork-line", has_text="hello").get_by_role("button", name="Edit").click()
            page.keyboard.press("ControlOrMeta+a")
            page.keyboard.type("goodbye <img src=x onerror=window.hit=1>")
            page.keyboard.press("ControlOrMeta+Enter")
            view.get_by_text(re.compile(r"answers differ with today's code and 1 edited line\.$")).wait_for()
            view.get_by_text("edited for this fork", exact=True).wait_for()
            assert marked(view, "Echo, goodbye") == "different"
            edited = view.locator(".fork-reply", has_text="Echo, goodbye")
            assert "Answers a line that was edited for this fork." in edited.inner_text()
            assert page.evaluate("window.hit") is None
            view.get_by_label("Allow the network").check()
            view.get_by_role("button", name="Run again").click()
            refused.wait_for(state="detached")
            view.get_by_role("button", name="Undo 1 edit").click()
            view.get_by_text("edited for this fork", exact=True).wait_for(state="detached")
        finally:
            change(daemon, 'f"Echo, ', 'f"echo: ')


def begin_again(page: Any) -> None:
    page.get_by_role("heading", name="Ann and the bots").wait_for()


def test_the_keyboard_forks_edits_and_goes_back(talked: tuple[Daemon, str], browser: Any) -> None:
    _, link = talked
    with page_of(browser, link) as page:
        begin_again(page)
        page.locator(".message").nth(2).wait_for()  # keys go nowhere while the thread is still being read
        page.locator(".virtual").focus()
        page.keyboard.press("Home")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        until(page, "document.activeElement.matches('.message')")
        until(page, "document.activeElement.querySelector('.fork-here').tabIndex === 0")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Fork from here"
        page.keyboard.press("Enter")
        view = finished(page.get_by_role("main", name="Fork"))
        view.get_by_role("group", name="Answers before and now").focus()
        page.keyboard.press("End")
        page.keyboard.press("ArrowUp")
        until(page, "document.activeElement.matches('.fork-line')")
        until(page, "document.activeElement.querySelector('button').tabIndex === 0")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Edit"
        page.keyboard.press("Enter")
        until(page, "document.activeElement.matches('textarea')")
        page.keyboard.type("!")
        page.keyboard.press("ControlOrMeta+Enter")
        until(page, "document.activeElement.matches('.fork-line')")
        finished(view).get_by_text("edited for this fork", exact=True).wait_for()
        page.keyboard.press("Escape")
        page.get_by_role("textbox", name="Message").wait_for()
        until(page, "document.activeElement.matches('.message')")


def test_forks_are_accessible_light_and_dark_and_on_a_phone(talked: tuple[Daemon, str], browser: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    options = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
    _, link = talked
    found: list[str] = []
    for scheme, size in (("light", DESKTOP), ("dark", PHONE)):
        with page_of(browser, link, scheme, size) as page:
            if size is PHONE:
                page.get_by_role("button", name=re.compile("^Ann and the bots")).click()
            begin_again(page)
            view = finished(fork(page, "/chance"))
            view.locator(".fork-reply").first.get_by_role("button", name="Story").click()
            view.locator(".story").wait_for()
            picture(page, f"fork-{scheme}")
            assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
            violations = axe.run(page, options=options).response["violations"]
            found += [f"{scheme}: {one['id']}: {one['nodes'][0]['html']}" for one in violations]
    assert found == []


def test_code_that_cannot_be_replayed_is_explained_and_page_and_bots_live_on(
    talked: tuple[Daemon, str], browser: Any
) -> None:
    daemon, link = talked
    with page_of(browser, link) as page:
        begin_again(page)
        view = finished(fork(page, "hello"))
        for line, expected in {
            "    return (": re.compile(r"playbots/dice\.py:\d+: '\(' was never closed; correct the syntax"),
            "    os._exit(3)": re.compile("the process of the replay ended with exit code 3"),
        }.items():
            change(daemon, '    return f"echo: {ctx.text}"', line)
            view.get_by_role("button", name="Run again").click()
            view.get_by_text(expected).wait_for()
            change(daemon, line, '    return f"echo: {ctx.text}"')
        picture(page, "fork-failed")
        page.keyboard.press("Escape")
        say(page, "still there")
        said(page, "echo: still there").wait_for()


def test_the_processes_of_a_fork_end_with_it_the_page_and_the_daemon(tmp_path: Path, browser: Any) -> None:
    directory = bots_in(tmp_path)
    (directory / "playbots" / "dice.py").write_text(PLAYED)
    daemon = Daemon(directory)
    link = daemon.start()

    def hang(page: Any) -> Any:
        view = fork(page, "hello")
        view.get_by_text(re.compile("Replaying with today's code")).wait_for()
        wait_for(page, lambda: len(processes_of(daemon)) == 2)
        return view

    try:
        with page_of(browser, link) as page:
            begin(page)
            say(page, "hello")
            said(page, "echo: hello").wait_for()
            change(daemon, '    return f"echo: {ctx.text}"', "    time.sleep(3600)")
            view = hang(page)
            view.get_by_role("button", name="Stop").click()
            view.get_by_text("the fork was stopped").wait_for()
            wait_for(page, lambda: not processes_of(daemon))
            page.keyboard.press("Escape")
            hang(page)
            page.reload()
            begin_again(page)
            wait_for(page, lambda: not processes_of(daemon))
            hang(page)
            children = processes_of(daemon)
            daemon.kill()
            wait_for(page, lambda: not any(is_running(pid) for pid in children))
    finally:
        daemon.stop()


def is_running(pid: str) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_the_command_replays_a_thread_of_running_bots(talked: tuple[Daemon, str]) -> None:
    daemon, _ = talked
    facts = json.loads((daemon.directory / ".chatbot" / "run.json").read_text())

    def chatbot(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "NO_COLOR": "1"}
        command = [sys.executable, "-m", "chatbot", *words]
        return subprocess.run(
            command, cwd=daemon.directory, env=environment, capture_output=True, text=True, check=False
        )

    listed = chatbot("threads", "list", "--bot", "dice", "--format", "json")
    assert listed.returncode == 0, listed.stderr
    thread = next(id for one in json.loads(listed.stdout)["threads"] if (id := one["thread"]) != facts["lobby"])

    done = chatbot("replay", "--thread", thread)

    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"\d replies, no differences, 1 not repeatable", done.stdout)
    assert "not repeatable (random numbers, read at playbots/dice.py" in done.stdout
