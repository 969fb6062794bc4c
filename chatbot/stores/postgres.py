"""The store on PostgreSQL: one process at a time, see `postgres_owner`. A writer groups commits; reads run beside it.

A group of commits is one call of a function, and one round trip. It requires a real event loop, because its threads do
not work with virtual time (such tests use `MemoryStore`).

If the connection breaks while a group is being committed, nobody knows whether it was. It is then neither reported as
failed nor repeated: the store reconnects under a new epoch, which no commit of the old connection survives, and reads
the number of the last commit. Until then, commits wait.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio
import structlog

from chatbot.errors import ConfigError, StoreError
from chatbot.model import UserId
from chatbot.stores import codec, queries, rows
from chatbot.stores import postgres_dialect as dialect
from chatbot.stores.postgres_owner import Owner
from chatbot.stores.postgres_server import Connection, LoopThread, Server, close, run
from chatbot.stores.postgres_url import PostgresUrl
from chatbot.stores.queries import SqlStore
from chatbot.stores.sql import Plan, Statement
from chatbot.stores.statements import statements
from chatbot.stores.writer import Job, Writer
from chatbot.stores.writes import Write
from chatbot.worker_threads import run_in_thread

T = TypeVar("T")

READERS: Final = 4
"""The maximum number of concurrent reads, each on its own connection."""

PATIENCE_SECONDS: Final = 3.0
"""How long a read, or a commit that was not sent yet, waits for a connection before it fails."""

CLOSING_SECONDS: Final = 10.0
"""How long closing waits to learn whether the last commits were made."""

ATTEMPTS: Final = 4
"""How often a commit is tried that the server undid because of other transactions."""

Work = Callable[[Any], Sequence[Statement] | Plan[Any]]
"""What a job of the writer calls: returns statements, or a plan, and does not touch the database itself."""

_log = structlog.get_logger(__name__)


class PostgresStore(SqlStore):
    """A `Store` in a schema of a PostgreSQL database, which is created on first use.

    Args:
        url: see `PostgresUrl`.
        base_dir: the directory of relative file names in the URL.
        is_between_runs: see `SqliteStore`.

    Raises:
        ConfigError: the URL cannot be used.
    """

    def __init__(self, url: str, *, base_dir: Path | None = None, is_between_runs: bool = False) -> None:
        self._url = PostgresUrl.parse(url, base_dir or Path())
        self._is_between_runs = is_between_runs
        self._lost = anyio.Event()
        self._exits = AsyncExitStack()
        self._writer: Writer | None = None
        self._thread: LoopThread | None = None
        self._owner: Owner | None = None
        self._readers: _Readers | None = None
        self._transactions: _Transactions | None = None
        self._last = queries.LastHolder()
        self._ends_in_order = True

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._url}>"

    async def __aenter__(self) -> PostgresStore:
        """Take the lock, and create or migrate the tables.

        Raises:
            StoreInUse: another process uses the store.
            StoreTooNew: a newer chatbot wrote it.
            StoreError: it cannot be used.
        """
        self._lost, self._ends_in_order = anyio.Event(), True
        loop = asyncio.get_running_loop()

        def lost(_error: StoreError) -> None:
            with suppress(RuntimeError):  # the bots' loop has ended
                loop.call_soon_threadsafe(self._lost.set)

        async with AsyncExitStack() as exits:
            thread = LoopThread()
            thread.start()
            exits.push_async_callback(_shielded, partial(run_in_thread, thread.stop))
            server = Server(self._url)
            owner = Owner(server, lost)
            transactions = _Transactions(server, owner)
            try:
                opening = thread.run(transactions.open(is_between_runs=self._is_between_runs))
                self._last = await opening
            except ConfigError as error:  # a file of certificates that the URL names
                raise StoreError(str(error)) from None
            exits.push_async_callback(_shielded, lambda: thread.run(self._close(transactions)))
            readers = _Readers(server)
            exits.push_async_callback(_shielded, lambda: thread.run(readers.close()))
            writer = Writer(lambda group: thread.call(transactions.write(group)))
            await run_in_thread(writer.start)
            exits.push_async_callback(writer.close)
            self._exits = exits.pop_all()
        self._thread, self._owner, self._readers, self._transactions = thread, owner, readers, transactions
        self._writer = writer
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Write the submitted commits, then give up the lock."""
        self._writer = self._readers = None
        if self._transactions is not None:
            self._transactions.close_by = time.monotonic() + CLOSING_SECONDS
        await self._exits.aclose()

    async def _close(self, transactions: _Transactions) -> None:
        await transactions.close(is_marked=not self._ends_in_order or self._is_between_runs)

    @property
    def epoch(self) -> int:
        """The number under which this process owns the store; it is raised whenever the store is opened."""
        return 0 if self._owner is None else self._owner.epoch

    @property
    def is_held(self) -> bool:
        """See `OwnedStore.is_held`."""
        return self._owner is not None and self._owner.is_held

    async def lost(self) -> StoreError:
        """See `OwnedStore.lost`."""
        await self._lost.wait()
        owner = self._owner
        assert owner is not None
        return owner.lost or StoreError(f"the store {self._url} is lost")

    async def commit(
        self, bot: UserId, writes: Sequence[Write], *, shards: Collection[int] = (), notes: Sequence[str] = ()
    ) -> None:
        """Make changes durable, in one transaction with other waiting commits; see `Store.commit`."""
        writer = self._open_writer()
        # Encoded here, not in the writer: what cannot be stored must fail this caller, not the group it would be in.
        commands = statements(bot, writes)
        if commands:
            await writer.submit(_returning(commands))

    def stop_began(self) -> None:
        """See `EndableStore.stop_began`."""
        if self._writer is not None and not self._is_between_runs:
            self._writer.submit_from_thread(_returning([queries.MARK_STOPPING]))

    def submit_from_thread(self, bot: UserId, writes: Sequence[Write]) -> None:
        """See `EndableStore.submit_from_thread`."""
        if self._writer is not None:
            self._writer.submit_from_thread(_returning(statements(bot, writes)))

    def stay_marked(self) -> None:
        """See `EndableStore.stay_marked`."""
        self._ends_in_order = False

    def finish(self, seconds: float) -> None:
        """See `EndableStore.finish`."""
        if self._writer is not None:
            self._writer.submit_from_thread(_returning([])).wait(seconds)

    async def forget(self, user: UserId) -> int:
        """Erase a user; see `Store.forget`. The server's old row versions go with its next vacuum."""
        writer = self._open_writer()
        person = UserId(codec.text(user, "user"))
        # The plan is created inside the job: it is run again if its transaction is undone.
        changed: Any = await writer.submit(lambda _: queries.forget(person))  # the plan's result, not the plan
        return int(changed)

    def _open_writer(self) -> Writer:
        if self._writer is None:
            raise rows.not_open()
        return self._writer

    async def _read(self, plan: Plan[T], *, is_single: bool = True) -> T:
        readers, thread = self._readers, self._thread
        if readers is None or thread is None:
            raise rows.not_open()
        return await thread.run(readers.run(plan, is_single=is_single))


def _returning(commands: Sequence[Statement]) -> Callable[[Any], Any]:
    return lambda _: commands


class _Transactions:
    """Writes each group of jobs in one transaction, even if some jobs fail. Runs in the store's thread.

    Args:
        server: the server.
        owner: who owns the store.
    """

    def __init__(self, server: Server, owner: Owner) -> None:
        self._server = server
        self._owner = owner
        self._connection: Connection | None = None
        self._number = 0
        self.close_by: float | None = None
        self.round_trips = 0

    async def open(self, *, is_between_runs: bool) -> queries.LastHolder:
        """Take the store and record this process as its holder; return how the last holder ended."""
        self._connection = await self._owner.open()
        self._number = self._owner.acknowledged
        if is_between_runs:
            return queries.LastHolder()
        try:
            marking = Job[Any](lambda _: queries.mark_open(os.getpid()), None)
            await self.write([marking])
            if marking.error is not None:
                raise marking.error
        except BaseException:
            await self._owner.close()
            raise
        assert isinstance(marking.result, queries.LastHolder)
        return marking.result

    async def close(self, *, is_marked: bool) -> None:
        """Record a regular end and give up the store; without that record, the next holder reports a kill."""
        if not is_marked:
            await self.write([Job(_returning([queries.MARK_CLOSED]), None)])
        await close(self._connection)
        self._connection = None
        await self._owner.close()

    async def write(self, group: Sequence[Job[Any]]) -> None:
        """Write a group: commits together, and each plan in a transaction of its own, in their order."""
        together: list[tuple[Job[Any], Sequence[Statement]]] = []
        for job in group:
            work = job.work(None)
            if isinstance(work, Sequence):
                together.append((job, work))
                continue
            await self._commit_together(together)
            together = []
            work.close()
            await self._attempt([job], partial(self._run_plan, job))
        await self._commit_together(together)

    async def _commit_together(self, jobs: list[tuple[Job[Any], Sequence[Statement]]]) -> None:
        """Write commits in one transaction. One that fails by itself is left out, and the others are written again."""
        jobs = [(job, commands) for job, commands in jobs if commands]
        while jobs:
            failed = await self._attempt([job for job, _ in jobs], partial(self._call, [part for _, part in jobs]))
            if failed is None:
                return
            index, error = _blamed(jobs, failed)
            if index is None:
                if len(jobs) == 1:
                    jobs[0][0].error = self._server.explain(failed, "write")
                    return
                for job in jobs:  # one of them: each on its own, so that it fails alone
                    await self._commit_together([job])
                return
            jobs.pop(index)[0].error = error

    async def _attempt(self, jobs: Sequence[Job[Any]], work: Callable[[Connection, int], Any]) -> Exception | None:
        """Do work in a transaction, and find out whether it was committed if the connection breaks.

        Returns:
            The error of the work's own statements, with nothing written. Other errors become those of the jobs.
        """
        tries, begun = 0, time.monotonic()
        while True:
            try:
                connection = await self._connected(begun)
            except StoreError as error:
                self._fail(jobs, error)
                return None
            try:
                await work(connection, self._number + 1)
            except Exception as error:
                code = getattr(error, "sqlstate", None)
                tries += 1
                if code == dialect.FENCED:
                    # Another process has the store, which connecting finds out; or our own epoch was raised twice.
                    self._drop()
                    begun = time.monotonic()
                    continue
                if code in dialect.RETRIED and tries < ATTEMPTS:
                    await asyncio.sleep(0.05 * tries)
                    continue
                if code in dialect.RETRIED or (code is not None and code[:2] in ("53", "25")):
                    self._drop()  # after a failover, the next connection may lead to the primary
                    self._fail(jobs, self._server.explain(error, "write"))
                elif code is not None and code[:2] in dialect.UNDONE:
                    return error
                else:
                    done = await self._resolve(error)
                    if isinstance(done, StoreError):
                        self._fail(jobs, done)
                    elif not done:
                        continue
                return None
            self._number += 1
            self._owner.acknowledged = self._number
            return None

    async def _connected(self, begun: float) -> Connection:
        """Return the connection, or a new one; a commit that was not sent yet may fail for the lack of one.

        Raises:
            StoreError: there is none.
        """
        while self._connection is None or self._connection.is_closed() or self._owner.lost is not None:
            try:
                self._connection, _ = await self._owner.reconnect()
            except StoreError:
                if self._owner.lost is not None or time.monotonic() - begun > PATIENCE_SECONDS:
                    raise
                await asyncio.sleep(0.1)
        return self._connection

    async def _resolve(self, error: Exception) -> bool | StoreError:
        """Find out, however long it takes, whether a commit was made whose connection broke.

        Returns:
            Whether it was made; an error if the store is lost, or is being closed.
        """
        self._drop()
        _log.warning("store.connection_lost", store=str(self._server.url), reason=type(error).__name__)
        while True:
            try:
                self._connection, last = await self._owner.reconnect()
                break
            except StoreError as problem:
                is_late = self.close_by is not None and time.monotonic() > self.close_by
                if self._owner.lost is not None or is_late:
                    return problem
                await asyncio.sleep(0.2)
        _log.info("store.connection_restored", store=str(self._server.url))
        if last == self._number + 1:
            self._number = self._owner.acknowledged = last
            return True
        return False

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
        self._connection = None

    def _fail(self, jobs: Sequence[Job[Any]], error: StoreError) -> None:
        for job in jobs:  # a new error for each, because each is raised in a different task
            job.error = type(error)(str(error))
            job.error.__cause__ = error

    async def _call(self, commits: Sequence[Sequence[Statement]], connection: Connection, number: int) -> None:
        arguments = dialect.call([command for commands in commits for command in commands])
        self.round_trips += 1
        await connection.fetchval(dialect.COMMIT, dialect.SHARD, self._owner.epoch, number, *arguments)

    async def _run_plan(self, job: Job[Any], connection: Connection, number: int) -> None:
        async with connection.transaction():
            await self._call([], connection, number)
            job.result = await run(connection, job.work(None))


def _blamed(
    jobs: Sequence[tuple[Job[Any], Sequence[Statement]]], error: Exception
) -> tuple[int | None, Exception | None]:
    """Return which commit an error belongs to, and what it raises; None if that is not known."""
    if getattr(error, "sqlstate", None) != dialect.UNCHANGED:
        return None, None
    place = int(str(error))
    for index, (_, commands) in enumerate(jobs):
        if place < len(commands):
            return index, commands[place].unless
        place -= len(commands)
    return None, None


class _Readers:
    """Runs reads on connections that are opened on demand. Runs in the store's thread."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._slots = asyncio.Semaphore(READERS)
        self._idle: list[Connection] = []

    async def run(self, plan: Plan[T], *, is_single: bool) -> T:
        """Run a plan; see `SqlStore._read`."""
        async with self._slots:
            connection = await self._connected()
            try:
                if is_single:
                    result = await run(connection, plan)
                else:
                    async with connection.transaction(isolation="repeatable_read", readonly=True):
                        result = await run(connection, plan)
            except BaseException as error:
                connection.terminate()
                if not isinstance(error, Exception) or not _is_of_database(error):
                    raise
                raise self._server.explain(error, "read") from error
            self._idle.append(connection)
            return result

    async def close(self) -> None:
        """Wait for running reads, then close the connections."""
        for _ in range(READERS):
            await self._slots.acquire()
        while self._idle:
            await close(self._idle.pop())

    async def _connected(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        begun = time.monotonic()
        while True:
            try:
                return await self._server.connect()
            except StoreError:
                if time.monotonic() - begun > PATIENCE_SECONDS:
                    raise
                await asyncio.sleep(0.1)


def _is_of_database(error: Exception) -> bool:
    """Return whether an error comes from the driver or the network, and not from decoding a row."""
    kinds = (OSError, TimeoutError)
    return isinstance(error, kinds) or type(error).__module__.startswith("asyncpg")


async def _shielded(work: Callable[[], Any]) -> None:
    """Run work to completion, even if the task is cancelled."""
    with anyio.CancelScope(shield=True):
        await work()
