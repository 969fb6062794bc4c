"""Create bots from settings: the only place that chooses their identities, plugins and settings.

`Runtime` holds the bots that run in the process, and what they share.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, MutableMapping, Set
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, cast

import anyio
import structlog
from msgspec import Struct

from chatbot.bot import ALL_HISTORY, NO_HISTORY, Bot, BotSettings
from chatbot.bot.ownership import Everything, Ownership
from chatbot.bot.status import quota_left
from chatbot.config import BotConfig, Config
from chatbot.dispatch import Access, Ack, BotInfo, Dispatcher, Rate
from chatbot.errors import ConfigError, Forbidden, OutcomeUnknown, ServiceError, Throttled, Unauthorized, Unreachable
from chatbot.model import ThreadId, UserId
from chatbot.polling.cadence import Cadence
from chatbot.runtime.bot_users import lost_identities, note_users, noted_users
from chatbot.runtime.connection import Connection
from chatbot.runtime.observe.counters import BotCounters
from chatbot.runtime.observe.instrumented_service import CountedTokens, counted
from chatbot.runtime.observe.log_context import LoggedWork
from chatbot.runtime.observe.story import Stories, StoryStore, StoryTracer, recorded
from chatbot.runtime.plugins import Plugins
from chatbot.service.acs import AcsResource
from chatbot.service.base import ChatService
from chatbot.service.budget import Operation, SharedQuotas
from chatbot.stores.base import SharedStore, Store
from chatbot.stores.records import BotRecord
from chatbot.stores.writes import ResumeBot, RetireBots, SaveBot, SaveThread, Write
from chatbot.worker_threads import run_in_thread

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider


@contextmanager
def explaining(config: Config, connection: Connection) -> Iterator[None]:
    """Raise errors of the service with the line of bots.yaml that names it, and with a remedy."""
    try:
        yield
    except ServiceError as error:
        remedy = {
            Unreachable: "check the endpoint, this machine's network and its proxy",
            OutcomeUnknown: "try again; check this machine's network and its proxy",
            Unauthorized: connection.remedy,
            Forbidden: connection.remedy,
        }.get(type(error), "see the service's answer")
        problem = config.problem(("service",), f"{error}; {remedy}")
        raise ServiceError(problem, status=error.status, code=error.code) from error


class OtherBots(Set[UserId]):
    """A live view of the users of a process's other bots.

    Args:
        oneself: the bot that is left out.
        users: the users of all bots; changes to this set show in the view.
    """

    def __init__(self, own: UserId, users: Set[UserId]) -> None:
        self._own = own
        self._users = users

    def __contains__(self, user: object) -> bool:
        return user != self._own and user in self._users

    def __iter__(self) -> Iterator[UserId]:
        return (user for user in self._users if user != self._own)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @classmethod
    def _from_iterable(cls, it: Iterable[UserId]) -> Set[UserId]:  # type: ignore[override]
        return frozenset(it)


@dataclass(slots=True, kw_only=True)
class Runtime:
    """The bots of a process, and what they share.

    A reload changes `bots` in place, so that all who hold the list see the current bots.

    Args:
        config: the configuration in force.
        resource: opened by the caller.
        store: opened by the caller.
        bots: in the order of bots.yaml; bots that a reload added come last.
        counters: by bot name. The counters of a removed bot are kept, and continue if it is added again.
        shared_quotas: the bots' users, and the quotas of the threads they are in.
        traces: creates spans of the bots' work; None without tracing.
        stories: record what the bots do with each event, for the playground; None without it.
        clock: the bots' wall clock, in epoch seconds.
        ownership: which threads this process serves.
        changing: held while bots are started, stopped or replaced.
    """

    config: Config
    connection: Connection
    resource: AcsResource
    store: Store
    bots: list[Bot] = field(default_factory=list)
    counters: dict[str, BotCounters] = field(default_factory=dict)
    shared_quotas: SharedQuotas = field(default_factory=SharedQuotas)
    traces: TracerProvider | None = None
    stories: Stories | None = None
    clock: Callable[[], float] = time.time
    ownership: Ownership = field(default_factory=Everything)
    changing: anyio.Lock = field(default_factory=anyio.Lock)

    async def create_bots(self, config: Config, plugins: Plugins, names: Collection[str] | None = None) -> list[Bot]:
        """Create bots without adding them to `bots`. For the errors see `assemble`."""
        return await assemble(
            config,
            plugins,
            self.connection,
            self.resource,
            self.store,
            self.counters,
            self.traces,
            names=names,
            shared=self.shared_quotas,
            stories=self.stories,
            clock=self.clock,
            ownership=self.ownership,
        )

    async def check_identities(self, config: Config, *, are_new_users_allowed: bool = False) -> None:
        """Refuse a configuration under which a bot that had a user would get a new one.

        On the emulator it is only logged: people who try things out delete the store to begin again.

        Args:
            config: the configuration that is to run.
            are_new_users_allowed: whether it was asked for, whatever the configuration says.

        Raises:
            ConfigError: a bot would be a stranger to its threads.
            StoreError: the store cannot be read.
        """
        noted = await run_in_thread(noted_users, config, self.connection.resource)
        lost = lost_identities(config, self.connection.resource, await self.store.bots(), noted)
        for one in lost:
            structlog.get_logger().warning("identity.lost", bot=one.bot, problem=one.problem, remedy=one.remedy)
        are_allowed = are_new_users_allowed or config.allow_new_users or self.connection.is_emulator
        if lost and not are_allowed:
            raise ConfigError(*(config.problem(("bots", one.bot), str(one)) for one in lost))

    async def note_identities(self) -> None:
        """Write down who the bots are, in the store and beside it, for `check_identities` of later starts.

        Raises:
            StoreError: it cannot be written.
        """
        resource, users = self.connection.resource, {bot.name: bot.user for bot in self.bots}
        if self.bots:
            await self.store.commit(self.bots[0].user, [RetireBots(resource, tuple(users))])
        await run_in_thread(note_users, self.config, resource, users)

    def bot(self, name: str) -> Bot:
        return next(bot for bot in self.bots if bot.name == name)

    def put(self, bot: Bot) -> None:
        """Replace the bot of the same name, or add a new one."""
        names = [other.name for other in self.bots]
        self.shared_quotas.users.add(bot.user)
        if bot.name in names:
            self.bots[names.index(bot.name)] = bot
        else:
            self.bots.append(bot)

    def remove(self, name: str) -> None:
        gone = self.bot(name)
        self.bots.remove(gone)
        # A bot that was renamed is the same user under another name, and may be there already.
        if all(bot.user != gone.user for bot in self.bots):
            self.shared_quotas.users.discard(gone.user)

    def apply(self, config: Config) -> None:
        """Apply the settings that running bots need not be restarted for."""
        self.config = config
        for bot in self.bots:
            bot.context.settings = replace(bot.context.settings, retention=config.retention)
            if isinstance(bot.context.tracer, LoggedWork | StoryTracer):
                bot.context.tracer.log_texts(config.log.texts)


class _Identity(Struct, frozen=True):
    name: str
    config: BotConfig
    record: BotRecord
    service: ChatService
    counters: BotCounters

    @property
    def display_name(self) -> str:
        return self.config.display_name or self.name


async def assemble(
    config: Config,
    plugins: Plugins,
    connection: Connection,
    resource: AcsResource,
    store: Store,
    counters: MutableMapping[str, BotCounters] | None = None,
    traces: TracerProvider | None = None,
    *,
    names: Collection[str] | None = None,
    shared: SharedQuotas | None = None,
    stories: Stories | None = None,
    clock: Callable[[], float] = time.time,
    ownership: Ownership | None = None,
) -> list[Bot]:
    """Create bots. A bot's user is created at its first start, and stored.

    Args:
        plugins: from `load_plugins`; those of these bots at least.
        resource: opened by the caller.
        store: opened by the caller.
        counters: by bot name; missing ones are added, existing ones continue.
        traces: creates spans of the bots' work; None without tracing.
        names: the bots to create; None for all.
        shared: shared by all bots of the process. The users of the new bots are added; bots treat its users as their
            siblings.
        stories: record what the bots do with each event; None without a playground.
        clock: the bots' wall clock, in epoch seconds.
        ownership: which threads this process serves; None for all.

    Raises:
        ServiceError: the service cannot be reached, or refuses one of them.
        StoreError: the store cannot be read or written.
    """
    counters = {} if counters is None else counters
    shared = shared or SharedQuotas()
    identities = [
        await _identity(name, bot, connection, resource, store, counters.setdefault(name, BotCounters()))
        for name, bot in config.bots.items()
        if names is None or name in names
    ]
    # Before any bot exists: from its first event on, a bot must know every sibling.
    shared.users |= {identity.record.user for identity in identities}
    return [
        _create_bot(identity, config, plugins, store, shared, traces, stories, clock, ownership)
        for identity in identities
    ]


def _create_bot(
    identity: _Identity,
    config: Config,
    plugins: Plugins,
    store: Store,
    shared: SharedQuotas,
    traces: TracerProvider | None,
    stories: Stories | None,
    clock: Callable[[], float],
    ownership: Ownership | None,
) -> Bot:
    settings, record = identity.config, identity.record
    info = BotInfo(
        identity.name,
        record.user,
        identity.display_name,
        siblings=OtherBots(record.user, shared.users),
        admins=frozenset(settings.admins),
    )
    dispatcher = Dispatcher(
        plugins[identity.name],
        bot=info,
        ack=Ack(settings.ack),
        access=access(settings),
        apology=settings.apology,
    )
    logged = _tracer(identity.name, traces, texts=config.log.texts)
    tracer = logged if stories is None else StoryTracer(identity.name, logged, stories, info)

    def left(operation: Operation, thread: ThreadId | None) -> int:  # called only once the bot exists
        return quota_left(bot, operation, thread)

    bot = Bot(
        name=identity.name,
        service=identity.service if stories is None else recorded(identity.service, left),
        store=store if stories is None else cast(Store, StoryStore(store, stories)),
        clock=clock,
        dispatcher=dispatcher,
        settings=bot_settings(settings, retention=config.retention),
        display_name=identity.display_name,
        first_started_ms=record.first_started_ms,
        shared=shared,
        observer=identity.counters,
        tracer=tracer,
        log=structlog.get_logger(),
        ownership=ownership,
    )
    bot.context.paused_ms = record.paused_ms
    if isinstance(tracer, StoryTracer):
        tracer.handlers = lambda: bot.handlers.dispatcher.handlers
    return bot


def _tracer(bot: str, traces: TracerProvider | None, *, texts: bool) -> LoggedWork:
    if traces is None:
        return LoggedWork(bot, texts=texts)
    # Here, because OpenTelemetry need not be installed.
    from chatbot.runtime.observe.spans import SpannedWork

    return SpannedWork(bot, traces, texts=texts)


def bot_settings(config: BotConfig, *, retention: timedelta) -> BotSettings:
    """Convert settings of bots.yaml, those of one bot and those for all, to a bot's settings."""
    return BotSettings(
        threads=None if config.threads == "all" else frozenset(config.threads),
        history=_history(config.history),
        cadence=Cadence(
            interval=config.poll.interval.total_seconds(),
            idle=config.poll.idle.total_seconds(),
            rate=config.poll.rate,
        ),
        rejoin=config.rejoin,
        retention=retention,
        max_handlers=config.max_handlers,
        timeout=None if config.timeout is None else config.timeout.total_seconds(),
    )


def access(config: BotConfig) -> Access:
    limit = config.rate_limit
    return Access(
        allow=None if config.allow is None else frozenset(config.allow),
        rate=None if limit is None else Rate(limit.messages, limit.per),
    )


def _history(history: str | timedelta) -> timedelta:
    if isinstance(history, timedelta):
        return history
    return ALL_HISTORY if history == "all" else NO_HISTORY


async def _identity(
    name: str, config: BotConfig, connection: Connection, resource: AcsResource, store: Store, counters: BotCounters
) -> _Identity:
    """Return the identity of a bot; of processes that start together, one creates it."""
    async with changing_identity(store, name):
        return await _identity_alone(name, config, connection, resource, store, counters)


def changing_identity(store: Store, name: str) -> AbstractAsyncContextManager[None]:
    """Let no other process that shares the store change the identity of a bot while the block runs."""
    return store.exclusive(f"identity {name}") if isinstance(store, SharedStore) else nullcontext()


async def _identity_alone(
    name: str, config: BotConfig, connection: Connection, resource: AcsResource, store: Store, counters: BotCounters
) -> _Identity:
    record = await store.find_bot(name, connection.resource)
    user = config.user or (record.user if record else await resource.create_user())
    tokens = CountedTokens(connection.tokens(resource, user, config), counters)
    service = counted(resource.chat(user, tokens), counters)
    server_ms = await server_ms_of(service)
    if record is None or record.user != user:
        if record is not None:
            structlog.get_logger().warning("bot.user_changed", bot=name, before=record.user, user_id=user)
        record = BotRecord(name=name, resource=connection.resource, user=user, first_started_ms=server_ms)
        await store.commit(user, [SaveBot(record)])
        structlog.get_logger().info("bot.created", bot=name, user_id=user)
    elif record.is_skipping and record.paused_ms is None:
        await store.commit(user, [ResumeBot(name, record.resource), *await passing_over(store, record, server_ms)])
        record = replace(record, first_started_ms=server_ms, is_skipping=False)
        structlog.get_logger().info("bot.resumed", bot=name, is_skipping=True)
    return _Identity(name, config, record, service, counters)


async def passing_over(store: Store, record: BotRecord, server_ms: int) -> list[Write]:
    """Return the writes that settle everything before a time: a bot that starts after them handles none of it.

    Threads that the bot does not know yet begin at that time, too, unless `history` asks for earlier messages.

    Args:
        store: holds the bot's threads.
        record: the bot's identity.
        server_ms: the service's time, epoch ms.

    Raises:
        StoreError: the store cannot be read.
    """
    writes: list[Write] = [SaveBot(replace(record, first_started_ms=server_ms))]
    for thread in await store.threads(record.user):
        # What was seen is forgotten with it: an edit below the floor is then older than the bot's history, too.
        floor, base = max(thread.floor, server_ms), max(thread.base, server_ms)
        writes.append(SaveThread(replace(thread, floor=floor, base=base, seen={})))
    return writes


async def server_ms_of(service: ChatService) -> int:
    """Return the service's time in epoch ms. The request also proves, before anything runs, that the bot has access."""
    try:
        page = await service.list_threads(page_size=1)
    except Throttled:  # the service answers and knows the bot, which is all that has to be proved
        return int(time.time() * 1000)
    return int((page.server_time.timestamp() if page.server_time else time.time()) * 1000)
