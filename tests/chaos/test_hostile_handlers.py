"""Handlers that do to their bot what they can, in the real daemon, while it is killed: nobody else notices."""

from __future__ import annotations

import random
import signal
from collections import Counter
from pathlib import Path

import anyio
import pytest

from chatbot.events import MessageReceived
from tests.chaos.stage import Stage, Talk, chaos
from tests.chaos.verdict import HOSTILE

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

KILLS = 3


async def test_hostile_handlers_keep_nobody_else_waiting_and_every_event_is_answered_or_dead_lettered(
    tmp_path: Path,
) -> None:
    dice = random.Random(3)
    async with chaos(tmp_path) as stage, anyio.create_task_group() as people:
        await stage.start()
        talks = [await stage.talk() for _ in range(len(HOSTILE))]
        others = [await stage.talk() for _ in range(3)]
        for talk, command in zip(talks, sorted(HOSTILE), strict=True):
            people.start_soon(talk.say, "say 1", f"/{command} 2", "say 3")
        for number, talk in enumerate(others):
            people.start_soon(_chatter, talk, random.Random(number))
        for _ in range(KILLS):
            await anyio.sleep(dice.uniform(1.0, 3.0))
            stage.daemon.kill()
            await stage.daemon.ready()
        verdict = await stage.settled()
        while len(await _buried(stage)) < len(HOSTILE):  # noqa: ASYNC110 -- another process is asked
            await anyio.sleep(0.5)

        assert verdict.is_clean, verdict
        for talk in talks:
            assert await stage.replies(talk) == ["1", "3"]
        assert set(stage.daemon.codes) <= {-signal.SIGKILL}, "no handler has ended the process"
        await _degraded(stage, False)
        assert await stage.daemon.stop() == 0
        dead_letters = [letter.event for letter in await stage.dead_letters()]
        buried = Counter(event.message.content for event in dead_letters if isinstance(event, MessageReceived))
        assert buried == Counter(f"/{command} 2" for command in HOSTILE)


async def test_a_bot_is_degraded_exactly_as_long_as_a_handler_is_stuck(tmp_path: Path) -> None:
    async with chaos(tmp_path) as stage:
        await stage.start()
        stuck, other = await stage.talk(), await stage.talk()
        await other.say("say 1")
        await stage.answered(other, "1")
        assert not (await _status(stage))["is_degraded"]

        await stuck.say("/thread 1", "say 2")
        await _degraded(stage, True)
        await other.say("/two 2")
        await stage.answered(other, "2 a", "2 b")
        assert (await _status(stage))["is_healthy"]
        assert await stage.replies(stuck) == []

        await stage.answered(stuck, "2")
        await _degraded(stage, False)
        assert await stage.daemon.stop() == 0


async def _chatter(talk: Talk, dice: random.Random) -> None:
    for number in range(5):
        await anyio.sleep(dice.uniform(0, 2.0))
        await talk.say(dice.choice(("say {}", "/two {}", "/fix {}", "/count {}")).format(number))


async def _buried(stage: Stage) -> list[str]:
    return [letter["id"] for letter in (await stage.daemon.ask("dead-letters", "list"))["letters"]]


async def _degraded(stage: Stage, is_degraded: bool) -> None:
    """Wait until the daemon says that it is degraded, or that it is not."""
    while (await _status(stage))["is_degraded"] is not is_degraded:  # noqa: ASYNC110 -- another process is asked
        await anyio.sleep(0.5)


async def _status(stage: Stage) -> dict[str, object]:
    """What `chatbot status` says; it ends with a code of its own when the bots are degraded."""
    return await stage.daemon.ask("status", is_checked=False)
