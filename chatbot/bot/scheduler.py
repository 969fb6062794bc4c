"""Gives the lanes of a bot their turns: when their time has come, or when they were rung for, so many at a time."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import anyio

from chatbot.bot.degraded import LANE_FAILING
from chatbot.bot.poll_queue import NextRun, PollQueue
from chatbot.dispatch.author_code import uncancelled
from chatbot.errors import kind_of
from chatbot.events import Event, ThreadEvent
from chatbot.model import ThreadId

if TYPE_CHECKING:
    from chatbot.bot.bot import Bot
    from chatbot.bot.lane import Lane

MOST_AT_WORK: Final = 1024
"""Lanes that are at work at one time, those that wait for handlers included: each holds what its look has shown."""

UNFORESEEN_PAUSE: Final = 30.0
"""Seconds a lane rests after something nobody foresaw."""


class Scheduler:
    """The turns of one bot's lanes.

    Args:
        bot: whose.

    Attributes:
        working: the lanes that are at work, each with the number of its turn.
        ended: set, and made anew, whenever a turn has ended.
    """

    def __init__(self, bot: Bot) -> None:
        self._bot = bot
        self._rota = PollQueue(bot.settings.cadence.rate)
        self._count = 0
        self._rung: dict[ThreadId, float] = {}
        self._to_ring: set[ThreadId] = set()
        self._with_handlers = 0
        self._woken = anyio.Event()
        self.working: dict[ThreadId, int] = {}
        self.ended = anyio.Event()

    def forget(self) -> None:
        """Let nobody wait for a turn any more; turns in hand go on."""
        self._rota = PollQueue(self._bot.settings.cadence.rate)

    def ring(self, thread: ThreadId, *, due: float | None = None) -> None:
        """Give a lane its turn as soon as possible, or when it is due; one at work gets another soon after."""
        due = anyio.current_time() if due is None else due
        if thread in self.working:
            self._rung[thread] = min(due, self._rung.get(thread, due))
        elif thread in self._bot.lanes:
            self._rota.call(thread, due)
            self._woken.set()

    def ring_soon(self, thread: ThreadId) -> None:
        """The same from a callback of the event loop, where no task runs."""
        self._to_ring.add(thread)
        self._woken.set()

    def begin_beat(self, thread: ThreadId) -> None:
        """Have a thread looked at some time within its first pause; random, so that threads begin one by one."""
        phase = random.random()  # noqa: S311 - not a secret
        self._rota.spread(thread, self._bot.settings.cadence.idle, anyio.current_time(), phase=phase)
        self._woken.set()

    def give_again(self, threads: Iterable[ThreadId]) -> None:
        """Give a turn to those of these lanes that are not at work and wait for none."""
        for thread in threads:
            if thread not in self.working and thread not in self._rota:
                self._rota.call(thread, anyio.current_time())
        self._woken.set()

    def next(self) -> tuple[ThreadId, float] | None:
        """The thread whose turn is due first, and when; None while none waits for one."""
        return self._rota.first()

    @property
    def stretch(self) -> float:
        """By how much looks that nothing asked for are rarer than the cadence says, as there are so many threads."""
        return self._rota.stretch

    def tell(self) -> None:
        """Let whoever waits for lanes look again."""
        self.ended.set()
        self.ended = anyio.Event()

    async def run(self) -> None:
        """Give turns for ever."""
        async with anyio.create_task_group() as group:
            while True:
                now = anyio.current_time()
                while self._to_ring:
                    self.ring(self._to_ring.pop())
                while not self._is_full and (thread := self._rota.take(now)) is not None:
                    self._count += 1
                    self.working[thread] = self._count
                    group.start_soon(self._turn, self._bot.lanes[thread])
                await self._wait()

    @property
    def _is_full(self) -> bool:
        at_work = len(self.working)
        return at_work - self._with_handlers >= self._bot.settings.max_turns or at_work >= MOST_AT_WORK

    @property
    def waits_for_handlers(self) -> bool:
        """Whether no lane gets a turn before a handler ends: that is up to their author, and no lane is late."""
        return len(self.working) >= MOST_AT_WORK or self._with_handlers >= MOST_AT_WORK

    @contextmanager
    def with_handlers(self, event: Event) -> Iterator[None]:
        """Let another lane have the turn of the one whose event is with handlers: these may take their time."""
        is_turn = isinstance(event, ThreadEvent) and event.thread in self.working
        self._with_handlers += is_turn
        if is_turn:
            self._woken.set()
        try:
            yield
        finally:
            self._with_handlers -= is_turn

    async def _wait(self) -> None:
        self._woken = anyio.Event()
        due = self._rota.next_due()
        if due is None or self._is_full:
            await self._woken.wait()
            return
        with anyio.move_on_after(max(0.0, due - anyio.current_time())):
            await self._woken.wait()

    async def _turn(self, lane: Lane) -> None:
        """One turn of one lane; whatever nobody foresaw is said with its traceback and does not stop the others."""
        rest = NextRun()
        self._bot.watch.at_work(lane.thread)
        try:
            rest = await uncancelled(lane.turn())
        except Exception as error:
            lane.log.exception("turn.failed")
            self._bot.tell(None, error)
            rest = NextRun(call=UNFORESEEN_PAUSE)
            detail = f"{kind_of(error)} in {lane.thread}, tried again every {UNFORESEEN_PAUSE:.0f} s: see turn.failed"
            self._bot.degraded.begin(LANE_FAILING, detail, anyio.current_time(), place=lane.thread, after=1.0)
        else:
            self._bot.degraded.end(LANE_FAILING, place=lane.thread)
        finally:
            del self.working[lane.thread]
            self._bot.watch.at_rest(lane.thread)
        rung = self._rung.pop(lane.thread, None)
        if rung is not None and rest != NextRun():
            pause = max(self._bot.settings.cadence.interval, rung - anyio.current_time())
            rest = replace(rest, call=pause if rest.call is None else min(rest.call, pause))
        self._rota.rest(lane.thread, rest, anyio.current_time())
        self._woken.set()
        self.tell()
