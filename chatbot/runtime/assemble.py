"""The only place that chooses: from settings to plugins, identities and bots that can run."""

from __future__ import annotations

import time
from collections.abc import Collection, MutableMapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from chatbot.bot import ALL_HISTORY, NO_HISTORY, Bot, BotSettings
from chatbot.config import BotConfig, Config
from chatbot.dispatch import Access, Ack, BotInfo, Dispatcher, Rate
from chatbot.errors import Throttled
from chatbot.polling.cadence import Cadence
from chatbot.runtime.connection import Connection
from chatbot.runtime.observe.calls import CountedService, CountedTokens
from chatbot.runtime.observe.tally import Tally
from chatbot.runtime.observe.work import LoggedWork
from chatbot.runtime.plugins import Plugins
from chatbot.runtime.siblings import Siblings
from chatbot.service.acs import AcsResource
from chatbot.service.base import ChatService
from chatbot.service.budget import Commons
from chatbot.stores.base import BotRecord, SaveBot, Store

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider


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
    commons: Commons | None = None,
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
        commons: what the bots of this process share: its users, those made here included, are at any time who the bots
            take for their siblings.

    Raises:
        ServiceError: the service cannot be reached, or refuses one of them.
        StoreError: the store cannot be read or written.
    """
    tallies = {} if tallies is None else tallies
    commons = commons or Commons()
    identities = []
    for name, bot in config.bots.items():
        if names is None or name in names:
            tally = tallies.setdefault(name, Tally())
            identities.append(await _identity(name, bot, connection, resource, store, tally))
    commons.users |= {identity.record.user for identity in identities}
    bots = []
    for identity in identities:
        info = BotInfo(
            identity.name,
            identity.record.user,
            identity.display_name,
            siblings=Siblings(identity.record.user, commons.users),
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
                commons=commons,
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
