"""The way out of this process: one connection pool, one TLS context, and the proxy that the environment names.

All of it is decided once, when a resource is opened. azure-core and aiohttp left to themselves read proxies and netrc
for every request, and build a TLS context per request when they are given a CA file.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, getproxies_environment, proxy_bypass

import aiohttp
import anyio.to_thread
from azure.core.pipeline.transport import AsyncHttpTransport

from chatbot.errors import ConfigError
from chatbot.service.connection import is_loopback
from chatbot.service.transport import SessionTransport

MAX_CONNECTIONS: Final = 100
"""How many connections may be open at once; further requests wait for one to become free."""


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
        skip_auto_headers=("Content-Type",),  # the SDK says it where there is content
    ) as session:
        yield SessionTransport(session)


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

    `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` are honoured, in either case of letters. `NO_PROXY` holds
    names (`example.com` and `.example.com` mean the name and all below it, `*.example.com` only those below it),
    addresses and networks (`10.0.0.0/8`), each with a port where only that one is meant, or `*`; separated by commas
    or blanks.

    Raises:
        ConfigError: the environment names a proxy of a kind that cannot be used.
    """
    url = urlsplit(address)
    if is_loopback(url.hostname or "") or _is_direct(url):
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


def _is_direct(url: SplitResult) -> bool:
    """Whether the environment, or where it names no proxy the system, has this address asked without a proxy."""
    proxies = getproxies_environment()
    if not proxies:
        return bool(proxy_bypass(url.netloc))
    port = url.port or {"https": 443, "http": 80}.get(url.scheme)
    exceptions = re.split(r"[,\s]+", proxies.get("no", ""))
    return any(_is_meant(exception, url.hostname or "", port) for exception in exceptions if exception)


def _is_meant(exception: str, host: str, port: int | None) -> bool:
    """Whether an entry of `NO_PROXY` means a host and port."""
    if exception == "*":
        return True
    name, wanted = _split_port(exception.lower())
    if wanted is not None and wanted != port:
        return False
    host = host.rstrip(".")
    try:
        return ip_address(host) in ip_network(name, strict=False)
    except ValueError:  # one of them is a name
        pass
    below = name.removeprefix("*").removeprefix(".").rstrip(".")
    return bool(below) and (host.endswith(f".{below}") or (host == below and not name.startswith("*")))


def _split_port(exception: str) -> tuple[str, int | None]:
    """The name or address of an entry of `NO_PROXY`, and its port if it has one."""
    bracketed = re.fullmatch(r"\[([^\]]*)\](?::([0-9]+))?", exception)
    if bracketed is not None:
        return bracketed[1], int(bracketed[2]) if bracketed[2] else None
    name, colon, port = exception.rpartition(":")
    if colon and ":" not in name and port.isascii() and port.isdigit():
        return name, int(port)
    return exception, None
