"""How quickly the others go on when a replica is killed, and how quickly one that joins has its share.

Quietly: the service does nothing to anybody, and nothing else happens to replicas. `python -m tests.soak --replicas 4`
measures the same while everything happens.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import anyio

from chatbot.model import UserId
from chatbot.stores.shards import SHARDS
from tests.benchmarks.frame import Frame, Row
from tests.chaos.processes import Daemon, running_service
from tests.soak.people import Person
from tests.soak.replicas import ReplicaSoak, Takeovers, set_up
from tests.soak.soak import Plan
from tests.support.postgres import PostgresServer

REPLICAS: Final = 3
THREADS: Final = 24
KILLS: Final = 12
SHARES_SECONDS: Final = 60.0


def rows(frame: Frame, url: str) -> list[Row]:
    """Kill one replica after the other, each once all have their share again."""
    count, threads, kills = (2, 4, 1) if frame.quick else (REPLICAS, THREADS, KILLS)
    found = anyio.run(_measured, frame, url, count, threads, kills)
    return [
        *_rows("a kill to the first poll by another", found.kills, "s", "≤ 1.5 s", "≤ 8 s"),
        *_rows("a kill to the poll of each of its threads", found.threads, "s"),
        *_rows("a join to its share of the threads", found.joins, "s", "", "≤ 2 s"),
    ]


def _rows(name: str, seconds: Sequence[float], unit: str, target: str = "", worst: str = "") -> list[Row]:
    if not seconds:
        return [Row(f"failover: {name}", None, unit, note="not seen")]
    note = f"of {len(seconds)}"
    return [
        Row(f"failover: {name}, median", statistics.median(seconds), unit, target=target, note=note),
        Row(f"failover: {name}, worst", max(seconds), unit, target=worst),
    ]


async def _measured(frame: Frame, url: str, count: int, threads: int, kills: int) -> Takeovers:
    directory = frame.workdir / "failover"
    directory.mkdir()

    def configure(here: Path, connection_string: str, store: str, user: UserId) -> Daemon:
        return Daemon.set_up(here, connection_string, interval="1s", idle="20s", store=store, user=user)

    async with (
        running_service() as service,
        set_up(count, directory, service, url, configure) as replicas,
        service.resource() as resource,
        anyio.create_task_group() as group,
    ):
        soak = ReplicaSoak(Plan(seconds=0, threads=threads, kills=kills, seed=1, pause=1), service, replicas, url)
        await soak.start(group)
        bot = UserId(replicas[0].daemon.user)
        for number in range(threads):
            person = Person(resource, random.Random(number), 1.0)
            await person.come(bot)
            await person.say("say {}")
        await soak.kill_in_turn(kills, frame.say)
        await soak.stop()
        group.cancel_scope.cancel()
    return soak.takeovers


def await_shares(server: PostgresServer, url: str, replicas: int) -> None:
    """Wait until so many replicas have their share each.

    Raises:
        RuntimeError: they do not get it.
    """
    schema = url.rpartition("=")[2]
    query = f"SELECT count(*) FROM {schema}.shard WHERE id > 0 AND owner <> '' GROUP BY owner"
    until = time.monotonic() + SHARES_SECONDS
    while time.monotonic() < until:
        shares = sorted(map(int, server.psql(query).split()))
        if len(shares) == replicas and shares[0] >= SHARDS // replicas:
            return
        time.sleep(0.2)
    message = f"{replicas} replicas do not share the threads"
    raise RuntimeError(message)
