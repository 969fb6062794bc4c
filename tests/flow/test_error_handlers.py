from __future__ import annotations

import pytest

from chatbot import Context, Event, Plugin, Retry
from chatbot.testing import chat

pytestmark = pytest.mark.virtual_time


async def test_an_apology_comes_after_the_last_retry_and_the_next_message_is_answered() -> None:
    plugin, attempts = Plugin("fragile"), list[str]()

    @plugin.message(retry=Retry(attempts=2))
    async def answer(ctx: Context) -> str:
        attempts.append(ctx.text)
        if ctx.text == "break":
            raise ValueError(ctx.text)
        return ctx.text

    @plugin.error(ValueError)
    async def sorry(ctx: Context[Event], error: ValueError) -> str:
        return "Sorry, that did not work."

    async with chat(plugin, raise_failures=False) as room:
        await room.user("Ann").says("break", "go on")

        assert room.replies == ["Sorry, that did not work.", "go on"]
        assert attempts == ["break", "break", "go on"]
