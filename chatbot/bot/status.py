"""How a bot is doing, at one moment, as frozen data: for health checks, for metrics, and for people.

Whether a bot has handled everything that was waiting for it when it started.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import anyio

from chatbot.bot.bot import Bot
from chatbot.bot.degraded import HANDLER_SLOW, SLOW_HANDLER_SECONDS, Degraded
from chatbot.bot.lane import Lane
from chatbot.bot.membership import Presence
from chatbot.bot.monitoring import PATIENCE
from chatbot.model import UserId
from chatbot.service.budget import SERVICE_QUOTAS, Budget, Operation


@dataclass(frozen=True, slots=True)
class RunningHandler:
    """A handler that has not ended.

    Args:
        thread: where; empty for events that are in no thread.
        event: the kind of event.
        handler: its qualified name, and its place in the code, once it has run for long; "" before.
    """

    thread: str
    event: str
    seconds: float
    handler: str = ""


@dataclass(frozen=True, slots=True)
class BotStatus:
    """One bot at one moment.

    Args:
        threads: in how many the bot is.
        lag: seconds by which the latest poller is behind its beat.
        missed: the pollers whose beat was missed, with the seconds since it was due.
        oldest_unhandled: age in seconds of the oldest message that was seen and is not handled; None if none is.
        outbox: actions that are not sent yet.
        outbox_age: seconds since the oldest of them was created; None if there are none.
        quota_left: requests that the service still allows, by operation, where the fewest are left.
        running: handlers that have not ended, the longest first.
        waiting: events that wait until a handler may run.
        most_handlers: how many may run at one time.
        troubles: what does not work at the moment, with the kind of failure.
        degraded: why the bot does not work as it should, where a restart would not help; the longest first.
        doorbell: seconds between two questions which threads have moved; more while Event Grid tells.
        stretch: by how much unasked looks are rarer than the cadence says, because there are so many threads.
    """

    name: str
    user: UserId
    threads: int
    lag: float
    missed: Mapping[str, float]
    oldest_unhandled: float | None
    outbox: int
    outbox_age: float | None
    quota_left: Mapping[str, int]
    running: tuple[RunningHandler, ...]
    troubles: Mapping[str, str]
    degraded: tuple[Degraded, ...] = ()
    waiting: int = 0
    most_handlers: int = 0
    doorbell: float = 1.0
    stretch: float = 1.0


def report(bot: Bot, now: float) -> BotStatus:
    """How a bot is doing.

    Args:
        now: seconds of the event loop's clock.
    """
    wall = bot.context.clock()
    lanes = [lane for lane in bot.scheduler.lanes.values() if lane.membership.presence is Presence.IN]
    late = _late(bot, now)
    unhandled = [lane.poller.unhandled_ms for lane in lanes if lane.poller.unhandled_ms is not None]
    running = _running(bot, now)
    created = [made for lane in bot.scheduler.lanes.values() if (made := lane.commits.outbox.oldest_ms) is not None]
    return BotStatus(
        name=bot.name,
        user=bot.user,
        threads=len(lanes),
        doorbell=bot.watcher.pause,
        stretch=bot.scheduler.stretch,
        lag=max(late.values(), default=0.0),
        missed=_missed(late),
        oldest_unhandled=_age(unhandled, wall),
        outbox=sum(len(lane.commits.outbox) for lane in bot.scheduler.lanes.values()),
        outbox_age=_age(created, wall),
        quota_left=_quota_left([bot.context.budget, *(lane.state.budget for lane in lanes)], now),
        running=running,
        waiting=bot.handlers.waiting,
        most_handlers=bot.context.settings.max_handlers,
        troubles=bot.context.ongoing.current,
        degraded=(*_slow(running), *bot.context.degraded.current(now)),
    )


def missed(bot: Bot, now: float) -> Mapping[str, float]:
    """What a restart of the process helps with: see `BotStatus.missed`; cheap, however many threads there are."""
    return _missed(_late(bot, now))


def _missed(late: Mapping[str, float]) -> dict[str, float]:
    return {poller: seconds for poller, seconds in late.items() if seconds > PATIENCE}


def _late(bot: Bot, now: float) -> dict[str, float]:
    """Pollers that are at work for too long, and the thread that waits longest for its turn."""
    if bot.context.is_stopping or bot.is_starting_again(now):
        return {}
    late = bot.context.monitor.heartbeats.late(now)
    waiting = bot.scheduler.next()
    if waiting is not None and waiting[1] < now and not bot.scheduler.waits_for_handlers:
        late[waiting[0]] = now - waiting[1]
    return late


def _age(stamps_ms: list[int], wall: float) -> float | None:
    return max(0.0, wall - min(stamps_ms) / 1000) if stamps_ms else None


def _quota_left(budgets: list[Budget], now: float) -> dict[str, int]:
    return {
        operation.label: min(budget.left(operation, now) for budget in budgets)
        for operation in Operation
        if operation.label in SERVICE_QUOTAS
    }


def _running(bot: Bot, now: float) -> tuple[RunningHandler, ...]:
    pulse = bot.context.monitor.heartbeats
    found = [
        RunningHandler(place, event, seconds, pulse.name_of(place))
        for place, (event, seconds) in pulse.running(now).items()
    ]
    return tuple(sorted(found, key=lambda one: -one.seconds))


def _slow(running: tuple[RunningHandler, ...]) -> Iterator[Degraded]:
    for handler in running:
        if handler.seconds >= SLOW_HANDLER_SECONDS:
            where = f" in {handler.thread}" if handler.thread else ""
            name = f"the handler {handler.handler}" if handler.handler else f"a handler of {handler.event}"
            yield Degraded(HANDLER_SLOW, f"{name}{where} has not ended", handler.seconds)


async def caught_up(bot: Bot) -> None:
    """Wait until all threads were found and read, and nothing is owed there: no event, no action, no receipt.

    What cannot be done now is waited for: a quota, the next try of a handler, a service that is away.
    """
    is_hastened = False
    while not is_caught_up(bot):
        has_walked = bot.watcher.has_walked
        if has_walked and not is_hastened:
            _hasten(bot)
        is_hastened = has_walked
        with anyio.move_on_after(bot.context.settings.cadence.interval):
            await bot.scheduler.ended.wait()


def _hasten(bot: Bot) -> None:
    """Have all threads read now that did not move: an edit of yesterday's may have rung nothing."""
    for lane in bot.scheduler.lanes.values():
        if not lane.poller.has_looked:
            bot.scheduler.ask(lane.thread)


def is_caught_up(bot: Bot) -> bool:
    """Whether nothing of what was waiting is left."""
    if not bot.watcher.has_walked or bot.scheduler.working or not bot.scheduler.is_at_rest:
        return False
    return all(_is_done(bot, lane) for lane in bot.scheduler.lanes.values())


def _is_done(bot: Bot, lane: Lane) -> bool:
    if lane.membership.is_out:
        return True
    is_read = lane.membership.presence is Presence.IN and lane.poller.has_looked
    is_handled = lane.poller.unhandled_ms is None and not bot.context.conversations.is_due(lane.thread)
    return is_read and is_handled and lane.is_settled
