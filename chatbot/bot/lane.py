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

from chatbot.bot.attempts import TryAgain
from chatbot.bot.degraded import LANE_FAILING
from chatbot.bot.handling import Handling
from chatbot.bot.joining import find_arrival, floor_of
from chatbot.bot.looking import Looking
from chatbot.bot.membership import Membership, Presence
from chatbot.bot.reading import Reading
from chatbot.bot.receipts import Receipts
from chatbot.bot.rota import Rest
from chatbot.bot.settings import NO_HISTORY
from chatbot.bot.trials import retries_in
from chatbot.errors import Forbidden, NotFound, ServiceError, StoreError, Throttled
from chatbot.events import ActionFailed, ThreadJoined, ThreadLeft
from chatbot.model import Participant, ThreadId, UserId
from chatbot.outbox.outbox import Outbox
from chatbot.polling.sightings import time_of
from chatbot.service.back_off import BackOff
from chatbot.service.budget import Budget, Operation
from chatbot.stores import erasure
from chatbot.stores.base import Attempt, DeadLetter, LeaveThread, OutboxRow, SaveThread, ThreadRecord

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
        self.membership = Membership(Presence.UNKNOWN)
        if record is not None:
            self.membership = Membership(Presence.OUT if record.is_left else Presence.IN, was_told=record.is_left)
        self.handling = Handling(bot, thread, record=record, noted=noted, outbox=self._outbox(rows), log=self.log)
        self.looking = Looking(self, looked_ms=record.base if record is not None and record.is_left else looked_ms)
        self.reading = Reading(self)
        self._letters: list[DeadLetter] = []
        self._is_deleted = False
        self._is_new = record is None
        self._back_off = BackOff()

    def _outbox(self, rows: Sequence[OutboxRow] = ()) -> Outbox:
        return Outbox(
            self.bot.service,
            self.thread,
            self.budget,
            find_row=self.bot.find_row,
            find_made=self.bot.find_made,
            clock=self.bot.clock,
            display_name=self.bot.display_name,
            slack_ms=self.bot.settings.slack_ms,
            log=self.log,
            rows=rows,
            during=self.bot.tracer.action,
            tell=self._tell_of_sending,
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

    # ── a turn ────────────────────────────────────────────────────────────────────────────────────────────────

    async def turn(self) -> Rest:
        """Do what can be done now; returns when the next turn is needed, if the doorbell does not ring before."""
        try:
            rest = await self._work()
        except TryAgain as again:
            return Rest(call=again.pause)
        except (ServiceError, StoreError) as error:
            return Rest(call=self._failed(error))
        self._back_off.succeeded()
        return rest

    async def _work(self) -> Rest:
        if self.membership.presence is Presence.OUT:
            return Rest()
        if self._is_deleted:
            await self.leave(is_deleted=True)
            return Rest()
        try:
            return await self._work_inside()
        except (Forbidden, NotFound) as error:
            await self.leave(is_deleted=isinstance(error, NotFound))
            return Rest()

    async def _work_inside(self) -> Rest:
        """A turn as it goes while the bot is in the thread."""
        pause: float | None = None
        if not self.bot.is_stopping:
            try:
                pause = await self._receive()
            except TryAgain as again:
                pause = again.pause
            if self.membership.presence is not Presence.IN:
                return Rest(call=pause)
        pause = _sooner(pause, await self._send())
        self.budget.forget(anyio.current_time())
        return Rest(call=pause, beat=None if self.bot.is_stopping else self._beat())

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
            await self.leave(is_deleted=False)
            # It may have been brought back since: the next turn asks.
            self.membership.probe(None)
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
            await self.handling.give_up_action(event, caused_by=row.caused_by)
            self.handling.outbox.drop_failure(failure)
        return pause

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.bot.clock(), UTC)

    def _beat(self) -> float:
        return self.bot.settings.cadence.pause(anyio.current_time() - self.looking.spoke_at)

    # ── joining and leaving ───────────────────────────────────────────────────────────────────────────────────

    async def _join(self) -> None:
        """Find where the thread begins for the bot, and tell the handlers."""
        first = self.bot.first_started_ms
        arrival = await find_arrival(self.bot.service, self.thread, self.budget, not_before_ms=first)
        # History is for threads that are new to the bot; one that it comes back to begins at its return.
        history = self.bot.settings.history if self._is_new else NO_HISTORY
        floor = floor_of(arrival.message, history, first_started_ms=max(first, self.handling.cursor.top))
        record = ThreadRecord(self.thread, floor=floor, base=floor)
        joined_ms = int(arrival.message) if arrival.message else int(self.bot.clock() * 1000)
        event = ThreadJoined(
            bot=self.bot.user, thread=self.thread, occurred_on=time_of(joined_ms), arrival=arrival.message
        )
        self.handling.begin(record)
        self.handling.receipts = Receipts(people=arrival.people, counted=arrival.top)
        await self.handling.handle(event, {}, SaveThread(record))
        self.looking.begin(arrived=int(arrival.message or 0))
        self._is_new = False
        self.membership.enter()
        self.log.info("thread.joined", floor=floor, people=arrival.people)

    async def leave(self, *, is_deleted: bool) -> None:
        """The bot is not in the thread any more: settle everything and tell the handlers, once."""
        now = anyio.current_time()
        for work in ("read", "send"):
            self.bot.trouble.over(work, place=self.thread)
        for place in (self.thread, retries_in(self.thread)):
            self.bot.degraded.end(LANE_FAILING, place=place)
        self.looking.unhandled_ms = None
        if self.membership.was_told:
            self.membership.leave(now)
            return
        left_ms = self.looking.looked_ms or int(self.bot.clock() * 1000)
        event = ThreadLeft(
            bot=self.bot.user,
            thread=self.thread,
            occurred_on=self._now(),
            is_deleted=is_deleted,
            floor=self.handling.cursor.floor,
        )
        reason = "the thread was deleted" if is_deleted else "the bot is not in the thread any more"
        record = ThreadRecord(self.thread, floor=self.handling.cursor.floor, base=left_ms, is_left=True)
        await self.handling.handle(event, {}, SaveThread(record), LeaveThread(self.thread, reason))
        self.handling.begin(record)
        self.handling.outbox, self.looking.looked_ms = self._outbox(), left_ms
        self._letters.clear()  # those stay in the store
        self.membership.leave(now)
        self.log.info("thread.left", is_deleted=is_deleted)

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
            self.budget.close(Operation.LIST_MESSAGES, now + pause)
        return pause


def _sooner(a: float | None, b: float | None) -> float | None:
    return b if a is None else a if b is None else min(a, b)
