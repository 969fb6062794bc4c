"""Dialogs: asked and answered over restarts, in the right order, and never twice."""

from __future__ import annotations

from typing import Any

import pytest

from chatbot import PASS, Context, Dialog, DialogCancelled, Participant, ParticipantsAdded, Pass, Plugin, PluginError
from chatbot.testing import EventStream, chat
from tests.flow.dialogs import hello, plugin_of


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
async def test_a_dialog_belongs_to_one_user_in_one_thread() -> None:
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
async def test_a_dialog_that_is_begun_again_starts_over() -> None:
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
async def test_a_dialog_asks_nothing_more_after_its_cancellation() -> None:
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
async def test_a_restarted_dialog_replaces_the_old_one_even_if_it_fails_at_first() -> None:
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


async def looks_up(answer: str) -> int:
    return 7


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    ("question", "problem"),
    [
        ({"timeout": 5}, r"timeout=5 is not a time; write timeout=timedelta\(seconds=60\)"),
        ({"validate": 42}, "validate=42 cannot be called; write a function"),
        ({"validate": looks_up}, "validate= is async; write a plain function"),
        ({"choices": []}, r"there is nothing to choose from in 'Which\?': choices= is empty"),
    ],
)
async def test_a_question_that_cannot_be_asked_so_says_what_is_wrong(question: dict[str, Any], problem: str) -> None:
    async def wonder(talk: Dialog) -> None:
        await talk.ask("Which?", **question)

    async with chat(plugin_of(wonder)) as room:
        with pytest.raises((TypeError, ValueError), match=problem):
            await room.user("Ann").says("/talk")
