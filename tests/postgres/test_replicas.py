"""Several real daemons on one real PostgreSQL: they share the threads, and each takes over from the others."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from tests.chaos.processes import Daemon
from tests.chaos.stage import Stage, Talk, chaos

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(600)]

REPLICAS = 3
TALKS = 8
MESSAGES = 5


@asynccontextmanager
async def replicas(directory: Path, store: str) -> AsyncGenerator[tuple[Stage, list[Daemon]]]:
    """Run several daemons of one bot; each is started again whenever it has ended."""
    for number in range(REPLICAS):
        (directory / f"{number}").mkdir()
    async with chaos(directory / "0", store) as stage, anyio.create_task_group() as group:
        service = stage.service.connection_string
        others = [
            Daemon.set_up(directory / f"{number}", service, interval="300ms", idle="5s", store=store)
            for number in range(1, REPLICAS)
        ]
        for other in others:
            group.start_soon(other.keep_running)
        await stage.start()
        for other in others:
            await other.ready()
        daemons = [stage.daemon, *others]
        assert {daemon.user for daemon in daemons} == {stage.user}  # although all of them have started together
        yield stage, daemons
        for daemon in daemons:
            await daemon.stop()


async def chatter(talk: Talk, dice: random.Random, count: int) -> None:
    for number in range(count):
        await anyio.sleep(dice.uniform(0.5, 2.5))
        await talk.say(dice.choice(("say {}", "/two {}", "/fix {}", "/count {}", "/tell {}")).format(number))


async def trouble(daemon: Daemon, dice: random.Random) -> None:
    """Kill, stop or freeze a daemon."""
    pid = daemon.pid
    if pid is None:
        return
    match dice.choice(("kill", "terminate", "freeze")):
        case "kill":
            daemon.kill()
        case "terminate":
            daemon.terminate()
        case _:
            os.kill(pid, signal.SIGSTOP)
            await anyio.sleep(8)
            os.kill(pid, signal.SIGCONT)


async def test_people_are_answered_once_and_in_order_while_replicas_come_and_go(
    tmp_path: Path, postgres_url: str
) -> None:
    dice = random.Random(int(os.environ.get("REPLICA_SEED", "7")))
    async with replicas(tmp_path, postgres_url) as (stage, daemons):
        async with anyio.create_task_group() as people:
            for number in range(TALKS):
                people.start_soon(chatter, await stage.talk(), random.Random(number), MESSAGES)
            for _ in range(4):
                await anyio.sleep(dice.uniform(1.0, 3.0))
                await trouble(dice.choice(daemons), dice)
        verdict = await stage.settled()
        await anyio.sleep(3)  # for doubles, which are found a little later
        verdict = await stage.verdict()

        assert verdict.is_clean, verdict
        assert verdict.sent == TALKS * MESSAGES
    assert {daemon.codes[-1] for daemon in daemons} == {0}
