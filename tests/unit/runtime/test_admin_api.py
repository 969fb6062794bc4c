"""What the caretaker answers over a store that no bot runs on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from chatbot.actions import ActionKey, SendMessage
from chatbot.errors import StateError, UnknownName
from chatbot.events import ActionFailed, MessageReceived
from chatbot.model import ChatMessage, MessageId, MessageType, ThreadId, UserId
from chatbot.runtime import admin_api as module
from chatbot.runtime.admin_api import AdminApi
from chatbot.stores import MemoryStore
from chatbot.stores.records import BotRecord, DeadLetter, ThreadRecord
from chatbot.stores.writes import SaveBot, SaveDeadLetter, SaveThread

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
HALL, YARD = ThreadId("19:hall@thread.v2"), ThreadId("19:yard@thread.v2")
DESK = BotRecord("desk", "contoso", UserId("8:acs:desk"), 0)
DICE = BotRecord("dice", "contoso", UserId("8:acs:dice"), 0)
ANN = UserId("8:acs:ann")


def letter(id: str, thread: ThreadId = HALL, *, bot: BotRecord = DESK, died_ms: int = 0) -> DeadLetter:
    message = ChatMessage(
        id=MessageId("1000"), version=1000, type=MessageType.TEXT, created_on=NOON, content="my secret", sender=ANN
    )
    event = MessageReceived(bot=bot.user, occurred_on=NOON, thread=thread, message=message)
    return DeadLetter(id, event, "plugins.desk.answer", "ValueError: cannot digest my secret", 3, died_ms)


@pytest.fixture
async def store() -> AsyncIterator[MemoryStore]:
    """Two bots: the desk is in the hall and was in the yard, and each has letters."""
    async with MemoryStore() as opened:
        for bot in (DESK, DICE):
            threads = [SaveThread(ThreadRecord(HALL, 0, 0)), SaveThread(ThreadRecord(YARD, 0, 0, is_left=True))]
            await opened.commit(bot.user, [SaveBot(bot), *threads])
        await opened.commit(DESK.user, [SaveDeadLetter(letter("b", died_ms=2)), SaveDeadLetter(letter("c", YARD))])
        await opened.commit(DICE.user, [SaveDeadLetter(letter("a", bot=DICE, died_ms=1))])
        yield opened


async def ids(store: MemoryStore, **more: str) -> list[str]:
    answer = await AdminApi(store).answer({"ask": "dead-letters list", **more})
    return [one["id"] for one in answer["letters"]]


async def test_dead_letters_of_all_bots_or_of_one_are_listed_oldest_first(store: MemoryStore) -> None:
    assert await ids(store) == ["c", "a", "b"]
    assert await ids(store, bot="dice") == ["a"]


async def test_the_list_of_dead_letters_quotes_nobody_and_a_single_one_is_shown_whole(store: MemoryStore) -> None:
    listed = await AdminApi(store).answer({"ask": "dead-letters list"})
    shown = await AdminApi(store).answer({"ask": "dead-letters show", "id": "b"})

    assert "secret" not in str(listed)
    assert ANN not in str(listed)
    assert shown["letter"]["text"] == "my secret"
    assert shown["letter"]["sender"] == ANN
    assert shown["letter"]["error"] == "ValueError: cannot digest my secret"


async def test_of_very_many_dead_letters_the_latest_are_listed(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_LISTED", 2)

    answer = await AdminApi(store).answer({"ask": "dead-letters list"})

    assert ([one["id"] for one in answer["letters"]], answer["left_out"]) == (["a", "b"], 1)


async def test_a_refused_action_is_shown_with_what_it_would_have_said(store: MemoryStore) -> None:
    failed = ActionFailed(
        bot=DESK.user,
        occurred_on=NOON,
        thread=HALL,
        action=SendMessage("good day"),
        action_key=ActionKey("k"),
        reason="400",
    )
    await store.commit(DESK.user, [SaveDeadLetter(replace(letter("d"), event=failed))])

    shown = (await AdminApi(store).answer({"ask": "dead-letters show", "id": "d"}))["letter"]

    assert (shown["event"], shown["wish"], shown["text"]) == ("ActionFailed", "SendMessage", "good day")


async def test_retries_are_marked_for_the_next_start_except_where_the_bot_has_left(store: MemoryStore) -> None:
    answer = await AdminApi(store).answer({"ask": "dead-letters retry", "id": "all", "bot": "desk"})

    outcomes = {one["id"]: one["outcome"] for one in answer["letters"]}
    assert outcomes == {"b": "at the next start", "c": "not in the thread"}
    assert {one.id: one.is_revived for one in await store.dead_letters(DESK.user)} == {"b": True, "c": False}


async def test_dropping_a_dead_letter_leaves_the_others(store: MemoryStore) -> None:
    await AdminApi(store).answer({"ask": "dead-letters drop", "id": "a"})

    assert await ids(store) == ["c", "b"]


async def test_forgetting_says_how_much_it_erased(store: MemoryStore) -> None:
    answer = await AdminApi(store).answer({"ask": "state forget", "user": ANN})

    assert answer == {"records": 3, "is_complete": True}
    assert await ids(store) == []


@pytest.mark.parametrize(
    "question",
    [
        {"ask": "dead-letters show", "id": "nope"},
        {"ask": "dead-letters show", "id": "all"},
        {"ask": "dead-letters show", "id": "b", "bot": "dice"},
        {"ask": "dead-letters retry", "id": ""},
        {"ask": "dead-letters list", "bot": "nope"},
        {"ask": "state forget", "user": "Ann"},
        {"ask": "state forget", "user": ""},
        {"ask": "state forget", "user": "8:acs:a\nb"},
        {"ask": "state forget", "user": DESK.user},
    ],
)
async def test_names_that_nothing_has_are_refused(store: MemoryStore, question: dict[str, object]) -> None:
    with pytest.raises(UnknownName):
        await AdminApi(store).answer(question)

    assert len(await ids(store)) == 3


@pytest.mark.parametrize(
    "question",
    [
        {},
        {"ask": "stop"},
        {"ask": None},
        {"ask": ["dead-letters list"]},
        {"ask": "dead-letters list", "bot": 7},
        {"ask": "dead-letters list", "bot": []},
        {"ask": "dead-letters show"},
        {"ask": "dead-letters drop", "id": {"all": 1}},
        {"ask": "state forget", "user": None},
    ],
)
async def test_what_is_no_question_is_refused(store: MemoryStore, question: dict[str, object]) -> None:
    with pytest.raises(StateError):
        await AdminApi(store).answer(question)

    assert len(await ids(store)) == 3
