"""A person who talks to bots of another process with the SDK."""

from __future__ import annotations

import json

import anyio

from chatbot.model import Participant, ThreadId, UserId
from chatbot.service.acs import AcsResource
from tests.cli.conftest import PATIENCE, Demo


def service_of(demo: Demo) -> str:
    """The connection string of the emulator that the demo runs, over plain http."""
    published = json.loads((demo.directory / ".chatbot" / "run.json").read_text())
    return f"endpoint={published['endpoint']};{published['connection_string'].partition(';')[2]}"


async def say(service: str, bot: UserId, *texts: str) -> ThreadId:
    """A person opens a thread with the bot and speaks."""
    async with AcsResource.from_connection_string(service) as resource:
        person = await resource.create_user()
        chat = resource.chat(person, resource.issued_tokens(person))
        thread = (await chat.create_thread("Talk", [Participant(bot, "Bot")])).thread.id
        for text in texts:
            await chat.send_message(thread, text)
        return thread


async def heard(service: str, bot: UserId, thread: ThreadId) -> list[str]:
    """What the bot has said in a thread, oldest first."""
    async with AcsResource.from_connection_string(service) as resource:
        page = await resource.chat(bot, resource.issued_tokens(bot)).list_messages(thread)
        return [message.content for message in reversed(page.messages) if message.sender == bot and message.is_said]


async def wait_for(service: str, bot: UserId, thread: ThreadId, *texts: str) -> None:
    """Wait until the bot has said these things in a thread, and nothing else."""
    with anyio.fail_after(PATIENCE):
        while await heard(service, bot, thread) != list(texts):  # noqa: ASYNC110 -- another process is waited for
            await anyio.sleep(0.1)
