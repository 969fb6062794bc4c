"""The live channel: what a handler can do or ask before its commit, while it runs.

All other actions of a handler wait for the commit. The bot provides the channel. Without one, as in direct calls of
handlers, nothing is shown while a handler runs, and a streamed text is sent when it is complete.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from chatbot.actions import Action, ActionKey, SendMessage
from chatbot.errors import StateError
from chatbot.model import Participant


class LiveChannel(Protocol):
    """A bot's direct access to the thread of an event."""

    async def show_typing(self) -> float:
        """Send one typing indicator if quotas allow, and return the seconds after which to send the next one.

        Best effort: errors of the service are ignored.
        """
        ...

    async def participants(self) -> Sequence[Participant]:
        """Return who is in the thread, the bot included.

        Raises:
            ServiceError: the service did not answer.
        """
        ...

    async def stream(self, key: ActionKey, source: AsyncIterable[str]) -> Sequence[Action]:
        """Show a text in one message while its pieces arrive, and return the actions that complete it.

        If the first action is a `SendMessage`, nothing was shown, and it is to be done under the key itself. There are
        no actions if the text was empty.

        Raises:
            StoreError: the message could not be written to the store before its first send.
            Exception: what the source raises.
        """
        ...

    async def pieces(self, key: ActionKey) -> int:
        """Return in how many pieces the message of an earlier event was sent.

        Raises:
            StoreError: it cannot be read.
        """
        ...


class NoLiveChannel:
    """The live channel of handlers that are called without a bot: it shows nothing and knows nothing."""

    async def show_typing(self) -> float:
        return float("inf")

    async def participants(self) -> Sequence[Participant]:
        msg = "this context has no thread with participants; use EventStream or chat()"
        raise StateError(msg)

    async def stream(self, key: ActionKey, source: AsyncIterable[str]) -> Sequence[Action]:
        """Return the whole text as one message."""
        text = "".join([piece async for piece in source])
        return [SendMessage(text)] if text.strip() else []

    async def pieces(self, key: ActionKey) -> int:
        return 1  # earlier events are not known here


@asynccontextmanager
async def show_typing_while(live: LiveChannel) -> AsyncIterator[None]:
    """Show the typing indicator while the block runs; errors of the block are raised unchanged, not in a group."""
    import anyio  # here, because importing it is slow and plugins are imported without it

    failure: Exception | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(_keep_showing_typing, live)
        try:
            yield
        except Exception as error:
            failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _keep_showing_typing(live: LiveChannel) -> None:
    import anyio

    while True:  # noqa: ASYNC110 -- it is time that is waited for
        await anyio.sleep(await live.show_typing())
