"""One process of bots: opens what they need, runs them until they are stopped, and closes everything in order."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio
import structlog

from chatbot.bot import Bot
from chatbot.bot.ownership import Everything
from chatbot.bot.status import wait_until_caught_up
from chatbot.config import Config, LogConfig
from chatbot.dispatch import HandlerRegistry
from chatbot.errors import StoreError
from chatbot.runtime.admin_api import AdminApi, ControlApi, answerers, audit
from chatbot.runtime.assemble import Runtime, explaining
from chatbot.runtime.connection import Connection
from chatbot.runtime.control_socket import listening
from chatbot.runtime.demo_thread import open_lobby
from chatbot.runtime.forced_exit import ForcedExit
from chatbot.runtime.observe.counters import BotCounters
from chatbot.runtime.observe.status import StatusMonitor
from chatbot.runtime.pauses import Pauses, is_paused
from chatbot.runtime.plugins import Plugins
from chatbot.runtime.reloading import Reloader
from chatbot.runtime.run_directory import ControlDirectory, RunInfo, RunningBot
from chatbot.runtime.sandbox import Sandbox
from chatbot.runtime.signals import hangups
from chatbot.runtime.sources import Sources
from chatbot.runtime.status_server import StatusServer
from chatbot.runtime.supervisor import Supervisor
from chatbot.runtime.systemd import SystemdNotifier
from chatbot.runtime.watchdog import HEARTBEAT_SECONDS, LoopWatchdog
from chatbot.stores import open_store
from chatbot.stores.base import EndableStore, OwnedStore, SharedStore, Store
from chatbot.worker_threads import run_in_thread

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider
    from starlette.applications import Starlette

    from chatbot.cluster.admission import Admission
    from chatbot.cluster.member import ClusterMember
    from chatbot.runtime.observe.sharing import SharingMonitor


JOIN_SECONDS: Final = 10.0
"""How long a run that ends by itself waits until other processes leave it some threads."""

DEGRADED_SECONDS: Final = 5.0
"""How often the log is told what became degraded."""


class Daemon:
    """The bots of one bots.yaml.

    Args:
        plugins: from `load_plugins`.
        control: the `.chatbot/` directory, held by the caller.
        sources: the files that the plugins were loaded from.
        read: reads the configuration again for a reload; called in a thread.
        configure_log: applies the log settings of a reloaded configuration.
        restore_log: undoes what plugins did to the log, and returns what that was.
        forced_exit: receives the signals, and ends the process if a stop does not.
        on_ready: called once other processes can find the bots.
        is_once: stop when everything that was waiting is handled.
        limit: stop after so many seconds; None is without limit.
        canary: the share of all threads that this process takes as a canary, 0 to 1; None if it is none.
        notifier: tells systemd when the process is ready, alive and stopping.
        reloads: reload when files change.
        traces: creates spans of the bots' work; None without tracing.
        sandbox: shifts the bots' clock and records what they do, for the playground; None on Azure, and without one.

    Attributes:
        has_expired: the limit has ended the bots; with `is_once`, before everything was handled.
        was_cut: a second signal ended the bots before they had finished.
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
        restore_log: Callable[[], list[str]] = list,
        forced_exit: ForcedExit,
        on_ready: Callable[[RunInfo], None] = lambda _info: None,
        is_once: bool = False,
        limit: float | None = None,
        canary: float | None = None,
        notifier: SystemdNotifier | None = None,
        reloads: bool = False,
        traces: TracerProvider | None = None,
        sandbox: Sandbox | None = None,
    ) -> None:
        self._config = config
        self._plugins = plugins
        self._control = control
        self._on_ready = on_ready
        self._is_once = is_once
        self._limit = limit
        self._canary = canary
        self._admission: Admission | None = None
        self._notifier = notifier or SystemdNotifier()
        self._reloads = reloads
        self._traces = traces
        self._sandbox = sandbox
        self._sources = sources
        self._read = read
        self._configure_log = configure_log
        self._restore_log = restore_log
        self._forced_exit = forced_exit
        self._reloader: Reloader | None = None
        self._cut_bots: Callable[[], None] = lambda: None
        self._has_bots = anyio.Event()
        self._is_restart = False
        self._ends_at: float | None = None
        self._has_abandoned: Callable[[], bool] = lambda: False
        self._status_monitor: StatusMonitor | None = None
        self._reload_is_due = False
        self.was_cut = False
        self.has_expired = False
        self._stopping = anyio.Event()
        self._log = structlog.get_logger()

    @asynccontextmanager
    async def handling_signals(self) -> AsyncIterator[None]:
        """Handle signals while the block runs.

        The first SIGTERM or Ctrl-C stops the bots in order, a second one at once. SIGHUP reloads, unless the terminal
        that the process was started from has closed: then it stops.
        """
        with anyio.CancelScope() as everything:

            def request_stop(signal: str) -> None:
                self._stop()  # first: what logs may be a plugin's
                self._log.info("daemon.stop_requested", signal=signal)

            def stop_now(signal: str) -> None:
                self.was_cut = True
                everything.cancel()
                self._log.warning("daemon.cut", signal=signal)

            def request_reload(signal: str) -> None:
                if self._is_once or self._stopping.is_set():
                    self._log.info("reload.ignored", signal=signal, reason="the bots are about to end")
                else:
                    self._log.info("reload.asked", signal=signal)
                    self._reload()

            with self._forced_exit.listening(request_stop, stop_now), hangups(request_reload, request_stop):
                yield

    async def run(self, connection: Connection) -> None:
        """Run the bots on a resource until they are stopped.

        Raises:
            ServiceError: the service cannot be reached at the start, or refuses access.
            StoreError: the store cannot be opened, read or written.
        """
        self._restore()  # plugins were imported
        if not connection.is_emulator:
            self._sandbox = None  # people's words reach nobody there
        while True:
            with anyio.CancelScope() as scope:
                self._cut_bots = scope.cancel
                await self._run_from_store(connection)
            if not scope.cancelled_caught:
                return
            self._reloader, self._is_restart = None, True
            self._log.warning("bots.restarted")

    async def _restart(self, runtime: Runtime) -> None:
        """Cut off the bots as a kill does, and start them again; see `Sandbox.restart`."""
        async with runtime.changing:
            # Before anything is cut: code that does not load must not end what runs.
            plugins = (await run_in_thread(self._sources.load, runtime.config)).plugins
            self._config, self._plugins, self._has_bots = runtime.config, plugins, anyio.Event()
            self._cut_bots()
        await self._has_bots.wait()

    async def _run_from_store(self, connection: Connection) -> None:
        """Open the store, run the bots until they are stopped, and close everything."""
        config = self._config
        # No share until the bots run: a process that hangs or fails at its start must take no threads from the others.
        store = open_store(
            config.store.get_secret_value(), base_dir=config.directory, is_shared=True, share=0.0, asks=True
        )
        self._forced_exit.drain_seconds = config.drain_timeout.total_seconds
        bots: list[Bot] = []
        counters: dict[str, BotCounters] = {}
        member, sharing = _sharing(store, bots)
        admission = self._admission = self._create_admission(store, member, bots, counters) if member else None
        permit = member.permit if member else partial(_held, store) if isinstance(store, OwnedStore) else None
        marking, owning = self._marking_clean_stop(store), _owning(store, member, admission)
        async with store, marking, owning, connection.open(permit=permit) as resource:
            self._prepare_forced_exit(store)
            runtime = Runtime(
                config=config,
                connection=connection,
                resource=resource,
                store=store,
                bots=bots,
                counters=counters,
                traces=self._traces,
                ownership=member or Everything(),
            )
            if self._sandbox is not None:
                runtime.stories, runtime.clock = self._sandbox.stories, self._sandbox.clock
            async with self._unless_stopped():
                if admission is not None:
                    await admission.check_beginning()
                with explaining(config, connection):
                    await runtime.check_identities(config)
                    runtime.bots += await runtime.create_bots(config, self._plugins)
            # From here on only the bots hold plugins: those that a reload replaces must be freed.
            plugins, self._plugins = self._plugins, {}
            if self._stopping.is_set():
                return
            status_monitor = self._status_monitor = StatusMonitor(runtime.bots, runtime.counters, store, connection)
            watchdog = LoopWatchdog(self._control, config.directory, on_check=self._notifier.alive)
            status_monitor.watchdog = watchdog
            status_monitor.sharing, status_monitor.admission = sharing, admission
            server = StatusServer(partial(_pages, status_monitor))
            bot_supervisor = Supervisor(
                [bot for bot in runtime.bots if not is_paused(bot)],
                drain_seconds=config.drain_timeout.total_seconds(),
                running=lambda names: _running([bot for bot in runtime.bots if bot.name in names]),
            )
            status_monitor.ended = bot_supervisor.ended
            self._inform_forced_exit(runtime, bot_supervisor)
            reloader = self._create_reloader(runtime, bot_supervisor, server, status_monitor)
            await reloader.log_incompatible(plugins)
            plugins = {}
            for bot in runtime.bots:
                if is_paused(bot):
                    self._log.warning("bot.paused", bot=bot.name)
            requests = member.requests if member else None
            reloads = None if self._is_once else reloader
            pauses = Pauses(runtime, bot_supervisor, requests=requests)
            caretaker = AdminApi(store, runtime.bots, requests)
            admin = ControlApi(caretaker, status_monitor, reloads, pauses, requests)
            if requests is not None:
                requests.answerers = answerers(runtime.bots, pauses, reloads)
            if self._sandbox is not None:
                self._sandbox.attach(runtime, admin, partial(self._restart, runtime))
                self._has_bots.set()
            async with (
                listening(self._control, admin.answer, config=config.path, audit=audit),
                server.open(config),
                _webhook_served(config, runtime.bots),
            ):
                async with self._unless_stopped():
                    with explaining(config, connection):
                        await self._announce(runtime)
                if not self._stopping.is_set():
                    with watchdog.watching():
                        await self._run_bots(runtime, bot_supervisor, reloader, status_monitor, member, pauses)

    def _create_admission(
        self, store: Store, member: ClusterMember, bots: Sequence[Bot], counters: Mapping[str, BotCounters]
    ) -> Admission:
        assert isinstance(store, SharedStore)
        from chatbot.cluster.admission import Admission
        from chatbot.runtime.compatibility import discontinued

        def registries() -> dict[str, HandlerRegistry]:
            if bots:
                return {bot.name: HandlerRegistry(bot.handlers.dispatcher.handlers) for bot in list(bots)}
            plugins = self._plugins  # shards may be offered before there are bots
            return {
                name: HandlerRegistry(handler for plugin in plugins[name] for handler in plugin.handlers())
                for name in plugins
            }

        async def problems(shards: frozenset[int]) -> list[str]:
            return [str(one) for one in await discontinued(store, registries, shards)]

        admission = Admission(
            store,
            self._canary,
            problems=problems,
            counts=lambda: {name: one.events for name, one in counters.items()},
            owned=lambda: member.owned,
        )
        member.consider = admission.consider
        return admission

    @property
    def has_handed_back(self) -> bool:
        """Whether this was a canary whose handlers failed more often than those of the others."""
        return self._admission is not None and self._admission.verdict is not None

    def _create_reloader(
        self, runtime: Runtime, bot_supervisor: Supervisor, server: StatusServer, status_monitor: StatusMonitor
    ) -> Reloader:
        return Reloader(
            runtime,
            bot_supervisor,
            server,
            self._sources,
            read=self._read,
            configure_log=self._configure_log,
            publish=lambda: self._publish(runtime),
            last_reload=status_monitor.last_reload,
            notifier=self._notifier,
        )

    async def _run_bots(
        self,
        runtime: Runtime,
        bot_supervisor: Supervisor,
        reloader: Reloader,
        status_monitor: StatusMonitor,
        member: ClusterMember | None,
        pauses: Pauses,
    ) -> None:
        async with anyio.create_task_group() as beside:
            if member is not None:
                beside.start_soon(pauses.watch)
            if self._admission is not None:
                beside.start_soon(self._admission.begin)
            beside.start_soon(self._send_heartbeats, status_monitor)
            beside.start_soon(_log_degraded, status_monitor)
            if self._is_once:
                beside.start_soon(self._stop_when_done, runtime.bots, member)
            if self._limit is not None:
                self._ends_at = self._ends_at or anyio.current_time() + self._limit
                beside.start_soon(self._stop_at, self._ends_at)
            beside.start_soon(reloader.run)
            self._reloader = reloader
            if self._reload_is_due:
                reloader.request()
            if self._reloads:
                beside.start_soon(reloader.watch)
            await bot_supervisor.run(self._stopping)
            beside.cancel_scope.cancel()

    @asynccontextmanager
    async def _marking_clean_stop(self, store: Store) -> AsyncIterator[None]:
        """Mark a clean stop in the store only if the block ends in order."""
        try:
            yield
        except BaseException:
            if isinstance(store, EndableStore):
                store.stay_marked()
            raise
        # A mark that is removed too early makes the next start trust handlers that killed this process.
        # If no bot has run, the attempts that the last process left unfinished are still unfinished.
        has_left_it = store.was_killed and self._reloader is None
        if (has_left_it or self._has_abandoned()) and isinstance(store, EndableStore):
            store.stay_marked()

    def _prepare_forced_exit(self, store: Store) -> None:
        if isinstance(store, EndableStore):
            self._forced_exit.on_stop = store.stop_began
            self._forced_exit.before_exit = store.finish

    def _inform_forced_exit(self, runtime: Runtime, bot_supervisor: Supervisor) -> None:
        """Let a forced exit name the running handlers, and store that it cut them off."""
        self._forced_exit.drain_seconds = lambda: bot_supervisor.drain_seconds
        self._forced_exit.describe = lambda: _running(runtime.bots)
        self._forced_exit.before_exit = lambda seconds: _record_cut_handlers(runtime.store, runtime.bots, seconds)
        self._has_abandoned = lambda: bool(runtime.shared_quotas.abandoned)

    async def _send_heartbeats(self, status_monitor: StatusMonitor) -> None:
        """Show the watchdog, until canceled, that the event loop runs, and keep the process stoppable."""
        while True:
            self._restore()
            if status_monitor.watchdog is not None:
                status_monitor.watchdog.heartbeat(status_monitor.missed())
            await anyio.sleep(HEARTBEAT_SECONDS)

    def _restore(self) -> None:
        changed = [*self._restore_log(), *self._forced_exit.restore()]
        if changed:
            self._log.warning("process.restored", changed=changed, reason="code of a plugin changed it")

    def _reload(self) -> None:
        """Request a reload; before the bots run, it waits until they do."""
        if self._reloader is None:
            self._reload_is_due = True
        else:
            self._reloader.request()

    async def _stop_when_done(self, bots: Sequence[Bot], member: ClusterMember | None) -> None:
        if member is not None:
            with anyio.move_on_after(JOIN_SECONDS):  # other processes may own everything, and give nothing up in time
                await member.has_gained.wait()
        for bot in bots:
            if not is_paused(bot):
                await wait_until_caught_up(bot)
        self._log.info("daemon.finished")
        self._stop()

    async def _stop_at(self, ends_at: float) -> None:
        await anyio.sleep_until(ends_at)
        self.has_expired = not self._stopping.is_set()
        self._log.info("daemon.limit_reached", seconds=self._limit)
        self._stop()

    def _stop(self) -> None:
        # First, so that the process ends even if what follows hangs or fails.
        self._forced_exit.begin()
        self._notifier.stopping()
        if self._status_monitor is not None:
            self._status_monitor.is_draining = True
        self._stopping.set()

    async def _announce(self, runtime: Runtime) -> None:
        """Publish that the bots run, to commands, systemd and the terminal."""
        info = await self._publish(runtime)
        if self._is_restart:
            return
        self._notifier.ready(f"Running {len(runtime.bots)} bots")
        self._on_ready(info)

    async def _publish(self, runtime: Runtime) -> RunInfo:
        """Write the run file by which commands find the bots."""
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
        await run_in_thread(self._control.publish, info)
        try:
            await runtime.note_identities()
        except StoreError as error:  # the bots run all the same; only a later loss would not be noticed
            self._log.warning("identity.not_noted", error=error)
        return info

    @asynccontextmanager
    async def _unless_stopped(self) -> AsyncIterator[None]:
        """Cancel the block when a stop is requested; before bots run there is nothing to finish."""

        async def give_up(scope: anyio.CancelScope) -> None:
            await self._stopping.wait()
            scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(give_up, group.cancel_scope)
            yield
            group.cancel_scope.cancel()


async def _held(store: OwnedStore) -> None:
    """Wait until the store is ours: until then, another process may act for the bots."""
    while not store.is_held:  # noqa: ASYNC110 time takes it away, too, which sets no event
        await anyio.sleep(0.05)


def _sharing(store: Store, bots: Sequence[Bot]) -> tuple[ClusterMember | None, SharingMonitor | None]:
    """Return what serves threads together with other processes, and what watches that; None if the store is alone."""
    if not isinstance(store, SharedStore):
        return None, None
    from chatbot.cluster.member import ClusterMember  # here: most daemons share nothing
    from chatbot.runtime.observe.sharing import SharingMonitor

    member = ClusterMember(store, lambda: bots)
    return member, SharingMonitor(member, store)


@asynccontextmanager
async def _owning(store: Store, member: ClusterMember | None, admission: Admission | None) -> AsyncIterator[None]:
    """Follow what the store decides, and cancel the block at once if the store is lost to another process.

    Raises:
        StoreError: it was.
    """
    if not isinstance(store, OwnedStore):
        yield
        return
    problem: StoreError | None = None

    async def watch(scope: anyio.CancelScope) -> None:
        nonlocal problem
        problem = await store.lost()
        structlog.get_logger().error("store.lost", reason=str(problem))
        scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(watch, group.cancel_scope)
        if member is not None:
            group.start_soon(member.run)
        if admission is not None:
            group.start_soon(admission.run)
        yield
        group.cancel_scope.cancel()
    if problem is not None:
        raise problem


def _pages(status_monitor: StatusMonitor) -> Starlette:
    # Imported here: without a status server, no web framework is loaded.
    from chatbot.runtime.status_pages import pages

    return pages(status_monitor)


@asynccontextmanager
async def _webhook_served(config: Config, bots: Sequence[Bot]) -> AsyncIterator[None]:
    """Serve the webhook of Event Grid while the block runs, if bots.yaml configures it."""
    if config.event_grid is None:
        yield
        return
    # Imported here: without the webhook, no web framework is loaded.
    from chatbot.runtime.webhook import webhook_served

    async with webhook_served(config, config.event_grid, bots):
        yield


async def _log_degraded(status_monitor: StatusMonitor) -> None:
    while True:
        status_monitor.log_degraded()
        await anyio.sleep(DEGRADED_SECONDS)


def _running(bots: Sequence[Bot]) -> str:
    """Describe the handlers that run. Callable in any thread."""
    now = time.monotonic()
    return ", ".join(f"{bot.name}: {running}" for bot in bots for running in bot.running_handlers(now))


def _record_cut_handlers(store: Store, bots: Sequence[Bot], seconds: float) -> None:
    """Store which handlers a forced exit cuts off, and let the store finish. Called in the watchdog's thread."""
    if isinstance(store, EndableStore):
        now = time.monotonic()
        try:
            for bot in bots:
                store.submit_from_thread(bot.user, bot.long_running_writes(now))
        finally:  # the event loop may run beside this thread and change what was read above, which raises
            store.finish(seconds)
