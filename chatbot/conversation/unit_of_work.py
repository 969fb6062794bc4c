"""The unit of work of one event: the states, dialogs and timers that its handlers read and change.

Changes are committed together with the event, or discarded if a handler fails. Two effects are committed immediately,
because a retry must not repeat them: the result of `once`, and the journal of a dialog's `run`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TypeAlias

from chatbot.actions import KeyedAction, SendMessage
from chatbot.conversation import journal
from chatbot.conversation.dialog import Dialog, DialogHost, is_cancel
from chatbot.conversation.dialog_replay import Replay, Suspended
from chatbot.conversation.idempotency import perform, result_form
from chatbot.conversation.journal import Entry, JournalStep
from chatbot.conversation.state import Remembered, StateType, person_of
from chatbot.errors import DialogCancelled, DialogTimeout, StateError, TimeTooFar
from chatbot.events import DialogTimedOut, Event, MessageReceived, ThreadEvent
from chatbot.message_size import check_count
from chatbot.model import ThreadId
from chatbot.stores.erasure import NOBODY
from chatbot.stores.records import DialogRecord, StateKey, StoredState, TimerRecord
from chatbot.stores.serialization import check_size, from_json, to_json
from chatbot.stores.writes import DropDialog, DropTimer, SaveDialog, SaveResult, SaveState, SetTimer, Write


class ConversationReader(Protocol):
    """What a unit of work reads from the bot's conversations, and its way to commit immediately."""

    async def state(self, key: StateKey) -> StoredState | None:
        """Return a state as it was last committed."""
        ...

    async def result(self, key: str) -> str | None:
        """Return the stored result of a `ctx.once` call."""
        ...

    async def commit(self, writes: Sequence[Write], thread: ThreadId | None) -> None:
        """Commit writes of an event in this thread, or in none: all of them or none."""
        ...

    def dialogs_like(self, record: DialogRecord) -> list[str]:
        """Return the ids of other dialogs of the same function with the same person in the same thread."""
        ...

    @property
    def recorded_run(self) -> Callable[[str, int, str], Sequence[Any]]:
        """Returns what a dialog's `run` call returned in a recorded conversation; nothing outside of replays."""
        ...


@dataclass(slots=True)
class _Opened:
    """A state that a handler has asked for, and its stored form at that time."""

    kind: StateType
    handle: Remembered[Any]
    found: StoredState | None


class UnitOfWork:
    """What the handlers of one event read and change.

    Args:
        event: the event.
        source: the bot's conversations; None for handlers that are called without a bot.
        pending: the dialog that the event continues: one that waits for it, or that has handled it before.
        now_ms: the time, epoch ms; by default the event's.

    Attributes:
        keyed_actions: messages that dialogs send.
    """

    _resumed: DialogRecord | None = None
    _text = ""
    _replay: Replay | None = None
    _timers = 0

    def __init__(
        self,
        event: Event,
        source: ConversationReader | None = None,
        *,
        pending: DialogRecord | None = None,
        now_ms: int | None = None,
    ) -> None:
        self.pending = pending
        self.keyed_actions: list[KeyedAction] = []
        self._event = event
        self._source = source
        self._given_ms = now_ms
        self._opened: dict[StateKey, _Opened] = {}
        self._writes: list[Write] = []

    @property
    def _now_ms(self) -> int:
        return int(self._event.occurred_on.timestamp() * 1000) if self._given_ms is None else self._given_ms

    @property
    def now(self) -> datetime:
        """The time, UTC."""
        return datetime.fromtimestamp(self._now_ms / 1000, UTC)

    @property
    def has_states(self) -> bool:
        """Whether handlers asked for states, which `writes` stores by classes of plugins."""
        return bool(self._opened)

    async def state(self, kind: StateType) -> Remembered[Any]:
        """Return the state that a handler asks for; all handlers of one event share it.

        Raises:
            StateError: the state belongs to a person and no person caused the event, or the stored form cannot be read.
        """
        source = self._open_source(f"hold a {kind.handle.__name__}")
        key = self._key(kind)
        if key not in self._opened:
            found = await source.state(key)
            value = kind.load(None if found is None else found.value)
            self._opened[key] = _Opened(kind, kind.handle(value), found)
        return self._opened[key].handle

    def set_timer(self, id: str, handler: str, due: datetime, payload: str) -> None:
        """Set a timer; `payload` is JSON text.

        Raises:
            StateError: the event happens in no thread.
        """
        event = self._event
        if not isinstance(event, ThreadEvent):
            msg = f"a timer needs a thread, and {type(event).__name__} happens in none; use @plugin.every or cron"
            raise StateError(msg)
        check_count(self._timers)
        self._timers += 1
        due_ms = int(due.timestamp() * 1000)
        self._writes.append(SetTimer(TimerRecord(id, handler, due_ms, event.thread, payload, person_of(event))))

    def drop_timer(self, id: str) -> None:
        """Cancel a timer; unknown ids change nothing."""
        self._writes.append(DropTimer(id))

    def resume(self, text: str) -> DialogRecord:
        """Resume the pending dialog: the next call of `run_dialog` continues it.

        Args:
            text: the message as plain text.
        """
        assert self.pending is not None
        self._resumed, self._text = self.pending, text
        return self.pending

    async def run_dialog(
        self, handler: str, text: str, cancel_words: tuple[str, ...], function: Function, host: DialogHost
    ) -> Any:
        """Run the resumed dialog, or begin a new one with the sender of the message.

        Args:
            handler: the qualified name of the dialog's function.
            text: the message as plain text.
            cancel_words: words with which the person cancels the dialog.
            function: the dialog's function, with all its other arguments bound.
            host: what the dialog needs from the current event.

        Returns:
            What the function returned, unless it is a text, which is sent.

        Raises:
            DialogDiverged: the dialog's code was changed while it was in progress.
        """
        source = self._open_source("hold a dialog")
        record, is_new = self._resumed, self._resumed is None
        if record is None:
            assert isinstance(self._event, MessageReceived)
            record = new_dialog_record(self._event, handler, self._now_ms)
        performance = Replay(
            record,
            entries_for(record, self._event, text, cancel_words),
            self._event.key,
            self._now_ms,
            save=lambda current: source.commit([SaveDialog(current)], current.thread),
            enter=self._enter_part,
            recorded=source.recorded_run,
        )
        self._replay = performance
        reply = await run_dialog(performance, function, host)
        self.keyed_actions += performance.keyed_actions
        self._writes += performance.timers
        if performance.is_rejected:
            return None
        if record.event_key == record.event.key == self._event.key and performance.has_begun:
            self._writes += [DropDialog(id) for id in source.dialogs_like(record)]
        if performance.is_suspended:
            performance.note_states(self._states_read())
            self._writes.append(SaveDialog(performance.current))
        elif not is_new or performance.has_begun:
            self._writes.append(DropDialog(record.id))
        return reply

    def take_keyed_actions(self) -> list[KeyedAction]:
        """Return and clear the messages that dialogs have sent since the last call."""
        taken, self.keyed_actions = self.keyed_actions, []
        return taken

    @property
    def has_dialog_step(self) -> bool:
        """Whether a dialog has taken a step for this event, so that no other handler may have the event."""
        return self._replay is not None and self._replay.has_begun

    def dialog_writes_on_failure(self) -> list[Write]:
        """Return the writes that keep a dialog whose event is given up, so that a retried dead letter continues it."""
        performance = self._replay
        if performance is None and self._resumed is not None:  # no handler continued it
            entries = entries_for(self._resumed, self._event, self._text, ())
            rest = replace(self._resumed, event_key=self._event.key, is_waiting=False, deadline_ms=None)
            return [SaveDialog(replace(rest, journal=journal.dump(entries), changed_ms=self._now_ms))]
        if performance is None or performance.is_rejected or (self._resumed is None and not performance.has_begun):
            return []
        return [SaveDialog(performance.before_current_event)]

    def _enter_part(self, entry: Entry | None) -> None:
        """Reset the states to what they were in a part of the dialog; None is the current part, with current values."""
        for opened in self._opened.values():
            if entry is None:
                stored = None if opened.found is None else opened.found.value
            else:
                stored = entry.states.get(opened.kind.id)
            opened.handle.reset(opened.kind.load(stored))

    def _states_read(self) -> dict[str, str | None]:
        return {
            opened.kind.id: None if opened.found is None else opened.found.value
            for opened in self._opened.values()
            if opened.handle.was_read
        }

    async def once(self, key: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function, unless it was called under this key before, and return its result.

        Raises:
            CannotStore: the result cannot be stored, although the function has run.
            StateError: the result was erased with the person who caused the event; the function is not called again.
        """
        source, form = self._open_source("remember what was done once"), result_form(function)
        stored = await source.result(key)
        if stored == NOBODY:
            msg = "this call was made before, and its result was erased with the person who caused the event"
            raise StateError(msg)
        if stored is not None:
            return form.decode(from_json(stored), "the result")
        result = await perform("ctx.once", function, *args, **kwargs)
        stored = check_size(to_json(form.encode(result, "the result")), f"the result of once({key!r})")
        thread = self._event.thread if isinstance(self._event, ThreadEvent) else None
        await source.commit([SaveResult(key, stored, self._now_ms, person_of(self._event))], thread)
        return result

    def writes(self) -> list[Write]:
        """Return what to commit with the event.

        Raises:
            CannotStore: a handler left a value that cannot be stored; names the field.
        """
        writes = list(self._writes)
        for key, opened in self._opened.items():
            save = self._save(key, opened)
            if save is not None:
                writes.append(save)
        return writes

    def _open_source(self, purpose: str) -> ConversationReader:
        if self._source is None:
            msg = f"there is no bot here to {purpose}: use chat() or EventStream"
            raise StateError(msg)
        return self._source

    def _save(self, key: StateKey, opened: _Opened) -> SaveState | None:
        value, found = opened.kind.dump(opened.handle.peek()), opened.found
        before = opened.kind.dump(opened.kind.load(None)) if found is None else found.value
        if value == before:
            return None
        opened.kind.check(value)
        version = max(self._now_ms, found.version + 1 if found else 1)
        return SaveState(key, value, found.version if found else None, version)

    def _key(self, kind: StateType) -> StateKey:
        event, user = self._event, None
        thread = event.thread if kind.handle.per_thread and isinstance(event, ThreadEvent) else None
        if kind.handle.per_user:
            user = person_of(event)
            if user is None:
                msg = f"{type(event).__name__} names no person, so it has no {kind.handle.__name__}; use State"
                raise StateError(msg)
        return StateKey(kind.name, thread, user)


CANCELLED: Final = "Cancelled."
"""Sent when a dialog does not catch `DialogCancelled`."""

TIMED_OUT: Final = "No answer came in time, so I have stopped waiting for one."
"""Sent when a dialog does not catch `DialogTimeout`."""

LOST: Final = "Sorry, I have lost the thread of our conversation. Please begin it again."
"""Sent to the person when a dialog's code was changed while it was in progress."""

Function: TypeAlias = Callable[[Dialog], Awaitable[Any]]


def new_dialog_record(event: MessageReceived, handler: str, now_ms: int) -> DialogRecord:
    """Return the record of a dialog that begins with this message.

    Raises:
        ValueError: the message has no sender.
    """
    sender = event.message.sender
    if sender is None:
        msg = f"message {event.message.id} has no sender to hold a dialog with"
        raise ValueError(msg)
    text = "\n".join((event.bot, event.thread, event.key, handler))
    return DialogRecord(
        id="d" + hashlib.blake2b(text.encode(), digest_size=16).hexdigest(),
        thread=event.thread,
        user=sender,
        handler=handler,
        event=event,
        journal=journal.dump([Entry(JournalStep.BEGAN)]),
        event_key=event.key,
        is_waiting=False,
        deadline_ms=None,
        changed_ms=now_ms,
    )


def entries_for(record: DialogRecord, event: Event, text: str, cancel_words: tuple[str, ...]) -> list[Entry]:
    """Return a dialog's journal with this event appended; an event that it has handled already adds nothing.

    Args:
        text: the message as plain text; empty for other events.
    """
    entries = journal.load(record.journal)
    if event.key == record.event_key:
        return entries
    if isinstance(event, DialogTimedOut):
        return journal.resolve_question(entries, JournalStep.TIMED_OUT)
    if is_cancel(text, cancel_words):
        return journal.resolve_question(entries, JournalStep.CANCELLED)
    return journal.resolve_question(entries, JournalStep.ANSWERED, text)


async def run_dialog(replay: Replay, function: Function, host: DialogHost) -> Any:
    """Run a dialog's function to its end or its next question, and return its result; None if it waits.

    Raises:
        DialogDiverged: the code does not match the journal.
        Exception: what the function raised.
    """
    replay.begin()
    try:
        reply = await function(Dialog(replay, host))
    except DialogCancelled:
        reply = CANCELLED
    except DialogTimeout:
        reply = TIMED_OUT
    except TimeTooFar as error:  # a person asked for it, and its text explains it to them
        reply = str(error)
    except BaseException as error:
        if not _is_suspension(error):
            raise
        reply = None
    replay.end()
    if replay.is_suspended:
        return None
    if isinstance(reply, str) and reply.strip():
        replay.say(SendMessage(reply))
        return None
    return reply


def _is_suspension(error: BaseException) -> bool:
    """Whether a run ended because it waits, also from within task groups."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_suspension, error.exceptions))
    return isinstance(error, Suspended)
