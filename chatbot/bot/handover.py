"""Take threads over from other processes, and give them up: their lanes, timers, dialogs and dead letters.

A start takes everything that this process owns, so that one process and one of many run the same code.

* **take**: read from the store what belongs to the threads, create their lanes, and poll each of them soon: nobody
  knows what the last owner had not yet seen.
* **release**: begin nothing new, let running handlers finish, store what was deferred, and only then remove the lanes.
* **lose**: another process may act in the threads already. Cancel everything there, and write nothing.

The store is read after the shards are owned, so that the last owner can change nothing any more. While it is read,
shards may be lost again; what was read of them is then dropped.

Other processes send notes about threads that are owned here. `find_missed` finds what lost notes have said.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import anyio
import anyio.lowlevel

from chatbot.actions import ActionKey
from chatbot.bot.commits import WriteBehind
from chatbot.bot.discovery import ThreadWatcher
from chatbot.bot.environment import NO_THREAD, BotContext
from chatbot.bot.handlers import HandlerRunner, Signal
from chatbot.bot.scheduler import UNEXPECTED_ERROR_PAUSE, Scheduler
from chatbot.cluster.notes import (
    ActionsAdded,
    BotNote,
    DialogsDropped,
    LettersChanged,
    ListAgain,
    ThreadNotified,
    ThreadsListed,
    TimersDropped,
)
from chatbot.errors import StoreError
from chatbot.events import BotStopping, ThreadEvent
from chatbot.model import ThreadId
from chatbot.stores.records import Attempt, DeadLetter, OutboxRow, Progress, RowStatus, ThreadRecord
from chatbot.stores.shards import shard_of, shard_of_bot
from chatbot.stores.writes import BeginAttempt, EndAttempt, Write

TALKING_MS: Final = 60_000
"""A thread whose last message is younger than this is polled at once when it is taken over."""

BUSY_SECONDS: Final = 1.0
"""Seconds between two checks whether the handlers of a shard that is released have ended."""

WRITE_SECONDS: Final = 10.0
"""Seconds for which a shard is kept while the store refuses what was deferred. Then its next owner finds out what was
sent by reading the threads, as after a crash."""

MAX_TAKEN_ROWS: Final = 10_000
"""Maximum number of actions that are remembered as read with their threads: a note about them may come later."""

RETRY_SECONDS: Final = 1.0
"""Seconds until a takeover tries again to read the store."""


class Handover:
    """Takes threads over and gives them up.

    Args:
        context: The bot's environment.
        scheduler: Holds the lanes.
        write_behind: Holds the deferred writes of threads.
        watcher: Polls the thread list, where this process owns the bot.
        handlers: Knows the schedules.
        queue_letter: Passes a dead letter whose retry was requested to its lane; returns False if that is not possible.
    """

    def __init__(
        self,
        context: BotContext,
        scheduler: Scheduler,
        write_behind: WriteBehind,
        watcher: ThreadWatcher,
        handlers: HandlerRunner,
        queue_letter: Callable[[DeadLetter], bool],
    ) -> None:
        self._context = context
        self._scheduler = scheduler
        self._write_behind = write_behind
        self._watcher = watcher
        self._handlers = handlers
        self._queue_letter = queue_letter
        self._lock = anyio.Lock()
        self._is_running = False
        self._was_restored = False
        self._has_announced_stop = False
        self._held: set[int] = set()
        self._counted: set[int] = set()
        self._loading: set[int] = set()
        self._to_take: set[int] = set()
        self._ending: dict[int, object] = {}
        self._taken_rows: set[ActionKey] = set()
        self._missed: frozenset[str] = frozenset()
        self._is_start_due = False
        self._start_requested = Signal()

    # ── take ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def restore(self) -> None:
        """Take everything that this process owns, at the start of the bot.

        Raises:
            StoreError: The store could not be read.
        """
        context, ownership = self._context, self._context.ownership
        async with self._lock:
            # A restart of the bot within a process is no crash of the process.
            is_first = context.user not in context.shared.restored
            context.shared.restored.add(context.user)
            context.was_killed = context.store.was_killed and not ownership.is_shared
            self._loading, self._held, context.loaded = set(ownership.owned), set(), set()
            context.crashed = set(ownership.crashed)
            if not is_first:
                self._counted |= context.crashed
            self._scheduler.restart()
            context.conversations.clear()
            self._watcher.restart(None)
            self._is_running = True
            await self._load(is_start=True, is_first=is_first, is_other=is_first or not self._was_restored)
            self._was_restored = True

    @property
    def has_taken_all(self) -> bool:
        """Whether everything that this process owns was read from the store."""
        return self._context.ownership.owned <= self._held

    def end(self) -> None:
        """Take nothing more, because the bot has ended."""
        self._is_running = False
        self._held, self._loading, self._context.loaded = set(), set(), set()

    async def take(self, shards: frozenset[int], after_crash: frozenset[int]) -> None:
        """Serve the threads of these shards from now on; retries until the store can be read, or they are lost again.

        Args:
            shards: The shards; none if nothing has changed hands, but notes may have been lost.
            after_crash: Those whose last owner did not release them in order: its handlers may have killed it.
        """
        self._to_take |= shards
        while True:
            async with self._lock:
                pause = await self._try_to_take(shards, after_crash)
            if pause is None:
                return
            await anyio.sleep(pause)  # without the lock: meanwhile, other shards can be given up, and notes be heard

    async def _try_to_take(self, shards: frozenset[int], after_crash: frozenset[int]) -> float | None:
        """Read the threads that are to be taken; return the seconds until the next attempt, None if there is none."""
        context = self._context
        # Together with those that were gained while the store was read for the ones before.
        wanted, self._to_take = self._to_take, set()
        if not self._is_running:
            return None  # the next start takes everything that is owned then
        self._loading = wanted & context.ownership.owned - self._held
        if shards and not self._loading:
            return None
        context.crashed |= self._loading & (after_crash | context.ownership.crashed)
        try:
            if self._loading:
                await self._load(is_start=False, is_first=True, is_other=True)
        except StoreError as error:
            context.ongoing.record_failure("store", error)
            pause = RETRY_SECONDS
        except Exception:  # the threads that this process serves already must not suffer from it
            context.log.exception("takeover.failed", shards=len(self._loading))
            pause = UNEXPECTED_ERROR_PAUSE
        else:
            if context.owns_bot:
                self._watcher.list_again()
            else:
                context.ownership.tell(ListAgain(context.user))
            return None
        self._to_take |= self._loading
        self._loading = set()
        return pause

    def _is_loading(self, thread: ThreadId | None) -> bool:
        """Return whether a thread is being taken; no thread stands for what belongs to the bot."""
        return not self._context.ownership.is_shared or self._shard(thread) in self._loading

    def _shard(self, thread: ThreadId | None) -> int:
        return shard_of(thread) if thread else shard_of_bot(self._context.user)

    async def _load(self, *, is_start: bool, is_first: bool, is_other: bool) -> None:
        """Create a lane for every stored thread that is being taken, with its pending actions.

        Args:
            is_start: The bot starts; it does not run yet.
            is_first: How the last owner ended was not counted yet.
            is_other: The last owner was another process.

        Raises:
            StoreError: The store could not be read, or a shard was lost meanwhile; calling this again is safe.
        """
        context, store, scheduler = self._context, self._context.store, self._scheduler
        pending = await store.pending(context.user)
        # Before any lane is created: a handler that killed the last process must not run unguarded.
        unfinished = await self._review_attempts(is_first=is_first, is_other=is_other)
        records = await store.threads(context.user)
        parked = [record.thread for record in records if record.is_left]
        letters = [letter for letter in await store.dead_letters(context.user) if letter.is_revived]
        horizon_ms = await store.horizon(context.user)
        schedules = self._handlers.dispatcher.schedules
        # A thread that was lost while its timers were read, or a commit ended, may have left some that fired elsewhere.
        self._forget_others()
        await context.conversations.load(schedules, parked, is_wanted=self._is_loading)
        # Nothing below waits, so nothing is lost meanwhile.
        self._forget_others(self._loading)
        pending = [row for row in pending if self._is_loading(row.thread)]
        records = [record for record in records if self._is_loading(record.thread)]
        unfinished = {thread: attempt for thread, attempt in unfinished.items() if self._is_loading(thread)}
        taken = {row.key for row in pending}
        self._taken_rows = taken if len(self._taken_rows) > MAX_TAKEN_ROWS else self._taken_rows | taken
        scheduler.unfinished = {**scheduler.unfinished, **unfinished}
        # A message sent shortly before the horizon may have become visible after it.
        polled_ms = None if horizon_ms is None else horizon_ms - context.settings.slack_ms
        self._held |= self._loading
        context.loaded |= self._loading
        context.budget.divide(context.ownership.replicas)
        if self._is_loading(None):
            self._has_announced_stop = False
            scheduler.restart_threadless_lane()
            self._is_start_due = True
            self._start_requested.set()
            if is_start:
                self._watcher.restart(polled_ms)
            else:
                self._watcher.take_over(polled_ms)
                scheduler.schedule(NO_THREAD)
        with _no_search_for_garbage():
            self._create_lanes(records, pending, polled_ms)
        self._queue_letters(letter for letter in letters if self._is_loading(_thread_of(letter)))
        self._loading = set()

    def _forget_others(self, loading: Collection[int] = ()) -> None:
        """Forget timers and dialogs of threads that this bot does not serve."""
        if self._context.ownership.is_shared:
            kept = self._held.union(loading)
            self._context.conversations.forget(lambda thread: self._shard(thread) not in kept)

    def _create_lanes(
        self, records: Sequence[ThreadRecord], actions: Iterable[OutboxRow], polled_ms: int | None
    ) -> None:
        context, scheduler, is_shared = self._context, self._scheduler, self._context.ownership.is_shared
        rows: dict[ThreadId, list[OutboxRow]] = {}
        for row in actions:
            rows.setdefault(row.thread, []).append(row)
        if is_shared:
            # The horizon is one process's: what another one had not yet handled may be older.
            polled_ms = None
            records = sorted(records, key=_last_ms, reverse=True)
        talking_ms = context.conversations.now_ms - TALKING_MS
        for place, record in enumerate(records):
            pending = rows.pop(record.thread, ())
            if context.serves(record.thread) or record.is_left:
                # Not at random times: as soon as the rate allows, those first in which people have talked last.
                scheduler.resume(record, pending, polled_ms, phase=place * 1e-6 if is_shared else None)
                if is_shared and not record.is_left and _last_ms(record) > talking_ms:
                    scheduler.schedule(record.thread)
        for thread in (context.settings.threads or frozenset()) - scheduler.lanes.keys():
            if self._is_loading(thread):
                scheduler.open(thread, None)
        self._restore_unknown_threads(rows)

    def _restore_unknown_threads(self, rows: Mapping[ThreadId, Collection[OutboxRow]]) -> None:
        """Restore actions for threads that the bot was never in: they fail unless it enters the thread."""
        for thread, pending in rows.items():
            outbox = self._scheduler.lane_of(thread).commits.outbox
            for row in pending:
                outbox.add(row)
            self._scheduler.schedule(thread)

    async def _review_attempts(self, *, is_first: bool, is_other: bool) -> dict[ThreadId, Attempt]:
        """Return the recorded attempts, updated by how the last owner of their threads ended.

        A handler counts as a kill if it was recorded as running when its process died without a request to stop. So
        neither a refused start nor an operator's signal counts. It counts as cut off if it was recorded as long-running
        when the process was stopped. A bot that crashed and was restarted in the same process counts nothing.
        """
        context, store = self._context, self._context.store
        is_killed = context.was_killed and not store.was_stopping
        stored = await store.attempts(context.user)
        attempts = {thread: attempt for thread, attempt in stored.items() if self._is_loading(thread)}
        uncounted = context.crashed - self._counted
        writes: list[Write] = []
        changed: list[ThreadId] = []
        for thread, attempt in list(attempts.items()):
            if attempt.progress is Progress.WAITING:
                continue
            was_killed = (is_first and is_killed) or self._shard(thread) in uncounted
            kills = attempt.count + was_killed
            cuts = attempt.cuts + (is_other and not was_killed and attempt.progress is Progress.LONG)
            changed.append(thread)
            if kills or cuts:
                attempts[thread] = Attempt(attempt.event_key, kills, cuts, handler=attempt.handler)
                writes.append(BeginAttempt(thread, attempts[thread]))
            else:
                del attempts[thread]
                writes.append(EndAttempt(thread))
        if writes:
            await context.commit(writes, threads=changed)
        self._counted |= uncounted & self._loading
        return attempts

    # ── release and lose ──────────────────────────────────────────────────────────────────────────────────────────

    async def release(self, shards: frozenset[int], released: Callable[[frozenset[int]], None]) -> None:
        """Finish the work in these shards, and remove what is kept of them.

        Handlers in hand finish, however long they run. Each shard is reported as soon as nothing runs there any more:
        a slow handler delays the threads of its own shard only.

        Args:
            shards: The shards; no work in them is begun by now, as `Ownership.owned` does not have them any more.
            released: Called with shards that are done.
        """
        context, scheduler, left = self._context, self._scheduler, set(shards)
        async with self._lock:  # a takeover that reads them has ended
            context.loaded -= left
        context.budget.divide(context.ownership.replicas)
        own, request = self._shard(None), object()
        self._ending.update(dict.fromkeys(left, request))
        scheduler.release(lambda thread: shard_of(thread) in left)
        while uncounted := {shard for shard in self._uncounted(left) if self._ending.get(shard) is request}:
            if await self._try_to_count(uncounted):
                break
            await anyio.sleep(RETRY_SECONDS)
        async with anyio.create_task_group() as group:
            if own in left & self._held:
                group.start_soon(self.announce_stop)
                scheduler.threadless_lane.release()
                await anyio.lowlevel.checkpoint()
            give_up_at: float | None = None
            # A shard that is lost meanwhile, and perhaps taken again, is none of this request's any more.
            while left := {shard for shard in left if self._ending.get(shard) is request}:
                done = left - {self._shard(thread) for thread in scheduler.busy}
                if done:
                    await self._write_behind.write()
                    unwritten = done & {self._shard(thread) for thread in self._write_behind.waiting}
                    if unwritten and give_up_at is None:
                        give_up_at = anyio.current_time() + WRITE_SECONDS
                    if give_up_at is None or anyio.current_time() < give_up_at:
                        done -= unwritten
                    done = {shard for shard in done if self._ending.get(shard) is request}
                    self._remove(done)
                    released(frozenset(done))
                if not done:
                    with anyio.move_on_after(BUSY_SECONDS):  # the end of an abandoned handler sets no event
                        await scheduler.ended.wait()

    def _uncounted(self, shards: Collection[int]) -> set[int]:
        """Return those of these shards that came from a process that died, and in which kills were not counted here."""
        return set(shards) & self._context.ownership.crashed - self._counted

    async def _try_to_count(self, shards: set[int]) -> bool:
        """Count the kills in shards that are given up before their threads are read; return False to try again.

        Their next owner does not count them: it takes the shards from this process, which releases them in order.
        """
        context = self._context
        async with self._lock:
            context.crashed |= shards
            self._loading = shards
            try:
                await self._review_attempts(is_first=False, is_other=True)
            except StoreError as error:
                context.ongoing.record_failure("store", error)
                return False
            except Exception:  # it would fail the same way in the next attempt
                context.log.exception("takeover.failed", shards=len(shards))
            finally:
                self._loading = set()
        return True

    async def count_kills(self) -> None:
        """Count the kills in all shards whose threads were not read, before the process gives them up at its end."""
        if uncounted := self._uncounted(self._context.ownership.owned):
            await self._try_to_count(uncounted)

    def take_start(self) -> bool:
        """Return whether the handlers of the bot's start are to run here: once, whenever the bot was taken over."""
        is_due, self._is_start_due = self._is_start_due, False
        return is_due

    async def wait_for_start(self) -> None:
        """Wait until `take_start` may return true."""
        await self._start_requested.wait()

    async def announce_stop(self) -> None:
        """Run the handlers of the bot's stop, once: a process that stops gives its shards up at the same time."""
        if not self._has_announced_stop:
            self._has_announced_stop = True
            context = self._context
            await self._scheduler.announce(BotStopping(bot=context.user, occurred_on=context.now))

    def lose(self, shards: frozenset[int]) -> None:
        """Drop the work in these shards at once, without writing anything: another process may do it already."""
        self._loading -= shards
        self._context.loaded -= shards
        self._remove(shards)

    def _remove(self, shards: Collection[int]) -> None:
        gone = self._held.intersection(shards)
        self._held -= gone
        for shard in shards:
            self._ending.pop(shard, None)
        self._context.crashed.difference_update(shards)
        self._counted.difference_update(shards)
        self._write_behind.forget_lost(lambda thread: self._shard(thread) in shards)
        # Also what is only being read: the schedules of a bot would run here, although another process runs them.
        self._context.conversations.forget(lambda thread: self._shard(thread) in shards)
        if not gone:
            return
        scheduler = self._scheduler
        for thread in [thread for thread in scheduler.lanes if shard_of(thread) in gone]:
            scheduler.remove(thread)
        scheduler.unfinished = {
            thread: attempt for thread, attempt in scheduler.unfinished.items() if self._shard(thread) not in gone
        }
        if self._shard(None) in gone:
            scheduler.remove_threadless_lane()
            self._watcher.restart(None)
            self._is_start_due = False
        scheduler.ended.notify()  # a stop may wait for lanes that were removed

    # ── what other processes tell ─────────────────────────────────────────────────────────────────────────────────

    async def receive(self, note: BotNote) -> None:
        """Do what another process asks for in threads that are owned here.

        Raises:
            StoreError: The store could not be read; `find_missed` finds what the note said.
        """
        async with self._lock:  # a takeover that reads the same threads ends first
            if not self._is_running:
                return
            match note:
                case ThreadsListed():
                    self._watcher.receive(note)
                case ActionsAdded(_, actions):
                    await self._add_actions(actions)
                case TimersDropped(_, ids):
                    self._context.conversations.drop_timers(ids)
                case DialogsDropped(_, ids):
                    self._context.conversations.drop_dialogs(ids)
                case LettersChanged(_, ids):
                    await self._review_letters(ids)
                case ListAgain():
                    if self._context.owns_bot:
                        self._watcher.list_again()
                case ThreadNotified(_, thread):
                    if self._context.owns(thread):
                        self._watcher.handle_notification(thread)

    async def _add_actions(self, actions: Iterable[tuple[ThreadId, ActionKey]]) -> None:
        """Hand actions that another process has committed to the outboxes of their threads."""
        for thread, key in actions:
            # One that was read with its thread may have been sent by now, which the store may not show yet.
            if not self._context.owns(thread) or key in self._taken_rows or self._knows(thread, key):
                continue
            row = await self._context.find_row(key)
            if row is not None and row.status is RowStatus.PENDING:
                self._scheduler.route([row])

    async def _review_letters(self, ids: Collection[str]) -> None:
        """Retry dead letters as an operator has requested, and cancel retries of those that were dropped."""
        stored = {letter.id: letter for letter in await self._context.store.dead_letters(self._context.user)}
        gone = set(ids) - stored.keys()
        for lane in self._scheduler.all_lanes:
            lane.drop_letters(lambda letter: letter.id in gone)
        self._queue_letters(stored[id] for id in ids if id in stored)

    def _queue_letters(self, letters: Iterable[DeadLetter]) -> None:
        for letter in letters:
            if letter.is_revived and self.owns_letter(letter) and not self._queue_letter(letter):
                self._context.log.warning(
                    "dead_letter.postponed", letter=letter.id, reason="the bot is not in its thread"
                )

    def owns_letter(self, letter: DeadLetter) -> bool:
        """Return whether a retry of a dead letter would be made here."""
        thread = _thread_of(letter)
        return self._context.owns_bot if thread is None else self._context.owns(thread)

    async def finish_takeover(self) -> None:
        """Wait until what is being read from the store is in memory."""
        async with self._lock:
            pass

    async def find_missed(self) -> None:
        """Find actions and retries that no note has reported, and timers that were canceled, in threads owned here.

        What is found twice in a row was missed. Once is not enough: while the store is read, actions are settled and
        timers fire.
        """
        async with self._lock:
            try:
                await self._find_missed()
            except StoreError as error:
                self._context.ongoing.record_failure("store", error)

    async def _find_missed(self) -> None:
        context, scheduler = self._context, self._scheduler
        known_before = set(context.conversations.timers)
        rows = {
            row.key: row
            for row in await context.store.pending(context.user)
            if context.owns(row.thread) and context.serves(row.thread) and not self._knows(row.thread, row.key)
        }
        timers = {timer.id for timer in await context.store.timers(context.user)}
        gone = {id for id in known_before - timers if context.conversations.knows_timer(id)}
        letters = {
            letter.id: letter
            for letter in await context.store.dead_letters(context.user)
            if letter.is_revived and self.owns_letter(letter) and not self._is_queued(letter)
        }
        again = self._missed
        self._missed = frozenset({*rows, *gone, *letters})
        missed = [row for key, row in rows.items() if key in again]
        if missed:
            context.log.warning("actions.missed", actions=len(missed))
            scheduler.route(missed)
        context.conversations.drop_timers(gone & again)
        for id in letters.keys() & again:
            self._queue_letter(letters[id])

    def _is_queued(self, letter: DeadLetter) -> bool:
        return any(lane.is_waiting(letter) for lane in self._scheduler.all_lanes)

    def _knows(self, thread: ThreadId, key: ActionKey) -> bool:
        lane = self._scheduler.lanes.get(thread)
        return lane is not None and lane.commits.knows(key)


def _thread_of(letter: DeadLetter) -> ThreadId | None:
    return letter.event.thread if isinstance(letter.event, ThreadEvent) else None


def _last_ms(record: ThreadRecord) -> int:
    """Return the time of the last change that is known in a thread, epoch ms."""
    return max(record.base, max(record.seen.values(), default=0))


@contextmanager
def _no_search_for_garbage() -> Iterator[None]:
    """Search for no garbage in a block that keeps what it makes: of 100,000 lanes, that takes as long as making them.

    Nothing in the block may wait: the whole process does without the search meanwhile.
    """
    is_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if is_enabled:
            gc.enable()
