"""A commit happens whole or not at all, in every store."""

import anyio
import pytest

from chatbot.actions import ActionKey, SendMessage
from chatbot.errors import CannotStore, StateError
from chatbot.model import MessageId, ThreadId
from chatbot.stores.records import Attempt, BotRecord, RowStatus, ThreadRecord
from chatbot.stores.writes import (
    BeginAttempt,
    DropDeadLetter,
    EndAttempt,
    Enqueue,
    LeaveThread,
    MarkReceiptDue,
    MarkSeen,
    MoveBase,
    Prune,
    RequestRetry,
    RetryRow,
    SaveBot,
    SaveDeadLetter,
    SettleReceipt,
    SettleRow,
)
from tests.contracts.records import BOT, HALL, YARD, begin, letter, only_thread, outbox_row


class TestCommits:
    @pytest.mark.parametrize(
        ("write", "place"),
        [
            (Enqueue(outbox_row("b", action=SendMessage("a\ud83d"))), "SendMessage.content has half of a surrogate"),
            (
                Enqueue(outbox_row("b", action=SendMessage("a", metadata={"n": 1}))),
                r"SendMessage.metadata\['n'\] is of type int",
            ),
            (Enqueue(outbox_row("b", after=2**63)), "OutboxRow.after is 9223372036854775808"),
            (Enqueue(outbox_row("b", thread=None)), "OutboxRow.thread is of type NoneType"),
            (SettleRow(ActionKey("a"), RowStatus.DONE, message=8), "SettleRow.message is of type int"),
            (MarkSeen(HALL, {6: "6"}), r"MarkSeen.seen\[6\] is of type str"),
            (MarkSeen(HALL, {"6": 6}), "key of MarkSeen.seen is of type str"),
            (MoveBase(HALL, 1.5, 0), "MoveBase.base is of type float"),
            (MoveBase(HALL, 11, None), "MoveBase.below is of type NoneType"),
            (MarkReceiptDue(HALL, MessageId("soon")), "MarkReceiptDue.message is 'soon'"),
            (SettleReceipt(HALL, MessageId("")), "SettleReceipt.message is ''"),
            (SaveBot(BotRecord("a\0", "b", BOT, 1)), "BotRecord.name has a NUL"),
            (SaveBot(BotRecord("a", "b", BOT, "now")), "BotRecord.first_started_ms is of type str"),
            (begin(floor=None), "ThreadRecord.floor is of type NoneType"),
            (begin(seen={True: 1}), "key of ThreadRecord.seen is of type bool"),
            (SaveDeadLetter(letter("a", event=None)), "event is of type NoneType; expected one of ActionFailed"),
            (SaveDeadLetter(letter("a", attempts=None)), "DeadLetter.attempts is of type NoneType"),
            (BeginAttempt(HALL, Attempt("5", "1")), "Attempt.count is of type str"),
            (BeginAttempt(None, Attempt("5", 1)), "BeginAttempt.thread is of type NoneType"),
            (EndAttempt(None), "EndAttempt.thread is of type NoneType"),
            (RetryRow(7), "RetryRow.key is of type int"),
            (RequestRetry(7), "RequestRetry.id is of type int"),
            (DropDeadLetter(7), "DropDeadLetter.id is of type int"),
            (Prune("yesterday"), "Prune.before_ms is of type str"),
        ],
        ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
    )
    async def test_a_commit_with_a_value_that_has_no_stored_form_changes_nothing(self, reopen, write, place):
        async with reopen() as store:
            await store.commit(BOT, [begin()])

            with pytest.raises(CannotStore, match=f"^{place}"):
                await store.commit(
                    BOT, [Enqueue(outbox_row("a")), MarkSeen(HALL, {6: 6}), MoveBase(HALL, 11, 0), write]
                )

            assert await only_thread(store) == ThreadRecord(HALL, 5, 10)
            assert await store.row(BOT, ActionKey("a")) is None
            await store.commit(BOT, [Enqueue(outbox_row("a")), MarkSeen(HALL, {6: 6})])
            assert len(await store.pending(BOT)) == 1

    async def test_what_a_failed_commit_had_changed_is_as_before(self, reopen):
        async with reopen() as store:
            await store.commit(
                BOT, [begin(seen={6: 6}), Enqueue(outbox_row("old", created_ms=1)), Enqueue(outbox_row("a"))]
            )
            await store.commit(BOT, [SettleRow(ActionKey("old"), RowStatus.DONE)])
            before = await store.threads(BOT), await store.pending(BOT)

            with pytest.raises(StateError):
                await store.commit(
                    BOT,
                    [
                        SettleRow(ActionKey("a"), RowStatus.DONE),
                        Prune(100),
                        MarkSeen(HALL, {6: 9, 7: 7}),
                        MoveBase(HALL, 20, 20),
                        begin(floor=90),
                        LeaveThread(HALL, 7),
                        MarkReceiptDue(YARD, MessageId("6")),
                    ],
                )

            assert (await store.threads(BOT), await store.pending(BOT)) == before
            assert await store.row(BOT, ActionKey("old")) is not None

    async def test_a_failing_commit_does_not_affect_concurrent_commits(self, reopen):
        refused = []

        async with reopen() as store:

            async def commit(number: int) -> None:
                thread = ThreadId(f"19:{number}@thread.v2")
                start = [] if number % 3 == 0 else [begin(thread)]
                try:
                    await store.commit(BOT, [Enqueue(outbox_row(f"{number}")), *start, MarkSeen(thread, {6: 6})])
                except StateError:
                    refused.append(number)

            async with anyio.create_task_group() as tasks:
                for number in range(30):
                    tasks.start_soon(commit, number)

            expected = {number for number in range(30) if number % 3}
            assert set(refused) == set(range(30)) - expected
            assert {int(row.key) for row in await store.pending(BOT)} == expected
            assert len(await store.threads(BOT)) == len(expected)

    async def test_an_empty_commit_is_no_error(self, reopen):
        async with reopen() as store:
            await store.commit(BOT, [])

    async def test_a_commit_cancelled_before_it_began_changes_nothing(self, reopen):
        async with reopen() as store:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await store.commit(BOT, [Enqueue(outbox_row("a"))])

            assert await store.pending(BOT) == []

    async def test_cancelled_commits_happen_whole_or_not_at_all(self, reopen):
        async with reopen() as store:
            async with anyio.create_task_group() as tasks:
                for number in range(20):
                    pair = [Enqueue(outbox_row(f"{number}.{half}")) for half in (0, 1)]
                    tasks.start_soon(store.commit, BOT, pair)
                await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
            await store.commit(BOT, [Enqueue(outbox_row("last"))])
        async with reopen() as store:
            *pairs, last = [row.key for row in await store.pending(BOT)]

            assert last == "last"
            assert [key[-2:] for key in pairs] == [".0", ".1"] * (len(pairs) // 2)
