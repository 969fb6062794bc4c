"""Handles the events of one thread, or those of none: runs the handlers, and commits all that came of it at once.

What was seen, the wishes, the receipt that is owed and, at last, the dead letter go together or not at all. If the
commit fails nothing has happened, and the event is met again by the next look.

What lanes have to write that can wait: in one transaction for all of them, about once a second.

It is what came of a send, that a receipt was sent, that a message needs no handler: whatever a crash before it was
written is healed of by reading. The next event of the same thread takes it along, if that comes first. So an event
with a reply costs one transaction.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

import anyio

from chatbot.actions import ActionKey, KeyedAction
from chatbot.bot.read_receipts import ReceiptSender
from chatbot.bot.retries import RetryLoop
from chatbot.dispatch import Outcome
from chatbot.errors import Rejected, StoreError
from chatbot.events import ActionFailed, Event
from chatbot.model import MessageId, ThreadId, UserId
from chatbot.outbox.action_rows import receipts_in, row_of
from chatbot.outbox.outbox import Outbox
from chatbot.polling.cursor import Cursor
from chatbot.stores.records import Attempt, DeadLetter, OutboxRow, RowStatus, ThreadRecord
from chatbot.stores.writes import (
    DropDeadLetter,
    Enqueue,
    MarkSeen,
    MoveBase,
    OweReceipt,
    ReopenRow,
    SaveDeadLetter,
    SettleRow,
    Write,
)

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from chatbot.bot.bot import Bot

NOWHERE: Final = ThreadId("")
"""What stands in the store for no thread."""


class DeferredWrites(NamedTuple):
    """What a lane has to write that can wait: writes, and what was seen, as id to version."""

    writes: list[Write]
    marks: dict[int, int]


class EventProcessor:
    """What a lane knows and owes, and how an event changes it.

    Args:
        bot: whose thread it is.
        thread: which thread; None handles what happens in none.
        record: what the store knows of it.
        noted: an attempt that an earlier process noted before it died.
        outbox: the wishes on their way.
        log: bound to bot and thread.

    Attributes:
        cursor: what was seen.
        receipts: what is owed in receipts.
        proofs: keys of own messages that the look in hand has shown, with the eldest message of each.
        trials: runs the handlers.
        half_shown: what people have seen of streamed texts whose handlers failed.
    """

    __slots__ = (
        "_bot",
        "_lazy",
        "_log",
        "_marks",
        "_place",
        "_thread",
        "cursor",
        "half_shown",
        "outbox",
        "proofs",
        "receipts",
        "trials",
    )

    def __init__(
        self,
        bot: Bot,
        thread: ThreadId | None,
        *,
        record: ThreadRecord | None,
        noted: Attempt | None,
        outbox: Outbox,
        log: FilteringBoundLogger,
    ) -> None:
        self._bot = bot
        self._place = thread
        self._thread = thread or NOWHERE
        self._log = log
        self.outbox = outbox
        self.trials = RetryLoop(bot, thread, noted, log)
        self.proofs: Mapping[str, MessageId] = {}
        self.half_shown: dict[ActionKey, str] = {}
        self.begin(record)

    def begin(self, record: ThreadRecord | None) -> None:
        """Begin the thread (anew) where the record says."""
        floor, base, seen = (record.floor, record.base, record.seen) if record else (0, 0, {})
        self.cursor = Cursor(floor, base, seen, slack_ms=self._bot.settings.slack_ms)
        self.receipts = ReceiptSender.of(record)
        self._lazy: list[Write] = []
        self._marks: dict[int, int] = {}

    @property
    def is_settled(self) -> bool:
        """Whether nothing is owed: no wish, no receipt that is worth waiting for."""
        is_sent = not self.outbox and self.outbox.next_failure() is None
        return is_sent and not self.receipts.is_worth_waiting_for

    @property
    def latest_version(self) -> int:
        """The highest version known in the thread: a wish made now makes no message older than that."""
        return max(self.cursor.top, self.outbox.latest)

    # ── one event ─────────────────────────────────────────────────────────────────────────────────────────────

    async def handle(self, event: Event, seen: dict[int, int], *writes: Write) -> None:
        """Run the handlers on an event and commit what came of it, `writes` included.

        Raises:
            TryAgain: the handler failed and may be tried again; nothing was committed.
            StoreError: nothing was committed.
        """
        await self.trials.run(
            event, lambda outcome, further: self._commit_outcome(event, outcome, seen, [*writes, *further])
        )

    async def ring(self, flush: Callable[[], Awaitable[object]]) -> None:
        """Handle what is due here, as long as what comes of it can be taken.

        Args:
            flush: lets the outbox send.

        Raises:
            TryAgain, StoreError: as `handle`.
        """
        while await self.ring_next():
            await flush()

    async def ring_next(self) -> bool:
        """Handle what is due first here; False if nothing is, or what comes of it could not be taken.

        Raises:
            TryAgain, StoreError: as `handle`.
        """
        if self.outbox.is_full or self._bot.is_stopping:
            return False
        due = self._bot.conversations.take_due(self._place)
        if due is None:
            return False
        event, writes = due
        await self.handle(event, {}, *writes)
        return True

    async def revive(self, letter: DeadLetter, *, is_wanted: Callable[[DeadLetter], bool]) -> None:
        """Try a dead letter again, once: it is dropped if that succeeds and stays if it does not.

        Args:
            letter: what to try.
            is_wanted: whether it is to stay if it fails; it may be dropped while its handler runs.
        """
        event = letter.event
        if isinstance(event, ActionFailed):
            await self._reopen(letter, event)
            return
        # Noted before it runs: if its handler kills the process, the next process does not try it again by itself.
        await self.commit([SaveDeadLetter(replace(letter, attempts=letter.attempts + 1, is_revived=False))], {})
        outcome = await self.trials.try_once(
            event,
            lambda outcome, writes: self._commit_outcome(event, outcome, {}, [*writes, DropDeadLetter(letter.id)]),
            number=letter.attempts + 1,
        )
        if outcome.error is None:
            self._log.info("letter.revived", letter=letter.id)
        elif is_wanted(letter):
            broken = await self._bot.broken_streams(event, outcome, letter.attempts + 1)
            kept = self.trials.letter(event, outcome, letter.attempts + 1)
            await self._commit_outcome(event, Outcome(broken), {}, [kept])

    async def _reopen(self, letter: DeadLetter, event: ActionFailed) -> None:
        """Try a wish again; from now on it counts as journalled now, as long ago it may have left other traces."""
        key, created_ms = event.action_key, int(self._bot.clock() * 1000)
        row = await self._bot.find_row(key)
        if row is None:  # its letter has outlived it
            row = row_of(KeyedAction(key, event.action), self._thread, after=self.latest_version, created_ms=created_ms)
            await self.commit([Enqueue(row), DropDeadLetter(letter.id)], {})
            self.outbox.add(row)
        elif row.status is RowStatus.FAILED:
            await self.commit([ReopenRow(key, created_ms), DropDeadLetter(letter.id)], {})
            self.outbox.add(replace(row, status=RowStatus.PENDING, reason=None, created_ms=created_ms))
        else:
            await self.commit([DropDeadLetter(letter.id)], {})
        self._log.info("letter.revived", letter=letter.id)

    async def give_up_action(
        self, event: ActionFailed, failed: SettleRow, *, caused_by: UserId | None, is_told: bool = True
    ) -> None:
        """A wish will never be done: keep it as a dead letter, and let the handlers hear of it, once.

        Args:
            event: what the handlers hear.
            failed: the end of its row, in the same commit: neither is there without the other.
            caused_by: whose doing caused the row.
            is_told: False for what such a handler had asked for itself, or failures would go on for ever.
        """
        failure = Rejected(event.reason)
        letter = self.trials.letter(event, Outcome(handler=type(event.action).__name__, error=failure), 1, caused_by)
        if not is_told:
            await self.commit([failed, letter], {})
            return
        with self._bot.tracer.attempt(event, 1):
            outcome = await self.trials.attempt(event)
            await self.trials.settle(
                event,
                outcome,
                lambda outcome, writes: self._commit_outcome(event, outcome, {}, writes),
                [failed, letter],
                [failed, letter],
            )
        if outcome.handler is None:  # no handler deals with it, so a test must hear of it
            self._bot.tell(event, Rejected(f"{type(event.action).__name__} was refused: {event.reason}"))

    async def bury(self, writes: Sequence[Write]) -> None:
        """Commit the end of timers and dialogs that are given up, their dead letters among the writes."""
        await self.commit(writes, {})
        for write in writes:
            if isinstance(write, SaveDeadLetter):
                self._bot.watch.buried()
                letter = write.letter
                self._log.error("event.buried", letter=letter.id, handler=letter.handler, reason=letter.error)

    async def _commit_outcome(
        self, event: Event, outcome: Outcome, seen: dict[int, int], writes: Sequence[Write]
    ) -> None:
        rows = self._bot.rows_for(outcome, event)
        due = receipts_in(outcome.wishes, self._thread)
        commit: list[Write] = [*writes, *outcome.writes, *(Enqueue(row) for row in rows)]
        if due is not None:
            commit.append(OweReceipt(self._thread, due))
        await self.commit([*commit, *self.trials.attempts.end()], seen)
        self.trials.attempts.committed()
        if due is not None:
            self.receipts.owe(due)
        self._bot.take(rows)

    # ── commits ───────────────────────────────────────────────────────────────────────────────────────────────

    async def commit(self, writes: Sequence[Write], seen: dict[int, int]) -> None:
        """One transaction for all that is to be remembered; if it fails, what others left here stays waiting."""
        await self._bot.deferred.written(self)
        waiting = self.take_deferred()
        try:
            before = [*waiting.writes, *self.marked(waiting.marks)]
            await self._bot.commit([*before, *writes, *self.marked(seen)], place=self._thread)
        except BaseException:
            self.put_back(waiting)
            raise
        self.cursor.mark(seen)

    def defer(self) -> None:
        """Have written, about a second from now, what no event takes along; a crash before is healed by reading."""
        self._lazy += self.outbox.take_settlements()
        if self._lazy or self._marks:
            self._bot.deferred.note(self)

    def take_deferred(self) -> DeferredWrites:
        """What waits to be written: for whoever is about to do it."""
        waiting = DeferredWrites([*self._lazy, *self.outbox.take_settlements()], self._marks)
        self._lazy, self._marks = [], {}
        return waiting

    def put_back(self, waiting: DeferredWrites) -> None:
        """It could not be written: let it wait on, but for what has been overtaken."""
        self._lazy = [*waiting.writes, *self._lazy]
        known = self.cursor.seen
        self._marks = {
            **{id: version for id, version in waiting.marks.items() if known.get(id) == version},
            **self._marks,
        }

    def marked(self, seen: Mapping[int, int]) -> list[Write]:
        """What writes down that these messages were dealt with in these versions."""
        return [MarkSeen(self._thread, seen)] if seen else []

    def later(self, write: Write) -> None:
        """Write this with the next commit; losing it in a crash costs a look, no more."""
        self._lazy.append(write)

    def skip(self, identifier: int, version: int) -> None:
        """This message needs no handler; it is enough to write that down some time."""
        self.cursor.mark({identifier: version})
        self._marks[identifier] = version

    def rise(self, top: int | None) -> None:
        """A whole look was read and committed: the base may rise."""
        settled = self.cursor.finish_full_poll(top)
        if settled is not None:
            self._lazy = [write for write in self._lazy if not isinstance(write, MoveBase)]
            self.later(MoveBase(self._thread, settled.base, settled.below))

    async def enqueue(self, rows: Sequence[OutboxRow]) -> None:
        """Journal wishes that no event caused."""
        if rows:
            await self.commit([Enqueue(row) for row in rows], {})
            for row in rows:
                self.outbox.add(row)


DEFER_SECONDS: Final = 1.0
"""How long it waits for others; a crash in this time makes the next start read the thread again."""


class WriteBehind:
    """The deferred writes of one bot.

    Args:
        bot: whose.
    """

    def __init__(self, bot: Bot) -> None:
        self._bot = bot
        self._owing: dict[EventProcessor, None] = {}
        self._in_hand: frozenset[EventProcessor] = frozenset()
        self._turn = anyio.Lock()
        self._called = anyio.Event()

    def note(self, handling: EventProcessor) -> None:
        """A thread has something to write."""
        self._owing[handling] = None
        self._called.set()

    async def run(self) -> None:
        """Write again and again, until cancelled."""
        while True:
            await self._called.wait()
            await anyio.sleep(DEFER_SECONDS)
            await self.write()

    async def write(self) -> None:
        """Write what there is; if the store cannot, it waits on."""
        async with self._turn:
            self._called = anyio.Event()
            owing, self._owing = frozenset(self._owing), {}
            taken = {handling: handling.take_deferred() for handling in owing}
            writes: list[Write] = []
            for handling, one in taken.items():
                writes += [*one.writes, *handling.marked(one.marks)]
            if not writes:
                return
            self._in_hand = owing
            try:
                await self._bot.commit(writes)
            except StoreError as error:
                self._bot.trouble.met("store", error)
                for handling, one in taken.items():
                    handling.put_back(one)
                    self.note(handling)
            finally:
                self._in_hand = frozenset()

    async def written(self, handling: EventProcessor) -> None:
        """Wait while something of this thread is being written: what comes later is not to be written before it."""
        if handling in self._in_hand:
            async with self._turn:
                pass
