"""What breaks a replay is found, by the line it stands in; what is fine is left alone."""

from __future__ import annotations

import asyncio
import inspect
import random
import subprocess
import time
import uuid as ids
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import choice
from typing import Any

import pytest

from chatbot import Dialog
from chatbot.plugin.lint import findings


class Shop:
    async def order(self, item: str) -> str:
        return item


def found(dialog: Callable[..., Any], provided: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    """What is called where, by the text of the line."""
    one_file = {}
    shown = []
    for finding in findings(dialog, provided):
        lines = one_file.setdefault(finding.file, Path(finding.file).read_text(encoding="utf-8").splitlines())
        assert finding.call.removesuffix("()") in lines[finding.line - 1]
        shown.append((finding.call, finding.remedy))
    return shown


NOW = "use `await talk.now()`"
RUN = "use `await talk.run(…)`"


async def clocks(talk: Dialog) -> None:
    await talk.say(f"{datetime.now(UTC)} {time.time()}")
    later = date.today() + timedelta(days=1)
    await talk.say(str(later))


async def chance(talk: Dialog) -> None:
    await talk.say(str(random.randint(1, 6)))
    await talk.say(choice(["a", "b"]))
    await talk.say(str(ids.uuid4()))


async def files(talk: Dialog) -> None:
    with open("x") as file:  # noqa: ASYNC230
        await talk.say(file.read())
    await talk.say(Path("x").read_text())  # noqa: ASYNC240


async def processes(talk: Dialog) -> None:
    await talk.say(str(subprocess.run(["true"], check=True)))  # noqa: ASYNC221
    await talk.run(subprocess.run, ["true"])


count = 0


async def counts(talk: Dialog) -> None:
    global count
    count += 1
    await talk.say(str(count))


async def local_imports(talk: Dialog) -> None:
    import secrets
    from time import monotonic as ticks

    await talk.say(f"{secrets.token_hex()} {ticks()}")


async def waits(talk: Dialog) -> None:
    await asyncio.sleep(1)
    await asyncio.gather(talk.ask("a"), talk.ask("b"))


def todays_price() -> float:
    return random.random()


async def through_helpers(talk: Dialog) -> str:
    async def inner() -> str:
        return str(datetime.now(UTC))

    return f"{todays_price()} {await inner()} {await chance(talk)}"


async def provided(talk: Dialog, shop: Shop) -> str:
    await talk.say(await shop.order("pear"))
    return await talk.run(shop.order, "fig")


async def fine(talk: Dialog) -> str:
    def roll() -> int:
        return random.randint(1, 6)

    async def save(name: str) -> None:
        Path(name).write_text(name)  # noqa: ASYNC240

    name = await talk.ask("Name?", timeout=timedelta(minutes=1))
    await talk.run(roll)
    await talk.run(save, name)
    await talk.run(lambda: time.time())
    await talk.run(random.choice, [1, 2])
    born = datetime(2020, 1, 1, tzinfo=UTC)
    when = datetime.fromisoformat("2020-01-01")
    return f"{len(name)} {sorted(name)} {born} {when} {await talk.now()} {name.strip().title()}"


@pytest.mark.parametrize(
    ("dialog", "expected"),
    [
        (clocks, [("datetime.now()", NOW), ("time.time()", NOW), ("date.today()", NOW)]),
        (chance, [("random.randint()", RUN), ("choice()", RUN), ("ids.uuid4()", RUN)]),
        (files, [("open()", RUN), ("Path('x').read_text()", RUN)]),
        (processes, [("subprocess.run()", RUN)]),
        (counts, [("count", "keep it in a State")]),
        (local_imports, [("secrets.token_hex()", RUN), ("ticks()", NOW)]),
        (fine, []),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_what_comes_out_differently_is_found(dialog: Callable[..., Any], expected: list[tuple[str, str]]) -> None:
    if dialog is files:
        assert [one.call for one in findings(dialog)] == [call for call, _ in expected]
        return
    assert found(dialog) == expected


def test_waiting_and_doing_several_things_at_a_time_are_found() -> None:
    assert [call for call, _ in found(waits)] == ["asyncio.sleep()", "asyncio.gather()"]


def test_functions_of_the_same_module_and_other_dialogs_are_followed() -> None:
    assert {call for call, _ in found(through_helpers)} == {
        "random.random()",
        "datetime.now()",
        "random.randint()",
        "choice()",
        "ids.uuid4()",
    }


def test_what_is_provided_is_asked_through_run() -> None:
    assert found(provided, ("shop",)) == [("shop.order()", RUN)]
    assert found(provided) == []


def test_a_function_without_source_is_let_pass() -> None:
    made: dict[str, Any] = {}
    exec("async def made(talk): return open('x')", made)

    assert findings(made["made"]) == []
    assert findings(len) == []
    assert inspect.iscoroutinefunction(made["made"])
