"""What a bot knows again when it starts: its threads, what was left to be done there, and what needs a look at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from chatbot.bot import aftercare
from chatbot.bot.handling import NOWHERE
from chatbot.bot.lane import Lane
from chatbot.bot.own_lane import OwnLane
from chatbot.model import ThreadId
from chatbot.stores.base import OutboxRow, Store, ThreadRecord

if TYPE_CHECKING:
    from chatbot.bot.bot import Bot


async def recall(bot: Bot, store: Store) -> None:
    """Make a lane for every thread the store knows, with the wishes that were left pending there.

    Raises:
        StoreError: the store could not be read.
    """
    rows: dict[ThreadId, list[OutboxRow]] = {}
    for row in await store.pending(bot.user):
        rows.setdefault(row.thread, []).append(row)
    bot.was_killed = store.was_killed
    bot.noted = await store.attempts(bot.user)
    await bot.conversations.load(bot.crew.dispatcher.schedules)
    bot.own = OwnLane(bot, bot.noted.get(NOWHERE))
    bot.lanes = {}
    bot.turns.forget()
    horizon_ms = await store.horizon(bot.user)
    # What was said shortly before the horizon may have become visible after it.
    told_ms = None if horizon_ms is None else horizon_ms - bot.settings.slack_ms
    bot.listening.begin(told_ms)
    for record in await store.threads(bot.user):
        if bot.serves(record.thread):
            _resume(bot, record, rows.get(record.thread, ()), told_ms)
    for thread in (bot.settings.threads or frozenset()) - bot.lanes.keys():
        bot.begin(thread, None)
    for letter in await store.dead_letters(bot.user):
        if letter.is_revived and not aftercare.hand_over(bot, letter):
            bot.log.warning("letter.postponed", letter=letter.id, reason="the bot is not in its thread")


def _resume(bot: Bot, record: ThreadRecord, rows: Sequence[OutboxRow], told_ms: int | None) -> None:
    """Make the lane of a thread that the store knows.

    Its first turn comes at once if it owes something, soon if the doorbell tells that it has moved, or with its beat.
    """
    noted = bot.noted.get(record.thread)
    lane = bot.lanes[record.thread] = Lane(bot, record.thread, record, rows=rows, noted=noted, looked_ms=told_ms)
    if record.is_left:
        return
    bot.turns.begin_beat(record.thread)
    if noted is not None or not lane.is_settled:
        bot.turns.ring(record.thread)
