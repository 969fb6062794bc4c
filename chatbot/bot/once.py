"""Whether a bot has handled everything that was waiting for it when it started."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from chatbot.bot.membership import Presence

if TYPE_CHECKING:
    from chatbot.bot.bot import Bot
    from chatbot.bot.lane import Lane


async def caught_up(bot: Bot) -> None:
    """Wait until all threads were found and read, and nothing is owed there: no event, no wish, no receipt.

    What cannot be done now is waited for: a quota, the next try of a handler, a service that is away.
    """
    is_hastened = False
    while not is_caught_up(bot):
        has_walked = bot.listening.has_walked
        if has_walked and not is_hastened:
            _hasten(bot)
        is_hastened = has_walked
        with anyio.move_on_after(bot.settings.cadence.interval):
            await bot.turns.ended.wait()


def _hasten(bot: Bot) -> None:
    """Have all threads read now that did not move: an edit of yesterday's may have rung nothing."""
    for lane in bot.lanes.values():
        if not lane.looking.has_looked:
            bot.turns.ring(lane.thread)


def is_caught_up(bot: Bot) -> bool:
    """Whether nothing of what was waiting is left."""
    if not bot.listening.has_walked or bot.turns.working or not bot.is_at_rest:
        return False
    return all(_is_done(bot, lane) for lane in bot.lanes.values())


def _is_done(bot: Bot, lane: Lane) -> bool:
    if lane.membership.is_out:
        return True
    is_read = lane.membership.presence is Presence.IN and lane.looking.has_looked
    is_handled = lane.looking.unhandled_ms is None and not bot.conversations.is_due(lane.thread)
    return is_read and is_handled and lane.is_settled
