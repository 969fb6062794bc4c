"""From wishes to outbox rows: where each is to be done, and in how many pieces. Pure."""

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
    SendReadReceipt,
    piece_key,
    removal_key,
)
from chatbot.conversation.state import person_of
from chatbot.events import Event, MessageEvent
from chatbot.message_size import split, split_message
from chatbot.model import MessageId, ThreadId, UserId
from chatbot.stores.records import OutboxRow


def target_of(action: Action, default: ThreadId | None) -> ThreadId | None:
    """The thread an action is meant for: its own, or that of the event."""
    return getattr(action, "thread", None) or default


def receipts_in(wishes: tuple[KeyedAction, ...], thread: ThreadId) -> MessageId | None:
    """The newest message of this thread that a receipt is wished for."""
    messages = [
        wish.action.message
        for wish in wishes
        if isinstance(wish.action, SendReadReceipt) and target_of(wish.action, thread) == thread
    ]
    return max(messages, key=int, default=None)


def pieces_of(wish: KeyedAction) -> Iterator[KeyedAction]:
    """The wish itself; or, of a message in several pieces, one wish a piece, each under a key of its own.

    An edit fills the first pieces and deletes the rest. Each of these wishes is journalled with the others, so that a
    kill between two of them leaves none undone.
    """
    action, parts = wish.action, [""]
    match action:
        case SendMessage(content, "text"):
            for number, piece in enumerate(split_message(content, action.metadata)):
                yield KeyedAction(piece_key(wish.key, number), replace(action, content=piece))
            return
        case EditMessage(target, content) if wish.pieces > 1:
            parts = split(content)
            for number, piece in enumerate(parts):
                edited = replace(action, message=piece_key(ActionKey(target), number), content=piece)
                yield KeyedAction(piece_key(wish.key, number), edited)
        case DeleteMessage(target) if wish.pieces > 1:
            yield wish
        case _:
            yield wish
            return
    for number in range(len(parts), wish.pieces):
        key = ActionKey(target)
        yield KeyedAction(removal_key(key, number), DeleteMessage(piece_key(key, number), action.thread))


def person_behind(event: Event) -> UserId | None:
    """The person whose doing an event was, as far as it says."""
    return event.message.sender if isinstance(event, MessageEvent) else person_of(event)


def row_of(
    wish: KeyedAction,
    thread: ThreadId,
    *,
    after: int,
    created_ms: int,
    caused_by: UserId | None = None,
    after_failure: bool = False,
) -> OutboxRow:
    """The row that journals a wish."""
    return OutboxRow(
        key=wish.key,
        thread=thread,
        action=wish.action,
        after=after,
        created_ms=created_ms,
        caused_by=caused_by,
        after_failure=after_failure,
    )
