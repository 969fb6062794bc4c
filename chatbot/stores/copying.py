"""Copy a whole store from one database to another, and check that both hold the same.

A copy is one transaction in its target: an interrupted one has left nothing there, and is simply started again. Rows
are counted, and their checksums added up, on both sides; the order of rows does not matter.
"""

from __future__ import annotations

import hashlib
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio

from chatbot.errors import StoreError
from chatbot.stores import postgres_dialect as dialect
from chatbot.stores.postgres import PostgresStore
from chatbot.stores.postgres_server import Connection, LoopThread, Server, close, stored_versions
from chatbot.stores.postgres_url import PostgresUrl
from chatbot.stores.schema import migrate
from chatbot.stores.sqlite import SqliteStore
from chatbot.stores.url import file_of, is_in_memory, open_store, server_of
from chatbot.worker_threads import run_in_thread

T = TypeVar("T")

Row = Sequence[Any]

BATCH: Final = 5_000
"""How many rows are read and written at a time."""

_MODULUS: Final = 2**128


@dataclass(frozen=True, slots=True)
class Copied:
    """The result of a copy.

    Args:
        rows: the number of rows by table.
        checksum: of all rows, as hexadecimal digits; the same in both stores.
        was_there: the target already held exactly this, and was not changed.
    """

    rows: dict[str, int]
    checksum: str
    was_there: bool = False


@dataclass(slots=True)
class _Sum:
    rows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(dialect.TABLES, 0))
    total: int = 0

    def add(self, table: str, rows: Sequence[Row]) -> None:
        self.rows[table] += len(rows)
        for row in rows:
            digest = hashlib.blake2b(repr((table, *row)).encode("utf-8", "surrogatepass"), digest_size=16).digest()
            self.total = (self.total + int.from_bytes(digest)) % _MODULUS


async def copy_store(source: str, target: str, *, base_dir: Path) -> Copied:
    """Copy a store that no bots use into an empty one.

    Args:
        source: the URL to copy from; see `open_store`.
        target: the URL to copy to. It must be empty, or hold the same already.
        base_dir: the directory of relative files.

    Raises:
        ConfigError: a URL is not supported.
        StoreError: a store is in use, cannot be read or written, or the target holds something else.
    """
    await run_in_thread(_check, source, target, base_dir)
    async with AsyncExitStack() as opened:
        reading = await opened.enter_async_context(_side(source, base_dir))
        writing = await opened.enter_async_context(_side(target, base_dir))
        read, there = _Sum(), _Sum()
        async for table, rows in writing.rows():
            there.add(table, rows)
        if any(there.rows.values()):
            async for table, rows in reading.rows():
                read.add(table, rows)
            if read == there:
                return Copied(read.rows, f"{read.total:032x}", was_there=True)
            msg = f"{writing} holds other data already: name an empty store"
            raise StoreError(msg)
        await writing.begin()
        async for table, rows in reading.rows():
            read.add(table, rows)
            await writing.insert(table, rows)
        async for table, rows in writing.rows():
            there.add(table, rows)
        if read != there:
            msg = f"{writing} does not hold what was written to it; nothing was copied: check its disk"
            raise StoreError(msg)
        await writing.commit()
    return Copied(read.rows, f"{read.total:032x}")


def copy_in_memory(url: str, *, base_dir: Path) -> bytes:
    """Return a consistent copy of a store on PostgreSQL, also while bots use it, for `MemoryStore.restore`. Blocks.

    Raises:
        StoreError: it cannot be read.
    """
    found: list[tuple[str, list[Row]]] = []

    async def read() -> None:
        async with _PostgresSide(url, base_dir, is_owned=False) as reading:
            found.extend([part async for part in reading.rows()])

    anyio.run(read)
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as memory:
        migrate(memory, Path(":memory:"))
        for table, rows in found:
            _insert(memory, table, rows)
        return memory.serialize()


def _check(source: str, target: str, base_dir: Path) -> None:
    """Check what can be checked before a store is opened.

    Raises:
        ConfigError: a URL is not supported.
        StoreError: there is nothing to copy, or nowhere to copy it to.
    """
    if is_in_memory(source) or is_in_memory(target):
        msg = "a store in memory ends with its process: name one on PostgreSQL or in a file"
        raise StoreError(msg)
    places = [_place(url, base_dir) for url in (source, target)]
    if places[0] == places[1]:
        msg = "source and target are the same store: name another target"
        raise StoreError(msg)
    if isinstance(places[0], Path) and not places[0].exists():
        msg = f"{places[0]}: there is no such store"
        raise StoreError(msg)


def _place(url: str, base_dir: Path) -> Path | str:
    """Return what tells stores apart."""
    server = server_of(url, base_dir=base_dir)
    if server is not None:
        return str(server)
    open_store(url, base_dir=base_dir)  # raises for an invalid URL; opens nothing
    file = file_of(url, base_dir=base_dir)
    assert file is not None
    return file.resolve()


class _Side(ABC):
    """One of the two stores of a copy: open, and owned by this process."""

    async def rows(self) -> AsyncIterator[tuple[str, list[Row]]]:
        """Yield all rows, some of a table at a time."""
        for table in dialect.TABLES:
            async for rows in self._rows_of(table):
                yield table, rows

    @abstractmethod
    def _rows_of(self, table: str) -> AsyncIterator[list[Row]]: ...

    @abstractmethod
    async def begin(self) -> None:
        """Begin to write."""

    @abstractmethod
    async def insert(self, table: str, rows: list[Row]) -> None:
        """Write rows."""

    @abstractmethod
    async def commit(self) -> None:
        """Make everything durable that was written."""


def _side(url: str, base_dir: Path) -> _PostgresSide | _SqliteSide:
    file = file_of(url, base_dir=base_dir)
    return _PostgresSide(url, base_dir, is_owned=True) if file is None else _SqliteSide(file)


def columns(table: str) -> list[str]:
    """Return the columns of a table, in an order that is the same for all databases."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as memory:
        migrate(memory, Path(":memory:"))
        return [name for _, name, *_ in memory.execute(f"PRAGMA table_info({table})")]


COLUMNS: Final = {table: columns(table) for table in dialect.TABLES}


def selecting(table: str) -> str:
    """Return the query of all rows of a table."""
    return f"SELECT {', '.join(COLUMNS[table])} FROM {table}"  # noqa: S608


def _insert(connection: sqlite3.Connection, table: str, rows: list[Row]) -> None:
    places = ", ".join("?" * len(COLUMNS[table]))
    text = f"INSERT INTO {table} ({', '.join(COLUMNS[table])}) VALUES ({places})"  # noqa: S608
    connection.executemany(text, rows)


class _SqliteSide(_Side):
    """A store in a file, held by its lock."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._store = SqliteStore(file, is_between_runs=True)
        self._connection: sqlite3.Connection | None = None

    def __str__(self) -> str:
        return f"the store {self._file}"

    async def __aenter__(self) -> _SqliteSide:
        await self._store.__aenter__()
        connect = self._connect
        self._connection = await run_in_thread(connect)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        with anyio.CancelScope(shield=True):
            if self._connection is not None:
                await run_in_thread(self._connection.close)
            await self._store.__aexit__(*exc_info)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._file, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    async def _rows_of(self, table: str) -> AsyncIterator[list[Row]]:
        cursor = await self._in_thread(lambda connection: connection.execute(selecting(table)))
        while rows := await self._in_thread(lambda _: cursor.fetchmany(BATCH)):
            yield rows

    async def begin(self) -> None:
        await self._in_thread(lambda connection: connection.execute("BEGIN IMMEDIATE"))

    async def insert(self, table: str, rows: list[Row]) -> None:
        await self._in_thread(lambda connection: _insert(connection, table, rows))

    async def commit(self) -> None:
        await self._in_thread(lambda connection: connection.execute("COMMIT"))

    async def _in_thread(self, work: Any) -> Any:
        try:
            return await run_in_thread(work, self._connection)
        except sqlite3.Error as error:
            msg = f"{self} cannot be read or written: {error}"
            raise StoreError(msg) from error


class _PostgresSide(_Side):
    """A store on PostgreSQL.

    Args:
        url: its URL.
        base_dir: the directory of relative files in it.
        is_owned: hold the store, so that nobody else writes it; otherwise it can only be read.
    """

    def __init__(self, url: str, base_dir: Path, *, is_owned: bool) -> None:
        self._url = PostgresUrl.parse(url, base_dir)
        self._store = PostgresStore(url, base_dir=base_dir, is_between_runs=True) if is_owned else None
        self._server = Server(self._url)
        self._thread = LoopThread()
        self._connection: Connection | None = None
        self._transaction: Any = None

    def __str__(self) -> str:
        return f"the store {self._url}"

    async def __aenter__(self) -> _PostgresSide:
        if self._store is not None:
            await self._store.__aenter__()
        self._thread.start()
        try:
            await self._run(self._open())
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        with anyio.CancelScope(shield=True):
            await self._thread.run(close(self._connection))
            await run_in_thread(self._thread.stop)
            if self._store is not None:
                await self._store.__aexit__(*exc_info)

    async def _open(self) -> None:
        connection = self._connection = await self._server.connect()
        # Between two batches, the other side may be slow.
        await connection.execute("SET idle_in_transaction_session_timeout = 0; SET statement_timeout = 0")
        if self._store is None and await self._is_of_another_version(connection):
            msg = f"{self} has the tables of another version: start the bots, which bring them up to date"
            raise StoreError(msg)
        self._transaction = connection.transaction(isolation="repeatable_read")
        await self._transaction.start()

    async def _is_of_another_version(self, connection: Connection) -> bool:
        versions, known = await stored_versions(connection, self._url), len(dialect.migrations())
        return versions is None or not versions.oldest <= known <= versions.reached

    async def _rows_of(self, table: str) -> AsyncIterator[list[Row]]:
        cursor = await self._run(self._cursor(table))
        while rows := await self._run(cursor.fetch(BATCH)):
            yield [tuple(row) for row in rows]

    async def _cursor(self, table: str) -> Any:
        assert self._connection is not None
        return await self._connection.cursor(selecting(table))

    async def begin(self) -> None:
        await self._run(self._fence())

    async def _fence(self) -> None:
        """Refuse to write, and keep others from it, if the store is not ours any more."""
        assert self._connection is not None
        assert self._store is not None
        query = "SELECT 1 FROM shard WHERE id = $1 AND epoch = $2 FOR SHARE"
        if await self._connection.fetchval(query, dialect.WHOLE, self._store.epoch) is None:
            msg = f"{self} was taken over by another process; nothing was copied"
            raise StoreError(msg)

    async def insert(self, table: str, rows: list[Row]) -> None:
        await self._run(self._insert(table, rows))

    async def _insert(self, table: str, rows: list[Row]) -> None:
        assert self._connection is not None
        await self._connection.copy_records_to_table(
            table, schema_name=self._url.schema, columns=COLUMNS[table], records=rows
        )

    async def commit(self) -> None:
        await self._run(self._commit())

    async def _commit(self) -> None:
        assert self._connection is not None
        for table, column in dialect.NUMBERED.items():  # what comes next is behind what was copied
            await self._connection.execute(
                f"SELECT setval(pg_get_serial_sequence('{table}', '{column}'), max({column})) FROM {table}"  # noqa: S608
            )
        await self._transaction.commit()

    async def _run(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return await self._thread.run(work)
        except StoreError:
            raise
        except Exception as error:
            raise self._server.explain(error, "read or write") from error
