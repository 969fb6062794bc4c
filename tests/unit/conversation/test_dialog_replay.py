"""A dialog comes to the same end however often it is run, failed, or killed on its way."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot import BotInfo, Dialog, Plugin, SendMessage, State, UserId
from chatbot.conversation import Conversations
from chatbot.dispatch.dispatcher import Dispatcher
from chatbot.errors import StoreError
from chatbot.events import Event
from chatbot.model import ThreadId
from chatbot.stores import MemoryStore
from chatbot.stores.writes import Write
from chatbot.testing import EventStream

BOT = BotInfo("bot", UserId("8:acs:test_bot"), "Bot")

STEPS = ("ask", "say", "run", "count", "choose", "confirm", "nest")


@dataclass
class Count:
    values: list[int] = field(default_factory=list)


class Trouble(Exception):
    """Strikes wherever a dialog can be hurt."""


@dataclass
class Fate:
    """Says at which of all chances something goes wrong.

    Args:
        blows: the numbers of the chances that it takes.
    """

    blows: frozenset[int]
    chances: int = 0

    def tempt(self) -> None:
        self.chances += 1
        if self.chances in self.blows:
            raise Trouble


class FatefulStore(MemoryStore):
    """Refuses commits as fate says: before or after they are made."""

    def __init__(self, fate: Fate) -> None:
        super().__init__()
        self._fate = fate

    async def commit(
        self, bot: UserId, writes: Sequence[Write], *, shards: Collection[int] = (), notes: Sequence[str] = ()
    ) -> None:
        self._check()
        await super().commit(bot, writes, shards=shards, notes=notes)

    def _check(self) -> None:
        try:
            self._fate.tempt()
        except Trouble:
            msg = "the disk is full"
            raise StoreError(msg) from None


def talking(steps: Sequence[str], effects: list[int], fate: Fate) -> Plugin:
    """A plugin with a dialog of these steps."""
    plugin = Plugin("talking")

    def effect() -> int:
        effects.append(1)
        return 7  # and not how often: that is the one thing that trouble may change

    async def nested(talk: Dialog) -> str:
        await talk.say("nested")
        return await talk.ask("inside?")

    @plugin.command("talk")
    async def talk(talk: Dialog, count: State[Count]) -> str:
        heard = []
        for number, step in enumerate(steps):
            fate.tempt()
            if step == "ask":
                heard.append(await talk.ask(f"{number}?"))
            elif step == "say":
                await talk.say(f"{number}: {heard} {count.value.values}")
            elif step == "run":
                heard.append(str(await talk.run(effect)))
            elif step == "count":
                count.value.values.append(len(heard))
            elif step == "choose":
                heard.append(await talk.ask(f"{number}?", choices=["a1", "b2", "yes"]))
            elif step == "confirm":
                heard.append(str(await talk.confirm(f"{number}?")))
            else:
                heard.append(await nested(talk))
        return f"{heard} {count.value.values}"

    return plugin


async def tell(
    steps: Sequence[str], answers: Sequence[str], blows: frozenset[int], restarts: bool
) -> tuple[list, list]:
    """Hold the dialog; whatever fails is tried again, after a restart or without. What was said, and what was done."""
    stream = EventStream(bot=BOT)
    ann = stream.user("Ann")
    effects: list[int] = []
    fate = Fate(blows)
    store, said = FatefulStore(fate), dict[str, str]()
    plugin = talking(steps, effects, fate)
    async with store, Dispatcher([plugin], bot=BOT) as dispatcher:
        conversations = Conversations(BOT.user, store, clock=lambda: 0.0)
        for event in [ann.said("/talk"), *(ann.said(answer) for answer in answers)]:
            while not await _try(dispatcher, conversations, event, said):
                if restarts:
                    conversations = Conversations(BOT.user, store, clock=lambda: 0.0)
                    await conversations.load({})
    return list(said.values()), effects


async def _try(dispatcher: Dispatcher, conversations: Conversations, event: Event, said: dict[str, str]) -> bool:
    outcome = await dispatcher.dispatch(event, conversations.unit_of_work(event))
    if outcome.error is not None:
        assert isinstance(outcome.error, Trouble | StoreError), outcome.error
        return False
    try:
        await conversations.commit(outcome.writes)
    except StoreError:
        return False
    # The outbox sends each key once, so what is said again under the same key is not heard.
    said |= {
        keyed.key: keyed.action.content for keyed in outcome.keyed_actions if isinstance(keyed.action, SendMessage)
    }
    return True


@given(
    steps=st.lists(st.sampled_from(STEPS), max_size=7),
    answers=st.lists(st.sampled_from(["a1", "b", "yes", "maybe", "no"]), max_size=10),
    blows=st.frozensets(st.integers(1, 60), max_size=8),
    restarts=st.booleans(),
)
async def test_faults_change_nothing_but_the_duration(
    steps: list[str], answers: list[str], blows: frozenset[int], restarts: bool
) -> None:
    undisturbed, done = await tell(steps, answers, frozenset(), restarts=False)
    troubled, done_again = await tell(steps, answers, blows, restarts=restarts)

    assert troubled == undisturbed
    assert len(done) <= len(done_again) <= len(done) + len(blows)


async def test_an_effect_whose_result_could_not_be_remembered_is_done_again() -> None:
    """At least once: between the effect and its memory nobody can look."""
    _, effects = await tell(["run"], [], frozenset({2}), restarts=True)

    assert len(effects) == 2


@pytest.mark.parametrize("offset", [timedelta(0), timedelta(days=3)])
def test_the_same_event_begins_the_same_dialog(offset: timedelta) -> None:
    from chatbot.conversation.unit_of_work import new_dialog_record

    stream = EventStream(bot=BOT)
    event = stream.user("Ann").said("hi")
    now_ms = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000)
    later = replace(event, occurred_on=event.occurred_on + offset)

    assert new_dialog_record(event, "shop.order", now_ms).id == new_dialog_record(later, "shop.order", now_ms + 5).id
    assert new_dialog_record(event, "shop.other", now_ms).id != new_dialog_record(event, "shop.order", now_ms).id
    elsewhere = replace(event, thread=ThreadId("19:other@thread.v2"))
    assert new_dialog_record(elsewhere, "shop.order", now_ms).id != new_dialog_record(event, "shop.order", now_ms).id
