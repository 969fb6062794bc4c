"""Who the bots of a bots.yaml are on the service: as their daemon says, else as the file and the store do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from chatbot.config import BotConfig, Config
from chatbot.model import UserId
from chatbot.runtime.connection import Connection
from chatbot.runtime.control import RunInfo
from chatbot.stores.base import BotRecord, Store


@dataclass(frozen=True, slots=True)
class KnownBot:
    """A bot of bots.yaml.

    Args:
        name: in bots.yaml.
        display_name: as people see it.
        user: its user; None where it has none yet.
        settings: what bots.yaml says; None where only its daemon was asked.
        record: what the store remembers; None where the store was not asked, or knows nothing.
    """

    name: str
    display_name: str
    user: UserId | None
    settings: BotConfig | None = None
    record: BotRecord | None = None


KnownBots = Mapping[str, KnownBot]
"""By name."""


def published(info: RunInfo, settings: Mapping[str, BotConfig]) -> KnownBots:
    """The bots of a running daemon.

    Args:
        info: what it published.
        settings: of the bots, as far as they are needed.
    """
    return {bot.name: KnownBot(bot.name, bot.display_name, bot.user_id, settings.get(bot.name)) for bot in info.bots}


async def remembered(config: Config, connection: Connection, store: Store | None) -> KnownBots:
    """The bots of a bots.yaml that nothing runs.

    Args:
        store: from `visit_store`, not opened yet.

    Raises:
        StoreError: it cannot be read.
    """
    records: dict[str, BotRecord | None] = {}
    if store is not None:
        async with store:
            records = {name: await store.find_bot(name, connection.resource) for name in config.bots}
    return {name: _known(name, bot, records.get(name)) for name, bot in config.bots.items()}


def _known(name: str, bot: BotConfig, record: BotRecord | None) -> KnownBot:
    user = bot.user or (record.user if record else None)
    return KnownBot(name, bot.display_name or name, user, bot, record)
