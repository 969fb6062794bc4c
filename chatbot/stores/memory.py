"""A store in memory: for tests, and for bots that need not keep anything.

It is a SQLite database in memory, with the tables and the statements of the store on disk. It keeps its contents while
it is closed, so opening it again simulates a restart. It runs on the event loop, without a thread, so that it works
under virtual time.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import anyio.lowlevel

from chatbot.errors import StoreError, StoreInUse
from chatbot.model import UserId
from chatbot.stores import codec, queries, rows
from chatbot.stores.queries import LastHolder, SqlStore
from chatbot.stores.schema import migrate
from chatbot.stores.sql import Plan, execute, run
from chatbot.stores.statements import statements
from chatbot.stores.writes import Write

if TYPE_CHECKING:  # loaded when a store is first opened
    import sqlite3

T = TypeVar("T")

_NAME: Final = Path(":memory:")


class MemoryStore(SqlStore):
    """A `Store` in memory. Contents persist between `async with` blocks."""

    def __init__(self) -> None:
        self._connection: sqlite3.Connection | None = None
        self._is_entered = False
        self._is_open = False
        self._last = LastHolder()
        self._is_stopping = False
        self._stays_marked = False

    async def __aenter__(self) -> MemoryStore:
        """Open.

        Raises:
            StoreInUse: it is open already.
            StoreError: the contents that were restored are no store, or a newer version's.
        """
        if self._is_entered:
            msg = "this MemoryStore is in use already: end the one `async with` block before the next begins"
            raise StoreInUse(msg)
        migrate(self._database(), _NAME)
        self._last = self._transact(self._begin)
        self._is_stopping = False
        self._is_entered = self._is_open = True
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Close; the contents stay."""
        if self._is_open and not self._stays_marked:
            self._transact(partial(execute, statements=[queries.MARK_CLOSED]))
        self._is_open = self._is_entered = self._stays_marked = False

    def kill(self) -> None:
        """Simulate a killed process: keep what is committed, and do not close in order.

        Later calls in this `async with` block raise `StateError`, as a dead process writes nothing. After the next
        opening, `was_killed` is true.
        """
        self._is_open = False

    def snapshot(self) -> bytes:
        """Return the contents as a SQLite file has them, erased parts included if there were any left."""
        return self._database().serialize()

    def restore(self, snapshot: bytes) -> None:
        """Replace the contents by those of a snapshot, or of a SQLite file that is not in WAL mode.

        Raises:
            StoreInUse: the store is open.
        """
        if self._is_open:
            msg = "this MemoryStore is in use: end its `async with` block, or kill it, before its contents are replaced"
            raise StoreInUse(msg)
        self._database().deserialize(snapshot)

    def stop_began(self) -> None:
        """See `EndableStore.stop_began`. Only a flag: any thread may call this, and one may be inside a commit."""
        self._is_stopping = True

    def submit_from_thread(self, bot: UserId, writes: Sequence[Write]) -> None:
        """See `EndableStore.submit_from_thread`; what would be written ends with the process."""

    def stay_marked(self) -> None:
        """See `EndableStore.stay_marked`."""
        self._stays_marked = True

    def finish(self, seconds: float) -> None:
        """See `EndableStore.finish`: everything is written."""

    async def commit(
        self, bot: UserId, writes: Sequence[Write], *, shards: Collection[int] = (), notes: Sequence[str] = ()
    ) -> None:
        """Make these changes, all of them or none; see `Store.commit`."""
        await self._check_open()
        commands = statements(bot, writes)
        if commands:
            self._transact(partial(execute, statements=commands))

    async def forget(self, user: UserId) -> int:
        """See `Store.forget`."""
        await self._check_open()
        plan = queries.forget(UserId(codec.text(user, "user")))
        return self._transact(partial(run, plan=plan))

    async def _read(self, plan: Plan[T], *, is_single: bool = True) -> T:
        await self._check_open()
        return run(self._database(), plan)

    async def _check_open(self) -> None:
        """Yield to other tasks, as a store on disk does; a task that is canceled here has changed nothing."""
        await anyio.lowlevel.checkpoint()
        if not self._is_open:
            raise rows.not_open()

    def _begin(self, connection: sqlite3.Connection) -> LastHolder:
        if self._is_stopping:
            execute(connection, [queries.MARK_STOPPING])
        return run(connection, queries.mark_open(os.getpid()))

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in one transaction, and roll it back on any error."""
        connection = self._database()
        connection.execute("BEGIN")
        try:
            result = work(connection)
        except BaseException as error:
            # Nothing awaits between BEGIN and here, so the transaction is this caller's alone.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if isinstance(error, connection.Error):
                msg = f"cannot use the store in memory: {error}"
                raise StoreError(msg) from error
            raise
        connection.execute("COMMIT")
        return result

    def _database(self) -> sqlite3.Connection:
        if self._connection is None:
            import sqlite3  # imported here, so that only programs that open a store pay for it

            self._connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA secure_delete = ON")  # what was erased is in no snapshot
            weakref.finalize(self, self._connection.close)
        return self._connection
