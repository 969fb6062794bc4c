"""Polls of the threads of one bot in one replica, in virtual time: the bot's own poll queue, cadence and quotas.

A replica with many threads is simulated by a sample of them, with the same part of its rate: what a thread waits for
depends on rate and threads only in their ratio.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from chatbot.bot.poll_queue import NextRun, PollQueue
from chatbot.model import ThreadId
from chatbot.polling.cadence import Cadence
from chatbot.polling.thread_list import COVER_MS
from chatbot.service.budget import PROCESS_QUOTAS, QUOTAS, SHARED_QUOTAS, Budget, Operation
from tests.scale.assumptions import CONVERSATION, GAP, REQUEST_SECONDS
from tests.scale.listing import busiest, quantile

SAMPLE: Final = 400
"""The most threads that are simulated one by one."""

MESSAGES: Final = 150
"""How many messages are simulated at least."""

EDITS: Final = 150
"""How many edits of old messages are simulated."""


@dataclass(frozen=True, slots=True)
class Polls:
    """What polling the threads of one bot in one replica came to.

    Args:
        rate: polls a second, of all its threads.
        messages: seconds from each message to its handler, sorted.
        edits: seconds from an edit in a silent thread to its handler, sorted.
        used: the largest part of a thread's quota that was used in its window, 0 to 1, by operation.
    """

    rate: float
    messages: Sequence[float]
    edits: Sequence[float]
    used: dict[Operation, float]


@dataclass
class SampleThread:
    """A thread with people, as the simulation follows it."""

    name: ThreadId
    budget: Budget = field(default_factory=lambda: Budget(QUOTAS, shared=Budget(PROCESS_QUOTAS)))
    active_at: float = -1e9
    cover_at: float | None = None
    unread: list[float] = field(default_factory=list)
    edited_at: float | None = None
    polls: list[float] = field(default_factory=list)
    writes: list[float] = field(default_factory=list)


def simulate(threads: int, rate: float, listed: Sequence[float], *, wake: float = 0.0) -> Polls:
    """Let people talk in the threads of one replica, and poll them with the default settings.

    Args:
        threads: the bot's threads in this replica; at least 1.
        rate: messages a second in all of them.
        listed: seconds until the thread list shows a message, each as likely as the others.
        wake: seconds until this replica learns of it.
    """
    return _Simulation(threads, rate, listed, wake).run()


class _Simulation:
    def __init__(self, threads: int, rate: float, listed: Sequence[float], wake: float) -> None:
        self._random = Random(1)
        self._cadence, self._share = Cadence(), min(1.0, SAMPLE / threads)
        self._threads = {
            name: SampleThread(name)
            for number in range(min(threads, SAMPLE))
            if (name := ThreadId(str(number)))  # what a thread is called does not matter here
        }
        self._names = list(self._threads)
        self._queue = PollQueue(self._cadence.rate * self._share, self._cadence.idle)
        self._rate = rate * self._share
        self._listed, self._wake = listed, wake
        self._events: list[tuple[float, str, ThreadId]] = []
        self._messages: list[float] = []
        self._edits: list[float] = []
        for name in self._names:
            self._queue.start_periodic(name, self._cadence.idle, 0.0, phase=self._random.random())
        # Long enough for many messages, and for several polls of each silent thread.
        self._seconds = max(MESSAGES / self._rate, 3 * self._cadence.idle * self._queue.stretch)

    def run(self) -> Polls:
        self._write_story()
        now = 0.0
        while now < self._seconds or any(thread.edited_at is not None for thread in self._threads.values()):
            due = self._queue.next_due()
            assert due is not None
            if self._events and self._events[0][0] <= due:
                now, what, name = heapq.heappop(self._events)
                self._happens(what, self._threads[name], now)
                continue
            now = max(now, due)
            if (polled := self._queue.pop(now)) is not None:
                self._poll(self._threads[polled], now)
        polls = [thread.polls for thread in self._threads.values()]
        return Polls(
            rate=sum(map(len, polls)) / now / self._share,
            messages=sorted(self._messages),
            edits=sorted(self._edits),
            used={
                Operation.LIST_MESSAGES: max(busiest(each, QUOTAS[Operation.LIST_MESSAGES]) for each in polls),
                Operation.WRITE_MESSAGE: max(
                    busiest(sorted(thread.writes), SHARED_QUOTAS[Operation.WRITE_MESSAGE])
                    for thread in self._threads.values()
                ),
            },
        )

    def _write_story(self) -> None:
        """Plan conversations at random times, and edits in threads that are silent."""
        at = 0.0
        while (at := at + self._random.expovariate(self._rate / CONVERSATION)) < self._seconds:
            name, said = self._random.choice(self._names), at
            for _ in range(CONVERSATION):
                self._events.append((said, "message", name))
                said += self._random.uniform(*GAP)
        for _ in range(EDITS):
            self._events.append((self._random.uniform(0, self._seconds), "edit", self._random.choice(self._names)))
        heapq.heapify(self._events)

    def _happens(self, what: str, thread: SampleThread, now: float) -> None:
        if what == "message":
            thread.unread.append(now)
            thread.writes.append(now)
            self._queue.request(thread.name, now + self._random.choice(self._listed) + self._wake)
        elif thread.edited_at is None and now - thread.active_at > 4 * self._cadence.idle:
            thread.edited_at = now

    def _poll(self, thread: SampleThread, now: float) -> None:
        if wait := thread.budget.delay(Operation.LIST_MESSAGES, now):
            self._queue.schedule(thread.name, NextRun(due_in=wait, poll_in=self._cadence.idle), now)
            return
        thread.budget.spend(Operation.LIST_MESSAGES, now)
        thread.polls.append(now)
        done = now + REQUEST_SECONDS
        self._messages += [done - at for at in thread.unread]
        if thread.edited_at is not None:
            self._edits.append(done - thread.edited_at)
        if thread.unread:
            replied = done + REQUEST_SECONDS
            thread.writes += [replied] * len(thread.unread)
            # The reply moves the thread in the list, too: one more poll covers the second of both.
            thread.active_at, thread.cover_at = replied, int(replied) + COVER_MS / 1000
        elif thread.cover_at is not None and thread.cover_at <= now:
            thread.cover_at = None
        thread.unread, thread.edited_at = [], None
        due_in = None if thread.cover_at is None else max(0.0, thread.cover_at - now)
        pause = self._cadence.pause(max(0.0, now - thread.active_at))
        self._queue.schedule(thread.name, NextRun(due_in=due_in, poll_in=pause), done, begun_at=now)
        thread.budget.expire(now)


def median(values: Sequence[float]) -> float:
    """Return the median of sorted values; 0 of none."""
    return quantile(values, 0.5)
