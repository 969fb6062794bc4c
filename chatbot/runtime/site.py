"""What one process of bots has open, and who works there, at any time."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from chatbot.bot import Bot
from chatbot.config import Config
from chatbot.runtime.assemble import assemble
from chatbot.runtime.connection import Connection
from chatbot.runtime.observe.tally import Tally
from chatbot.runtime.observe.work import LoggedWork
from chatbot.runtime.plugins import Plugins
from chatbot.service.acs import AcsResource
from chatbot.service.budget import Commons
from chatbot.stores.base import Store

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider


@dataclass(slots=True, kw_only=True)
class Site:
    """The bots of a process, and what they share. Whoever holds its lists sees the present bots.

    Args:
        config: what is in force.
        connection: whose resource it is.
        resource: opened by the caller.
        store: opened by the caller.
        bots: in the order of bots.yaml; those that came later are behind.
        tallies: the counts of each bot, by its name; those of bots that have gone are kept, and gone on with when they
            come again.
        commons: what the bots share: their users, and the quotas of the threads they are in.
        traces: what makes spans of the bots' work, if anybody wants any.
    """

    config: Config
    connection: Connection
    resource: AcsResource
    store: Store
    bots: list[Bot] = field(default_factory=list)
    tallies: dict[str, Tally] = field(default_factory=dict)
    commons: Commons = field(default_factory=Commons)
    traces: TracerProvider | None = None

    async def make(self, config: Config, plugins: Plugins, names: Collection[str] | None = None) -> list[Bot]:
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
            commons=self.commons,
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
        self.commons.users.discard(gone.user)

    def apply(self, config: Config) -> None:
        """Put another configuration in force, as far as bots that stay need not be told."""
        self.config = config
        for bot in self.bots:
            bot.settings = replace(bot.settings, retention=config.retention)
            if isinstance(bot.tracer, LoggedWork):
                bot.tracer.log_texts(config.log.texts)
