"""The bot's own lane: handles what happens in no thread, one after the other. Its start and stop, and its schedules."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from chatbot.bot.processor import NOWHERE, EventProcessor
from chatbot.bot.retries import TryAgain
from chatbot.errors import StoreError
from chatbot.events import Event
from chatbot.outbox.outbox import Outbox
from chatbot.service.back_off import BackOff
from chatbot.service.budget import Budget
from chatbot.stores.records import Attempt, DeadLetter

if TYPE_CHECKING:
    from chatbot.bot.bot import Bot
    from chatbot.bot.retries import RetryLoop


class OwnLane:
    """The lane of one bot that is of no thread.

    Args:
        bot: whose lane it is.
        noted: an attempt that an earlier process noted before it died.
    """

    def __init__(self, bot: Bot, noted: Attempt | None) -> None:
        self.is_working = False
        self._bot = bot
        self._handling = EventProcessor(bot, None, record=None, noted=noted, outbox=_no_outbox(bot), log=bot.log)
        self._letters: list[DeadLetter] = []
        self._back_off = BackOff()
        self._woken = anyio.Event()
        self._turn = anyio.Lock()

    @property
    def trials(self) -> RetryLoop:
        """What runs the handlers."""
        return self._handling.trials

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
            async with self._turn:
                await self._handling.handle(event, {})
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
            while await self._handle_next():
                pass
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

    async def _handle_next(self) -> bool:
        """Handle one thing; `announce` may come between two."""
        async with self._turn:
            if not self._letters:
                return await self._handling.ring_next()
            letter = self._letters[0]
            await self._handling.revive(letter, is_wanted=self._awaits)
            self.drop_letter(letter.id)
            return True

    def _awaits(self, letter: DeadLetter) -> bool:
        return any(waiting.id == letter.id for waiting in self._letters)


def _no_outbox(bot: Bot) -> Outbox:
    """An outbox that stays empty: what is asked for here goes to threads, each of which has its own."""
    return Outbox(
        bot.service,
        NOWHERE,
        Budget(),
        find_row=bot.find_row,
        find_known_messages=bot.find_made,
        clock=bot.clock,
        display_name=bot.display_name,
        slack_ms=bot.settings.slack_ms,
        log=bot.log,
        during=bot.tracer.action,
        report_failure=lambda _error: None,
    )
