"""The store on PostgreSQL: used by one process, or shared by several. A writer groups commits; reads run beside it.

A group of commits is one call of a function, and one round trip, see `postgres_commits`. Who uses the store is decided
by the server, see `postgres_session`. It requires a real event loop, because its threads do not work with virtual time
(such tests use `MemoryStore`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio

from chatbot.distribution import version
from chatbot.errors import NotOwner, StoreError, StoreInUse
from chatbot.model import ThreadId, UserId
from chatbot.stores import codec, queries, rows
from chatbot.stores import postgres_dialect as dialect
from chatbot.stores.base import NOTE_BYTES, Replica, ShardChange, ShardsGained, ShardsLost
from chatbot.stores.postgres_commits import PATIENCE_SECONDS, Commit, Transactions, not_owner
from chatbot.stores.postgres_members import Shards
from chatbot.stores.postgres_registry import StoreUser, Use, read_replicas, set_report, set_share
from chatbot.stores.postgres_server import Connection, LoopThread, Server, close, is_of_database, run, standby_lag
from chatbot.stores.postgres_session import StoreSession
from chatbot.stores.postgres_url import PostgresUrl
from chatbot.stores.queries import SqlStore
from chatbot.stores.shards import ALL_SHARDS, shard_of, shard_of_bot
from chatbot.stores.sql import Plan, Statement
from chatbot.stores.statements import statements
from chatbot.stores.writer import Writer
from chatbot.stores.writes import Write
from chatbot.worker_threads import run_in_thread

T = TypeVar("T")

READERS: Final = 4
"""The maximum number of concurrent reads, each on its own connection."""

CLOSING_SECONDS: Final = 10.0
"""How long closing waits to learn whether the last commits were made."""

EXCLUSIVE_SECONDS: Final = 60.0
"""How long a process may be silent within `PostgresStore.exclusive` before another one may enter."""


class PostgresStore(SqlStore):
    """A `Store` in a schema of a PostgreSQL database, which is created on first use.

    Args:
        url: see `PostgresUrl`.
        base_dir: the directory of relative file names in the URL.
        is_between_runs: see `SqliteStore`.
        is_shared: use the store together with other processes, as a `SharedStore`; otherwise, alone. With
            `is_between_runs`, own no shards: a command that reads beside those who do. It changes something only with
            a note to them, or while there are none.
        share: the largest share of all shards that this process takes, 0 to 1; None is without limit.
        asks: offer free shards (`ShardsOffered`) before they are claimed.

    Raises:
        ConfigError: the URL cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        base_dir: Path | None = None,
        is_between_runs: bool = False,
        is_shared: bool = False,
        share: float | None = None,
        asks: bool = False,
    ) -> None:
        self._url = PostgresUrl.parse(url, base_dir or Path())
        self._use = Use.ALONE if not is_shared else Use.VISITOR if is_between_runs else Use.MEMBER
        self._is_marked = not is_between_runs
        self._share = share
        self._asks = asks
        self._exits = AsyncExitStack()
        self._writer: Writer | None = None
        self._thread: LoopThread | None = None
        self._session: StoreSession | None = None
        self._readers: _Readers | None = None
        self._transactions: Transactions | None = None
        self._inbox = _Inbox()
        self._last = queries.LastHolder()
        self._ends_in_order = True
        self.on_round_trip: Callable[[float], None] = lambda _seconds: None
        self.refused = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._url}>"

    async def __aenter__(self) -> PostgresStore:
        """Lock the store, or join those who share it, and create or migrate the tables.

        Raises:
            StoreInUse: another process uses the store, and this one or that one uses it alone.
            StoreTooNew: a newer chatbot wrote it.
            StoreError: it cannot be used.
        """
        self._ends_in_order = True
        inbox = self._inbox = _Inbox()
        user = StoreUser(self._use, self._is_marked, self._share, await run_in_thread(version))
        async with AsyncExitStack() as exits:
            thread = LoopThread()
            thread.start()
            exits.push_async_callback(_shielded, partial(run_in_thread, thread.stop))
            server, shards = Server(self._url), None
            if self._use is Use.MEMBER:
                shards = Shards(self._url.schema, user.id, self._share, inbox.put_change, asks=self._asks)
            session = StoreSession(server, user, on_lost=inbox.put_lost, on_note=inbox.put_note, shards=shards)
            transactions = Transactions(server, session, lambda seconds: self.on_round_trip(seconds))
            # Before it is opened: if that is cancelled at its very end, connections are open that nobody would close.
            exits.push_async_callback(_shielded, lambda: thread.run(self._close(transactions)))
            self._last = await thread.run(transactions.open())
            readers = _Readers(server)
            exits.push_async_callback(_shielded, lambda: thread.run(readers.close()))
            writer = Writer(lambda group: thread.call(transactions.write(group)))
            await run_in_thread(writer.start)
            exits.push_async_callback(writer.close)
            self._exits = exits.pop_all()
        self._thread, self._session, self._readers, self._transactions = thread, session, readers, transactions
        self._writer = writer
        if self._use is Use.ALONE:
            was_killed = self._last.was_killed and not self._last.was_stopping
            inbox.put_change(ShardsGained(ALL_SHARDS, ALL_SHARDS if was_killed else frozenset()), {})
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Write the submitted commits, then give up the locks."""
        self._writer = self._readers = None
        if self._transactions is not None:
            self._transactions.close_by = time.monotonic() + CLOSING_SECONDS
        await self._exits.aclose()

    async def _close(self, transactions: Transactions) -> None:
        await transactions.close(is_orderly=self._ends_in_order, untouched=self._inbox.untouched())

    @property
    def epoch(self) -> int:
        """The number of the era in which this process uses the store alone, or in which several share it."""
        return 0 if self._session is None else self._session.fence.era

    # ── sharing ───────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def is_held(self) -> bool:
        """See `OwnedStore.is_held`."""
        # A loss that this process has not been told of yet: it still serves what is another's.
        return self._session is not None and self._session.is_held and not self._inbox.has_losses

    async def lost(self) -> StoreError:
        """See `OwnedStore.lost`."""
        return await self._inbox.lost()

    async def next_change(self) -> ShardChange:
        """See `SharedStore.next_change`."""
        return await self._inbox.next_change()

    async def next_note(self) -> str:
        """See `SharedStore.next_note`."""
        return await self._inbox.next_note()

    async def release(self, shards: Collection[int]) -> None:
        """See `SharedStore.release`."""
        session, thread = self._opened()
        if tenures := self._inbox.end_tenures(shards):
            await thread.run(session.release(tenures))

    async def accept(self, shards: Collection[int]) -> None:
        """See `SharedStore.accept`."""
        session, thread = self._opened()
        await thread.run(session.accept(shards))

    async def limit_to(self, share: float | None) -> None:
        """See `SharedStore.limit_to`."""
        session, thread = self._opened()
        # The others first: what a member leaves before they know of it, nobody takes.
        await self._on_connection(lambda connection: set_share(connection, session.user.id, share))
        await thread.run(session.limit_to(share))

    async def publish(self, report: str) -> None:
        """See `SharedStore.publish`."""
        session, _ = self._opened()
        await self._on_connection(lambda connection: set_report(connection, session.user.id, report))

    async def _on_connection(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        readers, thread = self._readers, self._thread
        if readers is None or thread is None:
            raise rows.not_open()
        return await thread.run(readers.run(work))

    def _opened(self) -> tuple[StoreSession, LoopThread]:
        if self._session is None or self._thread is None or self._writer is None:
            raise rows.not_open()
        return self._session, self._thread

    async def tell(self, notes: Sequence[str]) -> None:
        """See `SharedStore.tell`."""
        (session, _), checked = self._opened(), _checked(notes)
        if not checked:
            return
        sent, where = session.notes(checked), session.channel

        def sending() -> Plan[None]:
            for note in sent:
                yield Statement("SELECT pg_notify(?, ?)", (where, note))

        await self._read(sending())

    async def replicas(self) -> Sequence[Replica]:
        """See `SharedStore.replicas`."""
        session, _ = self._opened()
        oneself, schema = session.user.id, self._url.schema
        return await self._on_connection(lambda connection: read_replicas(connection, schema, oneself))

    async def replication_lag(self) -> float | None:
        """See `MeasuredStore.replication_lag`."""
        return await self._on_connection(standby_lag)

    @asynccontextmanager
    async def exclusive(self, name: str) -> AsyncIterator[None]:
        """See `SharedStore.exclusive`."""
        session, thread = self._opened()
        lock = _NameLock(session.server, name)
        try:
            await thread.run(lock.acquire())
            yield
            if not lock.is_held:
                msg = f"the connection to the store {self._url} broke while {name} was to be done by this process alone"
                raise StoreError(msg)
        finally:
            await _shielded(lambda: thread.run(lock.release()))

    # ── writing ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def commit(
        self, bot: UserId, writes: Sequence[Write], *, shards: Collection[int] = (), notes: Sequence[str] = ()
    ) -> None:
        """Make changes durable, in one transaction with other waiting commits; see `Store.commit`."""
        writer = self._open_writer()
        try:
            # Encoded here, not in the writer: what cannot be stored must fail this caller, not the group it is in.
            commit = Commit(statements(bot, writes), self._tenures(shards), _checked(notes))
            if commit.statements and not commit.notes:
                await self._check_unobserved()
            if commit.statements or commit.notes:
                await writer.submit(lambda _: commit)
        except NotOwner:
            self.refused += 1
            raise

    def _tenures(self, shards: Collection[int]) -> Mapping[int, int]:
        return self._inbox.tenures(shards) if self._use is Use.MEMBER else {}

    def stop_began(self) -> None:
        """See `EndableStore.stop_began`."""
        session, writer = self._session, self._writer
        if writer is None or session is None or not self._is_marked:
            return
        marking = queries.MARK_STOPPING
        if self._use is Use.MEMBER:  # the others take the shards over, one by one as they are released
            marking = Statement(dialect.BEGAN_STOPPING, (session.user.id,))
            session.stop_claiming()
        writer.submit_from_thread(lambda _: Commit([marking]))

    def submit_from_thread(self, bot: UserId, writes: Sequence[Write]) -> None:
        """See `EndableStore.submit_from_thread`. Changes for shards of other processes are left out."""
        if self._writer is None:
            return
        for write in writes:
            thread: ThreadId | None = getattr(write, "thread", None)
            with suppress(NotOwner):
                tenures = self._tenures({shard_of(thread) if thread else shard_of_bot(bot)})
                commit = Commit(statements(bot, [write]), tenures)
                self._writer.submit_from_thread(partial(_returned, commit))

    def stay_marked(self) -> None:
        """See `EndableStore.stay_marked`."""
        self._ends_in_order = False

    def finish(self, seconds: float) -> None:
        """See `EndableStore.finish`."""
        if self._writer is not None:
            self._writer.submit_from_thread(lambda _: Commit(())).wait(seconds)

    async def forget(self, user: UserId) -> int:
        """Erase a user; see `Store.forget`. The server's old row versions go with its next vacuum."""
        writer = self._open_writer()
        person = UserId(codec.text(user, "user"))
        await self._check_unobserved()
        # The plan is created inside the job: it is run again if its transaction is undone.
        changed: Any = await writer.submit(lambda _: queries.forget(person))  # the plan's result, not the plan
        return int(changed)

    async def _check_unobserved(self) -> None:
        """Refuse a change of a visitor that those who share the store would not notice.

        Raises:
            StoreInUse: there are some.
        """
        if self._use is Use.VISITOR and (there := await self.replicas()):
            names = "; ".join(f"{replica.host}, pid {replica.pid}" for replica in there)
            msg = (
                f"the store {self._url} is in use by running bots ({names}), which would not notice this change: run "
                "the command in the directory of one of them, or stop them first"
            )
            raise StoreInUse(msg)

    def _open_writer(self) -> Writer:
        if self._writer is None:
            raise rows.not_open()
        return self._writer

    async def _read(self, plan: Plan[T], *, is_single: bool = True) -> T:
        async def read(connection: Connection) -> T:
            if is_single:
                return await run(connection, plan)
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                return await run(connection, plan)

        return await self._on_connection(read)


def _returned(commit: Commit, _connection: object) -> Commit:
    return commit


def _checked(notes: Sequence[str]) -> tuple[str, ...]:
    """Return notes that can be sent.

    Raises:
        ValueError: one is too long.
    """
    if any(len(note.encode()) > NOTE_BYTES for note in notes):
        msg = f"a note to other processes has at most {NOTE_BYTES:,} bytes"
        raise ValueError(msg)
    return tuple(notes)


class _NameLock:
    """The lock of a name, held on a connection of its own. Runs in the store's thread.

    It keeps the connection itself: a task that is cancelled while it waits for the store's thread gets no result.
    """

    def __init__(self, server: Server, name: str) -> None:
        self._server = server
        self._name = name
        self._connection: Connection | None = None

    @property
    def is_held(self) -> bool:
        return self._connection is not None and not self._connection.is_closed()

    async def acquire(self) -> None:
        """Wait for the lock."""
        connection = await self._server.connect()
        with self._server.terminated_on_error(connection, "write"):
            await connection.execute(f"SET idle_session_timeout = '{EXCLUSIVE_SECONDS:.0f}s'")
            lock = "SELECT pg_try_advisory_lock(hashtext('chatbot exclusive ' || $1::text), hashtext($2))"
            while not await connection.fetchval(lock, self._server.url.schema, self._name):  # noqa: ASYNC110 the server does not tell
                await asyncio.sleep(0.1)
        self._connection = connection

    async def release(self) -> None:
        """Give the lock up, if it is held."""
        await close(self._connection)


class _Inbox:
    """What the store's thread tells the bots' event loop: changes of shards, notes, and that the store is lost.

    A commit is for the shards that the bots know to be theirs: what they have been told, not what the store's thread
    knows already. A shard that was lost and gained again has another epoch.
    """

    def __init__(self) -> None:
        self._losses = self._losses_told = 0  # each changed in one thread only
        self._loop: asyncio.AbstractEventLoop | None = None
        with suppress(RuntimeError):
            self._loop = asyncio.get_running_loop()
        self._changes: asyncio.Queue[tuple[ShardChange, Mapping[int, int]]] = asyncio.Queue()
        self._notes: asyncio.Queue[str] = asyncio.Queue()
        self._is_lost = anyio.Event()
        self._problem: StoreError | None = None
        self._tenures: dict[int, int] = {}
        self._untouched: set[int] = set()

    @property
    def has_losses(self) -> bool:
        """The bots were not told yet of shards that were lost."""
        return self._losses != self._losses_told

    # called in the store's thread

    def put_change(self, change: ShardChange, epochs: Mapping[int, int]) -> None:
        if isinstance(change, ShardsLost):
            self._losses += 1
        self._call(self._queue_change, change, epochs)

    def put_note(self, note: str) -> None:
        self._call(self._notes.put_nowait, note)

    def put_lost(self, problem: StoreError) -> None:
        self._problem = problem
        self._call(self._is_lost.set)

    def untouched(self) -> list[int]:
        """Return the shards whose last owner was killed, and which the bots were not told of."""
        return sorted(self._untouched)

    def _call(self, function: Callable[..., None], *values: object) -> None:
        assert self._loop is not None
        with suppress(RuntimeError):  # the bots' loop has ended
            self._loop.call_soon_threadsafe(function, *values)

    # called on the bots' event loop

    def _queue_change(self, change: ShardChange, epochs: Mapping[int, int]) -> None:
        if isinstance(change, ShardsGained):
            self._untouched |= change.after_crash
        elif isinstance(change, ShardsLost):
            self._untouched -= change.shards
        self._changes.put_nowait((change, epochs))

    async def next_change(self) -> ShardChange:
        change, epochs = await self._changes.get()
        if isinstance(change, ShardsGained):
            self._tenures.update(epochs)
            self._untouched -= change.shards
        elif isinstance(change, ShardsLost):
            self.end_tenures(change.shards)
            self._losses_told += 1
        return change

    async def next_note(self) -> str:
        return await self._notes.get()

    async def lost(self) -> StoreError:
        await self._is_lost.wait()
        assert self._problem is not None
        return self._problem

    def tenures(self, shards: Collection[int]) -> Mapping[int, int]:
        """Return the epochs of shards.

        Raises:
            NotOwner: this process does not own them all.
        """
        if missing := [shard for shard in shards if shard not in self._tenures]:
            raise not_owner(missing)
        return {shard: self._tenures[shard] for shard in shards}

    def end_tenures(self, shards: Collection[int]) -> Mapping[int, int]:
        """Refuse commits for shards from now on; return the epochs of those that were ours."""
        return {shard: self._tenures.pop(shard) for shard in list(shards) if shard in self._tenures}


class _Readers:
    """Runs reads on connections that are opened on demand. Runs in the store's thread."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._slots = asyncio.Semaphore(READERS)
        self._idle: list[Connection] = []

    async def run(self, read: Callable[[Connection], Awaitable[T]]) -> T:
        """Call a function with a connection."""
        async with self._slots:
            connection = await self._connected()
            try:
                result = await read(connection)
            except BaseException as error:
                connection.terminate()
                if not isinstance(error, Exception) or not is_of_database(error):
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


async def _shielded(work: Callable[[], Any]) -> None:
    """Run work to completion, even if the task is cancelled."""
    with anyio.CancelScope(shield=True):
        await work()
