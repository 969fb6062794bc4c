"""Replay a dialog's function along its journal, without repeating effects, then let it take new steps.

The part after the journal's last boundary belongs to the current event. An earlier attempt that failed may have run it
before: its messages then get the same keys, and its `run` calls are not repeated.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final, NoReturn

from chatbot.actions import ActionKey, KeyedAction, SendMessage, action_key, make_encodable
from chatbot.conversation import journal
from chatbot.conversation.idempotency import perform, refuse_inside_effect, result_form
from chatbot.conversation.journal import Entry, JournalStep
from chatbot.durations import LONGEST
from chatbot.errors import DialogCancelled, DialogDiverged, DialogTimeout
from chatbot.message_size import check_count
from chatbot.model import Participant, TimerId, UserId
from chatbot.stores.records import DialogRecord, TimerRecord
from chatbot.stores.serialization import check_size, form_of, to_json
from chatbot.stores.writes import DropTimer, SetTimer

_PEOPLE: Final = form_of(list[Participant], "the participants")


PARTICIPANTS: Final = "chatbot.participants"
"""The label of a journal entry that holds the participants of the thread."""


class Suspended(BaseException):
    """Ends a run that waits for an answer. A `BaseException`, so that `except Exception` does not catch it."""


@dataclass(slots=True)
class Replay:
    """One run of a dialog.

    Args:
        record: the dialog.
        entries: its journal; the last boundary belongs to the current event.
        event_key: the key of the current event.
        now_ms: the time, epoch ms.
        save: commits a record immediately.
        enter: called when a part of the journal begins, with its entry, which holds the states as they were then; with
            None for the current part, where states have their current values.
        keyed_actions: messages to send.
        timers: timers that were set and canceled.
        is_suspended: the dialog waits for an answer.
        is_rejected: the current answer was not valid; the dialog goes on waiting for one.
        recorded: returns what a `run` call returned in a recorded conversation that is replayed: the encoded result in
            a list, or nothing. It gets the dialog's id, the number of the step, and the name of the function.
        diverged: the error if the code does not match the journal.
    """

    record: DialogRecord
    entries: list[Entry]
    event_key: str
    now_ms: int
    save: Callable[[DialogRecord], Awaitable[None]]
    enter: Callable[[Entry | None], None]
    recorded: Callable[[str, int, str], Sequence[Any]] = lambda *_: ()
    keyed_actions: list[KeyedAction] = field(default_factory=list)
    timers: list[SetTimer | DropTimer] = field(default_factory=list)
    is_suspended: bool = False
    is_rejected: bool = False
    diverged: DialogDiverged | None = None
    _index: int = 0
    _deadline_ms: int | None = None

    @property
    def current(self) -> DialogRecord:
        """The record to store for the dialog in its current state."""
        return replace(
            self.record,
            journal=journal.dump(self.entries),
            event_key=self.event_key,
            is_waiting=self.is_suspended,
            deadline_ms=self._deadline_ms,
            changed_ms=self.now_ms,
        )

    @property
    def has_begun(self) -> bool:
        """Whether the dialog has taken a step."""
        return len(self.entries) > 1

    @property
    def before_current_event(self) -> DialogRecord:
        """The record to store if the current event is given up: handling that event again continues from here."""
        if self.entries[-1].step is JournalStep.ASKED:
            del self.entries[-1]
        return replace(self.current, is_waiting=False, deadline_ms=None)

    def note_states(self, states: Mapping[str, str | None]) -> None:
        """Record in the journal the states that the current part has read."""
        index = journal.last_boundary(self.entries)
        self.entries[index] = replace(self.entries[index], states=states)

    def begin(self) -> None:
        """Take the first step, the event that the dialog began with."""
        self._next_entry((JournalStep.BEGAN,), "")

    def end(self) -> None:
        """Check that the function, which has ended or waits, has used up the journal.

        Raises:
            DialogDiverged: the journal has further steps.
        """
        if self.diverged is not None:
            raise self.diverged
        if self._index < len(self.entries) and not self.is_suspended:
            self._diverge(f"it ended where it {self.entries[self._index].step} before")

    @property
    def is_replaying(self) -> bool:
        """Whether the next step belongs to a part that is already committed."""
        return self._index <= journal.last_boundary(self.entries)

    def say(self, action: SendMessage) -> ActionKey:
        """Send a message, unless it was sent before, and return its key."""
        index = self._index
        self._take_step(JournalStep.SAID, action.thread or "")
        if index > journal.last_boundary(self.entries):
            check_count(len(self.keyed_actions))
            self._add_action(index, action)
        return self._key(index)

    def set_timer(self, handler: str, plan: Callable[[], tuple[int, str]], caused_by: UserId) -> TimerId:
        """Set a timer, unless it was set before, and return its id.

        Args:
            handler: the qualified name of the timer's function.
            plan: returns the due time, epoch ms, and the payload; not called for a committed part.
            caused_by: the person who caused it.
        """
        index, entry = self._index, self._next_entry((JournalStep.SET_TIMER,), handler)
        id = TimerId(self._key(index))
        if index <= journal.last_boundary(self.entries):
            return id
        due_ms, payload = plan()
        if entry is None:
            self._add(Entry(JournalStep.SET_TIMER, handler, due_ms))
        else:
            due_ms = int(entry.value)  # another attempt counts from when the first one ran
        self.timers.append(SetTimer(TimerRecord(id, handler, due_ms, self.record.thread, payload, caused_by)))
        return id

    def cancel_timer(self, id: TimerId) -> None:
        """Cancel a timer, unless it was canceled before."""
        index = self._index
        self._take_step(JournalStep.CANCELLED_TIMER, "")
        if index > journal.last_boundary(self.entries):
            self.timers.append(DropTimer(id))

    async def participants(self, ask: Callable[[], Awaitable[Sequence[Participant]]]) -> Sequence[Participant]:
        """Return who is in the thread; in later runs, who was in it at the first run."""
        entry = self._next_entry((JournalStep.RAN,), PARTICIPANTS)
        if entry is not None:
            found: list[Participant] = _PEOPLE.decode(entry.value, "the participants")
            return found
        people = list(await ask())
        # Listing participants has no effect, so it need not be durable before the part is committed.
        self._add(Entry(JournalStep.RAN, PARTICIPANTS, _PEOPLE.encode(people, "the participants")))
        return people

    def ask(self, question: SendMessage, timeout: timedelta | None, written: str | None = None) -> str:
        """Return the answer to a question; send the question and suspend the run if there is none yet.

        Args:
            question: the message to send.
            timeout: how long to wait; None waits without limit.
            written: the question as it stands in the author's source, if it does. It is stored with the waiting dialog,
                so that a later version of the code can be compared with it, and must not quote people.

        Raises:
            Suspended: there is no answer yet.
            DialogTimeout: no answer came in time.
            DialogCancelled: the person cancelled the dialog.
        """
        index, mark = self._index, journal.mark_of(question.content)
        entry = self._next_entry((JournalStep.ANSWERED, JournalStep.TIMED_OUT, JournalStep.CANCELLED), mark)
        if entry is None:
            self._add(Entry(JournalStep.ASKED, mark, written))
            self._add_action(index, question)
            if timeout is not None and timeout <= LONGEST:  # a longer one would overflow the date
                self._deadline_ms = self.now_ms + max(0, int(timeout.total_seconds() * 1000))
            self._suspend()
        elif entry.step is JournalStep.TIMED_OUT:
            raise DialogTimeout(DialogTimeout.__doc__)
        elif entry.step is JournalStep.CANCELLED:
            raise DialogCancelled(DialogCancelled.__doc__)
        assert entry is not None
        return str(entry.value)

    def reject(self, complaint: str) -> None:
        """Reject the last answer: send the complaint, and wait for another answer.

        Raises:
            Suspended: always, unless an earlier run accepted the answer.
            DialogDiverged: an earlier run accepted the answer.
        """
        if self._index != len(self.entries):
            self._diverge("it refuses an answer that it accepted before")
        key = action_key(self.record.event.bot, self.record.thread, self.event_key, f"{self.record.handler}:again", 0)
        self.keyed_actions.append(KeyedAction(key, SendMessage(make_encodable(complaint, self.record.handler))))
        self.is_rejected = True
        self._suspend()

    async def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return the result of a function; call it only in the first run, and commit its result immediately.

        Raises:
            CannotStore: the result cannot be stored, although the function has run.
        """
        name = getattr(function, "__qualname__", None) or type(function).__qualname__
        form = result_form(function)
        entry = self._next_entry((JournalStep.RAN,), name)
        if entry is None:
            if recorded := self.recorded(self.record.id, self._index, name):
                result = form.decode(recorded[0], f"the result of {name}")
            else:
                result = await perform("talk.run", function, *args, **kwargs)
            encoded = form.encode(result, f"the result of {name}")
            check_size(to_json(encoded), f"the result of {name}")
            self._add(Entry(JournalStep.RAN, name, encoded))
            await self.save(self.current)
            return result
        return form.decode(entry.value, f"the result of {name}")

    def _next_entry(self, steps: tuple[JournalStep, ...], label: str) -> Entry | None:
        """Return the next entry, which must be one of these steps; None after the last one."""
        refuse_inside_effect("a step of the dialog", remedy="take it in the dialog itself, before or after that")
        if self.is_suspended:
            raise Suspended
        if self.diverged is not None:
            raise self.diverged
        if self._index == len(self.entries):
            return None
        entry = self.entries[self._index]
        if entry.step not in steps or entry.label != label:
            self._diverge(f"it {entry.step} before at step {self._index}, and does something else there now")
        if entry.step in journal.BOUNDARIES:
            self.enter(None if self._index == journal.last_boundary(self.entries) else entry)
        self._index += 1
        return entry

    def _take_step(self, step: JournalStep, label: str) -> None:
        if self._next_entry((step,), label) is None:
            self._add(Entry(step, label))

    def _add(self, entry: Entry) -> None:
        self.entries.append(entry)
        self._index += 1

    def _add_action(self, index: int, action: SendMessage) -> None:
        content = make_encodable(action.content, self.record.handler)
        self.keyed_actions.append(KeyedAction(self._key(index), replace(action, content=content)))

    def _key(self, index: int) -> ActionKey:
        """Return the key of the action of a step: the same in every run."""
        record = self.record
        return action_key(record.event.bot, record.thread, f"dialog:{record.id}", record.handler, index)

    def _suspend(self) -> None:
        self.is_suspended = True
        raise Suspended

    def _diverge(self, how: str) -> NoReturn:
        self.diverged = DialogDiverged(
            f"the dialog {self.record.handler} was changed while it was in progress, or does not do the same each time:"
            f" {how}; call what may give different results through `await talk.run(…)`, or restore the code; then"
            " retry this dead letter, or drop it"
        )
        raise self.diverged
