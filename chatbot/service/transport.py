"""The HTTP transport: one connection pool, one TLS context, and the proxy from the environment.

All of these are set up once, when a resource is opened. By default, azure-core and aiohttp read proxies and netrc for
every request, and build a TLS context per request if there is a CA file. azure-core's own transport also builds a
session check, timeouts and a streaming response for every request. None of these differ between requests here. This
transport makes an empty poll 10 % cheaper, and it rejects endless responses.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, getproxies_environment, proxy_bypass

import aiohttp
import anyio
import anyio.to_thread
from azure.core.exceptions import (
    AzureError,
    ServiceRequestError,
    ServiceRequestTimeoutError,
    ServiceResponseError,
    ServiceResponseTimeoutError,
)
from azure.core.pipeline.transport import AsyncHttpResponse, AsyncHttpTransport, HttpRequest
from yarl import URL

from chatbot.errors import ConfigError
from chatbot.service.endpoint import is_loopback
from chatbot.standard_streams import open_socket

MAX_CONNECTIONS: Final = 100
"""The maximum number of open connections; further requests wait for a free one."""


@asynccontextmanager
async def open_transport(ca_file: Path | None) -> AsyncIterator[AsyncHttpTransport[Any, Any]]:
    """Open the connection pool shared by all clients, and close it on exit.

    Args:
        ca_file: a PEM file of certificate authorities to trust in addition to the system's (and `SSL_CERT_FILE`).

    Raises:
        ConfigError: the file cannot be read or is invalid.
    """
    # True is aiohttp's own context, which it has built already: another one would take 1 MB and 20 ms.
    context = True if ca_file is None else await anyio.to_thread.run_sync(tls_context, ca_file)
    connector = aiohttp.TCPConnector(ssl=context, limit=MAX_CONNECTIONS, socket_factory=open_socket)
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    ) as session:
        yield SessionTransport(session)


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Build a TLS context that trusts the system's authorities and those of `ca_file`."""
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError) as error:
            msg = f"the ca_file {ca_file} cannot be used ({error}); expected a PEM file of certificates"
            raise ConfigError(msg) from error
    return context


def proxy_for(address: str) -> str | None:
    """Return the proxy for an address from the current environment; addresses of this machine have none.

    `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` are read in upper or lower case. `NO_PROXY` contains `*`, or
    names (`example.com` and `.example.com` match the name and its subdomains, `*.example.com` only the subdomains),
    addresses and networks (`10.0.0.0/8`), separated by commas or blanks. A port limits an entry to that port.

    Raises:
        ConfigError: the environment names a proxy of an unsupported kind.
    """
    url = urlsplit(address)
    if is_loopback(url.hostname or "") or _bypasses_proxy(url):
        return None
    proxies = getproxies()
    proxy = (proxies.get(url.scheme) or proxies.get("all") or "").strip()
    if not proxy:
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if urlsplit(proxy).scheme not in ("http", "https"):
        msg = (
            f"the environment's proxy for {address} is a {urlsplit(proxy).scheme} proxy; only http proxies can be used"
        )
        raise ConfigError(msg)
    return proxy


def _bypasses_proxy(url: SplitResult) -> bool:
    """Return whether an address bypasses the proxy, according to the environment or else to the system settings."""
    proxies = getproxies_environment()
    if not proxies:
        return bool(proxy_bypass(url.netloc))
    port = url.port or {"https": 443, "http": 80}.get(url.scheme)
    exceptions = re.split(r"[,\s]+", proxies.get("no", ""))
    return any(_matches(exception, url.hostname or "", port) for exception in exceptions if exception)


def _matches(exception: str, host: str, port: int | None) -> bool:
    """Return whether an entry of `NO_PROXY` matches a host and port."""
    if exception == "*":
        return True
    name, wanted = _split_port(exception.lower())
    if wanted is not None and wanted != port:
        return False
    host = host.rstrip(".")
    try:
        return ip_address(host) in ip_network(name, strict=False)
    except ValueError:  # one of them is a name, not an address
        pass
    below = name.removeprefix("*").removeprefix(".").rstrip(".")
    return bool(below) and (host.endswith(f".{below}") or (host == below and not name.startswith("*")))


def _split_port(exception: str) -> tuple[str, int | None]:
    """Split an entry of `NO_PROXY` into name or address, and port if it has one."""
    bracketed = re.fullmatch(r"\[([^\]]*)\](?::([0-9]+))?", exception)
    if bracketed is not None:
        return bracketed[1], int(bracketed[2]) if bracketed[2] else None
    name, colon, port = exception.rpartition(":")
    if colon and ":" not in name and port.isascii() and port.isdigit():
        return name, int(port)
    return exception, None


MAX_ANSWER_BYTES: Final = 32 * 2**20
"""The maximum decompressed size of a response. The service's largest page, 200 messages of 28 KB, is below 6 MiB."""


TIMEOUT_SECONDS: Final = 300.0
"""The default timeout: that of azure-core (`ConnectionConfiguration`)."""


_SET_BY_SDK: Final = ("Content-Type",)
"""Headers that aiohttp would add to a request with a body; the SDK sets it for requests with content."""


class TooLarge(aiohttp.ClientPayloadError):
    """The response exceeds `MAX_ANSWER_BYTES`."""


class WholeResponse(AsyncHttpResponse):
    """A response of azure-core's type that is completely in memory.

    Args:
        request: the request.
        status: the HTTP status.
        reason: the reason phrase.
        headers: a case-insensitive mapping.
        body: the decompressed content.
    """

    def __init__(
        self, request: HttpRequest, status: int, reason: str | None, headers: Mapping[str, str], body: bytes
    ) -> None:
        super().__init__(request, None)
        self.status_code = status
        self.reason = reason
        self.headers = headers  # type: ignore[assignment]  # responses are read-only
        self.content_type = headers.get("content-type")
        self._body = body

    def body(self) -> bytes:
        """Return the content."""
        return self._body


class OpenTransport(AsyncHttpTransport[HttpRequest, AsyncHttpResponse]):
    """A transport that is opened and closed by its owner, not by the clients that share it."""

    async def open(self) -> None:
        """Do nothing: the transport is already open."""

    async def close(self) -> None:
        """Do nothing: other clients still use the transport."""

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
        """Sleep for a number of seconds on the event loop's clock, which may be virtual; can be canceled."""
        await anyio.sleep(duration)


class SessionTransport(OpenTransport):
    """Sends requests over a session that its owner opens and closes.

    Args:
        session: a session with a cookie jar that stores nothing.
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
        is_quoted: bool = False,
        **options: Any,
    ) -> AsyncHttpResponse:
        """Send a request and read the whole response.

        Args:
            request: the request.
            connection_timeout, read_timeout, total_timeout: limits in seconds, as in `Timeouts`.
            proxy: the address of the proxy, if any.
            is_quoted: nothing in the address needs to be quoted.
            options: azure-core's options for other transports; ignored.

        Raises:
            ServiceRequestError: the request was not sent, as far as aiohttp can tell.
            ServiceResponseError: the response was cut off, timed out, or is too large.
        """
        try:
            response = await self._session.request(
                request.method,
                URL(request.url, encoded=True) if is_quoted else request.url,
                headers=request.headers,
                data=request.data,
                skip_auto_headers=None if request.method == "GET" else _SET_BY_SDK,
                timeout=_timeout(connection_timeout, read_timeout, total_timeout),
                allow_redirects=False,
                proxy=proxy,
            )
            try:
                body = await _whole(response.content)
            finally:
                # One that was read to its end is closed, and has returned its connection to the pool. An answer that
                # switches to another protocol keeps it, as one that was not read to its end does.
                if not response.closed:
                    response.close()
            return WholeResponse(request, response.status, response.reason, response.headers, body)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _sdk_error(error) from error


def _sdk_error(error: aiohttp.ClientError | TimeoutError) -> AzureError:
    """Return azure-core's error for one of aiohttp: those of requests say that nothing was sent."""
    if isinstance(error, aiohttp.ClientResponseError):
        return ServiceResponseError(error, error=error)
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return ServiceRequestTimeoutError(error, error=error)
    if isinstance(error, TimeoutError):
        return ServiceResponseTimeoutError(error, error=error)
    return ServiceRequestError(error, error=error)


async def _whole(content: aiohttp.StreamReader) -> bytes:
    """Return the whole content; stop if it is too large, because it may be endless or decompress to gigabytes."""
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
