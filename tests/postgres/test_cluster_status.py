"""`chatbot cluster status` asks a real server, beside processes that share a store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from chatbot.cli import main
from chatbot.stores.postgres import PostgresStore
from chatbot.stores.shards import ALL_SHARDS, shard_of
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.postgres

HALL = "19:hall@thread.v2"


async def look(directory: Path, url: str, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    """Run the command; return its exit code, and what it prints."""
    config = directory / "bots.yaml"
    config.write_text(f"version: 1\nservice: emulator\nstore: {url}\nbots: {{x: {{plugins: [x]}}}}\n")
    code = await anyio.to_thread.run_sync(main, ["cluster", "status", str(config), "--format", "json", *words])
    written = capsys.readouterr()
    _, brace, answer = written.out.rpartition('{\n  "store"')  # after what the stores of this test log
    return code, json.JSONDecoder().raw_decode(brace + answer)[0] if brace else written.err


async def following(store: PostgresStore, owned: set[int]) -> None:
    while True:
        owned |= (await store.next_change()).shards


async def test_processes_and_what_they_own_are_shown(
    tmp_path: Path, postgres_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, problem = await look(tmp_path, postgres_url, capsys)
    assert code == 69
    assert "there is no such store yet" in problem

    async with PostgresStore(postgres_url, is_shared=True) as store, anyio.create_task_group() as group:
        owned: set[int] = set()
        group.start_soon(following, store, owned)
        while owned != ALL_SHARDS:  # noqa: ASYNC110 the store is what is waited for
            await anyio.sleep(0.02)
        code, found = await look(tmp_path, postgres_url, capsys, "--thread", HALL)
        (oneself,) = await store.replicas()
        group.cancel_scope.cancel()

    (shown,) = found["replicas"]
    assert code == 0
    assert found["without_owner"] == []
    assert found["moves"] == 256
    assert (shown["name"], shown["pid"], len(shown["shards"])) == (oneself.name, oneself.pid, 256)
    assert 0 <= shown["silent_seconds"] < 3
    assert found["thread"] == {"id": HALL, "shard": shard_of(HALL), "epoch": 1, "owner": oneself.name}

    code, found = await look(tmp_path, postgres_url, capsys)
    assert (code, found["replicas"], len(found["without_owner_for_long"])) == (75, [], 256)


async def test_a_process_that_has_lost_its_session_is_shown_until_others_have_its_shards(
    tmp_path: Path, postgres_server: PostgresServer, postgres_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with PostgresStore(postgres_url, is_shared=True) as store, anyio.create_task_group() as group:
        owned: set[int] = set()
        group.start_soon(following, store, owned)
        while owned != ALL_SHARDS:  # noqa: ASYNC110 the store is what is waited for
            await anyio.sleep(0.02)
        (oneself,) = await store.replicas()
        group.cancel_scope.cancel()
        store.stay_marked()
    code, found = await look(tmp_path, postgres_url, capsys)

    assert code == 75
    assert [(one["name"], one["is_connected"]) for one in found["replicas"]] == [(oneself.name, False)]


async def test_a_server_that_cannot_be_reached_is_69(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, problem = await look(tmp_path, "postgresql://bots:secret@127.0.0.1:1/bots", capsys)

    assert code == 69
    assert "cannot connect to the store" in problem
    assert "secret" not in problem
