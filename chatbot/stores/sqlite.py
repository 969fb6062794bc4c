"""The embedded store: one SQLite file, used by one process. A writer thread groups commits; reads run beside it.

It requires a real event loop, because its threads do not work with virtual time (such tests use `MemoryStore`).
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio
import anyio.to_thread

from chatbot.errors import StoreError
from chatbot.model import UserId
from chatbot.stores import codec, queries, rows
from chatbot.stores.queries import SqlStore
from chatbot.stores.sql import Plan, execute, run
from chatbot.stores.sqlite_file import CHECKPOINT_SECONDS, SqliteFile, StoreLock
from chatbot.stores.statements import statements
from chatbot.stores.writer import Job, Writer
from chatbot.stores.writes import RenameBot, SaveBot, Write
from chatbot.worker_threads import run_in_thread

T = TypeVar("T")

_CHECKPOINTED: Final = frozenset({SaveBot, RenameBot})
"""Writes that must be in the file itself soon: whoever copies it alone must at least not lose who the bots are."""

READERS: Final = 4
"""The maximum number of concurrent reads, each on its own connection."""


class SqliteStore(SqlStore):
    """A `Store` in a file, which is created on first use. Its directory must exist.

    Args:
        path: the file, relative to the working directory. `-wal`, `-shm` and `.lock` files are created next to it.
        busy_seconds: how long another program (a backup, the sqlite3 shell) may lock the file before a commit fails.
        is_between_runs: the store is opened for inspection or a small change between two runs. The record of how the
            last run ended (`was_killed`) is then left unchanged for the next run.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, busy_seconds: float = 5.0, is_between_runs: bool = False
    ) -> None:
        self._file = SqliteFile(Path(path).absolute(), busy_seconds=busy_seconds)
        self._is_between_runs = is_between_runs
        self._writer: Writer | None = None
        self._readers: _Readers | None = None
        self._transactions = _Transactions(self._file, is_between_runs=is_between_runs)
        self._exits = AsyncExitStack()
        self._last = queries.LastHolder()

    async def __aenter__(self) -> SqliteStore:
        """Take the lock, create the file if necessary, and migrate its tables.

        Raises:
            StoreInUse: another process uses the file.
            StoreTooNew: a newer chatbot wrote the file.
            StoreError: the file cannot be used.
        """
        async with AsyncExitStack() as exits:
            await run_in_thread(self._file.find)
            lock, transactions = StoreLock(self._file.path), self._transactions
            await run_in_thread(lock.acquire)
            exits.push_async_callback(_shielded, lock.release)
            self._last = await run_in_thread(transactions.open)
            exits.push_async_callback(_shielded, transactions.close)
            readers = _Readers(self._file)
            exits.push_async_callback(readers.close)
            writer = Writer(transactions.write)
            await run_in_thread(writer.start)
            exits.push_async_callback(writer.close)
            self._exits = exits.pop_all()
        self._writer, self._readers = writer, readers
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Write the submitted commits, then close the file."""
        self._writer = self._readers = None
        await self._exits.aclose()

    async def commit(
        self, bot: UserId, writes: Sequence[Write], *, shards: Collection[int] = (), notes: Sequence[str] = ()
    ) -> None:
        """Make changes durable, in one transaction with other waiting commits; see `Store.commit`."""
        writer = self._open_writer()
        # Encoded here, not in the writer: what cannot be stored must fail this caller, not the group it would be in.
        commands = statements(bot, writes)
        if not commands:
            return
        if not _CHECKPOINTED.isdisjoint(map(type, writes)):
            self._transactions.is_checkpoint_due = True
        await writer.submit(partial(execute, statements=commands))

    def stop_began(self) -> None:
        """See `EndableStore.stop_began`."""
        if self._writer is not None and not self._is_between_runs:
            self._writer.submit_from_thread(partial(execute, statements=[queries.MARK_STOPPING]))

    def submit_from_thread(self, bot: UserId, writes: Sequence[Write]) -> None:
        """See `EndableStore.submit_from_thread`."""
        if self._writer is not None and (commands := statements(bot, writes)):
            self._writer.submit_from_thread(partial(execute, statements=commands))

    def stay_marked(self) -> None:
        """See `EndableStore.stay_marked`."""
        self._transactions.ends_in_order = False

    def finish(self, seconds: float) -> None:
        """See `EndableStore.finish`."""
        if self._writer is not None:
            self._writer.submit_from_thread(lambda _connection: None).wait(seconds)

    async def forget(self, user: UserId) -> int:
        """Erase a user, including traces in free pages and in the write-ahead log; see `Store.forget`."""
        writer = self._open_writer()
        person = UserId(codec.text(user, "user"))
        # The plan is created inside the job: the writer repeats a job if another one of its group fails.
        changed = await writer.submit(lambda connection: run(connection, queries.forget(person)))
        await run_in_thread(self._file.empty_log)
        return changed

    def _open_writer(self) -> Writer:
        if self._writer is None:
            raise rows.not_open()
        return self._writer

    async def _read(self, plan: Plan[T], *, is_single: bool = True) -> T:
        if self._readers is None:
            raise rows.not_open()
        return await self._readers.run(plan)


class _Transactions:
    """Writes each group of jobs in one transaction, even if some jobs fail. Used in the writer's thread only.

    After a file error, the connection is dropped and the next group opens a new one. The store therefore recovers by
    itself once the cause is fixed.
    """

    def __init__(self, file: SqliteFile, *, is_between_runs: bool) -> None:
        self._file = file
        self._is_between_runs = is_between_runs
        self._connection: sqlite3.Connection | None = None
        self.ends_in_order = True
        self.is_checkpoint_due = False
        self._checkpointed_at = 0.0

    def open(self) -> queries.LastHolder:
        """Open the file and record this process as its holder; return how the last holder ended."""
        self._connection = self._file.prepare()
        if self._is_between_runs:
            return queries.LastHolder()
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            last = run(self._connection, queries.mark_open(os.getpid()))
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._drop()
            raise self._file.explain(error, "open") from error
        self._checkpoint(self._connection)
        return last

    def close(self) -> None:
        """Record a regular end and close the file; without that record, the next holder reports a kill."""
        if self.ends_in_order and not self._is_between_runs:
            with suppress(sqlite3.Error, StoreError):
                execute(self._connected(), [queries.MARK_CLOSED])
        self._drop()

    def _connected(self) -> sqlite3.Connection:
        self._file.check_in_place()
        self._connection = self._connection or self._file.connect()
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):  # closing rolls back an open transaction, as intended
                self._connection.close()
            self._connection = None

    def write(self, group: Sequence[Job[Any]]) -> None:
        try:
            connection = self._connected()
            if not _write_together(connection, group):
                _write_separately(connection, group)
            if self.is_checkpoint_due or time.monotonic() - self._checkpointed_at >= CHECKPOINT_SECONDS:
                self._checkpoint(connection)
        except Exception as error:  # handed to the tasks that wait, which log or raise it
            self._drop()
            for job in group:
                job.error = self._error(error)
                job.error.__cause__ = error

    def _checkpoint(self, connection: sqlite3.Connection) -> None:
        self.is_checkpoint_due = False
        self._file.checkpoint(connection)
        self._checkpointed_at = time.monotonic()

    def _error(self, error: Exception) -> StoreError:
        """Return a new error for each job, because each is raised in a different task."""
        return StoreError(str(error)) if isinstance(error, StoreError) else self._file.explain(error, "write")


def _write_together(connection: sqlite3.Connection, group: Sequence[Job[Any]]) -> bool:
    """Write a group in one transaction; return False, with nothing written, if a job fails by itself, which is rare.

    Savepoints are not used, because they cost more than the jobs. A failing job rolls back the whole group, which
    `_write_separately` then writes again. Every job must therefore be safe to run twice.
    """
    connection.execute("BEGIN IMMEDIATE")
    for job in group:
        try:
            job.result = job.work(connection)
        except Exception as error:
            if _is_of_file(error) or not connection.in_transaction:
                raise
            # `_write_separately` repeats the group and overwrites the results of its earlier jobs.
            connection.execute("ROLLBACK")
            return False
    connection.execute("COMMIT")
    return True


def _write_separately(connection: sqlite3.Connection, group: Sequence[Job[Any]]) -> None:
    """Write a group with a savepoint for each job: a failing job is rolled back and gets its error, others are kept."""
    connection.execute("BEGIN IMMEDIATE")
    for job in group:
        connection.execute("SAVEPOINT job")
        try:
            job.result = job.work(connection)
        except Exception as error:
            if _is_of_file(error) or not connection.in_transaction:
                raise
            connection.execute("ROLLBACK TO job")
            job.error = error  # raised in the task that waits
        connection.execute("RELEASE job")
    connection.execute("COMMIT")


def _is_of_file(error: Exception) -> bool:
    """Return whether the file or the machine failed, so that the whole transaction is in doubt."""
    kinds = (sqlite3.OperationalError, sqlite3.InternalError, MemoryError, OSError)
    return isinstance(error, kinds) or type(error) is sqlite3.DatabaseError


class _Readers:
    """Runs reads in worker threads, on connections that are opened on demand."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file
        self._limiter = anyio.CapacityLimiter(READERS)
        self._idle: list[sqlite3.Connection] = []

    async def run(self, plan: Plan[T]) -> T:
        return await anyio.to_thread.run_sync(self._run, plan, limiter=self._limiter)

    async def close(self) -> None:
        """Wait for running reads, then close the connections. Not interrupted by cancellation."""
        with anyio.CancelScope(shield=True):
            for _ in range(READERS):
                await self._limiter.acquire_on_behalf_of(object())
            await run_in_thread(self._close)

    def _close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _run(self, plan: Plan[T]) -> T:
        connection = self._idle.pop() if self._idle else self._file.connect(for_reading=True)
        try:
            connection.execute("BEGIN")
            result = run(connection, plan)
            connection.execute("COMMIT")
        except BaseException as error:
            connection.close()
            if isinstance(error, sqlite3.Error):
                raise self._file.explain(error, "read") from error
            raise
        self._idle.append(connection)
        return result


async def _shielded(work: Callable[[], None]) -> None:
    """Run a blocking function to completion, even if the task is cancelled."""
    with anyio.CancelScope(shield=True):
        await run_in_thread(work)
