"""Create bots from settings: the only place that chooses stores, identities, plugins and settings for them.

`Runtime` holds what the bots of a process share, and the bots that run at any time.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, MutableMapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from chatbot.bot import ALL_HISTORY, NO_HISTORY, Bot, BotSettings
from chatbot.config import BotConfig, Config
from chatbot.dispatch import Access, Ack, BotInfo, Dispatcher, Rate
from chatbot.errors import Forbidden, OutcomeUnknown, ServiceError, Throttled, Unauthorized, Unreachable
from chatbot.model import UserId
from chatbot.polling.cadence import Cadence
from chatbot.runtime.connection import Connection
from chatbot.runtime.observe.counters import Tally
from chatbot.runtime.observe.instrumented_service import CountedService, CountedTokens
from chatbot.runtime.observe.log_context import LoggedWork
from chatbot.runtime.plugins import Plugins
from chatbot.service.acs import AcsResource
from chatbot.service.base import ChatService
from chatbot.service.budget import SharedQuotas
from chatbot.stores.base import Store
from chatbot.stores.records import BotRecord
from chatbot.stores.writes import SaveBot

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider


@contextmanager
def explaining(config: Config, connection: Connection) -> Iterator[None]:
    """Raise the service's failures with the place where it is named, and with what can be done."""
    try:
        yield
    except ServiceError as error:
        remedy = {
            Unreachable: "check the endpoint, this machine's network and its proxy",
            OutcomeUnknown: "try again; check this machine's network and its proxy",
            Unauthorized: connection.remedy,
            Forbidden: connection.remedy,
        }.get(type(error), "see what the service says about it")
        problem = config.problem(("service",), f"{error}; {remedy}")
        raise ServiceError(problem, status=error.status, code=error.code) from error


class OtherStores(Set[UserId]):
    """All bots of a process but one, as they are at any time.

    Args:
        oneself: the one.
        users: of all bots; whoever changes it changes what is in here.
    """

    def __init__(self, oneself: UserId, users: Set[UserId]) -> None:
        self._oneself = oneself
        self._users = users

    def __contains__(self, user: object) -> bool:
        return user != self._oneself and user in self._users

    def __iter__(self) -> Iterator[UserId]:
        return (user for user in self._users if user != self._oneself)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @classmethod
    def _from_iterable(cls, it: Iterable[UserId]) -> Set[UserId]:  # type: ignore[override]
        return frozenset(it)


@dataclass(slots=True, kw_only=True)
class Runtime:
    """The bots of a process, and what they share. Whoever holds its lists sees the present bots.

    Args:
        config: what is in force.
        connection: whose resource it is.
        resource: opened by the caller.
        store: opened by the caller.
        bots: in the order of bots.yaml; those that came later are behind.
        tallies: the counts of each bot, by its name; those of bots that have gone are kept, and gone on with when they
            come again.
        shared: what the bots share: their users, and the quotas of the threads they are in.
        traces: what makes spans of the bots' work, if anybody wants any.
    """

    config: Config
    connection: Connection
    resource: AcsResource
    store: Store
    bots: list[Bot] = field(default_factory=list)
    tallies: dict[str, Tally] = field(default_factory=dict)
    shared_quotas: SharedQuotas = field(default_factory=SharedQuotas)
    traces: TracerProvider | None = None

    async def create_bots(self, config: Config, plugins: Plugins, names: Collection[str] | None = None) -> list[Bot]:
        """Make bots; they are not among those of the site yet. For the errors see `assemble`."""
        return await assemble(
            config,
            plugins,
            self.connection,
            self.resource,
            self.store,
            self.tallies,
            self.traces,
            names=names,
            shared=self.shared_quotas,
        )

    def bot(self, name: str) -> Bot:
        """The present bot of this name, which there is."""
        return next(bot for bot in self.bots if bot.name == name)

    def put(self, bot: Bot) -> None:
        """Let a bot take the place of the one with its name, or join the others."""
        names = [other.name for other in self.bots]
        if bot.name in names:
            self.bots[names.index(bot.name)] = bot
        else:
            self.bots.append(bot)

    def remove(self, name: str) -> None:
        """Let the bot of this name go."""
        gone = self.bot(name)
        self.bots.remove(gone)
        self.shared_quotas.users.discard(gone.user)

    def apply(self, config: Config) -> None:
        """Put another configuration in force, as far as bots that stay need not be told."""
        self.config = config
        for bot in self.bots:
            bot.context.settings = replace(bot.context.settings, retention=config.retention)
            if isinstance(bot.context.tracer, LoggedWork):
                bot.context.tracer.log_texts(config.log.texts)


@dataclass(frozen=True, slots=True)
class _Identity:
    name: str
    config: BotConfig
    record: BotRecord
    service: ChatService

    @property
    def display_name(self) -> str:
        return self.config.display_name or self.name


async def assemble(
    config: Config,
    plugins: Plugins,
    connection: Connection,
    resource: AcsResource,
    store: Store,
    tallies: MutableMapping[str, Tally] | None = None,
    traces: TracerProvider | None = None,
    *,
    names: Collection[str] | None = None,
    shared: SharedQuotas | None = None,
) -> list[Bot]:
    """Make the bots; their users are created at the first start and remembered from then on.

    Args:
        plugins: from `load_plugins`, of these bots at least.
        connection: whose resource it is.
        resource: opened by the caller.
        store: opened by the caller.
        tallies: filled with the counts of each bot, by its name; a bot that has some goes on with them.
        traces: what makes spans of the bots' work, if anybody wants any.
        names: which bots to make; None is all.
        shared: what the bots of this process share: its users, those made here included, are at any time who the bots
            take for their siblings.

    Raises:
        ErrorResponse: the service cannot be reached, or refuses one of them.
        StoreError: the store cannot be read or written.
    """
    tallies = {} if tallies is None else tallies
    shared = shared or SharedQuotas()
    identities = []
    for name, bot in config.bots.items():
        if names is None or name in names:
            tally = tallies.setdefault(name, Tally())
            identities.append(await _identity(name, bot, connection, resource, store, tally))
    shared.users |= {identity.record.user for identity in identities}
    bots = []
    for identity in identities:
        info = BotInfo(
            identity.name,
            identity.record.user,
            identity.display_name,
            siblings=OtherStores(identity.record.user, shared.users),
            admins=frozenset(identity.config.admins),
        )
        bots.append(
            Bot(
                name=identity.name,
                service=identity.service,
                store=store,
                dispatcher=Dispatcher(
                    plugins[identity.name],
                    bot=info,
                    ack=Ack(identity.config.ack),
                    access=access(identity.config),
                    apology=identity.config.apology,
                ),
                settings=bot_settings(identity.config, retention=config.retention),
                display_name=identity.display_name,
                first_started_ms=identity.record.first_started_ms,
                shared=shared,
                observer=tallies[identity.name],
                tracer=_tracer(identity.name, traces, texts=config.log.texts),
                log=structlog.get_logger(),
            )
        )
    return bots


def _tracer(bot: str, traces: TracerProvider | None, *, texts: bool) -> LoggedWork:
    if traces is None:
        return LoggedWork(bot, texts=texts)
    # Here, because OpenTelemetry need not be installed.
    from chatbot.runtime.observe.spans import SpannedWork

    return SpannedWork(bot, traces, texts=texts)


def bot_settings(config: BotConfig, *, retention: timedelta) -> BotSettings:
    """A bot's part of bots.yaml, and what it says for all bots, in the bot's own terms."""
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
    """Who may use a bot."""
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
    name: str, config: BotConfig, connection: Connection, resource: AcsResource, store: Store, tally: Tally
) -> _Identity:
    record = await store.find_bot(name, connection.resource)
    user = config.user or (record.user if record else await resource.create_user())
    tokens = CountedTokens(connection.tokens(resource, user, config), tally)
    service = CountedService(resource.chat(user, tokens), tally)
    server_ms = await server_ms_of(service)
    if record is None or record.user != user:
        if record is not None:
            structlog.get_logger().warning("bot.user_changed", bot=name, before=record.user, user_id=user)
        record = BotRecord(name=name, resource=connection.resource, user=user, first_started_ms=server_ms)
        await store.commit(user, [SaveBot(record)])
        structlog.get_logger().info("bot.created", bot=name, user_id=user)
    return _Identity(name, config, record, service)


async def server_ms_of(service: ChatService) -> int:
    """The service's time, epoch ms; asking for it shows, before anything runs, that the bot may speak to it."""
    try:
        page = await service.list_threads(page_size=1)
    except Throttled:  # it answers, and it knows us: that is all we need to go on
        return int(time.time() * 1000)
    return int((page.server_time.timestamp() if page.server_time else time.time()) * 1000)
