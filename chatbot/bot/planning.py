"""From wishes to outbox rows: where each is to be done, and in how many pieces. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from chatbot.actions import Action, ActionKey, SendMessage, SendReadReceipt, Wish
from chatbot.conversation.kind import person_of
from chatbot.events import Event, MessageEvent
from chatbot.model import MessageId, ThreadId, UserId
from chatbot.outbox.split import split
from chatbot.stores.base import OutboxRow


def target_of(action: Action, default: ThreadId | None) -> ThreadId | None:
    """The thread an action is meant for: its own, or that of the event."""
    return getattr(action, "thread", None) or default


def receipts_in(wishes: tuple[Wish, ...], thread: ThreadId) -> MessageId | None:
    """The newest message of this thread that a receipt is wished for."""
    messages = [
        wish.action.message
        for wish in wishes
        if isinstance(wish.action, SendReadReceipt) and target_of(wish.action, thread) == thread
    ]
    return max(messages, key=int, default=None)


def pieces_of(wish: Wish) -> Iterator[Wish]:
    """The wish itself, or, for a text too long for one message, one wish a piece under derived keys."""
    action = wish.action
    if not isinstance(action, SendMessage) or action.type != "text":
        yield wish
        return
    for number, piece in enumerate(split(action.content)):
        key = wish.key if number == 0 else ActionKey(f"{wish.key}.{number}")
        yield Wish(key, replace(action, content=piece))


def causer_of(event: Event) -> UserId | None:
    """The person whose doing an event was, as far as it says."""
    return event.message.sender if isinstance(event, MessageEvent) else person_of(event)


def row_of(wish: Wish, thread: ThreadId, *, after: int, created_ms: int, caused_by: UserId | None = None) -> OutboxRow:
    """The row that journals a wish."""
    return OutboxRow(
        key=wish.key,
        thread=thread,
        action=wish.action,
        after=after,
        created_ms=created_ms,
        caused_by=caused_by,
    )
