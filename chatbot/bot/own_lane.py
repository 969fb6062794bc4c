"""The bot's own lane: handles what happens in no thread, one after the other. Its start and stop, and its schedules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import anyio

from chatbot.bot.attempts import TryAgain
from chatbot.bot.trials import Trials
from chatbot.dispatch import Outcome
from chatbot.errors import StoreError
from chatbot.events import Event
from chatbot.model import ThreadId
from chatbot.service.back_off import BackOff
from chatbot.stores.base import Attempt, DeadLetter, DropDeadLetter, Enqueue, Write

if TYPE_CHECKING:
    from chatbot.bot.bot import Bot

NOWHERE: Final = ThreadId("")
"""What stands in the store for no thread."""


class OwnLane:
    """The lane of one bot that is of no thread.

    Args:
        bot: whose lane it is.
        noted: an attempt that an earlier process noted before it died.
    """

    def __init__(self, bot: Bot, noted: Attempt | None) -> None:
        self.is_working = False
        self._bot = bot
        self._trials = Trials(bot, None, noted, bot.log)
        self._letters: list[DeadLetter] = []
        self._back_off = BackOff()
        self._woken = anyio.Event()
        self._turn = anyio.Lock()

    def wake(self) -> None:
        """Have it look at what is due."""
        self._woken.set()

    def revive(self, letter: DeadLetter) -> None:
        """Have a dead letter tried again."""
        self._letters.append(letter)
        self.wake()

    def drop_letter(self, id: str) -> None:
        """Do not try this dead letter again."""
        self._letters = [letter for letter in self._letters if letter.id != id]

    async def announce(self, event: Event) -> None:
        """Let the handlers hear of the bot's own coming and going; a failure is said in the log, and not repeated."""
        try:
            await self._handle(event, [])
        except TryAgain:
            pass
        except StoreError as error:
            self._bot.trouble.met("store", error)

    async def run(self) -> None:
        """Handle what is due, whenever something is, until cancelled; what is in hand is finished by `announce`."""
        while True:
            woken = self._woken
            pause = None if self._bot.is_stopping else await self._work()
            with anyio.move_on_after(pause):
                await woken.wait()
            self._woken = anyio.Event()

    async def _work(self) -> float | None:
        """Handle everything that is due; returns the seconds after which to try again, None when all is done."""
        self.is_working = True
        try:
            while self._letters:
                letter = self._letters[0]
                await self._revive(letter)
                self.drop_letter(letter.id)
            while not self._bot.is_stopping and (due := self._bot.conversations.take_due(None)) is not None:
                event, writes = due
                await self._handle(event, writes)
        except TryAgain as again:
            return again.pause
        except StoreError as error:
            self._bot.trouble.met("store", error)
            return self._back_off.failed(error, anyio.current_time())
        finally:
            self.is_working = False
            self._bot.turns.tell()
        self._back_off.succeeded()
        return None

    async def _handle(self, event: Event, writes: Sequence[Write]) -> None:
        async with self._turn:
            await self._trials.run(event, lambda outcome, further: self._commit(event, outcome, [*writes, *further]))

    async def _revive(self, letter: DeadLetter) -> None:
        async with self._turn:
            with self._bot.tracer.attempt(letter.event, letter.attempts + 1):
                await self._try_again(letter)

    async def _try_again(self, letter: DeadLetter) -> None:
        outcome = await self._bot.handle(letter.event)
        if outcome.error is None:
            await self._commit(letter.event, outcome, [DropDeadLetter(letter.id)])
        else:
            await self._bot.commit([self._trials.letter(letter.event, outcome, letter.attempts + 1)])

    async def _commit(self, event: Event, outcome: Outcome, writes: Sequence[Write]) -> None:
        rows = self._bot.rows_for(outcome, event)
        ends = self._trials.attempts.end()
        commit = [*writes, *outcome.writes, *(Enqueue(row) for row in rows), *ends]
        if commit:
            await self._bot.commit(commit)
        self._trials.attempts.committed()
        self._bot.take(rows)
