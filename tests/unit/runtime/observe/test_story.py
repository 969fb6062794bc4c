"""The story of an event, as the playground shows it: recorded only where it is asked for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from chatbot.runtime.observe.story import MAX_STORIES, Stories, StoryTracer
from chatbot.stores import MemoryStore
from tests.support.assembled import assembled

pytestmark = pytest.mark.virtual_time

PLUGIN = """
from dataclasses import dataclass
from datetime import timedelta

from chatbot import Context, Dialog, MessageEdited, Plugin, Retry, State, text

plugin = Plugin("p")
is_repaired = False


@dataclass
class Total:
    sum: int = 0


@plugin.command("add")
async def add(ctx: Context, total: State[Total], amount: int) -> str:
    total.value = Total(total.value.sum + amount)
    return f"now {total.value.sum}"


@plugin.command("boom", retry=Retry(2, first=timedelta(seconds=1)))
async def boom(ctx: Context) -> None:
    if is_repaired:
        return
    raise ValueError("secret words")


@plugin.command("ask")
async def ask(talk: Dialog) -> None:
    await talk.ask("Which?")


@plugin.on(MessageEdited)
async def edited(ctx: Context[MessageEdited]) -> None: ...


@plugin.message(text("never"))
async def never(ctx: Context) -> None: ...


@plugin.message()
async def echo(ctx: Context) -> str:
    return ctx.text
"""


def of(stories: Stories, text: str) -> dict[str, Any]:
    """The story of a message, which must be there."""
    (found,) = [story for story in stories.all() if story.get("text") == text]
    return found


def steps(story: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [step for step in story["steps"] if step["kind"] == kind]


async def test_a_story_tells_everything_from_the_poll_to_the_receipt(tmp_path: Path) -> None:
    stories = Stories()
    async with assembled(tmp_path, PLUGIN, stories=stories) as bot:
        await bot.say("/add 2")
        message = await bot.say("/add 40")

    story = of(stories, "/add 40")
    assert story["message"] == message
    assert story["handler"].endswith(".add")
    assert story["place"].rpartition(":")[2].isdecimal()
    kinds = [step["kind"] for step in story["steps"]]
    first = ("poll", "attempt", "chosen", "handler", "commit", "action")
    assert [kind for kind in kinds if kind in first] == list(first)
    assert steps(story, "chosen")[0]["arguments"] == {"amount": "40"}
    (change,) = steps(story, "commit")[0]["changes"]
    assert (change["before"]["sum"], change["after"]["sum"]) == (2, 42)
    assert steps(story, "action")[0]["values"]["content"] == "now 42"
    assert "error" not in steps(story, "sent")[0]
    assert {call["operation"]: call["outcome"] for call in steps(story, "call")}["send_message"] == "ok"
    assert {call["operation"]: call["quota_left"] for call in steps(story, "call")}["send_message"] < 10
    assert steps(story, "receipt")


async def test_a_story_says_why_the_other_handlers_did_not_take_the_event(tmp_path: Path) -> None:
    stories = Stories()
    async with assembled(tmp_path, PLUGIN, stories=stories) as bot:
        await bot.say("hello")

    story = of(stories, "hello")
    others = {other["handler"].rpartition(".")[2]: other["reason"] for other in story["others"]}
    (skipped,) = steps(story, "skipped")
    assert skipped["handler"].endswith(".never")
    assert "does not match" in skipped["reason"]
    assert others["add"] == "the message does not begin with /add"
    assert others["edited"] == "takes MessageEdited"
    assert "echo" not in others


MUTE = """
from enum import Enum

from chatbot import Context, Filter, Plugin

plugin = Plugin("p")


class Color(Enum):
    RED = "red"

    def __repr__(self) -> str:
        raise SystemExit


class Never(Filter):
    def match(self, view: object) -> None:
        return None

    __repr__ = Color.__repr__


@plugin.command("paint")
async def paint(ctx: Context, color: Color) -> str:
    return color.value


@plugin.message(Never())
async def never(ctx: Context) -> None: ...


@plugin.message()
async def echo(ctx: Context) -> str:
    return ctx.text
"""


async def test_a_story_goes_without_the_text_of_what_has_none(tmp_path: Path) -> None:
    stories = Stories()
    async with assembled(tmp_path, MUTE, stories=stories) as bot:
        await bot.say("/paint red")
        await bot.say("hi")

    assert steps(of(stories, "/paint red"), "chosen")[0]["arguments"] == {"color": "<Color>"}
    assert "<Never>" in steps(of(stories, "hi"), "skipped")[0]["reason"]


async def test_a_failing_handler_leaves_its_traceback_its_retries_and_its_dead_letter(tmp_path: Path) -> None:
    stories = Stories()
    async with assembled(tmp_path, PLUGIN, stories=stories) as bot:
        await bot.say("/boom")

    story = of(stories, "/boom")
    assert [step["number"] for step in steps(story, "attempt")] == [1, 2]
    assert steps(story, "retry")[0]["pause"] > 0
    failed = steps(story, "handler")
    assert [step["error"] for step in failed] == ["ValueError", "ValueError"]
    assert "raise ValueError" in failed[0]["traceback"]
    assert "dispatcher.py" not in failed[0]["traceback"]
    assert story["dead_letter"]


async def test_a_retry_that_succeeds_ends_the_dead_letter_of_the_story(tmp_path: Path) -> None:
    stories = Stories()
    async with assembled(tmp_path, PLUGIN, stories=stories) as bot:
        await bot.say("/boom")
        bot.plugin.is_repaired = True
        (letter,) = await bot.store.dead_letters(bot.bot.user)
        assert await bot.bot.retry_letter(letter)
        await bot.say("go on")

    assert "dead_letter" not in of(stories, "/boom")


async def test_a_dialog_shows_its_journal(tmp_path: Path) -> None:
    stories = Stories()
    async with assembled(tmp_path, PLUGIN, stories=stories) as bot:
        await bot.say("/ask")

    (change,) = steps(of(stories, "/ask"), "commit")[0]["changes"]
    assert change["kind"] == "dialog"
    assert change["state"] == "waits"
    assert "began" in str(change["journal"])


async def test_a_lost_answer_is_seen_to_be_proved_by_reading(tmp_path: Path) -> None:
    stories = Stories()
    async with assembled(tmp_path, PLUGIN, stories=stories) as bot:
        bot.emulator.faults.add(f"send_message:reset-after,times=1,user={bot.bot.user}")
        await bot.say("hello")

    story = of(stories, "hello")
    assert "OutcomeUnknown" in steps(story, "sent")[0]["error"]
    assert steps(story, "settled")[0]["status"] == "done"


async def test_a_story_names_its_trace_where_there_are_traces(tmp_path: Path) -> None:
    provider = pytest.importorskip("opentelemetry.sdk.trace").TracerProvider()
    stories = Stories()
    async with assembled(tmp_path, PLUGIN, stories=stories, traces=provider) as bot:
        await bot.say("hello")

    assert re.fullmatch(r"[0-9a-f]{32}", of(stories, "hello")["trace"])


async def test_without_a_playground_no_story_is_recorded_and_nothing_is_wrapped(tmp_path: Path) -> None:
    async with assembled(tmp_path, PLUGIN) as bot:
        context = bot.bot.context
        assert not isinstance(context.tracer, StoryTracer)
        assert context.tracer.considered is None
        assert isinstance(context.store, MemoryStore)


async def test_only_the_latest_stories_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatbot.runtime.observe.story.MAX_STORIES", 3)
    assert MAX_STORIES > 3
    stories = Stories()
    async with assembled(tmp_path, PLUGIN, stories=stories) as bot:
        for number in range(5):
            await bot.say(f"line {number}")

        kept = [story["text"] for story in stories.all()]
    assert kept == ["line 2", "line 3", "line 4"]
