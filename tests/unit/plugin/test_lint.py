"""Mistakes that load: what blocks, what is never called, and what is lost."""

# ruff: noqa: ASYNC221, ASYNC230, ASYNC251

from __future__ import annotations

import subprocess
import time
import urllib.request
from datetime import timedelta
from typing import Any

import anyio.to_thread
import pytest

from chatbot import PASS, Context, Dialog, MessageReceived, Pass, Plugin, Reply, TimerFired, text
from chatbot.plugin.lint import blocking, lost_actions, unreachable


def fetch() -> bytes:
    return bytes(urllib.request.urlopen("http://127.0.0.1").read())


async def sleeps(ctx: Context) -> None:
    time.sleep(1)


async def runs(ctx: Context) -> None:
    subprocess.run(["true"], check=True)


async def calls(ctx: Context) -> None:
    fetch()


async def reads_many(ctx: Context) -> None:
    for name in ("a", "b"):
        with open(name) as file:
            file.read()


@pytest.mark.parametrize("handler", [sleeps, runs, calls, reads_many], ids=lambda one: one.__name__)
def test_what_blocks_the_event_loop_is_found(handler: Any) -> None:
    (mistake,) = blocking(handler)

    assert "blocks the event loop" in mistake.text
    assert mistake.file.endswith("test_lint.py")


async def in_a_thread(ctx: Context) -> None:
    await anyio.to_thread.run_sync(fetch)
    await anyio.to_thread.run_sync(lambda: time.sleep(1))
    await anyio.sleep(1)
    with open("one") as file:
        file.read()


def test_what_runs_in_a_thread_does_not_block() -> None:
    assert list(blocking(in_a_thread)) == []


def found_in(plugin: Plugin) -> list[str]:
    return [one.text.partition(" ")[0] for one in unreachable(plugin.handlers())]


async def every(ctx: Context) -> str:
    return "x"


async def handing_on(ctx: Context) -> str | Pass:
    return PASS


async def unknown(ctx: Context) -> Reply:
    return PASS


async def later_one(ctx: Context) -> str:
    return "y"


def test_a_handler_behind_one_that_takes_everything_is_found() -> None:
    plugin = Plugin("p")
    plugin.message()(every)
    plugin.message(text("hi"))(later_one)

    assert found_in(plugin) == ["later_one"]


@pytest.mark.parametrize("first", [handing_on, unknown])
def test_a_handler_after_one_that_may_pass_is_reachable(first: Any) -> None:
    plugin = Plugin("p")
    plugin.message()(first)
    plugin.message(text("hi"))(later_one)

    assert found_in(plugin) == []


def test_a_handler_after_a_narrower_one_is_reachable() -> None:
    plugin = Plugin("p")
    plugin.message(text("hi"))(every)
    plugin.message(from_bots=True)(later_one)
    plugin.on(MessageReceived)(handing_on)

    assert found_in(plugin) == []


async def ring(ctx: Context[TimerFired]) -> None: ...


async def told(ctx: Context) -> None:
    await ctx.reply("hi")


async def given(talk: Dialog, ctx: Any) -> None:
    await talk.run(ctx.later, timedelta(1), ring)


async def in_a_lambda(ctx: Context) -> None:
    await ctx.once("a", lambda: ctx.reply("hi"))


async def nested(ctx: Context) -> None:
    async def tell() -> None:
        await ctx.reply("hi")

    await ctx.once("a", tell)


async def elsewhere(ctx: Context) -> None:
    await ctx.once("a", told, ctx)


@pytest.mark.parametrize(
    ("handler", "action"),
    [(given, "ctx.later"), (in_a_lambda, "ctx.reply"), (nested, "ctx.reply"), (elsewhere, "ctx.reply")],
)
def test_an_action_inside_of_what_is_called_once_is_found(handler: Any, action: str) -> None:
    (mistake,) = lost_actions(handler)

    assert mistake.text.startswith(f"{action} inside ")


async def right(ctx: Context) -> None:
    price = await ctx.once("price", len, ctx.text)
    await ctx.reply(f"{price}")
    await told(ctx)


def test_an_action_behind_what_is_called_once_is_none() -> None:
    assert list(lost_actions(right)) == []
