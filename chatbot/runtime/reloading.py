"""Apply changes to bots.yaml and plugins while the bots run.

Everything is read, checked, loaded and tried with the service first. If any of it fails, nothing changes, and the log
says why: a reload must never leave some bots on the new configuration and others without any. Then only the bots that
have changed are touched: new code, or another list of plugins, is swapped in between two events; a bot with other
settings finishes its current work and is started again.
"""

from __future__ import annotations

import contextvars
import os
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

import anyio
import anyio.from_thread
import anyio.lowlevel
import structlog
from msgspec import Struct

from chatbot.bot import Bot
from chatbot.config import BotConfig, Config, LogConfig
from chatbot.errors import ChatbotError, ConfigError, ServiceError
from chatbot.plugin import Plugin
from chatbot.runtime.assemble import Runtime, explaining
from chatbot.runtime.compatibility import Incompatibility, incompatibilities
from chatbot.runtime.observe.status import LOG_ADVICE, LastReload
from chatbot.runtime.pauses import is_paused
from chatbot.runtime.plugins import Plugins
from chatbot.runtime.sources import Loaded, Sources
from chatbot.runtime.status_server import StatusServer
from chatbot.runtime.supervisor import Supervisor
from chatbot.runtime.systemd import SystemdNotifier
from chatbot.runtime.watchdog import place_of
from chatbot.worker_threads import run_in_thread

LIVE: Final = ("log", "drain_timeout", "retention", "server", "reload", "allow_new_users")
"""Settings of the whole process that can change while it runs."""

_COMPARED_SEPARATELY: Final = frozenset({"version", "include", "bots"})


class Changes(Struct, frozen=True):
    """The differences between two configurations, by name.

    Args:
        added: new bots.
        removed: bots that no longer exist.
        restarted: bots whose own settings have changed.
        with_new_plugins: bots of which only the plugins, or settings of plugins, have changed.
        applied: settings of the whole process that can change now.
        postponed: settings of the whole process that need a restart.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    restarted: tuple[str, ...] = ()
    with_new_plugins: tuple[str, ...] = ()
    applied: tuple[str, ...] = ()
    postponed: tuple[str, ...] = ()

    @classmethod
    def between(cls, old: Config, new: Config) -> Self:
        """Compare the configuration in force with a new one.

        Args:
            old: the configuration in force.
            new: the configuration to apply.
        """
        kept = [name for name in new.bots if name in old.bots and new.bots[name] != old.bots[name]]
        with_new_plugins = [
            name for name in kept if _without_plugins(new.bots[name]) == _without_plugins(old.bots[name])
        ]
        names = [name for name in type(new).model_fields if name not in _COMPARED_SEPARATELY]
        changed = [name for name in names if getattr(new, name) != getattr(old, name)]
        return cls(
            added=tuple(name for name in new.bots if name not in old.bots),
            removed=tuple(name for name in old.bots if name not in new.bots),
            restarted=tuple(name for name in kept if name not in with_new_plugins),
            with_new_plugins=tuple(with_new_plugins),
            applied=tuple(name for name in changed if name in LIVE),
            postponed=tuple(name for name in changed if name not in LIVE),
        )

    def applied_to(self, old: Config, new: Config) -> Config:
        """Return the new configuration with the old values of what is postponed."""
        return new.model_copy(update={name: getattr(old, name) for name in self.postponed})


def _without_plugins(bot: BotConfig) -> dict[str, object]:
    return {name: getattr(bot, name) for name in type(bot).model_fields if name != "plugins"}


DEBOUNCE_MS: Final = 300
"""How long to wait for further changes: an editor writes a file in several steps."""

Outcome = Mapping[str, Sequence[str]]
"""The result of a reload: names of bots (`added`, `removed`, `restarted`, `swapped`, `kept`), and of settings of the
whole process (`applied`, and `postponed` to the next start)."""


LOAD_SECONDS: Final = 60.0
"""How long the plugins of a reload may take to be imported."""

CHECK_ADVICE: Final = "`chatbot check` shows what is wrong"
FORCE_ADVICE: Final = (
    "the new code cannot continue what the store holds (see reload.refused in the log): restore the code, "
    "or accept the loss with `chatbot reload --force`"
)


class IncompatibleCode(ConfigError):
    """New code cannot continue what the store holds."""


class LoadTimeout(ConfigError):
    """A plugin's import does not end."""


class PluginLoader:
    """Loads plugins for reloads in its own thread, which is abandoned if an import hangs.

    Args:
        directory: of bots.yaml; paths below it are shortened.
        patience: seconds that a load may take.

    Attributes:
        patience: may be changed; applies to later loads.
    """

    def __init__(self, sources: Sources, directory: Path, *, timeout_seconds: float = LOAD_SECONDS) -> None:
        self._sources = sources
        self._directory = directory
        self.timeout_seconds = timeout_seconds
        self._thread: threading.Thread | None = None  # until the event loop has seen its end

    async def load(self, config: Config, names: Collection[str]) -> Loaded:
        """Call `Sources.load` with a time limit.

        Raises:
            LoadTimeout: the import has not ended in time, or an import of an earlier reload still runs.
            ConfigError: a plugin cannot be used.
        """
        # A thread cannot be ended. While an import hangs, it holds the module's import lock and has taken modules out
        # of sys.modules: a second load would hang too, or see half of the modules.
        if self._thread is not None:
            message = "an import of an earlier reload has not ended"
            raise self._timeout_error(message)
        done, token = anyio.Event(), anyio.lowlevel.current_token()
        loaded: list[Loaded] = []
        errors: list[BaseException] = []

        def finish() -> None:
            self._thread = None
            done.set()

        def work() -> None:
            try:
                loaded.append(self._sources.load(config, names))
            except BaseException as error:  # raised again in the task that waits
                errors.append(error)
            with suppress(RuntimeError):  # the event loop has closed
                anyio.from_thread.run_sync(finish, token=token)

        # A daemon thread, so that the process can end while an import hangs.
        run = partial(contextvars.copy_context().run, work)
        self._thread = threading.Thread(target=run, name="chatbot-plugin-loader", daemon=True)
        self._thread.start()
        with anyio.move_on_after(self.timeout_seconds):
            await done.wait()
        if errors:
            raise errors[0]
        if not loaded:
            message = f"this import has not ended after {self.timeout_seconds:g} s"
            raise self._timeout_error(message)
        return loaded[0]

    def _timeout_error(self, what: str) -> LoadTimeout:
        ident = self._thread.ident if self._thread is not None else None
        frame = sys._current_frames().get(ident or 0)
        place = place_of(frame, self._directory) if frame is not None else "plugins"
        remedy = "nothing is reloaded until it ends: correct it, and restart the process if it never does"
        return LoadTimeout(f"{place}: {what}; {remedy}")


class Reloader:
    """Applies changes of bots.yaml and plugins, one reload at a time.

    All requests that come during a reload cause one more.

    Args:
        runtime: holds the bots.
        bot_supervisor: runs the bots.
        server: serves the status pages.
        sources: the files that the plugins were loaded from.
        read: reads the configuration again; called in a thread.
        configure_log: applies new log settings.
        publish: writes the run file by which commands find the bots.
        last_reload: stores the result of a reload.
        notifier: tells systemd when a reload begins and ends.
        loader: loads the plugins; by default with a limit of `LOAD_SECONDS`.
    """

    def __init__(
        self,
        runtime: Runtime,
        bot_supervisor: Supervisor,
        server: StatusServer,
        sources: Sources,
        *,
        read: Callable[[], Config],
        configure_log: Callable[[LogConfig], None],
        publish: Callable[[], Awaitable[object]],
        last_reload: LastReload,
        notifier: SystemdNotifier,
        loader: PluginLoader | None = None,
    ) -> None:
        self._runtime = runtime
        self._bot_supervisor = bot_supervisor
        self._server = server
        self._sources = sources
        self._loader = loader or PluginLoader(sources, runtime.config.directory)
        self._read = read
        self._configure_log = configure_log
        self._publish = publish
        self._last_reload = last_reload
        self._notifier = notifier
        self._requested = anyio.Event()
        self._reloaded = anyio.Event()
        self._to_retry: set[str] = set()
        self._accepted: set[Incompatibility] = set()
        self._log = structlog.get_logger()

    @property
    def drain_seconds(self) -> float:
        """How long a bot with new settings may take to finish its current work."""
        return self._bot_supervisor.drain_seconds

    def request(self) -> None:
        """Request a reload; `run` does it."""
        self._requested.set()

    async def run(self) -> None:
        """Reload on request, until canceled. A refused reload is logged."""
        while True:
            await self._requested.wait()
            self._requested = anyio.Event()
            try:
                await self.reload()
            except ChatbotError:
                pass  # `reload` has logged it
            except Exception:
                self._log.exception("reload.failed")

    async def watch(self) -> None:
        """Request a reload whenever a Python or YAML file changes in the directory of bots.yaml.

        This includes links that are replaced, and plugins' files elsewhere to which links lead.
        """
        directory = self._runtime.config.directory
        self._log.info("plugins.watched", directory=str(directory))
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch_linked)
            async for _ in _changes(directory):
                self.request()

    async def _watch_linked(self) -> None:
        while True:
            linked = await run_in_thread(self._sources.linked_directories)
            reloaded = self._reloaded
            async with anyio.create_task_group() as group:
                if linked:
                    group.start_soon(self._watch_directories, linked)
                while linked == await run_in_thread(self._sources.linked_directories):
                    await reloaded.wait()
                    reloaded = self._reloaded
                group.cancel_scope.cancel()

    async def _watch_directories(self, directories: Collection[Path]) -> None:
        existing = [directory for directory in directories if directory.is_dir()]
        if not existing:
            return
        async for _ in _changes(*existing, recursive=False):
            self.request()

    async def reload(self, *, is_forced: bool = False, are_new_users_allowed: bool = False) -> Outcome:
        """Apply what has changed.

        Args:
            is_forced: also accept new code that cannot continue what the store holds.
            are_new_users_allowed: also start bots as new users that had another one before.

        Raises:
            ConfigError: bots.yaml or a plugin cannot be used, or new code cannot continue what the store holds.
            ServiceError: the service cannot be reached, or refuses a new bot.
            StateError: the status server cannot listen on its new address.
            StoreError: the store cannot be read or written.
        """
        # One at a time: each reload compares with the configuration that the one before has put in force.
        async with self._runtime.changing:
            self._notifier.reloading()
            result = "the last reload failed: see the log"
            try:
                outcome = await self._reload(is_forced=is_forced, are_new_users_allowed=are_new_users_allowed)
                result = "reloaded"
                self._last_reload.record(is_refused=False, postponed=tuple(outcome["postponed"]))
            except ChatbotError as error:
                result = "the last reload was refused: see the log"
                for problem in error.problems if isinstance(error, ConfigError) else [str(error)]:
                    self._log.error("reload.refused", problem=problem)
                self._last_reload.record(is_refused=True, advice=_advice(error))
                raise
            finally:
                self._reloaded.set()
                self._reloaded = anyio.Event()
                self._notifier.ready(f"Running {len(self._runtime.bots)} bots; {result}")
            return outcome

    async def log_incompatible(self, plugins: Plugins) -> None:
        """Log at the start what the store holds that the code cannot continue. Nothing is refused.

        Later reloads are not refused for the same findings.
        """
        found = await incompatibilities(self._runtime.store, plugins)
        self._accepted.update(found)
        for one in found:
            self._log.warning("store.mismatched", bot=one.bot, problem=one.problem)

    async def _check_store(self, plugins: Plugins, *, is_refusing: bool) -> None:
        """Refuse, or log, that new code cannot continue what the store holds and the old code can."""
        found = await incompatibilities(self._runtime.store, plugins)
        fresh = [one for one in found if one not in self._accepted]
        losses = [one for one in fresh if one.loses_data]
        if losses and is_refusing:
            remedy = "restore the code, or accept the loss: chatbot reload --force (reload: {incompatible: warn})"
            raise IncompatibleCode(*(f"{one}; {remedy}" for one in losses))
        for one in fresh:
            self._log.warning("store.mismatched", bot=one.bot, problem=one.problem)
        self._accepted.update(found)

    async def _reload(self, *, is_forced: bool, are_new_users_allowed: bool) -> Outcome:
        runtime = self._runtime
        new = await run_in_thread(self._read)
        changes = Changes.between(runtime.config, new)
        config = changes.applied_to(runtime.config, new)
        recreated = {*changes.added, *changes.restarted}
        names = recreated | set(changes.with_new_plugins) | (self._to_retry & config.bots.keys())
        try:
            loaded = await self._loader.load(config, names)
        except LoadTimeout:
            # If the import ends later, the new modules count as loaded, but no bot has them.
            self._to_retry.update(config.bots)
            raise
        is_refusing = not is_forced and config.reload.incompatible == "refuse"
        try:
            await self._check_store(loaded.plugins, is_refusing=is_refusing)
            with explaining(config, runtime.connection):
                await runtime.check_identities(config, are_new_users_allowed=are_new_users_allowed)
                bots = await runtime.create_bots(config, loaded.plugins, recreated)
            await self._server.move(config)
        except BaseException:
            # The changed files count as loaded, so without this the next reload would find nothing to swap.
            self._to_retry.update(loaded.plugins)
            raise

        # Everything that can be refused is above. From here on the new configuration is in force and cannot be undone.
        return await self._apply(config, changes, loaded, bots)

    async def _apply(self, config: Config, changes: Changes, loaded: Loaded, bots: Sequence[Bot]) -> Outcome:
        """Put a configuration that was accepted in force.

        Args:
            config: the configuration.
            changes: how it differs from the one in force.
            loaded: plugins that were loaded.
            bots: bots that were created; those that are restarted replace one that runs.
        """
        self._runtime.apply(config)
        self._bot_supervisor.drain_seconds = config.drain_timeout.total_seconds()
        self._configure_log(config.log)
        swapped: list[str] = []
        kept: list[str] = []
        for name in loaded.plugins.keys() - {*changes.added, *changes.restarted}:
            is_swapped = await self._swap(name, loaded.plugins[name], loaded.changes.get(name, ()))
            (swapped if is_swapped else kept).append(name)
        # A bot that was renamed is the same user: two of it at a time would both answer, so the old one ends first.
        users = {bot.user for bot in bots}
        renamed = [name for name in changes.removed if self._runtime.bot(name).user in users]
        for name in renamed:
            await self._remove(name)
        async with anyio.create_task_group() as group:
            for name in changes.removed:
                if name not in renamed:
                    group.start_soon(self._remove, name)
            for bot in bots:
                group.start_soon(self._replace, bot, bot.name in changes.restarted)
        if bots or changes.removed:
            await self._publish_all()
        return self._report(changes, swapped, kept)

    async def _swap(self, name: str, plugins: Sequence[Plugin], changed: Sequence[str]) -> bool:
        """Swap a bot's plugins. A bot that cannot use them keeps the old ones until the next reload."""
        try:
            with anyio.fail_after(self._bot_supervisor.drain_seconds):
                await self._runtime.bot(name).use_plugins(plugins)
        except Exception as error:
            self._log.error("plugins.kept", bot=name, problem=error, exc_info=error)
            self._to_retry.add(name)
            return False
        self._to_retry.discard(name)
        self._log.info("plugins.swapped", bot=name, changed=list(changed))
        return True

    async def _remove(self, name: str) -> None:
        await self._bot_supervisor.stop_bot(name)
        self._runtime.remove(name)
        self._to_retry.discard(name)

    async def _replace(self, bot: Bot, has_predecessor: bool) -> None:
        if has_predecessor:
            await self._bot_supervisor.stop_bot(bot.name)
        self._runtime.put(bot)
        self._to_retry.discard(bot.name)
        if not is_paused(bot):
            self._bot_supervisor.start_bot(bot)

    async def _publish_all(self) -> None:
        try:
            await self._publish()
        except ServiceError as error:  # bots work without the lobby
            self._log.warning("lobby.unchanged", error=str(error))

    def _report(self, changes: Changes, swapped: Sequence[str], kept: Sequence[str]) -> Outcome:
        outcome: dict[str, Any] = {
            "added": list(changes.added),
            "removed": list(changes.removed),
            "restarted": list(changes.restarted),
            "swapped": sorted(swapped),
            "kept": sorted(kept),
            "applied": list(changes.applied),
            "postponed": list(changes.postponed),
        }
        done = {what: names for what, names in outcome.items() if names}
        self._log.info("reload.finished", **(done or {"note": "nothing has changed"}))
        if changes.postponed:
            hint = "these settings are applied at the next start; until then the old ones are in force"
            self._log.warning("restart.needed", settings=list(changes.postponed), hint=hint)
        return outcome


def _advice(error: ChatbotError) -> str:
    """Return the remedy for a refused reload. `chatbot check` finds only errors in files."""
    if isinstance(error, IncompatibleCode):
        return FORCE_ADVICE
    is_in_files = isinstance(error, ConfigError) and not isinstance(error, LoadTimeout)
    return CHECK_ADVICE if is_in_files else LOG_ADVICE


def _changes(*directories: Path, recursive: bool = True) -> AsyncIterator[object]:
    """Yield when Python files, YAML files or links change in these directories."""
    from watchfiles import Change, DefaultFilter, awatch  # here, because only `--reload` needs it

    is_of_interest = DefaultFilter()

    def is_ours(change: Change, path: str) -> bool:
        is_source = path.endswith((".py", ".pyx", ".pyd", ".yaml", ".yml"))
        return is_of_interest(change, path) and (is_source or os.path.islink(path))

    return awatch(*directories, watch_filter=is_ours, debounce=DEBOUNCE_MS, recursive=recursive)
