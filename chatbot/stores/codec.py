"""Stored form of actions and events, and checks of column values. Performs no I/O.

Strict in both directions. A value without a stored form raises `CannotStore`, which names its place, before anything is
written. A stored text that cannot be decoded raises `StoreError`; a value is never decoded partially. All stores use
these checks, so that a value that one database cannot store fails in tests with any store.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from chatbot import actions, events
from chatbot.actions import Action
from chatbot.errors import CannotStore, StoreError, StoreTooNew
from chatbot.events import Event
from chatbot.stores.serialization import Form, Kinds, check_utf8, encodable_text, wrong_type

VERSION: Final = 1
"""The version of the JSON form. Increase it when an older chatbot could misread what a newer one writes."""

ACTIONS: Final = Kinds(
    {
        "send_message": actions.SendMessage,
        "edit_message": actions.EditMessage,
        "delete_message": actions.DeleteMessage,
        "send_read_receipt": actions.SendReadReceipt,
        "add_participants": actions.AddParticipants,
        "remove_participant": actions.RemoveParticipant,
        "update_topic": actions.UpdateTopic,
    }
)
"""All actions by their stored names, which must never change."""

EVENTS: Final = Kinds(
    {
        "message_received": events.MessageReceived,
        "message_edited": events.MessageEdited,
        "message_deleted": events.MessageDeleted,
        "participants_added": events.ParticipantsAdded,
        "participants_removed": events.ParticipantsRemoved,
        "topic_updated": events.TopicUpdated,
        "read_receipt_received": events.ReadReceiptReceived,
        "thread_joined": events.ThreadJoined,
        "thread_left": events.ThreadLeft,
        "action_failed": events.ActionFailed,
        "timer_fired": events.TimerFired,
        "schedule_fired": events.ScheduleFired,
        "dialog_timed_out": events.DialogTimedOut,
        "bot_started": events.BotStarted,
        "bot_stopping": events.BotStopping,
    },
    {Action: Form(ACTIONS.encode, ACTIONS.decode)},
)
"""All events by their stored names, which must never change."""

_INT64: Final = 2**63
_DECIMAL: Final = re.compile("0|[1-9][0-9]{0,18}")
_UTF8: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_ASCII: Final = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"))


def text(value: object, place: str) -> str:
    """Check that a column can store this text.

    Raises:
        CannotStore: it is not a text, or contains a lone surrogate (not encodable in UTF-8) or a NUL (not supported by
            PostgreSQL).
    """
    if type(value) is str and value.isascii() and "\0" not in value:  # fast path: nearly all texts
        return value
    checked = encodable_text(value, place)
    if "\0" in checked:
        msg = f"{place} has a NUL character at {checked.index(chr(0))}; remove it"
        raise CannotStore(msg)
    return checked


def optional_text(value: object, place: str) -> str | None:
    """Check that a column can store this text, or None."""
    return None if value is None else text(value, place)


def integer(value: object, place: str) -> int:
    """Check that a column can store this integer.

    Raises:
        CannotStore: it is not an integer, or exceeds 64 bits.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise wrong_type(value, place, "an integer")
    if not -_INT64 <= value < _INT64:
        msg = f"{place} is {value}, which takes more than 64 bits; keep it below 2**63"
        raise CannotStore(msg)
    return int(value)


def number(value: object, place: str) -> int:
    """Return a message id as an integer, for comparison.

    Raises:
        CannotStore: the id is not decimal epoch milliseconds.
    """
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        return integer(int(value), place)
    checked = text(value, place)
    msg = f"{place} is {checked[:40]!r}; expected a message id: epoch milliseconds in decimal"
    raise CannotStore(msg)


def diagnostic(value: str | None) -> str | None:
    """Make a diagnostic text storable: escape what UTF-8 cannot encode, because an error here would help nobody."""
    if value is None:
        return None
    return value.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")


def encode_action(action: Action) -> str:
    """Encode an action.

    Raises:
        CannotStore: a field cannot be stored; the text names it, as in `SendMessage.metadata['colour']`.
    """
    form = ACTIONS.encode(action, "action")
    stored = _UTF8.encode({"v": VERSION, **form})
    try:
        stored.encode()
    except UnicodeEncodeError:
        for field, value in form.items():
            check_utf8(value, f"{type(action).__name__}.{field}")
        raise
    return stored


def decode_action(stored: str) -> Action:
    """Decode an action.

    Raises:
        StoreTooNew: it was written by a newer chatbot.
        StoreError: it is damaged or was not written by chatbot.
    """
    action: Action = _decode(ACTIONS, stored, "action")
    return action


def encode_event(event: Event) -> str:
    """Encode an event. Texts of the service that UTF-8 cannot encode are kept, as ASCII escapes.

    Raises:
        CannotStore: a field is not of its declared type.
    """
    return _ASCII.encode({"v": VERSION, **EVENTS.encode(event, "event")})


def decode_event(stored: str) -> Event:
    """Decode an event; raises the same errors as `decode_action`."""
    event: Event = _decode(EVENTS, stored, "event")
    return event


def stored_texts(part: str) -> tuple[str, str]:
    """Return the forms of a text inside a stored action and inside a stored event, for searching."""
    return _UTF8.encode(part)[1:-1], _ASCII.encode(part)[1:-1]


def _decode(kinds: Kinds, stored: str, what: str) -> Any:
    try:
        form: Any = json.loads(stored)
    except (ValueError, RecursionError) as error:
        msg = f"a stored {what} is not JSON: {_DAMAGED}"
        raise StoreError(msg) from error
    version = form.pop("v", None) if isinstance(form, dict) else None
    if not isinstance(version, int):
        msg = f"a stored {what} has no version: {_DAMAGED}"
        raise StoreError(msg)
    if version > VERSION:
        msg = f"a stored {what} has version {version}, but this chatbot reads up to {VERSION}: run a newer chatbot"
        raise StoreTooNew(msg)
    if "do" in form and "kind" not in form:
        form = _of_first_version(form)
    try:
        return kinds.decode(form, what)
    except CannotStore as error:
        msg = f"a stored {what} cannot be read ({error}): {_DAMAGED}"
        raise StoreError(msg) from error


def _of_first_version(form: dict[str, Any]) -> dict[str, Any]:
    """Return the present form of an action that the first version with a store has written."""
    kind, message = form.pop("do"), form.get("message")
    if kind in ("edit_message", "delete_message"):  # that was always a message's id, and can be an action's key now
        form["message"] = {"is": "chatbot.model.MessageId", "value": message}
    return {"kind": kind, **form}


_DAMAGED: Final = "it is damaged, or was not written by chatbot; restore a backup"
