"""Check that the bots can reach the service and are authorized.

The service is the one in bots.yaml, or the one that the running bots use. The network path to it is checked first:
proxy, DNS, TCP, certificate, and the clock difference.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import aiohttp
import anyio
import anyio.to_thread
from anyio.streams.tls import TLSAttribute, TLSStream

from chatbot.config import Config
from chatbot.durations import format_duration
from chatbot.errors import ConfigError, ServiceError, Throttled, Unauthorized
from chatbot.http_listener import bind_tcp
from chatbot.model import UserId
from chatbot.runtime.connection import Connection, KnownBot, published_bots, stored_bots
from chatbot.runtime.doctor.finding import Finding, FindingState, failed, misconfigured, ok, warning
from chatbot.runtime.run_directory import RunInfo
from chatbot.service.acs import AcsResource
from chatbot.service.transport import proxy_for, tls_context
from chatbot.stores import open_between_runs
from chatbot.stores.probe import StoreProbe, has_access

STEP_TIMEOUT_SECONDS: Final = 10.0
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
    check = _ConnectionCheck(url, urlsplit(proxy) if proxy else None, context, clock)
    for step in (check.name, check.connection, check.certificate, check.time):
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
        warning("tls", f"{name} names {place}, which does not exist", "correct the variable, or unset it")
        for name, place in named.items()
        if place and not os.path.exists(place)
    ]


@dataclass(frozen=True, slots=True)
class _ConnectionCheck:
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
    def _proxy_prefix(self) -> str:
        return "the proxy " if self.proxy else ""

    @property
    def _proxy_suffix(self) -> str:
        return f", through the proxy {self._first[0]}:{self._first[1]}" if self.proxy else ""

    async def name(self) -> Finding | None:
        host, port = self._first
        if _is_address(host):
            return None
        try:
            with anyio.fail_after(STEP_TIMEOUT_SECONDS):
                found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, TimeoutError, UnicodeError) as error:
            what = "check the name of the proxy" if self.proxy else "check the spelling of the endpoint"
            return failed(
                "dns",
                f"{self._proxy_prefix}{host} has no address: {_reason(error)}",
                f"{what}, and whether this machine resolves other names",
            )
        addresses = dict.fromkeys(str(address[0]) for *_, address in found)
        return ok("dns", f"{self._proxy_prefix}{host} is {', '.join(list(addresses)[:4])}")

    async def connection(self) -> Finding:
        host, port = self._first
        begun = time.perf_counter()
        try:
            with anyio.fail_after(STEP_TIMEOUT_SECONDS):
                async with await anyio.connect_tcp(host, port):
                    pass
        except (OSError, TimeoutError) as error:
            remedy = (
                "start the proxy, or correct HTTPS_PROXY and NO_PROXY"
                if self.proxy
                else "check the port, firewalls in between, and whether a proxy is required (HTTPS_PROXY)"
            )
            return failed(
                "tcp", f"{self._proxy_prefix}{host}:{port} does not accept connections: {_reason(error)}", remedy
            )
        return ok("tcp", f"{self._proxy_prefix}{host}:{port} answers in {(time.perf_counter() - begun) * 1000:.0f} ms")

    async def certificate(self) -> Finding | None:
        if self.url.scheme != "https":
            return ok("tls", "not required: plain http on this machine")
        if self.proxy:
            return None  # the request of the next step checks the certificate, through the proxy
        host, port = self._first
        try:
            with anyio.fail_after(STEP_TIMEOUT_SECONDS):
                async with await anyio.connect_tcp(host, port) as plain:
                    stream = await TLSStream.wrap(
                        plain, server_side=False, hostname=host, ssl_context=self.context, standard_compatible=False
                    )
                    version = stream.extra(TLSAttribute.tls_version)  # noqa: S610 - anyio's, no query
                    certificate = stream.extra(TLSAttribute.peer_certificate)  # noqa: S610
        except ssl.SSLCertVerificationError as error:
            return _untrusted(host, error)
        except (ssl.SSLError, OSError, anyio.BrokenResourceError, anyio.EndOfStream, TimeoutError) as error:
            remedy = "check that this is the port of an https server, and that nothing in between breaks TLS"
            return failed("tls", f"{host}:{port} fails the TLS handshake: {_reason(error)}", remedy)
        return _lifetime(certificate, version, self.clock())

    async def time(self) -> Finding:
        """Send any request to the service, and compare the time in the response with the clock."""
        timeout = aiohttp.ClientTimeout(total=STEP_TIMEOUT_SECONDS)
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
            what = f"{self.url.netloc} does not answer{self._proxy_suffix}: {_reason(error)}"
            return failed("http", what, "check that this is the endpoint of a Communication Services resource")
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
        return f"no response within {STEP_TIMEOUT_SECONDS:.0f} s"
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
        _EXPIRED: "renew the certificate of the server; if it is new, check this machine's clock",
        _NOT_YET: "check this machine's clock",
        _OTHER_NAME: "use the host name that the certificate contains",
        _OTHER_ADDRESS: "use the host name that the certificate contains",
    }.get(
        error.verify_code,
        "set ca_file in bots.yaml, or SSL_CERT_FILE, to the authority that signed it; a proxy may be in between",
    )
    return failed("tls", f"the certificate of {host} is not trusted: {error.verify_message}", remedy)


def _lifetime(certificate: Any, version: str, now: float) -> Finding:
    until = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    days = int((until - now) // 86_400)
    text = f"{version}, a trusted certificate until {datetime.fromtimestamp(until, UTC):%Y-%m-%d}"
    if days < SOON_DAYS:
        return warning("tls", f"{text}, in {days} days", "renew the certificate")
    return ok("tls", text)


def _skew(stamp: str, now: float) -> Finding:
    try:
        theirs = parsedate_to_datetime(stamp).replace(tzinfo=UTC).timestamp() + 0.5  # the service truncates to seconds
    except (ValueError, TypeError):
        return warning("clock", "the service does not report its time, so the clock cannot be compared")
    off = now - theirs
    if abs(off) < SKEW_SECONDS:
        return ok("clock", "agrees with the service's")
    text = f"this machine's clock is {abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} the service's"
    remedy = "synchronize the clock: timedatectl set-ntp true, or the equivalent of this system"
    return failed("clock", text, remedy) if abs(off) >= WRONG_SECONDS else warning("clock", text, remedy)


NOBODY: Final = UserId("8:acs:00000000-0000-0000-0000-000000000000_00000000-0000-0000-0000-000000000000")
"""A user that no resource has. Requesting a token for it tests the access rights and nothing else."""

NOT_OWNED: Final = "IdentityNotOwned"
"""Error code of the identity service for `NOBODY` (recorded sessions). It checks the key first."""

SOON: Final = timedelta(hours=1)


def check_service(config: Config, info: RunInfo | None, store: StoreProbe) -> Iterator[Finding]:
    """Connect to the service, and check a token of each bot that has a user. Changes nothing there.

    Args:
        config: The configuration.
        info: Connection data published by the running bots; None if none run.
        store: The probe of the store that holds the users.
    """
    if info is None and config.uses_emulator:
        yield from _check_emulator(config)
        return
    try:
        connection = _connection(config, info)
        bots = _bots(config, info, connection, store)
    except ConfigError as error:
        yield from (misconfigured("service", problem) for problem in error.problems)
        return
    where = "the emulator, at " if config.uses_emulator else ""
    yield ok("service", f"{where}{connection.endpoint}, {connection.authentication}")
    network = anyio.run(check_network, connection.endpoint, connection.ca_file)
    yield from network
    if any(one.state is FindingState.FAILED and one.subject != "clock" for one in network):
        yield warning("token", "not checked: the service cannot be reached")
        return
    yield from anyio.run(_check_access, connection, bots)


def _connection(config: Config, info: RunInfo | None) -> Connection:
    if info is not None and info.connection_string is not None:
        return Connection.to_running(info)
    return Connection.of(config)


def _bots(config: Config, info: RunInfo | None, connection: Connection, found: StoreProbe) -> Sequence[KnownBot]:
    """Return the known bots. Bots recorded only in a store that cannot be opened have no known user."""
    if info is not None:
        return list(published_bots(info, config.bots).values())
    url = config.store.get_secret_value()
    store = open_between_runs(url, base_dir=config.directory) if found.can_be_read else None
    return list(anyio.run(stored_bots, config, connection, store).values())


async def _check_access(connection: Connection, bots: Sequence[KnownBot]) -> list[Finding]:
    """Request a token for each bot, and test it with the chat service. Changes nothing.

    Args:
        connection: Connection to the service, which is reachable.
        bots: The bots to check.
    """
    findings = []
    try:
        async with connection.open() as resource:
            if connection.can_issue_tokens:
                findings.append(await _check_identity_access(connection, resource))
            findings += [await _of_bot(connection, resource, bot) for bot in bots]
    except ConfigError as error:
        findings.append(misconfigured("access", str(error)))
    return findings


async def _check_identity_access(connection: Connection, resource: AcsResource) -> Finding:
    """Check access to the identity service with a request that it must refuse, so that no token is issued."""
    try:
        await resource.issue_token(NOBODY)
    except Throttled:
        return warning(
            "access", "the identity service throttles requests (429)", "wait half a minute and run the check again"
        )
    except Unauthorized as error:
        if error.code == NOT_OWNED:
            return ok("access", f"the service grants access {connection.authentication}")
        return failed("access", str(error), connection.remedy)
    except ServiceError as error:
        return failed("access", str(error), connection.remedy)
    return ok("access", f"the service grants access {connection.authentication}")


async def _of_bot(connection: Connection, resource: AcsResource, bot: KnownBot) -> Finding:
    if bot.user is None:
        return ok("token", f"{bot.name} has no known user yet; one is created at its first start")
    try:
        tokens = connection.tokens(resource, bot.user, bot.settings)
        expires = (await tokens.get_token()).expires_on
        await resource.chat(bot.user, tokens).list_threads(page_size=1)
    except ConfigError as error:
        return misconfigured("token", f"{bot.name}: {error}")
    except Throttled as error:
        wait = "a minute" if error.retry_after is None else f"{error.retry_after:.0f} s"
        return warning("quota", f"{bot.name}: the service throttles its requests (429)", f"wait {wait}")
    except ServiceError as error:
        return failed("token", f"{bot.name}: {error}", connection.remedy)
    return _validity(bot, expires)


def _validity(bot: KnownBot, expires: float) -> Finding:
    left = timedelta(seconds=max(0, int(expires - time.time())))
    if left > timedelta(days=365):
        return ok("token", f"{bot.name}: the service accepts its token, which has no readable expiry")
    text = f"{bot.name}: the service accepts its token, which is valid for {format_duration(left)}"
    if bot.settings is not None and bot.settings.token is not None and left < SOON:
        return warning("token", text, "replace it in time: it cannot be renewed automatically")
    return ok("token", text)


def _check_emulator(config: Config) -> Iterator[Finding]:
    """Check that the emulator's port is free and its data file is writable, while it does not run.

    Args:
        config: A configuration that uses the emulator.
    """
    port = config.emulator.port
    if port is not None and _is_taken(port):
        problem = f"port {port} is in use; free it, or configure another one"
        yield misconfigured("emulator", config.problem(("emulator", "port"), problem))
    file = config.directory / config.emulator.data
    place = file if file.exists() else next(parent for parent in file.parents if parent.exists())
    if not has_access(place, os.R_OK | os.W_OK):
        what = f"this user cannot write {place}, where the emulator stores its state"
        yield failed("emulator", what, "correct its permissions, or configure another file: emulator: {data: FILE}")
    else:
        yield ok("emulator", f"runs in the bots' process while they run, and stores its state in {file}")


def _is_taken(port: int) -> bool:
    try:
        bind_tcp("127.0.0.1", port).close()
    except OSError:
        return True
    return False
