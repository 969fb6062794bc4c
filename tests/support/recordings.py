"""A recorded thread of one bot and one person, and its replay in this process, without a guard."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from chatbot.config import Config, load_config
from chatbot.model import Participant, ThreadId, UserId
from chatbot.runtime.logs import logging_to
from chatbot.runtime.plugins import Plugins, load_plugins
from chatbot.testing.replays.player import RecordingPlayer
from chatbot.testing.replays.recording import RecordedBot, Recording, Reply, Step, StepKind

RESOURCE = "00000000-0000-0000-0000-000000000000"
BOT = UserId(f"8:acs:{RESOURCE}_0000001c-0000-0000-0000-000000000001")
ANN = UserId(f"8:acs:{RESOURCE}_0000001c-0000-0000-0000-000000000002")
Project = tuple[Config, Plugins]
BEGIN_MS = 1_700_000_000_000


def said(*texts: str, gap_ms: int = 3_000) -> list[Step]:
    """Return what Ann says, after she has created the thread with the bot."""
    created = Step(StepKind.ADDS, BEGIN_MS, ANN, people=(Participant(ANN, "Ann"), Participant(BOT, "Bo")))
    first_ms = BEGIN_MS + 10_000
    lines = [Step(StepKind.SAYS, first_ms + gap_ms * at, ANN, "Ann", text) for at, text in enumerate(texts)]
    return [created, *lines]


def recorded(steps: Sequence[Step], replies: Sequence[Reply] = ()) -> Recording:
    """Return a recording of these steps and replies."""
    end_ms = max([*(step.ms for step in steps), *(reply.id for reply in replies)])
    bots = (RecordedBot("bo", BOT, "Bo"),)
    return Recording(
        ThreadId("19:replay@thread.v2"), RESOURCE, "A thread", bots, (), tuple(steps), tuple(replies), end_ms
    )


@contextmanager
def project(directory: Path, source: str) -> Iterator[Project]:
    """Write a bots.yaml with one bot, whose plugin has this source; yield it with its plugins."""
    (directory / "replayed.py").write_text(source, encoding="utf-8")
    config = directory / "bots.yaml"
    config.write_text("version: 1\nservice: emulator\nbots:\n  bo: {display_name: Bo, plugins: [replayed]}\n")
    path = list(sys.path)
    try:
        settings = load_config(config, os.environ)
        with logging_to(io.StringIO(), format="console", level="error"):
            yield settings, load_plugins(settings)
    finally:
        sys.path[:] = path
        sys.modules.pop("replayed", None)


async def played(recording: Recording, given: Project) -> RecordingPlayer:
    """Play a recording in this process, on virtual time."""
    player = RecordingPlayer(recording, *given, lambda _: None)
    await player.play()
    return player
