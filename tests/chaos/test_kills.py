"""The real daemon on its SQLite file, killed for real."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import anyio
import pytest

from chatbot.events import MessageReceived
from tests.chaos.stage import Stage, Talk, chaos

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

KILLS = 6
MESSAGES = 5
FAULTS = (
    "send_message:reset-after,probability=0.1",
    "list_messages:503,probability=0.05",
    "send_message:429,probability=0.05",
    "*:latency=0..0.05",
)


async def test_kill_9_at_random_moments_loses_and_doubles_nothing(tmp_path: Path) -> None:
    dice = random.Random(5)
    async with chaos(tmp_path) as stage, anyio.create_task_group() as people:
        await stage.start()
        talks = [await stage.talk() for _ in range(4)]
        await stage.service.put_faults([f"{fault},user={stage.user}" for fault in FAULTS])
        for number, talk in enumerate(talks):
            people.start_soon(_chatter, talk, random.Random(number))
        for _ in range(KILLS):
            await anyio.sleep(dice.uniform(0.3, 1.8))
            stage.daemon.kill()
        verdict = await stage.settled()

        assert verdict.is_clean, verdict
        assert verdict.expected > verdict.sent >= 4 * MESSAGES
        assert await stage.daemon.stop() == 0
        assert stage.daemon.codes.count(-signal.SIGKILL) >= KILLS - 2  # some moments find no process
        assert await stage.dead_letters() == []


async def _chatter(talk: Talk, dice: random.Random) -> None:
    """Messages at their own pace: as many as the thread's quota has room for, with their answers."""
    for number in range(MESSAGES):
        await anyio.sleep(dice.uniform(0, 2.5))
        await talk.say(dice.choice(("say {}", "/two {}", "/fix {}", "/count {}", "/tell {}")).format(number))


@pytest.mark.parametrize("how", ["exit", "kill"])
async def test_a_handler_that_kills_the_process_becomes_a_dead_letter_and_the_others_continue(
    tmp_path: Path, how: str
) -> None:
    async with chaos(tmp_path) as stage:
        await stage.start()
        deadly, other = await stage.talk(), await stage.talk()
        await other.say("say 1")
        await stage.answered(other, "1")

        await deadly.say("say 1", f"/die 2 {how}", "say 3")
        await other.say("say 2", "/two 3")
        verdict = await stage.settled()

        assert verdict.is_clean, verdict
        assert await stage.replies(deadly) == ["1", "3"]
        assert await stage.daemon.stop() == 0
        code = 9 if how == "exit" else -signal.SIGKILL
        assert stage.daemon.codes == [code] * 4 + [0]  # the first one surprises, three more are counted
        (letter,) = await stage.dead_letters()
        assert isinstance(letter.event, MessageReceived)
        assert letter.event.message.content == f"/die 2 {how}"
        assert letter.attempts == 3


async def test_sigterm_finishes_running_handlers_and_the_rest_is_done_after_the_next_start(tmp_path: Path) -> None:
    async with chaos(tmp_path) as stage:
        await stage.start()
        talk, other = await stage.talk(), await stage.talk()
        await talk.say("say 1")
        await stage.answered(talk, "1")
        await talk.say("/slow 2 2.0", "say 3")
        await other.say("/two 1")
        await stage.answered(other, "1 b")  # by now the slow one is in hand, too

        stage.daemon.terminate()
        await stage.daemon.ended()

        assert stage.daemon.codes == [0]
        assert "2" in await stage.replies(talk)
        verdict = await stage.settled()
        assert verdict.is_clean, verdict
        assert await stage.daemon.stop() == 0


async def terminate_again(stage: Stage) -> None:
    while True:
        stage.daemon.terminate()
        await anyio.sleep(0.3)


async def test_a_second_signal_ends_the_process_now_and_what_was_committed_is_said_after_the_next_start(
    tmp_path: Path,
) -> None:
    async with chaos(tmp_path) as stage:
        await stage.start()
        committed, in_hand = await stage.talk(), await stage.talk()
        await stage.service.put_faults([f"send_message:503,user={stage.user}"])
        await committed.say("/two 1")
        await in_hand.say("/slow 1 60")
        await stage.daemon.has_said("trouble.began")
        stage.daemon.terminate()
        await stage.daemon.has_said("daemon.stop_requested")

        # Neither the handler nor the outbox is waited for. A signal that comes within half a second of the first is the
        # same request, so that it is sent until it counts.
        with anyio.fail_after(50):  # less than the handler takes
            async with anyio.create_task_group() as group:
                group.start_soon(terminate_again, stage)
                await stage.daemon.ended()
                group.cancel_scope.cancel()
        await stage.service.put_faults([])
        await stage.answered(committed, "1 a", "1 b")

        assert stage.daemon.codes == [1]  # it did not end in order
        assert await stage.replies(committed) == ["1 a", "1 b"]
