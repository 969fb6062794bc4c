"""Handles one event: runs the handlers, and commits everything that came of it at once.

What was seen, the actions, the receipt that is owed and, at last, the dead letter go together or not at all. If the
commit fails nothing has happened, and the next poll shows the event again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from chatbot.actions import KeyedAction, SendReadReceipt
from chatbot.bot.commits import ThreadCommits, WriteBehind
from chatbot.bot.environment import BotContext
from chatbot.bot.live_channel import broken_streams
from chatbot.bot.retries import RetryLoop
from chatbot.dispatch import Outcome
from chatbot.errors import Rejected
from chatbot.events import ActionFailed, Event, MessageEvent
from chatbot.model import UserId
from chatbot.outbox.action_rows import person_who_caused, pieces_of, receipts_in, row_of, target_of
from chatbot.stores.records import DeadLetter, OutboxRow, RowStatus
from chatbot.stores.writes import DropDeadLetter, Enqueue, OweReceipt, ReopenRow, SaveDeadLetter, SettleRow, Write


class EventProcessor:
    """Handles the events of one thread, or those outside threads, one after the other.

    Args:
        context: the bot's environment.
        commits: what is known and owed in the thread.
        retries: runs the handlers until an event is done with.
        write_behind: knows the latest version of every thread.
        route: hands rows to the outboxes of their threads, as an action may go to another thread.
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
        """Run the handlers on an event and commit what came of it, `writes` included.

        Args:
            event: what happened.
            seen: the message that tells of it, as id to version; the cursor moves past it in the same commit.
            writes: what else belongs into the commit.

        Raises:
            TryAgain: the handler failed and may be tried again; nothing was committed.
            StoreError: nothing was committed.
        """
        await self.retries.run(event, partial(self._commit_outcome, event, seen, writes))

    async def handle_due(self) -> None:
        """Handle the timers and dialogs that are due here, as long as the outbox has room for what comes of it.

        Raises:
            TryAgain, StoreError: as `handle`.
        """
        while await self.handle_next_due():
            await self.flush()

    async def handle_next_due(self) -> bool:
        """Handle what is due first here; False if nothing is, or the outbox has no room for what comes of it.

        Raises:
            TryAgain, StoreError: as `handle`.
        """
        if self.commits.outbox.is_full or self._context.is_stopping:
            return False
        due = self._context.conversations.first_due(self._state.thread)
        if due is None:
            return False
        event, writes = due
        await self.handle(event, {}, *writes)
        return True

    async def retry_letter(self, letter: DeadLetter, *, is_wanted: Callable[[DeadLetter], bool]) -> None:
        """Try a dead letter again, once: it is dropped if that succeeds and stays if it does not.

        Args:
            letter: what to try.
            is_wanted: whether it is to stay if it fails; it may be dropped while its handler runs.
        """
        event = letter.event
        if isinstance(event, ActionFailed):
            await self._retry_action(letter, event)
            return
        # Noted before it runs: if its handler kills the process, the next process does not try it again by itself.
        await self.commits.commit([SaveDeadLetter(replace(letter, attempts=letter.attempts + 1, is_revived=False))], {})
        outcome = await self.retries.try_once(
            event,
            partial(self._commit_outcome, event, {}, [DropDeadLetter(letter.id)]),
            number=letter.attempts + 1,
        )
        if outcome.error is None:
            self._state.log.info("letter.revived", letter=letter.id)
        elif is_wanted(letter):
            broken = await broken_streams(self._context, self.commits, event, outcome, letter.attempts + 1)
            kept = self.retries.letter(event, outcome, letter.attempts + 1)
            await self._commit_outcome(event, {}, [kept], Outcome(broken), ())

    async def _retry_action(self, letter: DeadLetter, event: ActionFailed) -> None:
        """Try an action again; it counts as journalled now, because the proof of a send begins at that time."""
        key, created_ms = event.action_key, int(self._context.clock() * 1000)
        row = await self._context.find_row(key)
        if row is None:  # its letter has outlived it
            row = row_of(
                KeyedAction(key, event.action),
                self._state.key,
                after=self.commits.latest_version,
                created_ms=created_ms,
            )
            await self.commits.commit([Enqueue(row), DropDeadLetter(letter.id)], {})
            self.commits.outbox.add(row)
        elif row.status is RowStatus.FAILED:
            await self.commits.commit([ReopenRow(key, created_ms), DropDeadLetter(letter.id)], {})
            self.commits.outbox.add(replace(row, status=RowStatus.PENDING, reason=None, created_ms=created_ms))
        else:
            await self.commits.commit([DropDeadLetter(letter.id)], {})
        self._state.log.info("letter.revived", letter=letter.id)

    async def give_up_action(
        self, event: ActionFailed, failed: SettleRow, *, caused_by: UserId | None, is_reported: bool = True
    ) -> None:
        """Keep an action that will never be done as a dead letter, and tell the handlers, once.

        Args:
            event: what the handlers hear.
            failed: the end of its row, in the same commit: neither is there without the other.
            caused_by: whose doing caused the row.
            is_reported: False for what such a handler had asked for itself, or failures would go on for ever.
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
        if outcome.handler is None:  # no handler deals with it, so a test must hear of it
            self._context.report_failure(event, Rejected(f"{type(event.action).__name__} was refused: {event.reason}"))

    async def commit_dead_letters(self, writes: Sequence[Write]) -> None:
        """Commit the end of timers and dialogs that are given up, their dead letters among the writes."""
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
        """Turn an outcome into rows and commit it; only then let the outboxes have the rows.

        All of it is computed before the commit and inside the guarded step of the retry loop: whatever cannot be made
        of a handler's output fails the event, not the lane. An outbox that got a row before its commit might send
        what a failed commit forgets, and the retry would send it under the same key with another text.
        """
        rows = self._rows_for(outcome, event)
        due = receipts_in(outcome.keyed_actions, self._state.key)
        commit: list[Write] = [*writes, *further, *outcome.writes, *(Enqueue(row) for row in rows)]
        if due is not None:
            commit.append(OweReceipt(self._state.key, due))
        await self.commits.commit([*commit, *self.retries.attempts.end()], seen)
        self.retries.attempts.committed()
        if due is not None:
            self.commits.receipts.owe(due)
        if rows:
            self._context.tracer.journalled(rows)
            self._route(rows)

    def _rows_for(self, outcome: Outcome, event: Event) -> list[OutboxRow]:
        """Return the rows that journal an outcome's actions, except receipts, which the thread owes itself."""
        created_ms = int(self._context.clock() * 1000)
        rows: list[OutboxRow] = []
        for keyed in outcome.keyed_actions:
            if isinstance(keyed.action, SendReadReceipt):
                continue
            target = target_of(keyed.action, self._state.thread)
            if target is None:
                self._state.log.error("action.dropped", action=type(keyed.action).__name__, reason="it names no thread")
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
        """Let the outbox send; return the seconds after which there is more to send.

        What it had to give up is an event like any other, and a dead letter.
        """
        pause = await self.commits.outbox.flush()
        await self.report_failures()
        return pause

    async def report_failures(self) -> None:
        """Handle what the outbox had to give up."""
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
