"""How many handlers of a bot run at one time, and what is seen of those that wait."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from chatbot.bot.status import report, stalled
from tests.support.assembled import assembled

pytestmark = pytest.mark.virtual_time

SLOW = """
import anyio
from chatbot import Context, Plugin

plugin = Plugin("slow")
go = anyio.Event()

@plugin.message(timeout=None)
async def slow(ctx: Context) -> str:
    await go.wait()
    return ctx.text
"""


async def test_events_beyond_the_limit_wait_are_counted_and_need_no_restart(tmp_path: Path) -> None:
    async with assembled(tmp_path, SLOW, bot_more="max_handlers: 2") as site:
        threads = [site.thread, *[await site.another_thread() for _ in range(4)]]
        sent = [int(await site.ann.send_message(thread, "hi")) for thread in threads]
        await anyio.sleep(1200)
        now = anyio.current_time()
        seen, late = report(site.bot, now), stalled(site.bot, now)
        site.plugin.go.set()
        for thread, message in zip(threads, sent, strict=True):
            await site.bot.wait_until_settled(thread, message)

    assert (seen.max_handlers, len(seen.running), seen.waiting) == (2, 2, 3)
    assert late == {}
    assert {one.reason for one in seen.degraded} == {"handler_slow"}
    assert report(site.bot, anyio.current_time()).waiting == 0
