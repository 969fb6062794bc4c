import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import pairwise

import anyio
import pytest
from structlog.testing import capture_logs

from chatbot.runtime.supervisor import MAX_PAUSE_SECONDS, Supervisor, keep_running

pytestmark = pytest.mark.virtual_time


@dataclass
class Scripted:
    """A bot whose runs are given; the last one is repeated."""

    name: str
    runs: list[Callable[[anyio.Event], Awaitable[None]]]
    begun_at: list[float] = field(default_factory=list)

    async def run(self, stopping: anyio.Event) -> None:
        self.begun_at.append(anyio.current_time())
        run = self.runs.pop(0) if len(self.runs) > 1 else self.runs[0]
        await run(stopping)


async def work(stopping: anyio.Event) -> None:
    await stopping.wait()


async def die(_stopping: anyio.Event) -> None:
    raise OSError("the disk")


async def die_otherwise(_stopping: anyio.Event) -> None:
    raise KeyError("x")


async def end_by_itself(_stopping: anyio.Event) -> None:
    return


async def never_finish(_stopping: anyio.Event) -> None:
    await anyio.sleep_forever()


async def stop_after(seconds: float, stopping: anyio.Event) -> None:
    await anyio.sleep(seconds)
    stopping.set()


async def supervised(*bots: Scripted, seconds: float, drain_seconds: float = 10) -> float:
    """Run bots, stop them after some seconds; returns when they had finished."""
    stopping = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(stop_after, seconds, stopping)
        await Supervisor(bots, drain_seconds=drain_seconds).run(stopping)
        return anyio.current_time()


async def test_bots_run_until_they_are_to_stop() -> None:
    begun = anyio.current_time()

    ended = await supervised(Scripted("a", [work]), Scripted("b", [work]), seconds=5)

    assert ended - begun == pytest.approx(5)


@pytest.mark.parametrize("ending", [die, end_by_itself])
async def test_a_bot_that_crashes_is_restarted_while_the_others_continue(
    ending: Callable[[anyio.Event], Awaitable[None]],
) -> None:
    dying, other = Scripted("dying", [ending, ending, work]), Scripted("other", [work])

    with capture_logs():
        await supervised(dying, other, seconds=60)

    assert len(dying.begun_at) == 3
    assert len(other.begun_at) == 1


async def test_the_pauses_between_restarts_grow_up_to_a_limit() -> None:
    bot, stopping = Scripted("a", [die]), anyio.Event()

    with capture_logs():
        async with anyio.create_task_group() as group:
            group.start_soon(stop_after, 600, stopping)
            await keep_running(bot, stopping, jitter=lambda pause: pause)

    pauses = [after - before for before, after in pairwise(bot.begun_at)]
    assert pauses[:7] == pytest.approx([1, 2, 4, 8, 16, 32, MAX_PAUSE_SECONDS])
    assert max(pauses) == pytest.approx(MAX_PAUSE_SECONDS)


async def test_repeated_crashes_of_one_kind_are_logged_once() -> None:
    bot = Scripted("a", [die, die, die, die_otherwise, die_otherwise, work])

    with capture_logs() as logs:
        await supervised(bot, seconds=100)

    assert [(line["event"], line["bot"]) for line in logs] == [("bot.crashed", "a")] * 2


async def test_a_bot_that_is_cancelled_from_outside_has_crashed_and_is_restarted() -> None:
    async def be_cancelled(_stopping: anyio.Event) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await anyio.sleep(1)

    bot = Scripted("a", [be_cancelled, work])
    with capture_logs() as logs:
        await supervised(bot, seconds=100)

    assert [line["event"] for line in logs] == ["bot.crashed"]
    assert len(bot.begun_at) == 2


async def test_a_bot_that_ran_well_for_long_begins_with_a_short_pause_again() -> None:
    async def live_for_an_hour(_stopping: anyio.Event) -> None:
        await anyio.sleep(3600)
        raise OSError

    bot, stopping = Scripted("a", [die, die, die, live_for_an_hour, work]), anyio.Event()

    with capture_logs():
        async with anyio.create_task_group() as group:
            group.start_soon(stop_after, 7200, stopping)
            await keep_running(bot, stopping, jitter=lambda pause: pause)

    assert bot.begun_at[4] - bot.begun_at[3] == pytest.approx(3601)


async def test_a_bot_that_waits_for_its_restart_stops_at_once() -> None:
    begun = anyio.current_time()

    with capture_logs():
        ended = await supervised(Scripted("a", [die]), seconds=100)

    assert ended - begun == pytest.approx(100)


async def test_who_does_not_finish_in_time_is_cut_off_and_named() -> None:
    begun = anyio.current_time()

    with capture_logs() as logs:
        ended = await supervised(Scripted("stuck", [never_finish]), Scripted("a", [work]), seconds=5, drain_seconds=3)

    assert ended - begun == pytest.approx(8)
    assert [(line["event"], line["bots"]) for line in logs] == [("bots.cut", ["stuck"])]


async def test_a_bot_ends_and_another_of_its_name_begins_while_the_others_go_on() -> None:
    old, new, other = Scripted("a", [work]), Scripted("a", [work]), Scripted("b", [work])
    fleet, stopping = Supervisor([old, other], drain_seconds=10), anyio.Event()

    async with anyio.create_task_group() as group:
        group.start_soon(fleet.run, stopping)
        await anyio.sleep(5)
        await fleet.stop_bot("a")
        fleet.start_bot(new)
        await anyio.sleep(5)
        stopping.set()

    assert [len(bot.begun_at) for bot in (old, new, other)] == [1, 1, 1]
    assert new.begun_at[0] - old.begun_at[0] == pytest.approx(5)


async def test_a_single_bot_that_does_not_finish_in_time_is_cut_off_alone() -> None:
    stuck, other = Scripted("stuck", [never_finish]), Scripted("b", [work])
    fleet, stopping = Supervisor([stuck, other], drain_seconds=3), anyio.Event()

    with capture_logs() as logs:
        async with anyio.create_task_group() as group:
            group.start_soon(fleet.run, stopping)
            await anyio.sleep(1)
            begun = anyio.current_time()
            await fleet.stop_bot("stuck")
            ended = anyio.current_time()
            before_the_stop = list(logs)
            stopping.set()

    assert ended - begun == pytest.approx(3)
    assert [(line["event"], line["bots"]) for line in before_the_stop] == [("bots.cut", ["stuck"])]
    assert logs == before_the_stop


async def test_a_bot_that_comes_when_all_are_to_stop_is_not_begun() -> None:
    leaving, late = Scripted("a", [never_finish]), Scripted("a", [work])
    fleet, stopping = Supervisor([leaving], drain_seconds=3), anyio.Event()

    async def swap() -> None:
        await fleet.stop_bot("a")
        fleet.start_bot(late)

    with capture_logs():
        async with anyio.create_task_group() as group:
            group.start_soon(fleet.run, stopping)
            await anyio.sleep(1)
            group.start_soon(swap)
            await anyio.sleep(1)
            stopping.set()

    assert late.begun_at == []


async def test_a_bot_whose_task_others_cancel_between_two_runs_is_named_and_the_other_bots_go_on() -> None:
    tasks: list[asyncio.Task[object] | None] = []

    async def die_in_this_task(stopping: anyio.Event) -> None:
        tasks.append(asyncio.current_task())
        await die(stopping)

    gone, other = Scripted("gone", [die_in_this_task]), Scripted("b", [work])
    fleet, stopping = Supervisor([gone, other], drain_seconds=3), anyio.Event()

    with capture_logs() as logs:
        async with anyio.create_task_group() as group:
            group.start_soon(fleet.run, stopping)
            await anyio.sleep(1)
            at_first = fleet.ended()
            assert tasks[-1] is not None
            tasks[-1].cancel()  # somebody else's hand, between two runs of the bot
            await anyio.sleep(1)
            meanwhile = fleet.ended()
            stopping.set()

    assert (at_first, meanwhile, fleet.ended()) == ([], ["gone"], [])
    assert [line["bot"] for line in logs if line["event"] == "bot.ended"] == ["gone"]
