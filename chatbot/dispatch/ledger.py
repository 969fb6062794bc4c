"""The wishes of one event, in the order they were made; thrown away as a whole if a handler fails."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Final

from chatbot.actions import Action, ActionKey, Wish, action_key
from chatbot.conversation.memory import Memory
from chatbot.dispatch.line import Line, NoLine
from chatbot.dispatch.occasion import Occasion

During = Callable[[str], AbstractContextManager[object]]
"""Makes what is entered while the handler of this name runs."""


_NOBODY: Final = nullcontext()


def alone(_handler: str) -> AbstractContextManager[object]:
    """Nobody goes along with the handler."""
    return _NOBODY


@dataclass(slots=True)
class Ledger:
    """Wishes, each under a key that a retry makes again.

    Args:
        occasion: the event they belong to.
        memory: what its handlers remember; as short-lived as the wishes.
        wishes: what was asked for.
        is_acknowledged: a handler asked for the read receipt itself.
        line: for what is done at once; not part of the wishes.
        during: goes along with each handler.
    """

    occasion: Occasion
    memory: Memory
    wishes: list[Wish] = field(default_factory=list)
    is_acknowledged: bool = False
    line: Line = field(default_factory=NoLine)
    during: During = alone
    _ordinals: dict[str, int] = field(default_factory=dict)

    def next_key(self, handler: str) -> ActionKey:
        """The key of a handler's next wish; a handler that runs twice for one event goes on counting."""
        ordinal = self._ordinals.get(handler, 0)
        self._ordinals[handler] = ordinal + 1
        one = self.occasion
        return action_key(one.bot.user, one.thread, one.event.key, handler, ordinal)

    def add(self, handler: str, action: Action) -> ActionKey:
        """Write down a wish and give its key."""
        key = self.next_key(handler)
        self.put(key, action)
        return key

    def put(self, key: ActionKey, action: Action) -> None:
        """Write down a wish whose key is known."""
        self.wishes.append(Wish(key, action))
