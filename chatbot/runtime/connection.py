"""The connection to one resource of the chat service, and the users that bots have there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from msgspec import Struct

from chatbot.config import BotConfig, Config, EntraConfig, ServiceConfig
from chatbot.errors import ConfigError
from chatbot.model import UserId
from chatbot.runtime.run_directory import RunInfo
from chatbot.service.acs import AcsResource
from chatbot.service.credentials import StaticToken, TokenSource
from chatbot.service.endpoint import ConnectionString, check_endpoint
from chatbot.service.entra import Entra
from chatbot.service.policies import Permit
from chatbot.stores.base import Store
from chatbot.stores.records import BotRecord


@dataclass(frozen=True, slots=True)
class OwnEndpoint:
    """A token endpoint that the user runs.

    Args:
        url: its query may be secret.
        authorization: the `Authorization` header to send, if any.
    """

    url: str = field(repr=False)
    authorization: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Connection:
    """A resource of the service and how to authenticate: by at most one of key, Entra and token endpoint.

    Args:
        endpoint: the URL that this process uses.
        resource: identifies the resource; stays the same over restarts, even if the port changes.
        access_key: the resource's key.
        connection_string: for other programs; None without a key.
        ca_file: the authority that signed the certificate; None if the system trusts it.
        is_emulator: the resource is the emulator in the daemon's process.
        entra: the credential for Microsoft Entra ID.
        token_endpoint: issues the bots' tokens.
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
        """Return the connection to the resource that bots.yaml names.

        Args:
            config: does not name the emulator.
            environ: holds the settings of a workload identity.

        Raises:
            ConfigError: the settings do not suffice to reach it.
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
        """Return the connection that a running daemon published: with its key, if it has one."""
        text = info.connection_string
        key = ConnectionString.parse(text).access_key if text else None
        ca_file = Path(info.ca_file) if info.ca_file else None
        return cls(info.endpoint, info.resource, key, text, ca_file)

    @property
    def can_issue_tokens(self) -> bool:
        """Whether this connection can create users, and issue and revoke tokens."""
        return self.access_key is not None or self.entra is not None

    @property
    def authentication(self) -> str:
        """How requests are authenticated, in a few words."""
        if self.access_key is not None:
            return "with its access key"
        if self.entra is not None:
            return f"by Microsoft Entra ID ({self.entra.credential})"
        if self.token_endpoint is not None:
            return f"with tokens from {urlsplit(self.token_endpoint.url).netloc}"
        return "with a token for each bot"

    @property
    def remedy(self) -> str:
        """The remedy when the service or the token endpoint refuses access."""
        if self.access_key is not None:
            return "copy the resource's connection string again, and check this machine's clock"
        if self.entra is not None:
            where = "docs/how-to/authenticate.md"
            return f"check that this identity has a role on the resource ({where}), and this machine's clock"
        if self.token_endpoint is not None:
            return "ask the operator of the token endpoint, and check this machine's clock"
        return "get new tokens (`chatbot identity show --token`, run with a key), and check this machine's clock"

    @property
    def trusted_file(self) -> Path | None:
        """The authorities to trust besides the system's; the daemon's own emulator is reached by plain http."""
        return self.ca_file if self.endpoint.startswith("https:") else None

    def open(self, transport: Any = None, permit: Permit | None = None) -> AcsResource:
        """Return the resource, to be used as a context manager.

        Args:
            transport: sends all requests instead of a connection pool; it is not closed by the resource.
            permit: awaited before each request to the chat service.
        """
        return AcsResource(
            self.endpoint,
            access_key=self.access_key,
            entra=self.entra,
            ca_file=self.trusted_file,
            transport=transport,
            permit=permit,
        )

    def tokens(self, resource: AcsResource, user: UserId, bot: BotConfig | None = None) -> TokenSource:
        """Return the source of a user's tokens.

        Args:
            resource: from `open`, entered.
            user: whose tokens.
            bot: the settings of the user, if it is a bot: they may hold its token.

        Raises:
            ConfigError: there is no source of tokens for this user.
        """
        if self.token_endpoint is not None:
            own = self.token_endpoint
            return resource.endpoint_tokens(own.url, user, authorization=own.authorization)
        if self.can_issue_tokens:
            return resource.issued_tokens(user)
        if bot is not None and bot.token is not None:
            return StaticToken(bot.token.get_secret_value())
        msg = f"there is no token for {user} and nothing that issues one: bots.yaml holds only tokens of its bots"
        raise ConfigError(msg)


def _entra(config: Config, given: EntraConfig, environ: Mapping[str, str]) -> Entra:
    entra = Entra(given.credential, given.client_id)
    try:
        entra.check(environ)
    except ConfigError as error:
        raise ConfigError(config.problem(("service", "entra"), str(error))) from None
    return entra


class KnownBot(Struct, frozen=True):
    """A bot of bots.yaml, from its daemon or from the store.

    Args:
        user: None if it has no user yet.
        settings: from bots.yaml; None if only the daemon was asked.
        record: from the store; None if the store was not read, or does not know the bot.
    """

    name: str
    display_name: str
    user: UserId | None
    settings: BotConfig | None = None
    record: BotRecord | None = None


KnownBots = Mapping[str, KnownBot]
"""By name."""


def published_bots(info: RunInfo, settings: Mapping[str, BotConfig]) -> KnownBots:
    """Return the bots of a running daemon.

    Args:
        info: from the daemon's run file.
        settings: of the bots, as far as they are needed.
    """
    return {bot.name: KnownBot(bot.name, bot.display_name, bot.user_id, settings.get(bot.name)) for bot in info.bots}


async def stored_bots(config: Config, connection: Connection, store: Store | None) -> KnownBots:
    """Return the bots of a bots.yaml while no daemon runs them.

    Args:
        store: from `open_between_runs`, not opened yet.

    Raises:
        StoreError: the store cannot be read.
    """
    records: dict[str, BotRecord | None] = {}
    if store is not None:
        async with store:
            records = {name: await store.find_bot(name, connection.resource) for name in config.bots}
    return {name: _known(name, bot, records.get(name)) for name, bot in config.bots.items()}


def _known(name: str, bot: BotConfig, record: BotRecord | None) -> KnownBot:
    user = bot.user or (record.user if record else None)
    return KnownBot(name, bot.display_name or name, user, bot, record)
