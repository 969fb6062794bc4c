"""Keep a bot's timers, schedules and waiting dialogs in memory, and tell what is due.

There is one `Conversations` for each bot. It changes only after a commit, by the committed writes, so that memory never
holds what the store does not. Timers and dialogs share this file because they share one queue of due times, and because
leaving a thread parks both.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import anyio

from chatbot.conversation import journal
from chatbot.conversation.due_queue import DueQueue
from chatbot.conversation.schedules import Schedule
from chatbot.conversation.unit_of_work import UnitOfWork
from chatbot.events import DialogTimedOut, Event, MessageReceived, ScheduleFired, TimerFired
from chatbot.model import ThreadId, UserId
from chatbot.stores.base import Store
from chatbot.stores.records import DeadLetter, DialogRecord, StateKey, StoredState, TimerRecord, letter_id
from chatbot.stores.writes import (
    DropDialog,
    DropTimer,
    EnterThread,
    LeaveThread,
    SaveDeadLetter,
    SaveDialog,
    SetTimer,
    Write,
)

SCHEDULE: Final = "schedule:"
"""Prefix of the ids of a schedule's timers; the handler's qualified name follows."""

CLOCK_READINGS: Final = 5
"""How many readings of the service's clock are kept. Their median counts, so one outlier changes nothing."""

CLOCK_TOLERANCE_MS: Final = 30_000
"""Smaller differences are ignored: the service floors its `Date`, which lags by up to 1.5 s (recorded sessions)."""


class Conversations:
    """Timers, schedules and dialogs of one bot.

    Args:
        bot: the bot's own user.
        store: opened by the caller.
        clock: wall time in epoch seconds.
        shards: returns the shards of a thread, or of what belongs to no thread, for a commit.

    Attributes:
        changed: set when something becomes due earlier than before; a new event has replaced it by then.
        recorded_run: returns what a dialog's `run` call returned in a recorded conversation; set by replays.
    """

    def __init__(
        self,
        bot: UserId,
        store: Store,
        *,
        clock: Callable[[], float] = time.time,
        shards: Callable[[ThreadId | None], frozenset[int]] = lambda _thread: frozenset(),
    ) -> None:
        self.bot = bot
        self.changed = anyio.Event()
        self.recorded_run: Callable[[str, int, str], Sequence[Any]] = lambda *_: ()
        self._store = store
        self._clock = clock
        self._shards = shards
        self._schedules: Mapping[str, Schedule] = {}
        self._dialogs: dict[str, DialogRecord] = {}
        self._by_person: dict[tuple[ThreadId, UserId | None], list[str]] = {}
        self._timers: dict[str, TimerRecord] = {}
        self._due_queue = DueQueue[str, int]()
        self._collected: dict[ThreadId | None, list[str]] = {}
        self._parked: set[ThreadId] = set()
        self._clock_errors: deque[int] = deque(maxlen=CLOCK_READINGS)
        self._correction_ms = 0

    # ── clock and store ───────────────────────────────────────────────────────────────────────────────────────

    @property
    def now_ms(self) -> int:
        """The time, epoch ms: this machine's, corrected to the service's if they differ by more than the tolerance."""
        return int(self._clock() * 1000) + self._correction_ms

    @property
    def has_service_time(self) -> bool:
        """Whether the service has reported its time since the start."""
        return bool(self._clock_errors)

    def note_service_time(self, service_ms: int) -> None:
        """Compare this machine's clock with the time that the service has just reported, epoch ms.

        A timer that is set for "in an hour" while this machine's clock is wrong is due one hour later by the service's
        clock, even if the machine's clock is corrected or the bot is restarted before then.
        """
        self._clock_errors.append(service_ms - int(self._clock() * 1000))
        error_ms = sorted(self._clock_errors)[(len(self._clock_errors) - 1) // 2]  # the median
        correction_ms = error_ms if abs(error_ms) > CLOCK_TOLERANCE_MS else 0
        if abs(correction_ms - self._correction_ms) > CLOCK_TOLERANCE_MS:
            self._correction_ms = correction_ms
            self._wake()

    def clock_changed(self) -> None:
        """Check again what is due, because the clock was set."""
        self._wake()

    def unit_of_work(self, event: Event) -> UnitOfWork:
        """Begin the unit of work of an event, with the dialog that the event continues, if any."""
        return UnitOfWork(event, self, pending=self._pending(event), now_ms=self.now_ms)

    def _pending(self, event: Event) -> DialogRecord | None:
        """Return the dialog that an event continues: one that has handled it before, else the one that asked last."""
        if isinstance(event, DialogTimedOut):
            record = self._dialogs.get(event.dialog)
            return record if record and (record.event_key == event.key or record.is_waiting) else None
        if not isinstance(event, MessageReceived):
            return None
        ids = self._by_person.get((event.thread, event.message.sender), ())
        records = [self._dialogs[id] for id in ids]
        taken = [record for record in records if record.event_key == event.key]
        waiting = [record for record in records if record.is_waiting]
        found = taken or waiting
        return found[-1] if found else None

    def dialogs_like(self, record: DialogRecord) -> list[str]:
        """Return the ids of other dialogs of the same function with the same person in the same thread."""
        ids = self._by_person.get((record.thread, record.user), ())
        return [id for id in ids if id != record.id and self._dialogs[id].handler == record.handler]

    async def state(self, key: StateKey) -> StoredState | None:
        """Return a state as it was last committed."""
        return await self._store.state(self.bot, key)

    async def result(self, key: str) -> str | None:
        """Return the stored result of a `ctx.once` call."""
        return await self._store.result(self.bot, key)

    async def commit(self, writes: Sequence[Write], thread: ThreadId | None = None) -> None:
        """Commit writes of an event in this thread, or in none: all of them or none. Then apply them."""
        await self._store.commit(self.bot, writes, shards=self._shards(thread))
        self.apply(writes)

    def apply(self, writes: Sequence[Write]) -> None:
        """Apply writes to what is held in memory. Call it after their commit, never before it."""
        for write in writes:
            self._apply(write)

    def _apply(self, write: Write) -> None:
        match write:
            case SetTimer(record):
                self._add_timer(record)
            case DropTimer(id):
                self._drop_timer(id)
            case LeaveThread(thread):
                self._park(thread)
            case EnterThread(thread):
                self._unpark(thread)
            case SaveDialog(dialog):
                self._save_dialog(dialog)
            case DropDialog(id):
                self._drop_dialog(id)
            case _:
                pass

    # ── parking ───────────────────────────────────────────────────────────────────────────────────────────────

    def _park(self, thread: ThreadId) -> None:
        """Stop timers and deadlines of a thread that the bot has left; the store keeps them."""
        self._parked.add(thread)
        for id in [*self._in_thread(thread)]:
            self._remove_due(id, thread)

    def _unpark(self, thread: ThreadId) -> None:
        """Resume timers and deadlines of a thread that the bot is in again; overdue ones are due now."""
        self._parked.discard(thread)
        for id, due_ms in self._in_thread(thread).items():
            if due_ms is not None:
                self._set_due(id, due_ms, thread)

    def _in_thread(self, thread: ThreadId) -> dict[str, int | None]:
        """Return when each timer and dialog of a thread is due; None for a dialog that has no deadline."""
        timers = {timer.id: timer.due_ms for timer in self._timers.values() if timer.thread == thread}
        dialogs = {
            dialog.id: dialog.deadline_ms if dialog.is_waiting else None
            for dialog in self._dialogs.values()
            if dialog.thread == thread
        }
        return {**timers, **dialogs}

    def has_pending(self, thread: ThreadId) -> bool:
        """Return whether a thread has a timer or a dialog."""
        return bool(self._in_thread(thread))

    def give_up(self, thread: ThreadId, reason: str) -> list[Write]:
        """Return writes that turn the timers and dialogs of a thread into dead letters, as the bot will not return.

        Args:
            thread: the thread.
            reason: the error of the dead letters, one line.
        """
        writes: list[Write] = []
        for timer in [timer for timer in self._timers.values() if timer.thread == thread]:
            writes += [
                self._dead_letter(thread, self._event_of(timer), timer.handler, reason, timer.caused_by),
                DropTimer(timer.id),
            ]
        for dialog in [dialog for dialog in self._dialogs.values() if dialog.thread == thread]:
            if dialog.is_waiting:
                writes.append(self._dead_letter(thread, dialog.event, dialog.handler, reason, dialog.user))
            writes.append(DropDialog(dialog.id))
        return writes

    def _dead_letter(
        self, thread: ThreadId, event: Event, handler: str, reason: str, caused_by: UserId | None
    ) -> SaveDeadLetter:
        return SaveDeadLetter(
            DeadLetter(
                id=letter_id(self.bot, thread, event.key),
                event=event,
                handler=handler,
                error=reason,
                attempts=0,
                died_ms=self.now_ms,
                caused_by=caused_by,
            )
        )

    # ── dialogs ───────────────────────────────────────────────────────────────────────────────────────────────

    def _save_dialog(self, record: DialogRecord) -> None:
        self._drop_dialog(record.id)
        self._dialogs[record.id] = record
        self._by_person.setdefault((record.thread, record.user), []).append(record.id)
        if record.is_waiting and record.deadline_ms is not None:
            self._set_due(record.id, record.deadline_ms, record.thread)

    def _drop_dialog(self, id: str) -> None:
        record = self._dialogs.pop(id, None)
        if record is None:
            return
        person = (record.thread, record.user)
        self._by_person[person].remove(id)
        if not self._by_person[person]:
            del self._by_person[person]
        self._remove_due(id, record.thread)

    # ── timers ────────────────────────────────────────────────────────────────────────────────────────────────

    def clear(self) -> None:
        """Forget everything, at the start of the bot."""
        self._parked, self._schedules = set(), {}
        self._timers, self._due_queue, self._collected = {}, DueQueue[str, int](), {}
        self._dialogs, self._by_person = {}, {}

    async def load(
        self,
        schedules: Mapping[str, Schedule],
        parked: Collection[ThreadId] = (),
        *,
        is_wanted: Callable[[ThreadId | None], bool] = lambda _thread: True,
    ) -> None:
        """Read timers and dialogs from the store, and start these schedules.

        A schedule that was due while the bot was not running is due now, once.

        Args:
            schedules: by the qualified names of their handlers.
            parked: threads that the bot is not in; nothing becomes due there.
            is_wanted: returns whether to read those of a thread; None stands for schedules. Asked as late as possible:
                a thread may be lost while the store is being read.
        """
        dialogs = await self._store.dialogs(self.bot)
        timers = await self._store.timers(self.bot)
        self._parked.update(thread for thread in parked if is_wanted(thread))
        for dialog in dialogs:
            if is_wanted(dialog.thread):
                self._save_dialog(dialog)
        for record in timers:
            if is_wanted(record.thread):
                self._add_timer(record)
        if is_wanted(None):
            await self.reschedule(schedules)

    def forget(self, is_lost: Callable[[ThreadId | None], bool]) -> None:
        """Forget the timers and dialogs of threads that another process serves now; None stands for schedules."""
        for dialog in [dialog for dialog in self._dialogs.values() if is_lost(dialog.thread)]:
            self._drop_dialog(dialog.id)
        for timer in [timer for timer in self._timers.values() if is_lost(timer.thread)]:
            self._drop_timer(timer.id)
        self._parked = {thread for thread in self._parked if not is_lost(thread)}
        self._collected = {thread: ids for thread, ids in self._collected.items() if ids}

    async def reschedule(self, schedules: Mapping[str, Schedule]) -> None:
        """Replace the schedules: new and changed ones start now, removed ones end, others go on."""
        self._schedules = schedules
        writes = [*self._end_old_schedules(), *self._start_new_schedules()]
        if writes:
            await self.commit(writes)

    def erase(self, user: UserId) -> None:
        """Drop dialogs and timers of a person, and those that name them; the store has erased them already."""
        for dialog in list(self._dialogs.values()):
            if dialog.user == user or user in dialog.journal:
                self._drop_dialog(dialog.id)
        for record in list(self._timers.values()):
            if record.caused_by == user or user in record.payload:
                self._drop_timer(record.id)

    def _end_old_schedules(self) -> list[Write]:
        known = {SCHEDULE + name for name in self._schedules}
        return [DropTimer(id) for id in self._timers if id.startswith(SCHEDULE) and id not in known]

    def _start_new_schedules(self) -> list[Write]:
        writes: list[Write] = []
        for name, schedule in self._schedules.items():
            known = self._timers.get(SCHEDULE + name)
            if known is None or known.payload != schedule.text:
                writes += self._next(name, schedule.next_due(self.now_ms))
        return writes

    def _next(self, name: str, due_ms: int | None) -> list[Write]:
        if due_ms is None:
            return [DropTimer(SCHEDULE + name)]
        return [SetTimer(TimerRecord(SCHEDULE + name, name, due_ms, payload=self._schedules[name].text))]

    def _add_timer(self, record: TimerRecord) -> None:
        self._drop_timer(record.id)
        self._timers[record.id] = record
        self._set_due(record.id, record.due_ms, record.thread)

    @property
    def timers(self) -> Collection[str]:
        """The ids of the timers that are set, in threads that this process serves."""
        return self._timers.keys()

    def knows_timer(self, id: str) -> bool:
        """Return whether a timer is set, in a thread that this process serves."""
        return id in self._timers

    def drop_timers(self, ids: Iterable[str]) -> None:
        """Drop timers that another process has canceled; the store has dropped them already."""
        for id in ids:
            self._drop_timer(id)

    def drop_dialogs(self, ids: Iterable[str]) -> None:
        """Forget dialogs that are not stored any more: another process has ended them."""
        for id in ids:
            self._drop_dialog(id)

    def _drop_timer(self, id: str) -> None:
        record = self._timers.pop(id, None)
        if record is not None:
            self._remove_due(id, record.thread)

    def _set_due(self, id: str, due_ms: int, thread: ThreadId | None) -> None:
        if thread in self._parked:
            return
        earliest = self._due_queue.next_due()
        self._due_queue.set(id, due_ms)
        if earliest is None or due_ms < earliest:
            self._wake()

    def _wake(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()

    def _remove_due(self, id: str, thread: ThreadId | None) -> None:
        self._due_queue.drop(id)
        if id in self._collected.get(thread, ()):
            self._collected[thread].remove(id)

    def next_due_ms(self) -> int | None:
        """Return when the next timer or deadline is due, epoch ms; None if there is none."""
        return self._due_queue.next_due()

    def collect_due(self) -> set[ThreadId | None]:
        """Move everything that is due to its thread, and return these threads; None stands for schedules."""
        threads = set()
        while (id := self._due_queue.pop_due(self.now_ms)) is not None:
            thread = (self._timers.get(id) or self._dialogs[id]).thread
            self._collected.setdefault(thread, []).append(id)
            threads.add(thread)
        return threads

    def is_due(self, thread: ThreadId | None) -> bool:
        """Return whether something is due in the thread, or is due anywhere and not collected yet."""
        due = self._due_queue.next_due()
        return bool(self._collected.get(thread)) or (due is not None and due <= self.now_ms)

    def first_due(self, thread: ThreadId | None) -> tuple[Event, list[Write]] | None:
        """Return the event that is due first in a thread, and the writes to commit with it.

        It stays due until these writes are applied: if the commit fails, the next call returns it again.
        """
        for id in [*self._collected.get(thread, ())]:
            record = self._timers.get(id)
            due_ms = self._dialogs[id].deadline_ms if record is None else record.due_ms
            if due_ms is not None and due_ms > self.now_ms:  # the clock was wrong when it was collected
                self._remove_due(id, thread)
                self._set_due(id, due_ms, thread)
            elif record is None:
                return self._timeout_of(self._dialogs[id])
            else:
                return self._event_of(record), self._writes_after(record)
        return None

    def _timeout_of(self, record: DialogRecord) -> tuple[Event, list[Write]]:
        event = DialogTimedOut(
            bot=self.bot,
            thread=record.thread,
            occurred_on=_time_of(self.now_ms),
            dialog=record.id,
            user=record.user,
            step=journal.steps(record.journal) - 1,
        )
        return event, [SaveDialog(replace(record, deadline_ms=None))]

    def _event_of(self, record: TimerRecord) -> Event:
        now, due = _time_of(self.now_ms), _time_of(record.due_ms)
        if record.thread is None:
            return ScheduleFired(bot=self.bot, occurred_on=now, schedule=record.handler, due=due)
        return TimerFired(
            bot=self.bot,
            thread=record.thread,
            occurred_on=now,
            timer=record.handler,
            id=record.id,
            due=due,
            payload=record.payload,
            caused_by=record.caused_by,
        )

    def _writes_after(self, record: TimerRecord) -> list[Write]:
        schedule = self._schedules.get(record.handler) if record.thread is None else None
        if schedule is None:
            return [DropTimer(record.id)]
        return self._next(record.handler, schedule.next_due(self.now_ms, record.due_ms))


def _time_of(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
