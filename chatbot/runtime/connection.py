"""The connection to one resource of the chat service, and the users that bots have there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from chatbot.config import BotConfig, Config, EntraConfig, ServiceConfig
from chatbot.errors import ConfigError
from chatbot.model import UserId
from chatbot.runtime.run_directory import RunInfo
from chatbot.service.acs import AcsResource
from chatbot.service.credentials import StaticToken, TokenSource
from chatbot.service.endpoint import ConnectionString, check_endpoint
from chatbot.service.entra import Entra
from chatbot.stores.base import Store
from chatbot.stores.records import BotRecord


@dataclass(frozen=True, slots=True)
class OwnEndpoint:
    """An endpoint of the user's own that gives out tokens.

    Args:
        url: where it is; its query may be secret.
        authorization: what it is shown, if anything.
    """

    url: str = field(repr=False)
    authorization: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Connection:
    """One resource of the service, and how we are let in: by at most one of key, Entra and an endpoint of tokens.

    Args:
        endpoint: where it is, for us.
        resource: what tells it from other resources; stays the same over restarts, even where the port changes.
        access_key: its key.
        connection_string: how others reach it; None where there is no key that could be in one.
        ca_file: the authority that signed its certificate; None if any system knows it.
        is_emulator: it is the one inside the daemon's own process.
        entra: who we are to Microsoft Entra ID.
        token_endpoint: who gives out tokens.
    """

    endpoint: str
    resource: str
    access_key: str | None = field(default=None, repr=False)
    connection_string: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    is_emulator: bool = False
    entra: Entra | None = None
    token_endpoint: OwnEndpoint | None = None

    @classmethod
    def of(cls, config: Config, environ: Mapping[str, str] = os.environ) -> Self:
        """The resource that bots.yaml names.

        Args:
            config: not one of the emulator's.
            environ: where a workload identity finds what it needs.

        Raises:
            ConfigError: it cannot be reached the way that bots.yaml says.
        """
        ca_file = config.directory / config.ca_file if config.ca_file else None
        service = config.service
        if not isinstance(service, ServiceConfig):
            text = service.get_secret_value()
            known = ConnectionString.parse(text)
            return cls(known.endpoint, urlsplit(known.endpoint).netloc, known.access_key, text, ca_file)
        endpoint = check_endpoint(service.endpoint)
        given = service.token_endpoint
        own = None
        if given is not None:
            shown = given.authorization.get_secret_value().strip() if given.authorization else None
            own = OwnEndpoint(given.url.get_secret_value(), shown)
        entra = _entra(config, service.entra, environ) if service.entra else None
        return cls(endpoint, urlsplit(endpoint).netloc, ca_file=ca_file, entra=entra, token_endpoint=own)

    @classmethod
    def to_running(cls, info: RunInfo) -> Self:
        """The resource whose bots run, as their daemon published it: with its key, if it has one."""
        text = info.connection_string
        key = ConnectionString.parse(text).access_key if text else None
        ca_file = Path(info.ca_file) if info.ca_file else None
        return cls(info.endpoint, info.resource, key, text, ca_file)

    @property
    def is_admitted(self) -> bool:
        """Whether we may make users, issue tokens and revoke them."""
        return self.access_key is not None or self.entra is not None

    @property
    def way(self) -> str:
        """How we are let in, in a few words."""
        if self.access_key is not None:
            return "with its access key"
        if self.entra is not None:
            return f"by Microsoft Entra ID ({self.entra.credential})"
        if self.token_endpoint is not None:
            return f"with tokens from {urlsplit(self.token_endpoint.url).netloc}"
        return "with a token for each bot"

    @property
    def remedy(self) -> str:
        """What to do when the service, or whoever gives out tokens, refuses us."""
        if self.access_key is not None:
            return "copy the resource's connection string anew, and check this machine's clock"
        if self.entra is not None:
            where = "docs/how-to/authenticate.md"
            return f"check that this identity has a role on the resource ({where}), and this machine's clock"
        if self.token_endpoint is not None:
            return "ask whoever runs the token endpoint, and check this machine's clock"
        return "get new tokens (`chatbot identity show --token`, run with a key), and check this machine's clock"

    def open(self) -> AcsResource:
        """The resource, to be used as a context manager."""
        ca_file = self.ca_file if self.endpoint.startswith("https:") else None  # our own emulator: plain http
        return AcsResource(self.endpoint, access_key=self.access_key, entra=self.entra, ca_file=ca_file)

    def tokens(self, resource: AcsResource, user: UserId, bot: BotConfig | None = None) -> TokenSource:
        """Where a user's tokens come from.

        Args:
            resource: what `open` gave, opened.
            user: whose tokens.
            bot: what bots.yaml says about the user, if it is a bot: its token, where nobody gives out any.

        Raises:
            ConfigError: nobody gives out tokens of this user.
        """
        if self.token_endpoint is not None:
            own = self.token_endpoint
            return resource.endpoint_tokens(own.url, user, authorization=own.authorization)
        if self.is_admitted:
            return resource.issued_tokens(user)
        if bot is not None and bot.token is not None:
            return StaticToken(bot.token.get_secret_value())
        msg = f"there is no token of {user}, and nothing that gives one out: bots.yaml has only those of its bots"
        raise ConfigError(msg)


def _entra(config: Config, given: EntraConfig, environ: Mapping[str, str]) -> Entra:
    entra = Entra(given.credential, given.client_id)
    try:
        entra.check(environ)
    except ConfigError as error:
        raise ConfigError(config.problem(("service", "entra"), str(error))) from None
    return entra


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
