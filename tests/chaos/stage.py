"""A small stage for the chaos tests: the service, the daemon, and people who talk in threads of their own."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from anyio.abc import TaskGroup

from chatbot.errors import Throttled
from chatbot.model import Participant, ThreadId, UserId
from chatbot.service.acs import AcsResource
from chatbot.service.base import ChatService
from chatbot.stores import open_store
from chatbot.stores.records import DeadLetter
from tests.chaos.processes import Daemon, Service, running_service
from tests.chaos.unlucky import revive_unlucky
from tests.chaos.verdict import Said, Verdict, judge

LOOK_SECONDS = 0.2
PATIENCE_SECONDS = 300.0


class Talk:
    """One person in one thread with the bot."""

    def __init__(self, person: ChatService, thread: ThreadId) -> None:
        self.thread = thread
        self._person = person

    async def say(self, *texts: str) -> None:
        """Say some things, one after the other."""
        for text in texts:
            while not await self._say(text):
                pass

    async def _say(self, text: str) -> bool:
        try:
            await self._person.send_message(self.thread, text)
        except Throttled as error:  # what is said in a thread has one quota for all
            await anyio.sleep(error.retry_after or 1.0)
            return False
        return True


class Stage:
    """What a chaos test plays on.

    Args:
        service: where everybody talks.
        daemon: the bot's processes; not started.
        resource: the people's view of the service.
        group: where the daemon is kept running.
    """

    def __init__(self, service: Service, daemon: Daemon, resource: AcsResource, group: TaskGroup) -> None:
        self.service = service
        self.daemon = daemon
        self.user = UserId("")
        self._resource = resource
        self._group = group
        self._burials = 0
        self._late: set[str] = set()

    async def start(self) -> None:
        """Keep the daemon running from now on; returns when its bot runs."""
        self._group.start_soon(self.daemon.keep_running)
        await self.daemon.ready()
        self.user = UserId(self.daemon.user)

    async def talk(self) -> Talk:
        """A new person in a new thread with the bot."""
        user = await self._resource.create_user()
        person = self._resource.chat(user, self._resource.issued_tokens(user))
        made = await person.create_thread("chaos", [Participant(self.user, "Echo")])
        return Talk(person, made.thread.id)

    async def replies(self, talk: Talk) -> list[str]:
        """What the bot has said in a thread."""
        return [one.text for one in await self._said(talk.thread) if one.is_bot]

    async def verdict(self) -> Verdict:
        """What came of all threads."""
        threads = await self.service.threads()
        verdicts = [judge(await self._said(thread), has_order=thread not in self._late) for thread in threads]
        return sum(verdicts, Verdict())

    async def settled(self) -> Verdict:
        """Wait until every reply is there, also to what was buried without deserving it; what came of it all."""
        with anyio.move_on_after(PATIENCE_SECONDS):  # then the verdict says what is missing
            await self.daemon.ready()
            while (await self.verdict()).missing:
                if self.daemon.said["event.dead_lettered"] > self._burials:
                    self._burials = self.daemon.said["event.dead_lettered"]
                    self._late.update(await revive_unlucky(self.daemon))
                await anyio.sleep(LOOK_SECONDS)
        return await self.verdict()

    async def answered(self, talk: Talk, *replies: str) -> None:
        """Wait until the bot has said these things in a thread."""
        while not set(replies) <= set(await self.replies(talk)):  # noqa: ASYNC110 -- another process is waited for
            await anyio.sleep(LOOK_SECONDS)

    async def dead_letters(self) -> list[DeadLetter]:
        """What was given up; no daemon may run."""
        async with open_store(self.daemon.store_url, base_dir=self.daemon.directory) as store:
            return list(await store.dead_letters(self.user))

    async def _said(self, thread: str) -> list[Said]:
        return Said.living(await self.service.messages(thread), self.user)


@asynccontextmanager
async def chaos(
    directory: Path, store: str = "sqlite:///chatbot.db", *, has_status_server: bool = False
) -> AsyncGenerator[Stage]:
    """Set the stage: the emulator runs, the daemon does not yet."""
    async with running_service() as service, service.resource() as resource, anyio.create_task_group() as group:
        daemon = Daemon.set_up(
            directory,
            service.connection_string,
            interval="300ms",
            idle="5s",
            store=store,
            has_status_server=has_status_server,
        )
        yield Stage(service, daemon, resource, group)
        group.cancel_scope.cancel()
