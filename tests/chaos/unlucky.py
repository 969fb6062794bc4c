"""What was running at three kills in a row, and is buried for it although its handler is no killer."""

from __future__ import annotations

from subprocess import CalledProcessError

from chatbot.cli.boundary import EXIT_USAGE
from chatbot.model import ThreadId
from tests.chaos.processes import Daemon
from tests.chaos.verdict import answers_to


async def revive_unlucky(daemon: Daemon) -> list[ThreadId]:
    """Have tried again, as people would by command, what was buried although its handler would succeed.

    From inside nobody can tell a handler that kills from one that happens to run at three kills in a row.

    Args:
        daemon: it runs.

    Returns:
        The thread of each; the replies stand where they are said, not where they were asked for.
    """
    threads: list[ThreadId] = []
    for letter in (await daemon.ask("dead-letters", "list"))["letters"]:
        try:
            shown = await daemon.ask("dead-letters", "show", letter["id"])
            if answers_to([shown["text"]])[0]:
                await daemon.ask("dead-letters", "retry", letter["id"])
                threads.append(ThreadId(letter["thread"]))
        except CalledProcessError as error:
            if error.returncode != EXIT_USAGE:
                raise
            # It is gone: what was revived a moment ago has been answered since it was listed.
    return threads
