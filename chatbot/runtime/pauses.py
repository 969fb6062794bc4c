"""Pause and resume single bots, for `chatbot pause` and `chatbot resume`.

A paused bot is not run. Pausing stops it in order, as a reload does, and resuming starts it as a restart of the process
would, so no other module knows of pauses. The store records the pause first, and a restart therefore keeps it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Final

import structlog

from chatbot.bot import Bot
from chatbot.errors import StateError, UnknownName
from chatbot.runtime.assemble import Runtime, passing_over, server_ms_of
from chatbot.stores.base import Store
from chatbot.stores.records import BotRecord
from chatbot.stores.writes import PauseBot, ResumeBot, Write

if TYPE_CHECKING:
    from chatbot.runtime.supervisor import Supervisor

_NEVER_RAN: Final = "the store knows no bot {name!r}; it knows: {known}"


def is_paused(bot: Bot) -> bool:
    """Return whether an operator has paused the bot."""
    return bot.context.paused_ms is not None


class Pauses:
    """Pauses and resumes the bots of this process.

    Args:
        runtime: holds the bots.
        bot_supervisor: runs those that are not paused.
        clock: epoch seconds.
    """

    def __init__(self, runtime: Runtime, bot_supervisor: Supervisor, clock: Callable[[], float] = time.time) -> None:
        self._runtime = runtime
        self._bot_supervisor = bot_supervisor
        self._clock = clock
        self._log = structlog.get_logger()

    async def pause(self, name: str) -> Mapping[str, Any]:
        """Stop a bot until it is resumed; return when it has finished its current work.

        Raises:
            UnknownName: there is no such bot.
            StoreError: the store cannot be written; the bot keeps running.
        """
        # A reload would start a bot again that is just being paused, so both take the same lock.
        async with self._runtime.changing:
            bot = self._bot(name)
            if is_paused(bot):
                return {"bot": name, "has_changed": False}
            paused_ms = int(self._clock() * 1000)
            await self._commit(bot, PauseBot(name, self._runtime.connection.resource, paused_ms))
            bot.context.paused_ms = paused_ms
            await self._bot_supervisor.stop_bot(name)
            self._log.warning("bot.paused", bot=name)
            return {"bot": name, "has_changed": True}

    async def resume(self, name: str, *, is_skipping: bool) -> Mapping[str, Any]:
        """Start a paused bot.

        Args:
            name: the bot's name.
            is_skipping: pass over messages that arrived while it was paused.

        Raises:
            UnknownName: there is no such bot.
            StateError: it is not paused, and is to skip messages.
            StoreError: the store cannot be read or written; the bot stays paused.
            ServiceError: the service does not tell its time, which skipping needs; the bot stays paused.
        """
        async with self._runtime.changing:
            bot, resource = self._bot(name), self._runtime.connection.resource
            if not is_paused(bot):
                if is_skipping:
                    message = f"the bot {name} is not paused, so there is nothing to skip: pause it first"
                    raise StateError(message)
                return {"bot": name, "has_changed": False}
            writes: list[Write] = [ResumeBot(name, resource)]
            record = await self._runtime.store.find_bot(name, resource)
            if is_skipping and record is not None:
                server_ms = await server_ms_of(bot.context.service)
                # One commit: a bot that skips some threads and not others would answer half of what it missed.
                writes += await passing_over(self._runtime.store, record, server_ms)
                bot.context.first_started_ms = server_ms
            await self._commit(bot, *writes)
            bot.context.paused_ms = None
            self._bot_supervisor.start_bot(bot)
            self._log.info("bot.resumed", bot=name, is_skipping=is_skipping)
            return {"bot": name, "has_changed": True}

    async def _commit(self, bot: Bot, *writes: Write) -> None:
        await self._runtime.store.commit(bot.user, writes)

    def _bot(self, name: str) -> Bot:
        names = {bot.name: bot for bot in self._runtime.bots}
        if name not in names:
            message = f"there is no bot {name!r}; there are: {', '.join(names)}"
            raise UnknownName(message)
        return names[name]


async def pause_stored(store: Store, name: str, *, clock: Callable[[], float] = time.time) -> Mapping[str, Any]:
    """Mark a bot that no process runs as paused: the next start leaves it out.

    Raises:
        UnknownName: the store does not know the bot.
    """
    records = await _records(store, name)
    paused_ms = int(clock() * 1000)
    for record in records:
        await store.commit(record.user, [PauseBot(record.name, record.resource, paused_ms)])
    return {"bot": name, "has_changed": any(record.paused_ms is None for record in records)}


async def resume_stored(store: Store, name: str, *, is_skipping: bool) -> Mapping[str, Any]:
    """Mark a bot that no process runs as not paused.

    Args:
        is_skipping: the next start passes over messages before it.

    Raises:
        UnknownName: the store does not know the bot.
        StateError: it is not paused, and is to skip messages.
    """
    records = [record for record in await _records(store, name) if record.paused_ms is not None]
    if not records and is_skipping:
        message = f"the bot {name} is not paused, so there is nothing to skip: pause it first"
        raise StateError(message)
    for record in records:
        await store.commit(record.user, [ResumeBot(record.name, record.resource, is_skipping)])
    return {"bot": name, "has_changed": bool(records)}


async def _records(store: Store, name: str) -> Collection[BotRecord]:
    """Return the identities of a bot, one for each resource that it has run on."""
    known = await store.bots()
    found = [record for record in known if record.name == name]
    if not found:
        names = ", ".join(sorted({record.name for record in known})) or "none"
        raise UnknownName(_NEVER_RAN.format(name=name, known=names))
    return found
