"""Dialogs whose code was changed or broken: they end with a reply to the person, and continue once it is fixed."""

from __future__ import annotations

import pytest

from chatbot import Dialog
from chatbot.stores import MemoryStore
from chatbot.stores.writes import RequestRetry
from chatbot.testing import chat
from tests.flow.dialogs import Deployed, hello, plugin_of

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
async def test_a_dialog_whose_code_was_changed_becomes_a_dead_letter_and_the_user_is_informed(then) -> None:
    code = [hello]

    async def talk(talk: Dialog) -> str:
        return await code[0](talk)

    plugin = Deployed(plugin_of(talk))
    store = MemoryStore()
    async with chat(plugin, store=store, raise_failures=False) as room:
        ann = room.user("Ann")
        await ann.says("/talk")
        if then is None:
            plugin.code = plugin_of(None)
            await room.restart()
        else:
            code[0] = then
        await ann.says("Ann", "more")

        assert room.replies == ["What is your name?", LOST, "echo more"]
        (letter,) = await store.dead_letters(room.bot.user)
        assert letter.error.startswith("DialogDiverged: the dialog ")
        assert "restore the code; then retry this dead letter" in letter.error


@pytest.mark.virtual_time
async def test_a_dead_letter_of_a_dialog_continues_where_it_was_once_the_code_is_fixed() -> None:
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
        await store.commit(room.bot.user, [RequestRetry(letter.id)])
        await room.restart()
        await ann.says("no")

        assert room.replies == ["Name?", "echo between", "More?", "Ann no"]
        assert charges == ["Ann"]
        assert await store.dead_letters(room.bot.user) == []
