"""Commands of an operator, whichever replica they are run at: pauses, dead letters, dialogs, timers, erasure."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import anyio
import pytest

from chatbot import BotState, Context, Plugin
from chatbot.cluster.notes import Answered, Asked
from chatbot.cluster.requests import ReplicaAnswer
from chatbot.errors import StateError, StoreError
from chatbot.model import ThreadId
from chatbot.runtime.replicas import ERASE, WAIT
from tests.cluster.cluster import Replica
from tests.cluster.operators import OperatedCluster, OperatedReplica, outcomes
from tests.cluster.plugins import Seen, echo, greeter, slow, timing

pytestmark = pytest.mark.virtual_time


async def answered(cluster: OperatedCluster, thread: ThreadId, *texts: str) -> None:
    await cluster.until(lambda: cluster.replies(thread) == [*texts])


# ── pause and resume ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_pause_at_one_replica_pauses_the_bot_in_all_before_it_is_answered() -> None:
    async with OperatedCluster(echo) as cluster:
        one, two = await cluster.two()
        threads = [cluster.thread_of(replica, "Ann") for replica in (one, two)]
        answer = await one.pauses.pause("bot")
        assert [there["outcome"] for there in answer["replicas"]] == ["done"]
        assert one.is_paused
        assert two.is_paused

        cluster.say_in(threads, "Ann", "hi")
        await anyio.sleep(60)
        assert not any(cluster.replies(thread) for thread in threads)
        await two.pauses.resume("bot", is_skipping=False)
        await cluster.until(lambda: all(cluster.replies(thread) == ["hi"] for thread in threads))


async def test_a_resume_that_skips_passes_over_the_messages_in_the_threads_of_all_replicas() -> None:
    async with OperatedCluster(echo) as cluster:
        one, two = await cluster.two()
        threads = [cluster.thread_of(replica, "Ann") for replica in (one, two)]
        cluster.say_in(threads, "Ann", "hi")
        await cluster.until(lambda: all(cluster.replies(thread) == ["hi"] for thread in threads))
        await one.pauses.pause("bot")
        cluster.say_in(threads, "Ann", "missed")
        await anyio.sleep(20)
        await one.pauses.resume("bot", is_skipping=True)
        await anyio.sleep(20)
        cluster.say_in(threads, "Ann", "bye")
        await cluster.until(lambda: all(cluster.replies(thread) == ["hi", "bye"] for thread in threads))


async def test_a_pause_is_followed_although_the_note_of_it_is_lost() -> None:
    async with OperatedCluster(echo) as cluster:
        one, two = await cluster.two()
        cluster.database.loses_notes = True
        answer = await one.pauses.pause("bot")
        assert [there["outcome"] for there in answer["replicas"]] == [None]
        await cluster.until(lambda: two.is_paused, seconds=15)
        await one.pauses.resume("bot", is_skipping=False)
        await cluster.until(lambda: two.bot.is_started, seconds=15)


async def test_two_operators_who_pause_at_two_replicas_do_not_wait_for_each_other() -> None:
    async with OperatedCluster(echo) as cluster:
        one, two = await cluster.two()
        begun = anyio.current_time()
        async with anyio.create_task_group() as group:
            group.start_soon(one.pauses.pause, "bot")
            group.start_soon(two.pauses.pause, "bot")

        assert one.is_paused
        assert two.is_paused
        assert anyio.current_time() - begun < 5


async def test_a_replica_that_joins_a_paused_bot_does_not_run_it_and_one_that_gains_its_shards_neither() -> None:
    async with OperatedCluster(echo) as cluster:
        one, two = await cluster.two()
        thread = cluster.thread_of(one, "Ann")
        await one.pauses.pause("bot")
        await one.kill()
        await cluster.until(lambda: len(two.member.owned) == 256)
        cluster.say(thread, "Ann", "hi")
        await anyio.sleep(30)
        assert cluster.replies(thread) == []
        await two.pauses.resume("bot", is_skipping=False)
        await answered(cluster, thread, "hi")


async def trouble(cluster: OperatedCluster, dice: random.Random) -> None:
    """Let an operator pause or resume somewhere, or something break."""
    replica = dice.choice(cluster.running)
    assert isinstance(replica, OperatedReplica)
    match dice.choice(("pause", "resume", "kill", "freeze", "cut")):
        case "pause":
            await replica.pauses.pause("bot")
        case "resume":
            await replica.pauses.resume("bot", is_skipping=False)
        case "kill":
            await replica.kill()
            await cluster.join()
            await anyio.sleep(1)
        case "freeze":
            replica.pause()
            await anyio.sleep(dice.choice((1, 10)))
            replica.resume()
        case _:
            replica.gate.is_cut_from_database = True
            await anyio.sleep(dice.choice((1, 10)))
            replica.gate.is_cut_from_database = False


async def test_whatever_happens_meanwhile_all_replicas_follow_the_last_pause_or_resume() -> None:
    dice = random.Random(int(os.environ.get("OPERATORS_SEED", "3")))
    async with OperatedCluster(echo) as cluster:
        await cluster.two()
        threads = [cluster.thread("Ann") for _ in "123"]
        said: list[str] = []

        async def talk() -> None:
            for _ in range(20):
                said.append(f"{len(said)}")
                cluster.say_in(threads, "Ann", said[-1])
                await anyio.sleep(2)

        async with anyio.create_task_group() as group:
            group.start_soon(talk)
            for _ in range(10):
                await anyio.sleep(dice.uniform(0.1, 3))
                with suppress(StoreError), anyio.move_on_after(60):
                    await trouble(cluster, dice)
        await anyio.sleep(20)
        replica = cluster.running[0]
        assert isinstance(replica, OperatedReplica)
        await replica.pauses.resume("bot", is_skipping=False)
        await cluster.until(lambda: all(len(cluster.replies(thread)) >= len(said) for thread in threads))
        await anyio.sleep(20)

        assert cluster.all_replies(threads) == dict.fromkeys(threads, said)


# ── dead letters ──────────────────────────────────────────────────────────────────────────────────────────────────


def failing(is_broken: list[bool]) -> Callable[[Replica], Sequence[Plugin]]:
    """Repeat what people say, or fail."""

    def plugins(_replica: Replica) -> Sequence[Plugin]:
        plugin = Plugin("failing")

        @plugin.message()
        async def repeat(ctx: Context) -> str:
            if is_broken:
                raise ValueError
            return ctx.text

        return [plugin]

    return plugins


async def with_a_letter(cluster: OperatedCluster, owner: OperatedReplica) -> tuple[ThreadId, str]:
    """Let an event fail for good in a thread of this replica; return the thread and the id of the letter."""
    thread = cluster.thread_of(owner, "Ann")
    cluster.say(thread, "Ann", "hi")
    while not (letters := await owner.store.dead_letters(owner.bot.user)):  # noqa: ASYNC110 the store sets no event
        await anyio.sleep(1)
    return thread, letters[0].id


@pytest.mark.parametrize("told", ["told", "not told"])
async def test_a_dead_letter_is_retried_by_the_owner_of_its_thread_at_once(told: str) -> None:
    is_broken = [True]
    async with OperatedCluster(failing(is_broken), raises_failures=False) as cluster:
        one, two = await cluster.two()
        thread, letter = await with_a_letter(cluster, two)
        is_broken.clear()
        cluster.database.loses_notes = told == "not told"
        answer = await one.command("dead-letters retry", id=letter)
        assert answer["letters"][0]["outcome"] == "now"
        took = await cluster.until(lambda: cluster.replies(thread) == ["hi"])
        await anyio.sleep(5)

        assert cluster.replies(thread) == ["hi"]
        assert await one.command("dead-letters list") == {"letters": [], "left_out": 0}
        assert took < (3 if told == "told" else 150)


async def test_a_dead_letter_that_is_dropped_elsewhere_is_not_retried() -> None:
    is_broken = [True]
    async with OperatedCluster(failing(is_broken), raises_failures=False) as cluster:
        one, two = await cluster.two()
        thread, letter = await with_a_letter(cluster, two)
        two.gate.is_cut_from_service = True
        await one.command("dead-letters retry", id=letter)
        await one.command("dead-letters drop", id=letter)
        await anyio.sleep(10)
        is_broken.clear()
        two.gate.is_cut_from_service = False
        await anyio.sleep(60)

        assert cluster.replies(thread) == []
        assert await two.command("dead-letters list") == {"letters": [], "left_out": 0}


async def test_a_retry_that_was_requested_while_the_owner_dies_is_made_by_the_next_one() -> None:
    is_broken = [True]
    async with OperatedCluster(failing(is_broken), raises_failures=False) as cluster:
        one, two = await cluster.two()
        thread, letter = await with_a_letter(cluster, two)
        is_broken.clear()
        two.pause()
        await one.command("dead-letters retry", id=letter)
        await two.kill()
        await answered(cluster, thread, "hi")


# ── dialogs and timers ────────────────────────────────────────────────────────────────────────────────────────────


async def entry(replica: OperatedReplica, kind: str) -> str:
    listed = await replica.command("state list")
    (found,) = (one["id"] for one in listed["entries"] if one["kind"] == kind and one["thread"])
    return str(found)


async def test_a_dialog_is_ended_from_a_replica_that_does_not_serve_its_thread() -> None:
    async with OperatedCluster(greeter) as cluster:
        one, two = await cluster.two()
        thread = cluster.thread_of(two, "Ann")
        cluster.say(thread, "Ann", "/hello")
        await answered(cluster, thread, "Who are you?")
        await one.command("state end-dialog", id=await entry(one, "dialog"))
        cluster.say(thread, "Ann", "Ann")
        await anyio.sleep(200)

        assert cluster.replies(thread) == ["Who are you?"]
        assert (await two.command("state list"))["entries"] == []


async def test_a_timer_is_canceled_from_a_replica_that_does_not_serve_its_thread() -> None:
    seen = Seen()
    async with OperatedCluster(timing(seen)) as cluster:
        one, two = await cluster.two()
        thread = cluster.thread_of(two, "Ann")
        cluster.say(thread, "Ann", "/remind 60 tea")
        await cluster.until(lambda: len(cluster.replies(thread)) == 1)
        await one.command("state cancel-timer", id=await entry(one, "timer"))
        await anyio.sleep(90)

        assert seen.of("ring tea") == []


# ── erasure ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Said:
    """What people have said last, by their ids."""

    texts: dict[str, str] = field(default_factory=dict)


def remembering(seen: Seen) -> Callable[[Replica], Sequence[Plugin]]:
    """Keep what people have said last, for all to see."""

    def plugins(replica: Replica) -> Sequence[Plugin]:
        plugin = Plugin("remembering")

        @plugin.message()
        async def remember(ctx: Context, said: BotState[Said]) -> str:
            seen.note(replica, ctx.thread, ctx.text)
            if ctx.text.startswith("slow"):
                await anyio.sleep(5)
            assert ctx.sender is not None
            said.value = Said({**said.value.texts, ctx.sender.user: ctx.text})
            return f"{ctx.sender.user} said {ctx.text}"

        return [plugin]

    return plugins


async def about(replica: OperatedReplica, person: str) -> list[object]:
    return list((await replica.command("state export", user=person))["records"])


async def test_a_person_is_erased_from_the_memory_of_all_replicas_before_the_rows() -> None:
    async with OperatedCluster(echo) as cluster:
        one, two = await cluster.two()
        thread = cluster.thread_of(two, "Ann")
        cluster.say(thread, "Ann", "hi")
        await answered(cluster, thread, "hi")
        cluster.emulator.faults.add(f"send_message:503,times=1000,user={cluster.bot}")
        cluster.say(thread, "Ann", "my secret")
        await cluster.until(lambda: len(two.bot.scheduler.lanes[thread].commits.outbox) == 1)
        answer = await one.command("state forget", user=cluster.person("Ann"))
        cluster.emulator.faults.clear()
        await anyio.sleep(60)

        assert answer["is_complete"]
        assert [there["outcome"] for there in answer["replicas"]] == ["done"]
        assert cluster.replies(thread) == ["hi"]
        assert await about(two, cluster.person("Ann")) == []


async def test_an_erasure_waits_for_handlers_of_other_replicas_that_may_write_about_the_person() -> None:
    seen = Seen()
    async with OperatedCluster(remembering(seen)) as cluster:
        one, two = await cluster.two()
        thread = cluster.thread_of(two, "Ann")
        cluster.say(cluster.thread_of(one, "Bob"), "Bob", "hello")
        cluster.say(thread, "Ann", "slow secret")
        await cluster.until(lambda: seen.of("slow secret") == [two.name])
        answer = await one.command("state forget", user=cluster.person("Ann"))
        await anyio.sleep(30)
        ((_, state),) = await one.store.every_state(one.bot.user)

        assert answer["is_complete"]
        assert await about(one, cluster.person("Ann")) == []
        assert cluster.person("Ann") not in state.value
        assert cluster.person("Bob") in state.value


async def test_nothing_of_an_erased_person_comes_back_with_a_thread_that_moves_meanwhile() -> None:
    async with OperatedCluster(echo) as cluster:
        one, two = await cluster.two()
        threads = [cluster.thread_of(two, "Ann") for _ in "123"]
        cluster.say_in(threads, "Ann", "hi")
        await cluster.until(lambda: all(cluster.replies(thread) == ["hi"] for thread in threads))
        cluster.emulator.faults.add(f"send_message:503,times=1000,user={cluster.bot}")
        cluster.say_in(threads, "Ann", "my secret")
        await cluster.until(lambda: all(len(two.bot.scheduler.lanes[one].commits.outbox) == 1 for one in threads))
        await two.kill()
        await one.command("state forget", user=cluster.person("Ann"))
        cluster.emulator.faults.clear()
        await cluster.until(lambda: len(one.member.owned) == 256)
        await anyio.sleep(60)

        assert all(cluster.replies(thread) == ["hi"] for thread in threads)
        assert await about(one, cluster.person("Ann")) == []


@pytest.mark.parametrize("trouble", ["paused", "cut from the database", "a handler that takes long"])
async def test_a_replica_that_does_not_confirm_an_erasure_is_named(trouble: str) -> None:
    seen = Seen()
    async with OperatedCluster(slow(seen, seconds=90)) as cluster:
        one, two = await cluster.two()
        thread = cluster.thread_of(two, "Ann")
        cluster.say(thread, "Ann", "slow")
        await cluster.until(lambda: bool(seen.calls))
        if trouble == "paused":
            two.pause()
        two.gate.is_cut_from_database = trouble == "cut from the database"
        begun = anyio.current_time()
        answer = await one.command("state forget", user=cluster.person("Ann"))

        assert not answer["is_complete"]
        assert [there["name"] for there in answer.get("replicas", ())] in ([two.name], [])
        assert anyio.current_time() - begun < 60


# ── requests ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def asked(cluster: OperatedCluster, one: OperatedReplica, *, heals_after: float) -> list[ReplicaAnswer]:
    """Ask the others of a replica for work, while notes may be lost for some seconds."""

    async def heal() -> None:
        await anyio.sleep(heals_after)
        cluster.database.loses_notes = False

    async with anyio.create_task_group() as group:
        group.start_soon(heal)
        return await one.member.requests.ask("work", "it", seconds=30)
    raise AssertionError


async def test_a_request_is_repeated_until_it_is_answered_and_done_once() -> None:
    async with OperatedCluster(echo) as cluster:
        one, two = await cluster.two()
        done: list[str] = []

        async def do(subject: str, _options: Sequence[str]) -> str:
            done.append(subject)
            await anyio.sleep(5)
            return "done"

        two.member.requests.answerers = {"work": do}
        cluster.database.loses_notes = True
        replies = await asked(cluster, one, heals_after=3)

        assert outcomes(replies) == {two.name: "done"}
        assert done == ["it"]


async def test_an_answer_that_is_lost_is_given_again() -> None:
    async with OperatedCluster(echo) as cluster:
        one, two = await cluster.two()
        done: list[str] = []

        async def do(subject: str, _options: Sequence[str]) -> str:
            done.append(subject)
            cluster.database.loses_notes = len(done) == 1
            return "done"

        two.member.requests.answerers = {"work": do}
        replies = await asked(cluster, one, heals_after=1)

        assert outcomes(replies) == {two.name: "done"}
        assert done == ["it"]


async def test_what_a_replica_does_not_know_or_cannot_do_is_said_and_ends_nothing() -> None:
    async with OperatedCluster(echo) as cluster:
        one, two = await cluster.two()

        async def refuse(_subject: str, _options: Sequence[str]) -> str:
            raise StateError("not now")

        async def crash(_subject: str, _options: Sequence[str]) -> str:
            raise ZeroDivisionError

        two.member.requests.answerers = {"refused": refuse, "crashing": crash}
        for what, outcome in (("newer", "unknown"), ("refused", "failed"), ("crashing", "failed")):
            assert outcomes(await one.member.requests.ask(what, seconds=10)) == {two.name: outcome}
        assert two.is_running


async def test_a_silent_replica_is_named_when_the_time_has_passed() -> None:
    async with OperatedCluster(echo) as cluster:
        one, two = await cluster.two()
        two.pause()
        begun = anyio.current_time()
        assert outcomes(await one.member.requests.ask(WAIT, seconds=4)) == {two.name: None}
        assert anyio.current_time() - begun == pytest.approx(4, abs=0.5)


async def test_a_replica_alone_asks_nobody_and_one_without_a_database_says_so() -> None:
    async with OperatedCluster(echo) as cluster:
        one = await cluster.join()
        assert await one.member.requests.ask(ERASE, "8:acs:ann", seconds=60) == []
        one.gate.is_cut_from_database = True
        with pytest.raises(StoreError):
            await one.member.requests.ask(ERASE, "8:acs:ann", seconds=60)


async def test_an_id_that_no_note_can_carry_is_refused_before_anything_is_erased() -> None:
    async with OperatedCluster(echo) as cluster:
        one, _ = await cluster.two()
        with pytest.raises(StateError, match="too long"):
            await one.command("state forget", user="8:acs:" + "x" * 8000)


async def test_answers_to_requests_that_nobody_has_made_are_ignored() -> None:
    async with OperatedCluster(echo) as cluster:
        one, _ = await cluster.two()
        one.member.requests.receive(Answered("x", "y", "done"))
        one.member.requests.receive(Asked("x", "nobody", WAIT, "", ()))
        await anyio.sleep(1)

        assert one.is_running
