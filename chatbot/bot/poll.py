"""Poll one thread, and have its new events handled in order."""

from __future__ import annotations

from asyncio import get_running_loop
from datetime import datetime
from typing import Final

from chatbot.bot.commits import NO_PROOFS, ThreadCommits
from chatbot.bot.environment import BotContext
from chatbot.bot.membership import absences
from chatbot.bot.presence import ThreadPresence
from chatbot.bot.processor import EventProcessor
from chatbot.events import Event
from chatbot.model import ChatMessage, milliseconds
from chatbot.polling.cadence import DECAY
from chatbot.polling.cursor import Change, order_key
from chatbot.polling.message_events import event_of
from chatbot.polling.poller import Interrupted, Poll, full_poll, incremental_poll
from chatbot.polling.thread_list import COVER_MS, is_covered
from chatbot.service.budget import Operation

NOTIFIED_POLL_SECONDS: Final = 1.0
"""Average seconds between polls caused by Event Grid: 60 per minute, of 200 that the service allows."""

UNSEEN_SILENCE: Final = DECAY * 1.0
"""Assumed silence of a thread whose reported activity cannot be seen yet: a poll a second, then fewer."""

NEIGHBOR_SECONDS: Final = 1.0
"""Seconds by which a covering poll is postponed for each other bot of the process in the thread."""

NO_STAMP_SECONDS: Final = 1.0
"""Minimum seconds between polls of a thread that is listed without a timestamp."""

NOTIFIED_POLLS_AT_ONCE: Final = 4
"""Maximum burst of such polls, so that messages in an active conversation are read at once."""


class ThreadPoller:
    """Polls one thread.

    Args:
        context: The bot's environment.
        commits: Cursor, outbox and receipts of the thread.
        presence: Presence of the bot in the thread.
        polled_ms: Service time up to which the thread is known to be read; None if unknown.

    Attributes:
        polled_ms: Service time at the start of the last complete poll.
        activity_ms: Service time of the latest activity in the thread list that no poll has covered yet.
        cover_at: When a poll may begin that covers this activity, in seconds of the event loop's clock.
        run_at: Start of the last poll, in seconds of the event loop's clock; None before the first.
        last_message_at: Time of the last message, in seconds of the event loop's clock.
        unhandled_ms: Version of the first message that was seen but not handled.
        has_shown_removal: The last poll has shown the bot's removal, and no return after it.
        removal: System message of the bot's removal, as id to version; empty if none was shown.
    """

    __slots__ = (
        "_commits",
        "_context",
        "_covered_ms",
        "_full_poll_at",
        "_ignored_removal",
        "_is_notified",
        "_known",
        "_listed",
        "_noted_at",
        "_notified_until",
        "_poll",
        "_presence",
        "_reported",
        "_settled_page",
        "_shown",
        "_state",
        "activity_ms",
        "cover_at",
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
        self._listed: datetime | None = None
        self._noted_at = 0.0
        self._ignored_removal = 0
        self._is_notified = False
        self._notified_until = 0.0
        self._shown = self._commits.cursor.top
        self._full_poll_at: float | None = None
        self._settled_page: int | None = None
        self.polled_ms = polled_ms
        self.run_at: float | None = None
        self.activity_ms: int | None = None
        self.cover_at = 0.0
        self._covered_ms = 0
        self._reported = 0
        self.removal: dict[int, int] = {}
        self.has_shown_removal = False
        self.unhandled_ms: int | None = None
        self.last_message_at = get_running_loop().time() - max(0.0, context.clock() - self._commits.cursor.top / 1000)

    def restart(self) -> None:
        """Reset the state after the bot has entered the thread; the next poll is a full one."""
        self._full_poll_at, self.last_message_at, self.removal = None, get_running_loop().time(), {}
        self._settled_page = None

    def ignore_removal(self) -> None:
        """Ignore the removal that was shown: the bot is in the thread, and its return may be shown late or never."""
        self._ignored_removal = max(self._ignored_removal, *self.removal, 0)
        self.removal = {}

    @property
    def has_polled(self) -> bool:
        """Whether the thread was fully polled since the bot started or entered it."""
        return self._full_poll_at is not None

    def has_noted(self, stamp: datetime | None) -> bool:
        """Return whether this timestamp was noted, and its covering poll is still to come.

        A list that is polled several times a second shows the same timestamps again and again.
        """
        return stamp is not None and stamp == self._listed

    def note_activity(self, stamp: datetime | None, listed_ms: int | None) -> float | None:
        """Record the thread's timestamp in the thread list, and return when it calls for a poll; None if it does not.

        A new timestamp calls for two polls: one at once, to find what it reports, and one that covers everything it can
        mean. The first is not needed if something of its second is known: a message that a poll has shown, or the bot's
        latest message. What else was sent in that second is found by the fast polls of an active thread, or by the
        covering poll.

        Args:
            stamp: The timestamp; None if the thread is listed without one.
            listed_ms: Not later than the service's time now, epoch ms; None if unknown.
        """
        now = get_running_loop().time()
        if stamp is None:
            if listed_ms is None or (self.run_at is not None and now < self.run_at + NO_STAMP_SECONDS):
                return None
            stamp_ms = listed_ms
        else:
            stamp_ms, self._listed = milliseconds(stamp), stamp
        if stamp_ms <= max(self._covered_ms, self.activity_ms or 0):
            return None
        self.activity_ms, self._noted_at = stamp_ms, now
        self.cover_at = now + max(0.0, (stamp_ms + COVER_MS - (listed_ms or stamp_ms)) / 1000)
        # In a thread of many bots, the polls for the next message cover most stamps: the quota is for all of them.
        self.cover_at += NEIGHBOR_SECONDS * self._context.shared.others_in(self._state.key)
        return self.cover_at if self._knows_second_of(stamp_ms) else now

    def _knows_second_of(self, stamp_ms: int) -> bool:
        """Return whether something is known of a timestamp's second, or of a later one."""
        return max(self._shown, self._commits.outbox.latest) // 1000 >= stamp_ms // 1000

    def has_seen(self, change: int) -> bool:
        """Return whether a poll has shown this version, or a later one."""
        return self._shown >= change

    def note_change(self, change: int) -> None:
        """Record a change that another bot has seen while this poll is running; it may not be shown to it."""
        self._reported = max(change, self._reported)

    def next_poll(self, now: float) -> float | None:
        """Return the seconds until a poll is needed for recorded activity or a reported change; None if it is not.

        Call it at the end of a turn. By then it is known whether activity that was recorded during the turn is the
        bot's own reply.
        """
        fast, (reported, self._reported) = self._context.settings.cadence.fast, (self._reported, 0)
        if reported > self._shown:
            return fast
        if self.activity_ms is None:
            return None
        run_at = now if self.run_at is None else self.run_at
        is_new, self._noted_at = self._noted_at > run_at, 0.0
        if is_new and not self._knows_second_of(self.activity_ms):
            return max(0.0, run_at + fast - now)
        return max(fast, self.cover_at - now)

    def mark_notified(self) -> None:
        """Record that Event Grid has reported activity."""
        self._is_notified = True

    def next_notified_poll(self, now: float) -> float:
        """Return when the next poll caused by Event Grid may start.

        Such polls are limited, because anyone who may deliver events could otherwise exhaust the thread's quota.
        """
        return max(now, self._notified_until - NOTIFIED_POLLS_AT_ONCE * NOTIFIED_POLL_SECONDS)

    def interrupt(self) -> None:
        """Interrupt a poll that waits for the service; a running handler continues."""
        if self._poll is not None:
            self._poll.interrupt()

    async def run(self, processor: EventProcessor) -> None:
        """Poll the thread, and handle its new events in order.

        Args:
            processor: Handles and commits each event before the next one. Thread order depends on it, and the cursor's
                base rises at the end only because everything shown has been committed.

        Raises:
            ServiceError: The thread cannot be read now.
            TryAgain, StoreError: As `EventProcessor.handle`.
        """
        now = self.run_at = get_running_loop().time()
        if self._is_notified:
            self._notified_until = max(self._notified_until, now) + NOTIFIED_POLL_SECONDS
        since_full_poll = None if self._full_poll_at is None else now - self._full_poll_at
        is_full = self._context.settings.cadence.is_full_poll_due(since_full_poll)
        poll = self._poll = self._start_poll(is_full)
        shown_before = self._shown
        self._known = self._commits.cursor.top if self._state.arrived else None
        self.has_shown_removal = False
        try:
            await poll.read()
            self._note_service_time(poll)
            self._context.monitor.lane_at_work(self._state.key)
            while (batch := await poll.next_batch()) is not None:
                self._note_batch(poll, batch, started_at=now)
                for message in self._in_order(batch):
                    if poll.membership_changes and await self._is_settled_by_membership(message, poll):
                        continue
                    if self.has_shown_removal:
                        return
                    event = await self._event_of(message)
                    if event is None:
                        continue
                    await processor.handle(event, {message.number: message.version})
                    self.unhandled_ms = None
                    await processor.flush()
                    if self._state.is_ending or self._commits.outbox.is_full:
                        return
        except Interrupted:
            self._state.log.debug("poll.interrupted")
            return
        finally:
            self._poll, self._commits.proofs = None, NO_PROOFS
        await self._finish(poll, shown_before, is_full=is_full)

    async def _finish(self, poll: Poll, shown_before: int, *, is_full: bool) -> None:
        """Apply a poll after everything that it has shown was handled.

        Args:
            poll: The poll.
            shown_before: Highest version shown by earlier polls.
            is_full: It was a full poll.
        """
        self._context.ongoing.record_success("read", place=self._state.key)
        if is_full and self._state.membership.is_reported_out:
            await self._presence.handle_joined(None)
        self.polled_ms = poll.server_time_ms
        self._shown = max(self._shown, poll.top or 0)
        self._check_activity(shown_before)
        if is_full:
            self._full_poll_at = self.run_at
            # An unchanged page has the same top: the one of the last full poll, which has handled all of it.
            self._commits.raise_base(self._commits.cursor.last_top if poll.has_read_known else poll.top)
            self._settled_page = self._settled_page if poll.has_read_known else poll.settled_page

    def _check_activity(self, shown_before: int) -> None:
        """Clear the recorded activity if the poll that has ended covers it; otherwise poll again soon.

        Args:
            shown_before: Highest version shown by earlier polls.
        """
        is_unseen = self.activity_ms is not None and self._shown < self.activity_ms
        if is_unseen or (self._is_notified and self._shown <= shown_before):
            # The reported message is not visible yet and may become visible late: poll as if it had been sent a little
            # ago. Not at the fastest interval: what is reported may never become visible, and comes from anybody.
            self.last_message_at = max(self.last_message_at, get_running_loop().time() - UNSEEN_SILENCE)
        self._is_notified = False
        # By this machine's clock too: a poll without a Date header, or a slow one, would never cover anything.
        is_late_enough = self.run_at is not None and self.run_at >= self.cover_at
        if self.activity_ms is not None and (is_late_enough or is_covered(self.activity_ms, self.polled_ms)):
            self._covered_ms, self.activity_ms, self._listed = self.activity_ms, None, None

    def _start_poll(self, is_full: bool) -> Poll:
        service, thread, budget = self._context.service, self._state.key, self._state.budget
        cursor = self._commits.cursor
        if is_full:
            catch_up = self._full_poll_at is None
            return full_poll(service, thread, cursor, budget, catch_up=catch_up, known_page=self._settled_page)
        return incremental_poll(service, thread, cursor, budget, polled_ms=self.polled_ms)

    def _note_service_time(self, poll: Poll) -> None:
        """Tell timers the service's time, before any is set or found to be due, unless the thread list tells it."""
        context = self._context
        if poll.server_time_ms is not None and not (context.conversations.has_service_time and context.owns_bot):
            context.conversations.note_service_time(poll.server_time_ms)

    def _note_batch(self, poll: Poll, batch: list[ChatMessage], *, started_at: float) -> None:
        # Until the poll ends, own messages that it has shown prove to the outbox that they were sent.
        self._commits.proofs = poll.keys
        self._context.monitor.lane_at_work(self._state.key)
        if batch:
            self._context.tracer.polled(self._state.key, get_running_loop().time() - started_at)
        self._shown = max(self._shown, *(message.version for message in batch), 0)

    def _in_order(self, batch: list[ChatMessage]) -> list[ChatMessage]:
        """Return the messages of a batch in the order of their changes."""
        cursor = self._commits.cursor
        if len(batch) < 2:  # nearly always
            return batch
        return sorted(batch, key=lambda message: order_key(cursor.classify(message), message))

    async def _is_settled_by_membership(self, message: ChatMessage, poll: Poll) -> bool:
        """Apply the bot's removals and returns that happened between polls to a message.

        Returns:
            Whether the message needs no further handling. A removal without a return ends the poll: see
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
        """Return the event of a message; None if it has none.

        An own message proves that its action was sent, whatever the request returned.
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
        if message.sender not in self._context.shared.users:
            self._context.shared.share_change(self._state.key, message.version, self._context.user)
        if self.unhandled_ms is None:
            self.unhandled_ms = message.version
            self._context.monitor.event_noticed(self._context.clock() - message.version / 1000)
        return event

    def _note_message(self, message: ChatMessage) -> None:
        """Record that the thread is active, and count the message against the thread's shared quota."""
        now = get_running_loop().time()
        self.last_message_at = now
        self._commits.receipts.count_people(message)
        if message.participants:
            self._state.people = None
        # By the service's clock, because this machine's may be wrong: the age decides in which window it counts.
        read_ms = self._poll.server_time_ms if self._poll is not None else None
        age = 0.0 if read_ms is None else (read_ms - message.version) / 1000
        if message.is_said and age < 60:
            # Another bot of this process has already counted its own message.
            change = None if message.sender in self._context.shared.users else message.version
            self._state.budget.count_other(Operation.WRITE_MESSAGE, now - max(0.0, age), change)
