"""A walk down the list of threads misses nothing that has moved, and reads no further than it must."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from chatbot.emulator import Emulator, Quirks, World
from chatbot.errors import ProtocolError
from chatbot.model import ThreadId, ThreadItem, UserId
from chatbot.polling.thread_list import CERTAINTY_MS, PAGE_SIZE, ThreadListWalk, may_have_moved, passes_horizon
from chatbot.service.acs import AcsResource
from chatbot.service.base import ThreadPage
from chatbot.service.budget import Budget, Operation
from chatbot.testing import VirtualClock
from chatbot.testing.transport import AsgiTransport

NOON_MS = 1_700_000_000_000


def item(number: int, stamp_ms: int | None) -> ThreadItem:
    stamp = None if stamp_ms is None else datetime.fromtimestamp(stamp_ms // 1000, UTC)
    return ThreadItem(ThreadId(f"19:{number}@thread.v2"), last_activity=stamp)


@given(st.integers(0, 5000), st.integers(0, 5000), st.integers(0, 1))
def test_messages_after_the_start_of_a_poll_trigger_another_one(said: int, looked: int, lag: int) -> None:
    assume(said >= looked)
    stamp = datetime.fromtimestamp((NOON_MS + said) // 1000 - lag, UTC)

    assert may_have_moved(stamp, NOON_MS + looked)


def test_a_timestamp_older_than_the_poll_triggers_none_and_a_missing_one_does() -> None:
    stamp = datetime.fromtimestamp(NOON_MS // 1000, UTC)

    assert not may_have_moved(stamp, NOON_MS + CERTAINTY_MS)
    assert may_have_moved(stamp, NOON_MS + CERTAINTY_MS - 1)
    assert may_have_moved(None, NOON_MS + 3_600_000)


@given(
    st.lists(st.integers(0, 60_000), max_size=60),
    st.integers(1, 12),
    st.integers(0, 60_000),
    st.lists(st.integers(0, 59), max_size=3),
)
def test_a_walk_reads_every_thread_that_has_moved_since_its_horizon(
    ages: list[int], page_size: int, horizon_age: int, stampless: list[int]
) -> None:
    horizon_ms = NOON_MS - horizon_age
    stamps: list[int | None] = [NOON_MS - age for age in sorted(ages)]
    for index in stampless:
        if index < len(stamps):
            stamps[index] = None
    listed = [item(number, stamp) for number, stamp in enumerate(stamps)]

    read: list[ThreadItem] = []
    for begin in range(0, len(listed), page_size):
        page = listed[begin : begin + page_size]
        read += page
        if passes_horizon(page, horizon_ms):
            break

    moved = {
        one.id for one in listed if one.last_activity is not None and may_have_moved(one.last_activity, horizon_ms)
    }
    assert moved <= {one.id for one in read}


def test_one_thread_out_of_order_does_not_end_a_walk_nor_keep_it_going() -> None:
    old, new = NOON_MS - 3_600_000, NOON_MS
    moved = [item(number, new) for number in range(9)]
    still = [item(number, old) for number in range(9)]

    assert not passes_horizon([*moved, item(9, old)], NOON_MS)
    assert passes_horizon([item(9, new), *still], NOON_MS)
    assert not passes_horizon([], NOON_MS)
    assert not passes_horizon([item(0, None)], NOON_MS)


@pytest.mark.virtual_time
async def test_a_walk_reads_one_page_while_little_has_moved_and_all_pages_without_a_horizon() -> None:
    clock = VirtualClock()
    emulator = Emulator(World(seed=1, quirks=Quirks(phantom_threads=1)), clock=clock, quotas=False)
    user = UserId(emulator.create_user())
    for number in range(3 * PAGE_SIZE):
        emulator.create_thread(user, str(number))
    transport = AsgiTransport(emulator)
    async with AcsResource.from_connection_string(emulator.connection_string, transport=transport, clock=clock) as acs:
        service = acs.chat(user, acs.issued_tokens(user))
        budget = Budget()

        whole = ThreadListWalk(service, budget)
        found = {one.id for _ in range(20) if not whole.is_over for one in await whole.read()}
        assert len(found) == 3 * PAGE_SIZE
        assert whole.begun_ms is not None

        brief = ThreadListWalk(service, budget, horizon_ms=whole.begun_ms + 60_000)
        assert len(await brief.read()) <= PAGE_SIZE
        assert brief.is_over
        assert budget.left(Operation.LIST_THREADS, 0.0) == 50 - whole.pages - 1


@pytest.mark.parametrize("length", [1, 2, 5])
async def test_cyclic_page_links_fail_the_listing_after_its_pages(length: int) -> None:
    class Circle:
        pages = 0

        async def list_threads(self, *, page_size: int | None = None, link: str | None = None) -> ThreadPage:
            del page_size, link
            self.pages += 1
            return ThreadPage((item(self.pages, NOON_MS),), str(self.pages % length), None)

    walk = ThreadListWalk(Circle(), Budget())  # type: ignore[arg-type]
    shown = [await walk.read() for _ in range(length + 1)]

    assert all(shown)
    assert not walk.is_over
    with pytest.raises(ProtocolError, match="circle"):
        await walk.read()
