"""What every store knows of threads: how far each is handled, and what is owed there."""

import pytest

from chatbot.errors import StateError
from chatbot.model import MessageId
from chatbot.stores.records import ThreadRecord
from chatbot.stores.writes import (
    Enqueue,
    EnterThread,
    LeaveThread,
    MarkJoined,
    MarkReceiptDue,
    MarkSeen,
    MoveBase,
    SaveThread,
    SettleReceipt,
)
from tests.contracts.records import ANN, BOT, HALL, OTHER_BOT, YARD, begin, only_thread, outbox_row


class TestThreads:
    async def test_threads_come_back_whole_after_a_restart(self, reopen):
        hall = ThreadRecord(HALL, 5, 10, {6: 6, 8: 9}, receipt_due=MessageId("8"), receipt_sent=MessageId("6"))
        yard = ThreadRecord(YARD, 0, 0, is_left=True)

        async with reopen() as store:
            await store.commit(BOT, [SaveThread(hall), SaveThread(yard)])
        async with reopen() as store:
            assert sorted(await store.threads(BOT), key=lambda one: one.thread) == [hall, yard]

    async def test_each_bot_has_its_own_record_of_a_thread(self, reopen):
        async with reopen() as store:
            await store.commit(BOT, [begin(base=10), MarkSeen(HALL, {6: 6})])
            await store.commit(OTHER_BOT, [begin(base=20), MarkSeen(HALL, {7: 7})])

            assert await store.threads(BOT) == [ThreadRecord(HALL, 5, 10, {6: 6})]
            assert await store.threads(OTHER_BOT) == [ThreadRecord(HALL, 5, 20, {7: 7})]
            assert await store.threads(ANN) == []

    async def test_a_thread_that_is_begun_again_forgets_its_earlier_data(self, reopen):
        async with reopen() as store:
            await store.commit(BOT, [begin(), MarkSeen(HALL, {6: 6}), MarkReceiptDue(HALL, MessageId("6"))])
            await store.commit(BOT, [LeaveThread(HALL, 7)])
            await store.commit(BOT, [begin(floor=50, base=60, seen={55: 55})])

            assert await only_thread(store) == ThreadRecord(HALL, 50, 60, {55: 55})

    async def test_what_was_seen_is_marked_in_its_latest_version(self, reopen):
        async with reopen() as store:
            await store.commit(BOT, [begin(), MarkSeen(HALL, {6: 6, 7: 7})])
            await store.commit(BOT, [MarkSeen(HALL, {6: 30, 9: 9})])

            assert (await only_thread(store)).seen == {6: 30, 7: 7, 9: 9}

    async def test_a_base_that_moves_forgets_only_what_is_settled_by_id_and_version(self, reopen):
        async with reopen() as store:
            await store.commit(BOT, [begin(seen={6: 6, 7: 21, 20: 20, 21: 21})])
            await store.commit(BOT, [MoveBase(HALL, 40, 20)])

            assert await only_thread(store) == ThreadRecord(HALL, 5, 40, {7: 21, 21: 21})

    async def test_a_base_never_goes_back(self, reopen):
        async with reopen() as store:
            await store.commit(BOT, [begin(base=40), MoveBase(HALL, 30, 0)])

            assert (await only_thread(store)).base == 40

    async def test_receipts_only_advance_and_compare_as_numbers(self, reopen):
        async with reopen() as store:
            await store.commit(
                BOT, [begin(), MarkReceiptDue(HALL, MessageId("100")), MarkReceiptDue(HALL, MessageId("99"))]
            )
            await store.commit(BOT, [SettleReceipt(HALL, MessageId("20")), SettleReceipt(HALL, MessageId("9"))])

            thread = await only_thread(store)
            assert (thread.receipt_due, thread.receipt_sent) == ("100", "20")

    async def test_leaving_a_thread_keeps_its_cursor_and_what_is_still_to_be_done_there(self, reopen):
        async with reopen() as store:
            await store.commit(BOT, [begin(seen={6: 6}), begin(YARD), Enqueue(outbox_row("a", after_failure=True))])
            await store.commit(BOT, [MarkJoined(HALL, 3), LeaveThread(HALL, 7)])
        async with reopen() as store:
            threads = {one.thread: one for one in await store.threads(BOT)}
            assert threads[HALL] == ThreadRecord(HALL, 5, 10, {6: 6}, is_left=True, left_ms=7, arrived=3)
            assert not threads[YARD].is_left
            assert [(one.key, one.after_failure) for one in await store.pending(BOT)] == [("a", True)]

    async def test_a_thread_that_is_entered_again_remembers_since_when_until_a_stay_begins(self, reopen):
        async with reopen() as store:
            await store.commit(BOT, [begin(seen={6: 6}), MarkJoined(HALL, 3), LeaveThread(HALL, 7), EnterThread(HALL)])
            assert await only_thread(store) == ThreadRecord(HALL, 5, 10, {6: 6}, left_ms=7, arrived=3)

            await store.commit(BOT, [MarkJoined(HALL, None)])
            assert await only_thread(store) == ThreadRecord(HALL, 5, 10, {6: 6}, arrived=3)

            await store.commit(BOT, [MarkJoined(HALL, 9)])
            assert await only_thread(store) == ThreadRecord(HALL, 5, 10, {6: 6}, arrived=9)

    @pytest.mark.parametrize(
        "write",
        [
            MoveBase(HALL, 20, 10),
            MarkSeen(HALL, {6: 6}),
            LeaveThread(HALL, 7),
            EnterThread(HALL),
            MarkJoined(HALL, 7),
            MarkReceiptDue(HALL, MessageId("6")),
            SettleReceipt(HALL, MessageId("6")),
        ],
        ids=lambda write: type(write).__name__,
    )
    async def test_a_thread_that_was_never_begun_cannot_be_changed(self, reopen, write):
        async with reopen() as store:
            await store.commit(OTHER_BOT, [begin()])

            with pytest.raises(StateError, match=r"thread 19:hall@thread\.v2 is not in the store"):
                await store.commit(BOT, [begin(YARD), write])

            assert await store.threads(BOT) == []
