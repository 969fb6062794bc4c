"""What every store keeps of the outbox: rows in their order, each once, until they are settled."""

from dataclasses import replace

from chatbot.actions import ActionKey, SendMessage
from chatbot.model import MessageId
from chatbot.stores.records import RowStatus
from chatbot.stores.writes import Enqueue, Prune, ReplaceRowMessage, RetryRow, SettleRow
from tests.contracts.records import ANN, BOT, OTHER_BOT, YARD, outbox_row


class TestOutbox:
    async def test_a_action_comes_back_as_it_was_journalled(self, reopen):
        action = SendMessage("<b>hi</b>", "html", YARD, "Help desk", {"colour": "blue"})
        row = outbox_row("a", action=action, created_ms=2000, caused_by=ANN)

        async with reopen() as store:
            await store.commit(BOT, [Enqueue(row)])
        async with reopen() as store:
            found = await store.row(BOT, ActionKey("a"))
            assert replace(found, position=0) == row
            assert await store.pending(BOT) == [found]
            assert await store.row(OTHER_BOT, ActionKey("a")) is None
            assert await store.row(BOT, ActionKey("b")) is None

    async def test_actions_keep_the_order_they_were_made_in(self, reopen):
        async with reopen() as store:
            await store.commit(
                BOT, [Enqueue(outbox_row("z")), Enqueue(outbox_row("a")), Enqueue(outbox_row("m", thread=YARD))]
            )
            await store.commit(BOT, [Enqueue(outbox_row("b"))])
            await store.commit(BOT, [SettleRow(ActionKey("a"), RowStatus.DONE)])
        async with reopen() as store:
            pending = await store.pending(BOT)

            assert [row.key for row in pending] == ["z", "m", "b"]
            assert [row.position for row in pending] == sorted({row.position for row in pending})

    async def test_a_second_action_of_the_same_key_adds_nothing(self, reopen):
        async with reopen() as store:
            await store.commit(BOT, [Enqueue(outbox_row("a", "first"))])
            await store.commit(BOT, [Enqueue(outbox_row("a", "second"))])
            await store.commit(BOT, [SettleRow(ActionKey("a"), RowStatus.DONE, MessageId("8"))])
            await store.commit(BOT, [Enqueue(outbox_row("a", "third"))])

            row = await store.row(BOT, ActionKey("a"))
            assert (row.action, row.status, row.message) == (SendMessage("first"), RowStatus.DONE, "8")
            assert await store.pending(BOT) == []

    async def test_a_settled_row_stays_as_it_is(self, reopen):
        async with reopen() as store:
            await store.commit(BOT, [Enqueue(outbox_row("a"))])
            await store.commit(BOT, [SettleRow(ActionKey("a"), RowStatus.FAILED, reason="refused (403)")])
            await store.commit(BOT, [SettleRow(ActionKey("a"), RowStatus.DONE, MessageId("8"))])

            row = await store.row(BOT, ActionKey("a"))
            assert (row.status, row.message, row.reason) == (RowStatus.FAILED, None, "refused (403)")

    async def test_a_done_row_can_point_to_the_message_that_stays_of_two(self, reopen):
        async with reopen() as store:
            await store.commit(BOT, [Enqueue(outbox_row("a")), Enqueue(outbox_row("b"))])
            await store.commit(BOT, [SettleRow(ActionKey("a"), RowStatus.DONE, MessageId("9"))])
            await store.commit(BOT, [ReplaceRowMessage(ActionKey(key), MessageId("8")) for key in ("a", "b", "gone")])

            assert [(await store.row(BOT, ActionKey(key))).message for key in ("a", "b")] == ["8", None]

    async def test_messages_of_settled_actions_are_known_to_their_bot(self, reopen):
        async with reopen() as store:
            await store.commit(BOT, [Enqueue(outbox_row("a")), Enqueue(outbox_row("b")), Enqueue(outbox_row("c"))])
            await store.commit(BOT, [SettleRow(ActionKey("a"), RowStatus.DONE, MessageId("8"))])
            await store.commit(BOT, [SettleRow(ActionKey("b"), RowStatus.DONE, MessageId("9"))])
            asked = [MessageId(id) for id in ("7", "8")]

            assert await store.made(BOT, asked) == {"8"}
            assert await store.made(OTHER_BOT, asked) == await store.made(BOT, []) == frozenset()

    async def test_settling_a_row_that_is_gone_changes_nothing(self, reopen):
        async with reopen() as store:
            await store.commit(BOT, [SettleRow(ActionKey("a"), RowStatus.DONE)])

            assert await store.row(BOT, ActionKey("a")) is None

    async def test_a_reason_with_any_text_can_be_stored(self, reopen):
        async with reopen() as store:
            await store.commit(BOT, [Enqueue(outbox_row("a"))])
            await store.commit(BOT, [SettleRow(ActionKey("a"), RowStatus.FAILED, reason="said \ud83d\0")])

            assert (await store.row(BOT, ActionKey("a"))).reason == "said \\ud83d\\x00"

    async def test_pruning_deletes_old_rows_that_are_settled_and_no_others(self, reopen):
        settled = [SettleRow(ActionKey(key), RowStatus.DONE) for key in ("old", "new")]

        async with reopen() as store:
            await store.commit(BOT, [Enqueue(outbox_row(key, created_ms=999)) for key in ("old", "old and pending")])
            await store.commit(BOT, [Enqueue(outbox_row("new", created_ms=1000)), *settled])
            await store.commit(OTHER_BOT, [Enqueue(outbox_row("old", created_ms=1)), *settled])
            await store.commit(BOT, [Prune(before_ms=1000)])

            assert await store.row(BOT, ActionKey("old")) is None
            assert (await store.row(BOT, ActionKey("new"))).status is RowStatus.DONE
            assert [row.key for row in await store.pending(BOT)] == ["old and pending"]
            assert await store.row(OTHER_BOT, ActionKey("old")) is not None

    async def test_pruning_keeps_what_explains_the_messages_of_a_thread_where_an_action_waits(self, reopen):
        keys = [ActionKey("here"), ActionKey("elsewhere")]

        async with reopen() as store:
            rows = [outbox_row("here", created_ms=1), outbox_row("elsewhere", created_ms=1, thread=YARD)]
            settled = [SettleRow(key, RowStatus.DONE, MessageId("5")) for key in keys]
            await store.commit(BOT, [*(Enqueue(row) for row in [*rows, outbox_row("waits", created_ms=2)]), *settled])
            await store.commit(BOT, [Prune(before_ms=1000)])
            assert [await store.row(BOT, key) is None for key in keys] == [False, True]

            await store.commit(BOT, [SettleRow(ActionKey("waits"), RowStatus.DONE), Prune(before_ms=1000)])
            assert await store.row(BOT, ActionKey("here")) is None

    async def test_a_action_without_a_time_is_kept_as_long_as_others_of_its_time(self, reopen):
        async with reopen() as store:
            rows = [outbox_row("a", created_ms=0, after=1000), outbox_row("b", created_ms=0, after=999)]
            settled = [SettleRow(ActionKey(key), RowStatus.DONE) for key in ("a", "b")]
            await store.commit(BOT, [*(Enqueue(row) for row in rows), *settled, Prune(before_ms=1000)])

            assert [await store.row(BOT, ActionKey(key)) is None for key in ("a", "b")] == [False, True]

    async def test_a_action_that_is_tried_again_counts_as_journalled_then(self, reopen):
        async with reopen() as store:
            await store.commit(
                BOT, [Enqueue(outbox_row("a")), SettleRow(ActionKey("a"), RowStatus.FAILED, reason="no")]
            )
            await store.commit(BOT, [RetryRow(ActionKey("a"), created_ms=5000)])

            assert [row.created_ms for row in await store.pending(BOT)] == [5000]

    async def test_a_action_that_failed_can_be_tried_again_as_the_last_one(self, reopen):
        async with reopen() as store:
            await store.commit(
                BOT, [Enqueue(outbox_row("a", caused_by=ANN)), Enqueue(outbox_row("b")), Enqueue(outbox_row("c"))]
            )
            await store.commit(BOT, [SettleRow(ActionKey("a"), RowStatus.FAILED, reason="refused")])
            await store.commit(BOT, [SettleRow(ActionKey("c"), RowStatus.DONE)])

            await store.commit(BOT, [RetryRow(ActionKey(key)) for key in ("a", "b", "c", "unknown")])
            await store.commit(BOT, [Enqueue(outbox_row("d"))])

            pending = await store.pending(BOT)
            assert [row.key for row in pending] == ["b", "a", "d"]
            assert replace(pending[1], position=0) == outbox_row("a", caused_by=ANN)
            assert (await store.row(BOT, ActionKey("c"))).status is RowStatus.DONE
