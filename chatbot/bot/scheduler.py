"""Has the lanes of a bot run: when their time has come, or when something asks for it, so many at a time.

The scheduler keeps the lanes. It lends them the two ways in which one lane reaches another: `route`, because an action
may go to another thread, and `wake`.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

import anyio

from chatbot.bot.commits import WriteBehind
from chatbot.bot.degraded import LANE_FAILING
from chatbot.bot.environment import NOWHERE, BotContext
from chatbot.bot.handlers import HandlerRunner
from chatbot.bot.lane import Lane, LaneServices
from chatbot.bot.membership import AnswerCheck
from chatbot.bot.poll_queue import NextRun, PollQueue
from chatbot.bot.retries import AttemptJournal
from chatbot.dispatch.author_code import uncancelled
from chatbot.errors import kind_of
from chatbot.events import Event
from chatbot.model import ThreadId, milliseconds
from chatbot.stores.records import Attempt, OutboxRow, ThreadRecord

MOST_AT_WORK: Final = 1024
"""Lanes that run at one time, those that wait for handlers included: each holds what its poll has shown."""

UNFORESEEN_PAUSE: Final = 30.0
"""Seconds a lane rests after an error that nobody foresaw."""


class Scheduler:
    """The lanes of one bot and their turns.

    Args:
        context: the bot's environment.
        handlers: runs handlers; a lane that waits for them lets another lane run.
        attempts: notes handlers that run for long.
        write_behind: writes what can wait.

    Attributes:
        answers: tells a refusal by one thread from trouble of the bot.
        lanes: the lane of each thread that is known.
        own: the lane of events outside threads.
        working: the lanes that are at work, each with the number of its turn.
        ended: set, and made anew, whenever a turn has ended.
        noted: handlers that an earlier process noted as about to run, and never as ended.
    """

    def __init__(
        self, context: BotContext, handlers: HandlerRunner, attempts: AttemptJournal, write_behind: WriteBehind
    ) -> None:
        self._context = context
        self._handlers = handlers
        self._write_behind = write_behind
        self.answers = AnswerCheck(context, self.wake)
        self._services = LaneServices(context, handlers, attempts, write_behind, self.answers, self.route, self.wake)
        self._queue = PollQueue(context.settings.cadence.rate)
        self._count = 0
        self._announcing = 0
        self._asked: dict[ThreadId, float] = {}
        self._routed: set[ThreadId] = set()
        self._to_wake: set[ThreadId] = set()
        # One signal for all: a lane that begins to wait for handlers makes room for another one.
        self._changed = handlers.changed
        self.lanes: dict[ThreadId, Lane] = {}
        self.own = Lane(self._services, None, None)
        self.working: dict[ThreadId, int] = {}
        self.ended = anyio.Event()
        self.noted: Mapping[ThreadId, Attempt] = {}

    # ── lanes ─────────────────────────────────────────────────────────────────────────────────────────────────

    def restart(self, noted: Mapping[ThreadId, Attempt]) -> None:
        """Begin without lanes, at the start of the bot.

        Args:
            noted: handlers that an earlier process noted before it died.
        """
        self.noted = noted
        self.lanes = {}
        self.answers.threads.clear()
        self._write_behind.threads.clear()
        self.own = Lane(self._services, None, None, noted=noted.get(NOWHERE))
        self.clear()

    @property
    def every_lane(self) -> Iterator[Lane]:
        """The lanes of all threads, and the one of events outside threads."""
        yield from list(self.lanes.values())
        yield self.own

    def open(self, thread: ThreadId, stamp: datetime | None) -> Lane:
        """Make the lane of a thread that nobody knew; its first turn finds out whether the bot is in it.

        Args:
            thread: which.
            stamp: its latest activity.
        """
        lane = self.lanes[thread] = Lane(self._services, thread, None, noted=self.noted.get(thread))
        lane.membership.probe(stamp)
        # As long as nothing else is known: who was removed before the first start was, when the thread last moved.
        lane.membership.left_ms = self._context.conversations.now_ms if stamp is None else milliseconds(stamp)
        self.ask(thread)
        return lane

    def resume(self, record: ThreadRecord, rows: Sequence[OutboxRow], looked_ms: int | None) -> None:
        """Make the lane of a thread that the store knows.

        Its first turn comes at once if it owes something, soon if the list of threads shows that it has moved, or at
        its slow interval.
        """
        thread, noted = record.thread, self.noted.get(record.thread)
        lane = Lane(self._services, thread, record, rows=rows, noted=noted, looked_ms=looked_ms)
        self.lanes[thread] = lane
        if record.is_left:
            if (pause := lane.presence.resume()) is not None:
                self.ask(thread, due=anyio.current_time() + pause)
            return
        self._spread(thread)
        if noted is not None or not lane.is_settled:
            self.ask(thread)

    def lane_of(self, thread: ThreadId) -> Lane:
        """Return the lane of a thread that something is to be done in; where the bot is not in, that will fail."""
        lane = self.lanes.get(thread)
        if lane is None:
            lane = self.lanes[thread] = Lane(self._services, thread, None)
            lane.membership.leave(anyio.current_time(), 0)
        return lane

    def route(self, rows: Iterable[OutboxRow]) -> None:
        """Hand journalled rows to the outboxes of their threads."""
        for row in rows:
            commits = self.lane_of(row.thread).commits
            commits.outbox.add(row, commits.proofs)
            if row.thread in self.working:
                self._routed.add(row.thread)
            else:
                self.ask(row.thread)

    def interrupt(self) -> None:
        """End the polls that wait for the service; handlers are left to finish."""
        for thread in self.working:
            self._lane(thread).interrupt()

    async def announce(self, event: Event) -> None:
        """Tell the handlers of the bot's own start or stop."""
        self._announcing += 1
        try:
            await self.own.announce(event)
        finally:
            self._announcing -= 1

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing is to be handled outside threads."""
        is_due = self._context.conversations.is_due(None)
        return NOWHERE not in self.working and self.own.is_settled and not is_due

    def _lane(self, thread: ThreadId) -> Lane:
        return self.lanes[thread] if thread else self.own

    # ── when lanes run ────────────────────────────────────────────────────────────────────────────────────────

    def clear(self) -> None:
        """Let nobody wait for a turn any more; turns in hand go on."""
        self._queue = PollQueue(self._context.settings.cadence.rate)

    def ask(self, thread: ThreadId, *, due: float | None = None) -> None:
        """Have a lane run as soon as possible, or when it is due; one that is running runs again soon after."""
        due = anyio.current_time() if due is None else due
        if thread in self.working:
            self._asked[thread] = min(due, self._asked.get(thread, due))
        elif thread in self.lanes or thread == NOWHERE:
            self._queue.call(thread, due)
            self._changed.set()

    def wake(self, thread: ThreadId) -> None:
        """Have a lane run as soon as possible; in callbacks of the event loop, too, where no task runs."""
        self._to_wake.add(thread)
        self._changed.set()

    def _spread(self, thread: ThreadId) -> None:
        """Poll a thread at a random time within its first pause, so that threads do not all begin at once."""
        phase = random.random()  # noqa: S311 - not a secret
        self._queue.spread(thread, self._context.settings.cadence.idle, anyio.current_time(), phase=phase)
        self._changed.set()

    def ask_idle(self, threads: Iterable[ThreadId]) -> None:
        """Have those of these lanes run that are not at work and wait for no turn."""
        for thread in threads:
            if thread not in self.working and thread not in self._queue:
                self._queue.call(thread, anyio.current_time())
        self._changed.set()

    def next(self) -> tuple[ThreadId, float] | None:
        """Return the thread whose turn is due first, and when; None while none waits for one."""
        return self._queue.first()

    @property
    def stretch(self) -> float:
        """By how much polls that nothing asked for are rarer than the cadence says, as there are so many threads."""
        return self._queue.stretch

    @property
    def waits_for_handlers(self) -> bool:
        """Whether no lane can run before a handler ends: that is up to their author, and no lane is late."""
        return len(self.working) >= MOST_AT_WORK or self._handlers.busy >= MOST_AT_WORK

    @property
    def _is_full(self) -> bool:
        at_work = len(self.working) + self._announcing
        return at_work - self._handlers.busy >= self._context.settings.max_turns or at_work >= MOST_AT_WORK

    # ── the loop ──────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Run lanes until canceled."""
        async with anyio.create_task_group() as group:
            while True:
                now = anyio.current_time()
                while self._to_wake:
                    self.ask(self._to_wake.pop())
                while not self._is_full and (thread := self._queue.take(now)) is not None:
                    self._count += 1
                    self.working[thread] = self._count
                    group.start_soon(self._turn, self._lane(thread))
                await self._wait()

    async def _wait(self) -> None:
        due = self._queue.next_due()
        if due is None or self._is_full:
            await self._changed.wait()
            return
        with anyio.move_on_after(max(0.0, due - anyio.current_time())):
            await self._changed.wait()

    async def _turn(self, lane: Lane) -> None:
        """Run one lane; an error that nobody foresaw is logged with its traceback and does not stop the others."""
        context, thread = self._context, lane.thread
        next_run = NextRun()
        context.monitor.lane_at_work(thread)
        try:
            next_run = await uncancelled(lane.run())
        except Exception as error:
            lane.state.log.exception("turn.failed")
            context.report_failure(None, error)
            next_run = NextRun(call=UNFORESEEN_PAUSE)
            detail = f"{kind_of(error)} in {thread}, tried again every {UNFORESEEN_PAUSE:.0f} s: see turn.failed"
            context.degraded.begin(LANE_FAILING, detail, anyio.current_time(), place=thread, after=1.0)
        else:
            context.degraded.end(LANE_FAILING, place=thread)
        finally:
            del self.working[thread]
            context.monitor.lane_ended(thread)
        self._rest(lane, next_run)
        self._changed.set()
        self.note_end()

    def _rest(self, lane: Lane, next_run: NextRun) -> None:
        """Queue the next turn of a lane, with what was asked for and routed while it was running."""
        thread, now = lane.thread, anyio.current_time()
        asked, was_routed = self._asked.pop(thread, None), thread in self._routed
        self._routed.discard(thread)
        if was_routed and next_run.call is None and lane.commits.outbox:
            # A row of another thread came after this lane had sent what it had.
            next_run = replace(next_run, call=0.0)
        elif lane.is_over and not lane.commits.outbox:
            self._drop(lane)
            return
        if asked is not None and (next_run != NextRun() or not thread):
            # Asked for again only after a while: each turn polls. Outside threads nothing is polled.
            least = self._context.settings.cadence.interval if thread else 0.0
            pause = max(least, asked - now)
            next_run = replace(next_run, call=pause if next_run.call is None else min(next_run.call, pause))
        self._queue.rest(thread, next_run, now)

    def _drop(self, lane: Lane) -> None:
        """Forget a thread that the bot is not in and has nothing to do with."""
        for threads in (self.lanes, self.answers.threads, self._write_behind.threads):
            threads.pop(lane.thread, None)
        self._queue.rest(lane.thread, NextRun(), anyio.current_time())

    def note_end(self) -> None:
        """Let whoever waits for lanes look again."""
        self.ended.set()
        self.ended = anyio.Event()
