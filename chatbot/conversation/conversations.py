"""What a bot has going on beyond the event in hand: dialogs that wait, timers, and the memory for events to come.

One for each bot. It learns of everything through the bot's commits, so that it knows what the store knows.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

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
"""What the ids of timers begin with that belong to a schedule; the handler's name follows."""

CLOCK_READINGS: Final = 5
"""Readings of the service's clock that are compared; one that is far off the others changes nothing."""

CLOCK_TOLERANCE_MS: Final = 30_000
"""A difference up to this is no error: the service's `Date` is floored, and lags by up to 1.5 s (recorded sessions)."""


class Conversations:
    """The conversations of one bot.

    Args:
        bot: the bot's own user.
        store: its memory, opened by the caller.
        clock: wall time in epoch seconds.

    Attributes:
        changed: set when something is due earlier than before; replaced by then.
    """

    def __init__(self, bot: UserId, store: Store, *, clock: Callable[[], float] = time.time) -> None:
        self.bot = bot
        self.changed = anyio.Event()
        self._store = store
        self._clock = clock
        self._schedules: Mapping[str, Schedule] = {}
        self._dialogs: dict[str, DialogRecord] = {}
        self._by_person: dict[tuple[ThreadId, UserId | None], list[str]] = {}
        self._timers: dict[str, TimerRecord] = {}
        self._due_queue = DueQueue[str, int]()
        self._collected: dict[ThreadId | None, list[str]] = {}
        self._parked: set[ThreadId] = set()
        self._clock_errors: deque[int] = deque(maxlen=CLOCK_READINGS)
        self._correction_ms = 0

    # ── memory ────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def now_ms(self) -> int:
        """The time, epoch ms: this machine's, or the service's where the machine's clock is plainly wrong."""
        return int(self._clock() * 1000) + self._correction_ms

    def note_service_time(self, service_ms: int) -> None:
        """Compare the clocks: the service has just said that it is so late, epoch ms.

        A timer that is set "in an hour" while this machine's clock is wrong is due an hour later by the service's
        clock, whatever the machine's clock is set to meanwhile, restarts included.
        """
        self._clock_errors.append(service_ms - int(self._clock() * 1000))
        error_ms = int(statistics.median_low(self._clock_errors))
        correction_ms = error_ms if abs(error_ms) > CLOCK_TOLERANCE_MS else 0
        if abs(correction_ms - self._correction_ms) > CLOCK_TOLERANCE_MS:
            self._correction_ms = correction_ms
            self._wake()

    def unit_of_work(self, event: Event) -> UnitOfWork:
        """What the handlers of an event remember."""
        return UnitOfWork(event, self, pending=self._pending(event), now_ms=self.now_ms)

    def _pending(self, event: Event) -> DialogRecord | None:
        """The dialog that an event concerns: one that has taken it before, else the one that asked last."""
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
        """The ids of other dialogs of the same function with the same person in the same thread."""
        ids = self._by_person.get((record.thread, record.user), ())
        return [id for id in ids if id != record.id and self._dialogs[id].handler == record.handler]

    async def state(self, key: StateKey) -> StoredState | None:
        """A state as it was last committed."""
        return await self._store.state(self.bot, key)

    async def result(self, key: str) -> str | None:
        """What came of something that was done once."""
        return await self._store.result(self.bot, key)

    async def commit(self, writes: Sequence[Write]) -> None:
        """Make writes durable, all of them or none, and learn what they say."""
        await self._store.commit(self.bot, writes)
        self.apply(writes)

    def apply(self, writes: Sequence[Write]) -> None:
        """Take note of what was written to the store; called after the commit, never before it."""
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
        """Let nothing become due in a thread that the bot is not in; it stays in the store."""
        self._parked.add(thread)
        for id in [*self._in_thread(thread)]:
            self._remove_due(id, thread)

    def _unpark(self, thread: ThreadId) -> None:
        """The bot is in the thread again: what was due meanwhile is due now."""
        self._parked.discard(thread)
        for id, due_ms in self._in_thread(thread).items():
            if due_ms is not None:
                self._set_due(id, due_ms, thread)

    def _in_thread(self, thread: ThreadId) -> dict[str, int | None]:
        """The timers and dialogs of a thread, each with when it is due."""
        timers = {one.id: one.due_ms for one in self._timers.values() if one.thread == thread}
        dialogs = {
            one.id: one.deadline_ms if one.is_waiting else None
            for one in self._dialogs.values()
            if one.thread == thread
        }
        return {**timers, **dialogs}

    def has_pending(self, thread: ThreadId) -> bool:
        """Whether a timer is set or a dialog has begun in a thread."""
        return bool(self._in_thread(thread))

    def give_up(self, thread: ThreadId, reason: str) -> list[Write]:
        """What ends the timers and dialogs of a thread that the bot does not come back to: each becomes a dead letter.

        Args:
            thread: which.
            reason: one line for the letters.
        """
        writes: list[Write] = []
        for timer in [one for one in self._timers.values() if one.thread == thread]:
            writes += [
                self._dead_letter(thread, self._event_of(timer), timer.handler, reason, timer.caused_by),
                DropTimer(timer.id),
            ]
        for dialog in [one for one in self._dialogs.values() if one.thread == thread]:
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

    async def load(self, schedules: Mapping[str, Schedule], parked: Collection[ThreadId] = ()) -> None:
        """Begin with what the store remembers, and with these schedules, by the names of their handlers.

        A schedule that was due meanwhile is due now, once.

        Args:
            schedules: by the names of their handlers.
            parked: the threads that the bot is not in; nothing becomes due there.
        """
        self._parked = set(parked)
        self._timers, self._due_queue, self._collected = {}, DueQueue[str, int](), {}
        self._dialogs, self._by_person = {}, {}
        for dialog in await self._store.dialogs(self.bot):
            self._save_dialog(dialog)
        for record in await self._store.timers(self.bot):
            self._add_timer(record)
        await self.reschedule(schedules)

    async def reschedule(self, schedules: Mapping[str, Schedule]) -> None:
        """Go on with these schedules: one that is new, or was changed, begins now; one that is gone ends."""
        self._schedules = schedules
        writes = [*self._end_old_schedules(), *self._start_new_schedules()]
        if writes:
            await self.commit(writes)

    def forget(self, user: UserId) -> None:
        """Let go of what concerns a person, or names them; the store has forgotten it already."""
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

    def _drop_timer(self, id: str) -> None:
        record = self._timers.pop(id, None)
        if record is not None:
            self._remove_due(id, record.thread)

    def _set_due(self, id: str, due_ms: int, place: ThreadId | None) -> None:
        if place in self._parked:
            return
        earliest = self._due_queue.next_due()
        self._due_queue.set(id, due_ms)
        if earliest is None or due_ms < earliest:
            self._wake()

    def _wake(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()

    def _remove_due(self, id: str, place: ThreadId | None) -> None:
        self._due_queue.drop(id)
        if id in self._collected.get(place, ()):
            self._collected[place].remove(id)

    def next_due_ms(self) -> int | None:
        """When the next timer will ring, epoch ms; None when none will."""
        return self._due_queue.next_due()

    def collect_due(self) -> set[ThreadId | None]:
        """Have everything rung that is due; returns where something is to be handled, None for nowhere."""
        places = set()
        while (id := self._due_queue.pop_due(self.now_ms)) is not None:
            place = (self._timers.get(id) or self._dialogs[id]).thread
            self._collected.setdefault(place, []).append(id)
            places.add(place)
        return places

    def is_due(self, thread: ThreadId | None) -> bool:
        """Whether something is to be handled there, or to be rung anywhere."""
        due = self._due_queue.next_due()
        return bool(self._collected.get(thread)) or (due is not None and due <= self.now_ms)

    def first_due(self, thread: ThreadId | None) -> tuple[Event, list[Write]] | None:
        """What has rung first there, and what is to be committed with it; it stays until that was."""
        for id in [*self._collected.get(thread, ())]:
            record = self._timers.get(id)
            due_ms = self._dialogs[id].deadline_ms if record is None else record.due_ms
            if due_ms is not None and due_ms > self.now_ms:  # the clock was wrong when it rang
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
