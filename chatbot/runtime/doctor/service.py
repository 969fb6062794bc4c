"""The service that bots.yaml names, or that its running bots use: the way there, and whether it lets us in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import anyio

from chatbot.config import Config
from chatbot.errors import ConfigError
from chatbot.runtime.connection import Connection, KnownBot, published, remembered
from chatbot.runtime.doctor import access, emulator, network
from chatbot.runtime.doctor.finding import Finding, FindingState, misconfigured, ok, warning
from chatbot.runtime.run_directory import RunInfo
from chatbot.stores import visit_store
from chatbot.stores.probe import StoreProbe


def look(config: Config, info: RunInfo | None, store: StoreProbe) -> Iterator[Finding]:
    """Go the way to the service, and ask it for a token of each bot that has a user. Makes nothing there.

    Args:
        info: what the running bots have published; None if none run.
        store: what an examination of it has found: it knows the users.
    """
    if info is None and config.uses_emulator:
        yield from emulator.look(config)
        return
    try:
        connection = _connection(config, info)
        bots = _bots(config, info, connection, store)
    except ConfigError as error:
        yield from (misconfigured("service", problem) for problem in error.problems)
        return
    where = "the emulator, at " if config.uses_emulator else ""
    yield ok("service", f"{where}{connection.endpoint}, {connection.way}")
    way = anyio.run(network.look, connection.endpoint, connection.ca_file)
    yield from way
    if any(one.state is FindingState.FAILED and one.subject != "clock" for one in way):
        yield warning("token", "not looked at: there is no way to the service")
        return
    yield from anyio.run(access.look, connection, bots)


def _connection(config: Config, info: RunInfo | None) -> Connection:
    if info is not None and info.connection_string is not None:
        return Connection.to_running(info)
    return Connection.of(config)


def _bots(config: Config, info: RunInfo | None, connection: Connection, found: StoreProbe) -> Sequence[KnownBot]:
    """Who the bots are; of those whom only a store knows that cannot be visited, nothing is known."""
    if info is not None:
        return list(published(info, config.bots).values())
    url = config.store.get_secret_value()
    store = visit_store(url, base_dir=config.directory) if found.can_be_visited else None
    return list(anyio.run(remembered, config, connection, store).values())
