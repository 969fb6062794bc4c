"""The way out of this process: one connection pool, one TLS context, and the proxy that the environment names.

All of it is decided once, when a resource is opened. azure-core and aiohttp left to themselves read proxies and netrc
for every request, and build a TLS context per request when they are given a CA file.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import anyio.to_thread
from azure.core.pipeline.transport import AioHttpTransport, AsyncHttpTransport

from chatbot.errors import ConfigError
from chatbot.service.connection import is_loopback

MAX_CONNECTIONS: Final = 100
"""How many connections may be open at once; further requests wait for one to become free."""

MAX_ANSWER_BYTES: Final = 32 * 2**20
"""The largest answer that is read, unpacked. The service's own largest page, 200 messages of 28 KB, is below 6 MiB."""


class TooLarge(aiohttp.ClientPayloadError):
    """An answer that does not end where the service's end."""


class _BoundedReader:
    """A body that can be read up to a limit: neither one that never ends nor one that unpacks to gigabytes is kept."""

    def __init__(self, reader: aiohttp.StreamReader) -> None:
        self._reader = reader

    async def read(self, n: int = -1) -> bytes:
        """Read up to `n` bytes, or everything."""
        if n >= 0:
            return self._checked(await self._reader.read(n))
        pieces = []
        while piece := self._checked(await self._reader.readany()):
            pieces.append(piece)
        return b"".join(pieces)

    def _checked(self, piece: bytes) -> bytes:
        if self._reader.total_bytes > MAX_ANSWER_BYTES:
            message = f"the answer is larger than {MAX_ANSWER_BYTES // 2**20} MiB"
            raise TooLarge(message)
        return piece

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)


class _BoundedResponse(aiohttp.ClientResponse):
    """A response with a bounded body."""

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        """Read the headers."""
        await super().start(connection)
        self.content = cast(aiohttp.StreamReader, _BoundedReader(self.content))
        return self


@asynccontextmanager
async def open_transport(ca_file: Path | None) -> AsyncIterator[AsyncHttpTransport[Any, Any]]:
    """Open the pool that all clients share, and close it at the end.

    Args:
        ca_file: a PEM file of authorities to trust beside the system's (and `SSL_CERT_FILE`).

    Raises:
        ConfigError: the file cannot be used.
    """
    context = await anyio.to_thread.run_sync(tls_context, ca_file)
    connector = aiohttp.TCPConnector(ssl=context, limit=MAX_CONNECTIONS)
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        response_class=_BoundedResponse,
    ) as session:
        yield AioHttpTransport(session=session, session_owner=False, use_env_settings=False)


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Build the TLS context: the system's authorities, and those of `ca_file`."""
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError) as error:
            msg = f"the ca_file {ca_file} cannot be used ({error}); expected a PEM file of certificates"
            raise ConfigError(msg) from error
    return context


def proxy_for(address: str) -> str | None:
    """The proxy to go through to an address, as the environment says now; never one to this machine.

    `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` are honoured, in either case of letters.

    Raises:
        ConfigError: the environment names a proxy of a kind that cannot be used.
    """
    url = urlsplit(address)
    if is_loopback(url.hostname or "") or proxy_bypass(url.netloc):
        return None
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy:
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if urlsplit(proxy).scheme not in ("http", "https"):
        msg = (
            f"the environment's proxy for {address} is a {urlsplit(proxy).scheme} proxy; only http proxies can be used"
        )
        raise ConfigError(msg)
    return proxy
