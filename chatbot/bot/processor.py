"""Handle one event: run the handlers, and commit the whole outcome in one transaction.

The handled message, the actions, the due receipt and a dead letter are committed together or not at all. If the commit
fails, nothing has happened, and the next poll shows the event again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from chatbot.actions import KeyedAction
from chatbot.bot.commits import ThreadCommits, WriteBehind
from chatbot.bot.environment import BotContext
from chatbot.bot.live_channel import broken_streams
from chatbot.bot.retries import RetryLoop
from chatbot.dispatch import Outcome
from chatbot.errors import Rejected
from chatbot.events import ActionFailed, Event, MessageEvent
from chatbot.model import UserId
from chatbot.outbox.action_rows import person_who_caused, pieces_of, row_of, target_of
from chatbot.stores.records import DeadLetter, OutboxRow, RowStatus
from chatbot.stores.writes import DropDeadLetter, Enqueue, MarkReceiptDue, RetryRow, SaveDeadLetter, SettleRow, Write


class EventProcessor:
    """Handles the events of one thread, or those outside threads, one at a time.

    Args:
        context: The bot's environment.
        commits: Cursor, outbox and receipts of the thread.
        retries: Runs the handlers until an event is committed or given up.
        write_behind: Knows the latest version of every thread.
        route: Hands rows to the outboxes of their threads, because an action may target another thread.
    """

    __slots__ = ("_context", "_route", "_state", "_write_behind", "commits", "retries")

    def __init__(
        self,
        context: BotContext,
        commits: ThreadCommits,
        retries: RetryLoop,
        write_behind: WriteBehind,
        route: Callable[[Sequence[OutboxRow]], None],
    ) -> None:
        self._context = context
        self._state = commits.state
        self._write_behind = write_behind
        self._route = route
        self.commits = commits
        self.retries = retries

    async def handle(self, event: Event, seen: dict[int, int], *writes: Write) -> None:
        """Run the handlers on an event and commit the outcome together with `writes`.

        Args:
            event: The event.
            seen: Message of the event, as id to version; the cursor moves past it in the same commit.
            writes: Further writes of the commit.

        Raises:
            TryAgain: The handler failed and will be retried; nothing was committed.
            StoreError: Nothing was committed.
        """
        await self.retries.run(event, partial(self._commit_outcome, event, seen, writes))

    async def handle_due(self) -> None:
        """Handle due timers and dialogs, as long as the outbox is not full.

        Raises:
            TryAgain, StoreError: As `handle`.
        """
        while await self.handle_next_due():
            await self.flush()

    async def handle_next_due(self) -> bool:
        """Handle the first due timer or dialog; return False if there is none, or if the outbox is full.

        Raises:
            TryAgain, StoreError: As `handle`.
        """
        if self.commits.outbox.is_full or self._state.is_ending:
            return False
        if self._state.thread is None and not self._context.owns_bot:
            return False  # its lane is always there, but another process runs the schedules
        due = self._context.conversations.first_due(self._state.thread)
        if due is None:
            return False
        event, writes = due
        await self.handle(event, {}, *writes)
        return True

    async def retry_letter(self, letter: DeadLetter, *, is_wanted: Callable[[DeadLetter], bool]) -> None:
        """Retry a dead letter once. It is dropped if the retry succeeds, and kept if it fails.

        Args:
            letter: The dead letter.
            is_wanted: Returns whether to keep it after a failure; it may be dropped while its handler runs.
        """
        event = letter.event
        if isinstance(event, ActionFailed):
            await self._retry_action(letter, event)
            return
        # Recorded before the retry: if its handler kills the process, the next process does not retry it by itself.
        await self.commits.commit([SaveDeadLetter(replace(letter, attempts=letter.attempts + 1, is_revived=False))], {})
        outcome = await self.retries.try_once(
            event,
            partial(self._commit_outcome, event, {}, [DropDeadLetter(letter.id)]),
            number=letter.attempts + 1,
        )
        if outcome.error is None:
            self._state.log.info("dead_letter.retried", letter=letter.id)
        elif is_wanted(letter):
            broken = await broken_streams(self._context, self.commits, event, outcome, letter.attempts + 1)
            kept = self.retries.letter(event, outcome, letter.attempts + 1)
            await self._commit_outcome(event, {}, [kept], Outcome(broken), ())

    async def _retry_action(self, letter: DeadLetter, event: ActionFailed) -> None:
        """Retry a failed action. Its creation time is set to now, because a proof read begins at that time."""
        key, created_ms = event.action_key, int(self._context.clock() * 1000)
        row = await self._context.find_row(key)
        if row is None:  # the row was pruned, the letter was not
            row = row_of(
                KeyedAction(key, event.action),
                self._state.key,
                after=self.commits.latest_version,
                created_ms=created_ms,
            )
            await self.commits.commit([Enqueue(row), DropDeadLetter(letter.id)], {})
            self.commits.outbox.add(row)
        elif row.status is RowStatus.FAILED:
            await self.commits.commit([RetryRow(key, created_ms), DropDeadLetter(letter.id)], {})
            self.commits.outbox.add(replace(row, status=RowStatus.PENDING, reason=None, created_ms=created_ms))
        else:
            await self.commits.commit([DropDeadLetter(letter.id)], {})
        self._state.log.info("dead_letter.retried", letter=letter.id)

    async def give_up_action(
        self, event: ActionFailed, failed: SettleRow, *, caused_by: UserId | None, is_reported: bool = True
    ) -> None:
        """Make a dead letter of an action that has failed for good, and run the handlers of its failure once.

        Args:
            event: The failure, as the handlers receive it.
            failed: Settles the action's row, in the same commit as the dead letter.
            caused_by: Person who caused the action.
            is_reported: Run the handlers. False for actions of such a handler, whose failures would otherwise cause
                further failures endlessly.
        """
        failure = Rejected(event.reason)
        letter = self.retries.letter(event, Outcome(handler=type(event.action).__name__, error=failure), 1, caused_by)
        if not is_reported:
            await self.commits.commit([failed, letter], {})
            return
        with self._context.tracer.attempt(event, 1):
            outcome = await self.retries.attempt(event)
            await self.retries.settle(
                event,
                outcome,
                partial(self._commit_outcome, event, {}, ()),
                [failed, letter],
                [failed, letter],
            )
        if outcome.handler is None:  # no handler took it, so a test must see it
            self._context.report_failure(event, Rejected(f"{type(event.action).__name__} was refused: {event.reason}"))

    async def commit_dead_letters(self, writes: Sequence[Write]) -> None:
        """Commit the writes that give up timers and dialogs, dead letters included, and log these."""
        await self.commits.commit(writes, {})
        for write in writes:
            if isinstance(write, SaveDeadLetter):
                self._context.monitor.dead_lettered()
                letter = write.letter
                self._state.log.error(
                    "event.dead_lettered", letter=letter.id, handler=letter.handler, reason=letter.error
                )

    async def _commit_outcome(
        self,
        event: Event,
        seen: dict[int, int],
        writes: Sequence[Write],
        outcome: Outcome,
        further: Sequence[Write],
    ) -> None:
        """Convert an outcome to rows and commit it; only then pass the rows to the outboxes.

        Everything is computed before the commit and inside the guarded step of the retry loop, so that output that
        cannot be processed fails the event, not the lane. If an outbox received a row before its commit, it could send
        a message that a failed commit forgets, and the retry would send another text under the same key.
        """
        rows = self._rows_for(outcome, event)
        due = outcome.receipt
        commit: list[Write] = [*writes, *further, *outcome.writes, *(Enqueue(row) for row in rows)]
        if due is not None:
            commit.append(MarkReceiptDue(self._state.key, due))
        await self.commits.commit([*commit, *self.retries.attempts.end(event)], seen)
        # Committed. Nothing below may fail: the retry loop would take it for a failure of the handler and run it again.
        self.retries.attempts.committed(event)
        if due is not None:
            self.commits.receipts.mark_due(due)
        if rows:
            self._context.tracer.journalled(rows)
            self._route(rows)

    def _rows_for(self, outcome: Outcome, event: Event) -> list[OutboxRow]:
        """Return the rows that journal an outcome's actions; its receipt is stored with the thread."""
        created_ms = int(self._context.clock() * 1000)
        rows: list[OutboxRow] = []
        for keyed in outcome.keyed_actions:
            target = target_of(keyed.action, self._state.thread)
            if target is None:
                self._state.log.error("action.dropped", action=type(keyed.action).__name__, reason="it has no thread")
                continue
            after = self._write_behind.latest_version(target)
            if isinstance(event, MessageEvent) and target == self._state.thread:
                after = max(after, event.message.version)  # an answer is newer than what it answers
            rows += [
                row_of(
                    piece,
                    target,
                    after=after,
                    created_ms=created_ms,
                    caused_by=person_who_caused(event),
                    after_failure=isinstance(event, ActionFailed),
                )
                for piece in pieces_of(keyed)
            ]
        return rows

    # ── sending ───────────────────────────────────────────────────────────────────────────────────────────────

    async def flush(self) -> float | None:
        """Send pending actions; return the seconds until more can be sent.

        Each action that failed for good is handled as an event, and becomes a dead letter.
        """
        pause = await self.commits.outbox.flush()
        await self.report_failures()
        return pause

    async def report_failures(self) -> None:
        """Handle the actions that the outbox has given up."""
        outbox = self.commits.outbox
        while (failure := outbox.next_failure()) is not None:
            row, reason = failure
            event = ActionFailed(
                bot=self._context.user,
                thread=self._state.key,
                occurred_on=self._context.now,
                action=row.action,
                action_key=row.key,
                reason=reason,
            )
            failed = SettleRow(row.key, RowStatus.FAILED, row.message, reason)
            is_told = not row.after_failure
            await self.give_up_action(event, failed, caused_by=row.caused_by, is_reported=is_told)
            outbox.drop_failure(failure)
