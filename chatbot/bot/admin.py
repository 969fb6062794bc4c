"""What people ask of a running bot afterwards: another try of a dead letter, or none; and to forget a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from chatbot.events import ThreadEvent
from chatbot.model import UserId
from chatbot.stores.records import DeadLetter
from chatbot.stores.writes import DropDeadLetter, ReviveDeadLetter

if TYPE_CHECKING:
    from chatbot.bot.bot import Bot
    from chatbot.bot.lane import Lane


def lane_of(bot: Bot, letter: DeadLetter) -> Lane | None:
    """The lane that can try a letter again; None when the bot is not in its thread."""
    lane = bot.lanes.get(letter.event.thread) if isinstance(letter.event, ThreadEvent) else None
    return None if lane is None or lane.membership.is_out else lane


def hand_over(bot: Bot, letter: DeadLetter) -> bool:
    """Let the lane of a letter that is marked for another try have it; False when the bot is not in its thread."""
    if not isinstance(letter.event, ThreadEvent):
        bot.own.revive(letter)
        return True
    lane = lane_of(bot, letter)
    if lane is None:
        return False
    lane.revive(letter)
    bot.turns.ring(lane.thread)
    return True


async def revive(bot: Bot, letter: DeadLetter) -> bool:
    """Have a letter tried again now; False when the bot is not in its thread.

    Raises:
        StoreError: it could not be marked; nothing will be tried.
    """
    if isinstance(letter.event, ThreadEvent) and lane_of(bot, letter) is None:
        return False
    await bot.commit([ReviveDeadLetter(letter.id)])
    return hand_over(bot, letter)


async def drop(bot: Bot, letter: DeadLetter) -> None:
    """Forget a letter, also one that waits for its other try.

    Raises:
        StoreError: it could not be dropped.
    """
    for lane in bot.lanes.values():  # first, so that a try that is under way does not bring the letter back
        lane.drop_letters(lambda waiting: waiting.id == letter.id)
    bot.own.drop_letter(letter.id)
    await bot.commit([DropDeadLetter(letter.id)])


def forget(bot: Bot, user: UserId) -> None:
    """Erase a person from what is held in memory: wishes on their way, letters that wait for their try, timers."""
    bot.conversations.forget(user)
    for lane in bot.lanes.values():
        lane.forget(user)


async def turns_in_hand(bot: Bot, *, patience: float) -> bool:
    """Wait for the turns that are under way now to end.

    Args:
        patience: seconds.

    Returns:
        Whether they all ended in time.
    """
    turns = dict(bot.turns.working)
    with anyio.move_on_after(patience):
        while any(bot.turns.working.get(thread) == turn for thread, turn in turns.items()):
            await bot.turns.ended.wait()
        return True
    return False
