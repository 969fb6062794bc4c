"""The bots of a chat, run as one process would run them: it can be stopped, killed, and started again.

Only what is in the store, and what is on the service, survives the end of a process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import anyio
import structlog
from anyio.abc import TaskGroup, TaskStatus

from chatbot.bot import Bot, BotSettings
from chatbot.dispatch import Access, Ack, BotInfo, Dispatcher, HandlerSource, Rate
from chatbot.errors import StateError
from chatbot.events import Event
from chatbot.model import ThreadId, UserId
from chatbot.service.base import ChatService
from chatbot.service.budget import SharedQuotas
from chatbot.stores.base import Store
from chatbot.stores.records import BotRecord
from chatbot.stores.writes import SaveBot
from chatbot.testing.outcomes import ends_the_test
from chatbot.testing.transport import Stage

if TYPE_CHECKING:
    from structlog.typing import EventDict, FilteringBoundLogger, Processor

PRESENCE_SECONDS: Final = 0.25
"""Between two questions whether a bot has noticed that it is in a thread, or is no longer: well within quota."""


@dataclass(frozen=True, slots=True)
class HandlerFailure:
    """A handler that failed.

    Args:
        bot: the name of its bot.
        event: what it was to handle; None if it was not a handler but the bot itself.
        error: what it raised.
    """

    bot: str
    event: Event | None
    error: Exception


@dataclass(frozen=True, slots=True)
class BotOptions:
    """How the bots of a chat behave, and towards whom; people are named."""

    settings: BotSettings
    ack: Ack
    admins: Sequence[str] = ()
    allow: Sequence[str] | None = None
    rate: Rate | None = None
    apology: str | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """What one bot of a chat is made of."""

    name: str
    plugins: Sequence[HandlerSource]
    manners: BotOptions


@dataclass(frozen=True, slots=True)
class BotGuest:
    """A bot as somebody who can be in a room."""

    name: str
    user: UserId


class BotProcess:
    """All bots of a chat.

    Args:
        stage: the service they use.
        store: their memory; opened at every start.
        parts: what they are made of.
        on_failure: told of every failure.
    """

    def __init__(
        self, stage: Stage, store: Store, parts: Sequence[Part], on_failure: Callable[[HandlerFailure], None]
    ) -> None:
        self.guests: dict[str, BotGuest] = {}
        self._stage = stage
        self._store = store
        self._parts = parts
        self._on_failure = on_failure
        self._bots: Sequence[Bot] = ()
        self._commons = SharedQuotas()
        self._waiting: set[anyio.CancelScope] = set()
        self._scope = anyio.CancelScope()
        self._stopping = anyio.Event()
        self._ended = anyio.Event()

    @property
    def is_running(self) -> bool:
        """Whether there are bots that anything could be expected of."""
        return bool(self._bots)

    async def start(self, group: TaskGroup) -> None:
        """Start all bots; returns when they are made.

        Raises:
            StateError: they are running.
        """
        if self.is_running:
            msg = "the bots are running already: end them first, with kill() or stop(), or use restart()"
            raise StateError(msg)
        await group.start(self._run)

    async def kill(self) -> None:
        """End as `kill -9` does: at whatever the bots are doing, without another word to the service or the store."""
        if self.is_running:
            self.die()
        self._scope.cancel()
        await self._ended.wait()

    def die(self) -> None:
        """Begin to end as `kill -9` does; whoever is one of the bots' tasks gets no further than its next await."""
        kill = getattr(self._store, "kill", None)  # a store that can be left as a killed process leaves it
        if kill is not None:
            kill()
        self._bots = ()
        self._stop_waiting()
        self._scope.cancel()

    async def stop(self) -> None:
        """End as SIGTERM does: stop looking, finish what is in hand, send what is owed."""
        self._stopping.set()
        await self._ended.wait()

    async def settle(self, threads: Sequence[ThreadId]) -> None:
        """Wait until all bots have handled what is in these threads, what they said to each other included.

        Returns when the process ends, too: nothing is to be expected of it then.
        """
        with anyio.CancelScope() as scope:
            self._waiting.add(scope)
            try:
                await self._settle_all(threads)
            finally:
                self._waiting.discard(scope)

    async def _settle_all(self, threads: Sequence[ThreadId]) -> None:
        for bot in self._bots:
            await bot.at_rest()
        settled: dict[ThreadId, int] = {}
        while self.is_running and settled != (versions := {one: self._stage.version(one) for one in threads}):
            for bot in self._bots:
                await self._settle_presence(bot, threads)
                for thread, version in versions.items():
                    if self._stage.is_in(thread, bot.user):
                        await bot.settled(thread, version)
                        await self._settle_receipts(bot, thread)
            settled = versions

    async def _settle_receipts(self, bot: Bot, thread: ThreadId) -> None:
        """Wait until a bot's handlers know what people have read, if they want to. Nothing rings for it."""
        while (lane := bot.lanes.get(thread)) and lane.reading.lacks(self._stage.read_by_others(thread, bot.user)):
            await anyio.sleep(lane.reading.delay)
            bot.turns.ring(thread)
            await anyio.sleep(PRESENCE_SECONDS)

    async def _settle_presence(self, bot: Bot, threads: Sequence[ThreadId]) -> None:
        """Wait until a bot knows which threads it is in. Nothing in a thread says so to one that is not."""
        while mistaken := await self._mistaken(bot, threads):
            bot.listening.summon()
            for thread in mistaken:
                bot.turns.ring(thread)
            await anyio.sleep(PRESENCE_SECONDS)

    async def _mistaken(self, bot: Bot, threads: Sequence[ThreadId]) -> list[ThreadId]:
        """The threads that a bot is in without knowing it, or that it believes to be in and is not."""
        believed = {record.thread for record in await self._store.threads(bot.user) if not record.is_left}
        return [one for one in threads if (one in believed) is not self._stage.is_in(one, bot.user)]

    async def _run(self, *, task_status: TaskStatus[None]) -> None:
        self._stopping, self._ended = anyio.Event(), anyio.Event()
        try:
            with anyio.CancelScope() as self._scope:
                async with self._store:
                    await self._run_bots(task_status)
        finally:
            self._ended.set()

    async def _run_bots(self, task_status: TaskStatus[None]) -> None:
        try:
            async with anyio.create_task_group() as group:
                self._bots = await self._make_bots()
                for bot in self._bots:
                    group.start_soon(bot.run, self._stopping)
                task_status.started()
        finally:
            self._bots = ()
            self._stop_waiting()

    def _stop_waiting(self) -> None:
        for scope in self._waiting:
            scope.cancel()

    async def _make_bots(self) -> list[Bot]:
        records = {part.name: await self._identity(part.name) for part in self._parts}
        self.guests = {name: BotGuest(name, record.user) for name, record in records.items()}
        self._commons = SharedQuotas()
        return [self._make_bot(part, records) for part in self._parts]

    def _make_bot(self, part: Part, records: Mapping[str, BotRecord]) -> Bot:
        record = records[part.name]
        others = frozenset(other.user for other in records.values()) - {record.user}
        manners = part.manners
        info = BotInfo(part.name, record.user, part.name, siblings=others, admins=self._users(manners.admins))
        allow = None if manners.allow is None else self._users(manners.allow)
        access = Access(allow=allow, rate=manners.rate)
        return Bot(
            name=part.name,
            service=self.service_of(record.user),
            store=self.memory(),
            dispatcher=self.dispatcher(part, info, access),
            settings=manners.settings,
            display_name=part.name,
            first_started_ms=record.first_started_ms,
            commons=self._commons,
            clock=self._stage.clock,
            on_failure=lambda event, error: self._on_failure(HandlerFailure(part.name, event, error)),
            log=self.log(),
        )

    def _users(self, names: Sequence[str]) -> frozenset[UserId]:
        return frozenset(map(self._stage.person, names))

    # ── what bots are made with ───────────────────────────────────────────────────────────────────────────────

    def service_of(self, user: UserId) -> ChatService:
        """A bot's view of the service."""
        return self._stage.new_service_of(user)

    def memory(self) -> Store:
        """The memory of all bots."""
        return self._store

    def dispatcher(self, part: Part, info: BotInfo, access: Access) -> Dispatcher:
        """A bot's handlers."""
        manners = part.manners
        return Dispatcher(
            part.plugins,
            bot=info,
            ack=manners.ack,
            access=access,
            ends_all=ends_the_test,
            apology=manners.apology,
        )

    def log(self) -> FilteringBoundLogger:
        """Where the bots say what they do."""
        return _log(self._stage)

    async def _identity(self, name: str) -> BotRecord:
        """The identity the store remembers, or a new one."""
        resource = self._stage.emulator.world.resource.id
        known = await self._store.find_bot(name, resource)
        if known is not None and self._stage.knows(known.user):
            self._stage.names[known.user] = name
            return known
        user = self._stage.create_user(name)
        record = BotRecord(name, resource, user, first_started_ms=int(self._stage.clock() * 1000))
        await self.memory().commit(user, [SaveBot(record)])
        return record


def _log(stage: Stage) -> FilteringBoundLogger:
    """The project's own logging where it has configured any, or else plain lines with the chat's time."""
    if structlog.is_configured():
        return structlog.get_logger("chatbot")  # type: ignore[no-any-return]

    def stamp(_logger: object, _method: str, event: EventDict) -> EventDict:
        event["timestamp"] = f"{datetime.fromtimestamp(stage.clock(), UTC):%F %T}"
        return event

    renderer = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    processors: list[Processor] = [structlog.processors.add_log_level, stamp, renderer]
    return structlog.wrap_logger(  # type: ignore[no-any-return]
        structlog.PrintLogger(), processors=processors, wrapper_class=structlog.make_filtering_bound_logger("info")
    )
