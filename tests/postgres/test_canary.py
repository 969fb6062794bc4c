"""Real daemons with new code beside those with old code: a canary, a rolling restart, and open dialogs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from tests.chaos.processes import Daemon
from tests.chaos.stage import Stage, Talk, chaos

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(300)]

OLD = """\
from chatbot import Context, Dialog, Plugin

plugin = Plugin("checkable")


@plugin.command("order")
async def order(talk: Dialog) -> str:
    size = await talk.ask("Which size?")
    return f"old: {size}"


@plugin.message()
async def answer(ctx: Context) -> str:
    return f"old: {ctx.text}"
"""

NEW = OLD.replace("old:", "new:").replace("Which size?", "Which size and color?")

FAILING = """\
from chatbot import Context, Plugin, Retry

plugin = Plugin("checkable")


@plugin.message(retry=Retry(attempts=1))
async def answer(ctx: Context) -> str:
    raise ZeroDivisionError
"""


@asynccontextmanager
async def running(directory: Path, store: str, code: str) -> AsyncGenerator[Stage]:
    """Run one daemon of this code; others are added with `another`."""
    first = directory / "first"
    first.mkdir()
    async with chaos(first, store) as stage:
        (first / "checkable.py").write_text(code)
        await stage.start()
        yield stage
        await stage.daemon.stop()


def another(stage: Stage, directory: Path, code: str, *options: str) -> Daemon:
    """Prepare another daemon; the caller runs it."""
    directory.mkdir()
    daemon = Daemon.set_up(
        directory,
        stage.service.connection_string,
        interval="300ms",
        idle="5s",
        store=stage.daemon.store_url,
        has_status_server=True,
    )
    (directory / "checkable.py").write_text(code)
    daemon.options = options
    return daemon


async def shards_of(daemon: Daemon) -> int:
    """Return how many shards a canary owns."""
    canary = (await daemon.ask("status", is_checked=False))["canary"]
    return int(canary["shards"])


async def answered(stage: Stage, talk: Talk, count: int) -> list[str]:
    """Wait until the bot has said so many things in a thread; return them."""
    while len(replies := await stage.replies(talk)) < count:  # noqa: ASYNC110 another process is waited for
        await anyio.sleep(0.2)
    return replies


async def dialogs(stage: Stage) -> list[Talk]:
    """Begin dialogs in so many threads that some are in the half of the shards that another process gets."""
    talks = [await stage.talk() for _ in range(14)]
    for talk in talks:
        await talk.say("/order")
    for talk in talks:
        await answered(stage, talk, 1)
    return talks


async def test_a_canary_whose_handlers_fail_gives_its_threads_back_and_says_so(
    tmp_path: Path, postgres_url: str
) -> None:
    async with running(tmp_path, postgres_url, OLD) as stage, anyio.create_task_group() as group:
        talks = [await stage.talk() for _ in range(24)]
        canary = another(stage, tmp_path / "canary", FAILING, "--canary", "50%")
        group.start_soon(canary.run_once)
        await canary.ready()
        while await shards_of(canary) < 128:  # noqa: ASYNC110 another process is waited for
            await anyio.sleep(0.2)
        rounds = 0
        while not canary.said["canary.handed_back"]:
            for talk in talks:
                await talk.say(f"{rounds}")
            rounds += 1
            await anyio.sleep(1)
        while await shards_of(canary):  # noqa: ASYNC110 another process is waited for
            await anyio.sleep(0.2)
        for talk in talks:
            await talk.say("after")
        for talk in talks:
            while "old: after" not in await stage.replies(talk):  # noqa: ASYNC110 another process is waited for
                await anyio.sleep(0.2)
        status = await canary.ask("status", is_checked=False)

        assert status["canary"]["has_handed_back"]
        assert status["canary"]["events"]["failed"] >= 5
        assert [one["reason"] for one in status["degraded"]] == ["canary_failed"]
        assert not status["is_ready"]
        assert "it takes no threads" in status["unready"][0]
        assert await canary.stop() == 75
        replies = [text for talk in talks for text in await stage.replies(talk)]
        assert len(replies) == (rounds + 1) * len(talks) - canary.said["event.dead_lettered"]


async def test_a_rolling_restart_moves_threads_to_new_code_without_losing_or_doubling_a_message(
    tmp_path: Path, postgres_url: str
) -> None:
    async with running(tmp_path, postgres_url, OLD) as stage, anyio.create_task_group() as group:
        talks = [await stage.talk() for _ in range(6)]
        new = [another(stage, tmp_path / f"new{number}", NEW) for number in (1, 2)]
        has_ended = anyio.Event()
        said: dict[str, int] = {}

        async def chatter(talk: Talk) -> None:
            while not has_ended.is_set():
                number = said[talk.thread] = said.get(talk.thread, 0) + 1
                await talk.say(f"{number}")
                await anyio.sleep(0.7)

        async with anyio.create_task_group() as people:
            for talk in talks:
                people.start_soon(chatter, talk)
            await answered(stage, talks[0], 1)
            for daemon in new:
                group.start_soon(daemon.run_once)
                await daemon.ready()
            await anyio.sleep(3)
            assert await stage.daemon.stop() == 0
            await anyio.sleep(3)
            has_ended.set()
        for talk in talks:
            replies = await answered(stage, talk, said[talk.thread])
            texts = [text.removeprefix("old: ").removeprefix("new: ") for text in replies]

            assert texts == [f"{number}" for number in range(1, said[talk.thread] + 1)]
            assert replies[0].startswith("old")
            assert replies[-1].startswith("new")
        for daemon in new:
            assert await daemon.stop() == 0


async def test_an_open_dialog_moves_to_code_that_lacks_it_only_when_nobody_else_can_continue_it(
    tmp_path: Path, postgres_url: str
) -> None:
    async with running(tmp_path, postgres_url, OLD) as stage, anyio.create_task_group() as group:
        talks = await dialogs(stage)
        new = another(stage, tmp_path / "new", NEW)
        group.start_soon(new.run_once)
        await new.has_said("shards.refused")
        await new.ready()
        status = await new.ask("status", is_checked=False)
        assert [one["reason"] for one in status["degraded"]] == ["shards_refused"]
        assert "Which size?" in status["unready"][0]
        for talk in talks[1:]:
            await talk.say("large")
        for talk in talks[1:]:
            assert await answered(stage, talk, 2) == ["Which size?", "old: large"]
        assert await stage.daemon.stop() == 0
        await new.has_said("shards.wanted_again")
        for talk in talks[1:]:
            await talk.say("and now?")
        for talk in talks[1:]:
            assert (await answered(stage, talk, 3))[2] == "new: and now?"
        assert (await new.ask("status", is_checked=False))["is_ready"]
        assert await new.stop() == 0


async def test_a_process_takes_its_share_when_the_dialogs_have_ended_that_it_could_not_continue(
    tmp_path: Path, postgres_url: str
) -> None:
    async with running(tmp_path, postgres_url, OLD) as stage, anyio.create_task_group() as group:
        talks = await dialogs(stage)
        new = another(stage, tmp_path / "new", NEW)
        group.start_soon(new.run_once)
        await new.has_said("shards.refused")
        for talk in talks:
            await talk.say("large")
        for talk in talks:
            assert (await answered(stage, talk, 2))[1] == "old: large"
        await new.has_said("shards.wanted_again")
        while not new.said["store.shards_gained"]:  # noqa: ASYNC110 another process is waited for
            await anyio.sleep(0.2)
        assert await new.stop() == 0


async def test_a_canary_without_another_process_refuses_to_start(tmp_path: Path, postgres_url: str) -> None:
    (tmp_path / "only").mkdir()
    async with chaos(tmp_path / "only", postgres_url) as stage:
        stage.daemon.options = ("--canary", "5%")
        assert await stage.daemon.run_once() == 69
        assert "no other process runs that serves the rest of the threads" in stage.daemon.log.read_text()
