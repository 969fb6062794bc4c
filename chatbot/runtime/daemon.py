"""One process of bots: opens what they need, runs them until they are to stop, closes everything in order."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import structlog

from chatbot.bot import Bot
from chatbot.bot.once import caught_up
from chatbot.config import Config
from chatbot.errors import Forbidden, OutcomeUnknown, ServiceError, StateError, Unauthorized, Unreachable
from chatbot.runtime.assemble import Plugins, assemble
from chatbot.runtime.caretaker import Caretaker
from chatbot.runtime.channel import listening
from chatbot.runtime.connection import Connection
from chatbot.runtime.control import ControlDirectory, RunInfo, RunningBot
from chatbot.runtime.desk import Desk
from chatbot.runtime.lobby import open_lobby
from chatbot.runtime.observe.pages import pages
from chatbot.runtime.observe.serving import CannotListen, serve_pages
from chatbot.runtime.observe.status import Observatory
from chatbot.runtime.observe.tally import Tally
from chatbot.runtime.reloading import Reloader
from chatbot.runtime.signals import stop_signals
from chatbot.runtime.supervisor import supervise
from chatbot.runtime.systemd import Supervisor
from chatbot.stores import open_store

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider


class Daemon:
    """The bots of one bots.yaml.

    Args:
        config: what is to run.
        plugins: the plugins of its bots, loaded.
        control: its `.chatbot/`, held by the caller.
        on_ready: told what runs, once other processes can find it.
        is_once: stop by itself when everything that was waiting is handled.
        supervisor: what started the process; told when it is ready, alive and stopping.
        reloads: swap plugins when their files change.
        traces: what makes spans of the bots' work, if anybody wants any.
    """

    def __init__(
        self,
        config: Config,
        plugins: Plugins,
        control: ControlDirectory,
        *,
        on_ready: Callable[[RunInfo], None] = lambda _info: None,
        is_once: bool = False,
        supervisor: Supervisor | None = None,
        reloads: bool = False,
        traces: TracerProvider | None = None,
    ) -> None:
        self._config = config
        self._plugins = plugins
        self._control = control
        self._on_ready = on_ready
        self._is_once = is_once
        self._supervisor = supervisor or Supervisor()
        self._reloads = reloads
        self._traces = traces
        self.was_cut = False
        self._stopping = anyio.Event()
        self._log = structlog.get_logger()

    @asynccontextmanager
    async def stopped_by_signals(self) -> AsyncIterator[None]:
        """Let SIGTERM and Ctrl-C stop what runs in the block: the first one in order, a second one now."""
        with anyio.CancelScope() as everything:

            def ask(signal: str) -> None:
                self._log.info("daemon.stop_requested", signal=signal)
                self._stop()

            def insist(signal: str) -> None:
                self._log.warning("daemon.cut", signal=signal)
                self.was_cut = True
                everything.cancel()

            with stop_signals(ask, insist):
                yield

    async def run(self, connection: Connection) -> None:
        """Run the bots on a resource until they are to stop.

        Raises:
            ServiceError: the service cannot be reached at the start, or refuses us.
            StoreError: the store cannot be opened, read or written.
        """
        store = open_store(self._config.store.get_secret_value(), base_dir=self._config.directory)
        async with store, connection.open() as resource:
            bots: list[Bot] = []
            tallies: dict[str, Tally] = {}
            async with self._unless_stopped(), self._explaining(connection):
                bots = await assemble(self._config, self._plugins, connection, resource, store, tallies, self._traces)
            if self._stopping.is_set():
                return
            desk = Desk(Caretaker(store, bots), Observatory(bots, tallies, store, connection))
            async with listening(self._control, desk.answer, config=self._config.path), self._status_served(desk):
                async with self._unless_stopped(), self._explaining(connection):
                    await self._publish(bots, connection)
                if not self._stopping.is_set():
                    await self._supervise(bots, desk)

    async def _supervise(self, bots: Sequence[Bot], desk: Desk) -> None:
        async with anyio.create_task_group() as beside:
            beside.start_soon(self._supervisor.watch, desk.observatory.missed)
            if self._is_once:
                beside.start_soon(self._stop_when_done, bots)
            if self._reloads:
                beside.start_soon(Reloader(self._config, self._plugins, bots).run)
            await supervise(bots, self._stopping, drain_seconds=self._config.drain_timeout.total_seconds())
            beside.cancel_scope.cancel()

    async def _stop_when_done(self, bots: Sequence[Bot]) -> None:
        for bot in bots:
            await caught_up(bot)
        self._log.info("daemon.finished")
        self._stop()

    def _stop(self) -> None:
        self._supervisor.stopping()
        self._stopping.set()

    @asynccontextmanager
    async def _status_served(self, desk: Desk) -> AsyncIterator[None]:
        """Serve the status pages while the block runs, if bots.yaml says where."""
        if self._config.server is None:
            yield
            return
        host, port = self._config.server.listen
        try:
            serving = serve_pages(pages(desk.observatory), host, port)
        except CannotListen as error:
            raise StateError(self._config.problem(("server", "listen"), str(error))) from error
        async with serving as address:
            self._log.info("status.served", address=address)
            yield

    async def _publish(self, bots: Sequence[Bot], connection: Connection) -> None:
        """Let people and commands find the bots."""
        has_lobby = connection.is_emulator
        info = RunInfo(
            pid=os.getpid(),
            endpoint=connection.endpoint,
            connection_string=connection.connection_string,
            resource=connection.resource,
            ca_file=str(connection.ca_file) if connection.ca_file else None,
            bots=tuple(RunningBot(bot.name, bot.user, bot.display_name) for bot in bots),
            lobby=await open_lobby(bots, self._control, connection.resource) if has_lobby else None,
        )
        await anyio.to_thread.run_sync(self._control.publish, info)
        self._supervisor.ready(f"Running {len(bots)} bots")
        self._on_ready(info)

    @asynccontextmanager
    async def _explaining(self, connection: Connection) -> AsyncIterator[None]:
        """Raise the service's failures with the place where it is named, and with what can be done."""
        try:
            yield
        except ServiceError as error:
            raise self._explained(error, connection) from error

    def _explained(self, error: ServiceError, connection: Connection) -> ServiceError:
        remedy = {
            Unreachable: "check the endpoint, this machine's network and its proxy",
            OutcomeUnknown: "try again; check this machine's network and its proxy",
            Unauthorized: connection.remedy,
            Forbidden: connection.remedy,
        }.get(type(error), "see what the service says about it")
        return ServiceError(
            self._config.problem(("service",), f"{error}; {remedy}"), status=error.status, code=error.code
        )

    @asynccontextmanager
    async def _unless_stopped(self) -> AsyncIterator[None]:
        """Give the block up when the stop comes; before bots run there is nothing to finish."""

        async def give_up(scope: anyio.CancelScope) -> None:
            await self._stopping.wait()
            scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(give_up, group.cancel_scope)
            yield
            group.cancel_scope.cancel()
