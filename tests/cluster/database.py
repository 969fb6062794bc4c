"""A PostgreSQL server as far as replicas see it: tables, sessions, advisory locks, fenced commits, notes.

The tables and statements are those of SQLite, and the fence is a query, as on a real server. Only the locks, and the
end of sessions that hold them, are modelled.
"""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Protocol, TypeVar

import anyio

from chatbot.errors import NotOwner, StoreError
from chatbot.stores.postgres_server import SILENT_SECONDS
from chatbot.stores.schema import migrate
from chatbot.stores.shards import ALL_SHARDS
from chatbot.stores.sql import Plan, Statement, execute, run
from chatbot.stores.writes import Write

T = TypeVar("T")

TTL: Final = SILENT_SECONDS
"""Seconds of silence after which the server ends a session, and its locks become free."""


@dataclass(eq=False)
class Session:
    """A connection of one replica that holds locks.

    Args:
        name: the name of the replica.
        hear: called with each note.
        last_at: when its last statement came.
        limit: the largest share of the shards that the replica takes.
        report: what it says of itself.
    """

    name: str
    hear: Callable[[str], None]
    last_at: float
    limit: float | None = None
    report: str = ""
    locks: set[int] = field(default_factory=set)


@dataclass
class Rules:
    """What the server checks. The variants that a simulation must find switch one of them off."""

    checks_fence: bool = True
    raises_epoch: bool = True
    ends_silent_sessions: bool = True


class Witness(Protocol):
    """Sees what happens on the server."""

    def moved(self, what: str, name: str, shards: Collection[int]) -> None:
        """See that a replica claims, retakes or releases shards, or that its session ends with them."""
        ...

    def committed(self, name: str, writes: Sequence[Write], connection: sqlite3.Connection) -> None:
        """See a transaction of a replica, at its end."""
        ...


class Nobody(Witness):
    """Sees nothing."""

    def moved(self, what: str, name: str, shards: Collection[int]) -> None:
        pass

    def committed(self, name: str, writes: Sequence[Write], connection: sqlite3.Connection) -> None:
        pass


class Database:
    """One server, which all replicas of a test share.

    Args:
        now: its clock, in seconds.
        rules: what it checks.
        witness: sees what happens.
    """

    def __init__(self, now: Callable[[], float], rules: Rules | None = None, witness: Witness | None = None) -> None:
        self.now = now
        self.rules = rules or Rules()
        self.witness: Witness = witness or Nobody()
        self.loses_notes = False
        self.sessions: list[Session] = []
        self.named_locks: dict[str, anyio.Lock] = {}
        # Used by one thread alone, but closed by the garbage collector, which runs in any.
        self._connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        weakref.finalize(self, self._connection.close)
        migrate(self._connection, Path(":memory:"))
        self._connection.execute("CREATE TABLE shard (id INTEGER PRIMARY KEY, epoch INTEGER, owner TEXT)")
        self._connection.executemany("INSERT INTO shard VALUES (?, 0, '')", [(shard,) for shard in ALL_SHARDS])

    def close(self) -> None:
        """Drop the tables."""
        self._connection.close()

    # ── sessions and locks ────────────────────────────────────────────────────────────────────────────────────────

    def connect(self, name: str, hear: Callable[[str], None], limit: float | None = None, report: str = "") -> Session:
        """Begin a session."""
        session = Session(name, hear, self.now(), limit, report)
        self.sessions.append(session)
        return session

    def end(self, session: Session) -> None:
        """End a session, as when its connection breaks: its locks are free at once."""
        if session in self.sessions:
            self.sessions.remove(session)
            self.witness.moved("ends with", session.name, session.locks)

    def check(self, session: Session) -> None:
        """Note a statement of a session.

        Raises:
            StoreError: the server has ended it.
        """
        if self.rules.ends_silent_sessions:
            for silent in [other for other in self.sessions if self.now() - other.last_at >= TTL]:
                self.end(silent)
        if session not in self.sessions:
            msg = f"the session of {session.name} was ended"
            raise StoreError(msg)
        session.last_at = self.now()

    def owners(self) -> dict[int, str]:
        """Return the holders of all locks."""
        return {shard: session.name for session in self.sessions for shard in session.locks}

    def claim(self, session: Session, shards: Collection[int]) -> dict[int, tuple[int, bool]]:
        """Lock shards that are free; return the new epoch of each, and whether its last owner did not release it."""
        self.check(session)
        free = set(shards) - self.owners().keys()
        gained: dict[int, tuple[int, bool]] = {}
        for shard in sorted(free):
            session.locks.add(shard)
            epoch, owner = self._row(shard)
            gained[shard] = (epoch + self.rules.raises_epoch, owner not in ("", session.name))
            self._connection.execute(
                "UPDATE shard SET epoch = ?, owner = ? WHERE id = ?", (gained[shard][0], session.name, shard)
            )
        self.witness.moved("claims", session.name, gained)
        return gained

    def reclaim(self, session: Session, epochs: Mapping[int, int]) -> set[int]:
        """Lock the shards that nobody has taken since they had these epochs; return them."""
        self.check(session)
        taken = self.owners()
        kept = {shard for shard, epoch in epochs.items() if shard not in taken and self._row(shard)[0] == epoch}
        session.locks |= kept
        self.witness.moved("retakes", session.name, kept)
        return kept

    def release(self, session: Session, shards: Collection[int]) -> None:
        """Give up shards in order."""
        self.check(session)
        for shard in shards:
            self._connection.execute("UPDATE shard SET owner = '' WHERE id = ? AND owner = ?", (shard, session.name))
        session.locks -= set(shards)
        self.witness.moved("releases", session.name, shards)

    def epoch(self, shard: int) -> int:
        """Return the epoch of a shard."""
        return self._row(shard)[0]

    def _row(self, shard: int) -> tuple[int, str]:
        epoch, owner = self._connection.execute("SELECT epoch, owner FROM shard WHERE id = ?", (shard,)).fetchone()
        return int(epoch), str(owner)

    # ── statements ────────────────────────────────────────────────────────────────────────────────────────────────

    def read(self, plan: Plan[T]) -> T:
        """Run a plan that only reads."""
        return run(self._connection, plan)

    def write(
        self,
        work: Callable[[sqlite3.Connection], T],
        epochs: Mapping[int, int],
        notes: Sequence[str] = (),
        *,
        by: str = "",
        writes: Sequence[Write] = (),
    ) -> T:
        """Run a transaction, and send notes once it is durable.

        Args:
            work: executes the statements.
            epochs: the shards they belong to, and the epochs under which the replica owns them.
            notes: for all sessions.
            by: the name of the replica.
            writes: what the statements say.

        Raises:
            NotOwner: one of these shards has another epoch.
        """
        self._connection.execute("BEGIN")
        try:
            for shard, epoch in epochs.items() if self.rules.checks_fence else ():
                if self._row(shard)[0] != epoch:
                    msg = f"another process owns shard {shard}"
                    raise NotOwner(msg)
            result = work(self._connection)
            self.witness.committed(by, writes, self._connection)
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")
        self.notify(notes)
        return result

    def pending(self) -> list[tuple[str, str]]:
        """Return the threads and keys of all actions that are not settled."""
        return self._connection.execute("SELECT thread, key FROM outbox WHERE status = 'pending'").fetchall()

    async def refresh(self) -> None:
        """Know the latest: here, everything is known at any time."""

    def is_journalled(self, key: str) -> bool:
        """Return whether there is an action with this key, settled or not."""
        return self._connection.execute("SELECT 1 FROM outbox WHERE key = ?", (key,)).fetchone() is not None

    def notify(self, notes: Sequence[str]) -> None:
        """Send notes to all sessions."""
        for session in () if self.loses_notes else self.sessions:
            for note in notes:
                session.hear(note)


def executing(statements: Sequence[Statement]) -> Callable[[sqlite3.Connection], None]:
    """Return what a transaction does that executes these statements."""
    return partial(execute, statements=statements)
