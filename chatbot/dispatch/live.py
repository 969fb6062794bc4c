"""The open line: what a handler does or asks at once, while it runs, instead of wishing for it.

Everything else that a handler wants waits for the commit. The bot gives the line; without one (in plain calls of
handlers) nothing is shown while a handler runs, and a streamed text is said when it is complete.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import anyio

from chatbot.actions import Action, ActionKey, SendMessage
from chatbot.errors import StateError
from chatbot.model import Participant


class LiveChannel(Protocol):
    """A bot's open line into the thread of an event."""

    async def show_typing(self) -> float:
        """Show once that the bot is writing, as far as quotas allow; gives the seconds after which to come again.

        A courtesy: what the service says against it is swallowed.
        """
        ...

    async def participants(self) -> Sequence[Participant]:
        """Who is in the thread, the bot included.

        Raises:
            ErrorResponse: the service does not say.
        """
        ...

    async def stream(self, key: ActionKey, source: AsyncIterable[str]) -> Sequence[Action]:
        """Show a text in one message while its pieces arrive, and give what brings it to its final form.

        The first of the actions is done under the key itself if it is a `SendMessage`: then nothing was shown. There
        are none if the text was empty.

        Raises:
            StoreError: the message could not be journalled before its first send.
            Exception: what the source raises.
        """
        ...

    async def pieces(self, key: ActionKey) -> int:
        """In how many pieces the message of an earlier event stands in the thread.

        Raises:
            StoreError: it cannot be read.
        """
        ...


class NoLiveChannel:
    """The line of a handler that is called without a bot."""

    async def show_typing(self) -> float:
        """Show nothing."""
        return float("inf")

    async def participants(self) -> Sequence[Participant]:
        """Refuse: nobody knows."""
        msg = "there is no thread behind this context that has participants; use EventStream or chat()"
        raise StateError(msg)

    async def stream(self, key: ActionKey, source: AsyncIterable[str]) -> Sequence[Action]:
        """Give the whole text as one message."""
        text = "".join([piece async for piece in source])
        return [SendMessage(text)] if text.strip() else []

    async def pieces(self, key: ActionKey) -> int:
        """One: nobody remembers."""
        return 1


@asynccontextmanager
async def show_typing_while(live: LiveChannel) -> AsyncIterator[None]:
    """Show that the bot is writing for as long as the block lasts; an error of the block is raised as it is."""
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
    while True:  # noqa: ASYNC110 -- it is time that is waited for
        await anyio.sleep(await live.show_typing())
