"""The emulator inside the daemon's process, for `service: emulator`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Final
from urllib.parse import urlsplit

import anyio.to_thread
import structlog

from chatbot.config import Config
from chatbot.emulator import DataFileError, Emulator, PortTakenError, Quirks, Running, World, persist, serve
from chatbot.errors import ConfigError, StateError, StoreError, StoreInUse
from chatbot.runtime.connection import Connection
from chatbot.runtime.run_directory import ControlDirectory

_NOTES: Final = "emulator"


@contextmanager
def load_world(config: Config, control: ControlDirectory) -> Iterator[World]:
    """Load the emulated world of a bots.yaml from its data file.

    Raises:
        StoreError: the file cannot be read or written.
        ConfigError: the file of quirks cannot be used.
    """
    quirks = quirks_of(config)
    file = config.directory / config.emulator.data
    try:
        with persist(World(quirks=quirks), file) as world:
            control.adopt(file, file.with_name(f"{file.name}.lock"))
            yield world
    except DataFileError as error:
        raise StoreInUse(str(error)) from error
    except OSError as error:
        message = (
            f"{error.filename or file}: the emulator cannot write there: {error.strerror}; correct its permissions"
        )
        raise StoreError(message) from error


def quirks_of(config: Config) -> Quirks:
    """Return the quirks that bots.yaml names.

    Raises:
        ConfigError: their file cannot be used.
    """
    if config.emulator.quirks is None:
        return Quirks()
    try:
        return Quirks.load(config.directory / config.emulator.quirks)
    except ValueError as error:
        raise ConfigError(config.problem(("emulator", "quirks"), str(error))) from None


@asynccontextmanager
async def serve_world(world: World, config: Config, control: ControlDirectory) -> AsyncIterator[Connection]:
    """Serve the world: https for other programs, plain http on loopback for the bots.

    Raises:
        StateError: the port in bots.yaml is in use.
        StoreError: its certificate authority cannot be stored.
    """
    async with _started_server(Emulator(world), config, control) as running:
        ca_file = running.ca_file
        structlog.get_logger().warning(
            "emulator.started",
            endpoint=running.endpoint,
            connection_string=_masked_connection_string(running.connection_string),
            ca_file=str(ca_file) if ca_file else None,
            note="these bots use the emulator on this machine, not Azure",
        )
        yield Connection(
            endpoint=running.http_endpoint,
            access_key=world.resource.access_key,
            resource=world.resource.id,
            connection_string=running.connection_string,
            ca_file=ca_file,
            is_emulator=True,
        )


def _masked_connection_string(connection_string: str) -> str:
    """Return the connection string without most of its key, for the log; `.chatbot/run.json` holds all of it."""
    start, separator, key = connection_string.partition("accesskey=")
    return f"{start}{separator}{key[:4]}…"


@asynccontextmanager
async def _started_server(emulator: Emulator, config: Config, control: ControlDirectory) -> AsyncIterator[Running]:
    """Serve at the configured port; by default at the port of the last run or, if that is in use, at any free port."""
    wanted = config.emulator.port
    last = (await anyio.to_thread.run_sync(control.read_facts, _NOTES)).get("port", 0)
    async with AsyncExitStack() as stack:
        try:
            running = await stack.enter_async_context(serve(emulator, port=wanted or last))
        except PortTakenError:
            if wanted:
                problem = f"port {wanted} is in use; free it, or configure another one"
                raise StateError(config.problem(("emulator", "port"), problem)) from None
            structlog.get_logger().warning("emulator.port_moved", taken=last)
            running = await stack.enter_async_context(serve(emulator))
        except OSError as error:
            remedy = "correct its permissions, or set HOME to a directory that you own"
            message = f"{error.filename}: the emulator cannot store its certificates there: {error.strerror}; {remedy}"
            raise StoreError(message) from error
        port = urlsplit(running.endpoint).port
        await anyio.to_thread.run_sync(control.write_facts, _NOTES, {"port": port})
        yield running
