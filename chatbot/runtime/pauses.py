"""Pause and resume single bots, for `chatbot pause` and `chatbot resume`.

A paused bot is not run. Pausing stops it in order, as a reload does, and resuming starts it as a restart of the process
would, so no other module knows of pauses. The store records the pause first, and a restart therefore keeps it. Of
processes that share the store, all follow the record: at once when they are asked, and every few seconds.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

import anyio
import structlog

from chatbot.bot import Bot
from chatbot.cluster.notes import Asked, encode
from chatbot.cluster.requests import ReplicaAnswer, Requests
from chatbot.errors import ServiceError, StateError, StoreError, UnknownName
from chatbot.runtime.assemble import Runtime, changing_identity, passing_over, server_ms_of
from chatbot.runtime.replicas import PAUSES, as_json, ask_others
from chatbot.stores.base import Store
from chatbot.stores.records import BotRecord
from chatbot.stores.writes import PauseBot, ResumeBot, Write

if TYPE_CHECKING:
    from chatbot.runtime.supervisor import Supervisor

_NEVER_RAN: Final = "the store knows no bot {name!r}; it knows: {known}"


FOLLOW_SECONDS: Final = 10.0
"""Seconds between two looks whether another process has paused or resumed a bot, and to wait for answers of others,
beside the time that their bots may take to finish."""


def is_paused(bot: Bot) -> bool:
    """Return whether an operator has paused the bot."""
    return bot.context.paused_ms is not None


def _differs(bot: Bot, record: BotRecord) -> bool:
    return bot.user == record.user and is_paused(bot) != (record.paused_ms is not None)


def _answer(name: str, has_changed: bool, replies: Sequence[ReplicaAnswer]) -> Mapping[str, Any]:
    answer: dict[str, Any] = {"bot": name, "has_changed": has_changed}
    return {**answer, "replicas": as_json(replies)} if replies else answer


class Pauses:
    """Pauses and resumes the bots of this process.

    Args:
        runtime: holds the bots.
        bot_supervisor: runs those that are not paused.
        clock: epoch seconds.
        requests: asks the other processes that share the store; None if there are none.
    """

    def __init__(
        self,
        runtime: Runtime,
        bot_supervisor: Supervisor,
        clock: Callable[[], float] = time.time,
        *,
        requests: Requests | None = None,
    ) -> None:
        self._requests = requests
        self._runtime = runtime
        self._bot_supervisor = bot_supervisor
        self._clock = clock
        self._log = structlog.get_logger()

    async def pause(self, name: str) -> Mapping[str, Any]:
        """Stop a bot until it is resumed, in all processes; return when it has finished its current work.

        Raises:
            UnknownName: there is no such bot.
            StoreError: the store cannot be written; the bot keeps running.
        """
        replies: list[ReplicaAnswer] = []
        async with AsyncExitStack() as held:
            # A reload would start a bot again that is just being paused, so both take the same lock.
            await held.enter_async_context(self._runtime.changing)
            has_changed = await self._mark_paused(self._bot(name))
            async with anyio.create_task_group() as group:
                group.start_soon(self._tell_others, replies)
                if has_changed:
                    await self._bot_supervisor.stop_bot(name)
                # Before the others have answered: they may be pausing a bot too, and wait for this process.
                await held.aclose()
        return _answer(name, has_changed, replies)

    async def _mark_paused(self, bot: Bot) -> bool:
        if is_paused(bot):
            return False
        paused_ms = int(self._clock() * 1000)
        await self._commit(bot, PauseBot(bot.name, self._runtime.connection.resource, paused_ms))
        bot.context.paused_ms = paused_ms
        self._log.warning("bot.paused", bot=bot.name)
        return True

    async def resume(self, name: str, *, is_skipping: bool) -> Mapping[str, Any]:
        """Start a paused bot, in all processes.

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
            has_changed = await self._resume(self._bot(name), is_skipping=is_skipping)
        replies: list[ReplicaAnswer] = []
        await self._tell_others(replies)
        return _answer(name, has_changed, replies)

    async def _resume(self, bot: Bot, *, is_skipping: bool) -> bool:
        name, resource = bot.name, self._runtime.connection.resource
        if not is_paused(bot):
            if is_skipping:
                message = f"the bot {name} is not paused, so there is nothing to skip: pause it first"
                raise StateError(message)
            return False
        writes: list[Write] = [ResumeBot(name, resource)]
        record = await self._runtime.store.find_bot(name, resource)
        if is_skipping and record is not None:
            writes += await self._skip(bot, record)
        await self._commit(bot, *writes)
        self._start(bot)
        self._log.info("bot.resumed", bot=name, is_skipping=is_skipping)
        return True

    async def _skip(self, bot: Bot, record: BotRecord) -> list[Write]:
        server_ms = await server_ms_of(bot.context.service)
        bot.context.first_started_ms = server_ms
        # One commit: a bot that skips some threads and not others would answer half of what it missed.
        return await passing_over(self._runtime.store, record, server_ms)

    def _start(self, bot: Bot) -> None:
        bot.context.paused_ms = None
        self._bot_supervisor.start_bot(bot)

    # ── several processes ─────────────────────────────────────────────────────────────────────────────────────────

    async def _tell_others(self, replies: list[ReplicaAnswer]) -> None:
        seconds = self._bot_supervisor.drain_seconds + FOLLOW_SECONDS
        try:
            replies += await ask_others(self._requests, PAUSES, seconds=seconds)
        except StoreError as error:  # they find it in the store
            self._log.warning("replicas.not_asked", error=error)

    async def watch(self) -> None:
        """Follow the marks in the store, until canceled: a request of another process may be lost."""
        while True:
            await anyio.sleep(FOLLOW_SECONDS)
            try:
                await self.follow()
            except (StoreError, ServiceError) as error:
                self._log.debug("pauses.not_read", error=error)

    async def follow(self) -> None:
        """Pause and resume the bots of this process as the store says, in which another process has marked them.

        Raises:
            StoreError: the store cannot be read or written.
            ServiceError: the service does not tell its time, which skipping needs; that bot stays paused.
        """
        async with self._runtime.changing:
            resource = self._runtime.connection.resource
            records = {
                record.name: record for record in await self._runtime.store.bots() if record.resource == resource
            }
            changed = [bot for bot in self._runtime.bots if bot.name in records and _differs(bot, records[bot.name])]
            for bot in changed:
                paused_ms = records[bot.name].paused_ms
                if paused_ms is None:
                    await self._resume_as_marked(bot)
                else:
                    bot.context.paused_ms = paused_ms
                    self._log.warning("bot.paused", bot=bot.name)
            async with anyio.create_task_group() as group:
                for bot in changed:
                    if is_paused(bot):
                        group.start_soon(self._bot_supervisor.stop_bot, bot.name)

    async def _resume_as_marked(self, bot: Bot) -> None:
        """Start a bot that another process has resumed; of those that do, one skips what is to be skipped."""
        store, resource = self._runtime.store, self._runtime.connection.resource
        async with changing_identity(store, bot.name):
            record = await store.find_bot(bot.name, resource)
            if record is None or record.paused_ms is not None:
                return
            bot.context.first_started_ms = record.first_started_ms
            if record.is_skipping:
                await self._commit(bot, ResumeBot(bot.name, resource), *await self._skip(bot, record))
        self._start(bot)
        self._log.info("bot.resumed", bot=bot.name, is_skipping=record.is_skipping)

    async def _commit(self, bot: Bot, *writes: Write) -> None:
        await self._runtime.store.commit(bot.user, writes)

    def _bot(self, name: str) -> Bot:
        names = {bot.name: bot for bot in self._runtime.bots}
        if name not in names:
            message = f"there is no bot {name!r}; there are: {', '.join(names)}"
            raise UnknownName(message)
        return names[name]


async def pause_stored(store: Store, name: str, *, clock: Callable[[], float] = time.time) -> Mapping[str, Any]:
    """Mark a bot that this process does not run as paused: others that run it pause it, the next start leaves it out.

    Raises:
        UnknownName: the store does not know the bot.
    """
    records = await _records(store, name)
    paused_ms = int(clock() * 1000)
    for record in records:
        pausing = PauseBot(record.name, record.resource, paused_ms)
        await store.commit(record.user, [pausing], notes=_asking_to_follow(name))
    return {"bot": name, "has_changed": any(record.paused_ms is None for record in records)}


async def resume_stored(store: Store, name: str, *, is_skipping: bool) -> Mapping[str, Any]:
    """Mark a bot that this process does not run as not paused.

    Args:
        is_skipping: who starts it passes over messages before that.

    Raises:
        UnknownName: the store does not know the bot.
        StateError: it is not paused, and is to skip messages.
    """
    records = [record for record in await _records(store, name) if record.paused_ms is not None]
    if not records and is_skipping:
        message = f"the bot {name} is not paused, so there is nothing to skip: pause it first"
        raise StateError(message)
    for record in records:
        resuming = ResumeBot(record.name, record.resource, is_skipping)
        await store.commit(record.user, [resuming], notes=_asking_to_follow(name))
    return {"bot": name, "has_changed": bool(records)}


def _asking_to_follow(name: str) -> list[str]:
    """Return the note that lets processes which share the store follow the mark at once; nobody awaits an answer."""
    return encode(Asked(secrets.token_hex(6), "", PAUSES, name, ()))


async def _records(store: Store, name: str) -> Collection[BotRecord]:
    """Return the identities of a bot, one for each resource that it has run on."""
    known = await store.bots()
    found = [record for record in known if record.name == name]
    if not found:
        names = ", ".join(sorted({record.name for record in known})) or "none"
        raise UnknownName(_NEVER_RAN.format(name=name, known=names))
    return found
