"""The people of the soak: each has a thread with the bot and talks there, whatever the service does to them."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar
from uuid import UUID

import anyio

from chatbot.errors import OutcomeUnknown, ServiceError, Throttled
from chatbot.model import MessageId, Participant, ThreadId, UserId
from chatbot.service.acs import AcsResource
from chatbot.service.base import ChatService
from tests.chaos.verdict import HOSTILE

T = TypeVar("T")

ASKS: Final = ("say {}",) * 5 + ("/two {}", "/fix {}", "/count {}") * 2 + ("/shaky {}", "/tell {}")
"""What people ask for."""

HOSTILE_ASKS: Final = (*ASKS * 4, *(f"/{command} {{}}" for command in sorted(HOSTILE - {"thread"})), "/thread {} 30")
"""What they ask for where handlers do to their bot what they can."""


class Person:
    """Somebody in a thread with the bot.

    Args:
        resource: the service.
        dice: decides what they do, and when.
        pause: seconds between two outbursts, on average.
        asks: what they ask for.

    Attributes:
        thread: where they talk, once they have opened it.
        doubts: how often they could not tell whether something was done.
    """

    def __init__(self, resource: AcsResource, dice: random.Random, pause: float, asks: Sequence[str] = ASKS) -> None:
        self.thread: ThreadId | None = None
        self.doubts = 0
        self._resource = resource
        self._dice = dice
        self._pause = pause
        self._asks = asks
        self._count = 0

    async def come(self, bot: UserId) -> ThreadId:
        """Open a thread with the bot."""
        user = await self._insist(self._resource.create_user)
        self._chat: ChatService = self._resource.chat(user, self._resource.issued_tokens(user))
        key = str(UUID(int=self._dice.getrandbits(128), version=4))
        made = await self._insist(
            lambda: self._chat.create_thread("soak", [Participant(bot, "Echo")], repeatability_id=key)
        )
        self.thread = made.thread.id
        return self.thread

    async def talk(self, until: float) -> None:
        """Say things, one or a few at a time, and correct some of them, until it is time to be silent."""
        while True:
            pause = self._dice.expovariate(1 / self._pause)
            if anyio.current_time() + pause > until:
                return
            await anyio.sleep(pause)
            for _ in range(self._dice.choice((1, 1, 1, 1, 2, 4))):
                await self.say(self._dice.choice(self._asks))

    async def say(self, form: str) -> None:
        """Say something with the next number in it; some plain words are corrected a little later."""
        self._count += 1
        text = form.format(self._count)
        message = await self._try(lambda: self._chat.send_message(self._where, text))
        if message is not None and form == "say {}" and self._dice.random() < 0.2:
            await anyio.sleep(self._dice.choice((0.0, 0.5, 3.0)))
            await self._correct(message, f"{text} anew")

    async def _correct(self, message: MessageId, text: str) -> None:
        await self._try(lambda: self._chat.edit_message(self._where, message, content=text))

    @property
    def _where(self) -> ThreadId:
        assert self.thread is not None
        return self.thread

    async def _try(self, ask: Callable[[], Awaitable[T]]) -> T | None:
        """Ask until it is done, or may have been done: what was done is read from the service at the end."""
        while True:
            try:
                return await ask()
            except OutcomeUnknown:
                self.doubts += 1
                return None
            except ServiceError as error:
                await self._wait(error)

    async def _insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask until it is done; it may be done twice."""
        while True:
            try:
                return await ask()
            except ServiceError as error:
                await self._wait(error)

    async def _wait(self, error: ServiceError) -> None:
        pause = error.retry_after if isinstance(error, Throttled) else None
        await anyio.sleep(pause or self._dice.uniform(0.5, 2.0))
