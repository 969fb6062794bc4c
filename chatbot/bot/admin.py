"""Administration of a running bot: drop dead letters, erase a person, and wait for running turns."""

from __future__ import annotations

import anyio

from chatbot.bot.bot import Bot
from chatbot.model import UserId
from chatbot.stores.records import DeadLetter
from chatbot.stores.writes import DropDeadLetter


async def drop(bot: Bot, letter: DeadLetter) -> None:
    """Drop a dead letter, even if a retry of it is pending.

    Raises:
        StoreError: It could not be dropped.
    """
    for lane in bot.scheduler.all_lanes:  # first, so that a running attempt does not store the letter again
        lane.drop_letters(lambda waiting: waiting.id == letter.id)
    await bot.context.commit([DropDeadLetter(letter.id)])


def erase(bot: Bot, user: UserId) -> None:
    """Erase a person from memory: pending actions, pending retries and timers. The store is erased separately."""
    bot.context.conversations.erase(user)
    for lane in bot.scheduler.all_lanes:
        lane.erase(user)


async def wait_for_turns(bot: Bot, *, timeout: float) -> bool:
    """Wait until all turns that are running now have ended.

    Args:
        bot: The bot.
        timeout: Maximum seconds to wait.

    Returns:
        Whether they ended in time.
    """
    turns = dict(bot.scheduler.working)
    with anyio.move_on_after(timeout):
        while any(bot.scheduler.working.get(thread) == turn for thread, turn in turns.items()):
            await bot.scheduler.ended.wait()
        return True
    return False
