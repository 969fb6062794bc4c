"""User access tokens: claims, sources and renewal.

The SDK's aio credential is not used: it blocks the event loop when two callers find an expired token, does not notice
that a token was revoked, and cannot use the results of the identity client (whose expiry is text). There is one source
per user, with one renewal at a time: ahead of expiry while other callers use the old token, and immediately when the
service rejects a token. Nothing here verifies a token.
"""

from __future__ import annotations

import base64
import copy
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

import anyio
import structlog
from azure.core.credentials import AccessToken

from chatbot.errors import ConfigError, ServiceError, Unauthorized
from chatbot.model import UserId


def check_token(token: str, error: type[Exception]) -> str:
    """Check that a token is valid in a header; the error does not show it."""
    if token and token.isascii() and token.isprintable() and " " not in token:
        return token
    msg = f"the access token is not one ({len(token)} characters); expected printable ASCII without spaces"
    raise error(msg)


def read_expiry(token: str) -> int | None:
    """Return the expiry of a JWT in epoch seconds; None if the token is not a JWT or has no expiry."""
    try:
        return int(_claims(token)["exp"])
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


def read_user(token: str) -> UserId | None:
    """Return the user of a token; None if the token is not a JWT or does not name one.

    The service's tokens contain the user as `skypeid` (public reports until 2025); this is not documented.
    """
    known = _claims(token).get("skypeid")
    return UserId(f"8:{known}") if isinstance(known, str) and known.startswith("acs:") else None


def _claims(token: str) -> Mapping[str, Any]:
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


REFRESH_AHEAD_SECONDS: Final = 600.0
"""Tokens are renewed this long before they expire, or when a tenth of their lifetime is left, whichever is later."""

RETRY_SECONDS: Final = 5.0
"""Seconds after a failed renewal until the next one, unless `renew` is called without a rejected token."""

_FOREVER: Final = 253_402_300_799
"""The end of the year 9999, for tokens that do not say when they expire."""

_log = structlog.get_logger(__name__)


class TokenSource(Protocol):
    """The source of one user's access tokens. It can serve the SDK as a credential."""

    async def get_token(self, *scopes: str, **kwargs: Any) -> AccessToken:
        """Return a valid token. The arguments exist for azure-core's credential protocol and are not used.

        Raises:
            ServiceError: there is no token, and none can be obtained.
        """
        ...

    async def renew(self, rejected: str | None = None) -> None:
        """Get a new token, regardless of the old one's expiry.

        Args:
            rejected: the token that the service rejected; nothing is done if another one is already in use. None
                always renews.

        Raises:
            ServiceError: none can be obtained.
        """
        ...

    async def close(self) -> None:
        """Drop the token; the source cannot be used afterwards."""
        ...


class RenewingTokens:
    """Tokens from a callable, renewed ahead of expiry, one renewal at a time.

    While a token is still valid, one caller renews it and the others continue to use it. If that renewal fails, it is
    logged once and retried later. Without a valid token, all callers wait for one renewal and share its failure.

    Args:
        mint: gets a new token; raises a `ServiceError` if it cannot.
        name: the user, for logs and errors.
        clock: epoch seconds.
    """

    def __init__(
        self, mint: Callable[[], Awaitable[AccessToken]], *, name: str, clock: Callable[[], float] = time.time
    ):
        self._mint = mint
        self._name = name
        self._clock = clock
        self._lock = anyio.Lock()
        self._token: AccessToken | None = None
        self._renew_at = 0.0
        self._attempts = 0
        self._failure: ServiceError | None = None
        self._failed_at = 0.0
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._name}>"

    async def get_token(self, *scopes: str, **kwargs: Any) -> AccessToken:
        """Return a token that is valid now; get a new one if necessary."""
        now = self._clock()
        token = self._token
        if token is not None and now < self._renew_at:
            return token
        if token is not None and now < token.expires_on and (self._lock.statistics().locked or self._is_pausing()):
            return token
        attempts = self._attempts
        async with self._lock:
            if self._token is None or self._clock() >= self._renew_at:
                await self._attempt_unless(attempts)
            return self._usable()

    async def renew(self, rejected: str | None = None) -> None:
        """Get a new token, unless the rejected one is no longer in use."""
        attempts = self._attempts
        async with self._lock:
            if rejected is None:
                self._failure = None
            elif self._token is not None and self._token.token != rejected:
                return
            await self._attempt_unless(attempts if rejected is not None else self._attempts)
            if self._failure is not None:
                raise copy.copy(self._failure)

    async def close(self) -> None:
        """Drop the token and get no further ones."""
        self._token, self._renew_at, self._is_closed = None, 0.0, True

    async def _attempt_unless(self, attempts: int) -> None:
        """Get a token unless another caller did meanwhile or a failure is too recent. The caller must hold the lock."""
        if self._is_closed or self._attempts != attempts or self._is_pausing():
            return
        try:
            token = await self._mint()
        except ServiceError as error:
            self._note_failure(error)
        else:
            self._keep(token)
        self._attempts += 1

    def _is_pausing(self) -> bool:
        return self._failure is not None and self._failed_at <= self._clock() < self._failed_at + RETRY_SECONDS

    def _keep(self, token: AccessToken) -> None:
        now = self._clock()
        ahead = min(REFRESH_AHEAD_SECONDS, (token.expires_on - now) / 10)
        # If this machine's clock is ahead, a new token already looks expired. It must not be renewed on every call.
        self._renew_at = max(token.expires_on - ahead, now + RETRY_SECONDS)
        self._token = token
        if self._failure is not None:
            _log.info("token.renewed", user=self._name)
        self._failure = None

    def _note_failure(self, error: ServiceError) -> None:
        if self._failure is None:
            _log.warning("token.renewal_failed", user=self._name, error=error, is_valid=self._is_valid())
        self._failure, self._failed_at = error, self._clock()

    def _is_valid(self) -> bool:
        return self._token is not None and self._clock() < max(self._token.expires_on, self._renew_at)

    def _usable(self) -> AccessToken:
        if self._token is not None and (self._failure is None or self._is_valid()):
            return self._token
        if self._failure is not None:
            raise copy.copy(self._failure)
        msg = f"there is no token of {self._name} any more: its source was closed"
        raise Unauthorized(msg)


class StaticToken:
    """A fixed token that cannot be renewed.

    Args:
        token: a user access token issued by the identity service or the Azure portal.
        clock: epoch seconds.

    Raises:
        ConfigError: the value is not a token.
    """

    def __init__(self, token: str, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._token = AccessToken(check_token(token.strip(), ConfigError), read_expiry(token.strip()) or _FOREVER)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} that expires at {self._token.expires_on}>"

    async def get_token(self, *scopes: str, **kwargs: Any) -> AccessToken:
        """Return the token.

        Raises:
            Unauthorized: the token has expired.
        """
        if self._clock() >= self._token.expires_on:
            moment = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(self._token.expires_on))
            msg = f"the access token expired at {moment} and cannot be renewed: configure a new one"
            raise Unauthorized(msg)
        return self._token

    async def renew(self, rejected: str | None = None) -> None:
        """Raise an error, because the token cannot be renewed.

        Raises:
            Unauthorized: always.
        """
        msg = "the access token was given as it is and cannot be renewed: configure a new one"
        raise Unauthorized(msg)

    async def close(self) -> None:
        """Do nothing."""
