"""What every store promises, shown for each of them: `reopen` is what a restart is."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import anyio
import pytest

from chatbot.actions import (
    ActionKey,
    AddParticipants,
    DeleteMessage,
    EditMessage,
    RemoveParticipant,
    SendMessage,
    UpdateTopic,
)
from chatbot.errors import CannotStore, StateError, StoreInUse
from chatbot.events import MessageReceived, ThreadLeft
from chatbot.model import ChatMessage, MessageId, MessageType, Participant, ThreadId, UserId
from chatbot.stores.base import (
    Attempt,
    BeginAttempt,
    BotRecord,
    DeadLetter,
    DropDeadLetter,
    EndAttempt,
    Enqueue,
    LeaveThread,
    MarkSeen,
    MoveBase,
    MoveHorizon,
    OutboxRow,
    OweReceipt,
    Prune,
    ReopenRow,
    RepointRow,
    ReviveDeadLetter,
    RowStatus,
    SaveBot,
    SaveDeadLetter,
    SaveThread,
    SettleReceipt,
    SettleRow,
    Store,
    ThreadRecord,
)
from chatbot.stores.memory import MemoryStore
from chatbot.stores.sqlite import SqliteStore

BOT = UserId("8:acs:bot")
OTHER_BOT = UserId("8:acs:other-bot")
ANN = UserId("8:acs:ann")
BOB = UserId("8:acs:bob")
HALL = ThreadId("19:hall@thread.v2")
YARD = ThreadId("19:yard@thread.v2")

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
LEFT = ThreadLeft(bot=BOT, thread=HALL, occurred_on=NOON)

Open = Callable[[], Store]


def wish(key: str, text: str = "hello", **fields) -> OutboxRow:
    values = {"key": ActionKey(key), "thread": HALL, "action": SendMessage(text), "after": 7, "created_ms": 1000}
    return OutboxRow(**values | fields)


def begin(thread: ThreadId = HALL, **fields) -> SaveThread:
    return SaveThread(ThreadRecord(thread, **{"floor": 5, "base": 10} | fields))


def letter(id: str, text: str = "hello", **fields) -> DeadLetter:
    said = ChatMessage(id=MessageId("8"), version=8, type=MessageType.TEXT, created_on=NOON, content=text, sender=ANN)
    event = MessageReceived(bot=BOT, thread=HALL, occurred_on=NOON, message=said)
    values = {"event": event, "handler": "plugins.echo.echo", "error": "ValueError: no", "attempts": 3, "died_ms": 5}
    return DeadLetter(id, **values | fields)


async def only_thread(store: Store) -> ThreadRecord:
    (thread,) = await store.threads(BOT)
    return thread


@pytest.fixture(params=["memory", "sqlite"])
def reopen(request, tmp_path) -> Open:
    """Opens the one store of the test, whenever it is called."""
    memory = MemoryStore()
    return {"memory": lambda: memory, "sqlite": lambda: SqliteStore(tmp_path / "bot.db")}[request.param]


class TestIdentities:
    async def test_a_bot_is_found_by_name_and_resource(self, reopen):
        mine = BotRecord("helpdesk", "contoso", BOT, 1234)
        twin = BotRecord("helpdesk", "fabrikam", OTHER_BOT, 5678)

        async with reopen() as store:
            await store.commit(BOT, [SaveBot(mine)])
            await store.commit(OTHER_BOT, [SaveBot(twin)])
        async with reopen() as store:
            assert await store.find_bot("helpdesk", "contoso") == mine
            assert await store.find_bot("helpdesk", "fabrikam") == twin
            assert await store.find_bot("lobby", "contoso") is None
            assert await store.bots() == [mine, twin]

    async def test_a_second_record_of_the_same_name_replaces_the_first(self, reopen):
        first = BotRecord("helpdesk", "contoso", BOT, 1234)

        async with reopen() as store:
            await store.commit(BOT, [SaveBot(first), SaveBot(replace(first, user=OTHER_BOT, first_started_ms=9))])

            assert await store.find_bot("helpdesk", "contoso") == replace(first, user=OTHER_BOT, first_started_ms=9)


class TestHorizons:
    async def test_each_bot_has_a_horizon_of_its_own_which_the_last_one_noted_replaces(self, reopen):
        async with reopen() as store:
            assert await store.horizon(BOT) is None
            await store.commit(BOT, [MoveHorizon(7), MoveHorizon(9), MoveHorizon(8)])
            await store.commit(OTHER_BOT, [SaveThread(ThreadRecord(HALL, floor=1, base=1))])
        async with reopen() as store:
            assert await store.horizon(BOT) == 8
            assert await store.horizon(OTHER_BOT) is None


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

    async def test_a_thread_begun_anew_forgets_what_was_before(self, reopen):
        async with reopen() as store:
            await store.commit(BOT, [begin(), MarkSeen(HALL, {6: 6}), OweReceipt(HALL, MessageId("6"))])
            await store.commit(BOT, [LeaveThread(HALL, "removed")])
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
            await store.commit(BOT, [begin(), OweReceipt(HALL, MessageId("100")), OweReceipt(HALL, MessageId("99"))])
            await store.commit(BOT, [SettleReceipt(HALL, MessageId("20")), SettleReceipt(HALL, MessageId("9"))])

            thread = await only_thread(store)
            assert (thread.receipt_due, thread.receipt_sent) == ("100", "20")

    async def test_leaving_a_thread_fails_what_was_still_to_be_done_there(self, reopen):
        async with reopen() as store:
            done = SettleRow(ActionKey("a"), RowStatus.DONE, MessageId("8"))
            await store.commit(BOT, [begin(), begin(YARD), *map(Enqueue, [wish("a"), wish("b")]), done])
            await store.commit(BOT, [Enqueue(wish("c", thread=YARD))])
            await store.commit(OTHER_BOT, [Enqueue(wish("b"))])
            await store.commit(BOT, [LeaveThread(HALL, "removed from the thread")])

            assert {one.thread: one.is_left for one in await store.threads(BOT)} == {HALL: True, YARD: False}
            failed = await store.row(BOT, ActionKey("b"))
            assert (failed.status, failed.reason) == (RowStatus.FAILED, "removed from the thread")
            assert (await store.row(BOT, ActionKey("a"))).status is RowStatus.DONE
            assert [one.key for one in await store.pending(BOT)] == ["c"]
            assert [one.key for one in await store.pending(OTHER_BOT)] == ["b"]

    @pytest.mark.parametrize(
        "write",
        [
            MoveBase(HALL, 20, 10),
            MarkSeen(HALL, {6: 6}),
            LeaveThread(HALL, "removed"),
            OweReceipt(HALL, MessageId("6")),
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


class TestOutbox:
    async def test_a_wish_comes_back_as_it_was_journalled(self, reopen):
        action = SendMessage("<b>hi</b>", "html", YARD, "Help desk", {"colour": "blue"})
        row = wish("a", action=action, created_ms=2000, caused_by=ANN)

        async with reopen() as store:
            await store.commit(BOT, [Enqueue(row)])
        async with reopen() as store:
            found = await store.row(BOT, ActionKey("a"))
            assert replace(found, position=0) == row
            assert await store.pending(BOT) == [found]
            assert await store.row(OTHER_BOT, ActionKey("a")) is None
            assert await store.row(BOT, ActionKey("b")) is None

    async def test_wishes_keep_the_order_they_were_made_in(self, reopen):
        async with reopen() as store:
            await store.commit(BOT, [Enqueue(wish("z")), Enqueue(wish("a")), Enqueue(wish("m", thread=YARD))])
            await store.commit(BOT, [Enqueue(wish("b"))])
            await store.commit(BOT, [SettleRow(ActionKey("a"), RowStatus.DONE)])
        async with reopen() as store:
            pending = await store.pending(BOT)

            assert [row.key for row in pending] == ["z", "m", "b"]
            assert [row.position for row in pending] == sorted({row.position for row in pending})

    async def test_a_second_wish_of_the_same_key_adds_nothing(self, reopen):
        async with reopen() as store:
            await store.commit(BOT, [Enqueue(wish("a", "first"))])
            await store.commit(BOT, [Enqueue(wish("a", "second"))])
            await store.commit(BOT, [SettleRow(ActionKey("a"), RowStatus.DONE, MessageId("8"))])
            await store.commit(BOT, [Enqueue(wish("a", "third"))])

            row = await store.row(BOT, ActionKey("a"))
            assert (row.action, row.status, row.message) == (SendMessage("first"), RowStatus.DONE, "8")
            assert await store.pending(BOT) == []

    async def test_a_settled_row_stays_as_it_is(self, reopen):
        async with reopen() as store:
            await store.commit(BOT, [Enqueue(wish("a"))])
            await store.commit(BOT, [SettleRow(ActionKey("a"), RowStatus.FAILED, reason="refused (403)")])
            await store.commit(BOT, [SettleRow(ActionKey("a"), RowStatus.DONE, MessageId("8"))])

            row = await store.row(BOT, ActionKey("a"))
            assert (row.status, row.message, row.reason) == (RowStatus.FAILED, None, "refused (403)")

    async def test_a_done_row_can_point_to_the_message_that_stays_of_two(self, reopen):
        async with reopen() as store:
            await store.commit(BOT, [Enqueue(wish("a")), Enqueue(wish("b"))])
            await store.commit(BOT, [SettleRow(ActionKey("a"), RowStatus.DONE, MessageId("9"))])
            await store.commit(BOT, [RepointRow(ActionKey(key), MessageId("8")) for key in ("a", "b", "gone")])

            assert [(await store.row(BOT, ActionKey(key))).message for key in ("a", "b")] == ["8", None]

    async def test_messages_of_settled_wishes_are_known_to_their_bot(self, reopen):
        async with reopen() as store:
            await store.commit(BOT, [Enqueue(wish("a")), Enqueue(wish("b")), Enqueue(wish("c"))])
            await store.commit(BOT, [SettleRow(ActionKey("a"), RowStatus.DONE, MessageId("8"))])
            await store.commit(BOT, [SettleRow(ActionKey("b"), RowStatus.DONE, MessageId("9"))])
            asked = [MessageId(id) for id in ("7", "8")]

            assert await store.made(BOT, asked) == {"8"}
            assert await store.made(OTHER_BOT, asked) == await store.made(BOT, []) == frozenset()

    async def test_settling_a_row_that_is_gone_changes_nothing(self, reopen):
        async with reopen() as store:
            await store.commit(BOT, [SettleRow(ActionKey("a"), RowStatus.DONE)])

            assert await store.row(BOT, ActionKey("a")) is None

    async def test_a_reason_is_kept_whatever_a_service_said(self, reopen):
        async with reopen() as store:
            await store.commit(BOT, [Enqueue(wish("a"))])
            await store.commit(BOT, [SettleRow(ActionKey("a"), RowStatus.FAILED, reason="said \ud83d\0")])

            assert (await store.row(BOT, ActionKey("a"))).reason == "said \\ud83d\\x00"

    async def test_pruning_deletes_old_rows_that_are_settled_and_no_others(self, reopen):
        settled = [SettleRow(ActionKey(key), RowStatus.DONE) for key in ("old", "new")]

        async with reopen() as store:
            await store.commit(BOT, [Enqueue(wish(key, created_ms=999)) for key in ("old", "old and pending")])
            await store.commit(BOT, [Enqueue(wish("new", created_ms=1000)), *settled])
            await store.commit(OTHER_BOT, [Enqueue(wish("old", created_ms=1)), *settled])
            await store.commit(BOT, [Prune(before_ms=1000)])

            assert await store.row(BOT, ActionKey("old")) is None
            assert (await store.row(BOT, ActionKey("new"))).status is RowStatus.DONE
            assert [row.key for row in await store.pending(BOT)] == ["old and pending"]
            assert await store.row(OTHER_BOT, ActionKey("old")) is not None

    async def test_a_wish_that_failed_can_be_tried_again_as_the_last_one(self, reopen):
        async with reopen() as store:
            await store.commit(BOT, [Enqueue(wish("a", caused_by=ANN)), Enqueue(wish("b")), Enqueue(wish("c"))])
            await store.commit(BOT, [SettleRow(ActionKey("a"), RowStatus.FAILED, reason="refused")])
            await store.commit(BOT, [SettleRow(ActionKey("c"), RowStatus.DONE)])

            await store.commit(BOT, [ReopenRow(ActionKey(key)) for key in ("a", "b", "c", "unknown")])
            await store.commit(BOT, [Enqueue(wish("d"))])

            pending = await store.pending(BOT)
            assert [row.key for row in pending] == ["b", "a", "d"]
            assert replace(pending[1], position=0) == wish("a", caused_by=ANN)
            assert (await store.row(BOT, ActionKey("c"))).status is RowStatus.DONE


class TestDeadLetters:
    async def test_dead_letters_come_back_whole_and_oldest_first(self, reopen):
        letters = [letter("b", died_ms=2), letter("a", died_ms=3), letter("c", died_ms=1)]

        async with reopen() as store:
            await store.commit(BOT, [SaveDeadLetter(one) for one in letters])
        async with reopen() as store:
            assert await store.dead_letters(BOT) == [letters[2], letters[0], letters[1]]
            assert await store.dead_letters(OTHER_BOT) == []

    async def test_a_letter_of_the_same_id_replaces_the_first(self, reopen):
        async with reopen() as store:
            await store.commit(BOT, [SaveDeadLetter(letter("a", died_ms=1)), ReviveDeadLetter("a")])
            await store.commit(BOT, [SaveDeadLetter(letter("a", died_ms=9, attempts=7))])

            assert await store.dead_letters(BOT) == [letter("a", died_ms=9, attempts=7)]

    async def test_letters_are_revived_and_dropped_by_their_bot_and_unknown_ones_do_not_matter(self, reopen):
        async with reopen() as store:
            await store.commit(BOT, [SaveDeadLetter(letter(id)) for id in "abc"])
            await store.commit(OTHER_BOT, [SaveDeadLetter(letter("a"))])
            await store.commit(BOT, [ReviveDeadLetter("a"), DropDeadLetter("b"), ReviveDeadLetter("x")])
            await store.commit(BOT, [DropDeadLetter("x")])
        async with reopen() as store:
            assert await store.dead_letters(BOT) == [letter("a", is_revived=True), letter("c")]
            assert await store.dead_letters(OTHER_BOT) == [letter("a")]

    async def test_a_letter_is_stored_whatever_was_said(self, reopen):
        poison = letter("a", text="half \ud83d of a \0 pair", error="ValueError: \ud83d")

        async with reopen() as store:
            await store.commit(BOT, [SaveDeadLetter(poison)])

            assert await store.dead_letters(BOT) == [replace(poison, error="ValueError: \\ud83d")]


class TestAttempts:
    async def test_what_was_begun_and_not_ended_is_found_after_a_restart(self, reopen):
        async with reopen() as store:
            await store.commit(BOT, [BeginAttempt(HALL, Attempt("5", 1)), BeginAttempt(YARD, Attempt("6", 1))])
            await store.commit(BOT, [BeginAttempt(HALL, Attempt("7", 2)), EndAttempt(YARD)])
            await store.commit(OTHER_BOT, [BeginAttempt(YARD, Attempt("8", 3)), EndAttempt(HALL)])
        async with reopen() as store:
            assert await store.attempts(BOT) == {HALL: Attempt("7", 2)}
            assert await store.attempts(OTHER_BOT) == {YARD: Attempt("8", 3)}
            assert await store.attempts(ANN) == {}

    async def test_a_store_that_was_closed_was_not_killed(self, reopen):
        async with reopen() as store:
            assert not store.was_killed
        with pytest.raises(ZeroDivisionError):
            async with reopen():
                1 / 0  # noqa: B018
        async with reopen() as store:
            assert not store.was_killed


class TestCommits:
    @pytest.mark.parametrize(
        ("write", "place"),
        [
            (Enqueue(wish("b", action=SendMessage("a\ud83d"))), "SendMessage.content has half of a surrogate"),
            (
                Enqueue(wish("b", action=SendMessage("a", metadata={"n": 1}))),
                r"SendMessage.metadata\['n'\] is of type int",
            ),
            (Enqueue(wish("b", after=2**63)), "OutboxRow.after is 9223372036854775808"),
            (Enqueue(wish("b", thread=None)), "OutboxRow.thread is of type NoneType"),
            (SettleRow(ActionKey("a"), RowStatus.DONE, message=8), "SettleRow.message is of type int"),
            (MarkSeen(HALL, {6: "6"}), r"MarkSeen.seen\[6\] is of type str"),
            (MarkSeen(HALL, {"6": 6}), "key of MarkSeen.seen is of type str"),
            (MoveBase(HALL, 1.5, 0), "MoveBase.base is of type float"),
            (MoveBase(HALL, 11, None), "MoveBase.below is of type NoneType"),
            (OweReceipt(HALL, MessageId("soon")), "OweReceipt.message is 'soon'"),
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
            (ReopenRow(7), "ReopenRow.key is of type int"),
            (ReviveDeadLetter(7), "ReviveDeadLetter.id is of type int"),
            (DropDeadLetter(7), "DropDeadLetter.id is of type int"),
            (Prune("yesterday"), "Prune.before_ms is of type str"),
        ],
        ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
    )
    async def test_a_commit_with_a_value_that_has_no_stored_form_changes_nothing(self, reopen, write, place):
        async with reopen() as store:
            await store.commit(BOT, [begin()])

            with pytest.raises(CannotStore, match=f"^{place}"):
                await store.commit(BOT, [Enqueue(wish("a")), MarkSeen(HALL, {6: 6}), MoveBase(HALL, 11, 0), write])

            assert await only_thread(store) == ThreadRecord(HALL, 5, 10)
            assert await store.row(BOT, ActionKey("a")) is None
            await store.commit(BOT, [Enqueue(wish("a")), MarkSeen(HALL, {6: 6})])
            assert len(await store.pending(BOT)) == 1

    async def test_what_a_failed_commit_had_changed_is_as_before(self, reopen):
        async with reopen() as store:
            await store.commit(BOT, [begin(seen={6: 6}), Enqueue(wish("old", created_ms=1)), Enqueue(wish("a"))])
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
                        LeaveThread(HALL, "gone"),
                        OweReceipt(YARD, MessageId("6")),
                    ],
                )

            assert (await store.threads(BOT), await store.pending(BOT)) == before
            assert await store.row(BOT, ActionKey("old")) is not None

    async def test_a_commit_that_fails_leaves_the_commits_beside_it_alone(self, reopen):
        refused = []

        async with reopen() as store:

            async def commit(number: int) -> None:
                thread = ThreadId(f"19:{number}@thread.v2")
                start = [] if number % 3 == 0 else [begin(thread)]
                try:
                    await store.commit(BOT, [Enqueue(wish(f"{number}")), *start, MarkSeen(thread, {6: 6})])
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
                await store.commit(BOT, [Enqueue(wish("a"))])

            assert await store.pending(BOT) == []

    async def test_cancelled_commits_happen_whole_or_not_at_all(self, reopen):
        async with reopen() as store:
            async with anyio.create_task_group() as tasks:
                for number in range(20):
                    pair = [Enqueue(wish(f"{number}.{half}")) for half in (0, 1)]
                    tasks.start_soon(store.commit, BOT, pair)
                await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
            await store.commit(BOT, [Enqueue(wish("last"))])
        async with reopen() as store:
            *pairs, last = [row.key for row in await store.pending(BOT)]

            assert last == "last"
            assert [key[-2:] for key in pairs] == [".0", ".1"] * (len(pairs) // 2)


class TestOpening:
    async def test_a_store_is_used_only_while_it_is_open(self, reopen):
        store = reopen()
        uses = [
            lambda: store.commit(BOT, []),
            lambda: store.find_bot("a", "b"),
            lambda: store.bots(),
            lambda: store.threads(BOT),
            lambda: store.pending(BOT),
            lambda: store.row(BOT, ActionKey("a")),
            lambda: store.attempts(BOT),
            lambda: store.dead_letters(BOT),
            lambda: store.forget(ANN),
        ]

        for use in uses:
            with pytest.raises(StateError, match="the store is not open: use it inside `async with store:`"):
                await use()
        async with store:
            for use in uses:
                await use()
        for use in uses:
            with pytest.raises(StateError, match="the store is not open"):
                await use()

    async def test_a_store_is_open_once_at_a_time(self, reopen):
        async with reopen() as store:
            with pytest.raises(StoreInUse):
                await reopen().__aenter__()

            await store.commit(BOT, [begin()])
        async with reopen() as store:
            assert len(await store.threads(BOT)) == 1


class TestForgetting:
    async def test_a_forgotten_person_leaves_no_text_but_what_was_done_stays_done(self, reopen):
        async with reopen() as store:
            await store.commit(BOT, [Enqueue(wish("a", "Ann said: I am ill", caused_by=ANN)), begin()])
            await store.commit(BOT, [SettleRow(ActionKey("a"), RowStatus.DONE, MessageId("8"))])
            await store.commit(BOT, [Enqueue(wish("b", "for Bob", caused_by=BOB))])

            assert await store.forget(ANN) == 1
        async with reopen() as store:
            row = await store.row(BOT, ActionKey("a"))
            assert (row.action, row.caused_by) == (SendMessage(""), None)
            assert (row.status, row.message) == (RowStatus.DONE, "8")
            assert [one.action for one in await store.pending(BOT)] == [SendMessage("for Bob")]
            assert await store.forget(ANN) == 0

    async def test_what_was_still_to_be_said_to_a_forgotten_person_fails(self, reopen):
        async with reopen() as store:
            await store.commit(BOT, [Enqueue(wish("a", caused_by=ANN))])
            await store.forget(ANN)

            row = await store.row(BOT, ActionKey("a"))
            assert (row.status, row.reason) == (RowStatus.FAILED, "erased: the person was forgotten")
            assert await store.pending(BOT) == []

    async def test_a_person_is_forgotten_in_the_rows_of_every_bot_that_name_them(self, reopen):
        add = AddParticipants((Participant(ANN, "Ann"), Participant(BOB, "Bob")))

        async with reopen() as store:
            await store.commit(BOT, [Enqueue(wish("add", action=add))])
            await store.commit(OTHER_BOT, [Enqueue(wish("topic", action=UpdateTopic(f"about {ANN}")))])
            await store.commit(OTHER_BOT, [Enqueue(wish("other", f"{ANN}abel and {ANN}-x"))])
            await store.commit(OTHER_BOT, [SettleRow(ActionKey("topic"), RowStatus.FAILED, reason=f"{ANN} is unknown")])

            assert await store.forget(ANN) == 2
            assert (await store.row(BOT, ActionKey("add"))).action == AddParticipants((Participant(BOB, "Bob"),))
            topic = await store.row(OTHER_BOT, ActionKey("topic"))
            assert (topic.action, topic.reason) == (UpdateTopic(""), "erased: the person was forgotten")
            assert [row.key for row in await store.pending(OTHER_BOT)] == ["other"]

    async def test_dead_letters_that_hold_anything_of_a_person_are_dropped(self, reopen):
        async with reopen() as store:
            await store.commit(BOT, [SaveDeadLetter(letter("said"))])
            await store.commit(OTHER_BOT, [SaveDeadLetter(replace(letter("told", error=f"{BOB} is gone"), event=LEFT))])

            assert await store.forget(BOB) == 1
            assert await store.dead_letters(OTHER_BOT) == []
            assert await store.dead_letters(BOT) == [letter("said")]
            assert await store.forget(ANN) == 1
            assert await store.dead_letters(BOT) == []

    async def test_wishes_that_hold_no_words_are_still_carried_out(self, reopen):
        delete = wish("a", action=DeleteMessage(MessageId("8")), caused_by=ANN)

        async with reopen() as store:
            await store.commit(BOT, [Enqueue(delete)])
            await store.commit(BOT, [Enqueue(wish("b", action=RemoveParticipant(ANN)))])
            await store.commit(BOT, [Enqueue(wish("c", action=EditMessage(MessageId("8"), "Ann!"), caused_by=ANN))])

            assert await store.forget(ANN) == 3
            assert [(row.action, row.caused_by) for row in await store.pending(BOT)] == [(delete.action, None)]
