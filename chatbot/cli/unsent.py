"""How much of what running bots want to say in a thread is still on its way."""

from __future__ import annotations

from pathlib import Path

import anyio.to_thread

from chatbot.model import ThreadId
from chatbot.runtime.asking import ask, find_daemon
from chatbot.runtime.channel import Address
from chatbot.runtime.control import ControlDirectory


async def count_unsent(config: Path, thread: ThreadId) -> int:
    """The wishes of all running bots in a thread that the service has not taken yet; 0 where nobody knows.

    Args:
        config: the bots.yaml of the bots.
        thread: where.

    Raises:
        StateError: the bots run, but do not answer.
    """
    daemon = await anyio.to_thread.run_sync(_find, config)
    if daemon is None:
        return 0
    answer = await ask(daemon, {"ask": "unsent", "thread": thread})
    return int(answer["count"])


def _find(config: Path) -> Address | None:
    return find_daemon(ControlDirectory(config.absolute().parent), config)
