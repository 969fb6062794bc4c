"""What is known and owed in one thread, and the transactions that write it down.

`ThreadCommits` holds the cursor, the outbox and the receipts of a thread, and commits what changes them. `WriteBehind`
writes what can wait: in one transaction for all threads of a bot, about once a second. That is what came of a send,
that a receipt was sent, that a message needs no handler: whatever a crash before the write is healed of by reading.
The next event of the same thread takes it along if that comes first. So an event with a reply costs one transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

import anyio

from chatbot.actions import ActionKey
from chatbot.bot.environment import BotContext
from chatbot.bot.membership import ThreadState
from chatbot.bot.read_receipts import ReceiptSender
from chatbot.errors import ServiceError, StoreError
from chatbot.model import MessageId, ThreadId
from chatbot.outbox.outbox import Outbox
from chatbot.polling.cursor import Cursor
from chatbot.stores.records import OutboxRow, ThreadRecord
from chatbot.stores.writes import Enqueue, MarkSeen, MoveBase, Write

DEFER_SECONDS: Final = 1.0
"""How long deferred writes wait for others; a crash in this time makes the next start read the thread again."""


class DeferredWrites(NamedTuple):
    """What a thread has to write that can wait: writes, and what was seen, as id to version."""

    writes: list[Write]
    marks: dict[int, int]


class ThreadCommits:
    """What is known and owed in one thread, or outside threads.

    Args:
        context: the bot's environment.
        state: what the bot knows of the thread.
        write_behind: what writes the deferred writes of all threads.
        record: what the store knows of the thread.
        rows: actions that an earlier process left pending here.

    Attributes:
        cursor: what was seen.
        outbox: the actions on their way.
        receipts: what is owed in receipts.
        proofs: keys of own messages that the poll in hand has shown, with the eldest message of each.
        unfinished_streams: what people have seen of streamed texts whose handlers failed.
    """

    __slots__ = (
        "_context",
        "_deferred",
        "_marks",
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
        self.outbox = _outbox(context, state, rows)
        self.proofs: Mapping[str, MessageId] = {}
        self.unfinished_streams: dict[ActionKey, str] = {}
        self.restart(record)
        write_behind.threads[state.key] = self

    def restart(self, record: ThreadRecord | None) -> None:
        """Begin the thread (anew) where the record says."""
        floor, base, seen = (record.floor, record.base, record.seen) if record else (0, 0, {})
        self.cursor = Cursor(floor, base, seen, slack_ms=self._context.settings.slack_ms)
        self.receipts = ReceiptSender.of(record)
        self._deferred: list[Write] = []
        self._marks: dict[int, int] = {}

    @property
    def is_settled(self) -> bool:
        """Whether nothing is owed: no action, no receipt that is worth waiting for."""
        is_sent = not self.outbox and self.outbox.next_failure() is None
        return is_sent and not self.receipts.is_worth_waiting_for

    @property
    def latest_version(self) -> int:
        """The highest version known in the thread: an action made now makes no message older than that."""
        return max(self.cursor.top, self.outbox.latest)

    @property
    def stay_start(self) -> int:
        """The id after which the bot's present stay in the thread began."""
        return max(self.cursor.floor, self.state.arrived - 1)

    async def commit(self, writes: Sequence[Write], seen: dict[int, int]) -> None:
        """Write everything that is to be remembered in one transaction.

        The cursor moves only after the commit. If it moved before and the commit failed, the event would be lost: the
        next poll would take it for handled. What was deferred goes first, because it happened before.

        Raises:
            StoreError: nothing was written; what was deferred stays deferred.
        """
        await self._write_behind.wait_for(self)
        deferred = self.take_deferred()
        try:
            before = [*deferred.writes, *self.marks_of(deferred.marks)]
            await self._context.commit([*before, *writes, *self.marks_of(seen)], place=self.state.key)
        except BaseException:
            self.restore_deferred(deferred)
            raise
        self.cursor.mark(seen)

    async def enqueue(self, rows: Sequence[OutboxRow]) -> None:
        """Journal actions that no event caused."""
        if rows:
            await self.commit([Enqueue(row) for row in rows], {})
            for row in rows:
                self.outbox.add(row)

    # ── deferred writes ───────────────────────────────────────────────────────────────────────────────────────

    def schedule_writes(self) -> None:
        """Have the deferred writes done in about a second, unless an event takes them along before."""
        self._deferred += self.outbox.take_settlements()
        if self._deferred or self._marks:
            self._write_behind.add(self)

    def take_deferred(self) -> DeferredWrites:
        """Remove and return what waits to be written, for whoever is about to write it."""
        waiting = DeferredWrites([*self._deferred, *self.outbox.take_settlements()], self._marks)
        self._deferred, self._marks = [], {}
        return waiting

    def restore_deferred(self, waiting: DeferredWrites) -> None:
        """Let what could not be written wait on, except marks that newer versions have overtaken."""
        self._deferred = [*waiting.writes, *self._deferred]
        known = self.cursor.seen
        self._marks = {
            **{id: version for id, version in waiting.marks.items() if known.get(id) == version},
            **self._marks,
        }

    def marks_of(self, seen: Mapping[int, int]) -> list[Write]:
        """Return what writes down that these messages were dealt with in these versions."""
        return [MarkSeen(self.state.key, seen)] if seen else []

    def defer(self, write: Write) -> None:
        """Write this with the next commit; losing it in a crash costs a poll, no more."""
        self._deferred.append(write)

    def mark_handled(self, identifier: int, version: int) -> None:
        """Note that a message needs no handler; that is written some time."""
        self.cursor.mark({identifier: version})
        self._marks[identifier] = version

    def raise_base(self, top: int | None) -> None:
        """Let the cursor's base rise after a full poll whose events are all committed.

        The base rises to the top of the full poll *before* this one: a message may become visible late, below what
        this poll has shown, and only a further full poll against the old base would find it.
        """
        settled = self.cursor.finish_full_poll(top)
        if settled is not None:
            self._deferred = [write for write in self._deferred if not isinstance(write, MoveBase)]
            self.defer(MoveBase(self.state.key, settled.base, settled.below))


class WriteBehind:
    """The deferred writes of one bot.

    Args:
        context: the bot's environment.

    Attributes:
        threads: the threads that have a lane, by their keys.
    """

    def __init__(self, context: BotContext) -> None:
        self._context = context
        self._waiting: dict[ThreadCommits, None] = {}
        self._writing: frozenset[ThreadCommits] = frozenset()
        self._lock = anyio.Lock()
        self._requested = anyio.Event()
        self.threads: dict[ThreadId, ThreadCommits] = {}

    def latest_version(self, thread: ThreadId) -> int:
        """Return the highest version known in a thread; 0 if none is."""
        commits = self.threads.get(thread)
        return 0 if commits is None else commits.latest_version

    def add(self, commits: ThreadCommits) -> None:
        """Have the deferred writes of a thread written."""
        self._waiting[commits] = None
        self._requested.set()

    async def run(self) -> None:
        """Write again and again, until canceled."""
        while True:
            await self._requested.wait()
            await anyio.sleep(DEFER_SECONDS)
            await self.write()

    async def write(self) -> None:
        """Write what there is; what the store does not take waits on."""
        async with self._lock:
            self._requested = anyio.Event()
            owing, self._waiting = frozenset(self._waiting), {}
            taken = {commits: commits.take_deferred() for commits in owing}
            writes: list[Write] = []
            for commits, deferred in taken.items():
                writes += [*deferred.writes, *commits.marks_of(deferred.marks)]
            if not writes:
                return
            self._writing = owing
            try:
                await self._context.commit(writes)
            except StoreError as error:
                self._context.ongoing.record_failure("store", error)
                for commits, deferred in taken.items():
                    commits.restore_deferred(deferred)
                    self.add(commits)
            finally:
                self._writing = frozenset()

    async def wait_for(self, commits: ThreadCommits) -> None:
        """Wait while something of this thread is being written: what comes later must not be written before it."""
        if commits in self._writing:
            async with self._lock:
                pass


def _outbox(context: BotContext, state: ThreadState, rows: Sequence[OutboxRow]) -> Outbox:
    """Make the outbox of a thread. Outside threads it stays empty: each action goes to the outbox of its thread."""
    return Outbox(
        context.service,
        state.key,
        state.budget,
        find_row=context.find_row,
        find_known_messages=context.find_made,
        clock=context.clock,
        display_name=context.display_name,
        slack_ms=context.settings.slack_ms,
        log=state.log,
        rows=rows,
        during=context.tracer.action,
        report_failure=partial(_report_sending, context, state.key),
    )


def _report_sending(context: BotContext, thread: ThreadId, error: ServiceError | None) -> None:
    if error is not None:
        context.ongoing.record_failure("send", error, place=thread)
    else:
        context.ongoing.record_success("send", place=thread)
