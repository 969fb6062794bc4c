"""The real daemon on a real PostgreSQL: killed, restarted under, cut off, and replaced."""

from __future__ import annotations

import json
import os
import random
import signal
from pathlib import Path

import aiohttp
import anyio
import pytest

from tests.chaos.stage import Stage, Talk, chaos
from tests.postgres.proxy import proxied
from tests.support.postgres import PostgresServer, running_server

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(600)]

MESSAGES = 5


async def chatter(talk: Talk, dice: random.Random) -> None:
    for number in range(MESSAGES):
        await anyio.sleep(dice.uniform(0, 2.0))
        await talk.say(dice.choice(("say {}", "/two {}", "/fix {}", "/count {}", "/tell {}")).format(number))


async def talk_of_many(stage: Stage, people: anyio.abc.TaskGroup, count: int = 4) -> None:
    talks = [await stage.talk() for _ in range(count)]
    for number, talk in enumerate(talks):
        people.start_soon(chatter, talk, random.Random(number))


async def unready(stage: Stage) -> None:
    """Wait until the daemon says that it is not ready, and why."""
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"http://127.0.0.1:{stage.daemon.port}/readyz") as answer:
                if answer.status == 503 and "store cannot be written" in await answer.text():
                    return
            await anyio.sleep(0.1)


async def test_kill_9_under_load_loses_and_doubles_nothing(tmp_path: Path, postgres_url: str) -> None:
    dice = random.Random(5)
    async with chaos(tmp_path, postgres_url) as stage:
        await stage.start()
        async with anyio.create_task_group() as people:
            await talk_of_many(stage, people)
            await stage.service.put_faults([f"send_message:reset-after,probability=0.1,user={stage.user}"])
            for _ in range(4):
                await anyio.sleep(dice.uniform(0.3, 1.8))
                await stage.daemon.ready()
                stage.daemon.kill()
        verdict = await stage.settled()

        assert verdict.is_clean, verdict
        assert verdict.sent >= 4 * MESSAGES
        assert await stage.daemon.stop() == 0
        assert stage.daemon.codes.count(-signal.SIGKILL) == 4
        assert await stage.dead_letters() == []


async def test_restarts_of_the_server_under_load_lose_and_double_nothing_and_end_no_daemon(tmp_path: Path) -> None:
    with running_server() as server:
        async with chaos(tmp_path, server.url, has_status_server=True) as stage:
            await stage.start()
            async with anyio.create_task_group() as people:
                await talk_of_many(stage, people)
                for how in (signal.SIGINT, signal.SIGQUIT):
                    await anyio.sleep(1)
                    await anyio.to_thread.run_sync(server.stop, how)
                    await unready(stage)
                    await anyio.to_thread.run_sync(server.start)
            verdict = await stage.settled()

            assert verdict.is_clean, verdict
            assert verdict.sent >= 4 * MESSAGES
            assert await stage.daemon.stop() == 0
            assert stage.daemon.codes == [0]
            assert await stage.dead_letters() == []


async def test_a_partition_under_load_loses_and_doubles_nothing(
    tmp_path: Path, postgres_server: PostgresServer, postgres_url: str
) -> None:
    async with proxied(postgres_server.port) as proxy:
        url = postgres_url.replace(str(postgres_server.port), str(proxy.port))
        async with chaos(tmp_path, url) as stage, anyio.create_task_group() as people:
            await stage.start()
            await talk_of_many(stage, people)
            await anyio.sleep(1)
            proxy.is_silent = True
            await stage.daemon.has_said("store.session_lost")
            proxy.is_silent = False
            verdict = await stage.settled()

            assert verdict.is_clean, verdict
            assert await stage.daemon.stop() == 0
            assert stage.daemon.codes == [0]


async def test_a_paused_daemon_goes_on_beside_the_one_that_has_taken_its_threads_over(
    tmp_path: Path, postgres_url: str
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    async with chaos(first, postgres_url) as stage, anyio.create_task_group() as people:
        people.start_soon(stage.daemon.run_once)
        await stage.daemon.ready()
        stage.user = user = json.loads((first / ".chatbot" / "run.json").read_text())["bots"][0]["user_id"]
        talk = await stage.talk()
        await talk.say("say 1")
        await stage.answered(talk, "1")
        os.kill(stage.daemon.pid or 0, signal.SIGSTOP)
        await talk.say("say 2")
        other = type(stage.daemon).set_up(second, stage.service.connection_string, interval="300ms", store=postgres_url)
        people.start_soon(other.run_once)
        await stage.answered(talk, "1", "2")
        os.kill(stage.daemon.pid or 0, signal.SIGCONT)
        await talk.say("say 3")
        await stage.answered(talk, "1", "2", "3")
        await stage.daemon.has_said("store.session_restored")
        await talk.say("say 4")
        await stage.answered(talk, "1", "2", "3", "4")

        assert await stage.replies(talk) == ["1", "2", "3", "4"]
        assert other.user == user
        assert await stage.daemon.stop() == await other.stop() == 0
