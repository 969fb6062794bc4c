"""The webhook over loopback, with the emulator's own Event Grid at the other end."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import anyio
import pytest

from chatbot import Context, Plugin
from chatbot.bot import Bot, BotSettings
from chatbot.dispatch import BotInfo, Dispatcher
from chatbot.emulator import Emulator, World, event_grid
from chatbot.model import ThreadId, UserId
from chatbot.polling.cadence import Cadence
from chatbot.polling.eventgrid import MAX_BYTES
from chatbot.runtime.status_pages import serve_pages
from chatbot.runtime.webhook import PATH, webhook
from chatbot.service.acs import AcsResource
from chatbot.stores import MemoryStore
from chatbot.testing.transport import AsgiTransport

KEY = "0123456789abcdef0123456789abcdef"
PATIENCE = 120


@dataclass
class Scene:
    """Bots that run in real time, look by themselves once an hour, and have a webhook; one has a thread."""

    emulator: Emulator
    bot: Bot
    neighbour: Bot
    ann: str
    thread: ThreadId
    url: str
    looks: list[str]

    def texts(self, bot: Bot) -> list[str]:
        return [text for user, text in self.emulator.texts(self.thread) if user == bot.user]

    async def answered(self, text: str, *, by: Bot | None = None) -> None:
        bot = by or self.bot
        with anyio.fail_after(PATIENCE):
            while text not in self.texts(bot):
                await bot.scheduler.ended.wait()

    def asked(self, bot: Bot) -> int:
        """How often the bot has asked which of its threads have moved."""
        return sum(call.operation == "list_threads" and call.user == bot.user for call in self.emulator.calls)

    async def all_asked(self) -> None:
        """Wait until every bot that was summoned has asked: none waits longer than this one does twice."""
        for _ in range(2):
            before = self.asked(self.bot)
            self.bot.watcher.request_poll()
            with anyio.fail_after(PATIENCE):
                while self.asked(self.bot) == before:
                    await anyio.lowlevel.checkpoint()


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    plugin = Plugin("echo")
    looks: list[str] = []

    @plugin.message()
    async def echo(ctx: Context) -> str:
        looks.append(ctx.text)
        return ctx.text

    emulator = Emulator(World(seed=1))
    user, other, ann = UserId(emulator.create_user()), UserId(emulator.create_user()), emulator.create_user()
    thread = ThreadId(emulator.create_thread(ann, "hall", [user]))
    transport = AsgiTransport(emulator)
    async with (
        MemoryStore() as store,
        AcsResource.from_connection_string(emulator.connection_string, transport=transport) as acs,
        anyio.create_task_group() as group,
    ):
        bot, neighbour = (
            Bot(
                name=name,
                service=acs.chat(user, acs.issued_tokens(user)),
                store=store,
                dispatcher=Dispatcher([plugin], bot=BotInfo(name, user, name)),
                settings=BotSettings(cadence=Cadence(interval=interval, idle=3600)),
            )
            for name, user, interval in (("bot", user, 0.3), ("neighbour", other, 3600))
        )
        stopping = anyio.Event()
        group.start_soon(bot.run, stopping)
        group.start_soon(neighbour.run, stopping)
        async with serve_pages(webhook([bot, neighbour], KEY), "127.0.0.1", 0) as address:
            yield Scene(emulator, bot, neighbour, ann, thread, f"{address}{PATH}", looks)
        stopping.set()


async def test_an_event_triggers_a_poll_and_the_thread_list_is_read_less_while_events_are_complete() -> None:
    async with scene() as the, event_grid(the.emulator, f"{the.url}?key={KEY}"):
        the.emulator.send(the.thread, the.ann, "one")
        await the.answered("one")
        with anyio.fail_after(PATIENCE):
            while the.bot.watcher.pause < 3600:
                await the.bot.scheduler.ended.wait()
        the.emulator.calls.clear()

        for text in ("two", "three", "four"):  # a poll of the thread list would find them only within the hour
            the.emulator.send(the.thread, the.ann, text)
            await the.answered(text)

        assert the.looks == ["one", "two", "three", "four"]
        assert the.asked(the.bot) <= 2


async def test_a_thread_that_is_new_to_the_bot_is_found_when_event_grid_names_it() -> None:
    async with scene() as the, event_grid(the.emulator, f"{the.url}?key={KEY}"):
        the.emulator.send(the.thread, the.ann, "one")
        await the.answered("one")
        the.thread = ThreadId(the.emulator.create_thread(the.ann, "yard", [the.bot.user]))
        the.emulator.send(the.thread, the.ann, "two")
        await the.answered("two")


async def test_a_message_to_one_bot_has_the_others_ask_nothing_until_people_come() -> None:
    async with scene() as the, event_grid(the.emulator, f"{the.url}?key={KEY}"):
        the.emulator.send(the.thread, the.ann, "one")
        await the.answered("one")
        await the.all_asked()  # nobody may have been in the thread yet when the first message was told
        the.emulator.calls.clear()
        for text in ("two", "three"):
            the.emulator.send(the.thread, the.ann, text)
            await the.answered(text)
        await the.all_asked()
        assert the.asked(the.neighbour) == 0

        the.emulator.add(the.thread, the.ann, the.neighbour.user)
        the.emulator.send(the.thread, the.ann, "four")
        await the.answered("four", by=the.neighbour)
        assert the.asked(the.neighbour) > 0


@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        ("", {}, 401),
        ("?key=wrong", {}, 401),
        ("?key=", {"authorization": "Bearer"}, 401),
        ("?key=sch%C3%B6n", {"authorization": "Bearer schön"}, 401),
        ("", {"authorization": f"Basic {KEY}"}, 401),
        (f"?key={KEY}", {}, 200),
        (f"?key=wrong&key={KEY}", {}, 200),
        ("", {"authorization": f"Bearer {KEY}"}, 200),
    ],
)
async def test_deliveries_without_the_key_are_refused(query: str, headers: dict[str, str], status: int) -> None:
    async with (
        scene() as the,
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{the.url}{query}", data=b"[]") as answer,
    ):
        assert answer.status == status
        assert KEY not in await answer.text()


async def test_hostile_deliveries_are_refused_and_the_next_one_is_accepted() -> None:
    async with scene() as the, aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as session:
        statuses = []
        for body in (b"{", b"[" * 50_000, b" " * (MAX_BYTES + 1), b'[{"eventType": []}]'):
            async with session.post(the.url, data=io.BytesIO(body)) as answer:
                statuses.append(answer.status)
                assert len(await answer.read()) < 200
        async with session.get(the.url) as answer:
            statuses.append(answer.status)
        unknown = [{"eventType": "Microsoft.Communication.ChatMessageReceived", "data": {"threadId": "19:nowhere"}}]
        async with session.post(the.url, data=json.dumps(unknown * 1000)) as answer:
            statuses.append(answer.status)
        the.emulator.send(the.thread, the.ann, "still there?")
        await the.answered("still there?")

    assert statuses == [400, 400, 413, 400, 405, 200]
    assert ThreadId("19:nowhere") not in the.bot.scheduler.lanes
