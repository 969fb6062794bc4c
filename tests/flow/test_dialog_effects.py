"""What a dialog does besides talking: done once, whatever happens, and the same in every run."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from chatbot import Context, Dialog, State
from chatbot.testing import chat
from tests.flow.dialogs import plugin_of


@pytest.mark.virtual_time
async def test_a_durable_step_runs_once_and_gives_the_same_result_in_every_replay() -> None:
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
