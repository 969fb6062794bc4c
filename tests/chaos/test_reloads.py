"""The real daemon reloaded by real signals, while people talk to it."""

from __future__ import annotations

import random
import re
from pathlib import Path

import anyio
import pytest

from tests.chaos.stage import Stage, Talk, chaos

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

MESSAGES = 6
RELOADS = 9
WORDS = ("say {}", "/two {}", "/fix {}", "/count {}", "/tell {}", "/slow {}")


async def test_reloads_under_load_lose_nothing_double_nothing_and_restart_only_what_has_changed(
    tmp_path: Path,
) -> None:
    dice = random.Random(7)
    async with chaos(tmp_path) as stage, anyio.create_task_group() as people:
        # People and the bot share the quota for sending, whose window is ten seconds: a bot that ends may wait for it.
        bots = anyio.Path(tmp_path / "bots.yaml")
        await bots.write_text((await bots.read_text()).replace("drain_timeout: 10s", "drain_timeout: 40s"))
        await stage.start()
        talks = [await stage.talk() for _ in range(5)]
        for number, talk in enumerate(talks):
            people.start_soon(_chatter, talk, random.Random(number))
        for number in range(RELOADS):
            await anyio.sleep(dice.uniform(0.3, 1.2))
            await _change(stage, number)
            stage.daemon.reload()
            if number % 3 == 2:  # one more at once, which must wait for its turn
                stage.daemon.reload()
        verdict = await stage.settled()

        assert verdict.is_clean, verdict
        assert verdict.sent == 5 * MESSAGES
        assert stage.daemon.codes == []  # one process all the time
        said = stage.daemon.said
        assert said["reload.refused"] == said["plugins.kept"] == 0
        assert said["plugins.swapped"] >= 1
        assert said["bot.stopped"] >= 2
        assert said["bots.cut"] == 0
        assert await stage.daemon.stop() == 0
        assert await stage.dead_letters() == []


async def test_what_a_restarted_bot_could_not_finish_in_time_is_done_by_the_one_after_it(tmp_path: Path) -> None:
    async with chaos(tmp_path) as stage:
        bots = anyio.Path(tmp_path / "bots.yaml")
        text = (await bots.read_text()).replace("drain_timeout: 10s", "drain_timeout: 500ms")
        await bots.write_text(text)
        await stage.start()
        talk = await stage.talk()
        await talk.say("say 1")
        await stage.answered(talk, "1")
        await talk.say("/slow 2 8", "say 3")
        while not (await stage.daemon.ask("status"))["bots"][0]["running"]:
            pass

        await bots.write_text(text.replace("idle: 5s", "idle: 6s"))
        stage.daemon.reload()
        await stage.daemon.has_said("bots.cut")
        verdict = await stage.settled()

        assert verdict.is_clean, verdict
        assert await stage.replies(talk) == ["1", "2", "3"]
        assert stage.daemon.codes == []
        assert await stage.daemon.stop() == 0


async def _change(stage: Stage, number: int) -> None:
    """Other settings, other code, or nothing, in turns."""
    directory = anyio.Path(stage.daemon.directory)
    if number % 3 == 0:
        old = await (directory / "bots.yaml").read_text()
        await (directory / "bots.yaml").write_text(re.sub(r"idle: \d+s", f"idle: {number + 6}s", old))
    if number % 3 == 1:
        old = await (directory / "checkable.py").read_text()
        await (directory / "checkable.py").write_text(f"{old}\n# changed for the {number}th time\n")


async def _chatter(talk: Talk, dice: random.Random) -> None:
    """Messages at their own pace: as many as the thread's quota has room for, with their answers."""
    for number in range(MESSAGES):
        await anyio.sleep(dice.uniform(0, 2.5))
        await talk.say(dice.choice(WORDS).format(number))
