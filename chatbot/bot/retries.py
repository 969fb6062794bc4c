"""How often the event in hand was tried, and what comes after a failure: another attempt, or a dead letter.

In an unbroken process the count is kept here. After a process that died in the middle of something, each lane notes
an attempt in the store *before* its handler runs, until one of its commits has succeeded: a handler that kills the
process ends as a dead letter too. Whatever was running when the process died again runs alone from then on, so that
only the guilty one is counted further; one that waits for its next attempt when the process is killed is not to blame.

A handler that runs for more than a minute is noted in any process. A process that was told to stop and is ended while
such a handler runs has *cut it off*, which is counted apart: restarting bots kills nobody.

`Attempts` counts, `RetryLoop` decides. Whoever lends the loop a way to commit says what else belongs into the
transaction. If a commit finds that a state was changed since the handler read it, the handler runs again at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
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
from chatbot.errors import CannotStore, StoreConflict, StoreError, described, kind_of
from chatbot.events import ActionFailed, BotStarted, Event
from chatbot.model import ThreadId, UserId
from chatbot.service.back_off import jittered
from chatbot.service.budget import AbandonedHandler
from chatbot.stores.records import Attempt, DeadLetter, Progress, letter_id
from chatbot.stores.writes import BeginAttempt, EndAttempt, SaveDeadLetter, Write

MAX_KILLS: Final = 3
"""How often a process may die while one handler runs."""

MAX_CUTS: Final = 5
"""How often a stop may cut off one handler that had run for more than a minute, or did not end when canceled."""


class TryAgain(Exception):
    """The handler of the event in hand failed and is to be tried again after a pause.

    Args:
        pause: seconds.
    """

    def __init__(self, pause: float) -> None:
        super().__init__(f"try again in {pause:g} s")
        self.pause = pause


class Attempts:
    """The attempts at the event in hand, of one lane.

    Args:
        thread: whose lane.
        unfinished: what an earlier process noted before it died.
        is_suspicious: the last process died, and nothing was committed here since.

    Attributes:
        handler: the handler, or error handler, that notes are about.
    """

    __slots__ = (
        "_event_key",
        "_failures",
        "_has_begun",
        "_not_before",
        "_thread",
        "_unfinished",
        "handler",
        "is_recorded",
        "is_suspicious",
    )

    def __init__(self, thread: ThreadId, unfinished: Attempt | None, *, is_suspicious: bool) -> None:
        self._thread = thread
        self._unfinished = unfinished
        self._has_begun = False
        self.is_recorded = False
        self._event_key = ""
        self.handler = ""
        self._failures = 0
        self._not_before = 0.0
        self.is_suspicious = is_suspicious or unfinished is not None

    def check_pause(self, event: Event) -> None:
        """Let nobody try before its time.

        Raises:
            TryAgain: it is too early.
        """
        now = anyio.current_time()
        if event.key == self._event_key and now < self._not_before:
            raise TryAgain(self._not_before - now)

    @property
    def pause_left(self) -> float:
        """Seconds until the event in hand may be tried again; 0 when it may be now, or none is."""
        return max(0.0, self._not_before - anyio.current_time())

    def kills(self, event: Event) -> int:
        """How often an earlier process has died in the handler of this event."""
        return self._of(event).count

    def cuts(self, event: Event) -> int:
        """How often an earlier process was stopped while the handler of this event had run for long."""
        return self._of(event).cuts

    def _of(self, event: Event) -> Attempt:
        return (
            self._unfinished if self._unfinished and self._unfinished.event_key == event.key else Attempt(event.key, 0)
        )

    def last_handler(self, event: Event) -> str:
        """The handler that ran when an earlier process died, or was stopped, over this event; "" if none is known."""
        return self._of(event).handler

    def record_start(self, event: Event, handler: str) -> BeginAttempt:
        """What to write before a handler of a suspicious lane runs."""
        self.handler = handler
        return self._record(event, Progress.RUNNING)

    def record_long_running(self, event: Event) -> BeginAttempt:
        """What to write when the handler has run for more than a minute, or did not end when canceled."""
        return self._record(event, Progress.LONG)

    def _record(self, event: Event, progress: Progress) -> BeginAttempt:
        self._has_begun = self.is_recorded = True
        return BeginAttempt(self._thread, replace(self._of(event), progress=progress, handler=self.handler))

    def clear_record(self, event: Event) -> Write:
        """What to write when a noted handler has failed but the process lives: this attempt was no kill."""
        self.is_recorded = False
        known = self._of(event)
        return BeginAttempt(self._thread, known) if known.count or known.cuts else EndAttempt(self._thread)

    def number(self, event: Event) -> int:
        """Which attempt at this event the next one is, from 1."""
        return self.kills(event) + (self._failures if event.key == self._event_key else 0) + 1

    def failed(self, event: Event) -> int:
        """Count a failure; returns which one it was, from 1."""
        if event.key != self._event_key:
            self._event_key, self._failures = event.key, 0
        self._failures += 1
        return self._failures

    def retry_after(self, pause: float) -> TryAgain:
        """What to raise so that the event is tried again after this pause."""
        self._not_before = anyio.current_time() + pause
        return TryAgain(pause)

    def end(self) -> list[Write]:
        """What to write in the commit that ends the attempt."""
        return [EndAttempt(self._thread)] if self._has_begun or self._unfinished else []

    def committed(self) -> None:
        """That commit has succeeded: nothing here is suspicious any more."""
        self._event_key, self._failures, self._not_before = "", 0, 0.0
        self._unfinished, self._has_begun, self.is_recorded, self.is_suspicious = None, False, False, False


ABANDONED_PAUSE: Final = 30.0
"""Seconds after which a lane with an abandoned handler gets a turn, if the handler does not end before."""

MAX_CONFLICTS: Final = 10
"""How often a handler runs again at once, before its conflict counts as trouble with the store."""

Commit: TypeAlias = Callable[[Outcome, Sequence[Write]], Awaitable[None]]
"""Commits what came of an event, together with these writes."""


class AttemptJournal:
    """What the retry loops of one bot share: the notes of handlers that run for long, and the turn of suspects.

    Args:
        context: the bot's environment.

    Attributes:
        suspect: held while a handler runs that ran when an earlier process died; such handlers run one by one, so that
            the next death tells which of them is guilty.
    """

    def __init__(self, context: BotContext) -> None:
        self._context = context
        self._unrecorded: list[tuple[RetryLoop, RunningCode]] = []
        self._changed = anyio.Event()
        self.suspect = anyio.Lock()

    def add_long_running(self, loop: RetryLoop, running: RunningCode) -> None:
        """Have it noted in the store, soon, that a handler runs for long; in callbacks of the event loop, too."""
        self._unrecorded.append((loop, running))
        self._changed.set()

    async def run(self) -> None:
        """Note handlers that run for long, until canceled."""
        while True:
            await self._changed.wait()
            self._changed = anyio.Event()
            unrecorded, self._unrecorded = self._unrecorded, []
            writes = [loop.long_running_write() for loop, running in unrecorded if not running.task.done()]
            try:
                await self._context.commit([write for write in writes if write is not None])
            except StoreError as error:
                self._context.ongoing.record_failure("store", error)


class RetryLoop:
    """Runs handlers on the events of one thread, one after the other, until each is done with.

    Args:
        context: the bot's environment.
        handlers: what runs the handlers.
        journal: what the retry loops of the bot share.
        commits: what is known and owed in the thread.
        unfinished: an attempt that an earlier process noted before it died.
        wake: gives a thread's lane a turn; in callbacks of the event loop, too.
    """

    __slots__ = (
        "_commits",
        "_context",
        "_current",
        "_handlers",
        "_journal",
        "_log",
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
        self._log = commits.state.log
        self._wake = wake
        self._current: tuple[Event, float] | None = None
        self._running: RunningCode | None = None
        self._outcome: tuple[str, Outcome] | None = None
        self._outcome_of: Event | None = None
        self.attempts = Attempts(self._state.key, unfinished, is_suspicious=context.was_killed)

    async def run(self, event: Event, commit: Commit) -> None:
        """Run the handlers on an event and have what came of it committed.

        Raises:
            TryAgain: the handler failed and may be tried again; nothing was committed.
            StoreError: nothing was committed.
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
                if repetition == MAX_CONFLICTS:
                    raise
                self._log.info("handler.repeated", event_key=event.key, reason=str(conflict))
                if self.attempts.is_recorded:
                    await self._context.commit([self.attempts.clear_record(event)])

    async def _clear_record(self, event: Event, outcome: Outcome) -> Outcome:
        """Take back the note of a handler that has failed: the process lives, so that this attempt was no kill."""
        if outcome.error is not None and self.attempts.is_recorded:
            await self._context.commit([self.attempts.clear_record(event)])
        return outcome

    def check_not_abandoned(self) -> None:
        """Let nothing start beside a handler that was abandoned here.

        Raises:
            TryAgain: one still runs; the lane gets a turn as soon as it ends.
        """
        if (self._context.user, self._state.key) in self._context.shared.abandoned:
            raise TryAgain(ABANDONED_PAUSE)

    async def handle(self, event: Event) -> Outcome:
        """Run the handlers on an event.

        Raises:
            TryAgain: an abandoned handler still runs here, be it the one that was started now.
        """
        self.check_not_abandoned()
        if self._outcome is not None and self._outcome[0] == event.key:
            (_, outcome), self._outcome, self._outcome_of = self._outcome, None, None
            return outcome

        def begin() -> None:
            self._current = event, anyio.current_time()

        try:
            outcome = await self._handlers.handle(
                event, self._limits(event), channel=self._channel(event), before=begin
            )
        finally:
            self._current = self._running = None
        return self._unless_abandoned(event, outcome)

    def is_long_running(self, now: float) -> bool:
        """Whether a handler has run for more than a minute here, or was abandoned; in any thread."""
        in_hand = self._current
        is_abandoned = (self._context.user, self._state.key) in self._context.shared.abandoned
        return is_abandoned or (in_hand is not None and now - in_hand[1] > SLOW_SECONDS)

    def long_running_write(self) -> Write | None:
        """What notes the handler in hand as one that runs for long; None if there is none."""
        in_hand, abandoned = self._current, self._outcome_of
        event = in_hand[0] if in_hand is not None else abandoned
        return None if event is None else self.attempts.record_long_running(event)

    async def _give_up(self, event: Event, outcome: Outcome) -> Outcome:
        return await self._handlers.give_up(event, outcome, self._limits(event), channel=self._channel(event))

    def _channel(self, event: Event) -> ThreadLiveChannel | None:
        return None if self._state.thread is None else ThreadLiveChannel(self._context, self._commits, event)

    def _limits(self, event: Event) -> RunLimits:
        # Whatever a bot waits for at its start may take long.
        timeout = None if isinstance(event, BotStarted) else self._context.settings.timeout
        before = partial(self._record_start, event) if self.attempts.is_suspicious else None
        return RunLimits(timeout, partial(self._slow, event), partial(self._abandoned, event), self._begun, before)

    def _begun(self, running: RunningCode) -> None:
        self._running = running

    def running(self, now: float) -> str | None:
        """The handler that runs here, in a few words; None if there is none. In any thread."""
        in_hand, running = self._current, self._running
        if in_hand is None or running is None or running.task.done():
            return None
        where = f"in thread {self._state.thread}" if self._state.thread else "in no thread"
        return f"{running.owner.name} ({running.owner.place}) {where} for {now - in_hand[1]:.0f} s"

    def _unless_abandoned(self, event: Event, outcome: Outcome) -> Outcome:
        """Return the outcome; that of an abandoned handler counts only once the handler has ended."""
        if isinstance(outcome.error, Abandoned) and not outcome.error.running.task.done():
            self._outcome, self._outcome_of = (event.key, outcome), event
            raise TryAgain(ABANDONED_PAUSE)
        return outcome

    def _slow(self, event: Event, running: RunningCode) -> None:
        owner = running.owner
        self._log.warning(
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
        """Keep the lane from starting anything, in this bot and in one that takes its place, until the handler ends.

        The handler may still act. If the next event were handled beside it, the thread's order would be broken; and if
        the event were given up at once, both its dead letter and its late effects would be there.
        """
        shared, owner = self._context.shared, running.owner
        key = (self._context.user, self._state.key)
        shared.abandoned[key] = AbandonedHandler(owner.name, owner.place, running.now)
        self._log.error(
            "handler.abandoned",
            handler=owner.name,
            place=owner.place,
            event_type=type(event).__name__,
            event_key=event.key,
            hint="it did not end after it was canceled; nothing else is handled here until it does",
        )
        self._context.monitor.abandoned(owner.name)
        self.attempts.handler = owner.name
        self._journal.add_long_running(self, running)

        def ended(_task: object) -> None:
            shared.abandoned.pop(key, None)
            self._log.info("handler.ended", handler=owner.name, event_key=event.key)
            self._wake(self._state.key)

        running.task.add_done_callback(ended)

    async def attempt(self, event: Event) -> Outcome:
        """Run the handlers, unless they have killed the process, or were cut off, too often.

        Raises:
            TryAgain: an abandoned handler still runs here.
            StoreError: an attempt could not be noted; the handler did not run.
        """
        attempts = self.attempts
        if not attempts.is_suspicious:
            return await self.handle(event)
        if attempts.kills(event) >= MAX_KILLS:
            return _killed_by(attempts.last_handler(event))
        if attempts.cuts(event) >= MAX_CUTS:
            return _cut_off(attempts.last_handler(event))
        # Alone only what was running at a kill before: others shall not wait for each other's slow handlers.
        async with self._journal.suspect if attempts.kills(event) else nullcontext():
            return await self.handle(event)

    async def _record_start(self, event: Event, handler: str) -> None:
        """Note a handler of a suspicious lane in the store before it runs, for as long as it runs."""
        await self._context.commit([self.attempts.record_start(event, handler)])

    async def _retry_or_give_up(self, event: Event, outcome: Outcome, error: Exception, commit: Commit) -> None:
        """Have a failed event tried again, or keep it as a dead letter once it was tried often enough.

        Raises:
            TryAgain: it is tried again after a pause.
            StoreError: nothing was committed.
        """
        count = self.attempts.failed(event)
        if not outcome.is_final and count < outcome.retry.attempts:
            pause = jittered(outcome.retry.pause(count))
            self._log.debug("handler.retried", event_key=event.key, attempt=count, pause=round(pause, 1))
            detail = f"{outcome.handler} fails with {kind_of(error)}, attempt {count}"
            self._context.degraded.begin(
                LANE_FAILING,
                detail,
                anyio.current_time(),
                place=retries_in(self._state.thread),
                after=LASTING_SECONDS,
            )
            raise self.attempts.retry_after(pause)
        self._context.degraded.end(LANE_FAILING, place=retries_in(self._state.thread))
        count = max(count, self.attempts.kills(event))
        # A handler that has killed the process is followed by nobody: an error handler may be what kills it.
        is_deadly = self.attempts.kills(event) >= MAX_KILLS or self.attempts.cuts(event) >= MAX_CUTS
        last_words = Outcome() if is_deadly else await self._give_up(event, outcome)
        # Half a text does not stand without a word: that of an error handler, or ours.
        broken = await broken_streams(self._context, self._commits, event, outcome, count)
        if last_words.handler != outcome.handler:
            broken += await broken_streams(self._context, self._commits, event, last_words, count)
        letter = self.letter(event, outcome, count)
        if not any(isinstance(keyed.action, SendMessage) for keyed in last_words.keyed_actions):
            last_words = replace(last_words, keyed_actions=(*broken, *last_words.keyed_actions))
        await self.settle(event, last_words, commit, [*outcome.writes, letter], [letter], broken)

    async def try_once(self, event: Event, commit: Commit, *, number: int) -> Outcome:
        """Run the handlers once and commit what came of it; returns that, or the failure, of which nothing is written.

        Args:
            event: what to handle.
            commit: commits what came of it.
            number: which attempt it is, from 1.

        Raises:
            StoreError: nothing was committed.
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
        """Commit the last that is done about an event; if what handlers want cannot be committed, `least` is.

        What tells people of broken streams is committed with `least`, too.

        Raises:
            StoreError: nothing was committed.
        """
        said = await self._committed(event, outcome, commit, writes) if outcome.error is None else outcome
        if said.error is not None:
            await commit(Outcome(broken), fallback)

    async def _committed(self, event: Event, outcome: Outcome, commit: Commit, writes: Sequence[Write] = ()) -> Outcome:
        """Commit an outcome. What cannot be made of a handler's output is the handler's failure, not the lane's.

        Everything that is computed from it belongs in `commit`: rows, pieces, keys, stored forms. Only trouble with
        the store itself passes: it says nothing of the handler, and the event is met again.
        """
        if outcome.error is not None:
            return outcome
        try:
            await commit(outcome, writes)
        except CannotStore as error:
            failed = replace(outcome, keyed_actions=(), error=error, is_final=True, writes=())
        except StoreError:
            raise
        except Exception as error:
            failed = replace(outcome, keyed_actions=(), error=error, writes=())
        else:
            return outcome
        assert failed.error is not None
        if self.attempts.is_recorded:
            await self._context.commit([self.attempts.clear_record(event)])
        self._handlers.report_failure(event, failed.handler, failed.error)
        return failed

    def letter(self, event: Event, outcome: Outcome, attempts: int, caused_by: UserId | None = None) -> SaveDeadLetter:
        """What keeps an event that is given up."""
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
        # What a handler raised may quote people; what the service said of an action does not.
        reason = event.reason if isinstance(event, ActionFailed) else kind_of(outcome.error)
        self._log.error(
            "event.dead_lettered",
            letter=letter.id,
            event_key=event.key,
            handler=letter.handler,
            attempts=attempts,
            reason=reason,
        )
        return SaveDeadLetter(letter)


def retries_in(thread: ThreadId | None) -> str:
    """The place, among reasons to be degraded, of an event of this thread that is tried again and again."""
    return f"{thread or ''} retries"


def _killed_by(handler: str) -> Outcome:
    text = f"the process died {MAX_KILLS} times while this was handled"
    return Outcome(handler=handler, error=RuntimeError(text), is_final=True)


def _cut_off(handler: str) -> Outcome:
    text = (
        f"{MAX_CUTS} stops cut this off after it had run for more than a minute, or because it did not end when it was"
        " canceled"
    )
    return Outcome(handler=handler, error=RuntimeError(text), is_final=True)
