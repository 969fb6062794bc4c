"""The store of one replica in the model: what `PostgresStore` does with its session, over `Database`."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Generic, TypeVar

import anyio
import anyio.lowlevel

from chatbot.errors import NotOwner, StoreError
from chatbot.model import UserId
from chatbot.stores import codec, queries
from chatbot.stores.base import Replica, ShardChange, ShardsGained, ShardsLost, ShardsWanted
from chatbot.stores.postgres_session import BEAT_SECONDS, HELD_SECONDS
from chatbot.stores.queries import LastHolder, SqlStore
from chatbot.stores.shards import plan
from chatbot.stores.sql import Plan, run
from chatbot.stores.statements import statements
from chatbot.stores.writes import Write
from tests.cluster.database import Database, Session, executing
from tests.cluster.gate import Gate

T = TypeVar("T")


class Queue(Generic[T]):
    """Items in order, for one reader."""

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._has_items = anyio.Event()

    def put(self, item: T) -> None:
        """Add an item."""
        self._items.append(item)
        self._has_items.set()

    async def get(self) -> T:
        """Wait for the next item."""
        while not self._items:
            self._has_items = anyio.Event()
            await self._has_items.wait()
        return self._items.popleft()


class ModelStore(SqlStore):
    """A `SharedStore` of one replica.

    Args:
        database: the server.
        name: the name of the replica.
        gate: what separates the replica from the server.
        limit: the largest share of the shards that it takes, 0 to 1; None without one.
        held_seconds: how long a beat allows work.
    """

    def __init__(
        self,
        database: Database,
        name: str,
        gate: Gate,
        *,
        limit: float | None = None,
        held_seconds: float = HELD_SECONDS,
    ) -> None:
        self.name = name
        self.limit = limit
        self._database = database
        self._gate = gate
        self._held_seconds = held_seconds
        self._last = LastHolder()
        self._session: Session | None = None
        self._report = ""
        self._deadline = -math.inf
        self._losses = 0
        self._epochs: dict[int, int] = {}
        self._wanted: set[int] = set()
        self._changes: Queue[ShardChange] = Queue()
        self._notes: Queue[str] = Queue()
        self._exits = AsyncExitStack()

    @property
    def owned(self) -> frozenset[int]:
        """The shards that it holds, as far as it knows."""
        return frozenset(self._epochs)

    async def __aenter__(self) -> ModelStore:
        """Connect, and begin to beat."""
        await self._enter()
        self._session = self._database.connect(self.name, self._notes.put, self.limit)
        group = await self._exits.enter_async_context(anyio.create_task_group())
        self._exits.callback(group.cancel_scope.cancel)
        group.start_soon(self._beat_forever)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Release everything in order, unless the replica was killed."""
        await self._exits.aclose()
        if self._session is not None:
            if not self._gate.is_dead and exc_info[0] is None:
                self._database.release(self._session, self._epochs)
            self._database.end(self._session)

    def stop_claiming(self) -> None:
        """Take nothing any more, and let the others take what is owned: as a process does that was asked to stop."""
        self.limit = 0.0
        if self._session is not None:
            self._session.limit = 0.0

    def break_connection(self) -> None:
        """Let the server end the session at once, as when the process or its network is gone."""
        if self._session is not None:
            self._database.end(self._session)

    # ── ownership ─────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def is_held(self) -> bool:
        """See `OwnedStore.is_held`."""
        return self._gate.now() < self._deadline and not self._losses

    async def lost(self) -> StoreError:
        """See `OwnedStore.lost`: a shared store is never lost for good."""
        await anyio.sleep_forever()
        raise AssertionError

    async def next_change(self) -> ShardChange:
        """See `SharedStore.next_change`."""
        change = await self._changes.get()
        await self._gate.passing()
        if isinstance(change, ShardsLost):
            self._losses -= 1
        return change

    async def next_note(self) -> str:
        """See `SharedStore.next_note`."""
        note = await self._notes.get()
        await self._gate.passing()
        return note

    async def release(self, shards: Collection[int]) -> None:
        """See `SharedStore.release`."""
        tenures = {shard: self._epochs[shard] for shard in shards if shard in self._epochs}
        await self._enter()
        session = self._session
        if session is None:
            msg = "there is no session"
            raise StoreError(msg)
        held = [shard for shard, epoch in tenures.items() if self._epochs.get(shard) == epoch]
        self._database.release(session, held)
        for shard in held:
            del self._epochs[shard]
        self._wanted.difference_update(held)

    async def accept(self, shards: Collection[int]) -> None:
        """See `SharedStore.accept`: here, nothing is offered."""

    async def limit_to(self, share: float | None) -> None:
        """See `SharedStore.limit_to`."""
        await self._enter()
        self.limit = share
        if self._session is not None:
            self._session.limit = share

    async def publish(self, report: str) -> None:
        """See `SharedStore.publish`."""
        await self._enter()
        if self._session is not None:
            self._session.report = self._report = report

    async def tell(self, notes: Sequence[str]) -> None:
        """See `SharedStore.tell`."""
        await self._enter()
        self._database.notify(notes)

    async def replicas(self) -> Sequence[Replica]:
        """See `SharedStore.replicas`."""
        await self._enter()
        return [
            Replica(
                one.name,
                "model",
                1,
                "1",
                int(one.last_at * 1000),
                frozenset(one.locks),
                one is self._session,
                one.limit,
                one.report,
            )
            for one in self._database.sessions
        ]

    @asynccontextmanager
    async def exclusive(self, name: str) -> AsyncIterator[None]:
        """See `SharedStore.exclusive`."""
        await self._enter()
        async with self._database.named_locks.setdefault(name, anyio.Lock()):
            yield

    async def _beat_forever(self) -> None:
        while True:
            try:
                await self._beat()
            except StoreError:
                if self._session is not None:
                    self._database.end(self._session)  # a server hears of a broken connection, too
                self._session, self._deadline = None, -math.inf
            await anyio.sleep(BEAT_SECONDS)

    async def _beat(self) -> None:
        sent_at = self._gate.now()
        await self._enter()
        session = self._session
        if session is None:
            self._reconnect(self._database.connect(self.name, self._notes.put, self.limit, self._report))
            self._deadline = sent_at + self._held_seconds
            return
        self._database.check(session)
        self._plan(session)
        await self._gate.passing()
        self._deadline = sent_at + self._held_seconds

    def _reconnect(self, session: Session) -> None:
        """Keep what nobody took meanwhile. Nothing foreign is claimed: after a restart of the server, all reconnect."""
        kept = self._database.reclaim(session, self._epochs)
        lost = self._epochs.keys() - kept
        self._epochs = {shard: self._epochs[shard] for shard in kept}
        self._wanted &= kept
        self._session = session
        if lost:
            self._losses += 1
            self._changes.put(ShardsLost(frozenset(lost)))
        self._changes.put(ShardsGained(frozenset()))

    def _plan(self, session: Session) -> None:
        decided = plan(
            member=self.name,
            members=[one.name for one in self._database.sessions],
            owners=self._database.owners(),
            releasing=self._wanted,
            limit=self.limit,
            limits={one.name: one.limit for one in self._database.sessions if one.limit is not None},
        )
        if decided.claim:
            gained = self._database.claim(session, decided.claim)
            self._epochs.update({shard: epoch for shard, (epoch, _) in gained.items()})
            crashed = frozenset(shard for shard, (_, is_crashed) in gained.items() if is_crashed)
            if gained:
                self._changes.put(ShardsGained(frozenset(gained), crashed))
        if decided.release:
            self._wanted.update(decided.release)
            self._changes.put(ShardsWanted(frozenset(decided.release)))

    # ── statements ────────────────────────────────────────────────────────────────────────────────────────────────

    async def commit(
        self, bot: UserId, writes: Sequence[Write], *, shards: Collection[int] = (), notes: Sequence[str] = ()
    ) -> None:
        """See `Store.commit`."""
        commands = statements(bot, writes)
        if set(shards) - self._epochs.keys():
            msg = "another process owns a shard of this commit"
            raise NotOwner(msg)
        # Now, not when the server is reached: the shards may be lost until then, and gained again.
        epochs = {shard: self._epochs[shard] for shard in shards}
        await self._enter()
        if self._gate.is_refusing:
            self._gate.refusals += 1
            msg = "the server has undone the transaction"
            raise StoreError(msg)
        self._database.write(executing(commands), epochs, notes, by=self.name, writes=writes)
        await self._gate.passing()

    async def forget(self, user: UserId) -> int:
        """See `Store.forget`."""
        await self._enter()
        erasing = queries.forget(UserId(codec.text(user, "user")))
        return self._database.write(lambda connection: run(connection, erasing), {}, by=self.name)

    async def _read(self, plan: Plan[T], *, is_single: bool = True) -> T:
        await self._enter()
        found = self._database.read(plan)
        await self._gate.passing()
        return found

    async def _enter(self) -> None:
        """Reach the server, as soon as the replica is not paused.

        Raises:
            StoreError: it is cut off from the server.
        """
        await anyio.lowlevel.checkpoint()
        await self._gate.passing()
        if self._gate.is_cut_from_database:
            if self._gate.is_silent:
                await anyio.sleep(HELD_SECONDS)
            msg = "cannot reach the server"
            raise StoreError(msg)
