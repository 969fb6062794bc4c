"""Where a thread begins for a bot."""

from __future__ import annotations

from datetime import timedelta

import pytest

from chatbot.bot.environment import ALL_HISTORY, NO_HISTORY
from chatbot.bot.membership import PAGE_SIZE, find_arrival, floor_of
from chatbot.emulator import Emulator
from chatbot.model import MessageId, ThreadId, UserId
from chatbot.service.acs import AcsResource
from chatbot.service.budget import Budget
from chatbot.testing import VirtualClock
from chatbot.testing.transport import AsgiTransport

HOUR = 3_600_000
FIRST = 1_700_000_000_000
ARRIVAL = MessageId(str(FIRST + HOUR))


def test_without_history_a_thread_begins_just_below_the_arrival() -> None:
    assert floor_of(ARRIVAL, NO_HISTORY, first_started_ms=FIRST) == int(ARRIVAL) - 1


def test_joining_before_the_first_start_does_not_open_months_of_history() -> None:
    old = MessageId(str(FIRST - 90 * 24 * HOUR))

    assert floor_of(old, NO_HISTORY, first_started_ms=FIRST) == FIRST - 1
    assert floor_of(None, NO_HISTORY, first_started_ms=FIRST) == FIRST - 1


def test_a_duration_moves_the_beginning_back_and_all_moves_it_to_the_very_first_message() -> None:
    two_hours = timedelta(hours=2)

    assert floor_of(ARRIVAL, two_hours, first_started_ms=FIRST) == int(ARRIVAL) - 1 - 2 * HOUR
    assert floor_of(ARRIVAL, ALL_HISTORY, first_started_ms=FIRST) == 0


@pytest.mark.virtual_time
async def test_an_arrival_far_down_is_found_within_the_quotas() -> None:
    clock = VirtualClock()
    emulator = Emulator(clock=clock)
    user, ann = UserId(emulator.create_user()), emulator.create_user()
    thread = ThreadId(emulator.create_thread(ann, "old", [user]))
    for _ in range(51 * PAGE_SIZE):  # of the pages, 50 may be read in ten seconds
        emulator.send(thread, ann, "hi")
    transport = AsgiTransport(emulator)
    async with AcsResource.from_connection_string(emulator.connection_string, transport=transport, clock=clock) as acs:
        service = acs.chat(user, acs.issued_tokens(user))

        arrival = await find_arrival(service, thread, Budget(), not_before_ms=0)

    assert arrival.message == str(emulator.transcript(thread)[0].id)
    assert arrival.people == 2
    assert sum(call.operation == "list_messages" for call in emulator.calls) > 50
    assert 429 not in {call.status for call in emulator.calls}
