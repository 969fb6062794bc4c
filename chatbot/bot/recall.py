"""What a bot knows again when it starts: its threads, what was left to be done there, and what needs a look at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import anyio

from chatbot.bot import aftercare
from chatbot.bot.handling import NOWHERE
from chatbot.bot.lane import Lane
from chatbot.bot.own_lane import OwnLane
from chatbot.model import ThreadId
from chatbot.stores.base import Attempt, BeginAttempt, EndAttempt, OutboxRow, Progress, Store, ThreadRecord, Write

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
    bot.noted = await _attempts(bot, store)
    records = await store.threads(bot.user)
    parked = [record.thread for record in records if record.is_left]
    await bot.conversations.load(bot.crew.dispatcher.schedules, parked)
    bot.own = OwnLane(bot, bot.noted.get(NOWHERE))
    bot.lanes = {}
    bot.turns.forget()
    horizon_ms = await store.horizon(bot.user)
    # What was said shortly before the horizon may have become visible after it.
    told_ms = None if horizon_ms is None else horizon_ms - bot.settings.slack_ms
    bot.listening.begin(told_ms)
    for record in records:
        pending = rows.pop(record.thread, ())
        if bot.serves(record.thread) or record.is_left:
            _resume(bot, record, pending, told_ms)
    for thread in (bot.settings.threads or frozenset()) - bot.lanes.keys():
        bot.begin(thread, None)
    _resume_elsewhere(bot, rows)
    for letter in await store.dead_letters(bot.user):
        if letter.is_revived and not aftercare.hand_over(bot, letter):
            bot.log.warning("letter.postponed", letter=letter.id, reason="the bot is not in its thread")


async def _attempts(bot: Bot, store: Store) -> Mapping[ThreadId, Attempt]:
    """What is noted of handlers, with what the end of the process, or of the bot before this one, says about them.

    A handler has killed the process if it was noted as running when the process died, and was not told to stop before:
    neither a refused start nor an operator's signal counts against anybody. A stop has cut it off if it had run for
    long. A bot that died and is started again in the same process says nothing of its handlers.
    """
    is_first = bot.user not in bot.commons.recalled
    is_other = is_first or not bot.has_recalled
    bot.commons.recalled.add(bot.user)
    bot.has_recalled = True
    was_killed = is_first and store.was_killed and not store.was_stopping
    attempts = dict(await store.attempts(bot.user))
    writes: list[Write] = []
    for thread, attempt in list(attempts.items()):
        if attempt.progress is Progress.WAITING:
            continue
        kills = attempt.count + was_killed
        cuts = attempt.cuts + (is_other and not was_killed and attempt.progress is Progress.LONG)
        if kills or cuts:
            attempts[thread] = Attempt(attempt.event_key, kills, cuts, handler=attempt.handler)
            writes.append(BeginAttempt(thread, attempts[thread]))
        else:
            del attempts[thread]
            writes.append(EndAttempt(thread))
    if writes:
        await store.commit(bot.user, writes)
    return attempts


def _resume(bot: Bot, record: ThreadRecord, rows: Sequence[OutboxRow], told_ms: int | None) -> None:
    """Make the lane of a thread that the store knows.

    Its first turn comes at once if it owes something, soon if the doorbell tells that it has moved, or with its beat.
    """
    noted = bot.noted.get(record.thread)
    lane = bot.lanes[record.thread] = Lane(bot, record.thread, record, rows=rows, noted=noted, looked_ms=told_ms)
    if record.is_left:
        if (pause := lane.resume_outside()) is not None:
            bot.turns.ring(record.thread, due=anyio.current_time() + pause)
        return
    bot.turns.begin_beat(record.thread)
    if noted is not None or not lane.is_settled:
        bot.turns.ring(record.thread)


def _resume_elsewhere(bot: Bot, rows: Mapping[ThreadId, Sequence[OutboxRow]]) -> None:
    """Go on with wishes for threads that the bot was never in: they fail unless it gets in."""
    for thread, pending in rows.items():
        lane = bot.lane_of(thread)
        for row in pending:
            lane.handling.outbox.add(row)
        bot.turns.ring(thread)
