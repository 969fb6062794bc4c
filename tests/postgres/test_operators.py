"""Commands of an operator with two real daemons on one real PostgreSQL, run beside either of them or beside none."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from chatbot.cluster.notes import Asked, DialogsDropped, LettersChanged, decode
from chatbot.runtime.admin_api import AdminApi
from chatbot.stores.postgres import PostgresStore
from chatbot.stores.records import BotRecord, DialogRecord
from chatbot.stores.shards import SHARDS, shard_of
from chatbot.stores.writes import SaveBot, SaveDeadLetter, SaveDialog
from tests.chaos.processes import ROOT, Daemon
from tests.chaos.stage import Stage, chaos
from tests.contracts.records import ANN, BOT, HALL, begin, letter
from tests.postgres.test_sharing import joined

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(300)]


@asynccontextmanager
async def two_daemons(directory: Path, store: str) -> AsyncGenerator[tuple[Stage, Daemon, Daemon, Daemon]]:
    """Run two daemons of one bot; the third has their bots.yaml, and does not run."""
    for name in ("one", "two", "three"):
        (directory / name).mkdir()
    async with chaos(directory / "one", store) as stage, anyio.create_task_group() as group:
        service = stage.service.connection_string
        two, three = (
            Daemon.set_up(directory / name, service, interval="300ms", idle="5s", store=store)
            for name in ("two", "three")
        )
        await stage.start()
        group.start_soon(two.keep_running)
        await two.ready()
        one = stage.daemon
        while await owned(one) != 128 or await owned(two) != 128:  # noqa: ASYNC110 -- other processes are waited for
            await anyio.sleep(0.2)
        yield stage, one, two, three
        await one.stop()
        await two.stop()


async def status(daemon: Daemon) -> Any:
    return await daemon.answer({"ask": "status"})


async def owned(daemon: Daemon) -> int:
    return int((await status(daemon))["sharing"]["shards"]["owned"])


async def are_paused(*daemons: Daemon, paused: bool) -> None:
    """Wait until the bot of each daemon is paused, or runs again."""
    for daemon in daemons:
        while ((await status(daemon))["bots"][0]["paused_seconds"] is not None) != paused:  # noqa: ASYNC110
            await anyio.sleep(0.1)


async def run(daemon: Daemon, *words: str) -> tuple[int, Any]:
    """Run a command with the bots.yaml of a daemon; return its exit code, and what it prints."""
    process = [sys.executable, "-m", "chatbot", *words, str(daemon.directory / "bots.yaml"), "--format", "json"]
    answer = await anyio.run_process(process, cwd=ROOT, check=False)
    return answer.returncode, json.loads(answer.stdout) if answer.stdout else answer.stderr.decode()


def outcomes(answer: Any) -> list[str]:
    return [there["outcome"] for there in answer["replicas"]]


async def test_commands_reach_both_daemons_wherever_they_are_run(tmp_path: Path, postgres_url: str) -> None:
    async with two_daemons(tmp_path, postgres_url) as (stage, one, two, three):
        talks = [await stage.talk() for _ in range(4)]
        for talk in talks:
            await talk.say("say 1")
            await stage.answered(talk, "1")
        code, shown = await run(three, "cluster", "status", "--thread", talks[0].thread)
        assert code == 0
        assert {member["pid"] for member in shown["replicas"]} == {one.pid, two.pid}
        assert shown["thread"]["owner"] in {member["name"] for member in shown["replicas"]}

        # paused beside none of them, which asks by a note, and resumed beside one, which waits for the other
        assert (await run(three, "pause", "echo"))[0] == 0
        await are_paused(one, two, paused=True)
        code, answer = await run(two, "resume", "echo")
        assert (code, outcomes(answer)) == (0, ["done"])
        await are_paused(one, two, paused=False)

        said = await stage.service.messages(talks[0].thread)
        ann = next(one["sender"] for one in said if one.get("text") == "say 1")
        code, answer = await run(one, "state", "forget", ann)
        assert (code, answer["is_complete"], outcomes(answer)) == (0, True, ["done"])
        code, problem = await run(three, "state", "forget", ann)
        assert code == 69
        assert "in use by running bots" in problem

        for daemon in (one, two):
            plugin = daemon.directory / "checkable.py"
            plugin.write_text(plugin.read_text().replace('ctx.text.removeprefix("say ")', '"new " + ctx.text'))
        code, answer = await run(one, "reload", "--all")
        assert (code, answer["swapped"], outcomes(answer)) == (0, ["echo"], ["done"])
        for talk in talks:
            await talk.say("2")
            await stage.answered(talk, "1", "new 2")

        (two.directory / "checkable.py").write_text("broken(")
        code, answer = await run(one, "reload", "--all")
        assert (code, outcomes(answer)) == (69, ["refused"])
        (one.directory / "checkable.py").write_text("broken(")
        code, problem = await run(one, "reload", "--all")
        assert code == 78
        assert "checkable" in problem


async def test_what_a_visitor_changes_is_heard_by_those_who_share_the_store(postgres_url: str) -> None:
    async with joined(postgres_url) as member:
        await member.owns(SHARDS)
        record, dead = BotRecord("desk", "contoso", BOT, 0), letter("a")
        dialog = DialogRecord("d", HALL, ANN, "plugin.hello", dead.event, "[]", "8", True, None, 0)
        writes = [SaveBot(record), begin(), SaveDeadLetter(dead), SaveDialog(dialog)]
        await member.store.commit(BOT, writes, shards=[shard_of(HALL)])
        async with PostgresStore(postgres_url, is_shared=True, is_between_runs=True) as visitor:
            admin = AdminApi(visitor)
            retried = await admin.answer({"ask": "dead-letters retry", "id": "a"})
            await admin.answer({"ask": "dead-letters drop", "id": "a"})
            (entry,) = (await admin.answer({"ask": "state list"}))["entries"]
            await admin.answer({"ask": "state end-dialog", "id": entry["id"]})
            await admin.answer({"ask": "pause", "bot": "desk"})
        await member.until(lambda: len(member.notes) == 4)

    assert retried["letters"][0]["outcome"] == "now"
    letters, ended, paused = LettersChanged(BOT, ("a",)), DialogsDropped(BOT, ("d",)), decode(member.notes[3])
    assert [decode(note) for note in member.notes[:3]] == [letters, letters, ended]
    assert isinstance(paused, Asked)
    assert (paused.what, paused.subject) == ("pauses", "desk")
