"""Identities of a resource: users and their tokens, through the official identity client.

The client uses the SDK's own pipeline, because only that one signs with the access key, but without retries and
redirects. These calls are rare: the service allows 1000 creations and tokens and 500 deletions per 30 s and resource.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import anyio
from azure.communication.identity import CommunicationUserIdentifier
from azure.communication.identity.aio import CommunicationIdentityClient
from azure.core.credentials import AccessToken, AzureKeyCredential
from azure.core.exceptions import AzureError
from azure.core.pipeline.transport import AsyncHttpTransport

from chatbot.errors import ProtocolError
from chatbot.model import UserId
from chatbot.service import arguments, failures
from chatbot.service.entra import EntraCredential
from chatbot.service.policies import Timeouts
from chatbot.service.token_endpoint import read_token


class Identities:
    """Creates and deletes users of a resource, and issues and revokes their tokens.

    Args:
        endpoint: the resource's endpoint.
        credential: the resource's access key, or a credential of Microsoft Entra ID.
        transport: sends the requests; it is not closed here.
        user_agent: the prefix of the SDK's own user agent.
        timeouts: the time limits of a call.
        proxy: the address of the proxy, if any.
        clock: returns epoch seconds.
    """

    def __init__(
        self,
        endpoint: str,
        credential: AzureKeyCredential | EntraCredential,
        transport: AsyncHttpTransport[Any, Any],
        *,
        user_agent: str,
        timeouts: Timeouts,
        proxy: str | None,
        clock: Callable[[], float],
    ) -> None:
        self._client = CommunicationIdentityClient(
            endpoint,
            cast(Any, credential),
            transport=transport,
            retry_total=0,
            permit_redirects=False,
            user_agent=user_agent,
        )
        self._options = timeouts.options(proxy)
        if isinstance(credential, EntraCredential) and endpoint.startswith("http:"):  # this machine's emulator
            self._options["enforce_https"] = False
        self._total_seconds = timeouts.total
        self._clock = clock

    async def create_user(self) -> UserId:
        """Create an identity (POST /identities)."""
        async with self._calling("create a user"):
            user = await self._client.create_user(**self._options)
            return UserId(_filled(user.raw_id))

    async def issue_token(self, user: UserId, *, scopes: Sequence[str], lifetime: timedelta | None) -> AccessToken:
        """Issue an access token (POST /identities/{id}/:issueAccessToken)."""
        operation = f"issue a token of {user}"
        known = _known(user, operation)
        async with self._calling(operation):
            issued: Any = await self._client.get_token(known, list(scopes), token_expires_in=lifetime, **self._options)
            # The SDK declares a number here, but returns the service's text.
            return read_token({"token": issued.token, "expiresOn": issued.expires_on})

    async def revoke_tokens(self, user: UserId) -> None:
        """Revoke all tokens of a user (POST /identities/{id}/:revokeAccessTokens)."""
        operation = f"revoke the tokens of {user}"
        known = _known(user, operation)
        async with self._calling(operation):
            await self._client.revoke_tokens(known, **self._options)

    async def delete_user(self, user: UserId) -> None:
        """Delete an identity (DELETE /identities/{id})."""
        operation = f"delete user {user}"
        known = _known(user, operation)
        async with self._calling(operation):
            await self._client.delete_user(known, **self._options)

    @asynccontextmanager
    async def _calling(self, operation: str) -> AsyncIterator[None]:
        """Limit the time of a call, and convert its failures to `ServiceError`s."""
        try:
            with anyio.fail_after(self._total_seconds):
                yield
        except AzureError as error:
            raise failures.from_azure(operation, error, datetime.fromtimestamp(self._clock(), UTC)) from error
        except (TimeoutError, OSError) as error:
            raise failures.from_exception(operation, error) from error
        except (ValueError, TypeError, AttributeError, KeyError, ProtocolError) as error:
            # The SDK decodes these responses itself, and raises such errors for unexpected shapes.
            reason = failures.clean(str(error))
            msg = f"cannot {operation}: the identity service's answer breaks its protocol ({reason})"
            raise ProtocolError(msg) from error


def _known(user: UserId, operation: str) -> CommunicationUserIdentifier:
    return CommunicationUserIdentifier(arguments.segment(user, "user id", operation))


def _filled(raw_id: Any) -> str:
    if isinstance(raw_id, str) and raw_id:
        return raw_id
    msg = f"expected a user id, found {type(raw_id).__name__}"
    raise ProtocolError(msg)
