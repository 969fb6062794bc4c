"""Check the network path to the service: proxy, DNS, TCP, certificate, and the clock difference."""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import aiohttp
import anyio
import anyio.to_thread
from anyio.streams.tls import TLSAttribute, TLSStream

from chatbot.errors import ConfigError
from chatbot.runtime.doctor.finding import Finding, FindingState, failed, misconfigured, ok, warning
from chatbot.service.transport import proxy_for, tls_context

PATIENCE_SECONDS: Final = 10.0
"""Time limit of each step, in seconds."""

SOON_DAYS: Final = 14
"""Remaining days below which a certificate is reported."""

SKEW_SECONDS: Final = 30.0
"""Clock difference in seconds from which a warning is given. The service reports its time in whole seconds."""

WRONG_SECONDS: Final = 300.0
"""Clock difference in seconds from which the check fails: access keys sign the time.

The limit of the service is not known.
"""

_PORTS: Final = {"https": 443, "http": 80}
_EXPIRED, _NOT_YET, _OTHER_NAME, _OTHER_ADDRESS = 10, 9, 62, 64
"""OpenSSL's verify codes."""


async def check_network(
    endpoint: str, ca_file: Path | None, *, clock: Callable[[], float] = time.time
) -> list[Finding]:
    """Check each step of the connection, and stop after the first one that fails.

    Args:
        endpoint: The endpoint of the service.
        ca_file: Certificate authorities to trust in addition to the system's.
        clock: Returns epoch seconds.
    """
    url = urlsplit(endpoint)
    try:
        context = await anyio.to_thread.run_sync(tls_context, ca_file)
        findings = await anyio.to_thread.run_sync(_environment)
        proxy = proxy_for(endpoint)
    except ConfigError as error:
        return [misconfigured("tls" if "ca_file" in str(error) else "proxy", str(error))]
    journey = _Journey(url, urlsplit(proxy) if proxy else None, context, clock)
    for step in (journey.name, journey.connection, journey.certificate, journey.time):
        found = await step()
        if found is not None:
            findings.append(found)
            if found.state is FindingState.FAILED:
                break
    return findings


def _environment() -> list[Finding]:
    """Report missing files named in the environment: TLS ignores them silently and then trusts no certificate."""
    named = {name: os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")}
    return [
        warning("tls", f"{name} names {place}, which is not there", "correct it, or unset it")
        for name, place in named.items()
        if place and not os.path.exists(place)
    ]


@dataclass(frozen=True, slots=True)
class _Journey:
    """Steps of the connection. Each returns a finding, or None if it does not apply."""

    url: SplitResult
    proxy: SplitResult | None
    context: ssl.SSLContext
    clock: Callable[[], float]

    @property
    def _first(self) -> tuple[str, int]:
        """Host and port of the first connection: the proxy, if there is one."""
        place = self.proxy or self.url
        return place.hostname or "", place.port or _PORTS.get(place.scheme, 443)

    @property
    def _whose(self) -> str:
        return "the proxy " if self.proxy else ""

    @property
    def _through(self) -> str:
        return f", through the proxy {self._first[0]}:{self._first[1]}" if self.proxy else ""

    async def name(self) -> Finding | None:
        host, port = self._first
        if _is_address(host):
            return None
        try:
            with anyio.fail_after(PATIENCE_SECONDS):
                found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, TimeoutError, UnicodeError) as error:
            what = "is the proxy's name right" if self.proxy else "is the endpoint spelt right"
            return failed(
                "dns",
                f"{self._whose}{host} has no address: {_reason(error)}",
                f"{what}, and does this machine resolve other names?",
            )
        addresses = dict.fromkeys(str(address[0]) for *_, address in found)
        return ok("dns", f"{self._whose}{host} is {', '.join(list(addresses)[:4])}")

    async def connection(self) -> Finding:
        host, port = self._first
        begun = time.perf_counter()
        try:
            with anyio.fail_after(PATIENCE_SECONDS):
                async with await anyio.connect_tcp(host, port):
                    pass
        except (OSError, TimeoutError) as error:
            remedy = (
                "start it, or correct HTTPS_PROXY and NO_PROXY"
                if self.proxy
                else "does a firewall stand between, or is a proxy needed (HTTPS_PROXY)? Is the port right?"
            )
            return failed("tcp", f"{self._whose}{host}:{port} does not take connections: {_reason(error)}", remedy)
        return ok("tcp", f"{self._whose}{host}:{port} answers in {(time.perf_counter() - begun) * 1000:.0f} ms")

    async def certificate(self) -> Finding | None:
        if self.url.scheme != "https":
            return ok("tls", "not needed: plain http to this machine itself")
        if self.proxy:
            return None  # the request of the next step checks the certificate, through the proxy
        host, port = self._first
        try:
            with anyio.fail_after(PATIENCE_SECONDS):
                async with await anyio.connect_tcp(host, port) as plain:
                    stream = await TLSStream.wrap(
                        plain, server_side=False, hostname=host, ssl_context=self.context, standard_compatible=False
                    )
                    version = stream.extra(TLSAttribute.tls_version)  # noqa: S610 - anyio's, no query
                    certificate = stream.extra(TLSAttribute.peer_certificate)  # noqa: S610
        except ssl.SSLCertVerificationError as error:
            return _untrusted(host, error)
        except (ssl.SSLError, OSError, anyio.BrokenResourceError, anyio.EndOfStream, TimeoutError) as error:
            remedy = "is this the port of an https server, and does nothing in between break TLS?"
            return failed("tls", f"{host}:{port} does not shake hands: {_reason(error)}", remedy)
        return _lifetime(certificate, version, self.clock())

    async def time(self) -> Finding:
        """Send any request to the service, and compare the time in the response with the clock."""
        timeout = aiohttp.ClientTimeout(total=PATIENCE_SECONDS)
        connector = aiohttp.TCPConnector(ssl=self.context)
        proxy = self.proxy.geturl() if self.proxy else None
        begun = self.clock()
        try:
            async with (
                aiohttp.ClientSession(connector=connector, trust_env=False, timeout=timeout) as session,
                session.get(self.url.geturl(), proxy=proxy, allow_redirects=False) as answer,
            ):
                stamp = answer.headers.get("Date", "")
        except aiohttp.ClientConnectorCertificateError as error:
            inner = error.certificate_error
            if isinstance(inner, ssl.SSLCertVerificationError):
                return _untrusted(self.url.hostname or "", inner)
            return failed("tls", _reason(error))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            what = f"{self.url.netloc} does not answer{self._through}: {_reason(error)}"
            return failed("http", what, "is this the endpoint of a Communication Services resource?")
        return _skew(stamp, (begun + self.clock()) / 2)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _reason(error: BaseException) -> str:
    """Return the text of the innermost cause, which is the most specific."""
    if isinstance(error, TimeoutError):
        return f"nothing came for {PATIENCE_SECONDS:.0f} s"
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, BaseExceptionGroup):
        return _reason(error.exceptions[0])
    if isinstance(error, aiohttp.ClientResponseError):
        return f"{error.status} {error.message}"  # without its URL, which may contain a password
    if isinstance(error, ConnectionError) and error.errno:
        return os.strerror(error.errno)  # asyncio's text repeats the address
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return words or type(error).__name__


def _untrusted(host: str, error: ssl.SSLCertVerificationError) -> Finding:
    remedy = {
        _EXPIRED: "renew the certificate of the server; if it is a new one, is this machine's clock right?",
        _NOT_YET: "is this machine's clock right?",
        _OTHER_NAME: "name the endpoint as its certificate does",
        _OTHER_ADDRESS: "name the endpoint as its certificate does",
    }.get(
        error.verify_code,
        "name the authority that signed it as ca_file in bots.yaml, or in SSL_CERT_FILE; is a proxy in between?",
    )
    return failed("tls", f"the certificate of {host} is not trusted: {error.verify_message}", remedy)


def _lifetime(certificate: Any, version: str, now: float) -> Finding:
    until = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    days = int((until - now) // 86_400)
    text = f"{version}, a trusted certificate until {datetime.fromtimestamp(until, UTC):%Y-%m-%d}"
    if days < SOON_DAYS:
        return warning("tls", f"{text}, which is in {days} days", "have it renewed")
    return ok("tls", text)


def _skew(stamp: str, now: float) -> Finding:
    try:
        theirs = parsedate_to_datetime(stamp).replace(tzinfo=UTC).timestamp() + 0.5  # the service truncates to seconds
    except (ValueError, TypeError):
        return warning("clock", "the service does not say what time it is, so the clock cannot be compared")
    off = now - theirs
    if abs(off) < SKEW_SECONDS:
        return ok("clock", "agrees with the service's")
    text = f"this machine's clock is {abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} the service's"
    remedy = "set it by the network: timedatectl set-ntp true, or whatever this system has for it"
    return failed("clock", text, remedy) if abs(off) >= WRONG_SECONDS else warning("clock", text, remedy)
