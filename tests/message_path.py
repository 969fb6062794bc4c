"""Follow one message with the profiler, and print its hops: `python -m tests.message_path`.

This runs in a process of its own: caches that other code has filled would hide hops, and `random` is seeded, because a
pause of another length may or may not cross a second.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
from types import CodeType, FrameType
from typing import Final

import structlog

from chatbot import Context, Plugin
from chatbot.testing import chat
from chatbot.testing.virtual_time import VirtualTimeLoop
from tests.places import ROOT

OUTSIDE: Final = ("/", "<", "emulator/", "testing/")
"""The service and the people of the test are not on the bot's way."""


async def follow_a_message() -> list[tuple[str, str]]:
    """Return file and function of every hop of one message, in the order of their first calls."""
    plugin = Plugin("parrot")

    @plugin.message()
    async def parrot(ctx: Context) -> str:
        return ctx.text

    called: dict[CodeType, None] = {}

    def note(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call":
            called.setdefault(frame.f_code)

    async with chat(plugin) as room:
        ann = room.user("Ann")
        await ann.says("the first message also opens the room")
        await room.advance(minutes=2)
        before = sys.getprofile()
        sys.setprofile(note)
        try:
            await ann.says("hello")
        finally:
            sys.setprofile(before)
        assert room.replies[-1] == "hello"
    hops = [(code.co_filename.removeprefix(f"{ROOT}/"), code.co_qualname) for code in called]
    return [(file, name) for file, name in hops if not file.startswith(OUTSIDE)]


def main() -> None:
    """Print file and function of each hop, separated by a space."""
    random.seed(0)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    loop = VirtualTimeLoop()
    asyncio.set_event_loop(loop)
    for file, name in loop.run_until_complete(follow_a_message()):
        print(file, name)
    loop.close()


if __name__ == "__main__":
    main()
