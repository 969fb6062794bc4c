"""The contenders of the benchmark `client`, each in a process of its own: prints the µs of processor time of its calls.

`python -m tests.benchmarks.callers WHO ENDPOINTS DIVISOR`; the endpoints are JSON, by what is asked there.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import anyio
from azure.communication.chat.aio import ChatClient
from azure.core.credentials import AccessToken
from azure.core.pipeline.policies import SansIOHTTPPolicy

from chatbot.bot import Bot, BotSettings
from chatbot.dispatch import BotInfo, Dispatcher
from chatbot.model import ThreadId, UserId
from chatbot.plugin import Plugin
from chatbot.polling.cadence import Cadence
from chatbot.runtime.observe.counters import BotCounters
from chatbot.runtime.observe.instrumented_service import counted
from chatbot.service.acs import AcsResource
from chatbot.service.base import ChatService
from chatbot.service.credentials import StaticToken
from chatbot.stores.memory import MemoryStore
from chatbot.stores.records import ThreadRecord
from chatbot.stores.writes import SaveThread
from tests.benchmarks.canned import PERSON
from tests.benchmarks.client import BOT, OURS, PACED, QUICKSTART, RAW, UVLOOP

TEXT = "well, this is what you said"
AT_ONCE = 32
PER_TICK, TICK = 20, 1 / 32  # of the bot, whose beats lie on a grid
THREADS = [ThreadId(f"19:sMzsnIQLo5Q3sP5Vfh3GsKNKuVVYAEeXvBHAG-eCi{number:03}1@thread.v2") for number in range(200)]
BOT_USER = UserId(f"{PERSON[:-1]}2")
WATCHED_SECONDS = 2.0

Call = Callable[[ThreadId], Coroutine[Any, Any, object]]


def page_size(what: str) -> int:
    return max(1, int(what))


async def cost(call: Call, calls: int, threads: Sequence[ThreadId]) -> float:
    """Return the µs of processor time of one call, after every thread had one."""

    async def work(threads: Any) -> None:
        for thread in threads:
            await call(thread)

    threads = threads[:calls]
    for count in (len(threads), calls):
        begun = time.process_time()
        rest = iter([threads[number % len(threads)] for number in range(count)])
        await asyncio.gather(*(work(rest) for _ in range(AT_ONCE)))
        used = time.process_time() - begun
    return used / calls * 1e6


# ── the SDK as its quickstart uses it ─────────────────────────────────────────────────────────────────────────────


class _Credential:
    async def get_token(self, *scopes: str, **kwargs: Any) -> AccessToken:
        return AccessToken("a.b.c", int(time.time()) + 86400)


class _OverHttp(SansIOHTTPPolicy[Any, Any]):
    def on_request(self, request: Any) -> None:
        request.context.options["enforce_https"] = False


@asynccontextmanager
async def quickstart(endpoint: str, what: str, known: Sequence[ThreadId] = THREADS) -> AsyncIterator[Call]:
    """A client for each thread, and whatever it does by default."""
    options: dict[str, Any] = {"per_call_policies": [_OverHttp()]}
    async with AsyncExitStack() as clients:
        chat = await clients.enter_async_context(ChatClient(endpoint, _Credential(), **options))  # type: ignore[arg-type]
        threads: dict[ThreadId, Any] = {}
        for thread in known:
            client = chat.get_chat_thread_client(thread, **options)
            threads[thread] = await clients.enter_async_context(client)

        async def list_messages(thread: ThreadId) -> None:
            async for _ in threads[thread].list_messages(results_per_page=page_size(what)):
                pass

        async def send(thread: ThreadId) -> None:
            await threads[thread].send_message(TEXT)

        yield list_messages if what != "send" else send


async def at_the_bots_pace(endpoint: str, what: str, seconds: float) -> float:
    """Return the cost of a call, of some twenty on each tick of the bot's beats."""
    async with quickstart(endpoint, what) as call:
        threads = THREADS[:PER_TICK]
        await asyncio.gather(*map(call, threads))
        begun, used, done = time.monotonic(), time.process_time(), 0
        while (now := time.monotonic()) < begun + seconds:
            await asyncio.gather(*map(call, threads))
            done += PER_TICK
            await asyncio.sleep(max(0.0, now + TICK - time.monotonic()))
        return (time.process_time() - used) / done * 1e6


# ── ours ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def our_chat(endpoint: str) -> AsyncIterator[ChatService]:
    async with AcsResource(endpoint) as resource:
        yield resource.chat(BOT_USER, StaticToken("a.b.c"))


@asynccontextmanager
async def our_client(endpoint: str, what: str, _known: Sequence[ThreadId]) -> AsyncIterator[Call]:
    """The client alone."""
    async with our_chat(endpoint) as chat:

        async def list_messages(thread: ThreadId) -> None:
            await chat.list_messages(thread, page_size=page_size(what))

        async def send(thread: ThreadId) -> None:
            await chat.send_message(thread, TEXT)

        yield list_messages if what != "send" else send


async def our_bot(endpoint: str, seconds: float) -> float:
    """The whole bot, as the daemon makes it, with threads in which nothing new is said."""
    now = int(time.time() * 1000)
    counters, store, stopping = BotCounters(), MemoryStore(), anyio.Event()
    plugin = Plugin("quiet")
    async with our_chat(endpoint) as chat, store:
        await store.commit(BOT_USER, [SaveThread(ThreadRecord(thread, floor=now, base=now)) for thread in THREADS])
        bot = Bot(
            name="quiet",
            service=counted(chat, counters),
            store=store,
            dispatcher=Dispatcher([plugin], bot=BotInfo("quiet", BOT_USER, "Quiet")),
            settings=BotSettings(cadence=Cadence(interval=0.3, idle=0.3, rate=1000)),
            observer=counters,
        )
        async with anyio.create_task_group() as group:
            group.start_soon(bot.run, stopping)
            await anyio.sleep(0.7)  # until all have been looked at
            begun, before = time.process_time(), looks(counters)
            await anyio.sleep(seconds)
            used, done = time.process_time() - begun, looks(counters) - before
            stopping.set()
    return used / done * 1e6


def looks(counters: BotCounters) -> int:
    return sum(count for (operation, _), count in counters.read().calls.items() if operation == "list_messages")


# ── aiohttp alone ─────────────────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def raw(endpoint: str, what: str, _known: Sequence[ThreadId]) -> AsyncIterator[Call]:
    """One session, the same addresses, json: less than this no client on aiohttp can cost."""
    headers = {"Authorization": "Bearer a.b.c", "Accept": "application/json"}
    async with aiohttp.ClientSession(headers=headers) as session:

        async def list_messages(thread: ThreadId) -> None:
            address = f"{endpoint}/chat/threads/{thread}/messages?maxPageSize={page_size(what)}&api-version=2024-03-07"
            async with session.get(address) as response:
                json.loads(await response.read())

        async def send(thread: ThreadId) -> None:
            address = f"{endpoint}/chat/threads/{thread}/messages?api-version=2024-03-07"
            async with session.post(address, json={"content": TEXT, "type": "text"}) as response:
                json.loads(await response.read())

        yield list_messages if what != "send" else send


CALLERS = {
    QUICKSTART: (quickstart, 1),
    OURS: (our_client, 2),
    UVLOOP: (our_client, 2),
    RAW: (raw, 4),
}
CALLS = {"0": 800, "1": 800, "20": 300, "200": 60, "send": 600}


PACED_CALLS = ("0", "20", "200")


async def main(who: str, endpoints: dict[str, str], divisor: int) -> dict[str, float]:
    seconds = WATCHED_SECONDS / min(divisor, 4)
    paced = PACED_CALLS if divisor == 1 else PACED_CALLS[:1]
    threads = THREADS[: max(PER_TICK, len(THREADS) // divisor)]  # each has a call before the clock starts
    if who == BOT:
        return {what: await our_bot(endpoints[what], seconds) for what in paced}
    if who == PACED:
        return {what: await at_the_bots_pace(endpoints[what], what, seconds) for what in paced}
    open_caller, factor = CALLERS[who]
    costs = {}
    for what, calls in CALLS.items():
        if who != UVLOOP or what == "0":
            async with open_caller(endpoints[what], what, threads) as call:
                costs[what] = await cost(call, calls * factor // divisor, threads)
    return costs


if __name__ == "__main__":
    options = {"use_uvloop": sys.argv[1] == UVLOOP}
    job = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
    print(json.dumps(anyio.run(main, *job, backend_options=options)))
