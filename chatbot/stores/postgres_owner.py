"""Ownership of a store on PostgreSQL: one process at a time, decided by the server.

* **Exclusion**: a session advisory lock, held on a connection of its own. It ends with the session: when the process
  dies, when the connection breaks, or when the server ends a session that was silent (`idle_session_timeout`).
* **Liveness**: a beat every second keeps the session and shows that it is there. Without an answer, the process stops
  polling and sending before the server can have given its lock to another (`is_held`).
* **Fence**: an epoch in the table `shard`. Whoever takes the lock raises it, and every commit requires its own: what a
  paused predecessor writes later is refused by the server.

A process whose session broke takes the lock again and goes on, if nobody has owned the store in between and the server
still has all its commits. Otherwise what it has in memory is not what the store has: it must end.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import structlog

from chatbot.errors import StoreError, StoreInUse
from chatbot.stores import postgres_dialect as dialect
from chatbot.stores.postgres_server import SILENT_SECONDS, Connection, Server, close, migrate
from chatbot.stores.postgres_url import PostgresUrl

BEAT_SECONDS: Final = 1.0
"""The interval of beats."""

HELD_SECONDS: Final = 0.9 * SILENT_SECONDS
"""How long after the beginning of an answered beat the lock is certainly ours."""

PATIENCE_SECONDS: Final = 2.5
"""How long to wait for a lock whose owner shows that it is alive; one that has just died is silent for longer."""

_MIGRATION: Final = -1
"""The place of the lock of migrations, where shards have their numbers."""

_RUN: Final = ", run "
"""What precedes the part of an owner's name that tells runs of a process apart, which no message shows."""

_LOCK: Final = "SELECT pg_try_advisory_lock(hashtext('chatbot ' || $1::text), $2)"
_HOLDER: Final = """
    SELECT extract(epoch FROM clock_timestamp() - activity.state_change)::float8
    FROM pg_locks JOIN pg_stat_activity AS activity USING (pid)
    WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND pg_locks.database = (
        SELECT oid FROM pg_database WHERE datname = current_database()
    ) AND classid = (hashtext('chatbot ' || $1::text)::bigint & 4294967295)::oid AND objid = $2::bigint::oid"""

_log = structlog.get_logger(__name__)


class Owner:
    """Ownership of a store. Runs on the loop of the store's thread; the properties may be read in any thread.

    Args:
        server: the server.
        on_lost: called once, in the store's thread, if the store is lost for good.
    """

    def __init__(self, server: Server, on_lost: Callable[[StoreError], None]) -> None:
        self.epoch = 0
        self._server = server
        self._on_lost = on_lost
        self._session: Connection | None = None
        self._held_until = 0.0
        self._beating: asyncio.Task[None] | None = None
        self._claiming = asyncio.Lock()
        self._lost: StoreError | None = None
        # Ours alone: a raise of the epoch whose answer was lost is recognized by it.
        self._name = f"{socket.gethostname()}, pid {os.getpid()}{_RUN}{secrets.token_hex(8)}"
        self._committing: Connection | None = None
        self._commits = 0
        self._types: dict[str, list[str]] = {}
        self.acknowledged = 0

    @property
    def is_held(self) -> bool:
        """Whether no other process can own the store now."""
        return self._lost is None and time.monotonic() < self._held_until

    @property
    def lost(self) -> StoreError | None:
        """Why the store is lost for good; None while it is not."""
        return self._lost

    async def open(self) -> Connection:
        """Take the lock, migrate the tables and begin a new epoch; return the connection for commits.

        Raises:
            StoreInUse: another process owns the store.
            StoreError: the store cannot be used.
        """
        self._session = await self._server.connect(is_owner=True)
        try:
            await self._acquire(self._session)
            self._beating = asyncio.create_task(self._beat(), name="store beat")
            return await self._begin(is_first=True)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Give up the lock."""
        if self._beating is not None:
            self._beating.cancel()
            with suppress(asyncio.CancelledError):
                await self._beating
        self._held_until = 0.0
        await close(self._session)
        self._session = None

    async def reconnect(self) -> tuple[Connection, int]:
        """Open a new connection for commits, under a new epoch: no commit of an older connection can follow.

        Returns:
            The connection, and the number of the last commit that the server has.

        Raises:
            StoreError: there is none, or the store is lost.
        """
        self._check_lost()
        if not self.is_held:
            msg = f"the session with the store {self._server.url} is broken, and not yet there again"
            raise StoreError(msg)
        connection = await self._begin(is_first=False)
        return connection, self._commits

    def lose(self, problem: str) -> StoreError:
        """Give up the store for good; return the error."""
        if self._lost is None:
            self._lost = StoreInUse(problem)
            self._abort()
            self._held_until = 0.0
            self._on_lost(self._lost)
        return self._lost

    def _abort(self) -> None:
        """End the connection for commits, so that a commit on it does not wait for a server that is silent."""
        if self._committing is not None:
            self._committing.terminate()

    def taken_over(self) -> StoreError:
        """Give up the store, because another process has taken it over; return the error."""
        return self.lose(
            f"another chatbot has taken over the store {self._server.url} while this process was silent or "
            "disconnected: this process must end"
        )

    def lost_commits(self) -> StoreError:
        """Give up the store, because its server is not where it was; return the error."""
        return self.lose(
            f"the server of {self._server.url} has lost commits that it had confirmed (it was restored, or failed over "
            "to a standby that was behind): this process must end"
        )

    def _check_lost(self) -> None:
        if self._lost is not None:
            raise StoreInUse(str(self._lost))

    async def _acquire(self, session: Connection) -> None:
        """Take the lock; wait for an owner that is silent, until the server has ended its session."""
        begun = time.monotonic()
        while True:
            asked = time.monotonic()
            if await session.fetchval(_LOCK, self._server.url.schema, dialect.SHARD):
                self._held_until = asked + HELD_SECONDS
                return
            found = await session.fetchrow(_HOLDER, self._server.url.schema, dialect.SHARD)
            # Without a holder, its session is just ending. Another user's holder does not show its silence.
            is_silent = found is None or (found[0] is not None and found[0] > 2 * BEAT_SECONDS)
            if time.monotonic() - begun > (SILENT_SECONDS + 2 if is_silent else PATIENCE_SECONDS):
                raise StoreInUse(await _in_use(session, self._server.url))
            await asyncio.sleep(0.1)

    async def _begin(self, *, is_first: bool) -> Connection:
        """Open a connection for commits and begin its epoch."""
        connection = await self._server.connect()
        try:
            if is_first:
                await self._migrate(connection)
            await self._create_function(connection)
            async with self._claiming:
                await self._raise_epoch(connection, is_first=is_first)
        except BaseException as error:
            connection.terminate()
            if isinstance(error, StoreError) or not isinstance(error, Exception):
                raise
            raise self._server.explain(error, "open") from error
        self._committing = connection
        return connection

    async def _migrate(self, connection: Connection) -> None:
        # The owner alone migrates today. The lock is for what comes: several owners, each of its shards.
        schema = self._server.url.schema
        await connection.execute("SELECT pg_advisory_lock(hashtext('chatbot ' || $1::text), $2)", schema, _MIGRATION)
        try:
            await migrate(connection, self._server.url)
        finally:
            if not connection.is_closed():
                unlock = "SELECT pg_advisory_unlock(hashtext('chatbot ' || $1::text), $2)"
                await connection.execute(unlock, schema, _MIGRATION)

    async def _create_function(self, connection: Connection) -> None:
        if not self._types:
            for text in dialect.TEXTS:
                statement = await connection.prepare(dialect.translated(text))
                self._types[text] = [type.name for type in statement.get_parameters()]
        await connection.execute(dialect.function(self._types))

    async def _raise_epoch(self, connection: Connection, *, is_first: bool) -> None:
        """Raise the epoch. Waits for a commit that runs, so that afterwards the number of the last one is certain."""
        found = await connection.fetchrow(
            "UPDATE shard SET epoch = epoch + 1, owner = $2 WHERE id = $1 AND ($3 OR owner = $2)"
            " RETURNING epoch, commits",
            dialect.SHARD,
            self._name,
            is_first,
        )
        if found is None:
            raise self.taken_over()
        epoch, self._commits = int(found[0]), int(found[1])
        if is_first:
            self.acknowledged = self._commits
        elif epoch <= self.epoch or self._commits < self.acknowledged:
            raise self.lost_commits()
        self.epoch = epoch

    async def _beat(self) -> None:
        """Keep the session; take the lock again whenever it breaks."""
        while self._lost is None:
            asked = time.monotonic()
            try:
                await self._hold(asked)
            except Exception as error:  # of the driver or the network: tried again
                if self._session is not None:
                    self._session.terminate()
                    self._session = None
                    self._abort()
                    _log.warning("store.session_lost", store=str(self._server.url), reason=type(error).__name__)
            await asyncio.sleep(max(0.05, asked + (BEAT_SECONDS if self._session else 0.3) - time.monotonic()))

    async def _hold(self, asked: float) -> None:
        if self._session is not None:
            await self._check_epoch(self._session)
            self._held_until = asked + HELD_SECONDS
            return
        session = await self._server.connect(is_owner=True)
        try:
            asked = time.monotonic()
            is_ours = await session.fetchval(_LOCK, self._server.url.schema, dialect.SHARD, timeout=HELD_SECONDS)
            # Without the lock, it may be held by our own old session, whose end the server has not noticed yet.
            await self._check_epoch(session)
        except BaseException:
            session.terminate()
            raise
        if not is_ours:
            await close(session)
            return
        self._session = session
        self._held_until = asked + HELD_SECONDS
        _log.info("store.session_restored", store=str(self._server.url))

    async def _check_epoch(self, session: Connection) -> None:
        async with self._claiming:
            if not self.epoch:  # there may be no tables yet
                await session.fetchval("SELECT 1", timeout=HELD_SECONDS)
                return
            query = "SELECT epoch, owner FROM shard WHERE id = $1"
            found = await session.fetchrow(query, dialect.SHARD, timeout=HELD_SECONDS)
            if found is None or found[0] < self.epoch:
                raise self.lost_commits()
            if found[1] != self._name:
                raise self.taken_over()


async def holder(connection: Connection, url: PostgresUrl) -> str | None:
    """Return which process owns a store; None if none does."""
    held = await connection.fetch(_HOLDER, url.schema, dialect.SHARD)
    return await _in_use(connection, url) if held else None


async def _in_use(connection: Connection, url: PostgresUrl) -> str:
    owner = ""
    with suppress(Exception):  # without the name, the sentence says enough
        owner = await connection.fetchval("SELECT owner FROM shard WHERE id = $1", dialect.SHARD) or ""
    owner = owner.partition(_RUN)[0]
    who = f"another process ({owner})" if owner else "another process"
    return f"the store {url} is in use by {who}: stop that one first, or name another database or schema"
