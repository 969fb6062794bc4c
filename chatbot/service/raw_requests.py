"""Requests that the SDK cannot send or whose responses it hides: malformed values, other versions, exact headers.

`chatbot doctor --probe` needs them; bots never do. A response of any status is a result, not an error. Nothing is
repeated. Identity requests are signed with the access key (HMAC-SHA256 as in the SDK) or carry a token of Entra ID.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from azure.core.exceptions import AzureError
from azure.core.pipeline.transport import AsyncHttpResponse, AsyncHttpTransport, HttpRequest
from msgspec import Struct

from chatbot.errors import ConfigError
from chatbot.service import failures
from chatbot.service.entra import EntraCredential
from chatbot.service.policies import Timeouts
from chatbot.service.transport import OpenTransport

_ENTRA_SCOPE: Final = "https://communication.azure.com//.default"
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class RawResponse(Struct, frozen=True):
    """A response as it came.

    Args:
        status: the HTTP status.
        headers: by lower-case name.
        body: the content.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        """Return the body as an object; an empty one if it is anything else."""
        try:
            value = json.loads(self.body.decode("utf-8-sig"))
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    @property
    def envelope(self) -> str:
        """Return the name of the object around an error (`CommunicationError`, `error`, …); empty if there is none."""
        names = [name for name, value in self.json.items() if isinstance(value, dict)]
        return names[0] if self.status >= 400 and len(names) == 1 else ""

    @property
    def code(self) -> str:
        """Return the error code, in either envelope."""
        error = self.json.get(self.envelope, {})
        return str(error.get("Code") or error.get("code") or "")

    @property
    def message(self) -> str | None:
        """Return the text of an error; None if it has none."""
        error = self.json.get(self.envelope, {})
        text = error.get("Message", error.get("message"))
        return text if isinstance(text, str) else None


class RawRequests:
    """Sends requests to one resource.

    Args:
        endpoint: scheme, host and port.
        transport: sends the requests; it is not closed here.
        key: the access key in base64; None to use Entra ID.
        entra: the credential of Entra ID.
        timeouts: the time limits of a request.
        proxy: the address of the proxy, if any.
        clock: returns epoch seconds.
    """

    def __init__(
        self,
        endpoint: str,
        transport: AsyncHttpTransport[Any, Any],
        *,
        key: str | None,
        entra: EntraCredential | None,
        timeouts: Timeouts,
        proxy: str | None,
        clock: Callable[[], float],
    ) -> None:
        self._endpoint = endpoint
        self._transport = transport
        self._key = key
        self._entra = entra
        self._options = timeouts.options(proxy)
        self._clock = clock

    @property
    def is_signed(self) -> bool:
        """Return whether identity requests are signed with the access key."""
        return self._key is not None

    async def chat(
        self,
        method: str,
        target: str,
        token: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> RawResponse:
        """Send a chat request.

        Args:
            method: the HTTP method.
            target: path and query, percent-encoded.
            token: the user's access token; any text.
            body: JSON.
            headers: further headers.

        Raises:
            ServiceError: there was no response.
        """
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        content = b"" if body is None else json.dumps(body).encode()
        known = {"Authorization": f"Bearer {token}", **({} if body is None else {"Content-Type": kind})}
        return await self._send(method, target, content, {**known, **(headers or {})})

    async def identity(
        self, method: str, target: str, body: Mapping[str, Any] | None = None, *, signed_at: float | None = None
    ) -> RawResponse:
        """Send an identity request.

        Args:
            method: the HTTP method.
            target: path and query.
            body: JSON.
            signed_at: the time to sign, in epoch seconds; now by default.

        Raises:
            ServiceError: there was no response.
            ConfigError: there is neither an access key nor a credential.
        """
        content = b"" if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        if self._key is not None:
            headers |= self._signature(method, target, content, self._clock() if signed_at is None else signed_at)
        elif self._entra is not None:
            headers["Authorization"] = f"Bearer {(await self._entra.get_token(_ENTRA_SCOPE)).token}"
        else:
            msg = f"users of {self._endpoint} cannot be created without its access key or Microsoft Entra ID"
            raise ConfigError(msg)
        return await self._send(method, target, content, headers)

    def _signature(self, method: str, target: str, content: bytes, now: float) -> dict[str, str]:
        """Return the headers that sign a request: the decoded path and query, time, host, and hash of the content."""
        date = _http_date(now)
        digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
        text = f"{method}\n{unquote(target)}\n{date};{urlsplit(self._endpoint).netloc};{digest}"
        made = hmac.digest(base64.b64decode(self._key or ""), text.encode(), "sha256")
        signature = base64.b64encode(made).decode()
        return {
            "x-ms-date": date,
            "x-ms-content-sha256": digest,
            "x-ms-return-client-request-id": "true",
            "Authorization": (f"HMAC-SHA256 SignedHeaders=x-ms-date;host;x-ms-content-sha256&Signature={signature}"),
        }

    async def _send(self, method: str, target: str, content: bytes, headers: Mapping[str, str]) -> RawResponse:
        request = HttpRequest(method, f"{self._endpoint}{target}", headers=dict(headers))
        if content:
            request.set_bytes_body(content)
        try:
            response = await self._transport.send(request, **self._options)
        except (AzureError, TimeoutError, OSError) as error:
            operation = f"{method} {urlsplit(target).path}"
            raise failures.from_exception(operation, error) from error
        found = {str(name).lower(): str(value) for name, value in response.headers.items()}
        return RawResponse(response.status_code, found, response.body())


class MeteredTransport(OpenTransport):
    """A transport that asks before each request whether it may be sent.

    Args:
        transport: sends the requests; it is not closed here.
        before: called before each request; what it raises keeps the request from being sent.
    """

    def __init__(self, transport: AsyncHttpTransport[Any, Any], before: Callable[[], None]) -> None:
        self._transport = transport
        self._before = before

    async def send(self, request: HttpRequest, **options: Any) -> AsyncHttpResponse:
        """Send a request, unless `before` raises."""
        self._before()
        response: AsyncHttpResponse = await self._transport.send(request, **options)
        return response


def _http_date(seconds: float) -> str:
    """Return an RFC 9110 date, independent of the locale."""
    moment = time.gmtime(seconds)
    day, month = _DAYS[moment.tm_wday], _MONTHS[moment.tm_mon - 1]
    return f"{day}, {moment.tm_mday:02d} {month} {moment.tm_year:04d} {time.strftime('%H:%M:%S', moment)} GMT"
