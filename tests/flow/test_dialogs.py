"""Dialogs: asked and answered over restarts, in the right order, and never twice."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from chatbot import (
    PASS,
    Context,
    Dialog,
    DialogCancelled,
    DialogTimeout,
    Participant,
    ParticipantsAdded,
    Pass,
    Plugin,
    PluginError,
    Retry,
    State,
)
from chatbot.stores import MemoryStore
from chatbot.stores.base import ReviveDeadLetter
from chatbot.testing import EventStream, chat


def plugin_of(function: Callable[..., Awaitable[object]], **options: object) -> Plugin:
    """A plugin with this dialog as /talk, a /time command, and an echo for all that no dialog takes."""
    plugin = Plugin("dialogs", **options)  # type: ignore[arg-type]
    plugin.command("talk", retry=Retry(attempts=2))(function)  # type: ignore[arg-type]

    @plugin.command("time")
    async def tell_time(ctx: Context) -> str:
        return "late"

    @plugin.message()
    async def echo(ctx: Context) -> str:
        return f"echo {ctx.text}"

    return plugin


async def hello(talk: Dialog) -> str:
    name = await talk.ask("What is your name?")
    await talk.say(f"Hi {name}!")
    color = await talk.ask("And your color?")
    return f"{name} likes {color}."


@pytest.mark.virtual_time
async def test_a_dialog_asks_waits_and_goes_on() -> None:
    async with chat(plugin_of(hello)) as room:
        await room.user("Ann").says("/talk", "Ann", "red", "more")

        assert room.replies == ["What is your name?", "Hi Ann!", "And your color?", "Ann likes red.", "echo more"]


@pytest.mark.virtual_time
async def test_a_dialog_goes_on_after_the_process_was_killed_wherever_it_was() -> None:
    async with chat(plugin_of(hello)) as room:
        ann = room.user("Ann")
        for text in ("/talk", "Ann", "red"):
            await ann.says(text)
            await room.restart()

        assert room.replies == ["What is your name?", "Hi Ann!", "And your color?", "Ann likes red."]


@pytest.mark.virtual_time
async def test_a_dialog_is_one_persons_in_one_thread() -> None:
    async with chat(plugin_of(hello)) as room:
        ann, bob = room.user("Ann"), room.user("Bob")
        await ann.says("/talk")
        await bob.says("/talk", "hi")
        await room.another().user("Ann").says("elsewhere")
        await ann.says("Ann")

        assert room.replies[2:] == ["Hi hi!", "And your color?", "Hi Ann!", "And your color?"]


@pytest.mark.virtual_time
async def test_a_command_leaves_a_dialog_pending() -> None:
    async with chat(plugin_of(hello)) as room:
        await room.user("Ann").says("/talk", "/time", "Ann")

        assert room.replies[:3] == ["What is your name?", "late", "Hi Ann!"]


@pytest.mark.virtual_time
async def test_a_dialog_that_is_begun_again_begins_anew() -> None:
    async with chat(plugin_of(hello)) as room:
        await room.user("Ann").says("/talk", "Ann", "/talk", "Bob", "red", "more")

        assert room.replies[3:] == ["What is your name?", "Hi Bob!", "And your color?", "Bob likes red.", "echo more"]


@pytest.mark.virtual_time
async def test_of_two_dialogs_the_one_that_asked_last_gets_the_answer() -> None:
    plugin = plugin_of(hello)

    @plugin.command("other")
    async def other(talk: Dialog) -> str:
        return f"other {await talk.ask('Other?')}"

    async with chat(plugin) as room:
        await room.user("Ann").says("/talk", "/other", "one", "two")

        assert room.replies == ["What is your name?", "Other?", "other one", "Hi two!", "And your color?"]


@pytest.mark.virtual_time
async def test_whoever_cancels_is_asked_no_more() -> None:
    async with chat(plugin_of(hello)) as room:
        await room.user("Ann").says("/talk", "Cancel!", "Ann", "cancel")

        assert room.replies == ["What is your name?", "Cancelled.", "echo Ann", "echo cancel"]


@pytest.mark.virtual_time
async def test_a_plugin_has_its_own_words_for_cancelling_and_a_dialog_its_own_end() -> None:
    async def order(talk: Dialog) -> str:
        try:
            return await talk.ask("Quoi?")
        except DialogCancelled:
            await talk.say("Dommage.")
            return f"Ou bien: {await talk.ask('Autre chose?')}"

    async with chat(plugin_of(order, cancel_words=["annuler"])) as room:
        await room.user("Ann").says("/talk", "Annuler", "cancel")

        assert room.replies == ["Quoi?", "Dommage.", "Autre chose?", "Ou bien: cancel"]


@pytest.mark.virtual_time
async def test_choices_and_validated_answers_are_asked_for_until_they_fit() -> None:
    def small(text: str) -> int:
        number = int(text)
        if number > 9:
            problem = f"{number} is too much."
            raise ValueError(problem)
        return number

    async def order(talk: Dialog) -> str:
        size = await talk.ask("Which size?", choices=["small", "large"])
        count = await talk.ask("How many?", validate=small)
        price = await talk.ask("How much each?", validate=float)
        if not await talk.confirm("Really?"):
            return "Then not."
        return f"{count} {size} for {count * price}"

    async with chat(plugin_of(order)) as room:
        await room.user("Ann").says("/talk", "huge", "L", "10", "3", "cheap", "1.5", "maybe", "Yes!")

        assert room.replies == [
            "Which size? (small / large)",
            "Please answer with one of these: small, large.",
            "How many?",
            "10 is too much.",
            "How much each?",
            "Sorry, I did not understand that.",
            "Really? (yes / no)",
            "Please answer with yes or no.",
            "3 large for 4.5",
        ]


@pytest.mark.virtual_time
async def test_arguments_filters_and_nested_dialogs_are_as_elsewhere() -> None:
    async def address(talk: Dialog) -> str:
        street = await talk.ask("Street?")
        return f"{street}, {await talk.ask('Town?')}"

    async def send(talk: Dialog, item: str, count: int = 1) -> str:
        return f"{count} {item} to {await address(talk)} for {talk.event.message.sender_display_name}"

    async with chat(plugin_of(send)) as room:
        await room.user("Ann").says("/talk", "/talk books 2", "Main St 1", "Rome")

        assert "ITEM is missing" in room.replies[0]
        assert room.replies[1:] == ["Street?", "Town?", "2 books to Main St 1, Rome for Ann"]


@pytest.mark.virtual_time
async def test_a_message_handler_may_hold_a_dialog_or_pass() -> None:
    plugin = Plugin("messages")

    @plugin.message()
    async def first(talk: Dialog) -> str | Pass:
        if talk.event.message.content == "pass":
            return PASS
        return f"first {await talk.ask('First?')}"

    @plugin.message()
    async def second(ctx: Context) -> str:
        return "second"

    async with chat(plugin) as room:
        await room.user("Ann").says("pass", "a", "pass", "b")

        assert room.replies == ["second", "First?", "first pass", "First?"]


@pytest.mark.virtual_time
async def test_a_dialog_that_has_asked_passes_to_nobody() -> None:
    plugin = Plugin("messages")

    @plugin.message()
    async def first(talk: Dialog) -> Pass:
        await talk.ask("First?")
        return PASS

    @plugin.message()
    async def second(ctx: Context) -> str:
        return "second"

    async with chat(plugin) as room:
        await room.user("Ann").says("a", "b")

        assert room.replies == ["First?"]


@pytest.mark.virtual_time
async def test_a_dialog_begun_anew_replaces_the_old_one_also_if_it_fails_at_first() -> None:
    troubles = ["first", "second"]

    async def order(talk: Dialog) -> str:
        number = await talk.run(len, talk.event.message.id)
        if len(troubles) == 1:
            raise RuntimeError(troubles.pop())
        return f"{number > 0} {await talk.ask('Which?')}"

    async with chat(plugin_of(order), raise_failures=False) as room:
        ann = room.user("Ann")
        await ann.says("/talk")
        troubles.pop()
        await ann.says("/talk", "this", "more")

        assert room.replies == ["Which?", "Which?", "True this", "echo more"]


# ── effects and state ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.virtual_time
async def test_what_is_run_is_run_once_whatever_happens_and_gives_the_same_in_every_run() -> None:
    charges: list[int] = []
    crashes = ["once"]

    async def charge(amount: int) -> int:
        charges.append(amount)
        return len(charges)

    async def pay(talk: Dialog) -> str:
        lucky = await talk.run(random.randint, 1, 10**9)
        first = await talk.now()
        await talk.say("charging")
        bill = await talk.run(charge, lucky)
        if crashes:
            raise RuntimeError(crashes.pop())
        answer = await talk.ask(f"{lucky} at {first:%H:%M}?")
        return f"{answer} {bill} {charges == [lucky]} {first.isoformat()}"

    async with chat(plugin_of(pay), raise_failures=False) as room:
        ann = room.user("Ann")
        await ann.says("/talk")
        await room.restart()
        await room.advance(hours=3)
        await ann.says("ok")

        assert room.replies[0] == "charging"
        assert room.replies[1].endswith("at 00:00?")
        assert room.replies[2].startswith("ok 1 True 2024-01-01T00:00")
        assert len(room.replies) == 3
        assert len(charges) == 1


@dataclass
class Cart:
    items: list[str] = field(default_factory=list)


@pytest.mark.virtual_time
async def test_a_dialog_reads_state_as_it_was_and_changes_it_once() -> None:
    seen: list[list[str]] = []

    async def shop(talk: Dialog, cart: State[Cart]) -> str:
        before = list(cart.value.items)
        cart.value.items.append("bag")
        more = await talk.ask(f"You have {before}. What more?")
        cart.value.items.append(more)
        last = await talk.ask(f"And to {before}?")
        cart.value.items.append(last)
        seen.append(before)
        return f"{cart.value.items}"

    plugin = plugin_of(shop)

    @plugin.command("add")
    async def add(ctx: Context, item: str, cart: State[Cart]) -> None:
        cart.value.items.append(item)

    async with chat(plugin) as room:
        ann, bob = room.user("Ann"), room.user("Bob")
        await ann.says("/talk")
        await bob.says("/add pear")
        await room.restart()
        await ann.says("fig")
        await bob.says("/add plum")
        await ann.says("date")

        assert room.replies == ["You have []. What more?", "And to []?", "['bag', 'pear', 'fig', 'plum', 'date']"]
        assert seen == [[]]


# ── time ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def patient(talk: Dialog) -> str:
    try:
        answer = await talk.ask("Still there?", timeout=timedelta(minutes=10))
    except DialogTimeout:
        answer = await talk.ask("Hello?", timeout=timedelta(minutes=10))
    return f"{answer} {talk.user == talk.event.message.sender}"


@pytest.mark.virtual_time
async def test_a_question_times_out_also_while_the_bot_is_down_and_the_next_one_on_its_own() -> None:
    async with chat(plugin_of(patient)) as room:
        ann = room.user("Ann")
        await ann.says("/talk")
        await room.advance(minutes=9)
        assert room.replies == ["Still there?"]
        await room.kill()
        await room.advance(minutes=5)
        await room.start()
        assert room.replies == ["Still there?", "Hello?"]
        await room.advance(minutes=11)
        await ann.says("late")

        assert room.replies[2:] == ["No answer came in time, so I have stopped waiting for one.", "echo late"]


@pytest.mark.virtual_time
async def test_an_answer_in_time_is_not_overtaken_by_the_end_of_the_wait() -> None:
    async with chat(plugin_of(patient)) as room:
        ann = room.user("Ann")
        await ann.says("/talk")
        await room.kill()
        await ann.says("here")
        await room.advance(minutes=30)
        await room.start()
        await room.advance(minutes=30)

        assert room.replies == ["Still there?", "here True"]


# ── what can go wrong ─────────────────────────────────────────────────────────────────────────────────────────────


LOST = "Sorry, I have lost the thread of our conversation. Please begin it again."


async def asks_other(talk: Dialog) -> str:
    return await talk.ask("What is your shoe size?")


async def runs_first(talk: Dialog) -> str:
    await talk.run(len, "abc")
    return await talk.ask("What is your name?")


async def ends(talk: Dialog) -> str:
    return "never asked"


async def swallows(talk: Dialog) -> str:
    try:
        return await talk.ask("What else?")
    except Exception:
        return "swallowed"


@pytest.mark.parametrize("then", [asks_other, runs_first, ends, swallows, None])
@pytest.mark.virtual_time
async def test_a_dialog_whose_code_was_changed_ends_as_a_dead_letter_with_a_word_to_the_person(then) -> None:
    code = [hello]

    async def talk(talk: Dialog) -> str:
        return await code[0](talk)

    plugins = [plugin_of(talk)]
    store = MemoryStore()
    async with chat(plugins[0], store=store, raise_failures=False) as room:
        ann = room.user("Ann")
        await ann.says("/talk")
        if then is None:
            plugins[0]._parts.pop(0)
            await room.restart()
        else:
            code[0] = then
        await ann.says("Ann", "more")

        assert room.replies == ["What is your name?", LOST, "echo more"]
        (letter,) = await store.dead_letters(room.bot.user)
        assert letter.error.startswith("DialogDiverged: the dialog ")
        assert "put the code back and revive this letter" in letter.error


@pytest.mark.virtual_time
async def test_a_dead_letter_of_a_dialog_goes_on_where_it_was_once_the_code_is_mended() -> None:
    broken = ["still"]
    charges: list[str] = []

    async def pay(talk: Dialog) -> str:
        name = await talk.ask("Name?")
        await talk.run(charges.append, name)
        if broken:
            raise RuntimeError(broken[0])
        return f"{name} {await talk.ask('More?')}"

    store = MemoryStore()
    async with chat(plugin_of(pay), store=store, raise_failures=False) as room:
        ann = room.user("Ann")
        await ann.says("/talk", "Ann", "between")
        broken.clear()
        (letter,) = await store.dead_letters(room.bot.user)
        await room.restart()
        await store.commit(room.bot.user, [ReviveDeadLetter(letter.id)])
        await room.restart()
        await ann.says("no")

        assert room.replies == ["Name?", "echo between", "More?", "Ann no"]
        assert charges == ["Ann"]
        assert await store.dead_letters(room.bot.user) == []


@pytest.mark.virtual_time
async def test_a_result_that_cannot_be_remembered_is_not_produced_again() -> None:
    calls: list[str] = []

    def make() -> object:
        calls.append("made")
        return object()

    async def spoil(talk: Dialog) -> None:
        await talk.run(make)

    async with chat(plugin_of(spoil), raise_failures=False) as room:
        await room.user("Ann").says("/talk")

        assert calls == ["made"]
        assert "the result of" in str(room.failures[0].error)


@pytest.mark.virtual_time
async def test_leaving_the_thread_ends_its_dialogs() -> None:
    async with chat(plugin_of(patient)) as room:
        ann = room.user("Ann")
        await ann.says("/talk")
        await ann.removes(room.bot)
        await room.advance(hours=1)
        await ann.adds(room.bot)
        await ann.says("Ann")

        assert room.replies == ["Still there?", "echo Ann"]


@pytest.mark.virtual_time
async def test_an_event_stream_holds_dialogs() -> None:
    stream = EventStream()
    ann, bob = stream.user("Ann"), stream.user("Bob")
    stream += [ann.said("/talk"), bob.said("hi"), ann.said("Ann"), ann.said("red")]

    handled = await stream.into(plugin_of(hello))

    assert handled.replies == ["What is your name?", "echo hi", "Hi Ann!", "And your color?", "Ann likes red."]


def test_dialogs_begin_with_messages_only() -> None:
    plugin = Plugin("wrong")

    async def greet(talk: Dialog) -> None: ...

    plugin.on(ParticipantsAdded)(greet)  # type: ignore[arg-type]
    with pytest.raises(PluginError, match=r"greet takes a Dialog, but it is registered for ParticipantsAdded"):
        plugin.handlers()


def test_a_dialog_takes_nobody_by_name() -> None:
    plugin = Plugin("wrong")

    @plugin.command("with")
    async def talk_with(talk: Dialog, who: Participant) -> None: ...

    with pytest.raises(PluginError, match=r"parameter 'who' of talk_with is a Participant, but a dialog outlives"):
        plugin.handlers()


def test_words_for_cancelling_are_several_texts() -> None:
    with pytest.raises(PluginError, match=r"test_dialogs\.py:\d+: cancel_words is 'stop'; give several words"):
        Plugin("wrong", cancel_words="stop")
