"""Passwords of databases that expire: tokens of Microsoft Entra ID, as Azure's PostgreSQL takes them.

This package knows no service that issues them. Whoever starts the process names a source (`use_token_source`).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from chatbot.errors import ConfigError

MARGIN_SECONDS: Final = 300.0
"""How long before it expires a token is replaced."""

CREDENTIALS: Final = ("default", "managed-identity", "workload-identity", "cli")
"""How this process may prove who it is, as for the chat service."""


class DatabaseToken(NamedTuple):
    """A token, and when it expires, epoch seconds."""

    text: str
    expires: float


TokenSource = Callable[[str, str | None], Awaitable[DatabaseToken]]
"""Issues a token for a database. Args: one of `CREDENTIALS`, and the client id if there are several identities."""

_sources: list[TokenSource] = []


def use_token_source(source: TokenSource) -> None:
    """Set where all stores of this process get their tokens."""
    _sources[:] = [source]


class TokenPassword:
    """A password that is asked for whenever a connection is opened, and is a token that has not expired.

    Args:
        credential: one of `CREDENTIALS`.
        client_id: the client id of a user-assigned identity.
    """

    def __init__(self, credential: str, client_id: str | None) -> None:
        self._credential = credential
        self._client_id = client_id
        self._token = DatabaseToken("", 0)

    async def __call__(self) -> str:
        """Return the password.

        Raises:
            ConfigError: this process has no source of tokens.
            ChatbotError: no token is issued; the text says why.
        """
        if self._token.expires - time.time() < MARGIN_SECONDS:
            if not _sources:
                msg = "auth=entra in the URL of the store needs a source of tokens: see use_token_source"
                raise ConfigError(msg)
            self._token = await _sources[0](self._credential, self._client_id)
        return self._token.text
