"""Calls of a context or dialog whose coroutine nobody awaits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from chatbot import Context, Dialog
from chatbot.plugin.lint import unawaited

# mypy: disable-error-code="unused-coroutine, assignment, operator, str-bytes-safe"
# ruff: noqa: F841


async def stands_alone(talk: Dialog) -> None:
    talk.say("hi")


async def assigned(talk: Dialog) -> str:
    name = talk.ask("Name?")
    return f"hi {name}"


async def annotated(talk: Dialog) -> str:
    name: Any = talk.ask("Name?")
    return f"hi {name}"


async def walrus(talk: Dialog) -> str:
    if name := talk.ask("Name?"):
        return f"hi {name}"
    return ""


async def condition(talk: Dialog) -> str:
    if talk.confirm("Sure?"):
        return "yes"
    return "no"


async def formatted(talk: Dialog) -> str:
    return f"hi {talk.ask('Name?')}"


async def compared(talk: Dialog) -> bool:
    return talk.ask("Name?") == "Ann"


async def chosen(talk: Dialog) -> str:
    name: Any = talk.ask("Name?") if talk.user else ""
    return f"hi {name}"


async def converted(talk: Dialog) -> str:
    age: Any = talk.ask("Age?")
    return str(int(age) + 1)


async def in_a_context(ctx: Context) -> None:
    sent: Any = ctx.reply("hi")


MISTAKES = [
    stands_alone, assigned, annotated, walrus, condition, formatted, compared, chosen, converted, in_a_context,
]  # fmt: skip


async def awaited(talk: Dialog) -> str:
    return await talk.ask("Name?")


async def awaited_later(talk: Dialog) -> str:
    question = talk.ask("Name?")
    return await question


async def gathered(ctx: Context) -> None:
    first = ctx.reply("a")
    await asyncio.gather(first, ctx.reply("b"), *[ctx.reply(text) for text in "cd"])


async def in_a_task(ctx: Context) -> None:
    task = asyncio.create_task(ctx.reply("a"))
    await task


async def conditional(talk: Dialog) -> str:
    return await (talk.ask("Name?") if talk.user else talk.ask("Who?"))


async def no_coroutine(ctx: Context) -> str:
    text = ctx.text
    return f"hi {text}"


RIGHT = [awaited, awaited_later, gathered, in_a_task, conditional, no_coroutine]


@pytest.mark.parametrize("handler", MISTAKES, ids=lambda function: function.__name__)
def test_a_coroutine_that_is_used_as_a_value_is_found(handler: Any) -> None:
    assert len(list(unawaited(handler, is_dialog=handler is not in_a_context))) == 1


@pytest.mark.parametrize("handler", RIGHT, ids=lambda function: function.__name__)
def test_a_coroutine_that_may_be_awaited_is_none(handler: Any) -> None:
    assert list(unawaited(handler, is_dialog="talk" in handler.__annotations__)) == []
