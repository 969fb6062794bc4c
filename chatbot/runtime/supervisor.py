"""Runs bots side by side until they are stopped, and restarts one that fails while the others continue.

Single bots can be stopped and started meanwhile.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final, Protocol

import anyio
import structlog
from anyio.abc import TaskGroup

from chatbot.dispatch.author_code import Uncancelled
from chatbot.errors import AbnormalExit, kind_of

MAX_PAUSE_SECONDS: Final = 60.0
"""The longest pause between restarts, in seconds."""

HEALTHY_AFTER: Final = 60.0
"""Seconds after which a restarted bot counts as healthy: the pause between restarts starts over."""


class Runnable(Protocol):
    """What a supervisor runs: a bot."""

    @property
    def name(self) -> str:
        """Its name in bots.yaml."""
        ...

    async def run(self, stopping: anyio.Event) -> None:
        """Work until `stopping` is set, finish the current work, and return."""
        ...


class _Run:
    """One run of a bot, from its start to its end."""

    def __init__(self, bot: Runnable) -> None:
        self.bot = bot
        self.stopping = anyio.Event()
        self.ended = anyio.Event()
        self._scope = anyio.CancelScope()

    async def run(self) -> None:
        try:
            with self._scope:
                async with Uncancelled():
                    await keep_running(self.bot, self.stopping)
        except AbnormalExit:
            # Kept from the task group, which would cancel the other bots. Health reports it: see `Supervisor.ended`.
            structlog.get_logger().exception("bot.ended", bot=self.bot.name)
        finally:
            self.ended.set()

    def cut(self) -> None:
        self._scope.cancel()


class Supervisor:
    """Runs, restarts and stops bots.

    Args:
        bots: the bots to start with, with unique names.
        drain_seconds: how long bots may take to finish; then they are canceled, which is logged.
        running: describes the handlers that run in these bots, for the log.

    Attributes:
        drain_seconds: may be changed; applies to later stops.
    """

    def __init__(
        self,
        bots: Iterable[Runnable],
        *,
        drain_seconds: float,
        running: Callable[[Collection[str]], str] = lambda _names: "",
    ) -> None:
        self._running = running
        self.drain_seconds = drain_seconds
        self._runs = {bot.name: _Run(bot) for bot in bots}
        self._group: TaskGroup | None = None
        self._is_ending = False

    async def run(self, stopping: anyio.Event) -> None:
        """Run the bots until `stopping` is set and they have finished."""
        async with anyio.create_task_group() as self._group:
            for run in self._runs.values():
                self._group.start_soon(run.run)
            await stopping.wait()
            self._is_ending = True
            await self._stop(list(self._runs.values()))

    def start_bot(self, bot: Runnable) -> None:
        """Start another bot, unless all bots are stopping."""
        if self._is_ending:
            return
        self._runs[bot.name] = run = _Run(bot)
        if self._group is not None:
            self._group.start_soon(run.run)

    def ended(self) -> list[str]:
        """Return the bots that ended without a request, and that nothing will restart."""
        return [name for name, run in self._runs.items() if run.ended.is_set() and not run.stopping.is_set()]

    async def stop_bot(self, name: str) -> None:
        """Stop a bot, if it runs; return when it has finished or was canceled."""
        run = self._runs.get(name)
        if run is not None:
            await self._stop([run])
            del self._runs[name]

    async def _stop(self, runs: Sequence[_Run]) -> None:
        for run in runs:
            run.stopping.set()
        with anyio.move_on_after(self.drain_seconds):
            for run in runs:
                await run.ended.wait()
        late = [run for run in runs if not run.ended.is_set()]
        if late:
            names = sorted(run.bot.name for run in late)
            running = self._running(names)
            structlog.get_logger().warning("bots.cut", bots=names, drain_seconds=self.drain_seconds, running=running)
        for run in late:
            run.cut()
            await run.ended.wait()


async def keep_running(
    bot: Runnable,
    stopping: anyio.Event,
    *,
    jitter: Callable[[float], float] = lambda pause: random.uniform(pause / 2, pause),  # noqa: S311 - no secret
) -> None:
    """Run a bot, and restart it whenever it fails, after a growing pause.

    The first failure is logged with its traceback; failures of the same kind that follow are only counted.
    """
    log = structlog.get_logger().bind(bot=bot.name)
    crashes, kind = 0, ""
    while not stopping.is_set():
        begun = anyio.current_time()
        try:
            async with Uncancelled():
                await bot.run(stopping)
            if stopping.is_set():
                return
            message = "the bot ended by itself"
            raise RuntimeError(message)
        except Exception as error:
            if anyio.current_time() - begun >= HEALTHY_AFTER:
                crashes, kind = 0, ""
            crashes += 1
            pause = jitter(min(MAX_PAUSE_SECONDS, 2.0 ** min(crashes, 10) / 2))
            if kind_of(error) != kind:
                kind = kind_of(error)
                log.exception("bot.crashed", restart_in_seconds=round(pause, 1))
        with anyio.move_on_after(pause):
            await stopping.wait()
