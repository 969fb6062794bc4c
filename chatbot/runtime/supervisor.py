"""Runs bots side by side until they are to stop: one that dies is started again, while the others go on."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import anyio
import structlog

LONGEST_PAUSE: Final = 60.0
"""Seconds; a bot that dies again and again is tried no less often."""

HEALTHY_AFTER: Final = 60.0
"""Seconds; a bot that has run for so long is well again."""


class Runnable(Protocol):
    """What the supervisor runs: a bot."""

    @property
    def name(self) -> str:
        """Its name in bots.yaml."""
        ...

    async def run(self, stopping: anyio.Event) -> None:
        """Work until `stopping` is set, finish what is in hand, return."""
        ...


async def supervise(bots: Sequence[Runnable], stopping: anyio.Event, *, drain_seconds: float) -> None:
    """Run bots until `stopping` is set and they have finished.

    Args:
        drain_seconds: how long they may take to finish; who is not done by then is cut off, and logged.
    """
    left = {bot.name for bot in bots}

    async def run_one(bot: Runnable) -> None:
        await keep_running(bot, stopping)
        left.discard(bot.name)

    async def cut_off_late_ones(scope: anyio.CancelScope) -> None:
        await stopping.wait()
        await anyio.sleep(drain_seconds)
        structlog.get_logger().warning("bots.cut", bots=sorted(left), drain_seconds=drain_seconds)
        scope.cancel()

    async with anyio.create_task_group() as watched:
        watched.start_soon(cut_off_late_ones, watched.cancel_scope)
        async with anyio.create_task_group() as running:
            for bot in bots:
                running.start_soon(run_one, bot)
        watched.cancel_scope.cancel()


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
            await bot.run(stopping)
            if stopping.is_set():
                return
            message = "the bot ended by itself"
            raise RuntimeError(message)
        except Exception as error:
            if anyio.current_time() - begun >= HEALTHY_AFTER:
                deaths, kind = 0, ""
            deaths += 1
            pause = jitter(min(LONGEST_PAUSE, 2.0 ** min(deaths, 10) / 2))
            if type(error).__name__ != kind:
                kind = type(error).__name__
                log.exception("bot.died", restart_in_seconds=round(pause, 1))
        with anyio.move_on_after(pause):
            await stopping.wait()
