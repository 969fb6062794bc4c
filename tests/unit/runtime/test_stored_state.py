"""What `chatbot state` lists, shows and ends, on a store that no bot runs on and beside one that runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from chatbot.errors import StateError, UnknownName
from chatbot.events import MessageReceived
from chatbot.model import ChatMessage, MessageId, MessageType, ThreadId, UserId
from chatbot.runtime.admin_api import AdminApi
from chatbot.stores import MemoryStore
from chatbot.stores.records import BotRecord, DialogRecord, StateKey, TimerRecord
from chatbot.stores.writes import SaveBot, SaveDialog, SaveState, SetTimer
from tests.support.assembled import assembled

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
HALL = ThreadId("19:hall@thread.v2")
DESK = BotRecord("desk", "contoso", UserId("8:acs:desk"), 0)
DICE = BotRecord("dice", "contoso", UserId("8:acs:dice"), 0)
ANN, BOB = UserId("8:acs:ann"), UserId("8:acs:bob")


def begun_by(user: UserId) -> MessageReceived:
    said = ChatMessage(id=MessageId("8"), version=8, type=MessageType.TEXT, created_on=NOON, content="hi", sender=user)
    return MessageReceived(bot=DESK.user, thread=HALL, occurred_on=NOON, message=said)


@pytest.fixture
async def store() -> AsyncIterator[MemoryStore]:
    """Two bots: the desk has a state and a dialog of Ann's, a timer of Bob's and a schedule."""
    async with MemoryStore() as opened:
        event = begun_by(ANN)
        dialog = DialogRecord("d", HALL, ANN, "desk.ask", event, '["secret"]', event.key, True, None, 1000)
        await opened.commit(DICE.user, [SaveBot(DICE)])
        await opened.commit(
            DESK.user,
            [
                SaveBot(DESK),
                SaveState(StateKey("Cart", HALL, ANN), '{"item": "secret"}', None, 1),
                SaveDialog(dialog),
                SetTimer(TimerRecord("t", "desk.remind", 5000, HALL, '{"text": "secret"}', BOB)),
                SetTimer(TimerRecord("schedule:desk.tick", "desk.tick", 9000)),
            ],
        )
        yield opened


async def entries(store: MemoryStore, **more: Any) -> dict[str, dict[str, Any]]:
    answer = await AdminApi(store).answer({"ask": "state list", **more})
    return {one["name"]: one for one in answer["entries"]}


async def test_a_list_names_everything_and_quotes_nobody(store: MemoryStore) -> None:
    listed = await entries(store)

    assert {name: one["kind"] for name, one in listed.items()} == {
        "Cart": "state",
        "desk.ask": "dialog",
        "desk.remind": "timer",
        "desk.tick": "timer",
    }
    assert "secret" not in str(listed)
    assert set(await entries(store, user=ANN)) == {"Cart", "desk.ask"}
    assert set(await entries(store, thread=HALL)) == {"Cart", "desk.ask", "desk.remind"}
    assert await entries(store, bot="dice") == {}
    assert await entries(store) == listed, "ids stay the same"


async def test_each_entry_is_shown_with_its_value(store: MemoryStore) -> None:
    for name, value in (("Cart", "value"), ("desk.ask", "journal"), ("desk.remind", "payload")):
        id = (await entries(store))[name]["id"]
        shown = (await AdminApi(store).answer({"ask": "state show", "id": id}))["entry"]
        assert "secret" in str(shown[value]), name


async def test_a_dialog_and_a_timer_are_ended_alone(store: MemoryStore) -> None:
    listed = await entries(store)
    await AdminApi(store).answer({"ask": "state end-dialog", "id": listed["desk.ask"]["id"]})
    await AdminApi(store).answer({"ask": "state cancel-timer", "id": listed["desk.remind"]["id"]})

    assert set(await entries(store)) == {"Cart", "desk.tick"}


async def test_what_cannot_be_ended_is_said(store: MemoryStore) -> None:
    listed, admin = await entries(store), AdminApi(store)

    with pytest.raises(UnknownName, match="there is no dialog 'nope'; `chatbot state list` shows all"):
        await admin.answer({"ask": "state end-dialog", "id": "nope"})
    with pytest.raises(UnknownName, match="there is no timer"):
        await admin.answer({"ask": "state cancel-timer", "id": listed["desk.ask"]["id"]})
    with pytest.raises(StateError, match=r"is the next run of the schedule desk\.tick: remove the schedule from"):
        await admin.answer({"ask": "state cancel-timer", "id": listed["desk.tick"]["id"]})
    with pytest.raises(UnknownName, match="the store knows no bot 'nope'; it knows: desk, dice"):
        await admin.answer({"ask": "state list", "bot": "nope"})


async def test_an_export_holds_what_is_stored_about_a_user(store: MemoryStore) -> None:
    answer = await AdminApi(store).answer({"ask": "state export", "user": ANN})

    assert {(one["bot"], one["kind"]) for one in answer["records"]} == {("desk", "state"), ("desk", "dialog")}
    (state,) = (one for one in answer["records"] if one["kind"] == "state")
    assert state["value"] == {"item": "secret"}


PLUGIN = """
from datetime import timedelta
from chatbot import Context, Dialog, Plugin, TimerFired

plugin = Plugin("desk")

@plugin.command("hello")
async def hello(talk: Dialog) -> None:
    name = await talk.ask("Your name?")
    await talk.say(f"Hi {name}")

@plugin.command("remind")
async def remind(ctx: Context) -> str:
    await ctx.later(timedelta(minutes=1), due)
    return "I will"

@plugin.timer
async def due(ctx: Context[TimerFired]) -> str:
    return "now"

@plugin.message()
async def echo(ctx: Context) -> str:
    return f"echo {ctx.text}"
"""


@pytest.mark.virtual_time
async def test_a_running_bot_goes_on_without_the_dialog_and_the_timer_that_were_ended(tmp_path: Path) -> None:
    async with assembled(tmp_path, PLUGIN) as scene:
        await scene.say("/remind")
        await scene.say("/hello")
        admin = AdminApi(scene.store, [scene.bot])
        listed = (await admin.answer({"ask": "state list"}))["entries"]
        found = {one["kind"]: one["id"] for one in listed}
        await admin.answer({"ask": "state end-dialog", "id": found["dialog"]})
        await admin.answer({"ask": "state cancel-timer", "id": found["timer"]})

        await scene.say("Ann")
        await anyio.sleep(600)

        assert await scene.replies() == ["I will", "Your name?", "echo Ann"]
        assert (await admin.answer({"ask": "state list"}))["entries"] == []
