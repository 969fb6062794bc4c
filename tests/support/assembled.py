"""One bot, assembled as the daemon does it, with a person beside it; the emulator in this process, virtual time."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from chatbot.bot import Bot
from chatbot.config import Config, load_config
from chatbot.emulator import Emulator
from chatbot.model import Participant, ThreadId
from chatbot.runtime.assemble import assemble
from chatbot.runtime.connection import Connection
from chatbot.runtime.observe.counters import BotCounters
from chatbot.runtime.plugins import Plugins, load_plugins
from chatbot.service.acs import AcsResource
from chatbot.service.base import ChatService
from chatbot.stores import MemoryStore
from chatbot.stores.base import Store
from chatbot.testing.transport import AsgiTransport

BEGUN = time.time()
"""The bot takes the time from the machine; the service's goes on from here, in virtual time."""


@dataclass(frozen=True)
class Assembled:
    """A bot that runs, and Ann in a thread with it."""

    bot: Bot
    emulator: Emulator
    thread: ThreadId
    ann: ChatService
    store: Store
    connection: Connection
    counters: BotCounters
    module: str
    stopping: anyio.Event
    ended: anyio.Event

    async def say(self, text: str) -> str:
        """Ann says something, and what comes of it is done; gives the message's id."""
        message = await self.ann.send_message(self.thread, text)
        await self.bot.wait_until_settled(self.thread, int(message))
        return message

    async def stop(self) -> None:
        """Stop the bot, and return when it has ended."""
        self.stopping.set()
        await self.ended.wait()

    async def another_thread(self) -> ThreadId:
        """A further thread of Ann's with the bot."""
        return (await self.ann.create_thread("talk", [Participant(self.bot.user, "Echo")])).thread.id

    @property
    def plugin(self) -> Any:
        """The module of its plugin."""
        return sys.modules[self.module]

    async def replies(self) -> list[str]:
        """What the bot has said, oldest first."""
        page = await self.ann.list_messages(self.thread)
        return [one.content for one in reversed(page.messages) if one.sender == self.bot.user]


def connected(emulator: Emulator) -> tuple[Connection, AcsResource]:
    """The way to an emulator in this process, and its resource, not yet open."""
    connection = Connection(
        endpoint="https://emulator.invalid",
        access_key=emulator.access_key,
        resource=emulator.world.resource.id,
        connection_string=emulator.connection_string,
        is_emulator=True,
    )
    transport = AsgiTransport(emulator)
    return connection, AcsResource(connection.endpoint, access_key=connection.access_key, transport=transport)


def _loaded(directory: Path, plugin: str, more: str, bot_more: str) -> tuple[Config, Plugins]:
    module = f"plugin_{directory.parent.name}_{directory.name}".replace("-", "_")
    (directory / f"{module}.py").write_text(plugin)
    # Hours of silence cost what they have of polls; who tests polling says its own pace.
    pace = "" if "poll:" in bot_more + more else ", poll: {interval: 3s}"
    bots = f"bots: {{echo: {{plugins: [{module}], apology: off{pace}{', ' if bot_more else ''}{bot_more}}}}}"
    (directory / "bots.yaml").write_text(f"version: 1\nservice: emulator\n{bots}\n{more}")
    config = load_config(directory / "bots.yaml", {})
    return config, load_plugins(config)


@asynccontextmanager
async def assembled(
    directory: Path,
    plugin: str,
    *,
    traces: Any = None,
    stories: Any = None,
    clock: Callable[[], float] = time.time,
    more: str = "",
    bot_more: str = "",
) -> AsyncIterator[Assembled]:
    """Run a bot `echo` with a plugin of this source.

    Args:
        directory: an empty one.
        plugin: the source of its module.
        traces: what makes spans.
        stories: what the playground shows of the bot.
        clock: the bot's.
        more: lines of bots.yaml beside the bot.
        bot_more: settings of the bot, in the form of `max_handlers: 2`.
    """
    config, plugins = await anyio.to_thread.run_sync(_loaded, directory, plugin, more, bot_more)
    begun = anyio.current_time()
    emulator, store = Emulator(clock=lambda: BEGUN + anyio.current_time() - begun), MemoryStore()
    connection, resource = connected(emulator)
    async with resource, store, anyio.create_task_group() as group:
        counters: dict[str, BotCounters] = {}
        (bot,) = await assemble(
            config, plugins, connection, resource, store, counters, traces, stories=stories, clock=clock
        )
        user = await resource.create_user()
        ann = resource.chat(user, resource.issued_tokens(user))
        stopping, ended = anyio.Event(), anyio.Event()

        async def run() -> None:
            await bot.run(stopping)
            ended.set()

        group.start_soon(run)
        thread = (await ann.create_thread("talk", [Participant(bot.user, "Echo")])).thread.id
        module = config.bots["echo"].plugins[0].module
        yield Assembled(bot, emulator, thread, ann, store, connection, counters["echo"], module, stopping, ended)
        stopping.set()
