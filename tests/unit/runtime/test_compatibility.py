"""What a store holds that other code cannot go on with is named, and no word of people's is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import anyio.to_thread
import pytest

from chatbot.plugin import Plugin, load_plugin
from chatbot.runtime.compatibility import incompatibilities
from chatbot.stores import MemoryStore
from chatbot.testing import chat

pytestmark = pytest.mark.virtual_time

PLUGIN = """
from datetime import timedelta
from chatbot import Context, Dialog, Plugin, Retry, ScheduleFired, TimerFired

plugin = Plugin("tea")
COLOR = "Which color?"

@plugin.timer
async def ring(ctx: Context[TimerFired], what: str) -> str:
    return what

@plugin.every(timedelta(hours=1))
async def tick(ctx: Context[ScheduleFired]) -> None: ...

@plugin.command("order")
async def order(talk: Dialog) -> str:
    tea = await talk.ask("Which tea?")
    cup = await talk.ask("Which cup?", choices=["small", "large"])
    if await talk.confirm(f"A {cup} cup of {tea}?"):
        return await talk.ask(COLOR)
    return "Never mind."

@plugin.command("remind")
async def remind(ctx: Context, what: str) -> None:
    await ctx.later(timedelta(days=1), ring, what=what)

@plugin.command("fail", retry=Retry(1))
async def fail(ctx: Context) -> None:
    raise ValueError("no")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("compared", None)


async def plugin_of(folder: Path, text: str) -> Plugin:
    return await anyio.to_thread.run_sync(_load, folder, text)


def _load(folder: Path, text: str) -> Plugin:
    (folder / "compared.py").write_text(text)
    sys.modules.pop("compared", None)
    sys.path_importer_cache.clear()
    sys.dont_write_bytecode, kept = True, sys.dont_write_bytecode
    try:
        return load_plugin("compared", base_dir=folder)
    finally:
        sys.dont_write_bytecode = kept


async def remembered(folder: Path, *said: str) -> MemoryStore:
    """A store after two people have each said this to the bot."""
    store = MemoryStore()
    async with chat(await plugin_of(folder, PLUGIN), store=store, raise_failures=False) as room:
        for name in ("Ann", "Ben"):
            await room.user(name).says(*said)
    return store


async def problems(folder: Path, store: MemoryStore, text: str) -> list[str]:
    async with store:
        return [one.problem for one in await incompatibilities(store, {"bot": [await plugin_of(folder, text)]})]


EVERYTHING = ("/fail", "/remind secret", "/order")


async def test_code_that_has_not_changed_goes_on_with_everything(folder: Path) -> None:
    store = await remembered(folder, *EVERYTHING)

    assert await problems(folder, store, PLUGIN) == []


async def test_functions_that_are_gone_are_named_with_what_waits_for_them(folder: Path) -> None:
    store = await remembered(folder, *EVERYTHING)
    text = PLUGIN.replace("def ring", "def sound").replace(" ring,", " sound,").replace("def tick", "def tock")
    text = text.replace("def order", "def sell").replace("def fail", "def lose")

    assert await problems(folder, store, text) == [
        "2 dead letters of 1 thread are for compared.fail, which is gone",
        "2 dialogs are held by compared.order, which is gone",
        "1 schedule calls compared.tick, which is gone",
        "2 timers of 1 thread call compared.ring, which is gone",
    ]


async def test_a_timer_that_takes_other_arguments_is_named_without_its_own(folder: Path) -> None:
    store = await remembered(folder, "/remind secret")
    text = PLUGIN.replace("what: str) -> str:\n    return what", "n: int) -> None: ...")

    assert await problems(folder, store, text.replace("ring, what=what)", "ring, n=1)")) == [
        "2 timers of 1 thread call compared.ring with other arguments than it takes now"
    ]


@pytest.mark.parametrize(
    ("said", "old", "new", "expected"),
    [
        (("/order",), "Which tea?", "What tea?", ["2 dialogs asked 'Which tea?', which is now another question"]),
        (("/order", "secret"), '"large"]', '"big"]', ["2 dialogs asked 'Which cup?', which is now another question"]),
        (("/order", "secret", "small"), "cup of", "mug of", []),  # it holds what people said, so it is not stored
        (
            ("/order", "secret", "small", "yes"),
            "Which color?",
            "What color?",
            ["2 dialogs asked 'Which color?', which is now another question"],
        ),
        (("/order", "secret"), "Which tea?", "What tea?", []),
    ],
)
async def test_a_question_that_was_changed_is_named_where_it_holds_nobodys_words(
    folder: Path, said: tuple[str, ...], old: str, new: str, expected: list[str]
) -> None:
    store = await remembered(folder, *said)

    assert await problems(folder, store, PLUGIN.replace(old, new)) == expected


async def test_a_function_that_is_no_dialog_any_more_is_named(folder: Path) -> None:
    store = await remembered(folder, "/order")
    other = "order(ctx: Context) -> str:\n    return ''\n\nasync def old(talk: Dialog) -> str:"
    text = PLUGIN.replace("order(talk: Dialog) -> str:", other)

    assert await problems(folder, store, text) == ["2 dialogs are held by compared.order, which is no dialog any more"]
