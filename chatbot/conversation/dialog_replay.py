"""One run of a dialog's function: first along its journal, where nothing is done again, then on into new steps.

The part behind the journal's last boundary belongs to the event in hand. It may have been run before, by a try that
failed: what it said is said under the same keys, and what it ran is not run again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final, NoReturn

from chatbot.actions import ActionKey, KeyedAction, SendMessage, action_key, readable
from chatbot.conversation import journal
from chatbot.conversation.idempotency import perform, refuse_inside_effect, result_form
from chatbot.conversation.journal import Entry, JournalStep
from chatbot.durations import LONGEST
from chatbot.errors import DialogCancelled, DialogDiverged, DialogTimeout
from chatbot.model import Participant, TimerId, UserId
from chatbot.stores.records import DialogRecord, TimerRecord
from chatbot.stores.serialization import check_size, form_of, to_json
from chatbot.stores.writes import DropTimer, SetTimer

_PEOPLE: Final = form_of(list[Participant], "the participants")


PARTICIPANTS: Final = "chatbot.participants"
"""What stands in a journal for the question who is in the thread."""


class Suspended(BaseException):
    """Ends a run whose dialog waits for an answer; not for authors, whose `except Exception` lets it pass."""


@dataclass(slots=True)
class Replay:
    """A dialog as it is being run.

    Args:
        record: the dialog.
        entries: its journal; the last boundary is of the event in hand.
        event_key: the event in hand.
        now_ms: the time, epoch ms.
        save: makes a record durable at once.
        enter: tells whoever holds the states which part is run: what was read in it then, or None for the last part,
            in which they are what they are.
        wishes: what was said.
        timers: the timers that were set and cancelled.
        is_suspended: it waits for an answer.
        is_refused: the answer in hand was none; it goes on waiting for the same.
        diverged: the code is not that of the journal.
    """

    record: DialogRecord
    entries: list[Entry]
    event_key: str
    now_ms: int
    save: Callable[[DialogRecord], Awaitable[None]]
    enter: Callable[[Entry | None], None]
    keyed_actions: list[KeyedAction] = field(default_factory=list)
    timers: list[SetTimer | DropTimer] = field(default_factory=list)
    is_suspended: bool = False
    is_refused: bool = False
    diverged: DialogDiverged | None = None
    _index: int = 0
    _deadline_ms: int | None = None

    @property
    def current(self) -> DialogRecord:
        """The dialog as it is now."""
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
        """Whether anything has happened in it."""
        return len(self.entries) > 1

    @property
    def at_rest(self) -> DialogRecord:
        """The dialog as it is kept when the event in hand is given up: that event, handled again, goes on from here."""
        if self.entries[-1].step is JournalStep.ASKED:
            del self.entries[-1]
        return replace(self.current, is_waiting=False, deadline_ms=None)

    def note_states(self, states: Mapping[str, str | None]) -> None:
        """Note in the journal what was read in the part that is about to be committed."""
        index = journal.last_boundary(self.entries)
        self.entries[index] = replace(self.entries[index], states=states)

    def begin(self) -> None:
        """Take the first step, which is the event that it began with."""
        self._next_entry((JournalStep.BEGAN,), "")

    def end(self) -> None:
        """The function has ended, or waits.

        Raises:
            DialogDiverged: it should have gone on.
        """
        if self.diverged is not None:
            raise self.diverged
        if self._index < len(self.entries) and not self.is_suspended:
            self._diverge(f"it ended where it {self.entries[self._index].step} before")

    @property
    def is_replaying(self) -> bool:
        """Whether the step that comes next is of a part that is committed already."""
        return self._index <= journal.last_boundary(self.entries)

    def say(self, action: SendMessage) -> ActionKey:
        """Say something, unless it was said before; returns its key."""
        index = self._index
        self._take_step(JournalStep.SAID, action.thread or "")
        if index > journal.last_boundary(self.entries):
            self._add_action(index, action)
        return self._key(index)

    def set_timer(self, handler: str, plan: Callable[[], tuple[int, str]], caused_by: UserId) -> TimerId:
        """Set a timer, unless it was set before; returns its id.

        Args:
            handler: the qualified name of the timer's function.
            plan: gives when it is due, epoch ms, and its payload; not called for a part that is committed.
            caused_by: whose doing it is.
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
        """Cancel a timer, unless it was cancelled before."""
        index = self._index
        self._take_step(JournalStep.CANCELLED_TIMER, "")
        if index > journal.last_boundary(self.entries):
            self.timers.append(DropTimer(id))

    async def participants(self, ask: Callable[[], Awaitable[Sequence[Participant]]]) -> Sequence[Participant]:
        """Who is in the thread; in later runs, who was in it then."""
        entry = self._next_entry((JournalStep.RAN,), PARTICIPANTS)
        if entry is not None:
            found: list[Participant] = _PEOPLE.decode(entry.value, "the participants")
            return found
        people = list(await ask())
        # Asking changes nothing, so this need not be durable before the part is committed.
        self._add(Entry(JournalStep.RAN, PARTICIPANTS, _PEOPLE.encode(people, "the participants")))
        return people

    def ask(self, question: SendMessage, timeout: timedelta | None, written: str | None = None) -> str:
        """The answer to a question.

        Args:
            question: what is said.
            timeout: how long to wait; None is for ever.
            written: the question as it stands in the author's source, if it does: kept with the dialog that waits, so
                that a later version of the code can be compared with it. It must hold nobody's words.

        Raises:
            Suspended: it is still to come.
            DialogTimeout: it did not come in time.
            DialogCancelled: the person does not want to go on.
        """
        index, mark = self._index, journal.mark_of(question.content)
        entry = self._next_entry((JournalStep.ANSWERED, JournalStep.TIMED_OUT, JournalStep.CANCELLED), mark)
        if entry is None:
            self._add(Entry(JournalStep.ASKED, mark, written))
            self._add_action(index, question)
            if timeout is not None and timeout <= LONGEST:  # beyond that nobody waits, and no date can be computed
                self._deadline_ms = self.now_ms + max(0, int(timeout.total_seconds() * 1000))
            self._suspend()
        elif entry.step is JournalStep.TIMED_OUT:
            raise DialogTimeout(DialogTimeout.__doc__)
        elif entry.step is JournalStep.CANCELLED:
            raise DialogCancelled(DialogCancelled.__doc__)
        assert entry is not None
        return str(entry.value)

    def refuse(self, complaint: str) -> None:
        """The answer that was given last is none: say so, and go on waiting.

        Raises:
            Suspended: always, unless the answer was good enough before.
        """
        if self._index != len(self.entries):
            self._diverge("an answer does not do that did before")
        key = action_key(self.record.event.bot, self.record.thread, self.event_key, f"{self.record.handler}:again", 0)
        self.keyed_actions.append(KeyedAction(key, SendMessage(readable(complaint, self.record.handler))))
        self.is_refused = True
        self._suspend()

    async def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The result of a function, which is called unless it was before; remembered at once.

        Raises:
            CannotStore: the result cannot be remembered; what the function did is done.
        """
        name = getattr(function, "__qualname__", None) or type(function).__qualname__
        form = result_form(function)
        entry = self._next_entry((JournalStep.RAN,), name)
        if entry is None:
            result = await perform("talk.run", function, *args, **kwargs)
            encoded = form.encode(result, f"the result of {name}")
            check_size(to_json(encoded), f"the result of {name}")
            self._add(Entry(JournalStep.RAN, name, encoded))
            await self.save(self.current)
            return result
        return form.decode(entry.value, f"the result of {name}")

    def _next_entry(self, steps: tuple[JournalStep, ...], label: str) -> Entry | None:
        """The next entry, which is one of these steps; None behind the last one."""
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
        content = readable(action.content, self.record.handler)
        self.keyed_actions.append(KeyedAction(self._key(index), replace(action, content=content)))

    def _key(self, index: int) -> ActionKey:
        """The key of what is asked for at this step: the same in every run."""
        record = self.record
        return action_key(record.event.bot, record.thread, f"dialog:{record.id}", record.handler, index)

    def _suspend(self) -> None:
        self.is_suspended = True
        raise Suspended

    def _diverge(self, how: str) -> NoReturn:
        self.diverged = DialogDiverged(
            f"the dialog {self.record.handler} was changed while it was under way, or does not do the same each time:"
            f" {how}; let what may come out differently go through `await talk.run(…)`, or put the code back; then"
            " revive this dead letter, or drop it"
        )
        raise self.diverged
