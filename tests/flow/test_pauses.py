"""A paused bot handles nothing, loses nothing, and stays paused over restarts; what it skips it never answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from chatbot.bot import Bot
from chatbot.config import load_config
from chatbot.emulator import Emulator
from chatbot.errors import StateError, StoreError, UnknownName
from chatbot.model import Participant, ThreadId
from chatbot.runtime.admin_api import AdminApi
from chatbot.runtime.assemble import Runtime
from chatbot.runtime.observe.status import StatusMonitor
from chatbot.runtime.pauses import Pauses, is_paused
from chatbot.runtime.plugins import load_plugins
from chatbot.runtime.supervisor import Supervisor
from chatbot.service.base import ChatService
from chatbot.stores import MemoryStore
from tests.support.assembled import BEGUN, connected

pytestmark = pytest.mark.virtual_time

PLUGIN = """
from datetime import timedelta
from chatbot import Context, MessageEdited, Plugin, TimerFired

plugin = Plugin("paused")

@plugin.message()
async def answer(ctx: Context) -> str:
    if ctx.text.startswith("later"):
        await ctx.later(timedelta(minutes=5), due)
    return f"echo {ctx.text}"

@plugin.on(MessageEdited)
async def edited(ctx: Context[MessageEdited]) -> str:
    return f"edited {ctx.text}"

@plugin.timer
async def due(ctx: Context[TimerFired]) -> str:
    return "it is time"
"""


@dataclass
class Scene:
    """A bot under a supervisor, and Ann in a thread with it."""

    runtime: Runtime
    pauses: Pauses
    status: StatusMonitor
    admin: AdminApi
    ann: ChatService

    @property
    def bot(self) -> Bot:
        return self.runtime.bots[0]

    async def talk(self) -> ThreadId:
        return (await self.ann.create_thread("talk", [Participant(self.bot.user, "Echo")])).thread.id

    async def say(self, thread: ThreadId, text: str) -> None:
        await self.ann.send_message(thread, text)
        await anyio.sleep(60)

    async def replies(self, thread: ThreadId) -> list[str]:
        page = await self.ann.list_messages(thread)
        return [one.content for one in reversed(page.messages) if one.sender == self.bot.user]


class World:
    """A service and a store that outlive the process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        begun = anyio.current_time()
        # The bot takes the time from the machine, which stands still under virtual time.
        self.clock = lambda: BEGUN + anyio.current_time() - begun
        self.emulator, self.store = Emulator(clock=self.clock), MemoryStore()
        self.connection, _ = connected(self.emulator)
        self.ann: str | None = None

    @asynccontextmanager
    async def process(self) -> AsyncIterator[Scene]:
        config = await anyio.to_thread.run_sync(load_config, self.folder / "bots.yaml", {})
        plugins = await anyio.to_thread.run_sync(load_plugins, config)
        _, resource = connected(self.emulator)
        stopping = anyio.Event()
        async with resource, self.store, anyio.create_task_group() as group:
            runtime = Runtime(config=config, connection=self.connection, resource=resource, store=self.store)
            runtime.bots += await runtime.create_bots(config, plugins)
            user = self.ann = self.ann or await resource.create_user()
            ann = resource.chat(user, resource.issued_tokens(user))
            supervisor = Supervisor([bot for bot in runtime.bots if not is_paused(bot)], drain_seconds=10)
            status = StatusMonitor(runtime.bots, runtime.counters, self.store, self.connection)
            group.start_soon(supervisor.run, stopping)
            yield Scene(
                runtime, Pauses(runtime, supervisor, self.clock), status, AdminApi(self.store, runtime.bots), ann
            )
            stopping.set()


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    module = f"paused_{tmp_path.parent.name}_{tmp_path.name}".replace("-", "_")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / f"{module}.py").write_text(PLUGIN)
    bots = f"{{echo: {{plugins: [{module}], poll: {{interval: 3s}}}}}}"
    (tmp_path / "bots.yaml").write_text(f"version: 1\nservice: emulator\nbots: {bots}\n")
    return World(tmp_path)


async def test_a_paused_bot_handles_nothing_and_answers_everything_when_it_is_resumed(world: World) -> None:
    async with world.process() as scene:
        thread = await scene.talk()
        await scene.say(thread, "one")
        assert await scene.pauses.pause("echo") == {"bot": "echo", "has_changed": True}
        await scene.say(thread, "two")
        new = await scene.talk()
        await scene.say(new, "three")
        assert await scene.replies(thread) == ["echo one"]
        assert await scene.replies(new) == []

        await scene.pauses.resume("echo", is_skipping=False)
        await anyio.sleep(60)

        assert await scene.replies(thread) == ["echo one", "echo two"]
        assert await scene.replies(new) == ["echo three"]


async def test_what_a_bot_skips_it_never_answers_also_in_threads_that_are_new_to_it(world: World) -> None:
    async with world.process() as scene:
        thread = await scene.talk()
        await scene.say(thread, "one")
        await scene.pauses.pause("echo")
        await scene.say(thread, "two")
        new = await scene.talk()
        await scene.say(new, "three")

        await scene.pauses.resume("echo", is_skipping=True)
        await scene.say(thread, "four")
        await scene.say(new, "five")
        assert await scene.replies(thread) == ["echo one", "echo four"]
        assert await scene.replies(new) == ["echo five"]
    async with world.process() as scene:
        await anyio.sleep(1200)

        assert await scene.replies(thread) == ["echo one", "echo four"]
        assert await scene.replies(new) == ["echo five"]


async def test_an_edit_of_an_answered_message_is_skipped_too_and_a_later_one_is_not(world: World) -> None:
    async with world.process() as scene:
        thread = await scene.talk()
        message = await scene.ann.send_message(thread, "one")
        await anyio.sleep(5)
        await scene.pauses.pause("echo")
        await scene.ann.edit_message(thread, message, content="changed")
        await anyio.sleep(5)

        await scene.pauses.resume("echo", is_skipping=True)
        await anyio.sleep(60)

        assert await scene.replies(thread) == ["echo one"]
        await scene.ann.edit_message(thread, message, content="again")
        await anyio.sleep(60)
        assert await scene.replies(thread) == ["echo one", "edited again"]


async def test_a_pause_outlives_the_process_and_can_be_ended_while_none_runs(world: World) -> None:
    async with world.process() as scene:
        thread = await scene.talk()
        await scene.say(thread, "one")
        await scene.pauses.pause("echo")
    async with world.process() as scene:
        await scene.say(thread, "two")
        (bot,) = (await scene.status.read_status()).bots
        assert bot.report.paused is not None
        assert not scene.status.missed()
        assert await scene.status.unready() == ()
        assert await scene.replies(thread) == ["echo one"]
    async with world.store:
        admin = AdminApi(world.store)
        assert await admin.answer({"ask": "resume", "bot": "echo", "skip": True}) == {
            "bot": "echo",
            "has_changed": True,
        }
    async with world.process() as scene:
        await scene.say(thread, "three")

        assert await scene.replies(thread) == ["echo one", "echo three"]
        (record,) = await world.store.bots()
        assert (record.paused_ms, record.is_skipping) == (None, False)
    async with world.store:
        assert (await AdminApi(world.store).answer({"ask": "pause", "bot": "echo"}))["has_changed"] is True
    async with world.process() as scene:
        await scene.say(thread, "four")
        assert await scene.replies(thread) == ["echo one", "echo three"]


async def test_a_timer_waits_for_the_end_of_the_pause(world: World) -> None:
    async with world.process() as scene:
        thread = await scene.talk()
        await scene.say(thread, "later")
        await scene.pauses.pause("echo")
        await anyio.sleep(3600)
        assert await scene.replies(thread) == ["echo later"]

        await scene.pauses.resume("echo", is_skipping=True)
        await anyio.sleep(60)

        assert await scene.replies(thread) == ["echo later", "it is time"]


async def test_pausing_twice_changes_nothing_and_unknown_names_are_refused(world: World) -> None:
    async with world.process() as scene:
        await scene.pauses.pause("echo")
        since = scene.bot.context.paused_ms
        assert (await scene.pauses.pause("echo"))["has_changed"] is False
        assert scene.bot.context.paused_ms == since
        await scene.pauses.resume("echo", is_skipping=False)
        assert (await scene.pauses.resume("echo", is_skipping=False))["has_changed"] is False
        with pytest.raises(StateError, match="is not paused, so there is nothing to skip"):
            await scene.pauses.resume("echo", is_skipping=True)
        with pytest.raises(UnknownName, match="there is no bot 'parrot'; there are: echo"):
            await scene.pauses.pause("parrot")
        with pytest.raises(UnknownName, match="the store knows no bot 'parrot'; it knows: echo"):
            await scene.admin.answer({"ask": "pause", "bot": "parrot"})


async def test_a_bot_whose_pause_cannot_be_stored_runs_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world.process() as scene:
        thread = await scene.talk()
        await scene.say(thread, "one")
        with monkeypatch.context() as patched:

            async def refuse(*_args: object) -> None:
                message = "the disk is full"
                raise StoreError(message)

            patched.setattr(world.store, "commit", refuse)
            with pytest.raises(StoreError):
                await scene.pauses.pause("echo")
        await scene.say(thread, "two")

        assert await scene.replies(thread) == ["echo one", "echo two"]
