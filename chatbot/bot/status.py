"""Status of a bot at one moment, for health checks, metrics and people; and waiting until a bot has caught up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import anyio
from msgspec import Struct

from chatbot.bot.bot import Bot
from chatbot.bot.degraded import HANDLER_SLOW, SLOW_HANDLER_SECONDS, Degraded
from chatbot.bot.lane import Lane
from chatbot.bot.membership import Presence
from chatbot.bot.monitoring import STALLED_SECONDS
from chatbot.model import ThreadId, UserId
from chatbot.service.budget import SERVICE_QUOTAS, Budget, Operation


class RunningHandler(Struct, frozen=True):
    """A running handler.

    Args:
        thread: Thread of the event; "" for events outside threads.
        event: Kind of the event.
        seconds: How long it has run.
        handler: Its qualified name and current line of code once it is slow; "" before.
    """

    thread: str
    event: str
    seconds: float
    handler: str = ""


@dataclass(frozen=True, slots=True)
class BotStatus:
    """Status of one bot at one moment.

    Args:
        name: Name of the bot.
        user: User id of the bot.
        threads: Number of threads that the bot is in.
        lag: Seconds by which the latest poller is overdue.
        missed: Stalled pollers, with the seconds by which they are overdue.
        oldest_unhandled: Age in seconds of the oldest message that was seen but not handled; None if there is none.
        outbox: Number of unsent actions.
        outbox_age: Age in seconds of the oldest unsent action; None if there is none.
        quota_left: Remaining requests by operation, in the thread with the fewest left.
        quota_assumed: Seconds for which requests to list threads count that a previous process may have made.
        running: Running handlers, longest first.
        troubles: Failing kinds of work, with the kind of error.
        degraded: Reasons why the bot is impaired in a way that a restart does not fix; longest first.
        waiting: Events that wait for a handler slot.
        max_handlers: Maximum number of handlers that run at the same time.
        thread_list_interval: Seconds between two polls of the thread list; longer while Event Grid delivers.
        listed: Number of threads that the first read of the whole thread list has shown since the start.
        is_listed: The thread list has been read to its end since the start, or another process reads it.
        stretch: Factor by which polling intervals are stretched because the bot has so many threads.
        paused: Seconds since an operator paused the bot; None if it is not paused.
    """

    name: str
    user: UserId
    threads: int
    lag: float
    stalled: Mapping[str, float]
    oldest_unhandled: float | None
    outbox: int
    outbox_age: float | None
    quota_left: Mapping[str, int]
    running: tuple[RunningHandler, ...]
    troubles: Mapping[str, str]
    degraded: tuple[Degraded, ...] = ()
    waiting: int = 0
    max_handlers: int = 0
    thread_list_interval: float = 1.0
    listed: int = 0
    is_listed: bool = False
    stretch: float = 1.0
    paused: float | None = None
    quota_assumed: float = 0.0


def report(bot: Bot, now: float) -> BotStatus:
    """Return the status of a bot.

    Args:
        bot: The bot.
        now: Seconds of the event loop's clock.
    """
    wall = bot.context.clock()
    lanes = [lane for lane in bot.scheduler.lanes.values() if lane.membership.presence is Presence.IN]
    late = _late(bot, now)
    unhandled = [lane.poller.unhandled_ms for lane in lanes if lane.poller.unhandled_ms is not None]
    running = _running(bot, now)
    created = [
        created_ms for lane in bot.scheduler.lanes.values() if (created_ms := lane.commits.outbox.oldest_ms) is not None
    ]
    return BotStatus(
        name=bot.name,
        user=bot.user,
        threads=len(lanes),
        thread_list_interval=bot.watcher.pause,
        listed=bot.watcher.listed,
        is_listed=_has_listed(bot),
        stretch=bot.scheduler.stretch,
        lag=max(late.values(), default=0.0),
        stalled=_stalled(late),
        oldest_unhandled=_age(unhandled, wall),
        outbox=sum(len(lane.commits.outbox) for lane in bot.scheduler.lanes.values()),
        outbox_age=_age(created, wall),
        quota_left=_quota_left([bot.context.budget, *_budgets_in_use(lanes)], now),
        quota_assumed=bot.context.budget.assumed(now),
        running=running,
        waiting=bot.handlers.waiting,
        max_handlers=bot.context.settings.max_handlers,
        troubles=bot.context.ongoing.current,
        degraded=(*_slow(running), *bot.context.degraded.current(now)),
        paused=None if bot.context.paused_ms is None else max(0.0, wall - bot.context.paused_ms / 1000),
    )


def stalled(bot: Bot, now: float) -> Mapping[str, float]:
    """Return the stalled pollers, which a restart fixes. Cheap for any number of threads; see `BotStatus.missed`."""
    return _stalled(_late(bot, now))


def _stalled(late: Mapping[str, float]) -> dict[str, float]:
    return {poller: seconds for poller, seconds in late.items() if seconds > STALLED_SECONDS}


def _late(bot: Bot, now: float) -> dict[str, float]:
    """Return the overdue pollers at work, and the thread that has waited longest for its turn."""
    if bot.context.paused_ms is not None or bot.context.is_stopping or bot.is_restarting(now):
        return {}
    late = bot.context.monitor.heartbeats.overdue(now)
    waiting = bot.scheduler.next()
    if waiting is not None and waiting[1] < now and not bot.scheduler.waits_for_handlers:
        late[waiting[0]] = now - waiting[1]
    return late


def _age(stamps_ms: list[int], wall: float) -> float | None:
    return max(0.0, wall - min(stamps_ms) / 1000) if stamps_ms else None


def quota_left(bot: Bot, operation: Operation, thread: ThreadId | None) -> int:
    """Return how many requests of an operation a bot may make now, in a thread that it knows or outside threads."""
    lane = bot.scheduler.lanes.get(thread) if thread is not None else None
    budget = bot.context.budget if lane is None else lane.state.budget
    return budget.left(operation, anyio.current_time())


def _budgets_in_use(lanes: Iterable[Lane]) -> list[Budget]:
    """Return the budgets of threads with recent requests, and one without: of many threads, most have none."""
    in_use = [lane.state.budget for lane in lanes if not lane.state.budget.is_idle]
    return [*in_use, Budget()]


def _quota_left(budgets: list[Budget], now: float) -> dict[str, int]:
    return {
        operation.label: min(budget.left(operation, now) for budget in budgets)
        for operation in Operation
        if operation.label in SERVICE_QUOTAS
    }


def _running(bot: Bot, now: float) -> tuple[RunningHandler, ...]:
    heartbeats = bot.context.monitor.heartbeats
    found = [
        RunningHandler(place, event, seconds, heartbeats.slow_handler_of(place))
        for place, (event, seconds) in heartbeats.running(now).items()
    ]
    return tuple(sorted(found, key=lambda handler: -handler.seconds))


def _slow(running: tuple[RunningHandler, ...]) -> Iterator[Degraded]:
    for handler in running:
        if handler.seconds >= SLOW_HANDLER_SECONDS:
            where = f" in {handler.thread}" if handler.thread else ""
            name = f"the handler {handler.handler}" if handler.handler else f"a handler of {handler.event}"
            yield Degraded(HANDLER_SLOW, f"{name}{where} has not ended", handler.seconds)


async def wait_until_caught_up(bot: Bot) -> None:
    """Wait until all threads are found and read, and no event, action or receipt is pending.

    This includes waiting for quotas, for retries of handlers and for an unavailable service.
    """
    is_hastened = False
    while not is_caught_up(bot):
        has_walked = _has_listed(bot)
        if has_walked and not is_hastened:
            _poll_unread(bot)
        is_hastened = has_walked
        with anyio.move_on_after(bot.context.settings.cadence.interval):
            await bot.scheduler.ended.wait()


def _has_listed(bot: Bot) -> bool:
    """Return whether the thread list was read to its end, or another process reads it."""
    return bot.watcher.has_walked or (bot.has_taken_all and not bot.context.owns_bot)


def _poll_unread(bot: Bot) -> None:
    """Poll all unread threads now: an edit of an old message may not show in the thread list."""
    for lane in bot.scheduler.lanes.values():
        if not lane.poller.has_polled:
            bot.scheduler.schedule(lane.thread)


def is_caught_up(bot: Bot) -> bool:
    """Return whether the bot has handled everything that was pending."""
    if not _has_listed(bot) or bot.scheduler.working or not bot.scheduler.is_idle:
        return False
    return all(_is_done(bot, lane) for lane in bot.scheduler.lanes.values())


def _is_done(bot: Bot, lane: Lane) -> bool:
    if lane.membership.is_out:
        return True
    is_read = lane.membership.presence is Presence.IN and lane.poller.has_polled
    is_handled = lane.poller.unhandled_ms is None and not bot.context.conversations.is_due(lane.thread)
    return is_read and is_handled and lane.is_settled
