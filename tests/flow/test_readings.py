"""The service's unknowns: a bot must be right under every reading of them."""

from __future__ import annotations

from typing import Any

import pytest

from chatbot import Context, MessageDeleted, MessageEdited, ParticipantsAdded, Plugin
from chatbot.emulator import Quirks, World
from chatbot.testing import chat

pytestmark = pytest.mark.virtual_time

NOT_FOR_BOTS = {"blank-content", "empty-topic", "metadata-limit-bytes", "hmac-skew-seconds", "cursor-seconds"}
"""Switches whose other value would need a number or a text of its own to be another reading."""

NUMBERS = {"deletion-delay-seconds": 60, "revocation-delay-seconds": 900, "default-page-size": 6}
NUMBERS |= {"phantom-threads": 150, "stampless-seconds": 3}


def readings() -> list[str]:
    """Every switch in every value but its default."""
    found = ["", "start-time=exclusive start-time-field=created start-time-precision=milliseconds"]
    for name, values, _ in Quirks.describe():
        if name not in NOT_FOR_BOTS:
            others = values.split(" | ")[1:]
            if others == ["…"]:
                others = [str(NUMBERS.get(name, 1))]
            found += [f"{name}={value}" for value in others]
    return found


def witness() -> Plugin:
    plugin = Plugin("witness")

    @plugin.message()
    async def received(ctx: Context) -> str:
        return f"received {ctx.text}"

    @plugin.on(MessageEdited)
    async def edited(ctx: Context[MessageEdited]) -> str:
        return f"edited {ctx.text}"

    @plugin.on(MessageDeleted)
    async def deleted(ctx: Context[MessageDeleted]) -> str:
        return "deleted"

    @plugin.on(ParticipantsAdded)
    async def added(ctx: Context[ParticipantsAdded]) -> str:
        return f"added {len(ctx.event.participants)}"

    return plugin


def cases() -> list[Any]:
    """Every third reading by default, and the others for the gate."""
    return [
        pytest.param(reading, marks=[pytest.mark.chaos] if number % 3 else [])
        for number, reading in enumerate(readings())
    ]


@pytest.mark.parametrize("reading", cases())
async def test_a_conversation_is_the_same_under_every_reading(reading: str) -> None:
    async with chat(witness(), world=World(seed=0, quirks=Quirks.parse(reading.split()))) as room:
        ann, bob = room.user("Ann"), room.user("Bob")
        first = await ann.says("one")
        await bob.says("two")
        await ann.edits("uno", first)
        await room.restart()
        await room.advance(hours=3)
        await room.kill()
        second = await ann.says("three")
        await ann.edits("eins", first)
        await bob.says("four")
        await bob.deletes()
        await room.start()
        await ann.edits("tres", second)
        await ann.removes(room.bot)
        await bob.says("not heard")
        await room.advance(minutes=10)
        await bob.adds(room.bot)
        await bob.says("five")
        await bob.deletes()

        assert room.replies == [
            *("added 1", "received one", "added 1", "received two", "edited uno"),
            *("received three", "edited eins", "edited tres", "received five", "deleted"),
        ]
