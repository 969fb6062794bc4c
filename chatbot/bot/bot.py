"""One bot: hears the doorbell, keeps the schedule, and gives turns to the lanes of its threads.

Nothing here outlives `run`. Stopping is the end of the stream: no new look begins, turns finish the event in hand,
outboxes drain, and `run` returns. A handler's failure is a log line; only what nobody foresaw ends `run` with an
exception, and whoever supervises the bot starts it again.

What a bot knows again when it starts: its threads, what was left to be done there, and what needs a look at once.

What a bot does from time to time: forget what is settled, note up to when everything is, sum up failures.
"""

from __future__ import annotations

import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import anyio

from chatbot.actions import ActionKey, EditMessage, KeyedAction, SendMessage, SendReadReceipt, action_key
from chatbot.bot import admin
from chatbot.bot.degraded import BOT_RESTARTING, HANDLER_ABANDONED, SETTLED_SECONDS, Degraded, DegradedReasons
from chatbot.bot.discovery import ThreadWatcher
from chatbot.bot.environment import BotSettings
from chatbot.bot.failure_log import OngoingFailures, RepeatedFailures
from chatbot.bot.handlers import HandlerRunner
from chatbot.bot.lane import Lane
from chatbot.bot.live_channel import ThreadLiveChannel
from chatbot.bot.membership import Presence
from chatbot.bot.monitoring import PATIENCE, Monitor, NoObserver, NoTracer, Observer, Tracer
from chatbot.bot.own_lane import OwnLane
from chatbot.bot.processor import NOWHERE, WriteBehind
from chatbot.bot.scheduler import Scheduler
from chatbot.conversation import Conversations
from chatbot.dispatch import Dispatcher, HandlerSource, Outcome
from chatbot.dispatch.author_code import RunLimits, Running, uncancelled
from chatbot.errors import StoreError, kind_of
from chatbot.events import ActionFailed, BotStarted, BotStopping, Event, MessageEvent, ThreadEvent
from chatbot.model import MessageId, ThreadId, UserId, milliseconds
from chatbot.outbox.action_rows import person_behind, pieces_of, row_of, target_of
from chatbot.outbox.stream import broken_off
from chatbot.service.base import ChatService
from chatbot.service.budget import Budget, SharedQuotas
from chatbot.stores.base import Store
from chatbot.stores.records import Attempt, OutboxRow, Progress, RowStatus, ThreadRecord
from chatbot.stores.writes import BeginAttempt, EndAttempt, MoveHorizon, Prune, Write

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from chatbot.bot.retries import RetryLoop

MOST_STREAMS = 16
"""Of so many of its first actions it is looked up whether a handler that failed has streamed them."""

MAX_SLEEP = 3600.0
"""How long the bot trusts its clock before it looks again when the next timer is due."""

OnFailure = Callable[[Event | None, Exception], None]


class Bot:
    """One bot on one service.

    Args:
        name: its name in bots.yaml and in the logs.
        service: its view of the service.
        store: its memory, opened by the caller.
        dispatcher: its handlers.
        settings: how it is to behave.
        display_name: the name its messages show.
        first_started_ms: the service's time, epoch ms, of this identity's first start.
        commons: what the bots of this process share; by default it is alone.
        clock: wall time in epoch seconds.
        on_failure: told of every failure of a handler (with its event) or of a turn; tests let them surface.
        observer: hears what the bot does, for metrics.
        tracer: goes along with the work, for the log and for traces.
        log: where it is said; bound to the bot here.

    Attributes:
        lanes: the lane of each thread that is known.
        own: the lane of what happens in no thread.
        conversations: what is going on beyond the event in hand.
        listening: what hears the doorbell.
        deferred: what lanes have to write that can wait.
        degraded: why the bot does not work as it should, where a restart would not help.
        turns: what gives the lanes their turns.
        is_started: its loops run.
        noted: handlers that an earlier process noted as about to run, and never as ended.
    """

    def __init__(
        self,
        *,
        name: str,
        service: ChatService,
        store: Store,
        dispatcher: Dispatcher,
        settings: BotSettings | None = None,
        display_name: str = "",
        first_started_ms: int = 0,
        commons: SharedQuotas | None = None,
        clock: Callable[[], float] = time.time,
        on_failure: OnFailure | None = None,
        observer: Observer | None = None,
        tracer: Tracer | None = None,
        log: FilteringBoundLogger | None = None,
    ) -> None:
        self.name = name
        self.service = service
        self.user: UserId = service.user
        self.crew = HandlerRunner(dispatcher)
        self.settings = settings or BotSettings()
        self.display_name = display_name or name
        self.first_started_ms = first_started_ms
        self.clock = clock
        self.log = (log or _default_log()).bind(bot=name)
        self.degraded = DegradedReasons()
        self.trouble = OngoingFailures(self.log, anyio.current_time)
        self.degraded.add_source(self.trouble.degraded)
        self.degraded.add_source(self._restarts)
        self.degraded.add_source(self._abandoned_handlers)
        self.failures = RepeatedFailures(self.log)
        self.watch = Monitor(observer or NoObserver())
        self.tracer = tracer or NoTracer()
        self.is_stopping = False
        self.is_started = False
        self._running_since = 0.0
        self._died_at: float | None = None
        self._died_of = ""
        self.was_killed = False
        self.has_recalled = False
        self._to_note: list[tuple[RetryLoop, Running]] = []
        self._has_to_note = anyio.Event()
        self.one_suspect = anyio.Lock()
        self.noted: Mapping[ThreadId, Attempt] = {}
        self.conversations = Conversations(self.user, store, clock=clock)
        self._store = store
        self._on_failure = on_failure
        self.budget = Budget()
        self.commons = commons or SharedQuotas()
        self.commons.users.add(self.user)
        self.lanes: dict[ThreadId, Lane] = {}
        self.own = OwnLane(self, None)
        self.listening = ThreadWatcher(self)
        self.turns = Scheduler(self)
        self.deferred = WriteBehind(self)
        self._upkeep = Maintenance(self)
        self._handlers = anyio.CapacityLimiter(self.settings.max_handlers)

    # ── running ───────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self, stopping: anyio.Event) -> None:
        """Look, handle, commit and send until `stopping` is set; then finish what is in hand and return.

        Raises:
            StoreError: the store could not be read at the start.
        """
        try:
            await self._run(stopping)
        except Exception as error:
            self._died_at, self._died_of = anyio.current_time(), kind_of(error)
            raise
        finally:
            self.is_started = False

    async def _run(self, stopping: anyio.Event) -> None:
        self.is_stopping = False
        await restore(self, self._store)
        self.log.info("bot.started", user_id=self.user, threads=len(self.lanes))
        async with self.crew:
            await self.own.announce(BotStarted(bot=self.user, occurred_on=self._now()))
            async with anyio.create_task_group() as group:
                group.start_soon(self._keep, self.listening.run, "thread watcher")
                group.start_soon(self._keep, self.turns.run, "scheduler")
                group.start_soon(self._keep, self.deferred.run, "write-behind")
                group.start_soon(self._keep, self._upkeep.run, "maintenance")
                group.start_soon(self._keep, self._keep_time, "timekeeper")
                group.start_soon(self._keep, self._note_long_handlers, "journal of long handlers")
                group.start_soon(self._keep, self.own.run, "lane of no thread")
                self.is_started, self._running_since = True, anyio.current_time()
                await stopping.wait()
                await self.own.announce(BotStopping(bot=self.user, occurred_on=self._now()))
                self.is_stopping = True
                for thread in self.turns.working:
                    self.lanes[thread].interrupt()
                await self._drain()
                group.cancel_scope.cancel()
        await self.deferred.write()
        await self._upkeep.note_horizon()
        self.failures.sum_up(anyio.current_time())
        self.log.info("bot.stopped", unsent=sum(len(lane.handling.outbox) for lane in self.lanes.values()))

    async def _keep(self, loop: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """Run a loop that never ends. If it does, for whatever reason, that is the bot's death: it does not live on
        without its scheduler.

        A loop that is cancelled by anybody but the bot would else end without a word.
        """
        await uncancelled(loop())
        if self.is_stopping and loop == self.listening.run:
            return  # a bot that stops looks for no more threads, while handlers that run may take their time
        msg = f"the {name} ended by itself"
        raise RuntimeError(msg)

    async def take_on(self, plugins: Iterable[HandlerSource]) -> None:
        """Have the next events handled by these plugins; events in hand are finished by those they began with.

        Raises:
            PluginError: they do not go together; nothing is changed.
            Exception: what they need cannot be made; nothing is changed.
        """
        old = self.crew.dispatcher
        new = old.remade(plugins)
        await self.crew.replace(new)
        if new.schedules != old.schedules:
            await self.conversations.reschedule(new.schedules)

    def serves(self, thread: ThreadId) -> bool:
        """Whether bots.yaml wants the bot in this thread."""
        return self.settings.threads is None or thread in self.settings.threads

    def begin(self, thread: ThreadId, stamp: datetime | None) -> Lane:
        """A thread nobody knew: its first turn finds out whether the bot is in it."""
        lane = Lane(self, thread, None, noted=self.noted.get(thread))
        lane.membership.probe(stamp)
        # As long as nothing else is known: who was removed before the first start was, when the thread last moved.
        lane.membership.left_ms = self.conversations.now_ms if stamp is None else milliseconds(stamp)
        self.lanes[thread] = lane
        self.turns.ring(thread)
        return lane

    def lane_of(self, thread: ThreadId) -> Lane:
        """The lane of a thread that something is to be done in; of one that the bot is not in, it only fails there."""
        lane = self.lanes.get(thread)
        if lane is None:
            lane = self.lanes[thread] = Lane(self, thread, None)
            lane.membership.leave(anyio.current_time(), 0)
        return lane

    def end(self, lane: Lane) -> None:
        """Nothing more is to be done in a thread that the bot is not in."""
        self.lanes.pop(lane.thread, None)

    async def revive(self, id: str) -> bool:
        """Have a dead letter tried again; False when there is none of that id in a thread the bot is in."""
        for letter in await self._store.dead_letters(self.user):
            if letter.id == id:
                return await admin.revive(self, letter)
        return False

    async def _drain(self) -> None:
        """Wait for the turns in hand, then give turns only to the lanes that still owe something."""
        self.turns.forget()
        while True:
            owing = {thread for thread, lane in self.lanes.items() if lane.is_owing}
            if not self.turns.working and not owing and not self.own.is_working:
                return
            self.turns.give_again(owing)
            await self.turns.ended.wait()

    async def _keep_time(self) -> None:
        """Ring what is due, each in the lane where it is to be handled."""
        while True:
            changed = self.conversations.changed
            for place in self.conversations.ring():
                if place is None:
                    self.own.wake()
                else:
                    self.turns.ring(place)
            due = self.conversations.next_due_ms()
            pause = MAX_SLEEP if due is None else (due - self.conversations.now_ms) / 1000
            with anyio.move_on_after(max(0.0, min(MAX_SLEEP, pause))):
                await changed.wait()

    # ── what lanes need ───────────────────────────────────────────────────────────────────────────────────────

    async def handle(
        self, event: Event, limits: RunLimits, *, before: Callable[[], Awaitable[None]] | None = None
    ) -> Outcome:
        """Run the handlers on an event; a failing one is said in the log with its event.

        Args:
            event: what happened.
            limits: who hears of handlers that take long.
            before: awaited when it is the event's turn, before the handlers run.
        """
        begun = anyio.current_time()
        async with self._handlers_for(event) as dispatcher:
            if before is not None:
                await before()
            memory = self.conversations.open(event)
            outcome = await dispatcher.dispatch(
                event, memory, line=self._line(event), during=self.tracer.handler, limits=limits
            )
        self.watch.handled(outcome, begun)
        if outcome.error is not None:
            self.say_failure(event, outcome.handler, outcome.error)
        return outcome

    async def give_up(self, event: Event, failed: Outcome, limits: RunLimits) -> Outcome:
        """Let the error handlers have the last word on an event that will not be tried again; see `handle`."""
        async with self._handlers_for(event) as dispatcher:
            memory = self.conversations.open(event)
            outcome = await dispatcher.dispatch_failure(
                event, failed, memory, line=self._line(event), during=self.tracer.handler, limits=limits
            )
        if outcome.error is not None and outcome.error is not failed.error:
            self.say_failure(event, outcome.handler, outcome.error)
        return outcome

    @asynccontextmanager
    async def _handlers_for(self, event: Event) -> AsyncIterator[Dispatcher]:
        """The handlers, when there is room for one more event."""
        with self.turns.with_handlers(event):
            with self.watch.waiting(event):
                await self._handlers.acquire()
            try:
                with self.crew.at_work() as dispatcher, self.watch.handling(event):
                    yield dispatcher
            finally:
                self._handlers.release()

    def note_long(self, trials: RetryLoop, running: Running) -> None:
        """Have it noted in the store, soon, that a handler runs for long; in callbacks of the event loop, too."""
        self._to_note.append((trials, running))
        self._has_to_note.set()

    async def _note_long_handlers(self) -> None:
        while True:
            await self._has_to_note.wait()
            self._has_to_note = anyio.Event()
            noted, self._to_note = self._to_note, []
            writes = [trials.long_attempt() for trials, running in noted if not running.task.done()]
            try:
                await self.commit([write for write in writes if write is not None])
            except StoreError as error:
                self.trouble.met("store", error)

    def long_attempts(self, now: float) -> list[Write]:
        """What notes the handlers that run for long, for a process that is about to end; in any thread."""
        long = [trials.long_attempt() for trials in self._every_trials() if trials.is_long(now)]
        return [write for write in long if write is not None]

    def running_handlers(self, now: float) -> list[str]:
        """The handlers that run, for people: name, place, thread and how long; in any thread."""
        return [running for trials in self._every_trials() if (running := trials.running(now)) is not None]

    def _every_trials(self) -> list[RetryLoop]:
        return [*(lane.handling.trials for lane in list(self.lanes.values())), self.own.trials]

    def _abandoned_handlers(self, now: float) -> Iterator[Degraded]:
        for (user, thread), lane in self.commons.abandoned.items():
            if user == self.user:
                where = f"in thread {thread}" if thread else "in no thread"
                detail = (
                    f"the handler {lane.name} ({lane.place}) {where} did not end after it was canceled;"
                    " nothing else is handled there until it ends, or the process is restarted"
                )
                yield Degraded(HANDLER_ABANDONED, detail, now - lane.since)

    def _line(self, event: Event) -> ThreadLiveChannel | None:
        lane = self.lanes.get(event.thread) if isinstance(event, ThreadEvent) else None
        return ThreadLiveChannel(lane, event) if lane is not None else None

    def say_failure(self, event: Event, handler: str | None, error: Exception) -> None:
        """Say in the log that a handler failed, with its traceback when it is news, and tell who asked for it."""
        log = self.log.bind(
            handler=handler,
            event_type=type(event).__name__,
            event_key=event.key,
            thread=event.thread if isinstance(event, ThreadEvent) else None,
        )
        if self.failures.is_news(handler or "", error, anyio.current_time()):
            log.error("handler.failed", exc_info=error)
        else:
            log.debug("handler.failed", error=kind_of(error))
        self.tell(event, error)

    def tell(self, event: Event | None, error: Exception) -> None:
        """Let who asked for it hear of a failure."""
        if self._on_failure is not None:
            self._on_failure(event, error)

    async def broken_streams(self, event: Event, failed: Outcome, attempts: int) -> tuple[KeyedAction, ...]:
        """Return what tells people that texts which a handler has streamed for an event will not be finished.

        Args:
            event: which is given up.
            failed: what came of its handler, or of its error handler.
            attempts: how often it was tried; a further try that fails says it anew.
        """
        lane = self.lanes.get(event.thread) if isinstance(event, ThreadEvent) else None
        if lane is None or not failed.handler:
            return ()
        broken: list[KeyedAction] = []
        for ordinal in range(MOST_STREAMS):
            # Of an event that is not committed, only streams have rows: they are journalled before they are sent.
            key = action_key(self.user, lane.thread, event.key, failed.handler, ordinal)
            row = await self.find_row(key)
            if row is not None and isinstance(row.action, SendMessage) and row.status is not RowStatus.FAILED:
                shown = lane.handling.half_shown.pop(key, row.action.content)
                edit = EditMessage(key, broken_off(shown))
                broken.append(KeyedAction(ActionKey(f"{key}.broken.{attempts}"), edit))
        return tuple(broken)

    def rows_for(self, outcome: Outcome, event: Event) -> list[OutboxRow]:
        """The rows that journal an outcome's wishes; receipts are not among them, the lane owes those."""
        created_ms = int(self.clock() * 1000)
        thread = event.thread if isinstance(event, ThreadEvent) else None
        rows: list[OutboxRow] = []
        for wish in outcome.wishes:
            if isinstance(wish.action, SendReadReceipt):
                continue
            target = target_of(wish.action, thread)
            if target is None:
                self.log.error("wish.dropped", action=type(wish.action).__name__, reason="it names no thread")
                continue
            lane = self.lane_of(target)
            after = lane.handling.latest_version
            if isinstance(event, MessageEvent) and target == thread:
                after = max(after, event.message.version)  # an answer is newer than what it answers
            rows += [
                row_of(
                    piece,
                    target,
                    after=after,
                    created_ms=created_ms,
                    caused_by=person_behind(event),
                    after_failure=isinstance(event, ActionFailed),
                )
                for piece in pieces_of(wish)
            ]
        return rows

    def take(self, rows: Sequence[OutboxRow]) -> None:
        """Hand journalled rows to the outboxes of their threads."""
        if rows:
            self.tracer.journalled(rows)
        for row in rows:
            lane = self.lane_of(row.thread)
            lane.handling.outbox.add(row, lane.handling.proofs)
            if row.thread not in self.turns.working:
                self.turns.ring(row.thread)

    async def commit(self, writes: Sequence[Write], *, place: str = "") -> None:
        """Make writes durable; `place` is whose trouble with the store is over then."""
        with self.tracer.commit():
            await self.conversations.commit(writes)
        self.trouble.over("store", place=place)

    async def find_made(self, messages: Collection[MessageId]) -> frozenset[MessageId]:
        """Which of these messages are known to come of wishes."""
        return await self._store.made(self.user, messages)

    async def find_row(self, key: ActionKey) -> OutboxRow | None:
        """Read a row back, settled or not."""
        return await self._store.row(self.user, key)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.clock(), UTC)

    # ── what tests and health ask ─────────────────────────────────────────────────────────────────────────────

    def is_settled(self, thread: ThreadId, version: int) -> bool:
        """Whether everything in a thread up to a version was handled, and nothing is owed there."""
        lane = self.lanes.get(thread)
        if lane is None or thread in self.turns.working or not self.is_at_rest:
            return False
        if lane.membership.presence is not Presence.IN:
            return lane.membership.is_out
        return not self.conversations.is_due(thread) and lane.handling.cursor.top >= version and lane.is_settled

    @property
    def handlers_waiting(self) -> int:
        """How many events wait until a handler may run."""
        return self._handlers.statistics().tasks_waiting

    def is_starting_again(self, now: float) -> bool:
        """Whether the bot ended unexpectedly, and whoever supervises it is about to start it again."""
        return not self.is_started and self._died_at is not None and now - self._died_at < PATIENCE

    def _restarts(self, now: float) -> Iterator[Degraded]:
        """Why the bot is degraded after an unexpected end, until it has run for a while."""
        if self._died_at is None or (self.is_started and now - self._running_since >= SETTLED_SECONDS):
            return
        yield Degraded(BOT_RESTARTING, f"it ended by {self._died_of}: see bot.died in the log", now - self._died_at)

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing is to be handled that is of no thread."""
        return not self.own.is_working and not self.conversations.is_due(None)

    async def at_rest(self) -> None:
        """Wait until nothing is to be handled that is of no thread."""
        while not self.is_at_rest:
            with anyio.move_on_after(self.settings.cadence.interval):
                await self.turns.ended.wait()

    async def settled(self, thread: ThreadId, version: int) -> None:
        """Wait until a thread is handled up to a version and nothing is owed there; hastens its next look."""
        while not self.is_settled(thread, version):
            self.turns.ring(thread)
            # Rung for again only after a while: a turn that waits for a quota is over at once, with nothing done.
            with anyio.move_on_after(self.settings.cadence.interval):
                while not self.is_settled(thread, version):
                    await self.turns.ended.wait()


def _default_log() -> FilteringBoundLogger:
    # Imported here, because importing the package must not cost what a logging library costs.
    import structlog

    log: FilteringBoundLogger = structlog.get_logger("chatbot")
    return log


async def restore(bot: Bot, store: Store) -> None:
    """Make a lane for every thread the store knows, with the wishes that were left pending there.

    Raises:
        StoreError: the store could not be read.
    """
    rows: dict[ThreadId, list[OutboxRow]] = {}
    for row in await store.pending(bot.user):
        rows.setdefault(row.thread, []).append(row)
    bot.was_killed = store.was_killed
    bot.noted = await _attempts(bot, store)
    records = await store.threads(bot.user)
    parked = [record.thread for record in records if record.is_left]
    await bot.conversations.load(bot.crew.dispatcher.schedules, parked)
    bot.own = OwnLane(bot, bot.noted.get(NOWHERE))
    bot.lanes = {}
    bot.turns.forget()
    horizon_ms = await store.horizon(bot.user)
    # What was said shortly before the horizon may have become visible after it.
    told_ms = None if horizon_ms is None else horizon_ms - bot.settings.slack_ms
    bot.listening.begin(told_ms)
    for record in records:
        pending = rows.pop(record.thread, ())
        if bot.serves(record.thread) or record.is_left:
            _resume(bot, record, pending, told_ms)
    for thread in (bot.settings.threads or frozenset()) - bot.lanes.keys():
        bot.begin(thread, None)
    _resume_elsewhere(bot, rows)
    for letter in await store.dead_letters(bot.user):
        if letter.is_revived and not admin.hand_over(bot, letter):
            bot.log.warning("letter.postponed", letter=letter.id, reason="the bot is not in its thread")


async def _attempts(bot: Bot, store: Store) -> Mapping[ThreadId, Attempt]:
    """What is noted of handlers, with what the end of the process, or of the bot before this one, says about them.

    A handler has killed the process if it was noted as running when the process died, and was not told to stop before:
    neither a refused start nor an operator's signal counts against anybody. A stop has cut it off if it had run for
    long. A bot that died and is started again in the same process says nothing of its handlers.
    """
    is_first = bot.user not in bot.commons.restored
    is_other = is_first or not bot.has_recalled
    bot.commons.restored.add(bot.user)
    bot.has_recalled = True
    was_killed = is_first and store.was_killed and not store.was_stopping
    attempts = dict(await store.attempts(bot.user))
    writes: list[Write] = []
    for thread, attempt in list(attempts.items()):
        if attempt.progress is Progress.WAITING:
            continue
        kills = attempt.count + was_killed
        cuts = attempt.cuts + (is_other and not was_killed and attempt.progress is Progress.LONG)
        if kills or cuts:
            attempts[thread] = Attempt(attempt.event_key, kills, cuts, handler=attempt.handler)
            writes.append(BeginAttempt(thread, attempts[thread]))
        else:
            del attempts[thread]
            writes.append(EndAttempt(thread))
    if writes:
        await store.commit(bot.user, writes)
    return attempts


def _resume(bot: Bot, record: ThreadRecord, rows: Sequence[OutboxRow], told_ms: int | None) -> None:
    """Make the lane of a thread that the store knows.

    Its first turn comes at once if it owes something, soon if the doorbell tells that it has moved, or with its beat.
    """
    noted = bot.noted.get(record.thread)
    lane = bot.lanes[record.thread] = Lane(bot, record.thread, record, rows=rows, noted=noted, looked_ms=told_ms)
    if record.is_left:
        if (pause := lane.resume_outside()) is not None:
            bot.turns.ring(record.thread, due=anyio.current_time() + pause)
        return
    bot.turns.begin_beat(record.thread)
    if noted is not None or not lane.is_settled:
        bot.turns.ring(record.thread)


def _resume_elsewhere(bot: Bot, rows: Mapping[ThreadId, Sequence[OutboxRow]]) -> None:
    """Go on with wishes for threads that the bot was never in: they fail unless it gets in."""
    for thread, pending in rows.items():
        lane = bot.lane_of(thread)
        for row in pending:
            lane.handling.outbox.add(row)
        bot.turns.ring(thread)


UPKEEP_SECONDS: Final = 60.0
"""Between two times; what was noted is at most so old after a kill."""


class Maintenance:
    """The upkeep of one bot.

    Args:
        bot: whose.
    """

    def __init__(self, bot: Bot) -> None:
        self._bot = bot

    async def run(self) -> None:
        """Do it again and again, until cancelled."""
        while True:
            self._bot.failures.sum_up(anyio.current_time())
            before_ms = int((self._bot.clock() - self._bot.settings.retention.total_seconds()) * 1000)
            await self._commit([Prune(before_ms), *self._horizon()])
            await anyio.sleep(UPKEEP_SECONDS)

    async def note_horizon(self) -> None:
        """Let the next start know which threads need no look at once; losing that costs it looks, no more."""
        if horizon := self._horizon():
            await self._commit(horizon)

    def _horizon(self) -> list[Write]:
        if self._bot.settings.threads is not None:
            return []  # it holds for all threads or none, and others may be served next time
        settled_ms = self._bot.listening.settled_ms()
        return [] if settled_ms is None else [MoveHorizon(settled_ms)]

    async def _commit(self, writes: Sequence[Write]) -> None:
        try:
            await self._bot.commit(writes)
        except StoreError as error:
            self._bot.trouble.met("store", error)
