"""The lobby: a thread with all bots, so that on the emulator there is someone to talk to from the first minute on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import anyio.to_thread
import structlog

from chatbot.bot import Bot
from chatbot.errors import Forbidden, NotFound
from chatbot.model import Participant, ThreadId
from chatbot.runtime.run_directory import ControlDirectory

TOPIC: Final = "Lobby"
_NOTES: Final = "lobby"


async def open_lobby(bots: Sequence[Bot], control: ControlDirectory, resource: str) -> ThreadId:
    """The lobby of a resource: made once by the first bot and remembered; later bots are brought in once.

    Who was taken out of it, or left, is not brought back.

    Args:
        bots: at least one.
        control: remembers it.
        resource: of which resource; another one has another lobby.
    """
    notes = (await anyio.to_thread.run_sync(control.read_facts, _NOTES)).get(resource, {})
    thread, known = notes.get("thread"), set(notes.get("bots", ()))
    people = [Participant(bot.user, bot.context.display_name) for bot in bots]
    if thread is None or not await _is_there(bots[0], thread):
        made = await bots[0].context.service.create_thread(TOPIC, people)
        thread = made.thread.id
        structlog.get_logger().info("lobby.created", thread=thread)
    elif newcomers := [person for person in people if person.user not in known]:
        await bots[0].context.service.add_participants(thread, newcomers)
    facts: dict[str, Any] = {resource: {"thread": thread, "bots": [bot.user for bot in bots]}}
    await anyio.to_thread.run_sync(control.write_facts, _NOTES, facts)
    return ThreadId(thread)


async def _is_there(bot: Bot, thread: ThreadId) -> bool:
    try:
        return (await bot.context.service.get_thread(thread)).deleted_on is None
    except (NotFound, Forbidden):
        return False
