"""A process as a member of a cluster: what it owns now, and what it tells its bots when that changes.

The store decides who owns which shards (`SharedStore`). `ClusterMember` follows its decisions, passes them to all bots
of the process, and carries notes between the bots of all processes.

A shard is owned here from `ShardsGained` until this process begins to give it up, or has lost it. Takeovers and
releases run beside each other, because a slow handler delays a release. A loss is passed on at once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import anyio
import structlog

from chatbot.cluster.notes import Answered, Asked, BotNote, decode, encode, merged
from chatbot.cluster.requests import Requests
from chatbot.errors import StoreError
from chatbot.model import ThreadId, UserId
from chatbot.stores.base import MeasuredStore, Replica, ShardsGained, ShardsLost, ShardsOffered, SharedStore
from chatbot.stores.shards import ALL_SHARDS, shard_of, shard_of_bot

NOTE_SECONDS: Final = 0.02
"""Seconds for which notes are collected, so that one message to the database carries many."""

RETRY_SECONDS: Final = 1.0
"""Seconds until shards are given up again that the store could not be told of."""

COUNT_SECONDS: Final = 10.0
"""Seconds between two counts of the processes."""

HELD_SECONDS: Final = 0.05
"""Seconds between two checks whether the store is held again."""

MAX_NOTES: Final = 10_000
"""Notes that wait while they cannot be sent; the oldest are dropped."""


OWNERLESS_SECONDS: Final = 10.0
"""Seconds that a shard may be without an owner: the end of a process is noticed, and its shards are taken, earlier."""


@dataclass(slots=True)
class Moves:
    """How many shards have come and gone since a process joined.

    Args:
        gained: those that it has taken.
        after_crash: those of them whose last owner did not release them in order.
        released: those that it has given up in order.
        lost: those that were taken from it.
    """

    gained: int = 0
    after_crash: int = 0
    released: int = 0
    lost: int = 0


class MemberBot(Protocol):
    """What a member tells a bot."""

    @property
    def name(self) -> str:
        """The name of the bot."""
        ...

    @property
    def user(self) -> UserId:
        """The user id of the bot."""
        ...

    async def take(self, shards: frozenset[int], after_crash: frozenset[int]) -> None:
        """Serve the threads of these shards from now on; `after_crash` are those that were not released in order."""
        ...

    async def release(self, shards: frozenset[int], released: Callable[[frozenset[int]], None]) -> None:
        """Finish the work in these shards; calls `released` with those in which nothing runs any more."""
        ...

    def lose(self, shards: frozenset[int]) -> None:
        """Drop the work in these shards at once."""
        ...

    async def receive(self, note: BotNote) -> None:
        """Do what another process asks for."""
        ...


class ClusterMember:
    """The ownership of a process that shares its store; see `chatbot.bot.ownership.Ownership`.

    Args:
        store: opened by the caller.
        bots: returns the bots of the process.

    Attributes:
        replicas: how many processes share the store, as last counted.
        members: these processes.
        moves: how many shards have come and gone.
        lag: by how many seconds the slowest standby of the database is behind; None without any.
        owned: the shards in which work may begin here.
        crashed: those of them whose last owner did not release them in order.
        has_gained: set once this process has owned a shard.
        requests: what operators ask all processes for.
        consider: called with shards that are offered; claims those that this process is to take.
    """

    is_shared = True

    def __init__(self, store: SharedStore, bots: Callable[[], Sequence[MemberBot]]) -> None:
        self._store = store
        self._bots = bots
        self._releasing: dict[int, int] = {}
        self._released: list[int] = []
        self._has_released = anyio.Event()
        self._notes: list[BotNote] = []
        self._has_notes = anyio.Event()
        self._changed = anyio.Event()
        self.replicas = 1
        self.members: Sequence[Replica] = ()
        self.moves = Moves()
        self.lag: float | None = None
        self._ownerless_since: dict[int, float] = {}
        self.owned: frozenset[int] = frozenset()
        self.crashed: frozenset[int] = frozenset()
        self.has_gained = anyio.Event()
        self.requests = Requests(store)
        self.consider: Callable[[frozenset[int]], Coroutine[Any, Any, None]] = store.accept
        self._log = structlog.get_logger()

    def shards(self, bot: UserId, threads: Sequence[ThreadId]) -> frozenset[int]:
        """Return the shards of these threads; an empty id stands for what belongs to the bot and to no thread."""
        return frozenset(shard_of(thread) if thread else shard_of_bot(bot) for thread in threads)

    async def permit(self) -> None:
        """Wait until this process may act for its bots: before each request to the service."""
        if self._store.is_held:
            return
        while not self._store.is_held:  # noqa: ASYNC110 time takes it away, too, which sets no event
            await anyio.sleep(HELD_SECONDS)
        # What was lost meanwhile is dropped first: its waiting requests are canceled here.
        await anyio.sleep(HELD_SECONDS)
        await self.permit()

    # ── shards ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Follow the store's decisions, until canceled."""
        async with anyio.create_task_group() as group:
            for loop in (self._receive_notes, self._send_notes, self._count, self._release, self.requests.run):
                group.start_soon(loop)
            while True:
                change = await self._store.next_change()
                match change:
                    case ShardsGained(shards, after_crash):
                        self._gain(shards, after_crash)
                        for bot in self._bots():
                            group.start_soon(bot.take, shards, after_crash)
                    case ShardsLost(shards):
                        self._lose(shards)
                    case ShardsOffered(shards):
                        group.start_soon(self.consider, shards)
                    case _:
                        wanted = change.shards & self.owned
                        self.owned -= wanted
                        group.start_soon(self._finish, wanted)
                self._changed.set()

    def _gain(self, shards: frozenset[int], after_crash: frozenset[int]) -> None:
        self.owned |= shards
        self.crashed |= after_crash
        self.moves.gained += len(shards)
        self.moves.after_crash += len(after_crash)
        if shards:
            self.has_gained.set()

    def _lose(self, shards: frozenset[int]) -> None:
        self.owned -= shards
        self.crashed -= shards
        self.moves.lost += len(shards)
        for shard in shards:
            self._releasing.pop(shard, None)
        for bot in self._bots():
            bot.lose(shards)

    async def _finish(self, shards: frozenset[int]) -> None:
        """Let all bots finish their work in these shards, and release each as soon as nothing runs there."""
        bots = list(self._bots())
        self._releasing.update(dict.fromkeys(shards, len(bots)))
        if not bots:
            self._finished(shards)
        async with anyio.create_task_group() as group:
            for bot in bots:
                group.start_soon(bot.release, shards, self._ended_in)

    def _ended_in(self, shards: Collection[int]) -> None:
        """Note that one more bot has nothing running in these shards."""
        done: list[int] = []
        for shard in shards:
            if shard in self._releasing:
                self._releasing[shard] -= 1
                if self._releasing[shard] == 0:
                    done.append(shard)
        self._finished(done)

    def _finished(self, shards: Collection[int]) -> None:
        self._released += shards
        self._has_released.set()

    async def _release(self) -> None:
        """Give up the shards in which nothing runs any more, until canceled."""
        while True:
            await self._has_released.wait()
            self._has_released = anyio.Event()
            waiting, self._released = self._released, []
            shards = [shard for shard in waiting if shard in self._releasing]
            if not shards:
                continue
            try:
                await self._store.release(shards)
            except StoreError as error:
                self._log.debug("shards.kept", shards=len(shards), error=error)
                self._finished(shards)  # until they are given up, or lost, nobody else can serve their threads
                await anyio.sleep(RETRY_SECONDS)
                continue
            self.crashed -= frozenset(shards)
            self.moves.released += len(shards)
            for shard in shards:
                self._releasing.pop(shard, None)

    async def _count(self) -> None:
        while True:
            with anyio.move_on_after(COUNT_SECONDS):
                await self._changed.wait()
            self._changed = anyio.Event()
            await self._count_once()

    async def _count_once(self) -> None:
        try:
            self.members = await self._store.replicas()
            self.lag = await self._store.replication_lag() if isinstance(self._store, MeasuredStore) else None
        except StoreError as error:
            self._ownerless_since = {}
            self._log.debug("replicas.not_read", error=error)
            return
        self.replicas = max(1, len(self.members))
        now, owned = anyio.current_time(), frozenset[int]().union(*(one.shards for one in self.members))
        self._ownerless_since = {shard: self._ownerless_since.get(shard, now) for shard in ALL_SHARDS - owned}

    @property
    def ownerless(self) -> int:
        """How many shards have had no owner for longer than a takeover takes."""
        now = anyio.current_time()
        return sum(now - since > OWNERLESS_SECONDS for since in self._ownerless_since.values())

    # ── notes ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def tell(self, note: BotNote) -> None:
        """Send a note to the other processes soon."""
        self._notes.append(note)
        if len(self._notes) > MAX_NOTES:
            del self._notes[0]
        self._has_notes.set()

    async def _send_notes(self) -> None:
        while True:
            await self._has_notes.wait()
            await anyio.sleep(NOTE_SECONDS)
            self._has_notes = anyio.Event()
            notes, self._notes = self._notes, []
            if self.replicas == 1:
                await self._count_once()
            if self.replicas == 1:
                continue  # nobody listens
            try:
                await self._store.tell([text for note in merged(notes) for text in encode(note)])
            except StoreError as error:
                self._log.debug("notes.lost", notes=len(notes), error=error)

    async def _receive_notes(self) -> None:
        while True:
            note = decode(await self._store.next_note())
            if note is None:
                continue
            if isinstance(note, Asked | Answered):
                self.requests.receive(note)
                continue
            for bot in self._bots():
                if bot.user == note.bot:
                    try:
                        await bot.receive(note)
                    except StoreError as error:
                        self._log.debug("note.postponed", kind=note.kind, error=error)
                    except Exception:  # all processes have this note: it must not end them all
                        self._log.exception("note.failed", kind=note.kind)
