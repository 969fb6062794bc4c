"""The bot whose start is measured, in a process of its own: see `start`."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import structlog

from chatbot import Context, Plugin
from chatbot.bot import Bot
from chatbot.dispatch import BotInfo, Dispatcher
from chatbot.model import UserId
from chatbot.service.acs import AcsResource
from chatbot.stores import SqliteStore

LIMIT_SECONDS = 100.0

plugin = Plugin("count")
handled: list[str] = []


@plugin.message()
async def count(ctx: Context) -> None:
    handled.append(ctx.text)


async def work(job: dict[str, Any]) -> dict[str, float]:
    """Run the bot until it polls; say when that was, and what it had cost."""
    imported = time.time() - job["begun"]
    user = UserId(job["user"])
    acs = AcsResource(job["endpoint"], access_key=job["access_key"])
    async with SqliteStore(Path(job["store"])) as store, acs:
        dispatcher = Dispatcher([plugin], bot=BotInfo("bot", user, "bot"))
        service = acs.chat(user, acs.issued_tokens(user))
        bot = Bot(name="bot", service=service, store=store, dispatcher=dispatcher)
        stopping = anyio.Event()
        remembered = 0.0
        async with anyio.create_task_group() as group:
            group.start_soon(bot.run, stopping)
            while time.time() - job["begun"] < LIMIT_SECONDS and not is_polling(bot, job):
                await anyio.sleep(0.02)
                if bot.scheduler.lanes and not remembered:
                    remembered = time.time() - job["begun"] - imported
            polled = time.time() - job["begun"]
            used = cpu_seconds()
            await anyio.sleep(job["watched"])
            silent = cpu_seconds() - used
            stopping.set()
    return {
        "imported": imported,
        "remembered": remembered,
        "polled": polled,
        "cpu": used,
        "silent_cpu": silent,
        "handled": len(handled),
    }


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def is_polling(bot: Bot, job: dict[str, Any]) -> bool:
    """Whether what has moved is handled and, without the note, every thread was looked at."""
    if len(handled) < job["moved"]:
        return False
    return not job["all"] or all(lane.poller.has_polled for lane in bot.scheduler.lanes.values())


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    print(json.dumps(asyncio.run(work(json.loads(sys.argv[1])))))
