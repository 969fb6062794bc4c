"""The scene of tests in which plugins do their worst: an event is given up, and its thread goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from chatbot import Context, Plugin, Retry
from chatbot.testing import Room, chat

ONCE: Final = Retry(attempts=1)

STILL_HERE: Final = "still here"
"""What the bot answers to everything that the plugin leaves to it."""


@asynccontextmanager
async def chat_with_failures(plugin: Plugin) -> AsyncIterator[Room]:
    """A chat in which failures become dead letters and do not fail the test.

    Args:
        plugin: gets one more handler, the last, which answers all other messages.
    """

    @plugin.message()
    async def others(ctx: Context) -> str:
        return STILL_HERE

    async with chat(plugin, raise_failures=False) as room:
        yield room
