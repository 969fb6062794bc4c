"""The playground's channel: what pages ask, and what they are told.

Frames are JSON, one object each. A page first sends `{"token": …}`; what comes then:

* page → `{"id": 7, "do": NAME, …}`; the answer is `{"re": 7, "answer": …}` or `{"re": 7, "error": TEXT}`. The names are
  the methods of `PageSession` that begin with `do_`.
* `{"push": "hello"}` people, bots, clock and faults; again whenever one of them has changed
* `{"push": "threads"}` entries of the list of threads that have changed; `is_all` replaces the list
* `{"push": "messages"}` messages of the open thread, new and changed
* `{"push": "typing"}`, `{"push": "story"}`: somebody types; a bot has gone on with an event
* `{"push": "fork"}` how far the page's fork has come
* `{"push": "bots"}` while a page asks for it: status, lanes, timers, dialogs and dead letters
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Protocol, Self

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from chatbot.errors import ChatbotError
from chatbot.playground.emulator_client import (
    API_VERSION,
    IMAGES_API_VERSION,
    EmulatorApi,
    Refused,
    ServiceClient,
    person,
    place,
)
from chatbot.playground.forks import Forks, Replay
from chatbot.playground.thread_views import Json, ThreadView, ThreadViews, attempts_of, shown, with_images
from chatbot.worker_threads import run_in_thread

MAX_WAITING: Final = 2_000
"""Frames that wait for a page; a page that is slower is disconnected, and connects again."""

PUSH_SECONDS: Final = 0.05
"""How long changes are collected before they are pushed."""

BOTS_SECONDS: Final = 1.0

MAX_UPLOAD: Final = 28 * 1024 * 1024
"""Characters of base64 in an image that a page uploads: 20 MB, as much as the emulator takes."""


class BotsApi(Protocol):
    """The bots that run on the emulator."""

    def bots(self) -> list[dict[str, str]]:
        """Return name, user and display name of each bot."""
        ...

    def lanes(self) -> list[Json]:
        """Return what each bot does in each thread."""
        ...

    def source(self, name: str) -> Json:
        """Return file, first line and text of a handler of the bots; it may block."""
        ...

    async def answer(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        """Answer a request of the admin API."""
        ...

    async def restart(self) -> None:
        """Cut off all tasks of the bots as a kill does, and start them again from what the store holds."""
        ...

    def shift_clock(self, offset: float) -> None:
        """Set the clock of the bots to this machine's plus an offset in seconds."""
        ...


class StoriesApi(Protocol):
    """What the bots do with each event."""

    def all(self) -> list[Json]:
        """Return the latest stories, oldest first."""
        ...

    def listen(self, listener: Callable[[Json], None]) -> Callable[[], None]:
        """Call `listener` with each story that changes; return a function that ends it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Notes:
    """What the playground remembers between runs; its functions may block.

    Args:
        people: Returns users by the names that were given to them.
        save_people: Stores them.
        save_offset: Stores the offset of the clocks, in seconds.
    """

    people: Callable[[], dict[str, str]]
    save_people: Callable[[dict[str, str]], None]
    save_offset: Callable[[float], None]


class Playground:
    """What all pages share. Enter it while pages are served.

    Args:
        emulator: The emulator.
        bots: The bots; None for an emulator without bots.
        stories: What the bots do with each event.
        notes: What is remembered between runs.
        quirks: Name, values and meaning of each quirk.
        record: Returns a thread as a conversation test, `.chat` or pytest; None if that is not possible.
        replay: Replays a thread for a fork; None if that is not possible.
        offset: The offset of the clocks at the start, in seconds.
    """

    def __init__(
        self,
        emulator: EmulatorApi,
        *,
        bots: BotsApi | None,
        stories: StoriesApi | None,
        notes: Notes,
        quirks: list[tuple[str, str, str]],
        record: Callable[[str, str], Awaitable[str]] | None = None,
        replay: Replay | None = None,
        offset: float = 0.0,
    ) -> None:
        self.emulator = emulator
        self.service = ServiceClient(emulator)
        self.bots = bots
        self.stories = stories
        self.notes = notes
        self.quirks = quirks
        self.record = record
        self.replay = replay
        self.offset = offset
        self.views = ThreadViews()
        self.people: dict[str, str] = {}
        self._sessions: set[PageSession] = set()
        self._ends: list[Callable[[], None]] = []
        self._told: dict[str, dict[str, str]] | None = None
        self._loading = anyio.Lock()
        self._tasks: TaskGroup | None = None

    async def __aenter__(self) -> Self:
        self._tasks = await anyio.create_task_group().__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._tasks is not None
        self._stop()
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(kind, error, trace)

    async def serve(self, receive: Callable[[], Awaitable[object]], send: Callable[[str], Awaitable[None]]) -> None:
        """Serve a page until it goes: `receive` returns its next frame, or None once it has gone."""
        session = PageSession(self)
        async with self._loading:
            if not self._sessions:
                await self._start()
            self._sessions.add(session)
        try:
            await session.run(receive, send)
        finally:
            self._sessions.discard(session)
            if not self._sessions:
                self._stop()

    async def _start(self) -> None:
        self._ends.append(self.emulator.observe(self._changed))
        if self.stories is not None:
            self._ends.append(self.stories.listen(self._story_changed))
        self.people = {user: name for name, user in (await run_in_thread(self.notes.people)).items()}
        await self.load()

    def _stop(self) -> None:
        for end in self._ends:
            end()
        self._ends.clear()
        self.views.clear()

    async def load(self) -> None:
        """Read all threads from the emulator."""
        self.views.clear()
        for thread in (await self.service.control("GET", "threads"))["threads"]:
            self.views.load(await self.service.control("GET", f"threads{place(thread)}"))

    def name(self, user: str) -> str:
        """Return the name of a person or bot."""
        return self.people.get(user) or self.views.names.get(user) or user.rsplit("-", 1)[-1]

    def bot_users(self) -> dict[str, dict[str, str]]:
        """Return the bots by their users."""
        return {bot["user"]: bot for bot in self.bots.bots()} if self.bots is not None else {}

    async def add_person(self, name: str) -> str:
        """Create a person; return their user. The same name is the same person."""
        known = {known: user for user, known in self.people.items()}
        if name in known:
            return known[name]
        user = self.emulator.create_user()
        self.people[user] = name
        await run_in_thread(self.notes.save_people, {name: user for user, name in self.people.items()})
        await self.tell_all()
        return user

    async def shift(self, seconds: float) -> None:
        """Advance the clocks of the emulator and of the bots together."""
        offset = self.offset + seconds
        await run_in_thread(self.notes.save_offset, offset)
        self.offset = offset
        # The emulator first: bots whose clock is ahead of the service's would correct it.
        await self.service.control("PUT", "clock", {"offset": offset})
        if self.bots is not None:
            self.bots.shift_clock(offset)
        await self.tell_all()

    async def hello(self) -> Json:
        """Return what every page shows: people, bots, clock, faults and quirks."""
        status = await self.service.control("GET", "status")
        bots = self._told = self.bot_users()
        users = dict(self.people)
        for view in self.views.threads.values():
            for user in view.members:
                users.setdefault(user, self.name(user))
        return {
            "push": "hello",
            "now": self.emulator.now(),
            "offset": self.offset,
            "people": [{"user": user, "name": name} for user, name in users.items() if user not in bots],
            "bots": list(bots.values()),
            "faults": status["faults"],
            "quirks": status["quirks"],
            "quirk_choices": [{"name": n, "values": v, "meaning": m} for n, v, m in self.quirks],
            "quotas": status["quotas"],
            "can_record": self.record is not None,
            "can_fork": self.replay is not None,
            "has_bots": self.bots is not None,
        }

    async def bots_now(self) -> Json:
        """Return what the bots do now, and did in the last minutes.

        Raises:
            ChatbotError: they do not answer.
        """
        assert self.bots is not None
        status = await self.bots.answer({"ask": "status"})
        state = await self.bots.answer({"ask": "state list"})
        letters = await self.bots.answer({"ask": "dead-letters list"})
        return {
            "push": "bots",
            "now": self.emulator.now(),
            "bots": status["bots"],
            "lanes": self.bots.lanes(),
            "entries": state["entries"],
            "letters": letters["letters"],
            "runs": [] if self.stories is None else attempts_of(self.stories.all(), time.time() * 1000),
        }

    async def tell_all(self) -> None:
        """Tell every page what it shows of people, bots, clock and faults."""
        hello = await self.hello()
        for session in self._sessions:
            session.push(hello)

    def _changed(self, kind: str, record: Json) -> None:
        """Take a change of the emulator. It is called in the middle of a request, so everything else is done later."""
        if kind == "replaced":
            assert self._tasks is not None
            self._tasks.start_soon(self._reload)
            return
        if kind == "fault":
            assert self._tasks is not None
            self._tasks.start_soon(self.tell_all)
            return
        if kind == "typing":
            for session in self._sessions:
                session.push({"push": "typing", **record, "name": self.name(record["user"])})
            return
        known = kind == "member" and record["user"] in self.people
        thread = self.views.apply(kind, record)
        if thread is None:
            return
        for session in self._sessions:
            session.note_change(
                thread, record if kind == "message" else None, is_new_person=kind == "member" and not known
            )

    async def _reload(self) -> None:
        await self.load()
        await self.tell_all()
        for session in self._sessions:
            session.show_everything()

    def _story_changed(self, story: Json) -> None:
        # A page that came before the bots, or before a reload, knows others than those that act now.
        if self._told is not None and self.bot_users() != self._told:
            self._told = None
            assert self._tasks is not None
            self._tasks.start_soon(self.tell_all)
        for session in self._sessions:
            session.note_story(story)


class PageSession:
    """One page.

    Args:
        playground: What all pages share.
    """

    def __init__(self, playground: Playground) -> None:
        self._playground = playground
        self._service = playground.service
        self._user = ""
        self._thread = ""
        self._watches_bots = False
        self._threads: dict[str, ThreadView] = {}
        self._messages: dict[str, Json] = {}
        self._stories: dict[int, Json] = {}
        self._is_new_person = False
        self._uploads: list[str] = []
        self._has_changes = anyio.Event()
        self._outgoing, self._waiting = anyio.create_memory_object_stream[str](MAX_WAITING)
        self._scope = anyio.CancelScope()
        self._forks = Forks(playground.replay, self.push)

    async def run(self, receive: Callable[[], Awaitable[object]], send: Callable[[str], Awaitable[None]]) -> None:
        """Answer the page's frames and push changes, until it goes."""
        with self._outgoing, self._waiting:
            async with anyio.create_task_group() as tasks:
                self._scope = tasks.cancel_scope
                tasks.start_soon(self._write, send)
                tasks.start_soon(self._push_changes)
                tasks.start_soon(self._push_bots)
                self.push(await self._playground.hello())
                while (frame := await receive()) is not None:
                    if isinstance(frame, dict):
                        tasks.start_soon(self._answer, frame)
                tasks.cancel_scope.cancel()

    def push(self, frame: Json) -> None:
        """Queue a frame. A page that does not read is disconnected."""
        try:
            self._outgoing.send_nowait(json.dumps(frame))
        except (anyio.WouldBlock, anyio.ClosedResourceError):
            self._scope.cancel()

    def note_change(self, thread: ThreadView, message: Json | None, *, is_new_person: bool) -> None:
        """Remember to push a change soon."""
        self._threads[thread.id] = thread
        self._is_new_person |= is_new_person
        if message is not None and thread.id == self._thread:
            self._messages[str(message["id"])] = message
        self._has_changes.set()

    def note_story(self, story: Json) -> None:
        """Remember to push a story soon."""
        if not self._thread or story["thread"] in (None, self._thread):
            self._stories[story["id"]] = story
            self._has_changes.set()

    def show_everything(self) -> None:
        """Push the list of threads anew."""
        views = self._playground.views.threads.values()
        self.push({"push": "threads", "is_all": True, "threads": [view.summary(self._user) for view in views]})

    async def _write(self, send: Callable[[str], Awaitable[None]]) -> None:
        async for text in self._waiting:
            try:
                await send(text)
            except (OSError, RuntimeError):  # the page has gone; the type of error depends on the server
                self._scope.cancel()
                return

    async def _push_changes(self) -> None:
        while True:
            await self._has_changes.wait()
            await anyio.sleep(PUSH_SECONDS)
            self._has_changes = anyio.Event()
            threads, self._threads = self._threads, {}
            messages, self._messages = self._messages, {}
            stories, self._stories = self._stories, {}
            if self._is_new_person:
                self._is_new_person = False
                self.push(await self._playground.hello())
            if messages:
                found = [shown(message) for message in messages.values()]
                self.push({"push": "messages", "thread": self._thread, "messages": found})
            if threads:
                self.push({"push": "threads", "threads": [view.summary(self._user) for view in threads.values()]})
            for story in stories.values():
                self.push({"push": "story", "story": story})

    async def _push_bots(self) -> None:
        while True:
            if self._watches_bots and self._playground.bots is not None:
                try:
                    self.push(await self._playground.bots_now())
                except ChatbotError as error:
                    self.push({"push": "bots", "error": str(error)})
            await anyio.sleep(BOTS_SECONDS)

    async def _answer(self, frame: Json) -> None:
        number, wanted = frame.get("id"), frame.get("do")
        method = getattr(self, f"do_{wanted}", None) if isinstance(wanted, str) else None
        try:
            if method is None:
                raise Refused(f"the playground cannot {str(wanted)[:40]!r}: reload the page")  # noqa: EM102
            answer = await method(frame)
        except (Refused, ChatbotError) as error:
            self.push({"re": number, "error": str(error)})
        except (KeyError, TypeError, ValueError, AttributeError):
            self.push({"re": number, "error": "the page sent what the playground does not understand: reload it"})
        else:
            self.push({"re": number, "answer": answer or {}})

    def _act_as(self, frame: Json) -> tuple[str, str]:
        return str(frame["user"]), place(str(frame["thread"]))

    # What a page may ask for

    async def do_look(self, frame: Json) -> None:
        """Show threads as a person sees them."""
        self._user = str(frame.get("user") or "")
        self.show_everything()

    async def do_open(self, frame: Json) -> Json:
        """Open a thread: its messages and stories follow."""
        thread = self._playground.views.threads.get(str(frame["thread"]))
        if thread is None:
            self._thread = ""
            message = "there is no such thread any more"
            raise Refused(message)
        self._thread = thread.id
        for page in self._playground.views.pages(thread):
            self.push({"push": "messages", "thread": thread.id, "messages": page})
            await anyio.lowlevel.checkpoint()
        if self._playground.stories is not None:
            for story in self._playground.stories.all():
                if story["thread"] in (None, thread.id):
                    self.push({"push": "story", "story": story})
        return {"count": len(thread.order)}

    async def do_create_person(self, frame: Json) -> Json:
        """Create a person."""
        name = str(frame["name"]).strip()
        if not 0 < len(name) <= 256:
            message = "a name has between 1 and 256 characters"
            raise Refused(message)
        return {"user": await self._playground.add_person(name)}

    async def do_create_thread(self, frame: Json) -> Json:
        """Create a thread with a person and others."""
        user = str(frame["user"])
        people = [person(other, self._playground.name(other)) for other in dict.fromkeys([user, *frame["others"]])]
        for one in people:
            bot = self._playground.bot_users().get(one["communicationIdentifier"]["rawId"])
            if bot is not None:
                one["displayName"] = bot["display_name"]
        made = await self._service.chat(user, "POST", "", {"topic": frame["topic"], "participants": people})
        return {"thread": made["chatThread"]["id"]}

    async def do_send(self, frame: Json) -> Json:
        """Send a message."""
        user, path = self._act_as(frame)
        body = {
            "content": frame["content"],
            "type": frame.get("type", "text"),
            "senderDisplayName": self._playground.name(user),
        }
        if frame.get("metadata"):
            body["metadata"] = frame["metadata"]
        attachments = frame.get("attachments") or []
        if attachments:
            body |= {"attachments": attachments, **with_images(body["content"], body["type"], attachments)}
        version = IMAGES_API_VERSION if attachments else API_VERSION
        return await self._service.chat(user, "POST", f"{path}/messages", body, version=version)

    async def do_upload_part(self, frame: Json) -> None:
        """Keep a part of an image, base64; a frame is too small for a whole one."""
        if frame.get("is_first"):
            self._uploads.clear()
        self._uploads.append(str(frame["data"]))
        if sum(map(len, self._uploads)) > MAX_UPLOAD:
            self._uploads.clear()
            message = "the service takes images of up to 20 MB"
            raise Refused(message)

    async def do_upload(self, frame: Json) -> Json:
        """Upload the image whose parts came before."""
        parts, self._uploads = self._uploads, []
        content = base64.b64decode("".join(parts), validate=True)
        try:
            image = await self._service.upload_image(
                str(frame["user"]), str(frame["thread"]), str(frame["name"]), content
            )
        except Refused as error:
            message = f"{error} (images may be PNG, JPEG, GIF, WebP and HEIC)"
            raise Refused(message) from error
        return {"image": image}

    async def do_image(self, frame: Json) -> Json:
        """Return an image of a thread; a person who is not in it sees it through the eyes of somebody who is."""
        view = self._playground.views.threads[str(frame["thread"])]
        present = [str(member["user"]) for member in view.present()]
        reader = str(frame["user"]) if frame["user"] in present or not present else present[0]
        content = await self._service.image(reader, view.id, str(frame["image"]))
        return {"data": base64.b64encode(content).decode()}

    async def do_edit(self, frame: Json) -> None:
        """Edit a message."""
        user, path = self._act_as(frame)
        body = {key: frame[key] for key in ("content", "metadata") if key in frame}
        await self._service.chat(user, "PATCH", f"{path}/messages{place(frame['message'])}", body)

    async def do_delete(self, frame: Json) -> None:
        """Delete a message."""
        user, path = self._act_as(frame)
        await self._service.chat(user, "DELETE", f"{path}/messages{place(frame['message'])}")

    async def do_topic(self, frame: Json) -> None:
        """Change the topic."""
        user, path = self._act_as(frame)
        await self._service.chat(user, "PATCH", path, {"topic": frame["topic"]})

    async def do_type(self, frame: Json) -> None:
        """Show that a person types."""
        user, path = self._act_as(frame)
        await self._service.chat(user, "POST", f"{path}/typing", {"senderDisplayName": self._playground.name(user)})

    async def do_read(self, frame: Json) -> None:
        """Send a read receipt."""
        user, path = self._act_as(frame)
        await self._service.chat(user, "POST", f"{path}/readReceipts", {"chatMessageId": frame["message"]})

    async def do_add(self, frame: Json) -> None:
        """Add a participant: a person or a bot."""
        user, path = self._act_as(frame)
        other = str(frame["other"])
        bot = self._playground.bot_users().get(other)
        name = bot["display_name"] if bot else self._playground.name(other)
        await self._service.chat(user, "POST", f"{path}/participants/:add", {"participants": [person(other, name)]})

    async def do_remove(self, frame: Json) -> None:
        """Remove a participant, or leave."""
        user, path = self._act_as(frame)
        who = person(str(frame["other"]))["communicationIdentifier"]
        await self._service.chat(user, "POST", f"{path}/participants/:remove", who)

    async def do_delete_thread(self, frame: Json) -> None:
        """Delete the thread for everyone."""
        user, path = self._act_as(frame)
        await self._service.chat(user, "DELETE", path)

    async def do_fault(self, frame: Json) -> None:
        """Put a fault in force: `OPERATION:KIND…` as the emulator reads it."""
        await self._service.control("POST", "faults", {"faults": [frame["fault"]]})
        await self._playground.tell_all()

    async def do_clear_faults(self, _: Json) -> None:
        """End all faults."""
        await self._service.control("DELETE", "faults")
        await self._playground.tell_all()

    async def do_quirk(self, frame: Json) -> None:
        """Set a quirk."""
        await self._service.control("PATCH", "quirks", {frame["name"]: frame["value"]})
        await self._playground.tell_all()

    async def do_quotas(self, frame: Json) -> None:
        """Switch the rate limits on or off."""
        await self._service.control("PUT", "quotas", {"enabled": frame["enabled"]})
        await self._playground.tell_all()

    async def do_advance(self, frame: Json) -> None:
        """Advance the clocks of the emulator and of the bots."""
        seconds = float(frame["seconds"])
        if not 0 < seconds <= 366 * 86_400:
            message = "the clocks go forward, by a year at most"
            raise Refused(message)
        await self._playground.shift(seconds)

    async def do_watch_bots(self, frame: Json) -> None:
        """Push the bots' status every second, or no more."""
        self._watches_bots = frame["on"] is True
        if self._watches_bots and self._playground.bots is not None:
            self.push(await self._playground.bots_now())

    async def do_restart(self, _: Json) -> None:
        """Cut off the bots' tasks, and start them from what is stored."""
        await self._bots.restart()
        await self._playground.tell_all()

    async def do_retry(self, frame: Json) -> Json:
        """Retry a dead letter."""
        answer = await self._ask({"ask": "dead-letters retry", "id": frame["letter"]})
        return {"outcome": answer["letters"][0]["outcome"]}

    async def do_drop(self, frame: Json) -> None:
        """Delete a dead letter."""
        await self._ask({"ask": "dead-letters drop", "id": frame["letter"]})

    async def do_source(self, frame: Json) -> Json:
        """Return where a handler is, and its text."""
        return await run_in_thread(self._bots.source, str(frame["handler"]))

    async def do_record(self, frame: Json) -> Json:
        """Return the thread as a conversation test."""
        if self._playground.record is None:
            message = "there are no bots to test"
            raise Refused(message)
        return {"text": await self._playground.record(str(frame["thread"]), str(frame["form"]))}

    async def do_fork(self, frame: Json) -> Json:
        """Replay the thread with today's code; return old and new answers side by side."""
        return await self._forks.run(frame)

    async def do_stop_fork(self, _: Json) -> None:
        """End the fork that runs."""
        self._forks.stop()

    async def do_fork_story(self, frame: Json) -> Json:
        """Return the stories of a message in the fork."""
        found = self._forks.stories(message=str(frame.get("message") or ""), key=str(frame.get("key") or ""))
        return {"stories": found}

    async def _ask(self, question: Json) -> Mapping[str, Any]:
        return await self._bots.answer(question)

    @property
    def _bots(self) -> BotsApi:
        if self._playground.bots is None:
            message = "there are no bots"
            raise Refused(message)
        return self._playground.bots
