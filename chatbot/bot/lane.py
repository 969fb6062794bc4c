"""A thread's lane: poll, and for each new event run the handler, commit, and let the outbox send, all in one task.

A lane works in *turns*; between them a silent thread has no task at all. A turn never sleeps: whatever has to wait
(a quota, a back-off, a proof) ends the turn with the time of the next one. What a turn left undone the next one finds
again, in the same way as after a crash: the cursor and the outbox know what is settled, and nothing else does.

One lane serves the events outside threads: the bot's start and stop, and its schedules. It polls nothing and sends
nothing itself; everything else, the retries and the guards among it, is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from dataclasses import dataclass
from typing import Final

import anyio

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
from chatbot.errors import Forbidden, NotFound, OutcomeUnknown, ServiceError, StoreError, Throttled
from chatbot.events import Event
from chatbot.model import ThreadId, UserId
from chatbot.service.back_off import BackOff
from chatbot.service.base import is_refusal
from chatbot.service.budget import Operation
from chatbot.stores import erasure
from chatbot.stores.records import Attempt, DeadLetter, OutboxRow, ThreadRecord

POLL_SECONDS_IN_PAUSE: Final = 1.0
"""Between two polls of a thread whose event waits for its next attempt: they only show whether the bot was removed."""


@dataclass(frozen=True, slots=True)
class LaneServices:
    """What the lanes of one bot share.

    Args:
        context: the bot's environment.
        handlers: runs handlers.
        attempts: notes handlers that run for long.
        write_behind: writes what can wait.
        answers: tells a refusal by one thread from trouble of the bot.
        route: hands rows to the outboxes of their threads.
        wake: gives a thread's lane a turn; in callbacks of the event loop, too.
    """

    context: BotContext
    handlers: HandlerRunner
    attempts: AttemptJournal
    write_behind: WriteBehind
    answers: AnswerCheck
    route: Callable[[Sequence[OutboxRow]], None]
    wake: Callable[[ThreadId], None]


class Lane:
    """One thread of one bot, or what happens outside threads.

    Args:
        services: what the lanes of the bot share.
        thread: which thread; None for events outside threads.
        record: what the store knows of it; None for a thread the bot was never in.
        rows: actions that an earlier process left pending here.
        unfinished: an attempt that an earlier process noted before it died.
        polled_ms: the service's time, epoch ms, up to which an earlier process has handled everything; None if that
            is not known.

    Attributes:
        thread: the thread's key.
        is_finished: nothing more is to be done here; the lane may go.
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
        self._exclusive: AbstractAsyncContextManager[object] = nullcontext() if thread else anyio.Lock()
        self._letters: list[DeadLetter] = []
        self._is_deleted = False
        self._suspicion: ServiceError | None = None
        self._back_off = BackOff()

    @property
    def retries(self) -> RetryLoop:
        """What runs the handlers of this lane."""
        return self.processor.retries

    @property
    def is_settled(self) -> bool:
        """Whether nothing is owed: no action, no receipt, no further attempt at a dead letter."""
        return self.commits.is_settled and not self._letters

    @property
    def has_pending_work(self) -> bool:
        """Whether something is owed that can be done now; what is parked cannot."""
        return self.membership.presence is Presence.IN and not self.commits.is_settled

    @property
    def is_backing_off(self) -> bool:
        """Whether the thread could not be read or written, and is left alone for a while, whatever the list says."""
        return self._back_off.pause(anyio.current_time()) > 0

    def interrupt(self) -> None:
        """End the poll that is under way, if it is waiting for the service; a handler is left to finish."""
        self.poller.interrupt()

    def mark_deleted(self) -> None:
        """Note that the list of threads shows this one as deleted; whether it can still be read is not known."""
        self._is_deleted = True

    # ── dead letters and erasure ──────────────────────────────────────────────────────────────────────────────

    def retry_letter(self, letter: DeadLetter) -> None:
        """Have a dead letter tried again in the next turn; asked twice meanwhile, it is tried once."""
        if not self._is_waiting(letter):
            self._letters.append(letter)

    def _is_waiting(self, letter: DeadLetter) -> bool:
        return any(waiting.id == letter.id for waiting in self._letters)

    def drop_letters(self, is_meant: Callable[[DeadLetter], bool]) -> None:
        """Do not try these again."""
        self._letters = [letter for letter in self._letters if not is_meant(letter)]

    def erase(self, user: UserId) -> None:
        """Erase a person from what waits here to be sent or tried; the store has erased them already."""
        self.drop_letters(lambda letter: erasure.holds(letter, user))
        self.commits.outbox.erase(user)

    # ── a turn ────────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> NextRun:
        """Do what can be done now; return when the next turn is needed if nothing asks for one before."""
        try:
            next_run = await (self._work() if self.state.thread else self._work_outside_threads())
        except TryAgain as again:
            return NextRun(due_in=again.pause)
        except (ServiceError, StoreError) as error:
            return NextRun(due_in=self._failed(error))
        self._back_off.succeeded()
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
            pause = None if self._context.is_stopping else await self._receive()
            if self.membership.presence is not Presence.IN:
                return NextRun(due_in=pause)
            pause = earliest(pause, await self._send())
            self.state.budget.expire(anyio.current_time())
            return NextRun(due_in=pause, poll_in=None if self._context.is_stopping else self._poll_pause())
        except (Forbidden, NotFound) as error:
            return await self._refused(error)
        except OutcomeUnknown as error:
            # Recorded in 2024: the service answers 500, again and again, to somebody who was removed.
            if error.status != 500 or not self._back_off.has_failed or self.membership.presence is not Presence.IN:
                raise
            self.membership.suspect()
            self._suspicion = error
            return await self._check_membership() or NextRun(due_in=0.0)

    async def _receive(self) -> float | None:
        """Join if need be, then poll and handle. Return the seconds to wait if it is too early for that."""
        try:
            if self.membership.presence is Presence.UNKNOWN:
                await self.presence.join()
                self.poller.restart()
            while self._letters:
                await self._try_letter()
            if self.commits.outbox.is_full:
                return None
            self._limit_polls()
            delay = self.state.budget.delay(Operation.LIST_MESSAGES, anyio.current_time())
            if not delay:
                async with aclosing(self.poller.events()) as events:
                    async for event, seen in events:
                        await self.processor.handle(event, seen)
                        self.poller.unhandled_ms = None
                        await self.processor.flush()
                if self.poller.has_shown_removal:
                    self._suspicion = None
                    self.membership.suspect()
                    return 0.0
            await self.processor.handle_due()  # after the poll: who has answered has not run out of time
            await self._poll_receipts()
        except TryAgain as again:  # an event that waits for its next attempt does not keep actions from being sent
            return again.pause
        return delay or None

    def _limit_polls(self) -> None:
        """Poll less often while a failed event waits for its next attempt.

        Nothing behind it can be handled before, as a thread's order holds. Polls at the cadence of a lively thread
        would use up the quota of `list messages`, and the next attempt, which polls first, would have to wait for it.

        Raises:
            TryAgain: it is too early for a poll.
        """
        pause, run_at = self.retries.attempts.pause_left, self.poller.run_at
        if not pause or run_at is None or self.poller.unhandled_ms is None:
            return
        wait = run_at + POLL_SECONDS_IN_PAUSE - anyio.current_time()
        if wait > 0:
            raise TryAgain(min(pause, wait))

    async def _try_letter(self) -> None:
        letter = self._letters[0]
        await self.processor.retry_letter(letter, is_wanted=self._is_waiting)
        self._letters = [other for other in self._letters if other is not letter]

    async def _send(self) -> float | None:
        """Let the outbox send, then the receipt; return the seconds after which there is more to do."""
        pause = await self.processor.flush()
        wait, write = await self.commits.receipts.send(
            self._context.service,
            self.thread,
            self.state.budget,
            self.state.log,
            during=self._context.tracer.receipt,
        )
        if write is not None:
            self.commits.defer(write)
        self.commits.schedule_writes()
        return earliest(pause, wait)

    def _poll_pause(self) -> float:
        return self._context.settings.cadence.pause(anyio.current_time() - self.poller.last_message_at)

    def _failed(self, error: ServiceError | StoreError) -> float:
        now = anyio.current_time()
        work = "store" if isinstance(error, StoreError) else "read"
        self._context.ongoing.record_failure(work, error, place=self.thread)
        pause = self._back_off.failed(error, now)
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
                if self._context.is_stopping or self.commits.outbox.is_full:
                    return
                await self.processor.handle(event, {}, write)
                await self.processor.flush()

    def has_new_receipts(self, latest: Mapping[UserId, int]) -> bool:
        """Return whether handlers want to know of one of these and do not yet.

        Args:
            latest: the number of the latest message that each person has read.
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
        self._letters.clear()  # those stay in the store
        self.poller.polled_ms = self.poller.polled_ms or left_ms

    async def _refused(self, error: Forbidden | NotFound) -> NextRun:
        """Find out whether the service refuses the thread because the bot is not in it any more.

        Raises:
            Forbidden, NotFound: it was refused for another reason.
        """
        if not is_refusal(error):
            raise error
        if self.membership.presence is Presence.UNKNOWN:
            self.membership.leave(anyio.current_time(), None, age=self.presence.age)
            return await self._work_while_out()
        self.membership.suspect()
        self._suspicion = error
        return await self._check_membership() or NextRun(due_in=0.0)

    async def _check_membership(self) -> NextRun | None:
        """Find out whether the bot is in the thread; return None when it is, else when to go on.

        Raises:
            ServiceError: it is, and the service does not show its messages all the same.
            TryAgain: nothing can be told now.
        """
        if self._context.is_stopping:
            return NextRun()
        if pause := self.membership.pause(anyio.current_time()):
            return NextRun(due_in=pause)
        try:
            sighting = await self.presence.check()
        except ServiceError as error:
            raise TryAgain(self._failed(error)) from error
        # One sighting is not enough: a list that lags behind would make the bot leave a thread that it is in.
        if self.membership.apply_sighting(sighting, anyio.current_time()):
            await self._leave(is_deleted=False)
            return await self._work_while_out()
        if sighting is Sighting.ABSENT:
            return NextRun(due_in=self.membership.pause(anyio.current_time()))
        suspicion, self._suspicion = self._suspicion, None
        self.poller.ignore_removal()
        if self.commits.outbox.accept_refusal() or suspicion is None:
            return None
        raise suspicion

    async def _work_while_out(self) -> NextRun:
        """End what has waited too long for the bot to come back, and look for the bot."""
        if self._context.is_stopping:
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
        return NextRun(due_in=earliest(pause, probe))

    # ── outside threads ───────────────────────────────────────────────────────────────────────────────────────

    async def announce(self, event: Event) -> None:
        """Tell the handlers of the bot's own start or stop; a failure is logged, and not repeated."""
        try:
            async with self._exclusive:
                await self.processor.handle(event, {})
        except TryAgain:
            pass
        except StoreError as error:
            self._context.ongoing.record_failure("store", error)

    async def _work_outside_threads(self) -> NextRun:
        while not self._context.is_stopping and await self._handle_next():
            pass
        return NextRun()

    async def _handle_next(self) -> bool:
        """Handle one thing, if there is one; `announce` may come between two."""
        async with self._exclusive:
            if not self._letters:
                return await self.processor.handle_next_due()
            await self._try_letter()
            return True
