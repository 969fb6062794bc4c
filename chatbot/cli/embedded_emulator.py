"""The emulator inside the daemon's process, for `service: emulator`."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from importlib import import_module
from typing import Any, Final
from urllib.parse import urlsplit

import anyio.to_thread
import structlog

from chatbot.cli.playground_client import PAGE_NOTES
from chatbot.config import Config
from chatbot.emulator import DataFileError, Emulator, PortTakenError, Quirks, Running, World, persist, serve
from chatbot.errors import ConfigError, StateError, StoreError, StoreInUse
from chatbot.model import ThreadId
from chatbot.playground import Notes, Playground, serve_playground
from chatbot.runtime.connection import Connection
from chatbot.runtime.observe.story import Stories
from chatbot.runtime.run_directory import ControlDirectory
from chatbot.runtime.sandbox import Sandbox, ShiftedClock

_NOTES: Final = "emulator"
_PEOPLE: Final = "people"


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


def sandbox_of(control: ControlDirectory, *, has_page: bool) -> Sandbox:
    """Return what the playground may do with the bots; the clock is as far ahead as the last run left it."""
    offset = control.read_facts(PAGE_NOTES).get("offset", 0)
    return Sandbox(ShiftedClock(float(offset)), Stories() if has_page else None)


@asynccontextmanager
async def serve_world(
    world: World, config: Config, control: ControlDirectory, sandbox: Sandbox
) -> AsyncIterator[Connection]:
    """Serve the world: https for other programs, plain http on loopback for the bots, and the playground.

    Raises:
        StateError: the port in bots.yaml is in use.
        StoreError: its certificate authority cannot be stored.
    """
    emulator = Emulator(world)
    emulator.offset_seconds = sandbox.clock.offset
    if sandbox.clock.offset:
        structlog.get_logger().warning("emulator.clock_shifted", seconds=round(sandbox.clock.offset))
    async with _started_server(emulator, config, control) as running, AsyncExitStack() as stack:
        if sandbox.stories is not None:
            await stack.enter_async_context(_page(emulator, config, control, sandbox))
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


@asynccontextmanager
async def _page(emulator: Emulator, config: Config, control: ControlDirectory, sandbox: Sandbox) -> AsyncIterator[None]:
    """Serve the playground under the link of the last run, so that an open page finds it again."""
    facts = await anyio.to_thread.run_sync(control.read_facts, PAGE_NOTES)
    token, resource = facts.get("token") or secrets.token_urlsafe(32), emulator.world.resource.id

    def people() -> dict[str, str]:
        known: dict[str, str] = control.read_facts(_PEOPLE).get(resource, {})
        return known

    def save_people(found: dict[str, str]) -> None:
        control.write_facts(_PEOPLE, {**control.read_facts(_PEOPLE), resource: found})

    def save_offset(offset: float) -> None:
        control.write_facts(PAGE_NOTES, {**control.read_facts(PAGE_NOTES), "offset": offset})

    async def record(thread: str, form: str) -> str:
        text: str = await (await _loaded("chatbot.cli.record")).thread_as_test(config, control, ThreadId(thread), form)
        return text

    async def replay(
        wanted: Mapping[str, Any], report: Callable[[int, int], None]
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        fork: Callable[..., Awaitable[tuple[dict[str, Any], list[dict[str, Any]]]]]
        fork = (await _loaded("chatbot.cli.fork")).fork_thread
        return await fork(config, control, sandbox.answer, wanted, report)

    playground = Playground(
        emulator,
        bots=sandbox,
        stories=sandbox.stories,
        notes=Notes(people=people, save_people=save_people, save_offset=save_offset),
        quirks=list(Quirks.describe()),
        record=record,
        replay=replay,
        offset=sandbox.clock.offset,
    )
    async with serve_playground(playground, token=token, port=facts.get("port", 0)) as link:
        address = urlsplit(link)
        kept = {"token": token, "port": address.port, "offset": sandbox.clock.offset, "pid": os.getpid()}
        await anyio.to_thread.run_sync(control.write_facts, PAGE_NOTES, kept)
        structlog.get_logger().info("playground.served", address=f"{address.scheme}://{address.netloc}/")
        sandbox.link = link
        yield


async def _loaded(module: str) -> Any:
    """Import a module of a command once it is needed: with it comes the command line library, a third of a start."""
    return await anyio.to_thread.run_sync(import_module, module)


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
