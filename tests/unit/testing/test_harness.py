from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from chatbot import BotStopping, Context, Plugin, PluginError, Retry
from chatbot.emulator import Quirks
from chatbot.errors import Forbidden, StateError, StoreError
from chatbot.stores import MemoryStore, SqliteStore
from chatbot.stores.base import Store
from chatbot.testing import chat
from tests.support.plugins import echo

virtual = pytest.mark.virtual_time


# ── what fails ────────────────────────────────────────────────────────────────────────────────────────────────────────


@virtual
async def test_a_failed_assertion_comes_out_as_itself_with_the_conversation() -> None:
    async def test() -> None:
        async with chat(echo()) as room:
            await room.user("Ann").says("hi")
            assert room.replies == ["hello"]

    with pytest.raises(AssertionError) as caught:
        await test()

    assert caught.value.__context__ is None
    (note,) = caught.value.__notes__
    assert note.splitlines()[1:] == [
        "What was said:",
        "── Monday 2024-01-01",
        "00:00:00 * Ann added bot",
        '00:00:00 * Ann set the topic to "room"',
        "00:00:01 Ann: hi",
        "00:00:01 bot: hi",
    ]


@virtual
async def test_a_failed_assertion_names_the_handlers_that_failed() -> None:
    plugin = Plugin("fragile")

    @plugin.message(retry=Retry(1))
    async def fail(ctx: Context) -> None:
        raise ValueError(ctx.text)

    async def test() -> None:
        async with chat(plugin, raise_failures=False) as room:
            await room.user("Ann").says("hi")
            assert room.replies == ["hi"]

    with pytest.raises(AssertionError) as caught:
        await test()

    assert caught.value.__notes__[0] == "\nIn bot 'bot' a handler failed: ValueError('hi')"


@virtual
async def test_a_long_conversation_is_shown_from_its_end() -> None:
    async def test() -> None:
        async with chat(echo()) as room:
            await room.user("Ann").says(*map(str, range(30)))
            pytest.fail("enough")

    with pytest.raises(pytest.fail.Exception) as caught:
        await test()

    lines = caught.value.__notes__[0].splitlines()
    assert lines[2:4] == ["… 22 earlier messages", "── Monday 2024-01-01"]
    assert [line[len("00:00:00 ") :] for line in lines[4:]] == [
        f"{who}: {number}" for number in range(10, 30) for who in ("Ann", "bot")
    ]


@virtual
async def test_several_failures_of_one_act_come_as_a_group() -> None:
    plugin = Plugin("fragile")

    @plugin.message()
    async def fail(ctx: Context) -> None:
        raise ValueError(ctx.text)

    async with chat(bots={"one": [plugin], "two": [plugin]}) as room:
        with pytest.RaisesGroup(ValueError, ValueError):
            await room.user("Ann").says("bad")


@virtual
async def test_a_handler_that_fails_at_the_end_fails_the_chat() -> None:
    plugin = Plugin("fragile")

    @plugin.on(BotStopping)
    async def fail(ctx: Context[BotStopping]) -> None:
        msg = "cannot end"
        raise ValueError(msg)

    with pytest.raises(ValueError, match="cannot end"):
        async with chat(plugin) as room:
            await room.user("Ann").joins()


@virtual
async def test_a_handler_that_hangs_is_found() -> None:
    plugin = Plugin("stuck")

    @plugin.message(timeout=None)
    async def hang(ctx: Context) -> None:
        await anyio.Event().wait()

    with pytest.raises(TimeoutError, match=r"within 1:00:00 of virtual time(.|\n)*test_harness\.py:\d+ in .*\.hang"):
        async with chat(plugin) as room:
            await room.user("Ann").says("hi")


@virtual
async def test_a_test_that_hangs_is_found() -> None:
    with pytest.raises(TimeoutError, match=r"within 0:00:30 of virtual time(.|\n)*in test_a_test_that_hangs_is_found"):
        async with chat(echo(), patience=timedelta(seconds=30)):
            await anyio.Event().wait()


@virtual
async def test_a_bot_that_crashes_fails_the_chat() -> None:
    class Broken(MemoryStore):
        async def pending(self, bot: object) -> list[object]:  # type: ignore[override]
            msg = "the disk is gone"
            raise StoreError(msg)

    with pytest.raises(StoreError, match="the disk is gone"):
        async with chat(echo(), store=Broken()) as room:
            await room.user("Ann").says("hi")


@virtual
async def test_a_plugin_that_cannot_be_used_is_refused_at_once() -> None:
    async def roll(ctx: Context) -> str:
        return "4"

    one, two = Plugin("one"), Plugin("two")
    one.command("roll")(roll)
    two.command("roll")(roll)

    with pytest.raises(PluginError, match="command /roll is taken already"):
        async with chat(one, two):
            pass


async def test_a_chat_without_a_plugin_is_refused() -> None:
    with pytest.raises(TypeError, match=r"chat\(plugin\)"):
        async with chat():
            pass


@virtual
async def test_nothing_outlives_a_chat() -> None:
    before = asyncio.all_tasks()
    async with chat(echo()) as room:
        await room.user("Ann").says("hi")

    assert asyncio.all_tasks() == before


# ── people ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@virtual
async def test_before_anybody_comes_there_is_no_thread() -> None:
    async with chat(echo()) as room:
        assert room.replies == []
        assert room.transcript == ""
        with pytest.raises(StateError, match="nobody is in the room yet"):
            _ = room.thread


@virtual
async def test_people_come_in_with_what_they_do() -> None:
    async with chat(echo()) as room:
        ann, bob = room.user("Ann"), room.user("Bob")
        await ann.says("hi")
        await bob.reads()
        await bob.types()

        assert room.people == ["Ann", "bot", "Bob"]
        assert room.read == {"bot": "hi", "Bob": "hi"}
        assert [one.display_name for one in room.emulator.typing(room.thread)] == ["Bob"]


@virtual
async def test_a_name_is_one_user_in_all_rooms() -> None:
    async with chat(echo()) as room:
        other = room.another()

        assert room.user("Ann") is room.user("Ann")
        assert room.user("Ann").user == other.user("Ann").user != room.user("Bob").user


@virtual
async def test_a_user_who_has_left_cannot_write_but_can_return() -> None:
    async with chat(echo()) as room:
        ann, bob = room.user("Ann"), room.user("Bob")
        await ann.joins()
        await bob.joins()
        await bob.leaves()
        with pytest.raises(Forbidden):
            await bob.says("hi")
        await bob.joins()
        await bob.says("hi")

        assert room.replies == ["hi"]


@virtual
async def test_people_who_are_let_in_wait_when_the_service_throttles_it() -> None:
    async with chat(echo()) as room:
        ann, bob = room.user("Ann"), room.user("Bob")
        await ann.joins()
        room.emulator.faults.add(f"add_participants:429,times=2,user={ann.user}")
        await bob.joins()

        assert "Bob" in room.people


@virtual
async def test_somebody_has_to_be_there_to_let_others_in() -> None:
    async with chat(echo()) as room:
        await room.user("Ann").joins()
        await room.user("Ann").leaves()

        with pytest.raises(StateError, match="nobody is left in the room who could add Bob"):
            await room.user("Bob").says("hi")


@virtual
async def test_acts_without_an_object_are_refused() -> None:
    async with chat(echo()) as room:
        ann = room.user("Ann")
        with pytest.raises(ValueError, match="Ann says nothing"):
            await ann.says()
        with pytest.raises(StateError, match="Ann has said nothing yet"):
            await ann.edits("hello")
        await ann.joins()
        with pytest.raises(StateError, match="nobody else has said anything yet"):
            await ann.reads()


# ── time and process ──────────────────────────────────────────────────────────────────────────────────────────────────


@virtual
async def test_time_advances_by_the_units_of_timedelta() -> None:
    async with chat(echo()) as room:
        began = room.emulator.clock()
        await room.advance(timedelta(days=1), hours=2, minutes=3)

        assert room.emulator.clock() - began == pytest.approx(93_780)


@virtual
async def test_nobody_waits_for_a_bot_that_is_down() -> None:
    async with chat(echo()) as room:
        ann = room.user("Ann")
        await ann.says("one")
        await room.stop()
        await ann.says("two")
        assert room.replies == ["one"]
        await room.start()

        assert room.replies == ["one", "two"]


@virtual
async def test_bots_that_run_cannot_be_started() -> None:
    async with chat(echo()) as room:
        with pytest.raises(StateError, match="running already"):
            await room.start()


@virtual
async def test_a_kill_at_any_moment_ends_the_acts_that_wait() -> None:
    """Whatever the bots and those who wait for them are doing: nothing is left waiting, nothing is lost."""
    async with chat(echo()) as room:
        ann = room.user("Ann")
        await ann.joins()
        for steps in range(0, 120, 7):
            async with anyio.create_task_group() as group:
                group.start_soon(ann.says, str(steps))
                await anyio.sleep(1)
                for _ in range(steps):
                    await anyio.lowlevel.checkpoint()
                await room.kill()
            await room.start()

        assert room.replies == [str(steps) for steps in range(0, 120, 7)]


@virtual
async def test_a_killed_bot_stays_down_at_the_end() -> None:
    async with chat(echo()) as room:
        await room.user("Ann").says("one")
        await room.kill()


async def test_chats_work_in_real_time_too() -> None:
    async with chat(echo()) as room:
        await room.user("Ann").says("one")
        await room.restart()
        await room.user("Ann").says("two")

        assert room.replies == ["one", "two"]
        with pytest.raises(StateError, match=r"@pytest\.mark\.virtual_time"):
            await room.advance(days=1)


async def survive_a_restart(store: Store) -> None:
    async with chat(echo(), store=store) as room:
        await room.user("Ann").says("one")
        await room.restart()
        await room.user("Ann").says("two")

        assert room.replies == ["one", "two"]


async def test_a_store_with_a_file_can_be_the_bots_memory(tmp_path: Path) -> None:
    await survive_a_restart(SqliteStore(tmp_path / "bots.db"))


@virtual
async def test_a_store_with_a_file_can_be_the_bots_memory_on_virtual_time(tmp_path: Path) -> None:
    await survive_a_restart(SqliteStore(tmp_path / "bots.db"))


@virtual
async def test_the_service_of_a_chat_has_the_quirks_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "quirks.yaml"
    await anyio.Path(file).write_text("thread-ids: short\n")

    async with chat(echo(), quirks=file) as room:
        await room.user("Ann").says("hi")
        assert not room.thread.startswith("19:acsV1_")

    async with chat(echo(), quirks=Quirks(thread_ids="short")) as room:
        await room.user("Ann").says("hi")
        assert not room.thread.startswith("19:acsV1_")


@virtual
async def test_a_file_of_quirks_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "quirks.yaml"
    await anyio.Path(file).write_text("nonsense: 1\n")

    with pytest.raises(ValueError, match="there is no quirk 'nonsense'"):
        async with chat(echo(), quirks=str(file)):
            pass
    with pytest.raises(TypeError, match=r"write Quirks\(.*\), or the path of a file, not dict"):
        async with chat(echo(), quirks={"start_time": "exclusive"}):  # type: ignore[arg-type]
            pass
