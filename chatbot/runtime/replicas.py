"""Commands of an operator that concern all processes sharing a store: what each does when another one asks it.

A command asks the process in whose directory it is run. That one does its part, asks the others with `Requests`, and
its answer names each of them with what became of it there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import anyio

from chatbot.bot import Bot
from chatbot.cluster.requests import ReplicaAnswer, Requests
from chatbot.model import UserId

TURN_SECONDS: Final = 10.0
"""Seconds to wait for running handlers, which may hold what is to be erased or ended, and store it again."""

ANSWER_SECONDS: Final = 2 * TURN_SECONDS + 5.0
"""Seconds to wait for the answers of processes that wait for a takeover, then for their handlers."""

LOAD_SECONDS: Final = 75.0
"""Seconds to wait for reloads, beside the time that bots may take to finish their work."""

DONE: Final = "done"
BUSY: Final = "busy"
"""A handler that began before the request still runs."""

PAUSES: Final = "pauses"
ERASE: Final = "erase"
WAIT: Final = "wait"
RELOAD: Final = "reload"
RUNS: Final = "runs"
FORCE: Final = "force"
NEW_USERS: Final = "allow-new-users"
REFUSED: Final = "refused"


async def erase(bots: Sequence[Bot], person: UserId) -> bool:
    """Erase a person from the memory of bots; return whether no handler runs on that may still hold their texts."""
    for bot in bots:
        bot.erase(person)  # at once; what is read or handled just now follows
    with anyio.move_on_after(TURN_SECONDS) as limit:
        for bot in bots:
            await bot.finish_takeover()
    is_complete = await wait_for_turns(bots) and not limit.cancelled_caught
    for bot in bots:
        bot.erase(person)
    return is_complete


async def wait_for_turns(bots: Sequence[Bot]) -> bool:
    """Wait until the turns that run now in these bots have ended; return whether they have in time."""
    ended: list[bool] = []

    async def wait(bot: Bot) -> None:
        ended.append(await bot.wait_for_turns(timeout=TURN_SECONDS))

    async with anyio.create_task_group() as group:
        for bot in bots:
            group.start_soon(wait, bot)
    return all(ended)


async def ask_others(
    requests: Requests | None, what: str, subject: str = "", options: Sequence[str] = (), *, seconds: float
) -> list[ReplicaAnswer]:
    """Ask the other processes; none if the store is not shared. See `Requests.ask`."""
    return [] if requests is None else await requests.ask(what, subject, options, seconds=seconds)


def as_json(replies: Sequence[ReplicaAnswer]) -> list[dict[str, Any]]:
    """Return replies for the answer to a command; an outcome that is null is no answer in time."""
    return [
        {
            "name": reply.replica.name,
            "host": reply.replica.host,
            "pid": reply.replica.pid,
            "version": reply.replica.version,
            "outcome": reply.outcome,
        }
        for reply in replies
    ]
