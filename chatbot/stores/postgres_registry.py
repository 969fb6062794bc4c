"""Who uses a store on PostgreSQL: a row for each process, by which its commits are counted, and the eras.

An era is a time in which processes share the store, or one uses it alone. Whoever begins one removes the rows of all
processes of the era before, so that no commit of theirs can follow.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple

from chatbot.stores import postgres_dialect as dialect
from chatbot.stores.base import Replica
from chatbot.stores.postgres_server import Connection

FORGOTTEN_MS: Final = 24 * 3600 * 1000
"""How long the row of a process that was killed is kept: it may only be disconnected, and ask for its last commit."""

_RUN: Final = ", run "
"""What precedes the part of a name that tells runs of a process apart, which no message shows."""

REPORT: Final = "coalesce(to_jsonb(replica) ->> 'report', '')"
"""What a process says of itself. Tables that no process of this version has used yet have no such column."""


class Use(Enum):
    """How a process uses a store."""

    ALONE = "alone"
    MEMBER = "member"
    VISITOR = "visitor"


@dataclass(frozen=True, slots=True)
class StoreUser:
    """What a process says of itself.

    Args:
        use: how it uses the store.
        is_marked: it leaves a mark while it has the store open, so that the next one knows whether it was killed.
        share: the largest share of all shards that it takes; None is without limit.
        version: the version of chatbot that it runs.
        id: tells it from all others.
    """

    use: Use
    is_marked: bool = True
    share: float | None = None
    version: str = ""
    id: str = field(default_factory=lambda: f"{socket.gethostname()[:200]}-{os.getpid()}-{secrets.token_hex(6)}")

    @property
    def owner(self) -> str:
        """Whom the row of the whole store names as its owner."""
        if self.use is Use.ALONE:
            return f"{socket.gethostname()}, pid {os.getpid()}{_RUN}{self.id.rpartition('-')[2]}"
        return dialect.SHARED


class Standing(NamedTuple):
    """What the store has of a process.

    Args:
        era: the number of the era.
        epoch: the number of its connection for commits.
        commits: the number of its last commit.
    """

    era: int
    epoch: int
    commits: int


async def register(connection: Connection, schema: str, user: StoreUser, backend: int) -> Standing:
    """Write the row of a process; begin an era if need be. The caller holds the lock of the store, and of migrations.

    Args:
        connection: the connection for commits.
        schema: the schema of the store.
        user: the process.
        backend: the process id of the server for its session.
    """
    now = time.time_ns() // 1_000_000
    async with connection.transaction():
        is_new = await connection.fetchval(
            "UPDATE shard SET epoch = epoch + 1, owner = $2 WHERE id = $1 AND (owner <> $2 OR $3) RETURNING true",
            dialect.WHOLE,
            user.owner,
            user.use is Use.ALONE,
        )
        if is_new:  # waits for commits that are being made
            await connection.execute("DELETE FROM replica")
        await _vacate(connection, user.id, backend)
        await connection.execute(
            "INSERT INTO replica (id, host, pid, version, started_ms, is_member, share, backend, epoch)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 1)",
            user.id,
            socket.gethostname(),
            os.getpid(),
            user.version,
            now,
            user.use is Use.MEMBER,
            user.share,
            backend,
        )
        if user.use is Use.MEMBER:
            await _carry_kills_to_shards(connection)
            await _remove_gone(connection, schema, now)
        elif user.use is Use.ALONE and user.is_marked:
            await _carry_kills_to_holder(connection)
        era = await connection.fetchval("SELECT epoch FROM shard WHERE id = $1", dialect.WHOLE)
    return Standing(era, 1, 0)


async def _vacate(connection: Connection, name: str, backend: int) -> None:
    """Let no other row name a session: the server uses process ids again, after a restart at once."""
    await connection.execute("UPDATE replica SET backend = 0 WHERE backend = $2 AND id <> $1", name, backend)


async def _carry_kills_to_shards(connection: Connection) -> None:
    """While a store is shared, the mark that it is open has the process id 0, and each shard names its owner."""
    held = await connection.fetch("SELECT pid, is_stopping FROM holder")
    if any(pid and not is_stopping for pid, is_stopping in held):
        await connection.execute(
            "UPDATE shard SET owner = $2 WHERE id <> $1 AND owner = ''", dialect.WHOLE, dialect.UNKNOWN
        )
    if [pid for pid, _ in held] != [0]:
        await connection.execute("DELETE FROM holder")
        await connection.execute("INSERT INTO holder (pid) VALUES (0)")


async def _carry_kills_to_holder(connection: Connection) -> None:
    """Who uses the store alone looks at the mark only."""
    is_killed = await connection.fetchval(
        "SELECT EXISTS (SELECT 1 FROM shard WHERE id <> $1 AND owner <> '')", dialect.WHOLE
    )
    if not is_killed:
        await connection.execute("DELETE FROM holder WHERE pid = 0")
    await connection.execute("UPDATE shard SET owner = '' WHERE id <> $1 AND owner <> ''", dialect.WHOLE)


async def _remove_gone(connection: Connection, schema: str, now: int) -> None:
    present = f"SELECT pid FROM ({dialect.HELD}) AS held WHERE is_user"  # noqa: S608
    await connection.execute(
        f"UPDATE replica SET gone_ms = $2 WHERE id IN (SELECT id FROM replica WHERE gone_ms IS NULL"  # noqa: S608
        f" AND backend NOT IN ({present}) FOR UPDATE SKIP LOCKED)",
        schema,
        now,
    )
    await connection.execute(
        f"DELETE FROM replica WHERE gone_ms < $2 AND backend NOT IN ({present})",  # noqa: S608
        schema,
        now - FORGOTTEN_MS,
    )


async def renew(connection: Connection, name: str) -> Standing | None:
    """Take a new connection for commits: none of the older ones can follow. Waits for one that is being made.

    Returns:
        What the store has; None if it does not know the process any more.
    """
    found = await connection.fetchrow(
        f"UPDATE replica SET epoch = epoch + 1 WHERE id = $1 RETURNING epoch, commits,"  # noqa: S608
        f" (SELECT epoch FROM shard WHERE id = {dialect.WHOLE})",
        name,
    )
    return None if found is None else Standing(found[2], found[0], found[1])


async def move(connection: Connection, name: str, backend: int) -> int | None:
    """Record a new session of a process; return the era, or None if the store does not know the process any more."""
    await _vacate(connection, name, backend)
    era: int | None = await connection.fetchval(
        f"UPDATE replica SET backend = $2, gone_ms = NULL WHERE id = $1"  # noqa: S608
        f" RETURNING (SELECT epoch FROM shard WHERE id = {dialect.WHOLE})",
        name,
        backend,
    )
    return era


async def leave(connection: Connection, schema: str, user: StoreUser, untouched: list[int]) -> None:
    """Record that a process ends in order.

    Args:
        connection: the connection for commits.
        schema: the schema of the store.
        user: the process.
        untouched: shards whose last owner was killed, and which this process has not looked at.
    """
    async with connection.transaction():
        if user.use is Use.MEMBER:
            lock = f"SELECT pg_advisory_xact_lock({dialect.LOCK_CLASS}, $2)"
            await connection.execute(lock, schema, dialect.MIGRATION)
            await connection.execute(
                "UPDATE shard SET owner = CASE WHEN id = ANY ($2::integer[]) THEN $3 ELSE '' END WHERE owner = $1",
                user.id,
                [shard + 1 for shard in untouched],
                dialect.UNKNOWN,
            )
            await connection.execute(
                "DELETE FROM holder WHERE pid = 0 AND NOT EXISTS (SELECT 1 FROM shard WHERE id <> $1 AND owner <> '')",
                dialect.WHOLE,
            )
        await connection.execute("DELETE FROM replica WHERE id = $1", user.id)


async def read_replicas(connection: Connection, schema: str, oneself: str) -> list[Replica]:
    """Return the processes that share a store, oldest first."""
    found = await connection.fetch(
        f"SELECT replica.id, host, replica.pid, version, started_ms, shards, share, {REPORT} FROM ({dialect.HELD})"  # noqa: S608
        " AS held JOIN replica ON replica.backend = held.pid AND replica.is_member ORDER BY started_ms, replica.id",
        schema,
    )
    return [
        Replica(name, host, pid, release, started_ms, frozenset(shards or ()), name == oneself, share, report)
        for name, host, pid, release, started_ms, shards, share, report in found
    ]


async def set_share(connection: Connection, name: str, share: float | None) -> None:
    """Record the largest share of all shards that a process takes; one that stops takes none."""
    await connection.execute("UPDATE replica SET share = $2 WHERE id = $1 AND is_stopping = 0", name, share)


async def set_report(connection: Connection, name: str, report: str) -> None:
    """Record what a process says of itself."""
    await connection.execute("UPDATE replica SET report = $2 WHERE id = $1", name, report)


async def users(connection: Connection, schema: str) -> str:
    """Return who uses a store, for people; empty if that is not known."""
    owner = await connection.fetchval("SELECT owner FROM shard WHERE id = $1", dialect.WHOLE) or ""
    if owner != dialect.SHARED:
        return str(owner).partition(_RUN)[0]
    found = await connection.fetch(
        f"SELECT host, replica.pid FROM ({dialect.HELD}) AS held JOIN replica ON replica.backend = held.pid"  # noqa: S608
        " ORDER BY host, replica.pid LIMIT 20",
        schema,
    )
    return "; ".join(f"{host}, pid {pid}" for host, pid in found)
