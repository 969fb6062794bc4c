"""Tokens from the operator's own HTTP endpoint, so that a bot needs no access key of the resource.

The request is a `POST` to the configured address with `Content-Type: application/json` and, if configured, an
`Authorization` header, which is sent unchanged:

    {"user": "8:acs:…", "scopes": ["chat"]}

The response is 200 with

    {"token": "eyJ…", "expiresOn": "2030-01-31T12:00:00Z"}

where `expiresOn` is an ISO 8601 time, or epoch seconds as a number. It may be omitted if the token is a JWT with an
expiry. The names are those of the identity service's `:issueAccessToken`, so that an endpoint can forward its response.
401 and 403 mean that the bot is not allowed to get tokens; 429 (with `Retry-After`) and 5xx mean that it should retry
later. https is required, except to this machine. Redirects are not followed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from azure.core.credentials import AccessToken
from azure.core.exceptions import AzureError
from azure.core.pipeline.transport import AsyncHttpTransport, HttpRequest

from chatbot.errors import ProtocolError
from chatbot.model import UserId
from chatbot.service import failures, translate, wire
from chatbot.service.credentials import check_token, read_expiry
from chatbot.service.endpoint import check_token_endpoint
from chatbot.service.policies import Timeouts
from chatbot.service.transport import proxy_for


class TokenEndpoint:
    """Gets one user's tokens from an endpoint; `mint` is for `RenewingTokens`.

    Args:
        url: the address of the endpoint; https, or http to this machine.
        user: the user of the tokens.
        transport: sends the request.
        scopes: the permissions of the tokens.
        authorization: the value of the `Authorization` header, such as "Bearer …"; None sends none.
        timeouts: the time limits of the request.
        clock: returns epoch seconds.

    Raises:
        ConfigError: the address is invalid.
    """

    def __init__(
        self,
        url: str,
        user: UserId,
        transport: AsyncHttpTransport[Any, Any],
        *,
        scopes: Sequence[str],
        authorization: str | None,
        timeouts: Timeouts,
        clock: Callable[[], float],
    ) -> None:
        self._url = check_token_endpoint(url)
        self._host = urlsplit(self._url).netloc
        self._user = user
        self._transport = transport
        self._scopes = tuple(scopes)
        self._authorization = authorization
        self._options = timeouts.options(proxy_for(self._url))
        self._clock = clock

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self._host} for {self._user}>"

    async def mint(self) -> AccessToken:
        """Request a token.

        Raises:
            ServiceError: the endpoint did not issue a token.
        """
        operation = f"get a token of {self._user} from {self._host}"
        response = await self._ask(operation)
        text = response.body().decode("utf-8-sig", "replace")
        if response.status_code != 200:
            now = datetime.fromtimestamp(self._clock(), UTC)
            raise failures.from_status(operation, response.status_code, response.headers, text, now)
        try:
            return read_token(wire.read_object(text))
        except ProtocolError as error:
            msg = f"cannot {operation}: {error}"
            raise ProtocolError(msg) from error

    async def _ask(self, operation: str) -> Any:
        body = json.dumps({"user": self._user, "scopes": self._scopes})
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._authorization is not None:
            headers["Authorization"] = self._authorization
        try:
            return await self._transport.send(HttpRequest("POST", self._url, headers, data=body), **self._options)
        except (AzureError, TimeoutError, OSError) as error:
            raise failures.from_exception(operation, error) from error


def read_token(body: Mapping[str, Any]) -> AccessToken:
    """Parse `{"token", "expiresOn"}`.

    Raises:
        ProtocolError: the token or the expiry is missing.
    """
    token, expires = body.get("token"), body.get("expiresOn")
    if not isinstance(token, str):
        msg = 'the answer has no "token"; expected {"token": "…", "expiresOn": "…"}'
        raise ProtocolError(msg)
    check_token(token, ProtocolError)
    if isinstance(expires, int | float) and not isinstance(expires, bool):
        return AccessToken(token, int(expires))
    if expires is not None:
        return AccessToken(token, int(translate.time(str(expires), "expiresOn").timestamp()))
    known = read_expiry(token)
    if known is None:
        msg = 'the answer has no "expiresOn", and the token does not say when it expires either'
        raise ProtocolError(msg)
    return AccessToken(token, known)
