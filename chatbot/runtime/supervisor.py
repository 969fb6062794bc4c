"""Bots that run side by side until they are to stop: one that dies is started again, while the others go on.

Single bots may be ended and others begun meanwhile.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final, Protocol

import anyio
import structlog
from anyio.abc import TaskGroup

from chatbot.dispatch.author_code import uncancelled
from chatbot.errors import kind_of

LONGEST_PAUSE: Final = 60.0
"""Seconds; a bot that dies again and again is tried no less often."""

HEALTHY_AFTER: Final = 60.0
"""Seconds; a bot that has run for so long is well again."""


class Runnable(Protocol):
    """What a fleet runs: a bot."""

    @property
    def name(self) -> str:
        """Its name in bots.yaml."""
        ...

    async def run(self, stopping: anyio.Event) -> None:
        """Work until `stopping` is set, finish what is in hand, return."""
        ...


class _Run:
    """One bot, from its beginning to its end."""

    def __init__(self, bot: Runnable) -> None:
        self.bot = bot
        self.stopping = anyio.Event()
        self.ended = anyio.Event()
        self._scope = anyio.CancelScope()

    async def run(self) -> None:
        try:
            with self._scope:
                await keep_running(self.bot, self.stopping)
        finally:
            self.ended.set()

    def cut(self) -> None:
        self._scope.cancel()


class Supervisor:
    """The bots that run.

    Args:
        bots: those that run from the beginning, each with a name of its own.
        drain_seconds: how long bots may take to finish; who is not done by then is cut off, and logged.
        running: says which handlers of these bots run, for the log.

    Attributes:
        drain_seconds: may be changed at any time, for all ends to come.
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
        """Run one bot more; where all are to stop already, it is not begun."""
        if self._is_ending:
            return
        self._runs[bot.name] = run = _Run(bot)
        if self._group is not None:
            self._group.start_soon(run.run)

    def ended(self) -> list[str]:
        """The bots that have ended although nobody asked them to, and that nothing will start again."""
        return [name for name, run in self._runs.items() if run.ended.is_set() and not run.stopping.is_set()]

    async def stop_bot(self, name: str) -> None:
        """Let the bot of this name finish; returns when it has, or was cut off."""
        await self._stop([self._runs[name]])
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
    """Run one bot, and run it again whenever it dies, after a pause that grows.

    The first death is logged with its traceback, the following ones are counted while they are of the same kind.
    """
    log = structlog.get_logger().bind(bot=bot.name)
    deaths, kind = 0, ""
    while not stopping.is_set():
        begun = anyio.current_time()
        try:
            await uncancelled(bot.run(stopping))
            if stopping.is_set():
                return
            message = "the bot ended by itself"
            raise RuntimeError(message)
        except Exception as error:
            if anyio.current_time() - begun >= HEALTHY_AFTER:
                deaths, kind = 0, ""
            deaths += 1
            pause = jitter(min(LONGEST_PAUSE, 2.0 ** min(deaths, 10) / 2))
            if kind_of(error) != kind:
                kind = kind_of(error)
                log.exception("bot.died", restart_in_seconds=round(pause, 1))
        with anyio.move_on_after(pause):
            await stopping.wait()
