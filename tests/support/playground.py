"""The playground in a browser: a `chatbot run` in a directory of its own, and what a test does on its page."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs
import pytest

PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1360, "height": 860}
SECONDS = 30_000

BOTS = """
version: 1
service: emulator
store: sqlite:///chatbot.db
bots:
  dice: {display_name: Dice, plugins: [playbots.dice]}
  clerk: {display_name: Clerk, plugins: [playbots.clerk]}
"""

DICE = '''
from asyncio import sleep
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from chatbot import Context, Dialog, Plugin, Retry, State, TimerFired, has_attachment

plugin = Plugin("dice")


@dataclass
class Rolls:
    count: int = 0


@plugin.command("roll")
async def roll(ctx: Context, rolls: State[Rolls], dice: int, sides: int = 6) -> str:
    """Roll dice."""
    rolls.value = Rolls(rolls.value.count + 1)
    return f"{dice}d{sides}, roll {rolls.value.count}"


@plugin.command("hello")
async def hello(talk: Dialog) -> None:
    """Say hello."""
    name = await talk.ask("What is your name?")
    await talk.say(f"Hi {name}!")


@plugin.command("remind")
async def remind(ctx: Context) -> str:
    """Remind me in an hour."""
    await ctx.later(timedelta(hours=1), follow_up)
    return "I will."


@plugin.timer
async def follow_up(ctx: Context[TimerFired]) -> str:
    return "An hour has passed."


@plugin.command("boom", retry=Retry(1))
async def boom(ctx: Context) -> str:
    """Fail, unless it was repaired."""
    if Path("repaired").exists():
        return "It works again."
    raise ValueError("this handler fails")


@plugin.command("stubborn", retry=Retry(100, longest=timedelta(seconds=2)))
async def stubborn(ctx: Context) -> str:
    """Fail until it was repaired."""
    if Path("repaired").exists():
        return "It works at last."
    raise ValueError("this handler fails")


@plugin.command("slow")
async def slow(ctx: Context) -> str:
    """Hang at the first attempt."""
    if not Path("hung").exists():
        Path("hung").touch()
        await sleep(3600)
    return "The second attempt."


@plugin.message(has_attachment)
async def received(ctx: Context) -> str:
    """Name what was attached."""
    *files, image = sorted(ctx.message.attachments, key=lambda one: one.type == "image")
    return f"{len(files)} files and {image.name}"


@plugin.message()
async def echo(ctx: Context) -> str:
    return f"echo: {ctx.text}"
'''

CLERK = '''
from chatbot import Context, Plugin

plugin = Plugin("clerk")


@plugin.command("files")
async def files(ctx: Context) -> str:
    """List the files."""
    return "none"
'''


class Daemon:
    """A `chatbot run` in a directory of its own."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.options = options
        self.process: subprocess.Popen[str] | None = None
        self.output = ""

    def start(self) -> str:
        """Start it, and return the link of the playground, or "" without one."""
        command = [sys.executable, "-m", "chatbot", "run", "--log-format", "console", *self.options]
        environment = {**os.environ, "XDG_DATA_HOME": str(self.directory / "data"), "NO_COLOR": "1"}
        self.process = subprocess.Popen(
            command, cwd=self.directory, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert self.process.stdout is not None
        link = ""
        for line in self.process.stdout:
            self.output += line
            if "#token=" in line:
                link = line.strip()
            if "ca file" in line:
                return link
        pytest.fail(f"the daemon does not start: {self.output}")

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self._collect()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self._collect()

    def _collect(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        self.output += self.process.stdout.read()
        self.process.wait()
        self.process.stdout.close()


def bots_in(directory: Path) -> Path:
    (directory / "bots.yaml").write_text(BOTS)
    package = directory / "playbots"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "dice.py").write_text(DICE)
    (package / "clerk.py").write_text(CLERK)
    return directory


@contextmanager
def page_of(browser: Any, link: str, scheme: str = "light", size: dict[str, int] = DESKTOP) -> Iterator[Any]:
    """A page in a browser context of its own; an error of a script, or of the policy, fails the test."""
    context = browser.new_context(
        color_scheme=scheme,
        viewport=size,
        permissions=["clipboard-read", "clipboard-write"],
        locale="en-GB",
        reduced_motion="reduce",
    )
    context.set_default_timeout(SECONDS)
    problems: list[str] = []
    asked: list[str] = []
    context.on("page", lambda page: watch(page, problems))
    context.on("request", lambda request: asked.append(request.url))
    page = context.new_page()
    page.goto(link)
    try:
        yield page
    except BaseException:
        picture(page, "when-it-failed")
        raise
    finally:
        context.close()
    assert problems == []
    host = re.match(r"http://[^/]+/", link)
    assert host is not None
    assert [url for url in asked if not url.startswith((host[0], "data:"))] == []


def watch(page: Any, problems: list[str]) -> None:
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda line: problems.append(line.text) if is_problem(line) else None)


def is_problem(line: Any) -> bool:
    """Whether a line on the console is a defect of the page; a lost connection is not."""
    return bool(line.type == "error") and "WebSocket connection" not in line.text


def results() -> Path:
    """Where screenshots and frame times go: to be looked at, and compared."""
    given = os.environ.get("CHATBOT_PLAYGROUND_PICTURES")
    directory = Path(given) if given else platformdirs.user_cache_path("chatbot-tests") / "playground"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def picture(page: Any, name: str) -> None:
    page.wait_for_timeout(50)  # nothing moves for longer: see `reduced_motion`
    page.screenshot(path=results() / f"{name}.png")


def begin(page: Any, name: str = "Ann") -> None:
    """Enter as the first person, and wait for the thread with the bots."""
    page.get_by_label("Your name").fill(name)
    page.get_by_role("button", name="Start a thread").click()
    page.get_by_role("heading", name=f"{name} and the bots").wait_for()


def say(page: Any, text: str) -> None:
    page.get_by_role("textbox", name="Message").fill(text)
    page.keyboard.press("Enter")


def said(page: Any, text: str) -> Any:
    return page.locator(".message .text", has_text=text).last


def until(page: Any, condition: str) -> None:
    """Wait for a condition. The page's policy forbids playwright's own function for it, which evaluates text."""
    for _ in range(SECONDS // 50):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"this has not come: {condition}")


def wait_for(page: Any, condition: Callable[[], bool]) -> None:
    """Wait for something outside the page."""
    for _ in range(SECONDS // 50):
        if condition():
            return
        page.wait_for_timeout(50)
    pytest.fail("this has not come")


def story_of(page: Any, text: str) -> Any:
    """Open the story of a message, and return the inspector."""
    said(page, text).click()
    page.get_by_role("tab", name="Story").click()
    return page.get_by_role("complementary", name="Inspector")
