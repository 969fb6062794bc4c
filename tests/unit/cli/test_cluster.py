"""What `chatbot cluster status` shows of the facts that the server gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from chatbot.cli import main
from chatbot.cli.cluster import Look
from chatbot.cluster.admission import Report
from chatbot.model import ThreadId
from chatbot.stores.postgres_reading import ClusterFacts, SeenReplica, Standby
from chatbot.stores.postgres_url import PostgresUrl
from chatbot.stores.shards import ALL_SHARDS, shard_of

URL = PostgresUrl.parse("postgresql://bots:secret@db.example.com/bots", Path())
HALL = ThreadId("19:hall@thread.v2")
FIRST = SeenReplica("one-7-ab", "one", 7, "1.0", 0, frozenset(range(128)), silent_seconds=0.4)
SECOND = replace(FIRST, name="two-8-cd", host="two", pid=8, shards=frozenset(range(128, 256)))
FACTS = ClusterFacts(60_000, (FIRST, SECOND), dict.fromkeys(ALL_SHARDS, 2), False, ())


def look(*members: SeenReplica, facts: ClusterFacts = FACTS, at: float = 0.0, thread: ThreadId | None = None) -> Look:
    found = Look(URL, thread)
    found.see(replace(facts, members=members), at)
    return found


def shown(found: Look) -> str:
    return "\n".join(found.lines())


def test_processes_that_own_everything_are_well() -> None:
    found = look(FIRST, SECOND)

    assert found.exit_code == 0
    assert "2 processes, 256 shards" in shown(found)
    assert "Moves of shards so far: 512" in shown(found)
    assert "WITHOUT OWNER" not in shown(found)
    assert "secret" not in shown(found)


def test_shards_that_have_had_no_owner_for_more_than_ten_seconds_are_75() -> None:
    found = look(FIRST)
    assert found.is_undecided
    assert found.exit_code == 0
    found.see(replace(FACTS, members=(FIRST,)), 10.5)
    assert not found.is_undecided
    assert found.exit_code == 75
    assert "WITHOUT OWNER: 128 shards, for 10s or longer" in shown(found)


def test_a_shard_that_has_found_an_owner_in_between_counts_anew() -> None:
    found = look(FIRST)
    found.see(FACTS, 6.0)
    found.see(replace(FACTS, members=(FIRST,)), 12.0)

    assert found.exit_code == 0


def test_without_any_process_there_is_nothing_to_wait_for() -> None:
    found = look()

    assert not found.is_undecided
    assert found.exit_code == 75
    assert "No process runs on this store." in shown(found)


@pytest.mark.parametrize(
    ("member", "remark"),
    [
        (replace(SECOND, silent_seconds=4.0), "SILENT"),
        (replace(SECOND, silent_seconds=None, is_connected=False), "DISCONNECTED OR GONE"),
    ],
)
def test_a_silent_process_is_75(member: SeenReplica, remark: str) -> None:
    found = look(FIRST, member)

    assert found.exit_code == 75
    assert remark in shown(found)


def test_what_is_on_purpose_is_remarked_and_well() -> None:
    found = look(replace(FIRST, share=0.05), replace(SECOND, is_stopping=True, share=0.0, version="2.0"))

    assert found.exit_code == 0
    assert "takes at most 5%" in shown(found)
    lacking = look(FIRST, replace(SECOND, share=0.0, report=Report(lacks=True).encode()))
    assert "leaves others the open dialogs that its code cannot continue" in shown(lacking)
    assert "stopping" in shown(found)
    assert "Versions: 1.0 (1), 2.0 (1)" in shown(found)


def test_the_owner_of_a_thread_is_named() -> None:
    found = look(FIRST, SECOND, thread=HALL)
    owner = FIRST if shard_of(HALL) < 128 else SECOND

    assert f"{HALL} is in shard {shard_of(HALL)}, which has moved 2 times: {owner.host}, pid {owner.pid}" in shown(
        found
    )
    assert found.as_json()["thread"] == {"id": HALL, "shard": shard_of(HALL), "epoch": 2, "owner": owner.name}
    assert "nobody at the moment" in shown(look(thread=HALL))


def test_a_store_that_one_process_has_alone_has_no_shards_without_owner() -> None:
    found = look(facts=replace(FACTS, is_alone=True))

    assert found.exit_code == 0
    assert "One process uses this store alone" in shown(found)


def test_standbys_are_shown_with_what_the_user_may_see() -> None:
    standbys = (Standby("north", "sync", "streaming", 0.25), Standby("south", None, None, None))
    found = look(FIRST, SECOND, facts=replace(FACTS, standbys=standbys))

    assert "Standby north: sync, streaming, 200ms behind" in shown(found)
    assert "Standby south: this user may not see its state" in shown(found)


def test_a_store_in_a_file_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "plugin.py").write_text("from chatbot import Plugin\nplugin = Plugin('x')\n")
    (tmp_path / "bots.yaml").write_text("version: 1\nservice: emulator\nbots: {x: {plugins: [plugin]}}\n")

    assert main(["cluster", "status", str(tmp_path / "bots.yaml")]) == 69
    assert "`chatbot status` shows that one" in capsys.readouterr().err
