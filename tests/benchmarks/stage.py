"""The emulator in a process of its own, with people in its threads who do what they are told, a line of JSON each.

People speak inside of this process, so that what they do costs the bots nothing; when a reply came and when the
message was shown as read is taken from the emulator's own log of requests, in milliseconds. Quotas are off here; the
bot keeps its own budgets all the same. `tests.benchmarks.stack` talks to it.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from chatbot.emulator import Emulator, World, serve
from tests.benchmarks.stack import cpu_seconds

POLL_SECONDS = 0.02
FINE_POLL_SECONDS = 0.005
SILENT_SECONDS = 3600.0
"""How long ago the threads were made, and the bot was stopped."""

SENT, READ = "send_message", "send_read_receipt"
POLLS = "list_threads", "list_messages"


@dataclass
class Exchange:
    """Messages that wait for their reply and their receipt, one in a thread at a time."""

    waiting: dict[str, int] = field(default_factory=dict)  # thread to the time of its message, ms
    unread: dict[str, int] = field(default_factory=dict)
    replied: list[int] = field(default_factory=list)
    read: list[int] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    latest_ms: int = 0
    first_poll_ms: int = 0


class Stage:
    """The emulator, one bot's user, and a person with so many threads with it.

    Args:
        count: how many threads.
        bots: how many bots are in them; the first one answers.
        quotas: the emulator enforces the service's.
    """

    def __init__(self, count: int, *, bots: int = 1, quotas: bool = False) -> None:
        self._behind = SILENT_SECONDS
        self.emulator = Emulator(World(seed=1), quotas=quotas, clock=lambda: time.time() - self._behind)
        self.bot, self.ann, self.rival = (self.emulator.create_user() for _ in range(3))
        self.bots = [self.bot, *(self.emulator.create_user() for _ in range(bots - 1))]
        self.threads = [self.emulator.create_thread(self.ann, f"{number}", self.bots) for number in range(count)]
        self.prepare_threads()
        self.made_ms = self.emulator.now() + 1000
        self._behind = 0.0
        self.order = random.Random(1).sample(self.threads, count)
        self._next = 0
        self._exchange = Exchange()
        self._dice = random.Random(2)

    certificates: Path | None = None
    """The directory of a certificate authority: other clients than the bot connect with TLS."""

    def prepare_threads(self) -> None:
        """Do what has happened in the threads before the bot was stopped."""

    def say(self) -> None:
        """Say something in the next thread, unless its last message still waits."""
        thread = self.order[self._next % len(self.order)]
        self._next += 1
        if thread not in self._exchange.waiting:
            sent = self.emulator.send(thread, self.ann, "well, this is what I have to say")
            self._exchange.waiting[thread] = self._exchange.unread[thread] = sent

    def note(self) -> None:
        """Take in what the bot has asked for since the last time."""
        exchange, calls = self._exchange, list(self.emulator.calls)
        self.emulator.calls.clear()
        for call in calls:
            if call.user != self.bot:
                continue
            exchange.calls[call.operation] += 1
            if call.operation in POLLS and not exchange.first_poll_ms:
                exchange.first_poll_ms = call.at
            waiting = {SENT: exchange.waiting, READ: exchange.unread}.get(call.operation)
            thread = call.target.split("/")[3] if waiting is not None else ""
            if waiting and call.status < 300 and thread in waiting:
                latencies = exchange.replied if call.operation == SENT else exchange.read
                latencies.append(call.at - waiting.pop(thread))
                exchange.latest_ms = call.at

    async def settle(self, seconds: float) -> None:
        """Wait until every message has its reply and its receipt."""
        until = time.monotonic() + seconds
        while (self._exchange.waiting or self._exchange.unread) and time.monotonic() < until:
            await asyncio.sleep(POLL_SECONDS)
            self.note()

    # ── what people are told ──────────────────────────────────────────────────────────────────────────────────

    async def burst(self, messages: int, seconds: float) -> dict[str, Any]:
        """Speak in so many threads at once, and wait."""
        begun = self._begin()
        for _ in range(messages):
            self.say()
        await self.settle(seconds)
        return self._found(begun)

    async def place(self, messages: int) -> dict[str, Any]:
        """Speak in so many threads at once, and wait for nothing; see `answered`."""
        self._begin()
        for _ in range(messages):
            self.say()
        return {}

    async def first_poll(self, bot: int, seconds: float) -> dict[str, Any]:
        """Wait until the bot polls; return the processor time that its process has used until then.

        Args:
            bot: the id of the bot's process.
            seconds: how long to wait at most.
        """
        begun = time.monotonic()
        while not self._exchange.first_poll_ms and time.monotonic() < begun + seconds:
            await asyncio.sleep(FINE_POLL_SECONDS)
            self.note()
        return {"bot": cpu_seconds(bot), "seconds": time.monotonic() - begun}

    async def answered(self, bot: int, seconds: float) -> dict[str, Any]:
        """Wait until what was placed has its replies, then its receipts; all is counted from the bot's first poll.

        Args:
            bot: the id of the bot's process.
            seconds: how long to wait at most.
        """
        exchange, until = self._exchange, time.monotonic() + seconds
        used, own = (await self.first_poll(bot, seconds))["bot"], time.process_time()
        while exchange.waiting and time.monotonic() < until:
            await asyncio.sleep(FINE_POLL_SECONDS)
            self.note()
        used, own, polls = cpu_seconds(bot) - used, time.process_time() - own, exchange.calls["list_messages"]
        to_replies, receipts = exchange.latest_ms - exchange.first_poll_ms, len(exchange.read)
        await self.settle(until - time.monotonic())
        return {
            **self._found(exchange.first_poll_ms),
            "seconds": to_replies / 1000,
            "seconds_with_receipts": (exchange.latest_ms - exchange.first_poll_ms) / 1000,
            "receipts_meanwhile": receipts,
            "polls_meanwhile": polls,
            "bot": used,
            "emulator": own,
        }

    async def talk(self, rate: float, seconds: float) -> dict[str, Any]:
        """Speak so many times a second, at irregular moments; then wait for the last replies."""
        begun = self._begin()
        until = time.monotonic() + seconds
        due = time.monotonic()
        while (due := due + self._dice.uniform(0.5, 1.5) / rate) < until:
            while (pause := due - time.monotonic()) > 0:
                await asyncio.sleep(min(pause, POLL_SECONDS))
                self.note()
            self.say()
        await self.settle(10.0)
        return self._found(begun)

    async def quiet(self, seconds: float) -> dict[str, Any]:
        """Say nothing."""
        begun = self._begin()
        for _ in range(max(1, int(seconds / 0.25))):
            await asyncio.sleep(seconds / max(1, int(seconds / 0.25)))
            self.note()
        return self._found(begun)

    async def prepare(self, messages: int) -> dict[str, Any]:
        """Make threads of somebody else's, each with a message to answer."""
        threads = [self.emulator.create_thread(self.ann, "other", [self.rival]) for _ in range(messages)]
        said = {thread: self.emulator.send(thread, self.ann, "well, this is what I have to say") for thread in threads}
        return {"user": self.rival, "token": self.emulator.issue_token(self.rival).text, "said": said}

    def _begin(self) -> int:
        self.emulator.calls.clear()
        self._exchange = Exchange()
        return self.emulator.now()

    def _found(self, begun_ms: int) -> dict[str, Any]:
        exchange = self._exchange
        return {
            "seconds": (exchange.latest_ms - begun_ms) / 1000,
            "replied": exchange.replied,
            "read": exchange.read,
            "unanswered": len(exchange.waiting),
            "calls": exchange.calls,
        }


async def main(stage: Stage) -> None:
    """Serve, say who is who, and do what the lines say until they end."""
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    has_tls = stage.certificates is not None
    async with serve(stage.emulator, tls=has_tls, certificates=stage.certificates) as running:
        facts = {
            "connection_string": f"endpoint={running.http_endpoint}/;accesskey={stage.emulator.access_key}",
            "resource": urlsplit(running.http_endpoint).netloc,
            "endpoint": running.endpoint,
            "token": stage.emulator.issue_token(stage.ann).text,
            "ca_file": str(running.ca_file or ""),
            "bots": stage.bots,
            "threads": stage.threads,
            "made_ms": stage.made_ms,
        }
        print(json.dumps(facts), flush=True)
        while line := await lines.readline():
            wanted = json.loads(line)
            done = await getattr(stage, wanted.pop("do"))(**wanted)
            print(json.dumps(done), flush=True)


if __name__ == "__main__":
    asyncio.run(main(Stage(int(sys.argv[1]))))
