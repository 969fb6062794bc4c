"""Plugins that damage what they share with everybody, in the real daemon: all others are answered."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from chatbot.events import MessageReceived
from tests.chaos.stage import Stage, chaos

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

SURVIVED = [
    "call-soon", "call-later", "bare-thread", "task", "done-callback", "loop-stop", "loop-policy",
    "executor", "sweep-thread", "generator-left", "finalizer", "signals", "loop-signals", "stderr",
    "chdir", "umask", "locale", "dice", "logging", "structlog", "warnings", "hooks", "socket-timeout", "fork",
    "many-threads", "late-reply", "parallel", "timers", "steps", "recursion-limit", "stdio",
    "loop-settings",
]  # fmt: skip
"""What a daemon survives in one process, one after the other. The handlers answer.

After the last of them, their own tasks cannot be started any more.
"""

BURIED = [
    "from-thread", "loop-close", "sweep", "sweep-quietly", "yields", "yields-self", "yields-other-loop",
    "generator-ignores", "recursion", "cycle", "deep-chain", "deep-group", "huge-error", "notes", "huge-reply",
    "many-replies", "huge-metadata", "deep-state", "cyclic-state", "returns-coroutine", "returns-generator",
    "returns-error", "returns-odd", "odd-metadata", "iterates",
]  # fmt: skip
"""What becomes a dead letter."""


@asynccontextmanager
async def vandals(directory: Path, loop: str) -> AsyncGenerator[Stage]:
    """Set the stage; the bot has both plugins, that of the vandals first."""
    async with chaos(directory) as stage:
        shutil.copy(Path(__file__).with_name("vandal.py"), directory)
        bots = directory / "bots.yaml"
        bots.write_text(bots.read_text().replace("[checkable]", "[vandal, checkable]"))
        stage.daemon.loop = loop
        yield stage


async def buried(stage: Stage) -> set[str]:
    dead_letters = [letter.event for letter in await stage.dead_letters()]
    return {event.message.content.removeprefix("/") for event in dead_letters if isinstance(event, MessageReceived)}


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_plugins_that_damage_the_process_keep_nobody_unanswered_and_it_stops_in_order(
    loop: str, tmp_path: Path
) -> None:

    async with vandals(tmp_path, loop) as stage:
        await stage.start()
        for number in range(0, len(commands := [*BURIED, *SURVIVED]), 8):
            talk, other = await stage.talk(), await stage.talk()
            await talk.say(*(f"/{command}" for command in commands[number : number + 8]), f"end {number}")
            await other.say(f"beside {number}", f"/two {number}")
            await stage.answered(other, f"heard beside {number}", f"{number} a", f"{number} b")
            await stage.answered(talk, f"heard end {number}")
        assert (await stage.daemon.ask("status", is_checked=False))["is_healthy"]

        assert await stage.daemon.stop() == 0
        assert stage.daemon.codes == [0]
        assert await buried(stage) == set(BURIED)
        assert stage.daemon.said["bot.crashed"] == 0


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_a_handler_that_cancels_all_tasks_by_force_counts_as_a_kill_and_its_dead_letter_names_it(
    loop: str, tmp_path: Path
) -> None:
    async with vandals(tmp_path, loop) as stage:
        await stage.start()
        talk = await stage.talk()
        await talk.say("before", "/sweep-hard", "after")
        await stage.answered(talk, "heard before", "heard after")

        assert await stage.daemon.stop() == 0
        assert stage.daemon.codes == [1, 1, 1, 1, 0]
        (letter,) = await stage.dead_letters()
        assert letter.handler == "vandal.sweep_hard"
        assert "canceled all tasks of the process" in stage.daemon.log.read_text()


async def test_a_function_that_hangs_at_the_exit_does_not_keep_the_process(tmp_path: Path) -> None:
    async with vandals(tmp_path, "asyncio") as stage:
        await stage.start()
        talk = await stage.talk()
        await talk.say("/at-exit")
        await stage.answered(talk, "done")

        with anyio.fail_after(60):
            assert await stage.daemon.stop() == 1
