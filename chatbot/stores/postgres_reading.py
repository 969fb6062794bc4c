"""Look at a store on PostgreSQL without opening or changing it, also while bots use it. All functions block."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from chatbot.errors import StoreError
from chatbot.stores import postgres_dialect as dialect
from chatbot.stores.backup import COUNTED, StoredBot, StoreInfo
from chatbot.stores.base import Replica
from chatbot.stores.postgres_registry import REPORT, read_replicas
from chatbot.stores.postgres_server import IS_STANDBY, Connection, Server, Versions, close, standbys, stored_versions
from chatbot.stores.postgres_session import sole_user
from chatbot.stores.postgres_url import PostgresUrl

T = TypeVar("T")

_MEMBERS: Final = f"""
    SELECT replica.id AS name, host, replica.pid, version, started_ms, share, is_stopping = 1 AS is_stopping,
        {REPORT} AS report,
        held.shards, held.pid IS NOT NULL AS is_connected,
        extract(epoch FROM clock_timestamp() - activity.state_change)::float8 AS silent_seconds
    FROM replica
    LEFT JOIN ({dialect.HELD}) AS held ON held.pid = replica.backend AND held.is_user
    LEFT JOIN pg_stat_activity AS activity ON activity.pid = held.pid
    WHERE replica.is_member
        AND (held.pid IS NOT NULL OR EXISTS (
            SELECT 1 FROM shard WHERE owner = replica.id AND shard.id > {dialect.WHOLE}
        ))
    ORDER BY started_ms, replica.id"""  # noqa: S608

_STANDBYS: Final = f"""
    SELECT application_name, sync_state, state, extract(epoch FROM replay_lag)::float8
    FROM pg_stat_replication WHERE {IS_STANDBY} ORDER BY 1"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class SeenReplica(Replica):
    """A process that shares a store, as the server sees it.

    Args:
        is_stopping: it was asked to stop.
        silent_seconds: for how long the server has heard nothing of it; None if this user may not see it.
        is_connected: it has a session. Without one it is gone or disconnected, and nobody has its shards yet.
    """

    is_stopping: bool = False
    silent_seconds: float | None = None
    is_connected: bool = True


@dataclass(frozen=True, slots=True)
class Standby:
    """A standby of the server.

    Args:
        name: its name there.
        sync_state: `sync`, `quorum`, `potential` or `async`; None, as the rest, if this user may not see it.
        state: `streaming`, unless it is catching up or being copied.
        lag_seconds: for how long confirmed commits have waited to be seen there; None if there is nothing to wait for.
    """

    name: str
    sync_state: str | None
    state: str | None
    lag_seconds: float | None


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """Who shares a store, and who has what.

    Args:
        now_ms: the server's time, epoch ms.
        members: the processes, oldest first.
        epochs: how often each shard has changed hands; empty if no process has shared the store yet.
        is_alone: a process uses the store alone, which is none of the members.
        standbys: the standbys of the server.
    """

    now_ms: int
    members: tuple[SeenReplica, ...]
    epochs: Mapping[int, int]
    is_alone: bool
    standbys: tuple[Standby, ...]


def probe(url: PostgresUrl) -> dict[str, Any]:
    """Return the fields of the `StoreProbe` of a store."""
    try:
        return _run(url, lambda connection: _probe(connection, url))
    except StoreError as error:
        return {"problem": str(error)}


def info(url: PostgresUrl) -> StoreInfo:
    """Return statistics of a store by bot; see `backup.info`.

    Raises:
        StoreError: there is no store, or it cannot be read.
    """
    return _run(url, lambda connection: _info(connection, url))


def _run(url: PostgresUrl, read: Callable[[Connection], Awaitable[T]]) -> T:
    async def connected() -> T:
        server = Server(url)
        connection = await server.connect()
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                return await read(connection)
        except (OSError, ValueError, StoreError):
            raise
        except Exception as error:
            raise server.explain(error, "read") from error
        finally:
            await close(connection)

    return asyncio.run(connected())


async def _probe(connection: Connection, url: PostgresUrl) -> dict[str, Any]:
    versions = await stored_versions(connection, url)
    version = None if versions is None else versions.reached
    known = len(dialect.migrations())
    problem = None
    if versions is not None and versions.oldest > known:
        newest = f"this chatbot knows up to {known}"
        problem = f"it has version {version}, and {newest}: run a newer chatbot, or name another schema"
    elif version is None and not await connection.fetchval(
        "SELECT has_database_privilege(current_database(), 'CREATE') OR has_schema_privilege(oid, 'CREATE')"
        " FROM (SELECT 1) AS one LEFT JOIN pg_namespace ON nspname = $1",
        url.schema,
    ):
        problem = "this user may not create its schema: GRANT CREATE ON DATABASE to it"
    elif not await connection.fetchval("SELECT has_database_privilege(current_database(), 'TEMPORARY')"):
        problem = "this user may not create temporary functions: GRANT TEMPORARY ON DATABASE to it"
    found = await standbys(connection, url)
    return {
        "exists": version is not None,
        "version": version,
        "size": await _size(connection, url),
        "in_use": await sole_user(connection, url) if version is not None else None,
        "replicas": await _count_replicas(connection, url) if versions is not None and versions.sharing else 0,
        "can_be_shared": versions is None or versions.sharing >= len(dialect.SHARING),
        "problem": problem or found.problem,
        "notice": found.notice,
    }


def cluster(url: PostgresUrl) -> ClusterFacts:
    """Return who shares a store, and who has what.

    Raises:
        StoreError: there is no store, or it cannot be read.
    """
    return _run(url, lambda connection: _cluster(connection, url))


async def _cluster(connection: Connection, url: PostgresUrl) -> ClusterFacts:
    versions = await _existing(connection, url)
    now_ms = await connection.fetchval("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
    members: tuple[SeenReplica, ...] = ()
    epochs: dict[int, int] = {}
    if versions.sharing:
        members = tuple([_seen(row) for row in await connection.fetch(_MEMBERS, url.schema)])
        epochs = dict(await connection.fetch("SELECT id - 1, epoch FROM shard WHERE id > $1", dialect.WHOLE))
    alone = f"SELECT EXISTS (SELECT 1 FROM ({dialect.HELD}) AS held WHERE is_alone)"  # noqa: S608
    found = [Standby(*row) for row in await connection.fetch(_STANDBYS)]
    return ClusterFacts(now_ms, members, epochs, await connection.fetchval(alone, url.schema), tuple(found))


def _seen(row: Any) -> SeenReplica:
    return SeenReplica(**{**dict(row), "shards": frozenset(row["shards"] or ())})


async def _existing(connection: Connection, url: PostgresUrl) -> Versions:
    """Return the versions of the tables.

    Raises:
        StoreError: there are none.
    """
    versions = await stored_versions(connection, url)
    if versions is None:
        msg = f"{url}: there is no such store yet; `chatbot run` creates it"
        raise StoreError(msg)
    return versions


async def _count_replicas(connection: Connection, url: PostgresUrl) -> int:
    return len(await read_replicas(connection, url.schema, ""))


async def _info(connection: Connection, url: PostgresUrl) -> StoreInfo:
    versions = await _existing(connection, url)
    bots = []
    for name, resource, user in await connection.fetch(
        "SELECT name, resource, user_id FROM bot ORDER BY name, resource"
    ):
        owner = await connection.fetchval("SELECT key FROM owner WHERE user_id = $1", user)
        counts = dict.fromkeys(COUNTED, 0)
        if owner is not None:
            for kind, query in COUNTED.items():
                counts[kind] = int(await connection.fetchval(dialect.translated(query), owner) or 0)
        bots.append(StoredBot(name, resource, user, counts))
    return StoreInfo(versions.reached, await _size(connection, url), tuple(bots))


async def _size(connection: Connection, url: PostgresUrl) -> int:
    """Return how many bytes the tables take, with their indexes."""
    size = await connection.fetchval(
        "SELECT sum(pg_total_relation_size(pg_class.oid))::bigint FROM pg_class"
        " JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE nspname = $1 AND relkind = 'r'",
        url.schema,
    )
    return int(size or 0)
