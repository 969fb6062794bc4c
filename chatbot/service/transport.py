"""Carries the SDK's requests over one aiohttp session, and reads no more of an answer than fits.

azure-core has a transport of its own, which looks after its session anew for every request, and builds timeouts, a TLS
configuration and an answer that could still be streamed. Our requests differ in nothing of that; what is left below
costs a tenth less of an empty poll, and an answer without end is refused instead of kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import anyio
from azure.core.exceptions import (
    ServiceRequestError,
    ServiceRequestTimeoutError,
    ServiceResponseError,
    ServiceResponseTimeoutError,
)
from azure.core.pipeline.transport import AsyncHttpResponse, AsyncHttpTransport, HttpRequest

MAX_ANSWER_BYTES: Final = 32 * 2**20
"""The largest answer that is read, unpacked. The service's own largest page, 200 messages of 28 KB, is below 6 MiB."""


TIMEOUT_SECONDS: Final = 300.0
"""How long anything may take when a call does not say: azure-core's own default (ConnectionConfiguration)."""


class TooLarge(aiohttp.ClientPayloadError):
    """An answer that does not end where the service's end."""


class WholeResponse(AsyncHttpResponse):
    """An answer in azure-core's shape, wholly in memory.

    Args:
        request: what was asked.
        status: the HTTP status.
        reason: the words beside it.
        headers: looked up in any case of letters.
        body: the content, decompressed.
    """

    def __init__(
        self, request: HttpRequest, status: int, reason: str | None, headers: Mapping[str, str], body: bytes
    ) -> None:
        super().__init__(request, None)
        self.status_code = status
        self.reason = reason
        self.headers = headers  # type: ignore[assignment]  # nobody writes into an answer
        self.content_type = headers.get("content-type")
        self._body = body

    def body(self) -> bytes:
        """The content."""
        return self._body


class OpenTransport(AsyncHttpTransport[HttpRequest, AsyncHttpResponse]):
    """A transport that is open as long as its owner wants: the clients that share it neither open nor close it."""

    async def open(self) -> None:
        """It is open already."""

    async def close(self) -> None:
        """Other clients go on using it."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        return None

    async def sleep(self, duration: float) -> None:
        """Sleep on the event loop's clock, whichever that is, and cancellably; in seconds."""
        await anyio.sleep(duration)


class SessionTransport(OpenTransport):
    """Sends requests over a session that its owner opened and will close.

    Args:
        session: with a cookie jar that keeps nothing, and without automatic content types.
    """

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def send(
        self,
        request: HttpRequest,
        *,
        connection_timeout: float = TIMEOUT_SECONDS,
        read_timeout: float = TIMEOUT_SECONDS,
        total_timeout: float = TIMEOUT_SECONDS,
        proxy: str | None = None,
        **options: Any,
    ) -> AsyncHttpResponse:
        """Send a request and read the whole answer.

        Args:
            request: what to ask.
            connection_timeout, read_timeout, total_timeout: seconds, as `Timeouts` has them.
            proxy: address of the proxy to go through, if any.
            options: of azure-core for transports of other kinds, not needed here.

        Raises:
            ServiceRequestError: nothing came of it, as far as aiohttp can tell.
            ServiceResponseError: the answer broke off, did not come in time, or is too large.
        """
        try:
            async with self._session.request(
                request.method,
                request.url,
                headers=request.headers,
                data=request.data,
                timeout=_timeout(connection_timeout, read_timeout, total_timeout),
                allow_redirects=False,
                proxy=proxy,
            ) as response:
                body = await _whole(response.content)
                return WholeResponse(request, response.status, response.reason, response.headers, body)
        except aiohttp.ClientResponseError as error:
            raise ServiceResponseError(error, error=error) from error
        except aiohttp.ConnectionTimeoutError as error:
            raise ServiceRequestTimeoutError(error, error=error) from error
        except TimeoutError as error:
            raise ServiceResponseTimeoutError(error, error=error) from error
        except aiohttp.ClientError as error:
            raise ServiceRequestError(error, error=error) from error


async def _whole(content: aiohttp.StreamReader) -> bytes:
    """The whole content, unless it is too large: neither what never ends nor what unpacks to gigabytes is kept."""
    piece = await content.readany()
    if content.at_eof():
        return piece
    pieces, size = [piece], len(piece)
    while piece := await content.readany():
        pieces.append(piece)
        size += len(piece)
        if size > MAX_ANSWER_BYTES:
            msg = f"the answer is larger than {MAX_ANSWER_BYTES // 2**20} MiB"
            raise TooLarge(msg)
    return b"".join(pieces)


@lru_cache(maxsize=8)
def _timeout(connect: float, read: float, total: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=total, sock_connect=connect, sock_read=read)
