"""Join and leave threads: check the membership, store the result, and report it to the handlers.

`Membership` decides what proves a removal; this module makes the requests and handles the resulting events. Leaving
loses nothing: the cursor is kept, and pending work is parked until the bot returns or the work expires.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import anyio

from chatbot.bot.degraded import LANE_FAILING
from chatbot.bot.environment import BotContext
from chatbot.bot.membership import (
    AnswerCheck,
    Parking,
    Sighting,
    count_people,
    find_arrival,
    floor_of,
    shows_removal,
)
from chatbot.bot.poll_queue import earliest
from chatbot.bot.processor import EventProcessor
from chatbot.bot.read_receipts import ReceiptSender
from chatbot.bot.retries import TryAgain, retries_in
from chatbot.errors import Forbidden, NotFound, ServiceError
from chatbot.events import ThreadJoined, ThreadLeft
from chatbot.model import ChatMessage, MessageId
from chatbot.polling.message_events import time_of
from chatbot.service.back_off import jittered
from chatbot.service.base import is_refusal
from chatbot.service.budget import Operation
from chatbot.stores.records import ThreadRecord
from chatbot.stores.writes import EnterThread, LeaveThread, MarkJoined, SaveThread

PROBE_AFTER_START_SECONDS: Final = 10.0
"""Seconds after a start until a thread that the bot had left is probed without a sign of its return."""


class ThreadPresence:
    """Presence of a bot in one thread.

    Args:
        context: The bot's environment.
        processor: Handles the events of the thread.
        answers: Tells a refusal by this thread from trouble of the bot.
        is_new: The thread is not stored yet.
    """

    __slots__ = ("_answers", "_commits", "_context", "_processor", "_seems_deleted", "_state", "is_new")

    def __init__(self, context: BotContext, processor: EventProcessor, answers: AnswerCheck, *, is_new: bool) -> None:
        self._context = context
        self._processor = processor
        self._commits = processor.commits
        self._state = processor.commits.state
        self._answers = answers
        self._seems_deleted = False
        self.is_new = is_new

    # ── coming in ─────────────────────────────────────────────────────────────────────────────────────────────

    async def join(self) -> None:
        """Enter the thread: find where it begins for the bot and report `ThreadJoined`, or continue a stored thread."""
        context, state = self._context, self._state
        if not self.is_new:
            people = await count_people(context.service, state.key, state.budget)
            await self.expire()
            await self._enter(people)
            return
        first = context.first_started_ms
        arrival = await find_arrival(context.service, state.key, state.budget, not_before_ms=first)
        floor = floor_of(arrival.message, context.settings.history, first_started_ms=first)
        arrived = int(arrival.message) if arrival.message else None
        record = ThreadRecord(state.key, floor=floor, base=floor, arrived=arrived)
        joined_ms = arrived or int(context.clock() * 1000)
        event = ThreadJoined(
            bot=context.user, thread=state.key, occurred_on=time_of(joined_ms), arrival=arrival.message
        )
        self._commits.restart(record)
        self._commits.receipts = ReceiptSender(people=arrival.people, counted=arrival.top)
        await self._processor.handle(event, {}, SaveThread(record))
        # Only after the commit: if it fails, the next turn must join again, or the handlers would never hear of it.
        state.arrived = arrived or 0
        self.is_new = False
        state.membership.enter()
        state.membership.mark_reported_in()
        state.log.info("thread.joined", floor=floor, people=arrival.people)

    async def _enter(self, people: int) -> None:
        """Resume parked work. The next poll reports to the handlers that the bot is back."""
        state = self._state
        await self._commits.commit([EnterThread(state.key)], {})
        self._commits.receipts.recount(people, self._context.conversations.now_ms)
        state.membership.enter()
        state.log.info("thread.rejoined", people=people, parked=len(self._commits.outbox))

    async def handle_joined(self, arrival: MessageId | None) -> None:
        """Report the bot's return to the handlers.

        Args:
            arrival: System message that lists the bot as added; None if a full poll shows none.
        """
        state = self._state
        event = ThreadJoined(
            bot=self._context.user,
            thread=state.key,
            occurred_on=time_of(int(arrival)) if arrival else self._context.now,
            arrival=arrival,
            absent_since_ms=None if arrival else state.membership.left_ms,
        )
        arrived = int(arrival) if arrival else None
        await self._processor.handle(event, {}, MarkJoined(state.key, arrived))
        state.arrived = max(state.arrived, arrived or 0)
        state.membership.mark_reported_in()
        state.log.info("thread.joined", floor=self._commits.cursor.floor, people=self._commits.receipts.people)

    # ── leaving ───────────────────────────────────────────────────────────────────────────────────────────────

    async def handle_left(self, removal: ChatMessage) -> None:
        """Report an absence that is already over to the handlers.

        Args:
            removal: System message that began the absence.
        """
        event = self._thread_left(time_of(removal.number), is_deleted=False)
        await self._processor.handle(event, {removal.number: removal.version})

    async def leave(self, seen: dict[int, int], *, is_deleted: bool) -> int:
        """Park pending work and report the proven removal to the handlers, once.

        Args:
            seen: System message of the removal, as id to version; empty if there is none.
            is_deleted: The thread list shows the thread as deleted.

        Returns:
            The current time, epoch ms.
        """
        context, state, membership = self._context, self._state, self._state.membership
        now, left_ms = anyio.current_time(), context.conversations.now_ms
        for work in ("read", "send"):
            context.ongoing.record_success(work, place=state.key)
        for place in (state.key, retries_in(state.key)):
            context.degraded.end(LANE_FAILING, place=place)
        is_gone = is_deleted or self._seems_deleted
        is_news = not membership.is_out
        if not self.is_new and is_news:
            leaving = LeaveThread(state.key, left_ms)
            if membership.is_reported_out:
                await self._commits.commit([leaving], {})
            else:
                await self._processor.handle(self._thread_left(context.now, is_deleted=is_gone), seen, leaving)
        is_unknown = membership.left_ms is None
        membership.leave(now, left_ms if is_news or is_unknown else None, is_deleted=is_deleted)
        if is_news:
            state.log.info("thread.left", is_deleted=is_gone, parked=len(self._commits.outbox))
        return left_ms

    def _thread_left(self, occurred_on: datetime, *, is_deleted: bool) -> ThreadLeft:
        return ThreadLeft(
            bot=self._context.user,
            thread=self._state.key,
            occurred_on=occurred_on,
            is_deleted=is_deleted,
            floor=self._commits.stay_start,
        )

    async def check(self) -> Sighting:
        """Look for the bot in the participant list, and for its removal in the messages.

        A refusal alone proves nothing: a token of the wrong scope is refused with the same error. It counts only if the
        service answers the bot elsewhere at the same time.

        Raises:
            TryAgain: The quota forbids a request now.
            ServiceError: Neither the participant list nor the messages can be read.
        """
        context, state = self._context, self._state
        if delay := state.budget.delay(Operation.LIST_PARTICIPANTS, anyio.current_time()):
            raise TryAgain(delay)
        try:
            await count_people(context.service, state.key, state.budget)
        except (Forbidden, NotFound) as error:
            unclear: ServiceError = error
            if is_refusal(error) and await self._answers.is_answered_elsewhere(state.key):
                self._seems_deleted = isinstance(error, NotFound)
                return Sighting.ABSENT
        except ServiceError as error:
            unclear = error
        else:
            return Sighting.PRESENT
        try:
            if await shows_removal(context.service, state.key, state.budget, since=state.arrived):
                return Sighting.ABSENT
        except ServiceError as error:
            if not isinstance(error, Forbidden | NotFound):
                unclear = error
        raise unclear

    # ── outside ───────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def age(self) -> float:
        """Seconds for which the bot has been out of the thread."""
        return self._state.age(self._context.conversations.now_ms)

    def next_probe(self) -> float | None:
        """Return the seconds until the next timed probe; None if there is none."""
        if not self._context.serves(self._state.key):
            return None
        retention = self._context.settings.retention.total_seconds()
        return self._state.membership.next_probe(anyio.current_time(), self.age, retention)

    def postpone_probe(self) -> float | None:
        """Schedule the next timed probe after a failed one, and return the seconds until it."""
        self._state.membership.postpone_probe(anyio.current_time(), self.age, jittered(1.0))
        return self.next_probe()

    def resume(self) -> float | None:
        """Resume a thread that an earlier process has left; return the seconds until the first turn."""
        # Not before the thread list was read: it shows deleted threads, whose participants may still be readable.
        not_before = anyio.current_time() + PROBE_AFTER_START_SECONDS
        self._state.membership.postpone_probe(not_before, self.age, jittered(0.5, 0.0))
        expiry = self._parking.next(self.age) or 0.0 if self._is_parked else None
        return earliest(self.next_probe(), expiry)

    async def probe(self) -> bool:
        """Check whether the bot is in the thread again; return False if it is not, or if the check failed."""
        state = self._state
        if state.budget.delay(Operation.LIST_PARTICIPANTS, anyio.current_time()):
            return False
        try:
            people = await count_people(self._context.service, state.key, state.budget)
        except ServiceError:
            return False
        if self.is_new:
            state.membership.probe(None)
        else:
            await self._enter(people)
        return True

    async def expire(self) -> float | None:
        """Give up work that has waited too long for the bot's return; return the seconds until the next expiry."""
        age, outbox, conversations = self.age, self._commits.outbox, self._context.conversations
        reason = "the bot is not in the thread"
        while self._parking.expires_replies(age) and (outbox or outbox.next_failure()):
            outbox.give_up(reason)
            await self._processor.report_failures()
        if self._parking.expires_conversations(age):
            given_up = conversations.give_up(self._state.key, reason)
            if given_up:
                await self._processor.commit_dead_letters(given_up)
        return self._parking.next(age) if self._is_parked else None

    @property
    def _is_parked(self) -> bool:
        return bool(self._commits.outbox) or self._context.conversations.has_pending(self._state.key)

    @property
    def _parking(self) -> Parking:
        settings = self._context.settings
        return Parking(settings.rejoin.total_seconds(), settings.retention.total_seconds())
