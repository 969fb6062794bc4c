"""Run a bot's handlers with limited concurrency, and replace them between events.

One task for each generation of handlers creates and tears down what plugins provide. An old generation is torn down
when its last running event is handled.
"""

from __future__ import annotations

from asyncio import get_running_loop
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
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
        """Start in a task group; return when all providers have run, and raise their error."""
        group.start_soon(self.run)
        await self.ready.wait()
        if self.error is not None:
            raise self.error

    @property
    def name(self) -> str:
        """Name of the task."""
        return "providers"

    @property
    def place(self) -> str:
        """Place for error messages."""
        return f"bot {self.dispatcher.bot.name}"

    async def run(self) -> None:
        """Create what the plugins provide, and tear it down when no event uses it.

        Errors before `ready` is set are raised by `start`; later errors are raised here.
        """
        try:
            await self.dispatcher.author_code.run(self._serve(), self, is_shared=True)
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
        """Tear down the providers once the last running event is handled."""
        self._retired.set()

    def __enter__(self) -> Dispatcher:
        """Keep the handlers until the block ends. A generation is used by several events at once."""
        self._active += 1
        return self.dispatcher

    def __exit__(self, *exc_info: object) -> None:
        self._active -= 1
        self._idle.set()


class HandlerGenerations:
    """The current handlers of a bot, which can be replaced. Use it as `async with` around all events.

    Args:
        dispatcher: The first handlers.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._current = _Generation(dispatcher)
        self._group: TaskGroup | None = None

    @property
    def dispatcher(self) -> Dispatcher:
        """The current handlers."""
        return self._current.dispatcher

    async def __aenter__(self) -> Self:
        """Create what they need; errors are raised unchanged."""
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
        """Tear down what was created; errors are raised unchanged."""
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
        """Return the current handlers, which are kept until the block ends."""
        return self._current

    async def replace(self, dispatcher: Dispatcher) -> None:
        """Replace the handlers for the next events; running events finish with the current ones.

        Raises:
            Exception: A provider of the new handlers failed; the current handlers stay.
        """
        generation = _Generation(dispatcher)
        if self._group is not None:
            try:
                await generation.start(self._group)
            except BaseException:
                generation.retire()  # if its providers succeed later, they are torn down at once
                raise
        old, self._current = self._current, generation
        old.retire()


class Signal:
    """An event that is cleared by each wait, so that it can be used repeatedly."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = anyio.Event()

    def set(self) -> None:
        """Wake the waiting task, or the next one that waits."""
        self._event.set()

    async def wait(self, seconds: float | None = None) -> None:
        """Wait until the signal is set, or for so many seconds at most; then clear it."""
        # A timer that sets the event costs a tenth of a cancel scope that ends the wait.
        timer = None if seconds is None else get_running_loop().call_later(seconds, self._event.set)
        try:
            await self._event.wait()
        finally:
            if timer is not None:
                timer.cancel()
        self._event = anyio.Event()


class Broadcast:
    """An event that wakes all tasks that wait for it now, any number of times. It costs nothing while none waits."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event: anyio.Event | None = None

    def notify(self) -> None:
        """Wake the tasks that are waiting."""
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self) -> None:
        """Wait for the next notification."""
        self._event = self._event or anyio.Event()
        await self._event.wait()


class HandlerRunner:
    """Runs the handlers of a bot with limited concurrency, and reports failures.

    Args:
        context: The bot's environment.
        dispatcher: The first handlers.

    Attributes:
        generations: Current and retired handlers.
        busy: Number of events that run handlers or wait for a slot.
        is_room_wanted: A lane waits until `busy` grows, because handlers that run or wait make room for other lanes.
        changed: Set when `busy` has grown and that is waited for.
    """

    def __init__(self, context: BotContext, dispatcher: Dispatcher) -> None:
        self._context = context
        self._limiter = anyio.CapacityLimiter(context.settings.max_handlers)
        self.generations = HandlerGenerations(dispatcher)
        self.busy = 0
        self.is_room_wanted = False
        self.changed = Signal()

    @property
    def dispatcher(self) -> Dispatcher:
        """The handlers for the next event."""
        return self.generations.dispatcher

    @property
    def waiting(self) -> int:
        """Number of events that wait for a handler slot."""
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
            event: The event.
            limits: Time limits of handlers, and callbacks for those that exceed them.
            channel: Live channel of the event's thread.
            before: Called when a slot is free, before the handlers run.
        """
        started_at, context = get_running_loop().time(), self._context

        def run(dispatcher: Dispatcher) -> Awaitable[Outcome]:
            before()
            memory = context.conversations.unit_of_work(event)
            return dispatcher.dispatch(event, memory, live=channel, handler_scope=context.tracer.handler, limits=limits)

        outcome = await self._run_in_slot(event, run)
        context.monitor.handled(outcome, started_at)
        if outcome.error is not None:
            self.report_failure(event, outcome.handler, outcome.error)
        return outcome

    async def give_up(
        self, event: Event, failed: Outcome, limits: RunLimits, *, channel: LiveChannel | None
    ) -> Outcome:
        """Run the error handlers on an event that will not be retried; arguments as for `handle`."""
        context = self._context

        def run(dispatcher: Dispatcher) -> Awaitable[Outcome]:
            memory, scope = context.conversations.unit_of_work(event), context.tracer.handler
            return dispatcher.dispatch_failure(event, failed, memory, live=channel, handler_scope=scope, limits=limits)

        outcome = await self._run_in_slot(event, run)
        if outcome.error is not None and outcome.error is not failed.error:
            self.report_failure(event, outcome.handler, outcome.error)
        return outcome

    async def _run_in_slot(self, event: Event, run: Callable[[Dispatcher], Awaitable[Outcome]]) -> Outcome:
        """Wait for a handler slot, and run the current handlers. No context manager: every event pays for it."""
        self.busy += 1
        if self.is_room_wanted:
            self.changed.set()
        try:
            await self._take_slot(event)
            try:
                with self.generations.use() as dispatcher, self._context.monitor.handling(event):
                    return await run(dispatcher)
            finally:
                self._limiter.release()
        finally:
            self.busy -= 1

    async def _take_slot(self, event: Event) -> None:
        try:
            self._limiter.acquire_nowait()  # does not overtake those who wait; `acquire` waits even for a free slot
        except anyio.WouldBlock:
            with self._context.monitor.waiting(event):
                await self._limiter.acquire()

    def report_failure(self, event: Event, handler: str | None, error: Exception) -> None:
        """Log a failure of a handler, with its traceback if it is new, and pass it to `on_failure`."""
        log = self._context.log.bind(
            handler=handler,
            event_type=type(event).__name__,
            event_key=event.key,
            thread=event.thread if isinstance(event, ThreadEvent) else None,
        )
        if self._context.failures.is_new(handler or "", error, get_running_loop().time()):
            try:
                log.error("handler.failed", exc_info=(type(error), error, error.__traceback__))
            except BaseException:  # logging reads the error's cause, whose class may be a plugin's and may raise
                log.error("handler.failed", error=described(error))
        else:
            log.debug("handler.failed", error=kind_of(error))
        self._context.report_failure(event, error)
