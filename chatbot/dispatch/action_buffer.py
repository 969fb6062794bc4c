"""Collects the actions of one event in order; discarded as a whole if its handler fails."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Final

from chatbot.actions import Action, ActionKey, EditMessage, KeyedAction, SendMessage, action_key, piece_key
from chatbot.conversation.unit_of_work import UnitOfWork
from chatbot.dispatch.event_view import EventView
from chatbot.dispatch.live import LiveChannel, NoLiveChannel
from chatbot.message_size import split, split_message
from chatbot.model import MessageId

HandlerScope = Callable[[str], AbstractContextManager[object]]
"""Makes what is entered while the handler of this name runs."""


_NO_SCOPE: Final = nullcontext()


def no_handler_scope(_handler: str) -> AbstractContextManager[object]:
    """Nobody goes along with the handler."""
    return _NO_SCOPE


@dataclass(slots=True)
class ActionBuffer:
    """Wishes, each under a key that a retry makes again.

    Args:
        view: the event they belong to.
        unit_of_work: what its handlers remember; as short-lived as the wishes.
        wishes: what was asked for.
        is_acknowledged: a handler asked for the read receipt itself.
        line: for what is done at once; not part of the wishes.
        during: goes along with each handler.
    """

    view: EventView
    unit_of_work: UnitOfWork
    keyed_actions: list[KeyedAction] = field(default_factory=list)
    is_acknowledged: bool = False
    live: LiveChannel = field(default_factory=NoLiveChannel)
    handler_scope: HandlerScope = no_handler_scope
    _ordinals: dict[str, int] = field(default_factory=dict)

    def next_key(self, handler: str) -> ActionKey:
        """The key of a handler's next wish; a handler that runs twice for one event goes on counting."""
        ordinal = self._ordinals.get(handler, 0)
        self._ordinals[handler] = ordinal + 1
        view = self.view
        return action_key(view.bot.user, view.thread, view.event.key, handler, ordinal)

    def add(self, handler: str, action: Action, *, pieces: int = 1) -> ActionKey:
        """Write down a wish and give its key; `pieces` as for a wish."""
        key = self.next_key(handler)
        self.put(key, action, pieces=pieces)
        return key

    def put(self, key: ActionKey, action: Action, *, pieces: int = 1) -> None:
        """Write down a wish whose key is known."""
        self.keyed_actions.append(KeyedAction(key, action, pieces))

    async def pieces(self, message: MessageId | ActionKey) -> int:
        """In how many pieces a message stands in the thread, or will when all wishes so far are done."""
        if message.isdecimal():
            return 1
        known: int | None = None
        for keyed in self.keyed_actions:
            match keyed.action:
                case SendMessage(content, "text") as action if keyed.key == message:
                    known = len(split_message(content, action.metadata))
                case SendMessage() if keyed.key == message:
                    known = 1
                case SendMessage() if known is not None and keyed.key == piece_key(ActionKey(message), known):
                    known += 1  # a stream goes on in further messages
                case EditMessage(target, content) if target == message:
                    known = len(split(content))
        return known if known is not None else await self.live.pieces(ActionKey(message))
