"""Erase a person from records. Pure, and used by all stores, so that all erase alike.

* Actions that the person caused may quote them. These, and actions that name the person, lose their texts, names and
  people. The row stays with its key, so that nothing is done twice; a pending action fails.
* Dead letters that hold data of the person are dropped, because a retry would need what the person said.
* Dialogs, timers and states of the person are dropped. In states of others and in results, a word replaces the id.
* Results that the person caused keep their key alone, so that the call is not made again.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from typing import Final

from chatbot.actions import Action, AddParticipants, EditMessage, RemoveParticipant, SendMessage, UpdateTopic
from chatbot.events import ActionFailed
from chatbot.model import UserId
from chatbot.stores.codec import EVENTS
from chatbot.stores.records import DeadLetter, OutboxRow, RowStatus
from chatbot.stores.rows import DialogRow, StateKeyRow, StateRow, TimerRow

REASON: Final = "erased: the person was forgotten"
"""The reason of pending actions that failed because they were erased."""


def erase(row: OutboxRow, user: UserId) -> OutboxRow:
    """Return the row without this person; the same object if it holds no data of them."""
    is_theirs = row.caused_by == user
    action = _erase_action(row.action, user, is_theirs=is_theirs)
    reason = REASON if row.reason is not None and _names(row.reason, user) else row.reason
    if not is_theirs and action == row.action and reason == row.reason:
        return row
    if row.status is RowStatus.PENDING and action != row.action:
        return replace(row, action=action, status=RowStatus.FAILED, reason=REASON, caused_by=None)
    return replace(row, action=action, reason=reason, caused_by=None if is_theirs else row.caused_by)


NOBODY: Final = "erased"
"""The word that replaces the id of an erased person."""


def erase_state(key: StateKeyRow, row: StateRow, user: UserId) -> StateRow | None:
    """Return a state without this person; None if it is the person's own."""
    if key.person == user:
        return None
    value = erase_name(row.value, user)
    return row if value == row.value else StateRow(value, row.version + 1)


def erase_result(value: str, caused_by: str, user: UserId) -> str:
    """Return a result without this person; `NOBODY`, which is not JSON, if the person caused it."""
    return NOBODY if caused_by == user else erase_name(value, user)


def erase_name(text: str, user: UserId) -> str:
    """Return a text without this person's id."""
    return _id_of(user).sub(NOBODY, text) if user in text else text


def holds_dialog(row: DialogRow, user: UserId) -> bool:
    """Return whether a dialog is this person's, or names them."""
    return row.person == user or _names(row.event, user) or _names(row.journal, user)


def holds_timer(row: TimerRow, user: UserId) -> bool:
    """Return whether a timer was caused by this person, or names them."""
    return row.caused_by == user or _names(row.payload, user)


def holds(letter: DeadLetter, user: UserId, theirs: Collection[str] = ()) -> bool:
    """Return whether a dead letter holds data of this person.

    Args:
        letter: the dead letter.
        user: the person.
        theirs: the keys of actions that they caused: a failed answer may quote them without naming them.
    """
    if letter.caused_by == user or (isinstance(letter.event, ActionFailed) and letter.event.action_key in theirs):
        return True
    return _names(letter.error, user) or _holds(EVENTS.encode(letter.event, "event"), user)


def _holds(form: object, user: UserId) -> bool:
    if isinstance(form, str):
        return _names(form, user)
    if isinstance(form, dict):
        return any(_holds(part, user) for item in form.items() for part in item)
    return isinstance(form, list) and any(_holds(part, user) for part in form)


def _erase_action(action: Action, user: UserId, *, is_theirs: bool) -> Action:
    match action:
        case SendMessage():
            texts = [action.content, action.display_name or "", *action.metadata, *action.metadata.values()]
            if is_theirs or _names(" \n ".join(texts), user):
                return SendMessage("", action.type, action.thread)
        case EditMessage() if is_theirs or _names(action.content, user):
            return replace(action, content="")
        case UpdateTopic() if is_theirs or _names(action.topic, user):
            return replace(action, topic="")
        case AddParticipants():
            return replace(action, participants=tuple(other for other in action.participants if other.user != user))
        case RemoveParticipant() if action.user == user:
            return replace(action, user=UserId(""))
        case _:
            pass
    return action


def _names(text: str, user: UserId) -> bool:
    """Return whether a text contains this person's id, not only as the beginning of a longer id."""
    return user in text and _id_of(user).search(text) is not None


def _id_of(user: UserId) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w:.-]){re.escape(user)}(?![\w-])")
