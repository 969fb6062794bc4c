"""What was running at three kills in a row, and is buried for it although its handler is no killer."""

from __future__ import annotations

from typing import Any, Final

from chatbot.errors import ChatbotError
from chatbot.model import ThreadId
from tests.chaos.processes import Daemon
from tests.chaos.verdict import answers_to

MESSAGES: Final = frozenset({"MessageReceived", "MessageEdited"})


async def revive_unlucky(daemon: Daemon) -> list[ThreadId]:
    """Have tried again, as people would by command, what was buried although its handler would succeed.

    From inside nobody can tell a handler that kills from one that happens to run at three kills in a row.

    Args:
        daemon: it runs.

    Returns:
        The thread of each; the replies stand where they are said, not where they were asked for.
    """
    threads: list[ThreadId] = []
    for letter in await _dead_letters(daemon):
        if letter["event"] not in MESSAGES:
            continue
        about = {"id": letter["id"], "bot": letter["bot"]}
        try:
            shown = (await daemon.answer({"ask": "dead-letters show", **about}))["letter"]
            if answers_to([shown["text"]])[0]:
                await daemon.answer({"ask": "dead-letters retry", **about})
                threads.append(ThreadId(letter["thread"]))
        except ChatbotError:
            if letter["id"] in {one["id"] for one in await _dead_letters(daemon)}:
                raise
            # It is gone: what was revived a moment ago has been answered since it was listed.
    return threads


async def _dead_letters(daemon: Daemon) -> list[dict[str, Any]]:
    return list((await daemon.answer({"ask": "dead-letters list"}))["letters"])
