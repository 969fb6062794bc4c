"""Everything follows its thread to its new owner: handlers, dialogs, timers, actions, receipts, new threads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel
import pytest
from azure.core.pipeline.transport import HttpRequest

from chatbot.bot.commits import ThreadCommits, WriteBehind
from chatbot.bot.lane import Lane
from chatbot.bot.poll_queue import NextRun
from chatbot.bot.status import wait_until_caught_up
from chatbot.cluster.notes import ListedThread, ThreadsListed, encode
from chatbot.errors import StoreError
from chatbot.model import ThreadId
from chatbot.stores.shards import shard_of
from chatbot.stores.writes import SetTimer
from tests.cluster.cluster import Cluster, Replica
from tests.cluster.gate import is_send
from tests.cluster.plugins import Seen, counting, echo, greeter, slow, timing

pytestmark = pytest.mark.virtual_time

End = Callable[[Replica], Awaitable[None]]
ends = pytest.mark.parametrize("end", [Replica.leave, Replica.kill], ids=["leave", "kill"])


async def answered(cluster: Cluster, thread: ThreadId, *texts: str) -> float:
    """Wait until the bot has said exactly these texts in a thread."""
    return await cluster.until(lambda: cluster.replies(thread) == [*texts])


async def two_replicas(cluster: Cluster) -> tuple[Replica, Replica]:
    one, two = await cluster.join(), await cluster.join()
    await cluster.balanced()
    return one, two


async def talking(cluster: Cluster) -> tuple[Replica, ThreadId]:
    """Let one replica answer in a thread."""
    one = await cluster.join()
    await cluster.balanced()
    thread = cluster.thread("Ann")
    cluster.say(thread, "Ann", "hi")
    await answered(cluster, thread, "hi")
    return one, thread


async def test_a_thread_moves_only_after_its_running_handler_and_the_others_at_once() -> None:
    seen = Seen()
    async with Cluster(slow(seen)) as cluster:
        one = await cluster.join()
        await cluster.balanced()
        threads = [cluster.thread("Ann") for _ in range(16)]
        cluster.say_in(threads, "Ann", "slow")
        await cluster.until(lambda: len(seen.of("slow")) == len(threads))
        two = await cluster.join()
        await cluster.until(lambda: len(two.member.owned) > 100, seconds=3)
        assert not any(two.owns(thread) for thread in threads)

        took = await cluster.balanced()
        cluster.say_in(threads, "Ann", "then")
        await cluster.until(lambda: all(cluster.replies(thread) == ["slow", "then"] for thread in threads))
        assert 20 < took < 35
        assert seen.of("slow") == [one.name] * len(threads)
        assert set(seen.of("then")) == {one.name, two.name}


async def test_a_handler_is_canceled_when_its_thread_is_lost_and_runs_again_at_the_new_owner() -> None:
    seen = Seen()
    async with Cluster(slow(seen)) as cluster:
        one, two = await two_replicas(cluster)
        thread = cluster.thread_of(one, "Ann")
        cluster.say(thread, "Ann", "slow")
        await cluster.until(lambda: seen.of("slow") == [one.name])
        one.gate.is_cut_from_database = True
        await cluster.until(lambda: seen.of("slow") == [one.name, two.name])
        one.gate.is_cut_from_database = False
        await answered(cluster, thread, "slow")
        await anyio.sleep(20)

        assert cluster.replies(thread) == ["slow"]
        assert one.member.owned | two.member.owned == frozenset(range(256))


@ends
async def test_a_dialog_goes_on_where_its_thread_goes(end: End) -> None:
    async with Cluster(greeter) as cluster:
        one, _ = await two_replicas(cluster)
        answering, silent = (cluster.thread_of(one, "Ann") for _ in "12")
        for thread in (answering, silent):
            cluster.say(thread, "Ann", "/hello")
            await answered(cluster, thread, "Who are you?")
        await end(one)
        cluster.say(answering, "Ann", "Ann")
        await answered(cluster, answering, "Who are you?", "Hello Ann!")
        await cluster.until(lambda: len(cluster.replies(silent)) == 2)

        assert cluster.replies(silent)[1].startswith("No answer came in time")


@ends
async def test_a_reply_that_waits_to_be_sent_is_sent_once_by_the_new_owner(end: End) -> None:
    async with Cluster(echo) as cluster:
        one, two = await two_replicas(cluster)
        thread = cluster.thread_of(one, "Ann")
        cluster.say(thread, "Ann", "first")
        await answered(cluster, thread, "first")
        cluster.emulator.faults.add(f"send_message:503,times=4,user={cluster.bot}")
        cluster.say(thread, "Ann", "second")
        await cluster.until(lambda: len(one.bot.scheduler.lanes[thread].commits.outbox) == 1)
        await end(one)
        await answered(cluster, thread, "first", "second")
        await anyio.sleep(30)

        assert cluster.replies(thread) == ["first", "second"]
        assert two.bot.is_settled(thread, 0)


@ends
async def test_a_receipt_that_is_due_is_sent_by_the_new_owner(end: End) -> None:
    async with Cluster(echo) as cluster:
        one, _ = await two_replicas(cluster)
        thread = cluster.thread_of(one, "Ann")
        cluster.emulator.faults.add(f"send_read_receipt:503,times=2,user={cluster.bot}")
        cluster.say(thread, "Ann", "hi")
        await answered(cluster, thread, "hi")
        await end(one)

        await cluster.until(lambda: cluster.bot in cluster.emulator.receipts(thread))


@ends
async def test_timers_fire_once_where_their_thread_is(end: End) -> None:
    seen = Seen()
    async with Cluster(timing(seen)) as cluster:
        one, two = await two_replicas(cluster)
        threads = [cluster.thread_of(replica, "Ann") for replica in (one, two) for _ in "12"]
        cluster.say_in(threads, "Ann", "/remind 30 tea")
        await cluster.until(lambda: all(len(cluster.replies(thread)) == 1 for thread in threads))
        await end(one)
        await cluster.until(lambda: all("ring tea" in cluster.replies(thread) for thread in threads))
        await anyio.sleep(20)

        assert seen.of("ring tea") == [two.name] * len(threads)


@pytest.mark.parametrize("skew", [-7200.0, 7200.0], ids=["slow", "fast"])
async def test_a_timer_fires_in_time_although_the_clock_of_one_replica_is_wrong(skew: float) -> None:
    seen = Seen()
    async with Cluster(timing(seen)) as cluster:
        right, wrong = await cluster.join(), await cluster.join(skew=skew)
        await cluster.balanced()
        threads = [cluster.thread_of(right, "Ann"), cluster.thread_of(wrong, "Ann")]
        cluster.say_in(threads, "Ann", "/remind 30 tea")
        cluster.say_in(threads, "Ann", "/remind 90 cake")
        await cluster.until(lambda: all(len(cluster.replies(thread)) == 2 for thread in threads))
        await anyio.sleep(20)
        assert seen.of("ring tea") == []
        await anyio.sleep(15)
        assert sorted(seen.of("ring tea")) == [right.name, wrong.name]
        await right.leave()
        await anyio.sleep(30)
        assert seen.of("ring cake") == []
        await anyio.sleep(30)

        assert seen.of("ring cake") == [wrong.name] * 2


@pytest.mark.parametrize("told", ["told", "not told"])
async def test_a_timer_can_be_canceled_from_a_thread_of_another_replica(told: str) -> None:
    seen = Seen()
    async with Cluster(timing(seen)) as cluster:
        one, two = await two_replicas(cluster)
        ours, theirs = cluster.thread_of(one, "Ann"), cluster.thread_of(two, "Ann")
        seconds = 60 if told == "told" else 150
        cluster.say(ours, "Ann", f"/remind {seconds} tea")
        cluster.say(theirs, "Ann", "/forget x")
        await cluster.until(lambda: len(cluster.replies(ours)) == len(cluster.replies(theirs)) == 1)
        cluster.database.loses_notes = told == "not told"
        cluster.say(theirs, "Ann", f"/forget {cluster.replies(ours)[0]}")
        await answered(cluster, theirs, "forgotten", "forgotten")
        await anyio.sleep(seconds + 10)

        assert seen.of("ring tea") == []


@pytest.mark.parametrize("told", ["told", "not told"])
async def test_an_action_for_a_thread_of_another_replica_is_carried_out_there_once(told: str) -> None:
    async with Cluster(timing(Seen())) as cluster:
        one, two = await two_replicas(cluster)
        ours, theirs = cluster.thread_of(one, "Ann"), cluster.thread_of(two, "Ann")
        cluster.say(theirs, "Ann", "/forget x")
        await answered(cluster, theirs, "forgotten")
        cluster.database.loses_notes = told == "not told"
        cluster.say(ours, "Ann", f"/tell {theirs} news")
        await answered(cluster, ours, "told")
        took = await answered(cluster, theirs, "forgotten", "news")
        await anyio.sleep(30)

        assert cluster.replies(theirs) == ["forgotten", "news"]
        assert took < (1 if told == "told" else 130)


async def test_a_timer_whose_commit_ends_when_its_thread_is_lost_does_not_fire_again_once_the_thread_is_back() -> None:
    seen = Seen()
    async with Cluster(timing(seen)) as cluster:
        one, two = await two_replicas(cluster)
        thread = cluster.thread_of(one, "Ann")
        cluster.say(thread, "Ann", "/remind 40 tea")
        await cluster.until(lambda: len(cluster.replies(thread)) == 1)
        [record] = [timer for timer in await one.store.timers(cluster.bot) if timer.thread == thread]
        two.bot.context.conversations.apply([SetTimer(record)])  # two has just lost the thread
        await cluster.until(lambda: len(cluster.replies(thread)) == 2)
        await anyio.sleep(5)
        await one.leave()
        await cluster.balanced()
        await anyio.sleep(30)

        assert seen.of("ring tea") == [one.name]


async def test_a_schedule_whose_commit_ends_when_the_bot_is_lost_runs_only_at_the_new_owner() -> None:
    seen = Seen()
    async with Cluster(timing(seen)) as cluster:
        replicas = await two_replicas(cluster)
        owner = cluster.owner_of_bot
        other = next(replica for replica in replicas if replica is not owner)
        records = [timer for timer in await other.store.timers(cluster.bot) if timer.thread is None]
        assert records
        other.bot.context.conversations.apply([SetTimer(record) for record in records])
        seen.calls.clear()
        await anyio.sleep(65)

        assert owner is not None
        assert seen.of("tick") == [owner.name] * 2


async def test_what_a_lost_thread_had_deferred_is_not_stored_once_it_is_owned_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Cluster(echo) as cluster:
        one, thread = await talking(cluster)
        context = one.bot.context
        [record] = await one.store.threads(cluster.bot)
        write_behind = WriteBehind(context)
        commits = ThreadCommits(context, one.bot.scheduler.lanes[thread].state, write_behind, record=record)
        message_id = max(record.base, *record.seen) + 1000
        commits.mark_handled(message_id, message_id)
        write_behind.add(commits)

        async def lose(*_: object, **__: object) -> None:
            one.bot.lose(frozenset({shard_of(thread)}))
            write_behind.forget(thread)
            msg = "the connection broke"
            raise StoreError(msg)

        with monkeypatch.context() as broken:
            broken.setattr(one.store, "commit", lose)
            await write_behind.write()
        await write_behind.write()
        [record] = await one.store.threads(cluster.bot)

        assert message_id not in record.seen


async def test_a_turn_that_has_not_begun_when_its_thread_is_lost_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Lane] = []
    run = Lane.run

    async def noted(lane: Lane) -> NextRun:
        begun.append(lane)
        return await run(lane)

    async with Cluster(echo) as cluster:
        one, thread = await talking(cluster)
        scheduler = one.bot.scheduler
        await cluster.until(lambda: thread not in scheduler.working, step=0.013)
        lane = scheduler.lanes[thread]
        monkeypatch.setattr(Lane, "run", noted)
        scheduler.schedule(thread)
        while thread not in scheduler.working:
            await anyio.lowlevel.checkpoint()
        one.bot.lose(frozenset({shard_of(thread)}))
        await anyio.sleep(1)

        assert lane not in begun


async def test_what_a_restarted_bot_had_deferred_in_a_thread_is_not_stored_after_the_thread_was_lost() -> None:
    async with Cluster(echo) as cluster:
        one, thread = await talking(cluster)
        await anyio.sleep(3)
        commits = one.bot.scheduler.lanes[thread].commits
        message_id = commits.cursor.top + 1000
        commits.mark_handled(message_id, message_id)
        commits.schedule_writes()
        one.bot.scheduler.restart()
        one.bot.lose(frozenset({shard_of(thread)}))
        await anyio.sleep(3)
        [record] = await one.store.threads(cluster.bot)

        assert message_id not in record.seen


async def test_a_note_that_cannot_be_handled_ends_no_process() -> None:
    async with Cluster(echo) as cluster:
        replicas = await two_replicas(cluster)
        threads = [cluster.thread_of(replica, "Ann") for replica in replicas]
        no_time = 10**30
        listed = tuple(ListedThread(thread, no_time) for thread in threads)
        cluster.database.notify(encode(ThreadsListed(cluster.bot, no_time, listed)))
        await anyio.sleep(1)
        cluster.say_in(threads, "Ann", "hi")
        for thread in threads:
            await answered(cluster, thread, "hi")

        assert cluster.running == list(replicas)


@ends
async def test_schedules_run_once_in_the_cluster_and_go_on_elsewhere(end: End) -> None:
    seen = Seen()
    async with Cluster(timing(seen)) as cluster:
        await two_replicas(cluster)
        await anyio.sleep(95)
        first = cluster.owner_of_bot
        assert first is not None
        before = len(seen.of("tick"))
        await end(first)
        await anyio.sleep(90)

        assert before == 3
        assert len(seen.of("tick")) == 6
        assert len(set(seen.of("tick"))) == 2


async def test_the_start_is_announced_by_each_process_that_takes_the_bot_over() -> None:
    seen = Seen()
    async with Cluster(timing(seen)) as cluster:
        await two_replicas(cluster)
        first = cluster.owner_of_bot
        assert first is not None
        await first.leave()
        second = cluster.running[0]
        await cluster.until(lambda: len(second.member.owned) == 256)
        await anyio.sleep(5)
        await second.leave()
        assert seen.of("started")[-2:] == [first.name, second.name]
        assert len(seen.of("started")) == len(seen.of("stopping")) <= 3

        events = [(replica, text) for replica, thread, text in seen.calls if not thread and text != "tick"]
        assert events[-4:] == [
            (first.name, "started"),
            (first.name, "stopping"),
            (second.name, "started"),
            (second.name, "stopping"),
        ]


async def test_a_state_of_the_bot_counts_what_all_replicas_see() -> None:
    seen = Seen()
    async with Cluster(counting(seen)) as cluster:
        one, two = await two_replicas(cluster)
        threads = [cluster.thread_of(replica, "Ann") for replica in (one, two) for _ in "123"]
        for _ in "12":
            cluster.say_in(threads, "Ann", "hi")
        await cluster.until(lambda: sum(len(cluster.replies(thread)) for thread in threads) == 12)

        said = sorted(int(text) for thread in threads for text in cluster.replies(thread))
        assert said == list(range(1, 13))
        assert len(seen.calls) > 12  # some were repeated after a conflict
        assert set(seen.of("hi")) == {one.name, two.name}


@pytest.mark.parametrize("trouble", ["leave", "kill", "cut", "freeze"])
async def test_new_threads_are_found_although_the_replica_that_lists_them_is_gone(trouble: str) -> None:
    async with Cluster(echo) as cluster:
        await two_replicas(cluster)
        lister = cluster.owner_of_bot
        assert lister is not None
        match trouble:
            case "leave":
                await lister.leave()
            case "kill":
                await lister.kill()
            case "cut":
                lister.gate.is_cut_from_database = lister.gate.is_cut_from_service = True
            case _:
                lister.pause()
        threads = [cluster.thread("Ann") for _ in range(8)]
        cluster.say_in(threads, "Ann", "hi")
        took = await cluster.until(lambda: all(cluster.replies(thread) == ["hi"] for thread in threads))
        await anyio.sleep(20)

        assert took < 12
        assert all(cluster.replies(thread) == ["hi"] for thread in threads)


async def test_a_reply_that_a_frozen_replica_sends_after_its_thread_was_taken_over_is_healed() -> None:
    async with Cluster(echo) as cluster:
        one, _ = await two_replicas(cluster)
        thread = cluster.thread_of(one, "Ann")
        cluster.say(thread, "Ann", "first")
        await answered(cluster, thread, "first")

        def pause_before_send(request: HttpRequest) -> None:
            if is_send(request):
                one.pause()

        one.gate.on_request = pause_before_send
        cluster.say(thread, "Ann", "second")
        await answered(cluster, thread, "first", "second")
        assert one.gate.is_closed
        one.gate.on_request = lambda _request: None
        one.resume()
        await cluster.until(lambda: sum(cluster.healed.values()) == 1)
        await answered(cluster, thread, "first", "second")
        await anyio.sleep(20)

        assert cluster.replies(thread) == ["first", "second"]
        assert cluster.healed.total() == 1


async def test_a_handler_that_kills_its_process_is_given_up_after_some_deaths_and_hurts_nobody_else() -> None:
    seen = Seen()
    async with Cluster(slow(seen)) as cluster:
        for _ in range(7):
            await cluster.join()
        await cluster.balanced()
        deadly, harmless = cluster.thread("Ann"), cluster.thread("Ann")
        cluster.say(deadly, "Ann", "slow and deadly")
        for deaths in range(4):
            await cluster.until(lambda deaths=deaths: len(seen.of("slow and deadly")) == deaths + 1)  # type: ignore[misc]
            name = seen.of("slow and deadly")[-1]
            await next(replica for replica in cluster.replicas if replica.name == name).kill()
        cluster.say(harmless, "Ann", "hi")
        await answered(cluster, harmless, "hi")
        cluster.say(deadly, "Ann", "hi")
        await cluster.until(lambda: "hi" in cluster.replies(deadly))

        assert len(seen.of("slow and deadly")) == 4
        assert len(cluster.running) == 3
        letters = await cluster.running[0].store.dead_letters(cluster.bot)
        assert [letter.error for letter in letters] == [
            "RuntimeError: the process died 3 times while this event was being handled"
        ]


async def test_a_run_that_ends_by_itself_handles_what_it_owns() -> None:
    seen = Seen()
    async with Cluster(slow(seen, seconds=5)) as cluster:
        first = await cluster.join()
        await cluster.balanced()
        threads = [cluster.thread("Ann") for _ in range(16)]
        cluster.say_in(threads, "Ann", "hi")
        await cluster.until(lambda: all(cluster.replies(thread) == ["hi"] for thread in threads))
        first.gate.is_cut_from_service = True
        cluster.say_in(threads, "Ann", "slow")
        second = await cluster.join()
        await second.member.has_gained.wait()
        await wait_until_caught_up(second.bot)
        ours = [thread for thread in threads if second.owns(thread)]
        assert ours
        assert set(seen.of("slow")) == {second.name}
        assert all(cluster.replies(thread) == ["hi", "slow"] for thread in ours)

        await second.leave()
        first.gate.is_cut_from_service = False
        await cluster.until(lambda: all(cluster.replies(thread) == ["hi", "slow"] for thread in threads))
