from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chatbot.model import Attachment, UserId
from chatbot.service.base import ChatService
from chatbot.testing.replays.player import RecordingPlayer
from chatbot.testing.replays.recording import runs_in
from tests.support.recordings import Project, played, project, recorded, said

pytestmark = pytest.mark.virtual_time

PLUGIN = """
from datetime import timedelta

from chatbot import Context, Dialog, Plugin, State, TimerFired

plugin = Plugin("replayed")
calls = []




@plugin.command("pay")
async def pay(ctx: Context) -> str:
    return f"paid {await ctx.once('pay', charge)}"


@plugin.command("book")
async def book(talk: Dialog) -> None:
    what = await talk.ask("What?")
    await talk.say(f"{what}: {await talk.run(charge)}")


def charge() -> int:
    calls.append("charged")
    return 4


@plugin.command("remind")
async def remind(ctx: Context) -> str:
    await ctx.later(timedelta(hours=1), follow_up)
    return "I will."


@plugin.timer
async def follow_up(ctx: Context[TimerFired]) -> str:
    return "An hour has passed."


@plugin.command("time")
async def tell_time(ctx: Context) -> str:
    return f"{ctx.event.occurred_on:%H:%M}"


@plugin.command("wait", timeout=timedelta(hours=9))
async def wait(ctx: Context) -> str:
    import anyio

    await anyio.Event().wait()
    return "never"


@plugin.message()
async def echo(ctx: Context) -> str:
    return f"{ctx.text}!"
"""


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Project]:
    with project(tmp_path, PLUGIN) as given:
        yield given


def texts(player: RecordingPlayer) -> list[str]:
    return [reply.text for reply in player.replies()]


def kinds(player: RecordingPlayer) -> list[str]:
    return [step["kind"] for story in player.stories.all() for step in story["steps"]]


@pytest.mark.chaos  # hundreds of messages
async def test_five_hundred_turns_are_replayed_to_the_end(config: Project) -> None:
    recording = recorded(said(*(f"line {number}" for number in range(500))))

    assert texts(await played(recording, config)) == [f"line {number}!" for number in range(500)]


async def test_times_and_ids_are_kept_so_that_replies_have_the_keys_that_they_had(config: Project) -> None:
    recording = recorded(said("a", "/time", "b", gap_ms=1))

    first, again = await played(recording, config), await played(recording, config)

    assert texts(first) == ["a!", "22:13", "b!"]
    assert [reply.key for reply in first.replies()] == [reply.key for reply in again.replies()]
    messages = {story["message"] for story in first.stories.all() if "message" in story}
    assert messages == {str(step.ms) for step in recording.steps}


async def test_bots_do_not_wait_for_the_quotas_of_the_service(config: Project) -> None:
    recording = recorded(said(*(f"line {number}" for number in range(100)), gap_ms=1))

    replies = (await played(recording, config)).replies()

    assert [reply.text for reply in replies] == [f"line {number}!" for number in range(100)]
    assert replies[-1].id - recording.end_ms < 1_000


async def test_bots_do_not_read_again_what_they_have_said(config: Project) -> None:
    listings: list[str] = []
    player = RecordingPlayer(recorded(said(*"abcdefgh")), *config, lambda _: None)
    service_of = player.process.service_of

    def counting(user: UserId) -> ChatService:
        service = service_of(user)
        list_messages = service.list_messages

        async def counted(*args: Any, **options: Any) -> Any:
            listings.append(user)
            return await list_messages(*args, **options)

        service.list_messages = counted  # type: ignore[method-assign]
        return service

    player.process.service_of = counting  # type: ignore[method-assign]
    await player.play()

    assert texts(player) == [f"{line}!" for line in "abcdefgh"]
    assert len(listings) <= 10, "one for each line, and two to join the thread"


async def test_results_of_once_and_of_talk_run_come_from_the_journal(config: Project) -> None:
    recording = recorded(said("/pay", "/book", "a ticket"))
    before = await played(recording, config)
    module = __import__("replayed")
    assert module.calls == ["charged", "charged"]
    results, journals = before.stories.kept()

    after = await played(replace(recording, results=results, runs=runs_in(journals)), config)

    assert module.calls == ["charged", "charged"]
    assert texts(after) == texts(before) == ["paid 4", "What?", "a ticket: 4"]
    assert kinds(after).count("recalled") == 2


async def test_timers_are_due_when_they_were_and_none_after_the_end(config: Project) -> None:
    short, long = recorded(said("/remind", "a")), recorded(said("/remind", "a", gap_ms=2 * 3_600_000))

    assert texts(await played(short, config)) == ["I will.", "a!"]
    assert texts(await played(long, config)) == ["I will.", "An hour has passed.", "a!"]


async def test_an_edited_line_gets_another_answer(config: Project) -> None:
    recording = recorded(said("a", "b"))

    edited = recording.edited({str(recording.steps[1].ms): "c"})

    assert texts(await played(edited, config)) == ["c!", "b!"]


async def test_a_handler_that_waits_for_ever_is_reported_with_its_place(config: Project) -> None:
    player = await played(recorded(said("/wait")), config)

    assert len(player.problems) == 1
    assert "a handler did not end" in player.problems[0]
    assert "replayed.py" in player.problems[0]


async def test_attachments_and_members_are_those_of_the_recording(config: Project) -> None:
    steps = said("a")
    file = Attachment("1", "file", "plan.pdf", "https://files.test/plan.pdf")
    steps[1] = replace(steps[1], attachments=(file,))

    assert texts(await played(recorded(steps), config)) == ["a!"]


CHANCE = """
import random
import logging
from datetime import UTC, datetime
from chatbot import Context, Plugin

plugin = Plugin("replayed")
seeded = random.Random(1)


@plugin.command("clock")
async def clock(ctx: Context) -> str:
    return f"{datetime.now(UTC)}"


@plugin.command("dice")
async def dice(ctx: Context) -> str:
    return f"{random.randint(1, 6)}"


@plugin.command("seeded")
async def from_seed(ctx: Context) -> str:
    logging.getLogger("replayed").info("drawn")
    return f"{seeded.randint(1, 6)}"
"""


@pytest.fixture
def by_chance(tmp_path: Path) -> Iterator[Project]:
    with project(tmp_path, CHANCE) as given:
        yield given


async def test_what_reads_the_clock_or_chance_is_noted_with_its_line(by_chance: Project) -> None:
    player = await played(recorded(said("/clock", "/dice", "/seeded")), by_chance)

    noted = {story["text"]: story.get("unrepeatable") for story in player.stories.all() if "message" in story}
    place = str(by_chance[0].directory / "replayed.py")
    assert noted["/clock"] == [{"what": "the clock", "place": f"{place}:13"}]
    assert noted["/dice"] == [{"what": "random numbers", "place": f"{place}:18"}]
    assert noted["/seeded"] is None
