"""A chat whose store cannot grow for a while; run as a process of its own, because the limit is the process's.

Prints, as JSON, what was logged and what was answered, while the disk was full and in the end.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from pathlib import Path
from typing import Any

import structlog

from chatbot import Context, Plugin
from chatbot.stores import SqliteStore
from chatbot.testing import chat
from chatbot.testing.virtual_time import VirtualTimeLoop

plugin = Plugin("echo")
said: list[dict[str, Any]] = []


@plugin.message()
async def echo(ctx: Context) -> str:
    return ctx.text


def keep(_logger: object, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    said.append({key: str(value) for key, value in event.items()})
    raise structlog.DropEvent


def limit(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


async def live(path: Path) -> dict[str, Any]:
    async with chat(plugin, store=SqliteStore(path)) as room:
        ann = room.user("Ann")
        await ann.says("one")
        limit(0)  # also within the write-ahead log, which is written from its beginning again after a checkpoint
        with room.not_waiting():
            for number in range(30):
                await ann.says("x" * 3000 + str(number))
            await room.advance(minutes=30)
        during, replies = list(said), room.replies
        limit(resource.RLIM_INFINITY)
        await room.settle()
        await ann.says("after")
        await room.advance(minutes=5)
        return {"during": during, "replies_during": replies, "said": said, "replies": room.replies}


if __name__ == "__main__":
    structlog.configure(processors=[keep])
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        print(json.dumps(runner.run(live(Path(sys.argv[1])))))
