"""Commits on PostgreSQL: groups of them in one round trip, and what became of one whose answer was lost.

If the connection breaks while a group is being committed, nobody knows whether it was. It is then neither reported as
failed nor repeated: the store reconnects under a new epoch, which no commit of the old connection survives, and reads
the number of the last commit. Until then, commits wait.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import structlog

from chatbot.errors import NotOwner, StoreError
from chatbot.stores import postgres_dialect as dialect
from chatbot.stores import queries
from chatbot.stores.postgres_registry import Use
from chatbot.stores.postgres_server import Connection, Server, is_of_database, run
from chatbot.stores.postgres_session import StoreSession
from chatbot.stores.sql import Plan, Statement
from chatbot.stores.writer import Job

PATIENCE_SECONDS: Final = 3.0
"""How long a read, or a commit that was not sent yet, waits for a connection before it fails."""

ATTEMPTS: Final = 4
"""How often a commit is tried that the server undid because of other transactions."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Commit:
    """What a job of the writer asks for; instead, it may ask for a plan.

    Args:
        statements: the changes.
        tenures: the shards that they belong to, and the epochs under which this process owned them.
        notes: what the other processes are told.
    """

    statements: Sequence[Statement]
    tenures: Mapping[int, int] = field(default_factory=dict)
    notes: Sequence[str] = ()


class Transactions:
    """Writes each group of jobs in one transaction, even if some jobs fail. Runs in the store's thread.

    Args:
        server: the server.
        session: the use of the store by this process.
        on_round_trip: called with the seconds that each round trip took.
    """

    def __init__(
        self, server: Server, session: StoreSession, on_round_trip: Callable[[float], None] = lambda _seconds: None
    ) -> None:
        self._on_round_trip = on_round_trip
        self._server = server
        self._session = session
        self._connection: Connection | None = None
        self._number = 0
        self._is_open = False
        self.close_by: float | None = None
        self.round_trips = 0

    async def open(self) -> queries.LastHolder:
        """Begin to use the store; return how its last holder ended, if this process holds it alone.

        The caller must call `close` even if this fails or is cancelled.
        """
        self._connection = await self._session.open()
        user, last = self._session.user, queries.LastHolder()
        if user.use is Use.ALONE and user.is_marked:
            marking = Job[Any](lambda _: queries.mark_open(os.getpid()), None)
            await self.write([marking])
            if marking.error is not None:
                raise marking.error
            assert isinstance(marking.result, queries.LastHolder)
            last = marking.result
        self._is_open = True
        return last

    async def close(self, *, is_orderly: bool, untouched: list[int]) -> None:
        """End the use of the store.

        Args:
            is_orderly: record a regular end; without that record, others find that this process was killed.
            untouched: see `leave`.
        """
        user, is_orderly = self._session.user, is_orderly and self._is_open
        if is_orderly and user.use is Use.ALONE and user.is_marked:
            await self.write([Job(lambda _: Commit([queries.MARK_CLOSED]), None)])
        self._connection = None
        await self._session.close(is_orderly=is_orderly, untouched=untouched)

    async def write(self, group: Sequence[Job[Any]]) -> None:
        """Write a group: commits together, and each plan in a transaction of its own, in their order."""
        together: list[tuple[Job[Any], Commit]] = []
        for job in group:
            work: Commit | Plan[Any] = job.work(None)
            if isinstance(work, Commit):
                together.append((job, work))
                continue
            await self._commit_together(together)
            together = []
            work.close()
            await self._attempt([job], partial(self._run_plan, job))
        await self._commit_together(together)

    async def _commit_together(self, jobs: list[tuple[Job[Any], Commit]]) -> None:
        """Write commits in one transaction. One that fails by itself is left out, and the others are written again."""
        jobs = [(job, commit) for job, commit in jobs if commit.statements or commit.notes]
        while jobs:
            failed = await self._attempt([job for job, _ in jobs], partial(self._call, [part for _, part in jobs]))
            if failed is None:
                return
            blamed = _blamed(jobs, failed)
            if not blamed:
                if len(jobs) == 1:
                    jobs[0][0].error = self._server.explain(failed, "write")
                    return
                for job in jobs:  # one of them: each on its own, so that it fails alone
                    await self._commit_together([job])
                return
            for index, error in blamed.items():
                jobs[index][0].error = error
            jobs = [job for index, job in enumerate(jobs) if index not in blamed]

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
                # Of a connection that is terminated meanwhile, asyncpg raises errors of any kind, even AttributeError.
                # Otherwise this is a mistake of ours, or rows that cannot be read: the same every time.
                if not is_of_database(error) and not connection.is_closed():
                    for job in jobs:
                        job.error = error
                    return None
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
            self._session.acknowledged = self._number
            return None

    async def _connected(self, begun: float) -> Connection:
        """Return the connection, or a new one; a commit that was not sent yet may fail for the lack of one.

        Raises:
            StoreError: there is none.
        """
        while self._connection is None or self._connection.is_closed() or self._session.lost is not None:
            try:
                self._connection, _ = await self._session.reconnect()
            except StoreError:
                if self._session.lost is not None or time.monotonic() - begun > PATIENCE_SECONDS:
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
                self._connection, last = await self._session.reconnect()
                break
            except StoreError as problem:
                is_late = self.close_by is not None and time.monotonic() > self.close_by
                if self._session.lost is not None or is_late:
                    return problem
                await asyncio.sleep(0.2)
        _log.info("store.connection_restored", store=str(self._server.url))
        if last == self._number + 1:
            self._number = self._session.acknowledged = last
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

    async def _call(self, commits: Sequence[Commit], connection: Connection, number: int) -> None:
        arguments = dialect.call([statement for commit in commits for statement in commit.statements])
        # In the order of their ids, in which everybody locks them.
        tenures = sorted({tenure for commit in commits for tenure in commit.tenures.items()})
        notes = self._session.notes(tuple(note for commit in commits for note in commit.notes))
        self.round_trips += 1
        begun = time.monotonic()
        await connection.fetchval(
            dialect.COMMIT,
            *self._session.fence,
            number,
            [shard + 1 for shard, _ in tenures],
            [epoch for _, epoch in tenures],
            *arguments,
            self._session.channel,
            notes,
        )
        self._on_round_trip(time.monotonic() - begun)

    async def _run_plan(self, job: Job[Any], connection: Connection, number: int) -> None:
        async with connection.transaction():
            await self._call([], connection, number)
            job.result = await run(connection, job.work(None))


def _blamed(jobs: Sequence[tuple[Job[Any], Commit]], error: Exception) -> dict[int, Exception | None]:
    """Return which commits an error belongs to, and what each raises; empty if that is not known."""
    code = getattr(error, "sqlstate", None)
    if code == dialect.NOT_OWNED:
        foreign = {(int(shard), int(epoch)) for shard, epoch in (pair.split(":") for pair in str(error).split(","))}
        return {
            index: not_owner([shard for shard, _ in refused])
            for index, (_, commit) in enumerate(jobs)
            if (refused := foreign.intersection(commit.tenures.items()))
        }
    if code != dialect.UNCHANGED:
        return {}
    place = int(str(error))
    for index, (_, commit) in enumerate(jobs):
        if place < len(commit.statements):
            return {index: commit.statements[place].unless}
        place -= len(commit.statements)
    return {}


def not_owner(shards: Collection[int]) -> NotOwner:
    """Return the error of a commit for shards that this process does not own."""
    numbers = ", ".join(map(str, sorted(shards)))
    return NotOwner(f"another process owns the shards {numbers} of the store, or may: nothing was changed")
