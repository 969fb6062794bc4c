"""What a file adds to the promise of a store: who may have it, what can go wrong with it, and that it recovers."""

import os
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from chatbot.actions import ActionKey, SendMessage
from chatbot.errors import StateError, StoreError, StoreInUse, StoreTooNew
from chatbot.model import ThreadId, UserId
from chatbot.stores import sqlite
from chatbot.stores.probe import probe_store
from chatbot.stores.records import BotRecord, OutboxRow, ThreadRecord
from chatbot.stores.sqlite import SqliteStore
from chatbot.stores.writes import Enqueue, MarkSeen, SaveBot, SaveThread
from tests.support.rights import as_ordinary_user

BOT = UserId("8:acs:bot")
ANN = UserId("8:acs:ann")
HALL = ThreadId("19:hall@thread.v2")


def enqueue(key: str, text: str = "hello", **fields) -> Enqueue:
    return Enqueue(OutboxRow(ActionKey(key), HALL, SendMessage(text), 7, 1000, **fields))


async def keys(store) -> list[str]:
    return [row.key for row in await store.pending(BOT)]


def refusal(text: str):
    return pytest.raises(StoreError, match=re.escape(text))


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """The system refuses this process to write beyond, as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def size_of(path: Path) -> int:
    return path.stat().st_size


@pytest.fixture
def own_dir(tmp_path_factory) -> Iterator[Path]:
    """A directory of the ordinary user's own, in one that everybody may enter."""
    with as_ordinary_user():
        path = Path(tempfile.mkdtemp())
    yield path
    path.chmod(0o700)
    shutil.rmtree(path)


class TestTheFile:
    async def test_the_store_and_its_companion_files_are_readable_by_their_owner_only(self, tmp_path):
        async with SqliteStore(tmp_path / "bot.db") as store:
            await store.commit(BOT, [enqueue("a")])
            await store.pending(BOT)

            modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
            assert modes == dict.fromkeys(["bot.db", "bot.db-wal", "bot.db-shm", "bot.db.lock"], 0o600)

    async def test_a_file_that_others_could_read_is_taken_from_them(self, tmp_path):
        path = tmp_path / "bot.db"
        async with SqliteStore(path):
            pass
        path.chmod(0o644)

        async with SqliteStore(path):
            assert path.stat().st_mode & 0o777 == 0o600

    async def test_nothing_but_the_file_and_its_lock_is_left_after_closing(self, tmp_path):
        async with SqliteStore(tmp_path / "bot.db") as store:
            await store.commit(BOT, [enqueue("a")])

        assert {path.name for path in tmp_path.iterdir()} == {"bot.db", "bot.db.lock"}

    async def test_one_object_can_be_opened_again(self, tmp_path):
        store = SqliteStore(tmp_path / "bot.db")

        async with store:
            await store.commit(BOT, [enqueue("a")])
        async with store:
            assert await keys(store) == ["a"]

    async def test_a_plain_copy_of_a_file_in_use_knows_who_the_bots_are(self, tmp_path):
        bot = BotRecord("desk", "contoso", BOT, 7)
        async with SqliteStore(tmp_path / "chatbot.db") as store:
            await store.commit(BOT, [SaveBot(bot)])
            await anyio.to_thread.run_sync(shutil.copyfile, tmp_path / "chatbot.db", tmp_path / "copy.db")
        async with SqliteStore(tmp_path / "copy.db") as copy:
            assert await copy.bots() == [bot]

    async def test_a_plain_copy_of_a_file_in_use_is_never_empty(self, tmp_path):
        async with SqliteStore(tmp_path / "chatbot.db"):
            await anyio.to_thread.run_sync(shutil.copyfile, tmp_path / "chatbot.db", tmp_path / "copy.db")
        connection = sqlite3.connect(tmp_path / "copy.db")

        assert connection.execute("SELECT count(*) FROM bot").fetchone() == (0,)
        connection.close()

    async def test_the_log_is_worked_into_the_file_at_intervals(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sqlite, "CHECKPOINT_SECONDS", 0.0)
        async with SqliteStore(tmp_path / "chatbot.db") as store:
            await store.commit(BOT, [enqueue("a")])
            await store.commit(BOT, [enqueue("b")])
            await anyio.to_thread.run_sync(shutil.copyfile, tmp_path / "chatbot.db", tmp_path / "copy.db")
        async with SqliteStore(tmp_path / "copy.db") as copy:
            assert "a" in await keys(copy)

    async def test_a_file_with_a_second_name_is_refused_by_each_of_them(self, tmp_path):
        async with SqliteStore(tmp_path / "chatbot.db") as store:
            await store.commit(BOT, [enqueue("a")])
        (tmp_path / "other").mkdir()
        os.link(tmp_path / "chatbot.db", tmp_path / "other" / "chatbot.db")

        for name in ("chatbot.db", "other/chatbot.db"):
            with refusal("has 2 hard links, and another process may use it by another name: make it a file of its own"):
                async with SqliteStore(tmp_path / name):
                    pass
        probe = await anyio.to_thread.run_sync(partial(probe_store, "sqlite:///chatbot.db", base_dir=tmp_path))
        assert "2 hard links" in str(probe.problem)
        (tmp_path / "other" / "chatbot.db").unlink()
        async with SqliteStore(tmp_path / "chatbot.db") as store:
            assert await keys(store) == ["a"]

    async def test_a_missing_directory_is_named(self, tmp_path):
        with refusal(f"has no directory: create {tmp_path / 'data'}, or name another file"):
            await SqliteStore(tmp_path / "data" / "bot.db").__aenter__()

    async def test_a_directory_is_no_store(self, tmp_path):
        with refusal(f"the store {tmp_path} is a directory: name a file in it"):
            await SqliteStore(tmp_path).__aenter__()

    async def test_a_directory_that_cannot_be_written_is_named_and_works_once_it_can(self, own_dir):
        own_dir.chmod(0o500)
        with as_ordinary_user():
            with refusal(f"bot.db.lock: Permission denied: let this user write {own_dir}"):
                await SqliteStore(own_dir / "bot.db").__aenter__()

            own_dir.chmod(0o700)
            async with SqliteStore(own_dir / "bot.db") as store:
                await store.commit(BOT, [enqueue("a")])

    async def test_a_read_only_file_is_refused_and_works_once_it_can_be_written(self, own_dir):
        path = own_dir / "bot.db"
        with as_ordinary_user():
            async with SqliteStore(path) as store:
                await store.commit(BOT, [enqueue("a")])
            path.chmod(0o400)
            with refusal(f"cannot open the store {path}: Permission denied: let this user read and write it"):
                await SqliteStore(path).__aenter__()

            path.chmod(0o600)
            async with SqliteStore(path) as store:
                assert await keys(store) == ["a"]

    async def test_a_file_that_is_no_database_is_refused_and_left_alone(self, tmp_path):
        path = tmp_path / "bot.db"
        path.write_text("Dear diary, " * 400)

        with refusal(f"cannot open the store {path}: it is not an SQLite database, or it is damaged: restore a backup"):
            await SqliteStore(path).__aenter__()

        assert path.read_text().startswith("Dear diary")
        path.unlink()
        async with SqliteStore(path) as store:
            await store.commit(BOT, [enqueue("a")])

    async def test_a_damaged_file_says_so_when_it_is_read(self, tmp_path):
        path = tmp_path / "bot.db"
        async with SqliteStore(path) as store:
            await store.commit(BOT, [enqueue(f"{number}") for number in range(500)])
        content = path.read_bytes()
        sound = len(content) * 2 // 3
        path.write_bytes(content[:sound] + b"\xa5" * (len(content) - sound))

        async with SqliteStore(path) as store:
            with refusal(f"cannot read the store {path}: it is damaged: stop, and restore a backup"):
                await store.pending(BOT)

    async def test_a_row_that_chatbot_did_not_write_is_named(self, tmp_path):
        path = tmp_path / "bot.db"
        async with SqliteStore(path) as store:
            await store.commit(BOT, [enqueue("a"), enqueue("b")])
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE outbox SET action = '{\"v\":9}' WHERE key = 'b'")
        connection.close()

        async with SqliteStore(path) as store:
            with pytest.raises(StoreTooNew, match="outbox row b: a stored action has version 9"):
                await store.pending(BOT)
            assert (await store.row(BOT, ActionKey("a"))).key == "a"


class TestOneProcess:
    async def test_another_process_is_refused_with_the_pid_of_the_holder(self, tmp_path):
        path = tmp_path / "bot.db"
        code = (
            "import sys, anyio\n"
            "from chatbot.errors import StoreInUse\n"
            "from chatbot.stores import SqliteStore\n"
            "try:\n"
            "    anyio.run(SqliteStore(sys.argv[1]).__aenter__)\n"
            "except StoreInUse as error:\n"
            "    print(error)\n"
        )
        link = tmp_path / "link.db"
        link.symlink_to(path)

        async with SqliteStore(path):
            for name in (path, link):
                other = await anyio.run_process([sys.executable, "-c", code, str(name)])

                assert other.stdout.decode().strip() == (
                    f"the store {path} is in use by another process (pid {os.getpid()}): "
                    "stop that one first, or name another file"
                )

    async def test_a_second_lock_of_the_same_process_is_refused_with_that_reason(self, tmp_path):
        async with SqliteStore(tmp_path / "bot.db"):
            with pytest.raises(StoreInUse, match="is in use by this process already"):
                await SqliteStore(tmp_path / "bot.db").__aenter__()

    async def test_a_failed_opening_gives_the_lock_back(self, tmp_path):
        path = tmp_path / "bot.db"
        path.write_text("Dear diary, " * 400)
        with pytest.raises(StoreError):
            await SqliteStore(path).__aenter__()
        path.unlink()

        async with SqliteStore(path):
            pass


class TestTrouble:
    """The cause is real, nothing half is there, and the store works by itself when the cause is gone."""

    async def test_a_disk_that_takes_no_more(self, tmp_path):
        path = tmp_path / "bot.db"
        async with SqliteStore(path) as store:
            await store.commit(BOT, [enqueue("before")])
            with files_no_larger_than(size_of(tmp_path / "bot.db-wal") + 20_000):
                with refusal(f"cannot write the store {path}: the disk refused: look for a full, failing or"):
                    await store.commit(BOT, [enqueue(f"{number}", "x" * 5000) for number in range(20)])
                assert await keys(store) == ["before"]

            await store.commit(BOT, [enqueue("after")])
            assert await keys(store) == ["before", "after"]

    async def test_a_full_disk_fails_every_commit_of_its_group_each_with_its_own_error(self, tmp_path):
        path = tmp_path / "bot.db"
        errors = []
        async with SqliteStore(path) as store:

            async def commit(number: int) -> None:
                try:
                    await store.commit(BOT, [enqueue(f"{number}", "x" * 5000)])
                except StoreError as error:
                    errors.append(error)

            with files_no_larger_than(size_of(tmp_path / "bot.db-wal") + 4096):
                async with anyio.create_task_group() as tasks:
                    for number in range(20):
                        tasks.start_soon(commit, number)

            assert len(errors) == len(set(map(id, errors))) == 20
            assert await keys(store) == []

    async def test_commits_that_fail_on_their_own_take_nothing_of_their_group_with_them(self, tmp_path):
        failed = []
        async with SqliteStore(tmp_path / "bot.db") as store:

            async def commit(number: int) -> None:
                writes = [enqueue(f"{number:02}")]
                if number % 5 == 3:
                    writes.append(MarkSeen(ThreadId("19:nowhere@thread.v2"), {1: 1}))
                try:
                    await store.commit(BOT, writes)
                except StateError:
                    failed.append(number)

            async with anyio.create_task_group() as tasks:
                for number in range(20):
                    tasks.start_soon(commit, number)

            assert sorted(failed) == [3, 8, 13, 18]
            assert sorted(await keys(store)) == [f"{n:02}" for n in range(20) if n % 5 != 3]

    async def test_a_user_is_erased_although_a_commit_of_the_same_group_fails(self, tmp_path):
        path, ann, changed = tmp_path / "bot.db", UserId("8:acs:ann"), []
        async with SqliteStore(path) as store:
            await store.commit(BOT, [enqueue("a", "secret", caused_by=ann)])

            async def succeed() -> None:
                await store.commit(BOT, [enqueue("b")])

            async def fail() -> None:
                with pytest.raises(StateError):
                    await store.commit(BOT, [MarkSeen(ThreadId("19:nowhere@thread.v2"), {1: 1})])

            async def forget() -> None:
                changed.append(await store.forget(ann))

            other = sqlite3.connect(path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")  # so that the jobs behind the first one become one group
            async with anyio.create_task_group() as tasks:
                for work in (succeed, forget, fail):
                    tasks.start_soon(work)
                await anyio.wait_all_tasks_blocked()
                other.close()

            assert changed == [1]
            assert await keys(store) == ["b"]
            assert (await store.row(BOT, ActionKey("a"))).action == SendMessage("")

    async def test_another_program_that_locks_the_file(self, tmp_path):
        path = tmp_path / "bot.db"
        async with SqliteStore(path, busy_seconds=0.05) as store:
            await store.commit(BOT, [enqueue("a")])
            other = sqlite3.connect(path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            with refusal(f"cannot write the store {path}: another program has locked it: end that program"):
                await store.commit(BOT, [enqueue("b")])
            assert await keys(store) == ["a"]
            other.close()

            await store.commit(BOT, [enqueue("b")])
            assert await keys(store) == ["a", "b"]

    async def test_a_file_that_was_moved_away(self, tmp_path):
        """What is written to a file without a name is lost when its last user ends."""
        path, elsewhere = tmp_path / "bot.db", tmp_path / "elsewhere.db"
        async with SqliteStore(path) as store:
            await store.commit(BOT, [enqueue("a")])
            path.rename(elsewhere)
            with refusal(f"the store {path} was moved, deleted or replaced while in use: put the same file back"):
                await store.commit(BOT, [enqueue("b")])
            elsewhere.rename(path)

            await store.commit(BOT, [enqueue("c")])
        async with SqliteStore(path) as store:
            assert await keys(store) == ["a", "c"]

    async def test_a_file_that_was_replaced_is_not_written_to(self, tmp_path):
        path = tmp_path / "bot.db"
        async with SqliteStore(path) as store:
            path.rename(tmp_path / "elsewhere.db")
            path.write_bytes(b"")
            with refusal("put the same file back, or restart with the new one"):
                await store.commit(BOT, [enqueue("b")])

        assert path.read_bytes() == b""

    async def test_a_store_whose_file_was_deleted_can_be_closed(self, tmp_path):
        path = tmp_path / "bot.db"
        async with SqliteStore(path) as store:
            await store.commit(BOT, [enqueue("a")])
            path.unlink()

        async with SqliteStore(path) as store:
            assert await keys(store) == []


class TestAfterAKill:
    WRITER = Path(__file__).with_name("committing.py")

    @pytest.mark.chaos
    async def test_what_was_acknowledged_is_there_and_nothing_is_half_there(self, tmp_path):
        """A real process, really killed in the middle of many commits, five times over the same file."""
        path = tmp_path / "bot.db"
        acknowledged = set()

        for life in range(5):
            acknowledged |= await anyio.to_thread.run_sync(self._live_and_die, path, life)
            async with SqliteStore(path) as store:
                assert store.was_killed
                found = set(await keys(store))
                seen = {thread.thread: set(thread.seen) for thread in await store.threads(BOT)}

            assert acknowledged <= found
            assert {key[:-2] for key in found if key.endswith(".a")} == {k[:-2] for k in found if k.endswith(".b")}
            for key in found:
                assert int(key.split(".")[1]) in seen[f"19:{key.split('.')[0]}"]
        assert len(acknowledged) > 100

    def _live_and_die(self, path: Path, life: int) -> set[str]:
        """Let a process commit, kill it once it is at it, and return what it had acknowledged."""
        process = subprocess.Popen([sys.executable, self.WRITER, path, str(life)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(60)]
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate(timeout=120)
        return {line for line in ("".join(lines) + rest).split("\n")[:-1] if line}

    async def test_a_closed_store_was_not_killed(self, tmp_path):
        async with SqliteStore(tmp_path / "bot.db") as store:
            await store.commit(BOT, [enqueue("a")])

        async with SqliteStore(tmp_path / "bot.db") as store:
            assert not store.was_killed

    async def test_a_backup_taken_while_in_use_counts_as_killed(self, tmp_path):
        """Its actions may have been carried out after the copy was taken."""
        async with SqliteStore(tmp_path / "bot.db") as store:
            await store.commit(BOT, [enqueue("a")])
            source, target = sqlite3.connect(tmp_path / "bot.db"), sqlite3.connect(tmp_path / "copy.db")
            source.backup(target)
            source.close()
            target.close()

        async with SqliteStore(tmp_path / "copy.db", is_between_runs=True) as visited:
            await visited.commit(BOT, [enqueue("b")])
        async with SqliteStore(tmp_path / "copy.db") as store:
            assert store.was_killed  # a visit between two runs changes nothing in that
            assert await keys(store) == ["a", "b"]


async def test_an_erased_user_is_in_no_byte_of_the_file(tmp_path):
    """Neither in free pages nor in the write-ahead log, where SQLite would leave old text lying."""
    secret = b"my-rash-is-back"

    def traces() -> int:
        return sum(path.read_bytes().count(needle) for path in tmp_path.iterdir() for needle in (secret, ANN.encode()))

    async with SqliteStore(tmp_path / "bot.db") as store:
        await store.commit(BOT, [SaveThread(ThreadRecord(HALL, 1, 1))])
        for number in range(50):
            await store.commit(BOT, [enqueue(f"{number}", f"You said: {secret.decode()}", caused_by=ANN)])
            await store.commit(BOT, [enqueue(f"to {number}", "You said: nothing")])
        assert traces() >= 100

        assert await store.forget(ANN) == 50

        assert traces() == 0
        assert len(await keys(store)) == 50


async def test_an_id_with_characters_of_search_patterns_erases_this_user_only(tmp_path):
    odd, other = UserId('8:a%_"\\ü!'), UserId('8:abc"\\ü!')

    async with SqliteStore(tmp_path / "bot.db") as store:
        await store.commit(BOT, [enqueue("a", f"to {odd} now"), enqueue("b", f"to {other} now")])

        assert await store.forget(odd) == 1
        assert await keys(store) == ["b"]
