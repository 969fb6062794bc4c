"""The emulator of `latency`: people who talk at a pace that the quotas allow, and who edit, delete and remove.

Quotas are on: what they refuse is counted. `python -m tests.benchmarks.conversing THREADS BOTS [CERTIFICATES]`; with a
directory for certificates, clients of people connect as well, and quotas are off.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tests.benchmarks.stage import Stage, main

CHANGED = 60
"""Threads, at most a third of all, in which a message that was said before the start is changed."""

LAST_REPLY_SECONDS = 3.0


class People(Stage):
    """The stage, with quotas, and a person who remembers what it has done and when."""

    def prepare_threads(self) -> None:
        """Say something in the threads in which that is changed later."""
        self.changed = self.threads[len(self.threads) - min(CHANGED, len(self.threads) // 3) :]
        self.first = {thread: self.emulator.send(thread, self.ann, "hello") for thread in self.changed}

    async def fault(self, rule: str) -> dict[str, Any]:
        """Answer as this rule says from now on."""
        self.emulator.faults.clear()
        self.emulator.faults.add(rule)
        return {}

    async def converse(self, seconds: float, pause: list[float], talking: int, silent: int) -> dict[str, Any]:
        """Talk in some threads all the time, and say one word in others; return each word with its first reply.

        Args:
            seconds: How long.
            pause: The shortest and longest pause between two words in a talking thread.
            talking: In how many threads people talk.
            silent: How many words are said in threads that have been silent; one in each.
        """
        self.emulator.calls.clear()
        words: dict[str, list[tuple[str, int]]] = {"talking": [], "silent": []}
        free = [thread for thread in self.order if thread not in self.first]
        counts: Counter[str] = Counter()
        self.talking = frozenset(free[:talking])  # what is polled there is counted apart
        async with asyncio.TaskGroup() as tasks:
            for thread in free[:talking]:
                tasks.create_task(self._talk(thread, seconds, pause, words["talking"]))
            for thread in free[talking : talking + silent]:
                tasks.create_task(self._say_once(thread, seconds, words["silent"]))
            for _ in range(int(seconds + LAST_REPLY_SECONDS)):
                await asyncio.sleep(1)
                self._count(counts)
        return {
            **{kind: [self._with_reply(thread, word) for thread, word in said] for kind, said in words.items()},
            "calls": counts,
        }

    async def change(self, seconds: float) -> dict[str, Any]:
        """Edit, delete and remove the bot, a third of the threads each, at random moments; return when."""
        done: dict[str, dict[str, int]] = {"edited": {}, "deleted": {}, "left": {}}
        dice = random.Random(3)

        async def act(number: int, thread: str) -> None:
            await asyncio.sleep(dice.uniform(0, seconds))
            kind, message = ("edited", "deleted", "left")[number % 3], self.first[thread]
            if kind == "edited":
                self.emulator.edit(thread, self.ann, message, "hello again")
            elif kind == "deleted":
                self.emulator.delete(thread, self.ann, message)
            else:
                self.emulator.remove(thread, self.ann, self.bot)
            done[kind][thread if kind == "left" else f"{thread}/{message}"] = self.emulator.now()

        async with asyncio.TaskGroup() as tasks:
            for number, thread in enumerate(self.changed):
                tasks.create_task(act(number, thread))
        return done

    async def both(self, changing: dict[str, Any], **conversing: Any) -> dict[str, Any]:
        """Change while people talk."""
        changed, conversed = await asyncio.gather(self.change(**changing), self.converse(**conversing))
        return {**conversed, **changed}

    async def _talk(self, thread: str, seconds: float, pause: list[float], said: list[tuple[str, int]]) -> None:
        loop, dice = asyncio.get_running_loop(), random.Random(thread)
        until = loop.time() + seconds
        await asyncio.sleep(dice.uniform(0, pause[1]))
        while loop.time() < until:
            said.append((thread, self.emulator.send(thread, self.ann, "talk")))
            await asyncio.sleep(dice.uniform(*pause))

    async def _say_once(self, thread: str, seconds: float, said: list[tuple[str, int]]) -> None:
        await asyncio.sleep(random.Random(thread).uniform(0, seconds))
        said.append((thread, self.emulator.send(thread, self.ann, "word")))

    def _count(self, counts: Counter[str]) -> None:
        for call in self.emulator.calls:
            if call.user in self.bots:
                counts[call.operation] += 1
                counts["refused"] += call.status == 429
                if call.operation == "list_messages" and call.target.split("/")[3] in self.talking:
                    counts["polls of talking threads"] += 1
        self.emulator.calls.clear()

    def _with_reply(self, thread: str, word: int) -> tuple[str, int, int | None]:
        replies = [
            message.id
            for message in self.emulator.transcript(thread)
            if message.id > word and message.sender == self.bot
        ]
        return thread, word, min(replies, default=None)


if __name__ == "__main__":
    people = People(int(sys.argv[1]), bots=int(sys.argv[2]), quotas=len(sys.argv) <= 3)
    people.certificates = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    asyncio.run(main(people))
