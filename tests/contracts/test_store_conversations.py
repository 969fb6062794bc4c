"""What every store remembers of conversations: state, dialogs, timers and results."""

from dataclasses import replace

import pytest

from chatbot.errors import CannotStore, StoreConflict
from chatbot.events import MessageReceived
from chatbot.model import ChatMessage, MessageId, MessageType, UserId
from chatbot.stores.records import DialogRecord, StateKey, StoredState, ThreadRecord, TimerRecord
from chatbot.stores.writes import (
    DropDialog,
    DropTimer,
    LeaveThread,
    Prune,
    SaveDialog,
    SaveResult,
    SaveState,
    SaveThread,
    SetTimer,
)
from tests.contracts.records import ANN, BOT, HALL, NOON, OTHER_BOT

ANNA = UserId("8:acs:anna")
CART = StateKey("shop.Cart", HALL, ANN)


def said(text: str = "hello", sender: UserId = ANN) -> MessageReceived:
    message = ChatMessage(
        id=MessageId("8"), version=8, type=MessageType.TEXT, created_on=NOON, content=text, sender=sender
    )
    return MessageReceived(bot=BOT, thread=HALL, occurred_on=NOON, message=message)


def dialog(id: str = "d", **fields) -> DialogRecord:
    values = {
        "thread": HALL,
        "user": ANN,
        "handler": "shop.order",
        "event": said(),
        "journal": '{"v":1}',
        "event_key": "8",
        "is_waiting": True,
        "deadline_ms": 99,
        "changed_ms": 5,
    }
    return DialogRecord(id, **values | fields)


class TestState:
    async def test_a_state_is_found_again_by_its_thread_user_and_name(self, reopen):
        keys = [
            CART,
            replace(CART, user=None),
            replace(CART, thread=None),
            StateKey("shop.Cart"),
            replace(CART, name="x"),
        ]

        async with reopen() as store:
            await store.commit(BOT, [SaveState(key, str(n), None, n) for n, key in enumerate(keys)])
            await store.commit(OTHER_BOT, [SaveState(CART, "other", None, 9)])
        async with reopen() as store:
            for n, key in enumerate(keys):
                assert await store.state(BOT, key) == StoredState(str(n), n)
            assert await store.state(OTHER_BOT, CART) == StoredState("other", 9)
            assert await store.state(BOT, StateKey("shop.Wallet")) is None

    async def test_only_who_read_the_latest_version_may_save(self, reopen):
        async with reopen() as store:
            await store.commit(BOT, [SaveState(CART, "1", None, 10)])
            await store.commit(BOT, [SaveState(CART, "2", 10, 20)])

            for expected in (None, 10, 30):
                with pytest.raises(StoreConflict, match=r"shop\.Cart"):
                    await store.commit(BOT, [SaveState(CART, "3", expected, 40)])

            assert await store.state(BOT, CART) == StoredState("2", 20)

    async def test_a_conflict_takes_everything_else_of_the_commit_with_it(self, reopen):
        async with reopen() as store:
            await store.commit(BOT, [SaveState(CART, "1", None, 10)])

            with pytest.raises(StoreConflict):
                await store.commit(
                    BOT, [SaveDialog(dialog()), SaveState(CART, "2", 9, 11), SetTimer(TimerRecord("t", "f", 1))]
                )

            assert await store.dialogs(BOT) == []
            assert await store.timers(BOT) == []

    async def test_a_state_ends_and_may_begin_again(self, reopen):
        async with reopen() as store:
            await store.commit(BOT, [SaveState(CART, "1", None, 10)])
            with pytest.raises(StoreConflict):
                await store.commit(BOT, [SaveState(CART, None, 9, 11)])
            await store.commit(BOT, [SaveState(CART, None, 10, 11)])

            assert await store.state(BOT, CART) is None
            await store.commit(BOT, [SaveState(CART, "2", None, 12)])
            assert await store.state(BOT, CART) == StoredState("2", 12)

    async def test_what_a_column_cannot_hold_is_refused_before_anything_is_written(self, reopen):
        async with reopen() as store:
            with pytest.raises(CannotStore, match=r"SaveState\.value has a NUL"):
                await store.commit(BOT, [SaveDialog(dialog()), SaveState(CART, "a\0b", None, 1)])

            assert await store.dialogs(BOT) == []


class TestDialogs:
    async def test_dialogs_come_back_whole_after_a_restart_in_the_order_of_their_last_change(self, reopen):
        older = dialog("b", event=said("\ud800 half"), deadline_ms=None, is_waiting=False, changed_ms=1)

        async with reopen() as store:
            await store.commit(BOT, [SaveDialog(dialog("a")), SaveDialog(older)])
        async with reopen() as store:
            assert await store.dialogs(BOT) == [older, dialog("a")]
            assert await store.dialogs(OTHER_BOT) == []

    async def test_a_dialog_is_replaced_and_dropped_by_its_id(self, reopen):
        further = dialog(journal='{"v":1,"entries":[]}', event_key="9", is_waiting=False, deadline_ms=None)

        async with reopen() as store:
            await store.commit(BOT, [SaveDialog(dialog()), SaveDialog(further)])
            assert await store.dialogs(BOT) == [further]

            await store.commit(BOT, [DropDialog("d"), DropDialog("unknown")])
            assert await store.dialogs(BOT) == []


class TestTimers:
    async def test_timers_come_back_after_a_restart_the_earliest_first(self, reopen):
        late = TimerRecord("a", "shop.remind", 20, HALL, '{"item":"x"}', ANN)
        early = TimerRecord("b", "shop.sweep", 10)

        async with reopen() as store:
            await store.commit(BOT, [SetTimer(late), SetTimer(early)])
        async with reopen() as store:
            assert await store.timers(BOT) == [early, late]
            assert await store.timers(OTHER_BOT) == []

            await store.commit(BOT, [SetTimer(replace(early, due_ms=30)), DropTimer("a"), DropTimer("unknown")])
            assert await store.timers(BOT) == [replace(early, due_ms=30)]

    async def test_leaving_a_thread_keeps_its_dialogs_and_timers(self, reopen):
        here, timer = dialog(), TimerRecord("t", "f", 1, HALL)

        async with reopen() as store:
            await store.commit(BOT, [SaveThread(ThreadRecord(HALL, 1, 1)), SaveDialog(here), SetTimer(timer)])
            await store.commit(BOT, [LeaveThread(HALL, 7)])
        async with reopen() as store:
            assert await store.dialogs(BOT) == [here]
            assert await store.timers(BOT) == [timer]


class TestResults:
    async def test_the_first_result_under_a_key_stays(self, reopen):
        async with reopen() as store:
            await store.commit(BOT, [SaveResult("k", "1", 5), SaveResult("k", "2", 6)])
        async with reopen() as store:
            assert await store.result(BOT, "k") == "1"
            assert await store.result(BOT, "other") is None
            assert await store.result(OTHER_BOT, "k") is None

    async def test_old_results_and_dialogs_at_rest_are_pruned_and_waiting_ones_stay(self, reopen):
        resting = dialog("r", is_waiting=False, changed_ms=5)

        async with reopen() as store:
            await store.commit(
                BOT, [SaveResult("old", "1", 5), SaveResult("new", "1", 6), SaveDialog(dialog()), SaveDialog(resting)]
            )
            await store.commit(BOT, [Prune(6)])

            assert await store.result(BOT, "old") is None
            assert await store.result(BOT, "new") == "1"
            assert await store.dialogs(BOT) == [dialog()]


class TestForgetting:
    async def test_state_dialogs_and_timers_of_an_erased_user_are_deleted(self, reopen):
        hers, annas = dialog(), dialog("a", user=ANNA, event=said(sender=ANNA))
        timers = [TimerRecord("1", "f", 1, HALL, caused_by=ANN), TimerRecord("2", "f", 2, HALL, f'{{"who":"{ANN}"}}')]

        async with reopen() as store:
            await store.commit(BOT, [SaveState(CART, "1", None, 1), SaveDialog(hers), SaveDialog(annas)])
            await store.commit(BOT, [SetTimer(one) for one in timers] + [SetTimer(TimerRecord("3", "f", 3, HALL))])

            assert await store.forget(ANN) == 4
            assert await store.state(BOT, CART) is None
            assert await store.dialogs(BOT) == [annas]
            assert await store.timers(BOT) == [TimerRecord("3", "f", 3, HALL)]

    async def test_thread_states_and_results_lose_only_the_name_of_an_erased_user(self, reopen):
        votes = StateKey("poll.Votes", HALL)

        async with reopen() as store:
            await store.commit(BOT, [SaveState(votes, f'{{"{ANN}":1,"{ANNA}":2}}', None, 1)])
            await store.commit(BOT, [SaveResult("k", f'"{ANN}"', 5)])

            assert await store.forget(ANN) == 2
            stored = await store.state(BOT, votes)
            assert stored is not None
            assert stored.value == f'{{"erased":1,"{ANNA}":2}}'
            assert stored.version != 1
            assert await store.result(BOT, "k") == '"erased"'
