"""A bot on a machine whose wall clock is wrong, and set right later: what was to happen "in an hour" still does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import anyio
import pytest

from chatbot import BotInfo, Context, Dialog, DialogTimeout, Plugin, TimerFired
from chatbot.bot import Bot, BotSettings
from chatbot.dispatch import Dispatcher
from chatbot.emulator import Emulator
from chatbot.model import Participant, ThreadId, UserId
from chatbot.service.acs import AcsResource
from chatbot.stores import MemoryStore
from chatbot.stores.base import Store
from chatbot.testing.harness import VIRTUAL_CADENCE
from chatbot.testing.transport import AsgiTransport
from chatbot.testing.virtual_time import VirtualClock

pytestmark = pytest.mark.virtual_time

DAY = 86_400.0
ERRORS = [DAY, -DAY, 400 * DAY]
"""Seconds by which the machine's clock is ahead of the service's."""


@dataclass
class Machine:
    """Where the bot runs.

    Args:
        error: seconds by which its clock is ahead.
    """

    error: float
    right: VirtualClock

    def clock(self) -> float:
        """The machine's wall clock, epoch seconds."""
        return self.right() + self.error


def alarm() -> Plugin:
    plugin = Plugin("alarm")

    @plugin.command("later")
    async def later(ctx: Context) -> str:
        await ctx.later(timedelta(hours=1), ring)
        return "set"

    @plugin.timer
    async def ring(ctx: Context[TimerFired]) -> str:
        return "ring"

    @plugin.command("ask")
    async def ask(talk: Dialog) -> str:
        try:
            return f"hello {await talk.ask('name?', timeout=timedelta(hours=1))}"
        except DialogTimeout:
            return "hello nobody"

    return plugin


@asynccontextmanager
async def running(machine: Machine, resource: AcsResource, user: UserId, store: Store) -> AsyncIterator[Bot]:
    bot = Bot(
        name="bot",
        service=resource.chat(user, resource.issued_tokens(user)),
        store=store,
        dispatcher=Dispatcher([alarm()], bot=BotInfo("bot", user, "Bot")),
        settings=BotSettings(cadence=VIRTUAL_CADENCE),
        clock=machine.clock,
    )
    stopping = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(bot.run, stopping)
        yield bot
        stopping.set()


@pytest.mark.parametrize("is_restarted", [False, True])
@pytest.mark.parametrize("error_at_end", [0.0, None])
@pytest.mark.parametrize("error", ERRORS)
async def test_a_span_of_time_is_kept_however_wrong_the_clock_was_when_it_was_set(
    error: float, error_at_end: float | None, is_restarted: bool
) -> None:
    right = VirtualClock()
    machine = Machine(error, right)
    emulator = Emulator(clock=right)
    resource = AcsResource.from_connection_string(
        emulator.connection_string, transport=AsgiTransport(emulator), clock=right
    )
    async with resource, MemoryStore() as store:
        user, ann = UserId(emulator.create_user()), UserId(emulator.create_user())
        person = resource.chat(ann, resource.issued_tokens(ann))

        async def replies(thread: ThreadId) -> list[str]:
            page = await person.list_messages(thread)
            return [message.content for message in reversed(page.messages) if message.sender == user]

        async with running(machine, resource, user, store) as bot:
            thread = (await person.create_thread("talk", [Participant(user, "Bot")])).thread.id
            await anyio.sleep(5)
            for text in ("/later", "/ask"):
                await bot.wait_until_settled(thread, int(await person.send_message(thread, text)))
            assert await replies(thread) == ["set", "name?"]
            if not is_restarted:
                machine.error = error if error_at_end is None else error_at_end
                await anyio.sleep(3300)
                assert await replies(thread) == ["set", "name?"]
                await anyio.sleep(600)
                assert sorted(await replies(thread)) == ["hello nobody", "name?", "ring", "set"]
                return
        machine.error = error if error_at_end is None else error_at_end
        async with running(machine, resource, user, store):
            await anyio.sleep(3300)
            assert await replies(thread) == ["set", "name?"]
            await anyio.sleep(600)
            assert sorted(await replies(thread)) == ["hello nobody", "name?", "ring", "set"]


async def test_polls_of_silent_threads_tell_the_time_while_the_list_does_not() -> None:
    right = VirtualClock()
    machine, emulator = Machine(-DAY, right), Emulator(clock=right)
    resource = AcsResource.from_connection_string(
        emulator.connection_string, transport=AsgiTransport(emulator), clock=right
    )
    async with resource, MemoryStore() as store:
        user, ann = UserId(emulator.create_user()), UserId(emulator.create_user())
        person = resource.chat(ann, resource.issued_tokens(ann))
        async with running(machine, resource, user, store) as bot:
            thread = (await person.create_thread("talk", [Participant(user, "Bot")])).thread.id
            await anyio.sleep(5)
            await bot.wait_until_settled(thread, int(await person.send_message(thread, "/later")))
            await anyio.sleep(300)
        emulator.faults.add("list_threads:503")
        async with running(machine, resource, user, store):
            await anyio.sleep(3600)
        emulator.faults.clear()

        assert emulator.texts(thread)[-1] == (user, "ring")
