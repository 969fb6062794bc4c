"""Polls one thread: reads what is new, puts it in order, and has it handled."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import anyio

from chatbot.bot.commits import ThreadCommits
from chatbot.bot.environment import BotContext
from chatbot.bot.membership import absences
from chatbot.bot.presence import ThreadPresence
from chatbot.events import Event
from chatbot.model import ChatMessage
from chatbot.polling.cursor import Change, order_key
from chatbot.polling.message_events import event_of
from chatbot.polling.poller import Interrupted, Poll, full_poll, incremental_poll
from chatbot.polling.thread_list import is_covered
from chatbot.service.budget import Operation

NOTIFIED_POLL_SECONDS: Final = 1.0
"""Between two looks for which Event Grid has woken a thread, in the long run: 60 a minute, of the 200 allowed."""

NOTIFIED_POLLS_AT_ONCE: Final = 4
"""So many further looks may follow at once before they are that far apart: people who talk are heard at once."""


class ThreadPoller:
    """The polls of one thread, one after the other.

    Args:
        context: the bot's environment.
        commits: what is known and owed in the thread.
        presence: the bot's comings and goings in the thread.
        polled_ms: the service's time at which the thread was last known to be read; None if it was not.

    Attributes:
        polled_ms: the service's time at the start of the last look that read everything.
        activity_ms: the latest activity that the doorbell has told of and no look has covered yet; the service's time.
        run_at: when the last look began, in seconds of the event loop's clock; None if none did.
        last_message_at: when somebody last spoke in the thread, in seconds of the event loop's clock.
        unhandled_ms: the version of the message that was seen and is not handled yet.
        has_shown_removal: the last poll has shown that the bot was removed, and no return after it.
        removal: the system message that tells of the bot's removal, as id to version; empty where none was shown.
    """

    __slots__ = (
        "_commits",
        "_context",
        "_full_poll_at",
        "_ignored_removal",
        "_is_notified",
        "_known",
        "_notified_until",
        "_poll",
        "_presence",
        "_shown",
        "_state",
        "activity_ms",
        "has_shown_removal",
        "last_message_at",
        "polled_ms",
        "removal",
        "run_at",
        "unhandled_ms",
    )  # fmt: skip

    def __init__(
        self, context: BotContext, commits: ThreadCommits, presence: ThreadPresence, *, polled_ms: int | None
    ) -> None:
        self._context = context
        self._presence = presence
        self._commits = commits
        self._state = commits.state
        self._poll: Poll | None = None
        self._known: int | None = None
        self._ignored_removal = 0
        self._is_notified = False
        self._notified_until = 0.0
        self._shown = self._commits.cursor.top
        self._full_poll_at: float | None = None
        self.polled_ms = polled_ms
        self.run_at: float | None = None
        self.activity_ms: int | None = None
        self.removal: dict[int, int] = {}
        self.has_shown_removal = False
        self.unhandled_ms: int | None = None
        self.last_message_at = anyio.current_time() - max(0.0, context.clock() - self._commits.cursor.top / 1000)

    def restart(self) -> None:
        """The bot came into the thread."""
        self._full_poll_at, self.last_message_at, self.removal = None, anyio.current_time(), {}

    def ignore_removal(self) -> None:
        """The bot is in the thread whatever its messages say: the return may be shown late, or not at all."""
        self._ignored_removal = max(self._ignored_removal, *self.removal, 0)
        self.removal = {}

    @property
    def has_polled(self) -> bool:
        """Whether the thread was read since the bot has started, or has come in."""
        return self._full_poll_at is not None

    def note_activity(self, stamp_ms: int) -> None:
        """The doorbell tells of activity at this time, the service's, epoch ms."""
        self.activity_ms = max(stamp_ms, self.activity_ms or 0)

    def mark_notified(self) -> None:
        """Event Grid tells that something has happened."""
        self._is_notified = True

    def next_notified_poll(self, now: float) -> float:
        """When a look may follow what Event Grid tells: at once, unless it has told of much lately.

        Anybody who may deliver can tell of a thread as often as he likes, and each look takes of its quota.
        """
        return max(now, self._notified_until - NOTIFIED_POLLS_AT_ONCE * NOTIFIED_POLL_SECONDS)

    def interrupt(self) -> None:
        """End the look that is under way, if it is waiting for the service; a handler is left to finish."""
        if self._poll is not None:
            self._poll.interrupt()

    async def events(self) -> AsyncGenerator[tuple[Event, dict[int, int]]]:
        """Poll the thread, and yield what is new: each event, with the message that tells of it, as id to version.

        Whoever takes an event handles it and commits before it takes the next one: thread order depends on it, and the
        base of the cursor rises in the end because everything that was shown is committed.

        Raises:
            ServiceError: the thread cannot be read now.
            TryAgain, StoreError: as `EventProcessor.handle`.
        """
        now = self.run_at = anyio.current_time()
        if self._is_notified:
            self._notified_until = max(self._notified_until, now) + NOTIFIED_POLL_SECONDS
        since_full_poll = None if self._full_poll_at is None else now - self._full_poll_at
        is_full = self._context.settings.cadence.is_full_poll_due(since_full_poll)
        poll = self._poll = self._start_poll(is_full)
        shown_before = self._shown
        self._known = self._commits.cursor.top if self._state.arrived else None
        self.has_shown_removal = False
        try:
            async with aclosing(poll.batches()) as batches:
                async for batch in batches:
                    self._note_batch(poll, batch, begun=now)
                    for message in self._in_order(batch):
                        if poll.membership_changes and await self._is_settled_by_membership(message, poll):
                            continue
                        if self.has_shown_removal:
                            return
                        event = await self._event_of(message)
                        if event is None:
                            continue
                        yield event, {message.number: message.version}
                        if self._context.is_stopping or self._commits.outbox.is_full:
                            return
        except Interrupted:
            self._state.log.debug("poll.interrupted")
            return
        finally:
            self._poll, self._commits.proofs = None, {}
        await self._finish(poll, shown_before, is_full=is_full)

    async def _finish(self, poll: Poll, shown_before: int, *, is_full: bool) -> None:
        """Everything that a poll has shown was handled.

        Args:
            poll: the poll.
            shown_before: the highest version that earlier polls have shown.
            is_full: it was a full poll.
        """
        self._context.ongoing.record_success("read", place=self._state.key)
        if is_full and self._state.membership.is_reported_out:
            await self._presence.handle_joined(None)
        self.polled_ms = poll.server_time_ms
        self._shown = max(self._shown, poll.top or 0)
        self._check_activity(shown_before)
        if is_full:
            self._full_poll_at = self.run_at
            self._commits.raise_base(poll.top)

    def _check_activity(self, shown_before: int) -> None:
        """A look has ended; the doorbell's news are covered if it began clearly after them.

        Args:
            shown_before: the highest version that earlier looks have shown.
        """
        is_unseen = self.activity_ms is not None and self._shown < self.activity_ms
        if is_unseen or (self._is_notified and self._shown <= shown_before):
            self.last_message_at = anyio.current_time()  # what has rung does not show yet, and may show late
        self._is_notified = False
        if self.activity_ms is not None and is_covered(self.activity_ms, self.polled_ms):
            self.activity_ms = None

    def _start_poll(self, is_full: bool) -> Poll:
        service, thread, budget = self._context.service, self._state.key, self._state.budget
        cursor = self._commits.cursor
        if is_full:
            return full_poll(service, thread, cursor, budget, catch_up=self._full_poll_at is None)
        return incremental_poll(service, thread, cursor, budget, polled_ms=self.polled_ms)

    def _note_batch(self, poll: Poll, batch: list[ChatMessage], *, begun: float) -> None:
        # Until the poll ends, the outbox takes an own message that was shown for the proof of its send.
        self._commits.proofs = poll.keys
        self._context.monitor.lane_at_work(self._state.key)
        if batch:
            self._context.tracer.polled(self._state.key, anyio.current_time() - begun)
        self._shown = max(self._shown, *(message.version for message in batch), 0)

    def _in_order(self, batch: list[ChatMessage]) -> list[ChatMessage]:
        """The batch in the order in which things happened."""
        cursor = self._commits.cursor
        return sorted(batch, key=lambda message: order_key(cursor.classify(message), message))

    async def _is_settled_by_membership(self, message: ChatMessage, poll: Poll) -> bool:
        """Deal with what a message means to a bot that was removed, or came back, while it did not poll.

        Returns:
            Whether nothing else is to be done about the message. A removal that no return follows ends the poll: see
            `has_shown_removal`.
        """
        state, cursor = self._state, self._commits.cursor
        change = cursor.classify(message)
        if change is Change.NONE:
            return False
        when, is_new = order_key(change, message)[0], change is Change.RECEIVED
        for begin, end in absences(
            poll.membership_changes, arrived=max(state.arrived, cursor.floor), known=self._known
        ):
            if is_new and message.number == end:
                await self._presence.handle_joined(message.id)
                return False
            if is_new and message.number == begin:
                if end is None and begin > self._ignored_removal:
                    self.removal, self.has_shown_removal = {message.number: message.version}, True
                    return False
                if end is not None and not state.membership.is_reported_out:
                    await self._presence.handle_left(message)
                self._commits.mark_handled(message.number, message.version)
                return True
            if end is not None and begin < when < end and message.sender != self._context.user:
                self._commits.mark_handled(message.number, message.version)
                return True
        return False

    async def _event_of(self, message: ChatMessage) -> Event | None:
        """Return the event that a message tells of; None if it tells of none.

        An own message is the proof that its action was sent, whatever the send itself returned.
        """
        commits = self._commits
        change = commits.cursor.classify(message)
        if change is Change.NONE:
            return None
        if message.sender == self._context.user and message.reply_key is not None:
            doubles = self._poll.doubles.get(message.reply_key, ()) if self._poll is not None else ()
            healing = await commits.outbox.confirm(message, doubles)
            await commits.enqueue(healing)
            if healing:
                self._context.monitor.healed()
        event = event_of(change, message, bot=self._context.user, thread=self._state.key)
        if event is None:
            commits.mark_handled(message.number, message.version)
            return None
        self._note_message(message)
        if self.unhandled_ms is None:
            self.unhandled_ms = message.version
            self._context.monitor.event_noticed(self._context.clock() - message.version / 1000)
        return event

    def _note_message(self, message: ChatMessage) -> None:
        """Note that the thread is alive, and that others used up its shared quota."""
        now = anyio.current_time()
        self.last_message_at = now
        self._commits.receipts.count_people(message)
        if message.participants:
            self._state.people = None
        # By the service's clock: ours may be wrong, and what others have used up of the quota must be known.
        read_ms = self._poll.server_time_ms if self._poll is not None else None
        age = 0.0 if read_ms is None else (read_ms - message.version) / 1000
        if message.is_said and age < 60:
            # Another bot of this process has counted what it said already.
            change = None if message.sender in self._context.shared.users else message.version
            self._state.budget.count_other(Operation.WRITE_MESSAGE, now - max(0.0, age), change)
