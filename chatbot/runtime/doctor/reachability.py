"""Check that the bots can reach the service and are admitted.

The service is the one in bots.yaml, or the one that the running bots use.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Final

import anyio

from chatbot.config import Config
from chatbot.durations import format_duration
from chatbot.errors import ConfigError, ServiceError, Throttled, Unauthorized
from chatbot.model import UserId
from chatbot.runtime.connection import Connection, KnownBot, published, remembered
from chatbot.runtime.doctor.finding import Finding, FindingState, failed, misconfigured, ok, warning
from chatbot.runtime.doctor.network import check_network
from chatbot.runtime.run_directory import RunInfo
from chatbot.service.acs import AcsResource
from chatbot.stores import open_between_runs
from chatbot.stores.probe import StoreProbe, has_access

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
    way = anyio.run(check_network, connection.endpoint, connection.ca_file)
    yield from way
    if any(one.state is FindingState.FAILED and one.subject != "clock" for one in way):
        yield warning("token", "not looked at: there is no way to the service")
        return
    yield from anyio.run(_check_access, connection, bots)


def _connection(config: Config, info: RunInfo | None) -> Connection:
    if info is not None and info.connection_string is not None:
        return Connection.to_running(info)
    return Connection.of(config)


def _bots(config: Config, info: RunInfo | None, connection: Connection, found: StoreProbe) -> Sequence[KnownBot]:
    """Return the known bots. Bots recorded only in a store that cannot be opened have no known user."""
    if info is not None:
        return list(published(info, config.bots).values())
    url = config.store.get_secret_value()
    store = open_between_runs(url, base_dir=config.directory) if found.can_be_read else None
    return list(anyio.run(remembered, config, connection, store).values())


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
                findings.append(await _admission(connection, resource))
            findings += [await _of_bot(connection, resource, bot) for bot in bots]
    except ConfigError as error:
        findings.append(misconfigured("access", str(error)))
    return findings


async def _admission(connection: Connection, resource: AcsResource) -> Finding:
    """Check access to the identity service with a request that it must refuse, so that no token is issued."""
    try:
        await resource.issue_token(NOBODY)
    except Throttled:
        return warning("access", "the identity service says that we ask too often", "wait half a minute, and ask again")
    except Unauthorized as error:
        if error.code == NOT_OWNED:
            return ok("access", f"the service lets us in {connection.authentication}")
        return failed("access", str(error), connection.remedy)
    except ServiceError as error:
        return failed("access", str(error), connection.remedy)
    return ok("access", f"the service lets us in {connection.authentication}")


async def _of_bot(connection: Connection, resource: AcsResource, bot: KnownBot) -> Finding:
    if bot.user is None:
        return ok("token", f"{bot.name} has no user that is known here; one is made at its first start")
    try:
        tokens = connection.tokens(resource, bot.user, bot.settings)
        expires = (await tokens.get_token()).expires_on
        await resource.chat(bot.user, tokens).list_threads(page_size=1)
    except ConfigError as error:
        return misconfigured("token", f"{bot.name}: {error}")
    except Throttled as error:
        wait = "a minute" if error.retry_after is None else f"{error.retry_after:.0f} s"
        return warning("quota", f"{bot.name}: the service says that it asks too often (429)", f"wait {wait}")
    except ServiceError as error:
        return failed("token", f"{bot.name}: {error}", connection.remedy)
    return _validity(bot, expires)


def _validity(bot: KnownBot, expires: float) -> Finding:
    left = timedelta(seconds=max(0, int(expires - time.time())))
    if left > timedelta(days=365):
        return ok("token", f"{bot.name}: the service takes its token, which does not say how long it lasts")
    text = f"{bot.name}: the service takes its token, which lasts {format_duration(left)}"
    if bot.settings is not None and bot.settings.token is not None and left < SOON:
        return warning("token", text, "replace it in time: nothing here can renew it")
    return ok("token", text)


def _check_emulator(config: Config) -> Iterator[Finding]:
    """Check that the emulator's port is free and its data file is writable, while it does not run.

    Args:
        config: A configuration that uses the emulator.
    """
    port = config.emulator.port
    if port is not None and _is_taken(port):
        problem = f"port {port} is already in use; free it, or choose another"
        yield misconfigured("emulator", config.problem(("emulator", "port"), problem))
    file = config.directory / config.emulator.data
    place = file if file.exists() else next(parent for parent in file.parents if parent.exists())
    if not has_access(place, os.R_OK | os.W_OK):
        what = f"this user may not write {place}, where the emulator keeps its state"
        yield failed("emulator", what, "mend its rights, or name another file: emulator: {data: FILE}")
    else:
        yield ok("emulator", f"runs in the bots' own process while they run, and keeps its state in {file}")


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False
