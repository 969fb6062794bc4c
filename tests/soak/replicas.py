"""The soak of a cluster: several replicas on one PostgreSQL, killed, paused and cut off while people talk.

Each replica reaches the store and the service through a proxy of its own. So it can be cut off from one of them, and
what it polls can be seen: a thread whose owner was killed counts as taken over with the first poll of another replica.
"""

from __future__ import annotations

import math
import os
import random
import re
import signal
import statistics
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit, urlunsplit

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from chatbot.errors import ChatbotError, StoreError
from chatbot.model import ThreadId, UserId
from chatbot.stores.base import Replica, SharedStore
from chatbot.stores.postgres_server import SILENT_SECONDS
from chatbot.stores.shards import SHARDS, shard_of
from chatbot.stores.url import open_between_runs
from tests.chaos.processes import Daemon, Service
from tests.chaos.unlucky import revive_unlucky
from tests.postgres.proxy import Proxy, proxied, served
from tests.soak.soak import Plan, Soak
from tests.support.postgres import PostgresServer

PAUSE_SECONDS: Final = (SILENT_SECONDS + 1, SILENT_SECONDS + 6)
"""How long a replica is stopped, or cut off from its store: longer than its shards are kept for it."""

CUT_SECONDS: Final = (2.0, 12.0)
"""How long a replica is cut off from the service, or the store's server is down."""

JOIN_SECONDS: Final = 15.0
"""How long to wait for a replica that has joined to get its share."""

POSTGRES_PORT: Final = 5432

LOOK_SECONDS: Final = 0.1
"""Seconds between two looks at who owns what."""

WAYS: Final = ("kill",) * 6 + ("stop", "pause", "pause", "cut store", "cut store", "cut service", "reset")
"""What happens to a replica; those that are kills are counted."""

_POLL: Final = re.compile(rb"GET /chat/threads/([^/? ]+)/messages")


class Poller(Proxy):
    """A proxy to the service that notes which threads are polled, and when."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.polls: dict[ThreadId, float] = {}

    def noted(self, data: bytes) -> None:
        """Note the polls in what a client sends."""
        now = anyio.current_time()
        for found in _POLL.finditer(data):
            self.polls[ThreadId(unquote(found[1].decode()))] = now


@dataclass(slots=True)
class RunningReplica:
    """A replica: its processes, one after the other, and what is between it and the others.

    Args:
        daemon: the processes.
        store: between it and the store.
        service: between it and the service.
    """

    daemon: Daemon
    store: Proxy
    service: Poller
    is_disturbed: bool = False


@dataclass(slots=True)
class Takeovers:
    """How quickly others went on, in seconds.

    Args:
        kills: from each kill to the first poll by another replica in a thread of the killed one.
        threads: from a kill to the first poll by another replica, by thread.
        pauses: the same for replicas that were stopped or cut off from the store.
        joins: from the join of each replica until it owned its share.
        shards: how long each shard was without owner.
    """

    kills: list[float] = field(default_factory=list)
    threads: list[float] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    joins: list[float] = field(default_factory=list)
    shards: list[float] = field(default_factory=list)


class ReplicaSoak(Soak):
    """One run with several replicas.

    Args:
        plan: what is to be done.
        service: where; no faults are in force yet.
        replicas: who is tried; not started yet.
        url: of the store, not through a proxy.
        server: the store's server, if it may be restarted.
        standby: a synchronous standby of it, which takes over in the end.

    Attributes:
        takeovers: how quickly others went on.
        disturbances: what was done to replicas and to the server, and how often.
    """

    def __init__(
        self,
        plan: Plan,
        service: Service,
        replicas: Sequence[RunningReplica],
        url: str,
        server: PostgresServer | None = None,
        standby: PostgresServer | None = None,
    ) -> None:
        super().__init__(plan, service, replicas[0].daemon)
        self.takeovers = Takeovers()
        self.disturbances: dict[str, int] = {}
        self._replicas = replicas
        self._url = url
        self._observer = Proxy(urlsplit(url).port or POSTGRES_PORT)
        self._server = server
        self._standby = standby
        self._owners: dict[int, str] = {}
        self._names: dict[str, RunningReplica] = {}

    # ── running them ──────────────────────────────────────────────────────────────────────────────────────────────

    async def start(self, group: TaskGroup) -> None:
        """Keep all replicas running."""
        for replica in self._replicas:
            group.start_soon(replica.daemon.keep_running)
        for replica in self._replicas:
            await replica.daemon.ready()
        group.start_soon(self._watch)

    async def stop(self) -> int:
        """Ask all to end, one after the other; return the exit code that is not 0, if there is one."""
        codes = [await replica.daemon.stop() for replica in self._replicas]
        return next((code for code in codes if code), 0)

    @property
    def memory(self) -> float:
        """What the largest of them holds, in MiB."""
        return max(replica.daemon.memory for replica in self._replicas)

    async def all_ready(self) -> None:
        """Wait until the bots of all replicas run."""
        for replica in self._replicas:
            await replica.daemon.ready()

    # ── disturbing them ───────────────────────────────────────────────────────────────────────────────────────────

    async def kill_until(self, end: float) -> None:
        """Kill, stop, pause and cut off replicas at random, several at a time, until enough were killed."""
        dice = random.Random(f"{self.plan.seed} disturbances")
        async with anyio.create_task_group() as group:
            if self._server is not None:
                group.start_soon(self._restart_server, dice, end)
            while self.kills < self.plan.kills:
                gap = max(0.2, (end - anyio.current_time()) / (self.plan.kills - self.kills))
                # Kills are a part of what is done, so the pauses between two are as much shorter.
                await anyio.sleep(dice.uniform(0, 2 * gap * WAYS.count("kill") / len(WAYS)))
                free = [one for one in self._replicas if not one.is_disturbed and one.daemon.is_ready]
                if len(free) > 1:  # one at least goes on
                    group.start_soon(self._disturb, dice.choice(free), dice.choice(WAYS), dice)
        await self.all_ready()

    async def kill_in_turn(self, kills: int, say: Callable[[str], None]) -> None:
        """Kill one replica after the other, each when all run and have had their share again.

        Args:
            kills: how often.
            say: is told of each kill.
        """
        dice = random.Random(f"{self.plan.seed} turns")
        joined = 0
        for number in range(kills + 1):
            await self.all_ready()
            with anyio.move_on_after(JOIN_SECONDS):  # where it does not get it, fewer joins are reported
                while len(self.takeovers.joins) <= joined and number:  # noqa: ASYNC110 other processes are waited for
                    await anyio.sleep(LOOK_SECONDS)
            joined = len(self.takeovers.joins)
            if number < kills:
                await anyio.sleep(dice.uniform(1, 2))  # not in step with what they do every second
                say(f"kill {number + 1} of {kills}")
                await self._disturb(self._replicas[number % len(self._replicas)], "kill", dice)

    async def _disturb(self, replica: RunningReplica, way: str, dice: random.Random) -> None:
        replica.is_disturbed = True
        self._count(way)
        owned, at = self._threads_of(replica), anyio.current_time()
        try:
            match way:
                case "kill":
                    self.kills += replica.daemon.kill()
                    await self._note_takeover(replica, owned, at, self.takeovers.kills)
                case "stop":
                    self.findings.terms += replica.daemon.terminate()
                case "pause":
                    await self._pause(replica, owned, at, dice.uniform(*PAUSE_SECONDS))
                case "cut store":
                    replica.store.is_silent = True
                    await self._note_takeover(replica, owned, at, self.takeovers.pauses, dice.uniform(*PAUSE_SECONDS))
                case "cut service":
                    replica.service.is_silent = True
                    await anyio.sleep(dice.uniform(*CUT_SECONDS))
                case _:
                    replica.store.cut()
        finally:
            replica.store.is_silent = replica.service.is_silent = replica.is_disturbed = False

    async def _pause(self, replica: RunningReplica, owned: set[ThreadId], at: float, seconds: float) -> None:
        pid = replica.daemon.pid
        if pid is None:
            return
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            try:
                await self._note_takeover(replica, owned, at, self.takeovers.pauses, seconds)
            finally:
                os.kill(pid, signal.SIGCONT)

    async def _restart_server(self, dice: random.Random, end: float) -> None:
        """Restart the store's server twice: in order, and as after a crash, from which its standby may take over."""
        assert self._server is not None
        seconds = end - anyio.current_time()
        for how in (signal.SIGINT, signal.SIGQUIT):
            await anyio.sleep(seconds / 3)
            has_standby = self._standby is not None and how == signal.SIGQUIT
            self._count("failover to the standby" if has_standby else "restart of the server")
            await anyio.to_thread.run_sync(self._server.stop, how)
            await anyio.sleep(dice.uniform(0, CUT_SECONDS[0]))
            if has_standby:
                await self._fail_over()
            else:
                await anyio.to_thread.run_sync(self._server.start)

    async def _fail_over(self) -> None:
        """Let the standby take over, under the name of the server that is gone."""
        assert self._standby is not None
        await anyio.to_thread.run_sync(self._standby.psql, "SELECT pg_promote()")
        for replica in self._replicas:
            replica.store.server_port = self._standby.port
        self._observer.server_port = self._standby.port

    def _count(self, disturbance: str) -> None:
        self.disturbances[disturbance] = self.disturbances.get(disturbance, 0) + 1

    # ── looking at them ───────────────────────────────────────────────────────────────────────────────────────────

    def _threads_of(self, replica: RunningReplica) -> set[ThreadId]:
        """Return the threads that a replica owns now, of those that it has polled."""
        names = {name for name, one in self._names.items() if one is replica}
        owned = {shard for shard, name in self._owners.items() if name in names}
        return {thread for thread in replica.service.polls if shard_of(thread) in owned}

    async def _note_takeover(
        self,
        replica: RunningReplica,
        owned: set[ThreadId],
        at: float,
        record: list[float],
        seconds: float = 3 * SILENT_SECONDS,
    ) -> None:
        """Note, for some seconds, when others poll the threads of a replica that no longer can."""
        waiting = set(owned)
        while waiting and anyio.current_time() < at + seconds:
            await anyio.sleep(0.02)
            for thread in list(waiting):
                polls = [one.service.polls.get(thread, 0.0) for one in self._replicas if one is not replica]
                if (first := min((poll for poll in polls if poll > at), default=None)) is not None:
                    if len(waiting) == len(owned):
                        record.append(first - at)
                    if record is self.takeovers.kills:
                        self.takeovers.threads.append(first - at)
                    waiting.discard(thread)
        if record is self.takeovers.pauses:
            await anyio.sleep(max(0.0, at + seconds - anyio.current_time()))

    async def _watch(self) -> None:
        """Look at who owns what, as `chatbot cluster status` does."""
        free_since: dict[int, float] = {}
        joining: dict[str, float] = {}
        known: set[str] | None = None
        async with served(self._observer) as observer, opened(_through(observer, self._url)) as store:
            while True:
                replicas, now = await _replicas_of(store), anyio.current_time()
                if replicas is not None:
                    self._note_owners(replicas)
                    self._note_free_shards(free_since, now)
                    names = {replica.name for replica in replicas}
                    joining |= dict.fromkeys(names - (names if known is None else known), now)
                    known = names
                    self._note_joins(joining, replicas, now)
                await anyio.sleep(LOOK_SECONDS)

    def _note_owners(self, replicas: Sequence[Replica]) -> None:
        self._owners = {shard: replica.name for replica in replicas for shard in replica.shards}
        pids = {one.daemon.pid: one for one in self._replicas}
        self._names = {replica.name: pids[replica.pid] for replica in replicas if replica.pid in pids}

    def _note_free_shards(self, free_since: dict[int, float], now: float) -> None:
        for shard in range(SHARDS):
            if shard not in self._owners:
                free_since.setdefault(shard, now)
            elif shard in free_since:
                self.takeovers.shards.append(now - free_since.pop(shard))

    def _note_joins(self, joining: dict[str, float], replicas: Sequence[Replica], now: float) -> None:
        share = SHARDS // max(1, len(replicas))
        owned = {replica.name: len(replica.shards) for replica in replicas}
        for name, since in list(joining.items()):
            if owned.get(name, share) >= share:
                del joining[name]
                if name in owned:
                    self.takeovers.joins.append(now - since)

    # ── the end ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def revive(self) -> list[ThreadId]:
        """See `revive_unlucky`; any replica may be asked."""
        for replica in self._replicas:
            with suppress(ChatbotError):
                return await revive_unlucky(replica.daemon)
        return await revive_unlucky(self._replicas[0].daemon)

    def said(self, event: str) -> int:
        """Return how often the replicas have logged an event."""
        return sum(replica.daemon.said[event] for replica in self._replicas)

    @property
    def codes(self) -> list[int]:
        """The exit codes of all processes that have ended."""
        return [code for replica in self._replicas for code in replica.daemon.codes]


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[SharedStore]:
    """Open a store beside those who share it."""
    store = open_between_runs(url, base_dir=Path())
    assert store is not None
    async with store:
        assert isinstance(store, SharedStore)
        yield store


async def _replicas_of(store: SharedStore) -> Sequence[Replica] | None:
    """Return who shares the store; None while its server is away."""
    try:
        return await store.replicas()
    except StoreError:
        return None


@asynccontextmanager
async def set_up(
    count: int, directory: Path, service: Service, url: str, configure: Callable[[Path, str, str, UserId], Daemon]
) -> AsyncIterator[list[RunningReplica]]:
    """Prepare replicas, each in a directory of its own and behind proxies of its own.

    Args:
        count: how many.
        directory: where their directories are made.
        service: the service.
        url: the store.
        configure: returns the daemon for a directory, a connection string, a store and the bot's user.
    """
    endpoint = urlsplit(service.endpoint)
    assert endpoint.port is not None
    async with AsyncExitStack() as exits:
        async with service.resource() as resource:
            # Not left to the first replica: behind proxies, each of them would take the service for another one.
            user = await resource.create_user()
        replicas = []
        for number in range(1, count + 1):
            here = directory / f"replica-{number}"
            here.mkdir()
            to_service = await exits.enter_async_context(served(Poller(endpoint.port)))
            to_store = await exits.enter_async_context(proxied(urlsplit(url).port or POSTGRES_PORT))
            text = service.connection_string.replace(f":{endpoint.port}", f":{to_service.port}")
            daemon = configure(here, text, _through(to_store, url), user)
            replicas.append(RunningReplica(daemon, to_store, to_service))
        yield replicas


def _through(proxy: Proxy, url: str) -> str:
    """Return the URL of a store as it is reached through a proxy."""
    parts = urlsplit(url)
    credentials, at, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{credentials}{at}127.0.0.1:{proxy.port}"))


def describe(seconds: Sequence[float]) -> str:
    """Return the median, the 95th percentile and the longest of some times."""
    if not seconds:
        return "none"
    ordered = sorted(seconds)
    return (
        f"{statistics.median(ordered):.2f}, {ordered[math.ceil(0.95 * len(ordered)) - 1]:.2f}, {ordered[-1]:.2f} s"
        f" ({len(ordered)})"
    )
