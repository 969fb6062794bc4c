"""The lobby: on the emulator, a thread with all bots to try them in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import structlog

from chatbot.bot import Bot
from chatbot.errors import Forbidden, NotFound
from chatbot.model import Participant, ThreadId
from chatbot.runtime.run_directory import ControlDirectory
from chatbot.worker_threads import run_in_thread

TOPIC: Final = "Lobby"
_NOTES: Final = "lobby"


async def open_lobby(bots: Sequence[Bot], control: ControlDirectory, resource: str) -> ThreadId:
    """Return the lobby of a resource, and create it if there is none.

    The first bot creates it. Each bot is added once: a bot that was removed or left is not added again.

    Args:
        bots: at least one.
        control: stores the lobby and who was added.
        resource: each resource has its own lobby.
    """
    notes = (await run_in_thread(control.read_facts, _NOTES)).get(resource, {})
    thread, known = notes.get("thread"), set(notes.get("bots", ()))
    people = [Participant(bot.user, bot.context.display_name) for bot in bots]
    if thread is None or not await _is_there(bots[0], thread):
        made = await bots[0].context.service.create_thread(TOPIC, people)
        thread = made.thread.id
        structlog.get_logger().info("lobby.created", thread=thread)
    elif newcomers := [person for person in people if person.user not in known]:
        await bots[0].context.service.add_participants(thread, newcomers)
    facts: dict[str, Any] = {resource: {"thread": thread, "bots": [bot.user for bot in bots]}}
    await run_in_thread(control.write_facts, _NOTES, facts)
    return ThreadId(thread)


async def _is_there(bot: Bot, thread: ThreadId) -> bool:
    try:
        return (await bot.context.service.get_thread(thread)).deleted_on is None
    except (NotFound, Forbidden):
        return False
