"""The stored form of values: actions as versioned JSON text, and the few kinds of value that columns hold.

Pure, and strict in both directions. What has no stored form raises `CannotStore`, naming the value's place, before
anything is written; a stored text that is not understood raises `StoreError`, never a half-read value. All stores
go through here, the one in memory too, so that what a database could not hold fails in a test already.
Error texts never show a text's content: it may be what somebody said.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from chatbot.actions import (
    Action,
    AddParticipants,
    DeleteMessage,
    EditMessage,
    RemoveParticipant,
    SendMessage,
    SendReadReceipt,
    UpdateTopic,
)
from chatbot.errors import CannotStore, StoreError, StoreTooNew
from chatbot.model import Participant, UserId

VERSION: Final = 1
"""The version of the JSON form; it rises when an older chatbot could misread what a newer one wrote."""

_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_INT64: Final = 2**63
_DECIMAL: Final = re.compile("0|[1-9][0-9]{0,18}")


def text(value: object, place: str) -> str:
    """Check that a column can hold this text.

    Raises:
        CannotStore: no text, half of a surrogate pair in it (has no UTF-8 form), or a NUL (PostgreSQL has none).
    """
    checked = _free_text(value, place)
    if "\0" in checked:
        msg = f"{place} has a NUL character at {checked.index(chr(0))}; remove it"
        raise CannotStore(msg)
    return checked


def optional_text(value: object, place: str) -> str | None:
    """Check that a column can hold this text, or None."""
    return None if value is None else text(value, place)


def integer(value: object, place: str) -> int:
    """Check that a column can hold this integer.

    Raises:
        CannotStore: no integer, or more than 64 bits.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise _not(value, place, "an integer")
    if not -_INT64 <= value < _INT64:
        msg = f"{place} is {value}, which takes more than 64 bits; keep it below 2**63"
        raise CannotStore(msg)
    return int(value)


def number(value: object, place: str) -> int:
    """The integer that a message id is compared by.

    Raises:
        CannotStore: it is not epoch milliseconds in decimal.
    """
    checked = _free_text(value, place)
    if not _DECIMAL.fullmatch(checked):
        msg = f"{place} is {checked[:40]!r}; expected a message id: epoch milliseconds in decimal"
        raise CannotStore(msg)
    return integer(int(checked), place)


def diagnostic(value: str | None) -> str | None:
    """A text that only people read, made storable: what has no UTF-8 form is escaped, as nobody can mend it."""
    if value is None:
        return None
    return value.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")


def encode_action(action: Action) -> str:
    """The stored form of an action.

    Raises:
        CannotStore: naming the field, as in `SendMessage.metadata['colour']`.
    """
    kind = _KINDS_BY_CLASS.get(type(action))
    if kind is None:
        raise _not(action, "action", "one of " + ", ".join(sorted(one.cls.__name__ for one in _KINDS)))
    form: dict[str, Any] = {"v": VERSION, "do": kind.name}
    for field, (encode, _) in kind.fields.items():
        encoded = encode(getattr(action, field), f"{kind.cls.__name__}.{field}")
        if encoded not in (None, {}):
            form[field] = encoded
    return _ENCODER.encode(form)


def decode_action(stored: str) -> Action:
    """The action of a stored form.

    Raises:
        StoreTooNew: a newer chatbot wrote it.
        StoreError: it is not what any chatbot wrote.
    """
    form = _load(stored)
    kind = _KINDS_BY_NAME.get(str(form.pop("do", None)))
    if kind is None:
        msg = "an action of no known kind"
        raise _damaged(msg)
    if unknown := form.keys() - kind.fields.keys():
        msg = f"unknown fields of {kind.name}: {', '.join(sorted(unknown))}"
        raise _damaged(msg)
    try:
        return kind.cls(**{field: kind.fields[field][1](value, field) for field, value in form.items()})
    except (CannotStore, TypeError, ValueError, AttributeError, KeyError) as error:
        msg = f"an unreadable {kind.name} ({error})"
        raise _damaged(msg) from error


def as_stored(part: str) -> str:
    """How a piece of a text stands inside a stored form: what a search for it looks for."""
    return _ENCODER.encode(part)[1:-1]


def _free_text(value: object, place: str) -> str:
    if not isinstance(value, str):
        raise _not(value, place, "text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            msg = f"{place} has half of a surrogate pair at {error.start}, which has no UTF-8 form; remove it"
            raise CannotStore(msg) from None
    return value


def _optional_free_text(value: object, place: str) -> str | None:
    return None if value is None else _free_text(value, place)


def _texts(value: object, place: str) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise _not(value, place, "a mapping of text to text")
    return {_free_text(key, f"key of {place}"): _free_text(item, f"{place}[{key!r}]") for key, item in value.items()}


def _message_type(value: object, place: str) -> str:
    if value not in ("text", "html"):
        raise _not(value, place, "'text' or 'html'")
    return str(value)


def _encode_time(value: object, place: str) -> str:
    if not isinstance(value, datetime):
        raise _not(value, place, "a datetime")
    if value.tzinfo is None:
        msg = f"{place} is {value.isoformat()} without a time zone; give it one (datetime.now(UTC))"
        raise CannotStore(msg)
    return value.astimezone(UTC).isoformat()


def _decode_time(value: str, place: str) -> datetime:
    time = datetime.fromisoformat(value)
    if time.tzinfo is None:
        raise _not(value, place, "a time with its zone")
    return time


def _encode_participant(value: object, place: str) -> dict[str, str]:
    if type(value) is not Participant:
        raise _not(value, place, "a Participant")
    form = {"user": _free_text(value.user, f"{place}.user")}
    if value.display_name is not None:
        form["display_name"] = _free_text(value.display_name, f"{place}.display_name")
    if value.share_history_time is not None:
        form["share_history_time"] = _encode_time(value.share_history_time, f"{place}.share_history_time")
    return form


def _encode_participants(value: object, place: str) -> list[dict[str, str]]:
    if not isinstance(value, tuple):
        raise _not(value, place, "a tuple of Participant")
    return [_encode_participant(one, f"{place}[{index}]") for index, one in enumerate(value)]


def _decode_participants(form: Any, place: str) -> tuple[Participant, ...]:
    if not isinstance(form, list):
        raise _not(form, place, "a list of Participant")
    return tuple(_decode_participant(one, place) for one in form)


def _decode_participant(form: dict[str, str], place: str) -> Participant:
    if form.keys() - {"user", "display_name", "share_history_time"}:
        raise _not(form, place, "a stored Participant")
    name, shared = form.get("display_name"), form.get("share_history_time")
    return Participant(
        UserId(_free_text(form["user"], place)),
        _optional_free_text(name, place),
        None if shared is None else _decode_time(shared, place),
    )


_Form = tuple[Callable[[Any, str], Any], Callable[[Any, str], Any]]
"""How a field becomes JSON, and how it comes back; both are given the value and its place."""

_TEXT: Final[_Form] = (_free_text, _free_text)
_TEXT_OR_NONE: Final[_Form] = (_optional_free_text, _optional_free_text)
_TEXTS: Final[_Form] = (_texts, _texts)
_TYPE: Final[_Form] = (_message_type, _message_type)
_PARTICIPANTS: Final[_Form] = (_encode_participants, _decode_participants)


@dataclass(frozen=True, slots=True)
class _Kind:
    """How one class of action is stored: under which name, and each of its fields in which form."""

    name: str
    cls: type[Action]
    fields: Mapping[str, _Form]


_KINDS: Final = (
    _Kind(
        "send_message",
        SendMessage,
        {
            "content": _TEXT,
            "type": _TYPE,
            "thread": _TEXT_OR_NONE,
            "display_name": _TEXT_OR_NONE,
            "metadata": _TEXTS,
        },
    ),
    _Kind("edit_message", EditMessage, {"message": _TEXT, "content": _TEXT, "thread": _TEXT_OR_NONE}),
    _Kind("delete_message", DeleteMessage, {"message": _TEXT, "thread": _TEXT_OR_NONE}),
    _Kind("send_read_receipt", SendReadReceipt, {"message": _TEXT, "thread": _TEXT_OR_NONE}),
    _Kind("add_participants", AddParticipants, {"participants": _PARTICIPANTS, "thread": _TEXT_OR_NONE}),
    _Kind("remove_participant", RemoveParticipant, {"user": _TEXT, "thread": _TEXT_OR_NONE}),
    _Kind("update_topic", UpdateTopic, {"topic": _TEXT, "thread": _TEXT_OR_NONE}),
)
_KINDS_BY_CLASS: Final = {kind.cls: kind for kind in _KINDS}
_KINDS_BY_NAME: Final = {kind.name: kind for kind in _KINDS}


def _load(stored: str) -> dict[str, Any]:
    try:
        form: Any = json.loads(stored)
    except (ValueError, RecursionError) as error:
        msg = "text that is not JSON"
        raise _damaged(msg) from error
    version = form.pop("v", None) if isinstance(form, dict) else None
    if not isinstance(version, int):
        msg = "JSON without a version"
        raise _damaged(msg)
    if version > VERSION:
        msg = f"the store holds a value of form {version}; this chatbot reads up to {VERSION}: run a newer one"
        raise StoreTooNew(msg)
    return dict(form)


def _not(value: object, place: str, expected: str) -> CannotStore:
    """Say what was expected; of the value only its type, as it may be what somebody said."""
    return CannotStore(f"{place} is of type {type(value).__name__}; expected {expected}")


def _damaged(what: str) -> StoreError:
    return StoreError(f"the store holds {what}: it is damaged, or was not written by chatbot; restore a backup")
