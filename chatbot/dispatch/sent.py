"""A message that a handler asked for, in the handler's hand: it can be edited or taken back before it was ever sent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from chatbot.actions import ActionKey, expect_identifier
from chatbot.errors import StateError
from chatbot.model import MessageId, ThreadId

if TYPE_CHECKING:
    from chatbot.dispatch.context import Context


@dataclass(frozen=True, slots=True)
class SentMessage:
    """A message that a handler asked for: it may still be edited or taken back while the handler runs.

    Args:
        key: names it for good; store it to edit or delete the message in a later event, with `ctx.edit(key, …)`.
        thread: where it goes; None is the thread of the event.
        is_empty: there was nothing to say, so nothing is sent.
    """

    key: ActionKey
    thread: ThreadId | None
    is_empty: bool
    _ctx: Context[Any] = field(repr=False, compare=False)

    async def edit(self, content: str) -> None:
        """Replace its content, of the same type as before."""
        await self._ctx.edit(self, content)

    async def delete(self) -> None:
        """Take it back."""
        await self._ctx.delete(self)


def target_of(
    message: SentMessage | MessageId | ActionKey, thread: ThreadId | None
) -> tuple[MessageId | ActionKey, ThreadId | None]:
    """The id or key of a message to change, and its thread.

    Raises:
        StateError: nothing was sent that could be changed.
        TypeError: it is neither a handle nor an id or a key.
        ValueError: it has half of a surrogate pair.
    """
    if not isinstance(message, SentMessage):
        expect_identifier(message, "the message to change")
        return message, thread
    if message.is_empty:
        msg = "the reply was empty, so nothing was sent that could be changed; check sent.is_empty"
        raise StateError(msg)
    return message.key, message.thread
