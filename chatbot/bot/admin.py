"""What people ask of a running bot afterwards: another try of a dead letter, or none; and to forget a person."""

from __future__ import annotations

import anyio

from chatbot.bot.bot import Bot
from chatbot.model import UserId
from chatbot.stores.records import DeadLetter
from chatbot.stores.writes import DropDeadLetter


async def drop(bot: Bot, letter: DeadLetter) -> None:
    """Forget a letter, also one that waits for its other try.

    Raises:
        StoreError: it could not be dropped.
    """
    for lane in bot.scheduler.all_lanes:  # first, so that an attempt under way does not bring the letter back
        lane.drop_letters(lambda waiting: waiting.id == letter.id)
    await bot.context.commit([DropDeadLetter(letter.id)])


def erase(bot: Bot, user: UserId) -> None:
    """Erase a person from what is held in memory: pending actions, letters that wait for their try, timers."""
    bot.context.conversations.erase(user)
    for lane in bot.scheduler.all_lanes:
        lane.erase(user)


async def wait_for_turns(bot: Bot, *, timeout: float) -> bool:
    """Wait for the turns that are under way now to end.

    Args:
        patience: seconds.

    Returns:
        Whether they all ended in time.
    """
    turns = dict(bot.scheduler.working)
    with anyio.move_on_after(timeout):
        while any(bot.scheduler.working.get(thread) == turn for thread, turn in turns.items()):
            await bot.scheduler.ended.wait()
        return True
    return False
