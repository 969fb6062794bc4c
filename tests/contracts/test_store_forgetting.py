"""A person who is forgotten is in no store, and what was done stays done."""

from dataclasses import replace

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
from chatbot.events import ActionFailed, ThreadLeft
from chatbot.model import MessageId, Participant
from chatbot.stores.records import RowStatus
from chatbot.stores.writes import Enqueue, SaveDeadLetter, SaveResult, SettleRow
from tests.contracts.records import ANN, BOB, BOT, HALL, NOON, OTHER_BOT, begin, letter, outbox_row

LEFT = ThreadLeft(bot=BOT, thread=HALL, occurred_on=NOON)


class TestForgetting:
    async def test_an_erased_user_leaves_no_text_but_done_actions_stay_done(self, reopen):
        async with reopen() as store:
            await store.commit(BOT, [Enqueue(outbox_row("a", "Ann said: I am ill", caused_by=ANN)), begin()])
            await store.commit(BOT, [SettleRow(ActionKey("a"), RowStatus.DONE, MessageId("8"))])
            await store.commit(BOT, [Enqueue(outbox_row("b", "for Bob", caused_by=BOB))])

            assert await store.forget(ANN) == 1
        async with reopen() as store:
            row = await store.row(BOT, ActionKey("a"))
            assert (row.action, row.caused_by) == (SendMessage(""), None)
            assert (row.status, row.message) == (RowStatus.DONE, "8")
            assert [one.action for one in await store.pending(BOT)] == [SendMessage("for Bob")]
            assert await store.forget(ANN) == 0

    async def test_pending_actions_for_an_erased_user_fail(self, reopen):
        async with reopen() as store:
            await store.commit(BOT, [Enqueue(outbox_row("a", caused_by=ANN))])
            await store.forget(ANN)

            row = await store.row(BOT, ActionKey("a"))
            assert (row.status, row.reason) == (RowStatus.FAILED, "erased: the person was forgotten")
            assert await store.pending(BOT) == []

    async def test_a_user_is_erased_from_the_rows_of_every_bot_that_name_them(self, reopen):
        add = AddParticipants((Participant(ANN, "Ann"), Participant(BOB, "Bob")))

        async with reopen() as store:
            await store.commit(BOT, [Enqueue(outbox_row("add", action=add))])
            await store.commit(OTHER_BOT, [Enqueue(outbox_row("topic", action=UpdateTopic(f"about {ANN}")))])
            await store.commit(OTHER_BOT, [Enqueue(outbox_row("other", f"{ANN}abel and {ANN}-x"))])
            await store.commit(OTHER_BOT, [SettleRow(ActionKey("topic"), RowStatus.FAILED, reason=f"{ANN} is unknown")])

            assert await store.forget(ANN) == 2
            assert (await store.row(BOT, ActionKey("add"))).action == AddParticipants((Participant(BOB, "Bob"),))
            topic = await store.row(OTHER_BOT, ActionKey("topic"))
            assert (topic.action, topic.reason) == (UpdateTopic(""), "erased: the person was forgotten")
            assert [row.key for row in await store.pending(OTHER_BOT)] == ["other"]

    async def test_dead_letters_that_contain_anything_of_an_erased_user_are_dropped(self, reopen):
        async with reopen() as store:
            await store.commit(BOT, [SaveDeadLetter(letter("said"))])
            await store.commit(OTHER_BOT, [SaveDeadLetter(replace(letter("told", error=f"{BOB} is gone"), event=LEFT))])

            assert await store.forget(BOB) == 1
            assert await store.dead_letters(OTHER_BOT) == []
            assert await store.dead_letters(BOT) == [letter("said")]
            assert await store.forget(ANN) == 1
            assert await store.dead_letters(BOT) == []

    async def test_actions_that_hold_no_words_are_still_carried_out(self, reopen):
        delete = outbox_row("a", action=DeleteMessage(MessageId("8")), caused_by=ANN)

        async with reopen() as store:
            await store.commit(BOT, [Enqueue(delete)])
            await store.commit(BOT, [Enqueue(outbox_row("b", action=RemoveParticipant(ANN)))])
            await store.commit(
                BOT, [Enqueue(outbox_row("c", action=EditMessage(MessageId("8"), "Ann!"), caused_by=ANN))]
            )

            assert await store.forget(ANN) == 3
            assert [(row.action, row.caused_by) for row in await store.pending(BOT)] == [(delete.action, None)]

    @pytest.mark.parametrize("is_known_by_the_dead_letter", [True, False])
    async def test_a_dead_letter_of_a_failed_reply_is_erased_with_the_user_it_may_quote(
        self, reopen, is_known_by_the_dead_letter
    ):
        failed = ActionFailed(
            bot=BOT,
            thread=HALL,
            occurred_on=NOON,
            action=SendMessage("you said ill"),
            action_key=ActionKey("a"),
            reason="no",
        )
        hers = replace(letter("1"), event=failed, caused_by=ANN if is_known_by_the_dead_letter else None)
        other = replace(failed, action_key=ActionKey("b"))
        others = [] if is_known_by_the_dead_letter else [Enqueue(outbox_row("a", "you said ill", caused_by=ANN))]
        async with reopen() as store:
            await store.commit(BOT, [*others, Enqueue(outbox_row("b", "for Bob", caused_by=BOB))])
            await store.commit(
                BOT, [SaveDeadLetter(hers), SaveDeadLetter(replace(hers, id="2", event=other, caused_by=BOB))]
            )

            await store.forget(ANN)
        async with reopen() as store:
            assert [(one.id, one.caused_by) for one in await store.dead_letters(BOT)] == [("2", BOB)]

    async def test_a_result_that_came_of_what_they_said_keeps_its_key_alone(self, reopen):
        async with reopen() as store:
            await store.commit(
                BOT,
                [SaveResult("hers", '"ill"', 5, ANN), SaveResult("his", '"well"', 5, BOB), SaveResult("all", "1", 5)],
            )

            assert await store.forget(ANN) == 1
            assert await store.forget(ANN) == 0
        async with reopen() as store:
            assert await store.result(BOT, "hers") == "erased"
            assert await store.result(BOT, "his") == '"well"'
            assert await store.result(BOT, "all") == "1"

    async def test_an_export_shows_exactly_the_records_that_forgetting_changes(self, reopen):
        failed = ActionFailed(
            bot=BOT, thread=HALL, occurred_on=NOON, action=SendMessage("x"), action_key=ActionKey("a"), reason="no"
        )
        async with reopen() as store:
            await store.commit(BOT, [Enqueue(outbox_row("a", "Ann is ill", caused_by=ANN))])
            await store.commit(OTHER_BOT, [Enqueue(outbox_row("b", f"about {ANN}")), Enqueue(outbox_row("c", "Bob"))])
            await store.commit(OTHER_BOT, [Enqueue(outbox_row("d", f"{ANN}abel"))])
            await store.commit(BOT, [SaveDeadLetter(letter("1")), SaveDeadLetter(replace(letter("2"), event=failed))])
            await store.commit(BOT, [SaveResult("hers", '"ill"', 5, ANN), SaveResult("his", '"well"', 5, BOB)])

            shown = await store.about(ANN)

            assert sorted((one.bot, one.kind) for one in shown) == [
                (BOT, "action"),
                (BOT, "dead letter"),
                (BOT, "dead letter"),
                (BOT, "result"),
                (OTHER_BOT, "action"),
            ]
            assert await store.forget(ANN) == len(shown)
            assert await store.about(ANN) == []
