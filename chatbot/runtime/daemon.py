"""One process of bots: opens what they need, runs them until they are to stop, closes everything in order."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread
import structlog

from chatbot.bot import Bot
from chatbot.bot.status import caught_up
from chatbot.config import Config, LogConfig
from chatbot.runtime.admin_api import AdminApi, Desk
from chatbot.runtime.assemble import Runtime, explaining
from chatbot.runtime.connection import Connection
from chatbot.runtime.control_socket import listening
from chatbot.runtime.demo_thread import open_lobby
from chatbot.runtime.forced_exit import ForcedExit
from chatbot.runtime.observe.status import Observatory
from chatbot.runtime.plugins import Plugins
from chatbot.runtime.reloading import Reloader
from chatbot.runtime.run_directory import ControlDirectory, RunInfo, RunningBot
from chatbot.runtime.signals import hangups
from chatbot.runtime.sources import Sources
from chatbot.runtime.status_server import StatusServer, pages
from chatbot.runtime.supervisor import Supervisor
from chatbot.runtime.systemd import SystemdNotifier
from chatbot.runtime.watchdog import BEAT_SECONDS, LoopWatchdog
from chatbot.runtime.webhook import webhook_served
from chatbot.stores import open_store
from chatbot.stores.base import EndableStore, Store

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider


DEGRADED_SECONDS: Final = 5.0
"""How often is looked whether something has become degraded, for the log."""


class Daemon:
    """The bots of one bots.yaml.

    Args:
        config: what is to run.
        plugins: the plugins of its bots, loaded.
        control: its `.chatbot/`, held by the caller.
        sources: what the plugins were loaded from.
        read: reads the configuration anew, for a reload; in a thread.
        relog: makes the log what a reloaded configuration says.
        forced_exit: hears the signals, and ends the process if a stop does not.
        on_ready: told what runs, once other processes can find it.
        is_once: stop by itself when everything that was waiting is handled.
        supervisor: what started the process; told when it is ready, alive and stopping.
        reloads: reload when files change.
        traces: what makes spans of the bots' work, if anybody wants any.
    """

    def __init__(
        self,
        config: Config,
        plugins: Plugins,
        control: ControlDirectory,
        *,
        sources: Sources,
        read: Callable[[], Config],
        configure_log: Callable[[LogConfig], None],
        forced_exit: ForcedExit,
        on_ready: Callable[[RunInfo], None] = lambda _info: None,
        is_once: bool = False,
        notifier: SystemdNotifier | None = None,
        reloads: bool = False,
        traces: TracerProvider | None = None,
    ) -> None:
        self._config = config
        self._plugins = plugins
        self._control = control
        self._on_ready = on_ready
        self._is_once = is_once
        self._notifier = notifier or SystemdNotifier()
        self._reloads = reloads
        self._traces = traces
        self._sources = sources
        self._read = read
        self._configure_log = configure_log
        self._forced_exit = forced_exit
        self._reloader: Reloader | None = None
        self._has_abandoned: Callable[[], bool] = lambda: False
        self._observatory: Observatory | None = None
        self._reload_is_due = False
        self.was_cut = False
        self._stopping = anyio.Event()
        self._log = structlog.get_logger()

    @asynccontextmanager
    async def guided_by_signals(self) -> AsyncIterator[None]:
        """Let SIGTERM and Ctrl-C stop what runs in the block, the first one in order, a second one now.

        SIGHUP reloads it; the end of the terminal that it was started from, which is a SIGHUP too, stops it.
        """
        with anyio.CancelScope() as everything:

            def ask(signal: str) -> None:
                self._log.info("daemon.stop_requested", signal=signal)
                self._stop()

            def insist(signal: str) -> None:
                self._log.warning("daemon.cut", signal=signal)
                self.was_cut = True
                everything.cancel()

            def renew(signal: str) -> None:
                if self._is_once or self._stopping.is_set():
                    self._log.info("reload.ignored", signal=signal, reason="the bots are about to end")
                else:
                    self._log.info("reload.asked", signal=signal)
                    self._reload()

            with self._forced_exit.listening(ask, insist), hangups(renew, ask):
                yield

    async def run(self, connection: Connection) -> None:
        """Run the bots on a resource until they are to stop.

        Raises:
            ErrorResponse: the service cannot be reached at the start, or refuses us.
            StoreError: the store cannot be opened, read or written.
        """
        config = self._config
        store = open_store(config.store.get_secret_value(), base_dir=config.directory)
        self._forced_exit.drain_seconds = config.drain_timeout.total_seconds
        async with store, self._marked_unless_in_order(store), connection.open() as resource:
            self._prepare_forced_exit(store)
            runtime = Runtime(config=config, connection=connection, resource=resource, store=store, traces=self._traces)
            async with self._unless_stopped():
                with explaining(config, connection):
                    runtime.bots += await runtime.create_bots(config, self._plugins)
            plugins, self._plugins = (
                self._plugins,
                {},
            )  # from now on they are the bots': what a reload replaces must not be kept here
            if self._stopping.is_set():
                return
            observatory = self._observatory = Observatory(runtime.bots, runtime.tallies, store, connection)
            watchdog = LoopWatchdog(self._control, config.directory, on_look=self._notifier.alive)
            observatory.watchdog = watchdog
            server = StatusServer(pages(observatory))
            bot_supervisor = Supervisor(
                runtime.bots,
                drain_seconds=config.drain_timeout.total_seconds(),
                running=lambda names: _running([bot for bot in runtime.bots if bot.name in names]),
            )
            observatory.ended = bot_supervisor.ended
            self._forced_exit.drain_seconds = lambda: bot_supervisor.drain_seconds
            self._forced_exit.describe = lambda: _running(runtime.bots)
            self._has_abandoned = lambda: bool(runtime.shared_quotas.abandoned)
            self._forced_exit.before_exit = lambda seconds: _note_cuts(store, runtime.bots, seconds)
            reloader = Reloader(
                runtime,
                bot_supervisor,
                server,
                self._sources,
                read=self._read,
                configure_log=self._configure_log,
                publish=lambda: self._publish(runtime),
                last_reload=observatory.last_reload,
                notifier=self._notifier,
            )
            await reloader.log_incompatible(plugins)
            plugins = {}
            admin = Desk(AdminApi(store, runtime.bots), observatory, None if self._is_once else reloader)
            async with (
                listening(self._control, admin.answer, config=config.path),
                server.open(config),
                webhook_served(config, runtime.bots),
            ):
                async with self._unless_stopped():
                    with explaining(config, connection):
                        await self._announce(runtime)
                if not self._stopping.is_set():
                    with watchdog.watching():
                        await self._run_bots(runtime, bot_supervisor, reloader, observatory)

    async def _run_bots(
        self, runtime: Runtime, bot_supervisor: Supervisor, reloader: Reloader, observatory: Observatory
    ) -> None:
        async with anyio.create_task_group() as beside:
            beside.start_soon(self._beat, observatory)
            beside.start_soon(_log_degraded, observatory)
            if self._is_once:
                beside.start_soon(self._stop_when_done, runtime.bots)
            beside.start_soon(reloader.run)
            self._reloader = reloader
            if self._reload_is_due:
                reloader.request()
            if self._reloads:
                beside.start_soon(reloader.watch)
            await bot_supervisor.run(self._stopping)
            beside.cancel_scope.cancel()

    @asynccontextmanager
    async def _marked_unless_in_order(self, store: Store) -> AsyncIterator[None]:
        """Leave the mark of a clean stop in the store only if the block ends in order."""
        try:
            yield
        except BaseException:
            if isinstance(store, EndableStore):
                store.stay_marked()
            raise
        # A mark that is removed too early makes the next start trust handlers that killed this process.
        # If no bot has run, what the last process left is as it was.
        has_left_it = store.was_killed and self._reloader is None
        if (has_left_it or self._has_abandoned()) and isinstance(store, EndableStore):
            store.stay_marked()

    def _prepare_forced_exit(self, store: Store) -> None:
        if isinstance(store, EndableStore):
            self._forced_exit.on_stop = store.stop_began
            self._forced_exit.before_exit = store.finish

    async def _beat(self, observatory: Observatory) -> None:
        """Let the watchdog see, until canceled, that the event loop runs."""
        while True:
            if observatory.watchdog is not None:
                observatory.watchdog.beat(observatory.missed())
            await anyio.sleep(BEAT_SECONDS)

    def _reload(self) -> None:
        """Have everything reloaded, at the latest when the bots run."""
        if self._reloader is None:
            self._reload_is_due = True
        else:
            self._reloader.request()

    async def _stop_when_done(self, bots: Sequence[Bot]) -> None:
        for bot in bots:
            await caught_up(bot)
        self._log.info("daemon.finished")
        self._stop()

    def _stop(self) -> None:
        # First of all: whatever hangs or fails below, the process ends.
        self._forced_exit.begin()
        self._notifier.stopping()
        if self._observatory is not None:
            self._observatory.is_draining = True
        self._stopping.set()

    async def _announce(self, runtime: Runtime) -> None:
        """Say to all who want to know that the bots run."""
        info = await self._publish(runtime)
        self._notifier.ready(f"Running {len(runtime.bots)} bots")
        self._on_ready(info)

    async def _publish(self, runtime: Runtime) -> RunInfo:
        """Let people and commands find the bots."""
        bots, connection = runtime.bots, runtime.connection
        info = RunInfo(
            pid=os.getpid(),
            endpoint=connection.endpoint,
            connection_string=connection.connection_string,
            resource=connection.resource,
            ca_file=str(connection.ca_file) if connection.ca_file else None,
            bots=tuple(RunningBot(bot.name, bot.user, bot.context.display_name) for bot in bots),
            lobby=await open_lobby(bots, self._control, connection.resource) if connection.is_emulator else None,
        )
        await anyio.to_thread.run_sync(self._control.publish, info)
        return info

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


async def _log_degraded(observatory: Observatory) -> None:
    while True:
        observatory.log_degraded()
        await anyio.sleep(DEGRADED_SECONDS)


def _running(bots: Sequence[Bot]) -> str:
    """The handlers that run, for somebody who has to find out what kept the process from ending. In any thread."""
    now = time.monotonic()
    return ", ".join(f"{bot.name}: {running}" for bot in bots for running in bot.running_handlers(now))


def _note_cuts(store: Store, bots: Sequence[Bot], seconds: float) -> None:
    """Note which handlers a forced exit cuts off, and let the store finish. In the watchdog's thread."""
    if isinstance(store, EndableStore):
        now = time.monotonic()
        try:
            for bot in bots:
                store.submit_from_thread(bot.user, bot.long_attempts(now))
        finally:  # the event loop may run beside this thread and change what is read here
            store.finish(seconds)
