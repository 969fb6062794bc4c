"""The bots of a chat, run as one process runs them: it can be stopped, killed and started again.

Only what is in the store or on the service survives the end of a process.
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

MEMBERSHIP_SECONDS: Final = 0.25
"""Pause between two checks whether a bot has noticed that it was added or removed: well within quota."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed attempt of a handler.

    Args:
        bot: the name of the bot.
        event: the event; None if the bot itself failed and no handler.
        error: what was raised.
    """

    bot: str
    event: Event | None
    error: Exception


@dataclass(frozen=True, slots=True)
class BotOptions:
    """Options of all bots of a chat; people are given by name."""

    settings: BotSettings
    ack: Ack
    admins: Sequence[str] = ()
    allow: Sequence[str] | None = None
    rate: Rate | None = None
    apology: str | None = None
    are_people_known: bool = False


@dataclass(frozen=True, slots=True)
class BotSpec:
    """Name, plugins and options of one bot of a chat."""

    name: str
    plugins: Sequence[HandlerSource]
    options: BotOptions


@dataclass(frozen=True, slots=True)
class BotMember:
    """A bot as a member of rooms."""

    name: str
    user: UserId


class BotProcess:
    """All bots of a chat.

    Args:
        stage: the service.
        store: the store of all bots; opened at every start.
        specs: the bots.
        on_failure: called with every failure.
    """

    def __init__(
        self, stage: Stage, store: Store, specs: Sequence[BotSpec], on_failure: Callable[[Failure], None]
    ) -> None:
        self.members: dict[str, BotMember] = {}
        self._stage = stage
        self._store = store
        self._specs = specs
        self._on_failure = on_failure
        self._bots: Sequence[Bot] = ()
        self._quotas = SharedQuotas()
        self._waiting: set[anyio.CancelScope] = set()
        self._scope = anyio.CancelScope()
        self._stopping = anyio.Event()
        self._ended = anyio.Event()

    @property
    def bots(self) -> Sequence[Bot]:
        """The running bots; none while the process is down."""
        return self._bots

    @property
    def store(self) -> Store:
        """The store of all bots; on virtual time, which stands still while the store works."""
        return self._store

    @property
    def is_running(self) -> bool:
        """Whether the bots have started and have neither stopped nor crashed."""
        return bool(self._bots)

    async def start(self, group: TaskGroup) -> None:
        """Start all bots; return when they have been made.

        Raises:
            StateError: they are running already.
        """
        if self.is_running:
            msg = "the bots are running already: end them first, with kill() or stop(), or use restart()"
            raise StateError(msg)
        await group.start(self._run)

    async def kill(self) -> None:
        """Kill as `kill -9` does: whatever the bots are doing, without another call to the service or the store."""
        if self.is_running:
            self.crash()
        self._scope.cancel()
        await self._ended.wait()

    def crash(self) -> None:
        """Begin to crash as `kill -9` does, without waiting; a task of the bots gets no further than its next await."""
        kill = getattr(self._store, "kill", None)  # a store that can be left as a killed process leaves it
        if kill is not None:
            kill()
        self._bots = ()
        self._stop_waiting()
        self._scope.cancel()

    async def stop(self) -> None:
        """Stop as SIGTERM does: stop polling, finish running handlers, send what is in the outbox."""
        self._stopping.set()
        await self._ended.wait()

    async def settle(self, threads: Sequence[ThreadId]) -> None:
        """Wait until all bots have handled what is in these threads, including what they said to each other.

        Returns when the process ends, too.
        """
        with anyio.CancelScope() as scope:
            self._waiting.add(scope)
            try:
                await self._settle_all(threads)
            finally:
                self._waiting.discard(scope)

    async def _settle_all(self, threads: Sequence[ThreadId]) -> None:
        for bot in self._bots:
            await bot.wait_until_idle()
        settled: dict[ThreadId, int] = {}
        while self.is_running and settled != (versions := {thread: self._stage.version(thread) for thread in threads}):
            for bot in self._bots:
                await self._settle_membership(bot, threads)
                for thread, version in versions.items():
                    if self._stage.is_in(thread, bot.user):
                        await bot.wait_until_settled(thread, version)
                        await self._settle_receipts(bot, thread)
            settled = versions

    async def _settle_receipts(self, bot: Bot, thread: ThreadId) -> None:
        """Wait until a bot's handlers have got people's read receipts, if they want them: a receipt starts no poll."""
        while (lane := bot.scheduler.lanes.get(thread)) and lane.has_new_receipts(
            self._stage.read_by_others(thread, bot.user)
        ):
            await anyio.sleep(lane.receipts.delay)
            bot.scheduler.schedule(thread)
            await anyio.sleep(MEMBERSHIP_SECONDS)

    async def _settle_membership(self, bot: Bot, threads: Sequence[ThreadId]) -> None:
        """Wait until a bot knows which threads it is in: one that is not in a thread reads nothing there."""
        while mistaken := await self._outdated_threads(bot, threads):
            bot.watcher.request_poll()
            for thread in mistaken:
                bot.scheduler.schedule(thread)
            await anyio.sleep(MEMBERSHIP_SECONDS)

    async def _outdated_threads(self, bot: Bot, threads: Sequence[ThreadId]) -> list[ThreadId]:
        """Return the threads whose members include the bot without its knowing, or no longer include it."""
        believed = {record.thread for record in await self._store.threads(bot.user) if not record.is_left}
        return [thread for thread in threads if (thread in believed) is not self._stage.is_in(thread, bot.user)]

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
                self._bots = await self.make_bots()
                for bot in self._bots:
                    group.start_soon(bot.run, self._stopping)
                task_status.started()
        finally:
            self._bots = ()
            self._stop_waiting()

    def _stop_waiting(self) -> None:
        for scope in self._waiting:
            scope.cancel()

    async def make_bots(self) -> list[Bot]:
        """Make all bots, for a new start of the process."""
        records = {spec.name: await self._identity(spec.name) for spec in self._specs}
        self.members = {name: BotMember(name, record.user) for name, record in records.items()}
        self._quotas = SharedQuotas()
        return [self.make_bot(spec, records) for spec in self._specs]

    def make_bot(self, spec: BotSpec, records: Mapping[str, BotRecord]) -> Bot:
        """Make a bot.

        Args:
            spec: the bot.
            records: the identities of all bots, by name.
        """
        record = records[spec.name]
        others = frozenset(other.user for other in records.values()) - {record.user}
        options = spec.options
        info = BotInfo(spec.name, record.user, spec.name, siblings=others, admins=self._users(options.admins))
        allow = None if options.allow is None else self._users(options.allow)
        access = Access(allow=allow, rate=options.rate, are_people_known=options.are_people_known)
        return Bot(
            name=spec.name,
            service=self.service_of(record.user),
            store=self.store_for_bots(),
            dispatcher=self.dispatcher(spec, info, access),
            settings=options.settings,
            display_name=spec.name,
            first_started_ms=record.first_started_ms,
            shared=self._quotas,
            clock=self._stage.clock,
            on_failure=lambda event, error: self._on_failure(Failure(spec.name, event, error)),
            log=self.log(),
        )

    def _users(self, names: Sequence[str]) -> frozenset[UserId]:
        return frozenset(map(self._stage.person, names))

    # ── what bots are made from ───────────────────────────────────────────────────────────────────────────────

    def service_of(self, user: UserId) -> ChatService:
        """Return a new client of the service for a bot."""
        return self._stage.new_service_of(user)

    def store_for_bots(self) -> Store:
        """Return the store that the bots get."""
        return self._store

    def dispatcher(self, spec: BotSpec, info: BotInfo, access: Access) -> Dispatcher:
        """Make a bot's handlers."""
        options = spec.options
        return Dispatcher(
            spec.plugins,
            bot=info,
            ack=options.ack,
            access=access,
            is_fatal=ends_the_test,
            apology=options.apology,
        )

    def log(self) -> FilteringBoundLogger:
        """Return the log of the bots."""
        return _log(self._stage)

    async def _identity(self, name: str) -> BotRecord:
        """Return the identity in the store, or make one."""
        resource = self._stage.emulator.world.resource.id
        known = await self._store.find_bot(name, resource)
        if known is not None and self._stage.has_user(known.user):
            self._stage.names[known.user] = name
            return known
        user = self._stage.bot_user(name)
        record = BotRecord(name, resource, user, first_started_ms=int(self._stage.clock() * 1000))
        await self.store_for_bots().commit(user, [SaveBot(record)])
        return record


def _log(stage: Stage) -> FilteringBoundLogger:
    """Return the logger that the project configured, or else one that prints plain lines with the chat's time."""
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
