"""A thread's lane: look, and for each new event run the handler, commit, and let the outbox send, all in one task.

A lane works in *turns*; between them a silent thread has no task at all. A turn never sleeps: whatever has to wait
(a quota, a back-off, a proof) ends the turn with the time of the next one. What a turn left undone it meets again
in the next, by the same way as after a crash: the cursor and the outbox know what is settled, and nothing else does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import anyio

from chatbot.bot.degraded import LANE_FAILING
from chatbot.bot.membership import (
    Membership,
    Parking,
    Presence,
    Sighting,
    count_people,
    find_arrival,
    floor_of,
    shows_removal,
)
from chatbot.bot.poll import ThreadPoller
from chatbot.bot.poll_queue import NextRun
from chatbot.bot.processor import EventProcessor
from chatbot.bot.read_receipts import ReceiptPoller, ReceiptSender
from chatbot.bot.retries import TryAgain, retries_in
from chatbot.errors import Forbidden, NotFound, OutcomeUnknown, ServiceError, StoreError, Throttled
from chatbot.events import ActionFailed, ThreadJoined, ThreadLeft
from chatbot.model import ChatMessage, MessageId, Participant, ThreadId, UserId
from chatbot.outbox.outbox import Outbox
from chatbot.polling.message_events import time_of
from chatbot.service.back_off import BackOff, jittered
from chatbot.service.base import is_refusal
from chatbot.service.budget import Budget, Operation
from chatbot.stores import erasure
from chatbot.stores.records import Attempt, DeadLetter, OutboxRow, RowStatus, ThreadRecord
from chatbot.stores.writes import BeginStay, EnterThread, LeaveThread, SaveThread, SettleRow

if TYPE_CHECKING:
    from chatbot.bot.bot import Bot

POLL_SECONDS_IN_PAUSE: Final = 1.0
"""Between two polls of a thread whose event waits for its next attempt: they only show whether the bot was removed."""


class Lane:
    """One thread of one bot.

    Args:
        bot: whose lane it is; gives service, store, dispatcher and settings.
        thread: which thread.
        record: what the store knows of it; None for a thread the bot was never in.
        rows: wishes that an earlier process left pending here.
        noted: an attempt that an earlier process noted before it died.
        looked_ms: the service's time, epoch ms, up to which an earlier process has handled everything; None if that
            is not known.
    """

    __slots__ = (
        "_back_off",
        "_is_deleted",
        "_is_new",
        "_letters",
        "_seems_deleted",
        "_suspicion",
        "arrived",
        "bot",
        "budget",
        "handling",
        "log",
        "looking",
        "membership",
        "people",
        "people_at",
        "reading",
        "thread",
    )  # fmt: skip

    def __init__(
        self,
        bot: Bot,
        thread: ThreadId,
        record: ThreadRecord | None,
        *,
        rows: Sequence[OutboxRow] = (),
        noted: Attempt | None = None,
        looked_ms: int | None = None,
    ) -> None:
        self.bot = bot
        self.thread = thread
        self.log = bot.log.bind(thread=thread)
        self.budget = Budget(shared=bot.commons.of(thread))
        self.people: tuple[Participant, ...] | None = None
        self.people_at = 0.0
        self.arrived = 0
        self.membership = Membership(Presence.UNKNOWN)
        if record is not None:
            self.arrived = record.arrived or 0
            self.membership = _membership_of(record)
        self.handling = EventProcessor(bot, thread, record=record, noted=noted, outbox=self._outbox(rows), log=self.log)
        self.looking = ThreadPoller(self, looked_ms=self.membership.left_ms if self.membership.is_out else looked_ms)
        self.reading = ReceiptPoller(self)
        self._letters: list[DeadLetter] = []
        self._is_deleted = False
        self._is_new = record is None
        self._seems_deleted = False
        self._suspicion: ServiceError | None = None
        self._back_off = BackOff()

    def _outbox(self, rows: Sequence[OutboxRow] = ()) -> Outbox:
        return Outbox(
            self.bot.service,
            self.thread,
            self.budget,
            find_row=self.bot.find_row,
            find_known_messages=self.bot.find_made,
            clock=self.bot.clock,
            display_name=self.bot.display_name,
            slack_ms=self.bot.settings.slack_ms,
            log=self.log,
            rows=rows,
            during=self.bot.tracer.action,
            report_failure=self._tell_of_sending,
        )

    def _tell_of_sending(self, error: ServiceError | None) -> None:
        if error is not None:
            self.bot.trouble.met("send", error, place=self.thread)
        else:
            self.bot.trouble.over("send", place=self.thread)

    def interrupt(self) -> None:
        """End the look that is under way, if it is waiting for the service; a handler is left to finish."""
        self.looking.interrupt()

    def end(self) -> None:
        """The list of threads shows that this one was deleted; whether it can still be read is not known."""
        self._is_deleted = True

    def revive(self, letter: DeadLetter) -> None:
        """Have a dead letter tried again in the next turn; asked twice meanwhile, it is tried once."""
        if not self._awaits(letter):
            self._letters.append(letter)

    def _awaits(self, letter: DeadLetter) -> bool:
        return any(waiting.id == letter.id for waiting in self._letters)

    def drop_letters(self, is_meant: Callable[[DeadLetter], bool]) -> None:
        """Do not try these again."""
        self._letters = [letter for letter in self._letters if not is_meant(letter)]

    def forget(self, user: UserId) -> None:
        """Erase a person from what waits here to be said or tried; the store has forgotten them already."""
        self.drop_letters(lambda letter: erasure.holds(letter, user))
        self.handling.outbox.forget(user)

    @property
    def is_settled(self) -> bool:
        """Whether nothing is owed: no wish, no receipt, no second try."""
        return self.handling.is_settled and not self._letters

    @property
    def is_owing(self) -> bool:
        """Whether something is owed that can be done now; what is parked cannot."""
        return self.membership.presence is Presence.IN and not self.handling.is_settled

    # ── a turn ────────────────────────────────────────────────────────────────────────────────────────────────

    async def turn(self) -> NextRun:
        """Do what can be done now; returns when the next turn is needed, if the doorbell does not ring before."""
        try:
            rest = await self._work()
        except TryAgain as again:
            return NextRun(call=again.pause)
        except (ServiceError, StoreError) as error:
            return NextRun(call=self._failed(error))
        self._back_off.succeeded()
        return rest

    async def _work(self) -> NextRun:
        if self._is_deleted and self.membership.presence is not Presence.DELETED:
            await self._leave(is_deleted=True)
        if self.membership.is_out:
            return await self._work_outside()
        if self.membership.presence is Presence.SUSPECTED and (rest := await self._look_for_bot()) is not None:
            return rest
        try:
            return await self._work_inside()
        except (Forbidden, NotFound) as error:
            return await self._refused(error)
        except OutcomeUnknown as error:
            # Recorded in 2024: the service answers 500, again and again, to somebody who was removed.
            if error.status != 500 or not self._back_off.has_failed or self.membership.presence is not Presence.IN:
                raise
            self.membership.suspect()
            self._suspicion = error
            return await self._look_for_bot() or NextRun(call=0.0)

    async def _work_inside(self) -> NextRun:
        """A turn as it goes while the bot is in the thread."""
        pause: float | None = None
        if not self.bot.is_stopping:
            try:
                pause = await self._receive()
            except TryAgain as again:
                pause = again.pause
        if self.membership.presence is not Presence.IN:
            return NextRun(call=pause)
        pause = _sooner(pause, await self._send())
        self.budget.expire(anyio.current_time())
        return NextRun(call=pause, beat=None if self.bot.is_stopping else self._beat())

    async def _receive(self) -> float | None:
        """Join if need be, then look and handle. Returns the seconds to wait if it is too early for that."""
        if self.membership.presence is Presence.UNKNOWN:
            await self._join()
        while self._letters:
            letter = self._letters[0]
            await self.handling.revive(letter, is_wanted=self._awaits)
            self._letters = [other for other in self._letters if other is not letter]
        if self.handling.outbox.is_full:
            return None
        self._spare_polls()
        delay = self.budget.delay(Operation.LIST_MESSAGES, anyio.current_time())
        if not delay and await self.looking.run():
            self._suspicion = None
            self.membership.suspect()
            return 0.0
        await self.handling.ring(self.flush)  # after the look: who has answered has not run out of time
        await self.reading.run()
        return delay or None

    def _spare_polls(self) -> None:
        """Poll less often while a failed event waits for its next attempt.

        Nothing behind it can be handled before, as a thread's order holds. Polls at the cadence of a lively thread
        would use up the quota of `list messages`, and the next attempt, which polls first, would have to wait for it.

        Raises:
            TryAgain: it is too early for a poll.
        """
        pause, run_at = self.handling.trials.attempts.pause_left, self.looking.run_at
        if not pause or run_at is None or self.looking.unhandled_ms is None:
            return
        wait = run_at + POLL_SECONDS_IN_PAUSE - anyio.current_time()
        if wait > 0:
            raise TryAgain(min(pause, wait))

    async def _send(self) -> float | None:
        """Let the outbox send, then the receipt; returns the seconds after which there is more to do."""
        pause = await self.flush()
        wait, write = await self.handling.receipts.send(
            self.bot.service, self.thread, self.budget, self.log, during=self.bot.tracer.receipt
        )
        if write is not None:
            self.handling.later(write)
        self.handling.defer()
        return _sooner(pause, wait)

    async def flush(self) -> float | None:
        """Let the outbox send; what it had to give up is an event like any other, and a dead letter."""
        pause = await self.handling.outbox.flush()
        await self._report_failures()
        return pause

    async def _report_failures(self) -> None:
        while (failure := self.handling.outbox.next_failure()) is not None:
            row, reason = failure
            event = ActionFailed(
                bot=self.bot.user,
                thread=self.thread,
                occurred_on=self._now(),
                action=row.action,
                action_key=row.key,
                reason=reason,
            )
            failed = SettleRow(row.key, RowStatus.FAILED, row.message, reason)
            is_told = not row.after_failure
            await self.handling.give_up_action(event, failed, caused_by=row.caused_by, is_told=is_told)
            self.handling.outbox.drop_failure(failure)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.bot.clock(), UTC)

    def _beat(self) -> float:
        return self.bot.settings.cadence.pause(anyio.current_time() - self.looking.spoke_at)

    # ── joining and leaving ───────────────────────────────────────────────────────────────────────────────────

    async def _join(self) -> None:
        """Find where the thread begins for the bot, and tell the handlers; or go on where it was left."""
        if not self._is_new:
            people = await count_people(self.bot.service, self.thread, self.budget)
            await self._expire()
            await self._enter(people)
            return
        first = self.bot.first_started_ms
        arrival = await find_arrival(self.bot.service, self.thread, self.budget, not_before_ms=first)
        floor = floor_of(arrival.message, self.bot.settings.history, first_started_ms=first)
        arrived = int(arrival.message) if arrival.message else None
        record = ThreadRecord(self.thread, floor=floor, base=floor, arrived=arrived)
        joined_ms = arrived or int(self.bot.clock() * 1000)
        event = ThreadJoined(
            bot=self.bot.user, thread=self.thread, occurred_on=time_of(joined_ms), arrival=arrival.message
        )
        self.handling.begin(record)
        self.handling.receipts = ReceiptSender(people=arrival.people, counted=arrival.top)
        await self.handling.handle(event, {}, SaveThread(record))
        self.arrived = arrived or 0
        self.looking.begin()
        self._is_new = False
        self.membership.enter()
        self.membership.told()
        self.log.info("thread.joined", floor=floor, people=arrival.people)

    async def _enter(self, people: int) -> None:
        """The bot is in again: what was parked goes on, and the next look tells the handlers."""
        await self.handling.commit([EnterThread(self.thread)], {})
        self.handling.receipts.recount(people, self.bot.conversations.now_ms)
        self.looking.begin()
        self.membership.enter()
        self.log.info("thread.reentered", people=people, parked=len(self.handling.outbox))

    @property
    def _stay(self) -> int:
        """Where the stay in hand has begun."""
        return max(self.handling.cursor.floor, self.arrived - 1)

    async def tell_left(self, removal: ChatMessage) -> None:
        """Tell the handlers of an absence that is over already; a look shows how it began."""
        event = self._thread_left(time_of(removal.number), is_deleted=False)
        await self.handling.handle(event, {removal.number: removal.version})

    async def tell_joined(self, arrival: MessageId | None) -> None:
        """Tell the handlers that the bot is in again.

        Args:
            arrival: the system message that lists it; None if a whole look shows none.
        """
        event = ThreadJoined(
            bot=self.bot.user,
            thread=self.thread,
            occurred_on=time_of(int(arrival)) if arrival else self._now(),
            arrival=arrival,
            absent_since_ms=None if arrival else self.membership.left_ms,
        )
        arrived = int(arrival) if arrival else None
        await self.handling.handle(event, {}, BeginStay(self.thread, arrived))
        self.arrived = max(self.arrived, arrived or 0)
        self.membership.told()
        self.log.info("thread.joined", floor=self.handling.cursor.floor, people=self.handling.receipts.people)

    def _thread_left(self, occurred_on: datetime, *, is_deleted: bool) -> ThreadLeft:
        return ThreadLeft(
            bot=self.bot.user,
            thread=self.thread,
            occurred_on=occurred_on,
            is_deleted=is_deleted,
            floor=self._stay,
        )

    async def _leave(self, *, is_deleted: bool, seems_deleted: bool = False) -> None:
        """It is proven that the bot is not in the thread any more: park what is pending, and tell the handlers, once.

        Args:
            is_deleted: the list of threads shows it as deleted.
            seems_deleted: the service says that it does not exist.
        """
        now, left_ms = anyio.current_time(), self.bot.conversations.now_ms
        for work in ("read", "send"):
            self.bot.trouble.over(work, place=self.thread)
        for place in (self.thread, retries_in(self.thread)):
            self.bot.degraded.end(LANE_FAILING, place=place)
        self.looking.unhandled_ms = None
        is_news = not self.membership.is_out
        if not self._is_new and is_news:
            leaving = LeaveThread(self.thread, left_ms)
            if self.membership.was_told:
                await self.handling.commit([leaving], {})
            else:
                event = self._thread_left(self._now(), is_deleted=is_deleted or seems_deleted)
                await self.handling.handle(event, self.looking.removal, leaving)
        self._letters.clear()  # those stay in the store
        self.looking.looked_ms = self.looking.looked_ms or left_ms
        is_unknown = self.membership.left_ms is None
        self.membership.leave(now, left_ms if is_news or is_unknown else None, is_deleted=is_deleted)
        if is_news:
            self.log.info("thread.left", is_deleted=is_deleted or seems_deleted, parked=len(self.handling.outbox))

    # ── suspicion ─────────────────────────────────────────────────────────────────────────────────────────────

    async def _refused(self, error: Forbidden | NotFound) -> NextRun:
        """The service refuses the thread: perhaps the bot is not in it any more.

        Raises:
            Forbidden, NotFound: it was refused for another reason.
        """
        if not is_refusal(error):
            raise error
        if self.membership.presence is Presence.UNKNOWN:
            self.membership.leave(anyio.current_time(), None, age=self._age())
            return await self._work_outside()
        self.membership.suspect()
        self._suspicion = error
        return await self._look_for_bot() or NextRun(call=0.0)

    async def _look_for_bot(self) -> NextRun | None:
        """Find out whether the bot is in the thread; None when it is, else when to go on.

        Raises:
            ErrorResponse: it is, and the service does not show its messages all the same.
            TryAgain: nothing can be said now.
        """
        if self.bot.is_stopping:
            return NextRun()
        if pause := self.membership.pause(anyio.current_time()):
            return NextRun(call=pause)
        sighting = await self._sight()
        if self.membership.sight(sighting, anyio.current_time()):
            await self._leave(is_deleted=False, seems_deleted=self._seems_deleted)
            return await self._work_outside()
        if sighting is Sighting.ABSENT:
            return NextRun(call=self.membership.pause(anyio.current_time()))
        suspicion, self._suspicion = self._suspicion, None
        self.looking.pardon()
        if self.handling.outbox.accept_refusal() or suspicion is None:
            return None
        raise suspicion

    async def _sight(self) -> Sighting:
        """Look for the bot in the thread: in the list of participants, and in what the thread says of it.

        Raises:
            TryAgain: neither can be read.
        """
        now = anyio.current_time()
        if delay := self.budget.delay(Operation.LIST_PARTICIPANTS, now):
            raise TryAgain(delay)
        try:
            await count_people(self.bot.service, self.thread, self.budget)
        except (Forbidden, NotFound) as error:
            unclear: ServiceError = error
            if is_refusal(error) and await self.bot.listening.is_answered_elsewhere(self):
                self._seems_deleted = isinstance(error, NotFound)
                return Sighting.ABSENT
        except ServiceError as error:
            unclear = error
        else:
            return Sighting.PRESENT
        try:
            if await shows_removal(self.bot.service, self.thread, self.budget, since=self.arrived):
                return Sighting.ABSENT
        except ServiceError as error:
            if not isinstance(error, Forbidden | NotFound):
                unclear = error
        raise TryAgain(self._failed(unclear))

    # ── outside ───────────────────────────────────────────────────────────────────────────────────────────────

    def _age(self) -> float:
        """For how many seconds the bot has been out of the thread."""
        left_ms = self.membership.left_ms
        return 0.0 if left_ms is None else max(0.0, (self.bot.conversations.now_ms - left_ms) / 1000)

    async def _work_outside(self) -> NextRun:
        """A turn as it goes while the bot is not in the thread: end what has waited too long, and look for the bot."""
        if self.bot.is_stopping:
            return NextRun()
        pause = await self._expire()
        if self._is_new and (self.membership.left_ms == 0 or not self.bot.serves(self.thread)):
            self.bot.end(self)
            return NextRun()
        if (probe := self._next_probe()) is not None and probe <= 0:
            if await self._probe():
                return NextRun(call=0.0)
            self.membership.put_off(anyio.current_time(), self._age(), jittered(1.0))
            probe = self._next_probe()
        return NextRun(call=_sooner(pause, probe))

    def _next_probe(self) -> float | None:
        if not self.bot.serves(self.thread):
            return None
        retention = self.bot.settings.retention.total_seconds()
        return self.membership.next_probe(anyio.current_time(), self._age(), retention)

    def resume_outside(self) -> float | None:
        """An earlier process has left the thread; gives the seconds until the next turn, None for none."""
        age = self._age()
        self.membership.put_off(anyio.current_time(), age, jittered(0.5, 0.0))
        is_parked = bool(self.handling.outbox) or self.bot.conversations.has_pending(self.thread)
        return _sooner(self._next_probe(), self._parking.next(age) or 0.0 if is_parked else None)

    @property
    def _parking(self) -> Parking:
        settings = self.bot.settings
        return Parking(settings.rejoin.total_seconds(), settings.retention.total_seconds())

    async def _expire(self) -> float | None:
        """Give up what has waited long enough for the bot to come back; gives the seconds until there is more."""
        age, outbox, conversations = self._age(), self.handling.outbox, self.bot.conversations
        reason = "the bot is not in the thread"
        while self._parking.expires_replies(age) and (outbox or outbox.next_failure()):
            outbox.give_up(reason)
            await self._report_failures()
        if self._parking.expires_conversations(age) and (given_up := conversations.give_up(self.thread, reason)):
            await self.handling.bury(given_up)
        is_parked = bool(outbox) or conversations.has_pending(self.thread)
        return self._parking.next(age) if is_parked else None

    async def _probe(self) -> bool:
        """Whether the bot is in the thread again."""
        if self.budget.delay(Operation.LIST_PARTICIPANTS, anyio.current_time()):
            return False
        try:
            people = await count_people(self.bot.service, self.thread, self.budget)
        except ServiceError:
            return False
        if self._is_new:
            self.membership.probe(None)
        else:
            await self._enter(people)
        return True

    @property
    def is_backing_off(self) -> bool:
        """Whether the thread could not be read or written, and is left alone for a while: a bell changes nothing."""
        return self._back_off.pause(anyio.current_time()) > 0

    def _failed(self, error: ServiceError | StoreError) -> float:
        now = anyio.current_time()
        work = "store" if isinstance(error, StoreError) else "read"
        self.bot.trouble.met(work, error, place=self.thread)
        pause = self._back_off.failed(error, now)
        if isinstance(error, Throttled):
            self.budget.block(Operation.LIST_MESSAGES, now + pause)
        return pause


def _membership_of(record: ThreadRecord) -> Membership:
    if not record.is_left:
        return Membership(Presence.IN, was_told=record.left_ms is not None, left_ms=record.left_ms)
    # Older stores kept the time of leaving as the base.
    left_ms = record.base if record.left_ms is None else record.left_ms
    return Membership(Presence.OUT, was_told=True, left_ms=left_ms)


def _sooner(a: float | None, b: float | None) -> float | None:
    return b if a is None else a if b is None else min(a, b)
