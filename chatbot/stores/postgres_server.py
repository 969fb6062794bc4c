"""Connections to a PostgreSQL server: opening and checking them, and errors that say what to do.

Everything here runs on the event loop of the store's thread (`LoopThread`). It is a thread of its own, so that the
store keeps its sessions alive, and ends in order, even while the bots' event loop is blocked or has ended.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from chatbot.distribution import install_command
from chatbot.errors import ConfigError, StoreError, StoreTooNew
from chatbot.stores import postgres_dialect as dialect
from chatbot.stores.passwords import TokenPassword
from chatbot.stores.postgres_url import PostgresUrl
from chatbot.stores.sql import Plan

T = TypeVar("T")

Connection: TypeAlias = Any
"""A connection of asyncpg, which has no types, and is an extra that only those load who use it."""

CONNECT_SECONDS: Final = 10
"""How long opening a connection may take."""

STATEMENT_SECONDS: Final = 30.0
"""How long a statement may take."""

LOCK_SECONDS: Final = 10.0
"""How long a statement may wait for another program's locks."""

SILENT_SECONDS: Final = 6.0
"""How long a session may be silent, as an owner or within a transaction, before the server ends it."""

IS_STANDBY: Final = "application_name NOT IN ('pg_basebackup', 'pg_receivewal')"
"""What is true of a row of `pg_stat_replication` unless it is a program that only copies: no failover leads there."""


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._run, name="chatbot-store-postgres", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._loop = asyncio.new_event_loop()
        self._thread.start()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there, from a task of another event loop. If the task is cancelled, so is the coroutine."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there, and block this thread until it is done."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def stop(self) -> None:
        """End the loop and the thread; blocks."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self._loop.close()


class Server:
    """A PostgreSQL server, and the database of a store.

    Args:
        url: where it is.
    """

    def __init__(self, url: PostgresUrl) -> None:
        self.url = url
        self._password = url.password if url.credential is None else TokenPassword(url.credential, url.client_id)
        self._tls: ssl.SSLContext | None = None

    async def connect(self, *, is_owner: bool = False) -> Connection:
        """Open a connection to the server that accepts writes, and check that it is one to the server itself.

        Args:
            is_owner: the server shall end the session if it is silent.

        Raises:
            StoreError: there is none; the text gives the reason and a remedy.
        """
        if find_spec("asyncpg") is None:
            msg = f"a store on PostgreSQL needs the package asyncpg: {install_command('postgres')}"
            raise StoreError(msg)
        try:
            connection = await self._connect()
        except ConfigError as error:  # a file of certificates that the URL names, or the source of tokens
            raise StoreError(str(error)) from None
        except Exception as error:
            raise self.explain(error, "connect to") from error
        with self.terminated_on_error(connection, "open"):
            await self._prepare(connection, is_owner=is_owner)
        return connection

    @contextmanager
    def terminated_on_error(self, connection: Connection, doing: str) -> Iterator[None]:
        """Return a block that terminates a connection if it fails, and explains the error, see `explain`."""
        try:
            yield
        except BaseException as error:
            connection.terminate()
            if isinstance(error, StoreError) or not isinstance(error, Exception):
                raise
            raise self.explain(error, doing) from error

    async def _connect(self) -> Connection:
        import asyncpg

        url = self.url
        if self._tls is None:
            self._tls = await asyncio.to_thread(url.tls)
        return await asyncpg.connect(
            host=[host for host, _ in url.hosts],
            port=[port for _, port in url.hosts],
            user=url.user,
            password=self._password,
            passfile=url.passfile,
            database=url.database,
            ssl=self._tls or False,
            timeout=CONNECT_SECONDS,
            command_timeout=STATEMENT_SECONDS + LOCK_SECONDS,
            target_session_attrs="read-write" if len(url.hosts) > 1 else "any",
        )

    async def _prepare(self, connection: Connection, *, is_owner: bool) -> None:
        pid, version, encoding, synchronous = await connection.fetchrow(
            "SELECT pg_backend_pid(), current_setting('server_version_num')::int / 10000,"
            " current_setting('server_encoding'), current_setting('synchronous_commit')"
        )
        if pid != connection.get_server_pid():
            msg = (
                f"{self.url} is a connection pooler (such as PgBouncer), which does not keep a session for us: "
                "name the PostgreSQL server itself"
            )
            raise StoreError(msg)
        if version < dialect.OLDEST_SERVER:
            msg = f"{self.url} is PostgreSQL {version}: chatbot needs {dialect.OLDEST_SERVER} or newer"
            raise StoreError(msg)
        if encoding != "UTF8":
            msg = f"the database {self.url} has the encoding {encoding}: create one with ENCODING 'UTF8'"
            raise StoreError(msg)
        settings = {
            "application_name": "chatbot",
            "search_path": self.url.schema,
            "statement_timeout": _milliseconds(STATEMENT_SECONDS),
            "lock_timeout": _milliseconds(LOCK_SECONDS),
            # Without it, a process that is paused within a transaction would block its successor for ever.
            "idle_in_transaction_session_timeout": _milliseconds(SILENT_SECONDS),
            "idle_session_timeout": _milliseconds(SILENT_SECONDS) if is_owner else "0",
        }
        if synchronous in ("off", "local"):
            settings["synchronous_commit"] = "on"  # an acknowledged commit survives a power failure
        await connection.execute("; ".join(f"SET {name} = '{value}'" for name, value in settings.items()))

    def explain(self, error: Exception, doing: str) -> StoreError:
        """Return an error that states in one sentence what happened and what to do.

        Args:
            error: the exception of the driver. What it says of rows is not shown: it may quote people.
            doing: "connect to", "open", "read" or "write".
        """
        code = getattr(error, "sqlstate", None)
        if isinstance(error, StoreError):
            return StoreError(str(error))
        if code is not None:
            name = f"{type(error).__name__}, {code}"
            return StoreError(
                f"cannot {doing} the store {self.url}: {dialect.remedy(code) or 'the server refuses'} ({name})"
            )
        if isinstance(error, ssl.SSLError):
            reason = getattr(error, "verify_message", "") or error.reason
            what = f"TLS fails ({reason}): name the authority of the server's certificate with sslrootcert=FILE"
        elif isinstance(error, TimeoutError):
            what = "the server does not answer: check the host, the network and the server's load"
        elif isinstance(error, OSError):
            what = f"{error.strerror or error}: check that the server runs, and the host and port"
        else:
            what = f"{error}" if doing == "connect to" else "the connection was lost"
        return StoreError(f"cannot {doing} the store {self.url}: {what} ({type(error).__name__})")


def is_of_database(error: Exception) -> bool:
    """Return whether an error comes from the driver or the network, and not from our own code."""
    return isinstance(error, OSError | TimeoutError | EOFError) or type(error).__module__.startswith("asyncpg")


def _milliseconds(seconds: float) -> str:
    return str(int(seconds * 1000))


async def run(connection: Connection, plan: Plan[T]) -> T:
    """Run a plan, and return what it returns. The caller owns the transaction."""
    try:
        statement = next(plan)
        while True:
            rows = await connection.fetch(dialect.translated(statement.sql), *statement.values)
            statement = plan.send(rows)
    except StopIteration as end:
        result: T = end.value
        return result


async def close(connection: Connection | None) -> None:
    """Close a connection in order if the server answers."""
    if connection is None or connection.is_closed():
        return
    with suppress(Exception):  # it is given up either way
        await connection.close(timeout=2)


class Standbys(NamedTuple):
    """Whether a failover of a server may lose confirmed commits.

    Args:
        problem: why it may, and a remedy; None if no standby is known that is behind.
        notice: why that is not known for sure, and a remedy; None if it is.
    """

    problem: str | None = None
    notice: str | None = None


async def standbys(connection: Connection, url: PostgresUrl) -> Standbys:
    """Return whether the server has a standby that may be behind, and that a failover may lead to."""
    if url.allows_async_standby or await connection.fetchval("SELECT current_setting('synchronous_standby_names')"):
        return Standbys()
    behind, hidden = await connection.fetchrow(_STANDBYS)
    if behind:
        return Standbys(
            problem=f"the server of {url} has a standby that is replicated asynchronously: after a failover, confirmed "
            "commits may be missing, and messages be handled twice. Set synchronous_standby_names on the server, or "
            "accept this with ?allow_async_standby=1"
        )
    if hidden:
        return Standbys(
            notice=f"the server of {url} may have a standby that is replicated asynchronously, which this user may not "
            "see: GRANT pg_monitor to it, or set synchronous_standby_names"
        )
    return Standbys()


_STANDBYS: Final = f"""
    SELECT
        count(*) FILTER (WHERE sync_state = 'async' AND state <> 'backup' AND {IS_STANDBY}),
        count(*) FILTER (WHERE sync_state IS NULL)
    FROM pg_stat_replication AS receiver
    WHERE NOT EXISTS (
        SELECT 1 FROM pg_replication_slots WHERE active_pid = receiver.pid AND slot_type = 'logical'
    )"""  # noqa: S608
"""Counts physical standbys that are behind, and separately those of which this user sees only that they are there."""


async def standby_lag(connection: Connection) -> float | None:
    """Return by how many seconds the slowest standby is behind; None if there is none that this user may see."""
    lag: float | None = await connection.fetchval(_LAG)
    return lag


_LAG: Final = f"""
    SELECT max(coalesce(extract(epoch FROM replay_lag)::float8, 0)) FROM pg_stat_replication
    WHERE state IS NOT NULL AND {IS_STANDBY}"""  # noqa: S608


class Versions(NamedTuple):
    """How far the tables of a store are, and who can use them.

    Args:
        oldest: the oldest version whose chatbots can use them. A chatbot that knows no other number takes it for the
            version, and so goes on beside newer ones.
        reached: the version of the tables.
        sharing: how many entries of `dialect.SHARING` they have.
    """

    oldest: int
    reached: int
    sharing: int


async def migrate(connection: Connection, url: PostgresUrl) -> None:
    """Create the tables, or bring them up to date, in one transaction. The caller holds the lock of migrations.

    Raises:
        StoreTooNew: a newer chatbot wrote them, and this one cannot use them.
        StoreError: the schema belongs to another program.
    """
    known = dialect.migrations()
    versions = await stored_versions(connection, url)
    check_versions(versions, url)
    if versions is not None and versions.reached >= len(known) and versions.sharing >= len(dialect.SHARING):
        return
    async with connection.transaction():
        if versions is None:
            # Asked first: IF NOT EXISTS would need the right to create one even where there is one.
            if not await connection.fetchval("SELECT 1 FROM pg_namespace WHERE nspname = $1", url.schema):
                await connection.execute(f"CREATE SCHEMA {url.schema}")
            await _execute_all(connection, dialect.FOUNDATION)
            versions = Versions(0, 0, 0)
        for migration in known[versions.reached :]:
            await _execute_all(connection, migration)
        for name in ("reached", "sharing"):
            await connection.execute(f"ALTER TABLE store_version ADD COLUMN IF NOT EXISTS {name} INTEGER")
        for addition in dialect.SHARING[versions.sharing :]:
            await _execute_all(connection, addition)
        await connection.execute(
            "UPDATE store_version SET version = greatest(version, $1), reached = greatest(coalesce(reached, 0), $2),"
            " sharing = greatest(coalesce(sharing, 0), $3)",
            min(dialect.OLDEST_USER, len(known)),
            len(known),
            len(dialect.SHARING),
        )


def check_versions(versions: Versions | None, url: PostgresUrl) -> None:
    """Check that this chatbot can use tables.

    Raises:
        StoreTooNew: it is too old for them.
    """
    known = len(dialect.migrations())
    if versions is not None and versions.oldest > known:
        msg = (
            f"{url} has version {versions.reached} of the store, and this chatbot knows up to {known}: "
            "run a newer chatbot, or name another schema"
        )
        raise StoreTooNew(msg)


async def _execute_all(connection: Connection, texts: Sequence[str]) -> None:
    for text in texts:
        await connection.execute(text)


async def stored_versions(connection: Connection, url: PostgresUrl) -> Versions | None:
    """Return the versions of the tables; None if there are none.

    Raises:
        StoreError: the schema has tables of another program.
    """
    tables = {
        name
        for (name,) in await connection.fetch(
            "SELECT relname::text FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace"
            " WHERE nspname = $1 AND relkind IN ('r', 'p', 'v', 'm', 'f')",
            url.schema,
        )
    }
    if not tables:
        return None
    # As JSON: the columns are those of whichever version wrote it.
    query = "SELECT to_json(store_version)::text FROM store_version"
    found = json.loads(await connection.fetchval(query) or "{}") if "store_version" in tables else {}
    if found.get("application") != "chatbot":
        msg = f"the schema {url.schema} of {url} has tables of another program: name another one with ?schema=NAME"
        raise StoreError(msg)
    oldest = int(found["version"])
    return Versions(oldest, int(found.get("reached") or oldest), int(found.get("sharing") or 0))
