"""The scenarios of the simulation on a real server and in real time: its model of the locks does what the server does.

The replicas run in this process. Each reaches the server through a proxy of its own, and a thread of its own, which is
blocked to pause it.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Collection, Iterator
from functools import partial
from types import TracebackType
from typing import Any

import anyio
import pytest
from anyio.abc import TaskStatus
from blockbuster import BlockBuster

from chatbot.stores.postgres import PostgresStore
from tests.cluster.cluster import Replica
from tests.cluster.gate import Gate
from tests.postgres.proxy import Proxy, served
from tests.simulation.oracle import Oracle, Problem
from tests.simulation.plugins import Ways
from tests.simulation.scenarios import SCENARIOS
from tests.simulation.story import Story
from tests.simulation.world import Play, SimulatedCluster
from tests.support.postgres import running_server

pytestmark = pytest.mark.postgres

LOOK_SECONDS = 0.2


class NetworkGate(Gate):
    """A gate whose way to the database is a real one."""

    def __init__(self, server_port: int) -> None:
        self.proxy = Proxy(server_port)
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self.store: PostgresStore | None = None
        self._wakes: list[int] = []
        super().__init__(anyio.current_time)

    @property
    def is_cut_from_database(self) -> bool:
        return self.proxy.is_refusing or self.proxy.is_silent

    @is_cut_from_database.setter
    def is_cut_from_database(self, is_cut: bool) -> None:
        self.proxy.is_silent = is_cut and self.is_silent
        self.proxy.is_refusing = is_cut and not self.is_silent
        if self.proxy.is_refusing:
            self.proxy.cut()

    def close(self) -> None:
        """Pause the replica, with the thread of its store."""
        thread = None if self.store is None else self.store._thread  # noqa: SLF001 - as SIGSTOP does, which asks nobody
        if not self.is_closed and thread is not None:
            read, wake = os.pipe()
            self._wakes.append(wake)
            thread._loop.call_soon_threadsafe(_block, read)  # noqa: SLF001 - see above
        super().close()

    def open(self) -> None:
        """Let it go on."""
        self._wake()
        super().open()

    def die(self) -> None:
        """Let nothing pass any more; the system of a killed process ends its connections."""
        super().die()
        self._wake()
        self.proxy.is_refusing = True
        self.proxy.cut()

    def _wake(self) -> None:
        while self._wakes:
            os.close(self._wakes.pop())


def _block(read: int) -> None:
    """Block this thread until the other end of the pipe is closed."""
    select.select([read], [], [])
    os.close(read)


class RealReplica(Replica):
    """A replica on a real server."""

    store: PostgresStore
    gate: NetworkGate

    @property
    def is_running(self) -> bool:
        return super().is_running and not self.gate.is_dead

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        self.gate.store = self.store
        async with served(self.gate.proxy, self.gate.listening):
            await super().run(task_status=task_status)

    async def kill(self) -> None:
        """Kill it. What its tasks do at their end, reaches nobody."""
        self.store.stay_marked()
        self.gate.die()
        self._scope.cancel()

    async def leave(self) -> None:
        self.store.stop_began()
        self._stopping.set()
        await self._ended.wait()


class ServerView:
    """What a test sees of the database: what a process read that looked at it just now."""

    loses_notes = False

    def __init__(self, cluster: RealCluster) -> None:
        self._cluster = cluster
        self._pending: list[Any] = []
        self._owners: dict[int, str] = {}
        self._scope = anyio.CancelScope()
        self._has_looked = anyio.Event()

    async def run(self) -> None:
        with self._scope:
            async with PostgresStore(self._cluster.url, is_shared=True, is_between_runs=True) as store:
                while True:
                    self._pending = list(await store.pending(self._cluster.bot))
                    self._owners = {shard: one.name for one in await store.replicas() for shard in one.shards}
                    self._has_looked.set()
                    self._has_looked = anyio.Event()
                    await anyio.sleep(LOOK_SECONDS)

    async def refresh(self) -> None:
        """Wait for a look that has begun after this call."""
        for _ in range(2):
            await self._has_looked.wait()

    def pending(self) -> Collection[Any]:
        return self._pending

    def owners(self) -> dict[int, str]:
        return self._owners

    def close(self) -> None:
        self._scope.cancel()


class RealCluster(SimulatedCluster):
    """Replicas that share a schema of a real server."""

    replica_type = RealReplica

    def __init__(self, url: str, port: int, story: Story, oracle: Oracle, ways: Ways) -> None:
        self.url = url
        self._port = port
        super().__init__(story, oracle, ways)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.database.close()
        await super().__aexit__(kind, error, trace)

    async def join(self, *, skew: float = 0.0, limit: float | None = None) -> Replica:
        is_first = not self.replicas
        replica = await super().join(skew=skew, limit=limit)
        if is_first:  # now there are tables, and a bot
            self._group.start_soon(self.database.run)
        return replica

    def make_database(self, *_rules: object) -> Any:
        return ServerView(self)

    def make_gate(self) -> NetworkGate:
        return NetworkGate(self._port)

    def make_store(self, _name: str, gate: Any, limit: float | None) -> Any:
        url = self.url.replace(f":{self._port}/", f":{gate.port}/")
        return PostgresStore(url, is_shared=True, share=limit)


@pytest.fixture
def threads_may_wait(no_blocking: BlockBuster) -> Iterator[None]:
    """Let threads of several stores wait for each other: for the locks of imports, executors and the log."""
    no_blocking.deactivate()
    yield
    no_blocking.activate()


@pytest.mark.usefixtures("threads_may_wait")
async def test_the_scenarios_of_the_simulation_end_well_on_a_real_server() -> None:
    found: dict[str, tuple[Problem, ...]] = {}

    async def play(name: str, schema: str) -> None:
        outcome = await Play(SCENARIOS[name], partial(RealCluster, f"{server.url}?schema={schema}", server.port)).run()
        found[name] = outcome.problems

    with running_server("max_connections=300") as server:
        async with anyio.create_task_group() as group:  # at the same time: they mostly wait
            for number, name in enumerate(SCENARIOS):
                group.start_soon(play, name, f"scenario{number}")

    assert found == dict.fromkeys(SCENARIOS, ())
