"""Connect commands to running bots, their store and the service.

A running daemon is asked, because it has the store open and is connected to the service. If none runs, the store and
bots.yaml are read instead.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from chatbot.config import Config, load_config
from chatbot.errors import Forbidden, NotFound, StateError, UnknownName
from chatbot.model import ThreadId, UserId
from chatbot.runtime.admin_api import AdminApi
from chatbot.runtime.connection import Connection, KnownBot, KnownBots, published_bots, stored_bots
from chatbot.runtime.control_client import ANSWER_TIMEOUT_SECONDS, Address, ask, find_daemon
from chatbot.runtime.logs import logging_to
from chatbot.runtime.run_directory import ControlDirectory, RunInfo
from chatbot.service.acs import AcsResource
from chatbot.service.base import ChatService
from chatbot.stores import MemoryStore, open_between_runs
from chatbot.stores.base import Store
from chatbot.stores.probe import StoreProbe
from chatbot.stores.records import BotRecord


@dataclass(frozen=True, slots=True)
class ServiceAccess:
    """The service and its bots.

    Args:
        connection: the connection to the service.
        bots: by name.
        daemon: the daemon that runs them; None if none runs.
    """

    connection: Connection
    bots: KnownBots
    daemon: Address | None = None

    def bot(self, name: str | None) -> KnownBot:
        """Return the bot of this name; without a name, the only bot.

        Raises:
            UnknownName: no bot has this name, or there are several and no name was given.
        """
        names = ", ".join(self.bots)
        if name is None and len(self.bots) == 1:
            return next(iter(self.bots.values()))
        if name is None:
            message = f"which bot? Name one with --bot: {names}"
            raise UnknownName(message)
        if name not in self.bots:
            message = f"there is no bot {name!r}; there are: {names}"
            raise UnknownName(message)
        return self.bots[name]

    @asynccontextmanager
    async def as_bot(self, name: str | None) -> AsyncIterator[tuple[KnownBot, ChatService]]:
        """Yield a bot's view of the service.

        Raises:
            UnknownName: see `bot`.
            StateError: the bot has no user yet.
        """
        bot = self.bot(name)
        user = user_of(bot)
        async with self.connection.open() as resource:
            yield bot, self.service(resource, bot, user)

    def service(self, resource: AcsResource, bot: KnownBot, user: UserId) -> ChatService:
        """Return a bot's view of an opened resource."""
        return resource.chat(user, self.connection.tokens(resource, user, bot.settings))


def user_of(bot: KnownBot) -> UserId:
    """Return a bot's user.

    Raises:
        StateError: the bot has no user yet.
    """
    if bot.user is None:
        message = (
            f"the bot {bot.name} has no user yet: start it once with `chatbot run`, "
            f"or create one with `chatbot identity create --bot {bot.name}`"
        )
        raise StateError(message)
    return bot.user


def service_access(config: Path) -> ServiceAccess:
    """Return access to the service: the running daemon's, or else the one that bots.yaml names.

    Raises:
        ConfigError: bots.yaml cannot be used.
        StateError: bots.yaml names the emulator, which runs only while the bots do.
        StoreError: the store cannot be read.
    """
    control = ControlDirectory(config.absolute().parent)
    daemon = find_daemon(control, config)
    if daemon is not None:
        return _running(control.running(), daemon, config)
    settings = load_config(config, os.environ)
    if settings.uses_emulator:
        message = (
            f"the emulator runs only while the bots do, and none run in {config.absolute().parent}; "
            "start them with `chatbot run` in another terminal"
        )
        raise StateError(message)
    connection = Connection.of(settings)
    store = open_between_runs(settings.store.get_secret_value(), base_dir=settings.directory)
    return ServiceAccess(connection, anyio.run(stored_bots, settings, connection, store))


def connection_to(info: RunInfo, config: Path) -> Connection:
    """Return the connection to the resource of running bots: the published one or, without a key, that of bots.yaml.

    Raises:
        ConfigError: bots.yaml cannot be used.
    """
    if info.connection_string is not None:
        return Connection.to_running(info)
    return Connection.of(load_config(config, os.environ))


def _running(info: RunInfo, daemon: Address, config: Path) -> ServiceAccess:
    # With a key, bots.yaml is not read: its variables may be set for the daemon only.
    settings = load_config(config, os.environ).bots if info.connection_string is None else {}
    return ServiceAccess(connection_to(info, config), published_bots(info, settings), daemon)


@contextmanager
def hinting_at_threads(bot: KnownBot) -> Iterator[None]:
    """Add a hint at `chatbot threads list` to errors about a thread that the service does not know or show.

    Raises:
        UnknownName: instead of `NotFound` and `Forbidden`.
    """
    try:
        yield
    except (NotFound, Forbidden) as error:
        message = f"{error}; `chatbot threads list --bot {bot.name}` shows the threads that {bot.name} is in"
        raise UnknownName(message) from error


def ask_bots(config: Path, question: Mapping[str, Any], timeout: float = ANSWER_TIMEOUT_SECONDS) -> Mapping[str, Any]:
    """Ask the daemon that has the store open, or open the store if no daemon runs.

    Args:
        config: the bots.yaml.
        question: see `AdminApi.answer`.
        timeout: seconds to wait for the daemon's answer.

    Raises:
        ChatbotError: the question cannot be answered.
    """
    with logging_to(sys.stderr, format="console", level="warning"):
        daemon = find_daemon(ControlDirectory(config.absolute().parent), config)
        if daemon is not None:
            return anyio.run(ask, daemon, question, timeout)
        settings = load_config(config, os.environ)
        store = open_between_runs(settings.store.get_secret_value(), base_dir=settings.directory)
        # Without a store file, an empty store in memory gives the same answers and creates no file.
        return anyio.run(_ask_store, store or MemoryStore(), question)


async def _ask_store(store: Store, question: Mapping[str, Any]) -> Mapping[str, Any]:
    async with store:
        return await AdminApi(store).answer(question)


def stored_identities(config: Config, found: StoreProbe) -> Sequence[BotRecord] | None:
    """Return the identities in a store without changing it; None if it cannot be read so.

    Args:
        config: the configuration that names the store.
        found: the probe of the store.

    Raises:
        ChatbotError: the store cannot be read, or the daemon that has it open does not answer.
    """
    daemon = find_daemon(ControlDirectory(config.directory), config.path)
    if daemon is not None:
        answer = anyio.run(ask, daemon, {"ask": "identity list"})["bots"]
        return [BotRecord(**{**record, "user": UserId(record["user"])}) for record in answer]
    if found.place is None or not found.exists:
        return []
    store = open_between_runs(config.store.get_secret_value(), base_dir=config.directory) if found.can_be_read else None
    return None if store is None else anyio.run(_identities, store)


async def _identities(store: Store) -> Sequence[BotRecord]:
    async with store:
        return await store.bots()


async def count_unsent(config: Path, thread: ThreadId) -> int:
    """Return how many actions of running bots in a thread are unsent; 0 if no bots run.

    Args:
        config: the bots.yaml of the bots.
        thread: where.

    Raises:
        StateError: the bots run, but do not answer.
    """
    daemon = await anyio.to_thread.run_sync(_find_daemon, config)
    if daemon is None:
        return 0
    answer = await ask(daemon, {"ask": "unsent", "thread": thread})
    return int(answer["count"])


def _find_daemon(config: Path) -> Address | None:
    return find_daemon(ControlDirectory(config.absolute().parent), config)
