"""Holding a dialog for one event: from its record and what has happened to its next record, or to its end."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

from chatbot.actions import SendMessage
from chatbot.conversation import journal
from chatbot.conversation.answers import is_cancel
from chatbot.conversation.dialog import Dialog, DialogHost
from chatbot.conversation.journal import Entry, Step
from chatbot.conversation.performance import Performance, Suspended
from chatbot.errors import DialogCancelled, DialogTimeout, TimeTooFar
from chatbot.events import DialogTimedOut, Event, MessageReceived
from chatbot.stores.conversation import DialogRecord

CANCEL_WORDS: Final = ("cancel", "/cancel")
"""What people say when they do not want to go on, unless a plugin says otherwise."""

CANCELLED: Final = "Cancelled."
"""What is said when a dialog does not catch that the person does not want to go on."""

TIMED_OUT: Final = "No answer came in time, so I have stopped waiting for one."
"""What is said when a dialog does not catch that no answer came."""

LOST: Final = "Sorry, I have lost the thread of our conversation. Please begin it again."
"""What is said to the person when a dialog's code was changed while it was under way."""

Function: TypeAlias = Callable[[Dialog], Awaitable[Any]]


def begun(event: MessageReceived, handler: str, now_ms: int) -> DialogRecord:
    """The record of a dialog that begins with this message.

    Raises:
        ValueError: nobody sent the message.
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
        journal=journal.dump([Entry(Step.BEGAN)]),
        event_key=event.key,
        is_waiting=False,
        deadline_ms=None,
        changed_ms=now_ms,
    )


def entries_for(record: DialogRecord, event: Event, text: str, cancel_words: tuple[str, ...]) -> list[Entry]:
    """A dialog's journal with what this event is to it; the event it has taken last adds nothing.

    Args:
        text: of a message, as plain text.
    """
    entries = journal.load(record.journal)
    if event.key == record.event_key:
        return entries
    if isinstance(event, DialogTimedOut):
        return journal.go_on(entries, Step.TIMED_OUT)
    if is_cancel(text, cancel_words):
        return journal.go_on(entries, Step.CANCELLED)
    return journal.go_on(entries, Step.ANSWERED, text)


async def hold(performance: Performance, function: Function, host: DialogHost) -> Any:
    """Run a dialog's function as far as it goes; returns what it returned, None if it waits.

    Raises:
        DialogDiverged: its code is not that of its journal.
        Exception: what the function raised.
    """
    performance.begin()
    try:
        reply = await function(Dialog(performance, host))
    except DialogCancelled:
        reply = CANCELLED
    except DialogTimeout:
        reply = TIMED_OUT
    except TimeTooFar as error:  # what a person asked for; its text is for them
        reply = str(error)
    except BaseException as error:
        if not _is_suspension(error):
            raise
        reply = None
    performance.end()
    if performance.is_suspended:
        return None
    if isinstance(reply, str) and reply.strip():
        performance.say(SendMessage(reply))
        return None
    return reply


def _is_suspension(error: BaseException) -> bool:
    """Whether a run has ended because it waits, be it within task groups."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_suspension, error.exceptions))
    return isinstance(error, Suspended)
