"""Run the lanes of a bot: when they are due or requested, with limited concurrency.

The scheduler owns the lanes. It gives them the only two ways in which one lane reaches another: `route`, because an
action may target another thread, and `wake`.
"""

from __future__ import annotations

import math
import random
from asyncio import current_task, get_running_loop, sleep
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import Context, copy_context
from dataclasses import replace
from datetime import datetime
from typing import Final

import anyio

from chatbot.bot.commits import WriteBehind
from chatbot.bot.degraded import LANE_FAILING
from chatbot.bot.environment import NO_THREAD, BotContext
from chatbot.bot.handlers import Broadcast, HandlerRunner
from chatbot.bot.lane import Lane, LaneServices
from chatbot.bot.membership import AnswerCheck
from chatbot.bot.poll_queue import NextRun, PollQueue
from chatbot.bot.retries import AttemptJournal, retries_in
from chatbot.dispatch.author_code import Uncancelled
from chatbot.errors import kind_of
from chatbot.events import Event
from chatbot.model import ThreadId, milliseconds
from chatbot.stores.records import Attempt, OutboxRow, ThreadRecord

MAX_LANES_AT_WORK: Final = 1024
"""Maximum number of lanes at work, including those that wait for handlers: each holds its polled messages in memory."""

UNEXPECTED_ERROR_PAUSE: Final = 30.0
"""Seconds a lane pauses after an unexpected error."""


class Scheduler:
    """Runs the lanes of one bot in turns.

    Args:
        context: The bot's environment.
        handlers: Runs handlers. A lane that waits for them lets another lane run.
        attempts: Records handlers that run for long.
        write_behind: Writes data that can be delayed.

    Attributes:
        answers: Tells a refusal by one thread from trouble of the bot.
        lanes: Lanes of all known threads.
        own: The lane of events outside threads.
        working: Lanes at work, with the number of their turn.
        ended: Notified whenever a turn has ended.
        unfinished: Attempts that an earlier process recorded as started but never as ended.
    """

    def __init__(
        self, context: BotContext, handlers: HandlerRunner, attempts: AttemptJournal, write_behind: WriteBehind
    ) -> None:
        self._context = context
        self._handlers = handlers
        self._write_behind = write_behind
        self.answers = AnswerCheck(context, self.wake)
        self._services = LaneServices(context, handlers, attempts, write_behind, self.answers, self.route, self.wake)
        self._queue = _queue(context)
        self._count = 0
        self._announcing = 0
        self._requested: dict[ThreadId, float] = {}
        self._scopes: dict[ThreadId, anyio.CancelScope] = {}
        self._announcement = anyio.CancelScope()
        self._routed: set[ThreadId] = set()
        self._to_wake: set[ThreadId] = set()
        # Shared with the handler runner: a lane that starts to wait for handlers makes room for another lane.
        self._changed = handlers.changed
        self.lanes: dict[ThreadId, Lane] = {}
        self.threadless_lane = Lane(self._services, None, None)
        self.working: dict[ThreadId, int] = {}
        self.ended = Broadcast()
        self._sleeps_until = math.inf
        self.unfinished: Mapping[ThreadId, Attempt] = {}

    # ── lanes ─────────────────────────────────────────────────────────────────────────────────────────────────

    def restart(self) -> None:
        """Remove all lanes, at the start of the bot."""
        self.unfinished = {}
        self.lanes = {}
        self.answers.threads.clear()
        self._write_behind.threads.clear()
        self.restart_threadless_lane()
        self.clear()

    def restart_threadless_lane(self) -> None:
        """Replace the lane of the events outside threads by a new one, which knows the unfinished attempt there."""
        self.threadless_lane = Lane(self._services, None, None, unfinished=self.unfinished.get(NO_THREAD))

    @property
    def all_lanes(self) -> Iterator[Lane]:
        """Yield the lanes of all threads, and the lane of events outside threads."""
        yield from list(self.lanes.values())
        yield self.threadless_lane

    def open(self, thread: ThreadId, stamp: datetime | None) -> Lane:
        """Create the lane of a new thread. Its first turn checks whether the bot is in the thread.

        Args:
            thread: The thread.
            stamp: Time of its latest activity.
        """
        lane = self.lanes[thread] = Lane(self._services, thread, None, unfinished=self.unfinished.get(thread))
        lane.membership.probe(stamp)
        # A guess until more is known: a bot removed before its first start had left by the last change of the thread.
        lane.membership.left_ms = self._context.conversations.now_ms if stamp is None else milliseconds(stamp)
        self.schedule(thread)
        return lane

    def resume(
        self, record: ThreadRecord, rows: Sequence[OutboxRow], polled_ms: int | None, *, phase: float | None = None
    ) -> None:
        """Create the lane of a stored thread.

        Its first turn is immediate if work is pending. Otherwise it follows when the thread list shows a change, or at
        the idle interval.

        Args:
            record: The thread.
            rows: Its pending actions.
            polled_ms: Service time up to which it is known to be read; None if unknown.
            phase: Part of the idle interval until its first periodic poll, 0 to 1; None for a random one.
        """
        thread, unfinished = record.thread, self.unfinished.get(record.thread)
        lane = Lane(self._services, thread, record, rows=rows, unfinished=unfinished, polled_ms=polled_ms)
        self.lanes[thread] = lane
        if record.is_left:
            if (pause := lane.presence.resume()) is not None:
                self.schedule(thread, due=get_running_loop().time() + pause)
            return
        self._start_periodic_polls(thread, phase)
        if unfinished is not None or not lane.is_settled:
            self.schedule(thread)

    def lane_of(self, thread: ThreadId) -> Lane:
        """Return the lane of a thread for an action, and create it if unknown.

        A new lane counts as left: the bot is not known to be in the thread, so the action waits or fails there.
        """
        lane = self.lanes.get(thread)
        if lane is None:
            lane = self.lanes[thread] = Lane(self._services, thread, None)
            lane.membership.leave(get_running_loop().time(), 0)
        return lane

    def route(self, rows: Iterable[OutboxRow]) -> None:
        """Hand journalled rows to the outboxes of their threads; the commit has notified other owners."""
        context = self._context
        for row in rows:
            if not context.owns(row.thread):
                continue
            commits = self.lane_of(row.thread).commits
            commits.outbox.add(row, commits.proofs)
            if row.thread in self.working:
                self._routed.add(row.thread)
            else:
                self.schedule(row.thread)

    # ── lanes that come and go with shards ────────────────────────────────────────────────────────────────────────

    def release(self, is_wanted: Callable[[ThreadId], bool]) -> None:
        """Begin no new work in the lanes of these threads, and remove those that are not at work.

        A lane at work can be removed when it is not `busy` any more.

        Args:
            is_wanted: Returns whether another process is to serve a thread. `NO_THREAD` is not asked for.
        """
        for thread in [thread for thread in self.lanes if is_wanted(thread)]:
            self.lanes[thread].release()
            if thread not in self.working:
                self._queue.drop(thread)

    @property
    def busy(self) -> set[ThreadId]:
        """The threads in which a turn, or a handler that was abandoned, still runs; `NO_THREAD` is one of them."""
        abandoned = {ThreadId(thread) for user, thread in self._context.shared.abandoned if user == self._context.user}
        return {*self.working, *abandoned, *([NO_THREAD] if self._announcing else ())}

    def remove(self, thread: ThreadId) -> None:
        """Remove the lane of a thread, which another process serves from now on; a running turn is canceled."""
        lane = self.lanes.pop(thread, None)
        if lane is not None:
            lane.state.is_released = True
            self._forget(thread)
        self._cancel_turn(thread)

    def remove_threadless_lane(self) -> None:
        """Replace the lane of the events outside threads, which another process handles from now on."""
        self.threadless_lane.state.is_released = True
        self._announcement.cancel()
        self._cancel_turn(NO_THREAD)
        self._forget(NO_THREAD)
        self.restart_threadless_lane()

    def _cancel_turn(self, thread: ThreadId) -> None:
        scope = self._scopes.get(thread)
        if scope is not None:
            scope.cancel()

    def _forget(self, thread: ThreadId) -> None:
        """Forget what is kept of a thread beside its lane."""
        context = self._context
        self.answers.forget(thread)
        self._write_behind.forget(thread)
        self._queue.drop(thread)
        self._requested.pop(thread, None)
        self._routed.discard(thread)
        for work in ("read", "send", "store"):
            context.ongoing.record_success(work, place=thread)
        for place in (thread, retries_in(thread)):
            context.degraded.end(LANE_FAILING, place=place)

    def interrupt(self) -> None:
        """Interrupt polls that wait for the service; handlers continue."""
        for thread in self.working:
            lane = self._current(thread)
            if lane is not None:
                lane.interrupt()

    async def announce(self, event: Event) -> None:
        """Run the handlers of the bot's own start or stop."""
        self._announcing += 1
        try:
            with anyio.CancelScope() as self._announcement:
                await self.threadless_lane.announce(event)
        finally:
            self._announcing -= 1
            self._changed.set()
            self.ended.notify()

    @property
    def is_idle(self) -> bool:
        """Whether no work outside threads is pending."""
        is_due = self._context.conversations.is_due(None)
        return NO_THREAD not in self.working and self.threadless_lane.is_settled and not is_due

    def _lane(self, thread: ThreadId) -> Lane:
        return self.lanes[thread] if thread else self.threadless_lane

    def _current(self, thread: ThreadId) -> Lane | None:
        return self.lanes.get(thread) if thread else self.threadless_lane

    # ── when lanes run ────────────────────────────────────────────────────────────────────────────────────────

    def clear(self) -> None:
        """Remove all waiting turns; running turns continue."""
        self._queue = _queue(self._context)

    def schedule(self, thread: ThreadId, *, due: float | None = None) -> None:
        """Schedule a turn of a lane, now or at `due`. A lane at work runs again afterwards."""
        due = get_running_loop().time() if due is None else due
        if thread in self.working:
            self._requested[thread] = min(due, self._requested.get(thread, due))
        elif (lane := self._current(thread)) is not None and not lane.state.is_released:
            self._queue.request(thread, due)
            self._wake_by(due)

    def wake(self, thread: ThreadId) -> None:
        """Schedule a turn of a lane as soon as possible. Unlike `ask`, safe in event loop callbacks outside tasks."""
        self._to_wake.add(thread)
        self._changed.set()

    def _start_periodic_polls(self, thread: ThreadId, phase: float | None = None) -> None:
        """Start the periodic polls of a thread at a random time, so that the threads do not all start at once."""
        phase = random.random() if phase is None else phase  # noqa: S311 - not a secret
        self._queue.start_periodic(thread, self._context.settings.cadence.idle, get_running_loop().time(), phase=phase)
        self._changed.set()

    def schedule_idle(self, threads: Iterable[ThreadId]) -> None:
        """Schedule turns of the given lanes that are neither at work nor queued."""
        for thread in threads:
            if thread not in self.working and thread not in self._queue:
                self._queue.request(thread, get_running_loop().time())
        self._changed.set()

    def next(self) -> tuple[ThreadId, float] | None:
        """Return the thread whose turn is due first, and when; None if none waits."""
        return self._queue.first()

    @property
    def stretch(self) -> float:
        """Factor by which periodic polls are stretched because the bot has so many threads."""
        return self._queue.stretch

    @property
    def waits_for_handlers(self) -> bool:
        """Whether no lane can run before a handler ends. Lanes that wait for this do not count as late."""
        return len(self.working) >= MAX_LANES_AT_WORK or self._handlers.busy >= MAX_LANES_AT_WORK

    @property
    def _is_full(self) -> bool:
        at_work = len(self.working) + self._announcing
        return at_work - self._handlers.busy >= self._context.settings.max_turns or at_work >= MAX_LANES_AT_WORK

    # ── the loop ──────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Run lanes until canceled."""
        async with anyio.create_task_group() as group:
            while True:
                while self._to_wake:
                    self.schedule(self._to_wake.pop())
                while (lane := self._begin_turn()) is not None:
                    group.start_soon(self._turns, lane)
                await self._wait()

    def _begin_turn(self) -> Lane | None:
        """Return the lane whose turn it is, and count it as at work; None if no turn is due, or none may begin."""
        while not self._is_full and (thread := self._queue.pop(get_running_loop().time())) is not None:
            if thread in self.working:
                continue  # a canceled turn has not ended: its end starts the turns of the new lane
            self._count += 1
            self.working[thread] = self._count
            return self._lane(thread)
        return None

    async def _wait(self) -> None:
        """Sleep until the next turn is due; if none may begin, until one may."""
        is_full = self._handlers.is_room_wanted = self._is_full
        due = None if is_full else self._queue.next_due()
        self._sleeps_until = math.inf if due is None else due
        await self._changed.wait(None if due is None else max(0.0, due - get_running_loop().time()))

    def _wake_by(self, due: float | None) -> None:
        """Wake the loop if it would sleep longer than until `due`; if no turn may begin now, as soon as one may."""
        if due is None or due >= self._sleeps_until:
            return
        if self._is_full:
            self._handlers.is_room_wanted = True
        else:
            self._changed.set()

    async def _turns(self, lane: Lane) -> None:
        """Give a lane its turn, and then others while any are due: a new task for each would cost a tenth of a turn.

        An unexpected error is logged with its traceback and does not stop other lanes.
        """
        context, is_first, variables = self._context, True, copy_context()
        following: Lane | None = lane
        while following is not None:
            lane, thread, begun_at, next_run = following, following.thread, get_running_loop().time(), NextRun()
            context.monitor.lane_at_work(thread)
            try:
                with anyio.CancelScope() as scope:
                    self._scopes[thread] = scope
                    # Lost before this turn began: there was no scope to cancel, and the lane would send what is
                    # pending.
                    if self._current(thread) is lane:
                        async with Uncancelled():
                            if not is_first:  # others first, as if the task were new: a turn may end without a wait
                                await sleep(0)
                            next_run = await lane.run()
            except Exception as error:
                next_run = self._failed(lane, error)
            else:
                context.degraded.end(LANE_FAILING, place=thread)
            finally:
                # No await between here and `_schedule_next`, which may drop the lane: a turn queued in between would
                # outlive it.
                del self.working[thread], self._scopes[thread]
                context.monitor.lane_ended(thread)
            self._end_turn(lane, next_run, begun_at)
            is_first, following = False, self._following(variables)

    def _failed(self, lane: Lane, error: Exception) -> NextRun:
        context, thread = self._context, lane.thread
        lane.state.log.exception("turn.failed")
        context.report_failure(None, error)
        detail = f"{kind_of(error)} in {thread}, tried again every {UNEXPECTED_ERROR_PAUSE:.0f} s: see turn.failed"
        context.degraded.begin(LANE_FAILING, detail, get_running_loop().time(), place=thread, after=1.0)
        return NextRun(due_in=UNEXPECTED_ERROR_PAUSE)

    def _end_turn(self, lane: Lane, next_run: NextRun, begun_at: float) -> None:
        thread = lane.thread
        if self._current(thread) is lane:
            self._schedule_next(lane, next_run, begun_at)
        elif self._current(thread) is not None:  # lost and gained again, while a handler of the old turn ended
            if thread:
                self._start_periodic_polls(thread, 0.0)
            self.schedule(thread)
        self.ended.notify()

    def _following(self, variables: Context) -> Lane | None:
        """Return the lane whose turn follows in the current task; None if none is due, or the task must end.

        Args:
            variables: The context variables with which the task began.
        """
        task = current_task()
        # A foreign cancellation has failed one turn only. It still counts on the task, which ends therefore. So does a
        # context variable that a filter has set: other threads would see it, and their log might show it.
        is_spoiled = task is None or task.cancelling() or copy_context() != variables
        lane = None if is_spoiled else self._begin_turn()
        if lane is not None and self._is_full:
            self._handlers.is_room_wanted = True
        else:
            # Most turns find nothing, and the next one is due much later: the loop sleeps on.
            self._wake_by(self._queue.next_due())
        return lane

    def _schedule_next(self, lane: Lane, next_run: NextRun, begun_at: float) -> None:
        """Queue the next turn of a lane, including requests and routed rows that arrived while it was running."""
        thread, now = lane.thread, get_running_loop().time()
        if lane.state.is_released:
            return  # the lane is removed soon, and the process that owns the thread continues from the store
        requested, was_routed = self._requested.pop(thread, None), thread in self._routed
        self._routed.discard(thread)
        if was_routed and next_run.due_in is None and lane.commits.outbox:
            # Another thread routed a row here after this lane had emptied its outbox.
            # Without another turn, nothing would send it.
            next_run = replace(next_run, due_in=0.0)
        elif lane.is_finished and not lane.commits.outbox:
            self._drop(lane)
            return
        if requested is not None and (next_run != NextRun() or not thread):
            # Not immediately: each turn polls, so back-to-back turns would exhaust the quota.
            # The lane outside threads does not poll.
            earliest_turn = begun_at + self._context.settings.cadence.fast if thread else now
            pause = max(0.0, max(earliest_turn, requested) - now)
            next_run = replace(next_run, due_in=pause if next_run.due_in is None else min(next_run.due_in, pause))
        self._queue.schedule(thread, next_run, now, begun_at=begun_at)

    def _drop(self, lane: Lane) -> None:
        """Remove the lane of a thread that the bot is out of and has no pending work in."""
        for threads in (self.lanes, self.answers.threads, self._write_behind.threads):
            threads.pop(lane.thread, None)
        self._queue.drop(lane.thread)


def _queue(context: BotContext) -> PollQueue:
    return PollQueue(context.settings.cadence.rate, context.settings.cadence.idle)
