"""Collects the actions of one event in order; discarded as a whole if its handler fails."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Final

from chatbot.actions import Action, ActionKey, EditMessage, KeyedAction, SendMessage, action_key, piece_key
from chatbot.dispatch.event_view import EventView
from chatbot.dispatch.live import LiveChannel, NoLiveChannel
from chatbot.message_size import check_count, split, split_message
from chatbot.model import MessageId, ThreadId

if TYPE_CHECKING:
    from chatbot.conversation.unit_of_work import UnitOfWork

HandlerScope = Callable[[str], AbstractContextManager[object]]
"""Makes a context manager that is entered while the handler of this name runs, such as a span."""


_NO_SCOPE: Final = nullcontext()
_NO_LIVE_CHANNEL: Final = NoLiveChannel()


def no_handler_scope(_handler: str) -> AbstractContextManager[object]:
    """Enter nothing around the handler."""
    return _NO_SCOPE


class ActionBuffer:
    """The actions of one attempt, each under a key that a retry reproduces.

    Args:
        view: the event they belong to.
        unit_of_work: what the handlers of the event read and change.
        live: for what is done before the commit; without one, nothing is shown.
        handler_scope: makes a context manager that is entered while a handler runs.

    Attributes:
        keyed_actions: the actions so far.
        is_acknowledged: a handler asked for the read receipt itself.
    """

    is_acknowledged = False

    def __init__(
        self,
        view: EventView,
        unit_of_work: UnitOfWork,
        *,
        live: LiveChannel | None = None,
        handler_scope: HandlerScope = no_handler_scope,
    ) -> None:
        self.view = view
        self.unit_of_work = unit_of_work
        self.keyed_actions: list[KeyedAction] = []
        self.live = live or _NO_LIVE_CHANNEL
        self.handler_scope = handler_scope
        self._ordinals: dict[str, int] = {}
        self._counts: dict[ThreadId | None, int] = {}

    def next_key(self, handler: str) -> ActionKey:
        """Return the key of a handler's next action; a handler that runs twice for one event goes on counting."""
        ordinal = self._ordinals.get(handler, 0)
        self._ordinals[handler] = ordinal + 1
        view = self.view
        return action_key(view.bot.user, view.thread, view.event.key, handler, ordinal)

    def add(self, handler: str, action: Action, *, pieces: int = 1) -> ActionKey:
        """Add an action and return its key; `pieces` as in `KeyedAction`."""
        key = self.next_key(handler)
        self.put(key, action, pieces=pieces)
        return key

    def put(self, key: ActionKey, action: Action, *, pieces: int = 1) -> None:
        """Add an action under a given key.

        Raises:
            ValueError: there are too many.
        """
        thread = getattr(action, "thread", None)  # None is that of the event
        counted = self._counts.get(thread, 0)
        check_count(counted)
        self._counts[thread] = counted + 1
        self.keyed_actions.append(KeyedAction(key, action, pieces))

    async def pieces(self, message: MessageId | ActionKey) -> int:
        """Return in how many pieces a message is in the thread, or will be after the actions so far."""
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
                    known += 1  # a long stream continues in further messages
                case EditMessage(target, content) if target == message:
                    known = len(split(content))
        return known if known is not None else await self.live.pieces(ActionKey(message))
