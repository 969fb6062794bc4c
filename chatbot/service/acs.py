"""A Communication Services resource: the connection pool shared by its users, and their identities.

It is opened once per process and endpoint, with one connection pool, one TLS context and one identity client. `chat`
returns the view of one user over the shared pool. Tests pass an in-process transport.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import anyio.to_thread
from azure.communication.chat import __version__ as chat_sdk_version
from azure.core.credentials import AccessToken, AzureKeyCredential
from azure.core.pipeline import AsyncPipeline
from azure.core.pipeline.policies import UserAgentPolicy
from azure.core.pipeline.transport import AsyncHttpResponse, AsyncHttpTransport, HttpRequest

from chatbot.distribution import version
from chatbot.errors import ConfigError, StateError
from chatbot.model import UserId
from chatbot.service.base import ChatService
from chatbot.service.chat import AcsChatService
from chatbot.service.credentials import RenewingTokens, TokenSource
from chatbot.service.endpoint import ConnectionString, check_access_key, check_endpoint
from chatbot.service.entra import Entra, EntraCredential
from chatbot.service.identities import Identities
from chatbot.service.policies import ChatPolicy, Permit, Timeouts
from chatbot.service.raw_requests import RawRequests
from chatbot.service.token_endpoint import TokenEndpoint
from chatbot.service.transport import open_transport, proxy_for

CHAT: Final = ("chat",)
"""The token scope that a bot needs: all operations on threads, including creation and deletion."""

_USER_AGENT: Final = f"chatbot/{version()}"
_DEFAULT_TIMEOUTS: Final = Timeouts()


class AcsResource:
    """A Communication Services resource; an async context manager.

    Args:
        endpoint: `https://NAME.communication.azure.com`; http is accepted for this machine only.
        access_key: the resource's key; without it and `entra`, users and tokens must be supplied otherwise.
        entra: the identity in Microsoft Entra ID, instead of a key.
        ca_file: a PEM file of certificate authorities to trust in addition to the system's.
        transport: sends all requests instead of a connection pool; the resource does not close it.
        timeouts: the time limits of a call.
        clock: returns epoch seconds.
        permit: awaited before each request to the chat service.

    Raises:
        ConfigError: endpoint or key cannot be used; the message does not show the key.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        access_key: str | None = None,
        entra: Entra | None = None,
        ca_file: Path | None = None,
        transport: AsyncHttpTransport[Any, Any] | None = None,
        timeouts: Timeouts = _DEFAULT_TIMEOUTS,
        clock: Callable[[], float] = time.time,
        permit: Permit | None = None,
    ) -> None:
        self._permit = permit
        self._endpoint = check_endpoint(endpoint)
        self._key = AzureKeyCredential(check_access_key(access_key)) if access_key is not None else None
        self._entra = entra
        self._ca_file = ca_file
        self._given_transport = transport
        self._timeouts = timeouts
        self._clock = clock
        self._proxy = proxy_for(self._endpoint)
        self._opened = AsyncExitStack()
        self._transport: AsyncHttpTransport[Any, Any] | None = None
        self._identities: Identities | None = None
        self._entra_credential: EntraCredential | None = None

    @classmethod
    def from_connection_string(
        cls,
        text: str,
        *,
        ca_file: Path | None = None,
        transport: AsyncHttpTransport[Any, Any] | None = None,
        timeouts: Timeouts = _DEFAULT_TIMEOUTS,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Create a resource from `endpoint=…;accesskey=…`.

        Raises:
            ConfigError: a part is missing or cannot be used; the message does not show the key.
        """
        known = ConnectionString.parse(text)
        return cls(
            known.endpoint,
            access_key=known.access_key,
            ca_file=ca_file,
            transport=transport,
            timeouts=timeouts,
            clock=clock,
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._endpoint}>"

    @property
    def endpoint(self) -> str:
        """Scheme, host and port."""
        return self._endpoint

    async def __aenter__(self) -> Self:
        # The SDK's user agent includes the platform. Python runs a subprocess to find it, once per process; do this in
        # a thread, so that the SDK does not block the event loop later.
        await anyio.to_thread.run_sync(platform.platform)
        async with AsyncExitStack() as opening:
            transport = self._given_transport
            if transport is None:
                transport = await opening.enter_async_context(open_transport(self._ca_file))
            credential: AzureKeyCredential | EntraCredential | None = self._key
            if self._entra is not None:
                credential = self._entra_credential = await opening.enter_async_context(self._entra.open(self._ca_file))
            if credential is not None:
                self._identities = self._open_identities(credential, transport)
            self._opened = opening.pop_all()
        self._transport = transport
        return self

    def _open_identities(
        self, credential: AzureKeyCredential | EntraCredential, transport: AsyncHttpTransport[Any, Any]
    ) -> Identities:
        return Identities(
            self._endpoint,
            credential,
            transport,
            user_agent=_USER_AGENT,
            timeouts=self._timeouts,
            proxy=self._proxy,
            clock=self._clock,
        )

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._transport = self._identities = self._entra_credential = None
        await self._opened.aclose()

    # Identities

    async def create_user(self) -> UserId:
        """Create a user (an identity of the resource)."""
        return await self._identities_for("create a user").create_user()

    async def issue_token(
        self, user: UserId, *, scopes: Sequence[str] = CHAT, lifetime: timedelta | None = None
    ) -> AccessToken:
        """Issue an access token.

        Args:
            user: the user of the token.
            scopes: the permissions of the token.
            lifetime: 60 minutes to 24 hours; None is the service's default of 24 hours.
        """
        return await self._identities_for(f"issue a token of {user}").issue_token(
            user, scopes=scopes, lifetime=lifetime
        )

    async def revoke_tokens(self, user: UserId) -> None:
        """Revoke all tokens of a user; the service may accept them for up to 15 minutes more (Azure documentation)."""
        await self._identities_for(f"revoke the tokens of {user}").revoke_tokens(user)

    async def delete_user(self, user: UserId) -> None:
        """Delete a user permanently, and remove it from all its threads."""
        await self._identities_for(f"delete user {user}").delete_user(user)

    # Tokens and chat

    def issued_tokens(self, user: UserId, *, lifetime: timedelta | None = None) -> RenewingTokens:
        """Return a user's tokens, issued by this resource; it needs the access key or a role in Entra ID.

        Args:
            user: the user of the tokens.
            lifetime: the lifetime of each token, 60 minutes to 24 hours; None is the service's default of 24 hours.
        """

        async def mint() -> AccessToken:
            return await self.issue_token(user, lifetime=lifetime)

        return RenewingTokens(mint, name=user, clock=self._clock)

    def endpoint_tokens(self, url: str, user: UserId, *, authorization: str | None = None) -> RenewingTokens:
        """Return a user's tokens from a token endpoint; see `token_endpoint` for its contract.

        Args:
            url: the address of the endpoint; https, or http to this machine.
            user: the user of the tokens.
            authorization: the `Authorization` header to send.

        Raises:
            ConfigError: the address is invalid.
        """
        endpoint = TokenEndpoint(
            url,
            user,
            self._open_transport(),
            scopes=CHAT,
            authorization=authorization,
            timeouts=self._timeouts,
            clock=self._clock,
        )
        return RenewingTokens(endpoint.mint, name=user, clock=self._clock)

    def chat(self, user: UserId, tokens: TokenSource) -> ChatService:
        """Return one user's view of the chat, over the shared connection pool.

        Args:
            user: the user.
            tokens: the user's tokens.
        """
        sdk = UserAgentPolicy(user_agent=_USER_AGENT, sdk_moniker=f"communication-chat/{chat_sdk_version}")
        policy = ChatPolicy(
            self._endpoint,
            tokens,
            user_agent=sdk.user_agent,
            timeouts=self._timeouts,
            proxy=self._proxy,
            clock=self._clock,
            permit=self._permit,
        )
        pipeline = AsyncPipeline[HttpRequest, AsyncHttpResponse](self._open_transport(), [policy])
        return AcsChatService(user, self._endpoint, tokens, pipeline)

    def raw_requests(self) -> RawRequests:
        """Return what sends requests that the SDK cannot send."""
        return RawRequests(
            self._endpoint,
            self._open_transport(),
            key=None if self._key is None else self._key.key,
            entra=self._entra_credential,
            timeouts=self._timeouts,
            proxy=self._proxy,
            clock=self._clock,
        )

    def _open_transport(self) -> AsyncHttpTransport[Any, Any]:
        if self._transport is None:
            msg = f"{self!r} is not open: use it inside `async with`"
            raise StateError(msg)
        return self._transport

    def _identities_for(self, operation: str) -> Identities:
        self._open_transport()
        if self._identities is None:
            msg = (
                f"cannot {operation}: that needs the access key of {self._endpoint}, or Microsoft Entra ID, "
                "and neither was given"
            )
            raise ConfigError(msg)
        return self._identities
