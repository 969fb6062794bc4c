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


async def remembered(folder: Path, *said: str, plugin: str = PLUGIN) -> MemoryStore:
    """A store after two people have each said this to the bot."""
    store = MemoryStore()
    async with chat(await plugin_of(folder, plugin), store=store, raise_failures=False) as room:
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
async def test_a_changed_question_is_named_where_it_holds_no_words_of_users(
    folder: Path, said: tuple[str, ...], old: str, new: str, expected: list[str]
) -> None:
    store = await remembered(folder, *said)

    assert await problems(folder, store, PLUGIN.replace(old, new)) == expected


async def test_a_function_that_is_no_dialog_any_more_is_named(folder: Path) -> None:
    store = await remembered(folder, "/order")
    other = "order(ctx: Context) -> str:\n    return ''\n\nasync def old(talk: Dialog) -> str:"
    text = PLUGIN.replace("order(talk: Dialog) -> str:", other)

    assert await problems(folder, store, text) == ["2 dialogs are held by compared.order, which is no dialog any more"]


async def test_a_dialog_whose_command_takes_other_arguments_is_named(folder: Path) -> None:
    store = await remembered(folder, "/order")

    optional = PLUGIN.replace("order(talk: Dialog)", "order(talk: Dialog, cups: int = 1)")
    assert await problems(folder, store, optional) == []
    required = PLUGIN.replace("order(talk: Dialog)", "order(talk: Dialog, cups: int)")
    assert await problems(folder, store, required) == [
        "2 dialogs are held by compared.order, which takes other arguments than it began with"
    ]


STATEFUL = """
from dataclasses import dataclass, field
from typing import Any
from chatbot import BotState, Context, Plugin, State, UserState, migration

plugin = Plugin("notes")

@dataclass
class Notes:
    texts: list[str] = field(default_factory=list)

@plugin.command("note")
async def note(ctx: Context, text: str, all: State[Notes], own: UserState[Notes], every: BotState[Notes]) -> None:
    for notes in (all, own, every):
        notes.value.texts.append(text)
"""

MIGRATED = """
    @migration(from_version=1)
    @staticmethod
    def rename(stored: dict[str, Any]) -> dict[str, Any]:
        return {"words": stored["texts"]}
"""

RENAMED = STATEFUL.replace("texts: list", "words: list").replace(".texts.", ".words.")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (STATEFUL, []),
        (
            RENAMED,
            [
                "1 state cannot be read as BotState[Notes]: write a @migration(from_version=1) in compared.Notes",
                "1 state of 1 thread cannot be read as State[Notes]: "
                "write a @migration(from_version=1) in compared.Notes",
                "2 states of 1 thread cannot be read as UserState[Notes]: "
                "write a @migration(from_version=1) in compared.Notes",
            ],
        ),
        (RENAMED.replace("\n@plugin", f"{MIGRATED}\n@plugin"), []),
        (
            RENAMED.replace("\n@plugin", MIGRATED.replace('{"words": stored["texts"]}', "exit(stored)") + "\n@plugin"),
            ["BotState", "State", "UserState"],
        ),
        (
            STATEFUL.replace("own: UserState", "own: State")
            .replace(", every: BotState[Notes]", "")
            .replace(", every)", ")"),
            [],
        ),
    ],
)
async def test_a_state_that_its_class_cannot_read_is_named_without_its_words(
    folder: Path, text: str, expected: list[str]
) -> None:
    store = await remembered(folder, "/note secret", plugin=STATEFUL)

    found = await problems(folder, store, text)

    assert "secret" not in str(found)
    assert len(found) == len(expected)
    assert all(part in problem for part, problem in zip(expected, found, strict=True))


async def test_a_state_of_a_newer_version_is_named(folder: Path) -> None:
    migrated = RENAMED.replace("\n@plugin", f"{MIGRATED}\n@plugin")
    store = await remembered(folder, "/note secret", plugin=migrated)

    assert await problems(folder, store, STATEFUL) == [
        "1 state is stored as a newer version of BotState[Notes] than the class has",
        "1 state of 1 thread is stored as a newer version of State[Notes] than the class has",
        "2 states of 1 thread are stored as a newer version of UserState[Notes] than the class has",
    ]


async def test_words_that_became_keys_of_a_state_are_not_shown(folder: Path) -> None:
    keyed = STATEFUL.replace("list[str] = field(default_factory=list)", "dict[str, int] = field(default_factory=dict)")
    keyed = keyed.replace(".append(text)", "[text] = 1")
    fixed = keyed.replace("class Notes:", "class Tally:\n    count: int = 0\n\n@dataclass\nclass Notes:")
    fixed = fixed.replace("dict[str, int]", "Tally").replace("default_factory=dict", "default_factory=Tally")
    store = await remembered(folder, "/note secret", plugin=keyed)

    found = await problems(folder, store, fixed)

    assert len(found) == 3
    assert "secret" not in str(found)
