"""A person at the command line: a user of the service, created once, who finds or opens a thread with the bots."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import anyio.to_thread

from chatbot.errors import Forbidden, NotFound, StateError
from chatbot.model import Participant, ThreadId, ThreadItem, UserId
from chatbot.runtime.run_directory import ControlDirectory, RunInfo
from chatbot.service.acs import AcsResource
from chatbot.service.base import ChatService

_NOTES = "people"


@dataclass(frozen=True, slots=True)
class ChatUser:
    """A person who talks to the bots.

    Args:
        name: the name that the bots and others see.
        service: the service as this user.
        info: the run file of the bots' daemon.
        resource: the resource; used to act as a bot that adds the person to a thread.
    """

    name: str
    service: ChatService
    info: RunInfo
    resource: AcsResource

    @property
    def user(self) -> UserId:
        """The person's user."""
        return self.service.user

    async def threads(self) -> AsyncIterator[ThreadItem]:
        """Yield the threads that the person is in, most recently active first."""
        link: str | None = None
        while True:
            page = await self.service.list_threads(link=link)
            for item in page.items:
                if item.deleted_on is None and await self.is_in(item.id):
                    yield item
            if page.next_link is None:
                return
            link = page.next_link

    async def is_in(self, thread: ThreadId) -> bool:
        """Return whether the person is in a thread."""
        try:
            async for _ in self.service.list_participants(thread):
                return True
        except (Forbidden, NotFound):
            pass
        return False

    async def join(self, thread: ThreadId) -> ThreadId:
        """Join a thread; a bot that is in it adds the person.

        Raises:
            StateError: no bot can add them.
        """
        if await self.is_in(thread):
            return thread
        for bot in self.info.bots:
            service = self.resource.chat(bot.user_id, self.resource.issued_tokens(bot.user_id))
            try:
                await service.add_participants(thread, [Participant(self.user, self.name)])
            except (Forbidden, NotFound):
                continue
            return thread
        message = f"{thread}: {self.name} is not in this thread, and none of the running bots could add them"
        raise StateError(message)

    async def open_thread(self, topic: str) -> ThreadId:
        """Create a thread with all bots."""
        others = [Participant(bot.user_id, bot.display_name) for bot in self.info.bots]
        created = await self.service.create_thread(topic, [Participant(self.user, self.name), *others])
        return created.thread.id

    async def default_thread(self) -> ThreadId:
        """Return the lobby or, without one, the thread that the person used last or, without one, a new thread."""
        if self.info.lobby is not None:
            return await self.join(self.info.lobby)
        async for item in self.threads():
            return item.id
        return await self.open_thread(f"{self.name} and the bots")


async def find_person(name: str, control: ControlDirectory, info: RunInfo, resource: AcsResource) -> ChatUser:
    """Return the person of this name; their user is created the first time, and stored."""
    people = await anyio.to_thread.run_sync(control.read_facts, _NOTES)
    known = people.setdefault(info.resource, {})
    if name not in known:
        known[name] = await resource.create_user()
        await anyio.to_thread.run_sync(control.write_facts, _NOTES, people)
    user = UserId(known[name])
    return ChatUser(name, resource.chat(user, resource.issued_tokens(user)), info, resource)
