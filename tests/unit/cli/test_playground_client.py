"""A story of the playground in lines, for `/inspect` at `chatbot chat`."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import anyio
import pytest

import chatbot
from chatbot.cli import playground_client
from chatbot.cli.playground_client import playground_of, story_text
from chatbot.errors import StateError
from chatbot.runtime.observe.story import Stories
from chatbot.runtime.run_directory import ControlDirectory, RunInfo
from chatbot.worker_threads import run_in_thread
from tests.support.assembled import assembled

PLUGIN = """
from dataclasses import dataclass
from datetime import timedelta

from chatbot import Context, Dialog, Plugin, Retry, State, TimerFired, text

plugin = Plugin("p")


@dataclass
class Total:
    sum: int = 0


@plugin.command("add")
async def add(ctx: Context, total: State[Total], amount: int) -> str:
    total.value = Total(total.value.sum + amount)
    await ctx.later(timedelta(hours=1), again)
    return f"now {total.value.sum}"


@plugin.timer
async def again(ctx: Context[TimerFired]) -> None: ...


@plugin.command("boom", retry=Retry(2, first=timedelta(seconds=1)))
async def boom(ctx: Context) -> None:
    raise ValueError("no luck")


@plugin.command("ask")
async def ask(talk: Dialog) -> None:
    await talk.ask("Which?")


@plugin.command("pay", retry=Retry(2, first=timedelta(seconds=1)))
async def pay(ctx: Context) -> str:
    before = len(charged)
    found = await ctx.once("pay", charge)
    if len(charged) > before:
        raise ValueError("only the second attempt is well")
    return f"paid {found}"


def charge() -> int:
    charged.append(7)
    return 7


charged = []


@plugin.message(text("never"))
async def never(ctx: Context) -> None: ...
"""


@pytest.mark.virtual_time
async def test_every_step_of_a_story_has_its_line(tmp_path: Path) -> None:
    stories = Stories()
    async with assembled(tmp_path, PLUGIN, stories=stories) as bot:
        for text in ("/add 2", "/boom", "hm", "/pay", "/add many"):
            await bot.say(text)
        await anyio.sleep(60)  # a thread takes ten messages in ten seconds
        bot.emulator.faults.add(f"send_message:reset-after,times=1,user={bot.bot.user}")
        await bot.say("/add 3")
        bot.emulator.faults.add(f"send_message:429,times=1,user={bot.bot.user}")
        await bot.say("/add 4")
        await bot.say("/ask")

    told = {
        story.get("text") or story["event"]: re.sub(r"plugin_\w+\.", "p.", story_text(story)) for story in stories.all()
    }
    add = told["/add 3"].splitlines()
    assert add[0] == "/add 3: handled"
    assert 'state p.Total of the thread: {"sum": 2} -> {"sum": 5}' in told["/add 3"]
    assert re.search(r"  timer p\.again due at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d", told["/add 3"])
    assert "chosen /add amount=3" in add
    assert any(line.startswith("sent, outcome unknown ") for line in add)
    assert re.search(r"^not sent .* Throttled: ", told["/add 4"], re.MULTILINE)
    assert "{}" not in told["/add 3"]
    assert "found in the thread: it was sent" in add
    assert told["/boom"].startswith("/boom: a dead letter\n")
    assert "retried in " in told["/boom"]
    assert "attempt 2" in told["/boom"].splitlines()
    assert "ValueError: no luck\nTraceback" in told["/boom"]
    assert "`chatbot dead-letters retry " in told["/boom"]
    assert "  dialog p.ask waits" in told["/ask"]
    assert "result of ctx.once from the journal: 7" in told["/pay"].splitlines()
    assert "answered how p.add is used; it did not run" in told["/add many"].splitlines()
    assert "ran p.add" not in told["/add many"]
    assert told["hm"].startswith("hm: no handler\n")
    assert "not p.never: " in told["hm"]


def test_every_kind_of_step_is_told_on_the_terminal_and_on_the_page() -> None:
    package = Path(chatbot.__file__).parent
    sources = "".join(
        file.read_text() for folder in ("runtime", "testing") for file in (package / folder).rglob("*.py")
    )
    kinds = {*re.findall(r'story\.add\(\s*"(\w+)"', sources), *re.findall(r'_carrying_out\(story, "(\w+)"', sources)}
    page = (package / "playground" / "static" / "inspector.js").read_text()

    assert {"attempt", "recalled", "receipt", "refused", "settled"} <= kinds
    assert sorted(kinds - set(re.findall(r'case "(\w+)":', page))) == []
    assert sorted(kind for kind in kinds if f'"{kind}"' not in inspect.getsource(playground_client)) == []


@pytest.mark.parametrize(
    ("endpoint", "facts", "reason"),
    [
        ("https://x.communication.azure.com", {}, "these bots run on Azure"),
        ("http://127.0.0.1:1", {}, "these bots run without the playground"),
        ("http://127.0.0.1:1", {"token": "old", "port": 1, "pid": 6}, "these bots run without the playground"),
        ("http://127.0.0.1:1", {"token": "t", "port": 1, "pid": 7}, "127.0.0.1:1 does not answer"),
    ],
)
async def test_where_there_is_no_playground_the_reason_is_told(
    tmp_path: Path, endpoint: str, facts: dict[str, Any], reason: str
) -> None:
    control = ControlDirectory(tmp_path)
    await run_in_thread(control.write_facts, "playground", facts)
    with pytest.raises(StateError, match=reason):
        async with playground_of(control, RunInfo(7, endpoint, None, "resource")):
            pass
