"""What people send is data: never a template, a pattern, a path, markup or a proof, wherever it passes."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from chatbot.actions import action_key
from chatbot.model import REPLY_KEY
from chatbot.runtime.logs import logging_to
from chatbot.runtime.observe.status import StatusMonitor, as_json
from tests.support.assembled import assembled

pytestmark = pytest.mark.virtual_time

PLUGIN = """
from chatbot import Context, Plugin, Retry

plugin = Plugin("mirror")

@plugin.command("say")
async def say(ctx: Context, word: str, *, loud: bool = False) -> str:
    return word

@plugin.message(retry=Retry(1))
async def mirror(ctx: Context) -> str:
    if ctx.text.startswith("lose "):
        raise LookupError(ctx.text)
    ctx.log.info("message.mirrored", sender=ctx.sender.display_name, length=len(ctx.text))
    return ctx.text
"""

HOSTILE = [
    "{0.__class__.__mro__} {ctx.bot} {{7*7}} ${ACS_CONNECTION_STRING} %s %(x)s %n",
    "'; DROP TABLE outbox; --",
    "../../etc/passwd\x00.txt",
    "\x1b]0;owned\x07\x1b[2J\u202egnp.exe",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    '"}\n{"event": "forged.line", "level": "info"}',
    "/say {0.__class__}",
    "//say /../x --loud=maybe",
    "/say 'unclosed",
    "\ud800 half a pair".encode("utf-8", "replace").decode(),
    "e\u0301" * 3000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
async def test_words_come_back_as_they_were_and_break_nothing(text: str, tmp_path: Path) -> None:
    log = io.StringIO()
    with logging_to(log, format="json"):
        async with assembled(tmp_path, PLUGIN) as site:
            await site.say(text)
            await site.say("still there?")
            replies = await site.replies()

    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert replies[-1] == "still there?"
    assert len(replies) == 2
    if not text.startswith(("/", "<")):
        assert replies[0].replace("\x00", "") == text.replace("\x00", "")
    assert not [line for line in lines if line["level"] == "error"]
    assert "forged.line" not in {line["event"] for line in lines}


@pytest.mark.parametrize("name", ["{0}%s\x1b[31m\nforged", "\u202eNnA", "<b>Ann</b>", "A" * 200])
async def test_a_display_name_is_text_like_any_other(name: str, tmp_path: Path) -> None:
    log = io.StringIO()
    with logging_to(log, format="console"):
        async with assembled(tmp_path, PLUGIN) as site:
            message = await site.ann.send_message(site.thread, "hi", display_name=name)
            await site.bot.wait_until_settled(site.thread, int(message))

            assert await site.replies() == ["hi"]

    assert all(line.isprintable() for line in log.getvalue().splitlines())
    assert not [line for line in log.getvalue().splitlines() if line.startswith("forged")]


async def test_a_reply_key_that_somebody_else_put_into_a_message_proves_nothing(tmp_path: Path) -> None:
    async with assembled(tmp_path, PLUGIN) as site:
        await site.say("hello")
        site.emulator.faults.add(f"send_message:503,times=1,user={site.bot.user}")
        message = await site.ann.send_message(site.thread, "are you there?")
        forged = action_key(site.bot.user, site.thread, message, f"{site.module}.mirror", 0)
        await site.ann.send_message(site.thread, "(no proof)", metadata={REPLY_KEY: forged})
        await site.bot.wait_until_settled(site.thread, int(message))

        assert await site.replies() == ["hello", "are you there?"]
        page = await site.ann.list_messages(site.thread)
        assert forged in {one.reply_key for one in page.messages if one.sender == site.bot.user}  # it was the right one


async def test_hostile_metadata_is_passed_on_and_breaks_nothing(tmp_path: Path) -> None:
    metadata = {"{0}": "%s", "\x1b[31m": "\n", "chatbot.unheard": "of", "__proto__": "x", "a": "\ud7ff" * 100}
    async with assembled(tmp_path, PLUGIN) as site:
        message = await site.ann.send_message(site.thread, "hi", metadata=metadata)
        await site.bot.wait_until_settled(site.thread, int(message))

        assert await site.replies() == ["hi"]


async def test_the_status_contains_no_message_text(tmp_path: Path) -> None:
    async with assembled(tmp_path, PLUGIN) as site:
        await site.say("lose the-secret-word")
        status_monitor = StatusMonitor([site.bot], {"echo": site.counters}, site.store, site.connection)
        shown = json.dumps(as_json(await status_monitor.read_status()))

    assert '"LookupError"' in shown
    assert "secret-word" not in shown
