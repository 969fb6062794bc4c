"""A bot's handlers, which may be replaced between two events.

What plugins provide is made and torn down by one task for each generation of handlers. The old generation is left
when the last event that it has in hand is handled.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import anyio
from anyio.abc import TaskGroup

from chatbot.dispatch import Dispatcher


class _Generation:
    """One generation of handlers."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher
        self._in_hand = 0
        self._retired = anyio.Event()
        self._idle = anyio.Event()
        self.made = anyio.Event()
        self.error: Exception | None = None

    async def begin(self, group: TaskGroup) -> None:
        """Run in a group; returns when everything is made, and raises what could not be."""
        group.start_soon(self.run)
        await self.made.wait()
        if self.error is not None:
            raise self.error

    @property
    def name(self) -> str:
        """What its task is called."""
        return "providers"

    @property
    def place(self) -> str:
        """The bot's."""
        return f"bot {self.dispatcher.bot.name}"

    async def run(self) -> None:
        """Make what the plugins provide, and tear it down when nobody needs it any more.

        Whoever waits for `made` raises what could not be made; what fails later is raised here.
        """
        try:
            await self.dispatcher.author_code.run(self._live(), self)
        except Exception as error:
            if self.made.is_set():
                raise
            self.error = error
        finally:
            self.made.set()

    async def _live(self) -> None:
        async with self.dispatcher:
            self.made.set()
            await self._retired.wait()
            while self._in_hand:
                self._idle = anyio.Event()
                await self._idle.wait()

    def retire(self) -> None:
        self._retired.set()

    @contextmanager
    def at_work(self) -> Iterator[Dispatcher]:
        self._in_hand += 1
        try:
            yield self.dispatcher
        finally:
            self._in_hand -= 1
            self._idle.set()


class HandlerRunner:
    """The handlers of a bot. Use it as `async with`, around all events.

    Args:
        dispatcher: the first ones.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._shift = _Generation(dispatcher)
        self._group: TaskGroup | None = None

    @property
    def dispatcher(self) -> Dispatcher:
        """The present ones."""
        return self._shift.dispatcher

    async def __aenter__(self) -> Self:
        """Make what they need; what fails is raised as it is."""
        group = anyio.create_task_group()
        await group.__aenter__()
        shift = _Generation(self.dispatcher)
        try:
            await shift.begin(group)
        except BaseException:
            await group.__aexit__(None, None, None)
            raise
        self._shift, self._group = shift, group
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Tear down what was made; what fails then is raised as it is."""
        group, self._group = self._group, None
        assert group is not None
        self._shift.retire()
        try:
            await group.__aexit__(None, None, None)
        except BaseExceptionGroup as errors:
            first, *others = errors.exceptions
            if others:
                raise
            raise first from None

    @contextmanager
    def at_work(self) -> Iterator[Dispatcher]:
        """The present ones, kept until the block that uses them ends."""
        with self._shift.at_work() as dispatcher:
            yield dispatcher

    async def replace(self, dispatcher: Dispatcher) -> None:
        """Have the next events handled by others; those in hand are finished by the present ones.

        Raises:
            Exception: what the new ones need cannot be made; the present ones stay.
        """
        shift = _Generation(dispatcher)
        if self._group is not None:
            try:
                await shift.begin(self._group)
            except BaseException:
                shift.retire()  # should it be made after all, it is torn down at once
                raise
        old, self._shift = self._shift, shift
        old.retire()
