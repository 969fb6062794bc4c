"""Many threads that were held up together do not come back together."""

from __future__ import annotations

import collections
from collections.abc import Iterable

import pytest

from chatbot import Context, Plugin
from chatbot.bot import BotSettings
from chatbot.emulator import Faults
from chatbot.polling.cadence import Cadence
from chatbot.testing import Room, chat

pytestmark = pytest.mark.virtual_time

THREADS = 40
CALM = BotSettings(cadence=Cadence(interval=1))
"""A third of the polls: the back-off is tested, not the pace."""

plugin = Plugin("echo")


@plugin.message()
async def echo(ctx: Context) -> str:
    return ctx.text


async def crowd(room: Room) -> list[str]:
    ann = room.user("Ann")
    threads = [room.emulator.create_thread(ann.user, f"{n}", [room.bot.user]) for n in range(THREADS)]
    await ann.says("hi")
    await room.advance(minutes=3)
    return threads


def looks_since(room: Room, begun: float) -> list[tuple[int, str]]:
    """When which thread was looked at."""
    calls = [call for call in room.emulator.calls if call.operation == "list_messages" and call.at >= begun * 1000]
    return [(call.at, call.target.split("/")[3]) for call in calls]


def most_in_a_second(times: Iterable[int]) -> int:
    return max(collections.Counter(at // 1000 for at in times).values(), default=0)


@pytest.mark.parametrize(
    "throttling",
    ["429", *(pytest.param(fault, marks=pytest.mark.chaos) for fault in ("429,retry-after=20", "503"))],
)
async def test_after_a_throttling_threads_come_back_one_by_one_and_everybody_is_answered(throttling: str) -> None:
    async with chat(plugin, settings=CALM) as room:
        threads = await crowd(room)
        ann = room.user("Ann")
        room.emulator.faults = Faults([f"list_messages:{throttling}"])
        for thread in threads:
            room.emulator.send(thread, ann.user, "hello?")
        with room.not_waiting():
            await room.advance(minutes=2)
        room.emulator.faults = Faults()
        begun = room.stage.clock()
        await room.advance(minutes=2)

        assert all(room.emulator.texts(thread)[-1] == (room.bot.user, "hello?") for thread in threads)
        first = dict(reversed([(thread, at) for at, thread in looks_since(room, begun)]))
        assert len(first) >= THREADS
        assert most_in_a_second(first.values()) <= THREADS / 4


async def test_a_thread_that_cannot_be_read_is_not_polled_however_often_it_is_called() -> None:
    async with chat(plugin, settings=CALM) as room:
        (thread, *_) = await crowd(room)
        room.emulator.faults = Faults([f"list_messages:503,thread={thread}"])
        room.emulator.calls.clear()
        for _ in range(60):
            room.emulator.send(thread, room.user("Ann").user, "hello?")
            with room.not_waiting():
                await room.advance(seconds=2)

        refused = [call for call in room.emulator.calls if call.status == 503]
        assert len(refused) <= 12  # 1, 2, 4, … 30 seconds apart


async def test_polls_of_silent_threads_are_spread_after_a_start() -> None:
    async with chat(plugin, settings=BotSettings(cadence=Cadence(rate=20))) as room:
        await crowd(room)
        await room.restart()
        begun = room.stage.clock()
        await room.advance(minutes=2)

        assert most_in_a_second(at for at, _ in looks_since(room, begun + 5)) <= 20 * 1.25 + 1
