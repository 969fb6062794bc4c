"""Lines of the log: what they are bound to, that they keep people's words to themselves, and do not repeat."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from chatbot.runtime.logs import logging_to
from tests.support.assembled import assembled

pytestmark = pytest.mark.virtual_time

PLUGIN = """
import logging
import structlog
from chatbot import Context, Plugin, Retry
from chatbot.errors import ServiceError

plugin = Plugin("talker")

@plugin.command("log")
async def log(ctx: Context) -> str:
    ctx.log.info("order.placed")
    structlog.get_logger().info("stock.counted")
    logging.getLogger("some.library").warning("theirs")
    return "logged"

@plugin.command("number", retry=Retry(2))
async def number(ctx: Context, word: str) -> str:
    return str(int(word))

@plugin.message(retry=Retry(1))
async def always(ctx: Context) -> str:
    raise LookupError("nothing of the kind")
"""

Lines = Callable[..., list[dict[str, Any]]]


class Log(io.StringIO):
    def lines(self, event: str | None = None) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in self.getvalue().splitlines()]
        return [line for line in found if event in (None, line["event"])]


async def test_every_log_line_names_bot_thread_message_handler_and_attempt(tmp_path: Path) -> None:
    log = Log()
    with logging_to(log, format="json"):
        async with assembled(tmp_path, PLUGIN) as site:
            message = await site.say("/log")

    bound = {"bot": "echo", "thread": site.thread, "message": message, "event_key": message, "attempt": 1}
    for event in ("order.placed", "stock.counted", "theirs"):
        (line,) = log.lines(event)
        assert bound.items() <= line.items(), line
        assert line["handler"].endswith(".log")


async def test_a_second_attempt_says_that_it_is_one(tmp_path: Path) -> None:
    log = Log()
    with logging_to(log, format="json", level="debug"):
        async with assembled(tmp_path, PLUGIN) as site:
            await site.say("/number x")

    assert [line["attempt"] for line in log.lines("handler.failed")] == [1, 2]


async def test_nothing_that_people_say_is_in_the_log_not_even_in_what_an_exception_quotes(tmp_path: Path) -> None:
    log = Log()
    with logging_to(log, format="json", level="debug"):
        async with assembled(tmp_path, PLUGIN) as site:
            await site.say("/number hunter2-Geheimnis")
            await site.say("another word of mine")

    assert "hunter2" not in log.getvalue()
    assert "Geheimnis" not in log.getvalue()
    assert "another word" not in log.getvalue()
    assert log.lines("handler.failed")[0]["exception"].endswith("ValueError: …")
    assert log.lines("handler.failed")[-1]["exception"].endswith("LookupError: …")


async def test_what_is_said_is_logged_where_bots_yaml_asks_for_it(tmp_path: Path) -> None:
    log = Log()
    with logging_to(log, format="json", texts=True):
        async with assembled(tmp_path, PLUGIN, more="log: {texts: true}\n") as site:
            await site.say("/log")
            await site.say("/number hunter2")

    assert [line["text"] for line in log.lines("message.received")] == ["/log", "/number hunter2"]
    assert [line["text"] for line in log.lines("reply.sent")] == ["logged"]
    assert "'hunter2'" in log.lines("handler.failed")[0]["exception"]


async def test_what_the_bot_says_is_logged_when_it_was_said_not_at_each_try(tmp_path: Path) -> None:
    log = Log()
    with logging_to(log, format="json", texts=True):
        async with assembled(tmp_path, PLUGIN, more="log: {texts: true}\n") as site:
            site.emulator.faults.add(f"send_message:503,times=2,user={site.bot.user}")
            site.emulator.faults.add(f"send_message:403,skip=3,user={site.bot.user}")
            await site.say("/log")
            await site.say("/number 7")

    assert [line["text"] for line in log.lines("reply.sent")] == ["logged"]


async def test_a_handler_that_fails_again_and_again_is_said_once_then_counted(tmp_path: Path) -> None:
    log = Log()
    with logging_to(log, format="json"):
        async with assembled(tmp_path, PLUGIN) as site:
            for number in range(5):
                await site.say(f"message {number}")
            await site.say("/number x")
            await anyio.sleep(120)
            counted = log.lines("handler.failed_again")
            await anyio.sleep(600)

    assert [line["handler"].rpartition(".")[2] for line in log.lines("handler.failed")] == ["always", "number"]
    assert [(line["error"], line["times"]) for line in counted] == [("LookupError", 4), ("ValueError", 1)]
    assert log.lines("handler.failed_again") == counted  # nothing more to say
    assert len(log.lines("event.dead_lettered")) == 6


async def test_replies_that_cannot_be_sent_are_said_once_and_once_more_when_they_can(tmp_path: Path) -> None:
    log = Log()
    with logging_to(log, format="json"):
        async with assembled(tmp_path, PLUGIN) as site:
            await site.say("/log")
            site.emulator.faults.add(f"send_message:503,user={site.bot.user}")
            await site.ann.send_message(site.thread, "/log")
            await anyio.sleep(600)
            during = [line for line in log.lines("trouble.began") if line["work"] == "send"]
            site.emulator.faults.clear()
            await site.say("/log")
            await anyio.sleep(60)
            replies = await site.replies()

    assert len(during) == 1
    assert [line["event"] for line in log.lines() if line.get("work") == "send"] == ["trouble.began", "trouble.ended"]
    assert replies == ["logged"] * 3


async def test_a_lost_response_no_longer_degrades_the_bot_once_a_poll_shows_the_reply(tmp_path: Path) -> None:
    log = Log()
    with logging_to(log, format="json"):
        async with assembled(tmp_path, PLUGIN) as site:
            await site.say("/log")
            site.emulator.faults.add(f"send_message:reset-after,times=1,user={site.bot.user}")
            await site.ann.send_message(site.thread, "/log")
            await anyio.sleep(60)  # nothing more is sent in the thread
            ended = log.lines("trouble.ended")

    assert log.lines("send.confirmed_by_reading") == []  # the poll came before the proof read
    assert [line["work"] for line in ended] == ["send"]


@pytest.mark.parametrize("operation", ["list_messages", "send_message", "list_threads"])
async def test_a_wait_of_a_day_that_the_service_asks_for_is_cut_to_five_minutes_and_said(
    operation: str, tmp_path: Path
) -> None:
    log = Log()
    with logging_to(log, format="json"):
        async with assembled(tmp_path, PLUGIN) as site:
            await site.say("/log")
            site.emulator.faults.add(f"{operation}:503,retry-after=86400,times=1,user={site.bot.user}")
            thread = await site.another_thread()
            await site.ann.send_message(site.thread, "/log")
            await site.ann.send_message(thread, "/log")
            await anyio.sleep(500)  # pauses vary by up to a half
            replies = await site.replies()
            others = [one.content for one in (await site.ann.list_messages(thread)).messages]

    [line] = log.lines("service.wait_capped")
    assert (line["asked"], line["seconds"]) == (86400, 300)
    assert replies == ["logged"] * 2
    assert "logged" in others


@pytest.mark.parametrize("fault", ["circle", "endless"])
@pytest.mark.parametrize(("operation", "work"), [("list_messages", "read"), ("list_threads", "list threads")])
async def test_links_of_pages_that_lead_nowhere_fail_the_poll_and_lose_nothing(
    operation: str, work: str, fault: str, tmp_path: Path
) -> None:
    log = Log()
    with logging_to(log, format="json"):
        async with assembled(tmp_path, PLUGIN) as site:
            await site.say("/log")
            site.emulator.faults.add(f"{operation}:{fault},user={site.bot.user}")
            await anyio.sleep(60)
            await site.ann.send_message(site.thread, "/log")
            await anyio.sleep(60)
            site.emulator.faults.clear()
            await anyio.sleep(120)
            replies = await site.replies()

    said = [(line["event"], line["kind"]) for line in log.lines() if line.get("work") == work]
    if ("trouble.began", "Throttled") in said:  # before the end of its patience, a walk may use up the quota
        said.remove(("trouble.began", "Throttled"))
    assert said == [("trouble.began", "ProtocolError"), ("trouble.ended", "ProtocolError")]
    assert replies == ["logged"] * 2
