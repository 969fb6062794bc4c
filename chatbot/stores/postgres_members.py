"""The processes that share a store on PostgreSQL, and which shards each of them owns.

A shard is owned by whoever holds its advisory lock. It is taken in one statement with a new epoch, which every commit
for the shard requires: what a former owner writes later is refused. All of this goes over the session of the store,
whose end gives all locks back; see `postgres_session`.

Members do not talk to each other about shards. Each computes the same plan from the same facts, see `shards.plan`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from chatbot.stores import postgres_dialect as dialect
from chatbot.stores.base import ShardChange, ShardsGained, ShardsLost, ShardsOffered, ShardsWanted
from chatbot.stores.postgres_server import Connection
from chatbot.stores.shards import plan

STATEMENT_SECONDS: Final = 5.0
"""How long a statement about shards may take; the session is given up afterwards."""

GRACE_SECONDS: Final = 0.25
"""How long shards that were not released in order stay free, so that a process whose connection broke can come back."""

_MAP: Final = f"""
    SELECT held.pid, replica.id, replica.share, held.shards, (SELECT epoch FROM shard WHERE id = {dialect.WHOLE})
    FROM ({dialect.HELD}) AS held LEFT JOIN replica ON replica.backend = held.pid AND replica.is_member"""  # noqa: S608

# The row is locked first, and never waited for: so whoever has the lock sees what the one before wrote in the row.
_CLAIM: Final = f"""
    WITH free AS MATERIALIZED (
        SELECT id, owner FROM shard WHERE id = ANY ($2::integer[]) AND (owner IN ('', $3) OR id = ANY ($4::integer[]))
        FOR UPDATE SKIP LOCKED
    ), mine AS MATERIALIZED (
        SELECT id, owner FROM free WHERE pg_try_advisory_lock({dialect.LOCK_CLASS}, id)
    ), taken AS (
        UPDATE shard SET epoch = epoch + 1, owner = $3 FROM mine WHERE shard.id = mine.id
        RETURNING shard.id, shard.epoch, mine.owner AS former
    )
    SELECT id - 1, epoch, former NOT IN ('', $3) AND NOT EXISTS (
        SELECT 1 FROM replica WHERE replica.id = former AND is_stopping = 1
    ) FROM taken"""  # noqa: S608

_STORED: Final = "SELECT id - 1, epoch, owner FROM shard WHERE id = ANY ($1::integer[])"

_RETAKE: Final = f"""
    WITH ours AS MATERIALIZED (
        SELECT id FROM shard WHERE id = ANY ($2::integer[]) AND owner = $3 FOR UPDATE SKIP LOCKED
    )
    SELECT id - 1 FROM ours WHERE pg_try_advisory_lock({dialect.LOCK_CLASS}, id)"""  # noqa: S608

_RELEASE: Final = f"""
    WITH ours AS MATERIALIZED (
        SELECT id FROM shard WHERE id = ANY ($2::integer[]) AND owner = $3 FOR UPDATE SKIP LOCKED
    ), given AS (
        UPDATE shard SET owner = '' FROM ours WHERE shard.id = ours.id RETURNING shard.id
    )
    SELECT id - 1, pg_advisory_unlock({dialect.LOCK_CLASS}, id) FROM given"""  # noqa: S608

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Facts:
    """Who is there, and who holds what.

    Args:
        era: the number under which the store is shared; None if the process asking is not among the members.
        shares: the members, and the limit of each, see `shards.plan`.
        owners: the holder of each shard that is held.
    """

    era: int | None
    shares: Mapping[str, float | None] = field(default_factory=dict)
    owners: Mapping[int, str] = field(default_factory=dict)


class Shards:
    """The shards of this process. Runs in the store's thread; calls of one connection do not overlap.

    Args:
        schema: the schema of the store.
        name: the id of this process.
        limit: the largest share of all shards that it takes; None is without limit.
        on_change: called with each change, and with the epochs of shards that are gained.
        asks: offer free shards first (`ShardsOffered`), and claim only those that are accepted.
    """

    def __init__(
        self,
        schema: str,
        name: str,
        limit: float | None,
        on_change: Callable[[ShardChange, Mapping[int, int]], None],
        *,
        asks: bool = False,
    ) -> None:
        self.limit = limit
        self._asks = asks
        self._offered: set[int] = set()
        self._accepted: set[int] = set()
        self._schema = schema
        self._name = name
        self._on_change = on_change
        self._epochs: dict[int, int] = {}
        self._asked: set[int] = set()
        self._free_since: dict[int, float] = {}

    @property
    def owned(self) -> Mapping[int, int]:
        """The shards of this process, with the epochs under which it owns them."""
        return self._epochs

    async def read(self, connection: Connection) -> Facts:
        """Ask the server for the facts, in one query."""
        rows = await connection.fetch(_MAP, self._schema, timeout=STATEMENT_SECONDS)
        era: int | None = None
        shares: dict[str, float | None] = {}
        owners: dict[int, str] = {}
        for pid, name, share, held, current in rows:
            if name is not None:
                shares[name] = share
            if name == self._name:
                era = current
            owners.update(dict.fromkeys(held or (), name or f"session {pid}"))
        return Facts(era, shares, owners)

    async def act(self, connection: Connection, facts: Facts, *, may_claim: bool) -> bool:
        """Claim free shards, and ask for those that others lack; return whether the plan was carried out in full."""
        planned = plan(
            member=self._name,
            members=facts.shares,
            owners=facts.owners,
            releasing=self._asked,
            limit=self.limit,
            limits={name: share for name, share in facts.shares.items() if share is not None},
        )
        if wanted := frozenset(planned.release).intersection(self._epochs) - self._asked:
            self._asked |= wanted
            self._on_change(ShardsWanted(wanted), {})
        if not planned.claim or not may_claim:
            self._free_since.clear()
            self._offer(())
            return True
        now = time.monotonic()
        self._free_since = {shard: self._free_since.get(shard, now) for shard in planned.claim}
        claims = self._offer(planned.claim) if self._asks else planned.claim
        taken = await self._claim(connection, claims) if claims else 0
        return taken == len(planned.claim)

    def _offer(self, shards: Sequence[int]) -> Sequence[int]:
        """Offer free shards, each once; return those that are accepted already."""
        # Once another process has owned a shard in between, what was found out about it is no longer true.
        self._offered.intersection_update(shards)
        self._accepted.intersection_update(shards)
        if fresh := frozenset(shards) - self._offered:
            self._offered |= fresh
            self._on_change(ShardsOffered(fresh), {})
        return [shard for shard in shards if shard in self._accepted]

    def accept(self, shards: Collection[int]) -> None:
        """Claim these shards in the next round, if they are still offered."""
        self._accepted.update(self._offered.intersection(shards))

    async def _claim(self, connection: Connection, shards: Sequence[int]) -> int:
        now = time.monotonic()
        places = [shard + 1 for shard in shards]
        left = [shard + 1 for shard, since in self._free_since.items() if now - since >= GRACE_SECONDS]
        taken = await connection.fetch(_CLAIM, self._schema, places, self._name, left, timeout=STATEMENT_SECONDS)
        epochs = {shard: epoch for shard, epoch, _ in taken}
        if epochs:
            self._epochs |= epochs
            crashed = frozenset(shard for shard, _, is_crashed in taken if is_crashed)
            _log.info("store.shards_gained", shards=len(epochs), after_crash=len(crashed))
            self._on_change(ShardsGained(frozenset(epochs), crashed), epochs)
        return len(epochs)

    async def retake(self, connection: Connection) -> bool:
        """Lock on a new session what is still ours, and give up the rest.

        Returns:
            Whether all is done; otherwise, the end of the session before is still awaited.

        Raises:
            LookupError: the server does not have what it had.
        """
        places = [shard + 1 for shard in self._epochs]
        stored = {
            shard: (epoch, owner)
            for shard, epoch, owner in await connection.fetch(_STORED, places, timeout=STATEMENT_SECONDS)
        }
        if any(stored.get(shard, (0, ""))[0] < epoch for shard, epoch in self._epochs.items()):
            raise LookupError
        ours = {shard for shard, epoch in self._epochs.items() if stored[shard] == (epoch, self._name)}
        self._lose(self._epochs.keys() - ours)
        facts = await self.read(connection)
        missing = [shard + 1 for shard in ours if facts.owners.get(shard) != self._name]
        if not missing:
            return True
        locked = await connection.fetch(_RETAKE, self._schema, missing, self._name, timeout=STATEMENT_SECONDS)
        return len(locked) == len(missing)

    def note_silence(self) -> None:
        """Report that the session was replaced, so that notes may have been lost."""
        self._on_change(ShardsGained(frozenset()), {})

    def _lose(self, shards: Collection[int]) -> None:
        if shards:
            _log.warning("store.shards_lost", shards=len(shards))
            for shard in shards:
                del self._epochs[shard]
            self._asked.difference_update(shards)
            self._on_change(ShardsLost(frozenset(shards)), {})

    def lose_all(self) -> None:
        """Own nothing any more, because the store is lost."""
        self._lose(list(self._epochs))

    async def release(self, connection: Connection, tenures: Mapping[int, int]) -> dict[int, int]:
        """Give up shards in order; return those that are to be tried again.

        Args:
            connection: the session.
            tenures: the shards, with the epochs under which they were owned. If one was lost in between, and gained
                again, it is kept.
        """
        left = {shard: epoch for shard, epoch in tenures.items() if self._epochs.get(shard) == epoch}
        places = [shard + 1 for shard in left]
        given = await connection.fetch(_RELEASE, self._schema, places, self._name, timeout=STATEMENT_SECONDS)
        for shard, _ in given:
            del self._epochs[shard], left[shard]
            self._asked.discard(shard)
        if given:
            _log.info("store.shards_released", shards=len(given))
        return left
