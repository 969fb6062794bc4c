"""Look at a store on PostgreSQL without opening or changing it, also while bots use it. All functions block."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from chatbot.errors import StoreError
from chatbot.stores import postgres_dialect as dialect
from chatbot.stores.backup import COUNTED, StoredBot, StoreInfo
from chatbot.stores.postgres_registry import read_replicas
from chatbot.stores.postgres_server import Connection, Server, close, standbys, stored_versions
from chatbot.stores.postgres_session import sole_user
from chatbot.stores.postgres_url import PostgresUrl

T = TypeVar("T")


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


async def _count_replicas(connection: Connection, url: PostgresUrl) -> int:
    return len(await read_replicas(connection, url.schema, ""))


async def _info(connection: Connection, url: PostgresUrl) -> StoreInfo:
    versions = await stored_versions(connection, url)
    if versions is None:
        msg = f"{url}: there is no such store yet; `chatbot run` creates it"
        raise StoreError(msg)
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
