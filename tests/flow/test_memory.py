"""A thread that talks for long holds no more memory than one that has talked for a while."""

from __future__ import annotations

import asyncio
import gc
import sys
import types
from pathlib import Path

import anyio
import pytest

from tests.support.assembled import Assembled, assembled

pytestmark = [pytest.mark.virtual_time, pytest.mark.chaos]  # hundreds of messages

PLUGIN = """
from dataclasses import dataclass
from chatbot import Context, Plugin, State

plugin = Plugin("talker")

@dataclass
class Count:
    messages: int = 0

@plugin.message()
async def answer(ctx: Context, count: State[Count]) -> str:
    count.value.messages += 1
    return f"{ctx.text} is number {count.value.messages}"
"""

NOT_ITS_OWN = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.CodeType)


def size_of(root: object, *others: object) -> int:
    """The bytes of everything that can be reached from here, but not by way of the others, nor of code."""
    known, waiting, total = {id(one) for one in others}, [root], 0
    while waiting:
        one = waiting.pop()
        if id(one) in known or isinstance(one, NOT_ITS_OWN):
            continue
        known.add(id(one))
        total += sys.getsizeof(one)
        waiting += gc.get_referents(one)
    return total


async def talk(site: Assembled, rounds: int) -> tuple[int, int]:
    """Let Ann talk so many more rounds of ten messages; what the bot then holds of the thread, and beside it."""
    text = "another message, of some length, so that it would be seen if it were kept"
    for _ in range(rounds):
        for _ in range(10):
            await site.ann.send_message(site.thread, text)
            await anyio.sleep(6)
        await anyio.sleep(120)  # who makes a pause is no machine; and what is spent of the quotas is forgotten
    bot, lane = site.bot, site.bot.scheduler.lanes[site.thread]
    elsewhere = (site.store, site.emulator, asyncio.get_running_loop())
    outside = (bot.context.service, bot.context.log, bot.context.tracer, *elsewhere)
    return size_of(lane, bot, *outside), size_of(bot, lane, *outside)


async def test_memory_of_a_thread_does_not_grow_with_its_messages(tmp_path: Path) -> None:
    async with assembled(tmp_path, PLUGIN) as site:
        of_thread, beside = await talk(site, 5)
        of_thread_later, beside_later = await talk(site, 15)
        (last, *_) = reversed(await site.replies())

    assert last.endswith("is number 200")
    assert 2_000 < of_thread_later < 1.1 * of_thread
    assert 5_000 < beside_later < 1.1 * beside


async def test_memory_of_a_thread_is_flat_while_people_write_without_a_pause(tmp_path: Path) -> None:
    async with assembled(tmp_path, PLUGIN) as site:
        await site.say("hello")
        bot, lane = site.bot, site.bot.scheduler.lanes[site.thread]
        elsewhere = (site.store, site.emulator, asyncio.get_running_loop())
        outside = (bot.context.service, bot.context.log, bot.context.tracer, *elsewhere)
        sizes: list[int] = []
        for minute in range(1, 31):
            for _ in range(3):
                await site.ann.send_message(site.thread, "another message")
                await anyio.sleep(20)
            if minute in (5, 15, 30):
                gc.collect()
                sizes.append(size_of(lane, bot, *outside) + size_of(bot, lane, *outside))

    early, *later = sizes
    assert max(later) < 1.02 * early, sizes
