"""Turn keyed actions into outbox rows: the target thread of each, and the pieces of long messages. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from chatbot.actions import (
    Action,
    ActionKey,
    DeleteMessage,
    EditMessage,
    KeyedAction,
    SendMessage,
    piece_key,
    removal_key,
)
from chatbot.conversation.state import person_of
from chatbot.events import Event, MessageEvent
from chatbot.message_size import split, split_message
from chatbot.model import ThreadId, UserId
from chatbot.stores.records import OutboxRow


def target_of(action: Action, default: ThreadId | None) -> ThreadId | None:
    """Return the thread of an action: its own, or by default that of the event."""
    return getattr(action, "thread", None) or default


def pieces_of(keyed: KeyedAction) -> Iterator[KeyedAction]:
    """Yield the action, or for a message in several pieces one action a piece, each under its own key.

    An edit fills the first pieces and deletes the rest. All of them are journalled in one commit, so that a kill
    between two of them leaves none undone.
    """
    action, parts = keyed.action, [""]
    match action:
        case SendMessage(content, "text"):
            pieces = split_message(content, action.metadata)
            if pieces == [content]:  # nearly always
                yield keyed
                return
            for number, piece in enumerate(pieces):
                yield KeyedAction(piece_key(keyed.key, number), replace(action, content=piece))
            return
        case EditMessage(target, content) if keyed.pieces > 1:
            parts = split(content)
            for number, piece in enumerate(parts):
                edited = replace(action, message=piece_key(ActionKey(target), number), content=piece)
                yield KeyedAction(piece_key(keyed.key, number), edited)
        case DeleteMessage(target) if keyed.pieces > 1:
            yield keyed
        case _:
            yield keyed
            return
    for number in range(len(parts), keyed.pieces):
        key = ActionKey(target)
        yield KeyedAction(removal_key(key, number), DeleteMessage(piece_key(key, number), action.thread))


def person_who_caused(event: Event) -> UserId | None:
    """Return the person who caused an event; None if the event names nobody."""
    return event.message.sender if isinstance(event, MessageEvent) else person_of(event)


def row_of(
    keyed: KeyedAction,
    thread: ThreadId,
    *,
    after: int,
    created_ms: int,
    caused_by: UserId | None = None,
    after_failure: bool = False,
) -> OutboxRow:
    """Return the row that journals an action."""
    return OutboxRow(
        key=keyed.key,
        thread=thread,
        action=keyed.action,
        after=after,
        created_ms=created_ms,
        caused_by=caused_by,
        after_failure=after_failure,
    )
