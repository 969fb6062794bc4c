"""Where a thread begins for a bot."""

from __future__ import annotations

from datetime import timedelta

from chatbot.bot.joining import floor_of
from chatbot.bot.settings import ALL_HISTORY, NO_HISTORY
from chatbot.model import MessageId

HOUR = 3_600_000
FIRST = 1_700_000_000_000
ARRIVAL = MessageId(str(FIRST + HOUR))


def test_without_history_a_thread_begins_just_below_the_arrival() -> None:
    assert floor_of(ARRIVAL, NO_HISTORY, first_started_ms=FIRST) == int(ARRIVAL) - 1


def test_an_arrival_before_the_first_start_does_not_open_months_of_old_talk() -> None:
    old = MessageId(str(FIRST - 90 * 24 * HOUR))

    assert floor_of(old, NO_HISTORY, first_started_ms=FIRST) == FIRST - 1
    assert floor_of(None, NO_HISTORY, first_started_ms=FIRST) == FIRST - 1


def test_a_duration_moves_the_beginning_back_and_all_moves_it_to_the_very_first_message() -> None:
    two_hours = timedelta(hours=2)

    assert floor_of(ARRIVAL, two_hours, first_started_ms=FIRST) == int(ARRIVAL) - 1 - 2 * HOUR
    assert floor_of(ARRIVAL, ALL_HISTORY, first_started_ms=FIRST) == 0
