"""Runs a bot's handlers on events, so many at a time; the handlers may be replaced between two events.

What plugins provide is made and torn down by one task for each generation of handlers. The old generation is left
when the last event that it has in hand is handled.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import Self

import anyio
from anyio.abc import TaskGroup

from chatbot.bot.environment import BotContext
from chatbot.dispatch import Dispatcher, LiveChannel, Outcome
from chatbot.dispatch.author_code import RunLimits
from chatbot.errors import described, kind_of
from chatbot.events import Event, ThreadEvent


class _Generation:
    """One generation of handlers."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher
        self._active = 0
        self._retired = anyio.Event()
        self._idle = anyio.Event()
        self.ready = anyio.Event()
        self.error: Exception | None = None

    async def start(self, group: TaskGroup) -> None:
        """Run in a group; returns when everything is made, and raises what could not be."""
        group.start_soon(self.run)
        await self.ready.wait()
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
            await self.dispatcher.author_code.run(self._serve(), self)
        except Exception as error:
            if self.ready.is_set():
                raise
            self.error = error
        finally:
            self.ready.set()

    async def _serve(self) -> None:
        async with self.dispatcher:
            self.ready.set()
            await self._retired.wait()
            while self._active:
                self._idle = anyio.Event()
                await self._idle.wait()

    def retire(self) -> None:
        """Tear everything down once the last event in hand is handled."""
        self._retired.set()

    @contextmanager
    def use(self) -> Iterator[Dispatcher]:
        self._active += 1
        try:
            yield self.dispatcher
        finally:
            self._active -= 1
            self._idle.set()


class HandlerGenerations:
    """The handlers of a bot, which can be replaced. Use it as `async with`, around all events.

    Args:
        dispatcher: the first ones.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._current = _Generation(dispatcher)
        self._group: TaskGroup | None = None

    @property
    def dispatcher(self) -> Dispatcher:
        """The present ones."""
        return self._current.dispatcher

    async def __aenter__(self) -> Self:
        """Make what they need; what fails is raised as it is."""
        group = anyio.create_task_group()
        await group.__aenter__()
        generation = _Generation(self.dispatcher)
        try:
            await generation.start(group)
        except BaseException:
            await group.__aexit__(None, None, None)
            raise
        self._current, self._group = generation, group
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Tear down what was made; what fails then is raised as it is."""
        group, self._group = self._group, None
        assert group is not None
        self._current.retire()
        try:
            await group.__aexit__(None, None, None)
        except BaseExceptionGroup as errors:
            first, *others = errors.exceptions
            if others:
                raise
            raise first from None

    def use(self) -> AbstractContextManager[Dispatcher]:
        """The present ones, kept until the block that uses them ends."""
        return self._current.use()

    async def replace(self, dispatcher: Dispatcher) -> None:
        """Have the next events handled by others; those in hand are finished by the present ones.

        Raises:
            Exception: what the new ones need cannot be made; the present ones stay.
        """
        generation = _Generation(dispatcher)
        if self._group is not None:
            try:
                await generation.start(self._group)
            except BaseException:
                generation.retire()  # should it be made after all, it is torn down at once
                raise
        old, self._current = self._current, generation
        old.retire()


class Signal:
    """An event that can be waited for again and again."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = anyio.Event()

    def set(self) -> None:
        """Wake whoever waits, or is the next to wait."""
        self._event.set()

    async def wait(self) -> None:
        """Wait until it is set, then clear it."""
        await self._event.wait()
        self._event = anyio.Event()


class HandlerRunner:
    """Runs the handlers of a bot on events, so many at a time, and reports what fails.

    Args:
        context: the bot's environment.
        dispatcher: the first handlers.

    Attributes:
        generations: the handlers, old and new.
        busy: how many events run handlers, or wait to run them.
        changed: set when `busy` has grown.
    """

    def __init__(self, context: BotContext, dispatcher: Dispatcher) -> None:
        self._context = context
        self._limiter = anyio.CapacityLimiter(context.settings.max_handlers)
        self.generations = HandlerGenerations(dispatcher)
        self.busy = 0
        self.changed = Signal()

    @property
    def dispatcher(self) -> Dispatcher:
        """The present handlers."""
        return self.generations.dispatcher

    @property
    def waiting(self) -> int:
        """How many events wait until a handler may run."""
        return self._limiter.statistics().tasks_waiting

    async def handle(
        self,
        event: Event,
        limits: RunLimits,
        *,
        channel: LiveChannel | None,
        before: Callable[[], None],
    ) -> Outcome:
        """Run the handlers on an event; log a failure.

        Args:
            event: what happened.
            limits: how long handlers may run, and who is told of those that take long.
            channel: what handlers do at once in the event's thread.
            before: called when it is the event's turn, before the handlers run.
        """
        begun = anyio.current_time()
        async with self._slot(event) as dispatcher:
            before()
            memory = self._context.conversations.unit_of_work(event)
            outcome = await dispatcher.dispatch(
                event, memory, live=channel, handler_scope=self._context.tracer.handler, limits=limits
            )
        self._context.monitor.handled(outcome, begun)
        if outcome.error is not None:
            self.report_failure(event, outcome.handler, outcome.error)
        return outcome

    async def give_up(
        self, event: Event, failed: Outcome, limits: RunLimits, *, channel: LiveChannel | None
    ) -> Outcome:
        """Run the error handlers on an event that will not be tried again; see `handle`."""
        async with self._slot(event) as dispatcher:
            memory = self._context.conversations.unit_of_work(event)
            outcome = await dispatcher.dispatch_failure(
                event, failed, memory, live=channel, handler_scope=self._context.tracer.handler, limits=limits
            )
        if outcome.error is not None and outcome.error is not failed.error:
            self.report_failure(event, outcome.handler, outcome.error)
        return outcome

    @asynccontextmanager
    async def _slot(self, event: Event) -> AsyncIterator[Dispatcher]:
        """Wait until one more event may be handled, and give the handlers."""
        self.busy += 1
        self.changed.set()
        try:
            with self._context.monitor.waiting(event):
                await self._limiter.acquire()
            try:
                with self.generations.use() as dispatcher, self._context.monitor.handling(event):
                    yield dispatcher
            finally:
                self._limiter.release()
        finally:
            self.busy -= 1

    def report_failure(self, event: Event, handler: str | None, error: Exception) -> None:
        """Log that a handler failed, with its traceback if that is new, and pass it on to whoever asked for it."""
        log = self._context.log.bind(
            handler=handler,
            event_type=type(event).__name__,
            event_key=event.key,
            thread=event.thread if isinstance(event, ThreadEvent) else None,
        )
        if self._context.failures.is_new(handler or "", error, anyio.current_time()):
            try:
                log.error("handler.failed", exc_info=(type(error), error, error.__traceback__))
            except BaseException:  # what it was caused by is asked, too, and may have a class of a plugin
                log.error("handler.failed", error=described(error))
        else:
            log.debug("handler.failed", error=kind_of(error))
        self._context.report_failure(event, error)
