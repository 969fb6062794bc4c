"""The promise under any history: hypothesis generates the stories, a model predicts their outcome.

A state machine collects the steps of a story, which then run in one task. Longer runs:
`CHATBOT_STORIES=2000 pytest -m chaos tests/flow/test_promise_machine.py --timeout=0`.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from chatbot import (
    Context,
    MessageDeleted,
    MessageEdited,
    ParticipantsAdded,
    ParticipantsRemoved,
    Plugin,
    Retry,
    State,
)
from chatbot.bot import BotSettings
from chatbot.dispatch import Ack
from chatbot.emulator import Emulator, World
from chatbot.model import MessageId
from chatbot.stores import MemoryStore
from chatbot.testing.crash_injection import CrashableProcess, CrashPlan
from chatbot.testing.harness import VIRTUAL_CADENCE, VIRTUAL_LIMIT, Harness, run_harness
from chatbot.testing.process import BotOptions, BotSpec
from chatbot.testing.room import Room
from chatbot.testing.virtual_time import VirtualClock, VirtualTimeLoop, store_in_real_time, virtual_loop

FEW = 8
STORIES = int(os.environ.get("CHATBOT_STORIES", "20"))

FAULTS = [
    "*:503,probability=0.4,times=10",
    "*:429,probability=0.4,times=10",
    "*:reset,probability=0.4,times=10",
    "*:reset-after,probability=0.4,times=10",
    "*:latency=0.1..20,times=10",
    "*:hang,times=2",
    "*:expired-token,times=3",
    "list_messages:truncate,times=3",
    "send_message:500,after=true,times=2",
    "send_message:stale=20,times=2",
]

RETENTION = timedelta(minutes=30)
"""Short, so that within a story the store forgets what it may forget."""


@dataclass
class Tally:
    count: int = 0


def witness() -> Plugin:
    """Says of everything it hears that it heard it; fails twice at what is shaky, and always at what is poison."""
    plugin = Plugin("witness")
    failures: dict[str, int] = {}

    @plugin.message(retry=Retry(attempts=4))
    async def received(ctx: Context, tally: State[Tally]) -> str:
        tally.value.count += 1
        failures[ctx.event.key] = failures.get(ctx.event.key, 0) + 1
        if "poison" in ctx.text or ("shaky" in ctx.text and failures[ctx.event.key] <= 2):
            raise ValueError(ctx.text)
        return f"{tally.value.count}: heard {ctx.text}"

    @plugin.on(MessageEdited)
    async def edited(ctx: Context[MessageEdited]) -> str:
        return f"edited {ctx.text}"

    @plugin.on(MessageDeleted)
    async def deleted(ctx: Context[MessageDeleted]) -> str:
        return f"deleted {ctx.event.message.id}"

    @plugin.on(ParticipantsAdded)
    async def came(ctx: Context[ParticipantsAdded]) -> str:
        return f"hello {ctx.event.message.id}"

    @plugin.on(ParticipantsRemoved)
    async def left(ctx: Context[ParticipantsRemoved]) -> str:
        return f"goodbye {ctx.event.message.id}"

    return plugin


@dataclass
class Said:
    """What the model knows of a message: every content it ever had, and whether it was taken back."""

    number: int
    id: MessageId | None = None
    texts: list[str] = field(default_factory=list)
    is_deleted: bool = False


class Story:
    """A story being played: the room, its people, and the model of what they did."""

    def __init__(self, room: Room, fate: CrashPlan, harness: Harness) -> None:
        self.room = room
        self.fate = fate
        self.harness = harness
        self.said: list[Said] = []
        self.ann = room.user("Ann")

    @property
    def is_down(self) -> bool:
        return not self.harness.process.is_running

    async def in_a_hurry(self, act: Callable[[], Awaitable[object]], *, is_patient: bool) -> None:
        """Do something, and wait for the bot or not."""
        if is_patient:
            await act()
        else:
            with self.room.not_waiting():
                await act()

    async def say(self, kind: str, *, is_patient: bool) -> None:
        said = Said(len(self.said))
        self.said.append(said)
        said.texts.append(f"{said.number}.0 {kind}")

        async def act() -> None:
            with self.room.not_waiting():
                said.id = await self.ann.says(said.texts[0])
            await self.room.settle()

        await self.in_a_hurry(act, is_patient=is_patient)

    async def edit(self, which: int, *, is_patient: bool) -> None:
        said = self._chosen(which)
        if said is not None:
            said.texts.append(f"{said.number}.{len(said.texts)} plain")
            await self.in_a_hurry(lambda: self.ann.edits(said.texts[-1], said.id), is_patient=is_patient)

    async def delete(self, which: int, *, is_patient: bool) -> None:
        said = self._chosen(which)
        if said is not None:
            said.is_deleted = True
            await self.in_a_hurry(lambda: self.ann.deletes(said.id), is_patient=is_patient)

    def _chosen(self, which: int) -> Said | None:
        living = [said for said in self.said if not said.is_deleted]
        return living[which % len(living)] if living else None

    async def visit(self, *, is_patient: bool) -> None:
        """Ben comes, or goes if he is there."""
        ben = self.room.user("Ben")
        is_there = self.room.is_open and self.room.stage.is_in(self.room.thread, ben.user)
        await self.in_a_hurry(ben.leaves if is_there else ben.joins, is_patient=is_patient)

    async def kill(self) -> None:
        await self.room.kill()

    async def stop(self) -> None:
        if not self.is_down:
            await self.room.stop()

    async def start(self) -> None:
        if self.is_down:
            await self.room.start()

    async def doom(self, points: int) -> None:
        self.fate.crash_after(points)

    async def trouble(self, fault: str) -> None:
        self.room.emulator.faults.add(f"{fault},user={self.room.bot.user}")

    async def double(self) -> None:
        """The bot's next message is sent twice: its answer is lost, and it shows after its proof was looked for."""
        for fault in ("reset-after", "stale=8"):
            await self.trouble(f"send_message:{fault},times=1")

    async def wait(self, minutes: int) -> None:
        await self.room.advance(minutes=minutes)

    async def end(self) -> None:
        """Nothing goes wrong any more, and all that is owed comes."""
        self.fate.cancel()
        self.room.emulator.faults.clear()
        await self.start()
        await self.room.advance(timedelta(hours=3))


Step = Callable[[Story], Awaitable[None]]


async def play(steps: list[Step]) -> None:
    """Play a story, and hold what came of it against the model."""
    loop, fate, store = virtual_loop(), CrashPlan(), MemoryStore()
    assert loop is not None
    manners = BotSettings(cadence=VIRTUAL_CADENCE, retention=RETENTION)
    part = BotSpec("bot", (), BotOptions(manners, Ack.HANDLED))
    harness = Harness(
        Emulator(World(seed=0), clock=VirtualClock(loop)),
        store_in_real_time(store, loop),
        [part],
        patience=VIRTUAL_LIMIT,
        raise_failures=False,
        process=partial(CrashableProcess, plan=fate, plugins=lambda _part: [witness()]),
    )
    random.seed(0)
    async with run_harness(harness) as room:
        story = Story(room, fate, harness)
        await story.ann.joins()
        for step in steps:
            await step(story)
        await story.end()
        dead_letters = await store.dead_letters(room.bot.user)
        check(story, {letter.event.key for letter in dead_letters}, may_bury=len(fate.crashes) >= 3)
        assert await store.pending(room.bot.user) == []


def check(story: Story, buried: set[str], *, may_bury: bool) -> None:
    """What the promise says of everything that was done."""
    replies = story.room.replies
    assert len(set(replies)) == len(replies), "a reply is there twice"
    for said in story.said:
        check_message(said, replies, is_buried=said.id in buried, may_bury=may_bury)
    for message in story.room.messages:
        if message.type in {"participantAdded", "participantRemoved"}:
            others = [one for one in message.participants if one.user != story.room.bot.user]
            word = "hello" if message.type == "participantAdded" else "goodbye"
            if others and str(message.id) not in buried:
                assert f"{word} {message.id}" in replies
    heard = [(int(match[1]), int(match[2])) for text in replies if (match := re.match(r"(\d+): heard (\d+)\.", text))]
    assert [count for count, _ in heard] == [*range(1, len(heard) + 1)], "state and replies disagree"
    numbers = [number for _, number in heard]
    assert numbers == sorted(numbers), "replies stand in another order than what they reply to"


def check_message(said: Said, replies: list[str], *, is_buried: bool, may_bury: bool) -> None:
    """What must have come of one message, whenever the bot looked: its contents in their order, up to the last one."""
    spoken = [int(match[1]) for text in replies if (match := re.search(rf"\b{said.number}\.(\d+) ", text))]
    heard = [text for text in replies if re.search(rf": heard {said.number}\.", text)]
    farewells = replies.count(f"deleted {said.id}")
    assert spoken == sorted(set(spoken)), f"{said}: corrections out of order: {replies}"
    if is_buried:
        assert may_bury or "poison" in said.texts[0], f"{said} was given up"
    elif said.is_deleted:
        assert farewells == (1 if heard else 0), f"{said}: {replies}"
    else:
        assert len(heard) == 1, f"{said} was not answered: {replies}"
        assert spoken[-1] == len(said.texts) - 1, f"{said}: its last correction was missed: {replies}"


class Promise(RuleBasedStateMachine):
    """Collects the steps of a story."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.is_up = True

    @rule(kind=st.sampled_from(["plain", "plain", "plain", "shaky", "poison"]), is_patient=st.booleans())
    def say(self, kind: str, is_patient: bool) -> None:
        self.steps.append(lambda story: story.say(kind, is_patient=is_patient))

    @rule(which=st.integers(0, 3), is_patient=st.booleans())
    def edit(self, which: int, is_patient: bool) -> None:
        self.steps.append(lambda story: story.edit(which, is_patient=is_patient))

    @rule(which=st.integers(0, 3), is_patient=st.booleans())
    def delete(self, which: int, is_patient: bool) -> None:
        self.steps.append(lambda story: story.delete(which, is_patient=is_patient))

    @rule(is_patient=st.booleans())
    def visit(self, is_patient: bool) -> None:
        self.steps.append(lambda story: story.visit(is_patient=is_patient))

    @rule(points=st.integers(0, 25))
    def doom(self, points: int) -> None:
        self.steps.append(lambda story: story.doom(points))

    @rule(fault=st.sampled_from(FAULTS))
    def trouble(self, fault: str) -> None:
        self.steps.append(lambda story: story.trouble(fault))

    @rule()
    def double(self) -> None:
        self.steps.append(Story.double)

    @rule(count=st.integers(2, 15))
    def burst(self, count: int) -> None:
        self.steps += [lambda story: story.say("plain", is_patient=False)] * count

    @rule(minutes=st.sampled_from([1, 20, 90]))
    def wait(self, minutes: int) -> None:
        self.steps.append(lambda story: story.wait(minutes))

    @precondition(lambda self: self.is_up)
    @rule(end=st.sampled_from([Story.kill, Story.stop]))
    def go_down(self, end: Step) -> None:
        self.is_up = False
        self.steps.append(end)

    @precondition(lambda self: not self.is_up)
    @rule()
    def come_up(self) -> None:
        self.is_up = True
        self.steps.append(Story.start)

    def teardown(self) -> None:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(play(self.steps))


def told(stories: int) -> settings:
    return settings(
        max_examples=stories, stateful_step_count=12, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )


@pytest.mark.parametrize("points", range(1, 5))
def test_bots_that_crash_while_they_are_started_come_up_once(points: int) -> None:
    story = Promise()
    story.steps = [Story.stop, lambda story: story.doom(points), Story.start]
    story.teardown()


class TestPromise(Promise.TestCase):
    """Hypothesis' own kind of test."""

    settings = told(FEW)


@pytest.mark.chaos
@pytest.mark.timeout(600)
class TestPromiseInManyStories(Promise.TestCase):
    """The same, for the gate and for long runs."""

    settings = told(STORIES)
