"""State, dialogs and timers in a file or a database, and in real time: as in production."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from chatbot import Context, Dialog, Plugin, State, TimerFired
from chatbot.stores import open_store
from chatbot.testing import chat


@dataclass
class Count:
    value: int = 0


@pytest.mark.parametrize("database", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def test_a_conversation_goes_on_from_the_store(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = "sqlite:///bot.db" if database == "sqlite" else request.getfixturevalue("postgres_url")
    plugin = Plugin("disk")
    effects: list[str] = []

    @plugin.timer
    async def ring(ctx: Context[TimerFired], name: str, count: State[Count]) -> str:
        return f"ring {name} {count.value.value}"

    @plugin.command("go")
    async def go(ctx: Context, name: str, count: State[Count]) -> None:
        count.value.value += 1
        await ctx.later(timedelta(0), ring, name=name)

    @plugin.command("talk")
    async def talk(talk: Dialog, count: State[Count]) -> str:
        await talk.run(effects.append, "once")
        name = await talk.ask("Name?")
        count.value.value += 1
        return f"{name} {count.value.value}"

    async with chat(plugin, store=open_store(url, base_dir=tmp_path)) as room:
        ann = room.user("Ann")
        await ann.says("/go now", "/talk")
        await room.stop()
        await room.start()
        await ann.says("Ann", "/go again")

        assert room.replies == ["ring now 1", "Name?", "Ann 2", "ring again 3"]
        assert effects == ["once"]
