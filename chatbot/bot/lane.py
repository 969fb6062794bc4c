"""Lane of a thread: poll, run the handler of each new event, commit, and let the outbox send, all in one task.

A lane works in *turns*. Between turns, a silent thread has no task. A turn never sleeps: if it must wait for a quota, a
back-off or a proof, it ends and returns the time of the next turn. The next turn finds unfinished work in the same way
as after a crash: only the cursor and the outbox record what is settled.

One lane serves the events outside threads: the bot's start and stop, and its schedules. It neither polls nor sends.
Retries and guards are the same as in other lanes.
"""

from __future__ import annotations

from asyncio import get_running_loop
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from typing import Final

import anyio
from msgspec import Struct

from chatbot.bot.commits import ThreadCommits, WriteBehind
from chatbot.bot.environment import BotContext
from chatbot.bot.handlers import HandlerRunner
from chatbot.bot.membership import AnswerCheck, Presence, Sighting, ThreadState
from chatbot.bot.poll import ThreadPoller
from chatbot.bot.poll_queue import NextRun, earliest
from chatbot.bot.presence import ThreadPresence
from chatbot.bot.processor import EventProcessor
from chatbot.bot.read_receipts import ReceiptPoller
from chatbot.bot.retries import AttemptJournal, RetryLoop, TryAgain
from chatbot.errors import Forbidden, NotFound, NotOwner, OutcomeUnknown, ServiceError, StoreError, Throttled
from chatbot.events import Event
from chatbot.model import ThreadId, UserId
from chatbot.service.back_off import BackOff
from chatbot.service.base import is_refusal
from chatbot.service.budget import Operation
from chatbot.stores import erasure
from chatbot.stores.records import Attempt, DeadLetter, OutboxRow, ThreadRecord

POLL_SECONDS_IN_PAUSE: Final = 1.0
"""Minimum seconds between polls while an event waits for its next attempt; they only detect a removal of the bot."""


NOT_OWNER_PAUSE: Final = 1.0
"""Seconds until the next turn of a lane whose commit was refused; before that, the thread is usually lost."""

_NOT_EXCLUSIVE: Final = nullcontext()


class LaneServices(Struct, frozen=True):
    """Services shared by the lanes of one bot.

    Args:
        context: The bot's environment.
        handlers: Runs handlers.
        attempts: Records handlers that run for long.
        write_behind: Writes data that can be delayed.
        answers: Tells a refusal by one thread from trouble of the bot.
        route: Hands rows to the outboxes of their threads.
        wake: Schedules a turn of a thread's lane; safe in event loop callbacks.
    """

    context: BotContext
    handlers: HandlerRunner
    attempts: AttemptJournal
    write_behind: WriteBehind
    answers: AnswerCheck
    route: Callable[[Sequence[OutboxRow]], None]
    wake: Callable[[ThreadId], None]


class Lane:
    """Lane of one thread, or of the events outside threads.

    Args:
        services: Services shared by the lanes of the bot.
        thread: The thread; None for events outside threads.
        record: The stored record; None for a thread that the bot was never in.
        rows: Pending actions of an earlier process.
        unfinished: Attempt that an earlier process recorded as started but never as ended.
        polled_ms: Service time, epoch ms, up to which an earlier process has handled everything; None if unknown.

    Attributes:
        thread: Key of the thread.
        is_finished: No work is left, and the lane can be removed.
    """

    __slots__ = (
        "_back_off", "_context", "_exclusive", "_is_deleted", "_letters", "_suspicion",
        "commits", "is_finished", "membership", "poller", "presence", "processor", "receipts", "state", "thread",
    )  # fmt: skip

    def __init__(
        self,
        services: LaneServices,
        thread: ThreadId | None,
        record: ThreadRecord | None,
        *,
        rows: Sequence[OutboxRow] = (),
        unfinished: Attempt | None = None,
        polled_ms: int | None = None,
    ) -> None:
        context, handlers = services.context, services.handlers
        self._context = context
        self.state = ThreadState(context, thread, record)
        self.thread = self.state.key
        self.membership = self.state.membership
        self.commits = ThreadCommits(context, self.state, services.write_behind, record=record, rows=rows)
        retries = RetryLoop(context, handlers, services.attempts, self.commits, unfinished, services.wake)
        self.processor = EventProcessor(context, self.commits, retries, services.write_behind, services.route)
        self.presence = ThreadPresence(context, self.processor, services.answers, is_new=record is None)
        polled_ms = self.membership.left_ms if self.membership.is_out else polled_ms
        self.poller = ThreadPoller(context, self.commits, self.presence, polled_ms=polled_ms)
        self.receipts = ReceiptPoller(context, handlers, self.state)
        if thread is not None:
            services.answers.threads[thread] = self.state
        self.is_finished = False
        self._exclusive: AbstractAsyncContextManager[object] = _NOT_EXCLUSIVE if thread else anyio.Lock()
        self._letters: Sequence[DeadLetter] = ()
        self._is_deleted = False
        self._suspicion: ServiceError | None = None
        self._back_off: BackOff | None = None

    @property
    def retries(self) -> RetryLoop:
        """Retry loop of this lane's handlers."""
        return self.processor.retries

    @property
    def is_settled(self) -> bool:
        """Whether no action, receipt or dead-letter retry is pending."""
        return self.commits.is_settled and not self._letters

    def release(self) -> None:
        """Begin no new work: the event in hand is finished, and what can be sent now is sent."""
        self.state.is_released = True
        self.poller.interrupt()

    @property
    def has_pending_work(self) -> bool:
        """Whether an action or receipt is pending and can be sent here, because the bot is in the thread."""
        is_here = self.membership.presence is Presence.IN and not self.state.is_released
        return is_here and not self.commits.is_settled

    @property
    def is_backing_off(self) -> bool:
        """Whether a failure of this thread delays its next turn, regardless of the thread list."""
        return self._back_off is not None and self._back_off.pause(get_running_loop().time()) > 0

    def interrupt(self) -> None:
        """Interrupt a poll that waits for the service; a running handler continues."""
        self.poller.interrupt()

    def mark_deleted(self) -> None:
        """Record that the thread list shows this thread as deleted. Whether it can still be read is unknown."""
        self._is_deleted = True

    # ── dead letters and erasure ──────────────────────────────────────────────────────────────────────────────

    def retry_letter(self, letter: DeadLetter) -> None:
        """Retry a dead letter in the next turn; repeated requests before that count once."""
        if not self.is_waiting(letter):
            self._letters = (*self._letters, letter)

    def is_waiting(self, letter: DeadLetter) -> bool:
        """Return whether a retry of a dead letter is requested, or is being made."""
        return any(waiting.id == letter.id for waiting in self._letters)

    def drop_letters(self, is_meant: Callable[[DeadLetter], bool]) -> None:
        """Cancel the requested retries of these dead letters."""
        self._letters = tuple(letter for letter in self._letters if not is_meant(letter))

    def erase(self, user: UserId) -> None:
        """Erase a person from pending actions and retries; the store has erased them already."""
        self.drop_letters(lambda letter: erasure.holds(letter, user))
        self.commits.outbox.erase(user)

    # ── a turn ────────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> NextRun:
        """Do the work that is possible now, and return when the next turn is due."""
        try:
            next_run = await (self._work() if self.state.thread else self._work_outside_threads())
        except TryAgain as again:
            next_run = NextRun(due_in=again.pause)
        except NotOwner:
            return NextRun(due_in=NOT_OWNER_PAUSE)  # no failure: the process that owns the thread does the work
        except (ServiceError, StoreError) as error:
            next_run = NextRun(due_in=self._failed(error))
        else:
            if self._back_off is not None:
                self._back_off.succeeded()
            return next_run
        # A turn that ends early has not done it. A stop stores only what is scheduled, and there may be no next turn.
        self.commits.schedule_writes()
        return next_run

    async def _work(self) -> NextRun:
        presence = self.membership.presence
        if self._is_deleted and presence is not Presence.DELETED:
            await self._leave(is_deleted=True)
        if self.membership.is_out:
            return await self._work_while_out()
        if presence is Presence.SUSPECTED and (next_run := await self._check_membership()) is not None:
            return next_run
        try:
            pause = None if self.state.is_ending else await self._receive()
            is_in = self.membership.presence is Presence.IN
            sent_in = await self._send() if is_in else None
            pause = earliest(earliest(pause, sent_in), self._activity_pause(pause))
            if not is_in or self.state.is_ending:
                return NextRun(due_in=pause)
            return NextRun(due_in=pause, poll_in=self._poll_pause())
        except (Forbidden, NotFound) as error:
            return await self._refused(error)
        except OutcomeUnknown as error:
            # Recorded in 2024: the service keeps answering 500 to a removed participant.
            has_failed = self._back_off is not None and self._back_off.has_failed
            if error.status != 500 or not has_failed or self.membership.presence is not Presence.IN:
                raise
            self.membership.suspect()
            self._suspicion = error
            return await self._check_membership() or NextRun(due_in=0.0)

    async def _receive(self) -> float | None:
        """Join if necessary, then poll and handle. Return the seconds to wait if the quota forbids a poll now."""
        try:
            if self.membership.presence is Presence.UNKNOWN:
                await self.presence.join()
                self.poller.restart()
            while self._letters:
                await self._try_letter()
            if self.commits.outbox.is_full:
                return None
            self._limit_polls()
            delay = self.state.budget.delay(Operation.LIST_MESSAGES, get_running_loop().time())
            if not delay:
                await self.poller.run(self.processor)
                if self.poller.has_shown_removal:
                    self._suspicion = None
                    self.membership.suspect()
                    return 0.0
            await self.processor.handle_due()  # after the poll, because it may have shown the answer to a due timeout
            await self._poll_receipts()
        except TryAgain as again:  # actions are sent although an event waits for its next attempt
            return again.pause
        return delay or None

    def _activity_pause(self, pause: float | None) -> float | None:
        """Return the seconds until a poll for what was recorded of the thread; None if none is needed.

        Nothing may wait between this and the end of the turn: what is recorded while a lane is at work schedules no
        turn, and would be forgotten until the idle poll.

        Args:
            pause: Seconds after which what was to be received is tried again; None if it was received.
        """
        if self.state.is_ending or (pause is not None and self.poller.unhandled_ms is not None):
            return None  # the message that failed is handled before anything that a poll could show
        now = get_running_loop().time()
        due = self.poller.next_poll(now)
        return None if due is None else max(due, self.state.budget.delay(Operation.LIST_MESSAGES, now))

    def _limit_polls(self) -> None:
        """Poll less often while a failed event waits for its next attempt.

        Events are handled in thread order, so later events cannot be handled before it. Polls at the cadence of an
        active thread would exhaust the quota of `list messages`, and delay the next attempt, which polls first.

        Raises:
            TryAgain: It is too early for a poll.
        """
        pause, run_at = self.retries.attempts.pause_left, self.poller.run_at
        if not pause or run_at is None or self.poller.unhandled_ms is None:
            return
        wait = run_at + POLL_SECONDS_IN_PAUSE - get_running_loop().time()
        if wait > 0:
            raise TryAgain(min(pause, wait))

    async def _try_letter(self) -> None:
        letter = self._letters[0]
        await self.processor.retry_letter(letter, is_wanted=self.is_waiting)
        self._letters = tuple(other for other in self._letters if other is not letter)

    async def _send(self) -> float | None:
        """Send pending actions, then the receipt; return the seconds until more can be sent."""
        pause = await self.processor.flush()
        if self.commits.receipts.is_due:
            wait, write = await self.commits.receipts.send(
                self._context.service,
                self.thread,
                self.state.budget,
                self.state.log,
                during=self._context.tracer.receipt,
            )
            pause = earliest(pause, wait)
            if write is not None:
                self.commits.defer(write)
        self.commits.schedule_writes()
        return pause

    def _poll_pause(self) -> float:
        cadence, silence = self._context.settings.cadence, get_running_loop().time() - self.poller.last_message_at
        pause = cadence.pause(silence)
        if pause < cadence.idle and (others := self._context.shared.others_in(self.thread)):
            # What one of them sees wakes the others, and their thread lists are polled in turn. So together they need
            # no more polls than one bot alone, and leave what the quota of the thread allows for polls on demand.
            pause = min(cadence.idle, pause * (others + 1) ** 2)
        return pause

    def _failed(self, error: ServiceError | StoreError) -> float:
        now = get_running_loop().time()
        work = "store" if isinstance(error, StoreError) else "read"
        self._context.ongoing.record_failure(work, error, place=self.thread)
        self._back_off = self._back_off or BackOff()
        pause = self._back_off.failed(error, now, Operation.LIST_MESSAGES)
        if isinstance(error, Throttled):
            self.state.budget.block(Operation.LIST_MESSAGES, now + pause)
        return pause

    # ── receipts of others ────────────────────────────────────────────────────────────────────────────────────

    async def _poll_receipts(self) -> None:
        if not self._wants_receipts:
            return
        receipts = await self.receipts.poll(self._receipt_floor)
        async with aclosing(self.receipts.events(receipts, self._receipt_floor)) as events:
            async for event, write in events:
                if self.state.is_ending or self.commits.outbox.is_full:
                    return
                await self.processor.handle(event, {}, write)
                await self.processor.flush()

    def has_new_receipts(self, latest: Mapping[UserId, int]) -> bool:
        """Return whether any of these receipts is new to handlers that subscribe to receipts.

        Args:
            latest: Number of the last message that each participant has read.
        """
        return self.receipts.has_news(latest, self._receipt_floor) and self._wants_receipts

    @property
    def _wants_receipts(self) -> bool:
        return self.receipts.is_wanted(self.poller.last_message_at, self.commits.receipts.people)

    @property
    def _receipt_floor(self) -> int:
        return max(self.commits.cursor.floor, self.state.arrived)

    # ── whether the bot is in the thread ──────────────────────────────────────────────────────────────────────

    async def _leave(self, *, is_deleted: bool) -> None:
        self.poller.unhandled_ms = None
        left_ms = await self.presence.leave(self.poller.removal, is_deleted=is_deleted)
        self._letters = ()  # they stay in the store
        self.poller.polled_ms = self.poller.polled_ms or left_ms

    async def _refused(self, error: Forbidden | NotFound) -> NextRun:
        """Check whether the service refuses the thread because the bot was removed.

        Raises:
            Forbidden, NotFound: The refusal has another reason.
        """
        if not is_refusal(error):
            raise error
        if self.membership.presence is Presence.UNKNOWN:
            self.membership.leave(get_running_loop().time(), None, age=self.presence.age)
            return await self._work_while_out()
        self.membership.suspect()
        self._suspicion = error
        return await self._check_membership() or NextRun(due_in=0.0)

    async def _check_membership(self) -> NextRun | None:
        """Check whether the bot is in the thread; return None if it is, otherwise the next turn.

        Raises:
            ServiceError: The bot is in the thread, but the service refuses its messages.
            TryAgain: The check is not possible now.
        """
        if self.state.is_ending:
            return NextRun()
        if pause := self.membership.pause(get_running_loop().time()):
            return NextRun(due_in=pause)
        try:
            sighting = await self.presence.check()
        except ServiceError as error:
            raise TryAgain(self._failed(error)) from error
        # A single sighting is not enough: an outdated participant list would make the bot leave a thread that it is in.
        if self.membership.apply_sighting(sighting, get_running_loop().time()):
            await self._leave(is_deleted=False)
            return await self._work_while_out()
        if sighting is Sighting.ABSENT:
            return NextRun(due_in=self.membership.pause(get_running_loop().time()))
        suspicion, self._suspicion = self._suspicion, None
        self.poller.ignore_removal()
        if self.commits.outbox.accept_refusal() or suspicion is None:
            return None
        raise suspicion

    async def _work_while_out(self) -> NextRun:
        """Expire work that has waited too long for the bot's return, and probe the membership when that is due."""
        if self.state.is_ending:
            return NextRun()
        pause = await self.presence.expire()
        is_known = not self.presence.is_new
        if not is_known and (self.membership.left_ms == 0 or not self._context.serves(self.thread)):
            self.is_finished = True
            return NextRun()
        self.is_finished = False
        probe = self.presence.next_probe()
        if probe is not None and probe <= 0:
            if await self.presence.probe():
                self.poller.restart()
                return NextRun(due_in=0.0)
            probe = self.presence.postpone_probe()
        if not self.membership.is_out:  # the thread list has shown a change meanwhile, perhaps the bot's return
            return NextRun(due_in=0.0)
        return NextRun(due_in=earliest(pause, probe))

    # ── outside threads ───────────────────────────────────────────────────────────────────────────────────────

    async def announce(self, event: Event) -> None:
        """Run the handlers of the bot's own start or stop. A failure is logged and not retried."""
        try:
            async with self._exclusive:
                await self.processor.handle(event, {})
        except (TryAgain, NotOwner):
            pass
        except StoreError as error:
            self._context.ongoing.record_failure("store", error)

    async def _work_outside_threads(self) -> NextRun:
        while not self.state.is_ending and await self._handle_next():
            pass
        return NextRun()

    async def _handle_next(self) -> bool:
        """Handle one due event or letter, and return whether there was one; `announce` may run between two of them."""
        async with self._exclusive:
            if not self._letters:
                return await self.processor.handle_next_due()
            await self._try_letter()
            return True
