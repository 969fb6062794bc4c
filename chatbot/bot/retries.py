"""Count the attempts at an event, and decide after a failure: another attempt, or a dead letter.

Attempts are counted in memory. After a process that died, each lane also records an attempt in the store *before*
its handler runs, until an event of this kind is committed: a handler that kills the process also ends as a dead letter.
Handlers that were running when the process died run one at a time from then on, so that only the handler at fault is
counted again. A handler that was waiting for its next attempt is not counted.

A handler that runs for more than a minute is always recorded. If a process that was asked to stop ends while such a
handler runs, the handler was *cut off*. Cut-offs are counted separately, because a restart is not the handler's fault.

`Attempts` counts, `RetryLoop` decides. The caller of the loop passes a function that commits and adds its own writes to
the transaction. If a state was changed since the handler read it, the handler runs again at once.
"""

from __future__ import annotations

from asyncio import get_running_loop
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeAlias

import anyio

from chatbot.actions import KeyedAction, SendMessage
from chatbot.bot.commits import ThreadCommits
from chatbot.bot.degraded import LANE_FAILING, LASTING_SECONDS
from chatbot.bot.environment import BotContext
from chatbot.bot.handlers import HandlerRunner
from chatbot.bot.live_channel import ThreadLiveChannel, broken_streams
from chatbot.dispatch import Outcome
from chatbot.dispatch.author_code import SLOW_SECONDS, Abandoned, RunLimits, RunningCode
from chatbot.errors import CannotStore, NotOwner, StoreConflict, StoreError, described, kind_of
from chatbot.events import ActionFailed, BotStarted, Event
from chatbot.model import ThreadId, UserId
from chatbot.service.back_off import jittered
from chatbot.service.budget import AbandonedHandler
from chatbot.stores.records import Attempt, DeadLetter, Progress, letter_id
from chatbot.stores.writes import BeginAttempt, EndAttempt, SaveDeadLetter, Write

MAX_KILLS: Final = 3
"""Maximum number of process deaths while one handler runs."""

MAX_CUTS: Final = 5
"""Maximum number of stops that cut off one handler that has run for more than a minute or has ignored cancellation."""


class TryAgain(Exception):
    """The current event must be retried after a pause.

    Args:
        pause: Seconds.
    """

    def __init__(self, pause: float) -> None:
        super().__init__(f"try again in {pause:g} s")
        self.pause = pause


MAX_FAILING: Final = 16
"""Maximum number of events of a lane whose failures are counted: one message and one timer wait at a time, but those
that are deleted or canceled meanwhile are never tried again."""


@dataclass(slots=True)
class _Failures:
    """Failures of one event.

    Args:
        count: Their number.
        not_before: When the next attempt may begin, in seconds of the event loop's clock.
    """

    count: int = 0
    not_before: float = 0.0


class Attempts:
    """Attempts of one lane at its current event, and at those that wait for their next attempt.

    Args:
        thread: Key of the lane's thread.
        unfinished: Attempt that an earlier process recorded before it died.
        is_suspicious: The last process died, so handlers are recorded until those of their kind have proved harmless.

    Attributes:
        handler: The handler or error handler that is recorded.
        is_recorded: The running attempt is recorded in the store.
    """

    __slots__ = (
        "_event_key",
        "_failures",
        "_has_begun",
        "_is_suspicious",
        "_proven",
        "_thread",
        "_unfinished",
        "handler",
        "is_recorded",
    )

    def __init__(self, thread: ThreadId, unfinished: Attempt | None, *, is_suspicious: bool) -> None:
        self._thread = thread
        self._unfinished = unfinished
        self._has_begun = False
        self.is_recorded = False
        self._event_key = ""
        self.handler = ""
        self._failures: dict[str, _Failures] = {}
        self._is_suspicious = is_suspicious or unfinished is not None
        self._proven: frozenset[str] = frozenset()

    def suspects(self, event: Event) -> bool:
        """Return whether the handler of this event may have killed the last process.

        Events of one kind come in order: the first after a start is the one that ran when the process died. What is
        committed of another kind proves nothing; otherwise, a timer that kills the process would never be given up
        in a thread where people talk.
        """
        return self._is_suspicious and _kind(event.key) not in self._proven

    def check_pause(self, event: Event) -> None:
        """Check that the event's pause is over.

        Raises:
            TryAgain: It is not.
        """
        failures, now = self._failures.get(event.key), get_running_loop().time()
        if failures is not None and now < failures.not_before:
            raise TryAgain(failures.not_before - now)

    @property
    def pause_left(self) -> float:
        """Seconds until the event that failed last may be retried; 0 if it may be now, or if there is none."""
        failures = self._failures.get(self._event_key)
        return 0.0 if failures is None else max(0.0, failures.not_before - get_running_loop().time())

    def kills(self, event: Event) -> int:
        """Return how often a process has died while the handler of this event ran."""
        return self._of(event).count

    def cuts(self, event: Event) -> int:
        """Return how often a stop has cut off the handler of this event."""
        return self._of(event).cuts

    def _of(self, event: Event) -> Attempt:
        known = self._unfinished
        return known if known is not None and known.event_key == event.key else Attempt(event.key, 0)

    def last_handler(self, event: Event) -> str:
        """Return the handler that ran when an earlier process died or was stopped; "" if unknown."""
        return self._of(event).handler

    def record_start(self, event: Event, handler: str) -> BeginAttempt:
        """Return the write to commit before a handler of a suspicious lane runs."""
        self.handler = handler
        return self._record(event, Progress.RUNNING)

    def record_long_running(self, event: Event) -> BeginAttempt:
        """Return the write that records a handler that has run for more than a minute or has ignored cancellation."""
        return self._record(event, Progress.LONG)

    def _record(self, event: Event, progress: Progress) -> BeginAttempt:
        self._has_begun = self.is_recorded = True
        return BeginAttempt(self._thread, replace(self._of(event), progress=progress, handler=self.handler))

    def clear_record(self, event: Event) -> Write:
        """Return the write that clears the record after a failure: the process survived this attempt."""
        self.is_recorded = False
        known = self._of(event)
        if not (known.count or known.cuts):
            return self._forget_or_restore(event)
        return BeginAttempt(self._thread, known)

    def _forget_or_restore(self, event: Event) -> Write:
        """Return the write that ends the record of an event, of which a lane has one at a time."""
        other = self._unfinished_of_another_kind(event)
        return EndAttempt(self._thread) if other is None else BeginAttempt(self._thread, other)

    def _unfinished_of_another_kind(self, event: Event) -> Attempt | None:
        """Return the unfinished attempt that the commit of an event does not end; None if there is none."""
        known = self._unfinished
        return None if known is None or _kind(known.event_key) == _kind(event.key) else known

    def number(self, event: Event) -> int:
        """Return the number of the next attempt at this event, from 1."""
        failures = self._failures.get(event.key)
        return self.kills(event) + (failures.count if failures is not None else 0) + 1

    def failed(self, event: Event) -> int:
        """Count a failure; return its number, from 1."""
        if event.key not in self._failures and len(self._failures) >= MAX_FAILING:
            self._failures.pop(next(iter(self._failures)))
        self._event_key = event.key
        failures = self._failures.setdefault(event.key, _Failures())
        failures.count += 1
        return failures.count

    def retry_after(self, pause: float) -> TryAgain:
        """Return the exception that makes the lane retry the event that failed last after this pause."""
        self._failures[self._event_key].not_before = get_running_loop().time() + pause
        return TryAgain(pause)

    def end(self, event: Event) -> list[Write]:
        """Return the writes for the commit that ends the attempt."""
        return [self._forget_or_restore(event)] if self._has_begun or self._unfinished else []

    def committed(self, event: Event) -> None:
        """Reset after that commit has succeeded; events of this kind are no longer suspicious.

        The failures of other events stay counted: in a thread where much is said, a timer that keeps failing would
        otherwise be retried for ever.
        """
        self._failures.pop(event.key, None)
        self._has_begun = self.is_recorded = False
        if self._is_suspicious:
            self._proven |= {_kind(event.key)}
            self._unfinished = self._unfinished_of_another_kind(event)


def _kind(event_key: str) -> str:
    """Return what events come in order with one of this key: "" for messages, otherwise for example "timer"."""
    kind, colon, _ = event_key.partition(":")
    return kind if colon else ""


ABANDONED_PAUSE: Final = 30.0
"""Seconds until the next turn of a lane with an abandoned handler, unless the handler ends earlier."""

MAX_CONFLICTS: Final = 10
"""Maximum number of immediate repetitions after a state conflict; then it counts as a failure of the store."""

Commit: TypeAlias = Callable[[Outcome, Sequence[Write]], Awaitable[None]]
"""Commits the outcome of an event, together with further writes."""


class AttemptJournal:
    """Journal shared by the retry loops of one bot: records long-running handlers, and serializes suspects.

    Args:
        context: The bot's environment.

    Attributes:
        suspect: Held while a handler runs that was running when an earlier process died. Such handlers run one at a
            time, so that the next death shows which of them is at fault.
    """

    def __init__(self, context: BotContext) -> None:
        self._context = context
        self._unrecorded: list[tuple[RetryLoop, RunningCode]] = []
        self._changed = anyio.Event()
        self.suspect = anyio.Lock()

    def add_long_running(self, loop: RetryLoop, running: RunningCode) -> None:
        """Queue a long-running handler to be recorded in the store; safe in event loop callbacks."""
        self._unrecorded.append((loop, running))
        self._changed.set()

    async def run(self) -> None:
        """Record queued long-running handlers, until canceled."""
        while True:
            await self._changed.wait()
            self._changed = anyio.Event()
            unrecorded, self._unrecorded = self._unrecorded, []
            for loop in [loop for loop, running in unrecorded if not running.task.done()]:
                try:
                    await loop.record_long_running()
                except NotOwner:
                    pass  # the handler is being canceled
                except StoreError as error:
                    self._context.ongoing.record_failure("store", error)


class RetryLoop:
    """Runs handlers on the events of one thread until each event is committed or given up.

    Args:
        context: The bot's environment.
        handlers: Runs the handlers.
        journal: Shared by the retry loops of the bot.
        commits: Cursor, outbox and receipts of the thread.
        unfinished: Attempt that an earlier process recorded before it died.
        wake: Schedules a turn of a thread's lane; safe in event loop callbacks.
    """

    __slots__ = (
        "_commits",
        "_context",
        "_current",
        "_handlers",
        "_journal",
        "_outcome",
        "_outcome_of",
        "_running",
        "_state",
        "_wake",
        "attempts",
    )  # fmt: skip

    def __init__(
        self,
        context: BotContext,
        handlers: HandlerRunner,
        journal: AttemptJournal,
        commits: ThreadCommits,
        unfinished: Attempt | None,
        wake: Callable[[ThreadId], None],
    ) -> None:
        self._context = context
        self._handlers = handlers
        self._journal = journal
        self._commits = commits
        self._state = commits.state
        self._wake = wake
        self._current: tuple[Event, float] | None = None
        self._running: RunningCode | None = None
        self._outcome: tuple[str, Outcome] | None = None
        self._outcome_of: Event | None = None
        self.attempts = Attempts(self._state.key, unfinished, is_suspicious=context.is_suspicious(self._state.key))

    async def run(self, event: Event, commit: Commit) -> None:
        """Run the handlers on an event and commit the outcome.

        Raises:
            TryAgain: The handler failed and will be retried; nothing was committed.
            StoreError: Nothing was committed.
        """
        self.check_not_abandoned()
        self.attempts.check_pause(event)
        for repetition in range(MAX_CONFLICTS + 1):
            try:
                with self._context.tracer.attempt(event, self.attempts.number(event)):
                    outcome = await self._clear_record(event, await self.attempt(event))
                    outcome = await self._committed(event, outcome, commit)
                    if outcome.error is not None:
                        await self._retry_or_give_up(event, outcome, outcome.error, commit)
                    self._context.degraded.end(LANE_FAILING, place=retries_in(self._state.thread))
                    return
            except StoreConflict as conflict:
                # Another commit has changed a state that the handler had read, so its results are stale. None of them
                # was written. The handler computes them again at once; this is no failure of it.
                if repetition == MAX_CONFLICTS:
                    raise
                self._state.log.info("handler.repeated", event_key=event.key, reason=str(conflict))
                if self.attempts.is_recorded:
                    await self._commit(self.attempts.clear_record(event))

    async def _clear_record(self, event: Event, outcome: Outcome) -> Outcome:
        """Clear the record of a failed handler: the process survived, so the attempt must not count as a kill."""
        if outcome.error is not None and self.attempts.is_recorded:
            await self._commit(self.attempts.clear_record(event))
        return outcome

    def check_not_abandoned(self) -> None:
        """Check that no abandoned handler still runs in this thread.

        Raises:
            TryAgain: One does; the lane gets a turn as soon as it ends.
        """
        if (self._context.user, self._state.key) in self._context.shared.abandoned:
            raise TryAgain(ABANDONED_PAUSE)

    async def handle(self, event: Event) -> Outcome:
        """Run the handlers on an event.

        Raises:
            TryAgain: An abandoned handler still runs here, possibly the one that was just started.
        """
        self.check_not_abandoned()
        if self._outcome is not None and self._outcome[0] == event.key:
            (_, outcome), self._outcome, self._outcome_of = self._outcome, None, None
            return outcome

        def begin() -> None:
            self._current = event, get_running_loop().time()

        try:
            outcome = await self._handlers.handle(
                event, self._limits(event), channel=self._channel(event), before=begin
            )
        finally:
            self._current = self._running = None
        return self._unless_abandoned(event, outcome)

    def is_long_running(self, now: float) -> bool:
        """Return whether a handler has run for more than a minute here, or was abandoned. Thread-safe."""
        current = self._current
        is_abandoned = (self._context.user, self._state.key) in self._context.shared.abandoned
        return is_abandoned or (current is not None and now - current[1] > SLOW_SECONDS)

    def long_running_write(self) -> Write | None:
        """Return the write that records the current handler as long-running; None if no handler runs."""
        current, abandoned = self._current, self._outcome_of
        event = current[0] if current is not None else abandoned
        return None if event is None else self.attempts.record_long_running(event)

    async def record_long_running(self) -> None:
        """Record the current handler in the store as long-running.

        Raises:
            StoreError: Nothing was written.
        """
        write = self.long_running_write()
        if write is not None:
            await self._commit(write)

    async def _commit(self, write: Write) -> None:
        await self._context.commit([write], threads=(self._state.key,))

    async def _give_up(self, event: Event, outcome: Outcome) -> Outcome:
        return await self._handlers.give_up(event, outcome, self._limits(event), channel=self._channel(event))

    def _channel(self, event: Event) -> ThreadLiveChannel | None:
        return None if self._state.thread is None else ThreadLiveChannel(self._context, self._commits, event)

    def _limits(self, event: Event) -> RunLimits:
        # Handlers of the start have no time limit: the resources that they wait for may take long.
        timeout = None if isinstance(event, BotStarted) else self._context.settings.timeout
        before = partial(self._record_start, event) if self.attempts.suspects(event) else None
        return RunLimits(
            timeout,
            partial(self._slow, event),
            partial(self._abandoned, event),
            self._begun,
            before,
            self._context.tracer.considered,
        )

    def _begun(self, running: RunningCode) -> None:
        self._running = running

    def running(self, now: float) -> str | None:
        """Return a description of the handler that runs here; None if there is none. Thread-safe."""
        current, running = self._current, self._running
        if current is None or running is None or running.task.done():
            return None
        where = f"in thread {self._state.thread}" if self._state.thread else "in no thread"
        return f"{running.owner.name} ({running.owner.place}) {where} for {now - current[1]:.0f} s"

    def _unless_abandoned(self, event: Event, outcome: Outcome) -> Outcome:
        """Return the outcome. The outcome of an abandoned handler is kept until the handler has ended."""
        if isinstance(outcome.error, Abandoned) and not outcome.error.running.task.done():
            self._outcome, self._outcome_of = (event.key, outcome), event
            raise TryAgain(ABANDONED_PAUSE)
        return outcome

    def _slow(self, event: Event, running: RunningCode) -> None:
        owner = running.owner
        self._state.log.warning(
            "handler.delayed",
            handler=owner.name,
            place=owner.place,
            event_type=type(event).__name__,
            event_key=event.key,
            seconds=SLOW_SECONDS,
        )
        self._context.monitor.slow(event, owner.name, owner.place)
        self.attempts.handler = owner.name
        self._journal.add_long_running(self, running)

    def _abandoned(self, event: Event, running: RunningCode) -> None:
        """Block the lane, in this bot and in one that replaces it, until the abandoned handler ends.

        The handler may still act. Handling the next event in parallel would break the thread's order. Giving up the
        event at once could leave both a dead letter and the late effects of the handler.
        """
        shared, owner = self._context.shared, running.owner
        key = (self._context.user, self._state.key)
        shared.abandoned[key] = AbandonedHandler(owner.name, owner.place, running.now)
        self._state.log.error(
            "handler.abandoned",
            handler=owner.name,
            place=owner.place,
            event_type=type(event).__name__,
            event_key=event.key,
            hint="it did not end after it was canceled; this thread handles no other event until it ends",
        )
        self._context.monitor.abandoned(owner.name)
        self.attempts.handler = owner.name
        self._journal.add_long_running(self, running)

        def ended(_task: object) -> None:
            shared.abandoned.pop(key, None)
            self._state.log.info("handler.ended", handler=owner.name, event_key=event.key)
            self._wake(self._state.key)

        running.task.add_done_callback(ended)

    async def attempt(self, event: Event) -> Outcome:
        """Run the handlers, unless they have killed the process or were cut off too often.

        Raises:
            TryAgain: An abandoned handler still runs here.
            StoreError: The attempt could not be recorded; the handler did not run.
        """
        attempts = self.attempts
        if not attempts.suspects(event):
            return await self.handle(event)
        if attempts.kills(event) >= MAX_KILLS:
            return _killed_by(attempts.last_handler(event))
        if attempts.cuts(event) >= MAX_CUTS:
            return _cut_off(attempts.last_handler(event))
        # Only handlers that were running at a kill take turns: other handlers must not wait for slow ones.
        async with self._journal.suspect if attempts.kills(event) else nullcontext():
            return await self.handle(event)

    async def _record_start(self, event: Event, handler: str) -> None:
        """Record a handler of a suspicious lane in the store before it runs."""
        await self._commit(self.attempts.record_start(event, handler))

    async def _retry_or_give_up(self, event: Event, outcome: Outcome, error: Exception, commit: Commit) -> None:
        """Schedule another attempt at a failed event, or make it a dead letter after its last attempt.

        Raises:
            TryAgain: The event is retried after a pause.
            StoreError: Nothing was committed.
        """
        count = self.attempts.failed(event)
        if not outcome.is_final and count < outcome.retry.attempts:
            pause = jittered(outcome.retry.pause(count))
            self._state.log.debug("handler.retried", event_key=event.key, attempt=count, pause=round(pause, 1))
            detail = f"{outcome.handler} failed with {kind_of(error)} in attempt {count}, and is retried"
            self._context.degraded.begin(
                LANE_FAILING,
                detail,
                get_running_loop().time(),
                place=retries_in(self._state.thread),
                after=LASTING_SECONDS,
            )
            raise self.attempts.retry_after(pause)
        self._context.degraded.end(LANE_FAILING, place=retries_in(self._state.thread))
        count = max(count, self.attempts.kills(event))
        # After a handler that has killed the process, no error handler runs: it may be what kills the process. Without
        # an error none takes the event, and the person gets the apology.
        is_deadly = self.attempts.kills(event) >= MAX_KILLS or self.attempts.cuts(event) >= MAX_CUTS
        last_words = await self._give_up(event, outcome._replace(error=None) if is_deadly else outcome)
        # An unfinished streamed text always gets a note: the reply of an error handler, or the default one.
        broken = await broken_streams(self._context, self._commits, event, outcome, count)
        if last_words.handler != outcome.handler:
            broken += await broken_streams(self._context, self._commits, event, last_words, count)
        if last_words.error is not None:  # reported, and of no handler: what is said instead belongs to the commit
            last_words = Outcome(last_words.keyed_actions, last_words.handler, receipt=last_words.receipt)
        letter = self.letter(event, outcome, count)
        if not any(isinstance(keyed.action, SendMessage) for keyed in last_words.keyed_actions):
            last_words = last_words._replace(keyed_actions=(*broken, *last_words.keyed_actions))
        await self.settle(event, last_words, commit, [*outcome.writes, letter], [letter], broken)

    async def try_once(self, event: Event, commit: Commit, *, number: int) -> Outcome:
        """Run the handlers once and commit the outcome; return it, or the failure, which is not committed.

        Args:
            event: The event.
            commit: Commits the outcome.
            number: Number of the attempt, from 1.

        Raises:
            StoreError: Nothing was committed.
        """
        with self._context.tracer.attempt(event, number):
            outcome = await self._clear_record(event, await self.handle(event))
            return await self._committed(event, outcome, commit)

    async def settle(
        self,
        event: Event,
        outcome: Outcome,
        commit: Commit,
        writes: Sequence[Write],
        fallback: Sequence[Write],
        broken: tuple[KeyedAction, ...] = (),
    ) -> None:
        """Commit the final outcome of an event, or `fallback` if that outcome cannot be committed.

        The notes about interrupted streams are committed with `fallback` as well.

        Raises:
            StoreError: Nothing was committed.
        """
        committed = await self._committed(event, outcome, commit, writes) if outcome.error is None else outcome
        if committed.error is not None:
            await commit(Outcome(broken), fallback)

    async def _committed(self, event: Event, outcome: Outcome, commit: Commit, writes: Sequence[Write] = ()) -> Outcome:
        """Commit an outcome. Output that cannot be processed is a failure of the handler, not of the lane.

        Everything computed from a handler's output belongs in `commit`: rows, pieces, keys, stored forms. Only errors
        of the store itself are raised: they are not the handler's fault, and the next poll shows the event again.
        """
        if outcome.error is not None:
            return outcome
        try:
            await commit(outcome, writes)
        except CannotStore as error:
            failed = outcome._replace(keyed_actions=(), error=error, is_final=True, writes=(), receipt=None)
        except StoreError:
            raise
        except Exception as error:
            failed = outcome._replace(keyed_actions=(), error=error, writes=(), receipt=None)
        else:
            return outcome
        assert failed.error is not None
        if self.attempts.is_recorded:
            await self._commit(self.attempts.clear_record(event))
        self._handlers.report_failure(event, failed.handler, failed.error)
        return failed

    def letter(self, event: Event, outcome: Outcome, attempts: int, caused_by: UserId | None = None) -> SaveDeadLetter:
        """Return the write that stores an event as a dead letter, and log it."""
        assert outcome.error is not None
        letter = DeadLetter(
            id=letter_id(self._context.user, self._state.thread, event.key),
            event=event,
            handler=outcome.handler or "",
            error=f"{described(outcome.error)}\n".splitlines()[0][:500],
            attempts=attempts,
            died_ms=int(self._context.clock() * 1000),
            caused_by=caused_by,
        )
        self._context.monitor.dead_lettered()
        # A handler's error text may quote people, so only its class is logged; a service's reason does not.
        reason = event.reason if isinstance(event, ActionFailed) else kind_of(outcome.error)
        self._state.log.error(
            "event.dead_lettered",
            letter=letter.id,
            event_key=event.key,
            handler=letter.handler,
            attempts=attempts,
            reason=reason,
        )
        return SaveDeadLetter(letter)


def retries_in(thread: ThreadId | None) -> str:
    """Return the place under which retries of this thread are reported as a degraded reason."""
    return f"{thread or ''} retries"


def _killed_by(handler: str) -> Outcome:
    text = f"the process died {MAX_KILLS} times while this event was being handled"
    return Outcome(handler=handler, error=RuntimeError(text), is_final=True)


def _cut_off(handler: str) -> Outcome:
    text = (
        f"{MAX_CUTS} stops of the process interrupted this handler, which had run for more than a minute or had not"
        " ended after it was canceled"
    )
    return Outcome(handler=handler, error=RuntimeError(text), is_final=True)
