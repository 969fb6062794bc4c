"""Commits of one thread: its cursor, outbox and receipts, and the transactions that store changes of them.

`WriteBehind` stores changes that can wait, in one transaction for all threads of a bot, about once a second: results of
sends, sent receipts, messages that need no handler. If a crash loses such a change, reading the thread recovers it. The
next event of the same thread commits them earlier, so that an event with a reply costs one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Final, NamedTuple

import anyio

from chatbot.actions import ActionKey
from chatbot.bot.environment import BotContext
from chatbot.bot.membership import ThreadState
from chatbot.bot.read_receipts import ReceiptSender
from chatbot.errors import NotOwner, ServiceError, StoreError
from chatbot.model import MessageId, ThreadId
from chatbot.outbox.outbox import Outbox, OutboxServices
from chatbot.polling.cursor import Cursor
from chatbot.stores.records import OutboxRow, ThreadRecord
from chatbot.stores.writes import Enqueue, MarkSeen, MoveBase, SettleRow, Write

NO_PROOFS: Final[Mapping[str, MessageId]] = MappingProxyType({})

DEFER_SECONDS: Final = 1.0
"""Seconds for which deferred writes are collected; after a crash, the next start reads the thread again."""


class DeferredWrites(NamedTuple):
    """Deferred changes of a thread: writes, and handled messages as id to version."""

    writes: list[Write]
    marks: dict[int, int]


class ThreadCommits:
    """Cursor, outbox and receipts of one thread, or of the events outside threads, and their commits.

    Args:
        context: The bot's environment.
        state: In-memory state of the thread.
        write_behind: Stores the deferred writes of all threads.
        record: The stored record of the thread.
        rows: Pending actions of an earlier process.

    Attributes:
        cursor: What was handled.
        outbox: Pending actions.
        receipts: Sender of the bot's read receipts.
        proofs: Keys of own messages that the current poll has shown, with the oldest message of each.
        unfinished_streams: Shown part of streamed texts whose handlers failed, by key.
    """

    __slots__ = (
        "_context",
        "_deferred",
        "_marks",
        "_storing",
        "_write_behind",
        "cursor",
        "outbox",
        "proofs",
        "receipts",
        "state",
        "unfinished_streams",
    )  # fmt: skip

    def __init__(
        self,
        context: BotContext,
        state: ThreadState,
        write_behind: WriteBehind,
        *,
        record: ThreadRecord | None,
        rows: Sequence[OutboxRow] = (),
    ) -> None:
        self._context = context
        self._write_behind = write_behind
        self.state = state
        # The outbox of events outside threads stays empty: actions go to their own thread.
        self.outbox = Outbox(write_behind.outboxes, state.key, state.budget, rows)
        self.proofs: Mapping[str, MessageId] = NO_PROOFS
        self.unfinished_streams: dict[ActionKey, str] = {}
        self.restart(record)
        write_behind.threads[state.key] = self

    def restart(self, record: ThreadRecord | None) -> None:
        """Reset cursor and receipts to a record."""
        floor, base, seen = (record.floor, record.base, record.seen) if record else (0, 0, {})
        self.cursor = Cursor(floor, base, seen, slack_ms=self._context.settings.slack_ms)
        self.receipts = ReceiptSender.of(record)
        self._deferred: list[Write] = []
        self._storing: list[Write] = []
        self._marks: dict[int, int] = {}

    @property
    def is_settled(self) -> bool:
        """Whether no action is pending, and no receipt that is worth waiting for."""
        is_sent = not self.outbox and self.outbox.next_failure() is None
        return is_sent and not self.receipts.is_worth_waiting_for

    @property
    def latest_version(self) -> int:
        """Highest known version in the thread. A message created by a new action is newer."""
        return max(self.cursor.top, self.outbox.latest)

    @property
    def stay_start(self) -> int:
        """Message id after which the bot's current stay in the thread began."""
        return max(self.cursor.floor, self.state.arrived - 1)

    async def commit(self, writes: Sequence[Write], seen: dict[int, int]) -> None:
        """Commit these writes, handled messages and all deferred writes in one transaction.

        The cursor moves only after the commit. If it moved before and the commit failed, the event would be lost,
        because the next poll would consider it handled. Deferred writes go first, because they happened before.

        Raises:
            StoreError: Nothing was written; deferred writes stay deferred.
        """
        await self._write_behind.wait_for(self)
        deferred = self.take_deferred()
        try:
            before = [*deferred.writes, *self.marks_of(deferred.marks)]
            key = self.state.key
            await self._context.commit([*before, *writes, *self.marks_of(seen)], threads=(key,), place=key)
        except BaseException:
            self.restore_deferred(deferred)
            raise
        self.cursor.mark(seen)  # not before the commit: see above

    def knows(self, key: ActionKey) -> bool:
        """Return whether an action is pending here, or was carried out here and the store may not show it yet."""
        return self.outbox.knows(key) or any(
            isinstance(write, SettleRow) and write.key == key for write in (*self._deferred, *self._storing)
        )

    async def enqueue(self, rows: Sequence[OutboxRow]) -> None:
        """Journal actions that were not caused by an event."""
        if rows:
            await self.commit([Enqueue(row) for row in rows], {})
            for row in rows:
                self.outbox.add(row)

    # ── deferred writes ───────────────────────────────────────────────────────────────────────────────────────

    def schedule_writes(self) -> None:
        """Schedule the deferred writes, in about a second; the next commit of an event includes them earlier."""
        self._deferred += self.outbox.take_settlements()
        if self._deferred or self._marks:
            self._write_behind.add(self)

    def take_deferred(self) -> DeferredWrites:
        """Remove and return the deferred writes; the caller must store them, or restore them if that fails."""
        waiting = DeferredWrites([*self._deferred, *self.outbox.take_settlements()], self._marks)
        self._deferred, self._marks = [], {}
        self._storing = waiting.writes
        return waiting

    def restore_deferred(self, waiting: DeferredWrites) -> None:
        """Put back deferred writes that could not be stored, except marks that newer versions have replaced."""
        self._deferred = [*waiting.writes, *self._deferred]
        known = self.cursor.seen
        self._marks = {
            **{id: version for id, version in waiting.marks.items() if known.get(id) == version},
            **self._marks,
        }

    def marks_of(self, seen: Mapping[int, int]) -> list[Write]:
        """Return the writes that mark these messages, in these versions, as handled."""
        return [MarkSeen(self.state.key, seen)] if seen else []

    def defer(self, write: Write) -> None:
        """Defer a write to the next commit; losing it in a crash only costs a poll."""
        self._deferred.append(write)

    def mark_handled(self, identifier: int, version: int) -> None:
        """Mark a message that needs no handler as handled; the write is deferred."""
        self.cursor.mark({identifier: version})
        self._marks[identifier] = version

    def raise_base(self, top: int | None) -> None:
        """Raise the cursor's base after a full poll whose events are all committed.

        The base rises to the top of the full poll *before* this one: a message may become visible late, below the
        versions that this poll has shown, and only a further full poll against the old base finds it.
        """
        settled = self.cursor.finish_full_poll(top)
        if settled is not None:
            self._deferred = [write for write in self._deferred if not isinstance(write, MoveBase)]
            self.defer(MoveBase(self.state.key, settled.base, settled.below))


class WriteBehind:
    """Stores the deferred writes of one bot's threads.

    Args:
        context: The bot's environment.

    Attributes:
        threads: Threads that have a lane, by key.
        outboxes: What their outboxes share.
    """

    def __init__(self, context: BotContext) -> None:
        self._context = context
        self.outboxes = outbox_services(context)
        self._waiting: dict[ThreadCommits, None] = {}
        self._writing: frozenset[ThreadCommits] = frozenset()
        self._lock = anyio.Lock()
        self._requested = anyio.Event()
        self.threads: dict[ThreadId, ThreadCommits] = {}

    def latest_version(self, thread: ThreadId) -> int:
        """Return the highest known version in a thread; 0 if unknown."""
        commits = self.threads.get(thread)
        return 0 if commits is None else commits.latest_version

    def add(self, commits: ThreadCommits) -> None:
        """Schedule the deferred writes of a thread, unless it is lost."""
        if self._is_kept(commits):
            self._waiting[commits] = None
            self._requested.set()

    def _is_kept(self, commits: ThreadCommits) -> bool:
        """Return whether a thread is served here.

        The writes of a lost one must not be stored once this process owns it again: they are older than what its owner
        in between has stored.
        """
        return not commits.state.is_released or self.threads.get(commits.state.key) is commits

    @property
    def waiting(self) -> list[ThreadId]:
        """The threads whose deferred writes are not stored."""
        return [commits.state.key for commits in self._waiting]

    async def run(self) -> None:
        """Store deferred writes periodically, until canceled."""
        while True:
            await self._requested.wait()
            await anyio.sleep(DEFER_SECONDS)
            await self.write()

    async def write(self) -> None:
        """Store all scheduled writes; those that the store refuses stay scheduled."""
        async with self._lock:
            if self._requested.is_set():  # otherwise `run` is waiting for this event: keep it
                self._requested = anyio.Event()
            scheduled, self._waiting = self._waiting, {}
            taken = {commits: commits.take_deferred() for commits in scheduled}
            self._writing = frozenset(scheduled)
            try:
                await self._write(taken)
            finally:
                self._writing = frozenset()

    async def _write(self, taken: Mapping[ThreadCommits, DeferredWrites]) -> None:
        """Store the deferred writes of these threads, and restore them if the store fails."""
        writes: list[Write] = []
        for commits, deferred in taken.items():
            writes += [*deferred.writes, *commits.marks_of(deferred.marks)]
        if not writes:
            return
        try:
            await self._context.commit(writes, threads=[commits.state.key for commits in taken])
        except NotOwner:
            # Another process owns one of these threads, and reads there what these writes would say. The other threads
            # keep their writes.
            parts = self._by_shard(taken)
            for part in parts if len(parts) > 1 else ():
                await self._write(part)
        except StoreError as error:
            self._context.ongoing.record_failure("store", error)
            self._restore(taken)
        except BaseException:  # canceled, because the bot stops: its last write includes them
            self._restore(taken)
            raise

    def _restore(self, taken: Mapping[ThreadCommits, DeferredWrites]) -> None:
        for commits, deferred in taken.items():
            if self._is_kept(commits):
                commits.restore_deferred(deferred)
                self.add(commits)

    def _by_shard(self, taken: Mapping[ThreadCommits, DeferredWrites]) -> list[dict[ThreadCommits, DeferredWrites]]:
        parts: dict[frozenset[int], dict[ThreadCommits, DeferredWrites]] = {}
        for commits, deferred in taken.items():
            shard = self._context.ownership.shards(self._context.user, (commits.state.key,))
            parts.setdefault(shard, {})[commits] = deferred
        return list(parts.values())

    def forget(self, thread: ThreadId) -> None:
        """Drop a thread whose lane is removed, with its deferred writes."""
        commits = self.threads.pop(thread, None)
        if commits is not None:
            self._waiting.pop(commits, None)

    def forget_lost(self, is_lost: Callable[[ThreadId], bool]) -> None:
        """Drop the deferred writes of lost threads, also those of lanes that a restart of the bot has replaced."""
        self._waiting = {commits: None for commits in self._waiting if not is_lost(commits.state.key)}

    async def wait_for(self, commits: ThreadCommits) -> None:
        """Wait until running writes of this thread have ended, because later writes must not be stored before them."""
        if commits in self._writing:
            async with self._lock:
                pass


def outbox_services(context: BotContext) -> OutboxServices:
    """Return what the outboxes of a bot share."""
    return OutboxServices(
        service=context.service,
        user_budget=context.budget,
        find_row=context.find_row,
        find_known_messages=context.find_made,
        clock=context.clock,
        display_name=context.display_name,
        slack_ms=context.settings.slack_ms,
        log=context.log,
        during=context.tracer.action,
        report_failure=partial(_report_sending, context),
    )


def _report_sending(context: BotContext, thread: ThreadId, error: ServiceError | None) -> None:
    if error is not None:
        context.ongoing.record_failure("send", error, place=thread)
    else:
        context.ongoing.record_success("send", place=thread)
